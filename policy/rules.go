package policy

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// rule is one demand on a finished certificate. The rules of one source stand in rules_SOURCE.go; those on
// names are subjectRules and those on public keys keyViolations, because requests are held to them as well.
type rule struct {
	fault   string // what it finds, in snake_case: the name of its failing fixture
	clause  string
	applies func(*Profile) bool // nil: to every profile
	check   func(*certificate, *Profile) (detail string)
}

// ruleTables are all rules, in the order in which their findings are reported.
func ruleTables() [][]rule {
	return [][]rule{rulesRFC5280, rules4122, rules4125, rules411, rules312, rulesTSU, rulesOCSP}
}

// Check applies every rule of the profile to a certificate or draft (DER). What it finds is Violations; what is no
// certificate at all is a plain error. It reads the finished bytes with code of its own, not the builder's, and compares
// with octets written out from the standards. What only the issuer can tell is CheckIssued's.
func (p *Profile) Check(certificate []byte) error {
	c, err := readCertificate(certificate)
	if err != nil {
		return fmt.Errorf("check certificate: %w", err)
	}
	return p.violations(c).err()
}

func (p *Profile) violations(c *certificate) Violations {
	var v Violations
	for _, table := range ruleTables() {
		for _, r := range table {
			if r.applies != nil && !r.applies(p) {
				continue
			}
			if detail := r.check(c, p); detail != "" {
				v.add(r.clause, "%s", detail)
			}
		}
	}
	// Which types of identifiers the issuer's name may have was decided when the issuer was certified.
	v = append(v, nameViolations("issuer", c.issuer, caSubject, newest)...)
	v = append(v, nameViolations("subject", c.subject, p.subject, p.identifiers)...)
	return append(v, keyViolations(c.spki)...)
}

// nameViolations holds a Name read back from a certificate to the rules for its kind of subject.
func nameViolations(which string, name []byte, kind subjectKind, types identifierTypes) Violations {
	s, err := readName(name)
	var v Violations
	switch {
	case err == nil:
		v = s.violations(kind, types)
	case !errors.As(err, &v):
		v.add("RFC 5280 §4.1.2.4", "%v", err)
	}
	for i, one := range v {
		v[i] = &Violation{Clause: one.Clause, Detail: which + ": " + one.Detail}
	}
	return v
}

// certificate is RFC 5280 §4.1 taken apart as far as rules look at it. Slices alias the certificate.
type certificate struct {
	raw              []byte
	version          int64  // as encoded: 2 for v3
	serial           []byte // content octets of the INTEGER
	inner, outer     []byte // AlgorithmIdentifiers of TBSCertificate and Certificate, DER
	issuer, subject  []byte // Name, DER
	from, to         timeField
	spki             []byte // SubjectPublicKeyInfo, DER
	uniqueIdentifier bool
	extensions       []der.Extension
	writesFalse      bool          // an extension has critical FALSE written out
	statements       []qcStatement // of qcStatements; none where they cannot be read
	unreadable       error         // what crypto/x509 says against it
}

// timeField is Time of RFC 5280 §4.1.2.5 as it was written.
type timeField struct {
	tag  cbasn1.Tag
	text string
	time time.Time // zero where text is malformed
}

func readCertificate(raw []byte) (*certificate, error) {
	c := &certificate{raw: raw}
	s := cryptobyte.String(raw)
	var cert, tbs, algorithm cryptobyte.String
	var signature asn1.BitString
	if !s.ReadASN1(&cert, cbasn1.SEQUENCE) || !s.Empty() || !cert.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!cert.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !cert.ReadASN1BitString(&signature) || !cert.Empty() {
		return nil, errors.New("not a Certificate (RFC 5280 §4.1)")
	}
	c.outer = algorithm
	if err := c.readTBS(tbs); err != nil {
		return nil, err
	}
	e, _ := c.find(oidQCStatements)
	c.statements, _ = readStatements(e.Value)
	_, c.unreadable = x509.ParseCertificate(raw)
	return c, nil
}

func (c *certificate) readTBS(tbs cryptobyte.String) error {
	var version, serial, inner, issuer, validity, subject, spki cryptobyte.String
	var versioned bool
	if !tbs.ReadOptionalASN1(&version, &versioned, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		versioned && (!version.ReadASN1Integer(&c.version) || !version.Empty()) ||
		!tbs.ReadASN1(&serial, cbasn1.INTEGER) || !tbs.ReadASN1Element(&inner, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) || !tbs.ReadASN1(&validity, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&subject, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return errors.New("not a TBSCertificate (RFC 5280 §4.1)")
	}
	c.serial, c.inner, c.issuer, c.subject, c.spki = serial, inner, issuer, subject, spki
	var ok bool
	if c.from, ok = readTime(&validity); !ok {
		return errors.New("notBefore is no Time (RFC 5280 §4.1.2.5)")
	}
	if c.to, ok = readTime(&validity); !ok || !validity.Empty() {
		return errors.New("notAfter is no Time (RFC 5280 §4.1.2.5)")
	}
	for tag := cbasn1.Tag(1); tag <= 2; tag++ {
		found := tbs.PeekASN1Tag(tag.ContextSpecific())
		if found && !tbs.SkipASN1(tag.ContextSpecific()) {
			return errors.New("not a TBSCertificate (RFC 5280 §4.1)")
		}
		c.uniqueIdentifier = c.uniqueIdentifier || found
	}
	return c.readExtensions(tbs)
}

// readExtensions reads [3] EXPLICIT Extensions; one that occurs twice is kept for the rule that says so.
func (c *certificate) readExtensions(tbs cryptobyte.String) error {
	var wrapped, list cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&wrapped, &present, cbasn1.Tag(3).ContextSpecific().Constructed()) || !tbs.Empty() ||
		present && (!wrapped.ReadASN1(&list, cbasn1.SEQUENCE) || !wrapped.Empty()) {
		return errors.New("extensions cannot be read (RFC 5280 §4.1)")
	}
	for !list.Empty() {
		var one, value cryptobyte.String
		var e der.Extension
		if !list.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&e.ID) {
			return errors.New("an Extension cannot be read (RFC 5280 §4.2)")
		}
		written := one.PeekASN1Tag(cbasn1.BOOLEAN)
		if written && !one.ReadASN1Boolean(&e.Critical) || !one.ReadASN1(&value, cbasn1.OCTET_STRING) || !one.Empty() {
			return errors.New("an Extension cannot be read (RFC 5280 §4.2)")
		}
		e.Value = value
		c.writesFalse = c.writesFalse || written && !e.Critical
		c.extensions = append(c.extensions, e)
	}
	return nil
}

