package daemon

import (
	"runtime/debug"
	"testing"
)

// What an operator sets in the environment holds.
func TestCollectSeldom(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for value, want := range map[string]int{"": GCPercent, "50": 100, "off": 100} {
		debug.SetGCPercent(100)
		collectSeldom(func(name string) string { return map[string]string{"GOGC": value}[name] })
		if got := debug.SetGCPercent(100); got != want {
			t.Errorf("GOGC %q: the percentage is %d, want %d", value, got, want)
		}
	}
}
