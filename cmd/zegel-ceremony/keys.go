package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// serviceKeys are the keys of the provider, all made by this ceremony.
type serviceKeys struct {
	root, issuing, ocsp, tsu, management *hsm.Key
	caCheckpoint, tsaCheckpoint          *hsm.Key
	caWrap, tsaWrap                      *hsm.WrappingKey
	inventory                            []inventoryLine
}

// inventoryLine is one key of the key report (EN 319 411-1 GEN-6.5.1-13A).
type inventoryLine struct {
	Key     string `json:"key"`     // its name in the script
	Purpose string `json:"purpose"` // its one work
	Backup  bool   `json:"for_backup"`
	hsm.KeyInfo
}

func (c *ceremony) generateKeys(ctx context.Context) error {
	k := &c.keys
	for _, pair := range []struct {
		into    **hsm.Key
		name    string
		key     keyURI
		purpose string
	}{
		{&k.root, "root", c.Keys.Root, "signs the issuing CA's certificate and the root's CRLs"},
		{&k.issuing, "issuing", c.Keys.Issuing, "signs subscribers' certificates and CRLs"},
		{&k.ocsp, "ocsp", c.Keys.OCSP, "signs OCSP responses"},
		{&k.tsu, "tsu", c.Keys.TSU, "signs time-stamp tokens"},
		{&k.management, "management", c.Keys.Management, "signs TLS and officers' certificates, outside the qualified hierarchy"},
		{&k.caCheckpoint, "ca_checkpoint", keyURI{URI: c.Keys.CACheckpoint.URI, Algorithm: string(hsm.Ed25519)}, "signs checkpoints of the CA's journal"},
		{&k.tsaCheckpoint, "tsa_checkpoint", keyURI{URI: c.Keys.TSACheckpoint.URI, Algorithm: string(hsm.Ed25519)}, "signs checkpoints of the TSA's journal"},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		generate := c.tokens.Generate
		if pair.key.Backup {
			generate = c.tokens.GenerateForBackup
		}
		key, err := generate(pair.key.URI, hsm.KeyAlgorithm(pair.key.Algorithm))
		if err != nil {
			return c.notMade(pair.name, pair.key.URI, err)
		}
		*pair.into = key
		if err := c.enter(inventoryLine{Key: pair.name, Purpose: pair.purpose, Backup: pair.key.Backup}, pair.key.URI, key.Info); err != nil {
			return err
		}
	}
	for _, wrap := range []struct {
		into               **hsm.WrappingKey
		name, uri, purpose string
	}{
		{&k.caWrap, "ca_wrap", c.Keys.CAWrap.URI, "wraps the key of the sealed bodies of the CA's journal"},
		{&k.tsaWrap, "tsa_wrap", c.Keys.TSAWrap.URI, "wraps the key of the sealed bodies of the TSA's journal"},
	} {
		key, err := c.tokens.GenerateWrappingKey(wrap.uri)
		if err != nil {
			return c.notMade(wrap.name, wrap.uri, err)
		}
		*wrap.into = key
		if err := c.enter(inventoryLine{Key: wrap.name, Purpose: wrap.purpose}, wrap.uri, key.Info); err != nil {
			return err
		}
	}
	return nil
}

// checkTokens looks at the tokens before a key is made, without logging in: that they can sign as the script wants, and that each
// holds what it should.
func (c *ceremony) checkTokens(context.Context) error {
	if err := c.checkSchemes(c.tokens.Token); err != nil {
		return err
	}
	if err := c.checkSeparation(); err != nil {
		return err
	}
	return c.checkCertifications()
}

// checkCertifications notes the devices for the report, and refuses, for a qualified provider, one whose certification nobody has entered or that
// has ended. It does not log in.
func (c *ceremony) checkCertifications() (err error) {
	var uris []string
	for _, use := range c.tokenUses() {
		uris = append(uris, use.uri)
	}
	if c.devices, err = c.tokens.Devices(uris...); err != nil {
		return err
	}
	now, required := c.now(), c.Assurance == daemon.AssuranceQualified
	for _, d := range c.devices {
		warning := d.CertificationWarning(now, required)
		if required && !d.Software && !d.CertifiedAt(now) {
			return daemon.Keyf("tokens.certifications", "%s", warning)
		}
		if warning != "" {
			c.warn(warning)
		}
	}
	return nil
}

