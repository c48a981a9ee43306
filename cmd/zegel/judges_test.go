//go:build judges

package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/zegel-tsp/zegel/hsm"
)

// Which demos TestJudges starts: `make judges` takes all.
var (
	judgeTokens = flag.String("tokens", "soft,softhsm", "tokens of the demos that are judged")
	judgeKeys   = flag.String("keys", "p256,p384,p521,rsa3072,rsa4096,rsa3072-pss", "keys of the demos that are judged; -pss: CA, OCSP and TSU sign by RSASSA-PSS")
)

// TestJudges lets what others wrote judge a running demo of every token and kind of key: the scripts of `make test`,
// which want OpenSSL and curl only, and those in testdata/script/judges. docs/judges.md says which judge supports what.
func TestJudges(t *testing.T) {
	for _, token := range strings.Split(*judgeTokens, ",") {
		for _, keys := range strings.Split(*judgeKeys, ",") {
			t.Run(token+"-"+keys, func(t *testing.T) {
				algorithm, pss := strings.CutSuffix(keys, "-pss")
				args, scripts := []string{"--token", token, "--keys", algorithm}, "script"
				if pss { // OpenSSL's ts does not know it: script/pss is what OpenSSL can judge then
					args, scripts = append(args, "--signature-scheme", "pss", "--tsu-signature-scheme", "pss"), "script/pss"
				}
				demo := startDemo(t, args...)
				demo.commands, demo.pss = clients(), pss
				demo.extra = append(demo.extra, "TAMPERED_OCSP_URL="+tamperedOCSP(t, demo))
				withIssuingKey(t, demo, func(key crypto.Signer) {
					demo.extra = append(demo.extra, standins(t, demo, key)...)
					demo.extra = append(demo.extra, "NEVER_ISSUED="+neverIssued(t, demo, key))
				})
				runScripts(t, demo, scripts, "script/judges")
			})
		}
	}
}

// withIssuingKey lends the issuing CA's key, past the CA: what a thief of it can make is sound in everything, but the journal
// has never heard of it.
func withIssuingKey(t *testing.T, demo *running, use func(crypto.Signer)) {
	t.Helper()
	var config struct {
		ModuleEnv map[string]string `yaml:"module_env"`
		Issuer    struct{ Key string }
	}
	text, err := os.ReadFile(demo.Configs["ca"])
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for name, value := range config.ModuleEnv {
		t.Setenv(name, value) // hsm would leave it behind for the next demo
	}
	tokens := hsm.New(hsm.Config{ModuleEnv: config.ModuleEnv, Settings: hsm.Settings{Sessions: 1}})
	defer tokens.Close()
	key, err := tokens.Key(config.Issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	use(key)
}

// neverIssued signs the demo's qcp-n certificate under another serial number and returns the PEM file: every judge that asks
// for its status has to find it unknown (EN 319 411-1 OVR-6.6.3-02).
func neverIssued(t *testing.T, demo *running, key crypto.Signer) string {
	t.Helper()
	issuer, forged := onlyCertificate(t, demo.Issuer), onlyCertificate(t, demo.Certificates[0].Cert)
	forged.SerialNumber = new(big.Int).Add(forged.SerialNumber, big.NewInt(1))
	forged.ExtraExtensions = forged.Extensions
	raw, err := x509.CreateCertificate(rand.Reader, forged, issuer, forged.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "never-issued.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// tamperedOCSP starts a man in the middle of the responder's connections and returns its URL. It changes one digit of each
// answer's producedAt, so that only the signature can tell.
func tamperedOCSP(t *testing.T, demo *running) string {
	t.Helper()
	responder, err := url.Parse(demo.OCSPURL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(responder) },
		ModifyResponse: func(response *http.Response) error {
			answer, err := io.ReadAll(response.Body)
			if err != nil {
				return err
			}
			if i := bytes.Index(answer, []byte("\x18\x0f2")); i > 0 { // the first GeneralizedTime, YYYYMMDDHHMMSSZ
				answer[i+2+13] ^= 1
			}
			response.Body = io.NopCloser(bytes.NewReader(answer))
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0), // a client that hangs up
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL + "/"
}

// onlyCertificate reads a file that holds one certificate.
func onlyCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	list, err := readCertificates(path)
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %d certificates, %v", path, len(list), err)
	}
	return list[0]
}
