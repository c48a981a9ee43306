package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/testdata/request"
)

// start is when every test begins: after the proofing that the example requests tell of.
var start = time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)

var testActor = journal.Actor{0xac, 0x70}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// testClock stands still but for set.
type testClock struct {
	mu  sync.Mutex
	t   time.Time
	err error
}

func (c *testClock) Now() (time.Time, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t, time.Millisecond, c.err
}

func (c *testClock) set(t time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t, c.err = t, err
}

func (c *testClock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// testKey counts what it signs, and does to each signature what the test says.
type testKey struct {
	crypto.Signer
	mu     sync.Mutex
	signed map[string]int // digest -> signatures
	before func(digest []byte) error
	after  func(signature []byte) []byte
}

func newTestKey(tb testing.TB) *testKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &testKey{Signer: key, signed: map[string]int{}}
}

func (k *testKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.mu.Lock()
	before, after := k.before, k.after
	k.mu.Unlock()
	if before != nil {
		if err := before(digest); err != nil {
			return nil, err
		}
	}
	k.mu.Lock()
	k.signed[string(digest)]++
	k.mu.Unlock()
	signature, err := k.Signer.Sign(r, digest, opts)
	if err == nil && after != nil {
		signature = after(signature)
	}
	return signature, err
}

// hook says what happens before and after each signature from now on; nil: nothing.
func (k *testKey) hook(before func(digest []byte) error, after func(signature []byte) []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before, k.after = before, after
}

func (k *testKey) signatures() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, count := range k.signed {
		n += count
	}
	return n
}

// provider is a root, an issuing CA and their journal: what a ceremony leaves.
type provider struct {
	testing.TB
	dir     string
	clock   clock.Clock
	options journal.Options
	rootKey *testKey
	key     *testKey
	scheme  der.Scheme // of both keys
	journal *journal.Journal
	root    *x509.Certificate
	cert    *x509.Certificate
	issuer  *Issuer
}

// newProvider has a clock that stands still at start until the test sets it.
func newProvider(tb testing.TB) (*provider, *testClock) {
	tb.Helper()
	c := &testClock{t: start}
	return newProviderWith(tb, c), c
}

// newProviderSigning has a root and an issuing CA with that key, which sign with scheme.
func newProviderSigning(tb testing.TB, key crypto.Signer, scheme der.Scheme) *provider {
	tb.Helper()
	k := &testKey{Signer: key, signed: map[string]int{}}
	return (&provider{rootKey: k, key: k, scheme: scheme, clock: &testClock{t: start}}).set(tb)
}

func newProviderWith(tb testing.TB, clock clock.Clock) *provider {
	tb.Helper()
	return newProviderOf(tb, clock, newTestKey(tb))
}

func newProviderOf(tb testing.TB, c clock.Clock, key *testKey) *provider {
	tb.Helper()
	return (&provider{rootKey: newTestKey(tb), key: key, clock: c}).set(tb)
}

