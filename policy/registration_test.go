package policy

import (
	"testing"
	"time"
)

const testDigest = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

func provedSubject() *Subject {
	s := naturalPerson()
	s.Registration = &Registration{
		Method:         "physical-presence",
		EvidenceDigest: testDigest,
		Date:           time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
		Officer:        "ro-1",
		TermsVersion:   "2026-09",
	}
	s.Device = &Device{Model: "TEST SignCard 4", Certification: "TEST-QSCD-2026-0007", AttestationDigest: testDigest}
	return s
}

// evidenceCase changes provedSubject and asks for a -qscd profile, or another where plain is set.
type evidenceCase struct {
	name   string
	clause string
	plain  bool
	change func(*Subject)
}

func evidenceFaults() []evidenceCase {
	return []evidenceCase{
		{"no registration", "EN 319 411-1 REG-6.3.1-00A", false, func(s *Subject) { s.Registration = nil }},
		{"no day", "EN 319 411-1 REG-6.3.1-00A", false, func(s *Subject) { s.Registration.Date = time.Time{} }},
		{"no method", "EN 319 411-2 REG-6.2.2-01A", false, func(s *Subject) { s.Registration.Method = "" }},
		{"unknown method", "EN 319 411-2 REG-6.2.2-01A", false, func(s *Subject) { s.Registration.Method = "telephone" }},
		{"no evidence", "EN 319 411-1 GEN-6.3.2-00A", false, func(s *Subject) { s.Registration.EvidenceDigest = "" }},
		{"evidence that is no digest", "EN 319 411-1 GEN-6.3.2-00A", false, func(s *Subject) { s.Registration.EvidenceDigest = "seen" }},
		{"evidence of an empty file", "EN 319 411-1 GEN-6.3.2-00A", false, func(s *Subject) { s.Registration.EvidenceDigest = emptyDigest }},
		{"no officer", "EN 319 411-1 REG-6.3.2-01", false, func(s *Subject) { s.Registration.Officer = "" }},
		{"no terms", "EN 319 411-1 REG-6.3.4-08", false, func(s *Subject) { s.Registration.TermsVersion = "" }},
		{"no device", "EN 319 411-2 SDP-6.5.1-02", false, func(s *Subject) { s.Device = nil }},
		{"no model", "EN 319 411-2 SDP-6.5.1-02", false, func(s *Subject) { s.Device.Model = "" }},
		{"no certification", "EN 319 411-2 SDP-6.5.1-02", false, func(s *Subject) { s.Device.Certification = "" }},
		{"neither attestation nor record", "EN 319 411-2 SDP-6.5.1-04", false, func(s *Subject) { s.Device.AttestationDigest = "" }},
		{"attestation that is no digest", "EN 319 411-2 SDP-6.5.1-04", false, func(s *Subject) { s.Device.AttestationDigest = "yes" }},
		{"device without qscd", "EN 319 411-2 GEN-6.6.1-04", true, func(*Subject) {}},
	}
}

func TestEvidenceFaults(t *testing.T) {
	for _, c := range evidenceFaults() {
		t.Run(c.name, func(t *testing.T) {
			s := provedSubject()
			c.change(s)
			v := s.evidence(true, !c.plain)
			if len(v) != 1 || !v.cites(c.clause) {
				t.Errorf("want one violation, of %s: %v", c.clause, v)
			}
		})
	}
}

func TestEvidencePasses(t *testing.T) {
	record := provedSubject()
	record.Device.AttestationDigest, record.Device.GenerationRecord = "", "minutes no. 7"
	plain := provedSubject()
	plain.Device = nil
	for name, c := range map[string]struct {
		s                    *Subject
		registration, device bool
	}{
		"attested key":                   {provedSubject(), true, true},
		"recorded generation":            {record, true, true},
		"no device wanted":               {plain, true, false},
		"nothing wanted, nothing there":  {naturalPerson(), false, false},
		"registration nobody asked for ": {plain, false, false},
	} {
		if v := c.s.evidence(c.registration, c.device); len(v) > 0 {
			t.Errorf("%s: %v", name, v)
		}
	}
	for _, m := range proofingMethods {
		s := provedSubject()
		s.Registration.Method = m.name
		if v := s.evidence(true, true); len(v) > 0 {
			t.Errorf("method %s: %v", m.name, v)
		}
	}
}

func TestProofedBefore(t *testing.T) {
	s := provedSubject()
	if v := s.proofedBefore(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)); len(v) > 0 {
		t.Errorf("proofed in the morning: %v", v)
	}
	if v := s.proofedBefore(time.Date(2026, 11, 19, 23, 59, 59, 0, time.UTC)); !v.cites("EN 319 411-1 REG-6.3.1-00B") {
		t.Errorf("proofed the day after: %v", v)
	}
	if v := naturalPerson().proofedBefore(time.Time{}); len(v) > 0 {
		t.Errorf("without registration: %v", v)
	}
}

func TestQcIdentMethod(t *testing.T) {
	for method, want := range map[string]string{
		"eudi-wallet": "0.4.0.1862.1.8.3", "notified-eid-high": "0.4.0.1862.1.8.3", "certified-method": "0.4.0.1862.1.8.3",
		"physical-presence": "0.4.0.1862.1.8.3", "qualified-certificate": "0.4.0.1862.1.8.4",
	} {
		if id, ok := (&Registration{Method: method}).QcIdentMethod(); !ok || id.String() != want {
			t.Errorf("%s: %v, want %s", method, id, want)
		}
	}
	if id, ok := (&Registration{Method: "telephone"}).QcIdentMethod(); ok {
		t.Errorf("telephone: %v", id)
	}
}
