// Package archtest keeps the shape of the house: which package may import which, who may touch a dangerous
// library, and the habits every file keeps. It reads the files themselves, because a check through the Go tool is fooled by the test cache.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// modulePath is ours.
const modulePath = "github.com/zegel-tsp/zegel"

// File is one parsed Go file; Dir is its folder relative to the module, with slashes.
type File struct {
	Dir, Name string
	AST       *ast.File
	set       *token.FileSet
}

func (f *File) test() bool { return strings.HasSuffix(f.Name, "_test.go") }

func (f *File) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", path.Join(f.Dir, f.Name), f.set.Position(n.Pos()).Line)
}

// Imports yields the import paths of the file, those of our module without the module path.
func (f *File) Imports() []string {
	var list []string
	for _, i := range f.AST.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue // the parser has refused it before
		}
		list = append(list, strings.TrimPrefix(p, modulePath+"/"))
	}
	return list
}

// Load parses every Go file below root.
func Load(root string) ([]*File, error) {
	var files []*File
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && name != root:
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(relative), name, nil)
		if err == nil {
			files = append(files, f)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load the tree: %w", err)
	}
	return files, nil
}

// parse reads one file; source may stand in for its content.
func parse(relative, name string, source any) (*File, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, source, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", relative, err)
	}
	return &File{Dir: path.Dir(relative), Name: path.Base(relative), AST: tree, set: set}, nil
}

// Rule is one habit of the house; Check returns what breaks it, a line each.
type Rule struct {
	Name  string
	Check func([]*File) []string
}

// Rules are all of them.
func Rules() []Rule {
	return []Rule{
		{"imports point down, as the table of ARCHITECTURE.md has it", checkImports},
		{"a dangerous library has one owner", checkOwners},
		{"every package opens with its promise, once", checkPackageComments},
		{"every exported name is documented", checkExported},
		{"no function is longer than 100 lines", checkLength},
		{"no drawer for everything", checkNames},
		{"only main ends the process", checkExit},
		{"no panic outside tests", checkPanic},
		{"no init", checkInit},
		{"no test is skipped", checkSkip},
		{"a test can die at every durable step", checkFailpoints},
	}
}

// rooms says which of our packages a package may import. Packages of one floor do not know each other.
var rooms = map[string][]string{
	"cmd/zegel":                    {"hsm", "tsa", "policy", "policy/algorithms", "internal/audit", "internal/clock", "internal/daemon", "internal/der", "internal/desk", "internal/durable", "internal/failpoint", "internal/journal", "internal/strictyaml", "testdata/request", "internal/locked", "internal/activation", "internal/shares"},
	"cmd/zegel-ca":                 {"ca", "hsm", "policy", "policy/algorithms", "internal/clock", "internal/daemon", "internal/der", "internal/desk", "internal/durable", "internal/journal", "internal/strictyaml", "internal/activation"},
	"cmd/zegel-ocsp":               {"ocsp", "hsm", "policy/algorithms", "internal/clock", "internal/daemon", "internal/der", "internal/desk", "internal/durable", "internal/journal", "internal/strictyaml", "internal/activation"},
	"cmd/zegel-tsa":                {"tsa", "hsm", "policy", "policy/algorithms", "internal/clock", "internal/daemon", "internal/der", "internal/desk", "internal/durable", "internal/journal", "internal/strictyaml", "internal/activation"},
	"cmd/zegel-ceremony":           {"ca", "hsm", "policy", "policy/algorithms", "internal/clock", "internal/activation", "internal/daemon", "internal/der", "internal/desk", "internal/durable", "internal/failpoint", "internal/journal", "internal/locked", "internal/shares", "internal/strictyaml"},
	"ca":                           {"policy", "internal/journal", "internal/desk", "internal/clock", "internal/durable", "internal/failpoint", "internal/der"},
	"ocsp":                         {"internal/journal", "internal/clock", "internal/der"},
	"tsa":                          {"policy", "internal/journal", "internal/der", "internal/failpoint"},
	"internal/audit":               {"policy", "internal/journal", "internal/der"},
	"policy":                       {"policy/algorithms", "internal/der", "internal/strictyaml"},
	"policy/algorithms":            {"internal/der"},
	"hsm":                          {"hsm/internal/cryptoki", "internal/durable", "internal/failpoint", "internal/locked"},
	"hsm/internal/cryptoki":        {"internal/locked"},
	"hsm/hsmtest":                  {"hsm"},
	"internal/journal":             {"internal/durable", "internal/failpoint"},
	"internal/journal/journaltest": {"internal/journal"},
	"internal/clock":               {},
	"internal/desk":                {},
	"internal/daemon":              {"internal/desk", "internal/strictyaml", "internal/durable", "internal/failpoint", "internal/locked"},
	"internal/der":                 {},
	"internal/durable":             {"internal/failpoint"},
	"internal/failpoint":           {},
	"internal/locked":              {},
	"internal/shares":              {},
	"internal/activation":          {"hsm", "internal/daemon", "internal/desk", "internal/journal", "internal/locked", "internal/shares"},
	"internal/strictyaml":          {},
	"internal/archtest":            {},
	"internal/manual":              {"policy/algorithms", "internal/archtest"},
	"internal/figures":             {},
	"testdata/request":             {},
}

