package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/tsa"
)

// wrongClock is off, and does not know.
type wrongClock struct{ by time.Duration }

func (c wrongClock) Now() (time.Time, time.Duration, error) {
	return time.Now().Add(c.by), time.Millisecond, nil
}

// serveTSA serves an authority whose clock is off by that much, and returns the folder with zegel.yaml and root.pem of a client.
func serveTSA(t *testing.T, by time.Duration) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	_, checkpointKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	same := func(key []byte) ([]byte, error) { return key, nil }
	options := journal.Options{
		Wrap: same, Unwrap: same, CheckpointKey: checkpointKey, Now: func() time.Time { return time.Now().Add(by) },
	}
	must(journal.Create(filepath.Join(dir, "journal"), "zegel.test/tsa", options))
	j, err := journal.Open(filepath.Join(dir, "journal"), options)
	must(err)
	t.Cleanup(func() { must(j.Close()) })

	key := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return key
	}
	rootKey, unitKey := key(), key()
	certify := func(template, parent *x509.Certificate, public any) *x509.Certificate {
		template.NotBefore, template.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(1, 0, 0)
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, rootKey)
		must(err)
		c, err := x509.ParseCertificate(raw)
		must(err)
		return c
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST Root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root := certify(template, template, rootKey.Public())
	timeStamping, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	must(err)
	unit := certify(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TEST TSU"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: timeStamping}},
	}, root, unitKey.Public())
	authority, err := tsa.New(tsa.Config{
		Journal: j, Clock: wrongClock{by}, Policy: tsa.BTSP, Accuracy: time.Second, Log: slog.New(slog.DiscardHandler),
		Unit: tsa.Unit{Key: unitKey, Certificate: unit, Chain: []*x509.Certificate{root}},
	})
	must(err)
	server := httptest.NewServer(authority)
	t.Cleanup(server.Close)
	must(os.WriteFile(filepath.Join(dir, "root.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600))
	must(os.WriteFile(filepath.Join(dir, "data"), []byte("data"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "zegel.yaml"), fmt.Appendf(nil, "tsa: {url: %q, root: %s/root.pem}\n", server.URL, dir), 0o600))
	return dir
}

// tried runs the tool in this process.
func tried(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

// TestTimestampOfWrongClock has a timestamp whose time does not lie between question and answer be refused, and no file be written.
func TestTimestampOfWrongClock(t *testing.T) {
	for by, want := range map[time.Duration]string{0: "", time.Hour: "in the future", -time.Hour: "before it was asked for"} {
		t.Run(by.String(), func(t *testing.T) {
			dir := serveTSA(t, by)
			file := filepath.Join(dir, "data")
			status, _, stderr := tried(t, "--config", filepath.Join(dir, "zegel.yaml"), "timestamp", file)
			_, err := os.Stat(file + ".tsr")
			if want == "" {
				if status != 0 || err != nil {
					t.Errorf("status %d, %s, %v", status, stderr, err)
				}
				return
			}
			if status != 1 || !strings.Contains(stderr, want) || err == nil {
				t.Errorf("status %d, %s; want 1 with %q and no file", status, stderr, want)
			}
		})
	}
}

// TestTimestampOverwritesNothing: a FILE.tsr that somebody else makes while the TSA is asked stays as it is.
func TestTimestampOverwritesNothing(t *testing.T) {
	dir := serveTSA(t, 0)
	file, config := filepath.Join(dir, "data"), filepath.Join(dir, "zegel.yaml")
	authority, err := url.Parse(urlIn(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(authority)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(file+".tsr", []byte("another's"), 0o600); err != nil {
			t.Error(err)
		}
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()
	if err := os.WriteFile(config, fmt.Appendf(nil, "tsa: {url: %q, root: %s/root.pem}\n", server.URL, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := tried(t, "--config", config, "timestamp", file)
	there, err := os.ReadFile(file + ".tsr")
	if status != 1 || !strings.Contains(stderr, "exist") || err != nil || string(there) != "another's" {
		t.Errorf("status %d, %s; the file has %d octets now, %v", status, stderr, len(there), err)
	}
}

// TestVerifySaysWhatItDidNot has verify refuse a token from the future, and say of a good one that nobody was asked about revocation.
func TestVerifySaysWhatItDidNot(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		dir := serveTSA(t, by)
		token := filepath.Join(dir, "data.tsr")
		c := &config{}
		c.TSA.URL = urlIn(t, dir)
		request, err := tsa.NewRequest(tsa.Request{Hash: imprintHashes["sha256"], Digest: make([]byte, 32), CertReq: true})
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&tool{}).askTSA(t.Context(), c, request)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(token, response, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", token, "--root", filepath.Join(dir, "root.pem")}
		status, stdout, stderr := tried(t, args...)
		if by > 0 {
			if status != 1 || !strings.Contains(stderr, "in the future") {
				t.Errorf("from the future: status %d, %s", status, stderr)
			}
			continue
		}
		if status != 0 || !strings.Contains(stdout, "revocation") || !strings.Contains(stdout, "not checked") {
			t.Errorf("status %d, %s%s", status, stdout, stderr)
		}
		_, stdout, _ = tried(t, append(args, "--json")...)
		var facts struct{ Revocation string }
		if err := json.Unmarshal([]byte(stdout), &facts); err != nil || facts.Revocation != "not checked" {
			t.Errorf("%v: %s", err, stdout)
		}
	}
}

// urlIn is tsa.url of the zegel.yaml in dir.
func urlIn(t *testing.T, dir string) string {
	t.Helper()
	c, err := (&tool{configPath: filepath.Join(dir, "zegel.yaml")}).loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	return c.TSA.URL
}
