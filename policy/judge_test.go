package policy

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/zegel-tsp/zegel/internal/der"
)

// The faults below are small: one field too many, the second of two names, a value that is right elsewhere. TestRules
// has one fixture a rule; these are the corners around them.

// sequence writes SEQUENCE { parts }.
func sequence(parts ...func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
	return tagged(cbasn1.SEQUENCE, parts...)
}

func tagged(tag cbasn1.Tag, parts ...func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(tag, func(b *cryptobyte.Builder) {
			for _, part := range parts {
				part(b)
			}
		})
	}
}

func raw(text string) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) { b.AddBytes(mustHex(text)) }
}

func name(tag cbasn1.Tag, value string) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) { addString(b, tag, value) }
}

func oid(id asn1.ObjectIdentifier) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(id) }
}

func putWritten(id asn1.ObjectIdentifier, write func(*cryptobyte.Builder)) func(*editable) {
	return func(e *editable) { e.put(id, written(write)) }
}

func TestCheckFindsSmallFaults(t *testing.T) {
	key := tagged(implicit0, raw("01020304"))
	page := tagged(constructed0, tagged(constructed0, name(uri, "http://ca.example.test/a.crl")))
	directory := tagged(cbasn1.Tag(4).ContextSpecific().Constructed(), raw("300d310b3009060355040613024e4c"))
	issuers, status := accessDescription{oidAccessCAIssuers, "http://ca.example.test/a.cer"}, accessDescription{oidAccessOCSP, "http://ocsp.example.test/"}
	userNotice := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 2, 2}
	for _, test := range []struct {
		fault, profile, clause string
		spoil                  func(*editable)
	}{
		{"aki_with_tail", "qcp-n", "RFC 5280 §4.2.1.1", putWritten(oidAuthorityKeyIdentifier, sequence(key, raw("0500")))},
		{"aki_with_serial_alone", "tsu", "RFC 5280 §4.2.1.1", putWritten(oidAuthorityKeyIdentifier, sequence(key, raw("820105")))},
		{"aki_with_issuer_alone", "issuing-ca", "RFC 5280 §4.2.1.1", putWritten(oidAuthorityKeyIdentifier, sequence(key, tagged(constructed1, directory)))},
		{"ski_of_another_key", "issuing-ca", "RFC 5280 §4.2.1.2", putWritten(oidSubjectKeyIdentifier, tagged(cbasn1.OCTET_STRING, raw(strings.Repeat("09", 20))))},
		{"ski_too_long", "root-ca", "RFC 5280 §4.2.1.2", func(e *editable) {
			own, _ := readOctetString(func() []byte { x, _ := der.FindExtension(e.list, oidSubjectKeyIdentifier); return x.Value }())
			e.put(oidSubjectKeyIdentifier, written(func(b *cryptobyte.Builder) { b.AddASN1OctetString(append(bytes.Clone(own), 0)) }))
		}},
		{"policy_with_number", "tsu", "RFC 5280 §4.2.1.4", putWritten(oidCertificatePolicies, sequence(sequence(oid(oidNCPPlus), raw("020107"))))},
		{"policy_with_notice", "qcp-n", "RFC 5280 §4.2.1.4", putWritten(oidCertificatePolicies, sequence(sequence(oid(oidQCPn), sequence(sequence(oid(userNotice), raw("3000"))))))},
		{"crl_for_some_reasons", "qcp-l", "RFC 5280 §4.2.1.13", putWritten(oidCRLDistributionPoints, sequence(sequence(page, raw("81020640"))))},
		{"crl_of_another", "tsu", "RFC 5280 §4.2.1.13", putWritten(oidCRLDistributionPoints, sequence(sequence(page, tagged(constructed2, directory))))},
		{"crl_with_tail", "tsu", "EN 319 412-2 GEN-4.3.11-4", putWritten(oidCRLDistributionPoints, sequence(sequence(page, raw("0500"))))},
		{"crl_named_relatively", "tsu", "EN 319 412-2 GEN-4.3.11-4", putWritten(oidCRLDistributionPoints, sequence(sequence(tagged(constructed0, tagged(constructed1, raw("3009060355040613024e4c"))))))},
		{"crl_second_by_ftp", "qcp-n", "EN 319 412-2 GEN-4.3.11-4", putWritten(oidCRLDistributionPoints, sequence(sequence(page), sequence(tagged(constructed0, tagged(constructed0, name(uri, "ftp://y"))))))},
		{"crl_second_in_a_directory", "qcp-n", "EN 319 412-2 GEN-4.3.11-4", putWritten(oidCRLDistributionPoints, sequence(sequence(page), sequence(tagged(constructed0, tagged(constructed0, directory)))))},
		{"ocsp_second_by_ftp", "qcp-n-qscd", "EN 319 412-2 GEN-4.4.1-6", putAccess(issuers, status, accessDescription{oidAccessOCSP, "ftp://y"})},
		{"ca_issuers_second_by_ldap", "qcp-n", "EN 319 412-2 GEN-4.4.1-3", putAccess(issuers, status, accessDescription{oidAccessCAIssuers, "ldap://y"})},
		{"ca_issuers_in_a_directory", "ocsp-responder", "EN 319 412-2 GEN-4.4.1-3", putWritten(oidAuthorityInfoAccess, sequence(sequence(oid(oidAccessCAIssuers), directory)))},
		{"access_by_another_method", "qcp-l", "EN 319 411-1 GEN-6.6.1-01", putAccess(issuers, status, accessDescription{asn1.ObjectIdentifier{1, 2, 3}, "http://y"})},
		{"mailbox_second_is_none", "qcp-n", "RFC 5280 §4.2.1.6", putWritten(oidSubjectAltName, sequence(name(implicit1, "a@b.test"), name(implicit1, "not an address")))},
		{"mailbox_second_is_empty", "qcp-n", "RFC 5280 §4.2.1.6", putWritten(oidSubjectAltName, sequence(name(implicit1, "a@b.test"), name(implicit1, "")))},
		{"directory_name_beside", "qcp-n", "EN 319 411-1 GEN-6.6.1-01", putWritten(oidSubjectAltName, sequence(name(implicit1, "a@b.test"), directory))},
		{"tsu_key_longer_than_the_profile", "tsu", "EN 319 421 TIS-7.6.7-04", putWritten(oidPrivateKeyUsagePeriod, addPrivateKeyUsagePeriod(began, began.Add(1825*24*time.Hour)))},
		{"tsu_key_a_second_longer", "tsu", "EN 319 421 TIS-7.6.7-04", putWritten(oidPrivateKeyUsagePeriod, addPrivateKeyUsagePeriod(began, began.Add(365*24*time.Hour+time.Second)))},
		{"basic_constraints_write_false", "qcp-n", "RFC 5280 §4.2.1.9", put(oidBasicConstraints, "3003010100")},
	} {
		t.Run(test.fault, func(t *testing.T) {
			p := mustBuiltin(t, test.profile)
			e := edit(t, testDraft(t, p, testKeyP256()))
			test.spoil(e)
			wantClause(t, p.Check(e.encode(t)), test.clause)
		})
	}
}

