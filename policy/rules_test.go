package policy

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// editable is a certificate in parts, to put one fault into it.
type editable struct {
	version  int64
	serial   []byte
	inner    []byte
	issuer   []byte
	validity [2]timeField
	subject  []byte
	spki     []byte
	between  []byte // between SubjectPublicKeyInfo and extensions
	list     []der.Extension
	outer    []byte
}

func edit(t testing.TB, cert []byte) *editable {
	t.Helper()
	c, err := readCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	return &editable{
		version: c.version, serial: c.serial, inner: c.inner, issuer: c.issuer, validity: [2]timeField{c.from, c.to},
		subject: c.subject, spki: c.spki, list: c.extensions, outer: c.outer,
	}
}

// encode assembles the certificate, with a signature that is none.
func (e *editable) encode(t testing.TB) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(e.version) })
			b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(e.serial) })
			b.AddBytes(e.inner)
			b.AddBytes(e.issuer)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, f := range e.validity {
					addString(b, f.tag, f.text)
				}
			})
			b.AddBytes(e.subject)
			b.AddBytes(e.spki)
			b.AddBytes(e.between)
			b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { der.AddExtensions(b, e.list) })
		})
		b.AddBytes(e.outer)
		b.AddASN1BitString([]byte{1, 2, 3})
	})
	out, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (e *editable) drop(id asn1.ObjectIdentifier) {
	var kept []der.Extension
	for _, x := range e.list {
		if !x.ID.Equal(id) {
			kept = append(kept, x)
		}
	}
	e.list = kept
}

// put replaces the value of an extension, or adds one that is not critical.
func (e *editable) put(id asn1.ObjectIdentifier, value []byte) {
	for i, x := range e.list {
		if x.ID.Equal(id) {
			e.list[i].Value = value
			return
		}
	}
	e.list = append(e.list, der.Extension{ID: id, Value: value})
}

func (e *editable) setCritical(id asn1.ObjectIdentifier, critical bool) {
	for i, x := range e.list {
		if x.ID.Equal(id) {
			e.list[i].Critical = critical
		}
	}
}

func written(write func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	write(&b)
	return b.BytesOrPanic()
}

// Faults that fixtures share.
func makeCritical(id asn1.ObjectIdentifier) func(*editable) {
	return func(e *editable) { e.setCritical(id, true) }
}

func drop(id asn1.ObjectIdentifier) func(*editable) {
	return func(e *editable) { e.drop(id) }
}

func put(id asn1.ObjectIdentifier, value string) func(*editable) {
	return func(e *editable) { e.put(id, mustHex(value)) }
}

func putKeyUsage(bits byte) func(*editable) {
	return func(e *editable) { e.put(oidKeyUsage, written(addKeyUsage(bits))) }
}

func putPurposes(ids ...asn1.ObjectIdentifier) func(*editable) {
	return func(e *editable) { e.put(oidExtKeyUsage, written(addSequenceOfOIDs(ids))) }
}

func putPolicies(ids ...asn1.ObjectIdentifier) func(*editable) {
	return func(e *editable) { e.put(oidCertificatePolicies, written(addPolicies(ids))) }
}

func putAccess(list ...accessDescription) func(*editable) {
	return func(e *editable) { e.put(oidAuthorityInfoAccess, written(addAuthorityInfoAccess(list))) }
}

// restate hands the QCStatements, each as its DER, to change and puts back what it returns.
func restate(change func([]qcStatement) []qcStatement) func(*editable) {
	return func(e *editable) {
		x, _ := der.FindExtension(e.list, oidQCStatements)
		list, _ := readStatements(x.Value)
		e.put(oidQCStatements, written(func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, s := range change(list) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(s.id)
						b.AddBytes(s.info)
					})
				}
			})
		}))
	}
}

func withoutStatement(id asn1.ObjectIdentifier) func(*editable) {
	return restate(func(list []qcStatement) []qcStatement {
		var kept []qcStatement
		for _, s := range list {
			if !s.id.Equal(id) {
				kept = append(kept, s)
			}
		}
		return kept
	})
}

