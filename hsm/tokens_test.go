package hsm_test

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

func open(t testing.TB, config hsm.Config) *hsm.Tokens {
	t.Helper()
	tokens := hsm.New(config)
	t.Cleanup(func() {
		if err := tokens.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return tokens
}

func generate(t testing.TB, tokens *hsm.Tokens, uri string, algorithm hsm.KeyAlgorithm) *hsm.Key {
	t.Helper()
	key, err := tokens.Generate(uri, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Each mistake in a URI or a token gets an error that names it and says what to do.
func TestKeyErrors(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	token.Init(t, "second")
	tokens := open(t, token.Config)
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	openPIN := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(openPIN, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(openPIN, 0o644); err != nil {
		t.Fatal(err)
	}
	module := "?module-path=" + token.Module
	for _, test := range []struct{ uri, want string }{
		{"pkcs11:token=a;object=b", "add ?module-path="},
		{"pkcs11:token=a;object=b?module-path=/no/such.so", "/no/such.so: no such file: correct module-path"},
		{"pkcs11:token=a;object=b?module-path=" + token.Dir, "not a file"},
		{"pkcs11:token=a;object=b?module-path=" + text, "not a PKCS#11 library for this machine"},
		{"pkcs11:token=nobody;object=b" + module, `none matches; present: "`},
		{"pkcs11:token=nobody;object=b" + module, `"second" (serial `},
		{"pkcs11:serial=00;object=b" + module, "correct the URI, or connect the token"},
		{"pkcs11:manufacturer=nobody;object=b" + module, "none matches"},
		{"pkcs11:model=none;object=b" + module, "none matches"},
		{"pkcs11:slot-id=0;object=b" + module, "none matches"},
		{"pkcs11:object=b" + module, "2 tokens match: add serial="},
		{"pkcs11:token=second;library-version=1;object=b" + module, "not what the URI's library attributes ask for"},
		{"pkcs11:token=second;library-manufacturer=nobody;object=b" + module, "not what the URI's library attributes ask for"},
		{"pkcs11:token=second;object=b" + module, `log in to token "second": the token wants a PIN and the URI has no pin-source`},
		{"pkcs11:token=second;object=b" + module + "&pin-source=/no/such/pin", "no such file or directory: put the PIN there, or correct pin-source"},
		{"pkcs11:token=second;object=b" + module + "&pin-source=" + openPIN, "chmod 600 " + openPIN},
		{"pkcs11:token=second" + module + "&pin-source=" + token.PIN, "add object=LABEL or id="},
		{"pkcs11:token=second;object=b;type=secret-key" + module + "&pin-source=" + token.PIN, "a key pair is wanted"},
		{"pkcs11:token=second;object=b" + module + "&pin-source=" + token.PIN, `on token "second": no private key and no public key`},
		{"softtoken:object=a", "dir=/absolute/path"},
		{"softtoken:?dir=/a", "object=NAME"},
		{"nonsense", "begins with pkcs11:"},
	} {
		if _, err := tokens.Key(test.uri); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Key(%q): %v; want an error with %q", test.uri, err, test.want)
		}
	}
	secret := "pkcs11:token=second;object=b;type=private" + module + "&pin-source=" + token.PIN
	if _, err := tokens.WrappingKey(secret); err == nil || !strings.Contains(err.Error(), "a secret key is wanted") {
		t.Errorf("WrappingKey of type=private: %v", err)
	}
	unnamed := "pkcs11:token=second;id=%01" + module + "&pin-source=" + token.PIN
	if _, err := tokens.Generate(unnamed, hsm.P256); err == nil || !strings.Contains(err.Error(), "a new key needs a label") {
		t.Errorf("Generate without object: %v", err)
	}
}

// A key can be named by any of the attributes that lead to it.
func TestKeyByOtherNames(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	tokens := open(t, token.Config)
	query := "?module-path=" + token.Module + "&pin-source=" + token.PIN
	made := generate(t, tokens, "pkcs11:token=zegel%20test;object=a;id=%01%02"+query, hsm.P256)
	info, err := made.Info()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"serial=" + info.SerialNumber + ";object=a", "id=%01%02", "object=a;id=%01%02;type=private", "type=public;id=%01%02",
		"manufacturer=SoftHSM%20project;model=SoftHSM%20v2;object=a", "library-version=2;library-manufacturer=SoftHSM;object=a",
	} {
		key, err := tokens.Key("pkcs11:" + path + query)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if fmt.Sprint(key.Public()) != fmt.Sprint(made.Public()) {
			t.Errorf("%s: another key", path)
		}
	}
	for _, path := range []string{"object=b;id=%01%02", "object=a;id=%01", "id=%01%02%03"} {
		if _, err := tokens.Key("pkcs11:" + path + query); !errors.Is(err, hsm.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", path, err)
		}
	}
	for _, path := range []string{"object=a;id=%05", "object=b;id=%01%02"} {
		if _, err := tokens.Generate("pkcs11:"+path+query, hsm.P256); !errors.Is(err, hsm.ErrExists) {
			t.Errorf("Generate %s: %v, want ErrExists", path, err)
		}
	}
}

func TestHalfPairs(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	tokens := open(t, token.Config)
	for object, half := range map[string]struct {
		spoil func() error
		want  string
	}{
		"no public":  {func() error { return hsm.DestroyHalf(tokens, token.URI("no public"), true) }, "a private key without its public key"},
		"no private": {func() error { return hsm.DestroyHalf(tokens, token.URI("no private"), false) }, "a public key without its private key"},
		"other id":   {func() error { return hsm.SetID(tokens, token.URI("other id"), []byte{7}) }, "the public key 07: they are no pair"},
	} {
		generate(t, tokens, token.URI(object), hsm.P256)
		if err := half.spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := tokens.Key(token.URI(object)); err == nil || !strings.Contains(err.Error(), half.want) {
			t.Errorf("%s: %v; want an error with %q", object, err, half.want)
		}
	}
}

// A wrapping key that could leave its token is not used, and a new key would not be handed out.
func TestExtractableRefused(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	tokens := open(t, token.Config)
	uri := token.URI("loose")
	if err := hsm.GenerateExtractable(tokens, uri); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.WrappingKey(uri); err == nil || !strings.Contains(err.Error(), "CKA_EXTRACTABLE") {
		t.Errorf("WrappingKey: %v; want a refusal", err)
	}
	if err := hsm.CheckProtected(tokens, uri); err == nil || !strings.Contains(err.Error(), "not protected as asked") {
		t.Errorf("check after generation: %v; want a refusal", err)
	}
}

// A key pair whose private half could leave its token is not used, whoever made it.
func TestLoosePairRefused(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	tokens := open(t, token.Config)
	for name, c := range map[string]struct{ sensitive, extractable, good bool }{
		"stays": {true, false, true}, "shown": {false, false, false}, "wrapped": {true, true, false}, "both": {false, true, false},
	} {
		if err := hsm.GenerateLoosePair(tokens, token.URI(name), c.sensitive, c.extractable); err != nil {
			t.Fatal(err)
		}
		_, err := tokens.Key(token.URI(name))
		if c.good && err != nil || !c.good && (err == nil || !strings.Contains(err.Error(), "GEN-6.5.2-04")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A login that is lost is made again by the call that finds out.
func TestLostLogin(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	tokens := open(t, token.Config)
	uri := token.URI("a")
	key := generate(t, tokens, uri, hsm.P256)
	for range 3 {
		sign(t, key)
		if err := hsm.LogOut(tokens, uri); err != nil {
			t.Fatal(err)
		}
	}
	sign(t, key)
}

func TestModuleEnv(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	const name = "ZEGEL_TEST_MODULE_ENV"
	t.Setenv(name, "one") // restored after the test
	config := hsm.Config{ModuleEnv: map[string]string{name: "two"}}
	if _, err := open(t, config).Key(token.URI("a")); err == nil || !strings.Contains(err.Error(), name+` is "one" already, module_env says "two"`) {
		t.Errorf("conflict: %v", err)
	}
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
	tokens := open(t, config)
	config.ModuleEnv[name] = "three" // New has copied it
	if _, err := tokens.Key(token.URI("a")); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("unset: %v", err)
	}
	if os.Getenv(name) != "two" {
		t.Errorf("%s = %q", name, os.Getenv(name))
	}
}

// Sessions that died are replaced without a failed call.
func TestLostSessions(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	token.Config.Sessions = 4
	tokens := open(t, token.Config)
	uri := token.URI("a")
	key := generate(t, tokens, uri, hsm.P256)
	sign := func() error {
		_, err := key.Sign(nil, make([]byte, 32), crypto.SHA256)
		return err
	}
	for range 3 {
		if err := sign(); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := hsm.OpenSessions(tokens, uri); n != 1 || err != nil {
		t.Errorf("%d sessions after signatures one by one, %v; want 1", n, err)
	}
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 50 {
				if err := sign(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	opened, err := hsm.OpenSessions(tokens, uri)
	if err != nil || opened < 1 || opened > 4 {
		t.Errorf("%d sessions, %v; want at most 4", opened, err)
	}
	lost, err := hsm.LoseSessions(tokens, uri)
	if err != nil || lost != opened {
		t.Fatalf("lost %d of %d sessions: %v", lost, opened, err)
	}
	for range 10 {
		if err := sign(); err != nil {
			t.Error(err)
		}
	}
	if opened, err := hsm.OpenSessions(tokens, uri); opened != 1 || err != nil {
		t.Errorf("%d sessions after the others were lost, %v; want 1", opened, err)
	}
}

// Key generation is one at a time, however many ask for it.
func TestGenerateConcurrently(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	tokens := open(t, token.Config)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			key, err := tokens.Generate(token.URI(fmt.Sprint("key ", i)), hsm.P256)
			if err != nil {
				t.Error(err)
				return
			}
			digest := make([]byte, 32)
			signature, err := key.Sign(nil, digest, crypto.SHA256)
			if err == nil {
				err = hsmtest.Verify(key.Public(), digest, signature, crypto.SHA256)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestSoftTokenFiles(t *testing.T) {
	token := hsmtest.SoftToken(t)
	tokens := open(t, token.Config)
	generate(t, tokens, token.URI("a"), hsm.P256)
	path := filepath.Join(token.Dir, "a.age")
	sealed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat, err := os.Stat(path); err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", stat.Mode(), err)
	}
	write := func(name string, data []byte, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(token.Dir, name+".age")
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	damaged := append([]byte(nil), sealed...)
	damaged[len(damaged)-1] ^= 1
	write("renamed", sealed, 0o600)
	write("open", sealed, 0o644)
	write("damaged", damaged, 0o600)
	write("cut", sealed[:len(sealed)-20], 0o600)
	write("empty", nil, 0o600)
	write("huge", make([]byte, 70000), 0o600)
	write("other", []byte("age-encryption.org/v1\n-> X25519 abc\n"), 0o600)
	for object, want := range map[string]string{
		"renamed": `it holds the key "a": the file was renamed`, "open": "chmod 600", "damaged": "decrypt key file", "cut": "decrypt key file",
		"empty": "open key file", "huge": "larger than", "other": "open key file",
	} {
		if _, err := tokens.Key(token.URI(object)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", object, err, want)
		}
	}
}

// Outside of tests, a guess at a key file's PIN has its price.
func TestSoftTokenWorkFactor(t *testing.T) {
	token := hsmtest.SoftToken(t)
	generate(t, open(t, hsm.Config{}), token.URI("a"), hsm.P256)
	sealed, err := os.ReadFile(filepath.Join(token.Dir, "a.age"))
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(string(sealed), "\n---")
	if !strings.HasPrefix(header, "age-encryption.org/v1\n-> scrypt ") || !strings.Contains(header, " 15\n") {
		t.Errorf("header of a key file: %q; want scrypt with work factor 15", header)
	}
}

func TestSoftTokenInfo(t *testing.T) {
	token := hsmtest.SoftToken(t)
	tokens := open(t, token.Config)
	info, err := generate(t, tokens, token.URI("a"), hsm.P384).Info()
	if err != nil {
		t.Fatal(err)
	}
	digest := info.PublicKeySHA256
	info.PublicKeySHA256 = ""
	want := hsm.KeyInfo{
		URI: "softtoken:object=a", Algorithm: "p384", Bits: 384, GeneratedOnToken: true,
		Token: "softtoken", Manufacturer: "Zegel", Model: "softtoken", Software: true,
	}
	if !reflect.DeepEqual(info, want) || len(digest) != 64 {
		t.Errorf("Info: %+v, digest %s; want %+v", info, digest, want)
	}
}
