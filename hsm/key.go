package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Key is a crypto.Signer whose private half stays in its token. Safe for concurrent use.
type Key struct {
	name    string // URI without its query
	public  crypto.PublicKey
	private privateKey
	gate    *gate
}

var _ crypto.Signer = (*Key)(nil)

// privateKey is the half of a Key that a token or a soft token has.
type privateKey interface {
	// sign returns a signature that the public half verifies.
	sign(signing) ([]byte, error)
	describe(*KeyInfo) error
	// ready returns why it cannot sign now, as far as is known without asking a token.
	ready() error
	// need says that no other token does what this one does not.
	need()
}

// signing is one signature to be made, checked.
type signing struct {
	scheme scheme
	hash   crypto.Hash // 0 for Ed25519
	input  []byte      // a digest of hash; for Ed25519 the message

	unverified bool        // for a measurement: the signature is thrown away
	trouble    func(error) // told why a call failed, before it is repaired and made again; may be nil
}

type scheme string

const (
	schemeECDSA    scheme = "ECDSA"
	schemePKCS1v15 scheme = "RSASSA-PKCS1-v1_5"
	schemePSS      scheme = "RSASSA-PSS"
	schemeEd25519  scheme = "Ed25519"
)

// Public returns the public half: an *ecdsa.PublicKey, an *rsa.PublicKey or an ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign signs a digest made with opts.HashFunc(): SHA-256, SHA-384 or SHA-512, for ECDSA also SHA3-256, SHA3-384 and SHA3-512. ECDSA
// signatures are in DER (RFC 3279 §2.2.3). An RSA key makes a PKCS#1 v1.5 signature, or a PSS signature if opts is
// an *rsa.PSSOptions; the salt is then as long as the digest (TS 119 312 knows no other). An Ed25519 key signs the
// message itself, with opts.HashFunc() zero. rand is not used: the token, or crypto/rand, has the randomness.
//
// Every signature is verified before it is returned. One that the public half does not verify takes the token out of service
// (ErrDistrusted). Sign waits while all sessions of the token are busy.
func (k *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.sign(digest, opts, verified)
}

// Ready returns why the key cannot sign now: its token, or every token of its group, is out of service, distrusted, deactivated or has refused the
// PIN. It asks no token and returns at once. nil says that nothing is known to stand in the way; a token that is back is found within a second.
func (k *Key) Ready() error {
	if err := k.private.ready(); err != nil {
		return fmt.Errorf("sign with %s: %w", k.name, err)
	}
	return nil
}

// verification is whether a signature is held against the public key.
type verification bool

const (
	verified   verification = true
	unverified verification = false // for a measurement, which throws the signatures away
)

func (k *Key) sign(digest []byte, opts crypto.SignerOpts, v verification) ([]byte, error) {
	s, err := checkSigning(k.public, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.name, err)
	}
	s.unverified = v == unverified
	s.input = slices.Clone(digest) // a call that nobody waits for any more reads it still, and the caller's is the caller's again
	if err := k.gate.enter(); err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.name, err)
	}
	defer k.gate.leave()
	signature, err := k.private.sign(s)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.name, err)
	}
	return signature, nil
}

func checkSigning(public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) (signing, error) {
	if opts == nil {
		return signing{}, errors.New("no options: the hash must be named")
	}
	s := signing{hash: opts.HashFunc(), input: digest}
	pss, isPSS := opts.(*rsa.PSSOptions)
	switch public.(type) {
	case *ecdsa.PublicKey:
		s.scheme = schemeECDSA
	case *rsa.PublicKey:
		s.scheme = schemePKCS1v15
		if isPSS {
			s.scheme = schemePSS
		}
	case ed25519.PublicKey:
		return checkEd25519(s, opts)
	}
	if isPSS && s.scheme != schemePSS {
		return signing{}, errors.New("PSS options for a key that is not RSA")
	}
	switch s.hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	case crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512:
		if s.scheme != schemeECDSA {
			return signing{}, fmt.Errorf("%v with %s: use SHA-256, SHA-384 or SHA-512", s.hash, s.scheme)
		}
	default:
		return signing{}, fmt.Errorf("hash %v is not one to sign with: use SHA-256, SHA-384 or SHA-512", s.hash)
	}
	if len(digest) != s.hash.Size() {
		return signing{}, fmt.Errorf("a digest of %d bytes is not one of %v", len(digest), s.hash)
	}
	if isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != s.hash.Size() {
		return signing{}, fmt.Errorf("PSS salt length %d: only rsa.PSSSaltLengthEqualsHash is signed with", pss.SaltLength)
	}
	return s, nil
}

