package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// pinEntry is, in the key report, how the PIN of a token was entered: never the PIN, never a share.
type pinEntry struct {
	Token     string   `json:"token"`
	Shares    []int    `json:"shares,omitempty"`    // the numbers of the shares that opened it; none: it was entered whole
	Threshold int      `json:"threshold,omitempty"` // so many are needed
	Of        int      `json:"of,omitempty"`        // so many there are
	Keepers   []string `json:"keepers,omitempty"`   // the participants who keep those shares
}

// splitTokens are the key uses whose PIN is in shares, by the file that shares are held against.
func (s *script) splitTokens() (map[string]tokenUse, error) {
	split := make(map[string]tokenUse)
	for _, use := range s.tokenUses() {
		u, err := hsm.ParseURI(use.uri)
		if err != nil {
			return nil, daemon.Keyf(use.key+".uri", "%w", err)
		}
		if file, is := strings.CutPrefix(u.PINSource, "shares:"); is {
			if _, before := split[file]; !before {
				split[file] = use
			}
		}
	}
	return split, nil
}

// validatePINs reads the files of shares, wants each share with one person, and, for a qualified provider, that no one person can open the
// token of root or issuing CA (EN 319 411-1 GEN-6.5.1-04, GEN-6.5.4-01).
func (s *script) validatePINs() error {
	keepers, at := make(map[int]string), make(map[string]int)
	for i, p := range s.Ceremony.Participants {
		key := fmt.Sprintf("ceremony.participants[%d]", i)
		if p.Share < 0 || p.Share > shares.MaxShares {
			return daemon.Keyf(key+".share", "%d: shares are numbered from 1 to %d", p.Share, shares.MaxShares)
		}
		if before, taken := keepers[p.Share]; taken && p.Share > 0 {
			return daemon.Keyf(key+".share", "share %d is with %s already: each share has one keeper", p.Share, before)
		}
		if before, twice := at[p.Name]; twice && p.Share > 0 {
			return daemon.Keyf(key+".share", "%s keeps share %d already: nobody keeps two (EN 319 411-1 GEN-6.5.4-01)", p.Name, before)
		}
		if p.Share > 0 {
			keepers[p.Share], at[p.Name] = p.Name, p.Share
		}
	}
	split, err := s.splitTokens()
	if err != nil {
		return err
	}
	uris := make(map[string]string)
	for _, use := range split {
		uris[use.key+".uri"] = use.uri
	}
	if err := activation.Check(uris); err != nil {
		return err
	}
	if s.Assurance != daemon.AssuranceQualified || s.Ceremony.DualControl != "" {
		return nil
	}
	return s.validateDualControl(keepers)
}

// validateDualControl wants the PINs of the tokens of root and issuing CA in shares, and so many keepers of them, by number, among the participants
// that they open them.
func (s *script) validateDualControl(keepers map[int]string) error {
	for _, use := range s.tokenUses()[:2] { // root and issuing CA
		u, err := hsm.ParseURI(use.uri)
		if err != nil {
			return daemon.Keyf(use.key+".uri", "%w", err)
		}
		file, split := strings.CutPrefix(u.PINSource, "shares:")
		if !split {
			return daemon.Keyf(use.key+".uri", "one person could open this token: split its PIN (zegel token split; pin-source=shares:/FILE), or say under "+
				"ceremony.dual_control how the device wants several people (EN 319 411-1 GEN-6.5.1-04, GEN-6.5.4-01)")
		}
		set, err := activation.ReadSet(file)
		if err != nil {
			return daemon.Keyf(use.key+".uri", "%w", err)
		}
		there := 0
		for number := 1; number <= set.Shares; number++ {
			if keepers[number] != "" {
				there++
			}
		}
		if there < set.Threshold {
			return daemon.Keyf("ceremony.participants", "%d of them keep a share, and %d open the token of %s: enter share: NUMBER for each keeper (EN 319 411-1 GEN-6.5.1-13, GEN-6.5.4-01)",
				there, set.Threshold, use.key)
		}
	}
	return nil
}

