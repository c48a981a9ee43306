package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// revocationDeadline is 411-1 REV-6.2.4-03A: from the request to the status that everybody sees.
const revocationDeadline = 24 * time.Hour

// Revocation is what somebody with the right to ask wants revoked.
type Revocation struct {
	Actor  journal.Actor
	Serial journal.Serial
	Reason journal.Reason
	// InvalidFrom is since when the key is known or suspected to be compromised, or the certificate
	// otherwise invalid (RFC 5280 §5.3.2); zero: not known. Not in the future.
	InvalidFrom time.Time
	RequestedAt time.Time // when the subscriber asked, from which the 24 hours run; zero: now
	Note        []byte    // what the officer wrote; sealed in the journal
}

// Revoke makes a certificate revoked, for ever, and returns when the CRL in publish/ shows it. A
// revocation that RFC 5280 forbids is policy.Violations; a certificate that is revoked already is
// journal.ErrConflict, and the error says since when. An error that wraps ErrNotPublished comes with
// the certificate: it is revoked, but the CRL failed and is tried again by Run.
//
// A clock that cannot be relied on, or is behind the journal, stops the CRL but not the revocation: where the
// journal's Options.Now is clock.Recorded, as in zegel-ca, it is stamped with the last entry's time at least,
// and the responders show it.
func (i *Issuer) Revoke(ctx context.Context, r Revocation) (journal.Certificate, error) {
	if err := errors.Join(i.ready(), ctx.Err()); err != nil {
		return journal.Certificate{}, fmt.Errorf("revoke %s: %w", r.Serial, err)
	}
	certificate, err := i.revocable(r.Serial)
	if err != nil {
		return certificate, fmt.Errorf("revoke %s: %w", r.Serial, err)
	}
	now := i.plausibleTime()
	if r.RequestedAt.IsZero() {
		r.RequestedAt = now
	}
	began, err := i.began(certificate, now)
	if err != nil {
		return certificate, fmt.Errorf("revoke %s: %w", r.Serial, err)
	}
	if err := r.check(certificate, began, now); err != nil {
		return certificate, fmt.Errorf("revoke %s: %w", r.Serial, err)
	}
	if late := now.Sub(r.RequestedAt); late > revocationDeadline {
		i.config.Log.Warn("revocation later than 24 hours after its request (EN 319 411-1 REV-6.2.4-03A)",
			"serial", r.Serial.String(), "hours", int(late.Hours()))
	}

	// The journal holds the revocation: now the certificate is revoked, and responders that follow
	// will say so.
	certificate, err = i.recordRevocation(ctx, r)
	if err != nil {
		return certificate, fmt.Errorf("revoke %s: %w", r.Serial, err)
	}
	i.metrics.revoked.WithLabelValues(r.Reason.String()).Inc()

	// publish/ shows it too. A caller that hangs up does not stop that.
	if _, err := i.IssueCRL(context.WithoutCancel(ctx)); err != nil {
		err = fmt.Errorf("%s: %w: %w", r.Serial, ErrNotPublished, err)
		i.owe(err)
		return certificate, err
	}
	return certificate, nil
}

// revocable looks the certificate up and refuses one whose state forbids a revocation.
func (i *Issuer) revocable(serial journal.Serial) (journal.Certificate, error) {
	certificate, err := i.config.Journal.Certificate(i.id, serial)
	if errors.Is(err, journal.ErrNotFound) {
		if _, other := i.config.Journal.CertificateBySerial(serial); other == nil {
			return certificate, fmt.Errorf("%w of this CA: another CA of the provider issued it, and only that one's key can list it", journal.ErrNotFound)
		}
	}
	if err != nil {
		return certificate, err
	}
	since := certificate.Since.UTC().Format(time.RFC3339)
	switch certificate.Status {
	case journal.Issued:
		return certificate, nil
	case journal.Revoked:
		return certificate, fmt.Errorf("%w: it is revoked since %s (%s)", journal.ErrConflict, since, certificate.Reason)
	case journal.Abandoned:
		return certificate, fmt.Errorf("%w: it was abandoned at %s, before it was issued, and counts as revoked for ever", journal.ErrConflict, since)
	}
	return certificate, fmt.Errorf("%w: it is not issued yet", journal.ErrConflict)
}

// began is when a certificate came to be: its notBefore, but for one that begins later than now its intent.
func (i *Issuer) began(c journal.Certificate, now time.Time) (time.Time, error) {
	if !c.NotBefore.After(now) {
		return c.NotBefore, nil
	}
	entry, err := i.config.Journal.Entry(c.IntendedAt)
	if err != nil {
		return time.Time{}, fmt.Errorf("look up when it was issued: %w", err)
	}
	return entry.Time.Truncate(time.Second), nil
}

