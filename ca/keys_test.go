package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// TestKeys holds a ceremony, issues, revokes and publishes with every kind of key and scheme; crypto/x509 and OpenSSL verify
// the chain and both CRLs.
func TestKeys(t *testing.T) {
	small, great := newRSA(t, 3072), newRSA(t, 4096)
	for _, c := range []struct {
		name   string
		key    crypto.Signer
		scheme der.Scheme
		want   x509.SignatureAlgorithm
		text   string // as OpenSSL prints it
	}{
		{"P-256", newEC(t, elliptic.P256()), "", x509.ECDSAWithSHA256, "ecdsa-with-SHA256"},
		{"P-384", newEC(t, elliptic.P384()), "", x509.ECDSAWithSHA384, "ecdsa-with-SHA384"},
		{"P-521", newEC(t, elliptic.P521()), "", x509.ECDSAWithSHA512, "ecdsa-with-SHA512"},
		{"RSA-3072", small, der.PKCS1v15, x509.SHA256WithRSA, "sha256WithRSAEncryption"},
		{"RSA-3072 PSS", small, der.PSS, x509.SHA256WithRSAPSS, "rsassaPss"},
		{"RSA-4096", great, "", x509.SHA256WithRSA, "sha256WithRSAEncryption"},
		{"RSA-4096 PSS", great, der.PSS, x509.SHA256WithRSAPSS, "rsassaPss"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProviderSigning(t, c.key, c.scheme)
			good, bad := p.parse(p.issue().Certificate), p.parse(p.issue().Certificate)
			p.revoke(bad)
			for cert, issuer := range map[*x509.Certificate]*x509.Certificate{p.root: p.root, p.cert: p.root, good: p.cert, bad: p.cert} {
				if err := cert.CheckSignatureFrom(issuer); err != nil || cert.SignatureAlgorithm != c.want {
					t.Errorf("%s is signed with %v, want %v: %v", cert.Subject, cert.SignatureAlgorithm, c.want, err)
				}
				if cert.PublicKeyAlgorithm == x509.RSA && !bytes.Contains(cert.RawSubjectPublicKeyInfo, []byte("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00")) {
					t.Errorf("the public key of %s is not rsaEncryption (RFC 4055 §1.2)", cert.Subject)
				}
			}
			if crl := p.published(); crl.SignatureAlgorithm != c.want || len(crl.RevokedCertificateEntries) != 1 {
				t.Errorf("the CRL is signed with %v, want %v, and has %d entries", crl.SignatureAlgorithm, c.want, len(crl.RevokedCertificateEntries))
			}
			p.judgeOpenSSL(t, good, bad, c.text)
		})
	}
}

// revoke revokes cert as a revocation officer does.
func (p *provider) revoke(cert *x509.Certificate) {
	p.Helper()
	serial, err := journal.ParseSerial(cert.SerialNumber.Text(16))
	if err != nil {
		p.Fatal(err)
	}
	if _, err := p.issuer.Revoke(p.Context(), Revocation{Actor: testActor, Serial: serial, Reason: journal.Superseded}); err != nil {
		p.Fatal(err)
	}
}

func (p *provider) judgeOpenSSL(t *testing.T, good, bad *x509.Certificate, text string) {
	t.Helper()
	dir := t.TempDir()
	for name, cert := range map[string]*x509.Certificate{"root.pem": p.root, "issuing.pem": p.cert, "good.pem": good, "bad.pem": bad} {
		writePEM(t, filepath.Join(dir, name), "CERTIFICATE", cert.Raw)
	}
	writePEM(t, filepath.Join(dir, "crl.pem"), "X509 CRL", p.published().Raw)
	at := strconv.FormatInt(start.Unix()+1, 10)
	chain := []string{"verify", "-x509_strict", "-attime", at, "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-crl_check", "-CRLfile", "crl.pem"}
	for _, c := range []struct {
		args []string
		want string
		fail bool
	}{
		{append(chain, "good.pem"), "good.pem: OK", false},
		{append(chain, "bad.pem"), "certificate revoked", true},
		{[]string{"crl", "-in", "crl.pem", "-CAfile", "issuing.pem", "-noout", "-text"}, "verify OK", false},
		{[]string{"crl", "-in", "crl.pem", "-noout", "-text"}, "Signature Algorithm: " + text, false},
		{[]string{"x509", "-in", "good.pem", "-noout", "-text"}, "Signature Algorithm: " + text, false},
	} {
		cmd := exec.Command("openssl", c.args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if (err != nil) != c.fail || !strings.Contains(string(out), c.want) {
			t.Errorf("openssl %s: %v, no %q in\n%s", strings.Join(c.args, " "), err, c.want, out)
		}
	}
}

func writePEM(t *testing.T, path, kind string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A CA that changes its scheme takes its journal and the CRL in publish/ along: both were signed with the other.
func TestSchemeChanges(t *testing.T) {
	p := newProviderSigning(t, newRSA(t, 3072), der.PKCS1v15)
	before := p.parse(p.issue().Certificate)
	for _, c := range []struct {
		scheme der.Scheme
		want   x509.SignatureAlgorithm
	}{{der.PSS, x509.SHA256WithRSAPSS}, {der.PKCS1v15, x509.SHA256WithRSA}} {
		p.scheme = c.scheme
		p.restart()
		after := p.parse(p.issue().Certificate)
		if after.SignatureAlgorithm != c.want || p.published().SignatureAlgorithm != c.want {
			t.Errorf("%s: certificate %v, CRL %v", c.scheme, after.SignatureAlgorithm, p.published().SignatureAlgorithm)
		}
	}
	p.revoke(before)
}

// A scheme of RSA keys with an EC key is refused, and so is one that nobody knows.
func TestNewRefusesScheme(t *testing.T) {
	p, _ := newProvider(t)
	for scheme, want := range map[der.Scheme]string{der.PSS: "an EC key", der.PKCS1v15: "an EC key", "oaep": "write pkcs1v15 or pss"} {
		c := p.config()
		c.SignatureScheme = scheme
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func newRSA(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newEC(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
