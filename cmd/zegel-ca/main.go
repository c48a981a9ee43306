// Command zegel-ca is the certification authority: it issues, revokes and publishes CRLs for officers
// who call its admin listener, and lets responders follow its journal.
//
// Everything it needs stands in one file, ca.yaml, whose keys are described at config's fields and in
// docs/ca.md. It refuses to sign what its journal cannot remember, and says in /health why.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zegel-tsp/zegel/ca"
	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

const (
	// clockLimit is the greatest error of the clock that certificates and CRLs, which have whole
	// seconds, bear. A time-stamping unit needs far less.
	clockLimit = time.Second
	// checkpointEvery keeps a checkpoint younger than the 5 seconds that responders allow.
	checkpointEvery = 2 * time.Second
)

func main() {
	if status, helper := hsm.RunHelper(); helper {
		os.Exit(status)
	}
	daemon.Main(daemon.Daemon[config]{
		Name:  "zegel-ca",
		Short: "Certification authority: issues, revokes, publishes CRLs, feeds the responders",
		Check: (*config).check,
		Run:   run,
	})
}

// run is the daemon's life: keys, journal, recovery, and only then anybody who asks.
func run(ctx context.Context, e daemon.Env, c *config) (err error) {
	tokens := hsm.New(hsm.Config{ModuleEnv: c.ModuleEnv, Settings: hsm.Settings(c.Tokens.ForDaemon()), Log: e.Log, Registerer: e.Registry})
	defer func() { err = errors.Join(err, tokens.Close()) }()
	guard, err := activation.New(activation.Config{
		Env: e, Tokens: tokens, URIs: []string{c.Issuer.Key, c.Journal.WrapKey, c.Journal.CheckpointKey}, Officers: c.Officers, Admin: c.Admin, Metrics: c.Metrics,
	})
	if err != nil {
		return err
	}
	if err := guard.Await(ctx); err != nil {
		return err
	}
	clk, err := clock.Parse(c.Clock, clockLimit)
	if err != nil {
		return err
	}
	j, err := openJournal(tokens, c, clk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()

	issuer, err := newIssuer(e, c, tokens, ca.Config{Journal: j, Clock: clk})
	if err != nil {
		return err
	}
	// Whoever must not start leaves no trace in the journal.
	if err := issuer.CheckStart(); err != nil {
		return err
	}
	aging, err := c.aging(e, tokens)
	if err != nil {
		return err
	}
	service := service{issuer: issuer, journal: j, clock: clk, guard: guard}
	service.health = daemon.Together(guard.Health, service.issuing, tokens.Health, aging)
	servers, err := servers(e, c, service)
	if err != nil {
		return err
	}
	listeners, err := daemon.Listen(ctx, servers...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, listeners.Close()) }()
	// From here on the journal says which software and settings made what follows.
	_, err = j.Append(ctx, journal.DaemonStarted{
		Daemon: "zegel-ca", Version: e.Version, ConfigDigest: e.ConfigDigest, ClockUnverified: clock.IsUnverified(clk),
	})
	if err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	if err := guard.RecordIn(ctx, j); err != nil {
		return err
	}
	if err := issuer.Recover(ctx); err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return listeners.Serve(ctx, e.Log) })
	work.Go(func() error { return daemon.Warn(ctx, e.Log, service.health) })
	work.Go(func() error { return checkpoints(ctx, e.Log, j) })
	work.Go(func() error { return issuer.Run(ctx) })
	return work.Wait()
}

// openJournal opens the journal with the two keys of it that the tokens hold. clk stamps it.
func openJournal(tokens *hsm.Tokens, c *config, clk clock.Clock) (j *journal.Journal, err error) {
	wrapping, err := tokens.WrappingKey(c.Journal.WrapKey)
	if err != nil {
		return nil, err
	}
	checkpointKey, err := tokens.Key(c.Journal.CheckpointKey)
	if err != nil {
		return nil, err
	}
	j, err = journal.Open(c.Journal.Dir, journal.Options{
		Now:  clock.Recorded(clk, func() time.Time { return newest(j) }), // first asked when something is recorded
		Wrap: wrapping.Wrap, Unwrap: wrapping.Unwrap, CheckpointKey: checkpointKey,
	})
	return j, err
}