// enterPINs has those in the room enter what opens the tokens, and tries each PIN before a key is made.
func (c *ceremony) enterPINs(context.Context) error {
	given, err := readShares(c.shareFiles)
	defer func() {
		for _, s := range given {
			s.Wipe()
		}
	}()
	if err != nil {
		return err
	}
	for _, use := range c.tokenUses() {
		list, err := c.tokens.Access(use.uri)
		if err != nil {
			return err
		}
		for _, a := range list {
			if !a.Wanted() {
				continue
			}
			if err := c.enterPIN(a, use.uri, given); err != nil {
				return fmt.Errorf("enter the PIN for %s: %w", use.key, err)
			}
		}
	}
	return nil
}

// enterPIN takes one PIN, by the shares of files as far as they go round, else from the terminal, and logs in with it.
func (c *ceremony) enterPIN(a hsm.Access, uri string, given []shares.Share) error {
	entry := pinEntry{Token: a.Label}
	fitting, err := c.sharesOf(a, given, &entry)
	if err != nil {
		return err
	}
	if fitting == nil {
		entered, err := activation.Terminal{In: c.in, Out: c.progress}.Enter(c.tokens, uri)
		if err != nil {
			return err
		}
		for _, e := range entered {
			entry.Shares = e.Shares
		}
	} else if err := c.tokens.Enter(uri, fitting); err != nil {
		return err
	}
	u, err := hsm.ParseURI(uri)
	if err != nil {
		return err
	}
	if !u.Software { // a soft token's file is still to be made
		if err := c.tokens.Activate(uri); err != nil {
			return err
		}
	}
	for _, number := range entry.Shares {
		entry.Keepers = append(entry.Keepers, c.keeper(number))
	}
	c.entered = append(c.entered, entry)
	return nil
}

// sharesOf opens the PIN with the given shares that are of a's split; nil where people are to be asked. It says who is wanted.
func (c *ceremony) sharesOf(a hsm.Access, given []shares.Share, entry *pinEntry) (pin []byte, err error) {
	if a.Shares == "" {
		return nil, nil
	}
	set, err := activation.ReadSet(a.Shares)
	if err != nil {
		return nil, err
	}
	entry.Threshold, entry.Of = set.Threshold, set.Shares
	var fitting []shares.Share
	for _, s := range given {
		switch err := set.Check(s); {
		case errors.Is(err, shares.ErrForeign):
		case err != nil:
			return nil, err
		case len(fitting) < set.Threshold:
			fitting = append(fitting, s)
		}
	}
	if len(fitting) == 0 {
		fmt.Fprintf(c.progress, "%s: the PIN of token %s wants %d of %d shares: %s\n", program, a.Label, set.Threshold, set.Shares, c.keepersOf(set.Shares))
		return nil, nil
	}
	pin, err = set.Join(fitting)
	for _, s := range fitting {
		entry.Shares = append(entry.Shares, s.Number)
	}
	return pin, err
}

// keepersOf names who keeps the shares 1 to n.
func (s *script) keepersOf(n int) string {
	var names []string
	for number := 1; number <= n; number++ {
		names = append(names, fmt.Sprintf("%d with %s", number, s.keeper(number)))
	}
	return strings.Join(names, ", ")
}

// keeper is the participant who keeps the shares of that number.
func (s *script) keeper(number int) string {
	i := slices.IndexFunc(s.Ceremony.Participants, func(p participant) bool { return p.Share == number })
	if i < 0 {
		return "somebody whom the script does not name"
	}
	return s.Ceremony.Participants[i].Name
}

// readShares reads the files of shares that a script holds a ceremony with.
func readShares(files []string) (list []shares.Share, err error) {
	for _, file := range files {
		text, err := daemon.ReadPrivate(file)
		if err != nil {
			return list, fmt.Errorf("read share: %w", err)
		}
		s, err := shares.ParseShare(text)
		clear(text)
		if err != nil {
			return list, fmt.Errorf("%s: %w", file, err)
		}
		list = append(list, s)
	}
	return list, nil
}
