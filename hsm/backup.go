package hsm

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/miekg/pkcs11"
)

// ckmAESKeyWrapKWP is RFC 5649 by the name of PKCS#11 3.0; SoftHSM has it as CKM_AES_KEY_WRAP_PAD, whose meaning v2.40 left to the vendors.
const ckmAESKeyWrapKWP = 0x210b

// backupVersion is the version of backup files that this software writes, and the only one that it reads.
const backupVersion = 1

// What a Backup holds.
const (
	KeyPairBackup = "key pair"   // a private key, under a backup key
	BackupKeyCopy = "backup key" // a backup key, under a transport key
)

// Backup is a wrapped key with what is needed to make it a key again: the content of a backup file. Nobody can read the key in it who does not
// have a token with the key that it is wrapped under.
type Backup struct {
	Version   int          `json:"version"`
	Kind      string       `json:"kind"`      // KeyPairBackup or BackupKeyCopy
	Mechanism string       `json:"mechanism"` // CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD, CKM_RSA_PKCS_OAEP
	Wrapped   []byte       `json:"wrapped"`
	Label     string       `json:"label"`
	ID        string       `json:"id"` // CKA_ID, hex
	Algorithm KeyAlgorithm `json:"algorithm"`
	// PublicKey is the DER SubjectPublicKeyInfo of a key pair: what is restored must sign for it.
	PublicKey []byte `json:"public_key,omitempty"`
	// Under is the key that this one is wrapped under, Token the token that it came from.
	Under  WrappedUnder `json:"under"`
	Token  TokenName    `json:"token"`
	MadeAt time.Time    `json:"made_at"`
}

// WrappedUnder names a wrapping key.
type WrappedUnder struct {
	Label string `json:"label"`
	ID    string `json:"id"` // CKA_ID, hex
	// PublicKeySHA256 is that of a transport key (DER SubjectPublicKeyInfo, hex).
	PublicKeySHA256 string `json:"public_key_sha256,omitempty"`
	// CheckValue is a backup key's CKA_CHECK_VALUE, hex, where the token tells it.
	CheckValue string `json:"check_value,omitempty"`
}

