package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// Order is what somebody with the right to ask wants certified.
type Order struct {
	Actor     journal.Actor // who asks
	Profile   *policy.Profile
	Subject   *policy.Subject
	PublicKey []byte // SubjectPublicKeyInfo, DER, as policy.ParseCSR returned it
	// NotBefore is when the certificate begins, not before now; zero: now.
	NotBefore time.Time
	// NotAfter is when it ends, within the profile's validity and the CA's own; zero: the profile's
	// validity, cut where the CA certificate ends (EN 319 411-1 GEN-6.3.3-05), for a subscriber not to less than a tenth.
	NotAfter time.Time
	Evidence []byte // JSON, sealed in the journal: registration, device, digest of the request
}

// Planned is what an Order would become. Its serial is never used.
type Planned struct {
	Serial              journal.Serial
	TBS                 []byte   // what would be signed, DER
	TBSDigest           [32]byte // SHA-256 of TBS
	Draft               []byte   // TBS with a placeholder signature, DER
	NotBefore, NotAfter time.Time
}

// Issued is a certificate that the journal holds.
type Issued struct {
	Serial              journal.Serial
	TBSDigest           [32]byte // SHA-256 of what was signed
	Certificate         []byte   // DER
	NotBefore, NotAfter time.Time
}

// ID names a draft to people and later to those who approve it: the first 16 octets of its digest.
func (p Planned) ID() string { return hex.EncodeToString(p.TBSDigest[:16]) }

// ID is that of the draft that was signed.
func (s Issued) ID() string { return hex.EncodeToString(s.TBSDigest[:16]) }

// The values below are the order of issuing, as types: only draft makes a *draft, only intend makes
// an *intent, and from one; only sign makes a *signature, and from an intent. So nothing can be
// signed that was not judged and recorded, and nothing returned that was not signed here.
type (
	draft struct {
		Planned
		issuer journal.IssuerID
		order  Order
	}
	intent struct {
		*draft
		entry journal.Entry // where the journal has it
	}
	signature struct {
		*intent
		certificate []byte // DER
	}
)

// Plan does what Issue does before anything is recorded: it judges the order and shows what would be
// signed. An order that a profile forbids is policy.Violations.
func (i *Issuer) Plan(ctx context.Context, o Order) (Planned, error) {
	if err := ctx.Err(); err != nil {
		return Planned{}, fmt.Errorf("plan certificate: %w", err)
	}
	d, err := i.draft(o)
	if err != nil {
		return Planned{}, fmt.Errorf("plan certificate: %w", err)
	}
	return d.Planned, nil
}

// Issue makes a certificate. Whatever stops it, these hold: what was signed is in the journal as an
// intent, and what is returned is in the journal as issued. An order that a profile forbids is
// policy.Violations. When ctx ends before the intent, nothing happens; after it, the issue goes on to
// its end, so that no intent stays open because a caller hung up.
func (i *Issuer) Issue(ctx context.Context, o Order) (Issued, error) {
	if err := errors.Join(i.ready(), ctx.Err()); err != nil {
		return Issued{}, fmt.Errorf("issue certificate: %w", err)
	}
	timer := i.metrics.timer()

	// The exact bytes to be signed exist, and every rule of the profile and every lint has judged
	// them. No key has moved and nothing is recorded: an order that is refused leaves no trace.
	d, err := i.draft(o)
	timer.step("draft")
	if err != nil {
		i.metrics.refuse(err)
		return Issued{}, fmt.Errorf("issue certificate: %w", err)
	}

	// The journal holds serial and digest of those bytes. The serial is taken for ever; status
	// answers for it are "unknown". From here the certificate becomes issued or abandoned.
	in, err := i.intend(ctx, d)
	timer.step("intend")
	if err != nil {
		return Issued{}, fmt.Errorf("issue certificate: %w", ownFault{err})
	}

	// The token has signed exactly those bytes, the signature verifies, and the certificate parses
	// back to them. It exists in this process only. Without it the intent is closed at once.
	s, err := i.sign(in)
	timer.step("sign")
	if err != nil {
		return Issued{}, fmt.Errorf("issue certificate: %w", ownFault{errors.Join(err, i.abandon(ctx, in))})
	}

	// The journal holds the certificate: it counts as issued whether or not the caller gets it.
	// Where the journal fails here, only what it finds when it is opened again decides.
	if err := i.record(ctx, s); err != nil {
		return Issued{}, fmt.Errorf("issue certificate: %w", ownFault{errors.Join(err, i.abandon(ctx, in))})
	}
	timer.step("record")
	i.metrics.issued.WithLabelValues(o.Profile.Name()).Inc()

	return Issued{
		Serial: s.Serial, TBSDigest: s.TBSDigest, Certificate: s.certificate,
		NotBefore: s.NotBefore, NotAfter: s.NotAfter,
	}, nil
}

