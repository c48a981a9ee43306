package der

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// attributeNames are the short names of RFC 4514 §3, and of RFC 4519 and X.520 for the others that
// ETSI certificates carry.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L",
	"2.5.4.8": "ST", "2.5.4.9": "STREET", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title",
	"2.5.4.42": "GN", "2.5.4.65": "pseudonym", "2.5.4.97": "organizationIdentifier",
}

// NameText writes a Name in DER for people and for search, as RFC 4514 has it: the last RDN first.
func NameText(name []byte) (string, error) {
	var rdns pkix.RDNSequence
	rest, err := asn1.Unmarshal(name, &rdns)
	if err == nil && len(rest) > 0 {
		err = errors.New("octets after its end")
	}
	if err != nil {
		return "", fmt.Errorf("read Name: %w", err)
	}
	var b strings.Builder
	for n := len(rdns) - 1; n >= 0; n-- {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		for m, attribute := range rdns[n] {
			if m > 0 {
				b.WriteByte('+')
			}
			writeAttribute(&b, attribute)
		}
	}
	return b.String(), nil
}

// writeAttribute writes type=value; a value that is no string as # and its DER (RFC 4514 §2.4).
func writeAttribute(b *strings.Builder, a pkix.AttributeTypeAndValue) {
	id := a.Type.String()
	name, known := attributeNames[id]
	if !known {
		name = id
	}
	b.WriteString(name + "=")
	text, ok := a.Value.(string)
	if !ok {
		value, err := asn1.Marshal(a.Value)
		if err != nil {
			value = nil // only a type that encoding/asn1 read but cannot write
		}
		b.WriteString("#" + hex.EncodeToString(value))
		return
	}
	writeEscaped(b, text)
}

// writeEscaped is RFC 4514 §2.4: special characters, and leading and trailing blanks, after a backslash.
func writeEscaped(b *strings.Builder, text string) {
	for n, r := range text {
		last := n+len(string(r)) == len(text)
		switch {
		case r == 0:
			b.WriteString(`\00`)
			continue
		case strings.ContainsRune(`"+,;<>\`, r), n == 0 && (r == ' ' || r == '#'), last && r == ' ':
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
}
