package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// subjectRule is one rule on names: the kinds of subject it holds for (none: for all), and
// what is wrong with a name by it. The same rules judge a request and a finished certificate.
type subjectRule struct {
	clause string
	kinds  []subjectKind
	faults func(s *Subject) []string
}

// subjectRules are EN 319 412-2 §4.2.3.1 (CA names) and §4.2.4 (natural persons), EN 319 412-3
// §4.2.1 (legal persons), EN 319 422 §6.2 (time-stamping units). An OCSP responder belongs to
// the legal person that runs the CA, so the rules on legal persons hold for it. A TSA that is
// a natural person is not served.
//
// Rules that no program can judge (that a name is the one on the identity document,
// NAT-4.2.4-12; that serialNumber resolves every collision, NAT-4.2.4-13) are the registration
// officer's and the CA's; "should not mix scripts" (NAT-4.2.4-19) is not enforced.
var subjectRules = []subjectRule{
	{"EN 319 412-2 NAT-4.2.4-1", []subjectKind{naturalSubject}, naturalNameMissing},
	{"EN 319 412-2 NAT-4.2.4-3", []subjectKind{naturalSubject}, repeated("countryName", "commonName")},
	{"EN 319 412-2 NAT-4.2.4-4", []subjectKind{naturalSubject}, pseudonymBesideName},
	{"EN 319 412-2 NAT-4.2.4-6", []subjectKind{naturalSubject}, organizationNameMissing},

	{"EN 319 412-3 LEG-4.2.1-1", []subjectKind{legalSubject, tsuSubject, ocspSubject}, personalAttribute},
	{"EN 319 412-3 LEG-4.2.1-2", []subjectKind{legalSubject, ocspSubject},
		missing("countryName", "organizationName", "organizationIdentifier", "commonName")},
	{"EN 319 412-3 LEG-4.2.1-2", []subjectKind{tsuSubject}, missing("organizationIdentifier")},
	{"EN 319 412-3 LEG-4.2.1-3", []subjectKind{legalSubject, ocspSubject, tsuSubject},
		repeated("countryName", "organizationName", "organizationIdentifier", "commonName")},
	{"EN 319 412-3 LEG-4.2.1-6", []subjectKind{legalSubject, ocspSubject, tsuSubject}, identifierIsName},

	{"EN 319 422 §6.2", []subjectKind{tsuSubject}, missing("countryName", "organizationName", "commonName")},

	{"EN 319 412-2 GEN-4.2.3.1-2", []subjectKind{caSubject}, missing("countryName", "organizationName", "commonName")},
	{"EN 319 412-2 GEN-4.2.3.1-2", []subjectKind{caSubject}, personalAttribute},
	{"EN 319 412-2 GEN-4.2.3.1-3", []subjectKind{caSubject}, missing("organizationIdentifier")},
	{"EN 319 412-2 GEN-4.2.3.1-5", []subjectKind{caSubject},
		repeated("countryName", "organizationName", "organizationIdentifier", "commonName")},
	{"EN 319 412-2 GEN-4.2.3.1-8", []subjectKind{caSubject}, identifierIsName},

	{"ITU-T X.520 §6.3.1", nil, countryUnknown},
	{"RFC 5280 §4.1.2.4", nil, valueUnreadable},
	{"RFC 5280 §7.1", nil, valueAmbiguous},
	{"RFC 5280 A.1", nil, notPrintable},
	{"RFC 5280 §4.2.1.6", nil, emailFault},
}

// violations are the rules on the DN and the e-mail address that the subject breaks as that
// kind of subject, with identifiers of those types. Registration and device are evidence's.
func (s *Subject) violations(kind subjectKind, types identifierTypes) Violations {
	var v Violations
	for _, r := range subjectRules {
		if r.kinds != nil && !slices.Contains(r.kinds, kind) {
			continue
		}
		for _, fault := range r.faults(s) {
			v.add(r.clause, "%s", fault)
		}
	}
	for _, a := range s.Attributes {
		a.tooLong(kind, &v)
	}
	if kind == naturalSubject {
		for _, identifier := range s.values("serialNumber") {
			naturalIdentifiers(types).check(identifier, &v)
		}
	}
	for _, identifier := range s.values("organizationIdentifier") {
		legalIdentifiers(types).check(identifier, &v)
	}
	return v
}

