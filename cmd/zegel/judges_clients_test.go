//go:build judges

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ocsp"
)

// clients are the judges written in Go, as commands of the scripts: each prints what it found; `! command` wants it to refuse,
// and stderr has the reason.
func clients() map[string]func(*testscript.TestScript, bool, []string) {
	command := func(do func(ts *testscript.TestScript, args []string) (string, error)) func(*testscript.TestScript, bool, []string) {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			out, err := do(ts, args)
			fmt.Fprint(ts.Stdout(), out)
			if err != nil {
				fmt.Fprintln(ts.Stderr(), err)
			}
			if (err != nil) != neg {
				ts.Fatalf("%s%v: refused is not %t", out, err, neg)
			}
		}
	}
	return map[string]func(*testscript.TestScript, bool, []string){
		"x-crypto-ocsp":       command(xCryptoOCSP),
		"digitorus-timestamp": command(digitorusTimestamp),
	}
}

var judgeHashes = map[string]crypto.Hash{
	"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512, "sha3-256": crypto.SHA3_256,
}

// xCryptoOCSP asks our responder with golang.org/x/crypto/ocsp: post|get sha1|sha256|… CERT [issuer=FILE] [tamper]. It prints
// the status; a signature that does not verify, another responder, another CertID hash or an answer that is not of now are errors.
func xCryptoOCSP(ts *testscript.TestScript, args []string) (string, error) {
	hash, cert, issuer := judgeHashes[args[1]], readCertificate(ts, args[2]), readCertificate(ts, ts.Getenv("ISSUER"))
	for _, word := range args[3:] {
		if file, found := strings.CutPrefix(word, "issuer="); found {
			issuer = readCertificate(ts, file)
		}
	}
	request, err := ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: hash})
	if err != nil {
		return "", err
	}
	method, address, body := http.MethodPost, ts.Getenv("OCSP_URL"), request
	if args[0] == "get" {
		method, address, body = http.MethodGet, address+url.PathEscape(base64.StdEncoding.EncodeToString(request)), nil
	}
	asked := time.Now()
	raw, err := fetch(context.Background(), method, address, "application/ocsp-request", body)
	if err != nil {
		return "", err
	}
	r, err := ocsp.ParseResponseForCert(raw, cert, issuer)
	if err == nil && args[len(args)-1] == "tamper" {
		raw[bytes.Index(raw, r.Signature)+len(r.Signature)-1] ^= 1
		r, err = ocsp.ParseResponseForCert(raw, cert, issuer)
	}
	if err != nil {
		return "", err
	}
	return judgeResponse(ts, r, cert, hash, asked)
}

// judgeResponse looks at what ParseResponseForCert leaves to its caller.
func judgeResponse(ts *testscript.TestScript, r *ocsp.Response, cert *x509.Certificate, hash crypto.Hash, asked time.Time) (string, error) {
	switch signer := readCertificate(ts, ts.Getenv("OCSP_CERT")); {
	case r.Certificate == nil || !r.Certificate.Equal(signer):
		return "", errors.New("the answer does not carry the responder's certificate")
	case len(r.Certificate.ExtKeyUsage) != 1 || r.Certificate.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning:
		return "", fmt.Errorf("the responder's certificate is for %v", r.Certificate.ExtKeyUsage)
	case r.IssuerHash != hash:
		return "", fmt.Errorf("asked with a CertID of %v, answered with %v", hash, r.IssuerHash)
	case r.ThisUpdate.After(time.Now()) || r.ThisUpdate.Before(asked.Add(-time.Minute)) || r.ProducedAt.Before(r.ThisUpdate):
		return "", fmt.Errorf("thisUpdate %v, producedAt %v, asked at %v", r.ThisUpdate, r.ProducedAt, asked)
	case !r.NextUpdate.After(time.Now()):
		return "", fmt.Errorf("nextUpdate %v", r.NextUpdate)
	}
	switch r.Status {
	case ocsp.Good:
		return "good\n", nil
	case ocsp.Revoked:
		if r.RevokedAt.After(r.ThisUpdate) || r.RevokedAt.Before(cert.NotBefore) {
			return "", fmt.Errorf("revoked at %v, thisUpdate %v", r.RevokedAt, r.ThisUpdate)
		}
		return fmt.Sprintf("revoked, reason %d\n", r.RevocationReason), nil
	}
	return "unknown\n", nil
}

