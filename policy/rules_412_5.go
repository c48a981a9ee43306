package policy

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// rules4125 are the rules of EN 319 412-5 on QCStatements, and those of 412-1 on the semantics statement beside them.
var rules4125 = []rule{
	{"qc_statements_malformed", "EN 319 412-5 QCS-4.1-04", nil, qcStatementsMalformed},
	{"qc_statements_critical", "EN 319 412-5 QCS-4.1-02", nil, critical(oidQCStatements, "qcStatements")},
	{"qc_statement_twice", "EN 319 412-5 QCS-4.1-02A", nil, qcStatementTwice},
	{"qc_statement_not_in_profile", "EN 319 411-1 GEN-6.6.1-01", hasStatements, qcStatementNotInProfile},
	{"qc_compliance_missing", "EN 319 412-5 QCS-5-01", isQualified, literalMissing(hexQcCompliance, "QcCompliance")},
	{"qc_compliance_with_value", "EN 319 412-5 §4.2.1", nil, statementWithValue(oidQcCompliance, "QcCompliance")},
	{"qc_sscd_missing", "EN 319 412-5 QCS-5-01", isForQSCD, literalMissing(hexQcSSCD, "QcSSCD")},
	{"qc_sscd_unfounded", "EN 319 411-2 GEN-6.6.1-04", isNotForQSCD, statementForbidden(oidQcSSCD, "QcSSCD")},
	{"qc_sscd_with_value", "EN 319 412-5 §4.2.2", nil, statementWithValue(oidQcSSCD, "QcSSCD")},
	{"qc_type_missing", "EN 319 412-5 QCS-5-01", isQualified, statementMissing(oidQcType, "QcType")},
	{"qc_type_wrong", "EN 319 412-5 §4.2.3", hasStatements, qcTypeWrong},
	{"qc_type_as_statement", "EN 319 412-5 §4.2.3", nil, qcTypeAsStatement},
	{"qc_cc_legislation", "EN 319 412-5 QCS-4.2.4-01", nil, statementForbidden(oidQcCClegislation, "QcCClegislation")},
	{"qc_qscd_legislation", "EN 319 412-5 QCS-4.2.5-01", nil, statementForbidden(oidQcQSCDlegislation, "QcQSCDlegislation")},
	{"qc_limit_value_malformed", "EN 319 412-5 QCS-4.3.2-02", nil, qcLimitValueMalformed},
	{"qc_limit_value_not_the_profiles", "EN 319 411-1 GEN-6.6.1-01", hasStatements, qcLimitValueNotTheProfiles},
	{"qc_retention_period_malformed", "EN 319 412-5 §4.3.3", nil, qcRetentionPeriodMalformed},
	{"qc_retention_period_not_the_profiles", "EN 319 411-1 GEN-6.6.1-01", hasStatements, qcRetentionPeriodNotTheProfiles},
	{"qc_pds_missing", "EN 319 411-2 OVR-6.9.4-03", needsPDS, statementMissing(oidQcPDS, "QcPDS")},
	{"qc_pds_malformed", "EN 319 412-5 §4.3.4", nil, qcPDSMalformed},
	{"qc_pds_not_https", "EN 319 412-5 QCS-4.3.4-01", nil, qcPDSNotHTTPS},
	{"qc_pds_language", "EN 319 412-5 QCS-4.3.4-02", nil, qcPDSLanguage},
	{"qc_pds_not_english", "EN 319 412-5 QCS-4.3.4-03", nil, qcPDSNotEnglish},
	{"qc_pds_language_twice", "EN 319 412-5 QCS-4.3.4-03", nil, qcPDSLanguageTwice},
	{"qc_ident_method_missing", "EN 319 411-1 GEN-6.6.1-01", needsIdentMethod, statementMissing(oidQcIdentMethod, "QcIdentMethod")},
	{"qc_ident_method_unknown", "EN 319 412-5 QCS-4.3.5-01", nil, qcIdentMethodUnknown},
	{"semantics_wrong", "EN 319 412-1 §5.1.1", hasStatements, semanticsWrong},
}

func (c *certificate) states(id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.statements, func(s qcStatement) bool { return s.id.Equal(id) })
}

// statement is the DER of the statementInfo of the first statement with that identifier, nil where there is none.
func (c *certificate) statement(id asn1.ObjectIdentifier) []byte {
	for _, s := range c.statements {
		if s.id.Equal(id) {
			return s.info
		}
	}
	return nil
}

// Statements whose every octet is fixed, DER in hex: EN 319 412-5 §4.2, §4.3.5 and EN 319 412-1 §5.1. They are written
// out here, so that the rules do not repeat a slip in the builder's identifiers.
const (
	hexQcCompliance   = "3008060604008e460101"
	hexQcSSCD         = "3008060604008e460104"
	hexIdentMethodACD = "3013060604008e4601083009060704008e46010803"
	hexIdentMethodB   = "3013060604008e4601083009060704008e46010804"
)