// missing makes the rule that each of the attributes is there.
func missing(types ...string) func(*Subject) []string {
	return func(s *Subject) []string {
		var faults []string
		for _, t := range types {
			if len(s.values(t)) == 0 {
				faults = append(faults, t+" is missing")
			}
		}
		return faults
	}
}

// repeated makes the rule that none of the attributes is there twice.
func repeated(types ...string) func(*Subject) []string {
	return func(s *Subject) []string {
		var faults []string
		for _, t := range types {
			if n := len(s.values(t)); n > 1 {
				faults = append(faults, fmt.Sprintf("%s is there %d times, once is allowed", t, n))
			}
		}
		return faults
	}
}

func naturalNameMissing(s *Subject) []string {
	faults := missing("countryName", "commonName")(s)
	if len(s.values("surname"))+len(s.values("givenName"))+len(s.values("pseudonym")) == 0 {
		faults = append(faults, "the person has no name: write surname and givenName as far as there are any, or a pseudonym")
	}
	return faults
}

func pseudonymBesideName(s *Subject) []string {
	if len(s.values("pseudonym")) > 0 && len(s.values("surname"))+len(s.values("givenName")) > 0 {
		return []string{"pseudonym beside surname or givenName: leave out one or the other"}
	}
	return nil
}

// organizationNameMissing: a number says of whom the person is part only beside the name it belongs to.
func organizationNameMissing(s *Subject) []string {
	if len(s.values("organizationIdentifier")) > 0 && len(s.values("organizationName")) == 0 {
		return []string{"organizationIdentifier without organizationName: write the name of the organization the person is associated with"}
	}
	return nil
}

// personalAttribute finds what only EN 319 412-2 §4.2.4 gives a meaning, for natural persons. LEG-4.2.1-1 takes that
// clause away from legal persons, and GEN-4.2.3.1 has nothing of it for CAs. Among them is serialNumber: a legal person's
// number is its organizationIdentifier (EN 319 412-1 LEG-5.1.4-02), and two numbers in one DN may contradict each other.
func personalAttribute(s *Subject) []string {
	var faults []string
	for _, t := range []string{"title", "surname", "givenName", "pseudonym"} {
		if len(s.values(t)) > 0 {
			faults = append(faults, t+" belongs to natural persons: leave it out, this subject is an organization")
		}
	}
	if len(s.values("serialNumber")) > 0 {
		faults = append(faults, "serialNumber belongs to natural persons: write the registration number as organizationIdentifier")
	}
	return faults
}

func identifierIsName(s *Subject) []string {
	var faults []string
	for _, identifier := range s.values("organizationIdentifier") {
		if slices.Contains(s.values("organizationName"), identifier) {
			faults = append(faults, "organizationIdentifier and organizationName are both "+identifier+": write the registration number")
		}
	}
	return faults
}

// countryUnknown holds X.520 countryName to ISO 3166-1; the codes that only identifiers may have (EL, EU, XG) are none here.
func countryUnknown(s *Subject) []string {
	var faults []string
	for _, code := range s.values("countryName") {
		if !isCountry(code) {
			faults = append(faults, fmt.Sprintf("countryName %q is no code of ISO 3166-1 alpha-2%s", code, nearCountry(code)))
		}
	}
	return faults
}

// valueUnreadable finds values that are no text: empty, not UTF-8, with characters that have no glyph.
func valueUnreadable(s *Subject) []string {
	var faults []string
	for _, a := range s.Attributes {
		switch {
		case a.Value == "":
			faults = append(faults, a.Type+" is empty")
		case !utf8.ValidString(a.Value):
			faults = append(faults, a.Type+" is not UTF-8")
		case strings.ContainsRune(a.Value, unicode.ReplacementChar):
			faults = append(faults, a.Type+" holds U+FFFD: a character was lost before it came here")
		default:
			for _, r := range a.Value {
				if !unicode.IsGraphic(r) {
					faults = append(faults, fmt.Sprintf("%s holds %U, which has no glyph", a.Type, r))
					break
				}
			}
		}
	}
	return faults
}

