package der

import (
	"encoding/asn1"
	"strings"
	"testing"
)

func TestParseOID(t *testing.T) {
	for _, text := range []string{"0.4.0.2023.1.1", "0.0", "1.39", "2.5.4.3", "2.999", "1.3.6.1.4.1.2147483647"} {
		if id, err := ParseOID(text); err != nil || id.String() != text {
			t.Errorf("%s: got %v, %v", text, id, err)
		}
	}
	for text, want := range map[string]string{
		"": "not a number", "1": "no such arc", "3.1": "no such arc", "1.40": "no such arc", "best": "not a number",
		"1.": "not a number", ".1": "not a number", "1..2": "not a number", "1.2.-3": "not a number", "1.2.+3": "not a number",
		"1.2.03": "not a number", "1.2. 3": "not a number", "1.2.2147483648": "not a number", "2.2147483600": "no such arc",
	} {
		if id, err := ParseOID(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %q", text, id, err, want)
		}
	}
}

// What is read prints as it was written, and its DER is canonical and means the same.
func FuzzParseOID(f *testing.F) {
	for _, text := range []string{"0.4.0.2023.1.1", "2.999", "1.2.840.113549.1.1.11", "2.2147483600", "1..2", "1.2.03"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseOID(text)
		if err != nil {
			return
		}
		encoded, err := asn1.Marshal(id)
		if err != nil || id.String() != text || Check(encoded) != nil {
			t.Fatalf("%q: got %v, DER %x, %v", text, id, encoded, err)
		}
		var back asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(encoded, &back); err != nil || !back.Equal(id) {
			t.Errorf("%q: read back as %v, %v", text, back, err)
		}
	})
}
