package ocsp

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the Responder's own; docs/ocsp.md lists them.
type metrics struct {
	requests    map[responseStatus]prometheus.Counter
	statuses    [unknown + 1]prometheus.Counter
	signatures  prometheus.Histogram
	cacheHits   prometheus.Counter
	neverIssued prometheus.Counter
}

func newMetrics(to prometheus.Registerer, r *Responder) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "zegel_ocsp_requests_total", Help: "Requests answered, by responseStatus.",
	}, []string{"status"})
	statuses := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "zegel_ocsp_statuses_total", Help: "SingleResponses given, by certStatus.",
	}, []string{"cert_status"})
	m := &metrics{
		requests: make(map[responseStatus]prometheus.Counter),
		signatures: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zegel_ocsp_signature_seconds", Help: "Time a signature took, with its verification; the count is the signatures made.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
		}),
		cacheHits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zegel_ocsp_cache_hits_total", Help: "Answers given again without a new signature.",
		}),
		neverIssued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zegel_ocsp_never_issued_total", Help: "Requests for serials that were never issued (EN 319 411-1 OVR-6.6.3-03).",
		}),
	}
	for _, s := range []responseStatus{successful, malformedRequest, internalError, tryLater, unauthorized} {
		m.requests[s] = requests.WithLabelValues(s.String())
	}
	for s := range m.statuses {
		m.statuses[s] = statuses.WithLabelValues(state(s).String())
	}
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zegel_ocsp_checkpoint_age_seconds", Help: "Age of the last verified checkpoint; +Inf where there is none or the clock refuses.",
	}, r.checkpointAge)
	end := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zegel_ocsp_certificate_not_after_seconds", Help: "End of the responder certificate, in seconds since 1970.",
	}, func() float64 { return float64(r.certificate.NotAfter.Unix()) })
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zegel_ocsp_signatures_waiting", Help: "Requests that wait for a signature now, those included for which one is being made.",
	}, func() float64 { return float64(len(r.signing.waiting)) })
	if to == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{requests, statuses, m.signatures, m.cacheHits, m.neverIssued, age, end, waiting} {
		if err := to.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(s responseStatus) { m.requests[s].Inc() }

func (m *metrics) status(s state) { m.statuses[s].Inc() }