// draft writes the bytes to be signed and has them judged.
func (i *Issuer) draft(o Order) (*draft, error) {
	if o.Profile == nil || o.Subject == nil {
		return nil, errors.New("order without profile or subject")
	}
	if o.Profile.SelfSigned() != (i.config.Certificate == nil) {
		return nil, fmt.Errorf("profile %s: a self-signed certificate is made with the key it certifies, by the ceremony", o.Profile.Name())
	}
	now, err := i.now()
	if err != nil {
		return nil, i.ended(err)
	}
	p := Planned{}
	if p.NotBefore, p.NotAfter, err = i.validity(o, now); err != nil {
		return nil, err
	}
	if p.Serial, err = newSerial(i.config.Instance, now); err != nil {
		return nil, err
	}
	p.TBS, err = o.Profile.TBS(policy.Request{
		Subject: o.Subject, PublicKey: o.PublicKey, Serial: p.Serial.Bytes(),
		NotBefore: p.NotBefore, NotAfter: p.NotAfter,
	}, i.policy)
	if err != nil {
		return nil, err
	}
	p.TBSDigest = sha256.Sum256(p.TBS)
	p.Draft = policy.Draft(p.TBS, i.policy)
	if err := o.Profile.CheckIssued(p.Draft, i.policy); err != nil {
		return nil, err
	}
	if err := policy.Lint(p.Draft); err != nil {
		return nil, err
	}
	d := &draft{Planned: p, order: o, issuer: i.id}
	if i.config.Certificate == nil {
		if d.issuer, err = selfID(p.Draft); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// validity settles both ends, which are inclusive (RFC 5280 §4.1.2.5): a certificate of one day
// ends one second before the same time tomorrow.
func (i *Issuer) validity(o Order, now time.Time) (notBefore, notAfter time.Time, err error) {
	notBefore = now
	if !o.NotBefore.IsZero() {
		notBefore = o.NotBefore.UTC().Truncate(time.Second)
	}
	if notBefore.Before(now) {
		return notBefore, notAfter, policy.Violations{{
			Clause: "EN 319 411-1 GEN-6.3.3-01",
			Detail: fmt.Sprintf("notBefore %s is in the past: a certificate is not backdated", notBefore.Format(time.RFC3339)),
		}}
	}
	if !o.NotAfter.IsZero() {
		return notBefore, o.NotAfter.UTC().Truncate(time.Second), nil // within the profile and the CA: policy judges
	}
	notAfter, err = i.cut(o.Profile, notBefore, notBefore.Add(o.Profile.Validity()-time.Second))
	return notBefore, notAfter, err
}

// intend records what will be signed.
func (i *Issuer) intend(ctx context.Context, d *draft) (*intent, error) {
	entry, err := i.append(ctx, journal.CertificateIntended{
		Actor: d.order.Actor, Issuer: d.issuer, Serial: d.Serial, TBSDigest: d.TBSDigest,
		Profile: d.order.Profile.Name(), NotBefore: d.NotBefore, NotAfter: d.NotAfter,
		TBS: d.TBS, Evidence: d.order.Evidence,
	})
	if err != nil {
		return nil, fmt.Errorf("record intent: %w", err)
	}
	return &intent{draft: d, entry: entry}, nil
}

// sign has the key sign the bytes of the intent. Algorithm.Sign has verified the signature when it
// returns, so it is enough that the certificate parses back to those bytes and that signature.
func (i *Issuer) sign(in *intent) (*signature, error) {
	value, err := i.signTBS(failpoint.SignCertificate, in.TBS)
	if err != nil {
		return nil, err
	}
	certificate := i.policy.Algorithm.Signed(in.TBS, value)
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("parse the signed certificate: %w", err)
	}
	if !bytes.Equal(parsed.RawTBSCertificate, in.TBS) || !bytes.Equal(parsed.Signature, value) {
		return nil, errors.New("the signed certificate is not the draft that was checked")
	}
	return &signature{intent: in, certificate: certificate}, nil
}

// record makes the certificate the journal's.
func (i *Issuer) record(ctx context.Context, s *signature) error {
	_, err := i.append(ctx, journal.CertificateIssued{
		Issuer: s.issuer, Serial: s.Serial,
		CertificateHash: sha256.Sum256(s.certificate), Certificate: s.certificate,
	})
	if err != nil {
		return fmt.Errorf("record certificate: %w", err)
	}
	return nil
}

// serialEpoch is day 0 of the serials; two octets of days last until 2199.
var serialEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// newSerial makes a serial: the instance (01 to 7F, so that the INTEGER is positive and minimal), the
// day in two octets, and 17 octets from the CSPRNG (EN 319 411-1 GEN-6.3.3-02A). That it is unique in
// the provider is the journal's word when the intent is recorded.
func newSerial(instance byte, now time.Time) (journal.Serial, error) {
	day := int(now.Sub(serialEpoch) / (24 * time.Hour))
	if day < 0 || day > 0xffff {
		return "", fmt.Errorf("make serial: %s is not between 2020 and 2199", now.Format(time.DateOnly))
	}
	serial := make([]byte, 20)
	serial[0], serial[1], serial[2] = instance, byte(day>>8), byte(day)
	if _, err := rand.Read(serial[3:]); err != nil {
		return "", fmt.Errorf("make serial: %w", err)
	}
	return journal.Serial(serial), nil
}
