package hsm

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

// Access is how one token of a configuration is opened, and what stands in the way.
type Access struct {
	Token   string // its URI without an object and without a PIN source: what Enter calls it
	Label   string // the URI's token label, or a soft token's folder: what people call it
	Source  string // the URI's pin-source
	Shares  string // the file of the PIN's shares, for shares: sources
	Entered bool   // people enter the PIN: prompt or shares
	Held    bool   // the PIN is in memory
	Refused error  // the token turned the PIN down, and is left alone since
}

// Wanted reports whether the token cannot be opened before a PIN is entered.
func (a Access) Wanted() bool { return a.Entered && !a.Held }

// Access tells of the tokens of uris, each once, in their order. It asks no token.
func (t *Tokens) Access(uris ...string) ([]Access, error) {
	tokens, err := distinctTokens(uris)
	if err != nil {
		return nil, err
	}
	var list []Access
	for _, u := range tokens {
		a := Access{Token: u.tokenName(), Label: u.Token, Source: u.PINSource, Held: t.pins.holds(u)}
		if u.Software {
			a.Label = u.Dir
		}
		if source, err := parsePINSource(u.PINSource); err == nil {
			a.Entered = source.entered()
			if source.kind == pinShares {
				a.Shares = source.at
			}
		}
		if known := t.known(u); known != nil {
			if refused := known.refused.Load(); refused != nil {
				a.Refused = refused.err
			}
		}
		list = append(list, a)
	}
	return list, nil
}

// distinctTokens reads uris and keeps the first of each token and source. A uri may be several, separated by blanks.
func distinctTokens(uris []string) ([]URI, error) {
	var list []URI
	seen := make(map[string]bool)
	for _, uri := range strings.Fields(strings.Join(uris, " ")) {
		u, err := ParseURI(uri)
		if err != nil {
			return nil, err
		}
		if name := u.holder() + " " + u.tokenName(); !seen[name] {
			seen[name] = true
			list = append(list, u)
		}
	}
	return list, nil
}

