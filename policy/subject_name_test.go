package policy

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// fromHex reads hex with spaces, line ends and # comments.
func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	out, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Worked out by hand from X.690; 0c is UTF8String, 13 PrintableString.
const goldenNatural = `
30 6f                                             # SEQUENCE
 31 0b 30 09 06 03 55 04 06 13 02 4e 4c           # countryName NL
 31 13 30 11 06 03 55 04 04 0c 0a 54 65 73 74 65 72 6d 61 6e 6e # surname Testermann
 31 0e 30 0c 06 03 55 04 2a 0c 05 54 68 c3 a9 61  # givenName Théa
 31 1a 30 18 06 03 55 04 05 13 11 50 4e 4f 4e 4c 2d 54 45 53 54 30 30 30 30 30 30 31 # serialNumber PNONL-TEST0000001
 31 1f 30 1d 06 03 55 04 03 0c 16 54 45 53 54 20 54 68 c3 a9 61 20 54 65 73 74 65 72 6d 61 6e 6e 21 # commonName
`

const goldenLegal = `
30 62                                             # SEQUENCE
 31 0b 30 09 06 03 55 04 06 13 02 44 45           # countryName DE
 31 1e 30 1c 06 03 55 04 0a 0c 15 54 45 53 54 20 53 69 65 67 65 6c 77 65 72 6b 65 20 47 6d 62 48 # organizationName TEST Siegelwerke GmbH
 31 18 30 16 06 03 55 04 61 0c 0f 4e 54 52 44 45 2d 48 52 42 30 30 30 30 30 31 # organizationIdentifier NTRDE-HRB000001
 31 19 30 17 06 03 55 04 03 0c 10 54 45 53 54 20 53 69 65 67 65 6c 77 65 72 6b 65 # commonName TEST Siegelwerke
`

func TestNameGolden(t *testing.T) {
	natural := naturalPerson()
	natural.set("commonName", "TEST Théa Testermann!")
	for name, c := range map[string]struct {
		s      *Subject
		golden string
	}{"natural": {natural, goldenNatural}, "legal": {legalPerson(), goldenLegal}} {
		got, err := c.s.Name()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := fromHex(t, c.golden); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", name, got, want)
		}
		if err := der.Check(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNameAgainstGo has crypto/x509's own reader read what we write.
func TestNameAgainstGo(t *testing.T) {
	got, err := legalPerson().Name()
	if err != nil {
		t.Fatal(err)
	}
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(got, &sequence); err != nil || len(rest) > 0 {
		t.Fatalf("rest %x, %v", rest, err)
	}
	var name pkix.Name
	name.FillFromRDNSequence(&sequence)
	if name.CommonName != "TEST Siegelwerke" || name.Country[0] != "DE" || name.Organization[0] != "TEST Siegelwerke GmbH" {
		t.Errorf("%+v", name)
	}
}

func TestNameRefuses(t *testing.T) {
	for name, s := range map[string]*Subject{
		"no attributes":     {},
		"unknown attribute": {Attributes: []Attribute{{"shoeSize", "44"}}},
		"dotted attribute":  {Attributes: []Attribute{{"2.5.4.15", "x"}}},
		"empty value":       {Attributes: []Attribute{{"commonName", ""}}},
		"not printable":     {Attributes: []Attribute{{"serialNumber", "ä"}}},
		"not UTF-8":         {Attributes: []Attribute{{"commonName", "\xff"}}},
	} {
		if out, err := s.Name(); err == nil {
			t.Errorf("%s: wrote %x", name, out)
		}
	}
}

func TestReadNameReadsWhatNameWrote(t *testing.T) {
	full := &Subject{}
	for _, at := range attributeTypes {
		full.Attributes = append(full.Attributes, Attribute{at.name, "NL"})
	}
	for _, s := range []*Subject{naturalPerson(), legalPerson(), full} {
		out, err := s.Name()
		if err != nil {
			t.Fatal(err)
		}
		back, err := readName(out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.Attributes, back.Attributes); diff != "" {
			t.Error(diff)
		}
	}
}

// rdns writes a Name by hand: each RDN is a list of attributes.
func rdns(sets ...[]rawAttribute) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, set := range sets {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for _, a := range set {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(a.id)
						b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
					})
				}
			})
		}
	})
	return b.BytesOrPanic()
}

type rawAttribute struct {
	id    asn1.ObjectIdentifier
	tag   cbasn1.Tag
	value string
}

type encodingCase struct {
	name, clause string
	der          []byte
}

