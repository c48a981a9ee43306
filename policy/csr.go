package policy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// maxCSR bounds a certificate signing request in octets, PEM or DER. One for RSA 4096 has 1,700.
const maxCSR = 64 << 10

// maxRSABits bounds what we spend on checking a proof of possession; the rules have no upper bound.
const maxRSABits = 16384

// ParseCSR reads a PKCS#10 request (PEM or DER), checks its signature (proof of possession, 411-1 REG-6.3.1-01)
// and returns the SubjectPublicKeyInfo exactly as it came, which must be canonical DER. Subject and extensions of the
// CSR are ignored: the subject file decides. A CSR that cannot be read or whose signature is wrong is a plain error;
// a key that may not be certified (TS 119 312) is Violations. At most 64 KiB are read.
func ParseCSR(text []byte) (publicKey []byte, err error) {
	request, err := decodeCSR(text)
	if err != nil {
		return nil, fmt.Errorf("read CSR: %w", err)
	}
	spki, err := splitCSR(request)
	if err != nil {
		return nil, fmt.Errorf("read CSR: %w", err)
	}
	if err := keyViolations(spki).err(); err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("read CSR: %w", err)
	}
	if !bytes.Equal(parsed.RawSubjectPublicKeyInfo, spki) {
		return nil, errors.New("read CSR: two readers find two public keys in it")
	}
	switch parsed.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		var v Violations
		v.add("ETSI TS 119 312 §5", "the CSR is signed with SHA-1, which proves nothing any more: make it again with SHA-256 (openssl req -sha256)")
		return nil, v
	}
	if err := parsed.CheckSignature(); errors.Is(err, x509.ErrUnsupportedAlgorithm) {
		return nil, errors.New("check CSR signature: its algorithm is none that is verified here: ECDSA, RSASSA-PKCS1-v1_5 and RSASSA-PSS with SHA-256, SHA-384 or SHA-512 are, " +
			"PSS with MGF1 by the same hash and a salt as long as the digest (openssl req -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest)")
	} else if err != nil {
		return nil, fmt.Errorf("check CSR signature: who sent it has not shown that the private key is theirs (EN 319 411-1 REG-6.3.1-01): %w", err)
	}
	return bytes.Clone(spki), nil
}

// decodeCSR takes PEM or DER and returns DER, canonical.
func decodeCSR(text []byte) ([]byte, error) {
	if len(text) > maxCSR {
		return nil, fmt.Errorf("%d octets: the most is %d", len(text), maxCSR)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the file is empty")
	}
	request := text
	if !looksLikeDER(text) {
		var err error
		if request, err = decodePEM(bytes.TrimSpace(text)); err != nil {
			return nil, err
		}
	}
	return request, der.Check(request)
}

// looksLikeDER reports whether text begins as a SEQUENCE of a CSR's length does: PEM begins with a hyphen.
func looksLikeDER(text []byte) bool { return text[0] == 0x30 && len(text) > 1 && text[1] >= 0x80 }

var (
	pemBegin = []byte("-----BEGIN ")
	pemEnd   = []byte("-----END ")
)

// decodePEM takes exactly one block and nothing around it. encoding/pem passes over what
// stands before, between and after blocks; then a second request in the file, or an
// explanation that differs from the request, would go unseen.
func decodePEM(text []byte) ([]byte, error) {
	switch begins := bytes.Count(text, pemBegin); {
	case begins == 0:
		return nil, errors.New("neither PEM nor DER: a CSR begins -----BEGIN CERTIFICATE REQUEST-----")
	case begins > 1 || bytes.Count(text, pemEnd) > 1:
		return nil, errors.New("the file holds several PEM blocks: send one request a file")
	case !bytes.HasPrefix(text, pemBegin):
		return nil, errors.New("text before -----BEGIN: send the PEM block alone (openssl req without -text)")
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("the PEM block is damaged: its base64 or its END line is wrong")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("text after -----END: send the PEM block alone")
	case bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")):
		return nil, errors.New("this is a private key, which must never leave its owner: consider it lost, make another, and send a CSR (openssl req -new)")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, fmt.Errorf("this is a %s, not a CERTIFICATE REQUEST", block.Type)
	case len(block.Headers) > 0:
		return nil, errors.New("the PEM block has headers: RFC 7468 §2 has none")
	}
	return block.Bytes, nil
}

