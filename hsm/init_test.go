package hsm_test

import (
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// A label that is taken or too long, a module that is not there: refused, and the token that exists stays usable.
func TestInitTokenRefuses(t *testing.T) {
	token := hsmtest.SoftHSM(t) // InitToken made it
	for _, c := range []struct {
		name, says string
		init       hsm.TokenInit
	}{
		{"label taken", "has a token of that label", hsm.TokenInit{Module: token.Module, Label: token.Label, SOPIN: []byte("12345678"), PIN: []byte("1234")}},
		{"label too long", "1 to 32 octets", hsm.TokenInit{Module: token.Module, Label: strings.Repeat("x", 33), SOPIN: []byte("12345678"), PIN: []byte("1234")}},
		{"no label", "1 to 32 octets", hsm.TokenInit{Module: token.Module, SOPIN: []byte("12345678"), PIN: []byte("1234")}},
		{"no module", "no such file", hsm.TokenInit{Module: "/nowhere/libpkcs11.so", Label: "new", SOPIN: []byte("12345678"), PIN: []byte("1234")}},
		{"PIN too short", "C_InitPIN", hsm.TokenInit{Module: token.Module, Label: "short", SOPIN: []byte("12345678"), PIN: []byte("1")}},
	} {
		if err := hsm.InitToken(token.Config, c.init); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
	}
}
