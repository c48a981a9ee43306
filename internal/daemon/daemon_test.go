package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zegel-tsp/zegel/internal/desk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a throw-away management CA.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newAuthority(t testing.TB) *authority {
	a := &authority{dir: t.TempDir()}
	a.key = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TEST management CA"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key))
	a.cert = must[*x509.Certificate](t)(x509.ParseCertificate(der))
	a.write(t, "ca.pem", "CERTIFICATE", der, 0o644)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(t testing.TB, name, kind string, der []byte, perm os.FileMode) {
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), perm); err != nil {
		t.Fatal(err)
	}
}

// issue writes NAME.pem and NAME.key and returns the certificate's SHA-256.
func (a *authority) issue(t *testing.T, name string) string {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a.n++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.n), Subject: pkix.Name{CommonName: "TEST " + name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	a.write(t, name+".pem", "CERTIFICATE", der, 0o644)
	a.write(t, name+".key", "PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key)), 0o600)
	return fmt.Sprintf("%x", sha256.Sum256(der))
}

func (a *authority) listener(address string) TLSListener {
	return TLSListener{Listen: address, Certificate: a.path("server.pem"), Key: a.path("server.key"), ClientCA: a.path("ca.pem")}
}

func (a *authority) client(t *testing.T, name string) *http.Client {
	c := TLSClient{CA: a.path("ca.pem")}
	if name != "" {
		c.Certificate, c.Key = a.path(name+".pem"), a.path(name+".key")
	}
	transport := &http.Transport{TLSClientConfig: must[*tls.Config](t)(c.Config())}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// testConfig is a daemon's config as the daemons define theirs.
type testConfig struct {
	Common `yaml:",inline"`
	Key    string `yaml:"key"`
}

func (a *authority) config(t *testing.T, edit ...string) string {
	text := fmt.Sprintf(`assurance: test
clock: unverified
admin:
  listen: 127.0.0.1:0
  certificate: %[1]s/server.pem
  key: %[1]s/server.key
  client_ca: %[1]s/ca.pem
metrics: {listen: "127.0.0.1:0"}
key: softtoken:/x?object=a
`, a.dir)
	text = strings.NewReplacer(edit...).Replace(text)
	path := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func testDaemon(run func(context.Context, Env, *testConfig) error) Daemon[testConfig] {
	return Daemon[testConfig]{
		Name: "zegel-test", Short: "proves what the daemons share",
		Check: func(c *testConfig) error { return c.Validate(map[string]string{"key": c.Key}) },
		Run:   run,
	}
}

func TestMainExitStatus(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	good := a.config(t)
	for _, test := range []struct {
		name           string
		args           []string
		run            error
		status         int
		stdout, stderr string
	}{
		{name: "runs", args: []string{"--config", good}, stderr: `"msg":"stopped"`},
		{name: "fails", args: []string{"--config", good}, run: errors.New("open token: wrong PIN"), status: 1, stderr: "zegel-test: open token: wrong PIN"},
		{name: "usage found late", args: []string{"--config", good}, run: fmt.Errorf("start: %w", Usagef("no such folder")), status: 2, stderr: "no such folder"},
		{name: "check", args: []string{"--config", good, "--check"}, run: errors.New("must not run"), stdout: good + ": good\n"},
		{name: "version", args: []string{"--version"}, run: errors.New("must not run"), stdout: "zegel-test "},
		{name: "help", args: []string{"--help"}, run: errors.New("must not run"), stdout: "/etc/zegel/test.yaml --check"},
		{name: "no config", status: 2, stderr: "zegel-test: no configuration: say --config FILE"},
		{name: "unknown flag", args: []string{"--confg", good}, status: 2, stderr: "unknown flag: --confg"},
		{name: "argument", args: []string{good}, status: 2, stderr: "is not a flag"},
		{name: "missing file", args: []string{"--config", "/no/such"}, status: 2, stderr: "read configuration: open /no/such"},
		{name: "unknown key", args: []string{"--check", "--config", a.config(t, "metrics:", "metricks:")}, status: 2, stderr: `test.yaml:8: metricks: unknown key; did you mean "metrics"?`},
		{name: "refused value", args: []string{"--check", "--config", a.config(t, "clock: unverified", "clock: ntp")}, status: 2, stderr: `test.yaml:2: clock: "ntp" is neither`},
		{name: "unverified clock", args: []string{"--config", a.config(t, "assurance: test", "assurance: qualified")}, run: errors.New("must not run"), status: 2, stderr: "test.yaml:2: clock: an unverified clock under"},
		{name: "software key", args: []string{"--config", a.config(t, "assurance: test", "assurance: qualified", "unverified", "system")}, run: errors.New("must not run"), status: 2, stderr: "test.yaml:9: key: a software key under"},
		{name: "software key in a group", args: []string{"--config", a.config(t, "assurance: test", "assurance: qualified", "unverified", "system", "softtoken:/x?object=a", `"pkcs11:token=a softtoken:object=a"`)}, run: errors.New("must not run"), status: 2, stderr: "test.yaml:9: key: a software key under"},
		{name: "hardware key", args: []string{"--check", "--config", a.config(t, "assurance: test", "assurance: qualified", "unverified", "system", "softtoken:/x?object=a", "pkcs11:token=a")}, stdout: "good"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			d := testDaemon(func(context.Context, Env, *testConfig) error { return test.run })
			if got := runDaemon(t.Context(), d, test.args, &stdout, &stderr); got != test.status {
				t.Errorf("exit status %d, want %d", got, test.status)
			}
			if !strings.Contains(stdout.String(), test.stdout) || test.stdout == "" && stdout.Len() > 0 {
				t.Errorf("stdout %q, want %q", &stdout, test.stdout)
			}
			if !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stderr %q, want %q", &stderr, test.stderr)
			}
		})
	}
}

func TestMainEndsOnSignalContext(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	ctx, cancel := context.WithCancel(t.Context())
	d := testDaemon(func(ctx context.Context, e Env, _ *testConfig) error {
		if e.ConfigDigest == ([32]byte{}) || e.Version == "" || e.Daemon != "zegel-test" {
			t.Errorf("environment is not filled: %+v", e)
		}
		cancel()
		<-ctx.Done()
		return fmt.Errorf("follow: %w", ctx.Err())
	})
	if got := runDaemon(ctx, d, []string{"--config", a.config(t)}, io.Discard, io.Discard); got != 0 {
		t.Errorf("exit status %d after an orderly end", got)
	}
}

func TestCommonValidateRefuses(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	a.issue(t, "other")
	for _, test := range []struct {
		name, want string
		edit       func(*Common)
	}{
		{"good", "", func(*Common) {}},
		{"assurance", "assurance: \"\" is neither", func(c *Common) { c.Assurance = "" }},
		{"clock", "clock: \"ntp\" is neither", func(c *Common) { c.Clock = "ntp" }},
		{"no admin address", "admin.listen: no address", func(c *Common) { c.Admin.Listen = "" }},
		{"address without port", "admin.listen: address 127.0.0.1: missing port", func(c *Common) { c.Admin.Listen = "127.0.0.1" }},
		{"port that is none", "metrics.listen: \"99999\" is no port", func(c *Common) { c.Metrics.Listen = "127.0.0.1:99999" }},
		{"no certificate", "admin.certificate: no file", func(c *Common) { c.Admin.Certificate = "" }},
		{"no key", "admin.key: no file", func(c *Common) { c.Admin.Key = "" }},
		{"no client CA", "admin.client_ca: no CA", func(c *Common) { c.Admin.ClientCA = "" }},
		{"key missing", "no such file", func(c *Common) { c.Admin.Key = a.path("nokey") }},
		{"key of another", "private key does not match public key", func(c *Common) { c.Admin.Key = a.path("other.key") }},
		{"officer without roles", "officers[0].roles: no role", func(c *Common) { c.Officers[0].Roles = nil }},
		{"auditor who operates, qualified", "officers[0].roles: a system_auditor", func(c *Common) {
			c.Assurance, c.Clock, c.Officers[0].Roles = AssuranceQualified, "system", []string{desk.SystemAuditor, desk.SystemOperator}
		}},
		{"client CA without certificate", "holds no PEM certificate", func(c *Common) { c.Admin.ClientCA = a.path("other.key") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Common{Assurance: "test", Clock: "unverified", Admin: a.listener("127.0.0.1:1"), Metrics: Listener{"127.0.0.1:2"}}
			c.Officers = []desk.Officer{{ID: strings.Repeat("1", 32), Certificate: strings.Repeat("1", 64), Roles: desk.Roles()}}
			test.edit(&c)
			err := c.Validate(nil)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			var k *KeyError
			if err != nil && !errors.As(err, &k) {
				t.Errorf("error names no key: %v", err)
			}
		})
	}
}

func TestKeyFileMode(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o660: false} {
		if err := os.Chmod(a.path("server.key"), mode); err != nil {
			t.Fatal(err)
		}
		_, err := a.listener("127.0.0.1:0").TLSConfig()
		if good != (err == nil) {
			t.Errorf("mode %o: %v", mode, err)
		}
		if err != nil && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("no remedy: %v", err)
		}
	}
}

