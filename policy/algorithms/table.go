package algorithms

import (
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// InForce is the table by which this version decides.
//
// TS 119 312 V2.1.1 names no end for RSASSA-PKCS1-v1_5 with 3000 bits and more, which V1.5.1 ended with 2028; so none is here. The ECCG's own
// text on legacy mechanisms may name one: whoever has it at hand compares it, and changes Until.
func InForce() Table {
	services := []Use{CA, OCSP, TSU, Management}
	const (
		suites   = "ETSI TS 119 312 V2.1.1 §6.2.2"
		table6   = "ETSI TS 119 312 V2.1.1 table 6"
		notHere  = "checkpoints of journals are signed with Ed25519 (C2SP signed-note): write ed25519"
		notTLS   = "TLS and officers' certificates are for programs of every age: leave signature_scheme out"
		agreed   = "EN 319 412-2 GEN-4.2.5-2"
		edReason = "EdDSA is not among the mechanisms that the ECCG agrees to (CIR (EU) 2025/1943)"
	)
	return Table{
		{Algorithm: "ECDSA on P-256 with SHA-256", Uses: services, Clause: suites, Reason: notHere, family: p256},
		{Algorithm: "ECDSA on P-384 with SHA-384", Uses: services, Clause: suites, Reason: notHere, family: p384},
		{Algorithm: "ECDSA on P-521 with SHA-512", Uses: services, Clause: suites, Reason: notHere, family: p521},
		{Algorithm: "RSASSA-PSS with SHA-256, 3000 bits and more", Uses: []Use{CA, OCSP, TSU}, Clause: table6, Reason: notTLS + "; " + notHere,
			family: rsaKey, scheme: der.PSS, minimum: 3000},
		{Algorithm: "RSASSA-PKCS1-v1_5 with SHA-256, 3000 bits and more", Uses: services, Legacy: true, Clause: table6, Reason: notHere,
			family: rsaKey, scheme: der.PKCS1v15, minimum: 3000},
		{Algorithm: "RSA below 3000 bits", Until: lastSecond(2028), Clause: table6,
			Reason: "no certificate is issued for it after 2026, and what was issued ends with 2028: take rsa3072 or rsa4096", family: rsaKey, maximum: 2999},
		{Algorithm: "Ed25519", Uses: []Use{Checkpoint}, Clause: agreed, Reason: edReason + ", so it signs checkpoints alone: take p256, p384, p521, rsa3072 or rsa4096", family: ed25519K},
		{Algorithm: "Ed448", Clause: agreed, Reason: edReason + ": take p256, p384, p521, rsa3072 or rsa4096", family: ed448},
		{Algorithm: "ECDSA on a brainpool curve", Clause: "RFC 5480 §2.1.1.1",
			Reason: "TS 119 312 agrees to it, but GnuTLS and programs in Go cannot read the certificate: take p256, p384 or p521", family: brainpool},
	}
}

// lastSecond is the end of a year, UTC.
func lastSecond(year int) time.Time {
	return time.Date(year, time.December, 31, 23, 59, 59, 0, time.UTC)
}

// Markdown is the table as docs/tokens.md shows it.
func (t Table) Markdown() string {
	var b strings.Builder
	b.WriteString("| algorithm | ca | ocsp | tsu | checkpoint | management | until | clause | what it may not do, and why |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range t {
		b.WriteString("| " + r.Algorithm + " |")
		for _, use := range Uses() {
			b.WriteString(" " + r.mark(use) + " |")
		}
		until := "no end named"
		if !r.Until.IsZero() {
			until = day(r.Until)
		}
		b.WriteString(" " + until + " | " + r.Clause + " | " + r.Reason + " |\n")
	}
	return b.String()
}

// mark is a cell of the table.
func (r Row) mark(use Use) string {
	for _, u := range r.Uses {
		switch {
		case u == use && r.Legacy:
			return "legacy"
		case u == use:
			return "yes"
		}
	}
	return "no"
}
