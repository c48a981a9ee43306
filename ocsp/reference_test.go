package ocsp

import (
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of keys that ocsp.yaml leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	life, err := statusLife(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range manual.WrongDefaults("..", "ocsp.yaml", map[string]any{
		"status_life":                life,
		"responder.signature_scheme": der.Scheme("").ForRSA(),
	}) {
		t.Error(fault)
	}
}
