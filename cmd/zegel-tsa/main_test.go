package main

import (
	"bytes"
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

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/tsa"
)

// rig is a folder with all that the daemon's configuration names.
type rig struct {
	t       *testing.T
	dir     string
	listen  map[string]string
	root    *x509.CertPool // of the TSU
	tlsCA   *x509.CertPool
	auditor tls.Certificate
	clerk   tls.Certificate // an officer who may not judge journals
}

// newRig makes the files of a configuration that is good, and keys and journal only if they are to be used: a software
// token takes its time.
func newRig(t *testing.T, keys bool) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), listen: make(map[string]string), root: x509.NewCertPool(), tlsCA: x509.NewCertPool()}
	for _, name := range []string{"http", "https", "admin", "metrics"} {
		r.listen[name] = freeAddress(t)
	}
	r.write("pin", []byte("1234567890"))
	r.makeTLS()
	if !keys {
		r.must(os.Mkdir(filepath.Join(r.dir, "journal"), 0o700))
		r.makeUnit(r.key())
		return r
	}
	tokens := hsm.New(hsm.Config{})
	defer func() { r.must(tokens.Close()) }()
	tsuKey, err := tokens.Generate(r.uri("tsu"), "p256")
	r.must(err)
	checkpoint, err := tokens.Generate(r.uri("checkpoint"), "ed25519")
	r.must(err)
	wrap, err := tokens.GenerateWrappingKey(r.uri("wrap"))
	r.must(err)
	r.must(journal.Create(filepath.Join(r.dir, "journal"), "zegel.test/tsa", journal.Options{
		Wrap: wrap.Wrap, Unwrap: wrap.Unwrap, CheckpointKey: checkpoint,
	}))
	r.makeUnit(tsuKey)
	return r
}

// makeUnit certifies key under the built-in profile, as the ceremony does.
func (r *rig) makeUnit(key crypto.Signer) {
	r.t.Helper()
	caKey := r.key()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{
			Country: []string{"NL"}, Organization: []string{"TEST B.V."}, CommonName: "TEST CA",
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "NTRNL-12345678"}},
		},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3},
	}
	ca := r.sign(template, template, caKey.Public(), caKey)
	r.root.AddCert(ca)
	r.writeCertificates("chain.pem", ca)

	profile, err := policy.Builtin("tsu")
	r.must(err)
	algorithm, err := der.AlgorithmFor(caKey.Public(), "")
	r.must(err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	r.must(err)
	from := time.Now().Truncate(time.Second)
	tbs, err := profile.TBS(policy.Request{
		Subject: &policy.Subject{Attributes: []policy.Attribute{
			{Type: "countryName", Value: "NL"}, {Type: "organizationName", Value: "TEST B.V."},
			{Type: "organizationIdentifier", Value: "NTRNL-12345678"}, {Type: "commonName", Value: "TEST TSU"},
		}},
		PublicKey: spki, Serial: serialFor(spki), NotBefore: from, NotAfter: from.Add(profile.Validity()),
	}, policy.Issuer{
		Name: ca.RawSubject, KeyID: ca.SubjectKeyId, PublicKey: caKey.Public(), Algorithm: algorithm,
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		URLs: policy.URLs{CRL: "http://zegel.test/ca.crl", OCSP: "http://zegel.test/ocsp", CAIssuers: "http://zegel.test/ca.cer"},
	})
	r.must(err)
	signature, err := algorithm.Sign(caKey, tbs)
	r.must(err)
	tsu, err := x509.ParseCertificate(algorithm.Signed(tbs, signature))
	r.must(err)
	r.writeCertificates("tsu.pem", tsu)
	r.writeCertificates("two.pem", tsu, ca)
	r.writeCertificates("disorder.pem", ca, tsu)
}

// serialFor is 20 octets, positive.
func serialFor(spki []byte) []byte {
	digest := sha256.Sum256(spki)
	digest[0] = 0x11
	return digest[:20]
}

