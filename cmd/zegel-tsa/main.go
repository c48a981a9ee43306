// Command zegel-tsa is the time-stamping authority: one time-stamping unit, its key, its clock and its journal.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/tsa"
)

func main() {
	if status, helper := hsm.RunHelper(); helper {
		os.Exit(status)
	}
	daemon.Main(daemon.Daemon[config]{
		Name:  "zegel-tsa",
		Short: "Time-stamping authority: answers RFC 3161 requests while its clock can be vouched for",
		Check: check,
		Run:   run,
	})
}

// run wires one Authority and serves it until ctx ends.
func run(ctx context.Context, e daemon.Env, c *config) (err error) {
	tokens := hsm.New(hsm.Config{ModuleEnv: c.ModuleEnv, Settings: hsm.Settings(c.Tokens.ForDaemon()), Log: e.Log, Registerer: e.Registry})
	defer func() { err = errors.Join(err, tokens.Close()) }()
	guard, err := activation.New(activation.Config{
		Env: e, Tokens: tokens, URIs: []string{c.Unit.Key, c.Journal.WrapKey, c.Journal.CheckpointKey}, Officers: c.Officers, Admin: c.Admin, Metrics: c.Metrics,
	})
	if err != nil {
		return err
	}
	if err := guard.Await(ctx); err != nil {
		return err
	}
	named, err := clock.Parse(c.Clock, tsa.ClockLimit(c.Accuracy))
	if err != nil {
		return err
	}
	// One judgement of the clock for tokens and journal: what a token may not say is not to stand in the journal's times.
	clk := tsa.Steady(named, c.Accuracy)
	j, err := openJournal(tokens, c.Journal, clk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()

	authority, err := newAuthority(e, c, tokens, tsa.Config{Journal: j, Clock: clk, ClockUnverified: clock.IsUnverified(named)})
	if err != nil {
		return err
	}
	aging, err := c.aging(e, tokens)
	if err != nil {
		return err
	}
	s := service{authority, j, guard, daemon.Together(guard.Health, authority.Health, tokens.Health, aging)}
	servers, err := c.servers(e, s)
	if err != nil {
		return err
	}
	// Whoever must not start, because a port is taken too, leaves no trace in the journal.
	listeners, err := daemon.Listen(ctx, servers...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, listeners.Close()) }()
	_, err = j.Append(ctx, journal.DaemonStarted{
		Daemon: e.Daemon, Version: e.Version, ConfigDigest: e.ConfigDigest, ClockUnverified: c.Clock == clockUnverified,
	})
	if err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	if err := guard.RecordIn(ctx, j); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return authority.Run(ctx) })
	g.Go(func() error { return daemon.Warn(ctx, e.Log, s.health) })
	g.Go(func() error { return j.Run(ctx, checkpointEvery) })
	g.Go(func() error { return listeners.Serve(ctx, e.Log) })
	return g.Wait()
}

// openJournal opens the journal under the token's keys; clk stamps it. It is created by the ceremony, never here.
func openJournal(tokens *hsm.Tokens, c daemon.Journal, clk clock.Clock) (j *journal.Journal, err error) {
	wrap, err := tokens.WrappingKey(c.WrapKey)
	if err != nil {
		return nil, fmt.Errorf("journal.wrap_key: %w", err)
	}
	checkpoint, err := tokens.Key(c.CheckpointKey)
	if err != nil {
		return nil, fmt.Errorf("journal.checkpoint_key: %w", err)
	}
	j, err = journal.Open(c.Dir, journal.Options{
		Now:  clock.Recorded(clk, func() time.Time { return newest(j) }), // first asked when something is recorded
		Wrap: wrap.Wrap, Unwrap: wrap.Unwrap, CheckpointKey: checkpoint,
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

// newAuthority gives the Authority, of which a has journal and clock, its key and certificates.
func newAuthority(e daemon.Env, c *config, tokens *hsm.Tokens, a tsa.Config) (*tsa.Authority, error) {
	key, err := tokens.Key(c.Unit.Key)
	if err != nil {
		return nil, fmt.Errorf("unit.key: %w", err)
	}
	profile, err := policy.Builtin(unitProfile)
	if err != nil {
		return nil, err
	}
	unit, err := c.unit()
	if err != nil {
		return nil, err
	}
	if err := key.BelongsTo(unit.Certificate, c.Unit.Certificate); err != nil {
		return nil, fmt.Errorf("unit.key: %w", err)
	}
	unit.Key = key
	ids, err := c.policies()
	if err != nil {
		return nil, err
	}
	a.Unit, a.Profile, a.Policy, a.Policies = unit, profile, ids[0], ids[1:]
	a.Accuracy, a.Qualified, a.Registerer, a.Log = c.Accuracy, c.Qualified, e.Registry, e.Log
	return tsa.New(a)
}
