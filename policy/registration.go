package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// Registration is the evidence of CIR (EU) 2025/1566 and 411-1 §6.3.1: what was proofed, how, when, by whom.
// Method is one of
//
//	eudi-wallet            European Digital Identity Wallet                             Article 24(1a)(a)
//	notified-eid-high      notified electronic identification means, level high         Article 24(1a)(a)
//	qualified-certificate  qualified signature or seal made with an earlier certificate Article 24(1a)(b)
//	certified-method       another method, its conformity confirmed (TS 119 461)        Article 24(1a)(c)
//	physical-presence      the person, or who may act for the legal person, came        Article 24(1a)(d)
//
// of Regulation (EU) 910/2014.
type Registration struct {
	Method         string    // of identity proofing, from the list above
	EvidenceDigest string    // SHA-256 of the evidence file, 64 hex digits, lower case
	Date           time.Time // day of the proofing, 00:00 UTC
	Officer        string    // the registration officer's id
	TermsVersion   string    // of the terms and conditions accepted
}

// Device is the QSCD a -qscd key lives in (411-2 SDP-6.5.1-02/-04). One of AttestationDigest
// and GenerationRecord says how it is known that the key is in it.
type Device struct {
	Model             string // as on the list of certified QSCDs
	Certification     string // certificate id of the QSCD
	AttestationDigest string // SHA-256 of the key attestation, 64 hex digits, lower case, or
	GenerationRecord  string // the officer's record of the generation
}

// proofingMethods are the ways of Article 24(1a), with what QcIdentMethod calls them (EN 319 412-5 §4.3.5).
var proofingMethods = []struct {
	name        string
	identMethod der.OID
}{
	{"eudi-wallet", oidIdentMethodACD},
	{"notified-eid-high", oidIdentMethodACD},
	{"qualified-certificate", oidIdentMethodB},
	{"certified-method", oidIdentMethodACD},
	{"physical-presence", oidIdentMethodACD},
}

// QcIdentMethod values: EN 319 412-5 §4.3.5.
var (
	oidIdentMethodACD = der.OID{0, 4, 0, 1862, 1, 8, 3} // Article 24(1a)(a), (c), (d): may serve again for other certificates
	oidIdentMethodB   = der.OID{0, 4, 0, 1862, 1, 8, 4} // Article 24(1a)(b)
)

// QcIdentMethod is the identifier that QcIdentMethod would state for the method, and whether there is one
// (EN 319 412-5 QCS-4.3.5-01/-02).
func (r *Registration) QcIdentMethod() (der.OID, bool) {
	for _, m := range proofingMethods {
		if m.name == r.Method {
			return m.identMethod, true
		}
	}
	return nil, false
}

// registrationFields is the registration block of a subject file.
type registrationFields struct {
	// How identity was proofed, by Article 24(1a) of Regulation (EU) 910/2014: eudi-wallet, notified-eid-high,
	// qualified-certificate, certified-method or physical-presence (EN 319 411-2 REG-6.2.2-01A). Required with registration.
	Method proofingMethod `yaml:"method"`
	// SHA-256 of the file with the evidence, as sha256sum prints it (EN 319 411-1 GEN-6.3.2-00A). Required with registration.
	Evidence sha256Hex `yaml:"evidence"`
	// The day of the proofing, like 2026-11-23 (EN 319 411-1 REG-6.3.1-00A). Required with registration.
	Date day `yaml:"date"`
	// The registration officer's id (EN 319 411-1 REG-6.3.2-01). Required with registration.
	Officer entry `yaml:"officer"`
	// Version of the terms and conditions that were accepted (EN 319 411-1 REG-6.3.4-08). Required with registration.
	Terms entry `yaml:"terms"`
}

func (f *registrationFields) registration() *Registration {
	if f == nil {
		return nil
	}
	return &Registration{
		Method:         string(f.Method),
		EvidenceDigest: string(f.Evidence),
		Date:           time.Time(f.Date),
		Officer:        string(f.Officer),
		TermsVersion:   string(f.Terms),
	}
}

// deviceFields is the device block of a subject file.
type deviceFields struct {
	// As on the list of certified devices (EN 319 411-2 SDP-6.5.1-02). Required with device.
	Model entry `yaml:"model"`
	// Id of the device's certificate (EN 319 411-2 SDP-6.5.1-02). Required with device.
	Certification entry `yaml:"certification"`
	// SHA-256 of the file with the key attestation, as sha256sum prints it (EN 319 411-2 SDP-6.5.1-04). Required with device, or generation_record.
	Attestation sha256Hex `yaml:"attestation"`
	// The officer's record of the key's generation in the device. Required with device, or attestation.
	GenerationRecord entry `yaml:"generation_record"`
}

func (f *deviceFields) device() *Device {
	if f == nil {
		return nil
	}
	return &Device{
		Model:             string(f.Model),
		Certification:     string(f.Certification),
		AttestationDigest: string(f.Attestation),
		GenerationRecord:  string(f.GenerationRecord),
	}
}

type proofingMethod string

// UnmarshalText takes the methods of the list on Registration.
func (m *proofingMethod) UnmarshalText(text []byte) error {
	names := make([]string, 0, len(proofingMethods))
	for _, known := range proofingMethods {
		if known.name == string(text) {
			*m = proofingMethod(text)
			return nil
		}
		names = append(names, known.name)
	}
	return fmt.Errorf("%q is no method of identity proofing: write one of %s", text, strings.Join(names, ", "))
}

