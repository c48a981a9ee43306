package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that are signed
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
)

// Config names the token under test and how to reach it.
type Config struct {
	Tokens hsm.Config
	// URI names an object on the token, with module and PIN. The suite's objects are called zegel-test-… and destroyed in the end.
	URI func(object string) string
	// WrongPIN is URI with a PIN that the token refuses. Nil leaves that test out: it costs the token one of its tries.
	WrongPIN func(object string) string
	// Twin puts a second key pair with object's label on the token. Nil leaves that test out, for tokens on which one
	// name cannot stand for two keys.
	Twin func(t *testing.T, tokens *hsm.Tokens, object string, algorithm hsm.KeyAlgorithm)
	// Make puts a key pair on a token whose own hsm.Tokens.Generate refuses, for want of a proof that they were made there and never left. Nil
	// for all other tokens. The suite then expects that refusal, and tries everything else with the keys that Make makes.
	Make func(t *testing.T, tokens *hsm.Tokens, object string, algorithm hsm.KeyAlgorithm)
}

// Run is the conformance suite. It opens and closes hsm.Tokens of its own: no other may be open in the process.
func Run(t *testing.T, c Config) {
	s := &suite{Config: c, prefix: "zegel-test-" + hex.EncodeToString(random(4)) + "-"}
	tokens := s.open(t)
	info, err := tokens.Token(c.URI("any"))
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Algorithms) == 0 {
		t.Fatalf("token %q makes no key this suite knows", info.Label)
	}
	s.info = info
	closeTokens(t, tokens)
	for _, algorithm := range info.Algorithms {
		t.Run(string(algorithm), func(t *testing.T) { s.algorithm(t, algorithm) })
	}
	t.Run("missing object", s.missing)
	t.Run("names in use", s.namesInUse)
	t.Run("unknown algorithm", s.unknownAlgorithm)
	t.Run("concurrent", s.concurrent)
	t.Run("wrapping key", s.wrapping)
	t.Run("destroy", s.destroy)
	t.Run("close", s.close)
	if c.Twin != nil {
		t.Run("two of one label", s.twins)
	}
	if c.WrongPIN != nil {
		t.Run("wrong PIN", s.wrongPIN)
	}
}

type suite struct {
	Config
	prefix string
	info   hsm.TokenInfo
}

// uri names an object of this run.
func (s *suite) uri(object string) string { return s.URI(s.prefix + object) }

func (s *suite) open(t *testing.T) *hsm.Tokens {
	t.Helper()
	tokens := hsm.New(s.Tokens)
	t.Cleanup(func() { closeTokens(t, tokens) })
	return tokens
}

