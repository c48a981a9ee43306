package hsm_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// tokenURI names the token itself.
func tokenURI(k *hsmtest.Token) string {
	u := hsm.URI{PINSource: "file:" + k.PIN, Software: k.Module == "", Dir: k.Dir}
	if k.Module != "" {
		u.Token, u.ModulePath, u.Dir = k.Label, k.Module, ""
	}
	return u.String()
}

func opened(t *testing.T, k *hsmtest.Token) *hsm.Tokens {
	t.Helper()
	tokens := hsm.New(k.Config)
	t.Cleanup(func() {
		if err := tokens.Close(); err != nil {
			t.Error(err)
		}
	})
	return tokens
}

func TestList(t *testing.T) {
	k := hsmtest.SoftHSM(t)
	k.Init(t, "second")
	tokens := opened(t, k)
	all, err := tokens.List(hsm.URI{ModulePath: k.Module}.String())
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]hsm.TokenState{}
	for _, s := range all {
		states[s.Label] = s
	}
	if len(all) != 3 || len(states) != 3 { // SoftHSM always shows a free slot
		t.Errorf("%d tokens, want two and a free one: %+v", len(all), all)
	}
	if free := states[""]; free.Initialised || free.PIN != hsm.PINNotSet {
		t.Errorf("the free token: %+v", free)
	}
	one, err := tokens.List(tokenURI(k))
	if err != nil || len(one) != 1 {
		t.Fatalf("%+v, %v", one, err)
	}
	s := one[0]
	if s.Label != k.Label || !s.Initialised || !s.LoginRequired || s.PIN != hsm.PINReady || s.Manufacturer != "SoftHSM project" || s.SerialNumber == "" || s.Module != k.Module {
		t.Errorf("%+v", s)
	}
	if !s.Backup {
		t.Errorf("SoftHSM has no mechanisms for backups: %+v", s)
	}
	if !slices.ContainsFunc(s.Mechanisms, func(m hsm.Mechanism) bool { return m.Name == "CKM_ECDSA" && m.Present }) {
		t.Errorf("no CKM_ECDSA: %+v", s.Mechanisms)
	}
	for uri, want := range map[string]error{"pkcs11:token=third?module-path=" + k.Module: hsm.ErrNotFound, "pkcs11:token=third": nil, "pkcs12:": nil, "pkcs11:?module-path=/nowhere": nil} {
		if got, err := tokens.List(uri); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("List(%q) = %+v, %v", uri, got, err)
		}
	}
	if soft, err := tokens.List("softtoken:"); err != nil || len(soft) != 1 || !soft[0].Software {
		t.Errorf("%+v, %v", soft, err)
	}
}

