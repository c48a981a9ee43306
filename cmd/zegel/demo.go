package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/durable"
)

// Files in the folder of a demo.
const (
	factsFile     = "demo.json"      // where everything is, once it is up
	lastFactsFile = "demo.json.last" // the same of the last run, while the next is coming up
	optionsFile   = "options.json"   // what it was made with, from the first moment
)

// demoOptions are what a demo is made with.
type demoOptions struct {
	Token string `json:"token"`
	Keys  string `json:"keys"`
	// What RSA keys sign with; "" with EC keys.
	SignatureScheme    der.Scheme `json:"signature_scheme,omitempty"`     // CA, root and issuing, and OCSP responder
	TSUSignatureScheme der.Scheme `json:"tsu_signature_scheme,omitempty"` // TSU
}

// demoKeys are the values of --keys.
var demoKeys = []string{"p256", "p384", "p521", "rsa3072", "rsa4096"}

// complete gives RSA keys their schemes where none is named, also to a demo of a version that knew no other.
func (o demoOptions) complete() demoOptions {
	if strings.HasPrefix(o.Keys, "rsa") {
		o.SignatureScheme, o.TSUSignatureScheme = cmp.Or(o.SignatureScheme, der.PKCS1v15), cmp.Or(o.TSUSignatureScheme, der.PKCS1v15)
	}
	return o
}

// String is o as flags.
func (o demoOptions) String() string {
	text := fmt.Sprintf("--token %s --keys %s", o.Token, o.Keys)
	if o.SignatureScheme != "" {
		text += fmt.Sprintf(" --signature-scheme %s --tsu-signature-scheme %s", o.SignatureScheme, o.TSUSignatureScheme)
	}
	return text
}

// demoFlags are the flags of demo.
type demoFlags struct {
	dir, token, keys  string
	scheme, tsuScheme string
	once              bool
	asked             bool // one of the options was named: a demo that is resumed must have them
}

func (t *tool) demoCommand() *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use: "demo", Short: "Run a whole trust service provider on this machine", Args: cobra.NoArgs,
		Long: `demo holds a key ceremony, starts the CA, the OCSP responder and the TSA on free loopback ports,
issues a certificate of every subscriber profile (every subject says TEST), revokes one, checks
OCSP and CRL, stamps and verifies a file, and prints what it did with the command that repeats
each line. DIR/demo.json says where everything is.

It stays up until interrupted; with --once it stops everything and ends with 0 or 1. A DIR that
holds a demo is resumed. Keys and clock of a demo are for tests: nothing it signs is qualified.`,
		Example: "  zegel demo\n  zegel demo --once --token softhsm --keys rsa3072\n  zegel demo --dir demo",
		RunE: func(c *cobra.Command, _ []string) error {
			f.asked = slices.ContainsFunc([]string{"token", "keys", "signature-scheme", "tsu-signature-scheme"}, c.Flags().Changed)
			return t.demo(c.Context(), f)
		},
	}
	c.Flags().StringVar(&f.dir, "dir", "", "keep everything in `DIR` (default: a new temporary folder)")
	c.Flags().StringVar(&f.token, "token", "soft", "`TOKEN` where keys live: soft (encrypted files) or softhsm (PKCS#11)")
	c.Flags().StringVar(&f.keys, "keys", "p256", "`KEYS` of CA, OCSP and TSU: p256, p384, p521, rsa3072 or rsa4096")
	c.Flags().StringVar(&f.scheme, "signature-scheme", "", "`SCHEME` of CA and OCSP with RSA keys: pkcs1v15 (default) or pss")
	c.Flags().StringVar(&f.tsuScheme, "tsu-signature-scheme", "", "`SCHEME` of the TSU with an RSA key: pkcs1v15 (default) or pss, which openssl ts cannot verify")
	c.Flags().BoolVar(&f.once, "once", false, "do it all once, stop, and end with 0 or 1")
	schemes := []string{string(der.PKCS1v15), string(der.PSS)}
	for flag, values := range map[string][]string{"token": {"soft", "softhsm"}, "keys": demoKeys, "signature-scheme": schemes, "tsu-signature-scheme": schemes} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

