package hsm_test

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// bySource names an object of token with another pin-source.
func bySource(t testing.TB, token *hsmtest.Token, object, source string) string {
	t.Helper()
	u, err := hsm.ParseURI(token.URI(object))
	if err != nil {
		t.Fatal(err)
	}
	u.PINSource = source
	return u.String()
}

// A PIN that people enter is wanted, taken, tried once, and kept; deactivation takes everything away, and what is entered again
// gives it back to the keys that were open.
func TestEnterAndDeactivate(t *testing.T) {
	for name, token := range map[string]*hsmtest.Token{"soft token": hsmtest.SoftToken(t), "SoftHSM": hsmtest.SoftHSM(t)} {
		t.Run(name, func(t *testing.T) {
			tokens := hsm.New(token.Config)
			defer closeTokens(t, tokens)
			a, w := bySource(t, token, "a", "prompt"), bySource(t, token, "w", "prompt")
			list, err := tokens.Access(a, w)
			if err != nil || len(list) != 1 || !list[0].Wanted() || strings.Contains(list[0].Token, "object") {
				t.Fatalf("%+v, %v; want one token that wants its PIN", list, err)
			}
			if _, err := tokens.Generate(a, hsm.P256); !errors.Is(err, hsm.ErrPINWanted) {
				t.Errorf("generate without PIN: %v", err)
			}
			if err := tokens.Activate(a, w); !errors.Is(err, hsm.ErrPINWanted) {
				t.Errorf("activate without PIN: %v", err)
			}
			enter := func(pin string) {
				t.Helper()
				if err := tokens.Enter(list[0].Token+promptOf(list[0].Token), []byte(pin)); err != nil {
					t.Fatal(err)
				}
			}
			enter("not a secret")
			key, err := tokens.Generate(a, hsm.P256)
			if err != nil {
				t.Fatal(err)
			}
			wrapping, err := tokens.GenerateWrappingKey(w)
			if err != nil {
				t.Fatal(err)
			}
			wrapped, err := wrapping.Wrap([]byte("journal key"))
			if err != nil {
				t.Fatal(err)
			}

			if err := tokens.Deactivate(); err != nil {
				t.Fatal(err)
			}
			if !tokens.Deactivated() {
				t.Error("not deactivated")
			}
			for what, do := range map[string]func() error{
				"sign":   func() error { return trySign(t, key) },
				"unwrap": func() error { _, err := wrapping.Unwrap(wrapped); return err },
				"open":   func() error { _, err := tokens.Key(a); return err },
				"again":  tokens.Deactivate,
			} {
				if err := do(); !errors.Is(err, hsm.ErrDeactivated) && !(what == "again" && err == nil) {
					t.Errorf("%s when deactivated: %v", what, err)
				}
			}
			if list, err := tokens.Access(a); err != nil || !list[0].Wanted() {
				t.Errorf("after deactivation: %+v, %v", list, err)
			}

			enter("wrong")
			if err := tokens.Activate(a, w); !errors.Is(err, hsm.ErrPINRefused) {
				t.Errorf("activate with a wrong PIN: %v", err)
			}
			if list, err := tokens.Access(a); err != nil || !list[0].Wanted() {
				t.Errorf("a PIN that was refused is held: %+v, %v", list, err)
			}
			enter("not a secret")
			if err := tokens.Activate(a, w); err != nil {
				t.Fatal(err)
			}
			sign(t, key)
			if secret, err := wrapping.Unwrap(wrapped); err != nil || string(secret) != "journal key" {
				t.Errorf("unwrap: %q, %v", secret, err)
			}
		})
	}
}

// promptOf is what a token's name lacks to be a URI with pin-source=prompt.
func promptOf(name string) string {
	if strings.Contains(name, "?") {
		return "&pin-source=prompt"
	}
	return "?pin-source=prompt"
}

func closeTokens(t *testing.T, tokens *hsm.Tokens) {
	t.Helper()
	if err := tokens.Close(); err != nil {
		t.Error(err)
	}
}

