package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

// A wrapped secret is 1 byte version, 12 bytes IV, the ciphertext, 16 bytes tag: AES-256-GCM (SP 800-38D) with the version as
// additional data. The key does it inside the token by C_Encrypt and C_Decrypt, which SoftHSM 2.6 and HSMs have alike; a
// C_WrapKey would first need the secret as an extractable object on the token.
const (
	wrapVersion = 1
	ivSize      = 12
	tagSize     = 16
	// maxSecret bounds what Wrap takes, in bytes: it is for keys.
	maxSecret = 4096
)

// WrappingKey wraps and unwraps short secrets inside the token. Safe for concurrent use.
type WrappingKey struct {
	name   string // URI without its query
	secret secretKey
	gate   *gate
	group  []*WrappingKey // the same key on several tokens; nil for one
}

// secretKey is the AES-256 key that a token or a soft token has.
type secretKey interface {
	// seal returns the IV it used: some HSMs choose it themselves.
	seal(iv, plaintext, additional []byte) (usedIV, ciphertext []byte, err error)
	open(iv, ciphertext, additional []byte) ([]byte, error)
	describe(*KeyInfo) error
	// distrust takes the token out of service for cause and returns what calls fail with from now on.
	distrust(cause error) error
}

// Wrap encrypts secret, of 1 to 4096 bytes, under the token's key with a fresh random IV. The result is 29 bytes longer. It was opened
// again and compared: GCM's tag shows a wrong ciphertext to whoever opens it, and by then the secret may be nowhere else. One that
// does not open while others do takes the token out of service (ErrDistrusted).
func (w *WrappingKey) Wrap(secret []byte) ([]byte, error) {
	if len(secret) == 0 || len(secret) > maxSecret {
		return nil, fmt.Errorf("wrap with %s: a secret of %d bytes, 1 to %d are possible", w.name, len(secret), maxSecret)
	}
	if w.group != nil {
		return w.first(func(m *WrappingKey) ([]byte, error) { return m.Wrap(secret) })
	}
	if err := w.gate.enter(); err != nil {
		return nil, fmt.Errorf("wrap with %s: %w", w.name, err)
	}
	defer w.gate.leave()
	iv := make([]byte, ivSize)
	rand.Read(iv) // never fails: it ends the process instead
	iv, ciphertext, err := w.secret.seal(iv, secret, []byte{wrapVersion})
	if err != nil {
		return nil, fmt.Errorf("wrap with %s: %w", w.name, err)
	}
	if len(iv) != ivSize || len(ciphertext) != len(secret)+tagSize {
		return nil, fmt.Errorf("wrap with %s: the token answered with an IV of %d and a ciphertext of %d bytes for %d", w.name, len(iv), len(ciphertext), len(secret))
	}
	wrapped := append(append([]byte{wrapVersion}, iv...), ciphertext...)
	if err := w.checkOpens(wrapped, secret); err != nil {
		return nil, fmt.Errorf("wrap with %s: %w", w.name, err)
	}
	return wrapped, nil
}

// checkOpens tries twice: tokens answer a transient fault and a tag that does not fit by one code. A token that opens nothing at all, not even
// another secret, has given no wrong answer: it does not decrypt for the moment.
func (w *WrappingKey) checkOpens(wrapped, secret []byte) error {
	var refused error
	for range 2 {
		again, err := w.secret.open(wrapped[1:1+ivSize], wrapped[1+ivSize:], wrapped[:1])
		same := subtle.ConstantTimeCompare(again, secret) == 1
		clear(again)
		switch {
		case err == nil && same:
			return nil
		case err == nil:
			return w.secret.distrust(errors.New("a secret that it wrapped opens as another one"))
		case !errors.Is(err, ErrWrapped):
			return err
		}
		refused = err
	}
	if !w.opensAnother() {
		return fmt.Errorf("%w: it opens nothing that it wraps: %w", ErrUnavailable, refused)
	}
	return w.secret.distrust(errors.New("a secret that it wrapped does not open again"))
}

