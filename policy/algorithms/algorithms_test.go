package algorithms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
)

var today = time.Date(2026, time.November, 23, 12, 0, 0, 0, time.UTC)

// fixture is, for one row, a key it lets do a work and one it refuses.
type fixture struct {
	key  Key
	may  Use // "": the row lets it do nothing, and instead is what passes
	not  Use
	says string

	instead Key
}

func fixtures() map[string]fixture {
	return map[string]fixture{
		"ECDSA on P-256 with SHA-256":                        {key: Named("p256", ""), may: TSU, not: Checkpoint, says: "write ed25519"},
		"ECDSA on P-384 with SHA-384":                        {key: Named("p384", ""), may: CA, not: Checkpoint, says: "write ed25519"},
		"ECDSA on P-521 with SHA-512":                        {key: Named("p521", ""), may: OCSP, not: Checkpoint, says: "write ed25519"},
		"RSASSA-PSS with SHA-256, 3000 bits and more":        {key: Named("rsa3072", der.PSS), may: CA, not: Management, says: "leave signature_scheme out"},
		"RSASSA-PKCS1-v1_5 with SHA-256, 3000 bits and more": {key: Named("rsa4096", ""), may: Management, not: Checkpoint, says: "write ed25519"},
		"RSA below 3000 bits":                                {key: Named("rsa2048", ""), not: CA, says: "take rsa3072", instead: Named("rsa3072", "")},
		"Ed25519":                                            {key: Named("ed25519", ""), may: Checkpoint, not: TSU, says: "not among the mechanisms that the ECCG agrees to"},
		"Ed448":                                              {key: Named("ed448", ""), not: OCSP, says: "take p256", instead: Named("p256", "")},
		"ECDSA on a brainpool curve":                         {key: Named("brainpoolP256r1", ""), not: CA, says: "GnuTLS", instead: Named("p256", "")},
	}
}

// Every row has one passing and one failing fixture.
func TestRows(t *testing.T) {
	all := fixtures()
	for _, row := range InForce() {
		f, ok := all[row.Algorithm]
		if !ok {
			t.Errorf("row %q has no fixtures", row.Algorithm)
			continue
		}
		delete(all, row.Algorithm)
		if found, _ := InForce().find(f.key); found.Algorithm != row.Algorithm {
			t.Errorf("%s is found in row %q", f.key, found.Algorithm)
		}
		good, use := f.key, f.may
		if f.may == "" {
			good, use = f.instead, f.not
		}
		if warning, err := InForce().Check(good, use, today); err != nil || warning != "" {
			t.Errorf("%s for %s: %q, %v", good, use, warning, err)
		}
		_, err := InForce().Check(f.key, f.not, today)
		var refused *Refused
		if !errors.As(err, &refused) || refused.Clause != row.Clause || !strings.Contains(err.Error(), f.says) {
			t.Errorf("%s for %s: %v, want a refusal by %s that says %q", f.key, f.not, err, row.Clause, f.says)
		}
	}
	for name := range all {
		t.Errorf("fixtures of %q, which is no row", name)
	}
}

// Of a key itself the table says what it says of its name.
func TestOf(t *testing.T) {
	ec := func(c elliptic.Curve) crypto.PublicKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k.Public()
	}
	modulus := func(bits int) crypto.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 65537}
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	services := []Use{CA, OCSP, TSU, Management}
	for _, c := range []struct {
		public crypto.PublicKey
		scheme der.Scheme
		name   string
		uses   []Use
	}{
		{ec(elliptic.P256()), "", "p256", services},
		{ec(elliptic.P384()), "", "p384", services},
		{ec(elliptic.P521()), "", "p521", services},
		{ec(elliptic.P224()), "", "EC P-224", nil},
		{modulus(3072), der.PSS, "rsa3072", []Use{CA, OCSP, TSU}},
		{modulus(3000), der.PKCS1v15, "rsa3000", services},
		{modulus(2999), der.PSS, "rsa2999", nil},
		{modulus(4096), "", "rsa4096", services},
		{edwards, "", "ed25519", []Use{Checkpoint}},
		{"no key", "", "string", nil},
	} {
		k := Of(c.public, c.scheme)
		if got := InForce().UsesOf(k, today); k.String() != c.name || !slices.Equal(got, c.uses) {
			t.Errorf("%s %s: may %v, want %s and %v", k, c.scheme, got, c.name, c.uses)
		}
	}
	for _, name := range []string{"", "p999", "rsa", "rsa-1", "rsa99999999", "secp256k1"} {
		if _, err := InForce().Check(Named(name, ""), CA, today); err == nil || !strings.Contains(err.Error(), "take p256") {
			t.Errorf("%q: %v, want a refusal that names what to take", name, err)
		}
	}
}

