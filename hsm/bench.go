package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// BenchConfig says which key Bench measures, and for how long.
type BenchConfig struct {
	// URI of the key, which signs random digests; of a token, by a URI without object and id, for a throw-away key of Algorithm on it;
	// empty for a throw-away key of Algorithm in this process.
	URI       string
	Algorithm KeyAlgorithm // of the throw-away key
	// Duration is how long signatures are made, half of it each way; 0: 6 s. Warming up and opening come on top.
	Duration time.Duration
	// Check may refuse a key before it signs anything. Optional; a throw-away key is not shown to it.
	Check func(crypto.PublicKey) error
}

// BenchResult is what one key reached with all sessions of its token at work.
type BenchResult struct {
	Key             string  `json:"key"`       // its algorithm, as KeyAlgorithm names it
	URI             string  `json:"uri"`       // as Key's name; of a throw-away key, of its token
	Isolation       string  `json:"isolation"` // IsolationNone or IsolationProcess
	Sessions        int     `json:"sessions"`  // how many signed at once
	RawPerSecond    float64 `json:"raw_per_second"`
	SignerPerSecond float64 `json:"signer_per_second"`
	Ratio           float64 `json:"ratio"`     // signer by raw
	VerifyUS        float64 `json:"verify_us"` // one verification by Go, on one core, in microseconds
}

const (
	// benchDuration is how long signatures are made where nothing is said.
	benchDuration = 6 * time.Second
	// benchRounds is how often raw and signer take turns, so that what changes meanwhile (another load, the clock rate) meets both.
	benchRounds = 12
	// benchVerify is how long verifications are measured.
	benchVerify = 100 * time.Millisecond
)

// rival is one of the two ways to sign that are compared. work calls turn until it says that the time is over.
type rival struct {
	work       func(more func() bool) error
	signatures atomic.Int64
	took       time.Duration
}

// bench is a measurement on its way.
type bench struct {
	key         *Key
	sessions    int
	isolation   string
	options     crypto.SignerOpts
	places      []*tokenKey // whose sessions raw workers take, in turn; none for a key in this process
	worker      atomic.Int64
	raw, signer rival
}

// Bench measures how many signatures a second a key makes, by two ways that take turns: raw is C_SignInit and C_Sign, each
// once, in a bare loop, one goroutine to a session of the token's pool (of a software key, Go's own signature), signer is Key.Sign from as many
// goroutines. The first signature is verified; the verification of the others is no part of either figure. The pool is the
// token's: what else the process signs meanwhile falsifies the figures. A context that ends stops it within one signature a session.
func (t *Tokens) Bench(ctx context.Context, c BenchConfig) (BenchResult, error) {
	result, err := t.bench(ctx, c)
	if err != nil {
		what := c.URI
		if uris, parse := ParseURIs(c.URI); parse == nil {
			what = groupName(uris)
		}
		if what == "" {
			what = string(c.Algorithm)
		}
		return BenchResult{}, fmt.Errorf("measure %s: %w", presentable(what), err)
	}
	return result, nil
}

func (t *Tokens) bench(ctx context.Context, c BenchConfig) (BenchResult, error) {
	key, drop, err := t.benchKey(c)
	if err != nil {
		return BenchResult{}, err
	}
	b := &bench{key: key, sessions: t.config.Sessions, options: benchHash(key.public), isolation: IsolationNone}
	switch k := key.private.(type) {
	case *tokenKey:
		b.sessions, b.places = k.token.facts().Sessions, []*tokenKey{k}
	case *group:
		if b.places, err = k.places(); err != nil {
			return BenchResult{}, errors.Join(err, drop())
		}
		b.sessions = len(b.places)
	}
	if len(b.places) > 0 && t.config.Isolation == IsolationProcess {
		b.isolation = IsolationProcess
	}
	result, err := b.run(ctx, c.Duration)
	return result, errors.Join(err, drop())
}

