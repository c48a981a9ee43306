package tsa

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha3"   // crypto.SHA3_256, SHA3_384, SHA3_512
	_ "crypto/sha512" // crypto.SHA384, SHA512
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// MaxRequest is the greatest TimeStampReq that is looked at, in octets. One with the longest
// imprint and nonce is under 200.
const MaxRequest = 64 << 10

// maxNonce bounds the content of a nonce, in octets. RFC 3161 §2.4.1 wants 64 bits; nobody
// was seen to send more than 32 octets, and what comes in is stored and sent back.
const maxNonce = 64

// imprintHash is a hash algorithm that messageImprint may name.
type imprintHash struct {
	id   string // content octets of the OBJECT IDENTIFIER
	hash crypto.Hash
}

// imprintHashes are those of TS 119 312 V2.1.1 that are recommended: 2.16.840.1.101.3.4.2.n.
// SHA-1, MD5, RIPEMD-160 and SHA-224 are not among them (EN 319 422 §5.1.3).
var imprintHashes = [...]imprintHash{
	{"\x60\x86\x48\x01\x65\x03\x04\x02\x01", crypto.SHA256},
	{"\x60\x86\x48\x01\x65\x03\x04\x02\x02", crypto.SHA384},
	{"\x60\x86\x48\x01\x65\x03\x04\x02\x03", crypto.SHA512},
	{"\x60\x86\x48\x01\x65\x03\x04\x02\x08", crypto.SHA3_256},
	{"\x60\x86\x48\x01\x65\x03\x04\x02\x09", crypto.SHA3_384},
	{"\x60\x86\x48\x01\x65\x03\x04\x02\x0a", crypto.SHA3_512},
}

func imprintHashByID(id []byte) (crypto.Hash, bool) {
	for _, h := range imprintHashes {
		if string(id) == h.id {
			return h.hash, true
		}
	}
	return 0, false
}

// hashIdentifier is the DER of the AlgorithmIdentifier of h, parameters absent (RFC 5754 §2).
// It is nil for a hash that is not in imprintHashes.
func hashIdentifier(h crypto.Hash) []byte {
	for _, known := range imprintHashes {
		if known.hash == h {
			return wrap(cbasn1.SEQUENCE, wrap(cbasn1.OBJECT_IDENTIFIER, []byte(known.id)))
		}
	}
	return nil
}

// messageImprint is what a token binds to a time.
//
//	MessageImprint ::= SEQUENCE {
//	    hashAlgorithm  AlgorithmIdentifier,
//	    hashedMessage  OCTET STRING }
type messageImprint struct {
	raw           []byte // DER, whole: it is echoed as it came
	hash          crypto.Hash
	hashedMessage []byte
}

func newMessageImprint(h crypto.Hash, digest []byte) (messageImprint, error) {
	id := hashIdentifier(h)
	if id == nil {
		return messageImprint{}, fmt.Errorf("%w: %v is not accepted: use SHA-256, SHA-384, SHA-512 or their SHA-3 namesakes", errBadAlg, h)
	}
	if len(digest) != h.Size() {
		return messageImprint{}, fmt.Errorf("%w: hashedMessage has %d octets: %v has %d", errBadDataFormat, len(digest), h, h.Size())
	}
	raw := wrap(cbasn1.SEQUENCE, id, wrap(cbasn1.OCTET_STRING, digest))
	return messageImprint{raw: raw, hash: h, hashedMessage: digest}, nil
}

// readMessageImprint reads one off s. parameters of the hash algorithm may be absent or NULL
// (RFC 5754 §2); anything else is an algorithm we do not know.
func readMessageImprint(s *cryptobyte.String) (messageImprint, error) {
	var m messageImprint
	var raw, seq, algorithm, id, hashed cryptobyte.String
	if !s.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return m, fmt.Errorf("%w: messageImprint", errBadDataFormat)
	}
	m.raw = raw
	if !raw.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1(&id, cbasn1.OBJECT_IDENTIFIER) ||
		!seq.ReadASN1(&hashed, cbasn1.OCTET_STRING) || !seq.Empty() {
		return m, fmt.Errorf("%w: messageImprint", errBadDataFormat)
	}
	var ok bool
	if m.hash, ok = imprintHashByID(id); !ok {
		return m, fmt.Errorf("%w: hash algorithm %s is not accepted: use SHA-256, SHA-384, SHA-512 or their SHA-3 namesakes", errBadAlg, oidString(id))
	}
	if !algorithm.Empty() && !bytes.Equal(algorithm, asn1.NullBytes) {
		return m, fmt.Errorf("%w: the parameters of hash algorithm %s are neither absent nor NULL", errBadAlg, oidString(id))
	}
	if len(hashed) != m.hash.Size() {
		return m, fmt.Errorf("%w: hashedMessage has %d octets: %v has %d", errBadDataFormat, len(hashed), m.hash, m.hash.Size())
	}
	m.hashedMessage = hashed
	return m, nil
}