var hexQcTypes = map[string]string{
	"esign": "3013060604008e4601063009060704008e46010601",
	"eseal": "3013060604008e4601063009060704008e46010602",
	"web":   "3013060604008e4601063009060704008e46010603",
}

var hexSemantics = map[string]string{
	"natural": "301506082b06010505070b023009060704008bec490101",
	"legal":   "301506082b06010505070b023009060704008bec490102",
}

// holds reports whether one of the statements is, octet for octet, the one in hex.
func (c *certificate) holds(statement string) bool {
	return slices.ContainsFunc(c.statements, func(s qcStatement) bool { return hex.EncodeToString(s.raw) == statement })
}

func literalMissing(statement, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if !c.holds(statement) {
			return name + " (" + statement + ") is missing"
		}
		return ""
	}
}

func statementMissing(id asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if !c.states(id) {
			return name + " is missing"
		}
		return ""
	}
}

func statementForbidden(id asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if c.states(id) {
			return name + " is forbidden here"
		}
		return ""
	}
}

// statementWithValue: where there is no statementInfo, not even NULL may stand.
func statementWithValue(id asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if info := c.statement(id); len(info) > 0 {
			return fmt.Sprintf("%s has a statementInfo, %x: it has none", name, info)
		}
		return ""
	}
}

func qcStatementsMalformed(c *certificate, _ *Profile) string {
	e, there := c.find(oidQCStatements)
	if _, ok := readStatements(e.Value); there && !ok {
		return "qcStatements is not a SEQUENCE OF QCStatement, or empty"
	}
	return ""
}

func qcStatementTwice(c *certificate, _ *Profile) string {
	list := c.statements
	for i, s := range list {
		twice := slices.ContainsFunc(list[:i], func(other qcStatement) bool { return other.id.Equal(s.id) })
		if twice && under(s.id, arcETSIQCS) {
			return fmt.Sprintf("statement %v is there twice", s.id)
		}
	}
	return ""
}

// qcStatementNotInProfile leaves statements with a rule of their own to it.
func qcStatementNotInProfile(c *certificate, p *Profile) string {
	q := p.qc
	for _, s := range c.statements {
		switch {
		case s.id.Equal(oidQcLimitValue) && q.limit != nil, s.id.Equal(oidQcRetentionPeriod) && q.retention != 0,
			s.id.Equal(oidQcPDS) && q.pds != absent, s.id.Equal(oidQcIdentMethod) && q.ident != absent,
			s.id.Equal(oidQcCompliance), s.id.Equal(oidQcType), under(s.id, oidQcType), s.id.Equal(oidQcSSCD),
			s.id.Equal(oidQcCClegislation), s.id.Equal(oidQcQSCDlegislation), s.id.Equal(oidPKIXQCSyntaxV2):
		default:
			return fmt.Sprintf("statement %v has no place in profile %s", s.id, p.name)
		}
	}
	return ""
}

func qcTypeWrong(c *certificate, p *Profile) string {
	if want := hexQcTypes[p.qc.qcType]; !c.holds(want) {
		types, _ := readOIDs(c.statement(oidQcType))
		return fmt.Sprintf("QcType is %v: exactly one, %s (%s), is wanted", types, p.qc.qcType, want)
	}
	return ""
}

func qcTypeAsStatement(c *certificate, _ *Profile) string {
	for _, s := range c.statements {
		if under(s.id, oidQcType) {
			return fmt.Sprintf("%v is a value of QcType and stands as a statement", s.id)
		}
	}
	return ""
}

// qcLimitValueMalformed reads MonetaryValue; only the alphabetic currency is accepted, which should be used.
func qcLimitValueMalformed(c *certificate, _ *Profile) string {
	if !c.states(oidQcLimitValue) {
		return ""
	}
	s := cryptobyte.String(c.statement(oidQcLimitValue))
	var value, code cryptobyte.String
	var amount, exponent big.Int
	if !s.ReadASN1(&value, cbasn1.SEQUENCE) || !s.Empty() || !value.ReadASN1(&code, cbasn1.PrintableString) ||
		!value.ReadASN1Integer(&amount) || !value.ReadASN1Integer(&exponent) || !value.Empty() ||
		!currency.Match(code) || amount.Sign() < 0 || exponent.Sign() < 0 {
		return "QcLimitValue is not three capitals of ISO 4217 with amount and exponent of 0 or more"
	}
	return ""
}

