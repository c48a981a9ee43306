package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Certificate looks one up. ErrNotFound: never intended, or its issuer is another.
func (j *Journal) Certificate(issuer IssuerID, serial Serial) (Certificate, error) {
	c, err := j.CertificateBySerial(serial)
	if err == nil && c.Issuer != issuer {
		return Certificate{}, fmt.Errorf("certificate %s of that issuer: %w", serial, ErrNotFound)
	}
	return c, err
}

// CertificateBySerial looks one up by serial alone (serials are unique across the provider).
func (j *Journal) CertificateBySerial(serial Serial) (c Certificate, err error) {
	found := false
	err = j.view(func(tx *bolt.Tx) error {
		value := tx.Bucket(bucketCertificates).Get([]byte(serial))
		if value == nil {
			return nil
		}
		found = true
		c, err = decodeCertificate(serial, value)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("certificate %s: %w", serial, ErrNotFound)
	}
	return c, err
}

// Certificates yields all, in order of serial, from one read transaction. The loop must not Append.
func (j *Journal) Certificates() iter.Seq2[Certificate, error] { return j.CertificatesAfter("") }

// CertificatesAfter yields those whose serials follow serial, which need not be there, as Certificates does; those before cost nothing.
func (j *Journal) CertificatesAfter(serial Serial) iter.Seq2[Certificate, error] {
	var from []byte
	if serial != "" {
		from = append([]byte(serial), 0) // the least key after it
	}
	return func(yield func(Certificate, error) bool) {
		err := j.walk(bucketCertificates, nil, from, func(_ uint64, c Certificate) error {
			if c.Serial != "" && !yield(c, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(Certificate{}, err)
		}
	}
}

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// Revoked calls yield for each revoked or abandoned certificate of issuer, in order of serial, from ONE read transaction and
// returns the tree size of that transaction (for CRLIssued.Entries). An error of yield's ends it. yield must not Append.
func (j *Journal) Revoked(issuer IssuerID, yield func(Certificate) error) (entries uint64, err error) {
	err = j.walk(bucketRevoked, issuer[:], nil, func(size uint64, c Certificate) error {
		entries = size
		if c.Serial == "" {
			return nil
		}
		return yield(c)
	})
	return entries, err
}

// walk calls f first with the size of the tree and no certificate, then with each certificate record of bucket whose key
// is prefix and a serial no less than from, all in one read transaction. f runs outside guard: its panics are its own.
func (j *Journal) walk(bucket, prefix, from []byte, f func(size uint64, c Certificate) error) error {
	var tx *bolt.Tx
	var cursor *bolt.Cursor
	var size uint64
	err := guard(func() (err error) {
		if tx, err = j.db.Begin(false); err != nil {
			return err
		}
		if k, _ := tx.Bucket(bucketLeaves).Cursor().Last(); k != nil {
			size = binary.BigEndian.Uint64(k) + 1
		}
		cursor = tx.Bucket(bucket).Cursor()
		return nil
	})
	if tx != nil {
		defer tx.Rollback()
	}
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	var c Certificate
	next := func() ([]byte, []byte) { return cursor.Seek(append(bytes.Clone(prefix), from...)) }
	for err == nil {
		if err = f(size, c); err != nil {
			return err
		}
		done := false
		err = guard(func() (err error) {
			k, v := next()
			if done = k == nil || !bytes.HasPrefix(k, prefix); !done {
				c, err = decodeCertificate(Serial(k[len(prefix):]), v)
			}
			return err
		})
		if done {
			return nil
		}
		next = cursor.Next
	}
	return err
}

// each calls f for every key of a cursor.
func each(c *bolt.Cursor, f func(k, v []byte) error) error {
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if err := f(k, v); err != nil {
			return err
		}
	}
	return nil
}

// LastCRL returns the last CRLIssued of issuer and the highest number reserved (ErrNotFound: none issued; reserved is still right).
// Its CRL is filled in where this journal has the keys, nil on a replica and in OpenReadOnly.
func (j *Journal) LastCRL(issuer IssuerID) (last CRLIssued, reserved uint64, err error) {
	var c crl
	var ok bool
	err = j.view(func(tx *bolt.Tx) error {
		t, err := openTables(tx)
		if err != nil {
			return err
		}
		reserved, _, c, ok, err = t.lastCRL(issuer)
		return err
	})
	if err != nil {
		return CRLIssued{}, 0, err
	}
	if !ok {
		return CRLIssued{}, reserved, fmt.Errorf("last CRL: %w", ErrNotFound)
	}
	e, err := j.Opened(c.issued)
	if errors.Is(err, ErrSealed) {
		var entry Entry
		entry, err = j.Entry(c.issued)
		e = entry.Event
	}
	if err != nil {
		return CRLIssued{}, reserved, fmt.Errorf("last CRL: %w", err)
	}
	last, ok = e.(CRLIssued)
	if !ok {
		return CRLIssued{}, reserved, fmt.Errorf("last CRL: entry %d is no CRLIssued; the file is damaged", c.issued)
	}
	return last, reserved, nil
}

// Reserved is the highest CRL number reserved for issuer, 0 if there is none. It is quick: no leaf is read, no body opened.
func (j *Journal) Reserved(issuer IssuerID) (number uint64, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		number = highestCRL(tx.Bucket(bucketCRLs), issuer)
		return nil
	})
	return number, err
}

