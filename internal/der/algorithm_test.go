package der_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

// What each algorithm is on the wire: ECDSA after RFC 5758 §3.2, RSASSA-PKCS1-v1_5 after RFC 4055 §5, RSASSA-PSS as the
// CA/Browser Forum's Baseline Requirements §7.1.3.2.1 write RFC 4055 §3.1 out.
const (
	hexECDSA256 = "300a06082a8648ce3d040302"
	hexECDSA384 = "300a06082a8648ce3d040303"
	hexECDSA512 = "300a06082a8648ce3d040304"
	hexRSA256   = "300d06092a864886f70d01010b0500"
	hexPSS256   = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500" +
		"a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
)

// service is a kind of key and scheme that services sign with.
type service struct {
	name       string
	key        crypto.Signer
	scheme     der.Scheme
	identifier string // hex
	standard   x509.SignatureAlgorithm
}

func services(t testing.TB) []service {
	t.Helper()
	small, great := rsaKey(t, 3072), rsaKey(t, 4096)
	return []service{
		{"P-256", ec(t, elliptic.P256()), "", hexECDSA256, x509.ECDSAWithSHA256},
		{"P-384", ec(t, elliptic.P384()), "", hexECDSA384, x509.ECDSAWithSHA384},
		{"P-521", ec(t, elliptic.P521()), "", hexECDSA512, x509.ECDSAWithSHA512},
		{"RSA-3072", small, "", hexRSA256, x509.SHA256WithRSA},
		{"RSA-3072 PKCS1v15", small, der.PKCS1v15, hexRSA256, x509.SHA256WithRSA},
		{"RSA-3072 PSS", small, der.PSS, hexPSS256, x509.SHA256WithRSAPSS},
		{"RSA-4096", great, "", hexRSA256, x509.SHA256WithRSA},
		{"RSA-4096 PSS", great, der.PSS, hexPSS256, x509.SHA256WithRSAPSS},
	}
}

func (s service) algorithm(t testing.TB) der.Algorithm {
	t.Helper()
	a, err := der.AlgorithmFor(s.key.Public(), s.scheme)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type wrongSigner struct{ crypto.Signer }

func (w wrongSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[0] ^= 1
	return w.Signer.Sign(r, digest, o)
}

// vouchingSigner says that it verifies its signatures, truly or not.
type vouchingSigner struct {
	crypto.Signer
	vouches bool
}

func (v vouchingSigner) VerifiesSignatures() bool { return v.vouches }

// A signature is verified once: by the signer if it says so, else here.
func TestSignVerifiesOnce(t *testing.T) {
	for _, s := range services(t) {
		a, verifications := s.algorithm(t).CountVerifications()
		for _, c := range []struct {
			key  crypto.Signer
			want int
		}{{s.key, 1}, {vouchingSigner{s.key, false}, 1}, {vouchingSigner{s.key, true}, 0}} {
			*verifications = 0
			if _, err := a.Sign(c.key, []byte("tbs")); err != nil || *verifications != c.want {
				t.Errorf("%s, %T: %d verifications, %v; want %d", s.name, c.key, *verifications, err, c.want)
			}
		}
	}
}

// TestAlgorithm signs with every kind of key and scheme; crypto/x509 and OpenSSL read what comes out, and we what they make.
func TestAlgorithm(t *testing.T) {
	for _, s := range services(t) {
		t.Run(s.name, func(t *testing.T) {
			a := s.algorithm(t)
			if !bytes.Equal(a.Identifier(), unhex(t, s.identifier)) || der.Check(a.Identifier()) != nil {
				t.Errorf("identifier %x, want %s", a.Identifier(), s.identifier)
			}
			s.judgeSignature(t, a)
			s.judgeStandardLibrary(t, a)
			s.judgeOpenSSL(t, a)
		})
	}
}

func (s service) judgeSignature(t *testing.T, a der.Algorithm) {
	signature, err := a.Sign(s.key, []byte("tbs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(s.key.Public(), []byte("tbs"), signature); err != nil {
		t.Errorf("verify: %v", err)
	}
	if err := a.Verify(s.key.Public(), []byte("tbt"), signature); !errors.Is(err, der.ErrBadSignature) {
		t.Errorf("verify of another message: %v", err)
	}
	if _, err := a.Sign(wrongSigner{s.key}, []byte("tbs")); !errors.Is(err, der.ErrBadSignature) {
		t.Errorf("a wrong signature left: %v", err)
	}
	if _, err := a.Sign(vouchingSigner{wrongSigner{s.key}, false}, []byte("tbs")); !errors.Is(err, der.ErrBadSignature) {
		t.Errorf("a wrong signature left: %v", err)
	}
	if p := a.Placeholder(s.key.Public()); len(p) < len(signature) || a.Verify(s.key.Public(), []byte("tbs"), p) == nil {
		t.Errorf("placeholder has %d octets, a signature %d", len(p), len(signature))
	}
	of, err := der.AlgorithmOf(s.key.Public(), a.Identifier())
	if err != nil || of.Verify(s.key.Public(), []byte("tbs"), signature) != nil {
		t.Errorf("AlgorithmOf: %v, %v", of, err)
	}
	if other, err := der.AlgorithmFor(s.key.Public(), ""); s.scheme == der.PSS && (err != nil || other.Verify(s.key.Public(), []byte("tbs"), signature) == nil) {
		t.Errorf("a PSS signature verifies as PKCS#1 v1.5, or %v", err)
	}
}

// judgeStandardLibrary has crypto/x509 make a certificate whose parts must be ours, and verify one that is ours.
func (s service) judgeStandardLibrary(t *testing.T, a der.Algorithm) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST"}, SignatureAlgorithm: s.standard,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Signed(theirs.RawTBSCertificate, theirs.Signature), raw) {
		t.Error("crypto/x509 writes another AlgorithmIdentifier")
	}
	if err := a.Verify(s.key.Public(), theirs.RawTBSCertificate, theirs.Signature); err != nil {
		t.Errorf("signature of crypto/x509: %v", err)
	}
	signature, err := a.Sign(s.key, theirs.RawTBSCertificate)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := x509.ParseCertificate(a.Signed(theirs.RawTBSCertificate, signature))
	if err != nil || ours.SignatureAlgorithm != s.standard || ours.CheckSignatureFrom(ours) != nil {
		t.Errorf("crypto/x509 reads our certificate as %v: %v, %v", ours.SignatureAlgorithm, err, ours.CheckSignatureFrom(ours))
	}
}

