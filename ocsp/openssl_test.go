package ocsp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// AlgorithmIdentifiers of answers, as the standards write them.
const (
	hexECDSA256 = "300a06082a8648ce3d040302"
	hexECDSA384 = "300a06082a8648ce3d040303"
	hexECDSA512 = "300a06082a8648ce3d040304"
	hexRSA256   = "300d06092a864886f70d01010b0500"
	hexPSS256   = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500" +
		"a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
)

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

// A scheme of RSA keys with an EC key is refused, and so is one that nobody knows.
func TestNewRefusesScheme(t *testing.T) {
	p := newProvider(t, nil)
	c := Config{Replica: p.journal, Clock: p.clock, Issuer: p.ca, Certificate: p.certificate, Key: p.key}
	for scheme, want := range map[der.Scheme]string{der.PSS: "an EC key", der.PKCS1v15: "an EC key", "oaep": "write pkcs1v15 or pss"} {
		c.SignatureScheme = scheme
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// openssl is the relying party of these tests. It looks at the machine's own time, and so the
// provider begins now.
type openssl struct {
	t   *testing.T
	dir string
	ca  string
}

func newOpenSSL(t *testing.T, p *provider) openssl {
	t.Helper()
	o := openssl{t: t, dir: t.TempDir()}
	o.ca = o.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}))
	return o
}

func (o openssl) write(name string, content []byte) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}

// ocsp runs openssl ocsp and returns all that it printed; ok is exit status 0.
func (o openssl) ocsp(arguments ...string) (output string, ok bool) {
	o.t.Helper()
	command := exec.Command("openssl", append([]string{"ocsp", "-issuer", o.ca, "-CAfile", o.ca}, arguments...)...)
	out, err := command.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		o.t.Fatal(err)
	}
	return string(out), err == nil
}

// The answers to OpenSSL's own requests, by POST: states, hashes, nonce and none, every kind of key and scheme.
func TestOpenSSL(t *testing.T) {
	small, great := newRSA(t, 3072), newRSA(t, 4096)
	for _, c := range []struct {
		name       string
		key        crypto.Signer
		scheme     der.Scheme
		identifier string // hex, RFC 5758 §3.2 or RFC 4055 §5, §3.1
	}{
		{"P-256", newKey(t), "", hexECDSA256},
		{"P-384", newEC(t, elliptic.P384()), "", hexECDSA384},
		{"P-521", newEC(t, elliptic.P521()), "", hexECDSA512},
		{"RSA-3072", small, der.PKCS1v15, hexRSA256},
		{"RSA-3072 PSS", small, der.PSS, hexPSS256},
		{"RSA-4096", great, "", hexRSA256},
		{"RSA-4096 PSS", great, der.PSS, hexPSS256},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProviderAt(t, time.Now(), c.key, func(config *Config) { config.SignatureScheme = c.scheme })
			if got := fmt.Sprintf("%x", p.responder.algorithm.Identifier()); got != c.identifier {
				t.Errorf("signs with %s, want %s", got, c.identifier)
			}
			goodSerial, revokedSerial := p.issue(), p.issue()
			p.revoke(revokedSerial, journal.Superseded)
			p.checkpoint()
			if response := p.responder.Respond(t.Context(), p.request(goodSerial)); !bytes.Contains(response, p.responder.algorithm.Identifier()) {
				t.Error("the answer does not name its algorithm")
			}
			o := newOpenSSL(t, p)
			url := p.serve()
			for _, nonce := range []string{"-nonce", "-no_nonce"} {
				for _, hash := range []string{"-sha1", "-sha256", "-sha384", "-sha512"} {
					serial := func(n *big.Int) string { return fmt.Sprintf("0x%x", n) }
					out, ok := o.ocsp("-url", url, nonce, hash, "-serial", serial(goodSerial), "-serial", serial(revokedSerial), "-serial", "0x99")
					for _, want := range []string{
						"Response verify OK", serial(goodSerial) + ": good", serial(revokedSerial) + ": revoked", "Reason: superseded", "0x99: unknown",
					} {
						if !ok || !strings.Contains(out, want) {
							t.Fatalf("%s %s: no %q in\n%s", nonce, hash, want, out)
						}
					}
					if strings.Contains(out, "WARNING") {
						t.Errorf("%s %s: OpenSSL warns:\n%s", nonce, hash, out)
					}
				}
			}
		})
	}
}

// OpenSSL takes what is revoked for ever, past the status life, also where it limits the age of an
// answer; what is good is not told.
func TestOpenSSLStale(t *testing.T) {
	now := time.Now()
	p := newProviderAt(t, now.Add(-13*time.Hour), newKey(t), nil)
	serial, goodSerial := p.issue(), p.issue()
	p.revoke(serial, journal.KeyCompromise)
	p.checkpoint()
	p.clock.add(13 * time.Hour)
	p.mustRefuse(tryLater, goodSerial)
	o := newOpenSSL(t, p)
	response := o.write("response.der", p.responder.Respond(t.Context(), p.request(serial)))
	out, ok := o.ocsp("-no_nonce", "-respin", response, "-serial", fmt.Sprintf("0x%x", serial), "-status_age", "60", "-validity_period", "5")
	if !ok || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "revoked") || strings.Contains(out, "WARNING") {
		t.Errorf("OpenSSL says\n%s", out)
	}
}

