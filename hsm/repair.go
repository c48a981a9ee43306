package hsm

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

const (
	// patience bounds what a call waits for repairs, its own and others'. What the module itself takes for a call comes on top, up to
	// the limit of the call.
	patience = 2 * time.Second
	// firstPause and longestPause are how long a token is left alone after a repair in vain. The pause doubles each time. With the longest
	// one, a token that is back is noticed within a second.
	firstPause   = 100 * time.Millisecond
	longestPause = 500 * time.Millisecond
	// quietTime is how long other tokens of a module, which work, are spared another C_Initialize, unless it is known to help.
	quietTime = 10 * time.Second
)

// errNotFoundAgain marks that an object which was there when it was opened is not found after a repair.
var errNotFoundAgain = errors.New("the key is no longer on the token")

// errHangs is why a repair cannot begin: nothing that calls rely on may change under one.
var errHangs = errors.New("a call into the module does not return, so the module cannot be initialised again (isolation: process can)")

// handle is an object that is found again after each repair.
type handle struct {
	// find looks the object up and makes sure that it is the one that was opened.
	find    func(pkcs11.SessionHandle) (object, error)
	at      atomic.Pointer[place]
	missing breaker // keeps a key that is gone from costing the others of its token a login with each call
}

// place is where an object is as long as its token is not repaired.
type place struct {
	object object
	epoch  uint64 // of the token
}

// newHandle is for an object that was found a moment ago. The caller administers t.
func (t *token) newHandle(o object, find func(pkcs11.SessionHandle) (object, error)) *handle {
	h := &handle{find: find}
	h.at.Store(&place{o, t.epoch.Load()})
	return h
}

// in returns where h is now. The caller administers t.
func (h *handle) in(t *token, session pkcs11.SessionHandle) (*place, error) {
	epoch := t.epoch.Load()
	if at := h.at.Load(); at.epoch == epoch {
		return at, nil
	}
	o, err := h.find(session)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("%w: %w", errNotFoundAgain, err)
	case err != nil:
		return nil, err
	}
	at := &place{o, epoch}
	h.at.Store(at)
	return at, nil
}

// run calls use with a session and the object of h, and repairs what stands in the way. use may be called several times; it
// must not matter when only the last one counts.
func (t *token) run(u URI, h *handle, use func(pkcs11.SessionHandle, object) error) error {
	if err := t.trust.check(); err != nil {
		return err
	}
	missing, err := h.missing.admit()
	if err != nil {
		return err
	}
	admitted, err := t.breaker.admit()
	if err != nil {
		return err
	}
	found, err := t.persist(admitted, func() (uint64, error) { return t.try(u, h, use) })
	switch found {
	case foundWell:
		h.missing.mend()
	case foundNoKey:
		h.missing.trip(missing, err)
	case foundBroken:
		t.breaker.trip(admitted, err)
	}
	return err
}

// lookUp calls use with the administrative session, after the login that u's PIN allows, and repairs what stands in the way. use may be
// called several times, so it only reads.
func (t *token) lookUp(u URI, use func(pkcs11.SessionHandle) error) error {
	_, err := t.persist(t.breaker.now.Load(), func() (epoch uint64, err error) {
		epoch = t.epoch.Load()
		return epoch, t.withAdmin(u, use)
	})
	return err
}

// finding is what a call says of its token.
type finding int

const (
	foundNothing finding = iota // the call was turned down
	foundWell
	foundNoKey  // the token is well, and the key is not on it
	foundBroken // repairs did not help
)

// persist is the one place where something is tried again: once each repair has been made, from the smallest that may help up. once returns the
// epoch in which it was tried. What repairs do not help against is ErrUnavailable.
func (t *token) persist(admitted *outage, once func() (epoch uint64, err error)) (finding, error) {
	if err := t.checkStuck(); err != nil {
		return foundNothing, err
	}
	epoch, err := once()
	if err == nil {
		t.breaker.mend()
		return foundWell, nil
	}
	if hangs(err) != nil {
		return foundBroken, t.setAside(err)
	}
	need := faultOf(err).firstRepair()
	if need == repairNothing {
		return foundNothing, withRemedy(err)
	}
	deadline := time.Now().Add(patience)
	for need <= repairModule && time.Now().Before(deadline) {
		done, failed := t.repair(attempt{need, epoch, admitted, deadline})
		if done && failed == nil {
			t.counts.repaired(need)
		}
		if failed != nil {
			err = fmt.Errorf("%w; repair: %w", err, failed)
			need++
			continue
		}
		if epoch, err = once(); err == nil {
			t.breaker.mend()
			return foundWell, nil
		}
		if hangs(err) != nil {
			return foundBroken, t.setAside(err)
		}
		first := faultOf(err).firstRepair()
		if done && need >= repairLogin && errors.Is(err, errNotFoundAgain) {
			return foundNoKey, fmt.Errorf("%w: %w", ErrUnavailable, withRemedy(err))
		}
		if first == repairNothing {
			return foundNothing, withRemedy(err)
		}
		if done {
			need++
		}
		need = max(need, first)
	}
	return foundBroken, fmt.Errorf("%w: %w", ErrUnavailable, withRemedy(err))
}

