package daemon

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadCertificates(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "leaf")
	read := func(name string) []byte { return must[[]byte](t)(os.ReadFile(a.path(name))) }
	leaf, ca, key := read("leaf.pem"), read("ca.pem"), read("leaf.key")
	damaged := bytes.Replace(ca, []byte("-----END"), []byte("----END"), 1)
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	for _, test := range []struct {
		name string
		text []byte
		n    int    // certificates
		want string // error
	}{
		{"one", leaf, 1, ""},
		{"chain", slices.Concat(leaf, ca), 2, ""},
		{"text before each, blank lines after", slices.Concat([]byte("Subject: x\n"), leaf, []byte("Issuer:\n"), ca, []byte("\r\n\n")), 2, ""},
		{"DER", a.cert.Raw, 1, ""},
		{"empty", nil, 0, "holds no PEM certificate, and none in DER"},
		{"words", []byte("hello"), 0, "holds no PEM certificate, and none in DER"},
		{"DER and more", append(slices.Clone(a.cert.Raw), 0), 0, "trailing data"},
		{"text after", append(slices.Clone(leaf), "bye"...), 0, "has 3 octets after its last certificate"},
		{"DER after PEM", slices.Concat(leaf, a.cert.Raw), 0, "octets after its last certificate"},
		{"key", key, 0, "holds no PEM certificate but a PRIVATE KEY as block 1"},
		{"key after it", slices.Concat(leaf, key), 0, "a PRIVATE KEY as block 2: it is for certificates only"},
		{"first damaged", slices.Concat(damaged, leaf), 0, "as block 1: its base64 or its END line is damaged"},
		{"last damaged", slices.Concat(leaf, damaged), 0, "as block 2: its base64 or its END line is damaged"},
		{"cut short", slices.Concat(leaf, ca[:len(ca)/2]), 0, "as block 2"},
		{"no certificate in the block", block([]byte{0x30}), 0, "holds a damaged certificate as block 1"},
		{"more in the block", block(append(slices.Clone(a.cert.Raw), 0)), 0, "trailing data"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.pem")
			if err := os.WriteFile(path, test.text, 0o600); err != nil {
				t.Fatal(err)
			}
			list, err := ReadCertificates(path)
			if len(list) != test.n || (err == nil) != (test.want == "") {
				t.Fatalf("%d certificates, %v", len(list), err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			pool, err := LoadPool(path)
			if (err == nil) != (test.want == "") || (pool != nil) != (err == nil) {
				t.Errorf("pool: %v", err)
			}
			one, err := ReadCertificate(path)
			if (err == nil) != (test.n == 1) || (one != nil) != (err == nil) || test.n > 1 && !strings.Contains(err.Error(), "more than one") {
				t.Errorf("one: %v", err)
			}
		})
	}
	for path, want := range map[string]string{"": "no file is named", a.path("none"): "no such file"} {
		if _, err := ReadCertificates(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// Whatever is read, written again is read as the same.
func FuzzReadCertificates(f *testing.F) {
	whole := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(f).cert.Raw})
	for _, text := range [][]byte{whole, append([]byte("-----BEGIN CERTIFICATE-----\n"), whole...), slices.Concat([]byte("x\n"), whole, whole), {0x30, 0}} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseCertificates(text)
		if (err == nil) != (len(list) > 0) {
			t.Fatalf("%d certificates, %v", len(list), err)
		}
		var again []byte
		for _, c := range list {
			again = append(again, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		back, err := parseCertificates(again)
		if len(list) > 0 && err != nil || len(back) != len(list) {
			t.Errorf("%d certificates, %d when written again: %v", len(list), len(back), err)
		}
	})
}
