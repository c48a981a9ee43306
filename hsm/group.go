package hsm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// groupPatience is the longest that a call on a key group takes, whatever its members do.
	groupPatience = 10 * time.Second
	// silence is how long a member may finish nothing at all before a call that waits for it asks the next one, too. A member whose
	// signatures take long by themselves gets silenceFactor times as long as they take.
	silence       = 250 * time.Millisecond
	silenceFactor = 8
	// oneCall is how long one call of a member that finishes others may take.
	oneCall = 2 * time.Second
	// freshness is how long it is believed how fast a member is; then it is asked again, though another may be faster.
	freshness = 5 * time.Second
)

// errSilent is why a member is left out that does not answer.
var errSilent = errors.New("it does not answer")

// group is one key on several tokens. Each signature is asked of the healthy member that is likely to answer first, and of the next
// one when it fails or is silent. A member that failed is left out; when its pause is over it gets a signature that another member
// makes, too, so that nobody waits for it, and is back once it has made one.
type group struct {
	name    string
	public  publicKey
	members []*member
	owner   *Tokens
	turn    atomic.Uint32 // who is asked first among equals
	signed  atomic.Int64  // unix time in ns when it was last asked to
}

// member is the key on one of the tokens.
type member struct {
	uri     URI
	key     atomic.Pointer[Key] // nil until the token is there for the first time
	breaker breaker             // open while the member is left out
	probing atomic.Bool         // a call that nobody waits for is under way
	lost    atomic.Bool         // the token has another key; logged

	busy     atomic.Int64 // calls under way
	took     atomic.Int64 // ns that a signature took, as a moving average; 0: not known
	begun    atomic.Int64 // unix time in ns of the last call
	finished atomic.Int64 // and of the last answer, whatever it was
	back     atomic.Int64 // and of when it was taken back: what began before says nothing of how fast it is
}

// openGroup opens the members that can be opened, which is at least one, and makes sure that they are one key.
func (t *Tokens) openGroup(uris []URI) (*Key, error) {
	g := &group{name: groupName(uris), owner: t}
	type result struct {
		of  int
		key *Key
		err error
	}
	opened := make(chan result, len(uris))
	for i, u := range uris {
		g.members = append(g.members, &member{uri: u})
		t.gate.stay()
		go func() { // one that hangs is missing, and does not keep the others from work
			defer t.gate.leave()
			key, err := t.soleKey(u)
			opened <- result{i, key, err}
		}()
	}
	errs := make([]error, len(uris))
	for i := range errs {
		errs[i] = fmt.Errorf("%w within %v", errSilent, groupPatience)
	}
	deadline := time.After(groupPatience)
	for answered, late := 0, false; answered < len(uris) && !late; answered++ {
		select {
		case r := <-opened:
			g.members[r.of].key.Store(r.key)
			errs[r.of] = r.err
		case <-deadline: // whoever comes later is opened anew, and then held against the public key
			late = true
		}
	}
	return g.assemble(errs)
}

// assemble judges what was opened; errs says why members were not.
func (g *group) assemble(errs []error) (*Key, error) {
	var first *member
	for _, m := range g.members {
		k := m.key.Load()
		if k == nil {
			continue
		}
		if first == nil {
			first, g.public = m, k.public.(publicKey)
			continue
		}
		if !g.public.Equal(k.public) {
			return nil, fmt.Errorf("%s and %s hold different keys: a key group is one key on several tokens, so correct the URIs", first.where(), m.where())
		}
		if first.where() == m.where() {
			return nil, fmt.Errorf("%s is named twice: a key group is one key on several tokens", m.where())
		}
	}
	if first == nil {
		return nil, fmt.Errorf("none of the %d keys of the group can be opened: %w", len(g.members), errors.Join(errs...))
	}
	for i, m := range g.members {
		if errs[i] != nil {
			g.leaveOut(m, nil, errs[i])
		}
	}
	g.owner.watch.addGroup(g)
	return &Key{name: g.name, public: g.public, private: g, gate: &g.owner.gate}, nil
}

// groupName is what the group is called: its URIs without their queries.
func groupName(uris []URI) string {
	var names []string
	for _, u := range uris {
		names = append(names, u.Name())
	}
	return strings.Join(names, " ")
}

// where names the token of m; before it was there for the first time, its URI.
func (m *member) where() string {
	if k := m.key.Load(); k != nil {
		if on, ok := k.private.(*tokenKey); ok {
			return on.token.name()
		}
	}
	return m.uri.softName()
}

