package main

import (
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// BenchmarkSigner is what zegel token bench prints for SoftHSM: as many signatures as go through 32 sessions of one token, raw and by hsm.Key
// without its verification, in turns, and the verification by itself.
func BenchmarkSigner(b *testing.B) {
	token := hsmtest.SoftHSM(b)
	for _, algorithm := range signers {
		for _, isolation := range isolations {
			b.Run("key="+algorithm.name+"/isolation="+isolation.name, func(b *testing.B) {
				config := token.Config
				config.Isolation = isolation.name
				tokens := hsm.New(config)
				defer tokens.Close()
				benchmarkSigner(b, tokens, hsm.BenchConfig{
					URI: hsm.URI{Token: token.Label, ModulePath: token.Module, PINSource: token.PIN}.String(), Algorithm: hsm.KeyAlgorithm(algorithm.name),
					Duration: 2 * time.Second,
				})
			})
		}
	}
}

// benchmarkSigner measures once, however often it is asked to: Bench takes its time by itself.
func benchmarkSigner(b *testing.B, tokens *hsm.Tokens, c hsm.BenchConfig) {
	if b.N > 1 {
		b.Fatal("one measurement takes longer than BENCHTIME may be: at most 2 s")
	}
	result, err := tokens.Bench(b.Context(), c)
	must(b, err)
	if result.Sessions != 32 {
		b.Errorf("%d sessions, want 32", result.Sessions)
	}
	b.ReportMetric(result.RawPerSecond, "raw/s")
	b.ReportMetric(result.SignerPerSecond, "signer/s")
	b.ReportMetric(result.Ratio, "signer/raw")
	b.ReportMetric(result.VerifyUS*1e3, "verify-ns")
}

// TestSignerNames holds the names of the table to those of the algorithms.
func TestSignerNames(t *testing.T) {
	for _, s := range signers {
		if _, err := hsm.ParseKeyAlgorithm(s.name); err != nil {
			t.Error(err)
		}
	}
}
