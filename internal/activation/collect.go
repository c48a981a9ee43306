package activation

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/locked"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// collection are the shares of one PIN that have come in. Guarded by Guard.mu; nil is an empty one.
type collection struct {
	held  []heldShare
	timer *time.Timer // wipes them
}

// heldShare is the share that an officer brought, in locked memory.
type heldShare struct {
	number  int
	officer string // id
	text    *locked.Secret
}

func (c *collection) numbers() []int {
	if c == nil {
		return nil
	}
	var list []int
	for _, h := range c.held {
		list = append(list, h.number)
	}
	slices.Sort(list)
	return list
}

func (c *collection) wipe() {
	if c == nil {
		return
	}
	c.timer.Stop()
	for _, h := range c.held {
		h.text.Wipe()
	}
	c.held = nil
}

// refuse is an error with the HTTP status of its answer.
func refuse(status int, format string, args ...any) error {
	return &desk.Error{Status: status, Message: fmt.Errorf(format, args...).Error()}
}

// addShare takes one share. Where it is the last one that was needed, the PIN is entered and all of them are wiped. It wipes text.
func (g *Guard) addShare(officer desk.Officer, token string, text []byte) error {
	defer clear(text)
	share, err := shares.ParseShare(text)
	if err != nil {
		return refuse(http.StatusBadRequest, "%w", err)
	}
	defer share.Wipe()
	a, set, err := g.setOf(token, share)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.collected[a.Shares]
	if c == nil {
		c = &collection{}
		c.timer = time.AfterFunc(g.life, func() { g.forget(a.Shares, c) })
		g.collected[a.Shares] = c
	}
	if err := c.add(officer, share, text); err != nil {
		return err
	}
	g.config.Env.Log.Info("share of a PIN entered", "officer", strings.ToLower(officer.ID), "token", a.Label, "share", share.Number, "have", len(c.held), "want", set.Threshold)
	if len(c.held) < set.Threshold {
		return nil
	}
	delete(g.collected, a.Shares)
	defer c.wipe()
	return g.join(a, set, c)
}

// setOf finds the split that a share is of, and holds the share against it.
func (g *Guard) setOf(token string, share shares.Share) (hsm.Access, *shares.Set, error) {
	list, err := g.matching(token)
	if err != nil {
		return hsm.Access{}, nil, err
	}
	var foreign error
	for _, a := range list {
		set := g.sets[a.Shares]
		if set == nil {
			continue
		}
		switch err := set.Check(share); {
		case errors.Is(err, shares.ErrForeign):
			foreign = err
		case err != nil:
			return hsm.Access{}, nil, refuse(http.StatusConflict, "%w", err)
		case !a.Wanted():
			return hsm.Access{}, nil, refuse(http.StatusConflict, "token %s wants no share: its PIN is there", a.Label)
		default:
			return a, set, nil
		}
	}
	if foreign != nil {
		return hsm.Access{}, nil, refuse(http.StatusConflict, "%w", foreign)
	}
	return hsm.Access{}, nil, refuse(http.StatusConflict, "no token of this daemon has a PIN in shares%s", suffix(token))
}

func suffix(token string) string {
	if token == "" {
		return ""
	}
	return " that is called " + token
}

// add keeps a share that fits. One officer brings one, whatever its number.
func (c *collection) add(officer desk.Officer, share shares.Share, text []byte) error {
	for _, h := range c.held {
		if h.number == share.Number {
			return refuse(http.StatusConflict, "share %d: %w", share.Number, shares.ErrDoubled)
		}
		if strings.EqualFold(h.officer, officer.ID) {
			return refuse(http.StatusConflict, "share %d: you have entered share %d: the shares of a PIN come from different officers (EN 319 411-1 GEN-6.5.4-01)", share.Number, h.number)
		}
	}
	secret, err := locked.Take(text)
	if err != nil {
		return fmt.Errorf("keep share %d: %w", share.Number, err)
	}
	c.held = append(c.held, heldShare{share.Number, officer.ID, secret})
	return nil
}

// join opens the PIN with the shares that are there and enters it. The caller holds g.mu.
func (g *Guard) join(a hsm.Access, set *shares.Set, c *collection) error {
	var list []shares.Share
	defer func() {
		for _, s := range list {
			s.Wipe()
		}
	}()
	for _, h := range c.held {
		err := h.text.Use(func(text []byte) error {
			s, err := shares.ParseShare(text)
			list = append(list, s)
			return err
		})
		if err != nil {
			return err
		}
	}
	pin, err := set.Join(list)
	if err != nil {
		return refuse(http.StatusConflict, "%w", err)
	}
	var givers []string
	for _, h := range c.held {
		givers = append(givers, strings.ToLower(h.officer))
	}
	g.givers[a.Shares] = givers // in place of those whose PIN the token refused
	return g.config.Tokens.Enter(enterURI(a), pin)
}

// enterURI is the URI of a's token with its PIN source, which says what the PIN is kept under.
func enterURI(a hsm.Access) string {
	separator := "?"
	if strings.Contains(a.Token, "?") {
		separator = "&"
	}
	return a.Token + separator + "pin-source=" + hsm.EncodeSource(a.Source)
}

// forget wipes shares that waited too long.
func (g *Guard) forget(file string, c *collection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.collected[file] != c {
		return
	}
	delete(g.collected, file)
	g.config.Env.Log.Warn("shares of a PIN were wiped: the others did not come in time", "file", file, "shares", len(c.held), "after", g.life.String())
	c.wipe()
}

// enterPIN takes a PIN. One that was split is not taken whole: it takes several people. It wipes pin.
func (g *Guard) enterPIN(officer desk.Officer, token string, pin []byte) error {
	defer clear(pin)
	if err := hsm.CheckPIN(pin); err != nil {
		return refuse(http.StatusBadRequest, "read PIN: %w", err)
	}
	list, err := g.matching(token)
	if err != nil {
		return err
	}
	if token == "" { // one that waits for a PIN is meant, where there is one
		waiting := slices.DeleteFunc(slices.Clone(list), func(a hsm.Access) bool { return !a.Wanted() || a.Shares != "" })
		if len(waiting) > 0 {
			list = waiting
		}
	}
	if len(list) != 1 {
		return refuse(http.StatusBadRequest, "say which token the PIN is of: %s", names(list))
	}
	a := list[0]
	if a.Shares != "" {
		return refuse(http.StatusConflict, "the PIN of token %s is entered in shares, by several officers (EN 319 411-1 GEN-6.5.4-01)", a.Label)
	}
	if !a.Wanted() && a.Refused == nil && g.active() {
		return refuse(http.StatusConflict, "token %s is open with the PIN it has: if that was changed on the token, deactivate first", a.Label)
	}
	if err := g.config.Tokens.Enter(enterURI(a), pin); err != nil {
		return err
	}
	g.config.Env.Log.Info("PIN entered", "officer", strings.ToLower(officer.ID), "token", a.Label)
	return nil
}

// matching are the tokens that an officer may mean by name: all for an empty one.
func (g *Guard) matching(name string) ([]hsm.Access, error) {
	list, err := g.config.Tokens.Access(g.config.URIs...)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return list, nil
	}
	found := slices.DeleteFunc(slices.Clone(list), func(a hsm.Access) bool { return a.Token != name && a.Label != name })
	if len(found) == 0 {
		return nil, refuse(http.StatusBadRequest, "this daemon uses no token that is called %q: %s", name, names(list))
	}
	return found, nil
}

func names(list []hsm.Access) string {
	var all []string
	for _, a := range list {
		all = append(all, a.Label)
	}
	return strings.Join(all, ", ")
}
