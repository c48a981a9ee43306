package hsm_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// The daemon that a token is reached through ends under load and comes back: signatures go on within 2 s, with no restart of ours and none
// wrong.
func TestTokenDaemonRestarts(t *testing.T) {
	token := hsmtest.NewRemote(t)
	// p11-kit's client may wait for ever for a server that died in the middle of an answer: only a process of its own can be ended then.
	token.Config.Isolation, token.Config.CallTimeout = hsm.IsolationProcess, 500*time.Millisecond
	tokens := open(t, token.Config)
	key := generate(t, tokens, token.URI("a"), hsm.P256)
	sign(t, key)
	before := runtime.NumGoroutine()
	end := make(chan struct{})
	var group sync.WaitGroup
	var good atomic.Int64
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(time.Millisecond):
				}
				switch err := trySign(t, key); {
				case err == nil:
					good.Add(1)
				case !errors.Is(err, hsm.ErrUnavailable):
					t.Error(err)
				}
			}
		})
	}
	for i := range 4 {
		token.Stop(t)
		if i%2 == 1 {
			time.Sleep(400 * time.Millisecond) // long enough that repairs have failed
			if err := trySign(t, key); !errors.Is(err, hsm.ErrUnavailable) {
				t.Errorf("sign while the daemon is down: %v", err)
			}
		}
		token.Start(t)
		back := time.Now()
		wantBack(t, "after the daemon's restart", key)
		t.Logf("signatures were back %v after the daemon", time.Since(back))
		time.Sleep(50 * time.Millisecond)
	}
	close(end)
	group.Wait()
	t.Logf("%d signatures", good.Load())
	wantGoroutines(t, before)
}
