package activation

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/shares"
)

const pin = "31415926-secret"

// office is a guard over a soft token whose PIN is in shares, and one whose PIN is prompted for.
type office struct {
	*Guard
	handler       http.Handler
	log           *logBuffer
	split, prompt string // URIs
	texts         [][]byte
	file          string
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

// people have a client certificate of their name; dora has no role that may act.
func people() []desk.Officer {
	var list []desk.Officer
	for i, name := range []string{"anna", "ben", "dora"} {
		role := []string{desk.SecurityOfficer, desk.SystemOperator, desk.SystemAuditor}[i]
		list = append(list, desk.Officer{ID: fmt.Sprintf("%032x", i+1), Certificate: fmt.Sprintf("%x", sha256.Sum256([]byte(name))), Roles: []string{role}})
	}
	return list
}

func newOffice(t *testing.T) *office {
	t.Helper()
	token := hsmtest.SoftToken(t)
	dir := filepath.Dir(token.PIN)
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	set, list, err := shares.Split([]byte(pin), "the test", 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	text, err := set.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	o := &office{log: &logBuffer{}, file: write("shares.json", text)}
	for _, s := range list {
		o.texts = append(o.texts, s.Text(set))
	}
	uri := func(folder, source string) string {
		return hsm.URI{Software: true, Object: "a", Dir: filepath.Join(dir, folder), PINSource: source}.String()
	}
	tokens := hsm.New(token.Config)
	file := write("pin-of-test", []byte(pin))
	for _, folder := range []string{"split", "prompted"} {
		if _, err := tokens.Generate(uri(folder, "file:"+file), hsm.P256); err != nil {
			t.Fatal(err)
		}
	}
	if err := tokens.Close(); err != nil {
		t.Fatal(err)
	}
	tokens = hsm.New(token.Config)
	t.Cleanup(func() { tokens.Close() })
	o.split, o.prompt = uri("split", "shares:"+o.file), uri("prompted", "prompt")
	log := slog.New(slog.NewJSONHandler(o.log, nil))
	o.Guard, err = New(Config{Env: daemon.Env{Log: log, Daemon: "zegel-ca"}, Tokens: tokens, URIs: []string{o.split, o.prompt, ""}, Officers: people()})
	if err != nil {
		t.Fatal(err)
	}
	o.handler = o.Handler(http.NotFoundHandler())
	return o
}

// call makes one call as somebody and returns status and answer.
func (o *office) call(t *testing.T, who, method, path string, body any) (int, string) {
	t.Helper()
	text, raw := body.(string)
	if !raw {
		encoded, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(encoded)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(text))
	r.Header.Set("Content-Type", "application/json")
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Raw: []byte(who)}}}}
	w := httptest.NewRecorder()
	o.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// share has somebody enter a share, and wants that status and words.
func (o *office) share(t *testing.T, who string, text []byte, status int, words string) {
	t.Helper()
	got, answer := o.call(t, who, "POST", "/v1/activation", desk.ActivationRequest{Share: bytes.Clone(text)})
	if got != status || !strings.Contains(answer, words) {
		t.Errorf("%s enters a share: %d %s; want %d and %q", who, got, answer, status, words)
	}
}

func (o *office) enterPrompt(t *testing.T, secret string, status int, words string) {
	t.Helper()
	got, answer := o.call(t, "anna", "POST", "/v1/activation", desk.ActivationRequest{PIN: []byte(secret)})
	if got != status || !strings.Contains(answer, words) {
		t.Errorf("enter a PIN: %d %s; want %d and %q", got, answer, status, words)
	}
}

// forge makes a share that says it is the second, with the value of the third: its checksum fits.
func (o *office) forge(t *testing.T) []byte {
	t.Helper()
	second, err := shares.ParseShare(o.texts[1])
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.file)
	if err != nil {
		t.Fatal(err)
	}
	set, err := shares.ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	third, err := shares.ParseShare(o.texts[2])
	if err != nil {
		t.Fatal(err)
	}
	third.Number = second.Number
	return third.Text(set)
}

