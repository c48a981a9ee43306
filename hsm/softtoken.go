package hsm

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"filippo.io/age"

	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
)

const (
	// softWorkFactor is the scrypt cost of a soft token's key file: N = 2^15, r = 8, 32 MiB. It makes each guess at the PIN, and each
	// opening of a key, cost some 90 ms of one core (EPYC, 2026).
	softWorkFactor = 15
	// maxSoftWorkFactor is the cost of the dearest file that is opened, under a second: a larger one is not ours.
	maxSoftWorkFactor = 18
	// maxSoftFile bounds a key file, in bytes; one of RSA-4096 has some 3,500.
	maxSoftFile = 65536
	// softAES256 is the algorithm of a wrapping key in its file.
	softAES256 = "aes256"
)

// softFile is what a soft token's key file holds, in JSON, inside an age file with a passphrase (age-encryption.org/v1, scrypt).
type softFile struct {
	Version   int    `json:"version"`   // 1
	Object    string `json:"object"`    // the name of the file, so that files cannot be exchanged
	Algorithm string `json:"algorithm"` // a KeyAlgorithm, or aes256
	Key       []byte `json:"key"`       // PKCS#8 DER (RFC 5958), or the 32 bytes of an AES key
}

func (u URI) softPath() string { return filepath.Join(u.Dir, u.Object+".age") }

// readSoftFile opens and decrypts the file of the key that u names. The caller wipes Key.
func (t *Tokens) readSoftFile(u URI) (softFile, error) {
	path := u.softPath()
	sealed, err := readPrivateFile(path, privateFile{limit: maxSoftFile})
	if errors.Is(err, fs.ErrNotExist) {
		return softFile{}, fmt.Errorf("open key file %s: no such file: check object and dir: %w", path, ErrNotFound)
	}
	if err != nil {
		return softFile{}, fmt.Errorf("open key file: %w", err)
	}
	var plain []byte
	err = t.pins.use(u, func(pin []byte) error {
		identity, err := age.NewScryptIdentity(text(pin))
		if err != nil {
			return fmt.Errorf("open key file %s: %w", path, err)
		}
		identity.SetMaxWorkFactor(maxSoftWorkFactor)
		opened, err := age.Decrypt(bytes.NewReader(sealed), identity)
		var noMatch *age.NoIdentityMatchError
		if errors.As(err, &noMatch) {
			return fmt.Errorf("open key file %s: %w: %s does not open it: correct the PIN, then zegel token activate where a daemon runs, else start again", path, ErrPINRefused, u.pinOrigin())
		}
		if err != nil {
			return fmt.Errorf("open key file %s: %w", path, err)
		}
		if plain, err = io.ReadAll(opened); err != nil {
			return fmt.Errorf("decrypt key file %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return softFile{}, err
	}
	defer clear(plain)
	f, err := parseSoftFile(plain, u.Object)
	if err != nil {
		return softFile{}, fmt.Errorf("read key file %s: %w", path, err)
	}
	return f, nil
}

func parseSoftFile(plain []byte, object string) (softFile, error) {
	var f softFile
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return softFile{}, err
	}
	if f.Version != 1 {
		return softFile{}, fmt.Errorf("version %d, this program reads version 1", f.Version)
	}
	if f.Object != object {
		return softFile{}, fmt.Errorf("it holds the key %q: the file was renamed", f.Object)
	}
	return f, nil
}

// writeSoftFile seals f and creates its file, and the folder where it is missing.
func (t *Tokens) writeSoftFile(u URI, f softFile) error {
	f.Version, f.Object = 1, u.Object
	plain, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	defer clear(plain)
	var sealed bytes.Buffer
	if err := t.pins.use(u, func(pin []byte) error { return t.sealSoftFile(&sealed, plain, text(pin)) }); err != nil {
		return err
	}
	if err := durable.MkdirAll(u.Dir, 0o700); err != nil {
		return fmt.Errorf("create folder of soft token: %w", err)
	}
	err = failpoint.Do(failpoint.WriteKeyFile, func() error { return durable.CreateFile(u.softPath(), sealed.Bytes(), 0o600) })
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create key file %s: %w: choose another name, or remove it first", u.softPath(), ErrExists)
	}
	if err == nil {
		return nil
	}
	if _, missing := os.Lstat(u.softPath()); missing == nil { // the last fsync, that of the folder, failed
		err = fmt.Errorf("%w: %w", ErrMade, err)
	}
	return fmt.Errorf("create key file: %w", err)
}

func (t *Tokens) sealSoftFile(to io.Writer, plain []byte, pin string) error {
	recipient, err := age.NewScryptRecipient(pin)
	if err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	recipient.SetWorkFactor(t.config.SoftWorkFactor)
	sealing, err := age.Encrypt(to, recipient)
	if err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	if _, err := sealing.Write(plain); err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	if err := sealing.Close(); err != nil {
		return fmt.Errorf("encrypt key: %w", err)
	}
	return nil
}

// destroySoft asks for the PIN first, as a token would.
func (t *Tokens) destroySoft(u URI) error {
	f, err := t.readSoftFile(u)
	if err != nil {
		return err
	}
	clear(f.Key)
	if err := os.Remove(u.softPath()); err != nil {
		return fmt.Errorf("remove key file: %w", err)
	}
	return nil
}

// forgettable is a key of a soft token that is in memory until its tokens are deactivated, and is read again when it is next used.
type forgettable interface{ forget() }

// inMemory is a T that its file is read for when it is not there. Safe for concurrent use.
type inMemory[T any] struct {
	read func() (T, error)

	mu    sync.Mutex
	there bool
	value T
}

func (m *inMemory[T]) get() (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.there {
		return m.value, nil
	}
	value, err := m.read()
	if err == nil {
		m.value, m.there = value, true
	}
	return value, err
}

// forget leaves the key to the garbage collector: the library's key types cannot be wiped.
func (m *inMemory[T]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var none T
	m.value, m.there = none, false
}

// remember has key forgotten when the tokens are deactivated.
func (t *Tokens) remember(key forgettable) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.soft != nil {
		t.soft[key] = true
	}
}

