package main

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// BenchmarkPath measures what the daemons do beside the raw signature of the same key, so that it shows in one run whether it is
// the token that is waited for.
func BenchmarkPath(b *testing.B) {
	for _, at := range []struct {
		name  string
		token *hsmtest.Token // made here, where the name of the folder has no =, which ends a value of SoftHSM's configuration
	}{{"soft", hsmtest.SoftToken(b)}, {"softhsm", hsmtest.SoftHSM(b)}} {
		tokens := hsm.New(at.token.Config)
		b.Cleanup(func() { tokens.Close() })
		b.Run("token="+at.name, func(b *testing.B) {
			for _, algorithm := range []hsm.KeyAlgorithm{hsm.P256, hsm.RSA3072} {
				b.Run("key="+string(algorithm), func(b *testing.B) {
					key, err := tokens.Generate(at.token.URI(string(algorithm)), algorithm)
					must(b, err)
					benchmarkKey(b, key, newRaw(b, at.token, algorithm))
				})
			}
		})
	}
}

// benchmarkKey measures every path with one key.
func benchmarkKey(b *testing.B, key crypto.Signer, raw func() signing) {
	for _, path := range newPaths(b, key, raw) {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("path=%s/callers=%d", path.name, callers), func(b *testing.B) { inParallel(b, callers, path.newCall) })
		}
	}
}

// job is what one caller does again and again.
type job struct {
	name    string
	newCall func() signing
}

// newPaths are all paths, the raw signature first.
func newPaths(tb testing.TB, key crypto.Signer, raw func() signing) []job {
	tb.Helper()
	p, ctx := newProvider(tb, key), tb.Context()
	digest := make([]byte, 32)
	good, live := p.question(tb, false), p.question(tb, true)
	stamp := newStampRequest(tb)
	same := func(call signing) func() signing { return func() signing { return call } }
	return []job{
		{"raw", raw},
		{"key", same(func() error { _, err := key.Sign(rand.Reader, digest, crypto.SHA256); return err })},
		{"ocsp-live", same(func() error { return answered(p.responder.Respond(ctx, live)) })},
		{"ocsp-cached", same(func() error { return answered(p.responder.Respond(ctx, good)) })},
		{"append", same(func() error { _, err := p.log.Append(ctx, newIntent()); return err })},
		{"timestamp", same(func() error { return answered(p.authority.Respond(ctx, stamp)) })},
		{"issue", same(func() error { _, err := p.issuer.Issue(ctx, p.order); return err })},
	}
}

// TestPaths walks every path once, so that the benchmarks keep working while nobody runs them, and holds their names to the tables'.
func TestPaths(t *testing.T) {
	measured := newPaths(t, newKey(t), newRawSoftware(t, hsm.P256))
	for i, path := range measured {
		if err := path.newCall()(); err != nil {
			t.Errorf("%s: %v", path.name, err)
		}
		if i >= len(paths) || paths[i].name != path.name {
			t.Errorf("path %d is %s: the tables have %v", i, path.name, paths)
		}
	}
	if len(measured) != len(paths) {
		t.Errorf("%d paths are measured, the tables have %d", len(measured), len(paths))
	}
}

// signing is one call that is measured.
type signing func() error

// inParallel spreads b.N calls over so many goroutines, each with what it calls made for it.
func inParallel(b *testing.B, callers int, newCall func() signing) {
	b.Helper()
	calls := make([]signing, callers)
	for i := range calls {
		calls[i] = newCall()
	}
	b.ReportAllocs()
	var group sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	before := processorTime(b)
	b.ResetTimer()
	for _, call := range calls {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process has used so far, which other processes disturb less than they do the time on the wall.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// answered is an error unless response holds a signature and a certificate, as every answer that is no refusal does here: OCSP's
// refusals have five octets, a time-stamping authority's are one sentence longer.
func answered(response []byte) error {
	if len(response) < 500 {
		return fmt.Errorf("refused: %x", response)
	}
	return nil
}

// BenchmarkFdatasync is what the disk wants for one page: an append cannot be faster.
func BenchmarkFdatasync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "page"))
	must(b, err)
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for b.Loop() {
		_, err := f.WriteAt(page, 0)
		must(b, err)
		must(b, syscall.Fdatasync(int(f.Fd())))
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