// splitCSR finds the SubjectPublicKeyInfo in a request (RFC 2986 §4.1, §4.2).
//
//	CertificationRequest     ::= SEQUENCE { certificationRequestInfo, signatureAlgorithm, signature }
//	CertificationRequestInfo ::= SEQUENCE { version INTEGER (0), subject Name, subjectPKInfo, attributes [0] }
func splitCSR(request []byte) ([]byte, error) {
	outer := cryptobyte.String(request)
	var csr, info, subject, spki, attributes, algorithm, signature cryptobyte.String
	var version uint
	if !outer.ReadASN1(&csr, cbasn1.SEQUENCE) || !outer.Empty() ||
		!csr.ReadASN1(&info, cbasn1.SEQUENCE) || !csr.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!csr.ReadASN1(&signature, cbasn1.BIT_STRING) || !csr.Empty() ||
		!info.ReadASN1Integer(&version) || !info.ReadASN1(&subject, cbasn1.SEQUENCE) ||
		!info.ReadASN1Element(&spki, cbasn1.SEQUENCE) ||
		!info.ReadASN1(&attributes, cbasn1.Tag(0).ContextSpecific().Constructed()) || !info.Empty() {
		return nil, errors.New("not a CertificationRequest (RFC 2986 §4)")
	}
	if version != 0 {
		return nil, fmt.Errorf("version %d: RFC 2986 §4.1 has only version 0", version)
	}
	if bits := rsaBits(spki); bits > maxRSABits {
		return nil, fmt.Errorf("an RSA key of %d bits: keys above %d are not read", bits, maxRSABits)
	}
	return spki, nil
}

// Public key algorithms and curves: RFC 3279 §2.3, RFC 5480 §2.1.1.1, RFC 8410 §3, RFC 5639 §4.1.
var (
	oidRSAEncryption = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidRSASSAPSS     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidECPublicKey   = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519       = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidEd448         = asn1.ObjectIdentifier{1, 3, 101, 113}
	oidP256          = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384          = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidP521          = asn1.ObjectIdentifier{1, 3, 132, 0, 35}
	arcBrainpool     = asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1}
)

// subjectPublicKeyInfo is RFC 5280 §4.1.2.7: SEQUENCE { SEQUENCE { algorithm, parameters }, BIT STRING }.
type subjectPublicKeyInfo struct {
	algorithm  asn1.ObjectIdentifier
	parameters []byte // DER; nil where absent
	key        []byte // content of the BIT STRING
}

func readSPKI(spki []byte) (subjectPublicKeyInfo, bool) {
	var k subjectPublicKeyInfo
	outer := cryptobyte.String(spki)
	var info, algorithm cryptobyte.String
	ok := outer.ReadASN1(&info, cbasn1.SEQUENCE) && outer.Empty() &&
		info.ReadASN1(&algorithm, cbasn1.SEQUENCE) && algorithm.ReadASN1ObjectIdentifier(&k.algorithm) &&
		info.ReadASN1BitStringAsBytes(&k.key) && info.Empty()
	k.parameters = algorithm
	return k, ok
}

// encode writes k anew: a key that comes out otherwise than it came in was not canonical.
func (k subjectPublicKeyInfo) encode() []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(der.AlgorithmIdentifier(k.algorithm, k.parameters))
		b.AddASN1BitString(k.key)
	})
	out, err := b.Bytes()
	if err != nil {
		return nil
	}
	return out
}

// keyViolations are the rules a public key breaks that is to be certified: canonical DER, an
// algorithm and a strength of TS 119 312 V2.1.1 that the ECCG agrees to, and that relying
// parties can read. spki is the DER of SubjectPublicKeyInfo.
func keyViolations(spki []byte) Violations {
	var v Violations
	if err := der.Check(spki); err != nil {
		v.add("RFC 5280 §4.1.2.7", "SubjectPublicKeyInfo: %v", err)
		return v
	}
	k, ok := readSPKI(spki)
	if !ok || !bytes.Equal(k.encode(), spki) {
		v.add("RFC 5280 §4.1.2.7", "SubjectPublicKeyInfo is not a SEQUENCE of AlgorithmIdentifier and BIT STRING")
		return v
	}
	switch {
	case k.algorithm.Equal(oidRSAEncryption):
		k.checkRSA(&v)
	case k.algorithm.Equal(oidECPublicKey):
		k.checkEC(&v)
	case k.algorithm.Equal(oidEd25519), k.algorithm.Equal(oidEd448):
		v.add("EN 319 412-2 GEN-4.2.5-2", "EdDSA is not among the mechanisms the ECCG agrees to (CIR (EU) 2025/1943): use ECDSA on P-256, or RSA of 3072 bits")
	case k.algorithm.Equal(oidRSASSAPSS):
		v.add("RFC 4055 §1.2", "the key is bound to RSASSA-PSS (id-RSASSA-PSS), which many relying parties cannot read: make it as rsaEncryption")
	default:
		v.add("EN 319 412-2 GEN-4.2.5-1", "keys of algorithm %s are not certified here: use ECDSA on P-256, P-384 or P-521, or RSA of 3072 bits", k.algorithm)
	}
	return v
}

