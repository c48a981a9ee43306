package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// What Issue returns is what was checked, what the journal holds, and what a relying party accepts.
func TestIssue(t *testing.T) {
	p, _ := newProvider(t)
	issued := p.issue()
	cert := p.parse(issued.Certificate)

	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(p.root)
	between.AddCert(p.cert)
	// crypto/x509 does not know qcStatements; they are never critical (EN 319 412-5 QCS-4.1-02).
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		t.Errorf("chain: %v", err)
	}
	if !bytes.Equal(cert.SerialNumber.Bytes(), issued.Serial.Bytes()) || len(issued.Serial) != 20 || issued.Serial[0] != 1 {
		t.Errorf("serial %x in the certificate, %s returned", cert.SerialNumber, issued.Serial)
	}
	if day := int(issued.Serial[1])<<8 | int(issued.Serial[2]); !serialEpoch.AddDate(0, 0, day).Equal(start.Truncate(24 * time.Hour)) {
		t.Errorf("serial says day %d", day)
	}
	if !cert.NotBefore.Equal(start) || !cert.NotAfter.Equal(start.Add(p.profile("qcp-n").Validity()-time.Second)) {
		t.Errorf("valid from %s to %s", cert.NotBefore, cert.NotAfter)
	}

	state := p.state(issued.Serial)
	if state.Status != journal.Issued || state.Hash != sha256.Sum256(issued.Certificate) || state.Issuer != p.issuer.ID() {
		t.Errorf("the journal says %+v", state)
	}
	intent, err := p.journal.Opened(state.IntendedAt)
	if err != nil {
		t.Fatal(err)
	}
	if in, ok := intent.(journal.CertificateIntended); !ok || !bytes.Equal(in.TBS, cert.RawTBSCertificate) || in.Actor != testActor {
		t.Errorf("the intent is not the certificate: %+v", intent)
	}
	if issued.TBSDigest != sha256.Sum256(cert.RawTBSCertificate) || len(issued.ID()) != 32 {
		t.Errorf("digest or id wrong: %s", issued.ID())
	}
}

func TestPlanRecordsAndSignsNothing(t *testing.T) {
	p, _ := newProvider(t)
	size, signatures := p.journal.Size(), p.key.signatures()
	planned, err := p.issuer.Plan(t.Context(), p.order())
	if err != nil {
		t.Fatal(err)
	}
	if p.journal.Size() != size || p.key.signatures() != signatures {
		t.Error("Plan left a trace")
	}
	draft := p.parse(planned.Draft)
	if !bytes.Equal(draft.RawTBSCertificate, planned.TBS) || draft.CheckSignatureFrom(p.cert) == nil {
		t.Error("the draft is not the TBS, or its signature verifies")
	}
}