type sha256Hex string

// emptyDigest is the SHA-256 of nothing: what sha256sum says of a file that was never filled.
const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// UnmarshalText takes 64 hex digits and keeps them in lower case.
func (d *sha256Hex) UnmarshalText(text []byte) error {
	if raw, err := hex.DecodeString(string(text)); err != nil || len(raw) != 32 {
		return fmt.Errorf("%q is no SHA-256: write the 64 hex digits that `sha256sum FILE` prints", text)
	}
	lower := strings.ToLower(string(text))
	if lower == emptyDigest {
		return errors.New("this is the SHA-256 of an empty file: name the file that holds the evidence")
	}
	*d = sha256Hex(lower)
	return nil
}

type day time.Time

// UnmarshalText takes a calendar day. Whether it is too long ago is for who has a clock.
func (d *day) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err != nil || t.Year() < 2000 { // a slip of the pen: nobody was proofed for a certificate of today before that
		return fmt.Errorf("%q is no day of a proofing: write it like 2026-11-23", text)
	}
	*d = day(t)
	return nil
}

// evidence says what is missing of the registration and the device, where the profile needs them,
// and refuses a device where it does not: a certificate without QcSSCD must not have been
// asked for as one with it.
func (s *Subject) evidence(registration, device bool) Violations {
	var v Violations
	switch {
	case s.Registration != nil:
		s.Registration.violations(&v)
	case registration:
		v.add("EN 319 411-1 REG-6.3.1-00A", "registration: missing: a qualified certificate needs method, evidence, date, officer and terms of the identity proofing")
	}
	switch {
	case device && s.Device != nil:
		s.Device.violations(&v)
	case device:
		v.add("EN 319 411-2 SDP-6.5.1-02", "device: missing: a -qscd profile needs model, certification, and attestation or generation_record of the QSCD")
	case s.Device != nil:
		v.add("EN 319 411-2 GEN-6.6.1-04", "device: this profile does not state QcSSCD: take the -qscd profile, or leave the device out")
	}
	return v
}

func (r *Registration) violations(v *Violations) {
	if _, ok := r.QcIdentMethod(); !ok {
		v.add("EN 319 411-2 REG-6.2.2-01A", "registration: method %q: write one of eudi-wallet, notified-eid-high, qualified-certificate, certified-method, physical-presence", r.Method)
	}
	if !isSHA256(r.EvidenceDigest) {
		v.add("EN 319 411-1 GEN-6.3.2-00A", "registration: evidence %q: write the SHA-256 of the file that holds the evidence", r.EvidenceDigest)
	}
	if r.Date.IsZero() {
		v.add("EN 319 411-1 REG-6.3.1-00A", "registration: date missing: write the day of the identity proofing")
	}
	if r.Officer == "" {
		v.add("EN 319 411-1 REG-6.3.2-01", "registration: officer missing: write the id of the registration officer")
	}
	if r.TermsVersion == "" {
		v.add("EN 319 411-1 REG-6.3.4-08", "registration: terms missing: write the version of the terms and conditions that were accepted")
	}
}

func (d *Device) violations(v *Violations) {
	if d.Model == "" {
		v.add("EN 319 411-2 SDP-6.5.1-02", "device: model missing: write it as on the list of certified QSCDs")
	}
	if d.Certification == "" {
		v.add("EN 319 411-2 SDP-6.5.1-02", "device: certification missing: write the id of the QSCD's certificate")
	}
	switch {
	case d.AttestationDigest == "" && d.GenerationRecord == "":
		v.add("EN 319 411-2 SDP-6.5.1-04", "device: attestation missing: write the SHA-256 of the key attestation, or the officer's generation_record")
	case d.AttestationDigest != "" && !isSHA256(d.AttestationDigest):
		v.add("EN 319 411-2 SDP-6.5.1-04", "device: attestation %q is no SHA-256 of a file", d.AttestationDigest)
	}
}

// isSHA256 reports whether s is what a subject file may hold as a digest.
func isSHA256(s string) bool {
	var d sha256Hex
	return d.UnmarshalText([]byte(s)) == nil && string(d) == s
}

type registrationJSON struct {
	Method         string `json:"method,omitempty"`
	EvidenceDigest string `json:"evidence,omitempty"`
	Date           string `json:"date,omitempty"`
	Officer        string `json:"officer,omitempty"`
	TermsVersion   string `json:"terms,omitempty"`
}

func (r *Registration) json() *registrationJSON {
	if r == nil {
		return nil
	}
	j := &registrationJSON{Method: r.Method, EvidenceDigest: r.EvidenceDigest, Officer: r.Officer, TermsVersion: r.TermsVersion}
	if !r.Date.IsZero() {
		j.Date = r.Date.UTC().Format(time.DateOnly)
	}
	return j
}

type deviceJSON struct {
	Model             string `json:"model,omitempty"`
	Certification     string `json:"certification,omitempty"`
	AttestationDigest string `json:"attestation,omitempty"`
	GenerationRecord  string `json:"generation_record,omitempty"`
}

func (d *Device) json() *deviceJSON {
	if d == nil {
		return nil
	}
	j := deviceJSON(*d)
	return &j
}
