package hsm_test

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// becomes waits until the token's state is the one wanted.
func becomes(t *testing.T, tokens *hsm.Tokens, want string) {
	t.Helper()
	var facts map[string]any
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		facts, err = tokens.Health()
		if all := facts["tokens"].([]hsm.TokenHealth); len(all) == 1 && all[0].State == want && (err == nil) == (want == hsm.StateInService) {
			return
		}
	}
	t.Fatalf("the token's state is not %q: %v", want, facts)
}

// A token that nobody calls is looked after: what it lost is repaired before somebody needs it, and an outage is found and ends by itself.
func TestKeepAlive(t *testing.T) {
	token := hsmtest.NewFaulty(t)
	token.Config.KeepAlive = 100 * time.Millisecond
	var log syncBuffer
	token.Config.Log = slog.New(slog.NewTextHandler(&log, nil))
	before := runtime.NumGoroutine()
	tokens := open(t, token.Config)
	t.Cleanup(func() { token.Break(t) })
	generate(t, tokens, token.URI("a"), hsm.P256)
	key := openKey(t, tokens, token.URI("a"))
	sign(t, key)
	for _, c := range []struct {
		name, line string
		logins     bool
	}{
		{"a session", fmt.Sprintf("C_GetSessionInfo 1 1 answer 0x%x", pkcs11.CKR_SESSION_HANDLE_INVALID), false},
		{"all sessions and the login", "C_GetSessionInfo 1 1 lose", true},
	} {
		token.Forget(t)
		token.Break(t, c.line)
		for end := time.Now().Add(5 * time.Second); len(token.Answers(t, "C_OpenSession")) == 0 || token.Calls(t, "C_GetSessionInfo") < 4; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s was lost, and nothing is repaired", c.name)
			}
		}
		time.Sleep(100 * time.Millisecond)
		if logins := len(token.Answers(t, "C_Login")); c.logins != (logins > 0) {
			t.Errorf("%s was lost: %d logins", c.name, logins)
		}
		token.Forget(t)
		sign(t, key)
		if n := len(token.Answers(t, "C_OpenSession")) + len(token.Answers(t, "C_Login")); n != 0 {
			t.Errorf("%s was lost: a signature later had to repair it", c.name)
		}
	}
	becomes(t, tokens, hsm.StateInService)
	token.Break(t, "absent")
	becomes(t, tokens, hsm.StateOutOfService)
	token.Break(t)
	begin := time.Now()
	becomes(t, tokens, hsm.StateInService)
	if took := time.Since(begin); took > 2500*time.Millisecond {
		t.Errorf("back after %v", took)
	}
	sign(t, key)
	time.Sleep(600 * time.Millisecond)
	if text := log.String(); strings.Count(text, "a token is out of service") != 1 || strings.Count(text, "a token is in service again") != 1 {
		t.Errorf("the log:\n%s", text)
	}
	if err := tokens.Close(); err != nil {
		t.Error(err)
	}
	wantGoroutines(t, before)
}

// A PIN that was turned down, and a deactivation, are told as what they are.
func TestHealthStates(t *testing.T) {
	token := hsmtest.NewFaulty(t)
	tokens := open(t, token.Config)
	t.Cleanup(func() { token.Break(t) })
	generate(t, tokens, token.URI("a"), hsm.P256)
	key := openKey(t, tokens, token.URI("a"))
	becomes(t, tokens, hsm.StateInService)
	if err := tokens.Deactivate(); err != nil {
		t.Fatal(err)
	}
	becomes(t, tokens, hsm.StateDeactivated)
	token.Break(t, fmt.Sprintf("C_Login 1 1 answer 0x%x", pkcs11.CKR_PIN_INCORRECT))
	if err := tokens.Activate(token.URI("a")); !errors.Is(err, hsm.ErrPINRefused) {
		t.Errorf("Activate: %v", err)
	}
	becomes(t, tokens, hsm.StatePINRefused)
	if err := tokens.Activate(token.URI("a")); err != nil {
		t.Fatal(err)
	}
	becomes(t, tokens, hsm.StateInService)
	sign(t, key)
}
