package policy

import (
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
	{"qc_compliance_missing", "EN 319 412-5 QCS-5-01", isQualified, statementMissing(oidQcCompliance, "QcCompliance")},
	{"qc_compliance_with_value", "EN 319 412-5 §4.2.1", nil, statementWithValue(oidQcCompliance, "QcCompliance")},
	{"qc_sscd_missing", "EN 319 412-5 QCS-5-01", isForQSCD, statementMissing(oidQcSSCD, "QcSSCD")},
	{"qc_sscd_unfounded", "EN 319 411-2 GEN-6.6.1-04", isNotForQSCD, statementForbidden(oidQcSSCD, "QcSSCD")},
	{"qc_sscd_with_value", "EN 319 412-5 §4.2.2", nil, statementWithValue(oidQcSSCD, "QcSSCD")},
	{"qc_type_missing", "EN 319 412-5 QCS-5-01", isQualified, statementMissing(oidQcType, "QcType")},
	{"qc_type_wrong", "EN 319 412-5 §4.2.3", hasStatements, qcTypeWrong},
	{"qc_type_as_statement", "EN 319 412-5 §4.2.3", nil, qcTypeAsStatement},
	{"qc_cc_legislation", "EN 319 412-5 QCS-4.2.4-01", nil, statementForbidden(oidQcCClegislation, "QcCClegislation")},
	{"qc_qscd_legislation", "EN 319 412-5 QCS-4.2.5-01", nil, statementForbidden(oidQcQSCDlegislation, "QcQSCDlegislation")},
	{"qc_limit_value_malformed", "EN 319 412-5 QCS-4.3.2-02", nil, qcLimitValueMalformed},
	{"qc_retention_period_malformed", "EN 319 412-5 §4.3.3", nil, qcRetentionPeriodMalformed},
	{"qc_pds_missing", "EN 319 411-2 OVR-6.9.4-03", needsPDS, statementMissing(oidQcPDS, "QcPDS")},
	{"qc_pds_malformed", "EN 319 412-5 §4.3.4", nil, qcPDSMalformed},
	{"qc_pds_not_https", "EN 319 412-5 QCS-4.3.4-01", nil, qcPDSNotHTTPS},
	{"qc_pds_language", "EN 319 412-5 QCS-4.3.4-02", nil, qcPDSLanguage},
	{"qc_pds_not_english", "EN 319 412-5 QCS-4.3.4-03", nil, qcPDSNotEnglish},
	{"qc_pds_language_twice", "EN 319 412-5 QCS-4.3.4-03", nil, qcPDSLanguageTwice},
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

// sequenceOf is the DER of SEQUENCE { OBJECT IDENTIFIER }, spelled without the builder's code.
func sequenceOf(id asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal([]asn1.ObjectIdentifier{id})
	if err != nil {
		return nil
	}
	return der
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
	if !c.states(oidQcType) {
		return ""
	}
	types, ok := readOIDs(c.statement(oidQcType))
	if !ok || len(types) != 1 || !types[0].Equal(qcTypes[p.qc.qcType]) {
		return fmt.Sprintf("QcType is %v: exactly one, %s (%v), is wanted", types, p.qc.qcType, qcTypes[p.qc.qcType])
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
	methods, ok := readOIDs(c.statement(oidQcIdentMethod))
	if !ok || len(methods) != 1 || !methods[0].Equal(oidIdentMethodACD) && !methods[0].Equal(oidIdentMethodB) {
		return fmt.Sprintf("QcIdentMethod is %v: one of %v and %v is wanted", methods, oidIdentMethodACD, oidIdentMethodB)
	}
	return ""
}

// semanticsWrong: exactly the semantics identifiers of the profile, in its order, with nothing else.
func semanticsWrong(c *certificate, p *Profile) string {
	var found []string
	for _, s := range c.statements {
		if s.id.Equal(oidPKIXQCSyntaxV2) {
			found = append(found, hex.EncodeToString(s.info))
		}
	}
	var want []string
	for _, name := range p.qc.semantics {
		want = append(want, hex.EncodeToString(sequenceOf(semanticsIdentifiers[name])))
	}
	if !slices.Equal(found, want) {
		return fmt.Sprintf("semantics statements are %v: %v of %v is wanted", found, want, p.qc.semantics)
	}
	return ""
}
