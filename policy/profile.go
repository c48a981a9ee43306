package policy

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/strictyaml"
)

// Profile is a certificate profile that ParseProfile has found complete and consistent. Immutable, safe for
// concurrent use.
type Profile struct {
	name, description string
	text              []byte
	version           int

	subject              subjectKind
	selfSigned           bool
	validity             time.Duration
	registration, device bool
	identifiers          identifierTypes

	keyUsage    keyUsageType
	policies    []der.OID
	altName     presence
	ca          bool
	pathLength  int // pathLenConstraint, or -1 for none
	purposes    []der.OID
	ekuCritical bool

	crl, caIssuers, ocsp presence
	noCheck              bool
	keyLife              time.Duration // privateKeyUsagePeriod from notBefore, or 0 for none

	qc qcProfile // its zero value: no QCStatements
}

// qcProfile is what a profile says of the qcStatements extension.
type qcProfile struct {
	present    bool
	compliance bool
	qcType     string // a key of qcTypes, or ""
	sscd       bool
	pds        presence
	semantics  []string // keys of semanticsIdentifiers
	limit      *limitValue
	retention  int      // years, or 0 for none
	ident      presence // QcIdentMethod, from the request's registration
}

//go:embed profiles/*.yaml
var builtin embed.FS

// builtinNames is the order of the documentation: the provider's own, then the subscribers'.
var builtinNames = []string{"root-ca", "issuing-ca", "ocsp-responder", "tsu", "qcp-n", "qcp-n-qscd", "qcp-l", "qcp-l-qscd"}

// Builtins are the names of the built-in profiles, in the order of the documentation.
func Builtins() []string { return slices.Clone(builtinNames) }

// Builtin returns a built-in profile. An unknown name is an error that lists the names and the nearest one.
func Builtin(name string) (*Profile, error) {
	if !slices.Contains(builtinNames, name) {
		hint := ""
		if near, ok := strictyaml.Nearest(name, builtinNames); ok {
			hint = fmt.Sprintf("did you mean %q? ", near)
		}
		return nil, fmt.Errorf("find profile %q: unknown; %sthe profiles are %s", name, hint, strings.Join(builtinNames, ", "))
	}
	file := "profiles/" + name + ".yaml"
	text, err := builtin.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("find profile %q: %w", name, err)
	}
	return ParseProfile(file, text)
}

// ParseProfile reads a profile (strict YAML). name is what errors call the file; without its folder and
// ending it is the profile's name. Every key must be there, and one that contradicts another is refused: what
// cannot be read is an error with file and line, what the standards forbid is Violations.
func ParseProfile(name string, text []byte) (*Profile, error) {
	var t profileText
	if err := strictyaml.Decode(name, text, &t); err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if missing := missingKeys(&t, ""); len(missing) > 0 {
		return nil, fmt.Errorf("read profile: %s:1: missing %s: a profile writes out every key", name, strings.Join(missing, ", "))
	}
	if err := t.checkValues(); err != nil {
		return nil, fmt.Errorf("read profile: %s: %w", name, err)
	}
	p := t.profile(strings.TrimSuffix(path.Base(name), path.Ext(name)), text)
	if v := append(t.forbidden(), p.contradictions()...); len(v) > 0 {
		return nil, fmt.Errorf("read profile: %s: %w", name, v)
	}
	return p, nil
}

// Name is the profile's name: "qcp-n-qscd".
func (p *Profile) Name() string { return p.name }

// Description is one line for `profile list`.
func (p *Profile) Description() string { return p.description }

// Version counts the changes of the profile, from 1.
func (p *Profile) Version() int { return p.version }

// Text is the YAML the profile was read from, for `profile show`. The caller may change it.
func (p *Profile) Text() []byte { return slices.Clone(p.text) }

// Validity is the default validity, notBefore to notAfter; a Request never exceeds it.
func (p *Profile) Validity() time.Duration { return p.validity }

// SelfSigned reports whether the certificate is signed by its own key: root-ca.
func (p *Profile) SelfSigned() bool { return p.selfSigned }

// CA reports whether basicConstraints says cA TRUE.
func (p *Profile) CA() bool { return p.ca }

// SubjectKind is whom the subject DN names: natural, legal, ca, tsu or ocsp.
func (p *Profile) SubjectKind() string { return string(p.subject) }

// TakesSubject reports whether officers may issue it from a subject file (the end-entity subscriber profiles);
// the ceremony's profiles (root-ca issuing-ca ocsp-responder tsu) are issued by zegel-ceremony only.
func (p *Profile) TakesSubject() bool {
	return p.subject == naturalSubject || p.subject == legalSubject
}

// NeedsRegistration reports whether a request must bring the evidence of identity proofing (CIR (EU) 2025/1566).
func (p *Profile) NeedsRegistration() bool { return p.registration }

// NeedsDevice reports whether a request must name the QSCD the key lives in (EN 319 411-2 SDP-6.5.1-02).
func (p *Profile) NeedsDevice() bool { return p.device }

// Qualified reports whether the certificate claims to be an EU qualified certificate (QcCompliance).
func (p *Profile) Qualified() bool { return p.qc.compliance }

// PrivateKeyUsage is how long from notBefore the key may sign (privateKeyUsagePeriod), or 0 for no such limit.
func (p *Profile) PrivateKeyUsage() time.Duration { return p.keyLife }