// Two officers open what one cannot; what is wrong with a share is said, and costs nothing.
func TestTwoOfficers(t *testing.T) {
	o := newOffice(t)
	if _, err := o.Health(); err == nil || !strings.Contains(err.Error(), "wants 2 of 3 shares, each from another officer, and has 0") {
		t.Errorf("health: %v", err)
	}
	o.enterPrompt(t, pin, 200, `"active":false`)
	o.share(t, "anna", o.texts[0], 200, `"entered":[1]`)
	o.share(t, "anna", o.texts[1], 409, "you have entered share 1")
	o.share(t, "ben", o.texts[0], 409, "has been entered already")
	o.share(t, "ben", o.forge(t), 409, "share 2 of the PIN of the test: the share is not the one that was handed out")
	_, others, err := shares.Split([]byte(pin), "another", 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := shares.Split([]byte(pin), "another", 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	o.share(t, "ben", others[0].Text(set), 409, "of another split")
	o.share(t, "ben", []byte("zegel-share-1 000000"), 400, "checksum does not fit")
	if code, answer := o.call(t, "ben", "POST", "/v1/activation", "{}"); code != 409 || !strings.Contains(answer, "has 1") {
		t.Errorf("activate too early: %d %s", code, answer)
	}
	if _, err := o.config.Tokens.Key(o.split); !errors.Is(err, hsm.ErrPINWanted) {
		t.Errorf("open the key with one share: %v", err)
	}
	o.share(t, "ben", o.texts[2], 200, `"active":true`)
	select {
	case <-o.opened:
	default:
		t.Error("Await would wait on")
	}
	key, err := o.config.Tokens.Key(o.split)
	if err != nil {
		t.Fatal(err)
	}
	sign := func() error { _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); return err }
	if err := sign(); err != nil {
		t.Error(err)
	}
	if facts, err := o.Health(); facts != nil || err != nil {
		t.Errorf("health: %v, %v", facts, err)
	}
	o.share(t, "ben", o.texts[1], 409, "wants no share")
	o.enterPrompt(t, "another", 400, "say which token")
	if code, answer := o.call(t, "ben", "POST", "/v1/deactivation", "{}"); code != 200 || !strings.Contains(answer, `"active":false`) {
		t.Errorf("deactivate: %d %s", code, answer)
	}
	if err := sign(); !errors.Is(err, hsm.ErrDeactivated) {
		t.Errorf("sign when deactivated: %v", err)
	}
	o.share(t, "ben", o.texts[0], 200, `"entered":[1]`)
	o.share(t, "anna", o.texts[1], 200, `"active":false`)
	o.enterPrompt(t, "wrong", 409, "PIN refused")
	o.enterPrompt(t, pin, 200, `"active":true`)
	if err := sign(); err != nil {
		t.Error(err)
	}
	if got := len(o.pending); got != 3 {
		t.Errorf("%d acts are to be recorded, want two activations and a deactivation", got)
	}
	if a := o.pending[0]; a.officer.ID != people()[1].ID || !slices.Equal(a.givers[o.file], []string{people()[0].ID, people()[1].ID}) {
		t.Errorf("the first activation is recorded as %+v", a)
	}
}

// Shares that wait too long are wiped.
func TestSharesAreForgotten(t *testing.T) {
	o := newOffice(t)
	o.life = 20 * time.Millisecond
	o.share(t, "anna", o.texts[0], 200, `"entered":[1]`)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, answer := o.call(t, "dora", "GET", "/v1/activation", ""); !strings.Contains(answer, "entered") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the share is still there")
		}
	}
	if !strings.Contains(o.log.text(), "shares of a PIN were wiped") {
		t.Errorf("the log says nothing of it: %s", o.log.text())
	}
	o.life = time.Minute
	o.share(t, "anna", o.texts[1], 200, `"entered":[2]`)
	o.share(t, "ben", o.texts[0], 200, "wants its PIN")
}

// A token of a key group that cannot be reached keeps the others from nothing; a PIN is tried once for all keys of its token.
func TestGroup(t *testing.T) {
	o := newOffice(t)
	absent := func(o *office) string { return strings.Replace(o.split, "/split", "/elsewhere", 1) }
	o.config.URIs = []string{o.split + "\n  " + absent(o), o.split}
	o.share(t, "anna", o.texts[0], 200, `"entered":[1]`)
	o.share(t, "ben", o.texts[1], 200, `"active":true`)
	if !strings.Contains(o.log.text(), "a token of a key group cannot be opened") {
		t.Errorf("the log says nothing of the one that is absent: %s", o.log.text())
	}
	o = newOffice(t)
	o.config.URIs = []string{o.split, absent(o)}
	o.share(t, "anna", o.texts[0], 200, `"entered":[1]`)
	o.share(t, "ben", o.texts[1], 409, "no such file")
}

