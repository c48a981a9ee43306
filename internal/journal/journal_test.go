package journal_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

var background = context.Background()

// TestMain lets the test binary be the child of TestKilled.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		os.Exit(appendUntilKilled(dir))
	}
	goleak.VerifyTestMain(m)
}

func TestParseSerial(t *testing.T) {
	for text, want := range map[string]string{
		"01": "01", "1": "01", "0A0b": "0a0b", "0a:0B": "0a0b", "ff": "00ff", "00ff": "00ff", "0000017f": "017f",
		strings.Repeat("7f", 20): strings.Repeat("7f", 20),
	} {
		s, err := journal.ParseSerial(text)
		if err != nil || s.String() != want {
			t.Errorf("ParseSerial(%q) = %s, %v; want %s", text, s, err, want)
		}
		if again, err := journal.ParseSerial(s.String()); err != nil || again != s {
			t.Errorf("ParseSerial(%s) = %s, %v", s, again, err)
		}
	}
	for _, text := range []string{"", "0", "00:00", "xyz", "0a:0", ":0a", "0a::0b", "-1", " 01", strings.Repeat("7f", 21), strings.Repeat("ff", 20), strings.Repeat("0", 200)} {
		if s, err := journal.ParseSerial(text); err == nil {
			t.Errorf("ParseSerial(%q) = %s, want an error", text, s)
		}
	}
}

func TestParseReason(t *testing.T) {
	for _, r := range []journal.Reason{0, 1, 2, 3, 4, 5, 6, 9, 10} {
		if got, err := journal.ParseReason(r.String()); err != nil || got != r {
			t.Errorf("ParseReason(%s) = %d, %v", r, got, err)
		}
	}
	for _, name := range []string{"", "removeFromCRL", "KeyCompromise", "reason 7"} {
		if _, err := journal.ParseReason(name); err == nil {
			t.Errorf("ParseReason(%q): no error", name)
		}
	}
}

func TestNames(t *testing.T) {
	if got := journal.NewIssuerID([]byte("a"), []byte("b")); got != sha256.Sum256([]byte("ab")) {
		t.Errorf("NewIssuerID = %x", got)
	}
	var got []string
	for s := journal.Intended; s <= journal.Abandoned+1; s++ {
		got = append(got, s.String())
	}
	if diff := cmp.Diff([]string{"intended", "good", "revoked", "abandoned", "status 5"}, got); diff != "" {
		t.Error(diff)
	}
	if k := journal.KindOf(journal.CRLIssued{}); k.String() != "CRLIssued" || journal.Kind(99).String() != "kind 99" {
		t.Errorf("kind %s", k)
	}
}

// allEvents is one of each, in an order that the state machine takes.
func allEvents() []journal.Event {
	issuer := journal.IssuerID{7}
	at := time.Date(2026, 11, 23, 12, 0, 0, 123_000, time.UTC)
	report, list := []byte(`{"keys":[]}`), []byte("a CRL")
	i1, c1 := journaltest.Intent(issuer, "\x01\x01")
	i2, _ := journaltest.Intent(issuer, "\x01\x02")
	i2.Evidence = nil
	return []journal.Event{
		journal.DaemonStarted{Daemon: "zegel-ca", Version: "v0.1.0", ConfigDigest: [32]byte{1}, ClockUnverified: true},
		journal.CeremonyHeld{Actor: journaltest.Officer, ReportDigest: sha256.Sum256(report), Report: report},
		i1, c1, i2,
		journal.CertificateAbandoned{Issuer: issuer, Serial: "\x01\x02"},
		journal.CertificateRevoked{Actor: journaltest.Officer, Issuer: issuer, Serial: "\x01\x01", Reason: journal.Superseded,
			InvalidFrom: at, RequestedAt: at, Note: []byte("asked for by phone")},
		journal.CRLReserved{Issuer: issuer, Number: 1},
		journal.CRLIssued{Issuer: issuer, Number: 1, Hash: sha256.Sum256(list), Entries: 7, ThisUpdate: at, NextUpdate: at.Add(time.Hour), CRL: list},
		journal.TimestampIssued{Unit: [32]byte{2}, Serial: "\x05", GenTime: at, TokenHash: [32]byte{3}, TSTInfo: []byte("a TSTInfo")},
		journal.ClockChanged{Vouched: false, Detail: "the kernel says unsynchronised"},
		journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyDestroying, PublicKey: [32]byte{4}, Details: []byte(`{"label":"ca-2026"}`)},
		journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyDestroyed, PublicKey: [32]byte{4}, Intent: 11, DoneAt: at, Details: []byte(`{"label":"ca-2026"}`)},
	}
}

