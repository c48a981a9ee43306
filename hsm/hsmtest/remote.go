package hsmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Remote is a SoftHSM token behind a daemon that it is reached through, as with a network HSM: p11-kit's server on a Unix socket
// and, as the module, p11-kit's client. The daemon can be stopped and started.
type Remote struct {
	*Token
	socket string
	behind string // path of SoftHSM's module
	daemon *exec.Cmd
}

// NewRemote makes one, as SoftHSM does, with its daemon running until the test ends. Without p11-kit the test fails.
func NewRemote(t testing.TB) *Remote {
	t.Helper()
	const missing = "p11-kit's server is not installed: run make test, which installs it, or apt-get install p11-kit p11-kit-modules"
	client := installed(t, missing, "/usr/lib/*/pkcs11/p11-kit-client.so", "/usr/lib64/pkcs11/p11-kit-client.so")
	token := SoftHSM(t)
	r := &Remote{Token: token, behind: token.Module, socket: filepath.Join(t.TempDir(), "socket")}
	token.Module = client
	token.Config.ModuleEnv["P11_KIT_SERVER_ADDRESS"] = "unix:path=" + r.socket
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+r.socket)
	t.Cleanup(func() { r.Stop(t) })
	r.Start(t)
	return r
}

// Start has the daemon run again. It is ready when Start returns.
func (r *Remote) Start(t testing.TB) {
	t.Helper()
	_ = os.Remove(r.socket) // left by one that was killed
	r.daemon = exec.Command("p11-kit", "server", "--foreground", "--name", r.socket, "--provider", r.behind, "pkcs11:")
	r.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	// A connection to try it would not do: the daemon finalizes SoftHSM when one ends, under the next one's feet.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		sockets, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(sockets)) {
			const accepting = "00010000" // of the fourth column, __SO_ACCEPTCON
			if f := strings.Fields(line); len(f) == 8 && f[3] == accepting && f[7] == r.socket {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("p11-kit's server does not listen")
		}
	}
}

// Stop kills the daemon and what it has started for each client.
func (r *Remote) Stop(t testing.TB) {
	t.Helper()
	if r.daemon == nil {
		return
	}
	_ = syscall.Kill(-r.daemon.Process.Pid, syscall.SIGKILL)
	_ = r.daemon.Wait() // it was killed
	r.daemon = nil
}
