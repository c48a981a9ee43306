package journal

import (
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/crypto/cryptobyte"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// Fork is what a replica remembers of a log that contradicted what it had verified. It is an error that wraps ErrFork.
type Fork struct {
	Found      time.Time // by the replica's clock, in milliseconds
	Reason     string    // for people, at most 1,024 octets
	Checkpoint []byte    // the log's signed note under which the contradiction was found: evidence
}

func (f *Fork) Error() string {
	return fmt.Sprintf("%s (found at %s)", f.Reason, f.Found.UTC().Format(time.RFC3339))
}

// Unwrap returns ErrFork.
func (f *Fork) Unwrap() error { return ErrFork }

// maxReason bounds Fork.Reason, in octets.
const maxReason = 1024

// Forked is nil, or the *Fork that Follow has found, in this process or before a restart. It is for good: what a forked replica
// holds is evidence, Follow leaves it as it is, and only a new replica is followed into again.
func (j *Journal) Forked() error {
	if f := j.forked.Load(); f != nil {
		return f
	}
	return nil
}

// markForked remembers, durably where the file can be written, that the log's checkpoint contradicts what was verified.
// The first fork found stays.
func (j *Journal) markForked(cause error, checkpoint []byte) error {
	f := &Fork{Found: j.now(), Reason: cause.Error(), Checkpoint: append([]byte(nil), checkpoint...)}
	if len(f.Reason) > maxReason {
		f.Reason = strings.ToValidUTF8(f.Reason[:maxReason], "")
	}
	if !j.forked.CompareAndSwap(nil, f) {
		return j.Forked()
	}
	value, err := f.encode()
	if err == nil {
		write := func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(metaForked, value) }
		err = failpoint.Do(failpoint.StoreFork, func() error { return j.update(write) })
	}
	if err != nil {
		return fmt.Errorf("%w; this is lost with the next restart, because it cannot be stored: %w", f, err)
	}
	return f
}

func (f *Fork) encode() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint64(uint64(f.Found.UnixMilli()))
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(f.Reason)) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(f.Checkpoint) })
	return b.Bytes()
}

// loadFork reads what markForked wrote. A value that cannot be read is a fork none the less: whatever stands there, nothing
// but a fork is ever written there.
func (j *Journal) loadFork(value []byte) {
	if value == nil {
		return
	}
	in := cryptobyte.String(value)
	var found uint64
	var reason, checkpoint cryptobyte.String
	f := &Fork{Reason: ErrFork.Error() + "; what was stored about it is damaged"}
	if in.ReadUint64(&found) && in.ReadUint16LengthPrefixed(&reason) && len(reason) > 0 &&
		in.ReadUint16LengthPrefixed(&checkpoint) && in.Empty() {
		f = &Fork{Found: time.UnixMilli(int64(found)), Reason: string(reason), Checkpoint: append([]byte(nil), checkpoint...)}
	}
	j.forked.Store(f)
}
