package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
)

// Report is what Verify found; its JSON is the contract's.
type Report struct {
	OK           bool    `json:"ok"`
	Entries      uint64  `json:"entries"`
	Certificates uint64  `json:"certificates"`
	Root         string  `json:"root"`
	Faults       []Fault `json:"faults"`
	// SignedEntries is how many entries the stored checkpoint covers. In a journal that lies still, those beyond are no fault by
	// themselves (the last seconds before a crash are there), but nothing proves that nobody changed or cut them.
	SignedEntries uint64 `json:"signed_entries"`
	// SealedBodies are there but were not opened, because no key was at hand: what they say was not verified.
	SealedBodies uint64 `json:"sealed_bodies"`
	// OpenKeyDuties are intended destructions of keys whose outcome nobody has recorded: no fault, but somebody has to look.
	OpenKeyDuties uint64 `json:"open_key_duties"`
	// Origin and JournalKey (a vkey) are what checkpoints were verified under: what was given, or else what the file itself says.
	Origin     string `json:"origin"`
	JournalKey string `json:"journal_key"`
}

// Kept is what an auditor has kept outside of a journal, to be held against it: whoever can write all of a journal's file can also
// put a key of his own into it, or an old copy in its place, and only what lies elsewhere shows that.
type Kept struct {
	JournalKey string // the log's vkey, as the ceremony wrote it; empty: the file's own is believed
	Checkpoint []byte // a checkpoint of the log: the journal must hold all that it covers; nil: none
}

// Fault names an entry and what is wrong with it. What belongs to no entry (a stray record, the stored checkpoint) is
// named with the number of entries it was held against.
type Fault struct {
	Entry uint64 `json:"entry"`
	Fault string `json:"fault"`
}

const (
	maxFaults   = 1000 // a report of more helps nobody
	verifyChunk = 4096 // entries in one read transaction
)

// Verify re-derives everything: leaf encodings, times, tree, stored hashes, stored checkpoint, state index against a replay,
// serial uniqueness, CRL numbers, bodies against their salted digests where the keys are at hand, every intent closed or open.
// A replica whose log has forked is at fault, last of all.
// What it finds is in the report, also where the file cannot be read; the error is ctx's, or ErrClosed.
// The journal goes on working meanwhile; entries appended during Verify are verified too.
func (j *Journal) Verify(ctx context.Context) (Report, error) { return j.VerifyAgainst(ctx, Kept{}) }

// VerifyAgainst is Verify, and holds the journal against what was kept elsewhere: another key, a checkpoint that the key did not
// sign and one that the journal does not extend are faults. A JournalKey that is no vkey is an error.
func (j *Journal) VerifyAgainst(ctx context.Context, kept Kept) (Report, error) {
	v := &verification{j: j, crls: make(map[IssuerID]crlProgress), now: j.Size(), verifier: j.verifier, kept: kept.Checkpoint}
	if kept.JournalKey != "" {
		var err error
		if v.verifier, err = parseVerifierKey(kept.JournalKey); err != nil {
			return Report{}, fmt.Errorf("verify journal: %w", err)
		}
	}
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return Report{}, fmt.Errorf("verify journal: %w", err)
		}
		err := j.view(func(tx *bolt.Tx) (err error) {
			done, err = v.chunk(ctx, tx)
			return err
		})
		if errors.Is(err, ErrClosed) || ctx.Err() != nil {
			return Report{}, fmt.Errorf("verify journal: %w", err)
		}
		if err != nil {
			v.fault(v.edge.size, "%v; verification cannot go on", err)
			done = true
		}
	}
	root := v.edge.root()
	return Report{OK: len(v.faults) == 0, Entries: v.edge.size, Certificates: v.count[kindCertificateIntended],
		Root: hex.EncodeToString(root[:]), Faults: append([]Fault{}, v.faults...),
		SignedEntries: v.signed, SealedBodies: v.sealed, OpenKeyDuties: v.destroying - v.closed, Origin: v.verifier.origin, JournalKey: v.verifier.String()}, nil
}

// verification is the replay. It holds no state per certificate: each entry must be the one that its serial's record names,
// and each record must say what the entries it names say; equal counts then make it one to one.
type verification struct {
	j         *Journal
	verifier  *verifier
	kept      []byte // a checkpoint from elsewhere, or nil
	t         *tables
	now       uint64 // entries when it began
	edge      edge   // rebuilt from the leaves
	last      time.Time
	hashFault uint64 // 1 + the last entry whose leaf does not fit its stored hash; 0: none
	count     [len(kindNames)]uint64
	crls      map[IssuerID]crlProgress
	signed    uint64 // entries under the stored checkpoint
	sealed    uint64 // bodies that are there but were not opened: no key at hand
	// destroying and closed count the intended destructions of keys, and those whose outcome is recorded.
	destroying, closed uint64
	faults             []Fault
}

