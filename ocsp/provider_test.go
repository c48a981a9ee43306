package ocsp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// epoch is when the tests' provider begins.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeClock is a clock that stands until it is moved. It may be told to refuse.
type fakeClock struct {
	mu  sync.Mutex
	t   time.Time
	err error
}

func (c *fakeClock) Now() (time.Time, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t, 0, c.err
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *fakeClock) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// brokenKey signs as long as err is nil, with another's private half if wrong is set.
type brokenKey struct {
	crypto.Signer
	err   error
	wrong crypto.Signer
}

func (k *brokenKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.err != nil {
		return nil, k.err
	}
	if k.wrong != nil {
		return k.wrong.Sign(random, digest, opts)
	}
	return k.Signer.Sign(random, digest, opts)
}

// provider is a CA with a journal in a temporary folder, and a responder over it. The journal's
// clock is the CA's, the other one the responder's.
type provider struct {
	t             testing.TB
	caKey         crypto.Signer
	ca            *x509.Certificate
	key           *brokenKey
	certificate   *x509.Certificate
	journal       *journal.Journal
	checkpointKey ed25519.PrivateKey
	caClock       *fakeClock
	clock         *fakeClock
	log           bytes.Buffer
	registry      *prometheus.Registry
	responder     *Responder
	next          int64                       // serial
	dirs          map[*journal.Journal]string // of replicas
}

// testOrigin is the origin of the tests' journals.
const testOrigin = "zegel.test/ca"

// newProvider makes a provider whose responder answers from the CA's own journal, with one
// checkpoint at epoch. change, if not nil, may change the responder's Config.
func newProvider(t testing.TB, change func(*Config)) *provider {
	t.Helper()
	return newProviderAt(t, epoch, newKey(t), change)
}

// newProviderAt is newProvider with another beginning and another key of the responder.
func newProviderAt(t testing.TB, start time.Time, key crypto.Signer, change func(*Config)) *provider {
	t.Helper()
	p := &provider{
		t: t, caClock: &fakeClock{t: start}, clock: &fakeClock{t: start}, registry: prometheus.NewRegistry(), next: 0x1000,
		dirs: make(map[*journal.Journal]string),
	}
	p.caKey = newKey(t)
	p.ca = newCA(t, start, p.caKey)
	p.key = &brokenKey{Signer: key}
	p.certificate = newResponderCertificate(t, p, nil)
	_, p.checkpointKey, _ = ed25519.GenerateKey(rand.Reader)
	p.journal = p.newJournal()
	p.checkpoint()
	p.newResponder(change)
	return p
}

// newJournal makes another journal under the same origin and checkpoint key.
func (p *provider) newJournal() *journal.Journal {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "journal")
	same := func(b []byte) ([]byte, error) { return bytes.Clone(b), nil }
	options := journal.Options{Now: p.caClock.now, Wrap: same, Unwrap: same, CheckpointKey: p.checkpointKey}
	if err := journal.Create(dir, testOrigin, options); err != nil {
		p.t.Fatal(err)
	}
	j, err := journal.Open(dir, options)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = j.Close() }) // some tests close it themselves
	return j
}

func (p *provider) newResponder(change func(*Config)) {
	p.t.Helper()
	c := Config{
		Replica: p.journal, Clock: p.clock, Issuer: p.ca, Certificate: p.certificate, Key: p.key,
		Registerer: p.registry, Log: slog.New(slog.NewTextHandler(&p.log, nil)),
	}
	if change != nil {
		change(&c)
	}
	var err error
	if p.responder, err = New(c); err != nil {
		p.t.Fatal(err)
	}
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newCA(t testing.TB, start time.Time, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"NL"}, Organization: []string{"TEST"}, CommonName: "TEST Issuing CA"},
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(9, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return sign(t, template, template, key.Public(), key)
}

// newResponderCertificate makes what the profile ocsp-responder makes; change may spoil it.
func newResponderCertificate(t testing.TB, p *provider, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"NL"}, Organization: []string{"TEST"}, CommonName: "TEST OCSP"},
		NotBefore: p.ca.NotBefore.AddDate(1, 0, -1), NotAfter: p.ca.NotBefore.AddDate(1, 0, 90), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: oidNoCheck, Value: asn1.NullBytes}},
	}
	if change != nil {
		change(template)
	}
	return sign(t, template, p.ca, p.key.Public(), p.caKey)
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func (p *provider) append(e journal.Event) {
	p.t.Helper()
	if _, err := p.journal.Append(context.Background(), e); err != nil {
		p.t.Fatal(err)
	}
}

// id is the CA's id in the journal.
func (p *provider) id() journal.IssuerID {
	p.t.Helper()
	bits, err := der.PublicKeyBits(p.ca)
	if err != nil {
		p.t.Fatal(err)
	}
	return journal.NewIssuerID(p.ca.RawSubject, bits)
}

