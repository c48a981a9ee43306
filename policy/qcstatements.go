package policy

import (
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// id-etsi-qcs and its statements: EN 319 412-5 §4.2, §4.3.
var (
	arcETSIQCS           = asn1.ObjectIdentifier{0, 4, 0, 1862, 1}
	oidQcCompliance      = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 1}
	oidQcLimitValue      = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 2}
	oidQcRetentionPeriod = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 3}
	oidQcSSCD            = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 4}
	oidQcPDS             = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 5}
	oidQcType            = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 6}
	oidQcCClegislation   = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 7}
	oidQcIdentMethod     = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 8}
	oidQcQSCDlegislation = asn1.ObjectIdentifier{0, 4, 0, 1862, 1, 9}

	oidPKIXQCSyntaxV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 11, 2} // RFC 3739 §3.2.6.1
)

// qcTypes are the values of QcType: EN 319 412-5 §4.2.3.
var qcTypes = map[string]asn1.ObjectIdentifier{
	"esign": {0, 4, 0, 1862, 1, 6, 1},
	"eseal": {0, 4, 0, 1862, 1, 6, 2},
	"web":   {0, 4, 0, 1862, 1, 6, 3},
}

// semanticsIdentifiers say what the identifiers in the subject DN mean: EN 319 412-1 §5.1.
var semanticsIdentifiers = map[string]asn1.ObjectIdentifier{
	"natural": {0, 4, 0, 194121, 1, 1},
	"legal":   {0, 4, 0, 194121, 1, 2},
}

// statement is QCStatement ::= SEQUENCE { statementId OBJECT IDENTIFIER, statementInfo ANY OPTIONAL }.
// info writes statementInfo; nil leaves it out, which is not the same as NULL (EN 319 412-5 §4.2.1).
type statement struct {
	id   asn1.ObjectIdentifier
	info func(*cryptobyte.Builder)
}

func (s statement) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(s.id)
		if s.info != nil {
			s.info(b)
		}
	})
}

func qcCompliance() statement { return statement{id: oidQcCompliance} }

func qcSSCD() statement { return statement{id: oidQcSSCD} }

// qcType writes QcType ::= SEQUENCE SIZE(1) OF OBJECT IDENTIFIER.
func qcType(name string) statement {
	return statement{oidQcType, sequenceOfOID(qcTypes[name])}
}

// qcIdentMethod writes QcIdentMethod ::= SEQUENCE SIZE(1) OF OBJECT IDENTIFIER.
func qcIdentMethod(method asn1.ObjectIdentifier) statement {
	return statement{oidQcIdentMethod, sequenceOfOID(method)}
}

// qcPDS writes QcPDS ::= SEQUENCE SIZE (1..MAX) OF PdsLocation,
// PdsLocation ::= SEQUENCE { url IA5String, language PrintableString (SIZE(2)) }.
func qcPDS(list []PDS) statement {
	return statement{oidQcPDS, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, pds := range list {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					addString(b, cbasn1.IA5String, pds.URL)
					addString(b, cbasn1.PrintableString, pds.Language)
				})
			}
		})
	}}
}

// qcRetentionPeriod writes INTEGER: years after the end of validity that the registration data is kept.
func qcRetentionPeriod(years int) statement {
	return statement{oidQcRetentionPeriod, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(years)) }}
}

// qcLimitValue writes MonetaryValue ::= SEQUENCE { currency Iso4217CurrencyCode, amount INTEGER, exponent INTEGER },
// the currency in its alphabetic form (EN 319 412-5 QCS-4.3.2-02).
func qcLimitValue(v limitValue) statement {
	return statement{oidQcLimitValue, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addString(b, cbasn1.PrintableString, v.Currency)
			b.AddASN1BigInt(big.NewInt(v.Amount))
			b.AddASN1BigInt(big.NewInt(v.Exponent))
		})
	}}
}

// qcSemantics writes SemanticsInformation ::= SEQUENCE { semanticsIdentifier OBJECT IDENTIFIER OPTIONAL, ... }.
func qcSemantics(name string) statement {
	return statement{oidPKIXQCSyntaxV2, sequenceOfOID(semanticsIdentifiers[name])}
}

