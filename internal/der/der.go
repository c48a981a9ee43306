// Package der reads strict DER and writes canonical DER: what is not the one
// encoding X.690 §10 and §11 allow is refused, and what it writes passes its own check.
//
// It holds only what two services need: the canonical-form check, extensions,
// times, AlgorithmIdentifiers and the signatures that go with them. Structures
// that belong to one protocol stay with that protocol.
package der

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxDepth bounds nesting. A certificate nests about 9 deep; a time-stamp
// token with its chain about 14.
const maxDepth = 32

// ErrNotDER is wrapped by every error Check returns.
var ErrNotDER = errors.New("not canonical DER")

// Check reports whether b is exactly one value in canonical DER (X.690 §10, §11):
// definite minimal lengths, minimal integers, booleans 00 or FF, sorted SET OF,
// well-formed object identifiers, bit strings with zero padding, primitive
// strings, and nothing after it. It does not look inside OCTET STRINGs or
// context-specific primitive values. It reads each octet a bounded number of
// times, so its cost is linear in len(b).
func Check(b []byte) error {
	rest, err := checkOne(b, 0)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d octets after the value", ErrNotDER, len(rest))
	}
	return nil
}

// checkOne checks the first value of b and returns what follows it.
func checkOne(b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", ErrNotDER, maxDepth)
	}
	tag, content, rest, err := split(b)
	if err != nil {
		return nil, err
	}
	if tag.constructed() {
		return rest, checkConstructed(tag, content, depth)
	}
	return rest, checkPrimitive(tag, content)
}

// tagOctet is the identifier octet of X.690 §8.1.2, low-tag-number form only.
type tagOctet byte

func (t tagOctet) constructed() bool { return t&0x20 != 0 }
func (t tagOctet) universal() bool   { return t&0xc0 == 0 }

// split takes the first tag-length-value off b.
func split(b []byte) (tag tagOctet, content, rest []byte, err error) {
	s := cryptobyte.String(b)
	var value cryptobyte.String
	var t cbasn1.Tag
	// cryptobyte refuses high tag numbers, indefinite and non-minimal lengths.
	if !s.ReadAnyASN1(&value, &t) {
		return 0, nil, nil, fmt.Errorf("%w: bad tag or length", ErrNotDER)
	}
	if t == 0 {
		return 0, nil, nil, fmt.Errorf("%w: end-of-contents octets", ErrNotDER)
	}
	return tagOctet(t), value, s, nil
}

const (
	tagSequence = 0x30
	tagSet      = 0x31
)

func checkConstructed(tag tagOctet, content []byte, depth int) error {
	if tag.universal() && tag != tagSequence && tag != tagSet {
		return fmt.Errorf("%w: constructed universal tag %#02x", ErrNotDER, byte(tag))
	}
	var previous []byte
	for len(content) > 0 {
		rest, err := checkOne(content, depth+1)
		if err != nil {
			return err
		}
		element := content[:len(content)-len(rest)]
		if tag == tagSet && previous != nil && !setOrdered(previous, element) {
			return fmt.Errorf("%w: SET OF not sorted (X.690 §11.6)", ErrNotDER)
		}
		previous, content = element, rest
	}
	return nil
}

func checkPrimitive(tag tagOctet, v []byte) error {
	if !tag.universal() {
		return nil
	}
	switch cbasn1.Tag(tag) {
	case cbasn1.BOOLEAN:
		if len(v) != 1 || (v[0] != 0 && v[0] != 0xff) {
			return fmt.Errorf("%w: boolean is not 00 or FF (X.690 §11.1)", ErrNotDER)
		}
	case cbasn1.INTEGER, cbasn1.ENUM:
		if len(v) == 0 || (len(v) > 1 && (v[0] == 0 && v[1] < 0x80 || v[0] == 0xff && v[1] >= 0x80)) {
			return fmt.Errorf("%w: integer is not minimal (X.690 §8.3.2)", ErrNotDER)
		}
	case cbasn1.BIT_STRING:
		if len(v) == 0 || v[0] > 7 || (len(v) == 1 && v[0] != 0) || (len(v) > 1 && v[len(v)-1]&(1<<v[0]-1) != 0) {
			return fmt.Errorf("%w: bit string padding (X.690 §11.2)", ErrNotDER)
		}
	case cbasn1.NULL:
		if len(v) != 0 {
			return fmt.Errorf("%w: NULL with content", ErrNotDER)
		}
	case cbasn1.OBJECT_IDENTIFIER:
		return checkOID(v)
	case tagSequence &^ 0x20, tagSet &^ 0x20:
		return fmt.Errorf("%w: primitive SEQUENCE or SET", ErrNotDER)
	}
	return nil
}

// checkOID checks X.690 §8.19: each arc minimal, the last octet ending an arc.
func checkOID(v []byte) error {
	start := true
	for _, o := range v {
		if start && o == 0x80 {
			return fmt.Errorf("%w: object identifier arc is not minimal", ErrNotDER)
		}
		start = o < 0x80
	}
	if len(v) == 0 || !start {
		return fmt.Errorf("%w: truncated object identifier", ErrNotDER)
	}
	return nil
}

// setOrdered reports whether a may stand before b in a SET OF: compared as octet
// strings, the shorter padded with zero octets at its end (X.690 §11.6).
func setOrdered(a, b []byte) bool {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return len(a) <= len(b)
}
