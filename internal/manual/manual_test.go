package manual

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

const root = "../.."

func read(t *testing.T) []Document {
	t.Helper()
	list, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// docs/reference.md says what the code says.
func TestReference(t *testing.T) {
	want := Reference(read(t))
	file := filepath.Join(root, "docs", "reference.md")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := page(t, "docs/reference.md")
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("docs/reference.md:%d has\n%s\nthe code says\n%s\nrun make docs", i+1, g[i], w[i])
		}
	}
	t.Fatalf("docs/reference.md has %d lines, the code makes %d: run make docs", len(g), len(w))
}

// The table of algorithms in docs/tokens.md is the one that decides.
func TestReferenceAlgorithms(t *testing.T) {
	got := page(t, "docs/tokens.md")
	want, err := WithAlgorithms(got)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(root, "docs", "tokens.md"), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		got = page(t, "docs/tokens.md")
	}
	if got != want {
		t.Error("docs/tokens.md has another table of algorithms than the code: run make docs")
	}
	if _, err := WithAlgorithms("# A page\n"); err == nil {
		t.Error("a page without a place for the table passes")
	}
}

// A struct that would make a page nobody can use is an error that names the key.
func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ field, says string }{
		"no comment":             {"Listen string `yaml:\"listen\"`", "listen: its comment"},
		"nothing for left out":   {"// The address.\nListen string `yaml:\"listen\"`", "listen: its comment"},
		"nothing but left out":   {"// Required.\nListen string `yaml:\"listen\"`", "listen: its comment"},
		"marker not at the end":  {"// Required. The address.\nListen string `yaml:\"listen\"`", "listen: its comment"},
		"group without a word":   {"Issuer struct {\n// A. Required.\nKey string `yaml:\"key\"`\n} `yaml:\"issuer\"`", "issuer: its comment"},
		"type without a name":    {"// The address. Required.\nListen chan int `yaml:\"listen\"`", "listen: type"},
		"below, without comment": {"// The CA.\nIssuer issuer `yaml:\"issuer\"`", "issuer.key: its comment"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			source := "package main\ntype config struct {\n" + c.field + "\n}\ntype issuer struct { Key string `yaml:\"key\"` }\n"
			if err := os.MkdirAll(filepath.Join(dir, "cmd", "zegel-ca"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "cmd", "zegel-ca", "config.go"), []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
		})
	}
}
