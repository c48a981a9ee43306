// Command zegel-ocsp answers OCSP requests for one CA, from a verified replica of the CA's journal.
//
// Its configuration is the struct below; docs/ocsp.md is the page for operators.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/ocsp"
)

// clockLimit is the most the clock may be off: answers have whole seconds, and the responder
// allows the CA's clock as much again.
const clockLimit = 2 * time.Second

func main() {
	if status, helper := hsm.RunHelper(); helper {
		os.Exit(status)
	}
	daemon.Main(daemon.Daemon[config]{
		Name: "zegel-ocsp", Short: "OCSP responder: answers from a verified replica of the CA's journal",
		Check: check, Run: run,
	})
}

// run wires one responder and serves it until ctx ends.
func run(ctx context.Context, e daemon.Env, c *config) (err error) {
	f, err := c.load()
	if err != nil {
		return err
	}
	tokens := hsm.New(hsm.Config{ModuleEnv: c.ModuleEnv, Settings: hsm.Settings(c.Tokens.ForDaemon()), Log: e.Log, Registerer: e.Registry})
	defer func() { err = errors.Join(err, tokens.Close()) }()
	guard, err := activation.New(activation.Config{
		Env: e, Tokens: tokens, URIs: []string{c.Responder.Key}, Officers: c.Officers, Admin: c.Admin, Metrics: c.Metrics,
	})
	if err != nil {
		return err
	}
	if err := guard.Await(ctx); err != nil {
		return err
	}
	key, err := tokens.Key(c.Responder.Key)
	if err != nil {
		return err
	}
	if err := key.BelongsTo(f.certificate, c.Responder.Certificate); err != nil {
		return fmt.Errorf("responder.key: %w", err)
	}
	utc, err := clock.Parse(c.Clock, clockLimit)
	if err != nil {
		return err
	}
	replica, err := openReplica(e.Log, c, utc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, replica.Close()) }()
	responder, err := ocsp.New(ocsp.Config{
		Replica: replica, Clock: utc, Issuer: f.issuer, Certificate: f.certificate, Key: key, SignatureScheme: c.Responder.SignatureScheme,
		StatusLife: c.StatusLife, Registerer: e.Registry, Log: e.Log,
	})
	if err != nil {
		return err
	}
	aging, err := c.aging(e, tokens, f.certificate)
	if err != nil {
		return err
	}
	health := daemon.Together(guard.Health, responder.Health, tokens.Health, aging)
	admin := guard.Handler(daemon.StatusHandler(daemon.Status{Env: e, Officers: c.Officers, Health: health}))
	// Before the first leaf is written: a port in use changes nothing.
	listeners, err := daemon.Listen(ctx,
		daemon.Server{Name: "ocsp", Key: "listen", Address: c.Listen, Handler: responder},
		daemon.Server{Name: "admin", Address: c.Admin.Listen, TLS: f.admin, Handler: admin},
		daemon.Server{Name: "metrics", Address: c.Metrics.Listen, Handler: daemon.MetricsHandler(e.Registry, health)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, listeners.Close()) }()
	feed := &http.Client{Transport: &http.Transport{TLSClientConfig: f.feed, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := responder.Follow(ctx, c.Feed.URL, feed)
		var fork *journal.Fork
		if errors.As(err, &fork) {
			// No end of the process: it goes on answering internalError and says why on its health page.
			e.Log.Error("feed abandoned", "error", err, "checkpoint", string(fork.Checkpoint))
			return nil
		}
		return err
	})
	group.Go(func() error { return daemon.Warn(ctx, e.Log, health) })
	group.Go(func() error { return listeners.Serve(ctx, e.Log) })
	return group.Wait()
}

// openReplica opens the replica. In a folder that is empty, which somebody has to have made for that, it
// first makes one that knows nothing: the responder says tryLater until the feed has filled it. A
// folder that is missing is an error, because a lost replica is a lost memory of what was verified.
func openReplica(log *slog.Logger, c *config, utc clock.Clock) (*journal.Journal, error) {
	dir, vkey := c.Replica.Dir, c.Replica.JournalKey
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	open := func() (*journal.Journal, error) {
		return journal.OpenReplica(dir, func() time.Time {
			if t, _, err := utc.Now(); err == nil {
				return t
			}
			return time.Now() // the responder refuses by itself while the clock does
		})
	}
	replica, err := open()
	if errors.Is(err, os.ErrNotExist) {
		// A start that was interrupted here leaves a file that CreateReplica takes away; it refuses a folder with anything else in it.
		if err := journal.CreateReplica(dir, vkey); err != nil {
			return nil, fmt.Errorf("make replica: %w", err)
		}
		log.Warn("made a new replica in an empty folder", "dir", dir, "journal_key", vkey)
		replica, err = open()
	}
	if err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	if got := replica.VerifierKey(); got != vkey {
		return nil, errors.Join(fmt.Errorf("open replica %s: it follows the journal %s, replica.journal_key names %s: correct one of them or name a new folder", dir, got, vkey), replica.Close())
	}
	return replica, nil
}
