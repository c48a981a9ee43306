package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// IssuerID names an issuer: SHA-256 over the DER of its subject Name followed by its subjectPublicKey bits.
type IssuerID [32]byte

// NewIssuerID computes the IssuerID from a CA certificate's RawSubject and subjectPublicKey BIT STRING content.
func NewIssuerID(rawSubject, publicKeyBits []byte) IssuerID {
	h := sha256.New()
	h.Write(rawSubject)
	h.Write(publicKeyBits)
	return IssuerID(h.Sum(nil))
}

// Serial is a certificate serial number: the content octets of its INTEGER, positive, 1 to 20 octets, minimal
// (RFC 5280 §4.1.2.2). It prints as lower-case hex. A string type, so that it can key a map.
type Serial string

// ParseSerial reads hex as people write it: upper case and ':' between octets are tolerated, leading zeros
// do not matter (ff, 0xff's octet 00 and all, is the serial 00ff).
func ParseSerial(text string) (Serial, error) {
	digits := text
	if strings.Contains(text, ":") {
		for octet := range strings.SplitSeq(text, ":") {
			if len(octet) != 2 {
				return "", fmt.Errorf("parse serial %.60q: ':' stands between octets of two hex digits", text)
			}
		}
		digits = strings.ReplaceAll(text, ":", "")
	}
	if len(digits) > 2*64 {
		return "", fmt.Errorf("parse serial: %d digits, at most 40 are allowed", len(digits))
	}
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	octets, err := hex.DecodeString(digits)
	if err != nil {
		return "", fmt.Errorf("parse serial %.60q: not hex", text)
	}
	for len(octets) > 0 && octets[0] == 0 {
		octets = octets[1:]
	}
	if len(octets) > 0 && octets[0] >= 0x80 {
		octets = append([]byte{0}, octets...)
	}
	s := Serial(octets)
	if err := s.check(); err != nil {
		return "", fmt.Errorf("parse serial %.60q: %w", text, err)
	}
	return s, nil
}

// String is the content octets in lower-case hex.
func (s Serial) String() string { return hex.EncodeToString([]byte(s)) }

// Bytes are the content octets of the INTEGER.
func (s Serial) Bytes() []byte { return []byte(s) }

// maxSerial is the octets a serial may have, RFC 5280 §4.1.2.2.
const maxSerial = 20

func (s Serial) check() error {
	switch {
	case len(s) == 0:
		return fmt.Errorf("serial is empty or zero; it must be positive (RFC 5280 §4.1.2.2)")
	case len(s) > maxSerial:
		return fmt.Errorf("serial has %d octets, at most 20 are allowed (RFC 5280 §4.1.2.2)", len(s))
	case s[0] >= 0x80:
		return fmt.Errorf("serial is negative (RFC 5280 §4.1.2.2)")
	case s[0] == 0 && (len(s) == 1 || s[1] < 0x80):
		return fmt.Errorf("serial is zero or not minimal (RFC 5280 §4.1.2.2, X.690 §8.3.2)")
	}
	return nil
}

// Reason is CRLReason (RFC 5280 §5.3.1) with its RFC number.
type Reason uint8

// The reasons of RFC 5280 §5.3.1 that an entry can hold.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

// reasonNames are RFC 5280's; empty where there is no reason to record (7 is unused, 8 is removeFromCRL).
var reasonNames = [...]string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "", "", "privilegeWithdrawn", "aACompromise"}

// ParseReason reads the RFC 5280 name (keyCompromise ...). certificateHold, removeFromCRL, cACompromise/aACompromise rules are the caller's.
func ParseReason(name string) (Reason, error) {
	for i, n := range reasonNames {
		if n != "" && n == name {
			return Reason(i), nil
		}
	}
	return 0, fmt.Errorf("parse reason %.40q: not a CRLReason of RFC 5280 §5.3.1; give one of unspecified, keyCompromise, "+
		"affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn", name)
}

