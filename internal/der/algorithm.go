package der

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // crypto.SHA256.New
	_ "crypto/sha512" // crypto.SHA384.New and crypto.SHA512.New
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Algorithm is a signature algorithm as the services use it: the hash, the
// AlgorithmIdentifier that names it on the wire, and how to sign and verify with it.
// The zero Algorithm signs nothing. Values are immutable and safe for concurrent use.
type Algorithm struct {
	name       string
	hash       crypto.Hash
	identifier []byte // DER of AlgorithmIdentifier
	opts       crypto.SignerOpts
	verify     func(pub crypto.PublicKey, digest, signature []byte) error
}

// ErrBadSignature is wrapped where a signature does not verify.
var ErrBadSignature = errors.New("signature does not verify")

// Scheme is an RSA signature scheme (RFC 8017 §8). Its text is what configurations write as signature_scheme. The zero
// Scheme is the one a key has where none is chosen: PKCS1v15 for RSA, and ECDSA for EC keys, which know no other.
type Scheme string

// The schemes. TS 119 312 V2.1.1 table 6 recommends RSASSA-PSS and calls RSASSA-PKCS1-v1_5 legacy, without an end
// date; more relying parties read the latter.
const (
	PKCS1v15 Scheme = "pkcs1v15" // RSASSA-PKCS1-v1_5 with SHA-256
	PSS      Scheme = "pss"      // RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 octets
)

// Check reports why a key pair with the public half pub cannot sign with s. It looks at the kind of key alone.
func (s Scheme) Check(pub crypto.PublicKey) error {
	switch s {
	case "":
		return nil
	case PKCS1v15, PSS:
	default:
		return fmt.Errorf("signature scheme %q is none: write %s or %s", string(s), PKCS1v15, PSS)
	}
	if _, ok := pub.(*rsa.PublicKey); !ok {
		return fmt.Errorf("signature scheme %s is one of RSA keys (RFC 8017 §8), and the key is %s: leave it out, or make an RSA key", s, kindOf(pub))
	}
	return nil
}

func kindOf(pub crypto.PublicKey) string {
	if _, ok := pub.(*ecdsa.PublicKey); ok {
		return "an EC key"
	}
	return fmt.Sprintf("of type %T", pub)
}

// Object identifiers: RFC 5758 §3.2 (ECDSA), RFC 4055 §5 (RSASSA-PKCS1-v1_5), §3.1 (RSASSA-PSS), §2.2 (MGF1), §2.1 (hash).
var (
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSAWithSHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSAWithSHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
	oidSHA256WithRSA   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidRSASSAPSS       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
)

// The algorithms of the services. TS 119 312 pairs a curve with a hash of its length.
var (
	ecdsaSHA256 = newECDSA("ecdsa-with-SHA256", oidECDSAWithSHA256, crypto.SHA256)
	ecdsaSHA384 = newECDSA("ecdsa-with-SHA384", oidECDSAWithSHA384, crypto.SHA384)
	ecdsaSHA512 = newECDSA("ecdsa-with-SHA512", oidECDSAWithSHA512, crypto.SHA512)
	rsaSHA256   = newRSA("sha256WithRSAEncryption", oidSHA256WithRSA, crypto.SHA256)
	pssSHA256   = newPSS("RSASSA-PSS with SHA-256", oidSHA256, crypto.SHA256)
)

// ForRSA is what an RSA key signs with under s: s, or where none is chosen PKCS1v15, which every relying party reads.
func (s Scheme) ForRSA() Scheme {
	if s == "" {
		return PKCS1v15
	}
	return s
}

// AlgorithmFor returns the signature algorithm for a service key: ECDSA with the
// hash of the curve's length, or scheme with SHA-256 for RSA of 3000 bits
// and more (TS 119 312 V2.1.1 table 6). Other keys are an error, and so is a scheme that Check refuses.
func AlgorithmFor(pub crypto.PublicKey, scheme Scheme) (Algorithm, error) {
	if err := scheme.Check(pub); err != nil {
		return Algorithm{}, fmt.Errorf("choose signature algorithm: %w", err)
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ecdsaSHA256, nil
		case elliptic.P384():
			return ecdsaSHA384, nil
		case elliptic.P521():
			return ecdsaSHA512, nil
		}
		return Algorithm{}, fmt.Errorf("choose signature algorithm: curve %s is not served: use P-256, P-384 or P-521", k.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 3000 {
			return Algorithm{}, fmt.Errorf("choose signature algorithm: RSA of %d bits: a service key needs 3000 or more (TS 119 312 table 6)", n)
		}
		if scheme.ForRSA() == PSS {
			return pssSHA256, nil
		}
		return rsaSHA256, nil
	}
	return Algorithm{}, fmt.Errorf("choose signature algorithm: key type %T is not served", pub)
}

