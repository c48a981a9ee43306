package cryptoki

/*
#cgo linux LDFLAGS: -ldl
#include <stdlib.h>
#include "crossing.h"
*/
import "C"

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// local is a library in this process: the binding, and our own crossings beside it.
type local struct {
	*pkcs11.Ctx
	functions unsafe.Pointer // the library's CK_FUNCTION_LIST, which stays where it is
}

// Open loads the library at path, an absolute one, into this process, where it stays: some vendors' threads do not survive their
// code being unmapped.
func Open(path string) (Library, error) {
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("not a PKCS#11 library for this machine, or a library it needs is missing (ldd %s)", path)
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	functions := C.crossing_functions(name)
	if functions == nil {
		return nil, fmt.Errorf("C_GetFunctionList of %s gives no functions", path)
	}
	return &local{ctx, functions}, nil
}

func code(c C.ck_ulong) error {
	if c == pkcs11.CKR_OK {
		return nil
	}
	return pkcs11.Error(c)
}

// memory is where b is, and its length. An empty slice has an address, too: NULL means something else to PKCS#11.
func memory(b []byte) (unsafe.Pointer, C.ck_ulong) {
	if len(b) == 0 {
		return unsafe.Pointer(new(byte)), 0
	}
	return unsafe.Pointer(&b[0]), C.ck_ulong(len(b))
}

func (l *local) Login(session pkcs11.SessionHandle, user uint, pin []byte) error {
	at, length := memory(pin)
	return code(C.crossing_login(l.functions, C.ck_ulong(session), C.ck_ulong(user), at, length))
}

func (l *local) InitPIN(session pkcs11.SessionHandle, pin []byte) error {
	at, length := memory(pin)
	return code(C.crossing_init_pin(l.functions, C.ck_ulong(session), at, length))
}

func (l *local) InitToken(slot uint, pin []byte, label string) error {
	const labelSize = 32 // CK_TOKEN_INFO.label, padded with blanks (PKCS#11 v2.40 §3.2)
	if len(label) > labelSize {
		return pkcs11.Error(pkcs11.CKR_ARGUMENTS_BAD)
	}
	padded := append([]byte(label), bytes.Repeat([]byte(" "), labelSize-len(label))...)
	at, length := memory(pin)
	return code(C.crossing_init_token(l.functions, C.ck_ulong(slot), at, length, unsafe.Pointer(&padded[0])))
}

const (
	// signatureRoom is as long as a signature of RSA-4096, in octets: none that we ask for is longer.
	signatureRoom = 512
	// signatureLimit bounds what a library may want instead.
	signatureLimit = 1 << 16
)

func (l *local) SignOnce(session pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, message, contextPIN []byte) ([]byte, error) {
	var parameter, pin unsafe.Pointer
	var parameterLength, pinLength C.ck_ulong
	if len(m.Parameter) > 0 {
		parameter, parameterLength = memory(m.Parameter)
	}
	if contextPIN != nil {
		pin, pinLength = memory(contextPIN)
	}
	text, textLength := memory(message)
	signature := make([]byte, signatureRoom)
	answer := C.crossing_sign(l.functions, C.ck_ulong(session), C.ck_ulong(m.Mechanism), parameter, parameterLength, C.ck_ulong(key),
		pin, pinLength, text, textLength, unsafe.Pointer(&signature[0]), signatureRoom)
	if answer.code == pkcs11.CKR_BUFFER_TOO_SMALL && answer.function == C.CROSSING_SIGN && answer.length > signatureRoom && answer.length <= signatureLimit {
		signature = make([]byte, answer.length)
		answer = C.crossing_sign_again(l.functions, C.ck_ulong(session), text, textLength, unsafe.Pointer(&signature[0]), C.ck_ulong(len(signature)))
	}
	if err := code(answer.code); err != nil {
		return nil, &CallError{crossed(answer.function), err}
	}
	if answer.length > C.ck_ulong(len(signature)) {
		return nil, &CallError{"C_Sign", pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)} // it has written beyond the room it was given, or lies
	}
	return signature[:answer.length:answer.length], nil
}

// crossed names the function of a crossing that answered.
func crossed(function C.int) string {
	switch function {
	case C.CROSSING_SIGN_INIT:
		return "C_SignInit"
	case C.CROSSING_LOGIN:
		return "C_Login"
	}
	return "C_Sign"
}

// gcmTag is the length of the tag in bits.
const gcmTag = 128

func (l *local) EncryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, plaintext []byte) (usedIV, ciphertext []byte, err error) {
	params := pkcs11.NewGCMParams(iv, additional, gcmTag) // the token may write its own IV there
	defer params.Free()
	if err := l.EncryptInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, nil, &CallError{"C_EncryptInit", err}
	}
	if ciphertext, err = l.Encrypt(session, plaintext); err != nil {
		return nil, nil, &CallError{"C_Encrypt", err}
	}
	return params.IV(), ciphertext, nil
}

func (l *local) DecryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, ciphertext []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(iv, additional, gcmTag)
	defer params.Free()
	if err := l.DecryptInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, &CallError{"C_DecryptInit", err}
	}
	plaintext, err := l.Decrypt(session, ciphertext)
	if err != nil {
		return nil, &CallError{"C_Decrypt", err}
	}
	return plaintext, nil
}

// UnwrapKey is the binding's, which does not survive a wrapped key without octets.
func (l *local) UnwrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if len(wrapped) == 0 {
		return 0, pkcs11.Error(pkcs11.CKR_WRAPPED_KEY_LEN_RANGE)
	}
	return l.Ctx.UnwrapKey(session, m, unwrapping, wrapped, a)
}
