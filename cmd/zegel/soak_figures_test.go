package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// figures are what a soak measured, for docs/performance.md.
type figures struct {
	killed   time.Duration // how long daemons were killed
	still    time.Duration // how long they were then watched
	verified atomic.Int64  // journals verified between kills

	mu      sync.Mutex
	counts  map[string]int
	samples map[string][]sample // by daemon, and "demo"
}

// sample is what a process holds at one moment.
type sample struct {
	heap        float64 // octets alive after the last garbage collection; of the demo, anonymous memory
	descriptors float64
	goroutines  float64 // of the demo, threads
}

func newFigures() *figures {
	return &figures{counts: map[string]int{}, samples: map[string][]sample{}}
}

func (f *figures) count(what string) { f.add(what, 1) }

func (f *figures) add(what string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[what] += n
}

func (f *figures) sampled(name string, s sample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.samples[name] = append(f.samples[name], s)
}

// sampleStill goes on with the load, but kills nobody, and watches what the daemons hold.
func (s *soak) sampleStill(ctx context.Context, d time.Duration) {
	s.book.fixPool()
	s.figures.still = d
	tick := time.NewTicker(max(d/100, 200*time.Millisecond))
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for name := range s.daemons {
			got, err := s.metrics(name)
			if err != nil {
				s.fault("metrics of zegel-%s: %v", name, err)
				return
			}
			s.figures.sampled(name, got)
		}
	}
}

// metrics reads a daemon's /metrics. Go aims the next collection at a quarter (GOGC, see victim.start) above what was alive after the last.
func (s *soak) metrics(name string) (got sample, err error) {
	text, err := s.exchange(s.r.MetricsURLs[name], "", nil)
	if err != nil {
		return got, err
	}
	want := map[string]*float64{"go_memstats_next_gc_bytes": &got.heap, "process_open_fds": &got.descriptors, "go_goroutines": &got.goroutines}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to := want[name]; to != nil {
			if *to, err = strconv.ParseFloat(value, 64); err != nil {
				return got, err
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		return got, fmt.Errorf("without %v", slices.Collect(maps.Keys(want)))
	}
	got.heap /= 1.25
	return got, nil
}

// sampleDemo watches the process of the demo, which has no metrics, all the while.
func (s *soak) sampleDemo(ctx context.Context) {
	pid := s.r.cmd.Process.Pid
	for tick := time.Tick(500 * time.Millisecond); ctx.Err() == nil; {
		got, err := ofProcess(pid)
		if err != nil {
			s.fault("watch the demo: %v", err)
			return
		}
		s.figures.sampled("demo", got)
		select {
		case <-tick:
		case <-ctx.Done():
		}
	}
}

func ofProcess(pid int) (got sample, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return got, err
	}
	got.descriptors = float64(len(open))
	status, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		return got, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch n, _ := strconv.ParseFloat(fields[1], 64); fields[0] {
		case "RssAnon:":
			got.heap = n * 1024
		case "Threads:":
			got.goroutines = n
		}
	}
	return got, nil
}

// What may be more in the last third of the samples than in the first, of the medians, after a fifth of them for warming up:
// a quarter and 2 MiB of memory, because a list of what is revoked is made in it; connections come and go.
const (
	heapFactor      = 1.25
	heapSlack       = 2 << 20
	descriptorSlack = 8
	goroutineSlack  = 16
)

// flat returns the medians of the first and last third, and an error where they say that a process holds more and more.
func flat(samples []sample) (first, last sample, err error) {
	samples = samples[len(samples)/5:]
	third := len(samples) / 3
	if third < 3 {
		return first, last, fmt.Errorf("%d samples are too few to judge by", len(samples))
	}
	first, last = median(samples[:third]), median(samples[len(samples)-third:])
	if last.heap > first.heap*heapFactor+heapSlack {
		err = fmt.Errorf("memory grows: %.1f MB, then %.1f MB", first.heap/1e6, last.heap/1e6)
	}
	if last.descriptors > first.descriptors+descriptorSlack {
		err = fmt.Errorf("descriptors grow: %v, then %v", first.descriptors, last.descriptors)
	}
	if last.goroutines > first.goroutines+goroutineSlack {
		err = fmt.Errorf("goroutines grow: %v, then %v", first.goroutines, last.goroutines)
	}
	return first, last, err
}

