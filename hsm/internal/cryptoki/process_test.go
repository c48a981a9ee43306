package cryptoki

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

// TestMain is the helper process where it was started as one, or one that misbehaves.
func TestMain(m *testing.M) {
	if os.Args[0] == processName {
		misbehave(os.Getenv("ZEGEL_TEST_MISBEHAVE"))
	}
	if status, served := Serve(os.Args); served {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// misbehave is what a process does that is none of ours.
func misbehave(how string) {
	socket := os.NewFile(socketFD, "socket")
	greeting, _ := (&message{function: hello, texts: [][]byte{[]byte(helloText)}}).encode(make([]byte, 0, 100))
	switch how {
	case "mute":
		time.Sleep(time.Hour)
	case "stranger":
		fmt.Fprint(socket, "HTTP/1.1 400 Bad Request\r\n\r\n")
		time.Sleep(time.Hour)
	case "ends":
		os.Exit(3)
	case "deaf":
		socket.Write(greeting)
		time.Sleep(time.Hour)
	case "garbage":
		socket.Write(greeting)
		socket.Read(make([]byte, 100))
		socket.Write(bytes.Repeat([]byte{0xa5}, 5000))
		time.Sleep(time.Hour)
	case "unasked":
		socket.Write(greeting)
		answer, _ := (&message{id: 77, function: load}).encode(make([]byte, 0, 100))
		socket.Write(answer)
		time.Sleep(time.Hour)
	case "wrong shape":
		socket.Write(greeting)
		answer, _ := (&message{id: 1, function: load, numbers: []uint64{1, 2}}).encode(make([]byte, 0, 100))
		socket.Read(make([]byte, 100))
		socket.Write(answer)
		time.Sleep(time.Hour)
	}
}

// book is a log that can be read while it is written.
type book struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// isolated is tiny in a process of its own, initialised.
func isolated(t *testing.T, limit time.Duration, env map[string]string) (*process, *book) {
	t.Helper()
	log := new(book)
	p := Isolate(Isolation{Path: buildTiny(t), Env: env, Limit: limit, Log: slog.New(slog.NewTextHandler(log, nil))}).(*process)
	if err := p.Initialize(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Finalize(); err != nil {
			t.Error(err)
		}
	})
	return p, log
}

func signTiny(l Library, message string) (string, error) {
	signature, err := l.SignOnce(1, pkcs11.NewMechanism(1, nil), 2, []byte(message), nil)
	return string(signature), err
}

func pid(p *process) int { return p.child.Load().cmd.Process.Pid }

// A library in a process of its own answers as it does in this one.
func TestProcess(t *testing.T) {
	p, log := isolated(t, time.Minute, nil)
	if got, err := signTiny(p, "message"); err != nil || got != "signs 1 parameter 0 login -1 pin 0 0" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := p.SignOnce(1, pkcs11.NewMechanism(1, []byte("pss")), 2, nil, []byte("1234")); err != nil || !strings.HasPrefix(string(got), "signs 2 parameter 3 login 2 pin ") || !strings.HasSuffix(string(got), " 4") {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := p.SignOnce(1, pkcs11.NewMechanism(1, nil), 2, nil, []byte{}); err != nil || !strings.HasPrefix(string(got), "signs 3 parameter 0 login 2") {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := signTiny(p, "Long"); err != nil || len(got) != 600 {
		t.Errorf("%q, %v", got, err)
	}
	for _, c := range []struct {
		message, function string
		mechanism, code   uint
		pin               []byte
	}{
		{"", "C_SignInit", pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_INVALID, nil},
		{"Fails", "C_Sign", 1, pkcs11.CKR_FUNCTION_FAILED, nil},
		{"", "C_Login", 1, pkcs11.CKR_PIN_INCORRECT, []byte("wrong")},
	} {
		_, err := p.SignOnce(1, pkcs11.NewMechanism(c.mechanism, nil), 2, []byte(c.message), c.pin)
		var call *CallError
		if !errors.As(err, &call) || call.Function != c.function || !errors.Is(err, pkcs11.Error(c.code)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := p.InitToken(7, []byte("so"), "label"); err != nil {
		t.Error(err)
	}
	if err := p.Login(1, pkcs11.CKU_USER, []byte("wrong")); !errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)) {
		t.Error(err)
	}
	list := []*pkcs11.Attribute{pkcs11.NewAttribute(0x40000212, []byte("pointers"))}
	if _, err := p.UnwrapKey(1, []*pkcs11.Mechanism{pkcs11.NewMechanism(1, nil)}, 1, []byte("key"), list); err == nil || !strings.Contains(err.Error(), "use isolation none") {
		t.Errorf("a list of attributes: %v", err)
	}
	if _, err := p.SignOnce(1, pkcs11.NewMechanism(1, nil), 2, make([]byte, maxFrame), nil); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a message beyond all limits: %v", err)
	}
	if log.String() != "" {
		t.Errorf("the log has %s", log)
	}
}

// A call that does not return, a crash and a kill end the process, and with it every call inside; Initialize starts another.
func TestProcessGone(t *testing.T) {
	for _, c := range []struct {
		name, says string
		end        func(*process) error
	}{
		{"hang", "C_SignInit, C_Sign has not returned within 300ms", func(p *process) error { _, err := signTiny(p, "Hang"); return err }},
		{"crash", "exit status 2", func(p *process) error { _, err := signTiny(p, "Crash"); return err }},
		{"kill", "signal: killed", func(p *process) error { return syscall.Kill(pid(p), syscall.SIGKILL) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, log := isolated(t, 300*time.Millisecond, nil)
			first, goroutines := pid(p), runtime.NumGoroutine()
			var short atomic.Bool // the others are to be ended by another
			p.child.Load().limits = func(_ function, quick time.Duration) time.Duration {
				if short.Load() {
					return quick
				}
				return time.Minute
			}
			var others sync.WaitGroup
			for range 8 {
				others.Go(func() {
					if _, err := signTiny(p, "Hang"); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), c.says) {
						t.Errorf("another call: %v", err)
					}
				})
			}
			time.Sleep(100 * time.Millisecond)
			short.Store(true)
			begin := time.Now()
			if err := c.end(p); err != nil && !errors.Is(err, ErrGone) {
				t.Error(err)
			}
			others.Wait()
			if took := time.Since(begin); took > 800*time.Millisecond {
				t.Errorf("the calls ended after %v", took)
			}
			if _, err := signTiny(p, "again"); !errors.Is(err, ErrGone) {
				t.Errorf("a call afterwards: %v", err)
			}
			if err := p.Initialize(); err != nil {
				t.Fatal(err)
			}
			if _, err := signTiny(p, "again"); err != nil || pid(p) == first {
				t.Errorf("another process: %v", err)
			}
			if err := syscall.Kill(first, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d is still there: %v", first, err)
			}
			if !strings.Contains(log.String(), c.says) {
				t.Errorf("the log has %s", log)
			}
			wantGoroutines(t, goroutines)
		})
	}
}

