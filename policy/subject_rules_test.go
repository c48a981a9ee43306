package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The subjects that pass: one for each kind. Fixtures are these with one thing changed.

func naturalPerson() *Subject {
	return &Subject{Attributes: []Attribute{
		{"countryName", "NL"}, {"surname", "Testermann"}, {"givenName", "Théa"},
		{"serialNumber", "PNONL-TEST0000001"}, {"commonName", "TEST Théa Testermann"},
	}, Email: "thea.test@example.nl"}
}

func legalPerson() *Subject {
	return &Subject{Attributes: []Attribute{
		{"countryName", "DE"}, {"organizationName", "TEST Siegelwerke GmbH"},
		{"organizationIdentifier", "NTRDE-HRB000001"}, {"commonName", "TEST Siegelwerke"},
	}}
}

func validSubject(kind subjectKind) *Subject {
	if kind == naturalSubject {
		return naturalPerson()
	}
	return legalPerson() // a CA, a TSU and a responder are named as the legal person that runs them
}

// set replaces the values of one attribute type; without values it is removed.
func (s *Subject) set(attributeType string, values ...string) {
	s.Attributes = slices.DeleteFunc(s.Attributes, func(a Attribute) bool { return a.Type == attributeType })
	for _, v := range values {
		s.Attributes = append(s.Attributes, Attribute{attributeType, v})
	}
}

// subjectCase changes a subject that passes.
type subjectCase struct {
	name   string
	clause string // broken by the change; empty in tables of what is allowed
	kind   subjectKind
	change func(*Subject)
}

func setting(attributeType string, values ...string) func(*Subject) {
	return func(s *Subject) { s.set(attributeType, values...) }
}

func mailing(address string) func(*Subject) { return func(s *Subject) { s.Email = address } }

func subjectFaults() []subjectCase {
	return slices.Concat(nameFaults(), valueFaults(), identifierFaults())
}

