package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// clockedLog makes a log that o's clock stamps; two of the same o are signed by the same key.
func clockedLog(t *testing.T, o journal.Options) *journal.Journal {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "journal")
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// answer is what log's feed answers to a query.
func answer(t *testing.T, log *journal.Journal, query string) []byte {
	t.Helper()
	response, err := journaltest.Client(log).Get(journaltest.FeedURL + "?" + query)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("feed answers %s, %v: %s", response.Status, err, body)
	}
	return body
}

// TestReplayedInTheSameSecond: a log signs more than one size in a second, so a smaller tree of the same second is old, not forked.
func TestReplayedInTheSameSecond(t *testing.T) {
	now := at
	o := journaltest.Options(t, func() time.Time { return now })
	log := clockedLog(t, o)
	replica := journaltest.NewReplica(t, log, func() time.Time { return now })
	journaltest.Append(t, log, intend(issuerA, "\x01"))
	old := answer(t, log, "after=0")
	journaltest.Append(t, log, intend(issuerA, "\x02"))
	journaltest.CatchUp(t, replica, log)
	replay := func([]byte) []byte {
		return changed(t, old, func(c *journal.Chunk) { c.After, c.Leaves = replica.Size(), nil })
	}
	if err := followTampered(t, replica, log, replay); errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "replayed") {
		t.Errorf("error %v, want one about a replay and no fork", err)
	}
	now = now.Add(time.Minute)
	if err := followTampered(t, replica, log, replay); errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "replayed") {
		t.Errorf("later: error %v, want one about a replay and no fork", err)
	}
	journaltest.CatchUp(t, replica, log)
}

// TestRolledBack: a log that was restored from an old copy, and signs that, contradicts what it signed before.
func TestRolledBack(t *testing.T) {
	now := at
	o := journaltest.Options(t, func() time.Time { return now })
	log, restored := clockedLog(t, o), clockedLog(t, o)
	journaltest.Append(t, log, journal.ClockChanged{}, journal.ClockChanged{}) // without bodies: the same leaves in both
	journaltest.Append(t, restored, journal.ClockChanged{})
	replica := journaltest.NewReplica(t, log, func() time.Time { return now })
	journaltest.CatchUp(t, replica, log)
	now = now.Add(time.Second)
	if err := followTampered(t, replica, restored, func(b []byte) []byte { return b }); !errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "it had 2") {
		t.Errorf("error %v", err)
	}
}

// TestForkWhileBehind: a checkpoint that was signed and seen, and not reached yet, is held against the tree as soon as it is:
// also after a restart, and with others seen since.
func TestForkWhileBehind(t *testing.T) {
	for _, c := range []struct {
		name    string
		restart bool
		then    []int // how many leaves of the other log come in each answer that follows
	}{
		{"in one answer", false, []int{30}},
		{"after a restart", true, []int{30}},
		{"in many answers", false, []int{3, 3, 9, 15}},
		{"in many answers after a restart", true, []int{3, 3, 8, 1, 1, 14}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := at
			o := journaltest.Options(t, func() time.Time { return now })
			a, b := clockedLog(t, o), clockedLog(t, o)
			for i := range byte(30) {
				event := journal.Event(journal.ClockChanged{Detail: fmt.Sprint(i)}) // without a body: the same leaf in both
				if i >= 5 {
					event = intend(issuerA, journal.Serial([]byte{1, i}))
				}
				if i < 20 {
					journaltest.Append(t, a, event)
				}
				journaltest.Append(t, b, event)
			}
			dir := filepath.Join(t.TempDir(), "replica")
			if err := journal.CreateReplica(dir, a.VerifierKey()); err != nil {
				t.Fatal(err)
			}
			open := func() *journal.Journal {
				r, err := journal.OpenReplica(dir, func() time.Time { return now })
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			replica := open()
			defer func() { replica.Close() }()
			// Five entries and a's signature over twenty, then trouble.
			n := 0
			err := followTampered(t, replica, a, func([]byte) []byte {
				if n++; n > 1 {
					return nil
				}
				return answer(t, a, "after=0&limit=5")
			})
			if errors.Is(err, journal.ErrFork) || replica.Size() != 5 {
				t.Fatalf("the first five: %v, size %d", err, replica.Size())
			}
			if c.restart {
				replica.Close()
				if report, err := verifyStill(dir); err != nil || !report.OK || report.SignedEntries != 0 {
					t.Errorf("behind, and closed: %+v, %v", report, err)
				}
				replica = open()
			}
			err = followTampered(t, replica, b, func([]byte) []byte {
				limit := c.then[0]
				if len(c.then) > 1 {
					c.then = c.then[1:]
				}
				now = now.Add(time.Second)
				return answer(t, b, fmt.Sprintf("after=%d&limit=%d", replica.Size(), limit))
			})
			if !errors.Is(err, journal.ErrFork) || !errors.Is(replica.Forked(), journal.ErrFork) || replica.Size() >= 20 {
				t.Errorf("followed to %d: %v", replica.Size(), err)
			}
		})
	}
}

