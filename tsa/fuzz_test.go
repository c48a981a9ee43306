package tsa

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// FuzzRespond has every input get a TimeStampResp in DER: a token for it that verifies, or one failInfo with a
// text. What is granted was a request that is written again octet for octet, but for a certReq FALSE that was spelled out.
func FuzzRespond(f *testing.F) {
	b := newBench(f, newP256(f), nil)
	b.Authority.journal, b.watch.journal = discard{}, discard{}
	good := goodRequest()
	f.Add(good.marshal())
	for _, rest := range [][]byte{{2, 1, 5}, {1, 1, 0xff}, unhex(f, "06032a0304"), unhex(f, "a00b300906032a030404020500")} {
		good.rest = rest
		f.Add(good.marshal())
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, request []byte) {
		response := b.Respond(t.Context(), request)
		if err := der.Check(response); err != nil {
			t.Fatalf("%v: %x", err, response)
		}
		token, err := ParseResponse(response)
		if err != nil {
			refused(t, response)
			return
		}
		req, err := parseTimeStampReq(request)
		if err != nil || !bytes.Equal(req.marshal(), request) && !bytes.Equal(withExplicitFalse(t, req.marshal()), request) {
			t.Fatalf("granted %x, which is read as %+v, %v", request, req, err)
		}
		o := VerifyOptions{
			Roots: b.ca.roots(), Certificates: append(b.unit.Chain[:2:2], b.unit.Certificate),
			Hash: req.messageImprint.hash, Digest: req.messageImprint.hashedMessage,
		}
		ts, err := Verify(token, o)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(ts.Token, req.messageImprint.raw) || !bytes.Contains(ts.Token, req.nonce) {
			t.Fatal("imprint or nonce is not the request's")
		}
	})
}

// withExplicitFalse is a request of ours with its absent certReq, the last field, spelled out as FALSE: DER leaves a
// DEFAULT away, clients do not, and the request means the same.
func withExplicitFalse(t *testing.T, request []byte) []byte {
	var fields cryptobyte.String
	s := cryptobyte.String(request)
	if !s.ReadASN1(&fields, asn1.SEQUENCE) {
		t.Fatalf("%x is no SEQUENCE", request)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(fields)
		b.AddASN1Boolean(false)
	})
	return b.BytesOrPanic()
}

// FuzzVerify has Verify never panic, and never accept anything but the one token that its key signed.
func FuzzVerify(f *testing.F) {
	forged := newForgery(f)
	o := forged.options
	o.Data = nil
	good := forged.token()
	f.Add(good)
	f.Add(marshalGranted(good))
	f.Add(marshalRejection(BadAlg, "no"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		ts, err := Verify(b, o)
		if err != nil {
			var r *Rejection
			if errors.As(err, &r) && r.Status == statusGranted {
				t.Fatalf("a rejection that is granted: %v", err)
			}
			return
		}
		if ts.SerialNumber != "2a" || !ts.GenTime.Equal(testTime.Truncate(1e6)) || ts.Nonce != "4d" {
			t.Fatalf("verified %+v", ts)
		}
	})
}
