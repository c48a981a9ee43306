package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// PKCS#11 3.0 names that the 2.40 binding does not have.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEDDSA               = 0x1057
)

// curveSpec is a curve as tokens name it in CKA_EC_PARAMS.
type curveSpec struct {
	algorithm KeyAlgorithm
	curve     elliptic.Curve // nil: Ed25519
	params    []byte         // CKA_EC_PARAMS: the curve's OID in DER
}

func curveSpecs() []curveSpec {
	return []curveSpec{
		{P256, elliptic.P256(), []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}}, // prime256v1, RFC 5480 §2.1.1.1
		{P384, elliptic.P384(), []byte{6, 5, 0x2b, 0x81, 4, 0, 34}},                  // secp384r1
		{P521, elliptic.P521(), []byte{6, 5, 0x2b, 0x81, 4, 0, 35}},                  // secp521r1
		{Ed25519, nil, []byte{6, 3, 0x2b, 0x65, 0x70}},                               // id-Ed25519, RFC 8410 §3
	}
}

// edwards25519Name is the other form PKCS#11 3.0 §2.3.10 allows in CKA_EC_PARAMS: a PrintableString with the curve's name.
const edwards25519Name = "\x13\x0cedwards25519"

// pair is a key pair's two objects.
type pair struct{ private, public object }

// template is what u asks of an object of one class.
func (u URI) template(class uint) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if u.Object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.Object))
	}
	if len(u.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, u.ID))
	}
	return template
}

// findPair returns the one pair that u names. Anything but one private and one public key of the same CKA_ID is an error
// that says what is there.
func (t *token) findPair(session pkcs11.SessionHandle, u URI) (pair, error) {
	if u.Object == "" && len(u.ID) == 0 {
		return pair{}, errors.New("the URI names no object: add object=LABEL or id=%XX… to it")
	}
	if u.Type == "secret-key" {
		return pair{}, errors.New("the URI says type=secret-key, a key pair is wanted")
	}
	private, err := t.find(session, u.template(pkcs11.CKO_PRIVATE_KEY))
	if err != nil {
		return pair{}, err
	}
	public, err := t.find(session, u.template(pkcs11.CKO_PUBLIC_KEY))
	if err != nil {
		return pair{}, err
	}
	where := fmt.Sprintf("find key pair on token %q", t.label)
	switch {
	case len(private) == 0 && len(public) == 0:
		return pair{}, fmt.Errorf("%s: no private key and no public key of that name: check object and id: %w", where, ErrNotFound)
	case len(private) > 1 || len(public) > 1:
		return pair{}, fmt.Errorf("%s: %d private keys and %d public keys of that name, one of each is wanted: %s",
			where, len(private), len(public), t.distinguish(session, private, u))
	case len(private) == 0:
		return pair{}, fmt.Errorf("%s: a public key without its private key: %w", where, ErrNotFound)
	case len(public) == 0:
		return pair{}, fmt.Errorf("%s: a private key without its public key: import the public key under the same label and id: %w", where, ErrNotFound)
	}
	privateID, err := t.attribute(session, private[0], pkcs11.CKA_ID)
	if err != nil {
		return pair{}, err
	}
	publicID, err := t.attribute(session, public[0], pkcs11.CKA_ID)
	if err != nil {
		return pair{}, err
	}
	if !bytes.Equal(privateID, publicID) {
		return pair{}, fmt.Errorf("%s: the private key has id %x, the public key %x: they are no pair", where, privateID, publicID)
	}
	return pair{private[0], public[0]}, nil
}

// distinguish is the remedy for several keys of one name: the ids that tell them apart.
func (t *token) distinguish(session pkcs11.SessionHandle, keys []object, u URI) string {
	if len(u.ID) > 0 {
		return "they share label and id: rename or remove one with the vendor's tool"
	}
	var ids []string
	for _, key := range keys {
		if id, err := t.attribute(session, key, pkcs11.CKA_ID); err == nil && len(id) > 0 {
			ids = append(ids, "id="+percentEncode(id))
		}
	}
	if len(ids) == 0 {
		return "rename or remove one with the vendor's tool"
	}
	return "add to the URI one of " + strings.Join(ids, ", ")
}

// publicKey reads a public key object.
func (t *token) publicKey(session pkcs11.SessionHandle, public object) (crypto.PublicKey, error) {
	read := func(kind uint, err *error) []byte {
		if *err != nil {
			return nil
		}
		var value []byte
		value, *err = t.attribute(session, public, kind)
		return value
	}
	var err error
	keyType := read(pkcs11.CKA_KEY_TYPE, &err)
	if err != nil {
		return nil, err
	}
	switch n, _ := ulong(keyType); n {
	case pkcs11.CKK_RSA:
		modulus, exponent := read(pkcs11.CKA_MODULUS, &err), read(pkcs11.CKA_PUBLIC_EXPONENT, &err)
		if err != nil {
			return nil, err
		}
		return rsaPublicKey(modulus, exponent)
	case pkcs11.CKK_EC, ckkECEdwards:
		params, point := read(pkcs11.CKA_EC_PARAMS, &err), read(pkcs11.CKA_EC_POINT, &err)
		if err != nil {
			return nil, err
		}
		return ecPublicKey(params, point)
	default:
		return nil, fmt.Errorf("read public key: CKA_KEY_TYPE 0x%x is neither RSA nor an elliptic curve", n)
	}
}

// ulong reads a CK_ULONG, which has the width and byte order of the machine.
func ulong(value []byte) (uint64, bool) {
	switch len(value) {
	case 8:
		return binary.NativeEndian.Uint64(value), true
	case 4:
		return uint64(binary.NativeEndian.Uint32(value)), true
	}
	return 0, false
}

func rsaPublicKey(modulus, exponent []byte) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if n.BitLen() < 1024 || n.BitLen() > 16384 || n.Bit(0) == 0 {
		return nil, fmt.Errorf("read RSA public key: a modulus of %d bits, or an even one", n.BitLen())
	}
	// Go's crypto/rsa holds the exponent in an int and takes none above 31 bits.
	if e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0 {
		return nil, fmt.Errorf("read RSA public key: public exponent of %d bits: use 65537", e.BitLen())
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// ecPublicKey reads CKA_EC_PARAMS and CKA_EC_POINT. The point is a DER OCTET STRING by the standard and bare with some tokens.
func ecPublicKey(params, point []byte) (crypto.PublicKey, error) {
	bare := point
	var octets cryptobyte.String
	if s := cryptobyte.String(point); s.ReadASN1(&octets, asn1.OCTET_STRING) && s.Empty() {
		bare = octets
	}
	for _, spec := range curveSpecs() {
		if !bytes.Equal(params, spec.params) && !(spec.algorithm == Ed25519 && string(params) == edwards25519Name) {
			continue
		}
		if spec.curve == nil {
			if len(bare) != ed25519.PublicKeySize {
				return nil, fmt.Errorf("read Ed25519 public key: %d bytes", len(bare))
			}
			return ed25519.PublicKey(bytes.Clone(bare)), nil
		}
		key, err := ecdsa.ParseUncompressedPublicKey(spec.curve, bare)
		if err != nil { // a bare point may happen to look like DER
			key, err = ecdsa.ParseUncompressedPublicKey(spec.curve, point)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s public key: %w", spec.algorithm, err)
		}
		return key, nil
	}
	return nil, fmt.Errorf("read public key: curve with CKA_EC_PARAMS %x is none of P-256, P-384, P-521, Ed25519", params)
}
