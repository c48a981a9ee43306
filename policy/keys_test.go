package policy

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"sync"
	"testing"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/mozilla" // Mozilla's lint of the octets of RSASSA-PSS

	"github.com/zegel-tsp/zegel/internal/der"
)

var testRSA4096 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 4096) })

// serviceKeys are the keys that services and subjects have, by name.
func serviceKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	great, err := testRSA4096()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "P-521": ecKey(t, elliptic.P521()),
		"RSA-3072": rsaKey(t), "RSA-4096": great,
	}
}

// TestKeys issues a certificate of every profile from CAs with every kind of key and scheme, from one of them to every kind of
// key. Rules and lints judge each (testCA.issue has them); crypto/x509 verifies it, and Mozilla's lint reads the PSS identifiers.
func TestKeys(t *testing.T) {
	keys := serviceKeys(t)
	for _, c := range []struct {
		key    string
		scheme der.Scheme
		want   x509.SignatureAlgorithm
	}{
		{"P-256", "", x509.ECDSAWithSHA256}, {"P-384", "", x509.ECDSAWithSHA384}, {"P-521", "", x509.ECDSAWithSHA512},
		{"RSA-3072", der.PKCS1v15, x509.SHA256WithRSA}, {"RSA-3072", der.PSS, x509.SHA256WithRSAPSS},
		{"RSA-4096", "", x509.SHA256WithRSA}, {"RSA-4096", der.PSS, x509.SHA256WithRSAPSS},
	} {
		t.Run(strings.TrimSpace(c.key+" "+string(c.scheme)), func(t *testing.T) {
			root := newTestRootWith(t, keys[c.key], c.scheme)
			issuing := newTestIssuerWith(t, root, keys[c.key], c.scheme)
			judgeIssued(t, root.cert, root.cert, c.want)
			judgeIssued(t, issuing.cert, root.cert, c.want)
			for _, name := range Builtins() {
				ca := issuing
				switch name {
				case "root-ca":
					continue // above: its key is its own
				case "issuing-ca":
					ca = root
				}
				for subject, key := range keys {
					if c.key != "P-256" && subject != c.key {
						continue
					}
					cert := ca.issue(t, mustBuiltin(t, name), key)
					if err := mustBuiltin(t, name).CheckIssued(cert.Raw, ca.issuer); err != nil {
						t.Errorf("%s for %s: %v", name, subject, err)
					}
					judgeIssued(t, cert, ca.cert, c.want)
				}
			}
		})
	}
}

func judgeIssued(t *testing.T, cert, issuer *x509.Certificate, want x509.SignatureAlgorithm) {
	t.Helper()
	if cert.SignatureAlgorithm != want {
		t.Errorf("%s is signed with %v, want %v", cert.Subject, cert.SignatureAlgorithm, want)
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		t.Errorf("%s: %v", cert.Subject, err)
	}
	parsed, err := zx509.ParseCertificate(cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	const name = "e_mp_rsassa-pss_parameters_encoding_in_signature_algorithm_correct"
	l := lint.GlobalRegistry().CertificateLints().ByName(name)
	if l == nil {
		t.Fatalf("zlint has no lint %s", name)
	}
	status := lint.NA
	if want == x509.SHA256WithRSAPSS {
		status = lint.Pass
	}
	if result := l.Execute(parsed, lint.NewEmptyConfig()); result.Status != status {
		t.Errorf("%s: %v %s, want %v", name, result.Status, result.Details, status)
	}
}

// TestSignatureAlgorithmAgreed: exactly the octets that RFC 5758 §3.2 and RFC 4055 §3.1, §5 write for what is agreed.
func TestSignatureAlgorithmAgreed(t *testing.T) {
	const (
		oidPSS   = "06092a864886f70d01010a"
		hash256  = "a00f300d06096086480165030402010500"
		mgf256   = "a11c301a06092a864886f70d010108300d06096086480165030402010500"
		salt32   = "a203020120"
		sha1     = "a00b300906052b0e03021a0500"
		mgfSHA1  = "a118301606092a864886f70d010108300906052b0e03021a0500"
		pssHead  = "304106092a864886f70d01010a3034"
		hash384  = "a00f300d06096086480165030402020500"
		mgf384   = "a11c301a06092a864886f70d010108300d06096086480165030402020500"
		hash512  = "a00f300d06096086480165030402030500"
		mgf512   = "a11c301a06092a864886f70d010108300d06096086480165030402030500"
		hashBare = "a00d300b0609608648016503040201"
		mgfBare  = "a11a301806092a864886f70d010108300b0609608648016503040201"
	)
	for _, test := range []struct {
		name, identifier string
		agreed           bool
	}{
		{"ecdsa-with-SHA256", "300a06082a8648ce3d040302", true},
		{"ecdsa-with-SHA512", "300a06082a8648ce3d040304", true},
		{"ecdsa-with-SHA256 with NULL", "300c06082a8648ce3d0403020500", false},
		{"sha256WithRSAEncryption", "300d06092a864886f70d01010b0500", true},
		{"sha512WithRSAEncryption", "300d06092a864886f70d01010d0500", true},
		{"sha256WithRSAEncryption without NULL", "300b06092a864886f70d01010b", false},
		{"PSS with SHA-256", pssHead + hash256 + mgf256 + salt32, true},
		{"PSS with SHA-384", pssHead + hash384 + mgf384 + "a203020130", true},
		{"PSS with SHA-512", pssHead + hash512 + mgf512 + "a203020140", true},
		{"PSS with NULL", "300d" + oidPSS + "0500", false},
		{"PSS without parameters", "300b" + oidPSS, false},
		{"PSS with empty parameters, all SHA-1", "300d" + oidPSS + "3000", false},
		{"PSS with SHA-1", "3039" + oidPSS + "302c" + sha1 + mgfSHA1 + salt32, false},
		{"PSS masked with SHA-1", "303d" + oidPSS + "3030" + hash256 + mgfSHA1 + salt32, false},
		{"PSS masked with SHA-384", pssHead + hash256 + mgf384 + salt32, false},
		{"PSS with a salt of 20, the default", "303c" + oidPSS + "302f" + hash256 + mgf256, false},
		{"PSS with a salt of 0", pssHead + hash256 + mgf256 + "a203020100", false},
		{"PSS with a salt of 64 and SHA-256", pssHead + hash256 + mgf256 + "a203020140", false},
		{"PSS with trailerField", "3046" + oidPSS + "3039" + hash256 + mgf256 + salt32 + "a303020101", false},
		{"PSS with hashes without NULL", "303d" + oidPSS + "3030" + hashBare + mgfBare + salt32, false},
		{"Ed25519", "300506032b6570", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := der.Check(mustHex(test.identifier)); err != nil {
				t.Fatalf("the fixture itself: %v", err)
			}
			p := mustBuiltin(t, "qcp-n")
			e := edit(t, testDraft(t, p, testKeyP256()))
			e.inner = mustHex(test.identifier)
			e.outer = e.inner
			err := p.Check(e.encode(t))
			if test.agreed {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantClause(t, err, "EN 319 412-2 GEN-4.2.2-2")
		})
	}
}
