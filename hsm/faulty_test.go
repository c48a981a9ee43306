package hsm_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// The latency mode is slept, limits signatures as a whole, and makes callers side by side wait no longer than its engines need.
func TestFaultyLatency(t *testing.T) {
	token, _, key := faultyKey(t, 16)
	for _, c := range []struct {
		line            string
		callers, each   int
		atLeast, atMost time.Duration
	}{
		{"latency 5", 1, 10, 100 * time.Millisecond, 2 * time.Second}, // at least C_SignInit and C_Sign
		{"latency 5", 8, 10, 100 * time.Millisecond, 2 * time.Second}, // not one after the other
		{"latency 0 100", 8, 5, 400 * time.Millisecond, 2 * time.Second},
		{"latency 1 100 4", 8, 5, 370 * time.Millisecond, 2 * time.Second},
	} {
		token.Break(t, c.line)
		begin := time.Now()
		var group sync.WaitGroup
		for range c.callers {
			group.Go(func() {
				for range c.each {
					sign(t, key)
				}
			})
		}
		group.Wait()
		if took := time.Since(begin); took < c.atLeast || took > c.atMost {
			t.Errorf("%s: %d callers with %d signatures each took %v, want %v to %v", c.line, c.callers, c.each, took, c.atLeast, c.atMost)
		}
		token.Break(t)
	}
}

// While the token is not in its slot nothing is signed; it is used again within 2 s of its return, in another slot too.
func TestTokenReinserted(t *testing.T) {
	token, _, key := faultyKey(t, 4)
	for i, back := range []string{"", "moved 7", "moved 3", ""} {
		token.Break(t, "absent")
		for range 3 {
			if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) {
				t.Errorf("sign without a token: %v", err)
			}
		}
		token.Break(t, back)
		wantBack(t, fmt.Sprintf("insertion %d (%s)", i+1, back), key)
	}
	token.Break(t)
	sign(t, key)
}

// wantBack has key sign within 2 s.
func wantBack(t *testing.T, what string, key *hsm.Key) {
	t.Helper()
	begin := time.Now()
	for {
		err := trySign(t, key)
		if err == nil {
			return
		}
		if !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
			return
		}
		if time.Since(begin) > 2*time.Second {
			t.Errorf("%s: still no signature after %v: %v", what, time.Since(begin), err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A module that starts anew gives its sessions' and objects' numbers out a second time: nobody is answered with what belongs to another.
func TestModuleRestarts(t *testing.T) {
	token, tokens, first := faultyKey(t, 8)
	keys := []*hsm.Key{first, generate(t, tokens, token.URI("b"), hsm.P256), generate(t, tokens, token.URI("c"), hsm.P256)}
	end := make(chan struct{})
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if err := trySign(t, keys[i%3]); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 20 {
		token.Break(t, fmt.Sprintf("%s %d 1 restart", []string{"C_SignInit", "C_Sign"}[i%2], 1+i%5))
		time.Sleep(30 * time.Millisecond)
	}
	token.Break(t)
	close(end)
	group.Wait()
	for _, key := range keys {
		wantBack(t, "after the restarts", key)
	}
}

// Two faulty modules in one process do not share what goes wrong.
func TestFaultyBeside(t *testing.T) {
	first := hsmtest.NewFaulty(t)
	second := first.Beside(t, "another")
	tokens := open(t, second.Config)
	a, b := generate(t, tokens, first.URI("a"), hsm.P256), generate(t, tokens, second.URI("a"), hsm.P256)
	first.Break(t, "absent")
	second.Break(t)
	sign(t, b)
	if err := trySign(t, a); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("sign without a token: %v", err)
	}
	sign(t, b)
	if second.Calls(t, "C_Initialize") != 0 || second.Calls(t, "C_Sign") == 0 {
		t.Errorf("the second module was initialised %d times, and asked for %d signatures", second.Calls(t, "C_Initialize"), second.Calls(t, "C_Sign"))
	}
	first.Break(t)
	wantBack(t, "the first token", a)
	if n := first.Sessions(t); n != 2 {
		t.Errorf("%d sessions are open with the first token; want the administrative one and one for signatures", n)
	}
}

// A stalled call goes on when the fault ends; a wrong signature is seen to be one.
func TestFaultyStallsAndLies(t *testing.T) {
	token, _, key := faultyKey(t, 4)
	token.Break(t, "C_SignInit 1 1 stall")
	done := make(chan error, 1)
	go func() { done <- trySign(t, key) }()
	select {
	case err := <-done:
		t.Errorf("a stalled call returned: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	token.Break(t, fmt.Sprintf("C_Sign 1 0 after 0x%x", pkcs11.CKR_DATA_LEN_RANGE))
	if err := <-done; !errors.Is(err, pkcs11.Error(pkcs11.CKR_DATA_LEN_RANGE)) {
		t.Errorf("sign: %v; want the answer of the control file", err)
	}
	token.Break(t, "C_Sign 1 0 wrong")
	if err := trySign(t, key); !errors.Is(err, hsm.ErrDistrusted) {
		t.Errorf("sign: %v; want the wrong signature found", err)
	}
}
