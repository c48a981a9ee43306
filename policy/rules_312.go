package policy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// rules312 are the rules of TS 119 312 on certificates, beside keyViolations.
var rules312 = []rule{
	{"key_outlives_algorithm", "ETSI TS 119 312 V2.1.1 table 6", nil, keyOutlivesAlgorithm},
}

// keyOutlivesAlgorithm finds a certificate that ends after the last moment at which anything its key signs counts. A key that nobody
// here can read is keyViolations' to report.
func keyOutlivesAlgorithm(c *certificate, _ *Profile) string {
	public, err := x509.ParsePKIXPublicKey(c.spki)
	if err != nil {
		return ""
	}
	end, _ := algorithms.InForce().KeyUntil(public)
	if end.IsZero() || !c.to.time.After(end) {
		return ""
	}
	return fmt.Sprintf("the certificate ends at %s, what its key can sign with at %s: let it end before, or certify another key", stamp(c.to.time), stamp(end))
}

// signatureViolations finds a certificate that ends after the last moment at which the signature on it, by key, counts.
func signatureViolations(t algorithms.Table, key algorithms.Key, notAfter time.Time) Violations {
	var v Violations
	if end, clause := t.Until(key); !end.IsZero() && notAfter.After(end) {
		v.add(clause, "the certificate ends at %s, the algorithm that signs it at %s: let it end before, or have a CA sign it that signs with another",
			stamp(notAfter), stamp(end))
	}
	return v
}

// CheckKeyAlgorithm judges whether a key of that kind may do use at the time at; what the table refuses is Violations. A warning says what
// will have to be done.
func CheckKeyAlgorithm(key algorithms.Key, use algorithms.Use, at time.Time) (warning string, err error) {
	warning, err = algorithms.InForce().Check(key, use, at)
	var refused *algorithms.Refused
	if errors.As(err, &refused) {
		return "", Violations{{Clause: refused.Clause, Detail: refused.Detail}}
	}
	return warning, err
}
