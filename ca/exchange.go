package ca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

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

func (p *statusProbe) Header() http.Header { return p.header }

func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }

func (p *statusProbe) WriteHeader(status int) { p.status = status }

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

// strictJSON refuses what encoding/json would take: see decode. In the types of package desk objects lie in objects, never in arrays.
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
		if bytes.HasPrefix(value, []byte("{")) {
			if err := strictJSON(value); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
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
