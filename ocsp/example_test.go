package ocsp_test

import (
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
	"fmt"
	"log"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/ocsp"
	xocsp "golang.org/x/crypto/ocsp"
)

// A CA's journal holds an issued certificate; a responder over that journal is asked about it, then
// about a serial that was never issued.
func ExampleResponder_Respond() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "ocsp")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	issuer, issuerKey := certificate("TEST CA", nil, nil)
	delegated, key := certificate("TEST OCSP", issuer, issuerKey)

	j := openJournal(filepath.Join(dir, "journal"))
	defer func() { check(j.Close()) }()
	serial := big.NewInt(0x2a)
	record(ctx, j, issuer, serial)
	_, err = j.Checkpoint()
	check(err)

	responder, err := ocsp.New(ocsp.Config{
		Replica: j, Clock: clock.Unverified(time.Second), Issuer: issuer, Certificate: delegated, Key: key,
		StatusLife: 12 * time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	check(err)
	for _, n := range []*big.Int{serial, big.NewInt(0x2b)} {
		request, err := xocsp.CreateRequest(&x509.Certificate{SerialNumber: n}, issuer, nil)
		check(err)
		answer, err := xocsp.ParseResponse(responder.Respond(ctx, request), issuer)
		check(err)
		fmt.Printf("%x: %s, for %v\n", n, []string{"good", "revoked", "unknown"}[answer.Status], answer.NextUpdate.Sub(answer.ThisUpdate))
	}
	// Output:
	// 2a: good, for 12h0m0s
	// 2b: unknown, for 12h0m0s
}

// certificate makes a CA, or, with a parent, the responder certificate that it delegates to.
func certificate(name string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
	}
	if parent == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		parent, parentKey = template, key
	} else {
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		noCheck := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
		template.ExtraExtensions = []pkix.Extension{{Id: noCheck, Value: asn1.NullBytes}}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	check(err)
	made, err := x509.ParseCertificate(raw)
	check(err)
	return made, key
}

func openJournal(dir string) *journal.Journal {
	_, checkpointKey, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	same := func(b []byte) ([]byte, error) { return b, nil } // a token wraps it in earnest
	options := journal.Options{Wrap: same, Unwrap: same, CheckpointKey: checkpointKey}
	check(journal.Create(dir, "zegel.example/ca", options))
	j, err := journal.Open(dir, options)
	check(err)
	return j
}

// record does in the journal what issuing a certificate does.
func record(ctx context.Context, j *journal.Journal, issuer *x509.Certificate, serial *big.Int) {
	bits, err := der.PublicKeyBits(issuer)
	check(err)
	id := journal.NewIssuerID(issuer.RawSubject, bits)
	tbs, der := []byte{0x30, 0x00}, []byte{0x30, 0x02, 0x30, 0x00}
	for _, e := range []journal.Event{
		journal.CertificateIntended{
			Actor: journal.Actor{1}, Issuer: id, Serial: journal.Serial(serial.Bytes()), TBSDigest: sha256.Sum256(tbs), TBS: tbs,
			Profile: "qcp-n", NotBefore: time.Now(), NotAfter: time.Now().AddDate(2, 0, 0), Evidence: []byte("{}"),
		},
		journal.CertificateIssued{Issuer: id, Serial: journal.Serial(serial.Bytes()), CertificateHash: sha256.Sum256(der), Certificate: der},
	} {
		_, err := j.Append(ctx, e)
		check(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
