package policy

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// TBS writes the TBSCertificate (RFC 5280 §4.1.2): exactly the bytes that will be signed. The same arguments
// give the same bytes. A request the profile forbids is Violations; an Issuer that cannot be one is a plain error.
func (p *Profile) TBS(r Request, i Issuer) ([]byte, error) {
	if err := p.checkIssuer(i); err != nil {
		return nil, fmt.Errorf("write certificate of profile %s: %w", p.name, err)
	}
	r.NotBefore, r.NotAfter = r.NotBefore.UTC().Truncate(time.Second), r.NotAfter.UTC().Truncate(time.Second)
	v := p.requestViolations(r, i)
	if err := v.err(); err != nil {
		return nil, err
	}
	name, err := r.Subject.Name()
	if err != nil {
		return nil, fmt.Errorf("write certificate of profile %s: %w", p.name, err)
	}
	if p.selfSigned {
		i.Name = name
	}
	key, ok := readSPKI(r.PublicKey)
	if !ok {
		return nil, fmt.Errorf("write certificate of profile %s: SubjectPublicKeyInfo: %w", p.name, der.ErrNotDER)
	}
	extensions, err := p.extensions(r, i, key)
	if err != nil {
		return nil, fmt.Errorf("write certificate of profile %s: %w", p.name, err)
	}
	return tbs(r, i, name, extensions)
}

// tbs writes TBSCertificate ::= SEQUENCE { version [0] EXPLICIT 2, serialNumber, signature, issuer,
// validity, subject, subjectPublicKeyInfo, extensions [3] EXPLICIT }.
func tbs(r Request, i Issuer, subject []byte, extensions []der.Extension) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(r.Serial) })
		b.AddBytes(i.Algorithm.Identifier())
		b.AddBytes(i.Name)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			der.AddTime(b, r.NotBefore)
			der.AddTime(b, r.NotAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(r.PublicKey)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			der.AddExtensions(b, extensions)
		})
	})
	out, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("write TBSCertificate: %w", err)
	}
	if err := der.Check(out); err != nil {
		return nil, fmt.Errorf("write TBSCertificate: %w", err)
	}
	return out, nil
}

// checkIssuer refuses an Issuer that no certificate can come from: a fault of the configuration, not of the request.
func (p *Profile) checkIssuer(i Issuer) error {
	if len(i.Algorithm.Identifier()) == 0 {
		return errors.New("the issuer has no signature algorithm")
	}
	if p.selfSigned {
		if i.Name != nil || i.KeyID != nil {
			return errors.New("a self-signed certificate is its own issuer: name and key identifier must be left out")
		}
		return nil
	}
	if err := der.Check(i.Name); err != nil {
		return fmt.Errorf("issuer name: %w", err)
	}
	if s := cryptobyte.String(i.Name); !s.PeekASN1Tag(cbasn1.SEQUENCE) || len(i.Name) <= 2 {
		return errors.New("issuer name: not a Name, or empty (RFC 5280 §4.1.2.4)")
	}
	if len(i.KeyID) == 0 {
		return errors.New("the issuer's certificate has no subjectKeyIdentifier (RFC 5280 §4.2.1.1)")
	}
	return nil
}

// requestViolations are the faults of a request under the profile.
func (p *Profile) requestViolations(r Request, i Issuer) Violations {
	var v Violations
	if !isSerial(r.Serial) {
		v.add("RFC 5280 §4.1.2.2", "serial number %x: a positive minimal integer of 1 to 20 octets is wanted", r.Serial)
	}
	v = append(v, p.validityViolations(r, i)...)
	if r.Subject == nil {
		v.add("RFC 5280 §4.1.2.6", "the request has no subject")
	} else {
		v = append(v, r.Subject.violations(p.subject, p.identifiers)...)
		v = append(v, r.Subject.evidence(p.registration, p.device)...)
		v = append(v, r.Subject.proofedBefore(r.NotBefore)...)
		v = append(v, p.optionViolations(r.Subject)...)
	}
	v = append(v, keyViolations(r.PublicKey)...)
	return append(v, p.urlViolations(i.URLs)...)
}

