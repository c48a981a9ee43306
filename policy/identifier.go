package policy

import (
	"fmt"
	"math/big"
	"strings"
)

// An identifier of EN 319 412-1 §5.1.3 (natural persons, in serialNumber) and §5.1.4 (legal
// persons, in organizationIdentifier) is type, country, hyphen-minus, number: PNONL-123456789,
// NTRUS+CA-123456. The rules hold where the certificate carries the semantics statement; we
// apply them to every name, because a number of no stated kind identifies nobody.

// scheme is one identity type reference.
type scheme struct {
	reference string                // the three letters
	means     string                // for people
	extra     string                // country codes besides ISO 3166-1, between spaces
	number    func(n string) string // what is wrong with the number, "" if nothing; nil: not known further
	clause    string                // of number
	newest    bool                  // of the newest edition only
}

// identifierTypes says from which edition of EN 319 412-1 a profile takes the identity type references: that of
// V1.6.1, which the law pins (CIR (EU) 2025/1943), or the newest, V1.7.1, which has EID, EOR and EXC besides.
type identifierTypes string

const (
	pinned identifierTypes = "pinned"
	newest identifierTypes = "newest"
)

// UnmarshalText accepts the two words.
func (t *identifierTypes) UnmarshalText(text []byte) error {
	switch *t = identifierTypes(text); *t {
	case pinned, newest:
		return nil
	}
	return fmt.Errorf("%q where pinned (EN 319 412-1 V1.6.1) or newest (V1.7.1) belongs", text)
}

// naturalSchemes: NAT-5.1.3-03. TAX is deprecated (NAT-5.1.3-04: should not) and taken:
// the clause is advice, and who holds only a TAX number must not be given a wrong TIN.
var naturalSchemes = []scheme{
	{reference: "PAS", means: "passport"},
	{reference: "IDC", means: "national identity card"},
	{reference: "PNO", means: "national personal number"},
	{reference: "TIN", means: "tax identification number", extra: " EL "}, // NAT-5.1.3-03 (5)
	{reference: "TAX", means: "tax reference, deprecated for TIN"},
	{reference: "EID", means: "electronic identification means", newest: true},
}

// legalSchemes: LEG-5.1.4-03.
var legalSchemes = []scheme{
	{reference: "VAT", means: "value added tax number", extra: " EL XI "}, // LEG-5.1.4-04
	{reference: "NTR", means: "national trade register"},
	{reference: "PSD", means: "payment service provider", number: pspFault, clause: "ETSI TS 119 495 §5.2.1"},
	{reference: "LEI", means: "legal entity identifier", number: leiFault, clause: "EN 319 412-1 LEG-5.1.4-03"},
	{reference: "EOR", means: "economic operator (EORI)", newest: true},
	{reference: "EXC", means: "excise number", newest: true},
}

// identifierClause is §5.1.3 or §5.1.4, with the requirement each fault breaks.
type identifierClause struct {
	attribute string
	edition   identifierTypes
	schemes   []scheme
	structure string // 02: type, country, hyphen-minus, identifier
	types     string // 03: the type references
	local     string // 05: two letters and a colon
	example   string
}

// naturalIdentifiers is id-etsi-qcs-semanticsId-Natural.
func naturalIdentifiers(edition identifierTypes) identifierClause {
	return identifierClause{attribute: "serialNumber", edition: edition, schemes: naturalSchemes, structure: "EN 319 412-1 NAT-5.1.3-02",
		types: "EN 319 412-1 NAT-5.1.3-03", local: "EN 319 412-1 NAT-5.1.3-05", example: "PNONL-123456789"}
}

// legalIdentifiers is id-etsi-qcs-SemanticsId-Legal.
func legalIdentifiers(edition identifierTypes) identifierClause {
	return identifierClause{attribute: "organizationIdentifier", edition: edition, schemes: legalSchemes, structure: "EN 319 412-1 LEG-5.1.4-02",
		types: "EN 319 412-1 LEG-5.1.4-03", local: "EN 319 412-1 LEG-5.1.4-05", example: "NTRNL-12345678"}
}

