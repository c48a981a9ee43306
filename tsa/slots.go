package tsa

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// defaultSlots keep a device busy that is some way off, and let a software token, which signs on the daemon's own processors, leave
// something of them to the rest.
func defaultSlots() int { return min(4*runtime.GOMAXPROCS(0), 64) }

// maxWait is the longest that a request waits for a place at the key. A client that is told to come again later is
// better off than one that gives up waiting: for that one the key still works.
const maxWait = 5 * time.Second

// slots are the places at the key: whoever has taken one signs without waiting for others.
type slots chan struct{}

func newSlots(n int) slots {
	if n <= 0 {
		n = defaultSlots()
	}
	return make(slots, n)
}

// take waits for a place, first come, first served: until ctx ends, or maxWait has passed (errBusy).
func (s slots) take(ctx context.Context) error {
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case s <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for the key: %w", ctx.Err())
	case <-timer.C:
		return errBusy
	}
	if err := ctx.Err(); err != nil { // both were ready
		s.free()
		return fmt.Errorf("wait for the key: %w", err)
	}
	return nil
}

// free gives a place back.
func (s slots) free() { <-s }
