package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/tsa"
)

var (
	soakKills    = flag.Int("kills", 15, "TestSoak: SIGKILLs and SIGTERMs of daemons, all together")
	soakDuration = flag.Duration("duration", 40*time.Second, "TestSoak: how long daemons are killed at most")
)

// What TestSoak asks for a second, so that an hour's journals stay below a gigabyte: a CRL lies whole in the CA's journal, and each
// revocation makes at most one.
const (
	issuesPerSecond     = 20
	burstsPerSecond     = 1. / 3 // of revocations, burst at a time: those that come together share a CRL
	burst               = 6
	questionsPerSecond  = 100 // OCSP
	timestampsPerSecond = 50
	fetchesPerSecond    = 1. / 2 // of the CRL
	ordersPerSecond     = 1. / 15
)

// killEvery is the mean time between two signals.
const killEvery = 1500 * time.Millisecond

// soak is a provider under load whose daemons are killed, and what its clients were given.
type soak struct {
	t       *testing.T
	r       *running
	began   time.Time
	ca      *desk.Client
	http    *http.Client
	issuer  *x509.Certificate
	trust   tsa.VerifyOptions
	orders  []desk.IssueRequest // one of every profile
	daemons map[string]*victim
	book    *book
	figures *figures
	checks  chan []string           // serials that the restarted CA has to know
	faults  sync.Map                // by format: *atomic.Int64, how many
	giveUp  context.CancelCauseFunc // when a daemon does not come back: nothing more can be learned
}

// victim is a daemon that is killed and started again.
type victim struct {
	*soak
	name  string
	epoch atomic.Int64  // even while it is up; odd from before the signal until it is healthy again
	busy  chan struct{} // holds a value while it is being killed or started

	pid   int           // of the instance
	ended chan struct{} // of an instance of ours; nil for the demo's
	cmd   *exec.Cmd

	kills, early, terms int // signals: SIGKILL, those of them to a daemon that was starting, SIGTERM
	recovered           []time.Duration
	spent               time.Duration // in verifications
}

// TestSoak kills every daemon at random while officers and relying parties ask all of them, and holds what they were given, then
// and at the end, against what the provider promises: see book and soak.checkEnd. make soak runs it for an hour.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	load, stopLoad := context.WithCancelCause(t.Context())
	defer stopLoad(nil)
	s.giveUp = stopLoad
	var working, looking sync.WaitGroup
	s.load(load, &working)
	looking.Go(s.checkRestarts)
	looking.Go(func() { s.sampleDemo(load) })

	s.kill(load)
	s.figures.killed = time.Since(s.began)
	s.sampleStill(load, min(max(s.figures.killed/6, 10*time.Second), 10*time.Minute))

	lost := context.Cause(load)
	stopLoad(nil)
	working.Wait()
	close(s.checks)
	looking.Wait()
	if lost != nil {
		t.Fatal(lost)
	}
	s.checkEnd()
	s.figures.print(s)
}

func newSoak(t *testing.T) *soak {
	r := startDemo(t)
	c := officerConfig(t, r.ZegelConfig)
	s := &soak{t: t, r: r, began: time.Now(), daemons: map[string]*victim{}, figures: newFigures(), checks: make(chan []string, 10000)}
	s.book = newBook(s.fault)
	client, err := (&tool{}).desk(c, c.CA.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s.ca = client
	pool, err := daemon.LoadPool(r.TLSCA)
	if err != nil {
		t.Fatal(err)
	}
	s.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsRoots(pool), MaxIdleConnsPerHost: 16}}
	t.Cleanup(s.http.CloseIdleConnections)
	issuers, err := readCertificates(r.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	s.issuer = issuers[0]
	if s.trust, err = trustOf(c); err != nil {
		t.Fatal(err)
	}
	s.readOrders()
	for _, name := range []string{"ca", "ocsp", "tsa"} {
		s.daemons[name] = &victim{soak: s, name: name, busy: make(chan struct{}, 1), pid: r.PIDs[name]}
	}
	t.Cleanup(s.stopOurs)
	return s
}

