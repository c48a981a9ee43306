package policy

import (
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// A certificate may not outlive the algorithm of the signature on it, to the second. No row that a CA can sign by has an end today, so
// the table of this test gives one to each.
func TestSignatureOutlived(t *testing.T) {
	end := time.Date(2028, time.December, 31, 23, 59, 59, 0, time.UTC)
	table := algorithms.InForce()
	for i := range table {
		table[i].Until = end
	}
	for _, key := range []algorithms.Key{algorithms.Named("p384", ""), algorithms.Named("rsa3072", der.PSS), algorithms.Named("rsa4096", "")} {
		if v := signatureViolations(table, key, end); v != nil {
			t.Errorf("%s, a certificate that ends with the algorithm: %v", key, v)
		}
		if v := signatureViolations(table, key, end.Add(time.Second)); len(v) != 1 || v[0].Clause == "" {
			t.Errorf("%s, a certificate that ends a second later: %v, want one violation with its clause", key, v)
		}
		if v := signatureViolations(algorithms.InForce(), key, end.AddDate(100, 0, 0)); v != nil {
			t.Errorf("%s, without an end: %v", key, v)
		}
	}
}

// What the table refuses is a violation with its clause: exit status 3.
func TestCheckKeyAlgorithm(t *testing.T) {
	now := time.Date(2026, time.November, 23, 0, 0, 0, 0, time.UTC)
	if _, err := CheckKeyAlgorithm(algorithms.Named("p256", ""), algorithms.TSU, now); err != nil {
		t.Error(err)
	}
	_, err := CheckKeyAlgorithm(algorithms.Named("ed25519", ""), algorithms.TSU, now)
	wantClause(t, err, "EN 319 412-2 GEN-4.2.5-2")
}
