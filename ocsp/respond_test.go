package ocsp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	xocsp "golang.org/x/crypto/ocsp"
	"golang.org/x/sync/errgroup"
)

// Each state of the journal has its one CertStatus (RFC 6960 §2.2, EN 319 411-1 OVR-6.6.3-02).
func TestRespondStates(t *testing.T) {
	p := newProvider(t, nil)
	intended, issued, abandoned, revokedPlain, revokedKey := p.intend(), p.issue(), p.intend(), p.issue(), p.issue()
	p.pass(time.Minute + 700*time.Millisecond)
	at := epoch.Add(time.Minute) // without the fraction
	p.abandon(abandoned)
	p.revoke(revokedPlain, journal.Unspecified)
	p.revoke(revokedKey, journal.KeyCompromise)
	p.pass(time.Minute)
	huge := new(big.Int).Lsh(big.NewInt(1), 160) // 21 octets

	for _, c := range []struct {
		name   string
		serial *big.Int
		want   certStatus
	}{
		{"issued", issued, certStatus{state: good}},
		{"intended", intended, certStatus{state: unknown}},
		{"never issued", big.NewInt(0x7777), certStatus{state: unknown}},
		{"serial 0", big.NewInt(0), certStatus{state: unknown}},
		{"negative serial", big.NewInt(-5), certStatus{state: unknown}},
		{"serial of 21 octets", huge, certStatus{state: unknown}},
		{"abandoned", abandoned, certStatus{state: revoked, revocationTime: at}},
		{"revoked, unspecified", revokedPlain, certStatus{state: revoked, revocationTime: at}},
		{"revoked, keyCompromise", revokedKey, certStatus{state: revoked, revocationTime: at, reason: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			basic := p.ask(c.serial)
			if len(basic.singles) != 1 || !basic.singles[0].status.equal(c.want) {
				t.Fatalf("answer %+v, want %+v", basic.singles, c.want)
			}
		})
	}
}

// Every field of an answer that is the same for all, and x/crypto/ocsp as the second judge.
func TestRespondFields(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.caClock.add(10 * time.Second)
	p.checkpoint()
	p.clock.add(25*time.Second + 300*time.Millisecond)

	request := p.request(serial)
	response := p.responder.Respond(t.Context(), request)
	basic := p.mustSucceed(response)
	bits, err := der.PublicKeyBits(p.certificate)
	if err != nil {
		t.Fatal(err)
	}
	keyHash := sha1.Sum(bits)
	got := basic.singles[0]
	for _, c := range []struct {
		field     string
		got, want any
	}{
		{"responderID byKey", string(basic.keyHash), string(keyHash[:])},
		{"producedAt", basic.producedAt, epoch.Add(25 * time.Second)},
		{"thisUpdate", got.thisUpdate, epoch.Add(10 * time.Second)},
		{"nextUpdate", got.nextUpdate, epoch.Add(10*time.Second + DefaultStatusLife)},
		{"archiveCutoff", got.archiveCutoff, p.ca.NotBefore},
		{"certID", string(got.certID), string(p.certID(crypto.SHA1, serial))},
		{"nonce", len(basic.nonce), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.field, c.got, c.want)
		}
	}

	r, err := xocsp.ParseResponseForCert(response, &x509.Certificate{SerialNumber: serial}, p.ca)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != xocsp.Good || r.Certificate == nil || !bytes.Equal(r.Certificate.Raw, p.certificate.Raw) {
		t.Errorf("x/crypto/ocsp reads %+v", r)
	}
}

// nextUpdate is cut to the end of the responder certificate.
func TestRespondNotBeyondCertificate(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.pass(p.certificate.NotAfter.Sub(epoch) - time.Hour)
	if got := p.ask(serial).singles[0].nextUpdate; !got.Equal(p.certificate.NotAfter) {
		t.Errorf("nextUpdate %v, want %v", got, p.certificate.NotAfter)
	}
	p.pass(time.Hour - time.Millisecond)
	if got := p.ask(serial); !got.singles[0].nextUpdate.After(got.producedAt) {
		t.Errorf("producedAt %v, nextUpdate %v: expired on arrival", got.producedAt, got.singles[0].nextUpdate)
	}
	p.healthSays("")
	p.pass(time.Millisecond) // at notAfter itself it is valid, but for no time any more
	p.mustRefuse(internalError, serial)
	if _, err := p.responder.Health(); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("health %v", err)
	}
}

