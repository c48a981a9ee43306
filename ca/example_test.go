package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// A root certifies an issuing CA, which the journal knows before and after.
func ExampleIssuer_Issue() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "zegel-example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	j, err := openJournal(filepath.Join(dir, "journal"))
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close()

	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	profile, err := policy.Builtin("root-ca")
	if err != nil {
		log.Fatal(err)
	}
	actor, wallClock := journal.Actor{1}, clock.Unverified(time.Second)
	rootDER, err := ca.IssueRoot(ctx, ca.RootConfig{
		Journal: j, Clock: wallClock, Key: rootKey, Instance: 1, Actor: actor, Profile: profile, Subject: name("TEST Root"),
	})
	if err != nil {
		log.Fatal(err)
	}
	root, err := x509.ParseCertificate(rootDER)
	if err != nil {
		log.Fatal(err)
	}

	issuer, err := ca.New(ca.Config{
		Journal: j, Clock: wallClock, Key: rootKey, Certificate: root, Instance: 1,
		URLs:       policy.URLs{CRL: "http://pki.example.nl/root.crl", CAIssuers: "http://pki.example.nl/root.cer"},
		PublishDir: dir, CRLFile: "root.crl", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := issuer.Recover(ctx); err != nil {
		log.Fatal(err)
	}
	issuingKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	publicKey, err := x509.MarshalPKIXPublicKey(issuingKey.Public())
	if err != nil {
		log.Fatal(err)
	}
	if profile, err = policy.Builtin("issuing-ca"); err != nil {
		log.Fatal(err)
	}
	issued, err := issuer.Issue(ctx, ca.Order{Actor: actor, Profile: profile, Subject: name("TEST Issuing CA"), PublicKey: publicKey})
	if err != nil {
		log.Fatal(err)
	}
	cert, err := x509.ParseCertificate(issued.Certificate)
	if err != nil {
		log.Fatal(err)
	}
	known, err := j.Certificate(issuer.ID(), issued.Serial)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cert.Subject.CommonName, known.Status, cert.CheckSignatureFrom(root))
	// Output: TEST Issuing CA good <nil>
}

func name(commonName string) *policy.Subject {
	return &policy.Subject{Attributes: []policy.Attribute{
		{Type: "countryName", Value: "NL"}, {Type: "organizationName", Value: "TEST Trust B.V."},
		{Type: "organizationIdentifier", Value: "NTRNL-12345678"}, {Type: "commonName", Value: commonName},
	}}
}

// openJournal makes a journal whose keys are in memory; a daemon's are in a token.
func openJournal(dir string) (*journal.Journal, error) {
	_, checkpointKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	same := func(key []byte) ([]byte, error) { return key, nil }
	o := journal.Options{Wrap: same, Unwrap: same, CheckpointKey: checkpointKey}
	if err := journal.Create(dir, "zegel.example/ca", o); err != nil {
		return nil, err
	}
	return journal.Open(dir, o)
}
