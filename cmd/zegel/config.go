package main

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/strictyaml"
)

const defaultConfig = "/etc/zegel/zegel.yaml"

// config is zegel.yaml. zegel-ceremony writes one; docs/reference.md is made of these comments. No key has to be there: a
// command that needs one says so.
type config struct {
	// The CA's admin listener, and how the officer calls all three.
	CA struct {
		// https:// address of the CA's admin listener. Commands that ask the CA need it. Optional.
		URL              string `yaml:"url"`
		daemon.TLSClient `yaml:",inline"`
	} `yaml:"ca"`
	// The OCSP responder.
	OCSP struct {
		// http:// address of the responder, for people: no command asks it. Optional.
		URL string `yaml:"url"`
		// https:// address of its admin listener, for status. Optional.
		Admin string `yaml:"admin"`
	} `yaml:"ocsp"`
	// The time-stamping authority.
	TSA struct {
		// http:// or https:// address that timestamp asks. Optional.
		URL string `yaml:"url"`
		// https:// address of its admin listener, for status. Optional.
		Admin string `yaml:"admin"`
		// OID of the policy that timestamp asks for; without it the TSA chooses. Optional.
		Policy string `yaml:"policy"`
		// PEM file with the certificates above the TSU's, for tokens that carry none. Optional.
		Chain string `yaml:"chain"`
		// PEM file with the trust anchor of timestamps. timestamp needs it, and verify without --root. Optional.
		Root string `yaml:"root"`
	} `yaml:"tsa"`
	// PEM file with the issuing CA. Optional.
	Issuer string `yaml:"issuer"`
	// PEM file with the root. Optional.
	Root string `yaml:"root"`
	// http:// address of the issuing CA's CRL. Optional.
	CRL string `yaml:"crl"`
	// How the token commands use PKCS#11 tokens.
	Tokens daemon.TokenSettings `yaml:"tokens"`
}

// loadConfig reads the file named by --config, $ZEGEL_CONFIG or the default, in that order.
func (t *tool) loadConfig() (*config, error) {
	path := cmp.Or(t.configPath, os.Getenv("ZEGEL_CONFIG"), defaultConfig)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, badInput("read configuration: %w: name one with --config or $ZEGEL_CONFIG", err)
	}
	var c config
	if err := strictyaml.Decode(path, text, &c); err != nil {
		return nil, &inputError{err}
	}
	if err := c.Tokens.Validate("tokens"); err != nil {
		return nil, &inputError{daemon.Locate(path, text, err)}
	}
	return &c, nil
}

// readCertificates is daemon.ReadCertificates of a file that the officer or the configuration names.
func readCertificates(path string) ([]*x509.Certificate, error) {
	list, err := daemon.ReadCertificates(path)
	if err != nil {
		return nil, &inputError{err}
	}
	return list, nil
}

// poolOf is daemon.LoadPool of a file that the officer or the configuration names.
func poolOf(path string) (*x509.CertPool, error) {
	pool, err := daemon.LoadPool(path)
	if err != nil {
		return nil, &inputError{err}
	}
	return pool, nil
}

// absolute makes a path independent of the working folder.
func absolute(path string) (string, error) {
	p, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return p, nil
}
