package tsa

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy"
)

// Unit is a time-stamping unit: one key, used for nothing else (TIS-7.7.1-08), and the certificate that says so.
type Unit struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
	// SignatureScheme is what an RSA key signs with; "": der.PKCS1v15. Many verifiers cannot read der.PSS (docs/tsa.md).
	SignatureScheme der.Scheme
	// Chain holds the certificates above Certificate. Those that are self-signed are what New verifies the
	// others under, and stay out of tokens; without any the last one is taken for the anchor.
	Chain []*x509.Certificate
}

// Object identifiers: RFC 5652 §11.1, §11.2, §4, §5.1; RFC 5035 §3; RFC 3161 §2.4.2.
var (
	oidSignedData           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidTSTInfo              = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidSigningCertificateV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidQCStatements         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}
	oidQTSTStatement        = asn1.ObjectIdentifier{0, 4, 0, 19422, 1, 1} // esi4-qtstStatement-1, EN 319 422 annex B
	oidExtKeyUsage          = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	oidPrivateKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 16}
)

// signer is a Unit that was checked, with everything that is the same in each of its tokens encoded once.
type signer struct {
	key         crypto.Signer
	algorithm   der.Algorithm
	hash        [32]byte  // SHA-256 of the certificate's DER
	keyNotAfter time.Time // the first of notAfter and the end of privateKeyUsagePeriod
	notBefore   time.Time // the last of notBefore and the start of privateKeyUsagePeriod
	notAfter    time.Time // of the certificate
	ends        []end     // to warn of

	contentType        []byte // of ContentInfo
	head               []byte // of SignedData: version, digestAlgorithms
	eContentType       []byte
	certificates       []byte // [0] IMPLICIT CertificateSet
	signerHead         []byte // of SignerInfo: version, sid, digestAlgorithm
	attributes         []byte // SET OF Attribute as it is hashed, but for the messageDigest
	digestAt           int    // where in attributes the messageDigest's octets begin
	signatureAlgorithm []byte
	tsa                []byte // TSTInfo.tsa
}

// end is a moment after which something of a unit is over.
type end struct {
	of string
	at time.Time
}

// ErrChain is wrapped by what CheckUnit finds in a chain, not in the unit's certificate.
var ErrChain = errors.New("the chain above the TSU certificate")

// CheckUnit checks all of a unit but its key, which it does not look at: algorithm, extKeyUsage, keyUsage, privateKeyUsagePeriod, the
// chain (TIS-7.6.4-05) and, where there is one, the profile. Whether the certificate is valid now is not asked.
func CheckUnit(u Unit, profile *policy.Profile) error {
	c := u.Certificate
	if c == nil {
		return errors.New("a unit needs a certificate")
	}
	if _, err := der.AlgorithmFor(c.PublicKey, u.SignatureScheme); err != nil {
		return err
	}
	if err := checkTSUCertificate(c); err != nil {
		return err
	}
	if _, _, err := keyUsePeriod(c); err != nil {
		return err
	}
	if err := verifyUnitChain(u); err != nil {
		return fmt.Errorf("%w %w", ErrChain, err)
	}
	if profile == nil {
		return nil
	}
	if err := profile.Check(c.Raw); err != nil {
		return fmt.Errorf("check TSU certificate against profile %s: %w", profile.Name(), err)
	}
	return nil
}

// newSigner checks u, and that its key is the certificate's.
func newSigner(u Unit, profile *policy.Profile) (*signer, error) {
	if u.Key == nil {
		return nil, errors.New("a unit needs a key")
	}
	if err := CheckUnit(u, profile); err != nil {
		return nil, err
	}
	c := u.Certificate
	if pub, ok := u.Key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(c.PublicKey) {
		return nil, fmt.Errorf("the certificate of %s is for another key", nameText(c))
	}
	algorithm, err := der.AlgorithmFor(c.PublicKey, u.SignatureScheme)
	if err != nil {
		return nil, err
	}
	s := &signer{key: u.Key, algorithm: algorithm, hash: sha256.Sum256(c.Raw), notAfter: c.NotAfter}
	if s.notBefore, s.keyNotAfter, err = keyUsePeriod(c); err != nil {
		return nil, err
	}
	s.ends = []end{{"the unit's key may not sign after", s.keyNotAfter}, {"the unit's certificate ends at", c.NotAfter}}
	for _, above := range u.Chain {
		s.ends = append(s.ends, end{"the certificate of " + nameText(above) + " above the unit's ends at", above.NotAfter})
	}
	s.precompute(u)
	return s, nil
}

