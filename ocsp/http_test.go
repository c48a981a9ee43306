package ocsp

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// serve starts a server and returns its URL without a slash at the end.
func (p *provider) serve() string {
	p.t.Helper()
	s := httptest.NewServer(p.responder)
	p.t.Cleanup(s.Close)
	return s.URL
}

// exchange does one request and returns the response with its body.
func exchange(t testing.TB, method, url string, body io.Reader, headers ...string) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, content
}

// slashed returns a request whose base64 holds "//" and "+" and ends with "=": what ServeMux, and
// servers that take paths for file names, get wrong.
func (p *provider) slashed(serial *big.Int) []byte {
	p.t.Helper()
	// Wherever in a group of three octets it begins, this holds "//" and, by one of its three FB EF BE, "++++".
	runs := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb, 0xef, 0xbe, 0, 0xfb, 0xef, 0xbe, 0, 0xfb, 0xef, 0xbe}
	for n := range 3 {
		padding := der.Extension{ID: unknownID, Value: append(bytes.Clone(runs), make([]byte, n)...)}
		request := requestSpec{list: [][]byte{p.certID(crypto.SHA1, serial)}, single: []der.Extension{padding}}.marshal(p.t)
		text := base64.StdEncoding.EncodeToString(request)
		if strings.Contains(text, "//") && strings.Contains(text, "+") && strings.HasSuffix(text, "=") {
			return request
		}
	}
	p.t.Fatal("no such request")
	return nil
}

func TestGet(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.checkpoint()
	request := p.slashed(serial)
	text := base64.StdEncoding.EncodeToString(request)
	base := p.serve()
	for name, path := range map[string]string{
		"raw":                     "/" + text,
		"percent-encoded":         "/" + url.QueryEscape(text), // %2B %2F %3D
		"slashes alone encoded":   "/" + strings.ReplaceAll(text, "/", "%2F"),
		"after a slash too many":  "//" + text,
		"without padding":         "/" + strings.TrimRight(text, "="),
		"with a slash after it":   "/" + text + "/",
		"lower-case percent code": "/" + strings.ReplaceAll(text, "/", "%2f"),
	} {
		t.Run(name, func(t *testing.T) {
			response, body := exchange(t, "GET", base+path, nil)
			if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/ocsp-response" {
				t.Fatalf("HTTP %v %v", response.Status, response.Header)
			}
			if got := p.mustSucceed(body).singles[0].status.state; got != good {
				t.Errorf("status %v", got)
			}
		})
	}
}

func TestPost(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	base := p.serve()
	for _, contentType := range []string{"application/ocsp-request", "text/plain", ""} {
		response, body := exchange(t, "POST", base+"/", bytes.NewReader(p.request(serial)), "Content-Type", contentType)
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/ocsp-response" ||
			response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("ETag") != "" {
			t.Errorf("content type %q: HTTP %v %v", contentType, response.Status, response.Header)
		}
		p.mustSucceed(body)
	}
}

