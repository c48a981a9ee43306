package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// byHand is a daemon that a test started as an operator would: from its own configuration.
type byHand struct {
	pid   int
	ended chan struct{}
}

// startByHand starts a daemon; it is stopped with the test.
func (r *running) startByHand(t *testing.T, name string) *byHand {
	t.Helper()
	cmd, ended, err := r.launch(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	return &byHand{pid: cmd.Process.Pid, ended: ended}
}

// end stops a process that the demo started and waits until it is gone.
func end(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatalf("signal %d: %v", pid, err)
	}
	for deadline := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// status asks OCSP once: good, revoked, unknown, or the responseStatus of an error.
func (r *running) status(t *testing.T, serial string) string {
	t.Helper()
	return r.ask(t.Context(), serial)
}

// ask is status for those who have no test at hand.
func (r *running) ask(ctx context.Context, serial string) string {
	d := &demo{tool: &tool{}, facts: r.demoFacts}
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return fmt.Sprintf("serial %q is not hex", serial)
	}
	got, err := d.askOCSP(ctx, n)
	var refused ocsp.ResponseError
	if errors.As(err, &refused) {
		return refused.Status.String()
	}
	if err != nil {
		return err.Error()
	}
	return got
}

// becomes asks until the status is as wanted.
func (r *running) becomes(t *testing.T, serial, want string, within time.Duration) {
	t.Helper()
	var got string
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got = r.status(t, serial); got == want {
			return
		}
	}
	t.Fatalf("OCSP of %s says %q, want %q within %v", serial, got, want, within)
}

func (r *running) one(t *testing.T, status string) string {
	t.Helper()
	for _, c := range r.Certificates {
		if c.Status == status {
			return c.Serial
		}
	}
	t.Fatalf("the demo has no %s certificate", status)
	return ""
}

// An outage of the CA must not become one of status (design: status is as fresh as it says): OCSP goes on
// answering within status_life, then says tryLater except for what is revoked, and recovers by itself.
func TestStopCA(t *testing.T) {
	r := startDemo(t)
	good, revoked := r.one(t, "good"), r.one(t, "revoked")

	// a short status_life, set as an operator would: edit the file, restart the responder; the demo stays up
	end(t, r.PIDs["ocsp"], syscall.SIGTERM)
	text, err := os.ReadFile(r.Configs["ocsp"])
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "status_life:") {
			line = "status_life: 8s"
		}
		lines = append(lines, line)
	}
	if err := os.WriteFile(r.Configs["ocsp"], []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	responder := r.startByHand(t, "ocsp")
	waitHealthy(t, r.HealthURLs["ocsp"])
	r.becomes(t, good, "good", 5*time.Second)

	end(t, r.PIDs["ca"], syscall.SIGTERM)
	for range 10 {
		if got := r.status(t, good); got != "good" {
			t.Fatalf("with the CA just stopped OCSP says %q", got)
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.becomes(t, good, "try later", 15*time.Second)
	if got := r.status(t, revoked); got != "revoked" {
		t.Errorf("past status_life what is revoked for good must stay revoked, OCSP says %q", got)
	}

	r.startByHand(t, "ca")
	waitHealthy(t, r.HealthURLs["ca"])
	r.becomes(t, good, "good", 10*time.Second)
	select {
	case <-responder.ended:
		t.Error("the responder ended")
	default:
	}
}

// Each daemon can be stopped and started again from its own configuration while the demo stays up.
func TestRestartEachDaemon(t *testing.T) {
	r := startDemo(t)
	for _, name := range []string{"tsa", "ocsp", "ca"} {
		end(t, r.PIDs[name], syscall.SIGTERM)
		r.startByHand(t, name)
		waitHealthy(t, r.HealthURLs[name])
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("TEST"), 0o600); err != nil {
		t.Fatal(err)
	}
	zegel(t, 0, "--config", r.ZegelConfig, "timestamp", file)
	zegel(t, 0, "--config", r.ZegelConfig, "verify", file+".tsr", "--data", file)
	zegel(t, 0, "--config", r.ZegelConfig, "crl")
	zegel(t, 0, "--config", r.ZegelConfig, "status")
	r.becomes(t, r.one(t, "good"), "good", 5*time.Second)
}

// A DIR that holds a demo is resumed; any other that is not empty is refused and left alone.
func TestResumeDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	zegel(t, 0, "demo", "--once", "--dir", dir)
	first := readFacts(t, dir)
	zegel(t, 0, "demo", "--once", "--dir", dir)
	second := readFacts(t, dir)
	if first.Certificates[0].Serial != second.Certificates[0].Serial || first.OCSPURL != second.OCSPURL {
		t.Error("the second run did not resume the first")
	}
	zegel(t, 2, "demo", "--once", "--dir", dir, "--keys", "rsa3072")
	zegel(t, 0, "demo", "--once", "--dir", dir, "--keys", "p256", "--token", "soft")

	// one that never came up is started again from nothing
	if err := os.Remove(filepath.Join(dir, "demo.json")); err != nil {
		t.Fatal(err)
	}
	zegel(t, 0, "demo", "--once", "--dir", dir)
	if third := readFacts(t, dir); third.Certificates[0].Serial == first.Certificates[0].Serial {
		t.Error("the unfinished demo was not started again")
	}

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	zegel(t, 2, "demo", "--once", "--dir", other)
	if entries, _ := os.ReadDir(other); len(entries) != 1 {
		t.Errorf("the refused folder was changed: %v", entries)
	}
}

// A daemon left over from an earlier run would answer in the place of the resumed demo's: it is named, and nothing starts.
func TestResumeRefusesOrphans(t *testing.T) {
	r := startDemo(t)
	zegel(t, 1, "demo", "--once", "--dir", r.dir) // the demo itself is running
	readFacts(t, r.dir)                           // and keeps its demo.json
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	r.killed = true
	zegel(t, 1, "demo", "--once", "--dir", r.dir)
	for _, pid := range r.PIDs {
		end(t, pid, syscall.SIGTERM)
	}
	zegel(t, 0, "demo", "--once", "--dir", r.dir)
}

// Every command that the demo prints beside what it did works as printed.
func TestDemoCommands(t *testing.T) {
	r := startDemo(t)
	var table string
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(table, "To do it again"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no table:\n%s", table)
		}
		text, err := os.ReadFile(r.out)
		if err != nil {
			t.Fatal(err)
		}
		table = string(text)
	}
	lines := strings.Split(table, "\n")
	column := strings.Index(lines[0], "DO IT AGAIN")
	_, export, _ := strings.Cut(table, "terminal:\n")
	tried := 0
	for _, line := range lines[1:] {
		if len([]rune(line)) <= column {
			break
		}
		command := strings.TrimSpace(string([]rune(line)[column:]))
		cmd := exec.Command("sh", "-c", strings.TrimSpace(export)+"\n"+command)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		tried++
	}
	if tried < 15 {
		t.Errorf("%d commands tried", tried)
	}
}
