package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// queueLength is how many requests wait in the channel; more wait in Append.
const queueLength = 1024

// A transaction takes at most so many entries, and so many octets of bodies.
const (
	maxBatch      = 1024
	maxBatchBytes = 16 << 20
)

// request is one Append (event) or one checkpoint to store (note, over no less than the stored one), waiting for its transaction.
type request struct {
	ctx   context.Context // the caller's; once it has ended nobody waits for the answer
	event *prepared
	note  *checkpoint
	done  chan struct{} // closed when entry or err is set
	entry Entry
	err   error
}

// Append records e: durable, and in the tree, when it returns. ErrConflict: the state machine forbids it and nothing changed.
// ErrFailed: a commit failed; the journal refuses everything until it is opened again.
// If ctx ends first, the entry may or may not be recorded: the caller must treat it as unknown.
// Any other error (an event that is not well-formed, a clock behind the last entry) also means that nothing changed.
//
// Never call it from inside a loop over Certificates or a callback of Revoked: the commit may have to wait for that read.
func (j *Journal) Append(ctx context.Context, e Event) (Entry, error) {
	if j.sealer == nil {
		return Entry{}, fmt.Errorf("append: %w", ErrReplica)
	}
	if err := ctx.Err(); err != nil {
		return Entry{}, fmt.Errorf("append: not recorded: %w", err)
	}
	if err := j.Failed(); err != nil {
		return Entry{}, fmt.Errorf("append: %w", err)
	}
	p, err := prepare(e, j.sealer)
	if err != nil {
		return Entry{}, fmt.Errorf("append: %w", err)
	}
	r := &request{ctx: ctx, event: p, done: make(chan struct{})}
	if err := j.submit(r); err != nil {
		return Entry{}, fmt.Errorf("append: %w", err)
	}
	return r.entry, nil
}

// submit hands r to the committer and waits for its answer.
func (j *Journal) submit(r *request) error {
	select {
	case j.queue <- r:
	case <-r.ctx.Done():
		return fmt.Errorf("not recorded: %w", r.ctx.Err())
	case <-j.stopped:
		return ErrClosed
	}
	select {
	case <-r.done:
		return r.err
	case <-r.ctx.Done():
		return fmt.Errorf("not known whether recorded: %w", r.ctx.Err())
	case <-j.stopped:
	}
	select { // the committer answers all it took before it ends
	case <-r.done:
		return r.err
	default:
		return ErrClosed
	}
}

func (j *Journal) start() { go j.run() }

// run is the committer: group commit without a timer. Whatever waits when the last fsync has returned goes into the
// next transaction, so that a lone caller never waits for company and many share one fsync.
func (j *Journal) run() {
	defer close(j.stopped)
	for {
		select {
		case <-j.stop:
			return
		case r := <-j.queue:
			j.commit(j.gather(r))
		}
	}
}

// gatherTime bounds how long a transaction waits for company: where signing keeps the processors busy a yield takes tens of
// milliseconds, and a batch that grew all the while kept answers back for seconds.
const gatherTime = time.Millisecond

// gather takes all that waits. Callers just answered need a moment on a processor before they are back: yielding
// until nobody new came in lets them into this transaction instead of one each behind it.
func (j *Journal) gather(first *request) []*request {
	batch, size, idle, began := []*request{first}, first.size(), 0, time.Now()
	for len(batch) < maxBatch && size < maxBatchBytes && time.Since(began) < gatherTime {
		select {
		case r := <-j.queue:
			batch = append(batch, r)
			size += r.size()
			idle = 0
			continue
		default:
		}
		if idle++; idle > 3 {
			break
		}
		runtime.Gosched()
	}
	return batch
}

func (r *request) size() int {
	if r.event == nil {
		return len(r.note.text)
	}
	return len(r.event.body)
}

// errNothing rolls a transaction back in which every request was refused.
var errNothing = errors.New("nothing to commit")

// commit writes batch in one transaction and answers each. One refused request does not fail its neighbours; a
// transaction that fails fails them all, and the journal for ever: what is on the disk is then unknown.
func (j *Journal) commit(batch []*request) {
	defer func() {
		for _, r := range batch {
			close(r.done)
		}
	}()
	if err := j.Failed(); err != nil {
		for _, r := range batch {
			r.err = err
		}
		return
	}
	next := *j.head.Load() // the transaction's own copy
	now := j.beginCommit()
	defer j.endCommit()
	write := func(tx *bolt.Tx) error {
		t, err := openTables(tx)
		if err != nil {
			return err
		}
		wrote := false
		for _, r := range batch {
			if r.err = r.ctx.Err(); r.err != nil {
				continue // nobody waits; nothing was written
			}
			if err := j.record(t, &next, r, now); err != nil {
				return err
			}
			wrote = wrote || r.err == nil
		}
		if !wrote {
			return errNothing
		}
		return nil
	}
	err := failpoint.All(stepsOf(batch), func() error { return j.update(write) })
	switch {
	case err == nil:
		j.head.Store(&next)
		for _, r := range batch {
			if r.note != nil && r.err == nil {
				j.stored.Store(r.note.tree.Size)
			}
		}
		j.grown.fire()
	case errors.Is(err, errNothing):
	default:
		err = j.fail(err)
		for _, r := range batch {
			r.entry, r.err = Entry{}, err
		}
	}
}

