package hsm

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// The wrapping keys of backups. Three objects, each with one work:
//
//   - the backup key, AES-256, which the token's security officer makes: trusted (PKCS#11 v2.40 lets nobody else set CKA_TRUSTED, and SoftHSM
//     only in the call that makes the object), and therefore public, because officers see no private objects. It wraps and does not
//     unwrap, and nothing of it can be modified: whoever reaches the token without a PIN could otherwise open a backup with it.
//   - the transport key, RSA-4096, which the second token makes: its private half unwraps a backup key and does nothing else. The
//     first token's security officer takes its public half in, as trusted.
//   - the copy of the backup key on the second token: private, it unwraps and does not wrap, cannot be modified either, and unwraps
//     nothing but protected private keys (CKA_UNWRAP_TEMPLATE, which SoftHSM 2.6.1 enforces).
//
// None of them is ever in this process's memory.

// user is who logs in.
func (m *module) user() uint {
	if m.officer {
		return pkcs11.CKU_SO
	}
	return pkcs11.CKU_USER
}

// pinFlags are the flags of a token as far as they tell of the PIN that is used: the security officer's in the place of the user's.
func (m *module) pinFlags(flags uint) uint {
	if !m.officer {
		return flags
	}
	const users = pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_LOCKED
	out := flags &^ uint(users)
	for so, user := range map[uint]uint{
		pkcs11.CKF_SO_PIN_COUNT_LOW: pkcs11.CKF_USER_PIN_COUNT_LOW, pkcs11.CKF_SO_PIN_FINAL_TRY: pkcs11.CKF_USER_PIN_FINAL_TRY,
		pkcs11.CKF_SO_PIN_LOCKED: pkcs11.CKF_USER_PIN_LOCKED,
	} {
		if flags&so != 0 {
			out |= user
		}
	}
	return out
}

// hardware is token for what soft tokens cannot do.
func (t *Tokens) hardware(u URI) (*token, error) {
	if u.Software {
		return nil, errors.New("a soft token's keys are encrypted files: copy the file to back it up")
	}
	return t.token(u)
}

// asOfficer is hardware for what a token's security officer does.
func (t *Tokens) asOfficer(u URI) (*token, error) {
	if !t.config.SecurityOfficer {
		return nil, errors.New("only the token's security officer can do this: log in as such")
	}
	return t.hardware(u)
}

// GenerateBackupKey makes the AES-256 key that backups of the token's keys are wrapped under: trusted, so the logins of t must be the
// security officer's. It leaves the token only for a token whose transport key the officer has taken in.
func (t *Tokens) GenerateBackupKey(uri string) (KeyRecord, error) {
	return value(open(t, "generate backup key", uri, func(u URI) (*KeyRecord, error) {
		token, err := t.asOfficer(u)
		if err != nil {
			return nil, err
		}
		return token.generateBackupKey(u)
	}))
}

// value is a pointer's, or the zero value where there is an error.
func value[T any](p *T, err error) (v T, _ error) {
	if err != nil || p == nil {
		return v, err
	}
	return *p, nil
}

func (t *token) generateBackupKey(u URI) (*KeyRecord, error) {
	if !t.has(pkcs11.CKM_AES_KEY_GEN) || t.keyWrap() == nil {
		return nil, fmt.Errorf("token %q makes no AES keys or wraps under none (CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD): use the vendor's own way to copy keys", t.label)
	}
	var r KeyRecord
	err := t.administer(u, func(session pkcs11.SessionHandle) error {
		id, err := t.newID(session, u)
		if err != nil {
			return err
		}
		key, err := t.generateSecret(session, backupKeyTemplate(u.Object, id))
		if err != nil {
			return t.madeAnyway(session, id, fmt.Errorf("make backup key on token %q: C_GenerateKey: %w", t.label, err))
		}
		if err := t.checkBackupKey(session, key); err != nil {
			return t.discard(session, err, key)
		}
		if r, err = t.record(session, pkcs11.CKO_SECRET_KEY, key); err != nil {
			return fmt.Errorf("%w: %w", ErrMade, err)
		}
		return nil
	})
	return &r, err
}

