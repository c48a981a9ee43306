package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// officerDesk is an admin listener with one officer for each role, and one certificate of nobody.
type officerDesk struct {
	*provider
	server  *httptest.Server
	clients map[string]*desk.Client
	actors  map[string]journal.Actor
	nobody  *desk.Client
	log     *lockedBuffer
}

// lockedBuffer is a log that handlers write while the test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newOfficerDesk(t *testing.T) *officerDesk {
	t.Helper()
	p, _ := newProvider(t)
	d := &officerDesk{provider: p, clients: map[string]*desk.Client{}, actors: map[string]journal.Actor{}, log: &lockedBuffer{}}
	p.issuer.config.Log = slog.New(slog.NewTextHandler(d.log, nil))

	pool := x509.NewCertPool()
	var officers []desk.Officer
	certificates := map[string]tls.Certificate{}
	for n, role := range append(desk.Roles(), "nobody") {
		certificates[role] = clientCertificate(t, role)
		pool.AddCert(certificates[role].Leaf)
		if role != "nobody" {
			d.actors[role] = journal.Actor{0xaa, byte(n)}
			officers = append(officers, testOfficer(d.actors[role], certificates[role].Leaf.Raw, role))
		}
	}
	handler, err := OfficerHandler(p.issuer, officers)
	if err != nil {
		t.Fatal(err)
	}
	d.server = httptest.NewUnstartedServer(handler)
	d.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	d.server.StartTLS()
	t.Cleanup(d.server.Close)
	for role, certificate := range certificates {
		config := d.server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		config.Certificates = []tls.Certificate{certificate}
		client, err := desk.NewClient(d.server.URL, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		d.clients[role] = client
	}
	d.nobody = d.clients["nobody"]
	return d
}

// testOfficer is the officer with that client certificate (DER).
func testOfficer(actor journal.Actor, certificate []byte, roles ...string) desk.Officer {
	return desk.Officer{ID: fmt.Sprintf("%x", actor), Certificate: fmt.Sprintf("%x", sha256.Sum256(certificate)), Roles: roles}
}

func clientCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := newTestKey(t).Signer
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
}

// refusal is the daemon's answer to a call that failed.
func refusal(t *testing.T, err error) *desk.Error {
	t.Helper()
	var e *desk.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an answer of the daemon", err)
	}
	return e
}

// The whole life over HTTP, each call by an officer with just the role for it.
func TestDesk(t *testing.T) {
	d := newOfficerDesk(t)
	ctx := t.Context()
	ask := issueRequest(t)
	ask.Plan = true
	planned, err := d.clients[desk.RegistrationOfficer].Issue(ctx, ask)
	if err != nil || planned.Status != desk.StatusPlanned || planned.Cert != "" || len(planned.TBS) == 0 || len(planned.ID) != 32 {
		t.Fatalf("planned %+v, %v", planned, err)
	}
	ask.Plan = false
	issued, err := d.clients[desk.RegistrationOfficer].Issue(ctx, ask)
	if err != nil || issued.Status != desk.StatusIssued || issued.Serial == planned.Serial || !strings.Contains(issued.Subject, "Testermann") {
		t.Fatalf("issued %+v, %v", issued, err)
	}
	block, _ := pem.Decode([]byte(issued.Cert))
	if cert := d.parse(block.Bytes); cert.CheckSignatureFrom(d.cert) != nil {
		t.Error("the certificate is not this CA's")
	}
	serial, err := journal.ParseSerial(issued.Serial)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := d.journal.Opened(d.state(serial).IntendedAt)
	if err != nil {
		t.Fatal(err)
	}
	intent := entry.(journal.CertificateIntended)
	evidence := string(intent.Evidence)
	if intent.Actor != d.actors[desk.RegistrationOfficer] || !strings.Contains(evidence, fmt.Sprintf("%x", sha256.Sum256([]byte(ask.CSR)))) || !strings.Contains(evidence, "physical-presence") {
		t.Errorf("actor %x, evidence %s", intent.Actor, evidence)
	}

	shown, err := d.clients[desk.SystemAuditor].Certificate(ctx, strings.ToUpper(issued.Serial))
	if err != nil || shown.Status != "good" || shown.Cert != issued.Cert || shown.RevokedAt != nil {
		t.Errorf("shown %+v, %v", shown, err)
	}
	revoked, err := d.clients[desk.RevocationOfficer].Revoke(ctx, issued.Serial, desk.RevokeRequest{Reason: "keyCompromise", InvalidFrom: &start, Note: "lost"})
	if err != nil || revoked.Status != "revoked" || revoked.Reason != "keyCompromise" || revoked.RevokedAt == nil || !revoked.InvalidFrom.Equal(start) {
		t.Errorf("revoked %+v, %v", revoked, err)
	}
	crl, err := d.clients[desk.SystemOperator].IssueCRL(ctx)
	if err != nil || crl.Entries != 1 || crl.File != d.crlFile() || crl.Number != d.published().Number.Uint64() {
		t.Errorf("CRL %+v, %v", crl, err)
	}
	report, err := d.clients[desk.SystemAuditor].VerifyJournal(ctx)
	if err != nil || !report.OK || report.Entries != d.journal.Size() || report.Certificates < 3 {
		t.Errorf("report %+v, %v", report, err)
	}
	note, err := d.clients[desk.SystemAdministrator].Checkpoint(ctx)
	if err != nil || !strings.HasPrefix(string(note), "zegel.example/ca\n") {
		t.Errorf("checkpoint %q, %v", note, err)
	}
	d.checkEntries(ctx, t)
	log := d.log.String()
	if strings.Contains(log, "Testermann") || !strings.Contains(log, "aa000000") {
		t.Errorf("the log names a subject, or not the officer:\n%s", log)
	}
}

