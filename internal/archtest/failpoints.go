package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"sort"
)

// durableCalls make something durable, by the last two parts of their names: where one is called, a test must be able to die.
var durableCalls = map[string]bool{
	"durable.WriteFile": true, "durable.CreateFile": true, "durable.Rename": true, // internal/durable's own steps are inside
	"j.update": true, "ctx.GenerateKeyPair": true, "ctx.GenerateKey": true, "ctx.UnwrapKey": true, "ctx.CreateObject": true, "ctx.CopyObject": true, "ctx.DestroyObject": true,
}

// pointless are files whose durable writes are no steps of a service, as the package comment of failpoint has it. The keys that
// hsm/bench.go makes are session objects: nothing stores them. What token split writes is whole before the PIN is changed, and is of no
// use to anybody when it is not.
var pointless = []string{"hsm/bench.go", "cmd/zegel/demo.go", "cmd/zegel/demo_provider.go", "cmd/zegel/demo_walk.go", "cmd/zegel/token_pin.go"}

// checkFailpoints wants each step of package failpoint taken at exactly one place, and every durable write within one.
func checkFailpoints(files []*File) []string {
	var faults []string
	declared, used := map[string]bool{}, map[string]int{}
	for _, f := range files {
		if f.test() {
			continue
		}
		if f.Dir == "internal/failpoint" {
			for _, name := range stepNames(f) {
				declared[name] = true
			}
			continue
		}
		covered := uses(f, used)
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !durableCalls[lastTwo(call.Fun)] || slices.Contains(pointless, path.Join(f.Dir, f.Name)) {
				return true
			}
			if !slices.ContainsFunc(covered, func(c *ast.CallExpr) bool { return c.Pos() <= call.Pos() && call.End() <= c.End() }) {
				faults = append(faults, fmt.Sprintf("%s: %s is not within a failpoint", f.at(call), lastTwo(call.Fun)))
			}
			return true
		})
	}
	for name := range declared {
		if used[name] != 1 {
			faults = append(faults, fmt.Sprintf("failpoint.%s is taken at %d places, want one", name, used[name]))
		}
	}
	sort.Strings(faults)
	return faults
}

// uses counts the names of package failpoint that f uses, and returns its calls.
func uses(f *File, used map[string]int) (calls []*ast.CallExpr) {
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "failpoint" {
				used[n.Sel.Name]++
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.SelectorExpr); ok {
				if x, ok := fn.X.(*ast.Ident); ok && x.Name == "failpoint" {
					calls = append(calls, n)
				}
			}
		}
		return true
	})
	return calls
}

// stepNames are the exported constants of the block that begins with one of type Step.
func stepNames(f *File) (names []string) {
	for _, d := range f.AST.Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		first, ok := block.Specs[0].(*ast.ValueSpec)
		if kind, named := first.Type.(*ast.Ident); !ok || !named || kind.Name != "Step" {
			continue
		}
		for _, s := range block.Specs {
			for _, n := range s.(*ast.ValueSpec).Names {
				if n.IsExported() {
					names = append(names, n.Name)
				}
			}
		}
	}
	return names
}

// lastTwo is x.f of a call of x.f or of a.x.f, else "".
func lastTwo(fn ast.Expr) string {
	s, ok := fn.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	switch x := s.X.(type) {
	case *ast.Ident:
		return x.Name + "." + s.Sel.Name
	case *ast.SelectorExpr:
		return x.Sel.Name + "." + s.Sel.Name
	}
	return ""
}
