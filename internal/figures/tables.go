package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// row is one line of a table: what it is called, and which benchmark it is.
type row struct{ title, name string }

// keys are the columns of the paths' tables, named as the benchmarks name them.
var keys = []row{
	{"software P-256", "token=soft/key=p256"}, {"SoftHSM P-256", "token=softhsm/key=p256"},
	{"software RSA-3072", "token=soft/key=rsa3072"}, {"SoftHSM RSA-3072", "token=softhsm/key=rsa3072"},
}

// paths are the rows of the paths' tables. All ratios are to the first.
var paths = []row{
	{"raw signature", "raw"}, {"signature by `hsm.Key`, verified", "key"},
	{"OCSP answer, signed", "ocsp-live"}, {"OCSP answer, from the cache", "ocsp-cached"},
	{"durable append", "append"}, {"timestamp, recorded", "timestamp"}, {"certificate", "issue"},
}

// signers are the keys, and isolations the ways to reach a token, of the table of signers.
var (
	signers    = []row{{"P-256", "p256"}, {"P-384", "p384"}, {"RSA-3072", "rsa3072"}, {"RSA-4096", "rsa4096"}}
	isolations = []row{{"none", "none"}, {"process", "process"}}
)

// requests are the rows of the table of HTTP. Each ratio is to the static answer of the same method.
var requests = []struct{ title, name, static string }{
	{"static answer, GET", "static-get", "static-get"}, {"OCSP from the cache, GET", "ocsp-get", "static-get"},
	{"static answer, POST", "static-post", "static-post"}, {"OCSP from the cache, POST", "ocsp-post", "static-post"},
	{"OCSP with a nonce, POST", "ocsp-nonce", "static-post"}, {"timestamp, recorded", "timestamp", "static-post"},
}

// print writes every table.
func (r *runs) print(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprint(w, "One caller; × is the ratio to the raw signature:\n\n")
	r.printPaths(w, 1, "ns/op")
	if ns, ok := r.median("figures.Fdatasync", "ns/op"); ok {
		fmt.Fprintf(w, "\nOne fdatasync of a page takes %s in the same runs.\n", span(ns))
	}
	fmt.Fprint(w, "\n64 callers, the time of all by the number of calls:\n\n")
	r.printPaths(w, 64, "ns/op")
	fmt.Fprint(w, "\n64 callers, processor time of a call:\n\n")
	r.printPaths(w, 64, "cpu-ns/op")
	fmt.Fprint(w, "\nSignatures a second by 32 sessions of one SoftHSM token, verification not counted; × is the ratio to the raw ones of the same run:\n\n")
	r.printSigners(w)
	fmt.Fprint(w, "\nOver HTTP, 64 connections; × is the ratio to the static answer by the same method:\n\n")
	r.printHTTP(w)
	fmt.Fprint(w, "\nThe parts, one caller unless the name says another number:\n\n")
	r.printParts(w)
	return w.Flush()
}

func (r *runs) printPaths(w io.Writer, callers int, unit string) {
	header := []string{"job"}
	for _, k := range keys {
		header = append(header, k.title)
	}
	printHeader(w, header)
	for _, p := range paths {
		fmt.Fprintf(w, "| %s |", p.title)
		for _, k := range keys {
			benchmark := func(path string) string {
				return fmt.Sprintf("figures.Path/%s/path=%s/callers=%d", k.name, path, callers)
			}
			fmt.Fprintf(w, " %s |", r.compared(benchmark(p.name), benchmark(paths[0].name), unit))
		}
		fmt.Fprintln(w)
	}
}

// compared is a median in nanoseconds, and its ratio to that of another benchmark, unless they are the same.
func (r *runs) compared(name, with, unit string) string {
	ns, ok := r.median(name, unit)
	if !ok {
		return "–"
	}
	ratio, ok := r.ratio(name, with, unit)
	switch {
	case !ok || name == with:
		return span(ns)
	case ratio < 0.01:
		return span(ns) + " ×<0.01"
	}
	return span(ns) + " ×" + digits(ratio, 2)
}

