package journal

import (
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The buckets of journal.db; docs/journal.md describes them.
var (
	bucketMeta         = []byte("meta")
	bucketLeaves       = []byte("leaves")       // index -> leaf
	bucketHashes       = []byte("hashes")       // index -> hashes of the subtrees that the leaf completes
	bucketBodies       = []byte("bodies")       // index -> sealed salt and body
	bucketKeys         = []byte("keys")         // index -> the body's wrapped key
	bucketCertificates = []byte("certificates") // serial -> certificate record
	bucketIntents      = []byte("intents")      // serial -> nothing, while the intent is open
	bucketRevoked      = []byte("revoked")      // issuer, serial -> certificate record, once revoked or abandoned
	bucketCRLs         = []byte("crls")         // issuer, number -> index of CRLReserved, index of CRLIssued
	bucketTimestamps   = []byte("timestamps")   // serial -> index of TimestampIssued
	bucketDuties       = []byte("duties")       // index of a KeyDestroying -> index of what closed it, or 0; made with the first one
)

// sequential is the fill of pages of buckets that are only ever written at their end.
const sequential = 0.98

// tables are the buckets in one transaction. Keys and values read from them live as long as it does.
type tables struct {
	meta, leaves, hashes, bodies, keys, certificates, intents, revoked, crls, timestamps *bolt.Bucket

	tx     *bolt.Tx
	duties *bolt.Bucket // nil while no destruction was ever intended: software before KeyDuty made files without it
}

func openTables(tx *bolt.Tx) (*tables, error) {
	t := &tables{tx: tx, duties: tx.Bucket(bucketDuties)}
	for _, b := range t.all() {
		if *b.bucket = tx.Bucket(b.name); *b.bucket == nil {
			return nil, fmt.Errorf("bucket %s is missing: the file is damaged or no journal", b.name)
		}
	}
	for _, b := range []*bolt.Bucket{t.leaves, t.hashes, t.bodies, t.keys} {
		b.FillPercent = sequential
	}
	return t, nil
}

type namedBucket struct {
	name   []byte
	bucket **bolt.Bucket
}

func (t *tables) all() [10]namedBucket {
	return [...]namedBucket{{bucketMeta, &t.meta}, {bucketLeaves, &t.leaves}, {bucketHashes, &t.hashes}, {bucketBodies, &t.bodies},
		{bucketKeys, &t.keys}, {bucketCertificates, &t.certificates}, {bucketIntents, &t.intents}, {bucketRevoked, &t.revoked},
		{bucketCRLs, &t.crls}, {bucketTimestamps, &t.timestamps}}
}

// step is what an event does to the state once every check has passed: it only writes.
type step func() error

// transition checks e, entry number index at time at, against the state machine
//
//	nothing -> intended -> issued -> revoked,  intended -> abandoned
//
// and returns the writes that make it so. A refusal wraps ErrConflict, and nothing was written; any other error is
// the storage's. tbs, if not nil, is the digest of the issued certificate's TBSCertificate: a replica cannot know it.
func (t *tables) transition(index uint64, at time.Time, e Event, tbs *[32]byte) (step, error) {
	switch e := e.(type) {
	case CertificateIntended:
		return t.intend(index, e)
	case CertificateIssued:
		return t.issue(index, e, tbs)
	case CertificateAbandoned:
		return t.abandon(index, at, e)
	case CertificateRevoked:
		return t.revoke(index, at, e)
	case CRLReserved:
		return t.reserveCRL(index, e)
	case CRLIssued:
		return t.issueCRL(index, e)
	case TimestampIssued:
		return t.stamp(index, e)
	case KeyDuty:
		return t.duty(index, e)
	}
	return func() error { return nil }, nil // DaemonStarted, CeremonyHeld, ClockChanged: no state
}

func (t *tables) intend(index uint64, e CertificateIntended) (step, error) {
	if t.certificates.Get([]byte(e.Serial)) != nil {
		return nil, fmt.Errorf("intend certificate %s: %w: the serial is taken", e.Serial, ErrConflict)
	}
	c := Certificate{Issuer: e.Issuer, Serial: e.Serial, Status: Intended, Profile: e.Profile,
		NotBefore: e.NotBefore, NotAfter: e.NotAfter, IntendedAt: index}
	return func() error {
		if err := t.putCertificate(c); err != nil {
			return err
		}
		return t.intents.Put([]byte(e.Serial), []byte{})
	}, nil
}

func (t *tables) issue(index uint64, e CertificateIssued, tbs *[32]byte) (step, error) {
	c, err := t.certificateIn(Intended, e.Issuer, e.Serial)
	if err != nil {
		return nil, fmt.Errorf("issue certificate %s: %w", e.Serial, err)
	}
	if tbs != nil {
		l, err := decodeLeaf(t.leaves.Get(indexKey(c.IntendedAt)))
		if err != nil {
			return nil, fmt.Errorf("read intent of certificate %s: %w", e.Serial, err)
		}
		if intent, ok := l.event.(CertificateIntended); !ok || intent.TBSDigest != *tbs {
			return nil, fmt.Errorf("issue certificate %s: %w: its TBSCertificate is not the one intended", e.Serial, ErrConflict)
		}
	}
	c.Status, c.IssuedAt, c.Hash = Issued, index, e.CertificateHash
	return func() error {
		if err := t.intents.Delete([]byte(e.Serial)); err != nil {
			return err
		}
		return t.putCertificate(c)
	}, nil
}

func (t *tables) abandon(index uint64, at time.Time, e CertificateAbandoned) (step, error) {
	c, err := t.certificateIn(Intended, e.Issuer, e.Serial)
	if err != nil {
		return nil, fmt.Errorf("abandon certificate %s: %w", e.Serial, err)
	}
	c.Status, c.ChangedAt, c.Since = Abandoned, index, at
	return func() error {
		if err := t.intents.Delete([]byte(e.Serial)); err != nil {
			return err
		}
		return t.putRevoked(c)
	}, nil
}

func (t *tables) revoke(index uint64, at time.Time, e CertificateRevoked) (step, error) {
	c, err := t.certificateIn(Issued, e.Issuer, e.Serial)
	if err != nil {
		return nil, fmt.Errorf("revoke certificate %s: %w", e.Serial, err)
	}
	c.Status, c.ChangedAt, c.Since, c.Reason, c.InvalidFrom = Revoked, index, at, e.Reason, e.InvalidFrom
	return func() error { return t.putRevoked(c) }, nil
}

// certificateIn reads a certificate that must be in status want.
func (t *tables) certificateIn(want Status, issuer IssuerID, serial Serial) (Certificate, error) {
	value := t.certificates.Get([]byte(serial))
	if value == nil {
		return Certificate{}, fmt.Errorf("%w: it was never intended", ErrConflict)
	}
	c, err := decodeCertificate(serial, value)
	if err != nil {
		return c, err
	}
	if c.Issuer != issuer {
		return c, fmt.Errorf("%w: the serial is another issuer's", ErrConflict)
	}
	if c.Status != want {
		return c, fmt.Errorf("%w: it is %s", ErrConflict, c.Status)
	}
	return c, nil
}

func (t *tables) putCertificate(c Certificate) error {
	value, err := encodeCertificate(c)
	if err != nil {
		return err
	}
	return t.certificates.Put([]byte(c.Serial), value)
}

func (t *tables) putRevoked(c Certificate) error {
	value, err := encodeCertificate(c)
	if err != nil {
		return err
	}
	if err := t.certificates.Put([]byte(c.Serial), value); err != nil {
		return err
	}
	return t.revoked.Put(revokedKey(c.Issuer, c.Serial), value)
}

func revokedKey(issuer IssuerID, serial Serial) []byte {
	return append(append(make([]byte, 0, len(issuer)+len(serial)), issuer[:]...), serial...)
}

// crl is the value of a CRL number: the entries that reserved and, if issued is not 0, issued it.
// (Entry 0 can issue no CRL: its reservation comes before.)
type crl struct{ reserved, issued uint64 }

func crlKey(issuer IssuerID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, len(issuer)+8), issuer[:]...), number)
}

