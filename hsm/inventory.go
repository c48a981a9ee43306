package hsm

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
)

// PINState is what a token says of its user PIN, without being tried.
type PINState string

// The states of a user PIN. None but PINReady is a reason to look before a daemon is started.
const (
	PINReady    PINState = "ready"     // set, and no wrong one was entered since the last right one
	PINFewTries PINState = "few tries" // a wrong one was entered since
	PINFinalTry PINState = "final try" // one more wrong one locks the token; Tokens does not spend it
	PINLocked   PINState = "locked"    // the token's security officer must unlock it
	PINNotSet   PINState = "not set"   // the token's security officer must set one
	PINNotAsked PINState = "not asked" // the token wants no login
)

// Mechanism is a PKCS#11 mechanism that this package may use.
type Mechanism struct {
	Name    string `json:"name"` // as the standard has it: CKM_ECDSA
	Use     string `json:"use"`  // what it is for
	Present bool   `json:"present"`
}

// TokenState is a token as it is at the moment: what it is, and whether its keys can be reached.
type TokenState struct {
	TokenInfo
	Slot          uint        `json:"slot"` // 0 for a soft token
	Initialised   bool        `json:"initialised"`
	LoginRequired bool        `json:"login_required"`
	PIN           PINState    `json:"pin"`
	Mechanisms    []Mechanism `json:"mechanisms"` // those this package may use, present or not; none for a soft token
}

// List describes every token of the URI's module that the URI's path matches, in the order of their slots, also those that are not
// initialised. It logs in to none and reads no PIN. A softtoken: URI has one token. No match is ErrNotFound. Of a key group it lists
// the tokens of each member.
func (t *Tokens) List(uri string) ([]TokenState, error) {
	if members := strings.Fields(uri); len(members) > 1 {
		return ofEach(members, t.List)
	}
	u, err := ParseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	if err := t.gate.enter(); err != nil {
		return nil, fmt.Errorf("list tokens of %s: %w", u.Name(), err)
	}
	defer t.gate.leave()
	if u.Software {
		return []TokenState{{TokenInfo: softTokenInfo(), Initialised: true, LoginRequired: true, PIN: PINReady, Mechanisms: []Mechanism{}}}, nil
	}
	m, err := t.moduleOf(u)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	var states []TokenState
	err = m.ask(func() (err error) {
		states, err = m.states(u, t.config.Settings)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return states, nil
}

// ofEach is what list says of the members of a key group, one after the other.
func ofEach[T any](members []string, list func(string) ([]T, error)) ([]T, error) {
	var all []T
	for _, uri := range members {
		some, err := list(uri)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// moduleOf returns the loaded module of u. One that takes long to load keeps nobody from others.
func (t *Tokens) moduleOf(u URI) (*module, error) {
	if u.ModulePath == "" {
		return nil, errors.New("the URI has no module-path: add ?module-path=/absolute/path/of/the/pkcs11/module.so")
	}
	if m := t.loaded(u.ModulePath); m != nil {
		return m, nil
	}
	turn := t.loadingTurn(u.ModulePath)
	turn.Lock()
	defer turn.Unlock()
	if m := t.loaded(u.ModulePath); m != nil {
		return m, nil
	}
	m, err := loadModule(u.ModulePath, t.config, t.watch)
	if err != nil {
		return nil, err
	}
	m.pins = t.pins
	m.officer = t.config.SecurityOfficer
	m.certifications = t.config.Certifications
	t.mu.Lock()
	t.modules[u.ModulePath] = m
	t.mu.Unlock()
	t.keeper.start(t)
	return m, nil
}

func (t *Tokens) loaded(path string) *module {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.modules[path]
}

// loadingTurn is held by who loads the module. In this process one is loaded at a time, for each reads the environment that the next one sets.
func (t *Tokens) loadingTurn(path string) *sync.Mutex {
	if t.config.Isolation != IsolationProcess {
		path = ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	turn := t.loading[path]
	if turn == nil {
		turn = new(sync.Mutex)
		t.loading[path] = turn
	}
	return turn
}

// states asks every slot that has a token. The caller holds m.mu.
func (m *module) states(u URI, s Settings) ([]TokenState, error) {
	if err := m.checkLibrary(u.Library); err != nil {
		return nil, err
	}
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("list slots of PKCS#11 module %s: C_GetSlotList: %w", m.path, err)
	}
	slices.Sort(slots)
	var states []TokenState
	for _, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		if errors.Is(err, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT)) || errors.Is(err, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_RECOGNIZED)) {
			continue // taken out since, or nothing that PKCS#11 can speak to
		}
		if err != nil {
			return nil, fmt.Errorf("ask slot %d of PKCS#11 module %s: C_GetTokenInfo: %w", slot, m.path, err)
		}
		if !u.matchesToken(slot, info) {
			continue
		}
		_, known := m.tokens[slot]
		token, err := m.tokenAt(slot, info, s)
		if err != nil {
			return nil, err
		}
		states = append(states, token.state(info))
		if !known && info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			m.watch.remove(token)
			delete(m.tokens, slot) // it may have another label and serial number once it is initialised
		}
	}
	if len(states) == 0 {
		return nil, fmt.Errorf("none of the %d tokens of PKCS#11 module %s matches %s: check the URI, the module's own configuration and its environment: %w",
			len(slots), m.path, u.Name(), ErrNotFound)
	}
	return states, nil
}

