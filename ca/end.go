package ca

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/policy"
)

// clauseEnd is EN 319 411-1's on certificates that would outlive their CA's.
const clauseEnd = "EN 319 411-1 GEN-6.3.3-05"

// errEnded means that the CA certificate is no longer valid: the CA signs nothing any more.
var errEnded = errors.New("the CA certificate has ended")

// leastShare is the part of its profile's validity that a subscriber's certificate must have left when it is cut where the CA
// ends. Below it the subscriber would pay and be proofed for a certificate that is over almost at once.
const leastShare = 10

// cut ends a certificate of profile p, wanted from notBefore to notAfter, where the CA certificate does. A subscriber's that
// would keep less than a tenth of its profile's validity is refused; what the ceremony orders is its script's affair.
func (i *Issuer) cut(p *policy.Profile, notBefore, notAfter time.Time) (time.Time, error) {
	if i.config.Certificate == nil || !notAfter.After(i.config.Certificate.NotAfter) {
		return notAfter, nil
	}
	end := i.config.Certificate.NotAfter
	if least := p.Validity() / leastShare; p.TakesSubject() && end.Sub(notBefore) < least {
		return end, policy.Violations{{Clause: clauseEnd, Detail: fmt.Sprintf(
			"the CA certificate ends at %s, which leaves the certificate %s of the %s of profile %s, less than a tenth, the least that this CA gives: issue from a new one (docs/ca.md, The end of a CA)",
			end.UTC().Format(time.RFC3339), days(end.Sub(notBefore)), days(p.Validity()), p.Name())}}
	}
	return end, nil
}

// ended turns errEnded into what policy says of it; other errors stay as they are.
func (i *Issuer) ended(err error) error {
	if !errors.Is(err, errEnded) {
		return err
	}
	return policy.Violations{{Clause: clauseEnd, Detail: fmt.Sprintf(
		"the CA certificate ended at %s, and no certificate outlives it: issue from a new CA (docs/ca.md, The end of a CA)",
		i.config.Certificate.NotAfter.UTC().Format(time.RFC3339))}}
}

// endWarning says at now that the end of the CA shortens what is issued, or refuses it; "" while it does neither.
func (i *Issuer) endWarning(now time.Time) string {
	end := i.config.Certificate.NotAfter
	left := end.Sub(now)
	text := fmt.Sprintf("the CA certificate ends at %s: ", end.UTC().Format(time.RFC3339))
	switch {
	case i.longest == 0 || left >= i.longest:
		return ""
	case left < 0:
		return text + "nothing is signed any more: issue from a new CA"
	case left < i.longest/leastShare:
		return text + "certificates of the longest profile are refused by now: issue from a new CA"
	}
	return text + fmt.Sprintf("certificates end with it, and those of the longest profile are refused from %s on: hold the ceremony of a new issuing CA",
		end.Add(-i.longest/leastShare).UTC().Format(time.DateOnly))
}

// endGauges tell of the end to those who watch.
func (i *Issuer) endGauges() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zegel_ca_" + name, Help: help}, value)
	}
	return []prometheus.Collector{
		gauge("certificate_until_seconds", "Unix time at which the CA certificate ends.", func() float64 {
			return float64(i.config.Certificate.NotAfter.Unix())
		}),
		gauge("warnings", "How many warnings /health shows of the CA's own end.", func() float64 {
			if i.endWarning(i.roughly()) == "" {
				return 0
			}
			return 1
		}),
	}
}

// longestValidity is that of the profile of subscribers that lasts longest.
func longestValidity() (time.Duration, error) {
	profiles, err := subscriberProfiles()
	if err != nil {
		return 0, err
	}
	var longest time.Duration
	for _, p := range profiles {
		longest = max(longest, p.Validity())
	}
	return longest, nil
}

// days writes a duration for people.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}