func (c crl) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, c.reserved), c.issued)
}

func decodeCRL(value []byte) (crl, error) {
	if len(value) != 16 {
		return crl{}, fmt.Errorf("CRL record has %d octets, not 16", len(value))
	}
	return crl{binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:])}, nil
}

// lastCRL walks issuer's numbers downwards: the highest reserved, and the highest issued with its record (ok false: none).
func (t *tables) lastCRL(issuer IssuerID) (reserved, number uint64, last crl, ok bool, err error) {
	c := t.crls.Cursor()
	for k, v := lastCRLKey(c, issuer); isCRLKey(k, issuer); k, v = c.Prev() {
		n := binary.BigEndian.Uint64(k[len(issuer):])
		if reserved == 0 {
			reserved = n
		}
		if last, err = decodeCRL(v); err != nil {
			return 0, 0, crl{}, false, err
		}
		if last.issued != 0 {
			return reserved, n, last, true, nil
		}
	}
	return reserved, 0, crl{}, false, nil
}

// lastCRLKey moves c to issuer's highest number; nil: there is none.
func lastCRLKey(c *bolt.Cursor, issuer IssuerID) (k, v []byte) {
	past := crlKey(issuer, ^uint64(0))
	switch k, v = c.Seek(past); {
	case k == nil:
		k, v = c.Last()
	case string(k) != string(past):
		k, v = c.Prev()
	}
	if !isCRLKey(k, issuer) {
		return nil, nil
	}
	return k, v
}

