package policy

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"slices"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// rulesRFC5280 are the rules of RFC 5280 on every certificate.
var rulesRFC5280 = []rule{
	{"der_not_canonical", "RFC 5280 §4.1", nil, derNotCanonical},
	{"unreadable", "RFC 5280 §4.1", nil, unreadable},
	{"version_not_3", "RFC 5280 §4.1.2.1", nil, versionNot3},
	{"serial_malformed", "RFC 5280 §4.1.2.2", nil, serialMalformed},
	{"algorithms_differ", "RFC 5280 §4.1.1.2", nil, algorithmsDiffer},
	{"issuer_empty", "RFC 5280 §4.1.2.4", nil, issuerEmpty},
	{"time_form", "RFC 5280 §4.1.2.5", nil, timeForm},
	{"validity_inverted", "RFC 5280 §4.1.2.5", nil, validityInverted},
	{"unique_identifier", "RFC 5280 §4.1.2.8", nil, uniqueIdentifier},
	{"extension_twice", "RFC 5280 §4.2", nil, extensionTwice},
	{"authority_key_identifier_critical", "RFC 5280 §4.2.1.1", nil, critical(oidAuthorityKeyIdentifier, "authorityKeyIdentifier")},
	{"authority_key_is_another", "RFC 5280 §4.2.1.1", isSelfSigned, authorityKeyIsAnother},
	{"subject_key_identifier_missing", "RFC 5280 §4.2.1.2", nil, subjectKeyIdentifierMissing},
	{"subject_key_identifier_critical", "RFC 5280 §4.2.1.2", nil, critical(oidSubjectKeyIdentifier, "subjectKeyIdentifier")},
	{"key_usage_not_critical", "RFC 5280 §4.2.1.3", nil, keyUsageNotCritical},
	{"key_usage_of_ca", "RFC 5280 §4.2.1.3", isCA, keyUsageWrong},
	{"policy_twice", "RFC 5280 §4.2.1.4", nil, policyTwice},
	{"basic_constraints_not_ca", "RFC 5280 §4.2.1.9", isCA, basicConstraintsNotCA},
	{"basic_constraints_in_end_entity", "RFC 5280 §4.2.1.9", isEndEntity, basicConstraintsInEndEntity},
	{"path_length_wrong", "RFC 5280 §4.2.1.9", isCA, pathLengthWrong},
	{"issuer_is_another", "RFC 5280 §3.2", isSelfSigned, issuerIsAnother},
	{"issuer_is_itself", "RFC 5280 §3.2", isNotSelfSigned, issuerIsItself},
	{"authority_info_access_critical", "RFC 5280 §4.2.2.1", nil, critical(oidAuthorityInfoAccess, "authorityInfoAccess")},
}

func derNotCanonical(c *certificate, _ *Profile) string {
	if err := der.Check(c.raw); err != nil {
		return err.Error()
	}
	for _, e := range c.extensions {
		if err := der.Check(e.Value); err != nil {
			return fmt.Sprintf("extension %v: %v", e.ID, err)
		}
	}
	return ""
}

func unreadable(c *certificate, _ *Profile) string {
	if c.unreadable != nil {
		return c.unreadable.Error()
	}
	return ""
}

func versionNot3(c *certificate, _ *Profile) string {
	if c.version != 2 {
		return fmt.Sprintf("version field is %d: v3, which is 2, is wanted", c.version)
	}
	return ""
}

func serialMalformed(c *certificate, _ *Profile) string {
	if !isSerial(c.serial) {
		return fmt.Sprintf("serial number %x is not a positive minimal integer of 1 to 20 octets", c.serial)
	}
	return ""
}

func algorithmsDiffer(c *certificate, _ *Profile) string {
	if !bytes.Equal(c.inner, c.outer) {
		return "signature in TBSCertificate and signatureAlgorithm differ"
	}
	return ""
}

func issuerEmpty(c *certificate, _ *Profile) string {
	if len(c.issuer) <= 2 {
		return "issuer is empty"
	}
	return ""
}

func timeForm(c *certificate, _ *Profile) string {
	for _, f := range []timeField{c.from, c.to} {
		switch {
		case f.time.IsZero():
			return fmt.Sprintf("%q: whole seconds and Z are wanted", f.text)
		case f.tag == cbasn1.GeneralizedTime && f.time.Year() < 2050:
			return fmt.Sprintf("%q: UTCTime is wanted through 2049", f.text)
		}
	}
	return ""
}

