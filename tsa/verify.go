package tsa

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// MaxResponse is the greatest TimeStampResp or token that is looked at, in octets.
const MaxResponse = 1 << 20

// VerifyOptions say what a token is held against. Roots is required; what else is zero is not compared.
type VerifyOptions struct {
	Roots        *x509.CertPool
	Certificates []*x509.Certificate // the TSU's and its chain, for tokens that carry none
	// Data is read to its end and hashed as the token says. Or give Hash and Digest.
	Data   io.Reader
	Hash   crypto.Hash
	Digest []byte
	Nonce  *big.Int
	Policy asn1.ObjectIdentifier
	// Now is when the token is judged, as a rule time.Now: genTime is not after it. Since is when it was asked for: genTime is
	// not before it. The token's accuracy and ClockSkew are allowed for. Without Now a token from the future passes.
	Now, Since time.Time
	// ChainAt is a moment at which the chain has to be valid besides genTime: without it, a token outlives its certificates.
	ChainAt time.Time
}

// ClockSkew is how far the clock of whoever verifies a token may be off, besides the token's own accuracy.
const ClockSkew = 10 * time.Second

// Timestamp holds the facts of a token that verified.
type Timestamp struct {
	Policy       string        `json:"policy"`
	SerialNumber string        `json:"serial"` // lower-case hex
	GenTime      time.Time     `json:"gen_time"`
	Accuracy     time.Duration `json:"accuracy_ns"` // 0: the token does not say
	Hash         string        `json:"hash_algorithm"`
	Imprint      string        `json:"imprint"`         // lower-case hex
	Nonce        string        `json:"nonce,omitempty"` // lower-case hex of the INTEGER's content
	Ordering     bool          `json:"ordering"`
	Qualified    bool          `json:"qualified"`     // says that it is: esi4-qtstStatement-1
	DataCompared bool          `json:"data_compared"` // false: no data or digest was given
	Signature    string        `json:"signature_algorithm"`
	Unit         string        `json:"unit"` // subject of the TSU's certificate
	UnitHash     string        `json:"unit_sha256"`
	UnitUntil    time.Time     `json:"unit_not_after"`

	Certificate *x509.Certificate   `json:"-"` // the TSU's
	Chain       []*x509.Certificate `json:"-"` // from the TSU's to the root
	Token       []byte              `json:"-"` // DER of the TimeStampToken
}

// Verify verifies a TimeStampResp or a bare TimeStampToken, in DER, completely: status, structure, signed attributes,
// signing-certificate binding, extended key usage, chain at genTime, signature, and what o gives of data, nonce, policy and time.
// The error says what does not hold. An answer without a token is a *Rejection. Nothing is fetched: revocation is for the caller.
func Verify(responseOrToken []byte, o VerifyOptions) (*Timestamp, error) {
	if o.Roots == nil {
		return nil, errors.New("verify time-stamp: no root certificates to verify under")
	}
	token, err := tokenOf(responseOrToken)
	if err != nil {
		return nil, err
	}
	ts, err := verifyToken(token, o)
	if err != nil {
		return nil, fmt.Errorf("verify time-stamp: %w", err)
	}
	return ts, nil
}

// tokenOf tells a TimeStampToken, which begins with an identifier, from a TimeStampResp, which begins with a SEQUENCE.
func tokenOf(b []byte) ([]byte, error) {
	var seq cryptobyte.String
	s := cryptobyte.String(b)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.PeekASN1Tag(cbasn1.OBJECT_IDENTIFIER) {
		return ParseResponse(b)
	}
	if len(b) > MaxResponse {
		return nil, fmt.Errorf("read time-stamp token: longer than %d octets", MaxResponse)
	}
	if err := der.Check(b); err != nil {
		return nil, fmt.Errorf("read time-stamp token: %w", err)
	}
	return b, nil
}

func verifyToken(token []byte, o VerifyOptions) (*Timestamp, error) {
	data, err := parseSignedData(token)
	if err != nil {
		return nil, err
	}
	info, err := parseTSTInfo(data.eContent)
	if err != nil {
		return nil, err
	}
	attributes, err := data.signer.checkAttributes(data.eContent)
	if err != nil {
		return nil, err
	}
	certificate, others, err := data.findCertificate(attributes, o.Certificates)
	if err != nil {
		return nil, err
	}
	if err := data.signer.checkSignature(certificate.PublicKey); err != nil {
		return nil, err
	}
	chain, err := verifyTSU(certificate, others, info, o)
	if err != nil {
		return nil, err
	}
	compared, err := info.compare(o)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(certificate.Raw)
	return &Timestamp{
		Policy: info.policyID.String(), SerialNumber: hex.EncodeToString(info.serialNumber),
		GenTime: info.genTime, Accuracy: info.accuracyValue,
		Hash: info.messageImprint.hash.String(), Imprint: hex.EncodeToString(info.messageImprint.hashedMessage),
		Nonce: info.nonceHex(), Ordering: info.ordering, Qualified: info.qualified, DataCompared: compared,
		Signature: data.signer.algorithmName, Unit: nameText(certificate),
		UnitHash: hex.EncodeToString(hash[:]), UnitUntil: certificate.NotAfter.UTC(),
		Certificate: certificate, Chain: chain, Token: token,
	}, nil
}

