package hsm

import (
	"crypto"
	"testing"
)

// The hash is that of the daemons' signatures with the key.
func TestBenchHash(t *testing.T) {
	for a, want := range map[KeyAlgorithm]crypto.Hash{P256: crypto.SHA256, P384: crypto.SHA384, P521: crypto.SHA512, RSA3072: crypto.SHA256, Ed25519: 0} {
		signer, err := newSoftSigner(a)
		if err != nil {
			t.Fatal(err)
		}
		if got := benchHash(signer.Public()); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
}
