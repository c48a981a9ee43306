package ocsp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxDiscard is how much of a body that is too long is read, and thrown away, so that a client
	// that sends all before it listens gets its malformedRequest and not a broken connection.
	maxDiscard = 16 << 20

	// A shareable answer may be kept by HTTP caches for this part of the status life, an hour where
	// that is twelve: every cache on the way may add as much to the time until a revocation is seen.
	maxAgePart = 12
)

// ServeHTTP is OCSP over HTTP (RFC 6960 appendix A.1, RFC 5019 §5). Give it to a server as it is: a
// ServeMux rewrites the // that base64 may hold. POST takes the request as the body, whatever its
// content type; GET and HEAD take it in base64 as the path, percent-encoded or raw, and nothing after
// it but one slash. All trouble with a request is an OCSPResponse with HTTP status 200; any other
// method is 405.
func (r *Responder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	switch request.Method {
	case http.MethodGet, http.MethodHead: // net/http keeps the body from a HEAD
		a := r.respond(request.Context(), decodeURL(request.URL))
		if !a.shareable {
			writePrivate(w, a)
			return
		}
		r.writeShared(w, a, request.Header.Get("If-None-Match"))
	case http.MethodPost:
		writePrivate(w, r.respond(request.Context(), readBody(request)))
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "ask by GET or POST (RFC 6960 appendix A.1)", http.StatusMethodNotAllowed)
	}
}

// writePrivate writes an answer that no cache may keep: one with a nonce, one to a POST, one that
// may be another in a moment.
func writePrivate(w http.ResponseWriter, a answer) {
	w.Header().Set("Cache-Control", "no-store")
	writeResponse(w, a)
}

// sharedHeader holds the header fields of a shareable answer that are the same each time it is given. Nobody changes the slices.
type sharedHeader struct{ etag, lastModified, expires []string }

func newSharedHeader(response []byte, v validity) sharedHeader {
	digest := sha256.Sum256(response)
	return sharedHeader{
		etag:         []string{`"` + hex.EncodeToString(digest[:]) + `"`},
		lastModified: []string{v.thisUpdate.Format(http.TimeFormat)},
		expires:      []string{v.nextUpdate.Format(http.TimeFormat)},
	}
}

// writeShared writes an answer that HTTP caches may keep (RFC 5019 §5), or 304 if the client has it.
func (r *Responder) writeShared(w http.ResponseWriter, a answer, ifNoneMatch string) {
	maxAge := max(0, min(a.validity.nextUpdate.Sub(a.given), r.statusLife/maxAgePart)/time.Second)
	h := w.Header()
	h["Last-Modified"], h["Expires"], h["Etag"] = a.header.lastModified, a.header.expires, a.header.etag
	h.Set("Cache-Control", "max-age="+strconv.FormatInt(int64(maxAge), 10)+", public, no-transform, must-revalidate")
	if ifNoneMatch != "" && matches(ifNoneMatch, a.header.etag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	writeResponse(w, a)
}

func writeResponse(w http.ResponseWriter, a answer) {
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Header().Set("Content-Length", strconv.Itoa(len(a.der)))
	_, _ = w.Write(a.der) // whoever hung up does not need it
}

// readBody returns the body, or nil, which is no OCSPRequest, for one that is too long or breaks off.
func readBody(request *http.Request) []byte {
	// A client that waits for 100 Continue is answered before it sends what is not wanted.
	if request.ContentLength > maxRequest && strings.EqualFold(request.Header.Get("Expect"), "100-continue") {
		return nil
	}
	if n := request.ContentLength; 0 <= n && n <= maxRequest {
		body := make([]byte, n) // net/http gives no more than that
		if _, err := io.ReadFull(request.Body, body); err != nil {
			return nil
		}
		return body
	}
	body, err := io.ReadAll(io.LimitReader(request.Body, maxRequest+1))
	if err != nil {
		return nil
	}
	if len(body) > maxRequest {
		_, _ = io.CopyN(io.Discard, request.Body, maxDiscard) // a broken body is as malformed
		return nil
	}
	return body
}

// decodeURL returns the request that is in a GET's path, or nil, which is no OCSPRequest. A query is
// no part of a request: whoever adds one wants an answer past the caches.
func decodeURL(u *url.URL) []byte {
	if u.RawQuery != "" || u.ForceQuery {
		return nil
	}
	// A slash at the end may be base64's or somebody's who takes the path for a folder's.
	path := u.EscapedPath()
	if request := decodePath(path); request != nil {
		return request
	}
	return decodePath(strings.TrimSuffix(path, "/"))
}

// decodePath reads base64 strictly, but for the padding, which may be missing. The slashes before it are the
// server's and the client's, because the first octet of a SEQUENCE makes base64 begin with M.
func decodePath(escaped string) []byte {
	path, err := url.PathUnescape(strings.TrimLeft(escaped, "/"))
	if err != nil || strings.ContainsAny(path, "\r\n") { // which encoding/base64 skips
		return nil
	}
	encoding := base64.StdEncoding
	if !strings.HasSuffix(path, "=") {
		encoding = base64.RawStdEncoding
	}
	request, err := encoding.Strict().DecodeString(path)
	if err != nil {
		return nil
	}
	return request
}

// matches reports whether If-None-Match names etag (RFC 9110 §13.1.2, weak comparison).
func matches(ifNoneMatch, etag string) bool {
	for tag := range strings.SplitSeq(ifNoneMatch, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}
