package policy

import (
	"encoding/hex"
	"fmt"
	"slices"
)

// rulesTSU are the rules of RFC 3161, EN 319 421 and EN 319 422 on the certificates of time-stamping units.
var rulesTSU = []rule{
	{"tsu_ext_key_usage", "RFC 3161 §2.3", isTSU, tsuExtKeyUsage},
	{"tsu_without_ncp_plus", "EN 319 421 TIS-8.1-01", isTSU, tsuWithoutNCPPlus},
	{"tsu_key_period_missing", "EN 319 422 §6.4", isTSU, extensionMissing(oidPrivateKeyUsagePeriod, "privateKeyUsagePeriod")},
	{"tsu_key_period_critical", "EN 319 412-2 GEN-4.1-2", isTSU, critical(oidPrivateKeyUsagePeriod, "privateKeyUsagePeriod")},
	{"tsu_key_period_too_long", "EN 319 421 TIS-7.6.7-04", isTSU, tsuKeyPeriodTooLong},
	{"key_period_elsewhere", "EN 319 422 §6.4", isNotTSU, extensionForbidden(oidPrivateKeyUsagePeriod, "privateKeyUsagePeriod")},
}

func tsuExtKeyUsage(c *certificate, _ *Profile) string {
	e, there := c.find(oidExtKeyUsage)
	if !there || !e.Critical || hex.EncodeToString(e.Value) != "300a06082b06010505070308" {
		return "extKeyUsage is not timeStamping alone, critical"
	}
	return ""
}

func tsuWithoutNCPPlus(c *certificate, _ *Profile) string {
	e, _ := c.find(oidCertificatePolicies)
	if policies, _ := readPolicies(e.Value); !slices.ContainsFunc(policies, oidNCPPlus.Equal) {
		return fmt.Sprintf("certificatePolicies %v has not NCP+ (%v)", policies, oidNCPPlus)
	}
	return ""
}

func tsuKeyPeriodTooLong(c *certificate, p *Profile) string {
	e, there := c.find(oidPrivateKeyUsagePeriod)
	if !there {
		return ""
	}
	from, to, ok := readKeyPeriod(e.Value)
	if !ok {
		return "privateKeyUsagePeriod cannot be read"
	}
	if from.Before(c.from.time) || !from.Before(to) || !to.Before(c.to.time) {
		return fmt.Sprintf("the key signs from %s to %s: a shorter time within the certificate's is wanted", stamp(from), stamp(to))
	}
	if life := to.Sub(from); life > p.keyLife {
		return fmt.Sprintf("the key signs for %s: profile %s allows %s at most", inDays(life), p.name, inDays(p.keyLife))
	}
	return ""
}
