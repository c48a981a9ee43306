package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/strictyaml"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// rootInstance is the first octet of the serials of the root: no two CAs of one provider share it.
const rootInstance = 127

// witness is the one role of a participant that is no trusted role of the provider.
const witness = "witness"

// clockLimit is the most the clock may be off: certificates have whole seconds.
const clockLimit = time.Second

// plan is a script that was found good, and all that can be decided before a key is touched.
type plan struct {
	script
	file   string   // base name of the script, for the key report
	digest [32]byte // SHA-256 of the script
	clock  clock.Clock
	tokens hsm.Config
	// officerKeys are the public keys of the officers' requests, by name; an officer without one is not in it.
	officerKeys map[string]crypto.PublicKey
	stage       string   // folder where everything is built: beside output, on the same file system
	warnings    []string // what will have to be done, though the script is good
	shareFiles  []string // of --share
	in          *os.File // where people enter PINs and shares
}

// makePlan reads and judges the script at path, rehearses every certificate, and looks that nothing is in the way.
func makePlan(path string) (*plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, daemon.Usagef("read script: %w", err)
	}
	p := &plan{file: filepath.Base(path), digest: sha256.Sum256(text), in: os.Stdin}
	if err := strictyaml.Decode(path, text, &p.script); err != nil {
		return nil, daemon.Usagef("%w", err)
	}
	p.withDefaults()
	if err := p.validate(); err != nil {
		return nil, daemon.Usagef("%w", daemon.Locate(path, text, err))
	}
	if err := p.readRequests(); err != nil {
		return nil, daemon.Usagef("%w", daemon.Locate(path, text, err))
	}
	if p.clock, err = clock.Parse(p.Clock, clockLimit); err != nil {
		return nil, daemon.Usagef("%s: %w", path, err)
	}
	if err := p.rehearse(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p.tokens = hsm.Config{ModuleEnv: p.ModuleEnv, Settings: hsm.Settings(p.Tokens)}
	p.stage = p.Output + ".unfinished"
	p.warnings = p.algorithmWarnings(time.Now())
	return p, p.nothingInTheWay()
}

// nothingInTheWay refuses an output folder that holds something, and what an earlier ceremony left.
func (p *plan) nothingInTheWay() error {
	switch entries, err := os.ReadDir(p.Output); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return daemon.Usagef("look at the output folder: %w", err)
	case len(entries) > 0:
		return daemon.Usagef("output folder %s is not empty: nothing is overwritten: name another, or a missing or empty one", p.Output)
	}
	if _, err := os.Lstat(p.stage); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(p.stage, failedFile)); err == nil {
		return daemon.Usagef("%s is there: an earlier ceremony stopped half-way: read its %s, then move it away", p.stage, failedFile)
	}
	return daemon.Usagef("%s is there without %s: another ceremony is at work, or one was cut off before it could say what it left: "+
		"look on the tokens for the keys of its script, then move the folder away", p.stage, failedFile)
}

// readRequests reads the officers' certificate signing requests. Only their keys count; the names are the script's.
func (p *plan) readRequests() error {
	p.officerKeys = make(map[string]crypto.PublicKey)
	seen := make(map[string]string)
	for i, o := range p.Officers {
		if o.CSR == "" {
			continue
		}
		key := fmt.Sprintf("officers[%d].csr", i)
		text, err := os.ReadFile(o.CSR)
		if err != nil {
			return daemon.Keyf(key, "%w", err)
		}
		spki, err := policy.ParseCSR(text)
		if err != nil {
			return daemon.Keyf(key, "%s: %w", o.CSR, err)
		}
		if before, twice := seen[string(spki)]; twice {
			return daemon.Keyf(key, "its key is that of %s already: each officer has a key of one's own", before)
		}
		seen[string(spki)] = o.Name
		if p.officerKeys[o.Name], err = x509.ParsePKIXPublicKey(spki); err != nil {
			return daemon.Keyf(key, "%s: %w", o.CSR, err)
		}
	}
	return nil
}