func checkImports(files []*File) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		allowed, known := rooms[f.Dir]
		if !known {
			report(f.AST, "package %s has no place in the house: add it to the table of ARCHITECTURE.md and to rooms", f.Dir)
			return
		}
		if f.test() {
			return // tests may look anywhere
		}
		for i, p := range f.Imports() {
			if _, ours := rooms[p]; ours && !slices.Contains(allowed, p) {
				report(f.AST.Imports[i], "%s may not import %s", f.Dir, p)
			}
		}
	})
}

// owners are the libraries that only some packages may import; an empty list means tests only.
var owners = map[string][]string{
	"github.com/miekg/pkcs11":                   {"hsm", "hsm/internal/cryptoki", "hsm/hsmtest"},
	"go.etcd.io/bbolt":                          {"internal/journal", "internal/journal/journaltest"},
	"filippo.io/age":                            {"hsm"},
	"github.com/zmap/zlint/v3":                  {"policy"},
	"github.com/zmap/zcrypto/x509":              {"policy"},
	"go.yaml.in/yaml/v3":                        {"internal/strictyaml", "cmd/zegel-ceremony"},
	"golang.org/x/crypto/ocsp":                  {"cmd/zegel"},
	"github.com/digitorus/timestamp":            {},
	"github.com/cloudflare/circl/group":         {"internal/shares"},
	"github.com/cloudflare/circl/secretsharing": {"internal/shares"},
}

func checkOwners(files []*File) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		for i, p := range f.Imports() {
			list, owned := owners[p]
			if !owned || slices.Contains(list, f.Dir) || f.test() {
				continue
			}
			report(f.AST.Imports[i], "%s may not import %s: it belongs to %v", f.Dir, p, list)
		}
	})
}

// promises are how the package comments open.
var promises = map[string]string{
	"ca":                           "Package ca issues, revokes, publishes CRLs and recovers",
	"ocsp":                         "Package ocsp answers what the journal says of a certificate, or that it cannot",
	"tsa":                          "Package tsa binds a hash to a time only while it can vouch for its clock",
	"policy":                       "Package policy decides what may be signed and writes the bytes to be signed",
	"policy/algorithms":            "Package algorithms says which algorithm may be used for what, until when",
	"hsm":                          "Package hsm gives the daemons signing keys that they cannot read",
	"internal/journal":             "Package journal is the append-only memory of a daemon",
	"internal/clock":               "Package clock tells UTC and how far it may be off, or refuses",
	"internal/desk":                "Package desk holds the words that the officers' tool and the daemons exchange, and who may say them",
	"internal/daemon":              "Package daemon is what the daemons share",
	"internal/der":                 "Package der reads strict DER and writes canonical DER",
	"internal/durable":             "Package durable makes a file whole or not there",
	"internal/failpoint":           "Package failpoint lets a test die, or fail, before and after every durable step",
	"internal/locked":              "Package locked keeps secrets in memory that is neither swapped out nor dumped",
	"internal/shares":              "Package shares splits a PIN so that k of n people are needed to have it again, and says whose share is wrong before a token is asked",
	"internal/activation":          "Package activation lets officers open the tokens of a daemon, and close them",
	"internal/strictyaml":          "Package strictyaml reads YAML that refuses what it does not know",
	"internal/archtest":            "Package archtest keeps the shape of the house",
	"internal/manual":              "Package manual writes docs/reference.md from the code",
	"internal/figures":             "Command figures prints the tables of docs/performance.md",
	"internal/audit":               "Package audit re-judges a whole journal",
	"internal/journal/journaltest": "Package journaltest ",
	"hsm/hsmtest":                  "Package hsmtest ",
	"hsm/internal/cryptoki":        "Package cryptoki calls a PKCS#11 library, in this process or in one of its own that can be killed",
	"testdata/request":             "Package request ",
	"cmd/zegel":                    "Command zegel is the officers' tool",
	"cmd/zegel-ca":                 "Command zegel-ca ",
	"cmd/zegel-ocsp":               "Command zegel-ocsp ",
	"cmd/zegel-tsa":                "Command zegel-tsa ",
	"cmd/zegel-ceremony":           "Command zegel-ceremony ",
}