func (d *officerDesk) checkEntries(ctx context.Context, t *testing.T) {
	t.Helper()
	kinds := map[string]int{}
	for after := uint64(0); ; {
		page, err := d.clients[desk.SecurityOfficer].Entries(ctx, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			kinds[e.Kind]++
			if len(e.Leaf) == 0 || len(e.Facts) == 0 {
				t.Errorf("entry %d has no leaf or facts", e.Index)
			}
		}
		if after = page.Next; after == page.Size {
			break
		}
	}
	for _, kind := range []string{"CertificateIntended", "CertificateIssued", "CertificateRevoked", "CRLReserved", "CRLIssued"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s among %v", kind, kinds)
		}
	}
}

// Each call, each role: allowed exactly where the table in docs/ca.md says so; every denial is logged and counted.
func TestRoles(t *testing.T) {
	d := newOfficerDesk(t)
	serial := d.issue().Serial.String()
	calls := map[string]struct {
		call func(context.Context, *desk.Client) error
		may  []string
	}{
		"issue": {func(ctx context.Context, c *desk.Client) error { _, err := c.Issue(ctx, issueRequest(t)); return err }, []string{desk.RegistrationOfficer}},
		"revoke": {func(ctx context.Context, c *desk.Client) error {
			_, err := c.Revoke(ctx, serial, desk.RevokeRequest{Reason: "superseded"})
			return err
		}, []string{desk.RevocationOfficer}},
		"crl": {func(ctx context.Context, c *desk.Client) error { _, err := c.IssueCRL(ctx); return err }, []string{desk.RevocationOfficer, desk.SystemOperator}},
		"record a key duty": {func(ctx context.Context, c *desk.Client) error {
			_, err := c.RecordKeyDuty(ctx, desk.KeyDuty{Act: "cloned", Details: map[string]string{"label": "ca-2026"}})
			return err
		}, []string{desk.SecurityOfficer}},
		"show": {func(ctx context.Context, c *desk.Client) error { _, err := c.Certificate(ctx, serial); return err }, desk.Roles()},
		"list": {func(ctx context.Context, c *desk.Client) error {
			_, err := c.Certificates(ctx, desk.Search{})
			return err
		}, desk.Roles()},
		"verify":     {func(ctx context.Context, c *desk.Client) error { _, err := c.VerifyJournal(ctx); return err }, []string{desk.SystemAuditor, desk.SecurityOfficer}},
		"entries":    {func(ctx context.Context, c *desk.Client) error { _, err := c.Entries(ctx, 0, 1); return err }, []string{desk.SystemAuditor, desk.SecurityOfficer}},
		"checkpoint": {func(ctx context.Context, c *desk.Client) error { _, err := c.Checkpoint(ctx); return err }, desk.Roles()},
	}
	denials := 0
	for name, c := range calls {
		for role, client := range d.clients {
			err := c.call(t.Context(), client)
			if allowed := slices.Contains(c.may, role); allowed != (err == nil) {
				t.Errorf("%s by %s: %v", name, role, err)
			}
			if err != nil {
				denials++
				if e := refusal(t, err); e.Status != http.StatusForbidden || desk.ExitStatus(err) != 1 {
					t.Errorf("%s by %s: %d %v", name, role, e.Status, err)
				}
			}
		}
	}
	if logged := strings.Count(d.log.String(), "call denied"); logged != denials {
		t.Errorf("%d denials logged, want %d", logged, denials)
	}
	if counted := sum(t, d.issuer.metrics.denied); int(counted) != denials {
		t.Errorf("%v denials counted, want %d", counted, denials)
	}
}