// Only officers with a role act, and a request is read strictly.
func TestWhoAndHow(t *testing.T) {
	o := newOffice(t)
	encoded := base64.StdEncoding.EncodeToString([]byte(pin))
	for _, c := range []struct {
		who, method, path, body string
		status                  int
		words                   string
	}{
		{"eve", "GET", "/v1/activation", "", 403, "belongs to no officer"},
		{"dora", "GET", "/v1/activation", "", 200, `"state":"waiting"`},
		{"dora", "POST", "/v1/activation", "{}", 403, "wants one of the roles"},
		{"dora", "POST", "/v1/deactivation", "{}", 403, "wants one of the roles"},
		{"anna", "POST", "/v1/activation", "", 400, "want one JSON object"},
		{"anna", "POST", "/v1/activation", `[]`, 400, "want one JSON object"},
		{"anna", "POST", "/v1/activation", `{"Pin":"` + encoded + `"}`, 400, "unknown key"},
		{"anna", "POST", "/v1/activation", `{"pin":"` + encoded + `","pin":"` + encoded + `"}`, 400, "is there twice"},
		{"anna", "POST", "/v1/activation", `{"pin":"` + encoded + `"} {}`, 400, "something follows"},
		{"anna", "POST", "/v1/activation", `{"pin":"` + encoded + `",}`, 400, "something follows"},
		{"anna", "POST", "/v1/activation", `{"pin":["` + encoded + `"]}`, 400, "not a string"},
		{"anna", "POST", "/v1/activation", `{"pin":"\u0041"}`, 400, "not a string without escapes"},
		{"anna", "POST", "/v1/activation", `{"pin":"` + pin + `!"}`, 400, "are base64"},
		{"anna", "POST", "/v1/activation", `{"pin":"` + encoded + `","share":"` + encoded + `"}`, 400, "at once"},
		{"anna", "POST", "/v1/activation", `{"pin":""}`, 400, "the PIN is empty"},
		{"anna", "POST", "/v1/activation", `{"token":"nobody","pin":"` + encoded + `"}`, 400, "no token that is called"},
		{"anna", "POST", "/v1/activation", `{"token":"` + strings.Repeat("x", 20000) + `"}`, 413, "longer than"},
		{"anna", "POST", "/v1/deactivation", `{"token":"x"}`, 400, "want {}"},
		{"anna", "DELETE", "/v1/activation", "", 404, ""},
	} {
		if status, answer := o.call(t, c.who, c.method, c.path, c.body); status != c.status || !strings.Contains(answer, c.words) {
			t.Errorf("%s %s %s %.60s: %d %s; want %d and %q", c.who, c.method, c.path, c.body, status, answer, c.status, c.words)
		}
	}
	r := httptest.NewRequest("POST", "/v1/activation", strings.NewReader("{}"))
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Raw: []byte("anna")}}}}
	w := httptest.NewRecorder()
	if o.handler.ServeHTTP(w, r); w.Code != 415 {
		t.Errorf("a body of no type: %d", w.Code)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w = httptest.NewRecorder()
	if o.handler.ServeHTTP(w, r); w.Code != 403 {
		t.Errorf("a foreign page: %d", w.Code)
	}
}