func backupKeyTemplate(label string, id []byte) []*pkcs11.Attribute {
	attribute := pkcs11.NewAttribute
	return []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, false),
		attribute(pkcs11.CKA_SENSITIVE, true), attribute(pkcs11.CKA_EXTRACTABLE, true), attribute(pkcs11.CKA_WRAP_WITH_TRUSTED, true),
		attribute(pkcs11.CKA_TRUSTED, true), attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_LABEL, label), attribute(pkcs11.CKA_ID, id), attribute(pkcs11.CKA_VALUE_LEN, 32),
		attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_UNWRAP, false), attribute(pkcs11.CKA_ENCRYPT, false), attribute(pkcs11.CKA_DECRYPT, false),
		attribute(pkcs11.CKA_SIGN, false), attribute(pkcs11.CKA_VERIFY, false), attribute(pkcs11.CKA_DERIVE, false),
	}
}

// checkBackupKey wants what makes a key safe to wrap others under. It is asked anew for each backup.
func (t *token) checkBackupKey(session pkcs11.SessionHandle, key object) error {
	return t.checkFlags(session, key,
		[]uint{pkcs11.CKA_TOKEN, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_LOCAL, pkcs11.CKA_WRAP_WITH_TRUSTED, pkcs11.CKA_TRUSTED, pkcs11.CKA_WRAP},
		[]uint{pkcs11.CKA_MODIFIABLE, pkcs11.CKA_UNWRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_DERIVE})
}

// GenerateTransportKey makes the RSA-4096 pair that receives another token's backup key, and returns its public half. The private half is
// sensitive, never extractable, and unwraps nothing but protected secrets. Destroy it once the backup key is there.
func (t *Tokens) GenerateTransportKey(uri string) (*rsa.PublicKey, error) {
	return open(t, "generate transport key", uri, func(u URI) (*rsa.PublicKey, error) {
		token, err := t.hardware(u)
		if err != nil {
			return nil, err
		}
		return token.generateTransportKey(u)
	})
}

const transportBits = 4096

func (t *token) generateTransportKey(u URI) (public *rsa.PublicKey, err error) {
	if !t.has(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN) || !t.has(pkcs11.CKM_RSA_PKCS_OAEP) {
		return nil, fmt.Errorf("token %q has no RSA-OAEP (CKM_RSA_PKCS_OAEP): use the vendor's own way to copy keys", t.label)
	}
	err = t.administer(u, func(session pkcs11.SessionHandle) error {
		id, err := t.newID(session, u)
		if err != nil {
			return err
		}
		attribute := pkcs11.NewAttribute
		template, release := unwrapTemplate(wanted{pkcs11.CKA_SENSITIVE, true}, wanted{pkcs11.CKA_PRIVATE, true},
			wanted{pkcs11.CKA_EXTRACTABLE, false}, wanted{pkcs11.CKA_DECRYPT, false})
		defer release()
		p, err := t.generatePair(session, pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil),
			append(transportPublicTemplate(u.Object, id), attribute(pkcs11.CKA_MODULUS_BITS, transportBits), attribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})),
			append(protectedTemplate(pkcs11.CKO_PRIVATE_KEY, u.Object, id),
				attribute(pkcs11.CKA_SIGN, false), attribute(pkcs11.CKA_DECRYPT, false), attribute(pkcs11.CKA_DERIVE, false),
				attribute(pkcs11.CKA_UNWRAP, true), attribute(pkcs11.CKA_MODIFIABLE, false), template))
		if err != nil {
			return t.madeAnyway(session, id, fmt.Errorf("make transport key on token %q: C_GenerateKeyPair: %w", t.label, err))
		}
		u.ID = id
		want := expected{neverExtractable, []uint{pkcs11.CKA_UNWRAP}, []uint{pkcs11.CKA_SIGN, pkcs11.CKA_DECRYPT, pkcs11.CKA_DERIVE, pkcs11.CKA_MODIFIABLE}}
		err = t.checkPair(session, u, p, want)
		if err == nil {
			public, err = t.rsaKey(session, p.public)
		}
		if err != nil {
			return t.discard(session, err, p.private, p.public)
		}
		return nil
	})
	return public, err
}