func TestEveryEvent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	o := journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	events := allEvents()
	var entries []journal.Entry
	for round := range 2 { // as appended, and as read by another process
		j, err := journal.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			entries = journaltest.Append(t, j, events...)
		}
		var read []journal.Entry
		for e, err := range j.Entries(0) {
			if err != nil {
				t.Fatal(err)
			}
			read = append(read, e)
		}
		if diff := cmp.Diff(entries, read); diff != "" {
			t.Errorf("entries: %s", diff)
		}
		for i, want := range events {
			got, err := j.Opened(uint64(i))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("entry %d: %s", i, diff)
			}
			if one, err := j.Entry(uint64(i)); err != nil || !bytes.Equal(one.Leaf, entries[i].Leaf) {
				t.Errorf("Entry(%d): %v", i, err)
			}
		}
		if j.Size() != uint64(len(events)) || !j.LastTime().Equal(entries[len(entries)-1].Time) {
			t.Errorf("size %d, last %s", j.Size(), j.LastTime())
		}
		if report, err := j.Verify(background); err != nil || !report.OK || report.Certificates != 2 {
			t.Errorf("Verify = %+v, %v", report, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range entries { // sealed: nothing of a body is in the leaf
		for _, secret := range []string{"phone", "keys", "request", "a CRL", "a TSTInfo", "ca-2026"} {
			if bytes.Contains(e.Leaf, []byte(secret)) {
				t.Errorf("leaf %d holds %q", i, secret)
			}
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil || bytes.Contains(whole, []byte("asked for by phone")) {
		t.Errorf("the file holds a body in clear text (%v)", err)
	}
}

// TestRefusedEvents: what is not well-formed never reaches the journal.
func TestRefusedEvents(t *testing.T) {
	j := journaltest.New(t)
	at := time.Now()
	intended, issued := journaltest.Intent(journal.IssuerID{1}, "\x01")
	for name, e := range map[string]journal.Event{
		"pointer":                 &intended,
		"no actor":                with(intended, func(e *journal.CertificateIntended) { e.Actor = journal.Actor{} }),
		"serial 0":                with(intended, func(e *journal.CertificateIntended) { e.Serial = "\x00" }),
		"serial empty":            with(intended, func(e *journal.CertificateIntended) { e.Serial = "" }),
		"serial negative":         with(intended, func(e *journal.CertificateIntended) { e.Serial = "\x80" }),
		"serial not minimal":      with(intended, func(e *journal.CertificateIntended) { e.Serial = "\x00\x01" }),
		"serial long":             with(intended, func(e *journal.CertificateIntended) { e.Serial = journal.Serial(strings.Repeat("\x01", 21)) }),
		"profile long":            with(intended, func(e *journal.CertificateIntended) { e.Profile = strings.Repeat("x", 65) }),
		"profile control":         with(intended, func(e *journal.CertificateIntended) { e.Profile = "a\nb" }),
		"profile empty":           with(intended, func(e *journal.CertificateIntended) { e.Profile = "" }),
		"no times":                with(intended, func(e *journal.CertificateIntended) { e.NotBefore = time.Time{} }),
		"validity backwards":      with(intended, func(e *journal.CertificateIntended) { e.NotAfter = e.NotBefore.Add(-1e9) }),
		"no TBS":                  with(intended, func(e *journal.CertificateIntended) { e.TBS = nil }),
		"TBS of another digest":   with(intended, func(e *journal.CertificateIntended) { e.TBSDigest[0]++ }),
		"no certificate":          with(issued, func(e *journal.CertificateIssued) { e.Certificate = nil }),
		"certificate other hash":  with(issued, func(e *journal.CertificateIssued) { e.CertificateHash[0]++ }),
		"certificate no DER":      journal.CertificateIssued{Serial: "\x01", Certificate: []byte("x"), CertificateHash: sha256.Sum256([]byte("x"))},
		"reason 7":                journal.CertificateRevoked{Actor: journaltest.Officer, Serial: "\x01", Reason: 7, RequestedAt: at},
		"reason removeFromCRL":    journal.CertificateRevoked{Actor: journaltest.Officer, Serial: "\x01", Reason: 8, RequestedAt: at},
		"no time of the request":  journal.CertificateRevoked{Actor: journaltest.Officer, Serial: "\x01", Reason: 1},
		"no actor revokes":        journal.CertificateRevoked{Serial: "\x01", Reason: 1, RequestedAt: at},
		"CRL of another hash":     journal.CRLIssued{Number: 1, ThisUpdate: at, NextUpdate: at, CRL: []byte("x")},
		"CRL backwards":           journal.CRLIssued{Number: 1, ThisUpdate: at, NextUpdate: at.Add(-1e9), CRL: []byte("x"), Hash: sha256.Sum256([]byte("x"))},
		"report of another hash":  journal.CeremonyHeld{Actor: journaltest.Officer, Report: []byte("x")},
		"timestamp no TSTInfo":    journal.TimestampIssued{Serial: "\x01", GenTime: at},
		"timestamp year 10000":    journal.TimestampIssued{Serial: "\x01", GenTime: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), TSTInfo: []byte("x")},
		"daemon no name":          journal.DaemonStarted{Version: "1"},
		"clock detail long":       journal.ClockChanged{Detail: strings.Repeat("x", 1025)},
		"clock detail not UTF-8":  journal.ClockChanged{Detail: "\xff"},
		"duty without actor":      journal.KeyDuty{Act: journal.KeyGenerated, Details: []byte("{}")},
		"duty without act":        journal.KeyDuty{Actor: journaltest.Officer, Details: []byte("{}")},
		"duty of act 12":          journal.KeyDuty{Actor: journaltest.Officer, Act: 12, Details: []byte("{}")},
		"duty without details":    journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyGenerated},
		"duty, intent of another": journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyGenerated, Intent: 1, Details: []byte("{}")},
		"duty closes nothing":     journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyNotDestroyed, Details: []byte("{}")},
		"duty closes no intent":   journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyDestroyed, Intent: 1, Details: []byte("{}")},
		"duty intent first":       journal.KeyDuty{Actor: journaltest.Officer, Act: journal.KeyDestroying, Details: []byte("{}")},
		"nil":                     nil,
		"CRL number 0 (conflict)": journal.CRLReserved{Number: 0},
	} {
		if entry, err := j.Append(background, e); err == nil {
			t.Errorf("%s: recorded as entry %d", name, entry.Index)
		}
	}
	if j.Size() != 0 {
		t.Errorf("size %d after refusals", j.Size())
	}
}