// validate judges everything that needs neither key nor policy. Every error is a daemon.KeyError.
func (s *script) validate() error {
	for _, judge := range []func() error{
		s.validateFrame, s.validateCeremony, s.validateProvider, s.validateKeys, s.validatePINs, s.validateValidity, s.validateURLs,
		s.validateAddresses, s.validateTimes, s.validateTSA, s.validateOfficers,
	} {
		if err := judge(); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) validateFrame() error {
	if !filepath.IsAbs(s.Output) || filepath.Clean(s.Output) != s.Output || s.Output == "/" {
		return daemon.Keyf("output", "%q is no absolute path in its shortest form, like /var/lib/zegel", s.Output)
	}
	if s.Instance < 1 || s.Instance >= rootInstance {
		return daemon.Keyf("instance", "%d is not between 1 and %d (%d is the root's)", s.Instance, rootInstance-1, rootInstance)
	}
	if err := s.Tokens.Validate("tokens"); err != nil {
		return err
	}
	return daemon.ValidateAssurance(s.Assurance, s.Clock, map[string]string{
		"keys.root.uri": s.Keys.Root.URI, "keys.issuing.uri": s.Keys.Issuing.URI, "keys.ocsp.uri": s.Keys.OCSP.URI,
		"keys.tsu.uri": s.Keys.TSU.URI, "keys.ca_wrap.uri": s.Keys.CAWrap.URI, "keys.tsa_wrap.uri": s.Keys.TSAWrap.URI,
	})
}

// validateCeremony wants, for a qualified provider, what the key report must hold: dual control (EN 319 411-1
// GEN-6.5.1-04, GEN-6.4.3-02), a security officer and an independent witness (GEN-6.5.1-14), the procedure (GEN-6.5.1-11).
func (s *script) validateCeremony() error {
	officer, independent := false, false
	for i, p := range s.Ceremony.Participants {
		key := fmt.Sprintf("ceremony.participants[%d]", i)
		if p.Name == "" {
			return daemon.Keyf(key, "the participant has no name")
		}
		if p.Role != witness && !slices.Contains(desk.Roles(), p.Role) {
			return daemon.Keyf(key+".role", "%q is neither witness nor a trusted role: %s", p.Role, strings.Join(desk.Roles(), ", "))
		}
		officer = officer || p.Role == desk.SecurityOfficer
		independent = independent || p.Role == witness && p.External
	}
	if s.Assurance != daemon.AssuranceQualified {
		return nil
	}
	switch {
	case s.Ceremony.Procedure == "":
		return daemon.Keyf("ceremony.procedure", "no document is named (EN 319 411-1 GEN-6.5.1-11)")
	case s.Ceremony.Location == "":
		return daemon.Keyf("ceremony.location", "no place is named (EN 319 411-1 GEN-6.5.1-02)")
	case !officer:
		return daemon.Keyf("ceremony.participants", "no security_officer takes part (EN 319 411-1 GEN-6.5.1-14)")
	case !independent:
		return daemon.Keyf("ceremony.participants", "no external witness takes part (EN 319 411-1 GEN-6.5.1-14)")
	}
	return nil
}

func (s *script) validateProvider() error {
	if err := daemon.FirstMissing(map[string]string{
		"provider.country": s.Provider.Country, "provider.organization": s.Provider.Organization,
		"provider.organization_identifier": s.Provider.OrganizationIdentifier, "provider.root": s.Provider.Root,
		"provider.issuing": s.Provider.Issuing, "provider.ocsp": s.Provider.OCSP, "provider.tsu": s.Provider.TSU,
	}); err != nil {
		return err
	}
	if s.Provider.Root == s.Provider.Issuing {
		return daemon.Keyf("provider.issuing", "root and issuing CA have one name, so that their certificates could not be told apart")
	}
	for key, origin := range map[string]string{"journals.ca": s.Journals.CA, "journals.tsa": s.Journals.TSA} {
		if origin == "" || strings.ContainsFunc(origin, unicode.IsSpace) || strings.Contains(origin, "+") || strings.Contains(origin, "://") {
			return daemon.Keyf(key, "%q is no origin: a URL without scheme, spaces and +, like zegel.example/ca (C2SP tlog-checkpoint)", origin)
		}
	}
	if s.Journals.CA == s.Journals.TSA {
		return daemon.Keyf("journals.tsa", "both journals have one origin: checkpoints of one could pass for the other's")
	}
	return nil
}

// pairs are the key pairs with their config keys.
func (k *keyURIs) pairs() map[string]keyURI {
	return map[string]keyURI{"keys.root": k.Root, "keys.issuing": k.Issuing, "keys.ocsp": k.OCSP, "keys.tsu": k.TSU, "keys.management": k.Management}
}

// validateKeys wants a URI of its own for every key: each key has one work (EN 319 411-1 GEN-6.5.3-03).
func (s *script) validateKeys() error {
	uris := map[string]string{
		"keys.ca_wrap": s.Keys.CAWrap.URI, "keys.ca_checkpoint": s.Keys.CACheckpoint.URI,
		"keys.tsa_wrap": s.Keys.TSAWrap.URI, "keys.tsa_checkpoint": s.Keys.TSACheckpoint.URI,
	}
	for key, pair := range s.Keys.pairs() {
		uris[key] = pair.URI
	}
	seen := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(uris)) {
		if err := hsm.CheckURI(uris[key], s.Assurance == daemon.AssuranceQualified); err != nil {
			return daemon.Keyf(key+".uri", "%w", err)
		}
		members, err := hsm.ParseURIs(uris[key])
		if err != nil {
			return daemon.Keyf(key+".uri", "%w", err)
		}
		if len(members) > 1 {
			return daemon.Keyf(key+".uri", "a key group: a ceremony makes each key on one token. Name one URI; the key gets to a second token by backup and restore, or by the vendor's cloning, "+
				"and the second URI then into the daemon's configuration")
		}
		u := members[0]
		if inside(u.Dir, s.Output) {
			return daemon.Keyf(key+".uri", "the key would lie in the output folder: give the keys a folder of their own")
		}
		if pair, is := s.Keys.pairs()[key]; is && pair.Backup && u.Software {
			return daemon.Keyf(key+".backup", "the key is a file: copy it; only keys on tokens are made for backup")
		}
		if u.Object == "" {
			return daemon.Keyf(key+".uri", "no object is named: object=NAME is what the key will be called")
		}
		name := u.Name() + "?" + u.Dir + "?" + u.ModulePath
		if before, twice := seen[name]; twice {
			return daemon.Keyf(key+".uri", "it is the key of %s already: each key has one work (EN 319 411-1 GEN-6.5.3-03)", before)
		}
		seen[name] = key
	}
	if s.Assurance == daemon.AssuranceQualified {
		if err := s.validateTokens(); err != nil {
			return err
		}
		if len(s.Tokens.Certifications) == 0 {
			return daemon.Keyf("tokens.certifications", "none: enter the certificates of the devices that will hold the keys, as the inventory is to show them (EN 319 411-1 GEN-6.5.1-13A, GEN-6.5.2-02)")
		}
	}
	return s.validateAlgorithms()
}

