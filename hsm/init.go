package hsm

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/miekg/pkcs11"
)

// TokenInit says how an empty token is made ready.
type TokenInit struct {
	Module string // absolute path of the PKCS#11 library
	Label  string // CKA_LABEL of the token, at most 32 octets
	SOPIN  []byte // of the token's security officer
	PIN    []byte // of CKU_USER
}

// InitToken makes the module's first slot with an uninitialised token into a token of that label and
// sets both PINs (C_InitToken, C_InitPIN): what a demo, a test or a new HSM partition needs once. It refuses a
// label that the module already has. Use it before New opens the same module; PINs go over no command line.
func InitToken(c Config, i TokenInit) (err error) {
	if len(i.Label) == 0 || len(i.Label) > maxTokenLabel {
		return fmt.Errorf("initialise token: a label has 1 to %d octets", maxTokenLabel)
	}
	m, err := loadModule(i.Module, New(c).config, newWatch(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("initialise token %q: %w", i.Label, err)
	}
	defer func() { err = errors.Join(err, m.close()) }()
	slot, err := m.emptySlot(i.Label)
	if err != nil {
		return fmt.Errorf("initialise token %q: %w", i.Label, err)
	}
	if err := m.ctx.InitToken(slot, i.SOPIN, i.Label); err != nil {
		return fmt.Errorf("initialise token %q: C_InitToken: %w", i.Label, err)
	}
	if err := m.setUserPIN(slot, i); err != nil {
		return fmt.Errorf("initialise token %q: %w", i.Label, err)
	}
	return nil
}

// maxTokenLabel is the size of CK_TOKEN_INFO.label (PKCS#11 v2.40 §3.2).
const maxTokenLabel = 32

// emptySlot finds a slot whose token is not initialised; one that has the label already is an error.
func (m *module) emptySlot(label string) (uint, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("C_GetSlotList: %w", err)
	}
	empty, found := uint(0), false
	for _, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		if err != nil {
			return 0, fmt.Errorf("C_GetTokenInfo of slot %d: %w", slot, err)
		}
		switch initialised := info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0; {
		case initialised && unpad(info.Label) == label:
			return 0, errors.New("the module has a token of that label already: choose another label")
		case !initialised && !found:
			empty, found = slot, true
		}
	}
	if !found {
		return 0, fmt.Errorf("none of %d slots has an uninitialised token", len(slots))
	}
	return empty, nil
}

// setUserPIN logs the security officer in and sets CKU_USER's PIN.
func (m *module) setUserPIN(slot uint, i TokenInit) error {
	session, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("C_OpenSession: %w", err)
	}
	defer m.ctx.CloseSession(session) //nolint:errcheck // the module is finalized next
	if err := m.ctx.Login(session, pkcs11.CKU_SO, i.SOPIN); err != nil {
		return fmt.Errorf("C_Login of the security officer: %w", err)
	}
	if err := m.ctx.InitPIN(session, i.PIN); err != nil {
		return fmt.Errorf("C_InitPIN: %w", err)
	}
	if err := m.ctx.Logout(session); err != nil {
		return fmt.Errorf("C_Logout: %w", err)
	}
	return nil
}
