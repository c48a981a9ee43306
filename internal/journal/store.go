package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// formatVersion is the version of journal.db that this software writes and the newest that it reads.
const formatVersion = 1

const (
	fileName     = "journal.db"
	creatingName = "journal.db.creating" // until it is whole: Open takes only fileName
	roleLog      = "log"
	roleReplica  = "replica"
)

// The keys of bucket meta.
var (
	metaFormat     = []byte("format")     // four octets, big-endian
	metaRole       = []byte("role")       // log or replica
	metaVerifier   = []byte("vkey")       // C2SP vkey; its name is the origin
	metaKEK        = []byte("kek")        // the key-encryption key as Options.Wrap returned it; a log's only
	metaCheckpoint = []byte("checkpoint") // the last checkpoint stored; on a replica the last caught up with
	metaUnreached  = []byte("unreached")  // a replica's only, while it is behind: the oldest checkpoint over more entries than it has
	metaForked     = []byte("forked")     // a replica's only: the log contradicted it
)

// lockTimeout is how long opening waits for another process to let go.
const lockTimeout = time.Second

// mapSize is the address space a journal is mapped into from the start. Growing the mapping waits for every open
// read transaction, so it is to happen seldom.
const mapSize = 1 << 30

// Create makes a new journal in dir, which must not exist or be empty. origin is the C2SP checkpoint origin
// (schema-less URL, e.g. "zegel.example/ca"). It returns after everything is durable; use Open next.
// A Create that was interrupted leaves nothing that Open takes, and can be repeated.
func Create(dir, origin string, o Options) error {
	if err := checkOrigin(origin); err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	signer, err := newCosigner(origin, o.CheckpointKey)
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	wrapped, err := newKEK(o)
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	var empty edge
	text, _, err := signer.sign(0, empty.root(), now())
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	return create(dir, map[string][]byte{
		string(metaRole): []byte(roleLog), string(metaVerifier): []byte(signer.String()),
		string(metaKEK): wrapped, string(metaCheckpoint): text,
	})
}

// CreateReplica makes an empty replica of the journal whose checkpoints verify under vkey (origin+hash+key, C2SP vkey of type cosignature/v1).
// dir must not exist or be empty.
func CreateReplica(dir, vkey string) error {
	if _, err := parseVerifierKey(vkey); err != nil {
		return fmt.Errorf("create replica: %w", err)
	}
	return create(dir, map[string][]byte{string(metaRole): []byte(roleReplica), string(metaVerifier): []byte(vkey)})
}

// newKEK makes the key-encryption key and returns it wrapped, once unwrapping is seen to give it back.
func newKEK(o Options) ([]byte, error) {
	if o.Wrap == nil || o.Unwrap == nil {
		return nil, errors.New("options Wrap or Unwrap are missing")
	}
	kek := make([]byte, 32)
	rand.Read(kek) // never fails (crypto/rand)
	wrapped, err := o.Wrap(append([]byte(nil), kek...))
	if err != nil {
		return nil, fmt.Errorf("wrap key-encryption key: %w", err)
	}
	back, err := o.Unwrap(append([]byte(nil), wrapped...))
	if err != nil {
		return nil, fmt.Errorf("unwrap key-encryption key: %w", err)
	}
	if string(back) != string(kek) {
		return nil, errors.New("wrap key-encryption key: unwrapping does not give it back")
	}
	return wrapped, nil
}

// create writes the file under another name, closes it (every transaction is synced) and links it to its own:
// link(2) does not overwrite, so that of two creators one fails.
func create(dir string, meta map[string][]byte) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	for _, n := range names {
		if n.Name() != creatingName {
			return fmt.Errorf("create journal %s: the folder is not empty (%s): %w; nothing is ever overwritten, choose another", dir, n.Name(), os.ErrExist)
		}
	}
	temporary := filepath.Join(dir, creatingName)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("create journal: %w", err)
	}
	if err := failpoint.Do(failpoint.FillJournal, func() error { return fill(temporary, meta) }); err != nil {
		return fmt.Errorf("create journal %s: %w", dir, err)
	}
	if err := failpoint.Do(failpoint.NameJournal, func() error { return publish(dir) }); err != nil {
		return fmt.Errorf("create journal: %w", err)
	}
	return nil
}

// publish gives the file its name for good and takes the temporary one away.
func publish(dir string) error {
	temporary := filepath.Join(dir, creatingName)
	if err := os.Link(temporary, filepath.Join(dir, fileName)); err != nil {
		return err
	}
	if err := os.Remove(temporary); err != nil {
		return err
	}
	return syncDir(dir)
}