// makeTLS makes the management CA, the daemon's TLS certificate and two officers.
func (r *rig) makeTLS() {
	r.t.Helper()
	caKey := r.key()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST Management CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca := r.sign(template, template, caKey.Public(), caKey)
	r.tlsCA.AddCert(ca)
	r.writeCertificates("tls-ca.pem", ca)
	pair := func(name string, serial int64) tls.Certificate {
		key := r.key()
		c := r.sign(&x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, ca, key.Public(), caKey)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		r.must(err)
		r.writeCertificates(name+".pem", c)
		r.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
		return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	}
	pair("tls", 2)
	r.auditor, r.clerk = pair("auditor", 3), pair("clerk", 4)
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) key() *ecdsa.PrivateKey {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	return key
}

func (r *rig) sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	r.t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	r.must(err)
	c, err := x509.ParseCertificate(raw)
	r.must(err)
	return c
}

func (r *rig) write(name string, content []byte) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	r.must(os.WriteFile(path, content, 0o600))
	return path
}

func (r *rig) writeCertificates(name string, list ...*x509.Certificate) {
	var text []byte
	for _, c := range list {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	r.write(name, text)
}

func (r *rig) uri(object string) string {
	return fmt.Sprintf("softtoken:object=%s?dir=%s/keys&pin-source=file:%s/pin", object, r.dir, r.dir)
}

// config writes tsa.yaml, with pairs of old and new text exchanged, and returns its path.
func (r *rig) config(replace ...string) string {
	r.t.Helper()
	auditor, clerk := sha256.Sum256(r.auditor.Leaf.Raw), sha256.Sum256(r.clerk.Leaf.Raw)
	text := fmt.Sprintf(`assurance: test
clock: unverified
admin: {listen: "%[2]s", certificate: %[1]s/tls.pem, key: %[1]s/tls.key, client_ca: %[1]s/tls-ca.pem}
metrics: {listen: "%[3]s"}
officers:
  - {id: 000102030405060708090a0b0c0d0e0f, name: TEST Auditor, certificate_sha256: %[4]x, roles: [system_auditor]}
  - {id: 100102030405060708090a0b0c0d0e0f, name: TEST Clerk, certificate_sha256: %[5]x, roles: [registration_officer]}
unit: {certificate: %[1]s/tsu.pem, chain: %[1]s/chain.pem, key: "%[6]s"}
policy: 0.4.0.2023.1.1
policies: [1.3.6.1.4.1.99999.1]
accuracy: 1s
qualified: true
journal: {dir: %[1]s/journal, wrap_key: "%[7]s", checkpoint_key: "%[8]s"}
http: {listen: "%[9]s"}
https: {listen: "%[10]s", certificate: %[1]s/tls.pem, key: %[1]s/tls.key}
`, r.dir, r.listen["admin"], r.listen["metrics"], auditor, clerk, r.uri("tsu"), r.uri("wrap"), r.uri("checkpoint"), r.listen["http"], r.listen["https"])
	for i := 0; i+1 < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			r.t.Fatalf("no %q in\n%s", replace[i], text)
		}
		text = strings.Replace(text, replace[i], replace[i+1], 1)
	}
	return r.write("tsa.yaml", []byte(text))
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

// start runs the daemon from the file, waits until it is ready, and returns how to stop it.
func (r *rig) start(path string) (stop func() error) {
	r.t.Helper()
	c, digest, err := daemon.LoadConfig(path, check)
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	env := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-tsa"), Daemon: "zegel-tsa", Version: "test", ConfigDigest: digest}
	go func() { done <- run(ctx, env, c) }()
	for range 400 {
		response, err := http.Get("http://" + r.listen["metrics"] + "/health")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return func() error { cancel(); return <-done }
			}
		}
		select {
		case err := <-done:
			r.t.Fatalf("the daemon ended: %v", err)
		case <-time.After(25 * time.Millisecond):
		}
	}
	r.t.Fatal("the daemon does not become ready")
	return nil
}