// validateAlgorithms judges what each key pair is to be and to sign with.
func (s *script) validateAlgorithms() error {
	pairs := s.Keys.pairs()
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		pair := pairs[key]
		// First the table: it says why of algorithms that no token is asked for.
		if _, err := algorithms.InForce().Check(s.judgedKey(key, pair), s.uses()[key], time.Now()); err != nil {
			return daemon.Keyf(key+".algorithm", "%w", err)
		}
		a, err := hsm.ParseKeyAlgorithm(pair.Algorithm)
		if err != nil {
			return daemon.Keyf(key+".algorithm", "%w", err)
		}
		if key == "keys.management" && pair.SignatureScheme != "" {
			return daemon.Keyf(key+".signature_scheme", "the management key has no choice: TLS and officers' certificates are for programs of every age: leave it out")
		}
		var kind crypto.PublicKey = new(ecdsa.PublicKey)
		if a == hsm.RSA3072 || a == hsm.RSA4096 {
			kind = new(rsa.PublicKey)
		}
		if err := pair.SignatureScheme.Check(kind); err != nil {
			return daemon.Keyf(key+".signature_scheme", "%w", err)
		}
	}
	return nil
}

// uses are the works of the key pairs, by config key.
func (s *script) uses() map[string]algorithms.Use {
	return map[string]algorithms.Use{"keys.root": algorithms.CA, "keys.issuing": algorithms.CA, "keys.ocsp": algorithms.OCSP, "keys.tsu": algorithms.TSU,
		"keys.management": algorithms.Management}
}

