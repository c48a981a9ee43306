package hsm

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// defaultSessions is how many signatures a token may be asked for at once. More than twice a software token's cores
// buys only latency; network HSMs want a few dozen.
const defaultSessions = 32

// defaultCallTimeout is far above what a token needs for a signature, and as long as an outage may go unnoticed.
const defaultCallTimeout = 2 * time.Second

// Settings are what a configuration says about the use of tokens.
type Settings struct {
	Sessions int // per token; 0: 32, never more than the token allows
	// MaxWaiting is how many calls may wait for a session of one token; 0: 1024. Those beyond fail with ErrBusy, and so do those that
	// have waited for 10 s.
	MaxWaiting int
	// KeepAlive is after how long an idle session is asked for its state, so that nothing on the way to the token drops it, and a token
	// that is gone is found, and repaired, before somebody needs it; 0: 1 minute.
	KeepAlive time.Duration
	// Isolation is IsolationNone or IsolationProcess; empty: none.
	Isolation string
	// CallTimeout is how long most calls into a module may take; 0: 2 s. Starting the module, making keys and the like, which take long by nature,
	// get more.
	CallTimeout    time.Duration
	Certifications []Certification // of kinds of devices; the first that fits a token counts
}

// Config says how the tokens of one process are reached. It is copied.
type Config struct {
	// ModuleEnv is what a PKCS#11 module reads from the environment (SOFTHSM2_CONF): with IsolationNone it is set in this process before the module is
	// loaded, with IsolationProcess the module's process has it and, of ours, only what every program needs (PATH, HOME, LD_LIBRARY_PATH and the like).
	ModuleEnv map[string]string
	Settings
	// SoftWorkFactor is log2 of scrypt's N for the key files that soft tokens get; 0: 15, which makes opening one cost some 90 ms
	// of one core. Tests take less; keys that matter do not.
	SoftWorkFactor int
	Log            *slog.Logger // gets what an officer has to know; nil: nobody does
	// Registerer gets the metrics of tokens and key groups (docs/tokens.md, Watching). Optional. Two Tokens cannot share one.
	Registerer prometheus.Registerer
	// SecurityOfficer has every login be that of the token's security officer (CKU_SO) by the URI's PIN source. They see public objects only,
	// sign with nothing, and make the keys that backups are wrapped under. One process is either the officer or the user.
	SecurityOfficer bool
	// startLimit is how long starting a module in a process of its own may take; 0: 30 s.
	startLimit time.Duration
}

// Tokens are the PKCS#11 tokens and soft tokens a process uses. Safe for concurrent use.
type Tokens struct {
	config Config
	gate   gate
	watch  *watch
	keeper keeper
	pins   *pins

	mu      sync.Mutex
	modules map[string]*module     // by path; each is loaded once
	loading map[string]*sync.Mutex // by path, as loadingTurn
	soft    map[forgettable]bool   // keys of soft tokens that are in memory
}

