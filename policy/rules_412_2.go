package policy

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/zegel-tsp/zegel/internal/der"
)

// rules4122 are the rules of EN 319 412-2 on fields and extensions, which -3 takes over for legal persons.
// Those on the issuer's and subject's names are in subjectRules.
var rules4122 = []rule{
	{"critical_without_leave", "EN 319 412-2 GEN-4.1-2", nil, criticalWithoutLeave},
	{"extension_not_in_profile", "EN 319 411-1 GEN-6.6.1-01", nil, extensionNotInProfile},
	{"signature_algorithm_not_agreed", "EN 319 412-2 GEN-4.2.2-2", nil, signatureAlgorithmNotAgreed},
	{"authority_key_identifier_missing", "EN 319 412-2 GEN-4.3.1-1", nil, authorityKeyIdentifierMissing},
	{"authority_key_identifier_with_issuer", "EN 319 411-1 GEN-6.6.1-01", nil, authorityKeyIdentifierWithIssuer},
	{"key_usage_type", "EN 319 412-2 NAT-4.3.2-1", isEndEntity, keyUsageWrong},
	{"key_usage_for_signatures", "EN 319 412-2 NAT-4.3.2-2", isForSignatures, keyUsageWithoutCommitment},
	{"key_usage_for_seals", "EN 319 412-3 LEG-4.3.1-3", isForSeals, keyUsageWithoutCommitment},
	{"certificate_policies_critical", "EN 319 412-2 GEN-4.3.3-1", nil, critical(oidCertificatePolicies, "certificatePolicies")},
	{"certificate_policies_missing", "EN 319 412-2 GEN-4.3.3-2", hasPolicies, extensionMissing(oidCertificatePolicies, "certificatePolicies")},
	{"policy_mappings", "EN 319 412-2 GEN-4.3.4-1", nil, extensionForbidden(oidPolicyMappings, "policyMappings")},
	{"subject_alt_name_critical", "EN 319 412-2 GEN-4.3.5-1", nil, critical(oidSubjectAltName, "subjectAltName")},
	{"subject_alt_name_form", "RFC 5280 §4.2.1.6", nil, subjectAltNameForm},
	{"subject_alt_name_not_the_profiles", "EN 319 411-1 GEN-6.6.1-01", nil, subjectAltNameNotTheProfiles},
	{"subject_alt_name_missing", "EN 319 411-1 GEN-6.6.1-01", needsAltName, extensionMissing(oidSubjectAltName, "subjectAltName")},
	{"issuer_alt_name_critical", "EN 319 412-2 GEN-4.3.6-1", nil, critical(oidIssuerAltName, "issuerAltName")},
	{"name_constraints", "EN 319 412-2 GEN-4.3.8-1", nil, extensionForbidden(oidNameConstraints, "nameConstraints")},
	{"policy_constraints", "EN 319 412-2 GEN-4.3.9-1", nil, extensionForbidden(oidPolicyConstraints, "policyConstraints")},
	{"ext_key_usage_critical", "EN 319 412-2 GEN-4.3.10-1", isNotTSU, critical(oidExtKeyUsage, "extKeyUsage")},
	{"ext_key_usage_not_the_profiles", "EN 319 411-1 GEN-6.6.1-01", nil, extKeyUsageNotTheProfiles},
	{"crl_missing", "EN 319 412-2 GEN-4.3.11-1", needsCRL, extensionMissing(oidCRLDistributionPoints, "cRLDistributionPoints")},
	{"crl_not_http", "EN 319 412-2 GEN-4.3.11-4", nil, crlNotHTTP},
	{"crl_critical", "EN 319 412-2 GEN-4.3.11-5", nil, critical(oidCRLDistributionPoints, "cRLDistributionPoints")},
	{"inhibit_any_policy", "EN 319 412-2 GEN-4.3.12-1", nil, extensionForbidden(oidInhibitAnyPolicy, "inhibitAnyPolicy")},
	{"ca_issuers_missing", "EN 319 412-2 GEN-4.4.1-2", needsCAIssuers, accessMissing(oidAccessCAIssuers, "caIssuers")},
	{"ca_issuers_not_http", "EN 319 412-2 GEN-4.4.1-3", nil, accessNotHTTP(oidAccessCAIssuers, "caIssuers")},
	{"access_not_in_profile", "EN 319 411-1 GEN-6.6.1-01", nil, accessNotInProfile},
	{"ocsp_missing", "EN 319 412-2 GEN-4.4.1-5", needsOCSP, accessMissing(oidAccessOCSP, "ocsp")},
	{"ocsp_not_http", "EN 319 412-2 GEN-4.4.1-6", nil, accessNotHTTP(oidAccessOCSP, "ocsp")},
	{"qc_statements_missing", "EN 319 412-2 QCS-5.1-1", hasStatements, extensionMissing(oidQCStatements, "qcStatements")},
	{"policy_contradicts_statements", "EN 319 412-2 QCS-5.2-2", nil, policyContradictsStatements},
}