// CertIDs under each hash, with NULL and without parameters, are matched and repeated as they came.
func TestRespondHashes(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	bits, _ := der.PublicKeyBits(p.ca)
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		for _, absent := range []bool{false, true} {
			id := certIDSpec{hash: h, absent: absent, subject: p.ca.RawSubject, key: bits, serial: serial}.marshal(t)
			basic := p.mustSucceed(p.responder.Respond(t.Context(), requestSpec{list: [][]byte{id}}.marshal(t)))
			if got := basic.singles[0]; got.status.state != good || !bytes.Equal(got.certID, id) {
				t.Errorf("%v, parameters absent %v: %+v", h, absent, got)
			}
		}
	}
}

// A CertID that is not ours, alone or among ours, is unauthorized (RFC 6960 §2.3).
func TestRespondUnauthorized(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	bits, _ := der.PublicKeyBits(p.ca)
	ours := p.certID(crypto.SHA256, serial)
	spec := certIDSpec{hash: crypto.SHA256, subject: p.ca.RawSubject, key: bits, serial: serial}
	otherName, otherKey, otherHash, wrongHash := spec, spec, spec, spec
	otherName.subject = []byte("another")
	otherKey.key = []byte("another")
	otherHash.oid = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 8} // SHA3-256
	wrongHash.oid = oidSHA512                                             // with hashes of SHA-256
	for name, list := range map[string][][]byte{
		"another name":         {otherName.marshal(t)},
		"another key":          {otherKey.marshal(t)},
		"a hash that is none":  {otherHash.marshal(t)},
		"another hash's value": {wrongHash.marshal(t)},
		"the second of two":    {ours, otherKey.marshal(t)},
		"the first of two":     {otherKey.marshal(t), ours},
	} {
		t.Run(name, func(t *testing.T) {
			p.mustRefuseRequest(unauthorized, requestSpec{list: list}.marshal(t))
		})
	}
}

// Several requests in one get as many answers, in their order.
func TestRespondSeveral(t *testing.T) {
	p := newProvider(t, nil)
	a, b := p.issue(), p.issue()
	p.revoke(b, journal.Superseded)
	p.checkpoint()
	basic := p.ask(a, b, big.NewInt(99), a)
	var got []state
	for _, s := range basic.singles {
		got = append(got, s.status.state)
	}
	if want := []state{good, revoked, unknown, good}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("answers %v, want %v", got, want)
	}
	many := make([]*big.Int, maxRequests)
	for i := range many {
		many[i] = a
	}
	if got := len(p.ask(many...).singles); got != maxRequests {
		t.Errorf("%d answers, want %d", got, maxRequests)
	}
	p.mustRefuse(malformedRequest, append(many, a)...)
}

// A nonce comes back octet for octet, in an answer of its own (RFC 9654 §2.1).
func TestRespondNonce(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.ask(serial) // the cache has an answer without a nonce
	for _, n := range []int{1, 16, 32, 128} {
		e := nonceExtension(t, bytes.Repeat([]byte{byte(n)}, n))
		request := requestSpec{list: [][]byte{p.certID(crypto.SHA1, serial)}, extensions: []der.Extension{e}}.marshal(t)
		before := p.signatures()
		for range 2 {
			if basic := p.mustSucceed(p.responder.Respond(t.Context(), request)); !bytes.Equal(basic.nonce, e.Value) {
				t.Errorf("nonce of %d: %x, want %x", n, basic.nonce, e.Value)
			}
		}
		if got := p.signatures() - before; got != 2 {
			t.Errorf("nonce of %d: %d signatures for two requests", n, got)
		}
	}
	for _, n := range []int{0, 129} {
		request := requestSpec{list: [][]byte{p.certID(crypto.SHA1, serial)}, extensions: []der.Extension{nonceExtension(t, make([]byte, n))}}.marshal(t)
		p.mustRefuseRequest(malformedRequest, request)
	}
}