// What cannot be a request gets the protocol's own error, and the next good one an answer.
func TestGarbage(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	base := p.serve()
	good := p.request(serial)
	for _, c := range []struct {
		name, method, path string
		body               []byte
	}{
		{"GET nothing", "GET", "", nil},
		{"GET slash", "GET", "/", nil},
		{"GET favicon", "GET", "/favicon.ico", nil},
		{"GET base64 of text", "GET", "/aGVsbG8=", nil},
		{"GET dots", "GET", "/../../etc/passwd", nil},
		{"GET with a query", "GET", "/" + base64.StdEncoding.EncodeToString(good) + "?x=1", nil},
		{"GET with an empty query", "GET", "/" + base64.StdEncoding.EncodeToString(good) + "?", nil},
		{"GET with LF", "GET", "/" + base64.StdEncoding.EncodeToString(good) + "%0A", nil},
		{"GET with CR LF within", "GET", "/MEI%0D%0A" + base64.StdEncoding.EncodeToString(good), nil},
		{"GET with two slashes after it", "GET", "/" + base64.StdEncoding.EncodeToString(good) + "//", nil},
		{"GET with padding too much", "GET", "/" + base64.StdEncoding.EncodeToString(good) + "%3D%3D%3D", nil},
		{"GET under a prefix", "GET", "/ocsp/" + base64.StdEncoding.EncodeToString(good), nil},
		{"GET long", "GET", "/" + strings.Repeat("A", 10000), nil},
		{"POST nothing", "POST", "/", nil},
		{"POST text", "POST", "/", []byte("hello")},
		{"POST truncated", "POST", "/", good[:len(good)-1]},
		{"POST with more", "POST", "/", append(bytes.Clone(good), 0)},
		{"POST 16 KiB and 1", "POST", "/", make([]byte, maxRequest+1)},
		{"POST 10 MB", "POST", "/", make([]byte, 10<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			response, body := exchange(t, c.method, base+c.path, bytes.NewReader(c.body))
			if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "application/ocsp-response" ||
				response.Header.Get("Cache-Control") != "no-store" || !bytes.Equal(body, refusal(malformedRequest)) {
				t.Errorf("HTTP %v %v %x", response.Status, response.Header, body)
			}
			_, body = exchange(t, "POST", base, bytes.NewReader(good))
			p.mustSucceed(body)
		})
	}
}

// A client that waits for 100 Continue with a body that is too long is not asked for it.
func TestExpectContinue(t *testing.T) {
	p := newProvider(t, nil)
	address := strings.TrimPrefix(p.serve(), "http://")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(reply, []byte("HTTP/1.1 200 OK")) || !bytes.HasSuffix(reply, refusal(malformedRequest)) {
		t.Errorf("reply %q", reply)
	}
}