func with[E any](e E, change func(*E)) E {
	change(&e)
	return e
}

func TestReads(t *testing.T) {
	j := journaltest.New(t)
	a, b := journal.IssuerID{1}, journal.IssuerID{2}
	if _, _, err := j.LastCRL(a); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("LastCRL of an empty journal: %v", err)
	}
	for _, s := range []journal.Serial{"\x03", "\x01", "\x02"} {
		journaltest.Issue(t, j, a, s)
	}
	journaltest.Issue(t, j, b, "\x04")
	open, _ := journaltest.Intent(a, "\x05")
	dead, _ := journaltest.Intent(a, "\x06")
	journaltest.Append(t, j, open, dead, journal.CertificateAbandoned{Issuer: a, Serial: "\x06"})
	for _, s := range []journal.Serial{"\x03", "\x01"} {
		journaltest.Revoke(t, j, a, s, journal.KeyCompromise)
	}
	journaltest.Revoke(t, j, b, "\x04", journal.Unspecified)

	if _, err := j.Certificate(b, "\x01"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("certificate of another issuer: %v", err)
	}
	if _, err := j.Certificate(a, "\x77"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("certificate never intended: %v", err)
	}
	for _, s := range []journal.Serial{"", "\x00", journal.Serial(strings.Repeat("\xff", 300))} { // from the network, through OCSP
		if _, err := j.Certificate(a, s); !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("certificate %s: %v", s, err)
		}
	}
	if c, err := j.CertificateBySerial("\x04"); err != nil || c.Issuer != b || c.Status != journal.Revoked {
		t.Errorf("certificate by serial: %+v, %v", c, err)
	}
	var serials string
	for c, err := range j.Certificates() {
		if err != nil {
			t.Fatal(err)
		}
		serials += c.Serial.String() + c.Status.String()[:1]
		if c.Serial == "\x05" {
			break
		}
	}
	if serials != "01r02g03r04r05i" {
		t.Errorf("certificates %s", serials)
	}
	var revoked string
	entries, err := j.Revoked(a, func(c journal.Certificate) error {
		revoked += c.Serial.String() + c.Status.String()[:1]
		return nil
	})
	if err != nil || entries != j.Size() || revoked != "01r03r06a" {
		t.Errorf("Revoked = %d, %v: %s", entries, err, revoked)
	}
	func() { // a panic in a loop's body is the loop's, not a damaged file
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v", p)
			}
		}()
		for range j.Certificates() {
			panic("mine")
		}
	}()
	stop := errors.New("stop")
	if _, err := j.Revoked(a, func(journal.Certificate) error { return stop }); err != stop {
		t.Errorf("Revoked = %v", err)
	}
	if intents, err := j.OpenIntents(); err != nil || len(intents) != 1 || intents[0].Serial != "\x05" {
		t.Errorf("OpenIntents = %+v, %v", intents, err)
	}
	if _, err := j.Entry(j.Size()); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("Entry behind the end: %v", err)
	}
	if _, err := j.Opened(j.Size()); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("Opened behind the end: %v", err)
	}
	first := uint64(3)
	for e, err := range j.Entries(3) {
		if err != nil || e.Index != first {
			t.Fatalf("entry %d, %v; want %d", e.Index, err, first)
		}
		first++
	}
	if first != j.Size() {
		t.Errorf("Entries ended at %d of %d", first, j.Size())
	}
}

