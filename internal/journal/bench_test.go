package journal_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// manySerials makes serials as the CA does: mostly growing, unique, 20 octets.
func manySerial(n uint64) journal.Serial {
	b := make([]byte, 20)
	b[0], b[1] = 1, 0x2a
	rand.Read(b[3:])
	binary.BigEndian.PutUint64(b[12:], n)
	return journal.Serial(b)
}

func intentOfSize(n uint64, size int) journal.CertificateIntended {
	e, _ := journaltest.Intent(journal.IssuerID{1}, manySerial(n))
	e.TBS = make([]byte, size)
	rand.Read(e.TBS)
	e.TBSDigest = sha256.Sum256(e.TBS)
	return e
}

func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			j := openForBench(b)
			var n atomic.Uint64
			inParallel(b, callers, func() error {
				_, err := j.Append(context.Background(), intentOfSize(n.Add(1), 1200))
				return err
			})
		})
	}
}

// BenchmarkBolt is what to compare BenchmarkAppend with: bare Update (1) and Batch of the same number of octets, in one bucket.
func BenchmarkBolt(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			db, err := bolt.Open(filepath.Join(b.TempDir(), "b.db"), 0o600, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			commit := db.Update
			if callers > 1 {
				commit = db.Batch
			}
			if err := db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err }); err != nil {
				b.Fatal(err)
			}
			var n atomic.Uint64
			inParallel(b, callers, func() error {
				value := make([]byte, 1700)
				rand.Read(value)
				key := binary.BigEndian.AppendUint64(nil, n.Add(1))
				return commit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Put(key, value) })
			})
		})
	}
}

// inParallel spreads b.N calls over so many goroutines and reports calls per second.
func inParallel(b *testing.B, callers int, f func() error) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// openForBench leaves out the verification at the end.
func openForBench(b *testing.B) *journal.Journal {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "journal")
	o := journaltest.Options(b, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		b.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { j.Close() })
	return j
}

// fill records n issued certificates from many goroutines and returns their serials.
func fill(tb testing.TB, j *journal.Journal, issuer journal.IssuerID, n int) []journal.Serial {
	tb.Helper()
	serials := make([]journal.Serial, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				serials[i] = manySerial(uint64(i))
				intended, issued := journaltest.Intent(issuer, serials[i])
				if _, err := j.Append(context.Background(), intended); err != nil {
					tb.Error(err)
					return
				}
				if _, err := j.Append(context.Background(), issued); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return serials
}

func BenchmarkCertificate(b *testing.B) {
	j := openForBench(b)
	issuer := journal.IssuerID{1}
	serials := fill(b, j, issuer, 20_000)
	var n atomic.Uint64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := n.Add(7919); pb.Next(); i += 7919 {
			if _, err := j.Certificate(issuer, serials[i%uint64(len(serials))]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	j := openForBench(b)
	fill(b, j, journal.IssuerID{1}, 20_000)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		report, err := j.Verify(context.Background())
		if err != nil || !report.OK {
			b.Fatal(err, report.Faults)
		}
	}
	b.ReportMetric(float64(j.Size())*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
