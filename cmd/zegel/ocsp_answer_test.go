package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// TestOCSPStatus reads answers that x/crypto/ocsp writes, and finds what is wrong with them.
func TestOCSPStatus(t *testing.T) {
	caKey, key := newTestKey(t), newTestKey(t)
	ca := certify(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, caKey.Public(), caKey)
	responder := certify(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TEST OCSP"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}, ca, key.Public(), caKey)
	plain := certify(t, &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "TEST no responder"}}, ca, key.Public(), caKey)
	otherKey := newTestKey(t)
	other := certify(t, &x509.Certificate{SerialNumber: big.NewInt(4), Subject: pkix.Name{CommonName: "TEST CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, otherKey.Public(), otherKey)
	question, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: big.NewInt(77)}, ca, &ocsp.RequestOptions{Hash: crypto.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	certID, err := certIDOf(question)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(status int, serial int64, certificate *x509.Certificate) []byte {
		raw, err := ocsp.CreateResponse(ca, certificate, ocsp.Response{
			Status: status, SerialNumber: big.NewInt(serial), Certificate: certificate, IssuerHash: crypto.SHA256, ThisUpdate: time.Now(), RevokedAt: time.Now(),
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	past := func(template ocsp.Response, certificate *x509.Certificate) []byte {
		template.Status, template.SerialNumber, template.Certificate, template.IssuerHash = ocsp.Good, big.NewInt(77), certificate, crypto.SHA256
		raw, err := ocsp.CreateResponse(ca, certificate, template, key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	hour := time.Hour
	ended := certifyFor(t, &x509.Certificate{
		SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "TEST OCSP"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		NotBefore: time.Now().Add(-2 * hour), NotAfter: time.Now().Add(-hour),
	}, ca, key.Public(), caKey)
	good := answer(ocsp.Good, 77, responder)
	more := bytes.Clone(good[4:]) // OCSPResponse with a field that there is none
	more = append(append([]byte{0x30, 0x82, byte((len(more) + 2) >> 8), byte(len(more) + 2)}, more...), 0x05, 0x00)
	changed := bytes.Replace(good, []byte{0x02, 0x01, 77, 0x80, 0x00}, []byte{0x02, 0x01, 77, 0x82, 0x00}, 1) // good made unknown
	if bytes.Equal(changed, good) {
		t.Fatal("the answer has another form")
	}
	for _, test := range []struct {
		name   string
		answer []byte
		issuer *x509.Certificate
		want   string // the status, or what the error says
	}{
		{"good", good, ca, "good"},
		{"revoked", answer(ocsp.Revoked, 77, responder), ca, "revoked"},
		{"unknown", answer(ocsp.Unknown, 77, responder), ca, "unknown"},
		{"another serial", answer(ocsp.Good, 78, responder), ca, "does not speak of"},
		{"changed", changed, ca, "does not verify"},
		{"no responder", answer(ocsp.Good, 77, plain), ca, "is no responder"},
		{"a CA of the same name", good, other, "the responder's certificate"},
		{"still good", past(ocsp.Response{ThisUpdate: time.Now().Add(-hour), NextUpdate: time.Now().Add(hour)}, responder), ca, "good"},
		{"over", past(ocsp.Response{ThisUpdate: time.Now().Add(-2 * hour), NextUpdate: time.Now().Add(-hour)}, responder), ca, "held until"},
		{"a responder that has ended", past(ocsp.Response{ThisUpdate: time.Now()}, ended), ca, "is valid from"},
		{"another field", more, ca, "BasicOCSPResponse"},
		{"no DER", append(bytes.Clone(good), 0), ca, "read OCSP response"},
		{"cut off", good[:40], ca, "read OCSP response"},
		{"another structure", []byte{0x30, 0x03, 0x0a, 0x01, 0x00}, ca, "BasicOCSPResponse"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ocspStatus(test.answer, certID, test.issuer)
			if err != nil {
				got = err.Error()
			}
			if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
	var refused ocsp.ResponseError
	if _, err := ocspStatus(ocsp.TryLaterErrorResponse, certID, ca); !errors.As(err, &refused) || refused.Status != ocsp.TryLater {
		t.Errorf("tryLater: %v", err)
	}
}

func newTestKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify makes a certificate that is valid now; without a parent it is self-signed.
func certify(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	return certifyFor(t, template, parent, public, key)
}

func certifyFor(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