// TestCheckFindsFalseWritten: critical FALSE is the default, so canonical DER leaves it out.
func TestCheckFindsFalseWritten(t *testing.T) {
	p := mustBuiltin(t, "qcp-n")
	e := edit(t, testDraft(t, p, testKeyP256()))
	short := e.encode(t)
	x, _ := der.FindExtension(e.list, oidCertificatePolicies)
	plain := written(x.Add)
	long := written(sequence(oid(x.ID), raw("010100"), tagged(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddBytes(x.Value) })))
	// The three octets more show in the lengths around: all of them are of the form 82 xx xx here.
	spoilt := bytes.Replace(short, plain, long, 1)
	for at, depth := 0, 0; depth < 2; depth++ { // Certificate, TBSCertificate
		lengthen(t, spoilt, at)
		at += 4
	}
	wrapper := bytes.Index(spoilt, []byte{0xa3, 0x82})
	lengthen(t, spoilt, wrapper)
	lengthen(t, spoilt, wrapper+4)
	wantClause(t, p.Check(spoilt), "RFC 5280 §4.1")
}

// lengthen adds three to the length, in two octets, of the element at.
func lengthen(t *testing.T, b []byte, at int) {
	t.Helper()
	if b[at+1] != 0x82 {
		t.Fatalf("the length at %d has another form: %x", at, b[at:at+4])
	}
	n := int(b[at+2])<<8 + int(b[at+3]) + 3
	b[at+2], b[at+3] = byte(n>>8), byte(n)
}

