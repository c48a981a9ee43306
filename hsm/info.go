package hsm

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// KeyInfo describes a key and the token that holds it.
type KeyInfo struct {
	URI              string `json:"uri"` // as Name: without PIN and module
	ID               string `json:"id"`  // CKA_ID, in lower-case hex; empty for a soft token's key
	Algorithm        string `json:"algorithm"`
	Bits             int    `json:"bits"`
	PublicKeySHA256  string `json:"public_key_sha256"` // of the SPKI DER, in lower-case hex; empty for a wrapping key
	Sensitive        bool   `json:"sensitive"`
	NeverExtractable bool   `json:"never_extractable"`
	GeneratedOnToken bool   `json:"generated_on_token"` // CKA_LOCAL
	Origin           string `json:"origin"`             // CKA_KEY_GEN_MECHANISM: how the token made it; empty where it does not say
	Token            string `json:"token"`
	Manufacturer     string `json:"manufacturer"`
	Model            string `json:"model"`
	SerialNumber     string `json:"serial_number"`
	Firmware         string `json:"firmware"`
	Certification    string `json:"certification"`   // of the device, as the configuration has it: standard and reference; empty: none is known
	CertifiedUntil   string `json:"certified_until"` // its last day, YYYY-MM-DD; empty: none is known
	Software         bool   `json:"software"`        // a softtoken: key
}

// Info is the inventory line of the key (EN 319 411-1 GEN-6.5.1-13A). The token is asked for the attributes each time. Of a key group it is
// the line of the first member that answers, under the group's name.
func (k *Key) Info() (KeyInfo, error) {
	info, err := k.publicInfo()
	if err != nil {
		return KeyInfo{}, err
	}
	return describe(info, k.gate, k.private.describe)
}

// Members are the inventory lines of all tokens that hold the key: one, or those of a key group. A member that does not answer has a line
// of which only URI and what the public key says are filled in; the error tells of it.
func (k *Key) Members() ([]KeyInfo, error) {
	g, ok := k.private.(*group)
	if !ok {
		info, err := k.Info()
		return []KeyInfo{info}, err
	}
	line, err := k.publicInfo()
	if err != nil {
		return nil, err
	}
	if err := k.gate.enter(); err != nil {
		return nil, fmt.Errorf("describe %s: %w", k.name, err)
	}
	defer k.gate.leave()
	var all []KeyInfo
	var errs []error
	for _, m := range g.members {
		info := line
		info.URI = m.uri.Name()
		if err := m.describe(&info); err != nil {
			errs = append(errs, fmt.Errorf("describe %s: %w", m.where(), err))
		}
		all = append(all, info)
	}
	return all, errors.Join(errs...)
}

// publicInfo is what the public key alone says.
func (k *Key) publicInfo() (KeyInfo, error) {
	info := KeyInfo{URI: k.name}
	info.Algorithm, info.Bits = algorithmOf(k.public)
	spki, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return KeyInfo{}, fmt.Errorf("describe %s: %w", k.name, err)
	}
	digest := sha256.Sum256(spki)
	info.PublicKeySHA256 = hex.EncodeToString(digest[:])
	return info, nil
}

// Info is the inventory line of the key; its algorithm is aes256.
func (w *WrappingKey) Info() (KeyInfo, error) {
	return describe(KeyInfo{URI: w.name, Algorithm: "aes256", Bits: 256}, w.gate, w.secret.describe)
}

func describe(info KeyInfo, g *gate, ask func(*KeyInfo) error) (KeyInfo, error) {
	if err := g.enter(); err != nil {
		return KeyInfo{}, fmt.Errorf("describe %s: %w", info.URI, err)
	}
	defer g.leave()
	if err := ask(&info); err != nil {
		return KeyInfo{}, fmt.Errorf("describe %s: %w", info.URI, err)
	}
	return info, nil
}

func (k *tokenKey) describe(info *KeyInfo) error {
	return k.token.describe(info, k.uri, k.private)
}

func (s *tokenSecret) describe(info *KeyInfo) error {
	return s.token.describe(info, s.uri, s.key)
}

