package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// CheckStart refuses what must not start, and writes nothing: a clock that cannot be relied on or is behind
// the journal (ErrClock), and a journal that is older than the CRL in publish/. Recover calls it; a daemon
// that records its start first calls it before that.
func (i *Issuer) CheckStart() error {
	if _, err := i.now(); errors.Is(err, ErrClock) {
		return fmt.Errorf("start: %w", err)
	}
	if err := i.checkPublished(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// checkPublished compares the CRL in publish/ with the journal. A list that this CA signed was recorded before
// it was published, so one that the journal does not know says that the journal is not the one that wrote it:
// most likely a backup was put back. To go on from there would make revoked certificates good again and
// give a CRL number to two lists (RFC 5280 §5.2.3). Anything else that lies there is republish's affair.
func (i *Issuer) checkPublished() error {
	text, err := os.ReadFile(i.crlPath())
	if err != nil {
		return nil // nothing to compare with; whether the folder can be written shows when the next CRL is
	}
	there, err := x509.ParseRevocationList(text)
	if err != nil || there.CheckSignatureFrom(i.config.Certificate) != nil || there.Number == nil {
		return nil
	}
	last, reserved, err := i.config.Journal.LastCRL(i.id)
	known, same := last.Number, sha256.Sum256(text) == last.Hash
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		known, same = reserved, true // the last list cannot be opened: it has this number at most
	}
	switch order := there.Number.Cmp(new(big.Int).SetUint64(known)); {
	case order < 0 || order == 0 && same:
		return nil
	case order == 0:
		return fmt.Errorf("%w: CRL %d in %s is not the journal's of that number: the key has signed for another journal: find out which is the true one (docs/ca.md, Recovery)",
			ErrOldJournal, known, i.crlPath())
	}
	return fmt.Errorf("%w: CRL %v in %s is signed by this CA, but the journal's last is %d: put the newest journal back (docs/ca.md, Recovery): "+
		"going on from this one would make revoked certificates good again and use CRL numbers twice", ErrOldJournal, there.Number, i.crlPath(), known)
}

// Recover finishes what the last process left open. Call it once, before anything is served; until it
// has returned nil the Issuer refuses. It refuses what CheckStart does, before it writes anything. It signs
// nothing for an old intent: the CA's open intents become abandoned (those of another CA on the same journal
// are that one's), the last CRL goes into publish/ again if it is not there, and a fresh one follows.
//
// A CRL that cannot be made or written is no error of Recover: the feed that the responders live on
// must not depend on it. It is logged, Health tells of it, and Run tries again.
func (i *Issuer) Recover(ctx context.Context) error {
	if err := i.CheckStart(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := i.closeIntents(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	i.recovered.Store(true)

	if err := i.republish(); err != nil {
		i.config.Log.Error("last CRL not published", "error", err)
	}
	if _, err := i.IssueCRL(ctx); err != nil {
		i.owe(err)
		i.config.Log.Error("no fresh CRL after the start", "error", err, "retry_in", firstRetry)
	}
	return i.ready()
}

// closeIntents abandons every open intent of this CA; a root's own certificate is among its own. A signature
// may have been made for one, in a process that is gone, but it cannot have left that process: Issue returns a
// certificate only after CertificateIssued, and that entry closes the intent. Nothing stores a signature
// between the two, so there is none to finish. Signing again would make two certificates with one serial.
func (i *Issuer) closeIntents(ctx context.Context) error {
	open, err := i.config.Journal.OpenIntents()
	if err != nil {
		return fmt.Errorf("read open intents: %w", err)
	}
	for _, c := range open {
		if c.Issuer != i.id {
			continue // perhaps another CA of this process is about to sign for it
		}
		if err := i.appendAbandoned(ctx, c.Issuer, c.Serial); err != nil {
			return err
		}
		i.config.Log.Warn("intent abandoned: the CA stopped before the certificate was issued",
			"serial", c.Serial.String(), "profile", c.Profile, "entry", c.IntendedAt)
	}
	return nil
}

// staleIntent is how old an open intent may be before somebody has to look: a token that has not signed for so
// long does not sign, and an abandonment that is still tried fails for a reason.
const staleIntent = time.Minute

// checkIntents refuses open intents of this CA that are older than staleIntent at now.
func (i *Issuer) checkIntents(now time.Time) error {
	open, err := i.config.Journal.OpenIntents()
	if err != nil {
		return fmt.Errorf("read open intents: %w", err)
	}
	for _, c := range open {
		if c.Issuer != i.id {
			continue
		}
		entry, err := i.config.Journal.Entry(c.IntendedAt)
		if err != nil {
			return fmt.Errorf("read the intent of serial %s: %w", c.Serial, err)
		}
		if age := now.Sub(entry.Time); age > staleIntent {
			return fmt.Errorf("the intent of serial %s (entry %d) is open since %s: the token does not answer, or the log says why it cannot be abandoned",
				c.Serial, c.IntendedAt, entry.Time.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// republish puts the last CRL the journal holds into publish/, if something else is there.
func (i *Issuer) republish() error {
	last, _, err := i.config.Journal.LastCRL(i.id)
	if errors.Is(err, journal.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up the last CRL: %w", err)
	}
	if sha256.Sum256(last.CRL) != last.Hash {
		return fmt.Errorf("CRL %d in the journal is not the one that was recorded: verify the journal", last.Number)
	}
	parsed, err := x509.ParseRevocationList(last.CRL)
	if err != nil {
		return fmt.Errorf("parse CRL %d: %w", last.Number, err)
	}
	crl := CRL{
		Number: last.Number, ThisUpdate: last.ThisUpdate.UTC(), NextUpdate: last.NextUpdate.UTC(),
		Entries: len(parsed.RevokedCertificateEntries), File: i.crlPath(), DER: last.CRL,
	}
	there, err := os.ReadFile(crl.File)
	if err == nil && bytes.Equal(there, last.CRL) {
		i.remember(crl)
		return nil
	}
	i.config.Log.Warn("publish/ did not hold the last CRL", "number", crl.Number, "file", crl.File,
		"this_update", crl.ThisUpdate.Format(time.RFC3339))
	return i.publish(crl)
}