// sum adds up the values of a counter under all its labels.
func sum(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// Whoever comes without a certificate that TLS has verified is nobody, whatever else he sends.
func TestNoCertificate(t *testing.T) {
	p, _ := newProvider(t)
	certificate := clientCertificate(t, "officer")
	handler, err := OfficerHandler(p.issuer, []desk.Officer{testOfficer(testActor, certificate.Leaf.Raw, desk.Roles()...)})
	if err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]*tls.ConnectionState{
		"plain HTTP": nil, "none": {}, "not verified": {PeerCertificates: []*x509.Certificate{certificate.Leaf}},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/v1/certificates", nil)
		r.TLS = state
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// Each family of wrong input gets its own status, an error in JSON, and the exit status of the contract.
func TestWrongInput(t *testing.T) {
	d := newOfficerDesk(t)
	good := issueRequest(t)
	issue := func(change func(*desk.IssueRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			r := good
			change(&r)
			_, err := d.clients[desk.RegistrationOfficer].Issue(ctx, r)
			return err
		}
	}
	revoke := func(serial string, r desk.RevokeRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := d.clients[desk.RevocationOfficer].Revoke(ctx, serial, r)
			return err
		}
	}
	live, twice := d.issue().Serial, d.issue().Serial
	if _, err := d.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: twice}); err != nil {
		t.Fatal(err)
	}
	tomorrow := start.AddDate(0, 0, 1)
	for name, c := range map[string]struct {
		call         func(context.Context) error
		status, exit int
		want         string
	}{
		"malformed CSR": {issue(func(r *desk.IssueRequest) {
			r.CSR = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"
		}), 400, 2, ""},
		"no CSR":                  {issue(func(r *desk.IssueRequest) { r.CSR = "" }), 400, 2, ""},
		"unknown profile":         {issue(func(r *desk.IssueRequest) { r.Profile = "qcp-m" }), 400, 2, "qcp-n"},
		"profile of the ceremony": {issue(func(r *desk.IssueRequest) { r.Profile = "issuing-ca" }), 400, 2, "zegel-ceremony"},
		"unknown key in subject":  {issue(func(r *desk.IssueRequest) { r.Subject += "\nshoe_size: 43\n" }), 400, 2, "thea.yaml"},
		"subject is no YAML":      {issue(func(r *desk.IssueRequest) { r.Subject = "{" }), 400, 2, "thea.yaml"},
		"policy": {issue(func(r *desk.IssueRequest) {
			r.Subject = strings.Replace(r.Subject, "PNONL-TEST0000001", "12345", 1)
		}), 422, 3, ""},
		"device missing":     {issue(func(r *desk.IssueRequest) { r.Profile = "qcp-n-qscd" }), 422, 3, ""},
		"body too long":      {issue(func(r *desk.IssueRequest) { r.Subject = strings.Repeat("#", desk.MaxBody) }), 413, 2, "262144"},
		"unknown serial":     {revoke("0102030405", desk.RevokeRequest{Reason: "superseded"}), 404, 1, "not in the journal"},
		"serial is no hex":   {revoke("xyz", desk.RevokeRequest{Reason: "superseded"}), 400, 2, ""},
		"unknown reason":     {revoke(live.String(), desk.RevokeRequest{Reason: "bored"}), 400, 2, "bored"},
		"reason not allowed": {revoke(live.String(), desk.RevokeRequest{Reason: "certificateHold"}), 422, 3, "§5.3.1"},
		"in the future":      {revoke(live.String(), desk.RevokeRequest{Reason: "superseded", InvalidFrom: &tomorrow}), 422, 3, "§5.3.2"},
		"revoked twice":      {revoke(twice.String(), desk.RevokeRequest{Reason: "superseded"}), 409, 1, "revoked since"},
		"show unknown": {func(ctx context.Context) error {
			_, err := d.clients[desk.SystemAuditor].Certificate(ctx, "0102030405")
			return err
		}, 404, 1, "not in the journal"},
		"list status": {func(ctx context.Context) error {
			_, err := d.clients[desk.SystemAuditor].Certificates(ctx, desk.Search{Status: "great"})
			return err
		}, 400, 2, "great"},
		"list limit": {func(ctx context.Context) error {
			_, err := d.clients[desk.SystemAuditor].Certificates(ctx, desk.Search{Limit: maxPage + 1})
			return err
		}, 400, 2, "10000"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.call(t.Context())
			e := refusal(t, err)
			if e.Status != c.status || desk.ExitStatus(err) != c.exit || !strings.Contains(e.Error()+e.Message, c.want) {
				t.Errorf("got %d, exit %d, %q; want %d, %d, %q", e.Status, desk.ExitStatus(err), e.Error(), c.status, c.exit, c.want)
			}
			if (c.status == 422) != (len(e.Violations) > 0) {
				t.Errorf("violations: %v", e.Violations)
			}
		})
	}
	if _, err := d.clients[desk.RegistrationOfficer].Issue(t.Context(), good); err != nil {
		t.Errorf("the next good request: %v", err)
	}
}

