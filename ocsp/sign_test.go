package ocsp

import (
	"bytes"
	"context"
	"crypto"
	"encoding/binary"
	"io"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// slowKey signs when it is let: one signature for each value from turn, any number once it is closed.
type slowKey struct {
	crypto.Signer
	turn chan struct{}
}

func (k *slowKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	<-k.turn
	return k.Signer.Sign(random, digest, opts)
}

// slow makes the responder's key slow and its queue as long as that, and returns the key's turns.
func (p *provider) slow(waiting, turns int) chan struct{} {
	p.t.Helper()
	turn := make(chan struct{})
	p.key.Signer = &slowKey{p.key.Signer, turn}
	p.responder.signing = &signing{waiting: make(chan struct{}, waiting), turns: make(chan struct{}, turns), wait: time.Second}
	return turn
}

// background sends request and returns where the response will come.
func (p *provider) background(ctx context.Context, request []byte) <-chan []byte {
	done := make(chan []byte, 1)
	go func() { done <- p.responder.Respond(ctx, request) }()
	return done
}

// withNonce is a request that nobody else sends.
func (p *provider) withNonce(serial *big.Int, n int) []byte {
	p.t.Helper()
	nonce := binary.BigEndian.AppendUint64(make([]byte, 24), uint64(n))
	return requestSpec{list: [][]byte{p.certID(crypto.SHA1, serial)}, extensions: []der.Extension{nonceExtension(p.t, nonce)}}.marshal(p.t)
}

// Whoever asks the same while it is being signed gets that answer; nobody makes the key sign it again.
func TestSignedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, nil)
		serial := p.issue()
		p.checkpoint()
		turn := p.slow(200, 2)
		var pending []<-chan []byte
		for range 100 {
			pending = append(pending, p.background(t.Context(), p.request(serial)))
		}
		synctest.Wait()
		if got := p.metric("zegel_ocsp_signatures_waiting"); got != 100 {
			t.Errorf("%v wait, want 100", got)
		}
		close(turn)
		first := <-pending[0]
		p.mustSucceed(first)
		for _, done := range pending[1:] {
			if !bytes.Equal(<-done, first) {
				t.Fatal("another answer")
			}
		}
		if got, hits := p.signatures(), p.metric("zegel_ocsp_cache_hits_total"); got != 1 || hits != 99 {
			t.Errorf("%d signatures, %v without one", got, hits)
		}
		if got := p.metric("zegel_ocsp_signatures_waiting"); got != 0 {
			t.Errorf("%v wait, want 0", got)
		}
	})
}

// More requests than the key can sign are told tryLater: at once when the queue is full, after a second when it is not.
func TestSignaturesBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, nil)
		serial := p.issue()
		p.checkpoint()
		turn := p.slow(8, 2)
		done := make(chan []byte, 20)
		for n := range 20 {
			go func() { done <- p.responder.Respond(t.Context(), p.withNonce(serial, n)) }()
		}
		refused := func(want int) {
			t.Helper()
			synctest.Wait()
			if len(done) != want {
				t.Errorf("%d answered, want %d", len(done), want)
			}
			for range len(done) {
				if got := <-done; !bytes.Equal(got, refusal(tryLater)) {
					t.Errorf("response %x", got)
				}
			}
		}
		refused(12)
		time.Sleep(time.Second)
		refused(6)
		close(turn)
		p.mustSucceed(<-done)
		p.mustSucceed(<-done)
		if got := p.signatures(); got != 2 {
			t.Errorf("%d signatures", got)
		}
		p.ask(serial) // and the way is free again
	})
}

// Callers that hang up while they wait are let go and cost no signature; who asked the same after them still gets it.
func TestSignaturesGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, nil)
		serial := p.issue()
		p.checkpoint()
		turn := p.slow(2000, 1)
		busy := p.background(t.Context(), p.withNonce(serial, 0))
		synctest.Wait()
		ctx, hangUp := context.WithCancel(t.Context())
		var pending []<-chan []byte
		pending = append(pending, p.background(ctx, p.request(serial))) // it is for this one that the others wait
		synctest.Wait()
		stays := p.background(t.Context(), p.request(serial))
		for n := range 1000 {
			pending = append(pending, p.background(ctx, p.request(serial)), p.background(ctx, p.withNonce(serial, n)))
		}
		synctest.Wait()
		hangUp()
		synctest.Wait()
		if got := p.metric("zegel_ocsp_signatures_waiting"); got != 2 {
			t.Errorf("%v wait, want the two that are there", got)
		}
		for _, done := range pending {
			if got := <-done; !bytes.Equal(got, refusal(tryLater)) {
				t.Fatalf("response %x", got)
			}
		}
		close(turn)
		p.mustSucceed(<-busy)
		p.mustSucceed(<-stays)
		if got := p.signatures(); got != 2 {
			t.Errorf("%d signatures, want 2", got)
		}
	})
}

// An answer that holds but is due to be signed anew is given while there is no turn; one that no longer holds is not.
func TestOlderAnswer(t *testing.T) {
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newProvider(t, nil)
			serial, other := p.issue(), p.issue()
			p.checkpoint()
			first := p.responder.Respond(t.Context(), p.request(serial))
			p.responder.Respond(t.Context(), p.request(other))
			p.pass(2 * time.Minute)
			turn := p.slow(2, 1)
			defer close(turn)
			p.background(t.Context(), p.withNonce(serial, 1))
			if full {
				p.background(t.Context(), p.withNonce(serial, 2))
			}
			synctest.Wait()
			if got := p.responder.Respond(t.Context(), p.request(serial)); !bytes.Equal(got, first) {
				t.Errorf("response %x", got)
			}
			p.mustRefuseRequest(tryLater, p.withNonce(serial, 3))
			p.mustRefuse(tryLater, big.NewInt(99))
			p.revoke(other, journal.KeyCompromise)
			p.mustRefuse(tryLater, other)
		})
	}
}

// A signature that was begun before a revocation is not shared with who asks after it.
func TestSharedNeverHidesRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, nil)
		serial := p.issue()
		p.checkpoint()
		turn := p.slow(10, 10)
		before := p.background(t.Context(), p.request(serial))
		synctest.Wait()
		p.revoke(serial, journal.KeyCompromise)
		after := p.background(t.Context(), p.request(serial))
		synctest.Wait()
		close(turn)
		if got := p.mustSucceed(<-before).singles[0].status.state; got != good {
			t.Errorf("before: %v", got)
		}
		if got := p.mustSucceed(<-after).singles[0].status.state; got != revoked {
			t.Errorf("after: %v", got)
		}
		if got := p.ask(serial).singles[0].status.state; got != revoked {
			t.Errorf("later: %v", got)
		}
	})
}
