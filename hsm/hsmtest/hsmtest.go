// Package hsmtest holds any token to what package hsm promises: one suite for SoftHSM, soft tokens and the HSM on your desk.
package hsmtest

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
)

// Token is a throw-away token for one test.
type Token struct {
	Config hsm.Config // for hsm.New
	Label  string     // of the token; empty for a soft token
	Module string     // path of the PKCS#11 module; empty for a soft token
	Dir    string     // of a soft token, where its keys are; of SoftHSM, where its tokens are
	PIN    string     // path of the file with the PIN
}

// pin is the PIN of all throw-away tokens.
const pin = "not a secret"

// SoftHSM initialises a SoftHSM 2 token in the test's temporary folder. It sets SOFTHSM2_CONF for the length of the test, so such
// tests cannot be parallel, and every hsm.Tokens must be closed when its test ends: the module reads the variable
// when the first one opens it. Without SoftHSM the test fails.
func SoftHSM(t testing.TB) *Token {
	t.Helper()
	module := softHSMModule(t)
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	conf := softHSMConf(t, tokens)
	t.Setenv("SOFTHSM2_CONF", conf)
	token := &Token{
		Config: hsm.Config{ModuleEnv: map[string]string{"SOFTHSM2_CONF": conf}, Settings: hsm.Settings{Isolation: os.Getenv("ZEGEL_TEST_ISOLATION")}},
		Label:  "zegel test",
		Module: module,
		Dir:    tokens,
		PIN:    filepath.Join(dir, "pin"),
	}
	write(t, token.PIN, pin+"\n")
	token.Init(t, token.Label)
	return token
}

// softHSMConf makes the folder of a SoftHSM and, beside it, its configuration.
func softHSMConf(t testing.TB, tokens string) (path string) {
	t.Helper()
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(filepath.Dir(tokens), "softhsm2.conf")
	write(t, path, fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens))
	return path
}

// Init adds another token with the same PIN, which Token.Label then names if you set it.
func (k *Token) Init(t testing.TB, label string) {
	t.Helper()
	err := hsm.InitToken(k.Config, hsm.TokenInit{Module: k.Module, Label: label, SOPIN: []byte("12345678"), PIN: []byte(pin)})
	if err != nil {
		t.Fatal(err)
	}
}

// SoftToken makes an empty soft token in the test's temporary folder. Its key files open some 30 times faster than real ones.
func SoftToken(t testing.TB) *Token {
	t.Helper()
	dir := t.TempDir()
	token := &Token{Dir: filepath.Join(dir, "keys"), PIN: filepath.Join(dir, "pin")}
	token.Config.SoftWorkFactor = 10
	write(t, token.PIN, pin+"\n")
	return token
}

// URI names an object on the token, with its PIN.
func (k *Token) URI(object string) string { return k.uri(object, k.PIN) }

func (k *Token) uri(object, pin string) string {
	u := hsm.URI{Object: object, PINSource: "file:" + pin}
	if k.Module == "" {
		u.Software, u.Dir = true, k.Dir
	} else {
		u.Token, u.ModulePath = k.Label, k.Module
	}
	return u.String()
}

// WrongPIN names an object on the token, with a PIN that is not the token's.
func (k *Token) WrongPIN(object string) string { return k.uri(object, k.PIN+".wrong") }

// Suite is the configuration with which Run tries the token.
func (k *Token) Suite(t testing.TB) Config {
	t.Helper()
	write(t, k.PIN+".wrong", "not the PIN\n")
	return Config{Tokens: k.Config, URI: k.URI, WrongPIN: k.WrongPIN}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// softHSMModule finds the library where the systems' packages put it.
func softHSMModule(t testing.TB) string {
	t.Helper()
	return installed(t, "SoftHSM 2 is not installed: run make test, which installs it, or apt-get install softhsm2",
		"/usr/lib/softhsm/libsofthsm2.so",
		"/usr/lib/*/softhsm/libsofthsm2.so",
		"/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/lib64/softhsm/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so",
		"/opt/homebrew/lib/softhsm/libsofthsm2.so",
	)
}

// installed returns the first file that one of the patterns finds.
func installed(t testing.TB, missing string, patterns ...string) string {
	t.Helper()
	for _, pattern := range patterns {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal(missing)
	return ""
}

// Import puts a key pair on a SoftHSM token under a label, sensitive and not extractable, as a vendor's cloning would: the same key can
// so be on several tokens. It needs softhsm2-util.
func (k *Token) Import(t testing.TB, object string, key crypto.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	k.importFile(t, object, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// ImportAES does as Import for an AES key of 32 bytes.
func (k *Token) ImportAES(t testing.TB, object string, key []byte) {
	t.Helper()
	k.importFile(t, object, key, "--aes")
}

func (k *Token) importFile(t testing.TB, object string, key []byte, more ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	write(t, file, string(key))
	id := sha256.Sum256(key)
	util := exec.Command("softhsm2-util", append(more, "--import", file, "--token", k.Label, "--label", object, "--id", hex.EncodeToString(id[:8]),
		"--pin", pin)...)
	util.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(filepath.Dir(k.Dir), "softhsm2.conf"))
	if out, err := util.CombinedOutput(); err != nil {
		t.Fatalf("import a key into SoftHSM: %v: %s", err, out)
	}
}
