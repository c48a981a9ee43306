package main

import (
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/tsa"
)

// book is what clients were given: the only thing that counts after a crash. It holds every answer against those before it:
//
//   - no serial is handed out twice, of a certificate or of a token;
//   - OCSP does not say unknown of a certificate in an answer whose thisUpdate is after the certificate was received;
//   - it does not say good in an answer whose thisUpdate is after the time of the revocation, which the CA acknowledged, whether the
//     answer or the acknowledgement came first;
//   - who asks after good was answered does not hear unknown, and after revoked nothing else;
//   - it does not say revoked of what nobody asked to be revoked, nor of another time than the CA;
//   - who asks for a token after another was received gets no earlier genTime, and none that is before the question or after the
//     answer by more than its accuracy.
type book struct {
	fault func(format string, args ...any)

	mu      sync.Mutex
	certs   map[string]*handedOut // by serial
	order   []string              // serials as they were handed out
	asked   []string              // serials whose revocation was asked for
	listed  []string              // serials acknowledged as being on the CRL
	fresh   []string              // serials handed out or acknowledged as revoked since the CA was killed last
	pool    []string              // if not nil, what is asked without nonce: as many answers as a cache holds
	tokens  map[string]tokenOf    // by serial
	lastGen time.Time             // greatest genTime
	lastCRL uint64
	crls    map[uint64][32]byte // digests of those fetched
}

// handedOut is a certificate and what was said of it.
type handedOut struct {
	digest    [32]byte
	received  time.Time
	revoking  bool      // its revocation was asked for
	revokedAt time.Time // acknowledged; as the journal's entry says
	said      string    // by OCSP, last: good, revoked
	lastGood  time.Time // greatest thisUpdate of a good
	saidSince time.Time // revocationTime of a revoked
}

// tokenOf is what the TSA's journal has to hold.
type tokenOf struct {
	digest  [32]byte
	genTime time.Time
}

func newBook(fault func(format string, args ...any)) *book {
	return &book{fault: fault, certs: map[string]*handedOut{}, tokens: map[string]tokenOf{}, crls: map[uint64][32]byte{}}
}

// issued enters a certificate; false: the serial is there.
func (b *book) issued(serial string, digest [32]byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.certs[serial] != nil {
		return false
	}
	b.certs[serial] = &handedOut{digest: digest, received: time.Now()}
	b.order = append(b.order, serial)
	b.fresh = append(b.fresh, serial)
	return true
}

// about is a copy of what is known of a certificate now.
func (b *book) about(serial string) handedOut {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.certs[serial]; c != nil {
		return *c
	}
	return handedOut{}
}

// takeToRevoke chooses among the last thousand.
func (b *book) takeToRevoke(n int) (serials []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	recent := b.order[max(0, len(b.order)-1000):]
	for range min(n, len(recent)) {
		serial := recent[rand.IntN(len(recent))]
		if c := b.certs[serial]; !c.revoking {
			c.revoking = true
			serials = append(serials, serial)
		}
	}
	b.asked = append(b.asked, serials...)
	return serials
}

// acknowledge enters a revocation that the CA acknowledged; onCRL: by saying that the CRL shows it.
func (b *book) acknowledge(serial string, at time.Time, onCRL bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.certs[serial]
	c.revokedAt = at
	b.fresh = append(b.fresh, serial)
	if onCRL {
		b.listed = append(b.listed, serial)
	}
	if c.lastGood.After(at) {
		b.fault("%s is revoked since %v, and OCSP said good as of %v", serial, at, c.lastGood)
	}
	if !c.saidSince.IsZero() && !c.saidSince.Equal(at.Truncate(time.Second)) {
		b.fault("%s is revoked since %v, OCSP said since %v", serial, at, c.saidSince)
	}
}

// choose picks a certificate to ask for: of the newest, of the revoked, of all.
func (b *book) choose(withNonce bool) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := b.order
	switch {
	case !withNonce && b.pool != nil:
		from = b.pool
	case rand.IntN(2) == 0:
		from = from[max(0, len(from)-200):]
	case rand.IntN(2) == 0:
		from = b.asked[max(0, len(b.asked)-200):]
	}
	if len(from) == 0 {
		return "", false
	}
	return from[rand.IntN(len(from))], true
}

// fixPool has questions without nonce be about a few hundred certificates from now on: the responder's cache stops growing.
func (b *book) fixPool() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pool = append([]string{}, b.order[max(0, len(b.order)-300):]...)
}

// answerOf is an OCSP answer; before is what was known when it was asked for.
type answerOf struct {
	serial   string
	before   handedOut
	said     string
	asked    time.Time
	response *ocsp.Response
}

// heard judges an answer and enters it.
func (b *book) heard(a answerOf) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, this := b.certs[a.serial], a.response.ThisUpdate
	if this.After(time.Now()) || !a.response.NextUpdate.After(a.asked) {
		b.fault("OCSP of %s holds from %v to %v, which is not now", a.serial, this, a.response.NextUpdate)
	}
	if a.before.said == "revoked" && a.said != "revoked" || a.before.said == "good" && a.said == "unknown" {
		b.fault("OCSP of %s: %s after %s", a.serial, a.said, a.before.said)
	}
	switch a.said {
	case "unknown":
		if this.After(c.received) {
			b.fault("OCSP of %s: unknown as of %v, it was received at %v", a.serial, this, c.received)
		}
		return
	case "good":
		if !c.revokedAt.IsZero() && this.After(c.revokedAt) {
			b.fault("OCSP of %s: good as of %v, it is revoked since %v", a.serial, this, c.revokedAt)
		}
		if this.After(c.lastGood) {
			c.lastGood = this
		}
	case "revoked":
		if since := a.response.RevokedAt; !c.revoking || !c.revokedAt.IsZero() && !since.Equal(c.revokedAt.Truncate(time.Second)) {
			b.fault("OCSP of %s: revoked since %v; asked for: %v, acknowledged: %v", a.serial, since, c.revoking, c.revokedAt)
		}
		c.saidSince = a.response.RevokedAt
	}
	if c.said != "revoked" {
		c.said = a.said
	}
}