// stamp has data stamped at url and verifies the token.
func (r *rig) stamp(url, data string) *tsa.Timestamp {
	r.t.Helper()
	digest := sha256.Sum256([]byte(data))
	nonce := tsa.NewNonce()
	request, err := tsa.NewRequest(tsa.Request{Hash: crypto.SHA256, Digest: digest[:], Nonce: nonce, CertReq: true})
	r.must(err)
	response, err := r.client().Post(url, tsa.MediaTypeQuery, bytes.NewReader(request))
	r.must(err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	r.must(err)
	ts, err := tsa.Verify(body, tsa.VerifyOptions{Roots: r.root, Data: strings.NewReader(data), Nonce: nonce, Now: time.Now()})
	r.must(err)
	return ts
}

func (r *rig) client(certificates ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: r.tlsCA, Certificates: certificates}, DisableKeepAlives: true,
	}}
}

// get asks the admin listener as an officer.
func (r *rig) get(path string, officer tls.Certificate, into any) int {
	r.t.Helper()
	response, err := r.client(officer).Get("https://" + r.listen["admin"] + path)
	r.must(err)
	defer func() { _ = response.Body.Close() }()
	r.must(json.NewDecoder(response.Body).Decode(into))
	return response.StatusCode
}

// TestRun has the daemon stamp over HTTP and HTTPS, show its unverified clock, have its journal verified, stop and start
// again, and refuse keys that are not its unit's.
func TestRun(t *testing.T) {
	r := newRig(t, true)
	path := r.config()
	stop := r.start(path)
	if ts := r.stamp("http://"+r.listen["http"]+"/", "data"); !ts.Qualified || ts.Policy != "0.4.0.2023.1.1" || ts.Accuracy != time.Second {
		t.Errorf("got %+v", ts)
	}
	r.stamp("https://"+r.listen["https"]+"/any/path", "data")

	var status struct {
		Daemon, Clock string
		Ready         bool
	}
	if code := r.get("/v1/status", r.clerk, &status); code != http.StatusOK || status.Daemon != "zegel-tsa" || status.Clock != "unverified" || !status.Ready {
		t.Errorf("status %d, %+v", code, status)
	}
	var report journal.Report
	if code := r.get("/v1/journal/verify", r.auditor, &report); code != http.StatusOK || !report.OK || report.Entries != 4 {
		t.Errorf("verify %d, %+v", code, report)
	}
	if code := r.get("/v1/journal/verify", r.clerk, &struct{}{}); code != http.StatusForbidden {
		t.Errorf("a clerk verifies the journal: HTTP %d", code)
	}
	response, err := http.Get("http://" + r.listen["metrics"] + "/metrics")
	r.must(err)
	metrics, err := io.ReadAll(response.Body)
	r.must(err)
	_ = response.Body.Close()
	if !strings.Contains(string(metrics), "\nzegel_tsa_clock_unverified 1\n") {
		t.Error("the metrics do not say that the clock is unverified")
	}
	r.must(stop())

	stop = r.start(path)
	r.stamp("http://"+r.listen["http"]+"/", "more data")
	r.must(stop())
	j, err := journal.OpenReadOnly(filepath.Join(r.dir, "journal"))
	r.must(err)
	first, err := j.Entry(0)
	r.must(err)
	r.must(j.Close())
	if started, ok := first.Event.(journal.DaemonStarted); !ok || !started.ClockUnverified || started.Daemon != "zegel-tsa" {
		t.Errorf("the first entry is %+v", first.Event)
	}

	// It does not start with a key that is not the certificate's, or none.
	for _, tt := range []struct{ object, want string }{{"checkpoint", "is not the key of the certificate"}, {"nothing", "unit.key"}} {
		c, _, err := daemon.LoadConfig(r.config(r.uri("tsu"), r.uri(tt.object)), check)
		r.must(err)
		env := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-tsa"), Daemon: "zegel-tsa"}
		if err := run(t.Context(), env, c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("unit.key %s: got %v, want an error with %q", tt.object, err, tt.want)
		}
	}
}

// refusing is a clock that nobody vouches for.
type refusing struct{}

func (refusing) Now() (time.Time, time.Duration, error) {
	return time.Time{}, 0, errors.New("not synchronised")
}