func (t *token) state(info pkcs11.TokenInfo) TokenState {
	s := TokenState{
		TokenInfo:     t.facts(),
		Slot:          t.slot,
		Initialised:   info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0,
		LoginRequired: info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0,
		PIN:           pinState(info.Flags),
		Mechanisms:    mechanisms(),
	}
	for i, kind := range mechanismKinds() {
		s.Mechanisms[i].Present = t.has(kind)
	}
	return s
}

func pinState(flags uint) PINState {
	switch {
	case flags&pkcs11.CKF_LOGIN_REQUIRED == 0:
		return PINNotAsked
	case flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return PINNotSet
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return PINLocked
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return PINFinalTry
	case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return PINFewTries
	}
	return PINReady
}

// mechanisms are those that this package may use, in the order of mechanismKinds.
func mechanisms() []Mechanism {
	return []Mechanism{
		{Name: "CKM_EC_KEY_PAIR_GEN", Use: "make keys of P-256, P-384, P-521"},
		{Name: "CKM_ECDSA", Use: "sign with them"},
		{Name: "CKM_RSA_PKCS_KEY_PAIR_GEN", Use: "make RSA keys"},
		{Name: "CKM_RSA_PKCS", Use: "sign with them by RSASSA-PKCS1-v1_5"},
		{Name: "CKM_RSA_PKCS_PSS", Use: "sign with them by RSASSA-PSS"},
		{Name: "CKM_EC_EDWARDS_KEY_PAIR_GEN", Use: "make keys of Ed25519, for checkpoints"},
		{Name: "CKM_EDDSA", Use: "sign with them"},
		{Name: "CKM_AES_KEY_GEN", Use: "make the key that wraps the journal's"},
		{Name: "CKM_AES_GCM", Use: "wrap with it"},
	}
}

func mechanismKinds() []uint {
	return []uint{
		pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS,
		ckmECEdwardsKeyPairGen, ckmEDDSA, pkcs11.CKM_AES_KEY_GEN, pkcs11.CKM_AES_GCM,
	}
}

// KeyRecord is a line of the key inventory (EN 319 411-1 GEN-6.5.1-13A): a secret half, what its token lets be done with it, and
// the token. The flags are as the token reports them; a soft token reports none.
type KeyRecord struct {
	KeyInfo
	Label           string `json:"label"`
	AlwaysSensitive bool   `json:"always_sensitive"` // it never was anything but sensitive
	Extractable     bool   `json:"extractable"`      // it can leave the token, wrapped
	WrapWithTrusted bool   `json:"wrap_with_trusted"`
	// ForBackup: sensitive, and extractable only under keys that the token's security officer trusts: Tokens.Backup takes it.
	ForBackup bool `json:"for_backup"`
	// Restored: the key was not made on this token (no CKA_LOCAL) and is otherwise as Tokens.Restore leaves it. PKCS#11 does not tell
	// unwrapped keys from imported ones: one that somebody imported with the same attributes looks the same, and the journal's KeyDuty
	// is what proves that it was restored.
	Restored bool `json:"restored"`
	// Trusted: the token's security officer made or marked it, so that keys for backup are wrapped under it.
	Trusted     bool     `json:"trusted"`
	AlwaysLogin bool     `json:"always_authenticate"` // it wants the PIN for each signature, which Key gives it
	Usages      []string `json:"usages"`              // sign, decrypt, unwrap, derive, encrypt, verify, wrap
	Fault       string   `json:"fault,omitempty"`     // why the key cannot be used with this package
}