// demo is the whole demonstration, in order.
func (t *tool) demo(ctx context.Context, f demoFlags) (err error) {
	d, fresh, err := t.openDemo(ctx, f)
	if err != nil {
		return err
	}
	if d.temporary {
		defer func() {
			if err == nil { // a failed demo is left to be looked at
				err = os.RemoveAll(d.dir)
			}
		}()
	}
	defer func() { err = errors.Join(err, d.stopDaemons()) }()

	stopWeb, err := d.serveFiles()
	if err != nil {
		return err
	}
	defer stopWeb()
	if err := d.startDaemons(ctx); err != nil {
		return err
	}
	if fresh {
		if err := d.issueAll(ctx); err != nil {
			return err
		}
	}
	checks := d.checkAll(ctx)
	if err := d.writeFacts(); err != nil {
		return err
	}
	if err := t.printDemo(d, append(d.done, checks...)); err != nil {
		return err
	}
	if failed := failures(checks); failed > 0 && f.once {
		return fmt.Errorf("demo: %d of its checks failed", failed)
	}
	if f.once {
		return nil
	}
	t.note("\nThe provider is up; %s says where everything is. Ctrl-C stops it.", d.path(factsFile))
	<-ctx.Done()
	t.note("stopping")
	return nil
}

// openDemo makes a new demo in DIR (holding the ceremony) or opens the one that is there.
func (t *tool) openDemo(ctx context.Context, f demoFlags) (d *demo, fresh bool, err error) {
	if err := f.validate(); err != nil {
		return nil, false, err
	}
	dir := f.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "zegel-demo-"); err != nil {
			return nil, false, fmt.Errorf("make a folder for the demo: %w", err)
		}
	}
	if dir, err = absolute(dir); err != nil {
		return nil, false, err
	}
	d = &demo{tool: t, dir: dir, demoOptions: f.options(), temporary: f.dir == "" && f.once}
	switch entries, err := os.ReadDir(dir); {
	case err != nil && !os.IsNotExist(err):
		return nil, false, badInput("open the demo: %w", err)
	case len(entries) == 0:
		return d, true, d.create(ctx)
	}
	var had demoOptions
	if err := d.readJSON(optionsFile, &had); err != nil {
		return nil, false, badInput("open the demo: %s is not empty and holds no demo: name another folder", dir)
	}
	if had = had.complete(); f.asked && had != d.demoOptions {
		return nil, false, badInput("resume the demo: %s holds one with %v: name these, none, or another folder", dir, had)
	}
	d.demoOptions = had
	if !d.cameUp() {
		t.note("%s holds a demo that never came up: starting it again from nothing", dir)
		if err := d.removeUnfinished(); err != nil {
			return nil, false, err
		}
		return d, true, d.create(ctx)
	}
	t.note("resuming the demo in %s", dir)
	return d, false, d.resume(ctx)
}

func (f demoFlags) validate() error {
	switch f.token {
	case "soft", "softhsm":
	default:
		return badInput("read --token: %q is none of soft, softhsm", f.token)
	}
	if !slices.Contains(demoKeys, f.keys) {
		return badInput("read --keys: %q is none of %s", f.keys, strings.Join(demoKeys, ", "))
	}
	for flag, scheme := range map[string]string{"signature-scheme": f.scheme, "tsu-signature-scheme": f.tsuScheme} {
		switch der.Scheme(scheme) {
		case "":
		case der.PKCS1v15, der.PSS:
			if !strings.HasPrefix(f.keys, "rsa") {
				return badInput("read --%s: it is a choice of RSA keys (RFC 8017 §8), and --keys is %s: leave it out, or name rsa3072 or rsa4096", flag, f.keys)
			}
		default:
			return badInput("read --%s: %q is neither %s nor %s", flag, scheme, der.PKCS1v15, der.PSS)
		}
	}
	return nil
}

func (f demoFlags) options() demoOptions {
	return demoOptions{f.token, f.keys, der.Scheme(f.scheme), der.Scheme(f.tsuScheme)}.complete()
}

