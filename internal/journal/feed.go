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
//	    opaque hash[32][hashes];       // RFC 6962 §2.1.2 consistency proof
//	}
//
// The proof is from the tree of after+count leaves to the checkpoint's. It is there exactly when 0 < after+count < size,
// which is when the answer stops short of the checkpoint.
const feedMagic = "zegelfd1"

// An answer of the feed carries at most so many leaves, and ends soon after so many octets of them.
const (
	feedLeaves = 8192
	feedBytes  = 4 << 20
	feedProof  = 128 // hashes; a tree of 2^63 leaves needs fewer
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
	proof      tlog.TreeProof
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

// FeedHandler serves GET ?after=N&wait=SECONDS: leaves from N on (at most 8,192, some 4 MiB) and a fresh checkpoint.
// With wait (at most 30) it answers as soon as there are more than N entries, but after two seconds in any case, so that a
// follower always has a fresh checkpoint. The caller does TLS and authorisation. On a replica it serves what the replica has verified.
func (j *Journal) FeedHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "the feed is read with GET", http.StatusMethodNotAllowed)
			return
		}
		after, wait, err := parseFeedQuery(r.URL.RawQuery)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body, err := j.feed(r.Context(), after, wait)
		if err != nil {
			http.Error(w, "the journal cannot be read now", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Cache-Control", "no-store")
		w.Write(body)
	})
}

func parseFeedQuery(raw string) (after uint64, wait time.Duration, err error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return 0, 0, errors.New("query cannot be read")
	}
	for name, values := range query {
		n, err := strconv.ParseUint(values[0], 10, 63)
		switch {
		case err != nil || len(values) != 1:
			return 0, 0, fmt.Errorf("%.20q is not one number", name)
		case name == "after":
			after = n
		case name == "wait" && n <= uint64(maxWait/time.Second):
			wait = time.Duration(n) * time.Second
		default:
			return 0, 0, fmt.Errorf("%.20q is unknown or out of range; after=N and wait=0..30 are allowed", name)
		}
	}
	return after, wait, nil
}

// feed waits until there are more than after entries, or its time is up, and encodes an answer.
func (j *Journal) feed(ctx context.Context, after uint64, wait time.Duration) ([]byte, error) {
	timer := time.NewTimer(min(wait, feedPulse))
	defer timer.Stop()
	for waiting := wait > 0; waiting; {
		grown := j.grown.wait()
		if j.feedSize() > after || j.Failed() != nil {
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
	c, err := j.readChunk(cp, after)
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

// readChunk copies the leaves from after on that cp covers, and the proof where they do not reach its end.
func (j *Journal) readChunk(cp *checkpoint, after uint64) (*chunk, error) {
	c := &chunk{checkpoint: cp.text, after: after}
	end, size := after, 0
	err := j.view(func(tx *bolt.Tx) error {
		cursor := tx.Bucket(bucketLeaves).Cursor()
		for k, v := cursor.Seek(indexKey(after)); k != nil; k, v = cursor.Next() {
			if end >= cp.tree.Size || len(c.leaves) == feedLeaves || size >= feedBytes {
				break
			}
			c.leaves = append(c.leaves, append([]byte(nil), v...))
			size += len(v)
			end++
		}
		if end == 0 || end >= cp.tree.Size {
			return nil
		}
		var err error
		c.proof, err = tlog.ProveTree(int64(cp.tree.Size), int64(end), hashReader(tx.Bucket(bucketHashes)))
		return err
	})
	return c, err
}
