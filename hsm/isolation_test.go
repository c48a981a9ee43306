package hsm_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// helpers are the modules' processes that this process has started.
func helpers(t *testing.T) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(lists) == 0 {
		t.Fatalf("list child processes: %v", err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list) // of a thread that may have ended
		for _, field := range strings.Fields(string(text)) {
			command, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if pid, err := strconv.Atoi(field); err == nil && strings.HasPrefix(string(command), "zegel-pkcs11\x00") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func wantProcesses(t *testing.T, isolation string) {
	t.Helper()
	want := 0
	if isolation == hsm.IsolationProcess {
		want = 1
	}
	end := time.Now().Add(2 * time.Second)
	for len(helpers(t)) != want {
		if time.Now().After(end) {
			t.Errorf("%d processes of modules, want %d", len(helpers(t)), want)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// One hang or crash, in any function that a signature or its repair needs, costs no signature where the module has a process of its own.
func TestProcessFaults(t *testing.T) {
	type fault struct{ action, trigger, function string }
	var faults []fault
	for _, action := range []string{"hang", "crash"} {
		for trigger, functions := range called {
			for _, function := range functions {
				if strings.HasPrefix(function, "C_Sign") || trigger != "" { // others are the wrapping key's
					faults = append(faults, fault{action, trigger, function})
				}
			}
		}
	}
	all := lanes(t, 8, func(c *hsm.Config) {
		c.Sessions, c.Isolation, c.CallTimeout = 4, hsm.IsolationProcess, 200*time.Millisecond
		hsm.LimitStart(c, 2*time.Second)
	})
	spread(t, all, faults, func(l *lane, f fault) {
		l.Break(t, f.trigger, fmt.Sprintf("%s 1 1 %s", f.function, f.action))
		if err := trySign(t, l.key); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s in %s: %v", f.action, f.function, err)
		}
		if l.Calls(t, f.function) == 0 && f.function != "C_Finalize" && f.function != "C_GetInfo" {
			t.Errorf("%s after %q was not called", f.function, f.trigger)
		}
		begin := time.Now()
		for err := trySign(t, l.key); err != nil; err = trySign(t, l.key) {
			if time.Since(begin) > 2*time.Second {
				t.Errorf("%s in %s: no signature %v later: %v", f.action, f.function, time.Since(begin), err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	for _, l := range all {
		l.Break(t)
		sign(t, l.key)
		if opened, err := hsm.OpenSessions(l.tokens, l.URI("sign")); err != nil || l.Sessions(t) > opened+1 {
			t.Errorf("%d sessions are open with the token, the pool has %d, %v", l.Sessions(t), opened, err)
		}
	}
}

// A module's process that is killed costs no call, whatever is asked next, and leaves none behind.
func TestProcessKilled(t *testing.T) {
	token, tokens, key := isolatedKey(t, hsm.Settings{Sessions: 4, Isolation: hsm.IsolationProcess})
	for name, next := range map[string]func() error{
		"sign":           func() error { return trySign(t, key) },
		"open a key":     func() error { _, err := tokens.Key(token.URI("a")); return err },
		"describe a key": func() error { _, err := key.Info(); return err },
		"list keys":      func() error { _, err := tokens.Keys(token.URI("a")); return err },
		"list tokens":    func() error { _, err := tokens.List(token.URI("")); return err },
		"make a key": func() error {
			_, err := tokens.Generate(token.URI(fmt.Sprint("made ", time.Now())), hsm.P256)
			return err
		},
	} {
		pids := helpers(t)
		if len(pids) != 1 {
			t.Fatalf("%d processes of modules", len(pids))
		}
		if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := next(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantProcesses(t, hsm.IsolationProcess)
	}
	if err := tokens.Close(); err != nil {
		t.Error(err)
	}
	wantProcesses(t, hsm.IsolationNone)
}

// Signing goes on within 2 s and the limit of a call of the end of an outage in which every call hangs, by callers that never stop asking.
func TestProcessHangs(t *testing.T) {
	token, _, key := isolatedKey(t, hsm.Settings{Sessions: 8, Isolation: hsm.IsolationProcess, CallTimeout: time.Second})
	goroutines := runtime.NumGoroutine()
	token.Break(t, "C_Sign 1 0 hang")
	end := make(chan struct{})
	var back, repaired atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(5 * time.Millisecond):
				}
				switch err := trySign(t, key); {
				case err == nil && back.Load() == 0:
					t.Error("a signature during the outage")
				case err == nil:
					repaired.CompareAndSwap(0, time.Now().UnixNano())
				case !errors.Is(err, hsm.ErrUnavailable):
					t.Error(err)
				}
			}
		})
	}
	time.Sleep(4 * time.Second)
	back.Store(time.Now().UnixNano())
	token.Break(t)
	for deadline := time.Now().Add(5 * time.Second); repaired.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	close(end)
	group.Wait()
	if took := time.Duration(repaired.Load() - back.Load()); repaired.Load() == 0 || took > 2*time.Second {
		t.Errorf("signatures came back %v after the token; want within 2 s", took)
	} else {
		t.Logf("back after %v", took)
	}
	wantGoroutines(t, goroutines)
	wantProcesses(t, hsm.IsolationProcess)
}

// Without a process of its own, a call that does not return frees its caller and is lost with its session; others go on, on new sessions; what needs the
// library to be empty waits. Once it returns, nothing is left of it.
func TestHangs(t *testing.T) {
	const limit = 300 * time.Millisecond
	token, tokens, key := isolatedKey(t, hsm.Settings{Sessions: 4, Isolation: hsm.IsolationNone, CallTimeout: limit})
	goroutines := runtime.NumGoroutine()
	for round := range 3 {
		// the first call returns when the orders change, the second is answered, the third calls for a repair
		token.Break(t, "C_Sign 1 1 stall", fmt.Sprintf("C_SignInit 3 0 answer 0x%x", pkcs11.CKR_DEVICE_ERROR))
		begin := time.Now()
		if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "C_SignInit, C_Sign has not returned within 300ms") {
			t.Fatalf("sign: %v", err)
		}
		if took := time.Since(begin); took > limit+200*time.Millisecond {
			t.Errorf("it took %v to say so", took)
		}
		if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("at once: %v; want a refusal", err)
		}
		wantBack(t, "beside a call that does not return", key)
		if info, err := key.Info(); err != nil {
			t.Errorf("look-up: %+v, %v", info, err)
		}
		if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "does not return") {
			t.Errorf("round %d: sign: %v; want a call that does not return", round, err)
		}
		token.Break(t)
		wantBack(t, "after the call has returned", key)
	}
	wantGoroutines(t, goroutines)
	token.Break(t, "C_SignInit 1 1 answer 0xb3") // a new session, which first closes what is left over
	sign(t, key)
	if opened, err := hsm.OpenSessions(tokens, token.URI("a")); err != nil || token.Sessions(t) > opened+1 {
		t.Errorf("%d sessions are open with the token, the pool has %d, %v", token.Sessions(t), opened, err)
	}
}

// The PIN is in neither environment nor arguments of a module's process, module_env is not in ours, and what a module's process says is logged.
func TestProcessSecrets(t *testing.T) {
	const name = "ZEGEL_TEST_MODULE_ENV"
	token := hsmtest.NewFaulty(t)
	log := new(lines)
	token.Config.Isolation, token.Config.Log = hsm.IsolationProcess, slog.New(slog.NewTextHandler(log, nil))
	token.Config.ModuleEnv[name] = "for the module"
	t.Setenv("ZEGEL_TEST_PIN", "not a secret")
	u, err := hsm.ParseURI(token.URI("a"))
	if err != nil {
		t.Fatal(err)
	}
	u.PINSource = "env:ZEGEL_TEST_PIN"
	tokens := open(t, token.Config)
	key := generate(t, tokens, u.String(), hsm.P256)
	for _, pid := range helpers(t) {
		proc := fmt.Sprintf("/proc/%d/", pid)
		command, environment := readAll(t, proc+"cmdline"), name+"=for the module\x00"
		if os.Geteuid() == 0 { // others cannot read it
			environment = readAll(t, proc+"environ")
		}
		if strings.Contains(environment+command, "not a secret") || !strings.Contains(environment, name+"=for the module\x00") {
			t.Errorf("its environment is %q, its arguments are %q", environment, command)
		}
	}
	if value, set := os.LookupEnv(name); set {
		t.Errorf("%s is %q in this process", name, value)
	}
	token.Break(t, "C_Sign 1 1 crash")
	sign(t, key)
	if text := log.String(); !strings.Contains(text, "SIGABRT") || !strings.Contains(text, "the process of a PKCS#11 module is gone") || strings.Contains(text, "not a secret") {
		t.Errorf("the log has %s", text)
	}
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// An isolation that there is not is an error that names those there are.
func TestIsolationUnknown(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	token.Config.Isolation = "container"
	tokens := open(t, token.Config)
	if _, err := tokens.Key(token.URI("a")); err == nil || !strings.Contains(err.Error(), `isolation "container": give none or process`) {
		t.Error(err)
	}
}

// Calls that wait for the login in a line do not each hang in it after the other: once one has not returned, those behind it are refused.
func TestHangingLoginIsNotQueuedFor(t *testing.T) {
	const limit, callers = 300 * time.Millisecond, 16
	token, _, key := isolatedKey(t, hsm.Settings{Sessions: callers, Isolation: hsm.IsolationNone, CallTimeout: limit})
	token.Break(t, fmt.Sprintf("C_SignInit 1 1 answer 0x%x", pkcs11.CKR_USER_NOT_LOGGED_IN), "C_Login 1 0 delay 1500")
	begin := time.Now()
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			if err := trySign(t, key); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if took := time.Since(begin); took > 5*limit {
		t.Errorf("the last of %d callers heard after %v", callers, took)
	}
	token.Break(t)
	time.Sleep(1600 * time.Millisecond) // they return
	for end := time.Now().Add(5 * time.Second); trySign(t, key) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no signature 5 s later")
		}
	}
	time.Sleep(longestPause) // nothing that was begun meanwhile is inside when the module is finalized
}

// A module that takes long to load keeps nobody from the others.
func TestSlowLoad(t *testing.T) {
	first := hsmtest.NewFaulty(t)
	second := first.Beside(t, "second")
	second.Config.Isolation = hsm.IsolationProcess
	tokens := open(t, second.Config)
	first.Break(t, "C_Initialize 1 0 delay 3000")
	slow := make(chan error)
	go func() {
		_, err := tokens.List(first.URI(""))
		slow <- err
	}()
	time.Sleep(200 * time.Millisecond)
	begin := time.Now()
	if _, err := tokens.List(second.URI("")); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the other module took %v", took)
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("the slow one took %v only", took)
	}
}

