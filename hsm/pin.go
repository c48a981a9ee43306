package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// maxPIN bounds a PIN, in bytes: SoftHSM takes 255, age any length.
const maxPIN = 255

// splitPINSource reads a pin-source: the path of a file or the name of an environment variable, never both.
func splitPINSource(source string) (path, variable string, err error) {
	if name, ok := strings.CutPrefix(source, "env:"); ok {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return "", "", errors.New("env: is not followed by the name of a variable")
		}
		return "", name, nil
	}
	path = source
	if rest, ok := strings.CutPrefix(source, "file:"); ok {
		path = rest
		if authority, ok := strings.CutPrefix(rest, "//"); ok { // file://host/path, RFC 8089 §2
			host, p, _ := strings.Cut(authority, "/")
			if host != "" && host != "localhost" {
				return "", "", errors.New("a file: URI with a host: the file must be on this machine")
			}
			path = "/" + p
		}
	}
	if strings.ContainsRune(path, 0) || !filepath.IsAbs(path) {
		return "", "", errors.New("give file:/absolute/path, /absolute/path or env:NAME")
	}
	return path, "", nil
}

func checkPIN(pin []byte) error {
	switch {
	case len(pin) == 0:
		return errors.New("the PIN is empty")
	case len(pin) > maxPIN:
		return fmt.Errorf("the PIN is longer than %d bytes", maxPIN)
	case bytes.ContainsAny(pin, "\x00\r\n"):
		return errors.New("the PIN has more than one line, or a zero byte")
	}
	return nil
}

// pinOrigin says in words where u's PIN comes from.
func (u URI) pinOrigin() string {
	if u.PINSource != "" {
		return "pin-source " + u.PINSource
	}
	return "the URI's pin-value"
}

// hasPIN reports whether u says where its PIN is.
func (u URI) hasPIN() bool { return u.PINSource != "" || u.pinValue != nil }

// withPIN fetches u's PIN, hands it to use and wipes it.
func (u URI) withPIN(use func(pin []byte) error) error {
	pin, err := u.readPIN()
	if err != nil {
		return err
	}
	defer clear(pin)
	return use(pin)
}

// text is pin as a string, the same memory: not to be kept.
func text(pin []byte) string { return unsafe.String(unsafe.SliceData(pin), len(pin)) }

func (u URI) readPIN() ([]byte, error) {
	if u.pinValue != nil {
		return bytes.Clone(*u.pinValue), nil
	}
	if u.PINSource == "" {
		return nil, errors.New("the URI has no pin-source: add pin-source=file:/absolute/path to it")
	}
	path, variable, err := splitPINSource(u.PINSource)
	if err != nil {
		return nil, fmt.Errorf("read pin-source: %w", err)
	}
	var pin []byte
	if variable != "" {
		value, ok := os.LookupEnv(variable)
		if !ok {
			return nil, fmt.Errorf("read PIN: environment variable %s is not set", variable)
		}
		pin = []byte(value)
	} else if pin, err = readPrivateFile(path, 2*maxPIN); err != nil {
		return nil, fmt.Errorf("read PIN: %w", err)
	}
	trimmed := bytes.TrimSuffix(bytes.TrimSuffix(pin, []byte("\n")), []byte("\r"))
	if err := checkPIN(trimmed); err != nil {
		clear(pin)
		return nil, fmt.Errorf("read PIN from %s: %w", u.PINSource, err)
	}
	return trimmed, nil
}

// readPrivateFile reads a secret's file of at most limit bytes and refuses one that others than its owner may open.
// The check is on the open file, so that it cannot be exchanged in between.
func readPrivateFile(path string, limit int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not hold the daemon up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if stat.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read or written by others than its owner (mode %04o): chmod 600 %s", path, stat.Mode().Perm(), path)
	}
	if stat.Size() > int64(limit) {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	data := make([]byte, limit+1) // one buffer, so that no copy of a secret is left behind by growing
	n, err := io.ReadFull(f, data)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if n > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data[:n:n], nil
}
