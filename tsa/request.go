package tsa

import (
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/zegel-tsp/zegel/internal/der"
)

// Request is what a client asks for.
type Request struct {
	Hash    crypto.Hash // SHA-256, SHA-384, SHA-512, or SHA3-256, SHA3-384, SHA3-512
	Digest  []byte      // of the data, Hash.Size() octets
	Policy  asn1.ObjectIdentifier
	Nonce   *big.Int // NewNonce makes one; nil: none, and an old answer can be replayed
	CertReq bool     // the token is to carry the TSU's certificate
}

// NewRequest encodes a TimeStampReq (RFC 3161 §2.4.1) in DER. A nil Policy leaves the choice to the authority.
func NewRequest(r Request) ([]byte, error) {
	imprint, err := newMessageImprint(r.Hash, r.Digest)
	if err != nil {
		return nil, fmt.Errorf("make time-stamp request: %w", err)
	}
	req := timeStampReq{messageImprint: imprint, certReq: r.CertReq}
	if r.Policy != nil {
		if req.reqPolicy, err = marshalOID(r.Policy); err != nil {
			return nil, fmt.Errorf("make time-stamp request: %w", err)
		}
	}
	if r.Nonce != nil {
		if req.nonce = integer(r.Nonce); len(req.nonce) > maxNonce+2 {
			return nil, fmt.Errorf("make time-stamp request: the nonce is longer than %d octets", maxNonce)
		}
	}
	return req.marshal(), nil
}

// NewNonce makes a nonce of 128 random bits.
func NewNonce() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return new(big.Int).SetBytes(b[:])
}

// ParseResponse takes the TimeStampToken (DER) out of a TimeStampResp. It verifies nothing: Verify does. An
// answer without a token is a *Rejection.
func ParseResponse(response []byte) (token []byte, err error) {
	if len(response) > MaxResponse {
		return nil, fmt.Errorf("read time-stamp response: longer than %d octets", MaxResponse)
	}
	if err := der.Check(response); err != nil {
		return nil, fmt.Errorf("read time-stamp response: %w", err)
	}
	s := cryptobyte.String(response)
	var seq, info cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&info, cbasn1.SEQUENCE) {
		return nil, errors.New("read time-stamp response: not a TimeStampResp")
	}
	status, err := readStatusInfo(info)
	if err != nil {
		return nil, fmt.Errorf("read time-stamp response: %w", err)
	}
	granted := status.Status == statusGranted || status.Status == statusGrantedWithMods
	switch {
	case granted && seq.Empty():
		return nil, errors.New("read time-stamp response: granted, but there is no token")
	case !granted && !seq.Empty():
		return nil, fmt.Errorf("read time-stamp response: status %d with a token", status.Status)
	case !granted:
		return nil, status
	}
	if !seq.ReadASN1Element((*cryptobyte.String)(&token), cbasn1.SEQUENCE) || !seq.Empty() {
		return nil, errors.New("read time-stamp response: what follows the status is not one token")
	}
	return token, nil
}

// readStatusInfo reads the content of PKIStatusInfo. It takes the BIT STRING as it comes: what is
// not DER was refused before.
func readStatusInfo(s cryptobyte.String) (*Rejection, error) {
	var r Rejection
	if !s.ReadASN1Integer(&r.Status) || r.Status < 0 || r.Status > 5 {
		return nil, errors.New("PKIStatus is not 0 to 5")
	}
	if s.PeekASN1Tag(cbasn1.SEQUENCE) {
		var free, text cryptobyte.String
		s.ReadASN1(&free, cbasn1.SEQUENCE)
		for !free.Empty() {
			if !free.ReadASN1(&text, cbasn1.UTF8String) {
				return nil, errors.New("statusString is not PKIFreeText")
			}
			if r.StatusString != "" {
				r.StatusString += " "
			}
			r.StatusString += string(text)
		}
	}
	if s.PeekASN1Tag(cbasn1.BIT_STRING) {
		var ok bool
		if r.FailInfo, ok = readFailInfo(&s); !ok {
			return nil, errors.New("failInfo is not PKIFailureInfo")
		}
	}
	if !s.Empty() {
		return nil, errors.New("PKIStatusInfo has an unknown field")
	}
	return &r, nil
}
