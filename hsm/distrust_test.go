package hsm

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"errors"
	"io"
	"testing"
	"time"
)

// faultySigner signs something else than it is asked to, as a processor or memory that fails does.
type faultySigner struct{ crypto.Signer }

func (f faultySigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[0] ^= 1
	return f.Signer.Sign(r, digest, o)
}

// A soft key that signs wrongly, with whatever scheme, signs nothing any more; others do.
func TestSoftDistrust(t *testing.T) {
	tokens := New(Config{})
	for _, a := range KeyAlgorithms() {
		signer, err := newSoftSigner(a)
		if err != nil {
			t.Fatal(err)
		}
		var all []crypto.SignerOpts
		switch a {
		case Ed25519:
			all = []crypto.SignerOpts{crypto.Hash(0)}
		case RSA3072, RSA4096:
			all = []crypto.SignerOpts{crypto.SHA256, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}}
		default:
			all = []crypto.SignerOpts{crypto.SHA256, crypto.SHA3_256}
		}
		for _, options := range all {
			good, bad := tokens.newSoftKey("softtoken:object=good", signer), tokens.newSoftKey("softtoken:object=bad", faultySigner{signer})
			for range 2 {
				if signature, err := bad.Sign(nil, make([]byte, 32), options); !errors.Is(err, ErrDistrusted) || signature != nil {
					t.Errorf("%s with %v: %x, %v; want ErrDistrusted", a, options, signature, err)
				}
				if _, err := good.Sign(nil, make([]byte, 32), options); err != nil {
					t.Errorf("%s with %v: %v", a, options, err)
				}
			}
		}
	}
}

// A key that signs wrongly gets no figures: being fast would be no use.
func TestBenchWrongSignature(t *testing.T) {
	tokens := New(Config{})
	for _, a := range KeyAlgorithms() {
		signer, err := newSoftSigner(a)
		if err != nil {
			t.Fatal(err)
		}
		key := tokens.newSoftKey("softtoken:", faultySigner{signer})
		b := &bench{key: key, sessions: 1, options: benchHash(key.public)}
		if r, err := b.run(t.Context(), time.Millisecond); !errors.Is(err, ErrDistrusted) {
			t.Errorf("%s: %+v, %v, want an error", a, r, err)
		}
	}
}

// The bench's signer does what Sign does, but for the verification: wrong signatures do not stop it after the first was right.
func TestBenchDoesNotVerify(t *testing.T) {
	signer, err := newSoftSigner(P256)
	if err != nil {
		t.Fatal(err)
	}
	key := New(Config{}).newSoftKey("softtoken:", faultySigner{signer})
	if _, err := key.sign(make([]byte, 32), crypto.SHA256, unverified); err != nil {
		t.Errorf("sign for a measurement: %v", err)
	}
	if _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrDistrusted) {
		t.Errorf("sign: %v", err)
	}
}

// forgetful seals other things than it is given, or answers as a fault that passes does.
type forgetful struct {
	softSecret
	wrong     bool // for ever
	transient int  // so many openings fail
	lost      error
}

func (f *forgetful) seal(iv, plaintext, additional []byte) ([]byte, []byte, error) {
	if f.wrong {
		plaintext = make([]byte, len(plaintext))
	}
	return f.softSecret.seal(iv, plaintext, additional)
}

func (f *forgetful) open(iv, ciphertext, additional []byte) ([]byte, error) {
	if f.transient > 0 {
		f.transient--
		return nil, ErrWrapped
	}
	return f.softSecret.open(iv, ciphertext, additional)
}

func (f *forgetful) distrust(cause error) error {
	f.lost = cause
	return ErrDistrusted
}

func newTestSecret(t *testing.T) softSecret {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return softSecret{&inMemory[cipher.AEAD]{there: true, value: gcm}}
}

// A secret that would not come back is not taken for wrapped; faults on the way, and a token that opens nothing for a while, cost no trust.
func TestWrapChecked(t *testing.T) {
	for _, c := range []struct {
		wrong     bool
		transient int
		good      bool
	}{{good: true}, {wrong: true}, {transient: 1, good: true}, {transient: 2}} {
		secret := &forgetful{softSecret: newTestSecret(t), wrong: c.wrong, transient: c.transient}
		w := &WrappingKey{name: "softtoken:", secret: secret, gate: &gate{}}
		wrapped, err := w.Wrap([]byte("the key of a journal"))
		if c.good && (err != nil || secret.lost != nil) || !c.good && (!errors.Is(err, ErrDistrusted) || wrapped != nil || secret.lost == nil) {
			t.Errorf("%+v: %x, %v, lost %v", c, wrapped, err, secret.lost)
		}
	}
	secret := &forgetful{softSecret: newTestSecret(t), transient: 3}
	w := &WrappingKey{name: "softtoken:", secret: secret, gate: &gate{}}
	if wrapped, err := w.Wrap([]byte("the key of a journal")); !errors.Is(err, ErrUnavailable) || wrapped != nil || secret.lost != nil {
		t.Errorf("wrap while nothing opens: %x, %v, lost %v", wrapped, err, secret.lost)
	}
}
