package hsm_test

import (
	"crypto"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// A key that wants the PIN for each signature gets it, also once it was found again after a repair.
func TestAlwaysAuthenticate(t *testing.T) {
	k := hsmtest.SoftHSM(t)
	tokens := opened(t, k)
	for _, algorithm := range []hsm.KeyAlgorithm{hsm.P384, hsm.RSA3072} {
		name := "always-" + string(algorithm)
		if err := hsm.GenerateAlwaysAuthenticate(tokens, k.URI(name), algorithm); err != nil {
			t.Fatal(err)
		}
		if r := keysOf(t, tokens, k.URI(name))[name]; !r.AlwaysLogin || r.Fault != "" {
			t.Errorf("%+v", r)
		}
		if err := hsm.SignWithoutPIN(tokens, k.URI(name)); err == nil {
			t.Fatal("the token signs without the PIN: this test shows nothing")
		}
		key, err := tokens.Key(k.URI(name))
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 5 {
					if err := trySign(t, key); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if err := hsm.LogOut(tokens, k.URI(name)); err != nil {
			t.Fatal(err)
		}
		sign(t, key)
	}
	r, err := tokens.Bench(t.Context(), hsm.BenchConfig{URI: k.URI("always-p384"), Duration: 100 * time.Millisecond})
	if err != nil || r.SignerPerSecond < 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A PIN that is refused for a signature is tried once, whoever is waiting, until an officer says so.
func TestAlwaysAuthenticateRefused(t *testing.T) {
	k := hsmtest.SoftHSM(t)
	tokens := opened(t, k)
	uri := k.URI("always")
	if err := hsm.GenerateAlwaysAuthenticate(tokens, uri, hsm.P256); err != nil {
		t.Fatal(err)
	}
	key, err := tokens.Key(uri)
	if err != nil {
		t.Fatal(err)
	}
	sign(t, key)
	if err := tokens.Enter(uri, []byte("another PIN")); err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, 32)
	rand.Read(digest)
	var mu sync.Mutex
	var all sync.WaitGroup
	once, again := 0, 0
	for range 8 {
		all.Go(func() {
			_, err := key.Sign(nil, digest, crypto.SHA256)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !errors.Is(err, hsm.ErrPINRefused):
				t.Errorf("%v", err)
			case strings.Contains(err.Error(), "not tried again since"):
				again++
			default:
				once++
			}
		})
	}
	all.Wait()
	if once != 1 || again != 7 {
		t.Errorf("the wrong PIN was tried %d times, and %d calls were spared; want 1 and 7", once, again)
	}
	if _, err := tokens.Key(uri); !errors.Is(err, hsm.ErrPINRefused) {
		t.Errorf("the login goes on: %v", err)
	}
	if err := tokens.Activate(uri); err != nil { // reads the file again
		t.Fatal(err)
	}
	sign(t, key)
}
