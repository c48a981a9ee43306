package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
)

// suites are those of TLS 1.2 that have forward secrecy and authenticated encryption; TLS 1.3 has no others.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// TLSConfig loads certificate and key: TLS 1.2+, AEAD suites; client certificates required where ClientCA is set.
// The key file must be readable by its owner alone.
func (l TLSListener) TLSConfig() (*tls.Config, error) {
	certificate, err := loadPair(l.Certificate, l.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, Certificates: []tls.Certificate{certificate}}
	if l.ClientCA != "" {
		if config.ClientCAs, err = LoadPool(l.ClientCA); err != nil {
			return nil, err
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// validateFiles finds which of the files is at fault. key is the config key of l.
func (l TLSListener) validateFiles(key string) error {
	if l.Certificate == "" {
		return Keyf(key+".certificate", "no file is named")
	}
	if l.Key == "" {
		return Keyf(key+".key", "no file is named")
	}
	if _, err := loadPair(l.Certificate, l.Key); err != nil {
		return Keyf(key, "%w", err)
	}
	if l.ClientCA != "" {
		if _, err := LoadPool(l.ClientCA); err != nil {
			return Keyf(key+".client_ca", "%w", err)
		}
	}
	return nil
}

// Config returns TLS 1.2+ client settings. Without certificate and key no client certificate is shown.
func (c TLSClient) Config() (*tls.Config, error) {
	pool, err := LoadPool(c.CA)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, RootCAs: pool}
	if c.Certificate != "" || c.Key != "" {
		certificate, err := loadPair(c.Certificate, c.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

// ReadPrivate reads a file that nobody but its owner may read or write; it refuses one with wider permissions.
func ReadPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so that others may use it: chmod 600 it, and if others may have read it, replace what it holds", path, mode)
	}
	if info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s has %d octets: that is no key file", path, info.Size())
	}
	return io.ReadAll(f)
}

func loadPair(certificate, key string) (tls.Certificate, error) {
	if certificate == "" || key == "" {
		return tls.Certificate{}, errors.New("load TLS certificate: certificate and key must both be named")
	}
	certificatePEM, err := os.ReadFile(certificate)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load TLS certificate: %w", err)
	}
	keyPEM, err := ReadPrivate(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load TLS key: %w", err)
	}
	pair, err := tls.X509KeyPair(certificatePEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load TLS certificate %s and key %s: %w", certificate, key, err)
	}
	return pair, nil
}
