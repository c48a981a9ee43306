package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// ErrDistrusted is wrapped by every call on a token that has returned a wrong answer: a signature that the public key does not
// verify, or a wrapped secret that does not open again. The wrong answer has not left this package. The token fails every call
// from then on, until Tokens.Trust or a restart: a device that was wrong once is not asked to be right by luck. Of a soft token
// it is that one key.
var ErrDistrusted = errors.New("it gave a wrong answer and is trusted no more")

// VerifiesSignatures says that Sign returns no signature that Public does not verify, so that its callers need not verify it once
// more. It is true of every Key. A type that embeds a Key and changes what Sign returns has to say otherwise.
func (k *Key) VerifiesSignatures() bool { return true }

// verifies judges a signature by Go, not by the token that made it.
func (s signing) verifies(public crypto.PublicKey, signature []byte) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, s.input, signature)
	case *rsa.PublicKey:
		if s.scheme == schemePSS {
			options := rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
			return rsa.VerifyPSS(k, s.hash, s.input, signature, &options) == nil
		}
		return rsa.VerifyPKCS1v15(k, s.hash, s.input, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, s.input, signature)
	}
	return false
}

// trust is what is left of it in a token, or in a key in memory. The zero value trusts.
type trust struct{ lost atomic.Pointer[loss] }

// loss is why and when trust was lost.
type loss struct {
	name  string // of what is trusted no more
	cause error
	at    time.Time
}

// lose ends the trust in what is named, for cause, and returns what every later call fails with. The first loss is the one that is
// logged and kept.
func (t *trust) lose(log *slog.Logger, name string, cause error) error {
	if t.lost.CompareAndSwap(nil, &loss{name, fmt.Errorf("%w: %w", ErrDistrusted, cause), time.Now()}) {
		log.Error("a wrong signature or wrapped secret: taken out of service", "token", name, "cause", cause.Error(),
			"remedy", "have the device examined; its keys are not used until zegel token activate --trust, or a restart")
	}
	return t.check()
}

// check returns nil while there is trust.
func (t *trust) check() error {
	l := t.lost.Load()
	if l == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", l.name, l.why())
}

func (l *loss) why() error {
	return fmt.Errorf("%w, on %s: have it examined, and only then zegel token activate --trust, or restart this program", l.cause, l.at.UTC().Format(time.RFC3339))
}

// restore trusts again, and reports whether that was lost.
func (t *trust) restore() bool { return t.lost.Swap(nil) != nil }

// name is what people know the token by.
func (t *token) name() string {
	return fmt.Sprintf("token %q (serial %s)", t.label, unpad(t.info.SerialNumber))
}

// distrust takes the token out of service.
func (t *token) distrust(cause error) error {
	err := t.trust.lose(t.module.watch.log, t.name(), cause)
	t.counts.failed(err)
	return err
}

// Trust has the keys of the token that uri names used again after ErrDistrusted. It is for an officer to decide, once the device was
// examined. A soft token's key is refused: what went wrong is in the memory of this process.
func (t *Tokens) Trust(uri string) error {
	_, err := open(t, "trust token of", uri, func(u URI) (*struct{}, error) {
		if u.Software {
			return nil, errors.New("a key in memory that was wrong once is read anew by a restart only")
		}
		token, err := t.token(u)
		if err == nil && token.trust.restore() {
			t.config.Log.Warn("a token that had given a wrong answer is used again", "token", token.name())
		}
		return nil, err
	})
	return err
}
