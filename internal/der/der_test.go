package der_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/zegel-tsp/zegel/internal/der"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each line is one clause of X.690 §10 or §11, once kept and once broken.
func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, hex, wrong string }{
		{"boolean", "0101ff", "010101"},
		{"integer minimal", "020200ff", "020200 7f"},
		{"integer negative minimal", "0201ff", "0202ffff"},
		{"integer not empty", "020100", "0200"},
		{"enumerated minimal", "0a0101", "0a020001"},
		{"length minimal", "0401aa", "048101aa"},
		{"length definite", "3000", "30800000"},
		{"bit string padding", "03020780", "030207c0"},
		{"bit string unused", "030100", "030107"},
		{"bit string unused above 7", "030100", "03020800"},
		{"bit string empty", "030100", "0300"},
		{"null", "0500", "050100"},
		{"identifier", "06032a0304", "06032a8004"},
		{"identifier ends", "06022a03", "06022a83"},
		{"identifier not empty", "06012a", "0600"},
		{"set sorted", "3106020101020102", "3106020102020101"},
		{"octet string primitive", "0401aa", "2403040 1aa"},
		{"sequence constructed", "3000", "1000"},
		{"nothing after", "0500", "05000500"},
		{"truncated", "30020500", "30040500"},
		{"empty", "0500", ""},
		{"inside", "3003020101", "300402020001"},
		{"high tag", "8000", "9f8101 00"},
	} {
		strip := func(s string) []byte { return unhex(t, string(bytes.ReplaceAll([]byte(s), []byte(" "), nil))) }
		if err := der.Check(strip(c.hex)); err != nil {
			t.Errorf("%s: %s: %v", c.name, c.hex, err)
		}
		if err := der.Check(strip(c.wrong)); !errors.Is(err, der.ErrNotDER) {
			t.Errorf("%s: %s: got %v, want ErrNotDER", c.name, c.wrong, err)
		}
	}
}

func TestCheckDepth(t *testing.T) {
	nest := func(n int) []byte {
		b := []byte{0x05, 0x00}
		for range n {
			var c cryptobyte.Builder
			c.AddASN1(0x30, func(c *cryptobyte.Builder) { c.AddBytes(b) })
			b = c.BytesOrPanic()
		}
		return b
	}
	if err := der.Check(nest(32)); err != nil {
		t.Errorf("32 deep: %v", err)
	}
	if err := der.Check(nest(33)); !errors.Is(err, der.ErrNotDER) {
		t.Errorf("33 deep: got %v", err)
	}
	if err := der.Check(bytes.Repeat([]byte{0x30, 0x80}, 1<<20)); !errors.Is(err, der.ErrNotDER) {
		t.Errorf("2 MiB of indefinite lengths: got %v", err)
	}
}

func TestExtensions(t *testing.T) {
	want := []der.Extension{
		{ID: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 6, 0x40}},
		{ID: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: []byte{4, 1, 1}},
	}
	var b cryptobyte.Builder
	der.AddExtensions(&b, want)
	s := cryptobyte.String(b.BytesOrPanic())
	got, err := der.ReadExtensions(&s)
	if err != nil || len(got) != 2 || !got[0].Critical || got[1].Critical || !bytes.Equal(got[0].Value, want[0].Value) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if e, ok := der.FindExtension(got, want[1].ID); !ok || !bytes.Equal(e.Value, want[1].Value) {
		t.Errorf("find: %v %v", e, ok)
	}
	for name, h := range map[string]string{
		"empty":          "3000",
		"critical FALSE": "300c300a0603551d0f0101000400",
		"twice":          "3012300706 03551d0f0400300706 03551d0f0400",
		"trailing":       "300b30090603551d0f04000500",
	} {
		s := cryptobyte.String(unhex(t, string(bytes.ReplaceAll([]byte(h), []byte(" "), nil))))
		if _, err := der.ReadExtensions(&s); !errors.Is(err, der.ErrNotDER) {
			t.Errorf("%s: got %v, want ErrNotDER", name, err)
		}
	}
}

// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050, no fractions, Z.
func TestTime(t *testing.T) {
	zone := time.FixedZone("", 3600)
	for in, want := range map[time.Time]string{
		time.Date(2049, 12, 31, 23, 59, 59, 999, time.UTC): "170d3439313233313233353935395a",
		time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC):        "180f32303530303130313030303030305a",
		time.Date(2030, 1, 1, 1, 0, 0, 0, zone):            "170d3330303130313030303030305a",
	} {
		var b cryptobyte.Builder
		der.AddTime(&b, in)
		if got := hex.EncodeToString(b.BytesOrPanic()); got != want {
			t.Errorf("%v: got %s, want %s", in, got, want)
		}
	}
}

func TestSignedAndPublicKeyBits(t *testing.T) {
	key := ec(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	a, err := der.AlgorithmFor(key.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Signed(cert.RawTBSCertificate, cert.Signature), raw) {
		t.Error("Signed does not rebuild the certificate")
	}
	bits, err := der.PublicKeyBits(cert)
	if err != nil || len(bits) != 65 || bits[0] != 4 {
		t.Errorf("public key bits %x: %v", bits, err)
	}
	if _, err := der.PublicKeyBits(&x509.Certificate{RawSubjectPublicKeyInfo: []byte{0x30, 0}}); err == nil {
		t.Error("an empty SubjectPublicKeyInfo was read")
	}
}

// FuzzCheck: never panics, and whatever passes is read back by encoding/asn1 as one value with nothing after it.
func FuzzCheck(f *testing.F) {
	for _, h := range []string{"0500", "3006020101020102", "3106020101020102", "30800000", "03020780", "06032a0304"} {
		f.Add(unhex(f, h))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if der.Check(b) != nil {
			return
		}
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(b, &v)
		if err != nil || len(rest) != 0 {
			t.Fatalf("%x passed Check, encoding/asn1 says %v, %d octets left", b, err, len(rest))
		}
	})
}

func ec(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
