package main

import (
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of keys that tsa.yaml leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	var c config
	for _, fault := range manual.WrongDefaults("../..", "tsa.yaml", map[string]any{
		"qualified":             c.Qualified,
		"unit.signature_scheme": der.Scheme("").ForRSA(),
	}) {
		t.Error(fault)
	}
}
