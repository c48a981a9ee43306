package ca

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// OfficerHandler serves the officers' API of issuer, which docs/ca.md describes, below /v1. The listener
// must verify client certificates; whose it is decides which calls are allowed. Every call that is
// denied is logged, with the officer's id but no name, and counted (EN 319 411-1 DIS-6.5.5-05).
// Errors are JSON: desk.Error. GET /v1/status, which all daemons have alike, is not among it.
// Officers who are nobody, have no role or share an id or a certificate are refused.
func OfficerHandler(issuer *Issuer, officers []desk.Officer) (http.Handler, error) {
	if key, err := desk.ValidateOfficers(officers, false); err != nil {
		return nil, fmt.Errorf("set up officers' API: %s: %w", key, err)
	}
	profiles, err := subscriberProfiles()
	if err != nil {
		return nil, fmt.Errorf("set up officers' API: %w", err)
	}
	d := &deskHandler{issuer: issuer, officers: slices.Clone(officers), profiles: profiles, log: issuer.config.Log, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection()}
	for _, e := range endpoints() {
		d.mux.Handle(e.pattern, e.bind(d))
	}
	return d, nil
}

// subscriberProfiles reads, once, the profiles that officers may issue by.
func subscriberProfiles() (map[string]*policy.Profile, error) {
	profiles := make(map[string]*policy.Profile)
	for _, name := range policy.Builtins() {
		p, err := policy.Builtin(name)
		if err != nil {
			return nil, err
		}
		if p.TakesSubject() {
			profiles[name] = p
		}
	}
	return profiles, nil
}

// endpoint is one call of the API. roles: who may make it; any of them is enough.
type endpoint struct {
	pattern string
	roles   []string
	serve   func(*deskHandler, *call) (reply any, err error)
}

// endpoints is the whole API. What auditors read is not for those who act.
func endpoints() []endpoint {
	judges := []string{desk.SystemAuditor, desk.SecurityOfficer}
	return []endpoint{
		{"POST /v1/certificates", []string{desk.RegistrationOfficer}, (*deskHandler).issue},
		{"POST /v1/certificates/{serial}/revoke", []string{desk.RevocationOfficer}, (*deskHandler).revoke},
		{"POST /v1/crl", []string{desk.RevocationOfficer, desk.SystemOperator}, (*deskHandler).crl},
		{"POST /v1/key-duties", []string{desk.SecurityOfficer}, (*deskHandler).keyDuty},
		{"GET /v1/certificates", desk.Roles(), (*deskHandler).list},
		{"GET /v1/certificates/{serial}", desk.Roles(), (*deskHandler).show},
		{"GET /v1/journal/verify", judges, (*deskHandler).verify},
		{"GET /v1/journal/entries", judges, (*deskHandler).entries},
		{"GET /v1/journal/checkpoint", desk.Roles(), (*deskHandler).checkpoint},
	}
}

// deskHandler is the API of one CA.
type deskHandler struct {
	issuer    *Issuer
	officers  []desk.Officer
	profiles  map[string]*policy.Profile // by name
	log       *slog.Logger
	mux       *http.ServeMux
	verifying sync.Mutex // held while the journal is verified: one at a time

	// origin keeps foreign pages from using an officer's browser, which would show the officer's certificate.
	origin *http.CrossOriginProtection
}

// call is one request of an officer who may make it.
type call struct {
	*http.Request
	actor journal.Actor // the officer
	w     http.ResponseWriter
}

// ServeHTTP lets only officers in, and answers in JSON whatever is asked.
func (d *deskHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	officer, denied := d.caller(r)
	if denied != nil {
		d.deny(w, r, denied)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), officerKey{}, officer))
	if err := d.origin.Check(r); err != nil {
		d.deny(w, r, &denial{http.StatusForbidden, "cross_origin", "the page of another origin may not make this call"})
		return
	}
	handler, pattern := d.mux.Handler(r)
	if pattern == "" {
		writeError(w, d.noEndpoint(handler, r))
		return
	}
	d.mux.ServeHTTP(w, r)
}

// officerKey is where the request's context has its desk.Officer.
type officerKey struct{}

// denial is a call that is not allowed: the HTTP status, the metric's label, and what the caller reads.
type denial struct {
	status    int
	why, text string
}

// caller finds the officer whose client certificate the connection was made with.
func (d *deskHandler) caller(r *http.Request) (desk.Officer, *denial) {
	officer, err := desk.OfficerOf(r, d.officers)
	if err == nil {
		return officer, nil
	}
	digest, err := desk.ClientDigest(r)
	if err != nil {
		return desk.Officer{}, &denial{http.StatusUnauthorized, "no_certificate", "a client certificate is needed"}
	}
	return desk.Officer{}, &denial{http.StatusForbidden, "unknown_certificate",
		fmt.Sprintf("the client certificate with SHA-256 %s is no officer's: enter it in the CA's config", digest)}
}

// maxDiscard is how much of a body that is too long is read and thrown away, in octets.
const maxDiscard = 16 << 20

// bind makes the endpoint a handler: role, body limit, answer.
func (e endpoint) bind(d *deskHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		officer, _ := r.Context().Value(officerKey{}).(desk.Officer)
		if !officer.Has(e.roles...) {
			d.deny(w, r, &denial{http.StatusForbidden, "role", fmt.Sprintf("%s wants one of the roles %s", e.pattern, strings.Join(e.roles, ", "))})
			return
		}
		whole := r.Body
		r.Body = http.MaxBytesReader(w, whole, desk.MaxBody)
		var reply any
		actor, err := officer.Actor()
		if err == nil {
			reply, err = e.serve(d, &call{Request: r, actor: actor, w: w})
		}
		// What was asked, and why it was refused, may name a person: the log has neither.
		facts := []any{"call", e.pattern, "officer", hex.EncodeToString(actor[:]), "seconds", time.Since(began).Seconds()}
		if err != nil {
			answer := deskError(err)
			if answer.Status == http.StatusRequestEntityTooLarge {
				// A client that writes everything before it reads would otherwise see a reset, not the answer.
				_, _ = io.CopyN(io.Discard, whole, maxDiscard)
			}
			writeError(w, answer)
			facts = append(append(facts, "status", answer.Status), refusalFacts(err, answer)...)
		} else {
			writeReply(w, reply)
			facts = append(facts, "status", http.StatusOK)
		}
		d.log.Info("officer's call", facts...)
	})
}

// deny answers, logs and counts a call that is not allowed.
func (d *deskHandler) deny(w http.ResponseWriter, r *http.Request, why *denial) {
	d.issuer.metrics.denied.WithLabelValues(why.why).Inc()
	officer, _ := r.Context().Value(officerKey{}).(desk.Officer)
	d.log.Warn("call denied", "why", why.why, "method", r.Method, "path", r.URL.Path, "officer", strings.ToLower(officer.ID),
		"remote", r.RemoteAddr, "error", why.text)
	writeError(w, &desk.Error{Status: why.status, Message: why.text})
}
