package daemon

import (
	"errors"
	"fmt"
)

// Exit statuses of every binary.
const (
	StatusDone    = 0
	StatusFailed  = 1
	StatusUsage   = 2 // wrong usage, configuration or input that cannot be read
	StatusRefused = 3 // refused by policy
)

// UsageError is wrong usage, configuration or unreadable input: exit status 2.
type UsageError struct{ Err error }

func (u *UsageError) Error() string { return u.Err.Error() }
func (u *UsageError) Unwrap() error { return u.Err }

// ExitStatus is StatusUsage, unless an error within says otherwise: a journal that is missing is a failure.
func (u *UsageError) ExitStatus() int {
	var s interface{ ExitStatus() int }
	if errors.As(u.Err, &s) {
		return s.ExitStatus()
	}
	return StatusUsage
}

// Missing marks the fault of a key that names a journal or replica that is not there: the file may be right, and the disk not
// mounted, so its exit status is StatusFailed.
type Missing struct{ Err error }

// Unwrap is the error that was marked.
func (m Missing) Unwrap() error { return m.Err }

func (m Missing) Error() string { return m.Err.Error() }

// ExitStatus is StatusFailed.
func (m Missing) ExitStatus() int { return StatusFailed }

// Usagef makes a UsageError; %w works.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// ExitStatus is the exit status that err stands for: 0 for nil, what an error in its tree says with an
// ExitStatus() int method, else 1.
func ExitStatus(err error) int {
	if err == nil {
		return StatusDone
	}
	var s interface{ ExitStatus() int }
	if errors.As(err, &s) {
		return s.ExitStatus()
	}
	return StatusFailed
}

// KeyError is a fault in the value of one configuration key, for Daemon.Check to return: LoadConfig adds file and line.
type KeyError struct {
	Key string // path in the file: "admin.listen", "officers[2].roles"
	Err error
}

func (k *KeyError) Error() string { return k.Key + ": " + k.Err.Error() }
func (k *KeyError) Unwrap() error { return k.Err }

// Keyf makes a KeyError; %w works.
func Keyf(key, format string, args ...any) error { return &KeyError{key, fmt.Errorf(format, args...)} }
