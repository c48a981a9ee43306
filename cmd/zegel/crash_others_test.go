//go:build failpoint

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/testdata/request"
)

// ceremonyCrash is one step at which a ceremony dies, and fails, before and after.
type ceremonyCrash struct {
	step     failpoint.Step
	nth      int
	soft     bool   // all keys in files; with SoftHSM otherwise, which is quicker
	orders   string // failpoints that have to be met on the way
	survives bool   // where the step fails it is taken again
	again    bool   // after a death, hold it again, as docs/ceremony.md says
}

// ceremonyCrashes go through the ceremony from its beginning to its end. One pass of a step stands for those of all others: what is
// left differs only by what had been made until then.
var ceremonyCrashes = []ceremonyCrash{
	{step: failpoint.MakeCeremonyFolder, nth: 1},
	{step: failpoint.WriteTemporary, nth: 2, soft: true},
	{step: failpoint.WriteKeyFile, nth: 3, soft: true, again: true},
	{step: failpoint.GenerateKeyPair, nth: 2},
	{step: failpoint.GenerateSecretKey, nth: 2},
	{step: failpoint.FillJournal, nth: 1},
	{step: failpoint.NameJournal, nth: 2},
	{step: failpoint.AppendCeremonyHeld, nth: 2},
	{step: failpoint.WriteCeremonyFailure, nth: 1, orders: "fail before append CeremonyHeld"},
	{step: failpoint.AppendCertificateIntended, nth: 1},
	{step: failpoint.SignCertificate, nth: 3},
	{step: failpoint.AppendCertificateIssued, nth: 4, again: true},
	{step: failpoint.PublishCRL, nth: 1, survives: true},
	{step: failpoint.WriteCeremonyFile, nth: 20},
	{step: failpoint.StoreLastCheckpoint, nth: 2},
	{step: failpoint.PutCeremonyInPlace, nth: 1, again: true},
}

func crashCeremonies(t *testing.T, met *points) bool {
	ran, want := &points{met: map[string]bool{}}, 0
	t.Run("all", func(t *testing.T) {
		for i, c := range ceremonyCrashes {
			want += eachWay(t, fmt.Sprintf("%02d", i), c.step, ran, func(t *testing.T, mode, when string) { c.run(t, mode, when, met) })
		}
	})
	return len(ran.met) == want
}

func (c ceremonyCrash) run(t *testing.T, mode, when string, met *points) {
	s := newScript(t, t.TempDir())
	if err := c.chooseTokens(&s, "tokens"); err != nil {
		t.Fatal(err)
	}
	script, point := writeScript(t, s), when+" "+c.step.Name()
	held := runProcess(t, filepath.Join(s.Dir, "log"), strings.TrimPrefix(fmt.Sprintf("%s; %s %s:%d", c.orders, mode, point, c.nth), "; "), "zegel-ceremony", "run", script)
	status, survives := held.wait(t), c.survives && mode == "fail"
	died := status.Signaled() && status.Signal() == syscall.SIGKILL
	if died != (mode == "die") || !died && (status.ExitStatus() == 0) != survives {
		t.Fatalf("it ended with %v", held.cmd.ProcessState)
	}
	if held.passes(point) < c.nth {
		t.Fatalf("it never was %s", point)
	}
	met.add(mode + " " + point)
	stage := s.Provider + ".unfinished"
	whole := survives || c.step == failpoint.PutCeremonyInPlace && when == "after"
	begun := c.step != failpoint.MakeCeremonyFolder || when == "after"
	if exists(t, s.Provider) != whole {
		t.Errorf("the output is there: %v", !whole)
	}
	if exists(t, stage) != (begun && !whole) {
		t.Errorf("the unfinished folder is there: %v", whole || !begun)
	}
	switch {
	case survives:
	case mode == "fail":
		c.checkSaid(t, s, held, stage, whole)
	case exists(t, filepath.Join(stage, "FAILED.txt")) != (c.step == failpoint.WriteCeremonyFailure && when == "after"):
		t.Error("FAILED.txt is there though it died, or the other way round")
	}
	// What those keys signed is in a journal that can be read, or there is none.
	for _, dir := range []string{stage, s.Provider} {
		for _, name := range []string{"ca", "tsa"} {
			if journal := filepath.Join(dir, name, "journal"); exists(t, filepath.Join(journal, "journal.db")) {
				zegel(t, 0, "journal", "verify", "--dir", journal)
			}
		}
	}
	// Nothing is taken up again, and nothing overwritten.
	if begun {
		if status := rehold(t, s, script); status.ExitStatus() != 2 {
			t.Errorf("a second ceremony ended with %v", status)
		}
	}
	if c.again && mode == "die" {
		c.checkAgain(t, s, stage, whole)
	}
}

