package tsa

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PKIFailureInfo says why there is no token: the number of the one bit that is set
// (RFC 3161 §2.4.2).
type PKIFailureInfo uint8

// The failures of RFC 3161 §2.4.2. This authority has no cause to send AddInfoNotAvailable: the only
// additional information that a client can ask for without an extension is the TSU's
// certificate, which a unit always has.
const (
	BadAlg              PKIFailureInfo = 0  // hash algorithm unknown or not served
	BadRequest          PKIFailureInfo = 2  // well-formed, but nothing this authority does
	BadDataFormat       PKIFailureInfo = 5  // not a TimeStampReq in DER, or a hash of the wrong length
	TimeNotAvailable    PKIFailureInfo = 14 // nobody vouches for the clock
	UnacceptedPolicy    PKIFailureInfo = 15 // reqPolicy is not served
	UnacceptedExtension PKIFailureInfo = 16 // the request has an extension
	AddInfoNotAvailable PKIFailureInfo = 17 // information asked for is not understood or not there
	SystemFailure       PKIFailureInfo = 25 // key, certificate or journal
)

// String is the name in RFC 3161.
func (f PKIFailureInfo) String() string {
	switch f {
	case BadAlg:
		return "badAlg"
	case BadRequest:
		return "badRequest"
	case BadDataFormat:
		return "badDataFormat"
	case TimeNotAvailable:
		return "timeNotAvailable"
	case UnacceptedPolicy:
		return "unacceptedPolicy"
	case UnacceptedExtension:
		return "unacceptedExtension"
	case AddInfoNotAvailable:
		return "addInfoNotAvailable"
	case SystemFailure:
		return "systemFailure"
	}
	return fmt.Sprintf("failInfo(%d)", uint8(f))
}

// marshal encodes the BIT STRING: up to the bit that is set, no further (X.690 §11.2.2).
func (f PKIFailureInfo) marshal() []byte {
	content := make([]byte, 2+int(f)/8)
	content[0] = 7 - byte(f)%8 // unused bits
	content[len(content)-1] = 0x80 >> (f % 8)
	return wrap(cbasn1.BIT_STRING, content)
}

// readFailInfo reads the BIT STRING off s: the bits that are set, in order. Responders are seen to leave
// trailing zero bits, so those are accepted.
func readFailInfo(s *cryptobyte.String) ([]PKIFailureInfo, bool) {
	var content cryptobyte.String
	if !s.ReadASN1(&content, cbasn1.BIT_STRING) || len(content) == 0 || len(content) > 1+256/8 {
		return nil, false
	}
	var set []PKIFailureInfo
	for i, octet := range content[1:] {
		for bit := range 8 {
			if octet&(0x80>>bit) != 0 {
				set = append(set, PKIFailureInfo(8*i+bit))
			}
		}
	}
	return set, true
}

// Each error that refuses a token wraps one of these, or is a systemFailure.
var (
	errBadAlg              = errors.New("badAlg")
	errBadRequest          = errors.New("badRequest")
	errBadDataFormat       = errors.New("badDataFormat")
	errTimeNotAvailable    = errors.New("timeNotAvailable")
	errUnacceptedPolicy    = errors.New("unacceptedPolicy")
	errUnacceptedExtension = errors.New("unacceptedExtension")
)

// Two refusals that say more than their failInfo.
var (
	errBusy = errors.New("busy: more requests wait than the key can serve")                                      // a systemFailure
	errSlow = fmt.Errorf("%w: the signature came too late for the accuracy of its genTime", errTimeNotAvailable) // TIS-7.7.1-06
)

// failInfo is the one place where an error becomes a PKIFailureInfo and the statusString for people. What went wrong
// inside the authority is for its log, not for the client.
func failInfo(err error) (PKIFailureInfo, string) {
	switch {
	case errors.Is(err, errBadDataFormat):
		return BadDataFormat, statusString(err)
	case errors.Is(err, errBadAlg):
		return BadAlg, statusString(err)
	case errors.Is(err, errBadRequest):
		return BadRequest, statusString(err)
	case errors.Is(err, errUnacceptedPolicy):
		return UnacceptedPolicy, statusString(err)
	case errors.Is(err, errUnacceptedExtension):
		return UnacceptedExtension, statusString(err)
	case errors.Is(err, errSlow):
		return TimeNotAvailable, "timeNotAvailable: the signature took longer than this authority's accuracy allows: try again later"
	case errors.Is(err, errTimeNotAvailable):
		return TimeNotAvailable, "timeNotAvailable: the clock of this authority is not known to be within its accuracy: try again later"
	}
	if errors.Is(err, errBusy) {
		return SystemFailure, "systemFailure: busy: more requests wait than this authority can serve: try again later"
	}
	return SystemFailure, "systemFailure: the time-stamping unit cannot issue at the moment: try again later"
}

// statusString is the text of a refusal that the request itself caused.
func statusString(err error) string {
	const most = 300 // octets; ours are shorter, unless the request put something long in
	text := strings.ToValidUTF8(err.Error(), "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Rejection is the answer of an authority that issued no token.
type Rejection struct {
	Status       int              // PKIStatus: 2 rejection, 3 waiting, 4 and 5 revocation warnings
	FailInfo     []PKIFailureInfo // the bits set; usually one
	StatusString string           // what the authority says to people; may be empty
}

// Error names status, failInfo and text.
func (r *Rejection) Error() string {
	names := make([]string, len(r.FailInfo))
	for i, f := range r.FailInfo {
		names[i] = f.String()
	}
	text := fmt.Sprintf("the authority issued no token: status %d", r.Status)
	if len(names) > 0 {
		text += ", " + strings.Join(names, " and ")
	}
	if r.StatusString != "" {
		text += fmt.Sprintf(": %q", r.StatusString)
	}
	return text
}
