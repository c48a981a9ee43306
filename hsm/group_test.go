package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// twoTokens are two tokens, each behind a faulty module of its own, with one P-256 key "a".
func twoTokens(t testing.TB) (first, second *hsmtest.Faulty, uri string) {
	t.Helper()
	first = hsmtest.NewFaulty(t)
	second = first.Beside(t, "second")
	first.Config = second.Config
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	first.Import(t, "a", key)
	second.Import(t, "a", key)
	return first, second, first.URI("a") + "\n  " + second.URI("a")
}

func openKey(t testing.TB, tokens *hsm.Tokens, uri string) *hsm.Key {
	t.Helper()
	key, err := tokens.Key(uri)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// load signs with many callers until end is called, which says how many signatures there were. A failed one fails the test.
func load(t *testing.T, key *hsm.Key, callers int) (made *atomic.Int64, slowest *atomic.Int64, end func()) {
	t.Helper()
	made, slowest = new(atomic.Int64), new(atomic.Int64)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				begin := time.Now()
				if err := trySign(t, key); err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
				for took := int64(time.Since(begin)); ; {
					if before := slowest.Load(); took <= before || slowest.CompareAndSwap(before, took) {
						break
					}
				}
			}
		})
	}
	return made, slowest, func() { close(stop); group.Wait() }
}

// However a token of a group fails in the middle of the work, no signature is lost, and it signs again when it is back.
func TestGroupFailsOver(t *testing.T) {
	for _, c := range []struct {
		name    string
		orders  []string
		slowest time.Duration
	}{
		{"pulled", []string{"absent"}, 2 * time.Second},
		{"device removed", []string{fmt.Sprintf("* 1 0 answer 0x%x", pkcs11.CKR_DEVICE_REMOVED)}, 2 * time.Second},
		{"signs not", []string{fmt.Sprintf("C_SignInit 1 0 answer 0x%x", pkcs11.CKR_FUNCTION_FAILED)}, 2 * time.Second},
		{"turns keys down", []string{fmt.Sprintf("C_SignInit 1 0 answer 0x%x", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED)}, 2 * time.Second},
		{"stalls", []string{"C_Sign 1 0 stall"}, 2 * time.Second},
		{"all stalls", []string{"* 1 0 stall"}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second, uri := twoTokens(t)
			first.Config.Sessions = 8
			var log syncBuffer
			first.Config.Log = slog.New(slog.NewTextHandler(&log, nil))
			tokens := open(t, first.Config)
			key := openKey(t, tokens, uri)
			t.Cleanup(func() { first.Break(t); second.Break(t) })
			for range 2 { // the first signatures open sessions
				sign(t, key)
			}
			before := runtime.NumGoroutine()
			made, slowest, end := load(t, key, 8)
			time.Sleep(300 * time.Millisecond)
			if first.Calls(t, "C_Sign") == 0 || second.Calls(t, "C_Sign") == 0 {
				t.Errorf("%d and %d signatures: not spread", first.Calls(t, "C_Sign"), second.Calls(t, "C_Sign"))
			}
			first.Break(t, c.orders...)
			time.Sleep(700 * time.Millisecond)
			during := made.Load()
			first.Break(t)
			for back := time.Now().Add(4 * time.Second); first.Calls(t, "C_Sign") < 50 && time.Now().Before(back); {
				time.Sleep(10 * time.Millisecond)
			}
			end()
			if first.Calls(t, "C_Sign") < 50 {
				t.Errorf("the token is back and signs not: %d", first.Calls(t, "C_Sign"))
			}
			if took := time.Duration(slowest.Load()); took > c.slowest {
				t.Errorf("the slowest signature took %v", took)
			}
			t.Logf("%d signatures during the outage, %d in all, the slowest %v", during, made.Load(), time.Duration(slowest.Load()))
			if facts, err := tokens.Health(); err != nil {
				t.Errorf("health afterwards: %v, %v", facts, err)
			}
			if text := log.String(); strings.Count(text, "left out") < 1 || !strings.Contains(text, "signs again") {
				t.Errorf("the log does not say what happened:\n%s", text)
			}
			wantGoroutines(t, before)
		})
	}
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A member that gave a wrong signature is asked no more, the others are; the daemon is ready, and warns.
func TestGroupDistrust(t *testing.T) {
	first, second, uri := twoTokens(t)
	tokens := open(t, first.Config)
	key := openKey(t, tokens, uri)
	first.Break(t, "C_Sign 1 0 wrong")
	for range 50 {
		sign(t, key)
	}
	first.Break(t)
	time.Sleep(longestPause)
	for range 50 {
		sign(t, key)
	}
	time.Sleep(10 * time.Millisecond)
	if n := first.Calls(t, "C_Sign"); n != 0 {
		t.Errorf("%d signatures of a token that is not trusted", n)
	}
	facts, err := tokens.Health()
	warnings, _ := facts["warnings"].([]string)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], `token "zegel test" (serial`) {
		t.Errorf("health: %v, %v", facts, err)
	}
	second.Break(t, "C_Sign 1 0 wrong")
	if err := trySign(t, key); !errors.Is(err, hsm.ErrDistrusted) {
		t.Errorf("sign with two tokens that are not trusted: %v", err)
	}
	if facts, err := tokens.Health(); err == nil {
		t.Errorf("health: %v", facts)
	}
}

