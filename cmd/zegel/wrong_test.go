package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// TestWrongInput runs testdata/script/wrong, one script for each family of what people and machines get wrong. Each is
// refused with the exit status of the contract, an error that names the thing and the remedy, and changes nothing. A
// script breaks a provider of its own: a copy, under other ports, of one that a demo made.
func TestWrongInput(t *testing.T) {
	w := &wrongs{templates: map[string]string{}, given: map[string]bool{}}
	if w.ranElsewhere(t) {
		return
	}
	var making sync.WaitGroup
	for _, token := range []string{"soft", "softhsm"} {
		dir := filepath.Join(t.TempDir(), token)
		w.templates[token] = dir
		making.Go(func() {
			cmd := exec.Command(filepath.Join(binaries, "zegel"), "demo", "--once", "--dir", dir, "--token", token)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("make a demo with --token %s: %v\n%s", token, err, out)
			}
		})
	}
	making.Wait()
	if t.Failed() {
		return
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("..", "..", "testdata", "script", "wrong"),
		Setup: func(e *testscript.Env) error {
			p := &broken{wrongs: w, running: map[string]*process{}}
			e.Defer(func() { p.stopAll() })
			e.Values[brokenKey{}] = p
			e.Vars = append(e.Vars, "PATH="+binaries+":"+os.Getenv("PATH"), "TESTDATA="+testdata(t), "BIN="+binaries)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": wantStatus, "provider": makeProvider, "start": startDaemonOf, "halt": stopDaemonOf,
			"remember": remember, "unchanged": unchanged, "certify": certifyNew, "disk": mountDisk, "changepin": changePIN, "newerformat": newerFormat,
		},
	})
}

// wrongs is what all scripts share.
type wrongs struct {
	templates map[string]string // by token: the folder of a demo that lies still

	mu    sync.Mutex
	given map[string]bool // addresses that a copy has, guarded by mu: no two copies share one, also while nobody listens there
}

// address is a free loopback address that no copy has yet.
func (w *wrongs) address() (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 100 {
		fresh, err := freePorts(1)
		if err != nil {
			return "", err
		}
		if !w.given[fresh[0]] {
			w.given[fresh[0]] = true
			return fresh[0], nil
		}
	}
	return "", errors.New("find a free port: all that were tried are given away")
}

// ranElsewhere makes sure that a small file system can be mounted, for the script of the full disk: as root, or else by running
// this test again in a user and mount namespace of its own. It reports whether that was done.
func (w *wrongs) ranElsewhere(t *testing.T) bool {
	const probe = `d=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs "$d" && umount "$d" && rmdir "$d"`
	if exec.Command("sh", "-c", probe).Run() == nil {
		return false
	}
	if out, err := exec.Command("unshare", "-rUm", "sh", "-c", probe).CombinedOutput(); err != nil || os.Getenv("ZEGEL_WRONG_INPUT") != "" {
		t.Fatalf("no small file system can be mounted, which the script of the full disk needs: run as root, or allow user namespaces (unshare -rUm): %v\n%s", err, out)
	}
	again := exec.Command("unshare", "-rUm", os.Args[0], "-test.run", "^TestWrongInput$", "-test.v")
	again.Env = append(os.Environ(), "ZEGEL_WRONG_INPUT=in a namespace")
	out, err := again.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in a user namespace: %v", err)
	}
	return true
}

// broken is the provider of one script.
type broken struct {
	*wrongs
	dir     string              // the demo's folder
	running map[string]*process // daemons by name
	was     map[string]string   // what remember saw
}

// process is a daemon that runs; ended is closed when it does no more.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

type brokenKey struct{}

func of(ts *testscript.TestScript) *broken { return ts.Value(brokenKey{}).(*broken) }

func (p *broken) stopAll() {
	for name := range p.running {
		p.stop(name, syscall.SIGTERM)
	}
}

