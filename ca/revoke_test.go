package ca

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// When Revoke returns, the journal and the CRL in publish/ both say so, with reason and dates.
func TestRevoke(t *testing.T) {
	p, clock := newProvider(t)
	issued := p.issue()
	clock.advance(time.Hour + 300*time.Millisecond)
	from := start.Add(10 * time.Minute)
	c, err := p.issuer.Revoke(t.Context(), Revocation{
		Actor: testActor, Serial: issued.Serial, Reason: journal.KeyCompromise, InvalidFrom: from,
		RequestedAt: start.Add(30 * time.Minute), Note: []byte("card lost"),
	})
	if err != nil || c.Status != journal.Revoked || c.Reason != journal.KeyCompromise || !c.InvalidFrom.Equal(from) {
		t.Fatalf("got %+v, %v", c, err)
	}
	entry, listed := p.onCRL(issued.Serial)
	if !listed || entry.ReasonCode != int(journal.KeyCompromise) || !entry.RevocationTime.Equal(c.Since.Truncate(time.Second)) {
		t.Errorf("on the CRL: %v %+v", listed, entry)
	}
	event, err := p.journal.Opened(c.ChangedAt)
	if err != nil {
		t.Fatal(err)
	}
	revoked, ok := event.(journal.CertificateRevoked)
	if !ok || revoked.Actor != testActor || string(revoked.Note) != "card lost" || !revoked.RequestedAt.Equal(start.Add(30*time.Minute)) {
		t.Errorf("recorded %+v", event)
	}

	_, err = p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: issued.Serial, Reason: journal.Superseded})
	if !errors.Is(err, journal.ErrConflict) || !strings.Contains(err.Error(), c.Since.Format(time.RFC3339)) {
		t.Errorf("twice: %v, want since when", err)
	}
}

func TestRevokeRefuses(t *testing.T) {
	p, clock := newProvider(t)
	issued := p.issue()
	p.key.hook(func([]byte) error { return errStep }, nil)
	abandoned := journal.Serial("")
	p.issuer.appendEntry = func(ctx context.Context, e journal.Event) (journal.Entry, error) {
		if in, ok := e.(journal.CertificateIntended); ok {
			abandoned = in.Serial
		}
		return p.journal.Append(ctx, e)
	}
	if _, err := p.issuer.Issue(t.Context(), p.order()); err == nil {
		t.Fatal("issued without a signature")
	}
	p.key.hook(nil, nil)
	clock.advance(time.Minute)
	now := start.Add(time.Minute)
	ca := journal.Serial(p.cert.SerialNumber.Bytes())
	for name, c := range map[string]struct {
		r    Revocation
		want string // a clause, or a part of the error
		is   error
	}{
		"never issued":       {Revocation{Serial: "\x01\x02\x03"}, "not in the journal", journal.ErrNotFound},
		"of another CA":      {Revocation{Serial: ca}, "another CA of the provider", journal.ErrNotFound},
		"abandoned":          {Revocation{Serial: abandoned}, "abandoned at", journal.ErrConflict},
		"certificateHold":    {Revocation{Reason: journal.CertificateHold}, "RFC 5280 §5.3.1", nil},
		"removeFromCRL":      {Revocation{Reason: 8}, "RFC 5280 §5.3.1", nil},
		"reason 7":           {Revocation{Reason: 7}, "RFC 5280 §5.3.1", nil},
		"cACompromise":       {Revocation{Reason: journal.CACompromise}, "RFC 5280 §5.3.1", nil},
		"aACompromise":       {Revocation{Reason: journal.AACompromise}, "RFC 5280 §5.3.1", nil},
		"invalid tomorrow":   {Revocation{InvalidFrom: now.Add(time.Second)}, "RFC 5280 §5.3.2", nil},
		"requested tomorrow": {Revocation{RequestedAt: now.Add(time.Second)}, "REV-6.2.4-05A", nil},
		"invalid too early":  {Revocation{InvalidFrom: start.Add(-time.Second)}, "RFC 5280 §5.3.2", nil},
		"invalid in 1900":    {Revocation{InvalidFrom: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)}, "RFC 5280 §5.3.2", nil},
		"requested in 1900":  {Revocation{RequestedAt: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)}, "REV-6.2.4-05A", nil},
	} {
		t.Run(name, func(t *testing.T) {
			size := p.journal.Size()
			c.r.Actor = testActor
			if c.r.Serial == "" {
				c.r.Serial = issued.Serial
			}
			_, err := p.issuer.Revoke(t.Context(), c.r)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			var violations policy.Violations
			if c.is != nil && !errors.Is(err, c.is) || c.is == nil && !errors.As(err, &violations) {
				t.Errorf("got %v: wrong kind", err)
			}
			if p.journal.Size() != size {
				t.Error("a refused revocation left a trace")
			}
		})
	}
	if p.state(issued.Serial).Status != journal.Issued {
		t.Error("no longer good")
	}
}

// cACompromise is for CA certificates, and the root may say it of its issuing CA.
func TestRevokeIssuingCA(t *testing.T) {
	p, _ := newProvider(t)
	root := p.newRootIssuer()
	c, err := root.Revoke(t.Context(), Revocation{
		Actor: testActor, Serial: journal.Serial(p.cert.SerialNumber.Bytes()), Reason: journal.CACompromise,
	})
	if err != nil || c.Status != journal.Revoked {
		t.Errorf("got %+v, %v", c, err)
	}
}

