package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
)

// TestDemoFlags: what the demo can be made with, and what it says of the rest.
func TestDemoFlags(t *testing.T) {
	for _, test := range []struct {
		flags demoFlags
		want  string // of the error; "" for what is accepted
		made  demoOptions
	}{
		{demoFlags{token: "soft", keys: "p256"}, "", demoOptions{Token: "soft", Keys: "p256"}},
		{demoFlags{token: "softhsm", keys: "p521"}, "", demoOptions{Token: "softhsm", Keys: "p521"}},
		{demoFlags{token: "soft", keys: "rsa3072"}, "", demoOptions{"soft", "rsa3072", der.PKCS1v15, der.PKCS1v15}},
		{demoFlags{token: "soft", keys: "rsa4096", scheme: "pss"}, "", demoOptions{"soft", "rsa4096", der.PSS, der.PKCS1v15}},
		{demoFlags{token: "soft", keys: "rsa3072", scheme: "pkcs1v15", tsuScheme: "pss"}, "", demoOptions{"soft", "rsa3072", der.PKCS1v15, der.PSS}},
		{demoFlags{token: "paper", keys: "p256"}, "--token", demoOptions{}},
		{demoFlags{token: "soft", keys: "rsa2048"}, "p521", demoOptions{}},
		{demoFlags{token: "soft", keys: "p256", scheme: "pss"}, "--signature-scheme: it is a choice of RSA keys", demoOptions{}},
		{demoFlags{token: "soft", keys: "p384", tsuScheme: "pkcs1v15"}, "--tsu-signature-scheme: it is a choice of RSA keys", demoOptions{}},
		{demoFlags{token: "soft", keys: "rsa3072", scheme: "oaep"}, "neither pkcs1v15 nor pss", demoOptions{}},
	} {
		err := test.flags.validate()
		switch {
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || (&tool{running: true}).exitStatus(err) != 2):
			t.Errorf("%+v: %v, want %q", test.flags, err, test.want)
		case test.want == "" && (err != nil || test.flags.options() != test.made):
			t.Errorf("%+v: %v, made with %v", test.flags, err, test.flags.options())
		}
	}
}

// TestDemoRefusesOtherOptions: a demo keeps what it was made with, also one whose options.json knows no scheme.
func TestDemoRefusesOtherOptions(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, optionsFile), []byte(`{"token":"soft","keys":"rsa3072"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := demoFlags{dir: dir, token: "soft", keys: "rsa3072", scheme: "pss", asked: true}
	_, _, err := (&tool{}).openDemo(context.Background(), f)
	if err == nil || !strings.Contains(err.Error(), "--keys rsa3072 --signature-scheme pkcs1v15 --tsu-signature-scheme pkcs1v15") || (&tool{running: true}).exitStatus(err) != 2 {
		t.Errorf("%v", err)
	}
}
