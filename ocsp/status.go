package ocsp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// maxSerial is the greatest length of a serial number in octets (RFC 5280 §4.1.2.2).
const maxSerial = 20

// status is what the replica says of a serial of our issuer.
//
//	issued     good
//	revoked    revoked, at the time of the journal's entry, with its reason
//	abandoned  revoked, at the time it was given up: its signature may exist
//	intended   unknown: it may be issued or abandoned yet
//	never      unknown, and somebody is told (EN 319 411-1 OVR-6.6.3-02, -03)
//
// Time and reason are the journal's own, so that CRL and OCSP say the same (CSS-6.3.10-09); an
// abandoned serial has reason unspecified, which both leave out (RFC 5280 §5.3.1).
func (r *Responder) status(serial []byte) (certStatus, error) {
	if !issuable(serial) {
		r.neverIssued(serial)
		return certStatus{state: unknown}, nil
	}
	c, err := r.replica.Certificate(r.issuer.id, journal.Serial(serial))
	if errors.Is(err, journal.ErrNotFound) {
		r.neverIssued(serial)
		return certStatus{state: unknown}, nil
	}
	if err != nil {
		return certStatus{}, fmt.Errorf("look up certificate %x: %w", serial, err)
	}
	switch c.Status {
	case journal.Issued:
		return certStatus{state: good}, nil
	case journal.Revoked, journal.Abandoned:
		return certStatus{state: revoked, revocationTime: c.Since.UTC().Truncate(time.Second), reason: uint8(c.Reason)}, nil
	case journal.Intended:
		return certStatus{state: unknown}, nil
	}
	return certStatus{}, fmt.Errorf("look up certificate %x: status %d is unknown", serial, c.Status)
}

// standing reports why the responder certificate must not be used, where the journal says so: it bears
// id-pkix-ocsp-nocheck, so nobody else looks. warning is what is odd about it and no reason to stop.
func (r *Responder) standing() (warning string, err error) {
	size := r.replica.Size() // read first: what is looked up is not older
	if s := r.lastStanding.Load(); s != nil && s.size == size {
		return s.warning, s.err
	}
	s := &standing{size: size}
	c, err := r.replica.Certificate(r.issuer.id, r.serial)
	switch {
	case errors.Is(err, journal.ErrNotFound):
		s.warning = fmt.Sprintf("the journal does not know the responder certificate %s, so that it cannot be revoked: issue one with the profile ocsp-responder", r.serial)
	case err != nil:
		return "", fmt.Errorf("look up the responder certificate: %w", err)
	case c.Status == journal.Revoked || c.Status == journal.Abandoned:
		s.err = fmt.Errorf("the responder certificate %s is %s since %s: issue a new one, for a new key, with the profile ocsp-responder",
			r.serial, c.Status, c.Since.UTC().Format(time.RFC3339))
	case c.Status == journal.Intended:
		s.warning = fmt.Sprintf("the journal does not say yet that the responder certificate %s was issued", r.serial)
	}
	r.lastStanding.Store(s)
	return s.warning, s.err
}

// standing is what the journal says of the responder certificate when it has that many entries.
type standing struct {
	size    uint64
	warning string
	err     error
}

// issuable reports whether the content octets of a serialNumber, minimal as DER has them, are
// those of a serial number that may be in a certificate: positive and at most 20 octets.
func issuable(serial []byte) bool {
	return len(serial) >= 1 && len(serial) <= maxSerial && serial[0] < 0x80 && !(len(serial) == 1 && serial[0] == 0)
}

// neverIssued counts and, at most once a second, logs a request for a serial that the issuer has
// never issued: it may be a guess, or a certificate that this CA does not know it made
// (EN 319 411-1 OVR-6.6.3-03).
func (r *Responder) neverIssued(serial []byte) {
	r.metrics.neverIssued.Inc()
	r.logNeverIssued.Do(func() {
		r.log.Warn("status asked of a serial that was never issued", "serial", hex.EncodeToString(serial[:min(len(serial), maxSerial+1)]))
	})
}

// definitive reports whether the status can never change again: revoked for any reason but
// certificateHold (EN 319 411-1 REV-6.3.9-04).
func (c certStatus) definitive() bool {
	return c.state == revoked && journal.Reason(c.reason) != journal.CertificateHold
}

// until is the status in an answer produced at t: a CA whose clock is ahead of ours, by no more than maxBehind, may record a
// revocation that would have to be told as one to come.
func (c certStatus) until(t time.Time) certStatus {
	if c.state == revoked && c.revocationTime.After(t) {
		c.revocationTime = t
	}
	return c
}

// equal reports whether a relying party would read the same.
func (c certStatus) equal(other certStatus) bool {
	return c.state == other.state && c.reason == other.reason && c.revocationTime.Equal(other.revocationTime)
}
