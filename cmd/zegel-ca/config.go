package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// config is ca.yaml. zegel-ceremony writes one that works; docs/reference.md is made of these comments.
type config struct {
	daemon.Common `yaml:",inline"`

	// The first octet of every serial, 1 to 127. No two CAs of the provider share it, so that serials are
	// unique across the provider (CIR (EU) 2025/1943, EN 319 412-2 GEN-4.2.6-01). Required.
	Instance int `yaml:"instance"`
	// The CA that this daemon is.
	Issuer issuer `yaml:"issuer"`
	// The CA's memory. The daemon opens it; the ceremony has created it.
	Journal daemon.Journal `yaml:"journal"`
	// Addresses that are written into every certificate: where relying parties find the rest.
	URLs urls `yaml:"urls"`
	// Where CRLs go, and when.
	Publish publish `yaml:"publish"`
	// The listener from which responders follow the journal, path /feed. client_ca says whose certificates are
	// believed, followers which of them are let in.
	Feed daemon.TLSListener `yaml:"feed"`
	// SHA-256 digests of the responders' client certificates (DER), 64 hex digits each. Nobody else may follow the
	// journal. Optional.
	Followers []string `yaml:"followers"`
}

// issuer is a CA: its certificate, and the key that fits it.
type issuer struct {
	// PEM or DER file with the CA's certificate, that one alone: cA TRUE, keyCertSign and cRLSign,
	// subjectKeyIdentifier (RFC 5280 §4.2.1). Required.
	Certificate string `yaml:"certificate"`
	// URI of the CA's key, which signs certificates and CRLs and nothing else (EN 319 411-1 GEN-6.5.3-03).
	// softtoken: only under assurance: test. Required.
	Key string `yaml:"key"`
	// What an RSA key signs certificates and CRLs with: pkcs1v15 (RSASSA-PKCS1-v1_5) or pss (RSASSA-PSS), both
	// with SHA-256 (RFC 8017 §8, TS 119 312 table 6). An EC key has none. Default pkcs1v15.
	SignatureScheme der.Scheme `yaml:"signature_scheme"`
}

// urls are those of policy.URLs.
type urls struct {
	// http:// address of the CRL in publish.dir (EN 319 412-2 GEN-4.3.11-4). Required.
	CRL string `yaml:"crl"`
	// http:// address of the OCSP responder (EN 319 412-2 GEN-4.4.1-5). Required.
	OCSP string `yaml:"ocsp"`
	// http:// address of the CA's certificate in DER (EN 319 412-2 GEN-4.4.1-2). Required.
	CAIssuers string `yaml:"ca_issuers"`
	// The PKI disclosure statements, one of them in English at least (EN 319 412-5 QCS-4.3.4-01 to -03). Required.
	PDS []pds `yaml:"pds"`
}

// pds is one disclosure statement.
type pds struct {
	// https:// address of the statement. Required.
	URL string `yaml:"url"`
	// Its language, ISO 639-1, two lower-case letters. Required.
	Language string `yaml:"language"`
}

// publish says where and when.
type publish struct {
	// A folder that a web server serves and the daemon can write to. Required.
	Dir string `yaml:"dir"`
	// The name of the CRL in it, without a folder. Required.
	CRLFile string `yaml:"crl_file"`
	// A CRL is published this long after the last one, if no revocation came before: above 0, less than life, at most 24h
	// (EN 319 411-1 CSS-6.3.9-05). Where life is shorter than 24h the default is half of it. Default 12h.
	Every time.Duration `yaml:"every"`
	// nextUpdate is this long after thisUpdate, but not after the CA certificate's end: whole seconds, more than every, at
	// most 240h. Default 24h.
	Life time.Duration `yaml:"life"`
}

// check judges everything that can be judged without touching a key.
func (c *config) check() error {
	if err := c.Common.Validate(c.tokenKeys()); err != nil {
		return err
	}
	if err := c.checkKeys(); err != nil {
		return err
	}
	if c.Instance < 1 || c.Instance > 127 {
		return daemon.Keyf("instance", "%d: want 1 to 127", c.Instance)
	}
	cert, err := daemon.ReadCertificate(c.Issuer.Certificate)
	if err != nil {
		return daemon.Keyf("issuer.certificate", "%w", err)
	}
	if err := ca.CheckCertificate(cert); err != nil {
		return daemon.Keyf("issuer.certificate", "%w", err)
	}
	if err := c.Issuer.SignatureScheme.Check(cert.PublicKey); err != nil {
		return daemon.Keyf("issuer.signature_scheme", "%w", err)
	}
	if _, err := algorithms.InForce().Check(algorithms.Of(cert.PublicKey, c.Issuer.SignatureScheme), algorithms.CA, time.Now()); err != nil {
		return daemon.Keyf("issuer.certificate", "%w", err)
	}
	if err := c.checkURLs(); err != nil {
		return err
	}
	if err := c.checkPublish(cert); err != nil {
		return err
	}
	return c.checkFollowers()
}