func median(samples []sample) sample {
	of := func(get func(sample) float64) float64 {
		var list []float64
		for _, s := range samples {
			list = append(list, get(s))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	return sample{
		of(func(s sample) float64 { return s.heap }), of(func(s sample) float64 { return s.descriptors }),
		of(func(s sample) float64 { return s.goroutines }),
	}
}

// print judges memory and descriptors, and writes the tables of docs/performance.md.
func (f *figures) print(s *soak) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nKilled for %v, then watched for %v; %d journals verified between kills.\n\n", f.killed.Round(time.Second), f.still.Round(time.Second), f.verified.Load())
	b.WriteString("| process | SIGKILL | while starting | SIGTERM | ready again, median | p99 | longest | memory, first and last third | descriptors | goroutines |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, name := range []string{"ca", "ocsp", "tsa", "demo"} {
		first, last, err := flat(f.samples[name])
		if err != nil {
			s.fault("%s: %v", name, err)
		}
		held := fmt.Sprintf("%.1f → %.1f MB | %v → %v | %v → %v |", first.heap/1e6, last.heap/1e6, first.descriptors, last.descriptors, first.goroutines, last.goroutines)
		v := s.daemons[name]
		if v == nil {
			fmt.Fprintf(&b, "| `zegel demo` | | | | | | | %s\n", held)
			continue
		}
		if v.kills+v.terms == 0 {
			s.fault("zegel-%s was never killed: give -kills and -duration more", name)
		}
		slices.Sort(v.recovered)
		at := func(part float64) time.Duration {
			if len(v.recovered) == 0 {
				return 0
			}
			return v.recovered[int(part*float64(len(v.recovered)-1))].Round(time.Millisecond)
		}
		fmt.Fprintf(&b, "| `zegel-%s` | %d | %d | %d | %v | %v | %v | %s\n", name, v.kills, v.early, v.terms, at(0.5), at(0.99), at(1), held)
	}
	b.WriteString("\n| what | how many |\n|---|--:|\n")
	for _, what := range slices.Sorted(maps.Keys(f.counts)) {
		fmt.Fprintf(&b, "| %s | %d |\n", what, f.counts[what])
	}
	answers := f.counts["OCSP good"] + f.counts["OCSP revoked"] + f.counts["OCSP unknown"]
	if later := f.counts["OCSP tryLater"]; later > answers/100 {
		s.fault("%d of %d OCSP answers were tryLater", later, answers)
	}
	if none := f.counts["timestamps, timeNotAvailable"]; none > f.counts["timestamps"]/100 {
		s.fault("%d answers were timeNotAvailable, %d were timestamps", none, f.counts["timestamps"])
	}
	s.t.Log(b.String())
}

// A soak that could not see a leak would prove nothing.
func TestFlat(t *testing.T) {
	series := func(at func(i int) sample) (list []sample) {
		for i := range 100 {
			list = append(list, at(i))
		}
		return list
	}
	steady := sample{heap: 10e6, descriptors: 20, goroutines: 40}
	for _, c := range []struct {
		name string
		at   func(i int) sample
		ok   bool
	}{
		{"steady", func(int) sample { return steady }, true},
		{"warming up", func(i int) sample { s := steady; s.heap -= float64(max(0, 15-i)) * 5e5; return s }, true},
		{"restless", func(i int) sample {
			s := steady
			s.heap += float64(i%7) * 1e6
			s.descriptors += float64(i % 10)
			return s
		}, true},
		{"memory", func(i int) sample { s := steady; s.heap += float64(i) * 2e5; return s }, false},
		{"descriptors", func(i int) sample { s := steady; s.descriptors += float64(i / 5); return s }, false},
		{"goroutines", func(i int) sample { s := steady; s.goroutines += float64(i / 2); return s }, false},
	} {
		if _, _, err := flat(series(c.at)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, _, err := flat(nil); err == nil {
		t.Error("no samples are flat")
	}
}