// readTime reads UTCTime or GeneralizedTime. One that is not whole seconds with Z keeps a zero time.
func readTime(s *cryptobyte.String) (timeField, bool) {
	var content cryptobyte.String
	f := timeField{tag: cbasn1.UTCTime}
	if !s.PeekASN1Tag(f.tag) {
		f.tag = cbasn1.GeneralizedTime
	}
	if !s.ReadASN1(&content, f.tag) {
		return f, false
	}
	f.text = string(content)
	f.time = parseTime(f.tag, f.text)
	return f, true
}

// parseTime is zero for what is not YYMMDDhhmmssZ or YYYYMMDDhhmmssZ.
func parseTime(tag cbasn1.Tag, text string) time.Time {
	if tag == cbasn1.UTCTime {
		// RFC 5280 §4.1.2.5.1: YY from 50 is 19YY, below it 20YY.
		if len(text) == len("YYMMDDhhmmssZ") && text[0] >= '5' {
			text = "19" + text
		} else {
			text = "20" + text
		}
	}
	const form = "20060102150405Z"
	t, err := time.Parse(form, text)
	if err != nil || t.Format(form) != text {
		return time.Time{}
	}
	return t
}

// find returns the extension with that identifier, the first where there are several.
func (c *certificate) find(id asn1.ObjectIdentifier) (der.Extension, bool) {
	return der.FindExtension(c.extensions, id)
}

func (c *certificate) has(id asn1.ObjectIdentifier) bool {
	_, ok := c.find(id)
	return ok
}

// critical makes the rule that the extension, where it is, is not critical.
func critical(id asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if e, ok := c.find(id); ok && e.Critical {
			return name + " is critical"
		}
		return ""
	}
}

// missing makes the rule that the extension is there.
func extensionMissing(id asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if !c.has(id) {
			return name + " is missing"
		}
		return ""
	}
}

// extensionForbidden makes the rule that the extension is not there.
func extensionForbidden(id asn1.ObjectIdentifier, name string) func(*certificate, *Profile) string {
	return func(c *certificate, _ *Profile) string {
		if c.has(id) {
			return name + " is forbidden here"
		}
		return ""
	}
}

// To whom a rule applies.
func isCA(p *Profile) bool             { return p.ca }
func isEndEntity(p *Profile) bool      { return !p.ca }
func isSelfSigned(p *Profile) bool     { return p.selfSigned }
func isNotSelfSigned(p *Profile) bool  { return !p.selfSigned }
func isTSU(p *Profile) bool            { return p.subject == tsuSubject }
func isNotTSU(p *Profile) bool         { return p.subject != tsuSubject }
func isOCSP(p *Profile) bool           { return p.subject == ocspSubject }
func isNotOCSP(p *Profile) bool        { return p.subject != ocspSubject }
func isQualified(p *Profile) bool      { return p.qc.compliance }
func hasStatements(p *Profile) bool    { return p.qc.present }
func hasPolicies(p *Profile) bool      { return len(p.policies) > 0 }
func needsCRL(p *Profile) bool         { return p.crl == required }
func needsCAIssuers(p *Profile) bool   { return p.caIssuers == required }
func needsOCSP(p *Profile) bool        { return p.ocsp == required }
func isForSignatures(p *Profile) bool  { return p.qc.qcType == "esign" }
func isForSeals(p *Profile) bool       { return p.qc.qcType == "eseal" }
func isForQSCD(p *Profile) bool        { return p.qc.sscd }
func isNotForQSCD(p *Profile) bool     { return p.qc.present && !p.qc.sscd }
func needsPDS(p *Profile) bool         { return p.qc.pds == required }
func needsIdentMethod(p *Profile) bool { return p.qc.ident == required }
func needsAltName(p *Profile) bool     { return p.altName == required }

// sameOIDs reports whether two lists hold the same identifiers in the same order.
func sameOIDs(a, b []asn1.ObjectIdentifier) bool {
	return slices.EqualFunc(a, b, asn1.ObjectIdentifier.Equal)
}