// checkKeys judges the journal's settings and the spelling of every key URI.
func (c *config) checkKeys() error {
	if err := c.Journal.Validate("journal"); err != nil {
		return err
	}
	keys := c.tokenKeys()
	keys["journal.checkpoint_key"] = c.Journal.CheckpointKey
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if err := hsm.CheckURI(keys[key], c.Assurance == daemon.AssuranceQualified); err != nil {
			return daemon.Keyf(key, "%w", err)
		}
	}
	return activation.Check(keys)
}

// tokenKeys are the keys that a qualified provider keeps in a certified device: all but the one that
// signs checkpoints (EN 319 411-1 GEN-6.5.2-04).
func (c *config) tokenKeys() map[string]string {
	return map[string]string{"issuer.key": c.Issuer.Key, "journal.wrap_key": c.Journal.WrapKey}
}

func (c *config) checkURLs() error {
	for _, u := range []struct{ key, value string }{
		{"urls.crl", c.URLs.CRL}, {"urls.ocsp", c.URLs.OCSP}, {"urls.ca_issuers", c.URLs.CAIssuers},
	} {
		if u.value == "" {
			return daemon.Keyf(u.key, "no URL: every certificate carries it")
		}
	}
	if err := ca.CheckURLs(c.policyURLs()); err != nil {
		return daemon.Keyf("urls", "%w", err)
	}
	for n, p := range c.URLs.PDS {
		if key := fmt.Sprintf("urls.pds[%d]", n); p.URL == "" {
			return daemon.Keyf(key+".url", "no URL: every qualified certificate carries it")
		} else if !languageCode.MatchString(p.Language) {
			return daemon.Keyf(key+".language", "%q: want two lower-case letters of ISO 639-1 (EN 319 412-5 §4.3.4)", p.Language)
		}
	}
	if !slices.ContainsFunc(c.URLs.PDS, func(p pds) bool { return p.Language == "en" }) {
		return daemon.Keyf("urls.pds", "no disclosure statement in English: every qualified certificate names one (EN 319 412-5 QCS-4.3.4-03)")
	}
	return nil
}

// languageCode is the form of ISO 639-1.
var languageCode = regexp.MustCompile(`^[a-z]{2}$`)

// checkPublish judges the folder, by writing a file into it, and the times of CRLs.
func (c *config) checkPublish(cert *x509.Certificate) error {
	if name := c.Publish.CRLFile; name == "" || filepath.Base(name) != name {
		return daemon.Keyf("publish.crl_file", "%q: want a file name without a folder", name)
	}
	if err := ca.CheckCRLTimes(cert, c.Publish.Every, c.Publish.Life); err != nil {
		return daemon.Keyf("publish", "%w", err)
	}
	if c.Publish.Dir == "" {
		return daemon.Keyf("publish.dir", "no folder is named")
	}
	f, err := os.CreateTemp(c.Publish.Dir, ".check-*")
	if err != nil {
		return daemon.Keyf("publish.dir", "%w: the daemon must be able to write there", err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return daemon.Keyf("publish.dir", "%w", err)
	}
	return nil
}

func (c *config) checkFollowers() error {
	if err := c.Feed.Validate("feed", true); err != nil {
		return err
	}
	for n, digest := range c.Followers {
		if err := checkDigest(digest); err != nil {
			return daemon.Keyf(fmt.Sprintf("followers[%d]", n), "%w", err)
		}
	}
	return nil
}

func (c *config) policyURLs() policy.URLs {
	u := policy.URLs{CRL: c.URLs.CRL, OCSP: c.URLs.OCSP, CAIssuers: c.URLs.CAIssuers}
	for _, p := range c.URLs.PDS {
		u.PDS = append(u.PDS, policy.PDS{URL: p.URL, Language: p.Language})
	}
	return u
}

// checkDigest judges the SHA-256 of a certificate in hex, in either case.
func checkDigest(text string) error {
	if b, err := hex.DecodeString(text); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("%q: want 64 hex digits, the SHA-256 of a certificate's DER", text)
	}
	return nil
}
