package hsm

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// TokenHealth is what Health tells of one token. It names neither PIN nor path.
type TokenHealth struct {
	Token   string `json:"token"`            // its label
	Serial  string `json:"serial"`           //
	State   string `json:"state"`            // one of the States
	Reason  string `json:"reason,omitempty"` // why it is not in service
	Open    int    `json:"sessions_open"`    // of the pool
	Busy    int    `json:"sessions_busy"`
	Allowed int    `json:"sessions_allowed"` // how many there may be
	Waiting int    `json:"calls_waiting"`    // for a session
}

// States of a token, as Health tells them.
const (
	StateInService    = "in service"
	StateOutOfService = "out of service" // could not be repaired; tried again within a second
	StateDistrusted   = "distrusted"     // ErrDistrusted
	StatePINRefused   = "PIN refused"    // ErrPINRefused
	StateDeactivated  = "deactivated"    // ErrDeactivated
)

// GroupHealth is what Health tells of a key group.
type GroupHealth struct {
	Key     string         `json:"key"`
	Members []MemberHealth `json:"members"`
}

// MemberHealth is what Health tells of one member of a key group.
type MemberHealth struct {
	Key    string `json:"key"`              // its URI's name
	Signs  bool   `json:"signs"`            // signatures are asked of it
	Reason string `json:"reason,omitempty"` // why they are not
}

// Health tells of every token that the process uses, by the fact "tokens", a []TokenHealth in the order of their labels, and of key groups, by
// the fact "key_groups", a []GroupHealth, with one of "warnings" for each member that does not sign. The error says which key cannot sign: because
// its token is out of service or gave a wrong answer once, or because no member of its group signs. It asks no token anything, so that it answers
// while one hangs; a token that nobody calls is looked at after KeepAlive.
func (t *Tokens) Health() (facts map[string]any, err error) {
	all := []TokenHealth{}
	for _, k := range t.watch.all() {
		h, trouble := k.health()
		all = append(all, h)
		if k.needed.Load() {
			err = cmp.Or(err, trouble)
		}
	}
	slices.SortFunc(all, func(a, b TokenHealth) int {
		return cmp.Or(cmp.Compare(a.Token, b.Token), cmp.Compare(a.Serial, b.Serial))
	})
	facts = map[string]any{"tokens": all}
	soft, groups := t.watch.keys()
	for _, k := range soft {
		if k.needed.Load() {
			err = cmp.Or(err, k.trust.check())
		}
	}
	var warnings []string
	var list []GroupHealth
	for _, g := range groups {
		h, warn, trouble := g.health()
		list, warnings, err = append(list, h), append(warnings, warn...), cmp.Or(err, trouble)
	}
	if list != nil {
		facts["key_groups"], facts["warnings"] = list, warnings
	}
	return facts, err
}

func (g *group) health() (h GroupHealth, warnings []string, err error) {
	h = GroupHealth{Key: g.name}
	some := false
	for _, m := range g.members {
		o := m.breaker.now.Load()
		one := MemberHealth{Key: m.uri.Name(), Signs: o == nil}
		if o != nil {
			one.Reason = o.cause.Error()
			warnings = append(warnings, fmt.Sprintf("a key has one token less: %s does not sign: %v", m.where(), o.cause))
		}
		some = some || one.Signs
		h.Members = append(h.Members, one)
	}
	if !some {
		err = fmt.Errorf("no token of a key group signs: %s: %s", g.name, h.Members[0].Reason)
	}
	return h, warnings, err
}

// watch is what the process can be told of its tokens without asking them: nothing here waits for a module.
type watch struct {
	log     *slog.Logger
	seconds *prometheus.HistogramVec // of signatures, by token

	mu     sync.Mutex
	tokens []*token
	soft   []*softKey // those that are trusted no more
	groups []*group

	failovers atomic.Int64 // signatures that a second token was asked for
}

func newWatch(log *slog.Logger) *watch { return &watch{log: log, seconds: newSeconds()} }

// printable is text as metrics and JSON take it, whatever a token says that it is called.
func printable(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func (w *watch) failedOver() { w.failovers.Add(1) }

func (w *watch) add(t *token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens = append(w.tokens, t)
}

func (w *watch) remove(t *token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens = slices.DeleteFunc(w.tokens, func(other *token) bool { return other == t })
}

func (w *watch) addSoft(k *softKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.soft, k) {
		w.soft = append(w.soft, k)
	}
}

func (w *watch) all() []*token {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tokens)
}

func (w *watch) addGroup(g *group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.groups = append(w.groups, g)
}

func (w *watch) keys() ([]*softKey, []*group) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.soft), slices.Clone(w.groups)
}

func (t *token) health() (TokenHealth, error) {
	h := TokenHealth{Token: printable(t.label), Serial: printable(unpad(t.info.SerialNumber)), State: StateInService}
	h.Open, h.Busy, h.Allowed = t.pool.figures()
	h.Waiting = int(t.pool.waiting.Load())
	if err := t.trust.check(); err != nil {
		h.State = StateDistrusted
		if l := t.trust.lost.Load(); l != nil {
			h.Reason = l.why().Error()
		}
		return h, err
	}
	if refused := t.refused.Load(); refused != nil {
		h.State, h.Reason = StatePINRefused, refused.err.Error()
		return h, fmt.Errorf("%s: %w", t.name(), refused.err)
	}
	if t.module.pins.shut() {
		h.State, h.Reason = StateDeactivated, ErrDeactivated.Error()
		return h, fmt.Errorf("%s: %w", t.name(), ErrDeactivated)
	}
	if o := t.breaker.now.Load(); o != nil {
		h.State, h.Reason = StateOutOfService, fmt.Sprint(o.cause)
		return h, fmt.Errorf("%s is out of service: %w", t.name(), o.cause)
	}
	return h, nil
}

// figures are how many sessions are open, how many of them are in use, and how many there may be.
func (p *pool) figures() (opened, busy, allowed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened, p.opened - len(p.idle), cap(p.busy)
}
