package tsa

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// granted reports whether a request gets a token now; anything but that and timeNotAvailable fails the test.
func granted(t testing.TB, b *bench) bool {
	t.Helper()
	response := b.ask(t, "data", nil)
	if _, err := ParseResponse(response); err == nil {
		return true
	}
	if r := refused(t, response); r.FailInfo[0] != TimeNotAvailable {
		t.Fatalf("got %v, want timeNotAvailable", r)
	}
	return false
}

// wantChanges compares the recorded clock changes: + vouched for, - not.
func wantChanges(t testing.TB, b *bench, want string) {
	t.Helper()
	var got strings.Builder
	for _, c := range b.journal.clockChanges() {
		if c.Detail == "" {
			t.Error("a clock change without detail")
		}
		if c.Vouched {
			got.WriteByte('+')
		} else {
			got.WriteByte('-')
		}
	}
	if got.String() != want {
		t.Errorf("recorded clock changes %s, want %s", got.String(), want)
	}
}

// TestClockLost has the clock refuse, be too inexact, and come back (TIS-7.7.1-07); each change is recorded once, not once a request.
func TestClockLost(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	if !granted(t, b) || !granted(t, b) {
		t.Fatal("refused at the start")
	}
	wantChanges(t, b, "+")
	b.clock.pass(time.Second)
	b.clock.say(0, errors.New("the kernel says the clock is not synchronised"))
	if granted(t, b) || granted(t, b) {
		t.Error("a token without a clock")
	}
	wantChanges(t, b, "+-")
	b.clock.say(ClockLimit(time.Second)+1, nil)
	if granted(t, b) {
		t.Error("a token less exact than it says")
	}
	wantChanges(t, b, "+-")
	b.clock.say(ClockLimit(time.Second), nil)
	if !granted(t, b) {
		t.Error("refused after the clock came back")
	}
	wantChanges(t, b, "+-+")
}

// TestClockSteppedWhileLost has a clock that was set right while nobody vouched for it be believed at once.
func TestClockSteppedWhileLost(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	granted(t, b)
	b.clock.say(0, errors.New("not synchronised"))
	granted(t, b)
	b.clock.jump(time.Hour)
	b.clock.say(time.Millisecond, nil)
	if !granted(t, b) {
		t.Error("refused after the clock was set and vouched for")
	}
}

// TestClockJumps has a jump beyond the accuracy stop tokens until the clock has run steadily (TIS-7.7.2-05, -06).
func TestClockJumps(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, 1001 * time.Millisecond, -1001 * time.Millisecond} {
		t.Run(by.String(), func(t *testing.T) {
			b := newBench(t, newP256(t), nil)
			granted(t, b)
			b.clock.pass(10 * time.Second)
			b.clock.jump(by)
			if granted(t, b) {
				t.Fatal("a token right after the jump")
			}
			for range 59 {
				b.clock.pass(time.Second)
				if granted(t, b) {
					t.Fatal("a token before the clock was steady")
				}
			}
			wantChanges(t, b, "+-")
			b.clock.pass(time.Second)
			if !granted(t, b) {
				t.Error("refused after a steady minute")
			}
			wantChanges(t, b, "+-+")
		})
	}
}

// TestClockDoesNotJump has time that passes, and corrections within the accuracy, stop nothing.
func TestClockDoesNotJump(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	for _, d := range []time.Duration{0, time.Millisecond, time.Hour, 30 * 24 * time.Hour} {
		b.clock.pass(d)
		b.clock.jump(time.Second)
		if !granted(t, b) {
			t.Errorf("refused after %v", d)
		}
	}
}

// TestJumpWhileSuspended has a reading during which the process was suspended not count as a jump.
func TestJumpWhileSuspended(t *testing.T) {
	first := reading{taken: true, wall: testTime, before: 0, after: time.Second} // suspended within
	for _, tt := range []struct {
		wall time.Duration
		want time.Duration
	}{
		{9 * time.Second, 0}, {10 * time.Second, 0}, // read at the end, read at the beginning
		{8 * time.Second, -time.Second}, {11 * time.Second, time.Second},
	} {
		next := reading{taken: true, wall: testTime.Add(tt.wall), before: 10 * time.Second, after: 10 * time.Second}
		if got := first.jumpTo(next); got != tt.want {
			t.Errorf("after %v: jump %v, want %v", tt.wall, got, tt.want)
		}
	}
}

// TestClockBehindJournal has no genTime be before the journal's last entry.
func TestClockBehindJournal(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	b.journal.last = testTime.Add(time.Millisecond)
	if granted(t, b) {
		t.Error("a token with a time before the journal's last entry")
	}
	b.clock.pass(time.Second)
	if !granted(t, b) {
		t.Error("refused when the clock had passed the journal")
	}
	wantChanges(t, b, "-+") // the loss could not be recorded before: the journal's time does not run backwards either
}

// TestClockChangeNotRecorded has no token leave while the return of the clock is not in the journal.
func TestClockChangeNotRecorded(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	granted(t, b)
	b.clock.say(0, errors.New("not synchronised"))
	b.journal.failWith(func(journal.Event) error { return errors.New("disk full") })
	granted(t, b)
	b.clock.say(time.Millisecond, nil)
	if r := refused(t, b.ask(t, "data", nil)); r.FailInfo[0] != SystemFailure {
		t.Errorf("got %v, want systemFailure", r)
	}
	b.journal.failWith(nil)
	if !granted(t, b) {
		t.Error("refused after the journal came back")
	}
	wantChanges(t, b, "+-+")
}

// TestClockUnverified has an unverified clock be shown wherever the state is.
func TestClockUnverified(t *testing.T) {
	var log strings.Builder
	b := newBench(t, newP256(t), func(c *Config) {
		c.ClockUnverified, c.Log = true, slog.New(slog.NewTextHandler(&log, nil))
	})
	if !granted(t, b) {
		t.Fatal("refused")
	}
	wantChanges(t, b, "-") // tokens leave, but nobody vouched
	if !strings.Contains(log.String(), "clock: unverified") {
		t.Errorf("the log says nothing: %s", log.String())
	}
	facts, err := b.Health()
	if err != nil || facts["clock"] != "unverified" || facts["clock_vouched"] != false {
		t.Errorf("health says %v, %v", facts, err)
	}
}

// TestHealth has health be what the next request would meet.
func TestHealth(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	facts, err := b.Health()
	if err != nil || facts["clock"] != "system" || facts["clock_vouched"] != true || facts["policy"] != "0.4.0.2023.1.1" {
		t.Errorf("got %v, %v", facts, err)
	}
	b.clock.say(0, errors.New("not synchronised"))
	if facts, err := b.Health(); err == nil || facts["clock_vouched"] != false {
		t.Errorf("ready without a clock: %v", facts)
	}
	b.clock.say(time.Millisecond, nil)
	b.clock.pass(400 * 24 * time.Hour)
	if _, err := b.Health(); err == nil || !strings.Contains(err.Error(), "may not sign after") {
		t.Errorf("ready with a key past its use: %v", err)
	}
}

// TestRunWatches has the loss of the clock be noticed without a request.
func TestRunWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, newP256(t), nil)
		go b.Run(t.Context())
		time.Sleep(1500 * time.Millisecond)
		b.clock.say(0, errors.New("not synchronised"))
		time.Sleep(time.Second)
		wantChanges(t, b, "+-")
	})
}
