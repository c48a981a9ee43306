package journal

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// edge is the right edge of the Merkle tree (RFC 6962 §2.1): all that it takes to append a leaf or to compute the root.
// A value: copying it and dropping the copy undoes what was appended.
type edge struct {
	size uint64
	// full[l] is the hash of the last full subtree of 2^l leaves, where bit l of size is set.
	full [63]tlog.Hash
}

// add appends a leaf hash and returns what is stored with that leaf: the hashes of all subtrees it completes, from
// its own (level 0) up, concatenated.
func (e *edge) add(h tlog.Hash) []byte {
	levels := bits.TrailingZeros64(^e.size) // the trailing ones of the leaf's index
	stored := make([]byte, 0, (levels+1)*tlog.HashSize)
	stored = append(stored, h[:]...)
	for l := range levels {
		h = tlog.NodeHash(e.full[l], h)
		stored = append(stored, h[:]...)
	}
	e.full[levels] = h
	e.size++
	return stored
}

// root is the tree's root hash; SHA-256 of nothing for the empty tree.
func (e *edge) root() [32]byte {
	if e.size == 0 {
		empty, _ := tlog.TreeHash(0, nil) // reads nothing, cannot fail
		return empty
	}
	low := bits.TrailingZeros64(e.size)
	h := e.full[low]
	for l := low + 1; l < bits.Len64(e.size); l++ {
		if e.size>>l&1 == 1 {
			h = tlog.NodeHash(e.full[l], h)
		}
	}
	return h
}

// loadEdge reads the edge of the tree of size leaves from the stored hashes.
func loadEdge(hashes *bolt.Bucket, size uint64) (e edge, err error) {
	e.size = size
	for l := range e.full {
		if size>>l&1 == 1 {
			if e.full[l], err = storedHash(hashes, l, size>>l-1); err != nil {
				return edge{}, err
			}
		}
	}
	return e, nil
}

// storedHash is the hash of the n-th full subtree of 2^level leaves: it is kept with the leaf that completed it.
func storedHash(hashes *bolt.Bucket, level int, n uint64) (h tlog.Hash, err error) {
	index := (n+1)<<level - 1
	stored := hashes.Get(indexKey(index))
	if len(stored) < (level+1)*tlog.HashSize {
		return h, fmt.Errorf("stored hash of level %d at entry %d is missing", level, index)
	}
	return tlog.Hash(stored[level*tlog.HashSize:][:tlog.HashSize]), nil
}

// hashReader gives tlog's proofs the stored hashes; it is good for as long as the transaction of hashes is.
func hashReader(hashes *bolt.Bucket) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			var err error
			if out[i], err = storedHash(hashes, level, uint64(n)); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// indexKey is an entry's key in the buckets: eight octets, big-endian, so that keys sort as indexes do.
func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }
