// Package algorithms says which algorithm may be used for what, until when: one table with clauses, the same for ceremony, daemons and
// certificates; no clock, no keys.
//
// The table is that of ETSI TS 119 312 V2.1.1 (2026-06), narrowed to what the ECCG's Agreed Cryptographic Mechanisms v2 agree to, which
// CIR (EU) 2025/1943 and 2025/1929 require, and to what relying parties can read. Nothing here keeps state: every function may be
// called from any number of goroutines.
package algorithms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// Use is the one work of a key (EN 319 411-1 GEN-6.5.3-03).
type Use string

// The works of keys.
const (
	CA         Use = "ca"         // signs certificates and CRLs
	OCSP       Use = "ocsp"       // signs OCSP responses
	TSU        Use = "tsu"        // signs time-stamp tokens
	Checkpoint Use = "checkpoint" // signs checkpoints of a journal
	Management Use = "management" // signs TLS and officers' certificates, outside the qualified hierarchy
)

// Uses are all works, in the order of the table.
func Uses() []Use { return []Use{CA, OCSP, TSU, Checkpoint, Management} }

// Row is one line of the table.
type Row struct {
	Algorithm string    // for people: "ECDSA on P-256 with SHA-256"
	Uses      []Use     // what it may be used for; none: it is here for its reason
	Legacy    bool      // TS 119 312 calls it legacy: take another for a new key
	Until     time.Time // the last second that the table in force allows; zero: it names no end
	Clause    string    // who says so
	Reason    string    // why it may do nothing else, and what to take instead

	family  family
	scheme  der.Scheme // RSA only; empty: any
	minimum int        // RSA only: bits of the modulus, inclusive
	maximum int        // RSA only; 0: none
}

// family is a kind of key, whatever its size where sizes vary.
type family string

const (
	p256      family = "P-256"
	p384      family = "P-384"
	p521      family = "P-521"
	brainpool family = "brainpool"
	rsaKey    family = "RSA"
	ed25519K  family = "Ed25519"
	ed448     family = "Ed448"
)

// Key is what the table is asked about: a kind of key, and the scheme it signs by.
type Key struct {
	name   string
	family family
	bits   int
	scheme der.Scheme
}

// String names the key as the configurations do, or as Go calls its type.
func (k Key) String() string { return k.name }

// Of is the key whose public half is public. scheme is how an RSA key signs, as in der.AlgorithmFor; others have none.
func Of(public crypto.PublicKey, scheme der.Scheme) Key {
	switch p := public.(type) {
	case *rsa.PublicKey:
		bits := p.N.BitLen()
		return Key{"rsa" + strconv.Itoa(bits), rsaKey, bits, scheme.ForRSA()}
	case *ecdsa.PublicKey:
		switch p.Curve {
		case elliptic.P256():
			return Named("p256", "")
		case elliptic.P384():
			return Named("p384", "")
		case elliptic.P521():
			return Named("p521", "")
		}
		return Key{name: "EC " + p.Params().Name}
	case ed25519.PublicKey:
		return Named("ed25519", "")
	}
	return Key{name: fmt.Sprintf("%T", public)}
}

// Named is the key that a configuration calls name: p256, p384, p521, rsa3072, rsa4096, ed25519, or one of those the table has only to
// refuse. One that nobody knows has no row.
func Named(name string, scheme der.Scheme) Key {
	k := Key{name: name}
	switch lower := strings.ToLower(name); {
	case lower == "p256":
		k.family = p256
	case lower == "p384":
		k.family = p384
	case lower == "p521":
		k.family = p521
	case lower == "ed25519":
		k.family = ed25519K
	case lower == "ed448":
		k.family = ed448
	case strings.HasPrefix(lower, "brainpool"):
		k.family = brainpool
	case strings.HasPrefix(lower, "rsa"):
		if bits, err := strconv.ParseUint(lower[len("rsa"):], 10, 16); err == nil {
			k.family, k.bits, k.scheme = rsaKey, int(bits), scheme.ForRSA()
		}
	}
	return k
}

