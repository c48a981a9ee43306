package daemon

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// pemBegin is how every PEM block begins (RFC 7468 §2).
var pemBegin = []byte("-----BEGIN ")

// ReadCertificates reads all certificates of a PEM file, or the one of a DER file: at least one, and nothing else.
// Text before a PEM block is allowed (RFC 7468 §2), text after the last one and damaged blocks are not: a chain
// that was cut short in copying must not pass for a whole one.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, errors.New("read certificates: no file is named")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	list, err := parseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %s %w", path, err)
	}
	return list, nil
}

// ReadCertificate reads a file that holds one certificate and nothing else, PEM or DER.
func ReadCertificate(path string) (*x509.Certificate, error) {
	list, err := ReadCertificates(path)
	if err != nil {
		return nil, err
	}
	if len(list) > 1 {
		return nil, fmt.Errorf("read certificate: %s holds more than one: name a file with the one certificate alone", path)
	}
	return list[0], nil
}

// LoadPool reads the certificates of a PEM or DER file into a pool, as ReadCertificates does.
func LoadPool(path string) (*x509.CertPool, error) {
	list, err := ReadCertificates(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool, nil
}

// parseCertificates is ReadCertificates of a file's content. Its errors go on after the file's name.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(text, pemBegin) {
		c, err := x509.ParseCertificate(text)
		if err != nil {
			return nil, fmt.Errorf("holds no PEM certificate, and none in DER: %w", err)
		}
		return []*x509.Certificate{c}, nil
	}
	var list []*x509.Certificate
	for n := 1; bytes.Contains(text, pemBegin); n++ {
		block, rest := pem.Decode(text)
		// pem.Decode passes over what it cannot read.
		if read := text[:len(text)-len(rest)]; block == nil || bytes.Count(read, pemBegin) != 1 {
			return nil, fmt.Errorf("holds no PEM certificate as block %d: its base64 or its END line is damaged", n)
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds no PEM certificate but a %s as block %d: it is for certificates only", block.Type, n)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a damaged certificate as block %d: %w", n, err)
		}
		list, text = append(list, c), rest
	}
	if after := bytes.TrimSpace(text); len(after) > 0 {
		return nil, fmt.Errorf("has %d octets after its last certificate: remove them", len(after))
	}
	return list, nil
}