// check adds the first rule that identifier breaks.
func (m identifierClause) check(identifier string, v *Violations) {
	fault := func(clause, format string, args ...any) {
		v.add(clause, "%s %q: %s", m.attribute, identifier, fmt.Sprintf(format, args...))
	}
	head, number, found := strings.Cut(identifier, "-")
	switch {
	case len(head) >= 3 && head[2] == ':' && isUpperAlpha(head[:2]):
		fault(m.local, "the national scheme %s needs nameRegistrationAuthorities in the certificate, which no profile states yet: use one of %s",
			head[:3], m.references())
		return
	case !found || len(head) < 5:
		fault(m.structure, "write type, country, hyphen-minus, number, like %s", m.example)
		return
	}
	s, known := m.scheme(head[:3])
	switch {
	case !known:
		fault(m.types, "no identity type %q: use one of %s", head[:3], m.references())
	case !m.has(s):
		fault(m.types, "%s (%s) came with EN 319 412-1 V1.7.1, and the edition pinned by law is V1.6.1: use one of %s, or a profile with identifier_types: newest",
			s.reference, s.means, m.references())
	case number == "":
		fault(m.structure, "nothing after the hyphen-minus, like %s", m.example)
	default:
		if clause, wrong := m.country(s, head[3:5], head[5:]); wrong != "" {
			fault(clause, "%s", wrong)
			return
		}
		if s.number != nil {
			if wrong := s.number(number); wrong != "" {
				fault(s.clause, "%s", wrong)
			}
		}
	}
}

// country judges the country code and what stands between it and the hyphen-minus.
func (m identifierClause) country(s scheme, code, subdivision string) (clause, wrong string) {
	switch {
	case s.reference == "LEI" && code != globalCode:
		return m.types, "a LEI is global: its country code is XG, like LEIXG-…"
	case code == globalCode && s.reference != "LEI":
		return "EN 319 412-1 GEN-5.1.1-02", "XG stands for schemes of the whole world, and " + s.reference + " is none"
	case code != globalCode && !isCountry(code) && !isListed(transnationalCodes+userDefinedCodes+s.extra, code):
		return m.structure, fmt.Sprintf("%q is no country code of ISO 3166-1 that %s may have%s", code, s.reference, nearCountry(code))
	case subdivision == "":
		return "", ""
	case s.reference == "NTR" && isSubdivision(subdivision):
		return "", ""
	case s.reference == "NTR":
		return "EN 319 412-1 LEG-5.1.4-08", fmt.Sprintf("%q is no subdivision: write + and one to three letters or digits, like NTRUS+CA-123456", subdivision)
	}
	return m.structure, fmt.Sprintf("%q between country and hyphen-minus: write it like %s", subdivision, m.example)
}

func (m identifierClause) scheme(reference string) (scheme, bool) {
	for _, s := range m.schemes {
		if s.reference == reference {
			return s, true
		}
	}
	return scheme{}, false
}

// has reports whether the edition has the scheme.
func (m identifierClause) has(s scheme) bool { return m.edition == newest || !s.newest }

// references lists the types for people.
func (m identifierClause) references() string {
	var list []string
	for _, s := range m.schemes {
		if m.has(s) {
			list = append(list, s.reference+" ("+s.means+")")
		}
	}
	return strings.Join(list, ", ")
}

// isSubdivision reports whether s is "+" and the second half of an ISO 3166-2 code.
func isSubdivision(s string) bool {
	code, found := strings.CutPrefix(s, "+")
	return found && len(code) >= 1 && len(code) <= 3 && isUpperAlnum(code)
}

// pspFault judges the number of a payment service provider: the competent authority in 2 to 8
// capitals, hyphen-minus, the number it gave (ETSI TS 119 495 §5.2.1).
func pspFault(number string) string {
	authority, id, found := strings.Cut(number, "-")
	if !found || len(authority) < 2 || len(authority) > 8 || !isUpperAlpha(authority) || id == "" {
		return "write the authority in 2 to 8 capitals, hyphen-minus, and its number, like PSDPL-PFSA-1234567890"
	}
	return ""
}

// leiFault judges a legal entity identifier (ISO 17442-1): 18 letters and digits, then two
// check digits that make the whole, letters read as 10 to 35, 1 modulo 97 (ISO/IEC 7064).
func leiFault(lei string) string {
	if len(lei) != 20 || !isUpperAlnum(lei) {
		return "a LEI is 20 capital letters and digits"
	}
	var digits strings.Builder
	for _, c := range lei {
		if c <= '9' {
			digits.WriteRune(c)
		} else {
			fmt.Fprint(&digits, c-'A'+10)
		}
	}
	n, ok := new(big.Int).SetString(digits.String(), 10)
	if !ok || n.Mod(n, big.NewInt(97)).Int64() != 1 {
		return "the check digits of the LEI are wrong: a character was mistaken"
	}
	return ""
}

func isUpperAlnum(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
