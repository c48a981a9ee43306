package journal_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

func TestKeyActs(t *testing.T) {
	for a := journal.KeyGenerated; a <= journal.KeyTransferred; a++ {
		if got, err := journal.ParseKeyAct(a.String()); err != nil || got != a {
			t.Errorf("%s is read as %s, %v", a, got, err)
		}
	}
	for _, name := range []string{"", "act 12", "Destroyed"} {
		if a, err := journal.ParseKeyAct(name); err == nil {
			t.Errorf("%q is read as %s", name, a)
		}
	}
	if s := journal.KeyAct(12).String(); s != "act 12" {
		t.Error(s)
	}
}

// A destruction without an outcome is counted, not a fault; a file that was made before there were any has none.
func TestOpenKeyDuties(t *testing.T) {
	dir, o := filepath.Join(t.TempDir(), "journal"), journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i, c := range []struct {
		event journal.Event
		open  uint64
	}{
		{stamp(1, "\x01"), 0}, {destroying(1), 1}, {destroying(2), 2}, {destroyed(1, 1), 1}, {destroyed(3, 0), 1}, {notDestroyed(2, 2), 0}, {destroying(2), 1},
	} {
		journaltest.Append(t, j, c.event)
		report, err := j.Verify(background)
		if err != nil || !report.OK || report.OpenKeyDuties != c.open {
			t.Errorf("after entry %d: %+v, %v; want %d open", i, report, err, c.open)
		}
		if i == 0 {
			has := false
			if err := journal.TamperOpen(j, func(b func(string) *bolt.Bucket) error { has = b("duties") != nil; return nil }); err != nil || has {
				t.Errorf("the bucket is there before the first intent (%v)", err)
			}
		}
	}
}

// TestReplicaOfDuties: a responder follows through key duties.
func TestReplicaOfDuties(t *testing.T) {
	log := journaltest.New(t)
	entries := journaltest.Append(t, log, stamp(1, "\x01"), destroying(1), destroyed(1, 1), destroying(2))
	r := journaltest.NewReplica(t, log, nil)
	journaltest.CatchUp(t, r, log)
	if r.Size() != 4 {
		t.Fatalf("the replica has %d entries", r.Size())
	}
	mine, err := r.Verify(background)
	if err != nil || !mine.OK || mine.OpenKeyDuties != 1 {
		t.Errorf("the replica: %+v, %v", mine, err)
	}
	for i, want := range entries {
		if got, err := r.Entry(uint64(i)); err != nil || cmp.Diff(want.Leaf, got.Leaf) != "" {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

// An act that is not known yet is newer software's, which a replica waits for, and not a fault.
func TestNewerKeyAct(t *testing.T) {
	leaf := journaltest.Append(t, journaltest.New(t), duty(journal.KeyGenerated, 1, 0))[0].Leaf
	for act, want := range map[byte]string{0: "the act is missing", byte(journal.KeyTransferred) + 1: "newer software", 0xff: "newer software"} {
		b := bytes.Clone(leaf)
		b[2+8+1+32+16] = act
		if _, err := journal.Reencode(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("act %d: %v, want %q", act, err, want)
		}
	}
}
