package hsm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zegel-tsp/zegel/hsm"
)

// gathered are the values of all metrics, by "name{label values}"; of a histogram, its count.
func gathered(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "serial" {
					labels = append(labels, l.GetValue())
				}
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			values[fmt.Sprintf("%s{%s}", strings.TrimPrefix(family.GetName(), "zegel_"), strings.Join(labels, ","))] = value
		}
	}
	return values
}

// What happens to tokens and groups is counted, without their being asked.
func TestMetrics(t *testing.T) {
	first, second, uri := twoTokens(t)
	registry := prometheus.NewPedanticRegistry()
	first.Config.Registerer = registry
	tokens := open(t, first.Config)
	t.Cleanup(func() { first.Break(t); second.Break(t) })
	key := openKey(t, tokens, first.URI("a"))
	for range 3 {
		sign(t, key)
	}
	first.Break(t, fmt.Sprintf("C_SignInit 1 1 answer 0x%x", pkcs11.CKR_SESSION_CLOSED))
	sign(t, key)
	first.Break(t, fmt.Sprintf("C_SignInit 1 1 answer 0x%x", pkcs11.CKR_DEVICE_ERROR))
	sign(t, key)
	group := openKey(t, tokens, uri)
	for want, value := range map[string]float64{
		"token_in_service{zegel test}": 1, "token_distrusted{zegel test}": 0, "token_pin_refused{zegel test}": 0, "token_sessions_busy{zegel test}": 0,
		"token_calls_waiting{zegel test}": 0, "token_signature_seconds{zegel test}": 5, "token_failures_total{session,zegel test}": 1,
		"token_failures_total{device,zegel test}": 1, "token_failures_total{module,zegel test}": 0, "token_repairs_total{session,zegel test}": 1,
		"token_repairs_total{login,zegel test}": 1, "token_in_service{second}": 1, "key_group_members{}": 2, "key_group_members_signing{}": 2,
		"key_group_failovers_total{}": 0,
	} {
		if got, ok := gathered(t, registry)[want]; !ok || got != value {
			t.Errorf("%s is %v (there: %v), want %v", want, got, ok, value)
		}
	}
	first.Break(t, "C_Sign 1 0 wrong")
	for range 20 {
		sign(t, group)
	}
	if err := trySign(t, key); !errors.Is(err, hsm.ErrDistrusted) {
		t.Error(err)
	}
	values := gathered(t, registry)
	for want, value := range map[string]float64{
		"token_in_service{zegel test}": 0, "token_distrusted{zegel test}": 1, "token_in_service{second}": 1, "key_group_members{}": 2, "key_group_members_signing{}": 1,
	} {
		if values[want] != value {
			t.Errorf("%s is %v, want %v", want, values[want], value)
		}
	}
	if values["token_failures_total{wrong_answer,zegel test}"] < 1 || values["key_group_failovers_total{}"] < 1 {
		t.Errorf("wrong answers and failovers: %v", values)
	}
	if facts, err := tokens.Health(); err == nil || !strings.Contains(err.Error(), "zegel test") {
		t.Errorf("health: %v, %v", facts, err)
	}
}
