package ocsp

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

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

// BenchmarkServeHTTP is the handler alone, answers from the cache: what net/http adds is measured from outside (make bench).
func BenchmarkServeHTTP(b *testing.B) {
	p := newProvider(b, nil)
	question := p.request(p.issue())
	get := httptest.NewRequest(http.MethodGet, "/"+base64.StdEncoding.EncodeToString(question), nil)
	post := httptest.NewRequest(http.MethodPost, "/", nil)
	post.ContentLength = int64(len(question))
	for _, r := range []*http.Request{get, post} {
		b.Run(r.Method, func(b *testing.B) {
			b.ReportAllocs()
			w := &discarding{header: make(http.Header)}
			for b.Loop() {
				clear(w.header)
				r.Body = io.NopCloser(bytes.NewReader(question))
				p.responder.ServeHTTP(w, r)
			}
			if w.octets/b.N < 100 {
				b.Fatal("refused")
			}
		})
	}
}

// discarding is a ResponseWriter that costs nothing.
type discarding struct {
	header http.Header
	octets int
}

func (w *discarding) Header() http.Header { return w.header }
func (w *discarding) WriteHeader(int)     {}
func (w *discarding) Write(b []byte) (int, error) {
	w.octets += len(b)
	return len(b), nil
}
