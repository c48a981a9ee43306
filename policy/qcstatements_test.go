package policy

import (
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"

	"github.com/zegel-tsp/zegel/internal/der"
)

// TestGoldenStatements: the DER of the QCStatements, octet for octet.
func TestGoldenStatements(t *testing.T) {
	for _, test := range []struct {
		name string
		s    statement
		want string
	}{
		{"QcCompliance", qcCompliance(), "3008060604008E460101"},
		{"QcSSCD", qcSSCD(), "3008060604008E460104"},
		{"QcType esign", qcType("esign"), "3013060604008E4601063009060704008E46010601"},
		{"QcType eseal", qcType("eseal"), "3013060604008E4601063009060704008E46010602"},
		{"QcType web", qcType("web"), "3013060604008E4601063009060704008E46010603"},
		{"QcPDS", qcPDS([]PDS{{"https://q.example/pds_en.pdf", "en"}}), "302E060604008E46010530243022161C68747470733A2F2F712E6578616D706C652F7064735F656E2E7064661302656E"},
		{"QcRetentionPeriod", qcRetentionPeriod(10), "300B060604008E46010302010A"},
		{"QcLimitValue", qcLimitValue(limitValue{"EUR", 1000, 0}), "3016060604008E460102300C1303455552020203E8020100"},
		{"QcIdentMethod", qcIdentMethod(oidIdentMethodACD), "3013060604008E4601083009060704008E46010803"},
		{"semantics natural", qcSemantics("natural"), "301506082B06010505070B023009060704008BEC490101"},
		{"semantics legal", qcSemantics("legal"), "301506082B06010505070B023009060704008BEC490102"},
	} {
		var b cryptobyte.Builder
		test.s.add(&b)
		if got := strings.ToUpper(hex.EncodeToString(b.BytesOrPanic())); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

// TestGoldenExtensions: whole extensions as they stand in drafts.
func TestGoldenExtensions(t *testing.T) {
	for _, test := range []struct {
		profile string
		id      der.OID
		want    string
	}{
		{"ocsp-responder", oidOCSPNoCheck, "300F06092B060105050730010504020500"},
		{"tsu", oidExtKeyUsage, "30160603551D250101FF040C300A06082B06010505070308"},
		{"qcp-n", oidKeyUsage, "300E0603551D0F0101FF040403020640"},
		{"tsu", oidKeyUsage, "300E0603551D0F0101FF040403020780"},
		{"issuing-ca", oidKeyUsage, "300E0603551D0F0101FF040403020106"},
		{"issuing-ca", oidBasicConstraints, "30120603551D130101FF040830060101FF020100"},
		{"root-ca", oidBasicConstraints, "300F0603551D130101FF040530030101FF"},
		{"tsu", oidPrivateKeyUsagePeriod, "302B0603551D1004243022800F32303236313132333132303030305A810F32303237313132333132303030305A"},
	} {
		c, err := readCertificate(testDraft(t, mustBuiltin(t, test.profile), testKeyP256()))
		if err != nil {
			t.Fatal(err)
		}
		e, ok := c.find(test.id)
		if !ok {
			t.Fatalf("%s has no extension %v", test.profile, test.id)
		}
		var b cryptobyte.Builder
		e.Add(&b)
		if got := strings.ToUpper(hex.EncodeToString(b.BytesOrPanic())); got != test.want {
			t.Errorf("%s %v:\n got %s\nwant %s", test.profile, test.id, got, test.want)
		}
	}
}

// TestKeyUsageTypes: table 1 of EN 319 412-2.
func TestKeyUsageTypes(t *testing.T) {
	for _, test := range []struct {
		name keyUsageType
		rsa  bool
		want string
	}{
		{"A", false, "03020640"}, {"B", false, "030206c0"}, {"C", false, "03020780"},
		{"D", true, "030205a0"}, {"D", false, "03020388"},
		{"E", true, "03020520"}, {"E", false, "03020308"},
		{"F", true, "030205e0"}, {"F", false, "030203c8"},
		{"ca", true, "03020106"},
	} {
		value := written(addKeyUsage(test.name.bits(test.rsa)))
		if got := hex.EncodeToString(value); got != test.want {
			t.Errorf("type %s, rsa %t: %s, want %s", test.name, test.rsa, got, test.want)
		}
		if bits, ok := readKeyUsage(value); !ok || bits != test.name.bits(test.rsa) {
			t.Errorf("type %s: read back as %08b, %t", test.name, bits, ok)
		}
	}
	for _, malformed := range []string{"", "030100", "03020640ff", "0303076180", "03020040", "030205 40"} {
		if _, ok := readKeyUsage(mustHex(malformed)); ok {
			t.Errorf("%q was read as a keyUsage", malformed)
		}
	}
}
