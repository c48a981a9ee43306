package tsa

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// signedData is a TimeStampToken as it was read; precompute in unit.go has its ASN.1. Fields alias the token.
type signedData struct {
	eContent     []byte // DER of the TSTInfo
	certificates []*x509.Certificate
	signer       signerInfo
}

// signerInfo is the one SignerInfo of a token.
type signerInfo struct {
	issuer, serial     []byte // sid: DER of Name and of INTEGER
	digest             crypto.Hash
	signedAttrs        []byte // as hashed: with the tag of a SET OF (RFC 5652 §5.4)
	signatureAlgorithm []byte // DER
	algorithmName      string // set by checkSignature
	signature          []byte
}

// attributes are what the signed attributes said, besides matching the content.
type attributes struct {
	certHashAlgorithm crypto.Hash
	certHash          []byte
	issuerSerial      []byte // content of IssuerSerial; nil: absent
}

// parseSignedData reads a TimeStampToken that der.Check has passed (RFC 3161 §2.4.2, RFC 5652 §5.1).
func parseSignedData(token []byte) (*signedData, error) {
	var content, explicit, sd, digests cryptobyte.String
	var id asn1.ObjectIdentifier
	var version int
	s := cryptobyte.String(token)
	if !s.ReadASN1(&content, cbasn1.SEQUENCE) || !s.Empty() || !content.ReadASN1ObjectIdentifier(&id) ||
		!id.Equal(oidSignedData) || !content.ReadASN1(&explicit, tagExplicit0) || !content.Empty() ||
		!explicit.ReadASN1(&sd, cbasn1.SEQUENCE) || !explicit.Empty() {
		return nil, errors.New("the token is not CMS SignedData")
	}
	if !sd.ReadASN1Integer(&version) || version != 3 || !sd.ReadASN1(&digests, cbasn1.SET) {
		return nil, errors.New("the token's SignedData is not of version 3")
	}
	var d signedData
	if err := d.readEncapContentInfo(&sd); err != nil {
		return nil, err
	}
	if err := d.readCertificates(&sd); err != nil {
		return nil, err
	}
	sd.SkipOptionalASN1(tagExtensions1) // crls: what they say is for who checks revocation
	var infos, info cryptobyte.String
	if !sd.ReadASN1(&infos, cbasn1.SET) || !sd.Empty() || !infos.ReadASN1(&info, cbasn1.SEQUENCE) || !infos.Empty() {
		return nil, errors.New("the token has not exactly one SignerInfo (RFC 3161 §2.4.2)")
	}
	if err := d.signer.read(info); err != nil {
		return nil, err
	}
	return &d, checkDigestAlgorithms(digests, d.signer.digest)
}

// checkDigestAlgorithms wants the signer's hash among those that SignedData announces, for who hashes while
// reading (RFC 5652 §5.1). Others may be there.
func checkDigestAlgorithms(set cryptobyte.String, signers crypto.Hash) error {
	found := false
	for !set.Empty() {
		var algorithm, id cryptobyte.String
		if !set.ReadASN1(&algorithm, cbasn1.SEQUENCE) {
			return errors.New("digestAlgorithms of the SignedData are malformed")
		}
		if h, err := readDigestAlgorithm(algorithm); err == nil {
			found = found || h == signers
		} else if !algorithm.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || !oneOrNone(algorithm) {
			return errors.New("digestAlgorithms of the SignedData are malformed")
		}
	}
	if !found {
		return fmt.Errorf("digestAlgorithms of the SignedData do not have the signer's %v (RFC 5652 §5.1)", signers)
	}
	return nil
}

// oneOrNone reports whether s is at most one element: the parameters of an AlgorithmIdentifier.
func oneOrNone(s cryptobyte.String) bool {
	var element cryptobyte.String
	var tag cbasn1.Tag
	return s.Empty() || s.ReadAnyASN1(&element, &tag) && s.Empty()
}

func (d *signedData) readEncapContentInfo(s *cryptobyte.String) error {
	var encap, explicit, octets cryptobyte.String
	var id asn1.ObjectIdentifier
	if !s.ReadASN1(&encap, cbasn1.SEQUENCE) || !encap.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidTSTInfo) {
		return errors.New("the token's content is not a TSTInfo")
	}
	if !encap.ReadASN1(&explicit, tagExplicit0) || !encap.Empty() || !explicit.ReadASN1(&octets, cbasn1.OCTET_STRING) || !explicit.Empty() {
		return errors.New("the token has no TSTInfo in it")
	}
	d.eContent = octets
	return nil
}

// maxCertificates bounds the certificates of a token that are parsed.
const maxCertificates = 32

func (d *signedData) readCertificates(s *cryptobyte.String) error {
	var set, element cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&set, &present, tagExplicit0) {
		return errors.New("the token's certificates are malformed")
	}
	for !set.Empty() {
		if !set.ReadASN1Element(&element, cbasn1.SEQUENCE) || len(d.certificates) == maxCertificates {
			return fmt.Errorf("the token's certificates are not X.509, or more than %d", maxCertificates)
		}
		c, err := x509.ParseCertificate(element)
		if err != nil {
			return fmt.Errorf("read a certificate of the token: %w", err)
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return fmt.Errorf("a certificate of the token has an RSA key of %d bits, %d are the most", key.N.BitLen(), maxRSA)
		}
		d.certificates = append(d.certificates, c)
	}
	return nil
}

