package policy

import (
	"encoding/asn1"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// profileText is a profile as its file has it. Pointers tell a key that is missing from one that says no.
// The comments in profiles/*.yaml are the manual of the keys.
type profileText struct {
	Description *string          `yaml:"description"`
	Version     *int             `yaml:"version"`
	Subject     *subjectKind     `yaml:"subject"`
	SelfSigned  *bool            `yaml:"self_signed"`
	Validity    *int             `yaml:"validity_days"`
	Evidence    *evidenceText    `yaml:"evidence"`
	Identifiers *identifierTypes `yaml:"identifier_types"`

	KeyUsage         *keyUsageType         `yaml:"key_usage"`
	Policies         *[]oidText            `yaml:"certificate_policies"`
	SubjectAltName   *presence             `yaml:"subject_alt_name"`
	BasicConstraints *basicConstraintsText `yaml:"basic_constraints"`
	ExtKeyUsage      *extKeyUsageText      `yaml:"extended_key_usage"`
	CRL              *presence             `yaml:"crl_distribution_points"`
	AIA              *authorityInfoText    `yaml:"authority_info_access"`
	QC               *qcText               `yaml:"qc_statements" optional:"true"`
	OCSPNoCheck      *bool                 `yaml:"ocsp_nocheck"`
	KeyLife          *int                  `yaml:"private_key_usage_days"`

	// Known so that refusing them can name the clause.
	PolicyMappings    *presence `yaml:"policy_mappings" optional:"true"`
	NameConstraints   *presence `yaml:"name_constraints" optional:"true"`
	PolicyConstraints *presence `yaml:"policy_constraints" optional:"true"`
	InhibitAnyPolicy  *presence `yaml:"inhibit_any_policy" optional:"true"`
}

type evidenceText struct {
	Registration *presence `yaml:"registration"`
	Device       *presence `yaml:"device"`
}

type basicConstraintsText struct {
	CA         *bool `yaml:"ca"`
	PathLength *int  `yaml:"path_length" optional:"true"`
}

type extKeyUsageText struct {
	Critical *bool      `yaml:"critical"`
	Purposes *[]oidText `yaml:"purposes"`
}

type authorityInfoText struct {
	CAIssuers *presence `yaml:"ca_issuers"`
	OCSP      *presence `yaml:"ocsp"`
}

type qcText struct {
	Compliance *bool       `yaml:"qc_compliance"`
	Type       *string     `yaml:"qc_type"`
	SSCD       *bool       `yaml:"qc_sscd"`
	PDS        *presence   `yaml:"qc_pds"`
	Semantics  *[]string   `yaml:"semantics"`
	Limit      *limitValue `yaml:"qc_limit_value" optional:"true"`
	Retention  *int        `yaml:"qc_retention_period" optional:"true"`
	Ident      *presence   `yaml:"qc_ident_method"`

	CCLegislation *presence `yaml:"qc_cc_legislation" optional:"true"` // known so that refusing it can name the clause
}

// limitValue is MonetaryValue of EN 319 412-5 §4.3.2: amount * 10^exponent of an ISO 4217 currency.
type limitValue struct {
	Currency string `yaml:"currency"`
	Amount   int64  `yaml:"amount"`
	Exponent int64  `yaml:"exponent"`
}

// presence says whether a certificate has something: required, offered (where the issuer or the
// request has it) or absent.
type presence string

const (
	required presence = "required"
	offered  presence = "offered"
	absent   presence = "absent"
)

// UnmarshalText accepts the three words.
func (p *presence) UnmarshalText(text []byte) error {
	switch *p = presence(text); *p {
	case required, offered, absent:
		return nil
	}
	return fmt.Errorf("%q where required, offered or absent belongs", text)
}

// UnmarshalText accepts the types of EN 319 412-2 table 1, and ca.
func (t *keyUsageType) UnmarshalText(text []byte) error {
	*t = keyUsageType(text)
	if _, ok := keyUsageBits[*t]; !ok {
		return fmt.Errorf("key usage type %q: EN 319 412-2 table 1 (NAT-4.3.2-1) has A, B, C, D, E and F; a CA's is ca", text)
	}
	return nil
}

// oidText is an object identifier in dotted form.
type oidText asn1.ObjectIdentifier

// UnmarshalText accepts the dotted form.
func (o *oidText) UnmarshalText(text []byte) error {
	id, err := der.ParseOID(string(text))
	*o = oidText(id)
	return err
}

// missingKeys are the keys of the struct t points to that the file does not have and may not leave out.
func missingKeys(t any, path string) []string {
	var missing []string
	s := reflect.ValueOf(t).Elem()
	for i := range s.NumField() {
		field, key := s.Field(i), path+s.Type().Field(i).Tag.Get("yaml")
		if field.Kind() != reflect.Pointer {
			continue
		}
		switch {
		case field.IsNil():
			if s.Type().Field(i).Tag.Get("optional") == "" {
				missing = append(missing, key)
			}
		case field.Elem().Kind() == reflect.Struct:
			missing = append(missing, missingKeys(field.Interface(), key+".")...)
		}
	}
	return missing
}

// maxDays bounds what a profile may ask for: a hundred years.
const maxDays = 36525

// checkValues refuses values no profile can have, whatever the others say.
func (t *profileText) checkValues() error {
	kinds := []subjectKind{naturalSubject, legalSubject, caSubject, tsuSubject, ocspSubject}
	switch {
	case !slices.Contains(kinds, *t.Subject):
		return fmt.Errorf("subject: %q where natural, legal, ca, tsu or ocsp belongs", *t.Subject)
	case strings.TrimSpace(*t.Description) == "" || strings.Contains(*t.Description, "\n"):
		return fmt.Errorf("description: one line is wanted")
	case *t.Version < 1:
		return fmt.Errorf("version: %d: versions count from 1", *t.Version)
	case *t.Validity < 1 || *t.Validity > maxDays:
		return fmt.Errorf("validity_days: %d where 1 to %d belongs", *t.Validity, maxDays)
	case *t.KeyLife < 0 || *t.KeyLife > maxDays:
		return fmt.Errorf("private_key_usage_days: %d where 0 to %d belongs", *t.KeyLife, maxDays)
	case t.BasicConstraints.PathLength != nil && (*t.BasicConstraints.PathLength < 0 || *t.BasicConstraints.PathLength > 255):
		return fmt.Errorf("basic_constraints.path_length: %d where 0 to 255 belongs", *t.BasicConstraints.PathLength)
	case *t.Evidence.Registration == offered || *t.Evidence.Device == offered:
		return fmt.Errorf("evidence: offered where required or absent belongs")
	}
	if t.QC != nil {
		return t.QC.checkValues()
	}
	return nil
}

func (q *qcText) checkValues() error {
	if _, ok := qcTypes[*q.Type]; !ok && *q.Type != "" {
		return fmt.Errorf("qc_statements.qc_type: %q where esign, eseal, web or \"\" belongs", *q.Type)
	}
	for _, s := range *q.Semantics {
		if _, ok := semanticsIdentifiers[s]; !ok {
			return fmt.Errorf("qc_statements.semantics: %q where natural or legal belongs", s)
		}
	}
	return nil
}

// forbidden are the violations of a file that asks for what no profile may have.
func (t *profileText) forbidden() Violations {
	var v Violations
	refuse := func(clause, name string, p *presence) {
		if p != nil && *p != absent {
			v.add(clause, "%s is forbidden in end-entity certificates and has no place in our CA certificates", name)
		}
	}
	refuse("EN 319 412-2 GEN-4.3.4-1", "policy_mappings", t.PolicyMappings)
	refuse("EN 319 412-2 GEN-4.3.8-1", "name_constraints", t.NameConstraints)
	refuse("EN 319 412-2 GEN-4.3.9-1", "policy_constraints", t.PolicyConstraints)
	refuse("EN 319 412-2 GEN-4.3.12-1", "inhibit_any_policy", t.InhibitAnyPolicy)
	if t.QC != nil && t.QC.CCLegislation != nil && *t.QC.CCLegislation != absent {
		v.add("EN 319 412-5 QCS-4.2.4-01", "qc_cc_legislation: an EU qualified certificate must not have QcCClegislation")
	}
	return v
}

// profile is the valid form. t has every key it needs.
func (t *profileText) profile(name string, text []byte) *Profile {
	p := &Profile{
		name: name, text: slices.Clone(text), description: *t.Description, version: *t.Version,
		subject: *t.Subject, selfSigned: *t.SelfSigned, validity: days(*t.Validity),
		registration: *t.Evidence.Registration == required, device: *t.Evidence.Device == required,
		identifiers: *t.Identifiers,
		keyUsage:    *t.KeyUsage, policies: oids(*t.Policies), altName: *t.SubjectAltName,
		ca: *t.BasicConstraints.CA, pathLength: -1,
		purposes: oids(*t.ExtKeyUsage.Purposes), ekuCritical: *t.ExtKeyUsage.Critical,
		crl: *t.CRL, caIssuers: *t.AIA.CAIssuers, ocsp: *t.AIA.OCSP,
		noCheck: *t.OCSPNoCheck, keyLife: days(*t.KeyLife),
	}
	if t.BasicConstraints.PathLength != nil {
		p.pathLength = *t.BasicConstraints.PathLength
	}
	if t.QC != nil {
		p.qc = t.QC.profile()
	}
	return p
}

func (q *qcText) profile() qcProfile {
	p := qcProfile{
		present: true, compliance: *q.Compliance, qcType: *q.Type, sscd: *q.SSCD,
		pds: *q.PDS, semantics: *q.Semantics, limit: q.Limit, ident: *q.Ident,
	}
	if q.Retention != nil {
		p.retention = *q.Retention
	}
	return p
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func oids(list []oidText) []asn1.ObjectIdentifier {
	ids := make([]asn1.ObjectIdentifier, len(list))
	for i, id := range list {
		ids[i] = asn1.ObjectIdentifier(id)
	}
	return ids
}
