package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"log/slog"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
	"github.com/zegel-tsp/zegel/ocsp"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/testdata/request"
	"github.com/zegel-tsp/zegel/tsa"
)

// provider is a CA, a responder and a time-stamping authority in one process, all with one key, each certificate of
// its real profile. Each daemon has a key of its own; here the raw signature is to be that of the same key.
type provider struct {
	algorithm der.Algorithm
	issuer    *ca.Issuer
	order     ca.Order
	responder *ocsp.Responder
	authority *tsa.Authority
	log       *journal.Journal // one that nobody else writes to

	cert   *x509.Certificate // the CA's
	serial *big.Int          // of a certificate that is good
}

func newProvider(tb testing.TB, key crypto.Signer) *provider {
	tb.Helper()
	p := &provider{log: newJournal(tb)}
	var err error
	p.algorithm, err = der.AlgorithmFor(key.Public(), "")
	must(tb, err)
	utc, quiet := clock.Unverified(time.Millisecond), slog.New(slog.DiscardHandler)
	log, publish := newJournal(tb), tb.TempDir()

	rootKey := newKey(tb)
	raw, err := ca.IssueRoot(tb.Context(), ca.RootConfig{
		Journal: log, Clock: utc, Key: rootKey, Instance: 2, Actor: journaltest.Officer, Profile: profile(tb, "root-ca"),
		Subject: subject("TEST Root"), Log: quiet,
	})
	must(tb, err)
	root := parse(tb, raw)
	newIssuer := func(cert *x509.Certificate, key crypto.Signer, instance byte, urls policy.URLs, crl string) *ca.Issuer {
		i, err := ca.New(ca.Config{
			Journal: log, Clock: utc, Key: key, Certificate: cert, Instance: instance, URLs: urls, PublishDir: publish, CRLFile: crl, Log: quiet,
		})
		must(tb, err)
		must(tb, i.Recover(tb.Context()))
		return i
	}
	rootURLs := policy.URLs{CRL: "http://pki.example.nl/root.crl", CAIssuers: "http://pki.example.nl/root.cer"}
	p.cert = issue(tb, newIssuer(root, rootKey, 2, rootURLs, "root.crl"), "issuing-ca", key)
	p.issuer = newIssuer(p.cert, key, 1, policy.URLs{
		CRL: "http://pki.example.nl/issuing.crl", OCSP: "http://ocsp.example.nl/", CAIssuers: "http://pki.example.nl/issuing.cer",
		PDS: []policy.PDS{{URL: "https://pki.example.nl/pds-en.pdf", Language: "en"}},
	}, "issuing.crl")

	p.order = newOrder(tb)
	issued, err := p.issuer.Issue(tb.Context(), p.order)
	must(tb, err)
	p.serial = new(big.Int).SetBytes(issued.Serial.Bytes())
	responderCert := issue(tb, p.issuer, "ocsp-responder", key)
	unitCert := issue(tb, p.issuer, "tsu", key)

	_, err = log.Checkpoint()
	must(tb, err)
	p.responder, err = ocsp.New(ocsp.Config{Replica: log, Clock: utc, Issuer: p.cert, Certificate: responderCert, Key: key, Log: quiet})
	must(tb, err)
	p.authority, err = tsa.New(tsa.Config{
		Journal: newJournal(tb), Clock: utc, ClockUnverified: true, Profile: profile(tb, "tsu"), Policy: tsa.BTSP, Accuracy: time.Second, Log: quiet,
		Unit: tsa.Unit{Key: key, Certificate: unitCert, Chain: []*x509.Certificate{p.cert, root}},
	})
	must(tb, err)
	return p
}

// newJournal leaves out the verification at the end that journaltest.New has: it would be in the profiles.
func newJournal(tb testing.TB) *journal.Journal {
	tb.Helper()
	dir, o := filepath.Join(tb.TempDir(), "journal"), journaltest.Options(tb, nil)
	must(tb, journal.Create(dir, journaltest.Origin, o))
	j, err := journal.Open(dir, o)
	must(tb, err)
	tb.Cleanup(func() { j.Close() })
	return j
}

func issue(tb testing.TB, by *ca.Issuer, profileName string, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(tb, err)
	issued, err := by.Issue(tb.Context(), ca.Order{
		Actor: journaltest.Officer, Profile: profile(tb, profileName), Subject: subject("TEST " + profileName), PublicKey: public,
	})
	must(tb, err)
	return parse(tb, issued.Certificate)
}

// newOrder is a natural person's, for a P-256 key.
func newOrder(tb testing.TB) ca.Order {
	tb.Helper()
	text, err := request.Example("qcp-n")
	must(tb, err)
	person, err := policy.ParseSubject("qcp-n.yaml", text)
	must(tb, err)
	public, err := x509.MarshalPKIXPublicKey(newKey(tb).Public())
	must(tb, err)
	return ca.Order{Actor: journaltest.Officer, Profile: profile(tb, "qcp-n"), Subject: person, PublicKey: public, Evidence: []byte("{}")}
}

// newIntent is an entry of the usual size, with a serial of its own.
func newIntent() journal.CertificateIntended {
	serial := make([]byte, 20)
	rand.Read(serial)
	serial[0] = 1
	e, _ := journaltest.Intent(journal.IssuerID{1}, journal.Serial(serial))
	e.TBS = make([]byte, 1200)
	rand.Read(e.TBS)
	e.TBSDigest = sha256.Sum256(e.TBS)
	return e
}

// question is an OCSPRequest for a certificate that is good, with a nonce or without.
func (p *provider) question(tb testing.TB, nonce bool) []byte {
	tb.Helper()
	return newQuestion(tb, &x509.Certificate{SerialNumber: p.serial}, p.cert, nonce)
}

// newQuestion has the library write the request; it knows no nonce, so that one is put behind its requestList.
func newQuestion(tb testing.TB, cert, issuer *x509.Certificate, nonce bool) []byte {
	tb.Helper()
	plain, err := xocsp.CreateRequest(cert, issuer, &xocsp.RequestOptions{Hash: crypto.SHA256})
	must(tb, err)
	if !nonce {
		return plain
	}
	var outer struct {
		TBS struct {
			List       []asn1.RawValue
			Extensions []pkix.Extension `asn1:"explicit,tag:2,optional"`
		}
	}
	_, err = asn1.Unmarshal(plain, &outer)
	must(tb, err)
	value, err := asn1.Marshal(make([]byte, 32))
	must(tb, err)
	outer.TBS.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, Value: value}} // RFC 9654 §2.1
	whole, err := asn1.Marshal(outer)
	must(tb, err)
	return whole
}

func newStampRequest(tb testing.TB) []byte {
	tb.Helper()
	r, err := tsa.NewRequest(tsa.Request{Hash: crypto.SHA256, Digest: make([]byte, 32), Nonce: tsa.NewNonce(), CertReq: true})
	must(tb, err)
	return r
}

func subject(commonName string) *policy.Subject {
	return &policy.Subject{Attributes: []policy.Attribute{
		{Type: "countryName", Value: "NL"}, {Type: "organizationName", Value: "TEST Trust B.V."},
		{Type: "organizationIdentifier", Value: "NTRNL-12345678"}, {Type: "commonName", Value: commonName},
	}}
}

func profile(tb testing.TB, name string) *policy.Profile {
	tb.Helper()
	p, err := policy.Builtin(name)
	must(tb, err)
	return p
}

func parse(tb testing.TB, raw []byte) *x509.Certificate {
	tb.Helper()
	c, err := x509.ParseCertificate(raw)
	must(tb, err)
	return c
}

func newKey(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	return key
}