// warn tells those who watch what will have to be done, and puts it into the report.
func (c *ceremony) warn(warning string) {
	fmt.Fprintf(c.progress, "%s: warning: %s\n", program, warning)
	c.warnings = append(c.warnings, warning)
}

// checkSchemes refuses a token without RSASSA-PSS for a key that is to sign with it. token tells of the token of a key.
func (s *script) checkSchemes(token func(uri string) (hsm.TokenInfo, error)) error {
	pairs := s.Keys.pairs()
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		if pairs[key].SignatureScheme != der.PSS {
			continue
		}
		t, err := token(pairs[key].URI)
		if err != nil {
			return err
		}
		if !t.PSS {
			return daemon.Keyf(key+".signature_scheme", "token %q does not sign by RSASSA-PSS (CKM_RSA_PKCS_PSS): write %s, or make the key on another token", t.Label, der.PKCS1v15)
		}
	}
	return nil
}

// checkSeparation refuses, for a qualified provider, root or issuing CA on a token that somebody else logs in to: by label and
// serial number, whatever the script calls it. It does not log in.
func (c *ceremony) checkSeparation() error {
	if c.Assurance != daemon.AssuranceQualified {
		return nil
	}
	return c.separateTokens(func(use tokenUse) (string, error) {
		t, err := c.tokens.Token(use.uri)
		if err != nil || t.Software {
			return "", err
		}
		return fmt.Sprintf("%q %q %q %q", t.Label, t.SerialNumber, t.Manufacturer, t.Model), nil
	})
}

// notMade is the error of a key that could not be made; one that exists all the same goes on the list of what does.
func (c *ceremony) notMade(name, uri string, err error) error {
	if errors.Is(err, hsm.ErrMade) {
		c.exists(name, uri)
	}
	return fmt.Errorf("key %s: %w", name, err)
}

// exists puts a key on the list of what a ceremony that stops has left.
func (c *ceremony) exists(name, uri string) {
	label := name
	if u, err := hsm.ParseURI(uri); err == nil { // the script's URIs were read before
		label += ": " + u.Name()
		if u.Dir != "" {
			label += " in " + u.Dir
		}
	}
	c.generated = append(c.generated, label)
}

// enter puts a key that has just been made on the list of what exists, and into the inventory. A key of a qualified
// provider that its token would give away stops the ceremony (EN 319 411-1 GEN-6.5.2-04): one that is not for backup must never have been
// extractable; of one that is, package hsm has seen that only a trusted key can wrap it.
func (c *ceremony) enter(line inventoryLine, uri string, info func() (hsm.KeyInfo, error)) error {
	c.exists(line.Key, uri)
	i, err := info()
	if err != nil {
		return fmt.Errorf("key %s: %w", line.Key, err)
	}
	if c.Assurance == daemon.AssuranceQualified && !i.Software && !(i.Sensitive && (i.NeverExtractable || line.Backup) && i.GeneratedOnToken) {
		return fmt.Errorf("key %s: the token reports sensitive %v, never extractable %v, generated on token %v: all three are needed (EN 319 411-1 GEN-6.5.2-04)",
			line.Key, i.Sensitive, i.NeverExtractable, i.GeneratedOnToken)
	}
	line.KeyInfo = i
	c.keys.inventory = append(c.keys.inventory, line)
	return nil
}

// keyReport is the ceremony report of EN 319 411-1 GEN-6.5.1-13 and -13A. Its SHA-256 is in the first entry of both journals,
// and it itself, sealed, in the body of these entries.
type keyReport struct {
	Title        string            `json:"title"`
	Date         time.Time         `json:"date"`
	Clock        clock.State       `json:"clock"`
	Assurance    string            `json:"assurance"`
	Procedure    string            `json:"procedure"`
	Location     string            `json:"location"`
	Script       scriptFacts       `json:"script"`
	Software     softwareFacts     `json:"software"`
	Provider     map[string]string `json:"provider"`
	Participants []participant     `json:"participants"`
	Officers     []officerFacts    `json:"officers"`
	Keys         []inventoryLine   `json:"keys"`
	Tokens       []hsm.TokenInfo   `json:"tokens"`       // the devices that hold them, and what they say of their settings
	DualControl  string            `json:"dual_control"` // what the script says of it
	PINs         []pinEntry        `json:"pins"`         // those that people entered
	Warnings     []string          `json:"warnings"`     // what will have to be done
	Journals     map[string]string `json:"journals"`     // C2SP verifier keys
	Evidence     []string          `json:"evidence"`
	Signatures   []string          `json:"signatures"` // who signs this report, on paper or detached
}

