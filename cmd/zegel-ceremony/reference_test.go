package main

import (
	"testing"

	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of keys that a script leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	var s script
	s.withDefaults()
	for _, fault := range manual.WrongDefaults("../..", "Ceremony script", map[string]any{
		"ceremony.participants[].external": participant{}.External, "validity_days.tls": s.Validity.TLS,
		"crl.every": s.CRL.Every, "crl.life": s.CRL.Life, "crl.root_life": s.CRL.RootLife, "status_life": s.StatusLife,
		"tsa.policy": s.TSA.Policy, "tsa.accuracy": s.TSA.Accuracy, "tsa.qualified": *s.TSA.Qualified,
	}) {
		t.Error(fault)
	}
	if s.Keys.Management.Algorithm != "p256" {
		t.Errorf("management key: %q; the reference says p256", s.Keys.Management.Algorithm)
	}
}
