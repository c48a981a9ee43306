package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// testTime is when the tests' clocks start.
var testTime = time.Date(2026, 11, 23, 16, 30, 5, 678_900_000, time.UTC)

// testCA is a root and an issuing CA that certify TSUs.
type testCA struct {
	root, issuing *x509.Certificate
	key           *ecdsa.PrivateKey // of the issuing CA
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	return testCAWith(t, newP256(t), newP256(t))
}

// fixedKey is the same key in every process, which signs the same way each time.
func fixedKey(t testing.TB, n byte) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{n}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testCAWith(t testing.TB, rootKey, key *ecdsa.PrivateKey) *testCA {
	t.Helper()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"NL"}, Organization: []string{"Test"}, CommonName: "TEST Root"},
		NotBefore: testTime.AddDate(-10, 0, 0), NotAfter: testTime.AddDate(100, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	issuing := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"NL"}, Organization: []string{"Test"}, CommonName: "TEST Issuing"},
		NotBefore: testTime.AddDate(-10, 0, 0), NotAfter: testTime.AddDate(100, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca := &testCA{key: key}
	ca.root = sign(t, root, root, &rootKey.PublicKey, rootKey)
	ca.issuing = sign(t, issuing, ca.root, &key.PublicKey, rootKey)
	return ca
}

func newP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var (
	rsa3072 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 3072) })
	rsa4096 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 4096) })
)

// service is a kind of key and scheme that units sign with, and how a token names it.
type service struct {
	name       string
	key        crypto.Signer
	scheme     der.Scheme
	algorithm  string
	identifier string // hex: RFC 5758 §3.2, RFC 4055 §5, §3.1
}

func services(t testing.TB) []service {
	t.Helper()
	small, err := rsa3072()
	if err != nil {
		t.Fatal(err)
	}
	great, err := rsa4096()
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const pkcs1, pss = "300d06092a864886f70d01010b0500", "304106092a864886f70d01010a3034a00f300d06096086480165030402010500" +
		"a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
	return []service{
		{"P-256", newP256(t), "", "ecdsa-with-SHA256", "300a06082a8648ce3d040302"},
		{"P-384", p384, "", "ecdsa-with-SHA384", "300a06082a8648ce3d040303"},
		{"P-521", p521, "", "ecdsa-with-SHA512", "300a06082a8648ce3d040304"},
		{"RSA-3072", small, der.PKCS1v15, "sha256WithRSAEncryption", pkcs1},
		{"RSA-3072 PSS", small, der.PSS, "RSASSA-PSS with SHA-256", pss},
		{"RSA-4096", great, "", "sha256WithRSAEncryption", pkcs1},
		{"RSA-4096 PSS", great, der.PSS, "RSASSA-PSS with SHA-256", pss},
	}
}

func sign(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(nil, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ekuTimeStamping is extKeyUsage with id-kp-timeStamping; x509 cannot make it critical.
func ekuTimeStamping(critical bool) pkix.Extension {
	value, _ := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping})
	return pkix.Extension{Id: oidExtKeyUsage, Critical: critical, Value: value}
}

// usageUntil is the privateKeyUsagePeriod extension with an end.
func usageUntil(until time.Time) pkix.Extension {
	return pkix.Extension{Id: oidPrivateKeyUsage, Value: wrap(0x30, wrap(0x81, []byte(until.UTC().Format("20060102150405Z"))))}
}

// tsuTemplate is a good TSU certificate, for tests to spoil.
func tsuTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(0x1234567890),
		Subject:      pkix.Name{Country: []string{"NL"}, Organization: []string{"Test"}, CommonName: "TEST TSU 1"},
		NotBefore:    testTime.AddDate(0, -1, 0), NotAfter: testTime.AddDate(5, 0, 0),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{ekuTimeStamping(true), usageUntil(testTime.AddDate(1, 0, 0))},
	}
}

// unit certifies key with the template.
func (ca *testCA) unit(t testing.TB, key crypto.Signer, template *x509.Certificate) Unit {
	t.Helper()
	return Unit{
		Key: key, Certificate: sign(t, template, ca.issuing, key.Public(), ca.key),
		Chain: []*x509.Certificate{ca.issuing, ca.root},
	}
}

func (ca *testCA) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