// TestJournalOfLostClock has a clock that nobody vouches for stamp neither entries nor checkpoints of the journal: both carry on
// from the newest time that the journal holds, even when it is a checkpoint's.
func TestJournalOfLostClock(t *testing.T) {
	r := newRig(t, false)
	r.must(os.Remove(filepath.Join(r.dir, "journal")))
	tokens := hsm.New(hsm.Config{})
	defer func() { r.must(tokens.Close()) }()
	checkpoint, err := tokens.Generate(r.uri("checkpoint"), "ed25519")
	r.must(err)
	wrap, err := tokens.GenerateWrappingKey(r.uri("wrap"))
	r.must(err)
	yesterday := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	r.must(journal.Create(filepath.Join(r.dir, "journal"), "zegel.test/tsa", journal.Options{
		Wrap: wrap.Wrap, Unwrap: wrap.Unwrap, CheckpointKey: checkpoint, Now: func() time.Time { return yesterday },
	}))
	j, err := openJournal(tokens, daemon.Journal{
		Dir: filepath.Join(r.dir, "journal"), WrapKey: r.uri("wrap"), CheckpointKey: r.uri("checkpoint"),
	}, refusing{})
	r.must(err)
	defer func() { r.must(j.Close()) }()
	entry, err := j.Append(t.Context(), journal.DaemonStarted{Daemon: "zegel-tsa", Version: "test"})
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

// TestCheck has each fault of a configuration be named with its line, without a key being touched.
func TestCheck(t *testing.T) {
	r := newRig(t, false)
	qualified := []string{
		"assurance: test", "assurance: qualified", "clock: unverified", "clock: system",
		r.uri("tsu"), "pkcs11:token=t;object=tsu?module-path=/m.so", r.uri("wrap"), "pkcs11:token=t;object=wrap?module-path=/m.so",
	}
	edwards, edwardsKey, err := ed25519.GenerateKey(rand.Reader)
	r.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0)}
	r.writeCertificates("edwards.pem", r.sign(template, template, edwards, edwardsKey))
	with := func(more ...string) []string { return append(append([]string{}, qualified...), more...) }
	https := fmt.Sprintf("https: {listen: %q, certificate: %[2]s/tls.pem, key: %[2]s/tls.key}\n", r.listen["https"], r.dir)
	tests := []struct {
		name    string
		replace []string
		want    string // "" for what is good
	}{
		{"good", nil, ""},
		{"no https", []string{https, ""}, ""},
		{"qualified", qualified, ""},
		{"qualified without https", with(https, ""), "CIR (EU) 2025/1929"},
		{"qualified, software key", []string{"assurance: test", "assurance: qualified", "clock: unverified", "clock: system"}, "software key"},
		{"qualified, unverified clock", with("clock: system", "clock: unverified"), "unverified clock"},
		{"clock unknown", []string{"clock: unverified", "clock: sundial"}, "sundial"},
		{"key misspelt", []string{"accuracy: 1s", "acuracy: 1s"}, "accuracy"},
		{"accuracy missing", []string{"accuracy: 1s\n", ""}, "TIS-7.7.2-03"},
		{"accuracy of 2s", []string{"accuracy: 1s", "accuracy: 2s"}, "TIS-7.7.2-03"},
		{"accuracy of 1µs", []string{"accuracy: 1s", "accuracy: 1us"}, "accuracy"},
		{"policy missing", []string{"policy: 0.4.0.2023.1.1\n", ""}, "policy"},
		{"policy of words", []string{"policy: 0.4.0.2023.1.1", "policy: best"}, "object identifier"},
		{"policy of arcs too great", []string{"policy: 0.4.0.2023.1.1", "policy: 0.40"}, "object identifier"},
		{"other policy malformed", []string{"1.3.6.1.4.1.99999.1", "1.3.x"}, "policies[0]"},
		{"certificate missing", []string{"tsu.pem", "missing.pem"}, "unit.certificate"},
		{"chain is a key", []string{"chain.pem", "tls.key"}, "certificates only"},
		{"chain is empty", []string{"chain.pem", "pin"}, "no PEM certificate"},
		{"no key", []string{fmt.Sprintf("key: %q}\npolicy", r.uri("tsu")), "key: \"\"}\npolicy"}, "unit.key"},
		{"no journal", []string{"/journal, wrap", "/missing, wrap"}, "journal.dir"},
		{"no public address", []string{fmt.Sprintf("http: {listen: %q}", r.listen["http"]), `http: {listen: ""}`}, "http.listen"},
		{"key URI without scheme", []string{r.uri("tsu"), "tsu-key"}, "unit.key"},
		{"key URI misspelt", []string{r.uri("wrap"), strings.Replace(r.uri("wrap"), "pin-source", "pin-sauce", 1)}, "journal.wrap_key"},
		{"checkpoint key URI", []string{r.uri("checkpoint"), "checkpoint"}, "journal.checkpoint_key"},
		{"scheme with an EC key", []string{"chain.pem, key:", "chain.pem, signature_scheme: pss, key:"}, "unit.signature_scheme: signature scheme pss is one of RSA keys"},
		{"scheme misspelt", []string{"chain.pem, key:", "chain.pem, signature_scheme: oaep, key:"}, "write pkcs1v15 or pss"},
		{"certificate is no TSU's", []string{"/tsu.pem", "/tls.pem"}, "unit.certificate"},
		{"algorithm not for units", []string{"/tsu.pem", "/edwards.pem"}, `unit.certificate: ed25519 may not do the work "tsu"`},
		{"certificate is a CA's", []string{"/tsu.pem", "/chain.pem"}, "unit.certificate"},
		{"two certificates", []string{"/tsu.pem", "/two.pem"}, "unit.certificate"},
		{"chain of another CA", []string{"/chain.pem", "/tls-ca.pem"}, "unit.chain"},
		{"chain out of order", []string{"/chain.pem", "/disorder.pem"}, "unit.chain"},
		{"chain begins with the certificate", []string{"/chain.pem", "/two.pem"}, ""},
		{"chain is the certificate alone", []string{"/chain.pem", "/tsu.pem"}, "unit.chain"},
		{"https without address", []string{fmt.Sprintf("listen: %q, certificate: %s/tls.pem, key: %s/tls.key}\n", r.listen["https"], r.dir, r.dir), fmt.Sprintf("certificate: %s/tls.pem}\n", r.dir)}, "https.listen"},
		{"https wants client certificates", []string{https, strings.Replace(https, "}", ", client_ca: "+r.dir+"/tls-ca.pem}", 1)}, "https.client_ca"},
		{"one address twice", []string{r.listen["https"], r.listen["http"]}, "https.listen"},
		{"metrics on all addresses of a taken port", []string{r.listen["metrics"], strings.Replace(r.listen["admin"], "127.0.0.1", "", 1)}, "metrics.listen"},
		{"a name that nobody resolves", []string{fmt.Sprintf("http: {listen: %q}", r.listen["http"]), `http: {listen: "no-such-host.invalid:318"}`}, ""},
		{"port by name", []string{fmt.Sprintf("http: {listen: %q}", r.listen["http"]), `http: {listen: "127.0.0.1:http"}`}, "http.listen"},
		{"role unknown", []string{"system_auditor", "sysop"}, "sysop"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := daemon.LoadConfig(r.config(tt.replace...), check)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "tsa.yaml:")):
				t.Errorf("got %v, want an error with file, line and %q", err, tt.want)
			}
		})
	}
}

// A key that is not the certificate's ends the start, and the error names both and the remedy.
func TestWrongKey(t *testing.T) {
	r := newRig(t, true)
	r.makeUnit(r.key()) // certified anew, for another key
	c, digest, err := daemon.LoadConfig(r.config(), check)
	r.must(err)
	env := daemon.Env{Log: slog.New(slog.DiscardHandler), Registry: daemon.NewRegistry("zegel-tsa"), Daemon: "zegel-tsa", Version: "test", ConfigDigest: digest}
	err = run(t.Context(), env, c)
	for _, part := range []string{"unit.key: softtoken:object=tsu is not the key", r.dir + "/tsu.pem", "TEST TSU", "zegel token keys"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %q", err, part)
		}
	}
}
