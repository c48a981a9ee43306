package journal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// alteration is one change to the file of a journal, and where and how Verify names it.
type alteration struct {
	name   string
	tamper func(buckets) error
	entry  uint64
	says   string
	keys   bool // found only with the keys
}

// buckets opens a bucket of a journal by its name.
type buckets = func(string) *bolt.Bucket

// flipIn flips a bit of one value, at an offset from its start or, below zero, from its end.
func flipIn(bucket string, k []byte, at int) func(buckets) error {
	return func(b buckets) error {
		v := b(bucket).Get(k)
		if at < 0 {
			at += len(v)
		}
		return b(bucket).Put(k, flip(v, at))
	}
}

func remove(bucket string, k []byte) func(buckets) error {
	return func(b buckets) error { return b(bucket).Delete(k) }
}

func put(bucket string, k, v []byte) func(buckets) error {
	return func(b buckets) error { return b(bucket).Put(k, v) }
}

func swap(bucket string, x, y []byte) func(buckets) error {
	return func(b buckets) error {
		vx, vy := append([]byte(nil), b(bucket).Get(x)...), append([]byte(nil), b(bucket).Get(y)...)
		return errors.Join(b(bucket).Put(x, vy), b(bucket).Put(y, vx))
	}
}

// wholeJournal makes a journal with an entry of every kind and returns its folder and size.
func wholeJournal(t *testing.T, o journal.Options) (dir string, size uint64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "whole")
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	journaltest.Append(t, j, allEvents()...) // 0..10: 2 intends 01 01, 3 issues, 4 intends 01 02, 5 abandons, 6 revokes, 7 8 CRL, 9 time-stamp, 11 12 key destroyed
	openIntent, _ := journaltest.Intent(journal.IssuerID{7}, "\x01\x03")
	journaltest.Append(t, j, openIntent) // 13
	journaltest.Issue(t, j, journal.IssuerID{7}, "\x01\x04")
	if err := journal.StoreCheckpoint(j); err != nil {
		t.Fatal(err)
	}
	size = j.Size()
	j.Close()
	return dir, size
}

