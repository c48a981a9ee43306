package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// Restore makes the key in b a key of the token that to names, under the label and id that to says, or else b's own. under names the key of
// the same token that unwraps it. Nothing of that name may be there. A key pair is tried before it is stored: unwrapped for this session
// alone, it must sign for the public key in b; the key that is stored must, too, and else is destroyed. It is as protected as it was:
// sensitive, and extractable only under trusted keys; what it has lost is CKA_LOCAL, CKA_ALWAYS_SENSITIVE and CKA_NEVER_EXTRACTABLE.
// Of a copied backup key nothing can be tried: that it unwraps shows when the first pair is restored.
func (t *Tokens) Restore(b *Backup, to, under string) (KeyRecord, error) {
	return value(open(t, "restore key to", to, func(u URI) (*KeyRecord, error) {
		token, wrapping, err := t.withKey(u, under)
		if err != nil {
			return nil, err
		}
		if u.Object == "" {
			u.Object = b.Label
		}
		if len(u.ID) == 0 {
			if u.ID, err = hex.DecodeString(b.ID); err != nil {
				return nil, fmt.Errorf("the backup's id: %w", err)
			}
		}
		return token.restore(b, u, wrapping)
	}))
}

func (t *token) restore(b *Backup, u, under URI) (*KeyRecord, error) {
	mechanism, err := b.mechanism(t)
	if err != nil {
		return nil, err
	}
	var r KeyRecord
	err = t.administer(u, func(session pkcs11.SessionHandle) (err error) {
		if u.ID, err = t.newID(session, u); err != nil {
			return err
		}
		if b.Kind == BackupKeyCopy {
			r, err = t.restoreBackupKey(session, b, unwrapping{mechanism: mechanism, under: under, to: u})
			return err
		}
		r, err = t.restorePair(session, b, unwrapping{mechanism: mechanism, under: under, to: u})
		return err
	})
	return &r, err
}

// unwrapping is how a key comes out of a backup.
type unwrapping struct {
	mechanism *pkcs11.Mechanism
	under, to URI
}

// unwrapWith asks the token for the key in b.
func (t *token) unwrapWith(session pkcs11.SessionHandle, w unwrapping, key object, b *Backup, template []*pkcs11.Attribute) (object, error) {
	o, err := failpoint.Value(failpoint.UnwrapKey, func() (object, error) {
		return t.ctx.UnwrapKey(session, []*pkcs11.Mechanism{w.mechanism}, key, b.Wrapped, template)
	})
	if err != nil {
		return 0, fmt.Errorf("unwrap key on token %q: C_UnwrapKey: %w: the file was changed or is wrapped under another key (%q, id %s)", t.label, err, b.Under.Label, b.Under.ID)
	}
	return o, nil
}

func (t *token) restorePair(session pkcs11.SessionHandle, b *Backup, w unwrapping) (r KeyRecord, err error) {
	public, err := b.public()
	if err != nil {
		return r, err
	}
	publicTemplate, keyType, err := publicTemplateOf(public, w.to)
	if err != nil {
		return r, err
	}
	key, err := t.findSecretKey(session, w.under)
	if err != nil {
		return r, err
	}
	if err := t.checkUnwrapping(session, key); err != nil {
		return r, err
	}
	// First for this session only: a file that was changed leaves nothing behind, not even if this process dies.
	trial, err := t.unwrapWith(session, w, key, b, restoredTemplate(w.to, keyType, false))
	if err != nil {
		return r, err
	}
	err = t.tryToSign(session, trial, public)
	if err = errors.Join(err, t.destroyObjects(session, trial)); err != nil {
		return r, fmt.Errorf("the backup is not that of its public key: %w", err)
	}
	private, err := t.unwrapWith(session, w, key, b, restoredTemplate(w.to, keyType, true))
	if err != nil {
		return r, t.madeAnyway(session, w.to.ID, err)
	}
	o, err := t.createPublic(session, publicTemplate)
	if err != nil {
		left, unknown := t.find(session, w.to.template(pkcs11.CKO_PUBLIC_KEY)) // a token that fails late has it all the same
		return r, t.discard(session, errors.Join(err, unknown), append(left, private)...)
	}
	want := []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP_WITH_TRUSTED, pkcs11.CKA_SIGN}
	err = t.checkFlags(session, private, want, []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE})
	if err == nil {
		err = t.checkRestored(session, w.to, pair{private, o}, public)
	}
	if err != nil {
		return r, t.discard(session, err, private, o)
	}
	if r, err = t.record(session, pkcs11.CKO_PRIVATE_KEY, private); err != nil {
		return r, fmt.Errorf("%w: %w", ErrMade, err)
	}
	return r, nil
}

