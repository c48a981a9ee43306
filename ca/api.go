package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/zegel-tsp/zegel/internal/der"
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

// noEndpoint tells a wrong path from a wrong method: the mux would answer either in plain text.
func (d *deskHandler) noEndpoint(handler http.Handler, r *http.Request) *desk.Error {
	probe := &statusProbe{header: http.Header{}}
	handler.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		return &desk.Error{Status: probe.status, Message: fmt.Sprintf("%s is not for %s: use %s", r.URL.Path, r.Method, probe.header.Get("Allow"))}
	}
	return &desk.Error{Status: http.StatusNotFound, Message: "no such call: " + r.URL.Path}
}

// statusProbe keeps the status and headers of an answer and drops the rest.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }
func (p *statusProbe) WriteHeader(status int)      { p.status = status }

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

// refusalFacts are what a log may say of an error: the clauses that refused, and the CA's own faults.
func refusalFacts(err error, answer *desk.Error) (facts []any) {
	if len(answer.Violations) > 0 {
		var clauses []string
		for _, v := range answer.Violations {
			clauses = append(clauses, v.Clause)
		}
		facts = append(facts, "clauses", strings.Join(clauses, ", "))
	}
	_, own := errors.AsType[ownFault](err)
	for _, is := range []error{ErrClock, ErrStopped, journal.ErrFailed, journal.ErrClosed} {
		own = own || errors.Is(err, is)
	}
	if own {
		facts = append(facts, "cause", err.Error())
	}
	return facts
}

// deny answers, logs and counts a call that is not allowed.
func (d *deskHandler) deny(w http.ResponseWriter, r *http.Request, why *denial) {
	d.issuer.metrics.denied.WithLabelValues(why.why).Inc()
	officer, _ := r.Context().Value(officerKey{}).(desk.Officer)
	d.log.Warn("call denied", "why", why.why, "method", r.Method, "path", r.URL.Path, "officer", strings.ToLower(officer.ID),
		"remote", r.RemoteAddr, "error", why.text)
	writeError(w, &desk.Error{Status: why.status, Message: why.text})
}

// unreadable marks an error of whoever wrote the request: nothing was judged.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// deskError is the one place where an error becomes an HTTP status: 400 it cannot be read, 404 not
// there, 409 the state forbids it, 422 policy forbids it, 503 the CA refuses for its own reasons.
func deskError(err error) *desk.Error {
	answer := &desk.Error{Status: http.StatusServiceUnavailable, Message: err.Error()}
	violations, refused := errors.AsType[policy.Violations](err)
	_, bad := errors.AsType[unreadable](err)
	_, long := errors.AsType[*http.MaxBytesError](err)
	known, isKnown := errors.AsType[*desk.Error](err)
	switch {
	case isKnown:
		return known
	case refused:
		answer.Status = http.StatusUnprocessableEntity
		for _, v := range violations {
			answer.Violations = append(answer.Violations, desk.Violation{Clause: v.Clause, Detail: v.Detail})
		}
	case long:
		answer.Status = http.StatusRequestEntityTooLarge
		answer.Message = fmt.Sprintf("request body: more than %d octets", desk.MaxBody)
	case bad:
		answer.Status = http.StatusBadRequest
	case errors.Is(err, ErrNotPublished):
	case errors.Is(err, journal.ErrNotFound):
		answer.Status = http.StatusNotFound
	case errors.Is(err, journal.ErrConflict):
		answer.Status = http.StatusConflict
	}
	return answer
}

func writeError(w http.ResponseWriter, e *desk.Error) {
	write(w, e.Status, e)
}

// writeReply writes a []byte as text and anything else as JSON.
func writeReply(w http.ResponseWriter, reply any) {
	if text, ok := reply.([]byte); ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(text) // the caller has gone: nobody to tell
		return
	}
	write(w, http.StatusOK, reply)
}

func write(w http.ResponseWriter, status int, document any) {
	text, err := json.Marshal(document)
	if err != nil {
		status = http.StatusInternalServerError
		text = []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the caller has gone: nobody to tell
}

// decode reads the body: one JSON document in UTF-8, without unknown, doubled or misspelt keys and with nothing
// behind it. encoding/json alone would take the last of two keys, and a key in any letter case.
func (c *call) decode(into any) error {
	kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return &desk.Error{Status: http.StatusUnsupportedMediaType, Message: "request body: want Content-Type application/json"}
	}
	text, err := io.ReadAll(c.Body)
	if err != nil {
		return unreadable{fmt.Errorf("read request body: %w", err)}
	}
	if err := strictJSON(text); err != nil {
		return unreadable{fmt.Errorf("read request body: %w", err)}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return unreadable{fmt.Errorf("read request body: %w", err)}
	}
	return nil
}

