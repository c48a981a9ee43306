package clock

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// told is a clock that a test sets.
type told struct {
	t   time.Time
	err error
}

func (c *told) Now() (time.Time, time.Duration, error) { return c.t, time.Millisecond, c.err }

// TestRecorded has a journal be stamped with the vouched time, else with what the last one has become, and never with a time
// that the clock tells while it is not vouched for.
func TestRecorded(t *testing.T) {
	start := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	lost := errors.New("not synchronised")
	type step struct {
		name string
		pass time.Duration // by the monotonic clock
		wall time.Duration // of the clock, since start
		err  error
		last time.Duration // of the journal, since start
		want time.Duration // since start
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"vouched for", []step{
			{"at the start", 0, 0, nil, -time.Hour, 0},
			{"later", time.Hour, time.Hour, nil, 0, time.Hour},
			{"set right by a step", time.Second, 2 * time.Hour, nil, time.Hour, 2 * time.Hour},
		}},
		{"lost", []step{
			{"vouched for", 0, 0, nil, -time.Hour, 0},
			{"lost and a year ahead", time.Second, 365 * 24 * time.Hour, lost, 0, time.Second},
			{"still lost, and a year behind", time.Minute, -365 * 24 * time.Hour, lost, time.Second, 61 * time.Second},
			{"back", time.Second, 62 * time.Second, nil, 61 * time.Second, 62 * time.Second},
		}},
		{"never vouched for", []step{
			{"at the start", 0, 24 * time.Hour, lost, -time.Hour, -time.Hour},
			{"later", time.Minute, 24 * time.Hour, lost, -time.Hour, time.Minute - time.Hour},
			{"vouched for", time.Minute, 2 * time.Minute, nil, time.Minute - time.Hour, 2 * time.Minute},
		}},
		{"behind the journal", []step{
			{"vouched for", 0, 0, nil, time.Minute, time.Minute},
			{"lost", time.Second, 0, lost, time.Minute, time.Minute},
			{"past it", time.Hour, time.Hour, nil, time.Minute, time.Hour},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := new(told)
			var passed time.Duration
			var last time.Time
			r := &recorded{clock: c, last: func() time.Time { return last }, monotonic: func() time.Duration { return passed }}
			for _, s := range tt.steps {
				passed += s.pass
				c.t, c.err, last = start.Add(s.wall), s.err, start.Add(s.last)
				if got := r.now(); !got.Equal(start.Add(s.want)) || got.Location() != time.UTC {
					t.Errorf("%s: %v, want %v", s.name, got, start.Add(s.want))
				}
			}
		})
	}
}

func ExampleRecorded() {
	c := Unverified(time.Second)
	journalEnds := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	now := Recorded(c, func() time.Time { return journalEnds })
	fmt.Println(now().Format(time.DateOnly)) // time does not run backwards
	// Output: 9999-01-01
}

// TestRecordedCarriesOn has the real monotonic clock carry a lost time on.
func TestRecordedCarriesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &told{t: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)}
		now := Recorded(c, func() time.Time { return time.Time{} })
		now()
		c.err = errors.New("not synchronised")
		time.Sleep(90 * time.Second)
		if got, want := now(), c.t.Add(90*time.Second); !got.Equal(want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