// beginCommit tells what time the entries bear of the transaction that begins.
func (j *Journal) beginCommit() time.Time {
	j.timing.Lock()
	defer j.timing.Unlock()
	j.committing = j.now().UTC().Truncate(time.Millisecond)
	return j.committing
}

// endCommit follows when head has the transaction's entries, or they came to nothing.
func (j *Journal) endCommit() {
	j.timing.Lock()
	defer j.timing.Unlock()
	j.committing = time.Time{}
}

// moment is the durable end of the journal with a time at which it was that: while entries are being written it is theirs at most.
// Otherwise a checkpoint could be later than an entry that it lacks, and a status as of that checkpoint wrong.
func (j *Journal) moment() (*head, time.Time) {
	j.timing.Lock()
	defer j.timing.Unlock()
	now := j.now()
	if !j.committing.IsZero() && j.committing.Before(now) {
		now = j.committing
	}
	return j.head.Load(), now
}

// appendSteps name the commits by the kinds of their entries.
var appendSteps = [...]failpoint.Step{
	kindDaemonStarted:        failpoint.AppendDaemonStarted,
	kindCeremonyHeld:         failpoint.AppendCeremonyHeld,
	kindCertificateIntended:  failpoint.AppendCertificateIntended,
	kindCertificateIssued:    failpoint.AppendCertificateIssued,
	kindCertificateAbandoned: failpoint.AppendCertificateAbandoned,
	kindCertificateRevoked:   failpoint.AppendCertificateRevoked,
	kindCRLReserved:          failpoint.AppendCRLReserved,
	kindCRLIssued:            failpoint.AppendCRLIssued,
	kindTimestampIssued:      failpoint.AppendTimestampIssued,
	kindClockChanged:         failpoint.AppendClockChanged,
	kindKeyDuty:              failpoint.AppendKeyDuty,
}

// stepsOf are the steps that one transaction takes together.
func stepsOf(batch []*request) iter.Seq[failpoint.Step] {
	return func(yield func(failpoint.Step) bool) {
		for _, r := range batch {
			step := failpoint.StoreCheckpoint
			if r.event != nil {
				step = appendSteps[r.event.event.kind()]
			}
			if !yield(step) {
				return
			}
		}
	}
}

// fail makes the journal refuse from now on, and returns with which error.
func (j *Journal) fail(cause error) error {
	remedy := "see to the disk of " + j.dir + ", then restart"
	if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		remedy = "free space for " + j.dir + ", then restart"
	}
	j.failed.CompareAndSwap(nil, &failure{fmt.Errorf("%w: %w: %s", ErrFailed, cause, remedy)})
	j.grown.fire()
	return j.Failed()
}

// record writes one request. A refusal goes into r.err, having written nothing; the error returned is the storage's.
func (j *Journal) record(t *tables, h *head, r *request, now time.Time) error {
	if r.note != nil {
		return t.meta.Put(metaCheckpoint, r.note.text)
	}
	if now.Before(h.last) || now.UnixMilli() < 0 {
		r.err = fmt.Errorf("the clock says %s, which is before the last entry's %s; set the clock right",
			now.Format(time.RFC3339Nano), h.last.Format(time.RFC3339Nano))
		return nil
	}
	p := r.event
	putTime(p.leaf, now)
	index := h.edge.size
	err := t.append(h, p.leaf, leaf{time: now, event: p.event}, p.tbs)
	if errors.Is(err, ErrConflict) {
		r.err = err
		return nil
	}
	if err != nil {
		return err
	}
	if p.body != nil {
		if err := t.bodies.Put(indexKey(index), p.body); err != nil {
			return err
		}
		if err := t.keys.Put(indexKey(index), p.key); err != nil {
			return err
		}
	}
	r.entry = Entry{Index: index, Time: now, Leaf: p.leaf, Event: p.event}
	return nil
}

// append adds a leaf to state and tree, after every check: the log's and the replica's one way of growing.
// ErrConflict: nothing was written. tbs is transition's.
func (t *tables) append(h *head, b []byte, l leaf, tbs *[32]byte) error {
	index := h.edge.size
	write, err := t.transition(index, l.time, l.event, tbs)
	if err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	if err := t.leaves.Put(indexKey(index), b); err != nil {
		return err
	}
	if err := t.hashes.Put(indexKey(index), h.edge.add(tlog.RecordHash(b))); err != nil {
		return err
	}
	h.last = l.time
	return nil
}