// sequenceOfOID writes a SEQUENCE that holds one object identifier.
func sequenceOfOID(id asn1.ObjectIdentifier) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(id) })
	}
}

func addString(b *cryptobyte.Builder, tag cbasn1.Tag, s string) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

// statements are the QCStatements of a certificate: 412-5's own in the order of their numbers' use
// there, the semantics statement last.
func (q qcProfile) statements(r Request, urls URLs) []statement {
	var list []statement
	if q.compliance {
		list = append(list, qcCompliance())
	}
	if q.qcType != "" {
		list = append(list, qcType(q.qcType))
	}
	if q.sscd {
		list = append(list, qcSSCD())
	}
	if q.limit != nil {
		list = append(list, qcLimitValue(*q.limit))
	}
	if q.retention != 0 {
		list = append(list, qcRetentionPeriod(q.retention))
	}
	if q.pds != absent && len(urls.PDS) > 0 {
		list = append(list, qcPDS(urls.PDS))
	}
	if method, ok := identMethod(r.Subject); ok && q.ident != absent {
		list = append(list, qcIdentMethod(method))
	}
	for _, name := range q.semanticsOf(r.Subject) {
		list = append(list, qcSemantics(name))
	}
	return list
}

// semanticsOf are the profile's, and for a natural person with organizationIdentifier the legal ones after them: a
// certificate may have several (EN 319 412-2 NAT-4.2.4-7, -14), and without them that attribute has no defined meaning
// (EN 319 412-1 §5.1.1). They are two statements, since SemanticsInformation holds one identifier (RFC 3739 §3.2.6.1);
// QCS-4.1-02A, which forbids a statement twice, speaks of those that EN 319 412-5 defines.
func (q qcProfile) semanticsOf(s *Subject) []string {
	natural := slices.Contains(q.semantics, "natural") && !slices.Contains(q.semantics, "legal")
	if natural && len(s.values("organizationIdentifier")) > 0 {
		return append(slices.Clone(q.semantics), "legal")
	}
	return q.semantics
}

// identMethod is what QcIdentMethod would say of the subject's registration.
func identMethod(s *Subject) (der.OID, bool) {
	if s == nil || s.Registration == nil {
		return nil, false
	}
	return s.Registration.QcIdentMethod()
}

// pdsViolations are the faults of the PDS list an issuer brings (EN 319 412-5 QCS-4.3.4-01..-03).
func pdsViolations(list []PDS) Violations {
	var v Violations
	seen := make(map[string]bool)
	for _, pds := range list {
		switch {
		case !isLanguage(pds.Language):
			v.add("EN 319 412-5 QCS-4.3.4-02", "QcPDS language %q: two lower-case letters of ISO 639-1 are wanted", pds.Language)
		case seen[pds.Language]:
			v.add("EN 319 412-5 QCS-4.3.4-03", "QcPDS has more than one statement in language %q", pds.Language)
		}
		seen[pds.Language] = true
		if err := checkURL(pds.URL, "https"); err != nil {
			v.add("EN 319 412-5 QCS-4.3.4-01", "QcPDS: %v", err)
		}
	}
	if !seen["en"] {
		v.add("EN 319 412-5 QCS-4.3.4-03", "QcPDS has no statement in English (language en)")
	}
	return v
}

func isLanguage(s string) bool {
	return len(s) == 2 && s[0] >= 'a' && s[0] <= 'z' && s[1] >= 'a' && s[1] <= 'z'
}

// checkURL accepts an absolute URL of ASCII characters with one of the schemes and a host.
func checkURL(s string, schemes ...string) error {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || rest == "" || strings.HasPrefix(rest, "/") {
		return fmt.Errorf("%q is no absolute URL", s)
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f {
			return fmt.Errorf("%q: an IA5String URL has visible ASCII characters only: percent-encode the others", s)
		}
	}
	for _, want := range schemes {
		if scheme == want {
			return nil
		}
	}
	return fmt.Errorf("%q does not start with %s://", s, strings.Join(schemes, ":// or "))
}
