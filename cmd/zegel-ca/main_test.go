package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/testdata/request"
)

// rig is a folder with all that ca.yaml names, as a ceremony leaves it.
type rig struct {
	*testing.T
	dir     string
	cert    *x509.Certificate // of the issuing CA
	tlsCA   *x509.CertPool
	tlsKey  *ecdsa.PrivateKey // of the management CA
	tlsCert *x509.Certificate
	listen  map[string]string
	clients map[string]tls.Certificate
}

// newRig has its keys in soft tokens: what a daemon needs to run.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := newFolder(t)
	tokens := hsm.New(hsm.Config{SoftWorkFactor: 10})
	defer func() { r.must(tokens.Close()) }()
	wrap, err := tokens.GenerateWrappingKey(r.uri("wrap"))
	r.must(err)
	checkpointKey, err := tokens.Generate(r.uri("checkpoint"), hsm.Ed25519)
	r.must(err)
	key, err := tokens.Generate(r.uri("issuing"), hsm.P256)
	r.must(err)
	r.fill(journal.Options{Wrap: wrap.Wrap, Unwrap: wrap.Unwrap, CheckpointKey: checkpointKey}, key.Public())
	return r
}

// newKeylessRig is enough for a check, which touches no key.
func newKeylessRig(t *testing.T) *rig {
	t.Helper()
	r := newFolder(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	r.fill(journaltest.Options(t, time.Now), key.Public())
	return r
}

func newFolder(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), listen: map[string]string{}, clients: map[string]tls.Certificate{}}
	for _, name := range []string{"admin", "feed", "metrics"} {
		r.listen[name] = freeAddress(t)
	}
	r.makeTLS()
	r.write("pin", []byte("1234567890"))
	if err := os.Mkdir(r.path("publish"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// fill makes the journal and the CA's certificate.
func (r *rig) fill(o journal.Options, public crypto.PublicKey) {
	r.Helper()
	r.must(journal.Create(r.path("journal"), "zegel.example/ca", o))
	j, err := journal.Open(r.path("journal"), o)
	r.must(err)
	defer func() { r.must(j.Close()) }()
	r.makeCA(j, public)
}

// makeCA holds the part of a ceremony that the daemon needs: a root, and the certificate of the issuing CA.
func (r *rig) makeCA(j *journal.Journal, public crypto.PublicKey) {
	r.Helper()
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	wallClock, quiet := clock.Unverified(time.Second), slog.New(slog.DiscardHandler)
	rootProfile, err := policy.Builtin("root-ca")
	r.must(err)
	rootDER, err := ca.IssueRoot(r.Context(), ca.RootConfig{
		Journal: j, Clock: wallClock, Key: rootKey, Instance: 2, Actor: journal.Actor{1}, Profile: rootProfile, Subject: caName("TEST Root"), Log: quiet,
	})
	r.must(err)
	root, err := x509.ParseCertificate(rootDER)
	r.must(err)
	r.writePEM("root.pem", "CERTIFICATE", rootDER)
	i, err := ca.New(ca.Config{
		Journal: j, Clock: wallClock, Key: rootKey, Certificate: root, Instance: 2,
		URLs:       policy.URLs{CRL: "http://pki.example.nl/root.crl", CAIssuers: "http://pki.example.nl/root.cer"},
		PublishDir: r.path("publish"), CRLFile: "root.crl", Log: quiet,
	})
	r.must(err)
	r.must(i.Recover(r.Context()))
	profile, err := policy.Builtin("issuing-ca")
	r.must(err)
	spki, err := x509.MarshalPKIXPublicKey(public)
	r.must(err)
	issued, err := i.Issue(r.Context(), ca.Order{Actor: journal.Actor{1}, Profile: profile, Subject: caName("TEST Issuing CA"), PublicKey: spki})
	r.must(err)
	r.cert, err = x509.ParseCertificate(issued.Certificate)
	r.must(err)
	r.writePEM("issuing.pem", "CERTIFICATE", issued.Certificate)
}

func caName(commonName string) *policy.Subject {
	return &policy.Subject{Attributes: []policy.Attribute{
		{Type: "countryName", Value: "NL"}, {Type: "organizationName", Value: "TEST Trust B.V."},
		{Type: "organizationIdentifier", Value: "NTRNL-12345678"}, {Type: "commonName", Value: commonName},
	}}
}

// makeTLS makes the management CA, the daemon's certificate, and those of an officer, a follower and nobody.
func (r *rig) makeTLS() {
	r.Helper()
	var err error
	r.tlsKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	r.tlsCert = r.sign("TEST Management CA", r.tlsKey)
	r.writePEM("tls-ca.pem", "CERTIFICATE", r.tlsCert.Raw)
	r.tlsCA = x509.NewCertPool()
	r.tlsCA.AddCert(r.tlsCert)
	for _, name := range []string{"daemon", "officer", "follower", "nobody"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		r.must(err)
		cert := r.sign(name, key)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		r.must(err)
		r.writePEM(name+".pem", "CERTIFICATE", cert.Raw)
		r.writePEM(name+".key", "PRIVATE KEY", pkcs8)
		r.clients[name] = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	}
}

func (r *rig) sign(name string, key *ecdsa.PrivateKey) *x509.Certificate {
	r.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent := r.tlsCert
	if parent == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		parent = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), r.tlsKey)
	r.must(err)
	cert, err := x509.ParseCertificate(raw)
	r.must(err)
	return cert
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) uri(object string) string {
	return fmt.Sprintf("softtoken:object=%s?dir=%s&pin-source=file:%s", object, r.path("keys"), r.path("pin"))
}

