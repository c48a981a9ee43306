package ocsp

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxRequest is the greatest length of an OCSPRequest in octets. Twenty CertIDs with SHA-512
	// take 4 KiB; the rest is room for a signature that is not looked at.
	maxRequest = 16 << 10

	// maxRequests is the greatest number of Requests in a requestList.
	maxRequests = 20

	// maxNonce is the greatest length of a nonce in octets (RFC 9654 §2.1).
	maxNonce = 128
)

// responseStatus is OCSPResponseStatus (RFC 6960 §4.2.1). 4 is not used, and 5, sigRequired, is
// never answered: status is free to all (EN 319 412-2 GEN-4.4.1-7).
type responseStatus uint8

const (
	successful       responseStatus = 0
	malformedRequest responseStatus = 1
	internalError    responseStatus = 2
	tryLater         responseStatus = 3
	unauthorized     responseStatus = 6
)

// String is the status as RFC 6960 §4.2.1 names it.
func (s responseStatus) String() string {
	switch s {
	case successful:
		return "successful"
	case malformedRequest:
		return "malformedRequest"
	case internalError:
		return "internalError"
	case tryLater:
		return "tryLater"
	case unauthorized:
		return "unauthorized"
	}
	return fmt.Sprintf("responseStatus(%d)", uint8(s))
}

// errMalformed is wrapped by every error of parseRequest.
var errMalformed = errors.New("malformed OCSPRequest")

// Object identifiers of RFC 6960 §4.2.1 and §4.4, and of the hashes (RFC 3279, RFC 5754).
var (
	oidBasic               = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidNonce               = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidAcceptableResponses = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 4}
	oidNoCheck             = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidArchiveCutoff       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6}
	oidPreferredSigAlgs    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 8}

	oidSHA1   = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
)

// certID is CertID. The slices alias the request.
type certID struct {
	raw           []byte      // the whole CertID, which the response repeats as it came
	hashAlgorithm crypto.Hash // 0: none that we compute
	nameHash      []byte
	keyHash       []byte
	serialNumber  []byte // content octets of the INTEGER, of any length and sign
}

// ocspRequest is what a request asks for. The slices alias the request.
type ocspRequest struct {
	list  []certID
	nonce []byte // the nonce extension's value, an OCTET STRING in DER; nil: none
}

// key is what the answer depends on: the CertIDs as they came.
func (q ocspRequest) key() string {
	var b bytes.Buffer
	for _, id := range q.list {
		b.Write(id.raw)
	}
	return b.String()
}

