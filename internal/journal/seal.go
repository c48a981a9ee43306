package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrSealed means that the body is there but this journal was opened without the keys (a replica, or OpenReadOnly).
var ErrSealed = errors.New("the body is sealed and this journal was opened without its keys")

// saltSize is the octets of salt before a body: with them, nobody can guess a body from its digest.
const saltSize = 32

// wrappedSize is the octets of a wrapped key: 32 of the key and the tag.
const wrappedSize = 32 + 16

// What the key-encryption key and the body keys are used for: no result of one use can be taken for another's.
const (
	bodyLabel = "zegel journal body v1"
	keyLabel  = "zegel journal key v1"
)

// sealer seals bodies, each under a key of its own, and wraps those keys under the journal's key-encryption key.
// Safe for concurrent use.
type sealer struct{ kek []byte }

func newSealer(kek []byte) (*sealer, error) {
	if len(kek) != 32 {
		return nil, fmt.Errorf("key-encryption key has %d octets, not 32", len(kek))
	}
	return &sealer{append([]byte(nil), kek...)}, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealBody returns salt and body sealed under a fresh key, that key, and SHA-256(salt || body).
// The key seals once only, so its nonce is all zero.
func sealBody(body []byte) (sealed, key []byte, digest [32]byte, err error) {
	var random [saltSize + 32]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	salt, key := random[:saltSize], random[saltSize:]

	aead, err := newGCM(key)
	if err != nil {
		return nil, nil, digest, fmt.Errorf("seal body: %w", err)
	}
	buffer := make([]byte, 0, saltSize+len(body)+aead.Overhead())
	buffer = append(append(buffer, salt...), body...)
	digest = sha256.Sum256(buffer)
	sealed = aead.Seal(buffer[:0], zeroNonce(), buffer, []byte(bodyLabel))
	return sealed, key, digest, nil
}

// wrap wraps the body's key for the leaf that holds the body's digest; the leaf's time may be set afterwards.
func (s *sealer) wrap(key, digest, leaf []byte) ([]byte, error) {
	aead, err := s.wrapping(digest)
	if err != nil {
		return nil, fmt.Errorf("wrap body's key: %w", err)
	}
	return aead.Seal(make([]byte, 0, wrappedSize), zeroNonce(), key, wrappedWith(leaf)), nil
}

// open reverses sealBody and wrap, and checks the digest: nothing but the body of that very leaf opens.
func (s *sealer) open(sealed, wrapped, digest, leaf []byte) (body []byte, err error) {
	if len(wrapped) != wrappedSize {
		return nil, fmt.Errorf("wrapped key has %d octets, not %d", len(wrapped), wrappedSize)
	}
	aead, err := s.wrapping(digest)
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	key, err := aead.Open(nil, zeroNonce(), wrapped, wrappedWith(leaf))
	if err != nil {
		return nil, errors.New("wrapped key does not open: it or the leaf was altered, or it is of another entry or journal")
	}
	if aead, err = newGCM(key); err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	plain, err := aead.Open(nil, zeroNonce(), sealed, []byte(bodyLabel))
	if err != nil {
		return nil, errors.New("sealed body does not open: altered, or of another entry")
	}
	if sum := sha256.Sum256(plain); len(plain) < saltSize || string(sum[:]) != string(digest) {
		return nil, errors.New("body does not match the digest in its leaf")
	}
	return plain[saltSize:], nil
}

// wrapping is the cipher that wraps one body's key. Its own key is derived for the salted digest of that body, so that it
// wraps once only and no number of entries wears the key-encryption key out: random nonces under one key, as AES-GCM has them,
// end at 2^32 (SP 800-38D §8.3). The key-encryption key is uniform already: it needs no HKDF-Extract (RFC 5869 §3.3).
func (s *sealer) wrapping(digest []byte) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha256.New, s.kek, keyLabel+string(digest), 32)
	if err != nil {
		return nil, err
	}
	return newGCM(key)
}

func zeroNonce() []byte { return make([]byte, 12) }

// wrappedWith is the additional data of a wrapped key: its leaf without the time, which is stamped later. A leaf whose fields
// were changed under its body does not open it.
func wrappedWith(leaf []byte) []byte {
	return append(append(make([]byte, 0, len(leaf)), leaf[:2]...), leaf[leafHeader:]...)
}