func checkEd25519(s signing, opts crypto.SignerOpts) (signing, error) {
	s.scheme = schemeEd25519
	if s.hash != 0 {
		return signing{}, errors.New("an Ed25519 key signs the message, not a digest: pass crypto.Hash(0)")
	}
	if o, ok := opts.(*ed25519.Options); ok && o.Context != "" {
		return signing{}, errors.New("Ed25519ctx is not signed with: leave the context out")
	}
	return s, nil
}

// tokenKey is a private key object.
type tokenKey struct {
	token   *token
	uri     URI
	private *handle
	public  crypto.PublicKey
	context *contextLogin // nil: a key of this package's own, which wants none
}

// key opens the pair that u names and refuses one whose private key could leave the token.
func (t *token) key(owner *Tokens, u URI) (*Key, error) {
	var k *Key
	err := t.lookUp(u, func(session pkcs11.SessionHandle) error {
		private, public, err := t.openPair(session, u)
		if err != nil {
			return err
		}
		if err := t.checkSigns(public); err != nil {
			return err
		}
		half := &tokenKey{token: t, uri: u, public: public, context: new(contextLogin)}
		again := func(session pkcs11.SessionHandle) (object, error) {
			private, now, err := t.openPair(session, u)
			if err == nil && !public.Equal(now) {
				err = ErrLost
			}
			if err == nil {
				err = half.context.read(t, session, private)
			}
			return private, err
		}
		t.reachable(u)
		if err := half.context.read(t, session, private); err != nil {
			return err
		}
		half.private = t.newHandle(private, again)
		k = &Key{name: u.Name(), public: public, private: half, gate: &owner.gate}
		return nil
	})
	return k, err
}

// publicKey is what every public key of the standard library is.
type publicKey interface {
	Equal(crypto.PublicKey) bool
}

// openPair finds the pair that u names and makes sure that its private half stays in the token.
func (t *token) openPair(session pkcs11.SessionHandle, u URI) (private object, public publicKey, err error) {
	p, err := t.findPair(session, u)
	if err != nil {
		return 0, nil, err
	}
	if err := t.checkStays(session, p.private); err != nil {
		return 0, nil, err
	}
	key, err := t.publicKey(session, p.public)
	if err != nil {
		return 0, nil, err
	}
	return p.private, key.(publicKey), nil
}

// checkSigns refuses a key that its token has no mechanism for: the first signature would be too late to find out.
func (t *token) checkSigns(public publicKey) error {
	mechanisms := []uint{pkcs11.CKM_ECDSA}
	switch public.(type) {
	case *rsa.PublicKey:
		mechanisms = []uint{pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS}
	case ed25519.PublicKey:
		mechanisms = []uint{ckmEDDSA}
	}
	if slices.ContainsFunc(mechanisms, t.has) {
		return nil
	}
	name, _ := algorithmOf(public)
	return fmt.Errorf("token %q has no mechanism to sign with %s keys, though it holds one: see to its own policy (FIPS mode) and firmware, or move the work to another key", t.label, name)
}

// checkStays refuses a key that its token would show, or wrap for somebody else (EN 319 411-1 GEN-6.5.2-04).
func (t *token) checkStays(session pkcs11.SessionHandle, secret object) error {
	sensitive, err := t.flag(session, secret, pkcs11.CKA_SENSITIVE)
	if err != nil {
		return err
	}
	extractable, err := t.flag(session, secret, pkcs11.CKA_EXTRACTABLE)
	if err != nil {
		return err
	}
	// A key for backup is wrapped only under keys that the token's security officer trusts, which nobody who has the PIN can change: neither
	// CKA_WRAP_WITH_TRUSTED nor CKA_SENSITIVE can be taken back (PKCS#11 v2.40 §4.9).
	underTrusted, err := t.flag(session, secret, pkcs11.CKA_WRAP_WITH_TRUSTED)
	if err != nil {
		return err
	}
	if !sensitive || extractable && !underTrusted {
		return fmt.Errorf("the key can leave token %q: CKA_SENSITIVE is %v and must be true, CKA_EXTRACTABLE is %v and must be false, unless CKA_WRAP_WITH_TRUSTED, which is %v, "+
			"is true (EN 319 411-1 GEN-6.5.2-04): make another key with this program", t.label, sensitive, extractable, underTrusted)
	}
	return nil
}

