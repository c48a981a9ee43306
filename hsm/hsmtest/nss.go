package hsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NSS makes a token of NSS's softokn, which shares no code with SoftHSM, in the test's temporary folder. The library wants its
// configuration from C_Initialize and from nowhere else, so it stands behind the faulty module, which adds it and breaks nothing
// unless told to. Without libsoftokn3.so and certutil the test fails.
func NSS(t testing.TB) *Faulty {
	t.Helper()
	module := installed(t, "NSS's softokn is not installed: run make test, which installs it, or apt-get install libnss3 libnss3-tools",
		"/usr/lib/*/libsoftokn3.so", "/usr/lib64/libsoftokn3.so", "/usr/lib/*/nss/libsoftokn3.so")
	dir := t.TempDir()
	token := &Token{Label: "NSS Certificate DB", Module: module, Dir: filepath.Join(dir, "db"), PIN: filepath.Join(dir, "pin")}
	token.Config.ModuleEnv = make(map[string]string)
	write(t, token.PIN, pin+"\n")
	if err := os.Mkdir(token.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("certutil", "-N", "-d", "sql:"+token.Dir, "-f", token.PIN).CombinedOutput(); err != nil {
		t.Fatalf("make a database of NSS (apt-get install libnss3-tools): %v\n%s", err, out)
	}
	f := faulty(t, token)
	write(t, filepath.Join(f.dir, "reserved"), fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", token.Dir))
	return f
}
