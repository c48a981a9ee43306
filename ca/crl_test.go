package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// The list parses, is canonical, and says what RFC 5280 §5 and EN 319 411-2 CSS-6.3.10-05 want of it.
func TestCRL(t *testing.T) {
	p, clock := newProvider(t)
	empty, err := p.issuer.IssueCRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if parsed := p.published(); len(parsed.RevokedCertificateEntries) != 0 || parsed.Number.Uint64() != empty.Number {
		t.Errorf("empty list: %d entries, number %d", len(parsed.RevokedCertificateEntries), parsed.Number)
	}
	for _, reason := range []journal.Reason{journal.Unspecified, journal.KeyCompromise, journal.PrivilegeWithdrawn} {
		if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: p.issue().Serial, Reason: reason, InvalidFrom: clock.time()}); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Minute)
	}
	crl, err := p.issuer.IssueCRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parsed := p.published()
	switch {
	case der.Check(crl.DER) != nil:
		t.Errorf("not canonical: %v", der.Check(crl.DER))
	case parsed.Number.Uint64() != crl.Number || crl.Number != empty.Number+4:
		t.Errorf("number %d", parsed.Number)
	case !bytes.Equal(parsed.AuthorityKeyId, p.cert.SubjectKeyId), !bytes.Equal(parsed.RawIssuer, p.cert.RawSubject):
		t.Error("issuer or authorityKeyIdentifier wrong")
	case !parsed.ThisUpdate.Equal(start.Add(3 * time.Minute)), !parsed.NextUpdate.Equal(parsed.ThisUpdate.Add(24 * time.Hour)):
		t.Errorf("times %s to %s", parsed.ThisUpdate, parsed.NextUpdate)
	case len(parsed.RevokedCertificateEntries) != 3 || crl.Entries != 3:
		t.Errorf("%d entries", len(parsed.RevokedCertificateEntries))
	}
	found := false
	for _, e := range parsed.Extensions {
		if e.Critical {
			t.Errorf("extension %v is critical", e.Id)
		}
		if e.Id.Equal(oidExpiredCertsOnCRL) {
			var from time.Time
			_, err := asn1.UnmarshalWithParams(e.Value, &from, "generalized")
			found = err == nil && from.Equal(p.cert.NotBefore)
		}
	}
	if !found || len(parsed.Extensions) != 3 {
		t.Errorf("extensions: %v", parsed.Extensions)
	}
}

// OpenSSL believes the list and finds the revoked certificate on it.
func TestCRLWithOpenSSL(t *testing.T) {
	p, _ := newProvider(t)
	good, bad := p.issue(), p.issue()
	if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: bad.Serial, Reason: journal.KeyCompromise, InvalidFrom: start}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, issuing := file("root.pem", "CERTIFICATE", p.root.Raw), file("issuing.pem", "CERTIFICATE", p.cert.Raw)
	crl := file("issuing.crl.pem", "X509 CRL", p.published().Raw)

	text := openssl(t, true, "crl", "-inform", "DER", "-in", p.crlFile(), "-noout", "-text", "-CAfile", issuing)
	for _, want := range []string{"verify OK", "X509v3 CRL Number", "Key Compromise", "Invalidity Date",
		strings.ToUpper(bad.Serial.String())} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl crl does not say %q:\n%s", want, text)
		}
	}
	at := fmt.Sprint(start.Add(time.Minute).Unix())
	verify := []string{"verify", "-x509_strict", "-crl_check", "-attime", at, "-CAfile", root, "-untrusted", issuing, "-CRLfile", crl}
	openssl(t, true, append(verify, file("good.pem", "CERTIFICATE", good.Certificate))...)
	if out := openssl(t, false, append(verify, file("bad.pem", "CERTIFICATE", bad.Certificate))...); !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl verify says %s", out)
	}
}

