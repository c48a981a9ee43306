// Package activation lets officers open the tokens of a daemon, and close them.
//
// A daemon whose PINs people enter begins with [Guard.Await]: its admin listener takes PINs and shares, and nothing else of it is
// up. Later, beside the daemon's own calls, the [Guard.Handler] lifts the refusal of a PIN, closes the tokens and opens them again.
// Shares of one PIN come from different officers (EN 319 411-1 GEN-6.5.4-01), known by their client certificates; each is held
// against the split before it counts, and forgotten after [ShareLife]. PINs and shares are in no log, answer or error.
package activation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// ShareLife is how long shares are kept, from the first one of a PIN on, for the officers who bring the others.
const ShareLife = 10 * time.Minute

// Config is what a Guard works with.
type Config struct {
	Env      daemon.Env
	Tokens   *hsm.Tokens
	URIs     []string // of every key that the daemon uses, empty ones apart
	Officers []desk.Officer
	Admin    daemon.TLSListener // for Await
	Metrics  daemon.Listener    // for Await: /health says what is waited for
}

// Guard has officers open and close the tokens of one daemon. Safe for concurrent use.
type Guard struct {
	config Config
	life   time.Duration          // ShareLife, but in tests
	sets   map[string]*shares.Set // by file
	acting sync.Mutex             // one activation or deactivation at a time

	mu        sync.Mutex
	collected map[string]*collection // by file; guarded by mu
	givers    map[string][]string    // by file: ids of the officers whose shares opened the PIN, until the activation is recorded; guarded by mu
	pending   []act                  // what is to be recorded once there is a journal; guarded by mu
	record    func(context.Context, act) error
	opened    chan struct{} // closed by the first activation that opened all
	open      bool          // opened is closed; guarded by mu
}

// New reads the files of shares that uris name, and touches no token.
func New(c Config) (*Guard, error) {
	c.URIs = slices.DeleteFunc(slices.Clone(c.URIs), func(uri string) bool { return uri == "" })
	g := &Guard{config: c, life: ShareLife, collected: make(map[string]*collection), givers: make(map[string][]string), opened: make(chan struct{})}
	var err error
	g.sets, err = readSets(c.URIs)
	return g, err
}

// Check reads the files of shares that the keys uris, by configuration key, name: what New would refuse. The error is a daemon.KeyError.
func Check(uris map[string]string) error {
	for key, uri := range uris {
		if _, err := readSets([]string{uri}); err != nil {
			return daemon.Keyf(key, "%w", err)
		}
	}
	return nil
}

func readSets(uris []string) (map[string]*shares.Set, error) {
	list, err := hsm.New(hsm.Config{}).Access(uris...)
	if err != nil {
		return nil, err
	}
	sets := make(map[string]*shares.Set)
	for _, a := range list {
		if a.Shares == "" || sets[a.Shares] != nil {
			continue
		}
		if sets[a.Shares], err = ReadSet(a.Shares); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// ReadSet reads the file that zegel token split wrote.
func ReadSet(path string) (*shares.Set, error) {
	stat, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the file of shares: %w: zegel token split writes it", err)
	}
	if !stat.Mode().IsRegular() || stat.Size() > shares.MaxFile {
		return nil, fmt.Errorf("read the file of shares: %s is not what zegel token split writes", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the file of shares: %w", err)
	}
	set, err := shares.ParseSet(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return set, nil
}

// Await returns once every PIN that people enter is there and the tokens have taken it; at once where there is none. Until then it serves
// the officers' activation on the admin listener and, on the metrics listener, that nothing is ready. It ends with ctx.
func (g *Guard) Await(ctx context.Context) error {
	waiting, err := g.trouble()
	if err != nil {
		return err
	}
	if waiting == nil {
		g.finish()
		return nil
	}
	adminTLS, err := g.config.Admin.TLSConfig()
	if err != nil {
		return fmt.Errorf("admin listener: %w", err)
	}
	calls := http.NewServeMux()
	calls.Handle("/v1/status", daemon.StatusHandler(daemon.Status{Env: g.config.Env, Officers: g.config.Officers, Health: g.idle}))
	calls.HandleFunc("/", g.later)
	admin := g.Handler(calls)
	listeners, err := daemon.Listen(ctx,
		daemon.Server{Name: "admin", Address: g.config.Admin.Listen, TLS: adminTLS, Handler: admin},
		daemon.Server{Name: "metrics", Address: g.config.Metrics.Listen, Handler: daemon.MetricsHandler(g.config.Env.Registry, g.idle)})
	if err != nil {
		return err
	}
	g.config.Env.Log.Warn("waiting for officers: nothing is served before", "reason", waiting.Error())
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-g.opened:
			stop()
		case <-serving.Done():
		}
	}()
	if err := listeners.Serve(serving, g.config.Env.Log); err != nil {
		return err
	}
	return ctx.Err()
}

// later answers the calls of a daemon that waits.
func (g *Guard) later(w http.ResponseWriter, r *http.Request) {
	if _, err := desk.OfficerOf(r, g.config.Officers); err != nil {
		daemon.Deny(w, r, g.config.Env.Log, err)
		return
	}
	_, err := g.idle()
	daemon.WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
}

func (g *Guard) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open {
		g.open = true
		close(g.opened)
	}
}