func (k *tokenKey) sign(s signing) ([]byte, error) {
	begin := time.Now()
	mechanism, message, err := k.prepare(s)
	if err != nil {
		return nil, err
	}
	if !k.token.has(mechanism.Mechanism) {
		return nil, fmt.Errorf("token %q has no mechanism for %s (0x%x): see to its own policy (FIPS mode), or take another signature_scheme", k.token.label, s.scheme, mechanism.Mechanism)
	}
	var signature []byte
	err = k.token.run(k.uri, k.private, func(session pkcs11.SessionHandle, private object) (err error) {
		signature, err = k.signOnce(k.token.ctx, session, private, mechanism, message)
		if err != nil && s.trouble != nil {
			s.trouble(err)
		}
		return err
	})
	if errors.Is(err, ErrDistrusted) {
		return nil, err // it names the token
	}
	if err != nil {
		return nil, fmt.Errorf("token %q: %w", k.token.label, err)
	}
	if s.scheme == schemeECDSA {
		if signature, err = encodeECDSA(signature); err != nil {
			return nil, k.token.distrust(err)
		}
	}
	if !s.unverified && !s.verifies(k.public, signature) {
		return nil, k.token.distrust(errWrongSignature)
	}
	k.token.counts.signed(begin)
	return signature, nil
}

// errWrongSignature is why a key, or its token, is trusted no more.
var errWrongSignature = errors.New("the public key does not verify a signature that it made")

func (k *tokenKey) ready() error {
	_, err := k.token.health()
	return err
}

func (k *tokenKey) need() { k.token.needed.Store(true) }

// prepare translates s into a mechanism and what the token is to sign with it.
func (k *tokenKey) prepare(s signing) (*pkcs11.Mechanism, []byte, error) {
	switch s.scheme {
	case schemeECDSA:
		// CKM_ECDSA leaves open who shortens a digest longer than the order of the curve (FIPS 186-5 §6.4.1); P-521's
		// is longer than any digest, the others' are whole bytes.
		size := (k.public.(*ecdsa.PublicKey).Curve.Params().N.BitLen() + 7) / 8
		return pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil), s.input[:min(size, len(s.input))], nil
	case schemeEd25519:
		return pkcs11.NewMechanism(ckmEDDSA, nil), s.input, nil
	case schemePKCS1v15:
		prefix, err := digestInfoPrefix(s.hash)
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil), append(prefix, s.input...), err
	case schemePSS:
		var hash, mgf uint
		switch s.hash {
		case crypto.SHA256:
			hash, mgf = pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256
		case crypto.SHA384:
			hash, mgf = pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384
		case crypto.SHA512:
			hash, mgf = pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512
		}
		params := pkcs11.NewPSSParams(hash, mgf, uint(s.hash.Size()))
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, params), s.input, nil
	}
	return nil, nil, fmt.Errorf("scheme %q", s.scheme)
}

// digestInfoPrefix is the DER before the digest in a DigestInfo (RFC 8017 §9.2 note 1), with capacity for the digest behind it.
func digestInfoPrefix(hash crypto.Hash) ([]byte, error) {
	var oid byte // the last arc
	switch hash {
	case crypto.SHA256:
		oid = 1
	case crypto.SHA384:
		oid = 2
	case crypto.SHA512:
		oid = 3
	default:
		return nil, fmt.Errorf("no DigestInfo for %v", hash)
	}
	n := byte(hash.Size())
	prefix := make([]byte, 0, 19+hash.Size())
	// SEQUENCE { SEQUENCE { 2.16.840.1.101.3.4.2.oid, NULL }, OCTET STRING of n bytes }
	return append(prefix, 0x30, 17+n, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, oid, 5, 0, 4, n), nil
}

// encodeECDSA turns a token's r||s into an Ecdsa-Sig-Value (RFC 3279 §2.2.3).
func encodeECDSA(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("the token's ECDSA signature has %d bytes, not two equal halves", len(raw))
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addUnsigned(b, raw[:len(raw)/2])
		addUnsigned(b, raw[len(raw)/2:])
	})
	return b.Bytes()
}

// addUnsigned appends a big-endian number, which must not be zero, as an INTEGER.
func addUnsigned(b *cryptobyte.Builder, n []byte) {
	for len(n) > 0 && n[0] == 0 {
		n = n[1:]
	}
	if len(n) == 0 {
		b.SetError(errors.New("the token's ECDSA signature has a zero half"))
		return
	}
	b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) {
		if n[0]&0x80 != 0 {
			b.AddUint8(0)
		}
		b.AddBytes(n)
	})
}

// algorithmOf names a public key as KeyAlgorithm does, also where the size is none that this package would make.
func algorithmOf(public crypto.PublicKey) (name string, bits int) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		bits = key.Curve.Params().BitSize
		return "p" + strconv.Itoa(bits), bits
	case *rsa.PublicKey:
		bits = key.N.BitLen()
		return "rsa" + strconv.Itoa(bits), bits
	case ed25519.PublicKey:
		return string(Ed25519), 256
	}
	return "", 0
}