// parsedTSTInfo is a tstInfo as it was read, of any authority.
type parsedTSTInfo struct {
	tstInfo
	policyID      asn1.ObjectIdentifier
	accuracyValue time.Duration
	ordering      bool
	qualified     bool
	tsaName       []byte // GeneralName, DER; nil: absent
}

// parseTSTInfo reads a TSTInfo in DER. Its fields alias b. RFC 3161 §2.4.2.
func parseTSTInfo(b []byte) (*parsedTSTInfo, error) {
	if err := der.Check(b); err != nil {
		return nil, fmt.Errorf("TSTInfo: %w", err)
	}
	var t parsedTSTInfo
	var version int
	var seq, serial, genTime cryptobyte.String
	s := cryptobyte.String(b)
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1Integer(&version) || version != 1 {
		return nil, errors.New("TSTInfo: not of version 1")
	}
	if !seq.ReadASN1ObjectIdentifier(&t.policyID) {
		return nil, errors.New("TSTInfo: no policy")
	}
	var err error
	if t.messageImprint, err = readMessageImprint(&seq); err != nil {
		return nil, fmt.Errorf("TSTInfo: %w", err)
	}
	if !seq.ReadASN1(&serial, cbasn1.INTEGER) || !seq.ReadASN1(&genTime, cbasn1.GeneralizedTime) {
		return nil, errors.New("TSTInfo: no serialNumber or genTime")
	}
	t.serialNumber = serial
	if t.genTime, err = parseGenTime(genTime); err != nil {
		return nil, fmt.Errorf("TSTInfo: %w", err)
	}
	if err := t.readOptions(&seq); err != nil {
		return nil, fmt.Errorf("TSTInfo: %w", err)
	}
	return &t, nil
}

// readOptions reads what follows genTime.
func (t *parsedTSTInfo) readOptions(s *cryptobyte.String) error {
	var err error
	if s.PeekASN1Tag(cbasn1.SEQUENCE) {
		if t.accuracyValue, err = readAccuracy(s); err != nil {
			return err
		}
	}
	if s.PeekASN1Tag(cbasn1.BOOLEAN) {
		if !s.ReadASN1Boolean(&t.ordering) || !t.ordering {
			return errors.New("ordering FALSE is the default and must be absent (X.690 §11.5)")
		}
	}
	if s.PeekASN1Tag(cbasn1.INTEGER) {
		s.ReadASN1Element((*cryptobyte.String)(&t.nonce), cbasn1.INTEGER)
	}
	if s.PeekASN1Tag(tagExplicit0) {
		s.ReadASN1((*cryptobyte.String)(&t.tsaName), tagExplicit0)
	}
	if s.PeekASN1Tag(tagExtensions1) {
		list, err := readImplicitExtensions(s, tagExtensions1)
		if err != nil {
			return fmt.Errorf("extensions: %w", err)
		}
		if err := t.readExtensions(list); err != nil {
			return err
		}
	}
	if !s.Empty() {
		return errors.New("unknown or misplaced field")
	}
	return nil
}

// readExtensions looks for the statement of a qualified token. A critical extension is refused: EN 319 422 §5.2.2 allows none.
func (t *parsedTSTInfo) readExtensions(list []der.Extension) error {
	for _, e := range list {
		if e.Critical {
			return fmt.Errorf("extension %v is critical (EN 319 422 §5.2.2)", e.ID)
		}
	}
	e, ok := der.FindExtension(list, oidQCStatements)
	if !ok {
		return nil
	}
	var statements cryptobyte.String
	s := cryptobyte.String(e.Value)
	if der.Check(e.Value) != nil || !s.ReadASN1(&statements, cbasn1.SEQUENCE) {
		return errors.New("qcStatements are malformed")
	}
	for !statements.Empty() {
		var statement cryptobyte.String
		var id asn1.ObjectIdentifier
		if !statements.ReadASN1(&statement, cbasn1.SEQUENCE) || !statement.ReadASN1ObjectIdentifier(&id) {
			return errors.New("qcStatements are malformed")
		}
		t.qualified = t.qualified || id.Equal(oidQTSTStatement)
	}
	return nil
}

