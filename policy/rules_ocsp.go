package policy

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
)

// rulesOCSP are the rules of RFC 6960 and EN 319 411-1 on the certificates of OCSP responders.
var rulesOCSP = []rule{
	{"responder_ext_key_usage", "RFC 6960 §4.2.2.2", isOCSP, responderExtKeyUsage},
	{"responder_without_nocheck", "EN 319 411-1 CSS-6.6.3-01A", isOCSP, extensionMissing(oidOCSPNoCheck, "id-pkix-ocsp-nocheck")},
	{"responder_with_ocsp", "EN 319 411-1 CSS-6.6.3-01B", isOCSP, responderWithOCSP},
	{"nocheck_malformed", "RFC 6960 §4.2.2.2.1", isOCSP, nocheckMalformed},
	{"nocheck_elsewhere", "RFC 6960 §4.2.2.2.1", isNotOCSP, extensionForbidden(oidOCSPNoCheck, "id-pkix-ocsp-nocheck")},
}

func responderExtKeyUsage(c *certificate, _ *Profile) string {
	e, _ := c.find(oidExtKeyUsage)
	if hex.EncodeToString(e.Value) != "300a06082b06010505070309" {
		return "extKeyUsage is not OCSPSigning alone"
	}
	return ""
}

func responderWithOCSP(c *certificate, _ *Profile) string {
	if names, _ := c.locations(oidAccessOCSP); len(names) > 0 {
		return "authorityInfoAccess sends to an OCSP responder"
	}
	return ""
}

func nocheckMalformed(c *certificate, _ *Profile) string {
	if e, there := c.find(oidOCSPNoCheck); there && (e.Critical || !bytes.Equal(e.Value, asn1.NullBytes)) {
		return "id-pkix-ocsp-nocheck is critical or not NULL"
	}
	return ""
}
