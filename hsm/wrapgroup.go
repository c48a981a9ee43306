package hsm

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
)

// wrappingGroup opens the members that can be opened, which is at least one, and makes sure that they are one key: nobody can see an AES
// key, but each has to open what the first has wrapped.
func (t *Tokens) wrappingGroup(uris []URI) (*WrappingKey, error) {
	w := &WrappingKey{name: groupName(uris), gate: &t.gate}
	probe := make([]byte, 16)
	rand.Read(probe) // never fails: it ends the process instead
	var wrapped []byte
	var errs []error
	for _, u := range uris {
		m, err := t.soleWrappingKey(u)
		switch {
		case err != nil:
		case wrapped == nil:
			wrapped, err = m.Wrap(probe)
		default:
			err = m.opens(wrapped, probe)
		}
		if errors.Is(err, ErrWrapped) {
			return nil, fmt.Errorf("%s and %s hold different keys: a key group is one key on several tokens, so correct the URIs: %w", w.group[0].name, u.Name(), err)
		}
		if err != nil {
			t.config.Log.Warn("a member of a key group is left out", "group", w.name, "member", u.Name(), "cause", err.Error())
			errs = append(errs, fmt.Errorf("%s: %w", u.Name(), err))
			continue
		}
		w.group = append(w.group, m)
	}
	if w.group == nil {
		return nil, fmt.Errorf("none of the %d keys of the group can be used: %w", len(uris), errors.Join(errs...))
	}
	w.secret = w.group[0].secret
	return w, nil
}

func (t *Tokens) soleWrappingKey(u URI) (*WrappingKey, error) {
	if u.Software {
		return t.softWrappingKey(u)
	}
	token, err := t.token(u)
	if err != nil {
		return nil, err
	}
	return token.wrappingKey(t, u)
}

// onToken is the token that holds the one key; w may be nil.
func (w *WrappingKey) onToken() (*token, bool) {
	if w == nil {
		return nil, false
	}
	s, ok := w.secret.(*tokenSecret)
	if !ok {
		return nil, false
	}
	return s.token, true
}

// opens reports why w does not open wrapped as secret.
func (w *WrappingKey) opens(wrapped, secret []byte) error {
	opened, err := w.Unwrap(wrapped)
	if err == nil && subtle.ConstantTimeCompare(opened, secret) != 1 {
		err = ErrWrapped
	}
	return err
}

// first is what the first member makes that does not fail.
func (w *WrappingKey) first(do func(*WrappingKey) ([]byte, error)) ([]byte, error) {
	var errs []error
	for _, m := range w.group {
		result, err := do(m)
		if err == nil {
			return result, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
