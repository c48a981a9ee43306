package journal

import (
	"bytes"
	"context"
	"fmt"
	"time"
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
	h, last, now := j.head.Load(), j.checkpoint.Load(), j.now()
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

// Run signs and stores a fresh checkpoint every interval (<= 5 s) until ctx ends, and then returns nil. While the key or the
// clock refuses it goes on trying, and the last checkpoint grows old (Verified tells how old). It returns an error if the
// interval is out of range, if this journal signs no checkpoints, and when the journal has failed (ErrFailed) or is closed.
func (j *Journal) Run(ctx context.Context, interval time.Duration) error {
	if j.cosigner == nil {
		return fmt.Errorf("sign checkpoints: %w", ErrReplica)
	}
	if interval <= 0 || interval > maxInterval {
		return fmt.Errorf("sign checkpoints: an interval of %s is not between 0 and %s", interval, maxInterval)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if c, err := j.freshCheckpoint(0); err == nil {
			err = j.submit(&request{ctx: ctx, note: c.text, done: make(chan struct{})})
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("store checkpoint: %w", err)
			}
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

// Verified returns the last checkpoint a replica has verified AND caught up with (ErrNotFound: none yet).
// On the log's own journal it is the last one made.
func (j *Journal) Verified() (Tree, error) {
	if c := j.checkpoint.Load(); c != nil {
		return c.tree, nil
	}
	return Tree{}, fmt.Errorf("checkpoint: %w", ErrNotFound)
}
