package policy

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestProfilesTakeTheirExamples: the example subject file of every profile that takes one makes a clean certificate.
func TestProfilesTakeTheirExamples(t *testing.T) {
	for _, name := range Builtins() {
		p := mustBuiltin(t, name)
		if !p.TakesSubject() {
			continue
		}
		file := filepath.Join("..", "testdata", "request", name+".yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		subject, err := ParseSubject(file, text)
		if err != nil {
			t.Fatal(err)
		}
		ca := testIssuerFor(t, p)
		r := testRequest(t, p, testKeyRSA())
		r.Subject = subject
		tbs, err := p.TBS(r, ca.issuer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		draft := Draft(tbs, ca.issuer)
		if err := errors.Join(p.Check(draft), Lint(draft)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
