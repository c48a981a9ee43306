package activation

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTerminal is a terminal of nobody, and the end that types.
func newTerminal(t *testing.T) (terminal, keyboard *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return terminal, keyboard
}

func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// Who is asked for a secret and presses Ctrl-C is asked no more, and has a terminal that shows what is typed.
func TestInterruptedAtPrompt(t *testing.T) {
	o := newOffice(t)
	terminal, keyboard := newTerminal(t)
	asked := make(chan error, 1)
	go func() {
		_, err := Terminal{In: terminal, Out: io.Discard}.Enter(o.config.Tokens, o.split)
		asked <- err
	}()
	for end := time.Now().Add(10 * time.Second); echoes(t, terminal); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the terminal shows what is typed")
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-asked:
		if !errors.Is(err, errInterrupted) || !echoes(t, terminal) {
			t.Errorf("%v; the terminal shows what is typed: %v", err, echoes(t, terminal))
		}
	case <-time.After(10 * time.Second):
		t.Error("the prompt waits on")
	}
	if _, err := keyboard.WriteString("\n"); err != nil { // ends the read that is left
		t.Fatal(err)
	}
}