func (p *broken) stop(name string, signal syscall.Signal) {
	if d := p.running[name]; d != nil {
		d.cmd.Process.Signal(signal)
		<-d.ended
		delete(p.running, name)
	}
}

// wantStatus is `status N COMMAND ARGS…`: the command ends with exit status N.
func wantStatus(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

var loopback = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// makeProvider is `provider [soft|softhsm]`: $DEMO and $PROVIDER are a new copy of a demo's folder, $ZEGEL_CONFIG and the URLs its own.
func makeProvider(ts *testscript.TestScript, _ bool, args []string) {
	p := of(ts)
	token := "soft"
	if len(args) > 0 {
		token = args[0]
	}
	p.stopAll()
	p.dir = ts.MkAbs("demo-" + token)
	ts.Check(os.RemoveAll(p.dir))
	ts.Check(p.copyDemo(p.templates[token]))
	var facts demoFacts
	text, err := os.ReadFile(filepath.Join(p.dir, "demo.json"))
	ts.Check(err)
	ts.Check(json.Unmarshal(text, &facts))
	for name, value := range map[string]string{
		"DEMO": p.dir, "PROVIDER": filepath.Join(p.dir, "provider"), "ZEGEL_CONFIG": facts.ZegelConfig, "CSR": filepath.Join(p.dir, "subscribers", "qcp-n.csr"),
		"OCSP_URL": facts.OCSPURL, "TSA_URL": facts.TSAURL, "ISSUER": facts.Issuer, "ROOT": facts.Root, "QCP_N": facts.Certificates[0].Cert, "SERIAL": facts.Certificates[0].Serial,
		"CA_HEALTH": facts.HealthURLs["ca"], "OCSP_HEALTH": facts.HealthURLs["ocsp"], "TSA_HEALTH": facts.HealthURLs["tsa"],
		"CA_METRICS": facts.MetricsURLs["ca"], "CA_ADMIN": hostOf(facts.AdminURLs["ca"]), "CA_FEED": hostOf(facts.FeedURL),
		"OCSP_HOST": hostOf(facts.OCSPURL), "TSA_HOST": hostOf(facts.TSAURL),
	} {
		ts.Setenv(name, value)
	}
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// copyDemo copies a demo's folder to p.dir and gives it other ports.
func (p *broken) copyDemo(from string) error {
	ports := map[string]string{}
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := p.dir + strings.TrimPrefix(path, from)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Mkdir(to, info.Mode().Perm())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if slices.Contains([]string{".yaml", ".json", ".conf"}, filepath.Ext(path)) {
			text = bytes.ReplaceAll(text, []byte(from), []byte(p.dir))
			text = bytes.ReplaceAll(text, []byte(url.PathEscape(from)), []byte(url.PathEscape(p.dir))) // in URIs
			for _, old := range loopback.FindAllString(string(text), -1) {
				if ports[old] != "" {
					continue
				}
				if ports[old], err = p.address(); err != nil {
					return err
				}
			}
			text = loopback.ReplaceAllFunc(text, func(old []byte) []byte { return []byte(ports[string(old)]) })
		}
		return writeSparse(to, text, info.Mode().Perm())
	})
}

// writeSparse writes a file and leaves out what is zero: most of a young journal is.
func writeSparse(path string, text []byte, perm fs.FileMode) error {
	const page = 4096
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(len(text)))
	for at := 0; at < len(text) && err == nil; at += page {
		if part := text[at:min(at+page, len(text))]; len(bytes.Trim(part, "\x00")) > 0 {
			_, err = f.WriteAt(part, int64(at))
		}
	}
	return errors.Join(err, f.Close())
}