// withStatement sets the statementInfo of a statement, or adds it. info is hex.
func withStatement(id asn1.ObjectIdentifier, info string) func(*editable) {
	return restate(func(list []qcStatement) []qcStatement {
		for i, s := range list {
			if s.id.Equal(id) {
				list[i].info = mustHex(info)
				return list
			}
		}
		return append(list, qcStatement{id: id, info: mustHex(info)})
	})
}

func withPDS(list ...PDS) func(*editable) {
	return restate(func(all []qcStatement) []qcStatement {
		for i, s := range all {
			if s.id.Equal(oidQcPDS) {
				one := written(qcPDS(list).add)
				read, _ := readStatements(written(func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(one) })
				}))
				all[i] = read[0]
			}
		}
		return all
	})
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// setTime changes notBefore (0) or notAfter (1).
func setTime(which int, tag cbasn1.Tag, text string) func(*editable) {
	return func(e *editable) { e.validity[which] = timeField{tag: tag, text: text} }
}

// failingFixtures has one fault a rule, by the rule's name: a clean certificate of the profile with that in it.
var failingFixtures = map[string]struct {
	profile string
	spoil   func(*editable)
}{
	"der_not_canonical":                  {"qcp-n", put(oidSubjectKeyIdentifier, "04 81 01 00")},
	"unreadable":                         {"qcp-n", put(oidBasicConstraints, "02 01 00")},
	"version_not_3":                      {"qcp-n", func(e *editable) { e.version = 1 }},
	"serial_malformed":                   {"qcp-n", func(e *editable) { e.serial = []byte{0} }},
	"algorithms_differ":                  {"qcp-n", func(e *editable) { e.outer = mustHex("300a06082a8648ce3d040303") }},
	"issuer_empty":                       {"qcp-n", func(e *editable) { e.issuer = []byte{0x30, 0} }},
	"time_form":                          {"qcp-n", setTime(1, cbasn1.GeneralizedTime, "20291122120000Z")},
	"validity_inverted":                  {"qcp-n", setTime(1, cbasn1.UTCTime, "261123120000Z")},
	"unique_identifier":                  {"qcp-n", func(e *editable) { e.between = mustHex("81020001") }},
	"extension_twice":                    {"qcp-n", func(e *editable) { e.list = append(e.list, e.list[0]) }},
	"authority_key_identifier_critical":  {"qcp-n", makeCritical(oidAuthorityKeyIdentifier)},
	"authority_key_identifier_malformed": {"qcp-n", put(oidAuthorityKeyIdentifier, "3006 800101 820105")}, // [2] without [1]
	"authority_key_is_another":           {"root-ca", put(oidAuthorityKeyIdentifier, "3003800101")},
	"subject_key_identifier_missing":     {"qcp-n", drop(oidSubjectKeyIdentifier)},
	"subject_key_is_another":             {"qcp-n", put(oidSubjectKeyIdentifier, "0414 0909090909090909090909090909090909090909")},
	"subject_key_identifier_critical":    {"qcp-n", makeCritical(oidSubjectKeyIdentifier)},
	"key_usage_not_critical":             {"qcp-n", func(e *editable) { e.setCritical(oidKeyUsage, false) }},
	"key_usage_of_ca":                    {"issuing-ca", putKeyUsage(0x02)},
	"policies_malformed":                 {"qcp-n", put(oidCertificatePolicies, "300e 300c 060704008bec400100 020107")},
	"policy_twice":                       {"qcp-n", putPolicies(oidQCPn, oidQCPn)},
	"mailbox_malformed":                  {"qcp-n", put(oidSubjectAltName, "3015 8108 6140622e74657374 8109 6e6f20616464726573")},
	"basic_constraints_not_ca":           {"issuing-ca", func(e *editable) { e.setCritical(oidBasicConstraints, false) }},
	"basic_constraints_in_end_entity":    {"tsu", put(oidBasicConstraints, "30030101ff")},
	"path_length_wrong":                  {"issuing-ca", put(oidBasicConstraints, "30030101ff")},
	"crl_partial":                        {"qcp-n", put(oidCRLDistributionPoints, "301b 3019 a013a011860f 687474703a2f2f782e746573742f63 81020640")},
	"issuer_is_another":                  {"root-ca", func(e *editable) { e.issuer = mustHex("300d310b3009060355040613024e4c") }},
	"issuer_is_itself":                   {"issuing-ca", func(e *editable) { e.issuer = e.subject }},
	"authority_info_access_critical":     {"qcp-n", makeCritical(oidAuthorityInfoAccess)},

	"critical_without_leave":               {"qcp-n", makeCritical(oidQCStatements)},
	"extension_not_in_profile":             {"qcp-n", put(asn1.ObjectIdentifier{1, 2, 3, 4}, "0500")},
	"signature_algorithm_not_agreed":       {"qcp-n", func(e *editable) { e.inner = mustHex("300d06092a864886f70d0101050500"); e.outer = e.inner }}, // SHA-1 with RSA
	"authority_key_identifier_missing":     {"qcp-n", put(oidAuthorityKeyIdentifier, "3000")},
	"authority_key_identifier_with_issuer": {"qcp-n", put(oidAuthorityKeyIdentifier, "3016 800101 a10e 820c 6578616d706c652e74657374 820105")},
	"key_usage_type":                       {"tsu", putKeyUsage(bitDigitalSignature | bitNonRepudiation)},
	"key_usage_for_signatures":             {"qcp-n", putKeyUsage(bitDigitalSignature)},
	"key_usage_for_seals":                  {"qcp-l", putKeyUsage(bitKeyAgreement)},
	"certificate_policies_critical":        {"qcp-n", makeCritical(oidCertificatePolicies)},
	"certificate_policies_missing":         {"qcp-n", drop(oidCertificatePolicies)},
	"policy_mappings":                      {"issuing-ca", put(oidPolicyMappings, "300e300c06042a030405 06042a030406")},
	"subject_alt_name_critical":            {"qcp-n", makeCritical(oidSubjectAltName)},
	"subject_alt_name_form":                {"qcp-n", put(oidSubjectAltName, "3000")},
	"subject_alt_name_not_the_profiles":    {"qcp-n", put(oidSubjectAltName, "300e 820c 6578616d706c652e74657374")},
	"subject_alt_name_missing":             {"qcp-n", drop(oidSubjectAltName)},
	"issuer_alt_name_critical": {"qcp-n", func(e *editable) {
		e.put(oidIssuerAltName, mustHex("3008810661402e6c6f63"))
		makeCritical(oidIssuerAltName)(e)
	}},
	"subject_directory_attributes_critical": {"qcp-n", func(e *editable) {
		e.put(oidSubjectDirectoryAttributes, mustHex("3000"))
		makeCritical(oidSubjectDirectoryAttributes)(e)
	}},
	"name_constraints":               {"issuing-ca", put(oidNameConstraints, "3000")},
	"policy_constraints":             {"qcp-n", put(oidPolicyConstraints, "3003800100")},
	"ext_key_usage_critical":         {"ocsp-responder", makeCritical(oidExtKeyUsage)},
	"ext_key_usage_not_the_profiles": {"qcp-n", putPurposes(oidAnyPurpose)},
	"crl_missing":                    {"qcp-n", drop(oidCRLDistributionPoints)},
	"crl_not_http": {"qcp-n", func(e *editable) {
		e.put(oidCRLDistributionPoints, written(addDistributionPoint("https://ca.example.test/a.crl")))
	}},
	"crl_critical":                  {"qcp-n", makeCritical(oidCRLDistributionPoints)},
	"inhibit_any_policy":            {"qcp-n", put(oidInhibitAnyPolicy, "020100")},
	"ca_issuers_missing":            {"qcp-n", putAccess(accessDescription{oidAccessOCSP, "http://ocsp.example.test/"})},
	"ca_issuers_not_http":           {"qcp-n", putAccess(accessDescription{oidAccessCAIssuers, "ldap://ca.example.test/"})},
	"access_not_in_profile":         {"qcp-n", putAccess(accessDescription{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 3}, "http://tsa.example.test/"})},
	"ocsp_missing":                  {"tsu", putAccess(accessDescription{oidAccessCAIssuers, "http://ca.example.test/ca.cer"})},
	"ocsp_not_http":                 {"qcp-l", putAccess(accessDescription{oidAccessOCSP, "ftp://ocsp.example.test/"})},
	"qc_statements_missing":         {"qcp-l", drop(oidQCStatements)},
	"policy_contradicts_statements": {"qcp-n-qscd", withoutStatement(oidQcSSCD)},

	"qc_statements_malformed":              {"qcp-n", put(oidQCStatements, "3000")},
	"qc_statements_critical":               {"qcp-n", makeCritical(oidQCStatements)},
	"qc_statement_twice":                   {"qcp-n", restate(func(list []qcStatement) []qcStatement { return append(list, list[0]) })},
	"qc_statement_not_in_profile":          {"qcp-n", withStatement(oidQcRetentionPeriod, "02010a")},
	"qc_compliance_missing":                {"qcp-n", withoutStatement(oidQcCompliance)},
	"qc_compliance_with_value":             {"qcp-n", withStatement(oidQcCompliance, "0500")},
	"qc_sscd_missing":                      {"qcp-l-qscd", withoutStatement(oidQcSSCD)},
	"qc_sscd_unfounded":                    {"qcp-l", withStatement(oidQcSSCD, "")},
	"qc_sscd_with_value":                   {"qcp-n-qscd", withStatement(oidQcSSCD, "0101ff")},
	"qc_type_missing":                      {"qcp-l", withoutStatement(oidQcType)},
	"qc_type_wrong":                        {"qcp-n", withStatement(oidQcType, "3009060704008e46010602")},
	"qc_type_as_statement":                 {"qcp-n", withStatement(asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 6, 1}, "")},
	"qc_cc_legislation":                    {"qcp-n", withStatement(oidQcCClegislation, "300413025553")},
	"qc_qscd_legislation":                  {"qcp-n-qscd", withStatement(oidQcQSCDlegislation, "300413025553")},
	"qc_limit_value_malformed":             {"qcp-n", withStatement(oidQcLimitValue, "300c1303657572020203e8020100")},
	"qc_limit_value_not_the_profiles":      {"qcp-n", withStatement(oidQcLimitValue, "300c1303455552020203e9020100")},
	"qc_retention_period_malformed":        {"qcp-n", withStatement(oidQcRetentionPeriod, "020100")},
	"qc_retention_period_not_the_profiles": {"qcp-n", withStatement(oidQcRetentionPeriod, "02010b")},
	"qc_pds_missing":                       {"qcp-n", withoutStatement(oidQcPDS)},
	"qc_pds_malformed":                     {"qcp-n", withStatement(oidQcPDS, "3000")},
	"qc_pds_not_https":                     {"qcp-n", withPDS(PDS{"http://ca.example.test/pds", "en"})},
	"qc_pds_language":                      {"qcp-n", withPDS(PDS{"https://ca.example.test/pds", "en"}, PDS{"https://ca.example.test/pds", "NL"})},
	"qc_pds_not_english":                   {"qcp-n", withPDS(PDS{"https://ca.example.test/pds", "nl"})},
	"qc_pds_language_twice":                {"qcp-n", withPDS(PDS{"https://ca.example.test/pds", "en"}, PDS{"https://ca.example.test/pds2", "en"})},
	"qc_ident_method_missing":              {"qcp-n", withoutStatement(oidQcIdentMethod)},
	"qc_ident_method_unknown":              {"qcp-n", withStatement(oidQcIdentMethod, "3009060704008e46010801")},
	"semantics_wrong":                      {"qcp-n", withoutStatement(oidPKIXQCSyntaxV2)},

	"validity_too_long":         {"ocsp-responder", setTime(1, cbasn1.UTCTime, "270221120001Z")},
	"ca_key_for_something_else": {"issuing-ca", putKeyUsage(0x86)},
	"validity_assured":          {"qcp-n", put(oidValidityAssured, "0500")},
	"policies_not_the_profiles": {"qcp-l", putPolicies(oidQCPl, oidNCPPlus)},

	"key_outlives_algorithm": {"issuing-ca", func(e *editable) {
		short := rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 2047, 1), E: 65537}
		e.spki, _ = x509.MarshalPKIXPublicKey(&short)
	}},

	"tsu_ext_key_usage":       {"tsu", func(e *editable) { e.setCritical(oidExtKeyUsage, false) }},
	"tsu_without_ncp_plus":    {"tsu", putPolicies(oidQCPl)},
	"tsu_key_period_missing":  {"tsu", drop(oidPrivateKeyUsagePeriod)},
	"tsu_key_period_critical": {"tsu", makeCritical(oidPrivateKeyUsagePeriod)},
	"tsu_key_period_too_long": {"tsu", func(e *editable) {
		e.put(oidPrivateKeyUsagePeriod, written(addPrivateKeyUsagePeriod(began, began.Add(1826*24*time.Hour))))
	}},
	"key_period_elsewhere": {"qcp-n", func(e *editable) {
		e.put(oidPrivateKeyUsagePeriod, written(addPrivateKeyUsagePeriod(began, began.Add(time.Hour))))
	}},

	"responder_ext_key_usage":   {"ocsp-responder", putPurposes(oidOCSPSigning, oidTimeStamping)},
	"responder_without_nocheck": {"ocsp-responder", drop(oidOCSPNoCheck)},
	"responder_with_ocsp":       {"ocsp-responder", putAccess(accessDescription{oidAccessOCSP, "http://ocsp.example.test/"})},
	"nocheck_malformed":         {"ocsp-responder", put(oidOCSPNoCheck, "3000")},
	"nocheck_elsewhere":         {"tsu", put(oidOCSPNoCheck, "0500")},
}

