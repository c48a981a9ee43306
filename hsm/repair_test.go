package hsm_test

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// trySign makes a signature over something new. A wrong one fails the test.
func trySign(t testing.TB, key *hsm.Key) error {
	t.Helper()
	digest := sha256.Sum256(fmt.Append(nil, time.Now()))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if err := hsmtest.Verify(key.Public(), digest[:], signature, crypto.SHA256); err != nil {
		t.Errorf("wrong signature: %v", err)
	}
	return nil
}

func sign(t testing.TB, key *hsm.Key) {
	t.Helper()
	if err := trySign(t, key); err != nil {
		t.Error(err)
	}
}

// faultyKey is a P-256 key behind the faulty module.
func faultyKey(t *testing.T, sessions int) (*hsmtest.Faulty, *hsm.Tokens, *hsm.Key) {
	t.Helper()
	return isolatedKey(t, hsm.Settings{Sessions: sessions})
}

// isolatedKey is faultyKey with other settings. Calls may take 500 ms with IsolationProcess, where nothing else is said.
func isolatedKey(t *testing.T, settings hsm.Settings) (*hsmtest.Faulty, *hsm.Tokens, *hsm.Key) {
	t.Helper()
	token := hsmtest.NewFaulty(t)
	if settings.Isolation == "" {
		settings.Isolation = token.Config.Isolation
	}
	if settings.Isolation == hsm.IsolationProcess && settings.CallTimeout == 0 {
		settings.CallTimeout = 500 * time.Millisecond
	}
	token.Config.Settings = settings
	tokens := open(t, token.Config)
	key := generate(t, tokens, token.URI("a"), hsm.P256)
	t.Cleanup(func() { token.Break(t) })
	sign(t, key)
	return token, tokens, key
}