// How OpenSSL names each responseStatus.
func TestOpenSSLRefusals(t *testing.T) {
	p := newProvider(t, nil)
	o := newOpenSSL(t, p)
	for status, want := range map[responseStatus]string{
		malformedRequest: "malformedrequest (1)", internalError: "internalerror (2)", tryLater: "trylater (3)", unauthorized: "unauthorized (6)",
	} {
		out, ok := o.ocsp("-respin", o.write("refusal.der", refusal(status)), "-serial", "1")
		if ok || !strings.Contains(out, "Responder Error: "+want) {
			t.Errorf("%v: OpenSSL says\n%s", status, out)
		}
	}
}

// A whole answer as text, so that a change of any field shows as a line.
func TestGolden(t *testing.T) {
	p := newProvider(t, nil)
	// What is random in the fixture is replaced below; what is left is the same for ever.
	goodSerial, revokedSerial := p.issue(), p.issue()
	p.pass(time.Hour)
	p.revoke(revokedSerial, journal.CessationOfOperation)
	p.pass(time.Hour)
	nonce := nonceExtension(t, []byte("0123456789abcdef"))
	request := requestSpec{
		list:       [][]byte{p.certID(crypto.SHA256, goodSerial), p.certID(crypto.SHA1, revokedSerial)},
		extensions: []der.Extension{nonce},
	}.marshal(t)
	o := newOpenSSL(t, p)
	response := o.write("response.der", p.responder.Respond(t.Context(), request))
	out, ok := o.ocsp("-respin", response, "-resp_text", "-noverify")
	if !ok {
		t.Fatal(out)
	}
	got, want := fixed(t, p, out), golden
	if got != want {
		t.Errorf("the answer reads\n%s\nwant\n%s", got, want)
	}
}

// fixed leaves of OpenSSL's text what comes before the signature, with hashes that depend on the
// fixture's keys replaced.
func fixed(t *testing.T, p *provider, text string) string {
	t.Helper()
	head, _, ok := strings.Cut(text, "    Signature Algorithm:")
	if !ok {
		t.Fatalf("no signature in\n%s", text)
	}
	replace := func(what []byte, by string) {
		head = strings.ReplaceAll(head, strings.ToUpper(fmt.Sprintf("%x", what)), by)
	}
	replace(p.responder.keyHash, "KEYHASH")
	for h, name := range map[crypto.Hash]string{crypto.SHA1: "SHA1", crypto.SHA256: "SHA256"} {
		replace(p.responder.issuer.hashes[h].name, "NAME-"+name)
		replace(p.responder.issuer.hashes[h].key, "KEY-"+name)
	}
	var lines []string
	for line := range strings.Lines(head) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

const golden = `OCSP Response Data:
    OCSP Response Status: successful (0x0)
    Response Type: Basic OCSP Response
    Version: 1 (0x0)
    Responder Id: KEYHASH
    Produced At: Mar  1 14:00:00 2026 GMT
    Responses:
    Certificate ID:
      Hash Algorithm: sha256
      Issuer Name Hash: NAME-SHA256
      Issuer Key Hash: KEY-SHA256
      Serial Number: 1001
    Cert Status: good
    This Update: Mar  1 14:00:00 2026 GMT
    Next Update: Mar  2 02:00:00 2026 GMT
        Response Single Extensions:
            OCSP Archive Cutoff:
                Mar  1 12:00:00 2025 GMT

    Certificate ID:
      Hash Algorithm: sha1
      Issuer Name Hash: NAME-SHA1
      Issuer Key Hash: KEY-SHA1
      Serial Number: 1002
    Cert Status: revoked
    Revocation Time: Mar  1 13:00:00 2026 GMT
    Revocation Reason: cessationOfOperation (0x5)
    This Update: Mar  1 14:00:00 2026 GMT
    Next Update: Mar  2 02:00:00 2026 GMT
        Response Single Extensions:
            OCSP Archive Cutoff:
                Mar  1 12:00:00 2025 GMT

    Response Extensions:
        OCSP Nonce:
            041030313233343536373839616263646566`

// A request that OpenSSL writes, signed by some requestor, is read like any other.
func TestOpenSSLSignedRequest(t *testing.T) {
	p := newProviderAt(t, time.Now(), newKey(t), nil)
	serial := p.issue()
	p.checkpoint()
	o := newOpenSSL(t, p)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(p.caKey)
	if err != nil {
		t.Fatal(err)
	}
	key := o.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	path := filepath.Join(o.dir, "request.der")
	if out, ok := o.ocsp("-serial", fmt.Sprintf("0x%x", serial), "-signer", o.ca, "-signkey", key, "-reqout", path); !ok {
		t.Fatal(out)
	}
	request, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(request, p.ca.Raw) {
		t.Fatal("OpenSSL did not sign the request")
	}
	if got := p.mustSucceed(p.responder.Respond(t.Context(), request)); got.singles[0].status.state != good {
		t.Errorf("status %v", got.singles[0].status)
	}
}