// A token that comes back while another one of its module works is seen by one more process of the module, and is back within 2 s.
func TestTokenReturnsBesideAnother(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	token.Config.Isolation = hsm.IsolationProcess
	before := folders(t, token.Dir)
	token.Init(t, secondToken)
	var gone string
	for name := range folders(t, token.Dir) {
		if !before[name] {
			gone = filepath.Join(token.Dir, name)
		}
	}
	tokens := open(t, token.Config)
	stays := generate(t, tokens, token.URI("a"), hsm.P256)
	leaves := generate(t, tokens, strings.Replace(token.URI("b"), "zegel%20test", secondToken, 1), hsm.P256)
	for range 2 {
		if err := os.Rename(gone, token.Dir+".away"); err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); time.Since(begin) < time.Second; { // long enough for the repair that disturbs the other
			if err := trySign(t, leaves); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
				t.Fatal(err)
			}
			sign(t, stays)
		}
		if err := trySign(t, leaves); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("sign without a token: %v", err)
		}
		if err := os.Rename(token.Dir+".away", gone); err != nil {
			t.Fatal(err)
		}
		wantBack(t, "the second token", leaves)
		sign(t, stays)
	}
}

// folders are the names in dir.
func folders(t *testing.T, dir string) map[string]bool {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, f := range list {
		names[f.Name()] = true
	}
	return names
}
