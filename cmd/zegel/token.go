package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/policy"
)

func (t *tool) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "token", Short: "What a token is, which keys it holds, how fast they sign, and what is done to them", Args: cobra.NoArgs,
		Example: "  zegel token list --module /usr/lib/softhsm/libsofthsm2.so\n  zegel token bench",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(t.tokenListCommand(), t.tokenKeysCommand(), t.tokenGenerateCommand(), t.tokenDestroyCommand(), t.tokenBackupCommand(),
		t.tokenRestoreCommand(), t.tokenTrustCommand(), t.tokenRecordCommand(), t.tokenBenchCommand(),
		t.tokenSplitCommand(), t.tokenActivateCommand(), t.tokenDeactivateCommand())
	return c
}

func (t *tool) tokenListCommand() *cobra.Command {
	var module string
	c := &cobra.Command{
		Use: "list {--module PATH | URI...}", Short: "List tokens: what they are, the state of the PIN, the mechanisms",
		Long: `list asks a PKCS#11 module for its tokens, all or those that a key URI matches. It logs in to none.

The module reads its own variables from the environment (SOFTHSM2_CONF): export what module_env of
a daemon's configuration has.`,
		Example: `  zegel token list --module /usr/lib/softhsm/libsofthsm2.so
  zegel token list 'pkcs11:token=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so' --json`,
		RunE: func(_ *cobra.Command, uris []string) error {
			if module != "" && !filepath.IsAbs(module) {
				return badInput("list tokens: --module %s is not an absolute path: begin it with /", module)
			}
			if module != "" {
				uris = append([]string{hsm.URI{ModulePath: module}.String()}, uris...)
			}
			if len(uris) == 0 {
				return badInput("list tokens: name a module with --module PATH, or tokens by their URIs")
			}
			return t.tokenList(uris)
		},
	}
	c.Flags().StringVar(&module, "module", "", "`PATH` of a PKCS#11 module whose tokens are listed, absolute")
	return c
}

func (t *tool) tokenKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keys URI...", Short: "List the keys of tokens, with what proves that they cannot leave",
		Long: `keys logs in to the token that each URI names and lists its private and secret keys, those of the
URI's object and id where it has them: attributes, algorithm, SHA-256 of the public key, and the
token that holds them (EN 319 411-1 GEN-6.5.1-13A).

The PIN comes from the URI's pin-source. One that the token refuses is not tried again.`,
		Example: `  zegel token keys 'pkcs11:token=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin'
  zegel token keys 'softtoken:?dir=/var/lib/zegel/keys&pin-source=file:/etc/zegel/pin' --json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, uris []string) error { return t.tokenKeys(uris) },
	}
}

func (t *tool) tokenBenchCommand() *cobra.Command {
	b := tokenBench{keys: []string{"p256", "p384", "p521", "rsa3072", "rsa4096"}}
	c := &cobra.Command{
		Use: "bench [URI...]", Short: "Measure how many signatures a second a token makes, with and without this program",
		Long: `bench compares two ways to sign that take turns on the same sessions: raw is C_SignInit and C_Sign in
a bare loop, one goroutine a session; signer is what the daemons call, without the verification of
the result, whose cost stands beside it.