// Requests that no client of ours sends are answered in JSON too.
func TestWrongHTTP(t *testing.T) {
	p, _ := newProvider(t)
	handler, state := bareHandler(t, p)
	for _, c := range []struct {
		method, path, kind, body string
		status                   int
	}{
		{"GET", "/v1/nothing", "", "", 404},
		{"GET", "/", "", "", 404},
		{"DELETE", "/v1/certificates/01", "", "", 405},
		{"PUT", "/v1/crl", "", "", 405},
		{"POST", "/v1/certificates", "text/plain", "{}", 415},
		{"POST", "/v1/certificates", "", "{}", 415},
		{"POST", "/v1/certificates", "application/json", "", 400},
		{"POST", "/v1/certificates", "application/json", "\x00\xff", 400},
		{"POST", "/v1/certificates", "application/json", `{"profil":"qcp-n"}`, 400},
		{"POST", "/v1/certificates", "application/json", `{} {}`, 400},
		{"POST", "/v1/certificates", "application/json", `{} x`, 400},
		{"POST", "/v1/certificates", "application/json", `{} }`, 400},
		{"POST", "/v1/certificates", "application/json", `{"profile":"qcp-n"`, 400},
		{"POST", "/v1/certificates", "application/json", `{"profile":"qcp-n",}`, 400},
		{"POST", "/v1/certificates", "application/json", `null`, 400},
		{"POST", "/v1/certificates", "application/json", `[]`, 400},
		{"POST", "/v1/certificates", "application/json", `{"profile":"qcp-n","profile":"qcp-n"}`, 400},
		{"POST", "/v1/certificates", "application/json", `{"profile":"qcp-n","Profile":"qcp-l"}`, 400},
		{"POST", "/v1/certificates", "application/json", `{"\u017fubject":"qcp-l"}`, 400}, // ſ, which encoding/json takes for s
		{"POST", "/v1/certificates", "application/json", "{\"profile\":\"\xff\"}", 400},
		{"POST", "/v1/certificates", "application/json; charset=utf-8", `{}`, 400},
		{"GET", "/v1/certificates?profil=qcp-n", "", "", 400},
		{"GET", "/v1/certificates?profile=a&profile=b", "", "", 400},
		{"GET", "/v1/certificates?%zz", "", "", 400},
		{"GET", "/v1/certificates?expires_before=soon", "", "", 400},
		{"GET", "/v1/certificates?after=xyz", "", "", 400},
		{"GET", "/v1/journal/entries?after=-1", "", "", 400},
		{"GET", "/v1/journal/entries?limit=0", "", "", 400},
		{"GET", "/v1/journal/entries?from=1", "", "", 400},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.TLS = state
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		handler.ServeHTTP(w, r)
		var e desk.Error
		if w.Code != c.status || json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Message == "" {
			t.Errorf("%s %s %q: %d %s", c.method, c.path, c.body, w.Code, w.Body)
		}
	}
}