type crlProgress struct{ reserved, issued, entries uint64 }

func (v *verification) fault(entry uint64, format string, args ...any) {
	if len(v.faults) < maxFaults {
		v.faults = append(v.faults, Fault{entry, fmt.Sprintf(format, args...)})
	} else if len(v.faults) == maxFaults {
		v.faults = append(v.faults, Fault{entry, "more faults follow"})
	}
}

// chunk verifies entries from where the last chunk ended. The chunk that reaches the end also checks what holds only there.
func (v *verification) chunk(ctx context.Context, tx *bolt.Tx) (done bool, err error) {
	if v.t, err = openTables(tx); err != nil {
		return false, err
	}
	start := v.edge.size
	cursor := v.t.leaves.Cursor()
	for k, b := cursor.Seek(indexKey(start)); k != nil; k, b = cursor.Next() {
		if v.edge.size >= start+verifyChunk && v.edge.size < v.now {
			return false, nil
		}
		if v.edge.size%verifyChunk == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if len(k) != 8 {
			return false, fmt.Errorf("bucket leaves holds the key %x", k)
		}
		for missing := binary.BigEndian.Uint64(k); v.edge.size < missing; {
			if err := v.missing(v.edge.size); err != nil {
				return false, err
			}
		}
		if at := binary.BigEndian.Uint64(k); at < v.edge.size {
			v.fault(v.edge.size, "its leaf lies under the key of entry %d", at)
		}
		v.entry(v.edge.size, b)
	}
	v.end()
	return true, nil
}

// missing goes on past an entry without a leaf as long as its hash is there.
func (v *verification) missing(index uint64) error {
	v.fault(index, "the entry is missing")
	stored := v.t.hashes.Get(indexKey(index))
	if len(stored) < tlog.HashSize {
		return fmt.Errorf("entry %d and its hash are missing", index)
	}
	v.edge.add(tlog.Hash(stored[:tlog.HashSize]))
	v.hashFault = index + 1
	return nil
}

func (v *verification) entry(index uint64, b []byte) {
	v.tree(index, b)
	l, err := decodeLeaf(b)
	if err != nil {
		v.fault(index, "the leaf cannot be read: %v", err)
		return
	}
	if l.time.Before(v.last) {
		v.fault(index, "its time %s is before the last entry's %s", l.time.Format(time.RFC3339Nano), v.last.Format(time.RFC3339Nano))
	}
	v.last = l.time
	v.count[l.event.kind()]++
	if err := v.state(index, l.event); err != nil {
		v.fault(index, "%s: %v", l.event.kind(), err)
	}
	if err := v.body(index, l); err != nil {
		v.fault(index, "%s: %v", l.event.kind(), err)
	}
}

// tree adds the leaf and compares the stored hashes. After a leaf that does not fit its hash, the hashes above it are taken as
// stored: one altered leaf is one fault, not one for every subtree around it.
func (v *verification) tree(index uint64, b []byte) {
	computed := v.edge.add(tlog.RecordHash(b))
	stored := v.t.hashes.Get(indexKey(index))
	if len(stored) != len(computed) {
		v.fault(index, "%d octets of hashes are stored, %d belong there", len(stored), len(computed))
		v.hashFault = index + 1
		return
	}
	for l := range len(computed) / tlog.HashSize {
		was := stored[l*tlog.HashSize:][:tlog.HashSize]
		if bytes.Equal(was, computed[l*tlog.HashSize:][:tlog.HashSize]) {
			continue
		}
		switch covered := v.hashFault > index+1-1<<l; {
		case l == 0:
			v.fault(index, "the leaf does not hash to its stored hash: one of the two was altered")
			v.hashFault = index + 1
		case !covered:
			v.fault(index, "the stored hash of the %d entries up to here was altered", 1<<l)
		case l == len(computed)/tlog.HashSize-1:
			v.edge.full[l] = tlog.Hash(was)
		}
	}
}

