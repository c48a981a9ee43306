package hsm_test

import (
	"bytes"
	"crypto"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// A token that signs wrongly once is asked no more, by anybody, and says so; its wrong signature does not leave. Other tokens of the
// module go on.
func TestDistrust(t *testing.T) {
	token := hsmtest.NewFaulty(t)
	var log bytes.Buffer
	token.Config.Log = slog.New(slog.NewJSONHandler(&log, nil))
	tokens := open(t, token.Config)
	t.Cleanup(func() { token.Break(t) })
	token.Init(t, "second")
	first := token.Label
	token.Label = "second"
	spared := generate(t, tokens, token.URI("a"), hsm.P256)
	token.Label = first
	bystander := generate(t, tokens, token.URI("bystander"), hsm.P256)
	wrapping, err := tokens.GenerateWrappingKey(token.URI("wrap"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []hsm.KeyAlgorithm{hsm.P256, hsm.P384, hsm.P521, hsm.RSA3072, hsm.Ed25519} {
		log.Reset()
		key := generate(t, tokens, token.URI(string(a)), a)
		options, input := crypto.SignerOpts(crypto.SHA256), make([]byte, 32)
		if a == hsm.Ed25519 {
			options = crypto.Hash(0)
		}
		token.Break(t, "C_Sign 1 0 wrong")
		signature, err := key.Sign(nil, input, options)
		token.Break(t)
		if !errors.Is(err, hsm.ErrDistrusted) || signature != nil || !strings.Contains(err.Error(), `token "zegel test" (serial `) || !strings.Contains(err.Error(), "restart") {
			t.Fatalf("%s: a wrong signature: %x, %v", a, signature, err)
		}
		for name, call := range map[string]func() error{
			"the key":     func() error { _, err := key.Sign(nil, input, options); return err },
			"another key": func() error { return trySign(t, bystander) },
			"wrapping":    func() error { _, err := wrapping.Wrap([]byte("secret")); return err },
			"opening":     func() error { _, err := tokens.Key(token.URI("bystander")); return err },
			"making":      func() error { _, err := tokens.Generate(token.URI("new"), hsm.P256); return err },
		} {
			if err := call(); !errors.Is(err, hsm.ErrDistrusted) || !strings.Contains(err.Error(), "serial") {
				t.Errorf("%s: %s afterwards: %v", a, name, err)
			}
		}
		sign(t, spared)
		if n := strings.Count(log.String(), `"level":"ERROR"`); n != 1 {
			t.Errorf("%s: %d lines at level ERROR, want one:\n%s", a, n, log.String())
		}
		if err := tokens.Trust(token.URI("bystander")); err != nil {
			t.Fatal(err)
		}
		sign(t, bystander)
		if _, err := key.Sign(nil, input, options); err != nil {
			t.Errorf("%s: after Trust: %v", a, err)
		}
	}
}

// However many sign, none of them gets a wrong signature, and from the first one on nobody gets any for long.
func TestDistrustConcurrent(t *testing.T) {
	token, _, key := faultyKey(t, 8)
	token.Break(t, "C_Sign 20 0 wrong")
	var good, refused atomic.Int64
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for range 20 {
				switch err := trySign(t, key); {
				case err == nil:
					good.Add(1)
				case errors.Is(err, hsm.ErrDistrusted):
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if good.Load() > 19 || refused.Load() != 32*20-good.Load() {
		t.Errorf("%d signatures, %d refusals; the token signed 19 times well", good.Load(), refused.Load())
	}
}
