package ca

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// BenchmarkPlan is what a certificate costs before anything is recorded: bytes, rules and lints.
func BenchmarkPlan(b *testing.B) {
	p, _ := newProvider(b)
	order := p.order()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.issuer.Plan(b.Context(), order); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCRL encodes and signs; the journal's part is not in it.
func BenchmarkCRL(b *testing.B) {
	p, _ := newProvider(b)
	for _, n := range []int{1000, 100_000} {
		list := make([]journal.Certificate, n)
		for k := range list {
			serial := make([]byte, 20)
			serial[0] = 1
			binary.BigEndian.PutUint64(serial[12:], uint64(k))
			list[k] = journal.Certificate{Serial: journal.Serial(serial), Status: journal.Revoked, Since: start, Reason: journal.KeyCompromise}
		}
		encode := func(b *testing.B) []byte {
			var entries []byte
			for _, c := range list {
				var err error
				if entries, err = appendRevoked(entries, c); err != nil {
					b.Fatal(err)
				}
			}
			tbs, err := tbsCertList{
				algorithm: p.issuer.policy.Algorithm, issuer: p.cert.RawSubject, keyID: p.cert.SubjectKeyId, number: 1,
				thisUpdate: start, nextUpdate: start, expiredFrom: start, entries: entries,
			}.encode()
			if err != nil {
				b.Fatal(err)
			}
			return tbs
		}
		b.Run(fmt.Sprintf("%d/encode and sign", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := p.issuer.policy.Algorithm.Sign(p.key, encode(b)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("%d/with every check", n), func(b *testing.B) {
			for b.Loop() {
				var entries []byte
				for _, c := range list {
					entries, _ = appendRevoked(entries, c)
				}
				crl, err := p.issuer.signCRL(CRL{Number: 1, ThisUpdate: start, NextUpdate: start, Entries: n}, entries)
				if err != nil {
					b.Fatal(err)
				}
				if n < 10_000 && der.Check(crl) != nil {
					b.Fatal("not canonical")
				}
			}
		})
	}
}