Without a URI it measures throw-away software keys of this process. A URI that names a token, and no
object, measures throw-away keys on that token (session objects: nothing is stored). A URI that
names a key has that key sign random digests, and is refused for a CA's key, which signs
certificates and revocation status only (EN 319 411-1 GEN-6.5.3-03).`,
		Example: `  zegel token bench
  zegel token bench 'pkcs11:token=spare?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin' --json`,
		RunE: func(c *cobra.Command, uris []string) error { return t.tokenBench(c.Context(), uris, b) },
	}
	c.Flags().StringSliceVar(&b.keys, "keys", b.keys, "`LIST` of the algorithms of throw-away keys")
	c.Flags().DurationVar(&b.duration, "duration", 6*time.Second, "`TIME` that each key is measured, half of it each way")
	c.Flags().StringVar(&b.isolate, "isolation", hsm.IsolationNone, "`WHERE` PKCS#11 modules run: none, process (one of their own), or both, one after the other")
	c.Flags().IntVar(&b.sessions, "sessions", 32, "`NUMBER` of sessions that sign at once, where the token has them")
	return c
}

// checkTokenURIs judges the URIs of a command line, of a key group each one, and returns the first of each. A pin-value there would lie in
// the process list and in the shell's history.
func checkTokenURIs(uris []string) ([]hsm.URI, error) {
	var list []hsm.URI
	for _, uri := range uris {
		members, err := hsm.ParseURIs(uri)
		if err != nil {
			return nil, &inputError{err}
		}
		for _, u := range members {
			if u.HasPINValue() {
				return nil, badInput("%s: a pin-value on the command line is for everyone to read: give pin-source=file:/absolute/path, and change that PIN", u.Name())
			}
			if !u.Software && u.ModulePath == "" {
				return nil, badInput("%s: the URI has no module-path: add ?module-path=/absolute/path/of/the/pkcs11/module.so", u.Name())
			}
		}
		list = append(list, members[0])
	}
	return list, nil
}

// checkKeyURIs is checkTokenURIs for what is done on one token at a time: a key group is refused.
func checkKeyURIs(uris ...string) ([]hsm.URI, error) {
	list, err := checkTokenURIs(uris)
	if err != nil {
		return nil, err
	}
	for _, uri := range uris {
		if members, err := hsm.ParseURIs(uri); err == nil && len(members) > 1 {
			return nil, badInput("%s is a key group, and this is done on one token at a time: give one of its URIs", members[0].Name()+" …")
		}
	}
	return list, nil
}

// tokenConfig is how the officer's configuration has tokens used, as far as there is one.
func (t *tool) tokenConfig() (hsm.Config, error) {
	if !t.configured() {
		return hsm.Config{}, nil
	}
	c, err := t.loadConfig()
	if err != nil {
		return hsm.Config{}, err
	}
	return hsm.Config{Settings: hsm.Settings(c.Tokens)}, nil
}

// withTokens hands what reaches tokens to do, and closes it.
func withTokens(c hsm.Config, do func(*hsm.Tokens) error) error {
	tokens := hsm.New(c)
	err := do(tokens)
	return errors.Join(err, tokens.Close())
}

func (t *tool) tokenList(uris []string) error {
	if _, err := checkTokenURIs(uris); err != nil {
		return err
	}
	config, err := t.tokenConfig()
	if err != nil {
		return err
	}
	list := []hsm.TokenState{}
	err = withTokens(config, func(tokens *hsm.Tokens) error {
		for _, uri := range uris {
			states, err := tokens.List(uri)
			if err != nil {
				return err
			}
			list = append(list, states...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if t.json {
		return t.printJSON(list)
	}
	rows := [][]string{{"SLOT", "TOKEN", "MANUFACTURER", "MODEL", "SERIAL", "FIRMWARE", "PIN", "SESSIONS", "MECHANISMS", "CERTIFICATION"}}
	for _, s := range list {
		label := s.Label
		if !s.Initialised {
			label = "(not initialised)"
		}
		if w := s.CertificationWarning(time.Now(), false); w != "" {
			t.note("zegel: %s", w)
		}
		rows = append(rows, []string{fmt.Sprint(s.Slot), label, s.Manufacturer, s.Model, s.SerialNumber, s.Firmware, string(s.PIN),
			fmt.Sprint(s.Sessions), mechanismWords(s), certificationWords(s.Certification, s.CertifiedUntil)})
	}
	return t.table(rows)
}

// certificationWords tells of a device's certification as the officer's configuration has it.
func certificationWords(certification, until string) string {
	switch {
	case certification == "":
		return "not known"
	case until == "":
		return certification
	}
	return certification + " until " + until
}

// mechanismWords says which of the mechanisms are missing.
func mechanismWords(s hsm.TokenState) string {
	var missing []string
	for _, m := range s.Mechanisms {
		if !m.Present {
			missing = append(missing, m.Name)
		}
	}
	switch {
	case len(missing) == 0:
		return "all"
	case len(missing) == len(s.Mechanisms):
		return "none"
	}
	return "without " + strings.Join(missing, ", ")
}

func (t *tool) tokenKeys(uris []string) error {
	if _, err := checkTokenURIs(uris); err != nil {
		return err
	}
	config, err := t.tokenConfig()
	if err != nil {
		return err
	}
	list := []hsm.KeyRecord{}
	err = withTokens(config, func(tokens *hsm.Tokens) error {
		if err := t.enterPINs(tokens, uris); err != nil {
			return err
		}
		for _, uri := range uris {
			records, err := tokens.Keys(uri)
			if err != nil {
				return err
			}
			list = append(list, records...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if t.json {
		return t.printJSON(list)
	}
	rows := [][]string{{"TOKEN", "KEY", "ID", "ALGORITHM", "PROTECTION", "USES", "CERTIFICATION", "SHA-256 OF PUBLIC KEY"}}
	for _, r := range list {
		rows = append(rows, []string{r.Token, r.Label, r.ID, r.Algorithm, protectionWords(r), strings.Join(r.Usages, ", "),
			certificationWords(r.Certification, r.CertifiedUntil), r.PublicKeySHA256})
	}
	if err := t.table(rows); err != nil {
		return err
	}
	for _, r := range list {
		if r.Fault != "" {
			t.note("zegel: %s cannot be used: %s", r.URI, r.Fault)
		}
	}
	return nil
}

// protectionWords sums the attributes up.
func protectionWords(r hsm.KeyRecord) string {
	if r.Software {
		return "none: software"
	}
	choose := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	return strings.Join([]string{
		choose(r.Sensitive, choose(r.AlwaysSensitive, "always sensitive", "sensitive"), "NOT SENSITIVE"),
		choose(r.ForBackup, "for backup", choose(r.Extractable, "EXTRACTABLE", choose(r.NeverExtractable, "never extractable", "not extractable"))),
		choose(r.GeneratedOnToken, "generated on token", choose(r.Restored, "restored", "not generated on token")) + choose(r.Trusted, ", trusted", ""),
	}, ", ")
}

// tokenBench are the flags of token bench.
type tokenBench struct {
	keys     []string
	duration time.Duration
	sessions int
	isolate  string
}

func (t *tool) tokenBench(ctx context.Context, uris []string, b tokenBench) error {
	parsed, err := checkTokenURIs(uris)
	if err != nil {
		return err
	}
	if b.duration <= 0 || b.sessions <= 0 {
		return badInput("measure tokens: --duration and --sessions must be above 0")
	}
	for _, name := range b.keys {
		if _, err := hsm.ParseKeyAlgorithm(name); err != nil {
			return badInput("--keys: %w", err)
		}
	}
	check := func(crypto.PublicKey) error { return nil }
	if slices.ContainsFunc(parsed, namesKey) {
		if check, err = t.notOfCA(); err != nil {
			return err
		}
	}
	results := []hsm.BenchResult{}
	isolations, err := b.isolations()
	if err != nil {
		return err
	}
	for _, isolation := range isolations {
		c := hsm.Config{ModuleEnv: environment(), Settings: hsm.Settings{Sessions: b.sessions, Isolation: isolation}}
		err := withTokens(c, func(tokens *hsm.Tokens) error {
			if err := t.enterPINs(tokens, uris); err != nil {
				return err
			}
			work, err := benchWork(tokens, parsed, uris, b)
			for i := 0; err == nil && i < len(work); i++ {
				work[i].Check = check
				t.note("measuring %s, isolation %s", benchName(work[i]), isolation)
				var r hsm.BenchResult
				if r, err = tokens.Bench(ctx, work[i]); err == nil {
					results = append(results, r)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if t.json {
		return t.printJSON(results)
	}
	rows := [][]string{{"KEY", "OF", "ISOLATION", "SESSIONS", "RAW/S", "SIGNER/S", "RATIO", "VERIFICATION"}}
	for _, r := range results {
		rows = append(rows, []string{r.Key, r.URI, r.Isolation, fmt.Sprint(r.Sessions), fmt.Sprintf("%.0f", r.RawPerSecond),
			fmt.Sprintf("%.0f", r.SignerPerSecond), fmt.Sprintf("%.2f", r.Ratio), fmt.Sprintf("%.0f µs", r.VerifyUS)})
	}
	return t.table(rows)
}

// isolations are those that are to be measured.
func (b tokenBench) isolations() ([]string, error) {
	switch b.isolate {
	case hsm.IsolationNone, hsm.IsolationProcess:
		return []string{b.isolate}, nil
	case "both":
		return []string{hsm.IsolationNone, hsm.IsolationProcess}, nil
	}
	return nil, badInput("--isolation %q: give none, process or both", b.isolate)
}

// environment is that of this process: an officer's modules find theirs there.
func environment() map[string]string {
	env := make(map[string]string)
	for _, variable := range os.Environ() {
		if name, value, found := strings.Cut(variable, "="); found && name != "" {
			env[name] = value
		}
	}
	return env
}

// namesKey tells the URI of a key from that of a token.
func namesKey(u hsm.URI) bool { return u.Software || u.Object != "" || len(u.ID) > 0 }

func benchName(c hsm.BenchConfig) string {
	if members, err := hsm.ParseURIs(c.URI); err == nil && c.URI != "" {
		if u := members[0]; !namesKey(u) {
			return fmt.Sprintf("a throw-away %s key on %s", c.Algorithm, u.Name())
		}
		var names []string
		for _, u := range members {
			names = append(names, u.Name())
		}
		return strings.Join(names, " ") + ", which signs random digests"
	}
	return fmt.Sprintf("a throw-away %s key in software", c.Algorithm)
}

// benchWork is what to measure: keys as they were named, throw-away keys of each algorithm that their token knows.
func benchWork(tokens *hsm.Tokens, parsed []hsm.URI, uris []string, b tokenBench) ([]hsm.BenchConfig, error) {
	var work []hsm.BenchConfig
	if len(uris) == 0 {
		for _, name := range b.keys {
			work = append(work, hsm.BenchConfig{Algorithm: hsm.KeyAlgorithm(name), Duration: b.duration})
		}
	}
	for i, u := range parsed {
		if namesKey(u) {
			work = append(work, hsm.BenchConfig{URI: uris[i], Duration: b.duration})
			continue
		}
		info, err := tokens.Token(uris[i])
		if err != nil {
			return nil, err
		}
		known := false
		for _, name := range b.keys {
			if a := hsm.KeyAlgorithm(name); slices.Contains(info.Algorithms, a) {
				work = append(work, hsm.BenchConfig{URI: uris[i], Algorithm: a, Duration: b.duration})
				known = true
			}
		}
		if !known {
			return nil, fmt.Errorf("measure token %q: it makes no keys of %s: name others with --keys", info.Label, strings.Join(b.keys, ", "))
		}
	}
	return work, nil
}

// notOfCA refuses the keys of the CA certificates that the officer's configuration names. Without a configuration there is nothing to hold
// a key against, and a note says so.
func (t *tool) notOfCA() (func(crypto.PublicKey) error, error) {
	if !t.configured() {
		t.note("no configuration tells which keys are a CA's: be sure that the keys you name are not (EN 319 411-1 GEN-6.5.3-03)")
		return func(crypto.PublicKey) error { return nil }, nil
	}
	c, err := t.loadConfig()
	if err != nil {
		return nil, err
	}
	cas, err := c.caKeys()
	if err != nil {
		return nil, err
	}
	return func(public crypto.PublicKey) error {
		for _, ca := range cas {
			if key, ok := ca.public.(interface{ Equal(crypto.PublicKey) bool }); ok && key.Equal(public) {
				return policy.Violations{{Clause: "EN 319 411-1 GEN-6.5.3-03", Detail: fmt.Sprintf("the key is that of the CA %s, which signs certificates and "+
					"revocation status only: measure a throw-away key on its token, by a URI without object", ca.subject)}}
			}
		}
		return nil
	}, nil
}