func fill(path string, meta map[string][]byte) error {
	exclusive := func(name string, flag int, perm os.FileMode) (*os.File, error) {
		return os.OpenFile(name, flag|os.O_EXCL, perm)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType, OpenFile: exclusive})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range new(tables).all() {
			if _, err := tx.CreateBucket(b.name); err != nil {
				return fmt.Errorf("create bucket %s: %w", b.name, err)
			}
		}
		b := tx.Bucket(bucketMeta)
		for k, v := range meta {
			if err := b.Put([]byte(k), v); err != nil {
				return err
			}
		}
		return b.Put(metaFormat, binary.BigEndian.AppendUint32(nil, formatVersion))
	})
	return errors.Join(err, db.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open opens a journal; it refuses what is missing and, after a second, what is locked (ErrLocked).
// A missing journal wraps os.ErrNotExist.
func Open(dir string, o Options) (*Journal, error) {
	j, err := open(dir, roleLog, false)
	if err != nil {
		return nil, err
	}
	if err := j.takeKeys(o); err != nil {
		j.db.Close()
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	j.start()
	return j, nil
}

// OpenReplica opens a replica; only Follow writes to it. now (nil: time.Now) judges the age of checkpoints.
// A replica that has found its log forked is opened too, to be read: see Forked.
func OpenReplica(dir string, now func() time.Time) (*Journal, error) {
	j, err := open(dir, roleReplica, false)
	if err != nil {
		return nil, err
	}
	if now != nil {
		j.now = now
	}
	close(j.stopped) // no committer
	return j, nil
}

// OpenReadOnly opens a journal or replica that lies still, without keys: bodies stay sealed.
// While a process has it open for writing: ErrLocked.
func OpenReadOnly(dir string) (*Journal, error) {
	j, err := open(dir, "", true)
	if err != nil {
		return nil, err
	}
	close(j.stopped)
	return j, nil
}

// takeKeys gives an opened log its options.
func (j *Journal) takeKeys(o Options) (err error) {
	if o.Now != nil {
		j.now = o.Now
	}
	if j.cosigner, err = newCosigner(j.verifier.origin, o.CheckpointKey); err != nil {
		return err
	}
	if got, want := j.cosigner.String(), j.verifier.String(); got != want {
		return fmt.Errorf("the checkpoint key is not this journal's: it is %s, the journal's is %s: correct journal.dir or journal.checkpoint_key", got, want)
	}
	if o.Unwrap == nil {
		return errors.New("Unwrap is missing")
	}
	var wrapped []byte
	err = j.view(func(tx *bolt.Tx) error {
		wrapped = append(wrapped, tx.Bucket(bucketMeta).Get(metaKEK)...)
		return nil
	})
	if err != nil {
		return err
	}
	kek, err := o.Unwrap(wrapped)
	if err != nil {
		return fmt.Errorf("unwrap key-encryption key: %w", err)
	}
	j.sealer, err = newSealer(kek)
	return err
}

// open opens the file and reads its end; role "" takes either role.
func open(dir, role string, readOnly bool) (*Journal, error) {
	path := filepath.Join(dir, fileName)
	j := &Journal{dir: dir, readOnly: readOnly, now: time.Now, queue: make(chan *request, queueLength),
		stop: make(chan struct{}), stopped: make(chan struct{})}
	var err error
	if j.db, err = openFile(path, readOnly); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	if err := j.view(func(tx *bolt.Tx) error { return j.load(tx, role) }); err != nil {
		j.db.Close()
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	return j, nil
}

// openFile opens the bbolt file at path and never creates one (bbolt would take a missing or empty file for a new one).
func openFile(path string, readOnly bool) (db *bolt.DB, err error) {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("there is no journal (%w); the ceremony creates it", err)
		}
		return nil, err
	}
	if info.Size() == 0 {
		return nil, fmt.Errorf("%s is empty: it is damaged, restore it from a backup", fileName)
	}
	var file *os.File
	existing := func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag&^os.O_CREATE, perm)
		return file, err
	}
	err = guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType,
			InitialMmapSize: mapSize, OpenFile: existing, NoStatistics: true})
		return err
	})
	if err != nil && file != nil {
		// Where bbolt panicked it has neither unlocked nor closed; its mapping outlives both and would keep the lock.
		syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		file.Close()
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: stop that one first: a daemon, or a verification that runs", ErrLocked)
	}
	for _, is := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(err, is) {
			return nil, fmt.Errorf("%s is not a journal, or is damaged (%w): restore it from a backup", fileName, err)
		}
	}
	return db, err
}

