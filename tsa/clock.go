package tsa

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// Clock tells UTC and how far it may be off, or refuses. accuracy is the greatest error the clock may have now; an
// error means that nobody vouches for the time. Safe for concurrent use.
type Clock interface {
	Now() (t time.Time, accuracy time.Duration, err error)
}

// steadyAfterJump is how long a clock that jumped while it was vouched for has to keep step
// with the monotonic clock before it is believed again (EN 319 421 TIS-7.7.2-05, -06).
const steadyAfterJump = time.Minute

// watch decides whether the clock may be put into a token, and records when that changes.
type watch struct {
	clock      Clock
	journal    recorder
	log        *slog.Logger
	limit      time.Duration        // greatest error of the clock that the accuracy in the token allows
	jump       time.Duration        // wall and monotonic clock may part by this much between readings
	unverified bool                 // nobody stands behind the clock: recorded and shown as such
	monotonic  func() time.Duration // since an arbitrary moment; never set, never stepped

	mu         sync.Mutex
	previous   reading
	heldUntil  time.Duration // monotonic; 0: not held
	held       string        // the jump that caused it
	known      bool          // there was a first reading
	lost       error         // why the clock is not vouched for; nil: it is
	accuracy   time.Duration // the clock's own word, at the last reading that was vouched for
	unrecorded []journal.ClockChanged
}

// reading is one look at the wall clock, with the monotonic clock before and after it.
type reading struct {
	taken         bool
	wall          time.Time
	before, after time.Duration
}

// now returns a time that may be put into a token, or an error that wraps errTimeNotAvailable. A change
// from one to the other is in the journal before now returns; where it cannot be
// recorded there is no time either.
func (w *watch) now(ctx context.Context) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, err := w.read()
	changed := w.turn(err)
	if err := w.record(ctx); err != nil {
		return time.Time{}, err
	}
	if changed && err == nil {
		t, err = w.read() // recording took a while, and no genTime is before the journal's last entry
	}
	if err != nil {
		return time.Time{}, err
	}
	return t, nil
}

// read takes one reading and judges it. The caller holds mu.
func (w *watch) read() (time.Time, error) {
	last := w.journal.LastTime() // before the clock: others append meanwhile
	before := w.monotonic()
	t, accuracy, err := w.clock.Now()
	after := w.monotonic()
	if err != nil {
		// Once somebody vouches again, the time may have been set right by a step.
		w.previous = reading{}
		return time.Time{}, fmt.Errorf("%w: %w", errTimeNotAvailable, err)
	}
	t = t.UTC().Round(0) // wall time only: Sub must not use Go's own monotonic reading
	this := reading{taken: true, wall: t, before: before, after: after}
	if by := w.previous.jumpTo(this); by.Abs() > w.jump {
		w.heldUntil = after + steadyAfterJump
		w.held = fmt.Sprintf("the clock jumped by %v", by)
	}
	w.previous = this
	switch {
	case before < w.heldUntil:
		return time.Time{}, fmt.Errorf("%w: %s: it has to run steadily for %v before it is believed", errTimeNotAvailable, w.held, steadyAfterJump)
	case accuracy > w.limit:
		return time.Time{}, fmt.Errorf("%w: the clock may be off by %v, the policy's accuracy allows %v (EN 319 421 TIS-7.7.1-07)", errTimeNotAvailable, accuracy, w.limit)
	case t.Before(last):
		return time.Time{}, fmt.Errorf("%w: the clock says %s, the journal's last entry is of %s", errTimeNotAvailable, stamp(t), stamp(last))
	}
	w.accuracy = accuracy
	return t, nil
}

// jumpTo is how far the wall clock went beyond what the monotonic clock allows between two readings. A goroutine can be
// suspended within a reading, so the monotonic time passed is known only to lie between two bounds.
func (r reading) jumpTo(next reading) time.Duration {
	if !r.taken {
		return 0
	}
	wall := next.wall.Sub(r.wall)
	least, most := next.before-r.after, next.after-r.before
	switch {
	case wall < least:
		return wall - least
	case wall > most:
		return wall - most
	}
	return 0
}

// turn notes whether the clock is vouched for and reports whether that changed. The caller holds mu.
func (w *watch) turn(err error) bool {
	changed := !w.known || (w.lost == nil) != (err == nil)
	w.known, w.lost = true, err
	if !changed {
		return false
	}
	e := journal.ClockChanged{Vouched: err == nil && !w.unverified}
	switch {
	case err != nil:
		e.Detail = err.Error()
		w.log.Error("clock is not vouched for: no tokens until it is", "reason", err)
	case w.unverified:
		e.Detail = "clock: unverified: tokens are issued, nobody vouches for their time"
		w.log.Warn("clock: unverified: tokens are issued, nobody vouches for their time")
	default:
		e.Detail = fmt.Sprintf("the clock is vouched for to within %v", w.accuracy)
		w.log.Info("clock is vouched for", "accuracy", w.accuracy)
	}
	w.unrecorded = append(w.unrecorded, e)
	return true
}

// maxUnrecorded bounds what is kept for a journal that refuses; the oldest go first.
const maxUnrecorded = 64

// record appends the changes that the journal does not hold yet. The caller holds mu.
func (w *watch) record(ctx context.Context) error {
	for len(w.unrecorded) > 0 {
		// The change happened whether or not the client that saw it first is still there.
		if _, err := w.journal.Append(context.WithoutCancel(ctx), w.unrecorded[0]); err != nil {
			w.unrecorded = w.unrecorded[max(0, len(w.unrecorded)-maxUnrecorded):]
			if w.lost != nil {
				return w.lost // the reason there is no time comes before the reason it is not recorded
			}
			return fmt.Errorf("record that the clock changed: %w", err)
		}
		w.unrecorded = w.unrecorded[1:]
	}
	return nil
}

// state returns what the last reading found: whether the clock may be put into tokens, and how exact it was when it last could.
func (w *watch) state() (available bool, accuracy time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known && w.lost == nil, w.accuracy
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
