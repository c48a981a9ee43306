package hsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

// module is a loaded and initialised PKCS#11 library.
type module struct {
	path      string
	watch     *watch
	ctx       cryptoki.Library
	bare      cryptoki.Library        // ctx without limits, where it runs in this process: for measurements
	another   func() cryptoki.Library // the library in one more process; nil with isolation: none
	owned     bool                    // we initialised it, so we finalize it
	officer   bool                    // logins are the security officer's
	info      pkcs11.Info
	repairing chan struct{} // has one place, for the call that repairs
	pins      *pins

	mu          sync.Mutex
	tokens      map[uint]*token // by slot, guarded by mu
	initialised time.Time       // again, for the last time; guarded by mu

	certifications []Certification // as Settings
}

// loadModule loads the library and initialises it for use by many threads. c is complete.
func loadModule(path string, c Config, w *watch) (*module, error) {
	stat, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load PKCS#11 module %s: no such file: correct module-path or install the module", path)
	}
	if err != nil {
		return nil, fmt.Errorf("load PKCS#11 module: %w", err)
	}
	if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("load PKCS#11 module %s: not a file: module-path names the library itself", path)
	}
	m := &module{path: path, watch: w, owned: true, repairing: make(chan struct{}, 1), tokens: make(map[uint]*token)}
	if err := m.open(c); err != nil {
		return nil, err
	}
	switch err := m.ctx.Initialize(); {
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_LIBRARY_LOAD_FAILED)):
		return nil, fmt.Errorf("load PKCS#11 module %s: %w", path, err)
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		m.owned = false
	case err != nil:
		return nil, fmt.Errorf("initialise PKCS#11 module %s: C_Initialize: %w: check the module's own configuration and module_env", path, err)
	}
	if m.info, err = m.ctx.GetInfo(); err != nil {
		return nil, errors.Join(fmt.Errorf("read PKCS#11 module %s: C_GetInfo: %w", path, err), m.close())
	}
	return m, nil
}

// open chooses where the library runs.
func (m *module) open(c Config) (err error) {
	switch c.Isolation {
	case "", IsolationNone:
		if err := setEnvironment(c.ModuleEnv); err != nil {
			return err
		}
		if m.bare, err = cryptoki.Open(m.path); err != nil {
			return fmt.Errorf("load PKCS#11 module %s: %w", m.path, err)
		}
		m.ctx = cryptoki.Limit(m.bare, c.CallTimeout)
	case IsolationProcess:
		isolation := cryptoki.Isolation{Path: m.path, Env: c.ModuleEnv, Limit: c.CallTimeout, Start: c.startLimit, Log: m.watch.log}
		m.ctx = cryptoki.Isolate(isolation)
		m.bare = m.ctx
		isolation.Start = patience // who waits for a repair waits for the look, too
		m.another = func() cryptoki.Library { return cryptoki.Isolate(isolation) }
	default:
		return fmt.Errorf("load PKCS#11 module %s: isolation %q: give %s or %s", m.path, c.Isolation, IsolationNone, IsolationProcess)
	}
	return nil
}

// setEnvironment gives the module its variables. Through cgo, os.Setenv reaches the C library's environment too.
func setEnvironment(env map[string]string) error {
	for name, want := range env {
		if have, set := os.LookupEnv(name); set && have != want {
			return fmt.Errorf("set environment of PKCS#11 modules: %s is %q already, module_env says %q: unset one of the two", name, have, want)
		}
		if err := os.Setenv(name, want); err != nil {
			return fmt.Errorf("set environment of PKCS#11 modules: %s: %w", name, err)
		}
	}
	return nil
}

// close leaves the library in memory: some vendors' threads do not survive their code being unmapped.
func (m *module) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, t := range m.tokens {
		errs = append(errs, t.close())
	}
	if n := m.ctx.Stuck(); n > 0 {
		return errors.Join(append(errs, fmt.Errorf("finalize PKCS#11 module %s: not done: %d calls into it have not returned", m.path, n))...)
	}
	if m.owned {
		if err := m.ctx.Finalize(); err != nil {
			errs = append(errs, fmt.Errorf("finalize PKCS#11 module %s: C_Finalize: %w", m.path, err))
		}
	}
	return errors.Join(errs...)
}

// token returns the one token among the module's slots that has every attribute u asks for.
func (m *module) token(u URI, s Settings) (*token, error) {
	if err := m.checkLibrary(u.Library); err != nil {
		return nil, err
	}
	var found *token
	err := m.ask(func() (err error) {
		found, err = m.findToken(u, s)
		return err
	})
	return found, err
}

