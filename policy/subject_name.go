package policy

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// attributeType is what the name rules and the codec know of one attribute.
type attributeType struct {
	name      string
	id        asn1.ObjectIdentifier
	printable bool // PrintableString on the wire, else UTF8String (RFC 5280 A.1)
	bound     int  // most characters: ub-* of RFC 5280 A.1, of X.520 where RFC 5280 has none
	ub        string
	natural   bool // may be longer: EN 319 412-2 NAT-4.2.4-18
	legal     bool // may be longer: EN 319 412-3 LEG-4.2.1-9
}

// ownBound is the most characters we take where the standards lift the bound of RFC 5280:
// long enough for every registered name known to us, short enough to be read in one glance.
// EN 319 412-3 LEG-4.2.1-9 asks a provider to say so in its practice statement.
const ownBound = 256

// attributeTypes are the attributes a subject may have, in the order of nameFields.
var attributeTypes = []attributeType{
	{name: "countryName", id: asn1.ObjectIdentifier{2, 5, 4, 6}, printable: true, bound: 2, ub: "ub-country-name-alpha-length"},
	{name: "stateOrProvinceName", id: asn1.ObjectIdentifier{2, 5, 4, 8}, bound: 128, ub: "ub-state-name"},
	{name: "localityName", id: asn1.ObjectIdentifier{2, 5, 4, 7}, bound: 128, ub: "ub-locality-name"},
	{name: "streetAddress", id: asn1.ObjectIdentifier{2, 5, 4, 9}, bound: 128, ub: "ub-street-address"},
	{name: "postalCode", id: asn1.ObjectIdentifier{2, 5, 4, 17}, bound: 16, ub: "ub-postal-code-length"},
	{name: "organizationName", id: asn1.ObjectIdentifier{2, 5, 4, 10}, bound: 64, ub: "ub-organization-name", natural: true, legal: true},
	{name: "organizationIdentifier", id: asn1.ObjectIdentifier{2, 5, 4, 97}, bound: ownBound, ub: "our own"}, // X.520: no bound
	{name: "organizationalUnitName", id: asn1.ObjectIdentifier{2, 5, 4, 11}, bound: 64, ub: "ub-organizational-unit-name", natural: true, legal: true},
	{name: "title", id: asn1.ObjectIdentifier{2, 5, 4, 12}, bound: 64, ub: "ub-title"},
	{name: "surname", id: asn1.ObjectIdentifier{2, 5, 4, 4}, bound: ownBound, ub: "our own"},    // ub-name is 32768
	{name: "givenName", id: asn1.ObjectIdentifier{2, 5, 4, 42}, bound: ownBound, ub: "our own"}, // ub-name is 32768
	{name: "pseudonym", id: asn1.ObjectIdentifier{2, 5, 4, 65}, bound: 128, ub: "ub-pseudonym", natural: true},
	{name: "serialNumber", id: asn1.ObjectIdentifier{2, 5, 4, 5}, printable: true, bound: 64, ub: "ub-serial-number"},
	{name: "commonName", id: asn1.ObjectIdentifier{2, 5, 4, 3}, bound: 64, ub: "ub-common-name", natural: true, legal: true},
}

func attributeByName(name string) (attributeType, bool) {
	for _, t := range attributeTypes {
		if t.name == name {
			return t, true
		}
	}
	return attributeType{}, false
}

func attributeByID(id asn1.ObjectIdentifier) (attributeType, bool) {
	for _, t := range attributeTypes {
		if t.id.Equal(id) {
			return t, true
		}
	}
	return attributeType{}, false
}

// Name is the DER of the subject's Name: one attribute per RDN, in the order of Attributes,
// PrintableString for countryName and serialNumber, UTF8String for all others. It judges
// only what cannot be encoded; the rules on names are violations'.
//
//	Name ::= CHOICE { rdnSequence SEQUENCE OF SET SIZE (1..MAX) OF SEQUENCE { type, value } }
func (s *Subject) Name() ([]byte, error) {
	if len(s.Attributes) == 0 {
		return nil, errors.New("write name: the subject has no attributes")
	}
	for _, a := range s.Attributes {
		if err := a.encodable(); err != nil {
			return nil, fmt.Errorf("write name: %s: %w", a.Type, err)
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, a := range s.Attributes {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, a.add)
			})
		}
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("write name: %w", err)
	}
	return out, nil
}

