package main

import (
	"context"
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
func benchmarkKey(b *testing.B, key *hsm.Key, raw func() signing) {
	p := newProvider(b, key)
	digest, message := make([]byte, 32), make([]byte, 400)
	good, live := p.question(b, false), p.question(b, true)
	stamp := newStampRequest(b)
	for _, path := range []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"raw", nil},
		{"key", func(context.Context) error { _, err := key.Sign(rand.Reader, digest, crypto.SHA256); return err }},
		{"verified", func(context.Context) error { _, err := p.algorithm.Sign(key, message); return err }},
		{"ocsp-live", func(ctx context.Context) error { return answered(p.responder.Respond(ctx, live)) }},
		{"ocsp-cached", func(ctx context.Context) error { return answered(p.responder.Respond(ctx, good)) }},
		{"append", func(ctx context.Context) error { _, err := p.log.Append(ctx, newIntent()); return err }},
		{"timestamp", func(ctx context.Context) error { return answered(p.authority.Respond(ctx, stamp)) }},
		{"issue", func(ctx context.Context) error { _, err := p.issuer.Issue(ctx, p.order); return err }},
	} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("path=%s/callers=%d", path.name, callers), func(b *testing.B) {
				each := func() signing { return func() error { return path.call(b.Context()) } }
				if path.name == "raw" {
					each = raw
				}
				inParallel(b, callers, each)
			})
		}
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