// state holds the entry against the index.
func (v *verification) state(index uint64, e Event) error {
	switch e := e.(type) {
	case CertificateIntended:
		return v.certificate(index, e)
	case CertificateIssued:
		c, err := v.record(e.Serial)
		if err == nil && (c.IssuedAt != index || c.Status != Issued && c.Status != Revoked) {
			err = fmt.Errorf("the index has certificate %s as %s, issued by another entry or none", e.Serial, c.Status)
		}
		return err
	case CertificateAbandoned:
		c, err := v.record(e.Serial)
		if err == nil && (c.ChangedAt != index || c.Status != Abandoned) {
			err = fmt.Errorf("the index has certificate %s as %s, abandoned by another entry or none", e.Serial, c.Status)
		}
		return err
	case CertificateRevoked:
		c, err := v.record(e.Serial)
		if err == nil && (c.ChangedAt != index || c.Status != Revoked) {
			err = fmt.Errorf("the index has certificate %s as %s, revoked by another entry or none", e.Serial, c.Status)
		}
		return err
	case CRLReserved:
		return v.crlReserved(index, e)
	case CRLIssued:
		return v.crlIssued(index, e)
	case TimestampIssued:
		if !bytes.Equal(v.t.timestamps.Get([]byte(e.Serial)), indexKey(index)) {
			return fmt.Errorf("the index has the time-stamp %s at another entry or nowhere", e.Serial)
		}
	case KeyDuty:
		return v.duty(index, e)
	}
	return nil
}

func (v *verification) record(serial Serial) (Certificate, error) {
	value := v.t.certificates.Get([]byte(serial))
	if value == nil {
		return Certificate{}, fmt.Errorf("the index has no certificate %s", serial)
	}
	return decodeCertificate(serial, value)
}

// certificate rebuilds a certificate's record from the entries that it names, and compares.
func (v *verification) certificate(index uint64, e CertificateIntended) error {
	c, err := v.record(e.Serial)
	if err != nil {
		return err
	}
	if c.IntendedAt != index {
		return fmt.Errorf("the index has certificate %s intended by entry %d: the serial was used twice, or the index altered", e.Serial, c.IntendedAt)
	}
	want, err := v.rebuild(index, e, c)
	if err != nil {
		return err
	}
	value, err := encodeCertificate(want)
	if err != nil {
		return err
	}
	if !bytes.Equal(value, v.t.certificates.Get([]byte(e.Serial))) {
		return fmt.Errorf("the index says other than the entries about certificate %s", e.Serial)
	}
	if (v.t.intents.Get([]byte(e.Serial)) != nil) != (c.Status == Intended) {
		return fmt.Errorf("the list of open intents is wrong about certificate %s", e.Serial)
	}
	listed := v.t.revoked.Get(revokedKey(e.Issuer, e.Serial))
	if c.Status == Revoked || c.Status == Abandoned {
		if !bytes.Equal(listed, value) {
			return fmt.Errorf("the list of revoked certificates is wrong about certificate %s", e.Serial)
		}
	} else if listed != nil {
		return fmt.Errorf("certificate %s is listed as revoked, no entry revokes it", e.Serial)
	}
	return nil
}

// rebuild derives what the record of e's serial must be from the entries whose indexes the stored record c names.
func (v *verification) rebuild(index uint64, e CertificateIntended, c Certificate) (Certificate, error) {
	want := Certificate{Issuer: e.Issuer, Serial: e.Serial, Status: Intended, Profile: e.Profile, NotBefore: e.NotBefore,
		NotAfter: e.NotAfter, IntendedAt: index}
	if c.Status == Issued || c.Status == Revoked {
		event, _, err := v.at(c.IssuedAt)
		issued, ok := event.(CertificateIssued)
		if err != nil || !ok || issued.Serial != e.Serial || issued.Issuer != e.Issuer || c.IssuedAt <= index {
			return want, fmt.Errorf("the index has certificate %s issued by entry %d, which does not", e.Serial, c.IssuedAt)
		}
		want.Status, want.IssuedAt, want.Hash = Issued, c.IssuedAt, issued.CertificateHash
	}
	if c.Status != Revoked && c.Status != Abandoned {
		return want, nil
	}
	event, at, err := v.at(c.ChangedAt)
	if err != nil || c.ChangedAt <= max(index, want.IssuedAt) {
		return want, fmt.Errorf("the index has certificate %s %s by entry %d, which does not", e.Serial, c.Status, c.ChangedAt)
	}
	want.ChangedAt, want.Since = c.ChangedAt, at
	switch change := event.(type) {
	case CertificateRevoked:
		if c.Status == Revoked && change.Serial == e.Serial && change.Issuer == e.Issuer {
			want.Status, want.Reason, want.InvalidFrom = Revoked, change.Reason, change.InvalidFrom
			return want, nil
		}
	case CertificateAbandoned:
		if c.Status == Abandoned && change.Serial == e.Serial && change.Issuer == e.Issuer {
			want.Status = Abandoned
			return want, nil
		}
	}
	return want, fmt.Errorf("the index has certificate %s %s by entry %d, which does not", e.Serial, c.Status, c.ChangedAt)
}

