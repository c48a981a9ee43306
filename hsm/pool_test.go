package hsm

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/pkcs11"
)

// scriptedSessions is a token that opens at most limit sessions and counts.
type scriptedSessions struct {
	mu            sync.Mutex
	limit         int
	open, highest int
	next          pkcs11.SessionHandle
}

func (s *scriptedSessions) pool(size int) *pool {
	return &pool{busy: make(chan struct{}, size), maxWaiting: 1000, maxWait: maxWait,
		openSession: func() (pkcs11.SessionHandle, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.open >= s.limit {
				return 0, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)
			}
			s.open++
			s.highest = max(s.highest, s.open)
			s.next++
			return s.next, nil
		},
		closeSession: func(pkcs11.SessionHandle) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.open--
			return nil
		},
	}
}

// A token with fewer sessions to give than its pool may have makes callers wait, not fail, whatever else goes wrong.
func TestPoolShrinks(t *testing.T) {
	token := &scriptedSessions{limit: 3}
	p := token.pool(16)
	if err := p.run(func(pkcs11.SessionHandle) error { return nil }); err != nil {
		t.Fatal(err)
	}
	var calls, inUse atomic.Int64
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			for j := range 50 {
				err := p.run(func(pkcs11.SessionHandle) error {
					if inUse.Add(1) > 3 {
						t.Error("more calls at once than sessions")
					}
					defer inUse.Add(-1)
					calls.Add(1)
					if i == 0 && j%10 == 0 {
						return pkcs11.Error(pkcs11.CKR_DATA_LEN_RANGE) // the caller's fault: the session stays
					}
					return nil
				})
				if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_DATA_LEN_RANGE)) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if calls.Load() != 64*50 || token.highest > 3 || len(p.idle) != token.open || p.opened != token.open {
		t.Errorf("%d calls, %d sessions at most, %d open, %d idle", calls.Load(), token.highest, token.open, len(p.idle))
	}
	if err := p.close(); err != nil || token.open != 0 {
		t.Errorf("close: %v, %d sessions left", err, token.open)
	}
}

// A token that has no session at all to give is an error, and one that spoils every session leaks none.
func TestPoolFails(t *testing.T) {
	token := &scriptedSessions{}
	p := token.pool(2)
	for range 5 {
		if err := p.run(func(pkcs11.SessionHandle) error { return nil }); !errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) {
			t.Errorf("run without a session: %v", err)
		}
	}
	token.limit = 2
	for range 5 {
		fault := pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
		if err := p.run(func(pkcs11.SessionHandle) error { return fault }); !errors.Is(err, fault) {
			t.Errorf("run: %v, want %v", err, fault)
		}
		if token.open != 0 || p.opened != 0 || len(p.busy) != 0 {
			t.Errorf("%d sessions open, pool says %d, %d places taken", token.open, p.opened, len(p.busy))
		}
	}
}

// Places given up while another program held the sessions come back when it has let them go.
func TestPoolGrowsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := &scriptedSessions{limit: 2}
		p := token.pool(16)
		crowd := func() (most int) {
			var inUse atomic.Int64
			finish := make(chan struct{})
			var group sync.WaitGroup
			for range 16 {
				group.Go(func() {
					err := p.run(func(pkcs11.SessionHandle) error {
						inUse.Add(1)
						<-finish
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait() // all that can run wait for finish
			most = int(inUse.Load())
			close(finish)
			group.Wait()
			return most
		}
		if most := crowd(); most != 2 || len(p.busy) == 0 {
			t.Errorf("%d calls at once on 2 sessions, %d places given up", most, len(p.busy))
		}
		token.mu.Lock()
		token.limit = 16
		token.mu.Unlock()
		time.Sleep(giveBack)
		if most := crowd(); most != 16 || len(p.busy) != 0 {
			t.Errorf("%d calls at once on 16 sessions, %d places given up", most, len(p.busy))
		}
		if err := p.close(); err != nil || token.open != 0 {
			t.Errorf("close: %v, %d sessions left", err, token.open)
		}
	})
}

// Callers wait for a session, so many and so long; whoever would be one too many is told at once.
func TestPoolBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := &scriptedSessions{limit: 2}
		p := token.pool(2)
		p.maxWaiting = 3
		finish := make(chan struct{})
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				if err := p.run(func(pkcs11.SessionHandle) error { <-finish; return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		for range 3 {
			group.Go(func() {
				err := p.run(func(pkcs11.SessionHandle) error { t.Error("a call on no session"); return nil })
				if !errors.Is(err, ErrBusy) || time.Since(begin) != maxWait {
					t.Errorf("run: %v after %v; want ErrBusy after %v", err, time.Since(begin), maxWait)
				}
			})
		}
		synctest.Wait()
		if err := p.run(func(pkcs11.SessionHandle) error { return nil }); !errors.Is(err, ErrBusy) || time.Since(begin) != 0 {
			t.Errorf("one too many: %v after %v; want ErrBusy at once", err, time.Since(begin))
		}
		time.Sleep(maxWait + time.Second)
		if n := p.waiting.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
		close(finish)
		group.Wait()
		if err := p.run(func(pkcs11.SessionHandle) error { return nil }); err != nil {
			t.Errorf("run when all is quiet: %v", err)
		}
	})
}

// Idle sessions are asked about when it is time, those that nobody needs are closed, but for one, and one that is lost is told.
func TestPoolKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := &scriptedSessions{limit: 8}
		p := token.pool(8)
		crowd := func(n int) {
			finish := make(chan struct{})
			var group sync.WaitGroup
			for range n {
				group.Go(func() { _ = p.run(func(pkcs11.SessionHandle) error { <-finish; return nil }) })
			}
			synctest.Wait()
			close(finish)
			group.Wait()
		}
		asked := 0
		keep := func() error {
			asked = 0
			return p.keepAlive(time.Minute, func(pkcs11.SessionHandle) error { asked++; return nil })
		}
		crowd(4)
		if err := keep(); err != nil || asked != 0 {
			t.Errorf("%d sessions were asked about just after their use, %v", asked, err)
		}
		time.Sleep(time.Minute)
		crowd(1)
		if err := keep(); err != nil || asked != 3 {
			t.Errorf("%d idle sessions were asked about, %v; want 3", asked, err)
		}
		if err := keep(); err != nil || asked != 0 {
			t.Errorf("%d sessions were asked about once more, %v", asked, err)
		}
		time.Sleep(time.Minute)
		lost := pkcs11.Error(pkcs11.CKR_SESSION_HANDLE_INVALID)
		if err := p.keepAlive(time.Minute, func(pkcs11.SessionHandle) error { return lost }); !errors.Is(err, lost) || token.open != 3 || p.opened != 3 {
			t.Errorf("a lost session: %v, %d open, pool says %d", err, token.open, p.opened)
		}
		for range idleLives {
			time.Sleep(time.Minute)
			crowd(1)
			if err := keep(); err != nil {
				t.Error(err)
			}
		}
		if token.open != 1 || p.opened != 1 || len(p.idle) != 1 || len(p.busy) != 0 {
			t.Errorf("%d sessions are open after a long time with one caller, pool says %d, %d idle, %d places taken", token.open, p.opened, len(p.idle), len(p.busy))
		}
		time.Sleep(idleLives * time.Minute)
		if err := keep(); err != nil || token.open != 1 {
			t.Errorf("the last one: %d open, %v", token.open, err)
		}
	})
}
