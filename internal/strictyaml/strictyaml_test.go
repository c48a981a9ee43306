package strictyaml

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

type colour string

func (c *colour) UnmarshalText(text []byte) error {
	if string(text) != "red" && string(text) != "blue" {
		return fmt.Errorf("colour %q: red or blue", text)
	}
	*c = colour(text)
	return nil
}

type listener struct {
	Listen string `yaml:"listen"`
	Key    string `yaml:"key"`
}

type common struct {
	Assurance string            `yaml:"assurance"`
	ModuleEnv map[string]string `yaml:"module_env"`
}

// Embedded lends its keys without a tag.
type Embedded struct {
	Note string
}

type config struct {
	Common   common `yaml:",inline"`
	Embedded `yaml:",inline"`
	Admin    listener            `yaml:"admin"`
	Feed     *listener           `yaml:"feed"`
	Officers []listener          `yaml:"officers"`
	ByName   map[string]listener `yaml:"by_name"`
	Every    time.Duration       `yaml:"every"`
	From     time.Time           `yaml:"from"`
	Colour   colour              `yaml:"colour"`
	Colours  []colour            `yaml:"colours"`
	Strict   bool                `yaml:"strict"`
	Instance uint8               `yaml:"instance"`
	Offset   int                 `yaml:"offset"`
	Ratio    float64             `yaml:"ratio"`
	Ignored  string              `yaml:"-"`
	hidden   string
	Callback func()       `yaml:"callback"`
	Bad      map[int]bool `yaml:"bad"`
}

const whole = `# everything there is
assurance: test
module_env: {SOFTHSM2_CONF: /x, OTHER: 12}
note: a number as text is 0012
admin:
  listen: 127.0.0.1:1
  key: 0012
feed: {listen: "true"}
officers:
  - listen: a
  - {listen: b, key: k}
by_name: {x: {listen: c}}
every: 1h30m
from: 2026-11-30
colour: red
colours: [red, blue]
strict: true
instance: 127
offset: -3
ratio: 0.5
`