// Entry returns the entry with that index. ErrNotFound: there are not so many.
func (j *Journal) Entry(index uint64) (Entry, error) {
	var b []byte
	err := j.view(func(tx *bolt.Tx) error {
		b = bytes.Clone(tx.Bucket(bucketLeaves).Get(indexKey(index)))
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	if b == nil {
		return Entry{}, fmt.Errorf("entry %d: %w", index, ErrNotFound)
	}
	return entryOf(index, b)
}

func entryOf(index uint64, b []byte) (Entry, error) {
	l, err := decodeLeaf(b)
	if err != nil {
		return Entry{}, fmt.Errorf("entry %d: %w", index, err)
	}
	return Entry{Index: index, Time: l.time, Leaf: b, Event: l.event}, nil
}

// entriesChunk is how many entries one read transaction of Entries copies.
const entriesChunk = 256

// Entries yields those with Index >= after, in order, up to the last at the time it gets there. It holds no read
// transaction while the loop's body runs, so the loop may take its time and may Append.
func (j *Journal) Entries(after uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			var leaves [][]byte
			err := j.view(func(tx *bolt.Tx) error {
				c := tx.Bucket(bucketLeaves).Cursor()
				for k, v := c.Seek(indexKey(after)); k != nil && len(leaves) < entriesChunk; k, v = c.Next() {
					leaves = append(leaves, bytes.Clone(v))
				}
				return nil
			})
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if len(leaves) == 0 {
				return
			}
			for _, b := range leaves {
				e, err := entryOf(after, b)
				if !yield(e, err) || err != nil {
					return
				}
				after++
			}
		}
	}
}

// OpenIntents returns the certificates that were intended and neither issued nor abandoned: what Recover has to close.
func (j *Journal) OpenIntents() (open []Certificate, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		certificates := tx.Bucket(bucketCertificates)
		return each(tx.Bucket(bucketIntents).Cursor(), func(k, _ []byte) error {
			c, err := decodeCertificate(Serial(k), certificates.Get(k))
			open = append(open, c)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return open, nil
}

// Opened returns the event of an entry with its sealed fields filled in. ErrNotFound: no such entry.
// ErrSealed: this journal was opened without its keys.
func (j *Journal) Opened(index uint64) (Event, error) {
	var b, sealed, key []byte
	err := j.view(func(tx *bolt.Tx) error {
		k := indexKey(index)
		b = bytes.Clone(tx.Bucket(bucketLeaves).Get(k))
		if j.sealer != nil {
			sealed = bytes.Clone(tx.Bucket(bucketBodies).Get(k))
			key = bytes.Clone(tx.Bucket(bucketKeys).Get(k))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, fmt.Errorf("entry %d: %w", index, ErrNotFound)
	}
	l, err := decodeLeaf(b)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	if l.digest == nil {
		return l.event, nil
	}
	if j.sealer == nil {
		return nil, fmt.Errorf("open entry %d: %w", index, ErrSealed)
	}
	e, err := j.openBody(l, sealed, key)
	if err != nil {
		return nil, fmt.Errorf("open entry %d: %w", index, err)
	}
	return e, nil
}

// openBody opens and checks a body against its leaf.
func (j *Journal) openBody(l leaf, sealed, key []byte) (Event, error) {
	if key == nil {
		return nil, errors.New("the body's key is gone: the body is erased")
	}
	if sealed == nil {
		return nil, errors.New("the body is missing")
	}
	body, err := j.sealer.open(sealed, key, l.digest, l.bytes)
	if err != nil {
		return nil, err
	}
	r := copyOf(l.event)
	if err := decodeBody(r, body); err != nil {
		return nil, err
	}
	if _, err := checkBody(r); err != nil {
		return nil, err
	}
	return eventOf(r), nil
}
