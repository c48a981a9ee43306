package clock

import (
	"sync"
	"time"
)

// Recorded makes the clock that stamps a journal's entries and checkpoints: it always tells a time, and never one that only
// a clock without anybody's word on it has told. That would stay in the journal, whose time does not run backwards, and a
// daemon refuses to sign while its clock is behind its journal: an hour in which the clock was a year ahead would cost a year.
//
//   - while c is vouched for: its time;
//   - while it refuses: the last time it was vouched for, carried on by the monotonic clock, which nobody can set;
//   - before it was ever vouched for: last(), carried on likewise.
//
// last tells the newest time that the journal holds, in an entry or a checkpoint; what Recorded tells is not before it.
// Only entries made while c refuses can be off, by what the monotonic clock drifts or, on a machine that slept, does not count.
// The function is safe for concurrent use if last is.
func Recorded(c Clock, last func() time.Time) func() time.Time {
	start := time.Now()
	r := &recorded{clock: c, last: last, monotonic: func() time.Duration { return time.Since(start) }}
	return r.now
}

type recorded struct {
	clock     Clock
	last      func() time.Time
	monotonic func() time.Duration // since an arbitrary moment

	mu   sync.Mutex
	base time.Time     // a time that was right
	at   time.Duration // what the monotonic clock said then
}

func (r *recorded) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last().Round(0)
	t, _, err := r.clock.Now()
	at := r.monotonic()
	switch {
	case err == nil:
		r.base, r.at = t.Round(0), at // Round: a time.Time must not carry a monotonic reading of its own
	case r.base.IsZero():
		r.base, r.at = last, at
	}
	t = r.base.Add(at - r.at)
	if t.Before(last) {
		t = last
	}
	return t.UTC()
}
