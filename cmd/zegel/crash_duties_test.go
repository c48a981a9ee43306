//go:build failpoint

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// dutyCrash is one step of a duty at which zegel token dies, and fails, before and after. What is true afterwards is what the second token, or
// for a destruction the first, has under the key's label: "nothing", "half" a pair, or the "whole" key.
type dutyCrash struct {
	step          failpoint.Step
	nth           int
	during        string // one of dutyActs
	before, after string // where it died
	// What a step that failed leaves, before it was taken and after, and with which status the tool ends.
	failedBefore, failedAfter string
	status                    [2]int
}

var dutyCrashes = []dutyCrash{
	{failpoint.UnwrapKey, 1, "restore", "nothing", "nothing", "nothing", "nothing", [2]int{1, 1}},
	{failpoint.UnwrapKey, 2, "restore", "nothing", "half", "nothing", "half", [2]int{1, 1}},
	{failpoint.CreatePublicKey, 1, "restore", "half", "whole", "nothing", "nothing", [2]int{1, 1}},
	{failpoint.CopyKey, 1, "receive", "nothing", "whole", "nothing", "whole", [2]int{1, 1}},
	{failpoint.DestroyObject, 1, "destroy", "whole", "half", "half", "nothing", [2]int{1, 0}},
	{failpoint.DestroyObject, 2, "destroy", "half", "nothing", "half", "nothing", [2]int{0, 0}},
	{failpoint.WriteDutyFile, 1, "destroy", "whole", "whole", "whole", "whole", [2]int{1, 1}},
	{failpoint.WriteDutyFile, 2, "destroy", "nothing", "nothing", "nothing", "nothing", [2]int{1, 1}},
	{failpoint.WriteDutyFile, 2, "back up", "nothing", "nothing", "nothing", "nothing", [2]int{1, 1}},
}

// dutyTokens are two tokens, a and b, in a folder, with what a backup takes.
type dutyTokens struct{ dir, module string }

func (d dutyTokens) uri(token, object, pin string) string {
	return hsm.URI{Token: token, Object: object, ModulePath: d.module, PINSource: "file:" + filepath.Join(d.dir, pin)}.String()
}

// run is zegel token with args, without failpoints.
func (d dutyTokens) run(t *testing.T, args ...string) string {
	t.Helper()
	return d.tool(t, "", 0, args...)
}

func (d dutyTokens) tool(t *testing.T, orders string, want int, args ...string) string {
	t.Helper()
	p := runProcess(t, filepath.Join(d.dir, "log"), orders, "zegel", append([]string{"token"}, args...)...)
	if status := p.wait(t); want < 0 && (!status.Signaled() || status.Signal() != syscall.SIGKILL) || want >= 0 && status.ExitStatus() != want {
		t.Fatalf("%q ended with %v, want %d: %s", args, p.cmd.ProcessState, want, p.text())
	}
	return string(p.text())
}

func (d dutyTokens) path(name string) string { return filepath.Join(d.dir, name) }

