package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrFork means that the feed's log contradicts what the replica has verified before: somebody rewrote it, or shows
// different logs to different followers. It is for people to look into; the replica stays as it was.
var ErrFork = errors.New("the log contradicts an earlier checkpoint")

const (
	followWait  = 25               // seconds a request may be held back
	followLimit = 60 * time.Second // for a request and its whole answer
	backOffMin  = 50 * time.Millisecond
	backOffMax  = 2 * time.Second
	// maxAhead is how far a checkpoint's time may be ahead of the replica's clock.
	maxAhead = time.Minute
)

// Follow copies the log at feed into replica until ctx ends: every leaf is parsed and its state change checked, every checkpoint's
// signature, time and consistency with what the replica holds, before anything is committed. It retries with back-off when the feed
// is away (onError, if not nil, is told), and returns only when ctx ends (nil), when the log proves to have been tampered with
// (ErrFork), or when the replica can no longer write (ErrFailed, ErrClosed). One Follow at a time per replica. client nil: http.DefaultClient.
//
// A follower that knows the log's key has to trust the feed for nothing but its being there: what is not signed is not
// believed, what is signed must extend what was signed before.
func Follow(ctx context.Context, replica *Journal, feed string, client *http.Client, onError func(error)) error {
	if client == nil {
		client = http.DefaultClient
	}
	if replica.role != roleReplica || replica.readOnly {
		return fmt.Errorf("follow %s: not a replica opened for following", feed)
	}
	if !replica.following.TryLock() {
		return fmt.Errorf("follow %s: the replica is being followed into already", feed)
	}
	defer replica.following.Unlock()
	address, err := url.Parse(feed)
	if err != nil {
		return fmt.Errorf("follow: %w", err)
	}
	f := &follower{j: replica, address: address, client: client, behind: true}
	if c := replica.checkpoint.Load(); c != nil {
		f.seen = c.tree
	}
	pause := backOffMin
	for ctx.Err() == nil {
		grown, err := f.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrFork), errors.Is(err, ErrFailed), errors.Is(err, ErrClosed):
			return fmt.Errorf("follow %s: %w", feed, err)
		case err != nil:
			if onError != nil {
				onError(fmt.Errorf("follow %s: %w", feed, err))
			}
			sleep(ctx, pause/2+rand.N(pause/2+1)) // jitter, so that responders do not come back all at once
			pause = min(2*pause, backOffMax)
			continue
		case !grown:
			sleep(ctx, backOffMin) // a feed that does not hold requests back must not make us spin
		}
		pause = backOffMin
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// follower is one run of Follow.
type follower struct {
	j       *Journal
	address *url.URL
	client  *http.Client
	seen    Tree // the newest checkpoint whose signature was verified, caught up with or not
	behind  bool // ask for an answer at once: nothing fetched yet, or the last answer stopped short of its checkpoint
}

// once fetches, verifies and applies one answer; grown tells whether there were leaves in it.
func (f *follower) once(ctx context.Context) (grown bool, err error) {
	body, err := f.fetch(ctx)
	if err != nil {
		return false, err
	}
	c, err := decodeChunk(body)
	if err != nil {
		return false, err
	}
	tree, err := f.check(c)
	if err != nil {
		return false, err
	}
	if err := f.apply(c, tree); err != nil {
		return false, err
	}
	return len(c.leaves) > 0, nil
}

func (f *follower) fetch(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	address := *f.address
	query := address.Query()
	query.Set("after", strconv.FormatUint(f.j.Size(), 10))
	if !f.behind {
		query.Set("wait", strconv.Itoa(followWait))
	}
	address.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // only to say more
		return nil, fmt.Errorf("the feed answers %s: %q", response.Status, text)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxFeed+1))
	if err != nil {
		return nil, fmt.Errorf("read the feed's answer: %w", err)
	}
	return body, nil
}