// check applies RFC 5280 §5.3 to what was asked of c, which came to be at began. now only tells the future from
// the past.
func (r Revocation) check(c journal.Certificate, began, now time.Time) error {
	var found policy.Violations
	if v := reasonViolation(r.Reason, c.Profile); v != nil {
		found = append(found, v)
	}
	if v := timeViolation("RFC 5280 §5.3.2", "invalidity date", r.InvalidFrom, began, now); v != nil && !r.InvalidFrom.IsZero() {
		found = append(found, v)
	}
	if v := timeViolation("EN 319 411-1 REV-6.2.4-05A", "request time", r.RequestedAt, began, now); v != nil {
		found = append(found, v)
	}
	if len(found) > 0 {
		return found
	}
	return nil
}

// timeViolation says why t cannot be, for a certificate that came to be at began.
func timeViolation(clause, what string, t, began, now time.Time) *policy.Violation {
	var why string
	switch {
	case t.After(now):
		why = "is in the future: give a time that has come"
	case t.Before(began):
		why = "is before " + began.UTC().Format(time.RFC3339) + ", when the certificate began: give that time, or none"
	default:
		return nil
	}
	return &policy.Violation{Clause: clause, Detail: fmt.Sprintf("%s %s %s", what, t.UTC().Format(time.RFC3339), why)}
}

// reasonViolation says why a reason cannot be given for a certificate of that profile.
func reasonViolation(reason journal.Reason, profile string) *policy.Violation {
	refuse := func(detail string) *policy.Violation {
		return &policy.Violation{Clause: "RFC 5280 §5.3.1", Detail: detail}
	}
	switch reason {
	case journal.Unspecified, journal.KeyCompromise, journal.AffiliationChanged, journal.Superseded,
		journal.CessationOfOperation, journal.PrivilegeWithdrawn:
		return nil
	case journal.CACompromise:
		if p, err := policy.Builtin(profile); err == nil && p.CA() {
			return nil
		}
		return refuse("cACompromise is for CA certificates: use keyCompromise")
	case journal.AACompromise:
		return refuse("aACompromise is for attribute authorities, which this CA does not certify")
	case journal.CertificateHold:
		return refuse("certificateHold is a suspension, which can be lifted; a revocation cannot")
	}
	return refuse(fmt.Sprintf("%s is not a reason to revoke", reason))
}

// recordRevocation makes the revocation the journal's, and reads back what it now is.
func (i *Issuer) recordRevocation(ctx context.Context, r Revocation) (journal.Certificate, error) {
	_, err := i.append(ctx, journal.CertificateRevoked{
		Actor: r.Actor, Issuer: i.id, Serial: r.Serial, Reason: r.Reason,
		InvalidFrom: r.InvalidFrom.UTC().Truncate(time.Second), RequestedAt: r.RequestedAt, Note: r.Note,
	})
	if errors.Is(err, journal.ErrConflict) {
		// Somebody else was faster: say when.
		if certificate, since := i.revocable(r.Serial); since != nil {
			return certificate, since
		}
	}
	if err != nil {
		return journal.Certificate{}, fmt.Errorf("record revocation: %w", ownFault{err})
	}
	return i.config.Journal.Certificate(i.id, r.Serial)
}

// plausibleTime tells the time where it signs nothing and decides nothing but past from future. It is not
// behind the journal: what the journal holds has been.
func (i *Issuer) plausibleTime() time.Time {
	t, _, err := i.config.Clock.Now()
	if err != nil {
		t = time.Now()
	}
	if last := i.config.Journal.LastTime(); t.Before(last) {
		t = last
	}
	return t.UTC()
}

// revoke serves POST /v1/certificates/{serial}/revoke.
func (d *deskHandler) revoke(c *call) (any, error) {
	serial, err := journal.ParseSerial(c.PathValue("serial"))
	if err != nil {
		return nil, unreadable{err}
	}
	var request desk.RevokeRequest
	if err := c.decode(&request); err != nil {
		return nil, err
	}
	reason, err := journal.ParseReason(request.Reason)
	if err != nil {
		return nil, unreadable{err}
	}
	revocation := Revocation{Actor: c.actor, Serial: serial, Reason: reason}
	if request.InvalidFrom != nil {
		revocation.InvalidFrom = *request.InvalidFrom
	}
	if request.RequestedAt != nil {
		revocation.RequestedAt = *request.RequestedAt
	}
	if request.Note != "" {
		revocation.Note = []byte(request.Note)
	}
	certificate, err := d.issuer.Revoke(c.Context(), revocation)
	if err != nil {
		return nil, err
	}
	return d.describe(certificate, true), nil
}
