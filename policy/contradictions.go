package policy

import (
	"encoding/asn1"
	"regexp"
	"slices"
)

// contradictions are the reasons why no certificate of the profile could be right.
func (p *Profile) contradictions() Violations {
	var v Violations
	p.checkBasics(&v)
	p.checkPolicies(&v)
	p.checkPurposes(&v)
	p.checkStatus(&v)
	p.checkStatements(&v)
	p.checkTSU(&v)
	return v
}

// checkBasics: a CA is a CA in every field, and nobody else is.
func (p *Profile) checkBasics(v *Violations) {
	if p.ca != (p.subject == caSubject) {
		v.add("RFC 5280 §4.2.1.9", "basic_constraints.ca is %t and subject is %s: a CA, and only a CA, has cA TRUE", p.ca, p.subject)
	}
	if p.ca != (p.keyUsage == "ca") {
		v.add("RFC 5280 §4.2.1.3", "key_usage is %s and basic_constraints.ca is %t: keyCertSign belongs to CAs and nothing else does", p.keyUsage, p.ca)
	}
	if !p.ca && p.pathLength >= 0 {
		v.add("RFC 5280 §4.2.1.9", "basic_constraints.path_length needs ca: true")
	}
	if p.selfSigned && !p.ca {
		v.add("RFC 5280 §3.2", "self_signed: only a CA's certificate may be")
	}
	if p.selfSigned && (p.crl != absent || p.caIssuers != absent || p.ocsp != absent) {
		v.add("RFC 5280 §6.1", "a self-signed certificate has nobody above it who could say anything of its status")
	}
	if p.TakesSubject() != p.registration {
		v.add("EN 319 411-1 REG-6.3.1-00A", "evidence.registration: subscribers (subject natural or legal) are proofed, the provider's own services are not")
	}
	if !p.TakesSubject() && p.altName != absent {
		v.add("EN 319 412-2 GEN-4.3.5-1", "subject_alt_name: the provider's own certificates have none")
	}
}

// qualifiedPolicy is a row of EN 319 411-2 §5.3: what the policy identifier promises.
type qualifiedPolicy struct {
	id      asn1.ObjectIdentifier
	name    string
	subject subjectKind
	qcType  string
	qscd    bool
}

var qualifiedPolicies = []qualifiedPolicy{
	{oidQCPn, "QCP-n", naturalSubject, "esign", false},
	{oidQCPl, "QCP-l", legalSubject, "eseal", false},
	{oidQCPnQSCD, "QCP-n-qscd", naturalSubject, "esign", true},
	{oidQCPlQSCD, "QCP-l-qscd", legalSubject, "eseal", true},
}

// findQualifiedPolicy is the policy of EN 319 411-2 §5.3 with that identifier.
func findQualifiedPolicy(id asn1.ObjectIdentifier) (qualifiedPolicy, bool) {
	for _, q := range qualifiedPolicies {
		if q.id.Equal(id) {
			return q, true
		}
	}
	return qualifiedPolicy{}, false
}

// checkPolicies: the policy identifiers say what the rest of the profile does.
func (p *Profile) checkPolicies(v *Violations) {
	if len(p.policies) == 0 && !p.selfSigned {
		v.add("EN 319 412-2 GEN-4.3.3-2", "certificate_policies: one at least")
	}
	qualified := 0
	for n, id := range p.policies {
		if slices.ContainsFunc(p.policies[:n], id.Equal) {
			v.add("RFC 5280 §4.2.1.4", "certificate_policies has %v twice", id)
		}
		if id.Equal(oidAnyPolicy) && !p.ca {
			v.add("EN 319 412-2 GEN-4.3.3-2", "certificate_policies: anyPolicy says nothing in a certificate that is no CA's")
		}
		if !under(id, arcQualifiedPolicies) {
			continue
		}
		qualified++
		q, ok := findQualifiedPolicy(id)
		if !ok {
			v.add("EN 319 411-2 GEN-6.6.1-05", "certificate_policies: %v is no policy of EN 319 411-2 §5.3 that these profiles know", id)
			continue
		}
		if q.subject != p.subject || q.qcType != p.qc.qcType || !p.qc.compliance {
			v.add("EN 319 412-2 QCS-5.2-2", "certificate_policies has %s: that is for subject %s with QcCompliance and QcType %s", q.name, q.subject, q.qcType)
		}
		if q.qscd != p.qc.sscd {
			v.add("EN 319 411-2 GEN-6.6.1-04", "certificate_policies has %s and qc_sscd is %t: QcSSCD stands exactly under the -qscd policies", q.name, p.qc.sscd)
		}
	}
	if p.qc.compliance && qualified != 1 {
		v.add("EN 319 412-2 QCS-5.2-1", "certificate_policies has %d identifiers of EN 319 411-2: a qualified certificate has exactly one", qualified)
	}
}

