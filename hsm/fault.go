package hsm

import (
	"errors"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

// fault is what the code of a call says is broken, and with it the first repair that is tried. Where that does not help, the
// next larger one is: a new session, a new login with the keys found again, the module initialised again.
type fault int

const (
	// faultNone: success, or an error that no token gave.
	faultNone fault = iota
	// faultRequest: the request is turned down as such. It would be again, so nothing is repaired.
	faultRequest
	// faultPIN: the token does not take the PIN. Nothing logs in any more until Tokens.Activate, or another process.
	faultPIN
	// faultGeneral: the code does not say what is broken; vendors' own codes are among these. First repair: a new session.
	faultGeneral
	// faultSession: the session, or the operation on it, is gone. First repair: a new session.
	faultSession
	// faultLogin: the login is gone, and private objects with it. First repair: a new login.
	faultLogin
	// faultKey: the handle of the key is. First repair: a new login, because a token without one shows no private key.
	faultKey
	// faultToken: the token is not in its slot, or not recognised. First repair: a new login.
	faultToken
	// faultDevice: the device had to give up what it knew. First repair: a new login.
	faultDevice
	// faultModule: the library needs C_Initialize, or its process is gone (isolation process). That is the repair.
	faultModule
	// faultHung: the call has not returned (isolation none). It cannot be ended, so the module must not be initialised again, and what
	// was asked might still be done. The caller gets the error, the session is left to the call, idle ones are set aside.
	faultHung
)

// repair is how much is made anew.
type repair int

const (
	repairNothing repair = iota
	repairSession        // all idle sessions are closed, the call runs on a new one
	repairLogin          // also the login, and the keys are found again
	repairModule         // also C_Finalize and C_Initialize, for all tokens of the module
)

// firstRepair is what is tried first against a fault.
func (f fault) firstRepair() repair {
	switch f {
	case faultGeneral, faultSession:
		return repairSession
	case faultLogin, faultKey, faultToken, faultDevice:
		return repairLogin
	case faultModule:
		return repairModule
	}
	return repairNothing
}

// faults has every code of PKCS#11 v2.40 §5 and 3.0's additions that the binding knows. Codes that are not in it count as
// faultGeneral.
var faults = map[pkcs11.Error]fault{
	pkcs11.CKR_OK: faultNone,

	pkcs11.CKR_SESSION_CLOSED:            faultSession,
	pkcs11.CKR_SESSION_HANDLE_INVALID:    faultSession,
	pkcs11.CKR_OPERATION_ACTIVE:          faultSession, // left by a call that did not come to its end
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: faultSession, // somebody has ended it
	pkcs11.CKR_FUNCTION_CANCELED:         faultSession,
	pkcs11.CKR_CANCEL:                    faultSession,
	pkcs11.CKR_SESSION_COUNT:             faultSession, // the pool has made room first, where it could

	pkcs11.CKR_USER_NOT_LOGGED_IN:    faultLogin,
	pkcs11.CKR_KEY_HANDLE_INVALID:    faultKey,
	pkcs11.CKR_OBJECT_HANDLE_INVALID: faultKey,
	pkcs11.CKR_SESSION_READ_ONLY:     faultLogin,
	pkcs11.CKR_USER_TOO_MANY_TYPES:   faultLogin,
	pkcs11.CKR_TOKEN_NOT_PRESENT:     faultToken,
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:  faultToken,
	pkcs11.CKR_SLOT_ID_INVALID:       faultToken,
	pkcs11.CKR_DEVICE_ERROR:          faultDevice,
	pkcs11.CKR_DEVICE_MEMORY:         faultDevice,
	pkcs11.CKR_DEVICE_REMOVED:        faultDevice,

	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:     faultModule,
	pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED: faultModule,

	pkcs11.CKR_GENERAL_ERROR:          faultGeneral,
	pkcs11.CKR_FUNCTION_FAILED:        faultGeneral,
	pkcs11.CKR_HOST_MEMORY:            faultGeneral,
	pkcs11.CKR_CANT_LOCK:              faultGeneral,
	pkcs11.CKR_MUTEX_BAD:              faultGeneral,
	pkcs11.CKR_MUTEX_NOT_LOCKED:       faultGeneral,
	pkcs11.CKR_NEED_TO_CREATE_THREADS: faultGeneral,
	pkcs11.CKR_NEW_PIN_MODE:           faultGeneral,
	pkcs11.CKR_NEXT_OTP:               faultGeneral,
	pkcs11.CKR_NO_EVENT:               faultGeneral,
	pkcs11.CKR_RANDOM_NO_RNG:          faultGeneral,
	pkcs11.CKR_STATE_UNSAVEABLE:       faultGeneral,
	pkcs11.CKR_SAVED_STATE_INVALID:    faultGeneral,
	pkcs11.CKR_FUNCTION_REJECTED:      faultGeneral,
	pkcs11.CKR_VENDOR_DEFINED:         faultGeneral,

	pkcs11.CKR_PIN_INCORRECT:            faultPIN,
	pkcs11.CKR_PIN_INVALID:              faultPIN,
	pkcs11.CKR_PIN_LEN_RANGE:            faultPIN,
	pkcs11.CKR_PIN_EXPIRED:              faultPIN,
	pkcs11.CKR_PIN_LOCKED:               faultPIN,
	pkcs11.CKR_PIN_TOO_WEAK:             faultPIN,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: faultPIN,
	// With C_Login: success, the login is the process's.
	pkcs11.CKR_USER_ALREADY_LOGGED_IN: faultRequest,
	// Another user (the security officer) holds the token in this process: nothing that we may end.
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: faultRequest,

	pkcs11.CKR_ARGUMENTS_BAD:                    faultRequest,
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:              faultRequest,
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:              faultRequest,
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:           faultRequest,
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:          faultRequest,
	pkcs11.CKR_BUFFER_TOO_SMALL:                 faultRequest,
	pkcs11.CKR_DATA_INVALID:                     faultRequest,
	pkcs11.CKR_DATA_LEN_RANGE:                   faultRequest,
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:            faultRequest,
	pkcs11.CKR_ENCRYPTED_DATA_INVALID:           faultRequest,
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE:         faultRequest,
	pkcs11.CKR_EXCEEDED_MAX_ITERATIONS:          faultRequest,
	pkcs11.CKR_FIPS_SELF_TEST_FAILED:            faultDevice,
	pkcs11.CKR_LIBRARY_LOAD_FAILED:              faultModule,
	pkcs11.CKR_PUBLIC_KEY_INVALID:               faultRequest,
	pkcs11.CKR_FUNCTION_NOT_PARALLEL:            faultRequest,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:           faultRequest,
	pkcs11.CKR_INFORMATION_SENSITIVE:            faultRequest,
	pkcs11.CKR_KEY_CHANGED:                      faultRequest,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:       faultRequest,
	pkcs11.CKR_KEY_INDIGESTIBLE:                 faultRequest,
	pkcs11.CKR_KEY_NEEDED:                       faultRequest,
	pkcs11.CKR_KEY_NOT_NEEDED:                   faultRequest,
	pkcs11.CKR_KEY_NOT_WRAPPABLE:                faultRequest,
	pkcs11.CKR_KEY_SIZE_RANGE:                   faultRequest,
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:            faultRequest,
	pkcs11.CKR_KEY_UNEXTRACTABLE:                faultRequest,
	pkcs11.CKR_MECHANISM_INVALID:                faultRequest,
	pkcs11.CKR_MECHANISM_PARAM_INVALID:          faultRequest,
	pkcs11.CKR_RANDOM_SEED_NOT_SUPPORTED:        faultRequest,
	pkcs11.CKR_SESSION_EXISTS:                   faultRequest,
	pkcs11.CKR_SESSION_PARALLEL_NOT_SUPPORTED:   faultRequest,
	pkcs11.CKR_SESSION_READ_ONLY_EXISTS:         faultRequest,
	pkcs11.CKR_SESSION_READ_WRITE_SO_EXISTS:     faultRequest,
	pkcs11.CKR_SIGNATURE_INVALID:                faultRequest,
	pkcs11.CKR_SIGNATURE_LEN_RANGE:              faultRequest,
	pkcs11.CKR_TEMPLATE_INCOMPLETE:              faultRequest,
	pkcs11.CKR_TEMPLATE_INCONSISTENT:            faultRequest,
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:            faultRequest,
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID:    faultRequest,
	pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE:        faultRequest,
	pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: faultRequest,
	pkcs11.CKR_USER_TYPE_INVALID:                faultRequest,
	pkcs11.CKR_WRAPPED_KEY_INVALID:              faultRequest,
	pkcs11.CKR_WRAPPED_KEY_LEN_RANGE:            faultRequest,
	pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID:      faultRequest,
	pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE:          faultRequest,
	pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT:   faultRequest,
}

// faultOf classes the error of a call.
func faultOf(err error) fault {
	var code pkcs11.Error
	switch {
	case err == nil || errors.Is(err, ErrLost) || errors.Is(err, ErrDistrusted) || errors.Is(err, ErrWrapped):
		return faultNone
	case errors.Is(err, ErrPINRefused):
		return faultPIN
	case errors.Is(err, errNotFoundAgain):
		return faultKey
	case errors.Is(err, cryptoki.ErrGone):
		return faultModule
	case hangs(err) != nil:
		return faultHung
	case !errors.As(err, &code):
		return faultNone
	}
	if f, known := faults[code]; known {
		return f
	}
	return faultGeneral
}
