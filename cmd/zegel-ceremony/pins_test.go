package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/hsm/hsmtest"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// splitRoom is a room whose root and issuing CA are on a SoftHSM token with a split PIN.
type splitRoom struct {
	room
	texts []string // files of the three shares
	pin   string
	set   string // file that the shares are held against
}

func newSplitRoom(t *testing.T) splitRoom {
	t.Helper()
	token := hsmtest.SoftHSM(t)
	r := splitRoom{room: newRoom(t)}
	pin, err := os.ReadFile(token.PIN)
	if err != nil {
		t.Fatal(err)
	}
	r.pin = strings.TrimSpace(string(pin))
	set, list, err := shares.Split([]byte(r.pin), "TEST token", 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	file, err := set.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r.set = r.write(t, "pin.shares", string(file))
	for _, s := range list {
		r.texts = append(r.texts, r.write(t, fmt.Sprintf("share-%d", s.Number), string(s.Text(set))))
	}
	text, err := os.ReadFile(r.script)
	if err != nil {
		t.Fatal(err)
	}
	moved := string(text)
	for _, object := range []string{"root", "issuing"} {
		soft := fmt.Sprintf("softtoken:object=%s?dir=%[2]s/keys&pin-source=file:%[2]s/pin", object, r.dir)
		uri, _, found := strings.Cut(token.URI(object), "&pin-source=")
		if !found || !strings.Contains(moved, soft) {
			t.Fatalf("%s, or the script lacks %s", token.URI(object), soft)
		}
		moved = strings.ReplaceAll(moved, soft, uri+"&pin-source=shares:"+r.set)
	}
	moved = strings.ReplaceAll(moved, "instance: 1", fmt.Sprintf("instance: 1\nmodule_env: {SOFTHSM2_CONF: %q}", token.Config.ModuleEnv["SOFTHSM2_CONF"]))
	moved = strings.ReplaceAll(moved, "role: security_officer\n", "role: security_officer\n      share: 1\n")
	moved = strings.ReplaceAll(moved, "role: witness\n", "role: witness\n      share: 3\n")
	r.write(t, "script.yaml", moved)
	return r
}

func (r splitRoom) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// line is what the keeper of a share types.
func (r splitRoom) line(t *testing.T, number int) string {
	t.Helper()
	text, err := os.ReadFile(r.texts[number-1])
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// ceremony holds the ceremony: lines are typed, files given by --share.
func (r splitRoom) ceremony(t *testing.T, lines, files []string) (said string, err error) {
	t.Helper()
	p, err := makePlan(r.script)
	if err != nil {
		t.Fatal(err)
	}
	p.tokens.SoftWorkFactor, p.shareFiles = 1, files
	typed, err := os.Open(r.write(t, "typed", strings.Join(lines, "\n")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer typed.Close()
	p.in = typed
	var out, progress strings.Builder
	err = p.run(t.Context(), &out, &progress)
	return progress.String(), err
}

// A ceremony with a split PIN wants its keepers, takes their shares one by one or from files, and its report says whose they were.
func TestSplitPIN(t *testing.T) {
	for name, c := range map[string]struct {
		lines, files []int
		numbers      []int
		keepers      []string
	}{
		"typed":            {[]int{3, 1}, nil, []int{3, 1}, []string{"TEST witness", "TEST security officer"}},
		"typed, one twice": {[]int{1, 1, 3}, nil, []int{1, 3}, []string{"TEST security officer", "TEST witness"}},
		"from files":       {nil, []int{1, 2, 3}, []int{1, 2}, []string{"TEST security officer", "somebody whom the script does not name"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSplitRoom(t)
			var lines, files []string
			for _, n := range c.lines {
				lines = append(lines, r.line(t, n))
			}
			for _, n := range c.files {
				files = append(files, r.texts[n-1])
			}
			said, err := r.ceremony(t, lines, files)
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if c.files == nil && !strings.Contains(said, "wants 2 of 3 shares: 1 with TEST security officer, 2 with somebody whom the script does not name, 3 with TEST witness") {
				t.Errorf("nobody is told who is wanted:\n%s", said)
			}
			text, err := os.ReadFile(r.path("key-report.json"))
			if err != nil {
				t.Fatal(err)
			}
			var report keyReport
			if err := json.Unmarshal(text, &report); err != nil {
				t.Fatal(err)
			}
			if len(report.PINs) != 1 || !slices.Equal(report.PINs[0].Shares, c.numbers) || report.PINs[0].Threshold != 2 || report.PINs[0].Of != 3 || !slices.Equal(report.PINs[0].Keepers, c.keepers) {
				t.Errorf("the report says %+v", report.PINs)
			}
			r.tellsNoShare(t, said)
			// The daemon's configuration asks for the same shares.
			config, err := os.ReadFile(r.path("ca.yaml"))
			if err != nil || !strings.Contains(string(config), "pin-source=shares:"+r.set) {
				t.Errorf("ca.yaml: %v\n%s", err, config)
			}
		})
	}
}

// A qualified provider's script names as many keepers as open the tokens of its CAs.
func TestKeepersAreNamed(t *testing.T) {
	r := newSplitRoom(t)
	uri := "pkcs11:token=t;object=x?pin-source=shares:" + r.set
	for _, c := range []struct {
		root    string
		keepers int
		from    int // the first one's number
		want    string
	}{
		{uri, 2, 1, ""}, {uri, 3, 1, ""},
		{uri, 3, 3, "ceremony.participants: 1 of them keep a share, and 2 open the token of keys.root"}, // there are 3 shares: no 4 and 5
		{uri, 1, 1, "ceremony.participants: 1 of them keep a share, and 2 open the token of keys.root"},
		{"pkcs11:token=t;object=x?pin-source=prompt", 3, 1, "keys.root.uri: one person could open this token"},
	} {
		s := script{Assurance: daemon.AssuranceQualified}
		s.Keys.Root.URI = c.root
		for _, other := range []*string{&s.Keys.Issuing.URI, &s.Keys.OCSP.URI, &s.Keys.TSU.URI, &s.Keys.Management.URI, &s.Keys.CAWrap.URI, &s.Keys.TSAWrap.URI, &s.Keys.CACheckpoint.URI, &s.Keys.TSACheckpoint.URI} {
			*other = uri
		}
		for n := range c.keepers {
			s.Ceremony.Participants = append(s.Ceremony.Participants, participant{Name: fmt.Sprintf("TEST %d", n), Share: n + c.from})
		}
		if err := s.validatePINs(); (err == nil) != (c.want == "") || !strings.HasPrefix(fmt.Sprint(err), c.want) && c.want != "" {
			t.Errorf("%d keepers, root %s: %v, want %q", c.keepers, c.root, err, c.want)
		}
	}
}

// tellsNoShare looks for the shares, and the PIN, in what was said and in every file that came out.
func (r splitRoom) tellsNoShare(t *testing.T, said string) {
	t.Helper()
	secrets := []string{r.pin}
	for n := 1; n <= 3; n++ {
		line := r.line(t, n)
		secrets = append(secrets, line, line[len(line)-20:])
	}
	texts := map[string]string{"standard error": said}
	for path := range snapshot(t, r.output) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	for path, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a share or the PIN in it", path)
			}
		}
	}
}

// A share that does not fit, too few, or a wrong PIN stop the ceremony before a key is made.
func TestSplitPINRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, r splitRoom) (lines, files []string)
		want  string
	}{
		"nobody comes":   {func(*testing.T, splitRoom) ([]string, []string) { return nil, nil }, "share 1 of 2 that open the PIN of TEST token"},
		"one is missing": {func(t *testing.T, r splitRoom) ([]string, []string) { return []string{r.line(t, 1)}, nil }, "share 2 of 2"},
		"too few files":  {func(_ *testing.T, r splitRoom) ([]string, []string) { return nil, r.texts[:1] }, "1 of 2"},
		"one file twice": {func(_ *testing.T, r splitRoom) ([]string, []string) { return nil, []string{r.texts[0], r.texts[0]} }, "entered already"},
		"no such file":   {func(_ *testing.T, r splitRoom) ([]string, []string) { return nil, []string{"/none"} }, "read share: open /none"},
		"for everyone to read": {func(t *testing.T, r splitRoom) ([]string, []string) {
			if err := os.Chmod(r.texts[1], 0o644); err != nil {
				t.Fatal(err)
			}
			return nil, r.texts[:2]
		}, "has mode 0644"},
		"mistyped": {func(t *testing.T, r splitRoom) ([]string, []string) {
			line := r.line(t, 1)
			return slices.Repeat([]string{line[:len(line)-1] + "z"}, 3), nil
		}, shares.ErrDamaged.Error()},
		"another PIN than the token's": {func(t *testing.T, r splitRoom) ([]string, []string) {
			set, list, err := shares.Split([]byte("9999-other"), "TEST token", 3, 2)
			if err != nil {
				t.Fatal(err)
			}
			file, err := set.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			r.write(t, "pin.shares", string(file))
			var files []string
			for i, s := range list[:2] {
				files = append(files, r.write(t, fmt.Sprintf("share-%d", i+1), string(s.Text(set))))
			}
			return nil, files
		}, "PIN refused"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSplitRoom(t)
			lines, files := c.spoil(t, r)
			said, err := r.ceremony(t, lines, files)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "ceremony stopped at: enter PINs") || !strings.Contains(err.Error(), "no key was generated") {
				t.Errorf("%v, want %q\n%s", err, c.want, said)
			}
		})
	}
}