// wantGoroutines waits a little for those that are ending.
func wantGoroutines(t *testing.T, want int) {
	t.Helper()
	end := time.Now().Add(2 * time.Second)
	for runtime.NumGoroutine() > want {
		if time.Now().After(end) {
			t.Errorf("%d goroutines, there were %d", runtime.NumGoroutine(), want)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// broken are codes that something is to be done about, one of each class and more.
func broken() map[string]uint {
	return map[string]uint{
		"session closed": pkcs11.CKR_SESSION_CLOSED, "session invalid": pkcs11.CKR_SESSION_HANDLE_INVALID, "operation active": pkcs11.CKR_OPERATION_ACTIVE,
		"no login": pkcs11.CKR_USER_NOT_LOGGED_IN, "key handle": pkcs11.CKR_KEY_HANDLE_INVALID, "no token": pkcs11.CKR_TOKEN_NOT_PRESENT,
		"device error": pkcs11.CKR_DEVICE_ERROR, "device removed": pkcs11.CKR_DEVICE_REMOVED, "not initialised": pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		"general error": pkcs11.CKR_GENERAL_ERROR, "function failed": pkcs11.CKR_FUNCTION_FAILED, "host memory": pkcs11.CKR_HOST_MEMORY, "vendor's": 0x80000107,
	}
}

// One fault of any class, in any function that a signature or its repair needs, costs no signature.
func TestRepairOneFault(t *testing.T) {
	token, tokens, key := faultyKey(t, 4)
	for name, code := range broken() {
		for _, function := range []string{"C_SignInit", "C_Sign", "C_OpenSession", "C_Login", "C_GetTokenInfo", "C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue", "C_CloseSession"} {
			lines := []string{fmt.Sprintf("%s 1 1 answer 0x%x", function, code)}
			if function != "C_Sign" && function != "C_SignInit" {
				lines = append(lines, "C_Sign 1 1 lose") // so that the function is called
			}
			token.Break(t, lines...)
			if err := trySign(t, key); err != nil {
				t.Errorf("%s from %s: %v", name, function, err)
			}
			token.Break(t)
			sign(t, key)
		}
	}
	if n, err := hsm.OpenSessions(tokens, token.URI("a")); n > 4 || err != nil {
		t.Errorf("%d sessions are open, %v", n, err)
	}
}

// A fault that stays through the first repairs is met by the next larger one, and by no larger one than it needs.
func TestRepairEscalates(t *testing.T) {
	token, _, key := faultyKey(t, 4)
	for _, c := range []struct {
		times                int
		logins, initialisers int
	}{{1, 0, 0}, {2, 1, 0}, {3, 2, 1}} {
		token.Break(t)
		token.Forget(t)
		token.Break(t, fmt.Sprintf("C_SignInit 1 %d answer 0x%x", c.times, pkcs11.CKR_FUNCTION_FAILED))
		sign(t, key)
		if logins, initialisers := len(token.Answers(t, "C_Login")), len(token.Answers(t, "C_Initialize")); logins != c.logins || initialisers != c.initialisers {
			t.Errorf("after %d faults: %d logins, %d initialisations; want %d, %d", c.times, logins, initialisers, c.logins, c.initialisers)
		}
	}
}

// What the caller asked in vain is not asked again, and breaks nothing for others.
func TestRequestRefused(t *testing.T) {
	token, _, key := faultyKey(t, 4)
	for _, code := range []uint{pkcs11.CKR_DATA_LEN_RANGE, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED} {
		token.Break(t, fmt.Sprintf("C_SignInit 1 1 answer 0x%x", code))
		if err := trySign(t, key); !errors.Is(err, pkcs11.Error(code)) || errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%v: %v", pkcs11.Error(code), err)
		}
		sign(t, key)
	}
}

// A device that is gone costs its callers no time, is not stormed, and is used again as soon as it is back.
func TestOutage(t *testing.T) {
	for _, c := range []struct{ name, line string }{
		{"device removed", fmt.Sprintf("* 1 0 answer 0x%x", pkcs11.CKR_DEVICE_REMOVED)},
		{"general error", fmt.Sprintf("* 1 0 answer 0x%x", pkcs11.CKR_GENERAL_ERROR)},
		{"no slots", fmt.Sprintf("C_GetSlotList 1 0 answer 0x%x\nC_OpenSession 1 0 answer 0x%x\nC_SignInit 1 0 answer 0x%[2]x", pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_TOKEN_NOT_PRESENT)},
		{"not initialised", fmt.Sprintf("C_Initialize 1 0 answer 0x%x\nC_SignInit 1 0 answer 0x%x", pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)},
	} {
		t.Run(c.name, func(t *testing.T) {
			token, tokens, key := faultyKey(t, 8)
			before := runtime.NumGoroutine()
			token.Forget(t)
			token.Break(t, c.line)
			var fails, repaired atomic.Int64
			var longest atomic.Int64
			end := make(chan struct{})
			var group sync.WaitGroup
			var back atomic.Pointer[time.Time]
			for range 8 {
				group.Go(func() {
					for {
						select {
						case <-end:
							return
						case <-time.After(5 * time.Millisecond):
						}
						begin := time.Now()
						err := trySign(t, key)
						longest.Store(max(longest.Load(), int64(time.Since(begin))))
						switch {
						case err == nil && back.Load() == nil:
							t.Error("a signature during the outage")
						case err == nil:
							repaired.CompareAndSwap(0, int64(time.Since(*back.Load())))
						case !errors.Is(err, hsm.ErrUnavailable):
							t.Error(err)
						default:
							fails.Add(1)
						}
					}
				})
			}
			time.Sleep(1500 * time.Millisecond)
			now := time.Now()
			back.Store(&now)
			token.Break(t)
			for deadline := now.Add(5 * time.Second); repaired.Load() == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			close(end)
			group.Wait()
			if took := time.Duration(repaired.Load()); took == 0 || took > 2*time.Second {
				t.Errorf("signatures came back %v after the token; want within 2 s", took)
			}
			if fails.Load() < 100 || time.Duration(longest.Load()) > 2500*time.Millisecond {
				t.Errorf("%d calls failed, the slowest took %v", fails.Load(), time.Duration(longest.Load()))
			}
			if n := len(token.Answers(t, "C_Initialize")); n > 12 {
				t.Errorf("%d initialisations", n)
			}
			t.Logf("%d calls failed, the slowest took %v; back after %v; %d initialisations", fails.Load(), time.Duration(longest.Load()), time.Duration(repaired.Load()), len(token.Answers(t, "C_Initialize")))
			sign(t, key)
			if n, err := hsm.OpenSessions(tokens, token.URI("a")); n > 8 || err != nil {
				t.Errorf("%d sessions are open, %v", n, err)
			}
			wantGoroutines(t, before)
		})
	}
}

// A PIN that is refused during a repair is tried once, whoever asks, and everybody learns why. Once somebody has corrected it and
// says so, keys work without a restart.
func TestRepairRefusedPIN(t *testing.T) {
	token, tokens, key := faultyKey(t, 4)
	if err := hsm.ChangePIN(tokens, token.URI("a"), "not a secret", "another"); err != nil {
		t.Fatal(err)
	}
	token.Forget(t)
	token.Break(t, "C_SignInit 1 0 lose") // each time, so that no caller slips through before the first has lost the sessions
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5 {
				if err := trySign(t, key); !errors.Is(err, hsm.ErrPINRefused) || !strings.Contains(err.Error(), "correct the PIN, then zegel token activate") {
					t.Errorf("sign: %v", err)
				}
			}
		})
	}
	group.Wait()
	if answers := token.Answers(t, "C_Login"); !slices.Equal(answers, []string{"0xa0"}) {
		t.Errorf("answers of C_Login: %v; want one CKR_PIN_INCORRECT", answers)
	}
	if list, err := tokens.Access(token.URI("a")); err != nil || len(list) != 1 || !errors.Is(list[0].Refused, hsm.ErrPINRefused) {
		t.Errorf("%+v, %v", list, err)
	}
	token.Break(t)
	token.Forget(t)
	// activated without a source to read: no try; too early: one more
	if err := os.Rename(token.PIN, token.PIN+".away"); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Activate(token.URI("a")); err == nil || !strings.Contains(err.Error(), "no such file") || len(token.Answers(t, "C_Login")) > 0 {
		t.Errorf("activate without a PIN to read: %v, logins %v", err, token.Answers(t, "C_Login"))
	}
	if err := os.Rename(token.PIN+".away", token.PIN); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Activate(token.URI("a")); !errors.Is(err, hsm.ErrPINRefused) {
		t.Errorf("activate with the old PIN: %v", err)
	}
	if err := trySign(t, key); !errors.Is(err, hsm.ErrPINRefused) {
		t.Errorf("sign: %v", err)
	}
	if answers := token.Answers(t, "C_Login"); !slices.Equal(answers, []string{"0xa0"}) {
		t.Errorf("answers of C_Login: %v; want one CKR_PIN_INCORRECT", answers)
	}
	if err := os.WriteFile(token.PIN, []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Activate(token.URI("a")); err != nil {
		t.Fatal(err)
	}
	sign(t, key)
	if err := os.Remove(token.PIN); err != nil { // a repair does not need the source any more
		t.Fatal(err)
	}
	token.Break(t, "C_SignInit 1 1 lose")
	sign(t, key)
}