// AlgorithmOf returns the one of AlgorithmFor's algorithms for pub, with whatever scheme, whose AlgorithmIdentifier is
// identifier, DER: what something that a service signed was signed with.
func AlgorithmOf(pub crypto.PublicKey, identifier []byte) (Algorithm, error) {
	a, err := AlgorithmFor(pub, "")
	if err != nil {
		return Algorithm{}, err
	}
	if bytes.Equal(a.identifier, identifier) {
		return a, nil
	}
	if a, err := AlgorithmFor(pub, PSS); err == nil && bytes.Equal(a.identifier, identifier) {
		return a, nil
	}
	return Algorithm{}, fmt.Errorf("signature algorithm %x is none that this key signs with here", identifier)
}

func newECDSA(name string, id asn1.ObjectIdentifier, h crypto.Hash) Algorithm {
	return Algorithm{
		name: name, hash: h, opts: h,
		identifier: AlgorithmIdentifier(id, nil), // RFC 5758 §3.2: parameters absent
		verify: func(pub crypto.PublicKey, digest, signature []byte) error {
			k, ok := pub.(*ecdsa.PublicKey)
			if !ok || !ecdsa.VerifyASN1(k, digest, signature) {
				return ErrBadSignature
			}
			return nil
		},
	}
}

func newRSA(name string, id asn1.ObjectIdentifier, h crypto.Hash) Algorithm {
	return Algorithm{
		name: name, hash: h, opts: h,
		identifier: AlgorithmIdentifier(id, asn1.NullBytes), // RFC 4055 §5: parameters NULL
		verify: func(pub crypto.PublicKey, digest, signature []byte) error {
			k, ok := pub.(*rsa.PublicKey)
			if !ok || rsa.VerifyPKCS1v15(k, h, digest, signature) != nil {
				return ErrBadSignature
			}
			return nil
		},
	}
}

// newPSS makes RSASSA-PSS with MGF1 under the same hash and a salt as long as the digest (RFC 4055 §3.1). hashID is the hash's identifier.
func newPSS(name string, hashID asn1.ObjectIdentifier, h crypto.Hash) Algorithm {
	opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
	return Algorithm{
		name: name, hash: h, opts: opts,
		identifier: AlgorithmIdentifier(oidRSASSAPSS, pssParameters(hashID, h.Size())),
		verify: func(pub crypto.PublicKey, digest, signature []byte) error {
			k, ok := pub.(*rsa.PublicKey)
			if !ok || rsa.VerifyPSS(k, h, digest, signature, opts) != nil {
				return ErrBadSignature
			}
			return nil
		},
	}
}

// pssParameters encodes
//
//	RSASSA-PSS-params ::= SEQUENCE {
//	    hashAlgorithm     [0] HashAlgorithm    DEFAULT sha1Identifier,
//	    maskGenAlgorithm  [1] MaskGenAlgorithm DEFAULT mgf1SHA1Identifier,
//	    saltLength        [2] INTEGER          DEFAULT 20,
//	    trailerField      [3] INTEGER          DEFAULT 1 }
//
// trailerField has its default, so that DER leaves it out. The hash's own parameters are NULL, as in sha256Identifier (RFC 4055 §2.1).
func pssParameters(hashID asn1.ObjectIdentifier, salt int) []byte {
	hash := AlgorithmIdentifier(hashID, asn1.NullBytes)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for tag, write := range []func(*cryptobyte.Builder){
			func(b *cryptobyte.Builder) { b.AddBytes(hash) },
			func(b *cryptobyte.Builder) { b.AddBytes(AlgorithmIdentifier(oidMGF1, hash)) },
			func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(salt)) },
		} {
			b.AddASN1(cbasn1.Tag(tag).ContextSpecific().Constructed(), write)
		}
	})
	return b.BytesOrPanic() // only a malformed constant identifier of ours can fail
}