// All that the journal reads of a certificate is where its TBSCertificate ends.
var (
	testTBS         = []byte{0x30, 0x00}
	testCertificate = []byte{0x30, 0x02, 0x30, 0x00}
)

// intend, issue, abandon and revoke record what a CA does and return the serial.
func (p *provider) intend() *big.Int {
	p.t.Helper()
	p.next++
	serial := big.NewInt(p.next)
	p.intendSerial(serial)
	return serial
}

func (p *provider) issue() *big.Int {
	p.t.Helper()
	p.next++
	serial := big.NewInt(p.next)
	p.issueSerial(serial)
	return serial
}

func (p *provider) intendSerial(serial *big.Int) {
	p.t.Helper()
	p.append(journal.CertificateIntended{
		Actor: journal.Actor{1}, Issuer: p.id(), Serial: p.serial(serial), TBSDigest: sha256.Sum256(testTBS), Profile: "qcp-n",
		NotBefore: p.caClock.now(), NotAfter: p.caClock.now().AddDate(2, 0, 0), TBS: testTBS, Evidence: []byte("{}"),
	})
}

func (p *provider) issueSerial(serial *big.Int) {
	p.t.Helper()
	p.intendSerial(serial)
	p.append(journal.CertificateIssued{Issuer: p.id(), Serial: p.serial(serial), CertificateHash: sha256.Sum256(testCertificate), Certificate: testCertificate})
}

func (p *provider) abandon(serial *big.Int) {
	p.t.Helper()
	p.append(journal.CertificateAbandoned{Issuer: p.id(), Serial: p.serial(serial)})
}

// serial is serial as the journal has it.
func (p *provider) serial(serial *big.Int) journal.Serial {
	p.t.Helper()
	s, err := journal.ParseSerial(serial.Text(16))
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *provider) revoke(serial *big.Int, reason journal.Reason) {
	p.t.Helper()
	p.append(journal.CertificateRevoked{
		Actor: journal.Actor{1}, Issuer: p.id(), Serial: p.serial(serial), Reason: reason, RequestedAt: p.caClock.now(),
	})
}

// checkpoint makes the CA's journal sign where it is now.
func (p *provider) checkpoint() {
	p.t.Helper()
	if _, err := p.journal.Checkpoint(); err != nil {
		p.t.Fatal(err)
	}
}

// pass moves both clocks, and the CA makes a checkpoint.
func (p *provider) pass(d time.Duration) {
	p.t.Helper()
	p.caClock.add(d)
	p.clock.add(d)
	p.checkpoint()
}

// ask sends a request for serials and returns the answer, which must be successful.
func (p *provider) ask(serials ...*big.Int) basicResponse {
	p.t.Helper()
	return p.mustSucceed(p.responder.Respond(context.Background(), p.request(serials...)))
}

func (p *provider) mustSucceed(response []byte) basicResponse {
	p.t.Helper()
	status, basic, err := parseResponse(response, p.certificate)
	if err != nil {
		p.t.Fatalf("response %x: %v", response, err)
	}
	if status != successful {
		p.t.Fatalf("responseStatus %v, want successful; log:\n%s", status, p.log.String())
	}
	return basic
}

// mustRefuse wants the whole response to a request for serials to be that status.
func (p *provider) mustRefuse(want responseStatus, serials ...*big.Int) {
	p.t.Helper()
	p.mustRefuseRequest(want, p.request(serials...))
}

func (p *provider) mustRefuseRequest(want responseStatus, request []byte) {
	p.t.Helper()
	status, _, err := parseResponse(p.responder.Respond(context.Background(), request), p.certificate)
	if err != nil {
		p.t.Fatal(err)
	}
	if status != want {
		p.t.Fatalf("responseStatus %v, want %v; log:\n%s", status, want, p.log.String())
	}
}

// metric is the value of the provider's metric of that name, with "name=value" labels if it has any;
// of a histogram, the number of its samples.
func (p *provider) metric(name string, labels ...string) float64 {
	p.t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetName()+"="+l.GetValue())
			}
			if slices.Equal(got, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	p.t.Fatalf("no metric %s %v", name, labels)
	return 0
}

// signatures is how many the responder has made.
func (p *provider) signatures() int {
	p.t.Helper()
	return int(p.metric("zegel_ocsp_signature_seconds"))
}

// request is a plain request with SHA-1 CertIDs.
func (p *provider) request(serials ...*big.Int) []byte {
	p.t.Helper()
	var s requestSpec
	for _, serial := range serials {
		s.list = append(s.list, p.certID(crypto.SHA1, serial))
	}
	return s.marshal(p.t)
}

