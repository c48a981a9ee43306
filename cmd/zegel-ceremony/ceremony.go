package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// ceremony is a plan being carried out. Each step fills in what the next ones need.
type ceremony struct {
	*plan
	progress io.Writer // what happens, for those who watch
	others   bool      // stage is another ceremony's, which began a moment before

	tokens    *hsm.Tokens
	devices   []hsm.TokenInfo // that hold the keys, each once
	keys      serviceKeys
	entered   []pinEntry // PINs that people entered
	generated []string   // URIs, without PIN, of the keys that exist now because of this ceremony

	officers     []desk.Officer // as the configs list them; the certificate comes late
	holder       journal.Actor  // who the journals say held the ceremony
	report       []byte         // the key report
	reportDigest [32]byte       // SHA-256 of report

	caJournal, tsaJournal *journal.Journal

	root, issuing, ocsp, tsu *x509.Certificate
	rootCA, issuingCA        *ca.Issuer
	feedClient               string // SHA-256 of the certificate with which the OCSP responder fetches the feed
}

// step is one phase of the ceremony; the name completes "ceremony stopped at: ".
type step struct {
	name string
	do   func(context.Context) error
}

// steps are the ceremony in its order. All files are made under c.stage, so that the output folder is whole or not there.
func (c *ceremony) steps() []step {
	return []step{
		{"make the unfinished folder", c.makeStage},
		{"name the officers", c.nameOfficers},
		{"look at the tokens", c.checkTokens},
		{"enter PINs", c.enterPINs},
		// From here on there are keys on tokens that a second attempt must not meet.
		{"generate keys", c.generateKeys},
		// The journals exist and their first entry says what was made by whom: nothing is signed before.
		{"create journals", c.createJournals},
		{"record the key report", c.recordReport},
		{"issue the root", c.issueRoot},
		{"publish the root's CRL", c.publishRootCRL},
		{"issue the issuing CA", c.issueIssuing},
		{"publish the issuing CA's CRL", c.publishIssuingCRL},
		{"issue the OCSP responder", c.issueOCSP},
		{"issue the time-stamping unit", c.issueTSU},
		// Outside the qualified hierarchy, and not in the journals.
		{"issue TLS and officers' certificates", c.issueManagement},
		{"write configurations", c.writeConfigs},
		{"verify what was made", c.verify},
		{"close journals", func(context.Context) error { return c.closeJournals() }},
		// All is durable under the stage's name; one rename makes it the provider.
		{"put everything in place", func(context.Context) error {
			return failpoint.Do(failpoint.PutCeremonyInPlace, func() error { return durable.Rename(c.stage, c.Output) })
		}},
	}
}

// run holds the ceremony. Facts go to stdout, progress to stderr.
func (p *plan) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	c := &ceremony{plan: p, progress: stderr, tokens: hsm.New(p.tokens)}
	defer func() { err = errors.Join(err, c.tokens.Close()) }()
	for _, s := range c.steps() {
		fmt.Fprintf(stderr, "%s: %s\n", program, s.name)
		err := ctx.Err()
		if err == nil {
			err = s.do(ctx)
		}
		if err != nil {
			return c.stopped(s.name, err)
		}
	}
	fmt.Fprintln(stdout, c.Output)
	fmt.Fprintf(stderr, "%s: done. Next: let the participants sign %s, keep root.pem where nobody can change it, and start the daemons with their configurations in %s\n",
		program, filepath.Join(c.Output, "key-report.json"), c.Output)
	return nil
}

// failedFile is where a ceremony that stopped leaves what it has to say, in the unfinished folder.
const failedFile = "FAILED.txt"

