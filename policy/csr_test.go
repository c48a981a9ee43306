package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // the CSR signed with SHA-1, which has to be refused
	"crypto/x509"
	"crypto/x509/pkix"
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
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// One RSA key serves all tests: making 3072 bits costs more than all of them together.
var testRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 3072) })

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := testRSA()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csrOf(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ignored"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func spkiOf(t testing.TB, pub any) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

func TestParseCSR(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521()), "RSA 3072": rsaKey(t),
	} {
		csr := csrOf(t, key)
		for form, text := range map[string][]byte{
			"DER": csr, "PEM": toPEM("CERTIFICATE REQUEST", csr), "old PEM": toPEM("NEW CERTIFICATE REQUEST", csr),
			"PEM between blank lines": append([]byte("\n\r\n"), append(toPEM("CERTIFICATE REQUEST", csr), "\n\n"...)...),
			"PEM with CRLF":           bytes.ReplaceAll(toPEM("CERTIFICATE REQUEST", csr), []byte("\n"), []byte("\r\n")),
		} {
			got, err := ParseCSR(text)
			if err != nil {
				t.Errorf("%s %s: %v", name, form, err)
			} else if !bytes.Equal(got, spkiOf(t, key.Public())) {
				t.Errorf("%s %s: another key: %x", name, form, got)
			}
		}
	}
}

// TestParseCSRErrors: what cannot be read, or does not prove possession, is a plain error that says why.
func TestParseCSRErrors(t *testing.T) {
	csr := csrOf(t, ecKey(t, elliptic.P256()))
	block := toPEM("CERTIFICATE REQUEST", csr)
	forged := bytes.Clone(csr)
	forged[len(forged)-1] ^= 1
	private, err := x509.MarshalPKCS8PrivateKey(ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	huge := rsaSPKI(new(big.Int).SetBit(big.NewInt(1), maxRSABits, 1), big.NewInt(65537), asn1.NullBytes)
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"empty":                {nil, "empty"},
		"blank":                {[]byte(" \n"), "empty"},
		"garbage":              {[]byte("hello"), "neither PEM nor DER"},
		"too long":             {bytes.Repeat([]byte("A"), maxCSR+1), "65536"},
		"cut off":              {csr[:len(csr)-1], "not canonical DER"},
		"something after":      {append(bytes.Clone(csr), 0), "not canonical DER"},
		"text before":          {append([]byte("Certificate Request:\n"), block...), "before -----BEGIN"},
		"text after":           {append(bytes.Clone(block), "thanks!\n"...), "after -----END"},
		"two blocks":           {append(bytes.Clone(block), block...), "several PEM blocks"},
		"damaged block":        {bytes.Replace(block, []byte("-----END"), []byte("-----DNE"), 1), "damaged"},
		"damaged base64":       {bytes.Replace(block, []byte("\nMI"), []byte("\nM*"), 1), "damaged"},
		"headers":              {bytes.Replace(block, []byte("-----\n"), []byte("-----\nComment: x\n\n"), 1), "headers"},
		"private key":          {toPEM("PRIVATE KEY", private), "must never leave its owner"},
		"certificate":          {toPEM("CERTIFICATE", csr), "not a CERTIFICATE REQUEST"},
		"not a request":        {toPEM("CERTIFICATE REQUEST", []byte{0x30, 0}), "RFC 2986"},
		"version 1":            {handCSR(t, 1, spkiOf(t, &rsaKey(t).PublicKey), crypto.SHA256), "version 1"},
		"key above all bounds": {handCSR(t, 0, huge, crypto.SHA256), "keys above 16384"},
		"forged":               {forged, "REG-6.3.1-01"},
		"key of somebody else": {handCSR(t, 0, spkiOf(t, &ecKey(t, elliptic.P256()).PublicKey), crypto.SHA256), "REG-6.3.1-01"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := ParseCSR(c.text)
			var v Violations
			if err == nil || errors.As(err, &v) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%x, %v; want an error that says %q", out, err, c.want)
			}
		})
	}
}