// setAside is what is done about a call that has not returned: no other is sent after it on the sessions there are.
func (t *token) setAside(err error) error {
	t.leftover.add(t.pool.setAside()...)
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// try is one attempt. epoch is the one in which it was made.
func (t *token) try(u URI, h *handle, use func(pkcs11.SessionHandle, object) error) (epoch uint64, err error) {
	for {
		at := h.at.Load()
		if epoch = t.epoch.Load(); at.epoch != epoch {
			err := t.withAdmin(u, func(session pkcs11.SessionHandle) (err error) {
				at, err = h.in(t, session)
				return err
			})
			if err != nil {
				t.counts.failed(err)
				return epoch, err
			}
		}
		stale := false
		err = t.pool.run(func(session pkcs11.SessionHandle) error {
			if err := t.trust.check(); err != nil {
				return err // also who waited for a session while it was lost
			}
			if stale = at.epoch != t.epoch.Load(); stale {
				return nil // repaired since: the handle may name another key by now
			}
			return use(session, at.object)
		})
		if !stale {
			t.counts.failed(err)
			return at.epoch, err
		}
	}
}

// attempt is one repair.
type attempt struct {
	need     repair
	epoch    uint64    // in which the call failed
	admitted *outage   // what the breaker knew when the call began
	deadline time.Time // for the wait until others are out of the way
}

// repair makes anew what is needed. It reports false when somebody else has done something since the call failed. One repair
// runs at a time per module.
func (t *token) repair(a attempt) (done bool, err error) {
	if a.need == repairSession {
		return true, t.pool.drop()
	}
	select {
	case t.module.repairing <- struct{}{}:
	case <-time.After(time.Until(a.deadline)):
		return false, errors.New("another call's repair takes too long")
	}
	defer func() { <-t.module.repairing }()
	if t.epoch.Load() != a.epoch {
		return false, nil
	}
	if o := t.breaker.now.Load(); o != nil && o != a.admitted {
		return false, o.refusal() // others have just tried in vain
	}
	if a.need == repairModule {
		return true, t.module.reinitialise(t, a.deadline)
	}
	if !t.pool.traffic.hold(a.deadline.Add(-patience / 2)) { // the other half is for the module
		return false, errHangs
	}
	defer t.pool.traffic.release()
	t.forget(true)
	return true, nil
}

// forget ends what was built on the module's state, so that each call builds it anew. tell: the sessions are closed now. Nobody
// is inside.
func (t *token) forget(tell bool) {
	t.admin.Lock()
	defer t.admin.Unlock()
	sessions := t.pool.forget()
	if t.loggedIn {
		sessions = append(sessions, t.session)
	}
	t.loggedIn = false
	t.epoch.Add(1)
	if !tell {
		t.leftover.add(sessions...)
		return
	}
	for _, session := range sessions {
		_ = t.closeSession(session) // it may be gone already
	}
}

// reinitialise does C_Finalize and C_Initialize for all tokens of m. broken is the one that needs it. The caller holds m.repairing.
func (m *module) reinitialise(broken *token, deadline time.Time) error {
	if !m.owned {
		return errors.New("the module was initialised by another part of this process, which alone may do so again")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.ctx.GetInfo()
	if m.ctx.Stuck() > 0 {
		return errHangs
	}
	down := faultOf(err) == faultModule // then no token works
	if broken == nil && !down {
		return nil
	}
	for _, t := range m.tokens {
		if !down && t != broken && t.breaker.now.Load() == nil && time.Since(m.initialised) < quietTime && !m.isBack(broken) {
			return fmt.Errorf("the module was initialised less than %v ago, and token %q works", quietTime, t.label)
		}
	}
	for _, t := range m.tokens {
		if !t.hold(deadline) {
			return errHangs
		}
		defer t.pool.traffic.release()
	}
	for _, t := range m.tokens {
		t.forget(false)
	}
	m.initialised = time.Now()
	finalized := m.ctx.Finalize()
	if hangs(finalized) != nil {
		return fmt.Errorf("C_Finalize: %w", finalized)
	}
	err = m.ctx.Initialize()
	if finalized == nil || err == nil {
		for _, t := range m.tokens {
			t.leftover.forget() // the sessions of a library that begins anew are gone
		}
	}
	if err != nil {
		if finalized != nil {
			return fmt.Errorf("initialise PKCS#11 module %s again: C_Initialize: %w, after C_Finalize: %w", m.path, err, finalized)
		}
		return fmt.Errorf("initialise PKCS#11 module %s again: C_Initialize: %w", m.path, err)
	}
	return m.findTokens(broken)
}

// isBack reports whether t, which the library does not see, would be seen by one that begins anew: one in another process, because the tokens that
// work are not to be disturbed for a look. With isolation: none nobody can look.
func (m *module) isBack(t *token) bool {
	if m.another == nil || shows(m.ctx, t) {
		return false
	}
	beside := m.another()
	if err := beside.Initialize(); err != nil {
		return false
	}
	back := shows(beside, t)
	return beside.Finalize() == nil && back
}

// shows reports whether the library has t in a slot.
func shows(l cryptoki.Library, t *token) bool {
	slots, err := l.GetSlotList(true)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(slots, func(slot uint) bool {
		info, err := l.GetTokenInfo(slot)
		return err == nil && t.is(info)
	})
}

// is reports whether info is that of t.
func (t *token) is(info pkcs11.TokenInfo) bool {
	return info.SerialNumber == t.info.SerialNumber && info.Label == t.info.Label && info.Model == t.info.Model && info.ManufacturerID == t.info.ManufacturerID
}

// holdFirst is how long a repair waits for calls that it can end.
const holdFirst = 200 * time.Millisecond

// hold is traffic.hold, which ends the calls inside where they can be ended: their callers try again.
func (t *token) hold(deadline time.Time) bool {
	if t.pool.traffic.hold(time.Now().Add(min(holdFirst, time.Until(deadline)))) {
		return true
	}
	t.ctx.Abort(errors.New("the module has to be initialised again, and a call into it does not return"))
	return t.pool.traffic.hold(deadline)
}

// findTokens finds the slots of the module's tokens again: they may have changed. Only wanted has to be there.
func (m *module) findTokens(wanted *token) error {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("list slots of PKCS#11 module %s: C_GetSlotList: %w", m.path, err)
	}
	found := make(map[*token]uint)
	for _, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		if faultOf(err) == faultModule || hangs(err) != nil {
			return fmt.Errorf("C_GetTokenInfo: %w", err)
		}
		if err != nil {
			continue // no token to talk to
		}
		for _, t := range m.tokens {
			if t.is(info) {
				found[t] = slot
			}
		}
	}
	tokens := make(map[uint]*token)
	for _, t := range m.tokens {
		if slot, ok := found[t]; ok {
			t.slot = slot
		}
		tokens[t.slot] = t
	}
	if len(tokens) == len(m.tokens) { // else two claim one slot, until the missing one is back
		m.tokens = tokens
	}
	if _, ok := found[wanted]; !ok && wanted != nil {
		return fmt.Errorf("token %q is in no slot: %w", wanted.label, ErrNotFound)
	}
	return nil
}

