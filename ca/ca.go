// Package ca issues, revokes, publishes CRLs and recovers: it signs nothing the journal does not
// know of, and hands out nothing it does not hold.
//
// An [Issuer] is one CA key with its certificate. [Issuer.Issue] is the one order in which a
// certificate comes to be; [Issuer.Revoke] and [Issuer.IssueCRL] are the other two, and
// [Issuer.Recover] finishes what a crash left open, without ever signing for an old intent.
// [IssueRoot] makes the one certificate that no Issuer can make, on the same path.
// [OfficerHandler] puts roles and HTTP around all that.
//
// The package never sees a token: a key is a crypto.Signer. What may be signed is package policy's
// decision, what is remembered is the journal's.
package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zegel-tsp/zegel/internal/clock"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// Errors that callers branch on. What package journal and package policy return comes through
// wrapped: journal.ErrNotFound, journal.ErrConflict, journal.ErrFailed, policy.Violations.
var (
	// ErrClock means that the clock refuses, or is behind the journal: nothing may be signed.
	ErrClock = errors.New("the clock cannot be relied on")
	// ErrNotPublished means that a revocation is durable, and OCSP will show it, but no CRL in
	// publish/ shows it yet. Run goes on trying.
	ErrNotPublished = errors.New("revoked, but not yet on the published CRL")
	// ErrStopped means that Recover has not run, or that the journal has failed since.
	ErrStopped = errors.New("the CA refuses")
	// ErrOldJournal means that this CA has published what its journal does not hold.
	ErrOldJournal = errors.New("the journal is older than what was published")
)

// ownFault marks what token, journal or disk refused after an order was found good. Its text names no subject,
// so that it may stand in a log.
type ownFault struct{ error }

func (f ownFault) Unwrap() error { return f.error }

// Times of CRLs.
const (
	defaultCRLEvery = 12 * time.Hour
	defaultCRLLife  = 24 * time.Hour
	// maxCRLEvery is 411-1 CSS-6.3.9-05: CRLs for end users at least every 24 hours.
	maxCRLEvery = 24 * time.Hour
	// maxCRLLife is the greatest nextUpdate for subscriber certificates (BR 7.2.2).
	maxCRLLife = 10 * 24 * time.Hour
	// maxRootCRLLife is 411-1 CSS-6.3.9-12: the list of revoked CA certificates at least yearly.
	maxRootCRLLife = 365 * 24 * time.Hour
)

// Config says what one Issuer is. It is copied.
type Config struct {
	Journal *journal.Journal // open for writing; its Options.Now must tell Clock's time
	Clock   clock.Clock
	// Key is the CA's key: it signs certificates and CRLs and nothing else (411-1 GEN-6.5.3-03).
	Key crypto.Signer
	// SignatureScheme is what an RSA key signs with; "": der.PKCS1v15. It may change from one start to the next.
	SignatureScheme der.Scheme
	Certificate     *x509.Certificate // the CA's own
	Instance        byte              // first octet of every serial, 01 to 7F: unlike that of any other CA of the provider
	URLs            policy.URLs       // written into certificates

	PublishDir string // an existing folder that a web server serves
	CRLFile    string // name of the CRL in it: "issuing.crl"
	// CRLEvery is how often a CRL is issued without a revocation, at most 24 h (CSS-6.3.9-05), for a
	// self-signed CA at most a year; 0: 12 h, and half of CRLLife where that is shorter.
	CRLEvery time.Duration
	CRLLife  time.Duration // nextUpdate - thisUpdate, more than CRLEvery; 0: 24 h

	Registerer prometheus.Registerer // nil: metrics go nowhere
	Log        *slog.Logger          // nil: slog.Default()
}

