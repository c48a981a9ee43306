package shares

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// split makes the split of the tests.
func split(t testing.TB, pin string, n, k int) (*Set, []Share) {
	t.Helper()
	set, list, err := Split([]byte(pin), "token issuing", n, k)
	if err != nil {
		t.Fatal(err)
	}
	return set, list
}

// Every k of the n shares open the PIN, after both were written and read; no fewer do.
func TestJoin(t *testing.T) {
	for _, c := range []struct{ n, k int }{{2, 2}, {3, 2}, {5, 3}, {16, 16}} {
		written, list := split(t, "31415926", c.n, c.k)
		text, err := written.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("31415926")) {
			t.Fatal("the file has the PIN in clear")
		}
		set, err := ParseSet(text)
		if err != nil {
			t.Fatal(err)
		}
		for i, share := range list {
			read, err := ParseShare(share.Text(set))
			if err != nil {
				t.Fatal(err)
			}
			if err := set.Check(read); err != nil {
				t.Error(err)
			}
			list[i] = read
		}
		for first := range list {
			chosen := append(list[first:len(list):len(list)], list[:first]...)[:c.k]
			if pin, err := set.Join(chosen); err != nil || string(pin) != "31415926" {
				t.Errorf("%d of %d from %d on: %q, %v", c.k, c.n, first, pin, err)
			}
			if _, err := set.Join(chosen[1:]); err == nil {
				t.Errorf("%d of %d opened the PIN", c.k-1, c.n)
			}
		}
		if pin, err := set.Join(list); err != nil || string(pin) != "31415926" {
			t.Errorf("all %d: %q, %v", c.n, pin, err)
		}
	}
}

// Wrong, doubled, foreign and damaged shares are told apart.
func TestWhoseShareIsWrong(t *testing.T) {
	set, list := split(t, "31415926", 3, 2)
	_, others := split(t, "31415926", 3, 2)
	if err := set.Check(others[0]); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), set.ID) {
		t.Errorf("foreign: %v", err)
	}
	forged := Share{Number: 2, set: list[1].set, value: bytes.Clone(list[1].value)}
	forged.value[0] ^= 1
	if err := set.Check(forged); !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), "share 2 of the PIN of token issuing") {
		t.Errorf("wrong: %v", err)
	}
	if _, err := set.Join([]Share{list[0], forged}); !errors.Is(err, ErrWrong) {
		t.Errorf("join a wrong one: %v", err)
	}
	renumbered := Share{Number: 3, set: list[1].set, value: list[1].value}
	if err := set.Check(renumbered); !errors.Is(err, ErrWrong) {
		t.Errorf("another's number: %v", err)
	}
	if err := set.Check(Share{Number: 4, set: list[1].set, value: list[1].value}); !errors.Is(err, ErrWrong) {
		t.Errorf("a number that was not given: %v", err)
	}
	if _, err := set.Join([]Share{list[0], list[0]}); !errors.Is(err, ErrDoubled) {
		t.Errorf("doubled: %v", err)
	}
	line := bytes.TrimSpace(list[0].line())
	start := len(prefix) + 1
	for i := start; i < len(line); i++ {
		if line[i] == '-' {
			continue
		}
		for _, c := range []byte("07qz") {
			typo := bytes.Clone(line)
			if typo[i] == c {
				continue
			}
			typo[i] = c
			if _, err := ParseShare(typo); !errors.Is(err, ErrDamaged) {
				t.Errorf("character %d mistyped: %v", i-start, err)
			}
		}
		if _, err := ParseShare(append(bytes.Clone(line[:i]), line[i+1:]...)); !errors.Is(err, ErrDamaged) {
			t.Errorf("character %d lost: %v", i-start, err)
		}
	}
}

