package desk

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestValidateOfficers(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("%032x", n) }
	cert := func(n int) string { return fmt.Sprintf("%064x", n) }
	for _, test := range []struct {
		name     string
		separate bool
		want     string
		officers []Officer
	}{
		{"good", true, "", []Officer{{id(1), "a", cert(1), []string{RegistrationOfficer, RevocationOfficer}}, {id(2), "b", cert(2), []string{SystemAuditor}}}},
		{"all roles in a test", false, "", []Officer{{id(1), "a", cert(1), Roles()}}},
		{"auditor with another role", true, "officers[0].roles: a system_auditor", []Officer{{id(1), "a", cert(1), []string{SystemAuditor, SystemOperator}}}},
		{"security officer operates", true, "officers[0].roles: a security_officer", []Officer{{id(1), "a", cert(1), []string{SecurityOfficer, SystemOperator}}}},
		{"short id", false, "officers[0].id", []Officer{{"12", "a", cert(1), Roles()}}},
		{"zero id", false, "officers[0].id", []Officer{{id(0), "a", cert(1), Roles()}}},
		{"short digest", false, "officers[0].certificate_sha256", []Officer{{id(1), "a", "ab", Roles()}}},
		{"auditor with another role in a test", false, "", []Officer{{id(1), "a", cert(1), []string{SystemAuditor, SystemOperator}}}},
		{"no role", false, "officers[0].roles: no role", []Officer{{id(1), "a", cert(1), nil}}},
		{"unknown role", false, `officers[0].roles[0]: "king" is no role`, []Officer{{id(1), "a", cert(1), []string{"king"}}}},
		{"same id", false, "officers[1]: ", []Officer{{id(1), "a", cert(1), Roles()}, {id(1), "b", cert(2), Roles()}}},
		{"same certificate", false, "officers[1]: ", []Officer{{id(1), "a", cert(1), Roles()}, {id(2), "b", cert(1), Roles()}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, err := ValidateOfficers(test.officers, test.separate)
			if got := fmt.Sprintf("%s: %v", key, err); test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(got, test.want)) {
				t.Errorf("error %s, want %q", got, test.want)
			}
		})
	}
}

// Only the certificate that TLS has verified says who calls; a digest may be written in either case.
func TestOfficerOf(t *testing.T) {
	leaf := &x509.Certificate{Raw: []byte("alice")}
	digest := fmt.Sprintf("%X", sha256.Sum256(leaf.Raw))
	officers := []Officer{{Name: "bob", Certificate: strings.Repeat("0", 64)}, {Name: "alice", Certificate: digest}}
	verified := &http.Request{TLS: &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}
	if o, err := OfficerOf(verified, officers); err != nil || o.Name != "alice" {
		t.Errorf("got %+v, %v", o, err)
	}
	if _, err := OfficerOf(verified, officers[:1]); !errors.Is(err, ErrNotAnOfficer) || !strings.Contains(err.Error(), strings.ToLower(digest)) {
		t.Errorf("stranger: %v", err)
	}
	for _, r := range []*http.Request{{}, {TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}} {
		if _, err := OfficerOf(r, officers); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("error %v", err)
		}
	}
}
