package hsm

import (
	"fmt"
	"sync"
	"time"
)

// traffic counts the calls that are inside a module for one token, and can hold new ones off. What those calls rely on
// (handles, the slot, that the library is initialised) changes only while it is held and nobody is inside.
type traffic struct {
	mu     sync.Mutex
	inside int
	held   chan struct{} // closed when the hold ends; nil without one
	empty  chan struct{} // closed when the last call has left; nil unless a holder waits
}

// enter waits while calls are held off, but no longer than patience.
func (t *traffic) enter() error {
	t.mu.Lock()
	for t.held != nil {
		held := t.held
		t.mu.Unlock()
		select {
		case <-held:
		case <-time.After(patience):
			return fmt.Errorf("%w: its repair takes longer than %v", ErrUnavailable, patience)
		}
		t.mu.Lock()
	}
	t.inside++
	t.mu.Unlock()
	return nil
}

func (t *traffic) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inside--
	if t.inside == 0 && t.empty != nil {
		close(t.empty)
		t.empty = nil
	}
}

// hold keeps new calls out and waits until deadline for those inside to leave. When it reports true the caller must release.
// There is one holder at a time.
func (t *traffic) hold(deadline time.Time) bool {
	t.mu.Lock()
	t.held = make(chan struct{})
	if t.inside == 0 {
		t.mu.Unlock()
		return true
	}
	empty := make(chan struct{})
	t.empty = empty
	t.mu.Unlock()
	select {
	case <-empty:
		return true
	case <-time.After(time.Until(deadline)):
	}
	t.mu.Lock()
	left := t.inside == 0
	t.empty = nil
	t.mu.Unlock()
	if !left {
		t.release()
	}
	return left
}

func (t *traffic) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.held)
	t.held = nil
}
