package failpoint

import (
	"errors"
	"slices"
	"testing"
)

// Every step has a name of its own and says what it is.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Steps() {
		if s.Name() == "" || s.What() == "" || seen[s.Name()] {
			t.Errorf("step %d: %q, %q", s, s.Name(), s.What())
		}
		seen[s.Name()] = true
	}
}

// Where nothing was asked for, the step is taken and its own result returned.
func TestStepIsTaken(t *testing.T) {
	own := errors.New("own")
	taken := 0
	step := func() error { taken++; return own }
	if err := Do(SignCRL, step); err != own {
		t.Errorf("Do: %v", err)
	}
	if err := All(slices.Values([]Step{SignCRL, PublishCRL}), step); err != own {
		t.Errorf("All: %v", err)
	}
	if v, err := Value(SignCRL, func() (int, error) { taken++; return 7, nil }); v != 7 || err != nil {
		t.Errorf("Value: %d, %v", v, err)
	}
	if taken != 3 {
		t.Errorf("%d steps were taken", taken)
	}
}

// BenchmarkDo beside BenchmarkDirect: without the tag they are the same.
func BenchmarkDo(b *testing.B) {
	n := 0
	for b.Loop() {
		if err := Do(SignCRL, func() error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDirect is the step alone.
func BenchmarkDirect(b *testing.B) {
	n := 0
	for b.Loop() {
		if err := func() error { n++; return nil }(); err != nil {
			b.Fatal(err)
		}
	}
}