// While sessions are in use, deactivation waits for the calls inside and lets none in.
func TestDeactivateInTraffic(t *testing.T) {
	token, tokens, key := faultyKey(t, 4)
	stop := make(chan struct{})
	done := make(chan error, 8)
	for range 8 {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if err := trySign(t, key); err != nil && !errors.Is(err, hsm.ErrDeactivated) {
					done <- err
					return
				}
			}
		}()
	}
	for range 20 {
		if err := tokens.Deactivate(); err != nil {
			t.Error(err)
		}
		if err := trySign(t, key); !errors.Is(err, hsm.ErrDeactivated) {
			t.Errorf("sign: %v", err)
		}
		if err := tokens.Activate(token.URI("a")); err != nil {
			t.Error(err)
		}
		sign(t, key)
	}
	close(stop)
	for range 8 {
		if err := <-done; err != nil {
			t.Errorf("sign: %v", err)
		}
	}
	if logouts := len(token.Answers(t, "C_Logout")); logouts < 20 {
		t.Errorf("%d logouts for 20 deactivations", logouts)
	}
}

// A key group is closed and opened with its tokens, and goes on with one whose fellow refuses its PIN.
func TestDeactivateGroup(t *testing.T) {
	first, second, uri := twoTokens(t)
	tokens := open(t, first.Config)
	key := openKey(t, tokens, uri)
	if list, err := tokens.Access(uri); err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v; want both tokens", list, err)
	}
	if err := tokens.Deactivate(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := trySign(t, key); !errors.Is(err, hsm.ErrDeactivated) {
			t.Errorf("sign: %v", err)
		}
	}
	if err := tokens.Activate(uri); err != nil {
		t.Fatal(err)
	}
	for _, token := range []*hsmtest.Faulty{first, second} {
		token.Forget(t)
	}
	for range 4 {
		sign(t, key)
	}
	if logins := len(first.Answers(t, "C_Login")) + len(second.Answers(t, "C_Login")); logins != 0 {
		t.Errorf("%d logins after the activation", logins)
	}
}

// TestPINNotInMemory has a process of its own log in, collect its garbage, and look for the PIN in all of its memory: it is in
// the locked page only, and nowhere once the tokens are deactivated.
func TestPINNotInMemory(t *testing.T) {
	if uri := os.Getenv("ZEGEL_TEST_SCAN"); uri != "" {
		scanOwnMemory(t, uri)
		return
	}
	token := hsmtest.SoftHSM(t)
	tokens := hsm.New(token.Config)
	if _, err := tokens.Generate(token.URI("a"), hsm.P256); err != nil {
		t.Fatal(err)
	}
	if err := hsm.ChangePIN(tokens, token.URI("a"), "not a secret", memoryPIN()); err != nil {
		t.Fatal(err)
	}
	closeTokens(t, tokens)
	if err := os.WriteFile(token.PIN, []byte(memoryPIN()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPINNotInMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "ZEGEL_TEST_SCAN="+token.URI("a"))
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// hiddenPIN is the PIN of that test with every bit turned over, so that neither the program's text nor the search holds it.
var hiddenPIN = []byte{^byte('2'), ^byte('7'), ^byte('1'), ^byte('8'), ^byte('-'), ^byte('s'), ^byte('e'), ^byte('e'), ^byte('k'), ^byte('-'), ^byte('m'), ^byte('e')}

func memoryPIN() string {
	pin := make([]byte, len(hiddenPIN))
	for i, b := range hiddenPIN {
		pin[i] = ^b
	}
	return string(pin)
}

func scanOwnMemory(t *testing.T, uri string) {
	tokens := hsm.New(hsm.Config{})
	defer closeTokens(t, tokens)
	key, err := tokens.Key(uri)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	if found := hsm.FindInMemory(t, hiddenPIN); len(found) != 1 || !strings.Contains(found[0], "locked") {
		t.Errorf("after the login the PIN is in %q; want one page of locked memory", found)
	}
	if err := tokens.Deactivate(); err != nil {
		t.Fatal(err)
	}
	if found := hsm.FindInMemory(t, hiddenPIN); len(found) != 0 {
		t.Errorf("after deactivation the PIN is in %q", found)
	}
}
