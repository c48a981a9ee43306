package tsa

import (
	"context"
	"crypto"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// liveClock runs with the time package, ahead of it.
type liveClock struct{ ahead time.Duration }

func (c liveClock) Now() (time.Time, time.Duration, error) {
	return time.Now().Add(c.ahead), 2 * time.Millisecond, nil
}

// newLive makes a bench whose clock runs, from testTime on.
func newLive(t *testing.T, key crypto.Signer, slots int) *bench {
	return newBench(t, key, func(c *Config) { c.Clock, c.Slots = liveClock{time.Until(testTime)}, slots })
}

// TestQueueForTheKey has requests that wait for a slow key get the time at which their turn came, and those who would wait
// too long be told so.
func TestQueueForTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var atOnce, most atomic.Int32
		key := &atKey{Signer: newP256(t), during: func() {
			most.Store(max(most.Load(), atOnce.Add(1)))
			time.Sleep(900 * time.Millisecond)
			atOnce.Add(-1)
		}}
		b := newLive(t, key, 2)
		ahead := time.Until(testTime)
		done := make(chan bool)
		const requests = 20
		for range requests {
			go func() {
				began := time.Now()
				ts, err := Verify(b.ask(t, "data", nil), VerifyOptions{Roots: b.ca.roots()})
				var r *Rejection
				if errors.As(err, &r) {
					if waited := time.Since(began); waited != maxWait || r.FailInfo[0] != SystemFailure || !strings.Contains(r.StatusString, "busy") {
						t.Errorf("after %v: %v", waited, r)
					}
				} else if err != nil {
					t.Error(err)
				} else if late := time.Now().Add(ahead).Sub(ts.GenTime); late < 0 || late > ts.Accuracy {
					t.Errorf("the token was made %v after its genTime", late)
				}
				done <- err == nil
			}()
		}
		tokens := 0
		for range requests {
			if <-done {
				tokens++
			}
		}
		// Two at a time, one every 900 ms: those who begin within 5 s.
		if tokens != 12 || most.Load() != 2 {
			t.Errorf("%d tokens, %d at once; want 12 and 2", tokens, most.Load())
		}
	})
}

// TestClientHangsUpInQueue has a client that went away leave the queue at once, and the key not work for it.
func TestClientHangsUpInQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var signatures atomic.Int32
		release := make(chan struct{})
		key := &atKey{Signer: newP256(t), during: func() { signatures.Add(1); <-release }}
		b := newLive(t, key, 1)
		first := make(chan []byte)
		go func() { first <- b.ask(t, "data", nil) }()
		synctest.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		second := make(chan []byte)
		go func() { second <- b.Respond(ctx, goodRequest().marshal()) }()
		synctest.Wait()
		cancel()
		refused(t, <-second)
		refused(t, b.Respond(ctx, goodRequest().marshal())) // one that had gone before it began
		close(release)
		if _, err := ParseResponse(<-first); err != nil {
			t.Error(err)
		}
		refused(t, b.Respond(ctx, goodRequest().marshal())) // even where there is a place
		if n := signatures.Load(); n != 1 {
			t.Errorf("%d signatures, want 1", n)
		}
	})
}

// TestQueueBehindJournal has nobody keep a place at the key while waiting for the journal: tokens share its commits.
func TestQueueBehindJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLive(t, newP256(t), 1)
		b.ask(t, "data", nil)
		slow := &slowJournal{memory: b.journal}
		b.Authority.journal = slow
		began := time.Now()
		done := make(chan []byte)
		for range 64 {
			go func() { done <- b.ask(t, "data", nil) }()
		}
		for range 64 {
			if _, err := ParseResponse(<-done); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != commit {
			t.Errorf("64 tokens took %v, one commit takes %v", took, commit)
		}
	})
}

// commit is how long a slowJournal takes.
const commit = 100 * time.Millisecond

// slowJournal has many appends share a slow disk.
type slowJournal struct{ *memory }

func (s *slowJournal) Append(ctx context.Context, e journal.Event) (journal.Entry, error) {
	time.Sleep(commit)
	return s.memory.Append(ctx, e)
}
