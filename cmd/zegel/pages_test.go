package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
)

// top is the root of the tree.
var top = filepath.Join("..", "..")

// pages are README.md and its neighbours, and everything in docs, by path from the top.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no pages: %v", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(top, file)
			texts[name] = string(text)
		}
	}
	return texts
}

// commandTree is every command of zegel that does something, by its path: "zegel journal verify".
func commandTree() map[string]*cobra.Command {
	all := make(map[string]*cobra.Command)
	var add func(*cobra.Command)
	add = func(c *cobra.Command) {
		if !c.HasSubCommands() {
			all[c.CommandPath()] = c
		}
		for _, sub := range c.Commands() {
			add(sub)
		}
	}
	add((&tool{out: io.Discard, err: io.Discard}).root())
	return all
}

// flagsOf are the names of a command's flags, without those that every command has.
func flagsOf(c *cobra.Command) []string {
	var names []string
	for _, m := range flagRow.FindAllStringSubmatch(c.NonInheritedFlags().FlagUsages(), -1) {
		if m[1] != "help" {
			names = append(names, m[1])
		}
	}
	return names
}

// flagRow is a flag in cobra's help.
var flagRow = regexp.MustCompile(`(?m)^ +(?:-[a-z], )?--([a-z-]+)`)

var (
	commandHeading = regexp.MustCompile("(?m)^### `(zegel[a-z ]*)`\n")
	flagWord       = regexp.MustCompile("--([a-z][a-z-]*)")
)

// sections are the parts of docs/zegel.md about one command each, by the command's path.
func sections(t *testing.T) map[string]string {
	t.Helper()
	text := pages(t)["docs/zegel.md"]
	found := make(map[string]string)
	at := commandHeading.FindAllStringSubmatchIndex(text, -1)
	for _, m := range at {
		body, _, _ := strings.Cut(text[m[1]:], "\n#")
		found[text[m[2]:m[3]]] = body
	}
	return found
}

// Every command has its section in docs/zegel.md with each of its flags, and the page has no other commands or flags.
func TestCommandPage(t *testing.T) {
	commands, page := commandTree(), sections(t)
	for path, c := range commands {
		body, there := page[path]
		if !there {
			t.Errorf("docs/zegel.md has no section for %s", path)
			continue
		}
		flags := flagsOf(c)
		for _, name := range flags {
			if !strings.Contains(body, "--"+name) {
				t.Errorf("docs/zegel.md, %s: nothing of --%s", path, name)
			}
			if f := c.Flags().Lookup(name); f.Usage == "" {
				t.Errorf("%s --help says nothing of --%s", path, name)
			}
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s --help has no short text or no example", path)
		}
	}
	for path := range page {
		if commands[path] == nil {
			t.Errorf("docs/zegel.md has a section for %s, which does not exist", path)
		}
	}
}

// commandLine is a command of ours in a page: in a code block at the beginning of a line or behind a pipe, or in `…`.
var commandLine = regexp.MustCompile("(?m)(?:^ *(?:\\$ )?|`|\\| )((?:bin/)?zegel(?:-ca|-ocsp|-tsa|-ceremony)?(?: [^`\n|]*)?)")

// Every command of ours that a page mentions exists, with every flag it names.
func TestPagesNameWhatExists(t *testing.T) {
	commands := commandTree()
	daemons := map[string][]string{"zegel-ceremony": {"check", "help", "version"}}
	for _, d := range []string{"zegel-ca", "zegel-ocsp", "zegel-tsa"} {
		daemons[d] = []string{"config", "check", "help", "version"}
	}
	checked := 0
	for name, text := range pages(t) {
		for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
			line, _, _ := strings.Cut(m[1], " # ")
			if fault := judgeCommand(strings.TrimPrefix(line, "bin/"), commands, daemons); fault != "" {
				t.Errorf("%s: %q: %s", name, line, fault)
			}
			checked++
		}
	}
	if checked < 60 {
		t.Errorf("only %d commands were found in the pages", checked)
	}
	for _, bad := range []string{"zegel isue", "zegel issue --pland", "zegel journal prove", "zegel-ca --konfig x", "zegel-ceremony hold x"} {
		if judgeCommand(bad, commands, daemons) == "" {
			t.Errorf("%q passes", bad)
		}
	}
}

// judgeCommand says what is wrong with a command as a page has it, or nothing.
func judgeCommand(line string, commands map[string]*cobra.Command, daemons map[string][]string) string {
	words := strings.Fields(line)
	known := daemons[words[0]]
	rest := words[1:]
	switch {
	case words[0] == "zegel-ceremony" && len(rest) > 0 && rest[0] != "run" && !strings.HasPrefix(rest[0], "-"):
		return "no such command"
	case words[0] == "zegel":
		known = []string{"config", "json", "help", "version"}
		path := "zegel"
		for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && isCommand(path+" "+rest[0], commands) {
			path, rest = path+" "+rest[0], rest[1:]
		}
		switch c := commands[path]; {
		case c != nil:
			known = append(known, flagsOf(c)...)
		case len(rest) > 0 && (rest[0] == "completion" || rest[0] == "COMMAND" || rest[0] == "help"):
		case len(rest) > 0 && regexp.MustCompile(`^[a-z]`).MatchString(rest[0]):
			return "no such command"
		}
	}
	for _, m := range flagWord.FindAllStringSubmatch(strings.Join(rest, " "), -1) {
		if !slices.Contains(known, m[1]) {
			return "no flag --" + m[1]
		}
	}
	return ""
}