// ask calls do, which only reads, and once more where the library had to be initialised again.
func (m *module) ask(do func() error) error {
	locked := func() error {
		m.mu.Lock() // no call of these is inside the library while it is initialised again
		defer m.mu.Unlock()
		return do()
	}
	err := locked()
	if faultOf(err) != faultModule {
		return err
	}
	m.repairing <- struct{}{}
	failed := m.reinitialise(nil, time.Now().Add(patience))
	<-m.repairing
	if failed != nil {
		return fmt.Errorf("%w; repair: %w", err, failed)
	}
	return locked()
}

// findToken is token for who holds m.mu.
func (m *module) findToken(u URI, s Settings) (*token, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("list slots of PKCS#11 module %s: C_GetSlotList: %w", m.path, err)
	}
	var matches []uint
	var matched pkcs11.TokenInfo
	var present []string
	for _, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		if faultOf(err) == faultModule || hangs(err) != nil {
			return nil, fmt.Errorf("ask slot %d of PKCS#11 module %s: C_GetTokenInfo: %w", slot, m.path, err)
		}
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // no token to talk to; the list below shows those that are
		}
		present = append(present, fmt.Sprintf("%q (serial %s, slot %d)", info.Label, info.SerialNumber, slot))
		if u.matchesToken(slot, info) {
			matches, matched = append(matches, slot), info
		}
	}
	switch {
	case len(matches) == 1:
		return m.tokenAt(matches[0], matched, s)
	case len(present) == 0:
		return nil, fmt.Errorf("find token with PKCS#11 module %s: no initialised token in any slot: check the module's environment (module_env), the device and its client: %w", m.path, ErrNotFound)
	case len(matches) == 0:
		return nil, fmt.Errorf("find token with PKCS#11 module %s: none matches; present: %s: correct the URI, or connect the token: %w", m.path, strings.Join(present, ", "), ErrNotFound)
	}
	return nil, fmt.Errorf("find token with PKCS#11 module %s: %d tokens match: add serial= to the URI; present: %s", m.path, len(matches), strings.Join(present, ", "))
}

func (m *module) checkLibrary(want Library) error {
	have := m.info
	version := fmt.Sprintf("%d.%d", have.LibraryVersion.Major, have.LibraryVersion.Minor)
	if want.Manufacturer != "" && want.Manufacturer != unpad(have.ManufacturerID) ||
		want.Description != "" && want.Description != unpad(have.LibraryDescription) ||
		want.Version != "" && want.Version != version && want.Version != fmt.Sprint(have.LibraryVersion.Major) {
		return fmt.Errorf("PKCS#11 module %s is %q %q version %s, not what the URI's library attributes ask for",
			m.path, unpad(have.ManufacturerID), unpad(have.LibraryDescription), version)
	}
	return nil
}

func (u URI) matchesToken(slot uint, info pkcs11.TokenInfo) bool {
	return (u.SlotID == nil || *u.SlotID == slot) &&
		(u.Token == "" || u.Token == unpad(info.Label)) &&
		(u.Serial == "" || u.Serial == unpad(info.SerialNumber)) &&
		(u.Manufacturer == "" || u.Manufacturer == unpad(info.ManufacturerID)) &&
		(u.Model == "" || u.Model == unpad(info.Model))
}

// unpad undoes the padding of a CK_INFO field: blanks by the standard, zero bytes with some vendors.
func unpad(field string) string { return strings.TrimRight(field, " \x00") }

func (m *module) tokenAt(slot uint, info pkcs11.TokenInfo, s Settings) (*token, error) {
	if t := m.tokens[slot]; t != nil {
		return t, nil
	}
	listed, err := m.ctx.GetMechanismList(slot)
	if err != nil {
		return nil, fmt.Errorf("list mechanisms of token %q: C_GetMechanismList: %w", unpad(info.Label), err)
	}
	t := &token{module: m, ctx: m.ctx, slot: slot, info: info, label: unpad(info.Label)}
	for _, mechanism := range listed {
		t.mechanisms = append(t.mechanisms, mechanism.Mechanism)
	}
	slices.Sort(t.mechanisms)
	t.counts = &counts{seconds: m.watch.seconds.WithLabelValues(printable(t.label), printable(unpad(info.SerialNumber)))}
	t.pool = newPool(t, sessionLimit(info, s.Sessions), s.MaxWaiting)
	m.tokens[slot] = t
	m.watch.add(t)
	return t, nil
}

// sessionLimit is how many sessions the pool may open: as configured, and one less than the token has, because the token's
// administrative session is open beside them.
func sessionLimit(info pkcs11.TokenInfo, configured int) int {
	const unavailable = ^uint(0) // CK_UNAVAILABLE_INFORMATION; 0 is CK_EFFECTIVELY_INFINITE
	if limit := info.MaxSessionCount; limit != 0 && limit != unavailable && limit-1 < uint(configured) {
		return max(1, int(limit-1))
	}
	return configured
}
