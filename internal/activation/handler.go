package activation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// maxBody bounds a request, in octets: a share with its comments in base64.
const maxBody = 16 << 10

// Handler serves GET and POST /v1/activation and POST /v1/deactivation, as docs/tokens.md has them, and everything else by next. Every
// officer may ask; security officers and system operators act. Errors are desk.Error in JSON.
func (g *Guard) Handler(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	actors := []string{desk.SecurityOfficer, desk.SystemOperator}
	origin := http.NewCrossOriginProtection() // keeps foreign pages from using an officer's browser
	mux.Handle("GET /v1/activation", g.bind(desk.Roles(), func(*http.Request, desk.Officer) error { return nil }))
	mux.Handle("POST /v1/activation", origin.Handler(g.bind(actors, g.activate)))
	mux.Handle("POST /v1/deactivation", origin.Handler(g.bind(actors, g.deactivate)))
	return mux
}

// bind makes a call a handler: officer, role, one at a time, answer. Every answer is how the tokens stand after it.
func (g *Guard) bind(roles []string, serve func(*http.Request, desk.Officer) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		officer, err := desk.OfficerOf(r, g.config.Officers)
		if err == nil && !officer.Has(roles...) {
			err = fmt.Errorf("%s %s wants one of the roles %s", r.Method, r.URL.Path, strings.Join(roles, ", "))
		}
		if err != nil {
			daemon.Deny(w, r, g.config.Env.Log, err)
			return
		}
		if r.Method == http.MethodPost {
			g.acting.Lock()
			defer g.acting.Unlock()
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		var state desk.Activation
		if err = serve(r, officer); err == nil {
			state, err = g.state()
		}
		if err == nil {
			daemon.WriteJSON(w, http.StatusOK, state)
			return
		}
		answer, ok := errors.AsType[*desk.Error](err)
		if !ok {
			answer = &desk.Error{Status: http.StatusConflict, Message: err.Error()}
		}
		g.config.Env.Log.Warn("activation refused", "officer", strings.ToLower(officer.ID), "path", r.URL.Path, "reason", answer.Message)
		daemon.WriteJSON(w, answer.Status, answer)
	})
}

// activate takes a PIN or a share, or neither, and opens the tokens as soon as no PIN is wanted any more.
func (g *Guard) activate(r *http.Request, officer desk.Officer) error {
	request, err := readRequest(r)
	if err != nil {
		return err
	}
	defer clear(request.PIN)
	defer clear(request.Share)
	switch {
	case request.PIN != nil && request.Share != nil:
		return refuse(http.StatusBadRequest, "read request body: a PIN and a share at once")
	case request.PIN != nil:
		err = g.enterPIN(officer, request.Token, request.PIN)
	case request.Share != nil:
		err = g.addShare(officer, request.Token, request.Share)
	default:
		_, err = g.matching(request.Token)
	}
	if err != nil {
		return err
	}
	list, err := g.config.Tokens.Access(g.config.URIs...)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, hsm.Access.Wanted) {
		if request.PIN == nil && request.Share == nil {
			waiting, err := g.trouble()
			return errors.Join(waiting, err)
		}
		return nil // the answer says who is waited for
	}
	if err := g.openTokens(); err != nil {
		return err
	}
	g.note(r.Context(), act{journal.KeyActivated, officer, list, g.takeGivers(), time.Now()})
	g.finish()
	if request.Trust {
		return g.trust(officer, request.Token)
	}
	return nil
}

// openTokens opens every token, once. Of a key group it is enough that one token works: the others are for the log, unless one refused its PIN,
// which somebody then has to enter again.
func (g *Guard) openTokens() error {
	results, failed := make(map[string]error), make(map[string]error)
	for _, uri := range g.config.URIs {
		var causes []error
		members := strings.Fields(uri)
		for _, member := range members {
			list, err := g.config.Tokens.Access(member)
			if err != nil {
				return err
			}
			name := list[0].Token + " " + list[0].Source
			if _, tried := results[name]; !tried {
				results[name] = g.config.Tokens.Activate(member)
			}
			if results[name] != nil {
				causes = append(causes, results[name])
			}
		}
		switch err := errors.Join(causes...); {
		case err == nil:
		case len(causes) == len(members) || errors.Is(err, hsm.ErrPINRefused):
			failed[err.Error()] = err
		default:
			g.config.Env.Log.Warn("a token of a key group cannot be opened: the others serve", "error", err)
		}
	}
	return errors.Join(slices.Collect(maps.Values(failed))...)
}

// trust has a token used again that gave a wrong signature. It is named, so that nobody does it by the way.
func (g *Guard) trust(officer desk.Officer, token string) error {
	list, err := g.matching(token)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return refuse(http.StatusBadRequest, "say which token is to be trusted again: %s", names(list))
	}
	g.config.Env.Log.Warn("token trusted again", "officer", strings.ToLower(officer.ID), "token", list[0].Label)
	return g.config.Tokens.Trust(list[0].Token)
}

// deactivate closes the tokens and wipes what was entered.
func (g *Guard) deactivate(r *http.Request, officer desk.Officer) error {
	if err := emptyBody(r); err != nil {
		return err
	}
	list, err := g.config.Tokens.Access(g.config.URIs...)
	if err != nil {
		return err
	}
	g.mu.Lock()
	for file, c := range g.collected {
		c.wipe()
		delete(g.collected, file)
	}
	clear(g.givers)
	g.mu.Unlock()
	err = g.config.Tokens.Deactivate()
	g.note(r.Context(), act{journal.KeyDeactivated, officer, list, nil, time.Now()})
	return err
}

// takeGivers are the officers whose shares the activation took, by the file of the shares.
func (g *Guard) takeGivers() map[string][]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	givers := g.givers
	g.givers = make(map[string][]string)
	return givers
}

