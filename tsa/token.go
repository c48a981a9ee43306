package tsa

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// token signs tstInfo (DER) and returns the TimeStampToken. The signature was verified when it returns.
func (s *signer) token(tstInfo []byte, certReq bool) ([]byte, error) {
	h := s.algorithm.Hash().New()
	h.Write(tstInfo)
	attributes := bytes.Clone(s.attributes)
	h.Sum(attributes[s.digestAt:s.digestAt])
	signature, err := s.algorithm.Sign(s.key, attributes)
	if err != nil {
		return nil, fmt.Errorf("sign the TSTInfo: %w", err)
	}
	attributes[0] = byte(tagExplicit0) // [0] IMPLICIT in the SignerInfo, SET OF when hashed
	var certificates []byte
	if certReq {
		certificates = s.certificates
	}
	return wrap(cbasn1.SEQUENCE, s.contentType, wrap(tagExplicit0, wrap(cbasn1.SEQUENCE,
		s.head,
		wrap(cbasn1.SEQUENCE, s.eContentType, wrap(tagExplicit0, wrap(cbasn1.OCTET_STRING, tstInfo))),
		certificates,
		wrap(cbasn1.SET, wrap(cbasn1.SEQUENCE,
			s.signerHead, attributes, s.signatureAlgorithm, wrap(cbasn1.OCTET_STRING, signature)))))), nil
}

// precompute encodes what every token of the unit has in common.
//
//	ContentInfo ::= SEQUENCE { contentType, content [0] EXPLICIT SignedData }
//	SignedData ::= SEQUENCE {
//	    version           INTEGER (3),
//	    digestAlgorithms  SET OF AlgorithmIdentifier,
//	    encapContentInfo  SEQUENCE { eContentType, eContent [0] EXPLICIT OCTET STRING },
//	    certificates      [0] IMPLICIT CertificateSet OPTIONAL,
//	    signerInfos       SET OF SignerInfo }
//	SignerInfo ::= SEQUENCE {
//	    version             INTEGER (1),
//	    sid                 IssuerAndSerialNumber,
//	    digestAlgorithm     AlgorithmIdentifier,
//	    signedAttrs         [0] IMPLICIT SET OF Attribute,
//	    signatureAlgorithm  AlgorithmIdentifier,
//	    signature           OCTET STRING }
//
// RFC 5652 §3, §5.1, §5.3. Version 3, because eContentType is not id-data.
func (s *signer) precompute(u Unit) {
	c := u.Certificate
	digestAlgorithm := hashIdentifier(s.algorithm.Hash())
	serial := integer(c.SerialNumber)

	s.contentType, s.eContentType = oidDER(oidSignedData), oidDER(oidTSTInfo)
	s.head = slices.Concat([]byte{0x02, 0x01, 0x03}, wrap(cbasn1.SET, digestAlgorithm))
	s.certificates = certificateSet(u)
	s.signerHead = slices.Concat([]byte{0x02, 0x01, 0x01}, wrap(cbasn1.SEQUENCE, c.RawIssuer, serial), digestAlgorithm)
	s.attributes, s.digestAt = signedAttributes(s.algorithm.Hash(), signingCertificateV2(c.RawIssuer, serial, s.hash))
	s.signatureAlgorithm = s.algorithm.Identifier()
	s.tsa = wrap(tagExplicit0, directoryName(c.RawSubject))
}

// certificateSet is the [0] IMPLICIT CertificateSet: the TSU's certificate and those above it but for the root, which
// nobody may take from a token.
func certificateSet(u Unit) []byte {
	set := [][]byte{u.Certificate.Raw}
	for _, above := range u.Chain {
		if !selfSigned(above) {
			set = append(set, above.Raw)
		}
	}
	slices.SortFunc(set, bytes.Compare) // a SET OF (X.690 §11.6)
	return wrap(tagExplicit0, slices.CompactFunc(set, bytes.Equal)...)
}

// directoryName encodes GeneralName's directoryName [4], explicit because Name is a CHOICE.
func directoryName(rawName []byte) []byte { return wrap(cbasn1.Tag(0xa4), rawName) }

// signingCertificateV2 encodes the value of the attribute that binds the certificate to the signature.
//
//	SigningCertificateV2 ::= SEQUENCE { certs SEQUENCE OF ESSCertIDv2, ... }
//	ESSCertIDv2 ::= SEQUENCE {
//	    hashAlgorithm  AlgorithmIdentifier DEFAULT { id-sha256 },
//	    certHash       OCTET STRING,
//	    issuerSerial   SEQUENCE { issuer GeneralNames, serialNumber } OPTIONAL }
//
// RFC 5035 §3, RFC 5816 §2.2.1.
func signingCertificateV2(rawIssuer, serial []byte, hash [32]byte) []byte {
	issuerSerial := wrap(cbasn1.SEQUENCE, wrap(cbasn1.SEQUENCE, directoryName(rawIssuer)), serial)
	essCertID := wrap(cbasn1.SEQUENCE, wrap(cbasn1.OCTET_STRING, hash[:]), issuerSerial)
	return wrap(cbasn1.SEQUENCE, wrap(cbasn1.SEQUENCE, essCertID))
}

// signedAttributes encodes the SET OF Attribute as it is hashed (RFC 5652 §5.4) with a messageDigest
// still to be filled in, and says where that digest lies.
func signedAttributes(h crypto.Hash, signingCertificate []byte) (set []byte, digestAt int) {
	// A mark no other attribute contains: their values are an identifier and a certificate's name, serial and hash.
	mark := bytes.Repeat([]byte{0xa5}, h.Size())
	list := [][]byte{
		attribute(oidContentType, oidDER(oidTSTInfo)),
		attribute(oidMessageDigest, wrap(cbasn1.OCTET_STRING, mark)),
		attribute(oidSigningCertificateV2, signingCertificate),
	}
	// The order does not depend on the digest: the lengths and identifiers before it differ.
	slices.SortFunc(list, bytes.Compare)
	set = wrap(cbasn1.SET, list...)
	return set, bytes.Index(set, mark)
}

// attribute encodes Attribute ::= SEQUENCE { attrType, attrValues SET OF } with one value.
func attribute(id asn1.ObjectIdentifier, value []byte) []byte {
	return wrap(cbasn1.SEQUENCE, oidDER(id), wrap(cbasn1.SET, value))
}

// oidDER encodes an identifier of this package.
func oidDER(id asn1.ObjectIdentifier) []byte {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(id)
	return b.BytesOrPanic() // only a malformed constant of ours can fail
}

func integer(n *big.Int) []byte {
	var b cryptobyte.Builder
	b.AddASN1BigInt(n)
	return b.BytesOrPanic() // only an error set by a caller's callback can fail
}
