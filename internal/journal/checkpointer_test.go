package journal_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// openNew makes and opens a journal that the test closes by itself.
func openNew(t *testing.T, o journal.Options) (j *journal.Journal, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "journal")
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return j, dir
}

// killed copies the file of an open journal as a crash would leave it.
func killed(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// rewrite changes leaves and derives the tree anew, as whoever can write the file could.
func rewrite(t *testing.T, dir string, change func(leaf []byte)) {
	t.Helper()
	if err := journal.Tamper(dir, func(b func(string) *bolt.Bucket) error {
		var e journal.Edge
		for i := range uint64(b("leaves").Stats().KeyN) {
			k := binary.BigEndian.AppendUint64(nil, i)
			leaf := bytes.Clone(b("leaves").Get(k))
			change(leaf)
			if err := errors.Join(b("leaves").Put(k, leaf), b("hashes").Put(k, e.Add(tlog.RecordHash(leaf)))); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestCloseSigns: all that a closed journal holds lies under a signature, though nobody ran Run; so an end that was cut off, or
// changed with the tree around it, is found without any key.
func TestCloseSigns(t *testing.T) {
	o := journaltest.Options(t, nil)
	j, dir := openNew(t, o)
	journaltest.Issue(t, j, issuerA, "\x01")
	journaltest.Revoke(t, j, issuerA, "\x01", journal.KeyCompromise)
	if report, err := j.Verify(background); err != nil || !report.OK || report.SignedEntries != 0 {
		t.Errorf("open: %+v, %v", report, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := verifyStill(dir); err != nil || !report.OK || report.SignedEntries != 3 {
		t.Errorf("closed: %+v, %v", report, err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	if j, err = journal.Open(dir, o); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "journal.db")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("opened and closed without an entry, the file has changed; %v", err)
	}

	cut := killed(t, dir)
	if err := journal.Tamper(cut, func(b func(string) *bolt.Bucket) error {
		k := binary.BigEndian.AppendUint64(nil, 2)
		return errors.Join(b("leaves").Delete(k), b("hashes").Delete(k))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := verifyStill(cut); err == nil || !strings.Contains(err.Error(), "entries are missing") {
		t.Errorf("with its end cut off: %v", err)
	}
	rewrite(t, dir, func(leaf []byte) { leaf[len(leaf)-1] ^= 1 })
	if _, err := verifyStill(dir); err == nil || !strings.Contains(err.Error(), "another root") {
		t.Errorf("rewritten: %v", err)
	}
}

// TestAfterCrash: entries beyond the stored checkpoint are no fault, but the report tells how many are signed; and what was changed
// in their leaves is found with the keys, because no body opens under another leaf than its own.
func TestAfterCrash(t *testing.T) {
	o := journaltest.Options(t, nil)
	j, dir := openNew(t, o)
	defer j.Close()
	journaltest.Issue(t, j, issuerA, "\x01")
	if err := journal.StoreCheckpoint(j); err != nil {
		t.Fatal(err)
	}
	journaltest.Issue(t, j, issuerA, "\x02")
	dir = killed(t, dir)
	if report, err := verifyStill(dir); err != nil || !report.OK || report.Entries != 4 || report.SignedEntries != 2 {
		t.Errorf("after a crash: %+v, %v", report, err)
	}
	n := 0
	rewrite(t, dir, func(leaf []byte) {
		if n++; n == 3 { // the second intent: another officer
			copy(leaf[10+33:], bytes.Repeat([]byte{0xee}, 16))
		}
	})
	if report, err := verifyStill(dir); err != nil || !report.OK || report.SignedEntries != 2 {
		t.Errorf("rewritten beyond the checkpoint, without keys: %+v, %v", report, err)
	}
	forged, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer forged.Close()
	report, err := forged.Verify(background)
	if err != nil || len(report.Faults) != 1 || report.Faults[0].Entry != 2 || !strings.Contains(report.Faults[0].Fault, "the leaf was altered") {
		t.Errorf("rewritten beyond the checkpoint, with keys: %+v, %v", report, err)
	}
}

// stubbornKey is a checkpoint key that can be told to refuse, or to wait.
type stubbornKey struct {
	ed25519.PrivateKey
	refuses atomic.Pointer[error]
	waits   atomic.Pointer[chan struct{}]
}

func (k *stubbornKey) Sign(r io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if c := k.waits.Load(); c != nil {
		<-*c
	}
	if err := k.refuses.Load(); err != nil {
		return nil, *err
	}
	return k.PrivateKey.Sign(r, message, opts)
}

func stubborn(t *testing.T, now func() time.Time) (journal.Options, *stubbornKey) {
	o := journaltest.Options(t, now)
	key := &stubbornKey{PrivateKey: o.CheckpointKey.(ed25519.PrivateKey)}
	o.CheckpointKey = key
	return o, key
}

// TestCloseCannotSign: an end left under no signature is told, and nothing is lost by it.
func TestCloseCannotSign(t *testing.T) {
	now := at
	for name, trouble := range map[string]struct {
		make func(*journal.Journal, *stubbornKey)
		says string
	}{
		"key":   {func(_ *journal.Journal, k *stubbornKey) { err := errors.New("token removed"); k.refuses.Store(&err) }, "token removed"},
		"clock": {func(*journal.Journal, *stubbornKey) { now = at.Add(-time.Second) }, "clock"},
		"disk": {func(j *journal.Journal, _ *stubbornKey) {
			if err := journal.FailCommits(j); err != nil {
				t.Error(err)
			}
			for range 100 { // until the file would have to grow
				event := with(intend(issuerA, "\x02").(journal.CertificateIntended), func(e *journal.CertificateIntended) { e.Evidence = make([]byte, 1<<20) })
				if _, err := j.Append(background, event); errors.Is(err, journal.ErrFailed) {
					return
				}
			}
			t.Error("commits do not fail")
		}, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			now = at
			o, key := stubborn(t, func() time.Time { return now })
			j, dir := openNew(t, o)
			journaltest.Issue(t, j, issuerA, "\x01")
			trouble.make(j, key)
			err := j.Close()
			if err == nil || !strings.Contains(err.Error(), "the last 2 of 2 entries lie under no signature") || !strings.Contains(err.Error(), trouble.says) {
				t.Errorf("Close: %v", err)
			}
			if again := j.Close(); again != err {
				t.Errorf("second Close: %v", again)
			}
			if report, err := verifyStill(dir); err != nil || !report.OK || report.Entries != 2 || report.SignedEntries != 0 {
				t.Errorf("closed: %+v, %v", report, err)
			}
		})
	}
}

// TestCheckpointTrouble: a key that refuses, and one that does not answer, are told once 15 seconds have passed without a
// checkpoint, and no longer once there is one; the feed says why it gives nothing.
func TestCheckpointTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, key := stubborn(t, nil)
		j, _ := openNew(t, o)
		defer j.Close()
		says := func(want string) {
			t.Helper()
			switch err := j.CheckpointTrouble(); {
			case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("trouble %v, want %q", err, want)
			}
		}
		time.Sleep(time.Hour)
		says("") // nobody runs Run yet
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- j.Run(ctx, 5*time.Second) }()
		time.Sleep(time.Minute)
		says("")

		err := errors.New("token removed")
		key.refuses.Store(&err)
		time.Sleep(9 * time.Second)
		says("")
		time.Sleep(46 * time.Second)
		says("token removed")
		w := httptest.NewRecorder()
		j.FeedHandler().ServeHTTP(w, httptest.NewRequest("GET", "/?after=0", nil))
		if w.Code != 503 || !strings.Contains(w.Body.String(), "token removed") {
			t.Errorf("the feed answers %d: %s", w.Code, w.Body)
		}
		key.refuses.Store(nil)
		time.Sleep(6 * time.Second)
		says("")

		wait := make(chan struct{})
		key.waits.Store(&wait)
		time.Sleep(time.Minute)
		says("does not answer")
		key.waits.Store(nil)
		close(wait)
		time.Sleep(6 * time.Second)
		says("")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		says("") // nobody runs Run any more
	})
	replica := journaltest.NewReplica(t, journaltest.New(t), nil)
	if err := replica.CheckpointTrouble(); err != nil {
		t.Errorf("a replica: %v", err)
	}
}

// TestCheckpointBesideCommit: a checkpoint that lacks an entry is not later than it, however long the disk takes: a status as of the
// checkpoint would be wrong.
func TestCheckpointBesideCommit(t *testing.T) {
	var clock atomic.Int64 // Unix seconds
	var asked atomic.Int64
	clock.Store(1_800_000_000)
	j, _ := openNew(t, journaltest.Options(t, func() time.Time {
		asked.Add(1)
		return time.Unix(clock.Load(), 0)
	}))
	defer j.Close()
	journaltest.Issue(t, j, issuerA, "\x01")

	release, err := journal.HoldCommits(j)
	if err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	revoked := make(chan journal.Entry, 1)
	go func() { revoked <- journaltest.Append(t, j, revoke(issuerA, "\x01"))[0] }()
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	clock.Add(10)
	without := checkpointOf(t, j)
	if err := release(); err != nil {
		t.Fatal(err)
	}
	entry := <-revoked
	if without.Size != entry.Index || without.Time.After(entry.Time) {
		t.Errorf("a checkpoint of %v over %d entries lacks entry %d of %v", without.Time, without.Size, entry.Index, entry.Time)
	}
	if with := checkpointOf(t, j); with.Size != entry.Index+1 || with.Time.Unix() != clock.Load() {
		t.Errorf("afterwards: %+v", with)
	}
}

// TestCheckpointBesideFailedCommit: what a commit that failed has left on the disk nobody knows. Whoever waits for a checkpoint meanwhile
// gets none: it could be later than an entry that it lacks, and that is there after the restart.
func TestCheckpointBesideFailedCommit(t *testing.T) {
	o, key := stubborn(t, nil)
	j, _ := openNew(t, o)
	defer j.Close()
	if err := journal.FailCommits(j); err != nil {
		t.Fatal(err)
	}
	journaltest.Issue(t, j, issuerA, "\x01")
	signs := make(chan struct{})
	key.waits.Store(&signs)
	results := make(chan error, 2)
	for range 2 { // one signs, the other waits for it; neither has seen a failure
		go func() {
			_, err := j.Checkpoint()
			results <- err
		}()
		time.Sleep(20 * time.Millisecond)
	}
	var failed error
	for n := 0; failed == nil && n < 10_000; n++ { // until the file would have to grow
		intended, _ := journaltest.Intent(issuerA, manySerial(uint64(n)))
		_, failed = j.Append(background, intended)
	}
	if !errors.Is(failed, journal.ErrFailed) {
		t.Fatalf("append: %v", failed)
	}
	close(signs)
	first, second := <-results, <-results
	if first != nil && second != nil || !errors.Is(errors.Join(first, second), journal.ErrFailed) {
		t.Errorf("the checkpoint that was being signed, and the one after the failure: %v, %v", first, second)
	}
}

func checkpointOf(t *testing.T, j *journal.Journal) journal.Tree {
	t.Helper()
	text, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := journal.VerifyCheckpoint(text, j.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