func nameFaults() []subjectCase {
	both := func(s *Subject) { s.set("pseudonym", "TEST Owl"); s.set("surname") }
	nameless := func(s *Subject) { s.set("surname"); s.set("givenName") }
	sameAsName := setting("organizationName", "NTRDE-HRB000001")
	return []subjectCase{
		{"organizationIdentifier without organizationName", "EN 319 412-2 NAT-4.2.4-6", naturalSubject, setting("organizationIdentifier", "VATBE-0876866142")},
		{"legal with a surname", "EN 319 412-3 LEG-4.2.1-1", legalSubject, setting("surname", "Testermann")},
		{"legal with a serialNumber", "EN 319 412-3 LEG-4.2.1-1", legalSubject, setting("serialNumber", "HRB 12345")},
		{"tsu with a title", "EN 319 412-3 LEG-4.2.1-1", tsuSubject, setting("title", "TEST Clerk")},
		{"responder with a givenName", "EN 319 412-3 LEG-4.2.1-1", ocspSubject, setting("givenName", "Théa")},
		{"ca with a pseudonym", "EN 319 412-2 GEN-4.2.3.1-2", caSubject, setting("pseudonym", "TEST Owl")},
		{"ca with a serialNumber", "EN 319 412-2 GEN-4.2.3.1-2", caSubject, setting("serialNumber", "1")},
		{"natural without countryName", "EN 319 412-2 NAT-4.2.4-1", naturalSubject, setting("countryName")},
		{"natural without commonName", "EN 319 412-2 NAT-4.2.4-1", naturalSubject, setting("commonName")},
		{"natural without any name", "EN 319 412-2 NAT-4.2.4-1", naturalSubject, nameless},
		{"natural with two commonNames", "EN 319 412-2 NAT-4.2.4-3", naturalSubject, setting("commonName", "TEST A", "TEST B")},
		{"natural with two countries", "EN 319 412-2 NAT-4.2.4-3", naturalSubject, setting("countryName", "NL", "BE")},
		{"pseudonym beside both names", "EN 319 412-2 NAT-4.2.4-4", naturalSubject, setting("pseudonym", "TEST Owl")},
		{"pseudonym beside givenName alone", "EN 319 412-2 NAT-4.2.4-4", naturalSubject, both},
		{"legal without countryName", "EN 319 412-3 LEG-4.2.1-2", legalSubject, setting("countryName")},
		{"legal without organizationName", "EN 319 412-3 LEG-4.2.1-2", legalSubject, setting("organizationName")},
		{"legal without organizationIdentifier", "EN 319 412-3 LEG-4.2.1-2", legalSubject, setting("organizationIdentifier")},
		{"legal without commonName", "EN 319 412-3 LEG-4.2.1-2", legalSubject, setting("commonName")},
		{"responder without organizationIdentifier", "EN 319 412-3 LEG-4.2.1-2", ocspSubject, setting("organizationIdentifier")},
		{"tsu without organizationIdentifier", "EN 319 412-3 LEG-4.2.1-2", tsuSubject, setting("organizationIdentifier")},
		{"legal with two names", "EN 319 412-3 LEG-4.2.1-3", legalSubject, setting("organizationName", "TEST A", "TEST B")},
		{"tsu with two commonNames", "EN 319 412-3 LEG-4.2.1-3", tsuSubject, setting("commonName", "TEST A", "TEST B")},
		{"legal identifier is its name", "EN 319 412-3 LEG-4.2.1-6", legalSubject, sameAsName},
		{"tsu without organizationName", "EN 319 422 §6.2", tsuSubject, setting("organizationName")},
		{"tsu without commonName", "EN 319 422 §6.2", tsuSubject, setting("commonName")},
		{"ca without commonName", "EN 319 412-2 GEN-4.2.3.1-2", caSubject, setting("commonName")},
		{"ca without organizationName", "EN 319 412-2 GEN-4.2.3.1-2", caSubject, setting("organizationName")},
		{"ca without organizationIdentifier", "EN 319 412-2 GEN-4.2.3.1-3", caSubject, setting("organizationIdentifier")},
		{"ca with two countries", "EN 319 412-2 GEN-4.2.3.1-5", caSubject, setting("countryName", "DE", "NL")},
		{"ca identifier is its name", "EN 319 412-2 GEN-4.2.3.1-8", caSubject, sameAsName},
	}
}