func (r *runs) printSigners(w io.Writer) {
	header := []string{"key", "raw"}
	for _, i := range isolations {
		header = append(header, "`isolation: "+i.title+"`")
	}
	printHeader(w, append(header, "one verification, by itself"))
	for _, k := range signers {
		name := func(isolation row) string {
			return fmt.Sprintf("figures.Signer/key=%s/isolation=%s", k.name, isolation.name)
		}
		raw, ok := r.median(name(isolations[0]), "raw/s")
		if !ok {
			continue
		}
		fmt.Fprintf(w, "| %s | %s |", k.title, digits(raw, 3))
		for _, i := range isolations {
			signer, _ := r.median(name(i), "signer/s")
			part, _ := ratio(r.values[name(i)]["signer/s"], r.values[name(isolations[0])]["raw/s"]) // what is raw in a process of its own goes through it, too
			fmt.Fprintf(w, " %s ×%s |", digits(signer, 3), digits(part, 2))
		}
		verify, _ := r.median(name(isolations[0]), "verify-ns")
		fmt.Fprintf(w, " %s |\n", span(verify))
	}
	one, two := "hsm.Group/1", "hsm.Group/2"
	if ratio, ok := r.ratio(two, one, "signatures/s"); ok {
		alone, _ := r.median(one, "signatures/s")
		fmt.Fprintf(w, "\nA key on one token that keeps a network HSM's time makes %s signatures a second with 32 callers, on two such tokens ×%s.\n", digits(alone, 3), digits(ratio, 3))
	}
}

func (r *runs) printHTTP(w io.Writer) {
	printHeader(w, []string{"request", "a second", "each", "p50", "p99", "the server's processor time"})
	for _, q := range requests {
		name, static := "figures.HTTP/request="+q.name, "figures.HTTP/request="+q.static
		ns, ok := r.median(name, "ns/op")
		if !ok {
			continue
		}
		p50, _ := r.median(name, "p50-ns")
		p99, _ := r.median(name, "p99-ns")
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", q.title, digits(1e9/ns, 3), r.compared(name, static, "ns/op"),
			span(p50), span(p99), r.compared(name, static, "server-cpu-ns/op"))
	}
	own, ok := r.median("figures.HTTP/connections=ocsp", "KiB/connection")
	static, both := r.median("figures.HTTP/connections=static", "KiB/connection")
	if ok && both {
		fmt.Fprintf(w, "\nAn idle connection takes %s KiB of the responder, %s KiB of the static server.\n", digits(own, 2), digits(static, 2))
	}
}

// printParts prints every benchmark of the other packages.
func (r *runs) printParts(w io.Writer) {
	printHeader(w, []string{"benchmark", "each", "octets", "allocations"})
	for _, name := range r.names {
		if strings.HasPrefix(name, "figures.") {
			continue
		}
		ns, _ := r.median(name, "ns/op")
		octets, _ := r.median(name, "B/op")
		allocations, _ := r.median(name, "allocs/op")
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", name, span(ns), count(octets), count(allocations))
	}
}

// printHeader prints the first two lines of a table whose first column is text and whose others are figures.
func printHeader(w io.Writer, titles []string) {
	fmt.Fprintf(w, "| %s |\n|---|%s\n", strings.Join(titles, " | "), strings.Repeat("--:|", len(titles)-1))
}

// span writes nanoseconds with two digits that count, more before the point, in the unit that suits them.
func span(ns float64) string {
	switch {
	case ns < 1e3:
		return digits(ns, 2) + " ns"
	case ns < 1e6:
		return digits(ns/1e3, 2) + " µs"
	case ns < 1e9:
		return digits(ns/1e6, 2) + " ms"
	}
	return digits(ns/1e9, 2) + " s"
}

// count writes a number of things.
func count(n float64) string {
	if n < 1000 {
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	return digits(n, 3)
}

// digits writes value with n digits that count: a smaller one with as many behind the point as that takes, one of three digits
// and more to the unit, and from a thousand on to n digits with the thousands set apart.
func digits(value float64, n int) string {
	switch {
	case value == 0:
		return "0"
	case value < 100:
		behind := n - 1 - int(math.Floor(math.Log10(value)))
		return strconv.FormatFloat(value, 'f', max(behind, 0), 64)
	case value < 1000:
		return strconv.FormatFloat(value, 'f', 0, 64)
	}
	unit := math.Pow(10, math.Floor(math.Log10(value))-float64(n-1))
	text := strconv.FormatFloat(math.Round(value/unit)*unit, 'f', 0, 64)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}