func TestIssueRefuses(t *testing.T) {
	p, _ := newProvider(t)
	ended, end := context.WithCancel(t.Context())
	end()
	noEvidence := func(o *Order) {
		s := *o.Subject
		s.Registration = nil
		o.Subject = &s
	}
	for name, c := range map[string]struct {
		change func(*Order)
		ctx    context.Context
		want   string // in the error; "policy" means Violations
	}{
		"no profile":                {change: func(o *Order) { o.Profile = nil }, want: "without profile"},
		"no subject":                {change: func(o *Order) { o.Subject = nil }, want: "without profile or subject"},
		"self-signed":               {change: func(o *Order) { o.Profile = p.profile("root-ca") }, want: "self-signed"},
		"no registration":           {change: noEvidence, want: "policy"},
		"wrong subject for profile": {change: func(o *Order) { o.Profile = p.profile("qcp-l") }, want: "policy"},
		"device missing":            {change: func(o *Order) { o.Profile = p.profile("qcp-n-qscd") }, want: "policy"},
		"backdated":                 {change: func(o *Order) { o.NotBefore = start.Add(-time.Second) }, want: "policy"},
		"longer than the profile":   {change: func(o *Order) { o.NotAfter = start.AddDate(4, 0, 0) }, want: "policy"},
		"ends before it begins":     {change: func(o *Order) { o.NotAfter = start.Add(-time.Hour) }, want: "policy"},
		"key that is no key":        {change: func(o *Order) { o.PublicKey = []byte{0x30, 0x00} }, want: "policy"},
		"caller gone":               {change: func(*Order) {}, ctx: ended, want: "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			size, signatures := p.journal.Size(), p.key.signatures()
			order := p.order()
			c.change(&order)
			ctx := t.Context()
			if c.ctx != nil {
				ctx = c.ctx
			}
			_, err := p.issuer.Issue(ctx, order)
			var violations policy.Violations
			if c.want == "policy" {
				if !errors.As(err, &violations) || len(violations) == 0 || violations[0].Clause == "" {
					t.Errorf("got %v, want Violations with clauses", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if p.journal.Size() != size || p.key.signatures() != signatures {
				t.Error("a refused order left a trace")
			}
		})
	}
}

// The default validity is cut where the CA's own ends, because status must be served that long
// (EN 319 411-1 GEN-6.3.3-05); asked for beyond it, it is refused.
func TestValidityEndsWithTheCA(t *testing.T) {
	p, clock := newProvider(t)
	clock.set(p.cert.NotAfter.AddDate(0, -6, 0), nil)
	issued := p.issue()
	if !issued.NotAfter.Equal(p.cert.NotAfter) {
		t.Errorf("ends %s, the CA %s", issued.NotAfter, p.cert.NotAfter)
	}
	order := p.order()
	order.NotAfter = p.cert.NotAfter.Add(time.Second)
	var violations policy.Violations
	if _, err := p.issuer.Issue(t.Context(), order); !errors.As(err, &violations) {
		t.Errorf("beyond the CA: got %v", err)
	}
	// A tenth of the profile's validity is the least that a subscriber gets.
	least := p.profile("qcp-n").Validity() / leastShare
	clock.set(p.cert.NotAfter.Add(-least), nil)
	p.issue()
	clock.set(p.cert.NotAfter.Add(time.Second-least), nil)
	p.refusedAtTheEnd(t, "less than a tenth")
	clock.set(p.cert.NotAfter.Add(time.Second), nil)
	p.refusedAtTheEnd(t, "the CA certificate ended at")
}

// refusedAtTheEnd wants an order refused by the clause on the end of the CA, and nothing recorded or signed for it.
func (p *provider) refusedAtTheEnd(t *testing.T, want string) {
	t.Helper()
	size, signatures := p.journal.Size(), p.key.signatures()
	_, err := p.issuer.Issue(t.Context(), p.order())
	violations, _ := errors.AsType[policy.Violations](err)
	if len(violations) != 1 || violations[0].Clause != "EN 319 411-1 GEN-6.3.3-05" || !strings.Contains(violations[0].Detail, want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if p.journal.Size() != size || p.key.signatures() != signatures {
		t.Error("a refused order left a trace")
	}
}

// The end of the CA is warned of as soon as it shortens what is issued.
func TestWarnsOfTheEnd(t *testing.T) {
	p, clock := newProvider(t)
	longest := p.profile("qcp-n").Validity()
	for _, c := range []struct {
		left time.Duration
		want string
	}{
		{longest + time.Hour, ""}, {longest - time.Hour, "certificates end with it"},
		{longest/leastShare - time.Hour, "refused by now"}, {-time.Second, "nothing is signed any more"},
	} {
		clock.set(p.cert.NotAfter.Add(-c.left), nil)
		facts, _ := p.issuer.Health()
		warnings, _ := facts["warnings"].([]string)
		if got := strings.Join(warnings, "\n"); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%v before the end: %q, want %q", c.left, got, c.want)
		}
	}
}

// errStep is what the fault table injects.
var errStep = errors.New("injected")

// cut ends an issuer's process at one step: whatever follows is refused.
type cut struct {
	i         *Issuer
	at        func(journal.Event) bool // the step
	persisted bool                     // the step reaches the disk before the process dies
	dead      bool
}

func (c *cut) append(ctx context.Context, e journal.Event) (journal.Entry, error) {
	if c.dead {
		return journal.Entry{}, journal.ErrFailed
	}
	if !c.at(e) {
		return c.i.config.Journal.Append(ctx, e)
	}
	c.dead = true
	if c.persisted {
		if _, err := c.i.config.Journal.Append(ctx, e); err != nil {
			return journal.Entry{}, err
		}
	}
	return journal.Entry{}, fmt.Errorf("%w: %w", journal.ErrFailed, errStep)
}

func isStep[E journal.Event](e journal.Event) bool { _, ok := e.(E); return ok }

func never(journal.Event) bool { return false }

// For each step of Issue: it fails, or it fails but did reach the disk. After a restart nothing that was
// handed out is unknown, no intent is open, nothing was signed twice or unrecorded, and the next
// order works.
func TestIssueStops(t *testing.T) {
	wrongSignature := func(signature []byte) []byte { signature[len(signature)-1] ^= 1; return signature }
	for _, c := range []struct {
		name   string
		cut    cut
		before func([]byte) error
		after  func([]byte) []byte
		want   journal.Status // of the order's serial after the restart; 0: not in the journal
	}{
		{name: "intent not recorded", cut: cut{at: isStep[journal.CertificateIntended]}, want: 0},
		{name: "intent recorded, process gone", cut: cut{at: isStep[journal.CertificateIntended], persisted: true}, want: journal.Abandoned},
		{name: "token refuses", cut: cut{at: never}, before: func([]byte) error { return errStep }, want: journal.Abandoned},
		{name: "token lies", cut: cut{at: never}, after: wrongSignature, want: journal.Abandoned},
		{name: "token refuses, process gone", cut: cut{at: isStep[journal.CertificateAbandoned]}, before: func([]byte) error { return errStep }, want: journal.Abandoned},
		{name: "token refuses, abandoned, process gone", cut: cut{at: isStep[journal.CertificateAbandoned], persisted: true}, before: func([]byte) error { return errStep }, want: journal.Abandoned},
		{name: "certificate not recorded", cut: cut{at: isStep[journal.CertificateIssued]}, want: journal.Abandoned},
		{name: "certificate recorded, process gone", cut: cut{at: isStep[journal.CertificateIssued], persisted: true}, want: journal.Issued},
		{name: "nothing fails", cut: cut{at: never}, want: journal.Issued},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := newProvider(t)
			c.cut.i = p.issuer
			serial := journal.Serial("")
			p.issuer.appendEntry = func(ctx context.Context, e journal.Event) (journal.Entry, error) {
				if in, ok := e.(journal.CertificateIntended); ok {
					serial = in.Serial
				}
				return c.cut.append(ctx, e)
			}
			p.key.hook(func(digest []byte) error {
				// The invariant itself: at the moment the key moves, the journal holds the intent.
				if p.state(serial).Status != journal.Intended {
					t.Error("the key moves without an intent")
				}
				if c.before != nil {
					return c.before(digest)
				}
				return nil
			}, c.after)
			issued, err := p.issuer.Issue(t.Context(), p.order())
			p.key.hook(nil, nil)

			handedOut := err == nil
			if handedOut != (c.name == "nothing fails") || handedOut != (issued.Certificate != nil) {
				t.Fatalf("issued %x, %v", issued.Certificate, err)
			}
			p.restart()
			p.checkAfterRestart()
			state, err := p.journal.CertificateBySerial(serial)
			if c.want == 0 {
				if !errors.Is(err, journal.ErrNotFound) {
					t.Errorf("got %v, %v, want nothing", state, err)
				}
			} else if err != nil || state.Status != c.want {
				t.Errorf("got %v, %v, want %v", state.Status, err, c.want)
			}
			if _, listed := p.onCRL(serial); listed != (c.want == journal.Abandoned) {
				t.Errorf("on the CRL: %v", listed)
			}
			p.issue()
		})
	}
}