// set makes the rest of a provider with keys and a clock.
func (p *provider) set(tb testing.TB) *provider {
	tb.Helper()
	p.TB, p.dir = tb, tb.TempDir()
	p.options = journaltest.Options(tb, clock.Recorded(p.clock, p.lastTime)) // as zegel-ca does
	if err := os.Mkdir(p.publishDir(), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := journal.Create(p.journalDir(), "zegel.example/ca", p.options); err != nil {
		tb.Fatal(err)
	}
	p.open()
	tb.Cleanup(func() {
		p.verify()
		if err := p.journal.Close(); err != nil {
			tb.Error(err)
		}
	})
	p.holdCeremony()
	p.issuer = p.newIssuer()
	if err := p.issuer.Recover(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return p
}

// lastTime is that of the journal's last entry.
func (p *provider) lastTime() time.Time {
	if p.journal == nil {
		return time.Time{}
	}
	return p.journal.LastTime()
}

func (p *provider) journalDir() string { return filepath.Join(p.dir, "journal") }
func (p *provider) publishDir() string { return filepath.Join(p.dir, "publish") }
func (p *provider) crlFile() string    { return filepath.Join(p.publishDir(), "issuing.crl") }

func (p *provider) open() {
	p.Helper()
	var err error
	if p.journal, err = journal.Open(p.journalDir(), p.options); err != nil {
		p.Fatal(err)
	}
}

// restart is what happens when the process dies and comes back: whatever was only in memory is gone.
func (p *provider) restart() {
	p.Helper()
	if err := p.journal.Close(); err != nil {
		p.Fatal(err)
	}
	p.open()
	p.issuer = p.newIssuer()
	if err := p.issuer.Recover(context.Background()); err != nil {
		p.Fatal(err)
	}
}

func (p *provider) config() Config {
	return Config{
		Journal: p.journal, Clock: p.clock, Key: p.key, SignatureScheme: p.scheme, Certificate: p.cert, Instance: 1,
		URLs: testURLs(), PublishDir: p.publishDir(), CRLFile: "issuing.crl",
		CRLEvery: 12 * time.Hour, CRLLife: 24 * time.Hour, Log: quiet,
	}
}

func testURLs() policy.URLs {
	return policy.URLs{
		CRL: "http://pki.example.nl/issuing.crl", OCSP: "http://ocsp.example.nl/", CAIssuers: "http://pki.example.nl/issuing.cer",
		PDS: []policy.PDS{{URL: "https://pki.example.nl/pds-en.pdf", Language: "en"}},
	}
}

func (p *provider) newIssuer() *Issuer {
	p.Helper()
	i, err := New(p.config())
	if err != nil {
		p.Fatal(err)
	}
	return i
}

// holdCeremony makes the root and the issuing CA as zegel-ceremony does.
func (p *provider) holdCeremony() {
	p.Helper()
	rootDER, err := IssueRoot(p.Context(), RootConfig{
		Journal: p.journal, Clock: p.clock, Key: p.rootKey, SignatureScheme: p.scheme, Instance: 2, Actor: testActor,
		Profile: p.profile("root-ca"), Subject: caName("TEST Root"), Log: quiet,
	})
	if err != nil {
		p.Fatal(err)
	}
	p.root = p.parse(rootDER)
	issued, err := p.newRootIssuer().Issue(p.Context(), Order{
		Actor: testActor, Profile: p.profile("issuing-ca"), Subject: caName("TEST Issuing CA"), PublicKey: spki(p, p.key),
	})
	if err != nil {
		p.Fatal(err)
	}
	p.cert = p.parse(issued.Certificate)
}

func (p *provider) newRootIssuer() *Issuer {
	p.Helper()
	i, err := New(Config{
		Journal: p.journal, Clock: p.clock, Key: p.rootKey, SignatureScheme: p.scheme, Certificate: p.root, Instance: 2,
		URLs:       policy.URLs{CRL: "http://pki.example.nl/root.crl", CAIssuers: "http://pki.example.nl/root.cer"},
		PublishDir: p.publishDir(), CRLFile: "root.crl", CRLEvery: 180 * 24 * time.Hour, CRLLife: 365 * 24 * time.Hour, Log: quiet,
	})
	if err != nil {
		p.Fatal(err)
	}
	if err := i.Recover(p.Context()); err != nil {
		p.Fatal(err)
	}
	return i
}

func caName(commonName string) *policy.Subject {
	return &policy.Subject{Attributes: []policy.Attribute{
		{Type: "countryName", Value: "NL"}, {Type: "organizationName", Value: "TEST Trust B.V."},
		{Type: "organizationIdentifier", Value: "NTRNL-12345678"}, {Type: "commonName", Value: commonName},
	}}
}

func spki(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	b, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func (p *provider) profile(name string) *policy.Profile {
	p.Helper()
	profile, err := policy.Builtin(name)
	if err != nil {
		p.Fatal(err)
	}
	return profile
}

func (p *provider) parse(der []byte) *x509.Certificate {
	p.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		p.Fatal(err)
	}
	return c
}

// order is a natural person's, with a fresh key.
func (p *provider) order() Order {
	p.Helper()
	text, err := request.Example("qcp-n")
	if err != nil {
		p.Fatal(err)
	}
	subject, err := policy.ParseSubject("qcp-n.yaml", text)
	if err != nil {
		p.Fatal(err)
	}
	return Order{Actor: testActor, Profile: p.profile("qcp-n"), Subject: subject, PublicKey: spki(p, newTestKey(p))}
}

func (p *provider) issue() Issued {
	p.Helper()
	issued, err := p.issuer.Issue(p.Context(), p.order())
	if err != nil {
		p.Fatal(err)
	}
	return issued
}

// state is what the journal says of a serial.
func (p *provider) state(serial journal.Serial) journal.Certificate {
	p.Helper()
	c, err := p.journal.CertificateBySerial(serial)
	if err != nil {
		p.Fatal(err)
	}
	return c
}

// published is the CRL in publish/, its signature checked.
func (p *provider) published() *x509.RevocationList {
	p.Helper()
	text, err := os.ReadFile(p.crlFile())
	if err != nil {
		p.Fatal(err)
	}
	list, err := x509.ParseRevocationList(text)
	if err != nil {
		p.Fatal(err)
	}
	if err := list.CheckSignatureFrom(p.cert); err != nil {
		p.Fatal(err)
	}
	return list
}

// onCRL finds a serial on the published CRL.
func (p *provider) onCRL(serial journal.Serial) (x509.RevocationListEntry, bool) {
	p.Helper()
	for _, e := range p.published().RevokedCertificateEntries {
		if bytes.Equal(e.SerialNumber.Bytes(), serial.Bytes()) {
			return e, true
		}
	}
	return x509.RevocationListEntry{}, false
}

// verify has the journal verify itself: every test ends with it.
func (p *provider) verify() {
	p.Helper()
	report, err := p.journal.Verify(context.Background())
	if errors.Is(err, journal.ErrClosed) || errors.Is(err, journal.ErrFailed) {
		return // the test ended in the middle on purpose, and looked at what it wanted
	}
	if err != nil || !report.OK {
		p.Errorf("journal does not verify: %v %+v", err, report)
	}
}

// issueRequest is what an officer's tool would send.
func issueRequest(tb testing.TB) desk.IssueRequest {
	tb.Helper()
	subject, err := request.Example("qcp-n")
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, newTestKey(tb).Signer)
	if err != nil {
		tb.Fatal(err)
	}
	return desk.IssueRequest{
		Profile: "qcp-n", CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		Subject: string(subject), SubjectName: "thea.yaml",
	}
}

func toJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}
