package policy

import (
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// extensionList collects extensions, or the first error.
type extensionList struct {
	list []der.Extension
	err  error
}

// add appends an extension whose value write writes.
func (l *extensionList) add(id asn1.ObjectIdentifier, critical bool, write func(*cryptobyte.Builder)) {
	var b cryptobyte.Builder
	write(&b)
	value, err := b.Bytes()
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("write extension %v: %w", id, err)
	}
	l.list = append(l.list, der.Extension{ID: id, Critical: critical, Value: value})
}

// extensions are those of the certificate, in the one order all our certificates have.
func (p *Profile) extensions(r Request, i Issuer, key subjectPublicKeyInfo) ([]der.Extension, error) {
	var l extensionList
	own := keyID(key.key)
	authority := i.KeyID
	if p.selfSigned {
		authority = own
	}
	l.add(oidAuthorityKeyIdentifier, false, addAuthorityKeyIdentifier(authority))
	l.add(oidSubjectKeyIdentifier, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(own) })
	l.add(oidKeyUsage, true, addKeyUsage(p.keyUsage.bits(key.algorithm.Equal(oidRSAEncryption))))
	if len(p.policies) > 0 {
		l.add(oidCertificatePolicies, false, addPolicies(p.policies))
	}
	if r.Subject.Email != "" && p.altName != absent {
		l.add(oidSubjectAltName, false, addRFC822Name(r.Subject.Email))
	}
	if p.ca {
		l.add(oidBasicConstraints, true, addBasicConstraints(p.pathLength))
	}
	if len(p.purposes) > 0 {
		l.add(oidExtKeyUsage, p.ekuCritical, addSequenceOfOIDs(p.purposes))
	}
	if p.crl != absent && i.URLs.CRL != "" {
		l.add(oidCRLDistributionPoints, false, addDistributionPoint(i.URLs.CRL))
	}
	if access := p.access(i.URLs); len(access) > 0 {
		l.add(oidAuthorityInfoAccess, false, addAuthorityInfoAccess(access))
	}
	if p.qc.present {
		l.add(oidQCStatements, false, addStatements(p.qc.statements(r, i.URLs)))
	}
	if p.noCheck {
		l.add(oidOCSPNoCheck, false, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
	}
	if p.keyLife > 0 {
		l.add(oidPrivateKeyUsagePeriod, false, addPrivateKeyUsagePeriod(r.NotBefore, r.NotBefore.Add(p.keyLife)))
	}
	return l.list, l.err
}

// keyID is RFC 7093 §2 method 1: the leftmost 160 bits of the SHA-256 of the subjectPublicKey bits. It is as
// long as the SHA-1 identifier of RFC 5280 §4.2.1.2 and needs no hash that TS 119 312 has dropped; relying
// parties only compare it. crypto/x509 makes the same.
func keyID(publicKeyBits []byte) []byte {
	sum := sha256.Sum256(publicKeyBits)
	return sum[:20]
}

// addAuthorityKeyIdentifier writes SEQUENCE { [0] IMPLICIT KeyIdentifier } (RFC 5280 §4.2.1.1).
func addAuthorityKeyIdentifier(id []byte) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(id) })
		})
	}
}

// addKeyUsage writes the BIT STRING of one octet of named bits, its zero bits at the end cut off (X.690 §11.2.2).
func addKeyUsage(bits byte) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		unused := byte(0)
		for unused < 7 && bits&(1<<unused) == 0 {
			unused++
		}
		b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{unused, bits}) })
	}
}

// addPolicies writes SEQUENCE OF PolicyInformation without qualifiers (RFC 5280 §4.2.1.4 advises against them).
func addPolicies(list []asn1.ObjectIdentifier) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, id := range list {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(id) })
			}
		})
	}
}

// addRFC822Name writes GeneralNames with one [1] IMPLICIT IA5String (RFC 5280 §4.2.1.6).
func addRFC822Name(address string) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addString(b, cbasn1.Tag(1).ContextSpecific(), address) })
	}
}

// addBasicConstraints writes SEQUENCE { cA TRUE, pathLenConstraint OPTIONAL } (RFC 5280 §4.2.1.9).
func addBasicConstraints(pathLength int) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Boolean(true)
			if pathLength >= 0 {
				b.AddASN1Int64(int64(pathLength))
			}
		})
	}
}

func addSequenceOfOIDs(list []asn1.ObjectIdentifier) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, id := range list {
				b.AddASN1ObjectIdentifier(id)
			}
		})
	}
}

// uri is uniformResourceIdentifier [6] IMPLICIT IA5String of GeneralName (RFC 5280 §4.2.1.6).
var uri = cbasn1.Tag(6).ContextSpecific()

// addDistributionPoint writes SEQUENCE OF DistributionPoint with one that has only
// distributionPoint [0] { fullName [0] { URI } } (RFC 5280 §4.2.1.13).
func addDistributionPoint(url string) func(*cryptobyte.Builder) {
	point, fullName := cbasn1.Tag(0).ContextSpecific().Constructed(), cbasn1.Tag(0).ContextSpecific().Constructed()
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(point, func(b *cryptobyte.Builder) {
					b.AddASN1(fullName, func(b *cryptobyte.Builder) { addString(b, uri, url) })
				})
			})
		})
	}
}

// accessDescription is one AccessDescription of RFC 5280 §4.2.2.1.
type accessDescription struct {
	method asn1.ObjectIdentifier
	url    string
}

// access is what authorityInfoAccess of the profile lists under an issuer with these URLs.
func (p *Profile) access(urls URLs) []accessDescription {
	var list []accessDescription
	if p.caIssuers != absent && urls.CAIssuers != "" {
		list = append(list, accessDescription{oidAccessCAIssuers, urls.CAIssuers})
	}
	if p.ocsp != absent && urls.OCSP != "" {
		list = append(list, accessDescription{oidAccessOCSP, urls.OCSP})
	}
	return list
}

func addAuthorityInfoAccess(list []accessDescription) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, a := range list {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(a.method)
					addString(b, uri, a.url)
				})
			}
		})
	}
}

func addStatements(list []statement) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, s := range list {
				s.add(b)
			}
		})
	}
}

// addPrivateKeyUsagePeriod writes SEQUENCE { [0] IMPLICIT GeneralizedTime, [1] IMPLICIT GeneralizedTime }.
func addPrivateKeyUsagePeriod(from, to time.Time) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for tag, t := range []time.Time{from, to} {
				addString(b, cbasn1.Tag(tag).ContextSpecific(), t.UTC().Format("20060102150405Z"))
			}
		})
	}
}
