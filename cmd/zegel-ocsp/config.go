package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/ocsp"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// config is ocsp.yaml. docs/reference.md is made of these comments.
type config struct {
	daemon.Common `yaml:",inline"` // officers may ask for /v1/status, whatever their roles

	// The copy of the CA's journal that answers are read from.
	Replica struct {
		// The replica's folder, 0700, as the ceremony made it. In an empty folder the daemon makes a new replica and
		// fills it from the feed; one that is missing is an error. Required.
		Dir string `yaml:"dir"`
		// The C2SP vkey of the CA's journal, origin+hash+key, from the ceremony's journal-keys.json: every checkpoint is
		// verified with it. Required.
		JournalKey string `yaml:"journal_key"`
	} `yaml:"replica"`

	// Where the replica is followed from, over mutual TLS.
	Feed struct {
		// The CA's feed, https://host:port/feed. Required.
		URL              string `yaml:"url"`
		daemon.TLSClient `yaml:",inline"`
	} `yaml:"feed"`

	// The CA whose certificates are answered for.
	Issuer struct {
		// PEM or DER file with its certificate, that one alone. Required.
		Certificate string `yaml:"certificate"`
	} `yaml:"issuer"`

	// The delegated responder (RFC 6960 §4.2.2.2).
	Responder struct {
		// PEM or DER file with its certificate, issued directly by that CA with the profile ocsp-responder: OCSPSigning
		// alone, id-pkix-ocsp-nocheck. Required.
		Certificate string `yaml:"certificate"`
		// URI of its key. softtoken: only under assurance: test. Required.
		Key string `yaml:"key"`
		// What an RSA key signs answers with: pkcs1v15 (RSASSA-PKCS1-v1_5) or pss (RSASSA-PSS), both with
		// SHA-256 (RFC 8017 §8, TS 119 312 table 6). An EC key has none. Default pkcs1v15.
		SignatureScheme der.Scheme `yaml:"signature_scheme"`
	} `yaml:"responder"`

	// How long an answer holds, nextUpdate - thisUpdate, counted from the CA's last checkpoint: 1s to 24h, so that with the
	// CA away no revocation hides longer than EN 319 411-1 REV-6.2.4-03A allows. Default 12h.
	StatusLife time.Duration `yaml:"status_life"`

	// The public address, host:port, plain HTTP: answers are signed. OCSP is all that is served there, at the root. Required.
	Listen string `yaml:"listen"`
}

// files is what the configuration's files hold.
type files struct {
	issuer, certificate *x509.Certificate
	feed, admin         *tls.Config
}

// check judges all that can be judged without touching a key or opening the replica.
func check(c *config) error {
	if err := c.Validate(map[string]string{"responder.key": c.Responder.Key}); err != nil {
		return err
	}
	if err := hsm.CheckURI(c.Responder.Key, c.Assurance == daemon.AssuranceQualified); err != nil {
		return daemon.Keyf("responder.key", "%w", err)
	}
	if err := activation.Check(map[string]string{"responder.key": c.Responder.Key}); err != nil {
		return err
	}
	if err := (daemon.Listener{Listen: c.Listen}).Validate(""); err != nil {
		return daemon.Keyf("listen", "%w", errors.Unwrap(err))
	}
	if err := daemon.DistinctAddresses(map[string]string{"listen": c.Listen, "admin.listen": c.Admin.Listen, "metrics.listen": c.Metrics.Listen}); err != nil {
		return err
	}
	if err := ocsp.CheckStatusLife(c.StatusLife); err != nil {
		return daemon.Keyf("status_life", "%w", err)
	}
	if err := c.checkReplica(); err != nil {
		return err
	}
	u, err := url.Parse(c.Feed.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return daemon.Keyf("feed.url", "%q is no https:// URL of the CA's feed", c.Feed.URL)
	}
	_, err = c.load()
	return err
}

// checkReplica judges the replica's folder and its journal's key.
func (c *config) checkReplica() error {
	if err := daemon.FirstMissing(map[string]string{"replica.dir": c.Replica.Dir, "replica.journal_key": c.Replica.JournalKey}); err != nil {
		return err
	}
	if err := journal.CheckVerifierKey(c.Replica.JournalKey); err != nil {
		return daemon.Keyf("replica.journal_key", "%w: copy it from the ceremony's journal-keys.json", err)
	}
	info, err := os.Stat(c.Replica.Dir)
	if err != nil {
		return daemon.Keyf("replica.dir", "%w: zegel-ceremony makes the replica; to fill a new one from the feed make an empty folder", daemon.Missing{Err: err})
	}
	if !info.IsDir() {
		return daemon.Keyf("replica.dir", "%s is not a folder", c.Replica.Dir)
	}
	return nil
}

// load reads the files.
func (c *config) load() (f files, err error) {
	if f.issuer, err = daemon.ReadCertificate(c.Issuer.Certificate); err != nil {
		return f, daemon.Keyf("issuer.certificate", "%w", err)
	}
	if f.certificate, err = daemon.ReadCertificate(c.Responder.Certificate); err != nil {
		return f, daemon.Keyf("responder.certificate", "%w", err)
	}
	if err = ocsp.CheckCertificate(f.certificate, f.issuer); err != nil {
		return f, daemon.Keyf("responder.certificate", "%w", err)
	}
	if err = c.Responder.SignatureScheme.Check(f.certificate.PublicKey); err != nil {
		return f, daemon.Keyf("responder.signature_scheme", "%w", err)
	}
	if _, err = algorithms.InForce().Check(algorithms.Of(f.certificate.PublicKey, c.Responder.SignatureScheme), algorithms.OCSP, time.Now()); err != nil {
		return f, daemon.Keyf("responder.certificate", "%w", err)
	}
	if f.feed, err = c.Feed.Config(); err != nil {
		return f, daemon.Keyf("feed", "%w", err)
	}
	if f.admin, err = c.Admin.TLSConfig(); err != nil {
		return f, daemon.Keyf("admin", "%w", err)
	}
	return f, nil
}
