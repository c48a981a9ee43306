package hsmtest

import (
	_ "embed" // the faulty module's source
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata/faulty/faulty.c
var faultyModule string

// Faulty is a SoftHSM token behind a module that breaks calls on demand: testdata/faulty/faulty.c. It needs a C compiler.
type Faulty struct {
	*Token
	dir string
}

// NewFaulty makes one, as SoftHSM does, that breaks nothing yet. Its module's environment is in Config.ModuleEnv.
func NewFaulty(t testing.TB) *Faulty {
	t.Helper()
	f := &Faulty{Token: SoftHSM(t), dir: t.TempDir()}
	env := map[string]string{
		"FAULTY_MODULE": f.Module, "FAULTY_CONTROL": filepath.Join(f.dir, "control"), "FAULTY_LOG": filepath.Join(f.dir, "log"),
	}
	for name, value := range env {
		t.Setenv(name, value)
		f.Config.ModuleEnv[name] = value
	}
	f.Module = filepath.Join(f.dir, "faulty.so")
	source := filepath.Join(f.dir, "faulty.c")
	write(t, source, faultyModule)
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-pthread", "-o", f.Module, source, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("build the faulty module (it needs a C compiler): %v\n%s", err, out)
	}
	return f
}

// Break has calls fail from now on, one line each as faulty.c describes. Without lines nothing fails any more. Calls are counted anew.
func (f *Faulty) Break(t testing.TB, lines ...string) {
	t.Helper()
	control := filepath.Join(f.dir, "control")
	old, err := os.ReadFile(control)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	text := strings.Join(lines, "\n") + "\n"
	if text == string(old) {
		text += "\n" // another text, so that the module counts anew
	}
	write(t, control+".new", text)
	if err := os.Rename(control+".new", control); err != nil {
		t.Fatal(err)
	}
}

// Answers returns what the module answered to its calls of function, in their order and as "0x0", since Forget was last
// called. There are answers for what opens and closes sessions, logs in and out, initialises and finalizes.
func (f *Faulty) Answers(t testing.TB, function string) []string {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(f.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var answers []string
	for line := range strings.Lines(string(log)) {
		if name, answer, _ := strings.Cut(strings.TrimSpace(line), " "); name == function {
			answers = append(answers, answer)
		}
	}
	return answers
}

// Forget empties what Answers returns.
func (f *Faulty) Forget(t testing.TB) {
	t.Helper()
	write(t, filepath.Join(f.dir, "log"), "")
}
