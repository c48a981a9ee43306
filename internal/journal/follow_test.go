package journal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
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

// TestFollow: a replica follows live, over HTTP, and says the same as the log; bodies stay behind.
func TestFollow(t *testing.T) {
	log := journaltest.New(t)
	replica := journaltest.NewReplica(t, log, nil)
	server := httptest.NewServer(log.FeedHandler())
	defer server.Close()
	ctx, cancel := context.WithCancel(background)
	done := make(chan error, 1)
	go func() {
		done <- journal.Follow(ctx, replica, server.URL, server.Client(), func(err error) { t.Error(err) })
	}()
	journaltest.Append(t, log, allEvents()...)
	fill(t, log, issuerA, 100)
	start := time.Now()
	journaltest.Revoke(t, log, journal.IssuerID{7}, mustIssue(t, log), journal.KeyCompromise)
	waitFor(t, func() bool { return replica.Size() == log.Size() })
	t.Logf("a revocation was with the replica after %s", time.Since(start).Round(time.Millisecond))
	waitFor(t, func() bool { tree, err := replica.Verified(); return err == nil && tree.Size == log.Size() })
	for c, err := range log.Certificates() {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := replica.Certificate(c.Issuer, c.Serial); err != nil || got != c {
			t.Errorf("replica has %+v, %v; the log %+v", got, err, c)
		}
	}
	if _, err := replica.Opened(1); !errors.Is(err, journal.ErrSealed) {
		t.Errorf("the replica opens a body: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	server.CloseClientConnections()
	http.DefaultClient.CloseIdleConnections()
}

func mustIssue(t *testing.T, j *journal.Journal) journal.Serial {
	journaltest.Issue(t, j, journal.IssuerID{7}, "\x55")
	return "\x55"
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for start := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("timed out")
		}
	}
}

// TestReplicaStaysFresh: without one new entry, the verified checkpoint's time goes on; when the log is gone it stops,
// Follow keeps trying, and it recovers by itself.
func TestReplicaStaysFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := journaltest.New(t)
		replica := journaltest.NewReplica(t, log, nil)
		journaltest.Append(t, log, journal.ClockChanged{})
		var away atomic.Bool
		var told atomic.Int64
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if away.Load() {
				return nil, errors.New("connection refused")
			}
			return journaltest.Client(log).Transport.RoundTrip(r)
		})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- journal.Follow(ctx, replica, journaltest.FeedURL, client, func(error) { told.Add(1) })
		}()
		age := func() time.Duration {
			tree, err := replica.Verified()
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(tree.Time)
		}
		time.Sleep(time.Minute)
		if got := age(); got > 5*time.Second {
			t.Errorf("after a minute the checkpoint is %s old", got)
		}
		away.Store(true)
		time.Sleep(time.Minute)
		if got := age(); got < 50*time.Second {
			t.Errorf("with the log gone the checkpoint is %s old", got)
		}
		if n := told.Load(); n < 30 || n > 80 { // back-off of 1 to 2 s
			t.Errorf("tried %d times in a minute", n)
		}
		away.Store(false)
		time.Sleep(5 * time.Second)
		if got := age(); got > 5*time.Second {
			t.Errorf("with the log back the checkpoint is %s old", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestLongChain: more than one answer can carry arrives in several, each proven, and Verified waits for the last.
func TestLongChain(t *testing.T) {
	log := journaltest.New(t)
	fill(t, log, issuerA, journal.FeedLeaves) // twice as many entries
	journaltest.Append(t, log, journal.ClockChanged{})
	replica := journaltest.NewReplica(t, log, nil)
	var sizes []uint64
	client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		sizes = append(sizes, replica.Size())
		if _, err := replica.Verified(); err == nil && replica.Size() < log.Size() {
			t.Error("Verified before the replica has caught up")
		}
		return journaltest.Client(log).Transport.RoundTrip(r)
	})}
	ctx, cancel := context.WithTimeout(background, 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- journal.Follow(ctx, replica, journaltest.FeedURL, client, func(err error) { t.Error(err) })
	}()
	waitFor(t, func() bool { tree, err := replica.Verified(); return err == nil && tree.Size == log.Size() })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(sizes) < 3 || sizes[1] != journal.FeedLeaves {
		t.Errorf("asked at sizes %v", sizes)
	}
}

