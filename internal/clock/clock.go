// Package clock tells UTC and how far it may be off, or refuses.
//
// It asks the kernel, which knows what the time daemon (chronyd, ntpd, ptp4l with phc2sys) has told it: whether the
// clock is disciplined, and the greatest error it may have. The kernel lets that bound grow between corrections
// and withdraws its word when anybody sets the clock, so that a daemon that died or a clock that was moved is seen.
// The time daemon must not smear leap seconds: smeared time is not UTC (EN 319 421 TIS-7.7.2-07).
package clock

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells UTC. accuracy is the greatest error the clock may have now. An error means: do not put a
// time into anything that is signed. Safe for concurrent use. (tsa.Clock is the same method set.)
type Clock interface {
	Now() (t time.Time, accuracy time.Duration, err error)
}

// ErrRefused is wrapped by every error of Now: nobody vouches for the clock at this moment.
var ErrRefused = errors.New("the clock cannot be vouched for")

// System is the system clock with the kernel's word on it (adjtimex(2)): it refuses while the kernel says
// STA_UNSYNC/TIME_ERROR, around a leap second, which time.Time cannot tell from its neighbour, and while the
// kernel's maxerror exceeds limit. accuracy is never more than limit. Linux only.
func System(limit time.Duration) Clock {
	return &system{limit: limit, adjtimex: unix.Adjtimex}
}

// Unverified is the wall clock without anybody's word on it, for demos and tests: it claims accuracy.
func Unverified(accuracy time.Duration) Clock { return unverified{accuracy} }

// IsUnverified reports whether c came from Unverified, so that whatever shows a state can say so.
func IsUnverified(c Clock) bool {
	_, ok := c.(unverified)
	return ok
}

// Parse makes the clock a config names: "system" (which refuses beyond limit) or "unverified" (which claims limit).
func Parse(name string, limit time.Duration) (Clock, error) {
	switch name {
	case "system":
		return System(limit), nil
	case "unverified":
		return Unverified(limit), nil
	case "":
		return nil, errors.New(`choose clock: none is named: write "clock: system", or for demos and tests "clock: unverified"`)
	}
	return nil, fmt.Errorf("choose clock: %q is none: system or unverified", name)
}

// State is what a status page shows of a clock.
type State struct {
	Clock    string `json:"clock"`              // system or unverified
	Vouched  bool   `json:"vouched"`            // false for an unverified clock, and for one that refuses
	Accuracy string `json:"accuracy,omitempty"` // Go duration; absent while the clock refuses
	Reason   string `json:"reason,omitempty"`   // why it is not vouched for
}

// StateOf reads c once.
func StateOf(c Clock) State {
	state := State{Clock: "system"}
	if IsUnverified(c) {
		state = State{Clock: "unverified", Reason: "nobody vouches for this clock: for demos and tests only"}
	}
	_, accuracy, err := c.Now()
	if err != nil {
		state.Reason = err.Error()
		return state
	}
	state.Vouched = !IsUnverified(c)
	state.Accuracy = accuracy.String()
	return state
}

type unverified struct{ accuracy time.Duration }

func (u unverified) Now() (time.Time, time.Duration, error) {
	return time.Now().UTC(), u.accuracy, nil
}

type system struct {
	limit    time.Duration
	adjtimex func(*unix.Timex) (state int, err error) // the system call; a test puts its own here
}

// Clock states and status bits of adjtimex(2), <linux/timex.h>.
const (
	timeIns   = 1 // a leap second will be inserted after 23:59:59 of this UTC day
	timeDel   = 2 // 23:59:59 of this UTC day will be left out
	timeOOP   = 3 // the inserted leap second is now
	timeWait  = 4 // a leap second has been; the time daemon has not cleared its announcement yet
	timeError = 5 // not synchronised

	staUnsync = 0x0040
	staNano   = 0x2000 // Time and Offset count nanoseconds
)

// Now reads time and error bound in one system call, so that they belong to the same moment.
func (s *system) Now() (time.Time, time.Duration, error) {
	var x unix.Timex
	state, err := s.adjtimex(&x)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("%w: ask the kernel (adjtimex): %w", ErrRefused, err)
	}
	if state == timeError || x.Status&staUnsync != 0 {
		return time.Time{}, 0, fmt.Errorf("%w: the kernel says it is not synchronised: see that chronyd or another time daemon runs and has a source (`chronyc tracking`)", ErrRefused)
	}
	unit := time.Microsecond
	if x.Status&staNano != 0 {
		unit = time.Nanosecond
	}
	t := time.Unix(x.Time.Sec, x.Time.Usec*int64(unit)).UTC()
	if held(state, t) {
		return time.Time{}, 0, fmt.Errorf("%w: a leap second is near: UTC cannot be told apart for some seconds (EN 319 421 TIS-7.7.2-07)", ErrRefused)
	}
	// maxerror is in microseconds whatever staNano says. What the kernel has still to correct (offset) is an
	// error known to exist; the last unit of the reading is one too.
	accuracy := time.Duration(x.Maxerror)*time.Microsecond + time.Duration(x.Offset).Abs()*unit + unit
	if x.Maxerror < 0 || accuracy > s.limit {
		return time.Time{}, 0, fmt.Errorf("%w: it may be off by %v, the policy allows %v: see the time daemon's sources (`chronyc sources`)", ErrRefused, accuracy, s.limit)
	}
	return t, accuracy, nil
}

// held reports whether t is so near to a leap second that its second may not be unique in UTC: the second before,
// the leap second itself, during which the kernel tells 23:59:59 again, and the second after.
func held(state int, t time.Time) bool {
	const day = 24 * time.Hour
	sinceMidnight := t.Sub(t.Truncate(day))
	switch state {
	case timeOOP:
		return true
	case timeIns:
		return sinceMidnight >= day-time.Second
	case timeDel: // 23:59:58 is the day's last second
		return sinceMidnight >= day-2*time.Second
	case timeWait:
		return sinceMidnight < time.Second
	}
	return false
}