func (r *rig) write(name string, content []byte) string {
	r.Helper()
	r.must(os.WriteFile(r.path(name), content, 0o600))
	return r.path(name)
}

func (r *rig) writePEM(name, kind string, der []byte) {
	r.Helper()
	r.write(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// config writes ca.yaml, with pairs of old and new text exchanged, and returns its path.
func (r *rig) config(replace ...string) string {
	r.Helper()
	text := fmt.Sprintf(`assurance: test
clock: unverified
instance: 1
issuer: {certificate: DIR/issuing.pem, key: "%s"}
journal: {dir: DIR/journal, wrap_key: "%s", checkpoint_key: "%s"}
urls:
  crl: http://pki.example.nl/issuing.crl
  ocsp: http://ocsp.example.nl/
  ca_issuers: http://pki.example.nl/issuing.cer
  pds: [{url: https://pki.example.nl/pds-en.pdf, language: en}]
publish: {dir: DIR/publish, crl_file: issuing.crl, every: 12h, life: 24h}
admin: {listen: "%s", certificate: DIR/daemon.pem, key: DIR/daemon.key, client_ca: DIR/tls-ca.pem}
feed: {listen: "%s", certificate: DIR/daemon.pem, key: DIR/daemon.key, client_ca: DIR/tls-ca.pem}
followers: [%x]
metrics: {listen: "%s"}
officers:
  - id: 000102030405060708090a0b0c0d0e0f
    name: TEST Officer
    certificate_sha256: %x
    roles: [registration_officer, revocation_officer, system_auditor]
`, r.uri("issuing"), r.uri("wrap"), r.uri("checkpoint"), r.listen["admin"], r.listen["feed"],
		sha256.Sum256(r.clients["follower"].Leaf.Raw), r.listen["metrics"], sha256.Sum256(r.clients["officer"].Leaf.Raw))
	text = strings.ReplaceAll(text, "DIR/", r.dir+"/")
	for i := 0; i+1 < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			r.Fatalf("no %q in\n%s", replace[i], text)
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return r.write("ca.yaml", []byte(text))
}

// start runs the daemon until the function it returns is called, which waits for its end.
func (r *rig) start(path string) (stop func()) {
	r.Helper()
	c, digest, err := daemon.LoadConfig(path, (*config).check)
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	e := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-ca"), Daemon: "zegel-ca", Version: "test", ConfigDigest: digest}
	done := make(chan error, 1)
	go func() { done <- run(ctx, e, c) }()
	deadline := time.Now().Add(20 * time.Second)
	for {
		select {
		case err := <-done:
			r.Fatalf("the daemon ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
		if response, err := http.Get("http://" + r.listen["metrics"] + "/health"); err == nil {
			r.must(response.Body.Close())
			break
		}
		if time.Now().After(deadline) {
			r.Fatal("the daemon does not answer")
		}
	}
	return func() {
		r.Helper()
		cancel()
		if err := <-done; err != nil {
			r.Errorf("the daemon's end: %v", err)
		}
	}
}

func (r *rig) desk(name string) *desk.Client {
	r.Helper()
	client, err := desk.NewClient("https://"+r.listen["admin"], r.tlsConfig(name))
	r.must(err)
	r.Cleanup(client.Close)
	return client
}

func (r *rig) tlsConfig(name string) *tls.Config {
	return &tls.Config{RootCAs: r.tlsCA, Certificates: []tls.Certificate{r.clients[name]}}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (r *rig) get(client *http.Client, url string) (int, string) {
	r.Helper()
	response, err := client.Get(url)
	r.must(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	r.must(err)
	return response.StatusCode, string(text)
}

// The daemon from its config alone: issue, stop, start again, revoke, follow, look.
func TestDaemon(t *testing.T) {
	r := newRig(t)
	path := r.config()
	stop := r.start(path)
	issued, err := r.desk("officer").Issue(t.Context(), r.request())
	if err != nil {
		t.Fatal(err)
	}
	stop()

	stop = r.start(path)
	defer func() { stop() }()
	officer := r.desk("officer")
	if c, err := officer.Certificate(t.Context(), issued.Serial); err != nil || c.Status != "good" || c.Cert != issued.Cert {
		t.Errorf("after a restart: %+v, %v", c, err)
	}
	if _, err := officer.Revoke(t.Context(), issued.Serial, desk.RevokeRequest{Reason: "keyCompromise"}); err != nil {
		t.Error(err)
	}
	raw, err := os.ReadFile(r.path("publish/issuing.crl"))
	r.must(err)
	list, err := x509.ParseRevocationList(raw)
	if err != nil || list.CheckSignatureFrom(r.cert) != nil || len(list.RevokedCertificateEntries) != 1 {
		t.Errorf("published CRL: %v, %+v", err, list)
	}
	if report, err := officer.VerifyJournal(t.Context()); err != nil || !report.OK {
		t.Errorf("journal: %+v, %v", report, err)
	}
	status, err := officer.Status(t.Context())
	if err != nil || status.Daemon != "zegel-ca" || !status.Ready || status.Clock != "unverified" || status.Facts["crl_number"] == nil {
		t.Errorf("status: %+v, %v", status, err)
	}
	if _, err := r.desk("nobody").Status(t.Context()); desk.ExitStatus(err) != 1 || err == nil {
		t.Errorf("status for nobody: %v", err)
	}
	r.checkFeed()
	r.checkHealth()
}

func (r *rig) request() desk.IssueRequest {
	r.Helper()
	subject, err := request.Example("qcp-n")
	r.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	r.must(err)
	// The proofing was today, whatever day the test runs.
	text := strings.ReplaceAll(string(subject), "date: 2026-11-20", "date: "+time.Now().UTC().Format(time.DateOnly))
	return desk.IssueRequest{
		Profile: "qcp-n", CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		Subject: text, SubjectName: "qcp-n.yaml",
	}
}

// checkFeed: a follower gets leaves, an officer who is none does not.
func (r *rig) checkFeed() {
	r.Helper()
	for name, want := range map[string]int{"follower": http.StatusOK, "officer": http.StatusForbidden} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: r.tlsConfig(name)}}
		if status, _ := r.get(client, "https://"+r.listen["feed"]+"/feed?after=0&wait=0"); status != want {
			r.Errorf("feed for %s: %d, want %d", name, status, want)
		}
		client.CloseIdleConnections()
	}
}

func (r *rig) checkHealth() {
	r.Helper()
	status, text := r.get(http.DefaultClient, "http://"+r.listen["metrics"]+"/health")
	var facts map[string]any
	if err := json.Unmarshal([]byte(text), &facts); err != nil || status != http.StatusOK || facts["ready"] != true || facts["clock"] != "unverified" {
		r.Errorf("health: %d %s", status, text)
	}
	if _, text := r.get(http.DefaultClient, "http://"+r.listen["metrics"]+"/metrics"); !strings.Contains(text, "zegel_ca_crl_number ") {
		r.Error("no zegel_ca metrics")
	}
}

func TestCheck(t *testing.T) {
	r := newKeylessRig(t)
	if _, _, err := daemon.LoadConfig(r.config(), (*config).check); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	if names, err := os.ReadDir(r.path("publish")); err != nil || len(names) != 1 {
		t.Errorf("the check left something in publish/: %v %v", names, err)
	}
	two := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.tlsCert.Raw})...)
	r.write("two.pem", two)
	edwards, edwardsKey, err := ed25519.GenerateKey(rand.Reader)
	r.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST Ed25519 CA"}, NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, edwards, edwardsKey)
	r.must(err)
	r.writePEM("edwards.pem", "CERTIFICATE", raw)
	for name, c := range map[string]struct {
		replace []string
		want    string
	}{
		"unknown key":         {[]string{"instance: 1", "instanse: 1"}, "instance"},
		"instance 0":          {[]string{"instance: 1", "instance: 0"}, "1 to 127"},
		"instance 128":        {[]string{"instance: 1", "instance: 128"}, "1 to 127"},
		"soft key, qualified": {[]string{"assurance: test", "assurance: qualified", "clock: unverified", "clock: system"}, "software key"},
		"PIN, qualified": {[]string{"assurance: test", "assurance: qualified", "clock: unverified", "clock: system", "softtoken:", "pkcs11:",
			"?dir=" + r.path("keys") + "&pin-source=file:" + r.path("pin"), "?module-path=/p11.so&pin-value=s3cr3t", "roles: [registration_officer, revocation_officer, system_auditor]", "roles: [system_auditor]"}, "pin-value under"},
		"clock, qualified":         {[]string{"assurance: test", "assurance: qualified"}, "unverified clock"},
		"certificate missing":      {[]string{"issuing.pem", "none.pem"}, "issuer.certificate"},
		"algorithm not for CAs":    {[]string{"issuing.pem", "edwards.pem"}, `issuer.certificate: ed25519 may not do the work "ca"`},
		"certificate of a leaf":    {[]string{"issuing.pem", "officer.pem"}, "not a CA's"},
		"two certificates":         {[]string{"issuing.pem", "two.pem"}, "more than one"},
		"key file for it":          {[]string{"issuing.pem", "daemon.key"}, "no PEM certificate"},
		"journal missing":          {[]string{r.path("journal"), r.path("none")}, "journal.dir"},
		"https OCSP":               {[]string{"http://ocsp", "https://ocsp"}, "http://"},
		"no CRL URL":               {[]string{"http://pki.example.nl/issuing.crl", `""`}, "urls.crl"},
		"no PDS in English":        {[]string{"language: en", "language: nl"}, "QCS-4.3.4-03"},
		"PDS without an address":   {[]string{"url: https://pki.example.nl/pds-en.pdf", `url: ""`}, "urls.pds[0].url"},
		"no publish folder":        {[]string{r.path("publish"), `""`}, "publish.dir"},
		"publish folder":           {[]string{r.path("publish"), r.path("none")}, "publish.dir"},
		"CRL in another":           {[]string{"crl_file: issuing.crl", "crl_file: ../issuing.crl"}, "publish.crl_file"},
		"CRL too seldom":           {[]string{"every: 12h, life: 24h", "every: 25h, life: 50h"}, "CSS-6.3.9-05"},
		"key URI":                  {[]string{"softtoken:object=issuing", "softtoken:objekt=issuing"}, "issuer.key"},
		"scheme with an EC key":    {[]string{"issuing.pem, key:", "issuing.pem, signature_scheme: pss, key:"}, "issuer.signature_scheme: signature scheme pss is one of RSA keys"},
		"scheme misspelt":          {[]string{"issuing.pem, key:", "issuing.pem, signature_scheme: PSS, key:"}, "write pkcs1v15 or pss"},
		"follower":                 {[]string{"followers: [", "followers: [00, "}, "followers[0]"},
		"officer's id":             {[]string{"id: 000102030405060708090a0b0c0d0e0f", "id: nobody"}, "officers[0].id"},
		"officer's role":           {[]string{"system_auditor", "auditor"}, "officers[0].roles"},
		"admin without an address": {[]string{`admin: {listen: "` + r.listen["admin"] + `"`, `admin: {listen: ""`}, "admin.listen"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := daemon.LoadConfig(r.config(c.replace...), (*config).check)
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("shows the PIN: %v", err)
			}
			status := daemon.StatusUsage
			if name == "journal missing" {
				status = daemon.StatusFailed
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || daemon.ExitStatus(err) != status {
				t.Errorf("got %v (exit %d), want %q", err, daemon.ExitStatus(err), c.want)
			}
		})
	}
}

