package main

import (
	"crypto/x509"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// aging tells of what will have to be done because the algorithm of the key, or the certification of a device that holds keys, ends.
func (c *config) aging(e daemon.Env, tokens *hsm.Tokens, certificate *x509.Certificate) (daemon.Health, error) {
	devices, err := tokens.Devices(c.Responder.Key)
	if err != nil {
		return nil, err
	}
	key := algorithms.Of(certificate.PublicKey, c.Responder.SignatureScheme)
	return daemon.Warnings(e.Registry, "zegel_ocsp_key_warnings", func(at time.Time) []string {
		warnings := hsm.CertificationWarnings(devices, at, c.Assurance == daemon.AssuranceQualified)
		return append(warnings, algorithms.InForce().Aging(key, algorithms.OCSP, at)...)
	}), nil
}