// digitorusTimestamp asks our TSA with digitorus/timestamp: HASH FILE [nocert] [policy=OID] [tamper]. It prints what the token
// says; a token that does not verify up to the root, or does not say what was asked, is an error.
func digitorusTimestamp(ts *testscript.TestScript, args []string) (string, error) {
	data := []byte(ts.ReadFile(args[1]))
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return "", err
	}
	options := timestamp.RequestOptions{Hash: judgeHashes[args[0]], Certificates: true, Nonce: nonce}
	for _, word := range args[2:] {
		if word == "nocert" {
			options.Certificates = false
		} else if text, found := strings.CutPrefix(word, "policy="); found {
			if options.TSAPolicyOID, err = parseOID(text); err != nil {
				return "", err
			}
		}
	}
	query, err := timestamp.CreateRequest(bytes.NewReader(data), &options)
	if err != nil {
		return "", err
	}
	raw, err := fetch(context.Background(), http.MethodPost, ts.Getenv("TSA_URL"), "application/timestamp-query", query)
	if err != nil {
		return "", err
	}
	if args[len(args)-1] == "tamper" {
		raw[bytes.Index(raw, nonce.Bytes())]++ // inside TSTInfo
	}
	stamp, err := timestamp.ParseResponse(raw)
	if err != nil {
		return "", err
	}
	digest := options.Hash.New()
	digest.Write(data)
	switch {
	case stamp.HashAlgorithm != options.Hash || !bytes.Equal(stamp.HashedMessage, digest.Sum(nil)):
		return "", fmt.Errorf("the imprint is %v %x", stamp.HashAlgorithm, stamp.HashedMessage)
	case stamp.Nonce == nil || stamp.Nonce.Cmp(nonce) != 0:
		return "", fmt.Errorf("the nonce is %v", stamp.Nonce)
	case time.Since(stamp.Time).Abs() > time.Minute:
		return "", fmt.Errorf("genTime is %v", stamp.Time)
	case (len(stamp.Certificates) > 0) != options.Certificates:
		return "", fmt.Errorf("the token has %d certificates", len(stamp.Certificates))
	}
	if err := verifyToken(ts, stamp.RawToken); err != nil {
		return "", err
	}
	return fmt.Sprintf("policy %v\naccuracy %v\nordering %t\nqualified %t\n", stamp.Policy, stamp.Accuracy, stamp.Ordering, stamp.Qualified), nil
}

// verifyToken does what timestamp.Parse leaves undone (all, where the token has no certificates): signature and path up to
// the root, for time-stamping.
func verifyToken(ts *testscript.TestScript, token []byte) error {
	p7, err := pkcs7.Parse(token)
	if err != nil {
		return err
	}
	issuer, tsu := readCertificate(ts, ts.Getenv("ISSUER")), readCertificate(ts, ts.Getenv("TSA_CERT"))
	if len(p7.Certificates) == 0 {
		p7.Certificates = []*x509.Certificate{tsu}
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(readCertificate(ts, ts.Getenv("ROOT")))
	between.AddCert(issuer)
	return p7.VerifyWithOpts(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}})
}

// standins makes, behind the CA's back, what TLS wants and no profile has yet: certificates with name, key, dates, serial and
// addresses of some of ours, but for digitalSignature, clientAuth, serverAuth and localhost. Relying parties that know OCSP only
// from TLS can so ask our responder about ours; one has a serial that the journal does not know. It returns the variables that
// name the files.
func standins(t *testing.T, demo *running, key crypto.Signer) []string {
	t.Helper()
	dir := t.TempDir()
	var vars []string
	write := func(name, like string, serial int64) {
		file := filepath.Join(dir, name+".pem")
		standin(t, demo, key, standinOrder{like: like, serial: serial, out: file})
		vars = append(vars, "STANDIN_"+name+"="+file)
	}
	for _, c := range demo.Certificates {
		switch {
		case c.Status == "revoked":
			write("REVOKED", c.Cert, 0)
		case c.Profile == "qcp-n":
			write("QCP_N", c.Cert, 0)
			write("NEVER_ISSUED", c.Cert, 1)
		case c.Profile == "qcp-l":
			write("QCP_L", c.Cert, 0)
		}
	}
	return vars
}

// standinOrder says of which certificate file a stand-in is made, what is added to its serial number, and where it goes.
type standinOrder struct {
	like   string
	serial int64
	out    string
}

func standin(t *testing.T, demo *running, key crypto.Signer, o standinOrder) {
	t.Helper()
	c := onlyCertificate(t, o.like)
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).Add(c.SerialNumber, big.NewInt(o.serial)), RawSubject: c.RawSubject,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, SignatureAlgorithm: c.SignatureAlgorithm,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, BasicConstraintsValid: true, SubjectKeyId: c.SubjectKeyId,
		OCSPServer: c.OCSPServer, IssuingCertificateURL: c.IssuingCertificateURL, CRLDistributionPoints: c.CRLDistributionPoints,
	}, onlyCertificate(t, demo.Issuer), c.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readCertificate(ts *testscript.TestScript, file string) *x509.Certificate {
	block, _ := pem.Decode([]byte(ts.ReadFile(file)))
	if block == nil {
		ts.Fatalf("%s holds no PEM", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	ts.Check(err)
	return c
}

func parseOID(text string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for _, arc := range strings.Split(text, ".") {
		n, ok := new(big.Int).SetString(arc, 10)
		if !ok || !n.IsInt64() {
			return nil, fmt.Errorf("read OID %s", text)
		}
		oid = append(oid, int(n.Int64()))
	}
	return oid, nil
}
