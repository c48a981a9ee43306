package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	readyWithin = 30 * time.Second // from a daemon's start to a /health that says ready
	stopWithin  = 15 * time.Second // from SIGTERM to its end; then SIGKILL
)

// child is a daemon the demo started. Somebody may kill it, or run another in its place: the demo
// only notices, and neither restarts it nor ends.
type child struct {
	name   string
	health string // address of /health
	log    string // file with what it wrote
	cmd    *exec.Cmd
	ended  chan struct{} // closed once it is reaped
	result error         // valid after ended
}

// sibling is the path of a binary that lies beside this one.
func sibling(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s beside %s: %w: build all binaries with make build", name, self, err)
	}
	return path, nil
}

// startDaemon runs a sibling binary with its configuration, in a process group of its own, so that an
// interrupt at the terminal reaches the demo alone, which then stops its children in order.
func startDaemon(name, config, health, log string) (*child, error) {
	binary, err := sibling("zegel-" + name)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of zegel-%s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(binary, "--config", config)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start zegel-%s: %w", name, err)
	}
	c := &child{name: name, health: health, log: log, cmd: cmd, ended: make(chan struct{})}
	go func() {
		c.result = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// ready waits until /health says so. A child that ends first, or is not ready in time, is an error with its last words.
func (c *child) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var last error
	for {
		if last = healthy(ctx, c.health); last == nil && !c.gone() {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("start zegel-%s: it ended (%v): %s", c.name, c.result, lastLine(c.log))
		case <-ctx.Done():
			return fmt.Errorf("start zegel-%s: not ready within %v: %w; its log is %s", c.name, readyWithin, last, c.log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// answers reports whether anybody is there, well or not.
func answers(ctx context.Context, address string) bool {
	at, err := url.Parse(address)
	if err != nil {
		return false
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", at.Host)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// healthy asks one /health once.
func healthy(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var answer struct {
		Reason string `json:"reason"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer); err != nil {
		return fmt.Errorf("ask %s: HTTP %d", url, resp.StatusCode)
	}
	return errors.New(answer.Reason)
}

func (c *child) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// stop ends the child: SIGTERM, and SIGKILL for one that does not go.
func (c *child) stop() error {
	if c.gone() {
		return nil
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop zegel-%s: %w", c.name, err)
	}
	select {
	case <-c.ended:
		return nil
	case <-time.After(stopWithin):
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill zegel-%s: %w", c.name, err)
	}
	<-c.ended
	return fmt.Errorf("stop zegel-%s: it did not end within %v of SIGTERM and was killed", c.name, stopWithin)
}

// lastLine is the last thing a daemon wrote, for an error message.
func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1] + "\n(all of it is in " + path + ")"
}

// Ports of a demo, which it keeps: below those that systems give to outgoing connections.
const firstPort, lastPort = 20000, 32000

// freePorts finds n different free loopback addresses.
func freePorts(n int) ([]string, error) {
	var list []string
	for range 100 * n {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue // taken
		}
		defer l.Close() // held until all are chosen, so that no two are equal
		if list = append(list, address); len(list) == n {
			return list, nil
		}
	}
	return nil, fmt.Errorf("find free ports: fewer than %d between %d and %d", n, firstPort, lastPort)
}