func (t *token) describe(info *KeyInfo, u URI, h *handle) error {
	info.on(t.facts())
	return t.lookUp(u, func(session pkcs11.SessionHandle) error {
		at, err := h.in(t, session)
		if err != nil {
			return err
		}
		for kind, to := range map[uint]*bool{
			pkcs11.CKA_SENSITIVE:         &info.Sensitive,
			pkcs11.CKA_NEVER_EXTRACTABLE: &info.NeverExtractable,
			pkcs11.CKA_LOCAL:             &info.GeneratedOnToken,
		} {
			set, err := t.flag(session, at.object, kind)
			if err != nil {
				return err
			}
			*to = set
		}
		id, err := t.attribute(session, at.object, pkcs11.CKA_ID)
		if err != nil {
			return err
		}
		made, err := t.attribute(session, at.object, pkcs11.CKA_KEY_GEN_MECHANISM)
		info.ID, info.Origin = hex.EncodeToString(id), origin(made)
		return err
	})
}

// on puts the key on the token that facts describe.
func (i *KeyInfo) on(facts TokenInfo) {
	i.Token, i.Manufacturer, i.Model, i.SerialNumber, i.Firmware = facts.Label, facts.Manufacturer, facts.Model, facts.SerialNumber, facts.Firmware
	i.Certification, i.CertifiedUntil = facts.Certification, facts.CertifiedUntil
}

// TokenInfo describes a token and what it can do.
type TokenInfo struct {
	Label        string         `json:"label"`
	Manufacturer string         `json:"manufacturer"`
	Model        string         `json:"model"`
	SerialNumber string         `json:"serial_number"`
	Firmware     string         `json:"firmware"`
	Module       string         `json:"module"`     // path of the PKCS#11 module; empty for a soft token
	Library      string         `json:"library"`    // what the module says it is
	Sessions     int            `json:"sessions"`   // how many calls it is given at once; 0: no limit
	Algorithms   []KeyAlgorithm `json:"algorithms"` // of the keys it makes and signs with
	PSS          bool           `json:"pss"`        // RSA keys sign by RSASSA-PSS, too
	Wrapping     bool           `json:"wrapping"`   // it can hold a wrapping key
	Backup       bool           `json:"backup"`     // it has the mechanisms that Tokens.Backup and Restore take
	RNG          bool           `json:"rng"`        // CKF_RNG: it has a random number generator of its own
	Software     bool           `json:"software"`   // a softtoken:

	Certification  string `json:"certification"`   // of the device, as the configuration has it; empty: none is known
	CertifiedUntil string `json:"certified_until"` // its last day, YYYY-MM-DD; empty: none is known
}

// Token describes the token that uri names, whether or not there is an object of that name. It does not log in.
func (t *Tokens) Token(uri string) (TokenInfo, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return TokenInfo{}, fmt.Errorf("describe token: %w", err)
	}
	if err := t.gate.enter(); err != nil {
		return TokenInfo{}, fmt.Errorf("describe token of %s: %w", u.Name(), err)
	}
	defer t.gate.leave()
	if u.Software {
		return softTokenInfo(), nil
	}
	token, err := t.token(u)
	if err != nil {
		return TokenInfo{}, fmt.Errorf("describe token of %s: %w", u.Name(), err)
	}
	return token.facts(), nil
}

func (t *token) facts() TokenInfo {
	library := t.module.info
	info := TokenInfo{
		Label:        t.label,
		Manufacturer: unpad(t.info.ManufacturerID),
		Model:        unpad(t.info.Model),
		SerialNumber: unpad(t.info.SerialNumber),
		Firmware:     fmt.Sprintf("%d.%d", t.info.FirmwareVersion.Major, t.info.FirmwareVersion.Minor),
		Module:       t.module.path,
		Library: fmt.Sprintf("%s, %s %d.%d", unpad(library.ManufacturerID), unpad(library.LibraryDescription),
			library.LibraryVersion.Major, library.LibraryVersion.Minor),
		Sessions: cap(t.pool.busy),
		PSS:      t.has(pkcs11.CKM_RSA_PKCS_PSS),
		Wrapping: t.has(pkcs11.CKM_AES_KEY_GEN) && t.has(pkcs11.CKM_AES_GCM),
		Backup:   t.has(pkcs11.CKM_AES_KEY_GEN) && t.keyWrap() != nil && t.has(pkcs11.CKM_RSA_PKCS_OAEP),
		RNG:      t.info.Flags&pkcs11.CKF_RNG != 0,
	}
	certify(t.module.certifications, &info)
	for _, a := range KeyAlgorithms() {
		sign := uint(pkcs11.CKM_ECDSA)
		switch a {
		case RSA3072, RSA4096:
			sign = pkcs11.CKM_RSA_PKCS
		case Ed25519:
			sign = ckmEDDSA
		}
		if _, _, err := t.keyPairMechanism(a); err == nil && t.has(sign) {
			info.Algorithms = append(info.Algorithms, a)
		}
	}
	return info
}