func (v *verification) at(index uint64) (Event, time.Time, error) {
	l, err := decodeLeaf(v.t.leaves.Get(indexKey(index)))
	return l.event, l.time, err
}

// duty checks that each outcome closes an open intent, and each intent no more than once.
func (v *verification) duty(index uint64, e KeyDuty) error {
	if e.Act == KeyDestroying {
		v.destroying++
		var value []byte
		if v.t.duties != nil {
			value = v.t.duties.Get(indexKey(index))
		}
		if len(value) != 8 {
			return fmt.Errorf("the index does not have this intent of a destruction")
		}
		if closed := binary.BigEndian.Uint64(value); closed != 0 {
			event, _, err := v.at(closed)
			if outcome, ok := event.(KeyDuty); err != nil || !ok || outcome.Intent != index {
				return fmt.Errorf("the index has this intent closed by entry %d, which does not", closed)
			}
		}
		return nil
	}
	if e.Intent == 0 {
		return nil
	}
	v.closed++
	closed, err := v.t.intendedDuty(e)
	if err == nil && (closed != index || e.Intent >= index) {
		err = fmt.Errorf("the index has the intent of entry %d closed by another entry or none", e.Intent)
	}
	return err
}

func (v *verification) crlReserved(index uint64, e CRLReserved) error {
	p := v.crls[e.Issuer]
	if e.Number <= p.reserved {
		return fmt.Errorf("CRL number %d is not greater than %d, reserved before", e.Number, p.reserved)
	}
	p.reserved = e.Number
	v.crls[e.Issuer] = p
	c, err := decodeCRL(v.t.crls.Get(crlKey(e.Issuer, e.Number)))
	if err == nil && c.reserved != index {
		err = fmt.Errorf("the index has CRL number %d reserved by entry %d", e.Number, c.reserved)
	}
	return err
}

func (v *verification) crlIssued(index uint64, e CRLIssued) error {
	p := v.crls[e.Issuer]
	if e.Number <= p.issued || e.Entries < p.entries || e.Entries > index {
		return fmt.Errorf("CRL %d, read at tree size %d, cannot follow CRL %d, read at %d", e.Number, e.Entries, p.issued, p.entries)
	}
	p.issued, p.entries = e.Number, e.Entries
	v.crls[e.Issuer] = p
	c, err := decodeCRL(v.t.crls.Get(crlKey(e.Issuer, e.Number)))
	if err == nil && (c.issued != index || c.reserved >= index) {
		err = fmt.Errorf("the index has CRL %d issued by entry %d, reserved by %d", e.Number, c.issued, c.reserved)
	}
	return err
}

// body checks that a body is where one belongs, and only there; with the keys, also what it says.
func (v *verification) body(index uint64, l leaf) error {
	k := indexKey(index)
	sealed, key := v.t.bodies.Get(k), v.t.keys.Get(k)
	switch {
	case v.j.role == roleReplica || l.digest == nil:
		if sealed != nil || key != nil {
			return errors.New("a body is stored where none belongs")
		}
		return nil
	case key == nil:
		return errors.New("the body's key is missing")
	case sealed == nil:
		return errors.New("the body is missing")
	case v.j.sealer == nil:
		v.sealed++
		return nil
	}
	e, err := v.j.openBody(l, sealed, key)
	if err != nil {
		return err
	}
	if issued, ok := e.(CertificateIssued); ok {
		return v.intendedTBS(issued)
	}
	return nil
}

// intendedTBS compares an issued certificate's TBSCertificate with its intent.
func (v *verification) intendedTBS(issued CertificateIssued) error {
	c, err := v.record(issued.Serial)
	if err != nil {
		return nil // state has said so
	}
	event, _, err := v.at(c.IntendedAt)
	intent, ok := event.(CertificateIntended)
	if err != nil || !ok {
		return nil // state has said so
	}
	digest, err := tbsDigest(issued.Certificate)
	if err == nil && *digest != intent.TBSDigest {
		err = fmt.Errorf("the TBSCertificate of %s is not the one intended by entry %d", issued.Serial, c.IntendedAt)
	}
	return err
}

