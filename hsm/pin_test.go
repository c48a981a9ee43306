package hsm

import (
	"errors"
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
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	file("whole", "p1n4\n", 0o400)
	file("acl", "p1n4", 0o440)
	file("written", "p1n4", 0o460)
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
		{source: "credential:", err: "not followed by the name"},
		{source: "credential:a/b", err: "not followed by the name"},
		{source: "credential:..", err: "not followed by the name"},
		{source: "credential:absent", err: "LoadCredentialEncrypted=absent"},
		{source: "credential:whole", want: "p1n4"},
		{source: "credential:acl", want: "p1n4"},
		{source: "credential:others", err: "chmod 600"},
		{source: "credential:written", err: "chmod 600"},
		{source: "prompt", err: "zegel token activate"},
		{source: "shares:/etc/zegel/shares.json", err: "zegel token activate"},
		{source: "shares:relative", err: "give file:/absolute/path"},
		{err: "add pin-source="},
	} {
		var got string
		err := newPINs().use(URI{PINSource: test.source}, func(pin []byte) error {
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

// A PIN is read once: its source may change, or go, and what was read is used still.
func TestPINReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ZEGEL_TEST_PIN", "env")
	p := newPINs()
	get := func(source string) (string, error) {
		var got string
		err := p.use(URI{PINSource: source}, func(pin []byte) error { got = string(pin); return nil })
		return got, err
	}
	for range 2 {
		for source, want := range map[string]string{"file:" + path: "first", "env:ZEGEL_TEST_PIN": "env"} {
			if got, err := get(source); got != want || err != nil {
				t.Errorf("%s: %q, %v; want %q", source, got, err, want)
			}
		}
		os.Remove(path)
	}
	if _, set := os.LookupEnv("ZEGEL_TEST_PIN"); set {
		t.Error("the variable with the PIN is still in the environment")
	}
	if err := p.readAgain(URI{PINSource: "file:" + path}); err == nil {
		t.Error("a source that is gone was read again")
	}
	if got, err := get("file:" + path); got != "first" || err != nil {
		t.Errorf("after a source could not be read again: %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.readAgain(URI{PINSource: "file:" + path}); err != nil {
		t.Fatal(err)
	}
	if got, err := get("file:" + path); got != "second" || err != nil {
		t.Errorf("after it was read again: %q, %v", got, err)
	}
	p.turnOff()
	if _, err := get("file:" + path); !errors.Is(err, ErrDeactivated) {
		t.Errorf("turned off: %v", err)
	}
}

// A prompt is of one token, a file of all that name it.
func TestPINHolders(t *testing.T) {
	p := newPINs()
	a, b := URI{Token: "a", PINSource: "prompt"}, URI{Token: "b", PINSource: "prompt"}
	pin := []byte("1234")
	if err := p.put(a, pin); err != nil {
		t.Fatal(err)
	}
	if string(pin) != "\x00\x00\x00\x00" {
		t.Errorf("the PIN that was entered is still in memory: %q", pin)
	}
	if !p.holds(URI{Token: "a", Object: "key", Type: "private", PINSource: "prompt"}) || p.holds(b) {
		t.Error("a prompt is of the token, whatever the object")
	}
	if err := p.put(b, nil); err == nil {
		t.Error("an empty PIN was taken")
	}
	p.drop(a)
	if p.holds(a) {
		t.Error("a dropped PIN is held")
	}
}
