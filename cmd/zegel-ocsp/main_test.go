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
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// rig is a folder with all that the daemon's configuration names, and the CA's journal with its feed.
type rig struct {
	t       *testing.T
	dir     string
	issuer  *x509.Certificate
	journal *journal.Journal
	feed    *httptest.Server
	served  *atomic.Pointer[journal.Journal] // by feed
	listen  map[string]string                // ocsp, admin, metrics
	officer tls.Certificate
	tlsCA   *x509.CertPool

	journalKey ed25519.PrivateKey // signs checkpoints
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), listen: make(map[string]string), served: new(atomic.Pointer[journal.Journal])}
	for _, name := range []string{"ocsp", "admin", "metrics"} {
		r.listen[name] = freeAddress(t)
	}

	issuerKey := ecKey(t)
	r.issuer = r.certificate(certificateSpec{name: "TEST Issuing CA", ca: true, public: issuerKey.Public(), key: issuerKey})
	r.writeCertificate("issuing.pem", r.issuer)
	tokens := hsm.New(hsm.Config{SoftWorkFactor: 10}) // quick to open, also under the race detector
	r.write("pin", []byte("1234567890"))
	key, err := tokens.Generate(r.keyURI(), hsm.P256)
	if err != nil {
		t.Fatal(err)
	}
	r.writeCertificate("ocsp.pem", r.certificate(certificateSpec{name: "TEST OCSP", responder: true, public: key.Public(), parent: r.issuer, key: issuerKey}))
	if err := tokens.Close(); err != nil {
		t.Fatal(err)
	}

	managementKey := ecKey(t)
	management := r.certificate(certificateSpec{name: "TEST Management CA", ca: true, public: managementKey.Public(), key: managementKey})
	r.writeCertificate("tls-ca.pem", management)
	r.tlsCA = x509.NewCertPool()
	r.tlsCA.AddCert(management)
	pair := func(name string) tls.Certificate {
		key := ecKey(t)
		certificate := r.certificate(certificateSpec{name: name, public: key.Public(), parent: management, key: managementKey})
		r.writeCertificate(name+".pem", certificate)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		r.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
		return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate}
	}
	pair("tls")
	r.officer = pair("officer")

	r.newJournal()
	if err := os.Mkdir(filepath.Join(r.dir, "replica"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.served.Store(r.journal)
	r.feed = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.served.Load().FeedHandler().ServeHTTP(w, request)
	}))
	r.feed.TLS = &tls.Config{Certificates: []tls.Certificate{pair("feed")}, ClientCAs: r.tlsCA, ClientAuth: tls.RequireAndVerifyClientCert}
	r.feed.StartTLS()
	t.Cleanup(r.feed.Close)
	return r
}

func (r *rig) newJournal() {
	r.t.Helper()
	if r.journalKey == nil {
		_, r.journalKey, _ = ed25519.GenerateKey(rand.Reader)
	}
	same := func(b []byte) ([]byte, error) { return append([]byte(nil), b...), nil }
	options := journal.Options{Wrap: same, Unwrap: same, CheckpointKey: r.journalKey}
	dir := filepath.Join(r.dir, "journal")
	if err := journal.Create(dir, "zegel.test/ca", options); err != nil {
		r.t.Fatal(err)
	}
	var err error
	if r.journal, err = journal.Open(dir, options); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := r.journal.Close(); err != nil {
			r.t.Error(err)
		}
	})
}

func (r *rig) keyURI() string {
	return fmt.Sprintf("softtoken:object=ocsp?dir=%s&pin-source=file:%s", filepath.Join(r.dir, "keys"), filepath.Join(r.dir, "pin"))
}

