package policy

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBuiltins(t *testing.T) {
	want := []string{"root-ca", "issuing-ca", "ocsp-responder", "tsu", "qcp-n", "qcp-n-qscd", "qcp-l", "qcp-l-qscd"}
	if got := Builtins(); !slices.Equal(got, want) {
		t.Fatalf("Builtins() = %v, want %v", got, want)
	}
	files, err := builtin.ReadDir("profiles")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d files are embedded, %d profiles are listed (%v)", len(files), len(want), err)
	}
	for _, name := range want {
		p := mustBuiltin(t, name)
		subscriber := strings.HasPrefix(name, "qcp-")
		qscd := strings.HasSuffix(name, "-qscd")
		switch {
		case p.Name() != name, p.Description() == "", p.Version() != 1, p.Validity() < 90*24*time.Hour:
			t.Errorf("%s: name %q, description %q, version %d, validity %s", name, p.Name(), p.Description(), p.Version(), p.Validity())
		case p.SelfSigned() != (name == "root-ca"), p.CA() != strings.HasSuffix(name, "-ca"):
			t.Errorf("%s: self-signed %t, CA %t", name, p.SelfSigned(), p.CA())
		case p.TakesSubject() != subscriber, p.NeedsRegistration() != subscriber, p.Qualified() != subscriber, p.NeedsDevice() != qscd:
			t.Errorf("%s: takes subject %t, registration %t, qualified %t, device %t", name, p.TakesSubject(), p.NeedsRegistration(), p.Qualified(), p.NeedsDevice())
		case (p.PrivateKeyUsage() > 0) != (name == "tsu"):
			t.Errorf("%s: private key usage %s", name, p.PrivateKeyUsage())
		}
		if text, _ := builtin.ReadFile("profiles/" + name + ".yaml"); !bytes.Equal(p.Text(), text) {
			t.Errorf("%s: Text is not the file", name)
		}
	}
	if mustBuiltin(t, "tsu").SubjectKind() != "tsu" {
		t.Error("SubjectKind of tsu")
	}
}

// TestTextIsACopy: a caller who writes into Text changes nothing.
func TestTextIsACopy(t *testing.T) {
	p := mustBuiltin(t, "tsu")
	clear(p.Text())
	if p.Text()[0] != '#' {
		t.Error("Text gave out the profile's own bytes")
	}
}

// TestEveryKeyIsCommented: in every built-in profile each key has a comment that names a clause, on the lines above it
// or above the key it belongs to; version and description say what they are for.
func TestEveryKeyIsCommented(t *testing.T) {
	clause := regexp.MustCompile(`(EN 319|RFC|CIR|eIDAS|NAT-|TS 119)`)
	key := regexp.MustCompile(`^( *)([a-z_]+):`)
	for _, name := range Builtins() {
		comment := ""
		for line := range strings.Lines(string(mustBuiltin(t, name).Text())) {
			line = strings.TrimRight(line, "\n")
			m := key.FindStringSubmatch(line)
			switch {
			case strings.HasPrefix(strings.TrimSpace(line), "#"):
				comment += line
				continue
			case m == nil:
			case m[2] == "description":
			case strings.HasSuffix(line, ":"): // its parts are commented
				if comment != "" && !clause.MatchString(comment) {
					t.Errorf("%s: %s: comment %q names no clause", name, m[2], comment)
				}
			case !clause.MatchString(comment):
				t.Errorf("%s: %s: comment %q names no clause", name, m[2], comment)
			}
			comment = ""
		}
	}
}

func TestBuiltinUnknown(t *testing.T) {
	for name, want := range map[string]string{
		"qcp-n-qcsd": `did you mean "qcp-n-qscd"?`,
		"QCP_N":      `did you mean "qcp-n"?`,
		"web-server": "the profiles are root-ca, issuing-ca,",
		"../tsu":     "unknown",
	} {
		if _, err := Builtin(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Builtin(%q): %v, want %q in it", name, err, want)
		}
	}
}

// change is a built-in profile with one thing replaced.
func change(t testing.TB, profile, old, new string) []byte {
	t.Helper()
	text := string(mustBuiltin(t, profile).Text())
	if strings.Count(text, old) != 1 {
		t.Fatalf("%s has %q %d times", profile, old, strings.Count(text, old))
	}
	return []byte(strings.Replace(text, old, new, 1))
}