// demoFacts is demo.json: where everything is, with absolute paths. Scripts of others read it.
type demoFacts struct {
	OCSPURL      string            `json:"ocsp_url"`
	TSAURL       string            `json:"tsa_url"`
	TSAHTTPSURL  string            `json:"tsa_https_url"`
	TLSCA        string            `json:"tls_ca"`
	CRLURL       string            `json:"crl_url"`
	FeedURL      string            `json:"feed_url"`
	AdminURLs    map[string]string `json:"admin_urls"`
	HealthURLs   map[string]string `json:"health_urls"`
	MetricsURLs  map[string]string `json:"metrics_urls"`
	Root         string            `json:"root"`
	Issuer       string            `json:"issuer"`
	Chain        string            `json:"chain"`
	TSACert      string            `json:"tsa_cert"`
	TSAChain     string            `json:"tsa_chain"`
	OCSPCert     string            `json:"ocsp_cert"`
	RootCRL      string            `json:"root_crl"`
	TSAPolicy    string            `json:"tsa_policy"`
	ZegelConfig  string            `json:"zegel_config"`
	Configs      map[string]string `json:"configs"`
	PIDs         map[string]int    `json:"pids"`
	Journals     map[string]string `json:"journals"`
	JournalKeys  map[string]string `json:"journal_keys"`
	PublishDir   string            `json:"publish_dir"`
	Certificates []demoCertificate `json:"certificates"`
}

// demoCertificate is one subscriber certificate of the demo.
type demoCertificate struct {
	Profile string `json:"profile"`
	Serial  string `json:"serial"`
	Cert    string `json:"cert"`
	Key     string `json:"key"`
	Issuer  string `json:"issuer"`
	Status  string `json:"status"`
}

// writeFacts writes demo.json: from then on the demo counts as ready.
func (d *demo) writeFacts() error {
	for _, c := range d.children {
		d.facts.PIDs[c.name] = c.cmd.Process.Pid
	}
	if err := d.writeJSON(factsFile, d.facts); err != nil {
		return err
	}
	if err := os.Remove(d.path(lastFactsFile)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("write demo.json: %w", err)
	}
	return nil
}

// cameUp reports whether the demo was ever ready.
func (d *demo) cameUp() bool {
	_, up := os.Stat(d.path(factsFile))
	_, again := os.Stat(d.path(lastFactsFile))
	return up == nil || again == nil
}

// resume takes everything from the last run's demo.json; addresses and files are as they were. The file is put aside meanwhile,
// because whoever waits for it waits until all is ready. Daemons that somebody left running would answer in the place of ours, so they
// are looked for first.
func (d *demo) resume(ctx context.Context) error {
	err := d.readJSON(factsFile, &d.facts)
	if os.IsNotExist(err) {
		err = d.readJSON(lastFactsFile, &d.facts)
	}
	if err != nil {
		return badInput("resume the demo: %w", err)
	}
	for name, address := range d.facts.HealthURLs {
		if answers(ctx, address) {
			return fmt.Errorf("resume the demo: a zegel-%s answers at %s already (pid %d?): stop what is left of the earlier run first", name, address, d.facts.PIDs[name])
		}
	}
	if err := os.Rename(d.path(factsFile), d.path(lastFactsFile)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("resume the demo: %w", err)
	}
	d.tool.configPath = d.facts.ZegelConfig
	return nil
}

// removeUnfinished removes what a demo that never came up left: all of it was made by that demo.
func (d *demo) removeUnfinished() error {
	for _, name := range []string{"tokens", "provider", "provider.unfinished", "subscribers", "log", "ceremony.yaml", "example.txt", "example.txt.tsr", optionsFile} {
		if err := os.RemoveAll(d.path(name)); err != nil {
			return fmt.Errorf("remove the unfinished demo: %w", err)
		}
	}
	return nil
}

// readJSON reads a file of the demo's folder.
func (d *demo) readJSON(name string, into any) error {
	text, err := os.ReadFile(d.path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", d.path(name), err)
	}
	return nil
}

// writeJSON writes one whole or not at all.
func (d *demo) writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := durable.WriteFile(d.path(name), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