func openssl(t *testing.T, good bool, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	if (err == nil) != good {
		t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Every shape of an entry, and every length of the list's length, reads back as it was.
func TestCRLEncoding(t *testing.T) {
	p, _ := newProvider(t)
	shapes := []journal.Certificate{
		{Serial: "\x01", Status: journal.Revoked, Since: start},
		{Serial: "\x7f", Status: journal.Abandoned, Since: start, Reason: journal.KeyCompromise}, // an abandoned one has no reason to tell
		{Serial: "\x00\x80", Status: journal.Revoked, Since: start, Reason: journal.AACompromise},
		{Serial: "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14", Status: journal.Revoked,
			Since: time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), Reason: journal.KeyCompromise, InvalidFrom: start},
	}
	for _, n := range []int{0, 1, 3, 4, 10, 900, 3000} {
		var entries []byte
		var err error
		for k := range n {
			if entries, err = appendRevoked(entries, shapes[k%len(shapes)]); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := p.issuer.signCRL(CRL{Number: uint64(n) + 1, ThisUpdate: start, NextUpdate: start.Add(time.Hour), Entries: n}, entries)
		if err != nil {
			t.Fatal(err)
		}
		if err := der.Check(raw); err != nil {
			t.Errorf("%d entries: %v", n, err)
		}
		list, err := x509.ParseRevocationList(raw)
		if err != nil || len(list.RevokedCertificateEntries) != n {
			t.Fatalf("%d entries: %v", n, err)
		}
		for k, got := range list.RevokedCertificateEntries {
			want := shapes[k%len(shapes)]
			reason := int(want.Reason)
			if want.Status == journal.Abandoned {
				reason = 0
			}
			if got.SerialNumber.Cmp(new(big.Int).SetBytes(want.Serial.Bytes())) != 0 || !got.RevocationTime.Equal(want.Since) || got.ReasonCode != reason {
				t.Errorf("entry %d: %+v, want %+v", k, got, want)
			}
		}
	}
	for _, serial := range []journal.Serial{"", journal.Serial(make([]byte, 21))} {
		if _, err := appendRevoked(nil, journal.Certificate{Serial: serial}); err == nil {
			t.Errorf("serial of %d octets was encoded", len(serial))
		}
	}
}

func FuzzAppendRevoked(f *testing.F) {
	f.Add([]byte{1}, int64(1796119200), uint8(1), int64(0), true)
	f.Add([]byte{0, 0x80}, int64(2524608000), uint8(0), int64(1796119200), false)
	f.Fuzz(func(t *testing.T, serial []byte, since int64, reason uint8, from int64, revoked bool) {
		c := journal.Certificate{Serial: journal.Serial(serial), Status: journal.Abandoned, Since: time.Unix(since, 0), Reason: journal.Reason(reason % 11)}
		if revoked {
			c.Status = journal.Revoked
		}
		if from != 0 {
			c.InvalidFrom = time.Unix(from, 0)
		}
		for _, at := range []time.Time{c.Since, c.InvalidFrom} {
			if y := at.UTC().Year(); !at.IsZero() && (y < 1950 || y > 9999) {
				return // no Time has it (RFC 5280 §5.1.2.4), and no entry of a journal
			}
		}
		out, err := appendRevoked(nil, c)
		if err != nil {
			return
		}
		minimal := len(serial) == 1 || serial[0] != 0 && serial[0] != 0xff || serial[0] == 0 && serial[1] >= 0x80 || serial[0] == 0xff && serial[1] < 0x80
		if err := der.Check(out); (err == nil) != minimal {
			t.Errorf("%x: %v", out, err)
		}
	})
}

// However many revoke at once, each is on the CRL when its call returns, and they share lists.
func TestRevocationsShareCRLs(t *testing.T) {
	p, _ := newProvider(t)
	const callers = 32
	serials := make([]journal.Serial, callers)
	for n := range serials {
		serials[n] = p.issue().Serial
	}
	before := p.issuer.published().number
	slow := make(chan struct{})
	p.key.hook(func([]byte) error { <-slow; return nil }, nil) // the first list waits until everybody has come
	var wait sync.WaitGroup
	var recorded atomic.Int32
	p.issuer.appendEntry = func(ctx context.Context, e journal.Event) (journal.Entry, error) {
		entry, err := p.journal.Append(ctx, e)
		if isStep[journal.CertificateRevoked](e) && recorded.Add(1) == callers {
			close(slow)
		}
		return entry, err
	}
	for _, serial := range serials {
		wait.Go(func() {
			if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: serial}); err != nil {
				t.Error(err)
			}
			if _, listed := p.onCRL(serial); !listed {
				t.Errorf("%s is not on the CRL when Revoke returns", serial)
			}
		})
	}
	wait.Wait()
	if lists := p.issuer.published().number - before; lists > callers/2 {
		t.Errorf("%d lists for %d revocations at once", lists, callers)
	}
}

// Somebody who stops waiting for a shared list does not take it from the others.
func TestRoundsWithoutTheFirst(t *testing.T) {
	r := newRounds()
	begun, finish := make(chan struct{}), make(chan struct{})
	slow := func(context.Context) (CRL, error) { close(begun); <-finish; return CRL{Number: 1}, nil }
	var wait sync.WaitGroup
	wait.Go(func() { _, _ = r.share(t.Context(), slow) })
	<-begun
	ctx, leave := context.WithCancel(t.Context())
	leave()
	next := func(context.Context) (CRL, error) { return CRL{Number: 2}, nil }
	if _, err := r.share(ctx, next); !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	for range 3 {
		wait.Go(func() {
			if crl, err := r.share(t.Context(), next); err != nil || crl.Number != 2 {
				t.Errorf("got %d, %v", crl.Number, err)
			}
		})
	}
	close(finish)
	wait.Wait()
}