// newDutyTokens makes a backup key and a key pair on a, backs both up, and a transport key on b.
func newDutyTokens(t *testing.T) dutyTokens {
	t.Helper()
	d := dutyTokens{dir: filepath.Join(t.TempDir(), "d")}
	for _, dir := range []string{d.dir, d.path("tokens"), d.path("log")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	i := slices.IndexFunc(softHSMModules, func(path string) bool { return exists(t, path) })
	if i < 0 {
		t.Fatal("SoftHSM 2 is not installed: run make test, which installs it")
	}
	d.module = softHSMModules[i]
	d.configure(t)
	for name, text := range map[string]string{"pin": "31415926", "so-pin": "27182818"} {
		if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, label := range []string{"a", "b"} {
		c := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "27182818", "--pin", "31415926")
		c.Env = append(os.Environ(), "SOFTHSM2_CONF="+d.path("softhsm2.conf"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	record := func() string { d.records(t); return d.path("record.json") }
	a, b, so := func(o string) string { return d.uri("a", o, "pin") }, func(o string) string { return d.uri("b", o, "pin") }, func(o string) string { return d.uri("a", o, "so-pin") }
	d.run(t, "generate", b("transport"), "--algorithm", "rsa4096-transport", "--out", d.path("transport.pem"), "--record", record())
	d.run(t, "generate", so("backup-key"), "--algorithm", "aes256-backup", "--record", record())
	text, err := os.ReadFile(d.path("transport.pem"))
	if err != nil {
		t.Fatal(err)
	}
	_, digest, err := readTransportKey(text)
	if err != nil {
		t.Fatal(err)
	}
	d.run(t, "trust", so("transport-b"), "--public", d.path("transport.pem"), "--confirm", digest, "--record", record())
	d.run(t, "backup", a("backup-key"), "--under", a("transport-b"), "--out", d.path("backup-key.backup"), "--record", record())
	d.run(t, "restore", d.path("backup-key.backup"), "--to", b(""), "--under", b("transport"), "--record", record())
	d.run(t, "generate", a("ca"), "--algorithm", "p384", "--backup", "--out", d.path("ca.pem"), "--record", record())
	d.run(t, "backup", a("ca"), "--under", a("backup-key"), "--out", d.path("ca.backup"), "--record", record())
	d.records(t)
	return d
}

// configure writes SoftHSM's configuration.
func (d dutyTokens) configure(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\n", d.path("tokens"))
	if err := os.WriteFile(d.path("softhsm2.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// records removes the record of the last duty.
func (d dutyTokens) records(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(d.path("record.json")); err != nil {
		t.Fatal(err)
	}
}

func (d dutyTokens) copy(t *testing.T) dutyTokens {
	t.Helper()
	c := dutyTokens{dir: filepath.Join(t.TempDir(), "d"), module: d.module}
	copyFolder(t, d.dir, c.dir)
	c.configure(t)
	return c
}

// has tells what a token has under a label.
func (d dutyTokens) has(t *testing.T, token, label string) string {
	t.Helper()
	var records []hsm.KeyRecord
	if err := json.Unmarshal([]byte(d.run(t, "keys", d.uri(token, "", "pin"), "--json")), &records); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		switch {
		case r.Label == label && r.Fault == "":
			return "whole"
		case r.Label == label:
			return "half"
		}
	}
	// A public key alone is in no list of keys: it can be destroyed alone.
	lone := strings.Replace(d.uri(token, label, "pin"), "?", ";type=public?", 1)
	c := d.copy(t)
	p := runProcess(t, filepath.Join(c.dir, "log"), "", "zegel", "token", "destroy", strings.Replace(lone, d.dir, c.dir, 1), "--confirm", label, "--record", c.path("lone.json"))
	if p.wait(t).ExitStatus() == 0 {
		return "half"
	}
	return "nothing"
}

// dutyActs are what the tool is doing: its arguments, and the token and label that are looked at afterwards.
func (d dutyTokens) act(t *testing.T, name string) (args []string, token, label string) {
	t.Helper()
	a, b := func(o string) string { return d.uri("a", o, "pin") }, func(o string) string { return d.uri("b", o, "pin") }
	record := d.path("record.json")
	switch name {
	case "restore":
		return []string{"restore", d.path("ca.backup"), "--to", b(""), "--under", b("backup-key"), "--record", record}, "b", "ca"
	case "receive":
		return []string{"restore", d.path("backup-key.backup"), "--to", strings.Replace(b("again"), "?", ";id=%01?", 1), "--under", b("transport"), "--record", record}, "b", "again"
	case "destroy":
		var records []hsm.KeyRecord
		if err := json.Unmarshal([]byte(d.run(t, "keys", a("ca"), "--json")), &records); err != nil {
			t.Fatal(err)
		}
		return []string{"destroy", a("ca"), "--confirm", records[0].PublicKeySHA256, "--record", record}, "a", "ca"
	case "back up":
		return []string{"backup", a("ca"), "--under", a("backup-key"), "--out", d.path("new.backup"), "--record", record}, "b", "ca"
	}
	t.Fatalf("no act %q", name)
	return nil, "", ""
}

// crashDuties has zegel token die and fail at every step of its duties.
func crashDuties(t *testing.T, met *points) bool {
	base := newDutyTokens(t)
	ran, want := &points{met: map[string]bool{}}, 0
	t.Run("duties", func(t *testing.T) {
		for i, c := range dutyCrashes {
			want += eachWay(t, fmt.Sprintf("%02d %s", i, c.during), c.step, ran, func(t *testing.T, mode, when string) {
				c.run(t, base.copy(t), mode, when)
				met.add(fmt.Sprintf("%s %s %s", mode, when, c.step.Name()))
			})
		}
	})
	return len(ran.met) == want
}

func (c dutyCrash) run(t *testing.T, d dutyTokens, mode, when string) {
	args, token, label := d.act(t, c.during)
	outcome, status := c.before, -1
	switch mode + " " + when {
	case "die after":
		outcome = c.after
	case "fail before":
		outcome, status = c.failedBefore, c.status[0]
	case "fail after":
		outcome, status = c.failedAfter, c.status[1]
	}
	said := d.tool(t, fmt.Sprintf("%s %s %s:%d", mode, when, c.step.Name(), c.nth), status, args...)
	if got := d.has(t, token, label); got != outcome {
		t.Errorf("token %s has %s of %s, want %s; the tool said %s", token, got, label, outcome, said)
	}
	if outcome != "nothing" && c.during != "destroy" && mode == "fail" && !strings.Contains(said, "still exists") {
		t.Errorf("it does not say what is left: %s", said)
	}
	if c.during == "destroy" {
		c.checkRecord(t, d, outcome)
	}
	if c.during == "back up" && exists(t, d.path("new.backup")) != (when == "after") {
		t.Errorf("the backup is there: %v", when != "after")
	}
}

// checkRecord wants the intent in the record before anything is destroyed, and no outcome that is not true.
func (c dutyCrash) checkRecord(t *testing.T, d dutyTokens, outcome string) {
	t.Helper()
	text, err := os.ReadFile(d.path("record.json"))
	if err != nil {
		if outcome != "whole" {
			t.Errorf("there is no record, and the key is %s: %v", outcome, err)
		}
		return
	}
	f, err := readRecord(text)
	if err != nil || f.Duties[0].Act != "destroying" {
		t.Fatalf("%+v, %v", f, err)
	}
	gone := outcome == "nothing" || outcome == "half" && c.nth == 2 // the second object is the public key: the private one is gone
	if len(f.Duties) == 2 && (f.Duties[1].Act == "destroyed") != gone {
		t.Errorf("the record says %s, the key is %s", f.Duties[1].Act, outcome)
	}
}
