package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// ErrSealed means that the body is there but this journal was opened without the keys (a replica, or OpenReadOnly).
var ErrSealed = errors.New("the body is sealed and this journal was opened without its keys")

// saltSize is the octets of salt before a body: with them, nobody can guess a body from its digest.
const saltSize = 32

// The additional data of the two sealings: neither can be taken for the other.
const (
	bodyLabel = "zegel journal body v1"
	keyLabel  = "zegel journal key v1"
)

// sealer seals bodies, each under a key of its own, and wraps those keys under the journal's key-encryption key.
// Safe for concurrent use.
type sealer struct{ kek cipher.AEAD }

func newSealer(kek []byte) (*sealer, error) {
	if len(kek) != 32 {
		return nil, fmt.Errorf("key-encryption key has %d octets, not 32", len(kek))
	}
	aead, err := newGCM(kek)
	return &sealer{aead}, err
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal returns salt and body sealed under a fresh key, that key wrapped, and SHA-256(salt || body).
// The key seals once only, so its nonce is all zero; the wrapping's is random, and the wrapped key is bound to the digest.
func (s *sealer) seal(body []byte) (sealed, key []byte, digest [32]byte, err error) {
	var random [saltSize + 32 + 12]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	salt, bodyKey, nonce := random[:saltSize], random[saltSize:saltSize+32], random[saltSize+32:]

	aead, err := newGCM(bodyKey)
	if err != nil {
		return nil, nil, digest, fmt.Errorf("seal body: %w", err)
	}
	buffer := make([]byte, 0, saltSize+len(body)+aead.Overhead())
	buffer = append(append(buffer, salt...), body...)
	digest = sha256.Sum256(buffer)
	sealed = aead.Seal(buffer[:0], make([]byte, 12), buffer, []byte(bodyLabel))
	key = s.kek.Seal(append(make([]byte, 0, 12+32+16), nonce...), nonce, bodyKey, keyData(digest[:]))
	return sealed, key, digest, nil
}

// open reverses seal and checks the digest.
func (s *sealer) open(sealed, key, digest []byte) (body []byte, err error) {
	if len(key) != 12+32+16 {
		return nil, fmt.Errorf("wrapped key has %d octets, not 60", len(key))
	}
	bodyKey, err := s.kek.Open(nil, key[:12], key[12:], keyData(digest))
	if err != nil {
		return nil, errors.New("wrapped key does not open: altered, of another entry, or of another journal")
	}
	aead, err := newGCM(bodyKey)
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	plain, err := aead.Open(nil, make([]byte, 12), sealed, []byte(bodyLabel))
	if err != nil {
		return nil, errors.New("sealed body does not open: altered, or of another entry")
	}
	if sum := sha256.Sum256(plain); len(plain) < saltSize || string(sum[:]) != string(digest) {
		return nil, errors.New("body does not match the digest in its leaf")
	}
	return plain[saltSize:], nil
}

func keyData(digest []byte) []byte { return append([]byte(keyLabel), digest...) }
