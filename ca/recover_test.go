package ca

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// A journal put back from a backup knows less than what was published: to go on from it would make revoked
// certificates good again and use CRL numbers twice.
func TestRecoverRefusesAnOldJournal(t *testing.T) {
	p, clock := newProvider(t)
	issued := p.issue()
	file := p.journalDir() + "/journal.db"
	close := func() {
		if err := p.journal.Close(); err != nil {
			t.Fatal(err)
		}
	}
	swap := func(text []byte) (old []byte) {
		close()
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text == nil {
			text = old
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		p.open()
		p.issuer = p.newIssuer()
		return old
	}
	backup := swap(nil)
	if err := p.issuer.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: issued.Serial, Reason: journal.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	last := p.published().Raw
	clock.advance(time.Minute)
	newest := swap(backup)
	size := p.journal.Size()
	for name, start := range map[string]func() error{
		"CheckStart": p.issuer.CheckStart,
		"Recover":    func() error { return p.issuer.Recover(t.Context()) },
	} {
		if err := start(); !errors.Is(err, ErrOldJournal) || !strings.Contains(err.Error(), "put the newest journal back") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p.journal.Size() != size || !bytes.Equal(p.published().Raw, last) {
		t.Error("the journal grew or the CRL changed")
	}
	if _, err := p.issuer.Issue(t.Context(), p.order()); !errors.Is(err, ErrStopped) {
		t.Errorf("Issue: %v", err)
	}

	// Where the old journal did go on, as it once would have, the numbers meet: same number, another list.
	if err := os.Remove(p.crlFile()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.newIssuer().Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if p.published().Number.Uint64() < 3 {
		t.Fatalf("CRL %d", p.published().Number)
	}
	mine := p.published().Raw
	swap(newest)
	if err := os.WriteFile(p.crlFile(), mine, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.issuer.Recover(t.Context()); !errors.Is(err, ErrOldJournal) || !strings.Contains(err.Error(), "another journal") {
		t.Errorf("two lists of one number: %v", err)
	}

	// The newest journal with its own list goes on.
	if err := os.WriteFile(p.crlFile(), last, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.issuer.Recover(t.Context()); err != nil || p.state(issued.Serial).Status != journal.Revoked {
		t.Errorf("the newest journal: %v", err)
	}
}

// Two CAs share one journal during a ceremony: the start of one must not abandon what the other is about to sign.
func TestRecoverLeavesOtherCAsAlone(t *testing.T) {
	p, _ := newProvider(t)
	p.key.hook(func([]byte) error { p.key.hook(nil, nil); p.newRootIssuer(); return nil }, nil)
	if issued, err := p.issuer.Issue(t.Context(), p.order()); err != nil || p.state(issued.Serial).Status != journal.Issued {
		t.Errorf("got %v", err)
	}

	// A root's own certificate is of the root's own issuing, so its intent is closed by the root.
	root := p.newRootIssuer()
	serial := journal.Serial("\x02root")
	intended, _ := journaltest.Intent(root.ID(), serial)
	journaltest.Append(t, p.journal, intended)
	p.restart()
	if got := p.state(serial).Status; got != journal.Intended {
		t.Errorf("after the issuing CA's start: %v", got)
	}
	p.newRootIssuer()
	if got := p.state(serial).Status; got != journal.Abandoned {
		t.Errorf("after the root's start: %v", got)
	}
}

// An abandonment that fails is tried again by Run; until it is done, health tells of the open intent.
func TestAbandonmentIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		var serial journal.Serial
		var broken atomic.Bool
		broken.Store(true)
		p.issuer.appendEntry = func(ctx context.Context, e journal.Event) (journal.Entry, error) {
			if in, ok := e.(journal.CertificateIntended); ok && serial == "" {
				serial = in.Serial
			}
			if _, ok := e.(journal.CertificateAbandoned); ok && broken.Load() {
				return journal.Entry{}, errStep
			}
			return p.journal.Append(ctx, e)
		}
		p.key.hook(func([]byte) error { return errStep }, nil)
		if _, err := p.issuer.Issue(t.Context(), p.order()); !errors.Is(err, errStep) {
			t.Fatalf("got %v", err)
		}
		p.key.hook(nil, nil)
		p.issue() // the key is back

		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.issuer.Run(ctx) }()
		time.Sleep(staleIntent / 2)
		if _, err := p.issuer.Health(); err != nil {
			t.Errorf("an intent of half a minute: %v", err)
		}
		time.Sleep(staleIntent)
		if _, err := p.issuer.Health(); err == nil || !strings.Contains(err.Error(), serial.String()) {
			t.Errorf("an old open intent: health %v", err)
		}
		broken.Store(false)
		time.Sleep(lastRetry + time.Second)
		synctest.Wait()
		if got := p.state(serial).Status; got != journal.Abandoned {
			t.Errorf("a minute after the cause is gone: %v", got)
		}
		if _, err := p.issuer.Health(); err != nil {
			t.Errorf("health: %v", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A signature that failed is told until one succeeds, and Run sees to that without waiting for an order.
func TestHealthTellsOfFailedSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.issuer.Run(ctx) }()
		p.key.hook(func([]byte) error { return errStep }, nil)
		if _, err := p.issuer.Issue(t.Context(), p.order()); !errors.Is(err, errStep) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(5 * time.Second)
		facts, err := p.issuer.Health()
		if !errors.Is(err, errStep) || facts["signing_error"] == nil {
			t.Errorf("health: %v %v", facts, err)
		}
		p.key.hook(nil, nil)
		time.Sleep(lastRetry + time.Second)
		synctest.Wait()
		if facts, err = p.issuer.Health(); err != nil || facts["signing_error"] != nil {
			t.Errorf("a minute later: %v %v", facts, err)
		}
		stop()
		<-done
	})
}

// lostKey is a checkpoint key whose token went away.
type lostKey struct {
	crypto.Signer
	lost *atomic.Bool
}

func (k lostKey) Sign(r io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.lost.Load() {
		return nil, errStep
	}
	return k.Signer.Sign(r, message, opts)
}

// A CA whose journal gets no checkpoints starves its responders: it is not ready.
func TestHealthTellsOfCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		var lost atomic.Bool
		p.options.CheckpointKey = lostKey{p.options.CheckpointKey, &lost}
		p.restart()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.journal.Run(ctx, 2*time.Second) }()
		time.Sleep(time.Minute)
		if _, err := p.issuer.Health(); err != nil {
			t.Errorf("with checkpoints: %v", err)
		}
		lost.Store(true)
		time.Sleep(time.Minute)
		if _, err := p.issuer.Health(); !errors.Is(err, errStep) {
			t.Errorf("without: %v", err)
		}
		lost.Store(false)
		time.Sleep(5 * time.Second)
		if _, err := p.issuer.Health(); err != nil {
			t.Errorf("with checkpoints again: %v", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("checkpoints: %v", err)
		}
	})
}