// active reports whether the tokens were opened, and not closed since.
func (g *Guard) active() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open && !g.config.Tokens.Deactivated()
}

// idle is the health of a daemon that waits.
func (g *Guard) idle() (map[string]any, error) {
	err := errors.New("waiting for activation")
	if waiting, failed := g.trouble(); failed != nil {
		err = failed
	} else if waiting != nil {
		err = waiting
	}
	return map[string]any{"clock": "unknown", "activation": g.words()}, err
}

// Health is the daemon's not to be ready while tokens are closed, or one of them has refused its PIN, and why. It asks no token.
func (g *Guard) Health() (map[string]any, error) {
	waiting, failed := g.trouble()
	if waiting == nil && failed == nil {
		return nil, nil
	}
	return map[string]any{"activation": g.words()}, errors.Join(failed, waiting)
}

// trouble is what an activation is needed for, nil where none is.
func (g *Guard) trouble() (waiting, failed error) {
	state, err := g.state()
	if err != nil {
		return nil, err
	}
	var words []string
	for _, t := range state.Tokens {
		if t.State != desk.TokenOpen {
			words = append(words, t.Detail)
		}
	}
	switch {
	case len(words) > 0:
		return fmt.Errorf("waiting for activation (zegel token activate %s): %s", strings.TrimPrefix(g.config.Env.Daemon, "zegel-"), strings.Join(words, "; ")), nil
	case g.config.Tokens.Deactivated():
		return hsm.ErrDeactivated, nil
	}
	return nil, nil
}

// words are the states of the tokens, for people.
func (g *Guard) words() []string {
	state, err := g.state()
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, t := range state.Tokens {
		line := fmt.Sprintf("token %s: %s", t.Label, t.State)
		if t.Detail != "" {
			line = t.Detail
		}
		list = append(list, line)
	}
	return list
}

// state tells how the tokens stand.
func (g *Guard) state() (desk.Activation, error) {
	list, err := g.config.Tokens.Access(g.config.URIs...)
	if err != nil {
		return desk.Activation{}, err
	}
	closed := g.config.Tokens.Deactivated()
	g.mu.Lock()
	defer g.mu.Unlock()
	state := desk.Activation{Active: g.open && !closed, Tokens: []desk.TokenActivation{}}
	for _, a := range list {
		t := desk.TokenActivation{Token: a.Token, Label: a.Label, Source: a.Source, State: desk.TokenOpen}
		set := g.sets[a.Shares]
		if set != nil {
			t.Threshold, t.Shares, t.Entered = set.Threshold, set.Shares, g.collected[a.Shares].numbers()
		}
		switch {
		case a.Wanted() && set != nil:
			t.State, t.Detail = desk.TokenWaiting, fmt.Sprintf("token %s wants %d of %d shares, each from another officer, and has %d", a.Label, set.Threshold, set.Shares, len(t.Entered))
		case a.Wanted():
			t.State, t.Detail = desk.TokenWaiting, fmt.Sprintf("token %s wants its PIN", a.Label)
		case a.Refused != nil:
			t.State, t.Detail = desk.TokenRefused, fmt.Sprintf("token %s: %v", a.Label, a.Refused)
		case closed:
			t.State, t.Detail = desk.TokenDeactivated, fmt.Sprintf("token %s is deactivated", a.Label)
		}
		if t.State == desk.TokenWaiting && a.Refused != nil {
			t.Detail += ": the last one was refused"
		}
		state.Active = state.Active && t.State == desk.TokenOpen
		state.Tokens = append(state.Tokens, t)
	}
	return state, nil
}
