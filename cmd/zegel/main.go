// Command zegel is the officers' tool: it issues, revokes, searches, verifies and runs the demo.
//
// Results go to standard output, everything meant for people to standard error. With --json a
// command prints one JSON document. Exit status: 0 done; 1 failed; 2 wrong usage, configuration or
// unreadable input; 3 refused by policy, one violation a line with its clause.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/locked"
	"github.com/zegel-tsp/zegel/policy"
)

// Exit statuses of the contract.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
)

func main() {
	if status, helper := hsm.RunHelper(); helper {
		os.Exit(status)
	}
	if err := locked.Process(); err != nil {
		daemon.Exit("zegel", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the whole program but for the process: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	// A failure is JSON too, also one of the flags themselves.
	t := &tool{out: stdout, err: stderr, json: slices.Contains(args, "--json")}
	root := t.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	t.report(command.CommandPath(), err)
	return t.exitStatus(err)
}

// tool is one run of the program.
type tool struct {
	out, err   io.Writer
	configPath string
	json       bool
	running    bool // arguments and flags were accepted: what fails from here on is not a matter of usage
}

// errVerdict ends a run whose output already says what is wrong (a verification that found fault):
// nothing more is printed, the exit status is 1.
var errVerdict = errors.New("the verification found fault")

// inputError is about input or configuration that cannot be read: exit status 2.
type inputError struct{ err error }

func (e *inputError) Error() string { return e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

func badInput(format string, args ...any) error {
	return &inputError{fmt.Errorf(format, args...)}
}

func (t *tool) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "zegel",
		Short: "The officers' tool of a Zegel trust service provider",
		Long: `zegel issues, revokes and accounts for qualified certificates, asks for and verifies
timestamps, and runs a whole demonstration provider.

Exit status: 0 done; 1 failed; 2 wrong usage, configuration or unreadable input;
3 refused by policy, one violation a line with its clause.`,
		Example: `  zegel demo
  zegel issue --profile qcp-n --csr key.csr --subject anna.yaml --out anna.pem
  zegel revoke 015f2b --reason keyCompromise
  zegel timestamp contract.pdf && zegel verify contract.pdf.tsr --data contract.pdf`,
		Version:       daemon.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("zegel {{.Version}}\n")
	root.PersistentFlags().StringVar(&t.configPath, "config", "", "configuration `FILE` (default $ZEGEL_CONFIG, else "+defaultConfig+")")
	root.PersistentFlags().BoolVar(&t.json, "json", t.json, "print one JSON document")
	root.PersistentFlags().Lookup("json").DefValue = "false"
	root.AddCommand(
		t.issueCommand(), t.revokeCommand(), t.showCommand(), t.listCommand(), t.crlCommand(),
		t.journalCommand(), t.profileCommand(), t.tokenCommand(), t.checkCommand(),
		t.timestampCommand(), t.verifyCommand(), t.statusCommand(), t.demoCommand(),
	)
	t.noteRunning(root)
	return root
}

// noteRunning makes every command say when its arguments and flags were accepted: cobra checks required
// flags last, right before it runs the command.
func (t *tool) noteRunning(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			t.running = true
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		t.noteRunning(sub)
	}
}

// exitStatus is the contract's status for an error.
func (t *tool) exitStatus(err error) int {
	var input *inputError
	var violations policy.Violations
	switch {
	case errors.Is(err, errVerdict):
		return exitFailed
	case errors.As(err, &input) || !t.running:
		return exitUsage
	case errors.As(err, &violations):
		return exitRefused
	}
	return desk.ExitStatus(err)
}

// failure is the JSON of a failed command.
type failure struct {
	Error      string           `json:"error"`
	Violations []desk.Violation `json:"violations,omitempty"`
}

// report tells why a command failed: violations one a line, on standard error, or as JSON on standard output.
func (t *tool) report(command string, err error) {
	if errors.Is(err, errVerdict) {
		return
	}
	f := failure{Error: err.Error(), Violations: violationsOf(err)}
	if t.json {
		t.printJSON(f) //nolint:errcheck // the exit status says it already
		return
	}
	if len(f.Violations) == 0 {
		fmt.Fprintf(t.err, "zegel: %v\n", err)
		if !t.running {
			fmt.Fprintf(t.err, "zegel: see %s --help\n", command)
		}
		return
	}
	headline := "refused by policy"
	var verdict *judged
	if errors.As(err, &verdict) {
		headline = verdict.Error()
	}
	fmt.Fprintf(t.err, "zegel: %s:\n", headline)
	for _, v := range f.Violations {
		fmt.Fprintf(t.err, "  %s: %s\n", v.Clause, v.Detail)
	}
}

// violationsOf collects the violations of an error, ours or the CA's.
func violationsOf(err error) []desk.Violation {
	var list []desk.Violation
	var own policy.Violations
	if errors.As(err, &own) {
		for _, v := range own {
			list = append(list, desk.Violation{Clause: v.Clause, Detail: v.Detail})
		}
		return list
	}
	var remote *desk.Error
	if errors.As(err, &remote) {
		return remote.Violations
	}
	return nil
}

// printJSON writes one indented document to standard output.
func (t *tool) printJSON(v any) error {
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// note tells a person something on standard error; programs that asked for JSON get nothing.
func (t *tool) note(format string, args ...any) {
	if !t.json {
		fmt.Fprintf(t.err, format+"\n", args...)
	}
}
