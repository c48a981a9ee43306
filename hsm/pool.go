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

// pool is the bounded set of read-only sessions that signatures of one token run on. A session runs one call at a time
// (PKCS#11 §5.2 forbids more). Sessions are opened when they are first needed, and closed when they were not needed for long; callers wait
// when all are busy, so many at most, and not for ever. Login and logout are the token's affair: they hold for the process, not for a session.
type pool struct {
	openSession  func() (pkcs11.SessionHandle, error)
	closeSession func(pkcs11.SessionHandle) error
	lose         func(pkcs11.SessionHandle, *cryptoki.HungError) // instead, while a call is inside it
	busy         chan struct{}                                   // one place per session that may be in use
	traffic      traffic                                         // of the token: calls on this pool and on the administrative session

	waiting    atomic.Int64 // callers without a place
	maxWaiting int64
	maxWait    time.Duration

	mu     sync.Mutex
	idle   []idleSession // the last one used is the first one reused, so that a quiet daemon opens few
	opened int           // idle or in use
	lent   atomic.Int64  // places in busy that shrink has taken out of use; changes under mu
	shrunk time.Time     // when it last did
}

// idleSession is a session that no call is running on.
type idleSession struct {
	handle pkcs11.SessionHandle
	used   time.Time // when it last served a call
	asked  time.Time // when the token was last seen to know it
}

const (
	// defaultMaxWaiting bounds the queue at a token. The services let fewer in; it is for what they do not bound.
	defaultMaxWaiting = 1024
	// maxWait is how long a call waits for a session: longer than the services' own queues, and shorter than their clients wait.
	maxWait = 10 * time.Second
)

// giveBack is how long the places that shrink took stay out of use: the program that held the sessions may be gone by then.
// Where it is not, each place costs one C_OpenSession in vain.
const giveBack = 10 * time.Second

func newPool(t *token, size, maxWaiting int) *pool {
	return &pool{
		maxWaiting:   int64(maxWaiting),
		maxWait:      maxWait,
		openSession:  func() (pkcs11.SessionHandle, error) { return t.openSession(pkcs11.CKF_SERIAL_SESSION) },
		closeSession: t.closeSession,
		lose:         t.lose,
		busy:         make(chan struct{}, size),
	}
}

// run calls use with a session of its own. A session after which the token is not known to be in order is closed, not reused.
func (p *pool) run(use func(pkcs11.SessionHandle) error) error {
	if err := p.place(); err != nil {
		return err
	}
	session, err := p.take()
	if err != nil {
		<-p.busy
		return err
	}
	err = use(session)
	p.give(session, err)
	p.traffic.leave()
	<-p.busy
	return err
}

// place takes a place in busy, where there is one in time.
func (p *pool) place() error {
	if p.lent.Load() > 0 {
		p.grow()
	}
	select {
	case p.busy <- struct{}{}:
		return nil
	default:
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > p.maxWaiting {
		return fmt.Errorf("%w: %d calls wait for one of its %d sessions", ErrBusy, p.maxWaiting, cap(p.busy))
	}
	timer := time.NewTimer(p.maxWait)
	defer timer.Stop()
	select {
	case p.busy <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: none of its %d sessions was free within %v", ErrBusy, cap(p.busy), p.maxWait)
	}
}

// take returns an idle session or opens one, and has then entered the traffic, which nobody waits in for a place. When the token has no more to give, because another program holds some, the
// pool shrinks by one place for a while and waits for a session of its own.
func (p *pool) take() (pkcs11.SessionHandle, error) {
	for {
		if err := p.traffic.enter(); err != nil {
			return 0, err
		}
		if session, ok := p.takeIdle(); ok {
			return session, nil
		}
		session, err := p.openSession()
		if err == nil {
			p.mu.Lock()
			p.opened++
			p.mu.Unlock()
			return session, nil
		}
		p.traffic.leave()
		if !errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) || !p.shrink() {
			return 0, fmt.Errorf("open session: C_OpenSession: %w", err)
		}
	}
}

func (p *pool) takeIdle() (pkcs11.SessionHandle, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return 0, false
	}
	session := p.idle[last].handle
	p.idle = p.idle[:last]
	return session, true
}

// shrink takes the caller's place out of use and waits for that of a call which has a session. It reports false when there
// is no such call to wait for. An idle session, put back since the caller looked, is no reason to shrink.
func (p *pool) shrink() bool {
	p.mu.Lock()
	idle, opened := len(p.idle), p.opened
	p.mu.Unlock()
	if idle > 0 || opened == 0 {
		return opened > 0
	}
	timer := time.NewTimer(p.maxWait)
	defer timer.Stop()
	select {
	case p.busy <- struct{}{}:
	case <-timer.C:
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent.Add(1)
	p.shrunk = time.Now()
	return true
}

// grow puts places back that shrink took, giveBack after the last time it did.
func (p *pool) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.shrunk) < giveBack {
		return
	}
	for ; p.lent.Load() > 0; p.lent.Add(-1) {
		<-p.busy // never waits: the places that are lent are in it
	}
}

