package journal

import (
	"bytes"
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

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// ErrFork means that the log has signed two things that contradict each other, or entries that no log may hold: somebody rewrote
// it, or shows different logs to different followers. Nothing unsigned, whatever the feed's path does to an answer, can bring it
// about. It is for people to look into; the replica stays as it was, and remembers it (Forked).
var ErrFork = errors.New("the log contradicts an earlier checkpoint")

// errUnproven means that an answer's leaves are not seen to be those of its checkpoint. It says nothing of the log: leaves and
// proofs are not signed.
var errUnproven = errors.New("the feed's entries do not belong to its checkpoint")

// newerLeaf tells how many leaves of an answer were read before one of newer software.
type newerLeaf struct {
	known int
	err   error // wraps errUnknownLeaf
}

func (e *newerLeaf) Error() string { return e.err.Error() }
func (e *newerLeaf) Unwrap() error { return e.err }

const (
	followWait  = 25               // seconds a request may be held back
	followLimit = 60 * time.Second // for a request and its whole answer
	backOffMin  = 50 * time.Millisecond
	backOffMax  = 2 * time.Second
	// maxAhead is how far a checkpoint's time may be ahead of the replica's clock.
	maxAhead = time.Minute
	// maxUnreached is how many signed checkpoints are kept until the replica has reached them.
	maxUnreached = 1024
)

// Follow copies the log at feed into replica until ctx ends: every leaf is parsed and its state change checked, every checkpoint's
// signature, time and consistency with what the replica holds, before anything is committed. It retries with back-off when the feed
// is away (onError, if not nil, is told), and returns only when ctx ends (nil), when the log proves to have been tampered with
// (ErrFork, once that is durable; from then on at once), or when the replica can no longer write (ErrFailed, ErrClosed). One Follow at a
// time per replica. client nil: http.DefaultClient.
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
	if err := replica.Forked(); err != nil {
		return fmt.Errorf("follow %s: %w", feed, err)
	}
	address, err := url.Parse(feed)
	if err != nil {
		return fmt.Errorf("follow: %w", err)
	}
	f := &follower{j: replica, address: address, client: client, behind: true}
	if err := f.remember(); err != nil {
		return fmt.Errorf("follow %s: %w", feed, err)
	}
	pause := backOffMin
	for ctx.Err() == nil {
		grown, err := f.once(ctx)
		switch {
		case errors.Is(err, ErrFork):
			return fmt.Errorf("follow %s: %w", feed, err)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrFailed), errors.Is(err, ErrClosed):
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
	// unreached are the signed checkpoints over more entries than the replica has, in order of size: the oldest and the newest. As
	// soon as the replica has so many entries, these are held against them. The first is stored.
	unreached []checkpoint
	behind    bool // ask for an answer at once: nothing fetched yet, or the last answer stopped short of its checkpoint
}

// remember takes from the file what was signed and seen before.
func (f *follower) remember() error {
	if c := f.j.checkpoint.Load(); c != nil {
		f.seen = c.tree
	}
	return f.j.view(func(tx *bolt.Tx) error {
		text := tx.Bucket(bucketMeta).Get(metaUnreached)
		if text == nil {
			return nil
		}
		tree, err := f.j.verifier.verify(text)
		if err != nil {
			return fmt.Errorf("stored checkpoint that is not reached yet: %w", err)
		}
		if tree.Size > f.j.Size() {
			f.unreached = []checkpoint{{text: bytes.Clone(text), tree: tree}}
		}
		if f.seen.Time.Before(tree.Time) {
			f.seen = tree
		}
		return nil
	})
}

// once fetches, verifies and applies one answer; grown tells whether there were leaves in it.
func (f *follower) once(ctx context.Context) (grown bool, err error) {
	grown, err = f.take(ctx, noLimit)
	var newer *newerLeaf
	switch {
	case errors.Is(err, errUnproven) && f.j.Size() > 0:
		return false, f.examine(ctx, err)
	case errors.As(err, &newer) && newer.known > 0:
		return f.take(ctx, newer.known) // a revocation before a leaf that cannot be read yet must not wait for it
	}
	return grown, err
}

// take fetches an answer of at most limit leaves, verifies and applies it. A fork is durable when it is returned.
func (f *follower) take(ctx context.Context, limit int) (grown bool, err error) {
	c, tree, err := f.ask(ctx, limit)
	if err != nil {
		return false, err
	}
	if err := f.apply(c, tree); errors.Is(err, ErrFork) {
		return false, f.j.markForked(err, c.checkpoint)
	} else if err != nil {
		return false, err
	}
	return len(c.leaves) > 0, nil
}

// examine finds out whether trouble, unproven leaves, comes from the feed's path or from a log that was rewritten: it asks for the
// root that the log has signed at this replica's size. A consistency proof shows which one that is, whatever it is: if it
// is not the replica's, then the log has signed both.
func (f *follower) examine(ctx context.Context, trouble error) error {
	c, tree, err := f.ask(ctx, 0)
	if errors.Is(err, ErrFork) {
		return err
	}
	size := f.j.Size()
	if err != nil || len(c.leaves) > 0 || len(c.proof) == 0 || tree.Size <= size {
		return trouble
	}
	signed, ours := c.proof[0], f.j.head.Load().edge.root()
	if tlog.CheckTree(c.proof[1:], int64(tree.Size), tree.Root, int64(size), signed) != nil || signed == ours {
		return trouble
	}
	err = fmt.Errorf("%w: its tree of %d entries, signed at %s, had the root %x at %d entries; the one followed so far had %x",
		ErrFork, tree.Size, tree.Time.Format(time.RFC3339), signed, size, ours)
	return f.j.markForked(err, c.checkpoint)
}

// ask fetches an answer and verifies its checkpoint. A fork is durable when it is returned.
func (f *follower) ask(ctx context.Context, limit int) (*chunk, Tree, error) {
	body, err := f.fetch(ctx, limit)
	if err != nil {
		return nil, Tree{}, err
	}
	c, err := decodeChunk(body)
	if err != nil {
		return nil, Tree{}, err
	}
	tree, err := f.check(c)
	if errors.Is(err, ErrFork) {
		err = f.j.markForked(err, c.checkpoint)
	}
	return c, tree, err
}

// fetch asks for at most limit leaves from the replica's end on.
func (f *follower) fetch(ctx context.Context, limit int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, followLimit)
	defer cancel()
	address := *f.address
	query := address.Query()
	query.Set("after", strconv.FormatUint(f.j.Size(), 10))
	switch {
	case limit != noLimit:
		query.Set("limit", strconv.Itoa(limit))
	case !f.behind:
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
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // only to say more
		return nil, fmt.Errorf("the feed answers %s: %q", response.Status, text)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxFeed+1))
	if err != nil {
		return nil, fmt.Errorf("read the feed's answer: %w", err)
	}
	return body, nil
}

