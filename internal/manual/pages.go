package manual

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/zegel-tsp/zegel/internal/archtest"
)

// metricName is the name of one of our metrics.
var metricName = regexp.MustCompile(`\bzegel_(?:ca|ocsp|tsa|token|key|build)_[a-z0-9_]*[a-z0-9]\b`)

// Metrics are the names of all metrics that the code makes, sorted. A file that builds names from a prefix ("zegel_ca_" +
// name) does so in functions called counter and gauge, whose first argument is the rest.
func Metrics(files []*archtest.File) []string {
	found := make(map[string]bool)
	for _, f := range files {
		if strings.HasSuffix(f.Name, "_test.go") || f.Dir == "internal/manual" {
			continue
		}
		prefix := ""
		var rest []string
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				switch text := literal(n); {
				case metricName.FindString(text) == text && text != "":
					found[text] = true
				case strings.HasPrefix(text, "zegel_") && strings.HasSuffix(text, "_"):
					prefix = text
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "counter" || fn.Name == "gauge") && len(n.Args) > 0 {
					if l, ok := n.Args[0].(*ast.BasicLit); ok {
						rest = append(rest, literal(l))
					}
				}
			}
			return true
		})
		for _, name := range rest {
			if prefix != "" {
				found[prefix+name] = true
			}
		}
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func literal(l *ast.BasicLit) string {
	if l.Kind != token.STRING {
		return ""
	}
	text, err := strconv.Unquote(l.Value)
	if err != nil {
		return ""
	}
	return text
}

// Life is one of the five lives in ARCHITECTURE.md: a job, and where it can be followed from request to reply.
type Life struct {
	Name  string
	Steps []Step
}

// Step is a file of a Life, with the functions to read in it: Name, or Type.Name for a method.
type Step struct {
	File      string
	Functions []string
}

// Bounds of a Life: whoever reads it has it on a few screens.
const (
	maxFiles = 4
	maxLines = 800
)

var (
	lifeHeading = regexp.MustCompile(`(?m)^### \d\. (.*)$`)
	lifeFiles   = regexp.MustCompile("(?ms)^Read (.*?)\\.\n\n")
	codeWord    = regexp.MustCompile("`([^`]+)`")
)

// Lives reads the five lives of ARCHITECTURE.md: below "## Five lives" one heading "### 1. Name" each, and a paragraph
// "Read `file`: `Function`, …; `file`: ….".
func Lives(text string) ([]Life, error) {
	_, part, found := strings.Cut(text, "\n## Five lives\n")
	if !found {
		return nil, fmt.Errorf("read the five lives: no such part")
	}
	part, _, _ = strings.Cut(part, "\n## ")
	var list []Life
	at := lifeHeading.FindAllStringSubmatchIndex(part, -1)
	for i, m := range at {
		end := len(part)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		life := Life{Name: part[m[2]:m[3]]}
		files := lifeFiles.FindStringSubmatch(part[m[1]:end])
		if files == nil {
			return nil, fmt.Errorf("read the five lives: %s: no paragraph that begins Read", life.Name)
		}
		for _, word := range codeWord.FindAllStringSubmatch(files[1], -1) {
			switch n := len(life.Steps); {
			case strings.HasSuffix(word[1], ".go"):
				life.Steps = append(life.Steps, Step{File: word[1]})
			case n == 0:
				return nil, fmt.Errorf("read the five lives: %s: %s before any file", life.Name, word[1])
			default:
				life.Steps[n-1].Functions = append(life.Steps[n-1].Functions, word[1])
			}
		}
		list = append(list, life)
	}
	return list, nil
}

// Check holds a Life against the tree below root: at most 4 files and 800 lines, each file there, with its functions.
func (l Life) Check(root string, files []*archtest.File) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, l.Name+": "+fmt.Sprintf(format, args...)) }
	if len(l.Steps) == 0 || len(l.Steps) > maxFiles {
		fault("%d files to read, want 1 to %d", len(l.Steps), maxFiles)
	}
	total := 0
	for _, s := range l.Steps {
		text, err := os.ReadFile(filepath.Join(root, s.File))
		if err != nil {
			fault("%v", err)
			continue
		}
		total += strings.Count(string(text), "\n")
		if len(s.Functions) == 0 {
			fault("%s: no function is named", s.File)
		}
		there := functions(files, s.File)
		for _, name := range s.Functions {
			if !slices.Contains(there, name) {
				fault("%s has no %s", s.File, name)
			}
		}
	}
	if total > maxLines {
		fault("%d lines to read, want at most %d", total, maxLines)
	}
	return faults
}

// functions are those of one file: Name, or Type.Name.
func functions(files []*archtest.File, file string) (names []string) {
	for _, f := range files {
		if path.Join(f.Dir, f.Name) != file {
			continue
		}
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := fn.Name.Name
			if fn.Recv != nil && len(fn.Recv.List) == 1 {
				name = typeName(fn.Recv.List[0].Type) + "." + name
			}
			names = append(names, name)
		}
	}
	return names
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile("(?m)^#+ (.*)$")
)

// BrokenLinks are the links of a page, which lies in dir below root, that lead to no file or heading of the tree.
func BrokenLinks(root, dir, text string) (faults []string) {
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		target, part, _ := strings.Cut(m[1], "#")
		if strings.Contains(target, "://") {
			continue
		}
		page := text
		if target != "" {
			raw, err := os.ReadFile(filepath.Join(root, dir, target))
			if err != nil {
				faults = append(faults, m[1]+": no such file")
				continue
			}
			page = string(raw)
		}
		if part == "" {
			continue
		}
		found := slices.ContainsFunc(heading.FindAllStringSubmatch(page, -1), func(h []string) bool { return anchor(h[1]) == part })
		if !found {
			faults = append(faults, m[1]+": no such heading")
		}
	}
	return faults
}
