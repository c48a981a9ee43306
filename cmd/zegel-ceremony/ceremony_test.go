package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/strictyaml"
	"github.com/zegel-tsp/zegel/policy"
)

// room is a folder with the example script, a PIN and a place for keys.
type room struct {
	dir, script, output string
}

// newRoom takes the example script of the manual; edit is pairs of old and new text.
func newRoom(t *testing.T, edit ...string) room {
	t.Helper()
	dir := t.TempDir()
	r := room{dir, filepath.Join(dir, "script.yaml"), filepath.Join(dir, "provider")}
	text, err := os.ReadFile("../../testdata/ceremony/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.NewReplacer("/var/lib/zegel-test-keys", dir+"/keys", "/etc/zegel-test/pin", dir+"/pin", "/var/lib/zegel-test", r.output).Replace(string(text))
	for i := 0; i < len(edit); i += 2 {
		if !strings.Contains(moved, edit[i]) {
			t.Fatalf("the example script lacks %q", edit[i])
		}
		moved = strings.ReplaceAll(moved, edit[i], edit[i+1])
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(r.script, moved)
	write(filepath.Join(dir, "pin"), "1234-test-pin\n")
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

// hold is `zegel-ceremony run`, but for soft tokens whose PIN protects little and whose files therefore open quickly.
func (r room) hold(t *testing.T) (stdout, stderr string, err error) {
	t.Helper()
	var out, progress bytes.Buffer
	p, err := makePlan(r.script)
	if err != nil {
		return "", "", withStatus(err)
	}
	p.tokens.SoftWorkFactor = 1
	err = withStatus(p.run(t.Context(), &out, &progress))
	return out.String(), progress.String(), err
}

// execute is the command itself.
func (r room) execute(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, progress bytes.Buffer
	err = execute(t.Context(), append([]string{"run", r.script}, args...), &out, &progress)
	return out.String(), progress.String(), err
}

func (r room) path(name string) string { return filepath.Join(r.output, name) }

func certificates(t *testing.T, path string) []*x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		t.Fatalf("%s holds no certificate", path)
	}
	return list
}

// snapshot is every file below dir with its digest.
func snapshot(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	files := make(map[string][32]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = sha256.Sum256(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestCeremony holds the ceremony of the manual's example once, and lets each judge look at what came out.
func TestCeremony(t *testing.T) {
	r := newRoom(t)
	stdout, stderr, err := r.hold(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	if strings.TrimSpace(stdout) != r.output {
		t.Errorf("stdout %q, want the output folder", stdout)
	}
	t.Run("files", r.judgeFiles)
	t.Run("openssl", r.judgeOpenSSL)
	t.Run("report", r.judgeReport)
	t.Run("journals", r.judgeJournals)
	t.Run("configs", r.judgeConfigs)
	t.Run("TLS", r.judgeTLS)
	t.Run("second run", r.judgeSecondRun)
}

func (r room) judgeFiles(t *testing.T) {
	var got []string
	for path := range snapshot(t, r.output) {
		name, err := filepath.Rel(r.output, path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(name, "journal/") {
			got = append(got, name)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		secret := strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".yaml") || name == "key-report.json"
		if secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	slices.Sort(got)
	want := []string{
		"ca.yaml", "chain.pem", "issuing.pem", "journal-keys.json", "key-report.json", "ocsp.pem", "ocsp.yaml",
		"officers/auditor.key", "officers/auditor.pem", "officers/auditor.yaml", "officers/operator.key", "officers/operator.pem", "officers/operator.yaml",
		"officers/registrar.key", "officers/registrar.pem", "officers/registrar.yaml", "officers/security.key", "officers/security.pem", "officers/security.yaml",
		"publish/issuing.cer", "publish/issuing.crl", "publish/root.cer", "publish/root.crl",
		"root.crl", "root.pem", "tls-ca.pem", "tls/ca.key", "tls/ca.pem", "tls/feed.key", "tls/feed.pem", "tls/ocsp.key", "tls/ocsp.pem",
		"tls/tsa.key", "tls/tsa.pem", "tsa-chain.pem", "tsa.yaml", "tsu.pem", "zegel.yaml",
	}
	if !slices.Equal(got, want) {
		t.Errorf("files\n%q\nwant\n%q", got, want)
	}
	if _, err := os.Stat(r.output + ".unfinished"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the unfinished folder is still there")
	}
}

func (r room) judgeOpenSSL(t *testing.T) {
	for _, args := range [][]string{
		{"verify", "-x509_strict", "-CAfile", "root.pem", "issuing.pem"},
		{"verify", "-x509_strict", "-CAfile", "root.pem", "-CRLfile", "root.crl", "-crl_check", "issuing.pem"},
		{"verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-CRLfile", "root.crl", "-CRLfile", "publish/issuing.crl", "-crl_check_all", "ocsp.pem"},
		{"verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "tsa-chain.pem", "-purpose", "timestampsign", "tsu.pem"},
		{"verify", "-x509_strict", "-CAfile", "tls-ca.pem", "-purpose", "sslserver", "-verify_ip", "127.0.0.1", "tls/ca.pem"},
		{"verify", "-x509_strict", "-CAfile", "tls-ca.pem", "-purpose", "sslclient", "officers/registrar.pem"},
	} {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = r.output
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for name, der := range map[string]string{"root.pem": "publish/root.cer", "issuing.pem": "publish/issuing.cer"} {
		raw, err := os.ReadFile(r.path(der))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(raw, certificates(t, r.path(name))[0].Raw) {
			t.Errorf("%s and %s differ", name, der)
		}
	}
	for _, name := range []string{"root.crl", "publish/root.crl", "publish/issuing.crl"} {
		der, err := os.ReadFile(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		if crl.Number.Uint64() != 1 || len(crl.RevokedCertificateEntries) != 0 {
			t.Errorf("%s has number %v and %d entries: want one CRL, empty", name, crl.Number, len(crl.RevokedCertificateEntries))
		}
	}
	chain := certificates(t, r.path("chain.pem"))
	if len(chain) != 2 || !chain[0].Equal(certificates(t, r.path("issuing.pem"))[0]) || !chain[1].Equal(certificates(t, r.path("root.pem"))[0]) {
		t.Error("chain.pem is not issuing CA and root")
	}
}

func (r room) judgeReport(t *testing.T) {
	text, err := os.ReadFile(r.path("key-report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report keyReport
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	fingerprints := make(map[string]string)
	for _, k := range report.Keys {
		fingerprints[k.Key] = k.PublicKeySHA256
		if strings.Contains(k.URI, "pin") {
			t.Errorf("the report tells where the PIN is: %s", k.URI)
		}
	}
	for key, file := range map[string]string{"root": "root.pem", "issuing": "issuing.pem", "ocsp": "ocsp.pem", "tsu": "tsu.pem", "management": "tls-ca.pem"} {
		cert := certificates(t, r.path(file))[0]
		if want := fmt.Sprintf("%x", sha256.Sum256(cert.RawSubjectPublicKeyInfo)); fingerprints[key] != want {
			t.Errorf("key %s has public key digest %q in the report, %s has %s", key, fingerprints[key], file, want)
		}
	}
	if len(report.Keys) != 9 || len(report.Officers) != 4 || len(report.Participants) != 2 || report.Date.IsZero() {
		t.Errorf("report is incomplete: %+v", report)
	}
}

func (r room) judgeJournals(t *testing.T) {
	text, err := os.ReadFile(r.path("key-report.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, certificates := range map[string]uint64{"ca": 4, "tsa": 0} {
		j, err := journal.OpenReadOnly(r.path(name + "/journal"))
		if err != nil {
			t.Fatal(err)
		}
		first, err := j.Entry(0)
		if err != nil {
			t.Fatal(err)
		}
		held, ok := first.Event.(journal.CeremonyHeld)
		if !ok || held.ReportDigest != sha256.Sum256(text) || held.Actor == (journal.Actor{}) {
			t.Errorf("journal %s begins with %+v", name, first.Event)
		}
		report, err := j.Verify(t.Context())
		if err != nil || !report.OK || report.Certificates != certificates {
			t.Errorf("journal %s: %+v %v", name, report, err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
	replica, err := journal.OpenReplica(r.path("ocsp/journal"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if replica.Size() != 0 {
		t.Errorf("the replica holds %d entries before anybody followed", replica.Size())
	}
	if err := replica.Close(); err != nil {
		t.Error(err)
	}
}

// The configurations as design and API have them: what is not in these structs would be refused by the daemons.
type (
	pemFile   struct{ Certificate string }
	keyConfig struct {
		Certificate, Chain, Key string
		SignatureScheme         der.Scheme `yaml:"signature_scheme"`
	}
	caConfig struct {
		daemon.Common `yaml:",inline"`
		Instance      uint8
		Issuer        keyConfig
		Journal       daemon.Journal
		URLs          struct {
			CRL       string
			OCSP      string
			CAIssuers string `yaml:"ca_issuers"`
			PDS       []pds
		}
		Publish struct {
			Dir         string
			CRLFile     string `yaml:"crl_file"`
			Every, Life time.Duration
		}
		Feed      daemon.TLSListener
		Followers []string
	}
	ocspConfig struct {
		daemon.Common `yaml:",inline"`
		Listen        string
		Replica       struct {
			Dir        string
			JournalKey string `yaml:"journal_key"`
		}
		Feed struct {
			URL              string
			daemon.TLSClient `yaml:",inline"`
		}
		Issuer     pemFile
		Responder  keyConfig
		StatusLife time.Duration `yaml:"status_life"`
	}
	tsaConfig struct {
		daemon.Common `yaml:",inline"`
		Unit          keyConfig
		Policy        string
		Policies      []string
		Accuracy      time.Duration
		Qualified     bool
		Journal       daemon.Journal
		HTTP          daemon.Listener
		HTTPS         daemon.TLSListener
	}
	zegelConfig struct {
		CA struct {
			URL              string
			daemon.TLSClient `yaml:",inline"`
		}
		OCSP         struct{ URL, Admin string }
		TSA          struct{ URL, Admin, Policy, Chain, Root string }
		Issuer, Root string
		CRL          string
		Tokens       daemon.TokenSettings
	}
)

func load[C any](t *testing.T, path string) *C {
	t.Helper()
	c, _, err := daemon.LoadConfig[C](path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r room) judgeConfigs(t *testing.T) {
	ca, ocsp, tsa := load[caConfig](t, r.path("ca.yaml")), load[ocspConfig](t, r.path("ocsp.yaml")), load[tsaConfig](t, r.path("tsa.yaml"))
	for name, c := range map[string]daemon.Common{"ca": ca.Common, "ocsp": ocsp.Common, "tsa": tsa.Common} {
		if err := c.Validate(nil); err != nil {
			t.Errorf("%s.yaml: %v", name, err)
		}
		if key, err := desk.ValidateOfficers(c.Officers, true); err != nil || len(c.Officers) != 4 {
			t.Errorf("%s.yaml: %d officers: %s: %v", name, len(c.Officers), key, err)
		}
	}
	if err := errors.Join(ca.Journal.Validate("journal"), tsa.Journal.Validate("journal"), ca.Feed.Validate("feed", true), tsa.HTTPS.Validate("https", false)); err != nil {
		t.Error(err)
	}
	if ca.Publish.Every != 12*time.Hour || ca.Publish.Life != 24*time.Hour || ca.Publish.CRLFile != "issuing.crl" || ocsp.StatusLife != 12*time.Hour ||
		tsa.Accuracy != time.Second || tsa.Policy != "0.4.0.2023.1.1" || !tsa.Qualified || len(ca.URLs.PDS) != 1 {
		t.Errorf("defaults did not reach the configs: %+v %+v %+v", ca.Publish, ocsp, tsa)
	}
	var keys map[string]string
	text, err := os.ReadFile(r.path("journal-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	if keys["ca"] == "" || keys["tsa"] == "" || ocsp.Replica.JournalKey != keys["ca"] {
		t.Errorf("journal keys %v, the replica follows %q", keys, ocsp.Replica.JournalKey)
	}
	feed := certificates(t, r.path("tls/feed.pem"))[0]
	if want := fmt.Sprintf("%x", sha256.Sum256(feed.Raw)); !slices.Equal(ca.Followers, []string{want}) {
		t.Errorf("followers %v, want %s", ca.Followers, want)
	}
	// The keys that the configs name open, and are those of the certificates.
	tokens := hsm.New(hsm.Config{ModuleEnv: ca.ModuleEnv})
	defer tokens.Close()
	for file, uri := range map[string]string{ca.Issuer.Certificate: ca.Issuer.Key, ocsp.Responder.Certificate: ocsp.Responder.Key, tsa.Unit.Certificate: tsa.Unit.Key} {
		key, err := tokens.Key(uri)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(spki, certificates(t, file)[0].RawSubjectPublicKeyInfo) {
			t.Errorf("%s is not the certificate of %s", file, uri)
		}
	}
	mine := load[zegelConfig](t, r.path("zegel.yaml"))
	first := load[zegelConfig](t, r.path("officers/security.yaml"))
	if !reflect.DeepEqual(mine, first) || mine.CA.URL != "https://127.0.0.1:8101" || mine.TSA.Admin != "https://127.0.0.1:8301" || mine.CRL != ca.URLs.CRL {
		t.Errorf("zegel.yaml: %+v", mine)
	}
}

func (r room) judgeTLS(t *testing.T) {
	officer := daemon.TLSClient{CA: r.path("tls-ca.pem"), Certificate: r.path("officers/security.pem"), Key: r.path("officers/security.key")}
	client, err := officer.Config()
	if err != nil {
		t.Fatal(err)
	}
	client.ServerName = "127.0.0.1"
	server, err := load[caConfig](t, r.path("ca.yaml")).Admin.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		done <- errors.Join(c.(*tls.Conn).Handshake(), c.Close())
	}()
	c, err := tls.Dial("tcp", listener.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func (r room) judgeSecondRun(t *testing.T) {
	before := snapshot(t, r.dir)
	_, _, err := r.hold(t)
	if daemon.ExitStatus(err) != 2 || !strings.Contains(err.Error(), "is not empty: nothing is overwritten") {
		t.Errorf("second run: %v", err)
	}
	if after := snapshot(t, r.dir); !mapsEqual(before, after) {
		t.Error("the second run changed files")
	}
}

func mapsEqual(a, b map[string][32]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func TestCheckTouchesNothing(t *testing.T) {
	r := newRoom(t)
	before := snapshot(t, r.dir)
	stdout, _, err := r.execute(t, "--check")
	if err != nil || stdout != r.script+": good\n" {
		t.Errorf("%q %v", stdout, err)
	}
	if !mapsEqual(before, snapshot(t, r.dir)) {
		t.Error("--check changed files")
	}
}

// TestOutputMayExistEmpty also shows other keys than the example's.
func TestOutputMayExistEmpty(t *testing.T) {
	r := newRoom(t, "algorithm: p256", "algorithm: p384", `officers:`, "validity_days: {root: 3000, issuing: 2000, ocsp: 30, tsu: 1000, tls: 90}\nhosts: {ca: ca.zegel.test}\nofficers:")
	if err := os.Mkdir(r.output, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := r.hold(t); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	for file, days := range map[string]float64{"root.pem": 3000, "issuing.pem": 2000, "ocsp.pem": 30, "tsu.pem": 1000} {
		cert := certificates(t, r.path(file))[0]
		if got := (cert.NotAfter.Sub(cert.NotBefore).Hours() + 1.0/3600) / 24; got > days || got < days-0.01 {
			t.Errorf("%s lives %.3f days, want %v", file, got, days)
		}
	}
	if got := certificates(t, r.path("tls/ca.pem"))[0].DNSNames; !slices.Equal(got, []string{"ca.zegel.test"}) {
		t.Errorf("the CA's TLS certificate is for %v", got)
	}
	if got := load[ocspConfig](t, r.path("ocsp.yaml")).Feed.URL; got != "https://ca.zegel.test:8102/feed" {
		t.Errorf("feed URL %s", got)
	}
}

// TestCeremonyWithPSS has each key sign with the scheme of its own, from the first signature on, and the daemons go on with it.
func TestCeremonyWithPSS(t *testing.T) {
	r := newRoom(t, "algorithm: p256", "algorithm: rsa3072")
	text, err := os.ReadFile(r.script)
	if err != nil {
		t.Fatal(err)
	}
	var edited strings.Builder
	for line := range strings.Lines(string(text)) {
		for object, scheme := range map[string]string{"root": "pss", "issuing": "pss", "tsu": "pkcs1v15"} {
			if strings.Contains(line, "object="+object+"?") {
				line = strings.Replace(line, "algorithm: rsa3072", "algorithm: rsa3072, signature_scheme: "+scheme, 1)
			}
		}
		edited.WriteString(line)
	}
	if err := os.WriteFile(r.script, []byte(edited.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := r.hold(t); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	r.judgeRehearsal(t)
	t.Run("openssl", r.judgeOpenSSL)
	t.Run("configs", r.judgeConfigs)
	for _, name := range []string{"root.pem", "issuing.pem", "ocsp.pem", "tsu.pem"} {
		cert := certificates(t, r.path(name))[0]
		if cert.SignatureAlgorithm != x509.SHA256WithRSAPSS || cert.PublicKeyAlgorithm != x509.RSA {
			t.Errorf("%s is signed with %v for a key of %v", name, cert.SignatureAlgorithm, cert.PublicKeyAlgorithm)
		}
	}
	if cert := certificates(t, r.path("tls-ca.pem"))[0]; cert.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("the management CA signs with %v", cert.SignatureAlgorithm)
	}
	for _, name := range []string{"root.crl", "publish/issuing.crl"} {
		raw, err := os.ReadFile(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if crl, err := x509.ParseRevocationList(raw); err != nil || crl.SignatureAlgorithm != x509.SHA256WithRSAPSS {
			t.Errorf("%s: %v", name, err)
		}
	}
	ca, ocsp, tsa := load[caConfig](t, r.path("ca.yaml")), load[ocspConfig](t, r.path("ocsp.yaml")), load[tsaConfig](t, r.path("tsa.yaml"))
	if ca.Issuer.SignatureScheme != der.PSS || ocsp.Responder.SignatureScheme != "" || tsa.Unit.SignatureScheme != der.PKCS1v15 {
		t.Errorf("configs: CA %q, OCSP %q, TSA %q", ca.Issuer.SignatureScheme, ocsp.Responder.SignatureScheme, tsa.Unit.SignatureScheme)
	}
}

// judgeRehearsal wants the rehearsal to draft what will be signed: policy judges the signature algorithm, too.
func (r room) judgeRehearsal(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(r.script)
	if err != nil {
		t.Fatal(err)
	}
	var s script
	if err := strictyaml.Decode(r.script, text, &s); err != nil {
		t.Fatal(err)
	}
	s.withDefaults()
	p := &plan{script: s}
	rehearsal := rehearsal{plan: p, now: time.Now(), keys: make(map[string]crypto.PublicKey)}
	root, err := rehearsal.draft(p.rootOrder(), policy.Issuer{})
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := rehearsal.draft(p.issuingOrder(), issuerFrom(root, p.rootURLs()))
	if err != nil {
		t.Fatal(err)
	}
	tsu, err := rehearsal.draft(p.tsuOrder(), issuerFrom(issuing, p.issuingURLs()))
	if err != nil {
		t.Fatal(err)
	}
	for _, cert := range []*x509.Certificate{root, issuing, tsu} {
		if cert.SignatureAlgorithm != x509.SHA256WithRSAPSS {
			t.Errorf("%s is rehearsed with %v", cert.Subject.CommonName, cert.SignatureAlgorithm)
		}
	}
}

// TestCeremonyOnSoftHSM keeps the keys of the qualified hierarchy in a PKCS#11 token.
func TestCeremonyOnSoftHSM(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	r := newRoom(t)
	text, err := os.ReadFile(r.script)
	if err != nil {
		t.Fatal(err)
	}
	moved := string(text)
	for _, object := range []string{"root", "issuing", "ocsp", "tsu", "ca-wrap", "tsa-wrap"} {
		soft := fmt.Sprintf("softtoken:object=%s?dir=%[2]s/keys&pin-source=file:%[2]s/pin", object, r.dir)
		if !strings.Contains(moved, soft) {
			t.Fatalf("the script lacks %s", soft)
		}
		moved = strings.ReplaceAll(moved, soft, token.URI(object))
	}
	moved = strings.ReplaceAll(moved, "instance: 1", fmt.Sprintf("instance: 1\nmodule_env: {SOFTHSM2_CONF: %q}\n"+
		"tokens: {certifications: [{manufacturer: SoftHSM project, model: SoftHSM v2, standard: cc, reference: TEST-1}]}", token.Config.ModuleEnv["SOFTHSM2_CONF"]))
	moved = strings.ReplaceAll(moved, "algorithm: p256", "algorithm: rsa3072")
	if err := os.WriteFile(r.script, []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := r.hold(t); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	t.Run("openssl", r.judgeOpenSSL)
	t.Run("report", r.judgeReport)
	t.Run("configs", r.judgeConfigs)
	var report keyReport
	text, err = os.ReadFile(r.path("key-report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	for _, k := range report.Keys {
		if k.Software == slices.Contains([]string{"root", "issuing", "ocsp", "tsu", "ca_wrap", "tsa_wrap"}, k.Key) {
			t.Errorf("key %s: software %v", k.Key, k.Software)
		}
		if !k.Software && !(k.Sensitive && k.NeverExtractable && k.GeneratedOnToken && k.SerialNumber != "") {
			t.Errorf("key %s is not on the token as it should be: %+v", k.Key, k.KeyInfo)
		}
		if !k.Software && (k.ID == "" || !strings.HasPrefix(k.Origin, "CKM_") || k.Certification != "cc TEST-1") {
			t.Errorf("key %s: the report lacks id, origin or certification: %+v", k.Key, k.KeyInfo)
		}
	}
	if len(report.Tokens) != 2 || report.Tokens[0].SerialNumber == "" || !report.Tokens[0].RNG || !report.Tokens[1].Software {
		t.Errorf("the report has the tokens %+v", report.Tokens)
	}
	if legacy := strings.Join(report.Warnings, ";"); strings.Count(legacy, "is legacy") != 4 {
		t.Errorf("the report warns %q", legacy)
	}
	for _, name := range []string{"ca.yaml", "zegel.yaml", "officers/security.yaml"} {
		if text, err := os.ReadFile(r.path(name)); err != nil || !strings.Contains(string(text), "reference: TEST-1") {
			t.Errorf("%s does not know the certification: %v", name, err)
		}
	}
}

// A qualified provider's keys are made on certified devices only; what will have to be done is said to all, and stands in the report.
func TestCertifiedDevices(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	bare := hsm.New(token.Config)
	facts, err := bare.Token(token.URI("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.Close(); err != nil {
		t.Fatal(err)
	}
	soft := "softtoken:object=x?dir=/keys&pin-source=file:/pin"
	day := func(years int) string { return time.Now().AddDate(years, 0, 0).UTC().Format(time.DateOnly) }
	fits := func(ends string) []hsm.Certification {
		return []hsm.Certification{{Manufacturer: facts.Manufacturer, Model: facts.Model, Standard: hsm.EUCC, Reference: "TEST-1", Ends: ends}}
	}
	other := fits("")
	other[0].Model = "another"
	for name, c := range map[string]struct {
		list    []hsm.Certification
		refused string // under assurance: qualified
		warning string // in either case
	}{
		"for years":        {fits(day(5)), "", ""},
		"without an end":   {fits(""), "", ""},
		"soon over":        {fits(day(1)), "", "its certification eucc TEST-1 ends on " + day(1)},
		"over":             {fits(day(-1)), "its certification eucc TEST-1 ended on " + day(-1), "ended on " + day(-1)},
		"of another model": {other, "has no certification that the configuration knows", ""},
		"none":             {nil, "has no certification that the configuration knows", ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := token.Config
			config.Certifications = c.list
			tokens := hsm.New(config)
			defer func() {
				if err := tokens.Close(); err != nil {
					t.Error(err)
				}
			}()
			for _, assurance := range []string{daemon.AssuranceTest, daemon.AssuranceQualified} {
				p := &plan{script: script{Assurance: assurance}, clock: clock.Unverified(time.Second)}
				for _, uri := range []*string{&p.Keys.Root.URI, &p.Keys.CACheckpoint.URI, &p.Keys.CAWrap.URI, &p.Keys.OCSP.URI, &p.Keys.TSU.URI, &p.Keys.TSAWrap.URI, &p.Keys.TSACheckpoint.URI, &p.Keys.Management.URI} {
					*uri = soft
				}
				p.Keys.Issuing.URI = token.URI("issuing")
				var said bytes.Buffer
				ceremony := &ceremony{plan: p, tokens: tokens, progress: &said}
				err := ceremony.checkCertifications()
				refused := c.refused
				if assurance == daemon.AssuranceTest {
					refused = ""
				}
				if (err == nil) != (refused == "") || !strings.Contains(fmt.Sprint(err), refused) && refused != "" {
					t.Errorf("%s: %v, want %q", assurance, err, refused)
				}
				if err != nil {
					continue
				}
				if got := strings.Join(ceremony.warnings, ";"); (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) || !strings.Contains(said.String(), got) {
					t.Errorf("%s: warnings %q, said %q, want %q", assurance, got, said.String(), c.warning)
				}
				if len(ceremony.devices) != 2 || ceremony.devices[1].SerialNumber != facts.SerialNumber {
					t.Errorf("%s: devices %+v", assurance, ceremony.devices)
				}
			}
		})
	}
}

// A token that cannot sign by RSASSA-PSS is found before any key is made on it.
func TestTokenWithoutPSS(t *testing.T) {
	s := &script{}
	s.Keys.Root = keyURI{URI: "root", SignatureScheme: der.PSS}
	s.Keys.Issuing = keyURI{URI: "issuing", SignatureScheme: der.PKCS1v15}
	for _, test := range []struct{ without, want string }{
		{"root", `keys.root.signature_scheme: token "root" does not sign by RSASSA-PSS`}, {"issuing", ""}, {"ocsp", ""},
	} {
		err := s.checkSchemes(func(uri string) (hsm.TokenInfo, error) {
			return hsm.TokenInfo{Label: uri, PSS: uri != test.without}, nil
		})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s without PSS: %v", test.without, err)
		}
	}
}

// Of two ceremonies for one output the one that comes later leaves the folder of the other alone.
func TestSecondCeremonyTouchesNothing(t *testing.T) {
	r := newRoom(t)
	p, err := makePlan(r.script)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(p.stage, 0o755); err != nil { // the other has begun since
		t.Fatal(err)
	}
	err = p.run(t.Context(), io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "another ceremony") || strings.Contains(err.Error(), "move") || strings.Contains(err.Error(), "what was made so far") {
		t.Errorf("%v", err)
	}
	if names, err := os.ReadDir(p.stage); err != nil || len(names) > 0 {
		t.Errorf("in the other's folder: %v, %v", names, err)
	}
}

func TestStoppedCeremonySaysWhatIsLeft(t *testing.T) {
	r := newRoom(t)
	// The TSU's key exists already: generation stops in the middle.
	tokens := hsm.New(hsm.Config{})
	if _, err := tokens.Generate(fmt.Sprintf("softtoken:object=tsu?dir=%[1]s/keys&pin-source=file:%[1]s/pin", r.dir), hsm.P256); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := r.execute(t)
	if daemon.ExitStatus(err) != 1 || !errors.Is(err, hsm.ErrExists) {
		t.Fatalf("error %v, want one that wraps ErrExists", err)
	}
	for _, want := range []string{"stopped at: generate keys", "key tsu", "3 keys were generated", "root: softtoken:object=root in " + r.dir, "ocsp: softtoken:object=ocsp", "destroy them", r.output + ".unfinished", "was not touched"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "softtoken:object=tsu in") {
		t.Error("the error claims a key that the ceremony did not make")
	}
	if _, err := os.Stat(r.output); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a stopped ceremony made the output folder")
	}
	if _, err := os.Stat(filepath.Join(r.output+".unfinished", "FAILED.txt")); err != nil {
		t.Error(err)
	}
	// A second attempt does not stumble on in the same folder.
	if _, _, err := r.execute(t); daemon.ExitStatus(err) != 2 || !strings.Contains(err.Error(), "an earlier ceremony stopped half-way") {
		t.Errorf("second attempt: %v", err)
	}
	// One that was killed left no word, or is still at work: nobody is sent to read a file that is not there.
	if err := os.Remove(filepath.Join(r.output+".unfinished", "FAILED.txt")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.execute(t); daemon.ExitStatus(err) != 2 || !strings.Contains(err.Error(), "look on the tokens") || strings.Contains(err.Error(), "read its") {
		t.Errorf("after one that was killed: %v", err)
	}
}

// A key that was made but could not be opened again is one that exists.
func TestKeyMadeButNotOpened(t *testing.T) {
	c := &ceremony{}
	for _, err := range []error{hsm.ErrExists, fmt.Errorf("open it: %w", hsm.ErrMade)} {
		if got := c.notMade("root", "pkcs11:token=t;object=root?pin-source=file:/pin", err); !errors.Is(got, err) {
			t.Errorf("got %v", got)
		}
	}
	if !slices.Equal(c.generated, []string{"root: pkcs11:token=t;object=root"}) {
		t.Errorf("listed %q", c.generated)
	}
}

// An officer who brings a request keeps the key: the ceremony certifies it and makes none.
func TestOfficerWithRequest(t *testing.T) {
	r := newRoom(t)
	request := func(name string, key crypto.Signer) string {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(r.script)
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit ...string) {
		if err := os.WriteFile(r.script, []byte(strings.NewReplacer(edit...).Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := request("registrar.csr", key)
	with("name: registrar", "name: registrar\n    csr: "+path, "name: auditor", "name: auditor\n    csr: "+path)
	if _, err := makePlan(r.script); daemon.ExitStatus(err) != 2 || !strings.Contains(err.Error(), "officers[3].csr: its key is that of registrar already") {
		t.Errorf("one key for two: %v", err)
	}
	with("name: registrar", "name: registrar\n    csr: "+r.script)
	if _, err := makePlan(r.script); daemon.ExitStatus(err) != 2 || !strings.Contains(err.Error(), "officers[1].csr:") {
		t.Errorf("no request: %v", err)
	}
	with("name: registrar", "name: registrar\n    csr: "+path)
	if _, stderr, err := r.hold(t); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	cert := certificates(t, r.path("officers/registrar.pem"))[0]
	if !key.PublicKey.Equal(cert.PublicKey) || cert.Subject.CommonName != "registrar" {
		t.Errorf("certified %v for %s", cert.PublicKey, cert.Subject)
	}
	if _, err := os.Stat(r.path("officers/registrar.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key file beside the officer's own key: %v", err)
	}
	if _, err := os.Stat(r.path("officers/auditor.key")); err != nil {
		t.Errorf("the officer without a request: %v", err)
	}
	root, issuing, tsu := certificates(t, r.path("root.pem"))[0], certificates(t, r.path("issuing.pem"))[0], certificates(t, r.path("tsu.pem"))[0]
	if first := [3]byte{root.SerialNumber.Bytes()[0], issuing.SerialNumber.Bytes()[0], tsu.SerialNumber.Bytes()[0]}; first != [3]byte{rootInstance, rootInstance, 1} {
		t.Errorf("serials of the two CAs begin %x", first)
	}
}

// Whatever the script calls a token, the tokens themselves say whether it is one.
func TestSeparateTokens(t *testing.T) {
	one := hsmtest.SoftHSM(t)
	one.Init(t, "second")
	two := *one
	two.Label = "second"
	tokens := hsm.New(one.Config)
	defer func() {
		if err := tokens.Close(); err != nil {
			t.Error(err)
		}
	}()
	facts, err := tokens.Token(one.URI("x"))
	if err != nil {
		t.Fatal(err)
	}
	bySerial := strings.Replace(one.URI("ocsp"), "token=", "serial="+facts.SerialNumber+";x-token=", 1)
	soft := "softtoken:object=x?dir=/keys&pin-source=file:/pin"
	for name, c := range map[string]struct {
		root, issuing, wrap, ocsp, tsu string
		want                           string
	}{
		"all apart":                {two.URI("root"), one.URI("issuing"), one.URI("wrap"), soft, soft, ""},
		"OCSP and TSU share":       {soft, soft, soft, one.URI("ocsp"), one.URI("tsu"), ""},
		"root with issuing":        {one.URI("root"), one.URI("issuing"), soft, soft, soft, "keys.issuing.uri: the key is on the token of keys.root"},
		"root with a wrapping key": {one.URI("root"), two.URI("issuing"), one.URI("wrap"), soft, soft, "keys.ca_wrap.uri: the key is on the token of keys.root"},
		"issuing with OCSP":        {two.URI("root"), one.URI("issuing"), soft, one.URI("ocsp"), soft, "keys.ocsp.uri: the key is on the token of keys.issuing"},
		"issuing with TSU":         {soft, one.URI("issuing"), soft, soft, one.URI("tsu"), "keys.tsu.uri: the key is on the token of keys.issuing"},
		"under two names":          {soft, one.URI("issuing"), soft, bySerial, soft, "keys.ocsp.uri: the key is on the token of keys.issuing"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plan{script: script{Assurance: daemon.AssuranceQualified}}
			k := &p.Keys
			k.Root.URI, k.Issuing.URI, k.CAWrap.URI, k.OCSP.URI, k.TSU.URI = c.root, c.issuing, c.wrap, c.ocsp, c.tsu
			k.CACheckpoint.URI, k.TSAWrap.URI, k.TSACheckpoint.URI, k.Management.URI = soft, soft, soft, soft
			ceremony := &ceremony{plan: p, tokens: tokens}
			err := ceremony.checkSeparation()
			if c.want == "" && err != nil || !strings.HasPrefix(fmt.Sprint(err), c.want) && c.want != "" {
				t.Errorf("the tokens: %v", err)
			}
			if name == "under two names" {
				c.want = "" // the script alone cannot tell
			}
			err = p.validateTokens()
			if c.want == "" && err != nil || !strings.HasPrefix(fmt.Sprint(err), c.want) && c.want != "" {
				t.Errorf("the script: %v", err)
			}
			p.Assurance = daemon.AssuranceTest
			if err := ceremony.checkSeparation(); err != nil {
				t.Errorf("assurance test: %v", err)
			}
		})
	}
}

// TestEveryStepStops breaks off before each step and finds the output untouched, and every key that exists named.
func TestEveryStepStops(t *testing.T) {
	for n := range (&ceremony{}).steps() {
		r := newRoom(t)
		p, err := makePlan(r.script)
		if err != nil {
			t.Fatal(err)
		}
		p.tokens.SoftWorkFactor = 1 // the PIN protects nothing here
		ctx, cancel := context.WithCancel(t.Context())
		err = p.run(ctx, &bytes.Buffer{}, &stopAfter{n, cancel})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped before step %d: %v", n, err)
		}
		keys, err2 := os.ReadDir(filepath.Join(r.dir, "keys"))
		if err2 != nil {
			t.Fatal(err2)
		}
		if got := strings.Count(err.Error(), "softtoken:object="); got != len(keys) {
			t.Errorf("stopped before step %d: %d keys exist, %d are named:\n%v", n, len(keys), got, err)
		}
		if _, err := os.Stat(r.output); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stopped before step %d: output exists", n)
		}
	}
}

// stopAfter cancels when line n (from 0) of the progress is written, which is before step n begins.
type stopAfter struct {
	n      int
	cancel context.CancelFunc
}

func (s *stopAfter) Write(line []byte) (int, error) {
	if s.n--; s.n < 0 {
		s.cancel()
	}
	return len(line), nil
}

func TestScriptRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		edit   []string
		status int
		want   string
	}{
		{"unknown key", []string{"clock: unverified", "clok: unverified"}, 2, `script.yaml:10: clok: unknown key; did you mean "clock"?`},
		{"doubled key", []string{"instance: 1", "instance: 1\ninstance: 2"}, 2, "script.yaml:12: instance: the key is there twice"},
		{"relative output", []string{"output: /", "output: ."}, 2, "script.yaml:8: output:"},
		{"instance", []string{"instance: 1", "instance: 128"}, 2, "script.yaml:11: instance: 128"},
		{"the root's instance", []string{"instance: 1", "instance: 127"}, 2, "127 is the root's"},
		{"request of an officer", []string{"name: auditor", "name: auditor\n    csr: auditor.csr"}, 2, "officers[3].csr:"},
		{"no such request", []string{"name: auditor", "name: auditor\n    csr: /no/such.csr"}, 2, "officers[3].csr:"},
		{"assurance", []string{"assurance: test", "assurance: high"}, 2, "script.yaml:9: assurance:"},
		{"software keys of a qualified provider", []string{"assurance: test", "assurance: qualified", "clock: unverified", "clock: system"}, 2, "keys.ca_wrap.uri: a software key"},
		{"role of a participant", []string{"role: witness", "role: guest"}, 2, `ceremony.participants[1].role: "guest"`},
		{"no organization", []string{"organization: TEST Trust Services B.V.", `organization: ""`}, 2, "provider.organization: no value"},
		{"root and issuing CA of one name", []string{"TEST Issuing CA 1", "TEST Root CA"}, 2, "provider.issuing: root and issuing CA"},
		{"origin", []string{"zegel.test/ca", "https://zegel.test/ca"}, 2, "journals.ca:"},
		{"one origin twice", []string{"zegel.test/tsa", "zegel.test/ca"}, 2, "journals.tsa: both journals"},
		{"key URI", []string{"softtoken:object=root?", "softtoken:label=root?"}, 2, "script.yaml:41: keys.root.uri:"},
		{"one key twice", []string{"softtoken:object=tsu?", "softtoken:object=ocsp?"}, 2, "keys.tsu.uri: it is the key of keys.ocsp already"},
		{"key group", []string{"softtoken:object=root?", "pkcs11:token=b;object=root softtoken:object=root?"}, 2, "keys.root.uri: a key group"},
		{"key inside the output", []string{"/keys&", "/provider/keys&"}, 2, "the key would lie in the output folder"},
		{"algorithm", []string{`pin", algorithm: p256`, `pin", algorithm: p224`}, 2, "algorithm: key algorithm p224 is none of the table: take p256"},
		{"algorithm that few can read", []string{`pin", algorithm: p256`, `pin", algorithm: brainpoolP384r1`}, 2, "GnuTLS and programs in Go cannot read the certificate"},
		{"backup of a file", []string{`pin", algorithm: p256`, `pin", algorithm: p256, backup: true`}, 2, ".backup: the key is a file"},
		{"RSA too short", []string{`pin", algorithm: p256`, `pin", algorithm: rsa2048`}, 2, "ETSI TS 119 312 V2.1.1 table 6"},
		{"scheme with an EC key", []string{`pin", algorithm: p256`, `pin", algorithm: p384, signature_scheme: pss`}, 2, "signature_scheme: signature scheme pss is one of RSA keys"},
		{"scheme misspelt", []string{`pin", algorithm: p256`, `pin", algorithm: rsa3072, signature_scheme: PSS`}, 2, "write pkcs1v15 or pss"},
		{"scheme of the management key", []string{`pin", algorithm: p256`, `pin", algorithm: rsa3072, signature_scheme: pss`}, 2, "keys.management.signature_scheme: the management key has no choice"},
		{"scheme of a wrapping key", []string{"pin\"}\n  ca_checkpoint", "pin\", signature_scheme: pss}\n  ca_checkpoint"}, 2, "signature_scheme"},
		{"algorithm for checkpoints", []string{`pin", algorithm: p256`, `pin", algorithm: ed25519`}, 2, "it signs checkpoints alone"},
		{"https CRL", []string{"crl: http://127.0.0.1:8001/issuing", "crl: https://127.0.0.1:8001/issuing"}, 2, "urls.crl:"},
		{"http PDS", []string{"https://zegel.test/pds", "http://zegel.test/pds"}, 2, "urls.pds[0].url:"},
		{"no English PDS", []string{"language: en", "language: nl"}, 2, "urls.pds: no disclosure statement in English"},
		{"language", []string{"language: en", "language: English"}, 2, "urls.pds[0].language:"},
		{"address", []string{`admin: "127.0.0.1:8101"`, `admin: "127.0.0.1"`}, 2, "listen.ca.admin:"},
		{"port 0", []string{`admin: "127.0.0.1:8101"`, `admin: "127.0.0.1:0"`}, 2, `listen.ca.admin: port "0"`},
		{"one address twice", []string{"127.0.0.1:8102", "127.0.0.1:8101"}, 2, "listen.ca.feed: 127.0.0.1:8101 is the address of listen.ca.admin already"},
		{"host that nobody can call", []string{"127.0.0.1:8101", "0.0.0.0:8101"}, 2, "hosts.ca: nobody can call 0.0.0.0"},
		{"CRL times", []string{"officers:\n", "crl: {every: 36h, life: 48h}\nofficers:\n"}, 2, "crl.every: 36h0m0s"},
		{"CRL life", []string{"officers:\n", "crl: {every: 12h, life: 12h}\nofficers:\n"}, 2, "crl.life: 12h0m0s"},
		{"root CRL", []string{"officers:\n", "crl: {root_life: 9000h}\nofficers:\n"}, 2, "crl.root_life: 9000h0m0s"},
		{"status life", []string{"officers:\n", "status_life: 25h\nofficers:\n"}, 2, "status_life: 25h0m0s"},
		{"policy", []string{"officers:\n", "tsa: {policy: 0.4.x}\nofficers:\n"}, 2, `tsa.policy: "0.4.x"`},
		{"other policy", []string{"officers:\n", "tsa: {policies: [9.9]}\nofficers:\n"}, 2, `tsa.policies[0]: "9.9"`},
		{"accuracy", []string{"officers:\n", "tsa: {accuracy: 2s}\nofficers:\n"}, 2, "tsa.accuracy: 2s"},
		{"life of TLS", []string{"officers:\n", "validity_days: {tls: 400}\nofficers:\n"}, 2, "validity_days.tls: 400"},
		{"negative life", []string{"officers:\n", "validity_days: {root: -1}\nofficers:\n"}, 2, "validity_days.root: -1"},
		{"name of an officer", []string{"name: auditor", "name: ../auditor"}, 2, "officers[3].name:"},
		{"officer twice", []string{"name: auditor", "name: Registrar"}, 2, `officers[3].name: "Registrar" is there twice`},
		{"role", []string{"roles: [system_auditor]", "roles: [auditor]"}, 2, `officers[3].roles[0]: "auditor" is no role`},
		{"country", []string{"country: NL", "country: XX"}, 3, "countryName"},
		{"organizationIdentifier", []string{"NTRNL-12345678", "12345678"}, 3, "EN 319 412-1"},
		{"life beyond the profile", []string{"officers:\n", "validity_days: {ocsp: 3000}\nofficers:\n"}, 3, "rehearse ocsp-responder"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRoom(t, test.edit...)
			before := snapshot(t, r.dir)
			_, _, err := r.execute(t)
			if daemon.ExitStatus(err) != test.status || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("exit status %d, error %v; want %d, %q", daemon.ExitStatus(err), err, test.status, test.want)
			}
			if test.status == 2 && !strings.HasPrefix(fmt.Sprint(err), r.script+":") {
				t.Errorf("the error does not begin with the file: %v", err)
			}
			if !mapsEqual(before, snapshot(t, r.dir)) {
				t.Error("a refused script changed files")
			}
		})
	}
}

func TestQualifiedScript(t *testing.T) {
	hardware := []string{"assurance: test", "assurance: qualified", "clock: unverified", "clock: system", "softtoken:object=", "pkcs11:token=t;object=", "?dir=", "?x-dir=",
		"token=t;object=root", "token=r;object=root", "token=t;object=issuing", "token=i;object=issuing", "    roles: [", "    csr: /requests/it.csr\n    roles: [",
		"  location: TEST", "  dual_control: TEST, two of three operator cards\n  location: TEST",
		"instance: 1", "instance: 1\ntokens: {certifications: [{manufacturer: TEST, model: T1, standard: cc, reference: TEST-1, ends: 2029-06-30}]}"}
	for _, test := range []struct {
		name, want string
		edit       []string
	}{
		{"good", "", nil},
		{"no procedure", "ceremony.procedure: no document", []string{"procedure: Key ceremony procedure 1.0", `procedure: ""`}},
		{"no place", "ceremony.location: no place", []string{"location: TEST, no secured room", `location: ""`}},
		{"no security officer in the room", "ceremony.participants: no security_officer", []string{"role: security_officer", "role: system_operator"}},
		{"witness of the house", "ceremony.participants: no external witness", []string{"external: true", "external: false"}},
		{"auditor who operates", "officers[3].roles: a system_auditor", []string{"roles: [system_auditor]", "roles: [system_auditor, system_operator]"}},
		{"issuing CA on the TSU's token", "keys.tsu.uri: the key is on the token of keys.issuing", []string{"token=t;object=tsu", "token=i;object=tsu"}},
		{"root on the responder's token", "keys.ocsp.uri: the key is on the token of keys.root", []string{"token=t;object=ocsp", "token=r;object=ocsp"}},
		{"officer without a request", "officers[3].csr: no request", []string{"    csr: /requests/it.csr\n    roles: [system_auditor]", "    roles: [system_auditor]"}},
		{"PIN in the script", "keys.ca_checkpoint.uri: a pin-value under", []string{"pin-source=file:", "pin-value=s3cr3t&x-pin="}},
		{"devices without a certification", "tokens.certifications: none", []string{"tokens: {certifications: [{manufacturer: TEST, model: T1, standard: cc, reference: TEST-1, ends: 2029-06-30}]}", ""}},
		{"certified by what counts no more", "tokens.certifications[0].standard: FIPS 140-2", []string{"standard: cc", "standard: fips140-2"}},
		{"certification without an id", "tokens.certifications[0].reference: no value", []string{"reference: TEST-1, ", ""}},
		{"end that is no day", "tokens.certifications[0].ends: ", []string{"ends: 2029-06-30", "ends: 30-06-2029"}},
		{"one person opens the token", "keys.root.uri: one person could open this token", []string{"  dual_control: TEST, two of three operator cards\n", ""}},
		{"one share with two", "ceremony.participants[1].share: share 2 is with TEST", []string{"role: security_officer", "role: security_officer\n      share: 2", "role: witness", "role: witness\n      share: 2"}},
		{"no such share", "ceremony.participants[1].share: 17: ", []string{"role: witness", "role: witness\n      share: 17"}},
		{"no file of shares", "keys.root.uri: ", []string{"pin-source=file:", "pin-source=shares:"}},
		{"nobody holds it", "officers: none is a security_officer", []string{"roles: [security_officer]", "roles: [system_operator]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRoom(t, append(slices.Clone(hardware), test.edit...)...)
			text, err := os.ReadFile(r.script)
			if err != nil {
				t.Fatal(err)
			}
			var s script
			if err := strictyaml.Decode("script.yaml", text, &s); err != nil {
				t.Fatal(err)
			}
			s.withDefaults()
			err = s.validate()
			if test.want == "" && err != nil || test.want != "" && !strings.HasPrefix(fmt.Sprint(err), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"run"}, 2, "one script is needed"},
		{[]string{"run", "a", "b"}, 2, "one script is needed"},
		{[]string{"run", "/no/such.yaml"}, 2, "read script"},
		{[]string{"run", "--chek", "a"}, 2, "unknown flag"},
		{[]string{"rum"}, 2, `"rum" is not a command`},
		{[]string{"--help"}, 0, ""},
		{[]string{"--version"}, 0, ""},
	} {
		var stdout, stderr bytes.Buffer
		err := execute(t.Context(), test.args, &stdout, &stderr)
		if daemon.ExitStatus(err) != test.status || test.want != "" && !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%q: %v", test.args, err)
		}
	}
}

func FuzzScript(f *testing.F) {
	example, err := os.ReadFile("../../testdata/ceremony/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Fuzz(func(t *testing.T, text string) {
		var s script
		if strictyaml.Decode("s.yaml", []byte(text), &s) != nil {
			return
		}
		s.withDefaults()
		if s.validate() != nil {
			return
		}
		// A script that is good is good when it is written out and read again.
		again, err := yaml.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var second script
		if err := strictyaml.Decode("again.yaml", again, &second); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		if err := second.validate(); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
	})
}
