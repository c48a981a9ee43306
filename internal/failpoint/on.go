//go:build failpoint

package failpoint

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled says whether this build has failpoints: such a build is for tests alone.
const Enabled = true

// ErrInjected is what a step returns that was told to fail.
var ErrInjected = errors.New("failpoint: injected")

// Environment variables.
const (
	variable        = "ZEGEL_FAILPOINT"
	variableReached = "ZEGEL_FAILPOINT_REACHED"
)

// Do takes the step s, which is f.
func Do(s Step, f func() error) error {
	return All(slices.Values([]Step{s}), f)
}

// Value is Do for a step that yields something. Where the step fails so does Value, with a zero T.
func Value[T any](s Step, f func() (T, error)) (T, error) {
	var value T
	err := Do(s, func() (err error) {
		value, err = f()
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return value, nil
}

// All is Do for several steps that are taken together or not at all. It reads the list before f and after it.
func All(list iter.Seq[Step], f func() error) error {
	for s := range list {
		if err := pass("before " + s.Name()); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	for s := range list {
		if err := pass("after " + s.Name()); err != nil {
			return err
		}
	}
	return nil
}

// order is one entry of ZEGEL_FAILPOINT.
type order struct {
	die   bool
	point string // before NAME or after NAME
	nth   int
}

// plan is what the environment asks of this process. It is package state because the points are everywhere, and in builds
// for tests only.
var plan = sync.OnceValues(func() ([]order, error) { return parse(os.Getenv(variable)) })

// passed counts, by point, how often it was passed; guarded by mu.
var (
	mu     sync.Mutex
	passed = map[string]int{}
)

func parse(text string) ([]order, error) {
	var list []order
	for entry := range strings.SplitSeq(text, ";") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		mode, point, _ := strings.Cut(entry, " ")
		point, count, counted := strings.Cut(point, ":")
		o := order{die: mode == "die", point: point, nth: 1}
		var err error
		if counted {
			o.nth, err = strconv.Atoi(count)
		}
		known := slices.ContainsFunc(Steps(), func(s Step) bool { return point == "before "+s.Name() || point == "after "+s.Name() })
		if err != nil || o.nth < 1 || !known || !o.die && mode != "fail" {
			return nil, fmt.Errorf("%s: %q is not MODE WHEN STEP[:N] of a step there is", variable, entry)
		}
		list = append(list, o)
	}
	return list, nil
}

// pass notes that the process is at the point, and does there what was asked.
func pass(point string) error {
	orders, err := plan()
	if err != nil {
		return err // no step is taken by a process that was told nonsense
	}
	mu.Lock()
	defer mu.Unlock()
	passed[point]++
	if err := note(point); err != nil {
		return err
	}
	for _, o := range orders {
		if o.point != point || o.nth != passed[point] {
			continue
		}
		if !o.die {
			return fmt.Errorf("%w %s: %w", ErrInjected, point, syscall.EIO)
		}
		err := syscall.Kill(os.Getpid(), syscall.SIGKILL)
		for err == nil { // the signal may reach another thread first: nothing more is done here
			syscall.Pause()
		}
		return err
	}
	return nil
}

// note appends the point to the list of those that were passed.
func note(point string) error {
	name := os.Getenv(variableReached)
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("note the failpoint: %w", err)
	}
	_, err = f.WriteString(point + "\n")
	return errors.Join(err, f.Close())
}