// parseRequest reads an OCSPRequest in strict DER (RFC 6960 §4.1.1). requestorName, the
// signature and extensions that are unknown and not critical have to be well-formed and are ignored.
//
//	OCSPRequest ::= SEQUENCE {
//	    tbsRequest         TBSRequest,
//	    optionalSignature  [0] EXPLICIT Signature OPTIONAL }
func parseRequest(b []byte) (ocspRequest, error) {
	if len(b) > maxRequest {
		return ocspRequest{}, fmt.Errorf("%w: %d octets, the limit is %d", errMalformed, len(b), maxRequest)
	}
	if err := der.Check(b); err != nil {
		return ocspRequest{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	s := cryptobyte.String(b)
	var request, tbs, signature cryptobyte.String
	var signed bool
	if !s.ReadASN1(&request, cbasn1.SEQUENCE) || !s.Empty() ||
		!request.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!request.ReadOptionalASN1(&signature, &signed, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!request.Empty() {
		return ocspRequest{}, fmt.Errorf("%w: OCSPRequest", errMalformed)
	}
	if signed && !wellFormedSignature(signature) {
		return ocspRequest{}, fmt.Errorf("%w: optionalSignature", errMalformed)
	}
	return parseTBSRequest(tbs)
}

// parseTBSRequest reads the content of a TBSRequest.
//
//	TBSRequest ::= SEQUENCE {
//	    version            [0] EXPLICIT Version DEFAULT v1,
//	    requestorName      [1] EXPLICIT GeneralName OPTIONAL,
//	    requestList            SEQUENCE OF Request,
//	    requestExtensions  [2] EXPLICIT Extensions OPTIONAL }
func parseTBSRequest(tbs cryptobyte.String) (ocspRequest, error) {
	var q ocspRequest
	// DER leaves a DEFAULT out and v1 is the only version, so that a version that is there is an unknown one.
	if tbs.PeekASN1Tag(cbasn1.Tag(0).ContextSpecific().Constructed()) {
		return q, fmt.Errorf("%w: a version other than v1, or v1 spelled out", errMalformed)
	}
	var name, list, extensions cryptobyte.String
	var named, extended bool
	if !tbs.ReadOptionalASN1(&name, &named, cbasn1.Tag(1).ContextSpecific().Constructed()) ||
		!tbs.ReadASN1(&list, cbasn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&extensions, &extended, cbasn1.Tag(2).ContextSpecific().Constructed()) ||
		!tbs.Empty() {
		return q, fmt.Errorf("%w: TBSRequest", errMalformed)
	}
	if named && !wellFormedGeneralName(name) {
		return q, fmt.Errorf("%w: requestorName", errMalformed)
	}
	if list.Empty() {
		return q, fmt.Errorf("%w: requestList is empty", errMalformed)
	}
	for !list.Empty() {
		if len(q.list) == maxRequests {
			return q, fmt.Errorf("%w: more than %d requests", errMalformed, maxRequests)
		}
		id, err := readRequest(&list)
		if err != nil {
			return q, err
		}
		q.list = append(q.list, id)
	}
	if !extended {
		return q, nil
	}
	var err error
	q.nonce, err = parseRequestExtensions(extensions)
	return q, err
}

// readRequest reads one Request off s.
//
//	Request ::= SEQUENCE {
//	    reqCert                      CertID,
//	    singleRequestExtensions  [0] EXPLICIT Extensions OPTIONAL }
func readRequest(s *cryptobyte.String) (certID, error) {
	var request, extensions cryptobyte.String
	var extended bool
	if !s.ReadASN1(&request, cbasn1.SEQUENCE) {
		return certID{}, fmt.Errorf("%w: Request", errMalformed)
	}
	id, err := readCertID(&request)
	if err != nil {
		return certID{}, err
	}
	if !request.ReadOptionalASN1(&extensions, &extended, cbasn1.Tag(0).ContextSpecific().Constructed()) || !request.Empty() {
		return certID{}, fmt.Errorf("%w: Request", errMalformed)
	}
	if !extended {
		return id, nil
	}
	// The one extension that RFC 6960 defines here, serviceLocator (§4.4.6), asks for a relay, which this is not:
	// none is understood, so that any critical one has to fail.
	_, err = readExtensions(extensions)
	return id, err
}

// readCertID reads one CertID off s.
//
//	CertID ::= SEQUENCE {
//	    hashAlgorithm   AlgorithmIdentifier,
//	    issuerNameHash  OCTET STRING,
//	    issuerKeyHash   OCTET STRING,
//	    serialNumber    CertificateSerialNumber }   -- INTEGER
func readCertID(s *cryptobyte.String) (certID, error) {
	var raw, content, algorithm, name, key, serial cryptobyte.String
	var hash asn1.ObjectIdentifier
	if !s.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return certID{}, fmt.Errorf("%w: CertID", errMalformed)
	}
	inner := raw
	if !inner.ReadASN1(&content, cbasn1.SEQUENCE) ||
		!content.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&hash) ||
		!content.ReadASN1(&name, cbasn1.OCTET_STRING) ||
		!content.ReadASN1(&key, cbasn1.OCTET_STRING) ||
		!content.ReadASN1(&serial, cbasn1.INTEGER) ||
		!content.Empty() {
		return certID{}, fmt.Errorf("%w: CertID", errMalformed)
	}
	id := certID{raw: raw, nameHash: name, keyHash: key, serialNumber: serial, hashAlgorithm: hashOf(hash)}
	// RFC 5754 §2: generators leave the parameters out, and NULL is to be accepted; SHA-1 has it the other way round.
	if id.hashAlgorithm != 0 && !algorithm.Empty() && !bytes.Equal(algorithm, asn1.NullBytes) {
		return certID{}, fmt.Errorf("%w: hashAlgorithm: parameters neither NULL nor absent", errMalformed)
	}
	return id, nil
}

// hashOf returns the hash of that identifier, 0 if it is none of ours.
func hashOf(id asn1.ObjectIdentifier) crypto.Hash {
	switch {
	case id.Equal(oidSHA1):
		return crypto.SHA1
	case id.Equal(oidSHA256):
		return crypto.SHA256
	case id.Equal(oidSHA384):
		return crypto.SHA384
	case id.Equal(oidSHA512):
		return crypto.SHA512
	}
	return 0
}

// parseRequestExtensions reads the content of [2] requestExtensions and returns the nonce's value, if any.
//
//	Nonce ::= OCTET STRING (SIZE(1..128))   -- RFC 9654 §2.1, within extnValue
func parseRequestExtensions(s cryptobyte.String) ([]byte, error) {
	// acceptableResponses has to name the basic response (RFC 6960 §4.4.3) and preferredSigAlgs is a wish
	// (§4.4.7): to answer as always is to have understood both.
	list, err := readExtensions(s, oidNonce, oidAcceptableResponses, oidPreferredSigAlgs)
	if err != nil {
		return nil, err
	}
	extension, ok := der.FindExtension(list, oidNonce)
	if !ok {
		return nil, nil
	}
	value := cryptobyte.String(extension.Value)
	var nonce cryptobyte.String
	if der.Check(value) != nil || !value.ReadASN1(&nonce, cbasn1.OCTET_STRING) {
		return nil, fmt.Errorf("%w: nonce is not an OCTET STRING (RFC 9654 §2.1)", errMalformed)
	}
	if len(nonce) < 1 || len(nonce) > maxNonce {
		return nil, fmt.Errorf("%w: nonce of %d octets: 1 to %d are allowed (RFC 9654 §2.1)", errMalformed, len(nonce), maxNonce)
	}
	return extension.Value, nil
}

// readExtensions reads Extensions that fill s and refuses a critical one that is not among understood.
func readExtensions(s cryptobyte.String, understood ...asn1.ObjectIdentifier) ([]der.Extension, error) {
	list, err := der.ReadExtensions(&s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if !s.Empty() {
		return nil, fmt.Errorf("%w: Extensions", errMalformed)
	}
next:
	for _, e := range list {
		if !e.Critical {
			continue
		}
		for _, id := range understood {
			if e.ID.Equal(id) {
				continue next
			}
		}
		return nil, fmt.Errorf("%w: critical extension %v is unknown", errMalformed, e.ID)
	}
	return list, nil
}

// wellFormedSignature judges the content of [0] optionalSignature.
//
//	Signature ::= SEQUENCE {
//	    signatureAlgorithm      AlgorithmIdentifier,
//	    signature               BIT STRING,
//	    certs               [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }
func wellFormedSignature(s cryptobyte.String) bool {
	var signature, algorithm, bits, explicit, certs cryptobyte.String
	var id asn1.ObjectIdentifier
	var present bool
	if !s.ReadASN1(&signature, cbasn1.SEQUENCE) || !s.Empty() ||
		!signature.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&id) ||
		!signature.ReadASN1(&bits, cbasn1.BIT_STRING) ||
		!signature.ReadOptionalASN1(&explicit, &present, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!signature.Empty() {
		return false
	}
	if !present {
		return true
	}
	if !explicit.ReadASN1(&certs, cbasn1.SEQUENCE) || !explicit.Empty() {
		return false
	}
	for !certs.Empty() {
		if !certs.SkipASN1(cbasn1.SEQUENCE) {
			return false
		}
	}
	return true
}

// wellFormedGeneralName judges the content of [1] requestorName: one of the nine choices of
// GeneralName (RFC 5280 §4.2.1.6), all of which have context-specific tags.
func wellFormedGeneralName(s cryptobyte.String) bool {
	var value cryptobyte.String
	var tag cbasn1.Tag
	return s.ReadAnyASN1(&value, &tag) && s.Empty() && tag&0xc0 == 0x80 && tag&0x1f <= 8
}

// certStatus is CertStatus.
type certStatus struct {
	state          state
	revocationTime time.Time // whole seconds, UTC; zero unless revoked
	reason         uint8     // CRLReason (RFC 5280 §5.3.1); 0, unspecified, is left out
}

// state is which of the choices of CertStatus it is: the tag's number.
type state uint8

const (
	good    state = 0
	revoked state = 1
	unknown state = 2
)

// String is the choice as RFC 6960 §4.2.1 names it.
func (s state) String() string {
	switch s {
	case good:
		return "good"
	case revoked:
		return "revoked"
	}
	return "unknown"
}

// add appends the status.
//
//	CertStatus ::= CHOICE {
//	    good     [0] IMPLICIT NULL,
//	    revoked  [1] IMPLICIT RevokedInfo,
//	    unknown  [2] IMPLICIT UnknownInfo }   -- NULL
//
//	RevokedInfo ::= SEQUENCE {
//	    revocationTime         GeneralizedTime,
//	    revocationReason   [0] EXPLICIT CRLReason OPTIONAL }   -- ENUMERATED
func (c certStatus) add(b *cryptobyte.Builder) {
	tag := cbasn1.Tag(c.state).ContextSpecific()
	if c.state != revoked {
		b.AddASN1(tag, func(*cryptobyte.Builder) {})
		return
	}
	b.AddASN1(tag.Constructed(), func(b *cryptobyte.Builder) {
		der.AddGeneralizedTime(b, c.revocationTime)
		if c.reason != 0 {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1Enum(int64(c.reason))
			})
		}
	})
}

