package daemon

import "runtime/debug"

// GCPercent is the GOGC of the daemons. What they keep is small and what they drop is much: a request's octets are garbage when
// it is answered. At Go's own 100 the heap is collected every four megabytes, which took a quarter of all processor time
// (docs/performance.md); at 400 it may grow to five times what is kept.
const GCPercent = 400

// collectSeldom sets GCPercent, unless whoever started the process has set GOGC. GOMEMLIMIT holds either way.
func collectSeldom(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(GCPercent)
	}
}