// A clock that refuses stops the CRL, not the revocation: it is durable, and the error says what is
// missing. As soon as the clock is back, the CRL has it.
func TestRevokeWithoutCRL(t *testing.T) {
	p, clock := newProvider(t)
	issued := p.issue()
	clock.set(start, errors.New("unsynchronised"))
	c, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: issued.Serial})
	if !errors.Is(err, ErrNotPublished) || !errors.Is(err, ErrClock) || c.Status != journal.Revoked {
		t.Errorf("got %+v, %v", c, err)
	}
	if p.state(issued.Serial).Status != journal.Revoked {
		t.Error("not revoked")
	}
	clock.set(start.Add(time.Second), nil) // the entry's time went on while the clock stood still
	if _, err := p.issuer.Health(); !errors.Is(err, ErrNotPublished) {
		t.Errorf("health: %v", err)
	}
	if _, err := p.issuer.IssueCRL(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entry, listed := p.onCRL(issued.Serial); !listed || entry.ReasonCode != 0 {
		t.Errorf("on the CRL: %v %+v", listed, entry)
	}
	if _, err := p.issuer.Health(); err != nil {
		t.Errorf("health: %v", err)
	}
}

// A clock that is a moment behind the journal does not stop a revocation either: the entry gets the journal's
// last time, and only the CRL waits for the clock.
func TestRevokeWithTheClockBehind(t *testing.T) {
	p, clock := newProvider(t)
	clock.advance(time.Minute)
	issued := p.issue()
	clock.set(start, nil)
	c, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: issued.Serial, Reason: journal.KeyCompromise})
	if !errors.Is(err, ErrNotPublished) || !errors.Is(err, ErrClock) || c.Status != journal.Revoked {
		t.Fatalf("got %v, %v", c.Status, err)
	}
	if !c.Since.Equal(start.Add(time.Minute)) {
		t.Errorf("revoked at %s", c.Since)
	}
	clock.advance(2 * time.Minute)
	if _, err := p.issuer.IssueCRL(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, listed := p.onCRL(issued.Serial); !listed {
		t.Error("not on the CRL")
	}
}

// A certificate that begins later can be revoked before it does.
func TestRevokeBeforeItBegins(t *testing.T) {
	p, clock := newProvider(t)
	order := p.order()
	order.NotBefore = start.Add(24 * time.Hour)
	issued, err := p.issuer.Issue(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Hour)
	early := Revocation{Actor: testActor, Serial: issued.Serial, RequestedAt: start.Add(-time.Minute)}
	var violations policy.Violations
	if _, err := p.issuer.Revoke(t.Context(), early); !errors.As(err, &violations) {
		t.Errorf("asked for before it was issued: %v", err)
	}
	if c, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: issued.Serial}); err != nil || c.Status != journal.Revoked {
		t.Errorf("got %v, %v", c.Status, err)
	}
}

// For each step of Revoke and of the CRL that follows it: it fails, or it fails but did reach the disk.
// After a restart what the journal says, the CRL in publish/ says, and no CRL number is used twice.
func TestRevokeStops(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  cut
		key  error
		want journal.Status
	}{
		{name: "revocation not recorded", cut: cut{at: isStep[journal.CertificateRevoked]}, want: journal.Issued},
		{name: "revocation recorded, process gone", cut: cut{at: isStep[journal.CertificateRevoked], persisted: true}, want: journal.Revoked},
		{name: "number not reserved", cut: cut{at: isStep[journal.CRLReserved]}, want: journal.Revoked},
		{name: "number reserved, process gone", cut: cut{at: isStep[journal.CRLReserved], persisted: true}, want: journal.Revoked},
		{name: "token refuses", cut: cut{at: never}, key: errStep, want: journal.Revoked},
		{name: "CRL not recorded", cut: cut{at: isStep[journal.CRLIssued]}, want: journal.Revoked},
		{name: "CRL recorded, process gone", cut: cut{at: isStep[journal.CRLIssued], persisted: true}, want: journal.Revoked},
		{name: "nothing fails", cut: cut{at: never}, want: journal.Revoked},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := newProvider(t)
			issued := p.issue()
			c.cut.i = p.issuer
			p.issuer.appendEntry = c.cut.append
			p.key.hook(func([]byte) error { return c.key }, nil)
			_, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: issued.Serial, Reason: journal.Superseded})
			p.key.hook(nil, nil)
			if (err == nil) != (c.name == "nothing fails") {
				t.Fatalf("got %v", err)
			}
			if known := p.state(issued.Serial).Status == journal.Revoked; known && err != nil &&
				!errors.Is(err, ErrNotPublished) && !errors.Is(err, journal.ErrFailed) {
				t.Errorf("revoked, but the error does not say so: %v", err)
			}
			p.restart()
			p.checkAfterRestart()
			if got := p.state(issued.Serial).Status; got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if _, listed := p.onCRL(issued.Serial); listed != (c.want == journal.Revoked) {
				t.Errorf("on the CRL: %v", listed)
			}
			if _, err := os.Stat(p.crlFile()); err != nil {
				t.Error(err)
			}
		})
	}
}
