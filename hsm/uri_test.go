package hsm

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func slot(n uint) *uint { return &n }

func TestParseURI(t *testing.T) {
	for _, test := range []struct {
		text  string
		want  URI
		canon string // what String makes of it, where that is not text
	}{
		{text: "pkcs11:", want: URI{}},
		{text: "PKCS11:token=a", want: URI{Token: "a"}, canon: "pkcs11:token=a"},
		{
			text: "pkcs11:token=issuing;object=ca-2026?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin",
			want: URI{Token: "issuing", Object: "ca-2026", ModulePath: "/usr/lib/softhsm/libsofthsm2.so", PINSource: "file:/etc/zegel/pin"},
		},
		{ // the example of RFC 7512 §3, its module-name replaced and its token's name encoded
			text:  "pkcs11:object=my-key;type=private;slot-id=327?module-path=/opt/m.so&pin-source=/etc/p",
			want:  URI{Object: "my-key", Type: "private", SlotID: slot(327), ModulePath: "/opt/m.so", PINSource: "/etc/p"},
			canon: "pkcs11:slot-id=327;object=my-key;type=private?module-path=/opt/m.so&pin-source=/etc/p",
		},
		{
			text:  "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token;library-version=3.1;manufacturer=M;model=1.0;serial=00ff;id=%00%69%FF",
			want:  URI{Library: Library{"Snake Oil, Inc.", "Soft Token", "3.1"}, Manufacturer: "M", Model: "1.0", Serial: "00ff", ID: []byte{0, 'i', 0xff}},
			canon: "pkcs11:serial=00ff;manufacturer=M;model=1.0;library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token;library-version=3.1;id=%00%69%FF",
		},
		{text: "pkcs11:object=a%3Bb%2Fc&d;x-vendor=1?x-a=1&x-a=2", want: URI{Object: "a;b/c&d"}, canon: "pkcs11:object=a%3Bb%2Fc%26d"},
		{text: "pkcs11:object=Gro%C3%9Fer?pin-source=env:PIN", want: URI{Object: "Großer", PINSource: "env:PIN"}},
		{
			text: "softtoken:object=ca-2026?dir=/var/lib/zegel/keys&pin-source=file:/etc/zegel/pin",
			want: URI{Software: true, Object: "ca-2026", Dir: "/var/lib/zegel/keys", PINSource: "file:/etc/zegel/pin"},
		},
		{text: "softtoken:object=a?dir=/a%20b", want: URI{Software: true, Object: "a", Dir: "/a b"}},
	} {
		got, err := ParseURI(test.text)
		if err != nil {
			t.Errorf("ParseURI(%q): %v", test.text, err)
			continue
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("ParseURI(%q) = %#v, want %#v", test.text, got, test.want)
		}
		if test.canon == "" {
			test.canon = test.text
		}
		if got.String() != test.canon {
			t.Errorf("ParseURI(%q).String() = %q, want %q", test.text, got, test.canon)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{ // want: what the error says
		{"", "begins with pkcs11: or softtoken:"},
		{"token=a", "begins with pkcs11: or softtoken:"},
		{"pkcs12:token=a", "begins with pkcs11: or softtoken:"},
		{"pkcs11:" + strings.Repeat("x", maxURI), "longer than 8192"},
		{"pkcs11:token=a;token=b", `"token" is given twice`},
		{"pkcs11:x-v=a;x-v=b", `"x-v" is given twice`},
		{"pkcs11:?pin-source=/a&pin-source=/a", `"pin-source" is given twice`},
		{"pkcs11:token=a;", "path attribute 2 is not of the form name=value"},
		{"pkcs11:token=a?", "query attribute 1 is not of the form name=value"},
		{"pkcs11:token", "separate attributes by \";\""},
		{"pkcs11:=a", "its name is not of letters"},
		{"pkcs11:Token=a", "its name is not of letters"},
		{"pkcs11:tokne=a", `"tokne" is not known there: check its spelling`},
		{"pkcs11:slot-description=a", "is not known there"},
		{"pkcs11:module-path=%2Fa", "is not known there"},
		{"pkcs11:token=a&object=b?token=a", `query attribute "token" is not known there`},
		{"pkcs11:?dir=/a", "is not known there"},
		{"pkcs11:token=", "empty"},
		{"pkcs11:object=", "empty"},
		{"pkcs11:id=", "empty"},
		{"pkcs11:token=" + strings.Repeat("t", 33), "33 bytes long, at most 32"},
		{"pkcs11:serial=" + strings.Repeat("t", 17), "17 bytes long, at most 16"},
		{"pkcs11:model=" + strings.Repeat("t", 17), "17 bytes long, at most 16"},
		{"pkcs11:manufacturer=" + strings.Repeat("t", 33), "at most 32"},
		{"pkcs11:library-description=" + strings.Repeat("t", 33), "at most 32"},
		{"pkcs11:token=a b", "byte 0x20 must be written %20"},
		{"pkcs11:token=a/b", "byte 0x2f must be written %2F"},
		{"pkcs11:token=a#b", "byte 0x23 must be written %23"},
		{"pkcs11:token=ß", "must be written %C3"},
		{"pkcs11:token=%", "ends within a %XX"},
		{"pkcs11:token=%4", "ends within a %XX"},
		{"pkcs11:token=%4x", "not followed by two hex digits"},
		{"pkcs11:token=%+4", "not followed by two hex digits"},
		{"pkcs11:token=%FF", "not text in UTF-8"},
		{"pkcs11:object=a%00", "not text in UTF-8"},
		{"pkcs11:type=cert", "names no key"},
		{"pkcs11:slot-id=-1", "not a decimal slot number"},
		{"pkcs11:slot-id=0x1", "not a decimal slot number"},
		{"pkcs11:library-version=2.6.1", "not a version"},
		{"pkcs11:library-version=256", "not a version"},
		{"pkcs11:?module-path=lib.so", "not an absolute path"},
		{"pkcs11:?module-name=softhsm", "give its absolute path as module-path"},
		{"pkcs11:?pin-source=pin", "give file:/absolute/path"},
		{"pkcs11:?pin-source=file:pin", "give file:/absolute/path"},
		{"pkcs11:?pin-source=env:", "name of a variable"},
		{"pkcs11:?pin-source=file://host/pin", "must be on this machine"},
		{"pkcs11:?pin-source=%7Ccat%20/pin", "give file:/absolute/path"},
		{"pkcs11:?pin-source=/a&pin-value=1234", "exclude each other"},
		{"softtoken:token=a", "is not known there"},
		{"softtoken:object=..%2Fa?dir=/d", "names a file"},
		{"softtoken:object=.a?dir=/d", "must not begin with '.'"},
		{"softtoken:object=a?dir=d", "not an absolute path"},
		{"softtoken:object=a?module-path=/m", "is not known there"},
	} {
		if u, err := ParseURI(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("ParseURI(%q) = %v, %v; want an error with %q", test.text, u, err, test.want)
		}
	}
}

func TestURIHidesPIN(t *testing.T) {
	const pin = "s3cr3t"
	u, err := ParseURI("pkcs11:object=a?module-path=/m&pin-value=" + pin)
	if err != nil {
		t.Fatal(err)
	}
	key := &tokenKey{uri: u}
	for _, text := range []string{
		u.String(), u.Name(), fmt.Sprintf("%v %+v %#v %s %q %x", u, u, u, u, u, u), fmt.Sprintf("%v %+v %#v", key, key, key), fmt.Sprintf("%+v", *key),
	} {
		if strings.Contains(text, pin) || strings.Contains(text, fmt.Sprint([]byte(pin))) || strings.Contains(text, fmt.Sprintf("%x", pin)) {
			t.Errorf("the PIN is shown: %s", text)
		}
	}
	for _, text := range []string{
		"pkcs11:object=a?pin-value=" + pin + "%", "pkcs11:object=a?pin-value=a&" + pin + "=1", "pkcs11:object=a?pin-value:" + pin,
		"pkcs11:pin-value=" + pin, "pkcs11:object=a;pin-value=" + pin + "?pin=1", "softtoken:pin-value=" + pin, "pkcs11:object=a?pin-value=" + pin + "&pin-source=/a",
		"pkcs11:object=a?pin-value=" + pin + "%0A",
	} {
		if _, err := ParseURI(text); err == nil || strings.Contains(err.Error(), pin) {
			t.Errorf("ParseURI(%q): %v; want an error without the PIN", text, err)
		}
	}
}

func TestHasPINValue(t *testing.T) {
	for uri, want := range map[string]bool{
		"pkcs11:object=a?pin-value=1234": true, "pkcs11:object=a?pin-source=file:/pin": false, "pkcs11:object=a": false,
	} {
		if u, err := ParseURI(uri); err != nil || u.HasPINValue() != want {
			t.Errorf("%s: %v, %v", uri, u.HasPINValue(), err)
		}
	}
}

func TestIsSoftware(t *testing.T) {
	for uri, want := range map[string]bool{
		"softtoken:object=a?dir=/d": true, "SoftToken:": true, "pkcs11:object=softtoken:": false, "softtoken": false, "": false,
		"pkcs11:object=a SOFTTOKEN:object=a": true, "\n softtoken:object=a": true, "pkcs11:object=a pkcs11:object=softtoken:": false,
	} {
		if IsSoftware(uri) != want {
			t.Errorf("IsSoftware(%q) = %v", uri, !want)
		}
	}
}

// A key group is every URI of it: what is refused of one is refused of all.
func TestParseURIs(t *testing.T) {
	for text, want := range map[string]string{
		"pkcs11:token=a;object=k": "pkcs11:token=a;object=k", "pkcs11:token=a;object=k\n": "pkcs11:token=a;object=k",
		"pkcs11:token=a;object=k pkcs11:token=b;object=k":               "pkcs11:token=a;object=k pkcs11:token=b;object=k",
		"\n  pkcs11:token=a\r\n\tsofttoken:object=k?dir=/d\n\n":         "pkcs11:token=a softtoken:object=k",
		"pkcs11:object=k?module-path=/a pkcs11:object=k?module-path=/b": "pkcs11:object=k pkcs11:object=k",
	} {
		if uris, err := ParseURIs(text); err != nil || groupName(uris) != want {
			t.Errorf("%q: %v, %v; want %q", text, uris, err, want)
		}
		if err := CheckURI(text, true); err != nil {
			t.Errorf("CheckURI(%q): %v", text, err)
		}
	}
	for _, text := range []string{"", " ", "pkcs11:token=a and pkcs11:token=b", "pkcs11:token=a pkcs11:token=a",
		"pkcs11:token=a pkcs11:token=b;colour=red", "pkcs11:token=a?pin-source=/x pkcs11:token=a?pin-source=/y"} {
		if uris, err := ParseURIs(text); err == nil {
			t.Errorf("%q: %v", text, uris)
		}
	}
	if err := CheckURI("pkcs11:token=a pkcs11:token=b?pin-value=1234", true); err == nil || strings.Contains(err.Error(), "1234") {
		t.Errorf("CheckURI with a pin-value in the second URI: %v", err)
	}
}

// What is parsed is written in a form that parses to the same.
func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"pkcs11:token=issuing;object=ca-2026;id=%01%02;type=private?pin-source=file:/etc/pin&module-path=/m.so",
		"pkcs11:slot-id=1;library-version=2.6;serial=1;model=m;manufacturer=f;x-v=1?x-w=&x-w=1",
		"softtoken:object=a?dir=/d&pin-source=env:PIN", "pkcs11:?pin-value=1234", "pkcs11:object=%25%C3%9F%26%3f", "\xae\xcfpin", "pi",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			if !reflect.DeepEqual(u, URI{}) {
				t.Errorf("ParseURI(%q) = %v beside an error", text, u)
			}
			return
		}
		again, err := ParseURI(u.String())
		if err != nil {
			t.Fatalf("ParseURI(%q).String() = %q: %v", text, u, err)
		}
		u.pinValue = nil
		if !reflect.DeepEqual(u, again) || u.String() != again.String() {
			t.Errorf("ParseURI(%q) = %#v, read back %#v", text, u, again)
		}
		if IsSoftware(text) != u.Software {
			t.Errorf("IsSoftware(%q) = %v", text, !u.Software)
		}
	})
}
