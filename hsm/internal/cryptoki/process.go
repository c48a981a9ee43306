package cryptoki

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/pkcs11"
)

// ErrGone is wrapped by calls whose library's process has ended, or was ended because a call did not return. All handles are gone with it;
// Initialize starts another one.
var ErrGone = errors.New("the process of the PKCS#11 module is gone")

// Isolation says how a library runs in a process of its own.
type Isolation struct {
	Path  string            // of the library, absolute
	Env   map[string]string // what it reads from the environment; of this process's it gets the variables of inherited only
	Limit time.Duration     // how long most calls may take; those that take long by nature get more
	Start time.Duration     // how long loading the library and its C_Initialize may take each; 0: 30 s
	Log   *slog.Logger      // gets what the process writes to standard error, and how it ended
}

// endLimit is how long a process may take to end by itself, and what it started to close its standard error.
const endLimit = time.Second

// inherited are the variables of our own environment that a library's process gets.
func inherited() []string {
	return []string{"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ"}
}

// process is a library in a process of its own. It has handles as the library gave them.
type process struct {
	config Isolation
	child  atomic.Pointer[child] // nil before Initialize and after Finalize
	mu     sync.Mutex            // held by what starts and ends it
}

// Isolate returns a library that runs in a process of its own from its Initialize to its Finalize: this program, started again, which has to call
// Serve first. A call that takes longer than its limit, and a crash, end that process; all calls inside it then fail with ErrGone.
func Isolate(c Isolation) Library { return &process{config: c} }

// child is one process.
type child struct {
	path   string // of the library
	log    *slog.Logger
	limits func(f function, quick time.Duration) time.Duration
	limit  time.Duration // the quick one
	cmd    *exec.Cmd
	kill   func() error
	conn   net.Conn
	to     *sender
	ended  chan struct{} // closed when the process is reaped

	down   chan struct{} // closed when no call will be answered any more
	reason error         // wraps ErrGone; set before down is closed

	mu    sync.Mutex
	next  uint64
	calls map[uint64]chan *message // nil when down
}

// start starts the process and waits for its hello.
func (p *process) start(limits func(function, time.Duration) time.Duration) (*child, error) {
	if len(os.Args) > 0 && os.Args[0] == processName {
		return nil, errors.New("this process was started for a PKCS#11 module and does not serve it: its main has to call hsm.RunHelper first")
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	defer theirs.Close()
	program, err := executable()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &child{path: p.config.Path, log: p.config.Log, limits: limits, limit: p.config.Limit, conn: conn, to: &sender{to: conn}, ended: make(chan struct{}), down: make(chan struct{}),
		calls: make(map[uint64]chan *message)}
	output := &lineLog{log: p.config.Log}
	c.kill = func() error { return c.cmd.Process.Kill() }
	c.cmd = &exec.Cmd{Path: program, Args: []string{processName, p.config.Path}, Env: p.environment(), Stdout: output, Stderr: output,
		ExtraFiles: []*os.File{theirs}, SysProcAttr: attributes(), WaitDelay: endLimit}
	started := make(chan error)
	go c.live(started)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", program, err), conn.Close())
	}
	from := newReceiver(conn)
	if err := c.greet(from); err != nil {
		c.fail(err)
		c.wait()
		return nil, c.reason
	}
	go c.read(from)
	return c, nil
}

// environment is what the process gets.
func (p *process) environment() []string {
	list := []string{"GOTRACEBACK=none"} // a crash in the library is one line, not the stack of every call
	for _, name := range inherited() {
		if value, set := os.LookupEnv(name); set {
			if _, replaced := p.config.Env[name]; !replaced {
				list = append(list, name+"="+value)
			}
		}
	}
	for name, value := range p.config.Env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// socketPair is one that nobody else can connect to.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // until both are closed on exec
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "socket")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "socket")
	if ours, err = net.FileConn(f); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// live starts the process and reaps it. It keeps its thread, because the process dies with the thread that started it.
func (c *child) live(started chan<- error) {
	runtime.LockOSThread() // for ever: the thread ends with this goroutine
	if err := c.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	err := c.cmd.Wait()
	if state := c.cmd.ProcessState; state != nil {
		err = errors.New(state.String())
	}
	c.fail(fmt.Errorf("it ended by itself: %w", err))
	close(c.ended)
}

