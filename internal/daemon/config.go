package daemon

import (
	"fmt"
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
	// process: each PKCS#11 module runs in a process of its own, so that a call that does not return, or a crash of the module, costs that process and no
	// restart of the program. none: in the program itself, as in a ceremony unless its script says otherwise. Default process.
	Isolation string `yaml:"isolation,omitempty"`
	// How long a call of a PKCS#11 module may take before it counts as hanging: 100ms to 10m. What takes long by nature gets more: starting the
	// module, making keys. Default 2s.
	CallTimeout time.Duration `yaml:"call_timeout,omitempty"`
	// The certifications of the devices that hold keys (EN 319 411-1 GEN-6.5.2-02), which no token tells of itself: in the key inventory, and warned of
	// before they end. The first that fits a token counts. Under assurance: qualified the ceremony refuses a token without one, and
	// daemons warn. Optional.
	Certifications []Certification `yaml:"certifications,omitempty"`
}

// Certification is hsm.Certification in a configuration: an alias, so that the one converts to the other.
type Certification = struct {
	// The manufacturer, as `zegel token list` shows it. Required.
	Manufacturer string `yaml:"manufacturer"`
	// The model, as `zegel token list` shows it. Required.
	Model string `yaml:"model"`
	// The firmware, as `zegel token list` shows it; without it any. Optional.
	Firmware string `yaml:"firmware,omitempty"`
	// cc (ISO/IEC 15408, EAL 4 and more), eucc (the same under CIR (EU) 2024/482) or fips140-3 (level 3, which counts until 2030-12-31; CIR (EU)
	// 2025/1943, EN 319 411-1 GEN-6.5.2-02). Required.
	Standard string `yaml:"standard"`
	// The id of the certificate, as its scheme gives it. Required.
	Reference string `yaml:"reference"`
	// Its last day, like 2029-06-30; without it the certificate names none. Optional.
	Ends string `yaml:"ends,omitempty"`
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
	if s.Isolation != "" && s.Isolation != isolationNone && s.Isolation != isolationProcess {
		return Keyf(key+".isolation", "%q: give %s or %s", s.Isolation, isolationProcess, isolationNone)
	}
	if s.CallTimeout != 0 && (s.CallTimeout < 100*time.Millisecond || s.CallTimeout > 10*time.Minute) {
		return Keyf(key+".call_timeout", "%v: give 100ms to 10m, or leave it out for 2s", s.CallTimeout)
	}
	for i, c := range s.Certifications {
		if err := validateCertification(fmt.Sprintf("%s.certifications[%d]", key, i), c); err != nil {
			return err
		}
	}
	return nil
}

// validateCertification judges one certification; that it has ended is a warning's matter, not the configuration's fault.
func validateCertification(key string, c Certification) error {
	if err := FirstMissing(map[string]string{
		key + ".manufacturer": c.Manufacturer, key + ".model": c.Model, key + ".standard": c.Standard, key + ".reference": c.Reference,
	}); err != nil {
		return err
	}
	switch c.Standard {
	case "cc", "eucc", "fips140-3":
	case "fips140-2":
		return Keyf(key+".standard", "FIPS 140-2 certifies no device of a qualified provider: CC or EUCC at EAL 4, or FIPS 140-3 level 3 until the end of 2030, do (CIR (EU) 2025/1943, EN 319 411-1 GEN-6.5.2-02)")
	default:
		return Keyf(key+".standard", "%q is neither cc, eucc nor fips140-3 (EN 319 411-1 GEN-6.5.2-02)", c.Standard)
	}
	if day, err := time.Parse(time.DateOnly, c.Ends); c.Ends != "" && (err != nil || day.Year() < 2000) {
		return Keyf(key+".ends", "%q is no day: write it like 2029-06-30", c.Ends)
	}
	return nil
}

// ForDaemon are the settings with the default of daemons, which are to live longer than a call that hangs.
func (s TokenSettings) ForDaemon() TokenSettings {
	if s.Isolation == "" {
		s.Isolation = isolationProcess
	}
	return s
}

// The values of tokens.isolation, as package hsm has them.
const (
	isolationNone    = "none"
	isolationProcess = "process"
)

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
