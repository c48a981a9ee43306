package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// persist asks the CA until it answers, through kills; false: it does not, and that was reported.
func (s *soak) persist(what string, do func(context.Context) error) bool {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := brief()
		a := s.asking("ca", what)
		err := do(ctx)
		cancel()
		if a.done(err) {
			return true
		}
		if !a.killed() || time.Now().After(deadline) {
			return false
		}
	}
}

// checkRestarts asks the restarted CA, until checks is closed, for what was handed out before the kill: it is known, with the same
// bytes and in the state that was acknowledged; and an intent that was open is soon closed.
func (s *soak) checkRestarts() {
	for serials := range s.checks {
		for _, serial := range serials {
			s.checkHandedOut(serial)
		}
		s.checkIntents()
	}
}

func (s *soak) checkHandedOut(serial string) {
	before := s.book.about(serial)
	var c desk.Certificate
	ok := s.persist("certificates shown", func(ctx context.Context) (err error) {
		c, err = s.ca.Certificate(ctx, serial)
		return err
	})
	if !ok {
		s.fault("%s was handed out and is not known", serial)
		return
	}
	after := s.book.about(serial)
	block, _ := pem.Decode([]byte(c.Cert))
	if block == nil || sha256.Sum256(block.Bytes) != before.digest {
		s.fault("%s is not the certificate that was handed out", serial)
	}
	// one whose revocation was recorded but not acknowledged may be revoked too
	switch {
	case c.Status == "revoked" && after.revoking, c.Status == "good" && before.revokedAt.IsZero():
	default:
		s.fault("%s is %s; its revocation was asked for: %v, acknowledged: %v", serial, c.Status, after.revoking, before.revokedAt)
	}
}

// checkIntents looks at the intents that are open now until each is issued or abandoned: under load some always are, none stays so.
func (s *soak) checkIntents() {
	var open []desk.Certificate
	s.persist("searches", func(ctx context.Context) (err error) {
		open, err = s.ca.Certificates(ctx, desk.Search{Status: "intended"})
		return err
	})
	for _, intent := range open {
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			var c desk.Certificate
			s.persist("certificates shown", func(ctx context.Context) (err error) {
				c, err = s.ca.Certificate(ctx, intent.Serial)
				return err
			})
			if c.Status != "intended" {
				break
			}
			if time.Now().After(deadline) {
				s.fault("the intent of %s is still open", intent.Serial)
				break
			}
		}
	}
}

// checkEnd holds everything against everything, with all daemons up and without load, and then the journals as they lie still.
func (s *soak) checkEnd() {
	serials := slices.Clone(s.book.order)
	if len(serials) == 0 || len(s.book.listed) == 0 || len(s.book.tokens) == 0 || len(s.book.crls) == 0 {
		s.t.Fatalf("no load: %d certificates, %d revocations, %d tokens, %d CRLs", len(serials), len(s.book.listed), len(s.book.tokens), len(s.book.crls))
	}
	s.each(serials, s.checkHandedOut)
	abandoned := s.checkLists()
	s.waitFollowed()
	s.each(serials, func(serial string) {
		want := "good"
		if c := s.book.about(serial); !c.revokedAt.IsZero() {
			want = "revoked"
		}
		if said := s.status(serial, false, false); said != want {
			s.fault("at the end OCSP of %s says %q, not %s", serial, said, want)
		}
	})
	for _, serial := range abandoned {
		if said := s.r.status(s.t, serial); said != "revoked" {
			s.fault("the intent of %s was abandoned, OCSP says %q", serial, said)
		}
	}
	if report := zegel(s.t, 0, "--config", s.r.ZegelConfig, "journal", "verify", "--json"); !strings.Contains(report, `"ok": true`) {
		s.fault("the CA's journal: %s", report)
	}
	zegel(s.t, 0, "--config", s.r.ZegelConfig, "status")
	for _, name := range []string{"tsa", "ocsp", "ca"} {
		if err := s.daemons[name].end(syscall.SIGTERM); err != nil {
			s.fault("%v", err)
		}
		log, err := os.ReadFile(s.daemons[name].log())
		if found := faultsIn(string(log)); err != nil || found != nil {
			s.fault("the log of zegel-%s: %q, %v", name, found, err)
		}
	}
	s.checkJournals()
}

// each does something for every serial, eight at a time.
func (s *soak) each(serials []string, do func(serial string)) {
	var all sync.WaitGroup
	for part := range slices.Chunk(serials, (len(serials)+7)/8) {
		all.Go(func() {
			for _, serial := range part {
				do(serial)
			}
		})
	}
	all.Wait()
}