// greet makes sure that the process is one of ours.
func (c *child) greet(from *receiver) error {
	c.conn.SetReadDeadline(time.Now().Add(c.limits(hello, c.limit))) //nolint:errcheck // a socket has deadlines
	m, err := from.receive()
	if err != nil || m.function != hello || !m.function.answer().fits(m) || string(m.texts[0]) != helloText {
		return errors.New("it does not say hello: the main function of this program has to call hsm.RunHelper first")
	}
	return c.conn.SetReadDeadline(time.Time{})
}

// fail ends the process and all calls inside it. Only the first reason counts.
func (c *child) fail(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		return
	}
	c.calls = nil
	c.reason = fmt.Errorf("%w: %w", ErrGone, reason)
	close(c.down)
	_ = c.kill()       // it may have ended by itself
	_ = c.conn.Close() // nothing is lost that anybody waits for
	c.log.Warn("the process of a PKCS#11 module is gone; the next call starts another", "module", c.path, "reason", reason.Error())
}

// read hands the responses to those who wait for them.
func (c *child) read(from *receiver) {
	for {
		m, err := from.receive()
		if err != nil {
			if !errors.Is(err, errMalformed) {
				select { // the process has ended; why is better known to whoever reaps it
				case <-c.ended:
				case <-time.After(endLimit):
				}
			}
			c.fail(fmt.Errorf("read from its socket: %w", err))
			return
		}
		c.mu.Lock()
		waiting := c.calls[m.id]
		delete(c.calls, m.id)
		c.mu.Unlock()
		if waiting == nil {
			c.fail(fmt.Errorf("it answers what was not asked (%v)", m.function))
			return
		}
		waiting <- m
	}
}

// call sends a request and waits for its response.
func (c *child) call(request *message) (*message, error) {
	answer := make(chan *message, 1)
	c.mu.Lock()
	if c.calls == nil {
		c.mu.Unlock()
		return nil, c.reason
	}
	c.next++
	request.id = c.next
	c.calls[request.id] = answer
	c.mu.Unlock()
	if err := request.check(); err != nil {
		c.mu.Lock()
		delete(c.calls, request.id)
		c.mu.Unlock()
		return nil, err
	}
	limit := c.limits(request.function, c.limit)
	timer := time.AfterFunc(limit, func() { c.expire(request.id, request.function, limit) }) // the write may block, too
	defer timer.Stop()
	if err := c.to.send(request); err != nil {
		c.fail(fmt.Errorf("write to its socket: %w", err))
	}
	var m *message
	select {
	case m = <-answer:
	case <-c.down:
		select {
		case m = <-answer: // it had answered before
		default:
			return nil, c.reason
		}
	}
	switch {
	case m.function != request.function || m.code == pkcs11.CKR_OK && !m.function.answer().fits(m):
		c.fail(fmt.Errorf("its answer to %v is none", request.function))
		return nil, c.reason
	case m.code == pkcs11.CKR_OK:
		return m, nil
	case request.function.part(m.failed) != "":
		return m, &CallError{request.function.part(m.failed), m.code}
	}
	return m, m.code
}

// expire ends a process that has not answered a call within its limit. A caller that has not got round to its answer yet is no reason.
func (c *child) expire(id uint64, f function, limit time.Duration) {
	c.mu.Lock()
	_, waiting := c.calls[id]
	c.mu.Unlock()
	if waiting {
		c.fail(fmt.Errorf("%v has not returned within %v: the process is killed", f, limit))
	}
}

// stop ends the process and waits until it has.
func (c *child) stop() {
	c.mu.Lock()
	quiet := c.calls != nil
	if quiet {
		c.calls, c.reason = nil, fmt.Errorf("%w: the module was finalized", ErrGone)
		close(c.down)
	}
	c.mu.Unlock()
	if quiet {
		_ = c.conn.Close() // the process ends on that
	}
	if !c.wait() {
		_ = c.kill() // or has just ended
		c.wait()
	}
}

// wait waits for the process to end, but not for ever: the kernel may not be able to end it while a device holds it.
func (c *child) wait() bool {
	select {
	case <-c.ended:
		return true
	case <-time.After(2 * endLimit):
		return false
	}
}

// lineLog makes lines of what a process writes log entries. It is for one goroutine.
type lineLog struct {
	log  *slog.Logger
	line []byte
}

// maxLine bounds a log entry, in octets.
const maxLine = 1024

func (l *lineLog) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' && len(l.line) < maxLine {
			l.line = append(l.line, b)
			continue
		}
		if text := bytes.TrimSpace(l.line); len(text) > 0 {
			l.log.Warn("a PKCS#11 module says", "text", string(text))
		}
		l.line = l.line[:0]
		if b != '\n' {
			l.line = append(l.line, b)
		}
	}
	return len(p), nil
}