// New touches no token yet.
func New(c Config) *Tokens {
	c.ModuleEnv, c.Certifications = maps.Clone(c.ModuleEnv), slices.Clone(c.Certifications)
	if c.Sessions <= 0 {
		c.Sessions = defaultSessions
	}
	if c.MaxWaiting <= 0 {
		c.MaxWaiting = defaultMaxWaiting
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.CallTimeout <= 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.SoftWorkFactor <= 0 || c.SoftWorkFactor > maxSoftWorkFactor {
		c.SoftWorkFactor = softWorkFactor
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	w := newWatch(c.Log)
	if c.Registerer != nil {
		if err := c.Registerer.Register(newCollector(w)); err != nil {
			c.Log.Error("no metrics of tokens", "error", err)
		}
	}
	return &Tokens{config: c, watch: w, pins: newPINs(), modules: make(map[string]*module), loading: make(map[string]*sync.Mutex), soft: make(map[forgettable]bool)}
}

// Key opens the one key pair that uri names (RFC 7512, or softtoken:); an error says what was found instead. A private key that
// its token does not keep to itself (CKA_SENSITIVE, not CKA_EXTRACTABLE) is refused (EN 319 411-1 GEN-6.5.2-04). The first key
// of a token logs in to it.
//
// Several URIs, separated by blanks or line breaks, are a key group: one key on several tokens. One of them at least has to be
// there, and their public keys have to be equal. Sign spreads over those that are well and goes on to the next when one fails; it takes
// 10 s at most. One that is missing is looked for again while others sign, and joins them unless it has another key.
func (t *Tokens) Key(uri string) (*Key, error) {
	return openAny(t, "open key", uri, func(uris []URI) (*Key, error) {
		if len(uris) > 1 {
			return t.openGroup(uris)
		}
		k, err := t.soleKey(uris[0])
		if err == nil {
			k.private.need()
		}
		return k, err
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
		return token.generate(t, u, order{algorithm, neverExtractable})
	})
}

// GenerateForBackup is Generate for a key that Backup can take: extractable, but only under a key that the token's security officer
// trusts (CKA_WRAP_WITH_TRUSTED). It then is never "never extractable". A soft token's keys are files, which need no such thing.
func (t *Tokens) GenerateForBackup(uri string, algorithm KeyAlgorithm) (*Key, error) {
	return open(t, "generate key for backup", uri, func(u URI) (*Key, error) {
		if _, err := ParseKeyAlgorithm(string(algorithm)); err != nil {
			return nil, err
		}
		token, err := t.hardware(u)
		if err != nil {
			return nil, err
		}
		return token.generate(t, u, order{algorithm, forBackup})
	})
}

// WrappingKey opens the token's AES-256 key that wraps the journal's key-encryption key. Of several URIs, one key on several tokens, those that are
// there are opened, one at least, and have to open what the first has wrapped; each call goes on to the next when one fails. A token that is
// missing does not join later: the key is used when a journal is opened.
func (t *Tokens) WrappingKey(uri string) (*WrappingKey, error) {
	return openAny(t, "open wrapping key", uri, func(uris []URI) (*WrappingKey, error) {
		if len(uris) > 1 {
			return t.wrappingGroup(uris)
		}
		w, err := t.soleWrappingKey(uris[0])
		if on, ok := w.onToken(); ok {
			on.needed.Store(true)
		}
		return w, err
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

// Destroy removes the one key pair, or the one secret key, that uri names, for ever; with type=public a public key that is there alone.
// It returns nil once the token shows no object of that name any more. ErrStillThere: the private or secret key is left; ErrGone: it is gone
// though the token reported a failure, which may have left the public key; else nothing was destroyed, or nobody knows. Keys opened before stop working.
func (t *Tokens) Destroy(uri string) error {
	_, err := open(t, "destroy key", uri, func(u URI) (*struct{}, error) {
		if u.Software {
			return nil, t.destroySoft(u)
		}
		token, err := t.token(u)
		if err != nil {
			return nil, err
		}
		return nil, token.destroy(u)
	})
	return err
}

// open is the frame of every call that begins with the URI of one object: read it, hold Close off, and name the object in an error.
func open[T any](t *Tokens, verb, uri string, do func(URI) (*T, error)) (*T, error) {
	return openAny(t, verb, uri, func(uris []URI) (*T, error) {
		if len(uris) > 1 {
			return nil, errors.New("this is done on one token at a time, and a key group names several: give one of its URIs")
		}
		return do(uris[0])
	})
}

// openAny is open for what key groups can do.
func openAny[T any](t *Tokens, verb, uri string, do func([]URI) (*T, error)) (*T, error) {
	uris, err := ParseURIs(uri)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	name := groupName(uris)
	for _, u := range uris {
		if u.Software && (u.Object == "" || u.Dir == "") {
			return nil, fmt.Errorf("%s %s: the URI needs object=NAME and dir=/absolute/path", verb, u.Name())
		}
	}
	if err := t.gate.enter(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, name, err)
	}
	defer t.gate.leave()
	result, err := do(uris)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", verb, name, withRemedy(err))
	}
	return result, nil
}

// token finds the token that u names, loading its module first. The token is not logged in to.
func (t *Tokens) token(u URI) (*token, error) {
	m, err := t.moduleOf(u)
	if err != nil {
		return nil, err
	}
	return m.token(u, t.config.Settings)
}

// Close waits for running calls, logs out, closes all sessions, finalizes the modules and wipes the PINs. Calls that come later get ErrClosed.
// A second Close does nothing.
func (t *Tokens) Close() error {
	if !t.gate.close() {
		return nil
	}
	t.keeper.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, m := range t.modules {
		errs = append(errs, m.close())
	}
	t.modules, t.soft = nil, nil
	t.pins.wipe()
	return errors.Join(errs...)
}

// gate lets calls through until it is closed, and closing waits for those within. While it is barred it lets none through, and waits for none.
// The zero value is open.
type gate struct {
	within atomic.Int64 // calls; below 0 once it is closed

	mu     sync.Mutex
	closed bool
	empty  chan struct{} // made before within falls below 0
	barred atomic.Bool
}

// gateClosed is added to within: more than there ever are calls.
const gateClosed = -1 << 62

func (g *gate) enter() error {
	if g.barred.Load() {
		return ErrDeactivated
	}
	return g.pass()
}

// pass is enter for those who unbar it.
func (g *gate) pass() error {
	if g.within.Add(1) < 0 {
		g.leave()
		return ErrClosed
	}
	return nil
}

// stay lets a call that is within begin another one, which must leave by itself.
func (g *gate) stay() { g.within.Add(1) }

func (g *gate) leave() {
	if g.within.Add(-1) != gateClosed {
		return
	}
	select {
	case g.empty <- struct{}{}:
	default:
	}
}

// close waits for the calls within, and reports whether this call was the one that closed the gate.
func (g *gate) close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed, g.empty = true, make(chan struct{}, 1)
	if g.within.Add(gateClosed) != gateClosed {
		<-g.empty
	}
	return true
}