// handCSR signs with the RSA key of the tests whatever it is told to.
func handCSR(t testing.TB, version int64, spki []byte, hash crypto.Hash) []byte {
	t.Helper()
	var info cryptobyte.Builder
	info.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(version)
		b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {})
		b.AddBytes(spki)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(*cryptobyte.Builder) {})
	})
	h := hash.New()
	h.Write(info.BytesOrPanic())
	signature, err := rsa.SignPKCS1v15(rand.Reader, rsaKey(t), hash, h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	algorithm := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	if hash == crypto.SHA1 {
		algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	}
	var csr cryptobyte.Builder
	csr.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info.BytesOrPanic())
		b.AddBytes(der.AlgorithmIdentifier(algorithm, asn1.NullBytes))
		b.AddASN1BitString(signature)
	})
	return csr.BytesOrPanic()
}

func rsaSPKI(n, e *big.Int, parameters []byte) []byte {
	var key cryptobyte.Builder
	key.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1BigInt(n); b.AddASN1BigInt(e) })
	return subjectPublicKeyInfo{oidRSAEncryption, parameters, key.BytesOrPanic()}.encode()
}

func ecSPKI(curve asn1.ObjectIdentifier, point []byte) []byte {
	var parameters cryptobyte.Builder
	parameters.AddASN1ObjectIdentifier(curve)
	return subjectPublicKeyInfo{oidECPublicKey, parameters.BytesOrPanic(), point}.encode()
}

type keyCase struct {
	name, clause string
	spki         []byte
}

// keyFaults are keys that must not be certified. The SHA-1 one is a fault of the CSR about the key.
func keyFaults(t testing.TB) []keyCase {
	t.Helper()
	n, e := rsaKey(t).N, big.NewInt(65537)
	p256 := ecKey(t, elliptic.P256())
	point, err := p256.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	good := spkiOf(t, &p256.PublicKey)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shift := func(bit uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), bit) }
	plus1 := func(x *big.Int) *big.Int { return new(big.Int).Add(x, big.NewInt(1)) }
	short := new(big.Int).Rsh(n, 73) // 2999 bits
	short.SetBit(short, 0, 1)
	off := bytes.Clone(point)
	off[len(off)-1] ^= 1
	compressed := append([]byte{2 | point[len(point)-1]&1}, point[1:33]...) // SEC 1 §2.3.3
	explicit := subjectPublicKeyInfo{oidECPublicKey, []byte{0x30, 0}, point}.encode()
	return []keyCase{
		{"not DER", "RFC 5280 §4.1.2.7", append(bytes.Clone(good), 0)},
		{"empty", "RFC 5280 §4.1.2.7", nil},
		{"another structure", "RFC 5280 §4.1.2.7", []byte{0x30, 3, 2, 1, 1}},
		{"parameters absent", "RFC 3279 §2.3.1", rsaSPKI(n, e, nil)},
		{"negative modulus", "RFC 3279 §2.3.1", rsaSPKI(new(big.Int).Neg(n), e, asn1.NullBytes)},
		{"modulus of 2999 bits", "ETSI TS 119 312 table 6", rsaSPKI(short, e, asn1.NullBytes)},
		{"exponent 3", "ETSI TS 119 312 §6.2.2.1", rsaSPKI(n, big.NewInt(3), asn1.NullBytes)},
		{"even exponent", "ETSI TS 119 312 §6.2.2.1", rsaSPKI(n, big.NewInt(65538), asn1.NullBytes)},
		{"exponent of 65535", "ETSI TS 119 312 §6.2.2.1", rsaSPKI(n, big.NewInt(65535), asn1.NullBytes)},
		{"exponent above 2^256", "ETSI TS 119 312 §6.2.2.1", rsaSPKI(n, plus1(shift(256)), asn1.NullBytes)},
		{"even modulus", "NIST SP 800-89 §5.3.3", rsaSPKI(shift(3071), e, asn1.NullBytes)},
		{"modulus divisible by 751", "NIST SP 800-89 §5.3.3", rsaSPKI(new(big.Int).Mul(n, big.NewInt(751)), e, asn1.NullBytes)},
		{"curve written out", "RFC 5480 §2.1.1", explicit},
		{"brainpoolP256r1", "RFC 5480 §2.1.1.1", ecSPKI(asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}, point)},
		{"secp256k1", "RFC 5480 §2.1.1.1", ecSPKI(asn1.ObjectIdentifier{1, 3, 132, 0, 10}, point)},
		{"point off the curve", "RFC 5480 §2.2", ecSPKI(oidP256, off)},
		{"compressed point", "RFC 5480 §2.2", ecSPKI(oidP256, compressed)},
		{"point at infinity", "RFC 5480 §2.2", ecSPKI(oidP256, []byte{0})},
		{"point of another curve", "RFC 5480 §2.2", ecSPKI(oidP384, point)},
		{"Ed25519", "EN 319 412-2 GEN-4.2.5-2", spkiOf(t, edwards)},
		{"id-RSASSA-PSS", "RFC 4055 §1.2", subjectPublicKeyInfo{oidRSASSAPSS, nil, []byte{0x30, 0}}.encode()},
		{"DSA", "EN 319 412-2 GEN-4.2.5-1", subjectPublicKeyInfo{asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, asn1.NullBytes, []byte{2, 1, 1}}.encode()},
		{"SHA-1", "ETSI TS 119 312 §5", nil}, // TestCSRSignedWithSHA1
	}
}

