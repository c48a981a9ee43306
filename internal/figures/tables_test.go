package main

import (
	"strings"
	"testing"
)

// sample is two runs on a machine whose speed doubles in between: medians move, ratios do not.
const sample = `goos: linux
pkg: github.com/zegel-tsp/zegel/internal/figures
BenchmarkPath/token=soft/key=p256/path=raw/callers=1-2    	 100	 40000 ns/op	 8 cpu-ns/op	 6064 B/op	 59 allocs/op
BenchmarkPath/token=soft/key=p256/path=issue/callers=1-2  	 100	 1600000 ns/op	 8 cpu-ns/op	 6064 B/op	 59 allocs/op
BenchmarkHTTP/request=static-get-2  	 100	 20000 ns/op	 700000 p50-ns	 9000000 p99-ns	 10000 server-cpu-ns/op
BenchmarkHTTP/request=ocsp-get-2  	 100	 30000 ns/op	 800000 p50-ns	 9000000 p99-ns	 16000 server-cpu-ns/op
BenchmarkSigner/key=p384/isolation=none-2  	 1	 2261796335 ns/op	 3000 raw/s	 0.97 signer/raw	 2910 signer/s	 502628 verify-ns
BenchmarkSigner/key=p384/isolation=process-2  	 1	 2261796335 ns/op	 2900 raw/s	 0.97 signer/raw	 2700 signer/s	 502628 verify-ns
pkg: github.com/zegel-tsp/zegel/hsm
BenchmarkGroup/1-2  	 456	 2505216 ns/op	 400 signatures/s
BenchmarkGroup/2-2  	 934	 1252673 ns/op	 792 signatures/s
pkg: github.com/zegel-tsp/zegel/policy
BenchmarkTBS-2  	 100	 999 ns/op	 2048 B/op	 12 allocs/op
PASS
pkg: github.com/zegel-tsp/zegel/internal/figures
BenchmarkPath/token=soft/key=p256/path=raw/callers=1-2    	 100	 20000 ns/op	 8 cpu-ns/op	 6064 B/op	 59 allocs/op
BenchmarkPath/token=soft/key=p256/path=issue/callers=1-2  	 100	 800000 ns/op	 8 cpu-ns/op	 6064 B/op	 59 allocs/op
`

// TestPrint has medians and ratios come out in the form that docs/performance.md has.
func TestPrint(t *testing.T) {
	runs, err := read(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := runs.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| raw signature | 30 µs | – | – | – |\n",
		"| certificate | 1.2 ms ×40 | – | – | – |\n",
		"| OCSP from the cache, GET | 33,300 | 30 µs ×1.5 | 800 µs | 9.0 ms | 16 µs ×1.6 |\n",
		"| P-384 | 3,000 | 2,910 ×0.97 | 2,700 ×0.90 | 503 µs |\n", "makes 400 signatures a second with 32 callers, on two such tokens ×1.98.\n",
		"| `policy.TBS` | 999 ns | 2,050 | 12 |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}

// TestRead refuses what is no whole measurement.
func TestRead(t *testing.T) {
	for name, output := range map[string]string{
		"nothing":         "",
		"no benchmark":    "PASS\nok\n",
		"failed":          sample + "--- FAIL: BenchmarkPath/token=soft\n",
		"failed package":  sample + "FAIL\tgithub.com/zegel-tsp/zegel/tsa\t0.1s\n",
		"not a number":    "BenchmarkTBS-2 100 many ns/op\n",
		"a panic's trace": sample + "panic: oh\n",
	} {
		if _, err := read(strings.NewReader(output)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestDigits has figures rounded to what they are worth.
func TestDigits(t *testing.T) {
	for _, c := range []struct {
		value float64
		n     int
		want  string
	}{
		{0, 2, "0"}, {0.0457, 2, "0.046"}, {0.99, 2, "0.99"}, {1, 2, "1.0"}, {1.449, 2, "1.4"}, {14.4, 2, "14"}, {144.4, 2, "144"},
		{1449, 3, "1,450"}, {64123, 3, "64,100"}, {1234567, 2, "1,200,000"},
	} {
		if got := digits(c.value, c.n); got != c.want {
			t.Errorf("digits(%v, %d) = %q, want %q", c.value, c.n, got, c.want)
		}
	}
}