// Until the status life is over answers go on; then only what is revoked for ever is told, as of now.
func TestRespondFreshness(t *testing.T) {
	p := newProvider(t, func(c *Config) { c.StatusLife = 2 * time.Hour })
	issued, revokedSerial, abandoned := p.issue(), p.issue(), p.intend()
	p.revoke(revokedSerial, journal.KeyCompromise)
	p.abandon(abandoned)
	p.checkpoint()

	p.clock.add(2*time.Hour - time.Second)
	if got := p.ask(issued, revokedSerial).singles[0]; got.status.state != good || !got.nextUpdate.Equal(epoch.Add(2*time.Hour)) {
		t.Fatalf("just before nextUpdate: %+v", got)
	}
	p.clock.add(time.Second)
	now := p.clock.now()
	p.mustRefuse(tryLater, issued)
	p.mustRefuse(tryLater, revokedSerial, issued)
	p.mustRefuse(tryLater, big.NewInt(99))
	for _, got := range p.ask(revokedSerial, abandoned).singles {
		if got.status.state != revoked || !got.thisUpdate.Equal(now) || !got.nextUpdate.Equal(now.Add(time.Hour)) {
			t.Errorf("revoked past nextUpdate: %+v", got)
		}
	}
	// The CA is back.
	p.caClock.add(3 * time.Hour)
	p.clock.add(time.Hour)
	p.checkpoint()
	if got := p.ask(issued).singles[0]; !got.thisUpdate.Equal(epoch.Add(3 * time.Hour)) {
		t.Errorf("after the CA came back: %+v", got)
	}
}

// A hold is a revocation that may be lifted: not told once the status life is over.
func TestRespondHold(t *testing.T) {
	p := newProvider(t, nil)
	tree, err := p.journal.Verified()
	if err != nil {
		t.Fatal(err)
	}
	held := []certStatus{{state: revoked, reason: uint8(journal.CertificateHold)}}
	forEver := []certStatus{{state: revoked, reason: uint8(journal.KeyCompromise)}}
	if _, err := p.responder.validity(epoch.Add(time.Hour), tree, held); err != nil {
		t.Errorf("held, fresh: %v", err)
	}
	if _, err := p.responder.validity(epoch.Add(13*time.Hour), tree, held); statusOf(err) != tryLater {
		t.Errorf("held, past nextUpdate: %v", err)
	}
	if _, err := p.responder.validity(epoch.Add(13*time.Hour), tree, forEver); err != nil {
		t.Errorf("revoked for ever, past nextUpdate: %v", err)
	}
}

// The clock: refusing, behind the journal, a little behind, and well again.
func TestRespondClock(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.clock.refuse(errors.New("unsynchronised"))
	p.mustRefuse(tryLater, serial)
	p.healthSays("unsynchronised")
	p.clock.refuse(nil)
	p.clock.add(-maxBehind)
	if got := p.ask(serial); got.singles[0].thisUpdate.After(got.producedAt) {
		t.Errorf("thisUpdate %v after producedAt %v", got.singles[0].thisUpdate, got.producedAt)
	}
	p.clock.add(-time.Millisecond)
	p.mustRefuse(tryLater, serial)
	p.healthSays("behind the journal")
	p.clock.add(maxBehind + time.Millisecond)
	p.ask(serial)
	p.healthSays("")
}

// A revocation by a CA whose clock is ahead is not told as one to come.
func TestRespondRevokedAhead(t *testing.T) {
	p := newProvider(t, nil)
	serial, abandoned := p.issue(), p.intend()
	p.caClock.add(maxBehind)
	p.revoke(serial, journal.KeyCompromise)
	p.abandon(abandoned)
	p.checkpoint()
	for range 7 {
		for _, s := range p.ask(serial, abandoned).singles {
			want := epoch.Add(maxBehind)
			if now := p.clock.now(); now.Before(want) {
				want = now
			}
			if s.status.state != revoked || !s.status.revocationTime.Equal(want) {
				t.Errorf("at %v: %+v, want %v", p.clock.now(), s.status, want)
			}
		}
		p.clock.add(time.Second)
	}
	if got := p.signatures(); got != 6 { // the last is the first that stays
		t.Errorf("%d signatures, want 6", got)
	}
}

