// Package locked keeps secrets in memory that is neither swapped out nor dumped, and wipes it after use.
//
// A Secret lies in a mapping of its own: locked (mlock), left out of core dumps (MADV_DONTDUMP), empty in a forked child
// (MADV_WIPEONFORK), and never moved or copied by the garbage collector. Each takes one page of the process's RLIMIT_MEMLOCK.
// A secret that cannot be locked is refused, not kept in other memory.
package locked

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrWiped is wrapped by Secret.Use after Secret.Wipe.
var ErrWiped = errors.New("the secret was wiped")

// Secret is a few bytes in locked memory. Safe for concurrent use; not to be copied.
type Secret struct {
	mu      sync.Mutex
	mapping []byte // nil: wiped
	length  int
	users   int
	leaving bool // Wipe was called: the last user wipes
}

// Take copies secret, of at most a page (4096 bytes), into locked memory and wipes it, also when it fails.
func Take(secret []byte) (*Secret, error) {
	defer clear(secret)
	size := os.Getpagesize()
	if len(secret) > size {
		return nil, fmt.Errorf("lock a secret in memory: it has %d bytes, at most %d are possible", len(secret), size)
	}
	mapping, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("lock a secret in memory: mmap: %w", err)
	}
	if err := protect(mapping); err != nil {
		return nil, errors.Join(fmt.Errorf("lock a secret in memory: %w", err), unix.Munmap(mapping))
	}
	return &Secret{mapping: mapping, length: copy(mapping, secret)}, nil
}

func protect(mapping []byte) error {
	if err := unix.Mlock(mapping); err != nil {
		return fmt.Errorf("mlock: %w: it would be swapped out: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=8M; shell: ulimit -l)", err)
	}
	if err := unix.Madvise(mapping, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("madvise MADV_DONTDUMP: %w", err)
	}
	if err := unix.Madvise(mapping, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("madvise MADV_WIPEONFORK: %w", err)
	}
	return nil
}

// Use lends the bytes to use, which must not change or keep them.
func (s *Secret) Use(use func(secret []byte) error) error {
	s.mu.Lock()
	if s.leaving || s.mapping == nil {
		s.mu.Unlock()
		return ErrWiped
	}
	s.users++
	s.mu.Unlock()
	defer s.leave()
	return use(s.mapping[:s.length:s.length])
}

func (s *Secret) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.leaving && s.users == 0 {
		s.wipe()
	}
}

// Wipe overwrites the secret and gives its memory back, at once or when the last running Use returns. A second call does nothing.
func (s *Secret) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	if s.users == 0 {
		s.wipe()
	}
}

func (s *Secret) wipe() {
	if s.mapping == nil {
		return
	}
	clear(s.mapping)
	_ = unix.Munmap(s.mapping) // fails for addresses that Mmap did not give, only
	s.mapping = nil
}

// Process keeps this process from leaving its memory behind: it dumps no core (RLIMIT_CORE 0, which its children inherit, and
// PR_SET_DUMPABLE 0), and processes of the same user, root's apart, can neither attach to it nor read its /proc/PID/mem and
// /proc/PID/environ. Debuggers and profilers that attach from outside so need root.
func Process() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: setrlimit RLIMIT_CORE: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: prctl PR_SET_DUMPABLE: %w", err)
	}
	return nil
}
