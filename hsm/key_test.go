package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm/internal/cryptoki"
)

func TestParseKeyAlgorithm(t *testing.T) {
	for _, a := range KeyAlgorithms() {
		if got, err := ParseKeyAlgorithm(string(a)); got != a || err != nil {
			t.Errorf("ParseKeyAlgorithm(%q) = %q, %v", a, got, err)
		}
	}
	for _, name := range []string{"", "P256", "rsa2048", "p256 "} {
		if _, err := ParseKeyAlgorithm(name); err == nil || !strings.Contains(err.Error(), "p256, p384") {
			t.Errorf("ParseKeyAlgorithm(%q): %v, want an error that lists the names", name, err)
		}
	}
}

func TestECPublicKey(t *testing.T) {
	octets := func(b []byte) []byte { return append([]byte{4, byte(len(b))}, b...) }
	for _, spec := range curveSpecs()[:3] {
		private, err := ecdsa.GenerateKey(spec.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := asn1.Marshal(point)
		if err != nil {
			t.Fatal(err)
		}
		for name, form := range map[string][]byte{"OCTET STRING": wrapped, "bare": point} {
			got, err := ecPublicKey(spec.params, form)
			if err != nil || !private.PublicKey.Equal(got) {
				t.Errorf("%s, %s: %v, %v", spec.algorithm, name, got, err)
			}
		}
		point[len(point)-1] ^= 1
		for name, form := range map[string][]byte{"not on the curve": point, "empty": nil, "short": point[:len(point)-1], "trailing": append(wrapped, 0)} {
			if got, err := ecPublicKey(spec.params, form); err == nil {
				t.Errorf("%s, %s: %v", spec.algorithm, name, got)
			}
		}
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	oid, name := curveSpecs()[3].params, []byte(edwards25519Name)
	for _, form := range [][2][]byte{{oid, octets(public)}, {oid, public}, {name, public}} {
		if got, err := ecPublicKey(form[0], form[1]); err != nil || !public.Equal(got) {
			t.Errorf("Ed25519 %x: %v, %v", form, got, err)
		}
	}
	if got, err := ecPublicKey(oid, public[:31]); err == nil {
		t.Errorf("Ed25519 of 31 bytes: %v", got)
	}
	brainpool := []byte{6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7}
	if got, err := ecPublicKey(brainpool, public); err == nil || !strings.Contains(err.Error(), "2b2403030208010107") {
		t.Errorf("brainpoolP256r1: %v, %v; want an error that names the curve", got, err)
	}
}

// A bare point whose first bytes look like an OCTET STRING is still read as a point.
func TestECPublicKeyAmbiguous(t *testing.T) {
	for {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 63 { // 04 3f …: an OCTET STRING of the 63 bytes that follow
			continue
		}
		if got, err := ecPublicKey(curveSpecs()[0].params, point); err != nil || !private.PublicKey.Equal(got) {
			t.Errorf("%x: %v, %v", point, got, err)
		}
		return
	}
}

func TestRSAPublicKey(t *testing.T) {
	modulus := make([]byte, 384)
	modulus[0], modulus[383] = 0x80, 1
	key, err := rsaPublicKey(append([]byte{0}, modulus...), []byte{0, 1, 0, 1})
	if err != nil || key.E != 65537 || key.N.BitLen() != 3072 {
		t.Errorf("%v, %v", key, err)
	}
	even := bytes.Clone(modulus)
	even[383] = 2
	for name, bad := range map[string][2][]byte{
		"no modulus": {nil, {1, 0, 1}}, "short modulus": {modulus[300:], {1, 0, 1}}, "even modulus": {even, {1, 0, 1}},
		"no exponent": {modulus, nil}, "exponent 1": {modulus, {1}}, "even exponent": {modulus, {1, 0, 0}}, "large exponent": {modulus, {1, 0, 0, 0, 1}},
	} {
		if key, err := rsaPublicKey(bad[0], bad[1]); err == nil {
			t.Errorf("%s: %v", name, key)
		}
	}
}

func TestEncodeECDSA(t *testing.T) {
	for _, test := range []struct{ raw, want []byte }{
		{[]byte{0, 1, 0, 0x80}, []byte{0x30, 7, 2, 1, 1, 2, 2, 0, 0x80}},
		{[]byte{0x7f, 0xff, 0xff, 0}, []byte{0x30, 9, 2, 2, 0x7f, 0xff, 2, 3, 0, 0xff, 0}},
	} {
		if got, err := encodeECDSA(test.raw); err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("encodeECDSA(%x) = %x, %v; want %x", test.raw, got, err, test.want)
		}
	}
	for _, raw := range [][]byte{nil, {1}, {1, 2, 3}, {0, 1}, {1, 0}, {0, 0, 1, 1}} {
		if got, err := encodeECDSA(raw); err == nil {
			t.Errorf("encodeECDSA(%x) = %x", raw, got)
		}
	}
	raw := bytes.Repeat([]byte{0xff}, 132)
	der, err := encodeECDSA(raw) // P-521's length needs two octets
	var halves struct{ R, S *big.Int }
	if rest, parse := asn1.Unmarshal(der, &halves); err != nil || parse != nil || len(rest) != 0 || halves.R.BitLen() != 528 {
		t.Errorf("encodeECDSA of 132 bytes = %x, %v, %v", der, err, parse)
	}
}

func TestDigestInfoPrefix(t *testing.T) {
	for hash, oid := range map[crypto.Hash]asn1.ObjectIdentifier{
		crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
	} {
		digest := make([]byte, hash.Size())
		want, err := asn1.Marshal(struct {
			Algorithm struct {
				OID  asn1.ObjectIdentifier
				Null asn1.RawValue
			}
			Digest []byte
		}{struct {
			OID  asn1.ObjectIdentifier
			Null asn1.RawValue
		}{oid, asn1.NullRawValue}, digest})
		if err != nil {
			t.Fatal(err)
		}
		prefix, err := digestInfoPrefix(hash)
		if got := append(prefix, digest...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %x, %v; want %x", hash, got, err, want)
		}
	}
	if _, err := digestInfoPrefix(crypto.SHA1); err == nil {
		t.Error("SHA-1 has a prefix")
	}
}

func TestCheckSigning(t *testing.T) {
	ec, rsaKey, ed := &ecdsa.PublicKey{Curve: elliptic.P256()}, &rsa.PublicKey{N: big.NewInt(1), E: 3}, ed25519.PublicKey{}
	d := func(n int) []byte { return make([]byte, n) }
	pss := func(hash crypto.Hash, salt int) *rsa.PSSOptions { return &rsa.PSSOptions{Hash: hash, SaltLength: salt} }
	for _, test := range []struct {
		name   string
		public crypto.PublicKey
		digest []byte
		opts   crypto.SignerOpts
		want   scheme // empty: refused
	}{
		{"ECDSA", ec, d(32), crypto.SHA256, schemeECDSA},
		{"ECDSA, hash longer than the curve", ec, d(64), crypto.SHA512, schemeECDSA},
		{"ECDSA, SHA3", ec, d(32), crypto.SHA3_256, schemeECDSA},
		{"ECDSA, PSS options", ec, d(32), pss(crypto.SHA256, rsa.PSSSaltLengthEqualsHash), ""},
		{"ECDSA, SHA-1", ec, d(20), crypto.SHA1, ""},
		{"ECDSA, SHA-224", ec, d(28), crypto.SHA224, ""},
		{"ECDSA, short", ec, d(31), crypto.SHA256, ""},
		{"ECDSA, no hash", ec, d(32), crypto.Hash(0), ""},
		{"ECDSA, no options", ec, d(32), nil, ""},
		{"RSA", rsaKey, d(48), crypto.SHA384, schemePKCS1v15},
		{"RSA, raw", rsaKey, d(48), crypto.Hash(0), ""},
		{"RSA, SHA3", rsaKey, d(32), crypto.SHA3_256, ""},
		{"RSA, MD5+SHA1", rsaKey, d(36), crypto.MD5SHA1, ""},
		{"PSS", rsaKey, d(64), pss(crypto.SHA512, rsa.PSSSaltLengthEqualsHash), schemePSS},
		{"PSS, salt in bytes", rsaKey, d(64), pss(crypto.SHA512, 64), schemePSS},
		{"PSS, longest salt", rsaKey, d(64), pss(crypto.SHA512, rsa.PSSSaltLengthAuto), ""},
		{"PSS, other salt", rsaKey, d(64), pss(crypto.SHA512, 20), ""},
		{"PSS, no hash", rsaKey, d(64), pss(0, rsa.PSSSaltLengthEqualsHash), ""},
		{"Ed25519", ed, d(1000), crypto.Hash(0), schemeEd25519},
		{"Ed25519, empty message", ed, nil, &ed25519.Options{}, schemeEd25519},
		{"Ed25519ph", ed, d(64), crypto.SHA512, ""},
		{"Ed25519ctx", ed, d(64), &ed25519.Options{Context: "c"}, ""},
	} {
		got, err := checkSigning(test.public, test.digest, test.opts)
		if (err == nil) != (test.want != "") || got.scheme != test.want {
			t.Errorf("%s: %v, %v; want %q", test.name, got.scheme, err, test.want)
		}
	}
}

func TestSessionLimit(t *testing.T) {
	for _, test := range []struct {
		token            uint
		configured, want int
	}{
		{0, 32, 32}, {^uint(0), 32, 32}, {100, 32, 32}, {33, 32, 32}, {32, 32, 31}, {2, 32, 1}, {1, 32, 1}, {10, 4, 4},
	} {
		if got := sessionLimit(pkcs11.TokenInfo{MaxSessionCount: test.token}, test.configured); got != test.want {
			t.Errorf("token allows %d, configured %d: %d sessions, want %d", test.token, test.configured, got, test.want)
		}
	}
}

func TestSpoilsSession(t *testing.T) {
	wrap := func(code uint) error { return fmt.Errorf("sign: %w", pkcs11.Error(code)) }
	for name, err := range map[string]error{
		"session closed": wrap(pkcs11.CKR_SESSION_CLOSED), "session invalid": wrap(pkcs11.CKR_SESSION_HANDLE_INVALID),
		"device error": wrap(pkcs11.CKR_DEVICE_ERROR), "removed": wrap(pkcs11.CKR_DEVICE_REMOVED), "general": wrap(pkcs11.CKR_GENERAL_ERROR),
		"still active": wrap(pkcs11.CKR_OPERATION_ACTIVE), "logged out": wrap(pkcs11.CKR_USER_NOT_LOGGED_IN), "vendor": wrap(0x80000001),
		"object gone": wrap(pkcs11.CKR_OBJECT_HANDLE_INVALID), "key gone": wrap(pkcs11.CKR_KEY_HANDLE_INVALID),
	} {
		if !spoilsSession(err) {
			t.Errorf("%s: the session is kept", name)
		}
	}
	for name, err := range map[string]error{
		"success": nil, "our own": errors.New("x"), "length": wrap(pkcs11.CKR_DATA_LEN_RANGE), "mechanism": wrap(pkcs11.CKR_MECHANISM_INVALID),
	} {
		if spoilsSession(err) {
			t.Errorf("%s: the session is dropped", name)
		}
	}
}

// Every code that the binding can name has a class, and those that matter have the right one.
func TestFaults(t *testing.T) {
	for code := pkcs11.Error(0); code < 0x210; code++ {
		if _, ok := faults[code]; !ok && strings.Contains(code.Error(), "CKR_") {
			t.Errorf("%v has no class", code)
		}
	}
	wrap := func(code uint) error { return fmt.Errorf("C_Sign: %w", pkcs11.Error(code)) }
	for _, c := range []struct {
		err   error
		fault fault
		first repair
	}{
		{nil, faultNone, repairNothing},
		{errors.New("x"), faultNone, repairNothing},
		{wrap(pkcs11.CKR_DATA_LEN_RANGE), faultRequest, repairNothing},
		{wrap(pkcs11.CKR_SESSION_HANDLE_INVALID), faultSession, repairSession},
		{wrap(pkcs11.CKR_USER_NOT_LOGGED_IN), faultLogin, repairLogin},
		{wrap(pkcs11.CKR_KEY_HANDLE_INVALID), faultKey, repairLogin},
		{wrap(pkcs11.CKR_TOKEN_NOT_PRESENT), faultToken, repairLogin},
		{wrap(pkcs11.CKR_DEVICE_REMOVED), faultDevice, repairLogin},
		{wrap(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED), faultModule, repairModule},
		{wrap(pkcs11.CKR_GENERAL_ERROR), faultGeneral, repairSession},
		{wrap(0x80000001), faultGeneral, repairSession},
		{explainDecrypt("a", &cryptoki.CallError{Function: "C_Decrypt", Err: pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)}), faultNone, repairNothing},
		{explainDecrypt("a", &cryptoki.CallError{Function: "C_DecryptInit", Err: pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)}), faultGeneral, repairSession},
		{fmt.Errorf("%w: %w", ErrPINRefused, wrap(pkcs11.CKR_PIN_INCORRECT)), faultPIN, repairNothing},
		{fmt.Errorf("%w: %w", errNotFoundAgain, ErrNotFound), faultKey, repairLogin},
	} {
		if f := faultOf(c.err); f != c.fault || f.firstRepair() != c.first {
			t.Errorf("%v: fault %d, repair %d first; want %d, %d", c.err, f, f.firstRepair(), c.fault, c.first)
		}
	}
}