// valueAmbiguous finds values that differ from others only where RFC 5280 §7.1 compares
// without looking: in the normal form, in kind and number of spaces. Two subjects could bear
// names that look and compare alike.
func valueAmbiguous(s *Subject) []string {
	var faults []string
	for _, a := range s.Attributes {
		switch {
		case strings.TrimSpace(a.Value) != a.Value:
			faults = append(faults, fmt.Sprintf("%s %q begins or ends with a space", a.Type, a.Value))
		case strings.Contains(a.Value, "  "):
			faults = append(faults, fmt.Sprintf("%s %q has several spaces in a row", a.Type, a.Value))
		case strings.ContainsFunc(a.Value, func(r rune) bool { return r != ' ' && unicode.Is(unicode.Zs, r) }):
			faults = append(faults, fmt.Sprintf("%s %q has a space that is not U+0020", a.Type, a.Value))
		case !norm.NFC.IsNormalString(a.Value):
			faults = append(faults, fmt.Sprintf("%s %+q is not in Unicode normal form C: write %+q", a.Type, a.Value, norm.NFC.String(a.Value)))
		}
	}
	return faults
}

// notPrintable finds what RFC 5280 A.1 wants as PrintableString and PrintableString cannot hold.
func notPrintable(s *Subject) []string {
	var faults []string
	for _, a := range s.Attributes {
		if t, ok := attributeByName(a.Type); ok && t.printable && !isPrintableString(a.Value) {
			faults = append(faults, fmt.Sprintf("%s %q: a PrintableString holds letters without accents, digits, spaces and '()+,-./:=?", a.Type, a.Value))
		}
	}
	return faults
}

// tooLong holds a value to its bound in characters: RFC 5280 A.1, or our own where the profile
// of the kind of subject lifts that one. CA names have the bounds of RFC 5280.
func (a Attribute) tooLong(kind subjectKind, v *Violations) {
	t, ok := attributeByName(a.Type)
	if !ok {
		return
	}
	clause, bound, ub := "RFC 5280 A.1", t.bound, t.ub
	switch {
	case kind == naturalSubject && t.natural:
		clause, bound, ub = "EN 319 412-2 NAT-4.2.4-18", ownBound, "our own"
	case (kind == legalSubject || kind == tsuSubject || kind == ocspSubject) && t.legal:
		clause, bound, ub = "EN 319 412-3 LEG-4.2.1-9", ownBound, "our own"
	}
	if n := utf8.RuneCountInString(a.Value); n > bound {
		v.add(clause, "%s has %d characters, the bound (%s) is %d", a.Type, n, ub, bound)
	}
}

func emailFault(s *Subject) []string {
	if s.Email == "" {
		return nil
	}
	if fault := mailboxFault(s.Email); fault != "" {
		return []string{fault}
	}
	return nil
}

// mailboxFault holds an e-mail address to RFC 5321 §4.1.2 as RFC 5280 §4.2.1.6 takes it into
// rfc822Name: local-part@domain in ASCII, no quoting, no address literal. "" is no fault.
func mailboxFault(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return fmt.Sprintf("email %q has no @", address)
	}
	local, domain := address[:at], address[at+1:]
	switch {
	case !isASCII(address):
		return fmt.Sprintf("email %q is not ASCII, as rfc822Name has to be: write the domain in its xn-- form", address)
	case len(local) > 64 || len(address) > 254:
		return fmt.Sprintf("email %q is longer than mail servers take", address)
	case !isDotAtom(local, "!#$%&'*+-/=?^_`{|}~"):
		return fmt.Sprintf("email %q: %q is no local part", address, local)
	case !isDomain(domain):
		return fmt.Sprintf("email %q: %q is no domain name", address, domain)
	}
	return ""
}

// isDotAtom reports whether s is labels of letters, digits and the marks, between dots.
func isDotAtom(s, marks string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20 // letters to lower case; no digit or mark becomes a letter by it
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && strings.IndexByte(marks, label[i]) < 0 {
				return false
			}
		}
	}
	return true
}

// isDomain reports whether s is a host name of at least two labels (RFC 1123 §2.1).
func isDomain(s string) bool {
	if !strings.Contains(s, ".") || !isDotAtom(s, "-") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
