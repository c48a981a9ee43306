package ocsp

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// someID is a CertID of nobody's.
func someID(t testing.TB) []byte {
	t.Helper()
	return certIDSpec{hash: crypto.SHA1, subject: []byte("subject"), key: []byte("key"), serial: big.NewInt(77)}.marshal(t)
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unknownID stands for an extension that nobody has heard of.
var unknownID = asn1.ObjectIdentifier{1, 2, 3, 4}

func TestParseRequest(t *testing.T) {
	id := someID(t)
	null := asn1.NullBytes
	withParameters := func(p []byte) []byte {
		return certIDSpec{hash: crypto.SHA256, parameters: p, absent: p == nil, subject: []byte("s"), key: []byte("k"), serial: big.NewInt(1)}.marshal(t)
	}
	// [0] { SEQUENCE { AlgorithmIdentifier ecdsa-with-SHA256, BIT STRING } } with and without certs
	signature := fromHex(t, "a012 3010 300a06082a8648ce3d040302 03020001")
	withCerts := fromHex(t, "a018 3016 300a06082a8648ce3d040302 03020001 a004 3002 3000")
	repeat := func(n int) (list [][]byte) {
		for range n {
			list = append(list, id)
		}
		return list
	}
	extension := func(id asn1.ObjectIdentifier, critical bool) der.Extension {
		return der.Extension{ID: id, Critical: critical, Value: null}
	}
	critical := func(e der.Extension) der.Extension {
		e.Critical = true
		return e
	}
	raw := func(value string) der.Extension { return der.Extension{ID: oidNonce, Value: fromHex(t, value)} }
	one := [][]byte{id}
	for _, c := range []struct {
		name    string
		request []byte
		want    string // part of the error; empty: it is read
	}{
		{"plain", requestSpec{list: one}.marshal(t), ""},
		{"20 requests", requestSpec{list: repeat(20)}.marshal(t), ""},
		{"21 requests", requestSpec{list: repeat(21)}.marshal(t), "more than 20"},
		{"no request", requestSpec{}.marshal(t), "requestList is empty"},
		{"empty", nil, "not canonical DER"},
		{"text", []byte("GET / HTTP/1.1"), "not canonical DER"},
		{"empty SEQUENCE", fromHex(t, "3000"), "OCSPRequest"},
		{"trailing octet", append(requestSpec{list: one}.marshal(t), 0), "not canonical DER"},
		{"indefinite length", fromHex(t, "3080 0000"), "not canonical DER"},
		{"version v1 spelled out", requestSpec{version: fromHex(t, "a003020100"), list: one}.marshal(t), "version"},
		{"version v2", requestSpec{version: fromHex(t, "a003020101"), list: one}.marshal(t), "version"},
		{"requestorName directoryName", requestSpec{name: fromHex(t, "a104 a402 3000"), list: one}.marshal(t), ""},
		{"requestorName of two", requestSpec{name: fromHex(t, "a106 820161 820161"), list: one}.marshal(t), "requestorName"},
		{"requestorName no GeneralName", requestSpec{name: fromHex(t, "a102 0500"), list: one}.marshal(t), "requestorName"},
		{"signed", requestSpec{list: one, signature: signature}.marshal(t), ""},
		{"signed with certs", requestSpec{list: one, signature: withCerts}.marshal(t), ""},
		{"signature no Signature", requestSpec{list: one, signature: fromHex(t, "a002 0500")}.marshal(t), "optionalSignature"},
		{"signature with a cert that is none", requestSpec{list: one, signature: fromHex(t, "a018 3016 300a06082a8648ce3d040302 03020001 a004 3002 0500")}.marshal(t), "optionalSignature"},
		{"hash with NULL", requestSpec{list: [][]byte{withParameters(null)}}.marshal(t), ""},
		{"hash without parameters", requestSpec{list: [][]byte{withParameters(nil)}}.marshal(t), ""},
		{"hash with other parameters", requestSpec{list: [][]byte{withParameters(fromHex(t, "020101"))}}.marshal(t), "hashAlgorithm"},
		{"CertID with an element more", requestSpec{list: [][]byte{fromHex(t, "3014 300906052b0e03021a0500 0400 0400 020101 0500")}}.marshal(t), "CertID"},
		{"CertID no CertID", requestSpec{list: [][]byte{null}}.marshal(t), "CertID"},
		{"Request with an element more", requestSpec{list: [][]byte{append(bytes.Clone(id), null...)}}.marshal(t), "Request"},
		{"single extension", requestSpec{list: one, single: []der.Extension{extension(unknownID, false)}}.marshal(t), ""},
		{"critical single extension", requestSpec{list: one, single: []der.Extension{extension(unknownID, true)}}.marshal(t), "critical extension 1.2.3.4"},
		{"extension", requestSpec{list: one, extensions: []der.Extension{extension(unknownID, false)}}.marshal(t), ""},
		{"critical extension", requestSpec{list: one, extensions: []der.Extension{extension(unknownID, true)}}.marshal(t), "critical extension 1.2.3.4"},
		{"critical acceptableResponses", requestSpec{list: one, extensions: []der.Extension{extension(oidAcceptableResponses, true)}}.marshal(t), ""},
		{"critical preferredSigAlgs", requestSpec{list: one, extensions: []der.Extension{extension(oidPreferredSigAlgs, true)}}.marshal(t), ""},
		{"extension twice", requestSpec{list: one, extensions: []der.Extension{extension(unknownID, false), extension(unknownID, false)}}.marshal(t), "twice"},
		{"nonce of 1", requestSpec{list: one, extensions: []der.Extension{nonceExtension(t, make([]byte, 1))}}.marshal(t), ""},
		{"nonce of 128", requestSpec{list: one, extensions: []der.Extension{nonceExtension(t, make([]byte, 128))}}.marshal(t), ""},
		{"critical nonce", requestSpec{list: one, extensions: []der.Extension{critical(nonceExtension(t, make([]byte, 32)))}}.marshal(t), ""},
		{"nonce of 0", requestSpec{list: one, extensions: []der.Extension{nonceExtension(t, nil)}}.marshal(t), "nonce of 0"},
		{"nonce of 129", requestSpec{list: one, extensions: []der.Extension{nonceExtension(t, make([]byte, 129))}}.marshal(t), "nonce of 129"},
		{"nonce not wrapped", requestSpec{list: one, extensions: []der.Extension{raw("01020304")}}.marshal(t), "nonce"},
		{"nonce with more", requestSpec{list: one, extensions: []der.Extension{raw("040101 0500")}}.marshal(t), "nonce"},
		{"nonce with long length", requestSpec{list: one, extensions: []der.Extension{raw("04810101")}}.marshal(t), "nonce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := parseRequest(c.request)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if len(q.list) == 0 {
					t.Fatal("no CertIDs")
				}
				return
			}
			if !errors.Is(err, errMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want malformed with %q", err, c.want)
			}
		})
	}
}

