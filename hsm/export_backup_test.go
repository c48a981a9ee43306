package hsm

import (
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/miekg/pkcs11"
)

// NoObject says what there is under the name of uri, if anything.
func NoObject(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		n, _, err := k.left(session, u)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d objects are left", n)
		}
		return err
	})
}

// GenerateUntrusted makes a backup key that nobody trusts, as a user can.
func GenerateUntrusted(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		var template []*pkcs11.Attribute
		for _, a := range backupKeyTemplate(u.Object, []byte(u.Object)) {
			if a.Type != pkcs11.CKA_TRUSTED && a.Type != pkcs11.CKA_MODIFIABLE {
				template = append(template, a)
			}
		}
		_, err := k.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
		return err
	})
}

// GenerateModifiable makes a key that unwraps as the copy of a backup key does, but can be modified.
func GenerateModifiable(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		attribute := pkcs11.NewAttribute
		_, err := k.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)},
			append(protectedTemplate(pkcs11.CKO_SECRET_KEY, u.Object, []byte(u.Object)), attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_UNWRAP, true),
				attribute(pkcs11.CKA_WRAP, false), attribute(pkcs11.CKA_ENCRYPT, false), attribute(pkcs11.CKA_DECRYPT, false)))
		return err
	})
}

// WrapRaw wraps the pair of uri under the secret key of under, asking nobody but the token.
func WrapRaw(t *Tokens, uri, under string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		p, err := k.findPair(session, u)
		if err != nil {
			return err
		}
		w, err := ParseURI(under)
		if err != nil {
			return err
		}
		wrapping, err := k.findSecretKey(session, w)
		if err != nil {
			return err
		}
		_, err = k.ctx.WrapKey(session, []*pkcs11.Mechanism{k.keyWrap()}, wrapping, p.private)
		return err
	})
}

// UnwrapRaw unwraps b for this session, as Restore does or so that it could be read. Without b, a transport key is tried: it is to unwrap
// nothing that can be read.
func UnwrapRaw(t *Tokens, uri string, b *Backup, asRestored bool) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		if b == nil {
			p, err := k.findPair(session, u)
			if err != nil {
				return err
			}
			_, err = k.ctx.SignOnce(session, pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil), p.private, []byte("x"), nil)
			return err
		}
		key, err := k.findSecretKey(session, u)
		if err != nil {
			return err
		}
		template := restoredTemplate(u, pkcs11.CKK_EC, false)
		for i, a := range template {
			if a.Type == pkcs11.CKA_SENSITIVE && !asRestored {
				template[i] = pkcs11.NewAttribute(a.Type, false)
			}
		}
		m, err := b.mechanism(k)
		if err != nil {
			return err
		}
		o, err := k.ctx.UnwrapKey(session, []*pkcs11.Mechanism{m}, key, b.Wrapped, template)
		if err != nil {
			return err
		}
		return k.ctx.DestroyObject(session, o)
	})
}

// SetFlag sets an attribute of the secret key of uri.
func SetFlag(t *Tokens, uri string, kind uint) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		key, err := k.findSecretKey(session, u)
		if err != nil {
			return err
		}
		return k.ctx.SetAttributeValue(session, key, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, true)})
	})
}

// NewTestBackup is a backup of nothing.
func NewTestBackup(public crypto.PublicKey) *Backup {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil
	}
	name, _ := algorithmOf(public)
	return &Backup{Version: 1, Kind: KeyPairBackup, Mechanism: namePAD, Wrapped: []byte{1, 2}, Label: "ca", ID: "0102", Algorithm: KeyAlgorithm(name), PublicKey: spki}
}

// GenerateAlwaysAuthenticate makes a pair that wants the PIN for each signature.
func GenerateAlwaysAuthenticate(t *Tokens, uri string, algorithm KeyAlgorithm) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		mechanism, specific, err := k.keyPairMechanism(algorithm)
		if err != nil {
			return err
		}
		public, private := pairTemplates(u.Object, []byte(u.Object))
		_, _, err = k.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{mechanism}, append(public, specific...),
			append(private, pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, true)))
		return err
	})
}

// SignWithoutPIN signs without a context login.
func SignWithoutPIN(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		p, err := k.findPair(session, u)
		if err != nil {
			return err
		}
		public, err := k.publicKey(session, p.public)
		if err != nil {
			return err
		}
		return k.tryToSign(session, p.private, public)
	})
}