func (a Attribute) encodable() error {
	t, ok := attributeByName(a.Type)
	switch {
	case !ok:
		return errors.New("not an attribute that names are written with")
	case a.Value == "":
		return errors.New("empty")
	case t.printable && !isPrintableString(a.Value):
		return fmt.Errorf("%q is not PrintableString", a.Value)
	case !utf8.ValidString(a.Value):
		return fmt.Errorf("%q is not UTF-8", a.Value)
	}
	return nil
}

// add appends the content of AttributeTypeAndValue. The attribute is encodable.
func (a Attribute) add(b *cryptobyte.Builder) {
	t, _ := attributeByName(a.Type)
	tag := cbasn1.UTF8String
	if t.printable {
		tag = cbasn1.PrintableString
	}
	b.AddASN1ObjectIdentifier(t.id)
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.Value)) })
}

// readName reads a Name back from a certificate, by code that shares nothing with Name.
// What is not a Name in DER is a plain error; a name that is one but not as we write them (a
// multi-valued RDN, a string type RFC 5280 does not want) is Violations. An attribute we have
// no name for keeps its dotted identifier, and a value that is no text its DER as #hex (RFC 4514 §2.4).
func readName(name []byte) (*Subject, error) {
	if err := der.Check(name); err != nil {
		return nil, fmt.Errorf("read name: %w", err)
	}
	outer := cryptobyte.String(name)
	var sequence cryptobyte.String
	if !outer.ReadASN1(&sequence, cbasn1.SEQUENCE) || !outer.Empty() {
		return nil, errors.New("read name: not a SEQUENCE of RDNs")
	}
	s := &Subject{}
	var v Violations
	for i := 1; !sequence.Empty(); i++ {
		var rdn cryptobyte.String
		if !sequence.ReadASN1(&rdn, cbasn1.SET) || rdn.Empty() {
			return nil, fmt.Errorf("read name: RDN %d is not a SET of attributes", i)
		}
		for count := 1; !rdn.Empty(); count++ {
			a, err := readAttribute(&rdn, &v)
			if err != nil {
				return nil, fmt.Errorf("read name: RDN %d: %w", i, err)
			}
			if count == 2 {
				v.add("RFC 5280 §4.1.2.4", "RDN %d holds several attributes: each stands in an RDN of its own, so that its order is fixed", i)
			}
			s.Attributes = append(s.Attributes, a)
		}
	}
	if len(v) > 0 {
		return nil, v
	}
	return s, nil
}

func readAttribute(rdn *cryptobyte.String, v *Violations) (Attribute, error) {
	var pair, value, content cryptobyte.String
	var id asn1.ObjectIdentifier
	var tag cbasn1.Tag
	if !rdn.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&id) ||
		!pair.ReadAnyASN1Element(&value, &tag) || !pair.Empty() {
		return Attribute{}, errors.New("not an AttributeTypeAndValue")
	}
	element := value
	if !value.ReadASN1(&content, tag) {
		return Attribute{}, errors.New("not an AttributeTypeAndValue")
	}
	text := tag == cbasn1.UTF8String && utf8.Valid(content) || tag == cbasn1.PrintableString && isPrintableString(string(content))
	t, known := attributeByID(id)
	printable := id.Equal(asn1.ObjectIdentifier{2, 5, 4, 6}) || id.Equal(asn1.ObjectIdentifier{2, 5, 4, 5})
	switch {
	case !known && text:
		return Attribute{Type: id.String(), Value: string(content)}, nil
	case !known:
		return Attribute{Type: id.String(), Value: "#" + hex.EncodeToString(element)}, nil
	case printable && tag != cbasn1.PrintableString:
		v.add("RFC 5280 A.1", "%s is not a PrintableString (its tag is %d)", t.name, tag)
	case tag != cbasn1.PrintableString && tag != cbasn1.UTF8String:
		v.add("RFC 5280 §4.1.2.4", "%s is neither UTF8String nor PrintableString (its tag is %d)", t.name, tag)
	case !text:
		v.add("RFC 5280 §4.1.2.4", "%s: %q holds what its string type does not", t.name, []byte(content))
	}
	return Attribute{Type: t.name, Value: string(content)}, nil
}

// isPrintableString reports whether X.680 §41.4 table 10 has every character of s.
func isPrintableString(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case strings.IndexByte(" '()+,-./:=?", c) >= 0:
		default:
			return false
		}
	}
	return true
}
