package ocsp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// readyAge is the age of the last verified checkpoint beyond which the Responder is not ready; it
// goes on answering until the status life is over.
const readyAge = 5 * time.Minute

// feedError is why the replica could not be brought up to date.
type feedError struct {
	at  time.Time
	err error
}

// Follow keeps the replica up with the CA's feed (an https URL) until ctx ends, through whatever
// failures heal; then it returns nil. It ends early with an error that wraps journal.ErrFork when
// the feed contradicts what was verified before: from then on every answer is internalError and
// Health says why. It also ends early when the replica cannot be written (journal.ErrFailed), which
// opening it anew may heal. Call it once at a time.
func (r *Responder) Follow(ctx context.Context, feed string, client *http.Client) error {
	err := journal.Follow(ctx, r.replica, feed, client, func(err error) {
		at, _, _ := r.clock.Now()
		r.feedErr.Store(&feedError{at: at, err: err})
		r.logFeed.Do(func() { r.log.Warn("feed not followed", "feed", feed, "error", err) })
	})
	if errors.Is(err, journal.ErrFork) {
		err = fmt.Errorf("follow %s: stop answering: %w: find out whether the feed or the replica was tampered with before a new replica is made", feed, err)
		r.forked.Store(&err)
		return err
	}
	if err != nil {
		return fmt.Errorf("follow %s: %w", feed, err)
	}
	return nil
}

// forkError is what Follow found, nil as long as it has found no fork.
func (r *Responder) forkError() error {
	if err := r.forked.Load(); err != nil {
		return *err
	}
	return nil
}

// Health returns facts to show and an error that says why the Responder is not ready: the replica
// has forked or cannot be written, the clock refuses or is behind the journal, no checkpoint was verified in the last
// five minutes (or the status life, if that is shorter), or the responder certificate has expired
// or will within a status life. A Responder that is not ready may still answer.
func (r *Responder) Health() (facts map[string]any, err error) {
	facts = map[string]any{
		"issuer":                r.issuerName(),
		"responder_certificate": hex.EncodeToString(r.certificate.SerialNumber.Bytes()),
		"responder_not_after":   r.certificate.NotAfter.UTC().Format(time.RFC3339),
		"status_life":           r.statusLife.String(),
		"clock":                 "system",
		"entries":               r.replica.Size(),
	}
	if clock.IsUnverified(r.clock) {
		facts["clock"] = "unverified"
	}
	var reasons []error
	if err := r.forkError(); err != nil {
		reasons = append(reasons, err)
	}
	if err := r.replica.Failed(); err != nil {
		reasons = append(reasons, err)
	}
	tree, err := r.verified()
	if err == nil {
		facts["checkpoint_time"] = tree.Time.UTC().Format(time.RFC3339)
		facts["checkpoint_size"] = tree.Size
	} else {
		reasons = append(reasons, err)
	}
	if e := r.feedErr.Load(); e != nil && e.at.After(tree.Time) {
		facts["feed_error"] = e.err.Error()
	}
	now, clockErr := r.now(tree)
	switch {
	case clockErr != nil:
		reasons = append(reasons, clockErr)
	case now.Add(r.statusLife).After(r.certificate.NotAfter):
		reasons = append(reasons, fmt.Errorf("the responder certificate expires at %s: issue a new one with the profile ocsp-responder",
			r.certificate.NotAfter.UTC().Format(time.RFC3339)))
	}
	if age := now.Sub(tree.Time); err == nil && clockErr == nil && age > min(readyAge, r.statusLife) {
		reasons = append(reasons, fmt.Errorf("the last verified checkpoint is %v old: check that the CA runs and that its feed can be reached", age.Round(time.Second)))
	}
	return facts, joined(reasons)
}

// issuerName is the CA's name for people.
func (r *Responder) issuerName() string { return r.certificate.Issuer.String() }

// joined puts the reasons on one line; nil if there are none.
func joined(reasons []error) error {
	var err error
	for _, reason := range reasons {
		if err == nil {
			err = reason
		} else {
			err = fmt.Errorf("%w; %w", err, reason)
		}
	}
	return err
}

// checkpointAge is in seconds, +Inf where it cannot be told, so that an alarm on its size goes off.
func (r *Responder) checkpointAge() float64 {
	tree, err := r.verified()
	if err != nil {
		return math.Inf(1)
	}
	now, _, err := r.clock.Now()
	if err != nil {
		return math.Inf(1)
	}
	return now.Sub(tree.Time).Seconds()
}
