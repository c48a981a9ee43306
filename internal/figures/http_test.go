package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/tsa"
)

// staticEnv makes this test's binary the static server: it holds what the server is to answer.
const staticEnv = "ZEGEL_FIGURES_STATIC"

// TestMain collects garbage as often as the daemons do.
func TestMain(m *testing.M) {
	if status, helper := hsm.RunHelper(); helper { // a PKCS#11 module's process
		os.Exit(status)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(daemon.GCPercent)
	}
	if answer := os.Getenv(staticEnv); answer != "" {
		fmt.Fprintln(os.Stderr, serveStatic(answer))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serveStatic is the least that net/http can do: it answers everything with the same octets, after it has read the body. It
// writes its address to standard output, and ends when standard input does.
func serveStatic(answer string) error {
	body, err := base64.StdEncoding.DecodeString(answer)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/ocsp-response")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}))
}

// target is a server in a process of its own.
type target struct {
	address string
	pid     int
}

// startStatic starts the static server with that answer.
func startStatic(tb testing.TB, answer []byte) target {
	tb.Helper()
	self, err := os.Executable()
	must(tb, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), staticEnv+"="+base64.StdEncoding.EncodeToString(answer))
	stdin, err := cmd.StdinPipe()
	must(tb, err)
	stdout, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	tb.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(tb, err)
	return target{strings.TrimSpace(line), cmd.Process.Pid}
}

// demo is what demo.json says, as far as it is needed here.
type demo struct {
	OCSPURL      string         `json:"ocsp_url"`
	TSAURL       string         `json:"tsa_url"`
	Issuer       string         `json:"issuer"`
	PIDs         map[string]int `json:"pids"`
	Certificates []struct{ Cert, Status string }
}

// startDemo builds the binaries and starts a provider with software P-256 keys.
func startDemo(tb testing.TB) demo {
	tb.Helper()
	bin, dir := tb.TempDir(), filepath.Join(tb.TempDir(), "demo")
	build := exec.Command("go", "build", "-trimpath", "-o", bin+"/", "./cmd/...")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("build the binaries: %v\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "zegel"), "demo", "--dir", dir)
	cmd.Stderr = &log
	must(tb, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tb.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := <-ended; err != nil {
			tb.Errorf("the demo ended: %v\n%s", err, &log)
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "demo.json"))
		if err == nil {
			var d demo
			must(tb, json.Unmarshal(text, &d))
			return d
		}
		if len(ended) > 0 || time.Now().After(deadline) || !errors.Is(err, os.ErrNotExist) {
			tb.Fatalf("no demo: %v\n%s", err, &log)
		}
	}
}

// question is an OCSPRequest about the demo's first certificate that is good.
func (d demo) question(tb testing.TB, nonce bool) []byte {
	tb.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(name)
		must(tb, err)
		block, _ := pem.Decode(text)
		return block.Bytes
	}
	for _, c := range d.Certificates {
		if c.Status == "good" {
			return newQuestion(tb, parse(tb, read(c.Cert)), parse(tb, read(d.Issuer)), nonce)
		}
	}
	tb.Fatal("the demo has no good certificate")
	return nil
}

// BenchmarkHTTP asks the daemons from outside, and beside them a server that does nothing but answer with the same octets.
func BenchmarkHTTP(b *testing.B) {
	const connections = 64
	d := startDemo(b)
	question, nonce := d.question(b, false), d.question(b, true)
	answer := bytes.Clone(exchange(b, post(b, d.OCSPURL, "application/ocsp-request", question)))
	must(b, answered(answer))
	static := startStatic(b, answer)
	staticURL := "http://" + static.address + "/"
	for _, q := range []struct {
		name  string
		query query
		pid   int // of who answers
	}{
		{"static-get", get(b, staticURL, question), static.pid},
		{"ocsp-get", get(b, d.OCSPURL, question), d.PIDs["ocsp"]},
		{"static-post", post(b, staticURL, "application/ocsp-request", question), static.pid},
		{"ocsp-post", post(b, d.OCSPURL, "application/ocsp-request", question), d.PIDs["ocsp"]},
		{"ocsp-nonce", post(b, d.OCSPURL, "application/ocsp-request", nonce), d.PIDs["ocsp"]},
		{"timestamp", post(b, d.TSAURL, tsa.MediaTypeQuery, newStampRequest(b)), d.PIDs["tsa"]},
	} {
		must(b, answered(exchange(b, q.query)))
		b.Run("request="+q.name, func(b *testing.B) {
			before := processorTimeOf(b, q.pid)
			load(b, q.query, connections)
			b.ReportMetric(float64(processorTimeOf(b, q.pid)-before)/float64(b.N), "server-cpu-ns/op")
		})
	}
	for _, s := range []struct {
		name   string
		target target
	}{{"static", static}, {"ocsp", target{hostOf(b, d.OCSPURL), d.PIDs["ocsp"]}}} {
		q := get(b, "http://"+s.target.address+"/", question)
		kib := hold(b, q, s.target.pid) // once: what a server has it keeps for the next ones
		b.Run("connections="+s.name, func(b *testing.B) {
			for b.Loop() {
			}
			b.ReportMetric(kib, "KiB/connection")
		})
	}
}

