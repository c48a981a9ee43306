package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// RootConfig says what root to make.
type RootConfig struct {
	Journal *journal.Journal
	Clock   clock.Clock
	Key     crypto.Signer // the root's key, which is also the one certified
	// SignatureScheme is what an RSA key signs with; "": der.PKCS1v15.
	SignatureScheme der.Scheme
	Instance        byte          // as in Config
	Actor           journal.Actor // who holds the ceremony
	Profile         *policy.Profile
	Subject         *policy.Subject
	NotAfter        time.Time // zero: the profile's validity
	Evidence        []byte    // JSON, sealed in the journal
	Log             *slog.Logger
}

// IssueRoot makes the self-signed certificate of a root, in the order and with the journal of
// Issuer.Issue, and returns its DER. The journal then has the root as its own issuer. With the
// certificate, New makes the Issuer that signs the issuing CAs and the root's CRL.
func IssueRoot(ctx context.Context, c RootConfig) ([]byte, error) {
	i, err := newIssuer(Config{Journal: c.Journal, Clock: c.Clock, Key: c.Key, SignatureScheme: c.SignatureScheme, Instance: c.Instance, Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("set up root: %w", err)
	}
	if c.Profile == nil || !c.Profile.SelfSigned() {
		return nil, errors.New("set up root: want a profile that is self-signed, as root-ca is")
	}
	spki, err := x509.MarshalPKIXPublicKey(c.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("set up root: %w", err)
	}
	i.recovered.Store(true) // a root that does not exist yet has nothing to recover
	issued, err := i.Issue(ctx, Order{
		Actor: c.Actor, Profile: c.Profile, Subject: c.Subject, PublicKey: spki,
		NotAfter: c.NotAfter, Evidence: c.Evidence,
	})
	return issued.Certificate, err
}

// selfID is the journal's name of a certificate that will be its own issuer.
func selfID(draft []byte) (journal.IssuerID, error) {
	cert, err := x509.ParseCertificate(draft)
	if err != nil {
		return journal.IssuerID{}, fmt.Errorf("parse draft: %w", err)
	}
	bits, err := der.PublicKeyBits(cert)
	if err != nil {
		return journal.IssuerID{}, err
	}
	return journal.NewIssuerID(cert.RawSubject, bits), nil
}
