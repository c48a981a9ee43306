package hsm

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	defaultKeepAlive = time.Minute
	// watchEvery is how often it is looked, in this process alone, whether there is something to do for a token.
	watchEvery = 500 * time.Millisecond
)

// keeper looks after tokens that nobody calls: it keeps their sessions alive, finds out what was lost meanwhile and has it repaired, and
// brings tokens back that were out of service. What it asks of a token runs on a goroutine of its own, one at a time for each token, because it
// may hang.
type keeper struct {
	begin sync.Once
	mu    sync.Mutex // guards what follows
	ended bool
	stop  chan struct{} // nil until it begins
	done  chan struct{}
}

// reach is how the keeper gets at a token: with the PIN of a key that was opened, and with no object.
type reach struct {
	uri    URI
	handle *handle
}

// reachable remembers u, by which the token was logged in to. The caller administers t.
func (t *token) reachable(u URI) {
	if t.reach.Load() == nil {
		nothing := func(pkcs11.SessionHandle) (object, error) { return 0, nil }
		t.reach.CompareAndSwap(nil, &reach{u, t.newHandle(0, nothing)})
	}
}

// start begins to look after tokens, unless end was called.
func (k *keeper) start(t *Tokens) {
	k.begin.Do(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.ended {
			return
		}
		k.stop, k.done = make(chan struct{}), make(chan struct{})
		go k.loop(t, k.stop, k.done)
	})
}

// end returns when nothing is begun any more.
func (k *keeper) end() {
	k.mu.Lock()
	k.ended = true
	stop, done := k.stop, k.done
	k.stop = nil
	k.mu.Unlock()
	if stop != nil {
		close(stop)
		<-done
	}
}

func (k *keeper) loop(t *Tokens, stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for _, token := range t.watch.all() {
			token.tellState()
			if token.needsCare(t.config.KeepAlive) {
				t.inBackground(&token.tended, func() { token.tend(t.config.KeepAlive) })
			}
		}
		_, groups := t.watch.keys()
		for _, g := range groups {
			g.tend()
		}
	}
}

// inBackground runs do, unless flag says that it runs already, or the tokens are closed.
func (t *Tokens) inBackground(flag *atomic.Bool, do func()) {
	if !flag.CompareAndSwap(false, true) {
		return
	}
	if err := t.gate.enter(); err != nil {
		flag.Store(false)
		return
	}
	go func() {
		defer t.gate.leave()
		defer flag.Store(false)
		do()
	}()
}

// needsCare asks nothing of the token.
func (t *token) needsCare(every time.Duration) bool {
	switch o := t.breaker.now.Load(); {
	case t.reach.Load() == nil || t.trust.check() != nil:
		return false
	case o != nil:
		return time.Now().After(o.until)
	}
	return time.Since(time.Unix(0, t.kept.Load())) >= every/2
}

// tend asks the token about its idle sessions, the administrative one among them. What it finds lost is repaired as any call would.
func (t *token) tend(every time.Duration) {
	t.kept.Store(time.Now().UnixNano())
	r := t.reach.Load()
	if t.breaker.now.Load() == nil {
		err := t.pool.keepAlive(every, func(session pkcs11.SessionHandle) error { return t.ask(r.uri, session) })
		if err == nil {
			err = t.administer(r.uri, func(session pkcs11.SessionHandle) error { return t.ask(r.uri, session) })
		}
		if err == nil {
			return
		}
	}
	// The error, where there is one, opens the breaker, and Health tells of it.
	_ = t.run(r.uri, r.handle, func(session pkcs11.SessionHandle, _ object) error { return t.ask(r.uri, session) })
}

// ask is the cheapest question: C_GetSessionInfo, which also says whether the login holds.
func (t *token) ask(u URI, session pkcs11.SessionHandle) error {
	info, err := t.ctx.GetSessionInfo(session)
	if err == nil && u.hasPIN() && (info.State == pkcs11.CKS_RO_PUBLIC_SESSION || info.State == pkcs11.CKS_RW_PUBLIC_SESSION) {
		err = pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	return err
}

// tellState logs when the token goes out of service, and when it is back.
func (t *token) tellState() {
	o := t.breaker.now.Load()
	if was := t.toldOut.Load(); was == (o != nil) {
		return
	}
	t.toldOut.Store(o != nil)
	if o != nil {
		t.module.watch.log.Warn("a token is out of service", "token", t.name(), "cause", o.cause.Error())
		return
	}
	t.module.watch.log.Info("a token is in service again", "token", t.name())
}

// tend has members tried that were left out while nobody signs with the group.
func (g *group) tend() {
	if time.Since(time.Unix(0, g.signed.Load())) < freshness {
		return // probe does it
	}
	for _, m := range g.members {
		o := m.breaker.now.Load()
		if o == nil || time.Now().Before(o.until) || m.lost.Load() {
			continue
		}
		g.owner.inBackground(&m.probing, func() {
			admitted, err := m.breaker.admit()
			if err != nil || admitted == nil {
				return
			}
			if err := g.look(m); err != nil {
				g.leaveOut(m, admitted, err)
				return
			}
			g.takeBack(m)
		})
	}
}

// look reports whether m's token answers. It signs nothing.
func (g *group) look(m *member) error {
	k := m.key.Load()
	if k == nil {
		return g.join(m)
	}
	switch k := k.private.(type) {
	case *tokenKey:
		return k.token.run(k.uri, k.private, func(session pkcs11.SessionHandle, _ object) error { return k.token.ask(k.uri, session) })
	case *softKey:
		return k.trust.check()
	}
	return errors.New("a key of no kind")
}