// What people type is read.
func TestTyped(t *testing.T) {
	set, list := split(t, "1234", 2, 2)
	line := string(bytes.TrimSpace(list[1].line()))
	alone := strings.TrimPrefix(line, prefix+" ")
	for _, typed := range []string{
		line, strings.ToUpper(line), alone, strings.ReplaceAll(alone, "-", ""), strings.ReplaceAll(alone, "-", " - "), "\n\n" + line + "\r\n\n",
		strings.ReplaceAll(strings.ReplaceAll(alone, "0", "O"), "1", "l"), string(list[1].Text(set)),
	} {
		share, err := ParseShare([]byte(typed))
		if err != nil || share.Number != 2 || set.Check(share) != nil {
			t.Errorf("%q: %v, %v", typed, share.Number, err)
		}
	}
	for _, typed := range []string{"", "\n", "# share\n", prefix, strings.Repeat("0", 5000)} {
		if _, err := ParseShare([]byte(typed)); err == nil {
			t.Errorf("%q is a share", typed)
		}
	}
	if text := string(list[1].Text(set)); !strings.HasPrefix(text, "# Share 2 of 2 of the PIN of token issuing. Any 2") {
		t.Errorf("%q", text)
	}
	list[1].Wipe()
	if !bytes.Equal(list[1].value, make([]byte, valueSize)) {
		t.Error("a wiped share is still there")
	}
}

func TestSplitRefuses(t *testing.T) {
	for _, c := range []struct {
		pin, label string
		n, k       int
	}{
		{"1234", "t", 3, 1}, {"1234", "t", 2, 3}, {"1234", "t", 17, 2}, {"1234", "t", 0, 0}, {"", "t", 3, 2}, {strings.Repeat("1", 256), "t", 3, 2},
		{"1234", "", 3, 2}, {"1234", "a\nb", 3, 2}, {"1234", strings.Repeat("l", 101), 3, 2}, {"1234", "\xff", 3, 2},
	} {
		if _, _, err := Split([]byte(c.pin), c.label, c.n, c.k); err == nil {
			t.Errorf("%+v was split", c)
		}
	}
}

// The file is as it was written, or refused; where it was changed so that it reads, the shares fit no more.
func TestChangedFile(t *testing.T) {
	set, list := split(t, "31415926", 3, 2)
	_, _, err := Split([]byte("x"), "y", 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	text, err := set.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"version": 1`, `"version": 2`}, {`"shares": 3`, `"shares": 1`}, {`"threshold": 2`, `"threshold": 3`}, {`"threshold": 2`, `"threshold": 1`}, {`"id": "`, `"id": "f`},
		{`"label": "token issuing"`, `"label": ""`}, {"\n}", ",\n \"more\": 1}"}, {"{", "{ "}, {`"sealed": "`, `"sealed": "zz`}, {"}\n", "}\n{}\n"},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			t.Fatalf("nothing to change: %q", change)
		}
		if _, err := ParseSet([]byte(changed)); err == nil {
			t.Errorf("%q: read", change)
		}
	}
	for _, change := range [][2]string{{`"shares": 3`, `"shares": 4`}, {"token issuing", "token another"}} {
		other, err := ParseSet([]byte(strings.Replace(string(text), change[0], change[1], 1)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Join(list[:2]); err == nil || !strings.Contains(err.Error(), "the file was changed") {
			t.Errorf("%q: %v", change, err)
		}
	}
}

func FuzzParseShare(f *testing.F) {
	set, list := split(f, "1234", 3, 2)
	f.Add(list[0].Text(set))
	f.Add([]byte(prefix))
	f.Add(bytes.Repeat([]byte("0"), 72))
	f.Fuzz(func(t *testing.T, text []byte) {
		share, err := ParseShare(text)
		if err != nil {
			return
		}
		again, err := ParseShare(share.line())
		if err != nil || again.Number != share.Number || again.set != share.set || !bytes.Equal(again.value, share.value) {
			t.Errorf("%q is not what was read: %v", share.line(), err)
		}
		_ = set.Check(share)
	})
}

func FuzzParseSet(f *testing.F) {
	set, list := split(f, "1234", 3, 2)
	text, err := set.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}"))
	f.Add(bytes.Replace(text, []byte(`"shares": 3`), []byte(`"shares": 5`), 1))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := ParseSet(text)
		if err != nil {
			return
		}
		if again, err := set.Marshal(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("read and written again: %v", err)
		}
		if pin, err := set.Join(list[:min(len(list), set.Threshold)]); err == nil && string(pin) != "1234" {
			t.Errorf("a changed file gave another PIN: %q", pin)
		}
	})
}

func ExampleSplit() {
	set, list, err := Split([]byte("31415926"), "token issuing", 3, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	pin, err := set.Join([]Share{list[2], list[0]})
	fmt.Println(string(pin), err)
	// Output: 31415926 <nil>
}