func TestJournalValidate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		j    Journal
		want string
	}{
		{Journal{dir, "w", "c"}, ""},
		{Journal{"", "w", "c"}, "journal.dir: no folder"},
		{Journal{dir, "", "c"}, "journal.wrap_key: no key"},
		{Journal{dir, "w", ""}, "journal.checkpoint_key: no key"},
		{Journal{dir + "/no", "w", "c"}, "zegel-ceremony creates journals"},
		{Journal{file, "w", "c"}, "is not a folder"},
	} {
		err := test.j.Validate("journal")
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: error %v, want %q", test.j, err, test.want)
		}
	}
}

// serve runs servers until the returned stop, which reports what Serve returned.
func serve(t *testing.T, log *slog.Logger, servers ...Server) (addresses []string, stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	addresses = make([]string, len(servers))
	var ready sync.WaitGroup
	for i := range servers {
		ready.Add(1)
		servers[i].Listening = func(a net.Addr) {
			addresses[i] = a.String()
			ready.Done()
		}
	}
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, log, servers...) }()
	ready.Wait()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return addresses, stop
}

func get(t *testing.T, c *http.Client, url string) (int, map[string]any) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var facts map[string]any
	if err := json.NewDecoder(r.Body).Decode(&facts); err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, facts
}

func TestAdminAndHealth(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	alice := a.issue(t, "alice")
	a.issue(t, "mallory")
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	notReady := errors.New("no fresh checkpoint")
	var ready bool
	health := func() (map[string]any, error) {
		if !ready {
			return map[string]any{"clock": "unverified"}, notReady
		}
		return map[string]any{"clock": "unverified"}, nil
	}
	env := Env{Log: log, Registry: NewRegistry("zegel-test"), Daemon: "zegel-test", Version: "v0"}
	officers := []desk.Officer{{ID: strings.Repeat("1", 32), Name: "alice", Certificate: strings.ToUpper(alice), Roles: []string{desk.SystemOperator}}}
	addresses, stop := serve(t, log,
		Server{Name: "admin", Address: "127.0.0.1:0", TLS: must[*tls.Config](t)(a.listener("").TLSConfig()), Handler: StatusHandler(Status{env, officers, health})},
		Server{Name: "metrics", Address: "127.0.0.1:0", Handler: MetricsHandler(env.Registry, health)})
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	status, facts := get(t, plain, "http://"+addresses[1]+"/health")
	if status != 503 || facts["ready"] != false || facts["reason"] != notReady.Error() || facts["clock"] != "unverified" {
		t.Errorf("health while not ready: %d %v", status, facts)
	}
	ready = true
	if status, facts = get(t, plain, "http://"+addresses[1]+"/health"); status != 200 || facts["ready"] != true || facts["reason"] != nil {
		t.Errorf("health while ready: %d %v", status, facts)
	}
	r, err := plain.Get("http://" + addresses[1] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if !bytes.Contains(metrics, []byte(`zegel_build_info{daemon="zegel-test"`)) {
		t.Error("metrics lack zegel_build_info")
	}

	url := "https://" + addresses[0] + "/v1/status"
	if status, facts = get(t, a.client(t, "alice"), url); status != 200 || facts["daemon"] != "zegel-test" || facts["ready"] != true || facts["version"] != "v0" {
		t.Errorf("status for an officer: %d %v", status, facts)
	}
	if status, facts = get(t, a.client(t, "mallory"), url); status != 403 || facts["error"] == nil {
		t.Errorf("status for a stranger: %d %v", status, facts)
	}
	if _, err := a.client(t, "").Get(url); err == nil {
		t.Error("the admin listener took a client without certificate")
	}
	if _, err := newAuthority(t).client(t, "").Get(url); err == nil {
		t.Error("a client believed a server of another CA")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), `"msg":"denied"`) {
		t.Error("the denial was not logged")
	}
}