// stopped says what a ceremony that failed has left, and what to do. It also leaves that in the unfinished folder.
func (c *ceremony) stopped(step string, cause error) error {
	cause = errors.Join(cause, c.closeJournals())
	var left strings.Builder
	fmt.Fprintf(&left, "ceremony stopped at: %s: %v\n", step, cause)
	if c.others {
		fmt.Fprintf(&left, "another ceremony for the same output is at work in %s: nothing was done, and that folder was not touched", c.stage)
		return &stopError{left.String(), cause}
	}
	if c.inPlace() {
		fmt.Fprintf(&left, "nothing is missing: %s is whole and in place, but the disk reported an error when its name was written\n"+
			"look after the disk, and whether the folder keeps its name when the machine has been restarted: if it is called %s again, rename it", c.Output, c.stage)
		return &stopError{left.String(), cause}
	}
	if len(c.generated) == 0 {
		left.WriteString("no key was generated\n")
	} else {
		fmt.Fprintf(&left, "%d keys were generated and still exist:\n", len(c.generated))
		for _, uri := range c.generated {
			fmt.Fprintf(&left, "  %s\n", uri)
		}
		left.WriteString("use none of them: destroy them under dual control, or name others in the script\n")
	}
	if _, err := os.Stat(c.stage); err == nil {
		fmt.Fprintf(&left, "what was made so far is in %s: keep it as a record, under another name; %s was not touched\n", c.stage, c.Output)
		if err := failpoint.Do(failpoint.WriteCeremonyFailure, func() error { return durable.CreateFile(c.path(failedFile), []byte(left.String()), 0o600) }); err != nil {
			cause = errors.Join(cause, err)
		}
	}
	left.WriteString("then run the ceremony again from its beginning")
	return &stopError{strings.TrimSuffix(left.String(), "\n"), cause}
}

// inPlace reports whether the last step, one rename, was taken, whatever it returned.
func (c *ceremony) inPlace() bool {
	_, err := os.Stat(c.stage)
	_, there := os.Stat(filepath.Join(c.Output, "key-report.json"))
	return errors.Is(err, fs.ErrNotExist) && there == nil
}

// stopError carries the cause beside the long text.
type stopError struct {
	text  string
	cause error
}

func (s *stopError) Error() string { return s.text }
func (s *stopError) Unwrap() error { return s.cause }

func (c *ceremony) makeStage(context.Context) error {
	if err := durable.MkdirAll(filepath.Dir(c.stage), 0o755); err != nil {
		return err
	}
	// Mkdir, not MkdirAll: of two ceremonies for one output one must lose here.
	if err := failpoint.Do(failpoint.MakeCeremonyFolder, func() error { return os.Mkdir(c.stage, 0o755) }); err != nil {
		c.others = errors.Is(err, fs.ErrExist)
		return err
	}
	for _, sub := range []string{"publish"} {
		if err := durable.MkdirAll(c.path(sub), 0o755); err != nil {
			return err
		}
	}
	for _, sub := range []string{"ca", "ocsp", "tsa", "tls", "officers"} {
		if err := durable.MkdirAll(c.path(sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// write makes a file of what is to be the output.
func (c *ceremony) write(name string, data []byte, perm os.FileMode) error {
	return failpoint.Do(failpoint.WriteCeremonyFile, func() error { return durable.CreateFile(c.path(name), data, perm) })
}

// path is a file or folder while it is being made; final is where it will be.
func (c *ceremony) path(name string) string  { return filepath.Join(c.stage, name) }
func (c *ceremony) final(name string) string { return filepath.Join(c.Output, name) }

// nameOfficers gives each officer the opaque id that stands for the person in the journals.
func (c *ceremony) nameOfficers(context.Context) error {
	for _, o := range c.Officers {
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		c.officers = append(c.officers, desk.Officer{ID: hex.EncodeToString(id[:]), Name: o.Name, Roles: o.Roles})
	}
	holder, err := c.officers[c.securityOfficer()].Actor()
	c.holder = holder
	return err
}

// now stamps journal entries with the clock that the certificates use. Where it refuses, the issuer refuses as well,
// and what is stamped then is only a report of failure.
func (c *ceremony) now() time.Time {
	t, _, err := c.clock.Now()
	if err != nil {
		return time.Now()
	}
	return t
}

func (c *ceremony) closeJournals() error {
	var failed error
	for _, j := range []**journal.Journal{&c.caJournal, &c.tsaJournal} {
		if *j != nil {
			failed = errors.Join(failed, (*j).Close())
			*j = nil
		}
	}
	return failed
}
