//go:build failpoint

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// What a daemon does whose step failed.
const (
	goesOn  = "goes on"  // it serves: what failed is tried again, or was one caller's
	refuses = "refuses"  // it records nothing more until it is restarted, and says so
	ends    = "ends"     // with a status of failure
	endsBad = "ends bad" // only a stop shows it: its status is one of failure
)

// crash is one step at which a daemon dies, and fails, before and after.
type crash struct {
	step   failpoint.Step
	nth    int    // which pass of the point; 0: the first
	during string // one of acts
	orders string // failpoints that have to be met on the way, "" as a rule
	// What is true after recovery, one of outcomes, where the daemon was stopped before the step and after it: by its death or by the step's
	// failure, which are the same to everybody but the caller.
	before, after string
	failed        string
}

// crashes is the table. A new step is a row here, or two where two daemons take it.
var crashes = []crash{
	{failpoint.AppendDaemonStarted, 0, "start the CA", "", "nothing", "nothing", ends},
	{failpoint.AppendCertificateIntended, 0, "issue", "", "nothing", "abandoned", refuses},
	{failpoint.SignCertificate, 0, "issue", "", "abandoned", "abandoned", goesOn},
	{failpoint.AppendCertificateIssued, 0, "issue", "", "abandoned", "issued", refuses},
	{failpoint.AppendCertificateAbandoned, 0, "issue", "fail before sign certificate", "abandoned", "abandoned", refuses},
	{failpoint.AppendCertificateAbandoned, 0, "recover", "", "abandoned", "abandoned", ends},
	{failpoint.AppendCertificateRevoked, 0, "revoke", "", "nothing", "revoked", refuses},
	{failpoint.AppendKeyDuty, 0, "record a key duty", "", "no duty", "one duty", refuses},
	{failpoint.AppendCRLReserved, 0, "start the CA", "", "nothing", "nothing", ends},
	{failpoint.AppendCRLReserved, 2, "revoke", "", "revoked", "revoked", refuses},
	{failpoint.AppendCRLReserved, 2, "publish", "", "nothing", "nothing", refuses},
	{failpoint.SignCRL, 0, "start the CA", "", "nothing", "nothing", goesOn},
	{failpoint.SignCRL, 2, "revoke", "", "revoked", "revoked", goesOn},
	{failpoint.SignCRL, 2, "publish", "", "nothing", "nothing", goesOn},
	{failpoint.AppendCRLIssued, 0, "start the CA", "", "nothing", "nothing", ends},
	{failpoint.AppendCRLIssued, 2, "revoke", "", "revoked", "revoked", refuses},
	{failpoint.AppendCRLIssued, 2, "publish", "", "nothing", "nothing", refuses},
	{failpoint.PublishCRL, 0, "start the CA", "", "nothing", "nothing", goesOn},
	{failpoint.PublishCRL, 2, "revoke", "", "revoked", "revoked", goesOn},
	{failpoint.PublishCRL, 2, "publish", "", "nothing", "nothing", goesOn},
	{failpoint.WriteTemporary, 2, "publish", "", "nothing", "nothing", goesOn},
	{failpoint.SyncFolder, 2, "publish", "", "nothing", "nothing", goesOn},
	{failpoint.SignCheckpoint, 0, "start the CA", "", "nothing", "nothing", goesOn},
	{failpoint.StoreCheckpoint, 0, "start the CA", "", "nothing", "nothing", refuses},
	{failpoint.StoreLastCheckpoint, 0, "stop the CA", "", "nothing", "nothing", endsBad},

	{failpoint.FillJournal, 0, "make a replica", "", "followed", "followed", ends},
	{failpoint.NameJournal, 0, "make a replica", "", "followed", "followed", ends},
	{failpoint.Replicate, 0, "follow", "", "followed", "followed", ends},
	{failpoint.Replicate, 2, "follow an issue", "", "followed", "followed", ends},
	{failpoint.StoreFork, 0, "follow a fork", "", "forked", "forked", refuses},

	{failpoint.AppendDaemonStarted, 0, "start the TSA", "", "no record", "no record", ends},
	{failpoint.AppendClockChanged, 0, "start the TSA", "", "no record", "no record", ends},
	{failpoint.SignTimestamp, 0, "timestamp", "", "no record", "no record", goesOn},
	{failpoint.AppendTimestampIssued, 0, "timestamp", "", "no record", "one record more", ends},
	{failpoint.SignCheckpoint, 0, "start the TSA", "", "no record", "no record", goesOn},
	{failpoint.StoreCheckpoint, 0, "start the TSA", "", "no record", "no record", ends},
	{failpoint.StoreLastCheckpoint, 0, "stop the TSA", "", "no record", "no record", endsBad},
}