// opensAnother tries the token with a secret that is none.
func (w *WrappingKey) opensAnother() bool {
	iv, probe := make([]byte, ivSize), make([]byte, 32)
	rand.Read(iv)
	rand.Read(probe)
	iv, sealed, err := w.secret.seal(iv, probe, []byte{wrapVersion})
	if err != nil {
		return false
	}
	opened, err := w.secret.open(iv, sealed, []byte{wrapVersion})
	return err == nil && bytes.Equal(opened, probe)
}

// Unwrap returns the secret that Wrap was given. Bytes that were changed, or wrapped by another key, are ErrWrapped. The caller
// wipes the secret after use.
func (w *WrappingKey) Unwrap(wrapped []byte) ([]byte, error) {
	size := len(wrapped) - 1 - ivSize - tagSize
	if size < 1 || size > maxSecret || wrapped[0] != wrapVersion {
		return nil, fmt.Errorf("unwrap with %s: not of the form Wrap makes: %w", w.name, ErrWrapped)
	}
	if w.group != nil {
		return w.first(func(m *WrappingKey) ([]byte, error) { return m.Unwrap(wrapped) })
	}
	if err := w.gate.enter(); err != nil {
		return nil, fmt.Errorf("unwrap with %s: %w", w.name, err)
	}
	defer w.gate.leave()
	secret, err := w.secret.open(wrapped[1:1+ivSize], wrapped[1+ivSize:], wrapped[:1])
	if err != nil {
		return nil, fmt.Errorf("unwrap with %s: %w", w.name, err)
	}
	if len(secret) != size {
		clear(secret)
		return nil, fmt.Errorf("unwrap with %s: %d bytes came out, not %d: %w", w.name, len(secret), size, ErrWrapped)
	}
	return secret, nil
}

// tokenSecret is an AES key object.
type tokenSecret struct {
	token *token
	uri   URI
	key   *handle
}

// findSecretKey returns the one secret key that u names.
func (t *token) findSecretKey(session pkcs11.SessionHandle, u URI) (object, error) {
	if u.Object == "" && len(u.ID) == 0 {
		return 0, errors.New("the URI names no object: add object=LABEL or id=%XX… to it")
	}
	if u.Type != "" && u.Type != "secret-key" {
		return 0, fmt.Errorf("the URI says type=%s, a secret key is wanted", u.Type)
	}
	found, err := t.find(session, u.template(pkcs11.CKO_SECRET_KEY))
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("find secret key on token %q: none of that name: check object and id: %w", t.label, ErrNotFound)
	case len(found) > 1:
		return 0, fmt.Errorf("find secret key on token %q: %d of that name, one is wanted: %s", t.label, len(found), t.distinguish(session, found, u))
	}
	return found[0], nil
}

// wrappingKey opens the key that u names and refuses one that could leave the token.
func (t *token) wrappingKey(owner *Tokens, u URI) (*WrappingKey, error) {
	if !t.has(pkcs11.CKM_AES_GCM) {
		return nil, fmt.Errorf("token %q has no AES-GCM (CKM_AES_GCM): wrapping keys need it", t.label)
	}
	var w *WrappingKey
	err := t.lookUp(u, func(session pkcs11.SessionHandle) error {
		key, err := t.findSecretKey(session, u)
		if err != nil {
			return err
		}
		if err := t.checkAES256(session, key); err != nil {
			return err
		}
		again := func(session pkcs11.SessionHandle) (object, error) {
			key, err := t.findSecretKey(session, u)
			if err != nil {
				return 0, err
			}
			return key, t.checkAES256(session, key)
		}
		t.reachable(u)
		w = &WrappingKey{name: u.Name(), secret: &tokenSecret{t, u, t.newHandle(key, again)}, gate: &owner.gate}
		return nil
	})
	return w, err
}

