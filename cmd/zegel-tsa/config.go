package main

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/policy/algorithms"
	"github.com/zegel-tsp/zegel/tsa"
)

// unitProfile is the built-in profile that the unit's certificate has to satisfy.
const unitProfile = "tsu"

// clockUnverified is the value of clock: for demos and tests.
const clockUnverified = "unverified"

// checkpointEvery is how often the journal gets a fresh checkpoint: more often than the 5 s after which an old one counts as replayed.
const checkpointEvery = 2 * time.Second

// config is tsa.yaml. docs/reference.md is made of these comments.
type config struct {
	daemon.Common `yaml:",inline"` // officers may ask for the status; system_auditor and security_officer may have the journal verified

	// The time-stamping unit (TSU) that this daemon is.
	Unit unit `yaml:"unit"`
	// OID of the time-stamp policy in tokens whose request names none; EN 319 421's own, BTSP, is 0.4.0.2023.1.1. Required.
	Policy string `yaml:"policy"`
	// OIDs of other policies that a request may name. Optional.
	Policies []string `yaml:"policies"`
	// The accuracy of genTime, in every token: whole microseconds, above 1µs, at most 1s (EN 319 421 TIS-7.7.2-03). Half of
	// it is for the clock's error, half for the time a signature takes. Required.
	Accuracy time.Duration `yaml:"accuracy"`
	// true puts esi4-qtstStatement-1 in every token (EN 319 422 §9.1). A unit makes qualified tokens or others, never both
	// (EN 319 421 TIS-8.2-01 to -03). Default false.
	Qualified bool `yaml:"qualified"`

	// This daemon's own journal, created by the ceremony.
	Journal daemon.Journal `yaml:"journal"`
	// The public address, plain HTTP (RFC 3161 §3.4).
	HTTP daemon.Listener `yaml:"http"`
	// The public address with TLS; left out as a whole, there is none. Under assurance: qualified it must be there (CIR (EU)
	// 2025/1929). client_ca must be left out: nobody is asked for a certificate. Optional.
	HTTPS daemon.TLSListener `yaml:"https"`
}

// unit is the time-stamping unit.
type unit struct {
	// PEM or DER file with the TSU's certificate, that one alone. It has to satisfy the built-in profile tsu. Required.
	Certificate string `yaml:"certificate"`
	// PEM file with the certificates above it in order, up to the root. It may begin with the TSU's own. Required.
	Chain string `yaml:"chain"`
	// URI of the TSU's key, which does nothing else (EN 319 421 TIS-7.7.1-08). softtoken: only under assurance: test. Required.
	Key string `yaml:"key"`
	// What an RSA key signs tokens with: pkcs1v15 (RSASSA-PKCS1-v1_5) or pss (RSASSA-PSS, which many
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
		return daemon.Keyf("accuracy", "%v: give whole microseconds, more than 1µs, at most 1s (EN 319 421 TIS-7.7.2-03)", c.Accuracy)
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
		if err := activation.Check(map[string]string{key.name: key.uri}); err != nil {
			return err
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
	if _, err := algorithms.InForce().Check(algorithms.Of(u.Certificate.PublicKey, u.SignatureScheme), algorithms.TSU, time.Now()); err != nil {
		return daemon.Keyf("unit.certificate", "%w", err)
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
