package hsm

import (
	"errors"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

// leftover are sessions of a token that nobody uses any more and that are open with it all the same, as far as is known: it refused
// to close them, or the module was not to be asked. Tokens have few sessions to give, so the next one that is opened closes these
// first.
type leftover struct {
	mu       sync.Mutex
	sessions []pkcs11.SessionHandle
	inside   map[pkcs11.SessionHandle]bool // calls that do not return are; left over once they have
}

// maxLeftover is how many are remembered: a token that closes none of so many will not close more.
const maxLeftover = 64

func (l *leftover) add(sessions ...pkcs11.SessionHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = append(l.sessions, sessions...)
	l.sessions = l.sessions[max(0, len(l.sessions)-maxLeftover):]
}

// take returns them all; none are left over then.
func (l *leftover) take() []pkcs11.SessionHandle {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.sessions
	l.sessions = nil
	return taken
}

// enclose: a call is inside session that does not return.
func (l *leftover) enclose(session pkcs11.SessionHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside == nil {
		l.inside = make(map[pkcs11.SessionHandle]bool)
	}
	l.inside[session] = true
}

// release: the call has returned.
func (l *leftover) release(session pkcs11.SessionHandle) {
	l.mu.Lock()
	still := l.inside[session]
	delete(l.inside, session)
	l.mu.Unlock()
	if still {
		l.add(session)
	}
}

// forget: the library begins anew, and the sessions are gone.
func (l *leftover) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions, l.inside = nil, nil
}

// remove: the token has given the number out again, so what had it is gone.
func (l *leftover) remove(session pkcs11.SessionHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inside, session)
	l.sessions = slices.DeleteFunc(l.sessions, func(s pkcs11.SessionHandle) bool { return s == session })
}

// openSession is C_OpenSession, after the closing of what is left over.
func (t *token) openSession(flags uint) (pkcs11.SessionHandle, error) {
	if o := t.breaker.now.Load(); o == nil || hangs(o.cause) == nil {
		t.closeLeftover()
	}
	session, err := t.ctx.OpenSession(t.slot, flags)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) && t.closeLeftover() > 0 {
		session, err = t.ctx.OpenSession(t.slot, flags)
	}
	if err == nil {
		t.leftover.remove(session)
	}
	return session, err
}

// closeLeftover closes what is left over, up to the first that the token does not close, and says how many that were.
func (t *token) closeLeftover() (closed int) {
	sessions := t.leftover.take()
	for i, session := range sessions {
		if err := t.closeSession(session); err != nil {
			t.leftover.add(sessions[i+1:]...)
			break
		}
		closed++
	}
	return closed
}

// closeSession is C_CloseSession. What it could not close is left over.
func (t *token) closeSession(session pkcs11.SessionHandle) error {
	err := t.ctx.CloseSession(session)
	for _, gone := range []pkcs11.Error{pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED} {
		if errors.Is(err, gone) {
			return err
		}
	}
	switch {
	case err == nil || errors.Is(err, cryptoki.ErrGone) || hangs(err) != nil: // closed, gone with its process, or the call is inside still
	default:
		t.leftover.add(session)
	}
	return err
}
