package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/policy"
)

// certificateOrder is one of the four certificates of the qualified hierarchy, as rehearsal and ceremony need it.
type certificateOrder struct {
	profile   string
	name      string     // commonName
	algorithm string     // of the key to be certified
	days      int        // 0: as long as profile and issuer allow
	scheme    der.Scheme // of the issuer's key
}

func (p *plan) rootOrder() certificateOrder {
	return certificateOrder{"root-ca", p.Provider.Root, p.Keys.Root.Algorithm, p.Validity.Root, p.Keys.Root.SignatureScheme}
}

func (p *plan) issuingOrder() certificateOrder {
	return certificateOrder{"issuing-ca", p.Provider.Issuing, p.Keys.Issuing.Algorithm, p.Validity.Issuing, p.Keys.Root.SignatureScheme}
}

func (p *plan) ocspOrder() certificateOrder {
	return certificateOrder{"ocsp-responder", p.Provider.OCSP, p.Keys.OCSP.Algorithm, p.Validity.OCSP, p.Keys.Issuing.SignatureScheme}
}

func (p *plan) tsuOrder() certificateOrder {
	return certificateOrder{"tsu", p.Provider.TSU, p.Keys.TSU.Algorithm, p.Validity.TSU, p.Keys.Issuing.SignatureScheme}
}

// subject is the provider under commonName name: EN 319 412-2 §4.2.3.1, EN 319 412-3 §4.2.1, EN 319 422 §6.2.
func (p *plan) subject(name string) *policy.Subject {
	return &policy.Subject{Attributes: []policy.Attribute{
		{Type: "countryName", Value: p.Provider.Country},
		{Type: "organizationName", Value: p.Provider.Organization},
		{Type: "organizationIdentifier", Value: p.Provider.OrganizationIdentifier},
		{Type: "commonName", Value: name},
	}}
}

// notAfter is the last second of a life of days that begins at from; zero for 0 days.
func notAfter(from time.Time, days int) time.Time {
	if days == 0 {
		return time.Time{}
	}
	return from.UTC().Truncate(time.Second).AddDate(0, 0, days).Add(-time.Second)
}

func (p *plan) rootURLs() policy.URLs {
	return policy.URLs{CRL: p.URLs.RootCRL, CAIssuers: p.URLs.RootCertificate}
}

func (p *plan) issuingURLs() policy.URLs {
	u := policy.URLs{CRL: p.URLs.CRL, OCSP: p.URLs.OCSP, CAIssuers: p.URLs.IssuingCertificate}
	for _, statement := range p.URLs.PDS {
		u.PDS = append(u.PDS, policy.PDS(statement))
	}
	return u
}

// rehearse writes every certificate of the hierarchy with throw-away keys of the same kinds and has policy judge it, so
// that nothing that policy refuses is found out when keys exist already. It signs nothing.
func (p *plan) rehearse() error {
	r := rehearsal{plan: p, now: time.Now(), keys: make(map[string]crypto.PublicKey)}
	root, err := r.draft(p.rootOrder(), policy.Issuer{})
	if err != nil {
		return err
	}
	issuing, err := r.draft(p.issuingOrder(), issuerFrom(root, p.rootURLs()))
	if err != nil {
		return err
	}
	for _, order := range []certificateOrder{p.ocspOrder(), p.tsuOrder()} {
		if _, err := r.draft(order, issuerFrom(issuing, p.issuingURLs())); err != nil {
			return err
		}
	}
	return nil
}

type rehearsal struct {
	*plan
	now  time.Time
	keys map[string]crypto.PublicKey // by algorithm
}

// draft is the certificate order would become under issuer, judged. For a self-signed profile issuer is filled in.
func (r *rehearsal) draft(order certificateOrder, issuer policy.Issuer) (*x509.Certificate, error) {
	certificate, err := r.judge(order, issuer)
	if err != nil {
		return nil, fmt.Errorf("rehearse %s %q: %w", order.profile, order.name, err)
	}
	return x509.ParseCertificate(certificate)
}

func (r *rehearsal) judge(order certificateOrder, issuer policy.Issuer) ([]byte, error) {
	profile, err := policy.Builtin(order.profile)
	if err != nil {
		return nil, err
	}
	key, err := r.key(order.algorithm)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	if profile.SelfSigned() {
		issuer.PublicKey = key
	}
	if issuer.Algorithm, err = der.AlgorithmFor(issuer.PublicKey, order.scheme); err != nil {
		return nil, err
	}
	request := policy.Request{Subject: r.subject(order.name), PublicKey: spki, Serial: []byte{1}, NotBefore: r.now, NotAfter: notAfter(r.now, order.days)}
	if request.NotAfter.IsZero() {
		request.NotAfter = r.now.Add(profile.Validity() - time.Second)
		if !profile.SelfSigned() && request.NotAfter.After(issuer.NotAfter) {
			request.NotAfter = issuer.NotAfter
		}
	}
	tbs, err := profile.TBS(request, issuer)
	if err != nil {
		return nil, err
	}
	draft := policy.Draft(tbs, issuer)
	if err := profile.Check(draft); err != nil {
		return nil, err
	}
	return draft, policy.Lint(draft)
}

// issuerFrom is the CA that certificate will be.
func issuerFrom(certificate *x509.Certificate, u policy.URLs) policy.Issuer {
	return policy.Issuer{
		Name: certificate.RawSubject, KeyID: certificate.SubjectKeyId, PublicKey: certificate.PublicKey,
		NotBefore: certificate.NotBefore, NotAfter: certificate.NotAfter, URLs: u,
	}
}

// key makes a throw-away key; one of each kind is enough.
func (r *rehearsal) key(algorithm string) (crypto.PublicKey, error) {
	if key, ok := r.keys[algorithm]; ok {
		return key, nil
	}
	var signer crypto.Signer
	var err error
	switch hsm.KeyAlgorithm(algorithm) {
	case hsm.P256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case hsm.P384:
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case hsm.P521:
		signer, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case hsm.RSA3072:
		signer, err = rsa.GenerateKey(rand.Reader, 3072)
	case hsm.RSA4096:
		signer, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		err = fmt.Errorf("make a throw-away key: algorithm %q is none for certificates", algorithm)
	}
	if err != nil {
		return nil, err
	}
	r.keys[algorithm] = signer.Public()
	return signer.Public(), nil
}