// benchKey opens or makes the key. drop destroys it where it was made here.
func (t *Tokens) benchKey(c BenchConfig) (key *Key, drop func() error, err error) {
	keep := func() error { return nil }
	if c.URI == "" {
		signer, err := newSoftSigner(c.Algorithm)
		if err != nil {
			return nil, nil, fmt.Errorf("make %s key: %w", c.Algorithm, err)
		}
		return t.newSoftKey("softtoken:", signer), keep, nil
	}
	uris, err := ParseURIs(c.URI)
	if err != nil {
		return nil, nil, err
	}
	u := uris[0]
	if len(uris) > 1 || u.Software || u.Object != "" || len(u.ID) > 0 {
		key, err := t.Key(c.URI)
		if err == nil && c.Check != nil {
			err = c.Check(key.public)
		}
		return key, keep, err
	}
	if err := t.gate.enter(); err != nil {
		return nil, nil, err
	}
	defer t.gate.leave()
	k, err := t.token(u)
	if err != nil {
		return nil, nil, err
	}
	key, made, err := k.throwAway(t, u, c.Algorithm)
	if err != nil {
		return nil, nil, err
	}
	return key, func() error {
		if err := t.gate.enter(); err != nil {
			return err
		}
		defer t.gate.leave()
		return k.administer(u, func(session pkcs11.SessionHandle) error {
			if _, err := key.private.(*tokenKey).private.in(k, session); err != nil {
				return nil // gone with its session, and the handles may be others' by now
			}
			return k.destroyObjects(session, made.private, made.public)
		})
	}, nil
}

// throwAway makes a pair of session objects: they are in no storage and gone with the session, or with the process, that made them.
func (t *token) throwAway(owner *Tokens, u URI, algorithm KeyAlgorithm) (key *Key, made pair, err error) {
	mechanism, specific, err := t.keyPairMechanism(algorithm)
	if err != nil {
		return nil, pair{}, err
	}
	id := make([]byte, 16)
	rand.Read(id) // never fails: it ends the process instead
	public, private := pairTemplates("zegel token bench", id)
	for _, template := range [][]*pkcs11.Attribute{public, private} {
		for i, a := range template {
			if a.Type == pkcs11.CKA_TOKEN {
				template[i] = pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)
			}
		}
	}
	err = t.administer(u, func(session pkcs11.SessionHandle) (err error) {
		made.public, made.private, err = t.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{mechanism}, append(public, specific...), private)
		if err != nil {
			return fmt.Errorf("make throw-away %s key on token %q: C_GenerateKeyPair: %w", algorithm, t.label, err)
		}
		half, err := t.publicKey(session, made.public)
		if err != nil {
			return t.discard(session, err, made.private, made.public)
		}
		gone := func(pkcs11.SessionHandle) (object, error) {
			return 0, fmt.Errorf("a throw-away key is gone with its session: %w", ErrNotFound)
		}
		key = &Key{name: u.Name(), public: half, private: &tokenKey{token: t, uri: u, private: t.newHandle(made.private, gone), public: half}, gate: &owner.gate}
		return nil
	})
	return key, made, err
}

// benchHash is the hash that the daemons use with the key; an Ed25519 key signs the message.
func benchHash(public crypto.PublicKey) crypto.Hash {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return 0
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P384():
			return crypto.SHA384
		case elliptic.P521():
			return crypto.SHA512
		}
	}
	return crypto.SHA256
}

// digest is a random one: nobody has a message for it. An Ed25519 key signs it as the message.
func (b *bench) digest() []byte {
	size := 32
	if hash := b.options.HashFunc(); hash != 0 {
		size = hash.Size()
	}
	d := make([]byte, size)
	rand.Read(d) // never fails: it ends the process instead
	return d
}

