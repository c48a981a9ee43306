// Package journaltest gives tests real journals: on disk, with a key of their own, and verified when the test ends.
package journaltest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// Origin is the origin of the journals that New makes.
const Origin = "zegel.example/test"

// Config says what a test's journal is to be; its zero value is New's.
type Config struct {
	Dir    string           // default: a folder of its own in t.TempDir()
	Origin string           // default: Origin
	Now    func() time.Time // default: time.Now
}

// Options are good for Create and Open: a fresh Ed25519 key and a random key that wraps, both in memory.
// Keep them to open the same journal again.
func Options(t testing.TB, now func() time.Time) journal.Options {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatalf("generate checkpoint key: %v", err)
	}
	wrapping := make([]byte, 32)
	rand.Read(wrapping)
	block, err := aes.NewCipher(wrapping)
	if err != nil {
		t.Fatalf("make wrapping key: %v", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatalf("make wrapping key: %v", err)
	}
	return journal.Options{
		Now:           now,
		Wrap:          func(key []byte) ([]byte, error) { return aead.Seal(nil, nil, key, nil), nil },
		Unwrap:        func(wrapped []byte) ([]byte, error) { return aead.Open(nil, nil, wrapped, nil) },
		CheckpointKey: key,
	}
}

// New creates and opens a journal. When the test ends it is verified (faults fail the test) and closed.
func New(t testing.TB) *journal.Journal {
	t.Helper()
	return NewWith(t, Config{})
}

// NewWith is New as c says.
func NewWith(t testing.TB, c Config) *journal.Journal {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "journal")
	}
	if c.Origin == "" {
		c.Origin = Origin
	}
	o := Options(t, c.Now)
	if err := journal.Create(c.Dir, c.Origin, o); err != nil {
		t.Fatalf("create journal: %v", err)
	}
	j, err := journal.Open(c.Dir, o)
	if err != nil {
		t.Fatalf("open journal: %v", err)
	}
	verifyAtEnd(t, j, c.Dir)
	return j
}

// NewReplica creates and opens an empty replica of log, judging ages by now (nil: time.Now). It is verified and closed
// when the test ends. CatchUp or Follow fills it.
func NewReplica(t testing.TB, log *journal.Journal, now func() time.Time) *journal.Journal {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "replica")
	if err := journal.CreateReplica(dir, log.VerifierKey()); err != nil {
		t.Fatalf("create replica: %v", err)
	}
	r, err := journal.OpenReplica(dir, now)
	if err != nil {
		t.Fatalf("open replica: %v", err)
	}
	verifyAtEnd(t, r, dir)
	return r
}

func verifyAtEnd(t testing.TB, j *journal.Journal, dir string) {
	t.Cleanup(func() {
		report, err := j.Verify(context.Background())
		if errors.Is(err, journal.ErrClosed) {
			j, err = journal.OpenReadOnly(dir)
			if errors.Is(err, journal.ErrLocked) {
				return // the test opened it again; that one is verified by whoever opened it
			}
			if err == nil {
				report, err = j.Verify(context.Background())
			}
		}
		if err != nil {
			t.Errorf("verify journal: %v", err)
		}
		if j != nil && j.Forked() != nil && len(report.Faults) > 0 {
			report.Faults = report.Faults[:len(report.Faults)-1] // the log's fault, not the replica's
		}
		for _, f := range report.Faults {
			t.Errorf("verify journal: entry %d: %s", f.Entry, f.Fault)
		}
		if j != nil {
			j.Close()
		}
	})
}

// Client is an HTTP client whose every request log's feed answers, without a network (so that it works in synctest).
func Client(log *journal.Journal) *http.Client {
	return &http.Client{Transport: transport{log.FeedHandler()}}
}

// FeedURL is the address to use with Client.
const FeedURL = "http://feed.test/feed"

// Follow keeps replica following log until the test ends or stop is called; it fails the test if following ends with an error.
func Follow(t testing.TB, replica, log *journal.Journal) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- journal.Follow(ctx, replica, FeedURL, Client(log), nil) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// CatchUp lets replica follow until it has verified all that log holds now, under a checkpoint no older than this call's second.
func CatchUp(t testing.TB, replica, log *journal.Journal) {
	t.Helper()
	text, err := log.Checkpoint()
	if err != nil {
		t.Fatalf("catch up: %v", err)
	}
	want, err := journal.VerifyCheckpoint(text, log.VerifierKey())
	if err != nil {
		t.Fatalf("catch up: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var last error
	done := make(chan error, 1)
	var mu sync.Mutex
	go func() {
		done <- journal.Follow(ctx, replica, FeedURL, Client(log), func(err error) {
			mu.Lock()
			defer mu.Unlock()
			last = err
		})
	}()
	for {
		got, err := replica.Verified()
		if err == nil && got.Size >= want.Size && !got.Time.Before(want.Time) {
			cancel()
		}
		select {
		case err := <-done:
			mu.Lock()
			defer mu.Unlock()
			if got, _ := replica.Verified(); err != nil || got.Size < want.Size {
				t.Fatalf("catch up: %v, last trouble: %v", err, last)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// transport answers requests by a handler. Bodies are not streamed.
type transport struct{ h http.Handler }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &recorder{header: make(http.Header), status: http.StatusOK}
	t.h.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Header: w.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(w.body)),
		Body: io.NopCloser(&reader{w.body})}, nil
}

type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (w *recorder) Header() http.Header { return w.header }
func (w *recorder) WriteHeader(s int)   { w.status = s }
func (w *recorder) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}

type reader struct{ rest []byte }

func (r *reader) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Officer is an actor for events.
var Officer = journal.Actor{0: 0x0f, 15: 0x01}

// Append records events one after the other and returns their entries; an error fails the test.
func Append(t testing.TB, j *journal.Journal, events ...journal.Event) []journal.Entry {
	t.Helper()
	entries := make([]journal.Entry, len(events))
	for i, e := range events {
		var err error
		if entries[i], err = j.Append(context.Background(), e); err != nil {
			t.Fatalf("append %s: %v", journal.KindOf(e), err)
		}
	}
	return entries
}

// Intent makes an intent and the event that issues it, both well-formed: for tests that care about states, not about X.509.
// To issue real DER, fill CertificateIntended and CertificateIssued from it.
func Intent(issuer journal.IssuerID, serial journal.Serial) (journal.CertificateIntended, journal.CertificateIssued) {
	var tbs, certificate cryptobyte.Builder
	tbs.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(serial.Bytes()) })
	})
	toSign := tbs.BytesOrPanic()
	certificate.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(toSign) })
	der := certificate.BytesOrPanic()
	return journal.CertificateIntended{Actor: Officer, Issuer: issuer, Serial: serial, TBSDigest: sha256.Sum256(toSign), Profile: "qcp-n",
			NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC),
			TBS: toSign, Evidence: []byte(`{"request":"test"}`)},
		journal.CertificateIssued{Issuer: issuer, Serial: serial, CertificateHash: sha256.Sum256(der), Certificate: der}
}

// Issue records a whole issuance of a made-up certificate.
func Issue(t testing.TB, j *journal.Journal, issuer journal.IssuerID, serial journal.Serial) {
	t.Helper()
	intended, issued := Intent(issuer, serial)
	Append(t, j, intended, issued)
}

// Revoke records a revocation that was requested now.
func Revoke(t testing.TB, j *journal.Journal, issuer journal.IssuerID, serial journal.Serial, reason journal.Reason) {
	t.Helper()
	Append(t, j, journal.CertificateRevoked{Actor: Officer, Issuer: issuer, Serial: serial, Reason: reason, RequestedAt: time.Now()})
}