// checkSaid holds what a ceremony that failed says against what it left: every key that exists, and no other.
func (c ceremonyCrash) checkSaid(t *testing.T, s demoScript, held *crashProcess, stage string, whole bool) {
	t.Helper()
	said := string(held.text())
	var named, objects int // in SoftHSM
	for _, name := range []string{"root", "issuing", "ocsp", "tsu", "management", "ca_checkpoint", "tsa_checkpoint", "ca_wrap", "tsa_wrap"} {
		files, err := filepath.Glob(filepath.Join(s.tokens, "*", strings.ReplaceAll(name, "_", "-")+".age"))
		if err != nil {
			t.Fatal(err)
		}
		listed := strings.Contains(said, "\n  "+name+": ")
		switch {
		case strings.Contains(said, "\n  "+name+": pkcs11:") && strings.HasSuffix(name, "_wrap"):
			named++
		case strings.Contains(said, "\n  "+name+": pkcs11:"):
			named += 2
		case listed != (len(files) > 0) && !whole:
			t.Errorf("key %s exists: %v; the ceremony names it: %v", name, len(files) > 0, listed)
		}
	}
	files, err := filepath.Glob(filepath.Join(s.tokens, "softhsm", "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) != "token.object" {
			objects++
		}
	}
	if named != objects && !whole {
		t.Errorf("the ceremony names %d objects, the tokens hold %d", named, objects)
	}
	if whole {
		if !strings.Contains(said, "whole and in place") || strings.Contains(said, "destroy") {
			t.Error("it does not say that all is in place")
		}
		return
	}
	failed, err := os.ReadFile(filepath.Join(stage, "FAILED.txt"))
	switch {
	case c.step == failpoint.WriteCeremonyFailure:
		if !strings.Contains(said, "injected") || !strings.Contains(said, stage) {
			t.Error("it does not say that FAILED.txt could not be written")
		}
	case err != nil && exists(t, stage) && c.step != failpoint.MakeCeremonyFolder:
		t.Error(err)
	case err == nil && !strings.Contains(said, strings.TrimSpace(strings.SplitN(string(failed), "\n", 2)[0])):
		t.Errorf("FAILED.txt says something else: %s", failed)
	}
}

// chooseTokens says where the keys are to be made.
func (c ceremonyCrash) chooseTokens(s *demoScript, dir string) error {
	s.tokens = filepath.Join(s.Dir, dir)
	if c.soft {
		return nil
	}
	return s.useSoftHSM()
}

func rehold(t *testing.T, s demoScript, script string) syscall.WaitStatus {
	t.Helper()
	return runProcess(t, filepath.Join(s.Dir, "log"), "", "zegel-ceremony", "run", script).wait(t)
}

// checkAgain does what docs/ceremony.md says after one that was cut off: the folder is moved away, other keys are named, and it is held
// from its beginning. One that is whole is used as it is.
func (c ceremonyCrash) checkAgain(t *testing.T, s demoScript, stage string, whole bool) {
	t.Helper()
	if !whole {
		if err := os.Rename(stage, stage+"-kept"); err != nil {
			t.Fatal(err)
		}
		again := s
		if err := c.chooseTokens(&again, "other-tokens"); err != nil {
			t.Fatal(err)
		}
		if status := rehold(t, s, writeScript(t, again)); status.ExitStatus() != 0 {
			t.Fatalf("held again it ended with %v", status)
		}
	}
	d := &demo{tool: &tool{}, dir: s.Dir}
	if err := d.collectFacts(s); err != nil {
		t.Fatal(err)
	}
	p := &crashProvider{dir: s.Dir, script: s, facts: d.facts}
	ca := p.start(t, "ca", "")
	if err := ca.ready(); err != nil {
		t.Fatal(err)
	}
	ca.stop(t)
}