func (b *bench) run(ctx context.Context, duration time.Duration) (BenchResult, error) {
	digest := b.digest()
	signature, err := b.key.Sign(nil, digest, b.options)
	if err != nil {
		return BenchResult{}, err
	}
	b.raw.work, b.signer.work = b.rawWork, b.signerWork
	if duration <= 0 {
		duration = benchDuration
	}
	if err := b.turns(ctx, duration); err != nil {
		return BenchResult{}, err
	}
	name, _ := algorithmOf(b.key.public)
	r := BenchResult{Key: name, URI: b.key.name, Isolation: b.isolation, Sessions: b.sessions,
		RawPerSecond: b.raw.rate(), SignerPerSecond: b.signer.rate()}
	if r.RawPerSecond > 0 {
		r.Ratio = r.SignerPerSecond / r.RawPerSecond
	}
	s, err := checkSigning(b.key.public, digest, b.options)
	r.VerifyUS = microsecondsEach(benchVerify, func() { s.verifies(b.key.public, signature) })
	return r, err
}

// turns lets both rivals work in turns, and each begin as often as the other. The first turn of each opens sessions and counts for nothing.
func (b *bench) turns(ctx context.Context, duration time.Duration) error {
	for _, r := range []*rival{&b.raw, &b.signer} {
		if err := r.turn(ctx, b.sessions, duration/(4*benchRounds)); err != nil {
			return err
		}
		r.signatures.Store(0)
		r.took = 0
	}
	for round := range benchRounds {
		order := []*rival{&b.raw, &b.signer}
		if round%2 == 1 {
			order = []*rival{&b.signer, &b.raw}
		}
		for _, r := range order {
			if err := r.turn(ctx, b.sessions, duration/(2*benchRounds)); err != nil {
				return err
			}
		}
	}
	return nil
}

// turn runs as many workers as there are sessions for a while. What counts is the time until the last is done.
func (r *rival) turn(ctx context.Context, workers int, length time.Duration) error {
	begin := time.Now()
	errs := make(chan error, workers)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			done := int64(-1) // more is asked once before the first
			err := r.work(func() bool {
				done++
				return ctx.Err() == nil && (done == 0 || time.Since(begin) < length)
			})
			r.signatures.Add(max(done, 0))
			errs <- err
		})
	}
	all.Wait()
	r.took += time.Since(begin)
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *rival) rate() float64 { return float64(r.signatures.Load()) / r.took.Seconds() }

// signerWork signs as the daemons do, but for the verification.
func (b *bench) signerWork(more func() bool) error {
	digest := b.digest()
	for more() {
		if _, err := b.key.sign(digest, b.options, unverified); err != nil {
			return err
		}
	}
	return nil
}

// rawWork signs with nothing between the loop and the token, or Go's own signature.
func (b *bench) rawWork(more func() bool) error {
	checked, err := checkSigning(b.key.public, b.digest(), b.options)
	if err != nil {
		return err
	}
	if len(b.places) == 0 {
		soft, err := b.key.private.(*softKey).signer.get()
		if err != nil {
			return err
		}
		for more() {
			if _, err := soft.Sign(rand.Reader, checked.input, b.options); err != nil {
				return err
			}
		}
		return nil
	}
	k := b.places[int(b.worker.Add(1))%len(b.places)]
	mechanism, message, err := k.prepare(checked)
	if err != nil {
		return err
	}
	if err := b.key.gate.enter(); err != nil {
		return err
	}
	defer b.key.gate.leave()
	bare := k.token.module.bare // the call that has no limit, where it runs here
	_, err = k.token.try(k.uri, k.private, func(session pkcs11.SessionHandle, private object) error {
		for more() {
			if _, err := k.signOnce(bare, session, private, mechanism, message); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// microsecondsEach calls do again and again for a while, and at least once.
func microsecondsEach(while time.Duration, do func()) float64 {
	begin, n := time.Now(), 0
	for n == 0 || time.Since(begin) < while {
		do()
		n++
	}
	return float64(time.Since(begin).Microseconds()) / float64(n)
}
