package tsa

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// brokenKey is a token that fails, or worse.
type brokenKey struct {
	crypto.Signer
	wrong bool // sign something else
}

func (k brokenKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if !k.wrong {
		return nil, errors.New("CKR_DEVICE_ERROR in slot 7")
	}
	other := slices.Clone(digest)
	other[0] ^= 1
	return k.Signer.Sign(nil, other, opts)
}

// request builds a TimeStampReq from parts, so that tests can spoil each.
type rawRequest struct {
	version, algorithm, digest, rest []byte
}

func goodRequest() rawRequest {
	digest := sha256.Sum256([]byte("data"))
	return rawRequest{version: []byte{2, 1, 1}, algorithm: hashIdentifier(crypto.SHA256), digest: wrap(0x04, digest[:])}
}

func (r rawRequest) marshal() []byte {
	return wrap(0x30, r.version, wrap(0x30, r.algorithm, r.digest), r.rest)
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRespondFailInfo has each fault of a request get its own PKIFailureInfo (RFC 3161 §2.4.2).
func TestRespondFailInfo(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	with := func(change func(*rawRequest)) []byte {
		r := goodRequest()
		change(&r)
		return r.marshal()
	}
	good := goodRequest().marshal()
	tests := []struct {
		name    string
		request []byte
		want    PKIFailureInfo
		text    string
	}{
		{"empty", nil, BadDataFormat, "not canonical DER"},
		{"garbage", []byte("GET / HTTP/1.1\r\n"), BadDataFormat, "not canonical DER"},
		{"truncated", good[:len(good)-1], BadDataFormat, "not canonical DER"},
		{"trailing", append(slices.Clone(good), 0), BadDataFormat, "octets after"},
		{"indefinite length", append(append([]byte{0x30, 0x80}, good[2:]...), 0, 0), BadDataFormat, "not canonical DER"},
		{"too long", wrap(0x30, make([]byte, MaxRequest)), BadDataFormat, "longer than 65536"},
		{"no SEQUENCE", []byte{0x02, 0x01, 0x01}, BadDataFormat, "not a TimeStampReq"},
		{"no imprint", []byte{0x30, 0x03, 0x02, 0x01, 0x01}, BadDataFormat, "messageImprint"},
		{"version 0", with(func(r *rawRequest) { r.version = []byte{2, 1, 0} }), BadRequest, "version"},
		{"version 2", with(func(r *rawRequest) { r.version = []byte{2, 1, 2} }), BadRequest, "version"},
		{"version 257", with(func(r *rawRequest) { r.version = []byte{2, 2, 1, 1} }), BadRequest, "version"},
		{"SHA-1", with(func(r *rawRequest) {
			r.algorithm, r.digest = unhex(t, "300906052b0e03021a0500"), wrap(0x04, make([]byte, 20))
		}), BadAlg, "1.3.14.3.2.26"},
		{"SHA-224", with(func(r *rawRequest) {
			r.algorithm, r.digest = unhex(t, "300b0609608648016503040204"), wrap(0x04, make([]byte, 28))
		}), BadAlg, "2.16.840.1.101.3.4.2.4"},
		{"MD5", with(func(r *rawRequest) {
			r.algorithm, r.digest = unhex(t, "300c06082a864886f70d02050500"), wrap(0x04, make([]byte, 16))
		}), BadAlg, "1.2.840.113549.2.5"},
		{"arc beyond 31 bits", with(func(r *rawRequest) { r.algorithm = unhex(t, "300a 0608 69 9082 8080 8080 01") }), BadAlg, "6990828080808001"},
		{"hash parameters", with(func(r *rawRequest) { r.algorithm = unhex(t, "300e0609608648016503040201020105") }), BadAlg, "parameters"},
		{"imprint too short", with(func(r *rawRequest) { r.digest = wrap(0x04, make([]byte, 31)) }), BadDataFormat, "31 octets"},
		{"imprint too long", with(func(r *rawRequest) { r.digest = wrap(0x04, make([]byte, 33)) }), BadDataFormat, "33 octets"},
		{"policy not served", with(func(r *rawRequest) { r.rest = unhex(t, "06032a0304") }), UnacceptedPolicy, "1.2.3.4"},
		{"nonce of 65 octets", with(func(r *rawRequest) { r.rest = wrap(0x02, bytes.Repeat([]byte{0x7f}, 65)) }), BadRequest, "64 octets"},
		{"nonce not minimal", with(func(r *rawRequest) { r.rest = unhex(t, "02020001") }), BadDataFormat, "integer"},
		{"certReq before nonce", with(func(r *rawRequest) { r.rest = unhex(t, "0101ff020101") }), BadDataFormat, "misplaced"},
		{"unknown field", with(func(r *rawRequest) { r.rest = unhex(t, "a1020500") }), BadDataFormat, "unknown"},
		{"extension", with(func(r *rawRequest) { r.rest = unhex(t, "a00b300906032a030404020500") }), UnacceptedExtension, "1.2.3.4"},
		{"critical extension", with(func(r *rawRequest) { r.rest = unhex(t, "a00e300c06032a03040101ff04020500") }), UnacceptedExtension, "1.2.3.4"},
		{"extensions empty", with(func(r *rawRequest) { r.rest = unhex(t, "a000") }), BadDataFormat, "extensions"},
		{"extension malformed", with(func(r *rawRequest) { r.rest = unhex(t, "a00530030101ff") }), BadDataFormat, "extensions"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			response := b.Respond(t.Context(), tt.request)
			r := refused(t, response)
			if r.FailInfo[0] != tt.want || !strings.Contains(r.StatusString, tt.text) {
				t.Errorf("got %v, want %v with %q", r, tt.want, tt.text)
			}
			if err := der.Check(response); err != nil {
				t.Error(err)
			}
		})
	}
	if n := len(b.journal.issued()); n != 0 {
		t.Errorf("%d tokens were recorded for refused requests", n)
	}
	if _, err := ParseResponse(b.Respond(t.Context(), good)); err != nil {
		t.Errorf("the next good request: %v", err)
	}
}

