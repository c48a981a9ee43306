package policy

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestChains issues every built-in profile under a root and an issuing CA, with every kind of
// key, and lets OpenSSL verify the chains strictly.
func TestChains(t *testing.T) {
	for _, kind := range []struct {
		name string
		key  func() crypto.Signer
	}{{"p256", testKeyP256}, {"p384", testKeyP384}, {"rsa3072", testKeyRSA}} {
		t.Run(kind.name, func(t *testing.T) {
			dir := t.TempDir()
			root := newTestRoot(t, kind.key())
			issuing := newTestIssuer(t, root, kind.key())
			writePEM(t, filepath.Join(dir, "root.pem"), root.cert.Raw)
			writePEM(t, filepath.Join(dir, "issuing.pem"), issuing.cert.Raw)
			openssl(t, dir, "verify", "-x509_strict", "-check_ss_sig", "-CAfile", "root.pem", "-attime", attime(), "issuing.pem")
			for _, name := range Builtins() {
				p := mustBuiltin(t, name)
				if p.CA() {
					continue
				}
				cert := issuing.issue(t, p, kind.key())
				if err := cert.CheckSignatureFrom(issuing.cert); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				writePEM(t, filepath.Join(dir, name+".pem"), cert.Raw)
				openssl(t, dir, "verify", "-x509_strict", "-policy_check", "-explicit_policy", "-policy", p.policies[0].String(), "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-attime", attime(), name+".pem")
				openssl(t, dir, "x509", "-in", name+".pem", "-noout", "-text")
			}
			openssl(t, dir, "verify", "-purpose", "timestampsign", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-attime", attime(), "tsu.pem")
			openssl(t, dir, "verify", "-purpose", "ocsphelper", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-attime", attime(), "ocsp-responder.pem")
		})
	}
}

// attime is a second when the test certificates are valid, as openssl's -attime wants it.
func attime() string { return strconv.FormatInt(began.Add(time.Hour).Unix(), 10) }

func openssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writePEM(t testing.TB, file string, der []byte) {
	t.Helper()
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTBSIsDeterministic(t *testing.T) {
	for _, name := range Builtins() {
		p := mustBuiltin(t, name)
		ca := testIssuerFor(t, p)
		r := testRequest(t, p, testKeyP256())
		first, err := p.TBS(r, ca.issuer)
		if err != nil {
			t.Fatal(err)
		}
		again, err := mustBuiltin(t, name).TBS(r, ca.issuer)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Errorf("%s: two calls made different bytes", name)
		}
	}
}

// wantClause fails the test unless err is Violations with that clause.
func wantClause(t testing.TB, err error, clause string) {
	t.Helper()
	var v Violations
	if !errors.As(err, &v) {
		t.Fatalf("error is %v, want a violation of %s", err, clause)
	}
	for _, one := range v {
		if one.Clause == clause {
			return
		}
	}
	t.Errorf("violations are\n%v\nwant one of %s", v, clause)
}

// TestTBSRefuses gives TBS requests with one fault each.
func TestTBSRefuses(t *testing.T) {
	for _, test := range []struct {
		fault, profile, clause string
		spoil                  func(*Request, *Issuer)
	}{
		{"serial_empty", "qcp-n", "RFC 5280 §4.1.2.2", func(r *Request, _ *Issuer) { r.Serial = nil }},
		{"serial_zero", "qcp-n", "RFC 5280 §4.1.2.2", func(r *Request, _ *Issuer) { r.Serial = []byte{0} }},
		{"serial_negative", "qcp-n", "RFC 5280 §4.1.2.2", func(r *Request, _ *Issuer) { r.Serial = []byte{0x80} }},
		{"serial_not_minimal", "qcp-n", "RFC 5280 §4.1.2.2", func(r *Request, _ *Issuer) { r.Serial = []byte{0, 1} }},
		{"serial_of_21_octets", "qcp-n", "RFC 5280 §4.1.2.2", func(r *Request, _ *Issuer) { r.Serial = bytes.Repeat([]byte{1}, 21) }},
		{"ends_before_it_begins", "qcp-n", "RFC 5280 §4.1.2.5", func(r *Request, _ *Issuer) { r.NotAfter = r.NotBefore }},
		{"year_10000", "qcp-n", "RFC 5280 §4.1.2.5", func(r *Request, _ *Issuer) { r.NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"a_second_too_long", "qcp-n", "EN 319 411-1 GEN-6.6.1-01", func(r *Request, _ *Issuer) { r.NotAfter = r.NotAfter.Add(time.Second) }},
		{"begins_before_issuer", "qcp-n", "EN 319 411-1 GEN-6.3.3-05", func(r *Request, i *Issuer) { i.NotBefore = r.NotBefore.Add(time.Second) }},
		{"ends_after_issuer", "qcp-n", "EN 319 411-1 GEN-6.3.3-05", func(r *Request, i *Issuer) { i.NotAfter = r.NotAfter.Add(-time.Second) }},
		{"key_outlives_tsu_certificate", "tsu", "EN 319 421 TIS-7.6.7-04", func(r *Request, _ *Issuer) { r.NotAfter = r.NotBefore.Add(365 * 24 * time.Hour) }},
		{"no_subject", "qcp-n", "RFC 5280 §4.1.2.6", func(r *Request, _ *Issuer) { r.Subject = nil }},
		{"subject_without_name", "qcp-n", "EN 319 412-2 NAT-4.2.4-1", func(r *Request, _ *Issuer) { r.Subject.Attributes = r.Subject.Attributes[:1] }},
		{"no_registration", "qcp-n", "EN 319 411-1 REG-6.3.1-00A", func(r *Request, _ *Issuer) { r.Subject.Registration = nil }},
		{"no_device", "qcp-n-qscd", "EN 319 411-2 SDP-6.5.1-02", func(r *Request, _ *Issuer) { r.Subject.Device = nil }},
		{"device_without_qscd", "qcp-l", "EN 319 411-2 GEN-6.6.1-04", func(r *Request, _ *Issuer) { r.Subject.Device = &Device{Model: "TEST"} }},
		{"email_of_a_service", "tsu", "EN 319 412-2 GEN-4.3.5-1", func(r *Request, _ *Issuer) { r.Subject.Email = "tsa@example.test" }},
		{"key_not_a_key", "qcp-n", "RFC 5280 §4.1.2.7", func(r *Request, _ *Issuer) { r.PublicKey = []byte{0x30, 0} }},
		{"no_crl", "qcp-n", "EN 319 412-2 GEN-4.3.11-4", func(_ *Request, i *Issuer) { i.URLs.CRL = "" }},
		{"crl_by_https_alone", "qcp-n", "EN 319 412-2 GEN-4.3.11-4", func(_ *Request, i *Issuer) { i.URLs.CRL = "https://ca.example.test/issuing.crl" }},
		{"no_ca_issuers", "qcp-l", "EN 319 412-2 GEN-4.4.1-3", func(_ *Request, i *Issuer) { i.URLs.CAIssuers = "" }},
		{"no_ocsp", "tsu", "EN 319 412-2 GEN-4.4.1-6", func(_ *Request, i *Issuer) { i.URLs.OCSP = "" }},
		{"ocsp_not_a_url", "tsu", "EN 319 412-2 GEN-4.4.1-6", func(_ *Request, i *Issuer) { i.URLs.OCSP = "ocsp.example.test" }},
		{"no_pds", "qcp-n", "EN 319 412-5 QCS-4.3.4-03", func(_ *Request, i *Issuer) { i.URLs.PDS = nil }},
		{"pds_not_english", "qcp-n", "EN 319 412-5 QCS-4.3.4-03", func(_ *Request, i *Issuer) { i.URLs.PDS = i.URLs.PDS[1:] }},
		{"pds_by_http", "qcp-n", "EN 319 412-5 QCS-4.3.4-01", func(_ *Request, i *Issuer) { i.URLs.PDS = []PDS{{"http://ca.example.test/pds", "en"}} }},
		{"pds_not_ascii", "qcp-n", "EN 319 412-5 QCS-4.3.4-01", func(_ *Request, i *Issuer) { i.URLs.PDS = []PDS{{"https://ca.example.test/é", "en"}} }},
		{"pds_language_upper_case", "qcp-n", "EN 319 412-5 QCS-4.3.4-02", func(_ *Request, i *Issuer) { i.URLs.PDS[1].Language = "NL" }},
		{"pds_language_twice", "qcp-n", "EN 319 412-5 QCS-4.3.4-03", func(_ *Request, i *Issuer) { i.URLs.PDS[1].Language = "en" }},
	} {
		t.Run(test.fault, func(t *testing.T) {
			p := mustBuiltin(t, test.profile)
			ca := testIssuerFor(t, p)
			ca.issuer.URLs.PDS = append([]PDS(nil), ca.issuer.URLs.PDS...)
			r := testRequest(t, p, testKeyP256())
			test.spoil(&r, &ca.issuer)
			tbs, err := p.TBS(r, ca.issuer)
			wantClause(t, err, test.clause)
			if tbs != nil {
				t.Error("TBS returned bytes with its error")
			}
		})
	}
}

// TestTBSRefusesIssuer: an issuer that cannot sign is the configuration's fault, not the request's.
func TestTBSRefusesIssuer(t *testing.T) {
	for fault, spoil := range map[string]func(*Issuer){
		"no_algorithm": func(i *Issuer) { *i = Issuer{Name: i.Name, KeyID: i.KeyID} },
		"no_name":      func(i *Issuer) { i.Name = nil },
		"empty_name":   func(i *Issuer) { i.Name = []byte{0x30, 0} },
		"name_not_der": func(i *Issuer) { i.Name = []byte{0x30, 0x80, 0, 0} },
		"name_no_name": func(i *Issuer) { i.Name = []byte{5, 0} },
		"no_key_id":    func(i *Issuer) { i.KeyID = nil },
	} {
		t.Run(fault, func(t *testing.T) {
			p := mustBuiltin(t, "qcp-n")
			ca := testIssuerFor(t, p)
			spoil(&ca.issuer)
			_, err := p.TBS(testRequest(t, p, testKeyP256()), ca.issuer)
			var v Violations
			if err == nil || errors.As(err, &v) {
				t.Errorf("error is %v, want one that is not Violations", err)
			}
		})
	}
	root := mustBuiltin(t, "root-ca")
	ca := testIssuerFor(t, root)
	ca.issuer.Name = []byte{0x30, 0}
	if _, err := root.TBS(testRequest(t, root, testKeyP256()), ca.issuer); err == nil {
		t.Error("a root with a foreign issuer name was accepted")
	}
}

// TestDraftHasTheLength: a draft is as long as the certificate or, for ECDSA, at most a few octets longer.
func TestDraftHasTheLength(t *testing.T) {
	for _, key := range []crypto.Signer{testKeyP256(), testKeyP384(), testKeyRSA()} {
		root := newTestRoot(t, key)
		p := mustBuiltin(t, "root-ca")
		tbs, err := p.TBS(testRequest(t, p, key), Issuer{PublicKey: key.Public(), Algorithm: root.issuer.Algorithm})
		if err != nil {
			t.Fatal(err)
		}
		draft := Draft(tbs, root.issuer)
		if d := len(draft) - len(root.cert.Raw); d < 0 || d > 8 {
			t.Errorf("%T: draft is %d octets longer than the certificate", key, d)
		}
	}
}