// AlgorithmIdentifier encodes AlgorithmIdentifier ::= SEQUENCE { algorithm, parameters OPTIONAL }.
// parameters is DER, or nil where they are to be absent.
func AlgorithmIdentifier(id asn1.ObjectIdentifier, parameters []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddBytes(parameters)
	})
	return b.BytesOrPanic() // only a malformed constant identifier of ours can fail
}

// String names the algorithm as its standard spells it.
func (a Algorithm) String() string { return a.name }

// Hash is the digest the algorithm signs.
func (a Algorithm) Hash() crypto.Hash { return a.hash }

// Identifier is the DER of the AlgorithmIdentifier. The caller must not change it.
func (a Algorithm) Identifier() []byte { return a.identifier }

// Verifying is a signer that says whether it verifies its signatures itself, under Public, and returns no other.
type Verifying interface {
	crypto.Signer
	VerifiesSignatures() bool
}

// Sign hashes message, signs it with key and verifies the signature before returning it
// (a token that fails may return a wrong signature), unless key is Verifying and has done so. It does not retry.
func (a Algorithm) Sign(key crypto.Signer, message []byte) ([]byte, error) {
	if a.hash == 0 {
		return nil, errors.New("sign: no algorithm")
	}
	digest := a.digest(message)
	signature, err := key.Sign(rand.Reader, digest, a.opts)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", a.name, err)
	}
	if v, ok := key.(Verifying); ok && v.VerifiesSignatures() {
		return signature, nil
	}
	if err := a.verify(key.Public(), digest, signature); err != nil {
		return nil, fmt.Errorf("sign with %s: the key returned a wrong signature: %w", a.name, err)
	}
	return signature, nil
}

// Verify checks signature over message with pub.
func (a Algorithm) Verify(pub crypto.PublicKey, message, signature []byte) error {
	if a.hash == 0 {
		return errors.New("verify: no algorithm")
	}
	return a.verify(pub, a.digest(message), signature)
}

// Placeholder returns a value that has the form and length of a signature by pub but verifies
// for no message: what stands in a draft until the key has signed. An ECDSA placeholder has
// both integers at their greatest length.
func (a Algorithm) Placeholder(pub crypto.PublicKey) []byte {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return bytes.Repeat([]byte{0x55}, k.Size())
	case *ecdsa.PublicKey:
		n := (k.Params().BitSize + 7) / 8
		half := bytes.Repeat([]byte{0xd5}, n)
		if k.Params().BitSize%8 != 0 {
			half[0] = 1 // P-521: 66 octets of which the first holds one bit
		} else {
			half = append([]byte{0}, half...) // the top bit is set, so INTEGER wants a zero octet before it
		}
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for range 2 {
				b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(half) })
			}
		})
		return b.BytesOrPanic()
	}
	return nil
}

func (a Algorithm) digest(message []byte) []byte {
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// Signed assembles SEQUENCE { tbs, AlgorithmIdentifier, BIT STRING signature }, the shape of
// Certificate and CertificateList (RFC 5280 §4.1, §5.1). tbs is DER.
func (a Algorithm) Signed(tbs, signature []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(a.identifier)
		b.AddASN1BitString(signature)
	})
	return b.BytesOrPanic() // fails only beyond 4 GiB
}

// PublicKeyBits returns the content of the subjectPublicKey BIT STRING of cert: what OCSP's
// issuerKeyHash and byKey (RFC 6960 §4.1.1, §4.2.1) and key identifiers (RFC 5280 §4.2.1.2) hash.
func PublicKeyBits(cert *x509.Certificate) ([]byte, error) {
	var spki, algorithm cryptobyte.String
	var bits asn1.BitString
	s := cryptobyte.String(cert.RawSubjectPublicKeyInfo)
	if !s.ReadASN1(&spki, cbasn1.SEQUENCE) || !spki.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!spki.ReadASN1BitString(&bits) || !spki.Empty() || !s.Empty() {
		return nil, fmt.Errorf("read subjectPublicKey: %w", ErrNotDER)
	}
	return bits.Bytes, nil
}
