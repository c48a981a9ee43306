package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

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
}

// demoFlags are the flags of demo.
type demoFlags struct {
	dir, token, keys string
	once             bool
	asked            bool // token or keys were named: a demo that is resumed must have them
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
			f.asked = c.Flags().Changed("token") || c.Flags().Changed("keys")
			return t.demo(c.Context(), f)
		},
	}
	c.Flags().StringVar(&f.dir, "dir", "", "keep everything in `DIR` (default: a new temporary folder)")
	c.Flags().StringVar(&f.token, "token", "soft", "`TOKEN` where keys live: soft (encrypted files) or softhsm (PKCS#11)")
	c.Flags().StringVar(&f.keys, "keys", "p256", "`KEYS` of CA, OCSP and TSU: p256, p384, rsa3072 or rsa4096")
	c.Flags().BoolVar(&f.once, "once", false, "do it all once, stop, and end with 0 or 1")
	for flag, values := range map[string][]string{"token": {"soft", "softhsm"}, "keys": {"p256", "p384", "rsa3072", "rsa4096"}} {
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
	d = &demo{tool: t, dir: dir, demoOptions: demoOptions{f.token, f.keys}, temporary: f.dir == "" && f.once}
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
	if f.asked && had != d.demoOptions {
		return nil, false, badInput("resume the demo: %s holds one with --token %s --keys %s: name these, none, or another folder", dir, had.Token, had.Keys)
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
	switch f.keys {
	case "p256", "p384", "rsa3072", "rsa4096":
	default:
		return badInput("read --keys: %q is none of p256, p384, rsa3072, rsa4096", f.keys)
	}
	return nil
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
