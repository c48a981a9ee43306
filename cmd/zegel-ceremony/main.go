// Command zegel-ceremony makes keys, CA certificates, root CRL and the first journal entry of a provider, from one script file.
//
//	zegel-ceremony run SCRIPT.yaml --check    judge the script and rehearse it with throw-away keys; touches nothing
//	zegel-ceremony run SCRIPT.yaml            hold the ceremony
//
// It is the only program that creates journals, and it overwrites nothing. docs/ceremony.md explains the script, what
// comes out, and what to do when a ceremony stops half-way.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/locked"
	"github.com/zegel-tsp/zegel/policy"
)

const program = "zegel-ceremony"

func main() {
	if status, helper := hsm.RunHelper(); helper {
		os.Exit(status)
	}
	if err := locked.Process(); err != nil {
		daemon.Exit(program, err)
	}
	ctx, stop := daemon.UntilSignal(context.Background())
	err := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	daemon.Exit(program, err)
}

// execute is the program with its surroundings given.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	return withStatus(cmd.ExecuteContext(ctx))
}

// refusal is an error of policy: exit status 3.
type refusal struct{ error }

func (r refusal) Unwrap() error   { return r.error }
func (r refusal) ExitStatus() int { return daemon.StatusRefused }

// withStatus marks what policy refused.
func withStatus(err error) error {
	var v policy.Violations
	if errors.As(err, &v) {
		return refusal{err}
	}
	return err
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           program,
		Short:         "Make the keys, CA certificates and journals of a provider from one script",
		Version:       daemon.Version() + " " + runtime.Version(),
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return daemon.Usagef("%q is not a command: see --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return daemon.Usagef("%w", err) })
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.AddCommand(runCommand())
	return root
}

func runCommand() *cobra.Command {
	var check bool
	var shareFiles []string
	cmd := &cobra.Command{
		Use:   "run SCRIPT",
		Short: "Hold the ceremony that SCRIPT describes",
		Long: `Hold the ceremony that SCRIPT describes: generate all keys on their tokens, issue root, issuing CA, OCSP responder and
time-stamping unit, publish both CRLs, issue TLS and officers' certificates, create the journals, and write the
configuration files and the key report. The output folder must be missing or empty, and none of the keys may exist.

Exit status: 0 done, 1 failed, 2 the script is wrong or cannot be read, 3 refused by policy.`,
		Example: `  zegel-ceremony run provider.yaml --check   judge the script, rehearse every certificate; touches nothing
  zegel-ceremony run provider.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return daemon.Usagef("one script is needed: zegel-ceremony run SCRIPT")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := makePlan(args[0])
			if err != nil {
				return err
			}
			for _, w := range p.warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: %s\n", program, w)
			}
			if check {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: good\n", args[0])
				return nil
			}
			p.shareFiles = shareFiles
			return p.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringArrayVar(&shareFiles, "share", nil, "`FILE` of a share of a token's PIN, instead of asking for it; may be given several times")
	cmd.Flags().BoolVar(&check, "check", false, "only judge and rehearse the script; touches nothing")
	return cmd
}
