package hsm

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"
)

// LimitStart has c give up starting a module in a process of its own after limit.
func LimitStart(c *Config, limit time.Duration) { c.startLimit = limit }

// Twin makes another pair under the label of uri, and asks the token for no proof of it, which Generate refuses to do.
func Twin(t *Tokens, uri string, algorithm KeyAlgorithm) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		mechanism, specific, err := k.keyPairMechanism(algorithm)
		if err != nil {
			return err
		}
		id := make([]byte, 16)
		rand.Read(id)
		public, private := pairTemplates(u.Object, id)
		_, _, err = k.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{mechanism}, append(public, specific...), private)
		return err
	})
}

// DestroyHalf removes one object of the pair that uri names.
func DestroyHalf(t *Tokens, uri string, public bool) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		p, err := k.findPair(session, u)
		if err != nil {
			return err
		}
		if public {
			return k.destroyObjects(session, p.public)
		}
		return k.destroyObjects(session, p.private)
	})
}

// SetID changes the CKA_ID of the public key that uri names.
func SetID(t *Tokens, uri string, id []byte) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		p, err := k.findPair(session, u)
		if err != nil {
			return err
		}
		return k.ctx.SetAttributeValue(session, p.public, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id)})
	})
}

// GenerateExtractable makes an AES key that could leave the token.
func GenerateExtractable(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		attribute := pkcs11.NewAttribute
		_, err := k.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			attribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attribute(pkcs11.CKA_TOKEN, true), attribute(pkcs11.CKA_LABEL, u.Object),
			attribute(pkcs11.CKA_VALUE_LEN, 32), attribute(pkcs11.CKA_EXTRACTABLE, true), attribute(pkcs11.CKA_SENSITIVE, false),
		})
		return err
	})
}

// GenerateLoosePair makes a P-256 pair of which the token may show, or wrap, the private key.
func GenerateLoosePair(t *Tokens, uri string, sensitive, extractable bool) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		mechanism, specific, err := k.keyPairMechanism(P256)
		if err != nil {
			return err
		}
		id := make([]byte, 16)
		rand.Read(id)
		public, private := pairTemplates(u.Object, id)
		for i, a := range private {
			switch a.Type {
			case pkcs11.CKA_SENSITIVE:
				private[i] = pkcs11.NewAttribute(a.Type, sensitive)
			case pkcs11.CKA_EXTRACTABLE:
				private[i] = pkcs11.NewAttribute(a.Type, extractable)
			}
		}
		_, _, err = k.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{mechanism}, append(public, specific...), private)
		return err
	})
}

// LogOut takes the login away from the whole process, as a restart of the device does.
func LogOut(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, _ URI, session pkcs11.SessionHandle) error { return k.ctx.Logout(session) })
}

// ChangePIN gives uri's token another PIN, as its owner may at any time.
func ChangePIN(t *Tokens, uri, from, to string) error {
	return onToken(t, uri, func(k *token, _ URI, session pkcs11.SessionHandle) error {
		return k.ctx.SetPIN(session, []byte(from), []byte(to))
	})
}

// CheckProtected runs the check after key generation on the AES key that uri names.
func CheckProtected(t *Tokens, uri string) error {
	return onToken(t, uri, func(k *token, u URI, session pkcs11.SessionHandle) error {
		o, err := k.findSecretKey(session, u)
		if err != nil {
			return err
		}
		return k.checkProtected(session, o, expected{})
	})
}

// LoseSessions closes the idle sessions of uri's token behind the pool's back, and says how many that were.
func LoseSessions(t *Tokens, uri string) (lost int, err error) {
	err = onToken(t, uri, func(k *token, u URI, _ pkcs11.SessionHandle) error {
		k.pool.mu.Lock()
		defer k.pool.mu.Unlock()
		for _, session := range k.pool.idle {
			if err := k.ctx.CloseSession(session.handle); err != nil {
				return err
			}
			lost++
		}
		return nil
	})
	return lost, err
}

// OpenSessions says how many sessions the pool of uri's token has open.
func OpenSessions(t *Tokens, uri string) (opened int, err error) {
	err = onToken(t, uri, func(k *token, u URI, _ pkcs11.SessionHandle) error {
		k.pool.mu.Lock()
		defer k.pool.mu.Unlock()
		opened = k.pool.opened
		return nil
	})
	return opened, err
}

func onToken(t *Tokens, uri string, do func(*token, URI, pkcs11.SessionHandle) error) error {
	u, err := ParseURI(uri)
	if err != nil {
		return err
	}
	k, err := t.token(u)
	if err != nil {
		return err
	}
	return k.administer(u, func(session pkcs11.SessionHandle) error { return do(k, u, session) })
}

// Faults are the codes of the table of faults, but CKR_OK, and whether each says that the token does not take the PIN.
func Faults() map[pkcs11.Error]bool {
	codes := make(map[pkcs11.Error]bool)
	for code, f := range faults {
		if f != faultNone {
			codes[code] = f == faultPIN
		}
	}
	return codes
}

// FindInMemory looks through every mapping of this process for the bytes that are hidden with every bit turned over, and says in which
// they are, and whether that one is locked.
func FindInMemory(t testing.TB, hidden []byte) []string {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	window, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(window)
	var found []string
	for _, m := range mappings(string(smaps)) {
		if m.from <= addressOf(window) && addressOf(window) < m.to {
			continue
		}
		for at := m.from; at < m.to; at += uintptr(len(window) - len(hidden)) {
			n, _ := memory.ReadAt(window[:min(len(window), int(m.to-at))], int64(at)) // [vvar] cannot be read
			if foundIn(window[:n], hidden) {
				found = append(found, m.name)
				break
			}
		}
	}
	return found
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func foundIn(window, hidden []byte) bool {
	for len(window) >= len(hidden) {
		i := bytes.IndexByte(window[:len(window)-len(hidden)+1], ^hidden[0])
		if i < 0 {
			return false
		}
		window = window[i:]
		same := true
		for j, c := range hidden {
			same = same && window[j] == ^c
		}
		if same {
			return true
		}
		window = window[1:]
	}
	return false
}

type mapping struct {
	from, to uintptr
	name     string
}

// mappings reads /proc/self/smaps (proc(5)).
func mappings(smaps string) []mapping {
	var list []mapping
	for line := range strings.Lines(smaps) {
		var m mapping
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.from, &m.to, &mode); n == 3 {
			m.name = strings.TrimSpace(line)
			if mode[0] == 'r' {
				list = append(list, m)
			}
		}
		if strings.HasPrefix(line, "VmFlags:") && strings.Contains(line, " lo ") && len(list) > 0 {
			list[len(list)-1].name += " locked"
		}
	}
	return list
}