// isSerial accepts the content octets of a positive minimal INTEGER of at most 20 octets.
func isSerial(s []byte) bool {
	switch {
	case len(s) == 0 || len(s) > 20 || s[0] >= 0x80:
		return false
	case s[0] == 0:
		return len(s) > 1 && s[1] >= 0x80
	}
	return true
}

func (p *Profile) validityViolations(r Request, i Issuer) Violations {
	var v Violations
	if !r.NotBefore.Before(r.NotAfter) {
		v.add("RFC 5280 §4.1.2.5", "notAfter %s is not later than notBefore %s", stamp(r.NotAfter), stamp(r.NotBefore))
		return v
	}
	if r.NotBefore.Year() < 1950 || r.NotAfter.Year() > 9999 {
		v.add("RFC 5280 §4.1.2.5", "validity %s to %s: years 1950 to 9999 can be written", stamp(r.NotBefore), stamp(r.NotAfter))
	}
	if life := r.NotAfter.Sub(r.NotBefore); life > p.validity {
		v.add("EN 319 411-1 GEN-6.6.1-01", "validity of %s: profile %s allows %s at most", inDays(life), p.name, inDays(p.validity))
	}
	if !p.selfSigned && (r.NotBefore.Before(i.NotBefore) || r.NotAfter.After(i.NotAfter)) {
		v.add("EN 319 411-1 GEN-6.3.3-05", "validity %s to %s is not within the issuer's, %s to %s",
			stamp(r.NotBefore), stamp(r.NotAfter), stamp(i.NotBefore), stamp(i.NotAfter))
	}
	if p.keyLife > 0 && !r.NotBefore.Add(p.keyLife).Before(r.NotAfter) {
		v.add("EN 319 421 TIS-7.6.7-04", "the key would sign until %s: that must be before notAfter %s",
			stamp(r.NotBefore.Add(p.keyLife)), stamp(r.NotAfter))
	}
	return v
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func inDays(d time.Duration) string { return fmt.Sprintf("%.6g days", d.Hours()/24) }

// optionViolations are about what a request may bring besides the DN.
func (p *Profile) optionViolations(s *Subject) Violations {
	var v Violations
	if s.Email != "" && p.altName == absent {
		v.add("EN 319 412-2 GEN-4.3.5-1", "email %q: profile %s has no subjectAltName", s.Email, p.name)
	}
	if s.Email == "" && p.altName == required {
		v.add("EN 319 412-2 GEN-4.3.5-1", "profile %s wants an email address", p.name)
	}
	if _, ok := identMethod(s); !ok && p.qc.ident == required {
		v.add("EN 319 412-5 QCS-4.3.5-02", "profile %s states how identity was proofed, and the registration does not say", p.name)
	}
	return v
}

// urlViolations are about the addresses the issuer lends its certificates.
func (p *Profile) urlViolations(u URLs) Violations {
	var v Violations
	for _, want := range []struct {
		clause, name, url string
		presence          presence
	}{
		{"EN 319 412-2 GEN-4.3.11-4", "cRLDistributionPoints", u.CRL, p.crl},
		{"EN 319 412-2 GEN-4.4.1-3", "caIssuers", u.CAIssuers, p.caIssuers},
		{"EN 319 412-2 GEN-4.4.1-6", "ocsp", u.OCSP, p.ocsp},
	} {
		switch {
		case want.presence == absent:
		case want.url != "":
			if err := checkURL(want.url, "http"); err != nil {
				v.add(want.clause, "%s: %v", want.name, err)
			}
		case want.presence == required:
			v.add(want.clause, "%s is required by profile %s, and the issuer's configuration has no such URL", want.name, p.name)
		}
	}
	if p.qc.present && p.qc.pds != absent && (len(u.PDS) > 0 || p.qc.pds == required) {
		v = append(v, pdsViolations(u.PDS)...)
	}
	return v
}
