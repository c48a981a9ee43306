package main

import (
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// aging tells of what will have to be done because the algorithm of the key, or the certification of a device that holds keys, ends.
func (c *config) aging(e daemon.Env, tokens *hsm.Tokens) (daemon.Health, error) {
	cert, err := daemon.ReadCertificate(c.Issuer.Certificate)
	if err != nil {
		return nil, err
	}
	devices, err := tokens.Devices(c.Issuer.Key, c.Journal.WrapKey, c.Journal.CheckpointKey)
	if err != nil {
		return nil, err
	}
	key := algorithms.Of(cert.PublicKey, c.Issuer.SignatureScheme)
	return daemon.Warnings(e.Registry, "zegel_ca_key_warnings", func(at time.Time) []string {
		warnings := hsm.CertificationWarnings(devices, at, c.Assurance == daemon.AssuranceQualified)
		return append(warnings, algorithms.InForce().Aging(key, algorithms.CA, at)...)
	}), nil
}