// String is the RFC 5280 name.
func (r Reason) String() string {
	if r.valid() {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

func (r Reason) valid() bool { return int(r) < len(reasonNames) && reasonNames[r] != "" }

// Actor is the opaque id of an officer, client or daemon: never a name. Empty is not allowed in events by people.
type Actor [16]byte

// Event is what Append records. The concrete types below are all there are. Fields marked (body) are
// sealed apart from the leaf; all others are in the leaf, so none of them may hold personal data.
// Times are kept to the microsecond. Events are passed as values, not as pointers.
type Event interface{ kind() Kind }

// Kind numbers the event types as docs/journal.md does.
type Kind uint8

const (
	kindDaemonStarted Kind = iota + 1
	kindCeremonyHeld
	kindCertificateIntended
	kindCertificateIssued
	kindCertificateAbandoned
	kindCertificateRevoked
	kindCRLReserved
	kindCRLIssued
	kindTimestampIssued
	kindClockChanged
	kindKeyDuty
)

var kindNames = [...]string{"", "DaemonStarted", "CeremonyHeld", "CertificateIntended", "CertificateIssued", "CertificateAbandoned",
	"CertificateRevoked", "CRLReserved", "CRLIssued", "TimestampIssued", "ClockChanged", "KeyDuty"}

// String is the event type's name.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return kindNames[k]
}

// KindOf tells which of the event types e is.
func KindOf(e Event) Kind { return e.kind() }

// DaemonStarted says which software and settings made the entries that follow.
type DaemonStarted struct {
	Daemon, Version string   // 1 to 64 and 1 to 128 octets of UTF-8
	ConfigDigest    [32]byte // SHA-256 of the config file
	ClockUnverified bool
}

// CeremonyHeld is the first entry of a provider's journals. ReportDigest is the SHA-256 of the key report.
type CeremonyHeld struct {
	Actor        Actor
	ReportDigest [32]byte
	Report       []byte // (body) the key report, JSON
}

// CertificateIntended is recorded before the key moves. Serial must be new to the whole journal.
type CertificateIntended struct {
	Actor     Actor
	Issuer    IssuerID
	Serial    Serial
	TBSDigest [32]byte // SHA-256 of the TBSCertificate
	Profile   string   // 1 to 64 octets of UTF-8
	NotBefore time.Time
	NotAfter  time.Time
	TBS       []byte // (body)
	Evidence  []byte // (body) JSON: registration, device, request digest
}

// CertificateIssued is recorded before the certificate leaves. State must be intended, issuer and TBS the same.
type CertificateIssued struct {
	Issuer          IssuerID
	Serial          Serial
	CertificateHash [32]byte // SHA-256 of the certificate's DER
	Certificate     []byte   // (body) DER
}

// CertificateAbandoned closes an intent for ever: the serial counts as revoked.
type CertificateAbandoned struct {
	Issuer IssuerID
	Serial Serial
}

// CertificateRevoked makes an issued certificate revoked from this entry's time on. Irreversible.
type CertificateRevoked struct {
	Actor       Actor
	Issuer      IssuerID
	Serial      Serial
	Reason      Reason
	InvalidFrom time.Time // RFC 5280 §5.3.2 invalidityDate, zero if none
	RequestedAt time.Time // when the request came in; the 24 hours of REV-6.2.4-03A run from here
	Note        []byte    // (body) what the officer wrote
}

// CRLReserved takes a CRL number before anything is signed: it must be greater than every number reserved for the issuer.
type CRLReserved struct {
	Issuer IssuerID
	Number uint64
}

// CRLIssued is recorded before a CRL is published. Entries is the tree size the CRL was read at:
// every revocation below it is on the CRL.
type CRLIssued struct {
	Issuer                 IssuerID
	Number                 uint64
	Hash                   [32]byte // SHA-256 of the CRL's DER
	Entries                uint64
	ThisUpdate, NextUpdate time.Time
	CRL                    []byte // (body) DER — kept so that Recover can publish it; the replica's feed never carries it
}

// TimestampIssued is recorded before a time-stamp token leaves. Serial must be new to the unit (enforced: new to the journal).
type TimestampIssued struct {
	Unit      [32]byte // SHA-256 of the TSU certificate's DER
	Serial    Serial
	GenTime   time.Time // microseconds kept
	TokenHash [32]byte  // SHA-256 of the TimeStampToken's DER
	TSTInfo   []byte    // (body) DER
}

// ClockChanged records loss and return of a clock that can be vouched for (EN 319 421 OVR-7.12-04..06).
type ClockChanged struct {
	Vouched bool
	Detail  string // at most 1,024 octets of UTF-8
}

// KeyAct is what was done to a key or its token. docs/journal.md lists the numbers.
type KeyAct uint8

// The acts of a KeyDuty.
const (
	KeyGenerated    KeyAct = iota + 1
	KeyDestroying          // an intent: recorded before the token is told to destroy; KeyDestroyed or KeyNotDestroyed closes it
	KeyDestroyed           // the token was looked at again, and the key is gone
	KeyNotDestroyed        // the key is still there
	KeyBackedUp            // wrapped into a file under a key that the token's security officer trusts
	KeyRestored            // unwrapped from such a file, and seen to sign
	KeyCloned              // copied by the vendor's own means, outside of this software
	KeyActivated           // the token's PIN was entered: its keys can sign
	KeyDeactivated         // logged out, the PIN wiped
	KeyTrusted             // a security officer of the token marked a wrapping key as trusted
	KeyTransferred         // a wrapping key was carried to another token
)

// keyActNames are what JSON and people read.
var keyActNames = [...]string{"", "generated", "destroying", "destroyed", "not_destroyed", "backed_up", "restored", "cloned",
	"activated", "deactivated", "trusted", "transferred"}

// ParseKeyAct reads the name of an act; the error lists the names there are.
func ParseKeyAct(name string) (KeyAct, error) {
	if i := slices.Index(keyActNames[:], name); i > 0 {
		return KeyAct(i), nil
	}
	return 0, fmt.Errorf("read act %.40q: unknown; one of %s", name, strings.Join(keyActNames[1:], ", "))
}

// String is the act's name, "backed_up".
func (a KeyAct) String() string {
	if a == 0 || int(a) >= len(keyActNames) {
		return fmt.Sprintf("act %d", uint8(a))
	}
	return keyActNames[a]
}

// Closes tells whether the act is an outcome, which may close the intent of a destruction.
func (a KeyAct) Closes() bool { return a == KeyDestroyed || a == KeyNotDestroyed }

// KeyDuty records what officers did to a key (EN 319 411-1 GEN-6.5.1-13A, GEN-6.5.2-06, GEN-6.5.2-13, GEN-6.5.3-06).
type KeyDuty struct {
	Actor Actor
	Act   KeyAct
	// PublicKey is the SHA-256 of the DER SubjectPublicKeyInfo; zero where there is none: of a secret key, or a whole token.
	PublicKey [32]byte
	// Intent is the index of the KeyDestroying that a KeyDestroyed or KeyNotDestroyed closes; an intent is closed once. 0: none, as
	// of a destruction that was done elsewhere and is entered afterwards. Entry 0 can be no intent.
	Intent uint64
	// DoneAt is when it was done, where it is entered afterwards; zero: at the entry's time.
	DoneAt  time.Time
	Details []byte // (body) JSON: token, label, id, algorithm, and what else the officers' tool says
}

func (DaemonStarted) kind() Kind        { return kindDaemonStarted }
func (CeremonyHeld) kind() Kind         { return kindCeremonyHeld }
func (CertificateIntended) kind() Kind  { return kindCertificateIntended }
func (CertificateIssued) kind() Kind    { return kindCertificateIssued }
func (CertificateAbandoned) kind() Kind { return kindCertificateAbandoned }
func (CertificateRevoked) kind() Kind   { return kindCertificateRevoked }
func (CRLReserved) kind() Kind          { return kindCRLReserved }
func (CRLIssued) kind() Kind            { return kindCRLIssued }
func (TimestampIssued) kind() Kind      { return kindTimestampIssued }
func (ClockChanged) kind() Kind         { return kindClockChanged }
func (KeyDuty) kind() Kind              { return kindKeyDuty }

// Entry is one event as the journal holds it.
type Entry struct {
	Index uint64    // from 0
	Time  time.Time // milliseconds, UTC, never before the entry before
	Leaf  []byte    // the bytes that are hashed (RFC 6962 leaf hash)
	Event Event     // (body) fields are nil; Journal.Opened fills them
}

// Status of a certificate.
type Status uint8

// What a certificate can be; none of these is left again but Intended and Issued.
const (
	Intended Status = iota + 1
	Issued
	Revoked
	Abandoned // revoked for ever in OCSP and CRL
)

// String is good for JSON and people: intended, good, revoked, abandoned.
func (s Status) String() string {
	switch s {
	case Intended:
		return "intended"
	case Issued:
		return "good"
	case Revoked:
		return "revoked"
	case Abandoned:
		return "abandoned"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Certificate is the state of one serial.
type Certificate struct {
	Issuer                          IssuerID
	Serial                          Serial
	Status                          Status
	Profile                         string
	NotBefore, NotAfter             time.Time
	Hash                            [32]byte  // CertificateIssued's, zero until issued
	Since                           time.Time // when it was revoked or abandoned (entry time)
	Reason                          Reason
	InvalidFrom                     time.Time
	IntendedAt, IssuedAt, ChangedAt uint64 // indexes of the entries; ChangedAt of the revocation or abandonment
}
