package hsm_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
)

// A PIN that somebody enters is the one that is tried next, though the source has another: no try is spent on what the source says.
func TestEnteredPINBeforeItsSource(t *testing.T) {
	token, tokens, key := faultyKey(t, 4)
	if err := hsm.ChangePIN(tokens, token.URI("a"), "not a secret", "another"); err != nil {
		t.Fatal(err)
	}
	token.Break(t, "C_SignInit 1 1 lose")
	if err := trySign(t, key); !errors.Is(err, hsm.ErrPINRefused) {
		t.Fatalf("sign: %v", err)
	}
	token.Forget(t)
	if err := tokens.Enter(token.URI("a"), []byte("another")); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Activate(token.URI("a")); err != nil {
		t.Error(err)
	}
	if answers := token.Answers(t, "C_Login"); !slices.Equal(answers, []string{"0x0"}) {
		t.Errorf("answers of C_Login: %v; want one CKR_OK", answers)
	}
	sign(t, key)
}
