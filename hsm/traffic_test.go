package hsm

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// While traffic is held nobody is inside: the holder waits for those who are, newcomers wait for the holder, and neither for ever.
func TestTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var road traffic
		in := func(seconds int) time.Time { return time.Now().Add(time.Duration(seconds) * time.Second) }
		enter := func() {
			t.Helper()
			if err := road.enter(); err != nil {
				t.Fatal(err)
			}
		}
		enter()
		if road.hold(in(1)) {
			t.Fatal("held while a call is inside")
		}
		enter() // a hold that failed keeps nobody out
		road.leave()
		left := time.AfterFunc(500*time.Millisecond, road.leave)
		defer left.Stop()
		if begin := time.Now(); !road.hold(in(1)) || time.Since(begin) != 500*time.Millisecond {
			t.Fatalf("not held when the last call had left, after %v", time.Since(begin))
		}
		var entered atomic.Bool
		go func() {
			if road.enter() == nil {
				entered.Store(true)
				road.leave()
			}
		}()
		synctest.Wait()
		if entered.Load() {
			t.Error("a call entered while traffic was held")
		}
		road.release()
		synctest.Wait()
		if !entered.Load() {
			t.Error("a call did not enter after the release")
		}
		if !road.hold(in(1)) {
			t.Fatal("not held though nobody was inside")
		}
		begin := time.Now()
		if err := road.enter(); !errors.Is(err, ErrUnavailable) || time.Since(begin) != patience {
			t.Errorf("enter during a hold that does not end: %v after %v", err, time.Since(begin))
		}
		road.release()
	})
}
