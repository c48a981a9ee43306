package main

import (
	"bytes"
	"context"
	"crypto"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/testdata/request"
	"github.com/zegel-tsp/zegel/tsa"
)

func tlsRoots(pool *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
}

// readOrders makes an order of what the demo issued, one of every profile.
func (s *soak) readOrders() {
	for _, c := range s.r.Certificates {
		if c.Status != "good" {
			continue
		}
		subject, err := request.Example(c.Profile)
		if err != nil {
			s.t.Fatal(err)
		}
		csr, err := os.ReadFile(filepath.Join(s.r.dir, "subscribers", c.Profile+".csr"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.orders = append(s.orders, desk.IssueRequest{Profile: c.Profile, CSR: string(csr), Subject: string(subject), SubjectName: "load"})
	}
}

// load asks everything of everybody until ctx ends.
func (s *soak) load(ctx context.Context, working *sync.WaitGroup) {
	start := func(perSecond float64, workers int, do func()) {
		for range workers {
			working.Go(func() {
				tick := time.NewTicker(time.Duration(float64(workers) / perSecond * float64(time.Second)))
				defer tick.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
						do()
					}
				}
			})
		}
	}
	start(issuesPerSecond, 8, s.issue)
	start(burstsPerSecond, 1, s.revokeSome)
	start(questionsPerSecond, 8, s.askStatus)
	start(timestampsPerSecond, 8, s.timestamp)
	start(fetchesPerSecond, 1, s.fetchCRL)
	start(ordersPerSecond, 1, s.orderCRL)
}

// asked is one request to a daemon: where it stood when the request began.
type asked struct {
	*victim
	what  string
	epoch int64
	at    time.Time
}

func (s *soak) asking(name, what string) asked {
	v := s.daemons[name]
	return asked{v, what, v.epoch.Load(), time.Now()}
}

// killed reports whether the daemon was, at any moment since the request began.
func (a asked) killed() bool { return a.epoch%2 == 1 || a.victim.epoch.Load() != a.epoch }

// done counts what was answered, and holds what was not against the kills: an error is that a daemon is not there or that it
// stops, at the time that it did. A 4xx refuses work that is sound.
func (a asked) done(err error) bool {
	if err == nil {
		a.figures.count(a.what)
		return true
	}
	a.figures.count(a.what + ", not answered")
	var refused *desk.Error
	switch {
	case errors.As(err, &refused) && refused.Status < 500:
		a.fault("%s: sound work was refused (%d): %v", a.what, refused.Status, err)
	case !a.killed():
		a.fault("%s: zegel-%s was up all the while: %v", a.what, a.name, err)
	}
	return false
}

// brief bounds one exchange.
func brief() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

// issue has one certificate made.
func (s *soak) issue() {
	ctx, cancel := brief()
	defer cancel()
	a := s.asking("ca", "certificates")
	reply, err := s.ca.Issue(ctx, s.orders[rand.IntN(len(s.orders))])
	if !a.done(err) {
		return
	}
	block, _ := pem.Decode([]byte(reply.Cert))
	if block == nil {
		s.fault("certificate %s: no PEM: %+v", reply.Serial, reply)
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		err = cert.CheckSignatureFrom(s.issuer)
	}
	if err == nil && serialText(cert.SerialNumber) != reply.Serial {
		err = fmt.Errorf("it has the serial %x", cert.SerialNumber)
	}
	if err != nil || reply.Status != desk.StatusIssued {
		s.fault("certificate %s, %s: %v", reply.Serial, reply.Status, err)
		return
	}
	if !s.book.issued(reply.Serial, sha256.Sum256(block.Bytes)) {
		s.fault("the serial %s was handed out twice", reply.Serial)
	}
}

func serialText(n *big.Int) string { return hex.EncodeToString(n.Bytes()) }

// revokeSome revokes a burst of certificates, each until that is acknowledged.
func (s *soak) revokeSome() {
	var all sync.WaitGroup
	for _, serial := range s.book.takeToRevoke(burst) {
		all.Go(func() { s.revoke(serial) })
	}
	all.Wait()
}

