package ca

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// Pages of a search. scanned bounds what one pass over the index keeps (some 200 octets each): bodies
// are opened only after the pass, because it holds a read transaction.
const (
	defaultPage = 1000
	maxPage     = 10000
	scanned     = 50000

	defaultEntries = 100
	maxEntries     = 1000
)

// statuses are the names a search knows.
var statuses = []journal.Status{journal.Intended, journal.Issued, journal.Revoked, journal.Abandoned}

// list serves GET /v1/certificates.
func (d *deskHandler) list(c *call) (any, error) {
	search, err := readSearch(c.URL.RawQuery)
	if err != nil {
		return nil, unreadable{err}
	}
	reply := desk.CertificateList{Certificates: []desk.Certificate{}}
	after := journal.Serial("")
	if search.After != "" {
		if after, err = journal.ParseSerial(search.After); err != nil {
			return nil, unreadable{err}
		}
	}
	for {
		candidates, err := d.candidates(search, after)
		if err != nil {
			return nil, err
		}
		for _, candidate := range candidates {
			found := d.describe(candidate, false)
			if !strings.Contains(strings.ToLower(found.Subject), strings.ToLower(search.Subject)) {
				continue
			}
			reply.Certificates = append(reply.Certificates, found)
			if len(reply.Certificates) == search.Limit {
				reply.Next = found.Serial
				return reply, nil
			}
		}
		if len(candidates) < scanned {
			return reply, nil
		}
		if err := c.Context().Err(); err != nil {
			return nil, err
		}
		after = candidates[len(candidates)-1].Serial
	}
}

// candidates returns the first certificates after a serial that match by what the index says.
func (d *deskHandler) candidates(s desk.Search, after journal.Serial) ([]journal.Certificate, error) {
	var list []journal.Certificate
	for c, err := range d.issuer.config.Journal.CertificatesAfter(after) {
		if err != nil {
			return nil, fmt.Errorf("search certificates: %w", err)
		}
		switch {
		case s.Profile != "" && c.Profile != s.Profile,
			s.Status != "" && c.Status.String() != s.Status,
			!s.ExpiresBefore.IsZero() && !c.NotAfter.Before(s.ExpiresBefore):
			continue
		}
		if list = append(list, c); len(list) == scanned {
			break
		}
	}
	return list, nil
}

// readSearch reads the query; a parameter it does not know, or one that stands twice, is refused, so
// that a misspelt filter does not list everything.
func readSearch(query string) (desk.Search, error) {
	s := desk.Search{Limit: defaultPage}
	err := eachParameter(query, func(name, value string) (err error) {
		switch name {
		case "profile":
			s.Profile = value
		case "subject":
			s.Subject = value
		case "status":
			s.Status = value
			if !slices.ContainsFunc(statuses, func(k journal.Status) bool { return k.String() == value }) {
				err = fmt.Errorf("unknown status %q: want one of %v", value, statuses)
			}
		case "expires_before":
			s.ExpiresBefore, err = time.Parse(time.RFC3339, value)
		case "after":
			s.After = value
		case "limit":
			s.Limit, err = readLimit(value, maxPage)
		default:
			err = fmt.Errorf("unknown parameter")
		}
		return err
	})
	return s, err
}

func eachParameter(query string, read func(name, value string) error) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("read query: %w", err)
	}
	for name, list := range values {
		if len(list) != 1 {
			return fmt.Errorf("query parameter %q stands %d times", name, len(list))
		}
		if err := read(name, list[0]); err != nil {
			return fmt.Errorf("query parameter %q: %w", name, err)
		}
	}
	return nil
}

func readLimit(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("want 1 to %d", most)
	}
	return n, nil
}

// entries serves GET /v1/journal/entries: leaves only, no sealed body.
func (d *deskHandler) entries(c *call) (any, error) {
	after, limit := uint64(0), defaultEntries
	err := eachParameter(c.URL.RawQuery, func(name, value string) (err error) {
		switch name {
		case "after":
			after, err = strconv.ParseUint(value, 10, 64)
		case "limit":
			limit, err = readLimit(value, maxEntries)
		default:
			err = fmt.Errorf("unknown parameter")
		}
		return err
	})
	if err != nil {
		return nil, unreadable{err}
	}
	reply := desk.EntryList{Entries: []desk.Entry{}, Next: after, Size: d.issuer.config.Journal.Size()}
	for entry, err := range d.issuer.config.Journal.Entries(after) {
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		kind, facts := entryFacts(entry.Event)
		reply.Entries = append(reply.Entries, desk.Entry{
			Index: entry.Index, Time: entry.Time.UTC(), Kind: kind, Leaf: entry.Leaf, Facts: facts,
		})
		reply.Next = entry.Index + 1
		if len(reply.Entries) == limit {
			break
		}
	}
	return reply, nil
}

// entryFacts names an entry's kind and says what its leaf says.
func entryFacts(event journal.Event) (kind string, facts map[string]string) {
	switch e := event.(type) {
	case journal.DaemonStarted:
		return "DaemonStarted", map[string]string{"daemon": e.Daemon, "version": e.Version,
			"config_sha256": hex.EncodeToString(e.ConfigDigest[:]), "clock_unverified": strconv.FormatBool(e.ClockUnverified)}
	case journal.CeremonyHeld:
		return "CeremonyHeld", map[string]string{"actor": hex.EncodeToString(e.Actor[:]), "report_sha256": hex.EncodeToString(e.ReportDigest[:])}
	case journal.CertificateIntended:
		return "CertificateIntended", map[string]string{"actor": hex.EncodeToString(e.Actor[:]), "serial": e.Serial.String(),
			"profile": e.Profile, "tbs_sha256": hex.EncodeToString(e.TBSDigest[:]), "not_before": factTime(e.NotBefore), "not_after": factTime(e.NotAfter)}
	case journal.CertificateIssued:
		return "CertificateIssued", map[string]string{"serial": e.Serial.String(), "certificate_sha256": hex.EncodeToString(e.CertificateHash[:])}
	case journal.CertificateAbandoned:
		return "CertificateAbandoned", map[string]string{"serial": e.Serial.String()}
	case journal.CertificateRevoked:
		return "CertificateRevoked", revokedFacts(e)
	case journal.CRLReserved:
		return "CRLReserved", map[string]string{"number": strconv.FormatUint(e.Number, 10)}
	case journal.CRLIssued:
		return "CRLIssued", map[string]string{"number": strconv.FormatUint(e.Number, 10), "crl_sha256": hex.EncodeToString(e.Hash[:]),
			"entries": strconv.FormatUint(e.Entries, 10), "this_update": factTime(e.ThisUpdate), "next_update": factTime(e.NextUpdate)}
	case journal.KeyDuty:
		return "KeyDuty", dutyFacts(e)
	}
	return fmt.Sprintf("%T", event), map[string]string{}
}

func revokedFacts(e journal.CertificateRevoked) map[string]string {
	facts := map[string]string{"actor": hex.EncodeToString(e.Actor[:]), "serial": e.Serial.String(),
		"reason": e.Reason.String(), "requested_at": factTime(e.RequestedAt)}
	if !e.InvalidFrom.IsZero() {
		facts["invalid_from"] = factTime(e.InvalidFrom)
	}
	return facts
}

func factTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
