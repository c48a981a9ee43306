package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/policy"
)

func (t *tool) checkCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "check CERT [--profile NAME]", Short: "Judge a certificate by a profile's rules, clause by clause",
		Long: `check applies every rule of a profile, and zlint's ETSI and RFC lints, to a certificate (PEM or
DER, ours or anybody's). Without --profile it is judged by every built-in profile, and the one
that fits best is reported.

Exit status 3 when a rule is broken, one violation a line.`,
		Example: "  zegel check anna.pem\n  zegel check anna.pem --profile qcp-n-qscd --json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return t.check(args[0], name) },
	}
	c.Flags().StringVar(&name, "profile", "", "judge by this profile `NAME` only")
	_ = c.RegisterFlagCompletionFunc("profile", completeProfiles)
	return c
}

func (t *tool) check(path, name string) error {
	list, err := readCertificates(path)
	if err != nil {
		return err
	}
	if len(list) > 1 {
		return badInput("check %s: it holds %d certificates: name a file with one", path, len(list))
	}
	names := policy.Builtins()
	if name != "" {
		names = []string{name}
	}
	best, violations, err := judge(list[0].Raw, names)
	if err != nil {
		return err
	}
	if len(violations) > 0 {
		return &judged{path, best, violations}
	}
	if t.json {
		return t.printJSON(checked{OK: true, Profile: best, Violations: []desk.Violation{}})
	}
	_, err = fmt.Fprintf(t.out, "%s: no violation of profile %s\n", path, best)
	return err
}

// checked is the JSON of a certificate that breaks no rule.
type checked struct {
	OK         bool             `json:"ok"`
	Profile    string           `json:"profile"` // that it was judged by
	Violations []desk.Violation `json:"violations"`
}

// judged is a certificate that breaks rules of a profile: exit status 3, as for a request that does.
type judged struct {
	path, profile string
	violations    policy.Violations
}

func (j *judged) Error() string {
	return fmt.Sprintf("%s breaks rules of profile %s", j.path, j.profile)
}

func (j *judged) Unwrap() error { return j.violations }

// judge returns, of the profiles named, the one that the certificate breaks least, and what it breaks there.
func judge(certificate []byte, names []string) (best string, found policy.Violations, err error) {
	for _, name := range names {
		p, err := policy.Builtin(name)
		if err != nil {
			return "", nil, &inputError{err}
		}
		violations, err := violationsBy(p, certificate)
		if err != nil {
			return "", nil, err
		}
		if best == "" || len(violations) < len(found) {
			best, found = name, violations
		}
	}
	return best, found, nil
}

// violationsBy applies the profile's own rules and the lints; only violations are a verdict.
func violationsBy(p *policy.Profile, certificate []byte) (policy.Violations, error) {
	var all policy.Violations
	for _, err := range []error{p.Check(certificate), policy.Lint(certificate)} {
		var some policy.Violations
		if errors.As(err, &some) {
			all = append(all, some...)
		} else if err != nil {
			return nil, &inputError{err}
		}
	}
	return all, nil
}