// TestRespondSystemFailure has everything that is the authority's own fault be systemFailure, and tell the client nothing about it.
func TestRespondSystemFailure(t *testing.T) {
	key := newP256(t)
	refuseAppend := func(b *bench) {
		b.journal.failWith(func(e journal.Event) error {
			if _, ok := e.(journal.TimestampIssued); ok {
				return errors.New("disk of vault-3 is full")
			}
			return nil
		})
	}
	tests := []struct {
		name  string
		spoil func(*bench)
	}{
		{"token fails", func(b *bench) { b.Authority.unit.key = brokenKey{Signer: key} }},
		{"token returns a wrong signature", func(b *bench) { b.Authority.unit.key = brokenKey{Signer: key, wrong: true} }},
		{"journal refuses", refuseAppend},
		{"journal refuses clock changes", func(b *bench) {
			b.journal.failWith(func(journal.Event) error { return errors.New("disk of vault-3 is full") })
		}},
		{"every serial is taken", func(b *bench) {
			b.journal.failWith(func(e journal.Event) error {
				if _, ok := e.(journal.TimestampIssued); ok {
					return journal.ErrConflict
				}
				return nil
			})
		}},
		{"key past privateKeyUsagePeriod", func(b *bench) { b.clock.pass(366 * 24 * time.Hour) }},
		{"certificate expired", func(b *bench) { b.clock.pass(6 * 366 * 24 * time.Hour) }},
		{"certificate not yet valid", func(b *bench) {
			b.clock.say(0, errors.New("not synchronised")) // and then set
			b.ask(t, "data", nil)
			b.clock.jump(-60 * 24 * time.Hour)
			b.clock.say(time.Millisecond, nil)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, key, nil)
			tt.spoil(b)
			r := refused(t, b.ask(t, "data", nil))
			if r.FailInfo[0] != SystemFailure {
				t.Errorf("got %v, want systemFailure", r)
			}
			for _, inner := range []string{"vault", "CKR", "slot", "serial"} {
				if strings.Contains(r.StatusString, inner) {
					t.Errorf("the client is told %q", r.StatusString)
				}
			}
			if n := len(b.journal.issued()); n != 0 {
				t.Errorf("%d tokens are in the journal", n)
			}
		})
	}
}