// qcLimitValueNotTheProfiles reads what qcLimitValueMalformed found in order; an amount that no int64 holds is not the profile's.
func qcLimitValueNotTheProfiles(c *certificate, p *Profile) string {
	var found string
	s := cryptobyte.String(c.statement(oidQcLimitValue))
	var value, code cryptobyte.String
	var amount, exponent int64
	if s.ReadASN1(&value, cbasn1.SEQUENCE) && value.ReadASN1(&code, cbasn1.PrintableString) &&
		value.ReadASN1Integer(&amount) && value.ReadASN1Integer(&exponent) {
		found = fmt.Sprintf("%s %de%d", code, amount, exponent)
	}
	var want string
	if l := p.qc.limit; l != nil {
		want = fmt.Sprintf("%s %de%d", l.Currency, l.Amount, l.Exponent)
	}
	if found != want {
		return fmt.Sprintf("QcLimitValue is %q, the profile has %q", found, want)
	}
	return ""
}

func qcRetentionPeriodMalformed(c *certificate, _ *Profile) string {
	if !c.states(oidQcRetentionPeriod) {
		return ""
	}
	s := cryptobyte.String(c.statement(oidQcRetentionPeriod))
	var years int64
	if !s.ReadASN1Integer(&years) || !s.Empty() || years < 1 {
		return "QcRetentionPeriod is not a number of years from 1"
	}
	return ""
}

func qcRetentionPeriodNotTheProfiles(c *certificate, p *Profile) string {
	s := cryptobyte.String(c.statement(oidQcRetentionPeriod))
	var years int
	if c.states(oidQcRetentionPeriod) && !s.ReadASN1Integer(&years) || years != p.qc.retention {
		return fmt.Sprintf("QcRetentionPeriod is %d years, the profile has %d (0 is none)", years, p.qc.retention)
	}
	return ""
}

// pds is what QcPDS of the certificate lists, none where it cannot be read.
func (c *certificate) pds() []PDS {
	list, _ := readPDS(c.statement(oidQcPDS))
	return list
}

func qcPDSMalformed(c *certificate, _ *Profile) string {
	if _, ok := readPDS(c.statement(oidQcPDS)); !ok && c.states(oidQcPDS) {
		return "QcPDS is not a SEQUENCE OF { IA5String, PrintableString }, or empty"
	}
	return ""
}

func qcPDSNotHTTPS(c *certificate, _ *Profile) string {
	for _, pds := range c.pds() {
		if err := checkURL(pds.URL, "https"); err != nil {
			return "QcPDS: " + err.Error()
		}
	}
	return ""
}

func qcPDSLanguage(c *certificate, _ *Profile) string {
	for _, pds := range c.pds() {
		if !isLanguage(pds.Language) {
			return fmt.Sprintf("QcPDS language %q is not two lower-case letters of ISO 639-1", pds.Language)
		}
	}
	return ""
}

func qcPDSNotEnglish(c *certificate, _ *Profile) string {
	list := c.pds()
	if len(list) > 0 && !slices.ContainsFunc(list, func(pds PDS) bool { return pds.Language == "en" }) {
		return "QcPDS has no statement in English"
	}
	return ""
}

func qcPDSLanguageTwice(c *certificate, _ *Profile) string {
	list := c.pds()
	for i, pds := range list {
		if slices.ContainsFunc(list[:i], func(other PDS) bool { return other.Language == pds.Language }) {
			return fmt.Sprintf("QcPDS has two statements in language %q", pds.Language)
		}
	}
	return ""
}

func qcIdentMethodUnknown(c *certificate, _ *Profile) string {
	if !c.states(oidQcIdentMethod) {
		return ""
	}
	if !c.holds(hexIdentMethodACD) && !c.holds(hexIdentMethodB) {
		methods, _ := readOIDs(c.statement(oidQcIdentMethod))
		return fmt.Sprintf("QcIdentMethod is %v: one of 0.4.0.1862.1.8.3 and 0.4.0.1862.1.8.4 is wanted", methods)
	}
	return ""
}

// organizationIdentifier is the DER of the attribute's identifier, 2.5.4.97. It occurs in no other part of a Name that
// passes: U+0003 and U+0006 have no glyph.
const organizationIdentifier = "\x06\x03\x55\x04\x61"

// semanticsWrong: exactly the semantics identifiers of the profile, in its order, with nothing else. A natural person's
// DN with organizationIdentifier needs the legal one as well, without which that attribute has no defined meaning.
func semanticsWrong(c *certificate, p *Profile) string {
	names := p.qc.semantics
	if p.subject == naturalSubject && !slices.Contains(names, "legal") && bytes.Contains(c.subject, []byte(organizationIdentifier)) {
		names = append(slices.Clone(names), "legal")
	}
	var found, want []string
	for _, s := range c.statements {
		if s.id.Equal(oidPKIXQCSyntaxV2) {
			found = append(found, hex.EncodeToString(s.raw))
		}
	}
	for _, name := range names {
		want = append(want, hexSemantics[name])
	}
	if !slices.Equal(found, want) {
		return fmt.Sprintf("semantics statements are %v: %v, which is %v, is wanted", found, want, names)
	}
	return ""
}
