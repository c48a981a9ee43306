package journal

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// maxInterval is the longest that Run lets a checkpoint age (design: a replayed old one is seen to be old).
const maxInterval = 5 * time.Second

// Checkpoint returns a signed C2SP checkpoint (note text) over the current size, at most a second old.
// A replica returns the last one it has verified and caught up with (ErrNotFound: none yet), as old as it is.
func (j *Journal) Checkpoint() ([]byte, error) {
	c, err := j.freshCheckpoint(time.Second)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(c.text), nil
}

// freshCheckpoint returns a checkpoint over the current size that is younger than age.
func (j *Journal) freshCheckpoint(age time.Duration) (*checkpoint, error) {
	if err := j.Failed(); err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	if j.cosigner == nil {
		if c := j.checkpoint.Load(); c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("checkpoint: %w", ErrNotFound)
	}
	j.checkpointMu.Lock()
	defer j.checkpointMu.Unlock()
	last := j.checkpoint.Load()
	h, now := j.moment()
	if err := j.Failed(); err != nil { // while this waited; of a commit that moment takes for ended it is known by now
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	if old := now.Sub(last.made); last.tree.Size == h.edge.size && old >= 0 && old < age {
		return last, nil
	}
	if now.Before(h.last) || now.Unix() < last.tree.Time.Unix() {
		return nil, fmt.Errorf("sign checkpoint: the clock says %s, which is before the last entry or checkpoint; set the clock right", now.UTC().Format(time.RFC3339))
	}
	text, tree, err := j.cosigner.sign(h.edge.size, h.edge.root(), now)
	if err != nil {
		return nil, err
	}
	c := &checkpoint{text, tree, now}
	j.checkpoint.Store(c)
	return c, nil
}

// Run signs and stores a fresh checkpoint every interval (<= 5 s) until ctx ends, and then returns nil; Close makes the last one.
// While the key or the clock refuses it goes on trying: the last checkpoint grows old, and CheckpointTrouble says why. It returns an
// error if the interval is out of range, if this journal signs no checkpoints, and when the journal has failed (ErrFailed) or is
// closed. Call it once at a time.
func (j *Journal) Run(ctx context.Context, interval time.Duration) error {
	if j.cosigner == nil {
		return fmt.Errorf("sign checkpoints: %w", ErrReplica)
	}
	if interval <= 0 || interval > maxInterval {
		return fmt.Errorf("sign checkpoints: an interval of %s is not between 0 and %s", interval, maxInterval)
	}
	j.attempts.begin()
	defer j.attempts.end()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		c, err := j.freshCheckpoint(0)
		if err == nil {
			if err = j.submit(&request{ctx: ctx, note: c, done: make(chan struct{})}); err != nil && ctx.Err() == nil {
				err = fmt.Errorf("store checkpoint: %w", err)
				j.attempts.note(err)
				return err
			}
		}
		if ctx.Err() == nil {
			j.attempts.note(err)
		}
		if err := j.Failed(); err != nil {
			return fmt.Errorf("sign checkpoints: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-j.stopped:
			return fmt.Errorf("sign checkpoints: %w", ErrClosed)
		case <-tick.C:
		}
	}
}

// signEnd signs and stores a checkpoint over all entries, if the stored one covers fewer. The committer has ended.
func (j *Journal) signEnd() error {
	size, stored := j.Size(), j.stored.Load()
	if j.cosigner == nil || stored == size {
		return nil
	}
	c, err := j.freshCheckpoint(time.Second)
	if err == nil {
		write := func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(metaCheckpoint, c.text) }
		err = failpoint.Do(failpoint.StoreLastCheckpoint, func() error { return j.update(write) })
	}
	if err != nil {
		return fmt.Errorf("close journal: the last %d of %d entries lie under no signature: %w", size-stored, size, err)
	}
	j.stored.Store(size)
	return nil
}

// troubleAge is how long no checkpoint must have been stored before CheckpointTrouble says so: three of Run's longest intervals.
const troubleAge = 3 * maxInterval

// attempts tells how Run is getting on. Ages are by the monotonic clock: no change of the time of day makes a checkpoint old.
type attempts struct {
	mu      sync.Mutex
	running bool
	good    time.Time // when Run last stored a checkpoint, or began
	err     error     // of the last attempt
}

func (a *attempts) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running, a.good, a.err = true, time.Now(), nil
}

func (a *attempts) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = false
}

func (a *attempts) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err = err; err == nil {
		a.good = time.Now()
	}
}

// CheckpointTrouble is nil, or why this log has no fresh checkpoint: Run has stored none for 15 seconds (key or clock refuse, or the
// key does not answer), or the journal has failed. A journal that signs no checkpoints, or whose Run has not begun, has no trouble.
func (j *Journal) CheckpointTrouble() error {
	if j.cosigner == nil {
		return nil
	}
	if err := j.Failed(); err != nil {
		return fmt.Errorf("no checkpoint is signed: %w", err)
	}
	j.attempts.mu.Lock()
	defer j.attempts.mu.Unlock()
	a := &j.attempts
	age := time.Since(a.good).Round(time.Second)
	switch {
	case !a.running && a.err == nil, age < troubleAge:
		return nil
	case a.err == nil:
		return fmt.Errorf("no checkpoint was stored for %s: the checkpoint key or the disk does not answer", age)
	}
	return fmt.Errorf("no checkpoint was stored for %s: %w", age, a.err)
}

// Verified returns the last checkpoint a replica has verified AND caught up with (ErrNotFound: none yet).
// On the log's own journal it is the last one made.
func (j *Journal) Verified() (Tree, error) {
	if c := j.checkpoint.Load(); c != nil {
		return c.tree, nil
	}
	return Tree{}, fmt.Errorf("checkpoint: %w", ErrNotFound)
}
