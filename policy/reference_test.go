package policy

import (
	"testing"

	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of keys that a profile leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	var limit limitValue
	for _, fault := range manual.WrongDefaults("..", "Profile", map[string]any{
		"qc_statements.qc_limit_value.amount": limit.Amount, "qc_statements.qc_limit_value.exponent": limit.Exponent,
	}) {
		t.Error(fault)
	}
}