// TestCheckJudgesTheBuilder puts a slip into each table of the builder that decides octets and wants Check to find it
// in what the builder then makes. It changes package variables, so no test here runs in parallel.
func TestCheckJudgesTheBuilder(t *testing.T) {
	swap := func(table map[string]asn1.ObjectIdentifier, name, other string) func() func() {
		return func() func() {
			kept := maps.Clone(table)
			table[name] = table[other]
			return func() { maps.Copy(table, kept) }
		}
	}
	bits := func(row keyUsageType, octet byte) func() func() {
		return func() func() {
			kept := keyUsageBits[row]
			keyUsageBits[row] = octet
			return func() { keyUsageBits[row] = kept }
		}
	}
	identifier := func(id *asn1.ObjectIdentifier, wrong ...int) func() func() {
		return func() func() {
			kept := *id
			*id = wrong
			return func() { *id = kept }
		}
	}
	for _, test := range []struct {
		slip, profile, clause string
		slipUp                func() (undo func())
	}{
		{"esign is eseal", "qcp-n", "EN 319 412-5 §4.2.3", swap(qcTypes, "esign", "eseal")},
		{"eseal is web", "qcp-l-qscd", "EN 319 412-5 §4.2.3", swap(qcTypes, "eseal", "web")},
		{"natural is legal", "qcp-n-qscd", "EN 319 412-1 §5.1.1", swap(semanticsIdentifiers, "natural", "legal")},
		{"legal is natural", "qcp-l", "EN 319 412-1 §5.1.1", swap(semanticsIdentifiers, "legal", "natural")},
		{"type A is C", "qcp-n", "EN 319 412-2 NAT-4.3.2-1", bits("A", 0x80)},
		{"type A is B", "qcp-l", "EN 319 412-2 NAT-4.3.2-1", bits("A", 0xc0)},
		{"type C is A", "tsu", "EN 319 412-2 NAT-4.3.2-1", bits("C", 0x40)},
		{"type C is B", "ocsp-responder", "EN 319 412-2 NAT-4.3.2-1", bits("C", 0xc0)},
		{"a CA signs documents", "issuing-ca", "RFC 5280 §4.2.1.3", bits("ca", 0x86)},
		{"a root signs no CRL", "root-ca", "RFC 5280 §4.2.1.3", bits("ca", 0x04)},
		{"QcSSCD is another statement", "qcp-n-qscd", "EN 319 412-5 QCS-5-01", identifier(&oidQcSSCD, 0, 4, 0, 1862, 1, 12)},
		{"QcCompliance is another statement", "qcp-l", "EN 319 412-5 QCS-5-01", identifier(&oidQcCompliance, 0, 4, 0, 1862, 1, 11)},
		{"QcType is another statement", "qcp-l", "EN 319 412-5 §4.2.3", identifier(&oidQcType, 0, 4, 0, 1862, 1, 16)},
		{"the semantics are another statement", "qcp-n", "EN 319 412-1 §5.1.1", identifier(&oidPKIXQCSyntaxV2, 1, 3, 6, 1, 5, 5, 7, 11, 1)},
	} {
		t.Run(test.slip, func(t *testing.T) {
			p := mustBuiltin(t, test.profile)
			ca := testIssuerFor(t, p)
			r := testRequest(t, p, testKeyP256())
			t.Cleanup(test.slipUp())
			tbs, err := p.TBS(r, ca.issuer)
			if err != nil {
				t.Fatalf("the builder itself refused: %v", err)
			}
			wantClause(t, p.Check(Draft(tbs, ca.issuer)), test.clause)
		})
	}
}