func TestDecode(t *testing.T) {
	var got config
	if err := Decode("whole.yaml", []byte(whole), &got); err != nil {
		t.Fatal(err)
	}
	want := config{
		Common:   common{Assurance: "test", ModuleEnv: map[string]string{"SOFTHSM2_CONF": "/x", "OTHER": "12"}},
		Embedded: Embedded{Note: "a number as text is 0012"},
		Admin:    listener{Listen: "127.0.0.1:1", Key: "0012"},
		Feed:     &listener{Listen: "true"},
		Officers: []listener{{Listen: "a"}, {Listen: "b", Key: "k"}},
		ByName:   map[string]listener{"x": {Listen: "c"}},
		Every:    90 * time.Minute,
		From:     time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC),
		Colour:   "red", Colours: []colour{"red", "blue"},
		Strict: true, Instance: 127, Offset: -3, Ratio: 0.5,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeKeepsDefaults(t *testing.T) {
	c := config{Every: time.Hour, Admin: listener{Listen: "default"}, hidden: "kept"}
	if err := Decode("d.yaml", []byte("admin: {key: k}\n"), &c); err != nil {
		t.Fatal(err)
	}
	if c.Every != time.Hour || c.Admin != (listener{"default", "k"}) || c.hidden != "kept" {
		t.Errorf("defaults were lost: %+v", c)
	}
}

func TestDecodeNullStructPointer(t *testing.T) {
	c := config{Feed: &listener{Listen: "default"}}
	if err := Decode("n.yaml", []byte("feed:\nnote: 2026-11-30\n"), &c); err != nil {
		t.Fatal(err)
	}
	if c.Feed != nil || c.Note != "2026-11-30" {
		t.Errorf("%+v", c)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "f.yaml:1: the file is empty"},
		{"only a comment", "# nothing\n", "f.yaml:1: the file is empty"},
		{"null", "~\n", "f.yaml:1: the file is empty"},
		{"unknown key", "assurance: test\nadmim: {}\n", `f.yaml:2: admim: unknown key; did you mean "admin"?`},
		{"unknown key, case and hyphen", "by-Name: {}\n", `f.yaml:1: by-Name: unknown key; did you mean "by_name"?`},
		{"unknown key within", "officers:\n  - listen: a\n    keys: b\n", `f.yaml:3: officers[0].keys: unknown key; did you mean "key"?`},
		{"nothing near", "admin: {zzzzzzzz: 1}", "f.yaml:1: admin.zzzzzzzz: unknown key; known are listen, key"},
		{"field that is no key", "ignored: x", "f.yaml:1: ignored: unknown key"},
		{"hidden field", "hidden: x", "f.yaml:1: hidden: unknown key"},
		{"doubled key", "every: 1h\nstrict: true\nevery: 2h\n", "f.yaml:3: every: the key is there twice, first on line 1"},
		{"doubled key in a map", "module_env:\n  A: 1\n  A: 2\n", "f.yaml:3: module_env.A: the key is there twice"},
		{"alias", "admin: &a {listen: x}\nfeed: *a\n", "f.yaml:1: admin: an anchor (&)"},
		{"merge", "admin:\n  <<: {listen: x}\n", "f.yaml:2: admin: a merge (<<)"},
		{"tag", "every: !!str 1h\n", "f.yaml:1: every: a tag (!)"},
		{"own tag", "every: !mine 1h\n", "f.yaml:1: every: a tag (!)"},
		{"second document", "every: 1h\n---\nevery: 2h\n", "f.yaml:2: a second document"},
		{"tab", "admin:\n\tlisten: x\n", "f.yaml:2: a tab in the indentation"},
		{"not UTF-8", "every: 1h\nnote: \xff\n", "f.yaml:2: not UTF-8"},
		{"syntax", "admin: {listen: x\n", "f.yaml:"},
		{"complex key", "{[a]: b}\n", "f.yaml:1: a key that is not text"},
		{"null key", "~: b\n", "f.yaml:1: a key that is not text"},
		{"list at the top", "- a\n", `f.yaml:1: a list where keys with values belong`},
		{"text for a struct", "admin: x\n", `f.yaml:1: admin: text where keys with values belong`},
		{"text for a map", "module_env: x\n", `f.yaml:1: module_env: text where keys with values belong`},
		{"text for a list", "officers: x\n", `f.yaml:1: officers: text where a list belongs`},
		{"list for text", "note: [a]\n", "f.yaml:1: note: a list where one value belongs"},
		{"struct for a text type", "colour: {a: b}\n", "f.yaml:1: colour: keys with values where one value belongs"},
		{"no value", "note:\n", "f.yaml:1: note: no value"},
		{"boolean for text", "note: true\n", "f.yaml:1: note: a boolean where text belongs"},
		{"text for a boolean", "strict: \"true\"\n", `f.yaml:1: strict: text where true or false`},
		{"yes for a boolean", "strict: yes\n", `f.yaml:1: strict: text where true or false`},
		{"True for a boolean", "strict: True\n", `f.yaml:1: strict: a boolean where true or false`},
		{"too great a number", "instance: 256\n", `f.yaml:1: instance: a number where a whole number from 0 to 2^8-1`},
		{"negative unsigned", "instance: -1\n", `f.yaml:1: instance: a number where`},
		{"quoted number", "offset: \"1\"\n", `f.yaml:1: offset: text where a whole number`},
		{"hexadecimal", "offset: 0x10\n", `f.yaml:1: offset: a number where a whole number`},
		{"fraction", "offset: 1.5\n", `f.yaml:1: offset: a number where a whole number`},
		{"text for a number", "ratio: x\n", `f.yaml:1: ratio: text where a number belongs`},
		{"not a number", "ratio: .nan\n", `f.yaml:1: ratio: a number where a number belongs`},
		{"number for a duration", "every: 12\n", `f.yaml:1: every: a number where a duration`},
		{"list for a duration", "every: [12]\n", `f.yaml:1: every: a list where a duration`},
		{"no date", "from: tomorrow\n", `f.yaml:1: from: text where a date`},
		{"list for a date", "from: []\n", `f.yaml:1: from: a list where a date`},
		{"what UnmarshalText refuses", "every: 1h\n\ncolours:\n- red\n- green\n", `f.yaml:5: colours[1]: colour "green": red or blue`},
		{"field of a type we do not read", "callback: x\n", "f.yaml:1: callback: cannot decode into func()"},
		{"map without text keys", "bad: {1: true}\n", "f.yaml:1: bad: cannot decode into map[int]bool"},
		{"too long", "note: " + strings.Repeat("x", maxSize), "f.yaml:1: 1048582 octets are too many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c config
			err := Decode("f.yaml", []byte(test.text), &c)
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("error %q, want %q…", err, test.want)
			}
		})
	}
}