// What is entered, right or wrong, is in no answer and in no log.
func TestNothingLeaks(t *testing.T) {
	o := newOffice(t)
	var answers strings.Builder
	say := func(body any) {
		_, answer := o.call(t, "anna", "POST", "/v1/activation", body)
		answers.WriteString(answer)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(pin))
	say(desk.ActivationRequest{PIN: []byte(pin)})
	say(desk.ActivationRequest{PIN: []byte(pin + "\n" + pin)})
	say(desk.ActivationRequest{Share: []byte(pin)})
	say(desk.ActivationRequest{Share: bytes.Clone(o.texts[0])})
	say(desk.ActivationRequest{Share: append(bytes.Clone(bytes.TrimSpace(o.texts[0])), 'x')})
	say(`{"pin":"` + pin + `"}`)
	say(`{"pin":` + pin + `}`)
	say(`{"` + pin + `":"` + encoded + `"}`)
	say(`{"pin":"` + encoded + `"`)
	secret := string(bytes.TrimSpace(o.texts[0][bytes.LastIndex(o.texts[0], []byte("zegel-share-1 "))+14:]))
	for what, text := range map[string]string{"the answers": answers.String(), "the log": o.log.text()} {
		for _, secret := range []string{pin, encoded, secret, secret[7:20]} {
			if strings.Contains(text, secret) {
				t.Errorf("%s show %q: %s", what, secret, text)
			}
		}
	}
}

// At a terminal, each wrong share is said and asked for again; so is nothing else.
func TestTerminal(t *testing.T) {
	o := newOffice(t)
	line := func(i int) string {
		return string(o.texts[i][bytes.LastIndex(o.texts[i], []byte("zegel-share-1 ")):])
	}
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	typed.WriteString(line(0) + "rubbish\n" + line(0) + line(2) + pin + "\r\n")
	typed.Close()
	var asked bytes.Buffer
	entered, err := Terminal{In: in, Out: &asked}.Enter(o.config.Tokens, o.split, o.prompt)
	if err != nil {
		t.Fatalf("%v\n%s", err, &asked)
	}
	if len(entered) != 2 || !slices.Equal(entered[0].Shares, []int{1, 3}) || entered[0].Of != 3 || len(entered[1].Shares) != 0 {
		t.Errorf("%+v", entered)
	}
	for _, want := range []string{"share 1 of 2", "share 2 of 2", "checksum does not fit", "entered already", "PIN of token"} {
		if !strings.Contains(asked.String(), want) {
			t.Errorf("nothing of %q is said: %s", want, &asked)
		}
	}
	if strings.Contains(asked.String(), pin) {
		t.Error("the PIN is shown")
	}
	for _, uri := range []string{o.split, o.prompt} {
		if _, err := o.config.Tokens.Key(uri); err != nil {
			t.Error(err)
		}
	}
	o = newOffice(t)
	closed, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	end.Close()
	if _, err := (Terminal{In: closed, Out: &asked}).Enter(o.config.Tokens, o.prompt); err == nil {
		t.Error("nothing was entered, and taken")
	}
}

// A configuration whose file of shares is missing or changed is refused before anything starts.
func TestCheck(t *testing.T) {
	o := newOffice(t)
	if err := Check(map[string]string{"issuer.key": o.split}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(o.file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	var key *daemon.KeyError
	if err := Check(map[string]string{"issuer.key": o.split}); !errors.As(err, &key) || key.Key != "issuer.key" {
		t.Errorf("%v", err)
	}
	if err := os.Remove(o.file); err != nil {
		t.Fatal(err)
	}
	if err := Check(map[string]string{"issuer.key": o.split}); !errors.As(err, &key) || !strings.Contains(err.Error(), "zegel token split") {
		t.Errorf("%v", err)
	}
}

// What the reader of requests takes, a strict decoder of encoding/json takes too, and reads the same.
func FuzzReadRequest(f *testing.F) {
	for _, text := range []string{`{}`, `{"token":"issuing","pin":"MTIzNA=="}`, `{"share":"eg==","trust":true}`, ` { "pin" : "" } `, `{"pin":"a","pin":"b"}`, `{"token":"\n"}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := httptest.NewRequest("POST", "/v1/activation", bytes.NewReader(text))
		r.Header.Set("Content-Type", "application/json")
		got, err := readRequest(r)
		if err != nil {
			return
		}
		var want desk.ActivationRequest
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&want); err != nil || decoder.More() {
			t.Fatalf("%q was read, which encoding/json refuses: %v", text, err)
		}
		if got.Token != want.Token || !bytes.Equal(got.PIN, want.PIN) || !bytes.Equal(got.Share, want.Share) || got.Trust != want.Trust {
			t.Errorf("%q: %+v, encoding/json reads %+v", text, got, want)
		}
	})
}
