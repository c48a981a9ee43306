package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// began is when every certificate of these tests begins.
var began = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

var testURLs = URLs{
	CRL:       "http://ca.example.test/issuing.crl",
	OCSP:      "http://ocsp.example.test/",
	CAIssuers: "http://ca.example.test/issuing.cer",
	PDS: []PDS{
		{"https://ca.example.test/pds_en.pdf", "en"},
		{"https://ca.example.test/pds_nl.pdf", "nl"},
	},
}

// Test keys, one of each kind a run: RSA of 3072 bits takes most of a second to make.
var (
	testKeyP256 = sync.OnceValue(func() crypto.Signer { return newECKey(elliptic.P256()) })
	testKeyP384 = sync.OnceValue(func() crypto.Signer { return newECKey(elliptic.P384()) })
	testKeyRSA  = sync.OnceValue(func() crypto.Signer {
		key, err := rsa.GenerateKey(rand.Reader, 3072)
		if err != nil {
			panic(err)
		}
		return key
	})
)

func newECKey(curve elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func testSPKI(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func mustBuiltin(t testing.TB, name string) *Profile {
	t.Helper()
	p, err := Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// testSubject is a subject that the profile accepts.
func testSubject(p *Profile) *Subject {
	registration := &Registration{
		Method:         "physical-presence",
		EvidenceDigest: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
		Date:           began.Truncate(24 * time.Hour),
		Officer:        "officer-1",
		TermsVersion:   "2026-1",
	}
	device := &Device{Model: "TEST QSCD", Certification: "TEST-QSCD-1", GenerationRecord: "TEST record 1"}
	legal := func(name string) []Attribute {
		return []Attribute{
			{"countryName", "NL"}, {"organizationName", "TEST Provider B.V."},
			{"organizationIdentifier", "NTRNL-12345678"}, {"commonName", name},
		}
	}
	s := &Subject{}
	switch p.subject {
	case naturalSubject:
		s.Attributes = []Attribute{
			{"countryName", "NL"}, {"surname", "Müller"}, {"givenName", "TEST Zoë"},
			{"serialNumber", "PNONL-123456789"}, {"commonName", "TEST Zoë Müller"},
		}
		s.Email = "zoe@example.test"
	case legalSubject:
		s.Attributes = legal("TEST Seal")
	default:
		s.Attributes = legal("TEST " + p.name)
	}
	if p.registration {
		s.Registration = registration
	}
	if p.device {
		s.Device = device
	}
	return s
}

// testCA is a CA of a test: key, certificate, and what policy has to know of it.
type testCA struct {
	key    crypto.Signer
	cert   *x509.Certificate
	issuer Issuer
}

// issue makes a certificate of the profile for key, as ca does: TBS, draft judged, signed.
func (ca *testCA) issue(t testing.TB, p *Profile, key crypto.Signer) *x509.Certificate {
	t.Helper()
	r := testRequest(t, p, key)
	tbs, err := p.TBS(r, ca.issuer)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	draft := Draft(tbs, ca.issuer)
	if err := p.Check(draft); err != nil {
		t.Fatalf("%s: check: %v", p.name, err)
	}
	if err := Lint(draft); err != nil {
		t.Fatalf("%s: lint: %v", p.name, err)
	}
	signature, err := ca.issuer.Algorithm.Sign(ca.key, tbs)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(ca.issuer.Algorithm.Signed(tbs, signature))
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	return cert
}

func testRequest(t testing.TB, p *Profile, key crypto.Signer) Request {
	t.Helper()
	return Request{
		Subject:   testSubject(p),
		PublicKey: testSPKI(t, key),
		Serial:    []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
		NotBefore: began,
		NotAfter:  began.Add(p.Validity()),
	}
}

// newTestRoot makes a root with the profile root-ca.
func newTestRoot(t testing.TB, key crypto.Signer) *testCA {
	t.Helper()
	return newTestRootWith(t, key, "")
}

func newTestRootWith(t testing.TB, key crypto.Signer, scheme der.Scheme) *testCA {
	t.Helper()
	algorithm, err := der.AlgorithmFor(key.Public(), scheme)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{key: key, issuer: Issuer{PublicKey: key.Public(), Algorithm: algorithm}}
	ca.become(ca.issue(t, mustBuiltin(t, "root-ca"), key))
	return ca
}

// newTestIssuer makes an issuing CA under root, with the profile issuing-ca.
func newTestIssuer(t testing.TB, root *testCA, key crypto.Signer) *testCA {
	t.Helper()
	return newTestIssuerWith(t, root, key, "")
}

func newTestIssuerWith(t testing.TB, root *testCA, key crypto.Signer, scheme der.Scheme) *testCA {
	t.Helper()
	algorithm, err := der.AlgorithmFor(key.Public(), scheme)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{key: key, issuer: Issuer{PublicKey: key.Public(), Algorithm: algorithm}}
	ca.become(root.issue(t, mustBuiltin(t, "issuing-ca"), key))
	return ca
}

// become takes the certificate over into what the CA signs from now on.
func (ca *testCA) become(cert *x509.Certificate) {
	ca.cert = cert
	ca.issuer.Name, ca.issuer.KeyID = cert.RawSubject, cert.SubjectKeyId
	ca.issuer.NotBefore, ca.issuer.NotAfter = cert.NotBefore, cert.NotAfter
	ca.issuer.URLs = testURLs
}

// testIssuerFor is the CA that signs certificates of the profile: P-256 throughout.
func testIssuerFor(t testing.TB, p *Profile) *testCA {
	t.Helper()
	switch p.name {
	case "root-ca":
		key := testKeyP256()
		algorithm, err := der.AlgorithmFor(key.Public(), "")
		if err != nil {
			t.Fatal(err)
		}
		return &testCA{key: key, issuer: Issuer{PublicKey: key.Public(), Algorithm: algorithm}}
	case "issuing-ca":
		return newTestRoot(t, testKeyP256())
	}
	return newTestIssuer(t, newTestRoot(t, testKeyP256()), testKeyP256())
}

// testDraft is a clean draft of the profile for the key.
func testDraft(t testing.TB, p *Profile, key crypto.Signer) []byte {
	t.Helper()
	ca := testIssuerFor(t, p)
	tbs, err := p.TBS(testRequest(t, p, key), ca.issuer)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	return Draft(tbs, ca.issuer)
}
