package journal_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// forkedReplica makes a replica of a log that is then made anew with the same keys and follows it into its ErrFork. change, if
// not nil, is done to the replica while the feed answers. The replica is closed.
func forkedReplica(t *testing.T, change func(*journal.Journal) error) (dir, vkey string) {
	t.Helper()
	now := at
	o := journaltest.Options(t, func() time.Time { return now })
	open := func(serial journal.Serial) *journal.Journal {
		dir := filepath.Join(t.TempDir(), "journal")
		if err := journal.Create(dir, journaltest.Origin, o); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		journaltest.Append(t, j, intend(issuerA, serial))
		return j
	}
	log := open("\x01")
	dir = filepath.Join(t.TempDir(), "replica")
	if err := journal.CreateReplica(dir, log.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	replica, err := journal.OpenReplica(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	journaltest.CatchUp(t, replica, log)
	if err := replica.Forked(); err != nil {
		t.Fatalf("forked before the log was: %v", err)
	}
	now = now.Add(10 * time.Second)
	err = followTampered(t, replica, open("\x02"), func(b []byte) []byte {
		if change != nil {
			if err := change(replica); err != nil {
				t.Error(err)
			}
		}
		return b
	})
	if !errors.Is(err, journal.ErrFork) || !errors.Is(replica.Forked(), journal.ErrFork) {
		t.Fatalf("followed: %v; forked: %v", err, replica.Forked())
	}
	if stored := !strings.Contains(err.Error(), "cannot be stored"); stored != (change == nil) {
		t.Errorf("followed: %v", err)
	}
	return dir, log.VerifierKey()
}

// TestForkRemembered: what a replica has found out about its log, it knows after a restart too, with the evidence; it is
// followed no more, and a verification says so.
func TestForkRemembered(t *testing.T) {
	dir, vkey := forkedReplica(t, nil)
	replica, err := journal.OpenReplica(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var fork *journal.Fork
	if err := replica.Forked(); !errors.As(err, &fork) || !errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "two roots at 1 entries") {
		t.Fatalf("forked: %v", err)
	}
	if !fork.Found.Equal(at.Add(10 * time.Second)) {
		t.Errorf("found at %s", fork.Found)
	}
	signed, err := journal.VerifyCheckpoint(fork.Checkpoint, vkey)
	if held, heldErr := replica.Verified(); err != nil || heldErr != nil || signed.Size != held.Size || signed.Root == held.Root {
		t.Errorf("the evidence is %+v, %v; held against %+v, %v", signed, err, held, heldErr)
	}
	none := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		t.Error("the feed was asked")
		return nil, errors.New("away")
	})}
	if err := journal.Follow(background, replica, journaltest.FeedURL, none, nil); !errors.Is(err, journal.ErrFork) {
		t.Errorf("followed again: %v", err)
	}
	replica.Close()

	still, err := journal.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer still.Close()
	report, err := still.Verify(background)
	if err != nil || report.OK || len(report.Faults) != 1 || report.Faults[0].Entry != 1 || !strings.Contains(report.Faults[0].Fault, "contradicts") {
		t.Errorf("report %+v, %v", report, err)
	}
}

// TestForkDamaged: a mark that cannot be read is a mark.
func TestForkDamaged(t *testing.T) {
	for _, value := range [][]byte{{}, []byte("x"), make([]byte, 12), make([]byte, 13)} {
		dir, _ := forkedReplica(t, nil)
		if err := journal.Tamper(dir, func(b func(string) *bolt.Bucket) error { return b("meta").Put([]byte("forked"), value) }); err != nil {
			t.Fatal(err)
		}
		replica, err := journal.OpenReplica(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := replica.Forked(); !errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%x: forked: %v", value, err)
		}
		replica.Close()
	}
}

// TestForkNotStored: where the mark cannot be written the fork is told all the same, and that a restart forgets it.
func TestForkNotStored(t *testing.T) { forkedReplica(t, (*journal.Journal).Close) }

func TestCheckVerifierKey(t *testing.T) {
	vkey := journaltest.New(t).VerifierKey()
	if err := journal.CheckVerifierKey(vkey); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "zegel.test/ca", vkey + "=", vkey[1:], strings.Replace(vkey, "+", "+0", 1)} {
		if err := journal.CheckVerifierKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