// softName names a soft token's key with its folder, of which there may be several with a key of that name.
func (u URI) softName() string {
	if u.Software {
		return fmt.Sprintf("%s in %s", u.Name(), u.Dir)
	}
	return u.Name()
}

// answer is what a member made of a signature.
type answer struct {
	from      *member
	signature []byte
	err       error
	early     bool // m is in trouble, and repairs it before it answers for good
}

func (g *group) sign(s signing) ([]byte, error) {
	g.signed.Store(time.Now().UnixNano())
	g.probe(s)
	answers := make(chan answer, 2*len(g.members)) // nobody who answers late waits
	asked := make(map[*member]bool, len(g.members))
	deadline := time.NewTimer(groupPatience)
	defer deadline.Stop()
	var errs []error
	for {
		m := g.next(asked)
		if m == nil && len(errs) == len(asked) {
			return nil, fmt.Errorf("none of the %d keys of the group can sign: %w", len(g.members), errors.Join(errs...))
		}
		if m != nil {
			if len(asked) > 0 {
				g.owner.watch.failedOver()
			}
			asked[m] = true
			g.ask(m, s, answers)
		}
		for waiting := true; waiting; {
			a, err := g.wait(m, answers, deadline.C)
			switch {
			case err != nil:
				return nil, errors.Join(append(errs, err)...)
			case a == nil || a.early && a.from == m: // m is silent, or repairs something
				waiting = false
			case a.early:
			case a.err == nil || errors.Is(a.err, ErrClosed) || errors.Is(a.err, ErrDeactivated):
				return a.signature, a.err
			default:
				errs = append(errs, a.err)
				waiting = a.from != m && m != nil // somebody asked before has failed, too; m still may answer
			}
		}
	}
}

// wait waits for an answer. It returns none when m, where it is not nil, should not be waited for alone any longer.
func (g *group) wait(m *member, answers <-chan answer, deadline <-chan time.Time) (*answer, error) {
	begin := time.Now()
	var silent <-chan time.Time
	if m != nil {
		timer := time.NewTimer(m.quiet())
		defer timer.Stop()
		silent = timer.C
	}
	for {
		select {
		case a := <-answers:
			return &a, nil
		case <-deadline:
			return nil, fmt.Errorf("%w: no token of the group has answered within %v", ErrUnavailable, groupPatience)
		case <-silent:
			if time.Since(time.Unix(0, m.finished.Load())) >= m.quiet() {
				g.leaveOut(m, m.breaker.now.Load(), fmt.Errorf("%w for %v", errSilent, m.quiet()))
				return nil, nil
			}
			if time.Since(begin) >= oneCall {
				return nil, nil
			}
			silent = time.After(m.quiet())
		}
	}
}

// quiet is how long m may finish nothing.
func (m *member) quiet() time.Duration {
	return max(silence, silenceFactor*time.Duration(m.took.Load()))
}

// ask has m sign, which answers has room for.
func (g *group) ask(m *member, s signing, answers chan<- answer) {
	g.owner.gate.stay()
	m.busy.Add(1)
	begin := time.Now()
	m.begun.Store(begin.UnixNano())
	admitted := m.breaker.now.Load()
	var once sync.Once
	s.trouble = func(err error) {
		once.Do(func() {
			g.leaveOut(m, admitted, err)
			answers <- answer{from: m, err: err, early: true}
		})
	}
	go func() {
		defer g.owner.gate.leave()
		signature, err := m.key.Load().private.sign(s)
		m.busy.Add(-1)
		m.finished.Store(time.Now().UnixNano())
		if err != nil {
			g.leaveOut(m, admitted, err)
		} else if !g.takeBack(m) && begin.UnixNano() > m.back.Load() {
			m.measure(time.Since(begin))
		}
		answers <- answer{from: m, signature: signature, err: err}
	}()
}

// measure lets the time of one signature count for an eighth.
func (m *member) measure(d time.Duration) {
	before := m.took.Load()
	if before == 0 {
		m.took.Store(int64(d))
		return
	}
	m.took.Store(before + (int64(d)-before)/8) // two at once lose one measurement
}

// next is who is asked next: of those not asked yet and not left out, who is likely to answer first; nobody is left out when all are.
func (g *group) next(asked map[*member]bool) *member {
	var best, out *member
	var shortest float64
	now := time.Now().UnixNano()
	first := int(g.turn.Add(1))
	for i := range g.members {
		m := g.members[(first+i)%len(g.members)]
		if asked[m] || m.key.Load() == nil {
			continue
		}
		if m.breaker.now.Load() != nil {
			out = m
			continue
		}
		wait := float64(m.busy.Load()+1) * float64(m.took.Load())
		if now-m.begun.Load() > int64(freshness) {
			wait = 0 // perhaps it is faster by now
		}
		if best == nil || wait < shortest {
			best, shortest = m, wait
		}
	}
	if best == nil {
		return out
	}
	return best
}