func TestKeyFaults(t *testing.T) {
	for _, c := range keyFaults(t) {
		if c.name == "SHA-1" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if v := keyViolations(c.spki); !v.cites(c.clause) {
				t.Errorf("no violation of %s: %v", c.clause, v)
			}
		})
	}
}

func TestSmallFactor(t *testing.T) {
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 521), big.NewInt(1)) // a Mersenne prime
	if f := smallFactor(prime); f != 0 {
		t.Errorf("2^521-1 is divisible by %d", f)
	}
	for p := int64(2); p < 900; p++ {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		want := p
		if p > 751 {
			want = 0
		}
		if f := smallFactor(new(big.Int).Mul(prime, big.NewInt(p))); f != want {
			t.Errorf("times %d: found %d", p, f)
		}
	}
}

func TestCSRSignedWithSHA1(t *testing.T) {
	_, err := ParseCSR(handCSR(t, 0, spkiOf(t, &rsaKey(t).PublicKey), crypto.SHA1))
	var v Violations
	if !errors.As(err, &v) || !v.cites("ETSI TS 119 312 §5") {
		t.Errorf("%v", err)
	}
	if _, err := ParseCSR(handCSR(t, 0, spkiOf(t, &rsaKey(t).PublicKey), crypto.SHA256)); err != nil {
		t.Errorf("the same with SHA-256: %v", err)
	}
}

