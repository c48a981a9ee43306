// Package hsm gives the daemons signing keys that they cannot read.
//
// A PKCS#11 module is a vendor's library. It shows slots; a slot may hold a token (an HSM partition, a smart card, a SoftHSM
// token); a process talks to a token through sessions; a key pair is two objects on the token, of one label and one
// CKA_ID. A [URI] (RFC 7512) names all of it in one line:
//
//	pkcs11:token=issuing;object=ca-2026?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin
//
// [Tokens.Key] turns it into a crypto.Signer. The process logs in once per token; signatures run on a bounded pool of sessions
// of that token and wait when all of them are busy ([ErrBusy]: too many, or too long). The object handles of a key are looked up once, when it is
// opened. Every signature is verified before it is returned; a token that gave a wrong one is asked no more ([ErrDistrusted]). Several
// URIs name one key on several tokens, of which one that fails keeps nobody waiting.
//
// Sessions, logins and devices that are lost are repaired by the call that finds out, in at most 2 s and without a restart: it
// opens a new session, then logs in again and finds its key again (the same public key, or [ErrLost]), then initialises the
// module again, and runs once more after each. The class of each CKR code, which says where that begins, is in the table
// faults. A call that came to nothing may so have been made twice by the token. When nothing helps, the token's calls fail
// at once for a while ([ErrUnavailable]) until one of them finds it well. A token that nobody calls is asked for its state now and then, and
// repaired likewise. What only reads goes that way; what makes or destroys a key is asked once.
//
// Every call has a limit ([Settings.CallTimeout]). With [IsolationProcess] a module has a process of its own, and a call beyond its limit, or a crash, ends
// that process and is repaired like a lost module; programs that use it call [RunHelper] first. With [IsolationNone] the caller is freed, but
// the call is not: it keeps its thread and session, and the module cannot be initialised again until it has returned.
//
// A PIN is read from its pin-source at the first login and then kept in locked memory, so that repairs need neither the source nor
// anybody; [Tokens.Close] and [Tokens.Deactivate] wipe it. With prompt or shares: as pin-source it is entered ([Tokens.Enter]). One that
// the token has refused is not tried again until [Tokens.Activate], and none is tried while the token reports one try
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
	// ErrLost is wrapped by calls on keys when the token, after a repair, shows another key under the name of the one that was
	// opened. Nothing is signed with that one.
	ErrLost = errors.New("the token has another key under this name now: restart this program once the token is well")
	// ErrUnavailable is wrapped by calls on keys while their token could not be repaired. They fail at once for pauses of 100
	// to 500 ms, after which one call tries again: once the token is back, so are its keys.
	ErrUnavailable = errors.New("the token is out of service")
	// ErrBusy is wrapped by calls that no session of their token was free for in time, or that too many others already waited for. The
	// token works: it was asked for more than it can do. Its Temporary method says so to those who do not know this package.
	ErrBusy error = busyError{}
	// ErrDeactivated is wrapped by every call on Tokens, or on keys from it, between Tokens.Deactivate and Tokens.Activate.
	ErrDeactivated = errors.New("the tokens are deactivated: zegel token activate")
	// ErrPINWanted is wrapped when a PIN that people enter was not.
	ErrPINWanted = errors.New("the PIN has not been entered")
	// ErrPINRefused is wrapped when a token, or the file of a soft token's key, does not open with the PIN given.
	ErrPINRefused = errors.New("PIN refused")
	// ErrStillThere is wrapped by Tokens.Destroy when the token still shows the private or secret key.
	ErrStillThere = errors.New("the key is not destroyed")
	// ErrGone is wrapped by Tokens.Destroy when the key is gone though the token reported its destruction as failed.
	ErrGone = errors.New("the key is gone all the same")
	// ErrNotForBackup is wrapped by Tokens.Backup for keys that were not made for it.
	ErrNotForBackup = errors.New("the key was not made for backup")
	// ErrWrapped is wrapped by WrappingKey.Unwrap for bytes that this key did not wrap, or that were changed since.
	ErrWrapped = errors.New("wrapped secret is damaged or belongs to another key")
)

// busyError is ErrBusy.
type busyError struct{}

func (busyError) Error() string { return "the token has more to do than it can" }

// Temporary tells that the same call will do later.
func (busyError) Temporary() bool { return true }

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