// TestParseProfileRefuses: files that cannot be read, with the line to look at.
func TestParseProfileRefuses(t *testing.T) {
	for _, test := range []struct{ fault, profile, old, new, want string }{
		{"unknown_key", "tsu", "key_usage: C", "key_usages: C", `did you mean "key_usage"?`},
		{"missing_key", "tsu", "ocsp_nocheck: false", "", "missing ocsp_nocheck"},
		{"missing_part", "tsu", "  ocsp: required", "", "missing authority_info_access.ocsp"},
		{"presence_word", "tsu", "crl_distribution_points: required", "crl_distribution_points: yes", "required, offered or absent"},
		{"key_usage_type", "tsu", "key_usage: C", "key_usage: G", "EN 319 412-2 table 1"},
		{"subject_kind", "tsu", "subject: tsu", "subject: dog", "natural, legal, ca, tsu or ocsp"},
		{"policy_not_an_oid", "tsu", "[0.4.0.2042.1.2]", "[0.4.0.2042.1.x]", "is not a number"},
		{"policy_leading_zero", "tsu", "[0.4.0.2042.1.2]", "[0.4.0.2042.01.2]", "is not a number"},
		{"policy_of_no_arc", "tsu", "[0.4.0.2042.1.2]", "[3.4.5]", "no such arc"},
		{"description_empty", "tsu", "description: Time-stamping unit (NCP+, EN 319 422)", `description: ""`, "one line"},
		{"version_zero", "tsu", "version: 1", "version: 0", "versions count from 1"},
		{"validity_zero", "tsu", "validity_days: 1826", "validity_days: 0", "1 to 36525"},
		{"validity_of_ages", "tsu", "validity_days: 1826", "validity_days: 99999", "1 to 36525"},
		{"key_life_negative", "tsu", "private_key_usage_days: 365", "private_key_usage_days: -1", "0 to 36525"},
		{"path_length_negative", "issuing-ca", "path_length: 0", "path_length: -1", "0 to 255"},
		{"evidence_offered", "qcp-n", "registration: required", "registration: offered", "required or absent"},
		{"qc_type", "qcp-n", "qc_type: esign", "qc_type: email", "esign, eseal, web"},
		{"semantics", "qcp-n", "semantics: [natural]", "semantics: [animal]", "natural or legal"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			_, err := ParseProfile("own/house.yaml", change(t, test.profile, test.old, test.new))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "own/house.yaml") {
				t.Errorf("error is %v, want the file's name and %q in it", err, test.want)
			}
		})
	}
}