// timeStampReq is a request that may be answered with a token.
//
//	TimeStampReq ::= SEQUENCE {
//	    version         INTEGER { v1(1) },
//	    messageImprint  MessageImprint,
//	    reqPolicy       TSAPolicyId        OPTIONAL,
//	    nonce           INTEGER            OPTIONAL,
//	    certReq         BOOLEAN            DEFAULT FALSE,
//	    extensions      [0] IMPLICIT Extensions OPTIONAL }
type timeStampReq struct {
	messageImprint messageImprint
	reqPolicy      []byte // DER of the OBJECT IDENTIFIER; nil: absent
	nonce          []byte // DER of the INTEGER; nil: absent
	certReq        bool
}

// parseTimeStampReq reads a request. Its fields alias b. Every error wraps one of the
// errors that failInfo maps. RFC 3161 §2.4.1.
func parseTimeStampReq(b []byte) (timeStampReq, error) {
	var req timeStampReq
	if len(b) > MaxRequest {
		return req, fmt.Errorf("%w: the request is longer than %d octets", errBadDataFormat, MaxRequest)
	}
	if err := der.Check(b); err != nil {
		return req, fmt.Errorf("%w: %w", errBadDataFormat, err)
	}
	var seq, version cryptobyte.String
	s := cryptobyte.String(b)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&version, cbasn1.INTEGER) {
		return req, fmt.Errorf("%w: not a TimeStampReq", errBadDataFormat)
	}
	if !bytes.Equal(version, []byte{1}) {
		// Before the rest is read: another version may have other fields.
		return req, fmt.Errorf("%w: version is not 1", errBadRequest)
	}
	var err error
	if req.messageImprint, err = readMessageImprint(&seq); err != nil {
		return req, err
	}
	return req, req.readOptions(&seq)
}

// readOptions reads what follows messageImprint.
func (req *timeStampReq) readOptions(s *cryptobyte.String) error {
	if s.PeekASN1Tag(cbasn1.OBJECT_IDENTIFIER) {
		s.ReadASN1Element((*cryptobyte.String)(&req.reqPolicy), cbasn1.OBJECT_IDENTIFIER)
	}
	if s.PeekASN1Tag(cbasn1.INTEGER) {
		s.ReadASN1Element((*cryptobyte.String)(&req.nonce), cbasn1.INTEGER)
		if len(req.nonce) > maxNonce+2 { // +2: tag and length octets
			return fmt.Errorf("%w: the nonce is longer than %d octets", errBadRequest, maxNonce)
		}
	}
	// Some clients write the default out (certReq FALSE). DER wants it absent, but it says what absence says, so
	// it is taken: nothing of it goes into the token.
	if s.PeekASN1Tag(cbasn1.BOOLEAN) && !s.ReadASN1Boolean(&req.certReq) {
		return fmt.Errorf("%w: certReq is no BOOLEAN", errBadDataFormat)
	}
	if s.PeekASN1Tag(tagExtensions0) {
		return readReqExtensions(s)
	}
	if !s.Empty() {
		return fmt.Errorf("%w: unknown or misplaced field in the TimeStampReq", errBadDataFormat)
	}
	return nil
}

const (
	tagExplicit0   = cbasn1.Tag(0xa0)
	tagExtensions0 = cbasn1.Tag(0xa0) // TimeStampReq.extensions, IMPLICIT
	tagExtensions1 = cbasn1.Tag(0xa1) // TSTInfo.extensions, IMPLICIT
	tagMillis      = cbasn1.Tag(0x80)
	tagMicros      = cbasn1.Tag(0x81)
)

