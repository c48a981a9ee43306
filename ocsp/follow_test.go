package ocsp

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
)

// newReplica makes an empty replica of the provider's journal.
func (p *provider) newReplica() *journal.Journal {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "replica")
	if err := journal.CreateReplica(dir, p.journal.VerifierKey()); err != nil {
		p.t.Fatal(err)
	}
	replica, err := journal.OpenReplica(dir, p.clock.now)
	if err != nil {
		p.t.Fatal(err)
	}
	p.dirs[replica] = dir
	p.t.Cleanup(func() {
		if err := replica.Close(); err != nil {
			p.t.Error(err)
		}
	})
	return replica
}

// follow runs Follow until the returned function is called, which returns what Follow returned.
func (p *provider) follow(feed string) (stop func() error) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.responder.Follow(ctx, feed, http.DefaultClient) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	p.t.Cleanup(func() { _ = stop() })
	return stop
}

// eventually waits for what another goroutine brings about.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not within 10 s: %s", what)
}

// A responder over a replica: tryLater before the first checkpoint, the CA's word after it, and
// ready again when the feed comes back.
func TestFollow(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.checkpoint()
	replica := p.newReplica()
	p.newResponder(func(c *Config) { c.Replica, c.Registerer = replica, nil })
	p.mustRefuse(tryLater, serial)
	p.healthSays("no checkpoint has been verified yet")

	var away atomic.Bool
	handler := p.journal.FeedHandler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	away.Store(true)
	stop := p.follow(server.URL)
	eventually(t, "an error of the feed is a fact of health", func() bool {
		facts, _ := p.responder.Health()
		return facts["feed_error"] != nil
	})
	away.Store(false)
	eventually(t, "the replica has caught up", func() bool { _, err := replica.Verified(); return err == nil })
	if got := p.ask(serial).singles[0].status.state; got != good {
		t.Errorf("status %v", got)
	}
	p.healthSays("")
	p.revoke(serial, journal.KeyCompromise)
	p.checkpoint()
	eventually(t, "the revocation has come", func() bool { return p.ask(serial).singles[0].status.state == revoked })

	p.clock.add(5*time.Minute + time.Second)
	p.healthSays("5m1s old")
	p.ask(serial)
	if err := stop(); errors.Is(err, journal.ErrFork) {
		t.Errorf("Follow: %v", err)
	}
}

// A feed that contradicts what was verified ends all answers, whatever is cached.
func TestFork(t *testing.T) {
	p := newProvider(t, nil)
	a := p.issue()
	p.checkpoint()
	replica := p.newReplica()
	p.newResponder(func(c *Config) { c.Replica, c.Registerer = replica, nil })
	var current atomic.Pointer[journal.Journal]
	current.Store(p.journal)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { current.Load().FeedHandler().ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	stop := p.follow(server.URL)
	eventually(t, "good", func() bool {
		_, err := replica.Verified()
		return err == nil && p.ask(a).singles[0].status.state == good
	})
	if err := stop(); err != nil && errors.Is(err, journal.ErrFork) {
		t.Fatal(err)
	}

	// The same key signs another history.
	p.pass(time.Minute)
	p.journal = p.newJournal()
	for range 3 {
		p.issue()
	}
	p.checkpoint()
	current.Store(p.journal)
	stop = p.follow(server.URL)
	eventually(t, "the fork is found", func() bool { return p.responder.forkError() != nil })
	p.mustRefuse(internalError, a)
	p.healthSays("contradicts")
	if err := stop(); !errors.Is(err, journal.ErrFork) || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("Follow: %v", err)
	}

	// A restart forgets nothing, with the feed away or an honest one back.
	dir := p.dirs[replica]
	if err := replica.Close(); err != nil {
		t.Fatal(err)
	}
	replica, err := journal.OpenReplica(dir, p.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replica.Close() })
	p.newResponder(func(c *Config) { c.Replica, c.Registerer = replica, nil })
	p.mustRefuse(internalError, a)
	p.healthSays("contradicts")
	if err := p.responder.Follow(t.Context(), server.URL, http.DefaultClient); !errors.Is(err, journal.ErrFork) {
		t.Errorf("Follow after the restart: %v", err)
	}
	p.mustRefuse(internalError, a)

	// A new replica is a new beginning.
	replica = p.newReplica()
	p.newResponder(func(c *Config) { c.Replica, c.Registerer = replica, nil })
	p.follow(server.URL)
	eventually(t, "answers again", func() bool { _, err := replica.Verified(); return err == nil })
	p.ask(a)
}

// What makes a responder not ready, and what it shows either way.
func TestHealth(t *testing.T) {
	p := newProvider(t, nil)
	p.issue()
	p.checkpoint()
	p.healthSays("")
	facts, _ := p.responder.Health()
	for fact, want := range map[string]any{
		"checkpoint_time": epoch.Format(time.RFC3339), "checkpoint_size": uint64(2), "entries": uint64(2), "clock": "system", "responder_certificate": "02",
		"status_life": "12h0m0s", "responder_not_after": p.certificate.NotAfter.Format(time.RFC3339),
	} {
		if facts[fact] != want {
			t.Errorf("%s: %v, want %v", fact, facts[fact], want)
		}
	}
	p.clock.add(5 * time.Minute)
	p.healthSays("")
	p.clock.add(time.Second)
	p.healthSays("5m1s old")
	// Several reasons are told together.
	p.abandonOwn()
	p.healthSays("; the last verified checkpoint is")
	p.healthSays("is abandoned since")

	p = newProvider(t, func(c *Config) { c.StatusLife = time.Minute })
	p.clock.add(time.Minute + time.Second)
	p.healthSays("1m1s old")
}

