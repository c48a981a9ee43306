package hsm

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"sync"
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
}

// States of a token, as Health tells them.
const (
	StateInService    = "in service"
	StateOutOfService = "out of service" // could not be repaired; tried again within a second
	StateDistrusted   = "distrusted"     // ErrDistrusted
	StatePINRefused   = "PIN refused"    // not tried again
)

// Health tells of every token that the process uses, by the fact "tokens", a []TokenHealth in the order of their labels, and returns an error
// where keys cannot sign because their token, or the key itself, gave a wrong answer once. It asks no token anything, so that it answers
// while one hangs.
func (t *Tokens) Health() (facts map[string]any, err error) {
	var all []TokenHealth
	for _, k := range t.watch.all() {
		h, trouble := k.health()
		all = append(all, h)
		if trouble != nil && err == nil {
			err = trouble
		}
	}
	slices.SortFunc(all, func(a, b TokenHealth) int {
		return cmp.Or(cmp.Compare(a.Token, b.Token), cmp.Compare(a.Serial, b.Serial))
	})
	for _, k := range t.watch.softKeys() {
		if err == nil {
			err = k.trust.check()
		}
	}
	return map[string]any{"tokens": all}, err
}

// watch is what the process can be told of its tokens without asking them: nothing here waits for a module.
type watch struct {
	log *slog.Logger

	mu     sync.Mutex
	tokens []*token
	soft   []*softKey // those that are trusted no more
}

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

func (w *watch) softKeys() []*softKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.soft)
}

func (t *token) health() (TokenHealth, error) {
	h := TokenHealth{Token: t.label, Serial: unpad(t.info.SerialNumber), State: StateInService}
	h.Open, h.Busy, h.Allowed = t.pool.figures()
	if err := t.trust.check(); err != nil {
		h.State, h.Reason = StateDistrusted, err.Error()
		return h, err
	}
	if o := t.breaker.now.Load(); o != nil {
		h.State, h.Reason = StateOutOfService, fmt.Sprint(o.cause)
	}
	return h, nil
}

// figures are how many sessions are open, how many of them are in use, and how many there may be.
func (p *pool) figures() (opened, busy, allowed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened, p.opened - len(p.idle), cap(p.busy)
}
