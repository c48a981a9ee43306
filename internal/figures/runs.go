package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// runs holds what every run measured: by benchmark and unit one value a run, in the order of the runs.
type runs struct {
	values map[string]map[string][]float64 // "package.Name/sub" without the processors, then the unit
	names  []string                        // in the order of their first appearance
}

// processors is what go test appends to a benchmark's name.
var processors = regexp.MustCompile(`-\d+$`)

// read takes the benchmarks' lines out of go test's output and leaves the others. A run that failed is an error.
func read(r io.Reader) (*runs, error) {
	all := &runs{values: make(map[string]map[string][]float64)}
	in, pkg := bufio.NewScanner(r), ""
	for in.Scan() {
		fields := strings.Fields(in.Text())
		switch {
		case len(fields) == 0:
		case fields[0] == "pkg:" && len(fields) == 2:
			pkg = path.Base(fields[1])
		case fields[0] == "FAIL" || fields[0] == "panic:" || strings.HasPrefix(in.Text(), "--- FAIL"):
			return nil, fmt.Errorf("a benchmark failed: %s", in.Text())
		case strings.HasPrefix(fields[0], "Benchmark") && len(fields) > 2:
			if err := all.add(pkg, fields); err != nil {
				return nil, fmt.Errorf("read %q: %w", in.Text(), err)
			}
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read the benchmarks: %w", err)
	}
	if len(all.names) == 0 {
		return nil, errors.New("no benchmark on the standard input: run make bench")
	}
	return all, nil
}

// add takes one line: name, iterations, and value and unit by turns.
func (r *runs) add(pkg string, fields []string) error {
	name := pkg + "." + strings.TrimPrefix(processors.ReplaceAllString(fields[0], ""), "Benchmark")
	if r.values[name] == nil {
		r.values[name] = make(map[string][]float64)
		r.names = append(r.names, name)
	}
	for i := 2; i+1 < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return err
		}
		r.values[name][fields[i+1]] = append(r.values[name][fields[i+1]], value)
	}
	return nil
}

// median is that of one benchmark in one unit; false: not measured.
func (r *runs) median(name, unit string) (float64, bool) {
	return median(r.values[name][unit])
}

// ratio is the median of a/b, each taken within one run; false where one was measured in fewer runs than the other.
func (r *runs) ratio(a, b, unit string) (float64, bool) {
	return ratio(r.values[a][unit], r.values[b][unit])
}

func ratio(over, under []float64) (float64, bool) {
	if len(over) != len(under) {
		return 0, false
	}
	ratios := make([]float64, len(over))
	for i := range over {
		ratios[i] = over[i] / under[i]
	}
	return median(ratios)
}

func median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2, true
	}
	return sorted[middle], true
}
