//go:build failpoint

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"filippo.io/age"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/testdata/request"
)

// testContext is that of callers, who outlive nobody.
var testContext = context.Background()

// within is how long anything that has to happen may take.
const within = time.Minute

// crashProvider is a provider whose daemons die. One is made; each case has a copy of it, with ports of its own.
type crashProvider struct {
	dir    string
	script demoScript
	facts  demoFacts
	handed map[string]string // serial to PEM: what callers were given
	status map[string]string // of what was handed out: good or revoked
	kept   string            // serial of a certificate that is good before the case
	tokens map[string]bool   // serials of the time-stamps that callers were given
	crl    []byte            // the newest that was seen in publish/
}

// newScript chooses ports and folders for a ceremony in dir.
func newScript(t *testing.T, dir string) demoScript {
	t.Helper()
	s := demoScript{Dir: dir, Provider: filepath.Join(dir, "provider"), Keys: "p256", tokens: filepath.Join(dir, "tokens")}
	claimPorts(t, &s)
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// claimed are the addresses that providers of this process have: a port is free, too, while the daemon that has it is down.
var claimed sync.Map

// claimPorts chooses ports that no other provider has until t ends.
func claimPorts(t *testing.T, s *demoScript) {
	t.Helper()
	for range 1000 {
		if err := s.choosePorts(); err != nil {
			t.Fatal(err)
		}
		var mine []string
		for _, address := range s.ports() {
			if _, taken := claimed.LoadOrStore(*address, true); taken {
				break
			}
			mine = append(mine, *address)
		}
		release := func() {
			for _, address := range mine {
				claimed.Delete(address)
			}
		}
		if len(mine) == len(s.ports()) {
			t.Cleanup(release)
			return
		}
		release()
	}
	t.Fatal("no free ports that nobody has")
}

// writeScript makes the tokens and the script of the ceremony.
func writeScript(t *testing.T, s demoScript) string {
	t.Helper()
	for _, token := range demoTokens {
		soft := s
		soft.module = "" // a module is loaded once in a process, with one configuration: another process makes its tokens
		if err := soft.makeToken(token); err != nil {
			t.Fatal(err)
		}
		if s.module == "" {
			continue
		}
		pin, err := os.ReadFile(s.pin(token))
		if err != nil {
			t.Fatal(err)
		}
		initialise := exec.Command("softhsm2-util", "--module", s.module, "--init-token", "--free", "--label", label(token), "--so-pin", "12345678", "--pin", string(pin))
		initialise.Env = append(os.Environ(), "SOFTHSM2_CONF="+s.SoftHSMConf)
		if out, err := initialise.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var text bytes.Buffer
	if err := template.Must(template.New("").Parse(ceremonyTemplate)).Execute(&text, s); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(s.Dir, "ceremony.yaml")
	if err := os.WriteFile(script, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return script
}

// newCrashProvider holds a ceremony, makes the keys cheap to open, and has one good and one revoked certificate.
func newCrashProvider(t *testing.T) *crashProvider {
	t.Helper()
	s := newScript(t, t.TempDir())
	if out, err := exec.Command(filepath.Join(binaries, "zegel-ceremony"), "run", writeScript(t, s)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cheapen(t, s)
	d := &demo{tool: &tool{}, dir: s.Dir}
	if err := d.collectFacts(s); err != nil {
		t.Fatal(err)
	}
	p := &crashProvider{dir: s.Dir, script: s, facts: d.facts, handed: map[string]string{}, status: map[string]string{}, tokens: map[string]bool{}}
	if err := writeKeyAndCSR(filepath.Join(p.dir, "subscriber")); err != nil {
		t.Fatal(err)
	}
	ca := p.start(t, "ca", "")
	for _, what := range []func() error{ca.ready, p.issue, p.issue, p.revoke} {
		if err := what(); err != nil {
			t.Fatal(err)
		}
	}
	for serial, status := range p.status {
		if status == "good" {
			p.kept = serial
		}
	}
	ca.stop(t)
	return p
}

// cheapen seals the key files again so that opening one costs nothing: a test opens hundreds.
func cheapen(t *testing.T, s demoScript) {
	t.Helper()
	for _, token := range demoTokens {
		pin, err := os.ReadFile(s.pin(token))
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(s.tokens, token, "*.age"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			if err := reseal(file, string(pin)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func reseal(file, pin string) error {
	sealed, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	identity, err := age.NewScryptIdentity(pin)
	if err != nil {
		return err
	}
	opened, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		return err
	}
	recipient, err := age.NewScryptRecipient(pin)
	if err != nil {
		return err
	}
	recipient.SetWorkFactor(1)
	var again bytes.Buffer
	sealing, err := age.Encrypt(&again, recipient)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sealing, opened); err != nil {
		return err
	}
	if err := sealing.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, again.Bytes(), 0o600)
}

// copy makes the provider of one case.
func (p *crashProvider) copy(t *testing.T) *crashProvider {
	t.Helper()
	c := &crashProvider{dir: filepath.Join(t.TempDir(), "p"), kept: p.kept, handed: map[string]string{}, status: map[string]string{}, tokens: map[string]bool{}}
	copyFolder(t, p.dir, c.dir)
	c.script = newScript(t, c.dir)
	old, fresh := p.script, c.script
	replace := strings.NewReplacer(p.dir, c.dir, url.PathEscape(p.dir), url.PathEscape(c.dir),
		old.Web, fresh.Web, old.CAAdmin, fresh.CAAdmin, old.CAFeed, fresh.CAFeed, old.CAMetrics, fresh.CAMetrics,
		old.OCSP, fresh.OCSP, old.OCSPAdmin, fresh.OCSPAdmin, old.OCSPMetrics, fresh.OCSPMetrics,
		old.TSA, fresh.TSA, old.TSAHTTPS, fresh.TSAHTTPS, old.TSAAdmin, fresh.TSAAdmin, old.TSAMetrics, fresh.TSAMetrics)
	files, err := filepath.Glob(filepath.Join(c.dir, "provider", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(replace.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	facts, err := json.Marshal(p.facts)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(replace.Replace(string(facts))), &c.facts); err != nil {
		t.Fatal(err)
	}
	for serial := range p.handed {
		c.handed[serial], c.status[serial] = p.handed[serial], p.status[serial]
	}
	c.crl = c.publishedCRL(t)
	return c
}

// copyFolder leaves the holes of the journals' files holes.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// crashProcess is a daemon or a tool that was told to die or fail somewhere.
type crashProcess struct {
	name    string
	health  string
	cmd     *exec.Cmd
	log     string // file with what it wrote
	reached string // file with the points it passed
	ended   chan struct{}
}

// start runs a daemon with orders for its failpoints.
func (p *crashProvider) start(t *testing.T, name, orders string) *crashProcess {
	t.Helper()
	d := runProcess(t, filepath.Join(p.dir, "log"), orders, "zegel-"+name, "--config", p.facts.Configs[name])
	d.health = p.facts.HealthURLs[name]
	return d
}

// runProcess runs one of the binaries; it is gone when the test ends.
func runProcess(t *testing.T, logs, orders, binary string, args ...string) *crashProcess {
	t.Helper()
	n := 0
	var d *crashProcess
	for d == nil {
		base := filepath.Join(logs, fmt.Sprintf("%s-%d", binary, n))
		if _, err := os.Stat(base + ".log"); err != nil {
			d = &crashProcess{name: binary, log: base + ".log", reached: base + ".reached", ended: make(chan struct{})}
		}
		n++
	}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(binaries, binary), args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "ZEGEL_FAILPOINT="+orders, "ZEGEL_FAILPOINT_REACHED="+d.reached)
	if conf := filepath.Join(filepath.Dir(logs), "softhsm2.conf"); exists(t, conf) { // tokens of the test's own
		d.cmd.Env = append(d.cmd.Env, "SOFTHSM2_CONF="+conf)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait() // its state says how it ended
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.ended
		if t.Failed() {
			t.Logf("%s %q:\n%s", binary, orders, d.text())
		}
	})
	return d
}

func (d *crashProcess) text() []byte {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// ready waits until /health says so, or says why it never will.
func (d *crashProcess) ready() error {
	var last error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		select {
		case <-d.ended:
			return fmt.Errorf("%s ended: %v", d.name, d.cmd.ProcessState)
		default:
		}
		if last = healthy(testContext, d.health); last == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not ready: %w", d.name, last)
}

// wait returns once the process has ended.
func (d *crashProcess) wait(t *testing.T) syscall.WaitStatus {
	t.Helper()
	select {
	case <-d.ended:
	case <-time.After(within):
		t.Fatalf("%s did not end", d.name)
	}
	return d.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// stop ends a daemon in order.
func (d *crashProcess) stop(t *testing.T) {
	t.Helper()
	if status := d.terminate(t); status.ExitStatus() != 0 {
		t.Fatalf("%s ended with %v", d.name, d.cmd.ProcessState)
	}
}

func (d *crashProcess) terminate(t *testing.T) syscall.WaitStatus {
	t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	return d.wait(t)
}

// passes counts how often the process was at the point.
func (d *crashProcess) passes(point string) int {
	text, _ := os.ReadFile(d.reached) // none yet
	n := 0
	for line := range strings.Lines(string(text)) {
		if line == point+"\n" {
			n++
		}
	}
	return n
}

// What callers do.

func (p *crashProvider) tool() *tool { return &tool{configPath: p.facts.ZegelConfig} }

func (p *crashProvider) issue() error {
	subject, err := request.Example("qcp-n")
	if err != nil {
		return err
	}
	csr, err := os.ReadFile(filepath.Join(p.dir, "subscriber.csr"))
	if err != nil {
		return err
	}
	return p.tool().withCA(func(ca *desk.Client) error {
		reply, err := ca.Issue(testContext, desk.IssueRequest{Profile: "qcp-n", CSR: string(csr), Subject: string(subject), SubjectName: "crash"})
		if err == nil {
			p.handed[reply.Serial], p.status[reply.Serial] = reply.Cert, "good"
		}
		return err
	})
}

// revoke asks for the revocation of a certificate that is good: the one that was kept, as soon as there is one.
func (p *crashProvider) revoke() error {
	serial := p.kept
	for s, status := range p.status {
		if serial == "" && status == "good" {
			serial = s
		}
	}
	return p.tool().withCA(func(ca *desk.Client) error {
		_, err := ca.Revoke(testContext, serial, desk.RevokeRequest{Reason: "superseded"})
		if err == nil {
			p.status[serial] = "revoked"
		}
		return err
	})
}

// recordDuty has the CA record a key duty.
func (p *crashProvider) recordDuty() error {
	return p.tool().withCA(func(ca *desk.Client) error {
		_, err := ca.RecordKeyDuty(testContext, desk.KeyDuty{Act: "generated", Details: map[string]string{"label": "ca-2026"}})
		return err
	})
}

// wantDuties holds the key duties in the CA's journal, by their acts, against want.
func (p *crashProvider) wantDuties(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	err := p.tool().withCA(func(ca *desk.Client) error {
		for after := uint64(0); ; {
			page, err := ca.Entries(testContext, after, 1000)
			if err != nil || after == page.Next {
				return err
			}
			for _, e := range page.Entries {
				if e.Kind == "KeyDuty" {
					got = append(got, e.Facts["act"])
				}
			}
			after = page.Next
		}
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("key duties %q, %v, want %q", got, err, want)
	}
}

func (p *crashProvider) publish() error {
	return p.tool().withCA(func(ca *desk.Client) error {
		_, err := ca.IssueCRL(testContext)
		return err
	})
}

// timestamp asks again where a busy machine made the signature too late for the accuracy that is promised.
func (p *crashProvider) timestamp() (err error) {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = p.timestampOnce(); err == nil || !strings.Contains(err.Error(), "timeNotAvailable") {
			break
		}
	}
	return err
}

func (p *crashProvider) timestampOnce() error {
	file := filepath.Join(p.dir, "stamped")
	if err := os.WriteFile(file, []byte("TEST"), 0o600); err != nil {
		return err
	}
	tl := p.tool()
	c, err := tl.loadConfig()
	if err != nil {
		return err
	}
	if err := os.Remove(file + ".tsr"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ts, err := tl.stampFile(testContext, c, file, "sha256")
	if err == nil && p.tokens[ts.SerialNumber] {
		err = fmt.Errorf("two tokens have the serial number %s", ts.SerialNumber)
	}
	if err == nil {
		p.tokens[ts.SerialNumber] = true
	}
	return err
}

func (p *crashProvider) ask() error {
	r := &running{demoFacts: p.facts}
	if got := r.ask(testContext, p.kept); got != "good" {
		return fmt.Errorf("OCSP says %s", got)
	}
	return nil
}

// publishedCRL is what relying parties fetch: it is whole whatever happened, and never older than what was there before.
func (p *crashProvider) publishedCRL(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.facts.PublishDir, "issuing.crl"))
	if err != nil {
		t.Fatal(err)
	}
	crl, number := p.parseCRL(t, raw)
	if len(p.crl) > 0 {
		_, before := p.parseCRL(t, p.crl)
		if number < before || number == before && !bytes.Equal(raw, p.crl) {
			t.Errorf("publish/ had CRL %d, and now another with number %d", before, number)
		}
	}
	return crl.Raw
}

func (p *crashProvider) parseCRL(t *testing.T, raw []byte) (*x509.RevocationList, uint64) {
	t.Helper()
	crl, err := x509.ParseRevocationList(raw)
	if err != nil {
		t.Fatalf("publish/ does not hold a whole CRL: %v", err)
	}
	issuer, err := readCertificates(p.facts.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	if err := crl.CheckSignatureFrom(issuer[0]); err != nil {
		t.Fatal(err)
	}
	return crl, crl.Number.Uint64()
}

// certificates are all subscribers' certificates and intents that the CA knows, by serial.
func (p *crashProvider) certificates(t *testing.T) map[string]desk.Certificate {
	t.Helper()
	all := map[string]desk.Certificate{}
	err := p.tool().withCA(func(ca *desk.Client) error {
		list, err := ca.Certificates(t.Context(), desk.Search{Profile: "qcp-n"})
		for _, c := range list {
			if c.Status == "good" || c.Status == "revoked" {
				if c, err = ca.Certificate(t.Context(), c.Serial); err != nil {
					return err
				}
			}
			all[c.Serial] = c
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// fresh are those that nobody was given.
func (p *crashProvider) fresh(t *testing.T) []desk.Certificate {
	t.Helper()
	var list []desk.Certificate
	for serial, c := range p.certificates(t) {
		if p.handed[serial] == "" {
			list = append(list, c)
		}
	}
	return list
}

// checkCA is what is always true of a CA that has recovered, and of the responder that follows it.
func (p *crashProvider) checkCA(t *testing.T) {
	t.Helper()
	all := p.certificates(t)
	for serial, pem := range p.handed {
		if c, known := all[serial]; !known || c.Cert != pem || c.Status != p.status[serial] {
			t.Errorf("%s, which was handed out and is %s, is %q to the CA", serial, p.status[serial], c.Status)
		}
	}
	crl, _ := p.parseCRL(t, p.publishedCRL(t))
	listed := map[string]bool{}
	for _, e := range crl.RevokedCertificateEntries {
		listed[fmt.Sprintf("%x", e.SerialNumber)] = true
	}
	responder := p.start(t, "ocsp", "")
	if err := responder.ready(); err != nil {
		t.Fatal(err)
	}
	r := &running{demoFacts: p.facts}
	for serial, c := range all {
		want := map[string]string{"good": "good", "revoked": "revoked", "abandoned": "revoked"}[c.Status]
		if want == "" {
			t.Errorf("%s is %s after recovery", serial, c.Status)
		}
		if got := r.ask(testContext, serial); got != want {
			t.Errorf("%s is %s, OCSP says %s", serial, c.Status, got)
		}
		if on := listed[strings.TrimLeft(serial, "0")]; on != (want == "revoked") {
			t.Errorf("%s is %s, on the CRL: %v", serial, c.Status, on)
		}
	}
	if got := r.ask(testContext, "01f00d"); got != "unknown" {
		t.Errorf("of what was never issued OCSP says %s", got)
	}
	zegel(t, 0, "--config", p.facts.ZegelConfig, "journal", "verify")
	responder.stop(t)
}

// verifyStill verifies a journal that lies still, whose end is signed, and returns what was found.
func (p *crashProvider) verifyStill(t *testing.T, name string) desk.Report {
	t.Helper()
	var report desk.Report
	text := zegel(t, 0, "journal", "verify", "--json", "--dir", p.facts.Journals[name])
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err)
	}
	if !report.OK || report.SignedEntries != report.Entries {
		t.Errorf("journal of %s: %s", name, text)
	}
	return report
}

// checkTimestamps compares what callers were given with the TSA's journal, which lies still.
func (p *crashProvider) checkTimestamps(t *testing.T, more int) {
	t.Helper()
	j, err := journal.OpenReadOnly(p.facts.Journals["tsa"])
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	recorded := map[string]bool{}
	for e, err := range j.Entries(0) {
		if err != nil {
			t.Fatal(err)
		}
		if issued, ok := e.Event.(journal.TimestampIssued); ok {
			recorded[issued.Serial.String()] = true
		}
	}
	for serial := range p.tokens {
		if !recorded[serial] {
			t.Errorf("token %s was handed out and is not in the journal", serial)
		}
	}
	if got := len(recorded) - len(p.tokens); got != more {
		t.Errorf("the journal has %d records without a token, want %d", got, more)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