// Issuer is one CA at work. Safe for concurrent use. Call Recover before anything else.
type Issuer struct {
	config  Config
	policy  policy.Issuer    // what policy needs to know of this CA
	id      journal.IssuerID // what the journal calls it
	metrics *metrics

	longest time.Duration // validity of the longest of the subscribers' profiles; 0 for a root

	recovered atomic.Bool   // Recover has closed what the last process left open
	crls      rounds        // who waits for which CRL
	kick      chan struct{} // tells Run that a CRL is owed; holds one

	crlMu sync.Mutex
	crl   published // the CRL in publish/, guarded by crlMu

	signing  atomic.Pointer[error] // why the last signature failed; nil after a good one
	unclosed unclosed              // intents whose abandonment failed

	// appendEntry is Journal.Append but for the tests that cut the order at each step.
	appendEntry func(context.Context, journal.Event) (journal.Entry, error)
}

// New checks c and makes an Issuer. It uses no key and writes nothing.
func New(c Config) (*Issuer, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("set up CA: %w", err)
	}
	i, err := newIssuer(c)
	if err != nil {
		return nil, fmt.Errorf("set up CA: %w", err)
	}
	bits, err := der.PublicKeyBits(c.Certificate)
	if err != nil {
		return nil, fmt.Errorf("set up CA: %w", err)
	}
	i.id = journal.NewIssuerID(c.Certificate.RawSubject, bits)
	i.policy.Name = c.Certificate.RawSubject
	i.policy.KeyID = c.Certificate.SubjectKeyId
	i.policy.NotBefore = c.Certificate.NotBefore
	i.policy.NotAfter = c.Certificate.NotAfter
	if !selfIssued(c.Certificate) {
		if i.longest, err = longestValidity(); err != nil {
			return nil, fmt.Errorf("set up CA: %w", err)
		}
	}
	for _, gauge := range i.endGauges() {
		if c.Registerer == nil {
			break
		}
		if err := c.Registerer.Register(gauge); err != nil {
			return nil, fmt.Errorf("set up CA: register metrics: %w", err)
		}
	}
	return i, nil
}

// newIssuer makes what a CA with a certificate and a root that has none yet have in common.
func newIssuer(c Config) (*Issuer, error) {
	if c.Journal == nil || c.Clock == nil || c.Key == nil {
		return nil, errors.New("journal, clock and key are all needed")
	}
	if c.Instance < 0x01 || c.Instance > 0x7f {
		return nil, fmt.Errorf("instance %d: want 1 to 127, the first octet of every serial", c.Instance)
	}
	algorithm, err := der.AlgorithmFor(c.Key.Public(), c.SignatureScheme)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	i := &Issuer{
		config:      c,
		policy:      policy.Issuer{PublicKey: c.Key.Public(), Algorithm: algorithm, URLs: c.URLs},
		crls:        newRounds(),
		kick:        make(chan struct{}, 1),
		unclosed:    newUnclosed(),
		appendEntry: c.Journal.Append,
	}
	i.metrics, err = newMetrics(c.Registerer, i.config.Clock, i.published)
	return i, err
}

// complete fills in defaults and refuses what New must refuse.
func (c *Config) complete() error {
	if c.Certificate == nil || c.Key == nil {
		return errors.New("certificate and key are both needed")
	}
	if err := CheckCertificate(c.Certificate); err != nil {
		return err
	}
	public, ok := c.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.Certificate.PublicKey) {
		return fmt.Errorf("the key is not that of certificate %q: give the key URI the ceremony reported for it", c.Certificate.Subject)
	}
	if err := CheckURLs(c.URLs); err != nil {
		return err
	}
	c.CRLEvery, c.CRLLife = defaultCRLTimes(c.CRLEvery, c.CRLLife)
	if err := CheckCRLTimes(c.Certificate, c.CRLEvery, c.CRLLife); err != nil {
		return err
	}
	if c.CRLFile == "" || filepath.Base(c.CRLFile) != c.CRLFile {
		return fmt.Errorf("CRL file %q: want a file name without a folder", c.CRLFile)
	}
	info, err := os.Stat(c.PublishDir)
	if err != nil {
		return fmt.Errorf("publish folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("publish folder %s is not a folder", c.PublishDir)
	}
	return nil
}

