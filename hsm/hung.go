package hsm

import (
	"errors"
	"fmt"
	"os"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

// How a PKCS#11 module is run (Settings.Isolation).
const (
	// IsolationNone: in this process. A call that does not return keeps its thread and its session until it does, a crash of the module ends the process.
	IsolationNone = "none"
	// IsolationProcess: each module in a process of its own, which is this program started again (RunHelper). A call that does not return is ended
	// with that process, and a crash of the module is one of that process; repairs start another.
	IsolationProcess = "process"
)

// RunHelper is the life of a module's process, if this process was started as one; else helper is false, and nothing has happened. A program
// that uses IsolationProcess has to call it first in main, a test binary in TestMain, and to end with status where it was one:
//
//	if status, helper := hsm.RunHelper(); helper {
//		os.Exit(status)
//	}
func RunHelper() (status int, helper bool) { return cryptoki.Serve(os.Args) }

// maxStuck is how many calls may be inside a module beyond their limit before no other is let in: each keeps a thread, of which a
// process has 10,000.
const maxStuck = 1000

// checkStuck refuses calls into a module that too many have not come back from.
func (t *token) checkStuck() error {
	if n := t.ctx.Stuck(); n >= maxStuck {
		return fmt.Errorf("%w: %d calls into PKCS#11 module %s have not returned: restart this program (isolation: process would not need it)", ErrUnavailable, n, t.module.path)
	}
	return nil
}

// hangs returns what is known of a call that has not returned within its limit; nil: err says no such thing. It happens with IsolationNone only.
func hangs(err error) *cryptoki.HungError {
	if hung := (*cryptoki.HungError)(nil); errors.As(err, &hung) {
		return hung
	}
	return nil
}

// lose leaves a session to the call that is inside it. Should that return, the session is left over.
func (t *token) lose(session pkcs11.SessionHandle, hung *cryptoki.HungError) {
	t.leftover.enclose(session)
	go func() { // as long as the call, which has a thread
		<-hung.Returned
		t.leftover.release(session)
	}()
}

// setAside takes idle sessions out of use until the token has answered again: what one call did not return from, the others may not either. They are
// left over, and closed by the next C_OpenSession after that.
func (p *pool) setAside() []pkcs11.SessionHandle {
	p.mu.Lock()
	defer p.mu.Unlock()
	var aside []pkcs11.SessionHandle
	for _, session := range p.idle {
		aside = append(aside, session.handle)
	}
	p.idle = nil
	p.opened -= len(aside)
	return aside
}