// TestRespondSerialTaken has a serial number that the journal knows be replaced, with another token.
func TestRespondSerialTaken(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	var refusedSerial journal.Serial
	b.journal.failWith(func(e journal.Event) error {
		if issued, ok := e.(journal.TimestampIssued); ok && refusedSerial == "" {
			refusedSerial = issued.Serial
			return journal.ErrConflict
		}
		return nil
	})
	ts, err := Verify(b.ask(t, "data", nil), VerifyOptions{Roots: b.ca.roots()})
	if err != nil {
		t.Fatal(err)
	}
	if ts.SerialNumber == refusedSerial.String() || ts.SerialNumber != b.journal.issued()[0].Serial.String() {
		t.Errorf("token has serial %s; refused was %s, recorded %s", ts.SerialNumber, refusedSerial, b.journal.issued()[0].Serial)
	}
}

// TestToken looks at every field of a token through our own verifier and through digitorus/timestamp.
func TestToken(t *testing.T) {
	for _, s := range services(t) {
		b := newBench(t, s.key, func(c *Config) { c.Unit.SignatureScheme = s.scheme })
		for _, h := range imprintHashes {
			for _, certReq := range []bool{true, false} {
				t.Run(s.name+" "+h.hash.String(), func(t *testing.T) { testToken(t, b, s, h.hash, certReq) })
			}
		}
	}
}

func testToken(t *testing.T, b *bench, s service, h crypto.Hash, certReq bool) {
	hasher := h.New()
	hasher.Write([]byte("data"))
	nonce := NewNonce()
	response := b.ask(t, "", func(r *Request) {
		*r = Request{Hash: h, Digest: hasher.Sum(nil), Nonce: nonce, CertReq: certReq, Policy: BTSP}
	})
	if err := der.Check(response); err != nil {
		t.Fatal(err)
	}
	o := VerifyOptions{
		Roots: b.ca.roots(), Data: strings.NewReader("data"), Nonce: nonce, Policy: BTSP, Now: testTime.Add(time.Minute), Since: testTime, ChainAt: testTime.Add(time.Minute),
	}
	if !certReq {
		if _, err := Verify(response, o); err == nil {
			t.Error("a token without certReq carries certificates")
		}
		o.Certificates = append(o.Certificates, b.unit.Certificate)
		o.Certificates = append(o.Certificates, b.unit.Chain...)
		o.Data = strings.NewReader("data")
	}
	ts, err := Verify(response, o)
	if err != nil {
		t.Fatal(err)
	}
	if ts.Accuracy != time.Second || !ts.Qualified || ts.Ordering || !ts.DataCompared || len(ts.Chain) != 3 ||
		!ts.GenTime.Equal(testTime.Truncate(time.Millisecond)) || len(ts.SerialNumber) != 40 {
		t.Errorf("got %+v", ts)
	}
	issued := b.journal.issued()[len(b.journal.issued())-1]
	if issued.TokenHash != sha256.Sum256(ts.Token) || issued.Serial.String() != ts.SerialNumber || !issued.GenTime.Equal(ts.GenTime) || !bytes.Contains(ts.Token, issued.TSTInfo) {
		t.Errorf("the journal recorded %+v", issued)
	}
	if ts.Signature != s.algorithm || !bytes.Contains(ts.Token, unhex(t, s.identifier)) {
		t.Errorf("the token is signed with %s, want %s", ts.Signature, s.algorithm)
	}
	if h > crypto.SHA512 || s.scheme == der.PSS {
		return // digitorus knows neither SHA-3 nor RSASSA-PSS
	}
	d, err := timestamp.ParseResponse(response)
	if err != nil {
		t.Fatal(err)
	}
	if d.Accuracy != time.Second || d.Nonce.Cmp(nonce) != 0 || !d.Policy.Equal(BTSP) || d.HashAlgorithm != h || !d.Qualified ||
		!bytes.Equal(d.HashedMessage, hasher.Sum(nil)) || d.SerialNumber.Text(16) != strings.TrimLeft(ts.SerialNumber, "0") || d.AddTSACertificate != certReq {
		t.Errorf("digitorus reads %+v", d)
	}
}

