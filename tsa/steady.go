package tsa

import (
	"fmt"
	"sync"
	"time"
)

// steadyAfterJump is how long a clock that jumped while it was vouched for has to keep step
// with the monotonic clock before it is believed again (EN 319 421 TIS-7.7.2-05, -06).
const steadyAfterJump = time.Minute

// Steady makes a Clock of c that also refuses where c is not exact enough for tokens of this accuracy (ClockLimit), and after it has
// jumped (EN 319 421 TIS-7.7.2-05, -06). The system slews both its clocks alike, so that what lies between wall
// and monotonic clock changes only when somebody steps one of them. It is held against what lay between them when c was first vouched for
// after a refusal: many small steps are seen as one great one is.
//
// New does this to Config.Clock by itself. It is here for who needs the same judgement elsewhere, to stamp the
// authority's journal: an hour that a token may not say is not to stand there either.
func Steady(c Clock, accuracy time.Duration) Clock {
	start := time.Now()
	return &steady{
		clock: c, accuracy: accuracy, limit: ClockLimit(accuracy),
		monotonic: func() time.Duration { return time.Since(start) },
	}
}

type steady struct {
	clock     Clock
	accuracy  time.Duration        // of tokens
	limit     time.Duration        // the greatest error of clock
	monotonic func() time.Duration // since an arbitrary moment; never set, never stepped

	mu        sync.Mutex
	anchor    reading       // the first since clock was not vouched for, or jumped
	heldUntil time.Duration // monotonic; 0: not held
	held      string        // the jump that caused it
}

// Now is read without the monotonic clock.
func (s *steady) Now() (time.Time, time.Duration, error) {
	r, err := s.read()
	if err != nil {
		return time.Time{}, 0, err
	}
	return r.wall, r.accuracy, nil
}

// reading is one look at the wall clock, with the monotonic clock before and after it.
type reading struct {
	wall          time.Time // zero: not read
	accuracy      time.Duration
	before, after time.Duration
}

// read takes a reading and judges it. Its error wraps errTimeNotAvailable; the reading is then what the clock said all the same.
func (s *steady) read() (reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	this, err := s.look()
	switch {
	case err != nil:
		// Once somebody vouches again, the time may have been set right by a step.
		s.anchor = reading{}
		return this, fmt.Errorf("%w: %w", errTimeNotAvailable, err)
	case this.accuracy > s.limit:
		s.anchor = reading{}
		return this, fmt.Errorf("%w: the clock may be off by %v, the policy's accuracy allows %v (EN 319 421 TIS-7.7.1-07)", errTimeNotAvailable, this.accuracy, s.limit)
	}
	if by := s.anchor.jumpTo(this); by.Abs() > s.accuracy-this.accuracy {
		s.anchor = reading{}
		s.heldUntil = this.after + steadyAfterJump
		s.held = fmt.Sprintf("the clock jumped by %v", by)
	}
	if s.anchor.wall.IsZero() {
		s.anchor = this
	}
	if this.before < s.heldUntil {
		return this, fmt.Errorf("%w: %s: it has to run steadily for %v before it is believed", errTimeNotAvailable, s.held, steadyAfterJump)
	}
	return this, nil
}

// look reads the clock, again where the goroutine was suspended meanwhile: a jump is known only to what the two readings of the
// monotonic clock leave open, and a time to how long ago it was.
func (s *steady) look() (reading, error) {
	const quick, tries = time.Millisecond, 3
	var this reading
	for range tries {
		before := s.monotonic()
		t, accuracy, err := s.clock.Now()
		after := s.monotonic()
		if err != nil {
			return reading{before: before, after: after}, err
		}
		// Round: wall time only, Sub must not use Go's own monotonic reading.
		this = reading{wall: t.UTC().Round(0), accuracy: accuracy, before: before, after: after}
		if after-before <= quick {
			break
		}
	}
	return this, nil
}

// jumpTo is how far the wall clock went beyond what the monotonic clock allows between two readings. A goroutine can be
// suspended within a reading, so the monotonic time passed is known only to lie between two bounds.
func (r reading) jumpTo(next reading) time.Duration {
	if r.wall.IsZero() {
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
