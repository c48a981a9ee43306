package daemon

import (
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
)

// Common is the part every daemon's config starts with (inline it: `yaml:",inline"`).
type Common struct {
	// test or qualified. qualified refuses softtoken: keys (the checkpoint key apart, EN 319 411-1 GEN-6.5.2-04), a PIN inside a
	// URI, an unverified clock (EN 319 421 TIS-7.7.1-04), and officers whose roles one person must not hold together (EN 319 401
	// REQ-7.2-13). Required.
	Assurance string `yaml:"assurance"`
	// system: the system clock, as long as the kernel says that it is synchronised. unverified: the system clock on
	// trust, for demos and tests. Required.
	Clock string `yaml:"clock"`
	// Environment variables for PKCS#11 modules, SOFTHSM2_CONF for instance. Optional.
	ModuleEnv map[string]string `yaml:"module_env"`
	// How PKCS#11 tokens are used.
	Tokens TokenSettings `yaml:"tokens"`
	// The officers' listener, mutual TLS.
	Admin TLSListener `yaml:"admin"`
	// The listener of /metrics and /health, plain HTTP: keep it inside.
	Metrics Listener `yaml:"metrics"`
	// Who may call the admin listener, each with a client certificate and roles. Optional.
	Officers []desk.Officer `yaml:"officers"`
}

// TokenSettings are hsm.Settings in a configuration.
type TokenSettings struct {
	// How many signatures a token is asked for at once, where it allows so many sessions: 1 to 1024. Default 32.
	Sessions int `yaml:"sessions,omitempty"`
	// How many calls may wait for a session of one token, each for 10 seconds at most; those beyond fail at once: 1 to 65536. Default 1024.
	MaxWaiting int `yaml:"max_waiting,omitempty"`
	// After how long an idle session is asked for its state, so that no firewall drops it and a token that is gone is noticed before somebody needs
	// it: 1s to 24h. Default 1m.
	KeepAlive time.Duration `yaml:"keep_alive,omitempty"`
}

// Validate judges the settings; key is the name of their section.
func (s TokenSettings) Validate(key string) error {
	if s.Sessions < 0 || s.Sessions > maxSessions {
		return Keyf(key+".sessions", "%d: give 1 to %d, or leave it out for 32", s.Sessions, maxSessions)
	}
	if s.MaxWaiting < 0 || s.MaxWaiting > maxWaiting {
		return Keyf(key+".max_waiting", "%d: give 1 to %d, or leave it out for 1024", s.MaxWaiting, maxWaiting)
	}
	if s.KeepAlive != 0 && (s.KeepAlive < time.Second || s.KeepAlive > 24*time.Hour) {
		return Keyf(key+".keep_alive", "%v: give 1s to 24h, or leave it out for 1m", s.KeepAlive)
	}
	return nil
}

// maxWaiting is more than a daemon has connections for.
const maxWaiting = 65536

// maxSessions is far above what a token gains by more of them.
const maxSessions = 1024

// Listener is a plain HTTP address.
type Listener struct {
	// host:port, with a number for the port; no two listeners of a daemon share one. Required.
	Listen string `yaml:"listen"`
}

// TLSListener is an HTTPS address; with ClientCA it wants a client certificate from there.
type TLSListener struct {
	// host:port, with a number for the port; no two listeners of a daemon share one. Required.
	Listen string `yaml:"listen"`
	// PEM file with the server's TLS certificate and those above it. Required.
	Certificate string `yaml:"certificate"`
	// PEM file with its key, mode 0600. Required.
	Key string `yaml:"key"`
	// PEM file with the CA whose client certificates are believed, the management CA. Required.
	ClientCA string `yaml:"client_ca"`
}

// TLSClient is how a daemon or tool calls another over mutual TLS.
type TLSClient struct {
	// PEM file with the CA whose TLS servers are believed, the management CA. Required.
	CA string `yaml:"ca"`
	// PEM file with the client certificate that is shown. Required.
	Certificate string `yaml:"certificate"`
	// PEM file with its key, mode 0600. Required.
	Key string `yaml:"key"`
}

