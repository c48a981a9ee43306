// Package cryptoki calls a PKCS#11 library, in this process or in one of its own that can be killed.
//
// [Open] loads one into this process. A crash of the library is one of the process; [Limit] frees the callers of calls that do not return, but the
// calls stay inside. [Isolate] runs it in a process of its own, which is this program started again ([Serve]): a call that does not return is ended with
// that process, and a crash is one of that process.
package cryptoki

import "github.com/miekg/pkcs11"

// Library is what package hsm asks of a PKCS#11 library; each method is the C_ function of its name, except where it says otherwise.
// Errors are a [pkcs11.Error], the code that the library answered with, or wrap one. It is safe for concurrent use, a session is not
// (PKCS#11 v2.40 §5.2). The parameters of mechanisms hold no pointers, and where the
// library has a process of its own, no attribute is an array of attributes.
type Library interface {
	Initialize() error
	Finalize() error
	// Stuck is how many calls have not returned within their limit and are inside still (HungError). While there are any, the library must not be
	// finalized.
	Stuck() int
	// Abort ends every call that is inside, and with them the process of the library, as far as it has one of its own.
	Abort(reason error)
	GetInfo() (pkcs11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error)

	// InitToken, InitPIN, SetPIN and Login hand the library the caller's memory: no copy of a PIN stays behind.
	InitToken(slot uint, pin []byte, label string) error
	InitPIN(session pkcs11.SessionHandle, pin []byte) error
	SetPIN(session pkcs11.SessionHandle, from, to []byte) error
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
	CreateObject(pkcs11.SessionHandle, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	CopyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
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