// houseChanges turn the profile of a fixture into one that has what the rule is about.
var houseChanges = map[string][2]string{
	"subject_alt_name_missing":             {"subject_alt_name: offered", "subject_alt_name: required"},
	"qc_limit_value_not_the_profiles":      {"qc_ident_method: absent", "qc_ident_method: absent\n  qc_limit_value: {currency: EUR, amount: 1000, exponent: 0}"},
	"qc_retention_period_not_the_profiles": {"qc_ident_method: absent", "qc_ident_method: absent\n  qc_retention_period: 10"},
	"qc_ident_method_missing":              {"qc_ident_method: absent", "qc_ident_method: required"},
}

// TestRules holds every rule to its fixtures: the clean certificate passes, the spoilt one fails, and Check says so
// with the rule's clause. A rule without a failing fixture, and a fixture without a rule, fail the test.
func TestRules(t *testing.T) {
	clean := make(map[string][]byte)
	for _, name := range Builtins() {
		clean[name] = testDraft(t, mustBuiltin(t, name), testKeyP256())
	}
	seen := make(map[string]bool)
	for _, table := range ruleTables() {
		for _, r := range table {
			if seen[r.fault] {
				t.Errorf("two rules are called %s", r.fault)
			}
			seen[r.fault] = true
			t.Run(r.fault, func(t *testing.T) { testRule(t, r, clean) })
		}
	}
	for fault := range failingFixtures {
		if !seen[fault] {
			t.Errorf("fixture %s belongs to no rule", fault)
		}
	}
	t.Logf("%d rules, %d failing fixtures", len(seen), len(failingFixtures))
}

