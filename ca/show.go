package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// show serves GET /v1/certificates/{serial}.
func (d *deskHandler) show(c *call) (any, error) {
	serial, err := journal.ParseSerial(c.PathValue("serial"))
	if err != nil {
		return nil, unreadable{err}
	}
	certificate, err := d.issuer.config.Journal.CertificateBySerial(serial)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", serial, err)
	}
	return d.describe(certificate, true), nil
}

// checkpoint serves GET /v1/journal/checkpoint: the text of a signed note.
func (d *deskHandler) checkpoint(*call) (any, error) {
	return d.issuer.config.Journal.Checkpoint()
}

// verify serves GET /v1/journal/verify. It reads the whole journal, so one runs at a time.
func (d *deskHandler) verify(c *call) (any, error) {
	if !d.verifying.TryLock() {
		return nil, errors.New("verify journal: somebody else has it verified at the moment: ask again later")
	}
	defer d.verifying.Unlock()
	// It takes as long as the journal is long; the listener's write timeout is for short answers.
	if err := http.NewResponseController(c.w).SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("verify journal: %w", err)
	}
	report, err := d.issuer.config.Journal.Verify(c.Context())
	if err != nil {
		return nil, fmt.Errorf("verify journal: %w", err)
	}
	reply := desk.Report{
		OK: report.OK, Entries: report.Entries, Certificates: report.Certificates, Root: report.Root,
		Faults: make([]desk.Fault, 0, len(report.Faults)), SignedEntries: report.SignedEntries, SealedBodies: report.SealedBodies, OpenKeyDuties: report.OpenKeyDuties,
		Origin: report.Origin, JournalKey: report.JournalKey,
	}
	for _, f := range report.Faults {
		reply.Faults = append(reply.Faults, desk.Fault{Entry: f.Entry, Fault: f.Fault})
	}
	return reply, nil
}

// describe tells what the journal knows of a certificate; withPEM adds the certificate itself. Where the sealed
// body cannot be opened, because it was erased or is damaged, subject and certificate are left out: the
// state is known all the same, and one body must not hide a thousand others.
func (d *deskHandler) describe(c journal.Certificate, withPEM bool) desk.Certificate {
	reply := desk.Certificate{
		Serial: c.Serial.String(), Status: c.Status.String(), Profile: c.Profile,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
	}
	if c.Status == journal.Revoked || c.Status == journal.Abandoned {
		since := c.Since.UTC()
		reply.RevokedAt, reply.Reason = &since, c.Reason.String()
	}
	if !c.InvalidFrom.IsZero() {
		from := c.InvalidFrom.UTC()
		reply.InvalidFrom = &from
	}
	if c.Status != journal.Issued && c.Status != journal.Revoked {
		return reply // there is no certificate
	}
	reply.SHA256 = hex.EncodeToString(c.Hash[:])
	certificate, subject, err := d.openCertificate(c)
	if err != nil {
		d.log.Warn("a certificate of the journal cannot be shown", "serial", reply.Serial, "error", err)
		return reply
	}
	reply.Subject = subject
	if withPEM {
		reply.Cert = certificatePEM(certificate)
	}
	return reply
}

// openCertificate opens the sealed body of CertificateIssued: DER and subject.
func (d *deskHandler) openCertificate(c journal.Certificate) (certificate []byte, subject string, err error) {
	event, err := d.issuer.config.Journal.Opened(c.IssuedAt)
	if err != nil {
		return nil, "", err
	}
	issued, ok := event.(journal.CertificateIssued)
	if !ok || sha256.Sum256(issued.Certificate) != c.Hash {
		return nil, "", fmt.Errorf("entry %d does not hold it: verify the journal", c.IssuedAt)
	}
	parsed, err := x509.ParseCertificate(issued.Certificate)
	if err != nil {
		return nil, "", fmt.Errorf("entry %d: %w", c.IssuedAt, err)
	}
	subject, err = der.NameText(parsed.RawSubject)
	return issued.Certificate, subject, err
}
