package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zegel-tsp/zegel/internal/der"
)

const requests = "../testdata/request"

// TestRequestExamples: each example for officers is a subject its profile takes, and a test one.
func TestRequestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(requests, "*.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	for _, file := range files {
		profile := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(profile, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ParseSubject(file, text)
			if err != nil {
				t.Fatal(err)
			}
			kind := legalSubject
			if strings.Contains(profile, "-n") {
				kind = naturalSubject
			}
			qscd := strings.HasSuffix(profile, "-qscd")
			if v := append(s.violations(kind, pinned), s.evidence(true, qscd)...); len(v) > 0 {
				t.Errorf("refused: %v", v)
			}
			if qscd != (s.Device != nil) {
				t.Errorf("device: %v", s.Device)
			}
			for _, name := range append(s.values("commonName"), s.values("organizationName")...) {
				if !strings.Contains(name, "TEST") {
					t.Errorf("%q does not say TEST", name)
				}
			}
			if _, err := s.Name(); err != nil {
				t.Error(err)
			}
			if !bytes.Contains(text, []byte("--profile "+profile+" ")) {
				t.Error("the example does not show the command it is for")
			}
		})
	}
}

func TestParseSubject(t *testing.T) {
	got, err := ParseSubject("s.yaml", []byte(`
registration:
  terms: 2026-09
  officer: ro-1
  date: 2026-11-20
  evidence: 5F70BF18A086007016E948B04AED3B82103A36BEA41755B6CDDFAF10ACE3C6EF
  method: physical-presence
device: {model: TEST SignCard 4, certification: TEST-QSCD-2026-0007, generation_record: minutes no. 7}
email: thea.test@example.nl
subject:
  commonName: TEST Théa Testermann
  postalCode: 0123
  givenName: Théa
  surname: Testermann
  countryName: NO
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Subject{
		Attributes: []Attribute{
			{"countryName", "NO"}, {"postalCode", "0123"}, {"surname", "Testermann"}, {"givenName", "Théa"},
			{"commonName", "TEST Théa Testermann"},
		},
		Email: "thea.test@example.nl",
		Registration: &Registration{
			Method: "physical-presence", EvidenceDigest: testDigest,
			Date: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), Officer: "ro-1", TermsVersion: "2026-09",
		},
		Device: &Device{Model: "TEST SignCard 4", Certification: "TEST-QSCD-2026-0007", GenerationRecord: "minutes no. 7"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestParseSubjectErrors: what a person reads names the file, the line, the key and the remedy.
func TestParseSubjectErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty file", "", []string{"s.yaml:1: "}},
		{"no subject", "email: a@example.nl\n", []string{"s.yaml:1: subject: missing", "countryName"}},
		{"misspelt attribute", "subject:\n  countryName: NL\n  comonName: x\n", []string{"s.yaml:3: ", "comonName", "commonName"}},
		{"misspelt block", "subjekt:\n  countryName: NL\n", []string{"s.yaml:1: ", "subjekt", "subject"}},
		{"doubled attribute", "subject:\n  surname: A\n  surname: B\n", []string{"s.yaml:3: ", "surname"}},
		{"line without a value", "subject:\n  surname:\n", []string{"s.yaml:2: ", "surname"}},
		{"empty value", "subject:\n  surname: ''\n", []string{"s.yaml:2: ", "surname", "leave the line out"}},
		{"list of values", "subject:\n  surname: [A, B]\n", []string{"s.yaml:2: ", "surname"}},
		{"unknown method", "subject: {commonName: x}\nregistration:\n  method: telephone\n",
			[]string{"s.yaml:3: ", "registration.method", "telephone", "physical-presence"}},
		{"no digest", "subject: {commonName: x}\nregistration:\n  evidence: 5f70\n", []string{"s.yaml:3: ", "evidence", "sha256sum"}},
		{"digest of nothing", "subject: {commonName: x}\nregistration:\n  evidence: " + emptyDigest + "\n",
			[]string{"s.yaml:3: ", "evidence", "empty file"}},
		{"no day", "subject: {commonName: x}\nregistration:\n  date: 20.11.2026\n", []string{"s.yaml:3: ", "date", "2026-11-23"}},
		{"impossible day", "subject: {commonName: x}\nregistration:\n  date: 2026-02-30\n", []string{"s.yaml:3: ", "date"}},
		{"day of another century", "subject: {commonName: x}\nregistration:\n  date: 1026-11-20\n", []string{"s.yaml:3: ", "date"}},
		{"unknown key of a device", "subject: {commonName: x}\ndevice:\n  modell: x\n", []string{"s.yaml:3: ", "modell", "model"}},
		{"attestation of a device", "subject: {commonName: x}\ndevice:\n  attestation: x\n", []string{"s.yaml:3: ", "attestation"}},
		{"second document", "subject: {commonName: x}\n---\nsubject: {commonName: y}\n", []string{"s.yaml:"}},
		{"too long", "#" + strings.Repeat(" ", maxSubjectFile), []string{"s.yaml:1: ", "65536"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSubject("s.yaml", []byte(c.text))
			if err == nil {
				t.Fatalf("read as %+v", s)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

// TestOrderIsTheSameForTheCodec: the file's fields, the DN and the table of attributes agree.
func TestOrderIsTheSameForTheCodec(t *testing.T) {
	var text strings.Builder
	text.WriteString("subject:\n")
	for i := len(attributeTypes) - 1; i >= 0; i-- {
		fmt.Fprintf(&text, "  %s: NL\n", attributeTypes[i].name)
	}
	s, err := ParseSubject("s.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Attributes) != len(attributeTypes) {
		t.Fatalf("%d attributes of %d", len(s.Attributes), len(attributeTypes))
	}
	for i, a := range s.Attributes {
		if a.Type != attributeTypes[i].name {
			t.Errorf("%d: %s in the DN, %s in the table", i, a.Type, attributeTypes[i].name)
		}
	}
}

func TestEvidenceJSON(t *testing.T) {
	got, err := provedSubject().Evidence()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"subject":[{"type":"countryName","value":"NL"},{"type":"surname","value":"Testermann"},{"type":"givenName","value":"Théa"},` +
		`{"type":"serialNumber","value":"PNONL-TEST0000001"},{"type":"commonName","value":"TEST Théa Testermann"}],"email":"thea.test@example.nl",` +
		`"registration":{"method":"physical-presence","evidence":"` + testDigest + `","date":"2026-11-20","officer":"ro-1","terms":"2026-09"},` +
		`"device":{"model":"TEST SignCard 4","certification":"TEST-QSCD-2026-0007","attestation":"` + testDigest + `"}}`
	if string(got) != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	bare, err := (&Subject{}).Evidence()
	if err != nil || string(bare) != `{"subject":[]}` {
		t.Errorf("%s, %v", bare, err)
	}
	if out, err := (&Subject{Attributes: []Attribute{{"commonName", "\xff"}}}).Evidence(); err == nil {
		t.Errorf("octets that are not UTF-8 became %s", out)
	}
	for _, s := range []*Subject{{Email: "\xff"}, {Registration: &Registration{Officer: "\xff"}}, {Device: &Device{Model: "\xff"}}} {
		if out, err := s.Evidence(); err == nil {
			t.Errorf("octets that are not UTF-8 became %s", out)
		}
	}
}

// FuzzParseSubject: what is read has canonical evidence, and what the rules take can be
// written as a name and read back.
func FuzzParseSubject(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(requests, "*.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("subject: {countryName: NO, commonName: x}\nemail: a@b.c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSubject("s.yaml", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "s.yaml:") {
				t.Errorf("error without its place: %v", err)
			}
			return
		}
		if evidence, err := s.Evidence(); err == nil && !json.Valid(evidence) {
			t.Errorf("evidence is no JSON: %s", evidence)
		}
		s.evidence(true, true)
		natural, legal := s.violations(naturalSubject, pinned), s.violations(legalSubject, pinned)
		if len(natural) > 0 && len(legal) > 0 {
			return
		}
		name, err := s.Name()
		if err != nil {
			t.Fatalf("the rules take %+v, and it cannot be written: %v", s, err)
		}
		if err := der.Check(name); err != nil {
			t.Fatal(err)
		}
		if back, err := readName(name); err != nil || !cmp.Equal(back.Attributes, s.Attributes) {
			t.Errorf("written as %x, read as %v, %v", name, back, err)
		}
	})
}

func ExampleParseSubject() {
	s, err := ParseSubject("request.yaml", []byte(`
subject:
  commonName: TEST Siegelwerke
  organizationName: TEST Siegelwerke GmbH
  organizationIdentifier: NTRDE-HRB000001
  countryName: DE
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range s.Attributes {
		fmt.Println(a.Type, "=", a.Value)
	}
	_, err = ParseSubject("request.yaml", []byte("subject:\n  comonName: TEST Siegelwerke\n"))
	fmt.Println(err)
	// Output:
	// countryName = DE
	// organizationName = TEST Siegelwerke GmbH
	// organizationIdentifier = NTRDE-HRB000001
	// commonName = TEST Siegelwerke
	// request.yaml:2: subject.comonName: unknown key; did you mean "commonName"?
}

func BenchmarkParseSubject(b *testing.B) {
	text, err := os.ReadFile(filepath.Join(requests, "qcp-n.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ParseSubject("s.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}