// The last try of a PIN is for somebody who looks at it.
func TestCheckTries(t *testing.T) {
	for name, c := range map[string]struct {
		flags uint
		may   bool
	}{
		"untouched":     {pkcs11.CKF_TOKEN_INITIALIZED, true},
		"one wrong":     {pkcs11.CKF_USER_PIN_COUNT_LOW, true},
		"one left":      {pkcs11.CKF_USER_PIN_COUNT_LOW | pkcs11.CKF_USER_PIN_FINAL_TRY, false},
		"locked":        {pkcs11.CKF_USER_PIN_FINAL_TRY | pkcs11.CKF_USER_PIN_LOCKED, true}, // C_Login says so
		"officer's PIN": {pkcs11.CKF_SO_PIN_FINAL_TRY, true},
	} {
		err := checkTries(c.flags)
		if (err == nil) != c.may || err != nil && (!errors.Is(err, ErrPINRefused) || !strings.Contains(err.Error(), "by hand")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever asked for a key learns that it exists even where it could not be opened afterwards.
func TestMade(t *testing.T) {
	fault := pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
	if key, err := made(&Key{}, fault); key != nil || !errors.Is(err, ErrMade) || !errors.Is(err, fault) {
		t.Errorf("not opened: %v, %v", key, err)
	}
	if key, err := made(&Key{}, nil); key == nil || err != nil {
		t.Errorf("opened: %v, %v", key, err)
	}
}