// checkRSA holds an RSA key to TS 119 312 V2.1.1. A modulus below 3000 bits may go into no new
// certificate after 2026-12-31, and must end by 2028; we issue none at all.
func (k subjectPublicKeyInfo) checkRSA(v *Violations) {
	if !bytes.Equal(k.parameters, asn1.NullBytes) {
		v.add("RFC 3279 §2.3.1", "the parameters of rsaEncryption are not NULL")
	}
	n, e, ok := k.rsa()
	if !ok {
		v.add("RFC 3279 §2.3.1", "the key is not a SEQUENCE of two positive INTEGERs, modulus and exponent")
		return
	}
	if bits := n.BitLen(); bits < 3000 {
		v.add("ETSI TS 119 312 table 6", "an RSA modulus of %d bits: a certificate of today needs 3000 or more (openssl genrsa 3072)", bits)
	}
	if e.Bit(0) == 0 || e.BitLen() < 17 || e.BitLen() > 256 {
		v.add("ETSI TS 119 312 §6.2.2.1", "an RSA exponent of %d bits, last bit %d: it has to be odd, above 2^16 and below 2^256, like 65537", e.BitLen(), e.Bit(0))
	}
	if p := smallFactor(n); p != 0 {
		v.add("NIST SP 800-89 §5.3.3", "the RSA modulus is divisible by %d: whoever made it has a broken generator", p)
	}
}

// rsa reads RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }.
func (k subjectPublicKeyInfo) rsa() (n, e *big.Int, ok bool) {
	n, e = new(big.Int), new(big.Int)
	outer := cryptobyte.String(k.key)
	var pair cryptobyte.String
	ok = der.Check(k.key) == nil && outer.ReadASN1(&pair, cbasn1.SEQUENCE) && pair.ReadASN1Integer(n) && pair.ReadASN1Integer(e) &&
		pair.Empty() && n.Sign() > 0 && e.Sign() > 0
	return n, e, ok
}

// rsaBits is the length of the modulus, 0 where spki is no RSA key.
func rsaBits(spki []byte) int {
	k, ok := readSPKI(spki)
	if !ok || !k.algorithm.Equal(oidRSAEncryption) {
		return 0
	}
	if n, _, ok := k.rsa(); ok {
		return n.BitLen()
	}
	return 0
}

// smallFactor returns the smallest number from 2 to 751 that divides n, which is a prime, or 0.
// It divides n by products of several odd numbers, because n is long and the remainder short.
func smallFactor(n *big.Int) int64 {
	if n.Bit(0) == 0 {
		return 2
	}
	var divisor, rest big.Int
	for odd := int64(3); odd < 752; {
		first, product := odd, int64(1)
		for ; odd < 752 && product < 1<<53; odd += 2 { // the product stays below 2^63
			product *= odd
		}
		remainder := rest.Mod(n, divisor.SetInt64(product)).Int64()
		for ; first < odd; first += 2 {
			if remainder%first == 0 {
				return first
			}
		}
	}
	return 0
}

// checkEC holds an EC key to the curves we serve, named, with a point on them.
func (k subjectPublicKeyInfo) checkEC(v *Violations) {
	var id asn1.ObjectIdentifier
	parameters := cryptobyte.String(k.parameters)
	if !parameters.ReadASN1ObjectIdentifier(&id) || !parameters.Empty() {
		v.add("RFC 5480 §2.1.1", "the curve is not named: parameters written out, inherited or absent are refused (openssl: -pkeyopt ec_param_enc:named_curve)")
		return
	}
	var curve elliptic.Curve
	switch {
	case id.Equal(oidP256):
		curve = elliptic.P256()
	case id.Equal(oidP384):
		curve = elliptic.P384()
	case id.Equal(oidP521):
		curve = elliptic.P521()
	case under(id, arcBrainpool):
		v.add("RFC 5480 §2.1.1.1", "a brainpool curve (%s): TS 119 312 agrees to it, but GnuTLS and programs in Go cannot read the certificate: use P-256, P-384 or P-521", id)
		return
	default:
		v.add("RFC 5480 §2.1.1.1", "curve %s: use P-256, P-384 or P-521", id)
		return
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(curve, k.key); err != nil {
		v.add("RFC 5480 §2.2", "the key is no uncompressed point on %s", curve.Params().Name)
	}
}