// responseData is ResponseData as this responder fills it: one thisUpdate and one nextUpdate for
// all, the responder named by its key.
type responseData struct {
	keyHash       []byte // SHA-1 of the responder's public key bits
	producedAt    time.Time
	list          []certID
	statuses      []certStatus // as many, in the same order
	thisUpdate    time.Time
	nextUpdate    time.Time
	archiveCutoff time.Time
	nonce         []byte // the extension's value as it came; nil: none
}

// marshal writes the ResponseData. Times are GeneralizedTime without fractions (RFC 5280 §4.1.2.5.2).
//
//	ResponseData ::= SEQUENCE {
//	    version             [0] EXPLICIT Version DEFAULT v1,
//	    responderID             ResponderID,
//	    producedAt              GeneralizedTime,
//	    responses               SEQUENCE OF SingleResponse,
//	    responseExtensions  [1] EXPLICIT Extensions OPTIONAL }
//
//	ResponderID ::= CHOICE {
//	    byName  [1] Name,
//	    byKey   [2] KeyHash }   -- EXPLICIT; OCTET STRING, SHA-1 of the responder's public key
func (d responseData) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(d.keyHash)
		})
		der.AddGeneralizedTime(b, d.producedAt)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i := range d.list {
				d.addSingleResponse(b, i)
			}
		})
		if d.nonce != nil {
			b.AddASN1(cbasn1.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				der.AddExtensions(b, []der.Extension{{ID: oidNonce, Value: d.nonce}})
			})
		}
	})
	return b.Bytes()
}

