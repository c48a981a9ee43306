package activation

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// Terminal is where people enter secrets: nothing of them is shown. For one goroutine.
type Terminal struct {
	In  *os.File  // a terminal, which does not echo meanwhile; else a secret is one line of it
	Out io.Writer // what is asked
}

// maxSecret bounds a line, in bytes.
const maxSecret = shares.MaxText

// Secret asks for one line. An empty one, and the end of the input, are errors. The caller wipes it.
func (t Terminal) Secret(question string) ([]byte, error) {
	fmt.Fprintf(t.Out, "%s: ", question)
	secret, err := t.read()
	fmt.Fprintln(t.Out)
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: the input has ended: %w: enter it at a terminal, or give a line for each question", question, err)
	}
	if err != nil {
		clear(secret)
		return nil, fmt.Errorf("read %s: %w", question, err)
	}
	if len(secret) == 0 {
		return nil, fmt.Errorf("read %s: nothing was entered", question)
	}
	return secret, nil
}

func (t Terminal) read() ([]byte, error) {
	if fd := int(t.In.Fd()); term.IsTerminal(fd) {
		return readHidden(fd)
	}
	line := make([]byte, maxSecret)
	for n := 0; n < len(line); n++ { // one byte at a time: what follows is the answer to the next question
		read, err := t.In.Read(line[n : n+1])
		if read == 1 && line[n] == '\n' || errors.Is(err, io.EOF) && n > 0 {
			if n > 0 && line[n-1] == '\r' {
				n--
			}
			return line[:n], nil
		}
		if err != nil {
			clear(line)
			return nil, err
		}
	}
	clear(line)
	return nil, fmt.Errorf("longer than %d bytes", maxSecret)
}

// errInterrupted ends what is entered: whoever was asked wants to stop.
var errInterrupted = errors.New("interrupted")

// readHidden is term.ReadPassword that a signal ends, with the terminal as it was before. A program that waits for the signal elsewhere would
// go on reading, and one that dies of it would leave a terminal that shows nothing.
func readHidden(fd int) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	type line struct {
		secret []byte
		err    error
	}
	read := make(chan line, 1)
	go func() { // after a signal it reads on until the program ends
		secret, err := term.ReadPassword(fd)
		read <- line{secret, err}
	}()
	select {
	case l := <-read:
		return l.secret, l.err
	case <-signals:
		return nil, errors.Join(errInterrupted, term.Restore(fd, before))
	}
}

// Entered is a PIN that was entered at a terminal, for a record.
type Entered struct {
	Token  string `json:"token"`            // label
	Shares []int  `json:"shares,omitempty"` // the numbers of the shares that opened it; empty: it was entered whole
	Of     int    `json:"of,omitempty"`     // shares there are
}

// Enter asks for every PIN that tokens want for the keys uris, and enters it: whole, or share by share, each from the person who keeps it. Who that is
// nobody checks here: they are in the room. A share that does not fit is named and asked for again, twice at most; no token is
// asked before the PIN is whole.
func (t Terminal) Enter(tokens *hsm.Tokens, uris ...string) ([]Entered, error) {
	list, err := tokens.Access(uris...)
	if err != nil {
		return nil, err
	}
	var entered []Entered
	done := make(map[string]bool) // sources that several tokens have
	for _, a := range list {
		if !a.Wanted() || a.Shares != "" && done[a.Shares] {
			continue
		}
		done[a.Shares] = true
		e := Entered{Token: a.Label}
		var pin []byte
		if a.Shares == "" {
			pin, err = t.Secret("PIN of token " + a.Label)
		} else {
			pin, err = t.join(a, &e)
		}
		if err != nil {
			return entered, err
		}
		if err := tokens.Enter(enterURI(a), pin); err != nil {
			return entered, err
		}
		entered = append(entered, e)
	}
	return entered, nil
}

// maxMistakes is how often one person may enter a share that does not fit.
const maxMistakes = 3

func (t Terminal) join(a hsm.Access, e *Entered) ([]byte, error) {
	set, err := ReadSet(a.Shares)
	if err != nil {
		return nil, err
	}
	e.Of = set.Shares
	var list []shares.Share
	defer func() {
		for _, s := range list {
			s.Wipe()
		}
	}()
	for mistakes := 0; len(list) < set.Threshold; {
		share, err := t.share(set, list)
		if err != nil {
			if mistakes++; mistakes == maxMistakes || errors.Is(err, io.EOF) || errors.Is(err, errInterrupted) { // nobody is there any more
				return nil, err
			}
			fmt.Fprintf(t.Out, "%v\n", err)
			continue
		}
		mistakes = 0
		list = append(list, share)
		e.Shares = append(e.Shares, share.Number)
	}
	return set.Join(list)
}

// share asks for one that fits and is not among those that are there.
func (t Terminal) share(set *shares.Set, have []shares.Share) (shares.Share, error) {
	text, err := t.Secret(fmt.Sprintf("share %d of %d that open the PIN of %s", len(have)+1, set.Threshold, set.Label))
	if err != nil {
		return shares.Share{}, err
	}
	defer clear(text)
	share, err := shares.ParseShare(text)
	if err != nil {
		return shares.Share{}, err
	}
	for _, h := range have {
		if h.Number == share.Number {
			share.Wipe()
			return shares.Share{}, fmt.Errorf("share %d: %w", h.Number, shares.ErrDoubled)
		}
	}
	if err := set.Check(share); err != nil {
		share.Wipe()
		return shares.Share{}, err
	}
	return share, nil
}