// TestTamperedFeed: what the feed's path can do to an answer. Nothing unproven is ever committed, and none of it is taken for a
// fork: nobody but the log can sign one.
func TestTamperedFeed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*journal.Chunk) // of answers with leaves
		proof  func(*journal.Chunk) // of the answer that tells the root at the replica's size
		raw    func([]byte) []byte
		says   string
	}{
		{name: "leaf flipped", change: func(c *journal.Chunk) { c.Leaves[1] = flip(c.Leaves[1], 60) }, says: "hash"},
		{name: "leaf flipped, root made up", change: func(c *journal.Chunk) { c.Leaves[1] = flip(c.Leaves[1], 60) },
			proof: func(c *journal.Chunk) { c.Proof[0][0] ^= 1 }, says: "hash"},
		{name: "leaf flipped, no root", change: func(c *journal.Chunk) { c.Leaves[1] = flip(c.Leaves[1], 60) },
			proof: func(c *journal.Chunk) { c.Proof = nil }, says: "hash"},
		{name: "leaf of tomorrow made up", change: func(c *journal.Chunk) { c.Leaves[1] = bytes.Clone(c.Leaves[1]); c.Leaves[1][1] = 99 }, says: "hash"},
		{name: "leaf dropped", change: func(c *journal.Chunk) { c.Leaves = c.Leaves[:len(c.Leaves)-1] }, says: "no proof"},
		{name: "leaf dropped, proof made up", change: func(c *journal.Chunk) {
			c.Leaves, c.Proof = c.Leaves[:len(c.Leaves)-1], make([]tlog.Hash, 3)
		}, says: "beginning"},
		{name: "leaf in the middle dropped", change: func(c *journal.Chunk) { c.Leaves = append(c.Leaves[:1:1], c.Leaves[2:]...) }, says: "no proof"},
		{name: "leaves swapped", change: func(c *journal.Chunk) { c.Leaves[0], c.Leaves[1] = c.Leaves[1], c.Leaves[0] }, says: "hash"},
		{name: "leaf added", change: func(c *journal.Chunk) { c.Leaves = append(c.Leaves, c.Leaves[0]) }, says: "covers"},
		{name: "no leaves", change: func(c *journal.Chunk) { c.Leaves = nil }, says: "gives none"},
		{name: "answer from elsewhere", change: func(c *journal.Chunk) { c.After++ }, says: "asked for"},
		{name: "proof where none belongs", change: func(c *journal.Chunk) { c.Proof = append(c.Proof, [32]byte{}) }, says: "proof"},
		{name: "checkpoint flipped", change: func(c *journal.Chunk) { c.Checkpoint = otherDigit(c.Checkpoint, len(c.Checkpoint)-10) }, says: "signature"},
		{name: "checkpoint's size altered", change: func(c *journal.Chunk) {
			c.Checkpoint = bytes.Replace(c.Checkpoint, []byte("\n6\n"), []byte("\n5\n"), 1)
		}, says: "signature"},
		{name: "checkpoint of another log", change: func(c *journal.Chunk) { c.Checkpoint = otherCheckpoint }, says: "verifiable"},
		{name: "truncated", raw: func(b []byte) []byte { return b[:len(b)-1] }, says: "truncated"},
		{name: "cut short", raw: func(b []byte) []byte { return b[:40] }, says: "truncated"},
		{name: "trailing", raw: func(b []byte) []byte { return append(b, 0) }, says: "after its end"},
		{name: "oversized", raw: func(b []byte) []byte { return append(b, make([]byte, journal.MaxFeed)...) }, says: "more than"},
		{name: "a page of HTML", raw: func([]byte) []byte { return []byte("<html>") }, says: "URL"},
		{name: "nothing", raw: func([]byte) []byte { return nil }, says: "URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := journaltest.New(t)
			replica := journaltest.NewReplica(t, log, nil)
			journaltest.Issue(t, log, issuerA, "\x01")
			journaltest.CatchUp(t, replica, log)
			before, _ := replica.Verified()
			journaltest.Issue(t, log, issuerA, "\x02")
			journaltest.Issue(t, log, issuerA, "\x03")
			err := followTampered(t, replica, log, func(b []byte) []byte {
				if c.raw != nil {
					return c.raw(b)
				}
				return changed(t, b, func(chunk *journal.Chunk) {
					if len(chunk.Leaves) > 0 {
						c.change(chunk)
					} else if c.proof != nil {
						c.proof(chunk)
					}
				})
			})
			if errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one about %q and no fork", err, c.says)
			}
			if after, err := replica.Verified(); err != nil || after != before || replica.Size() != 2 {
				t.Errorf("the replica moved to %+v, size %d", after, replica.Size())
			}
			if err := replica.Forked(); err != nil {
				t.Errorf("forked: %v", err)
			}
			journaltest.CatchUp(t, replica, log) // and an honest feed is followed again
		})
	}
}

