package manual

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/zegel-tsp/zegel/internal/archtest"
)

// tree is the whole tree, parsed once for all tests.
var tree = sync.OnceValues(func() ([]*archtest.File, error) { return archtest.Load(root) })

func load(t *testing.T) []*archtest.File {
	t.Helper()
	files, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Each daemon's page has every metric of the daemon, and no other of ours.
func TestMetrics(t *testing.T) {
	names := Metrics(load(t))
	if len(names) < 25 {
		t.Fatalf("only %d metrics were found in the code: %v", len(names), names)
	}
	for _, daemon := range []string{"ca", "ocsp", "tsa"} {
		var want []string
		for _, name := range names {
			if strings.HasPrefix(name, "zegel_"+daemon+"_") || name == "zegel_build_info" {
				want = append(want, name)
			}
		}
		if len(want) < 5 {
			t.Errorf("%s: only %v were found in the code", daemon, want)
		}
		got := metricName.FindAllString(page(t, "docs/"+daemon+".md"), -1)
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("docs/%s.md has the metrics\n%v\nthe code makes\n%v", daemon, got, want)
		}
	}
}

// The page of tokens has every metric of tokens and key groups.
func TestTokenMetrics(t *testing.T) {
	var want []string
	for _, name := range Metrics(load(t)) {
		if strings.HasPrefix(name, "zegel_token_") || strings.HasPrefix(name, "zegel_key_") {
			want = append(want, name)
		}
	}
	got := metricName.FindAllString(page(t, "docs/tokens.md"), -1)
	slices.Sort(got)
	if got = slices.Compact(got); len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("docs/tokens.md has the metrics\n%v\nthe code makes\n%v", got, want)
	}
}

// Each of the five jobs can be followed in at most 4 files and 800 lines, by the names that ARCHITECTURE.md gives.
func TestFiveLives(t *testing.T) {
	lives, err := Lives(page(t, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(lives) != 5 {
		t.Errorf("%d lives", len(lives))
	}
	files := load(t)
	for _, l := range lives {
		for _, fault := range l.Check(root, files) {
			t.Errorf("ARCHITECTURE.md: %s", fault)
		}
	}
}

// The check of a life was seen to fail.
func TestLifeFails(t *testing.T) {
	files := load(t)
	for name, c := range map[string]struct {
		life Life
		says string
	}{
		"no file":     {Life{"x", nil}, "0 files"},
		"many files":  {Life{"x", slices.Repeat([]Step{{"go.mod", []string{"f"}}}, 5)}, "5 files"},
		"missing":     {Life{"x", []Step{{"ca/none.go", []string{"f"}}}}, "no such file"},
		"no function": {Life{"x", []Step{{"ca/issue.go", nil}}}, "no function is named"},
		"renamed":     {Life{"x", []Step{{"ca/issue.go", []string{"Issuer.Isue"}}}}, "has no Issuer.Isue"},
		"long":        {Life{"x", []Step{{"cmd/zegel-ceremony/ceremony_test.go", []string{"TestCeremony"}}}}, "lines to read"},
	} {
		if faults := c.life.Check(root, files); !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, c.says) }) {
			t.Errorf("%s: got %q, want one with %q", name, faults, c.says)
		}
	}
	for _, text := range []string{"", "\n## Five lives\n\n### 1. A job\n\nNothing.\n", "\n## Five lives\n\n### 1. A job\n\nRead `f`, `a.go`.\n\n"} {
		if _, err := Lives(text); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}

// Every link of every page leads somewhere, and docs/README.md to every page of docs.
func TestLinks(t *testing.T) {
	index := page(t, "docs/README.md")
	for _, dir := range []string{".", "docs"} {
		names, err := filepath.Glob(filepath.Join(root, dir, "*.md"))
		if err != nil || len(names) < 4 {
			t.Fatalf("%v: %v", names, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			base := filepath.Base(name)
			for _, fault := range BrokenLinks(root, dir, string(text)) {
				t.Errorf("%s: %s", filepath.Join(dir, base), fault)
			}
			if dir == "docs" && base != "README.md" && !strings.Contains(index, "]("+base+")") {
				t.Errorf("docs/README.md does not lead to %s", base)
			}
		}
	}
	if faults := BrokenLinks(root, "docs", "[a](none.md) [b](ca.md#no-such) [c](#nor-this) [d](ca.md) [e](https://zegel.example/x)"); len(faults) != 3 {
		t.Errorf("of three broken links found %q", faults)
	}
}

// Every test that a page names as a proof exists: `package.TestName`.
func TestNamedTests(t *testing.T) {
	there := make(map[string]bool)
	for _, f := range load(t) {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasSuffix(f.Name, "_test.go") {
				there[f.Dir+"."+fn.Name.Name] = true
			}
		}
	}
	named := 0
	for _, name := range []string{"docs/threat-model.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"} {
		for _, m := range regexp.MustCompile("`([a-z/-]+[.]Test[A-Za-z]+)`").FindAllStringSubmatch(page(t, name), -1) {
			if named++; !there[m[1]] {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d tests are named", named)
	}
}

// The yaml blocks of a daemon's page have no key that the reference lacks.
func TestYAMLBlocks(t *testing.T) {
	tried := 0
	for _, d := range read(t) {
		name, isDaemon := strings.CutSuffix(d.Name, ".yaml")
		if !isDaemon {
			continue
		}
		_, block, found := strings.Cut(page(t, "docs/"+name+".md"), "```yaml\n")
		if !found {
			continue
		}
		block, _, _ = strings.Cut(block, "```")
		var keys yaml.Node
		if err := yaml.Unmarshal([]byte(block), &keys); err != nil {
			t.Errorf("docs/%s.md: %v", name, err)
			continue
		}
		for _, path := range paths(keys.Content[0], "") {
			tried++
			if _, ok := d.Key(path); !ok {
				t.Errorf("docs/%s.md has the key %s, the reference has not", name, path)
			}
		}
	}
	if tried < 20 {
		t.Errorf("only %d keys were tried", tried)
	}
}

// paths are the keys of a mapping and of those below it.
func paths(node *yaml.Node, prefix string) (list []string) {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(node.Content); i += 2 {
		list = append(list, prefix+node.Content[i].Value)
		list = append(list, paths(node.Content[i+1], prefix+node.Content[i].Value+".")...)
	}
	return list
}