// certID writes a CertID for our CA.
func (p *provider) certID(h crypto.Hash, serial *big.Int) []byte {
	p.t.Helper()
	bits, err := der.PublicKeyBits(p.ca)
	if err != nil {
		p.t.Fatal(err)
	}
	return certIDSpec{hash: h, subject: p.ca.RawSubject, key: bits, serial: serial}.marshal(p.t)
}

// certIDSpec is a CertID to be written.
type certIDSpec struct {
	hash         crypto.Hash
	oid          asn1.ObjectIdentifier // instead of hash's
	absent       bool                  // parameters absent, not NULL
	parameters   []byte                // instead
	subject, key []byte
	serial       *big.Int
}

func (s certIDSpec) marshal(t testing.TB) []byte {
	t.Helper()
	id := s.oid
	if id == nil {
		id = map[crypto.Hash]asn1.ObjectIdentifier{
			crypto.SHA1: oidSHA1, crypto.SHA256: oidSHA256, crypto.SHA384: oidSHA384, crypto.SHA512: oidSHA512,
		}[s.hash]
	}
	parameters := asn1.NullBytes
	if s.absent {
		parameters = nil
	}
	if s.parameters != nil {
		parameters = s.parameters
	}
	name, key := s.hash.New(), s.hash.New()
	name.Write(s.subject)
	key.Write(s.key)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(der.AlgorithmIdentifier(id, parameters))
		b.AddASN1OctetString(name.Sum(nil))
		b.AddASN1OctetString(key.Sum(nil))
		b.AddASN1BigInt(s.serial)
	})
	return mustBytes(t, &b)
}

// requestSpec is an OCSPRequest to be written; what is DER is written as it is.
type requestSpec struct {
	version    []byte // DER, with its tag [0]
	name       []byte // DER, with its tag [1]
	list       [][]byte
	single     []der.Extension // of each Request
	extensions []der.Extension
	signature  []byte // DER, with its tag [0]
}

func (s requestSpec) marshal(t testing.TB) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(s.version)
			b.AddBytes(s.name)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, id := range s.list {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(id)
						addTagged(b, 0, s.single)
					})
				}
			})
			addTagged(b, 2, s.extensions)
		})
		b.AddBytes(s.signature)
	})
	return mustBytes(t, &b)
}

func addTagged(b *cryptobyte.Builder, tag uint8, list []der.Extension) {
	if len(list) == 0 {
		return
	}
	b.AddASN1(cbasn1.Tag(tag).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { der.AddExtensions(b, list) })
}

func nonceExtension(t testing.TB, nonce []byte) der.Extension {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1OctetString(nonce)
	return der.Extension{ID: oidNonce, Value: mustBytes(t, &b)}
}

func mustBytes(t testing.TB, b *cryptobyte.Builder) []byte {
	t.Helper()
	out, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// basicResponse is a BasicOCSPResponse as parseResponse reads it.
type basicResponse struct {
	keyHash    []byte
	producedAt time.Time
	singles    []singleResponse
	nonce      []byte
}

type singleResponse struct {
	certID        []byte
	status        certStatus
	thisUpdate    time.Time
	nextUpdate    time.Time
	archiveCutoff time.Time
}

var errResponse = errors.New("not an OCSPResponse of ours")

// parseResponse is the judge of the tests: it was written from RFC 6960 §4.2.1, apart from wire.go,
// and takes only canonical DER in which everything that this responder always sends is there, signed by certificate.
func parseResponse(b []byte, certificate *x509.Certificate) (responseStatus, basicResponse, error) {
	var basic basicResponse
	if err := der.Check(b); err != nil {
		return 0, basic, err
	}
	s := cryptobyte.String(b)
	var outer, explicit, bytesSeq, response cryptobyte.String
	var enum int
	var responseType asn1.ObjectIdentifier
	if !s.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1Enum(&enum) {
		return 0, basic, errResponse
	}
	if enum != 0 {
		if !outer.Empty() || (enum != 1 && enum != 2 && enum != 3 && enum != 6) {
			return 0, basic, errResponse
		}
		return responseStatus(enum), basic, nil
	}
	if !outer.ReadASN1(&explicit, 0xa0) || !outer.Empty() ||
		!explicit.ReadASN1(&bytesSeq, cbasn1.SEQUENCE) || !explicit.Empty() ||
		!bytesSeq.ReadASN1ObjectIdentifier(&responseType) || !responseType.Equal(oidBasic) ||
		!bytesSeq.ReadASN1(&response, cbasn1.OCTET_STRING) || !bytesSeq.Empty() {
		return 0, basic, errResponse
	}
	if err := der.Check(response); err != nil {
		return 0, basic, err
	}
	var seq, tbs, algorithm, certs, list, leaf cryptobyte.String
	var signature []byte
	if !response.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1Element(&tbs, cbasn1.SEQUENCE) ||
		!seq.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&signature) ||
		!seq.ReadASN1(&certs, 0xa0) || !seq.Empty() || !certs.ReadASN1(&list, cbasn1.SEQUENCE) || !certs.Empty() ||
		!list.ReadASN1Element(&leaf, cbasn1.SEQUENCE) || !list.Empty() || !bytes.Equal(leaf, certificate.Raw) {
		return 0, basic, errResponse
	}
	want, err := der.AlgorithmOf(certificate.PublicKey, algorithm)
	if err != nil {
		return 0, basic, errResponse
	}
	if err := want.Verify(certificate.PublicKey, tbs, signature); err != nil {
		return 0, basic, err
	}
	basic, ok := readResponseData(tbs)
	if !ok {
		return 0, basic, errResponse
	}
	return successful, basic, nil
}

