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

// token is one token of a module: its login, its administrative session and its pool.
type token struct {
	module     *module
	ctx        cryptoki.Library
	slot       uint // changes while the pool's traffic is held
	label      string
	info       pkcs11.TokenInfo
	mechanisms []uint // sorted
	pool       *pool
	leftover   leftover
	breaker    breaker
	trust      trust
	needed     atomic.Bool // a key on it is in no key group
	reach      atomic.Pointer[reach]
	counts     *counts
	tended     atomic.Bool  // the keeper is at it
	kept       atomic.Int64 // unix time in ns when it last was
	toldOut    atomic.Bool  // the log says that it is out of service
	refused    atomic.Pointer[refusal]
	contextual sync.Mutex    // held for a signature that wants the PIN: see tokenKey.signOnce
	epoch      atomic.Uint64 // changes while the pool's traffic is held; handles are good in one epoch

	// admin guards what follows. Look-ups, attributes and key generation run under it, one at a time, on a read-write session
	// that stays open: while it does, the login holds. (Key pairs made side by side come out broken: SoftHSM issue 573.)
	admin    sync.Mutex
	session  pkcs11.SessionHandle
	loggedIn bool // session is open and the user is logged in
}

// refusal is that the token turned the PIN down: it is not asked again until somebody activates it.
type refusal struct{ err error }

func (t *token) has(mechanism uint) bool {
	_, found := slices.BinarySearch(t.mechanisms, mechanism)
	return found
}

// administer calls use, once, with the administrative session, after the login that u's PIN allows. A session or login that use
// finds lost is renewed for the next call.
func (t *token) administer(u URI, use func(pkcs11.SessionHandle) error) error {
	epoch, spoilt := t.epoch.Load(), false
	err := t.withAdmin(u, func(session pkcs11.SessionHandle) error {
		epoch = t.epoch.Load()
		err := use(session)
		spoilt = spoilsSession(err)
		return err
	})
	if !spoilt {
		return err
	}
	need := max(repairLogin, faultOf(err).firstRepair())
	_, failed := t.repair(attempt{need, epoch, t.breaker.now.Load(), time.Now().Add(patience)})
	if failed != nil {
		return fmt.Errorf("%w; repair: %w", err, failed)
	}
	return err
}

// withAdmin is administer without the renewal.
func (t *token) withAdmin(u URI, use func(pkcs11.SessionHandle) error) error {
	if err := t.trust.check(); err != nil {
		return err
	}
	if err := t.pool.traffic.enter(); err != nil {
		return err
	}
	defer t.pool.traffic.leave()
	if err := t.queue(&t.admin); err != nil {
		return err
	}
	defer t.admin.Unlock()
	if err := t.logIn(u); err != nil {
		return fmt.Errorf("log in to token %q: %w", t.label, err)
	}
	err := use(t.session)
	if hung := hangs(err); hung != nil {
		t.lose(t.session, hung)
		t.loggedIn = false // the next call opens another session; the login is the process's and holds
	}
	return err
}

// queue locks a mutex that calls into the module are made under. It refuses who waited while one did not return: each in the line would hang
// in turn, and keep a thread.
func (t *token) queue(mu *sync.Mutex) error {
	before := t.breaker.now.Load()
	mu.Lock()
	if o := t.breaker.now.Load(); o != nil && o != before && hangs(o.cause) != nil {
		mu.Unlock()
		return o.refusal()
	}
	return nil
}

// logIn opens the administrative session and logs the process in, once. The caller holds t.admin.
func (t *token) logIn(u URI) error {
	if refused := t.refused.Load(); refused != nil {
		return fmt.Errorf("%w (not tried again since)", refused.err)
	}
	if t.module.pins.shut() {
		return ErrDeactivated
	}
	if t.loggedIn {
		return nil
	}
	if t.info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0 && !u.hasPIN() {
		return errors.New("the token wants a PIN and the URI has no pin-source: add pin-source=file:/absolute/path to it")
	}
	session, err := t.openSession(pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_TOKEN_WRITE_PROTECTED)) {
		session, err = t.openSession(pkcs11.CKF_SERIAL_SESSION)
	}
	if err != nil {
		return fmt.Errorf("open session: C_OpenSession: %w", err)
	}
	if u.hasPIN() {
		err = t.mayTry()
	}
	if u.hasPIN() && err == nil {
		err = t.module.pins.use(u, func(pin []byte) error {
			return t.explainLogin(u, t.ctx.Login(session, t.module.user(), pin))
		})
	}
	if hung := hangs(err); hung != nil {
		t.lose(session, hung)
		return err
	}
	if err != nil {
		_ = t.closeSession(session) // err says why
		return err
	}
	t.session, t.loggedIn = session, true
	return nil
}