// query is an HTTP request as it goes over the wire.
type query struct {
	address string
	octets  []byte
}

func get(tb testing.TB, server string, request []byte) query {
	tb.Helper()
	r, err := http.NewRequest(http.MethodGet, server+url.PathEscape(base64.StdEncoding.EncodeToString(request)), nil)
	must(tb, err)
	return encode(tb, r)
}

func post(tb testing.TB, server, contentType string, request []byte) query {
	tb.Helper()
	r, err := http.NewRequest(http.MethodPost, server, bytes.NewReader(request))
	must(tb, err)
	r.Header.Set("Content-Type", contentType)
	return encode(tb, r)
}

func encode(tb testing.TB, r *http.Request) query {
	tb.Helper()
	var b bytes.Buffer
	must(tb, r.Write(&b))
	return query{r.URL.Host, b.Bytes()}
}

func hostOf(tb testing.TB, address string) string {
	tb.Helper()
	u, err := url.Parse(address)
	must(tb, err)
	return u.Host
}

// exchange asks once and returns the body.
func exchange(tb testing.TB, q query) []byte {
	tb.Helper()
	c, err := dial(tb.Context(), q)
	must(tb, err)
	defer c.Close()
	must(tb, c.ask(q))
	return c.body
}

// client is one connection that asks one thing after the other. It reads of an answer what it must, so that the time goes
// to the server: http.Client takes longer than the servers do.
type client struct {
	net.Conn
	in   *bufio.Reader
	body []byte // the last answer's
}

func dial(ctx context.Context, q query) (*client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", q.address)
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, in: bufio.NewReader(c)}, nil
}

var ok, contentLength = []byte("HTTP/1.1 200 OK\r\n"), []byte("Content-Length: ")

// ask sends q and reads the answer, which must be a 200 with a Content-Length.
func (c *client) ask(q query) error {
	if _, err := c.Write(q.octets); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.Equal(line, ok) {
		return fmt.Errorf("answer: %s", line)
	}
	length := -1
	for len(line) > 2 {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return err
		}
		if value, found := bytes.CutPrefix(line, contentLength); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("answer without Content-Length")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	_, err = io.ReadFull(c.in, c.body)
	return err
}

// load asks b.N times over so many connections and reports the middle and the slow end of the answers' times.
func load(b *testing.B, q query, connections int) {
	clients := make([]*client, connections)
	for i := range clients {
		c, err := dial(b.Context(), q)
		must(b, err)
		defer c.Close()
		must(b, c.ask(q))
		clients[i] = c
	}
	times := make([][]time.Duration, connections)
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	b.ResetTimer()
	for i, c := range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				if err := c.ask(q); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	group.Wait()
	b.StopTimer()
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2]), "p50-ns")
	b.ReportMetric(float64(all[len(all)*99/100]), "p99-ns")
}

// hold opens two thousand connections that each ask once and then stay, and returns what each adds to the server's memory, in
// KiB: goroutine, buffers and what the garbage collector has not looked at yet.
func hold(tb testing.TB, q query, pid int) float64 {
	tb.Helper()
	const connections = 2000
	before := resident(tb, pid)
	for range connections {
		c, err := dial(tb.Context(), q)
		must(tb, err)
		defer c.Close()
		must(tb, c.ask(q))
	}
	return float64(resident(tb, pid)-before) / connections / 1024
}

// processorTimeOf is what a process has used so far, to a hundredth of a second.
func processorTimeOf(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(tb, err)
	_, afterName, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(afterName)
	user, err := strconv.Atoi(fields[11])
	must(tb, err)
	system, err := strconv.Atoi(fields[12])
	must(tb, err)
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ
}

// resident is the memory of a process, in octets.
func resident(tb testing.TB, pid int) int {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	must(tb, err)
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	must(tb, err)
	return pages * os.Getpagesize()
}
