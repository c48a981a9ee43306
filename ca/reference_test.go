package ca

import (
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of keys that ca.yaml leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	every, life := defaultCRLTimes(0, 0)
	for _, fault := range manual.WrongDefaults("..", "ca.yaml", map[string]any{
		"publish.every": every, "publish.life": life,
		"issuer.signature_scheme": der.Scheme("").ForRSA(),
	}) {
		t.Error(fault)
	}
	if every, _ := defaultCRLTimes(0, 10*time.Hour); every != 5*time.Hour {
		t.Errorf("with a life of 10h: every %v; the reference says half of it", every)
	}
}