// config writes ocsp.yaml, with pairs of old and new text exchanged, and returns its path.
func (r *rig) config(replace ...string) string {
	r.t.Helper()
	digest := sha256.Sum256(r.officer.Leaf.Raw)
	text := fmt.Sprintf(`assurance: test
clock: unverified
admin: {listen: "%[2]s", certificate: %[1]s/tls.pem, key: %[1]s/tls.key, client_ca: %[1]s/tls-ca.pem}
metrics: {listen: "%[3]s"}
officers:
  - {id: 000102030405060708090a0b0c0d0e0f, name: TEST Officer, certificate_sha256: %[4]x, roles: [system_operator]}
replica: {dir: %[1]s/replica, journal_key: "%[5]s"}
feed: {url: "%[6]s/feed", ca: %[1]s/tls-ca.pem, certificate: %[1]s/tls.pem, key: %[1]s/tls.key}
issuer: {certificate: %[1]s/issuing.pem}
responder: {certificate: %[1]s/ocsp.pem, key: "%[7]s"}
status_life: 1h
listen: "%[8]s"
`, r.dir, r.listen["admin"], r.listen["metrics"], digest, r.journal.VerifierKey(), r.feed.URL, r.keyURI(), r.listen["ocsp"])
	for i := 0; i+1 < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			r.t.Fatalf("no %q in\n%s", replace[i], text)
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return r.write("ocsp.yaml", []byte(text))
}

func (r *rig) write(name string, content []byte) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) writeCertificate(name string, c *x509.Certificate) {
	r.t.Helper()
	r.write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// certificateSpec is a certificate to be made; without parent it is self-signed.
type certificateSpec struct {
	name          string
	ca, responder bool
	public        crypto.PublicKey
	parent        *x509.Certificate
	key           crypto.Signer // of parent
}

func (r *rig) certificate(s certificateSpec) *x509.Certificate {
	r.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: s.name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
		IsCA: s.ca, KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if s.ca {
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if s.responder {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1.NullBytes}}
	}
	parent := s.parent
	if parent == nil {
		parent = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, s.public, s.key)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// issue records an issued certificate.
func (r *rig) issue(serial *big.Int) {
	r.t.Helper()
	bits, err := der.PublicKeyBits(r.issuer)
	if err != nil {
		r.t.Fatal(err)
	}
	id := journal.NewIssuerID(r.issuer.RawSubject, bits)
	tbs, certificate := []byte{0x30, 0}, []byte{0x30, 2, 0x30, 0}
	for _, e := range []journal.Event{
		journal.CertificateIntended{
			Actor: journal.Actor{1}, Issuer: id, Serial: journal.Serial(serial.Bytes()), TBSDigest: sha256.Sum256(tbs), TBS: tbs,
			Profile: "qcp-n", NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0), Evidence: []byte("{}"),
		},
		journal.CertificateIssued{Issuer: id, Serial: journal.Serial(serial.Bytes()), CertificateHash: sha256.Sum256(certificate), Certificate: certificate},
	} {
		if _, err := r.journal.Append(r.t.Context(), e); err != nil {
			r.t.Fatal(err)
		}
	}
	if _, err := r.journal.Checkpoint(); err != nil {
		r.t.Fatal(err)
	}
}

// start runs the daemon from the file and returns how to stop it.
func (r *rig) start(path string) (stop func() error) {
	r.t.Helper()
	c, digest, err := daemon.LoadConfig(path, check)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	env := daemon.Env{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Registry: daemon.NewRegistry("zegel-ocsp"), Daemon: "zegel-ocsp", Version: "test", ConfigDigest: digest}
	go func() { done <- run(ctx, env, c) }()
	return func() error {
		cancel()
		return <-done
	}
}

