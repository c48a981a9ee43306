package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// binaries is where TestMain built the five binaries.
var binaries string

func TestMain(m *testing.M) {
	flag.Parse()
	if worker := flag.Lookup("test.fuzzworker"); worker != nil && worker.Value.String() == "true" {
		os.Exit(m.Run()) // it runs no binary
	}
	if uri := os.Getenv("ZEGEL_TEST_CHANGE_PIN"); uri != "" {
		os.Exit(changeOnePIN(uri, os.Getenv("ZEGEL_TEST_NEW_PIN")))
	}
	os.Exit(buildAndRun(m))
}

// buildAndRun builds what the tests run from outside.
func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "zegel-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-trimpath", "-o", binaries+"/", "./cmd/...")
	if failpoint.Enabled {
		build.Args = slices.Insert(build.Args, 2, "-tags", "failpoint")
	}
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the binaries: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// zegel runs the built tool and returns its standard output; it must end with the status wanted.
func zegel(t *testing.T, status int, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "zegel"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
		t.Fatalf("zegel %s: %v, want status %d\n%s%s", strings.Join(args, " "), err, status, &out, &errs)
	}
	return out.String()
}

// running is a demo that is up.
type running struct {
	demoFacts
	dir string
	cmd *exec.Cmd
	out string // file with its standard output
	err *bytes.Buffer

	ended  chan error
	killed bool // by the test itself: no clean end is expected

	pss      bool                                                                // it signs by RSASSA-PSS: scripts ask with [pss]
	extra    []string                                                            // NAME=VALUE: variables that a test adds for its scripts
	commands map[string]func(ts *testscript.TestScript, neg bool, args []string) // and what they may call beside programs
}

// startDemo starts a demo and waits for demo.json; the cleanup interrupts it and wants a clean end.
func startDemo(t *testing.T, args ...string) *running {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "demo")
	return startDemoIn(t, dir, args...)
}

func startDemoIn(t *testing.T, dir string, args ...string) *running {
	t.Helper()
	r := &running{dir: dir, err: new(bytes.Buffer)}
	r.cmd = exec.Command(filepath.Join(binaries, "zegel"), append([]string{"demo", "--dir", dir}, args...)...)
	r.cmd.Stderr = r.err
	r.out = filepath.Join(t.TempDir(), "stdout")
	out, err := os.Create(r.out)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r.cmd.Stdout = out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.ended = make(chan error, 1)
	ended := r.ended
	go func() { ended <- r.cmd.Wait() }()
	t.Cleanup(func() {
		if r.killed {
			return
		}
		r.cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the demo ended with %v\n%s", err, r.err)
			}
		case <-time.After(60 * time.Second):
			r.cmd.Process.Kill()
			t.Errorf("the demo did not stop\n%s", r.err)
		}
	})
	deadline := time.After(2 * time.Minute)
	for {
		if _, err := os.Stat(filepath.Join(dir, "demo.json")); err == nil {
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the demo ended: %v\n%s", err, r.err)
		case <-deadline:
			t.Fatalf("no demo.json after 2 minutes\n%s", r.err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r.demoFacts); err != nil {
		t.Fatal(err)
	}
	return r
}

// stop interrupts the demo, as Ctrl-C does, and waits for its clean end.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cmd.Process.Signal(os.Interrupt)
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("the demo ended with %v\n%s", err, r.err)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("the demo did not stop\n%s", r.err)
	}
	r.killed = true
}

// variables are what the scripts see of a demo.
func (r *running) variables(t *testing.T) []string {
	c := officerConfig(t, r.ZegelConfig)
	vars := map[string]string{
		"OCSP_URL": r.OCSPURL, "TSA_URL": r.TSAURL, "TSA_HTTPS_URL": r.TSAHTTPSURL, "TLS_CA": r.TLSCA, "CRL_URL": r.CRLURL,
		"ROOT": r.Root, "ISSUER": r.Issuer, "CHAIN": r.Chain, "TSA_CERT": r.TSACert, "TSA_CHAIN": r.TSAChain, "OCSP_CERT": r.OCSPCert,
		"ROOT_CRL_PEM": rootCRLAsPEM(t, r.RootCRL), "ZEGEL_CONFIG": r.ZegelConfig, "CA_ADMIN_URL": r.AdminURLs["ca"],
		"FEED_URL": r.FeedURL, "HEALTH_URL": r.HealthURLs["ca"],
		"FEED_CERT": filepath.Join(filepath.Dir(r.ZegelConfig), "tls", "feed.pem"), "FEED_KEY": filepath.Join(filepath.Dir(r.ZegelConfig), "tls", "feed.key"),
		"OFFICER_CERT": c.CA.Certificate, "OFFICER_KEY": c.CA.Key,
		"PATH": binaries + ":" + os.Getenv("PATH"), "TESTDATA": testdata(t),
		"JUDGE": filepath.Join(testdata(t), "judges", "pkijs", "judge.js"), "NODE_MODULES": filepath.Join(testdata(t), "..", "build", "judges", "node_modules"),
	}
	for _, c := range r.Certificates {
		name := strings.ToUpper(strings.ReplaceAll(c.Profile, "-", "_"))
		if c.Status == "revoked" {
			name = "REVOKED"
		}
		vars[name] = c.Cert
		vars[name+"_SERIAL"] = c.Serial
		vars[name+"_KEY"] = c.Key
	}
	var list []string
	for k, v := range vars {
		list = append(list, k+"="+v)
	}
	return list
}

