// Package desk holds the words that the officers' tool and the daemons exchange, and who may say
// them: JSON types, the mutual-TLS client that speaks them, what each failure means to a caller, and
// officers with their roles.
//
// The paths are below /v1 on a daemon's admin listener; docs/ca.md lists them with the roles they
// want. Times are RFC 3339 in UTC, digests and serials lower-case hex, certificates PEM.
package desk

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
)

// MaxBody is the most octets a request body may have. A CSR of a 4096-bit key is 2 KiB and a
// subject file 2 KiB.
const MaxBody = 256 << 10

// IssueRequest asks for a certificate: POST /v1/certificates.
type IssueRequest struct {
	Profile     string `json:"profile"`        // built-in profile, "qcp-n"
	CSR         string `json:"csr"`            // PKCS#10, PEM
	Subject     string `json:"subject"`        // text of the subject file, as it was
	SubjectName string `json:"subject_name"`   // what errors call the subject file
	Plan        bool   `json:"plan,omitempty"` // show what would be signed; nothing is recorded or signed
}

// States of an IssueReply.
const (
	StatusIssued  = "issued"  // Cert holds the certificate
	StatusPending = "pending" // waits for another officer
	StatusPlanned = "planned" // Plan was asked for: Cert is empty and Serial will never be used
)

// IssueReply is what became of an IssueRequest.
type IssueReply struct {
	ID        string    `json:"id"` // first 16 octets, in hex, of the SHA-256 of the TBSCertificate, under which the journal has it
	Status    string    `json:"status"`
	Serial    string    `json:"serial"`
	Profile   string    `json:"profile"`
	Subject   string    `json:"subject"` // RFC 4514
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	TBS       []byte    `json:"tbs,omitempty"`  // planned only: the TBSCertificate, DER (base64 in JSON)
	Cert      string    `json:"cert,omitempty"` // PEM
}

// Certificate is one certificate as the journal knows it: GET /v1/certificates/{serial}.
type Certificate struct {
	Serial      string     `json:"serial"`
	Status      string     `json:"status"` // intended, good, revoked, abandoned
	Profile     string     `json:"profile"`
	Subject     string     `json:"subject,omitempty"` // RFC 4514; absent where there is no certificate
	NotBefore   time.Time  `json:"not_before"`
	NotAfter    time.Time  `json:"not_after"`
	SHA256      string     `json:"sha256,omitempty"`     // of the certificate's DER
	RevokedAt   *time.Time `json:"revoked_at,omitempty"` // of a revoked or abandoned one
	Reason      string     `json:"reason,omitempty"`     // RFC 5280 §5.3.1 name
	InvalidFrom *time.Time `json:"invalid_from,omitempty"`
	Cert        string     `json:"cert,omitempty"` // PEM; only where one certificate was asked for
}

// Search selects certificates; empty fields select all. Query parameters of GET /v1/certificates
// carry the same names.
type Search struct {
	Profile       string
	Subject       string    // part of the RFC 4514 text, upper and lower case alike
	Status        string    // intended, good, revoked, abandoned
	ExpiresBefore time.Time // notAfter before this
	After         string    // serial: only those that follow it in serial order
	Limit         int       // 0: 1,000; at most 10,000
}

// CertificateList is one page of a Search, in order of serial.
type CertificateList struct {
	Certificates []Certificate `json:"certificates"`
	Next         string        `json:"next,omitempty"` // ask again with After set to it: there may be more
}

// RevokeRequest asks for a revocation: POST /v1/certificates/{serial}/revoke.
type RevokeRequest struct {
	Reason      string     `json:"reason"`                 // RFC 5280 §5.3.1 name
	InvalidFrom *time.Time `json:"invalid_from,omitempty"` // RFC 5280 §5.3.2; not in the future
	RequestedAt *time.Time `json:"requested_at,omitempty"` // when the subscriber asked; absent: now
	Note        string     `json:"note,omitempty"`         // kept sealed in the journal
}

// CRLReply tells of a published CRL: POST /v1/crl.
type CRLReply struct {
	Number     uint64    `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"` // certificates on it
	File       string    `json:"file"`    // where the CA wrote it
}

