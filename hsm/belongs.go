package hsm

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// BelongsTo reports why certificate, which file holds, is not that of the key: token, object, file, both public keys and the remedy.
func (k *Key) BelongsTo(certificate *x509.Certificate, file string) error {
	if public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(certificate.PublicKey) {
		return nil
	}
	mine, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil {
		return fmt.Errorf("encode public key of %s: %w", k.name, err)
	}
	return fmt.Errorf("%s is not the key of the certificate in %s (%s): the SHA-256 of its public key is %x, of the certificate's %x: "+
		"find the key with that digest by zegel token keys or in the key report, and name it, or name the certificate of this key",
		k.name, file, certificate.Subject, sha256.Sum256(mine), sha256.Sum256(certificate.RawSubjectPublicKeyInfo))
}