func wantGoroutines(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%d goroutines, there were %d", runtime.NumGoroutine(), want)
			return
		}
	}
}

// A process that is none of ours, or has lost its wits, is an error that says so, and is ended.
func TestProcessMisbehaves(t *testing.T) {
	path := buildTiny(t)
	for how, says := range map[string]string{
		"mute": "hsm.RunHelper", "stranger": "hsm.RunHelper", "ends": "", "deaf": "dlopen has not returned within 200ms",
		"garbage": "malformed message", "unasked": "answers what was not asked", "wrong shape": "its answer to dlopen is none",
	} {
		c := Isolation{Path: path, Env: map[string]string{"ZEGEL_TEST_MISBEHAVE": how}, Limit: 200 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
		p := Isolate(c).(*process)
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		if err := p.initialize(func(function, time.Duration) time.Duration { return 200 * time.Millisecond }); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", how, err, says)
		}
		wantGoroutines(t, goroutines)
		if now := openFiles(t); now > files {
			t.Errorf("%s: %d files are open, there were %d", how, now, files)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// What is no library is an error that names it, and leaves no process.
func TestProcessNoLibrary(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Isolate(Isolation{Path: text, Limit: time.Second, Log: slog.New(slog.DiscardHandler)}).(*process)
	if err := p.Initialize(); !errors.Is(err, pkcs11.Error(pkcs11.CKR_LIBRARY_LOAD_FAILED)) || !strings.Contains(err.Error(), text) {
		t.Error(err)
	}
	if p.child.Load() != nil {
		t.Error("a process is left")
	}
	if _, err := p.GetInfo(); !errors.Is(err, ErrGone) {
		t.Errorf("a call without a process: %v", err)
	}
}

// The process has the environment that is meant for it and no more, leaves no core, cannot be looked into, and has no descriptor but its own.
func TestProcessHardened(t *testing.T) {
	t.Setenv("ZEGEL_TEST_SECRET", "p1n4")
	p, log := isolated(t, time.Minute, map[string]string{"TINY_CONF": "/etc/tiny", "LANG": "xx"})
	if err := p.Login(1, pkcs11.CKU_USER, []byte("p1n4")); err != nil {
		t.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", pid(p))
	environment, command := strings.Join(p.child.Load().cmd.Env, "\x00")+"\x00", read(t, proc+"cmdline") // its own environ is for root alone
	if strings.Contains(environment+command, "p1n4") || !strings.Contains(environment, "TINY_CONF=/etc/tiny\x00") || strings.Count(environment, "LANG=") != 1 || !strings.Contains(environment, "LANG=xx") {
		t.Errorf("its environment is %q, its arguments are %q", environment, command)
	}
	if limits := read(t, proc+"limits"); !strings.Contains(limits, "Max core file size        0                    0 ") {
		t.Errorf("its limits are %s", limits)
	}
	if stat, err := os.Stat(proc + "mem"); err != nil || stat.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("its memory can be opened by its user: %+v, %v", stat, err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := syscall.Kill(pid(p), signal); err != nil {
			t.Error(err)
		}
	}
	if _, err := signTiny(p, "Error"); err != nil {
		t.Errorf("after the signals that end a daemon: %v", err)
	}
	for end := time.Now().Add(2 * time.Second); !strings.Contains(log.String(), "something is wrong") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(log.String(), "something is wrong") {
		t.Errorf("the log has %q", log)
	}
	if _, err := signTiny(p, "Crash"); !errors.Is(err, ErrGone) || strings.Contains(err.Error(), "core dumped") {
		t.Errorf("crash: %v", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Starting and ending leaves no process, goroutine or file behind; many calls at once get their own answers.
func TestProcessAgain(t *testing.T) {
	p, _ := isolated(t, time.Minute, nil)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 10 {
		old := pid(p)
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				for j := range 20 {
					slots, err := p.GetTokenInfo(uint(i*100 + j))
					if err != nil {
						t.Error(slots, err)
					}
				}
			})
		}
		all.Wait()
		if err := p.Finalize(); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(old, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", old, err)
		}
		if err := p.Initialize(); err != nil {
			t.Fatal(err)
		}
	}
	wantGoroutines(t, goroutines)
	if now := openFiles(t); now > files {
		t.Errorf("%d files are open, there were %d", now, files)
	}
}

// piped is a child behind a pipe, which takes a write only as it is read.
func piped(t *testing.T, limit time.Duration) (c *child, other net.Conn) {
	t.Helper()
	conn, other := net.Pipe()
	c = &child{log: slog.New(slog.DiscardHandler), limits: func(function, time.Duration) time.Duration { return limit }, kill: func() error { return nil },
		conn: conn, to: &sender{to: conn}, ended: make(chan struct{}), down: make(chan struct{}), calls: make(map[uint64]chan *message)}
	close(c.ended)
	t.Cleanup(func() { c.fail(errors.New("the test is over")); other.Close() })
	return c, other
}

// A process that does not even read what it is asked is ended within the limit.
func TestProcessReadsNothing(t *testing.T) {
	c, _ := piped(t, 50*time.Millisecond)
	ended := make(chan error)
	go func() {
		_, err := c.call(&message{function: getInfo})
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "C_GetInfo has not returned within 50ms") {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the call has not returned")
	}
}

// A caller that is late to its answer, because it writes what others ask or the machine is busy, is no reason to kill the process.
func TestProcessAnswersLateCaller(t *testing.T) {
	const limit = 20 * time.Millisecond
	for range 10 { // of two things that are ready, select takes either
		c, other := piped(t, limit)
		go c.read(newReceiver(c.conn))
		ended := make(chan error)
		go func() {
			_, err := c.call(&message{function: finalize})
			ended <- err
		}()
		if _, err := other.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		answer, err := (&message{id: 1, function: finalize}).encode(make([]byte, 0, 100))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Write(answer); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * limit)
		if _, err := other.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}
