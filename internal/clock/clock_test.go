package clock

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func kernel(state int, x unix.Timex, err error) func(*unix.Timex) (int, error) {
	return func(into *unix.Timex) (int, error) {
		if into.Modes != 0 {
			return 0, errors.New("the clock was to be changed, not read")
		}
		*into = x
		return state, err
	}
}

func at(clock string) unix.Timeval {
	t, err := time.Parse(time.DateTime, "2026-12-31 "+clock)
	if err != nil {
		panic(err)
	}
	return unix.Timeval{Sec: t.Unix()}
}

func TestSystem(t *testing.T) {
	noon := at("12:00:00")
	for _, test := range []struct {
		name  string
		state int
		x     unix.Timex
		err   error
		want  string        // of the error; empty: vouched for
		acc   time.Duration // then
	}{
		{name: "good", x: unix.Timex{Time: noon, Maxerror: 1500}, acc: 1501 * time.Microsecond},
		{name: "good, nanoseconds", x: unix.Timex{Time: noon, Status: staNano, Maxerror: 1500}, acc: 1500*time.Microsecond + 1},
		{name: "at the limit", x: unix.Timex{Time: noon, Maxerror: 999_999}, acc: time.Second},
		{name: "past the limit", x: unix.Timex{Time: noon, Maxerror: 1_000_000}, want: "it may be off by 1.000001s, the policy allows 1s"},
		{name: "correction counts", x: unix.Timex{Time: noon, Offset: -2_000, Maxerror: 1500}, acc: 3501 * time.Microsecond},
		{name: "correction past the limit", x: unix.Timex{Time: noon, Offset: 1_000_000}, want: "may be off"},
		{name: "senseless bound", x: unix.Timex{Time: noon, Maxerror: -1}, want: "may be off"},
		{name: "unsynchronised state", state: timeError, x: unix.Timex{Time: noon}, want: "not synchronised"},
		{name: "unsynchronised status", x: unix.Timex{Time: noon, Status: staUnsync}, want: "not synchronised"},
		{name: "system call fails", err: unix.EPERM, want: "operation not permitted"},
		{name: "leap announced, noon", state: timeIns, x: unix.Timex{Time: noon}, acc: time.Microsecond},
		{name: "leap announced, two seconds before", state: timeIns, x: unix.Timex{Time: at("23:59:58")}, acc: time.Microsecond},
		{name: "leap announced, last second", state: timeIns, x: unix.Timex{Time: at("23:59:59")}, want: "leap second"},
		{name: "leap second", state: timeOOP, x: unix.Timex{Time: at("23:59:59")}, want: "leap second"},
		{name: "second after", state: timeWait, x: unix.Timex{Time: at("00:00:00")}, want: "leap second"},
		{name: "two seconds after", state: timeWait, x: unix.Timex{Time: at("00:00:01")}, acc: time.Microsecond},
		{name: "removal announced, three seconds before", state: timeDel, x: unix.Timex{Time: at("23:59:57")}, acc: time.Microsecond},
		{name: "removal announced, last second", state: timeDel, x: unix.Timex{Time: at("23:59:58")}, want: "leap second"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &system{limit: time.Second, adjtimex: kernel(test.state, test.x, test.err)}
			got, accuracy, err := c.Now()
			if test.want != "" {
				if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("error %v, want one with %q", err, test.want)
				}
				if !got.IsZero() {
					t.Errorf("a time came with the refusal: %v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if accuracy != test.acc {
				t.Errorf("accuracy %v, want %v", accuracy, test.acc)
			}
			if got.Unix() != test.x.Time.Sec || got.Location() != time.UTC {
				t.Errorf("time %v", got)
			}
		})
	}
}

func TestSystemReadsFractions(t *testing.T) {
	micro := &system{time.Second, kernel(0, unix.Timex{Time: unix.Timeval{Sec: 1, Usec: 250_000}}, nil)}
	nano := &system{time.Second, kernel(0, unix.Timex{Status: staNano, Time: unix.Timeval{Sec: 1, Usec: 250_000_000}}, nil)}
	for _, c := range []Clock{micro, nano} {
		got, _, err := c.Now()
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Unix(1, 250_000_000); !got.Equal(want) {
			t.Errorf("time %v, want %v", got, want)
		}
	}
}

// TestSystemOnThisMachine holds whatever this machine's time daemon does: the real system call either
// refuses or tells the time that Go tells.
func TestSystemOnThisMachine(t *testing.T) {
	got, accuracy, err := System(time.Hour).Now()
	if err != nil {
		if !errors.Is(err, ErrRefused) {
			t.Error(err)
		}
		return
	}
	if d := time.Since(got).Abs(); d > time.Minute {
		t.Errorf("%v away from the time package", d)
	}
	if accuracy <= 0 || accuracy > time.Hour {
		t.Errorf("accuracy %v", accuracy)
	}
}

func TestParse(t *testing.T) {
	c, err := Parse("system", time.Second)
	if err != nil || IsUnverified(c) {
		t.Errorf("system: %v, unverified %v", err, IsUnverified(c))
	}
	c, err = Parse("unverified", time.Second)
	if err != nil || !IsUnverified(c) {
		t.Errorf("unverified: %v, unverified %v", err, IsUnverified(c))
	}
	for _, name := range []string{"", "System", "ntp"} {
		if c, err := Parse(name, time.Second); err == nil {
			t.Errorf("%q made %v", name, c)
		}
	}
}

func TestStateOf(t *testing.T) {
	good := StateOf(&system{time.Second, kernel(0, unix.Timex{}, nil)})
	if !good.Vouched || good.Clock != "system" || good.Accuracy == "" || good.Reason != "" {
		t.Errorf("good clock: %+v", good)
	}
	bad := StateOf(&system{time.Second, kernel(timeError, unix.Timex{}, nil)})
	if bad.Vouched || bad.Reason == "" || bad.Accuracy != "" {
		t.Errorf("clock that refuses: %+v", bad)
	}
	demo := StateOf(Unverified(time.Second))
	if demo.Vouched || demo.Clock != "unverified" || demo.Reason == "" || demo.Accuracy != "1s" {
		t.Errorf("unverified clock: %+v", demo)
	}
}

func ExampleUnverified() {
	_, accuracy, err := Unverified(time.Second).Now()
	fmt.Println(accuracy, err)
	// Output: 1s <nil>
}

func BenchmarkSystem(b *testing.B) {
	c := System(time.Hour)
	for b.Loop() {
		c.Now()
	}
}