func testRule(t *testing.T, r rule, clean map[string][]byte) {
	fixture, ok := failingFixtures[r.fault]
	if !ok {
		t.Fatalf("rule %s (%s) has no failing fixture", r.fault, r.clause)
	}
	p := mustBuiltin(t, fixture.profile)
	if house, changed := houseChanges[r.fault]; changed {
		var err error
		if p, err = ParseProfile("house.yaml", change(t, fixture.profile, house[0], house[1])); err != nil {
			t.Fatal(err)
		}
		clean[p.name] = testDraft(t, p, testKeyP256())
	}
	if r.applies != nil && !r.applies(p) {
		t.Fatalf("the rule does not apply to its fixture's profile %s", p.name)
	}
	good, err := readCertificate(clean[p.name])
	if err != nil {
		t.Fatal(err)
	}
	if detail := r.check(good, p); detail != "" {
		t.Errorf("the clean certificate fails: %s", detail)
	}
	e := edit(t, clean[p.name])
	fixture.spoil(e)
	spoilt := e.encode(t)
	bad, err := readCertificate(spoilt)
	if err != nil {
		t.Fatal(err)
	}
	detail := r.check(bad, p)
	if detail == "" {
		t.Error("the rule does not find the fault")
	}
	err = p.Check(spoilt)
	wantClause(t, err, r.clause)
	if !strings.Contains(fmt.Sprint(err), detail) {
		t.Errorf("Check says\n%v\nwithout %q", err, detail)
	}
}

