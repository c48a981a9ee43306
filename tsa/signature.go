package tsa

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// signatureAlgorithm is one that a SignerInfo may name.
type signatureAlgorithm struct {
	name string
	id   asn1.ObjectIdentifier
	rsa  bool
	hash crypto.Hash // 0: what digestAlgorithm says
	salt int         // of RSASSA-PSS, in octets; 0: another scheme
}

// Tags of RSASSA-PSS-params besides tagExplicit0.
const (
	tagExplicit1 = cbasn1.Tag(0xa1)
	tagExplicit2 = cbasn1.Tag(0xa2)
)

// Object identifiers of RSASSA-PSS: RFC 4055 §3.1, §2.2.
var (
	oidRSASSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
)

// signatureAlgorithms of RFC 5754 §3 and RFC 5758 §3.2, without parameters that say anything. RSASSA-PSS (RFC 4056) has some: readPSS reads it.
var signatureAlgorithms = [...]signatureAlgorithm{
	{"rsaEncryption", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, true, 0, 0},
	{"sha256WithRSAEncryption", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, true, crypto.SHA256, 0},
	{"sha384WithRSAEncryption", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, true, crypto.SHA384, 0},
	{"sha512WithRSAEncryption", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, true, crypto.SHA512, 0},
	{"ecdsa-with-SHA256", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, false, crypto.SHA256, 0},
	{"ecdsa-with-SHA384", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, false, crypto.SHA384, 0},
	{"ecdsa-with-SHA512", asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, false, crypto.SHA512, 0},
}

// minRSA is the shortest modulus, in bits, that is accepted in a token of any authority (TS 119 312 §6:
// what was made with less was never recommended).
const minRSA = 2048

// maxRSA is the longest modulus, in bits, of a certificate in a token: more than anybody uses. Whoever made the token chose its
// certificates, and none is verified yet when the first signature is: a megabit would take a minute.
const maxRSA = 16384

// maxSalt is the longest salt of RSASSA-PSS, in octets, that is looked at: more than RSA of maxRSA bits has room for (RFC 8017
// §9.1.1). The bound is ours to keep: crypto/rsa adds to the length before it compares, and panics where that overflows.
const maxSalt = 2048

// checkSignature verifies the signature over the signed attributes.
func (i *signerInfo) checkSignature(pub crypto.PublicKey) error {
	algorithm, err := readSignatureAlgorithm(i.signatureAlgorithm)
	if err != nil {
		return err
	}
	if algorithm.hash != 0 && algorithm.hash != i.digest {
		return fmt.Errorf("signatureAlgorithm is %s, but digestAlgorithm %v", algorithm.name, i.digest)
	}
	i.algorithmName = algorithm.name
	h := i.digest.New()
	h.Write(i.signedAttrs)
	digest := h.Sum(nil)
	valid := false
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("the TSU's RSA key has %d bits, %d are the least", k.N.BitLen(), minRSA)
		}
		switch {
		case algorithm.salt > 0:
			valid = rsa.VerifyPSS(k, i.digest, digest, i.signature, &rsa.PSSOptions{SaltLength: algorithm.salt}) == nil
		case algorithm.rsa:
			valid = rsa.VerifyPKCS1v15(k, i.digest, digest, i.signature) == nil
		}
	case *ecdsa.PublicKey:
		valid = !algorithm.rsa && ecdsa.VerifyASN1(k, digest, i.signature)
	}
	if !valid {
		return errors.New("the signature does not verify under the TSU's key")
	}
	return nil
}

// readSignatureAlgorithm reads an AlgorithmIdentifier in one of signatureAlgorithms. RSA takes NULL or
// no parameters (RFC 5754 §3.2), ECDSA none.
func readSignatureAlgorithm(b []byte) (signatureAlgorithm, error) {
	var seq cryptobyte.String
	var id asn1.ObjectIdentifier
	s := cryptobyte.String(b)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&id) {
		return signatureAlgorithm{}, errors.New("signatureAlgorithm is malformed")
	}
	if id.Equal(oidRSASSAPSS) {
		return readPSS(seq)
	}
	for _, a := range signatureAlgorithms {
		if !a.id.Equal(id) {
			continue
		}
		if !seq.Empty() && !(a.rsa && bytes.Equal(seq, asn1.NullBytes)) {
			return a, fmt.Errorf("signatureAlgorithm %s has parameters", a.name)
		}
		return a, nil
	}
	return signatureAlgorithm{}, fmt.Errorf("signature algorithm %v is not accepted: RSASSA-PKCS1-v1_5, RSASSA-PSS and ECDSA with SHA-256, -384 or -512 are", id)
}

