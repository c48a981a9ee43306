package policy

// keyUsageType is a row of EN 319 412-2 table 1, or "ca" for RFC 5280 §4.2.1.3 with §4.2.1.9.
type keyUsageType string

// Bits of KeyUsage as they lie in the first octet of the BIT STRING (RFC 5280 §4.2.1.3).
const (
	bitDigitalSignature byte = 0x80
	bitNonRepudiation   byte = 0x40
	bitKeyEncipherment  byte = 0x20
	bitKeyAgreement     byte = 0x08
	bitKeyCertSign      byte = 0x04
	bitCRLSign          byte = 0x02
)

// keyUsageBits are the bits every certificate of the type has. Types D, E and F add one more: see bits.
var keyUsageBits = map[keyUsageType]byte{
	"A":  bitNonRepudiation,
	"B":  bitDigitalSignature | bitNonRepudiation,
	"C":  bitDigitalSignature,
	"D":  bitDigitalSignature,
	"E":  0,
	"F":  bitDigitalSignature | bitNonRepudiation,
	"ca": bitKeyCertSign | bitCRLSign,
}

// bits is the KeyUsage octet of the type. RSA keys encipher keys, elliptic-curve keys agree on
// them (EN 319 412-2 table 1, note 0).
func (t keyUsageType) bits(rsa bool) byte {
	switch {
	case t != "D" && t != "E" && t != "F":
		return keyUsageBits[t]
	case rsa:
		return keyUsageBits[t] | bitKeyEncipherment
	default:
		return keyUsageBits[t] | bitKeyAgreement
	}
}

// commits reports whether the type may stand in a certificate for signatures or seals
// (NAT-4.3.2-2, LEG-4.3.1-3).
func (t keyUsageType) commits() bool { return t == "A" || t == "B" || t == "F" }
