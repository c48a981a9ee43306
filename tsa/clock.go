package tsa

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// Clock tells UTC and how far it may be off, or refuses. accuracy is the greatest error the clock may have now; an
// error means that nobody vouches for the time. Safe for concurrent use.
type Clock interface {
	Now() (t time.Time, accuracy time.Duration, err error)
}

// watch decides whether the clock may be put into a token, and records when that changes.
type watch struct {
	clock      *steady
	journal    recorder
	log        *slog.Logger
	unverified bool // nobody stands behind the clock: recorded and shown as such

	found atomic.Pointer[finding] // the last reading; nil: none yet

	mu         sync.Mutex
	known      bool  // there was a first reading
	lost       error // why the clock is not vouched for; nil: it is
	unrecorded []journal.ClockChanged
}

// finding is what a reading led to, for those who only look.
type finding struct {
	reading
	lost error // why the clock is not vouched for; nil: it is
	err  error // why there is no time for a token: lost, or that its return is not recorded
}

// now returns a time that may be put into a token, or an error that wraps errTimeNotAvailable. A change
// from one to the other is in the journal before now returns; where it cannot be
// recorded there is no time either.
func (w *watch) now(ctx context.Context) (reading, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, err := w.read()
	changed := w.turn(r, err)
	if err := w.record(ctx); err != nil {
		w.found.Store(&finding{r, w.lost, err})
		return reading{}, err
	}
	if changed && err == nil {
		r, err = w.read() // recording took a while, and no genTime is before the journal's last entry
	}
	w.found.Store(&finding{r, err, err})
	if err != nil {
		return reading{}, err
	}
	return r, nil
}

// read takes one reading and holds it against the journal.
func (w *watch) read() (reading, error) {
	last := w.journal.LastTime() // before the clock: others append meanwhile
	r, err := w.clock.read()
	if err == nil && r.wall.Before(last) {
		err = fmt.Errorf("%w: the clock says %s, the journal's last entry is of %s", errTimeNotAvailable, stamp(r.wall), stamp(last))
	}
	return r, err
}

// turn notes whether the clock is vouched for and reports whether that changed. The caller holds mu.
func (w *watch) turn(r reading, err error) bool {
	changed := !w.known || (w.lost == nil) != (err == nil)
	w.known, w.lost = true, err
	if !changed {
		return false
	}
	e := journal.ClockChanged{Vouched: err == nil && !w.unverified}
	switch {
	case err != nil:
		// The entry's own time is not the one that nobody vouches for: that is told here.
		said := r.wall
		if said.IsZero() {
			said = time.Now()
		}
		e.Detail = fmt.Sprintf("%v; this machine's clock said %s", err, stamp(said))
		w.log.Error("clock is not vouched for: no tokens until it is", "reason", err)
	case w.unverified:
		e.Detail = "clock: unverified: tokens are issued, nobody vouches for their time"
		w.log.Warn("clock: unverified: tokens are issued, nobody vouches for their time")
	default:
		e.Detail = fmt.Sprintf("the clock is vouched for to within %v", r.accuracy)
		w.log.Info("clock is vouched for", "accuracy", r.accuracy)
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

// staleAfter is how old a reading may be for those who only look: Run takes one every second.
const staleAfter = 5 * time.Second

// state is what the last reading found. It reads nothing and waits for nobody.
func (w *watch) state() finding {
	f := w.found.Load()
	if f == nil {
		err := fmt.Errorf("%w: the clock has not been read yet", errTimeNotAvailable)
		return finding{lost: err, err: err}
	}
	if age := w.clock.monotonic() - f.after; age > staleAfter {
		err := fmt.Errorf("%w: the clock was last read %v ago: the journal or the system hangs", errTimeNotAvailable, age.Round(time.Second))
		return finding{reading: f.reading, lost: err, err: err}
	}
	return *f
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
