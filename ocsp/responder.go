// Package ocsp answers what the journal says of a certificate, or that it cannot; never more.
//
// A Responder is an OCSP responder (RFC 6960) for one issuer. It holds a replica of the CA's
// journal, which it follows and verifies, and a delegated key. What it answers is as fresh as it
// says: thisUpdate is the time of the last checkpoint the replica has verified, and when the
// status life has passed since then it answers tryLater, except for what is revoked for ever. A
// serial that was never issued is never good.
package ocsp

import (
	"bytes"
	"crypto"
	"crypto/sha1" // RFC 6960 §4.2.1 fixes SHA-1 for KeyHash; nothing rests on its collision resistance
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"golang.org/x/time/rate"
)

const (
	// DefaultStatusLife is how long an answer holds where Config.StatusLife is zero.
	DefaultStatusLife = 12 * time.Hour

	// maxStatusLife keeps a revocation from hiding behind an answer that is still valid for longer
	// than the 24 hours of EN 319 411-1 REV-6.2.4-03A.
	maxStatusLife = 24 * time.Hour

	// minStatusLife is the unit of GeneralizedTime in an answer.
	minStatusLife = time.Second

	// maxBehind is how far the clock may be behind the journal's times: two machines with good
	// clocks differ by less, and checkpoints arrive within moments of being made.
	maxBehind = 5 * time.Second
)

// Config is what a Responder is made of. New copies it.
type Config struct {
	// Replica is the journal that answers are read from: a replica that Follow keeps up, or the
	// CA's journal itself. The caller closes it, after the Responder's last use.
	Replica *journal.Journal

	// Clock tells producedAt and judges freshness. While it refuses, every answer is tryLater.
	Clock clock.Clock

	// Issuer is the certificate of the CA whose certificates are answered for.
	Issuer *x509.Certificate

	// Certificate is the delegated responder certificate, issued directly by Issuer (RFC 6960
	// §4.2.2.2); CheckCertificate has the rules. Key is its private key; as many signatures run
	// at once as Key allows, 64 at most.
	Certificate *x509.Certificate
	Key         crypto.Signer

	// SignatureScheme is what an RSA key signs with; "": der.PKCS1v15.
	SignatureScheme der.Scheme

	// StatusLife is nextUpdate minus thisUpdate: 1 s to 24 h. Zero: DefaultStatusLife.
	StatusLife time.Duration

	// Registerer takes the metrics; nil: they are counted and shown nowhere.
	Registerer prometheus.Registerer

	// Log takes what operators have to know; nil: slog.Default().
	Log *slog.Logger
}

// Responder answers OCSP requests. All methods are safe for concurrent use.
type Responder struct {
	replica     *journal.Journal
	clock       clock.Clock
	issuer      issuer
	certificate *x509.Certificate
	serial      journal.Serial // of certificate
	key         crypto.Signer
	algorithm   der.Algorithm
	keyHash     []byte // of ResponderID byKey
	statusLife  time.Duration
	refresh     time.Duration // a cached answer is not used once a fresh one would be newer by this
	cache       *cache
	signing     *signing
	metrics     *metrics
	log         *slog.Logger

	// At most one line a second each: whoever sends requests must not be able to fill the log.
	logRefusal, logNeverIssued, logFeed rate.Sometimes

	feedErr      atomic.Pointer[feedError] // the last one
	lastStanding atomic.Pointer[standing]
}

// New makes a Responder and checks that its parts fit: the key and the certificate, the
// certificate and the issuer, and, where the clock can tell, the certificate's validity.
func New(c Config) (*Responder, error) {
	switch {
	case c.Replica == nil:
		return nil, errors.New("make responder: no replica")
	case c.Clock == nil:
		return nil, errors.New("make responder: no clock")
	case c.Issuer == nil:
		return nil, errors.New("make responder: no issuer certificate")
	case c.Certificate == nil:
		return nil, errors.New("make responder: no responder certificate")
	case c.Key == nil:
		return nil, errors.New("make responder: no key")
	}
	life, err := statusLife(c.StatusLife)
	if err != nil {
		return nil, fmt.Errorf("make responder: %w", err)
	}
	if err := CheckCertificate(c.Certificate, c.Issuer); err != nil {
		return nil, fmt.Errorf("make responder: %w", err)
	}
	public, ok := c.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.Certificate.PublicKey) {
		return nil, errors.New("make responder: the key is not the responder certificate's: check responder.key and responder.certificate")
	}
	r := &Responder{
		replica: c.Replica, clock: c.Clock, certificate: c.Certificate, key: c.Key,
		statusLife: life, refresh: min(time.Minute, life/10), cache: newCache(cacheOctets), signing: newSigning(), log: c.Log,
	}
	r.logRefusal.Interval, r.logNeverIssued.Interval, r.logFeed.Interval = time.Second, time.Second, 30*time.Second
	if r.log == nil {
		r.log = slog.Default()
	}
	if r.serial, err = journal.ParseSerial(c.Certificate.SerialNumber.Text(16)); err != nil {
		return nil, fmt.Errorf("make responder: read responder certificate: %w", err)
	}
	if r.algorithm, err = der.AlgorithmFor(c.Certificate.PublicKey, c.SignatureScheme); err != nil {
		return nil, fmt.Errorf("make responder: %w", err)
	}
	if r.issuer, err = newIssuer(c.Issuer); err != nil {
		return nil, fmt.Errorf("make responder: %w", err)
	}
	bits, err := der.PublicKeyBits(c.Certificate)
	if err != nil {
		return nil, fmt.Errorf("make responder: %w", err)
	}
	keyHash := sha1.Sum(bits)
	r.keyHash = keyHash[:]
	// A clock that refuses now may come round; Respond and Health ask it again each time.
	if now, _, err := c.Clock.Now(); err == nil {
		if err := r.certificateValid(now); err != nil {
			return nil, fmt.Errorf("make responder: %w", err)
		}
	}
	if r.metrics, err = newMetrics(c.Registerer, r); err != nil {
		return nil, fmt.Errorf("make responder: %w", err)
	}
	return r, nil
}

