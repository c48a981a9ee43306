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
// docs/reference.md is made of these comments; those in profiles/*.yaml say why each profile has its values.
type profileText struct {
	// One line for zegel profile list. Required.
	Description *string `yaml:"description"`
	// Counts up from 1 with every change. A change that alters what the certificate may be used for also needs a new policy
	// identifier (EN 319 411-1 OVR-5.3-01). Required.
	Version *int `yaml:"version"`
	// Whom the subject DN names, and so which attributes it must have (EN 319 412-2 §4.2.4, EN 319 412-3 §4.2.1). natural and
	// legal are issued by officers, the others by the ceremony. Required.
	Subject *subjectKind `yaml:"subject"`
	// true: signed by the key it certifies, a root (RFC 5280 §3.2). Required.
	SelfSigned *bool `yaml:"self_signed"`
	// The longest time from notBefore to notAfter, and the one taken, in days, 1 to 36525; the CA's own end cuts it (EN
	// 319 411-1 GEN-6.3.3-05). Required.
	Validity *int `yaml:"validity_days"`
	// Who vouches for the subject, and for the device the key lives in.
	Evidence *evidenceText `yaml:"evidence"`
	// Identity type references of organizationIdentifier and serialNumber: pinned, those of EN 319 412-1 V1.6.1, which CIR (EU)
	// 2025/1943 pins, or newest, V1.7.1, which has EID, EOR and EXC besides (NAT-5.1.3-03, LEG-5.1.4-03). Required.
	Identifiers *identifierTypes `yaml:"identifier_types"`

	// Type A to F of EN 319 412-2 table 1 (NAT-4.3.2-1), or ca: keyCertSign and cRLSign. Always critical (RFC 5280 §4.2.1.3). Required.
	KeyUsage *keyUsageType `yaml:"key_usage"`
	// Policy identifiers, in their order; a qualified certificate has exactly one of EN 319 411-2 §5.3 (EN 319 412-2 QCS-5.2-1).
	// Never critical (GEN-4.3.3-1). Required.
	Policies *[]oidText `yaml:"certificate_policies"`
	// An e-mail address (rfc822Name) where the subject file has one (EN 319 412-2 GEN-4.3.5-1). Required.
	SubjectAltName *presence `yaml:"subject_alt_name"`
	// Whether the certificate is a CA's (RFC 5280 §4.2.1.9).
	BasicConstraints *basicConstraintsText `yaml:"basic_constraints"`
	// What the key is for besides (RFC 5280 §4.2.1.12).
	ExtKeyUsage *extKeyUsageText `yaml:"extended_key_usage"`
	// The address of the CA's CRL (EN 319 412-2 GEN-4.3.11-1, -4). Required.
	CRL *presence `yaml:"crl_distribution_points"`
	// Where the CA's certificate and the OCSP responder are (EN 319 412-2 §4.4.1).
	AIA *authorityInfoText `yaml:"authority_info_access"`
	// The qcStatements extension (EN 319 412-5). Never critical (QCS-4.1-02). Left out as a whole, there is none. Required with subject natural
	// or legal.
	QC *qcText `yaml:"qc_statements" optional:"true"`
	// id-pkix-ocsp-nocheck, for OCSP responders alone (RFC 6960 §4.2.2.2.1). Required.
	OCSPNoCheck *bool `yaml:"ocsp_nocheck"`
	// privateKeyUsagePeriod from notBefore in days, 0 to 36525; 0 leaves it out. For time-stamping units (EN 319 422 §6.4). Required.
	KeyLife *int `yaml:"private_key_usage_days"`

	// Known so that refusing them can name the clause.

	// Only absent: forbidden (EN 319 412-2 GEN-4.3.4-1). Optional.
	PolicyMappings *presence `yaml:"policy_mappings" optional:"true"`
	// Only absent: forbidden (EN 319 412-2 GEN-4.3.8-1). Optional.
	NameConstraints *presence `yaml:"name_constraints" optional:"true"`
	// Only absent: forbidden (EN 319 412-2 GEN-4.3.9-1). Optional.
	PolicyConstraints *presence `yaml:"policy_constraints" optional:"true"`
	// Only absent: forbidden (EN 319 412-2 GEN-4.3.12-1). Optional.
	InhibitAnyPolicy *presence `yaml:"inhibit_any_policy" optional:"true"`
}