// TestStringTypesAreJudged: who writes countryName as UTF8String because the builder's table says so is found.
func TestStringTypesAreJudged(t *testing.T) {
	for i, a := range attributeTypes {
		if !a.printable {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			p := mustBuiltin(t, "qcp-n")
			ca := testIssuerFor(t, p)
			attributeTypes[i].printable = false
			t.Cleanup(func() { attributeTypes[i].printable = true })
			tbs, err := p.TBS(testRequest(t, p, testKeyP256()), ca.issuer)
			if err != nil {
				t.Fatal(err)
			}
			wantClause(t, p.Check(Draft(tbs, ca.issuer)), "RFC 5280 A.1")
		})
	}
}

// TestIdentifiers pins the object identifiers that builder and rules have in common to the standards' dotted form.
func TestIdentifiers(t *testing.T) {
	for want, id := range map[string]asn1.ObjectIdentifier{
		"2.5.29.9": oidSubjectDirectoryAttributes, "2.5.29.14": oidSubjectKeyIdentifier, "2.5.29.15": oidKeyUsage,
		"2.5.29.16": oidPrivateKeyUsagePeriod, "2.5.29.17": oidSubjectAltName, "2.5.29.18": oidIssuerAltName,
		"2.5.29.19": oidBasicConstraints, "2.5.29.30": oidNameConstraints, "2.5.29.31": oidCRLDistributionPoints,
		"2.5.29.32": oidCertificatePolicies, "2.5.29.33": oidPolicyMappings, "2.5.29.35": oidAuthorityKeyIdentifier,
		"2.5.29.36": oidPolicyConstraints, "2.5.29.37": oidExtKeyUsage, "2.5.29.54": oidInhibitAnyPolicy,
		"1.3.6.1.5.5.7.1.1": oidAuthorityInfoAccess, "1.3.6.1.5.5.7.1.3": oidQCStatements,
		"1.3.6.1.5.5.7.48.1.5": oidOCSPNoCheck, "0.4.0.194121.2.1": oidValidityAssured,
		"1.3.6.1.5.5.7.48.1": oidAccessOCSP, "1.3.6.1.5.5.7.48.2": oidAccessCAIssuers,
		"2.5.29.32.0": oidAnyPolicy, "0.4.0.2042.1.2": oidNCPPlus, "0.4.0.194112.1": arcQualifiedPolicies,
		"0.4.0.194112.1.0": oidQCPn, "0.4.0.194112.1.1": oidQCPl, "0.4.0.194112.1.2": oidQCPnQSCD, "0.4.0.194112.1.3": oidQCPlQSCD,
		"2.5.29.37.0": oidAnyPurpose, "1.3.6.1.5.5.7.3.8": oidTimeStamping, "1.3.6.1.5.5.7.3.9": oidOCSPSigning,
		"0.4.0.1862.1": arcETSIQCS, "0.4.0.1862.1.1": oidQcCompliance, "0.4.0.1862.1.2": oidQcLimitValue,
		"0.4.0.1862.1.3": oidQcRetentionPeriod, "0.4.0.1862.1.4": oidQcSSCD, "0.4.0.1862.1.5": oidQcPDS,
		"0.4.0.1862.1.6": oidQcType, "0.4.0.1862.1.7": oidQcCClegislation, "0.4.0.1862.1.8": oidQcIdentMethod,
		"0.4.0.1862.1.9": oidQcQSCDlegislation, "1.3.6.1.5.5.7.11.2": oidPKIXQCSyntaxV2,
		"1.2.840.113549.1.1.1": oidRSAEncryption, "1.2.840.10045.2.1": oidECPublicKey,
		"1.2.840.10045.3.1.7": oidP256, "1.3.132.0.34": oidP384, "1.3.132.0.35": oidP521,
	} {
		if id.String() != want {
			t.Errorf("%v where %s belongs", id, want)
		}
	}
	for want, attribute := range map[string]string{
		"2.5.4.6": "countryName", "2.5.4.8": "stateOrProvinceName", "2.5.4.7": "localityName", "2.5.4.9": "streetAddress",
		"2.5.4.17": "postalCode", "2.5.4.10": "organizationName", "2.5.4.97": "organizationIdentifier",
		"2.5.4.11": "organizationalUnitName", "2.5.4.12": "title", "2.5.4.4": "surname", "2.5.4.42": "givenName",
		"2.5.4.65": "pseudonym", "2.5.4.5": "serialNumber", "2.5.4.3": "commonName",
	} {
		if a, ok := attributeByName(attribute); !ok || a.id.String() != want {
			t.Errorf("%s is %v where %s belongs", attribute, a.id, want)
		}
	}
	if got, want := written(oid(asn1.ObjectIdentifier{2, 5, 4, 97})), organizationIdentifier; string(got) != want {
		t.Errorf("organizationIdentifier is %x where %x belongs", want, got)
	}
}

