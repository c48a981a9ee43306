//go:build !linux

package cryptoki

import (
	"os"
	"syscall"
)

func executable() (string, error) { return os.Executable() }

// attributes: signals of a terminal do not reach the helper process. It ends when its socket is closed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