type evidenceText struct {
	// required or absent: identity proofing (CIR (EU) 2025/1566, EN 319 411-1 REG-6.3.1). Required.
	Registration *presence `yaml:"registration"`
	// required or absent: the certified QSCD and the proof that the key is in it (EN 319 411-2 SDP-6.5.1-02, -04). Required.
	Device *presence `yaml:"device"`
}

type basicConstraintsText struct {
	// cA TRUE; false leaves the extension out. Required.
	CA *bool `yaml:"ca"`
	// pathLenConstraint, 0 to 255, with ca: true only; without it there is no limit. Optional.
	PathLength *int `yaml:"path_length" optional:"true"`
}

type extKeyUsageText struct {
	// true for time-stamping units alone (RFC 3161 §2.3; EN 319 412-2 GEN-4.3.10-1). Required.
	Critical *bool `yaml:"critical"`
	// Key purpose identifiers; an empty list leaves the extension out. Required.
	Purposes *[]oidText `yaml:"purposes"`
}

type authorityInfoText struct {
	// The CA's certificate (EN 319 412-2 GEN-4.4.1-2 to -4). Required.
	CAIssuers *presence `yaml:"ca_issuers"`
	// The OCSP responder (EN 319 412-2 GEN-4.4.1-5 to -8). Required.
	OCSP *presence `yaml:"ocsp"`
}

type qcText struct {
	// QcCompliance (EN 319 412-5 QCS-5-01). Required.
	Compliance *bool `yaml:"qc_compliance"`
	// QcType: esign, eseal, web, or empty for none (EN 319 412-5 QCS-5-01). Required.
	Type *string `yaml:"qc_type"`
	// QcSSCD, exactly where the policy is a -qscd one (EN 319 411-2 GEN-6.6.1-03, -04). Required.
	SSCD *bool `yaml:"qc_sscd"`
	// QcPDS from the issuer's configuration (EN 319 412-5 QCS-4.3.4-01 to -03). Required.
	PDS *presence `yaml:"qc_pds"`
	// natural, legal, or none: the syntax of serialNumber and organizationIdentifier (EN 319 412-1 §5.1; RFC 3739 §3.2.6.1). Required.
	Semantics *[]string `yaml:"semantics"`
	// QcLimitValue (EN 319 412-5 §4.3.2). Optional.
	Limit *limitValue `yaml:"qc_limit_value" optional:"true"`
	// QcRetentionPeriod in years (EN 319 412-5 §4.3.3). Optional.
	Retention *int `yaml:"qc_retention_period" optional:"true"`
	// QcIdentMethod, from the registration (EN 319 412-5 QCS-4.3.5-01, -02). Required.
	Ident *presence `yaml:"qc_ident_method"`

	// Only absent: forbidden in EU qualified certificates (EN 319 412-5 QCS-4.2.4-01); known so that refusing it can name the
	// clause. Optional.
	CCLegislation *presence `yaml:"qc_cc_legislation" optional:"true"`
}

// limitValue is MonetaryValue of EN 319 412-5 §4.3.2: amount * 10^exponent of an ISO 4217 currency.
type limitValue struct {
	// ISO 4217, three upper-case letters. Required.
	Currency string `yaml:"currency"`
	// The amount. Default 0.
	Amount int64 `yaml:"amount"`
	// The power of ten by which it is multiplied. Default 0.
	Exponent int64 `yaml:"exponent"`
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