// checkAfterRestart are the promises of the package, whatever happened before.
func (p *provider) checkAfterRestart() {
	p.Helper()
	open, err := p.journal.OpenIntents()
	if err != nil || len(open) > 0 {
		p.Errorf("open intents after recovery: %v, %v", open, err)
	}
	for digest, count := range p.key.signed {
		if count > 1 {
			p.Errorf("%x was signed %d times", digest, count)
		}
	}
	for c, err := range p.journal.Certificates() {
		if err != nil {
			p.Fatal(err)
		}
		if c.Status == journal.Intended {
			p.Errorf("%s is still intended", c.Serial)
		}
	}
	p.verify()
}

// A token that gives a wrong signature must not get it out, and the intent is closed at once.
func TestWrongSignatureIsRefused(t *testing.T) {
	p, _ := newProvider(t)
	p.key.hook(nil, func(signature []byte) []byte { signature[len(signature)-1] ^= 1; return signature })
	_, err := p.issuer.Issue(t.Context(), p.order())
	if !errors.Is(err, der.ErrBadSignature) {
		t.Errorf("got %v", err)
	}
	open, err := p.journal.OpenIntents()
	if err != nil || len(open) != 0 {
		t.Errorf("open intents: %v %v", open, err)
	}
}

// A caller who hangs up between intent and signature does not leave the intent open.
func TestIssueGoesOnWhenTheCallerIsGone(t *testing.T) {
	p, _ := newProvider(t)
	ctx, hangUp := context.WithCancel(t.Context())
	p.key.hook(func([]byte) error { hangUp(); return nil }, nil)
	issued, err := p.issuer.Issue(ctx, p.order())
	if err != nil || p.state(issued.Serial).Status != journal.Issued {
		t.Errorf("got %v", err)
	}
}

