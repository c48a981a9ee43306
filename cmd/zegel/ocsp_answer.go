package main

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/internal/der"
)

// oidOCSPBasic is id-pkix-ocsp-basic (RFC 6960 §4.2.1).
var oidOCSPBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}

// errNoBasicResponse is what there is to say of an answer that cannot be read.
var errNoBasicResponse = errors.New("read OCSP response: not an OCSPResponse with one BasicOCSPResponse (RFC 6960 §4.2.1)")

// ocspStatus verifies an answer to a request for certID, DER, and returns good, revoked or unknown, as RFC 6960 §3.2 has it: answer and
// responder's certificate hold now. The responder is the one that issuer has delegated (RFC 6960 §4.2.2.2), with its certificate in the
// answer. A responseStatus other than successful is an ocsp.ResponseError. It is read here and not by x/crypto/ocsp, which cannot
// verify RSASSA-PSS.
func ocspStatus(answer, certID []byte, issuer *x509.Certificate) (string, error) {
	basic, err := readOCSPResponse(answer)
	if err != nil {
		return "", err
	}
	var tbs, algorithm, certs, list, certificate cryptobyte.String
	var signature []byte
	if !basic.ReadASN1Element(&tbs, cbasn1.SEQUENCE) || !basic.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) ||
		!basic.ReadASN1BitStringAsBytes(&signature) || !basic.ReadASN1(&certs, cbasn1.Tag(0).ContextSpecific().Constructed()) || !basic.Empty() ||
		!certs.ReadASN1(&list, cbasn1.SEQUENCE) || !certs.Empty() || !list.ReadASN1Element(&certificate, cbasn1.SEQUENCE) {
		return "", errNoBasicResponse
	}
	responder, err := x509.ParseCertificate(certificate)
	if err != nil {
		return "", fmt.Errorf("read the responder's certificate: %w", err)
	}
	now := time.Now()
	if err := checkResponder(responder, issuer, now); err != nil {
		return "", err
	}
	a, err := der.AlgorithmOf(responder.PublicKey, algorithm)
	if err != nil {
		return "", fmt.Errorf("verify OCSP response: %w", err)
	}
	if err := a.Verify(responder.PublicKey, tbs, signature); err != nil {
		return "", fmt.Errorf("verify OCSP response: %w", err)
	}
	return readCertStatus(tbs, certID, now)
}

// checkResponder wants a certificate that issuer has made for its responder and that is valid at now (RFC 6960 §4.2.2.2).
func checkResponder(responder, issuer *x509.Certificate, now time.Time) error {
	if !bytes.Equal(responder.RawIssuer, issuer.RawSubject) || !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return fmt.Errorf("verify OCSP response: %s is no responder of %s (RFC 6960 §4.2.2.2)", responder.Subject, issuer.Subject)
	}
	if now.Before(responder.NotBefore) || now.After(responder.NotAfter) {
		return fmt.Errorf("verify OCSP response: the responder's certificate is valid from %s to %s", responder.NotBefore.Format(time.RFC3339), responder.NotAfter.Format(time.RFC3339))
	}
	if err := responder.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("verify the responder's certificate: %w", err)
	}
	return nil
}

// readOCSPResponse returns the content of the BasicOCSPResponse in a successful answer, which has to be DER.
func readOCSPResponse(answer []byte) (basic cryptobyte.String, err error) {
	if err := der.Check(answer); err != nil {
		return nil, fmt.Errorf("read OCSP response: %w", err)
	}
	var outer, explicit, response, octets cryptobyte.String
	var status int
	var id asn1.ObjectIdentifier
	s := cryptobyte.String(answer)
	if !s.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1Enum(&status) {
		return nil, errNoBasicResponse
	}
	if status != int(ocsp.Success) {
		return nil, fmt.Errorf("read OCSP response: %w", ocsp.ResponseError{Status: ocsp.ResponseStatus(status)})
	}
	if !outer.ReadASN1(&explicit, cbasn1.Tag(0).ContextSpecific().Constructed()) || !outer.Empty() ||
		!explicit.ReadASN1(&response, cbasn1.SEQUENCE) || !explicit.Empty() ||
		!response.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidOCSPBasic) || !response.ReadASN1(&octets, cbasn1.OCTET_STRING) || !response.Empty() ||
		der.Check(octets) != nil || !octets.ReadASN1(&basic, cbasn1.SEQUENCE) {
		return nil, errNoBasicResponse
	}
	return basic, nil
}

// readCertStatus finds the SingleResponse to certID in a ResponseData. One whose nextUpdate is not after now says nothing any more.
func readCertStatus(tbs cryptobyte.String, certID []byte, now time.Time) (string, error) {
	var data, responses, single, id, value, next cryptobyte.String
	var until time.Time
	var limited bool
	var tag cbasn1.Tag
	if !tbs.ReadASN1(&data, cbasn1.SEQUENCE) || !data.SkipOptionalASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!data.ReadAnyASN1(&value, &tag) || !data.SkipASN1(cbasn1.GeneralizedTime) || !data.ReadASN1(&responses, cbasn1.SEQUENCE) {
		return "", errNoBasicResponse
	}
	for !responses.Empty() {
		if !responses.ReadASN1(&single, cbasn1.SEQUENCE) || !single.ReadASN1Element(&id, cbasn1.SEQUENCE) || !single.ReadAnyASN1(&value, &tag) {
			return "", errNoBasicResponse
		}
		if !bytes.Equal(id, certID) {
			continue
		}
		if !single.SkipASN1(cbasn1.GeneralizedTime) || !single.ReadOptionalASN1(&next, &limited, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
			limited && (!next.ReadASN1GeneralizedTime(&until) || !next.Empty()) {
			return "", errNoBasicResponse
		}
		if limited && !now.Before(until) {
			return "", fmt.Errorf("verify OCSP response: it held until %s", until.Format(time.RFC3339))
		}
		switch tag {
		case cbasn1.Tag(0).ContextSpecific():
			return "good", nil
		case cbasn1.Tag(1).ContextSpecific().Constructed():
			return "revoked", nil
		case cbasn1.Tag(2).ContextSpecific():
			return "unknown", nil
		}
		return "", errNoBasicResponse
	}
	return "", errors.New("read OCSP response: it does not speak of the certificate that was asked for")
}

// certIDOf returns the first CertID of an OCSPRequest, DER.
func certIDOf(request []byte) ([]byte, error) {
	var outer, tbs, list, one, id cryptobyte.String
	s := cryptobyte.String(request)
	if !s.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) || !tbs.SkipOptionalASN1(cbasn1.Tag(1).ContextSpecific().Constructed()) ||
		!tbs.ReadASN1(&list, cbasn1.SEQUENCE) || !list.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1Element(&id, cbasn1.SEQUENCE) {
		return nil, errors.New("read OCSP request: no CertID (RFC 6960 §4.1.1)")
	}
	return id, nil
}