// strictJSON refuses what encoding/json would take: see decode. The types of package desk have no nested objects.
func strictJSON(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return errors.New("want one JSON object")
	}
	seen := make(map[string]bool)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // within an object and before a value, More says that it is a key
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' }) {
			return fmt.Errorf("unknown key %q: keys are of lower-case letters, digits and _", key)
		}
		if seen[key] {
			return fmt.Errorf("the key %q is there twice", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON document")
	}
	return nil
}

// issue serves POST /v1/certificates.
func (d *deskHandler) issue(c *call) (any, error) {
	var request desk.IssueRequest
	if err := c.decode(&request); err != nil {
		return nil, err
	}
	order, err := d.readOrder(request)
	if err != nil {
		return nil, err
	}
	order.Actor = c.actor
	if request.Plan {
		planned, err := d.issuer.Plan(c.Context(), order)
		if err != nil {
			return nil, err
		}
		reply, err := issueReply(planned.Draft, request.Profile)
		reply.ID, reply.Status, reply.TBS = planned.ID(), desk.StatusPlanned, planned.TBS
		return reply, err
	}
	issued, err := d.issuer.Issue(c.Context(), order)
	if err != nil {
		return nil, err
	}
	reply, err := issueReply(issued.Certificate, request.Profile)
	reply.ID, reply.Status, reply.Cert = issued.ID(), desk.StatusIssued, certificatePEM(issued.Certificate)
	return reply, err
}

// readOrder reads the three texts of a request. What they say is judged later, by the profile.
func (d *deskHandler) readOrder(r desk.IssueRequest) (Order, error) {
	profile, known := d.profiles[r.Profile]
	if !known {
		if _, err := policy.Builtin(r.Profile); err != nil {
			return Order{}, unreadable{err}
		}
		return Order{}, unreadable{fmt.Errorf("profile %s is issued by zegel-ceremony only", r.Profile)}
	}
	name := r.SubjectName
	if name == "" {
		name = "subject"
	}
	subject, err := policy.ParseSubject(name, []byte(r.Subject))
	if err != nil {
		return Order{}, unreadable{err}
	}
	publicKey, err := policy.ParseCSR([]byte(r.CSR))
	if err != nil {
		return Order{}, unreadable{err}
	}
	evidence, err := orderEvidence(r, subject)
	if err != nil {
		return Order{}, err
	}
	return Order{Profile: profile, Subject: subject, PublicKey: publicKey, Evidence: evidence}, nil
}

// orderEvidence links the certificate to its registration (EN 319 411-1 GEN-6.3.2-00A): what was
// proofed, and the digests of the two files as they came.
func orderEvidence(r desk.IssueRequest, subject *policy.Subject) ([]byte, error) {
	csr, file := sha256.Sum256([]byte(r.CSR)), sha256.Sum256([]byte(r.Subject))
	registration, err := subject.Evidence()
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	text, err := json.Marshal(struct {
		CSR     string          `json:"csr_sha256"`
		File    string          `json:"subject_file_sha256"`
		Subject json.RawMessage `json:"subject"`
	}{hex.EncodeToString(csr[:]), hex.EncodeToString(file[:]), registration})
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	return text, nil
}

// issueReply tells what stands in a certificate or draft.
func issueReply(certificate []byte, profile string) (desk.IssueReply, error) {
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return desk.IssueReply{}, fmt.Errorf("read certificate: %w", err)
	}
	subject, err := der.NameText(parsed.RawSubject)
	if err != nil {
		return desk.IssueReply{}, err
	}
	return desk.IssueReply{
		Serial: journal.Serial(parsed.SerialNumber.Bytes()).String(), Profile: profile, Subject: subject,
		NotBefore: parsed.NotBefore, NotAfter: parsed.NotAfter,
	}, nil
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// revoke serves POST /v1/certificates/{serial}/revoke.
func (d *deskHandler) revoke(c *call) (any, error) {
	serial, err := journal.ParseSerial(c.PathValue("serial"))
	if err != nil {
		return nil, unreadable{err}
	}
	var request desk.RevokeRequest
	if err := c.decode(&request); err != nil {
		return nil, err
	}
	reason, err := journal.ParseReason(request.Reason)
	if err != nil {
		return nil, unreadable{err}
	}
	revocation := Revocation{Actor: c.actor, Serial: serial, Reason: reason}
	if request.InvalidFrom != nil {
		revocation.InvalidFrom = *request.InvalidFrom
	}
	if request.RequestedAt != nil {
		revocation.RequestedAt = *request.RequestedAt
	}
	if request.Note != "" {
		revocation.Note = []byte(request.Note)
	}
	certificate, err := d.issuer.Revoke(c.Context(), revocation)
	if err != nil {
		return nil, err
	}
	return d.describe(certificate, true), nil
}

