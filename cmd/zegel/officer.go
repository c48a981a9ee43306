package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/policy"
)

// desk reaches the admin listener of a daemon with the officer's certificate.
func (t *tool) desk(c *config, url string) (*desk.Client, error) {
	tlsConfig, err := c.CA.Config()
	if err != nil {
		return nil, &inputError{err}
	}
	client, err := desk.NewClient(url, tlsConfig)
	if err != nil {
		return nil, &inputError{err}
	}
	return client, nil
}

// during names what failed, unless the daemon has: its refusals say it themselves.
func during(err error, format string, args ...any) error {
	var refused *desk.Error
	if errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// withCA loads the configuration and hands the CA's desk to do.
func (t *tool) withCA(do func(*desk.Client) error) error {
	c, err := t.loadConfig()
	if err != nil {
		return err
	}
	client, err := t.desk(c, c.CA.URL)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(client)
}

// issueFlags are the flags of issue.
type issueFlags struct {
	profile, csr, subject, out string
	plan                       bool
}

func (t *tool) issueCommand() *cobra.Command {
	var f issueFlags
	c := &cobra.Command{
		Use:   "issue --profile NAME --csr FILE --subject FILE",
		Short: "Issue a certificate",
		Long: `issue asks the CA for a certificate: the key comes from the CSR (its subject is ignored),
the subject and the registration evidence from the subject file. The certificate is written
to --out, or to standard output.

With --plan nothing is recorded or signed: the CA shows what it would sign, or every rule
that the request breaks.`,
		Example: `  openssl ecparam -name prime256v1 -genkey -noout -out anna.key
  openssl req -new -key anna.key -subj / -out anna.csr
  zegel issue --profile qcp-n --csr anna.csr --subject anna.yaml --plan
  zegel issue --profile qcp-n --csr anna.csr --subject anna.yaml --out anna.pem`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return t.issue(c.Context(), f) },
	}
	c.Flags().StringVar(&f.profile, "profile", "", "profile `NAME`: see zegel profile list")
	c.Flags().StringVar(&f.csr, "csr", "", "PKCS#10 request, PEM or DER `FILE`")
	c.Flags().StringVar(&f.subject, "subject", "", "subject `FILE` (YAML); testdata/request has one for each profile")
	c.Flags().StringVar(&f.out, "out", "", "write the certificate to `FILE`, which must not exist")
	c.Flags().BoolVar(&f.plan, "plan", false, "show what would be signed; record and sign nothing")
	for _, name := range []string{"profile", "csr", "subject"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	_ = c.RegisterFlagCompletionFunc("profile", completeProfiles)
	return c
}

func (t *tool) issue(ctx context.Context, f issueFlags) error {
	request, err := f.request(ctx)
	if err != nil {
		return err
	}
	return t.withCA(func(ca *desk.Client) error {
		reply, err := ca.Issue(ctx, request)
		if err != nil {
			return during(err, "issue %s", f.profile)
		}
		if f.out != "" && reply.Cert != "" {
			if err := failpoint.Do(failpoint.WriteIssuedCertificate, func() error { return durable.CreateFile(f.out, []byte(reply.Cert), 0o644) }); err != nil {
				return fmt.Errorf("certificate %s is issued but was not written: %w: fetch it with zegel show %s --cert", reply.Serial, err, reply.Serial)
			}
		}
		return t.printIssued(reply, f.out)
	})
}

// request reads the files. What can be seen to be wrong here is refused before anybody is asked.
func (f issueFlags) request(ctx context.Context) (desk.IssueRequest, error) {
	var none desk.IssueRequest
	profile, err := policy.Builtin(f.profile)
	if err != nil {
		return none, &inputError{err}
	}
	if !profile.TakesSubject() {
		return none, badInput("issue %s: this profile is issued by zegel-ceremony only", f.profile)
	}
	csr, err := readInput(ctx, f.csr, desk.MaxBody)
	if err != nil {
		return none, badInput("read CSR: %w", err)
	}
	if bytes.HasPrefix(csr, []byte{0x30}) { // a SEQUENCE in DER: what goes to the CA is text
		csr = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	}
	subject, err := readInput(ctx, f.subject, desk.MaxBody)
	if err != nil {
		return none, badInput("read subject file: %w", err)
	}
	if f.out != "" {
		if _, err := os.Lstat(f.out); err == nil {
			return none, badInput("write certificate: %s exists: name another file with --out", f.out)
		}
		if err := writableFolder(f.out); err != nil {
			return none, badInput("write certificate: %w: name another file with --out", err)
		}
	}
	return desk.IssueRequest{Profile: f.profile, CSR: string(csr), Subject: string(subject), SubjectName: f.subject, Plan: f.plan}, nil
}

func (t *tool) printIssued(r desk.IssueReply, out string) error {
	if t.json {
		return t.printJSON(r)
	}
	what := map[string]string{desk.StatusPlanned: "would be issued (nothing was recorded or signed)", desk.StatusIssued: "issued"}[r.Status]
	t.note("%s %s: %s\n  subject   %s\n  validity  %s to %s", r.Profile, r.Serial, what, r.Subject, stamp(r.NotBefore), stamp(r.NotAfter))
	if r.Cert != "" && out == "" {
		_, err := fmt.Fprint(t.out, r.Cert)
		return err
	}
	return nil
}

func (t *tool) revokeCommand() *cobra.Command {
	var reason, note, invalidFrom, requestedAt string
	c := &cobra.Command{
		Use:   "revoke SERIAL --reason NAME",
		Short: "Revoke a certificate, for good",
		Long: `revoke makes a certificate revoked: at once in the journal, and before the command returns
on the published CRL; OCSP follows within seconds. It cannot be undone
(EN 319 411-1 REV-6.3.9-04).`,
		Example: `  zegel revoke 0123ab --reason keyCompromise --invalid-from 2026-03-01T08:00:00Z
  zegel revoke 01:23:AB --reason cessationOfOperation --note "contract ended"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r := desk.RevokeRequest{Reason: reason, Note: note}
			if invalidFrom != "" {
				at, err := time.Parse(time.RFC3339, invalidFrom)
				if err != nil {
					return badInput("read --invalid-from: want a time such as 2026-03-01T08:00:00Z: %w", err)
				}
				r.InvalidFrom = &at
			}
			if requestedAt != "" {
				at, err := time.Parse(time.RFC3339, requestedAt)
				if err != nil {
					return badInput("read --requested-at: want a time such as 2026-03-01T08:00:00Z: %w", err)
				}
				r.RequestedAt = &at
			}
			return t.revoke(c.Context(), args[0], r)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "CRLReason `NAME` of RFC 5280: unspecified keyCompromise affiliationChanged superseded cessationOfOperation privilegeWithdrawn")
	c.Flags().StringVar(&note, "note", "", "`TEXT` for the record, kept sealed in the journal")
	c.Flags().StringVar(&invalidFrom, "invalid-from", "", "`TIME` from which the key is thought compromised (invalidityDate, RFC 5280 §5.3.2)")
	c.Flags().StringVar(&requestedAt, "requested-at", "", "`TIME` at which the request came in, if not now: the 24 hours of EN 319 411-1 REV-6.2.4-03A run from it")
	_ = c.MarkFlagRequired("reason")
	_ = c.RegisterFlagCompletionFunc("reason", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn"},
			cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

func (t *tool) revoke(ctx context.Context, serial string, r desk.RevokeRequest) error {
	if err := checkSerial(serial); err != nil {
		return err
	}
	return t.withCA(func(ca *desk.Client) error {
		cert, err := ca.Revoke(ctx, serial, r)
		if err != nil {
			return during(err, "revoke %s", serial)
		}
		return t.printCertificate(cert)
	})
}

func (t *tool) showCommand() *cobra.Command {
	var pem bool
	c := &cobra.Command{
		Use: "show SERIAL", Short: "Show a certificate and its state",
		Example: "  zegel show 0123ab\n  zegel show 0123ab --cert > anna.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkSerial(args[0]); err != nil {
				return err
			}
			return t.withCA(func(ca *desk.Client) error {
				cert, err := ca.Certificate(c.Context(), args[0])
				if err != nil {
					return during(err, "show %s", args[0])
				}
				if pem {
					_, err = fmt.Fprint(t.out, cert.Cert)
					return err
				}
				return t.printCertificate(cert)
			})
		},
	}
	c.Flags().BoolVar(&pem, "cert", false, "print the certificate, PEM")
	return c
}

func (t *tool) printCertificate(c desk.Certificate) error {
	if t.json {
		return t.printJSON(c)
	}
	rows := [][]string{{"serial", c.Serial}, {"status", c.Status}, {"profile", c.Profile}, {"subject", c.Subject},
		{"validity", stamp(c.NotBefore) + " to " + stamp(c.NotAfter)}, {"sha256", c.SHA256}}
	if c.RevokedAt != nil {
		rows = append(rows, []string{"revoked", stamp(*c.RevokedAt)}, []string{"reason", c.Reason})
	}
	if c.InvalidFrom != nil {
		rows = append(rows, []string{"invalid from", stamp(*c.InvalidFrom)})
	}
	return t.table(rows)
}

func (t *tool) listCommand() *cobra.Command {
	var s desk.Search
	var before string
	c := &cobra.Command{
		Use: "list", Short: "List certificates", Args: cobra.NoArgs,
		Example: `  zegel list --status revoked
  zegel list --profile qcp-n-qscd --expires-before 2027-01-01 --json
  zegel list --subject "Doe"`,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Profile != "" {
				if _, err := policy.Builtin(s.Profile); err != nil {
					return &inputError{err}
				}
			}
			if before != "" {
				at, err := readDay(before)
				if err != nil {
					return err
				}
				s.ExpiresBefore = at
			}
			return t.list(c.Context(), s)
		},
	}
	c.Flags().StringVar(&s.Profile, "profile", "", "only of this profile `NAME`")
	c.Flags().StringVar(&s.Subject, "subject", "", "only subjects that contain `TEXT`")
	c.Flags().StringVar(&s.Status, "status", "", "only in this `STATE`: intended good revoked abandoned")
	c.Flags().StringVar(&before, "expires-before", "", "only those that end before `DATE` (2027-01-01 or RFC 3339)")
	_ = c.RegisterFlagCompletionFunc("profile", completeProfiles)
	return c
}

// readDay reads a day (its first instant, UTC) or an RFC 3339 time.
func readDay(text string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, badInput("read date %q: want 2027-01-01 or 2027-01-01T00:00:00Z", text)
	}
	return at, nil
}

func (t *tool) list(ctx context.Context, s desk.Search) error {
	return t.withCA(func(ca *desk.Client) error {
		list, err := ca.Certificates(ctx, s)
		if err != nil {
			return during(err, "list certificates")
		}
		if t.json {
			if list == nil {
				list = []desk.Certificate{} // an empty list, not null
			}
			return t.printJSON(list)
		}
		rows := [][]string{{"SERIAL", "STATUS", "PROFILE", "EXPIRES", "SUBJECT"}}
		for _, c := range list {
			rows = append(rows, []string{c.Serial, c.Status, c.Profile, c.NotAfter.Format(time.DateOnly), c.Subject})
		}
		return t.table(rows)
	})
}

func (t *tool) crlCommand() *cobra.Command {
	return &cobra.Command{
		Use: "crl", Short: "Publish a CRL now", Args: cobra.NoArgs, Example: "  zegel crl",
		Long: "crl has the CA issue and publish a CRL now. It does so by itself on time and after every\nrevocation (EN 319 411-1 CSS-6.3.9-05, -07).",
		RunE: func(c *cobra.Command, _ []string) error {
			return t.withCA(func(ca *desk.Client) error {
				reply, err := ca.IssueCRL(c.Context())
				if err != nil {
					return during(err, "publish CRL")
				}
				if t.json {
					return t.printJSON(reply)
				}
				return t.table([][]string{{"number", fmt.Sprint(reply.Number)}, {"this update", stamp(reply.ThisUpdate)},
					{"next update", stamp(reply.NextUpdate)}, {"entries", fmt.Sprint(reply.Entries)}, {"file", reply.File}})
			})
		},
	}
}

func (t *tool) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the three daemons are", Args: cobra.NoArgs, Example: "  zegel status\n  zegel status --json",
		Long: "status asks the CA, the OCSP responder and the TSA how they are: ready or why not, version,\nclock, warnings; with --json everything they say of themselves. Exit status 1 when one cannot be\nreached or is not ready.",
		RunE: func(c *cobra.Command, _ []string) error { return t.status(c.Context()) },
	}
}

func (t *tool) status(ctx context.Context) error {
	c, err := t.loadConfig()
	if err != nil {
		return err
	}
	list := []desk.Status{}
	well := true
	for _, d := range []struct{ name, url string }{{"zegel-ca", c.CA.URL}, {"zegel-ocsp", c.OCSP.Admin}, {"zegel-tsa", c.TSA.Admin}} {
		client, err := t.desk(c, d.url)
		if err != nil {
			return err
		}
		s, err := client.Status(ctx)
		client.Close()
		if err != nil {
			s = desk.Status{Daemon: d.name, Reason: err.Error()}
		}
		well = well && s.Ready
		list = append(list, s)
	}
	if err := t.printStatus(list); err != nil {
		return err
	}
	if !well {
		return errVerdict
	}
	return nil
}

func (t *tool) printStatus(list []desk.Status) error {
	if t.json {
		return t.printJSON(list)
	}
	rows := [][]string{{"DAEMON", "STATE", "CLOCK", "VERSION"}}
	for _, s := range list {
		state := "ready"
		if !s.Ready {
			state = "NOT READY"
		}
		rows = append(rows, []string{s.Daemon, state, s.Clock, s.Version})
	}
	if err := t.table(rows); err != nil {
		return err
	}
	for _, s := range list {
		if !s.Ready {
			t.note("%s is not ready: %s", s.Daemon, s.Reason)
		}
		tokens, _ := s.Facts["tokens"].([]any)
		for _, each := range tokens {
			if token, ok := each.(map[string]any); ok && token["state"] != hsm.StateInService {
				t.note("%s: token %q (serial %v): %v: %v", s.Daemon, token["token"], token["serial"], token["state"], token["reason"])
			}
		}
		if warnings, ok := s.Facts["warnings"].([]any); ok {
			for _, w := range warnings {
				t.note("%s warns: %v", s.Daemon, w)
			}
		}
	}
	return nil
}

// stamp writes a time for people: UTC, whole seconds.
func stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05Z") }