// known returns the token of u, if something has asked for it before.
func (t *Tokens) known(u URI) *token {
	t.mu.Lock()
	m := t.modules[u.ModulePath]
	t.mu.Unlock()
	if m == nil || u.Software {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, known := range m.tokens {
		if u.matchesToken(known.slot, known.info) {
			return known
		}
	}
	return nil
}

// Enter takes the PIN of the token of uri, in place of one that was read or entered before, and wipes pin. It is tried by Activate, or
// by the first key that is opened.
func (t *Tokens) Enter(uri string, pin []byte) error {
	u, err := ParseURI(uri)
	if err != nil {
		clear(pin)
		return fmt.Errorf("enter PIN: %w", err)
	}
	if err := t.gate.pass(); err != nil {
		clear(pin)
		return fmt.Errorf("enter PIN of %s: %w", u.tokenName(), err)
	}
	defer t.gate.leave()
	if err := t.pins.enter(u, pin); err != nil {
		return fmt.Errorf("enter PIN of %s: %w", u.tokenName(), err)
	}
	return nil
}

// Activate opens the tokens of uris: of those that are not open it reads the PINs anew, where the source can be read again; it
// forgets refusals and a deactivation, and logs in to each. A token that refuses, or that cannot be reached, is named in the error and keeps the others
// from nothing. A PIN that is refused is dropped; it was tried once. While PINs are wanted that nobody has entered, the error is
// ErrPINWanted and nothing is done.
func (t *Tokens) Activate(uris ...string) error {
	list, err := t.Access(uris...)
	if err != nil {
		return fmt.Errorf("activate tokens: %w", err)
	}
	for _, a := range list {
		if a.Wanted() {
			return fmt.Errorf("activate tokens: %s: %w", a.Token, ErrPINWanted)
		}
	}
	if err := t.gate.pass(); err != nil {
		return fmt.Errorf("activate tokens: %w", err)
	}
	defer t.gate.leave()
	tokens, err := distinctTokens(uris)
	if err != nil {
		return fmt.Errorf("activate tokens: %w", err)
	}
	t.pins.turnOn()
	t.gate.barred.Store(false)
	var errs []error
	for _, u := range tokens {
		if err := t.activate(u); err != nil {
			if errors.Is(err, ErrPINRefused) {
				t.pins.drop(u)
			}
			errs = append(errs, fmt.Errorf("activate token %s: %w", u.tokenName(), err))
		}
	}
	return errors.Join(errs...)
}

// activate logs in to one token, or opens the key file that u names.
func (t *Tokens) activate(u URI) error {
	if u.Software {
		if err := t.pins.readAgain(u); err != nil && !t.pins.holds(u) {
			return err
		}
		f, err := t.readSoftFile(u)
		clear(f.Key)
		return err
	}
	token, err := t.token(u)
	if err != nil {
		return err
	}
	if refused := token.refused.Load(); refused != nil || !token.isOpen() { // else a PIN that nothing tries now would take the place of one that works
		if err := t.pins.readAgain(u); err != nil && (refused != nil || !t.pins.holds(u)) {
			return err // no try is spent on the PIN that was refused
		}
		token.refused.Store(nil)
	}
	return token.administer(u, func(pkcs11.SessionHandle) error { return nil })
}

// Deactivate closes the tokens: every call on them and on their keys fails with ErrDeactivated from here on, the logins and sessions end, and
// the PINs and the software keys leave the memory. Activate opens them again. Where a call into a module does not return, the
// error says so, and that token's login lasts until it does.
func (t *Tokens) Deactivate() error {
	if err := t.gate.pass(); err != nil {
		return fmt.Errorf("deactivate tokens: %w", err)
	}
	defer t.gate.leave()
	t.gate.barred.Store(true)
	t.pins.turnOff()
	t.mu.Lock()
	var all []*token
	for _, m := range t.modules {
		m.mu.Lock()
		for _, token := range m.tokens {
			all = append(all, token)
		}
		m.mu.Unlock()
	}
	for key := range t.soft {
		key.forget()
	}
	t.mu.Unlock()
	var errs []error
	for _, token := range all {
		if err := token.deactivate(); err != nil {
			errs = append(errs, fmt.Errorf("deactivate token %q: %w", token.label, err))
		}
	}
	return errors.Join(errs...)
}

func (t *token) isOpen() bool {
	t.admin.Lock()
	defer t.admin.Unlock()
	return t.loggedIn
}

// Deactivated reports whether Deactivate was called, and Activate not since.
func (t *Tokens) Deactivated() bool { return t.gate.barred.Load() }

// deactivate ends the login, once the calls that rely on it have returned.
func (t *token) deactivate() error {
	deadline := time.Now().Add(patience)
	select {
	case t.module.repairing <- struct{}{}:
	case <-time.After(patience):
		return errors.New("a repair takes too long: it is logged in still")
	}
	defer func() { <-t.module.repairing }()
	if !t.pool.traffic.hold(deadline) {
		return fmt.Errorf("%w: it is logged in still: restart the daemon", errHangs)
	}
	defer t.pool.traffic.release()
	t.admin.Lock()
	loggedIn, session := t.loggedIn, t.session
	t.admin.Unlock()
	var err error
	if loggedIn && t.module.owned { // else the login is not ours alone
		if err = t.ctx.Logout(session); err != nil && faultOf(err).firstRepair() != repairNothing {
			err = nil // the session or the token is gone, and the login with it
		}
	}
	t.forget(true)
	if err != nil {
		return fmt.Errorf("C_Logout: %w", err)
	}
	return nil
}

// EncodeSource writes a pin-source as it stands in a URI.
func EncodeSource(source string) string { return encodeAttribute(source, "query") }

// ReadPIN reads a PIN from a pin-source that is no prompt and no split. The caller wipes it.
func ReadPIN(source string) ([]byte, error) { return URI{PINSource: source}.readPIN() }

// ChangePIN gives the token of uri another PIN, 4 to 255 bytes that the token takes, after a login with the one it has, and wipes pin. An
// error that does not wrap ErrPINRefused leaves open which of the two the token has.
func (t *Tokens) ChangePIN(uri string, pin []byte) error {
	defer clear(pin)
	_, err := open(t, "change PIN", uri, func(u URI) (*struct{}, error) {
		if u.Software {
			return nil, errors.New("a soft token has no PIN of its own: each key's file is sealed under one")
		}
		if err := CheckPIN(pin); err != nil {
			return nil, err
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		if least, most := token.info.MinPinLen, token.info.MaxPinLen; uint(len(pin)) < least || most > 0 && uint(len(pin)) > most {
			return nil, fmt.Errorf("%w: token %q takes PINs of %d to %d bytes, this one has %d", ErrPINRefused, token.label, least, most, len(pin))
		}
		err = token.administer(u, func(session pkcs11.SessionHandle) error {
			return t.pins.use(u, func(old []byte) error { return token.ctx.SetPIN(session, old, pin) })
		})
		if err != nil {
			return nil, fmt.Errorf("C_SetPIN: %w", err)
		}
		return nil, t.pins.put(u, pin)
	})
	return err
}