// check verifies the answer's checkpoint: signature, origin, that it contradicts none signed before, that it is no old one.
func (f *follower) check(c *chunk) (Tree, error) {
	tree, err := f.j.verifier.verify(c.checkpoint)
	if err != nil {
		return tree, err
	}
	if err := f.contradicted(tree); err != nil {
		return tree, err
	}
	size := f.j.Size()
	switch ahead := tree.Time.Sub(f.j.now()); {
	case c.after != size:
		return tree, fmt.Errorf("the feed answers from entry %d, %d was asked for", c.after, size)
	case tree.Time.Before(f.seen.Time), tree.Time.Equal(f.seen.Time) && tree.Size < f.seen.Size, tree.Size < size:
		return tree, fmt.Errorf("the feed's checkpoint of %s over %d entries is older than one of %s over %d seen before: it is replayed",
			tree.Time.Format(time.RFC3339), tree.Size, f.seen.Time.Format(time.RFC3339), max(f.seen.Size, size))
	case ahead > maxAhead:
		return tree, fmt.Errorf("the feed's checkpoint of %s is %s ahead of this machine's clock", tree.Time.Format(time.RFC3339), ahead.Round(time.Second))
	}
	f.seen = tree
	if n := len(f.unreached); tree.Size > size && (n == 0 || f.unreached[n-1].tree.Size < tree.Size) {
		f.unreached = append(f.unreached[:min(n, maxUnreached-1)], checkpoint{text: bytes.Clone(c.checkpoint), tree: tree})
	}
	return tree, nil
}

// contradicted holds a signed tree against all that the log has signed before: the entries of this replica, and the
// checkpoints known. In one second a log may sign more than one size, so only a later time tells that a smaller tree came after.
func (f *follower) contradicted(tree Tree) error {
	known := []Tree{f.seen}
	for _, c := range f.unreached {
		known = append(known, c.tree)
	}
	for _, k := range known {
		switch {
		case tree.Size == k.Size && tree.Root != k.Root && tree.Size > 0:
			return fmt.Errorf("%w: two roots at %d entries, %x and %x", ErrFork, tree.Size, k.Root, tree.Root)
		case tree.Size < k.Size && tree.Time.After(k.Time):
			return fmt.Errorf("%w: at %s it has %d entries, at %s it had %d", ErrFork,
				tree.Time.Format(time.RFC3339), tree.Size, k.Time.Format(time.RFC3339), k.Size)
		}
	}
	if tree.Size > f.j.Size() {
		return nil
	}
	var e edge
	err := f.j.view(func(tx *bolt.Tx) (err error) {
		e, err = loadEdge(tx.Bucket(bucketHashes), tree.Size)
		return err
	})
	if err != nil {
		return err
	}
	if root := e.root(); root != tree.Root {
		return fmt.Errorf("%w: two roots at %d entries, %x and %x", ErrFork, tree.Size, root, tree.Root)
	}
	return nil
}