// TestCertificatesAfter: a page begins behind any serial, there or not.
func TestCertificatesAfter(t *testing.T) {
	j := journaltest.New(t)
	all := []journal.Serial{"\x01", "\x01\x00", "\x01\x02", "\x02", "\x7f\xff"}
	for _, s := range all {
		journaltest.Issue(t, j, issuerA, s)
	}
	for after, want := range map[journal.Serial]int{"": 0, "\x01": 1, "\x01\x00": 2, "\x01\x01": 2, "\x01\x02": 3, "\x03": 4, "\x7f\xff": 5, "\x7f\xff\x01": 5} {
		var got []journal.Serial
		for c, err := range j.CertificatesAfter(after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, c.Serial)
		}
		if !slices.Equal(got, all[want:]) {
			t.Errorf("after %q: %q, want %q", after, got, all[want:])
		}
	}
	for c, err := range j.CertificatesAfter("\x01\x00") {
		if err != nil || c.Serial != "\x01\x02" {
			t.Errorf("first %s, %v", c.Serial, err)
		}
		break
	}
}

func TestLastCRL(t *testing.T) {
	j := journaltest.New(t)
	now := time.Now().UTC().Truncate(time.Second)
	crl := func(issuer journal.IssuerID, number uint64) journal.CRLIssued {
		return journal.CRLIssued{Issuer: issuer, Number: number, Hash: sha256.Sum256([]byte("crl")), ThisUpdate: now, NextUpdate: now, CRL: []byte("crl")}
	}
	a, b, none := journal.IssuerID{1}, journal.IssuerID{0xff, 31: 0xff}, journal.IssuerID{2}
	journaltest.Append(t, j, journal.CRLReserved{Issuer: a, Number: 3}, journal.CRLReserved{Issuer: b, Number: ^uint64(0)})
	if _, reserved, err := j.LastCRL(a); !errors.Is(err, journal.ErrNotFound) || reserved != 3 {
		t.Errorf("reserved %d, %v", reserved, err)
	}
	journaltest.Append(t, j, crl(a, 3), journal.CRLReserved{Issuer: a, Number: 4}, crl(b, ^uint64(0)))
	if last, reserved, err := j.LastCRL(a); err != nil || reserved != 4 || cmp.Diff(crl(a, 3), last) != "" {
		t.Errorf("last %+v, reserved %d, %v", last, reserved, err)
	}
	if last, reserved, err := j.LastCRL(b); err != nil || reserved != ^uint64(0) || last.Number != ^uint64(0) {
		t.Errorf("last %+v, reserved %d, %v", last, reserved, err)
	}
	if _, reserved, err := j.LastCRL(none); !errors.Is(err, journal.ErrNotFound) || reserved != 0 {
		t.Errorf("reserved %d, %v", reserved, err)
	}
	for issuer, want := range map[journal.IssuerID]uint64{a: 4, b: ^uint64(0), none: 0, {}: 0} {
		if reserved, err := j.Reserved(issuer); err != nil || reserved != want {
			t.Errorf("reserved %d, %v; want %d", reserved, err, want)
		}
	}
	r := journaltest.NewReplica(t, j, nil)
	journaltest.CatchUp(t, r, j)
	if last, _, err := r.LastCRL(a); err != nil || last.Number != 3 || last.CRL != nil {
		t.Errorf("replica: last %+v, %v", last, err)
	}
}

