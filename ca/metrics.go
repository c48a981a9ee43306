package ca

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/policy"
)

// metrics are what a CA counts. docs/ca.md lists them.
type metrics struct {
	issued    *prometheus.CounterVec   // by profile
	refused   *prometheus.CounterVec   // by clause
	revoked   *prometheus.CounterVec   // by reason
	abandoned prometheus.Counter       // intents closed without a certificate
	denied    *prometheus.CounterVec   // officers' calls, by why (411-1 DIS-6.5.5-05)
	crls      *prometheus.CounterVec   // by result
	seconds   *prometheus.HistogramVec // by step of issuing
	crlTime   prometheus.Histogram
}

// newMetrics makes and registers them. r may be nil. crl tells of the CRL in publish/.
func newMetrics(r prometheus.Registerer, c clock.Clock, crl func() published) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "zegel_ca_" + name, Help: help}, labels)
	}
	// 100 µs to 6.5 s: a soft token signs P-256 in 40 µs, a network HSM RSA-4096 in a second under load.
	buckets := prometheus.ExponentialBuckets(100e-6, 2, 17)
	m := &metrics{
		issued:  counter("certificates_issued_total", "Certificates issued.", "profile"),
		refused: counter("orders_refused_total", "Rules that refused an order.", "clause"),
		revoked: counter("certificates_revoked_total", "Certificates revoked.", "reason"),
		denied:  counter("calls_denied_total", "Officers' calls denied.", "why"),
		crls:    counter("crls_total", "CRLs attempted.", "result"),
		abandoned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zegel_ca_certificates_abandoned_total", Help: "Intents closed without a certificate."}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zegel_ca_issue_seconds", Help: "Time of each step of issuing a certificate.", Buckets: buckets}, []string{"step"}),
		crlTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zegel_ca_crl_seconds", Help: "Time to issue and publish a CRL.", Buckets: prometheus.ExponentialBuckets(1e-3, 2, 15)}),
	}
	if r == nil {
		return m, nil
	}
	all := []prometheus.Collector{m.issued, m.refused, m.revoked, m.denied, m.crls, m.abandoned, m.seconds, m.crlTime}
	for _, metric := range append(all, crlGauges(c, crl)...) {
		if err := r.Register(metric); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// crlGauges tell of the CRL in publish/ at the moment they are read. All are 0 before the first.
func crlGauges(c clock.Clock, crl func() published) []prometheus.Collector {
	gauge := func(name, help string, value func(published) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zegel_ca_" + name, Help: help}, func() float64 {
			p := crl()
			if p.number == 0 {
				return 0
			}
			return value(p)
		})
	}
	return []prometheus.Collector{
		gauge("crl_number", "cRLNumber of the published CRL.", func(p published) float64 { return float64(p.number) }),
		gauge("crl_entries", "Certificates on the published CRL.", func(p published) float64 { return float64(p.entries) }),
		gauge("crl_next_update_seconds", "nextUpdate of the published CRL, Unix time.", func(p published) float64 {
			return float64(p.nextUpdate.Unix())
		}),
		gauge("crl_age_seconds", "Time since thisUpdate of the published CRL.", func(p published) float64 {
			now, _, err := c.Now()
			if err != nil {
				now = time.Now() // an age to look at, not a time to sign
			}
			return now.Sub(p.thisUpdate).Seconds()
		}),
	}
}

// refuse counts each rule that refused an order.
func (m *metrics) refuse(err error) {
	violations, _ := errors.AsType[policy.Violations](err)
	for _, v := range violations {
		m.refused.WithLabelValues(v.Clause).Inc()
	}
}

// stepTimer measures the steps of one issue. Not safe for concurrent use.
type stepTimer struct {
	seconds *prometheus.HistogramVec
	last    time.Time
}

func (m *metrics) timer() *stepTimer { return &stepTimer{seconds: m.seconds, last: time.Now()} }

// step ends the step called name; the next begins.
func (t *stepTimer) step(name string) {
	now := time.Now()
	t.seconds.WithLabelValues(name).Observe(now.Sub(t.last).Seconds())
	t.last = now
}
