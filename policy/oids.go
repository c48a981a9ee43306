package policy

import "encoding/asn1"

// Certificate extensions: RFC 5280 §4.2 unless another text is named.
var (
	oidSubjectDirectoryAttributes = asn1.ObjectIdentifier{2, 5, 29, 9}
	oidSubjectKeyIdentifier       = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage                   = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidPrivateKeyUsagePeriod      = asn1.ObjectIdentifier{2, 5, 29, 16} // RFC 3280 §4.2.1.4
	oidSubjectAltName             = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidIssuerAltName              = asn1.ObjectIdentifier{2, 5, 29, 18}
	oidBasicConstraints           = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints            = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidCRLDistributionPoints      = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidCertificatePolicies        = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidPolicyMappings             = asn1.ObjectIdentifier{2, 5, 29, 33}
	oidAuthorityKeyIdentifier     = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidPolicyConstraints          = asn1.ObjectIdentifier{2, 5, 29, 36}
	oidExtKeyUsage                = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidInhibitAnyPolicy           = asn1.ObjectIdentifier{2, 5, 29, 54}
	oidAuthorityInfoAccess        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidQCStatements               = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}     // RFC 3739 §3.2.6
	oidOCSPNoCheck                = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5} // RFC 6960 §4.2.2.2.1
	oidValidityAssured            = asn1.ObjectIdentifier{0, 4, 0, 194121, 2, 1}         // EN 319 412-1 §5.2
)

// Access methods: RFC 5280 §4.2.2.1, RFC 6960 §3.1.
var (
	oidAccessOCSP      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidAccessCAIssuers = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
)

// Certificate policies: EN 319 411-1 §5.3, EN 319 411-2 §5.3, RFC 5280 §4.2.1.4.
var (
	oidAnyPolicy = asn1.ObjectIdentifier{2, 5, 29, 32, 0}
	oidNCPPlus   = asn1.ObjectIdentifier{0, 4, 0, 2042, 1, 2}
	oidQCPn      = asn1.ObjectIdentifier{0, 4, 0, 194112, 1, 0}
	oidQCPl      = asn1.ObjectIdentifier{0, 4, 0, 194112, 1, 1}
	oidQCPnQSCD  = asn1.ObjectIdentifier{0, 4, 0, 194112, 1, 2}
	oidQCPlQSCD  = asn1.ObjectIdentifier{0, 4, 0, 194112, 1, 3}

	arcQualifiedPolicies = asn1.ObjectIdentifier{0, 4, 0, 194112, 1}
)

// Purposes: RFC 5280 §4.2.1.12.
var (
	oidAnyPurpose   = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	oidTimeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	oidOCSPSigning  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}
)

// under reports whether id is a child of arc.
func under(id, arc asn1.ObjectIdentifier) bool {
	return len(id) > len(arc) && id[:len(arc)].Equal(arc)
}