// probe has members that were left out for a while tried in the background: one call at a time each, and few in all.
func (g *group) probe(s signing) {
	for _, m := range g.members {
		o := m.breaker.now.Load()
		if o == nil || time.Now().Before(o.until) || m.lost.Load() || !m.probing.CompareAndSwap(false, true) {
			continue
		}
		admitted, err := m.breaker.admit()
		if err != nil || admitted == nil {
			m.probing.Store(false)
			continue
		}
		g.owner.gate.stay()
		go func() {
			defer g.owner.gate.leave()
			defer m.probing.Store(false)
			if err := g.try(m, s); err != nil {
				g.leaveOut(m, admitted, err)
				return
			}
			g.takeBack(m)
		}()
	}
}

// try has m sign what another member signs, too, and throws its signature away. A member that was missing is opened first.
func (g *group) try(m *member, s signing) error {
	if m.key.Load() == nil {
		if err := g.join(m); err != nil {
			return err
		}
	}
	_, err := m.key.Load().private.sign(s)
	m.finished.Store(time.Now().UnixNano())
	return err
}

// join opens a member that was missing. One that has another key never joins.
func (g *group) join(m *member) error {
	k, err := g.owner.soleKey(m.uri)
	if err != nil {
		return err
	}
	if !g.public.Equal(k.public) {
		m.lost.Store(true)
		g.owner.config.Log.Error("a token that was missing came with another key: it is not used", "group", g.name, "member", m.uri.Name(),
			"remedy", "restore the key there, or take the URI out of the group, and restart this program")
		return ErrLost
	}
	m.key.Store(k)
	return nil
}

// leaveOut has m asked no more, for a pause that grows to longestPause. admitted is what its breaker knew when the call began.
func (g *group) leaveOut(m *member, admitted *outage, cause error) {
	if errors.Is(cause, ErrClosed) || errors.Is(cause, ErrDeactivated) {
		return // no fault of m
	}
	if admitted == nil && m.breaker.now.Load() == nil {
		g.owner.config.Log.Warn("a member of a key group is left out", "group", g.name, "member", m.where(), "cause", cause.Error())
	}
	m.breaker.trip(admitted, cause)
}

// takeBack has m asked again if it was left out.
func (g *group) takeBack(m *member) (was bool) {
	if m.breaker.now.Load() == nil {
		return false
	}
	g.owner.config.Log.Info("a member of a key group signs again", "group", g.name, "member", m.where())
	m.back.Store(time.Now().UnixNano())
	m.took.Store(0)
	m.breaker.mend()
	return true
}

// describe is that of the first member that answers.
func (g *group) describe(info *KeyInfo) error {
	var errs []error
	for _, m := range g.members {
		line := *info
		err := m.describe(&line)
		if err == nil {
			*info = line
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", m.where(), err))
	}
	return errors.Join(errs...)
}

func (m *member) describe(info *KeyInfo) error {
	if k := m.key.Load(); k != nil {
		return k.private.describe(info)
	}
	return errors.New("it has not been there since the start")
}

func (g *group) need() {}

func (g *group) ready() error {
	_, _, err := g.health()
	return err
}

// soleKey opens the key on the one token that u names.
func (t *Tokens) soleKey(u URI) (*Key, error) {
	if u.Software {
		return t.softKey(u)
	}
	token, err := t.token(u)
	if err != nil {
		return nil, err
	}
	return token.key(t, u)
}

var _ privateKey = (*group)(nil)

// places are the members that sign, each as often as its token has sessions, in turn.
func (g *group) places() ([]*tokenKey, error) {
	var all []*tokenKey
	for round, more := 0, true; more; round++ {
		more = false
		for _, m := range g.members {
			k := m.key.Load()
			if k == nil {
				return nil, fmt.Errorf("%s is not there", m.where())
			}
			on, ok := k.private.(*tokenKey)
			if !ok {
				return nil, fmt.Errorf("%s is a key in this process: a group is measured whose members are all on tokens", m.where())
			}
			if round < on.token.facts().Sessions {
				all, more = append(all, on), true
			}
		}
	}
	return all, nil
}