// act is what is going on when a daemon dies.
type act struct {
	daemon  string
	prepare func(*testing.T, *crashProvider)
	// do is what a caller does, and what the caller is told. nil: the daemon does it by itself.
	do func(*testing.T, *crashProvider, *crashProcess) error
}

// call makes an act of something that a caller asks of a daemon that is ready.
func call(what func(*crashProvider) error) func(*testing.T, *crashProvider, *crashProcess) error {
	return func(t *testing.T, p *crashProvider, d *crashProcess) error {
		if err := d.ready(); err != nil {
			t.Fatal(err)
		}
		return what(p)
	}
}

var acts = map[string]act{
	"start the CA":      {daemon: "ca"},
	"issue":             {daemon: "ca", do: call((*crashProvider).issue)},
	"revoke":            {daemon: "ca", do: call((*crashProvider).revoke)},
	"publish":           {daemon: "ca", do: call((*crashProvider).publish)},
	"record a key duty": {daemon: "ca", do: call((*crashProvider).recordDuty)},
	"recover":           {daemon: "ca", prepare: leaveIntent},
	"stop the CA":       {daemon: "ca", do: stopAfter((*crashProvider).publish)},

	"follow":          {daemon: "ocsp", prepare: serveFeed},
	"make a replica":  {daemon: "ocsp", prepare: loseReplica},
	"follow an issue": {daemon: "ocsp", prepare: serveFeed, do: issueForFollower},
	"follow a fork":   {daemon: "ocsp", prepare: forkLog},

	"start the TSA": {daemon: "tsa"},
	"timestamp":     {daemon: "tsa", do: call((*crashProvider).timestamp)},
	"stop the TSA":  {daemon: "tsa", do: stopAfter((*crashProvider).timestamp)},
}

// stopAfter stops the daemon when entries lie beyond its stored checkpoint.
func stopAfter(what func(*crashProvider) error) func(*testing.T, *crashProvider, *crashProcess) error {
	return func(t *testing.T, p *crashProvider, d *crashProcess) error {
		if err := d.ready(); err != nil {
			t.Fatal(err)
		}
		// Just after a checkpoint was stored there are two seconds until the next.
		for n, end := d.passes("after store checkpoint"), time.Now().Add(within); d.passes("after store checkpoint") == n && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		if err := what(p); err != nil {
			t.Fatal(err)
		}
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-d.ended
		return fmt.Errorf("it ended: %v", d.cmd.ProcessState)
	}
}

// leaveIntent has the CA die with an open intent.
func leaveIntent(t *testing.T, p *crashProvider) {
	d := p.start(t, "ca", "die after append CertificateIntended")
	if err := call((*crashProvider).issue)(t, p, d); err == nil {
		t.Fatal("the dead CA issued")
	}
	d.wait(t)
}

func serveFeed(t *testing.T, p *crashProvider) {
	if err := p.start(t, "ca", "").ready(); err != nil {
		t.Fatal(err)
	}
}

// loseReplica leaves the responder an empty folder.
func loseReplica(t *testing.T, p *crashProvider) {
	serveFeed(t, p)
	if err := os.Remove(filepath.Join(p.facts.Journals["ocsp"], "journal.db")); err != nil {
		t.Fatal(err)
	}
}

// issueForFollower waits until the responder has followed, and then has the CA issue: whether the responder hears of
// it shows later.
func issueForFollower(t *testing.T, p *crashProvider, d *crashProcess) error {
	if err := d.ready(); err != nil {
		return err // it has died of what came before
	}
	if err := p.issue(); err != nil {
		t.Fatal(err)
	}
	return errors.New("the CA answers, not the responder")
}

// forkLog has the log sign another history than the one that the responder has followed, as somebody with its key could.
func forkLog(t *testing.T, p *crashProvider) {
	journals, publish := filepath.Dir(p.facts.Journals["ca"]), p.facts.PublishDir
	copyFolder(t, journals, journals+".old")
	copyFolder(t, publish, publish+".old")
	ca, responder := p.start(t, "ca", ""), p.start(t, "ocsp", "")
	for _, what := range []func() error{ca.ready, p.issue, responder.ready} {
		if err := what(); err != nil {
			t.Fatal(err)
		}
	}
	ca.stop(t)
	responder.stop(t)
	for _, dir := range []string{journals, publish} {
		if err := errors.Join(os.Rename(dir, dir+".true"), os.Rename(dir+".old", dir)); err != nil {
			t.Fatal(err)
		}
	}
	ca = p.start(t, "ca", "")
	for _, what := range []func() error{ca.ready, p.issue, p.issue} {
		if err := what(); err != nil {
			t.Fatal(err)
		}
	}
}

