package main

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha256" // the hashes that --hash names
	_ "crypto/sha3"
	_ "crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/tsa"
)

// imprintHashes are the names of --hash.
var imprintHashes = map[string]crypto.Hash{
	"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512,
	"sha3-256": crypto.SHA3_256, "sha3-384": crypto.SHA3_384, "sha3-512": crypto.SHA3_512,
}

func hashNames() []string {
	var list []string
	for name := range imprintHashes {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func (t *tool) timestampCommand() *cobra.Command {
	var hash string
	c := &cobra.Command{
		Use: "timestamp FILE...", Short: "Have files timestamped",
		Long: `timestamp hashes each FILE, asks the TSA for a timestamp (RFC 3161), verifies the answer
completely and writes it to FILE.tsr: its time has to lie between question and answer, by this
machine's clock, give or take the accuracy and 10 seconds. A FILE.tsr that exists is not
overwritten. Only the hash leaves this machine.`,
		Example: "  zegel timestamp contract.pdf\n  zegel timestamp --hash sha512 *.pdf",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, files []string) error {
			return t.timestamp(c.Context(), files, hash)
		},
	}
	c.Flags().StringVar(&hash, "hash", "sha256", "imprint `HASH`: "+strings.Join(hashNames(), " "))
	_ = c.RegisterFlagCompletionFunc("hash", cobra.FixedCompletions(hashNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// stamped is the JSON of one file's timestamp.
type stamped struct {
	File  string `json:"file"`
	Token string `json:"tsr"`
	*tsa.Timestamp
}

func (t *tool) timestamp(ctx context.Context, files []string, hash string) error {
	if imprintHashes[hash] == 0 {
		return badInput("read --hash: %q is none of %s", hash, strings.Join(hashNames(), " "))
	}
	c, err := t.loadConfig()
	if err != nil {
		return err
	}
	list := []stamped{}
	for _, file := range files {
		if _, err := os.Lstat(file + ".tsr"); err == nil {
			return badInput("timestamp %s: %s.tsr exists: move it away first", file, file)
		}
		if err := writableFolder(file); err != nil {
			return badInput("timestamp %s: %w: the answer is written beside the file", file, err)
		}
		ts, err := t.stampFile(ctx, c, file, hash)
		if err != nil {
			return err
		}
		list = append(list, stamped{File: file, Token: file + ".tsr", Timestamp: ts})
		if !t.json {
			fmt.Fprintf(t.out, "%s.tsr: %s ± %v, serial %s\n", file, ts.GenTime.UTC().Format(time.RFC3339Nano), ts.Accuracy, ts.SerialNumber)
		}
	}
	if t.json {
		return t.printJSON(list)
	}
	return nil
}

// stampFile stamps one file and makes FILE.tsr of the verified answer; one that is there by then stays as it is.
func (t *tool) stampFile(ctx context.Context, c *config, file, hash string) (*tsa.Timestamp, error) {
	digest, err := digestOf(file, imprintHashes[hash])
	if err != nil {
		return nil, err
	}
	r := tsa.Request{Hash: imprintHashes[hash], Digest: digest, Nonce: tsa.NewNonce(), CertReq: true}
	if c.TSA.Policy != "" {
		if r.Policy, err = der.ParseOID(c.TSA.Policy); err != nil {
			return nil, badInput("read tsa.policy of the configuration: %w", err)
		}
	}
	request, err := tsa.NewRequest(r)
	if err != nil {
		return nil, err
	}
	o, err := trustOf(c)
	if err != nil {
		return nil, err
	}
	o.Since = time.Now()
	response, err := t.askTSA(ctx, c, request)
	if err != nil {
		return nil, fmt.Errorf("timestamp %s: %w", file, err)
	}
	o.Now = time.Now()
	o.Hash, o.Digest, o.Nonce, o.Policy = r.Hash, r.Digest, r.Nonce, r.Policy
	ts, err := tsa.Verify(response, o)
	if err != nil {
		return nil, fmt.Errorf("timestamp %s: %w", file, err)
	}
	if err := failpoint.Do(failpoint.WriteTimestamp, func() error { return durable.CreateFile(file+".tsr", response, 0o644) }); err != nil {
		return nil, fmt.Errorf("timestamp %s: %w", file, err)
	}
	return ts, nil
}

func digestOf(file string, hash crypto.Hash) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, badInput("read the file to stamp: %w", err)
	}
	defer f.Close()
	h := hash.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, badInput("read the file to stamp: %w", err)
	}
	return h.Sum(nil), nil
}

// askTSA does the HTTP exchange of RFC 3161 §3.4.
func (t *tool) askTSA(ctx context.Context, c *config, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.TSA.URL, bytes.NewReader(request))
	if err != nil {
		return nil, badInput("read tsa.url of the configuration: %w", err)
	}
	r.Header.Set("Content-Type", "application/timestamp-query")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: t.publicTLS(c), DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the TSA: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, tsa.MaxResponse+1))
	if err != nil {
		return nil, fmt.Errorf("ask the TSA: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the TSA: %s answers HTTP %s", c.TSA.URL, resp.Status)
	}
	return body, nil
}

