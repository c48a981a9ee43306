package journal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/mod/sumdb/tlog"
)

// The feed's answer, media type application/octet-stream, numbers big-endian (RFC 8446 §3 presentation):
//
//	struct {
//	    opaque magic[8] = "zegelfd1";
//	    opaque checkpoint<1..2^16-1>;  // signed note over size entries
//	    uint64 after;                  // the index of the first leaf that follows
//	    uint32 count;
//	    opaque leaf<1..2^16-1>[count];
//	    uint8  hashes;
//	    opaque hash[32][hashes];       // root, RFC 6962 §2.1.2 consistency proof
//	}
//
// The root is that of the tree of after+count leaves, the proof goes from there to the checkpoint's tree. They are there exactly when
// 0 < after+count < size, which is when the answer stops short of the checkpoint.
const feedMagic = "zegelfd1"

// An answer of the feed carries at most so many leaves, and ends soon after so many octets of them.
const (
	feedLeaves = 8192
	feedBytes  = 4 << 20
	feedProof  = 128 // hashes; a tree of 2^63 leaves needs fewer
	noLimit    = feedLeaves
	// maxFeed bounds a whole answer in octets.
	maxFeed = feedBytes + maxLeaf + 2*feedLeaves + maxNote + 64 + feedProof*tlog.HashSize
)

const (
	maxWait = 30 * time.Second
	// feedPulse is the longest that the feed holds an answer back: a follower's status stays fresh.
	feedPulse = 2 * time.Second
)

// chunk is one answer of the feed.
type chunk struct {
	checkpoint []byte
	after      uint64
	leaves     [][]byte
	proof      tlog.TreeProof // the root of the tree that the leaves reach, then its consistency proof
}

func (c *chunk) encode() ([]byte, error) {
	size := 64 + len(c.checkpoint) + len(c.proof)*tlog.HashSize
	for _, l := range c.leaves {
		size += 2 + len(l)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	b.AddBytes([]byte(feedMagic))
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.checkpoint) })
	b.AddUint64(c.after)
	b.AddUint32(uint32(len(c.leaves)))
	for _, l := range c.leaves {
		b.AddUint16(uint16(len(l)))
		b.AddBytes(l)
	}
	b.AddUint8(uint8(len(c.proof)))
	for _, h := range c.proof {
		b.AddBytes(h[:])
	}
	return b.Bytes()
}

// decodeChunk reads an answer strictly; leaves and checkpoint lie in b. It verifies nothing.
func decodeChunk(b []byte) (*chunk, error) {
	in := cryptobyte.String(b)
	var magic []byte
	var note, one cryptobyte.String
	var count uint32
	var hashes uint8
	c := new(chunk)
	if len(b) > maxFeed {
		return nil, fmt.Errorf("feed's answer has more than %d octets", maxFeed)
	}
	if !in.ReadBytes(&magic, len(feedMagic)) || string(magic) != feedMagic {
		return nil, errors.New("not a feed's answer: is the URL the feed's?")
	}
	if !in.ReadUint16LengthPrefixed(&note) || len(note) == 0 || !in.ReadUint64(&c.after) || !in.ReadUint32(&count) {
		return nil, errors.New("feed's answer is truncated")
	}
	if count > feedLeaves {
		return nil, fmt.Errorf("feed's answer has %d leaves, at most %d are allowed", count, feedLeaves)
	}
	c.checkpoint = note
	for range count {
		if !in.ReadUint16LengthPrefixed(&one) || len(one) == 0 || len(one) > maxLeaf {
			return nil, errors.New("feed's answer is truncated, or a leaf in it too long")
		}
		c.leaves = append(c.leaves, one)
	}
	if !in.ReadUint8(&hashes) || hashes > feedProof {
		return nil, errors.New("feed's answer is truncated, or its proof too long")
	}
	for range hashes {
		var h tlog.Hash
		if !in.CopyBytes(h[:]) {
			return nil, errors.New("feed's answer is truncated")
		}
		c.proof = append(c.proof, h)
	}
	if !in.Empty() {
		return nil, errors.New("feed's answer has octets after its end")
	}
	return c, nil
}