// A PIN that was entered, and is refused during a repair, is wanted again: entered anew, keys work.
func TestRepairRefusedPrompt(t *testing.T) {
	token, tokens, _ := faultyKey(t, 4)
	uri := bySource(t, token.Token, "a", "prompt")
	if err := hsm.ChangePIN(tokens, token.URI("a"), "not a secret", "another"); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Enter(uri, []byte("not a secret")); err != nil {
		t.Fatal(err)
	}
	key, err := tokens.Key(uri) // the login of the other URI serves
	if err != nil {
		t.Fatal(err)
	}
	token.Break(t, "C_SignInit 1 1 lose")
	if err := trySign(t, key); !errors.Is(err, hsm.ErrPINRefused) {
		t.Errorf("sign: %v", err)
	}
	if list, err := tokens.Access(uri); err != nil || !list[0].Wanted() || list[0].Refused == nil {
		t.Errorf("%+v, %v; want a token that wants another PIN", list, err)
	}
	if err := tokens.Enter(uri, []byte("another")); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Activate(uri); err != nil {
		t.Fatal(err)
	}
	sign(t, key)
}

// A key that is gone costs others of its token nothing; one that comes back under the old name but is another one signs nothing.
func TestRepairOtherKey(t *testing.T) {
	token, tokens, _ := faultyKey(t, 4)
	other := generate(t, tokens, token.URI("b"), hsm.P256)
	key, err := tokens.Key(token.URI("a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.Destroy(token.URI("a")); err != nil {
		t.Fatal(err)
	}
	token.Forget(t)
	for range 20 {
		if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "the key is no longer on the token") {
			t.Errorf("sign with a key that is gone: %v", err)
		}
		sign(t, other)
	}
	if logins, initialisers := len(token.Answers(t, "C_Login")), len(token.Answers(t, "C_Initialize")); logins > 4 || initialisers > 0 {
		t.Errorf("a key that is gone cost the others %d logins, %d initialisations", logins, initialisers)
	}
	generate(t, tokens, token.URI("a"), hsm.P256)
	time.Sleep(longestPause)
	if err := trySign(t, key); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("sign: %v; want ErrLost", err)
	}
	sign(t, other)
}