// startDaemonOf is `start NAME [up]`: zegel-NAME runs from $PROVIDER/NAME.yaml until the script ends; its log is NAME.log. It is ready,
// or with `up` it answers.
func startDaemonOf(ts *testscript.TestScript, _ bool, args []string) {
	p, name := of(ts), args[0]
	log, err := os.OpenFile(ts.MkAbs(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	defer log.Close()
	cmd := exec.Command(filepath.Join(binaries, "zegel-"+name), "--config", filepath.Join(p.dir, "provider", name+".yaml"))
	cmd.Stdout, cmd.Stderr = log, log
	ts.Check(cmd.Start())
	d := &process{cmd, make(chan struct{})}
	p.running[name] = d
	go func() {
		cmd.Wait() // how it ends is for the scripts that expect an end
		close(d.ended)
	}()
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case <-d.ended:
			ts.Fatalf("zegel-%s ended\n%s", name, ts.ReadFile(name+".log"))
		default:
		}
		address := ts.Getenv(strings.ToUpper(name) + "_HEALTH")
		if last = healthy(context.Background(), address); last == nil || len(args) > 1 && !strings.Contains(last.Error(), "ask http") {
			return
		}
	}
	ts.Fatalf("zegel-%s is not ready: %v\n%s", name, last, ts.ReadFile(name+".log"))
}

// stopDaemonOf is `halt NAME [kill]`.
func stopDaemonOf(ts *testscript.TestScript, _ bool, args []string) {
	signal := syscall.SIGTERM
	if len(args) > 1 {
		signal = syscall.SIGKILL
	}
	of(ts).stop(args[0], signal)
}

// remember keeps what must be the same at the next unchanged: every journal's entries and root, publish/ file by file.
func remember(ts *testscript.TestScript, _ bool, _ []string) { of(ts).was = of(ts).look(ts) }

// unchanged wants all as it was when remember was called.
func unchanged(ts *testscript.TestScript, _ bool, _ []string) {
	p := of(ts)
	now := p.look(ts)
	for name, was := range p.was {
		if now[name] != was {
			ts.Fatalf("%s has changed: it was %s, it is %s", name, was, now[name])
		}
	}
	if len(now) != len(p.was) {
		ts.Fatalf("there were %d files and journals, there are %d: %v", len(p.was), len(now), now)
	}
}

func (p *broken) look(ts *testscript.TestScript) map[string]string {
	seen := map[string]string{}
	for _, name := range []string{"ca", "ocsp", "tsa"} {
		dir := filepath.Join(p.dir, "provider", name, "journal")
		switch {
		case name == "ca" && p.running[name] != nil:
			out, err := exec.Command(filepath.Join(binaries, "zegel"), "--config", ts.Getenv("ZEGEL_CONFIG"), "journal", "verify", "--json").Output()
			ts.Check(err)
			var report struct {
				Entries uint64
				Root    string
			}
			ts.Check(json.Unmarshal(out, &report))
			seen[name] = fmt.Sprintf("%d entries, root %s", report.Entries, report.Root)
		case p.running[name] != nil: // it follows, or records its clock
		default:
			seen[name] = lieStill(dir)
		}
	}
	publish := filepath.Join(p.dir, "provider", "publish")
	entries, err := os.ReadDir(publish)
	ts.Check(err)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(publish, e.Name()))
		ts.Check(err)
		seen["publish/"+e.Name()] = fmt.Sprintf("%x", sha256.Sum256(text))
	}
	return seen
}

// lieStill describes a journal that no process has open, or a file that is none.
func lieStill(dir string) string {
	j, err := journal.OpenReadOnly(dir)
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "journal.db"))
		return fmt.Sprintf("no journal: %x", sha256.Sum256(text))
	}
	defer j.Close()
	return fmt.Sprintf("%d entries, last of %s", j.Size(), j.LastTime())
}

// changePIN is `changepin URI PIN`: the token gets another PIN, in a process of its own, as its owner may do at any time.
func changePIN(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ZEGEL_TEST_CHANGE_PIN="+strings.TrimSpace(ts.ReadFile(args[0])), "ZEGEL_TEST_NEW_PIN="+args[1], "SOFTHSM2_CONF="+filepath.Join(of(ts).dir, "tokens", "softhsm2.conf"))
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("change the PIN: %v\n%s", err, out)
	}
}

