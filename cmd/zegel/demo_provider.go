package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/durable"
)

//go:embed ceremony.yaml.tmpl
var ceremonyTemplate string

// softHSMModules are where distributions put SoftHSM 2.
var softHSMModules = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
}

// demoScript fills the ceremony's script in.
type demoScript struct {
	Dir, Provider, Keys                 string
	Scheme, TSUScheme                   der.Scheme // "" with EC keys
	SoftHSMConf, module, tokens         string     // SoftHSMConf and module: "" with soft tokens
	Web, CAAdmin, CAFeed, CAMetrics     string
	OCSP, OCSPAdmin, OCSPMetrics        string
	TSA, TSAHTTPS, TSAAdmin, TSAMetrics string
}

// demoTokens are the demo's tokens. A login opens every key of a token, so each daemon has one of its own, and
// the root another: a daemon that is broken into signs with its own key only.
var demoTokens = []string{"root", "ca", "ocsp", "tsa"}

// label is the CKA_LABEL of a PKCS#11 token.
func label(token string) string { return "zegel-demo-" + token }

// pin is the file with a token's PIN.
func (s demoScript) pin(token string) string { return filepath.Join(s.tokens, token+".pin") }

// Key is the URI of a key pair, or with kind ";type=secret-key" of a key that wraps a journal's.
func (s demoScript) Key(token, object, kind string) string {
	if s.module == "" {
		return s.SoftKey(token, object)
	}
	return fmt.Sprintf("pkcs11:token=%s;object=%s%s?module-path=%s&pin-source=file:%s",
		label(token), object, kind, url.PathEscape(s.module), url.PathEscape(s.pin(token)))
}

// SoftKey is the URI of a key in an encrypted file.
func (s demoScript) SoftKey(token, object string) string {
	return fmt.Sprintf("softtoken:object=%s?dir=%s&pin-source=file:%s",
		object, url.PathEscape(filepath.Join(s.tokens, token)), url.PathEscape(s.pin(token)))
}

// create makes tokens, holds the ceremony and fills in the facts.
func (d *demo) create(ctx context.Context) error {
	d.tool.note("ceremony: new keys (%v) and journals in %s", d.demoOptions, d.dir)
	if err := durable.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if err := d.writeJSON(optionsFile, d.demoOptions); err != nil {
		return err
	}
	s := demoScript{Dir: d.dir, Provider: d.path("provider"), Keys: d.Keys, Scheme: d.SignatureScheme, TSUScheme: d.TSUSignatureScheme, tokens: d.path("tokens")}
	if err := s.choosePorts(); err != nil {
		return err
	}
	if d.Token == "softhsm" {
		if err := s.useSoftHSM(); err != nil {
			return err
		}
	}
	for _, token := range demoTokens {
		if err := s.makeToken(token); err != nil {
			return err
		}
	}
	if err := d.holdCeremony(ctx, s); err != nil {
		return err
	}
	return d.collectFacts(s)
}

// choosePorts takes free loopback ports; the configurations keep them.
func (s *demoScript) choosePorts() error {
	wanted := s.ports()
	ports, err := freePorts(len(wanted))
	if err != nil {
		return err
	}
	for i, p := range ports {
		*wanted[i] = p
	}
	return nil
}

// ports are all addresses of a demo.
func (s *demoScript) ports() []*string {
	return []*string{&s.Web, &s.CAAdmin, &s.CAFeed, &s.CAMetrics, &s.OCSP, &s.OCSPAdmin, &s.OCSPMetrics, &s.TSA, &s.TSAHTTPS, &s.TSAAdmin, &s.TSAMetrics}
}

// randomPIN makes 16 hex digits.
func randomPIN() ([]byte, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("make a PIN: %w", err)
	}
	return []byte(hex.EncodeToString(b)), nil
}

// makeToken makes a PIN, a folder for soft keys and, with SoftHSM, a PKCS#11 token.
func (s demoScript) makeToken(token string) error {
	if err := durable.MkdirAll(filepath.Join(s.tokens, token), 0o700); err != nil {
		return err
	}
	pin, err := randomPIN()
	if err != nil {
		return err
	}
	if err := durable.CreateFile(s.pin(token), pin, 0o600); err != nil {
		return err
	}
	if s.module == "" {
		return nil
	}
	so, err := randomPIN() // a demo never needs the security officer again
	if err != nil {
		return err
	}
	c := hsm.Config{ModuleEnv: map[string]string{"SOFTHSM2_CONF": s.SoftHSMConf}}
	return hsm.InitToken(c, hsm.TokenInit{Module: s.module, Label: label(token), SOPIN: so, PIN: pin})
}

