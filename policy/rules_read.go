package policy

import (
	"encoding/asn1"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The readers below take an extension value apart for the rules. ok is false for what is not the structure.

// readAuthorityKeyIdentifier reads SEQUENCE { keyIdentifier [0] OPTIONAL, authorityCertIssuer [1] OPTIONAL,
// authorityCertSerialNumber [2] OPTIONAL }.
func readAuthorityKeyIdentifier(value []byte) (keyIdentifier []byte, ok bool) {
	s := cryptobyte.String(value)
	var seq, id cryptobyte.String
	var present bool
	ok = s.ReadASN1(&seq, cbasn1.SEQUENCE) && s.Empty() && seq.ReadOptionalASN1(&id, &present, cbasn1.Tag(0).ContextSpecific())
	return id, ok
}

func readOctetString(value []byte) ([]byte, bool) {
	s := cryptobyte.String(value)
	var octets cryptobyte.String
	ok := s.ReadASN1(&octets, cbasn1.OCTET_STRING) && s.Empty()
	return octets, ok
}

// readKeyUsage reads a named BIT STRING of one octet whose last bit is set, or of none (X.690 §11.2.2).
func readKeyUsage(value []byte) (bits byte, ok bool) {
	s := cryptobyte.String(value)
	var b asn1.BitString
	if !s.ReadASN1BitString(&b) || !s.Empty() || len(b.Bytes) != 1 || b.At(b.BitLength-1) != 1 {
		return 0, false
	}
	return b.Bytes[0], true
}

// readPolicies reads SEQUENCE OF SEQUENCE { policyIdentifier, policyQualifiers OPTIONAL }.
func readPolicies(value []byte) (list []asn1.ObjectIdentifier, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var info cryptobyte.String
		var id asn1.ObjectIdentifier
		if !seq.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&id) {
			return nil, false
		}
		list = append(list, id)
	}
	return list, true
}

// readOIDs reads SEQUENCE OF OBJECT IDENTIFIER.
func readOIDs(value []byte) (list []asn1.ObjectIdentifier, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var id asn1.ObjectIdentifier
		if !seq.ReadASN1ObjectIdentifier(&id) {
			return nil, false
		}
		list = append(list, id)
	}
	return list, true
}

// readBasicConstraints reads SEQUENCE { cA DEFAULT FALSE, pathLenConstraint OPTIONAL }. pathLength is -1 where absent.
func readBasicConstraints(value []byte) (ca bool, pathLength int, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	pathLength = -1
	ok = s.ReadASN1(&seq, cbasn1.SEQUENCE) && s.Empty()
	if ok && seq.PeekASN1Tag(cbasn1.BOOLEAN) {
		ok = seq.ReadASN1Boolean(&ca)
	}
	if ok && seq.PeekASN1Tag(cbasn1.INTEGER) {
		ok = seq.ReadASN1Integer(&pathLength) && pathLength >= 0
	}
	return ca, pathLength, ok && seq.Empty()
}

// generalName is GeneralName of RFC 5280 §4.2.1.6: value is the content behind the tag.
type generalName struct {
	tag   cbasn1.Tag
	value string
}

// readGeneralNames reads GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName.
func readGeneralNames(value []byte) ([]generalName, bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	return readNames(seq)
}

func readNames(seq cryptobyte.String) (list []generalName, ok bool) {
	for !seq.Empty() {
		var n cryptobyte.String
		var tag cbasn1.Tag
		if !seq.ReadAnyASN1(&n, &tag) {
			return nil, false
		}
		list = append(list, generalName{tag, string(n)})
	}
	return list, true
}

// readDistributionPoints reads cRLDistributionPoints and returns the URIs of all fullNames. A point
// without distributionPoint, or with a name relative to the issuer, gives none.
func readDistributionPoints(value []byte) (urls []string, ok bool) {
	constructed0 := cbasn1.Tag(0).ContextSpecific().Constructed()
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var point, name, full cryptobyte.String
		var named, isFull bool
		if !seq.ReadASN1(&point, cbasn1.SEQUENCE) || !point.ReadOptionalASN1(&name, &named, constructed0) ||
			named && !name.ReadOptionalASN1(&full, &isFull, constructed0) {
			return nil, false
		}
		names, good := readNames(full)
		if !good {
			return nil, false
		}
		for _, n := range names {
			if n.tag == cbasn1.Tag(6).ContextSpecific() {
				urls = append(urls, n.value)
			}
		}
	}
	return urls, true
}

// readAccess reads authorityInfoAccess and returns the URIs of one access method.
func readAccess(value []byte, method asn1.ObjectIdentifier) (urls []string, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var description, location cryptobyte.String
		var id asn1.ObjectIdentifier
		var tag cbasn1.Tag
		if !seq.ReadASN1(&description, cbasn1.SEQUENCE) || !description.ReadASN1ObjectIdentifier(&id) ||
			!description.ReadAnyASN1(&location, &tag) || !description.Empty() {
			return nil, false
		}
		if id.Equal(method) && tag == cbasn1.Tag(6).ContextSpecific() {
			urls = append(urls, string(location))
		}
	}
	return urls, true
}

// readKeyPeriod reads privateKeyUsagePeriod with both its times.
func readKeyPeriod(value []byte) (from, to time.Time, ok bool) {
	s := cryptobyte.String(value)
	var seq, begin, end cryptobyte.String
	ok = s.ReadASN1(&seq, cbasn1.SEQUENCE) && s.Empty() &&
		seq.ReadASN1(&begin, cbasn1.Tag(0).ContextSpecific()) && seq.ReadASN1(&end, cbasn1.Tag(1).ContextSpecific()) && seq.Empty()
	from, to = parseTime(cbasn1.GeneralizedTime, string(begin)), parseTime(cbasn1.GeneralizedTime, string(end))
	return from, to, ok && !from.IsZero() && !to.IsZero()
}

// qcStatement is one QCStatement read back: info is the DER of statementInfo, empty where absent.
type qcStatement struct {
	id   asn1.ObjectIdentifier
	info []byte
}

// readStatements reads QCStatements ::= SEQUENCE OF QCStatement.
func readStatements(value []byte) (list []qcStatement, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var one, info cryptobyte.String
		var id asn1.ObjectIdentifier
		var tag cbasn1.Tag
		if !seq.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&id) {
			return nil, false
		}
		if !one.Empty() && (!one.ReadAnyASN1Element(&info, &tag) || !one.Empty()) {
			return nil, false
		}
		list = append(list, qcStatement{id, info})
	}
	return list, true
}

// readPDS reads the statementInfo of QcPDS.
func readPDS(info []byte) (list []PDS, ok bool) {
	s := cryptobyte.String(info)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var one, url, language cryptobyte.String
		if !seq.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1(&url, cbasn1.IA5String) ||
			!one.ReadASN1(&language, cbasn1.PrintableString) || !one.Empty() {
			return nil, false
		}
		list = append(list, PDS{URL: string(url), Language: string(language)})
	}
	return list, true
}