// TestOpenRefuses: a daemon with the wrong journal, or none, does not start.
func TestOpenRefuses(t *testing.T) {
	temp := t.TempDir()
	log, replica := filepath.Join(temp, "log"), filepath.Join(temp, "replica")
	o := journaltest.Options(t, nil)
	if err := journal.Create(log, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	open := func(dir string, o journal.Options) error {
		j, err := journal.Open(dir, o)
		if err == nil {
			j.Close()
		}
		return err
	}
	openReplica := func(dir string) error {
		j, err := journal.OpenReplica(dir, nil)
		if err == nil {
			j.Close()
		}
		return err
	}
	other := journaltest.Options(t, nil)
	j, err := journal.Open(log, o)
	if err != nil {
		t.Fatal(err)
	}
	vkey := j.VerifierKey()
	if err := open(log, o); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("open twice: %v", err)
	}
	if _, err := journal.OpenReadOnly(log); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("read what is open: %v", err)
	}
	j.Close()
	if err := journal.CreateReplica(replica, vkey); err != nil {
		t.Fatal(err)
	}
	unwrap := o
	unwrap.Unwrap = other.Unwrap
	key := o
	key.CheckpointKey = other.CheckpointKey
	for _, c := range []struct {
		name string
		err  error
		says string
	}{
		{"missing", open(filepath.Join(temp, "none"), o), "ceremony"},
		{"missing replica", openReplica(filepath.Join(temp, "none")), "no journal"},
		{"replica as log", open(replica, o), "replica"},
		{"log as replica", openReplica(log), "not a replica"},
		{"other wrapping key", open(log, unwrap), "unwrap"},
		{"other checkpoint key", open(log, key), "checkpoint key"},
		{"no keys", open(log, journal.Options{}), "missing"},
		{"create over a log", journal.Create(log, journaltest.Origin, o), "not empty"},
		{"create over a replica", journal.CreateReplica(replica, vkey), "not empty"},
		{"replica of nonsense", journal.CreateReplica(filepath.Join(temp, "x"), "a+b+c"), "journal key"},
		{"origin with a space", journal.Create(filepath.Join(temp, "x"), "zegel example", o), "origin"},
		{"origin empty", journal.Create(filepath.Join(temp, "x"), "", o), "origin"},
		{"no wrapping", journal.Create(filepath.Join(temp, "x"), "a", journal.Options{CheckpointKey: o.CheckpointKey}), "missing"},
		{"wrapping that loses the key", journal.Create(filepath.Join(temp, "x"), "a", journal.Options{CheckpointKey: o.CheckpointKey, Wrap: o.Wrap,
			Unwrap: func([]byte) ([]byte, error) { return make([]byte, 32), nil }}), "does not give it back"},
		{"checkpoint key ECDSA", journal.Create(filepath.Join(temp, "x"), "a", journal.Options{Wrap: o.Wrap, Unwrap: o.Unwrap, CheckpointKey: ecdsaKey(t)}), "Ed25519"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v, want an error about %q", c.name, c.err, c.says)
		}
	}
	if err := open(filepath.Join(temp, "none"), o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(filepath.Join(temp, "none")); err == nil {
		t.Error("opening what is missing made it")
	}
	if _, err := os.Stat(filepath.Join(temp, "x")); err == nil {
		t.Error("a refused Create left a folder")
	}
	if err := open(log, o); err != nil {
		t.Errorf("the journal itself: %v", err)
	}
}

func ecdsaKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestDamagedFile: what is no journal, or a damaged one, is an error and not a panic, and never a new journal.
func TestDamagedFile(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	o := journaltest.Options(t, nil)
	if err := journal.Create(whole, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(whole, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, len(good))
	rand.Read(noise)
	pages := bytes.Clone(good) // meta pages whole, all else noise
	copy(pages[2*4096:], noise)
	for name, content := range map[string][]byte{"empty": {}, "short": good[:5000], "cut": good[:len(good)/2], "noise": noise, "pages": pages} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "journal.db"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Open(dir, o); err == nil || errors.Is(err, journal.ErrLocked) {
			t.Errorf("%s: opened, or %v", name, err)
		}
		if _, err := journal.OpenReadOnly(dir); err == nil || errors.Is(err, journal.ErrLocked) {
			t.Errorf("%s: opened for reading, or %v", name, err)
		}
	}
	for name, f := range map[string]func(bucket func(string) *bolt.Bucket) error{
		"newer":           func(b func(string) *bolt.Bucket) error { return b("meta").Put([]byte("format"), []byte{0, 0, 0, 2}) },
		"format 0":        func(b func(string) *bolt.Bucket) error { return b("meta").Put([]byte("format"), []byte{0, 0, 0, 0}) },
		"no format":       func(b func(string) *bolt.Bucket) error { return b("meta").Delete([]byte("format")) },
		"role":            func(b func(string) *bolt.Bucket) error { return b("meta").Put([]byte("role"), []byte("king")) },
		"no checkpoint":   func(b func(string) *bolt.Bucket) error { return b("meta").Delete([]byte("checkpoint")) },
		"no bucket":       func(b func(string) *bolt.Bucket) error { return b("meta").Tx().DeleteBucket([]byte("crls")) },
		"leaf of nothing": func(b func(string) *bolt.Bucket) error { return b("leaves").Put(make([]byte, 8), []byte{1}) },
	} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		if err := journal.Tamper(dir, f); err != nil {
			t.Fatal(err)
		}
		j, err := journal.OpenReadOnly(dir)
		if err == nil {
			t.Errorf("%s: opened", name)
			j.Close()
		}
		if name == "newer" && (!strings.Contains(err.Error(), "2") || !strings.Contains(err.Error(), "1")) {
			t.Errorf("newer: %v names not both versions", err)
		}
	}
}

