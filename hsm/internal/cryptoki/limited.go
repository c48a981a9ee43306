package cryptoki

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// HungError is the error of a call into a library in this process that has not returned within its limit. It is still inside, keeps its
// thread, and its session must not be used or closed.
type HungError struct {
	Function string
	Limit    time.Duration
	Stuck    int             // calls of the library, this one among them
	Returned <-chan struct{} // closed when the call has returned after all; its result is lost
}

func (e *HungError) Error() string {
	return fmt.Sprintf("%s has not returned within %v", e.Function, e.Limit)
}

// limited gives the calls of a library in this process their limits: its caller is free then, the call is not.
type limited struct {
	library Library
	quick   time.Duration
	stuck   atomic.Int64
}

// Limit gives the calls of a library in this process their limits: callers are free then, calls are not. quick is how long most calls may take; those that take long by nature get more.
func Limit(l Library, quick time.Duration) Library { return &limited{library: l, quick: quick} }

func (l *limited) Abort(error) {}

func (l *limited) Stuck() int { return int(l.stuck.Load()) }

// States of a call.
const (
	running int32 = iota
	returned
	abandoned
)

// within makes the call in a goroutine of its own. What the call was given must stay as it is when it is abandoned: secrets that others wipe
// are to be copied before.
func within[T any](l *limited, f function, call func() (T, error)) (T, error) {
	var result T
	var err error
	var state atomic.Int32
	done := make(chan struct{})
	go func() {
		result, err = call()
		if !state.CompareAndSwap(running, returned) {
			l.stuck.Add(-1)
		}
		close(done)
	}()
	limit := f.limit(l.quick)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return result, err
	case <-timer.C:
	}
	l.stuck.Add(1)
	if !state.CompareAndSwap(running, abandoned) { // it has just returned
		l.stuck.Add(-1)
		<-done
		return result, err
	}
	var none T
	return none, &HungError{f.String(), limit, l.Stuck(), done}
}

func (l *limited) do(f function, call func() error) error {
	_, err := within(l, f, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// withPIN is do with a copy of pin, which a call that hangs may still read when the caller's is wiped, or no memory any more: a token would count what
// it reads instead as a wrong PIN.
func (l *limited) withPIN(f function, pin []byte, call func(pin []byte) error) error {
	pin = slices.Clone(pin)
	return l.do(f, func() error {
		defer clear(pin)
		return call(pin)
	})
}

func (l *limited) Initialize() error { return l.do(initialize, l.library.Initialize) }

func (l *limited) Finalize() error { return l.do(finalize, l.library.Finalize) }

func (l *limited) GetInfo() (pkcs11.Info, error) { return within(l, getInfo, l.library.GetInfo) }

func (l *limited) GetSlotList(tokenPresent bool) ([]uint, error) {
	return within(l, getSlotList, func() ([]uint, error) { return l.library.GetSlotList(tokenPresent) })
}

func (l *limited) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	return within(l, getTokenInfo, func() (pkcs11.TokenInfo, error) { return l.library.GetTokenInfo(slot) })
}

func (l *limited) GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error) {
	return within(l, getMechanismList, func() ([]*pkcs11.Mechanism, error) { return l.library.GetMechanismList(slot) })
}

func (l *limited) InitToken(slot uint, pin []byte, label string) error {
	return l.withPIN(initToken, pin, func(pin []byte) error { return l.library.InitToken(slot, pin, label) })
}

func (l *limited) InitPIN(session pkcs11.SessionHandle, pin []byte) error {
	return l.withPIN(initPIN, pin, func(pin []byte) error { return l.library.InitPIN(session, pin) })
}

func (l *limited) SetPIN(session pkcs11.SessionHandle, from, to []byte) error {
	to = slices.Clone(to) // as in withPIN
	return l.withPIN(setPIN, from, func(from []byte) error {
		defer clear(to)
		return l.library.SetPIN(session, from, to)
	})
}

func (l *limited) Login(session pkcs11.SessionHandle, user uint, pin []byte) error {
	return l.withPIN(login, pin, func(pin []byte) error { return l.library.Login(session, user, pin) })
}