// readPSS reads RSASSA-PSS-params, which a signature has to have (RFC 4056 §2.2):
//
//	SEQUENCE {
//	    hashAlgorithm     [0] HashAlgorithm    DEFAULT sha1Identifier,
//	    maskGenAlgorithm  [1] MaskGenAlgorithm DEFAULT mgf1SHA1Identifier,
//	    saltLength        [2] INTEGER          DEFAULT 20,
//	    trailerField      [3] INTEGER          DEFAULT 1 }
//
// One hash has to serve all (RFC 4055 §3.1 recommends it), and not SHA-1. The salt may have any length but none, up to
// maxSalt: authorities differ, and a verifier loses nothing by it.
func readPSS(s cryptobyte.String) (signatureAlgorithm, error) {
	var params, field, hash, mgf cryptobyte.String
	var mgfID asn1.ObjectIdentifier
	malformed := errors.New("signatureAlgorithm RSASSA-PSS has malformed parameters")
	if !s.ReadASN1(&params, cbasn1.SEQUENCE) || !s.Empty() {
		return signatureAlgorithm{}, malformed
	}
	if !params.PeekASN1Tag(tagExplicit0) {
		return signatureAlgorithm{}, errors.New("signatureAlgorithm is RSASSA-PSS with SHA-1, which is not accepted")
	}
	if !params.ReadASN1(&field, tagExplicit0) || !field.ReadASN1(&hash, cbasn1.SEQUENCE) || !field.Empty() {
		return signatureAlgorithm{}, malformed
	}
	h, err := readDigestAlgorithm(hash)
	if err != nil {
		return signatureAlgorithm{}, fmt.Errorf("signatureAlgorithm RSASSA-PSS: %w", err)
	}
	if h != crypto.SHA256 && h != crypto.SHA384 && h != crypto.SHA512 {
		return signatureAlgorithm{}, fmt.Errorf("signatureAlgorithm RSASSA-PSS with %v is not accepted: with SHA-256, -384 or -512 it is", h)
	}
	if !params.ReadASN1(&field, tagExplicit1) || !field.ReadASN1(&mgf, cbasn1.SEQUENCE) || !field.Empty() ||
		!mgf.ReadASN1ObjectIdentifier(&mgfID) || !mgf.ReadASN1(&hash, cbasn1.SEQUENCE) || !mgf.Empty() {
		return signatureAlgorithm{}, malformed
	}
	if mgfHash, err := readDigestAlgorithm(hash); err != nil || mgfHash != h || !mgfID.Equal(oidMGF1) {
		return signatureAlgorithm{}, fmt.Errorf("signatureAlgorithm RSASSA-PSS: the mask is not made by MGF1 with %v (RFC 4055 §3.1)", h)
	}
	a := signatureAlgorithm{name: "RSASSA-PSS with " + h.String(), id: oidRSASSAPSS, rsa: true, hash: h, salt: 20}
	if params.PeekASN1Tag(tagExplicit2) &&
		(!params.ReadASN1(&field, tagExplicit2) || !field.ReadASN1Integer(&a.salt) || !field.Empty()) {
		return signatureAlgorithm{}, malformed
	}
	if a.salt < 1 || a.salt > maxSalt {
		return signatureAlgorithm{}, fmt.Errorf("signatureAlgorithm RSASSA-PSS: a salt of %d octets is not accepted: 1 to %d are", a.salt, maxSalt)
	}
	if !params.Empty() {
		return signatureAlgorithm{}, errors.New("signatureAlgorithm RSASSA-PSS: there is more than a salt: a trailerField has to be the default, which DER leaves out")
	}
	return a, nil
}
