package cryptoki

import "syscall"

// executable is this program, also when its file has been replaced since.
func executable() (string, error) { return "/proc/self/exe", nil }

// attributes: the helper process dies with the thread that starts it, and signals of a terminal do not reach it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
