package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
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
	{"authority_key_identifier_malformed", "RFC 5280 §4.2.1.1", nil, authorityKeyIdentifierMalformed},
	{"authority_key_is_another", "RFC 5280 §4.2.1.1", isSelfSigned, authorityKeyIsAnother},
	{"subject_key_identifier_missing", "RFC 5280 §4.2.1.2", nil, subjectKeyIdentifierMissing},
	{"subject_key_is_another", "RFC 5280 §4.2.1.2", nil, subjectKeyIsAnother},
	{"subject_key_identifier_critical", "RFC 5280 §4.2.1.2", nil, critical(oidSubjectKeyIdentifier, "subjectKeyIdentifier")},
	{"key_usage_not_critical", "RFC 5280 §4.2.1.3", nil, keyUsageNotCritical},
	{"key_usage_of_ca", "RFC 5280 §4.2.1.3", isCA, keyUsageWrong},
	{"policies_malformed", "RFC 5280 §4.2.1.4", nil, policiesMalformed},
	{"policy_twice", "RFC 5280 §4.2.1.4", nil, policyTwice},
	{"mailbox_malformed", "RFC 5280 §4.2.1.6", nil, mailboxMalformed},
	{"subject_directory_attributes_critical", "RFC 5280 §4.2.1.8", nil, critical(oidSubjectDirectoryAttributes, "subjectDirectoryAttributes")},
	{"basic_constraints_not_ca", "RFC 5280 §4.2.1.9", isCA, basicConstraintsNotCA},
	{"basic_constraints_in_end_entity", "RFC 5280 §4.2.1.9", isEndEntity, basicConstraintsInEndEntity},
	{"path_length_wrong", "RFC 5280 §4.2.1.9", isCA, pathLengthWrong},
	{"crl_partial", "RFC 5280 §4.2.1.13", nil, crlPartial},
	{"issuer_is_another", "RFC 5280 §3.2", isSelfSigned, issuerIsAnother},
	{"issuer_is_itself", "RFC 5280 §3.2", isNotSelfSigned, issuerIsItself},
	{"authority_info_access_critical", "RFC 5280 §4.2.2.1", nil, critical(oidAuthorityInfoAccess, "authorityInfoAccess")},
}

func derNotCanonical(c *certificate, _ *Profile) string {
	if err := der.Check(c.raw); err != nil {
		return err.Error()
	}
	if c.writesFalse {
		return "an extension writes critical FALSE, which is the default and is left out (X.690 §11.5)"
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

func authorityKeyIdentifierMalformed(c *certificate, _ *Profile) string {
	e, there := c.find(oidAuthorityKeyIdentifier)
	if _, _, ok := readAuthorityKeyIdentifier(e.Value); there && !ok {
		return "authorityKeyIdentifier is not keyIdentifier with, together or not at all, authorityCertIssuer and authorityCertSerialNumber"
	}
	return ""
}

func authorityKeyIsAnother(c *certificate, _ *Profile) string {
	aki, _ := c.find(oidAuthorityKeyIdentifier)
	ski, _ := c.find(oidSubjectKeyIdentifier)
	authority, _, _ := readAuthorityKeyIdentifier(aki.Value)
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

// subjectKeyIsAnother wants the leftmost 160 bits of the SHA-256 of the subjectPublicKey bits: RFC 7093 §2 method 1,
// which our profiles have. With any other value, chains are built on a name that is not the key's.
func subjectKeyIsAnother(c *certificate, _ *Profile) string {
	key, readable := readSPKI(c.spki)
	e, there := c.find(oidSubjectKeyIdentifier)
	id, _ := readOctetString(e.Value)
	if !readable || !there {
		return "" // rules of their own
	}
	if sum := sha256.Sum256(key.key); !bytes.Equal(id, sum[:20]) {
		return fmt.Sprintf("subjectKeyIdentifier is %x: that of the key is %x (RFC 7093 §2 method 1)", id, sum[:20])
	}
	return ""
}

func keyUsageNotCritical(c *certificate, _ *Profile) string {
	if e, ok := c.find(oidKeyUsage); ok && !e.Critical {
		return "keyUsage is not critical"
	}
	return ""
}

// keyUsageOctets are the DER of KeyUsage in hex, for RSA keys and for others: EN 319 412-2 table 1 with note 0, and
// keyCertSign with cRLSign. They are written out here, so that the rule does not repeat a slip of the builder's.
var keyUsageOctets = map[keyUsageType]struct{ rsa, others string }{
	"A":  {"03020640", "03020640"},
	"B":  {"030206c0", "030206c0"},
	"C":  {"03020780", "03020780"},
	"D":  {"030205a0", "03020388"},
	"E":  {"03020520", "03020308"},
	"F":  {"030205e0", "030203c8"},
	"ca": {"03020106", "03020106"},
}

// keyUsageWrong finds a keyUsage that is missing or has other bits than the profile's type.
func keyUsageWrong(c *certificate, p *Profile) string {
	e, ok := c.find(oidKeyUsage)
	if !ok {
		return "keyUsage is missing"
	}
	want := keyUsageOctets[p.keyUsage].others
	if key, _ := readSPKI(c.spki); key.algorithm.Equal(oidRSAEncryption) {
		want = keyUsageOctets[p.keyUsage].rsa
	}
	if got := hex.EncodeToString(e.Value); got != want {
		return fmt.Sprintf("keyUsage is %s: type %s is %s", got, p.keyUsage, want)
	}
	return ""
}

func policiesMalformed(c *certificate, _ *Profile) string {
	e, there := c.find(oidCertificatePolicies)
	if _, ok := readPolicies(e.Value); there && !ok {
		return "certificatePolicies is not a list of policy identifiers without qualifiers"
	}
	return ""
}

// mailboxMalformed judges every address of subjectAltName.
func mailboxMalformed(c *certificate, _ *Profile) string {
	e, _ := c.find(oidSubjectAltName)
	names, _ := readGeneralNames(e.Value)
	for _, n := range names {
		if n.tag != implicit1 {
			continue
		}
		if n.value == "" {
			return "subjectAltName has an empty rfc822Name"
		}
		if fault := mailboxFault(n.value); fault != "" {
			return "subjectAltName: " + fault
		}
	}
	return ""
}

// crlPartial: a point with reasons, or with another CRL issuer, is not the issuer's one CRL with everything in it.
func crlPartial(c *certificate, _ *Profile) string {
	e, _ := c.find(oidCRLDistributionPoints)
	if _, partial, _ := readDistributionPoints(e.Value); partial {
		return "cRLDistributionPoints has reasons or cRLIssuer: the issuer's CRLs are complete and its own"
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