// apply holds the leaves against the checkpoint and commits both in one transaction. A checkpoint that the leaves do not
// reach does not become the verified one: Verified moves only when the replica has caught up.
func (f *follower) apply(c *chunk, tree Tree) error {
	j := f.j
	next := *j.head.Load()
	e := next.edge
	reached := f.unreached[:0:0] // with the roots of this answer's leaves
	for _, b := range c.leaves {
		e.add(tlog.RecordHash(b))
		if i := len(reached); i < len(f.unreached) && f.unreached[i].tree.Size == e.size {
			reached = append(reached, checkpoint{tree: Tree{Size: e.size, Root: e.root()}})
		}
	}
	if len(c.leaves) == 0 && e.size < tree.Size {
		return fmt.Errorf("%w: it gives none, though its checkpoint covers %d and this replica has %d", errUnproven, tree.Size, e.size)
	}
	if err := proven(&e, tree, c.proof); err != nil {
		return err
	}
	for i, r := range reached { // from here on the leaves are known to be signed
		if signed := f.unreached[i].tree; signed.Root != r.tree.Root {
			return fmt.Errorf("%w: its tree of %d entries, signed at %s, had the root %x at %d entries; at %s it signed %x there", ErrFork, tree.Size,
				tree.Time.Format(time.RFC3339), r.tree.Root, signed.Size, signed.Time.Format(time.RFC3339), signed.Root)
		}
	}
	leaves, err := decodeLeaves(c.leaves, next.last, tree.Time)
	if err != nil {
		return err
	}
	return f.commit(c, &next, leaves, tree)
}

// commit stores proven leaves behind next and, where they reach it, the checkpoint.
func (f *follower) commit(c *chunk, next *head, leaves []leaf, tree Tree) error {
	j := f.j
	unreached, behind := f.unreached, next.edge.size+uint64(len(leaves)) < tree.Size
	for len(unreached) > 0 && unreached[0].tree.Size <= next.edge.size+uint64(len(leaves)) {
		unreached = unreached[1:]
	}
	refused := false // not the storage's fault
	write := func(tx *bolt.Tx) error {
		t, err := openTables(tx)
		if err != nil {
			return err
		}
		for i, l := range leaves {
			if err := t.append(next, c.leaves[i], l, nil); err != nil {
				refused = errors.Is(err, ErrConflict)
				return fmt.Errorf("entry %d: %w", next.edge.size, err)
			}
		}
		if behind {
			return t.meta.Put(metaUnreached, unreached[0].text)
		}
		return errors.Join(t.meta.Delete(metaUnreached), t.meta.Put(metaCheckpoint, c.checkpoint))
	}
	err := failpoint.Do(failpoint.Replicate, func() error { return j.update(write) })
	switch {
	case refused:
		return fmt.Errorf("%w: it has signed what no log may hold: %w", ErrFork, err)
	case errors.Is(err, ErrClosed):
		return err
	case err != nil:
		return j.fail(err)
	}
	f.unreached, f.behind = unreached, behind
	j.head.Store(next)
	if !behind {
		j.checkpoint.Store(&checkpoint{text: append([]byte(nil), c.checkpoint...), tree: tree})
	}
	j.grown.fire()
	return nil
}

// proven checks that the tree with edge e is, or is the beginning of, the tree that the checkpoint signs. hashes are an answer's.
func proven(e *edge, tree Tree, hashes tlog.TreeProof) error {
	root := e.root()
	switch {
	case e.size > tree.Size:
		return fmt.Errorf("%w: they are %d, it covers %d", errUnproven, e.size, tree.Size)
	case e.size == tree.Size && root != tree.Root:
		return fmt.Errorf("%w: the %d do not hash to its root", errUnproven, tree.Size)
	case e.size == tree.Size && len(hashes) > 0:
		return errors.New("the feed gives a proof where none belongs")
	case e.size == tree.Size:
		return nil
	case len(hashes) == 0:
		return fmt.Errorf("%w: %d of %d, and no proof that they belong together", errUnproven, e.size, tree.Size)
	}
	if err := tlog.CheckTree(hashes[1:], int64(tree.Size), tree.Root, int64(e.size), root); err != nil || hashes[0] != root {
		return fmt.Errorf("%w: the first %d are not proven to be the beginning of its tree of %d", errUnproven, e.size, tree.Size)
	}
	return nil
}

// decodeLeaves reads leaves that are known to be in the log's signed tree: what is wrong with them, the log signed.
// Leaves of newer software are no fork, they wait for this software's update (newerLeaf).
func decodeLeaves(raw [][]byte, last, signed time.Time) ([]leaf, error) {
	leaves := make([]leaf, len(raw))
	for i, b := range raw {
		l, err := decodeLeaf(b)
		if errors.Is(err, errUnknownLeaf) {
			return nil, &newerLeaf{i, err}
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