// encodingFaults are names that are DER but not as we write them.
func encodingFaults() []encodingCase {
	country, common := asn1.ObjectIdentifier{2, 5, 4, 6}, asn1.ObjectIdentifier{2, 5, 4, 3}
	one := func(id asn1.ObjectIdentifier, tag cbasn1.Tag, value string) []byte {
		return rdns([]rawAttribute{{id, tag, value}})
	}
	return []encodingCase{
		{"country in UTF8String", "RFC 5280 A.1", one(country, cbasn1.UTF8String, "NL")},
		{"commonName in TeletexString", "RFC 5280 §4.1.2.4", one(common, cbasn1.T61String, "TEST")},
		{"commonName in BMPString", "RFC 5280 §4.1.2.4", one(common, 30, "\x00T")},
		{"commonName in IA5String", "RFC 5280 §4.1.2.4", one(common, cbasn1.IA5String, "TEST")},
		{"at sign in PrintableString", "RFC 5280 §4.1.2.4", one(common, cbasn1.PrintableString, "a@b")},
		{"octets that are not UTF-8", "RFC 5280 §4.1.2.4", one(common, cbasn1.UTF8String, "\xff")},
		{"two attributes in an RDN", "RFC 5280 §4.1.2.4",
			rdns([]rawAttribute{{common, cbasn1.UTF8String, "A"}, {country, cbasn1.PrintableString, "NL"}})},
	}
}

func TestReadNameFaults(t *testing.T) {
	for _, c := range encodingFaults() {
		s, err := readName(c.der)
		var v Violations
		if !errors.As(err, &v) || !v.cites(c.clause) {
			t.Errorf("%s: %v, %v; want a violation of %s", c.name, s, err, c.clause)
		}
	}
}

func TestReadNameRefuses(t *testing.T) {
	common := asn1.ObjectIdentifier{2, 5, 4, 3}
	good := rdns([]rawAttribute{{common, cbasn1.UTF8String, "A"}})
	for name, in := range map[string][]byte{
		"nothing":         {},
		"garbage":         []byte("hello"),
		"something after": append(bytes.Clone(good), 0),
		"cut off":         good[:len(good)-1],
		"empty RDN":       {0x30, 2, 0x31, 0},
		"not a SET":       {0x30, 2, 0x30, 0},
		"no pair":         {0x30, 4, 0x31, 2, 0x05, 0},
		"a SET":           {0x31, 0},
		"unsorted RDN": rdns([]rawAttribute{
			{asn1.ObjectIdentifier{2, 5, 4, 10}, cbasn1.UTF8String, "A"}, {common, cbasn1.UTF8String, "A"},
		}),
	} {
		s, err := readName(in)
		var v Violations
		if err == nil || errors.As(err, &v) {
			t.Errorf("%s: %v, %v; want a plain error", name, s, err)
		}
	}
}

func TestReadNameKeepsWhatItDoesNotKnow(t *testing.T) {
	s, err := readName(rdns(
		[]rawAttribute{{asn1.ObjectIdentifier{2, 5, 4, 15}, cbasn1.PrintableString, "Private Organization"}},
		[]rawAttribute{{asn1.ObjectIdentifier{1, 2, 3}, cbasn1.INTEGER, "\x05"}},
		[]rawAttribute{{asn1.ObjectIdentifier{2, 5, 4, 3}, cbasn1.PrintableString, "TEST"}},
	))
	if err != nil {
		t.Fatal(err)
	}
	want := []Attribute{{"2.5.4.15", "Private Organization"}, {"1.2.3", "#020105"}, {"commonName", "TEST"}}
	if diff := cmp.Diff(want, s.Attributes); diff != "" {
		t.Error(diff)
	}
}

func FuzzReadName(f *testing.F) {
	for _, s := range []*Subject{naturalPerson(), legalPerson()} {
		if out, err := s.Name(); err == nil {
			f.Add(out)
		}
	}
	for _, c := range encodingFaults() {
		f.Add(c.der)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := readName(in)
		if err != nil {
			return
		}
		s.violations(naturalSubject, pinned)
		s.violations(caSubject, newest)
		out, err := s.Name()
		if err != nil {
			return // an attribute or a value that we read but do not write
		}
		back, err := readName(out)
		if err != nil || !cmp.Equal(s.Attributes, back.Attributes) {
			t.Errorf("%x was written as %x and read as %v, %v", in, out, back, err)
		}
	})
}

func BenchmarkName(b *testing.B) {
	s := naturalPerson()
	for b.Loop() {
		if _, err := s.Name(); err != nil {
			b.Fatal(err)
		}
	}
}