// highestCRL is issuer's highest number; 0: there is none.
func highestCRL(crls *bolt.Bucket, issuer IssuerID) uint64 {
	k, _ := lastCRLKey(crls.Cursor(), issuer)
	if k == nil {
		return 0
	}
	return binary.BigEndian.Uint64(k[len(issuer):])
}

func isCRLKey(k []byte, issuer IssuerID) bool {
	return len(k) == len(issuer)+8 && IssuerID(k[:len(issuer)]) == issuer
}

func (t *tables) reserveCRL(index uint64, e CRLReserved) (step, error) {
	if reserved := highestCRL(t.crls, e.Issuer); e.Number <= reserved {
		return nil, fmt.Errorf("reserve CRL number %d: %w: numbers up to %d are taken", e.Number, ErrConflict, reserved)
	}
	return func() error { return t.crls.Put(crlKey(e.Issuer, e.Number), crl{reserved: index}.encode()) }, nil
}

func (t *tables) issueCRL(index uint64, e CRLIssued) (step, error) {
	value := t.crls.Get(crlKey(e.Issuer, e.Number))
	if value == nil {
		return nil, fmt.Errorf("issue CRL %d: %w: its number was never reserved", e.Number, ErrConflict)
	}
	c, err := decodeCRL(value)
	if err != nil {
		return nil, err
	}
	_, number, last, ok, err := t.lastCRL(e.Issuer)
	if err != nil {
		return nil, err
	}
	if ok && number >= e.Number {
		return nil, fmt.Errorf("issue CRL %d: %w: CRL %d was issued before (RFC 5280 §5.2.3)", e.Number, ErrConflict, number)
	}
	if e.Entries > index {
		return nil, fmt.Errorf("issue CRL %d: %w: it was read at tree size %d, which is not reached yet", e.Number, ErrConflict, e.Entries)
	}
	if ok {
		l, err := decodeLeaf(t.leaves.Get(indexKey(last.issued)))
		if err != nil {
			return nil, fmt.Errorf("read CRL %d: %w", number, err)
		}
		if before, isCRL := l.event.(CRLIssued); isCRL && e.Entries < before.Entries {
			return nil, fmt.Errorf("issue CRL %d: %w: it was read at tree size %d, CRL %d at %d", e.Number, ErrConflict, e.Entries, number, before.Entries)
		}
	}
	c.issued = index
	return func() error { return t.crls.Put(crlKey(e.Issuer, e.Number), c.encode()) }, nil
}

func (t *tables) stamp(index uint64, e TimestampIssued) (step, error) {
	if t.timestamps.Get([]byte(e.Serial)) != nil {
		return nil, fmt.Errorf("record time-stamp %s: %w: the serial is taken", e.Serial, ErrConflict)
	}
	return func() error { return t.timestamps.Put([]byte(e.Serial), indexKey(index)) }, nil
}