// give takes a session back from a call that ended with err.
func (p *pool) give(session pkcs11.SessionHandle, err error) {
	if hangs(err) != nil || spoilsSession(err) {
		p.end(session, err)
		return
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, idleSession{session, now, now})
}

// end is give for a session that is not to be used any more.
func (p *pool) end(session pkcs11.SessionHandle, err error) {
	if hung := hangs(err); hung != nil {
		p.lose(session, hung)
	} else {
		_ = p.closeSession(session) // it may be gone already, and the caller has the error that says why
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened--
}

// drop closes the idle sessions.
func (p *pool) drop() error {
	if err := p.traffic.enter(); err != nil {
		return err
	}
	defer p.traffic.leave()
	p.mu.Lock()
	dropped := p.idle
	p.idle = nil
	p.opened -= len(dropped)
	p.mu.Unlock()
	for _, session := range dropped {
		if err := p.closeSession(session.handle); hangs(err) != nil { // it may be gone already
			return fmt.Errorf("C_CloseSession: %w", err)
		}
	}
	return nil
}

// forget takes all sessions for gone and returns those that were idle. The caller holds the traffic.
func (p *pool) forget() []pkcs11.SessionHandle {
	p.mu.Lock()
	defer p.mu.Unlock()
	var forgotten []pkcs11.SessionHandle
	for _, session := range p.idle {
		forgotten = append(forgotten, session.handle)
	}
	p.idle, p.opened = nil, 0
	return forgotten
}

// keepAlive asks the token about the sessions that it was not asked about for a while, so that whatever stands in between does not drop
// them, and closes those that served no call for idleLives times as long, but for one. Calls that need a session meanwhile do not wait for it. An
// error says that a session was lost, which is closed then.
func (p *pool) keepAlive(every time.Duration, ask func(pkcs11.SessionHandle) error) error {
	begin := time.Now()
	for more := true; more; {
		select {
		case p.busy <- struct{}{}:
		default:
			return nil // all are busy: they need nobody to keep them alive
		}
		var err error
		more, err = p.keepOne(begin, every, ask)
		<-p.busy
		if err != nil {
			return err
		}
	}
	return nil
}

// idleLives is how often a session is kept alive before it is closed.
const idleLives = 10

// keepOne is keepAlive for the session that waits for it longest. It reports whether there was one. The caller has a place.
func (p *pool) keepOne(now time.Time, every time.Duration, ask func(pkcs11.SessionHandle) error) (bool, error) {
	if err := p.traffic.enter(); err != nil {
		return false, err
	}
	defer p.traffic.leave()
	session, unneeded, ok := p.takeOldest(now, every)
	switch {
	case !ok:
		return false, nil
	case unneeded:
		p.end(session.handle, nil)
		return true, nil
	}
	if err := ask(session.handle); err != nil {
		p.end(session.handle, err)
		return true, err
	}
	session.asked = time.Now()
	p.putBack(session)
	return true, nil
}

// takeOldest takes the idle session that the token was asked about before all others, if that was every ago or more. unneeded: it served
// no call for long, and it is not the last one.
func (p *pool) takeOldest(now time.Time, every time.Duration) (oldest idleSession, unneeded, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := -1
	for i, session := range p.idle {
		if now.Sub(session.asked) >= every && (at < 0 || session.asked.Before(p.idle[at].asked)) {
			at = i
		}
	}
	if at < 0 {
		return idleSession{}, false, false
	}
	oldest = p.idle[at]
	p.idle = slices.Delete(p.idle, at, at+1)
	return oldest, now.Sub(oldest.used) >= idleLives*every && p.opened > 1, true
}

// putBack is for a session that served no call: it comes behind those that did since.
func (p *pool) putBack(session idleSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, _ := slices.BinarySearchFunc(p.idle, session.used, func(other idleSession, used time.Time) int { return other.used.Compare(used) })
	p.idle = slices.Insert(p.idle, at, session)
}

// close closes the idle sessions. The caller has seen to it that no call is running.
func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, session := range p.idle {
		if err := p.closeSession(session.handle); err != nil && !errors.Is(err, cryptoki.ErrGone) {
			if hangs(err) != nil {
				return fmt.Errorf("close session: C_CloseSession: %w", err) // the others would, too
			}
			errs = append(errs, fmt.Errorf("close session: C_CloseSession: %w", err))
		}
	}
	p.idle, p.opened = nil, 0
	return errors.Join(errs...)
}

// spoilsSession reports whether err leaves the session's state, or the token's, in doubt. Only codes by which a token turns a
// request down as such keep the session; every other one, SESSION_*, DEVICE_* and vendors' own included, costs no more
// than opening a new one.
func spoilsSession(err error) bool {
	var code pkcs11.Error
	if errors.Is(err, cryptoki.ErrGone) {
		return true
	}
	if !errors.As(err, &code) {
		return false // success, or refused by this package before the token was asked
	}
	switch code {
	case pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE,
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_KEY_TYPE_INCONSISTENT,
		pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID,
		pkcs11.CKR_ATTRIBUTE_SENSITIVE, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT:
		return false
	}
	return true
}
