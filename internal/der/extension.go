package der

import (
	"encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Extension is RFC 5280 §4.1: Value is the DER inside the OCTET STRING.
type Extension struct {
	ID       asn1.ObjectIdentifier
	Critical bool
	Value    []byte
}

// Add appends the extension as a SEQUENCE. critical is written only when TRUE (DEFAULT FALSE).
func (e Extension) Add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(e.ID)
		if e.Critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(e.Value)
	})
}

// AddExtensions appends Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension.
// It adds nothing for an empty list, because an empty SEQUENCE is not allowed.
func AddExtensions(b *cryptobyte.Builder, list []Extension) {
	if len(list) == 0 {
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, e := range list {
			e.Add(b)
		}
	})
}

// ReadExtensions reads Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension off s.
// An explicit critical FALSE, an identifier that occurs twice, and an empty list are refused.
// The Values alias s.
func ReadExtensions(s *cryptobyte.String) ([]Extension, error) {
	var list []Extension
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || seq.Empty() {
		return nil, fmt.Errorf("%w: Extensions", ErrNotDER)
	}
	for !seq.Empty() {
		e, err := readExtension(&seq)
		if err != nil {
			return nil, err
		}
		for _, other := range list {
			if other.ID.Equal(e.ID) {
				return nil, fmt.Errorf("%w: extension %v occurs twice (RFC 5280 §4.2)", ErrNotDER, e.ID)
			}
		}
		list = append(list, e)
	}
	return list, nil
}

func readExtension(s *cryptobyte.String) (Extension, error) {
	var e Extension
	var seq, value cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&e.ID) {
		return e, fmt.Errorf("%w: Extension", ErrNotDER)
	}
	if seq.PeekASN1Tag(cbasn1.BOOLEAN) {
		if !seq.ReadASN1Boolean(&e.Critical) || !e.Critical {
			return e, fmt.Errorf("%w: extension %v: critical FALSE is the default and must be absent", ErrNotDER, e.ID)
		}
	}
	if !seq.ReadASN1(&value, cbasn1.OCTET_STRING) || !seq.Empty() {
		return e, fmt.Errorf("%w: extension %v", ErrNotDER, e.ID)
	}
	e.Value = value
	return e, nil
}

// FindExtension returns the extension with that identifier.
func FindExtension(list []Extension, id asn1.ObjectIdentifier) (Extension, bool) {
	for _, e := range list {
		if e.ID.Equal(id) {
			return e, true
		}
	}
	return Extension{}, false
}

// AddTime appends Time as RFC 5280 §4.1.2.5 wants it: UTCTime through 2049,
// GeneralizedTime from 2050, whole seconds, Z.
func AddTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC().Truncate(time.Second)
	if y := t.Year(); y >= 1950 && y < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	AddGeneralizedTime(b, t)
}

// AddGeneralizedTime appends GeneralizedTime YYYYMMDDhhmmssZ, cut to whole seconds,
// as certificates, CRLs (RFC 5280 §4.1.2.5.2) and OCSP (RFC 6960 §4.2.2.1) want it.
func AddGeneralizedTime(b *cryptobyte.Builder, t time.Time) {
	b.AddASN1GeneralizedTime(t.UTC().Truncate(time.Second))
}