func closeTokens(t *testing.T, tokens *hsm.Tokens) {
	t.Helper()
	if err := tokens.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// generate makes a key and has it destroyed when the test ends.
func (s *suite) generate(t *testing.T, tokens *hsm.Tokens, object string, algorithm hsm.KeyAlgorithm) *hsm.Key {
	t.Helper()
	s.destroyLater(t, object)
	key, err := tokens.Generate(s.uri(object), algorithm)
	if s.Make != nil {
		if err == nil || errors.Is(err, hsm.ErrMade) || !strings.Contains(err.Error(), "not protected as asked and is destroyed") {
			t.Errorf("Generate: %v; want a refusal that leaves nothing behind", err)
		}
		s.Make(t, tokens, s.prefix+object, algorithm)
		key, err = tokens.Key(s.uri(object))
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (s *suite) destroyLater(t *testing.T, object string) {
	t.Cleanup(func() { // runs before the Close of the test's tokens, which may be closed already
		tokens := hsm.New(s.Tokens)
		defer closeTokens(t, tokens)
		if err := tokens.Destroy(s.uri(object)); err != nil && !errors.Is(err, hsm.ErrNotFound) {
			t.Errorf("clean up: %v", err)
		}
	})
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// first is the cheapest algorithm the token has.
func (s *suite) first() hsm.KeyAlgorithm { return s.info.Algorithms[0] }

func (s *suite) algorithm(t *testing.T, algorithm hsm.KeyAlgorithm) {
	object := string(algorithm)
	tokens := s.open(t)
	made := s.generate(t, tokens, object, algorithm)
	s.checkInfo(t, made, algorithm)
	s.signAll(t, made)
	if _, err := tokens.Generate(s.uri(object), algorithm); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("Generate over an existing key: %v, want ErrExists", err)
	}
	closeTokens(t, tokens)

	tokens = s.open(t)
	defer closeTokens(t, tokens)
	opened, err := tokens.Key(s.uri(object))
	if err != nil {
		t.Fatal(err)
	}
	if !opened.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
		t.Error("the key that was reopened is another")
	}
	s.signAll(t, opened)
}

func (s *suite) checkInfo(t *testing.T, key *hsm.Key, algorithm hsm.KeyAlgorithm) {
	t.Helper()
	info, err := key.Info()
	if err != nil {
		t.Fatal(err)
	}
	if info.Algorithm != string(algorithm) || len(info.PublicKeySHA256) != 64 || info.Bits == 0 {
		t.Errorf("Info: %+v", info)
	}
	if info.Token != s.info.Label || info.SerialNumber != s.info.SerialNumber || info.Software != s.info.Software {
		t.Errorf("Info: %+v, token: %+v", info, s.info)
	}
	if s.Make != nil {
		info.GeneratedOnToken, info.NeverExtractable = true, true // what this token does not say of its keys
	}
	if !info.GeneratedOnToken || info.Sensitive == info.Software || info.NeverExtractable == info.Software {
		t.Errorf("Info of a new key: sensitive %v, never extractable %v, generated on token %v", info.Sensitive, info.NeverExtractable, info.GeneratedOnToken)
	}
	if strings.Contains(info.URI, "pin") {
		t.Errorf("Info shows where the PIN is: %s", info.URI)
	}
}

// signAll makes every kind of signature the key can make, and some that it must not make.
func (s *suite) signAll(t *testing.T, key *hsm.Key) {
	t.Helper()
	refused := func(what string, digest []byte, opts crypto.SignerOpts) {
		t.Helper()
		if _, err := key.Sign(rand.Reader, digest, opts); err == nil {
			t.Errorf("%s was signed", what)
		}
	}
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		s.sign(t, key, crypto.Hash(0), random(1000))
		refused("a digest with an Ed25519 key", random(64), crypto.SHA512)
		return
	}
	for _, opts := range s.options(key) {
		s.sign(t, key, opts, random(opts.HashFunc().Size()))
		refused("a digest too short by one", random(opts.HashFunc().Size()-1), opts)
		refused("a digest too long by one", random(opts.HashFunc().Size()+1), opts)
		refused("an empty digest", nil, opts)
	}
	refused("something without a hash", random(32), crypto.Hash(0))
	refused("a SHA-1 digest", random(20), crypto.SHA1)
	refused("something without options", random(32), nil)
}

// options lists what the key may be asked to sign with.
func (s *suite) options(key *hsm.Key) []crypto.SignerOpts {
	opts := []crypto.SignerOpts{crypto.SHA256, crypto.SHA384, crypto.SHA512}
	if _, ok := key.Public().(*rsa.PublicKey); !ok {
		return append(opts, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512)
	}
	if s.info.PSS {
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			opts = append(opts, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
		}
	}
	return opts
}

func (s *suite) sign(t *testing.T, key *hsm.Key, opts crypto.SignerOpts, input []byte) {
	t.Helper()
	signature, err := key.Sign(nil, input, opts)
	if err != nil {
		t.Error(err)
		return
	}
	if err := Verify(key.Public(), input, signature, opts); err != nil {
		t.Errorf("signature with %v: %v", opts, err)
	}
}

// Verify checks what hsm.Key.Sign made of input with the same options.
func Verify(public crypto.PublicKey, input, signature []byte, opts crypto.SignerOpts) error {
	valid := false
	switch key := public.(type) {
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(key, pss.Hash, input, signature, pss)
		}
		return rsa.VerifyPKCS1v15(key, opts.HashFunc(), input, signature)
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(key, input, signature)
	case ed25519.PublicKey:
		valid = ed25519.Verify(key, input, signature)
	}
	if !valid {
		return errors.New("signature does not verify")
	}
	return nil
}

// optionsFor are the cheapest options a key signs with, and an input for them.
func optionsFor(key *hsm.Key) (crypto.SignerOpts, []byte) {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return crypto.Hash(0), random(32)
	}
	return crypto.SHA256, random(32)
}

func (s *suite) missing(t *testing.T) {
	tokens := s.open(t)
	if _, err := tokens.Key(s.uri("missing")); !errors.Is(err, hsm.ErrNotFound) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("Key of a missing object: %v, want ErrNotFound with its name", err)
	}
	if _, err := tokens.WrappingKey(s.uri("missing")); !s.noWrappingKey(err) {
		t.Errorf("WrappingKey of a missing object: %v, want ErrNotFound", err)
	}
	if err := tokens.Destroy(s.uri("missing")); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("Destroy of a missing object: %v, want ErrNotFound", err)
	}
}

