package main

import (
	"time"

	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
)

// script is the one file that goes in. docs/ceremony.md explains every key; testdata/ceremony/example.yaml is one.
type script struct {
	Output    string            `yaml:"output"`     // absolute folder, missing or empty; nothing is ever overwritten
	Assurance string            `yaml:"assurance"`  // test or qualified
	Clock     string            `yaml:"clock"`      // system or unverified
	Instance  uint8             `yaml:"instance"`   // first octet of every serial of the issuing CA, 1 to 126; the root has 127
	ModuleEnv map[string]string `yaml:"module_env"` // environment of PKCS#11 modules: SOFTHSM2_CONF

	Ceremony ceremonyFacts `yaml:"ceremony"`
	Provider provider      `yaml:"provider"`
	Journals origins       `yaml:"journals"`
	Keys     keyURIs       `yaml:"keys"`
	Validity validityDays  `yaml:"validity_days"`
	URLs     urls          `yaml:"urls"`
	Hosts    hosts         `yaml:"hosts"`
	Listen   addresses     `yaml:"listen"`
	CRL      crlTimes      `yaml:"crl"`
	// StatusLife is how long an OCSP answer holds: nextUpdate - thisUpdate. 0: 12h.
	StatusLife time.Duration   `yaml:"status_life"`
	TSA        tsaSettings     `yaml:"tsa"`
	Officers   []officerScript `yaml:"officers"`
}

// ceremonyFacts go into the key report (EN 319 411-1 GEN-6.5.1-11 to -14).
type ceremonyFacts struct {
	Procedure    string        `yaml:"procedure"` // the versioned document that is followed
	Location     string        `yaml:"location"`
	Participants []participant `yaml:"participants"`
}

// participant is a person in the room.
type participant struct {
	Name       string   `yaml:"name" json:"name"`
	Role       string   `yaml:"role" json:"role"`             // a trusted role, or witness
	External   bool     `yaml:"external" json:"external"`     // not of the provider's staff
	Functions  []string `yaml:"functions" json:"functions"`   // what the person does in which phase
	Afterwards string   `yaml:"afterwards" json:"afterwards"` // what the person answers for when it is over
}

// provider has the names in the certificates (EN 319 412-2 §4.2.3.1).
type provider struct {
	Country                string `yaml:"country"`                 // ISO 3166-1 alpha-2
	Organization           string `yaml:"organization"`            // full registered name
	OrganizationIdentifier string `yaml:"organization_identifier"` // EN 319 412-1 §5.1.4: NTRNL-12345678
	Root                   string `yaml:"root"`                    // common names from here on
	Issuing                string `yaml:"issuing"`
	OCSP                   string `yaml:"ocsp"`
	TSU                    string `yaml:"tsu"`
}

// origins name the two logs in their checkpoints (C2SP tlog-checkpoint): a URL without scheme, never reused.
type origins struct {
	CA  string `yaml:"ca"`
	TSA string `yaml:"tsa"`
}

// keyURI is a key pair to be made.
type keyURI struct {
	URI       string `yaml:"uri"`
	Algorithm string `yaml:"algorithm"` // p256 p384 p521 rsa3072 rsa4096
	// SignatureScheme is what an RSA key signs with, from its first signature on and in the daemon's configuration: pkcs1v15
	// (RSASSA-PKCS1-v1_5) or pss (RSASSA-PSS), both with SHA-256 (RFC 8017 §8, TS 119 312 table 6). An EC key has none,
	// nor has the management key. Default pkcs1v15.
	SignatureScheme der.Scheme `yaml:"signature_scheme"`
}

// fixedKeyURI is a key whose algorithm is not a matter of choice.
type fixedKeyURI struct {
	URI string `yaml:"uri"`
}

// keyURIs are all keys of the provider. None of the URIs may name an object that exists, and no two the same.
type keyURIs struct {
	Root          keyURI      `yaml:"root"`
	Issuing       keyURI      `yaml:"issuing"`
	OCSP          keyURI      `yaml:"ocsp"`
	TSU           keyURI      `yaml:"tsu"`
	Management    keyURI      `yaml:"management"`     // signs TLS and officers' certificates, outside the qualified hierarchy
	CAWrap        fixedKeyURI `yaml:"ca_wrap"`        // AES-256: wraps the key of the CA journal's sealed bodies
	CACheckpoint  fixedKeyURI `yaml:"ca_checkpoint"`  // Ed25519: signs the CA journal's checkpoints
	TSAWrap       fixedKeyURI `yaml:"tsa_wrap"`       // the same two for the TSA's journal
	TSACheckpoint fixedKeyURI `yaml:"tsa_checkpoint"` //
}

// validityDays are lives of certificates. 0: as long as the profile allows, and 365 for tls.
type validityDays struct {
	Root    int `yaml:"root"`
	Issuing int `yaml:"issuing"`
	OCSP    int `yaml:"ocsp"`
	TSU     int `yaml:"tsu"`
	TLS     int `yaml:"tls"` // TLS servers, feed client, officers
}

