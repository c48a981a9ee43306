package cryptoki

import (
	"fmt"
	"syscall"
)

// executable is this program, also when its file has been replaced since.
func executable() (string, error) { return "/proc/self/exe", nil }

// attributes: the helper process dies with the thread that starts it, and signals of a terminal do not reach it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// harden keeps debuggers of the same user out of this process (PR_SET_DUMPABLE, proc(5)), and its memory out of core dumps.
func harden() error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0); errno != 0 {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", errno)
	}
	return noCores()
}