// outcomes are what is true once the daemon that died or failed has been started again.
var outcomes = map[string]func(*testing.T, *crashProvider){
	// No certificate was added and none changed.
	"nothing": func(t *testing.T, p *crashProvider) { wantFresh(t, p) },
	// The one intent is abandoned: revoked for ever in OCSP and on the CRL (checkCA compares).
	"abandoned": func(t *testing.T, p *crashProvider) { wantFresh(t, p, "abandoned") },
	// The certificate that nobody got is good, and can be fetched.
	"issued": func(t *testing.T, p *crashProvider) {
		wantFresh(t, p, "good")
		for _, c := range p.fresh(t) {
			if !strings.Contains(c.Cert, "BEGIN CERTIFICATE") {
				t.Errorf("%s cannot be fetched", c.Serial)
			}
		}
	},
	// The revocation holds though its caller was told of a failure.
	"revoked": func(t *testing.T, p *crashProvider) {
		p.status[p.kept] = "revoked"
		wantFresh(t, p)
	},
	// A key duty is recorded once or not at all.
	"no duty":  func(t *testing.T, p *crashProvider) { p.wantDuties(t) },
	"one duty": func(t *testing.T, p *crashProvider) { p.wantDuties(t, "generated") },
	// The replica has what the log has, and answers from it.
	"followed": func(t *testing.T, p *crashProvider) {
		r := &running{demoFacts: p.facts}
		for serial, status := range p.status {
			r.becomes(t, serial, status, within)
		}
	},
	// The contradiction is found again, or remembered: no status is answered any more.
	"forked": func(t *testing.T, p *crashProvider) {
		r := &running{demoFacts: p.facts}
		r.becomes(t, p.kept, "internal error", within)
	},
	"no record":       func(t *testing.T, p *crashProvider) {},
	"one record more": func(t *testing.T, p *crashProvider) {},
}

func wantFresh(t *testing.T, p *crashProvider, want ...string) {
	t.Helper()
	var got []string
	for _, c := range p.fresh(t) {
		got = append(got, c.Status)
	}
	if !slices.Equal(got, want) {
		t.Errorf("certificates that nobody was given: %q, want %q", got, want)
	}
}

// points keeps where processes died and where steps failed.
type points struct {
	mu  sync.Mutex
	met map[string]bool // mode, when and step, as in ZEGEL_FAILPOINT
}

func (p *points) add(point string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.met[point] = true
}

// TestCrash dies, and fails, before and after every durable step, and checks what must be true after recovery.
// docs/crash-points.md tells it in words.
func TestCrash(t *testing.T) {
	base := newCrashProvider(t)
	met := &points{met: map[string]bool{}}
	complete := true
	cases := t.Run("at", func(t *testing.T) {
		t.Run("daemons", func(t *testing.T) { complete = crashDaemons(t, base, met) && complete })
		t.Run("ceremony", func(t *testing.T) { complete = crashCeremonies(t, met) && complete })
		t.Run("tool", func(t *testing.T) { complete = crashTools(t, base, met) && complete })
	})
	if !cases || !complete {
		return // some were not run, or did not get where they were to be
	}
	for _, s := range failpoint.Steps() {
		for _, mode := range []string{"die before", "die after", "fail before", "fail after"} {
			if point := mode + " " + s.Name(); !met.met[point] {
				t.Errorf("not reached: %s (%s)", point, s.What())
			}
		}
	}
	t.Logf("%d points met", len(met.met))
}

// eachWay runs a case for both modes, before and after, two at a time, and reports whether all were run.
func eachWay(t *testing.T, name string, step failpoint.Step, ran *points, run func(t *testing.T, mode, when string)) (ways int) {
	for _, mode := range []string{"die", "fail"} {
		for _, when := range []string{"before", "after"} {
			id := fmt.Sprintf("%s/%s %s %s", name, mode, when, step.Name())
			ways++
			t.Run(id, func(t *testing.T) {
				t.Parallel()
				ran.add(id)
				run(t, mode, when)
			})
		}
	}
	return ways
}

