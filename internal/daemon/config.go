package daemon

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/zegel-tsp/zegel/internal/desk"
)

// Common is the part every daemon's config starts with (inline it: `yaml:",inline"`).
type Common struct {
	Assurance string            `yaml:"assurance"`  // test or qualified; qualified refuses softtoken: keys and an unverified clock
	Clock     string            `yaml:"clock"`      // system or unverified
	ModuleEnv map[string]string `yaml:"module_env"` // environment of PKCS#11 modules
	Admin     TLSListener       `yaml:"admin"`      // mutual TLS
	Metrics   Listener          `yaml:"metrics"`    // /metrics and /health, plain HTTP
	Officers  []desk.Officer    `yaml:"officers"`   // who may call the admin listener, each with a client certificate and roles
}

// Listener is a plain HTTP address.
type Listener struct {
	Listen string `yaml:"listen"`
}

// TLSListener is an HTTPS address; with ClientCA it wants a client certificate from there.
type TLSListener struct {
	Listen      string `yaml:"listen"`
	Certificate string `yaml:"certificate"` // PEM file
	Key         string `yaml:"key"`         // PEM file, 0600
	ClientCA    string `yaml:"client_ca"`   // PEM file
}

// TLSClient is how a daemon or tool calls another over mutual TLS.
type TLSClient struct {
	CA          string `yaml:"ca"`          // PEM file: whose servers are believed
	Certificate string `yaml:"certificate"` // PEM file; with key, the client certificate shown
	Key         string `yaml:"key"`         // PEM file, 0600
}

// Journal is how a config names a journal that the daemon writes.
type Journal struct {
	Dir           string `yaml:"dir"`
	WrapKey       string `yaml:"wrap_key"`       // hsm URI
	CheckpointKey string `yaml:"checkpoint_key"` // hsm URI, Ed25519
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
		if strings.HasPrefix(strings.ToLower(keys[key]), "softtoken:") {
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
		return Keyf(key+".dir", "%w: zegel-ceremony creates journals, daemons do not", err)
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