// testdata is the folder of that name at the top of the tree, absolute.
func testdata(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "testdata"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func officerConfig(t *testing.T, path string) *config {
	t.Helper()
	c, err := (&tool{configPath: path}).loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rootCRLAsPEM copies the root's CRL into a PEM file, which is what openssl verify reads.
func rootCRLAsPEM(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(raw); block != nil {
		return path
	}
	file := filepath.Join(t.TempDir(), "root-crl.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestScript runs testdata/script against running demos: what others wrote judges what we serve.
func TestScript(t *testing.T) {
	for _, c := range []struct{ token, keys string }{{"soft", "p256"}, {"softhsm", "rsa3072"}} {
		t.Run(c.token+"-"+c.keys, func(t *testing.T) {
			demo := startDemo(t, "--token", c.token, "--keys", c.keys)
			// Those in alone/ look at the whole provider, so nobody may use it meanwhile.
			runScripts(t, demo, "script", "script/alone")
		})
	}
}

// TestScriptPSS has OpenSSL read what a provider signs that uses RSASSA-PSS for everything.
func TestScriptPSS(t *testing.T) {
	demo := startDemo(t, "--keys", "rsa3072", "--signature-scheme", "pss", "--tsu-signature-scheme", "pss")
	runScripts(t, demo, "script/pss")
}

// runScripts runs the scripts of folders of testdata against a demo, one folder after the other.
func runScripts(t *testing.T, demo *running, dirs ...string) {
	t.Helper()
	vars := append(demo.variables(t), demo.extra...)
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:  filepath.Join("..", "..", "testdata", dir),
				Cmds: demo.commands,
				Condition: func(name string) (bool, error) {
					if name != "pss" {
						return false, fmt.Errorf("unknown condition %s", name)
					}
					return demo.pss, nil
				},
				Setup: func(e *testscript.Env) error {
					e.Vars = append(e.Vars, vars...)
					return nil
				},
			})
		})
	}
}

// TestReadme runs every sh block of the README, word for word but for the temporary folder and the two make commands.
func TestReadme(t *testing.T) {
	r := startDemo(t)
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := readmeCommands(string(readme))
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 {
		t.Fatalf("%d blocks to run: one while the demo is up and one after it was known when this test was written", len(blocks))
	}
	for _, want := range []string{"zegel issue", "openssl ocsp", "openssl ts -verify", "zegel journal verify"} {
		if !strings.Contains(blocks[0], want) {
			t.Fatalf("the README has no %q to try by hand", want)
		}
	}
	dir := t.TempDir()
	for name, target := range map[string]string{"testdata": filepath.Join(root, "testdata"), "demo": r.dir, "bin": binaries} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), readme, 0o600); err != nil {
		t.Fatal(err)
	}
	export, _, _ := strings.Cut(blocks[0], "\n") // one shell, as a reader has
	for i, commands := range []string{blocks[0], export + "\n" + blocks[1]} {
		if i == 1 {
			r.stop(t)
		}
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", strings.ReplaceAll(commands, "/tmp/", dir+"/"))
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		for _, want := range [][]string{{"refused with status 3", "cert.pem: good", "cert.pem: revoked", "Verification: OK", "no fault"}, {"no fault"}}[i] {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("the README's commands do not say %q:\n%s", want, out)
			}
		}
	}
}

// The commands of a README that nothing would run are found.
func TestReadmeCommands(t *testing.T) {
	if _, err := readmeCommands("```sh\nmake demo # a\nmake bench\n```\n"); err == nil {
		t.Error("make bench passes")
	}
	if run, err := readmeCommands("```sh\nmake demo # a\nmake test\n```\n```sh\nls\n```\n"); err != nil || len(run) != 1 || run[0] != "ls" {
		t.Errorf("%q %v", run, err)
	}
}