// A signing and a wrapping key, 32 callers and more than a thousand faults: every call succeeds or says that the token is out of service, none gets a wrong
// answer or another's, nothing is left behind.
func TestThousandFaults(t *testing.T) {
	for _, isolation := range []string{hsm.IsolationNone, hsm.IsolationProcess} {
		t.Run(isolation, func(t *testing.T) { thousandFaults(t, isolation) })
	}
}

func thousandFaults(t *testing.T, isolation string) {
	token, tokens, key := isolatedKey(t, hsm.Settings{Sessions: 8, Isolation: isolation, CallTimeout: map[string]time.Duration{hsm.IsolationProcess: 150 * time.Millisecond}[isolation]})
	wrapping, err := tokens.GenerateWrappingKey(token.URI("wrap"))
	if err != nil {
		t.Fatal(err)
	}
	before, files := runtime.NumGoroutine(), openFiles(t)
	end := make(chan struct{})
	var group sync.WaitGroup
	var good, bad atomic.Int64
	var seen sync.Map // signatures: none is given twice
	count := func(err error) {
		switch {
		case err == nil:
			good.Add(1)
		case errors.Is(err, hsm.ErrUnavailable):
			bad.Add(1)
			time.Sleep(time.Millisecond)
		default:
			t.Error(err)
		}
	}
	signOnce := func(caller, n int) error {
		digest := sha256.Sum256(fmt.Append(nil, caller, n))
		signature, err := key.Sign(nil, digest[:], crypto.SHA256)
		if err != nil {
			return err
		}
		if err := hsmtest.Verify(key.Public(), digest[:], signature, crypto.SHA256); err != nil {
			t.Errorf("wrong signature: %v", err)
		}
		if _, twice := seen.LoadOrStore(string(signature), true); twice {
			t.Error("a signature was given twice")
		}
		return nil
	}
	for i := range 32 {
		group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				if i%4 > 0 {
					count(signOnce(i, n))
					continue
				}
				want := fmt.Sprint("secret ", i)
				sealed, err := wrapping.Wrap([]byte(want))
				if err == nil {
					var secret []byte
					if secret, err = wrapping.Unwrap(sealed); err == nil && string(secret) != want {
						t.Errorf("unwrapped %q, want %q", secret, want)
					}
				}
				count(err)
			}
		})
	}
	for i := range 100 {
		faults := tenFaults(i)
		if isolation == hsm.IsolationProcess && len(faults) > 1 {
			faults[i%5] = fmt.Sprintf("%s %d 1 %s", []string{"C_Sign", "C_SignInit", "C_Encrypt", "C_OpenSession", "C_Login"}[i%5], 1+i%10, []string{"hang", "crash"}[i%2])
		}
		token.Break(t, faults...)
		time.Sleep(map[string]time.Duration{hsm.IsolationNone: 20 * time.Millisecond, hsm.IsolationProcess: 80 * time.Millisecond}[isolation])
	}
	token.Break(t)
	time.Sleep(longestPause)
	close(end)
	group.Wait()
	sign(t, key)
	t.Logf("%d calls succeeded, %d were told that the token is out of service; %d initialisations, %d logins",
		good.Load(), bad.Load(), len(token.Answers(t, "C_Initialize")), len(token.Answers(t, "C_Login")))
	opened, err := hsm.OpenSessions(tokens, token.URI("a"))
	if opened > 8 || err != nil {
		t.Errorf("the pool has %d sessions, %v", opened, err)
	}
	if n := token.Sessions(t); n > opened+1 {
		t.Errorf("%d sessions are open with the token; the pool has %d, and one is administrative", n, opened)
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d files are open, there were %d", n, files)
	}
	wantGoroutines(t, before)
	wantProcesses(t, isolation)
}

