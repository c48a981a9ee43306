package ca

import (
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CRL extensions: RFC 5280 §5.2.1, §5.2.3; X.509 §9.5.2.8 for expiredCertsOnCRL.
var (
	oidAuthorityKeyIdentifier = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCRLNumber              = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidExpiredCertsOnCRL      = asn1.ObjectIdentifier{2, 5, 29, 60}
)

// CRL entry extensions as they stand in an Extension: the OID and the head of the OCTET STRING.
// RFC 5280 §5.3.1 reasonCode (2.5.29.21, ENUMERATED), §5.3.2 invalidityDate (2.5.29.24, GeneralizedTime).
var (
	reasonCodeHead     = []byte{0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01}
	invalidityDateHead = []byte{0x30, 0x18, 0x06, 0x03, 0x55, 0x1d, 0x18, 0x04, 0x11, 0x18, 0x0f}
)

// tbsCertList is what a CRL says (RFC 5280 §5.1.2).
type tbsCertList struct {
	algorithm  der.Algorithm
	issuer     []byte // DER of the CA's subject Name
	keyID      []byte // authorityKeyIdentifier
	number     uint64
	thisUpdate time.Time
	nextUpdate time.Time
	// expiredFrom is expiredCertsOnCRL: certificates that expired since then stay on the list
	// (EN 319 411-2 CSS-6.3.10-05). We never drop one, so it is the CA's own notBefore.
	expiredFrom time.Time
	entries     []byte // encoded revokedCertificates, one after the other
}

// appendRevoked appends the entry of a revoked or abandoned certificate to revokedCertificates:
//
//	SEQUENCE { userCertificate INTEGER, revocationDate Time, crlEntryExtensions Extensions OPTIONAL }
//
// It is written by hand because a list of a million has to be encoded within a quarter of a second.
// No length in it passes 127: the longest entry, with a serial of 20 octets, has 83 octets.
func appendRevoked(out []byte, c journal.Certificate) ([]byte, error) {
	serial := c.Serial.Bytes()
	if len(serial) == 0 || len(serial) > 20 {
		return nil, fmt.Errorf("serial of %d octets", len(serial))
	}
	start := len(out)
	out = append(out, 0x30, 0)
	out = append(out, 0x02, byte(len(serial)))
	out = append(out, serial...)
	out = appendTime(out, c.Since)
	out = appendEntryExtensions(out, c)
	out[start+1] = byte(len(out) - start - 2)
	return out, nil
}

func appendEntryExtensions(out []byte, c journal.Certificate) []byte {
	withReason := c.Status == journal.Revoked && c.Reason != journal.Unspecified // §5.3.1: unspecified is left out
	if !withReason && c.InvalidFrom.IsZero() {
		return out
	}
	start := len(out)
	out = append(out, 0x30, 0)
	if withReason {
		out = append(out, reasonCodeHead...)
		out = append(out, byte(c.Reason))
	}
	if !c.InvalidFrom.IsZero() {
		out = append(out, invalidityDateHead...)
		out = c.InvalidFrom.UTC().AppendFormat(out, "20060102150405Z")
	}
	out[start+1] = byte(len(out) - start - 2)
	return out
}

// appendTime appends Time: UTCTime through 2049, then GeneralizedTime (RFC 5280 §5.1.2.4).
func appendTime(out []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 2050 {
		return t.AppendFormat(append(out, 0x17, 13), "060102150405Z")
	}
	return t.AppendFormat(append(out, 0x18, 15), "20060102150405Z")
}

// encode writes TBSCertList. revokedCertificates is absent, not empty, when there are none (§5.1.2.6).
func (l tbsCertList) encode() ([]byte, error) {
	var head, extensions cryptobyte.Builder
	head.AddASN1Uint64(1) // v2
	head.AddBytes(l.algorithm.Identifier())
	head.AddBytes(l.issuer)
	der.AddTime(&head, l.thisUpdate)
	der.AddTime(&head, l.nextUpdate)
	list, err := l.extensions()
	if err != nil {
		return nil, err
	}
	extensions.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		der.AddExtensions(b, list)
	})
	headDER, err := head.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode TBSCertList: %w", err)
	}
	tail, err := extensions.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode TBSCertList: %w", err)
	}
	var entries []byte // the head of revokedCertificates
	if len(l.entries) > 0 {
		entries = appendHead(nil, len(l.entries))
	}
	length := len(headDER) + len(entries) + len(l.entries) + len(tail)
	out := appendHead(make([]byte, 0, length+8), length)
	return slices.Concat(out, headDER, entries, l.entries, tail), nil
}

func (l tbsCertList) extensions() ([]der.Extension, error) {
	var keyID, number, expired cryptobyte.Builder
	// AuthorityKeyIdentifier ::= SEQUENCE { keyIdentifier [0] IMPLICIT OCTET STRING }
	keyID.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(l.keyID) })
	})
	number.AddASN1Uint64(l.number)
	der.AddGeneralizedTime(&expired, l.expiredFrom)
	var list []der.Extension
	for _, e := range []struct {
		id    asn1.ObjectIdentifier
		value *cryptobyte.Builder
	}{{oidAuthorityKeyIdentifier, &keyID}, {oidCRLNumber, &number}, {oidExpiredCertsOnCRL, &expired}} {
		value, err := e.value.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encode CRL extension %v: %w", e.id, err)
		}
		list = append(list, der.Extension{ID: e.id, Value: value})
	}
	return list, nil
}

// appendHead appends the tag of a SEQUENCE and a length in DER's shortest form.
func appendHead(out []byte, length int) []byte {
	out = append(out, 0x30)
	if length < 0x80 {
		return append(out, byte(length))
	}
	octets := 1
	for length>>(8*octets) != 0 {
		octets++
	}
	out = append(out, 0x80|byte(octets))
	for shift := 8 * (octets - 1); shift >= 0; shift -= 8 {
		out = append(out, byte(length>>shift))
	}
	return out
}
