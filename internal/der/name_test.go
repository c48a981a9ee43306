package der

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

func TestNameText(t *testing.T) {
	for _, c := range []struct {
		name pkix.RDNSequence
		want string
	}{
		{nil, ""},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 6}, Value: "NL"}}, {{Type: []int{2, 5, 4, 97}, Value: "NTRNL-1"}}}, "organizationIdentifier=NTRNL-1,C=NL"},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 4}, Value: "Jansen"}, {Type: []int{2, 5, 4, 42}, Value: "Théa"}}}, "GN=Théa+SN=Jansen"},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 3}, Value: ` a,b+"c"\<d>; `}}}, `CN=\ a\,b\+\"c\"\\\<d\>\;\ `},
		{pkix.RDNSequence{{{Type: []int{2, 5, 4, 3}, Value: "#1 Théa"}}}, `CN=\#1 Théa`},
		{pkix.RDNSequence{{{Type: []int{1, 2, 3, 4}, Value: "x"}}}, "1.2.3.4=x"},
		{pkix.RDNSequence{{{Type: []int{1, 2, 3, 4}, Value: 5}}}, "1.2.3.4=#020105"},
	} {
		raw, err := asn1.Marshal(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := NameText(raw); err != nil || got != c.want {
			t.Errorf("got %q, %v, want %q", got, err, c.want)
		}
	}
	for _, bad := range [][]byte{nil, {0x30, 0x01}, {0x30, 0x00, 0x00}} {
		if got, err := NameText(bad); err == nil {
			t.Errorf("%x was read as %q", bad, got)
		}
	}
}