// load reads meta and the end of the journal and checks that they fit each other.
func (j *Journal) load(tx *bolt.Tx, role string) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return errors.New("not a journal, or damaged (bucket meta is missing): restore it from a backup")
	}
	if err := checkFormat(meta.Get(metaFormat)); err != nil {
		return err
	}
	t, err := openTables(tx)
	if err != nil {
		return err
	}
	j.role = string(meta.Get(metaRole))
	switch {
	case j.role != roleLog && j.role != roleReplica:
		return fmt.Errorf("role is %.20q: the file is damaged", j.role)
	case role == roleLog && j.role == roleReplica:
		return errors.New("this is a replica, into which a responder follows: name the folder of the log itself")
	case role == roleReplica && j.role == roleLog:
		return errors.New("this is a log of its own, not a replica: a follower needs a folder of its own")
	}
	if j.verifier, err = parseVerifierKey(string(meta.Get(metaVerifier))); err != nil {
		return err
	}
	h, err := loadHead(t)
	if err != nil {
		return err
	}
	j.head.Store(h)
	j.loadFork(meta.Get(metaForked))
	return j.loadCheckpoint(t)
}

func checkFormat(value []byte) error {
	if len(value) != 4 {
		return errors.New("not a journal, or damaged (its format version is missing): restore it from a backup")
	}
	if v := binary.BigEndian.Uint32(value); v > formatVersion {
		return fmt.Errorf("format version %d is newer than %d, the newest that this software reads; update it", v, formatVersion)
	} else if v == 0 {
		return errors.New("format version 0: the file is damaged")
	}
	return nil
}

// loadHead reads the last leaf and the right edge of the tree.
func loadHead(t *tables) (*head, error) {
	h := new(head)
	k, v := t.leaves.Cursor().Last()
	if k == nil {
		return h, nil
	}
	if len(k) != 8 {
		return nil, errors.New("key of the last leaf is damaged")
	}
	size := binary.BigEndian.Uint64(k) + 1
	l, err := decodeLeaf(v)
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", size-1, err)
	}
	h.last = l.time
	if h.edge, err = loadEdge(t.hashes, size); err != nil {
		return nil, err
	}
	if stored, err := storedHash(t.hashes, 0, size-1); err != nil {
		return nil, err
	} else if stored != tlog.RecordHash(v) {
		return nil, fmt.Errorf("entry %d: the stored hash is not its leaf's", size-1)
	}
	return h, nil
}

// loadCheckpoint reads the stored checkpoint and holds it against the tree: a journal that its own signature
// contradicts is not opened.
func (j *Journal) loadCheckpoint(t *tables) error {
	text := t.meta.Get(metaCheckpoint)
	if text == nil {
		if j.role == roleLog {
			return errors.New("stored checkpoint is missing")
		}
		return nil
	}
	tree, err := j.verifier.verify(text)
	if err != nil {
		return fmt.Errorf("stored checkpoint: %w", err)
	}
	if size := j.Size(); tree.Size > size {
		return fmt.Errorf("stored checkpoint is over %d entries, the journal has %d: entries are missing", tree.Size, size)
	}
	e, err := loadEdge(t.hashes, tree.Size)
	if err != nil {
		return err
	}
	if e.root() != tree.Root {
		return fmt.Errorf("stored checkpoint over %d entries has another root than the journal", tree.Size)
	}
	j.checkpoint.Store(&checkpoint{text: append([]byte(nil), text...), tree: tree})
	j.stored.Store(tree.Size)
	return nil
}

// view runs f in a read transaction. What f reads must be copied before it returns.
func (j *Journal) view(f func(*bolt.Tx) error) error {
	err := guard(func() error { return j.db.View(f) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// update runs f in a write transaction: when it returns nil, what f wrote is durable.
func (j *Journal) update(f func(*bolt.Tx) error) error {
	err := guard(func() error { return j.db.Update(f) })
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// guard turns a damaged file into an error: bbolt panics on corrupt pages, and a page beyond the end of the file is a
// memory fault, which SetPanicOnFault makes a panic.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil { // its text is of bbolt's insides and helps nobody who reads the error
			err = fmt.Errorf("%s is damaged, a page of it cannot be read: restore it from a backup", fileName)
		}
	}()
	return f()
}
