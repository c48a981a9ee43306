//go:build !failpoint

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// TestFailpointsCompiledOut looks into the binaries as they are built for use: no name of a step, no variable that would be read, and no
// function of the package is in them.
func TestFailpointsCompiledOut(t *testing.T) {
	for _, name := range []string{"zegel", "zegel-ca", "zegel-ocsp", "zegel-tsa", "zegel-ceremony"} {
		path := filepath.Join(binaries, name)
		binary, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(binary, []byte("ZEGEL_FAILPOINT")) || bytes.Contains(binary, []byte(failpoint.SignCertificate.What())) {
			t.Errorf("%s has failpoints", name)
		}
		symbols, err := exec.Command("go", "tool", "nm", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(symbols)) {
			if strings.Contains(line, "internal/failpoint.") {
				t.Errorf("%s has %s", name, strings.TrimSpace(line))
			}
		}
	}
}