func valueFaults() []subjectCase {
	long := strings.Repeat("ä", ownBound+1)
	return []subjectCase{
		{"country in small letters", "ITU-T X.520 §6.3.1", naturalSubject, setting("countryName", "nl")},
		{"country that does not exist", "ITU-T X.520 §6.3.1", legalSubject, setting("countryName", "QX")},
		{"country UK", "ITU-T X.520 §6.3.1", legalSubject, setting("countryName", "UK")},
		{"country EU", "ITU-T X.520 §6.3.1", legalSubject, setting("countryName", "EU")},
		{"country in three letters", "RFC 5280 A.1", legalSubject, setting("countryName", "DEU")},
		{"empty value", "RFC 5280 §4.1.2.4", naturalSubject, setting("surname", "")},
		{"not UTF-8", "RFC 5280 §4.1.2.4", naturalSubject, setting("surname", "M\xfcller")},
		{"lost character", "RFC 5280 §4.1.2.4", naturalSubject, setting("surname", "M\ufffdller")},
		{"line feed", "RFC 5280 §4.1.2.4", naturalSubject, setting("commonName", "TEST\nTester")},
		{"NUL", "RFC 5280 §4.1.2.4", naturalSubject, setting("commonName", "TEST\x00Tester")},
		{"right-to-left override", "RFC 5280 §4.1.2.4", naturalSubject, setting("commonName", "TEST \u202etset")},
		{"zero-width space", "RFC 5280 §4.1.2.4", legalSubject, setting("organizationName", "TEST\u200bGmbH")},
		{"private use character", "RFC 5280 §4.1.2.4", legalSubject, setting("organizationName", "TEST \ue000")},
		{"space before", "RFC 5280 §7.1", naturalSubject, setting("surname", " Testermann")},
		{"space behind", "RFC 5280 §7.1", naturalSubject, setting("surname", "Testermann ")},
		{"two spaces", "RFC 5280 §7.1", naturalSubject, setting("commonName", "TEST  Tester")},
		{"no-break space", "RFC 5280 §7.1", naturalSubject, setting("commonName", "TEST\u00a0Tester")},
		{"decomposed accent", "RFC 5280 §7.1", naturalSubject, setting("givenName", "The\u0301a")},
		{"compatibility form of Angstrom", "RFC 5280 §7.1", naturalSubject, setting("givenName", "\u212bsa")},
		{"umlaut in serialNumber", "RFC 5280 A.1", naturalSubject, setting("serialNumber", "PNODE-Ä1")},
		{"underscore in serialNumber", "RFC 5280 A.1", naturalSubject, setting("serialNumber", "PNODE-A_1")},
		{"serialNumber of 65", "RFC 5280 A.1", naturalSubject, setting("serialNumber", "PNONL-"+strings.Repeat("1", 59))},
		{"title of 65", "RFC 5280 A.1", naturalSubject, setting("title", strings.Repeat("ä", 65))},
		{"ca commonName of 65", "RFC 5280 A.1", caSubject, setting("commonName", strings.Repeat("ä", 65))},
		{"natural commonName beyond our bound", "EN 319 412-2 NAT-4.2.4-18", naturalSubject, setting("commonName", long)},
		{"legal organizationName beyond our bound", "EN 319 412-3 LEG-4.2.1-9", legalSubject, setting("organizationName", long)},
		{"mailbox without at", "RFC 5280 §4.2.1.6", naturalSubject, mailing("thea.example.nl")},
		{"mailbox with a name", "RFC 5280 §4.2.1.6", naturalSubject, mailing("Thea <thea@example.nl>")},
		{"mailbox with an umlaut", "RFC 5280 §4.2.1.6", naturalSubject, mailing("thea@exämple.nl")},
		{"mailbox with two dots", "RFC 5280 §4.2.1.6", naturalSubject, mailing("thea..test@example.nl")},
		{"mailbox of one label", "RFC 5280 §4.2.1.6", naturalSubject, mailing("thea@localhost")},
		{"mailbox of an address", "RFC 5280 §4.2.1.6", naturalSubject, mailing("thea@[192.0.2.1]")},
		{"mailbox with a hyphen first", "RFC 5280 §4.2.1.6", naturalSubject, mailing("thea@-example.nl")},
		{"mailbox too long", "RFC 5280 §4.2.1.6", naturalSubject, mailing(strings.Repeat("t", 65) + "@example.nl")},
	}
}