// read reads the content of SignerInfo (RFC 5652 §5.3). A subjectKeyIdentifier is not accepted as sid: the
// ESSCertIDv2 names issuer and serial anyway.
func (i *signerInfo) read(s cryptobyte.String) error {
	var version int
	var sid, issuer, serial, digest, attrs, algorithm, signature cryptobyte.String
	if !s.ReadASN1Integer(&version) || version != 1 || !s.ReadASN1(&sid, cbasn1.SEQUENCE) ||
		!sid.ReadASN1Element(&issuer, cbasn1.SEQUENCE) || !sid.ReadASN1Element(&serial, cbasn1.INTEGER) || !sid.Empty() {
		return errors.New("the SignerInfo is not of version 1 with issuerAndSerialNumber")
	}
	if !s.ReadASN1(&digest, cbasn1.SEQUENCE) || !s.ReadASN1(&attrs, tagExplicit0) ||
		!s.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !s.ReadASN1(&signature, cbasn1.OCTET_STRING) {
		return errors.New("the SignerInfo is malformed or has no signed attributes")
	}
	if err := checkUnsignedAttributes(&s); err != nil {
		return err
	}
	if !s.Empty() {
		return errors.New("the SignerInfo has an unknown field")
	}
	var err error
	if i.digest, err = readDigestAlgorithm(digest); err != nil {
		return fmt.Errorf("digestAlgorithm of the SignerInfo: %w", err)
	}
	i.issuer, i.serial = issuer, serial
	i.signedAttrs = wrap(cbasn1.SET, attrs)
	i.signatureAlgorithm, i.signature = algorithm, signature
	return nil
}

// checkUnsignedAttributes reads unsignedAttrs [1] off s, where there are any. Nothing of theirs is believed, but they have to be
// Attributes (RFC 5652 §5.3).
func checkUnsignedAttributes(s *cryptobyte.String) error {
	var list cryptobyte.String
	var present bool
	malformed := errors.New("the unsigned attributes are malformed")
	if !s.ReadOptionalASN1(&list, &present, tagExtensions1) || present && list.Empty() {
		return malformed
	}
	for !list.Empty() {
		var attribute, id, values, value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() || values.Empty() {
			return malformed
		}
		for !values.Empty() {
			if !values.ReadAnyASN1(&value, &tag) {
				return malformed
			}
		}
	}
	return nil
}

// readDigestAlgorithm reads the content of an AlgorithmIdentifier of a hash.
func readDigestAlgorithm(s cryptobyte.String) (crypto.Hash, error) {
	var id cryptobyte.String
	if !s.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) || (!s.Empty() && !bytes.Equal(s, asn1.NullBytes)) {
		return 0, errors.New("malformed, or with parameters")
	}
	h, ok := imprintHashByID(id)
	if !ok {
		return 0, fmt.Errorf("hash %s is not accepted", oidString(id))
	}
	return h, nil
}

// checkAttributes checks that the signed attributes are about this content and name a certificate: each of the three once,
// with one value, sorted (RFC 5652 §11, RFC 5816 §2.2.1). Others may be there.
func (i *signerInfo) checkAttributes(content []byte) (attributes, error) {
	values, err := readAttributes(i.signedAttrs)
	if err != nil {
		return attributes{}, err
	}
	if !bytes.Equal(values[oidContentType.String()], oidDER(oidTSTInfo)) {
		return attributes{}, errors.New("the signed contentType is not TSTInfo")
	}
	h := i.digest.New()
	h.Write(content)
	if !bytes.Equal(values[oidMessageDigest.String()], wrap(cbasn1.OCTET_STRING, h.Sum(nil))) {
		return attributes{}, errors.New("the signed messageDigest is not the TSTInfo's")
	}
	value, ok := values[oidSigningCertificateV2.String()]
	if !ok {
		return attributes{}, errors.New("signingCertificateV2 is not among the signed attributes (EN 319 422 §5.2.2)")
	}
	return readSigningCertificateV2(value)
}

// readAttributes reads a SET OF Attribute: the one value of each, by identifier.
func readAttributes(set []byte) (map[string][]byte, error) {
	values := make(map[string][]byte)
	var list cryptobyte.String
	s := cryptobyte.String(set)
	if err := der.Check(set); err != nil { // the implicit tag hid their order from the check of the whole token
		return nil, fmt.Errorf("the signed attributes: %w", err)
	}
	if !s.ReadASN1(&list, cbasn1.SET) {
		return nil, errors.New("the signed attributes are malformed")
	}
	for !list.Empty() {
		var attribute, vals, value cryptobyte.String
		var id asn1.ObjectIdentifier
		var tag cbasn1.Tag
		if !list.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) ||
			!attribute.ReadASN1(&vals, cbasn1.SET) || !attribute.Empty() ||
			!vals.ReadAnyASN1Element(&value, &tag) || !vals.Empty() {
			return nil, errors.New("a signed attribute is malformed or has not exactly one value")
		}
		if _, twice := values[id.String()]; twice {
			return nil, fmt.Errorf("the signed attribute %v occurs twice", id)
		}
		values[id.String()] = value
	}
	return values, nil
}

