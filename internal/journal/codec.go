package journal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// leafVersion is the first octet of every leaf.
const leafVersion = 1

// maxLeaf bounds a leaf in octets: none of the layouts can reach it.
const maxLeaf = 2048

// maxBody bounds a body in octets: a CRL of a million entries has some 40 MB.
const maxBody = 64 << 20

// errUnknownLeaf marks leaves that newer software wrote: a replica waits for its own update, it does not cry fork.
var errUnknownLeaf = errors.New("written by newer software; update this one")

// codec reads or writes a leaf or a state record: each layout is spelled once (see fields) and serves both ways,
// so that what is read re-encodes to itself. The first error sticks.
type codec struct {
	in      cryptobyte.String
	out     []byte
	writing bool
	err     error
}

func (c *codec) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *codec) uint8(v *uint8) {
	if c.writing {
		c.out = append(c.out, *v)
	} else if !c.in.ReadUint8(v) {
		c.fail("truncated")
	}
}

func (c *codec) uint64(v *uint64) {
	if c.writing {
		n := *v
		c.out = append(c.out, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	} else if !c.in.ReadUint64(v) {
		c.fail("truncated")
	}
}

func (c *codec) bool(v *bool) {
	var b uint8
	if *v {
		b = 1
	}
	c.uint8(&b)
	if b > 1 {
		c.fail("boolean is %d, not 0 or 1", b)
	}
	*v = b == 1
}

func (c *codec) fixed(v []byte) {
	if c.writing {
		c.out = append(c.out, v...)
	} else if !c.in.CopyBytes(v) {
		c.fail("truncated")
	}
}

// short is an opaque<lo..hi> with a length octet; what it returns lies in the input.
func (c *codec) short(v []byte, lo, hi int, what string) []byte {
	if c.writing {
		if len(v) < lo || len(v) > hi {
			c.fail("%s has %d octets, %d to %d are allowed", what, len(v), lo, hi)
			return nil
		}
		c.out = append(append(c.out, byte(len(v))), v...)
		return v
	}
	var s cryptobyte.String
	if c.err != nil || !c.in.ReadUint8LengthPrefixed(&s) {
		c.fail("truncated")
		return nil
	}
	if len(s) < lo || len(s) > hi {
		c.fail("%s has %d octets, %d to %d are allowed", what, len(s), lo, hi)
		return nil
	}
	return s
}

func (c *codec) text(v *string, lo, hi int, what string) {
	if !c.writing {
		*v = string(c.short(nil, lo, hi, what))
	} else {
		c.short([]byte(*v), lo, hi, what)
	}
	c.printable(*v, what)
}

// longText has a length of two octets.
func (c *codec) longText(v *string, most int, what string) {
	if c.writing {
		c.out = append(c.out, byte(len(*v)>>8), byte(len(*v)))
		c.out = append(c.out, *v...)
	} else {
		var s cryptobyte.String
		if !c.in.ReadUint16LengthPrefixed(&s) {
			c.fail("truncated")
		}
		*v = string(s)
	}
	if len(*v) > most {
		c.fail("%s has %d octets, at most %d are allowed", what, len(*v), most)
	}
	c.printable(*v, what)
}

func (c *codec) printable(s, what string) {
	if !utf8.ValidString(s) {
		c.fail("%s is not UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			c.fail("%s holds a control character", what)
			return
		}
	}
}

func (c *codec) serial(v *Serial) {
	if c.writing {
		c.short([]byte(*v), 1, maxSerial, "serial")
	} else {
		*v = Serial(c.short(nil, 1, maxSerial, "serial"))
	}
	if c.err == nil {
		c.err = v.check()
	}
}

func (c *codec) actor(v *Actor) {
	c.fixed(v[:])
	if *v == (Actor{}) {
		c.fail("actor is missing")
	}
}

// The times an entry can hold, in microseconds since 1970: from UTCTime's first year to GeneralizedTime's last (RFC 5280 §4.1.2.5).
const (
	firstTime = -631_152_000_000_000    // 1950-01-01T00:00:00Z
	lastTime  = 253_402_300_799_999_999 // 9999-12-31T23:59:59.999999Z
)

func (c *codec) time(v *time.Time, what string) {
	n := uint64(v.UnixMicro())
	c.uint64(&n)
	if micro := int64(n); micro < firstTime || micro > lastTime {
		c.fail("%s is missing or not between the years 1950 and 9999", what)
		return
	}
	*v = time.UnixMicro(int64(n)).UTC()
}

// optionalTime has a length octet of 0 or 8 before it.
func (c *codec) optionalTime(v *time.Time, what string) {
	present := uint8(8)
	if c.writing && v.IsZero() {
		present = 0
	}
	c.uint8(&present)
	switch present {
	case 8:
		c.time(v, what)
	case 0:
		*v = time.Time{}
	default:
		c.fail("%s has %d octets, 0 or 8 are allowed", what, present)
	}
}

// record is a pointer to an event: what the codec fills.
type record interface {
	Event
	fields(*codec)
}

func newRecord(k Kind) record {
	switch k {
	case kindDaemonStarted:
		return new(DaemonStarted)
	case kindCeremonyHeld:
		return new(CeremonyHeld)
	case kindCertificateIntended:
		return new(CertificateIntended)
	case kindCertificateIssued:
		return new(CertificateIssued)
	case kindCertificateAbandoned:
		return new(CertificateAbandoned)
	case kindCertificateRevoked:
		return new(CertificateRevoked)
	case kindCRLReserved:
		return new(CRLReserved)
	case kindCRLIssued:
		return new(CRLIssued)
	case kindTimestampIssued:
		return new(TimestampIssued)
	case kindClockChanged:
		return new(ClockChanged)
	case kindKeyDuty:
		return new(KeyDuty)
	}
	return nil
}

// copyOf makes a record of an event's value; nil for what is no event value (a pointer to one, or nil).
func copyOf(e Event) record {
	switch e := e.(type) {
	case DaemonStarted:
		return &e
	case CeremonyHeld:
		return &e
	case CertificateIntended:
		return &e
	case CertificateIssued:
		return &e
	case CertificateAbandoned:
		return &e
	case CertificateRevoked:
		return &e
	case CRLReserved:
		return &e
	case CRLIssued:
		return &e
	case TimestampIssued:
		return &e
	case ClockChanged:
		return &e
	case KeyDuty:
		return &e
	}
	return nil
}

// eventOf is the value behind a record.
func eventOf(r record) Event {
	switch r := r.(type) {
	case *DaemonStarted:
		return *r
	case *CeremonyHeld:
		return *r
	case *CertificateIntended:
		return *r
	case *CertificateIssued:
		return *r
	case *CertificateAbandoned:
		return *r
	case *CertificateRevoked:
		return *r
	case *CRLReserved:
		return *r
	case *CRLIssued:
		return *r
	case *TimestampIssued:
		return *r
	case *ClockChanged:
		return *r
	case *KeyDuty:
		return *r
	}
	return nil
}

// bodyFields are the (body) fields in the order in which the body holds them; the first is required where need is true.
func bodyFields(r record) (fields []*[]byte, need bool) {
	switch r := r.(type) {
	case *CeremonyHeld:
		return []*[]byte{&r.Report}, true
	case *CertificateIntended:
		return []*[]byte{&r.TBS, &r.Evidence}, true
	case *CertificateIssued:
		return []*[]byte{&r.Certificate}, true
	case *CertificateRevoked:
		return []*[]byte{&r.Note}, false
	case *CRLIssued:
		return []*[]byte{&r.CRL}, true
	case *TimestampIssued:
		return []*[]byte{&r.TSTInfo}, true
	case *KeyDuty:
		return []*[]byte{&r.Details}, true
	}
	return nil, false
}

func (e *DaemonStarted) fields(c *codec) {
	c.text(&e.Daemon, 1, 64, "daemon")
	c.text(&e.Version, 1, 128, "version")
	c.fixed(e.ConfigDigest[:])
	c.bool(&e.ClockUnverified)
}

func (e *CeremonyHeld) fields(c *codec) {
	c.actor(&e.Actor)
	c.fixed(e.ReportDigest[:])
}

func (e *CertificateIntended) fields(c *codec) {
	c.actor(&e.Actor)
	c.fixed(e.Issuer[:])
	c.serial(&e.Serial)
	c.fixed(e.TBSDigest[:])
	c.text(&e.Profile, 1, 64, "profile")
	c.time(&e.NotBefore, "notBefore")
	c.time(&e.NotAfter, "notAfter")
	if e.NotAfter.Before(e.NotBefore) {
		c.fail("notAfter is before notBefore (RFC 5280 §4.1.2.5)")
	}
}

func (e *CertificateIssued) fields(c *codec) {
	c.fixed(e.Issuer[:])
	c.serial(&e.Serial)
	c.fixed(e.CertificateHash[:])
}

func (e *CertificateAbandoned) fields(c *codec) {
	c.fixed(e.Issuer[:])
	c.serial(&e.Serial)
}

func (e *CertificateRevoked) fields(c *codec) {
	c.actor(&e.Actor)
	c.fixed(e.Issuer[:])
	c.serial(&e.Serial)
	c.uint8((*uint8)(&e.Reason))
	if !e.Reason.valid() {
		c.fail("reason %d is not one that a revocation can have (RFC 5280 §5.3.1)", e.Reason)
	}
	c.optionalTime(&e.InvalidFrom, "invalidityDate")
	c.time(&e.RequestedAt, "time of the request")
}

func (e *CRLReserved) fields(c *codec) {
	c.fixed(e.Issuer[:])
	c.uint64(&e.Number)
}

func (e *CRLIssued) fields(c *codec) {
	c.fixed(e.Issuer[:])
	c.uint64(&e.Number)
	c.fixed(e.Hash[:])
	c.uint64(&e.Entries)
	c.time(&e.ThisUpdate, "thisUpdate")
	c.time(&e.NextUpdate, "nextUpdate")
	if e.NextUpdate.Before(e.ThisUpdate) {
		c.fail("nextUpdate is before thisUpdate")
	}
}

func (e *TimestampIssued) fields(c *codec) {
	c.fixed(e.Unit[:])
	c.serial(&e.Serial)
	c.time(&e.GenTime, "genTime")
	c.fixed(e.TokenHash[:])
}

func (e *ClockChanged) fields(c *codec) {
	c.bool(&e.Vouched)
	c.longText(&e.Detail, 1024, "detail")
}

func (e *KeyDuty) fields(c *codec) {
	c.actor(&e.Actor)
	c.uint8((*uint8)(&e.Act))
	if int(e.Act) >= len(keyActNames) && c.err == nil {
		c.err = errUnknownLeaf
	}
	c.fixed(e.PublicKey[:])
	c.uint64(&e.Intent)
	c.optionalTime(&e.DoneAt, "time of the duty")
	switch {
	case e.Act == 0:
		c.fail("the act is missing")
	case e.Intent != 0 && !e.Act.Closes():
		c.fail("%s names entry %d as its intent: only the outcome of a destruction has one", e.Act, e.Intent)
	case e.Intent == 0 && e.Act == KeyNotDestroyed:
		c.fail("%s names no intent", e.Act)
	}
}

// leafHeader is version, kind, eight octets of time.
const leafHeader = 1 + 1 + 8

// prepared is an event checked and sealed in the caller's goroutine: all that the committer adds is the time.
type prepared struct {
	event  Event  // (body) fields nil, times as the leaf keeps them
	leaf   []byte // the time is still zero
	body   []byte // sealed; nil where there is none
	key    []byte // the body's key, wrapped
	digest [32]byte
	tbs    *[32]byte // CertificateIssued: SHA-256 of its TBSCertificate, to be compared with the intent's
}

// prepare checks e alone (not against the state), seals its body and writes its leaf.
func prepare(e Event, s *sealer) (*prepared, error) {
	r := copyOf(e)
	if r == nil {
		return nil, fmt.Errorf("%T is no event: pass one of the event types, as a value", e)
	}
	p := new(prepared)
	var key []byte
	body, err := encodeBody(r)
	if err != nil {
		return nil, err
	}
	if p.tbs, err = checkBody(r); err != nil {
		return nil, err
	}
	c := codec{writing: true, out: make([]byte, leafHeader, 256)}
	c.out[0], c.out[1] = leafVersion, byte(r.kind())
	if body == nil {
		c.out = append(c.out, 0)
	} else {
		if p.body, key, p.digest, err = sealBody(body); err != nil {
			return nil, err
		}
		c.out = append(append(c.out, 32), p.digest[:]...)
	}
	r.fields(&c)
	if c.err != nil {
		return nil, c.err
	}
	p.leaf = c.out
	if body != nil {
		if p.key, err = s.wrap(key, p.digest[:], p.leaf); err != nil {
			return nil, err
		}
	}
	dropBody(r)
	p.event = eventOf(r)
	return p, nil
}

func dropBody(r record) {
	fields, _ := bodyFields(r)
	for _, f := range fields {
		*f = nil
	}
}

// leaf is a decoded leaf.
type leaf struct {
	time   time.Time
	event  Event
	digest []byte // the body's salted digest, 32 octets, or nil; lies in bytes
	bytes  []byte // the leaf as it was decoded
}

// decodeLeaf reads a leaf strictly: what it accepts re-encodes to the same bytes. errUnknownLeaf where newer software wrote it.
func decodeLeaf(b []byte) (leaf, error) {
	var l leaf
	if len(b) > maxLeaf {
		return l, fmt.Errorf("leaf has %d octets, at most %d are allowed", len(b), maxLeaf)
	}
	c := codec{in: b}
	var version, k uint8
	var milli uint64
	c.uint8(&version)
	c.uint8(&k)
	c.uint64(&milli)
	if c.err != nil {
		return l, c.err
	}
	r := newRecord(Kind(k))
	if version != leafVersion || r == nil {
		return l, fmt.Errorf("leaf of version %d, kind %d: %w", version, k, errUnknownLeaf)
	}
	if milli > lastTime/1000 {
		return l, fmt.Errorf("entry time is after the year 9999")
	}
	l.time = time.UnixMilli(int64(milli)).UTC()
	fields, need := bodyFields(r)
	switch d := c.short(nil, 0, 32, "body digest"); {
	case len(d) == 32 && fields != nil:
		l.digest = d
	case len(d) != 0:
		c.fail("body digest has %d octets", len(d))
	case need:
		c.fail("body digest is missing")
	}
	if c.err == nil {
		r.fields(&c)
	}
	if c.err == nil && !c.in.Empty() {
		c.fail("%d octets after the last field", len(c.in))
	}
	if c.err != nil {
		return l, fmt.Errorf("%s leaf: %w", Kind(k), c.err)
	}
	l.event, l.bytes = eventOf(r), b
	return l, nil
}

// putTime writes the entry's time into a prepared leaf.
func putTime(leaf []byte, t time.Time) {
	n := uint64(t.UnixMilli())
	for i := range 8 {
		leaf[2+i] = byte(n >> (56 - 8*i))
	}
}

// encodeBody writes the (body) fields, each with a length of four octets; nil where all are empty.
func encodeBody(r record) ([]byte, error) {
	fields, need := bodyFields(r)
	size, empty := 0, true
	for i, f := range fields {
		if i == 0 && need && len(*f) == 0 {
			return nil, fmt.Errorf("%s: the sealed field is empty; the journal must hold it", r.kind())
		}
		size += 4 + len(*f)
		empty = empty && len(*f) == 0
	}
	if empty {
		return nil, nil
	}
	if size > maxBody {
		return nil, fmt.Errorf("%s: body has %d octets, at most %d are allowed", r.kind(), size, maxBody)
	}
	out := make([]byte, 0, size)
	for _, f := range fields {
		n := len(*f)
		out = append(out, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		out = append(out, *f...)
	}
	return out, nil
}

// decodeBody fills r's (body) fields from body, of which it keeps nothing.
func decodeBody(r record, body []byte) error {
	fields, need := bodyFields(r)
	in, empty := cryptobyte.String(body), true
	for i, f := range fields {
		var n uint32
		var b []byte
		if !in.ReadUint32(&n) || uint64(n) > uint64(len(in)) || !in.ReadBytes(&b, int(n)) {
			return fmt.Errorf("%s body: truncated", r.kind())
		}
		if i == 0 && need && n == 0 {
			return fmt.Errorf("%s body: first field is empty", r.kind())
		}
		if *f = nil; n > 0 {
			*f, empty = bytes.Clone(b), false
		}
	}
	if !in.Empty() || empty {
		return fmt.Errorf("%s body: octets after the last field, or none", r.kind())
	}
	return nil
}

// checkBody holds the (body) fields against the digests in the leaf; for a certificate it returns the digest of its TBSCertificate.
func checkBody(r record) (tbs *[32]byte, err error) {
	switch r := r.(type) {
	case *CeremonyHeld:
		if sha256.Sum256(r.Report) != r.ReportDigest {
			return nil, errors.New("ReportDigest is not the SHA-256 of Report")
		}
	case *CertificateIntended:
		if sha256.Sum256(r.TBS) != r.TBSDigest {
			return nil, errors.New("TBSDigest is not the SHA-256 of TBS")
		}
	case *CertificateIssued:
		if sha256.Sum256(r.Certificate) != r.CertificateHash {
			return nil, errors.New("CertificateHash is not the SHA-256 of Certificate")
		}
		return tbsDigest(r.Certificate)
	case *CRLIssued:
		if sha256.Sum256(r.CRL) != r.Hash {
			return nil, errors.New("the field Hash is not the SHA-256 of CRL")
		}
	}
	return nil, nil
}

// tbsDigest is the SHA-256 of the first element of a Certificate (RFC 5280 §4.1).
func tbsDigest(certificate []byte) (*[32]byte, error) {
	in := cryptobyte.String(certificate)
	var cert, tbs cryptobyte.String
	if !in.ReadASN1(&cert, asn1.SEQUENCE) || !in.Empty() || !cert.ReadASN1Element(&tbs, asn1.SEQUENCE) {
		return nil, errors.New("the certificate is not the DER of a Certificate (RFC 5280 §4.1)")
	}
	d := sha256.Sum256(tbs)
	return &d, nil
}