func identifierFaults() []subjectCase {
	natural := func(v string) func(*Subject) { return setting("serialNumber", v) }
	legal := func(v string) func(*Subject) { return setting("organizationIdentifier", v) }
	return []subjectCase{
		{"natural: a bare number", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("123456789")},
		{"natural: no country", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("PNO-123456789")},
		{"natural: unknown country", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("PNOQX-1")},
		{"natural: country in small letters", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("PNOnl-1")},
		{"natural: nothing behind", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("PNONL-")},
		{"natural: EL for a passport", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("PASEL-1")},
		{"natural: XI for a TIN", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("TINXI-1")},
		{"natural: subdivision", "EN 319 412-1 NAT-5.1.3-02", naturalSubject, natural("IDCUS+CA-1")},
		{"natural: XG", "EN 319 412-1 GEN-5.1.1-02", naturalSubject, natural("PASXG-1")},
		{"natural: type of legal persons", "EN 319 412-1 NAT-5.1.3-03", naturalSubject, natural("VATNL-1")},
		{"natural: type in small letters", "EN 319 412-1 NAT-5.1.3-03", naturalSubject, natural("pnoNL-1")},
		{"natural: national scheme", "EN 319 412-1 NAT-5.1.3-05", naturalSubject, natural("EI:SE-200007292386")},
		{"legal: a bare number", "EN 319 412-1 LEG-5.1.4-02", legalSubject, legal("HRB 12345")},
		{"legal: unknown country", "EN 319 412-1 LEG-5.1.4-02", legalSubject, legal("NTRQX-1")},
		{"legal: EL for a trade register", "EN 319 412-1 LEG-5.1.4-02", legalSubject, legal("NTREL-1")},
		{"legal: accent in the head", "EN 319 412-1 LEG-5.1.4-02", legalSubject, legal("NTRÄÄ-1")},
		{"legal: subdivision of a VAT number", "EN 319 412-1 LEG-5.1.4-02", legalSubject, legal("VATUS+CA-1")},
		{"legal: XG for a trade register", "EN 319 412-1 GEN-5.1.1-02", legalSubject, legal("NTRXG-1")},
		{"legal: type of natural persons", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("PASDE-1")},
		{"natural: EID of the newest edition", "EN 319 412-1 NAT-5.1.3-03", naturalSubject, natural("EIDSE-12345")},
		{"legal: EORI of the newest edition", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("EORDE-1234567890")},
		{"legal: excise number of the newest edition", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("EXCNL-NL00000000001")},
		{"legal: LEI with a country", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("LEIDE-7ZW8QJWVPR4P1J1KQY45")},
		{"legal: LEI with a wrong digit", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("LEIXG-7ZW8QJWVPR4P1J1KQY46")},
		{"legal: LEI too short", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("LEIXG-7ZW8QJWVPR4P1J1KQY4")},
		{"legal: LEI with zeros before", "EN 319 412-1 LEG-5.1.4-03", legalSubject, legal("LEIXG-007ZW8QJWVPR4P1J1KQY45")},
		{"legal: national scheme", "EN 319 412-1 LEG-5.1.4-05", legalSubject, legal("EI:SE-5567971433")},
		{"legal: empty subdivision", "EN 319 412-1 LEG-5.1.4-08", legalSubject, legal("NTRUS+-1")},
		{"legal: long subdivision", "EN 319 412-1 LEG-5.1.4-08", legalSubject, legal("NTRUS+CALI-1")},
		{"legal: no plus", "EN 319 412-1 LEG-5.1.4-08", legalSubject, legal("NTRUSCA-1")},
		{"psd: no authority", "ETSI TS 119 495 §5.2.1", legalSubject, legal("PSDPL-1234567890")},
		{"psd: authority in small letters", "ETSI TS 119 495 §5.2.1", legalSubject, legal("PSDPL-pfsa-1234567890")},
		{"psd: no number", "ETSI TS 119 495 §5.2.1", legalSubject, legal("PSDPL-PFSA-")},
		{"identifier of a natural person's organization", "EN 319 412-1 LEG-5.1.4-02", naturalSubject, legal("12345")},
		{"identifier of a ca", "EN 319 412-1 LEG-5.1.4-02", caSubject, legal("12345")},
	}
}