// criticalWithoutLeave: only what RFC 5280 or the 412 series lets be critical may be.
func criticalWithoutLeave(c *certificate, p *Profile) string {
	for _, e := range c.extensions {
		allowed := e.ID.Equal(oidKeyUsage) || e.ID.Equal(oidBasicConstraints) || e.ID.Equal(oidExtKeyUsage) && p.ekuCritical
		if e.Critical && !allowed {
			return fmt.Sprintf("extension %v is critical", e.ID)
		}
	}
	return ""
}

// extensionNotInProfile finds extensions the profile has no word for. Those with a rule of their own are left to it.
func extensionNotInProfile(c *certificate, p *Profile) string {
	allowed := []asn1.ObjectIdentifier{oidAuthorityKeyIdentifier, oidSubjectKeyIdentifier, oidKeyUsage}
	for _, optional := range []struct {
		id asn1.ObjectIdentifier
		ok bool
	}{
		{oidCertificatePolicies, len(p.policies) > 0},
		{oidSubjectAltName, p.altName != absent},
		{oidExtKeyUsage, len(p.purposes) > 0},
		{oidCRLDistributionPoints, p.crl != absent},
		{oidAuthorityInfoAccess, p.caIssuers != absent || p.ocsp != absent},
		{oidQCStatements, p.qc.present},
	} {
		if optional.ok {
			allowed = append(allowed, optional.id)
		}
	}
	for _, e := range c.extensions {
		if !slices.ContainsFunc(allowed, e.ID.Equal) && !slices.ContainsFunc(extensionOwners, e.ID.Equal) {
			return fmt.Sprintf("extension %v has no place in profile %s", e.ID, p.name)
		}
	}
	return ""
}

// agreedAlgorithms are the AlgorithmIdentifiers of TS 119 312 V2.1.1 that the ECCG agrees to and this CA signs
// with: ECDSA with SHA-2 (RFC 5758 §3.2, parameters absent), RSASSA-PKCS1-v1_5 with SHA-2 (RFC 4055 §5, parameters NULL),
// RSASSA-PSS with SHA-2, MGF1 with the same hash and a salt of its length (RFC 4055 §3.1, pssParameters).
var agreedAlgorithms = []struct {
	id         asn1.ObjectIdentifier
	parameters []byte
}{
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, nil},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, nil},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, nil},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, asn1.NullBytes},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, asn1.NullBytes},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, asn1.NullBytes},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, pssParameters(1, 32)},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, pssParameters(2, 48)},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, pssParameters(3, 64)},
}

// pssParameters are the octets of RSASSA-PSS-params (RFC 4055 §3.1) with a hash of NIST's arc 2.16.840.1.101.3.4.2, its
// parameters NULL, in both places, and a salt of that many octets; trailerField is the default and left out.
func pssParameters(hash, salt byte) []byte {
	return []byte{
		0x30, 0x34,
		0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, hash, 0x05, 0x00,
		0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
		0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, hash, 0x05, 0x00,
		0xa2, 0x03, 0x02, 0x01, salt,
	}
}

func signatureAlgorithmNotAgreed(c *certificate, _ *Profile) string {
	for _, a := range agreedAlgorithms {
		if bytes.Equal(c.inner, der.AlgorithmIdentifier(a.id, a.parameters)) {
			return ""
		}
	}
	return fmt.Sprintf("signature algorithm %x is none of the agreed mechanisms this CA signs with", c.inner)
}

func authorityKeyIdentifierMissing(c *certificate, _ *Profile) string {
	e, _ := c.find(oidAuthorityKeyIdentifier)
	if id, _, ok := readAuthorityKeyIdentifier(e.Value); !ok || len(id) == 0 {
		return "authorityKeyIdentifier is missing or has no keyIdentifier"
	}
	return ""
}

// authorityKeyIdentifierWithIssuer: the profiles name the key alone, so that the CA can be certified anew.
func authorityKeyIdentifierWithIssuer(c *certificate, _ *Profile) string {
	e, _ := c.find(oidAuthorityKeyIdentifier)
	if _, named, _ := readAuthorityKeyIdentifier(e.Value); named {
		return "authorityKeyIdentifier has authorityCertIssuer and authorityCertSerialNumber: the profiles have keyIdentifier alone"
	}
	return ""
}