type scriptFacts struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
}

type softwareFacts struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Go      string `json:"go"`
}

type officerFacts struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
}

// writeReport makes the key report. The journals exist, empty; nothing has been signed.
func (c *ceremony) writeReport() error {
	r := keyReport{
		Title: "Key ceremony report (EN 319 411-1 GEN-6.5.1-13, GEN-6.5.1-13A)",
		Date:  c.now().UTC().Truncate(time.Second), Clock: clock.StateOf(c.clock), Assurance: c.Assurance,
		Procedure: c.Ceremony.Procedure, Location: c.Ceremony.Location,
		Script:   scriptFacts{c.file, fmt.Sprintf("%x", c.plan.digest)},
		Software: softwareFacts{program, daemon.Version(), runtime.Version()},
		Provider: map[string]string{
			"country": c.Provider.Country, "organization": c.Provider.Organization, "organization_identifier": c.Provider.OrganizationIdentifier,
			"root": c.Provider.Root, "issuing": c.Provider.Issuing, "ocsp": c.Provider.OCSP, "tsu": c.Provider.TSU,
		},
		Participants: append([]participant{}, c.Ceremony.Participants...), Keys: c.keys.inventory, Tokens: c.devices,
		DualControl: c.Ceremony.DualControl, PINs: append([]pinEntry{}, c.entered...),
		Warnings: append([]string{}, c.warnings...),
		Journals: map[string]string{"ca": c.caJournal.VerifierKey(), "tsa": c.tsaJournal.VerifierKey()},
		Evidence: []string{
			"the SHA-256 of this file is in entry 0 of the journals ca and tsa",
			"every certificate and CRL of the ceremony is in the journal ca, with the intent recorded before its signature",
		},
		Signatures: []string{"security officer", "independent witness (EN 319 411-1 GEN-6.5.1-14)"},
	}
	for _, o := range c.officers {
		r.Officers = append(r.Officers, officerFacts{o.ID, o.Name, o.Roles})
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	c.report = append(text, '\n')
	c.reportDigest = sha256.Sum256(c.report)
	return c.write("key-report.json", c.report, 0o600)
}

// createJournals makes and opens the journals of CA and TSA. Only the ceremony does that: a daemon whose journal is
// missing refuses to start, so that no history can begin twice.
func (c *ceremony) createJournals(context.Context) error {
	for _, j := range []struct {
		into       **journal.Journal
		dir        string
		origin     string
		wrap       *hsm.WrappingKey
		checkpoint *hsm.Key
	}{
		{&c.caJournal, "ca/journal", c.Journals.CA, c.keys.caWrap, c.keys.caCheckpoint},
		{&c.tsaJournal, "tsa/journal", c.Journals.TSA, c.keys.tsaWrap, c.keys.tsaCheckpoint},
	} {
		options := journal.Options{Now: c.now, Wrap: j.wrap.Wrap, Unwrap: j.wrap.Unwrap, CheckpointKey: j.checkpoint}
		if err := journal.Create(c.path(j.dir), j.origin, options); err != nil {
			return err
		}
		opened, err := journal.Open(c.path(j.dir), options)
		if err != nil {
			return err
		}
		*j.into = opened
	}
	return nil
}

// recordReport makes the key report the first thing that both journals hold.
func (c *ceremony) recordReport(ctx context.Context) error {
	if err := c.writeReport(); err != nil {
		return err
	}
	for _, j := range []*journal.Journal{c.caJournal, c.tsaJournal} {
		if _, err := j.Append(ctx, journal.CeremonyHeld{Actor: c.holder, ReportDigest: c.reportDigest, Report: c.report}); err != nil {
			return err
		}
	}
	return c.writeJSON("journal-keys.json", map[string]string{"ca": c.caJournal.VerifierKey(), "tsa": c.tsaJournal.VerifierKey()})
}

func (c *ceremony) writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return c.write(name, append(text, '\n'), 0o644)
}
