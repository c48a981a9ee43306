package ca

import (
	"context"
	"errors"
	"sync"
)

// rounds lets callers share CRLs: whoever comes while one is being made is on the next, and a
// thousand revocations at once cost two lists. No goroutine of its own: one of the waiting callers
// makes the list.
type rounds struct {
	mu   sync.Mutex
	next *round        // not begun: whoever joins it now will be on it; guarded by mu
	slot chan struct{} // holds a value while somebody makes a list
}

// round is one list and those who wait for it. crl and err are set before done is closed.
type round struct {
	done chan struct{}
	crl  CRL
	err  error
}

// errPanicked is the result of a round whose maker panicked.
var errPanicked = errors.New("the CRL was not made: its making ended in a panic")

func newRounds() rounds { return rounds{slot: make(chan struct{}, 1)} }

// share returns the result of a call of issue that began after share was called.
func (r *rounds) share(ctx context.Context, issue func(context.Context) (CRL, error)) (CRL, error) {
	mine := r.join()
	select {
	case r.slot <- struct{}{}:
		defer func() { <-r.slot }()
		if r.begin(mine) {
			defer close(mine.done)
			mine.err = errPanicked // what the others read should issue never return
			mine.crl, mine.err = issue(context.WithoutCancel(ctx))
		}
	case <-mine.done:
	case <-ctx.Done():
		return CRL{}, ctx.Err()
	}
	return mine.crl, mine.err
}

func (r *rounds) join() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	return r.next
}

// begin reports whether mine has yet to be made, and closes it to others.
func (r *rounds) begin(mine *round) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next != mine {
		return false // it was made while the caller waited for the slot
	}
	r.next = nil
	return true
}
