package journal_test

import (
	"bufio"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// crashDir tells the test binary that it is the child of TestKilled, and where its journal lies.
const crashDir = "ZEGEL_JOURNAL_CRASH_DIR"

// crashOptions are the same in parent and child.
func crashOptions() journal.Options {
	flip := func(key []byte) ([]byte, error) {
		out := make([]byte, len(key))
		for i, b := range key {
			out[i] = ^b
		}
		return out, nil
	}
	return journal.Options{Wrap: flip, Unwrap: flip, CheckpointKey: ed25519.NewKeyFromSeed(make([]byte, 32))}
}

// appendUntilKilled issues certificates from many goroutines and prints each serial once it is acknowledged.
func appendUntilKilled(dir string) int {
	j, err := journal.Open(dir, crashOptions())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	go j.Run(background, 5*time.Millisecond)
	for range 16 {
		wg.Go(func() {
			for {
				intended, issued := journaltest.Intent(journal.IssuerID{1}, manySerial(0))
				for _, e := range []journal.Event{intended, issued} {
					if _, err := j.Append(background, e); err != nil {
						fmt.Fprintln(os.Stderr, err)
						return
					}
				}
				mu.Lock()
				fmt.Println(intended.Serial)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return 1
}

// TestKilled: after SIGKILL under load all that was acknowledged is there, and everything verifies.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	if err := journal.Create(dir, journaltest.Origin, crashOptions()); err != nil {
		t.Fatal(err)
	}
	var acknowledged []journal.Serial
	for round := range 5 {
		acknowledged = append(acknowledged, runAndKill(t, dir, 20+40*round)...)
		j, err := journal.Open(dir, crashOptions())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range acknowledged {
			if c, err := j.Certificate(journal.IssuerID{1}, s); err != nil || c.Status != journal.Issued {
				t.Fatalf("round %d: acknowledged certificate %s: %s, %v", round, s, c.Status, err)
			}
		}
		if report, err := j.Verify(background); err != nil || !report.OK {
			t.Fatalf("round %d: %+v, %v", round, report, err)
		}
		open, err := j.OpenIntents()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range open { // as Recover does
			journaltest.Append(t, j, journal.CertificateAbandoned{Issuer: c.Issuer, Serial: c.Serial})
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// runAndKill lets the child acknowledge some serials, kills it, and returns all it had printed.
func runAndKill(t *testing.T, dir string, count int) (acknowledged []journal.Serial) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s, err := hex.DecodeString(lines.Text())
		if err != nil || len(s) != 20 {
			continue // the line that the kill cut
		}
		if acknowledged = append(acknowledged, journal.Serial(s)); len(acknowledged) == count {
			child.Process.Kill() // and read on: what is in the pipe was acknowledged too
		}
	}
	child.Wait()
	if len(acknowledged) < count {
		t.Fatalf("the child acknowledged %d, want %d", len(acknowledged), count)
	}
	return acknowledged
}
