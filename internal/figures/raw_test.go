package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// newRaw returns what makes callers of the raw signature: for a token C_SignInit and C_Sign with the key named algorithm, each
// caller on a session of its own; for a software token Go's own signature with a key of the same kind.
func newRaw(tb testing.TB, token *hsmtest.Token, algorithm hsm.KeyAlgorithm) func() signing {
	tb.Helper()
	if token.Module == "" {
		return newRawSoftware(tb, algorithm)
	}
	ctx := pkcs11.New(token.Module) // package hsm has initialised it and logged in, which holds for the process
	already(tb, ctx.Initialize(), pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
	slots, err := ctx.GetSlotList(true)
	must(tb, err)
	pin, err := os.ReadFile(token.PIN)
	must(tb, err)
	mechanism, message := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, make([]byte, 32)
	if algorithm != hsm.P256 {
		mechanism, message = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}, make([]byte, 51) // a DigestInfo
	}
	return func() signing {
		session, err := ctx.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION)
		must(tb, err)
		already(tb, ctx.Login(session, pkcs11.CKU_USER, strings.TrimSpace(string(pin))), pkcs11.CKR_USER_ALREADY_LOGGED_IN)
		must(tb, ctx.FindObjectsInit(session, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, string(algorithm)),
		}))
		found, _, err := ctx.FindObjects(session, 1)
		must(tb, err)
		must(tb, ctx.FindObjectsFinal(session))
		return func() error {
			if err := ctx.SignInit(session, mechanism, found[0]); err != nil {
				return err
			}
			_, err := ctx.Sign(session, message)
			return err
		}
	}
}

func newRawSoftware(tb testing.TB, algorithm hsm.KeyAlgorithm) func() signing {
	tb.Helper()
	var key crypto.Signer
	var err error
	if algorithm == hsm.P256 {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	}
	must(tb, err)
	digest := make([]byte, 32)
	return func() signing {
		return func() error { _, err := key.Sign(rand.Reader, digest, crypto.SHA256); return err }
	}
}

// already lets one code pass.
func already(tb testing.TB, err error, code uint) {
	tb.Helper()
	if err != nil && !errors.Is(err, pkcs11.Error(code)) {
		tb.Fatal(err)
	}
}