// checkTSUCertificate checks what RFC 3161 §2.3 and EN 319 422 §6 want of a TSU's certificate.
func checkTSUCertificate(c *x509.Certificate) error {
	if err := checkExtKeyUsage(c); err != nil {
		return err
	}
	const allowed = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	if c.KeyUsage == 0 || c.KeyUsage&^allowed != 0 {
		return errors.New("the TSU certificate's keyUsage is not digitalSignature, nonRepudiation or both")
	}
	if c.IsCA {
		return errors.New("the TSU certificate is a CA certificate")
	}
	return nil
}

// checkExtKeyUsage wants extKeyUsage critical, with id-kp-timeStamping and nothing else (RFC 3161 §2.3).
func checkExtKeyUsage(c *x509.Certificate) error {
	var want cryptobyte.Builder
	want.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidTimeStamping) })
	for _, e := range c.Extensions {
		if e.Id.Equal(oidExtKeyUsage) && e.Critical && bytes.Equal(e.Value, want.BytesOrPanic()) {
			return nil
		}
	}
	return errors.New("the TSU certificate's extKeyUsage is not critical with timeStamping alone (RFC 3161 §2.3)")
}

// verifyUnitChain verifies the certificate under its own chain (TIS-7.6.4-05), in which each has issued the one before it, at
// the first moment when all of it was valid: whether the unit's still is, is asked of the clock for each token.
func verifyUnitChain(u Unit) error {
	if len(u.Chain) == 0 {
		return errors.New("is missing: give the certificates above the TSU's, up to the root")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	anchored := false
	at := u.Certificate.NotBefore
	below := u.Certificate
	for _, c := range u.Chain {
		if err := below.CheckSignatureFrom(c); err != nil || !bytes.Equal(below.RawIssuer, c.RawSubject) {
			return fmt.Errorf("is none: %s did not issue the one before it, %s: write them in order, each followed by its issuer's", nameText(c), nameText(below))
		}
		below = c
		if c.NotBefore.After(at) {
			at = c.NotBefore // a CA certificate that was renewed
		}
		if selfSigned(c) {
			roots.AddCert(c)
			anchored = true
		} else {
			intermediates.AddCert(c)
		}
	}
	if !anchored {
		roots.AddCert(below)
	}
	_, err := u.Certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates,
		CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	if err != nil {
		return fmt.Errorf("does not verify: %w", err)
	}
	return nil
}

func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// keyUsePeriod is when the key may sign: the certificate's validity, cut by privateKeyUsagePeriod (TIS-7.6.7-04).
//
//	PrivateKeyUsagePeriod ::= SEQUENCE {
//	    notBefore  [0] IMPLICIT GeneralizedTime OPTIONAL,
//	    notAfter   [1] IMPLICIT GeneralizedTime OPTIONAL }
func keyUsePeriod(c *x509.Certificate) (notBefore, notAfter time.Time, err error) {
	notBefore, notAfter = c.NotBefore, c.NotAfter
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidPrivateKeyUsage) {
			continue
		}
		var seq, from, to cryptobyte.String
		var hasFrom, hasTo bool
		s := cryptobyte.String(e.Value)
		if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() ||
			!seq.ReadOptionalASN1(&from, &hasFrom, cbasn1.Tag(0x80)) ||
			!seq.ReadOptionalASN1(&to, &hasTo, cbasn1.Tag(0x81)) || !seq.Empty() {
			return notBefore, notAfter, errors.New("privateKeyUsagePeriod of the TSU certificate is malformed")
		}
		if hasFrom {
			t, err := parseGenTime(from)
			if err != nil {
				return notBefore, notAfter, fmt.Errorf("privateKeyUsagePeriod of the TSU certificate: %w", err)
			}
			if t.After(notBefore) {
				notBefore = t
			}
		}
		if hasTo {
			t, err := parseGenTime(to)
			if err != nil {
				return notBefore, notAfter, fmt.Errorf("privateKeyUsagePeriod of the TSU certificate: %w", err)
			}
			if t.Before(notAfter) {
				notAfter = t
			}
		}
	}
	return notBefore, notAfter, nil
}

// usable reports whether the key may sign at t (TIS-7.6.7-06, TIS-7.7.1-09).
func (s *signer) usable(t time.Time) error {
	switch {
	case t.Before(s.notBefore):
		return fmt.Errorf("the unit's key may not sign before %s", stamp(s.notBefore))
	case t.After(s.keyNotAfter):
		return fmt.Errorf("the unit's key may not sign after %s: make a new unit, with a key and certificate of its own (EN 319 421 TIS-7.7.1-09, docs/tsa.md)", stamp(s.keyNotAfter))
	}
	return nil
}