func TestTLSRefusesOldSuites(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	l := a.listener("")
	l.ClientCA = ""
	addresses, _ := serve(t, slog.New(slog.DiscardHandler), Server{Name: "https", Address: "127.0.0.1:0", TLS: must[*tls.Config](t)(l.TLSConfig()), Handler: http.NotFoundHandler()})
	pool := must[*x509.CertPool](t)(LoadPool(a.path("ca.pem")))
	for _, test := range []struct {
		name   string
		config *tls.Config
		good   bool
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
	} {
		test.config.RootCAs = pool
		c, err := tls.Dial("tcp", addresses[0], test.config)
		if (err == nil) != test.good {
			t.Errorf("%s: %v", test.name, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

func TestServePortInUse(t *testing.T) {
	taken := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer taken.Close()
	free := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	address := free.Addr().String()
	free.Close()
	err := Serve(t.Context(), slog.New(slog.DiscardHandler),
		Server{Name: "metrics", Address: address, Handler: http.NotFoundHandler()},
		Server{Name: "ocsp", Key: "listen", Address: taken.Addr().String(), Handler: http.NotFoundHandler()})
	if err == nil {
		t.Fatal("served on a taken port")
	}
	for _, want := range []string{"ocsp", taken.Addr().String(), "configuration key listen", "address already in use", "choose another"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	again, err := net.Listen("tcp", address)
	if err != nil {
		t.Errorf("the other listener stayed open: %v", err)
	} else {
		again.Close()
	}
}

func TestServeDrains(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		if r.Context().Err() != nil {
			t.Error("a request that had begun was cancelled")
		}
		WriteJSON(w, 200, map[string]string{"done": "yes"})
	})
	polled := make(chan struct{})
	poll := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(polled)
		<-r.Context().Done() // a long poll ends when the daemon does
	})
	addresses, stop := serve(t, slog.New(slog.DiscardHandler),
		Server{Name: "public", Address: "127.0.0.1:0", Handler: handler},
		Server{Name: "feed", Address: "127.0.0.1:0", Handler: poll, StreamWrites: true})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answers := make(chan error, 2)
	go func() {
		r, err := client.Get("http://" + addresses[0])
		if err == nil {
			err = r.Body.Close()
		}
		answers <- err
	}()
	go func() {
		if r, err := client.Get("http://" + addresses[1]); err == nil {
			r.Body.Close()
		}
		answers <- nil
	}()
	<-begun
	<-polled
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// The listener closes while the request is still in the handler.
	for {
		c, err := net.Dial("tcp", addresses[0])
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	close(finish)
	for range 2 {
		if err := <-answers; err != nil {
			t.Errorf("request cut off: %v", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestServeHeaderLimit(t *testing.T) {
	addresses, _ := serve(t, slog.New(slog.DiscardHandler), Server{Name: "public", Address: "127.0.0.1:0", Handler: http.NotFoundHandler()})
	request, err := http.NewRequest(http.MethodGet, "http://"+addresses[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	r, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", r.StatusCode)
	}
}

func TestLimitedListener(t *testing.T) {
	inner := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	l := newLimited(inner, 1)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn { return must[net.Conn](t)(net.Dial("tcp", inner.Addr().String())) }
	one, two := dial(), dial()
	defer one.Close()
	defer two.Close()
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("two connections where one is the limit")
	case <-time.After(30 * time.Millisecond):
	}
	for range 2 { // closing twice gives back one slot, not two
		first.Close()
	}
	second := <-accepted
	// With the slot taken again, closing the listener must still end Accept.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
	second.Close()
}

func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {Usagef("x"), 2}, {fmt.Errorf("a: %w", Usagef("x")), 2}, {errors.Join(errors.New("y"), Usagef("x")), 2},
	} {
		if got := ExitStatus(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func ExampleKeyf() {
	text := []byte("assurance: test\nlisten: nowhere\n")
	fmt.Println(Locate("ocsp.yaml", text, Keyf("listen", "%q is no address", "nowhere")))
	// Output: ocsp.yaml:2: listen: "nowhere" is no address
}

// TestStreams has a connection of HTTP/2 be told how many requests it may have at a time.
func TestStreams(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "server")
	l := a.listener("")
	l.ClientCA = ""
	addresses, _ := serve(t, slog.New(slog.DiscardHandler), Server{Name: "https", Address: "127.0.0.1:0", TLS: must[*tls.Config](t)(l.TLSConfig()), Handler: http.NotFoundHandler()})
	config := &tls.Config{RootCAs: must[*x509.CertPool](t)(LoadPool(a.path("ca.pem"))), NextProtos: []string{"h2"}}
	c := must[*tls.Conn](t)(tls.Dial("tcp", addresses[0], config))
	defer c.Close()
	if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil { // RFC 9113 §3.4: preface, empty SETTINGS
		t.Fatal(err)
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Fatalf("the first frame is no SETTINGS: %x, %v", head, err)
	}
	settings := make([]byte, binary.BigEndian.Uint16(head[1:]))
	if _, err := io.ReadFull(c, settings); err != nil {
		t.Fatal(err)
	}
	for ; len(settings) >= 6; settings = settings[6:] {
		if binary.BigEndian.Uint16(settings) == 3 { // SETTINGS_MAX_CONCURRENT_STREAMS
			if got := binary.BigEndian.Uint32(settings[2:]); got != maxStreams {
				t.Errorf("%d requests at a time, want %d", got, maxStreams)
			}
			return
		}
	}
	t.Error("no limit was told")
}

// The health of a daemon is that of all its parts.
func TestTogether(t *testing.T) {
	first, second := errors.New("the first part"), errors.New("the second part")
	part := func(name string, err error) Health {
		return func() (map[string]any, error) {
			return map[string]any{name: true, "warnings": []string{name + " warns"}}, err
		}
	}
	silent := func() (map[string]any, error) { return nil, nil }
	for _, c := range []struct{ a, b, want error }{{nil, nil, nil}, {first, nil, first}, {nil, second, second}, {first, second, first}} {
		facts, err := Together(part("a", c.a), silent, part("b", c.b))()
		if warnings, _ := facts["warnings"].([]string); err != c.want || facts["a"] != true || facts["b"] != true || !slices.Equal(warnings, []string{"a warns", "b warns"}) {
			t.Errorf("%v and %v: %v, %v", c.a, c.b, facts, err)
		}
	}
}
