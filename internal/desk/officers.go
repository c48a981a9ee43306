package desk

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Officer is one person who may call an admin listener, as every configuration lists them.
type Officer struct {
	// 32 hex digits, not all zero: all that the journal and the log ever hold of the person. Required.
	ID string `yaml:"id"`
	// For whoever reads this file. Optional.
	Name string `yaml:"name"`
	// SHA-256 of the DER of the officer's client certificate, 64 hex digits. Required.
	Certificate string `yaml:"certificate_sha256"`
	// One or more of registration_officer, revocation_officer, system_auditor, security_officer, system_operator,
	// system_administrator (EN 319 401 REQ-7.2-14). Under assurance: qualified a system_auditor has no other role, and a
	// security_officer neither operates nor administers (REQ-7.2-13). Required.
	Roles []string `yaml:"roles"`
}

// The trusted roles of EN 319 401 REQ-7.2-14 and EN 319 411-1 OVR-6.4.4-02.
const (
	RegistrationOfficer = "registration_officer"
	RevocationOfficer   = "revocation_officer"
	SystemAuditor       = "system_auditor"
	SecurityOfficer     = "security_officer"
	SystemOperator      = "system_operator"
	SystemAdministrator = "system_administrator"
)

// Roles are all roles an officer may have.
func Roles() []string {
	return []string{RegistrationOfficer, RevocationOfficer, SystemAuditor, SecurityOfficer, SystemOperator, SystemAdministrator}
}

// Has reports whether the officer has one of roles.
func (o Officer) Has(roles ...string) bool {
	return slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(o.Roles, role) })
}

// Actor is the officer's opaque id in binary, as the journal has it.
func (o Officer) Actor() ([16]byte, error) {
	var actor [16]byte
	b, err := hex.DecodeString(o.ID)
	if err != nil || len(b) != len(actor) {
		return actor, fmt.Errorf("officer id %q: 32 hex digits are needed", o.ID)
	}
	copy(actor[:], b)
	if actor == ([16]byte{}) {
		return actor, errors.New("officer id: all zero names nobody")
	}
	return actor, nil
}

// Errors of OfficerOf that callers branch on.
var (
	ErrNoCertificate = errors.New("no client certificate")
	ErrNotAnOfficer  = errors.New("the client certificate belongs to no officer of this configuration")
)

// OfficerOf is the officer among officers whose client certificate r came with. The listener has verified the
// certificate against its client_ca; without one the error is ErrNoCertificate, with a strange one it wraps ErrNotAnOfficer.
func OfficerOf(r *http.Request, officers []Officer) (Officer, error) {
	digest, err := ClientDigest(r)
	if err != nil {
		return Officer{}, err
	}
	for _, o := range officers {
		if strings.EqualFold(o.Certificate, digest) {
			return o, nil
		}
	}
	return Officer{}, fmt.Errorf("%w: its SHA-256 is %s", ErrNotAnOfficer, digest)
}

// ClientDigest is the SHA-256 of the DER of the client certificate r came with, in lower-case hex, or
// ErrNoCertificate. Only a certificate that TLS has verified counts.
func ClientDigest(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return "", ErrNoCertificate
	}
	digest := sha256.Sum256(r.TLS.VerifiedChains[0][0].Raw)
	return hex.EncodeToString(digest[:]), nil
}

// ValidateOfficers judges the officers of a configuration: ids, digests, known roles, nobody twice; and with
// separate, as a qualified provider has to, the separation of duties of EN 319 401 REQ-7.2-13: a system auditor
// has no other role, a security officer is neither system administrator nor system operator. key is where the
// fault stands: officers[2].roles.
func ValidateOfficers(officers []Officer, separate bool) (key string, err error) {
	seen := make(map[string]string)
	for i, o := range officers {
		officer := fmt.Sprintf("officers[%d]", i)
		if key, err := o.validate(separate); err != nil {
			return officer + "." + key, err
		}
		for _, unique := range []string{strings.ToLower(o.ID), strings.ToLower(o.Certificate)} {
			if before, twice := seen[unique]; twice {
				return officer, fmt.Errorf("%s is that of %s already", unique, before)
			}
			seen[unique] = officer
		}
	}
	return "", nil
}

func (o Officer) validate(separate bool) (key string, err error) {
	if _, err := o.Actor(); err != nil {
		return "id", err
	}
	if b, err := hex.DecodeString(o.Certificate); err != nil || len(b) != sha256.Size {
		return "certificate_sha256", errors.New("64 hex digits are needed: the SHA-256 of the client certificate's DER")
	}
	return ValidateRoles(o.Roles, separate)
}

// ValidateRoles judges the roles of one officer as ValidateOfficers does. key is roles, or roles[1].
func ValidateRoles(roles []string, separate bool) (key string, err error) {
	if len(roles) == 0 {
		return "roles", fmt.Errorf("no role: name one or more of %s", strings.Join(Roles(), ", "))
	}
	for i, role := range roles {
		if !slices.Contains(Roles(), role) {
			return fmt.Sprintf("roles[%d]", i), fmt.Errorf("%q is no role: %s", role, strings.Join(Roles(), ", "))
		}
	}
	o := Officer{Roles: roles}
	switch {
	case separate && o.Has(SystemAuditor) && len(roles) > 1:
		return "roles", errors.New("a system_auditor may have no other role (EN 319 401 REQ-7.2-13)")
	case separate && o.Has(SecurityOfficer) && o.Has(SystemAdministrator, SystemOperator):
		return "roles", errors.New("a security_officer may not be system_administrator or system_operator (EN 319 401 REQ-7.2-13)")
	}
	return "", nil
}