func changeOnePIN(uri, pin string) int {
	tokens := hsm.New(hsm.Config{})
	if err := errors.Join(tokens.ChangePIN(uri, []byte(pin)), tokens.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// newerFormat is `newerformat DIR`: the journal there says that software of tomorrow wrote it.
func newerFormat(ts *testscript.TestScript, _ bool, args []string) {
	path := filepath.Join(ts.MkAbs(args[0]), "journal.db")
	text, err := os.ReadFile(path)
	ts.Check(err)
	// the key "format" and its value lie side by side on a leaf page (docs/journal.md)
	at := bytes.Index(text, []byte("format\x00\x00\x00\x01"))
	if at < 0 {
		ts.Fatalf("%s has no format version", path)
	}
	for ; at >= 0; at = bytes.Index(text, []byte("format\x00\x00\x00\x01")) {
		text[at+9] = 2
	}
	ts.Check(os.WriteFile(path, text, 0o600))
}

// certifyNew is `certify PROFILE FROM TO`: the provider's certificate of that profile is made anew for the same key and name, valid between these
// moments from now (FROM `ca`: since the CA is).
func certifyNew(ts *testscript.TestScript, _ bool, args []string) {
	p := of(ts)
	spec, ok := map[string]struct{ file, issuer, token, object string }{
		"issuing-ca": {"issuing.pem", "root.pem", "root", "root"}, "ocsp-responder": {"ocsp.pem", "issuing.pem", "ca", "issuing"}, "tsu": {"tsu.pem", "issuing.pem", "ca", "issuing"},
	}[args[0]]
	if !ok || len(args) != 3 {
		ts.Fatalf("usage: certify issuing-ca|ocsp-responder|tsu FROM TO")
	}
	in := func(name string) string { return filepath.Join(p.dir, "provider", name) }
	old, err := daemon.ReadCertificate(in(spec.file))
	ts.Check(err)
	issuer, err := daemon.ReadCertificate(in(spec.issuer))
	ts.Check(err)
	from, to := issuer.NotBefore, time.Now()
	if args[1] != "ca" {
		d, err := time.ParseDuration(args[1])
		ts.Check(err)
		from = time.Now().Add(d)
	}
	d, err := time.ParseDuration(args[2])
	ts.Check(err)
	to = to.Add(d)

	tokens := hsm.New(hsm.Config{})
	defer tokens.Close()
	key, err := tokens.Key(fmt.Sprintf("softtoken:object=%s?dir=%[2]s/%[3]s&pin-source=file:%[2]s/%[3]s.pin", spec.object, filepath.Join(p.dir, "tokens"), spec.token))
	ts.Check(err)
	signed, err := certifyAgain(old, issuer, key, from, to, args[0])
	ts.Check(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})
	ts.Check(os.WriteFile(in(spec.file), text, 0o644))
	if args[0] == "issuing-ca" {
		root, err := os.ReadFile(in("root.pem"))
		ts.Check(err)
		ts.Check(os.WriteFile(in("chain.pem"), append(text, root...), 0o644))
	}
}

// certifyAgain makes a certificate as old is, for another time, through policy.
func certifyAgain(old, issuer *x509.Certificate, key *hsm.Key, from, to time.Time, profile string) ([]byte, error) {
	p, err := policy.Builtin(profile)
	if err != nil {
		return nil, err
	}
	algorithm, err := der.AlgorithmFor(key.Public(), "")
	if err != nil {
		return nil, err
	}
	by := policy.Issuer{
		Name: issuer.RawSubject, KeyID: issuer.SubjectKeyId, PublicKey: key.Public(), Algorithm: algorithm, NotBefore: from.Truncate(time.Second), NotAfter: issuer.NotAfter,
		URLs: policy.URLs{CRL: "http://127.0.0.1/issuing.crl", OCSP: "http://127.0.0.1/ocsp", CAIssuers: "http://127.0.0.1/issuing.cer", PDS: []policy.PDS{{URL: "https://zegel.example/pds_en.pdf", Language: "en"}}},
	}
	tbs, err := p.TBS(policy.Request{
		Subject: &policy.Subject{Attributes: []policy.Attribute{
			{Type: "countryName", Value: old.Subject.Country[0]}, {Type: "organizationName", Value: old.Subject.Organization[0]},
			{Type: "organizationIdentifier", Value: "NTRNL-12345678"}, {Type: "commonName", Value: old.Subject.CommonName},
		}},
		PublicKey: old.RawSubjectPublicKeyInfo, Serial: old.SerialNumber.Bytes(), NotBefore: from.UTC().Truncate(time.Second), NotAfter: to.UTC().Truncate(time.Second),
	}, by)
	if err != nil {
		return nil, err
	}
	value, err := algorithm.Sign(key, tbs)
	if err != nil {
		return nil, err
	}
	return algorithm.Signed(tbs, value), nil
}

// mountDisk is `disk DIR SIZE`: a file system of that size, memory behind it, at DIR until the script ends.
func mountDisk(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(ts.Exec("mount", "-t", "tmpfs", "-o", "mode=0700,size="+args[1], "tmpfs", dir))
	ts.Defer(func() {
		of(ts).stopAll()
		exec.Command("umount", "-l", dir).Run()
	})
}

// notFromAFile are the clauses on subjects that no subject file can break, with the reason; whatever else breaks them is tested elsewhere.
func notFromAFile() map[string]string {
	const twice = "a key that is there twice is a fault of the file (2); the rule judges certificates"
	const ceremony = "officers issue no such certificate: the ceremony's script names the provider"
	return map[string]string{
		"EN 319 412-2 NAT-4.2.4-3": twice, "EN 319 412-3 LEG-4.2.1-3": twice,
		"EN 319 412-2 GEN-4.2.3.1-2": ceremony, "EN 319 412-2 GEN-4.2.3.1-3": ceremony, "EN 319 412-2 GEN-4.2.3.1-5": ceremony,
		"EN 319 412-2 GEN-4.2.3.1-8": ceremony, "EN 319 422 §6.2": ceremony,
	}
}

// TestEveryClauseHasAWrongSubject holds testdata/request/wrong, which subject.txtar tries one by one, against policy's sources: a rule on
// subjects without a file that breaks it fails here.
func TestEveryClauseHasAWrongSubject(t *testing.T) {
	broken := notFromAFile()
	files, err := filepath.Glob(filepath.Join(testdata(t), "request", "wrong", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^# clause: (.+)$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := named.FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s names no clause", file)
		}
		if why, cannot := broken[string(m[1])]; cannot && !strings.HasSuffix(why, ".yaml") {
			t.Errorf("%s breaks %s, which is said not to be possible: %s", file, m[1], why)
		}
		broken[string(m[1])] = file
	}
	cited := clausesOf(t, "subject*.go", "identifier*.go", "registration*.go", "country*.go")
	if len(cited) < 30 {
		t.Fatalf("only %d clauses found in package policy: the search is broken", len(cited))
	}
	for clause := range cited {
		if broken[clause] == "" {
			t.Errorf("%s: no file of testdata/request/wrong breaks it", clause)
		}
	}
	for clause, file := range broken {
		if !cited[clause] {
			t.Errorf("%s (%s) is no clause of policy's rules on subjects", clause, file)
		}
	}
}

// clausesOf finds the string literals in package policy's files that are a clause and nothing else.
func clausesOf(t *testing.T, patterns ...string) map[string]bool {
	t.Helper()
	clause := regexp.MustCompile(`^(EN 319|ETSI TS|RFC|ITU-T|NIST) [^:;]*[0-9A-Z]$`)
	cited := make(map[string]bool)
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join("..", "..", "policy", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if text, err := strconv.Unquote(literal.Value); err == nil && clause.MatchString(text) {
						cited[text] = true
					}
				}
				return true
			})
		}
	}
	return cited
}