// check verifies the answer's checkpoint: signature, origin, time, and that it does not contradict the newest one seen.
func (f *follower) check(c *chunk) (Tree, error) {
	tree, err := f.j.verifier.verify(c.checkpoint)
	if err != nil {
		return tree, err
	}
	if c.after != f.j.Size() {
		return tree, fmt.Errorf("the feed answers from entry %d, %d was asked for", c.after, f.j.Size())
	}
	if tree.Time.Before(f.seen.Time) {
		return tree, fmt.Errorf("the feed's checkpoint of %s is older than one of %s seen before: it is replayed", tree.Time, f.seen.Time)
	}
	if ahead := tree.Time.Sub(f.j.now()); ahead > maxAhead {
		return tree, fmt.Errorf("the feed's checkpoint of %s is %s ahead of this machine's clock", tree.Time, ahead.Round(time.Second))
	}
	switch {
	case tree.Size < f.seen.Size || tree.Size < f.j.Size():
		return tree, fmt.Errorf("%w: it has %d entries, it had %d", ErrFork, tree.Size, max(f.seen.Size, f.j.Size()))
	case tree.Size == f.seen.Size && tree.Root != f.seen.Root && tree.Size > 0:
		return tree, fmt.Errorf("%w: two roots at %d entries", ErrFork, tree.Size)
	}
	f.seen = tree
	return tree, nil
}

// apply holds the leaves against the checkpoint and commits both in one transaction. A checkpoint that the leaves do not
// reach is not stored: Verified moves only when the replica has caught up.
func (f *follower) apply(c *chunk, tree Tree) error {
	j := f.j
	next := *j.head.Load()
	e := next.edge
	for _, b := range c.leaves {
		e.add(tlog.RecordHash(b))
	}
	if len(c.leaves) == 0 && e.size < tree.Size {
		return fmt.Errorf("the feed gives no leaves, though its checkpoint covers %d and this replica has %d", tree.Size, e.size)
	}
	if err := consistent(&e, tree, c.proof); err != nil {
		return err
	}
	f.behind = e.size < tree.Size
	leaves, err := decodeLeaves(c.leaves, next.last, tree.Time)
	if err != nil {
		return err
	}
	refused := false // not the storage's fault
	err = j.update(func(tx *bolt.Tx) error {
		t, err := openTables(tx)
		if err != nil {
			return err
		}
		for i, l := range leaves {
			if err := t.append(&next, c.leaves[i], l, nil); err != nil {
				refused = errors.Is(err, ErrConflict)
				return fmt.Errorf("entry %d: %w", next.edge.size, err)
			}
		}
		if f.behind {
			return nil
		}
		return t.meta.Put(metaCheckpoint, c.checkpoint)
	})
	switch {
	case refused:
		return fmt.Errorf("%w: it has signed what no log may hold: %w", ErrFork, err)
	case errors.Is(err, ErrClosed):
		return err
	case err != nil:
		return j.fail(err)
	}
	j.head.Store(&next)
	if !f.behind {
		j.checkpoint.Store(&checkpoint{text: append([]byte(nil), c.checkpoint...), tree: tree})
	}
	j.grown.fire()
	return nil
}

// consistent checks that the tree with edge e is, or is the beginning of, the tree that the checkpoint signs.
func consistent(e *edge, tree Tree, proof tlog.TreeProof) error {
	root := e.root()
	switch {
	case e.size > tree.Size:
		return fmt.Errorf("the feed gives %d entries, more than its checkpoint's %d", e.size, tree.Size)
	case e.size == tree.Size && root != tree.Root:
		return fmt.Errorf("%w: the entries up to %d do not hash to its root", ErrFork, tree.Size)
	case e.size == tree.Size && len(proof) > 0:
		return errors.New("the feed gives a proof where none belongs")
	case e.size == tree.Size:
		return nil
	case len(proof) == 0:
		return fmt.Errorf("the feed gives %d of %d entries and no proof that they belong together", e.size, tree.Size)
	}
	if err := tlog.CheckTree(proof, int64(tree.Size), tree.Root, int64(e.size), root); err != nil {
		return fmt.Errorf("%w: the %d entries are not the beginning of its tree of %d: %w", ErrFork, e.size, tree.Size, err)
	}
	return nil
}

// decodeLeaves reads leaves that are known to be in the log's signed tree: what is wrong with them, the log signed.
// Leaves of newer software are no fork, they wait for this software's update.
func decodeLeaves(raw [][]byte, last, signed time.Time) ([]leaf, error) {
	leaves := make([]leaf, len(raw))
	for i, b := range raw {
		l, err := decodeLeaf(b)
		if errors.Is(err, errUnknownLeaf) {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("%w: it has signed what no log may hold: %w", ErrFork, err)
		}
		if l.time.Before(last) || l.time.Unix() > signed.Unix() {
			return nil, fmt.Errorf("%w: it has signed an entry of %s after one of %s, under a checkpoint of %s", ErrFork, l.time, last, signed)
		}
		leaves[i], last = l, l.time
	}
	return leaves, nil
}