// readReqExtensions never returns nil: RFC 3161 §2.4.1 forbids a token where an extension,
// critical or not, is not recognised, and none is.
func readReqExtensions(s *cryptobyte.String) error {
	list, err := readImplicitExtensions(s, tagExtensions0)
	if err != nil || !s.Empty() {
		return fmt.Errorf("%w: extensions of the TimeStampReq", errBadDataFormat)
	}
	return fmt.Errorf("%w: extension %v is not known", errUnacceptedExtension, list[0].ID)
}

// readImplicitExtensions reads [n] IMPLICIT Extensions off s.
func readImplicitExtensions(s *cryptobyte.String, tag cbasn1.Tag) ([]der.Extension, error) {
	var content cryptobyte.String
	if !s.ReadASN1(&content, tag) {
		return nil, der.ErrNotDER
	}
	retagged := cryptobyte.String(wrap(cbasn1.SEQUENCE, content))
	return der.ReadExtensions(&retagged)
}

// marshal encodes the request: what parseTimeStampReq read comes out as it went in.
func (req timeStampReq) marshal() []byte {
	var certReq []byte
	if req.certReq {
		certReq = []byte{0x01, 0x01, 0xff}
	}
	return wrap(cbasn1.SEQUENCE, []byte{0x02, 0x01, 0x01}, req.messageImprint.raw, req.reqPolicy, req.nonce, certReq)
}

// tstInfo is the statement that gets signed.
//
//	TSTInfo ::= SEQUENCE {
//	    version         INTEGER { v1(1) },
//	    policy          TSAPolicyId,
//	    messageImprint  MessageImprint,
//	    serialNumber    INTEGER,
//	    genTime         GeneralizedTime,
//	    accuracy        Accuracy           OPTIONAL,
//	    ordering        BOOLEAN            DEFAULT FALSE,
//	    nonce           INTEGER            OPTIONAL,
//	    tsa             [0] EXPLICIT GeneralName OPTIONAL,
//	    extensions      [1] IMPLICIT Extensions  OPTIONAL }
type tstInfo struct {
	policy         []byte // DER
	messageImprint messageImprint
	serialNumber   []byte // content octets
	genTime        time.Time
	precision      time.Duration // of genTime on the wire
	accuracy       []byte        // DER; EN 319 422 §5.2.2 wants it present
	nonce          []byte        // DER or nil
	tsa            []byte        // DER of the [0] or nil
	extensions     []byte        // DER of the [1] or nil
}

// marshal encodes the TSTInfo. ordering is left at its default, FALSE (EN 319 422 §5.2.2).
func (t tstInfo) marshal() []byte {
	return wrap(cbasn1.SEQUENCE,
		[]byte{0x02, 0x01, 0x01},
		t.policy,
		t.messageImprint.raw,
		wrap(cbasn1.INTEGER, t.serialNumber),
		wrap(cbasn1.GeneralizedTime, appendGenTime(nil, t.genTime, t.precision)),
		t.accuracy,
		t.nonce,
		t.tsa,
		t.extensions)
}

// appendGenTime appends t as RFC 3161 §2.4.2 wants a genTime: YYYYMMDDhhmmss[.f]Z, UTC, cut to
// precision, no zero at the end of the fraction and no point without one.
func appendGenTime(b []byte, t time.Time, precision time.Duration) []byte {
	// ".999999999" drops trailing zeros, and the point with them.
	return t.UTC().Truncate(precision).AppendFormat(b, "20060102150405.999999999Z")
}

// parseGenTime reads the content octets of a genTime, as strictly as it is written. Fractions
// finer than a nanosecond and a second 60, which Go cannot represent, are refused.
func parseGenTime(content []byte) (time.Time, error) {
	t, err := time.Parse("20060102150405.999999999Z", string(content))
	if err != nil || !bytes.Equal(appendGenTime(nil, t, time.Nanosecond), content) {
		return time.Time{}, fmt.Errorf("genTime %q is not YYYYMMDDhhmmss[.f]Z without trailing zeros (RFC 3161 §2.4.2)", content)
	}
	return t, nil
}

// marshalAccuracy encodes d, a whole number of microseconds above 0.
//
//	Accuracy ::= SEQUENCE {
//	    seconds  INTEGER              OPTIONAL,
//	    millis   [0] INTEGER (1..999) OPTIONAL,
//	    micros   [1] INTEGER (1..999) OPTIONAL }
func marshalAccuracy(d time.Duration) []byte {
	seconds := int64(d / time.Second)
	millis := int64(d % time.Second / time.Millisecond)
	micros := int64(d % time.Millisecond / time.Microsecond)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if seconds != 0 {
			b.AddASN1Int64(seconds)
		}
		if millis != 0 {
			b.AddASN1Int64WithTag(millis, tagMillis)
		}
		if micros != 0 {
			b.AddASN1Int64WithTag(micros, tagMicros)
		}
	})
	return b.BytesOrPanic() // nothing in it can fail
}