// nonceHex shows the nonce's content octets.
func (t *parsedTSTInfo) nonceHex() string {
	var content cryptobyte.String
	s := cryptobyte.String(t.nonce)
	if !s.ReadASN1(&content, cbasn1.INTEGER) {
		return ""
	}
	return hex.EncodeToString(content)
}

// compare holds the statement against what the client knows, and reports whether that included the data.
func (t *parsedTSTInfo) compare(o VerifyOptions) (bool, error) {
	if o.Policy != nil && !t.policyID.Equal(o.Policy) {
		return false, fmt.Errorf("the token's policy is %v, not %v", t.policyID, o.Policy)
	}
	if o.Nonce != nil && !bytes.Equal(integer(o.Nonce), t.nonce) {
		return false, errors.New("the token's nonce is not the request's")
	}
	if err := t.compareTime(o); err != nil {
		return false, err
	}
	digest := o.Digest
	switch {
	case o.Data != nil:
		h := t.messageImprint.hash.New()
		if _, err := io.Copy(h, o.Data); err != nil {
			return false, fmt.Errorf("read the data: %w", err)
		}
		digest = h.Sum(nil)
	case digest == nil:
		return false, nil
	case o.Hash != t.messageImprint.hash:
		return false, fmt.Errorf("the token's imprint is made with %v, the digest with %v", t.messageImprint.hash, o.Hash)
	}
	if subtle.ConstantTimeCompare(digest, t.messageImprint.hashedMessage) != 1 {
		return false, errors.New("the token is for other data: the imprint differs")
	}
	return true, nil
}

// compareTime holds genTime against when the client asked and judges.
func (t *parsedTSTInfo) compareTime(o VerifyOptions) error {
	slack := t.accuracyValue + ClockSkew
	if !o.Now.IsZero() && t.genTime.After(o.Now.Add(slack)) {
		return fmt.Errorf("the token's genTime %s is in the future, it is %s now: either the authority's clock or this machine's is wrong", stamp(t.genTime), stamp(o.Now))
	}
	if !o.Since.IsZero() && t.genTime.Before(o.Since.Add(-slack)) {
		return fmt.Errorf("the token's genTime %s is before it was asked for at %s: it is an old one, or either the authority's clock or this machine's is wrong", stamp(t.genTime), stamp(o.Since))
	}
	return nil
}

// verifyTSU verifies that c is a TSU's certificate, and stood under one of o.Roots at genTime.
func verifyTSU(c *x509.Certificate, others []*x509.Certificate, info *parsedTSTInfo, o VerifyOptions) ([]*x509.Certificate, error) {
	if err := checkTSUCertificate(c); err != nil {
		return nil, err
	}
	if info.tsaName != nil && !namesSubject(info.tsaName, c) {
		return nil, errors.New("TSTInfo.tsa does not name the TSU certificate's subject (RFC 3161 §2.4.2)")
	}
	from, until, err := keyUsePeriod(c)
	if err != nil {
		return nil, err
	}
	if info.genTime.Before(from) || info.genTime.After(until) {
		return nil, fmt.Errorf("genTime %s is outside the time in which the TSU's key may sign, %s to %s", stamp(info.genTime), stamp(from), stamp(until))
	}
	intermediates := x509.NewCertPool()
	for _, other := range others {
		intermediates.AddCert(other)
	}
	verify := func(at time.Time) ([][]*x509.Certificate, error) {
		return c.Verify(x509.VerifyOptions{
			Roots: o.Roots, Intermediates: intermediates, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
		})
	}
	chains, err := verify(info.genTime)
	if err != nil {
		return nil, fmt.Errorf("verify the TSU's chain at genTime: %w", err)
	}
	if !o.ChainAt.IsZero() {
		if _, err := verify(o.ChainAt); err != nil {
			return nil, fmt.Errorf("verify the TSU's chain at %s: %w", stamp(o.ChainAt), err)
		}
	}
	return chains[0], nil
}

// namesSubject reports whether a directoryName is the certificate's subject. The other forms of GeneralName are
// a hint (RFC 3161 §2.4.2), which ESSCertIDv2 makes needless: they are not judged.
func namesSubject(name []byte, c *x509.Certificate) bool {
	var subject cryptobyte.String
	s := cryptobyte.String(name)
	if !s.PeekASN1Tag(cbasn1.Tag(0xa4)) {
		return true
	}
	return s.ReadASN1(&subject, cbasn1.Tag(0xa4)) && s.Empty() && bytes.Equal(subject, c.RawSubject)
}