// softKey is a private key in memory.
type softKey struct {
	name   string // of its URI
	public crypto.PublicKey
	signer *inMemory[crypto.Signer]
	trust  trust
	needed atomic.Bool // it is in no key group
	owner  *Tokens
}

// newSoftKey is for a key that has no file, and stays in memory.
func (t *Tokens) newSoftKey(name string, signer crypto.Signer) *Key {
	private := &softKey{name: name, public: signer.Public(), signer: &inMemory[crypto.Signer]{there: true, value: signer}, owner: t}
	return &Key{name: name, public: private.public, private: private, gate: &t.gate}
}

func (t *Tokens) softKey(u URI) (*Key, error) {
	signer, err := t.readSoftSigner(u)
	if err != nil {
		return nil, err
	}
	k := t.newSoftKey(u.Name(), signer)
	private := k.private.(*softKey)
	private.signer.read = func() (crypto.Signer, error) {
		signer, err := t.readSoftSigner(u)
		if err == nil && !k.public.(publicKey).Equal(signer.Public()) {
			err = ErrLost
		}
		return signer, err
	}
	t.remember(private.signer)
	return k, nil
}

func (t *Tokens) readSoftSigner(u URI) (crypto.Signer, error) {
	f, err := t.readSoftFile(u)
	if err != nil {
		return nil, err
	}
	defer clear(f.Key)
	if f.Algorithm == softAES256 {
		return nil, fmt.Errorf("key file %s holds a wrapping key, a key pair is wanted: %w", u.softPath(), ErrNotFound)
	}
	return f.signer(u)
}

// signer reads the private key of u's file, which is of the algorithm that the file says.
func (f softFile) signer(u URI) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(f.Key)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", u.softPath(), err)
	}
	signer, ok := parsed.(crypto.Signer)
	if name, _ := algorithmOf(publicOf(signer, ok)); name != f.Algorithm {
		return nil, fmt.Errorf("read key file %s: it says %q and holds a %T", u.softPath(), f.Algorithm, parsed)
	}
	return signer, nil
}

func publicOf(signer crypto.Signer, ok bool) crypto.PublicKey {
	if !ok {
		return nil
	}
	return signer.Public()
}