// Signing is the key with which something was, or will be, signed with algorithm: its scheme is algorithm's.
func Signing(public crypto.PublicKey, algorithm der.Algorithm) Key {
	if pss, err := der.AlgorithmFor(public, der.PSS); err == nil && pss.String() == algorithm.String() {
		return Of(public, der.PSS)
	}
	return Of(public, "")
}

// Table is a list of rows, of which the first that fits a key counts.
type Table []Row

// Refused is why the table does not let a key do a work.
type Refused struct {
	Clause string // "ETSI TS 119 312 table 6"
	Detail string // what was found, and what to take instead
}

func (r *Refused) Error() string { return r.Detail + " (" + r.Clause + ")" }

// warnAhead is how long before an algorithm's end warnings begin: a new CA or TSU key, its ceremony, and relying parties that learn of it
// take more than a year.
const warnAheadMonths = 24

// Check judges whether k may do use at the time at. A warning, where there is one, says what will have to be done; the error is a *Refused.
func (t Table) Check(k Key, use Use, at time.Time) (warning string, err error) {
	row, known := t.find(k)
	switch {
	case !known:
		return "", &Refused{"EN 319 412-2 GEN-4.2.5-1", fmt.Sprintf("key algorithm %s is none of the table: take p256, p384, p521, rsa3072 or rsa4096", k)}
	case !slices.Contains(row.Uses, use):
		return "", &Refused{row.Clause, fmt.Sprintf("%s may not do the work %q: %s", k, use, row.Reason)}
	case row.Until.IsZero():
		return "", nil
	case at.After(row.Until):
		return "", &Refused{row.Clause, fmt.Sprintf("%s ended at %s: make a key of another algorithm", row.Algorithm, day(row.Until))}
	case at.AddDate(0, warnAheadMonths, 0).After(row.Until):
		return fmt.Sprintf("%s ends at %s (%s): plan a key of another algorithm", row.Algorithm, day(row.Until), row.Clause), nil
	}
	return "", nil
}

// Aging says at the time at what will have to be done about a key that is in use: its algorithm will end, or has ended. None: nil.
func (t Table) Aging(k Key, use Use, at time.Time) []string {
	warning, err := t.Check(k, use, at)
	switch {
	case err != nil:
		return []string{err.Error()}
	case warning != "":
		return []string{warning}
	}
	return nil
}

// Legacy says that k works by what TS 119 312 calls legacy; "" where it does not.
func (t Table) Legacy(k Key) string {
	if row, known := t.find(k); known && row.Legacy {
		return fmt.Sprintf("%s is legacy (%s): it may be used; take RSASSA-PSS or ECDSA for a new key where relying parties read it", row.Algorithm, row.Clause)
	}
	return ""
}

// Until is the row's end for k, with its clause; the zero time where the table names none or does not know k.
func (t Table) Until(k Key) (end time.Time, clause string) {
	row, _ := t.find(k)
	return row.Until, row.Clause
}

// KeyUntil is the latest end of all that a key with this public half could sign by: after it nothing signed with the key counts. Zero: none.
func (t Table) KeyUntil(public crypto.PublicKey) (end time.Time, clause string) {
	for i, scheme := range []der.Scheme{der.PSS, der.PKCS1v15} {
		until, why := t.Until(Of(public, scheme))
		if until.IsZero() {
			return until, why
		}
		if i == 0 || until.After(end) {
			end, clause = until, why
		}
	}
	return end, clause
}

// UsesOf are the works that k may do at the time at; none where it may do nothing.
func (t Table) UsesOf(k Key, at time.Time) []Use {
	var may []Use
	for _, use := range Uses() {
		if _, err := t.Check(k, use, at); err == nil {
			may = append(may, use)
		}
	}
	return may
}

func (t Table) find(k Key) (Row, bool) {
	for _, r := range t {
		if k.family != "" && r.fits(k) {
			return r, true
		}
	}
	return Row{}, false
}

func (r Row) fits(k Key) bool {
	if r.family != k.family {
		return false
	}
	return r.family != rsaKey || k.bits >= r.minimum && (r.maximum == 0 || k.bits <= r.maximum) && (r.scheme == "" || r.scheme == k.scheme)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
