package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/zegel-tsp/zegel/internal/strictyaml"
)

// Attribute is one AttributeTypeAndValue of a subject. Type is its name in the subject file
// (countryName, givenName, ...); read back from a certificate, an attribute that subject files
// do not know carries its dotted object identifier instead. Value is text in UTF-8.
type Attribute struct{ Type, Value string }

// Subject is what a subject file says. Parsed by ParseSubject; the ceremony builds its own.
// What it holds is judged when a profile meets it, not before: the same rules judge a
// subject before issuance and the subject read back from the finished certificate.
type Subject struct {
	Attributes   []Attribute   // the DN, in order; one attribute per RDN
	Email        string        // SAN rfc822Name, optional
	Registration *Registration // identity proofing; needed by every qcp-* profile
	Device       *Device       // QSCD; needed by -qscd profiles, refused elsewhere
}

// subjectKind is what a profile's YAML says under subject: natural, legal, ca, tsu or ocsp.
type subjectKind string

const (
	naturalSubject subjectKind = "natural"
	legalSubject   subjectKind = "legal"
	caSubject      subjectKind = "ca"
	tsuSubject     subjectKind = "tsu"
	ocspSubject    subjectKind = "ocsp"
)

// maxSubjectFile bounds a subject file in octets; a long one has some 1,500.
const maxSubjectFile = 64 << 10

// ParseSubject reads a subject file (strict YAML; testdata/request/PROFILE.yaml is an example
// for each profile). name is what errors call the file: each says name, line, key and what
// belongs there.
//
// The DN comes out in one order, from the widest attribute to the narrowest, whatever the
// order of the lines: two officers who write the same facts make the same DN, octet for
// octet, on which the rule that no DN is ever given to a second subject (EN 319 411-1
// GEN-6.3.3-10) depends.
func ParseSubject(name string, text []byte) (*Subject, error) {
	if len(text) > maxSubjectFile {
		return nil, fmt.Errorf("%s:1: a subject file has at most %d octets, this one %d", name, maxSubjectFile, len(text))
	}
	var file subjectFile
	if err := strictyaml.Decode(name, text, &file); err != nil {
		return nil, err
	}
	if file.Subject == nil {
		return nil, fmt.Errorf("%s:1: subject: missing: write the name of the subject under it (countryName, commonName, ...)", name)
	}
	return &Subject{
		Attributes:   file.Subject.attributes(),
		Email:        string(file.Email),
		Registration: file.Registration.registration(),
		Device:       file.Device.device(),
	}, nil
}

// subjectFile is the YAML of a subject file. docs/reference.md is made of these comments.
type subjectFile struct {
	// The name of the subject: attributes of X.520. Their order in the file does not matter.
	Subject *nameFields `yaml:"subject"`
	// An e-mail address, for subjectAltName rfc822Name (RFC 5280 §4.2.1.6). Optional.
	Email entry `yaml:"email"`
	// The evidence of identity proofing (CIR (EU) 2025/1566, EN 319 411-1 REG-6.3.1), sealed in the journal and not in the
	// certificate. Every profile that takes a subject file wants it. Required by every built-in profile.
	Registration *registrationFields `yaml:"registration"`
	// The qualified signature creation device that the key lives in (EN 319 411-2 SDP-6.5.1-02). Refused by other profiles. Required by -qscd profiles.
	Device *deviceFields `yaml:"device"`
}

// nameFields has the attributes of a DN, in the order in which they go into it.
type nameFields struct {
	// ISO 3166-1 alpha-2, upper case: the country in whose context the other names are meant (EN 319 412-2 NAT-4.2.4-1, EN 319
	// 412-3 LEG-4.2.1-2). Required by every built-in profile.
	CountryName entry `yaml:"countryName"`
	// State or province. Optional.
	StateOrProvinceName entry `yaml:"stateOrProvinceName"`
	// Town. Optional.
	LocalityName entry `yaml:"localityName"`
	// Street and number. Optional.
	StreetAddress entry `yaml:"streetAddress"`
	// Postal code. Optional.
	PostalCode entry `yaml:"postalCode"`
	// The full registered name of the legal person; of a natural one, the legal person that it is associated with (EN 319 412-2
	// NAT-4.2.4-6). Required of legal persons.
	OrganizationName entry `yaml:"organizationName"`
	// Its registered number, like NTRNL-12345678: VAT NTR PSD LEI, country, hyphen, number (EN 319 412-1 §5.1.4). Required of legal persons.
	OrganizationIdentifier entry `yaml:"organizationIdentifier"`
	// A part of the organisation. Optional.
	OrganizationalUnitName entry `yaml:"organizationalUnitName"`
	// A title of the person. Optional.
	Title entry `yaml:"title"`
	// As on the identity document (EN 319 412-2 NAT-4.2.4-12); a natural person has surname, givenName or both, or a pseudonym. Optional.
	Surname entry `yaml:"surname"`
	// As on the identity document. Optional.
	GivenName entry `yaml:"givenName"`
	// Instead of surname and givenName, never beside them (EN 319 412-2 NAT-4.2.4-4). Optional.
	Pseudonym entry `yaml:"pseudonym"`
	// The number of the person, like PNONL-123456789: PAS IDC PNO TIN, country, hyphen, number (EN 319 412-1 §5.1.3).
	// It is needed where the other names could be another person's too (EN 319 412-2 NAT-4.2.4-13). Optional.
	SerialNumber entry `yaml:"serialNumber"`
	// The name commonly used (EN 319 412-2 NAT-4.2.4-1, EN 319 412-3 LEG-4.2.1-2). Required by every built-in profile.
	CommonName entry `yaml:"commonName"`
}