// newest is the newest time in j: of its last entry, or of a checkpoint since.
func newest(j *journal.Journal) time.Time {
	t := j.LastTime()
	if tree, err := j.Verified(); err == nil && tree.Time.After(t) {
		return tree.Time
	}
	return t
}

// newIssuer gives the Issuer, of which i has journal and clock, its key, certificate and settings.
func newIssuer(e daemon.Env, c *config, tokens *hsm.Tokens, i ca.Config) (*ca.Issuer, error) {
	var err error
	if i.Certificate, err = daemon.ReadCertificate(c.Issuer.Certificate); err != nil {
		return nil, err
	}
	key, err := tokens.Key(c.Issuer.Key)
	if err != nil {
		return nil, err
	}
	if err := key.BelongsTo(i.Certificate, c.Issuer.Certificate); err != nil {
		return nil, fmt.Errorf("issuer.key: %w", err)
	}
	i.Key = key
	i.SignatureScheme = c.Issuer.SignatureScheme
	i.Instance, i.URLs = byte(c.Instance), c.policyURLs()
	i.PublishDir, i.CRLFile, i.CRLEvery, i.CRLLife = c.Publish.Dir, c.Publish.CRLFile, c.Publish.Every, c.Publish.Life
	i.Registerer, i.Log = e.Registry, e.Log
	return ca.New(i)
}

// checkpoints keeps the journal's checkpoint fresh. A journal that fails does not end the daemon: it
// refuses, tells why in /health, and goes on answering whoever only reads.
func checkpoints(ctx context.Context, log *slog.Logger, j *journal.Journal) error {
	if err := j.Run(ctx, checkpointEvery); err != nil && ctx.Err() == nil {
		log.Error("checkpoints have stopped: restart the daemon after the cause is gone", "error", err)
	}
	return nil
}

// service is what the listeners serve.
type service struct {
	issuer  *ca.Issuer
	journal *journal.Journal
	clock   clock.Clock
	guard   *activation.Guard
	health  daemon.Health // for /health and for officers
}

// issuing is the health of everything but the tokens.
func (s service) issuing() (map[string]any, error) {
	facts, err := s.issuer.Health()
	state := clock.StateOf(s.clock)
	facts["clock"] = state.Clock
	if state.Reason != "" {
		facts["clock_reason"] = state.Reason
	}
	return facts, err
}

func servers(e daemon.Env, c *config, s service) ([]daemon.Server, error) {
	api, err := ca.OfficerHandler(s.issuer, c.Officers)
	if err != nil {
		return nil, err
	}
	adminTLS, err := c.Admin.TLSConfig()
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	feedTLS, err := c.Feed.TLSConfig()
	if err != nil {
		return nil, fmt.Errorf("feed listener: %w", err)
	}
	admin := http.NewServeMux()
	admin.Handle("/", api)
	admin.Handle("/v1/status", daemon.StatusHandler(daemon.Status{Env: e, Officers: c.Officers, Health: s.health}))
	return []daemon.Server{
		{Name: "admin", Address: c.Admin.Listen, TLS: adminTLS, Handler: s.guard.Handler(admin)},
		{Name: "feed", Address: c.Feed.Listen, TLS: feedTLS, Handler: feedHandler(e.Log, c.Followers, s.journal.FeedHandler()), StreamWrites: true},
		{Name: "metrics", Address: c.Metrics.Listen, Handler: daemon.MetricsHandler(e.Registry, s.health)},
	}, nil
}

// feedHandler lets only the configured responders follow: a leaf names no person, but what a
// provider issues and when is its own business.
func feedHandler(log *slog.Logger, followers []string, feed http.Handler) http.Handler {
	known := make(map[string]bool, len(followers))
	for _, digest := range followers {
		known[strings.ToLower(digest)] = true
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/feed", func(w http.ResponseWriter, r *http.Request) {
		digest, err := desk.ClientDigest(r)
		if err == nil && !known[digest] {
			err = fmt.Errorf("the client certificate with SHA-256 %s is no follower's: enter it under followers", digest)
		}
		if err != nil {
			daemon.Deny(w, r, log, err)
			return
		}
		feed.ServeHTTP(w, r)
	})
	return mux
}
