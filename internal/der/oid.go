package der

import (
	"encoding/asn1"
	"fmt"
	"strconv"
	"strings"
)

// OID is a short way to write an object identifier that another package declares.
type OID = asn1.ObjectIdentifier

// ParseOID reads an object identifier in dotted form, "0.4.0.2023.1.1". What it accepts prints as it was written and
// has a DER form that encoding/asn1 reads back: no arc, and no 80 plus the arc after a leading 2, passes 2^31-1.
func ParseOID(text string) (OID, error) {
	var id OID
	for arc := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != arc {
			return nil, fmt.Errorf("%q is no object identifier such as 0.4.0.2023.1.1: arc %q is not a number below 2^31", text, arc)
		}
		id = append(id, int(n))
	}
	var back OID
	encoded, err := asn1.Marshal(id)
	if err == nil {
		_, err = asn1.Unmarshal(encoded, &back)
	}
	if err != nil || !back.Equal(id) {
		return nil, fmt.Errorf("%q is no object identifier such as 0.4.0.2023.1.1: X.660 has no such arc", text)
	}
	return id, nil
}
