// Package daemon is what the daemons share: flags, logs, listeners, TLS, metrics registry, health, shutdown.
//
// A daemon is a Daemon value handed to Main. Main reads the one configuration file, has it checked, and runs the
// daemon until SIGTERM or SIGINT; Serve opens its listeners, serves, and drains. Nothing here knows of keys in
// tokens, journals or certificates that the services issue.
package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/internal/locked"
	"github.com/zegel-tsp/zegel/internal/strictyaml"
)

// Env is what Main hands to a daemon.
type Env struct {
	Log          *slog.Logger         // JSON lines on stderr
	Registry     *prometheus.Registry // holds the Go runtime's and the process's metrics already
	Daemon       string               // the binary's name: zegel-ca
	Version      string               // as Version returns it
	ConfigDigest [32]byte             // SHA-256 of the config file as it was read, for journal.DaemonStarted
}

// Daemon describes one binary.
type Daemon[C any] struct {
	Name, Short string                                       // the binary's name, and one line on what it does
	Check       func(*C) error                               // everything that can be judged without touching a key; also run before Run
	Run         func(ctx context.Context, e Env, c *C) error // until ctx ends
}

// Main is a daemon's whole main: --config FILE, --check, --version; strict config; JSON log on stderr; SIGTERM and SIGINT end ctx.
// The process dumps no core. Exit status: 0 done, 1 failed, 2 wrong usage or configuration. It is the one place that calls os.Exit.
func Main[C any](d Daemon[C]) {
	if err := locked.Process(); err != nil {
		Exit(d.Name, err)
	}
	collectSeldom(os.Getenv)
	os.Exit(runDaemon(context.Background(), d, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit ends the process of a command that is no daemon: it prints err, if any, as "name: err" on stderr and exits with
// ExitStatus(err).
func Exit(name string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	}
	os.Exit(ExitStatus(err))
}

// UntilSignal returns a context that ends at SIGTERM or SIGINT. After the first, a second one kills as usual.
func UntilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func runDaemon[C any](ctx context.Context, d Daemon[C], args []string, stdout, stderr io.Writer) int {
	ctx, stop := UntilSignal(ctx)
	defer stop()
	cmd := command(d)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", d.Name, err)
	}
	return ExitStatus(err)
}

func command[C any](d Daemon[C]) *cobra.Command {
	var config string
	var check bool
	cmd := &cobra.Command{
		Use:   d.Name + " --config FILE",
		Short: d.Short,
		Long:  d.Short + ".\n\nIt runs until SIGTERM or SIGINT, then finishes what it has begun and ends.\nExit status: 0 done, 1 failed, 2 wrong usage or configuration.",
		Example: fmt.Sprintf("  %[1]s --config /etc/zegel/%[2]s.yaml           run\n  %[1]s --config /etc/zegel/%[2]s.yaml --check   say whether the configuration is good; touches no key",
			d.Name, strings.TrimPrefix(d.Name, "zegel-")),
		Version:       Version() + " " + runtime.Version(),
		SilenceErrors: true, SilenceUsage: true,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return Usagef("no configuration: say --config FILE")
			}
			c, digest, err := LoadConfig(config, d.Check)
			if err != nil {
				return err
			}
			if check {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: good\n", config)
				return nil
			}
			return run(cmd.Context(), d, c, digest, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration `FILE` (YAML)")
	cmd.Flags().BoolVar(&check, "check", false, "only check the configuration")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usagef("%w", err) })
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	cmd.CompletionOptions.DisableDefaultCmd = true
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("%q is not a flag: see --help", args[0])
	}
	return nil
}

// run is a daemon's life after its configuration was found good.
func run[C any](ctx context.Context, d Daemon[C], c *C, digest [32]byte, stderr io.Writer) error {
	log := slog.New(slog.NewJSONHandler(stderr, nil)).With("daemon", d.Name)
	e := Env{Log: log, Registry: NewRegistry(d.Name), Daemon: d.Name, Version: Version(), ConfigDigest: digest}
	log.Info("starting", "version", e.Version, "config_sha256", fmt.Sprintf("%x", digest))
	if err := d.Run(ctx, e, c); err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return err
	}
	log.Info("stopped")
	return nil
}

// NewRegistry makes a registry with the metrics that every daemon has: Go runtime, process, zegel_build_info.
func NewRegistry(daemon string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "zegel_build_info", Help: "Always 1; the labels say which software this is.",
		ConstLabels: prometheus.Labels{"daemon": daemon, "version": Version(), "go": runtime.Version()},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// LoadConfig reads the YAML file at path into a new C, strictly, and has it checked (check may be nil). It also
// returns the SHA-256 of the file. Every error is one of usage (exit status 2); where the fault is in the text,
// and where check returned a KeyError, it starts "path:line: ".
func LoadConfig[C any](path string, check func(*C) error) (*C, [32]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, [32]byte{}, Usagef("read configuration: %w", err)
	}
	c := new(C)
	if err := strictyaml.Decode(path, text, c); err != nil {
		return nil, [32]byte{}, Usagef("%w", err)
	}
	if check != nil {
		if err := check(c); err != nil {
			return nil, [32]byte{}, Usagef("%w", Locate(path, text, err))
		}
	}
	return c, sha256.Sum256(text), nil
}

// Locate puts "name:line: " before err, the line being that of the key that a KeyError in err names, "name: " where there is none.
func Locate(name string, text []byte, err error) error {
	var k *KeyError
	if errors.As(err, &k) {
		return fmt.Errorf("%s:%d: %w", name, strictyaml.Line(text, k.Key), err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Version is the module version and VCS revision from the build info.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" {
		version = "(devel)"
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if revision := settings["vcs.revision"]; revision != "" && !strings.Contains(version, revision[:min(12, len(revision))]) {
		version += " " + revision[:min(12, len(revision))]
		if settings["vcs.modified"] == "true" {
			version += "+dirty"
		}
	}
	if failpoint.Enabled {
		version += "+failpoint" // in every log, metric and DaemonStarted: such a build is for tests alone
	}
	return version
}