// judgedKey is a key pair as the table knows it. A scheme that the pair cannot have is validateAlgorithms' to refuse.
func (s *script) judgedKey(key string, pair keyURI) algorithms.Key {
	scheme := pair.SignatureScheme
	if key == "keys.management" || scheme != der.PSS {
		scheme = ""
	}
	return algorithms.Named(pair.Algorithm, scheme)
}

// algorithmWarnings say at the time at what will have to be done because of the algorithms of the key pairs.
func (s *script) algorithmWarnings(at time.Time) (warnings []string) {
	pairs := s.Keys.pairs()
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		k := s.judgedKey(key, pairs[key])
		if warning, _ := algorithms.InForce().Check(k, s.uses()[key], at); warning != "" { // validateAlgorithms has seen the error
			warnings = append(warnings, key+": "+warning)
		}
		if legacy := algorithms.InForce().Legacy(k); legacy != "" && key != "keys.management" { // whose scheme is no matter of choice
			warnings = append(warnings, key+": "+legacy)
		}
	}
	return warnings
}

// tokenUse is a key and who logs in to its token.
type tokenUse struct{ key, uri, by string }

// tokenUses are all keys. A login opens every private object of its token (PKCS#11 has no finer right), so whoever logs
// in for one key of a token could sign with all of them.
func (s *script) tokenUses() []tokenUse {
	return []tokenUse{
		{"keys.root", s.Keys.Root.URI, "root"}, {"keys.issuing", s.Keys.Issuing.URI, "issuing"},
		{"keys.ca_wrap", s.Keys.CAWrap.URI, "issuing"}, {"keys.ca_checkpoint", s.Keys.CACheckpoint.URI, "issuing"},
		{"keys.ocsp", s.Keys.OCSP.URI, "ocsp"},
		{"keys.tsu", s.Keys.TSU.URI, "tsu"}, {"keys.tsa_wrap", s.Keys.TSAWrap.URI, "tsu"}, {"keys.tsa_checkpoint", s.Keys.TSACheckpoint.URI, "tsu"},
		{"keys.management", s.Keys.Management.URI, "management"},
	}
}

// separateTokens wants the root's key alone on its token, and on the issuing CA's only what zegel-ca itself uses: a
// responder that is broken into must not be able to sign certificates. name tells what names the token of a key: "" for
// one that does not count.
func (s *script) separateTokens(name func(tokenUse) (string, error)) error {
	cas := make(map[string]tokenUse)    // by token
	for _, use := range s.tokenUses() { // root and issuing come first
		token, err := name(use)
		if err != nil {
			return err
		}
		if token == "" {
			continue
		}
		if ca, taken := cas[token]; taken && ca.by != use.by {
			return daemon.Keyf(use.key+".uri", "the key is on the token of %s: a login opens all keys of a token, so root and issuing CA each want one of their own (EN 319 411-1 GEN-6.5.2-04)", ca.key)
		}
		if use.key == "keys.root" || use.key == "keys.issuing" {
			cas[token] = use
		}
	}
	return nil
}

