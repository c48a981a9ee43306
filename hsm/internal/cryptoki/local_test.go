package cryptoki

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// tiny builds testdata/tiny and opens it.
func tiny(t *testing.T) Library {
	t.Helper()
	l, err := Open(buildTiny(t))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func buildTiny(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "tiny.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-w", "-o", path, filepath.Join("testdata", "tiny", "tiny.c")).CombinedOutput(); err != nil {
		t.Fatalf("build the module (it needs a C compiler): %v\n%s", err, out)
	}
	return path
}

// A signature is one C_SignInit and one C_Sign, with the parameters given; a second C_Sign is called only where the first wants more room.
func TestSignOnce(t *testing.T) {
	l := tiny(t)
	pin := []byte("1234")
	at := uint64(uintptr(unsafe.Pointer(&pin[0])))
	for i, c := range []struct {
		message    string
		parameter  []byte
		contextPIN []byte
		want       string
	}{
		{"message", nil, nil, "signs 1 parameter 0 login -1 pin 0 0"},
		{"", []byte("pss"), nil, "signs 2 parameter 3 login -1 pin 0 0"},
		{"message", nil, pin, fmt.Sprintf("signs 3 parameter 0 login 2 pin %d 4", at)}, // the caller's memory itself
		{"Long", nil, nil, fmt.Sprintf("signs 5 parameter 0 login -1 pin %d 4", at)},
		{"message", nil, []byte{}, "signs 6 parameter 0 login 2"}, // an empty PIN is one, too
	} {
		got, err := l.SignOnce(1, pkcs11.NewMechanism(1, c.parameter), 2, []byte(c.message), c.contextPIN)
		if err != nil || !strings.HasPrefix(string(got), c.want) || (c.message == "Long") != (len(got) == 600) {
			t.Errorf("%d: %q, %v; want %q", i, strings.TrimRight(string(got), "\x00"), err, c.want)
		}
	}
}

// An error says which function failed, and wraps its code.
func TestSignOnceFails(t *testing.T) {
	l := tiny(t)
	for _, c := range []struct {
		mechanism  uint
		message    string
		contextPIN []byte
		function   string
		code       uint
	}{
		{pkcs11.CKR_MECHANISM_INVALID, "", nil, "C_SignInit", pkcs11.CKR_MECHANISM_INVALID},
		{1, "Fails", nil, "C_Sign", pkcs11.CKR_FUNCTION_FAILED},
		{1, "", []byte("wrong"), "C_Login", pkcs11.CKR_PIN_INCORRECT},
		{1, "", nil, "C_SignInit", pkcs11.CKR_OPERATION_ACTIVE}, // left by the login that failed
	} {
		_, err := l.SignOnce(1, pkcs11.NewMechanism(c.mechanism, nil), 2, []byte(c.message), c.contextPIN)
		var call *CallError
		if !errors.As(err, &call) || call.Function != c.function || !errors.Is(err, pkcs11.Error(c.code)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// PINs and the label arrive as the standard wants them.
func TestPINs(t *testing.T) {
	l := tiny(t)
	if err := l.InitToken(7, []byte("so"), "label"); err != nil {
		t.Error(err)
	}
	if err := l.InitToken(7, []byte("so"), strings.Repeat("x", 33)); !errors.Is(err, pkcs11.Error(pkcs11.CKR_ARGUMENTS_BAD)) {
		t.Errorf("a label of 33 octets: %v", err)
	}
	if err := l.InitPIN(1, []byte("user")); err != nil {
		t.Error(err)
	}
	if err := l.Login(1, pkcs11.CKU_USER, []byte("wrong")); !errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)) {
		t.Error(err)
	}
}

// An attribute is as long as it was said to be before there was room for it; a library that says otherwise shows none of our memory.
func TestAttributeLengths(t *testing.T) {
	l := tiny(t)
	wanted := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil), pkcs11.NewAttribute(pkcs11.CKA_ID, nil)}
	got, err := l.GetAttributeValue(1, 1, wanted)
	if err != nil || len(got) != 2 || string(got[0].Value) != "abc" || string(got[1].Value) != "abc" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := l.GetAttributeValue(1, 2, wanted); !errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
		t.Errorf("%d octets, %v", len(got[0].Value), err)
	}
	if got, err := l.GetAttributeValue(1, 1, nil); err != nil || len(got) != 0 {
		t.Errorf("no attribute: %+v, %v", got, err)
	}
}

// What is no PKCS#11 library is an error.
func TestOpenFails(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(text); err == nil {
		t.Errorf("opened %v", l)
	}
}
