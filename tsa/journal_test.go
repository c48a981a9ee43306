package tsa

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// wallClock is the machine's clock, which the tests on a real journal share with it.
type wallClock struct{}

func (wallClock) Now() (time.Time, time.Duration, error) {
	return time.Now(), time.Millisecond, nil
}

// newReal makes an Authority on a real journal, with a certificate that is valid now.
func newReal(t testing.TB, key crypto.Signer, j *journal.Journal) *Authority {
	t.Helper()
	template := tsuTemplate()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	template.ExtraExtensions = template.ExtraExtensions[:1]
	ca := newTestCA(t)
	a, err := New(Config{
		Journal: j, Clock: wallClock{}, Unit: ca.unit(t, key, template), Policy: BTSP, Accuracy: time.Second, Qualified: true,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestTokenIsInJournal has each token be in the journal, with hash, time and the sealed TSTInfo, when Respond returns.
func TestTokenIsInJournal(t *testing.T) {
	j := journaltest.New(t)
	a := newReal(t, newP256(t), j)
	token, err := ParseResponse(a.Respond(t.Context(), goodRequest().marshal()))
	if err != nil {
		t.Fatal(err)
	}
	last := j.Size() - 1
	e, err := j.Opened(last)
	if err != nil {
		t.Fatal(err)
	}
	issued, ok := e.(journal.TimestampIssued)
	if !ok || issued.TokenHash != sha256.Sum256(token) {
		t.Fatalf("the last entry is %+v", e)
	}
	info, err := parseTSTInfo(issued.TSTInfo)
	if err != nil {
		t.Fatal(err)
	}
	if string(info.serialNumber) != string(issued.Serial) || !info.genTime.Equal(issued.GenTime) {
		t.Errorf("recorded %v, signed %+v", issued, info)
	}
	entry, err := j.Entry(last)
	if err != nil || entry.Time.Before(issued.GenTime.Truncate(time.Millisecond)) {
		t.Errorf("entry of %v for a genTime of %v, %v", entry.Time, issued.GenTime, err)
	}
	if first, err := j.Entry(0); err != nil || first.Event.(journal.ClockChanged).Vouched != true {
		t.Errorf("the first entry is %+v, %v", first, err)
	}
}

// TestNoTokenWithoutJournal has no token leave when the journal is closed.
func TestNoTokenWithoutJournal(t *testing.T) {
	j := journaltest.New(t)
	a := newReal(t, newP256(t), j)
	if _, err := ParseResponse(a.Respond(t.Context(), goodRequest().marshal())); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if r := refused(t, a.Respond(t.Context(), goodRequest().marshal())); r.FailInfo[0] != SystemFailure {
		t.Errorf("got %v, want systemFailure", r)
	}
}

// TestSerialUniqueInJournal has the journal itself refuse a serial number that it holds.
func TestSerialUniqueInJournal(t *testing.T) {
	j := journaltest.New(t)
	a := newReal(t, newP256(t), j)
	e := journal.TimestampIssued{Serial: a.newSerial(time.Now()), GenTime: time.Now(), TSTInfo: []byte{5, 0}}
	if _, err := j.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), e); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

// BenchmarkRespond is a token without its journal.
func BenchmarkRespond(b *testing.B) {
	bench := newBench(b, newP256(b), nil)
	bench.Authority.journal, bench.watch.journal = discard{}, discard{}
	request := goodRequest().marshal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseResponse(bench.Respond(b.Context(), request)); err != nil {
			b.Fatal(err)
		}
	}
}

// discard is a journal that costs nothing.
type discard struct{}

func (discard) Append(context.Context, journal.Event) (journal.Entry, error) {
	return journal.Entry{}, nil
}
func (discard) LastTime() time.Time { return time.Time{} }
func (discard) Size() uint64        { return 0 }
func (discard) Failed() error       { return nil }

// BenchmarkVerify shows what a client pays.
func BenchmarkVerify(b *testing.B) {
	bench := newBench(b, newP256(b), nil)
	response := bench.ask(b, "data", nil)
	o := VerifyOptions{Roots: bench.ca.roots()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(response, o); err != nil {
			b.Fatal(err)
		}
	}
}
