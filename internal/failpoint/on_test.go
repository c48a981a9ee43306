//go:build failpoint

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What the environment may say, and what it may not: a step is not taken by a process that was told nonsense.
func TestParse(t *testing.T) {
	list, err := parse(" die after publish CRL:3; fail before sign CRL ;")
	if err != nil || len(list) != 2 || list[0] != (order{true, "after publish CRL", 3}) || list[1] != (order{false, "before sign CRL", 1}) {
		t.Errorf("%+v, %v", list, err)
	}
	for _, text := range []string{"die", "die publish CRL", "die after nothing", "stop after publish CRL", "die after publish CRL:0", "die after publish CRL:x"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestModes runs itself as a child with each order.
func TestModes(t *testing.T) {
	if os.Getenv("ZEGEL_FAILPOINT_CHILD") != "" {
		takeTwo()
		return
	}
	for _, c := range []struct {
		orders, out string
		killed      bool
		reached     string
	}{
		{"", "taken 1, <nil>; taken 2, <nil>", false, "before, after, before, after"},
		{"fail before sign CRL:2", "taken 1, <nil>; taken 1, injected", false, "before, after, before"},
		{"fail after sign CRL", "taken 1, injected; taken 2, <nil>", false, "before, after, before, after"},
		{"die before sign CRL", "", true, "before"},
		{"die after sign CRL:2", "taken 1, <nil>", true, "before, after, before, after"},
		{"fail before sign", "taken 0, refused; taken 0, refused", false, ""},
	} {
		reached := filepath.Join(t.TempDir(), "reached")
		child := exec.Command(os.Args[0], "-test.run", "^TestModes$")
		child.Env = append(os.Environ(), "ZEGEL_FAILPOINT_CHILD=1", variable+"="+c.orders, variableReached+"="+reached)
		out, _ := child.Output()
		text, _, _ := strings.Cut(string(out), "\n")
		if c.killed != (child.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL) || text != c.out {
			t.Errorf("%q: %v, %q, want %q", c.orders, child.ProcessState, text, c.out)
		}
		list, _ := os.ReadFile(reached)
		if got := strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(string(list)), " sign CRL", ""), "\n", ", "); got != c.reached {
			t.Errorf("%q: reached %q, want %q", c.orders, got, c.reached)
		}
	}
}

// takeTwo takes a step twice and prints what came of it.
func takeTwo() {
	taken := 0
	for i := range 2 {
		err := Do(SignCRL, func() error { taken++; return nil })
		word := "<nil>"
		switch {
		case errors.Is(err, ErrInjected):
			word = "injected"
		case err != nil:
			word = "refused"
		}
		os.Stdout.WriteString([]string{"taken ", "; taken "}[i] + string(rune('0'+taken)) + ", " + word)
	}
	os.Stdout.WriteString("\n")
}
