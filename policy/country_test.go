package policy

import (
	"strings"
	"testing"

	"golang.org/x/text/language"
)

// TestCountriesAgreeWithCLDR puts our table beside another one: what CLDR calls a country
// and ISO does not assign is named here, code by code.
func TestCountriesAgreeWithCLDR(t *testing.T) {
	// Exceptionally reserved, users' own, or withdrawn: known to CLDR, not assigned by ISO 3166-1.
	notAssigned := " AC AN CP CQ CS DG EA EZ FQ IC NT PC SU TA UN XK YU ZZ "
	count := 0
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			code := string(a) + string(b)
			region, err := language.ParseRegion(code)
			known := err == nil && region.IsCountry() && region.String() == code && region.Canonicalize() == region
			if isListed(notAssigned, code) {
				known = false
			}
			if isCountry(code) {
				count++
			}
			if known != isCountry(code) {
				t.Errorf("%s: CLDR says %t, our table %t", code, known, isCountry(code))
			}
		}
	}
	if count != 249 {
		t.Errorf("%d countries, ISO 3166-1 assigns 249", count)
	}
}

func TestCountryRefusals(t *testing.T) {
	for _, code := range []string{"", "N", "nl", "Nl", "NLD", "UK", "EL", "EU", "XX", "XG", " NL", "L ", "AD AE", "Ä"} {
		if isCountry(code) {
			t.Errorf("%q was taken for a country", code)
		}
	}
	for code, hint := range map[string]string{"nl": "NL", "UK": "GB", "EL": "GR"} {
		if got := nearCountry(code); !strings.Contains(got, hint) {
			t.Errorf("nearCountry(%q) = %q, without %s", code, got, hint)
		}
	}
}