// tenFaults is round i of them, the same in each run.
func tenFaults(i int) []string {
	if i%25 == 24 {
		return []string{"absent"}
	}
	functions := []string{"C_SignInit", "C_Sign", "C_OpenSession", "C_Login", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_FindObjects"}
	codes := slices.Sorted(maps.Values(broken()))
	var lines []string
	for j := range 10 {
		function := functions[(i*3+j)%len(functions)]
		action := fmt.Sprintf("answer 0x%x", codes[(i+j)%len(codes)])
		switch {
		case j == 0 && i%5 == 0:
			action = "lose"
		case j == 0 && i%5 == 2:
			action = "restart"
		case j%2 == 1 && function != "C_OpenSession": // nobody could know of that session
			action = fmt.Sprintf("after 0x%x", codes[(i+j)%len(codes)])
		}
		lines = append(lines, fmt.Sprintf("%s %d 1 %s", function, 1+j, action))
	}
	return lines
}

// openFiles is how many descriptors this process has.
func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// longestPause is how long a token may be left alone.
const longestPause = time.Second

// Tokens of one module are initialised together: each finds its own keys again, and one that works is not initialised again and
// again for the sake of another.
func TestRepairTwoTokens(t *testing.T) {
	token, tokens, first := faultyKey(t, 4)
	token.Init(t, "second")
	label := token.Label
	token.Label = "second"
	second := generate(t, tokens, token.URI("a"), hsm.P256)
	token.Label = label
	for range 3 { // a module that is not initialised is no use to anybody
		token.Break(t, "C_GetInfo 1 1 answer 0x190", "C_SignInit 1 1 answer 0x190")
		sign(t, first)
		sign(t, second)
	}
	token.Forget(t)
	token.Break(t, fmt.Sprintf("C_SignInit 1 2 answer 0x%x", pkcs11.CKR_DEVICE_ERROR))
	if err := trySign(t, first); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), `token "second" works`) {
		t.Errorf("sign: %v; want a token that is spared", err)
	}
	sign(t, second)
	if n := len(token.Answers(t, "C_Initialize")); n != 0 {
		t.Errorf("%d initialisations; want none", n)
	}
	time.Sleep(longestPause)
	sign(t, first)
}

// A key tells whether its token is in service, and that it is back, without a call.
func TestReady(t *testing.T) {
	token, _, key := faultyKey(t, 4)
	if err := key.Ready(); err != nil {
		t.Error(err)
	}
	token.Break(t, fmt.Sprintf("* 1 0 answer 0x%x", pkcs11.CKR_DEVICE_REMOVED))
	if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatal(err)
	}
	if err := key.Ready(); err == nil || !strings.Contains(err.Error(), "CKR_DEVICE_REMOVED") {
		t.Errorf("during the outage: %v", err)
	}
	token.Break(t)
	for end := time.Now().Add(2 * time.Second); key.Ready() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("2 s after it: %v", key.Ready())
		}
	}
	sign(t, key)
}