// subjectPasses are changes that look wrong and are not.
func subjectPasses() []subjectCase {
	natural := func(v string) func(*Subject) { return setting("serialNumber", v) }
	legal := func(v string) func(*Subject) { return setting("organizationIdentifier", v) }
	owl := func(s *Subject) { s.set("surname"); s.set("givenName"); s.set("pseudonym", "TEST Owl") }
	associated := func(s *Subject) {
		s.set("organizationName", "TEST NV")
		s.set("organizationIdentifier", "VATBE-0876866142")
	}
	return []subjectCase{
		{"nothing changed", "", naturalSubject, func(*Subject) {}},
		{"nothing changed", "", legalSubject, func(*Subject) {}},
		{"nothing changed", "", caSubject, func(*Subject) {}},
		{"nothing changed", "", tsuSubject, func(*Subject) {}},
		{"nothing changed", "", ocspSubject, func(*Subject) {}},
		{"pseudonym alone", "", naturalSubject, owl},
		{"surname alone", "", naturalSubject, setting("givenName")},
		{"no serialNumber", "", naturalSubject, setting("serialNumber")},
		{"several unit names", "", naturalSubject, setting("organizationalUnitName", "TEST A", "TEST B")},
		{"associated with an organization", "", naturalSubject, associated},
		{"no e-mail", "", naturalSubject, mailing("")},
		{"plus in the mailbox", "", naturalSubject, mailing("thea+test@mail.example.nl")},
		{"long commonName", "", naturalSubject, setting("commonName", strings.Repeat("ä", ownBound))},
		{"long organizationName", "", legalSubject, setting("organizationName", strings.Repeat("ä", ownBound))},
		{"ca commonName of 64", "", caSubject, setting("commonName", strings.Repeat("ä", 64))},
		{"Greek", "", naturalSubject, setting("surname", "Ζαχαρόπουλος")},
		{"apostrophe and hyphen", "", naturalSubject, setting("surname", "O’Neill-d'Arc")},
		{"attribute without a name", "", legalSubject, setting("2.5.4.15", "Private Organization")},
		{"passport", "", naturalSubject, natural("PASSK-P3000180")},
		{"identity card", "", naturalSubject, natural("IDCBE-590082394654")},
		{"Greek TIN", "", naturalSubject, natural("TINEL-123456789")},
		{"TAX, deprecated", "", naturalSubject, natural("TAXDE-12345")},
		{"Kosovo", "", naturalSubject, natural("PASXK-P00000001")},
		{"hyphens in the number", "", naturalSubject, natural("PNODK-010190-1234")},
		{"Greek VAT", "", legalSubject, legal("VATEL-123456789")},
		{"Northern Irish VAT", "", legalSubject, legal("VATXI-123456789")},
		{"EUID", "", legalSubject, legal("NTRDE-DED2601V.HRB12345")},
		{"subdivision", "", legalSubject, legal("NTRUS+CA-123456")},
		{"German subdivision", "", legalSubject, legal("NTRDE+HE-123456")},
		{"payment service provider", "", legalSubject, legal("PSDPL-PFSA-1234567890")},
		{"LEI", "", legalSubject, legal("LEIXG-7ZW8QJWVPR4P1J1KQY45")},
		{"of the Union", "", legalSubject, legal("NTREU-1")},
	}
}

func TestSubjectFaults(t *testing.T) {
	for _, c := range subjectFaults() {
		t.Run(c.name, func(t *testing.T) {
			s := validSubject(c.kind)
			c.change(s)
			v := s.violations(c.kind, pinned)
			if !v.cites(c.clause) {
				t.Errorf("no violation of %s: %v", c.clause, v)
			}
		})
	}
}

func TestSubjectPasses(t *testing.T) {
	for _, c := range subjectPasses() {
		t.Run(string(c.kind)+" "+c.name, func(t *testing.T) {
			s := validSubject(c.kind)
			c.change(s)
			if v := s.violations(c.kind, pinned); len(v) > 0 {
				t.Errorf("refused: %v", v)
			}
		})
	}
}

// TestNewestIdentifierTypes: what the pinned edition lacks passes where the profile has the newest one, and there a
// wrong number is still wrong.
func TestNewestIdentifierTypes(t *testing.T) {
	for _, c := range []struct {
		kind                 subjectKind
		attribute, right, no string
	}{
		{naturalSubject, "serialNumber", "EIDSE-12345", "EIDQX-12345"},
		{legalSubject, "organizationIdentifier", "EORDE-1234567890", "EOR-1234567890"},
		{caSubject, "organizationIdentifier", "EXCNL-NL00000000001", "EXCNL-"},
	} {
		s := validSubject(c.kind)
		s.set(c.attribute, c.right)
		if v := s.violations(c.kind, newest); len(v) > 0 {
			t.Errorf("%s: refused: %v", c.right, v)
		}
		if v := s.violations(c.kind, pinned); len(v) != 1 || !strings.Contains(v[0].Detail, "identifier_types: newest") {
			t.Errorf("%s in the pinned edition: %v", c.right, v)
		}
		s.set(c.attribute, c.no)
		if v := s.violations(c.kind, newest); len(v) != 1 {
			t.Errorf("%s: %v", c.no, v)
		}
	}
}