// TestContradictions: files that can be read and ask for certificates that could not be right.
func TestContradictions(t *testing.T) {
	for _, test := range []struct{ fault, profile, old, new, clause string }{
		{"ca_subject_without_ca", "issuing-ca", "{ca: true, path_length: 0}", "{ca: false}", "RFC 5280 §4.2.1.9"},
		{"ca_key_usage_without_ca", "tsu", "key_usage: C", "key_usage: ca", "RFC 5280 §4.2.1.3"},
		{"path_length_without_ca", "tsu", "{ca: false}", "{ca: false, path_length: 0}", "RFC 5280 §4.2.1.9"},
		{"self_signed_end_entity", "tsu", "self_signed: false", "self_signed: true", "RFC 5280 §3.2"},
		{"self_signed_with_crl", "root-ca", "crl_distribution_points: absent", "crl_distribution_points: offered", "RFC 5280 §6.1"},
		{"subscriber_without_registration", "qcp-n", "registration: required", "registration: absent", "EN 319 411-1 REG-6.3.1-00A"},
		{"service_with_email", "tsu", "subject_alt_name: absent", "subject_alt_name: offered", "EN 319 412-2 GEN-4.3.5-1"},
		{"no_policy", "tsu", "[0.4.0.2042.1.2]", "[]", "EN 319 412-2 GEN-4.3.3-2"},
		{"policy_twice", "qcp-n", "[0.4.0.194112.1.0]", "[0.4.0.194112.1.0, 0.4.0.194112.1.0]", "RFC 5280 §4.2.1.4"},
		{"any_policy_in_end_entity", "tsu", "[0.4.0.2042.1.2]", "[0.4.0.2042.1.2, 2.5.29.32.0]", "EN 319 412-2 GEN-4.3.3-2"},
		{"unknown_qualified_policy", "qcp-n", "[0.4.0.194112.1.0]", "[0.4.0.194112.1.99]", "EN 319 411-2 GEN-6.6.1-05"},
		{"policy_for_legal_persons", "qcp-n", "[0.4.0.194112.1.0]", "[0.4.0.194112.1.1]", "EN 319 412-2 QCS-5.2-2"},
		{"qscd_policy_without_sscd", "qcp-n-qscd", "qc_sscd: true", "qc_sscd: false", "EN 319 411-2 GEN-6.6.1-04"},
		{"sscd_without_qscd_policy", "qcp-l", "qc_sscd: false", "qc_sscd: true", "EN 319 411-2 GEN-6.6.1-04"},
		{"sscd_without_device", "qcp-n-qscd", "device: required", "device: absent", "EN 319 411-2 SDP-6.5.1-02"},
		{"two_qualified_policies", "qcp-n", "[0.4.0.194112.1.0]", "[0.4.0.194112.1.0, 0.4.0.194112.1.2]", "EN 319 412-2 QCS-5.2-1"},
		{"no_qualified_policy", "qcp-l", "[0.4.0.194112.1.1]", "[1.3.6.1.4.1.55555.1]", "EN 319 412-2 QCS-5.2-1"},
		{"signature_key_that_only_authenticates", "qcp-n", "key_usage: A", "key_usage: C", "EN 319 412-2 NAT-4.3.2-2"},
		{"seal_key_that_enciphers", "qcp-l", "key_usage: A", "key_usage: E", "EN 319 412-3 LEG-4.3.1-3"},
		{"critical_purposes", "ocsp-responder", "critical: false", "critical: true", "EN 319 412-2 GEN-4.3.10-1"},
		{"tsu_purposes_not_critical", "tsu", "critical: true", "critical: false", "RFC 3161 §2.3"},
		{"tsu_with_second_purpose", "tsu", "[1.3.6.1.5.5.7.3.8]", "[1.3.6.1.5.5.7.3.8, 1.3.6.1.5.5.7.3.4]", "RFC 3161 §2.3"},
		{"signer_stamps_time", "qcp-n", "purposes: []", "purposes: [1.3.6.1.5.5.7.3.8]", "RFC 3161 §2.3"},
		{"signer_signs_status", "qcp-n", "purposes: []", "purposes: [1.3.6.1.5.5.7.3.9]", "RFC 6960 §4.2.2.2"},
		{"responder_without_purpose", "ocsp-responder", "[1.3.6.1.5.5.7.3.9]", "[]", "RFC 6960 §4.2.2.2"},
		{"responder_that_commits", "ocsp-responder", "key_usage: C", "key_usage: B", "RFC 6960 §4.2.2.2"},
		{"any_purpose", "qcp-n", "purposes: []", "purposes: [2.5.29.37.0]", "EN 319 411-1 GEN-6.6.1-01"},
		{"responder_with_ocsp", "ocsp-responder", "  ocsp: absent", "  ocsp: offered", "EN 319 411-1 CSS-6.6.3-01B"},
		{"responder_without_nocheck", "ocsp-responder", "ocsp_nocheck: true", "ocsp_nocheck: false", "EN 319 411-1 CSS-6.6.3-01A"},
		{"nocheck_elsewhere", "tsu", "ocsp_nocheck: false", "ocsp_nocheck: true", "RFC 6960 §4.2.2.2.1"},
		{"no_crl", "issuing-ca", "crl_distribution_points: required", "crl_distribution_points: offered", "EN 319 412-2 GEN-4.3.11-1"},
		{"no_ca_issuers", "qcp-n", "ca_issuers: required", "ca_issuers: absent", "EN 319 412-2 GEN-4.4.1-2"},
		{"no_ocsp", "qcp-n", "  ocsp: required", "  ocsp: offered", "EN 319 412-2 GEN-4.4.1-5"},
		{"no_compliance", "qcp-n", "qc_compliance: true", "qc_compliance: false", "EN 319 412-5 QCS-5-01"},
		{"type_of_another", "qcp-n", "qc_type: esign", "qc_type: eseal", "EN 319 412-5 QCS-5-01"},
		{"no_type", "qcp-l", "qc_type: eseal", `qc_type: ""`, "EN 319 412-5 QCS-5-01"},
		{"no_pds", "qcp-n", "qc_pds: required", "qc_pds: offered", "EN 319 411-2 OVR-6.9.4-03"},
		{"no_semantics", "qcp-n", "semantics: [natural]", "semantics: [legal]", "EN 319 412-1 §5.1.1"},
		{"retention_negative", "qcp-n", "qc_ident_method: absent", "qc_ident_method: absent\n  qc_retention_period: -1", "EN 319 412-5 QCS-5-01"},
		{"limit_in_no_currency", "qcp-n", "qc_ident_method: absent", "qc_ident_method: absent\n  qc_limit_value: {currency: euro, amount: 1, exponent: 0}", "EN 319 412-5 QCS-4.3.2-02"},
		{"legislation", "qcp-n", "qc_ident_method: absent", "qc_ident_method: absent\n  qc_cc_legislation: required", "EN 319 412-5 QCS-4.2.4-01"},
		{"key_period_elsewhere", "qcp-n", "private_key_usage_days: 0", "private_key_usage_days: 1", "EN 319 422 §6.4"},
		{"key_lives_as_long", "tsu", "private_key_usage_days: 365", "private_key_usage_days: 1826", "EN 319 421 TIS-7.6.7-04"},
		{"tsu_without_ncp_plus", "tsu", "[0.4.0.2042.1.2]", "[0.4.0.2042.1.1]", "EN 319 421 TIS-8.1-01"},
		{"tsu_that_enciphers", "tsu", "key_usage: C", "key_usage: D", "RFC 3161 §2.3"},
		{"policy_mappings", "issuing-ca", "ocsp_nocheck: false", "ocsp_nocheck: false\npolicy_mappings: offered", "EN 319 412-2 GEN-4.3.4-1"},
		{"name_constraints", "issuing-ca", "ocsp_nocheck: false", "ocsp_nocheck: false\nname_constraints: required", "EN 319 412-2 GEN-4.3.8-1"},
		{"policy_constraints", "qcp-n", "ocsp_nocheck: false", "ocsp_nocheck: false\npolicy_constraints: required", "EN 319 412-2 GEN-4.3.9-1"},
		{"inhibit_any_policy", "qcp-n", "ocsp_nocheck: false", "ocsp_nocheck: false\ninhibit_any_policy: required", "EN 319 412-2 GEN-4.3.12-1"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			_, err := ParseProfile("house.yaml", change(t, test.profile, test.old, test.new))
			wantClause(t, err, test.clause)
		})
	}
	text := string(mustBuiltin(t, "qcp-n").Text())
	begin, end := strings.Index(text, "qc_statements:"), strings.Index(text, "# id-pkix-ocsp-nocheck")
	_, err := ParseProfile("house.yaml", []byte(text[:begin]+text[end:]))
	wantClause(t, err, "EN 319 412-2 QCS-5.1-1")
}