// isCommand reports whether path is a command or the beginning of one.
func isCommand(path string, commands map[string]*cobra.Command) bool {
	for known := range commands {
		if known == path || strings.HasPrefix(known, path+" ") {
			return true
		}
	}
	return false
}

// jsonLine is where a section says which keys --json has.
var jsonLine = regexp.MustCompile(`(?ms)^JSON: (.*?)(?:\n\n|\z)`)

// The keys of every --json document are those that docs/zegel.md lists, by the types that are printed and by what the tool prints.
func TestJSONPage(t *testing.T) {
	types := map[string]any{
		"zegel issue": desk.IssueReply{}, "zegel revoke": desk.Certificate{}, "zegel show": desk.Certificate{}, "zegel list": desk.Certificate{},
		"zegel crl": desk.CRLReply{}, "zegel journal verify": desk.Report{}, "zegel timestamp": stamped{}, "zegel verify": verified{},
		"zegel profile list": profileFacts{}, "zegel profile show": profileFacts{}, "zegel demo": demoFacts{}, "zegel check": checked{},
		"zegel token list": hsm.TokenState{}, "zegel token keys": hsm.KeyRecord{}, "zegel token bench": hsm.BenchResult{},
		"zegel token generate": dutyReply{}, "zegel token destroy": dutyReply{}, "zegel token backup": dutyReply{}, "zegel token restore": dutyReply{},
		"zegel token trust": dutyReply{}, "zegel token record": dutyReply{},
	}
	documented := make(map[string][]string)
	for path, body := range sections(t) {
		m := jsonLine.FindStringSubmatch(body)
		if m == nil {
			t.Errorf("docs/zegel.md, %s: no line that begins JSON:", path)
			continue
		}
		for _, key := range regexp.MustCompile("`([a-z0-9_.\\[\\]]+)`").FindAllStringSubmatch(m[1], -1) {
			documented[path] = append(documented[path], key[1])
		}
	}
	for path, value := range types {
		keys := slices.Sorted(maps.Keys(keysOf(reflect.TypeOf(value), "")))
		if got := slices.Sorted(slices.Values(documented[path])); !slices.Equal(got, keys) {
			t.Errorf("docs/zegel.md, %s: the page has the keys %v, the type %v", path, got, keys)
		}
	}
	printed(t, documented)
}

// printed runs each command once and looks for keys that the page does not have.
func printed(t *testing.T, documented map[string][]string) {
	r := startDemo(t)
	dir := t.TempDir()
	serial, cert := r.Certificates[0].Serial, r.Certificates[0].Cert
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(data, []byte("TEST"), 0o600); err != nil {
		t.Fatal(err)
	}
	request := func(more ...string) []string {
		return append([]string{"--profile", "qcp-n", "--csr", filepath.Join(r.dir, "subscribers", "qcp-n.csr"),
			"--subject", filepath.Join(testdata(t), "request", "qcp-n.yaml")}, more...)
	}
	for path, args := range map[string][]string{
		"zegel issue": request("--plan"), "zegel show": {serial}, "zegel list": nil, "zegel crl": nil, "zegel journal verify": nil,
		"zegel journal checkpoint": nil, "zegel profile list": nil, "zegel profile show": {"tsu"}, "zegel check": {cert}, "zegel timestamp": {data},
		"zegel status": nil, "zegel token list": {"softtoken:"}, "zegel token bench": {"--keys", "p256", "--duration", "50ms"},
		"zegel token keys": {hsm.URI{Software: true, Dir: filepath.Join(r.dir, "tokens", "ca"), PINSource: filepath.Join(r.dir, "tokens", "ca.pin")}.String()},
	} {
		out := zegel(t, 0, append(append(strings.Fields(path)[1:], args...), "--json", "--config", r.ZegelConfig)...)
		compareKeys(t, path, out, documented[path])
	}
	compareKeys(t, "zegel verify", zegel(t, 0, "verify", data+".tsr", "--data", data, "--json", "--config", r.ZegelConfig), documented["zegel verify"])
	compareKeys(t, "zegel revoke", zegel(t, 0, "revoke", serial, "--reason", "superseded", "--json", "--config", r.ZegelConfig), documented["zegel revoke"])
}

func compareKeys(t *testing.T, path, out string, documented []string) {
	t.Helper()
	var document any
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Errorf("%s --json: %v", path, err)
		return
	}
	if path == "zegel status" {
		compareFacts(t, document)
		return
	}
	if list, ok := document.([]any); ok {
		if len(list) == 0 {
			t.Errorf("%s --json: nothing is in the list", path)
			return
		}
		document = list[0]
	}
	object, ok := document.(map[string]any)
	if !ok {
		t.Errorf("%s --json: %T", path, document)
		return
	}
	for key := range object {
		if !slices.Contains(documented, key) {
			t.Errorf("%s --json prints %q, of which docs/zegel.md says nothing", path, key)
		}
	}
}

