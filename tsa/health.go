package tsa

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zegel-tsp/zegel/internal/der"
)

// describe sets the facts that do not change.
func (a *Authority) describe(c Config) {
	word := "system"
	if c.ClockUnverified {
		word = "unverified"
	}
	a.facts = map[string]any{
		"clock":             word,
		"unit":              nameText(c.Unit.Certificate),
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
// clock is "system", or "unverified" where the configuration says that nobody vouches for it; warnings say what will have to be done
// so that it stays so. It tells what Run, or a request, found last: it reads no clock and writes nothing.
func (a *Authority) Health() (map[string]any, error) {
	facts := maps.Clone(a.facts)
	found := a.watch.state()
	facts["clock_vouched"] = found.lost == nil && !a.watch.unverified
	if found.lost == nil {
		facts["clock_accuracy"] = found.accuracy.String()
	}
	facts["journal_entries"] = a.journal.Size()
	facts["warnings"] = a.warnings()
	if err := a.journal.Failed(); err != nil {
		return facts, err
	}
	if found.err != nil {
		return facts, found.err
	}
	return facts, a.unit.usable(found.wall)
}

// warnBefore is how long before an end it is told of: a new unit takes a ceremony, with people who have to be there.
const warnBefore = 30 * 24 * time.Hour

// warnings name every end that is near: of the key's use, of its certificate, of those above (TIS-7.6.7-07). None: an empty list.
func (a *Authority) warnings() []string {
	now := a.watch.state().wall
	if now.IsZero() {
		now = time.Now() // to look at, not to sign
	}
	list := []string{}
	for _, end := range a.unit.ends {
		if now.Add(warnBefore).After(end.at) {
			list = append(list, fmt.Sprintf("%s %s: make a new unit", end.of, stamp(end.at)))
		}
	}
	return list
}

// nameText writes a certificate's subject for people.
func nameText(c *x509.Certificate) string {
	text, err := der.NameText(c.RawSubject)
	if err != nil {
		return c.Subject.String() // x509 has parsed it, so this does not happen
	}
	return text
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
			Help: "Answers sent, by result: granted, or the PKIFailureInfo; busy is a systemFailure, slow a timeNotAvailable.",
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
	for _, result := range []string{"granted", "busy", "slow"} {
		m.responses.WithLabelValues(result)
	}
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
			return flag(a.watch.state().lost == nil)
		}),
		gauge("zegel_tsa_clock_accuracy_seconds", "Greatest error of the clock, by its own word, at the last reading.", func() float64 {
			return a.watch.state().accuracy.Seconds()
		}),
		gauge("zegel_tsa_unit_key_until_seconds", "Unix time after which the unit's key may not sign.", func() float64 {
			return float64(a.unit.keyNotAfter.Unix())
		}),
		gauge("zegel_tsa_unit_certificate_until_seconds", "Unix time at which the unit's certificate ends.", func() float64 {
			return float64(a.unit.notAfter.Unix())
		}),
		gauge("zegel_tsa_warnings", "How many of the ends that /health warns of are less than 30 days away, or past.", func() float64 {
			return float64(len(a.warnings()))
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

func (m *metrics) refused(info PKIFailureInfo, err error) {
	result := info.String()
	switch {
	case errors.Is(err, errBusy):
		result = "busy"
	case errors.Is(err, errSlow):
		result = "slow"
	}
	m.responses.WithLabelValues(result).Inc()
}
