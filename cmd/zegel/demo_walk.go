package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/testdata/request"
)

// demo is one demonstration provider.
type demo struct {
	tool *tool
	demoOptions
	dir       string
	temporary bool // dir is removed at the end
	facts     demoFacts
	children  []*child
	done      []step // what was done while the provider was made
}

// step is one line of the demo's table.
type step struct {
	what, result string
	err          error
	repeat       string // the command that does it again
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

func failures(list []step) (n int) {
	for _, s := range list {
		if s.err != nil {
			n++
		}
	}
	return n
}

// serveFiles is the web server of publish/: CRLs and CA certificates.
func (d *demo) serveFiles() (stop func(), err error) {
	at, err := url.Parse(d.facts.CRLURL)
	if err != nil {
		return nil, fmt.Errorf("serve publish/: %w", err)
	}
	l, err := net.Listen("tcp", at.Host)
	if err != nil {
		return nil, fmt.Errorf("serve publish/: %w: is this demo running already?", err)
	}
	s := &http.Server{
		Handler:     http.FileServer(http.Dir(d.facts.PublishDir)),
		ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go s.Serve(l) //nolint:errcheck // ends with stop
	return func() { s.Close() }, nil
}

// startDaemons starts CA, OCSP responder and TSA from their own configurations and waits for each.
func (d *demo) startDaemons(ctx context.Context) error {
	d.facts.PIDs = map[string]int{}
	if err := durable.MkdirAll(d.path("log"), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"ca", "ocsp", "tsa"} {
		c, err := startDaemon(name, d.facts.Configs[name], d.facts.HealthURLs[name], d.path("log", name+".log"))
		if err != nil {
			return err
		}
		d.children = append(d.children, c)
	}
	for _, c := range d.children {
		if err := c.ready(ctx); err != nil {
			return err
		}
		d.tool.note("zegel-%s is ready (pid %d)", c.name, c.cmd.Process.Pid)
	}
	return nil
}

// stopDaemons stops in the opposite order.
func (d *demo) stopDaemons() error {
	var all error
	for i := len(d.children) - 1; i >= 0; i-- {
		all = errors.Join(all, d.children[i].stop())
	}
	return all
}

// issueAll issues one certificate of every subscriber profile, and one more that it revokes.
func (d *demo) issueAll(ctx context.Context) error {
	if err := durable.MkdirAll(d.path("subscribers"), 0o700); err != nil {
		return err
	}
	for _, name := range policy.Builtins() {
		p, err := policy.Builtin(name)
		if err != nil {
			return err
		}
		if p.TakesSubject() {
			if err := d.issueOne(ctx, name, name); err != nil {
				return err
			}
		}
	}
	return d.revokeOne(ctx)
}

// issueOne makes a key and a CSR, and has the CA certify it with the example subject of the profile.
func (d *demo) issueOne(ctx context.Context, profile, file string) error {
	subject, err := request.Example(profile)
	if err != nil {
		return fmt.Errorf("issue %s: %w", profile, err)
	}
	base := d.path("subscribers", file)
	if err := writeKeyAndCSR(base); err != nil {
		return fmt.Errorf("issue %s: %w", profile, err)
	}
	if err := durable.CreateFile(base+".yaml", subject, 0o600); err != nil {
		return err
	}
	f := issueFlags{profile: profile, csr: base + ".csr", subject: base + ".yaml", out: base + ".pem"}
	r, err := f.request(ctx)
	if err != nil {
		return err
	}
	var reply desk.IssueReply
	err = d.tool.withCA(func(ca *desk.Client) (err error) {
		reply, err = ca.Issue(ctx, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("issue %s: %w", profile, err)
	}
	if err := durable.CreateFile(f.out, []byte(reply.Cert), 0o644); err != nil {
		return err
	}
	d.facts.Certificates = append(d.facts.Certificates, demoCertificate{Profile: profile, Serial: reply.Serial,
		Cert: f.out, Key: base + ".key", Issuer: d.facts.Issuer, Status: "good"})
	d.done = append(d.done, step{what: "issued " + file, result: reply.Serial,
		repeat: fmt.Sprintf("zegel issue --profile %s --csr subscribers/%s.csr --subject subscribers/%s.yaml", profile, file, file)})
	return nil
}

// writeKeyAndCSR writes base.key (PKCS#8, 0600) and base.csr, as a subscriber would.
func writeKeyAndCSR(base string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fmt.Errorf("make CSR: %w", err)
	}
	if err := durable.CreateFile(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	return durable.CreateFile(base+".csr", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644)
}

// revokeOne issues one more qcp-n certificate and revokes it.
func (d *demo) revokeOne(ctx context.Context) error {
	if err := d.issueOne(ctx, "qcp-n", "revoked"); err != nil {
		return err
	}
	last := &d.facts.Certificates[len(d.facts.Certificates)-1]
	err := d.tool.withCA(func(ca *desk.Client) error {
		_, err := ca.Revoke(ctx, last.Serial, desk.RevokeRequest{Reason: "keyCompromise", Note: "TEST: the demo revokes one"})
		return err
	})
	if err != nil {
		return fmt.Errorf("revoke %s: %w", last.Serial, err)
	}
	last.Status = "revoked"
	d.done = append(d.done, step{what: "revoked revoked", result: "keyCompromise",
		repeat: "zegel issue --profile qcp-n --csr subscribers/revoked.csr --subject subscribers/revoked.yaml | openssl x509 -noout -serial | " +
			"cut -d= -f2 | xargs zegel revoke --reason keyCompromise"})
	return nil
}

// checkAll asks, as relying parties would: OCSP, CRL, a timestamp, the journal.
func (d *demo) checkAll(ctx context.Context) []step {
	var list []step
	for _, c := range d.facts.Certificates {
		list = append(list, d.checkOCSP(ctx, c))
	}
	return append(list, d.checkNeverIssued(ctx), d.checkCRL(ctx), d.checkTimestamp(ctx), d.checkJournal(ctx))
}

func (d *demo) checkOCSP(ctx context.Context, c demoCertificate) step {
	file := filepath.Base(c.Cert)
	s := step{what: "OCSP of " + strings.TrimSuffix(file, ".pem"),
		repeat: fmt.Sprintf("openssl ocsp -issuer provider/issuing.pem -cert subscribers/%s -url %s -CAfile provider/chain.pem", file, d.facts.OCSPURL)}
	serial, err := hex.DecodeString(c.Serial)
	if err != nil {
		s.err = err
		return s
	}
	s.result, s.err = d.statusBecomes(ctx, new(big.Int).SetBytes(serial), c.Status)
	return s
}

// checkNeverIssued asks for a serial that no CA of the demo gave out: never good (411-1 OVR-6.6.3-02).
func (d *demo) checkNeverIssued(ctx context.Context) step {
	s := step{what: "OCSP of a serial never issued",
		repeat: fmt.Sprintf("openssl ocsp -issuer provider/issuing.pem -serial 0x1234 -url %s -CAfile provider/chain.pem", d.facts.OCSPURL)}
	s.result, s.err = d.statusBecomes(ctx, big.NewInt(0x1234), "unknown")
	return s
}

// statusBecomes asks until OCSP says want: what the CA has just recorded reaches the responder within moments.
func (d *demo) statusBecomes(ctx context.Context, serial *big.Int, want string) (got string, err error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		got, err = d.askOCSP(ctx, serial)
		if err == nil && got == want {
			return got, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return got, errors.Join(err, fmt.Errorf("OCSP says %q, not %q", got, want))
		}
	}
}

// askOCSP asks once, verifies the answer against the issuing CA and returns good, revoked or unknown.
func (d *demo) askOCSP(ctx context.Context, serial *big.Int) (string, error) {
	issuer, err := readCertificates(d.facts.Issuer)
	if err != nil {
		return "", err
	}
	question, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, issuer[0], &ocsp.RequestOptions{Hash: crypto.SHA256})
	if err != nil {
		return "", fmt.Errorf("make OCSP request: %w", err)
	}
	answer, err := fetch(ctx, http.MethodPost, d.facts.OCSPURL, "application/ocsp-request", question)
	if err != nil {
		return "", err
	}
	certID, err := certIDOf(question)
	if err != nil {
		return "", err
	}
	return ocspStatus(answer, certID, issuer[0])
}

// checkCRL fetches the CRL, verifies it, and looks for exactly the revoked certificate.
func (d *demo) checkCRL(ctx context.Context) step {
	s := step{what: "CRL", repeat: fmt.Sprintf("curl -s %s | openssl crl -inform DER -noout -text", d.facts.CRLURL)}
	issuer, err := readCertificates(d.facts.Issuer)
	if err != nil {
		s.err = err
		return s
	}
	raw, err := fetch(ctx, http.MethodGet, d.facts.CRLURL, "", nil)
	if err != nil {
		s.err = err
		return s
	}
	crl, err := x509.ParseRevocationList(raw)
	if err == nil {
		err = crl.CheckSignatureFrom(issuer[0])
	}
	if err != nil {
		s.err = fmt.Errorf("verify CRL: %w", err)
		return s
	}
	listed := map[string]bool{}
	for _, e := range crl.RevokedCertificateEntries {
		listed[hex.EncodeToString(e.SerialNumber.Bytes())] = true
	}
	for _, c := range d.facts.Certificates {
		if listed[strings.TrimLeft(c.Serial, "0")] != (c.Status == "revoked") && listed[c.Serial] != (c.Status == "revoked") {
			s.err = fmt.Errorf("certificate %s is %s, the CRL says otherwise", c.Serial, c.Status)
		}
	}
	s.result = fmt.Sprintf("number %v, %d revoked", crl.Number, len(listed))
	return s
}

// checkTimestamp stamps a file and verifies the token.
func (d *demo) checkTimestamp(ctx context.Context) step {
	file := d.path("example.txt")
	s := step{what: "timestamp of example.txt", repeat: "rm -f example.txt.tsr; zegel timestamp example.txt; zegel verify example.txt.tsr --data example.txt"}
	if err := os.WriteFile(file, []byte("TEST: the text that the demo stamps.\n"), 0o600); err != nil {
		s.err = err
		return s
	}
	c, err := d.tool.loadConfig()
	if err != nil {
		s.err = err
		return s
	}
	if err := os.Remove(file + ".tsr"); err != nil && !errors.Is(err, fs.ErrNotExist) { // an earlier run's
		s.err = err
		return s
	}
	token, err := d.tool.stampFile(ctx, c, file, "sha256")
	if err != nil {
		s.err = err
		return s
	}
	s.result = stamp(token.GenTime) + " ± " + token.Accuracy.String()
	return s
}

// checkJournal has the CA verify its journal.
func (d *demo) checkJournal(ctx context.Context) step {
	s := step{what: "journal of the CA", repeat: "zegel journal verify"}
	r, err := d.tool.journalReport(ctx, verifyWhat{})
	if err == nil && !r.OK {
		err = fmt.Errorf("%d faults, the first: %s", len(r.Faults), r.Faults[0].Fault)
	}
	s.err = err
	s.result = fmt.Sprintf("%d entries, no fault", r.Entries)
	return s
}

// printDemo prints the table, or demo.json's content as JSON. The commands are for a shell in DIR; those of a demo
// that is about to be removed would lead nowhere.
func (t *tool) printDemo(d *demo, list []step) error {
	if t.json {
		return t.printJSON(d.facts)
	}
	rows := [][]string{{"WHAT", "RESULT", "DO IT AGAIN"}}
	for _, s := range list {
		result := s.result
		if s.err != nil {
			result = "FAILED: " + s.err.Error()
		}
		rows = append(rows, []string{s.what, result, s.repeat})
	}
	if d.temporary {
		for i := range rows {
			rows[i] = rows[i][:2]
		}
		return t.table(rows)
	}
	bin, err := sibling("zegel")
	if err != nil {
		return err
	}
	if err := t.table(rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "\nTo do it again, in another terminal:\n  cd %s; export PATH=%s:$PATH ZEGEL_CONFIG=%s\n",
		d.dir, filepath.Dir(bin), d.facts.ZegelConfig)
	return err
}

// maxFetch bounds what the demo reads from its own servers.
const maxFetch = 16 << 20

// fetch does one HTTP exchange and wants 200.
func fetch(ctx context.Context, method, address, contentType string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: HTTP %s", address, resp.Status)
	}
	return answer, nil
}