// An end is exact to the second, warned of for two years, and by whatever scheme a key could sign.
func TestUntil(t *testing.T) {
	end := time.Date(2028, time.December, 31, 23, 59, 59, 0, time.UTC)
	table := InForce()
	for i, row := range table {
		if row.family == p384 || row.scheme == der.PKCS1v15 {
			table[i].Until = end
		}
	}
	for _, c := range []struct {
		key  Key
		at   time.Time
		want string // warning, refused or ""
	}{
		{Named("p384", ""), end.AddDate(0, -24, -1), ""},
		{Named("p384", ""), end.AddDate(0, -24, 0).Add(time.Second), "warning"},
		{Named("p384", ""), end, "warning"},
		{Named("p384", ""), end.Add(time.Second), "refused"},
		{Named("rsa3072", ""), end.Add(time.Second), "refused"},
		{Named("rsa3072", der.PSS), end.Add(time.Second), ""},
		{Named("p256", ""), end.Add(time.Second), ""},
	} {
		warning, err := table.Check(c.key, CA, c.at)
		got := ""
		switch {
		case err != nil:
			got = "refused"
		case strings.Contains(warning, "ends at 2028-12-31"):
			got = "warning"
		}
		if got != c.want {
			t.Errorf("%s at %s: %q (%q, %v), want %q", c.key, c.at, got, warning, err, c.want)
		}
		if aging := table.Aging(c.key, CA, c.at); (len(aging) == 1 && strings.Contains(aging[0], "2028-12-31")) != (c.want != "") {
			t.Errorf("%s at %s: aging %q, want %q", c.key, c.at, aging, c.want)
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	if until, _ := table.KeyUntil(key.Public()); !until.IsZero() {
		t.Errorf("an RSA key that may sign by PSS ends at %s", until)
	}
	for i := range table {
		if table[i].scheme == der.PSS {
			table[i].Until = end.AddDate(1, 0, 0)
		}
	}
	if until, _ := table.KeyUntil(key.Public()); !until.Equal(end.AddDate(1, 0, 0)) {
		t.Errorf("an RSA key ends at %s, want the later of its schemes' ends", until)
	}
	algorithm, err := der.AlgorithmFor(key.Public(), der.PSS)
	if err != nil {
		t.Fatal(err)
	}
	if until, _ := table.Until(Signing(key.Public(), algorithm)); !until.Equal(end.AddDate(1, 0, 0)) {
		t.Errorf("what was signed by PSS ends at %s", until)
	}
	if algorithm, err = der.AlgorithmFor(key.Public(), ""); err != nil {
		t.Fatal(err)
	}
	if until, _ := table.Until(Signing(key.Public(), algorithm)); !until.Equal(end) {
		t.Errorf("what was signed by PKCS #1 v1.5 ends at %s", until)
	}
}

// Legacy is said of RSASSA-PKCS1-v1_5 and nothing else.
func TestLegacy(t *testing.T) {
	for _, c := range []struct {
		key    Key
		legacy bool
	}{{Named("rsa3072", ""), true}, {Named("rsa3072", der.PSS), false}, {Named("p256", ""), false}, {Named("none", ""), false}} {
		if got := InForce().Legacy(c.key); (got != "") != c.legacy {
			t.Errorf("%s: %q", c.key, got)
		}
	}
}