// defaultCRLTimes fills in what is zero.
func defaultCRLTimes(every, life time.Duration) (time.Duration, time.Duration) {
	if life == 0 {
		life = defaultCRLLife
	}
	if every == 0 {
		every = min(defaultCRLEvery, life/2)
	}
	return every, life
}

// CheckCRLTimes refuses times that EN 319 411-1 does not allow for the CRLs of cert: every 24 hours at
// least for end users (CSS-6.3.9-05), for a root, which lists CA certificates, yearly (CSS-6.3.9-12).
// Zero means the default, as in Config.
func CheckCRLTimes(cert *x509.Certificate, every, life time.Duration) error {
	every, life = defaultCRLTimes(every, life)
	if every <= 0 || life <= every {
		return fmt.Errorf("CRL every %v, life %v: want 0 < every < life", every, life)
	}
	if life%time.Second != 0 {
		return fmt.Errorf("CRL life %v: want whole seconds", life)
	}
	if selfIssued(cert) {
		if life > maxRootCRLLife {
			return fmt.Errorf("CRL life %v: at most %v (EN 319 411-1 CSS-6.3.9-12)", life, maxRootCRLLife)
		}
		return nil
	}
	if every > maxCRLEvery {
		return fmt.Errorf("CRL every %v: at most %v (EN 319 411-1 CSS-6.3.9-05)", every, maxCRLEvery)
	}
	if life > maxCRLLife {
		return fmt.Errorf("CRL life %v: at most %v (BR 7.2.2)", life, maxCRLLife)
	}
	return nil
}

// CheckCertificate refuses a certificate that cannot be a CA's: basicConstraints, keyUsage for both
// works of the key, and the key identifier that certificates and CRLs point to (RFC 5280 §4.2.1).
func CheckCertificate(cert *x509.Certificate) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return fmt.Errorf("certificate %q is not a CA's (RFC 5280 §4.2.1.9)", cert.Subject)
	case cert.KeyUsage&x509.KeyUsageCertSign == 0 || cert.KeyUsage&x509.KeyUsageCRLSign == 0:
		return fmt.Errorf("certificate %q: keyUsage wants keyCertSign and cRLSign (RFC 5280 §4.2.1.3)", cert.Subject)
	case len(cert.SubjectKeyId) == 0:
		return fmt.Errorf("certificate %q has no subjectKeyIdentifier (RFC 5280 §4.2.1.2)", cert.Subject)
	}
	return nil
}

// CheckURLs refuses what certificates must not carry: CRL, OCSP and CA certificate are fetched over
// plain http (EN 319 412-2 GEN-4.3.11-4, GEN-4.4.1), the disclosure statement over https
// (EN 319 412-5 QCS-4.3.4). Empty ones are left to the profiles, which know what they need.
func CheckURLs(u policy.URLs) error {
	for _, at := range []struct{ name, value, scheme string }{
		{"crl", u.CRL, "http"}, {"ocsp", u.OCSP, "http"}, {"ca_issuers", u.CAIssuers, "http"},
	} {
		if err := checkURL(at.name, at.value, at.scheme); err != nil {
			return err
		}
	}
	for _, p := range u.PDS {
		if err := checkURL("pds", p.URL, "https"); err != nil {
			return err
		}
	}
	return nil
}

func checkURL(name, value, scheme string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != scheme || u.Host == "" {
		return fmt.Errorf("URL %s %q: want %s://…", name, value, scheme)
	}
	return nil
}

