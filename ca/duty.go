package ca

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// maxDutyDetails bounds the details of a key duty, in octets of JSON.
const maxDutyDetails = 16 << 10

// RecordKeyDuty makes duty an entry of the journal. DoneAt in the future is policy.Violations; an intent that is no open one is
// journal.ErrConflict. It needs no clock that can be vouched for and no key: a destruction can be recorded while the token is gone.
func (i *Issuer) RecordKeyDuty(ctx context.Context, duty journal.KeyDuty) (journal.Entry, error) {
	if err := errors.Join(i.ready(), ctx.Err()); err != nil {
		return journal.Entry{}, fmt.Errorf("record key duty %s: %w", duty.Act, err)
	}
	if duty.DoneAt.After(i.plausibleTime()) {
		return journal.Entry{}, fmt.Errorf("record key duty %s: %w", duty.Act, policy.Violations{{Clause: "EN 319 411-1 GEN-6.5.1-13A",
			Detail: fmt.Sprintf("done_at %s is in the future: record what has been done", duty.DoneAt.UTC().Format(time.RFC3339))}})
	}
	entry, err := i.append(ctx, duty)
	if errors.Is(err, journal.ErrConflict) {
		return entry, err
	}
	if err != nil {
		return entry, fmt.Errorf("record key duty %s: %w", duty.Act, ownFault{err})
	}
	return entry, nil
}

// keyDuty serves POST /v1/key-duties.
func (d *deskHandler) keyDuty(c *call) (any, error) {
	var request desk.KeyDuty
	if err := c.decode(&request); err != nil {
		return nil, err
	}
	duty, err := readDuty(request)
	if err != nil {
		return nil, unreadable{err}
	}
	duty.Actor = c.actor
	entry, err := d.issuer.RecordKeyDuty(c.Context(), duty)
	if err != nil {
		return nil, err
	}
	return desk.KeyDutyReply{Entry: entry.Index, Time: entry.Time.UTC()}, nil
}

// readDuty reads what the officers' tool sent; Actor is left to the caller.
func readDuty(request desk.KeyDuty) (duty journal.KeyDuty, err error) {
	if duty.Act, err = journal.ParseKeyAct(request.Act); err != nil {
		return duty, err
	}
	if duty.Act == journal.KeyActivated || duty.Act == journal.KeyDeactivated {
		return duty, fmt.Errorf("read act: %s is recorded by the daemon whose tokens it is, and by nobody else", duty.Act)
	}
	if request.PublicKeySHA256 != "" {
		digest, err := hex.DecodeString(request.PublicKeySHA256)
		if err != nil || len(digest) != len(duty.PublicKey) || [32]byte(digest) == duty.PublicKey {
			return duty, fmt.Errorf("read public_key_sha256 %.80q: want 64 hex digits, or leave it out", request.PublicKeySHA256)
		}
		duty.PublicKey = [32]byte(digest)
	}
	switch {
	case request.Intent != nil && (*request.Intent == 0 || !duty.Act.Closes()):
		return duty, fmt.Errorf("read intent: %s cannot close entry %d: only destroyed and not_destroyed close an intent", duty.Act, *request.Intent)
	case request.Intent != nil:
		duty.Intent = *request.Intent
	case duty.Act == journal.KeyNotDestroyed:
		return duty, errors.New("read intent: not_destroyed wants the entry of the destroying that it closes")
	}
	if request.DoneAt != nil {
		if duty.DoneAt = request.DoneAt.UTC(); duty.DoneAt.Year() < 1950 || duty.DoneAt.Year() > 9999 {
			return duty, errors.New("read done_at: want a time between 1950 and 9999")
		}
	}
	if len(request.Details) == 0 {
		return duty, errors.New("read details: say at least which key it is: details is an object of strings")
	}
	duty.Details, err = json.Marshal(request.Details)
	if err == nil && len(duty.Details) > maxDutyDetails {
		err = fmt.Errorf("read details: %d octets, at most %d are possible", len(duty.Details), maxDutyDetails)
	}
	return duty, err
}

func dutyFacts(e journal.KeyDuty) map[string]string {
	facts := map[string]string{"actor": hex.EncodeToString(e.Actor[:]), "act": e.Act.String()}
	if e.PublicKey != ([32]byte{}) {
		facts["public_key_sha256"] = hex.EncodeToString(e.PublicKey[:])
	}
	if e.Intent != 0 {
		facts["intent"] = strconv.FormatUint(e.Intent, 10)
	}
	if !e.DoneAt.IsZero() {
		facts["done_at"] = factTime(e.DoneAt)
	}
	return facts
}