// The responder certificate has id-pkix-ocsp-nocheck: what the journal says against it, only the responder itself can heed.
func TestRespondOwnCertificate(t *testing.T) {
	const ready = ""
	for _, c := range []struct {
		name    string
		record  func(*provider, *big.Int)
		reason  string // of health, not ready
		warning string
	}{
		{"unknown to the journal", func(*provider, *big.Int) {}, ready, "does not know the responder certificate"},
		{"intended", (*provider).intendSerial, ready, "does not say yet"},
		{"issued", (*provider).issueSerial, ready, ""},
		{"revoked", func(p *provider, s *big.Int) { p.issueSerial(s); p.revoke(s, journal.KeyCompromise) }, "is revoked since", ""},
		{"revoked without a reason", func(p *provider, s *big.Int) { p.issueSerial(s); p.revoke(s, journal.Unspecified) }, "is revoked since", ""},
		{"abandoned", func(p *provider, s *big.Int) { p.intendSerial(s); p.abandon(s) }, "is abandoned since", ""},
	} {
		for _, own := range []int64{2, 0x80ff} { // the second begins with an octet 00
			t.Run(fmt.Sprintf("%s %x", c.name, own), func(t *testing.T) {
				p := newProvider(t, nil)
				p.certificate = newResponderCertificate(t, p, func(template *x509.Certificate) { template.SerialNumber = big.NewInt(own) })
				p.newResponder(func(c *Config) { c.Registerer = nil })
				serial := p.issue()
				p.checkpoint()
				p.ask(serial) // into the cache
				c.record(p, big.NewInt(own))
				p.checkpoint()
				p.healthSays(c.reason)
				facts, _ := p.responder.Health()
				warnings, _ := facts["warnings"].([]string)
				if (len(warnings) == 0) != (c.warning == "") || !strings.Contains(strings.Join(warnings, "\n"), c.warning) {
					t.Errorf("warnings %q, want %q", warnings, c.warning)
				}
				if c.reason != ready {
					p.mustRefuse(internalError, serial)
				} else if got := p.ask(serial).singles[0].status.state; got != good {
					t.Errorf("status %v", got)
				}
			})
		}
	}
}

// healthSays wants why the responder is not ready to hold that text; empty: it is ready.
func (p *provider) healthSays(want string) {
	p.t.Helper()
	_, err := p.responder.Health()
	if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
		p.t.Errorf("health says %v, want %q", err, want)
	}
}

// A key or a journal that fails is internalError, and comes back without a restart where it can.
func TestRespondInternalError(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.key.err = errors.New("token gone")
	p.mustRefuse(internalError, serial)
	if !strings.Contains(p.log.String(), "token gone") {
		t.Errorf("the log does not say why: %s", p.log.String())
	}
	p.key.err = fmt.Errorf("sign: %w", busy{}) // it works, and has more to do than it can
	p.mustRefuse(tryLater, p.issue())
	p.key.err = nil
	p.ask(serial)
	// A signature that does not verify never leaves.
	p.key.wrong = newKey(t)
	p.mustRefuse(internalError, p.issue())
	if err := p.journal.Close(); err != nil {
		t.Fatal(err)
	}
	p.mustRefuse(internalError, serial)
}

// A caller that has gone costs no signature.
func TestRespondContext(t *testing.T) {
	p := newProvider(t, nil)
	request := p.request(p.issue())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := p.responder.Respond(ctx, request); !bytes.Equal(got, refusal(tryLater)) {
		t.Errorf("response %x", got)
	}
	if got := p.signatures(); got != 0 {
		t.Errorf("%d signatures", got)
	}
}

// Requests for what was never issued are counted and told of, but do not fill the log.
func TestNeverIssuedIsTold(t *testing.T) {
	p := newProvider(t, nil)
	for n := range int64(50) {
		p.ask(big.NewInt(0x500000 + n))
	}
	p.ask(p.intend()) // not issued yet: no alarm
	if got := p.metric("zegel_ocsp_never_issued_total"); got != 50 {
		t.Errorf("counted %v, want 50", got)
	}
	if got := strings.Count(p.log.String(), "never issued"); got < 1 || got > 10 {
		t.Errorf("%d lines in the log", got)
	}
	if !strings.Contains(p.log.String(), "serial=500000") {
		t.Errorf("log: %s", p.log.String())
	}
}

// The same question is signed once, until the answer would be fresher or other.
func TestCache(t *testing.T) {
	p := newProvider(t, nil)
	serial, other := p.issue(), p.issue()
	p.checkpoint()
	first := p.responder.Respond(t.Context(), p.request(serial))
	again := func(want bool) {
		t.Helper()
		response := p.responder.Respond(t.Context(), p.request(serial))
		p.mustSucceed(response)
		if bytes.Equal(first, response) != want {
			t.Errorf("at %v: the first answer again %v, want %v", p.clock.now(), !want, want)
		}
	}
	again(true)
	p.clock.add(30 * time.Minute) // no checkpoint since: nothing fresher to say
	again(true)
	p.caClock.add(59 * time.Second)
	p.checkpoint()
	again(true)
	p.revoke(other, journal.Unspecified) // the journal grows, this certificate stays as it is
	p.checkpoint()
	again(true)
	p.caClock.add(time.Second)
	p.checkpoint()
	again(false)
	if got := p.signatures(); got != 2 {
		t.Errorf("%d signatures, want 2", got)
	}
	// What is unknown now may be issued in a moment.
	p.ask(big.NewInt(99))
	p.ask(big.NewInt(99))
	if got := p.signatures(); got != 4 {
		t.Errorf("%d signatures, want 4", got)
	}
}