// A panic in the making of a list is no list for those who waited for it.
func TestRoundsWithAPanic(t *testing.T) {
	r := newRounds()
	begun, finish := make(chan struct{}), make(chan struct{})
	results := make(chan error, 2)
	var wait sync.WaitGroup
	wait.Go(func() {
		_, _ = r.share(t.Context(), func(context.Context) (CRL, error) { close(begun); <-finish; return CRL{Number: 1}, nil })
	})
	<-begun
	mine := r.join() // both callers below are on this round
	for range 2 {
		wait.Go(func() {
			defer func() {
				if recover() != nil {
					results <- errPanicked // http.Server does as much for its handlers
				}
			}()
			_, err := r.share(t.Context(), func(context.Context) (CRL, error) { panic("nil pointer in the encoder") })
			results <- err
		})
	}
	close(finish)
	wait.Wait()
	for range 2 {
		if err := <-results; err == nil {
			t.Error("a list that was never made was reported as made")
		}
	}
	if !errors.Is(mine.err, errPanicked) {
		t.Errorf("those who wait read %v", mine.err)
	}
	if crl, err := r.share(t.Context(), func(context.Context) (CRL, error) { return CRL{Number: 3}, nil }); err != nil || crl.Number != 3 {
		t.Errorf("the next round: %d, %v", crl.Number, err)
	}
}

// No list claims to hold longer than its signer's certificate.
func TestCRLEndsWithTheCA(t *testing.T) {
	p, clock := newProvider(t)
	clock.set(p.cert.NotAfter.Add(-time.Hour), nil)
	if _, err := p.issuer.IssueCRL(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next := p.published().NextUpdate; !next.Equal(p.cert.NotAfter) {
		t.Errorf("nextUpdate %s, the CA ends %s", next, p.cert.NotAfter)
	}
	clock.set(p.cert.NotAfter.Add(time.Second), nil)
	if _, err := p.issuer.IssueCRL(t.Context()); err == nil {
		t.Error("a list after the CA's end")
	}
}

// What publish/ lost or somebody changed, the next start puts back, before a fresh list follows.
func TestRecoverPublishesTheLastCRL(t *testing.T) {
	foreign, _ := newProvider(t)
	for name, damage := range map[string]func(string) error{
		"another CA's": func(path string) error { return os.WriteFile(path, foreign.published().Raw, 0o600) },
		"gone":         os.Remove,
		"changed":      func(path string) error { return os.WriteFile(path, []byte("not a CRL"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			p, clock := newProvider(t)
			last := p.published().Raw
			if err := damage(p.crlFile()); err != nil {
				t.Fatal(err)
			}
			clock.set(start, nil)
			p.key.hook(func([]byte) error { return errStep }, nil) // no fresh list: what is there is the old one
			p.restart()
			if !bytes.Equal(p.published().Raw, last) {
				t.Error("the last CRL is not there")
			}
			if _, err := p.issuer.Health(); err == nil {
				t.Error("ready although no fresh CRL could be made")
			}
			p.key.hook(nil, nil)
			p.restart()
			if bytes.Equal(p.published().Raw, last) {
				t.Error("no fresh CRL")
			}
		})
	}
}

// A CRL that cannot be written is recorded, its number is not used again, and health says so.
func TestPublishFails(t *testing.T) {
	p, _ := newProvider(t)
	number := p.issuer.published().number
	away := p.publishDir() + ".away"
	if err := os.Rename(p.publishDir(), away); err != nil {
		t.Fatal(err)
	}
	serial := p.issue().Serial
	if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: serial}); !errors.Is(err, ErrNotPublished) {
		t.Errorf("got %v", err)
	}
	if _, err := p.issuer.Health(); !errors.Is(err, ErrNotPublished) {
		t.Errorf("health: %v", err)
	}
	if err := os.Rename(away, p.publishDir()); err != nil {
		t.Fatal(err)
	}
	crl, err := p.issuer.IssueCRL(t.Context())
	if err != nil || crl.Number != number+2 {
		t.Errorf("number %d after %d, %v", crl.Number, number, err)
	}
	if _, listed := p.onCRL(serial); !listed {
		t.Error("not on the CRL")
	}
}

// bubbleProvider is a provider whose clock is the bubble's.
func bubbleProvider(t *testing.T) *provider {
	t.Helper()
	time.Sleep(time.Until(start)) // a bubble begins in 2000
	return newProviderWith(t, clock.Unverified(time.Second))
}

