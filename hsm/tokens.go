package hsm

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
)

// defaultSessions is how many signatures a token may be asked for at once. More than twice a software token's cores
// buys only latency; network HSMs want a few dozen.
const defaultSessions = 32

// Settings are what a configuration says about the use of tokens.
type Settings struct {
	Sessions int // per token; 0: 32, never more than the token allows
}

// Config says how the tokens of one process are reached. It is copied.
type Config struct {
	ModuleEnv map[string]string // what a PKCS#11 module reads from the environment (SOFTHSM2_CONF), set before it is loaded
	Settings
	// SoftWorkFactor is log2 of scrypt's N for the key files that soft tokens get; 0: 15, which makes opening one cost some 90 ms
	// of one core. Tests take less; keys that matter do not.
	SoftWorkFactor int
	Log            *slog.Logger // gets what an officer has to know; nil: nobody does
}

// Tokens are the PKCS#11 tokens and soft tokens a process uses. Safe for concurrent use.
type Tokens struct {
	config Config
	gate   gate
	watch  *watch

	mu      sync.Mutex
	modules map[string]*module // by path; each is loaded once
}

// New touches no token yet.
func New(c Config) *Tokens {
	c.ModuleEnv = maps.Clone(c.ModuleEnv)
	if c.Sessions <= 0 {
		c.Sessions = defaultSessions
	}
	if c.SoftWorkFactor <= 0 || c.SoftWorkFactor > maxSoftWorkFactor {
		c.SoftWorkFactor = softWorkFactor
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Tokens{config: c, watch: &watch{log: c.Log}, modules: make(map[string]*module)}
}

// Key opens the one key pair that uri names (RFC 7512, or softtoken:); an error says what was found instead. A private key that
// its token does not keep to itself (CKA_SENSITIVE, not CKA_EXTRACTABLE) is refused (EN 319 411-1 GEN-6.5.2-04). The first key
// of a token logs in to it.
func (t *Tokens) Key(uri string) (*Key, error) {
	return open(t, "open key", uri, func(u URI) (*Key, error) {
		if u.Software {
			return t.softKey(u)
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		return token.key(t, u)
	})
}

// Generate makes a key pair (sensitive, never extractable, on the token), for signing only. The label is the URI's object,
// CKA_ID its id or 16 random bytes. It refuses when any object of that label or id exists, and destroys what it made
// when the token reports the private key to be less protected than asked for. Pairs are made one at a time per token.
func (t *Tokens) Generate(uri string, algorithm KeyAlgorithm) (*Key, error) {
	return open(t, "generate key", uri, func(u URI) (*Key, error) {
		if _, err := ParseKeyAlgorithm(string(algorithm)); err != nil {
			return nil, err
		}
		if u.Software {
			return t.generateSoftKey(u, algorithm)
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		return token.generate(t, u, algorithm)
	})
}

// WrappingKey opens the token's AES-256 key that wraps the journal's key-encryption key.
func (t *Tokens) WrappingKey(uri string) (*WrappingKey, error) {
	return open(t, "open wrapping key", uri, func(u URI) (*WrappingKey, error) {
		if u.Software {
			return t.softWrappingKey(u)
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		return token.wrappingKey(t, u)
	})
}

// GenerateWrappingKey makes the AES-256 key that WrappingKey opens: sensitive, never extractable, for encryption and decryption
// only. It refuses when any object of that label or id exists.
func (t *Tokens) GenerateWrappingKey(uri string) (*WrappingKey, error) {
	return open(t, "generate wrapping key", uri, func(u URI) (*WrappingKey, error) {
		if u.Software {
			return t.generateSoftWrappingKey(u)
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		return token.generateWrappingKey(t, u)
	})
}

// Destroy removes the one key pair, or the one wrapping key, that uri names, for ever. It refuses where Key and WrappingKey would.
// Keys opened before stop working.
func (t *Tokens) Destroy(uri string) error {
	_, err := open(t, "destroy key", uri, func(u URI) (*struct{}, error) {
		if u.Software {
			return nil, destroySoft(u)
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		return nil, token.destroy(u)
	})
	return err
}

// open is the frame of every call that begins with a URI: read it, hold Close off, and name the object in an error.
func open[T any](t *Tokens, verb, uri string, do func(URI) (*T, error)) (*T, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	if u.Software && (u.Object == "" || u.Dir == "") {
		return nil, fmt.Errorf("%s %s: the URI needs object=NAME and dir=/absolute/path", verb, u.Name())
	}
	if err := t.gate.enter(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, u.Name(), err)
	}
	defer t.gate.leave()
	result, err := do(u)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, u.Name(), withRemedy(err))
	}
	return result, nil
}

// token finds the token that u names, loading its module first. The token is not logged in to.
func (t *Tokens) token(u URI) (*token, error) {
	m, err := t.moduleOf(u)
	if err != nil {
		return nil, err
	}
	return m.token(u, t.config.Sessions)
}

// Close waits for running calls, logs out, closes all sessions and finalizes the modules. Calls that come later get ErrClosed.
// A second Close does nothing.
func (t *Tokens) Close() error {
	if !t.gate.close() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, m := range t.modules {
		errs = append(errs, m.close())
	}
	t.modules = nil
	return errors.Join(errs...)
}

// gate lets calls through until it is closed, and closing waits for those within.
type gate struct {
	mu     sync.RWMutex
	closed bool
}

func (g *gate) enter() error {
	g.mu.RLock()
	if g.closed {
		g.mu.RUnlock()
		return ErrClosed
	}
	return nil
}

func (g *gate) leave() { g.mu.RUnlock() }

// close reports whether this call was the one that closed it.
func (g *gate) close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.closed
	g.closed = true
	return first
}