// breaker keeps calls from a token that could not be repaired, for a while that grows.
type breaker struct {
	mu  sync.Mutex
	now atomic.Pointer[outage] // nil: the token works
}

// outage is never changed, only replaced.
type outage struct {
	until  time.Time
	pause  time.Duration
	inside time.Duration // how long a call may take that is sent to see whether it is over, where it may not return
	cause  error
}

func (o *outage) refusal() error {
	return fmt.Errorf("%w: tried again in %v at most: %w", ErrUnavailable, o.pause, o.cause)
}

// admit refuses calls during a pause. After it one call is let through, with the outage that it is to end; the others are
// refused for another pause, or until that call has ended it.
func (b *breaker) admit() (*outage, error) {
	if b.now.Load() == nil {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.now.Load()
	if o == nil {
		return nil, nil
	}
	if time.Now().Before(o.until) {
		return nil, o.refusal()
	}
	probe := &outage{time.Now().Add(o.pause + o.inside), o.pause, o.inside, o.cause}
	b.now.Store(probe)
	return probe, nil
}

// trip begins a pause, unless one has begun since the call was admitted that failed.
func (b *breaker) trip(admitted *outage, cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.Load() != admitted {
		return
	}
	pause := firstPause
	if admitted != nil {
		pause = min(2*admitted.pause, longestPause)
	}
	o := &outage{until: time.Now().Add(pause), pause: pause, cause: cause}
	if hung := hangs(cause); hung != nil {
		// One thread at a time is enough to lose, and many are a reason to ask less often.
		o.inside = hung.Limit + min(time.Duration(hung.Stuck)*longestPause/2, 30*time.Second)
	}
	b.now.Store(o)
}

// mend ends the outage.
func (b *breaker) mend() {
	if b.now.Load() != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.now.Store(nil)
	}
}