// useSoftHSM finds the module and gives it a configuration of the demo's own.
func (s *demoScript) useSoftHSM() error {
	for _, path := range softHSMModules {
		if _, err := os.Stat(path); err == nil {
			s.module = path
			break
		}
	}
	if s.module == "" {
		return fmt.Errorf("find SoftHSM 2: it is in none of %v: install it (apt-get install softhsm2)", softHSMModules)
	}
	objects := filepath.Join(s.tokens, "softhsm")
	if err := durable.MkdirAll(objects, 0o700); err != nil {
		return err
	}
	s.SoftHSMConf = filepath.Join(s.tokens, "softhsm2.conf")
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", objects)
	return durable.CreateFile(s.SoftHSMConf, []byte(conf), 0o600)
}

// holdCeremony writes the script and runs zegel-ceremony on it.
func (d *demo) holdCeremony(ctx context.Context, s demoScript) error {
	t, err := template.New("ceremony").Option("missingkey=error").Parse(ceremonyTemplate)
	if err != nil {
		return fmt.Errorf("write the ceremony's script: %w", err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, s); err != nil {
		return fmt.Errorf("write the ceremony's script: %w", err)
	}
	script := d.path("ceremony.yaml")
	if err := durable.CreateFile(script, text.Bytes(), 0o600); err != nil {
		return err
	}
	binary, err := sibling("zegel-ceremony")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, binary, "run", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("hold the ceremony (%s run %s): %w\n%s", binary, script, err, out)
	}
	d.done = append(d.done, step{what: "held the ceremony", result: "key-report.json", repeat: "less provider/key-report.json"})
	return nil
}

// collectFacts says where the ceremony put everything.
func (d *demo) collectFacts(s demoScript) error {
	in := func(parts ...string) string { return filepath.Join(append([]string{s.Provider}, parts...)...) }
	d.facts = demoFacts{
		OCSPURL: "http://" + s.OCSP + "/", TSAURL: "http://" + s.TSA + "/", TSAHTTPSURL: "https://" + s.TSAHTTPS + "/",
		TLSCA: in("tls-ca.pem"), CRLURL: "http://" + s.Web + "/issuing.crl", FeedURL: "https://" + s.CAFeed + "/feed",
		AdminURLs:   map[string]string{"ca": "https://" + s.CAAdmin, "ocsp": "https://" + s.OCSPAdmin, "tsa": "https://" + s.TSAAdmin},
		HealthURLs:  map[string]string{"ca": "http://" + s.CAMetrics + "/health", "ocsp": "http://" + s.OCSPMetrics + "/health", "tsa": "http://" + s.TSAMetrics + "/health"},
		MetricsURLs: map[string]string{"ca": "http://" + s.CAMetrics + "/metrics", "ocsp": "http://" + s.OCSPMetrics + "/metrics", "tsa": "http://" + s.TSAMetrics + "/metrics"},
		Root:        in("root.pem"), Issuer: in("issuing.pem"), Chain: in("chain.pem"), TSACert: in("tsu.pem"), TSAChain: in("tsa-chain.pem"),
		OCSPCert: in("ocsp.pem"), RootCRL: in("root.crl"), ZegelConfig: in("zegel.yaml"),
		Configs:    map[string]string{"ca": in("ca.yaml"), "ocsp": in("ocsp.yaml"), "tsa": in("tsa.yaml")},
		Journals:   map[string]string{"ca": in("ca", "journal"), "ocsp": in("ocsp", "journal"), "tsa": in("tsa", "journal")},
		PublishDir: in("publish"),
	}
	d.tool.configPath = d.facts.ZegelConfig
	c, err := d.tool.loadConfig()
	if err != nil {
		return err
	}
	d.facts.TSAPolicy = c.TSA.Policy
	keys, err := os.ReadFile(in("journal-keys.json"))
	if err != nil {
		return fmt.Errorf("read the journals' verifier keys: %w", err)
	}
	if err := json.Unmarshal(keys, &d.facts.JournalKeys); err != nil {
		return fmt.Errorf("read %s: %w", in("journal-keys.json"), err)
	}
	return nil
}
