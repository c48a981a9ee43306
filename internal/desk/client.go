package desk

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxReply bounds what a client reads: a page of 10,000 certificates is some 6 MB.
const maxReply = 64 << 20

// Client calls a daemon's admin listener. Safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// NewClient makes a client for the admin listener at base (https://host:port). config carries the
// officer's certificate and the CA that the daemon's certificate must come from.
func NewClient(base string, config *tls.Config) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("read admin URL %q: want https://host:port", base)
	}
	// A verification of a long journal takes minutes, so only the phases before the answer are timed here;
	// the caller's ctx bounds the rest.
	transport := &http.Transport{
		TLSClientConfig:     config.Clone(),
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		MaxIdleConnsPerHost: 16,
		ForceAttemptHTTP2:   true,
	}
	return &Client{base: strings.TrimRight(base, "/"), http: &http.Client{Transport: transport}}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Issue asks for a certificate, or with Plan for what it would be.
func (c *Client) Issue(ctx context.Context, r IssueRequest) (IssueReply, error) {
	var reply IssueReply
	return reply, c.call(ctx, http.MethodPost, "/v1/certificates", r, &reply)
}

// Revoke asks for a revocation. When it returns nil the revocation is on the published CRL.
func (c *Client) Revoke(ctx context.Context, serial string, r RevokeRequest) (Certificate, error) {
	var reply Certificate
	return reply, c.call(ctx, http.MethodPost, "/v1/certificates/"+url.PathEscape(serial)+"/revoke", r, &reply)
}

// Certificate looks one up by serial.
func (c *Client) Certificate(ctx context.Context, serial string) (Certificate, error) {
	var reply Certificate
	return reply, c.call(ctx, http.MethodGet, "/v1/certificates/"+url.PathEscape(serial), nil, &reply)
}

// Certificates returns every certificate that s selects, asking page by page. With s.Limit set it
// returns one page of that length.
func (c *Client) Certificates(ctx context.Context, s Search) ([]Certificate, error) {
	var all []Certificate
	for {
		page, err := c.CertificatePage(ctx, s)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Certificates...)
		if page.Next == "" || s.Limit > 0 {
			return all, nil
		}
		s.After = page.Next
	}
}

// CertificatePage returns one page of a search.
func (c *Client) CertificatePage(ctx context.Context, s Search) (CertificateList, error) {
	q := url.Values{}
	for name, value := range map[string]string{
		"profile": s.Profile, "subject": s.Subject, "status": s.Status, "after": s.After,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if !s.ExpiresBefore.IsZero() {
		q.Set("expires_before", s.ExpiresBefore.UTC().Format(time.RFC3339))
	}
	if s.Limit > 0 {
		q.Set("limit", strconv.Itoa(s.Limit))
	}
	var reply CertificateList
	return reply, c.call(ctx, http.MethodGet, withQuery("/v1/certificates", q), nil, &reply)
}

// IssueCRL publishes a CRL now.
func (c *Client) IssueCRL(ctx context.Context) (CRLReply, error) {
	var reply CRLReply
	return reply, c.call(ctx, http.MethodPost, "/v1/crl", struct{}{}, &reply)
}

// RecordKeyDuty has the CA record what was done to a key. When it returns nil the journal holds it.
func (c *Client) RecordKeyDuty(ctx context.Context, duty KeyDuty) (KeyDutyReply, error) {
	var reply KeyDutyReply
	return reply, c.call(ctx, http.MethodPost, "/v1/key-duties", duty, &reply)
}

// MayRecordKeyDuty reports, by a nil error, that RecordKeyDuty would be heard: the CA is there and ready, and the officer has the role. It sends a
// duty without an act, which the CA refuses as unreadable once it has looked at the role, so that nothing is recorded.
func (c *Client) MayRecordKeyDuty(ctx context.Context) error {
	_, err := c.RecordKeyDuty(ctx, KeyDuty{})
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
		return nil
	}
	return err
}

// VerifyJournal has the daemon verify its own journal. Faults are in the report, not in the error.
func (c *Client) VerifyJournal(ctx context.Context) (Report, error) {
	var reply Report
	return reply, c.call(ctx, http.MethodGet, "/v1/journal/verify", nil, &reply)
}

// Checkpoint returns a signed checkpoint of the journal: the text of a C2SP signed note.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	var text []byte
	return text, c.call(ctx, http.MethodGet, "/v1/journal/checkpoint", nil, &text)
}

// Entries returns a page of journal entries with an index of after or more; limit 0 means 100.
func (c *Client) Entries(ctx context.Context, after uint64, limit int) (EntryList, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var reply EntryList
	return reply, c.call(ctx, http.MethodGet, withQuery("/v1/journal/entries", q), nil, &reply)
}

// Status asks a daemon for its state. Every daemon answers it.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var reply Status
	return reply, c.call(ctx, http.MethodGet, "/v1/status", nil, &reply)
}

func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// call sends body, if any, as JSON and reads the reply into out: JSON, or as it is into a *[]byte.
func (c *Client) call(ctx context.Context, method, path string, body, out any) error {
	var reader io.Reader
	if body != nil {
		text, ready := body.(json.RawMessage) // as it is: Marshal would leave a copy of it behind
		if !ready {
			var err error
			if text, err = json.Marshal(body); err != nil {
				return fmt.Errorf("write request: %w", err)
			}
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("reach %s: %w: start the daemon, or correct the URL in the configuration", c.base, unwrapURL(err))
	}
	if err != nil {
		return fmt.Errorf("reach %s: %w", c.base, unwrapURL(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply+1))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	if len(text) > maxReply {
		return fmt.Errorf("read the answer of %s: longer than %d octets", c.base, maxReply)
	}
	if response.StatusCode != http.StatusOK {
		return readError(c.base, response.StatusCode, text)
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = text
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	return nil
}

// readError makes an *Error of any answer that is not 200, also of one that no daemon of ours wrote.
func readError(base string, status int, text []byte) error {
	e := &Error{}
	if err := json.Unmarshal(text, e); err != nil || e.Message == "" {
		e = &Error{Message: fmt.Sprintf("%s answered %d %s", base, status, http.StatusText(status))}
	}
	e.Status = status
	return e
}

// unwrapURL drops the method and address that url.Error puts before the cause: the caller names them.
func unwrapURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// ExitStatus is the exit status of a command that ended with err, the same for every binary:
// 0 done, 1 failed, 2 input that cannot be read, 3 refused by policy.
func ExitStatus(err error) int {
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return 1
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return 2
	case http.StatusUnprocessableEntity:
		return 3
	}
	return 1
}