// Time never runs backwards, and a clock that nobody vouches for signs nothing.
func TestClockRefuses(t *testing.T) {
	p, clock := newProvider(t)
	refused := errors.New("unsynchronised")
	for name, set := range map[string]func(){
		"behind the journal": func() { clock.set(start.Add(-time.Second), nil) },
		"refuses":            func() { clock.set(start, refused) },
	} {
		t.Run(name, func(t *testing.T) {
			defer clock.set(start, nil)
			size := p.journal.Size()
			set()
			if _, err := p.issuer.Issue(t.Context(), p.order()); !errors.Is(err, ErrClock) {
				t.Errorf("Issue: %v", err)
			}
			if _, err := p.issuer.IssueCRL(t.Context()); !errors.Is(err, ErrClock) {
				t.Errorf("IssueCRL: %v", err)
			}
			if err := p.newIssuer().Recover(t.Context()); !errors.Is(err, ErrClock) {
				t.Errorf("Recover: %v", err)
			}
			if _, err := p.issuer.Health(); !errors.Is(err, ErrClock) {
				t.Errorf("Health: %v", err)
			}
			if p.journal.Size() != size {
				t.Error("something was recorded")
			}
		})
	}
}

func TestNothingBeforeRecovery(t *testing.T) {
	p, _ := newProvider(t)
	i := p.newIssuer()
	if _, err := i.Issue(t.Context(), p.order()); !errors.Is(err, ErrStopped) {
		t.Errorf("Issue: %v", err)
	}
	if _, err := i.Revoke(t.Context(), Revocation{}); !errors.Is(err, ErrStopped) {
		t.Errorf("Revoke: %v", err)
	}
	if _, err := i.IssueCRL(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("IssueCRL: %v", err)
	}
	if _, err := i.Health(); !errors.Is(err, ErrStopped) {
		t.Errorf("Health: %v", err)
	}
}

func TestConcurrentIssues(t *testing.T) {
	p, _ := newProvider(t)
	const callers = 64
	var wait sync.WaitGroup
	var mu sync.Mutex
	serials := map[journal.Serial]bool{}
	for range callers {
		order := p.order()
		wait.Go(func() {
			issued, err := p.issuer.Issue(t.Context(), order)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			serials[issued.Serial] = true
		})
	}
	wait.Wait()
	if len(serials) != callers {
		t.Errorf("%d serials for %d certificates", len(serials), callers)
	}
	p.checkAfterRestart()
}