func (l *limited) Logout(session pkcs11.SessionHandle) error {
	return l.do(logout, func() error { return l.library.Logout(session) })
}

func (l *limited) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	return within(l, openSession, func() (pkcs11.SessionHandle, error) { return l.library.OpenSession(slot, flags) })
}

func (l *limited) CloseSession(session pkcs11.SessionHandle) error {
	return l.do(closeSession, func() error { return l.library.CloseSession(session) })
}

func (l *limited) GetSessionInfo(session pkcs11.SessionHandle) (pkcs11.SessionInfo, error) {
	return within(l, getSessionInfo, func() (pkcs11.SessionInfo, error) { return l.library.GetSessionInfo(session) })
}

func (l *limited) FindObjectsInit(session pkcs11.SessionHandle, template []*pkcs11.Attribute) error {
	return l.do(findObjectsInit, func() error { return l.library.FindObjectsInit(session, template) })
}

func (l *limited) FindObjects(session pkcs11.SessionHandle, limit int) (found []pkcs11.ObjectHandle, more bool, err error) {
	type result struct {
		found []pkcs11.ObjectHandle
		more  bool
	}
	r, err := within(l, findObjects, func() (r result, err error) {
		r.found, r.more, err = l.library.FindObjects(session, limit)
		return r, err
	})
	return r.found, r.more, err
}

func (l *limited) FindObjectsFinal(session pkcs11.SessionHandle) error {
	return l.do(findObjectsFinal, func() error { return l.library.FindObjectsFinal(session) })
}

func (l *limited) GetAttributeValue(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, wanted []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	return within(l, getAttributeValue, func() ([]*pkcs11.Attribute, error) { return l.library.GetAttributeValue(session, o, wanted) })
}

func (l *limited) SetAttributeValue(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, values []*pkcs11.Attribute) error {
	return l.do(setAttributeValue, func() error { return l.library.SetAttributeValue(session, o, values) })
}

func (l *limited) CreateObject(session pkcs11.SessionHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return within(l, createObject, func() (pkcs11.ObjectHandle, error) { return l.library.CreateObject(session, template) })
}

func (l *limited) CopyObject(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return within(l, copyObject, func() (pkcs11.ObjectHandle, error) { return l.library.CopyObject(session, o, template) })
}

func (l *limited) DestroyObject(session pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	return l.do(destroyObject, func() error { return l.library.DestroyObject(session, o) })
}

func (l *limited) GenerateKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return within(l, generateKey, func() (pkcs11.ObjectHandle, error) { return l.library.GenerateKey(session, m, template) })
}

func (l *limited) GenerateKeyPair(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error) {
	pair, err := within(l, generateKeyPair, func() (pair [2]pkcs11.ObjectHandle, err error) {
		pair[0], pair[1], err = l.library.GenerateKeyPair(session, m, public, private)
		return pair, err
	})
	return pair[0], pair[1], err
}

func (l *limited) WrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	return within(l, wrapKey, func() ([]byte, error) { return l.library.WrapKey(session, m, wrapping, key) })
}

func (l *limited) UnwrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return within(l, unwrapKey, func() (pkcs11.ObjectHandle, error) {
		return l.library.UnwrapKey(session, m, unwrapping, wrapped, template)
	})
}

func (l *limited) SignOnce(session pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, message, contextPIN []byte) ([]byte, error) {
	contextPIN = slices.Clone(contextPIN) // as in withPIN; nil stays nil
	return within(l, signOnce, func() ([]byte, error) {
		defer clear(contextPIN)
		return l.library.SignOnce(session, m, key, message, contextPIN)
	})
}

func (l *limited) EncryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, plaintext []byte) (usedIV, ciphertext []byte, err error) {
	both, err := within(l, encryptGCM, func() (both [2][]byte, err error) {
		both[0], both[1], err = l.library.EncryptGCM(session, key, iv, additional, plaintext)
		return both, err
	})
	return both[0], both[1], err
}

func (l *limited) DecryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, ciphertext []byte) ([]byte, error) {
	return within(l, decryptGCM, func() ([]byte, error) { return l.library.DecryptGCM(session, key, iv, additional, ciphertext) })
}