// mayTry asks the token whether a PIN may be tried at all.
func (t *token) mayTry() error {
	info, err := t.ctx.GetTokenInfo(t.slot)
	if err != nil {
		return fmt.Errorf("C_GetTokenInfo: %w", err)
	}
	return checkTries(t.module.pinFlags(info.Flags))
}

// checkTries refuses to spend the last try that a token allows: should the PIN be wrong, the keys would be out of reach
// until the token's security officer comes. It is asked anew each time, for a good login elsewhere puts the counter back.
func checkTries(flags uint) error {
	if flags&pkcs11.CKF_USER_PIN_FINAL_TRY == 0 || flags&pkcs11.CKF_USER_PIN_LOCKED != 0 {
		return nil // a locked token says so itself
	}
	return fmt.Errorf("%w: the token has ONE try left before it locks, which is not spent unattended: "+
		"make sure of the PIN, log in once by hand with the vendor's tool, which puts the counter back, and start again", ErrPINRefused)
}

// explainLogin turns the answer of C_Login into words and remembers a refusal.
func (t *token) explainLogin(u URI, err error) error {
	var code pkcs11.Error
	if err == nil {
		return nil
	}
	if errors.As(err, &code) && code == pkcs11.CKR_USER_ALREADY_LOGGED_IN {
		return nil // the login is the process's: somebody else in it has opened the token
	}
	var remedy string
	switch code {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		remedy = "correct the PIN, then zegel token activate where a daemon runs, else start again; until then it is not tried again, because tokens lock after a few wrong PINs"
		if info, err := t.ctx.GetTokenInfo(t.slot); err == nil {
			info.Flags = t.module.pinFlags(info.Flags)
			switch {
			case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
				remedy = "the token is locked now: its security officer must unlock it"
			case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
				remedy += "; the token has ONE try left"
			}
		}
	case pkcs11.CKR_PIN_LOCKED:
		remedy = "the token is locked: its security officer must unlock it"
	case pkcs11.CKR_PIN_EXPIRED:
		remedy = "set a new PIN with the vendor's tool"
	case pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
		remedy = "the token has no user PIN yet: its security officer must set one"
	default:
		return fmt.Errorf("C_Login: %w", err)
	}
	err = fmt.Errorf("%w: %s: C_Login: %w: %s", ErrPINRefused, u.pinOrigin(), err, remedy)
	t.refused.Store(&refusal{err})
	t.module.pins.refused(u)
	t.module.pins.dropEntered(u)
	return err
}

// object is a handle with what makes it one: valid in every session of the process while the login holds.
type object = pkcs11.ObjectHandle

// find returns the objects that have all attributes of template, at most 100 of them.
func (t *token) find(session pkcs11.SessionHandle, template []*pkcs11.Attribute) ([]object, error) {
	if err := t.ctx.FindObjectsInit(session, template); err != nil {
		return nil, fmt.Errorf("find objects on token %q: C_FindObjectsInit: %w", t.label, err)
	}
	var all []object
	for len(all) < 100 {
		found, _, err := t.ctx.FindObjects(session, 100-len(all))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("find objects on token %q: C_FindObjects: %w", t.label, err), t.ctx.FindObjectsFinal(session))
		}
		if len(found) == 0 {
			break
		}
		all = append(all, found...)
	}
	if err := t.ctx.FindObjectsFinal(session); err != nil {
		return nil, fmt.Errorf("find objects on token %q: C_FindObjectsFinal: %w", t.label, err)
	}
	return all, nil
}

// attribute reads one attribute; nil where the object has none of that type.
func (t *token) attribute(session pkcs11.SessionHandle, o object, kind uint) ([]byte, error) {
	values, err := t.ctx.GetAttributeValue(session, o, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	switch {
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read attribute 0x%x on token %q: C_GetAttributeValue: %w", kind, t.label, err)
	}
	return values[0].Value, nil
}

// flag reads a CK_BBOOL attribute; one that the object does not have counts as false.
func (t *token) flag(session pkcs11.SessionHandle, o object, kind uint) (bool, error) {
	value, err := t.attribute(session, o, kind)
	return len(value) == 1 && value[0] != 0, err
}

// close ends the login and all sessions of ours. Tokens.Close has seen to it that no call is running.
func (t *token) close() error {
	t.admin.Lock()
	defer t.admin.Unlock()
	errs := []error{t.pool.close()}
	if t.loggedIn {
		if t.module.owned { // else the login is not ours alone
			if err := t.ctx.Logout(t.session); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)) && !errors.Is(err, cryptoki.ErrGone) {
				errs = append(errs, fmt.Errorf("log out of token %q: C_Logout: %w", t.label, err))
			}
		}
		if err := t.ctx.CloseSession(t.session); err != nil && !errors.Is(err, cryptoki.ErrGone) {
			errs = append(errs, fmt.Errorf("close session with token %q: C_CloseSession: %w", t.label, err))
		}
		t.loggedIn = false
	}
	return errors.Join(errs...)
}