// found alters a copy of the journal and wants the fault named.
func (c alteration) found(t *testing.T, whole string, o journal.Options) {
	dir := filepath.Join(t.TempDir(), "journal")
	if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "journal.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := journal.Tamper(dir, c.tamper); err != nil {
		t.Fatal(err)
	}
	var j *journal.Journal
	var err error
	if c.keys {
		j, err = journal.Open(dir, o)
	} else {
		j, err = journal.OpenReadOnly(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	report, err := j.Verify(background)
	if err != nil || report.OK || len(report.Faults) == 0 {
		t.Fatalf("Verify = %+v, %v", report, err)
	}
	for _, f := range report.Faults {
		if f.Entry == c.entry && strings.Contains(f.Fault, c.says) {
			return
		}
	}
	t.Errorf("faults %+v, want one at %d about %q", report.Faults, c.entry, c.says)
}

// TestVerifyFinds: each alteration of the file is found, and named with its entry.
func TestVerifyFinds(t *testing.T) {
	o := journaltest.Options(t, nil)
	whole, size := wholeJournal(t, o)
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	issuer := (&journal.IssuerID{7})[:]
	serial1, serial2, serial3, serial4 := []byte("\x01\x01"), []byte("\x01\x02"), []byte("\x01\x03"), []byte("\x01\x04")
	revoked1 := append(issuer[:32:32], serial1...)
	for _, c := range []alteration{
		{"byte of a leaf", flipIn("leaves", key(4), 80), 4, "hash", false},
		{"time of a leaf", flipIn("leaves", key(2), 9), 2, "hash", false},
		{"version of a leaf", flipIn("leaves", key(3), 0), 3, "hash", false},
		{"leaf removed", remove("leaves", key(5)), 5, "missing", false},
		{"leaf and hash removed", func(b buckets) error {
			return errors.Join(b("leaves").Delete(key(5)), b("hashes").Delete(key(5)))
		}, 5, "missing", false},
		{"two leaves swapped", swap("leaves", key(2), key(4)), 2, "hash", false},
		{"key-encryption key removed", remove("meta", []byte("kek")), size, "key-encryption key", false},
		{"hash of a leaf", flipIn("hashes", key(6), 3), 6, "hash", false},
		{"hash of a subtree", flipIn("hashes", key(7), 3+32), 7, "stored hash", false},
		{"hashes cut", put("hashes", key(6), nil), 6, "octets of hashes", false},
		{"sealed body", flipIn("bodies", key(3), -1), 3, "altered", true},
		{"body removed", remove("bodies", key(3)), 3, "body is missing", false},
		{"key removed", remove("keys", key(3)), 3, "key is missing", false},
		{"key altered", flipIn("keys", key(3), 20), 3, "wrapped key", true},
		{"bodies swapped", swap("bodies", key(2), key(4)), 2, "does not open", true},
		{"bodies and keys swapped", func(b buckets) error {
			return errors.Join(swap("bodies", key(2), key(4))(b), swap("keys", key(2), key(4))(b))
		}, 2, "another entry", true},
		{"body where none belongs", put("bodies", key(0), []byte("x")), 0, "none belongs", false},
		{"key beyond the end", put("keys", key(size+3), []byte("x")), size, "beyond", false},
		{"status", flipIn("certificates", serial1, 0), 2, "01", false},
		{"issuer", flipIn("certificates", serial4, 5), 14, "other than the entries", false},
		{"notAfter", flipIn("certificates", serial2, 1+32+1+5+15), 4, "other than the entries", false},
		{"revoked made good", func(b buckets) error {
			good := append([]byte(nil), b("certificates").Get(serial4)...)
			return errors.Join(b("certificates").Put(serial1, good), b("revoked").Delete(revoked1))
		}, 2, "0101", false},
		{"revoked no longer listed", remove("revoked", revoked1), 2, "revoked", false},
		{"listed as revoked", put("revoked", append(issuer[:32:32], serial4...), []byte("x")), 14, "no entry revokes", false},
		{"stray on the list", put("revoked", append(issuer[:32:32], 9), []byte("x")), size, "revoked certificates", false},
		{"certificate forgotten", remove("certificates", serial4), 14, "no certificate", false},
		{"certificate made up", func(b buckets) error {
			return b("certificates").Put([]byte{9}, append([]byte(nil), b("certificates").Get(serial4)...))
		}, size, "certificates", false},
		{"open intent forgotten", remove("intents", serial3), 13, "open intents", false},
		{"open intent made up", put("intents", serial4, nil), 14, "open intents", false},
		{"CRL number", flipIn("crls", append(issuer[:32:32], key(1)...), 7), 7, "CRL", false},
		{"CRL number made up", put("crls", append(issuer[:32:32], key(9)...), make([]byte, 16)), size, "CRL numbers", false},
		{"time-stamp", flipIn("timestamps", []byte{5}, 7), 9, "time-stamp", false},
		{"intended destruction forgotten", remove("duties", key(11)), 11, "does not have this intent", false},
		{"destruction open again", put("duties", key(11), key(0)), 12, "closed by another entry or none", false},
		{"destruction closed by another", put("duties", key(11), key(13)), 11, "closed by entry 13, which does not", false},
		{"intended destruction made up", put("duties", key(3), key(0)), size, "intended destructions", false},
		{"time-stamp made up", put("timestamps", []byte{6}, key(9)), size, "time-stamps", false},
	} {
		t.Run(c.name, func(t *testing.T) { c.found(t, whole, o) })
	}
}

// TestVerifyFindsKeyBit: a flipped bit in the key of a leaf leaves the leaf in its place, but under another key.
func TestVerifyFindsKeyBit(t *testing.T) {
	o := journaltest.Options(t, nil)
	dir, _ := wholeJournal(t, o)
	j, err := journal.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := j.Entry(5)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	path := filepath.Join(dir, "journal.db")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := append(binary.BigEndian.AppendUint64(nil, 5), entry.Leaf...) // a page holds a key and its value side by side
	if !bytes.Contains(raw, at) {
		t.Fatal("the leaf is not where it was looked for")
	}
	wrong := append(binary.BigEndian.AppendUint64(nil, 4), entry.Leaf...)
	if err := os.WriteFile(path, bytes.ReplaceAll(raw, at, wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.OpenReadOnly(dir); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	report, err := j.Verify(background)
	named := slices.ContainsFunc(report.Faults, func(f journal.Fault) bool {
		return f.Entry == 5 && strings.Contains(f.Fault, "key of entry 4")
	})
	if err != nil || report.OK || !named {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// TestOneFaultForOneByte: an altered leaf does not drown in the subtrees above it.
func TestOneFaultForOneByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	o := journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j, issuerA, 100)
	if err := journal.StoreCheckpoint(j); err != nil {
		t.Fatal(err)
	}
	j.Close()
	k := binary.BigEndian.AppendUint64(nil, 77)
	if err := journal.Tamper(dir, func(b func(string) *bolt.Bucket) error {
		return b("hashes").Put(k, flip(b("hashes").Get(k), 0))
	}); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.OpenReadOnly(dir); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if report, err := j.Verify(background); err != nil || len(report.Faults) != 1 || report.Faults[0].Entry != 77 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// TestReport: the JSON is the contract's, with an empty list where there are no faults.
func TestReport(t *testing.T) {
	j := journaltest.New(t)
	report, err := j.Verify(background)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(report)
	empty := sha256.Sum256(nil)
	if want := `{"ok":true,"entries":0,"certificates":0,"root":"` + hex.EncodeToString(empty[:]) + `","faults":[],"signed_entries":0,"sealed_bodies":0,"open_key_duties":0,"origin":"` +
		journaltest.Origin + `","journal_key":"` + j.VerifierKey() + `"}`; err != nil || string(text) != want {
		t.Errorf("report %s, %v; want %s", text, err, want)
	}
}

// TestTailCut: a log or replica that has less than its stored checkpoint covers is not opened.
func TestTailCut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	o := journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	journaltest.Append(t, j, journal.ClockChanged{}, journal.ClockChanged{})
	if err := journal.StoreCheckpoint(j); err != nil {
		t.Fatal(err)
	}
	j.Close()
	k := binary.BigEndian.AppendUint64(nil, 1)
	if err := journal.Tamper(dir, func(b func(string) *bolt.Bucket) error {
		return errors.Join(b("leaves").Delete(k), b("hashes").Delete(k))
	}); err != nil {
		t.Fatal(err)
	}
	if j, err := journal.Open(dir, o); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("opened: %v", err)
		j.Close()
	}
}

// TestVerifyWhileAppending: a journal at work verifies.
func TestVerifyWhileAppending(t *testing.T) {
	j := journaltest.New(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		fill(t, j, issuerA, 1500)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if report, err := j.Verify(background); err != nil || !report.OK {
			t.Fatalf("Verify = %+v, %v", report, err)
		}
	}
}

// TestEdge: our appending gives tlog's hashes and roots at every size, also after being read back.
func TestEdge(t *testing.T) {
	j := journaltest.New(t)
	var edge journal.Edge
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			out[i] = stored[index]
		}
		return out, nil
	})
	for n := range int64(300) {
		leaf := binary.BigEndian.AppendUint64(nil, uint64(n))
		hashes, err := tlog.StoredHashes(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		var want []byte
		for _, h := range hashes {
			want = append(want, h[:]...)
		}
		if got := edge.Add(tlog.RecordHash(leaf)); string(got) != string(want) {
			t.Fatalf("leaf %d: stored hashes differ", n)
		}
		root, err := tlog.TreeHash(n+1, reader)
		if err != nil || edge.Root() != root {
			t.Fatalf("size %d: root differs", n+1)
		}
		if err := journal.CheckEdge(j, &edge, leaf); err != nil {
			t.Fatalf("size %d: %v", n+1, err)
		}
	}
}