// TestEditableIsFaithful: a certificate spoilt in nothing passes, so encode adds no fault of its own.
func TestEditableIsFaithful(t *testing.T) {
	for _, name := range Builtins() {
		p := mustBuiltin(t, name)
		draft := testDraft(t, p, testKeyP256())
		again := edit(t, draft).encode(t)
		if err := p.Check(again); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c, _ := readCertificate(draft)
		d, _ := readCertificate(again)
		if !bytes.Equal(c.subject, d.subject) || len(c.extensions) != len(d.extensions) {
			t.Errorf("%s: encode lost something", name)
		}
	}
}

// TestCheckNames: the names in a certificate are held to the rules for requests.
func TestCheckNames(t *testing.T) {
	p := mustBuiltin(t, "qcp-n")
	country := mustHex("300d310b3009060355040613024e4c") // C=NL alone
	for _, test := range []struct {
		fault, clause, which string
		spoil                func(*editable)
	}{
		{"subject_without_name", "EN 319 412-2 NAT-4.2.4-1", "subject: ", func(e *editable) { e.subject = country }},
		{"issuer_without_organization", "EN 319 412-2 GEN-4.2.3.1-2", "issuer: ", func(e *editable) { e.issuer = country }},
		{"country_as_utf8", "RFC 5280 A.1", "subject: ", func(e *editable) { e.subject = mustHex("300d310b300906035504060c024e4c") }},
		{"email_without_domain", "RFC 5280 §4.2.1.6", "subjectAltName: ", func(e *editable) {
			e.put(oidSubjectAltName, written(addRFC822Name("zoe@")))
		}},
		{"key_too_short", "RFC 5280 §4.1.2.7", "", func(e *editable) { e.spki = mustHex("3000") }},
	} {
		t.Run(test.fault, func(t *testing.T) {
			e := edit(t, testDraft(t, p, testKeyP256()))
			test.spoil(e)
			err := p.Check(e.encode(t))
			wantClause(t, err, test.clause)
			if !strings.Contains(err.Error(), test.clause+": "+test.which) {
				t.Errorf("%v\ndoes not say %q", err, test.which)
			}
		})
	}
}

// TestCheckOtherProfile: a certificate of one profile is none of another.
func TestCheckOtherProfile(t *testing.T) {
	for _, name := range Builtins() {
		draft := testDraft(t, mustBuiltin(t, name), testKeyP256())
		for _, other := range Builtins() {
			if err := mustBuiltin(t, other).Check(draft); (err == nil) != (name == other) {
				t.Errorf("certificate of %s under %s: %v", name, other, err)
			}
		}
	}
}
