package hsmtest

import (
	"bytes"
	_ "embed" // the faulty module's source
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

//go:embed testdata/faulty/faulty.c
var faultyModule string

// Faulty is a SoftHSM token behind a module that breaks calls on demand, keeps time like a network HSM, or has no token for a while:
// testdata/faulty/faulty.c, whose opening comment has all that it can do. The module finds its orders in its own folder, so it needs
// no environment of its own, works in a process that only has ModuleEnv, and several of them can be loaded side by side. It needs
// a C compiler.
type Faulty struct {
	*Token
	dir string
}

// NewFaulty makes one, as SoftHSM does, that breaks nothing yet.
func NewFaulty(t testing.TB) *Faulty {
	t.Helper()
	return faulty(t, SoftHSM(t))
}

// Beside makes a second one, with a token of that label and the same PIN in a SoftHSM of its own, behind a module of its own: what happens to the
// first does not happen to it. The Config of the last one that was made reaches all of them.
func (f *Faulty) Beside(t testing.TB, label string) *Faulty {
	t.Helper()
	library, err := os.ReadFile(softHSMModule(t))
	if err != nil {
		t.Fatal(err)
	}
	// One library would be initialised for both, and two with one folder are not safe from each other in one process (their locks
	// are the process's): a copy that reads another variable.
	const variable = "SOFTHSM2_CONF"
	another := fmt.Sprintf("SOFTHSM2_%04d", besides.Add(1))
	copied := bytes.ReplaceAll(library, []byte(variable+"\x00"), []byte(another+"\x00"))
	if bytes.Equal(copied, library) {
		t.Fatalf("SoftHSM's library does not read %s", variable)
	}
	dir := t.TempDir()
	second := *f.Token
	second.Label, second.Dir, second.Module = label, filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm.so")
	write(t, second.Module, string(copied))
	second.Config.ModuleEnv = maps.Clone(second.Config.ModuleEnv)
	second.Config.ModuleEnv[another] = softHSMConf(t, second.Dir)
	t.Setenv(another, second.Config.ModuleEnv[another])
	second.Init(t, label)
	return faulty(t, &second)
}

// besides counts the SoftHSMs that Beside has made in this process.
var besides atomic.Int32

func faulty(t testing.TB, token *Token) *Faulty {
	t.Helper()
	library, err := faultyLibrary()
	if err != nil {
		t.Fatalf("build the faulty module (it needs a C compiler): %v\n%s", err, library)
	}
	f := &Faulty{Token: token, dir: t.TempDir()}
	write(t, filepath.Join(f.dir, "behind"), token.Module)
	token.Module = filepath.Join(f.dir, "faulty.so")
	write(t, token.Module, string(library))
	return f
}

// faultyLibrary builds the module, once per process. With an error it returns what the compiler said.
var faultyLibrary = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "zegel-faulty-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	library := filepath.Join(dir, "faulty.so")
	compiler := exec.Command("cc", "-shared", "-fPIC", "-O1", "-pthread", "-o", library, "-x", "c", "-", "-ldl")
	compiler.Stdin = strings.NewReader(faultyModule)
	if out, err := compiler.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(library)
})

// Break gives the module its orders from now on, one line each as faulty.c describes. Without lines nothing fails any more. Calls are counted
// anew.
func (f *Faulty) Break(t testing.TB, lines ...string) {
	t.Helper()
	control := filepath.Join(f.dir, "control")
	write(t, control+".new", strings.Join(lines, "\n")+"\n")
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

// Calls says how many calls of function, by any process, there were since Break was last called.
func (f *Faulty) Calls(t testing.TB, function string) int {
	t.Helper()
	return f.Called(t)[function]
}

// Called is Calls of every function that was called.
func (f *Faulty) Called(t testing.TB) map[string]int {
	t.Helper()
	called := make(map[string]int)
	control, err := os.Stat(filepath.Join(f.dir, "control"))
	words := f.state(t)
	if err == nil && control.ModTime().Nanosecond() != words[2] {
		return called // no call yet
	}
	for i, name := range functions() {
		if n := words[3+i]; n > 0 {
			called[name] = n
		}
	}
	return called
}

// functions are the names that the module counts calls of, in the order of its counts.
var functions = sync.OnceValue(func() (names []string) {
	_, list, _ := strings.Cut(faultyModule, "names[COUNT] = {")
	list, _, _ = strings.Cut(list, "}")
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.Trim(name, "\"\n\t "); name != "" { // after the last one
			names = append(names, name)
		}
	}
	return names
})

// Sessions says how many sessions the module behind has open: those the callers know of, and those that leaked.
func (f *Faulty) Sessions(t testing.TB) int {
	t.Helper()
	return f.state(t)[3+len(functions())]
}

// state reads the first words of faulty.c's struct state: control, calls and the count of sessions.
func (f *Faulty) state(t testing.TB) []int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, "state"))
	words := make([]int, 3+len(functions())+1)
	if err != nil || len(data) < 8*len(words) {
		t.Fatalf("read the faulty module's counts: %d bytes, %v", len(data), err)
	}
	for i := range words {
		words[i] = int(binary.NativeEndian.Uint64(data[8*i:]))
	}
	return words
}