// TestVerifyAgainst: what was kept elsewhere shows a journal that is whole in itself to be another, or an old one.
func TestVerifyAgainst(t *testing.T) {
	o := journaltest.Options(t, nil)
	j, dir := openNew(t, o)
	journaltest.Issue(t, j, issuerA, "\x01")
	early, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	vkey := j.VerifierKey()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	old := killed(t, dir)
	if j, err = journal.Open(dir, o); err != nil {
		t.Fatal(err)
	}
	journaltest.Revoke(t, j, issuerA, "\x01", journal.KeyCompromise)
	late, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again, anew := openNew(t, o) // the same key signs another history
	journaltest.Issue(t, again, issuerA, "\x02")
	journaltest.Revoke(t, again, issuerA, "\x02", journal.KeyCompromise)
	otherwise, err := again.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	other, strange := openNew(t, journaltest.Options(t, nil)) // another key
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dir  string
		kept journal.Kept
		says string // "": no fault
	}{
		{"nothing kept", dir, journal.Kept{}, ""},
		{"its key and checkpoints", dir, journal.Kept{JournalKey: vkey, Checkpoint: late}, ""},
		{"an early checkpoint", dir, journal.Kept{JournalKey: vkey, Checkpoint: early}, ""},
		{"an early checkpoint alone", dir, journal.Kept{Checkpoint: early}, ""},
		{"another's key", strange, journal.Kept{JournalKey: vkey}, "another's"},
		{"another's key and checkpoint", strange, journal.Kept{Checkpoint: early}, "kept elsewhere: verify checkpoint"},
		{"rolled back", old, journal.Kept{JournalKey: vkey, Checkpoint: late}, "covers 3 entries, there are 2"},
		{"rolled back no further", old, journal.Kept{JournalKey: vkey, Checkpoint: early}, ""},
		{"made anew", anew, journal.Kept{JournalKey: vkey, Checkpoint: late}, "another root"},
		{"made anew, seen early", anew, journal.Kept{JournalKey: vkey, Checkpoint: early}, "another root"},
		{"checkpoint of the new one", dir, journal.Kept{JournalKey: vkey, Checkpoint: otherwise}, "another root"},
		{"no checkpoint", dir, journal.Kept{Checkpoint: []byte("x")}, "kept elsewhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, err := journal.OpenReadOnly(c.dir)
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			report, err := j.VerifyAgainst(background, c.kept)
			if err != nil || report.OK != (c.says == "") {
				t.Fatalf("report %+v, %v", report, err)
			}
			if c.kept.JournalKey != "" && report.JournalKey != vkey || report.Origin != journaltest.Origin {
				t.Errorf("verified under %s of %s", report.JournalKey, report.Origin)
			}
			if c.says != "" && !strings.Contains(report.Faults[len(report.Faults)-1].Fault+report.Faults[0].Fault, c.says) {
				t.Errorf("faults %+v, want one about %q", report.Faults, c.says)
			}
		})
	}
	j, err = journal.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if report, err := j.VerifyAgainst(background, journal.Kept{JournalKey: "x"}); err == nil {
		t.Errorf("a key that is none: %+v", report)
	}
}