// TestTokenAsConfigured has accuracy, precision, policy and the qualified statement follow the configuration.
func TestTokenAsConfigured(t *testing.T) {
	other := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	b := newBench(t, newP256(t), func(c *Config) {
		c.Accuracy, c.Qualified = 20*time.Millisecond+5*time.Microsecond, false
	})
	b.clock.pass(123 * time.Microsecond)
	ts, err := Verify(b.ask(t, "data", func(r *Request) { r.Policy = other }), VerifyOptions{Roots: b.ca.roots()})
	if err != nil {
		t.Fatal(err)
	}
	if ts.Qualified || ts.Accuracy != 20*time.Millisecond+5*time.Microsecond || ts.Policy != other.String() ||
		!ts.GenTime.Equal(testTime.Add(123*time.Microsecond)) || ts.Nonce != "" || ts.DataCompared {
		t.Errorf("got %+v", ts)
	}
}

// TestNonce has every nonce come back octet for octet, negative ones too (RFC 3161 §2.4.2).
func TestNonce(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	max512 := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 511), big.NewInt(1)) // 64 octets
	for _, n := range []*big.Int{big.NewInt(0), big.NewInt(1), big.NewInt(-1), big.NewInt(128), big.NewInt(-129), NewNonce(), max512} {
		ts, err := Verify(b.ask(t, "data", func(r *Request) { r.Nonce = n }), VerifyOptions{Roots: b.ca.roots(), Nonce: n})
		if err != nil {
			t.Errorf("nonce %v: %v", n, err)
		} else if ts.Nonce == "" {
			t.Errorf("nonce %v: absent", n)
		}
	}
	if _, err := NewRequest(Request{Hash: crypto.SHA256, Digest: make([]byte, 32), Nonce: new(big.Int).Add(max512, big.NewInt(1))}); err == nil {
		t.Error("a nonce of 65 octets was accepted")
	}
}

// TestCertReqExplicitFalse has a written-out default mean what its absence means.
func TestCertReqExplicitFalse(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	r := goodRequest()
	r.rest = unhex(t, "010100")
	token, err := ParseResponse(b.Respond(t.Context(), r.marshal()))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(token, b.unit.Certificate.Raw) {
		t.Error("certReq FALSE, and the token carries the certificate")
	}
}

// TestHashParametersNull has an imprint with NULL parameters accepted and echoed as it came.
func TestHashParametersNull(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	r := goodRequest()
	r.algorithm = unhex(t, "300d06096086480165030402010500")
	token, err := ParseResponse(b.Respond(t.Context(), r.marshal()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(token, wrap(0x30, r.algorithm, r.digest)) {
		t.Error("the imprint is not the request's, octet for octet")
	}
}

// TestRespondConcurrently has many requests at once get different serials.
func TestRespondConcurrently(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	done := make(chan []byte)
	for range 64 {
		go func() { done <- b.ask(t, "data", nil) }()
	}
	seen := make(map[string]bool)
	for range 64 {
		ts, err := Verify(<-done, VerifyOptions{Roots: b.ca.roots()})
		if err != nil {
			t.Fatal(err)
		}
		if seen[ts.SerialNumber] {
			t.Fatalf("serial %s twice", ts.SerialNumber)
		}
		seen[ts.SerialNumber] = true
	}
}

// TestRespondClientGone has a client that went away count as nobody's failure, and the clock's state be recorded all the same.
func TestRespondClientGone(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	b.journal.failWith(func(e journal.Event) error {
		if _, ok := e.(journal.TimestampIssued); ok {
			return fmt.Errorf("append: %w", context.Canceled)
		}
		return nil
	})
	var log strings.Builder
	b.Authority.log = slog.New(slog.NewTextHandler(&log, nil))
	refused(t, b.Respond(t.Context(), goodRequest().marshal()))
	if log.Len() != 0 {
		t.Errorf("logged: %s", log.String())
	}
	if n := len(b.journal.clockChanges()); n != 1 {
		t.Errorf("%d clock changes recorded, want 1", n)
	}
}

// TestRespondLogsSeldom: anybody may ask while a token is away, and must not fill the disk by it; the metric counts every refusal.
func TestRespondLogsSeldom(t *testing.T) {
	key := newP256(t)
	var log bytes.Buffer
	b := newBench(t, key, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	b.Authority.unit.key = brokenKey{Signer: key}
	const asked = 200
	began := time.Now()
	for range asked {
		refused(t, b.ask(t, "data", nil))
	}
	may := 1 + int(time.Since(began)/time.Second)
	if n := strings.Count(log.String(), "no token: systemFailure"); n == 0 || n > may {
		t.Errorf("%d lines for %d requests; want 1 to %d", n, asked, may)
	}
}
