package hsmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const (
	ockLabel = "zegel test"
	ockPIN   = "nosecret" // openCryptoki takes 4 to 8 characters
	ockSOPIN = "12345678"
)

// OpenCryptoki is openCryptoki's software token, which shares no code with SoftHSM. There is one on a machine, so two tests do not use
// it at a time: the second waits. A token that is not initialised becomes ours; one that somebody else has initialised
// stays theirs, and the test fails, as it does without openCryptoki, without its daemon and for who may not talk to that.
func OpenCryptoki(t testing.TB) *Token {
	t.Helper()
	module := installed(t, "openCryptoki is not installed: run make test, which installs it, or apt-get install opencryptoki",
		"/usr/lib/*/pkcs11/libopencryptoki.so", "/usr/lib64/pkcs11/libopencryptoki.so")
	dir := t.TempDir()
	token := &Token{Label: ockLabel, Module: module, PIN: filepath.Join(dir, "pin")}
	token.Config.ModuleEnv = make(map[string]string)
	write(t, token.PIN, ockPIN+"\n")

	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "zegel-opencryptoki.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() }) // which ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	slot, label := ockSlot(t)
	switch label {
	case ockLabel:
	case "": // not initialised
		ockConf(t, "87654321\n"+ockLabel+"\n", "-c", slot, "-I")
		ockConf(t, "", "-c", slot, "-P", "-S", "87654321", "-n", ockSOPIN)
	default:
		t.Fatalf("openCryptoki's software token is called %q: somebody uses it, so it is not taken for a test", label)
	}
	// As the security officer, whatever became of the PIN in a test that did not come to its end.
	ockConf(t, "", "-c", slot, "-u", "-S", ockSOPIN, "-n", "firstpin")
	ockConf(t, "", "-c", slot, "-p", "-U", "firstpin", "-n", ockPIN)
	return token
}

// ockSlot finds the software token among the slots; it has a label once it is initialised.
func ockSlot(t testing.TB) (slot, label string) {
	t.Helper()
	list := ockConf(t, "", "-t")
	for _, token := range strings.Split(list, "Token #")[1:] {
		if slot, _, _ := strings.Cut(token, " "); strings.Contains(token, "Model: IBM SoftTok") {
			if !strings.Contains(token, "TOKEN_INITIALIZED") {
				return slot, ""
			}
			return slot, strings.TrimSpace(regexp.MustCompile(`Label: (.*)`).FindStringSubmatch(token)[1])
		}
	}
	t.Fatalf("openCryptoki has no software token (/etc/opencryptoki/opencryptoki.conf):\n%s", list)
	return "", ""
}

// ockConf runs openCryptoki's tool, which is in the administrator's path only.
func ockConf(t testing.TB, input string, args ...string) string {
	t.Helper()
	tool := exec.Command("/usr/sbin/pkcsconf", args...)
	tool.Stdin = strings.NewReader(input)
	out, err := tool.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: is pkcsslotd running, and are you root or in group pkcs11? make test sees to both\n%s", tool, err, out)
	}
	return string(out)
}