func crashDaemons(t *testing.T, base *crashProvider, met *points) bool {
	ran, want := &points{met: map[string]bool{}}, 0
	t.Run("all", func(t *testing.T) {
		for i, c := range crashes {
			want += eachWay(t, fmt.Sprintf("%02d %s", i, c.during), c.step, ran, func(t *testing.T, mode, when string) {
				c.run(t, base.copy(t), mode, when, met)
			})
		}
	})
	return len(ran.met) == want
}

// run is one case: act, death or failure, restart, check.
func (c crash) run(t *testing.T, p *crashProvider, mode, when string, met *points) {
	act, point, outcome := acts[c.during], when+" "+c.step.Name(), c.before
	if when == "after" {
		outcome = c.after
	}
	nth := max(c.nth, 1)
	if act.prepare != nil {
		act.prepare(t, p)
	}
	d := p.start(t, act.daemon, strings.TrimPrefix(fmt.Sprintf("%s; %s %s:%d", c.orders, mode, point, nth), "; "))
	if act.do != nil {
		if err := act.do(t, p, d); err == nil {
			t.Errorf("the caller was told that it was done")
		}
	}
	if mode == "die" {
		if status := d.wait(t); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("it ended with %v", d.cmd.ProcessState)
		}
	} else {
		c.checkFailed(t, p, d, point, nth)
	}
	met.add(mode + " " + point)
	c.checkRecovered(t, p, outcome)
}

// checkFailed is what is true of a daemon whose step failed, before it is started again.
func (c crash) checkFailed(t *testing.T, p *crashProvider, d *crashProcess, point string, nth int) {
	for end := time.Now().Add(within); d.passes(point) < nth; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never was %s", point)
		}
	}
	works := map[string]func() error{"ca": p.issue, "ocsp": p.ask, "tsa": p.timestamp}[acts[c.during].daemon]
	switch c.failed {
	case ends, endsBad:
		if status := d.wait(t); status.Signaled() || status.ExitStatus() != 1 {
			t.Errorf("it ended with %v, want status 1", d.cmd.ProcessState)
		}
		return
	case goesOn:
		if err := d.ready(); err != nil {
			t.Error(err)
		}
		if err := works(); err != nil {
			t.Errorf("it was to go on: %v", err)
		}
		d.stop(t)
		return
	}
	wantRefusal(t, works)
	if healthy(t.Context(), d.health) == nil {
		t.Error("it says that it is well")
	}
	d.terminate(t) // with which status: a journal that failed cannot sign its end
}

// wantRefusal waits until the daemon answers, which it does with an error of its own.
func wantRefusal(t *testing.T, works func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var refused *desk.Error
		if err = works(); err == nil {
			t.Error("it was to refuse, and did what was asked")
			return
		}
		if errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable || err.Error() == "OCSP says internal error" {
			return
		}
	}
	t.Errorf("it was to refuse, and says %v", err)
}

// checkRecovered starts the daemon again, without failpoints, and judges.
func (c crash) checkRecovered(t *testing.T, p *crashProvider, outcome string) {
	daemon := acts[c.during].daemon
	d := p.start(t, daemon, "")
	if outcome != "forked" {
		if err := d.ready(); err != nil {
			t.Fatalf("after the restart: %v", err)
		}
	}
	outcomes[outcome](t, p)
	switch daemon {
	case "ca":
		p.checkCA(t)
		if err := errors.Join(p.issue(), p.publish()); err != nil {
			t.Errorf("after recovery: %v", err)
		}
		p.publishedCRL(t)
		d.stop(t)
		p.verifyStill(t, "ca")
	case "tsa":
		if err := p.timestamp(); err != nil {
			t.Errorf("after recovery: %v", err)
		}
		d.stop(t)
		p.verifyStill(t, "tsa")
		p.checkTimestamps(t, map[string]int{"no record": 0, "one record more": 1}[outcome])
	case "ocsp":
		d.stop(t)
		if outcome == "forked" {
			zegel(t, 1, "journal", "verify", "--dir", p.facts.Journals["ocsp"])
			return
		}
		p.sameRoot(t)
	}
}

// sameRoot stops the CA and compares its journal with the replica.
func (p *crashProvider) sameRoot(t *testing.T) {
	t.Helper()
	out := zegel(t, 0, "--config", p.facts.ZegelConfig, "journal", "verify", "--json")
	replica := p.verifyStill(t, "ocsp")
	if !strings.Contains(out, replica.Root) {
		t.Errorf("the replica's %d entries have the root %s, the log says %s", replica.Entries, replica.Root, out)
	}
}