// TestCheckIssued: what Check alone cannot know is held to the issuer.
func TestCheckIssued(t *testing.T) {
	other := newTestRoot(t, testKeyP384())
	for _, name := range Builtins() {
		p := mustBuiltin(t, name)
		if err := p.CheckIssued(testDraft(t, p, testKeyP256()), testIssuerFor(t, p).issuer); err != nil {
			t.Errorf("%s: a clean draft: %v", name, err)
		}
	}
	for _, test := range []struct {
		fault, profile, clause string
		spoil                  func(*editable, *Issuer)
	}{
		{"authority_key_of_another_ca", "qcp-n-qscd", "EN 319 412-2 GEN-4.3.1-1", func(e *editable, _ *Issuer) {
			e.put(oidAuthorityKeyIdentifier, written(addAuthorityKeyIdentifier(other.issuer.KeyID)))
		}},
		{"issuer_of_another_name", "tsu", "RFC 5280 §4.1.2.4", func(_ *editable, i *Issuer) { i.Name = testName(t, "TEST Other CA") }},
		{"begins_before_the_issuer", "qcp-n", "EN 319 411-1 GEN-6.3.3-05", func(_ *editable, i *Issuer) { i.NotBefore = began.Add(time.Second) }},
		{"ends_after_the_issuer", "issuing-ca", "EN 319 411-1 GEN-6.3.3-05", func(_ *editable, i *Issuer) {
			i.NotAfter = began.Add(2922*24*time.Hour - time.Second)
		}},
		{"signed_with_another_algorithm", "qcp-l", "RFC 5280 §4.1.1.2", func(_ *editable, i *Issuer) { i.Algorithm = other.issuer.Algorithm }},
		{"root_of_another_key", "root-ca", "RFC 5280 §3.2", func(_ *editable, i *Issuer) { i.PublicKey = testKeyP384().Public() }},
		{"crl_of_another_issuer", "qcp-n", "EN 319 412-2 GEN-4.3.11-1", func(_ *editable, i *Issuer) { i.URLs.CRL = "http://other.example.test/a.crl" }},
		{"ca_issuers_of_another_issuer", "tsu", "EN 319 412-2 GEN-4.4.1-2", func(_ *editable, i *Issuer) { i.URLs.CAIssuers = "http://other.example.test/a.cer" }},
		{"ocsp_of_another_issuer", "tsu", "EN 319 412-2 GEN-4.4.1-5", func(_ *editable, i *Issuer) { i.URLs.OCSP = "http://other.example.test/" }},
		{"pds_of_another_issuer", "qcp-l", "EN 319 411-2 OVR-6.9.4-03", func(_ *editable, i *Issuer) { i.URLs.PDS = i.URLs.PDS[:1] }},
		{"a_fault_that_check_finds", "qcp-l", "RFC 5280 §4.2.1.2", func(e *editable, _ *Issuer) { e.drop(oidSubjectKeyIdentifier) }},
	} {
		t.Run(test.fault, func(t *testing.T) {
			p := mustBuiltin(t, test.profile)
			issuer := testIssuerFor(t, p).issuer
			e := edit(t, testDraft(t, p, testKeyP256()))
			test.spoil(e, &issuer)
			wantClause(t, p.CheckIssued(e.encode(t), issuer), test.clause)
		})
	}
}

// TestCheckIssuedWithoutAddresses: who knows the issuer by its certificate alone has no addresses to compare.
func TestCheckIssuedWithoutAddresses(t *testing.T) {
	p := mustBuiltin(t, "tsu")
	issuer := testIssuerFor(t, p).issuer
	issuer.URLs = URLs{}
	if err := p.CheckIssued(testDraft(t, p, testKeyP256()), issuer); err != nil {
		t.Error(err)
	}
	var v Violations
	if err := p.CheckIssued(testDraft(t, p, testKeyP256()), Issuer{}); err == nil || errors.As(err, &v) {
		t.Errorf("an empty issuer: %v, want a plain error", err)
	}
	if err := p.CheckIssued([]byte("certificate"), issuer); err == nil || errors.As(err, &v) {
		t.Errorf("no certificate: %v, want a plain error", err)
	}
}