// act is what an officer did, for log and journal.
type act struct {
	what    journal.KeyAct
	officer desk.Officer
	tokens  []hsm.Access
	givers  map[string][]string // ids of those whose shares it took, by the file of the shares
	at      time.Time
}

// note logs an act, and records it in the journal: at once, or by RecordIn.
func (g *Guard) note(ctx context.Context, a act) {
	var labels []string
	for _, t := range a.tokens {
		labels = append(labels, t.Label)
	}
	words := "tokens activated"
	if a.what == journal.KeyDeactivated {
		words = "tokens deactivated"
	}
	g.config.Env.Log.Warn(words, "officer", strings.ToLower(a.officer.ID), "tokens", labels, "shares_of", a.givers)
	g.mu.Lock()
	record := g.record
	if record == nil {
		g.pending = append(g.pending, a)
	}
	g.mu.Unlock()
	if record == nil {
		return
	}
	if err := record(context.WithoutCancel(ctx), a); err != nil {
		g.config.Env.Log.Error("not recorded in the journal", "act", words, "error", err)
	}
}

// RecordIn has j hold every activation and deactivation from now on, and those that were before: who, and of which tokens.
func (g *Guard) RecordIn(ctx context.Context, j *journal.Journal) error {
	record := func(ctx context.Context, a act) error {
		actor, err := a.officer.Actor()
		if err != nil {
			return err
		}
		for _, t := range a.tokens {
			facts := map[string]any{"token": t.Label, "uri": t.Token, "pin_source": t.Source}
			if givers := a.givers[t.Shares]; len(givers) > 0 {
				facts["officers"] = givers
			}
			details, err := json.Marshal(facts)
			if err != nil {
				return err
			}
			if _, err := j.Append(ctx, journal.KeyDuty{Actor: actor, Act: a.what, DoneAt: a.at.UTC().Truncate(time.Millisecond), Details: details}); err != nil {
				return err
			}
		}
		return nil
	}
	g.mu.Lock()
	pending := g.pending
	g.pending, g.record = nil, record
	g.mu.Unlock()
	for _, a := range pending {
		if err := record(ctx, a); err != nil {
			return fmt.Errorf("record activation: %w", err)
		}
	}
	return nil
}

// readRequest reads the body strictly: one JSON object of known keys, each once. It wipes what it has read.
func readRequest(r *http.Request) (desk.ActivationRequest, error) {
	var request desk.ActivationRequest
	text, err := readBody(r)
	defer clear(text)
	if err != nil {
		return request, err
	}
	if err := strictKeys(text, "token", "pin", "share", "trust"); err != nil {
		return request, refuse(http.StatusBadRequest, "read request body: %w", err)
	}
	// Unmarshal, unlike a Decoder, makes no copy of text; what it says about a fault may show some of it.
	if err := json.Unmarshal(text, &request); err != nil {
		clear(request.PIN)
		clear(request.Share)
		return desk.ActivationRequest{}, refuse(http.StatusBadRequest, "read request body: pin and share are base64, token is text, trust is true")
	}
	return request, nil
}

func emptyBody(r *http.Request) error {
	text, err := readBody(r)
	if err == nil {
		err = strictKeys(text)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "read request body: want {}: %w", err)
	}
	return nil
}

// readBody reads into one buffer, so that none is left behind by growing.
func readBody(r *http.Request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "request body: want Content-Type application/json")
	}
	buffer := make([]byte, maxBody+1)
	n, err := io.ReadFull(r.Body, buffer)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(buffer)
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			return nil, refuse(http.StatusRequestEntityTooLarge, "read request body: longer than %d octets", maxBody)
		}
		return nil, refuse(http.StatusBadRequest, "read request body: %w", err)
	}
	return buffer[:n], nil
}

// strictKeys wants one object with keys among known, none twice, whose values are strings or true. It is a reader of its own because
// those of encoding/json keep copies of what they read.
func strictKeys(text []byte, known ...string) error {
	rest := bytes.TrimSpace(text)
	if len(rest) < 2 || rest[0] != '{' || rest[len(rest)-1] != '}' {
		return errors.New("want one JSON object")
	}
	rest = bytes.TrimSpace(rest[1 : len(rest)-1])
	seen := make(map[string]bool)
	for len(rest) > 0 {
		key, after, ok := plainString(rest)
		name := string(key)
		if !ok || !slices.Contains(known, name) {
			return fmt.Errorf("unknown key: there are %s", strings.Join(known, ", "))
		}
		if seen[name] {
			return fmt.Errorf("the key %q is there twice", name)
		}
		seen[name] = true
		if after = bytes.TrimSpace(after); len(after) == 0 || after[0] != ':' {
			return errors.New("a key without a value")
		}
		after = bytes.TrimSpace(after[1:])
		if literal, isTrue := bytes.CutPrefix(after, []byte("true")); isTrue {
			after = literal
		} else if _, after, ok = plainString(after); !ok {
			return fmt.Errorf("%s is not a string without escapes", name)
		}
		rest = bytes.TrimSpace(after)
		if len(rest) == 0 {
			return nil
		}
		if rest[0] != ',' || len(bytes.TrimSpace(rest[1:])) == 0 {
			return errors.New("something follows a value")
		}
		rest = bytes.TrimSpace(rest[1:])
	}
	return nil
}

// plainString takes a JSON string without escapes off the front of text.
func plainString(text []byte) (value, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return nil, nil, false
	}
	end := bytes.IndexAny(text[1:], "\"\\")
	if end < 0 || text[1+end] == '\\' {
		return nil, nil, false
	}
	return text[1 : 1+end], text[2+end:], true
}