// Report is what verifying the journal found: GET /v1/journal/verify.
type Report struct {
	OK           bool    `json:"ok"`
	Entries      uint64  `json:"entries"`
	Certificates uint64  `json:"certificates"`
	Root         string  `json:"root"`
	Faults       []Fault `json:"faults"`
	// SignedEntries lie under the stored checkpoint; those beyond, no fault by themselves, under no signature.
	SignedEntries uint64 `json:"signed_entries"`
	// SealedBodies were not opened, because no key was at hand: what they say was not verified.
	SealedBodies uint64 `json:"sealed_bodies"`
	// OpenKeyDuties are intended destructions of keys without a recorded outcome.
	OpenKeyDuties uint64 `json:"open_key_duties"`
	Origin        string `json:"origin"`      // of the checkpoints
	JournalKey    string `json:"journal_key"` // C2SP vkey under which they verify
}

// KeyDuty records what was done to a key: POST /v1/key-duties.
type KeyDuty struct {
	Act string `json:"act"` // generated, destroying, destroyed, not_destroyed, backed_up, restored, cloned, trusted, transferred, …
	// PublicKeySHA256 is over the DER SubjectPublicKeyInfo; absent for a secret key or a whole token.
	PublicKeySHA256 string `json:"public_key_sha256,omitempty"`
	// Intent is the entry of the destroying that a destroyed or not_destroyed closes.
	Intent *uint64 `json:"intent,omitempty"`
	// DoneAt is when it was done, where it is entered afterwards; absent: now.
	DoneAt *time.Time `json:"done_at,omitempty"`
	// Details are what else is known of it: token, label, who was there. One object whose values are strings, at most 16 KiB, kept sealed.
	Details map[string]string `json:"details"`
}

// KeyDutyReply tells where the journal has a KeyDuty.
type KeyDutyReply struct {
	Entry uint64    `json:"entry"`
	Time  time.Time `json:"time"`
}

// Fault names a journal entry and what is wrong with it.
type Fault struct {
	Entry uint64 `json:"entry"`
	Fault string `json:"fault"`
}

// Entry is one journal entry without its sealed body.
type Entry struct {
	Index uint64            `json:"index"`
	Time  time.Time         `json:"time"`
	Kind  string            `json:"kind"`
	Leaf  []byte            `json:"leaf"` // the bytes the tree hashes (base64 in JSON)
	Facts map[string]string `json:"facts"`
}

// EntryList is a page of the journal: GET /v1/journal/entries?after=&limit=.
type EntryList struct {
	Entries []Entry `json:"entries"`
	Next    uint64  `json:"next"` // the next `after`
	Size    uint64  `json:"size"` // entries the journal holds
}

// Status is what every daemon says of itself: GET /v1/status. In JSON the Facts stand beside the
// other keys.
type Status struct {
	Daemon  string
	Version string
	Ready   bool
	Reason  string         // why it is not ready
	Clock   string         // system or unverified
	Facts   map[string]any // everything else that the daemon says
}

// MarshalJSON writes one object of all facts.
func (s Status) MarshalJSON() ([]byte, error) {
	all := make(map[string]any, len(s.Facts)+5)
	maps.Copy(all, s.Facts)
	all["daemon"], all["version"], all["ready"], all["clock"] = s.Daemon, s.Version, s.Ready, s.Clock
	if s.Reason != "" {
		all["reason"] = s.Reason
	}
	return json.Marshal(all)
}

// UnmarshalJSON reads what a daemon of this or a later version says.
func (s *Status) UnmarshalJSON(text []byte) error {
	*s = Status{}
	if err := json.Unmarshal(text, &s.Facts); err != nil {
		return err
	}
	take := func(name string) string {
		value, ok := s.Facts[name].(string)
		if ok {
			delete(s.Facts, name)
		}
		return value
	}
	s.Daemon, s.Version, s.Reason, s.Clock = take("daemon"), take("version"), take("reason"), take("clock")
	s.Ready, _ = s.Facts["ready"].(bool)
	delete(s.Facts, "ready")
	return nil
}

// Violation is one rule that a request breaks.
type Violation struct {
	Clause string `json:"clause"` // "EN 319 412-5 QCS-5-01"
	Detail string `json:"detail"`
}

// Error is a daemon's refusal, and the body of every answer that is not 2xx.
type Error struct {
	Status     int         `json:"-"` // HTTP status
	Message    string      `json:"error"`
	Violations []Violation `json:"violations,omitempty"`
}

// Error is the message, or one violation a line.
func (e *Error) Error() string {
	if len(e.Violations) == 0 {
		return e.Message
	}
	var b strings.Builder
	for i, v := range e.Violations {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: %s", v.Clause, v.Detail)
	}
	return b.String()
}
