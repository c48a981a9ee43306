package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// CRL is a certificate revocation list that is in the journal and in publish/.
type CRL struct {
	Number                 uint64
	ThisUpdate, NextUpdate time.Time
	Entries                int    // certificates on it
	File                   string // path
	DER                    []byte
}

// published is what the Issuer remembers of the CRL in publish/. number 0: there is none.
type published struct {
	number                 uint64
	thisUpdate, nextUpdate time.Time
	entries                int
	at                     time.Time // when it got there, by this process's monotonic clock
	owed                   error     // why a revocation is not on it, nil where none is owed
}

// Waits of Run between attempts after a failure: short first, because a revocation may be waiting.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// IssueCRL signs a CRL of everything revoked before the call, and returns when it is in publish/.
// Callers that come while a CRL is being made share the next one. When ctx ends first, that CRL
// may still be made.
func (i *Issuer) IssueCRL(ctx context.Context) (CRL, error) {
	if err := i.ready(); err != nil {
		return CRL{}, fmt.Errorf("issue CRL: %w", err)
	}
	crl, err := i.crls.share(ctx, i.issueCRL)
	if err != nil {
		return CRL{}, fmt.Errorf("issue CRL: %w", ownFault{err})
	}
	return crl, nil
}

// issueCRL makes one CRL. One at a time runs: rounds sees to it.
func (i *Issuer) issueCRL(ctx context.Context) (CRL, error) {
	began := time.Now()
	crl, err := i.makeCRL(ctx)
	i.metrics.crlTime.Observe(time.Since(began).Seconds())
	if err != nil {
		i.metrics.crls.WithLabelValues("failed").Inc()
		return CRL{}, err
	}
	i.metrics.crls.WithLabelValues("published").Inc()
	i.config.Log.Info("CRL published", "number", crl.Number, "entries", crl.Entries,
		"next_update", crl.NextUpdate, "file", crl.File)
	return crl, nil
}

func (i *Issuer) makeCRL(ctx context.Context) (CRL, error) {
	// thisUpdate is read before the state, so that the list never claims to know of a later
	// revocation than it does.
	now, err := i.now()
	if err != nil {
		return CRL{}, err
	}
	// A list does not claim to hold longer than its signer's certificate.
	crl := CRL{ThisUpdate: now, NextUpdate: now.Add(i.config.CRLLife), File: i.crlPath()}
	if end := i.config.Certificate.NotAfter; crl.NextUpdate.After(end) {
		crl.NextUpdate = end.UTC()
	}

	// The number is taken for ever: whatever happens next, no two lists carry it.
	if crl.Number, err = i.reserveCRLNumber(ctx); err != nil {
		return CRL{}, err
	}

	// One read transaction gives the list and the tree size that it stands for.
	var revoked []byte
	size, err := i.config.Journal.Revoked(i.id, func(c journal.Certificate) (err error) {
		crl.Entries++
		revoked, err = appendRevoked(revoked, c)
		return err
	})
	if err != nil {
		return CRL{}, fmt.Errorf("read revocations: %w", err)
	}

	// The key has signed, and the list parses back to what was meant.
	if crl.DER, err = i.signCRL(crl, revoked); err != nil {
		return CRL{}, err
	}

	// The journal holds the list: after a crash, Recover publishes it.
	_, err = i.append(ctx, journal.CRLIssued{
		Issuer: i.id, Number: crl.Number, Hash: sha256.Sum256(crl.DER), Entries: size,
		ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate, CRL: crl.DER,
	})
	if err != nil {
		return CRL{}, fmt.Errorf("record CRL %d: %w", crl.Number, err)
	}

	// Relying parties see it, whole.
	return crl, i.publish(crl)
}

// reserveCRLNumber records the next number. A number whose list fails stays unused: numbers grow,
// they need not be dense (RFC 5280 §5.2.3).
func (i *Issuer) reserveCRLNumber(ctx context.Context) (uint64, error) {
	reserved, err := i.config.Journal.Reserved(i.id)
	if err != nil {
		return 0, fmt.Errorf("look up the last CRL number: %w", err)
	}
	number := reserved + 1
	if _, err := i.append(ctx, journal.CRLReserved{Issuer: i.id, Number: number}); err != nil {
		return 0, fmt.Errorf("reserve CRL number %d: %w", number, err)
	}
	return number, nil
}

// signCRL encodes, signs and reads back.
func (i *Issuer) signCRL(crl CRL, revoked []byte) ([]byte, error) {
	tbs, err := tbsCertList{
		algorithm: i.policy.Algorithm, issuer: i.policy.Name, keyID: i.policy.KeyID,
		number: crl.Number, thisUpdate: crl.ThisUpdate, nextUpdate: crl.NextUpdate,
		expiredFrom: i.config.Certificate.NotBefore, entries: revoked,
	}.encode()
	if err != nil {
		return nil, err
	}
	value, err := i.signTBS(failpoint.SignCRL, tbs)
	if err != nil {
		return nil, err
	}
	list := i.policy.Algorithm.Signed(tbs, value)
	parsed, err := x509.ParseRevocationList(list)
	if err != nil {
		return nil, fmt.Errorf("parse the signed CRL: %w", err)
	}
	// The signature over tbs was verified when it was made, under the certificate's key.
	if !bytes.Equal(parsed.RawTBSRevocationList, tbs) || !bytes.Equal(parsed.Signature, value) || len(parsed.RevokedCertificateEntries) != crl.Entries ||
		!parsed.Number.IsUint64() || parsed.Number.Uint64() != crl.Number {
		return nil, errors.New("the signed CRL is not the list that was meant")
	}
	return list, nil
}