// urls are where the public finds things. All but the PDS are http:// (EN 319 412-2 GEN-4.4.1).
type urls struct {
	RootCertificate    string `yaml:"root_certificate"`    // serves publish/root.cer
	RootCRL            string `yaml:"root_crl"`            // serves publish/root.crl
	IssuingCertificate string `yaml:"issuing_certificate"` // serves publish/issuing.cer
	CRL                string `yaml:"crl"`                 // serves publish/issuing.crl
	OCSP               string `yaml:"ocsp"`                // the responder
	TSA                string `yaml:"tsa"`                 // the TSA; for zegel.yaml only
	PDS                []pds  `yaml:"pds"`                 // https://, at least one in English (EN 319 412-5 QCS-4.3.4)
}

type pds struct {
	URL      string `yaml:"url"`
	Language string `yaml:"language"` // ISO 639-1
}

// hosts are the names under which officers and the OCSP responder reach the daemons over TLS: DNS names or IP
// addresses in the TLS certificates, and in the URLs of the configs. "": the host of the daemon's admin address.
type hosts struct {
	CA   string `yaml:"ca"`
	OCSP string `yaml:"ocsp"`
	TSA  string `yaml:"tsa"`
}

// addresses are host:port to listen on.
type addresses struct {
	CA struct {
		Admin   string `yaml:"admin"` // officers, mutual TLS
		Feed    string `yaml:"feed"`  // OCSP replicas, mutual TLS
		Metrics string `yaml:"metrics"`
	} `yaml:"ca"`
	OCSP struct {
		HTTP    string `yaml:"http"` // public
		Admin   string `yaml:"admin"`
		Metrics string `yaml:"metrics"`
	} `yaml:"ocsp"`
	TSA struct {
		HTTP    string `yaml:"http"`  // public
		HTTPS   string `yaml:"https"` // public
		Admin   string `yaml:"admin"`
		Metrics string `yaml:"metrics"`
	} `yaml:"tsa"`
}

// crlTimes are how often CRLs come and how long they hold.
type crlTimes struct {
	Every    time.Duration `yaml:"every"`     // issuing CA; 0: 12h
	Life     time.Duration `yaml:"life"`      // issuing CA; 0: 24h
	RootLife time.Duration `yaml:"root_life"` // the root's one CRL; 0: 8760h, the most (EN 319 411-1 CSS-6.3.9-12)
}

// tsaSettings go into tsa.yaml.
type tsaSettings struct {
	Policy    string        `yaml:"policy"`    // OID; "": 0.4.0.2023.1.1, BTSP of EN 319 421
	Policies  []string      `yaml:"policies"`  // also accepted
	Accuracy  time.Duration `yaml:"accuracy"`  // 0: 1s, the most (EN 319 421 TIS-7.7.2-03)
	Qualified *bool         `yaml:"qualified"` // tokens carry the qualified statement (EN 319 422 §9.1); left out: true
}

// officerScript is an officer to be. The id is made up here.
type officerScript struct {
	Name  string   `yaml:"name"` // names the files officers/NAME.*; never in a leaf of the journal
	Roles []string `yaml:"roles"`
	// CSR is the absolute path of the officer's certificate signing request (PKCS#10, PEM or DER): the key is then made by the
	// officer, in a device. "": the ceremony makes it, as a file.
	CSR string `yaml:"csr"`
}

// withDefaults fills in what the script left out.
func (s *script) withDefaults() {
	setDefault(&s.StatusLife, 12*time.Hour)
	setDefault(&s.CRL.Every, 12*time.Hour)
	setDefault(&s.CRL.Life, 24*time.Hour)
	setDefault(&s.CRL.RootLife, 365*24*time.Hour)
	setDefault(&s.TSA.Policy, "0.4.0.2023.1.1")
	setDefault(&s.TSA.Accuracy, time.Second)
	setDefault(&s.Validity.TLS, 365)
	setDefault(&s.Keys.Management.Algorithm, "p256")
	if s.TSA.Qualified == nil {
		yes := true
		s.TSA.Qualified = &yes
	}
	for _, h := range []struct {
		name    *string
		address string
	}{{&s.Hosts.CA, s.Listen.CA.Admin}, {&s.Hosts.OCSP, s.Listen.OCSP.Admin}, {&s.Hosts.TSA, s.Listen.TSA.Admin}} {
		setDefault(h.name, hostOf(h.address))
	}
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// securityOfficer is who the journals say held the ceremony: the first security officer, else the first officer.
func (s *script) securityOfficer() int {
	for i, o := range s.Officers {
		if (desk.Officer{Roles: o.Roles}).Has(desk.SecurityOfficer) {
			return i
		}
	}
	return 0
}