// A client that sends its 10 MB to the end before it listens gets the answer, not a reset.
func TestTalkative(t *testing.T) {
	p := newProvider(t, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(p.serve(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10485760\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		time.Sleep(80 * time.Millisecond) // longer, in all, than a server waits that has not read all
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	reply, err := io.ReadAll(c)
	if err != nil || !bytes.HasSuffix(reply, refusal(malformedRequest)) {
		t.Errorf("reply %q, %v", reply, err)
	}
}

// A body that breaks off is malformed, and the server lives on.
func TestBrokenBody(t *testing.T) {
	p := newProvider(t, nil)
	w := httptest.NewRecorder()
	p.responder.ServeHTTP(w, httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader("0"), errReader{})))
	if !bytes.Equal(w.Body.Bytes(), refusal(malformedRequest)) {
		t.Errorf("response %x", w.Body.Bytes())
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestMethods(t *testing.T) {
	p := newProvider(t, nil)
	base := p.serve()
	for _, method := range []string{"PUT", "DELETE", "OPTIONS"} {
		response, _ := exchange(t, method, base+"/", nil)
		if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: HTTP %v %v", method, response.Status, response.Header)
		}
	}
}

// HEAD is a GET without its body.
func TestHead(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.checkpoint()
	url := p.serve() + "/" + base64.StdEncoding.EncodeToString(p.request(serial))
	get, body := exchange(t, "GET", url, nil)
	head, none := exchange(t, "HEAD", url, nil)
	get.Header.Del("Date")
	head.Header.Del("Date")
	if head.StatusCode != http.StatusOK || len(none) != 0 || head.ContentLength != int64(len(body)) || !maps.EqualFunc(get.Header, head.Header, slices.Equal[[]string]) {
		t.Errorf("HEAD: HTTP %v %v, %d octets; GET: %v", head.Status, head.Header, len(none), get.Header)
	}
	if head, _ := exchange(t, "HEAD", url, nil, "If-None-Match", get.Header.Get("ETag")); head.StatusCode != http.StatusNotModified {
		t.Errorf("HEAD with If-None-Match: HTTP %v", head.Status)
	}
}

// RFC 5019 §5: what caches are told of an answer they may keep.
func TestCachingHeaders(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	p.clock.add(10 * time.Minute)
	url := p.serve() + "/" + base64.StdEncoding.EncodeToString(p.request(serial))
	response, body := exchange(t, "GET", url, nil)
	etag := response.Header.Get("ETag")
	for header, want := range map[string]string{
		"Last-Modified": epoch.Format(http.TimeFormat),
		"Expires":       epoch.Add(12 * time.Hour).Format(http.TimeFormat),
		"Cache-Control": "max-age=3600, public, no-transform, must-revalidate",
	} {
		if got := response.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	if len(etag) != 66 || etag[0] != '"' {
		t.Errorf("ETag %q", etag)
	}
	p.mustSucceed(body)
	for _, match := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		response, body := exchange(t, "GET", url, nil, "If-None-Match", match)
		if response.StatusCode != http.StatusNotModified || len(body) != 0 || response.Header.Get("ETag") != etag {
			t.Errorf("If-None-Match %s: HTTP %v, %d octets", match, response.Status, len(body))
		}
	}
	if response, body := exchange(t, "GET", url, nil, "If-None-Match", `"x"`); response.StatusCode != http.StatusOK || len(body) == 0 {
		t.Errorf("If-None-Match of another: HTTP %v", response.Status)
	}
	// From the cache, shortly before the end: max-age does not reach beyond nextUpdate.
	p.clock.add(11*time.Hour + 49*time.Minute)
	response, _ = exchange(t, "GET", url, nil)
	if got := response.Header.Get("Cache-Control"); !strings.HasPrefix(got, "max-age=60,") {
		t.Errorf("a minute before nextUpdate: %q", got)
	}
	// A revocation is another answer with another ETag.
	p.revoke(serial, journal.KeyCompromise)
	p.checkpoint()
	response, body = exchange(t, "GET", url, nil, "If-None-Match", etag)
	if response.StatusCode != http.StatusOK || p.mustSucceed(body).singles[0].status.state != revoked {
		t.Errorf("after the revocation: HTTP %v", response.Status)
	}
}

// No cache keeps an answer with a nonce, one that is unknown, or an error.
func TestNoStore(t *testing.T) {
	p := newProvider(t, nil)
	serial := p.issue()
	base := p.serve()
	withNonce := requestSpec{
		list: [][]byte{p.certID(crypto.SHA1, serial)}, extensions: []der.Extension{nonceExtension(t, make([]byte, 32))},
	}.marshal(t)
	for name, request := range map[string][]byte{
		"nonce": withNonce, "unknown": p.request(big.NewInt(99)), "good and unknown": p.request(serial, big.NewInt(99)), "error": []byte("no"),
	} {
		response, _ := exchange(t, "GET", base+"/"+base64.StdEncoding.EncodeToString(request), nil, "If-None-Match", "*")
		h := response.Header
		if response.StatusCode != http.StatusOK || h.Get("Cache-Control") != "no-store" || h.Get("ETag") != "" || h.Get("Expires") != "" {
			t.Errorf("%s: HTTP %v %v", name, response.Status, h)
		}
	}
}

// FuzzDecodePath: whatever the path, no panic, and what is taken is base64 of what comes out and nothing else.
func FuzzDecodePath(f *testing.F) {
	f.Add("/MEI%2F+//8=")
	f.Add("/%")
	f.Add("/MEI%2F%0D%0A")
	f.Fuzz(func(t *testing.T, path string) {
		request := decodePath(path)
		if request == nil {
			return
		}
		if text, _ := url.PathUnescape(strings.TrimLeft(path, "/")); strings.TrimRight(text, "=") != base64.RawStdEncoding.EncodeToString(request) {
			t.Fatalf("%q read as %x", path, request)
		}
		if again := decodePath("/" + url.PathEscape(base64.StdEncoding.EncodeToString(request))); len(request) > 0 && request[0] == 0x30 && !bytes.Equal(again, request) {
			t.Fatalf("%x, again %x", request, again)
		}
	})
}
