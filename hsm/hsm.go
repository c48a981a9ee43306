// Package hsm gives the daemons signing keys that they cannot read.
//
// A PKCS#11 module is a vendor's library. It shows slots; a slot may hold a token (an HSM partition, a smart card, a SoftHSM
// token); a process talks to a token through sessions; a key pair is two objects on the token, of one label and one
// CKA_ID. A [URI] (RFC 7512) names all of it in one line:
//
//	pkcs11:token=issuing;object=ca-2026?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin
//
// [Tokens.Key] turns it into a crypto.Signer. The process logs in once per token; signatures run on a bounded pool of sessions
// of that token and wait when all of them are busy. The object handles of a key are looked up once, when it is opened.
// A PIN the token has refused is not tried again by the same Tokens, and none is tried while the token reports one try
// left: a loop would lock the token. A login opens every private object of its token to the process, so keys that different
// processes use belong on tokens, or partitions, of their own.
//
// A softtoken: URI names a key in an encrypted file instead:
//
//	softtoken:object=ca-2026?dir=/var/lib/zegel/keys&pin-source=file:/etc/zegel/pin
//
// Such a key needs nothing installed and lies in the memory of the process that signs, so it is for demonstrations, tests and
// checkpoints; [IsSoftware] tells the two apart.
//
// A process has one Tokens: PKCS#11 keeps the login and the initialisation of a module per process, so closing one Tokens
// would pull the module from under another.
package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrClosed is wrapped by every call on Tokens, or on keys from it, after Tokens.Close.
	ErrClosed = errors.New("tokens are closed")
	// ErrNotFound is wrapped when no token, or no object on the token, is what the URI names.
	ErrNotFound = errors.New("not found")
	// ErrExists is wrapped by the generating calls when the name is taken.
	ErrExists = errors.New("already exists")
	// ErrMade is wrapped by the generating calls when the key is on the token, or in its file, all the same: it could not be
	// opened, or not be destroyed again, or token or disk reported its making as failed.
	ErrMade = errors.New("the key was made and still exists")
	// ErrLost is wrapped by calls on keys when the token no longer knows the login or the key: it was restarted, or somebody
	// logged out or destroyed the key. Every call fails from then on; the process has to be restarted.
	ErrLost = errors.New("the token has lost the login or the key: restart this program once the token is well")
	// ErrPINRefused is wrapped when a token, or the file of a soft token's key, does not open with the PIN given.
	ErrPINRefused = errors.New("PIN refused")
	// ErrWrapped is wrapped by WrappingKey.Unwrap for bytes that this key did not wrap, or that were changed since.
	ErrWrapped = errors.New("wrapped secret is damaged or belongs to another key")
)

// KeyAlgorithm names a key type: p256, p384, p521, rsa3072, rsa4096 or ed25519. Which of them may be used for what is for
// package policy to say; this package knows how they are made.
type KeyAlgorithm string

// The algorithms of new keys.
const (
	P256    KeyAlgorithm = "p256"
	P384    KeyAlgorithm = "p384"
	P521    KeyAlgorithm = "p521"
	RSA3072 KeyAlgorithm = "rsa3072"
	RSA4096 KeyAlgorithm = "rsa4096"
	Ed25519 KeyAlgorithm = "ed25519" // for checkpoints: not among the ECCG's agreed mechanisms, so not for services
)

// KeyAlgorithms returns every algorithm that a new key may have.
func KeyAlgorithms() []KeyAlgorithm {
	return []KeyAlgorithm{P256, P384, P521, RSA3072, RSA4096, Ed25519}
}

// ParseKeyAlgorithm reads the name; the error lists the names there are.
func ParseKeyAlgorithm(name string) (KeyAlgorithm, error) {
	if a := KeyAlgorithm(name); slices.Contains(KeyAlgorithms(), a) {
		return a, nil
	}
	var names []string
	for _, a := range KeyAlgorithms() {
		names = append(names, string(a))
	}
	return "", fmt.Errorf("read key algorithm %q: unknown; one of %s", name, strings.Join(names, ", "))
}