// crashTools has the officers' tool die when the daemon has done its part.
func crashTools(t *testing.T, base *crashProvider, met *points) bool {
	ran, want := &points{met: map[string]bool{}}, 0
	t.Run("all", func(t *testing.T) {
		want += eachWay(t, "issue", failpoint.WriteIssuedCertificate, ran, func(t *testing.T, mode, when string) {
			crashIssue(t, base.copy(t), mode, when, met)
		})
		want += eachWay(t, "timestamp", failpoint.WriteTimestamp, ran, func(t *testing.T, mode, when string) {
			crashTimestamp(t, base.copy(t), mode, when, met)
		})
	})
	return crashDuties(t, met) && len(ran.met) == want
}

// tool runs zegel until it dies or fails.
func (p *crashProvider) crashTool(t *testing.T, mode, point string, met *points, args ...string) string {
	t.Helper()
	tool := runProcess(t, filepath.Join(p.dir, "log"), mode+" "+point, "zegel", append([]string{"--config", p.facts.ZegelConfig}, args...)...)
	status := tool.wait(t)
	if died := status.Signaled() && status.Signal() == syscall.SIGKILL; died != (mode == "die") || !died && status.ExitStatus() != 1 {
		t.Fatalf("it ended with %v", tool.cmd.ProcessState)
	}
	met.add(mode + " " + point)
	return string(tool.text())
}

// crashIssue: the certificate is the CA's whether or not the officer has the file, and can be had again.
func crashIssue(t *testing.T, p *crashProvider, mode, when string, met *points) {
	ca := p.start(t, "ca", "")
	subject, err := request.Example("qcp-n")
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(p.dir, "subscriber")
	if err := os.WriteFile(base+".yaml", subject, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ca.ready(); err != nil {
		t.Fatal(err)
	}
	said := p.crashTool(t, mode, when+" "+failpoint.WriteIssuedCertificate.Name(), met,
		"issue", "--profile", "qcp-n", "--csr", base+".csr", "--subject", base+".yaml", "--out", base+".pem")
	outcomes["issued"](t, p)
	for _, c := range p.fresh(t) {
		pem, err := os.ReadFile(base + ".pem")
		if (err == nil) != (when == "after") || err == nil && string(pem) != c.Cert {
			t.Errorf("the file has %q, %v", pem, err)
		}
		if mode == "fail" && !strings.Contains(said, "zegel show "+c.Serial) {
			t.Errorf("it does not say how to get the certificate: %s", said)
		}
		if again := zegel(t, 0, "--config", p.facts.ZegelConfig, "show", c.Serial, "--cert"); !strings.Contains(again, strings.TrimSpace(c.Cert)) {
			t.Errorf("zegel show gives %s", again)
		}
	}
	ca.stop(t)
}

// crashTimestamp: a record without a token in anybody's hands is harmless.
func crashTimestamp(t *testing.T, p *crashProvider, mode, when string, met *points) {
	tsa := p.start(t, "tsa", "")
	file := filepath.Join(p.dir, "file")
	if err := os.WriteFile(file, []byte("TEST"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tsa.ready(); err != nil {
		t.Fatal(err)
	}
	p.crashTool(t, mode, when+" "+failpoint.WriteTimestamp.Name(), met, "timestamp", file)
	if exists(t, file+".tsr") != (when == "after") {
		t.Errorf("the token is there: %v", when != "after")
	}
	records := 1
	if when == "before" { // stamp it again; a file that is there is never replaced
		zegel(t, 0, "--config", p.facts.ZegelConfig, "timestamp", file)
		records++
	}
	zegel(t, 0, "--config", p.facts.ZegelConfig, "verify", file+".tsr", "--data", file)
	tsa.stop(t)
	p.verifyStill(t, "tsa")
	p.checkTimestamps(t, records)
}
