package hsm

import (
	"crypto"
	"strings"
	"testing"
	"time"
)

// liar returns signatures that are none.
type liar struct{}

func (liar) sign(signing) ([]byte, error) { return []byte("no signature"), nil }
func (liar) describe(*KeyInfo) error      { return nil }

// A token that signs wrongly gets no figures: being fast would be no use.
func TestBenchWrongSignature(t *testing.T) {
	for _, a := range KeyAlgorithms() {
		signer, err := newSoftSigner(a)
		if err != nil {
			t.Fatal(err)
		}
		key := &Key{name: "softtoken:", public: signer.Public(), private: liar{}, gate: &gate{}}
		b := &bench{key: key, sessions: 1, options: benchHash(key.public)}
		if r, err := b.run(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "does not verify") {
			t.Errorf("%s: %+v, %v, want an error", a, r, err)
		}
	}
}

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
