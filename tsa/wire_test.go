package tsa

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"golang.org/x/crypto/cryptobyte"
	"pgregory.net/rapid"

	"github.com/zegel-tsp/zegel/internal/der"
)

// TestFailInfoEncoding holds the BIT STRINGs against those of RFC 3161 §2.4.2 in DER.
func TestFailInfoEncoding(t *testing.T) {
	for _, tt := range []struct {
		info PKIFailureInfo
		name string
		want string
	}{
		{BadAlg, "badAlg", "03020780"},
		{BadRequest, "badRequest", "03020520"},
		{BadDataFormat, "badDataFormat", "03020204"},
		{TimeNotAvailable, "timeNotAvailable", "0303010002"},
		{UnacceptedPolicy, "unacceptedPolicy", "0303000001"},
		{UnacceptedExtension, "unacceptedExtension", "030407000080"},
		{AddInfoNotAvailable, "addInfoNotAvailable", "030406000040"},
		{SystemFailure, "systemFailure", "03050600000040"},
	} {
		got := tt.info.marshal()
		if hex.EncodeToString(got) != tt.want || tt.info.String() != tt.name {
			t.Errorf("%v: got %x, want %s %s", tt.info, got, tt.name, tt.want)
		}
		s := cryptobyte.String(got)
		if back, ok := readFailInfo(&s); !ok || len(back) != 1 || back[0] != tt.info {
			t.Errorf("%v reads back as %v", tt.info, back)
		}
		response := marshalRejection(tt.info, "why")
		if err := der.Check(response); err != nil {
			t.Error(err)
		}
		var parsed struct {
			Status struct {
				Status   int
				Text     []string `asn1:"utf8"`
				FailInfo asn1.BitString
			}
		}
		if rest, err := asn1.Unmarshal(response, &parsed); err != nil || len(rest) != 0 || parsed.Status.FailInfo.At(int(tt.info)) != 1 {
			t.Errorf("encoding/asn1 reads %+v, %v", parsed, err)
		}
	}
	if got := PKIFailureInfo(3).String(); got != "failInfo(3)" {
		t.Errorf("got %s", got)
	}
}

