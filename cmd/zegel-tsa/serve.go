package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/tsa"
)

// service is what the listeners serve.
type service struct {
	authority *tsa.Authority
	journal   *journal.Journal
	guard     *activation.Guard
	health    daemon.Health
}

// servers are the daemon's listeners. The public ones serve the Authority on every path: what a TSA's URL ends with is its operator's choice.
func (c *config) servers(e daemon.Env, s service) ([]daemon.Server, error) {
	adminTLS, err := c.Admin.TLSConfig()
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	list := []daemon.Server{
		{Name: "http", Address: c.HTTP.Listen, Handler: s.authority},
		{Name: "admin", Address: c.Admin.Listen, TLS: adminTLS, Handler: s.guard.Handler(c.admin(e, s))},
		{Name: "metrics", Address: c.Metrics.Listen, Handler: daemon.MetricsHandler(e.Registry, s.health)},
	}
	if c.HTTPS.Listen != "" {
		publicTLS, err := c.HTTPS.TLSConfig()
		if err != nil {
			return nil, fmt.Errorf("https: %w", err)
		}
		list = append(list, daemon.Server{Name: "https", Address: c.HTTPS.Listen, TLS: publicTLS, Handler: s.authority})
	}
	return list, nil
}

// admin is the officers' API: GET /v1/status for every officer, GET /v1/journal/verify for those who may judge the
// journal.
func (c *config) admin(e daemon.Env, s service) http.Handler {
	var verifying sync.Mutex
	mux := http.NewServeMux()
	mux.Handle("/", daemon.StatusHandler(daemon.Status{Env: e, Officers: c.Officers, Health: s.health}))
	mux.HandleFunc("GET /v1/journal/verify", func(w http.ResponseWriter, r *http.Request) {
		officer, err := desk.OfficerOf(r, c.Officers)
		if err == nil && !officer.Has(desk.SystemAuditor, desk.SecurityOfficer) {
			err = fmt.Errorf("verifying the journal takes the role %s or %s", desk.SystemAuditor, desk.SecurityOfficer)
		}
		if err != nil {
			daemon.Deny(w, r, e.Log, err)
			return
		}
		if !verifying.TryLock() { // it reads the whole journal
			daemon.WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "verify journal: somebody else has it verified at the moment: ask again later"})
			return
		}
		defer verifying.Unlock()
		answerReport(w, r, s.journal)
	})
	return mux
}

// answerReport verifies the journal, which takes as long as the journal is long.
func answerReport(w http.ResponseWriter, r *http.Request, j *journal.Journal) {
	err := http.NewResponseController(w).SetWriteDeadline(time.Time{}) // the listener's is for short answers
	if err == nil {
		var report journal.Report
		if report, err = j.Verify(r.Context()); err == nil {
			daemon.WriteJSON(w, http.StatusOK, report)
			return
		}
	}
	daemon.WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "verify journal: " + err.Error()})
}