// crl serves POST /v1/crl. A body is neither needed nor read.
func (d *deskHandler) crl(c *call) (any, error) {
	crl, err := d.issuer.IssueCRL(c.Context())
	if err != nil {
		return nil, err
	}
	return desk.CRLReply{
		Number: crl.Number, ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate,
		Entries: crl.Entries, File: crl.File,
	}, nil
}

// show serves GET /v1/certificates/{serial}.
func (d *deskHandler) show(c *call) (any, error) {
	serial, err := journal.ParseSerial(c.PathValue("serial"))
	if err != nil {
		return nil, unreadable{err}
	}
	certificate, err := d.issuer.config.Journal.CertificateBySerial(serial)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", serial, err)
	}
	return d.describe(certificate, true), nil
}

// checkpoint serves GET /v1/journal/checkpoint: the text of a signed note.
func (d *deskHandler) checkpoint(*call) (any, error) {
	return d.issuer.config.Journal.Checkpoint()
}

// verify serves GET /v1/journal/verify. It reads the whole journal, so one runs at a time.
func (d *deskHandler) verify(c *call) (any, error) {
	if !d.verifying.TryLock() {
		return nil, errors.New("verify journal: somebody else has it verified at the moment: ask again later")
	}
	defer d.verifying.Unlock()
	// It takes as long as the journal is long; the listener's write timeout is for short answers.
	if err := http.NewResponseController(c.w).SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("verify journal: %w", err)
	}
	report, err := d.issuer.config.Journal.Verify(c.Context())
	if err != nil {
		return nil, fmt.Errorf("verify journal: %w", err)
	}
	reply := desk.Report{
		OK: report.OK, Entries: report.Entries, Certificates: report.Certificates, Root: report.Root,
		Faults: make([]desk.Fault, 0, len(report.Faults)), SignedEntries: report.SignedEntries, SealedBodies: report.SealedBodies,
		Origin: report.Origin, JournalKey: report.JournalKey,
	}
	for _, f := range report.Faults {
		reply.Faults = append(reply.Faults, desk.Fault{Entry: f.Entry, Fault: f.Fault})
	}
	return reply, nil
}

// describe tells what the journal knows of a certificate; withPEM adds the certificate itself. Where the sealed
// body cannot be opened, because it was erased or is damaged, subject and certificate are left out: the
// state is known all the same, and one body must not hide a thousand others.
func (d *deskHandler) describe(c journal.Certificate, withPEM bool) desk.Certificate {
	reply := desk.Certificate{
		Serial: c.Serial.String(), Status: c.Status.String(), Profile: c.Profile,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
	}
	if c.Status == journal.Revoked || c.Status == journal.Abandoned {
		since := c.Since.UTC()
		reply.RevokedAt, reply.Reason = &since, c.Reason.String()
	}
	if !c.InvalidFrom.IsZero() {
		from := c.InvalidFrom.UTC()
		reply.InvalidFrom = &from
	}
	if c.Status != journal.Issued && c.Status != journal.Revoked {
		return reply // there is no certificate
	}
	reply.SHA256 = hex.EncodeToString(c.Hash[:])
	certificate, subject, err := d.openCertificate(c)
	if err != nil {
		d.log.Warn("a certificate of the journal cannot be shown", "serial", reply.Serial, "error", err)
		return reply
	}
	reply.Subject = subject
	if withPEM {
		reply.Cert = certificatePEM(certificate)
	}
	return reply
}

// openCertificate opens the sealed body of CertificateIssued: DER and subject.
func (d *deskHandler) openCertificate(c journal.Certificate) (certificate []byte, subject string, err error) {
	event, err := d.issuer.config.Journal.Opened(c.IssuedAt)
	if err != nil {
		return nil, "", err
	}
	issued, ok := event.(journal.CertificateIssued)
	if !ok || sha256.Sum256(issued.Certificate) != c.Hash {
		return nil, "", fmt.Errorf("entry %d does not hold it: verify the journal", c.IssuedAt)
	}
	parsed, err := x509.ParseCertificate(issued.Certificate)
	if err != nil {
		return nil, "", fmt.Errorf("entry %d: %w", c.IssuedAt, err)
	}
	subject, err = der.NameText(parsed.RawSubject)
	return issued.Certificate, subject, err
}
