package ocsp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/zegel-tsp/zegel/internal/der"
)

// benchRespond asks the same again and again, from all processors.
func benchRespond(b *testing.B, key crypto.Signer, nonce bool) {
	p := newProviderAt(b, epoch, key, nil)
	spec := requestSpec{list: [][]byte{p.certID(crypto.SHA1, p.issue())}}
	if nonce {
		spec.extensions = []der.Extension{nonceExtension(b, make([]byte, 32))}
	}
	request := spec.marshal(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if response := p.responder.Respond(b.Context(), request); len(response) < 100 {
				b.Errorf("response %x", response)
				return
			}
		}
	})
}

func rsa3072(b *testing.B) crypto.Signer {
	b.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

func BenchmarkRespondLiveP256(b *testing.B)    { benchRespond(b, newKey(b), true) }
func BenchmarkRespondLiveRSA3072(b *testing.B) { benchRespond(b, rsa3072(b), true) }
func BenchmarkRespondCached(b *testing.B)      { benchRespond(b, newKey(b), false) }

// BenchmarkSign is what of BenchmarkRespondLiveP256 is the key's: signature and its verification.
func BenchmarkSignP256(b *testing.B)    { benchSign(b, newKey(b)) }
func BenchmarkSignRSA3072(b *testing.B) { benchSign(b, rsa3072(b)) }

func benchSign(b *testing.B, key crypto.Signer) {
	a, err := der.AlgorithmFor(key.Public(), "")
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 400)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := a.Sign(key, message); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	p := newProvider(b, nil)
	request := p.request(p.issue())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRequest(request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHTTP is client and server over loopback, keep-alive, answers from the cache.
func BenchmarkHTTP(b *testing.B) {
	for _, method := range []string{"GET", "POST"} {
		b.Run(method, func(b *testing.B) {
			p := newProvider(b, nil)
			request := p.request(p.issue())
			server := httptest.NewServer(p.responder)
			b.Cleanup(server.Close)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			url := server.URL + "/"
			if method == "GET" {
				url += base64.StdEncoding.EncodeToString(request)
			}
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := ask(client, method, url, request); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func ask(client *http.Client, method, url string, request []byte) error {
	var body io.Reader
	if method == "POST" {
		body = bytes.NewReader(request)
	}
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return err
}
