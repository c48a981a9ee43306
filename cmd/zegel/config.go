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

// config is zegel.yaml. zegel-ceremony writes one; docs/zegel.md explains every key.
type config struct {
	CA struct {
		URL              string `yaml:"url"` // officers' API, https://
		daemon.TLSClient `yaml:",inline"`
	} `yaml:"ca"`
	OCSP struct {
		URL   string `yaml:"url"`   // public, http://
		Admin string `yaml:"admin"` // https://
	} `yaml:"ocsp"`
	TSA struct {
		URL    string `yaml:"url"`    // public, http:// or https://
		Admin  string `yaml:"admin"`  // https://
		Policy string `yaml:"policy"` // the policy identifier to ask for
		Chain  string `yaml:"chain"`  // PEM: certificates above the TSU's
		Root   string `yaml:"root"`   // PEM: trust anchor of the TSA
	} `yaml:"tsa"`
	Issuer string `yaml:"issuer"` // PEM: the issuing CA
	Root   string `yaml:"root"`   // PEM: the root
	CRL    string `yaml:"crl"`    // http:// address of the issuing CA's CRL
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