// A free slot that was listed can be initialised and is then found by its new name.
func TestListThenInit(t *testing.T) {
	k := hsmtest.SoftHSM(t)
	tokens := opened(t, k)
	if _, err := tokens.List(hsm.URI{ModulePath: k.Module}.String()); err != nil {
		t.Fatal(err)
	}
	if n := hsm.KnownTokens(tokens, k.Module); n != 1 {
		t.Errorf("%d tokens are kept in mind, want the initialised one: the other may have another name by now", n)
	}
	k.Label = "later"
	k.Init(t, k.Label)
	if _, err := tokens.Token(tokenURI(k)); err != nil {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	for name, k := range map[string]*hsmtest.Token{"soft": hsmtest.SoftToken(t), "softhsm": hsmtest.SoftHSM(t)} {
		t.Run(name, func(t *testing.T) {
			tokens := opened(t, k)
			generate(t, tokens, k.URI("issuing"), hsm.P384)
			generate(t, tokens, k.URI("tsu"), hsm.RSA3072)
			if _, err := tokens.GenerateWrappingKey(k.URI("wrap")); err != nil {
				t.Fatal(err)
			}
			records := keysOf(t, tokens, tokenURI(k))
			if len(records) != 3 {
				t.Fatalf("%d keys, want 3: %+v", len(records), records)
			}
			for label, algorithm := range map[string]string{"issuing": "p384", "tsu": "rsa3072", "wrap": "aes256"} {
				r := records[label]
				if r.Algorithm != algorithm || r.Fault != "" || r.Extractable || r.Software != (name == "soft") || !r.GeneratedOnToken {
					t.Errorf("%s: %+v", label, r)
				}
				if name == "softhsm" && (!r.Sensitive || !r.AlwaysSensitive || !r.NeverExtractable || r.SerialNumber == "" || r.ID == "") {
					t.Errorf("%s: %+v", label, r)
				}
			}
			key, err := tokens.Key(k.URI("issuing"))
			if err != nil {
				t.Fatal(err)
			}
			spki, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if digest := sha256.Sum256(spki); records["issuing"].PublicKeySHA256 != hex.EncodeToString(digest[:]) {
				t.Errorf("%+v: want the SHA-256 %x", records["issuing"], digest)
			}
			if !slices.Equal(records["issuing"].Usages, []string{"sign"}) {
				t.Errorf("uses %v", records["issuing"].Usages)
			}
			if one := keysOf(t, tokens, k.URI("tsu")); len(one) != 1 || one["tsu"].Bits != 3072 {
				t.Errorf("%+v", one)
			}
			if got, err := tokens.Keys(k.URI("nobody")); !errors.Is(err, hsm.ErrNotFound) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func keysOf(t *testing.T, tokens *hsm.Tokens, uri string) map[string]hsm.KeyRecord {
	t.Helper()
	list, err := tokens.Keys(uri)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]hsm.KeyRecord{}
	for _, r := range list {
		records[r.Label] = r
	}
	return records
}

// What Key and WrappingKey would refuse is listed, and why.
func TestKeysFaults(t *testing.T) {
	k := hsmtest.SoftHSM(t)
	tokens := opened(t, k)
	generate(t, tokens, k.URI("half"), hsm.P256)
	generate(t, tokens, k.URI("twin"), hsm.P256)
	for _, err := range []error{
		hsm.DestroyHalf(tokens, k.URI("half"), true), hsm.Twin(tokens, k.URI("twin"), hsm.P256),
		hsm.GenerateLoosePair(tokens, k.URI("loose"), true, true), hsm.GenerateExtractable(tokens, k.URI("aes")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	list, err := tokens.Keys(tokenURI(k))
	if err != nil || len(list) != 5 {
		t.Fatalf("%d keys, want 5: %v", len(list), err)
	}
	for _, r := range list {
		switch r.Label {
		case "half":
			if !strings.Contains(r.Fault, "without its public key") || r.PublicKeySHA256 != "" {
				t.Errorf("%+v", r)
			}
		case "twin": // each by its id, and so it opens
			u, err := hsm.ParseURI(r.URI)
			if err != nil {
				t.Fatal(err)
			}
			u.ModulePath, u.PINSource = k.Module, "file:"+k.PIN
			if _, err := tokens.Key(u.String()); err != nil || r.Fault != "" {
				t.Errorf("%+v: %v", r, err)
			}
		default:
			if !r.Extractable || r.NeverExtractable || !strings.Contains(r.Fault, "GEN-6.5.2-04") {
				t.Errorf("%+v", r)
			}
		}
	}
}

// A PIN that was refused is not tried again.
func TestKeysWrongPIN(t *testing.T) {
	k := hsmtest.SoftHSM(t)
	k.Suite(t) // which writes the wrong PIN
	tokens := opened(t, k)
	for i, want := range []string{"correct the PIN", "not tried again since"} {
		if _, err := tokens.Keys(k.WrongPIN("x")); !errors.Is(err, hsm.ErrPINRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("try %d: %v, want %q", i+1, err, want)
		}
	}
	soft := hsmtest.SoftToken(t)
	soft.Suite(t)
	generate(t, tokens, soft.URI("x"), hsm.P256)
	if _, err := tokens.Keys(soft.WrongPIN("x")); !errors.Is(err, hsm.ErrPINRefused) {
		t.Error(err)
	}
	if _, err := tokens.Keys(hsm.URI{Software: true, Dir: filepath.Join(soft.Dir, "none"), PINSource: "file:" + soft.PIN}.String()); err == nil {
		t.Error("a folder that is missing has keys")
	}
}

func TestBench(t *testing.T) {
	const short = 60 * time.Millisecond
	for name, k := range map[string]*hsmtest.Token{"soft": hsmtest.SoftToken(t), "softhsm": hsmtest.SoftHSM(t)} {
		t.Run(name, func(t *testing.T) {
			k.Config.Sessions = 3
			tokens := opened(t, k)
			generate(t, tokens, k.URI("spare"), hsm.P256)
			generate(t, tokens, k.URI("checkpoint"), hsm.Ed25519)
			for what, c := range map[string]hsm.BenchConfig{
				"a key":          {URI: k.URI("spare"), Duration: short, Check: func(crypto.PublicKey) error { return nil }},
				"an Ed25519 key": {URI: k.URI("checkpoint"), Duration: short},
				"a throw-away":   {URI: tokenURI(k), Algorithm: hsm.P521, Duration: short, Check: func(crypto.PublicKey) error { return errors.New("asked") }},
			} {
				if name == "soft" && c.Algorithm != "" {
					c.URI = ""
				}
				r, err := tokens.Bench(t.Context(), c)
				if err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				if r.Isolation != "none" || r.Sessions != 3 || r.RawPerSecond < 1 || r.SignerPerSecond < 1 || r.VerifyUS <= 0 || r.Ratio != r.SignerPerSecond/r.RawPerSecond {
					t.Errorf("%s: %+v", what, r)
				}
				if c.Algorithm != "" && r.Key != string(c.Algorithm) || strings.Contains(r.URI, "pin") {
					t.Errorf("%s: %+v", what, r)
				}
			}
			if got := keysOf(t, tokens, tokenURI(k)); len(got) != 2 {
				t.Errorf("the token has %d keys, want the two that were there: %+v", len(got), got)
			}
			theirs := errors.New("a CA's")
			if _, err := tokens.Bench(t.Context(), hsm.BenchConfig{URI: k.URI("spare"), Check: func(crypto.PublicKey) error { return theirs }}); !errors.Is(err, theirs) {
				t.Errorf("%v, want that of Check", err)
			}
			ended, end := context.WithCancel(t.Context())
			end()
			if _, err := tokens.Bench(ended, hsm.BenchConfig{URI: k.URI("spare")}); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want that of the context", err)
			}
			if _, err := tokens.Bench(t.Context(), hsm.BenchConfig{URI: k.URI("nobody")}); !errors.Is(err, hsm.ErrNotFound) {
				t.Error(err)
			}
		})
	}
}
