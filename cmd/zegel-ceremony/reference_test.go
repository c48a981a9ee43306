package main

import (
	"testing"

	"github.com/zegel-tsp/zegel/internal/manual"
)

// What docs/reference.md says of keys that a script leaves out is what happens.
func TestReferenceDefaults(t *testing.T) {
	var s script
	s.withDefaults()
	applied := map[string]any{
		"ceremony.participants[].external": participant{}.External, "validity_days.tls": s.Validity.TLS,
		"crl.every": s.CRL.Every, "crl.life": s.CRL.Life, "crl.root_life": s.CRL.RootLife, "status_life": s.StatusLife,
		"keys.management.algorithm": s.Keys.Management.Algorithm, "tsa.policy": s.TSA.Policy, "tsa.accuracy": s.TSA.Accuracy, "tsa.qualified": *s.TSA.Qualified,
	}
	for key, pair := range s.Keys.pairs() {
		applied[key+".signature_scheme"] = pair.SignatureScheme.ForRSA()
		applied[key+".backup"] = pair.Backup
	}
	for _, fault := range manual.WrongDefaults("../..", "Ceremony script", applied) {
		t.Error(fault)
	}
}