// An answer that was signed while the clock was wrong is not given again once it is right.
func TestCacheClockSetBack(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.clock.add(time.Hour)
	p.ask(serial)
	p.clock.add(-time.Hour)
	if got := p.ask(serial).producedAt; got.After(p.clock.now()) {
		t.Errorf("producedAt %v at %v", got, p.clock.now())
	}
}

// The cache forgets by generations and stays within its allowance.
func TestCacheBounded(t *testing.T) {
	const octets = 64 << 10
	c := newCache(octets)
	held := func() (n int) {
		for _, m := range []map[string]answer{c.young, c.old} {
			for k, a := range m {
				n += weight(k, a)
			}
		}
		return n
	}
	c.put("hot", answer{der: make([]byte, 1000)})
	for n := range 1000 {
		c.put(string(rune('a'+n)), answer{der: make([]byte, 1000)})
		if _, ok := c.get("hot"); !ok {
			t.Fatalf("what is asked for all the time was forgotten after %d", n)
		}
		if got := held(); got > octets+2*1500 {
			t.Fatalf("%d octets held, the allowance is %d", got, octets)
		}
	}
	if _, ok := c.get("a"); ok {
		t.Error("nothing was forgotten")
	}
	c.put("hot", answer{der: []byte{1}})
	if a, _ := c.get("hot"); len(a.der) != 1 {
		t.Error("an older answer was given")
	}
}