// fakeClock says what the test sets.
type fakeClock struct {
	mu        sync.Mutex
	wall      time.Time
	monotonic time.Duration
	accuracy  time.Duration
	err       error
}

func (c *fakeClock) Now() (time.Time, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall, c.accuracy, c.err
}

// pass lets both clocks run.
func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.monotonic = c.wall.Add(d), c.monotonic+d
}

// jump sets the wall clock alone.
func (c *fakeClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// say sets what the clock says of itself.
func (c *fakeClock) say(accuracy time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accuracy, c.err = accuracy, err
}

func (c *fakeClock) sinceBoot() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.monotonic
}

// memory is a journal that keeps its entries in memory and fails when told to. It enforces what
// the real one does for timestamps: each serial once, time never backwards.
type memory struct {
	mu     sync.Mutex
	now    func() time.Time
	events []journal.Event
	last   time.Time
	taken  map[journal.Serial]bool
	fail   func(journal.Event) error // asked before anything is kept
	failed error
}

func (m *memory) Append(_ context.Context, e journal.Event) (journal.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(e); err != nil {
			return journal.Entry{}, err
		}
	}
	now := m.now().Truncate(time.Millisecond)
	if now.Before(m.last) {
		return journal.Entry{}, errors.New("time runs backwards")
	}
	if issued, ok := e.(journal.TimestampIssued); ok {
		if m.taken[issued.Serial] {
			return journal.Entry{}, journal.ErrConflict
		}
		m.taken[issued.Serial] = true
	}
	m.last = now
	m.events = append(m.events, e)
	return journal.Entry{Index: uint64(len(m.events) - 1), Time: now}, nil
}

func (m *memory) LastTime() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (m *memory) Size() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.events))
}

func (m *memory) Failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

func (m *memory) failWith(fail func(journal.Event) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// issued are the tokens recorded, clock the clock changes.
func (m *memory) issued() (list []journal.TimestampIssued) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if issued, ok := e.(journal.TimestampIssued); ok {
			list = append(list, issued)
		}
	}
	return list
}

func (m *memory) clockChanges() (list []journal.ClockChanged) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if changed, ok := e.(journal.ClockChanged); ok {
			list = append(list, changed)
		}
	}
	return list
}

// bench is an Authority on a table: everything around it can be turned.
type bench struct {
	*Authority
	ca      *testCA
	unit    Unit
	clock   *fakeClock
	journal *memory
}

// newBench makes an Authority; change may spoil its Config. Its clock is b.clock, unless change names another.
func newBench(t testing.TB, key crypto.Signer, change func(*Config)) *bench {
	t.Helper()
	ca := newTestCA(t)
	b := &bench{ca: ca, unit: ca.unit(t, key, tsuTemplate()), clock: &fakeClock{wall: testTime, accuracy: 2 * time.Millisecond}}
	b.journal = &memory{taken: make(map[journal.Serial]bool)}
	c := Config{
		Unit: b.unit, Policy: BTSP, Policies: []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 1}},
		Accuracy: time.Second, Qualified: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if change != nil {
		change(&c)
	}
	if c.Clock == nil {
		watched := Steady(b.clock, c.Accuracy).(*steady)
		watched.monotonic = b.clock.sinceBoot
		c.Clock = watched
	}
	b.journal.now = clock.Recorded(c.Clock, func() time.Time { return b.journal.last }) // as the daemon has it; Append holds mu
	a, err := newAuthority(c, b.journal)
	if err != nil {
		t.Fatal(err)
	}
	b.Authority = a
	return b
}

// ask has data stamped and returns the response.
func (b *bench) ask(t testing.TB, data string, change func(*Request)) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(data))
	r := Request{Hash: crypto.SHA256, Digest: digest[:], CertReq: true}
	if change != nil {
		change(&r)
	}
	request, err := NewRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	return b.Respond(context.Background(), request)
}

// refused wants a response without a token and returns its one failInfo.
func refused(t testing.TB, response []byte) *Rejection {
	t.Helper()
	_, err := ParseResponse(response)
	var r *Rejection
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a rejection", err)
	}
	if r.Status != statusRejection || len(r.FailInfo) != 1 || r.StatusString == "" {
		t.Fatalf("got %+v, want status 2, one failInfo and a text", r)
	}
	return r
}
