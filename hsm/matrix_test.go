package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// called are the PKCS#11 functions that signing, wrapping, logging in and repairing call, each with what makes it be called: nothing, a lost
// session, a lost login or a module that is no longer initialised.
var called = map[string][]string{
	"":                            {"C_SignInit", "C_Sign", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"},
	"C_SignInit 1 1 answer 0xb3":  {"C_OpenSession", "C_CloseSession"},
	"C_SignInit 1 1 lose":         {"C_Login", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue"},
	"C_SignInit 1 1 answer 0x190": {"C_GetInfo", "C_Finalize", "C_Initialize", "C_GetSlotList", "C_GetTokenInfo"},
	"C_SignInit 1 1 restart":      {"C_OpenSession", "C_Login"},
}

// byKeeper is the function that is called while nobody works.
const byKeeper = "C_GetSessionInfo"

// lane is a token of its own behind a module of its own: lanes run side by side.
type lane struct {
	*hsmtest.Faulty
	tokens   *hsm.Tokens
	key      *hsm.Key
	wrapping *hsm.WrappingKey
	leaked   int // sessions that are open with the token and nobody knows of
}

// lanes makes n of them, all with what configure sets.
func lanes(t *testing.T, n int, configure func(*hsm.Config)) []*lane {
	t.Helper()
	first := hsmtest.NewFaulty(t)
	configure(&first.Config)
	all := []*lane{{Faulty: first}}
	for i := range n - 1 {
		all = append(all, &lane{Faulty: all[i].Beside(t, fmt.Sprint("lane ", i+2))})
	}
	for _, l := range all {
		l.open(t, func(tokens *hsm.Tokens) {
			generate(t, tokens, l.URI("sign"), hsm.P256)
			if _, err := tokens.GenerateWrappingKey(l.URI("wrap")); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() {
			l.Break(t)
			if err := l.tokens.Close(); err != nil {
				t.Error(err)
			}
			if n := l.Sessions(t); n != 0 {
				t.Errorf("%d sessions are open after Close", n)
			}
		})
	}
	return all
}

// open opens Tokens with the lane's keys.
func (l *lane) open(t *testing.T, prepare func(*hsm.Tokens)) {
	t.Helper()
	var err error
	l.tokens = hsm.New(l.Config)
	prepare(l.tokens)
	if l.key, err = l.tokens.Key(l.URI("sign")); err != nil {
		t.Fatal(err)
	}
	if l.wrapping, err = l.tokens.WrappingKey(l.URI("wrap")); err != nil {
		t.Fatal(err)
	}
}

// work is what a daemon asks a token for: a signature, and a secret wrapped and unwrapped. What comes back must be right.
func (l *lane) work(t *testing.T, what string) error {
	t.Helper()
	failed := trySign(t, l.key)
	sealed, err := l.wrapping.Wrap([]byte(what))
	if err != nil {
		return errors.Join(failed, err)
	}
	secret, err := l.wrapping.Unwrap(sealed)
	if err == nil && !bytes.Equal(secret, []byte(what)) {
		t.Errorf("%s: unwrapped %q", what, secret)
	}
	return errors.Join(failed, err)
}

// oneCase is a fault and what makes the function be called that has it.
type oneCase struct {
	trigger, function, action string
	code                      pkcs11.Error
	count                     int // 0: until it is taken back
	pin                       bool
}

func (c oneCase) String() string {
	return fmt.Sprintf("%s %s 0x%x (%d times, after %q)", c.function, c.action, uint(c.code), c.count, c.trigger)
}

// try runs one case: while the fault lasts, work is done or refused, never wrong; once it has ended, work is done within 2 s.
func (l *lane) try(t *testing.T, c oneCase) {
	t.Helper()
	l.Break(t, c.trigger, fmt.Sprintf("%s 1 %d %s 0x%x", c.function, c.count, c.action, uint(c.code)))
	err := l.work(t, c.String())
	for end := time.Now().Add(3 * time.Second); c.function == byKeeper && l.Calls(t, byKeeper) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	calls := l.Calls(t, c.function)
	ends := c.function == "C_Finalize" || c.function == "C_GetInfo" // a process is not asked, but ended
	if calls == 0 && !(ends && l.Config.Isolation == hsm.IsolationProcess) {
		t.Errorf("%s: was not called", c)
	}
	l.Break(t)
	refused := errors.Is(err, hsm.ErrPINRefused)
	switch {
	case err == nil, errors.Is(err, hsm.ErrUnavailable), errors.Is(err, c.code) && !refused:
	case c.function == "C_GetAttributeValue" && c.code == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID: // an object that lacks what ours have
	case refused && c.pin:
		if err := trySign(t, l.key); !errors.Is(err, hsm.ErrPINRefused) {
			t.Errorf("%s: after the refusal: %v; want another", c, err)
		}
		if err := l.tokens.Activate(l.URI("sign")); err != nil { // an officer decides
			t.Errorf("%s: activate: %v", c, err)
		}
	default:
		t.Errorf("%s: %v", c, err)
	}
	begin := time.Now()
	for err := l.work(t, c.String()); err != nil; err = l.work(t, c.String()) {
		if !errors.Is(err, hsm.ErrUnavailable) || time.Since(begin) > 2*time.Second {
			t.Errorf("%s: %v after the fault: %v", c, time.Since(begin), err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.Break(t, "C_SignInit 1 1 answer 0xb3") // a new session, which first closes what is left over
	if err := trySign(t, l.key); err != nil {
		t.Errorf("%s: %v", c, err)
	}
	l.checkSessions(t, c)
}

// checkSessions compares what the token has open with what the pool knows of. One that the token opened while it said that it did not, or keeps
// while it says that there is none, can be known to nobody.
func (l *lane) checkSessions(t *testing.T, c oneCase) {
	t.Helper()
	may := l.leaked
	gone := []pkcs11.Error{pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED}
	if c.function == "C_OpenSession" && c.action == "after" || c.function == "C_CloseSession" && slices.Contains(gone, c.code) {
		may++
	}
	unknown := -1
	for end := time.Now().Add(time.Second); (unknown < 0 || unknown > may) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		opened, err := hsm.OpenSessions(l.tokens, l.URI("sign")) // what looks after idle tokens may be opening one
		if err != nil {
			t.Errorf("%s: %v", c, err)
		}
		unknown = l.Sessions(t) - opened - 1 // the administrative one
	}
	if unknown < 0 || unknown > may {
		t.Errorf("%s: %d sessions more than before are open with the token", c, unknown-l.leaked)
	}
	l.leaked = unknown
}

// matrix are all cases with some codes, and whether each says that the token does not take the PIN.
func matrix(codes map[pkcs11.Error]bool) []oneCase {
	var cases []oneCase
	for _, trigger := range slices.Sorted(maps.Keys(called)) {
		for _, function := range called[trigger] {
			for _, code := range slices.Sorted(maps.Keys(codes)) {
				cases = append(cases,
					oneCase{trigger, function, "answer", code, 1, codes[code]},
					oneCase{trigger, function, "after", code, 1, codes[code]},
					oneCase{trigger, function, "answer", code, 0, codes[code]})
			}
		}
	}
	return cases
}

// Nothing is called by work and repairs that the matrix has not.
func TestMatrixIsWhole(t *testing.T) {
	l := lanes(t, 1, matrixSettings(hsm.IsolationNone))[0]
	known := []string{byKeeper}
	for _, functions := range called {
		known = append(known, functions...)
	}
	for trigger := range called {
		l.Break(t, trigger)
		if err := l.work(t, "after: "+trigger); err != nil {
			t.Errorf("%s: %v", trigger, err)
		}
		for function := range l.Called(t) {
			if !slices.Contains(known, function) {
				t.Errorf("%s is called, and not in the matrix", function)
			}
		}
	}
}

// Every code in answer to the question that keeps idle sessions alive.
func TestKeeperMatrix(t *testing.T) {
	var cases []oneCase
	for code, pin := range hsm.Faults() {
		cases = append(cases, oneCase{"", byKeeper, "answer", code, 1, pin})
	}
	runCases(t, lanes(t, 16, func(c *hsm.Config) {
		c.Sessions, c.KeepAlive, c.Isolation = 4, 200*time.Millisecond, hsm.IsolationNone
	}), cases)
}

// Every code × every function that work and its repair call, before and after the call, once and until it is taken back, with the module in this
// process; of each kind of code one or more with the module in a process of its own, through whose socket codes are but numbers.
func TestFaultMatrix(t *testing.T) {
	all := hsm.Faults()
	all[0x80000107] = false // a vendor's
	some := map[pkcs11.Error]bool{pkcs11.CKR_PIN_INCORRECT: true, pkcs11.CKR_PIN_LOCKED: true, pkcs11.CKR_DATA_LEN_RANGE: false, pkcs11.CKR_BUFFER_TOO_SMALL: false}
	for _, code := range broken() {
		some[pkcs11.Error(code)] = false
	}
	t.Run(hsm.IsolationNone, func(t *testing.T) { runCases(t, lanes(t, 16, matrixSettings(hsm.IsolationNone)), matrix(all)) })
	t.Run(hsm.IsolationProcess, func(t *testing.T) { runCases(t, lanes(t, 16, matrixSettings(hsm.IsolationProcess)), matrix(some)) })
}

func matrixSettings(isolation string) func(*hsm.Config) {
	return func(c *hsm.Config) { c.Sessions, c.KeepAlive, c.Isolation = 4, time.Second, isolation }
}

func runCases(t *testing.T, all []*lane, cases []oneCase) {
	t.Helper()
	spread(t, all, cases, func(l *lane, c oneCase) { l.try(t, c) })
}

// spread tries every case in the next lane that is free. Afterwards nothing is left behind.
func spread[C any](t *testing.T, all []*lane, cases []C, try func(*lane, C)) {
	t.Helper()
	before, files, processes := runtime.NumGoroutine(), openFiles(t), len(helpers(t))
	next := make(chan C)
	var group sync.WaitGroup
	for _, l := range all {
		group.Go(func() {
			for c := range next {
				try(l, c)
			}
		})
	}
	for _, c := range cases {
		next <- c
	}
	close(next)
	group.Wait()
	t.Logf("%d cases", len(cases))
	if n := openFiles(t); n > files {
		t.Errorf("%d files are open, there were %d", n, files)
	}
	if n := len(helpers(t)); n != processes {
		t.Errorf("%d processes of modules are there, there were %d", n, processes)
	}
	wantGoroutines(t, before)
}
