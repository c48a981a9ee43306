package ocsp

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
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
// the feed contradicts what was verified before: from then on, and after a restart, every answer is
// internalError and Health says why. It also ends early when the replica cannot be written
// (journal.ErrFailed), which opening it anew may heal. Call it once at a time.
func (r *Responder) Follow(ctx context.Context, feed string, client *http.Client) error {
	return journal.Follow(ctx, r.replica, feed, client, func(err error) {
		at, _, _ := r.clock.Now()
		r.feedErr.Store(&feedError{at: at, err: err})
		r.logFeed.Do(func() { r.log.Warn("feed not followed", "feed", feed, "error", err) })
	})
}

// forkError is why nothing is answered any more; nil as long as no fork was found, by this process or one before.
func (r *Responder) forkError() error {
	if err := r.replica.Forked(); err != nil {
		return fmt.Errorf("%w: nothing is answered: find out whether the CA's journal, the feed or the replica was tampered with before a new replica is made", err)
	}
	return nil
}

// Health returns facts to show and an error that says why the Responder is not ready: the replica
// has forked or cannot be written, the responder certificate is revoked or has expired, the clock refuses or is behind
// the journal, or no checkpoint was verified in the last five minutes (or the status life, if that is
// shorter). A Responder that is not ready may still answer. What is not in order but lets it answer
// is among the facts, as warnings.
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
	tree, treeErr := r.verified()
	if treeErr == nil {
		facts["checkpoint_time"] = tree.Time.UTC().Format(time.RFC3339)
		facts["checkpoint_size"] = tree.Size
	}
	if e := r.feedErr.Load(); e != nil && e.at.After(tree.Time) {
		facts["feed_error"] = e.err.Error()
	}
	now, clockErr := r.now(tree)
	warning, standing := r.standing()
	var warnings []string
	if warning != "" && treeErr == nil { // before the first checkpoint the replica knows nothing yet
		warnings = append(warnings, warning)
	}
	if clockErr == nil && now.Add(r.renewal()).After(r.certificate.NotAfter) {
		warnings = append(warnings, fmt.Sprintf("the responder certificate expires at %s: issue a new one with the profile ocsp-responder",
			r.certificate.NotAfter.UTC().Format(time.RFC3339)))
	}
	if warnings != nil {
		facts["warnings"] = warnings
	}
	reasons := []error{r.forkError(), r.replica.Failed(), standing, treeErr, clockErr}
	if age := now.Sub(tree.Time); treeErr == nil && clockErr == nil && age > min(readyAge, r.statusLife) {
		reasons = append(reasons, fmt.Errorf("the last verified checkpoint is %v old: check that the CA runs and that its feed can be reached", age.Round(time.Second)))
	}
	return facts, joined(reasons)
}

// renewal is how long before its end the responder certificate is due: a tenth of its life, and not
// less than a status life, within which answers hold for less than that.
func (r *Responder) renewal() time.Duration {
	return max(r.statusLife, r.certificate.NotAfter.Sub(r.certificate.NotBefore)/10)
}

// issuerName is the CA's name for people.
func (r *Responder) issuerName() string {
	name, err := der.NameText(r.certificate.RawIssuer)
	if err != nil { // crypto/x509 has read it, so only its own way of writing is left
		return r.certificate.Issuer.String()
	}
	return name
}

// joined puts the reasons that are not nil on one line; nil if there are none.
func joined(reasons []error) error {
	var err error
	for _, reason := range reasons {
		if err == nil {
			err = reason
		} else if reason != nil {
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