// FeedHandler serves GET ?after=N&wait=SECONDS&limit=COUNT: leaves from N on (at most COUNT, 8,192, some 4 MiB) and a fresh checkpoint.
// With wait (at most 30) it answers as soon as there are more than N entries, but after two seconds in any case, so that a
// follower always has a fresh checkpoint. limit=0 asks for the root at N and its proof alone. Where no fresh checkpoint can be made it
// answers 503 and says why. The caller does TLS and authorisation. On a replica it serves what the replica has verified.
func (j *Journal) FeedHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "the feed is read with GET", http.StatusMethodNotAllowed)
			return
		}
		q, err := parseFeedQuery(r.URL.RawQuery)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body, err := j.feed(r.Context(), q)
		if err != nil {
			http.Error(w, fmt.Sprintf("the journal gives nothing now: %v", err), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Cache-Control", "no-store")
		w.Write(body)
	})
}

// feedQuery is what a follower asks for.
type feedQuery struct {
	after uint64 // the index of the first leaf
	wait  time.Duration
	limit int // leaves
}

func parseFeedQuery(raw string) (q feedQuery, err error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return q, errors.New("query cannot be read")
	}
	q.limit = noLimit
	for name, values := range query {
		n, err := strconv.ParseUint(values[0], 10, 63)
		switch {
		case err != nil || len(values) != 1:
			return q, fmt.Errorf("%.20q is not one number", name)
		case name == "after":
			q.after = n
		case name == "wait" && n <= uint64(maxWait/time.Second):
			q.wait = time.Duration(n) * time.Second
		case name == "limit" && n <= feedLeaves:
			q.limit = int(n)
		default:
			return q, fmt.Errorf("%.20q is unknown or out of range; after=N, wait=0..%d and limit=0..%d are allowed", name, maxWait/time.Second, feedLeaves)
		}
	}
	return q, nil
}

// feed waits until there are more entries than the follower has, or its time is up, and encodes an answer.
func (j *Journal) feed(ctx context.Context, q feedQuery) ([]byte, error) {
	timer := time.NewTimer(min(q.wait, feedPulse))
	defer timer.Stop()
	for waiting := q.wait > 0; waiting; {
		grown := j.grown.wait()
		if j.feedSize() > q.after || j.Failed() != nil {
			break
		}
		select {
		case <-grown:
		case <-timer.C:
			waiting = false
		case <-j.stop:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	cp, err := j.freshCheckpoint(time.Second)
	if err != nil {
		return nil, err
	}
	c, err := j.readChunk(cp, q)
	if err != nil {
		return nil, err
	}
	return c.encode()
}

// feedSize is how many entries a checkpoint would cover.
func (j *Journal) feedSize() uint64 {
	if j.cosigner != nil {
		return j.Size()
	}
	tree, _ := j.Verified() // zero: none yet
	return tree.Size
}

// readChunk copies the leaves asked for that cp covers, and root and proof where they do not reach its end.
func (j *Journal) readChunk(cp *checkpoint, q feedQuery) (*chunk, error) {
	c := &chunk{checkpoint: cp.text, after: q.after}
	end, size := q.after, 0
	err := j.view(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(bucketLeaves).Cursor()
		for k, v := cursor.Seek(indexKey(q.after)); k != nil; k, v = cursor.Next() {
			if end >= cp.tree.Size || len(c.leaves) == q.limit || size >= feedBytes {
				break
			}
			c.leaves = append(c.leaves, append([]byte(nil), v...))
			size += len(v)
			end++
		}
		if end == 0 || end >= cp.tree.Size {
			return nil
		}
		hashes := tx.Bucket(bucketHashes)
		e, err := loadEdge(hashes, end)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(int64(cp.tree.Size), int64(end), hashReader(hashes))
		c.proof = append(tlog.TreeProof{e.root()}, proof...)
		return err
	})
	return c, err
}
