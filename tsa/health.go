package tsa

import (
	"context"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// describe sets the facts that do not change.
func (a *Authority) describe(c Config) {
	word := "system"
	if c.ClockUnverified {
		word = "unverified"
	}
	a.facts = map[string]any{
		"clock":             word,
		"unit":              nameText(c.Unit.Certificate.Subject),
		"unit_certificate":  hex.EncodeToString(a.unit.hash[:]),
		"unit_algorithm":    a.unit.algorithm.String(),
		"unit_key_until":    stamp(a.unit.keyNotAfter),
		"certificate_until": stamp(c.Unit.Certificate.NotAfter),
		"policy":            c.Policy.String(),
		"accuracy":          c.Accuracy.String(),
		"qualified":         c.Qualified,
	}
}

// Health says whether a request would get a token now, and if not why, with the facts to show:
// clock is "system", or "unverified" where the configuration says that nobody vouches for it. It reads the clock.
func (a *Authority) Health() (map[string]any, error) {
	facts := maps.Clone(a.facts)
	t, err := a.watch.now(context.Background())
	available, accuracy := a.watch.state()
	facts["clock_vouched"] = available && !a.watch.unverified
	if available {
		facts["clock_accuracy"] = accuracy.String()
	}
	facts["journal_entries"] = a.journal.Size()
	if err != nil {
		return facts, err
	}
	return facts, a.unit.usable(t)
}

// nameText writes a Name for people, in its own order. pkix.Name.String shows organizationIdentifier,
// which every provider has, as hex.
func nameText(name pkix.Name) string {
	labels := map[string]string{
		"2.5.4.6": "C", "2.5.4.10": "O", "2.5.4.97": "organizationIdentifier", "2.5.4.11": "OU", "2.5.4.3": "CN", "2.5.4.5": "serialNumber",
		"2.5.4.4": "SN", "2.5.4.42": "GN", "2.5.4.7": "L", "2.5.4.8": "ST",
	}
	parts := make([]string, len(name.Names))
	for i, a := range name.Names {
		label, ok := labels[a.Type.String()]
		if !ok {
			label = a.Type.String()
		}
		parts[i] = fmt.Sprintf("%s=%v", label, a.Value)
	}
	return strings.Join(parts, ", ")
}

// metrics count what the authority does. All methods work on one made without a Registerer.
type metrics struct {
	responses *prometheus.CounterVec
	duration  prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, a *Authority) (*metrics, error) {
	m := &metrics{
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zegel_tsa_responses_total",
			Help: "Answers sent, by result: granted, or the PKIFailureInfo.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zegel_tsa_respond_seconds",
			Help:    "Time from the request to the answer with a token, the journal's commit included.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2, 14),
		}),
	}
	for _, result := range []PKIFailureInfo{BadAlg, BadRequest, BadDataFormat, TimeNotAvailable, UnacceptedPolicy, UnacceptedExtension, SystemFailure} {
		m.responses.WithLabelValues(result.String())
	}
	m.responses.WithLabelValues("granted")
	if r == nil {
		return m, nil
	}
	for _, c := range append([]prometheus.Collector{m.responses, m.duration}, a.gauges()...) {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// gauges show the clock and the key.
func (a *Authority) gauges() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("zegel_tsa_clock_unverified", "1 where the configuration says clock: unverified.", func() float64 {
			return flag(a.watch.unverified)
		}),
		gauge("zegel_tsa_clock_available", "1 while the clock may be put into tokens.", func() float64 {
			available, _ := a.watch.state()
			return flag(available)
		}),
		gauge("zegel_tsa_clock_accuracy_seconds", "Greatest error of the clock, by its own word, when it was last vouched for.", func() float64 {
			_, accuracy := a.watch.state()
			return accuracy.Seconds()
		}),
		gauge("zegel_tsa_unit_key_until_seconds", "Unix time after which the unit's key may not sign.", func() float64 {
			return float64(a.unit.keyNotAfter.Unix())
		}),
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *metrics) granted(began time.Time) {
	m.responses.WithLabelValues("granted").Inc()
	m.duration.Observe(time.Since(began).Seconds())
}

func (m *metrics) refused(info PKIFailureInfo) {
	m.responses.WithLabelValues(info.String()).Inc()
}
