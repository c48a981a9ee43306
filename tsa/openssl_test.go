package tsa

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
)

// openssl runs the judge in dir; its output is the error's text.
func openssl(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func writeFile(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOpenSSLVerifies has `openssl ts` make the requests and verify the tokens: each imprint hash,
// with and without certificates, for each kind of key. It does not read RSASSA-PSS: that is for `openssl cms`, below.
func TestOpenSSLVerifies(t *testing.T) {
	hashes := []string{"sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512"}
	for _, s := range services(t) {
		if s.scheme == der.PSS {
			continue
		}
		b := newBench(t, s.key, func(c *Config) { c.Unit.SignatureScheme = s.scheme })
		dir := t.TempDir()
		writeFile(t, dir, "root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.ca.root.Raw}))
		writeFile(t, dir, "untrusted.pem", append(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.unit.Certificate.Raw}),
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.ca.issuing.Raw})...))
		writeFile(t, dir, "data", []byte("data"))
		for i, hash := range hashes {
			for _, cert := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/cert=%v", s.name, hash, cert), func(t *testing.T) {
					opensslRoundTrip(t, b, dir, opensslQuery{hash: hash, cert: cert, nonce: i%2 == 0})
				})
			}
		}
	}
}

// TestOpenSSLReadsPSS has `openssl cms` verify the SignerInfo of PSS tokens (RFC 4056). `openssl ts` of OpenSSL 3.0 cannot, as
// docs/tsa.md warns.
func TestOpenSSLReadsPSS(t *testing.T) {
	for _, s := range services(t) {
		if s.scheme != der.PSS {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			b := newBench(t, s.key, func(c *Config) { c.Unit.SignatureScheme = s.scheme })
			dir := t.TempDir()
			token, err := ParseResponse(b.ask(t, "data", nil))
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, "root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.ca.root.Raw}))
			writeFile(t, dir, "token.der", token)
			at := strconv.FormatInt(testTime.Unix(), 10)
			out, err := openssl(t, dir, "cms", "-verify", "-inform", "DER", "-in", "token.der", "-CAfile", "root.pem", "-purpose", "timestampsign", "-attime", at, "-out", "tstinfo.der")
			if err != nil || !strings.Contains(out, "successful") {
				t.Errorf("openssl cms: %v: %s", err, out)
			}
		})
	}
}

type opensslQuery struct {
	hash        string
	cert, nonce bool
}

func opensslRoundTrip(t *testing.T, b *bench, dir string, q opensslQuery) {
	query := []string{"ts", "-query", "-data", "data", "-" + q.hash, "-out", "q.tsq", "-tspolicy", BTSP.String()}
	verify := []string{"ts", "-verify", "-data", "data", "-in", "a.tsr", "-CAfile", "root.pem", "-attime", strconv.FormatInt(testTime.Unix(), 10)}
	if q.cert {
		query = append(query, "-cert")
		verify = append(verify, "-untrusted", "root.pem") // nothing but what the token carries
	} else {
		verify = append(verify, "-untrusted", "untrusted.pem")
	}
	if !q.nonce {
		query = append(query, "-no_nonce")
	}
	if out, err := openssl(t, dir, query...); err != nil {
		t.Fatal(out)
	}
	request, err := os.ReadFile(filepath.Join(dir, "q.tsq"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "a.tsr", b.Respond(t.Context(), request))
	if out, err := openssl(t, dir, verify...); err != nil || !strings.Contains(out, "Verification: OK") {
		t.Errorf("against the data: %v: %s", err, out)
	}
	verify = append(verify, "-queryfile", "q.tsq")
	for i, arg := range verify {
		if arg == "-data" {
			verify = append(verify[:i:i], verify[i+2:]...)
			break
		}
	}
	if out, err := openssl(t, dir, verify...); err != nil || !strings.Contains(out, "Verification: OK") {
		t.Errorf("against the query: %v: %s", err, out)
	}
	out, err := openssl(t, dir, "ts", "-reply", "-in", "a.tsr", "-text")
	if err != nil {
		t.Fatal(out)
	}
	for _, line := range []string{"Status: Granted.", "Policy OID: 0.4.0.2023.1.1", "Accuracy: 0x01 seconds", "Ordering: no", "qcStatements", "CN=TEST TSU 1", "05.678 2026 GMT"} {
		if !strings.Contains(out, line) {
			t.Errorf("openssl does not show %q:\n%s", line, out)
		}
	}
}

// TestOpenSSLRefusals has openssl show the failure and text of answers without a token.
func TestOpenSSLRefusals(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	dir := t.TempDir()
	writeFile(t, dir, "data", []byte("data"))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-sha1"}, "Failure info: unrecognized or unsupported algorithm identifier"},
		{[]string{"-sha256", "-tspolicy", "1.2.3.4"}, "Failure info: the requested TSA policy is not supported by the TSA"},
	} {
		if out, err := openssl(t, dir, append([]string{"ts", "-query", "-data", "data", "-out", "q.tsq"}, tt.args...)...); err != nil {
			t.Fatal(out)
		}
		request, err := os.ReadFile(filepath.Join(dir, "q.tsq"))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "a.tsr", b.Respond(t.Context(), request))
		out, err := openssl(t, dir, "ts", "-reply", "-in", "a.tsr", "-text")
		if err != nil || !strings.Contains(out, "Status: Rejected.") || !strings.Contains(out, tt.want) {
			t.Errorf("%v: %v: %s", tt.args, err, out)
		}
	}
}