func TestNewRefuses(t *testing.T) {
	p, _ := newProvider(t)
	leaf := p.parse(p.issue().Certificate)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no journal":                {func(c *Config) { c.Journal = nil }, "journal, clock and key"},
		"no clock":                  {func(c *Config) { c.Clock = nil }, "journal, clock and key"},
		"no key":                    {func(c *Config) { c.Key = nil }, "certificate and key"},
		"no certificate":            {func(c *Config) { c.Certificate = nil }, "certificate and key"},
		"leaf certificate":          {func(c *Config) { c.Certificate = leaf }, "not a CA's"},
		"key of another":            {func(c *Config) { c.Key = p.rootKey }, "not that of certificate"},
		"instance 0":                {func(c *Config) { c.Instance = 0 }, "instance 0"},
		"instance 128":              {func(c *Config) { c.Instance = 128 }, "instance 128"},
		"https CRL":                 {func(c *Config) { c.URLs.CRL = "https://x.example/a.crl" }, "http://"},
		"http disclosure statement": {func(c *Config) { c.URLs.PDS = []policy.PDS{{URL: "http://x.example/pds", Language: "en"}} }, "https://"},
		"CRL every two days":        {func(c *Config) { c.CRLEvery, c.CRLLife = 48*time.Hour, 72*time.Hour }, "CSS-6.3.9-05"},
		"CRL life too long":         {func(c *Config) { c.CRLLife = 11 * 24 * time.Hour }, "BR 7.2.2"},
		"CRL life below every":      {func(c *Config) { c.CRLLife = c.CRLEvery }, "every < life"},
		"CRL life in fractions":     {func(c *Config) { c.CRLLife += time.Millisecond }, "whole seconds"},
		"CRL file with a folder":    {func(c *Config) { c.CRLFile = "../x.crl" }, "without a folder"},
		"no CRL file":               {func(c *Config) { c.CRLFile = "" }, "file name"},
		"publish folder missing":    {func(c *Config) { c.PublishDir += "/none" }, "publish folder"},
		"publish folder is a file":  {func(c *Config) { c.PublishDir = p.crlFile() }, "is not a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			config := p.config()
			c.change(&config)
			if _, err := New(config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	root := p.config()
	root.Certificate, root.Key, root.CRLLife = p.root, p.rootKey, 366*24*time.Hour
	if _, err := New(root); err == nil || !strings.Contains(err.Error(), "CSS-6.3.9-12") {
		t.Errorf("root with a CRL of 366 days: %v", err)
	}
}

func TestIssueRootRefuses(t *testing.T) {
	p, _ := newProvider(t)
	good := RootConfig{Journal: p.journal, Clock: p.clock, Key: newTestKey(t), Instance: 3, Profile: p.profile("root-ca"), Subject: caName("TEST Other Root"), Actor: testActor, Log: quiet}
	for name, change := range map[string]func(*RootConfig){
		"no profile":        func(c *RootConfig) { c.Profile = nil },
		"not self-signed":   func(c *RootConfig) { c.Profile = p.profile("issuing-ca") },
		"no subject":        func(c *RootConfig) { c.Subject = nil },
		"nobody holds it":   func(c *RootConfig) { c.Actor = journal.Actor{} },
		"no instance":       func(c *RootConfig) { c.Instance = 0 },
		"subject of a leaf": func(c *RootConfig) { c.Subject = p.order().Subject },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			if _, err := IssueRoot(t.Context(), c); err == nil {
				t.Error("made a root")
			}
		})
	}
	if _, err := IssueRoot(t.Context(), good); err != nil {
		t.Error(err)
	}
}

func TestSerials(t *testing.T) {
	for _, c := range []struct {
		instance byte
		day      time.Time
		prefix   string
	}{
		{0x01, serialEpoch, "010000"},
		{0x7f, time.Date(2026, 12, 1, 23, 59, 59, 0, time.UTC), "7f09de"},
		{0x7f, time.Date(2199, 6, 6, 0, 0, 0, 0, time.UTC), "7fffff"},
	} {
		serial, err := newSerial(c.instance, c.day)
		if err != nil || !strings.HasPrefix(serial.String(), c.prefix) || len(serial) != 20 {
			t.Errorf("%s: %s, %v, want %s…", c.day, serial, err, c.prefix)
		}
		if n := new(big.Int).SetBytes(serial.Bytes()); n.Sign() <= 0 || n.BitLen() > 159 || len(n.Bytes()) != 20 {
			t.Errorf("%s is no positive INTEGER of 20 octets", serial)
		}
	}
	for _, day := range []time.Time{serialEpoch.Add(-time.Hour * 24), time.Date(2199, 6, 7, 0, 0, 0, 0, time.UTC)} {
		if _, err := newSerial(1, day); err == nil {
			t.Errorf("serial for %s", day)
		}
	}
}

// The metrics tell what happened, and a second CA on the same registry is refused, not a panic.
func TestMetrics(t *testing.T) {
	p, clock := newProvider(t)
	registry := prometheus.NewRegistry()
	config := p.config()
	config.Registerer = registry
	i, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(config); err == nil {
		t.Error("two CAs share a registry")
	}
	if err := i.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.issuer = i
	serial := p.issue().Serial
	bad := p.order()
	bad.Profile = p.profile("qcp-l")
	if _, err := i.Issue(t.Context(), bad); err == nil {
		t.Error("issued against policy")
	}
	if _, err := i.Revoke(t.Context(), Revocation{Actor: testActor, Serial: serial}); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"zegel_ca_certificates_issued_total": 1, "zegel_ca_certificates_revoked_total": 1,
		"zegel_ca_certificates_abandoned_total": 0, "zegel_ca_crls_total": 2, "zegel_ca_crl_entries": 1,
		"zegel_ca_crl_number": float64(i.published().number), "zegel_ca_crl_age_seconds": 60,
		"zegel_ca_crl_next_update_seconds": float64(start.Add(24 * time.Hour).Unix()), "zegel_ca_crl_seconds": 2,
		"zegel_ca_issue_seconds": 5, // four steps of the one, and the draft of the other
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if got["zegel_ca_orders_refused_total"] < 1 {
		t.Error("no refusal counted")
	}
}
