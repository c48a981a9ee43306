package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// remedies say what can be done about codes that do not say it themselves. Those about PINs are explained where the PIN is known.
var remedies = map[pkcs11.Error]string{
	pkcs11.CKR_SESSION_COUNT:                  "the token has no session left: end what else uses it, or set tokens.sessions lower in every program that does",
	pkcs11.CKR_DEVICE_MEMORY:                  "the token is full: zegel token keys lists what is on it",
	pkcs11.CKR_TOKEN_NOT_PRESENT:              "put the token back, or see to the device and to its client's connection",
	pkcs11.CKR_DEVICE_REMOVED:                 "put the token back, or see to the device and to its client's connection",
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:           "the module does not know this kind of token: check module-path",
	pkcs11.CKR_DEVICE_ERROR:                   "see to the device, and to its own log",
	pkcs11.CKR_GENERAL_ERROR:                  "see to the device, and to the module's own log",
	pkcs11.CKR_FUNCTION_FAILED:                "see to the device, and to the module's own log",
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: "another user of the token is logged in through this module in this process",
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:          "the token is write-protected: lift that with the vendor's tool",
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:     "the key's attributes, or the token's own policy, forbid this use of it",
	pkcs11.CKR_MECHANISM_INVALID:              "the token, or its own policy (FIPS mode), has not this mechanism for the key",
}

// withRemedy adds to err what can be done about the code that its token gave, once.
func withRemedy(err error) error {
	var code pkcs11.Error
	if errors.Is(err, ErrPINRefused) || !errors.As(err, &code) || strings.Contains(err.Error(), remedies[code]) {
		return err
	}
	return fmt.Errorf("%w: %s", err, remedies[code])
}
