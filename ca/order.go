package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/policy"
)

// issue serves POST /v1/certificates.
func (d *deskHandler) issue(c *call) (any, error) {
	var request desk.IssueRequest
	if err := c.decode(&request); err != nil {
		return nil, err
	}
	order, err := d.readOrder(request)
	if err != nil {
		return nil, err
	}
	order.Actor = c.actor
	if request.Plan {
		planned, err := d.issuer.Plan(c.Context(), order)
		if err != nil {
			return nil, err
		}
		reply, err := issueReply(planned.Draft, request.Profile)
		reply.ID, reply.Status, reply.TBS = planned.ID(), desk.StatusPlanned, planned.TBS
		return reply, err
	}
	issued, err := d.issuer.Issue(c.Context(), order)
	if err != nil {
		return nil, err
	}
	reply, err := issueReply(issued.Certificate, request.Profile)
	reply.ID, reply.Status, reply.Cert = issued.ID(), desk.StatusIssued, certificatePEM(issued.Certificate)
	return reply, err
}

// readOrder reads the three texts of a request. What they say is judged later, by the profile.
func (d *deskHandler) readOrder(r desk.IssueRequest) (Order, error) {
	profile, known := d.profiles[r.Profile]
	if !known {
		if _, err := policy.Builtin(r.Profile); err != nil {
			return Order{}, unreadable{err}
		}
		return Order{}, unreadable{fmt.Errorf("profile %s is issued by zegel-ceremony only", r.Profile)}
	}
	name := r.SubjectName
	if name == "" {
		name = "subject"
	}
	subject, err := policy.ParseSubject(name, []byte(r.Subject))
	if err != nil {
		return Order{}, unreadable{err}
	}
	publicKey, err := policy.ParseCSR([]byte(r.CSR))
	if err != nil {
		return Order{}, unreadable{err}
	}
	evidence, err := orderEvidence(r, subject)
	if err != nil {
		return Order{}, err
	}
	return Order{Profile: profile, Subject: subject, PublicKey: publicKey, Evidence: evidence}, nil
}

// orderEvidence links the certificate to its registration (EN 319 411-1 GEN-6.3.2-00A): what was
// proofed, and the digests of the two files as they came.
func orderEvidence(r desk.IssueRequest, subject *policy.Subject) ([]byte, error) {
	csr, file := sha256.Sum256([]byte(r.CSR)), sha256.Sum256([]byte(r.Subject))
	registration, err := subject.Evidence()
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	text, err := json.Marshal(struct {
		CSR     string          `json:"csr_sha256"`
		File    string          `json:"subject_file_sha256"`
		Subject json.RawMessage `json:"subject"`
	}{hex.EncodeToString(csr[:]), hex.EncodeToString(file[:]), registration})
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	return text, nil
}

// issueReply tells what stands in a certificate or draft.
func issueReply(certificate []byte, profile string) (desk.IssueReply, error) {
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return desk.IssueReply{}, fmt.Errorf("read certificate: %w", err)
	}
	subject, err := der.NameText(parsed.RawSubject)
	if err != nil {
		return desk.IssueReply{}, err
	}
	return desk.IssueReply{
		Serial: journal.Serial(parsed.SerialNumber.Bytes()).String(), Profile: profile, Subject: subject,
		NotBefore: parsed.NotBefore, NotAfter: parsed.NotAfter,
	}, nil
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