// validateTokens compares tokens by how the script names them; checkTokens asks the tokens themselves.
func (s *script) validateTokens() error {
	return s.separateTokens(func(use tokenUse) (string, error) {
		u, err := hsm.ParseURI(use.uri)
		if err != nil || u.Software {
			return "", err
		}
		slot := ""
		if u.SlotID != nil {
			slot = strconv.FormatUint(uint64(*u.SlotID), 10)
		}
		return fmt.Sprintf("%q %q %q %s", u.ModulePath, u.Token, u.Serial, slot), nil
	})
}

func inside(path, folder string) bool {
	return path != "" && (path == folder || strings.HasPrefix(filepath.Clean(path)+"/", folder+"/"))
}

func (s *script) validateValidity() error {
	for key, days := range map[string]int{
		"root": s.Validity.Root, "issuing": s.Validity.Issuing, "ocsp": s.Validity.OCSP, "tsu": s.Validity.TSU, "tls": s.Validity.TLS,
	} {
		if days < 0 {
			return daemon.Keyf("validity_days."+key, "%d days are no life", days)
		}
	}
	if s.Validity.TLS > 398 {
		return daemon.Keyf("validity_days.tls", "%d days: at most 398, so that lost keys of officers and servers do not serve for years", s.Validity.TLS)
	}
	return nil
}

func (s *script) validateURLs() error {
	for _, u := range []struct{ key, value, scheme string }{
		{"urls.root_certificate", s.URLs.RootCertificate, "http"}, {"urls.root_crl", s.URLs.RootCRL, "http"},
		{"urls.issuing_certificate", s.URLs.IssuingCertificate, "http"}, {"urls.crl", s.URLs.CRL, "http"},
		{"urls.ocsp", s.URLs.OCSP, "http"}, {"urls.tsa", s.URLs.TSA, "http"},
	} {
		if err := validateURL(u.key, u.value, u.scheme); err != nil {
			return err
		}
	}
	english := false
	for i, p := range s.URLs.PDS {
		if err := validateURL(fmt.Sprintf("urls.pds[%d].url", i), p.URL, "https"); err != nil {
			return err
		}
		if !languageCode.MatchString(p.Language) {
			return daemon.Keyf(fmt.Sprintf("urls.pds[%d].language", i), "%q is no ISO 639-1 code in lower case, like en", p.Language)
		}
		english = english || p.Language == "en"
	}
	if !english {
		return daemon.Keyf("urls.pds", "no disclosure statement in English (EN 319 412-5 QCS-4.3.4)")
	}
	return nil
}

var languageCode = regexp.MustCompile(`^[a-z]{2}$`)

func validateURL(key, value, scheme string) error {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != scheme || u.Host == "" || u.User != nil || u.Fragment != "" {
		return daemon.Keyf(key, "%q is no URL that begins with %s://", value, scheme)
	}
	return nil
}

// validateAddresses wants every address to be there, and none twice.
func (s *script) validateAddresses() error {
	l := s.Listen
	all := []struct{ key, address string }{
		{"listen.ca.admin", l.CA.Admin}, {"listen.ca.feed", l.CA.Feed}, {"listen.ca.metrics", l.CA.Metrics},
		{"listen.ocsp.http", l.OCSP.HTTP}, {"listen.ocsp.admin", l.OCSP.Admin}, {"listen.ocsp.metrics", l.OCSP.Metrics},
		{"listen.tsa.http", l.TSA.HTTP}, {"listen.tsa.https", l.TSA.HTTPS}, {"listen.tsa.admin", l.TSA.Admin}, {"listen.tsa.metrics", l.TSA.Metrics},
	}
	seen := make(map[string]string)
	for _, a := range all {
		_, port, err := net.SplitHostPort(a.address)
		if err != nil {
			return daemon.Keyf(a.key, "%q is no host:port, like 127.0.0.1:8101", a.address)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return daemon.Keyf(a.key, "port %q is not between 1 and 65535: daemons restart on the same one", port)
		}
		if before, twice := seen[a.address]; twice {
			return daemon.Keyf(a.key, "%s is the address of %s already", a.address, before)
		}
		seen[a.address] = a.key
	}
	for key, host := range map[string]string{"hosts.ca": s.Hosts.CA, "hosts.ocsp": s.Hosts.OCSP, "hosts.tsa": s.Hosts.TSA} {
		ip := net.ParseIP(host)
		if ip == nil && !hostName.MatchString(host) {
			return daemon.Keyf(key, "%q is neither a DNS name nor an IP address", host)
		}
		if ip != nil && ip.IsUnspecified() {
			return daemon.Keyf(key, "nobody can call %s: name the host under which others reach this daemon", host)
		}
	}
	return nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "" // validateAddresses says so
	}
	return host
}

