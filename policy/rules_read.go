package policy

import (
	"encoding/asn1"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The readers below take an extension value apart for the rules. ok is false for what is not the structure.

// Tags of the implicitly tagged fields that several extensions have.
var (
	implicit0    = cbasn1.Tag(0).ContextSpecific()
	implicit1    = cbasn1.Tag(1).ContextSpecific()
	implicit2    = cbasn1.Tag(2).ContextSpecific()
	constructed0 = implicit0.Constructed()
	constructed1 = implicit1.Constructed()
	constructed2 = implicit2.Constructed()
)

// readAuthorityKeyIdentifier reads SEQUENCE { keyIdentifier [0] OPTIONAL, authorityCertIssuer [1] OPTIONAL,
// authorityCertSerialNumber [2] OPTIONAL }. named says that the last two are there; one without the other is not ok.
func readAuthorityKeyIdentifier(value []byte) (keyIdentifier []byte, named, ok bool) {
	s := cryptobyte.String(value)
	var seq, id, rest cryptobyte.String
	var numbered bool
	ok = s.ReadASN1(&seq, cbasn1.SEQUENCE) && s.Empty() &&
		seq.ReadOptionalASN1(&id, nil, implicit0) && seq.ReadOptionalASN1(&rest, &named, constructed1) &&
		seq.ReadOptionalASN1(&rest, &numbered, implicit2) && seq.Empty() && named == numbered
	return id, named, ok
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

// readPolicies reads SEQUENCE SIZE (1..MAX) OF SEQUENCE { policyIdentifier }: policyQualifiers, which no profile
// writes, are not ok.
func readPolicies(value []byte) (list []asn1.ObjectIdentifier, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var info cryptobyte.String
		var id asn1.ObjectIdentifier
		if !seq.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&id) || !info.Empty() {
			return nil, false
		}
		list = append(list, id)
	}
	return list, true
}

// readOIDs reads SEQUENCE SIZE (1..MAX) OF OBJECT IDENTIFIER.
func readOIDs(value []byte) (list []asn1.ObjectIdentifier, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
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
// A FALSE that is written is not ok (X.690 §11.5).
func readBasicConstraints(value []byte) (ca bool, pathLength int, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	pathLength = -1
	ok = s.ReadASN1(&seq, cbasn1.SEQUENCE) && s.Empty()
	if ok && seq.PeekASN1Tag(cbasn1.BOOLEAN) {
		ok = seq.ReadASN1Boolean(&ca) && ca
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

// isURI reports whether the name is a uniformResourceIdentifier.
func (n generalName) isURI() bool { return n.tag == cbasn1.Tag(6).ContextSpecific() }

// readDistributionPoints reads cRLDistributionPoints and returns the names of all fullNames. partial says that a
// point has reasons or cRLIssuer. A point without fullName is not ok.
func readDistributionPoints(value []byte) (names []generalName, partial, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false, false
	}
	for !seq.Empty() {
		var point, name, full, rest cryptobyte.String
		var reasons, issuer bool
		if !seq.ReadASN1(&point, cbasn1.SEQUENCE) || !point.ReadOptionalASN1(&name, nil, constructed0) ||
			!point.ReadOptionalASN1(&rest, &reasons, implicit1) || !point.ReadOptionalASN1(&rest, &issuer, constructed2) ||
			!point.Empty() {
			return nil, false, false
		}
		partial = partial || reasons || issuer
		if !name.ReadASN1(&full, constructed0) || !name.Empty() || full.Empty() {
			return nil, partial, false
		}
		list, good := readNames(full)
		if !good {
			return nil, partial, false
		}
		names = append(names, list...)
	}
	return names, partial, true
}

// accessPoint is one AccessDescription read back.
type accessPoint struct {
	method   asn1.ObjectIdentifier
	location generalName
}

// readAccess reads authorityInfoAccess.
func readAccess(value []byte) (list []accessPoint, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var description, location cryptobyte.String
		var a accessPoint
		if !seq.ReadASN1(&description, cbasn1.SEQUENCE) || !description.ReadASN1ObjectIdentifier(&a.method) ||
			!description.ReadAnyASN1(&location, &a.location.tag) || !description.Empty() {
			return nil, false
		}
		a.location.value = string(location)
		list = append(list, a)
	}
	return list, true
}

// readKeyPeriod reads privateKeyUsagePeriod with both its times.
func readKeyPeriod(value []byte) (from, to time.Time, ok bool) {
	s := cryptobyte.String(value)
	var seq, begin, end cryptobyte.String
	ok = s.ReadASN1(&seq, cbasn1.SEQUENCE) && s.Empty() &&
		seq.ReadASN1(&begin, implicit0) && seq.ReadASN1(&end, implicit1) && seq.Empty()
	from, to = parseTime(cbasn1.GeneralizedTime, string(begin)), parseTime(cbasn1.GeneralizedTime, string(end))
	return from, to, ok && !from.IsZero() && !to.IsZero()
}

// qcStatement is one QCStatement read back.
type qcStatement struct {
	id   asn1.ObjectIdentifier
	info []byte // DER of statementInfo, empty where absent
	raw  []byte // DER of the whole
}

// readStatements reads QCStatements ::= SEQUENCE OF QCStatement.
func readStatements(value []byte) (list []qcStatement, ok bool) {
	s := cryptobyte.String(value)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, false
	}
	for !seq.Empty() {
		var raw, one, info cryptobyte.String
		var id asn1.ObjectIdentifier
		var tag cbasn1.Tag
		if !seq.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
			return nil, false
		}
		whole := raw
		if !raw.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&id) {
			return nil, false
		}
		if !one.Empty() && (!one.ReadAnyASN1Element(&info, &tag) || !one.Empty()) {
			return nil, false
		}
		list = append(list, qcStatement{id: id, info: info, raw: whole})
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
