package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zegel-tsp/zegel/internal/desk"
)

// MetricsHandler serves /metrics from the registry and /health: 200 {"ready":true,...} or 503 {"ready":false,"reason":"..."}.
// health returns facts to show (clock state among them) and why the daemon is not ready.
func MetricsHandler(r *prometheus.Registry, health Health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{Registry: r}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		facts, err := readiness(health)
		status := http.StatusOK
		if err != nil {
			status = http.StatusServiceUnavailable
		}
		WriteJSON(w, status, facts)
	})
	return mux
}

// Health is how a daemon, or a part of it, is: facts to show, and why it is not ready.
type Health func() (facts map[string]any, err error)

// Together is the health of a daemon of several parts: all their facts, all their warnings, and the first reason not to be ready.
func Together(parts ...Health) Health {
	return func() (map[string]any, error) {
		all, warnings := make(map[string]any), []string{}
		var first error
		for _, part := range parts {
			facts, err := part()
			maps.Copy(all, facts)
			more, _ := facts["warnings"].([]string)
			warnings = append(warnings, more...)
			first = cmp.Or(first, err)
		}
		all["warnings"] = warnings
		return all, first
	}
}

// Warnings is the health of a part that is always ready: what list says will have to be done. It registers a gauge of that name, which counts it.
func Warnings(r prometheus.Registerer, gauge string, list func(at time.Time) []string) Health {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: gauge, Help: "How many warnings of /health are about the ends of algorithms and of the certification of devices.",
	}, func() float64 { return float64(len(list(time.Now()))) }))
	return func() (map[string]any, error) { return map[string]any{"warnings": list(time.Now())}, nil }
}

// Status is what StatusHandler needs.
type Status struct {
	Env      Env
	Officers []desk.Officer
	Health   Health
}

// StatusHandler serves GET /v1/status to every officer, whatever the role: the facts of Health with daemon, version,
// config_sha256, ready and, if not ready, reason. The answer is 200 in either case. A caller who is no officer
// gets 401 or 403 and a line in the log (EN 319 411-1 OVR-6.5.5-07).
func StatusHandler(s Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		if _, err := desk.OfficerOf(r, s.Officers); err != nil {
			Deny(w, r, s.Env.Log, err)
			return
		}
		facts, _ := readiness(s.Health)
		facts["daemon"] = s.Env.Daemon
		facts["version"] = s.Env.Version
		facts["config_sha256"] = fmt.Sprintf("%x", s.Env.ConfigDigest)
		WriteJSON(w, http.StatusOK, facts)
	})
	return mux
}

// warnEvery is how often what will have to be done is logged again: whoever reads a log by the day sees it.
const warnEvery = 24 * time.Hour

// Warn logs the warnings among the facts of health, a []string, at once and then once a day until ctx ends; it returns nil.
func Warn(ctx context.Context, log *slog.Logger, health Health) error {
	tick := time.NewTicker(warnEvery)
	defer tick.Stop()
	for {
		facts, _ := health() // why it is not ready is for /health
		warnings, _ := facts["warnings"].([]string)
		for _, w := range warnings {
			log.Warn("something will have to be done", "warning", w)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// readiness calls health and puts its verdict among a copy of its facts.
func readiness(health Health) (map[string]any, error) {
	facts := make(map[string]any)
	told, err := health()
	maps.Copy(facts, told)
	facts["ready"] = err == nil
	if err != nil {
		facts["reason"] = err.Error()
	}
	return facts, err
}

// Deny answers a request that desk.OfficerOf or a role check refused: 401 where no client certificate came, else 403. It logs the denial.
func Deny(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	status := http.StatusForbidden
	if errors.Is(err, desk.ErrNoCertificate) {
		status = http.StatusUnauthorized
	}
	log.Warn("denied", "method", r.Method, "path", r.URL.Path, "peer", r.RemoteAddr, "reason", err.Error())
	WriteJSON(w, status, map[string]string{"error": err.Error()})
}

// WriteJSON answers with v as JSON. An error of the connection is the client's loss; nothing is left to tell it.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}
