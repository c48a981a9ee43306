package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// only fails the test if dir holds anything but names: a temporary file that was left behind, for one.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("folder holds %v, want %v", got, names)
	}
}

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, content := range []string{"first", "", "the second, longer one"} {
		if err := WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != content {
			t.Errorf("content %q, want %q", got, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 0640", info.Mode().Perm())
	}
	only(t, dir, "a")
}

func TestWriteFileFailureLeavesOldFile(t *testing.T) {
	t.Run("folder missing", func(t *testing.T) {
		dir := t.TempDir()
		err := WriteFile(filepath.Join(dir, "no", "a"), []byte("x"), 0o600)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want not exist", err)
		}
		only(t, dir)
	})
	t.Run("rename refused", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a")
		// A folder that is not empty cannot be replaced by a file.
		if err := MkdirAll(filepath.Join(path, "b"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(path, []byte("x"), 0o600); err == nil {
			t.Error("a folder was replaced")
		}
		only(t, dir, "a")
	})
	t.Run("disk full", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a")
		if err := WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		// fill is what meets a full disk; /dev/full is one.
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		if err := fill(full, []byte("new"), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("error %v, want ENOSPC", err)
		}
		if got := read(t, path); got != "old" {
			t.Errorf("content %q, want old", got)
		}
	})
}

func TestWriteFileReaderNeverSeesHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<15)}
	if err := WriteFile(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 40 {
			if err := WriteFile(path, contents[i%2], 0o600); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read %d octets that nobody wrote", len(got))
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestCreateFileRefusesWhatExists(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := CreateFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CreateFile(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want exist", err)
	}
	if got := read(t, path); got != "first" {
		t.Errorf("content %q, want first", got)
	}
	dangling := filepath.Join(dir, "b")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	if err := CreateFile(dangling, []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("through a dangling link: error %v, want exist", err)
	}
	only(t, dir, "a", "b")
}

func TestCreateFileRaceHasOneWinner(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	const n = 16
	won := make([]bool, n)
	var start, wg sync.WaitGroup
	start.Add(1)
	for i := range n {
		wg.Go(func() {
			start.Wait()
			err := CreateFile(path, fmt.Appendf(nil, "%d", i), 0o600)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				t.Errorf("creator %d: %v", i, err)
			}
			won[i] = err == nil
		})
	}
	start.Done()
	wg.Wait()
	winner := -1
	for i, w := range won {
		if w && winner >= 0 {
			t.Fatalf("both %d and %d won", winner, i)
		}
		if w {
			winner = i
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	if got := read(t, path); got != fmt.Sprint(winner) {
		t.Errorf("content %q, but %d won", got, winner)
	}
	only(t, dir, "a")
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "c")
	for range 2 { // the second time all is there
		if err := MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.IsDir() || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want a folder with 0700", info.Mode())
	}
	file := filepath.Join(dir, "file")
	if err := CreateFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(file, 0o700); err == nil {
		t.Error("a file passed for a folder")
	}
	if err := MkdirAll(filepath.Join(file, "x"), 0o700); err == nil {
		t.Error("a folder was made inside a file")
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, d := range []string{from, to} {
		if err := MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(filepath.Join(from, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rename(from, to); err != nil { // onto an empty folder
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(to, "a")); got != "x" {
		t.Errorf("content %q", got)
	}
	if err := MkdirAll(from, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Rename(from, to); err == nil {
		t.Error("a folder that holds something was replaced")
	}
	if err := Rename(filepath.Join(dir, "nothing"), from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want not exist", err)
	}
	only(t, dir, "from", "to")
	only(t, to, "a")
}

func ExampleCreateFile() {
	dir, err := os.MkdirTemp("", "durable")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "root.pem")
	fmt.Println(CreateFile(path, []byte("one"), 0o644))
	fmt.Println(errors.Is(CreateFile(path, []byte("two"), 0o644), fs.ErrExist))
	// Output:
	// <nil>
	// true
}

func BenchmarkWriteFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a")
	data := make([]byte, 4096)
	for b.Loop() {
		if err := WriteFile(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}
