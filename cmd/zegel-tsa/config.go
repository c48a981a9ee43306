package main

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/tsa"
)

// unitProfile is the built-in profile that the unit's certificate has to satisfy.
const unitProfile = "tsu"

// clockUnverified is the value of clock: for demos and tests.
const clockUnverified = "unverified"

// checkpointEvery is how often the journal gets a fresh checkpoint: more often than the 5 s after which an old one counts as replayed.
const checkpointEvery = 2 * time.Second

// config is tsa.yaml. docs/tsa.md describes each key for operators.
type config struct {
	daemon.Common `yaml:",inline"` // officers may ask for the status; system_auditor and security_officer may have the journal verified

	Unit     unit          `yaml:"unit"`
	Policy   string        `yaml:"policy"`   // in tokens whose request names none: 0.4.0.2023.1.1 is EN 319 421's own
	Policies []string      `yaml:"policies"` // others that a request may name
	Accuracy time.Duration `yaml:"accuracy"` // of genTime, in every token; at most 1s (EN 319 421 TIS-7.7.2-03)
	// Qualified puts esi4-qtstStatement-1 in every token (EN 319 422 §9.1). Qualified tokens and others come from
	// different units at different addresses (EN 319 421 TIS-8.2-01).
	Qualified bool `yaml:"qualified"`

	Journal daemon.Journal     `yaml:"journal"` // this daemon's own
	HTTP    daemon.Listener    `yaml:"http"`    // public; RFC 3161 §3.4
	HTTPS   daemon.TLSListener `yaml:"https"`   // public; required for qualified tokens (CIR (EU) 2025/1929)
}

// unit is the time-stamping unit.
type unit struct {
	Certificate string `yaml:"certificate"` // PEM file
	Chain       string `yaml:"chain"`       // PEM file: the certificates above it, up to the root
	Key         string `yaml:"key"`         // hsm URI
	// SignatureScheme is what an RSA key signs tokens with: pkcs1v15 (RSASSA-PKCS1-v1_5) or pss (RSASSA-PSS, which many
	// verifiers of tokens cannot read), both with SHA-256 (RFC 8017 §8, TS 119 312 table 6). An EC key has none. Default pkcs1v15.
	SignatureScheme der.Scheme `yaml:"signature_scheme"`
}

// check judges the configuration without touching a key.
func check(c *config) error {
	if err := c.Validate(map[string]string{"unit.key": c.Unit.Key, "journal.wrap_key": c.Journal.WrapKey}); err != nil {
		return err
	}
	if err := c.checkKeys(); err != nil {
		return err
	}
	if err := c.checkUnit(); err != nil {
		return err
	}
	if _, err := c.policies(); err != nil {
		return err
	}
	if c.Accuracy <= 0 || c.Accuracy > time.Second || c.Accuracy%time.Microsecond != 0 || tsa.ClockLimit(c.Accuracy) <= 0 {
		return daemon.Keyf("accuracy", "%v: give more than 1µs, at most 1s (EN 319 421 TIS-7.7.2-03)", c.Accuracy)
	}
	return c.checkListeners()
}

// checkKeys judges the journal's settings and the spelling of every key URI.
func (c *config) checkKeys() error {
	if err := c.Journal.Validate("journal"); err != nil {
		return err
	}
	for _, key := range []struct{ name, uri string }{
		{"unit.key", c.Unit.Key}, {"journal.wrap_key", c.Journal.WrapKey}, {"journal.checkpoint_key", c.Journal.CheckpointKey},
	} {
		if err := hsm.CheckURI(key.uri, c.Assurance == daemon.AssuranceQualified); err != nil {
			return daemon.Keyf(key.name, "%w", err)
		}
	}
	return nil
}

// checkUnit judges the unit's certificates as the daemon does when it starts, but for the key that has to fit them.
func (c *config) checkUnit() error {
	u, err := c.unit()
	if err != nil {
		return err
	}
	if err := u.SignatureScheme.Check(u.Certificate.PublicKey); err != nil {
		return daemon.Keyf("unit.signature_scheme", "%w", err)
	}
	profile, err := policy.Builtin(unitProfile)
	if err != nil {
		return err
	}
	if err := tsa.CheckUnit(u, profile); errors.Is(err, tsa.ErrChain) {
		return daemon.Keyf("unit.chain", "%w", err)
	} else if err != nil {
		return daemon.Keyf("unit.certificate", "%w", err)
	}
	return nil
}

func (c *config) checkListeners() error {
	if err := c.HTTP.Validate("http"); err != nil {
		return err
	}
	switch {
	case c.HTTPS.Listen != "":
		if err := c.HTTPS.Validate("https", false); err != nil {
			return err
		}
		if c.HTTPS.ClientCA != "" {
			return daemon.Keyf("https.client_ca", "the public listener asks nobody for a certificate: leave it out")
		}
	case c.HTTPS != daemon.TLSListener{}:
		return daemon.Keyf("https.listen", "no address, but files for it: write where to listen, or leave https out")
	case c.Assurance == daemon.AssuranceQualified:
		return daemon.Keyf("https.listen", "no address: a qualified time-stamping authority serves HTTPS (CIR (EU) 2025/1929)")
	}
	return daemon.DistinctAddresses(map[string]string{
		"http.listen": c.HTTP.Listen, "https.listen": c.HTTPS.Listen, "admin.listen": c.Admin.Listen, "metrics.listen": c.Metrics.Listen,
	})
}

// unit reads the certificates of the time-stamping unit; its Key is still to be set.
func (c *config) unit() (tsa.Unit, error) {
	own, err := daemon.ReadCertificate(c.Unit.Certificate)
	if err != nil {
		return tsa.Unit{}, daemon.Keyf("unit.certificate", "%w", err)
	}
	chain, err := daemon.ReadCertificates(c.Unit.Chain)
	if err != nil {
		return tsa.Unit{}, daemon.Keyf("unit.chain", "%w", err)
	}
	if chain[0].Equal(own) { // a chain file may begin with the certificate itself
		chain = chain[1:]
	}
	return tsa.Unit{Certificate: own, SignatureScheme: c.Unit.SignatureScheme, Chain: chain}, nil
}

// policies are policy and, after it, policies.
func (c *config) policies() ([]asn1.ObjectIdentifier, error) {
	first, err := der.ParseOID(c.Policy)
	if err != nil {
		return nil, daemon.Keyf("policy", "%w", err)
	}
	list := []asn1.ObjectIdentifier{first}
	for i, text := range c.Policies {
		id, err := der.ParseOID(text)
		if err != nil {
			return nil, daemon.Keyf(fmt.Sprintf("policies[%d]", i), "%w", err)
		}
		list = append(list, id)
	}
	return list, nil
}