// TestDemoOnce runs the whole demo with every token and kind of key, and RSASSA-PSS on each token: it must be green and leave
// nothing running.
func TestDemoOnce(t *testing.T) {
	for _, c := range []struct {
		token, keys string
		more        []string
	}{
		{"soft", "p256", nil},
		{"soft", "p521", nil},
		{"soft", "rsa3072", []string{"--signature-scheme", "pss", "--tsu-signature-scheme", "pss"}},
		{"softhsm", "p256", nil},
		{"softhsm", "p384", nil},
		{"softhsm", "rsa3072", nil},
		{"softhsm", "rsa4096", []string{"--signature-scheme", "pss"}},
	} {
		t.Run(strings.Join(append([]string{c.token, c.keys}, c.more...), "-"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "demo")
			start := time.Now()
			out := zegel(t, 0, append([]string{"demo", "--once", "--dir", dir, "--token", c.token, "--keys", c.keys}, c.more...)...)
			t.Logf("%v", time.Since(start))
			if strings.Contains(out, "FAILED") {
				t.Fatal(out)
			}
			checkFacts(t, dir)
			// the journals lie still now: anybody can verify them without a key
			for _, name := range []string{"ca", "ocsp", "tsa"} {
				facts := readFacts(t, dir)
				report := zegel(t, 0, "journal", "verify", "--json", "--dir", facts.Journals[name])
				if !strings.Contains(report, `"ok": true`) {
					t.Errorf("journal of %s: %s", name, report)
				}
			}
			for name, pid := range readFacts(t, dir).PIDs {
				if err := syscall.Kill(pid, 0); err == nil {
					t.Errorf("zegel-%s (pid %d) still runs", name, pid)
				}
			}
		})
	}
}

func readFacts(t *testing.T, dir string) demoFacts {
	t.Helper()
	var f demoFacts
	text, err := os.ReadFile(filepath.Join(dir, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// checkFacts compares demo.json with the contract: every key there, every path absolute and present.
func checkFacts(t *testing.T, dir string) {
	t.Helper()
	f := readFacts(t, dir)
	for name, path := range map[string]string{"tls_ca": f.TLSCA, "root": f.Root, "issuer": f.Issuer, "chain": f.Chain, "tsa_cert": f.TSACert,
		"tsa_chain": f.TSAChain, "ocsp_cert": f.OCSPCert, "root_crl": f.RootCRL, "zegel_config": f.ZegelConfig, "publish_dir": f.PublishDir,
		"configs.ca": f.Configs["ca"], "configs.ocsp": f.Configs["ocsp"], "configs.tsa": f.Configs["tsa"],
		"journals.ca": f.Journals["ca"], "journals.ocsp": f.Journals["ocsp"], "journals.tsa": f.Journals["tsa"]} {
		if !filepath.IsAbs(path) {
			t.Errorf("demo.json %s: %q is not absolute", name, path)
		} else if _, err := os.Stat(path); err != nil {
			t.Errorf("demo.json %s: %v", name, err)
		}
	}
	for name, address := range map[string]string{"ocsp_url": f.OCSPURL, "tsa_url": f.TSAURL, "tsa_https_url": f.TSAHTTPSURL, "crl_url": f.CRLURL,
		"feed_url": f.FeedURL, "admin_urls.ca": f.AdminURLs["ca"], "admin_urls.ocsp": f.AdminURLs["ocsp"], "admin_urls.tsa": f.AdminURLs["tsa"],
		"health_urls.ca": f.HealthURLs["ca"], "metrics_urls.tsa": f.MetricsURLs["tsa"]} {
		if u, err := url.Parse(address); err != nil || u.Host == "" {
			t.Errorf("demo.json %s: %q is no address", name, address)
		}
	}
	for _, name := range []string{"ca", "tsa"} {
		if strings.Count(f.JournalKeys[name], "+") < 2 {
			t.Errorf("demo.json journal_keys.%s: %q", name, f.JournalKeys[name])
		}
	}
	if f.TSAPolicy == "" || len(f.PIDs) != 3 {
		t.Errorf("demo.json: tsa_policy %q, pids %v", f.TSAPolicy, f.PIDs)
	}
	seen := map[string]bool{}
	for _, c := range f.Certificates {
		seen[c.Profile+" "+c.Status] = true
		for _, path := range []string{c.Cert, c.Key, c.Issuer} {
			if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
				t.Errorf("demo.json certificate %s: %s: %v", c.Serial, path, err)
			}
		}
	}
	for _, want := range []string{"qcp-n good", "qcp-n-qscd good", "qcp-l good", "qcp-l-qscd good", "qcp-n revoked"} {
		if !seen[want] {
			t.Errorf("demo.json has no certificate %s", want)
		}
	}
}

// waitHealthy waits until a daemon's /health answers 200.
func waitHealthy(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		err := healthy(ctx, url)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: %v", url, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