func checkPackageComments(files []*File) []string {
	comments := map[string][]string{}
	seen := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f.AST.Name.Name, "_test") {
			continue
		}
		seen[f.Dir] = true
		if f.AST.Doc != nil {
			comments[f.Dir] = append(comments[f.Dir], strings.Join(strings.Fields(f.AST.Doc.Text()), " "))
		}
	}
	var faults []string
	for dir := range seen {
		switch list := comments[dir]; {
		case len(list) != 1:
			faults = append(faults, fmt.Sprintf("%s: %d package comments, want one", dir, len(list)))
		case promises[dir] == "" || !strings.HasPrefix(list[0], promises[dir]):
			faults = append(faults, fmt.Sprintf("%s: its comment opens %.60q, its promise is %q", dir, list[0], promises[dir]))
		}
	}
	return faults
}

func checkExported(files []*File) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		if f.test() || f.AST.Name.Name == "main" {
			return
		}
		for _, d := range f.AST.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !conventional(d) {
					report(d, "%s is not documented", d.Name.Name)
				}
			case *ast.GenDecl:
				undocumented(d, report)
			}
		}
	})
}

// conventional methods need no words: their interface has them.
func conventional(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{"Error", "Unwrap", "String", "ServeHTTP"}, d.Name.Name)
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if index, ok := t.(*ast.IndexExpr); ok {
		t = index.X
	}
	name, ok := t.(*ast.Ident)
	return !ok || name.IsExported()
}

// undocumented reports exported types, constants and variables without a word, their group's or their own.
func undocumented(d *ast.GenDecl, report func(ast.Node, string, ...any)) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				report(s, "%s is not documented", s.Name.Name)
			}
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					report(s, "%s is not documented", n.Name)
				}
			}
		}
	}
}

// maxLines is the greatest length of a function.
const maxLines = 100

func checkLength(files []*File) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxLines {
				report(fn, "%s has %d lines", fn.Name.Name, n)
			}
		}
	})
}

var drawers = []string{"util", "utils", "common", "core", "helper", "helpers", "manager", "pkg", "misc", "base"}

func checkNames(files []*File) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		for part := range strings.SplitSeq(path.Join(f.Dir, strings.TrimSuffix(f.Name, ".go")), "/") {
			if slices.Contains(drawers, part) {
				report(f.AST, "%q says nothing of what is in it", part)
			}
		}
	})
}

func checkExit(files []*File) []string {
	return eachCall(files, func(f *File, call string) string {
		if strings.HasPrefix(call, "os.Exit") && f.Dir != "internal/daemon" && f.Name != "main.go" && !f.test() {
			return "os.Exit outside main"
		}
		if (strings.HasPrefix(call, "log.Fatal") || strings.HasPrefix(call, "log.Panic")) && !f.test() {
			return call + " ends the process"
		}
		return ""
	})
}

func checkPanic(files []*File) []string {
	return eachCall(files, func(f *File, call string) string {
		if call == "panic" && !f.test() {
			return "panic: return an error"
		}
		return ""
	})
}

func checkSkip(files []*File) []string {
	return eachCall(files, func(_ *File, call string) string {
		_, method, _ := strings.Cut(call, ".")
		if method == "Skip" || method == "SkipNow" || method == "Skipf" {
			return call + ": install what the test needs instead"
		}
		return ""
	})
}

func checkInit(files []*File) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				report(fn, "init: make it explicit")
			}
		}
	})
}

// each collects what check reports of every file, with its place, sorted.
func each(files []*File, check func(f *File, report func(at ast.Node, format string, args ...any))) []string {
	var faults []string
	for _, f := range files {
		check(f, func(at ast.Node, format string, args ...any) {
			faults = append(faults, f.at(at)+": "+fmt.Sprintf(format, args...))
		})
	}
	sort.Strings(faults)
	return faults
}

// eachCall asks judge about every call, named as it is written: panic, os.Exit, t.Skip.
func eachCall(files []*File, judge func(f *File, call string) string) []string {
	return each(files, func(f *File, report func(ast.Node, string, ...any)) {
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch fn := call.Fun.(type) {
			case *ast.Ident:
				name = fn.Name
			case *ast.SelectorExpr:
				if x, ok := fn.X.(*ast.Ident); ok {
					name = x.Name + "." + fn.Sel.Name
				}
			}
			if fault := judge(f, name); name != "" && fault != "" {
				report(call, "%s", fault)
			}
			return true
		})
	})
}
