package policy

import (
	"fmt"
)

// rules411 are the rules of EN 319 411-1 and 411-2 on certificates.
var rules411 = []rule{
	{"validity_too_long", "EN 319 411-1 GEN-6.6.1-01", nil, validityTooLong},
	{"ca_key_for_something_else", "EN 319 411-1 GEN-6.5.3-03", isCA, caKeyForSomethingElse},
	{"validity_assured", "EN 319 411-1 GEN-6.6.1-05", nil, extensionForbidden(oidValidityAssured, "id-etsi-ext-valassured-ST-certs")},
	{"policies_not_the_profiles", "EN 319 411-2 GEN-6.6.1-05", hasPolicies, policiesNotTheProfiles},
}

func validityTooLong(c *certificate, p *Profile) string {
	if life := c.to.time.Sub(c.from.time); life > p.validity {
		return fmt.Sprintf("validity of %s: profile %s allows %s at most", inDays(life), p.name, inDays(p.validity))
	}
	return ""
}

// caKeyForSomethingElse judges by the bits alone, whatever type the profile says.
func caKeyForSomethingElse(c *certificate, _ *Profile) string {
	e, _ := c.find(oidKeyUsage)
	if bits, _ := readKeyUsage(e.Value); bits&^(bitKeyCertSign|bitCRLSign) != 0 {
		return fmt.Sprintf("keyUsage bits %08b: a CA key signs certificates and CRLs, nothing else", bits)
	}
	return ""
}

func policiesNotTheProfiles(c *certificate, p *Profile) string {
	e, there := c.find(oidCertificatePolicies)
	if policies, ok := readPolicies(e.Value); there && (!ok || !sameOIDs(policies, p.policies)) {
		return fmt.Sprintf("certificatePolicies is %v, the profile has %v", policies, p.policies)
	}
	return ""
}