// Whatever stands in a file, no error shows a value: it may be a PIN, or a URI with one.
func TestErrorsShowNoValue(t *testing.T) {
	const secret = "s3cr3t-9931"
	for _, text := range []string{
		"admin: pkcs11:object=a?pin-value=" + secret, "module_env: " + secret, "officers: " + secret, "strict: " + secret,
		"instance: " + secret, "offset: " + secret, "ratio: " + secret, "every: " + secret, "from: " + secret,
		"note: *" + secret, "note: &" + secret + " x", "note: !" + secret + " x", "admin: &" + secret + " {listen: x}\nfeed: *" + secret,
		"pkcs11:object=a?pin-value=" + secret + ": x", "admin: {pkcs11:object=a?pin-value=" + secret + ": x}",
		"module_env: {\"?pin-value=" + secret + "\": true}", "module_env: {\"a b" + secret + "\": 1, \"a b" + secret + "\": 2}",
		"note: \"" + secret, "note: {" + secret, "note: [" + secret, "note: @" + secret, "note: %" + secret, "note: `" + secret,
		"note: '" + secret + "' x", "note: " + secret + ": x", "- " + secret, secret, "note: \"\\q" + secret + "\"", "%" + secret + "\n---\nnote: x",
		"note: |" + secret, "!" + secret + "!x note: y", "note: \x01" + secret,
	} {
		var c config
		err := Decode("f.yaml", []byte(text), &c)
		if err == nil {
			t.Errorf("%q: accepted", text)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDecodeWantsStructPointer(t *testing.T) {
	for _, into := range []any{config{}, (*config)(nil), new(string), nil} {
		if err := Decode("f.yaml", []byte("a: b"), into); err == nil {
			t.Errorf("decoded into %T", into)
		}
	}
}

func TestLine(t *testing.T) {
	for path, want := range map[string]int{
		"assurance": 2, "admin": 5, "admin.key": 7, "admin.no": 5, "officers[1]": 11, "officers[1].key": 11,
		"officers[7].key": 9, "by_name.x.listen": 12, "no": 1, "": 1, "admin[0]": 5, "officers.key": 9,
	} {
		if got := Line([]byte(whole), path); got != want {
			t.Errorf("line of %q is %d, want %d", path, got, want)
		}
	}
	if got := Line([]byte("a: b\n\tc"), "a"); got != 2 {
		t.Errorf("line in a text that cannot be read is %d, want that of its fault, 2", got)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"qcp-n", "qcp-n-qscd", "qcp-l", "root-ca"}
	for word, want := range map[string]string{
		"qcp-n": "qcp-n", "QCP_N_QSCD": "qcp-n-qscd", "qcp-n-qcsd": "qcp-n-qscd", "rootca": "root-ca", "qpc-l": "qcp-l",
		"tsu": "", "": "", "entirely-else": "", strings.Repeat("x", 10000): "",
	} {
		if got, ok := Nearest(word, known); got != want || ok != (want != "") {
			t.Errorf("nearest to %q is %q (%v), want %q", word, got, ok, want)
		}
	}
}

var place = regexp.MustCompile(`^f\.yaml:[1-9][0-9]*: .`)

func FuzzDecode(f *testing.F) {
	f.Add(whole)
	for _, seed := range []string{"", "a: &a [*a]", "---\n---\n", "? [a]\n: b", "a: !!binary aaaa", "<<: {a: b}", "admin: {listen: [}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c config
		err := Decode("f.yaml", []byte(text), &c)
		if err != nil {
			if !place.MatchString(err.Error()) {
				t.Fatalf("error without a place: %q", err)
			}
			return
		}
		// What was accepted says the same once it is written out and read again.
		written, err := yaml.Marshal(scalars{c.Common.Assurance, c.Note, c.Admin, c.Every, c.Strict, c.Instance, c.Offset})
		if err != nil {
			t.Fatal(err)
		}
		var d config
		if err := Decode("again.yaml", written, &d); err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if d.Note != c.Note || d.Common.Assurance != c.Common.Assurance || d.Admin != c.Admin || d.Every != c.Every ||
			d.Strict != c.Strict || d.Instance != c.Instance || d.Offset != c.Offset {
			t.Fatalf("read again it says something else:\n%+v\n%+v\n%s", c, d, written)
		}
	})
}

// scalars are the keys of config that every text can be written for.
type scalars struct {
	Assurance string        `yaml:"assurance"`
	Note      string        `yaml:"note"`
	Admin     listener      `yaml:"admin"`
	Every     time.Duration `yaml:"every"`
	Strict    bool          `yaml:"strict"`
	Instance  uint8         `yaml:"instance"`
	Offset    int           `yaml:"offset"`
}

func ExampleDecode() {
	var c struct {
		Listen string        `yaml:"listen"`
		Every  time.Duration `yaml:"every"`
	}
	fmt.Println(Decode("ca.yaml", []byte("listen: 127.0.0.1:8080\nevery: 12h\n"), &c), c.Every)
	fmt.Println(Decode("ca.yaml", []byte("# comment\nlisten: 127.0.0.1:8080\nevry: 12h\n"), &c))
	// Output:
	// <nil> 12h0m0s
	// ca.yaml:3: evry: unknown key; did you mean "every"?
}