// noWrappingKey reports whether err says that there is no such key, or that there cannot be one.
func (s *suite) noWrappingKey(err error) bool {
	return errors.Is(err, hsm.ErrNotFound) || err != nil && !s.info.Wrapping && strings.Contains(err.Error(), "has no AES-GCM")
}

// namesInUse: a name stands for one object, of whatever kind, and is opened as what it is.
func (s *suite) namesInUse(t *testing.T) {
	tokens := s.open(t)
	s.generate(t, tokens, "pair", s.first())
	if _, err := tokens.WrappingKey(s.uri("pair")); !s.noWrappingKey(err) {
		t.Errorf("a key pair opened as a wrapping key: %v, want ErrNotFound", err)
	}
	if !s.info.Wrapping || s.Make != nil {
		return
	}
	if _, err := tokens.GenerateWrappingKey(s.uri("pair")); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("GenerateWrappingKey over a key pair: %v, want ErrExists", err)
	}
	s.destroyLater(t, "secret")
	if _, err := tokens.GenerateWrappingKey(s.uri("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Generate(s.uri("secret"), s.first()); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("Generate over a wrapping key: %v, want ErrExists", err)
	}
	if _, err := tokens.Key(s.uri("secret")); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("a wrapping key opened as a key pair: %v, want ErrNotFound", err)
	}
}

func (s *suite) unknownAlgorithm(t *testing.T) {
	tokens := s.open(t)
	if _, err := tokens.Generate(s.uri("rsa1024"), "rsa1024"); err == nil {
		t.Error("an RSA key of 1024 bits was made")
	}
	for _, a := range hsm.KeyAlgorithms() {
		if slices.Contains(s.info.Algorithms, a) {
			continue
		}
		if _, err := tokens.Generate(s.uri("other"), a); err == nil {
			t.Errorf("the token lists no %s and made one", a)
		}
	}
}