// A member that is missing at the start joins when it is there, unless it has another key.
func TestGroupMissing(t *testing.T) {
	first, second, uri := twoTokens(t)
	var log syncBuffer
	first.Config.Log = slog.New(slog.NewTextHandler(&log, nil))
	t.Cleanup(func() { first.Break(t); second.Break(t) })
	tokens := open(t, first.Config)
	second.Break(t, "absent")
	key := openKey(t, tokens, uri)
	sign(t, key)
	if info, err := key.Info(); err != nil || info.Token != first.Label || info.URI != strings.Join([]string{"pkcs11:token=zegel%20test;object=a", "pkcs11:token=second;object=a"}, " ") {
		t.Errorf("Info: %+v, %v", info, err)
	}
	if all, err := key.Members(); err == nil || len(all) != 2 || all[0].SerialNumber == "" || all[1].SerialNumber != "" || all[1].PublicKeySHA256 == "" {
		t.Errorf("Members: %+v, %v", all, err)
	}
	if facts, err := tokens.Health(); err != nil || len(facts["warnings"].([]string)) != 1 {
		t.Errorf("health: %v, %v", facts, err)
	}
	second.Break(t)
	for back := time.Now().Add(3 * time.Second); second.Calls(t, "C_Sign") == 0; sign(t, key) {
		if time.Now().After(back) {
			t.Fatal("the second token does not join")
		}
	}
	if all, err := key.Members(); err != nil || len(all) != 2 || all[0].SerialNumber == all[1].SerialNumber || all[1].Token != "second" {
		t.Errorf("Members: %+v, %v", all, err)
	}
	if records, err := tokens.Keys(uri); err != nil || len(records) != 2 {
		t.Errorf("Keys: %+v, %v", records, err)
	}
	if text := log.String(); strings.Contains(text, "another key") {
		t.Errorf("the log:\n%s", text)
	}
}

// A member that was missing and comes with another key signs nothing, and the log says so once.
func TestGroupOtherKey(t *testing.T) {
	first, second, _ := twoTokens(t)
	var log syncBuffer
	first.Config.Log = slog.New(slog.NewTextHandler(&log, nil))
	tokens := open(t, first.Config)
	key := openKey(t, tokens, first.URI("a")+" "+second.URI("later"))
	sign(t, key)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second.Import(t, "later", other)
	for end := time.Now().Add(1200 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		sign(t, key)
	}
	if n := second.Calls(t, "C_Sign"); n != 0 {
		t.Errorf("%d signatures with another key", n)
	}
	if text := log.String(); strings.Count(text, "came with another key") != 1 {
		t.Errorf("the log:\n%s", text)
	}
	if facts, err := tokens.Health(); err != nil || !strings.Contains(fmt.Sprint(facts["warnings"]), "another key") {
		t.Errorf("health: %v, %v", facts, err)
	}
}

