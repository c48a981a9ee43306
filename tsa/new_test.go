package tsa

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// TestNewRefuses has a configuration that could only fail later be refused at once, with a reason.
func TestNewRefuses(t *testing.T) {
	ca := newTestCA(t)
	key := newP256(t)
	good := ca.unit(t, key, tsuTemplate())
	certified := func(change func(*x509.Certificate)) func(*Config) {
		return func(c *Config) {
			template := tsuTemplate()
			change(template)
			c.Unit = ca.unit(t, key, template)
		}
	}
	tests := []struct {
		name   string
		change func(*Config)
		want   string // "" for what is accepted
	}{
		{"nothing", func(*Config) {}, ""},
		{"accuracy 0", func(c *Config) { c.Accuracy = 0 }, "accuracy"},
		{"accuracy 1001 ms", func(c *Config) { c.Accuracy = 1001 * time.Millisecond }, "TIS-7.7.2-03"},
		{"accuracy in nanoseconds", func(c *Config) { c.Accuracy = 1500 }, "microseconds"},
		{"no policy", func(c *Config) { c.Policy = nil }, "policy"},
		{"policy of one arc", func(c *Config) { c.Policy = c.Policy[:1] }, "policy"},
		{"no clock", func(c *Config) { c.Clock = nil }, "clock"},
		{"no key", func(c *Config) { c.Unit.Key = nil }, "key"},
		{"another key", func(c *Config) { c.Unit.Key = newP256(t) }, "another key"},
		{"PSS with an EC key", func(c *Config) { c.Unit.SignatureScheme = der.PSS }, "an EC key"},
		{"a scheme that is none", func(c *Config) { c.Unit.SignatureScheme = "oaep" }, "write pkcs1v15 or pss"},
		{"no chain", func(c *Config) { c.Unit.Chain = nil }, "chain"},
		{"chain without root", func(c *Config) { c.Unit.Chain = c.Unit.Chain[:1] }, ""},
		{"chain of another CA", func(c *Config) { c.Unit.Chain = ca.unit(t, key, tsuTemplate()).Chain[1:] }, "chain"},
		{"chain out of order", func(c *Config) { c.Unit.Chain = []*x509.Certificate{ca.root, ca.issuing} }, "did not issue"},
		{"chain with a stranger", func(c *Config) { c.Unit.Chain = append(slices.Clone(c.Unit.Chain), newTestCA(t).root) }, "did not issue"},
		{"extKeyUsage not critical", certified(func(c *x509.Certificate) { c.ExtraExtensions[0] = ekuTimeStamping(false) }), "RFC 3161 §2.3"},
		{"keyUsage keyEncipherment", certified(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }), "keyUsage"},
		{"keyUsage nonRepudiation", certified(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }), ""},
		{"a CA", certified(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "CA certificate"},
		{"expired", certified(func(c *x509.Certificate) { c.NotAfter = testTime.Add(-time.Hour) }), "may not sign after"},
		{"key use over", certified(func(c *x509.Certificate) { c.ExtraExtensions[1] = usageUntil(testTime.Add(-time.Hour)) }), "TIS-7.7.1-09"},
		{"not yet valid", certified(func(c *x509.Certificate) { c.NotBefore = testTime.Add(time.Hour) }), "may not sign before"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{
				Clock: &fakeClock{wall: testTime}, Unit: good, Policy: BTSP, Accuracy: time.Second, Log: slog.New(slog.DiscardHandler),
			}
			tt.change(&c)
			_, err := newAuthority(c, &memory{})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := New(Config{}); err == nil {
		t.Error("made without a journal")
	}
}

// TestCheckUnit has a unit be judged without its key, and a fault of the chain be told from one of the certificate.
func TestCheckUnit(t *testing.T) {
	ca := newTestCA(t)
	unit := ca.unit(t, newP256(t), tsuTemplate())
	unit.Key = nil
	if err := CheckUnit(unit, nil); err != nil {
		t.Error(err)
	}
	profile, err := policy.Builtin("tsu")
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckUnit(unit, profile); err == nil || errors.Is(err, ErrChain) || !strings.Contains(err.Error(), "profile tsu") {
		t.Errorf("a certificate that does not satisfy the profile: %v", err)
	}
	if err := CheckUnit(Unit{Certificate: unit.Certificate}, nil); !errors.Is(err, ErrChain) {
		t.Errorf("no chain: %v", err)
	}
	if err := CheckUnit(Unit{Certificate: ca.issuing, Chain: unit.Chain[1:]}, nil); err == nil || errors.Is(err, ErrChain) {
		t.Errorf("a CA: %v", err)
	}
	if err := CheckUnit(Unit{}, nil); err == nil {
		t.Error("nothing")
	}
}

// TestNewRefusesKeys has keys that no service may use be refused.
func TestNewRefusesKeys(t *testing.T) {
	ca := newTestCA(t)
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []Unit{ca.unit(t, short, tsuTemplate()), ca.unit(t, p224, tsuTemplate())} {
		_, err := newAuthority(Config{
			Clock: &fakeClock{wall: testTime}, Unit: unit, Policy: BTSP, Accuracy: time.Second, Log: slog.New(slog.DiscardHandler),
		}, &memory{})
		if err == nil || !strings.Contains(err.Error(), "signature algorithm") {
			t.Errorf("got %v", err)
		}
	}
}

// TestMetrics has what happened, and an unverified clock, be seen in the metrics.
func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	b := newBench(t, newP256(t), func(c *Config) { c.ClockUnverified, c.Registerer = true, r })
	b.ask(t, "data", nil)
	b.Respond(t.Context(), nil)
	b.Respond(t.Context(), nil)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		"zegel_tsa_clock_available 1", "zegel_tsa_clock_unverified 1", "zegel_tsa_clock_accuracy_seconds 0.002",
		`zegel_tsa_responses_total{result="granted"} 1`, `zegel_tsa_responses_total{result="badDataFormat"} 2`,
		`zegel_tsa_responses_total{result="timeNotAvailable"} 0`,
		`zegel_tsa_responses_total{result="busy"} 0`, `zegel_tsa_responses_total{result="slow"} 0`, "zegel_tsa_warnings 0", "zegel_tsa_respond_seconds_count 1",
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("the metrics do not say %s", line)
		}
	}
	_, err := newAuthority(Config{
		Clock: b.clock, Unit: b.unit, Policy: BTSP, Accuracy: time.Second, Log: slog.New(slog.DiscardHandler), Registerer: r,
	}, &memory{taken: make(map[journal.Serial]bool)})
	if err == nil {
		t.Error("two authorities in one registry")
	}
}
