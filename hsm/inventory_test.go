package hsm

import (
	"testing"

	"github.com/miekg/pkcs11"
)

func TestPINState(t *testing.T) {
	const set = pkcs11.CKF_LOGIN_REQUIRED | pkcs11.CKF_USER_PIN_INITIALIZED
	for _, c := range []struct {
		flags uint
		want  PINState
	}{
		{0, PINNotAsked},
		{pkcs11.CKF_LOGIN_REQUIRED, PINNotSet},
		{set, PINReady},
		{set | pkcs11.CKF_USER_PIN_COUNT_LOW, PINFewTries},
		{set | pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, PINFinalTry},
		{set | pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_LOCKED, PINLocked},
	} {
		if got := pinState(c.flags); got != c.want {
			t.Errorf("pinState(%#x) = %q, want %q", c.flags, got, c.want)
		}
	}
	if len(mechanisms()) != len(mechanismKinds()) {
		t.Error("mechanisms and mechanismKinds are not of one length")
	}
}

// KnownTokens says how many tokens of a module are kept in mind.
func KnownTokens(t *Tokens, module string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.modules[module].tokens)
}