// compareFacts wants every fact that a daemon tells of itself in that daemon's page.
func compareFacts(t *testing.T, document any) {
	t.Helper()
	list, _ := document.([]any)
	if len(list) != 3 {
		t.Fatalf("zegel status --json tells of %d daemons", len(list))
	}
	all := pages(t)
	for _, d := range list {
		facts, _ := d.(map[string]any)
		daemon, _ := facts["daemon"].(string)
		page := "docs/" + strings.TrimPrefix(daemon, "zegel-") + ".md"
		for _, key := range []string{"daemon", "version", "ready", "clock"} {
			if _, ok := facts[key]; !ok {
				t.Errorf("zegel status --json: %s lacks %q", daemon, key)
			}
			delete(facts, key)
		}
		if len(facts) < 3 {
			t.Errorf("zegel status --json: %s tells only %v", daemon, facts)
		}
		for key := range facts {
			if !strings.Contains(all[page], "`"+key+"`") {
				t.Errorf("%s says nothing of the fact %q", page, key)
			}
		}
	}
}

// keysOf are the JSON keys of a type, with those of the objects in its lists and maps as a[].b.
func keysOf(t reflect.Type, prefix string) map[string]bool {
	keys := make(map[string]bool)
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		ft := f.Type
		for ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch {
		case name == "-":
			continue
		case f.Anonymous && name == "":
			maps.Copy(keys, keysOf(ft, prefix))
			continue
		}
		keys[prefix+name] = true
		if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			maps.Copy(keys, keysOf(ft.Elem(), prefix+name+"[]."))
		}
	}
	return keys
}

// The help of every binary tells its exit statuses and has an example, and so does its page.
func TestHelp(t *testing.T) {
	all := pages(t)
	for name, page := range map[string]string{"zegel": "docs/zegel.md", "zegel-ca": "docs/ca.md", "zegel-ocsp": "docs/ocsp.md", "zegel-tsa": "docs/tsa.md", "zegel-ceremony": "docs/ceremony.md"} {
		args := []string{"--help"}
		if name == "zegel-ceremony" {
			args = []string{"run", "--help"}
		}
		out, err := exec.Command(filepath.Join(binaries, name), args...).Output()
		if err != nil {
			t.Errorf("%s --help: %v", name, err)
		}
		for _, want := range []string{"Exit status: 0 done", "Examples:", "--help"} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%s --help lacks %q:\n%s", name, want, out)
			}
		}
		if !strings.Contains(all[page], "Exit status") {
			t.Errorf("%s does not tell the exit statuses of %s", page, name)
		}
		version, err := exec.Command(filepath.Join(binaries, name), "--version").Output()
		if err != nil || !bytes.HasPrefix(version, []byte(name+" ")) {
			t.Errorf("%s --version: %v %q", name, err, version)
		}
	}
}

// makeLine is a make target in a page.
var makeLine = regexp.MustCompile("(?m)^make ([a-z]+)(?: |$)")

// A make target that a page names exists, and the two commands of the README do what tests and CI do.
func TestMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(top, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range pages(t) {
		code := strings.Join(blocks(text), "\n")
		for _, m := range regexp.MustCompile("`[^`\n]+`").FindAllString(text, -1) {
			code += "\n" + strings.Trim(m, "`")
		}
		for _, m := range makeLine.FindAllStringSubmatch(code, -1) {
			if !bytes.Contains(makefile, []byte("\n"+m[1]+":")) {
				t.Errorf("%s: the Makefile has no target %s", name, m[1])
			}
		}
	}
	if want := "\n\tbin/zegel demo --dir demo\n"; !bytes.Contains(makefile, []byte(want)) {
		t.Errorf("make demo does not run %q, which is what startDemo tests", strings.TrimSpace(want))
	}
}

// blocks are the sh blocks of a page.
func blocks(text string) (list []string) {
	for {
		_, rest, found := strings.Cut(text, "```sh\n")
		if !found {
			return list
		}
		block, after, _ := strings.Cut(rest, "```")
		list, text = append(list, block), after
	}
}

// readmeCommands splits the README's sh blocks into what TestReadme runs and the make commands, which CI runs (make test)
// or every test that starts a demo (make demo). Any other make command is a fault: nothing would run it.
func readmeCommands(readme string) (run []string, err error) {
	for _, block := range blocks(readme) {
		var lines []string
		for line := range strings.SplitSeq(block, "\n") {
			switch command, _, _ := strings.Cut(line, " #"); strings.TrimSpace(command) {
			case "make demo", "make test":
			default:
				if strings.HasPrefix(command, "make ") {
					return nil, fmt.Errorf("nothing runs %q", command)
				}
				lines = append(lines, line)
			}
		}
		if text := strings.TrimSpace(strings.Join(lines, "\n")); text != "" {
			run = append(run, text)
		}
	}
	return run, nil
}