// publish writes the list into publish/ and remembers it.
func (i *Issuer) publish(crl CRL) error {
	if err := failpoint.Do(failpoint.PublishCRL, func() error { return durable.WriteFile(crl.File, crl.DER, 0o644) }); err != nil {
		return fmt.Errorf("publish CRL %d: %w", crl.Number, err)
	}
	i.remember(crl)
	return nil
}

func (i *Issuer) remember(crl CRL) {
	i.crlMu.Lock()
	defer i.crlMu.Unlock()
	i.crl = published{
		number: crl.Number, thisUpdate: crl.ThisUpdate, nextUpdate: crl.NextUpdate,
		entries: crl.Entries, at: time.Now(),
	}
}

func (i *Issuer) crlPath() string { return filepath.Join(i.config.PublishDir, i.config.CRLFile) }

func (i *Issuer) published() published {
	i.crlMu.Lock()
	defer i.crlMu.Unlock()
	return i.crl
}

// owe notes that a revocation is not on the CRL in publish/, and wakes Run. The next CRL clears it,
// because it has everything that is revoked when it begins.
func (i *Issuer) owe(cause error) {
	i.crlMu.Lock()
	i.crl.owed = cause
	i.crlMu.Unlock()
	i.wake()
}

// wake has Run make a CRL soon.
func (i *Issuer) wake() {
	select {
	case i.kick <- struct{}{}:
	default: // Run has been told already
	}
}

// late returns what is wrong with the CRL in publish/ at now: it misses a revocation, it has run
// out, or its successor is so late that somebody has to look.
func (i *Issuer) late(crl published, now time.Time) error {
	every, life := i.config.CRLEvery, i.config.CRLLife
	alarm := every + (life-every)/2
	if !selfIssued(i.config.Certificate) {
		alarm = min(alarm, max(maxCRLEvery, every+lastRetry)) // CSS-6.3.9-05
	}
	switch {
	case crl.number == 0:
		return fmt.Errorf("no CRL is in %s yet", i.config.PublishDir)
	case crl.owed != nil:
		return crl.owed
	case !now.Before(crl.nextUpdate):
		return fmt.Errorf("CRL %d ran out at %s", crl.number, crl.nextUpdate.Format(time.RFC3339))
	case now.After(crl.thisUpdate.Add(alarm)):
		return fmt.Errorf("CRL %d is of %s and should have been followed after %v", crl.number, crl.thisUpdate.Format(time.RFC3339), every)
	}
	return nil
}

// Run issues a CRL every CRLEvery, counted from the last one for whatever cause, until ctx ends; then
// it returns nil. After a failure, also one of Revoke's, and after any signature that failed, it tries again
// after a second, and then less and less often down to once a minute, for each try takes a number. A key that
// tells that it cannot sign (Ready) is asked every second, and tried as soon as it can. It closes intents whose
// abandonment failed in the same rhythm.
func (i *Issuer) Run(ctx context.Context) error {
	var closing sync.WaitGroup
	defer closing.Wait()
	closing.Go(func() { i.closeLater(ctx) })
	var after failure
	for {
		timer := time.NewTimer(after.wait(i.untilNextCRL()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-i.kick:
			timer.Stop()
			if after.pause == 0 {
				after.begin(firstRetry)
			}
			continue
		case <-timer.C:
		}
		if after.pause == 0 && i.untilNextCRL() > 0 {
			continue // another CRL was issued meanwhile: count from it
		}
		if time.Now().Before(after.due) && i.keyReady() != nil {
			continue
		}
		_, err := i.IssueCRL(ctx)
		switch {
		case err == nil:
			after = failure{}
		case ctx.Err() == nil:
			after.begin(min(max(2*after.pause, firstRetry), lastRetry))
			after.keyOut = i.keyReady() != nil
			i.config.Log.Error("CRL failed", "error", err, "retry_in", after.pause)
		}
	}
}

// failure is that Run's last try failed, or somebody else's signature. The zero value: nothing did.
type failure struct {
	pause  time.Duration // until the next try; 0: nothing failed
	due    time.Time     // when that is, however often Run is woken before
	keyOut bool          // the key could not sign, and it will be seen when it can
}

func (f *failure) begin(pause time.Duration) { f.pause, f.due = pause, time.Now().Add(pause) }

// wait is how long Run sleeps, where regular is the time until the next CRL.
func (f *failure) wait(regular time.Duration) time.Duration {
	switch {
	case f.pause == 0:
		return regular
	case f.keyOut:
		return min(time.Until(f.due), firstRetry)
	}
	return time.Until(f.due)
}

// keyReady returns why the key is known to be unable to sign. It asks no token; keys that cannot tell are ready.
func (i *Issuer) keyReady() error {
	if key, tells := i.config.Key.(interface{ Ready() error }); tells {
		return key.Ready()
	}
	return nil
}

func (i *Issuer) untilNextCRL() time.Duration {
	crl := i.published()
	if crl.number == 0 || crl.owed != nil {
		return 0
	}
	return max(0, i.config.CRLEvery-time.Since(crl.at))
}

// crl serves POST /v1/crl. A body is neither needed nor read.
func (d *deskHandler) crl(c *call) (any, error) {
	crl, err := d.issuer.IssueCRL(c.Context())
	if err != nil {
		return nil, err
	}
	return desk.CRLReply{
		Number: crl.Number, ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate,
		Entries: crl.Entries, File: crl.File,
	}, nil
}
