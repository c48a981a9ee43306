package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The whole tree keeps every rule.
func TestTree(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	files, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Rules() {
		for _, fault := range r.Check(files) {
			t.Errorf("%s: %s", r.Name, fault)
		}
	}
}

// Each rule was seen to fail: the source breaks it, and only what it says; the other passes.
func TestRulesFail(t *testing.T) {
	seen := map[string]bool{}
	long := "package der\nfunc f() {\n" + strings.Repeat("\t_ = 1\n", 100) + "}\n"
	for _, c := range []struct{ rule, file, bad, good, says string }{
		{"imports", "ocsp/x.go", `package ocsp; import _ "github.com/zegel-tsp/zegel/policy"`, `package ocsp; import _ "github.com/zegel-tsp/zegel/internal/der"`, "ocsp may not import policy"},
		{"imports", "ca/x.go", `package ca; import _ "github.com/zegel-tsp/zegel/hsm"`, `package ca; import _ "github.com/zegel-tsp/zegel/policy"`, "ca may not import hsm"},
		{"imports", "tsa/x.go", `package tsa; import _ "github.com/zegel-tsp/zegel/ocsp"`, `package tsa`, "tsa may not import ocsp"},
		{"imports", "cmd/zegel/x.go", `package main; import _ "github.com/zegel-tsp/zegel/ca"`, `package main`, "may not import ca"},
		{"imports", "internal/der/x.go", `package der; import _ "github.com/zegel-tsp/zegel/internal/durable"`, `package der`, "may not import internal/durable"},
		{"library", "ca/x.go", `package ca; import _ "github.com/miekg/pkcs11"`, `package ca`, "belongs to [hsm"},
		{"library", "hsm/x.go", `package hsm; import _ "go.etcd.io/bbolt"`, `package hsm; import _ "github.com/miekg/pkcs11"`, "belongs to [internal/journal"},
		{"library", "tsa/x.go", `package tsa; import _ "github.com/digitorus/timestamp"`, `package tsa`, "belongs to []"},
		{"promise", "ca/x.go", "// Package ca does things.\npackage ca", "// Package ca issues, revokes, publishes CRLs and recovers: and more.\npackage ca", "its promise is"},
		{"promise", "ca/x.go", "package ca", "// Package ca issues, revokes, publishes CRLs and recovers: x\npackage ca", "0 package comments"},
		{"documented", "ca/x.go", "package ca\nfunc F() {}", "package ca\n// F is one.\nfunc F() {}", "F is not documented"},
		{"documented", "ca/x.go", "package ca\ntype T int", "package ca\n// T is one.\ntype T int", "T is not documented"},
		{"documented", "ca/x.go", "package ca\nvar V int", "package ca\nvar V int // V is one", "V is not documented"},
		{"100 lines", "internal/der/x.go", long, "package der\nfunc f() {}", "f has 102 lines"},
		{"drawer", "ca/util.go", "package ca", "package ca", `"util"`},
		{"main ends", "ca/x.go", "package ca\nimport \"os\"\nfunc f() { os.Exit(1) }", "package ca", "os.Exit outside main"},
		{"main ends", "ca/x.go", "package ca\nimport \"log\"\nfunc f() { log.Fatal() }", "package ca", "log.Fatal ends"},
		{"panic", "ca/x.go", "package ca\nfunc f() { panic(1) }", "package ca", "return an error"},
		{"no init", "ca/x.go", "package ca\nfunc init() {}", "package ca\nfunc (T) init() {}", "make it explicit"},
		{"skipped", "ca/x_test.go", "package ca\nfunc f(t T) { t." + "Skip() }", "package ca", "install what the test needs"},
		{"durable step", "ca/x.go", "package ca\nfunc f() { durable.WriteFile() }", "package ca\nfunc f() { failpoint.Do(failpoint.A, func() error { return durable.WriteFile() }) }", "durable.WriteFile is not within"},
		{"durable step", "hsm/x.go", "package hsm\nfunc f() { t.ctx.GenerateKey() }", "package hsm\nfunc f() { failpoint.Do(failpoint.A, t.ctx.Sign) }", "ctx.GenerateKey is not within"},
		{"durable step", "internal/failpoint/x.go", "package failpoint\nconst (\n\tA Step = iota\n\tsteps\n)", "package failpoint\nconst steps = 1", "failpoint.A is taken at 0 places"},
	} {
		rule := find(t, c.rule)
		seen[rule.Name] = true
		if faults := rule.Check(sources(t, c.file, c.bad)); len(faults) != 1 || !strings.Contains(faults[0], c.says) {
			t.Errorf("%s: %q: got %q, want one fault with %q", rule.Name, c.bad, faults, c.says)
		}
		good := c.file
		if c.rule == "drawer" {
			good = "ca/issue.go"
		}
		if faults := rule.Check(sources(t, good, c.good)); len(faults) != 0 {
			t.Errorf("%s: %q: got %q, want none", rule.Name, c.good, faults)
		}
	}
	for _, r := range Rules() {
		if !seen[r.Name] {
			t.Errorf("nobody has seen this rule fail: %s", r.Name)
		}
	}
}

// A step that is taken twice would be tested once.
func TestStepTakenTwice(t *testing.T) {
	files := append(sources(t, "internal/failpoint/x.go", "package failpoint\nconst A Step = iota"), sources(t, "ca/x.go", "package ca\nvar a, b = failpoint.A, failpoint.A")...)
	if faults := checkFailpoints(files); len(faults) != 1 || !strings.Contains(faults[0], "at 2 places") {
		t.Errorf("got %q", faults)
	}
	if faults := checkFailpoints(files[:1]); len(faults) != 1 {
		t.Errorf("got %q", faults)
	}
}

// A package that nobody gave a place is a fault: a new room is a decision.
func TestUnknownPackage(t *testing.T) {
	if faults := checkImports(sources(t, "newroom/x.go", "package newroom")); len(faults) != 1 {
		t.Errorf("got %q", faults)
	}
}

func find(t *testing.T, word string) Rule {
	t.Helper()
	for _, r := range Rules() {
		if strings.Contains(r.Name, word) {
			return r
		}
	}
	t.Fatalf("no rule %q", word)
	return Rule{}
}

func sources(t *testing.T, name, text string) []*File {
	t.Helper()
	f, err := parse(name, name, text)
	if err != nil {
		t.Fatal(err)
	}
	return []*File{f}
}