// addSingleResponse appends the answer to request i.
//
//	SingleResponse ::= SEQUENCE {
//	    certID                CertID,
//	    certStatus            CertStatus,
//	    thisUpdate            GeneralizedTime,
//	    nextUpdate        [0] EXPLICIT GeneralizedTime OPTIONAL,
//	    singleExtensions  [1] EXPLICIT Extensions OPTIONAL }
func (d responseData) addSingleResponse(b *cryptobyte.Builder, i int) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(d.list[i].raw)
		d.statuses[i].add(b)
		der.AddGeneralizedTime(b, d.thisUpdate)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			der.AddGeneralizedTime(b, d.nextUpdate)
		})
		b.AddASN1(cbasn1.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				d.addArchiveCutoff(b)
			})
		})
	})
}

// addArchiveCutoff appends the extension of RFC 6960 §4.4.4.
//
//	ArchiveCutoff ::= GeneralizedTime
func (d responseData) addArchiveCutoff(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidArchiveCutoff)
		b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
			der.AddGeneralizedTime(b, d.archiveCutoff)
		})
	})
}

// marshalResponse writes a successful OCSPResponse around a signed ResponseData; algorithm and
// certificate are DER.
//
//	OCSPResponse ::= SEQUENCE {
//	    responseStatus      OCSPResponseStatus,   -- ENUMERATED
//	    responseBytes   [0] EXPLICIT ResponseBytes OPTIONAL }
//
//	ResponseBytes ::= SEQUENCE {
//	    responseType  OBJECT IDENTIFIER,
//	    response      OCTET STRING }   -- BasicOCSPResponse
//
//	BasicOCSPResponse ::= SEQUENCE {
//	    tbsResponseData         ResponseData,
//	    signatureAlgorithm      AlgorithmIdentifier,
//	    signature               BIT STRING,
//	    certs               [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }
func marshalResponse(tbs, algorithm, signature, certificate []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(successful))
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidBasic)
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddBytes(algorithm)
						b.AddASN1BitString(signature)
						b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddBytes(certificate)
							})
						})
					})
				})
			})
		})
	})
	return b.Bytes()
}

// refusal is the OCSPResponse of a status other than successful: it has no responseBytes and is
// not signed (RFC 6960 §2.3).
func refusal(s responseStatus) []byte {
	return []byte{0x30, 0x03, 0x0a, 0x01, byte(s)}
}