// A responder certificate that ends soon is a warning and a gauge, not a reason: the answers are good until it ends.
func TestHealthCertificateEnds(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.issueSerial(p.certificate.SerialNumber)
	warned := func() bool {
		t.Helper()
		p.healthSays("")
		p.ask(serial)
		facts, _ := p.responder.Health()
		warnings, _ := facts["warnings"].([]string)
		return len(warnings) == 1 && strings.Contains(warnings[0], "expires at "+p.certificate.NotAfter.Format(time.RFC3339))
	}
	end, life := p.certificate.NotAfter, p.certificate.NotAfter.Sub(p.certificate.NotBefore)
	for _, c := range []struct {
		before time.Duration
		want   bool
	}{{life / 10, false}, {life/10 - time.Second, true}, {12*time.Hour - time.Second, true}, {time.Second, true}} {
		p.pass(end.Add(-c.before).Sub(p.clock.now()))
		if got := warned(); got != c.want {
			t.Errorf("%v before its end: warned %v, want %v", c.before, got, c.want)
		}
	}
	if got := p.metric("zegel_ocsp_certificate_not_after_seconds"); got != float64(end.Unix()) {
		t.Errorf("gauge %v", got)
	}
	p.pass(time.Second)
	p.healthSays("expired at")
}

// A certificate that the journal does not know is no news before the replica has caught up.
func TestHealthNewReplica(t *testing.T) {
	p := newProvider(t, nil)
	p.newResponder(func(c *Config) { c.Replica, c.Registerer = p.newReplica(), nil })
	if facts, _ := p.responder.Health(); facts["warnings"] != nil {
		t.Errorf("warnings %v", facts["warnings"])
	}
}

// Names are shown as people write them.
func TestHealthIssuer(t *testing.T) {
	p := &provider{t: t, caClock: &fakeClock{t: epoch}, clock: &fakeClock{t: epoch}, caKey: newKey(t), key: &brokenKey{Signer: newKey(t)}}
	template := *newCA(t, epoch, p.caKey)
	template.RawSubject = nil
	template.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 97}, Value: "NTRNL-12345678"}}
	p.ca = sign(t, &template, &template, p.caKey.Public(), p.caKey)
	p.certificate = newResponderCertificate(t, p, nil)
	_, p.checkpointKey, _ = ed25519.GenerateKey(rand.Reader)
	p.journal = p.newJournal()
	p.newResponder(func(c *Config) { c.Registerer = nil })
	facts, _ := p.responder.Health()
	issuer, _ := facts["issuer"].(string)
	if !strings.Contains(issuer, "organizationIdentifier=NTRNL-12345678") || !strings.Contains(issuer, "CN=TEST Issuing CA") || strings.Contains(issuer, "#") {
		t.Errorf("issuer %q", issuer)
	}
}

// abandonOwn records that the responder certificate was given up.
func (p *provider) abandonOwn() {
	p.t.Helper()
	p.intendSerial(p.certificate.SerialNumber)
	p.abandon(p.certificate.SerialNumber)
}

// What operators watch: docs/ocsp.md lists these names.
func TestMetrics(t *testing.T) {
	p := newProvider(t, nil)
	goodSerial, revokedSerial := p.issue(), p.issue()
	p.revoke(revokedSerial, journal.KeyCompromise)
	p.checkpoint()
	p.ask(goodSerial)
	p.ask(goodSerial)
	p.ask(revokedSerial, goodSerial)
	p.ask(p.intend())
	p.mustRefuseRequest(malformedRequest, nil)
	p.clock.add(13 * time.Hour)
	p.mustRefuse(tryLater, goodSerial)
	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{4, "zegel_ocsp_requests_total", []string{"status=successful"}},
		{1, "zegel_ocsp_requests_total", []string{"status=malformedRequest"}},
		{1, "zegel_ocsp_requests_total", []string{"status=tryLater"}},
		{0, "zegel_ocsp_requests_total", []string{"status=unauthorized"}},
		{0, "zegel_ocsp_requests_total", []string{"status=internalError"}},
		{3, "zegel_ocsp_statuses_total", []string{"cert_status=good"}},
		{1, "zegel_ocsp_statuses_total", []string{"cert_status=revoked"}},
		{1, "zegel_ocsp_statuses_total", []string{"cert_status=unknown"}},
		{3, "zegel_ocsp_signature_seconds", nil},
		{1, "zegel_ocsp_cache_hits_total", nil},
		{0, "zegel_ocsp_never_issued_total", nil},
		{0, "zegel_ocsp_signatures_waiting", nil},
		{13 * 3600, "zegel_ocsp_checkpoint_age_seconds", nil},
	} {
		if got := p.metric(c.name, c.labels...); got != c.want {
			t.Errorf("%s %v: %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	p.clock.refuse(errors.New("unsynchronised"))
	if got := p.metric("zegel_ocsp_checkpoint_age_seconds"); got < 1e300 {
		t.Errorf("age %v while the clock refuses, want +Inf", got)
	}
}