// publicTLS trusts the system's certificates and the provider's own TLS CA where the configuration names one.
func (t *tool) publicTLS(c *config) *tls.Config {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if text, err := os.ReadFile(c.CA.CA); err == nil {
		pool.AppendCertsFromPEM(text)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
}

// trustOf takes roots and chain of the TSA from the configuration.
func trustOf(c *config) (o tsa.VerifyOptions, err error) {
	if o.Roots, err = poolOf(c.TSA.Root); err != nil {
		return o, err
	}
	if c.TSA.Chain != "" {
		o.Certificates, err = readCertificates(c.TSA.Chain)
	}
	return o, err
}

func (t *tool) verifyCommand() *cobra.Command {
	var data, root string
	var chain []string
	c := &cobra.Command{
		Use: "verify FILE.tsr", Short: "Verify a timestamp",
		Long: `verify checks a timestamp answer or bare token completely: structure, signature, the binding to
the TSU's certificate, its extended key usage and chain at the time of the token, that this time
is not in the future, and with --data that the file is the one that was stamped. It fetches
nothing: whether the TSU's certificate was revoked is not checked.

Roots come from --root, else from the configuration. Exit status 1 when it does not verify.`,
		Example: "  zegel verify contract.pdf.tsr --data contract.pdf\n  zegel verify contract.pdf.tsr --root root.pem --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.verify(c.Context(), args[0], data, root, chain)
		},
	}
	c.Flags().StringVar(&data, "data", "", "`FILE` that was stamped")
	c.Flags().StringVar(&root, "root", "", "trust the certificates in this `FILE`, not the configuration's")
	c.Flags().StringSliceVar(&chain, "chain", nil, "certificates the token may lack: TSU and CAs above it, `FILE`s")
	return c
}

func (t *tool) verify(ctx context.Context, path, data, root string, chain []string) error {
	token, err := readInput(ctx, path, tsa.MaxResponse)
	if err != nil {
		return badInput("read timestamp: %w", err)
	}
	o, err := t.verifyOptions(root, chain)
	if err != nil {
		return err
	}
	o.Now = time.Now()
	if data != "" {
		f, err := os.Open(data)
		if err != nil {
			return badInput("read the stamped file: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return badInput("read the stamped file: %s is a directory", data)
		}
		o.Data = f
	}
	ts, err := tsa.Verify(token, o)
	if errors.Is(err, der.ErrNotDER) {
		return badInput("read timestamp %s: %w", path, err)
	}
	var stranger x509.UnknownAuthorityError
	if errors.As(err, &stranger) {
		return fmt.Errorf("%w: name the root that you trust with --root, the CAs between with --chain", err)
	}
	if err != nil {
		return err
	}
	if t.json {
		return t.printJSON(verified{true, ts, notChecked})
	}
	return t.printTimestamp(path, data, ts)
}

// verified is the JSON of a timestamp that verifies.
type verified struct {
	OK bool `json:"ok"`
	*tsa.Timestamp
	Revocation string `json:"revocation"`
}

// notChecked is what verify says of revocation: it asks neither OCSP nor a CRL.
const notChecked = "not checked"

// verifyOptions takes what to trust from the flags, else from the configuration.
func (t *tool) verifyOptions(root string, chain []string) (o tsa.VerifyOptions, err error) {
	if root == "" {
		c, err := t.loadConfig()
		if err != nil {
			return o, err
		}
		if o, err = trustOf(c); err != nil {
			return o, err
		}
	} else if o.Roots, err = poolOf(root); err != nil {
		return o, err
	}
	for _, path := range chain {
		list, err := readCertificates(path)
		if err != nil {
			return o, err
		}
		o.Certificates = append(o.Certificates, list...)
	}
	return o, nil
}

func (t *tool) printTimestamp(path, data string, ts *tsa.Timestamp) error {
	bound := "not compared: name the stamped file with --data"
	if ts.DataCompared {
		bound = data
	}
	return t.table([][]string{
		{"verified", path}, {"data", bound},
		{"time", ts.GenTime.UTC().Format(time.RFC3339Nano) + " ± " + ts.Accuracy.String()},
		{"imprint", ts.Hash + " " + ts.Imprint}, {"policy", ts.Policy}, {"qualified", fmt.Sprint(ts.Qualified)},
		{"serial", ts.SerialNumber}, {"unit", ts.Unit}, {"signature", ts.Signature},
		{"revocation", notChecked + ": ask OCSP or the CRL about the TSU's certificate"},
	})
}