// duty keeps which destructions are open. Other acts have no state.
func (t *tables) duty(index uint64, e KeyDuty) (step, error) {
	switch {
	case e.Act == KeyDestroying && index == 0:
		return nil, fmt.Errorf("record the intent of a destruction: %w: entry 0 cannot be one", ErrConflict)
	case e.Act == KeyDestroying:
		return func() (err error) {
			if t.duties == nil {
				if t.duties, err = t.tx.CreateBucketIfNotExists(bucketDuties); err != nil {
					return fmt.Errorf("create bucket %s: %w", bucketDuties, err)
				}
			}
			return t.duties.Put(indexKey(index), indexKey(0))
		}, nil
	case e.Intent == 0:
		return func() error { return nil }, nil
	}
	closed, err := t.intendedDuty(e)
	if err != nil {
		return nil, fmt.Errorf("record key duty %s: %w", e.Act, err)
	}
	if closed != 0 {
		return nil, fmt.Errorf("record key duty %s: %w: entry %d has closed the intent of entry %d", e.Act, ErrConflict, closed, e.Intent)
	}
	return func() error { return t.duties.Put(indexKey(e.Intent), indexKey(index)) }, nil
}

// intendedDuty looks up the intent that e names, and by which entry it is closed; 0: it is open.
func (t *tables) intendedDuty(e KeyDuty) (closed uint64, err error) {
	var value []byte
	if t.duties != nil {
		value = t.duties.Get(indexKey(e.Intent))
	}
	if value == nil {
		return 0, fmt.Errorf("%w: entry %d is no intent of a destruction", ErrConflict, e.Intent)
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("the record of entry %d has %d octets, not 8; the file is damaged", e.Intent, len(value))
	}
	l, err := decodeLeaf(t.leaves.Get(indexKey(e.Intent)))
	if err != nil {
		return 0, fmt.Errorf("read entry %d: %w", e.Intent, err)
	}
	if intent, ok := l.event.(KeyDuty); !ok || intent.PublicKey != e.PublicKey {
		return 0, fmt.Errorf("%w: entry %d intends to destroy another key", ErrConflict, e.Intent)
	}
	return binary.BigEndian.Uint64(value), nil
}

// fields is the layout of a certificate record; the serial is its key.
func (r *Certificate) fields(c *codec) {
	c.uint8((*uint8)(&r.Status))
	if r.Status < Intended || r.Status > Abandoned {
		c.fail("status is %d", r.Status)
	}
	c.fixed(r.Issuer[:])
	c.text(&r.Profile, 1, 64, "profile")
	c.time(&r.NotBefore, "notBefore")
	c.time(&r.NotAfter, "notAfter")
	c.uint64(&r.IntendedAt)
	if r.Status == Issued || r.Status == Revoked {
		c.uint64(&r.IssuedAt)
		c.fixed(r.Hash[:])
	}
	if r.Status == Revoked || r.Status == Abandoned {
		c.uint64(&r.ChangedAt)
		c.time(&r.Since, "time of the change")
	}
	if r.Status == Revoked {
		c.uint8((*uint8)(&r.Reason))
		c.optionalTime(&r.InvalidFrom, "invalidityDate")
	}
}

func encodeCertificate(r Certificate) ([]byte, error) {
	c := codec{writing: true, out: make([]byte, 0, 192)}
	r.fields(&c)
	if c.err != nil {
		return nil, fmt.Errorf("write state of certificate %s: %w", r.Serial, c.err)
	}
	return c.out, nil
}

func decodeCertificate(serial Serial, value []byte) (Certificate, error) {
	r := Certificate{Serial: serial}
	c := codec{in: value}
	r.fields(&c)
	if c.err == nil && !c.in.Empty() {
		c.fail("octets after the last field")
	}
	if c.err != nil {
		return Certificate{}, fmt.Errorf("read state of certificate %s: %w; the file is damaged", serial, c.err)
	}
	return r, nil
}
