package locked

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSecret(t *testing.T) {
	given := []byte("31415926")
	s, err := Take(given)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(given, make([]byte, 8)) {
		t.Errorf("what was given is still there: %q", given)
	}
	var lent []byte
	err = s.Use(func(secret []byte) error {
		lent = secret
		if string(secret) != "31415926" {
			t.Errorf("%q", secret)
		}
		if flags := mappingFlags(t, secret); !strings.Contains(flags, " lo ") || !strings.Contains(flags, " dd ") || !strings.Contains(flags, " wf ") {
			t.Errorf("the mapping is not locked (lo), left out of dumps (dd) and wiped on fork (wf): %s", flags)
		}
		s.Wipe() // waits for this call
		if string(secret) != "31415926" {
			t.Error("wiped while it was used")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Use(func([]byte) error { return nil }); !errors.Is(err, ErrWiped) {
		t.Errorf("use after wiping: %v", err)
	}
	s.Wipe()
	if mapped(t, lent) {
		t.Error("the memory is still there after wiping")
	}
	if _, err := Take(make([]byte, 5000)); err == nil {
		t.Error("more than a page was taken")
	}
}

// mappingFlags are the VmFlags of the mapping that b lies in (proc(5), smaps).
func mappingFlags(t *testing.T, b []byte) string {
	_, rest, found := strings.Cut(smaps(t), fmt.Sprintf("%x-", &b[0]))
	if !found {
		t.Fatal("the secret does not begin a mapping of its own")
	}
	_, flags, _ := strings.Cut(rest, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	return flags + " "
}

func mapped(t *testing.T, b []byte) bool {
	return strings.Contains(smaps(t), fmt.Sprintf("\n%x-", &b[0]))
}

func smaps(t *testing.T) string {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestChild are the tests that change their process.
func TestChild(t *testing.T) {
	for _, name := range []string{"unlockable", "process"} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestInChild$")
			cmd.Env = append(os.Environ(), "ZEGEL_LOCKED_TEST="+name)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestInChild(t *testing.T) {
	switch os.Getenv("ZEGEL_LOCKED_TEST") {
	case "unlockable":
		runtime.LockOSThread()
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 { // root needs no limit
			dropIPCLock(t)
		}
		given := []byte("31415926")
		if _, err := Take(given); err == nil || !strings.Contains(err.Error(), "LimitMEMLOCK") {
			t.Errorf("a secret that cannot be locked was kept: %v", err)
		}
		if !bytes.Equal(given, make([]byte, 8)) {
			t.Error("what was refused is still there")
		}
	case "process":
		if err := Process(); err != nil {
			t.Fatal(err)
		}
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
			t.Errorf("core dumps: %+v, %v", limit, err)
		}
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
			t.Errorf("dumpable %d, %v", dumpable, err)
		}
	}
}

// dropIPCLock takes CAP_IPC_LOCK away from this thread, which is locked to the test.
func dropIPCLock(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}
