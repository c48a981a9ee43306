package tsa_test

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
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/tsa"
)

// A client hashes its data, asks with a nonce of its own, and verifies what comes back.
func ExampleAuthority_Respond() {
	authority, roots, done := exampleAuthority()
	defer done()

	digest := sha256.Sum256([]byte("the contract"))
	nonce := tsa.NewNonce()
	request, err := tsa.NewRequest(tsa.Request{Hash: crypto.SHA256, Digest: digest[:], Nonce: nonce, CertReq: true})
	if err != nil {
		log.Fatal(err)
	}
	response := authority.Respond(context.Background(), request)

	ts, err := tsa.Verify(response, tsa.VerifyOptions{
		Roots: roots, Data: strings.NewReader("the contract"), Nonce: nonce, Now: time.Now(),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ts.Hash, ts.Policy, ts.Accuracy, ts.DataCompared)
	// Output: SHA-256 0.4.0.2023.1.1 1s true
}

// What cannot be stamped gets an answer all the same: a PKIFailureInfo and a text for people.
func ExampleRejection() {
	authority, _, done := exampleAuthority()
	defer done()

	_, err := tsa.ParseResponse(authority.Respond(context.Background(), []byte("stamp this")))
	var rejection *tsa.Rejection
	fmt.Println(errors.As(err, &rejection), rejection.FailInfo)
	// Output: true [badDataFormat]
}

// exampleAuthority is a TSA under a root of its own, with a journal in a temporary folder.
func exampleAuthority() (*tsa.Authority, *x509.CertPool, func()) {
	dir, err := os.MkdirTemp("", "zegel-example-")
	must(err)
	_, checkpointKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	same := func(key []byte) ([]byte, error) { return key, nil } // a token wraps; an example need not
	options := journal.Options{Wrap: same, Unwrap: same, CheckpointKey: checkpointKey}
	path := filepath.Join(dir, "journal")
	must(journal.Create(path, "zegel.example/tsa", options))
	j, err := journal.Open(path, options)
	must(err)

	unit, roots := exampleUnit()
	authority, err := tsa.New(tsa.Config{
		Journal: j, Clock: clock.Unverified(time.Millisecond), ClockUnverified: true,
		Unit: unit, Policy: tsa.BTSP, Accuracy: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	must(err)
	return authority, roots, func() {
		must(j.Close())
		must(os.RemoveAll(dir))
	}
}

// exampleUnit is a TSU whose certificate its own root has signed.
func exampleUnit() (tsa.Unit, *x509.CertPool) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	from, until := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST Root"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	timeStamping, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	must(err)
	unit := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TEST TSU"}, NotBefore: from, NotAfter: until,
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: timeStamping}},
	}
	rootCertificate, unitCertificate := certify(root, root, &rootKey.PublicKey, rootKey), certify(unit, root, &key.PublicKey, rootKey)
	roots := x509.NewCertPool()
	roots.AddCert(rootCertificate)
	return tsa.Unit{Key: key, Certificate: unitCertificate, Chain: []*x509.Certificate{rootCertificate}}, roots
}

func certify(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	must(err)
	c, err := x509.ParseCertificate(raw)
	must(err)
	return c
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