// revoke asks until the CA acknowledges, as an officer would. That it is revoked already is a true answer once an earlier request was
// cut off.
func (s *soak) revoke(serial string) {
	for attempt := 0; ; attempt++ {
		ctx, cancel := brief()
		defer cancel()
		a := s.asking("ca", "revocations")
		reply, err := s.ca.Revoke(ctx, serial, desk.RevokeRequest{Reason: "superseded"})
		var refused *desk.Error
		visible := true
		if attempt > 0 && errors.As(err, &refused) && refused.Status == http.StatusConflict {
			visible = false
			a.what = "revocations, found done"
			reply, err = s.ca.Certificate(ctx, serial)
		}
		if a.done(err) {
			if reply.Status != "revoked" || reply.RevokedAt == nil {
				s.fault("revoke %s: acknowledged as %s", serial, reply.Status)
				return
			}
			s.book.acknowledge(serial, *reply.RevokedAt, visible)
			return
		}
		if attempt > 600 {
			s.fault("revoke %s: not acknowledged after %d attempts: %v", serial, attempt, err)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// exchange posts, or gets where there is no body, and wants 200.
func (s *soak) exchange(address, contentType string, body []byte) ([]byte, error) {
	var resp *http.Response
	var err error
	if contentType == "" {
		resp, err = s.http.Get(address)
	} else {
		resp, err = s.http.Post(address, contentType, bytes.NewReader(body))
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: HTTP %s", address, resp.Status)
	}
	return answer, err
}

// askStatus asks OCSP of a certificate, with and without nonce, by POST and by GET.
func (s *soak) askStatus() {
	withNonce := rand.IntN(2) == 0
	if serial, ok := s.book.choose(withNonce); ok {
		s.status(serial, withNonce, rand.IntN(2) == 0)
	}
}

// status asks once and judges the answer; it returns what was said, or "" where nothing was.
func (s *soak) status(serial string, withNonce, get bool) string {
	number, _ := new(big.Int).SetString(serial, 16)
	question, nonce, err := statusRequest(number, s.issuer, withNonce)
	if err != nil {
		s.fault("make an OCSP request: %v", err)
		return ""
	}
	a := s.asking("ocsp", "OCSP")
	before := s.book.about(serial)
	var answer []byte
	if get {
		answer, err = s.exchange(s.r.OCSPURL+url.PathEscape(base64.StdEncoding.EncodeToString(question)), "", nil)
	} else {
		answer, err = s.exchange(s.r.OCSPURL, "application/ocsp-request", question)
	}
	if err != nil {
		a.done(err)
		return ""
	}
	parsed, err := ocsp.ParseResponseForCert(answer, &x509.Certificate{SerialNumber: number}, s.issuer)
	var refused ocsp.ResponseError
	if errors.As(err, &refused) && refused.Status == ocsp.TryLater {
		s.figures.count("OCSP tryLater")
		return ""
	}
	if err != nil {
		a.done(fmt.Errorf("OCSP of %s: %w", serial, err))
		return ""
	}
	said := map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}[parsed.Status]
	a.what = "OCSP " + said
	a.done(nil)
	if withNonce != bytes.Contains(parsed.TBSResponseData, nonce) {
		s.fault("OCSP of %s: the nonce is not the one that was sent", serial)
	}
	s.book.heard(answerOf{serial: serial, before: before, said: said, asked: a.at, response: parsed})
	return said
}

var oidNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}

// statusRequest makes an OCSPRequest (RFC 6960 §4.1.1) and the DER of its nonce's Extension (RFC 9654), which is made without a nonce
// too, to be looked for in vain.
func statusRequest(serial *big.Int, issuer *x509.Certificate, withNonce bool) (question, nonce []byte, err error) {
	question, err = ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, issuer, &ocsp.RequestOptions{Hash: crypto.SHA256})
	if err != nil {
		return nil, nil, err
	}
	random := make([]byte, 32)
	crand.Read(random)
	var extension cryptobyte.Builder
	extension.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidNonce)
		b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(random) })
	})
	if nonce, err = extension.Bytes(); err != nil || !withNonce {
		return question, nonce, err
	}
	var outer, tbs, list cryptobyte.String
	in := cryptobyte.String(question)
	if !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1(&tbs, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&list, cbasn1.SEQUENCE) {
		return nil, nil, errors.New("what x/crypto made is no OCSPRequest")
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(list)
			b.AddASN1(cbasn1.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(nonce) })
			})
		})
	})
	question, err = b.Bytes()
	return question, nonce, err
}