// A request of more than 16 KiB is refused for its length, and one of just that is read.
func TestRequestLength(t *testing.T) {
	padded := func(n int) []byte {
		padding := der.Extension{ID: unknownID, Value: make([]byte, n)}
		return requestSpec{list: [][]byte{someID(t)}, extensions: []der.Extension{padding}}.marshal(t)
	}
	most := maxRequest - (len(padded(maxRequest/2)) - maxRequest/2)
	if got := padded(most); len(got) != maxRequest {
		t.Fatalf("test request has %d octets", len(got))
	}
	if _, err := parseRequest(padded(most)); err != nil {
		t.Error(err)
	}
	if _, err := parseRequest(padded(most + 1)); err == nil || !strings.Contains(err.Error(), "the limit is 16384") {
		t.Errorf("error %v, want the limit", err)
	}
}

// The answer repeats the CertID as it came, octet for octet.
func TestParseRequestKeepsCertID(t *testing.T) {
	id := someID(t)
	nonce := nonceExtension(t, []byte("0123456789abcdef"))
	q, err := parseRequest(requestSpec{list: [][]byte{id, id}, extensions: []der.Extension{nonce}}.marshal(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(q.list) != 2 || !bytes.Equal(q.list[1].raw, id) || !bytes.Equal(q.nonce, nonce.Value) {
		t.Errorf("read %+v", q)
	}
	name := sha1.Sum([]byte("subject"))
	if got := q.list[0]; got.hashAlgorithm != crypto.SHA1 || !bytes.Equal(got.nameHash, name[:]) || !bytes.Equal(got.serialNumber, []byte{77}) {
		t.Errorf("read CertID %+v", got)
	}
	if q.key() != string(id)+string(id) {
		t.Errorf("key %x", q.key())
	}
}

// Golden octets, written by hand from RFC 6960 §4.2.1.
func TestCertStatus(t *testing.T) {
	for _, c := range []struct {
		status certStatus
		want   string
	}{
		{certStatus{state: good}, "8000"},
		{certStatus{state: unknown}, "8200"},
		{certStatus{state: revoked, revocationTime: epoch}, "a111 180f 32303236303330313132303030305a"},
		{certStatus{state: revoked, revocationTime: epoch, reason: 1}, "a116 180f 32303236303330313132303030305a a003 0a0101"},
	} {
		var b cryptobyte.Builder
		c.status.add(&b)
		if got, want := mustBytes(t, &b), fromHex(t, c.want); !bytes.Equal(got, want) {
			t.Errorf("%v: %x, want %x", c.status, got, want)
		}
	}
}

func TestRefusal(t *testing.T) {
	for s, name := range map[responseStatus]string{
		malformedRequest: "malformedRequest", internalError: "internalError", tryLater: "tryLater", unauthorized: "unauthorized",
	} {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s)) })
		if want := mustBytes(t, &b); !bytes.Equal(refusal(s), want) {
			t.Errorf("%v: %x, want %x", s, refusal(s), want)
		}
		if s.String() != name {
			t.Errorf("%d is called %q", s, s.String())
		}
	}
}

// FuzzParseRequest: what is read, written again from what was read, is the same octets.
func FuzzParseRequest(f *testing.F) {
	id := someID(f)
	f.Add(requestSpec{list: [][]byte{id}}.marshal(f))
	f.Add(requestSpec{list: [][]byte{id, id}, extensions: []der.Extension{nonceExtension(f, make([]byte, 32))}}.marshal(f))
	f.Add(requestSpec{list: [][]byte{id}, name: fromHex(f, "a104 a402 3000"), signature: fromHex(f, "a012 3010 300a06082a8648ce3d040302 03020001")}.marshal(f))
	f.Fuzz(func(t *testing.T, request []byte) {
		q, err := parseRequest(request)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("error %v is not errMalformed", err)
			}
			return
		}
		again := requestSpec{}
		for _, id := range q.list {
			again.list = append(again.list, id.raw)
		}
		if q.nonce != nil {
			again.extensions = []der.Extension{{ID: oidNonce, Value: q.nonce}}
		}
		plain := again.marshal(t)
		q2, err := parseRequest(plain)
		if err != nil || q2.key() != q.key() || !bytes.Equal(q2.nonce, q.nonce) {
			t.Fatalf("%x\nread again: %v", plain, err)
		}
	})
}