// readAccuracy reads Accuracy off s. A missing part counts as 0 (RFC 3161 §2.4.2).
func readAccuracy(s *cryptobyte.String) (time.Duration, error) {
	var seq cryptobyte.String
	var seconds, millis, micros int64
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) {
		return 0, errors.New("accuracy is not a SEQUENCE")
	}
	if seq.PeekASN1Tag(cbasn1.INTEGER) && (!seq.ReadASN1Integer(&seconds) || seconds < 0 || seconds > 1<<31) {
		return 0, errors.New("accuracy.seconds is out of range")
	}
	if seq.PeekASN1Tag(tagMillis) && (!seq.ReadASN1Int64WithTag(&millis, tagMillis) || millis < 1 || millis > 999) {
		return 0, errors.New("accuracy.millis is not 1 to 999")
	}
	if seq.PeekASN1Tag(tagMicros) && (!seq.ReadASN1Int64WithTag(&micros, tagMicros) || micros < 1 || micros > 999) {
		return 0, errors.New("accuracy.micros is not 1 to 999")
	}
	if !seq.Empty() {
		return 0, errors.New("accuracy has an unknown field")
	}
	return time.Duration(seconds)*time.Second + time.Duration(millis)*time.Millisecond + time.Duration(micros)*time.Microsecond, nil
}

// PKIStatus values that are used (RFC 3161 §2.4.2). A token is there with the first two only.
const (
	statusGranted         = 0
	statusGrantedWithMods = 1
	statusRejection       = 2
)

// marshalGranted encodes a TimeStampResp with a token.
//
//	TimeStampResp ::= SEQUENCE {
//	    status          PKIStatusInfo,
//	    timeStampToken  ContentInfo OPTIONAL }
func marshalGranted(token []byte) []byte {
	return wrap(cbasn1.SEQUENCE, []byte{0x30, 0x03, 0x02, 0x01, statusGranted}, token)
}

// marshalRejection encodes a TimeStampResp without one.
//
//	PKIStatusInfo ::= SEQUENCE {
//	    status        PKIStatus,
//	    statusString  PKIFreeText    OPTIONAL,
//	    failInfo      PKIFailureInfo OPTIONAL }
//	PKIFreeText ::= SEQUENCE SIZE (1..MAX) OF UTF8String
func marshalRejection(info PKIFailureInfo, text string) []byte {
	return wrap(cbasn1.SEQUENCE, wrap(cbasn1.SEQUENCE,
		[]byte{0x02, 0x01, statusRejection},
		wrap(cbasn1.SEQUENCE, wrap(cbasn1.UTF8String, []byte(text))),
		info.marshal()))
}

// wrap encodes one value whose content is parts, one after the other. Unlike a
// cryptobyte.Builder it writes each octet once; a token nests seven deep.
func wrap(tag cbasn1.Tag, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n+6)
	b = append(b, byte(tag))
	switch { // X.690 §10.1: the definite form, as short as can be
	case n < 1<<7:
		b = append(b, byte(n))
	case n < 1<<8:
		b = append(b, 0x81, byte(n))
	case n < 1<<16:
		b = append(b, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		b = append(b, 0x83, byte(n>>16), byte(n>>8), byte(n))
	default:
		b = append(b, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// marshalOID encodes an identifier of ours or of the configuration.
func marshalOID(id asn1.ObjectIdentifier) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(id)
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode object identifier %v: %w", id, err)
	}
	return out, nil
}

// oidString shows the content octets of an OBJECT IDENTIFIER from outside, whose arcs need not fit an int.
func oidString(content []byte) string {
	const most = 64 // octets: enough for every identifier that is in use
	var id asn1.ObjectIdentifier
	s := cryptobyte.String(wrap(cbasn1.OBJECT_IDENTIFIER, content))
	if len(content) <= most && s.ReadASN1ObjectIdentifier(&id) {
		return id.String()
	}
	return fmt.Sprintf("%x…", content[:min(len(content), 16)])
}
