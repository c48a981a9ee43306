package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// Reencode decodes a leaf and encodes it again, without sealing.
func Reencode(b []byte) ([]byte, error) {
	l, err := decodeLeaf(b)
	if err != nil {
		return nil, err
	}
	c := codec{writing: true, out: make([]byte, leafHeader)}
	c.out[0], c.out[1] = leafVersion, byte(l.event.kind())
	putTime(c.out, l.time)
	c.out = append(append(c.out, byte(len(l.digest))), l.digest...)
	copyOf(l.event).fields(&c)
	return c.out, c.err
}

// Chunk is an answer of the feed, for tests that forge one.
type Chunk struct {
	Checkpoint []byte
	After      uint64
	Leaves     [][]byte
	Proof      tlog.TreeProof
}

func DecodeChunk(b []byte) (*Chunk, error) {
	c, err := decodeChunk(b)
	if err != nil {
		return nil, err
	}
	return &Chunk{c.checkpoint, c.after, c.leaves, c.proof}, nil
}

func (c *Chunk) Encode() ([]byte, error) {
	return (&chunk{c.Checkpoint, c.After, c.Leaves, c.Proof}).encode()
}

// MaxFeed is the most octets that a follower reads of an answer.
const MaxFeed = maxFeed

// Tamper changes the file of a journal that lies still.
func Tamper(dir string, f func(bucket func(name string) *bolt.Bucket) error) error {
	db, err := bolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error {
		return f(func(name string) *bolt.Bucket { return tx.Bucket([]byte(name)) })
	})
}

// TamperOpen changes the file of an open journal behind its back.
func TamperOpen(j *Journal, f func(bucket func(name string) *bolt.Bucket) error) error {
	return j.db.Update(func(tx *bolt.Tx) error {
		return f(func(name string) *bolt.Bucket { return tx.Bucket([]byte(name)) })
	})
}

// FailCommits makes every further commit of j fail, as a full disk does.
func FailCommits(j *Journal) error {
	return j.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMeta)
		if b == nil {
			return fmt.Errorf("no bucket")
		}
		tx.OnCommit(func() { j.db.MaxSize = 1 })
		return b.Put([]byte("test"), []byte("test"))
	})
}

// Edge lets tests compare our appending with tlog's.
type Edge struct{ e edge }

func (e *Edge) Add(h tlog.Hash) []byte { return e.e.add(h) }
func (e *Edge) Root() [32]byte         { return e.e.root() }

// Sealed is a sealed event without a journal.
type Sealed struct{ Leaf, Body, Key []byte }

// Seal seals an event's body and writes its leaf, whose time is zero.
func Seal(kek []byte, e Event) (Sealed, error) {
	s, err := newSealer(kek)
	if err != nil {
		return Sealed{}, err
	}
	p, err := prepare(e, s)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{p.leaf, p.body, p.key}, nil
}

// Open is the event with its body.
func (s Sealed) Open(kek []byte) (Event, error) {
	sealer, err := newSealer(kek)
	if err != nil {
		return nil, err
	}
	l, err := decodeLeaf(s.Leaf)
	if err != nil {
		return nil, err
	}
	return (&Journal{sealer: sealer}).openBody(l, s.Body, s.Key)
}

// The limits that tests walk up to.
const (
	FormatVersion = formatVersion
	FeedLeaves    = feedLeaves
)

// ForceLeaf puts a leaf into tree and store past every check, as a log would that breaks its own rules.
func ForceLeaf(j *Journal, b []byte) error {
	h := *j.head.Load()
	err := j.update(func(tx *bolt.Tx) error {
		t, err := openTables(tx)
		if err != nil {
			return err
		}
		if err := t.leaves.Put(indexKey(h.edge.size), b); err != nil {
			return err
		}
		return t.hashes.Put(indexKey(h.edge.size), h.edge.add(tlog.RecordHash(b)))
	})
	j.head.Store(&h)
	return err
}

// NoSync spares a test that is not about durability the fsyncs.
func NoSync(j *Journal) { j.db.NoSync = true }

// StoreCheckpoint does at once what Run does at every interval.
func StoreCheckpoint(j *Journal) error {
	c, err := j.freshCheckpoint(0)
	if err != nil {
		return err
	}
	return j.submit(&request{ctx: context.Background(), note: c, done: make(chan struct{})})
}

// CheckEdge stores a leaf of j past its head, in a transaction that is rolled back, and compares the edge read back with e.
func CheckEdge(j *Journal, e *Edge, leaf []byte) error {
	different := errors.New("rolled back")
	err := j.db.Update(func(tx *bolt.Tx) error {
		hashes := tx.Bucket(bucketHashes)
		var all edge
		for n := range e.e.size { // made up again: leaf n is n
			if err := hashes.Put(indexKey(n), all.add(tlog.RecordHash(indexKey(n)))); err != nil {
				return err
			}
		}
		got, err := loadEdge(hashes, e.e.size)
		if err != nil {
			return err
		}
		if got.root() != e.Root() {
			return errors.New("the edge read back has another root")
		}
		return different
	})
	if errors.Is(err, different) {
		return nil
	}
	return err
}

// HoldCommits has every commit wait, after it has taken the time of its entries, until release is called.
func HoldCommits(j *Journal) (release func() error, err error) {
	tx, err := j.db.Begin(true)
	if err != nil {
		return nil, err
	}
	return tx.Rollback, nil
}
