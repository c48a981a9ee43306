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
	"golang.org/x/time/rate"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zegel-tsp/zegel/internal/failpoint"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// BTSP is the best practices time-stamp policy of EN 319 421, 0.4.0.2023.1.1.
var BTSP = asn1.ObjectIdentifier{0, 4, 0, 2023, 1, 1}

// Config is what an Authority is made of. New copies it.
type Config struct {
	// Journal is this authority's alone, open for writing. Its Options.Now must not tell a time that Clock refuses: the authority
	// gives no token while its clock is behind its journal.
	Journal *journal.Journal
	Clock   Clock // New makes it Steady, unless it is
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
	Qualified bool
	// Slots is how many requests may be at the key at a time: as many as it can sign at once. More of them only make each
	// signature later than its genTime. 0: four a processor, at most 64.
	Slots      int
	Registerer prometheus.Registerer // nil: no metrics
	Log        *slog.Logger
}

// recorder is what an Authority asks of its journal.
type recorder interface {
	Append(context.Context, journal.Event) (journal.Entry, error)
	LastTime() time.Time
	Size() uint64
	Failed() error
}

// Authority answers time-stamp requests. Safe for concurrent use.
type Authority struct {
	unit          *signer
	slots         slots
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

	logSlow, logFailure rate.Sometimes // a line a second: requests come from anybody, and the metric counts them all
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
	unit, err := newSigner(c.Unit, c.Profile)
	if err != nil {
		return nil, fmt.Errorf("make time-stamping authority: %w", err)
	}
	if t, _, err := c.Clock.Now(); err == nil && unit.usable(t) != nil {
		return nil, fmt.Errorf("make time-stamping authority: %w", unit.usable(t))
	}
	clock, ok := c.Clock.(*steady)
	if !ok {
		clock = Steady(c.Clock, c.Accuracy).(*steady)
	}
	a := &Authority{
		unit: unit, slots: newSlots(c.Slots), journal: j, log: c.Log,
		watch:    &watch{clock: clock, journal: j, log: c.Log, unverified: c.ClockUnverified},
		accuracy: c.Accuracy, precision: Precision(c.Accuracy), qualified: c.Qualified,
		accuracyDER: marshalAccuracy(c.Accuracy),
		unitOctet:   1 + unit.hash[0]%0x7f, // 01 to 7F: the INTEGER is positive and minimal
	}
	a.logSlow.Interval, a.logFailure.Interval = time.Second, time.Second
	if err := a.setPolicies(c.Policy, c.Policies); err != nil {
		return nil, fmt.Errorf("make time-stamping authority: %w", err)
	}
	if c.Qualified {
		a.extensions = qualifiedExtensions()
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

// ClockLimit is the greatest error a clock may have where tokens promise accuracy: genTime is cut to Precision, and of
// what remains the clock may use up one half; the other is for the time that the signature takes.
func ClockLimit(accuracy time.Duration) time.Duration { return (accuracy - Precision(accuracy)) / 2 }

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
// PKIFailureInfo with a text for people (RFC 3161 §2.4.2). Its order, and that of sign, is the package's promise.
func (a *Authority) Respond(ctx context.Context, request []byte) []byte {
	began := time.Now()
	req, err := a.parse(request)
	if err != nil {
		return a.refuse(err)
	}
	for range maxSerials {
		token, issued, err := a.sign(ctx, req)
		if err != nil {
			return a.refuse(err)
		}
		// Nobody outside has seen the token yet, and nobody does unless it is durable.
		_, err = a.journal.Append(ctx, issued)
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

// sign makes the token, with what the journal is to hold of it. It has a place at the key before it reads the clock, so that
// genTime is when the token was made and not when it began to wait (RFC 3161 §2.4.2, TIS-7.7.1-06).
func (a *Authority) sign(ctx context.Context, req timeStampReq) (token []byte, issued journal.TimestampIssued, err error) {
	if err := a.slots.take(ctx); err != nil {
		return nil, issued, err
	}
	defer a.slots.free() // before the journal: tokens share its commits
	// Somebody vouches for the clock, it did not jump, and it is not behind the journal.
	begin, err := a.vouched(ctx)
	if err != nil {
		return nil, issued, err
	}
	serial := a.newSerial(begin.wall)
	info := a.tstInfo(req, serial, begin.wall)
	token, err = failpoint.Value(failpoint.SignTimestamp, func() ([]byte, error) { return a.unit.token(info, req.certReq) })
	if err != nil {
		return nil, issued, err
	}
	// All that still holds, and genTime with its accuracy is true of the signature too.
	end, err := a.vouched(ctx)
	if err != nil {
		return nil, issued, err
	}
	if took := end.after - begin.before; took+begin.accuracy+a.precision > a.accuracy {
		return nil, issued, fmt.Errorf("%w: it took %v, the clock may be off by %v, the token would promise %v", errSlow, took, begin.accuracy, a.accuracy)
	}
	return token, journal.TimestampIssued{
		Unit: a.unit.hash, Serial: serial, GenTime: begin.wall.Truncate(a.precision), TokenHash: sha256.Sum256(token), TSTInfo: info,
	}, nil
}

// vouched is a time for a token, at which the unit's key may sign.
func (a *Authority) vouched(ctx context.Context) (reading, error) {
	r, err := a.watch.now(ctx)
	if err == nil {
		err = a.unit.usable(r.wall)
	}
	return r, err
}

// refuse makes the answer without a token. What is not the request's fault is logged; that too many come is for the metrics.
func (a *Authority) refuse(err error) []byte {
	info, text := failInfo(err)
	switch {
	case errors.Is(err, context.Canceled):
		return marshalRejection(info, text) // the client went away: nobody reads it, and nothing is wrong
	case errors.Is(err, errBusy):
	case errors.Is(err, errSlow):
		a.logSlow.Do(func() { a.log.Warn("no token: timeNotAvailable", "error", err) })
	case info == SystemFailure:
		a.logFailure.Do(func() { a.log.Error("no token: systemFailure", "error", err) })
	}
	a.metrics.refused(info, err)
	return marshalRejection(info, text)
}

// parse reads the request. Its reqPolicy is then the policy of the token: the one asked for, or the default (RFC 3161 §2.4.1).
func (a *Authority) parse(request []byte) (timeStampReq, error) {
	req, err := parseTimeStampReq(request)
	if err != nil {
		return timeStampReq{}, err
	}
	if req.reqPolicy == nil {
		req.reqPolicy = a.defaultPolicy
	}
	if !a.policies[string(req.reqPolicy)] {
		return timeStampReq{}, fmt.Errorf("%w: policy %s is not served", errUnacceptedPolicy, oidString(req.reqPolicy[2:]))
	}
	return req, nil
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
func (a *Authority) tstInfo(req timeStampReq, serial journal.Serial, genTime time.Time) []byte {
	return tstInfo{
		policy:         req.reqPolicy,
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