// What encoding/json would take one way and somebody else another is refused.
func TestStrictJSON(t *testing.T) {
	for text, good := range map[string]bool{
		`{}`: true, ` {"reason":"superseded","note":"a } b"} ` + "\n": true, `{"a":{"b":[1,{"A":2}]},"c_1":null}`: true,
		``: false, `null`: false, `[]`: false, `"a"`: false, `{} {}`: false, `{} x`: false, `{} }`: false, `{"a":1`: false, `{"a":1,}`: false, `{"a"}`: false,
		`{"reason":"superseded","reason":"keyCompromise"}`: false, `{"reason":"superseded","REASON":"keyCompromise"}`: false,
		`{"\u0072eason":"a","reason":"b"}`: false, `{"a":{"b":1,"b":2}}`: false, `{"a":{"b":{"C":1}}}`: false, "{\"\u017fubject\":1}": false, "{\"a\":\"\xff\"}": false, `{"":1}`: false,
	} {
		if err := strictJSON([]byte(text)); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What is accepted is one JSON object that says the same to any reader.
func FuzzStrictJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `{"reason":"superseded"}`, `{"a":1,"a":2}`, `{"a":1} x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if strictJSON(text) != nil {
			return
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		if err := strictJSON(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

// A doubled reason does not reach the journal.
func TestDoubledReason(t *testing.T) {
	p, _ := newProvider(t)
	handler, state := bareHandler(t, p)
	serial := p.issue().Serial
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/v1/certificates/"+serial.String()+"/revoke", strings.NewReader(`{"reason":"superseded","REASON":"keyCompromise"}`))
	r.TLS = state
	r.Header.Set("Content-Type", "application/json")
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest || p.state(serial).Status != journal.Issued {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A foreign page in an officer's browser can make no call that changes anything, whatever it declares its body to be.
func TestCrossOrigin(t *testing.T) {
	p, _ := newProvider(t)
	handler, state := bareHandler(t, p)
	number := p.published().Number.Uint64()
	call := func(method, path string, headers map[string]string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, path, nil)
		r.TLS = state
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		handler.ServeHTTP(w, r)
		return w.Code
	}
	for name, headers := range map[string]map[string]string{
		"form of a new browser":  {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
		"form of an old browser": {"Content-Type": "application/x-www-form-urlencoded", "Origin": "https://evil.example"},
		"another host of ours":   {"Sec-Fetch-Site": "same-site"},
	} {
		if code := call(http.MethodPost, "/v1/crl", headers); code != http.StatusForbidden {
			t.Errorf("%s: %d", name, code)
		}
	}
	if got := p.published().Number.Uint64(); got != number {
		t.Errorf("a foreign page made CRL %d", got)
	}
	if denied := sum(t, p.issuer.metrics.denied); denied != 3 {
		t.Errorf("%v denials counted", denied)
	}
	if code := call(http.MethodPost, "/v1/crl", nil); code != http.StatusOK {
		t.Errorf("the officers' tool: %d", code)
	}
	if code := call(http.MethodGet, "/v1/certificates", map[string]string{"Sec-Fetch-Site": "cross-site"}); code != http.StatusOK {
		t.Errorf("reading: %d", code)
	}
}

// What an officer typed, and what policy says about it, stays out of the log; clauses and the CA's own faults are there.
func TestLogNamesNobody(t *testing.T) {
	d := newOfficerDesk(t)
	officer := d.clients[desk.RegistrationOfficer]
	send := func(change func(*desk.IssueRequest)) {
		t.Helper()
		r := issueRequest(t)
		r.SubjectName = "jansen.yaml"
		change(&r)
		if _, err := officer.Issue(t.Context(), r); err == nil {
			t.Error("issued")
		}
	}
	for from, to := range map[string]string{
		"PNONL-TEST0000001": "PNONL_123456782", "Testermann": "Jansen\tJansen", "countryName: NL": "countryName: Jansen", "countryName": "Jansen",
	} {
		send(func(r *desk.IssueRequest) { r.Subject = strings.Replace(r.Subject, from, to, 1) })
	}
	send(func(r *desk.IssueRequest) { r.Profile = "jansen" })
	send(func(r *desk.IssueRequest) { r.CSR = "Jansen" })
	if _, err := officer.Certificate(t.Context(), "Jansen"); err == nil {
		t.Error("a name is a serial")
	}
	d.key.hook(func([]byte) error { return errStep }, nil)
	send(func(*desk.IssueRequest) {})
	d.key.hook(nil, nil)
	log := d.log.String()
	for _, personal := range []string{"Jansen", "jansen", "123456782", "Testermann"} {
		if strings.Contains(log, personal) {
			t.Errorf("the log has %s:\n%s", personal, log)
		}
	}
	for _, fact := range []string{"status=422", "clauses=", "status=400", "status=503", errStep.Error()} {
		if !strings.Contains(log, fact) {
			t.Errorf("the log has no %s:\n%s", fact, log)
		}
	}
}

// A certificate whose sealed body cannot be opened, or holds none, is listed by its state.
func TestListWithAnUnreadableBody(t *testing.T) {
	d := newOfficerDesk(t)
	unreadable := journal.Serial("\x01unreadable")
	journaltest.Issue(t, d.journal, d.issuer.ID(), unreadable)
	good := d.issue().Serial.String()
	client := d.clients[desk.SystemAuditor]
	list, err := client.Certificates(t.Context(), desk.Search{})
	if err != nil {
		t.Fatal(err)
	}
	subjects := map[string]string{}
	for _, c := range list {
		subjects[c.Serial] = c.Subject
	}
	if subject, listed := subjects[unreadable.String()]; !listed || subject != "" || subjects[good] == "" {
		t.Errorf("listed %v", subjects)
	}
	if c, err := client.Certificate(t.Context(), unreadable.String()); err != nil || c.Status != "good" || c.Cert != "" || c.SHA256 == "" {
		t.Errorf("shown %+v, %v", c, err)
	}
	if !strings.Contains(d.log.String(), "cannot be shown") {
		t.Error("nothing logged")
	}
}

// bareHandler is the API without a network, and a connection of somebody with every role.
func bareHandler(tb testing.TB, p *provider) (http.Handler, *tls.ConnectionState) {
	tb.Helper()
	handler, err := OfficerHandler(p.issuer, []desk.Officer{testOfficer(testActor, p.root.Raw, desk.Roles()...)})
	if err != nil {
		tb.Fatal(err)
	}
	return handler, &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{p.root}}}
}

// The CA that refuses for its own reasons says 503 and why.
func TestRefusingCA(t *testing.T) {
	d := newOfficerDesk(t)
	serial := d.issue().Serial.String()
	d.issuer.config.Clock.(*testClock).set(start, errors.New("unsynchronised"))
	_, err := d.clients[desk.RegistrationOfficer].Issue(t.Context(), issueRequest(t))
	if e := refusal(t, err); e.Status != http.StatusServiceUnavailable || !strings.Contains(e.Message, "unsynchronised") {
		t.Errorf("got %d %v", e.Status, err)
	}
	_, err = d.clients[desk.RevocationOfficer].Revoke(t.Context(), serial, desk.RevokeRequest{Reason: "superseded"})
	if e := refusal(t, err); e.Status != http.StatusServiceUnavailable || !strings.Contains(e.Message, "not yet on the published CRL") {
		t.Errorf("got %d %v", e.Status, err)
	}
	d.issuer.recovered.Store(false)
	_, err = d.clients[desk.SystemOperator].IssueCRL(t.Context())
	if e := refusal(t, err); e.Status != http.StatusServiceUnavailable || desk.ExitStatus(err) != 1 {
		t.Errorf("got %d %v", e.Status, err)
	}
	d.issuer.recovered.Store(true)
	d.issuer.config.Clock.(*testClock).set(start, nil)
}

func TestSearch(t *testing.T) {
	d := newOfficerDesk(t)
	client := d.clients[desk.SystemAuditor]
	var all []string
	for range 5 {
		all = append(all, d.issue().Serial.String())
	}
	slices.Sort(all)
	if _, err := d.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: d.serial(all[2])}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		search desk.Search
		want   []string
	}{
		"by profile":              {desk.Search{Profile: "qcp-n"}, all},
		"by subject":              {desk.Search{Subject: "tESTERmann"}, all},
		"by nobody's name":        {desk.Search{Subject: "Nemo"}, nil},
		"revoked":                 {desk.Search{Status: "revoked"}, all[2:3]},
		"good of the profile":     {desk.Search{Status: "good", Profile: "qcp-n"}, []string{all[0], all[1], all[3], all[4]}},
		"expires before the end":  {desk.Search{Profile: "qcp-n", ExpiresBefore: start.AddDate(4, 0, 0)}, all},
		"expires before the day":  {desk.Search{Profile: "qcp-n", ExpiresBefore: start.AddDate(1, 0, 0)}, nil},
		"first page":              {desk.Search{Profile: "qcp-n", Limit: 2}, all[:2]},
		"page after":              {desk.Search{Profile: "qcp-n", After: all[1], Limit: 2}, all[2:4]},
		"last page":               {desk.Search{Profile: "qcp-n", After: all[3], Limit: 2}, all[4:]},
		"CA by issuing-ca":        {desk.Search{Profile: "issuing-ca"}, []string{d.cert.SerialNumber.Text(16)}},
		"intended: none are open": {desk.Search{Status: "intended"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := client.Certificates(t.Context(), c.search)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, f.Serial)
				if f.Cert != "" || f.Subject == "" {
					t.Errorf("list shows %+v", f)
				}
			}
			want := slices.Clone(c.want)
			for n, w := range want {
				want[n] = d.serial(w).String()
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func (p *provider) serial(hex string) journal.Serial {
	p.Helper()
	if len(hex)%2 == 1 {
		hex = "0" + hex
	}
	s, err := journal.ParseSerial(hex)
	if err != nil {
		p.Fatal(err)
	}
	return s
}

func TestOfficerHandlerRefuses(t *testing.T) {
	p, _ := newProvider(t)
	one := testOfficer(journal.Actor{1}, []byte{1}, desk.SystemAuditor)
	two := testOfficer(journal.Actor{2}, []byte{2}, desk.SystemOperator)
	if _, err := OfficerHandler(p.issuer, []desk.Officer{one, two}); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*desk.Officer){
		"same id":          func(o *desk.Officer) { o.ID = one.ID },
		"same certificate": func(o *desk.Officer) { o.Certificate = one.Certificate },
		"nobody":           func(o *desk.Officer) { o.ID = strings.Repeat("0", 32) },
		"no role":          func(o *desk.Officer) { o.Roles = nil },
		"unknown role":     func(o *desk.Officer) { o.Roles = []string{"root"} },
	} {
		other := two
		change(&other)
		if _, err := OfficerHandler(p.issuer, []desk.Officer{one, other}); err == nil || !strings.Contains(err.Error(), "officers[1]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNameText(t *testing.T) {
	for _, c := range []struct {
		name pkix.RDNSequence
		want string
	}{
		{nil, ""},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 6}, Value: "NL"}}, {{Type: []int{2, 5, 4, 97}, Value: "NTRNL-1"}}}, "organizationIdentifier=NTRNL-1,C=NL"},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 3}, Value: ` a,b+"c"\<d>; `}}}, `CN=\ a\,b\+\"c\"\\\<d\>\;\ `},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 3}, Value: "#1 Théa"}}}, `CN=\#1 Théa`},
		{pkix.RDNSequence{{{Type: []int{1, 2, 3, 4}, Value: "x"}}}, "1.2.3.4=x"},
	} {
		raw, err := asn1.Marshal(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := der.NameText(raw); err != nil || got != c.want {
			t.Errorf("got %q, %v, want %q", got, err, c.want)
		}
	}
	if _, err := der.NameText([]byte{0x30, 0x01}); err == nil {
		t.Error("half a Name was read")
	}
}

// Whatever is sent: no panic, an answer in JSON, and nothing recorded but by a request that succeeds.
func FuzzDesk(f *testing.F) {
	p, _ := newProvider(f)
	handler, state := bareHandler(f, p)
	f.Add("/v1/certificates", toJSON(f, issueRequest(f)))
	f.Add("/v1/certificates/01/revoke", toJSON(f, desk.RevokeRequest{Reason: "superseded"}))
	f.Add("/v1/crl", []byte(`{}`))
	f.Add("/v1/certificates?limit=1", []byte(nil))
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		r, err := http.NewRequest(http.MethodPost, "https://ca.example/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path, _, _ = strings.Cut(path, "?")
		r.TLS = state
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		size := p.journal.Size()
		handler.ServeHTTP(w, r)
		if w.Code/100 == 3 {
			return // the mux cleans the path
		}
		text, err := io.ReadAll(w.Body)
		if err != nil || !json.Valid(text) {
			t.Errorf("%d %q", w.Code, text)
		}
		if w.Code != http.StatusOK && p.journal.Size() != size {
			t.Errorf("%d, but something was recorded", w.Code)
		}
	})
}