// eventually does what has to succeed within 20 seconds.
func (r *rig) eventually(do func() error) {
	r.t.Helper()
	var err error
	for range 400 {
		if err = do(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatal(err)
}

// wantStatus asks for serial by POST.
func (r *rig) wantStatus(serial int64, want int) error {
	request, err := xocsp.CreateRequest(&x509.Certificate{SerialNumber: big.NewInt(serial)}, r.issuer, nil)
	if err != nil {
		return err
	}
	response, err := http.Post("http://"+r.listen["ocsp"]+"/", "application/ocsp-request", strings.NewReader(string(request)))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	answer, err := xocsp.ParseResponse(body, r.issuer)
	if err != nil {
		return err
	}
	if answer.Status != want {
		return fmt.Errorf("status %d, want %d", answer.Status, want)
	}
	return nil
}

// The daemon makes its replica in the empty folder, follows the feed, answers, tells officers its state, stops, and
// starts again from the same file while the CA is away.
func TestRun(t *testing.T) {
	r := newRig(t)
	r.issue(big.NewInt(42))
	path := r.config()
	stop := r.start(path)
	r.eventually(func() error { return r.wantStatus(42, xocsp.Good) })
	if err := r.wantStatus(43, xocsp.Unknown); err != nil {
		t.Error(err)
	}

	officers := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.tlsCA, Certificates: []tls.Certificate{r.officer}}}}
	response, err := officers.Get("https://" + r.listen["admin"] + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Daemon, Clock string
		Ready         bool
		Entries       int
	}
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	officers.CloseIdleConnections()
	if status.Daemon != "zegel-ocsp" || status.Clock != "unverified" || !status.Ready || status.Entries != 2 {
		t.Errorf("status %+v", status)
	}
	metrics, err := http.Get("http://" + r.listen["metrics"] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(metrics.Body)
	_ = metrics.Body.Close()
	if !strings.Contains(string(text), `zegel_ocsp_requests_total{status="successful"}`) {
		t.Errorf("metrics:\n%s", text)
	}

	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.feed.CloseClientConnections()
	r.feed.Close()
	stop = r.start(path)
	r.eventually(func() error { return r.wantStatus(42, xocsp.Good) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A replica of another journal is not followed into.
func TestRunRefusesAnotherJournal(t *testing.T) {
	r := newRig(t)
	other := *r
	other.dir, other.journalKey = t.TempDir(), nil
	other.newJournal()
	if err := journal.CreateReplica(filepath.Join(r.dir, "replica"), other.journal.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	if err := r.start(r.config())(); err == nil || !strings.Contains(err.Error(), "replica.journal_key") {
		t.Errorf("error %v", err)
	}
}

// --check: every fault is told with its line and key, and exit status 2.
func TestCheck(t *testing.T) {
	r := newRig(t)
	if _, _, err := daemon.LoadConfig(r.config(), check); err != nil {
		t.Fatal(err)
	}
	edwards, edwardsKey, _ := ed25519.GenerateKey(rand.Reader)
	other := r.certificate(certificateSpec{name: "TEST Ed25519 CA", ca: true, public: edwards, key: edwardsKey})
	r.writeCertificate("edwards-ca.pem", other)
	r.writeCertificate("edwards.pem", r.certificate(certificateSpec{name: "TEST OCSP", responder: true, public: edwards, parent: other, key: edwardsKey}))
	r.write("garbage.pem", []byte("garbage"))
	r.write("empty.key", nil)
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown key", "status_life:", "status_live:", "status_life"},
		{"assurance", "assurance: test", "assurance: qualified", "clock"},
		{"qualified with a software key", "assurance: test\nclock: unverified", "assurance: qualified\nclock: system", "responder.key"},
		{"no officer's role", "[system_operator]", "[operator]", "officers[0].roles[0]"},
		{"no listen", fmt.Sprintf("listen: %q\n", r.listen["ocsp"]), "", "listen"},
		{"listen", fmt.Sprintf("\nlisten: %q\n", r.listen["ocsp"]), "\nlisten: nonsense\n", "host:port"},
		{"status life", "status_life: 1h", "status_life: 25h", "REV-6.2.4-03A"},
		{"no journal key", r.journal.VerifierKey(), "", "replica.journal_key"},
		{"journal key cut short", r.journal.VerifierKey(), r.journal.VerifierKey()[:20], "replica.journal_key"},
		{"journal key altered", "zegel.test/ca+", "zegel.test/cb+", "replica.journal_key"},
		{"admin where OCSP is", fmt.Sprintf("admin: {listen: %q", r.listen["admin"]), fmt.Sprintf("admin: {listen: %q", r.listen["ocsp"]), "admin.listen"},
		{"metrics where admin is", fmt.Sprintf("metrics: {listen: %q", r.listen["metrics"]), fmt.Sprintf("metrics: {listen: %q", r.listen["admin"]), "metrics.listen"},
		{"no replica", "dir: " + r.dir + "/replica", "dir: " + r.dir + "/gone", "zegel-ceremony makes the replica"},
		{"replica is a file", "dir: " + r.dir + "/replica", "dir: " + r.dir + "/pin", "is not a folder"},
		{"feed in the clear", "https://", "http://", "feed.url"},
		{"feed CA", "/feed\", ca: " + r.dir + "/tls-ca.pem", "/feed\", ca: " + r.dir + "/pin", "holds no PEM certificate"},
		{"feed key", "certificate: " + r.dir + "/tls.pem, key: " + r.dir + "/tls.key}\nissuer", "certificate: " + r.dir + "/tls.pem, key: " + r.dir + "/empty.key}\nissuer", "feed"},
		{"no issuer", r.dir + "/issuing.pem", r.dir + "/gone.pem", "issuer.certificate"},
		{"issuer no PEM", r.dir + "/issuing.pem", r.dir + "/garbage.pem", "issuer.certificate"},
		{"responder certificate not its issuer's", "certificate: " + r.dir + "/ocsp.pem", "certificate: " + r.dir + "/tls.pem", "RFC 6960 §4.2.2.2"},
		{"no key", r.keyURI(), "", "responder.key"},
		{"key no URI", r.keyURI(), "ocsp.key", "responder.key"},
		{"key URI misspelt", "softtoken:object=", "softtoken:objekt=", "responder.key"},
		{"scheme with an EC key", "/ocsp.pem, key:", "/ocsp.pem, signature_scheme: pkcs1v15, key:", "responder.signature_scheme: signature scheme pkcs1v15 is one of RSA keys"},
		{"scheme misspelt", "/ocsp.pem, key:", "/ocsp.pem, signature_scheme: rsa-pss, key:", "write pkcs1v15 or pss"},
		{"algorithm not for responders", fmt.Sprintf("%[1]s/issuing.pem}\nresponder: {certificate: %[1]s/ocsp.pem", r.dir),
			fmt.Sprintf("%[1]s/edwards-ca.pem}\nresponder: {certificate: %[1]s/edwards.pem", r.dir), `responder.certificate: ed25519 may not do the work "ocsp"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := r.config(c.old, c.new)
			_, _, err := daemon.LoadConfig(path, check)
			status := daemon.StatusUsage
			if c.name == "no replica" {
				status = daemon.StatusFailed
			}
			if err == nil || !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), c.want) || daemon.ExitStatus(err) != status {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A fork outlives the process: started again with the feed away, the daemon runs, is not ready and refuses, until it gets a
// new folder.
func TestRunForked(t *testing.T) {
	r := newRig(t)
	r.issue(big.NewInt(42))
	path := r.config()
	stop := r.start(path)
	r.eventually(func() error { return r.wantStatus(42, xocsp.Good) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	other := *r
	other.dir = t.TempDir()
	other.journalKey = r.journalKey
	other.newJournal()
	other.issue(big.NewInt(1))
	other.issue(big.NewInt(2))
	r.served.Store(other.journal)

	refuses := func() error {
		if err := r.wantStatus(42, xocsp.Good); err == nil || !strings.Contains(err.Error(), "internal error") {
			return fmt.Errorf("the answer is %v", err)
		}
		health, err := http.Get("http://" + r.listen["metrics"] + "/health")
		if err != nil {
			return err
		}
		defer func() { _ = health.Body.Close() }()
		if text, _ := io.ReadAll(health.Body); health.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "contradicts") {
			return fmt.Errorf("health: %s %s", health.Status, text)
		}
		return nil
	}
	stop = r.start(path)
	r.eventually(refuses)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.served.Store(r.journal) // too late
	stop = r.start(path)
	r.eventually(refuses)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	if err := os.Rename(filepath.Join(r.dir, "replica"), filepath.Join(r.dir, "evidence")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.dir, "replica"), 0o700); err != nil {
		t.Fatal(err)
	}
	stop = r.start(path)
	r.eventually(func() error { return r.wantStatus(42, xocsp.Good) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A key that is not the certificate's ends the start, and the error names both and the remedy.
func TestWrongKey(t *testing.T) {
	r := newRig(t)
	tokens := hsm.New(hsm.Config{SoftWorkFactor: 10})
	if _, err := tokens.Generate(strings.Replace(r.keyURI(), "object=ocsp", "object=other", 1), hsm.P256); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Close(); err != nil {
		t.Fatal(err)
	}
	c, digest, err := daemon.LoadConfig(r.config("object=ocsp", "object=other"), check)
	if err != nil {
		t.Fatal(err)
	}
	e := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-ocsp"), Version: "test", ConfigDigest: digest}
	err = run(t.Context(), e, c)
	for _, part := range []string{"responder.key: softtoken:object=other is not the key", r.dir + "/ocsp.pem", "TEST OCSP", "zegel token keys"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}
