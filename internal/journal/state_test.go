package journal_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// The events of the table tests, about serial 01 of issuer A unless they say otherwise.
var (
	issuerA, issuerB = journal.IssuerID{0xa}, journal.IssuerID{0xb}
	at               = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

func intend(issuer journal.IssuerID, serial journal.Serial) journal.Event {
	e, _ := journaltest.Intent(issuer, serial)
	return e
}

func issue(issuer journal.IssuerID, serial journal.Serial) journal.Event {
	_, e := journaltest.Intent(issuer, serial)
	return e
}

func abandon(issuer journal.IssuerID, serial journal.Serial) journal.Event {
	return journal.CertificateAbandoned{Issuer: issuer, Serial: serial}
}

func revoke(issuer journal.IssuerID, serial journal.Serial) journal.Event {
	return journal.CertificateRevoked{Actor: journaltest.Officer, Issuer: issuer, Serial: serial, Reason: journal.KeyCompromise, RequestedAt: at}
}

func reserve(issuer journal.IssuerID, number uint64) journal.Event {
	return journal.CRLReserved{Issuer: issuer, Number: number}
}

func publish(issuer journal.IssuerID, number, entries uint64) journal.Event {
	return journal.CRLIssued{Issuer: issuer, Number: number, Entries: entries, ThisUpdate: at, NextUpdate: at,
		CRL: []byte("crl"), Hash: sha256.Sum256([]byte("crl"))}
}

func stamp(unit byte, serial journal.Serial) journal.Event {
	return journal.TimestampIssued{Unit: [32]byte{unit}, Serial: serial, GenTime: at, TSTInfo: []byte("tst")}
}

func duty(act journal.KeyAct, key byte, intent uint64) journal.Event {
	return journal.KeyDuty{Actor: journaltest.Officer, Act: act, PublicKey: [32]byte{key}, Intent: intent, Details: []byte("{}")}
}

func destroying(key byte) journal.Event               { return duty(journal.KeyDestroying, key, 0) }
func destroyed(key byte, intent uint64) journal.Event { return duty(journal.KeyDestroyed, key, intent) }
func notDestroyed(key byte, intent uint64) journal.Event {
	return duty(journal.KeyNotDestroyed, key, intent)
}

func TestStateMachine(t *testing.T) {
	a, b := issuerA, issuerB
	for _, c := range []struct {
		name   string
		before []journal.Event
		event  journal.Event
		ok     bool
	}{
		{"intend a new serial", nil, intend(a, "\x01"), true},
		{"intend it twice", []journal.Event{intend(a, "\x01")}, intend(a, "\x01"), false},
		{"intend it for another issuer", []journal.Event{intend(a, "\x01")}, intend(b, "\x01"), false},
		{"intend what was abandoned", []journal.Event{intend(a, "\x01"), abandon(a, "\x01")}, intend(a, "\x01"), false},
		{"intend what was issued", []journal.Event{intend(a, "\x01"), issue(a, "\x01")}, intend(a, "\x01"), false},
		{"intend what was revoked", []journal.Event{intend(a, "\x01"), issue(a, "\x01"), revoke(a, "\x01")}, intend(a, "\x01"), false},
		{"issue what was intended", []journal.Event{intend(a, "\x01")}, issue(a, "\x01"), true},
		{"issue what was not", nil, issue(a, "\x01"), false},
		{"issue by another issuer", []journal.Event{intend(a, "\x01")}, issue(b, "\x01"), false},
		{"issue another TBS", []journal.Event{intend(a, "\x01")}, with(issue(a, "\x02").(journal.CertificateIssued),
			func(e *journal.CertificateIssued) { e.Serial = "\x01" }), false},
		{"issue twice", []journal.Event{intend(a, "\x01"), issue(a, "\x01")}, issue(a, "\x01"), false},
		{"issue what was abandoned", []journal.Event{intend(a, "\x01"), abandon(a, "\x01")}, issue(a, "\x01"), false},
		{"abandon an intent", []journal.Event{intend(a, "\x01")}, abandon(a, "\x01"), true},
		{"abandon nothing", nil, abandon(a, "\x01"), false},
		{"abandon twice", []journal.Event{intend(a, "\x01"), abandon(a, "\x01")}, abandon(a, "\x01"), false},
		{"abandon what was issued", []journal.Event{intend(a, "\x01"), issue(a, "\x01")}, abandon(a, "\x01"), false},
		{"abandon by another issuer", []journal.Event{intend(a, "\x01")}, abandon(b, "\x01"), false},
		{"revoke what was issued", []journal.Event{intend(a, "\x01"), issue(a, "\x01")}, revoke(a, "\x01"), true},
		{"revoke nothing", nil, revoke(a, "\x01"), false},
		{"revoke an intent", []journal.Event{intend(a, "\x01")}, revoke(a, "\x01"), false},
		{"revoke what was abandoned", []journal.Event{intend(a, "\x01"), abandon(a, "\x01")}, revoke(a, "\x01"), false},
		{"revoke twice", []journal.Event{intend(a, "\x01"), issue(a, "\x01"), revoke(a, "\x01")}, revoke(a, "\x01"), false},
		{"revoke by another issuer", []journal.Event{intend(a, "\x01"), issue(a, "\x01")}, revoke(b, "\x01"), false},
		{"reserve 1", nil, reserve(a, 1), true},
		{"reserve 0", nil, reserve(a, 0), false},
		{"reserve with a gap", []journal.Event{reserve(a, 1)}, reserve(a, 9), true},
		{"reserve twice", []journal.Event{reserve(a, 2)}, reserve(a, 2), false},
		{"reserve a smaller one", []journal.Event{reserve(a, 2)}, reserve(a, 1), false},
		{"reserve another issuer's", []journal.Event{reserve(a, 2)}, reserve(b, 1), true},
		{"publish what was reserved", []journal.Event{reserve(a, 1)}, publish(a, 1, 1), true},
		{"publish what was not", []journal.Event{reserve(a, 1)}, publish(a, 2, 0), false},
		{"publish another issuer's", []journal.Event{reserve(a, 1)}, publish(b, 1, 0), false},
		{"publish twice", []journal.Event{reserve(a, 1), publish(a, 1, 0)}, publish(a, 1, 0), false},
		{"publish after a greater one", []journal.Event{reserve(a, 1), reserve(a, 2), publish(a, 2, 0)}, publish(a, 1, 0), false},
		{"publish past an unused one", []journal.Event{reserve(a, 1), reserve(a, 2)}, publish(a, 2, 2), true},
		{"publish the older of two first", []journal.Event{reserve(a, 1), reserve(a, 2)}, publish(a, 1, 2), true},
		{"publish of the future", []journal.Event{reserve(a, 1)}, publish(a, 1, 2), false},
		{"publish of an older tree", []journal.Event{reserve(a, 1), publish(a, 1, 1), reserve(a, 2)}, publish(a, 2, 0), false},
		{"stamp", nil, stamp(1, "\x01"), true},
		{"stamp with a certificate's serial", []journal.Event{intend(a, "\x01")}, stamp(1, "\x01"), true},
		{"stamp twice", []journal.Event{stamp(1, "\x01")}, stamp(1, "\x01"), false},
		{"destroy a key", []journal.Event{stamp(1, "\x01"), destroying(1)}, destroyed(1, 1), true},
		{"find it not destroyed", []journal.Event{stamp(1, "\x01"), destroying(1)}, notDestroyed(1, 1), true},
		{"destroy a key elsewhere", nil, destroyed(1, 0), true},
		{"destroy in entry 0", nil, destroying(1), false},
		{"destroy a key that nobody intended", []journal.Event{stamp(1, "\x01"), stamp(1, "\x02")}, destroyed(1, 1), false},
		{"destroy another key than intended", []journal.Event{stamp(1, "\x01"), destroying(1)}, destroyed(2, 1), false},
		{"destroy twice", []journal.Event{stamp(1, "\x01"), destroying(1), destroyed(1, 1)}, destroyed(1, 1), false},
		{"close what was closed otherwise", []journal.Event{stamp(1, "\x01"), destroying(1), notDestroyed(1, 1)}, destroyed(1, 1), false},
		{"close an intent to come", []journal.Event{stamp(1, "\x01"), destroying(1)}, destroyed(1, 2), false},
		{"stamp twice by two units", []journal.Event{stamp(1, "\x01")}, stamp(2, "\x01"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := journaltest.New(t)
			journaltest.Append(t, j, c.before...)
			entry, err := j.Append(background, c.event)
			switch {
			case c.ok && (err != nil || entry.Index != uint64(len(c.before))):
				t.Errorf("entry %d, %v", entry.Index, err)
			case !c.ok && !errors.Is(err, journal.ErrConflict):
				t.Errorf("error %v, want ErrConflict", err)
			case !c.ok && j.Size() != uint64(len(c.before)):
				t.Errorf("a refused event was written")
			}
		})
	}
}

// TestRefusalsAmongNeighbours: in one transaction, a refused event takes nobody with it.
func TestRefusalsAmongNeighbours(t *testing.T) {
	j := journaltest.New(t)
	results := make(chan error, 200)
	for n := range 200 {
		serial := journal.Serial([]byte{1, byte(n / 2)}) // each intended twice, at once
		go func() {
			_, err := j.Append(background, intend(issuerA, serial))
			results <- err
		}()
	}
	ok, conflicts := 0, 0
	for range 200 {
		switch err := <-results; {
		case err == nil:
			ok++
		case errors.Is(err, journal.ErrConflict):
			conflicts++
		default:
			t.Error(err)
		}
	}
	if ok != 100 || conflicts != 100 || j.Size() != 100 {
		t.Errorf("%d recorded, %d refused, size %d; want 100 each", ok, conflicts, j.Size())
	}
}

// model is the state machine, told again in the simplest way.
type model struct {
	status map[journal.Serial]journal.Status
	issuer map[journal.Serial]journal.IssuerID
	stamps map[journal.Serial]bool
	top    map[journal.IssuerID]uint64
	issued map[journal.IssuerID]uint64
	taken  map[string]bool
	size   uint64
}

// take says whether the event is allowed, and if so takes it.
func (m *model) take(e journal.Event) bool {
	switch e := e.(type) {
	case journal.CertificateIntended:
		if m.status[e.Serial] != 0 {
			return false
		}
		m.status[e.Serial], m.issuer[e.Serial] = journal.Intended, e.Issuer
	case journal.CertificateIssued:
		return m.move(e.Issuer, e.Serial, journal.Intended, journal.Issued)
	case journal.CertificateAbandoned:
		return m.move(e.Issuer, e.Serial, journal.Intended, journal.Abandoned)
	case journal.CertificateRevoked:
		return m.move(e.Issuer, e.Serial, journal.Issued, journal.Revoked)
	case journal.CRLReserved:
		if e.Number <= m.top[e.Issuer] {
			return false
		}
		m.top[e.Issuer] = e.Number
		m.taken[fmt.Sprint(e.Issuer, e.Number)] = true
	case journal.CRLIssued:
		if !m.taken[fmt.Sprint(e.Issuer, e.Number)] || e.Number <= m.issued[e.Issuer] {
			return false
		}
		m.issued[e.Issuer] = e.Number
	case journal.TimestampIssued:
		if m.stamps[e.Serial] {
			return false
		}
		m.stamps[e.Serial] = true
	}
	m.size++
	return true
}

func (m *model) move(issuer journal.IssuerID, serial journal.Serial, from, to journal.Status) bool {
	if m.status[serial] != from || m.issuer[serial] != issuer {
		return false
	}
	m.status[serial] = to
	m.size++
	return true
}

// TestModel: whatever is asked of it, the journal does what the model does, and so does a replica.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		j := journaltest.New(t)
		replica := journaltest.NewReplica(t, j, nil)
		defer replica.Close()
		defer j.Close()
		journal.NoSync(j)
		journal.NoSync(replica)
		m := &model{map[journal.Serial]journal.Status{}, map[journal.Serial]journal.IssuerID{}, map[journal.Serial]bool{},
			map[journal.IssuerID]uint64{}, map[journal.IssuerID]uint64{}, map[string]bool{}, 0}
		for range rapid.IntRange(0, 40).Draw(rt, "events") {
			e := drawEvent(rt)
			want := m.take(e)
			if _, err := j.Append(background, e); (err == nil) != want || err != nil && !errors.Is(err, journal.ErrConflict) {
				rt.Fatalf("%+v: %v, the model says %v", e, err, want)
			}
		}
		if j.Size() != m.size {
			rt.Fatalf("size %d, the model's %d", j.Size(), m.size)
		}
		journaltest.CatchUp(t, replica, j)
		for _, have := range []*journal.Journal{j, replica} {
			got := map[journal.Serial]journal.Status{}
			var revoked []string
			for c, err := range have.Certificates() {
				if err != nil || m.issuer[c.Serial] != c.Issuer {
					rt.Fatal(c, err)
				}
				got[c.Serial] = c.Status
			}
			if diff := cmp.Diff(m.status, got); diff != "" {
				rt.Fatal(diff)
			}
			for _, issuer := range []journal.IssuerID{issuerA, issuerB} {
				if _, err := have.Revoked(issuer, func(c journal.Certificate) error {
					revoked = append(revoked, c.Serial.String())
					return nil
				}); err != nil {
					rt.Fatal(err)
				}
				if _, reserved, _ := have.LastCRL(issuer); reserved != m.top[issuer] {
					rt.Fatalf("reserved %d, the model's %d", reserved, m.top[issuer])
				}
			}
			want := 0
			for s := range maps.Values(m.status) {
				if s == journal.Revoked || s == journal.Abandoned {
					want++
				}
			}
			if len(revoked) != want || len(slices.Compact(slices.Sorted(slices.Values(revoked)))) != want {
				rt.Fatalf("revoked %v, want %d", revoked, want)
			}
			if report, err := have.Verify(background); err != nil || !report.OK {
				rt.Fatal(report, err)
			}
		}
	})
}

// drawEvent draws from so few serials, issuers and numbers that they meet.
func drawEvent(t *rapid.T) journal.Event {
	issuer := rapid.SampledFrom([]journal.IssuerID{issuerA, issuerA, issuerB}).Draw(t, "issuer")
	serial := journal.Serial([]byte{rapid.ByteRange(1, 4).Draw(t, "serial")})
	number := rapid.Uint64Range(0, 5).Draw(t, "number")
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0, 1:
		return intend(issuer, serial)
	case 2:
		return issue(issuer, serial)
	case 3:
		return abandon(issuer, serial)
	case 4:
		return revoke(issuer, serial)
	case 5:
		return reserve(issuer, number)
	case 6:
		return publish(issuer, number, 0)
	}
	return stamp(1, serial)
}