func testName(t testing.TB, commonName string) []byte {
	t.Helper()
	s := legalPerson()
	s.set("commonName", commonName)
	name, err := s.Name()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// judged is the draft of the profile for the subject, and what Check and Lint say of it.
func judged(t testing.TB, p *Profile, s *Subject) (draft []byte, check, lint error) {
	t.Helper()
	ca := testIssuerFor(t, p)
	r := testRequest(t, p, testKeyP256())
	s.Registration, s.Device = r.Subject.Registration, r.Subject.Device
	r.Subject = s
	tbs, err := p.TBS(r, ca.issuer)
	if err != nil {
		t.Fatal(err)
	}
	draft = Draft(tbs, ca.issuer)
	return draft, p.CheckIssued(draft, ca.issuer), Lint(draft)
}

// TestLegalSemanticsOfAssociatedPerson: a natural person's organizationIdentifier has its meaning declared, in a second
// statement, and Check wants exactly that.
func TestLegalSemanticsOfAssociatedPerson(t *testing.T) {
	p := mustBuiltin(t, "qcp-n")
	s := naturalPerson()
	s.set("organizationName", "TEST NV")
	s.set("organizationIdentifier", "VATBE-0876866142")
	draft, check, lint := judged(t, p, s)
	if check != nil || lint != nil {
		t.Fatal(check, lint)
	}
	const natural, legal = "301506082b06010505070b023009060704008bec490101", "301506082b06010505070b023009060704008bec490102"
	if !bytes.Contains(draft, mustHex(natural+legal)) {
		t.Errorf("%x has not both semantics, natural first", draft)
	}
	alone := edit(t, draft)
	restate(func(list []qcStatement) []qcStatement { return list[:len(list)-1] })(alone)
	wantClause(t, p.Check(alone.encode(t)), "EN 319 412-1 §5.1.1")
	unfounded := edit(t, testDraft(t, p, testKeyP256()))
	restate(func(list []qcStatement) []qcStatement {
		return append(list, qcStatement{id: oidPKIXQCSyntaxV2, info: mustHex("3009060704008bec490102")})
	})(unfounded)
	wantClause(t, p.Check(unfounded.encode(t)), "EN 319 412-1 §5.1.1")
}

// TestNewestProfile: a house profile that opens the newest edition issues what the built-in one refuses, under a CA
// whose own identifier is of it.
func TestNewestProfile(t *testing.T) {
	p, err := ParseProfile("house.yaml", change(t, "qcp-n", "identifier_types: pinned", "identifier_types: newest"))
	if err != nil {
		t.Fatal(err)
	}
	s := naturalPerson()
	s.set("serialNumber", "EIDSE-12345")
	draft, check, lint := judged(t, p, s)
	if check != nil || lint != nil {
		t.Errorf("the newest edition: %v, %v", check, lint)
	}
	wantClause(t, mustBuiltin(t, "qcp-n").Check(draft), "EN 319 412-1 NAT-5.1.3-03")
}

// TestLongNames: names at the bound that our rules state, in characters of two octets, pass every lint; one more is
// refused by the rule, with its clause, before zlint sees it.
func TestLongNames(t *testing.T) {
	for _, test := range []struct{ profile, attribute, clause string }{
		{"qcp-l", "organizationName", "EN 319 412-3 LEG-4.2.1-9"},
		{"qcp-l", "organizationalUnitName", "EN 319 412-3 LEG-4.2.1-9"},
		{"qcp-l-qscd", "commonName", "EN 319 412-3 LEG-4.2.1-9"},
		{"tsu", "organizationName", "EN 319 412-3 LEG-4.2.1-9"},
		{"ocsp-responder", "commonName", "EN 319 412-3 LEG-4.2.1-9"},
		{"issuing-ca", "organizationName", "RFC 5280 A.1"},
		{"root-ca", "commonName", "RFC 5280 A.1"},
		{"qcp-n", "surname", "RFC 5280 A.1"},
		{"qcp-n", "givenName", "RFC 5280 A.1"},
		{"qcp-n-qscd", "commonName", "EN 319 412-2 NAT-4.2.4-18"},
		{"qcp-n", "organizationName", "EN 319 412-2 NAT-4.2.4-18"},
		{"qcp-n", "title", "RFC 5280 A.1"},
		{"qcp-n", "localityName", "RFC 5280 A.1"},
		{"qcp-n", "stateOrProvinceName", "RFC 5280 A.1"},
		{"qcp-l", "streetAddress", "RFC 5280 A.1"},
		{"qcp-l", "postalCode", "RFC 5280 A.1"},
	} {
		t.Run(test.profile+" "+test.attribute, func(t *testing.T) {
			p := mustBuiltin(t, test.profile)
			s := validSubject(p.subject)
			if p.altName == absent {
				s.Email = ""
			}
			bound := boundOf(t, p, s, test.attribute)
			s.set(test.attribute, strings.Repeat("é", bound))
			if _, check, lint := judged(t, p, s); check != nil || lint != nil {
				t.Errorf("%d characters: %v, %v", bound, check, lint)
			}
			s.set(test.attribute, strings.Repeat("é", bound+1))
			r := testRequest(t, p, testKeyP256())
			s.Registration, s.Device = r.Subject.Registration, r.Subject.Device
			r.Subject = s
			_, err := p.TBS(r, testIssuerFor(t, p).issuer)
			wantClause(t, err, test.clause)
		})
	}
}

// boundOf is the longest value of the attribute that the rules let pass.
func boundOf(t *testing.T, p *Profile, s *Subject, attribute string) int {
	t.Helper()
	for n := 1; n <= ownBound+1; n++ {
		s.set(attribute, strings.Repeat("é", n))
		if len(s.violations(p.subject, p.identifiers)) > 0 {
			return n - 1
		}
	}
	t.Fatalf("%s has no bound", attribute)
	return 0
}

// TestLiftedLintsExist: a lint that zlint renames would come back unseen.
func TestLiftedLintsExist(t *testing.T) {
	lints, err := zlintLints()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range liftedLints {
		if l := lint.GlobalRegistry().CertificateLints().ByName(name); l == nil {
			t.Errorf("zlint has no lint %s", name)
		}
		for _, l := range lints {
			if l.Name == name {
				t.Errorf("%s still runs", name)
			}
		}
	}
}

// TestRulesRefuseFirst: whatever subject our rules let pass, zlint has nothing against it, so that nobody is refused
// with a finding that names no key of the subject file.
func TestRulesRefuseFirst(t *testing.T) {
	profiles := []*Profile{mustBuiltin(t, "qcp-n"), mustBuiltin(t, "qcp-l")}
	cas := []*testCA{testIssuerFor(t, profiles[0]), testIssuerFor(t, profiles[1])}
	optional := []string{
		"stateOrProvinceName", "localityName", "streetAddress", "postalCode", "organizationName", "organizationalUnitName",
		"title", "surname", "givenName", "pseudonym", "commonName",
	}
	text := rapid.StringOfN(rapid.RuneFrom([]rune{' ', '-', '\''}, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S), 1, 280, -1)
	passed := 0
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 1).Draw(rt, "profile")
		p, ca := profiles[n], cas[n]
		s := validSubject(p.subject)
		for _, attribute := range rapid.SliceOfN(rapid.SampledFrom(optional), 1, 4).Draw(rt, "attributes") {
			s.set(attribute, norm.NFC.String(text.Draw(rt, attribute)))
		}
		if len(s.violations(p.subject, p.identifiers)) > 0 {
			return
		}
		passed++
		r := testRequest(t, p, testKeyP256())
		s.Registration = r.Subject.Registration
		r.Subject = s
		tbs, err := p.TBS(r, ca.issuer)
		if err != nil {
			rt.Fatal(err)
		}
		draft := Draft(tbs, ca.issuer)
		if err := errors.Join(p.CheckIssued(draft, ca.issuer), Lint(draft)); err != nil {
			rt.Fatalf("%q: %v", s.Attributes, err)
		}
	})
	t.Logf("%d subjects passed the rules", passed)
}