func (s *script) validateTimes() error {
	const day = 24 * time.Hour
	switch {
	case s.CRL.Every <= 0 || s.CRL.Every > day:
		return daemon.Keyf("crl.every", "%v is not between 0 and 24h (EN 319 411-1 CSS-6.3.9-05)", s.CRL.Every)
	case s.CRL.Life <= s.CRL.Every || s.CRL.Life > 10*day:
		return daemon.Keyf("crl.life", "%v is not between every (%v) and 240h", s.CRL.Life, s.CRL.Every)
	case s.CRL.RootLife < day || s.CRL.RootLife > 365*day:
		return daemon.Keyf("crl.root_life", "%v is not between 24h and 8760h (EN 319 411-1 CSS-6.3.9-12)", s.CRL.RootLife)
	case s.StatusLife < time.Second || s.StatusLife > day: // what zegel-ocsp takes
		return daemon.Keyf("status_life", "%v is not between 1s and 24h (EN 319 411-1 REV-6.2.4-03A)", s.StatusLife)
	}
	return nil
}

func (s *script) validateTSA() error {
	if _, err := der.ParseOID(s.TSA.Policy); err != nil {
		return daemon.Keyf("tsa.policy", "%w", err)
	}
	for i, p := range s.TSA.Policies {
		if _, err := der.ParseOID(p); err != nil {
			return daemon.Keyf(fmt.Sprintf("tsa.policies[%d]", i), "%w", err)
		}
	}
	if s.TSA.Accuracy <= 0 || s.TSA.Accuracy > time.Second {
		return daemon.Keyf("tsa.accuracy", "%v is not between 0 and 1s (EN 319 421 TIS-7.7.2-03)", s.TSA.Accuracy)
	}
	return nil
}

// officerName keeps officers' names fit for file names.
var officerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (s *script) validateOfficers() error {
	if len(s.Officers) == 0 {
		return daemon.Keyf("officers", "nobody could use the CA: name at least one officer")
	}
	seen := make(map[string]bool)
	held := false
	for i, o := range s.Officers {
		key := fmt.Sprintf("officers[%d]", i)
		if !officerName.MatchString(o.Name) {
			return daemon.Keyf(key+".name", "%q: letters, digits, '.', '_' and '-' only, because files are named after it", o.Name)
		}
		if seen[strings.ToLower(o.Name)] {
			return daemon.Keyf(key+".name", "%q is there twice", o.Name)
		}
		seen[strings.ToLower(o.Name)] = true
		if o.CSR != "" && !filepath.IsAbs(o.CSR) {
			return daemon.Keyf(key+".csr", "%q is no absolute path", o.CSR)
		}
		if o.CSR == "" && s.Assurance == daemon.AssuranceQualified {
			return daemon.Keyf(key+".csr", "no request: under `assurance: qualified` officers make their keys themselves, in a device that is their second factor (EN 319 411-1 GEN-6.5.5-04)")
		}
		if at, err := desk.ValidateRoles(o.Roles, s.Assurance == daemon.AssuranceQualified); err != nil {
			return daemon.Keyf(key+"."+at, "%w", err)
		}
		held = held || slices.Contains(o.Roles, desk.SecurityOfficer)
	}
	if s.Assurance == daemon.AssuranceQualified && !held {
		return daemon.Keyf("officers", "none is a security_officer, who holds the ceremony (EN 319 411-1 GEN-6.5.1-14)")
	}
	return nil
}