// TokenName tells tokens apart.
type TokenName struct {
	Label        string `json:"label"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	SerialNumber string `json:"serial_number"`
}

// maxBackup bounds a backup file, in octets: RSA-4096 wraps to 2.4 KB.
const maxBackup = 64 << 10

// ParseBackup reads a backup file, strictly: one JSON object of this version, no key that is unknown, nothing behind it. It cannot tell whether
// anything in it was changed: Restore can, by the key.
func ParseBackup(text []byte) (*Backup, error) {
	b, err := parseBackup(text)
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	return b, nil
}

func parseBackup(text []byte) (*Backup, error) {
	if len(text) > maxBackup {
		return nil, fmt.Errorf("longer than %d octets", maxBackup)
	}
	var b Backup
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&b); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	if b.Version != backupVersion {
		return nil, fmt.Errorf("version %d: this software reads version %d", b.Version, backupVersion)
	}
	if err := checkText(b.Label, 255); err != nil {
		return nil, fmt.Errorf("label: %w", err)
	}
	if id, err := hex.DecodeString(b.ID); err != nil || len(id) == 0 || len(id) > 255 {
		return nil, errors.New("id: want 1 to 255 octets in hex")
	}
	if _, err := hex.DecodeString(b.Under.ID); err != nil {
		return nil, errors.New("under.id: want hex")
	}
	if len(b.Wrapped) == 0 {
		return nil, errors.New("wrapped is empty")
	}
	switch b.Kind {
	case BackupKeyCopy:
		if b.Mechanism != nameOAEP || b.Algorithm != aes256 || len(b.PublicKey) > 0 {
			return nil, fmt.Errorf("a backup key is aes256 under %s, without a public key", nameOAEP)
		}
		return &b, nil
	case KeyPairBackup:
		return &b, b.checkPair()
	}
	return nil, fmt.Errorf("kind %.40q is neither %q nor %q", b.Kind, KeyPairBackup, BackupKeyCopy)
}

func (b *Backup) checkPair() error {
	if b.Mechanism != nameKWP && b.Mechanism != namePAD {
		return fmt.Errorf("mechanism %.40q is neither %s nor %s", b.Mechanism, nameKWP, namePAD)
	}
	public, err := b.public()
	if err != nil {
		return err
	}
	if name, _ := algorithmOf(public); name != string(b.Algorithm) {
		return fmt.Errorf("the public key is of %s, the algorithm says %.20q", name, b.Algorithm)
	}
	if _, err := ParseKeyAlgorithm(string(b.Algorithm)); err != nil {
		return err
	}
	return nil
}

// public is the pair's public half.
func (b *Backup) public() (publicKey, error) {
	key, err := x509.ParsePKIXPublicKey(b.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("public_key: %w", err)
	}
	public, ok := key.(publicKey)
	if !ok {
		return nil, fmt.Errorf("public_key: a %T cannot sign", key)
	}
	return public, nil
}

// PublicKeySHA256 is that of the pair's SubjectPublicKeyInfo, hex; empty for a backup key.
func (b *Backup) PublicKeySHA256() string {
	if len(b.PublicKey) == 0 {
		return ""
	}
	digest := sha256.Sum256(b.PublicKey)
	return hex.EncodeToString(digest[:])
}

// The mechanisms by their standard names.
const (
	nameKWP  = "CKM_AES_KEY_WRAP_KWP"
	namePAD  = "CKM_AES_KEY_WRAP_PAD"
	nameOAEP = "CKM_RSA_PKCS_OAEP"
)

// aes256 is the algorithm of secret keys in records.
const aes256 KeyAlgorithm = "aes256"

// keyWrap is how the token wraps a private key under an AES key; nil: it does not.
func (t *token) keyWrap() *pkcs11.Mechanism {
	for _, kind := range []uint{ckmAESKeyWrapKWP, pkcs11.CKM_AES_KEY_WRAP_PAD} {
		if t.has(kind) {
			return pkcs11.NewMechanism(kind, nil)
		}
	}
	return nil
}

func mechanismName(m *pkcs11.Mechanism) string {
	switch m.Mechanism {
	case ckmAESKeyWrapKWP:
		return nameKWP
	case pkcs11.CKM_AES_KEY_WRAP_PAD:
		return namePAD
	}
	return nameOAEP
}

// mechanism is the one that b says, where the token has it.
func (b *Backup) mechanism(t *token) (*pkcs11.Mechanism, error) {
	kind := map[string]uint{nameKWP: ckmAESKeyWrapKWP, namePAD: pkcs11.CKM_AES_KEY_WRAP_PAD, nameOAEP: pkcs11.CKM_RSA_PKCS_OAEP}[b.Mechanism]
	if !t.has(kind) {
		return nil, fmt.Errorf("token %q has no %s, by which the key was wrapped", t.label, b.Mechanism)
	}
	if b.Mechanism == nameOAEP {
		return oaep(), nil
	}
	return pkcs11.NewMechanism(kind, nil), nil
}

// oaep is RSAES-OAEP with SHA-1 (RFC 8017 §7.1), the only hash that SoftHSM 2.6 takes; OAEP does not rest on its collision resistance.
func oaep() *pkcs11.Mechanism {
	const dataSpecified = 1 // CKZ_DATA_SPECIFIED: the label, which is empty
	var parameters []byte   // CK_RSA_PKCS_OAEP_PARAMS
	for _, field := range []uint{pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, dataSpecified, 0, 0} {
		parameters = append(parameters, ulongBytes(field)...)
	}
	return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, parameters)
}

// Backup wraps the key that uri names, which stays where it is, under the key of the same token that under names: a key pair made for
// backup under a backup key, or a backup key under another token's transport key. The token refuses, as this does before it asks, what
// its security officer does not trust. A pair that was not made for backup is ErrNotForBackup.
func (t *Tokens) Backup(uri, under string) (*Backup, error) {
	return open(t, "back up key", uri, func(u URI) (*Backup, error) {
		token, wrapping, err := t.withKey(u, under)
		if err != nil {
			return nil, err
		}
		return token.backup(u, wrapping)
	})
}

// withKey is the token of u, on which under names another key.
func (t *Tokens) withKey(u URI, under string) (*token, URI, error) {
	wrapping, err := ParseURI(under)
	if err != nil {
		return nil, wrapping, err
	}
	token, err := t.hardware(u)
	if err != nil {
		return nil, wrapping, err
	}
	other, err := t.hardware(wrapping)
	if err != nil {
		return nil, wrapping, err
	}
	if other != token {
		return nil, wrapping, fmt.Errorf("the key is on token %q and the one to wrap it under on token %q: name two keys of one token", token.label, other.label)
	}
	return token, wrapping, nil
}

func (t *token) backup(u, under URI) (*Backup, error) {
	facts := t.facts()
	b := &Backup{Version: backupVersion, MadeAt: time.Now().UTC().Truncate(time.Second),
		Token: TokenName{facts.Label, facts.Manufacturer, facts.Model, facts.SerialNumber}}
	err := t.administer(u, func(session pkcs11.SessionHandle) error {
		var wrapping, key object
		var mechanism *pkcs11.Mechanism
		p, err := t.findPair(session, u)
		switch {
		case err == nil:
			mechanism = t.keyWrap()
			key, wrapping, err = t.pairToWrap(session, p, under, b)
		case u.Type == "" && errors.Is(err, ErrNotFound), u.Type == "secret-key":
			mechanism = oaep()
			key, wrapping, err = t.backupKeyToWrap(session, u, under, b)
		}
		if err != nil {
			return err
		}
		if mechanism == nil {
			return fmt.Errorf("token %q wraps under no AES key: use the vendor's own way to copy keys", t.label)
		}
		b.Mechanism = mechanismName(mechanism)
		if b.Label, b.ID, err = t.objectName(session, key); err != nil {
			return err
		}
		if b.Wrapped, err = t.ctx.WrapKey(session, []*pkcs11.Mechanism{mechanism}, wrapping, key); err != nil {
			return fmt.Errorf("wrap key on token %q: C_WrapKey: %w (SoftHSM, for one, wraps no Ed25519 keys)", t.label, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// objectName is an object's label and its CKA_ID in hex.
func (t *token) objectName(session pkcs11.SessionHandle, o object) (label, id string, err error) {
	l, err := t.attribute(session, o, pkcs11.CKA_LABEL)
	if err != nil {
		return "", "", err
	}
	i, err := t.attribute(session, o, pkcs11.CKA_ID)
	return string(l), hex.EncodeToString(i), err
}

// pairToWrap makes sure that p was made for backup and that under is a backup key, and fills b in.
func (t *token) pairToWrap(session pkcs11.SessionHandle, p pair, under URI, b *Backup) (key, wrapping object, err error) {
	for _, kind := range []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP_WITH_TRUSTED} {
		set, err := t.flag(session, p.private, kind)
		if err != nil {
			return 0, 0, err
		}
		if !set {
			return 0, 0, fmt.Errorf("%w: its %s is false on token %q: copy it by the vendor's own means and enter that with zegel token record --act cloned",
				ErrNotForBackup, attributeName(kind), t.label)
		}
	}
	public, err := t.publicKey(session, p.public)
	if err != nil {
		return 0, 0, err
	}
	if b.PublicKey, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return 0, 0, fmt.Errorf("encode public key: %w", err)
	}
	name, _ := algorithmOf(public)
	b.Kind, b.Algorithm = KeyPairBackup, KeyAlgorithm(name)
	if wrapping, err = t.findSecretKey(session, under); err != nil {
		return 0, 0, err
	}
	if err := t.checkTrusted(session, wrapping, t.checkBackupKey); err != nil {
		return 0, 0, err
	}
	if b.Under.Label, b.Under.ID, err = t.objectName(session, wrapping); err != nil {
		return 0, 0, err
	}
	value, err := t.attribute(session, wrapping, pkcs11.CKA_CHECK_VALUE)
	b.Under.CheckValue = hex.EncodeToString(value)
	return p.private, wrapping, err
}

// checkTrusted tells a key that is no wrapping key from one that is.
func (t *token) checkTrusted(session pkcs11.SessionHandle, key object, check func(pkcs11.SessionHandle, object) error) error {
	trusted, err := t.flag(session, key, pkcs11.CKA_TRUSTED)
	if err != nil {
		return err
	}
	if !trusted {
		return fmt.Errorf("the key to wrap under is not trusted by the security officer of token %q (CKA_TRUSTED is false)", t.label)
	}
	if err := check(session, key); err != nil {
		return fmt.Errorf("the key to wrap under is none that this program made for it, and is not used: %w", err)
	}
	return nil
}

// backupKeyToWrap makes sure that u is a backup key and under a transport key that was taken in, and fills b in.
func (t *token) backupKeyToWrap(session pkcs11.SessionHandle, u, under URI, b *Backup) (key, wrapping object, err error) {
	if key, err = t.findSecretKey(session, u); err != nil {
		return 0, 0, err
	}
	if trusted, err := t.flag(session, key, pkcs11.CKA_TRUSTED); err != nil || !trusted {
		return 0, 0, errors.Join(err, fmt.Errorf("%w: the secret key is no backup key", ErrNotForBackup))
	}
	if err := t.checkBackupKey(session, key); err != nil {
		return 0, 0, err
	}
	under.Type = "public"
	if wrapping, err = t.findLonePublic(session, under); err != nil {
		return 0, 0, err
	}
	if err := t.checkTrusted(session, wrapping, t.checkTransportKey); err != nil {
		return 0, 0, err
	}
	public, err := t.rsaKey(session, wrapping)
	if err != nil {
		return 0, 0, err
	}
	if b.Under.PublicKeySHA256, err = digestOf(public); err != nil {
		return 0, 0, err
	}
	b.Kind, b.Algorithm = BackupKeyCopy, aes256
	b.Under.Label, b.Under.ID, err = t.objectName(session, wrapping)
	return key, wrapping, err
}

// digestOf is the SHA-256 of a public key's SubjectPublicKeyInfo, hex.
func digestOf(public crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	digest := sha256.Sum256(spki)
	return hex.EncodeToString(digest[:]), nil
}