// checkRestored wants the pair, and no other, under its name, and a signature from it.
func (t *token) checkRestored(session pkcs11.SessionHandle, u URI, made pair, public publicKey) error {
	found, err := t.findPair(session, u)
	if err != nil {
		return err
	}
	if found != made {
		return fmt.Errorf("token %q shows another pair under the restored one's name", t.label)
	}
	now, err := t.publicKey(session, made.public)
	if err != nil {
		return err
	}
	if !public.Equal(now) {
		return fmt.Errorf("token %q shows another public key than it was given", t.label)
	}
	return t.tryToSign(session, made.private, public)
}

// tryToSign has the key sign what nobody has chosen, and judges the signature by public.
func (t *token) tryToSign(session pkcs11.SessionHandle, private object, public crypto.PublicKey) error {
	input := make([]byte, crypto.SHA256.Size())
	rand.Read(input) // never fails: it ends the process instead
	hash := crypto.SHA256
	if _, message := public.(ed25519.PublicKey); message {
		hash = 0
	}
	s, err := checkSigning(public, input, hash)
	if err != nil {
		return err
	}
	mechanism, message, err := (&tokenKey{token: t, public: public}).prepare(s)
	if err != nil {
		return err
	}
	signature, err := t.ctx.SignOnce(session, mechanism, private, message, nil)
	if err != nil {
		return fmt.Errorf("try the key on token %q: %w", t.label, err)
	}
	if s.scheme == schemeECDSA {
		if signature, err = encodeECDSA(signature); err != nil {
			return err
		}
	}
	if !s.verifies(public, signature) {
		return errWrongSignature
	}
	return nil
}

// restoredTemplate asks for a private key as pairTemplates does for one for backup.
func restoredTemplate(u URI, keyType uint, stored bool) []*pkcs11.Attribute {
	_, private := pairTemplates(u.Object, u.ID)
	for i, a := range private {
		if a.Type == pkcs11.CKA_TOKEN {
			private[i] = pkcs11.NewAttribute(pkcs11.CKA_TOKEN, stored)
		}
	}
	return append(extractable(private), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType))
}

// publicTemplateOf is the public key object of public, and the CKA_KEY_TYPE of both halves.
func publicTemplateOf(public crypto.PublicKey, u URI) (template []*pkcs11.Attribute, keyType uint, err error) {
	attribute := pkcs11.NewAttribute
	template, _ = pairTemplates(u.Object, u.ID)
	name, _ := algorithmOf(public)
	var params []byte
	for _, spec := range curveSpecs() {
		if string(spec.algorithm) == name {
			params = spec.params
		}
	}
	point := func(bare []byte) []*pkcs11.Attribute {
		var b cryptobyte.Builder
		b.AddASN1OctetString(bare)
		return append(template, attribute(pkcs11.CKA_KEY_TYPE, keyType), attribute(pkcs11.CKA_EC_PARAMS, params), attribute(pkcs11.CKA_EC_POINT, b.BytesOrPanic()))
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		return append(template, attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA), attribute(pkcs11.CKA_MODULUS, k.N.Bytes()),
			attribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(k.E)).Bytes())), pkcs11.CKK_RSA, nil
	case *ecdsa.PublicKey:
		bare, err := k.Bytes()
		if err != nil || params == nil {
			return nil, 0, errors.Join(err, fmt.Errorf("a public key of %s", name))
		}
		keyType = pkcs11.CKK_EC
		return point(bare), keyType, nil
	case ed25519.PublicKey:
		keyType = ckkECEdwards
		return point(k), keyType, nil
	}
	return nil, 0, fmt.Errorf("a public key of type %T", public)
}

