// Package journal is the append-only memory of a daemon: an entry is durable before Append
// returns, bound into the Merkle tree, never changed.
//
// A journal is a directory with one bbolt file, journal.db, whose format docs/journal.md describes. Its leaves say what
// a status needs and no personal data; what remains of an event is sealed in a body apart from it. One process has a
// journal open for writing; others follow it into a replica of their own, checking every leaf and every checkpoint.
//
//	event.go, codec.go   the events and their leaves
//	state.go             the state machine, inside the transaction
//	committer.go         group commit: Append's other half
//	seal.go              bodies
//	tree.go, checkpoint.go, checkpointer.go   the Merkle tree and what is signed over it
//	feed.go, follow.go   the log's side and the replica's side of the feed
//	fork.go              what a replica remembers of a log that was rewritten
//	verify.go            everything derived again
package journal

import (
	"crypto"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("not in the journal")
	ErrConflict = errors.New("the journal's state forbids it")                     // e.g. serial already intended, revoke of what is not issued
	ErrFailed   = errors.New("the journal has failed and refuses until restarted") // after a failed commit
	ErrLocked   = errors.New("the journal is locked by another process")
	ErrClosed   = errors.New("the journal is closed")
	ErrReplica  = errors.New("a replica or a journal opened for reading only takes no entries")
)

// Options say how to open a journal.
type Options struct {
	// Now stamps entries. An Append whose time would be before the last entry's is refused. nil: time.Now.
	Now func() time.Time
	// Wrap and Unwrap are the token's: the journal's key-encryption key (32 octets) lies in the file only as Wrap returned it.
	// Create calls Wrap once and Unwrap once (to prove that it undoes Wrap), Open calls Unwrap once.
	Wrap, Unwrap func(key []byte) ([]byte, error)
	// CheckpointKey signs checkpoints: an Ed25519 crypto.Signer, its own key.
	CheckpointKey crypto.Signer
}

// Journal is an open journal. Safe for concurrent use. One process at a time has it open.
type Journal struct {
	dir      string
	db       *bolt.DB
	role     string // roleLog or roleReplica
	readOnly bool
	verifier *verifier
	cosigner *cosigner // nil where no checkpoints can be signed
	sealer   *sealer   // nil where bodies stay sealed
	now      func() time.Time

	head   atomic.Pointer[head]    // what is durable; written by the committer or by Follow
	grown  signal                  // fires when head or a replica's checkpoint moves
	failed atomic.Pointer[failure] // set once
	forked atomic.Pointer[Fork]    // a replica's; set once, kept in the file

	queue     chan *request // to the committer
	stop      chan struct{} // closed by Close
	stopped   chan struct{} // closed when the committer has ended
	closeOnce sync.Once
	closeErr  error

	timing     sync.Mutex // guards committing, and is held where the clock is read for an entry or a checkpoint: see moment
	committing time.Time  // what the entries bear of the transaction under way, which head lacks; zero: there is none

	checkpointMu sync.Mutex // held while a checkpoint is signed: one at a time
	checkpoint   atomic.Pointer[checkpoint]
	stored       atomic.Uint64 // entries that the checkpoint in the file covers
	attempts     attempts
	following    sync.Mutex // held by Follow
}

// head is the durable end of a journal.
type head struct {
	edge edge
	last time.Time // of the last entry; zero when empty
}

// checkpoint is the last one made, or on a replica the last one verified and caught up with.
type checkpoint struct {
	text []byte
	tree Tree
	made time.Time // with its fraction of a second; zero if read from the file
}

type failure struct{ cause error }

// signal wakes all who wait for the journal to grow.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed by the next fire: take it before looking at what may have changed.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Close waits for the transaction that is being committed, refuses what is still waiting (ErrClosed), signs and stores a
// checkpoint where entries lie beyond the stored one, and releases the file. It waits for open iterators too.
// Its error says when the last entries are left under no signature: whoever can write the file could change them unseen.
// A second Close does nothing and returns what the first did.
func (j *Journal) Close() error {
	j.closeOnce.Do(func() {
		close(j.stop)
		<-j.stopped
		err := j.signEnd()
		j.grown.fire()
		j.closeErr = errors.Join(err, j.db.Close())
	})
	return j.closeErr
}

// Origin is the checkpoint origin; VerifierKey the C2SP vkey under which its checkpoints verify.
func (j *Journal) Origin() string { return j.verifier.origin }

// VerifierKey is origin+hash+base64(0x04 || Ed25519 public key): what a follower or an auditor needs (C2SP signed-note).
func (j *Journal) VerifierKey() string { return j.verifier.String() }

// Size is the number of durable entries.
func (j *Journal) Size() uint64 { return j.head.Load().edge.size }

// LastTime is the time of the last entry (zero when empty); a daemon whose clock is behind it refuses to sign.
func (j *Journal) LastTime() time.Time { return j.head.Load().last }

// Failed is nil, or why the journal refuses: it wraps ErrFailed and the cause.
func (j *Journal) Failed() error {
	if f := j.failed.Load(); f != nil {
		return f.cause
	}
	return nil
}