// TestFaultsSayTheRemedy: where two faults fall together, the one is named that helps.
func TestFaultsSayTheRemedy(t *testing.T) {
	for _, c := range []struct {
		change func(*Subject)
		want   string
	}{
		{mailing("thea@exämple.nl"), "xn--"},
		{setting("surname", "M\xfcller"), "not UTF-8"},
		{setting("surname", "M\ufffdller"), "lost"},
		{setting("countryName", "nl"), "write NL"},
		{setting("givenName", "The\u0301a"), "write \"Th\\u00e9a\""},
		{setting("serialNumber", "BSNNL-1"), "PNO (national personal number)"},
		{setting("serialNumber", "TINgr-1"), "write GR"},
	} {
		s := naturalPerson()
		c.change(s)
		if v := s.violations(naturalSubject, pinned); !strings.Contains(v.Error(), c.want) {
			t.Errorf("%q does not say %q", v.Error(), c.want)
		}
	}
}

// TestRulesOfOneKindStayThere: a natural person need not be an organization, nor the other way.
func TestRulesOfOneKindStayThere(t *testing.T) {
	for _, kind := range []subjectKind{legalSubject, caSubject, tsuSubject, ocspSubject} {
		if v := naturalPerson().violations(kind, pinned); len(v) == 0 {
			t.Errorf("a natural person passed as %s", kind)
		}
	}
	if v := legalPerson().violations(naturalSubject, pinned); !v.cites("EN 319 412-2 NAT-4.2.4-1") {
		t.Errorf("a legal person passed as a natural one: %v", v)
	}
}

func (v Violations) cites(clause string) bool {
	return slices.ContainsFunc(v, func(one *Violation) bool { return one.Clause == clause && one.Detail != "" })
}

// TestEveryClauseIsProved: each clause that the subject's files cite is broken by a fixture. That
// each is also kept by one, the valid subjects, keys and names of the tables show.
func TestEveryClauseIsProved(t *testing.T) {
	proved := map[string]bool{
		"EN 319 411-1 REG-6.3.1-00B": true, // TestProofedBefore
	}
	for _, c := range subjectFaults() {
		proved[c.clause] = true
	}
	for _, c := range evidenceFaults() {
		proved[c.clause] = true
	}
	for _, c := range keyFaults(t) {
		proved[c.clause] = true
	}
	for _, c := range encodingFaults() {
		proved[c.clause] = true
	}
	cited := citedClauses(t, "subject*.go", "identifier*.go", "registration*.go", "country*.go", "csr*.go")
	if len(cited) < 40 {
		t.Fatalf("only %d clauses found in the sources: the search is broken", len(cited))
	}
	for clause := range cited {
		if !proved[clause] {
			t.Errorf("%s is cited and no fixture breaks it", clause)
		}
	}
	for clause := range proved {
		if !cited[clause] {
			t.Errorf("a fixture breaks %s, which no source cites", clause)
		}
	}
}

// citedClauses finds the string literals that are a clause and nothing else.
func citedClauses(t *testing.T, patterns ...string) map[string]bool {
	t.Helper()
	clause := regexp.MustCompile(`^(EN 319|ETSI TS|RFC|ITU-T|NIST) [^:;]*[0-9A-Z]$`)
	cited := make(map[string]bool)
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if text, err := strconv.Unquote(literal.Value); err == nil && clause.MatchString(text) {
						cited[text] = true
					}
				}
				return true
			})
		}
	}
	return cited
}

func BenchmarkSubjectViolations(b *testing.B) {
	s := naturalPerson()
	for b.Loop() {
		if v := s.violations(naturalSubject, pinned); len(v) > 0 {
			b.Fatal(v)
		}
	}
}
