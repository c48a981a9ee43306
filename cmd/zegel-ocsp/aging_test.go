package main

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
	"github.com/zegel-tsp/zegel/internal/daemon"
)

// What will have to be done about the key's device and algorithm is in the daemon's health, and counted.
func TestAging(t *testing.T) {
	token := hsmtest.SoftHSM(t)
	for name, c := range map[string]struct {
		assurance, ends string
		certificate     *x509.Certificate
		want            []string
	}{
		"test, nothing known":      {daemon.AssuranceTest, "", &x509.Certificate{PublicKey: &ecKey(t).PublicKey}, nil},
		"qualified, nothing known": {daemon.AssuranceQualified, "", &x509.Certificate{PublicKey: &ecKey(t).PublicKey}, []string{"tokens.certifications"}},
		"over":                     {daemon.AssuranceTest, "2020-01-01", &x509.Certificate{PublicKey: &ecKey(t).PublicKey}, []string{"ended on 2020-01-01"}},
		"both":                     {daemon.AssuranceTest, "2020-01-01", &x509.Certificate{PublicKey: "none"}, []string{"ended on 2020-01-01", "none of the table"}},
	} {
		t.Run(name, func(t *testing.T) {
			settings := token.Config
			if c.ends != "" {
				settings.Certifications = []hsm.Certification{{Manufacturer: "SoftHSM project", Model: "SoftHSM v2", Standard: hsm.EUCC, Reference: "TEST-1", Ends: c.ends}}
			}
			tokens := hsm.New(settings)
			defer func() {
				if err := tokens.Close(); err != nil {
					t.Error(err)
				}
			}()
			var conf config
			conf.Assurance, conf.Responder.Key = c.assurance, token.URI("ocsp")
			registry := prometheus.NewRegistry()
			health, err := conf.aging(daemon.Env{Registry: registry}, tokens, c.certificate)
			if err != nil {
				t.Fatal(err)
			}
			facts, err := health()
			warnings, _ := facts["warnings"].([]string)
			if err != nil || len(warnings) != len(c.want) {
				t.Fatalf("%q, %v, want %q", warnings, err, c.want)
			}
			for i, want := range c.want {
				if !strings.Contains(warnings[i], want) {
					t.Errorf("%q, want %q", warnings[i], want)
				}
			}
			families, err := registry.Gather()
			if err != nil || len(families) != 1 || families[0].GetName() != "zegel_ocsp_key_warnings" || families[0].Metric[0].GetGauge().GetValue() != float64(len(c.want)) {
				t.Errorf("metrics %v, %v", families, err)
			}
		})
	}
}