// changed is an answer of the feed with a change.
func changed(t *testing.T, b []byte, change func(*journal.Chunk)) []byte {
	t.Helper()
	chunk, err := journal.DecodeChunk(b)
	if err != nil {
		t.Error(err)
		return b
	}
	change(chunk)
	out, err := chunk.Encode()
	if err != nil {
		t.Error(err)
	}
	return out
}

var otherCheckpoint = []byte("zegel.example/other\n6\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n" +
	"— zegel.example/other AAAAAAAAAABqAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n")

// otherDigit changes a digit of base64 for another.
func otherDigit(b []byte, at int) []byte {
	b = bytes.Clone(b)
	if b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return b
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// followTampered follows with every answer changed, until Follow ends or onError is told; it returns that error.
func followTampered(t *testing.T, replica, log *journal.Journal, change func([]byte) []byte) error {
	t.Helper()
	client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		response, err := journaltest.Client(log).Transport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return nil, err
		}
		response.Body = io.NopCloser(bytes.NewReader(change(body)))
		return response, nil
	})}
	ctx, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	var told error
	err := journal.Follow(ctx, replica, journaltest.FeedURL, client, func(err error) {
		if told == nil {
			told = err
		}
		cancel()
	})
	if err == nil {
		err = told
	}
	if err == nil {
		t.Fatal("nothing was said")
	}
	return err
}

// TestForkedLog: a log that was rewritten, and signed by its own key, is found out and never followed.
func TestForkedLog(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, then []journal.Event // what the log holds first, and after it was made anew with the same keys
		want        error
		later       bool // the clock goes on in between
	}{
		{"same size, other root", []journal.Event{intend(issuerA, "\x01")}, []journal.Event{intend(issuerA, "\x02")}, journal.ErrFork, true},
		{"smaller", []journal.Event{intend(issuerA, "\x01"), intend(issuerA, "\x02")}, []journal.Event{intend(issuerA, "\x01")}, journal.ErrFork, true},
		{"greater, other beginning", []journal.Event{intend(issuerA, "\x01")}, []journal.Event{intend(issuerA, "\x02"), intend(issuerA, "\x03")}, journal.ErrFork, true},
		{"greater, other last entry", []journal.Event{journal.ClockChanged{}, intend(issuerA, "\x01"), intend(issuerA, "\x02")},
			[]journal.Event{journal.ClockChanged{}, intend(issuerA, "\x01"), intend(issuerA, "\x04"), issue(issuerA, "\x04"), intend(issuerA, "\x02")}, journal.ErrFork, true},
		{"replayed from before", []journal.Event{intend(issuerA, "\x01")}, nil, nil, false},
		{"from before, other root", []journal.Event{intend(issuerA, "\x01"), intend(issuerA, "\x02")}, []journal.Event{intend(issuerA, "\x03")}, journal.ErrFork, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := at
			o := journaltest.Options(t, func() time.Time { return now })
			make := func(events []journal.Event) *journal.Journal {
				dir := filepath.Join(t.TempDir(), "journal")
				if err := journal.Create(dir, journaltest.Origin, o); err != nil {
					t.Fatal(err)
				}
				j, err := journal.Open(dir, o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { j.Close() })
				journaltest.Append(t, j, events...)
				return j
			}
			log := make(c.first)
			replica := journaltest.NewReplica(t, log, func() time.Time { return now })
			journaltest.CatchUp(t, replica, log)
			before, _ := replica.Verified()
			if now = now.Add(10 * time.Second); !c.later {
				now = at.Add(-10 * time.Second)
			}
			forked := make(c.then)
			err := followTampered(t, replica, forked, func(b []byte) []byte { return b })
			if c.want != nil && !errors.Is(err, c.want) || c.want == nil && (errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), "replayed")) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if after, _ := replica.Verified(); after != before {
				t.Errorf("the replica moved to %+v", after)
			}
		})
	}
}

// TestCheckpointTime: a checkpoint from the future is not believed, one up to a minute ahead is.
func TestCheckpointTime(t *testing.T) {
	now := at
	log := journaltest.NewWith(t, journaltest.Config{Now: func() time.Time { return now }})
	journaltest.Append(t, log, journal.ClockChanged{})
	behind := func(d time.Duration) *journal.Journal {
		return journaltest.NewReplica(t, log, func() time.Time { return at.Add(-d) })
	}
	journaltest.CatchUp(t, behind(time.Minute), log)
	late := behind(time.Minute + time.Second)
	if err := followTampered(t, late, log, func(b []byte) []byte { return b }); !strings.Contains(err.Error(), "ahead") {
		t.Error(err)
	}
	if late.Size() != 0 {
		t.Error("the replica moved")
	}
}

