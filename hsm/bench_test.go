package hsm_test

import (
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// BenchmarkOpenSoftKey is dominated by scrypt: the price of a guess at the PIN.
func BenchmarkOpenSoftKey(b *testing.B) {
	token := hsmtest.SoftToken(b)
	tokens := hsm.New(hsm.Config{})
	defer tokens.Close()
	generate(b, tokens, token.URI("bench"), hsm.P256)
	for b.Loop() {
		if _, err := tokens.Key(token.URI("bench")); err != nil {
			b.Fatal(err)
		}
	}
}
