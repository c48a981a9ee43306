package hsm_test

import (
	"os"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
)

// TestMain is a module's process where it was started as one.
func TestMain(m *testing.M) {
	if status, helper := hsm.RunHelper(); helper {
		os.Exit(status)
	}
	os.Exit(m.Run())
}