func (t *token) rsaKey(session pkcs11.SessionHandle, o object) (*rsa.PublicKey, error) {
	key, err := t.publicKey(session, o)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the public key on token %q is no RSA key", t.label)
	}
	return public, nil
}

// transportPublicTemplate is a public key that wraps and does nothing else.
func transportPublicTemplate(label string, id []byte) []*pkcs11.Attribute {
	attribute := pkcs11.NewAttribute
	return []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_PRIVATE, false), attribute(pkcs11.CKA_MODIFIABLE, false),
		attribute(pkcs11.CKA_LABEL, label), attribute(pkcs11.CKA_ID, id),
		attribute(pkcs11.CKA_WRAP, true), attribute(pkcs11.CKA_ENCRYPT, false), attribute(pkcs11.CKA_VERIFY, false),
	}
}

// ImportTransportKey takes the public half of another token's transport key in, as trusted: the backup key can be wrapped under it from
// here on, so the logins of t must be the security officer's, who has made sure that the key is that token's. An RSA key below 3072 bits
// is refused (TS 119 312).
func (t *Tokens) ImportTransportKey(uri string, public *rsa.PublicKey) error {
	_, err := open(t, "import transport key", uri, func(u URI) (*struct{}, error) {
		if public.N.BitLen() < 3072 {
			return nil, fmt.Errorf("an RSA key of %d bits: 3072 are the least", public.N.BitLen())
		}
		token, err := t.asOfficer(u)
		if err != nil {
			return nil, err
		}
		return nil, token.importTransportKey(u, public)
	})
	return err
}

func (t *token) importTransportKey(u URI, public *rsa.PublicKey) error {
	return t.administer(u, func(session pkcs11.SessionHandle) error {
		id, err := t.newID(session, u)
		if err != nil {
			return err
		}
		key, err := t.createPublic(session, append(transportPublicTemplate(u.Object, id),
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS, public.N.Bytes()),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(public.E)).Bytes()),
			pkcs11.NewAttribute(pkcs11.CKA_TRUSTED, true)))
		if err != nil {
			return t.madeAnyway(session, id, err)
		}
		now, err := t.rsaKey(session, key)
		if err == nil && !public.Equal(now) {
			err = fmt.Errorf("token %q shows another key than it was given", t.label)
		}
		if err == nil {
			err = t.checkTransportKey(session, key)
		}
		if err != nil {
			return t.discard(session, err, key)
		}
		return nil
	})
}

// checkTransportKey wants what makes a public key safe to wrap a backup key under.
func (t *token) checkTransportKey(session pkcs11.SessionHandle, key object) error {
	return t.checkFlags(session, key, []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_TRUSTED, pkcs11.CKA_WRAP}, []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_VERIFY, pkcs11.CKA_MODIFIABLE})
}

func (t *token) createPublic(session pkcs11.SessionHandle, template []*pkcs11.Attribute) (object, error) {
	key, err := failpoint.Value(failpoint.CreatePublicKey, func() (object, error) { return t.ctx.CreateObject(session, template) })
	if err != nil {
		return 0, fmt.Errorf("store public key on token %q: C_CreateObject: %w", t.label, err)
	}
	return key, nil
}

// findLonePublic returns the one public key that u names. It must have no private half on the token.
func (t *token) findLonePublic(session pkcs11.SessionHandle, u URI) (object, error) {
	if u.Object == "" && len(u.ID) == 0 {
		return 0, errors.New("the URI names no object: add object=LABEL or id=%XX… to it")
	}
	public, err := t.find(session, u.template(pkcs11.CKO_PUBLIC_KEY))
	if err != nil {
		return 0, err
	}
	private, err := t.find(session, u.template(pkcs11.CKO_PRIVATE_KEY))
	switch {
	case err != nil:
		return 0, err
	case len(private) > 0:
		return 0, fmt.Errorf("the public key on token %q has its private half there: leave type=public out to mean both", t.label)
	case len(public) == 0:
		return 0, fmt.Errorf("find public key on token %q: none of that name: check object and id: %w", t.label, ErrNotFound)
	case len(public) > 1:
		return 0, fmt.Errorf("find public key on token %q: %d of that name, one is wanted: %s", t.label, len(public), t.distinguish(session, public, u))
	}
	return public[0], nil
}
