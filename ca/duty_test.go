package ca

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// A destruction as the officers' tool records it: the intent, the outcome that closes it, and no second one.
func TestKeyDuty(t *testing.T) {
	d := newOfficerDesk(t)
	ctx, officer := t.Context(), d.clients[desk.SecurityOfficer]
	key := strings.Repeat("0A", 32)
	details := map[string]string{"token": "issuing", "label": "ca-2026"}
	intent, err := officer.RecordKeyDuty(ctx, desk.KeyDuty{Act: "destroying", PublicKeySHA256: key, Details: details})
	if err != nil || intent.Entry == 0 || intent.Time.IsZero() {
		t.Fatalf("%+v, %v", intent, err)
	}
	if report, err := officer.VerifyJournal(ctx); err != nil || !report.OK || report.OpenKeyDuties != 1 {
		t.Errorf("report %+v, %v", report, err)
	}
	done := time.Now().Add(-time.Second).UTC().Truncate(time.Second)
	outcome := desk.KeyDuty{Act: "destroyed", PublicKeySHA256: strings.ToLower(key), Intent: &intent.Entry, DoneAt: &done, Details: details}
	closed, err := officer.RecordKeyDuty(ctx, outcome)
	if err != nil {
		t.Fatal(err)
	}
	event, err := d.journal.Opened(closed.Entry)
	if err != nil {
		t.Fatal(err)
	}
	want := journal.KeyDuty{Actor: d.actors[desk.SecurityOfficer], Act: journal.KeyDestroyed, Intent: intent.Entry, DoneAt: done,
		Details: []byte(`{"label":"ca-2026","token":"issuing"}`)}
	for i := range want.PublicKey {
		want.PublicKey[i] = 0x0a
	}
	if diff := cmp.Diff(journal.Event(want), event); diff != "" {
		t.Error(diff)
	}
	_, err = officer.RecordKeyDuty(ctx, outcome)
	if e := refusal(t, err); e.Status != http.StatusConflict || !strings.Contains(e.Message, "has closed the intent") {
		t.Errorf("a second outcome: %d %s", e.Status, e.Message)
	}
	if report, err := officer.VerifyJournal(ctx); err != nil || !report.OK || report.OpenKeyDuties != 0 {
		t.Errorf("report %+v, %v", report, err)
	}
	page, err := officer.Entries(ctx, closed.Entry, 1)
	if err != nil || len(page.Entries) != 1 {
		t.Fatal(page, err)
	}
	if facts := page.Entries[0].Facts; facts["act"] != "destroyed" || facts["public_key_sha256"] != strings.ToLower(key) || facts["intent"] == "" || facts["done_at"] == "" {
		t.Errorf("facts %v", facts)
	}
}

func TestKeyDutyRefused(t *testing.T) {
	d := newOfficerDesk(t)
	before := d.journal.Size()
	future, entry, zero := time.Now().AddDate(100, 0, 0), uint64(1), uint64(0)
	ancient := time.Date(1949, 1, 1, 0, 0, 0, 0, time.UTC)
	details := map[string]string{"label": "ca-2026"}
	for name, c := range map[string]struct {
		duty   desk.KeyDuty
		status int
	}{
		"no act":             {desk.KeyDuty{Details: details}, 400},
		"unknown act":        {desk.KeyDuty{Act: "lost", Details: details}, 400},
		"activation forged":  {desk.KeyDuty{Act: "activated", Details: details}, 400},
		"and the end of one": {desk.KeyDuty{Act: "deactivated", Details: details}, 400},
		"no details":         {desk.KeyDuty{Act: "cloned"}, 400},
		"endless details":    {desk.KeyDuty{Act: "cloned", Details: map[string]string{"note": strings.Repeat("x", 17<<10)}}, 400},
		"digest of nothing":  {desk.KeyDuty{Act: "cloned", PublicKeySHA256: strings.Repeat("00", 32), Details: details}, 400},
		"digest no hex":      {desk.KeyDuty{Act: "cloned", PublicKeySHA256: strings.Repeat("xx", 32), Details: details}, 400},
		"digest short":       {desk.KeyDuty{Act: "cloned", PublicKeySHA256: "00ff", Details: details}, 400},
		"intent of another":  {desk.KeyDuty{Act: "cloned", Intent: &entry, Details: details}, 400},
		"intent 0":           {desk.KeyDuty{Act: "destroyed", Intent: &zero, Details: details}, 400},
		"not destroyed what": {desk.KeyDuty{Act: "not_destroyed", Details: details}, 400},
		"no such intent":     {desk.KeyDuty{Act: "destroyed", Intent: &entry, Details: details}, 409},
		"in the future":      {desk.KeyDuty{Act: "cloned", DoneAt: &future, Details: details}, 422},
		"before 1950":        {desk.KeyDuty{Act: "cloned", DoneAt: &ancient, Details: details}, 400},
	} {
		_, err := d.clients[desk.SecurityOfficer].RecordKeyDuty(t.Context(), c.duty)
		if err == nil {
			t.Errorf("%s: recorded", name)
			continue
		}
		if e := refusal(t, err); e.Status != c.status {
			t.Errorf("%s: %d %s, want %d", name, e.Status, e.Message, c.status)
		}
	}
	if d.journal.Size() != before {
		t.Errorf("%d entries were added", d.journal.Size()-before)
	}
}
