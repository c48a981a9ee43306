package tsa

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// zeros is an endless body of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// post sends body and returns what came back.
func post(t *testing.T, url, contentType string, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	response, err := http.Post(url, contentType, body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, got
}

// TestHTTP has every POST answered with a TimeStampResp and status 200, and the next good request work.
func TestHTTP(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	server := httptest.NewServer(b)
	defer server.Close()
	good := goodRequest().marshal()
	for _, tt := range []struct {
		name, contentType string
		body              io.Reader
		granted           bool
		want              PKIFailureInfo
	}{
		{"good", MediaTypeQuery, bytes.NewReader(good), true, 0},
		{"with parameter", "Application/Timestamp-Query; charset=binary", bytes.NewReader(good), true, 0},
		{"other content type", "application/x-www-form-urlencoded", bytes.NewReader(good), false, BadDataFormat},
		{"no content type", "", bytes.NewReader(good), false, BadDataFormat},
		{"empty", MediaTypeQuery, nil, false, BadDataFormat},
		{"garbage", MediaTypeQuery, strings.NewReader("stamp me"), false, BadDataFormat},
		{"truncated", MediaTypeQuery, bytes.NewReader(good[:20]), false, BadDataFormat},
		{"10 MB", MediaTypeQuery, io.LimitReader(zeros{}, 10<<20), false, BadDataFormat},
		{"10 MB after a good request", MediaTypeQuery, io.MultiReader(bytes.NewReader(good), io.LimitReader(zeros{}, 10<<20)), false, BadDataFormat},
		{"good again", MediaTypeQuery, bytes.NewReader(good), true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			response, body := post(t, server.URL, tt.contentType, tt.body)
			if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != MediaTypeReply {
				t.Errorf("HTTP %d, %s", response.StatusCode, response.Header.Get("Content-Type"))
			}
			if tt.granted {
				if _, err := Verify(body, VerifyOptions{Roots: b.ca.roots(), Certificates: append(b.unit.Chain, b.unit.Certificate)}); err != nil {
					t.Error(err)
				}
				return
			}
			if r := refused(t, body); r.FailInfo[0] != tt.want {
				t.Errorf("got %v, want %v", r, tt.want)
			}
		})
	}
}

// TestHTTPMethods has everything but POST be 405, with the method that is allowed.
func TestHTTPMethods(t *testing.T) {
	b := newBench(t, newP256(t), nil)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(method, "/", bytes.NewReader(goodRequest().marshal())))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPost {
			t.Errorf("%s: HTTP %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
}