func readResponseData(tbs cryptobyte.String) (d basicResponse, ok bool) {
	var data, byKey, key, responses, extensions, extension, value cryptobyte.String
	var present bool
	if !tbs.ReadASN1(&data, cbasn1.SEQUENCE) || !tbs.Empty() ||
		!data.ReadASN1(&byKey, 0xa2) || !byKey.ReadASN1(&key, cbasn1.OCTET_STRING) || !byKey.Empty() ||
		!readTime(&data, &d.producedAt) || !data.ReadASN1(&responses, cbasn1.SEQUENCE) || responses.Empty() ||
		!data.ReadOptionalASN1(&extensions, &present, 0xa1) || !data.Empty() {
		return d, false
	}
	d.keyHash = key
	for !responses.Empty() {
		r, ok := readSingleResponse(&responses)
		if !ok {
			return d, false
		}
		d.singles = append(d.singles, r)
	}
	if !present {
		return d, true
	}
	var id asn1.ObjectIdentifier
	if !extensions.ReadASN1(&extension, cbasn1.SEQUENCE) || !extensions.Empty() ||
		!extension.ReadASN1(&value, cbasn1.SEQUENCE) || !extension.Empty() ||
		!value.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidNonce) ||
		!value.ReadASN1Bytes(&d.nonce, cbasn1.OCTET_STRING) || !value.Empty() {
		return d, false
	}
	return d, true
}

func readSingleResponse(s *cryptobyte.String) (r singleResponse, ok bool) {
	var single, id, status, next, extensions, list, extension, value, cutoff cryptobyte.String
	var tag cbasn1.Tag
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&single, cbasn1.SEQUENCE) || !single.ReadASN1Element(&id, cbasn1.SEQUENCE) || !single.ReadAnyASN1(&status, &tag) {
		return r, false
	}
	r.certID = id
	switch tag {
	case 0x80, 0x82:
		r.status.state = state(tag & 3)
		if !status.Empty() {
			return r, false
		}
	case 0xa1:
		var reason cryptobyte.String
		var present bool
		r.status.state = revoked
		if !readTime(&status, &r.status.revocationTime) || !status.ReadOptionalASN1(&reason, &present, 0xa0) || !status.Empty() {
			return r, false
		}
		if present {
			var n int
			if !reason.ReadASN1Enum(&n) || !reason.Empty() || n < 1 || n > 10 || n == 7 || n == 8 {
				return r, false
			}
			r.status.reason = uint8(n)
		}
	default:
		return r, false
	}
	ok = readTime(&single, &r.thisUpdate) && single.ReadASN1(&next, 0xa0) && readTime(&next, &r.nextUpdate) && next.Empty() &&
		single.ReadASN1(&extensions, 0xa1) && single.Empty() && extensions.ReadASN1(&list, cbasn1.SEQUENCE) && extensions.Empty() &&
		list.ReadASN1(&extension, cbasn1.SEQUENCE) && list.Empty() &&
		extension.ReadASN1ObjectIdentifier(&oid) && oid.Equal(oidArchiveCutoff) &&
		extension.ReadASN1(&value, cbasn1.OCTET_STRING) && extension.Empty() &&
		value.ReadASN1Element(&cutoff, cbasn1.GeneralizedTime) && value.Empty() && readTime(&cutoff, &r.archiveCutoff)
	return r, ok
}

// readTime reads GeneralizedTime in the one form YYYYMMDDhhmmssZ.
func readTime(s *cryptobyte.String, out *time.Time) bool {
	var text cryptobyte.String
	if !s.ReadASN1(&text, cbasn1.GeneralizedTime) || len(text) != len("20060102150405Z") {
		return false
	}
	t, err := time.Parse("20060102150405Z", string(text))
	*out = t
	return err == nil
}
