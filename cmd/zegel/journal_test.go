package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// stillJournal makes a journal that lies still, and returns a checkpoint taken while there was one entry of its two.
func stillJournal(t *testing.T) (dir, vkey, checkpoint string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "journal")
	o := journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	journaltest.Append(t, j, journal.ClockChanged{})
	text, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	journaltest.Append(t, j, journal.ClockChanged{Vouched: true})
	checkpoint = filepath.Join(t.TempDir(), "kept.txt")
	if err := os.WriteFile(checkpoint, text, 0o600); err != nil {
		t.Fatal(err)
	}
	vkey = j.VerifierKey()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, vkey, checkpoint
}

// TestJournalVerify: a journal that lies still is held against what was kept elsewhere.
func TestJournalVerify(t *testing.T) {
	dir, vkey, checkpoint := stillJournal(t)
	otherDir, otherKey, otherCheckpoint := stillJournal(t)
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	var report desk.Report
	if err := json.Unmarshal([]byte(zegel(t, 0, "journal", "verify", "--dir", dir, "--json")), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || report.Entries != 2 || report.SignedEntries != 2 || report.Origin != journaltest.Origin || report.JournalKey != vkey {
		t.Errorf("report %+v", report)
	}
	for _, c := range []struct {
		status int
		args   []string
	}{
		{0, []string{"--dir", dir}},
		{0, []string{"--dir", dir, "--journal-key", vkey, "--checkpoint", checkpoint}},
		{0, []string{"--dir", dir, "--checkpoint", checkpoint}},
		{1, []string{"--dir", dir, "--journal-key", otherKey}},
		{1, []string{"--dir", otherDir, "--journal-key", vkey, "--checkpoint", checkpoint}},
		{1, []string{"--dir", dir, "--checkpoint", otherCheckpoint}},
		{2, []string{"--dir", dir, "--checkpoint", garbage}},
		{1, []string{"--dir", filepath.Join(dir, "nowhere")}},
		{2, []string{"--dir", dir, "--journal-key", vkey[1:]}},
		{2, []string{"--dir", dir, "--checkpoint", "nowhere"}},
		{2, []string{"--checkpoint", checkpoint}},
	} {
		zegel(t, c.status, append([]string{"journal", "verify"}, c.args...)...)
	}
}

// TestJournalVerifyCrashed: entries under no signature are told apart, and are no fault.
func TestJournalVerifyCrashed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := journaltest.NewWith(t, journaltest.Config{Dir: dir})
	if _, err := j.Append(context.Background(), journal.ClockChanged{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	crashed := t.TempDir()
	if err := os.WriteFile(filepath.Join(crashed, "journal.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	var report desk.Report
	if err := json.Unmarshal([]byte(zegel(t, 0, "journal", "verify", "--dir", crashed, "--json")), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || report.Entries != 1 || report.SignedEntries != 0 {
		t.Errorf("report %+v", report)
	}
}
