package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/zegel-tsp/zegel/internal/manual"
	"github.com/zegel-tsp/zegel/policy"
)

// without returns text without the key that path leads to; of a list, without that key of its first element.
func without(t *testing.T, text []byte, path string) (rest []byte, found bool) {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	node := document.Content[0]
	steps := strings.Split(path, ".")
	for n, step := range steps {
		key, list := strings.CutSuffix(step, "[]")
		i := 0
		for ; i < len(node.Content) && node.Content[i].Value != key; i += 2 {
		}
		if i >= len(node.Content) {
			return nil, false
		}
		if n == len(steps)-1 {
			node.Content = append(node.Content[:i:i], node.Content[i+2:]...)
			break
		}
		if node = node.Content[i+1]; list {
			if len(node.Content) == 0 {
				return nil, false
			}
			node = node.Content[0]
		}
	}
	rest, err := yaml.Marshal(&document)
	if err != nil {
		t.Fatal(err)
	}
	return rest, true
}

// TestReferenceIsTrue takes every key out of files that work, one at a time: what the reference calls required is refused
// without it, what it does not is accepted. A key of these files that the reference lacks is refused by name.
func TestReferenceIsTrue(t *testing.T) {
	r := startDemo(t)
	list, err := manual.Read(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		t.Run(d.Name, func(t *testing.T) {
			for _, f := range r.documents(t, d.Name) {
				f.judge(t, d)
			}
		})
	}
}

// example is a file that works, and how to ask whether an altered one does.
type example struct {
	name, text string
	subject    string // whom a subject file names: natural or legal
	device     bool
	accepted   func(t *testing.T, text []byte) (bool, string)
}

func (f example) judge(t *testing.T, d manual.Document) {
	if ok, says := f.accepted(t, []byte(f.text)); !ok {
		t.Fatalf("%s as it is: %s", f.name, says)
	}
	seen := 0
	for _, k := range d.Keys {
		text, found := without(t, []byte(f.text), k.Path)
		if !found {
			continue
		}
		required, known := f.required(k)
		if !known {
			continue
		}
		seen++
		if ok, says := f.accepted(t, text); ok == required {
			t.Errorf("%s without %s: accepted %v (%s), but the reference says %q", f.name, k.Path, ok, strings.TrimSpace(says), k.Absent)
		}
	}
	if seen < 5 {
		t.Errorf("%s: only %d keys were tried", f.name, seen)
	}
}

// required says whether a file like f is refused without k, where the reference says so in a way that a program can read.
func (f example) required(k manual.Key) (required, known bool) {
	if _, ok := k.Default(); ok {
		return false, true
	}
	switch k.Absent {
	case "Required", "Required by every built-in profile", "Required with registration":
		return true, true
	case "Optional":
		return false, true
	case "Required of legal persons":
		return f.subject == "legal", true
	case "Required with subject natural or legal":
		return strings.Contains(f.text, "\nsubject: natural") || strings.Contains(f.text, "\nsubject: legal"), true
	case "Required by -qscd profiles", "Required with device", "Required with device, or generation_record", "Required with device, or attestation":
		return f.device, true
	case "Required with https", "Required with qc_statements": // the files have them
		return true, true
	}
	return false, false
}

// documents are the files of one kind that a demo has.
func (r *running) documents(t *testing.T, kind string) []example {
	read := func(path string) example {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return example{name: filepath.Base(path), text: string(text)}
	}
	provider := filepath.Dir(r.ZegelConfig)
	switch kind {
	case "ca.yaml", "ocsp.yaml", "tsa.yaml":
		f := read(filepath.Join(provider, kind))
		f.accepted = runs("zegel-"+strings.TrimSuffix(kind, ".yaml"), "--check", "--config")
		return []example{f}
	case "zegel.yaml":
		f := read(r.ZegelConfig)
		f.accepted = func(t *testing.T, text []byte) (bool, string) {
			path := filepath.Join(t.TempDir(), "zegel.yaml")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := (&tool{configPath: path}).loadConfig()
			return err == nil, ""
		}
		return []example{f}
	case "Ceremony script":
		f := read(filepath.Join(r.dir, "ceremony.yaml"))
		f.text = strings.ReplaceAll(f.text, "output: "+provider, "output: "+filepath.Join(t.TempDir(), "new"))
		check := runs("zegel-ceremony", "run", "--check")
		f.accepted = check
		return []example{f}
	case "Subject file":
		return r.subjectFiles(t, read)
	}
	var list []example
	for _, name := range policy.Builtins() {
		p, err := policy.Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, example{name: name + ".yaml", text: string(p.Text()), accepted: func(_ *testing.T, text []byte) (bool, string) {
			_, err := policy.ParseProfile(name+".yaml", text)
			return err == nil, ""
		}})
	}
	return list
}

func (r *running) subjectFiles(t *testing.T, read func(string) example) (list []example) {
	csr := filepath.Join(r.dir, "subscribers", "qcp-n.csr")
	for _, name := range []string{"qcp-n", "qcp-n-qscd", "qcp-l", "qcp-l-qscd"} {
		f := read(filepath.Join(testdata(t), "request", name+".yaml"))
		f.subject, f.device = "natural", strings.HasSuffix(name, "-qscd")
		if strings.HasPrefix(name, "qcp-l") {
			f.subject = "legal"
		}
		f.accepted = runs("zegel", "issue", "--plan", "--config", r.ZegelConfig, "--profile", name, "--csr", csr, "--subject")
		list = append(list, f)
	}
	return list
}

// runs asks a program whether it accepts a file, named by its last argument: status 0, else 2 (unreadable) or 3 (policy).
func runs(program string, args ...string) func(*testing.T, []byte) (bool, string) {
	return func(t *testing.T, text []byte) (bool, string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "file.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(binaries, program), append(args[:len(args):len(args)], path)...)
		var says bytes.Buffer
		cmd.Stdout, cmd.Stderr = &says, &says
		if err := cmd.Run(); err == nil {
			return true, says.String()
		}
		if status := cmd.ProcessState.ExitCode(); status != exitUsage && status != exitRefused {
			t.Errorf("%s ended with %d: %s", program, status, &says)
		}
		return false, says.String()
	}
}
