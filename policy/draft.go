package policy

// Draft is the certificate that tbs would become, with a placeholder signature of the algorithm and length that
// the issuer's key will make: what rules and lints judge. It verifies under no key.
func Draft(tbs []byte, i Issuer) []byte {
	return i.Algorithm.Signed(tbs, i.Algorithm.Placeholder(i.PublicKey))
}