// checkPurposes: keyUsage and extKeyUsage fit what the key is for.
func (p *Profile) checkPurposes(v *Violations) {
	has := func(id asn1.ObjectIdentifier) bool { return slices.ContainsFunc(p.purposes, id.Equal) }
	only := func(id asn1.ObjectIdentifier) bool { return len(p.purposes) == 1 && has(id) }
	if p.qc.compliance && (p.qc.qcType == "esign" || p.qc.qcType == "eseal") && !p.keyUsage.commits() {
		clause := "EN 319 412-2 NAT-4.3.2-2"
		if p.qc.qcType == "eseal" {
			clause = "EN 319 412-3 LEG-4.3.1-3"
		}
		v.add(clause, "key_usage is %s: certificates for signatures and seals have type A, B or F", p.keyUsage)
	}
	if p.ekuCritical && p.subject != tsuSubject {
		v.add("EN 319 412-2 GEN-4.3.10-1", "extended_key_usage.critical: only a time-stamping unit's is")
	}
	if (p.subject == tsuSubject) != has(oidTimeStamping) || p.subject == tsuSubject && (!only(oidTimeStamping) || !p.ekuCritical) {
		v.add("RFC 3161 §2.3", "extended_key_usage: a time-stamping unit has timeStamping alone, critical, and nobody else has it")
	}
	if (p.subject == ocspSubject) != has(oidOCSPSigning) || p.subject == ocspSubject && !only(oidOCSPSigning) {
		v.add("RFC 6960 §4.2.2.2", "extended_key_usage: an OCSP responder has OCSPSigning alone, and nobody else has it")
	}
	if has(oidAnyPurpose) {
		v.add("EN 319 411-1 GEN-6.6.1-01", "extended_key_usage: anyExtendedKeyUsage lets the key be used for everything")
	}
	if p.subject == ocspSubject && p.keyUsage != "C" {
		v.add("RFC 6960 §4.2.2.2", "key_usage is %s: an OCSP responder has type C, digitalSignature alone", p.keyUsage)
	}
}

// checkStatus: relying parties can find out whether the certificate still stands.
func (p *Profile) checkStatus(v *Violations) {
	if p.subject == ocspSubject {
		if p.ocsp != absent {
			v.add("EN 319 411-1 CSS-6.6.3-01B", "authority_info_access.ocsp: an OCSP responder's certificate has none")
		}
		if !p.noCheck {
			v.add("EN 319 411-1 CSS-6.6.3-01A", "ocsp_nocheck: an OCSP responder's certificate has it")
		}
		return
	}
	if p.noCheck {
		v.add("RFC 6960 §4.2.2.2.1", "ocsp_nocheck belongs to OCSP responders alone")
	}
	if p.selfSigned {
		return
	}
	if p.crl != required {
		v.add("EN 319 412-2 GEN-4.3.11-1", "crl_distribution_points is %s: the CA issues CRLs, so its certificates say where", p.crl)
	}
	if p.ca {
		return
	}
	if p.caIssuers != required {
		v.add("EN 319 412-2 GEN-4.4.1-2", "authority_info_access.ca_issuers is %s: it is mandatory", p.caIssuers)
	}
	if p.ocsp != required {
		v.add("EN 319 412-2 GEN-4.4.1-5", "authority_info_access.ocsp is %s: the CA offers OCSP, so its certificates say where", p.ocsp)
	}
}

// currency is the alphabetic form of ISO 4217.
var currency = regexp.MustCompile(`^[A-Z]{3}$`)

// checkStatements: table 2 of EN 319 412-5.
func (p *Profile) checkStatements(v *Violations) {
	q := p.qc
	if p.TakesSubject() && !q.present {
		v.add("EN 319 412-2 QCS-5.1-1", "qc_statements is missing: an EU qualified certificate has them")
	}
	if !q.present {
		return
	}
	if !q.compliance {
		v.add("EN 319 412-5 QCS-5-01", "qc_statements.qc_compliance is mandatory in an EU qualified certificate")
	}
	want := map[subjectKind]string{naturalSubject: "esign", legalSubject: "eseal", tsuSubject: "eseal"}[p.subject]
	if q.qcType == "" || q.qcType != want {
		v.add("EN 319 412-5 QCS-5-01", "qc_statements.qc_type is %q: it is esign for natural persons, eseal for legal ones, and always stated", q.qcType)
	}
	if q.sscd != p.device {
		v.add("EN 319 411-2 SDP-6.5.1-02", "qc_statements.qc_sscd is %t and evidence.device is not: QcSSCD is stated of a device that was verified", q.sscd)
	}
	if q.pds != required {
		v.add("EN 319 411-2 OVR-6.9.4-03", "qc_statements.qc_pds is %s: a PDS is to be supported", q.pds)
	}
	if want := map[subjectKind]string{naturalSubject: "natural", legalSubject: "legal", tsuSubject: "legal"}[p.subject]; !slices.Contains(q.semantics, want) {
		v.add("EN 319 412-1 §5.1.1", "qc_statements.semantics lacks %s: without it the identifier in the DN has no defined meaning", want)
	}
	if q.retention < 0 {
		v.add("EN 319 412-5 QCS-5-01", "qc_statements.qc_retention_period is %d: years from 1", q.retention)
	}
	if l := q.limit; l != nil && (!currency.MatchString(l.Currency) || l.Amount < 0 || l.Exponent < 0) {
		v.add("EN 319 412-5 QCS-4.3.2-02", "qc_statements.qc_limit_value: three capitals of ISO 4217, amount and exponent of 0 or more are wanted")
	}
}

// checkTSU: privateKeyUsagePeriod and NCP+.
func (p *Profile) checkTSU(v *Violations) {
	if p.subject != tsuSubject {
		if p.keyLife > 0 {
			v.add("EN 319 422 §6.4", "private_key_usage_days: only a time-stamping unit has one")
		}
		return
	}
	if p.keyLife == 0 || p.keyLife >= p.validity {
		v.add("EN 319 421 TIS-7.6.7-04", "private_key_usage_days: a time-stamping key signs for less time than its certificate is valid")
	}
	if !slices.ContainsFunc(p.policies, oidNCPPlus.Equal) {
		v.add("EN 319 421 TIS-8.1-01", "certificate_policies: a qualified TSA's unit is under NCP+ (%v)", oidNCPPlus)
	}
	if slices.Contains([]keyUsageType{"D", "E", "F"}, p.keyUsage) {
		v.add("RFC 3161 §2.3", "key_usage is %s: a time-stamping key signs and does nothing else: A, B or C", p.keyUsage)
	}
}
