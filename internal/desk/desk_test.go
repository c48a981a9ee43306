package desk

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func newClient(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	c, err := NewClient(server.URL+"/", server.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What the client asks is what the documentation says is asked.
func TestClientAsks(t *testing.T) {
	var got string
	var body map[string]any
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.RequestURI()
		body = nil
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("body: %v, %q", err, r.Header.Get("Content-Type"))
			}
		}
		fmt.Fprint(w, "{}")
	})
	ctx := t.Context()
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.FixedZone("", 3600))
	for _, step := range []struct {
		call func() error
		want string
		key  string // in the body
	}{
		{func() error { _, err := c.Issue(ctx, IssueRequest{Profile: "qcp-n"}); return err }, "POST /v1/certificates", "profile"},
		{func() error { _, err := c.Revoke(ctx, "0a/../b", RevokeRequest{}); return err }, "POST /v1/certificates/0a%2F..%2Fb/revoke", "reason"},
		{func() error { _, err := c.Certificate(ctx, "0a"); return err }, "GET /v1/certificates/0a", ""},
		{func() error { _, err := c.Certificates(ctx, Search{}); return err }, "GET /v1/certificates", ""},
		{func() error {
			_, err := c.Certificates(ctx, Search{Profile: "qcp-n", Subject: "a&b", Status: "good", ExpiresBefore: at, After: "01", Limit: 5})
			return err
		}, "GET /v1/certificates?after=01&expires_before=2026-11-30T23%3A00%3A00Z&limit=5&profile=qcp-n&status=good&subject=a%26b", ""},
		{func() error { _, err := c.IssueCRL(ctx); return err }, "POST /v1/crl", ""},
		{func() error { _, err := c.VerifyJournal(ctx); return err }, "GET /v1/journal/verify", ""},
		{func() error { _, err := c.Checkpoint(ctx); return err }, "GET /v1/journal/checkpoint", ""},
		{func() error { _, err := c.Entries(ctx, 7, 3); return err }, "GET /v1/journal/entries?after=7&limit=3", ""},
		{func() error { _, err := c.Status(ctx); return err }, "GET /v1/status", ""},
	} {
		if err := step.call(); err != nil || got != step.want {
			t.Errorf("asked %s, %v, want %s", got, err, step.want)
		}
		if _, ok := body[step.key]; step.key != "" && !ok {
			t.Errorf("%s: body %v lacks %q", step.want, body, step.key)
		}
	}
}

func TestClientFollowsPages(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		page := CertificateList{Certificates: []Certificate{{Serial: "01"}}, Next: "01"}
		if r.URL.Query().Get("after") == "01" {
			page = CertificateList{Certificates: []Certificate{{Serial: "02"}}}
		}
		if err := json.NewEncoder(w).Encode(page); err != nil {
			t.Error(err)
		}
	})
	all, err := c.Certificates(t.Context(), Search{})
	if err != nil || len(all) != 2 {
		t.Errorf("all: %v, %v", all, err)
	}
	one, err := c.Certificates(t.Context(), Search{Limit: 1})
	if err != nil || len(one) != 1 {
		t.Errorf("one page: %v, %v", one, err)
	}
}

// Each answer that is not 200 is an *Error with its status, also when no daemon of ours wrote it, and
// means one exit status.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		exit   int
		want   string
	}{
		{400, `{"error":"cannot read it"}`, 2, "cannot read it"},
		{413, `{"error":"too long"}`, 2, "too long"},
		{415, `{"error":"not JSON"}`, 2, "not JSON"},
		{401, `{"error":"who?"}`, 1, "who?"},
		{403, `{"error":"not you"}`, 1, "not you"},
		{404, `{"error":"none"}`, 1, "none"},
		{409, `{"error":"twice"}`, 1, "twice"},
		{422, `{"error":"x","violations":[{"clause":"A","detail":"b"},{"clause":"C","detail":"d"}]}`, 3, "A: b\nC: d"},
		{503, `{"error":"not now"}`, 1, "not now"},
		{502, `<html>`, 1, "502 Bad Gateway"},
		{500, `{}`, 1, "500 Internal Server Error"},
	} {
		client := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := client.Status(t.Context())
		var e *Error
		if !errors.As(err, &e) || e.Status != c.status || !strings.Contains(err.Error(), c.want) || ExitStatus(fmt.Errorf("issue: %w", err)) != c.exit {
			t.Errorf("%d: %v, exit %d", c.status, err, ExitStatus(err))
		}
	}
	if ExitStatus(nil) != 0 || ExitStatus(errors.New("x")) != 1 {
		t.Error("exit status of nil or of another error")
	}
}

func TestClientTrouble(t *testing.T) {
	garbage := newClient(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[") })
	if _, err := garbage.Status(t.Context()); err == nil || ExitStatus(err) != 1 {
		t.Errorf("garbage: %v", err)
	}
	long := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range maxReply>>20 + 1 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if _, err := long.Checkpoint(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("endless answer: %v", err)
	}
	stranger, err := NewClient(garbage.base, &tls.Config{RootCAs: x509.NewCertPool()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Status(t.Context()); err == nil || !strings.Contains(err.Error(), garbage.base) || ExitStatus(err) != 1 {
		t.Errorf("unknown CA: %v", err)
	}
	for _, base := range []string{"", "http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://%zz"} {
		if _, err := NewClient(base, &tls.Config{}); err == nil {
			t.Errorf("%q was accepted", base)
		}
	}
}

// In JSON the facts of a status stand beside its other keys, and come back.
func TestStatusJSON(t *testing.T) {
	s := Status{Daemon: "zegel-ca", Version: "1", Ready: false, Reason: "clock", Clock: "system", Facts: map[string]any{"crl_number": 7.0}}
	text, err := json.Marshal(s)
	if err != nil || !slices.Contains([]string{`{"clock":"system","crl_number":7,"daemon":"zegel-ca","ready":false,"reason":"clock","version":"1"}`}, string(text)) {
		t.Errorf("got %s, %v", text, err)
	}
	var back Status
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("got %+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte("[]"), &back); err == nil {
		t.Error("a list was read")
	}
	odd := Status{}
	if err := json.Unmarshal([]byte(`{"ready":"yes","clock":{"clock":"system"}}`), &odd); err != nil || odd.Ready || odd.Clock != "" {
		t.Errorf("got %+v, %v", odd, err)
	}
}

func FuzzStatusJSON(f *testing.F) {
	f.Add([]byte(`{"daemon":"zegel-ca","ready":true,"x":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s, again Status
		if json.Unmarshal(text, &s) != nil {
			return
		}
		out, err := json.Marshal(s)
		if err != nil || json.Unmarshal(out, &again) != nil {
			t.Errorf("%s: %v", text, err)
		}
	})
}
