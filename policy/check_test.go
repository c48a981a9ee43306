package policy

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// TestLintFinds: each source finds a fault of its own.
func TestLintFinds(t *testing.T) {
	for _, test := range []struct {
		fault, profile, clause string
		spoil                  func(*editable)
	}{
		{"rfc5280_key_usage_not_critical", "qcp-n", "RFC 5280: 4.2.1.3", func(e *editable) { e.setCritical(oidKeyUsage, false) }},
		{"etsi_qc_compliance_missing", "qcp-n", "ETSI EN 319 412 - 5 V2.2.1 (2017 - 11) / Section 5", withoutStatement(oidQcCompliance)},
	} {
		t.Run(test.fault, func(t *testing.T) {
			e := edit(t, testDraft(t, mustBuiltin(t, test.profile), testKeyP256()))
			test.spoil(e)
			wantClause(t, Lint(e.encode(t)), test.clause)
		})
	}
}

func TestLintWarningCounts(t *testing.T) {
	p, err := ParseProfile("house.yaml", change(t, "qcp-n", "key_usage: A", "key_usage: B"))
	if err != nil {
		t.Fatal(err)
	}
	var v Violations
	if err := Lint(testDraft(t, p, testKeyP256())); !errors.As(err, &v) {
		t.Errorf("zlint warns of type B for natural persons; Lint says %v", err)
	}
}

func TestNotACertificate(t *testing.T) {
	p := mustBuiltin(t, "qcp-n")
	draft := testDraft(t, p, testKeyP256())
	for name, input := range map[string][]byte{"nothing": nil, "text": []byte("certificate"), "cut": draft[:len(draft)-1], "tail": append(draft[:len(draft):len(draft)], 0)} {
		var v Violations
		if err := p.Check(input); err == nil || errors.As(err, &v) {
			t.Errorf("Check(%s): %v, want a plain error", name, err)
		}
		if err := Lint(input); err == nil || errors.As(err, &v) {
			t.Errorf("Lint(%s): %v, want a plain error", name, err)
		}
	}
}

// TestConcurrent: one profile, many goroutines; for the race detector.
func TestConcurrent(t *testing.T) {
	p := mustBuiltin(t, "qcp-n")
	ca := testIssuerFor(t, p)
	r := testRequest(t, p, testKeyP256())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			tbs, err := p.TBS(r, ca.issuer)
			if err != nil {
				t.Error(err)
				return
			}
			draft := Draft(tbs, ca.issuer)
			if err := errors.Join(p.Check(draft), Lint(draft)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestTimesOf2050: UTCTime through 2049, GeneralizedTime from 2050, in one certificate.
func TestTimesOf2050(t *testing.T) {
	p := mustBuiltin(t, "qcp-n")
	ca := testIssuerFor(t, p)
	ca.issuer.NotAfter = time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)
	r := testRequest(t, p, testKeyP256())
	r.NotBefore = time.Date(2049, 12, 31, 23, 59, 59, 999, time.UTC)
	r.NotAfter = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
	tbs, err := p.TBS(r, ca.issuer)
	if err != nil {
		t.Fatal(err)
	}
	draft := Draft(tbs, ca.issuer)
	if err := errors.Join(p.Check(draft), Lint(draft)); err != nil {
		t.Error(err)
	}
	c, err := readCertificate(draft)
	if err != nil || c.from.text != "491231235959Z" || c.to.text != "20500101000000Z" {
		t.Errorf("validity is %q to %q (%v)", c.from.text, c.to.text, err)
	}
}

func FuzzCheck(f *testing.F) {
	var profiles []*Profile
	for _, name := range Builtins() {
		p := mustBuiltin(f, name)
		profiles = append(profiles, p)
		f.Add(testDraft(f, p, testKeyP256()))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, p := range profiles {
			if p.Check(input) != nil {
				continue
			}
			// What passes is canonical and readable, so it can be taken apart and put together again.
			if err := der.Check(input); err != nil {
				t.Fatalf("%s passed: %v", p.Name(), err)
			}
			if _, err := readName(edit(t, input).subject); err != nil {
				t.Fatalf("%s passed: %v", p.Name(), err)
			}
		}
		_ = Lint(input)
	})
}

func benchmarkDraft(b *testing.B) (*Profile, Request, *testCA, []byte) {
	p := mustBuiltin(b, "qcp-n-qscd")
	ca := testIssuerFor(b, p)
	r := testRequest(b, p, testKeyP256())
	tbs, err := p.TBS(r, ca.issuer)
	if err != nil {
		b.Fatal(err)
	}
	return p, r, ca, Draft(tbs, ca.issuer)
}

func BenchmarkTBS(b *testing.B) {
	p, r, ca, _ := benchmarkDraft(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.TBS(r, ca.issuer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	p, _, _, draft := benchmarkDraft(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Check(draft); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLint(b *testing.B) {
	_, _, _, draft := benchmarkDraft(b)
	if err := Lint(draft); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Lint(draft); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuiltin(b *testing.B) {
	for b.Loop() {
		if _, err := Builtin("qcp-n-qscd"); err != nil {
			b.Fatal(err)
		}
	}
}