// Run keeps the rhythm whatever issues a CRL, and comes back quickly after failures.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		var broken atomic.Bool
		p.issuer.appendEntry = func(ctx context.Context, e journal.Event) (journal.Entry, error) {
			if broken.Load() {
				return journal.Entry{}, errStep
			}
			return p.journal.Append(ctx, e)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.issuer.Run(ctx) }()
		number := func() uint64 { synctest.Wait(); return p.issuer.published().number }
		wantNumber := func(when string, want uint64) {
			t.Helper()
			if got := number(); got != want {
				t.Errorf("%s: CRL %d, want %d", when, got, want)
			}
		}
		first := number()
		time.Sleep(12*time.Hour - time.Second)
		wantNumber("just before 12 h", first)
		time.Sleep(2 * time.Second)
		wantNumber("just after 12 h", first+1)

		time.Sleep(6 * time.Hour)
		if _, err := p.issuer.IssueCRL(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(6 * time.Hour)
		wantNumber("12 h after the last but one", first+2)
		time.Sleep(6 * time.Hour)
		wantNumber("12 h after one in between", first+3)

		broken.Store(true)
		time.Sleep(12*time.Hour + time.Minute)
		if _, err := p.issuer.Health(); err != nil {
			t.Errorf("one failure with half a day in hand: %v", err)
		}
		time.Sleep(6 * time.Hour)
		if _, err := p.issuer.Health(); err == nil {
			t.Error("ready 18 hours after the last CRL")
		}
		time.Sleep(6 * time.Hour)
		if _, err := p.issuer.Health(); err == nil || !strings.Contains(err.Error(), "ran out") {
			t.Errorf("ready with a CRL past nextUpdate: %v", err)
		}
		broken.Store(false)
		time.Sleep(lastRetry + time.Second)
		synctest.Wait()
		if _, err := p.issuer.Health(); err != nil {
			t.Errorf("a minute after the cause is gone: %v", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// tellingKey says of itself whether it can sign.
type tellingKey struct {
	*testKey
	out atomic.Bool
}

func (k *tellingKey) Ready() error {
	if k.out.Load() {
		return errStep
	}
	return nil
}

// After a long outage of a key that tells of it, what is owed is on a CRL within a second or so, and the outage took few numbers.
func TestRunAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		key := &tellingKey{testKey: p.key}
		p.issuer.config.Key = key
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.issuer.Run(ctx) }()
		serial := p.issue().Serial
		key.out.Store(true)
		key.hook(func([]byte) error { return errStep }, nil)
		if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: serial}); !errors.Is(err, ErrNotPublished) {
			t.Errorf("got %v", err)
		}
		before, err := p.journal.Reserved(p.issuer.id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*time.Minute + lastRetry/2)
		if now, err := p.journal.Reserved(p.issuer.id); err != nil || now-before > 40 || now-before < 25 {
			t.Errorf("the outage took %d CRL numbers, %v; want one a minute", now-before, err)
		}
		key.hook(nil, nil)
		key.out.Store(false)
		time.Sleep(firstRetry + 100*time.Millisecond)
		synctest.Wait()
		if _, listed := p.onCRL(serial); !listed {
			t.Error("not on the CRL a second after the key is back")
		}
		stop()
		<-done
	})
}

// Signatures that fail all the time do not put off the CRL that shows whether the key is back.
func TestRunWhileSignaturesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.issuer.Run(ctx) }()
		p.key.hook(func([]byte) error { return errStep }, nil)
		before, err := p.journal.Reserved(p.issuer.id)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			if _, err := p.issuer.Issue(t.Context(), p.order()); !errors.Is(err, errStep) {
				t.Fatalf("got %v", err)
			}
			time.Sleep(firstRetry / 4)
		}
		if now, err := p.journal.Reserved(p.issuer.id); err != nil || now-before < 3 {
			t.Errorf("%d CRLs were tried in 10 s, %v; want 3 or more", now-before, err)
		}
		stop()
		<-done
	})
}

// A revocation whose CRL failed is tried again within seconds, not at the next regular CRL.
func TestRunAfterFailedRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := bubbleProvider(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.issuer.Run(ctx) }()
		serial := p.issue().Serial
		p.key.hook(func([]byte) error { return errStep }, nil)
		if _, err := p.issuer.Revoke(t.Context(), Revocation{Actor: testActor, Serial: serial}); !errors.Is(err, ErrNotPublished) {
			t.Errorf("got %v", err)
		}
		p.key.hook(nil, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, listed := p.onCRL(serial); !listed {
			t.Error("not on the CRL two seconds later")
		}
		stop()
		<-done
	})
}