func validityInverted(c *certificate, _ *Profile) string {
	if !c.from.time.Before(c.to.time) {
		return fmt.Sprintf("notAfter %s is not later than notBefore %s", c.to.text, c.from.text)
	}
	return ""
}

func uniqueIdentifier(c *certificate, _ *Profile) string {
	if c.uniqueIdentifier {
		return "issuerUniqueID or subjectUniqueID is there"
	}
	return ""
}

func extensionTwice(c *certificate, _ *Profile) string {
	for i, e := range c.extensions {
		if _, twice := der.FindExtension(c.extensions[:i], e.ID); twice {
			return fmt.Sprintf("extension %v is there twice", e.ID)
		}
	}
	return ""
}

func authorityKeyIsAnother(c *certificate, _ *Profile) string {
	aki, _ := c.find(oidAuthorityKeyIdentifier)
	ski, _ := c.find(oidSubjectKeyIdentifier)
	authority, _ := readAuthorityKeyIdentifier(aki.Value)
	own, _ := readOctetString(ski.Value)
	if !bytes.Equal(authority, own) {
		return "authorityKeyIdentifier of a self-signed certificate is not its subjectKeyIdentifier"
	}
	return ""
}

func subjectKeyIdentifierMissing(c *certificate, _ *Profile) string {
	e, _ := c.find(oidSubjectKeyIdentifier)
	if id, ok := readOctetString(e.Value); !ok || len(id) == 0 {
		return "subjectKeyIdentifier is missing or empty"
	}
	return ""
}

func keyUsageNotCritical(c *certificate, _ *Profile) string {
	if e, ok := c.find(oidKeyUsage); ok && !e.Critical {
		return "keyUsage is not critical"
	}
	return ""
}

// keyUsageWrong finds a keyUsage that is missing or has other bits than the profile's type.
func keyUsageWrong(c *certificate, p *Profile) string {
	e, ok := c.find(oidKeyUsage)
	if !ok {
		return "keyUsage is missing"
	}
	bits, ok := readKeyUsage(e.Value)
	if !ok {
		return fmt.Sprintf("keyUsage %x is not a minimal BIT STRING with a bit set", e.Value)
	}
	key, _ := readSPKI(c.spki)
	if want := p.keyUsage.bits(key.algorithm.Equal(oidRSAEncryption)); bits != want {
		return fmt.Sprintf("keyUsage bits are %08b: type %s is %08b", bits, p.keyUsage, want)
	}
	return ""
}

func policyTwice(c *certificate, _ *Profile) string {
	e, _ := c.find(oidCertificatePolicies)
	policies, _ := readPolicies(e.Value)
	for i, id := range policies {
		if slices.ContainsFunc(policies[:i], id.Equal) {
			return fmt.Sprintf("certificatePolicies has %v twice", id)
		}
	}
	return ""
}

func basicConstraintsNotCA(c *certificate, _ *Profile) string {
	e, _ := c.find(oidBasicConstraints)
	if ca, _, ok := readBasicConstraints(e.Value); !ok || !ca || !e.Critical {
		return "basicConstraints is not there, not critical or not cA TRUE"
	}
	return ""
}

func basicConstraintsInEndEntity(c *certificate, _ *Profile) string {
	e, there := c.find(oidBasicConstraints)
	if ca, pathLength, ok := readBasicConstraints(e.Value); there && (!ok || ca || pathLength >= 0) {
		return "basicConstraints of an end entity says more than cA FALSE"
	}
	return ""
}

func pathLengthWrong(c *certificate, p *Profile) string {
	e, _ := c.find(oidBasicConstraints)
	if _, pathLength, ok := readBasicConstraints(e.Value); ok && pathLength != p.pathLength {
		return fmt.Sprintf("pathLenConstraint is %d, the profile has %d (-1 is none)", pathLength, p.pathLength)
	}
	return ""
}

func issuerIsAnother(c *certificate, _ *Profile) string {
	if !bytes.Equal(c.issuer, c.subject) {
		return "issuer and subject of a self-signed certificate differ"
	}
	return ""
}

func issuerIsItself(c *certificate, _ *Profile) string {
	if bytes.Equal(c.issuer, c.subject) {
		return "subject has the name of its issuer"
	}
	return ""
}

// extensionOwners are extensions with a rule of their own against them where they do not belong.
var extensionOwners = []asn1.ObjectIdentifier{
	oidPolicyMappings, oidNameConstraints, oidPolicyConstraints, oidInhibitAnyPolicy,
	oidValidityAssured, oidOCSPNoCheck, oidPrivateKeyUsagePeriod, oidBasicConstraints,
}
