package hsm

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestReadPIN(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("ZEGEL_TEST_PIN", "from env")
	t.Setenv("ZEGEL_TEST_EMPTY", "")
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := file("plain", "p1n4", 0o600)
	for _, test := range []struct{ source, want, err string }{
		{source: plain, want: "p1n4"},
		{source: "file:" + plain, want: "p1n4"},
		{source: "file://" + plain, want: "p1n4"},
		{source: "file://localhost" + plain, want: "p1n4"},
		{source: file("readonly", "p1n4", 0o400), want: "p1n4"},
		{source: file("newline", "12 34\n", 0o600), want: "12 34"},
		{source: file("crlf", "p1n4\r\n", 0o600), want: "p1n4"},
		{source: "env:ZEGEL_TEST_PIN", want: "from env"},
		{source: file("long", strings.Repeat("9", 255)+"\n", 0o600), want: strings.Repeat("9", 255)},
		{source: file("empty", "", 0o600), err: "the PIN is empty"},
		{source: file("blank", "\n", 0o600), err: "the PIN is empty"},
		{source: file("lines", "p1n4\n\n", 0o600), err: "more than one line"},
		{source: file("zero", "12\x0034", 0o600), err: "zero byte"},
		{source: file("longer", strings.Repeat("9", 256), 0o600), err: "longer than 255 bytes"},
		{source: file("huge", strings.Repeat("9", 1000), 0o600), err: "larger than 510 bytes"},
		{source: file("group", "p1n4", 0o640), err: "chmod 600"},
		{source: file("others", "p1n4", 0o604), err: "chmod 600"},
		{source: dir, err: "not a regular file"},
		{source: fifo, err: "not a regular file"},
		{source: filepath.Join(dir, "missing"), err: "no such file"},
		{source: "env:ZEGEL_TEST_UNSET", err: "ZEGEL_TEST_UNSET is not set"},
		{source: "env:ZEGEL_TEST_EMPTY", err: "the PIN is empty"},
		{source: "pin", err: "give file:/absolute/path"},
		{err: "add pin-source="},
	} {
		var got string
		err := URI{PINSource: test.source}.withPIN(func(pin []byte) error {
			got = string(pin)
			return nil
		})
		if test.err == "" && (err != nil || got != test.want) {
			t.Errorf("%s: %q, %v; want %q", test.source, got, err, test.want)
		}
		if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %q, %v; want an error with %q", test.source, got, err, test.err)
		}
		if err != nil && strings.Contains(err.Error(), "p1n4") {
			t.Errorf("%s: the error shows the PIN: %v", test.source, err)
		}
	}
}

func TestWithPINWipes(t *testing.T) {
	value := []byte("1234")
	u := URI{pinValue: &value}
	var kept []byte
	for range 2 { // the value in the URI itself stays, for the next token or key
		err := u.withPIN(func(pin []byte) error {
			if string(pin) != "1234" {
				t.Errorf("PIN %q", pin)
			}
			kept = pin
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if string(kept) != "\x00\x00\x00\x00" {
		t.Errorf("the PIN is still in memory: %q", kept)
	}
}