// concurrent has 64 goroutines sign with one key and twice as many wait as there may be sessions.
func (s *suite) concurrent(t *testing.T) {
	config := s.Tokens
	config.Sessions = 32
	s2 := *s
	s2.Tokens = config
	tokens := s2.open(t)
	key := s.generate(t, tokens, "concurrent", s.first())
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			for range 8 {
				opts, input := optionsFor(key)
				signature, err := key.Sign(nil, input, opts)
				if err == nil {
					err = Verify(key.Public(), input, signature, opts)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func (s *suite) wrapping(t *testing.T) {
	tokens := s.open(t)
	s.destroyLater(t, "wrap")
	if !s.info.Wrapping || s.Make != nil {
		if _, err := tokens.GenerateWrappingKey(s.uri("wrap")); err == nil {
			t.Error("the token has no AES-GCM, or no proof that a key is its own, and made a wrapping key")
		}
		return
	}
	made, err := tokens.GenerateWrappingKey(s.uri("wrap"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.GenerateWrappingKey(s.uri("wrap")); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("GenerateWrappingKey over an existing key: %v, want ErrExists", err)
	}
	info, err := made.Info()
	if err != nil || info.Algorithm != "aes256" || !info.Software && (!info.Sensitive || !info.NeverExtractable || !info.GeneratedOnToken) {
		t.Errorf("Info: %+v, %v", info, err)
	}
	secret := random(32)
	wrapped, err := made.Wrap(secret)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := made.Wrap(secret); err != nil || bytes.Equal(again, wrapped) || bytes.Contains(wrapped, secret) {
		t.Errorf("wrapping twice gives the same, or shows the secret: %v", err)
	}
	closeTokens(t, tokens)

	tokens = s.open(t)
	opened, err := tokens.WrappingKey(s.uri("wrap"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opened.Unwrap(wrapped); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("Unwrap: %x, %v", got, err)
	}
	s.tamper(t, opened, wrapped)
	if got, err := opened.Unwrap(wrapped); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("Unwrap after bad ones: %x, %v", got, err)
	}
	for _, n := range []int{0, 4097} {
		if _, err := opened.Wrap(make([]byte, n)); err == nil {
			t.Errorf("a secret of %d bytes was wrapped", n)
		}
	}
}

// tamper flips one bit of each byte, and shortens and lengthens.
func (s *suite) tamper(t *testing.T, key *hsm.WrappingKey, wrapped []byte) {
	t.Helper()
	var bad [][]byte
	for i := range wrapped {
		b := bytes.Clone(wrapped)
		b[i] ^= 1 << (i % 8)
		bad = append(bad, b)
	}
	bad = append(bad, nil, wrapped[:1], wrapped[:28], wrapped[:29], wrapped[:len(wrapped)-1], append(bytes.Clone(wrapped), 0))
	for _, b := range bad {
		if secret, err := key.Unwrap(b); !errors.Is(err, hsm.ErrWrapped) || secret != nil {
			t.Errorf("Unwrap of %x: %x, %v, want ErrWrapped", b, secret, err)
		}
	}
}

func (s *suite) destroy(t *testing.T) {
	tokens := s.open(t)
	s.generate(t, tokens, "doomed", s.first())
	if err := tokens.Destroy(s.uri("doomed")); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Key(s.uri("doomed")); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("Key of a destroyed object: %v, want ErrNotFound", err)
	}
	s.generate(t, tokens, "doomed", s.first()) // under the name of a destroyed key
}

// close: Close waits for the calls that run, and the calls after it get ErrClosed, each exactly one of the two.
func (s *suite) close(t *testing.T) {
	tokens := s.open(t)
	key := s.generate(t, tokens, "close", s.first())
	opts, input := optionsFor(key)
	var group sync.WaitGroup
	started := make(chan struct{}, 16)
	for range 16 {
		group.Go(func() {
			for {
				_, err := key.Sign(nil, input, opts)
				if errors.Is(err, hsm.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 16 {
		select {
		case <-started:
		case <-time.After(time.Minute):
			t.Fatal("no signature within a minute")
		}
	}
	closeTokens(t, tokens)
	group.Wait()
	closeTokens(t, tokens) // a second time
	if _, err := tokens.Key(s.uri("close")); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("Key after Close: %v, want ErrClosed", err)
	}
	if _, err := key.Info(); !errors.Is(err, hsm.ErrClosed) {
		t.Errorf("Info after Close: %v, want ErrClosed", err)
	}
}

func (s *suite) twins(t *testing.T) {
	tokens := s.open(t)
	s.generate(t, tokens, "twin", s.first())
	s.Twin(t, tokens, s.prefix+"twin", s.first())
	_, err := tokens.Key(s.uri("twin"))
	if err == nil || !strings.Contains(err.Error(), "2 private keys and 2 public keys") {
		t.Fatalf("Key with two pairs of one label: %v", err)
	}
	// The error offers the ids by which they can be told apart; each must work.
	_, ids, _ := strings.Cut(err.Error(), "add to the URI one of ")
	for _, id := range strings.Split(ids, ", ") {
		path, query, _ := strings.Cut(s.uri("twin"), "?")
		uri := path + ";" + id + "?" + query
		key, err := tokens.Key(uri)
		if err != nil {
			t.Fatalf("following the advice of the error: %v", err)
		}
		opts, input := optionsFor(key)
		s.sign(t, key, opts, input)
		if err := tokens.Destroy(uri); err != nil {
			t.Error(err)
		}
	}
}

func (s *suite) wrongPIN(t *testing.T) {
	tokens := s.open(t)
	key := s.generate(t, tokens, "pin", s.first())
	opts, input := optionsFor(key)
	s.sign(t, key, opts, input)
	closeTokens(t, tokens)

	tokens = s.open(t)
	wrong := s.WrongPIN(s.prefix + "pin")
	_, err := tokens.Key(wrong)
	if !errors.Is(err, hsm.ErrPINRefused) || !strings.Contains(err.Error(), "pin-source") {
		t.Fatalf("Key with a wrong PIN: %v, want ErrPINRefused that says where the PIN came from", err)
	}
	if !s.info.Software {
		if !strings.Contains(err.Error(), s.info.Label) {
			t.Errorf("the error does not name token %q: %v", s.info.Label, err)
		}
		// Not even the right PIN is tried now: this process would otherwise be able to lock the token.
		if _, err := tokens.Key(s.uri("pin")); !errors.Is(err, hsm.ErrPINRefused) || !strings.Contains(err.Error(), "not tried again") {
			t.Errorf("Key after a refused PIN: %v, want ErrPINRefused without a second try", err)
		}
	}
	closeTokens(t, tokens)

	tokens = s.open(t)
	if _, err := tokens.Key(s.uri("pin")); err != nil {
		t.Errorf("Key with the right PIN after a restart: %v", err)
	}
}