// checkUnwrapping wants what makes a key safe to unwrap others with: it would otherwise open the backup for whoever has the PIN, at once
// or, being modifiable, later.
func (t *token) checkUnwrapping(session pkcs11.SessionHandle, key object) error {
	for i, kind := range []uint{pkcs11.CKA_UNWRAP, pkcs11.CKA_SENSITIVE, pkcs11.CKA_PRIVATE, pkcs11.CKA_DECRYPT, pkcs11.CKA_EXTRACTABLE,
		pkcs11.CKA_MODIFIABLE, pkcs11.CKA_WRAP} {
		set, err := t.flag(session, key, kind)
		if err != nil {
			return err
		}
		if want := i < 3; set != want {
			return fmt.Errorf("the key to unwrap with has %s %v on token %q: it is no copy of a backup key that this program made", attributeName(kind), set, t.label)
		}
	}
	return nil
}

// restoreBackupKey makes a copy of another token's backup key that unwraps and does nothing else. It is unwrapped for this session, because only
// the template of C_CopyObject may say CKA_MODIFIABLE false.
func (t *token) restoreBackupKey(session pkcs11.SessionHandle, b *Backup, w unwrapping) (r KeyRecord, err error) {
	p, err := t.findPair(session, w.under)
	if err != nil {
		return r, err
	}
	public, err := t.publicKey(session, p.public)
	if err != nil {
		return r, err
	}
	if digest, err := digestOf(public); err != nil || digest != b.Under.PublicKeySHA256 {
		return r, errors.Join(err, fmt.Errorf("the backup key is wrapped under the transport key with SHA-256 %s, the one on token %q has %s", b.Under.PublicKeySHA256, t.label, digest))
	}
	attribute := pkcs11.NewAttribute
	template, release := unwrapTemplate(wanted{pkcs11.CKA_SENSITIVE, true}, wanted{pkcs11.CKA_PRIVATE, true},
		wanted{pkcs11.CKA_EXTRACTABLE, true}, wanted{pkcs11.CKA_WRAP_WITH_TRUSTED, true})
	defer release()
	trial, err := t.unwrapWith(session, w, p.private, b, []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attribute(pkcs11.CKA_TOKEN, false), attribute(pkcs11.CKA_PRIVATE, true), attribute(pkcs11.CKA_SENSITIVE, true), attribute(pkcs11.CKA_EXTRACTABLE, false),
		attribute(pkcs11.CKA_LABEL, w.to.Object), attribute(pkcs11.CKA_ID, w.to.ID), attribute(pkcs11.CKA_UNWRAP, true), attribute(pkcs11.CKA_WRAP, false),
		attribute(pkcs11.CKA_ENCRYPT, false), attribute(pkcs11.CKA_DECRYPT, false), attribute(pkcs11.CKA_SIGN, false), attribute(pkcs11.CKA_VERIFY, false),
		attribute(pkcs11.CKA_DERIVE, false), template})
	if err != nil {
		return r, err
	}
	key, err := failpoint.Value(failpoint.CopyKey, func() (object, error) {
		return t.ctx.CopyObject(session, trial, []*pkcs11.Attribute{attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_MODIFIABLE, false)})
	})
	failed := t.destroyObjects(session, trial) // of the session: it would go with it
	if err != nil {
		return r, errors.Join(t.madeAnyway(session, w.to.ID, fmt.Errorf("store backup key on token %q: C_CopyObject: %w", t.label, err)), failed)
	}
	err = errors.Join(failed, t.checkFlags(session, key, []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_UNWRAP},
		[]uint{pkcs11.CKA_MODIFIABLE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_DERIVE}))
	if err != nil {
		return r, t.discard(session, err, key)
	}
	if r, err = t.record(session, pkcs11.CKO_SECRET_KEY, key); err != nil {
		return r, fmt.Errorf("%w: %w", ErrMade, err)
	}
	return r, nil
}