// What cannot be a group is refused at the start, by the names of the tokens.
func TestGroupRefused(t *testing.T) {
	first, second, uri := twoTokens(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second.Import(t, "b", other)
	tokens := open(t, first.Config)
	for name, c := range map[string]struct{ uri, want string }{
		"two keys":    {first.URI("a") + " " + second.URI("b"), "hold different keys"},
		"one twice":   {first.URI("a") + " " + first.URI("a"), "named twice"},
		"none there":  {first.URI("c") + " " + second.URI("c"), "none of the 2 keys of the group"},
		"not a URI":   {first.URI("a") + " second", "begins with pkcs11:"},
		"two objects": {uri + " " + second.URI("b"), "hold different keys"},
	} {
		if _, err := tokens.Key(c.uri); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	for name, call := range map[string]func() error{
		"Generate":            func() error { _, err := tokens.Generate(uri, hsm.P256); return err },
		"GenerateWrappingKey": func() error { _, err := tokens.GenerateWrappingKey(uri); return err },
		"Destroy":             func() error { return tokens.Destroy(uri) },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "one token at a time") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tokens.Key(first.URI("a")); err != nil {
		t.Error(err)
	}
}

// BenchmarkGroup is what a second token adds: signatures a second of 32 callers with a group of one and of two, each token a network HSM that
// makes 500 a second (the faulty module sleeps; the signatures are SoftHSM's).
func BenchmarkGroup(b *testing.B) {
	for tokens := 1; tokens <= 2; tokens++ {
		b.Run(fmt.Sprint(tokens), func(b *testing.B) {
			first, second, uri := twoTokens(b)
			if tokens == 1 {
				uri = first.URI("a")
			}
			opened := hsm.New(first.Config)
			defer opened.Close()
			key := openKey(b, opened, uri)
			for _, token := range []*hsmtest.Faulty{first, second} {
				token.Break(b, "latency 2 500")
				defer token.Break(b)
			}
			b.SetParallelism(max(1, 32/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					sign(b, key)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
		})
	}
}

// A wrapping key on several tokens opens while one of them is there, and what one wraps the others open.
func TestWrappingGroup(t *testing.T) {
	first, second, _ := twoTokens(t)
	t.Cleanup(func() { first.Break(t); second.Break(t) })
	first.ImportAES(t, "wrap", bytes.Repeat([]byte{1}, 32))
	second.ImportAES(t, "wrap", bytes.Repeat([]byte{1}, 32))
	second.ImportAES(t, "other", bytes.Repeat([]byte{2}, 32))
	uri := first.URI("wrap") + " " + second.URI("wrap")
	tokens := open(t, first.Config)
	if _, err := tokens.WrappingKey(first.URI("wrap") + " " + second.URI("other")); err == nil || !strings.Contains(err.Error(), "hold different keys") || !strings.Contains(err.Error(), "object=other") {
		t.Errorf("two keys: %v", err)
	}
	key, err := tokens.WrappingKey(uri)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := key.Wrap([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	first.Break(t, "absent")
	if secret, err := key.Unwrap(wrapped); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap without the first token: %q, %v", secret, err)
	}
	if err := tokens.Close(); err != nil {
		t.Log(err) // the first token is gone
	}
	tokens = open(t, first.Config) // as after a restart
	if key, err = tokens.WrappingKey(uri); err != nil {
		t.Fatal(err)
	}
	if secret, err := key.Unwrap(wrapped); err != nil || string(secret) != "secret" {
		t.Errorf("Unwrap after a restart without the first token: %q, %v", secret, err)
	}
	if _, err := key.Unwrap(append([]byte{}, wrapped[:len(wrapped)-1]...)); !errors.Is(err, hsm.ErrWrapped) {
		t.Errorf("Unwrap of something else: %v", err)
	}
	second.Break(t, "absent")
	if _, err := key.Wrap([]byte("secret")); err == nil {
		t.Error("Wrap without any token")
	}
}

// The digest is the caller's again once Sign returns, though a token that nobody waits for any more still works on it.
func TestGroupLateMember(t *testing.T) {
	first, _, uri := twoTokens(t)
	first.Config.Isolation = hsm.IsolationProcess
	tokens := open(t, first.Config)
	key := openKey(t, tokens, uri)
	for range 2 {
		sign(t, key)
	}
	first.Break(t, "C_SignInit 1 0 delay 600") // beyond its silence, and within the limit of a call
	for end := time.Now().Add(10 * time.Second); first.Calls(t, "C_SignInit") == 0 && time.Now().Before(end); {
		digest := sha256.Sum256([]byte("late"))
		if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		clear(digest[:])
	}
	for end := time.Now().Add(5 * time.Second); first.Calls(t, "C_Sign") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the token was never asked")
		}
	}
	time.Sleep(200 * time.Millisecond) // it is verified
	facts, _ := tokens.Health()
	for _, h := range facts["tokens"].([]hsm.TokenHealth) {
		if h.State == hsm.StateDistrusted {
			t.Errorf("%s is distrusted for the signature of a digest that its caller has changed since: %s", h.Token, h.Reason)
		}
	}
}