// maxListed bounds the secret halves of one class that Keys lists: what find returns.
const maxListed = 100

// Keys lists the private and the secret keys of the one token that uri names, those of its object and id where it has them. Unlike Key
// it refuses none: a key that Key or WrappingKey would not open has a Fault. It logs in, with the URI's PIN, once. Of a soft token it opens
// every key file in the URI's dir with that PIN, and stops at the first that it does not open. A token with 100 such keys or more has to be
// asked by object or id. Of a key group it lists the keys of each member.
func (t *Tokens) Keys(uri string) ([]KeyRecord, error) {
	if members := strings.Fields(uri); len(members) > 1 {
		return ofEach(members, t.Keys)
	}
	u, err := ParseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	if err := t.gate.enter(); err != nil {
		return nil, fmt.Errorf("list keys of %s: %w", u.Name(), err)
	}
	defer t.gate.leave()
	var records []KeyRecord
	if u.Software {
		records, err = t.softRecords(u)
	} else {
		var k *token
		if k, err = t.token(u); err == nil {
			records, err = k.records(u)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list keys of %s: %w", u.Name(), err)
	}
	return records, nil
}

// softRecords describes the key files of a soft token.
func (t *Tokens) softRecords(u URI) ([]KeyRecord, error) {
	if u.Dir == "" {
		return nil, errors.New("the URI needs dir=/absolute/path")
	}
	names := []string{u.Object}
	if u.Object == "" {
		files, err := os.ReadDir(u.Dir)
		if err != nil {
			return nil, fmt.Errorf("open soft token: %w", err)
		}
		names = nil
		for _, f := range files {
			if name, isKey := strings.CutSuffix(f.Name(), ".age"); isKey && checkSoftName(name) == nil {
				names = append(names, name)
			}
		}
	}
	records := []KeyRecord{}
	for _, name := range names {
		u.Object = name
		r, err := t.softRecord(u)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

func (t *Tokens) softRecord(u URI) (KeyRecord, error) {
	f, err := t.readSoftFile(u)
	if err != nil {
		return KeyRecord{}, err
	}
	defer clear(f.Key)
	r := KeyRecord{KeyInfo: KeyInfo{URI: u.Name(), Algorithm: f.Algorithm, Bits: 256}, Label: u.Object, Usages: []string{"encrypt", "decrypt"}}
	describeSoft(&r.KeyInfo)
	if f.Algorithm == softAES256 {
		return r, nil
	}
	k, err := f.signer(u)
	if err != nil {
		return KeyRecord{}, err
	}
	r.Usages = []string{"sign"}
	return r, r.setPublic(k.Public())
}

// setPublic fills in what the public key says.
func (r *KeyRecord) setPublic(public any) error {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encode public key of %s: %w", r.URI, err)
	}
	digest := sha256.Sum256(spki)
	r.PublicKeySHA256 = hex.EncodeToString(digest[:])
	r.Algorithm, r.Bits = algorithmOf(public)
	return nil
}

// records describes what u names on the token, private keys first.
func (t *token) records(u URI) ([]KeyRecord, error) {
	records := []KeyRecord{}
	err := t.lookUp(u, func(session pkcs11.SessionHandle) error {
		records = records[:0]
		for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY} {
			if u.Type != "" && (u.Type == "secret-key") != (class == pkcs11.CKO_SECRET_KEY) {
				continue
			}
			found, err := t.find(session, u.template(class))
			if err != nil {
				return err
			}
			if len(found) >= maxListed {
				return fmt.Errorf("token %q has %d keys of one class or more: add object= or id= to the URI", t.label, maxListed)
			}
			for _, o := range found {
				r, err := t.record(session, class, o)
				if err != nil {
					return err
				}
				records = append(records, r)
			}
		}
		return nil
	})
	if err == nil && len(records) == 0 && (u.Object != "" || len(u.ID) > 0) {
		err = fmt.Errorf("no private or secret key of that name on token %q: check object and id: %w", t.label, ErrNotFound)
	}
	return records, err
}

// record reads one key's attributes.
func (t *token) record(session pkcs11.SessionHandle, class uint, o object) (KeyRecord, error) {
	facts := t.facts()
	r := KeyRecord{Usages: []string{}}
	r.on(facts)
	label, err := t.attribute(session, o, pkcs11.CKA_LABEL)
	if err != nil {
		return r, err
	}
	id, err := t.attribute(session, o, pkcs11.CKA_ID)
	if err != nil {
		return r, err
	}
	u := URI{Token: t.label, Object: string(label), ID: id}
	if class == pkcs11.CKO_SECRET_KEY {
		u.Type = "secret-key"
	}
	r.Label, r.ID, r.URI = string(label), hex.EncodeToString(id), u.Name()
	made, err := t.attribute(session, o, pkcs11.CKA_KEY_GEN_MECHANISM)
	if err != nil {
		return r, err
	}
	r.Origin = origin(made)
	if err := t.readFlags(session, o, &r); err != nil {
		return r, err
	}
	if class == pkcs11.CKO_SECRET_KEY {
		return r, t.readSecret(session, o, &r)
	}
	return r, t.readPrivate(session, u, &r)
}

func (t *token) readFlags(session pkcs11.SessionHandle, o object, r *KeyRecord) error {
	for _, a := range []struct {
		kind uint
		to   *bool
	}{
		{pkcs11.CKA_SENSITIVE, &r.Sensitive}, {pkcs11.CKA_ALWAYS_SENSITIVE, &r.AlwaysSensitive}, {pkcs11.CKA_EXTRACTABLE, &r.Extractable},
		{pkcs11.CKA_NEVER_EXTRACTABLE, &r.NeverExtractable}, {pkcs11.CKA_LOCAL, &r.GeneratedOnToken},
		{pkcs11.CKA_WRAP_WITH_TRUSTED, &r.WrapWithTrusted}, {pkcs11.CKA_ALWAYS_AUTHENTICATE, &r.AlwaysLogin},
		{pkcs11.CKA_TRUSTED, &r.Trusted},
	} {
		set, err := t.flag(session, o, a.kind)
		if err != nil {
			return err
		}
		*a.to = set
	}
	for _, usage := range []struct {
		kind uint
		name string
	}{
		{pkcs11.CKA_SIGN, "sign"}, {pkcs11.CKA_DECRYPT, "decrypt"}, {pkcs11.CKA_UNWRAP, "unwrap"}, {pkcs11.CKA_DERIVE, "derive"},
		{pkcs11.CKA_ENCRYPT, "encrypt"}, {pkcs11.CKA_VERIFY, "verify"}, {pkcs11.CKA_WRAP, "wrap"},
	} {
		set, err := t.flag(session, o, usage.kind)
		if err != nil {
			return err
		}
		if set {
			r.Usages = append(r.Usages, usage.name)
		}
	}
	r.ForBackup = r.Sensitive && r.Extractable && r.WrapWithTrusted
	r.Restored = r.ForBackup && !r.GeneratedOnToken && !r.AlwaysSensitive
	if !r.Sensitive || r.Extractable && !r.WrapWithTrusted {
		r.Fault = "the key can leave its token (EN 319 411-1 GEN-6.5.2-04): make another"
	}
	return nil
}

// readPrivate adds what the public key of the pair says.
func (t *token) readPrivate(session pkcs11.SessionHandle, u URI, r *KeyRecord) error {
	p, err := t.findPair(session, u)
	if err == nil {
		var public any
		if public, err = t.publicKey(session, p.public); err == nil {
			return r.setPublic(public)
		}
	}
	var code pkcs11.Error
	if errors.As(err, &code) {
		return err // the token's trouble, not the key's
	}
	r.Fault = err.Error()
	return nil
}

func (t *token) readSecret(session pkcs11.SessionHandle, o object, r *KeyRecord) error {
	kind, err := t.attribute(session, o, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return err
	}
	size, err := t.attribute(session, o, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return err
	}
	octets, _ := ulong(size)
	number, _ := ulong(kind)
	r.Bits = int(8 * octets)
	r.Algorithm = fmt.Sprintf("CKK 0x%x", number)
	if number == pkcs11.CKK_AES {
		r.Algorithm = "aes" // of SoftHSM's unwrapped keys nobody knows the length
		if r.Bits > 0 {
			r.Algorithm = fmt.Sprintf("aes%d", r.Bits)
		}
	} else if r.Fault == "" {
		r.Fault = "no AES key: this program wraps with AES-256 only"
	}
	return nil
}