// CheckStatusLife reports why life cannot be a Config.StatusLife; zero can.
func CheckStatusLife(life time.Duration) error {
	_, err := statusLife(life)
	return err
}

func statusLife(life time.Duration) (time.Duration, error) {
	switch {
	case life == 0:
		return DefaultStatusLife, nil
	case life < minStatusLife:
		return 0, fmt.Errorf("status life of %v: the least is %v", life, minStatusLife)
	case life > maxStatusLife:
		return 0, fmt.Errorf("status life of %v: more than %v would hide a revocation for longer than EN 319 411-1 REV-6.2.4-03A allows", life, maxStatusLife)
	}
	return life, nil
}

// CheckCertificate reports why certificate cannot be the delegated responder certificate of
// issuer. It has to be issued directly by issuer (RFC 6960 §4.2.2.2) with keyUsage
// digitalSignature, extendedKeyUsage OCSPSigning and nothing else, and id-pkix-ocsp-nocheck
// (RFC 6960 §4.2.2.2.1, EN 319 411-1 CSS-6.6.3-01A), and must not be a CA. It does not look at
// the clock.
func CheckCertificate(certificate, issuer *x509.Certificate) error {
	if !bytes.Equal(certificate.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("check responder certificate: issued by %q, not by %q (RFC 6960 §4.2.2.2)", certificate.Issuer, issuer.Subject)
	}
	if err := certificate.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("check responder certificate: not signed by %q (RFC 6960 §4.2.2.2): %w", issuer.Subject, err)
	}
	if len(certificate.ExtKeyUsage) != 1 || certificate.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning || len(certificate.UnknownExtKeyUsage) != 0 {
		return errors.New("check responder certificate: extendedKeyUsage is not OCSPSigning alone (RFC 6960 §4.2.2.2)")
	}
	if certificate.KeyUsage != x509.KeyUsageDigitalSignature {
		return errors.New("check responder certificate: keyUsage is not digitalSignature alone")
	}
	if certificate.IsCA {
		return errors.New("check responder certificate: it is a CA certificate")
	}
	for _, e := range certificate.Extensions {
		if e.Id.Equal(oidNoCheck) && bytes.Equal(e.Value, asn1.NullBytes) {
			return nil
		}
	}
	return errors.New("check responder certificate: id-pkix-ocsp-nocheck is missing (RFC 6960 §4.2.2.2.1): issue it with the profile ocsp-responder")
}

// certificateValid reports why the responder certificate is no good at t. It has to end after t, because an answer that
// ends with it would have expired on arrival.
func (r *Responder) certificateValid(t time.Time) error {
	if t.Before(r.certificate.NotBefore) {
		return fmt.Errorf("the responder certificate is valid from %s only: check the clock", r.certificate.NotBefore.UTC().Format(time.RFC3339))
	}
	if !t.Before(r.certificate.NotAfter) {
		return fmt.Errorf("the responder certificate expired at %s: issue a new one with the profile ocsp-responder (docs/ocsp.md, Renewal)", r.certificate.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// issuer is how CertIDs and the journal name the CA.
type issuer struct {
	id        journal.IssuerID
	notBefore time.Time
	hashes    map[crypto.Hash]issuerHashes
}

// issuerHashes is issuerNameHash and issuerKeyHash of CertID under one hash.
type issuerHashes struct{ name, key []byte }

func newIssuer(certificate *x509.Certificate) (issuer, error) {
	bits, err := der.PublicKeyBits(certificate)
	if err != nil {
		return issuer{}, fmt.Errorf("read issuer certificate: %w", err)
	}
	i := issuer{
		id:        journal.NewIssuerID(certificate.RawSubject, bits),
		notBefore: certificate.NotBefore,
		hashes:    make(map[crypto.Hash]issuerHashes, 4),
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		name, key := h.New(), h.New()
		name.Write(certificate.RawSubject)
		key.Write(bits)
		i.hashes[h] = issuerHashes{name: name.Sum(nil), key: key.Sum(nil)}
	}
	return i, nil
}

// named reports whether id names this issuer (RFC 6960 §4.1.1).
func (i issuer) named(id certID) bool {
	h, ok := i.hashes[id.hashAlgorithm]
	return ok && bytes.Equal(h.name, id.nameHash) && bytes.Equal(h.key, id.keyHash)
}