// keyUsageWithoutCommitment judges by the bits alone, whatever type the profile says.
func keyUsageWithoutCommitment(c *certificate, _ *Profile) string {
	e, _ := c.find(oidKeyUsage)
	bits, _ := readKeyUsage(e.Value)
	switch bits {
	case 0x40, 0xc0, 0xe0, 0xc8:
		return ""
	}
	return fmt.Sprintf("keyUsage bits %08b are of none of the types A, B and F", bits)
}

func subjectAltNameForm(c *certificate, _ *Profile) string {
	e, there := c.find(oidSubjectAltName)
	if _, ok := readGeneralNames(e.Value); there && !ok {
		return "subjectAltName is not GeneralNames, or empty"
	}
	return ""
}

// subjectAltNameNotTheProfiles: e-mail addresses are what profiles write and mailboxMalformed judges.
func subjectAltNameNotTheProfiles(c *certificate, _ *Profile) string {
	e, _ := c.find(oidSubjectAltName)
	names, _ := readGeneralNames(e.Value)
	for _, n := range names {
		if n.tag != implicit1 {
			return fmt.Sprintf("subjectAltName has a name of tag %d: the profiles write rfc822Name alone", n.tag&0x1f)
		}
	}
	return ""
}

func extKeyUsageNotTheProfiles(c *certificate, p *Profile) string {
	e, there := c.find(oidExtKeyUsage)
	if !there && len(p.purposes) == 0 {
		return ""
	}
	if purposes, ok := readOIDs(e.Value); !ok || !sameOIDs(purposes, p.purposes) {
		return fmt.Sprintf("extKeyUsage is %v, the profile has %v", purposes, p.purposes)
	}
	return ""
}

// crlNotHTTP goes beyond the clause, which is content with one http:// or ldap:// address: every address has to be
// one that relying parties can fetch.
func crlNotHTTP(c *certificate, _ *Profile) string {
	e, there := c.find(oidCRLDistributionPoints)
	if !there {
		return ""
	}
	names, _, ok := readDistributionPoints(e.Value)
	if !ok {
		return "cRLDistributionPoints is not a list of points with a fullName each"
	}
	return addressFault("cRLDistributionPoints", names, "http", "ldap")
}

// addressFault says which of the names is no address with one of the schemes, or "".
func addressFault(field string, names []generalName, schemes ...string) string {
	for _, n := range names {
		if !n.isURI() {
			return fmt.Sprintf("%s has a name of tag %d: only addresses (uniformResourceIdentifier) can be fetched", field, n.tag&0x1f)
		}
		if err := checkURL(n.value, schemes...); err != nil {
			return field + ": " + err.Error()
		}
	}
	return ""
}

// locations are those of one method in authorityInfoAccess.
func (c *certificate) locations(method asn1.ObjectIdentifier) (names []generalName, ok bool) {
	e, there := c.find(oidAuthorityInfoAccess)
	list, ok := readAccess(e.Value)
	for _, a := range list {
		if a.method.Equal(method) {
			names = append(names, a.location)
		}
	}
	return names, ok || !there
}

func accessMissing(method asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if names, _ := c.locations(method); len(names) == 0 {
			return "authorityInfoAccess has no " + name
		}
		return ""
	}
}

// accessNotHTTP goes beyond the clauses, which are content with one http:// or https:// address, as crlNotHTTP does.
func accessNotHTTP(method asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		names, ok := c.locations(method)
		if !ok {
			return "authorityInfoAccess is not a list of AccessDescription"
		}
		return addressFault(name, names, "http", "https")
	}
}

// accessNotInProfile leaves a responder's own ocsp address to responderWithOCSP.
func accessNotInProfile(c *certificate, p *Profile) string {
	e, _ := c.find(oidAuthorityInfoAccess)
	list, _ := readAccess(e.Value)
	for _, a := range list {
		switch {
		case a.method.Equal(oidAccessCAIssuers) && p.caIssuers != absent:
		case a.method.Equal(oidAccessOCSP) && (p.ocsp != absent || p.subject == ocspSubject):
		default:
			return fmt.Sprintf("access method %v has no place in profile %s", a.method, p.name)
		}
	}
	return ""
}

// policyContradictsStatements compares the policy of EN 319 411-2 in the certificate with its QCStatements,
// whatever the profile says of either.
func policyContradictsStatements(c *certificate, _ *Profile) string {
	e, _ := c.find(oidCertificatePolicies)
	policies, _ := readPolicies(e.Value)
	for _, id := range policies {
		q, ok := findQualifiedPolicy(id)
		switch {
		case !ok:
		case !c.holds(hexQcCompliance):
			return q.name + " without QcCompliance"
		case q.qscd != c.holds(hexQcSSCD):
			return fmt.Sprintf("%s and QcSSCD: %t", q.name, c.holds(hexQcSSCD))
		case !c.holds(hexQcTypes[q.qcType]):
			return q.name + " without QcType " + q.qcType
		}
	}
	return ""
}
