// Package tsa binds a hash to a time only while it can vouch for its clock; verifies tokens.
//
// An Authority is one time-stamping unit with its policy, clock and journal. Respond takes a
// TimeStampReq (RFC 3161, RFC 5816) and returns a TimeStampResp, whatever comes in: trouble is a
// PKIFailureInfo. Tokens follow EN 319 422. Each is in the journal before it leaves.
//
// NewRequest, ParseResponse and Verify are the other side: what a client needs to ask for a token
// and to judge it, with a codec of our own in strict DER.
package tsa

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// BTSP is the best practices time-stamp policy of EN 319 421, 0.4.0.2023.1.1.
var BTSP = asn1.ObjectIdentifier{0, 4, 0, 2023, 1, 1}

// Config is what an Authority is made of. New copies it.
type Config struct {
	Journal *journal.Journal // of this authority alone, open for writing
	Clock   Clock
	// ClockUnverified says that nobody stands behind Clock. Everything that shows the state then says so.
	ClockUnverified bool
	Unit            Unit
	// Profile is what the unit's certificate has to satisfy, the built-in tsu as a rule; nil: only what New checks itself.
	Profile  *policy.Profile
	Policy   asn1.ObjectIdentifier   // in tokens whose request names none
	Policies []asn1.ObjectIdentifier // others that a request may name
	Accuracy time.Duration           // of genTime, in every token: above 0, at most 1 s, whole microseconds (TIS-7.7.2-03)
	// Qualified puts esi4-qtstStatement-1 in every token (EN 319 422 §9.1). A unit makes qualified tokens
	// or others, never both (TIS-8.2-01).
	Qualified  bool
	Registerer prometheus.Registerer // nil: no metrics
	Log        *slog.Logger
}

// recorder is what an Authority asks of its journal.
type recorder interface {
	Append(context.Context, journal.Event) (journal.Entry, error)
	LastTime() time.Time
	Size() uint64
}

// Authority answers time-stamp requests. Safe for concurrent use.
type Authority struct {
	unit          *signer
	watch         *watch
	journal       recorder
	log           *slog.Logger
	metrics       *metrics
	defaultPolicy []byte          // DER
	policies      map[string]bool // DER of every policy served
	accuracy      time.Duration
	precision     time.Duration // of genTime
	qualified     bool

	accuracyDER []byte
	extensions  []byte // TSTInfo.extensions
	unitOctet   byte   // first of every serial number
	facts       map[string]any
}

// New checks everything that can be checked before a request comes: key, certificate, chain, policy,
// accuracy. What it returns issues as soon as its clock vouches. It writes nothing.
func New(c Config) (*Authority, error) {
	if c.Journal == nil {
		return nil, errors.New("make time-stamping authority: no journal")
	}
	return newAuthority(c, c.Journal)
}

func newAuthority(c Config, j recorder) (*Authority, error) {
	if c.Clock == nil || c.Log == nil {
		return nil, errors.New("make time-stamping authority: no clock or no log")
	}
	if c.Accuracy <= 0 || c.Accuracy > time.Second || c.Accuracy%time.Microsecond != 0 {
		return nil, fmt.Errorf("make time-stamping authority: accuracy %v: give whole microseconds, at most 1s (EN 319 421 TIS-7.7.2-03)", c.Accuracy)
	}
	unit, err := newSigner(c.Unit)
	if err != nil {
		return nil, fmt.Errorf("make time-stamping authority: %w", err)
	}
	if c.Profile != nil {
		if err := c.Profile.Check(c.Unit.Certificate.Raw); err != nil {
			return nil, fmt.Errorf("make time-stamping authority: check TSU certificate against profile %s: %w", c.Profile.Name(), err)
		}
	}
	if t, _, err := c.Clock.Now(); err == nil && unit.usable(t) != nil {
		return nil, fmt.Errorf("make time-stamping authority: %w", unit.usable(t))
	}
	a := &Authority{
		unit: unit, journal: j, log: c.Log,
		accuracy: c.Accuracy, precision: Precision(c.Accuracy), qualified: c.Qualified,
		accuracyDER: marshalAccuracy(c.Accuracy),
		unitOctet:   1 + unit.hash[0]%0x7f, // 01 to 7F: the INTEGER is positive and minimal
	}
	if err := a.setPolicies(c.Policy, c.Policies); err != nil {
		return nil, fmt.Errorf("make time-stamping authority: %w", err)
	}
	if c.Qualified {
		a.extensions = qualifiedExtensions()
	}
	start := time.Now()
	a.watch = &watch{
		clock: c.Clock, journal: j, log: c.Log, unverified: c.ClockUnverified,
		limit: ClockLimit(c.Accuracy), jump: c.Accuracy,
		monotonic: func() time.Duration { return time.Since(start) },
	}
	a.metrics, err = newMetrics(c.Registerer, a)
	if err != nil {
		return nil, fmt.Errorf("make time-stamping authority: register metrics: %w", err)
	}
	a.describe(c)
	return a, nil
}

// setPolicies keeps the DER of each policy, so that a request's is compared as it stands.
func (a *Authority) setPolicies(first asn1.ObjectIdentifier, others []asn1.ObjectIdentifier) error {
	if len(first) == 0 {
		return errors.New("no policy: EN 319 421's own is 0.4.0.2023.1.1")
	}
	a.policies = make(map[string]bool)
	for _, id := range append([]asn1.ObjectIdentifier{first}, others...) {
		encoded, err := marshalOID(id)
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		a.policies[string(encoded)] = true
	}
	a.defaultPolicy, _ = marshalOID(first) // encoded above without error
	return nil
}

