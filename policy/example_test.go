package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy"
)

// exampleRoot is what it takes to make a root: its profile, a request and itself as the issuer.
func exampleRoot() (*policy.Profile, policy.Request, policy.Issuer, error) {
	profile, err := policy.Builtin("root-ca")
	if err != nil {
		return nil, policy.Request{}, policy.Issuer{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, policy.Request{}, policy.Issuer{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, policy.Request{}, policy.Issuer{}, err
	}
	algorithm, err := der.AlgorithmFor(key.Public(), "")
	begin := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	request := policy.Request{
		Subject: &policy.Subject{Attributes: []policy.Attribute{
			{Type: "countryName", Value: "NL"},
			{Type: "organizationName", Value: "TEST Provider B.V."},
			{Type: "organizationIdentifier", Value: "NTRNL-12345678"},
			{Type: "commonName", Value: "TEST Root"},
		}},
		PublicKey: spki,
		Serial:    []byte{1},
		NotBefore: begin,
		NotAfter:  begin.Add(profile.Validity()),
	}
	return profile, request, policy.Issuer{PublicKey: key.Public(), Algorithm: algorithm}, err
}

// From request to draft: what a CA does before its key is asked.
func ExampleProfile_TBS() {
	profile, request, issuer, err := exampleRoot()
	if err != nil {
		fmt.Println(err)
		return
	}
	tbs, err := profile.TBS(request, issuer)
	if err != nil {
		fmt.Println(err)
		return
	}
	draft := policy.Draft(tbs, issuer)
	fmt.Println("rules:", profile.Check(draft))
	fmt.Println("lints:", policy.Lint(draft))

	request.NotAfter = request.NotAfter.AddDate(1, 0, 0)
	_, err = profile.TBS(request, issuer)
	fmt.Println(err)
	// Output:
	// rules: <nil>
	// lints: <nil>
	// EN 319 411-1 GEN-6.6.1-01: validity of 4018 days: profile root-ca allows 3653 days at most
}

// A certificate is judged by the profile it is said to have.
func ExampleProfile_Check() {
	profile, request, issuer, err := exampleRoot()
	if err != nil {
		fmt.Println(err)
		return
	}
	tbs, err := profile.TBS(request, issuer)
	if err != nil {
		fmt.Println(err)
		return
	}
	issuing, err := policy.Builtin("issuing-ca")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(issuing.Check(policy.Draft(tbs, issuer)))
	// Output:
	// RFC 5280 §4.2.1.9: pathLenConstraint is -1, the profile has 0 (-1 is none)
	// RFC 5280 §3.2: subject has the name of its issuer
	// EN 319 412-2 GEN-4.3.3-2: certificatePolicies is missing
	// EN 319 412-2 GEN-4.3.11-1: cRLDistributionPoints is missing
	// EN 319 412-2 GEN-4.4.1-2: authorityInfoAccess has no caIssuers
	// EN 319 411-1 GEN-6.6.1-01: validity of 3653 days: profile issuing-ca allows 2922 days at most
}

// A name that is not known says which was meant.
func ExampleBuiltin() {
	_, err := policy.Builtin("qcp-n-qcsd")
	fmt.Println(err)
	// Output:
	// find profile "qcp-n-qcsd": unknown; did you mean "qcp-n-qscd"? the profiles are root-ca, issuing-ca, ocsp-responder, tsu, qcp-n, qcp-n-qscd, qcp-l, qcp-l-qscd
}