func (t *Tokens) generateSoftKey(u URI, algorithm KeyAlgorithm) (*Key, error) {
	if err := checkSoftFree(u); err != nil {
		return nil, err
	}
	signer, err := newSoftSigner(algorithm)
	if err != nil {
		return nil, fmt.Errorf("make %s key: %w", algorithm, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("encode %s key: %w", algorithm, err)
	}
	defer clear(der)
	if err := t.writeSoftFile(u, softFile{Algorithm: string(algorithm), Key: der}); err != nil {
		return nil, err
	}
	return made(t.softKey(u)) // as a later process will read it
}

// checkSoftFree spares the making of a key that could not be stored; CreateFile decides.
func checkSoftFree(u URI) error {
	if _, err := os.Lstat(u.softPath()); err == nil {
		return fmt.Errorf("key file %s: %w: choose another name, or remove it first", u.softPath(), ErrExists)
	}
	return nil
}

func newSoftSigner(algorithm KeyAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key algorithm %q", algorithm)
}

// sign verifies, too: a bit that flips in memory, or a fault in the processor, makes wrong signatures as well as a broken device does,
// and one wrong RSA signature can give the key away (Boneh, DeMillo, Lipton 1997).
func (k *softKey) sign(s signing) ([]byte, error) {
	if err := k.trust.check(); err != nil {
		return nil, err
	}
	signature, err := k.compute(s)
	if err != nil {
		return nil, err
	}
	if !s.unverified && !s.verifies(k.public, signature) {
		return nil, k.distrust()
	}
	return signature, nil
}

// distrust takes this key out of service, and no other: others lie elsewhere in memory.
func (k *softKey) distrust() error {
	k.owner.watch.addSoft(k)
	return k.trust.lose(k.owner.config.Log, k.name, errWrongSignature)
}

func (k *softKey) compute(s signing) ([]byte, error) {
	signer, err := k.signer.get()
	if err != nil {
		return nil, err
	}
	switch s.scheme {
	case schemeECDSA, schemePKCS1v15:
		return signer.Sign(rand.Reader, s.input, s.hash)
	case schemePSS:
		return signer.Sign(rand.Reader, s.input, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash})
	case schemeEd25519:
		return signer.Sign(rand.Reader, s.input, crypto.Hash(0))
	}
	return nil, fmt.Errorf("scheme %q", s.scheme)
}

func (k *softKey) need() { k.needed.Store(true) }

func (k *softKey) ready() error { return k.trust.check() }

func (*softKey) describe(info *KeyInfo) error {
	describeSoft(info)
	return nil
}

// describeSoft claims no protection: the process that uses the key could read it.
func describeSoft(info *KeyInfo) {
	facts := softTokenInfo()
	info.Token, info.Manufacturer, info.Model = facts.Label, facts.Manufacturer, facts.Model
	info.GeneratedOnToken, info.Software = true, true
}

func softTokenInfo() TokenInfo {
	return TokenInfo{
		Label: "softtoken", Manufacturer: "Zegel", Model: "softtoken", Library: "Go crypto",
		Algorithms: KeyAlgorithms(), PSS: true, Wrapping: true, Software: true,
	}
}

// softSecret is an AES-256 key in memory.
type softSecret struct{ gcm *inMemory[cipher.AEAD] }

func (t *Tokens) softWrappingKey(u URI) (*WrappingKey, error) {
	secret := softSecret{&inMemory[cipher.AEAD]{read: func() (cipher.AEAD, error) { return t.readSoftSecret(u) }}}
	if _, err := secret.gcm.get(); err != nil {
		return nil, err
	}
	t.remember(secret.gcm)
	return &WrappingKey{name: u.Name(), secret: secret, gate: &t.gate}, nil
}

func (t *Tokens) readSoftSecret(u URI) (cipher.AEAD, error) {
	f, err := t.readSoftFile(u)
	if err != nil {
		return nil, err
	}
	defer clear(f.Key)
	if f.Algorithm != softAES256 || len(f.Key) != 32 {
		return nil, fmt.Errorf("key file %s holds a %s key, a wrapping key is wanted: %w", u.softPath(), f.Algorithm, ErrNotFound)
	}
	block, err := aes.NewCipher(f.Key)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", u.softPath(), err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", u.softPath(), err)
	}
	return gcm, nil
}

func (t *Tokens) generateSoftWrappingKey(u URI) (*WrappingKey, error) {
	if err := checkSoftFree(u); err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails: it ends the process instead
	defer clear(key)
	if err := t.writeSoftFile(u, softFile{Algorithm: softAES256, Key: key}); err != nil {
		return nil, err
	}
	return made(t.softWrappingKey(u))
}

func (s softSecret) seal(iv, plaintext, additional []byte) (usedIV, ciphertext []byte, err error) {
	gcm, err := s.gcm.get()
	if err != nil {
		return nil, nil, err
	}
	return iv, gcm.Seal(nil, iv, plaintext, additional), nil
}

func (s softSecret) open(iv, ciphertext, additional []byte) ([]byte, error) {
	gcm, err := s.gcm.get()
	if err != nil {
		return nil, err
	}
	plaintext, err := gcm.Open(nil, iv, ciphertext, additional)
	if err != nil {
		return nil, ErrWrapped
	}
	return plaintext, nil
}

// distrust refuses this one result: Wrap is called once, when a journal is made.
func (softSecret) distrust(cause error) error { return fmt.Errorf("%w: %w", ErrDistrusted, cause) }

func (softSecret) describe(info *KeyInfo) error {
	describeSoft(info)
	return nil
}