// Precision is the resolution of genTime for an accuracy: fine enough to support it (EN 319 422 §5.2.2),
// and no finer than it makes sense.
func Precision(accuracy time.Duration) time.Duration {
	if accuracy >= 100*time.Millisecond {
		return time.Millisecond
	}
	return time.Microsecond
}

// ClockLimit is the greatest error a clock may have where tokens promise accuracy: genTime is cut to
// Precision, which takes its part of the promise.
func ClockLimit(accuracy time.Duration) time.Duration { return accuracy - Precision(accuracy) }

// qualifiedExtensions encodes TSTInfo.extensions [1] with the statement of a qualified token, not critical (EN 319 422 §9.1).
//
//	QCStatements ::= SEQUENCE OF QCStatement
//	QCStatement ::= SEQUENCE { statementId, statementInfo OPTIONAL }
func qualifiedExtensions() []byte {
	statements := wrap(cbasn1.SEQUENCE, wrap(cbasn1.SEQUENCE, oidDER(oidQTSTStatement)))
	return wrap(tagExtensions1, wrap(cbasn1.SEQUENCE, oidDER(oidQCStatements), wrap(cbasn1.OCTET_STRING, statements)))
}

// maxSerials bounds how many serial numbers are tried for one token. A second is needed once in 2^96 tokens of one microsecond.
const maxSerials = 3

// Respond answers one TimeStampReq with one TimeStampResp. It is total: every failure is a
// PKIFailureInfo with a text for people (RFC 3161 §2.4.2). The order below is the package's promise.
func (a *Authority) Respond(ctx context.Context, request []byte) []byte {
	began := time.Now()
	req, err := parseTimeStampReq(request)
	if err != nil {
		return a.refuse(err)
	}
	policy, err := a.policyFor(req)
	if err != nil {
		return a.refuse(err)
	}
	for range maxSerials {
		// Somebody vouches for the clock, it did not jump, and it is not behind the journal.
		genTime, err := a.watch.now(ctx)
		if err != nil {
			return a.refuse(err)
		}
		if err := a.unit.usable(genTime); err != nil {
			return a.refuse(err)
		}
		serial := a.newSerial(genTime)
		info := a.tstInfo(req, policy, serial, genTime)
		token, err := a.unit.token(info, req.certReq)
		if err != nil {
			return a.refuse(err)
		}
		// Nobody outside has seen the token yet, and nobody does unless it is durable.
		_, err = a.journal.Append(ctx, journal.TimestampIssued{
			Unit: a.unit.hash, Serial: serial, GenTime: genTime.Truncate(a.precision), TokenHash: sha256.Sum256(token), TSTInfo: info,
		})
		if errors.Is(err, journal.ErrConflict) {
			continue // the serial is taken
		}
		if err != nil {
			return a.refuse(fmt.Errorf("record the token: %w", err))
		}
		a.metrics.granted(began)
		return marshalGranted(token)
	}
	return a.refuse(fmt.Errorf("record the token: %d serial numbers were refused", maxSerials))
}

// refuse makes the answer without a token. What is not the request's fault is logged.
func (a *Authority) refuse(err error) []byte {
	info, text := failInfo(err)
	if errors.Is(err, context.Canceled) {
		return marshalRejection(info, text) // the client went away: nobody reads it, and nothing is wrong
	}
	if info == SystemFailure {
		a.log.Error("no token: systemFailure", "error", err)
	}
	a.metrics.refused(info)
	return marshalRejection(info, text)
}

// policyFor is the policy of the token: the one asked for, or the default (RFC 3161 §2.4.1).
func (a *Authority) policyFor(req timeStampReq) ([]byte, error) {
	if req.reqPolicy == nil {
		return a.defaultPolicy, nil
	}
	if !a.policies[string(req.reqPolicy)] {
		return nil, fmt.Errorf("%w: policy %s is not served", errUnacceptedPolicy, oidString(req.reqPolicy[2:]))
	}
	return req.reqPolicy, nil
}

// newSerial makes a serial number of 20 octets (RFC 3161 §2.4.2: up to 160 bits): one of the unit, seven the
// genTime in microseconds, twelve random. Increasing numbers keep the journal's index small in memory, and
// say nothing that genTime does not.
func (a *Authority) newSerial(genTime time.Time) journal.Serial {
	var b [20]byte
	binary.BigEndian.PutUint64(b[:8], uint64(genTime.UnixMicro())) // top octet is 0 until the year 4253
	b[0] = a.unitOctet
	rand.Read(b[8:]) // never fails (crypto/rand)
	return journal.Serial(b[:])
}

// tstInfo encodes the statement that gets signed.
func (a *Authority) tstInfo(req timeStampReq, policy []byte, serial journal.Serial, genTime time.Time) []byte {
	return tstInfo{
		policy:         policy,
		messageImprint: req.messageImprint,
		serialNumber:   serial.Bytes(),
		genTime:        genTime,
		precision:      a.precision,
		accuracy:       a.accuracyDER,
		nonce:          req.nonce,
		tsa:            a.unit.tsa,
		extensions:     a.extensions,
	}.marshal()
}

// Run looks at the clock every second until ctx ends, so that its loss and return are noticed and
// recorded when they happen, not when the next request comes (EN 319 421 TIS-7.7.2-05, OVR-7.12-06).
func (a *Authority) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		a.watch.now(ctx) // it logs and records what it finds
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