// A key that is not the certificate's ends the start, with the certificate's name, before anything is recorded.
func TestWrongKey(t *testing.T) {
	r := newRig(t)
	tokens := hsm.New(hsm.Config{SoftWorkFactor: 10})
	_, err := tokens.Generate(r.uri("other"), hsm.P256)
	r.must(err)
	r.must(tokens.Close())
	c, digest, err := daemon.LoadConfig(r.config("object=issuing?", "object=other?"), (*config).check)
	r.must(err)
	e := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-ca"), Version: "test", ConfigDigest: digest}
	err = run(t.Context(), e, c)
	for _, part := range []string{"issuer.key: softtoken:object=other is not the key", c.Issuer.Certificate, "TEST Issuing CA", "zegel token keys"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}

// A CA whose journal is older than the CRL it published does not start, and the journal does not grow: the same holds
// for a clock that nobody vouches for, which is asked in the same place.
func TestOldJournal(t *testing.T) {
	r := newRig(t)
	r.start(r.config())()
	size := func() (n int) {
		j, err := journal.OpenReadOnly(r.path("journal"))
		r.must(err)
		defer func() { r.must(j.Close()) }()
		return int(j.Size())
	}
	db := r.path("journal/journal.db")
	backup, err := os.ReadFile(db)
	r.must(err)
	before := size()
	r.start(r.config())()
	r.must(os.WriteFile(db, backup, 0o600))
	c, digest, err := daemon.LoadConfig(r.config(), (*config).check)
	r.must(err)
	e := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-ca"), Version: "test", ConfigDigest: digest}
	if err := run(t.Context(), e, c); !errors.Is(err, ca.ErrOldJournal) {
		t.Errorf("got %v", err)
	}
	if after := size(); after != before {
		t.Errorf("the journal grew from %d to %d entries", before, after)
	}
}

// refusing is a clock that nobody vouches for.
type refusing struct{}

func (refusing) Now() (time.Time, time.Duration, error) {
	return time.Time{}, 0, errors.New("not synchronised")
}

// A clock that nobody vouches for stamps neither entries nor checkpoints: both carry on from the newest time in the journal.
func TestJournalOfLostClock(t *testing.T) {
	r := newFolder(t)
	tokens := hsm.New(hsm.Config{SoftWorkFactor: 10})
	defer func() { r.must(tokens.Close()) }()
	wrap, err := tokens.GenerateWrappingKey(r.uri("wrap"))
	r.must(err)
	checkpointKey, err := tokens.Generate(r.uri("checkpoint"), hsm.Ed25519)
	r.must(err)
	yesterday := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	r.must(journal.Create(r.path("journal"), "zegel.example/ca", journal.Options{
		Wrap: wrap.Wrap, Unwrap: wrap.Unwrap, CheckpointKey: checkpointKey, Now: func() time.Time { return yesterday },
	}))
	c := &config{Journal: daemon.Journal{Dir: r.path("journal"), WrapKey: r.uri("wrap"), CheckpointKey: r.uri("checkpoint")}}
	j, err := openJournal(tokens, c, refusing{})
	r.must(err)
	defer func() { r.must(j.Close()) }()
	entry, err := j.Append(t.Context(), journal.DaemonStarted{Daemon: "zegel-ca", Version: "test"})
	r.must(err)
	if entry.Time.Before(yesterday) || entry.Time.After(yesterday.Add(time.Hour)) {
		t.Errorf("the entry is of %v, the journal was made at %v", entry.Time, yesterday)
	}
	_, err = j.Checkpoint()
	r.must(err)
	if tree, err := j.Verified(); err != nil || tree.Time.After(yesterday.Add(time.Hour)) {
		t.Errorf("the checkpoint is of %v, %v", tree.Time, err)
	}
}
