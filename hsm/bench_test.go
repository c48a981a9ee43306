package hsm_test

import (
	"crypto"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// What the pool and the checks of Key.Sign cost over the bare C_SignInit and C_Sign, and what several sessions gain.
func BenchmarkSign(b *testing.B) {
	for _, algorithm := range []hsm.KeyAlgorithm{hsm.P256, hsm.RSA3072} {
		soft := hsmtest.SoftToken(b)
		b.Run("softtoken/"+string(algorithm), func(b *testing.B) { benchmarkKey(b, soft, algorithm) })
		b.Run("softhsm/"+string(algorithm), func(b *testing.B) {
			token := hsmtest.SoftHSM(b)
			benchmarkKey(b, token, algorithm)
			b.Run("raw=1", func(b *testing.B) { benchmarkRaw(b, token, algorithm) })
		})
	}
}

func benchmarkKey(b *testing.B, token *hsmtest.Token, algorithm hsm.KeyAlgorithm) {
	tokens := hsm.New(token.Config)
	defer tokens.Close()
	key := generate(b, tokens, token.URI("bench"), algorithm)
	digest := make([]byte, 32)
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error)
			for range callers {
				go func() {
					var err error
					for err == nil && left.Add(-1) >= 0 {
						_, err = key.Sign(nil, digest, crypto.SHA256)
					}
					done <- err
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
		})
	}
}

// benchmarkRaw signs with the same key on one session, without package hsm.
func benchmarkRaw(b *testing.B, token *hsmtest.Token, algorithm hsm.KeyAlgorithm) {
	ctx := pkcs11.New(token.Module)
	must(b, ctx.Initialize())
	defer ctx.Finalize()
	slots, err := ctx.GetSlotList(true)
	must(b, err)
	session, err := ctx.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION)
	must(b, err)
	must(b, ctx.Login(session, pkcs11.CKU_USER, "not a secret"))
	must(b, ctx.FindObjectsInit(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "bench"),
	}))
	keys, _, err := ctx.FindObjects(session, 1)
	must(b, err)
	must(b, ctx.FindObjectsFinal(session))
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
	message := make([]byte, 32)
	if algorithm != hsm.P256 {
		mechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}
		message = make([]byte, 51)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		must(b, ctx.SignInit(session, mechanism, keys[0]))
		_, err := ctx.Sign(session, message)
		must(b, err)
	}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

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
