package hsm

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// pool is the bounded set of read-only sessions that signatures of one token run on. A session runs one call at a time
// (PKCS#11 §5.2 forbids more). Sessions are opened when they are first needed; callers wait when all are busy.
// Login and logout are the token's affair: they hold for the process, not for a session.
type pool struct {
	openSession  func() (pkcs11.SessionHandle, error)
	closeSession func(pkcs11.SessionHandle) error
	busy         chan struct{} // one place per session that may be in use
	traffic      traffic       // of the token: calls on this pool and on the administrative session

	mu     sync.Mutex
	idle   []pkcs11.SessionHandle // the last one used is the first one reused, so that a quiet daemon opens few
	opened int                    // idle or in use
	lent   int                    // places in busy that shrink has taken out of use
	shrunk time.Time              // when it last did
}

// giveBack is how long the places that shrink took stay out of use: the program that held the sessions may be gone by then.
// Where it is not, each place costs one C_OpenSession in vain.
const giveBack = 10 * time.Second

func newPool(t *token, size int) *pool {
	return &pool{
		openSession:  func() (pkcs11.SessionHandle, error) { return t.openSession(pkcs11.CKF_SERIAL_SESSION) },
		closeSession: t.closeSession,
		busy:         make(chan struct{}, size),
	}
}

// run calls use with a session of its own. A session after which the token is not known to be in order is closed, not reused.
func (p *pool) run(use func(pkcs11.SessionHandle) error) error {
	p.grow()
	p.busy <- struct{}{}
	session, err := p.take()
	if err != nil {
		<-p.busy
		return err
	}
	err = use(session)
	p.give(session, spoilsSession(err))
	p.traffic.leave()
	<-p.busy
	return err
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
	session := p.idle[last]
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
	p.busy <- struct{}{}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent++
	p.shrunk = time.Now()
	return true
}

// grow puts places back that shrink took, giveBack after the last time it did.
func (p *pool) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lent == 0 || time.Since(p.shrunk) < giveBack {
		return
	}
	for ; p.lent > 0; p.lent-- {
		<-p.busy // never waits: the places that are lent are in it
	}
}

func (p *pool) give(session pkcs11.SessionHandle, spoilt bool) {
	if spoilt {
		// The session may be gone already, and the caller has the error that says why.
		_ = p.closeSession(session)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if spoilt {
		p.opened--
		return
	}
	p.idle = append(p.idle, session)
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
		_ = p.closeSession(session) // it may be gone already
	}
	return nil
}

// forget takes all sessions for gone and returns those that were idle. The caller holds the traffic.
func (p *pool) forget() []pkcs11.SessionHandle {
	p.mu.Lock()
	defer p.mu.Unlock()
	forgotten := p.idle
	p.idle, p.opened = nil, 0
	return forgotten
}

// close closes the idle sessions. The caller has seen to it that no call is running.
func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, session := range p.idle {
		if err := p.closeSession(session); err != nil {
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
