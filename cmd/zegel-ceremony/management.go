package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Lives of the management CA, which officers and daemons trust and nobody outside ever sees.
const (
	managementYears = 10
	// skew lets a machine whose clock is a little behind accept a certificate made a moment ago. Certificates of the
	// qualified hierarchy are never backdated (EN 319 411-1 GEN-6.3.3-01); these are not of it.
	skew = 5 * time.Minute
)

// leaf is a TLS certificate to be made.
type leaf struct {
	file   string   // folder and name, without extension
	name   string   // commonName
	hosts  []string // names of a server; none for a client
	client bool
	key    crypto.PublicKey // the one to certify; nil: a new P-256 key, which lies in a file beside the certificate
}

// issueManagement makes the management CA and what it signs: a server certificate for each daemon, the client
// certificate with which the OCSP responder fetches the feed, and one for each officer.
func (c *ceremony) issueManagement(context.Context) error {
	authority, err := c.managementCertificate()
	if err != nil {
		return err
	}
	if err := c.writeCertificates(map[string][]*x509.Certificate{"tls-ca.pem": {authority}}, "", nil); err != nil {
		return err
	}
	leaves := []leaf{
		{"tls/ca", "zegel-ca", []string{c.Hosts.CA}, false, nil},
		{"tls/ocsp", "zegel-ocsp", []string{c.Hosts.OCSP}, false, nil},
		{"tls/tsa", "zegel-tsa", []string{c.Hosts.TSA}, false, nil},
	}
	for _, l := range leaves {
		if _, err := c.issueLeaf(authority, l); err != nil {
			return err
		}
	}
	if c.feedClient, err = c.issueLeaf(authority, leaf{file: "tls/feed", name: "zegel-ocsp feed", client: true}); err != nil {
		return err
	}
	for i, o := range c.officers {
		if c.officers[i].Certificate, err = c.issueLeaf(authority, leaf{file: "officers/" + o.Name, name: o.Name, client: true, key: c.officerKeys[o.Name]}); err != nil {
			return err
		}
	}
	return nil
}

// managementCertificate is self-signed by a key of its own on a token.
func (c *ceremony) managementCertificate() (*x509.Certificate, error) {
	serial, err := randomSerial()
	if err != nil {
		return nil, err
	}
	now := c.now().UTC()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-skew), NotAfter: now.AddDate(managementYears, 0, 0),
		Subject: pkix.Name{
			Country: []string{c.Provider.Country}, Organization: []string{c.Provider.Organization},
			CommonName: "Management CA of " + c.Provider.Issuing,
		},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, c.keys.management.Public(), c.keys.management)
	if err != nil {
		return nil, fmt.Errorf("management CA: %w", err)
	}
	return x509.ParseCertificate(der)
}

// issueLeaf writes FILE.pem, and FILE.key where it makes the key, and returns the SHA-256 of the certificate's DER in hex.
func (c *ceremony) issueLeaf(authority *x509.Certificate, l leaf) (string, error) {
	public := l.key
	if public == nil {
		var err error
		if public, err = c.makeLeafKey(l.file); err != nil {
			return "", err
		}
	}
	serial, err := randomSerial()
	if err != nil {
		return "", err
	}
	now := c.now().UTC()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-skew), NotAfter: now.AddDate(0, 0, c.Validity.TLS),
		Subject:  pkix.Name{Organization: []string{c.Provider.Organization}, CommonName: l.name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if l.client {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	for _, host := range l.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, public, c.keys.management)
	if err != nil {
		return "", fmt.Errorf("certificate of %s: %w", l.name, err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(der)), c.write(l.file+".pem", certificatePEM(der), 0o644)
}

// makeLeafKey makes a P-256 key in the file NAME.key.
func (c *ceremony) makeLeafKey(name string) (crypto.PublicKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key.Public(), c.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// randomSerial has 126 random bits and is positive (RFC 5280 §4.1.2.2).
func randomSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}