func TestKeyPasses(t *testing.T) {
	n := rsaKey(t).N
	for name, spki := range map[string][]byte{
		"P-256":                spkiOf(t, &ecKey(t, elliptic.P256()).PublicKey),
		"P-384":                spkiOf(t, &ecKey(t, elliptic.P384()).PublicKey),
		"P-521":                spkiOf(t, &ecKey(t, elliptic.P521()).PublicKey),
		"RSA":                  spkiOf(t, &rsaKey(t).PublicKey),
		"exponent of 256 bits": rsaSPKI(n, new(big.Int).SetBit(big.NewInt(1), 255, 1), asn1.NullBytes),
	} {
		if v := keyViolations(spki); len(v) > 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
}

// TestCSRFromOpenSSL reads what subscribers really send.
func TestCSRFromOpenSSL(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		clause string // of the refusal; what is none is in an error
	}{
		"P-256 PEM":                       {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}, ""},
		"P-384 DER":                       {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-outform", "DER"}, ""},
		"P-521":                           {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"}, ""},
		"RSA 3072":                        {[]string{"-newkey", "rsa:3072"}, ""},
		"RSA 3072 PSS":                    {[]string{"-newkey", "rsa:3072", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, ""},
		"RSA 3072 PSS with SHA-512":       {[]string{"-newkey", "rsa:3072", "-sha512", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, ""},
		"RSA 4096":                        {[]string{"-newkey", "rsa:4096"}, ""},
		"RSA 4096 PSS":                    {[]string{"-newkey", "rsa:4096", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, ""},
		"RSA 3072 PSS with a longer salt": {[]string{"-newkey", "rsa:3072", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:64"}, "a salt as long as the digest"},
		"RSA 3072 PSS with SHA-1":         {[]string{"-newkey", "rsa:3072", "-sha1", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}, "with SHA-256"},
		"a key bound to PSS":              {[]string{"-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:3072"}, "RFC 4055 §1.2"},
		"P-224":                           {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-224"}, "RFC 5480 §2.1.1.1"},
		"secp256k1":                       {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"}, "RFC 5480 §2.1.1.1"},
		"extensions":                      {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=DNS:ignored.example"}, ""},
		"RSA 2048":                        {[]string{"-newkey", "rsa:2048"}, "ETSI TS 119 312 table 6"},
		"Ed25519":                         {[]string{"-newkey", "ed25519"}, "EN 319 412-2 GEN-4.2.5-2"},
		"Ed448":                           {[]string{"-newkey", "ed448"}, "EN 319 412-2 GEN-4.2.5-2"},
		"brainpool":                       {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"}, "RFC 5480 §2.1.1.1"},
		"explicit":                        {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"}, "RFC 5480 §2.1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "request")
			args := append([]string{"req", "-new", "-nodes", "-keyout", filepath.Join(dir, "key.pem"), "-subj", "/CN=ignored", "-out", out}, c.args...)
			if text, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
				t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, text)
			}
			text, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			spki, err := ParseCSR(text)
			var v Violations
			switch {
			case c.clause == "" && err != nil:
				t.Error(err)
			case c.clause == "":
				if _, err := x509.ParsePKIXPublicKey(spki); err != nil {
					t.Error(err)
				}
			case err == nil || !strings.Contains(err.Error(), c.clause) || errors.As(err, &v) && !v.cites(c.clause):
				t.Errorf("%v; want a violation of %s", err, c.clause)
			}
		})
	}
}

// FuzzParseCSR: a key that comes out is canonical, may be certified, and stood in the request.
func FuzzParseCSR(f *testing.F) {
	csr := csrOf(f, ecKey(f, elliptic.P256()))
	f.Add(csr)
	f.Add(toPEM("CERTIFICATE REQUEST", csr))
	f.Add(toPEM("CERTIFICATE REQUEST", csrOf(f, ecKey(f, elliptic.P384()))))
	f.Add(csrOf(f, rsaKey(f)))
	f.Add(handCSR(f, 0, spkiOf(f, &rsaKey(f).PublicKey), crypto.SHA1))
	f.Fuzz(func(t *testing.T, text []byte) {
		spki, err := ParseCSR(text)
		if err != nil {
			return
		}
		if v := keyViolations(spki); len(v) > 0 {
			t.Errorf("%x came out and may not be certified: %v", spki, v)
		}
		pub, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, spki) {
			t.Errorf("%x is written as %x, %v", spki, again, err)
		}
	})
}

// FuzzKeyViolations: a key without violations is one that Go reads and writes as it was.
func FuzzKeyViolations(f *testing.F) {
	f.Add(spkiOf(f, &ecKey(f, elliptic.P256()).PublicKey))
	for _, c := range keyFaults(f) {
		f.Add(c.spki)
	}
	f.Fuzz(func(t *testing.T, spki []byte) {
		if len(keyViolations(spki)) > 0 || rsaBits(spki) > 0 {
			return // an RSA exponent may be greater than crypto/rsa takes
		}
		pub, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			t.Fatalf("%x: %v", spki, err)
		}
		if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, spki) {
			t.Errorf("%x is written as %x, %v", spki, again, err)
		}
	})
}

func ExampleParseCSR() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	spki, err := ParseCSR(toPEM("CERTIFICATE REQUEST", csr))
	fmt.Println(len(spki), err)
	_, err = ParseCSR([]byte("hello"))
	fmt.Println(err)
	// Output:
	// 91 <nil>
	// read CSR: neither PEM nor DER: a CSR begins -----BEGIN CERTIFICATE REQUEST-----
}

func BenchmarkParseCSR(b *testing.B) {
	for name, key := range map[string]crypto.Signer{"P-256": ecKey(b, elliptic.P256()), "RSA-3072": rsaKey(b)} {
		csr := toPEM("CERTIFICATE REQUEST", csrOf(b, key))
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := ParseCSR(csr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