// fault reports what must not be. Of each kind the first five are told.
func (s *soak) fault(format string, args ...any) {
	n, _ := s.faults.LoadOrStore(format, new(atomic.Int64))
	if n.(*atomic.Int64).Add(1) <= 5 {
		s.t.Errorf("after %v: %s", time.Since(s.began).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

// kill sends the signals, to daemons in random order and at random moments; while one starts again the others get theirs.
func (s *soak) kill(ctx context.Context) {
	end := time.After(*soakDuration)
	var restarting sync.WaitGroup
	defer restarting.Wait()
	var next []string
	for range *soakKills {
		if len(next) == 0 { // each as often as the others, in no order
			next = []string{"ca", "ocsp", "tsa", "ca", "ocsp", "tsa"}
			rand.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
		}
		v := s.daemons[next[0]]
		next = next[1:]
		select {
		case <-time.After(rand.N(2 * killEvery)):
		case <-end:
			return
		case <-ctx.Done():
			return
		}
		select {
		case v.busy <- struct{}{}:
		case <-end:
			return
		}
		restarting.Go(func() {
			defer func() { <-v.busy }()
			if err := v.killAndRestart(ctx); err != nil {
				s.giveUp(err)
			}
		})
	}
}

// killAndRestart ends a daemon, one time in eight with SIGTERM, and starts it again; one time in eight it is killed again while it
// starts. Its error is that the daemon does not come back.
func (v *victim) killAndRestart(ctx context.Context) error {
	v.epoch.Add(1)
	signal := syscall.SIGKILL
	if rand.IntN(8) == 0 {
		signal = syscall.SIGTERM
		v.terms++
	} else {
		v.kills++
	}
	if err := v.end(signal); err != nil {
		return err
	}
	var handedOut []string
	if v.name == "ca" {
		handedOut = v.book.takeFresh()
	}
	v.verifyDead(ctx)
	began, err := v.start()
	if err == nil && rand.IntN(8) == 0 {
		time.Sleep(rand.N(150 * time.Millisecond))
		v.early++
		v.kills++
		if err := v.end(syscall.SIGKILL); err != nil {
			return err
		}
		began, err = v.start()
	}
	if err != nil {
		return err
	}
	if err := v.ready(ctx); err != nil {
		return err
	}
	v.recovered = append(v.recovered, time.Since(began))
	v.epoch.Add(1)
	if v.name == "ca" {
		v.checks <- handedOut
		v.verifyRunning(ctx)
	}
	return nil
}

// end sends the signal and waits for the end. A daemon that has ended by itself, or does not end well when it is asked to, is an error.
func (v *victim) end(signal syscall.Signal) error {
	if v.gone() {
		return fmt.Errorf("zegel-%s ended by itself: %s", v.name, lastLine(v.log()))
	}
	if err := syscall.Kill(v.pid, signal); err != nil {
		return fmt.Errorf("signal zegel-%s: %w", v.name, err)
	}
	for deadline := time.Now().Add(20 * time.Second); !v.gone(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("zegel-%s (pid %d) is still there 20 s after %v", v.name, v.pid, signal)
		}
	}
	if signal == syscall.SIGTERM && v.cmd != nil && v.cmd.ProcessState.ExitCode() != 0 {
		return fmt.Errorf("zegel-%s ended with %v after SIGTERM: %s", v.name, v.cmd.ProcessState, lastLine(v.log()))
	}
	return nil
}

func (v *victim) gone() bool {
	if v.ended == nil {
		return errors.Is(syscall.Kill(v.pid, 0), syscall.ESRCH) // the demo reaps it
	}
	select {
	case <-v.ended:
		return true
	default:
		return false
	}
}

func (v *victim) log() string { return filepath.Join(v.r.dir, "log", v.name+".log") }

// start runs the daemon from its own configuration.
func (v *victim) start() (time.Time, error) {
	began := time.Now()
	// The collector looks often: else the memory that opening keys took, 32 MB a key, hides for minutes what is alive.
	cmd, ended, err := v.r.launch(v.name, "GOGC=25")
	if err != nil {
		return began, fmt.Errorf("start zegel-%s: %w", v.name, err)
	}
	v.cmd, v.pid, v.ended = cmd, cmd.Process.Pid, ended
	return began, nil
}

// ready waits until the daemon says that it is.
func (v *victim) ready(ctx context.Context) error {
	var last error
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if v.gone() {
			return fmt.Errorf("zegel-%s does not start again: %s", v.name, lastLine(v.log()))
		}
		if last = healthy(ctx, v.r.HealthURLs[v.name]); last == nil {
			return nil
		}
	}
	return fmt.Errorf("zegel-%s is not ready after a minute: %w", v.name, last)
}

// stopOurs ends the instances that the test started.
func (s *soak) stopOurs() {
	for _, v := range s.daemons {
		if v.ended != nil && !v.gone() {
			v.cmd.Process.Signal(syscall.SIGTERM)
			<-v.ended
		}
	}
}

// mayVerify reports whether a verification may be made: they get a twentieth of the time, because they take longer as journals grow.
func (v *victim) mayVerify() bool { return v.spent < time.Since(v.began)/20 }

// verifyDead verifies the journal of a daemon that is not there, as the kill left it.
func (v *victim) verifyDead(ctx context.Context) {
	if !v.mayVerify() {
		return
	}
	began := time.Now()
	if _, err := verifyStill(ctx, v.r.Journals[v.name]); err != nil {
		v.fault("zegel-%s after a kill: %v", v.name, err)
	}
	v.spent += time.Since(began)
	v.figures.verified.Add(1)
}

// verifyStill verifies a journal that lies still.
func verifyStill(ctx context.Context, dir string) (report journal.Report, err error) {
	j, err := journal.OpenReadOnly(dir)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	report, err = j.Verify(ctx)
	if err == nil && !report.OK {
		err = fmt.Errorf("the journal in %s has faults: %+v", dir, report.Faults)
	}
	return report, err
}

// verifyRunning has the CA, which alone has the keys to its bodies, verify its journal.
func (v *victim) verifyRunning(ctx context.Context) {
	if !v.mayVerify() {
		return
	}
	began := time.Now()
	report, err := v.ca.VerifyJournal(ctx)
	if err == nil && !report.OK {
		err = fmt.Errorf("it has faults: %+v", report.Faults)
	}
	if err != nil && ctx.Err() == nil {
		v.fault("verify the running CA's journal: %v", err)
	}
	v.spent += time.Since(began)
	v.figures.verified.Add(1)
}

// launch starts a daemon from its own configuration, as an operator would, with more in its environment.
func (r *running) launch(name string, env ...string) (*exec.Cmd, chan struct{}, error) {
	log, err := os.OpenFile(filepath.Join(r.dir, "log", name+".log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries, "zegel-"+name), "--config", r.Configs[name])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait() // how it ended is in ProcessState
		close(ended)
	}()
	return cmd, ended, nil
}