// lastGenTime is the greatest so far.
func (b *book) lastGenTime() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lastGen
}

// stamped judges a verified token and enters it; before is lastGenTime when it was asked for.
func (b *book) stamped(token *tsa.Timestamp, before time.Time, o tsa.VerifyOptions) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.tokens[token.SerialNumber]; there {
		b.fault("two tokens have the serial %s", token.SerialNumber)
	}
	if token.GenTime.Before(before) {
		b.fault("token %s says %v, one received before it was asked for %v", token.SerialNumber, token.GenTime, before)
	}
	if token.GenTime.Add(token.Accuracy).Before(o.Since) || token.GenTime.Add(-token.Accuracy).After(o.Now) {
		b.fault("token %s says %v ± %v, it was made between %v and %v", token.SerialNumber, token.GenTime, token.Accuracy, o.Since, o.Now)
	}
	b.tokens[token.SerialNumber] = tokenOf{sha256.Sum256(token.Token), token.GenTime}
	if token.GenTime.After(b.lastGen) {
		b.lastGen = token.GenTime
	}
}

// crlSoFar is the last number fetched, and what has to be on the next.
func (b *book) crlSoFar() (number uint64, listed []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lastCRL, b.listed[:len(b.listed):len(b.listed)]
}

// fetched enters a CRL; false: there was another with its number.
func (b *book) fetched(number uint64, digest [32]byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastCRL = max(b.lastCRL, number)
	had, there := b.crls[number]
	b.crls[number] = digest
	return !there || had == digest
}

// takeFresh returns what the CA, which is dead at this moment, has to know when it is back.
func (b *book) takeFresh() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := b.fresh
	b.fresh = nil
	return fresh
}

// A book that could not see a contradiction would prove nothing.
func TestBook(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	before, after := now.Add(-2*time.Second), now.Add(-time.Second)
	said := func(b *book, what string, this time.Time) {
		r := &ocsp.Response{ThisUpdate: this, NextUpdate: now.Add(time.Hour), RevokedAt: before}
		b.heard(answerOf{serial: "01", before: b.about("01"), said: what, asked: now, response: r})
	}
	stamp := func(b *book, serial string, at, lastGen time.Time) {
		b.stamped(&tsa.Timestamp{SerialNumber: serial, GenTime: at, Accuracy: time.Second}, lastGen, tsa.VerifyOptions{Since: now, Now: now})
	}
	revoke := func(b *book) {
		b.takeToRevoke(1)
		b.acknowledge("01", before.Add(time.Millisecond), true)
	}
	for _, c := range []struct {
		name string
		do   func(b *book)
		ok   bool
	}{
		{"good, then revoked", func(b *book) { said(b, "good", before); revoke(b); said(b, "good", before); said(b, "revoked", after) }, true},
		{"good as of after the revocation", func(b *book) { revoke(b); said(b, "good", after) }, false},
		{"the same, acknowledged later", func(b *book) { said(b, "good", after); revoke(b) }, false},
		{"good after revoked", func(b *book) { revoke(b); said(b, "revoked", after); said(b, "good", before) }, false},
		{"unknown after good", func(b *book) { said(b, "good", before); said(b, "unknown", before) }, false},
		{"unknown before it was received", func(b *book) { said(b, "unknown", before) }, true},
		{"unknown though received", func(b *book) { b.certs["01"].received = before; said(b, "unknown", after) }, false},
		{"revoked though nobody asked", func(b *book) { said(b, "revoked", after) }, false},
		{"revoked at another time", func(b *book) { b.takeToRevoke(1); said(b, "revoked", after); b.acknowledge("01", after, true) }, false},
		{"as of tomorrow", func(b *book) { said(b, "good", now.Add(time.Hour/2)) }, false},
		{"tokens in order", func(b *book) { stamp(b, "01", now, after); stamp(b, "02", now, now) }, true},
		{"a token's serial twice", func(b *book) { stamp(b, "01", now, after); stamp(b, "01", now, now) }, false},
		{"a token before one received", func(b *book) { stamp(b, "01", now, now.Add(time.Millisecond)) }, false},
		{"a token before its question", func(b *book) { stamp(b, "01", before, before) }, false},
	} {
		faults := 0
		b := newBook(func(string, ...any) { faults++ })
		b.issued("01", [32]byte{1})
		if c.do(b); (faults == 0) != c.ok {
			t.Errorf("%s: %d faults", c.name, faults)
		}
	}
	b := newBook(t.Errorf)
	if !b.issued("01", [32]byte{1}) || b.issued("01", [32]byte{1}) || !b.fetched(1, [32]byte{1}) || b.fetched(1, [32]byte{2}) {
		t.Error("a serial or a CRL number may be there twice")
	}
}
