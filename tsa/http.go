package tsa

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

// Media types of RFC 3161 §3.4.
const (
	MediaTypeQuery = "application/timestamp-query"
	MediaTypeReply = "application/timestamp-reply"
)

// maxDiscard bounds what is read and thrown away of a body that is too long, in octets: a client that is still sending
// does not read the answer. Beyond it the connection is cut.
const maxDiscard = 32 << 20

// ServeHTTP answers a POST with a TimeStampResp and status 200, whatever it holds (RFC 3161 §3.4). Other methods get 405.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "send a TimeStampReq by POST as "+MediaTypeQuery, http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxRequest+1))
	if err != nil {
		body = nil // half a request is none
	}
	if len(body) > MaxRequest {
		io.CopyN(io.Discard, r.Body, maxDiscard)
	}
	response := a.respondTo(r.Context(), r.Header.Get("Content-Type"), body)
	w.Header().Set("Content-Type", MediaTypeReply)
	w.Header().Set("Content-Length", strconv.Itoa(len(response)))
	w.Header().Set("Cache-Control", "no-store")
	w.Write(response) // a client that went away gets nothing
}

// respondTo refuses what does not claim to be a query: a browser's form, say.
func (a *Authority) respondTo(ctx context.Context, contentType string, body []byte) []byte {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != MediaTypeQuery {
		return a.refuse(fmt.Errorf("%w: Content-Type is not %s", errBadDataFormat, MediaTypeQuery))
	}
	return a.Respond(ctx, body)
}