// However requests and revocations interleave: once Append of a revocation has returned, no answer
// is good, cached or not.
func TestCacheNeverHidesRevocation(t *testing.T) {
	p := newProvider(t, nil)
	const certificates, askers = 20, 4
	serials := make([]*big.Int, certificates)
	for i := range serials {
		serials[i] = p.issue()
	}
	p.checkpoint()
	var mu sync.Mutex
	done := make(map[int]bool) // revoked, for whoever reads it
	isRevoked := func(i int) bool {
		mu.Lock()
		defer mu.Unlock()
		return done[i]
	}
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() error {
		for i, serial := range serials {
			time.Sleep(time.Millisecond) // lets the askers fill the cache
			_, err := p.journal.Append(ctx, journal.CertificateRevoked{
				Actor: journal.Actor{1}, Issuer: p.id(), Serial: journal.Serial(serial.Bytes()), RequestedAt: epoch,
			})
			if err != nil {
				return err
			}
			mu.Lock()
			done[i] = true
			mu.Unlock()
		}
		return nil
	})
	requests := make([][]byte, certificates)
	for i, serial := range serials {
		requests[i] = p.request(serial, serials[0])
	}
	for range askers {
		g.Go(func() error {
			for n := range 600 {
				i := n % certificates
				sure := isRevoked(i)
				_, basic, err := parseResponse(p.responder.Respond(ctx, requests[i]), p.certificate)
				if err != nil {
					return err
				}
				if sure && (len(basic.singles) != 2 || basic.singles[0].status.state != revoked) {
					t.Errorf("certificate %d is revoked; the answer is %+v", i, basic.singles)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range serials {
		if got := p.ask(serials[i]).singles[0].status.state; got != revoked {
			t.Errorf("certificate %d: %v at the end", i, got)
		}
	}
	if p.metric("zegel_ocsp_cache_hits_total") == 0 {
		t.Error("the cache was never used: the test shows nothing")
	}
}

// New refuses what does not fit, and says what to do.
func TestNewRefuses(t *testing.T) {
	p := newProvider(t, nil)
	spoil := func(change func(*x509.Certificate)) func(*Config) {
		return func(c *Config) { c.Certificate = newResponderCertificate(t, p, change) }
	}
	otherKey := newKey(t)
	otherCA := newCA(t, epoch, otherKey)
	renamed := *p.ca
	renamed.RawSubject, renamed.Subject = nil, pkix.Name{CommonName: "TEST Another"}
	sameKey := sign(t, &renamed, &renamed, p.caKey.Public(), p.caKey)
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // empty: it is made
	}{
		{"as it is", func(*Config) {}, ""},
		{"no replica", func(c *Config) { c.Replica = nil }, "no replica"},
		{"no clock", func(c *Config) { c.Clock = nil }, "no clock"},
		{"no issuer", func(c *Config) { c.Issuer = nil }, "no issuer"},
		{"no certificate", func(c *Config) { c.Certificate = nil }, "no responder certificate"},
		{"no key", func(c *Config) { c.Key = nil }, "no key"},
		{"another key", func(c *Config) { c.Key = otherKey }, "the key is not the responder certificate's"},
		{"another CA of the same name", func(c *Config) { c.Issuer = otherCA }, "not signed by"},
		{"another CA with the same key", func(c *Config) { c.Issuer = sameKey }, "issued by"},
		{"no CA", func(c *Config) { c.Issuer = p.certificate }, "RFC 6960 §4.2.2.2"},
		{"EKU missing", spoil(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "OCSPSigning alone"},
		{"EKU more", spoil(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }), "OCSPSigning alone"},
		{"EKU more, unknown", spoil(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{unknownID} }), "OCSPSigning alone"},
		{"keyUsage", spoil(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }), "digitalSignature alone"},
		{"CA", spoil(func(c *x509.Certificate) { c.IsCA = true }), "CA certificate"},
		{"no nocheck", spoil(func(c *x509.Certificate) { c.ExtraExtensions = nil }), "nocheck"},
		{"nocheck not NULL", spoil(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidNoCheck, Value: []byte{4, 0}}}
		}), "nocheck"},
		{"expired", spoil(func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) }), "expired at"},
		{"not yet valid", spoil(func(c *x509.Certificate) { c.NotBefore = epoch.Add(time.Second) }), "valid from"},
		{"expired, but the clock refuses", func(c *Config) {
			spoil(func(c *x509.Certificate) { c.NotAfter = epoch.Add(-time.Second) })(c)
			c.Clock = &fakeClock{err: errors.New("unsynchronised")}
		}, ""},
		{"status life of a day", func(c *Config) { c.StatusLife = 24 * time.Hour }, ""},
		{"status life too long", func(c *Config) { c.StatusLife = 24*time.Hour + 1 }, "REV-6.2.4-03A"},
		{"status life too short", func(c *Config) { c.StatusLife = time.Second - 1 }, "the least is 1s"},
		{"metrics twice", func(c *Config) { c.Registerer = p.registry }, "register metrics"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := Config{Replica: p.journal, Clock: p.clock, Issuer: p.ca, Certificate: p.certificate, Key: p.key}
			c.change(&config)
			r, err := New(config)
			if c.want == "" {
				if err != nil || r == nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzRespond: any octets get a well-formed OCSPResponse; a successful one is signed and answers
// just what was asked.
func FuzzRespond(f *testing.F) {
	p := newProvider(f, nil)
	issued, revokedSerial := p.issue(), p.issue()
	p.revoke(revokedSerial, journal.KeyCompromise)
	p.checkpoint()
	f.Add(p.request(issued))
	f.Add(p.request(revokedSerial, issued, big.NewInt(-1)))
	f.Add(requestSpec{
		list: [][]byte{p.certID(crypto.SHA512, issued)}, name: []byte{0xa1, 4, 0xa4, 2, 0x30, 0},
		extensions: []der.Extension{nonceExtension(f, make([]byte, 32))},
	}.marshal(f))
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, request []byte) {
		status, basic, err := parseResponse(p.responder.Respond(t.Context(), request), p.certificate)
		if err != nil {
			t.Fatal(err)
		}
		if status == internalError || status == tryLater {
			t.Fatalf("responseStatus %v", status)
		}
		q, err := parseRequest(request)
		if (err != nil) != (status == malformedRequest) {
			t.Fatalf("responseStatus %v, request: %v", status, err)
		}
		if status != successful {
			return
		}
		if len(basic.singles) != len(q.list) || !bytes.Equal(basic.nonce, q.nonce) {
			t.Fatalf("%d answers to %d requests", len(basic.singles), len(q.list))
		}
		for i, s := range basic.singles {
			if !bytes.Equal(s.certID, q.list[i].raw) {
				t.Fatalf("certID %x, asked %x", s.certID, q.list[i].raw)
			}
			if s.status.state == good && !bytes.Equal(q.list[i].serialNumber, issued.Bytes()) {
				t.Fatalf("good for %x", q.list[i].serialNumber)
			}
		}
	})
}

// busy is an error that passes, as that of a token whose sessions are all in use.
type busy struct{}

func (busy) Error() string   { return "busy" }
func (busy) Temporary() bool { return true }