// end checks what holds only at the end: that the index has no more than the entries say, and the stored checkpoint.
func (v *verification) end() {
	size, n := v.edge.size, &v.count
	if v.j.role == roleLog && len(v.t.meta.Get(metaKEK)) == 0 {
		v.fault(size, "the wrapped key-encryption key is missing: no body can ever be opened")
	}
	for _, b := range []struct {
		name   string
		bucket *bolt.Bucket
	}{{"hashes", v.t.hashes}, {"bodies", v.t.bodies}, {"keys", v.t.keys}} {
		if k, _ := b.bucket.Cursor().Last(); k != nil && (len(k) != 8 || binary.BigEndian.Uint64(k) >= size) {
			v.fault(size, "bucket %s holds the key %x, beyond the last entry", b.name, k)
		}
	}
	issuedCRLs := uint64(0)
	crls := count(v.t.crls, func(value []byte) {
		if c, err := decodeCRL(value); err == nil && c.issued != 0 {
			issuedCRLs++
		}
	})
	for _, c := range []struct {
		what       string
		have, want uint64
	}{
		{"certificates", count(v.t.certificates, nil), n[kindCertificateIntended]},
		{"open intents", count(v.t.intents, nil), n[kindCertificateIntended] - n[kindCertificateIssued] - n[kindCertificateAbandoned]},
		{"revoked certificates", count(v.t.revoked, nil), n[kindCertificateRevoked] + n[kindCertificateAbandoned]},
		{"CRL numbers", crls, n[kindCRLReserved]},
		{"issued CRLs", issuedCRLs, n[kindCRLIssued]},
		{"time-stamps", count(v.t.timestamps, nil), n[kindTimestampIssued]},
		{"intended destructions", count(v.t.duties, nil), v.destroying},
	} {
		if c.have != c.want {
			v.fault(size, "the index holds %d %s, the entries %d", c.have, c.what, c.want)
		}
	}
	if own, theirs := v.j.VerifierKey(), v.verifier.String(); own != theirs {
		v.fault(size, "the journal is another's: its key is %s, not %s", own, theirs)
	}
	if err := v.checkpoint(); err != nil {
		v.fault(size, "%v", err)
	}
	if v.kept != nil {
		if _, err := v.covered(v.kept, "the checkpoint kept elsewhere"); err != nil {
			v.fault(size, "%v", err)
		}
	}
	if err := v.j.Forked(); err != nil {
		v.fault(size, "%v", err)
	}
}

func count(b *bolt.Bucket, f func(value []byte)) (n uint64) {
	if b == nil {
		return 0
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if n++; f != nil {
			f(v)
		}
	}
	return n
}

// checkpoint holds the stored checkpoints against the stored hashes, which the leaves have confirmed by now.
func (v *verification) checkpoint() error {
	if text := v.t.meta.Get(metaUnreached); text != nil {
		tree, err := v.verifier.verify(text)
		if err != nil {
			return fmt.Errorf("the checkpoint that is not reached yet: %w", err)
		}
		if tree.Size <= v.edge.size || v.j.role != roleReplica {
			return fmt.Errorf("a checkpoint over %d entries is stored as not reached yet", tree.Size)
		}
	}
	text := v.t.meta.Get(metaCheckpoint)
	if text == nil {
		if v.j.role == roleReplica {
			return nil // it has not caught up yet
		}
		return errors.New("the stored checkpoint is missing")
	}
	tree, err := v.covered(text, "the stored checkpoint")
	if err != nil {
		return err
	}
	v.signed = tree.Size
	return nil
}

// covered checks that a checkpoint is the log's and that the journal holds the entries it covers.
func (v *verification) covered(text []byte, name string) (Tree, error) {
	tree, err := v.verifier.verify(text)
	if err != nil {
		return tree, fmt.Errorf("%s: %w", name, err)
	}
	if tree.Size > v.edge.size {
		return tree, fmt.Errorf("%s covers %d entries, there are %d: the tail was cut, or an old copy put in place", name, tree.Size, v.edge.size)
	}
	e, err := loadEdge(v.t.hashes, tree.Size)
	if err != nil {
		return tree, err
	}
	if root := e.root(); root != tree.Root {
		return tree, fmt.Errorf("%s over %d entries has another root than the entries: %x, not %x", name, tree.Size, tree.Root, root)
	}
	if tree.Size == 0 {
		return tree, nil
	}
	if _, at, err := v.at(tree.Size - 1); err == nil && at.Unix() > tree.Time.Unix() {
		return tree, fmt.Errorf("%s of %s covers an entry of %s", name, tree.Time, at)
	}
	return tree, nil
}
