package hsm

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// failureClasses are the label values of failures, in the order of counts.failures: the classes of faults, and what no code of a token says.
var failureClasses = []string{"request", "pin", "general", "session", "login", "key", "token", "device", "module", "wrong_answer", "busy", "other"}

// repairKinds are those of repairs, in the order of counts.repairs.
var repairKinds = []string{"session", "login", "module"}

// counts are what is counted of one token.
type counts struct {
	failures [12]atomic.Int64 // calls into it, before any repair, by class
	repairs  [3]atomic.Int64  // that ended well, by kind
	seconds  prometheus.Observer
}

func newSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "zegel_token_signature_seconds", Help: "Time of a signature: the wait for a session, the token's work, repairs and the verification.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"token", "serial"})
}

// failed counts what a call ended with.
func (c *counts) failed(err error) {
	if err != nil {
		c.failures[slices.Index(failureClasses, failureClass(err))].Add(1)
	}
}

func failureClass(err error) string {
	switch {
	case errors.Is(err, ErrDistrusted):
		return "wrong_answer"
	case errors.Is(err, ErrBusy):
		return "busy"
	}
	switch faultOf(err) {
	case faultRequest:
		return "request"
	case faultPIN:
		return "pin"
	case faultGeneral:
		return "general"
	case faultSession:
		return "session"
	case faultLogin:
		return "login"
	case faultKey:
		return "key"
	case faultToken:
		return "token"
	case faultDevice:
		return "device"
	case faultModule:
		return "module"
	}
	return "other"
}

func (c *counts) repaired(kind repair) {
	switch kind {
	case repairSession:
		c.repairs[0].Add(1)
	case repairLogin:
		c.repairs[1].Add(1)
	case repairModule:
		c.repairs[2].Add(1)
	}
}

// collector tells Prometheus of the tokens, without asking them anything.
type collector struct {
	watch                                          *watch
	inService, distrusted, refused                 *prometheus.Desc
	open, busy, waiting                            *prometheus.Desc
	failures, repairs, failovers, members, signing *prometheus.Desc
}

func newCollector(w *watch) *collector {
	token := []string{"token", "serial"}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &collector{
		watch:      w,
		inService:  desc("zegel_token_in_service", "1 while the token's keys can be used, as far as is known without asking it.", token...),
		distrusted: desc("zegel_token_distrusted", "1 after the token has given a wrong answer: nothing is asked of it any more.", token...),
		refused:    desc("zegel_token_pin_refused", "1 after the token has turned the PIN down: it is not tried again.", token...),
		open:       desc("zegel_token_sessions_open", "Sessions that are open for signatures.", token...),
		busy:       desc("zegel_token_sessions_busy", "Sessions that a call is running on.", token...),
		waiting:    desc("zegel_token_calls_waiting", "Calls that wait for a session.", token...),
		failures:   desc("zegel_token_failures_total", "Calls that failed, before any repair, by the class of the fault.", append(token, "class")...),
		repairs:    desc("zegel_token_repairs_total", "Repairs made, by what was made anew.", append(token, "repair")...),
		failovers:  desc("zegel_key_group_failovers_total", "Signatures that a second token of a key group was asked for, because the first failed or was silent."),
		members:    desc("zegel_key_group_members", "Members of all key groups."),
		signing:    desc("zegel_key_group_members_signing", "Those of them that signatures are asked of."),
	}
}

// Describe is that of prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.inService, c.distrusted, c.refused, c.open, c.busy, c.waiting, c.failures, c.repairs, c.failovers, c.members, c.signing} {
		to <- d
	}
	c.watch.seconds.Describe(to)
}

// Collect is that of prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	seen := make(map[TokenHealth]bool)
	for _, t := range c.watch.all() {
		h, _ := t.health()
		if name := (TokenHealth{Token: h.Token, Serial: h.Serial}); !seen[name] { // one may be reached by two modules
			seen[name] = true
			c.token(t, h, to)
		}
	}
	c.watch.seconds.Collect(to)
	_, groups := c.watch.keys()
	all, signing := 0, 0
	for _, g := range groups {
		for _, m := range g.members {
			all++
			if m.breaker.now.Load() == nil {
				signing++
			}
		}
	}
	to <- prometheus.MustNewConstMetric(c.failovers, prometheus.CounterValue, float64(c.watch.failovers.Load()))
	to <- prometheus.MustNewConstMetric(c.members, prometheus.GaugeValue, float64(all))
	to <- prometheus.MustNewConstMetric(c.signing, prometheus.GaugeValue, float64(signing))
}

func (c *collector) token(t *token, h TokenHealth, to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, h.Token, h.Serial)
	}
	is := func(state string) float64 {
		if h.State == state {
			return 1
		}
		return 0
	}
	gauge(c.inService, is(StateInService))
	gauge(c.distrusted, is(StateDistrusted))
	gauge(c.refused, is(StatePINRefused))
	gauge(c.open, float64(h.Open))
	gauge(c.busy, float64(h.Busy))
	gauge(c.waiting, float64(h.Waiting))
	for i, class := range failureClasses {
		to <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, float64(t.counts.failures[i].Load()), h.Token, h.Serial, class)
	}
	for i, kind := range repairKinds {
		to <- prometheus.MustNewConstMetric(c.repairs, prometheus.CounterValue, float64(t.counts.repairs[i].Load()), h.Token, h.Serial, kind)
	}
}

// signed counts a signature that was begun then.
func (c *counts) signed(begun time.Time) { c.seconds.Observe(time.Since(begun).Seconds()) }
