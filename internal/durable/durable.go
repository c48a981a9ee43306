// Package durable makes a file whole or not there: no reader, and no power cut, sees half of one.
//
// The happy path of WriteFile is open(O_CREAT|O_EXCL) of a temporary file in the same folder, write,
// fchmod, fsync, close, rename, fsync of the folder. CreateFile has link in the place of rename, which
// fails where the name is taken, and removes the temporary name afterwards. The promise holds on file
// systems that keep POSIX's order of these calls (ext4, xfs); a disk that lies about fsync breaks it.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// tempPattern names temporary files so that a person who finds one after a crash knows what left it.
// They are never read: one that a crash left may be deleted.
const tempPattern = ".zegel-unfinished-*"

// WriteFile replaces path with data, with mode perm (the umask does not apply). When it returns nil the new
// content survives a power cut. On error the old content is untouched, unless only the last fsync, that of the
// folder, failed: then the new content is in place but a power cut may bring the old back. Safe for concurrent
// use: of two writers one is last, and no reader sees a mixture.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp)))
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// CreateFile is WriteFile for a path that must not exist, not even as a dangling symbolic link; the error wraps
// os.ErrExist when it does. Of any number of creators, in any number of processes, exactly one wins, and nobody
// sees its file before it is whole.
func CreateFile(path string, data []byte, perm os.FileMode) error {
	// Without this look a doomed call would still write a temporary file; link(2) below is what decides.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	temp, err := writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	if err := os.Link(temp, path); err != nil {
		return fmt.Errorf("create %s: %w", path, errors.Join(err, os.Remove(temp)))
	}
	// The file is there. What follows makes the name durable and takes the second name away.
	if err := os.Remove(temp); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

// MkdirAll makes the folder path and its parents, with mode perm for those it makes (before umask), and fsyncs
// each parent that changed. A folder that exists is left as it is; anything else of that name is an error.
func MkdirAll(path string, perm os.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("make folder %s: a file of that name is in the way", path)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make folder %s: %w", path, err)
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	// Another process may have made it meanwhile; its fsync is then not ours to rely on, so ours follows anyhow.
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := syncDir(parent); err != nil {
		return fmt.Errorf("make folder %s: %w", path, err)
	}
	return nil
}

// Rename moves the file or folder from to the name to, on one file system, and fsyncs the folders of both names. It
// replaces a file by a file and an empty folder by a folder, and refuses a folder that holds something. What lies in a
// folder must have been made durable before.
func Rename(from, to string) error {
	// os.Rename refuses every folder that exists, even an empty one; rename(2) does not.
	if err := unix.Rename(from, to); err != nil {
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	if err := errors.Join(syncDir(filepath.Dir(to)), syncDir(filepath.Dir(from))); err != nil {
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	return nil
}

// writeTemp puts data on the disk under a temporary name beside path and returns that name.
func writeTemp(path string, data []byte, perm os.FileMode) (temp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPattern)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := failpoint.Do(failpoint.WriteTemporary, func() error { return fill(f, data, perm) }); err != nil {
		return "", errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	return f.Name(), nil
}

func fill(f *os.File, data []byte, perm os.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(failpoint.Do(failpoint.SyncFolder, d.Sync), d.Close())
}
