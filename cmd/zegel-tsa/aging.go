package main

import (
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// aging tells of what will have to be done because the algorithm of the key, or the certification of a device that holds keys, ends.
func (c *config) aging(e daemon.Env, tokens *hsm.Tokens) (daemon.Health, error) {
	unit, err := c.unit()
	if err != nil {
		return nil, err
	}
	devices, err := tokens.Devices(c.Unit.Key, c.Journal.WrapKey, c.Journal.CheckpointKey)
	if err != nil {
		return nil, err
	}
	key := algorithms.Of(unit.Certificate.PublicKey, unit.SignatureScheme)
	return daemon.Warnings(e.Registry, "zegel_tsa_key_warnings", func(at time.Time) []string {
		warnings := hsm.CertificationWarnings(devices, at, c.Assurance == daemon.AssuranceQualified)
		return append(warnings, algorithms.InForce().Aging(key, algorithms.TSU, at)...)
	}), nil
}
