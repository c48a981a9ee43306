package hsm

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

// contextLogin says whether a key wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE). It is read when the key is opened, and when it is
// found again.
type contextLogin struct{ wanted atomic.Bool }

func (c *contextLogin) read(t *token, session pkcs11.SessionHandle, private object) error {
	wanted, err := t.flag(session, private, pkcs11.CKA_ALWAYS_AUTHENTICATE)
	c.wanted.Store(wanted)
	return err
}

// signOnce asks the token for one signature, with the PIN where the key wants it. Signatures with the PIN are made one at a time per token: where it
// is refused, so that somebody has changed it, it has been tried once and not by everybody who was waiting. on is the token's library, or that without
// limits.
func (k *tokenKey) signOnce(on cryptoki.Library, session pkcs11.SessionHandle, private object, mechanism *pkcs11.Mechanism, message []byte) (signature []byte, err error) {
	t := k.token
	if k.context == nil || !k.context.wanted.Load() {
		return on.SignOnce(session, mechanism, private, message, nil)
	}
	if !k.uri.hasPIN() {
		return nil, errors.New("the key wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE) and the URI has no pin-source: add pin-source=file:/absolute/path to it")
	}
	if err := t.queue(&t.contextual); err != nil {
		return nil, err
	}
	defer t.contextual.Unlock()
	if refused := t.refused.Load(); refused != nil {
		return nil, fmt.Errorf("%w (not tried again since)", refused.err)
	}
	if err := t.mayTry(); err != nil {
		return nil, err
	}
	err = t.module.pins.use(k.uri, func(pin []byte) error {
		signature, err = on.SignOnce(session, mechanism, private, message, pin)
		return t.explainContext(k.uri, err)
	})
	return signature, err
}

// explainContext remembers a PIN that was refused for a signature as it does one that was refused at the login.
func (t *token) explainContext(u URI, err error) error {
	call, ok := errors.AsType[*cryptoki.CallError](err)
	if !ok || call.Function != "C_Login" || faultOf(err) != faultPIN {
		return err
	}
	return t.explainLogin(u, call.Err)
}
