package tsa

import (
	"crypto"
	"crypto/x509"
	"errors"
	"io"
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
	for range 2 {
		if !granted(t, b) {
			t.Fatal("refused at the start")
		}
	}
	wantChanges(t, b, "+")
	b.clock.pass(time.Second)
	b.clock.say(0, errors.New("the kernel says the clock is not synchronised"))
	for range 2 {
		if granted(t, b) {
			t.Error("a token without a clock")
		}
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

// TestClockDoesNotJump has time that passes, and a correction within the accuracy, stop nothing.
func TestClockDoesNotJump(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	granted(t, b)
	for i, d := range []time.Duration{0, time.Millisecond, time.Hour, 30 * 24 * time.Hour} {
		b.clock.pass(d)
		if i == 0 {
			b.clock.jump(998 * time.Millisecond) // 1 s less what the clock says that it may be off
		}
		if !granted(t, b) {
			t.Errorf("refused after %v", d)
		}
	}
}

// TestClockCreeps has many small steps be the one great jump that they add up to (TIS-7.7.2-05).
func TestClockCreeps(t *testing.T) {
	for _, by := range []time.Duration{900 * time.Millisecond, -10 * time.Millisecond} {
		t.Run(by.String(), func(t *testing.T) {
			b := newBench(t, newP256(t), nil)
			granted(t, b)
			var gone time.Duration
			for range 200 {
				b.clock.pass(time.Second)
				b.clock.jump(by)
				gone += by
				if !granted(t, b) {
					break
				}
			}
			if gone.Abs() <= 998*time.Millisecond || gone.Abs()-by.Abs() > 998*time.Millisecond {
				t.Errorf("refused when the clock had gone %v, want beyond 998ms", gone)
			}
		})
	}
}

// TestClockStepsWithinItsError has a clock that says it may be off by much be allowed no more than the accuracy in all.
func TestClockStepsWithinItsError(t *testing.T) {
	for by, want := range map[time.Duration]bool{600 * time.Millisecond: true, 601 * time.Millisecond: false} {
		b := newBench(t, newP256(t), nil)
		b.clock.say(400*time.Millisecond, nil)
		granted(t, b)
		b.clock.jump(by)
		if got := granted(t, b); got != want {
			t.Errorf("a step of %v with an error of 400 ms: granted %v", by, got)
		}
	}
}

// TestJournalAfterJump has a clock that was a year ahead for a moment leave no trace in the journal's times, so that the authority
// works again as soon as the clock is right; what the clock said is told.
func TestJournalAfterJump(t *testing.T) {
	const year = 365 * 24 * time.Hour
	b := newBench(t, newP256(t), nil)
	granted(t, b)
	b.clock.pass(time.Second)
	b.clock.jump(year)
	if granted(t, b) {
		t.Fatal("a token right after the jump")
	}
	wantChanges(t, b, "+-")
	if last := b.journal.LastTime(); last.After(testTime.Add(time.Minute)) {
		t.Fatalf("the journal's last entry is of %v", last)
	}
	if detail := b.journal.clockChanges()[1].Detail; !strings.Contains(detail, "clock said 2027-11-23T") {
		t.Errorf("the entry does not say what the clock said: %s", detail)
	}
	b.clock.jump(-year)
	b.clock.pass(time.Second)
	granted(t, b)
	b.clock.pass(steadyAfterJump)
	if !granted(t, b) {
		t.Error("refused a minute after the clock was right again")
	}
	wantChanges(t, b, "+-+")
}

// atKey calls back while the key signs.
type atKey struct {
	crypto.Signer
	during func()
}

func (k *atKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.during()
	return k.Signer.Sign(r, digest, o)
}

// TestWhileSigning has everything that could be said of the clock before the signature be said after it again: a token is made
// within the accuracy of its genTime, or it is none (RFC 3161 §2.4.2, TIS-7.7.1-06).
func TestWhileSigning(t *testing.T) {
	const enough = time.Second - 2*time.Millisecond - time.Millisecond // less the clock's error and the resolution of genTime
	for _, tt := range []struct {
		name   string
		during func(*bench)
		want   PKIFailureInfo // 0: a token
	}{
		{"nothing happens", func(*bench) {}, 0},
		{"it takes all the time there is", func(b *bench) { b.clock.pass(enough) }, 0},
		{"it takes longer", func(b *bench) { b.clock.pass(enough + 1) }, TimeNotAvailable},
		{"it takes 20 s", func(b *bench) { b.clock.pass(20 * time.Second) }, TimeNotAvailable},
		{"the clock jumps ahead", func(b *bench) { b.clock.jump(time.Hour) }, TimeNotAvailable},
		{"the clock jumps back", func(b *bench) { b.clock.jump(-time.Hour) }, TimeNotAvailable},
		{"the clock goes behind the journal", func(b *bench) { b.clock.jump(-500 * time.Millisecond) }, TimeNotAvailable},
		{"the clock is lost", func(b *bench) { b.clock.say(0, errors.New("not synchronised")) }, TimeNotAvailable},
		{"the clock becomes inexact", func(b *bench) { b.clock.say(time.Second, nil) }, TimeNotAvailable},
		{"the key's time ends", func(b *bench) {
			b.clock.pass(500 * time.Millisecond)
			b.Authority.unit.keyNotAfter = testTime.Add(499 * time.Millisecond)
		}, SystemFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := &atKey{Signer: newP256(t), during: func() {}}
			b := newBench(t, key, nil)
			granted(t, b)
			key.during = func() { tt.during(b) }
			response := b.ask(t, "data", nil)
			if tt.want == 0 {
				if _, err := ParseResponse(response); err != nil {
					t.Error(err)
				}
				return
			}
			if r := refused(t, response); r.FailInfo[0] != tt.want {
				t.Errorf("got %v, want %v", r, tt.want)
			}
			if n := len(b.journal.issued()); n != 1 {
				t.Errorf("%d tokens are in the journal, want 1", n)
			}
		})
	}
}

// TestJumpWhileSuspended has a reading during which the process was suspended not count as a jump.
func TestJumpWhileSuspended(t *testing.T) {
	first := reading{wall: testTime, before: 0, after: time.Second} // suspended within
	for _, tt := range []struct {
		wall time.Duration
		want time.Duration
	}{
		{9 * time.Second, 0}, {10 * time.Second, 0}, // read at the end, read at the beginning
		{8 * time.Second, -time.Second}, {11 * time.Second, time.Second},
	} {
		next := reading{wall: testTime.Add(tt.wall), before: 10 * time.Second, after: 10 * time.Second}
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
	wantChanges(t, b, "-+")
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
	if _, err := b.Health(); err == nil || !strings.Contains(err.Error(), "not been read") {
		t.Errorf("ready before anybody has read the clock: %v", err)
	}
	granted(t, b)
	facts, err := b.Health()
	if err != nil || facts["clock"] != "system" || facts["clock_vouched"] != true || facts["policy"] != "0.4.0.2023.1.1" {
		t.Errorf("got %v, %v", facts, err)
	}
	b.clock.say(0, errors.New("not synchronised"))
	granted(t, b)
	if facts, err := b.Health(); err == nil || facts["clock_vouched"] != false {
		t.Errorf("ready without a clock: %v", facts)
	}
	b.clock.say(time.Millisecond, nil)
	b.clock.pass(400 * 24 * time.Hour)
	refused(t, b.ask(t, "data", nil))
	if _, err := b.Health(); err == nil || !strings.Contains(err.Error(), "may not sign after") {
		t.Errorf("ready with a key past its use: %v", err)
	}
	b.clock.pass(staleAfter + 1)
	if facts, err := b.Health(); err == nil || !strings.Contains(err.Error(), "last read 5s ago") || facts["clock_vouched"] != false {
		t.Errorf("ready though nobody reads the clock: %v", err)
	}
}

// TestHealthOnlyLooks has health append nothing, whatever has become of the clock, and tell of a journal that failed.
func TestHealthOnlyLooks(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	granted(t, b)
	before := b.journal.Size()
	b.clock.say(0, errors.New("not synchronised"))
	b.Health()
	if after := b.journal.Size(); after != before {
		t.Errorf("the journal grew from %d to %d entries", before, after)
	}
	b.journal.failed = journal.ErrFailed
	if _, err := b.Health(); !errors.Is(err, journal.ErrFailed) {
		t.Errorf("a failed journal: %v", err)
	}
}

// TestHealthWarns has every end be told of before it comes, while the authority is still ready.
func TestHealthWarns(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
		want   []string
	}{
		{"nothing", func(*x509.Certificate) {}, nil},
		{"key", func(c *x509.Certificate) { c.ExtraExtensions[1] = usageUntil(testTime.Add(warnBefore - time.Hour)) }, []string{"key may not sign after 2026-12-23"}},
		{"key, not yet", func(c *x509.Certificate) { c.ExtraExtensions[1] = usageUntil(testTime.Add(warnBefore + time.Hour)) }, nil},
		{"certificate", func(c *x509.Certificate) { c.NotAfter = testTime.Add(warnBefore - time.Hour) }, []string{"key may not sign after", "certificate ends at 2026-12-23"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, ca, template := newP256(t), newTestCA(t), tsuTemplate()
			tt.change(template)
			b := newBench(t, key, func(c *Config) { c.Unit = ca.unit(t, key, template) })
			granted(t, b)
			facts, err := b.Health()
			if err != nil {
				t.Error(err)
			}
			warnings, ok := facts["warnings"].([]string)
			if !ok || len(warnings) != len(tt.want) {
				t.Fatalf("warnings %q, want %d", facts["warnings"], len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.Contains(warnings[i], want) {
					t.Errorf("warning %q, want one with %q", warnings[i], want)
				}
			}
		})
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