// TestHouseProfiles: what an operator may choose within the rules makes clean certificates.
func TestHouseProfiles(t *testing.T) {
	for _, test := range []struct{ name, profile, old, new string }{
		{"own_policy_beside", "qcp-n", "[0.4.0.194112.1.0]", "[0.4.0.194112.1.0, 1.3.6.1.4.1.55555.1]"},
		{"optional_statements", "qcp-l-qscd", "qc_ident_method: absent", "qc_ident_method: required\n  qc_retention_period: 10\n  qc_limit_value: {currency: EUR, amount: 1000, exponent: 0}"},
		{"type_b", "qcp-n", "key_usage: A", "key_usage: B"},
		{"document_purpose", "qcp-n", "purposes: []", "purposes: [1.3.6.1.5.5.7.3.36]"},
		{"tsu_type_b", "tsu", "key_usage: C", "key_usage: B"},
		{"mail_required", "qcp-n", "subject_alt_name: offered", "subject_alt_name: required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := ParseProfile("house.yaml", change(t, test.profile, test.old, test.new))
			if err != nil {
				t.Fatal(err)
			}
			draft := testDraft(t, p, testKeyP256())
			if err := p.Check(draft); err != nil {
				t.Errorf("check: %v", err)
			}
			// Type B is allowed and not preferred: zlint's warning (NAT-4.3.2-3) is what is expected there.
			if err := Lint(draft); err != nil && test.name != "type_b" {
				t.Errorf("lint: %v", err)
			}
		})
	}
	p, err := ParseProfile("house.yaml", change(t, "qcp-n", "subject_alt_name: offered", "subject_alt_name: required"))
	if err != nil {
		t.Fatal(err)
	}
	ca := testIssuerFor(t, p)
	r := testRequest(t, p, testKeyP256())
	r.Subject.Email = ""
	_, err = p.TBS(r, ca.issuer)
	wantClause(t, err, "EN 319 412-2 GEN-4.3.5-1")
}

func FuzzParseProfile(f *testing.F) {
	for _, name := range Builtins() {
		f.Add(mustBuiltin(f, name).Text())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProfile("fuzz.yaml", text)
		if err != nil {
			return
		}
		again, err := ParseProfile("fuzz.yaml", p.Text())
		if err != nil || again.Name() != p.Name() || again.Description() != p.Description() || again.Validity() != p.Validity() {
			t.Fatalf("read again it is another: %v", err)
		}
		if v := p.contradictions(); len(v) > 0 {
			t.Fatalf("an accepted profile contradicts itself: %v", v)
		}
	})
}