// errSigningCertificate is what there is to say of a signingCertificateV2 that cannot be read.
var errSigningCertificate = errors.New("signingCertificateV2 is malformed")

// readSigningCertificateV2 reads the attribute and returns its first ESSCertIDv2, which is the TSU's. The others name certificates
// above it, and policies may follow: nothing depends on them, but they have to be there whole.
//
//	SigningCertificateV2 ::= SEQUENCE {
//	    certs     SEQUENCE OF ESSCertIDv2,
//	    policies  SEQUENCE OF PolicyInformation OPTIONAL }
//
// RFC 5035 §3.
func readSigningCertificateV2(value []byte) (attributes, error) {
	var seq, certs, id, policies, policy, policyID cryptobyte.String
	var present bool
	s := cryptobyte.String(value)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || !seq.ReadASN1(&certs, cbasn1.SEQUENCE) || !certs.ReadASN1(&id, cbasn1.SEQUENCE) {
		return attributes{}, errSigningCertificate
	}
	first, err := readESSCertIDv2(id)
	if err != nil {
		return attributes{}, err
	}
	for !certs.Empty() {
		if !certs.ReadASN1(&id, cbasn1.SEQUENCE) {
			return attributes{}, errSigningCertificate
		}
		if _, err := readESSCertIDv2(id); errors.Is(err, errSigningCertificate) {
			return attributes{}, err // by which hash it names a CA is no matter
		}
	}
	if !seq.ReadOptionalASN1(&policies, &present, cbasn1.SEQUENCE) || !seq.Empty() || present && policies.Empty() {
		return attributes{}, errSigningCertificate
	}
	for !policies.Empty() {
		if !policies.ReadASN1(&policy, cbasn1.SEQUENCE) || !policy.ReadASN1(&policyID, cbasn1.OBJECT_IDENTIFIER) ||
			!policy.SkipOptionalASN1(cbasn1.SEQUENCE) || !policy.Empty() {
			return attributes{}, errSigningCertificate
		}
	}
	return first, nil
}

// readESSCertIDv2 reads the content of one; signingCertificateV2 in unit.go has its ASN.1.
func readESSCertIDv2(id cryptobyte.String) (attributes, error) {
	a := attributes{certHashAlgorithm: crypto.SHA256} // the DEFAULT
	var hashed cryptobyte.String
	if id.PeekASN1Tag(cbasn1.SEQUENCE) {
		var algorithm cryptobyte.String
		var err error
		if !id.ReadASN1(&algorithm, cbasn1.SEQUENCE) {
			return a, errSigningCertificate
		}
		if a.certHashAlgorithm, err = readDigestAlgorithm(algorithm); err != nil {
			return a, fmt.Errorf("signingCertificateV2: %w", err)
		}
	}
	if !id.ReadASN1(&hashed, cbasn1.OCTET_STRING) {
		return a, errSigningCertificate
	}
	a.certHash = hashed
	if !id.Empty() {
		var issuerSerial cryptobyte.String
		if !id.ReadASN1(&issuerSerial, cbasn1.SEQUENCE) || !id.Empty() {
			return a, errSigningCertificate
		}
		a.issuerSerial = issuerSerial
	}
	return a, nil
}

// findCertificate finds the certificate that sid and ESSCertIDv2 both name, among the token's and
// given, and returns all the others.
func (d *signedData) findCertificate(a attributes, given []*x509.Certificate) (*x509.Certificate, []*x509.Certificate, error) {
	var found *x509.Certificate
	var others []*x509.Certificate
	for _, c := range append(d.certificates[:len(d.certificates):len(d.certificates)], given...) {
		if found == nil && bytes.Equal(c.RawIssuer, d.signer.issuer) && bytes.Equal(integer(c.SerialNumber), d.signer.serial) {
			found = c
			continue
		}
		others = append(others, c)
	}
	if found == nil {
		return nil, nil, errors.New("the signer's certificate is neither in the token nor given: pass the TSU's certificate")
	}
	h := a.certHashAlgorithm.New()
	h.Write(found.Raw)
	if !bytes.Equal(h.Sum(nil), a.certHash) {
		return nil, nil, errors.New("signingCertificateV2 names another certificate than the signer's: the hash differs")
	}
	want := bytes.Join([][]byte{wrap(cbasn1.SEQUENCE, directoryName(found.RawIssuer)), integer(found.SerialNumber)}, nil)
	if a.issuerSerial != nil && !bytes.Equal(a.issuerSerial, want) {
		return nil, nil, errors.New("signingCertificateV2 names another certificate than the signer's: issuer or serial differs")
	}
	return found, others, nil
}