// Journal is how a config names a journal that the daemon writes.
type Journal struct {
	// The journal's folder, 0700. One daemon has it open. Required.
	Dir string `yaml:"dir"`
	// URI of the AES-256 key that unwraps the key of the sealed bodies at start. softtoken: only under assurance: test. Required.
	WrapKey string `yaml:"wrap_key"`
	// URI of the Ed25519 key that signs checkpoints. softtoken: is allowed, because not every token has Ed25519. Required.
	CheckpointKey string `yaml:"checkpoint_key"`
}

// Values of assurance.
const (
	AssuranceTest      = "test"
	AssuranceQualified = "qualified"
)

// Validate judges what all daemons have in common: assurance, clock, the admin listener with its files, the metrics
// listener, and the officers, whose duties have to be separate under `assurance: qualified`.
// keys are the key URIs of the config that must not be software under `assurance: qualified`, by config key
// (journal checkpoint keys need not be among them). Every error is a KeyError.
func (c Common) Validate(keys map[string]string) error {
	if err := ValidateAssurance(c.Assurance, c.Clock, keys); err != nil {
		return err
	}
	if err := c.Tokens.Validate("tokens"); err != nil {
		return err
	}
	if err := c.Admin.Validate("admin", true); err != nil {
		return err
	}
	if err := c.Metrics.Validate("metrics"); err != nil {
		return err
	}
	if key, err := desk.ValidateOfficers(c.Officers, c.Assurance == AssuranceQualified); err != nil {
		return Keyf(key, "%w", err)
	}
	return nil
}

// ValidateAssurance judges assurance and clock, and under `assurance: qualified` refuses an unverified clock and
// every softtoken: URI among keys (by config key), because EN 319 421 TIS-7.7.1-04 wants traceable time and
// EN 319 411-1 GEN-6.5.2-04 keys in a certified device. Every error is a KeyError.
func ValidateAssurance(assurance, clock string, keys map[string]string) error {
	if assurance != AssuranceTest && assurance != AssuranceQualified {
		return Keyf("assurance", "%q is neither test nor qualified", assurance)
	}
	if clock != "system" && clock != "unverified" {
		return Keyf("clock", "%q is neither system nor unverified", clock)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if keys[key] == "" {
			return Keyf(key, "no key is named: write its URI, pkcs11:… or softtoken:…")
		}
	}
	if assurance != AssuranceQualified {
		return nil
	}
	if clock == "unverified" {
		return Keyf("clock", "an unverified clock under `assurance: qualified`: write `clock: system` (EN 319 421 TIS-7.7.1-04)")
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		software := func(uri string) bool { return strings.HasPrefix(strings.ToLower(uri), "softtoken:") }
		if slices.ContainsFunc(strings.Fields(keys[key]), software) { // there are several in a key group
			return Keyf(key, "a software key under `assurance: qualified`: keep it in a certified device and name it with a pkcs11: URI (EN 319 411-1 GEN-6.5.2-04)")
		}
	}
	return nil
}

// Validate judges the address. key is the config key of l.
func (l Listener) Validate(key string) error { return validateAddress(key+".listen", l.Listen) }

// Validate judges address and files, which it reads: certificate and key belong together. With mutual, client_ca must be there.
// key is the config key of l.
func (l TLSListener) Validate(key string, mutual bool) error {
	if err := validateAddress(key+".listen", l.Listen); err != nil {
		return err
	}
	if mutual && l.ClientCA == "" {
		return Keyf(key+".client_ca", "no CA is named whose client certificates are believed")
	}
	return l.validateFiles(key)
}

// Validate judges a journal's settings; it opens nothing. key is the config key of j.
func (j Journal) Validate(key string) error {
	switch {
	case j.Dir == "":
		return Keyf(key+".dir", "no folder is named")
	case j.WrapKey == "":
		return Keyf(key+".wrap_key", "no key is named: write its URI")
	case j.CheckpointKey == "":
		return Keyf(key+".checkpoint_key", "no key is named: write its URI")
	}
	info, err := os.Stat(j.Dir)
	if err != nil {
		return Keyf(key+".dir", "%w: zegel-ceremony creates journals, daemons do not: restore it, or mount its disk", Missing{Err: err})
	}
	if !info.IsDir() {
		return Keyf(key+".dir", "%s is not a folder", j.Dir)
	}
	return nil
}

// FirstMissing is a KeyError for the first config key, in alphabetical order, whose value is empty; nil where all are there.
func FirstMissing(values map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if values[key] == "" {
			return Keyf(key, "no value")
		}
	}
	return nil
}
