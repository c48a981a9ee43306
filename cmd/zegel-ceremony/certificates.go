package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// evidence ties the certificates of the ceremony to its report.
func (c *ceremony) evidence() ([]byte, error) {
	return json.Marshal(map[string]string{"ceremony_report_sha256": fmt.Sprintf("%x", c.reportDigest)})
}

func (c *ceremony) issueRoot(ctx context.Context) error {
	order := c.rootOrder()
	profile, err := policy.Builtin(order.profile)
	if err != nil {
		return err
	}
	evidence, err := c.evidence()
	if err != nil {
		return err
	}
	der, err := ca.IssueRoot(ctx, ca.RootConfig{
		Journal: c.caJournal, Clock: c.clock, Key: c.keys.root, SignatureScheme: order.scheme, Instance: rootInstance, Actor: c.holder, Profile: profile,
		Subject: c.subject(order.name), NotAfter: notAfter(c.now(), order.days), Evidence: evidence, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if c.root, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	c.rootCA, err = c.issuer(ca.Config{
		Key: c.keys.root, SignatureScheme: c.Keys.Root.SignatureScheme, Certificate: c.root, Instance: rootInstance, URLs: c.rootURLs(),
		CRLFile: "root.crl", CRLEvery: c.CRL.RootLife / 2, CRLLife: c.CRL.RootLife,
	})
	if err != nil {
		return err
	}
	return c.writeCertificates(map[string][]*x509.Certificate{"root.pem": {c.root}}, "publish/root.cer", c.root)
}

// issuer fills in what both CAs have in common. It signs nothing before publish has made it ready.
func (c *ceremony) issuer(config ca.Config) (*ca.Issuer, error) {
	config.Journal, config.Clock = c.caJournal, c.clock
	config.PublishDir, config.Log = c.path("publish"), slog.New(slog.DiscardHandler)
	return ca.New(config)
}

// publish makes issuer ready, for which Recover issues its first CRL, and returns that CRL as it lies in publish/.
func (c *ceremony) publish(ctx context.Context, issuer *ca.Issuer, file string) ([]byte, error) {
	if err := issuer.Recover(ctx); err != nil {
		return nil, err
	}
	if _, owed := issuer.Health(); owed != nil { // Recover does not insist on a CRL; this does, or says why there is none
		again, err := issuer.IssueCRL(ctx)
		return again.DER, err
	}
	return os.ReadFile(c.path("publish/" + file))
}

// publishRootCRL also puts the CRL beside root.pem, for those who verify by file.
func (c *ceremony) publishRootCRL(ctx context.Context) error {
	crl, err := c.publish(ctx, c.rootCA, "root.crl")
	if err != nil {
		return err
	}
	return c.write("root.crl", crl, 0o644)
}

func (c *ceremony) issueIssuing(ctx context.Context) error {
	var err error
	if c.issuing, err = c.issue(ctx, c.rootCA, c.issuingOrder(), c.keys.issuing); err != nil {
		return err
	}
	c.issuingCA, err = c.issuer(ca.Config{
		Key: c.keys.issuing, SignatureScheme: c.Keys.Issuing.SignatureScheme, Certificate: c.issuing, Instance: c.Instance, URLs: c.issuingURLs(),
		CRLFile: crlFile, CRLEvery: c.CRL.Every, CRLLife: c.CRL.Life,
	})
	if err != nil {
		return err
	}
	chain := []*x509.Certificate{c.issuing, c.root}
	return c.writeCertificates(map[string][]*x509.Certificate{"issuing.pem": {c.issuing}, "chain.pem": chain},
		"publish/issuing.cer", c.issuing)
}

func (c *ceremony) publishIssuingCRL(ctx context.Context) error {
	_, err := c.publish(ctx, c.issuingCA, crlFile)
	return err
}

func (c *ceremony) issueOCSP(ctx context.Context) (err error) {
	if c.ocsp, err = c.issue(ctx, c.issuingCA, c.ocspOrder(), c.keys.ocsp); err != nil {
		return err
	}
	return c.writeCertificates(map[string][]*x509.Certificate{"ocsp.pem": {c.ocsp}}, "", nil)
}

func (c *ceremony) issueTSU(ctx context.Context) (err error) {
	if c.tsu, err = c.issue(ctx, c.issuingCA, c.tsuOrder(), c.keys.tsu); err != nil {
		return err
	}
	// The TSU's certificate is in its chain, for tokens that carry none (certReq FALSE, RFC 3161 §2.4.1).
	return c.writeCertificates(map[string][]*x509.Certificate{"tsu.pem": {c.tsu}, "tsa-chain.pem": {c.tsu, c.issuing, c.root}}, "", nil)
}

// issue has issuer certify key.
func (c *ceremony) issue(ctx context.Context, issuer *ca.Issuer, order certificateOrder, key *hsm.Key) (*x509.Certificate, error) {
	profile, err := policy.Builtin(order.profile)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	evidence, err := c.evidence()
	if err != nil {
		return nil, err
	}
	issued, err := issuer.Issue(ctx, ca.Order{
		Actor: c.holder, Profile: profile, Subject: c.subject(order.name), PublicKey: spki,
		NotAfter: notAfter(c.now(), order.days), Evidence: evidence,
	})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(issued.Certificate)
}

// writeCertificates writes PEM files by name, and, if asked, one certificate in DER.
func (c *ceremony) writeCertificates(files map[string][]*x509.Certificate, derName string, certificate *x509.Certificate) error {
	for name, list := range files {
		var text []byte
		for _, cert := range list {
			text = append(text, certificatePEM(cert.Raw)...)
		}
		if err := c.write(name, text, 0o644); err != nil {
			return err
		}
	}
	if derName == "" {
		return nil
	}
	return c.write(derName, certificate.Raw, 0o644)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// verify looks at the result as a relying party and an auditor would, before anything is handed over.
func (c *ceremony) verify(ctx context.Context) error {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.root)
	intermediates.AddCert(c.issuing)
	for _, leaf := range []struct {
		cert  *x509.Certificate
		usage x509.ExtKeyUsage
	}{{c.ocsp, x509.ExtKeyUsageOCSPSigning}, {c.tsu, x509.ExtKeyUsageTimeStamping}} {
		_, err := leaf.cert.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: c.now(), KeyUsages: []x509.ExtKeyUsage{leaf.usage},
		})
		if err != nil {
			return fmt.Errorf("verify %s: %w", leaf.cert.Subject.CommonName, err)
		}
	}
	for name, issuer := range map[string]*x509.Certificate{"root.crl": c.root, crlFile: c.issuing} {
		if err := verifyCRL(c.path("publish/"+name), issuer); err != nil {
			return err
		}
	}
	return c.verifyJournals(ctx)
}

func verifyCRL(path string, issuer *x509.Certificate) error {
	der, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	return nil
}

// verifyJournals has both journals re-derive everything they say.
func (c *ceremony) verifyJournals(ctx context.Context) error {
	for _, j := range []*journal.Journal{c.caJournal, c.tsaJournal} {
		report, err := j.Verify(ctx)
		if err != nil {
			return fmt.Errorf("verify journal %s: %w", j.Origin(), err)
		}
		if !report.OK {
			return fmt.Errorf("verify journal %s: %d faults, the first in entry %d: %s", j.Origin(), len(report.Faults), report.Faults[0].Entry, report.Faults[0].Fault)
		}
	}
	return nil
}