// TestGenTimeEncoding holds genTime against RFC 3161 §2.4.2: no trailing zero, no lone point, never rounded up.
func TestGenTimeEncoding(t *testing.T) {
	at := func(nanoseconds int) time.Time { return time.Date(2026, 1, 2, 3, 4, 5, nanoseconds, time.UTC) }
	for _, tt := range []struct {
		t         time.Time
		precision time.Duration
		want      string
	}{
		{at(0), time.Millisecond, "20260102030405Z"},
		{at(678_000_000), time.Millisecond, "20260102030405.678Z"},
		{at(670_000_000), time.Millisecond, "20260102030405.67Z"},
		{at(600_000_000), time.Millisecond, "20260102030405.6Z"},
		{at(1_000_000), time.Millisecond, "20260102030405.001Z"},
		{at(999_999_999), time.Millisecond, "20260102030405.999Z"},
		{at(999_999_999), time.Microsecond, "20260102030405.999999Z"},
		{at(999_999), time.Millisecond, "20260102030405Z"},
		{at(1_500), time.Microsecond, "20260102030405.000001Z"},
		{at(0).In(time.FixedZone("", 3600)), time.Millisecond, "20260102030405Z"},
		{time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), time.Millisecond, "20491231235959Z"},
		{time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), time.Millisecond, "20500101000000Z"},
	} {
		got := appendGenTime(nil, tt.t, tt.precision)
		if string(got) != tt.want {
			t.Errorf("%v to %v: got %s, want %s", tt.t, tt.precision, got, tt.want)
		}
		if back, err := parseGenTime(got); err != nil || !back.Equal(tt.t.Truncate(tt.precision)) {
			t.Errorf("%s reads back as %v, %v", got, back, err)
		}
	}
	for _, bad := range []string{
		"", "20260102030405", "202601020304Z", "20260102030405.Z", "20260102030405.0Z", "20260102030405.10Z", "20260102030405,1Z",
		"20260102030405+0100", "20260102030460Z", "20260102240000Z", "20260230030405Z", "20260102030405.1234567891Z", "20260102030405z", "260102030405Z",
	} {
		if got, err := parseGenTime([]byte(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

// TestAccuracyEncoding holds Accuracy against RFC 3161 §2.4.2.
func TestAccuracyEncoding(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{time.Second, "3003020101"},
		{500 * time.Millisecond, "3004800201f4"},
		{time.Millisecond, "3003800101"},
		{250 * time.Microsecond, "3004810200fa"},
		{999*time.Millisecond + 999*time.Microsecond, "3008800203e7810203e7"},
		{1 * time.Microsecond, "3003810101"},
	} {
		got := marshalAccuracy(tt.d)
		if hex.EncodeToString(got) != tt.want {
			t.Errorf("%v: got %x, want %s", tt.d, got, tt.want)
		}
		s := cryptobyte.String(got)
		if back, err := readAccuracy(&s); err != nil || back != tt.d {
			t.Errorf("%v reads back as %v, %v", tt.d, back, err)
		}
	}
	for _, bad := range []string{"020101", "300302 01ff", "3003800100", "3004800203e8", "3003810100", "3006810101800101", "30058203010101"} {
		s := cryptobyte.String(unhex(t, bad))
		if got, err := readAccuracy(&s); err == nil {
			t.Errorf("%s was read as %v", bad, got)
		}
	}
}

// TestWrapLengths has every form of length be the shortest (X.690 §10.1).
func TestWrapLengths(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 255, 256, 65535, 65536, 1 << 20} {
		if err := der.Check(wrap(0x04, make([]byte, n))); err != nil {
			t.Errorf("%d octets: %v", n, err)
		}
	}
}

// TestRequestRoundTrip has what NewRequest writes be read as it was meant, and written again octet for octet.
func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := rapid.SampledFrom(imprintHashes[:]).Draw(t, "hash").hash
		r := Request{
			Hash: h, Digest: rapid.SliceOfN(rapid.Byte(), h.Size(), h.Size()).Draw(t, "digest"),
			CertReq: rapid.Bool().Draw(t, "certReq"),
		}
		if rapid.Bool().Draw(t, "with policy") {
			arcs := rapid.SliceOfN(rapid.IntRange(0, 1<<31-1), 1, 12).Draw(t, "arcs")
			r.Policy = append(asn1.ObjectIdentifier{1, rapid.IntRange(0, 39).Draw(t, "second arc")}, arcs...)
		}
		if rapid.Bool().Draw(t, "with nonce") {
			r.Nonce = new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 63).Draw(t, "nonce"))
			if rapid.Bool().Draw(t, "negative") {
				r.Nonce.Neg(r.Nonce)
			}
		}
		request, err := NewRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		req, err := parseTimeStampReq(request)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(req.marshal(), request) || req.messageImprint.hash != h ||
			!bytes.Equal(req.messageImprint.hashedMessage, r.Digest) || req.certReq != r.CertReq ||
			(req.reqPolicy == nil) != (r.Policy == nil) || (req.nonce == nil) != (r.Nonce == nil) {
			t.Fatalf("%x reads as %+v", request, req)
		}
	})
}

// TestRequestsAgainstDigitorus has another implementation read our requests.
func TestRequestsAgainstDigitorus(t *testing.T) {
	digest := make([]byte, 48)
	rand.Read(digest)
	nonce := NewNonce()
	request, err := NewRequest(Request{Hash: crypto.SHA384, Digest: digest, Policy: BTSP, Nonce: nonce, CertReq: true})
	if err != nil {
		t.Fatal(err)
	}
	d, err := timestamp.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	if d.HashAlgorithm != crypto.SHA384 || !bytes.Equal(d.HashedMessage, digest) || !d.TSAPolicyOID.Equal(BTSP) || d.Nonce.Cmp(nonce) != 0 || !d.Certificates {
		t.Errorf("digitorus reads %+v", d)
	}
}

// TestNewRequestRefuses has a request that no authority would answer not be made.
func TestNewRequestRefuses(t *testing.T) {
	for name, r := range map[string]Request{
		"SHA-1":         {Hash: crypto.SHA1, Digest: make([]byte, 20)},
		"no hash":       {Digest: make([]byte, 32)},
		"short digest":  {Hash: crypto.SHA256, Digest: make([]byte, 31)},
		"policy of one": {Hash: crypto.SHA256, Digest: make([]byte, 32), Policy: asn1.ObjectIdentifier{1}},
	} {
		if _, err := NewRequest(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
