// Command figures prints the tables of docs/performance.md from what the benchmarks measured.
//
// It reads the output of `go test -bench` of one or more runs on its standard input, and writes Markdown: medians over the
// runs, and ratios, which are taken within each run before their median is, because the speed of a machine drifts. The
// benchmarks of the paths and of HTTP are this package's tests; those of the parts are in the packages that they measure.
package main

import (
	"fmt"
	"os"
)

func main() {
	runs, err := read(os.Stdin)
	if err == nil {
		err = runs.print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}