func (t *token) checkAES256(session pkcs11.SessionHandle, key object) error {
	kind, err := t.attribute(session, key, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return err
	}
	length, err := t.attribute(session, key, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return err
	}
	k, _ := ulong(kind)
	n, _ := ulong(length)
	if k != pkcs11.CKK_AES || n != 32 {
		return fmt.Errorf("the secret key on token %q is of CKA_KEY_TYPE 0x%x and %d bytes: an AES key of 32 is wanted", t.label, k, n)
	}
	return t.checkStays(session, key)
}

func (t *token) generateWrappingKey(owner *Tokens, u URI) (*WrappingKey, error) {
	if !t.has(pkcs11.CKM_AES_KEY_GEN) || !t.has(pkcs11.CKM_AES_GCM) {
		return nil, fmt.Errorf("token %q makes no AES keys or has no AES-GCM: wrapping keys need both", t.label)
	}
	err := t.administer(u, func(session pkcs11.SessionHandle) error {
		id, err := t.newID(session, u)
		if err != nil {
			return err
		}
		template := append(protectedTemplate(pkcs11.CKO_SECRET_KEY, u.Object, id),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
			pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
			pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
			pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
			pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false))
		key, err := t.generateSecret(session, template)
		if err != nil {
			return t.madeAnyway(session, id, fmt.Errorf("make AES key on token %q: C_GenerateKey: %w", t.label, err))
		}
		u.ID = id
		if err := t.checkSecretKey(session, u, key); err != nil {
			return t.discard(session, err, key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made(t.wrappingKey(owner, u))
}

func (t *token) checkSecretKey(session pkcs11.SessionHandle, u URI, made object) error {
	found, err := t.findSecretKey(session, u)
	if err != nil {
		return err
	}
	if found != made {
		return fmt.Errorf("token %q shows another key under the new one's name", t.label)
	}
	return t.checkProtected(session, made, expected{neverExtractable, []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT},
		[]uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_SIGN, pkcs11.CKA_DERIVE}})
}

func (s *tokenSecret) seal(iv, plaintext, additional []byte) (usedIV, ciphertext []byte, err error) {
	err = s.token.run(s.uri, s.key, func(session pkcs11.SessionHandle, key object) error {
		if usedIV, ciphertext, err = s.token.ctx.EncryptGCM(session, key, iv, additional, plaintext); err != nil {
			return fmt.Errorf("token %q: %w", s.token.label, err)
		}
		return nil
	})
	return usedIV, ciphertext, err
}

func (s *tokenSecret) distrust(cause error) error { return s.token.distrust(cause) }

func (s *tokenSecret) open(iv, ciphertext, additional []byte) (plaintext []byte, err error) {
	err = s.token.run(s.uri, s.key, func(session pkcs11.SessionHandle, key object) error {
		if plaintext, err = s.token.ctx.DecryptGCM(session, key, iv, additional, ciphertext); err != nil {
			return explainDecrypt(s.token.label, err)
		}
		return nil
	})
	return plaintext, err
}

// explainDecrypt sorts the answers of C_Decrypt, which are not those of C_DecryptInit. A tag that does not fit is CKR_ENCRYPTED_DATA_INVALID by the standard,
// CKR_GENERAL_ERROR with SoftHSM 2.6 and CKR_FUNCTION_FAILED with others.
func explainDecrypt(label string, err error) error {
	var call *cryptoki.CallError
	if !errors.As(err, &call) || call.Function != "C_Decrypt" {
		return fmt.Errorf("token %q: %w", label, err)
	}
	for _, code := range []pkcs11.Error{
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID,
		pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED,
	} {
		if errors.Is(err, code) {
			return fmt.Errorf("token %q: %w: %w", label, err, ErrWrapped)
		}
	}
	return fmt.Errorf("token %q: %w", label, err)
}
