package cryptoki

import (
	"fmt"
	"syscall"
)

// noCores lets this process leave no core dump.
func noCores() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	return nil
}