// checkLists wants no intent open, and a fresh CRL to list what the CA says is revoked or abandoned, and nothing else.
func (s *soak) checkLists() (abandoned []string) {
	ctx := s.t.Context()
	states := map[string][]string{}
	for _, state := range []string{"intended", "revoked", "abandoned"} {
		list, err := s.ca.Certificates(ctx, desk.Search{Status: state})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, c := range list {
			states[state] = append(states[state], c.Serial)
		}
	}
	if open := states["intended"]; len(open) > 0 {
		s.fault("%d intents are open at the end, among them %v", len(open), open[0])
	}
	s.orderCRL()
	s.fetchCRL()
	raw, err := s.exchange(s.r.CRLURL, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	want, got := slices.Sorted(slices.Values(append(states["revoked"], states["abandoned"]...))), []string{}
	for _, e := range crl.RevokedCertificateEntries {
		got = append(got, serialText(e.SerialNumber))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		s.fault("the CRL at the end lists %d certificates, %d are revoked or abandoned", len(got), len(want))
	}
	for _, serial := range s.book.asked {
		if _, there := slices.BinarySearch(got, serial); !there {
			s.fault("%s was revoked, and is not on the CRL at the end", serial)
		}
	}
	s.figures.add("intents abandoned after a kill", len(states["abandoned"]))
	return states["abandoned"]
}

// waitFollowed waits until the responder has as many entries as the CA.
func (s *soak) waitFollowed() {
	entries := func(name, key string) (n float64) {
		resp, err := http.Get(s.r.HealthURLs[name])
		if err != nil {
			s.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			s.t.Fatal(err)
		}
		facts := map[string]any{}
		if err := json.Unmarshal(text, &facts); err != nil {
			s.t.Fatal(err)
		}
		n, ok := facts[key].(float64)
		if !ok {
			s.t.Fatalf("/health of zegel-%s does not tell %s: %s", name, key, text)
		}
		return n
	}
	for deadline := time.Now().Add(30 * time.Second); entries("ocsp", "entries") != entries("ca", "journal_entries"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the responder does not follow")
		}
	}
}

// checkJournals reads the three journals, which lie still: they verify, the replica is a prefix of the CA's under the same root, and
// what was handed out is recorded as it was.
func (s *soak) checkJournals() {
	ctx := context.Background()
	reports := map[string]journal.Report{}
	for name, dir := range s.r.Journals {
		report, err := verifyStill(ctx, dir)
		if err != nil {
			s.fault("the journal of zegel-%s at the end: %v", name, err)
			return
		}
		reports[name] = report
		s.figures.add("journal entries of zegel-"+name, int(report.Entries))
		if file, err := os.Stat(filepath.Join(dir, "journal.db")); err != nil {
			s.fault("%v", err)
		} else {
			s.figures.add("journal of zegel-"+name+" in kB", int(file.Size()/1000))
		}
	}
	kept, root, err := readCAJournal(s.r.Journals["ca"], reports["ocsp"].Entries)
	if err != nil {
		s.fault("the CA's journal: %v", err)
		return
	}
	if root != reports["ocsp"].Root {
		s.fault("the replica's root at %d entries is %s, the CA's is %s", reports["ocsp"].Entries, reports["ocsp"].Root, root)
	}
	s.checkRecorded(kept)
	s.checkTokens()
}

// checkRecorded wants what clients were given to be what the CA's journal says.
func (s *soak) checkRecorded(kept recorded) {
	for serial, c := range s.book.certs {
		if kept.issued[serial] != c.digest {
			s.fault("%s was handed out, and is not in the journal with those bytes", serial)
		}
		if at := kept.revoked[serial]; !at.Equal(c.revokedAt) {
			s.fault("%s: the journal has its revocation at %v, acknowledged was %v", serial, at, c.revokedAt)
		}
	}
	id, err := issuerID(s.issuer)
	if err != nil {
		s.fault("%v", err)
	}
	for number, digest := range s.book.crls {
		if kept.crls[crlName{id, number}] != digest {
			s.fault("CRL %d was fetched, and is not in the journal with those bytes", number)
		}
	}
}

// crlName names a CRL: the root has its own.
type crlName struct {
	issuer journal.IssuerID
	number uint64
}

// recorded is what the CA's journal says.
type recorded struct {
	issued   map[string][32]byte
	revoked  map[string]time.Time
	crls     map[crlName][32]byte
	intended map[string]bool
	numbers  map[journal.IssuerID]uint64 // last CRL number reserved
}