func (f nameFields) attributes() []Attribute {
	all := []Attribute{
		{"countryName", string(f.CountryName)},
		{"stateOrProvinceName", string(f.StateOrProvinceName)},
		{"localityName", string(f.LocalityName)},
		{"streetAddress", string(f.StreetAddress)},
		{"postalCode", string(f.PostalCode)},
		{"organizationName", string(f.OrganizationName)},
		{"organizationIdentifier", string(f.OrganizationIdentifier)},
		{"organizationalUnitName", string(f.OrganizationalUnitName)},
		{"title", string(f.Title)},
		{"surname", string(f.Surname)},
		{"givenName", string(f.GivenName)},
		{"pseudonym", string(f.Pseudonym)},
		{"serialNumber", string(f.SerialNumber)},
		{"commonName", string(f.CommonName)},
	}
	present := make([]Attribute, 0, len(all))
	for _, a := range all {
		if a.Value != "" {
			present = append(present, a)
		}
	}
	return present
}

// entry is one value of the file, kept as it was written: 0123 stays 0123.
type entry string

// UnmarshalText refuses what was left empty: a line without a value is a line forgotten.
func (e *entry) UnmarshalText(text []byte) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("empty: fill it in, or leave the line out")
	}
	*e = entry(text)
	return nil
}

// values returns the values of all attributes of one type, in order.
func (s *Subject) values(attributeType string) []string {
	var list []string
	for _, a := range s.Attributes {
		if a.Type == attributeType {
			list = append(list, a.Value)
		}
	}
	return list
}

// Evidence is the whole subject file as one JSON document, which the CA seals in the body of
// its journal entry: what was asked for, who was proofed how, and where the key lives. Equal
// subjects give equal octets: fixed order of members, no white space, dates as 2026-11-23,
// what is absent left out.
func (s *Subject) Evidence() ([]byte, error) {
	// encoding/json would put U+FFFD where octets are not UTF-8, and the evidence would differ from the certificate.
	for _, text := range s.texts() {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("write evidence: %q is not UTF-8", text)
		}
	}
	type attribute struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	}
	document := struct {
		Subject      []attribute       `json:"subject"`
		Email        string            `json:"email,omitempty"`
		Registration *registrationJSON `json:"registration,omitempty"`
		Device       *deviceJSON       `json:"device,omitempty"`
	}{Subject: []attribute{}, Email: s.Email, Registration: s.Registration.json(), Device: s.Device.json()}
	for _, a := range s.Attributes {
		document.Subject = append(document.Subject, attribute(a))
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(document); err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// texts are all strings of the subject.
func (s *Subject) texts() []string {
	list := []string{s.Email}
	for _, a := range s.Attributes {
		list = append(list, a.Type, a.Value)
	}
	if r := s.Registration; r != nil {
		list = append(list, r.Method, r.EvidenceDigest, r.Officer, r.TermsVersion)
	}
	if d := s.Device; d != nil {
		list = append(list, d.Model, d.Certification, d.AttestationDigest, d.GenerationRecord)
	}
	return list
}

// proofedBefore refuses a proofing of identity dated after the certificate would begin.
func (s *Subject) proofedBefore(notBefore time.Time) Violations {
	var v Violations
	if r := s.Registration; r != nil && r.Date.After(notBefore) {
		v.add("EN 319 411-1 REG-6.3.1-00B", "registration: date %s is after notBefore %s: identity is proofed before the certificate begins",
			r.Date.Format(time.DateOnly), notBefore.UTC().Format(time.RFC3339))
	}
	return v
}