// timestamp has a random digest stamped, over HTTP and HTTPS, and verifies the token.
func (s *soak) timestamp() {
	hash := []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}[rand.IntN(3)]
	r := tsa.Request{Hash: hash, Digest: make([]byte, hash.Size()), Nonce: tsa.NewNonce(), CertReq: rand.IntN(2) == 0}
	crand.Read(r.Digest)
	policy, err := der.ParseOID(s.r.TSAPolicy)
	if err == nil && rand.IntN(2) == 0 {
		r.Policy = policy
	}
	question, err2 := tsa.NewRequest(r)
	if err := errors.Join(err, err2); err != nil {
		s.fault("make a TimeStampReq: %v", err)
		return
	}
	address := s.r.TSAURL
	if rand.IntN(4) == 0 {
		address = s.r.TSAHTTPSURL
	}
	o := s.trust
	o.Hash, o.Digest, o.Nonce, o.Policy = r.Hash, r.Digest, r.Nonce, policy
	a := s.asking("tsa", "timestamps")
	before := s.book.lastGenTime()
	o.Since = a.at
	answer, err := s.exchange(address, "application/timestamp-query", question)
	o.Now = time.Now()
	if err != nil {
		a.done(err)
		return
	}
	token, err := tsa.Verify(answer, o)
	var refused *tsa.Rejection
	if errors.As(err, &refused) && slices.Equal(refused.FailInfo, []tsa.PKIFailureInfo{tsa.TimeNotAvailable}) {
		s.figures.count("timestamps, timeNotAvailable")
		return
	}
	if !a.done(err) {
		if refused == nil {
			s.fault("a token that does not verify: %v", err)
		}
		return
	}
	s.book.stamped(token, before, o)
}

// fetchCRL reads what a relying party would.
func (s *soak) fetchCRL() {
	last, listed := s.book.crlSoFar()
	raw, err := s.exchange(s.r.CRLURL, "", nil)
	if err != nil { // the demo itself serves it, and nobody kills the demo
		s.fault("fetch the CRL: %v", err)
		return
	}
	s.figures.count("CRLs fetched")
	crl, err := x509.ParseRevocationList(raw)
	if err == nil {
		err = crl.CheckSignatureFrom(s.issuer)
	}
	if err != nil || crl.Number == nil || !crl.Number.IsUint64() {
		s.fault("the CRL that was fetched: %v", err)
		return
	}
	number := crl.Number.Uint64()
	if number < last {
		s.fault("CRL %d after CRL %d", number, last)
	}
	if !s.book.fetched(number, sha256.Sum256(raw)) {
		s.fault("two lists have the number %d", number)
	}
	on := make(map[string]bool, len(crl.RevokedCertificateEntries))
	for _, e := range crl.RevokedCertificateEntries {
		on[serialText(e.SerialNumber)] = true
	}
	for _, serial := range listed {
		if !on[serial] {
			s.fault("%s was acknowledged as revoked before CRL %d was fetched, and is not on it", serial, number)
		}
	}
}

// orderCRL is an officer's zegel crl.
func (s *soak) orderCRL() {
	ctx, cancel := brief()
	defer cancel()
	last, _ := s.book.crlSoFar()
	a := s.asking("ca", "CRLs ordered")
	reply, err := s.ca.IssueCRL(ctx)
	if a.done(err) && reply.Number <= last {
		s.fault("the CRL that was ordered has number %d, there was one with %d", reply.Number, last)
	}
}

// faultsIn looks for what no daemon should write, whatever was done to it.
func faultsIn(log string) (found []string) {
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "contradicts") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