// TestUnreachedBetween: of two logs that were both seen while the replica was behind, neither is forgotten for the other.
func TestUnreachedBetween(t *testing.T) {
	now := at
	o := journaltest.Options(t, func() time.Time { return now })
	a, b, c := clockedLog(t, o), clockedLog(t, o), clockedLog(t, o)
	for i := range byte(30) {
		shared := journal.ClockChanged{Detail: fmt.Sprint(i)} // without a body: the same leaf in all
		if i < 10 {
			journaltest.Append(t, a, shared)
		}
		if i < 5 {
			journaltest.Append(t, b, shared)
		} else if i < 20 {
			journaltest.Append(t, b, intend(issuerA, journal.Serial([]byte{1, i})))
		}
		journaltest.Append(t, c, shared)
	}
	replica := journaltest.NewReplica(t, a, func() time.Time { return now })
	n := 0
	answers := [][]byte{answer(t, a, "after=0&limit=2"), answer(t, b, "after=2&limit=2"), answer(t, c, "after=4&limit=10"), answer(t, c, "after=14&limit=10")}
	err := followTampered(t, replica, a, func([]byte) []byte { n++; return answers[n-1] })
	if !errors.Is(err, journal.ErrFork) || n != 4 || replica.Size() != 14 {
		t.Errorf("after answer %d, size %d: %v", n, replica.Size(), err)
	}
}

// TestNewerLeaf: what comes before a leaf of newer software is applied, a revocation above all; the leaf itself is waited for.
func TestNewerLeaf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	o := journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	log, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	replica := journaltest.NewReplica(t, log, nil)
	journaltest.Issue(t, log, issuerA, "\x01")
	journaltest.CatchUp(t, replica, log)
	before, _ := replica.Verified()
	journaltest.Revoke(t, log, issuerA, "\x01", journal.KeyCompromise)
	e, err := log.Entry(2)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(e.Leaf)
	newer[1] = 77
	if err := journal.ForceLeaf(log, newer); err != nil {
		t.Fatal(err)
	}
	if err := followTampered(t, replica, log, func(b []byte) []byte { return b }); errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "newer software") {
		t.Errorf("error %v, want one about newer software", err)
	}
	if c, err := replica.CertificateBySerial("\x01"); err != nil || c.Status != journal.Revoked {
		t.Errorf("certificate is %s, %v", c.Status, err)
	}
	if after, _ := replica.Verified(); after != before || replica.Size() != 3 {
		t.Errorf("verified %+v, size %d", after, replica.Size())
	}
}

// verifyStill verifies a journal that lies still.
func verifyStill(dir string) (journal.Report, error) {
	j, err := journal.OpenReadOnly(dir)
	if err != nil {
		return journal.Report{}, err
	}
	defer j.Close()
	return j.Verify(background)
}
