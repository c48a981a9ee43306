package policy

import (
	"fmt"
	"strings"
)

// Violation is one rule broken.
type Violation struct {
	Clause string `json:"clause"` // "EN 319 412-5 QCS-5-01"
	Detail string `json:"detail"` // what was found, what was wanted
}

func (v *Violation) Error() string { return v.Clause + ": " + v.Detail }

// Violations is the error TBS, Check, Lint and ParseProfile return for what policy refuses: one or more.
type Violations []*Violation

// Error is one violation a line.
func (v Violations) Error() string {
	lines := make([]string, len(v))
	for i, one := range v {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each Violation.
func (v Violations) Unwrap() []error {
	list := make([]error, len(v))
	for i, one := range v {
		list[i] = one
	}
	return list
}

func (v *Violations) add(clause, format string, args ...any) {
	*v = append(*v, &Violation{Clause: clause, Detail: fmt.Sprintf(format, args...)})
}

// err is nil where nothing was violated: a nil Violations in an error is not nil.
func (v Violations) err() error {
	if len(v) == 0 {
		return nil
	}
	return v
}
