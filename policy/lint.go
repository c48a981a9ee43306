package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/etsi" // registers the lints of ETSI_ESI
	_ "github.com/zmap/zlint/v3/lints/rfc"  // registers the lints of RFC5280 and RFC5480
)

// liftedLints hold names to bounds that our profiles lift: the size of commonName, organizationName,
// organizationalUnitName, givenName and surname may exceed RFC 5280's (EN 319 412-2 NAT-4.2.4-18, EN 319 412-3
// LEG-4.2.1-9), and a registered name must be there in full (LEG-4.2.1-5). Check judges the length of every name, with
// the bounds of RFC 5280 where they still hold: in the names of CAs and in all other attributes.
var liftedLints = []string{
	"e_subject_common_name_max_length",
	"e_subject_organization_name_max_length",
	"e_subject_organizational_unit_name_max_length",
	"w_subject_given_name_recommended_max_length",
	"w_subject_surname_recommended_max_length",
}

// zlintLints are the lints of the sources that judge our certificates: RFC5280, RFC5480 and ETSI_ESI. The others judge
// by the rules of TLS and S/MIME and cost twenty times as much; liftedLints are left out. Made once, at first use, because zlint's registry
// is filled by its packages' init functions; sorted by name, so that findings come in one order.
var zlintLints = sync.OnceValues(func() ([]*lint.CertificateLint, error) {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480, lint.EtsiEsi},
		ExcludeNames:   liftedLints,
	})
	if err != nil {
		return nil, fmt.Errorf("select lints: %w", err)
	}
	list := slices.Clone(registry.CertificateLints().Lints())
	slices.SortFunc(list, func(a, b *lint.CertificateLint) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
})

// Lint runs zlint v3 (RFC5280, RFC5480, ETSI_ESI, without the bounds on names that our profiles lift) over a certificate or draft. An error or a warning is a Violation;
// what zlint cannot read is a plain error. The first call costs some milliseconds more than the others.
func Lint(certificate []byte) error {
	lints, err := zlintLints()
	if err != nil {
		return fmt.Errorf("lint certificate: %w", err)
	}
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("lint certificate: %w", err)
	}
	var v Violations
	config := lint.NewEmptyConfig()
	for _, l := range lints {
		if result := l.Execute(parsed, config); result.Status > lint.Notice {
			v.add(l.Citation, "zlint %s: %s", l.Name, strings.TrimSpace(l.Description+" "+result.Details))
		}
	}
	return v.err()
}