// judgeOpenSSL has openssl verify a signature of ours.
func (s service) judgeOpenSSL(t *testing.T, a der.Algorithm) {
	dir := t.TempDir()
	spki, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	signature, err := a.Sign(s.key, []byte("tbs"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), "message": []byte("tbs"), "signature": signature,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"dgst", "-" + strings.ToLower(strings.ReplaceAll(a.Hash().String(), "-", "")), "-verify", "key.pem", "-signature", "signature"}
	if s.scheme == der.PSS {
		args = append(args, "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", "-sigopt", "rsa_mgf1_md:sha256")
	}
	cmd := exec.Command("openssl", append(args, "message")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// A salt of another length is no signature of ours: RFC 4055 §3.1 has the verifier compare it.
func TestPSSSalt(t *testing.T) {
	key := rsaKey(t, 3072)
	a, err := der.AlgorithmFor(key.Public(), der.PSS)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("tbs"))
	for _, salt := range []int{20, 32, 64} {
		signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Verify(key.Public(), []byte("tbs"), signature); (err == nil) != (salt == 32) {
			t.Errorf("salt of %d octets: %v", salt, err)
		}
	}
}

// What is not served is refused with what would be.
func TestAlgorithmRefused(t *testing.T) {
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}
	great := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 3071), E: 65537}
	p256 := ec(t, elliptic.P256()).Public()
	for _, test := range []struct {
		name   string
		pub    crypto.PublicKey
		scheme der.Scheme
		want   string
	}{
		{"RSA-2048", small, "", "2048 bits"},
		{"RSA-2048 PSS", small, der.PSS, "2048 bits"},
		{"P-224", &ecdsa.PublicKey{Curve: elliptic.P224()}, "", "P-224"},
		{"Ed25519", edwards, "", "not served"},
		{"none", nil, "", "not served"},
		{"P-256 PSS", p256, der.PSS, "an EC key"},
		{"P-256 PKCS1v15", p256, der.PKCS1v15, "an EC key"},
		{"Ed25519 PSS", edwards, der.PSS, "ed25519"},
		{"RSA oaep", great, "oaep", "write pkcs1v15 or pss"},
		{"RSA PSS in capitals", great, "PSS", "write pkcs1v15 or pss"},
	} {
		if _, err := der.AlgorithmFor(test.pub, test.scheme); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	for name, test := range map[string]struct {
		pub        crypto.PublicKey
		identifier string
	}{
		"PSS by an EC key":    {p256, hexPSS256},
		"another curve's":     {p256, hexECDSA384},
		"ECDSA by an RSA key": {great, hexECDSA256},
		"SHA-1":               {great, "300d06092a864886f70d0101050500"},
		"a small key":         {small, hexRSA256},
		"nothing":             {great, ""},
	} {
		if a, err := der.AlgorithmOf(test.pub, unhex(t, test.identifier)); err == nil {
			t.Errorf("AlgorithmOf: %s is %v", name, a)
		}
	}
	var zero der.Algorithm
	if _, err := zero.Sign(nil, nil); err == nil {
		t.Error("the zero Algorithm signed")
	}
	if err := zero.Verify(nil, nil, nil); err == nil {
		t.Error("the zero Algorithm verified")
	}
}