// TestLogThatBreaksItsOwnRules: leaves that the log signed, but the state machine forbids, are no leaves to follow;
// neither are leaves of newer software, but those are no fork.
func TestLogThatBreaksItsOwnRules(t *testing.T) {
	for _, c := range []struct {
		name string
		leaf func(first []byte) []byte
		fork bool
	}{
		{"serial twice", func(b []byte) []byte { return b }, true},
		{"time backwards", func(b []byte) []byte { b[9]--; return b }, true},
		{"garbage behind a leaf", func(b []byte) []byte { return append(b, 0) }, true},
		{"kind of tomorrow", func(b []byte) []byte { b[1] = 200; return b }, false},
		{"version of tomorrow", func(b []byte) []byte { b[0] = 2; return b }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "journal")
			o := journaltest.Options(t, nil)
			if err := journal.Create(dir, journaltest.Origin, o); err != nil {
				t.Fatal(err)
			}
			j, err := journal.Open(dir, o)
			if err != nil {
				t.Fatal(err)
			}
			entry := journaltest.Append(t, j, intend(issuerA, "\x01"))[0]
			bad := c.leaf(bytes.Clone(entry.Leaf))
			if err := journal.ForceLeaf(j, bad); err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			replica := journaltest.NewReplica(t, j, nil)
			err = followTampered(t, replica, j, func(b []byte) []byte { return b })
			known := uint64(1) // the entry before is followed, but not into a fork
			if c.fork {
				known = 0
			}
			if errors.Is(err, journal.ErrFork) != c.fork || replica.Size() != known {
				t.Errorf("error %v, size %d", err, replica.Size())
			}
			report, err := j.Verify(background)
			if err != nil || report.OK || report.Faults[0].Entry != 1 {
				t.Errorf("Verify = %+v, %v", report, err)
			}
		})
	}
}

func TestFeedHandler(t *testing.T) {
	j := journaltest.New(t)
	journaltest.Append(t, j, journal.ClockChanged{})
	serve := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		j.FeedHandler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	for target, want := range map[string]int{
		"/": 200, "/?after=0": 200, "/?after=1": 200, "/?after=9": 200, "/?after=9223372036854775807": 200, "/?after=0&wait=30": 200,
		"/?after=-1": 400, "/?after=x": 400, "/?after=9223372036854775808": 400, "/?after=1&after=2": 400, "/?wait=31": 400, "/?what=1": 400, "/?after=%zz": 400, "/?after": 400,
	} {
		w := serve("GET", target)
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", target, w.Code, w.Body, want)
		}
		if w.Code == 200 {
			if c, err := journal.DecodeChunk(w.Body.Bytes()); err != nil || len(c.Proof) != 0 {
				t.Errorf("%s: %+v, %v", target, c, err)
			}
		}
	}
	if w := serve("POST", "/"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	j.Close()
	if w := serve("GET", "/"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("closed: %d", w.Code)
	}
}

// TestOneFollower: two followers into one replica would each check against what the other changes.
func TestOneFollower(t *testing.T) {
	log := journaltest.New(t)
	replica := journaltest.NewReplica(t, log, nil)
	stop := journaltest.Follow(t, replica, log)
	waitFor(t, func() bool { _, err := replica.Verified(); return err == nil })
	if err := journal.Follow(background, replica, journaltest.FeedURL, journaltest.Client(log), nil); err == nil {
		t.Error("followed twice")
	}
	stop()
}

// TestFollowAfterRestart: a replica opened again goes on from where it was, and remembers what it verified.
func TestFollowAfterRestart(t *testing.T) {
	log := journaltest.New(t)
	journaltest.Issue(t, log, issuerA, "\x01")
	dir := filepath.Join(t.TempDir(), "replica")
	if err := journal.CreateReplica(dir, log.VerifierKey()); err != nil {
		t.Fatal(err)
	}
	var last journal.Tree
	for range 3 {
		r, err := journal.OpenReplica(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Verified(); last.Size > 0 && (err != nil || got != last) {
			t.Errorf("verified %+v, %v; before the restart %+v", got, err, last)
		}
		journaltest.Append(t, log, journal.ClockChanged{})
		journaltest.CatchUp(t, r, log)
		if last, err = r.Verified(); err != nil || last.Size != log.Size() {
			t.Errorf("verified %+v, %v", last, err)
		}
		if _, err := r.Checkpoint(); err != nil {
			t.Error(err)
		}
		r.Close()
	}
	if err := journal.Tamper(dir, func(b func(string) *bolt.Bucket) error { return b("leaves").Delete([]byte{0, 0, 0, 0, 0, 0, 0, 4}) }); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.OpenReplica(dir, nil); err == nil {
		t.Error("a replica with less than its checkpoint covers was opened")
	}
}
