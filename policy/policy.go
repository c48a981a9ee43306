// Package policy decides what may be signed and writes the bytes to be signed: same input, same
// answer; no clock, no files (go:embed only), no keys, no network.
//
// A Profile, read once from strict YAML and found consistent, turns a Request into a TBSCertificate
// (RFC 5280 §4.1). Draft gives those bytes a placeholder signature, and Check and Lint judge the
// draft: Check with our own rules, each of which names the clause it comes from, Lint with zlint. The
// rules read the finished bytes and share no code with the builder. Nothing here keeps state: every
// function may be called from any number of goroutines.
package policy

import (
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// Request is everything that decides the bytes besides profile and issuer.
type Request struct {
	Subject   *Subject
	PublicKey []byte    // SubjectPublicKeyInfo, DER exactly as in the CSR
	Serial    []byte    // content octets of the INTEGER, positive, minimal, 1..20
	NotBefore time.Time // cut to whole seconds
	NotAfter  time.Time // cut to whole seconds; the last second of validity
}

// Issuer is the CA that will sign: taken from its certificate. For a self-signed profile (root-ca) Name is nil: the subject is the issuer.
type Issuer struct {
	Name                []byte        // DER of the subject Name of the CA certificate, byte for byte
	KeyID               []byte        // subjectKeyIdentifier of the CA certificate
	PublicKey           any           // the CA's crypto.PublicKey: sizes the placeholder signature
	Algorithm           der.Algorithm // what the CA will sign with
	NotBefore, NotAfter time.Time     // validity of the CA certificate (411-1 GEN-6.3.3-05)
	URLs                URLs
}

// URLs go into the certificates an issuer signs. http:// (412-2 GEN-4.3.11-4, GEN-4.4.1).
type URLs struct {
	CRL       string // cRLDistributionPoints of certificates this issuer signs
	OCSP      string // id-ad-ocsp
	CAIssuers string // id-ad-caIssuers: this issuer's certificate, DER
	PDS       []PDS  // QcPDS, https://
}

// PDS is one PKI disclosure statement: language ISO 639-1, lower case.
type PDS struct{ URL, Language string }
