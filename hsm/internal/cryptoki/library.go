// Package cryptoki calls a PKCS#11 library, in this process or in one of its own that can be killed.
//
// [Open] loads one into this process. A call of it lasts as long as the library likes, and a crash of the library is one of the process.
package cryptoki

import "github.com/miekg/pkcs11"

// Library is what package hsm asks of a PKCS#11 library; each method is the C_ function of its name, except where it says otherwise.
// Errors are a [pkcs11.Error], the code that the library answered with, or wrap one. It is safe for concurrent use, a session is not
// (PKCS#11 v2.40 §5.2). The parameters of mechanisms hold no pointers.
type Library interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	GetInfo() (pkcs11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error)

	// InitToken, InitPIN and Login hand the library the caller's memory: no copy of a PIN stays behind.
	InitToken(slot uint, pin []byte, label string) error
	InitPIN(session pkcs11.SessionHandle, pin []byte) error
	Login(session pkcs11.SessionHandle, user uint, pin []byte) error
	Logout(pkcs11.SessionHandle) error

	OpenSession(slot, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	GetSessionInfo(pkcs11.SessionHandle) (pkcs11.SessionInfo, error)

	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(session pkcs11.SessionHandle, limit int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	SetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) error
	DestroyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle) error

	GenerateKey(pkcs11.SessionHandle, []*pkcs11.Mechanism, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (publicKey, privateKey pkcs11.ObjectHandle, err error)
	WrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	UnwrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)

	// SignOnce is C_SignInit, C_Login as CKU_CONTEXT_SPECIFIC where contextPIN is not nil (for keys with CKA_ALWAYS_AUTHENTICATE), and one
	// C_Sign. An error is a [CallError]. After one, the session may have an operation that is active: close it, unless the
	// code says that the token turned the request down.
	SignOnce(session pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, message, contextPIN []byte) ([]byte, error)
	// EncryptGCM is C_EncryptInit and C_Encrypt by CKM_AES_GCM with a tag of 128 bits. usedIV is iv, or what the token chose instead. An
	// error is a [CallError].
	EncryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, plaintext []byte) (usedIV, ciphertext []byte, err error)
	// DecryptGCM is the opposite.
	DecryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, ciphertext []byte) ([]byte, error)
}

// CallError says which of several functions of one method failed.
type CallError struct {
	Function string // C_Sign
	Err      error  // a pkcs11.Error
}

func (e *CallError) Error() string { return e.Function + ": " + e.Err.Error() }

func (e *CallError) Unwrap() error { return e.Err }
