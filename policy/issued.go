package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// CheckIssued is Check, and holds the certificate or draft to the CA that signs it: its name, key identifier,
// algorithm, validity and, where they are given, its addresses. For a self-signed profile the Issuer is as TBS takes it.
// An Issuer that cannot be one is a plain error. No signature is verified: a draft has none.
func (p *Profile) CheckIssued(certificate []byte, i Issuer) error {
	if err := p.checkIssuer(i); err != nil {
		return fmt.Errorf("check certificate under its issuer: %w", err)
	}
	c, err := readCertificate(certificate)
	if err != nil {
		return fmt.Errorf("check certificate under its issuer: %w", err)
	}
	return append(p.violations(c), p.issuerViolations(c, i)...).err()
}

func (p *Profile) issuerViolations(c *certificate, i Issuer) Violations {
	var v Violations
	if !bytes.Equal(c.inner, i.Algorithm.Identifier()) {
		v.add("RFC 5280 §4.1.1.2", "signature algorithm is %x: the issuer signs with %s", c.inner, i.Algorithm)
	}
	v = append(v, signatureViolations(algorithms.InForce(), algorithms.Signing(i.PublicKey, i.Algorithm), c.to.time)...)
	if p.selfSigned {
		if own, err := x509.MarshalPKIXPublicKey(i.PublicKey); err != nil || !bytes.Equal(own, c.spki) {
			v.add("RFC 5280 §3.2", "the public key of a self-signed certificate is not the one it is signed with")
		}
		return v
	}
	if !bytes.Equal(c.issuer, i.Name) {
		v.add("RFC 5280 §4.1.2.4", "issuer is %x: the subject of the issuer's certificate is %x", c.issuer, i.Name)
	}
	e, _ := c.find(oidAuthorityKeyIdentifier)
	if id, _, _ := readAuthorityKeyIdentifier(e.Value); !bytes.Equal(id, i.KeyID) {
		v.add("EN 319 412-2 GEN-4.3.1-1", "authorityKeyIdentifier is %x: that of the issuer's key is %x", id, i.KeyID)
	}
	if c.from.time.Before(i.NotBefore) || c.to.time.After(i.NotAfter) {
		v.add("EN 319 411-1 GEN-6.3.3-05", "validity %s to %s is not within the issuer's, %s to %s",
			stamp(c.from.time), stamp(c.to.time), stamp(i.NotBefore), stamp(i.NotAfter))
	}
	c.checkAddresses(i.URLs, &v)
	return v
}

// checkAddresses finds addresses that are not the issuer's. One that the issuer does not state is not compared, and
// that the profile's are there is a rule of Check.
func (c *certificate) checkAddresses(u URLs, v *Violations) {
	compare := func(clause, field, want string, found []generalName) {
		if want != "" && slices.ContainsFunc(found, func(n generalName) bool { return n.value != want }) {
			v.add(clause, "%s has an address that is not the issuer's, %s", field, want)
		}
	}
	access := func(method asn1.ObjectIdentifier) []generalName {
		names, _ := c.locations(method)
		return names
	}
	e, _ := c.find(oidCRLDistributionPoints)
	points, _, _ := readDistributionPoints(e.Value)
	compare("EN 319 412-2 GEN-4.3.11-1", "cRLDistributionPoints", u.CRL, points)
	compare("EN 319 412-2 GEN-4.4.1-2", "caIssuers", u.CAIssuers, access(oidAccessCAIssuers))
	compare("EN 319 412-2 GEN-4.4.1-5", "ocsp", u.OCSP, access(oidAccessOCSP))
	if found := c.pds(); len(u.PDS) > 0 && len(found) > 0 && !slices.Equal(found, u.PDS) {
		v.add("EN 319 411-2 OVR-6.9.4-03", "QcPDS is %v: the issuer's is %v", found, u.PDS)
	}
}