// readCAJournal collects what the journal says, and computes the root of its first size entries from the leaves.
func readCAJournal(dir string, size uint64) (kept recorded, root string, err error) {
	j, err := journal.OpenReadOnly(dir)
	if err != nil {
		return kept, "", err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	kept = recorded{issued: map[string][32]byte{}, revoked: map[string]time.Time{}, crls: map[crlName][32]byte{}, intended: map[string]bool{},
		numbers: map[journal.IssuerID]uint64{}}
	var hashes []tlog.Hash
	stored := tlog.HashReaderFunc(func(indexes []int64) (list []tlog.Hash, err error) {
		for _, i := range indexes {
			list = append(list, hashes[i])
		}
		return list, nil
	})
	for e, err := range j.Entries(0) {
		if err != nil {
			return kept, "", err
		}
		if e.Index < size {
			more, err := tlog.StoredHashes(int64(e.Index), e.Leaf, stored)
			if err != nil {
				return kept, "", err
			}
			hashes = append(hashes, more...)
		}
		if err := kept.enter(e); err != nil {
			return kept, "", err
		}
	}
	hash, err := tlog.TreeHash(int64(size), stored)
	return kept, fmt.Sprintf("%x", hash[:]), err
}

// enter takes one entry in; its error is what no journal may hold.
func (k *recorded) enter(e journal.Entry) error {
	switch event := e.Event.(type) {
	case journal.CertificateIntended:
		if serial := event.Serial.String(); k.intended[serial] {
			return fmt.Errorf("entry %d: the serial %s is there twice", e.Index, serial)
		}
		k.intended[event.Serial.String()] = true
	case journal.CertificateIssued:
		if serial := event.Serial.String(); k.issued[serial] != [32]byte{} || !k.intended[serial] {
			return fmt.Errorf("entry %d: %s was issued before, or without an intent", e.Index, serial)
		}
		k.issued[event.Serial.String()] = event.CertificateHash
	case journal.CertificateRevoked:
		k.revoked[event.Serial.String()] = e.Time
	case journal.CRLReserved:
		if last := k.numbers[event.Issuer]; event.Number <= last {
			return fmt.Errorf("entry %d: the CRL number %d follows %d", e.Index, event.Number, last)
		}
		k.numbers[event.Issuer] = event.Number
	case journal.CRLIssued:
		name := crlName{event.Issuer, event.Number}
		if _, there := k.crls[name]; there || event.Number > k.numbers[event.Issuer] {
			return fmt.Errorf("entry %d: a second CRL %d, or one whose number was not reserved", e.Index, event.Number)
		}
		k.crls[name] = event.Hash
	}
	return nil
}

// checkTokens wants every token that was received in the TSA's journal, as it was and not before its genTime, and no serial twice.
func (s *soak) checkTokens() {
	j, err := journal.OpenReadOnly(s.r.Journals["tsa"])
	if err != nil {
		s.fault("the TSA's journal: %v", err)
		return
	}
	defer j.Close()
	missing := maps.Clone(s.book.tokens)
	serials := map[string]bool{}
	for e, err := range j.Entries(0) {
		if err != nil {
			s.fault("the TSA's journal: %v", err)
			return
		}
		issued, ok := e.Event.(journal.TimestampIssued)
		if !ok {
			continue
		}
		serial := issued.Serial.String()
		if serials[serial] {
			s.fault("entry %d of the TSA's journal: the serial %s is there twice", e.Index, serial)
		}
		serials[serial] = true
		token, received := s.book.tokens[serial]
		if received && (token.digest != issued.TokenHash || !token.genTime.Equal(issued.GenTime) || e.Time.Before(token.genTime.Truncate(time.Millisecond))) {
			s.fault("token %s of %v: entry %d of %v records another, of %v", serial, token.genTime, e.Index, e.Time, issued.GenTime)
		}
		delete(missing, serial)
	}
	if len(missing) > 0 {
		s.fault("%d tokens are not in the TSA's journal, among them %v", len(missing), slices.Sorted(maps.Keys(missing))[0])
	}
	s.figures.add("tokens recorded that no client received", len(serials)-len(s.book.tokens))
}

func issuerID(issuer *x509.Certificate) (id journal.IssuerID, err error) {
	var key struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return id, err
	}
	return journal.NewIssuerID(issuer.RawSubject, key.Key.Bytes), nil
}