func selfIssued(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// ID is what the journal calls this CA.
func (i *Issuer) ID() journal.IssuerID { return i.id }

// now tells the time for something that will be signed, cut to the second as certificates and CRLs
// have it. It refuses when the clock does, when the clock is behind the journal (time never runs
// backwards), and outside the CA certificate's validity.
func (i *Issuer) now() (time.Time, error) {
	// Read before the clock: an entry recorded in between must not make a good clock look late.
	last := i.config.Journal.LastTime()
	t, _, err := i.config.Clock.Now()
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrClock, err)
	}
	if t.Before(last) {
		return time.Time{}, fmt.Errorf("%w: it says %s but the journal already holds an entry of %s: set the clock",
			ErrClock, t.UTC().Format(time.RFC3339Nano), last.UTC().Format(time.RFC3339Nano))
	}
	t = t.UTC().Truncate(time.Second)
	switch cert := i.config.Certificate; {
	case cert == nil:
	case t.Before(cert.NotBefore):
		return time.Time{}, fmt.Errorf("sign at %s: the CA certificate is valid from %s only: check the clock",
			t.Format(time.RFC3339), cert.NotBefore.UTC().Format(time.RFC3339))
	case t.After(cert.NotAfter):
		return time.Time{}, fmt.Errorf("sign at %s: %w: it was valid to %s: issue from a new CA (docs/ca.md, The end of a CA)",
			t.Format(time.RFC3339), errEnded, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return t, nil
}

// roughly is the time to look at, not to sign: the clock's, or while it refuses the machine's.
func (i *Issuer) roughly() time.Time {
	if t, _, err := i.config.Clock.Now(); err == nil {
		return t
	}
	return time.Now()
}

// ready returns why nothing may be signed or recorded. A journal that has failed is in a state that
// nobody knows before it is opened again.
func (i *Issuer) ready() error {
	if err := i.config.Journal.Failed(); err != nil {
		return fmt.Errorf("%w until it is restarted: %w", ErrStopped, err)
	}
	if !i.recovered.Load() {
		return fmt.Errorf("%w: recovery has not run", ErrStopped)
	}
	return nil
}

// append records e. It does not stop when ctx does: an entry that is under way may be durable already,
// and nobody could tell.
func (i *Issuer) append(ctx context.Context, e journal.Event) (journal.Entry, error) {
	return i.appendEntry(context.WithoutCancel(ctx), e)
}

// Health tells whether the CA does its work: facts to show, and why it is not ready.
func (i *Issuer) Health() (facts map[string]any, err error) {
	crl := i.published()
	facts = map[string]any{
		"journal_entries":   i.config.Journal.Size(),
		"certificate_until": i.config.Certificate.NotAfter.UTC().Format(time.RFC3339),
	}
	if warning := i.endWarning(i.roughly()); warning != "" {
		facts["warnings"] = []string{warning}
	}
	if name, err := der.NameText(i.config.Certificate.RawSubject); err == nil { // x509 has parsed it
		facts["issuer"] = name
	}
	if crl.number > 0 {
		facts["crl_number"] = crl.number
		facts["crl_next_update"] = crl.nextUpdate.Format(time.RFC3339)
	}
	if err := i.ready(); err != nil {
		return facts, err
	}
	if cause := i.signing.Load(); cause != nil {
		facts["signing_error"] = (*cause).Error()
	}
	now, err := i.now()
	if err != nil {
		return facts, err
	}
	return facts, i.trouble(crl, now)
}

// trouble is the first thing that is wrong at now: what relying parties see comes first.
func (i *Issuer) trouble(crl published, now time.Time) error {
	if err := i.late(crl, now); err != nil {
		return err
	}
	if cause := i.signing.Load(); cause != nil {
		return fmt.Errorf("the last signature failed: %w", *cause)
	}
	if err := i.config.Journal.CheckpointTrouble(); err != nil {
		return err
	}
	return i.checkIntents(now)
}

// signTBS has the key sign tbs, which is step, and keeps for Health why it failed. A failure also has Run make a CRL: whether the
// key is back shows then, and not only when the next certificate is wanted.
func (i *Issuer) signTBS(step failpoint.Step, tbs []byte) ([]byte, error) {
	value, err := failpoint.Value(step, func() ([]byte, error) { return i.policy.Algorithm.Sign(i.config.Key, tbs) })
	if err != nil {
		i.signing.Store(&err)
		i.wake()
		return nil, err
	}
	i.signing.Store(nil)
	return value, nil
}
