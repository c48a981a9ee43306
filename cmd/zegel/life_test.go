package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/testdata/request"
)

var kills = flag.Int("kills", 4, "how often TestKillUnderLoad kills the CA")

// byHand is a daemon that a test started as an operator would: from its own configuration.
type byHand struct {
	pid   int
	ended chan struct{}
}

// startByHand starts a daemon; it is stopped with the test.
func (r *running) startByHand(t *testing.T, name string) *byHand {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "zegel-"+name), "--config", r.Configs[name])
	log, err := os.OpenFile(filepath.Join(r.dir, "log", name+".log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &byHand{pid: cmd.Process.Pid, ended: make(chan struct{})}
	go func() {
		cmd.Wait() // a signal ends it: nothing to report
		close(b.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-b.ended
	})
	return b
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
	d := &demo{tool: &tool{}, facts: r.demoFacts}
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		t.Fatalf("serial %q", serial)
	}
	got, err := d.askOCSP(t.Context(), n)
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

// handedOut is what callers were given: the only thing that counts after a crash.
type handedOut struct {
	mu      sync.Mutex
	certs   map[string]string // serial -> PEM
	revoked map[string]bool
	fresh   []string // serials handed out or revoked since the last check
}

// SIGKILL the CA under load: after each restart nothing handed out is unknown, nothing acknowledged as revoked is
// good, and the journal verifies. make soak runs it with more kills.
func TestKillUnderLoad(t *testing.T) {
	r := startDemo(t)
	out := &handedOut{certs: map[string]string{}, revoked: map[string]bool{}}
	pid := r.PIDs["ca"]
	for round := range *kills {
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for worker := range 8 {
			load.Go(func() { out.work(ctx, t, r, worker) })
		}
		time.Sleep(time.Duration(300+rand.IntN(700)) * time.Millisecond)
		end(t, pid, syscall.SIGKILL)
		stop()
		load.Wait()
		pid = r.startByHand(t, "ca").pid
		waitHealthy(t, r.HealthURLs["ca"])
		out.check(t, r, round, out.fresh)
		out.fresh = nil
	}
	out.check(t, r, *kills, slices.Collect(maps.Keys(out.certs))) // everything, once more
	if len(out.certs) == 0 || len(out.revoked) == 0 {
		t.Fatalf("no load: %d issued, %d revoked", len(out.certs), len(out.revoked))
	}
	t.Logf("%d kills: %d certificates handed out, %d revoked", *kills, len(out.certs), len(out.revoked))
	r.checkStill(t, pid)
}

// work issues, and revokes every fifth, until the CA is gone.
func (o *handedOut) work(ctx context.Context, t *testing.T, r *running, worker int) {
	tl := &tool{configPath: r.ZegelConfig}
	subject, err := request.Example("qcp-n")
	if err != nil {
		t.Error(err)
		return
	}
	csr, err := os.ReadFile(filepath.Join(r.dir, "subscribers", "qcp-n.csr"))
	if err != nil {
		t.Error(err)
		return
	}
	err = tl.withCA(func(ca *desk.Client) error {
		for n := 0; ctx.Err() == nil; n++ {
			reply, err := ca.Issue(ctx, desk.IssueRequest{Profile: "qcp-n", CSR: string(csr), Subject: string(subject), SubjectName: "load"})
			if err != nil {
				return err
			}
			o.mu.Lock()
			o.certs[reply.Serial] = reply.Cert
			o.fresh = append(o.fresh, reply.Serial)
			o.mu.Unlock()
			if n%5 != worker%5 {
				continue
			}
			if _, err := ca.Revoke(ctx, reply.Serial, desk.RevokeRequest{Reason: "superseded"}); err != nil {
				return err
			}
			o.mu.Lock()
			o.revoked[reply.Serial] = true
			o.mu.Unlock()
		}
		return nil
	})
	var refused *desk.Error
	if errors.As(err, &refused) {
		t.Errorf("the CA refused sound work: %v", err)
	}
}

// check asks the restarted CA for what was handed out.
func (o *handedOut) check(t *testing.T, r *running, round int, serials []string) {
	t.Helper()
	tl := &tool{configPath: r.ZegelConfig}
	err := tl.withCA(func(ca *desk.Client) error {
		for _, serial := range serials {
			pem := o.certs[serial]
			c, err := ca.Certificate(t.Context(), serial)
			if err != nil {
				return fmt.Errorf("round %d: %s was handed out: %w", round, serial, err)
			}
			if c.Cert != pem {
				return fmt.Errorf("round %d: %s is not the certificate that was handed out", round, serial)
			}
			// one whose revocation was recorded but not acknowledged may be revoked too
			if c.Status != "revoked" && (o.revoked[serial] || c.Status != "good") {
				return fmt.Errorf("round %d: %s is %s, acknowledged as revoked: %v", round, serial, c.Status, o.revoked[serial])
			}
		}
		open, err := ca.Certificates(t.Context(), desk.Search{Status: "intended"})
		if err == nil && len(open) > 0 {
			err = fmt.Errorf("round %d: %d intents are still open after recovery", round, len(open))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if report := zegel(t, 0, "--config", r.ZegelConfig, "journal", "verify", "--json"); !strings.Contains(report, `"ok": true`) {
		t.Fatalf("round %d: %s", round, report)
	}
}

// checkStill stops the CA and verifies its journal from the outside.
func (r *running) checkStill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var j *journal.Journal
	var err error
	for range 20 { // OpenReadOnly itself waits a second for the lock
		if j, err = journal.OpenReadOnly(r.Journals["ca"]); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	report, err := j.Verify(t.Context())
	if err != nil || !report.OK {
		t.Fatalf("%+v, %v", report, err)
	}
}
