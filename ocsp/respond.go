package ocsp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// staleLife is the most that nextUpdate is after thisUpdate in an answer about what is revoked
// for ever, given while there is no fresh checkpoint.
const staleLife = time.Hour

// What keeps an answer from being given. statusOf says how each is told.
var (
	errNotOurs = errors.New("the CertID names another issuer")
	errLater   = errors.New("no status now")
)

// statusOf maps what went wrong to the responseStatus that says so.
func statusOf(err error) responseStatus {
	switch {
	case err == nil:
		return successful
	case errors.Is(err, errMalformed):
		return malformedRequest
	case errors.Is(err, errNotOurs):
		return unauthorized
	case errors.Is(err, errLater):
		return tryLater
	}
	if passing, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err); ok && passing.Temporary() {
		return tryLater // the key works, and has more to do than it can
	}
	// Key, journal, certificate, fork: the client had better ask another responder (RFC 6960 §2.3).
	return internalError
}

// answer is an OCSPResponse and what HTTP and the cache have to know of it.
type answer struct {
	der        []byte
	producedAt time.Time
	given      time.Time // the time it is given at, which is later than producedAt from the cache
	validity   validity
	statuses   []certStatus
	shareable  bool // HTTP caches may keep it: no nonce, and no status that is unknown
	header     sharedHeader
}

// validity is thisUpdate and nextUpdate, in whole seconds.
type validity struct{ thisUpdate, nextUpdate time.Time }

// Respond answers an OCSPRequest in DER (RFC 6960 §4.1) with an OCSPResponse in DER (§4.2). It is
// total: any trouble is a responseStatus. A request is at most 16 KiB and 20 CertIDs long. When
// ctx has ended before the key is used, or the key has more to do than it can within a second, the
// answer is tryLater.
func (r *Responder) Respond(ctx context.Context, request []byte) []byte {
	return r.respond(ctx, request).der
}

func (r *Responder) respond(ctx context.Context, request []byte) answer {
	a, err := r.answer(ctx, request)
	status := statusOf(err)
	r.metrics.request(status)
	switch status {
	case successful:
		for _, s := range a.statuses {
			r.metrics.status(s.state)
		}
		return a
	case internalError:
		r.logRefusal.Do(func() { r.log.Error("OCSP request refused", "status", status.String(), "error", err) })
	case tryLater:
		r.logRefusal.Do(func() { r.log.Warn("OCSP request refused", "status", status.String(), "error", err) })
	}
	return answer{der: refusal(status)}
}

// answer is the order of things. Each step rests on those before it.
func (r *Responder) answer(ctx context.Context, request []byte) (answer, error) {
	q, err := parseRequest(request)
	if err != nil {
		return answer{}, err
	}
	// From here on the request is well-formed. One CertID that is not ours and there is no answer
	// that we could sign for all (RFC 6960 §2.3, unauthorized).
	for _, id := range q.list {
		if !r.issuer.named(id) {
			return answer{}, errNotOurs
		}
	}
	// A log that contradicts itself vouches for nothing, and a revoked responder for nobody.
	if err := r.forkError(); err != nil {
		return answer{}, err
	}
	if _, err := r.standing(); err != nil {
		return answer{}, err
	}
	// The checkpoint is read before the statuses: they may be newer than it says, never older.
	tree, err := r.verified()
	if err != nil {
		return answer{}, err
	}
	now, err := r.now(tree)
	if err != nil {
		return answer{}, err
	}
	// From here on the time is known, is not before the journal's, and the certificate is valid at it.
	statuses := make([]certStatus, len(q.list))
	for i, id := range q.list {
		if statuses[i], err = r.status(id.serialNumber); err != nil {
			return answer{}, err
		}
	}
	v, err := r.validity(now, tree, statuses)
	if err != nil {
		return answer{}, err
	}
	d := responseData{
		keyHash: r.keyHash, producedAt: now.Truncate(time.Second), list: q.list, statuses: statuses,
		thisUpdate: v.thisUpdate, nextUpdate: v.nextUpdate, archiveCutoff: r.issuer.notBefore, nonce: q.nonce,
	}
	for i, s := range d.statuses {
		d.statuses[i] = s.until(d.producedAt)
	}
	// The cache saves signatures, not look-ups: an answer is used again only while the journal
	// still says the same, so that it cannot hide a revocation.
	if q.nonce == nil {
		if a, ok := r.cached(q.key(), d); ok {
			return a, nil
		}
	}
	return r.live(ctx, q, d)
}

// verified is the replica's last verified checkpoint.
func (r *Responder) verified() (journal.Tree, error) {
	tree, err := r.replica.Verified()
	if errors.Is(err, journal.ErrNotFound) {
		return journal.Tree{}, fmt.Errorf("%w: no checkpoint has been verified yet", errLater)
	}
	if err != nil {
		return journal.Tree{}, fmt.Errorf("read verified checkpoint: %w", err)
	}
	return tree, nil
}

// now asks the clock, and refuses a time before the journal's or outside the responder
// certificate's validity.
func (r *Responder) now(tree journal.Tree) (time.Time, error) {
	now, _, err := r.clock.Now()
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", errLater, err)
	}
	last := tree.Time
	if t := r.replica.LastTime(); t.After(last) {
		last = t
	}
	if behind := last.Sub(now); behind > maxBehind {
		return time.Time{}, fmt.Errorf("%w: the clock is %v behind the journal", errLater, behind.Round(time.Second))
	}
	return now.UTC(), r.certificateValid(now)
}

// validity is how long the statuses hold.
//
// It is thisUpdate plus the status life, where thisUpdate is the time of the checkpoint (or now,
// where the CA's clock is a little ahead). When that is over, what may have changed since is not
// told. What is revoked for ever cannot have changed: it is known to be correct now, which is what
// thisUpdate says (RFC 6960 §4.2.2.1). The checkpoint's time there would make clients that limit the age
// of an answer throw a true revocation away.
func (r *Responder) validity(now time.Time, tree journal.Tree, statuses []certStatus) (validity, error) {
	this := tree.Time.UTC()
	if this.After(now) {
		this = now
	}
	this = this.Truncate(time.Second)
	next := this.Add(r.statusLife).Truncate(time.Second)
	if !now.Before(next) {
		if slices.ContainsFunc(statuses, func(s certStatus) bool { return !s.definitive() }) {
			return validity{}, fmt.Errorf("%w: the last verified checkpoint is of %s, longer ago than the status life of %v",
				errLater, tree.Time.UTC().Format(time.RFC3339), r.statusLife)
		}
		this = now.Truncate(time.Second)
		next = this.Add(min(r.statusLife, staleLife)).Truncate(time.Second)
	}
	// An answer is not to outlive the certificate that it is verified with, whose end is after now.
	if end := r.certificate.NotAfter.UTC(); next.After(end) {
		next = end
	}
	return validity{this, next}, nil
}
