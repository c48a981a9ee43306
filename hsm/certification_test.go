package hsm_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// The first certification that fits a device counts, and its last day counts to its end.
func TestCertification(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	facts := devices(t, token.Config, token.URI("x"))[0]
	mine := hsm.Certification{Manufacturer: facts.Manufacturer, Model: facts.Model, Standard: hsm.CommonCriteria, Reference: "TEST-1", Ends: "2029-06-30"}
	with := func(change func(*hsm.Certification)) hsm.Certification {
		c := mine
		change(&c)
		return c
	}
	end := time.Date(2029, time.June, 30, 23, 59, 59, 0, time.UTC)
	for name, c := range map[string]struct {
		list        []hsm.Certification
		want, until string
		at          time.Time
		warning     string // required
		holds       bool
	}{
		"none":                       {nil, "", "", end, "enter it under tokens.certifications", false},
		"another manufacturer":       {[]hsm.Certification{with(func(c *hsm.Certification) { c.Manufacturer = "TEST" })}, "", "", end, "enter it under", false},
		"another model":              {[]hsm.Certification{with(func(c *hsm.Certification) { c.Model = "TEST" })}, "", "", end, "enter it under", false},
		"another firmware":           {[]hsm.Certification{with(func(c *hsm.Certification) { c.Firmware = "99.9" })}, "", "", end, "enter it under", false},
		"this firmware, then any":    {[]hsm.Certification{with(func(c *hsm.Certification) { c.Firmware, c.Reference = facts.Firmware, "TEST-2" }), mine}, "cc TEST-2", "2029-06-30", end.AddDate(-3, 0, 0), "", true},
		"two years before":           {[]hsm.Certification{mine}, "cc TEST-1", "2029-06-30", end.AddDate(-2, 0, 1), "ends on 2029-06-30", true},
		"its last second":            {[]hsm.Certification{mine}, "cc TEST-1", "2029-06-30", end, "ends on 2029-06-30", true},
		"a second later":             {[]hsm.Certification{mine}, "cc TEST-1", "2029-06-30", end.Add(time.Second), "ended on 2029-06-30", false},
		"without an end":             {[]hsm.Certification{with(func(c *hsm.Certification) { c.Ends = "" })}, "cc TEST-1", "", end.AddDate(50, 0, 0), "", true},
		"an end that is no day":      {[]hsm.Certification{with(func(c *hsm.Certification) { c.Ends = "soon" })}, "cc TEST-1", "soon", end, "is no day", false},
		"FIPS beyond 2030":           {[]hsm.Certification{with(func(c *hsm.Certification) { c.Standard, c.Ends = hsm.FIPS140, "2032-01-01" })}, "fips140-3 TEST-1", "2030-12-31", end, "ends on 2030-12-31", true},
		"FIPS without an end":        {[]hsm.Certification{with(func(c *hsm.Certification) { c.Standard, c.Ends = hsm.FIPS140, "" })}, "fips140-3 TEST-1", "2030-12-31", end.AddDate(3, 0, 0), "ended on 2030-12-31", false},
		"FIPS that ends before 2030": {[]hsm.Certification{with(func(c *hsm.Certification) { c.Standard = hsm.FIPS140 })}, "fips140-3 TEST-1", "2029-06-30", end, "ends on 2029-06-30", true},
	} {
		config := token.Config
		config.Certifications = c.list
		list := devices(t, config, token.URI("x"), token.URI("y")+" "+token.URI("z"), "softtoken:object=x?dir=/keys&pin-source=file:/pin")
		if len(list) != 2 || !list[1].Software {
			t.Fatalf("%s: devices %+v", name, list)
		}
		got := list[0]
		if got.Certification != c.want || got.CertifiedUntil != c.until || got.CertifiedAt(c.at) != c.holds {
			t.Errorf("%s: %q until %q, holds %v; want %q, %q, %v", name, got.Certification, got.CertifiedUntil, got.CertifiedAt(c.at), c.want, c.until, c.holds)
		}
		warnings := hsm.CertificationWarnings(list, c.at, true)
		if said := strings.Join(warnings, ";"); (said == "") != (c.warning == "") || !strings.Contains(said, c.warning) || said != "" && !strings.Contains(said, got.SerialNumber) {
			t.Errorf("%s: warnings %q, want %q", name, said, c.warning)
		}
		if free := got.CertificationWarning(c.at, false); c.want == "" && free != "" {
			t.Errorf("%s: not required, and warned of: %q", name, free)
		}
	}
}

func devices(t *testing.T, c hsm.Config, uris ...string) []hsm.TokenInfo {
	t.Helper()
	tokens := hsm.New(c)
	list, err := tokens.Devices(uris...)
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.Close(); err != nil {
		t.Fatal(err)
	}
	return list
}

// Key report and key list tell the same of a key: its id, how the token made it, and the device's certification.
func TestInventoryIsOne(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	facts := devices(t, token.Config, token.URI("x"))[0]
	config := token.Config
	config.Certifications = []hsm.Certification{{Manufacturer: facts.Manufacturer, Model: facts.Model, Standard: hsm.EUCC, Reference: "TEST-1", Ends: "2029-06-30"}}
	tokens := hsm.New(config)
	defer func() {
		if err := tokens.Close(); err != nil {
			t.Error(err)
		}
	}()
	for algorithm, origin := range map[hsm.KeyAlgorithm]string{hsm.P256: "CKM_EC_KEY_PAIR_GEN", hsm.RSA3072: "CKM_RSA_PKCS_KEY_PAIR_GEN", hsm.Ed25519: "CKM_EC_EDWARDS_KEY_PAIR_GEN"} {
		key, err := tokens.Generate(token.URI(string(algorithm)), algorithm)
		if err != nil {
			t.Fatal(err)
		}
		info, err := key.Info()
		if err != nil {
			t.Fatal(err)
		}
		list, err := tokens.Keys(token.URI(string(algorithm)))
		if err != nil || len(list) != 1 {
			t.Fatalf("%v: %v", list, err)
		}
		if info.Origin != origin || len(info.ID) != 32 || info.Certification != "eucc TEST-1" || info.CertifiedUntil != "2029-06-30" {
			t.Errorf("%s: %+v", algorithm, info)
		}
		list[0].URI = info.URI // the list's has the id, which the report's had no need of
		if !reflect.DeepEqual(list[0].KeyInfo, info) {
			t.Errorf("%s: the list says\n%+v\nthe report\n%+v", algorithm, list[0].KeyInfo, info)
		}
	}
}
