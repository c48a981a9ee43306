package hsm

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

// Certification is what a configuration says of the certificate that a kind of device has (EN 319 411-1 GEN-6.5.2-02). No token tells that
// of itself. It is an alias, so that what other packages read from files converts to Settings.
type Certification = struct {
	Manufacturer string // as the token reports it
	Model        string // as the token reports it
	Firmware     string // as the token reports it; empty: any
	Standard     string // CommonCriteria, EUCC or FIPS140
	Reference    string // the id of the certificate
	Ends         string // its last day, YYYY-MM-DD, UTC; empty: the certificate names none
}

// The standards by which a device may be certified (CIR (EU) 2025/1943, EN 319 411-1 GEN-6.5.2-02). FIPS 140-2 is not among them.
const (
	CommonCriteria = "cc"        // ISO/IEC 15408, EAL 4 and more
	EUCC           = "eucc"      // CIR (EU) 2024/482, EAL 4 and more
	FIPS140        = "fips140-3" // level 3, until the end of 2030
)

// certificationAhead is how long before its end a certification is warned of: another HSM has to be found, certified and filled.
const certificationAheadMonths = 24

// lastFIPS is the last day on which a FIPS 140-3 certificate counts (CIR (EU) 2025/1943).
const lastFIPS = "2030-12-31"

// certify fills in what the configuration says of a device like info's.
func certify(list []Certification, info *TokenInfo) {
	for _, c := range list {
		if info.Software || c.Manufacturer != info.Manufacturer || c.Model != info.Model || c.Firmware != "" && c.Firmware != info.Firmware {
			continue
		}
		info.Certification, info.CertifiedUntil = strings.TrimSpace(c.Standard+" "+c.Reference), c.Ends
		if c.Standard == FIPS140 && (c.Ends == "" || c.Ends > lastFIPS) {
			info.CertifiedUntil = lastFIPS
		}
		return
	}
}

// CertifiedAt reports whether the configuration knows a certification of the device that holds at the time at.
func (i TokenInfo) CertifiedAt(at time.Time) bool {
	if i.Certification == "" || i.CertifiedUntil == "" {
		return i.Certification != ""
	}
	last, err := time.Parse(time.DateOnly, i.CertifiedUntil)
	return err == nil && at.Before(last.AddDate(0, 0, 1))
}

// CertificationWarning says at the time at what will have to be done because of the token's certification, "" where nothing will. Where
// required, that none is known is a warning, too. A soft token has none.
func (i TokenInfo) CertificationWarning(at time.Time, required bool) string {
	const clause = "(EN 319 411-1 GEN-6.5.2-02, EN 319 421 TIS-7.6.2)"
	device := fmt.Sprintf("token %q (%s %s, serial number %s, firmware %s)", i.Label, i.Manufacturer, i.Model, i.SerialNumber, i.Firmware)
	switch {
	case i.Software:
		return ""
	case i.Certification == "" && required:
		return device + " has no certification that the configuration knows: enter it under tokens.certifications " + clause
	case i.Certification == "" || i.CertifiedUntil == "":
		return ""
	}
	last, err := time.Parse(time.DateOnly, i.CertifiedUntil)
	switch end := last.AddDate(0, 0, 1); {
	case err != nil:
		return fmt.Sprintf("%s: %q, the end of its certification %s, is no day: write YYYY-MM-DD", device, i.CertifiedUntil, i.Certification)
	case !at.Before(end):
		return fmt.Sprintf("%s: its certification %s ended on %s: make the keys on a certified device and retire this one, or enter its new certificate %s", device, i.Certification, i.CertifiedUntil, clause)
	case !at.AddDate(0, certificationAheadMonths, 0).Before(end):
		return fmt.Sprintf("%s: its certification %s ends on %s: plan the move to a device that is certified for longer %s", device, i.Certification, i.CertifiedUntil, clause)
	}
	return ""
}

// CertificationWarnings are those of all devices.
func CertificationWarnings(devices []TokenInfo, at time.Time, required bool) (warnings []string) {
	for _, d := range devices {
		if w := d.CertificationWarning(at, required); w != "" {
			warnings = append(warnings, w)
		}
	}
	return warnings
}

// Devices describes the tokens that hold the keys that uris name, each token once, in the order of the uris. A uri may name a group, of which
// one token at least has to be there; those that are missing are left out. It does not log in.
func (t *Tokens) Devices(uris ...string) ([]TokenInfo, error) {
	var list []TokenInfo
	for _, group := range uris {
		found := false
		var missing []error
		for _, uri := range strings.Fields(group) {
			info, err := t.Token(uri)
			if err != nil {
				missing = append(missing, err)
				continue
			}
			found = true
			same := func(other TokenInfo) bool {
				return other.Label == info.Label && other.SerialNumber == info.SerialNumber && other.Module == info.Module
			}
			if !slices.ContainsFunc(list, same) {
				list = append(list, info)
			}
		}
		if !found {
			return nil, errors.Join(missing...)
		}
	}
	return list, nil
}

// origin is how the token says that it made a key, by CKA_KEY_GEN_MECHANISM; "" where it does not say.
func origin(value []byte) string {
	n, ok := ulong(value)
	if !ok {
		return ""
	}
	switch uint(n) {
	case pkcs11.CKM_EC_KEY_PAIR_GEN:
		return "CKM_EC_KEY_PAIR_GEN"
	case pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN:
		return "CKM_RSA_PKCS_KEY_PAIR_GEN"
	case pkcs11.CKM_RSA_X9_31_KEY_PAIR_GEN:
		return "CKM_RSA_X9_31_KEY_PAIR_GEN"
	case ckmECEdwardsKeyPairGen:
		return "CKM_EC_EDWARDS_KEY_PAIR_GEN"
	case pkcs11.CKM_AES_KEY_GEN:
		return "CKM_AES_KEY_GEN"
	case math.MaxUint: // CK_UNAVAILABLE_INFORMATION
		return ""
	}
	return fmt.Sprintf("mechanism 0x%x", n)
}