// TestCreateInterrupted: what a crash in Create leaves is not taken for a journal, and Create can be repeated.
func TestCreateInterrupted(t *testing.T) {
	dir := t.TempDir()
	o := journaltest.Options(t, nil)
	if err := os.WriteFile(filepath.Join(dir, "journal.db.creating"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(dir, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open = %v", err)
	}
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 || names[0].Name() != "journal.db" {
		t.Errorf("folder holds %v, %v", names, err)
	}
	if info, err := names[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestClockBehind: time never runs backwards; what is refused is not written, and the journal goes on when the clock does.
func TestClockBehind(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	j := journaltest.NewWith(t, journaltest.Config{Now: func() time.Time { return now }})
	event := journal.ClockChanged{Vouched: true}
	journaltest.Append(t, j, event)
	now = now.Add(-time.Millisecond)
	if _, err := j.Append(background, event); err == nil || errors.Is(err, journal.ErrConflict) || errors.Is(err, journal.ErrFailed) {
		t.Errorf("append with the clock behind: %v", err)
	}
	if _, err := j.Checkpoint(); err == nil {
		t.Error("checkpoint with the clock behind")
	}
	now = now.Add(time.Millisecond) // equal is good enough
	journaltest.Append(t, j, event)
	if _, err := j.Checkpoint(); err != nil {
		t.Error(err)
	}
	now = time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := j.Append(background, event); err == nil {
		t.Error("append before 1970")
	}
	now = time.Date(2026, 11, 23, 12, 0, 1, 0, time.UTC)
	if j.Size() != 2 {
		t.Errorf("size %d", j.Size())
	}
}

// TestFailedCommit: after a commit that failed, nothing is taken and nothing signed until the journal is opened again.
func TestFailedCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	o := journaltest.Options(t, nil)
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	issuer := journal.IssuerID{1}
	journaltest.Issue(t, j, issuer, "\x01")
	if err := journal.FailCommits(j); err != nil {
		t.Fatal(err)
	}
	var failed error
	for n := range 10_000 { // until the file would have to grow
		intended, _ := journaltest.Intent(issuer, manySerial(uint64(n)))
		if _, failed = j.Append(background, intended); failed != nil {
			break
		}
	}
	if !errors.Is(failed, journal.ErrFailed) {
		t.Fatalf("append: %v", failed)
	}
	size := j.Size()
	if _, err := j.Append(background, journal.ClockChanged{}); !errors.Is(err, journal.ErrFailed) || !errors.Is(j.Failed(), journal.ErrFailed) {
		t.Errorf("append after failure: %v", err)
	}
	if _, err := j.Checkpoint(); !errors.Is(err, journal.ErrFailed) {
		t.Errorf("checkpoint after failure: %v", err)
	}
	if err := j.Run(background, time.Second); !errors.Is(err, journal.ErrFailed) {
		t.Errorf("Run after failure: %v", err)
	}
	if c, err := j.Certificate(issuer, "\x01"); err != nil || c.Status != journal.Issued {
		t.Errorf("status after failure: %+v, %v", c, err)
	}
	j.Close()
	if j, err = journal.Open(dir, o); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.Size() < size {
		t.Errorf("size %d, %d were acknowledged", j.Size(), size)
	}
	journaltest.Append(t, j, journal.ClockChanged{})
	if report, err := j.Verify(background); err != nil || !report.OK {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

func TestEndedContextAndClose(t *testing.T) {
	j := journaltest.New(t)
	ctx, cancel := context.WithCancel(background)
	cancel()
	if _, err := j.Append(ctx, journal.ClockChanged{}); !errors.Is(err, context.Canceled) {
		t.Errorf("append: %v", err)
	}
	if _, err := j.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("verify: %v", err)
	}
	if j.Size() != 0 {
		t.Errorf("size %d", j.Size())
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := j.Append(background, journal.ClockChanged{}); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if _, err := j.CertificateBySerial("\x01"); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := j.Run(background, time.Second); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

func TestReplicaTakesNoEntries(t *testing.T) {
	log := journaltest.New(t)
	journaltest.Append(t, log, journal.ClockChanged{})
	r := journaltest.NewReplica(t, log, nil)
	if _, err := r.Verified(); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("Verified: %v", err)
	}
	if _, err := r.Checkpoint(); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("Checkpoint: %v", err)
	}
	if _, err := r.Append(background, journal.ClockChanged{}); !errors.Is(err, journal.ErrReplica) {
		t.Errorf("Append: %v", err)
	}
	if err := r.Run(background, time.Second); !errors.Is(err, journal.ErrReplica) {
		t.Errorf("Run: %v", err)
	}
	if err := journal.Follow(background, log, "http://feed.test", nil, nil); err == nil {
		t.Error("a log follows")
	}
	if r.Origin() != journaltest.Origin || r.VerifierKey() != log.VerifierKey() {
		t.Errorf("replica of %s, %s", r.Origin(), r.VerifierKey())
	}
}

func TestSealedWithoutKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := journaltest.NewWith(t, journaltest.Config{Dir: dir})
	journaltest.Append(t, j, allEvents()...)
	j.Close()
	r, err := journal.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Opened(1); !errors.Is(err, journal.ErrSealed) {
		t.Errorf("Opened: %v", err)
	}
	if e, err := r.Opened(0); err != nil || e.(journal.DaemonStarted).Daemon != "zegel-ca" {
		t.Errorf("Opened(no body): %v, %v", e, err)
	}
	if report, err := r.Verify(background); err != nil || !report.OK || report.Entries != 13 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
	if _, err := r.Append(background, journal.ClockChanged{}); !errors.Is(err, journal.ErrReplica) {
		t.Errorf("Append: %v", err)
	}
	again, err := journal.OpenReadOnly(dir) // readers do not lock each other out
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := journaltest.New(t)
		read := func() journal.Tree {
			text, err := j.Checkpoint()
			if err != nil {
				t.Fatal(err)
			}
			tree, err := journal.VerifyCheckpoint(text, j.VerifierKey())
			if err != nil {
				t.Fatal(err)
			}
			if verified, err := j.Verified(); err != nil || verified != tree {
				t.Errorf("Verified = %+v, %v; the checkpoint says %+v", verified, err, tree)
			}
			return tree
		}
		if got := read(); got.Size != 0 || got.Root != sha256.Sum256(nil) {
			t.Errorf("empty: %+v", got)
		}
		entry := journaltest.Append(t, j, journal.ClockChanged{})[0]
		if got := read(); got.Size != 1 || got.Root != sha256.Sum256(append([]byte{0}, entry.Leaf...)) {
			t.Errorf("one entry: %+v", got)
		}
		first := read().Time
		time.Sleep(time.Second)
		if got := read().Time; !got.After(first) {
			t.Errorf("checkpoint a second later: %s, first %s", got, first)
		}
		for _, bad := range []time.Duration{0, -1, 6 * time.Second} {
			if err := j.Run(t.Context(), bad); err == nil {
				t.Errorf("interval %s", bad)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		before, _ := j.Verified()
		if err := j.Run(ctx, 5*time.Second); err != nil {
			t.Error(err)
		}
		after, _ := j.Verified()
		if grown := after.Time.Sub(before.Time); grown < 15*time.Second {
			t.Errorf("in 20 s the checkpoint moved %s", grown)
		}
	})
}
