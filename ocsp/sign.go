package ocsp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/singleflight"
)

// What keeps requests from piling up before a key that is slower than they come.
const (
	maxSigning = 64          // signatures at once: more than the sessions that a token usually has
	maxWaiting = 4096        // requests that wait for a signature, or for one being made
	maxTurn    = time.Second // for which a request waits for its turn
)

// errGone is errLater to a caller that hears nothing any more.
var errGone = errors.New("the caller is gone")

// signing is the way to the key. Safe for concurrent use.
type signing struct {
	waiting chan struct{} // one for each request between enter and leave
	turns   chan struct{} // one for each signature being made
	wait    time.Duration // the longest for a turn
	flights singleflight.Group
}

func newSigning() *signing {
	return &signing{waiting: make(chan struct{}, maxWaiting), turns: make(chan struct{}, maxSigning), wait: maxTurn}
}

// enter refuses, at once, when too many wait.
func (s *signing) enter() error {
	select {
	case s.waiting <- struct{}{}:
		return nil
	default:
		return fmt.Errorf("%w: %d requests wait for a signature", errLater, cap(s.waiting))
	}
}

func (s *signing) leave() { <-s.waiting }

// begin waits for a turn, not for long; end gives it back. After begin the caller was there a moment ago.
func (s *signing) begin(ctx context.Context) error {
	select {
	case s.turns <- struct{}{}:
	default:
		timer := time.NewTimer(s.wait)
		defer timer.Stop()
		select {
		case s.turns <- struct{}{}:
		case <-timer.C:
			return fmt.Errorf("%w: no turn to sign within %v", errLater, s.wait)
		case <-ctx.Done():
			return gone(ctx)
		}
	}
	if ctx.Err() != nil {
		s.end()
		return gone(ctx)
	}
	return nil
}

func (s *signing) end() { <-s.turns }

func gone(ctx context.Context) error { return fmt.Errorf("%w: %w: %w", errLater, errGone, ctx.Err()) }

// live gives an answer that the cache does not have. Requests for the same without a nonce that come at once share a signature.
func (r *Responder) live(ctx context.Context, q ocspRequest, d responseData) (answer, error) {
	if err := r.signing.enter(); err != nil {
		return r.older(q, d, err)
	}
	defer r.signing.leave()
	if q.nonce != nil {
		return r.sign(ctx, d)
	}
	for {
		a, err := r.shared(ctx, q.key(), d)
		switch {
		case errors.Is(err, errGone) && ctx.Err() == nil:
			continue // whoever it was to be signed for hung up; we did not
		case errors.Is(err, errLater) && ctx.Err() == nil:
			return r.older(q, d, err)
		}
		return a, err
	}
}

// shared joins the signature that is being made for key, or makes it.
func (r *Responder) shared(ctx context.Context, key string, d responseData) (answer, error) {
	var mine bool // whatever comes out of the flight was made, or looked up, for this request
	flight := r.signing.flights.DoChan(key, func() (any, error) {
		mine = true
		if a, ok := r.cached(key, d); ok { // signed between our look into the cache and this flight
			return a, nil
		}
		a, err := r.sign(ctx, d)
		if err == nil && a.shareable {
			r.cache.put(key, a)
		}
		return a, err
	})
	var result singleflight.Result
	select {
	case <-ctx.Done():
		return answer{}, gone(ctx)
	case result = <-flight:
	}
	a, ok := result.Val.(answer)
	switch {
	case result.Err != nil || !ok:
		return answer{}, result.Err
	case mine:
		return a, nil
	case !r.usable(a, d): // begun before something changed
		return r.sign(ctx, d)
	}
	r.metrics.cacheHits.Inc()
	a.given = d.producedAt
	return a, nil
}

// cached is the cache's answer, if it says what one with d would and is not much older.
func (r *Responder) cached(key string, d responseData) (answer, bool) {
	a, ok := r.cache.get(key)
	if !ok || !r.usable(a, d) {
		return answer{}, false
	}
	r.metrics.cacheHits.Inc()
	a.given = d.producedAt
	return a, true
}

// older is what to do when there was no turn to sign: an answer of the cache that is due to be signed anew, but holds, is better
// than cause.
func (r *Responder) older(q ocspRequest, d responseData, cause error) (answer, error) {
	if q.nonce != nil {
		return answer{}, cause
	}
	a, ok := r.cache.get(q.key())
	if !ok || !r.holds(a, d) {
		return answer{}, cause
	}
	r.metrics.cacheHits.Inc()
	a.given = d.producedAt
	return a, nil
}

// usable reports whether the answer a says what a new one would, and is not much older.
func (r *Responder) usable(a answer, d responseData) bool {
	return r.holds(a, d) && d.thisUpdate.Sub(a.validity.thisUpdate) < r.refresh
}

// holds reports whether the answer a is still true: the journal says the same now, and its time is not over.
func (r *Responder) holds(a answer, d responseData) bool {
	return slices.EqualFunc(a.statuses, d.statuses, certStatus.equal) &&
		d.producedAt.Before(a.validity.nextUpdate) &&
		!a.producedAt.After(d.producedAt.Add(maxBehind)) // signed while the clock was ahead
}

// sign writes and signs an answer when it is its turn.
func (r *Responder) sign(ctx context.Context, d responseData) (answer, error) {
	tbs, err := d.marshal()
	if err != nil {
		return answer{}, fmt.Errorf("write ResponseData: %w", err)
	}
	if err := r.signing.begin(ctx); err != nil {
		return answer{}, err
	}
	defer r.signing.end()
	start := time.Now()
	signature, err := r.algorithm.Sign(r.key, tbs)
	if err != nil {
		return answer{}, fmt.Errorf("sign ResponseData: %w", err)
	}
	r.metrics.signatures.Observe(time.Since(start).Seconds())
	response, err := marshalResponse(tbs, r.algorithm.Identifier(), signature, r.certificate.Raw)
	if err != nil {
		return answer{}, fmt.Errorf("write OCSPResponse: %w", err)
	}
	a := answer{
		der: response, producedAt: d.producedAt, given: d.producedAt, statuses: d.statuses,
		validity: validity{d.thisUpdate, d.nextUpdate},
	}
	if d.nonce != nil || slices.ContainsFunc(a.statuses, func(s certStatus) bool { return s.state == unknown }) {
		// Nobody else asks with this nonce; and what is unknown costs whoever asks nothing to vary.
		return a, nil
	}
	a.shareable, a.header = true, newSharedHeader(response, a.validity)
	return a, nil
}
