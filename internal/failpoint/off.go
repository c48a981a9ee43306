//go:build !failpoint

package failpoint

import "iter"

// Enabled says whether this build has failpoints: such a build is for tests alone.
const Enabled = false

// Do takes the step s, which is f.
func Do(_ Step, f func() error) error { return f() }

// Value is Do for a step that yields something.
func Value[T any](_ Step, f func() (T, error)) (T, error) { return f() }

// All is Do for several steps that are taken together or not at all. It reads the list before f and after it.
func All(_ iter.Seq[Step], f func() error) error { return f() }
