package main

import (
	"time"

	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/der"
	"github.com/zegel-tsp/zegel/internal/desk"
)

// script is the one file that goes in. docs/reference.md is made of these comments; testdata/ceremony/example.yaml is one.
type script struct {
	// Absolute path of the folder that the ceremony makes: missing or empty, because nothing is ever overwritten. Neither
	// script, PIN nor software keys may lie in it. Required.
	Output string `yaml:"output"`
	// test or qualified. qualified refuses software keys (but for checkpoints and the management CA), a PIN inside a URI and an
	// unverified clock, and wants procedure, location, a security officer and an external witness under ceremony, a
	// csr of each officer, and tokens apart (docs/ceremony.md). Required.
	Assurance string `yaml:"assurance"`
	// system: the kernel must vouch for the clock to within a second; unverified: nobody does. Required.
	Clock string `yaml:"clock"`
	// The first octet of every serial of the issuing CA, 1 to 126; the root has 127. No two CAs of one provider share it. Required.
	Instance uint8 `yaml:"instance"`
	// Environment variables for PKCS#11 modules, SOFTHSM2_CONF for instance; goes into the daemons' configurations. Optional.
	ModuleEnv map[string]string `yaml:"module_env"`
	// How PKCS#11 tokens are used, here and by the daemons.
	Tokens daemon.TokenSettings `yaml:"tokens"`

	// What the key report says of the ceremony (EN 319 411-1 GEN-6.5.1-11 to -14).
	Ceremony ceremonyFacts `yaml:"ceremony"`
	// The names in the certificates (EN 319 412-2 §4.2.3.1).
	Provider provider `yaml:"provider"`
	// The origins of the two logs in their checkpoints (C2SP tlog-checkpoint).
	Journals origins `yaml:"journals"`
	// The keys to be made. None of the URIs may name an object that exists, and no two the same.
	Keys keyURIs `yaml:"keys"`
	// Lives of certificates, in days.
	Validity validityDays `yaml:"validity_days"`
	// Where the public finds things.
	URLs urls `yaml:"urls"`
	// Names under which officers and the OCSP responder call the daemons over TLS: in the TLS certificates and in the
	// URLs of the configurations.
	Hosts hosts `yaml:"hosts"`
	// The addresses of the daemons, host:port, no two the same in the whole script.
	Listen addresses `yaml:"listen"`
	// How often CRLs come and how long they hold.
	CRL crlTimes `yaml:"crl"`
	// How long an OCSP answer holds, nextUpdate - thisUpdate: 1s to 24h. Default 12h.
	StatusLife time.Duration `yaml:"status_life"`
	// What goes into tsa.yaml.
	TSA tsaSettings `yaml:"tsa"`
	// The officers to be, one at least. Their ids are made up by the ceremony. Required.
	Officers []officerScript `yaml:"officers"`
}

// ceremonyFacts go into the key report (EN 319 411-1 GEN-6.5.1-11 to -14).
type ceremonyFacts struct {
	// The versioned document that is followed (EN 319 411-1 GEN-6.5.1-11). Required under assurance: qualified.
	Procedure string `yaml:"procedure"`
	// Where the ceremony is held (EN 319 411-1 GEN-6.5.1-02). Required under assurance: qualified.
	Location string `yaml:"location"`
	// How several people are needed for the keys of the CAs where the PINs of their tokens are not in shares: what the device itself wants, like
	// two of five operator cards. Required under assurance: qualified for such tokens (EN 319 411-1 GEN-6.5.1-04, GEN-6.5.4-01).
	DualControl string `yaml:"dual_control"`
	// The people in the room. Under assurance: qualified a security_officer and an external witness are among them (EN 319
	// 411-1 GEN-6.5.1-14). Optional.
	Participants []participant `yaml:"participants"`
}

// participant is a person in the room.
type participant struct {
	// The person's name, as it goes into the report. Required.
	Name string `yaml:"name" json:"name"`
	// A trusted role (as of officers), or witness. Required.
	Role string `yaml:"role" json:"role"`
	// true: not of the provider's staff. Default false.
	External bool `yaml:"external" json:"external"`
	// What the person does, and in which phase. Optional.
	Functions []string `yaml:"functions" json:"functions"`
	// The number of the shares of PINs that the person keeps, 1 to 16; no two people have one. Optional.
	Share int `yaml:"share" json:"share,omitempty"`
	// What the person answers for when it is over. Optional.
	Afterwards string `yaml:"afterwards" json:"afterwards"`
}

// provider has the names in the certificates (EN 319 412-2 §4.2.3.1).
type provider struct {
	// countryName, ISO 3166-1 alpha-2, upper case. Required.
	Country string `yaml:"country"`
	// organizationName: the full registered name. Required.
	Organization string `yaml:"organization"`
	// organizationIdentifier, like NTRNL-12345678 (EN 319 412-1 §5.1.4). Required.
	OrganizationIdentifier string `yaml:"organization_identifier"`
	// commonName of the root. Required.
	Root string `yaml:"root"`
	// commonName of the issuing CA, not the root's. Required.
	Issuing string `yaml:"issuing"`
	// commonName of the OCSP responder. Required.
	OCSP string `yaml:"ocsp"`
	// commonName of the time-stamping unit. Required.
	TSU string `yaml:"tsu"`
}

// origins name the two logs in their checkpoints (C2SP tlog-checkpoint): a URL without scheme, never reused.
type origins struct {
	// Origin of the CA's journal: a URL without scheme, such as zegel.example/ca; never used twice. Required.
	CA string `yaml:"ca"`
	// Origin of the TSA's journal, another one. Required.
	TSA string `yaml:"tsa"`
}

// keyURI is a key pair to be made.
type keyURI struct {
	// pkcs11: (RFC 7512) or softtoken: URI, with object=NAME. Required.
	URI string `yaml:"uri"`
	// p256, p384, p521, rsa3072 or rsa4096. Required.
	Algorithm string `yaml:"algorithm"`
	// What an RSA key signs with, from its first signature on and in the daemon's configuration: pkcs1v15
	// (RSASSA-PKCS1-v1_5) or pss (RSASSA-PSS), both with SHA-256 (RFC 8017 §8, TS 119 312 table 6). An EC key has none,
	// nor has the management key. Default pkcs1v15.
	SignatureScheme der.Scheme `yaml:"signature_scheme"`
	// true: zegel token backup can take the key, wrapped under a key that the token's security officer trusts, for another token. The token then no
	// longer vouches that the key never could leave; for pkcs11: keys only. Default false.
	Backup bool `yaml:"backup"`
}

// fixedKeyURI is a key whose algorithm is not a matter of choice.
type fixedKeyURI struct {
	// pkcs11: (RFC 7512) or softtoken: URI, with object=NAME. Required.
	URI string `yaml:"uri"`
}

// keyURIs are all keys of the provider. None of the URIs may name an object that exists, and no two the same.
type keyURIs struct {
	// Signs the certificates of CAs, and the root's CRL; used in the ceremony only.
	Root keyURI `yaml:"root"`
	// Signs certificates and CRLs.
	Issuing keyURI `yaml:"issuing"`
	// Signs OCSP answers.
	OCSP keyURI `yaml:"ocsp"`
	// Signs timestamps.
	TSU keyURI `yaml:"tsu"`
	// Signs TLS and officers' certificates, outside the qualified hierarchy; softtoken: also under assurance: qualified.
	Management keyURI `yaml:"management"`
	// AES-256: wraps the key of the CA journal's sealed bodies.
	CAWrap fixedKeyURI `yaml:"ca_wrap"`
	// Ed25519: signs the CA journal's checkpoints.
	CACheckpoint fixedKeyURI `yaml:"ca_checkpoint"`
	// AES-256: wraps the key of the TSA journal's sealed bodies.
	TSAWrap fixedKeyURI `yaml:"tsa_wrap"`
	// Ed25519: signs the TSA journal's checkpoints.
	TSACheckpoint fixedKeyURI `yaml:"tsa_checkpoint"`
}

// validityDays are lives of certificates. 0: as long as the profile allows.
type validityDays struct {
	// The root; without it as long as the profile root-ca allows. Optional.
	Root int `yaml:"root"`
	// The issuing CA; without it as long as the profile issuing-ca and the root allow. Optional.
	Issuing int `yaml:"issuing"`
	// The OCSP responder; without it as long as the profile ocsp-responder allows. Optional.
	OCSP int `yaml:"ocsp"`
	// The time-stamping unit; without it as long as the profile tsu and the issuing CA allow. Optional.
	TSU int `yaml:"tsu"`
	// TLS servers, the responder's feed client and officers; at most 398. Default 365.
	TLS int `yaml:"tls"`
}

// urls are where the public finds things. All but the PDS are http:// (EN 319 412-2 GEN-4.4.1).
type urls struct {
	// http:// address that serves publish/root.cer: AIA of the issuing CA. Required.
	RootCertificate string `yaml:"root_certificate"`
	// http:// address that serves publish/root.crl: CDP of the issuing CA. Required.
	RootCRL string `yaml:"root_crl"`
	// http:// address that serves publish/issuing.cer: AIA of all others. Required.
	IssuingCertificate string `yaml:"issuing_certificate"`
	// http:// address that serves publish/issuing.crl: CDP of all others. Required.
	CRL string `yaml:"crl"`
	// http:// address of the OCSP responder: AIA of all others. Required.
	OCSP string `yaml:"ocsp"`
	// http:// address of the TSA, for zegel.yaml only. Required.
	TSA string `yaml:"tsa"`
	// The PKI disclosure statements, one of them in English at least (EN 319 412-5 QCS-4.3.4). Required.
	PDS []pds `yaml:"pds"`
}

type pds struct {
	// https:// address of the statement. Required.
	URL string `yaml:"url"`
	// Its language, ISO 639-1, two lower-case letters. Required.
	Language string `yaml:"language"`
}

// hosts are the names under which officers and the OCSP responder reach the daemons over TLS.
type hosts struct {
	// DNS name or IP address of zegel-ca; without it the host of listen.ca.admin. Optional.
	CA string `yaml:"ca"`
	// DNS name or IP address of zegel-ocsp; without it the host of listen.ocsp.admin. Optional.
	OCSP string `yaml:"ocsp"`
	// DNS name or IP address of zegel-tsa; without it the host of listen.tsa.admin. Optional.
	TSA string `yaml:"tsa"`
}

// addresses are host:port to listen on.
type addresses struct {
	// zegel-ca.
	CA struct {
		// Officers, mutual TLS. Required.
		Admin string `yaml:"admin"`
		// OCSP replicas, mutual TLS. Required.
		Feed string `yaml:"feed"`
		// /metrics and /health. Required.
		Metrics string `yaml:"metrics"`
	} `yaml:"ca"`
	// zegel-ocsp.
	OCSP struct {
		// Public. Required.
		HTTP string `yaml:"http"`
		// Officers, mutual TLS. Required.
		Admin string `yaml:"admin"`
		// /metrics and /health. Required.
		Metrics string `yaml:"metrics"`
	} `yaml:"ocsp"`
	// zegel-tsa.
	TSA struct {
		// Public, plain HTTP. Required.
		HTTP string `yaml:"http"`
		// Public, TLS. Required.
		HTTPS string `yaml:"https"`
		// Officers, mutual TLS. Required.
		Admin string `yaml:"admin"`
		// /metrics and /health. Required.
		Metrics string `yaml:"metrics"`
	} `yaml:"tsa"`
}

// crlTimes are how often CRLs come and how long they hold.
type crlTimes struct {
	// The issuing CA makes a CRL at least this often: above 0, at most 24h (EN 319 411-1 CSS-6.3.9-05). Default 12h.
	Every time.Duration `yaml:"every"`
	// How long a CRL of the issuing CA holds: more than every, at most 240h. Default 24h.
	Life time.Duration `yaml:"life"`
	// How long the root's one CRL holds: 24h to 8760h (EN 319 411-1 CSS-6.3.9-12). Default 8760h.
	RootLife time.Duration `yaml:"root_life"`
}

// tsaSettings go into tsa.yaml.
type tsaSettings struct {
	// OID of the policy of tokens whose request names none; BTSP of EN 319 421. Default 0.4.0.2023.1.1.
	Policy string `yaml:"policy"`
	// OIDs of other policies that may be asked for. Optional.
	Policies []string `yaml:"policies"`
	// Stated in every token: above 0, at most 1s (EN 319 421 TIS-7.7.2-03). Default 1s.
	Accuracy time.Duration `yaml:"accuracy"`
	// Tokens carry the statement of a qualified one (EN 319 422 §9.1). Default true.
	Qualified *bool `yaml:"qualified"`
}

// officerScript is an officer to be. The id is made up here.
type officerScript struct {
	// Letters, digits, '.', '_' and '-', at most 64: the files officers/NAME.* are named after it. Never in a leaf of the
	// journal. Required.
	Name string `yaml:"name"`
	// Trusted roles: registration_officer, revocation_officer, system_auditor, security_officer, system_operator,
	// system_administrator. Under assurance: qualified a system_auditor has no other role, and a security_officer neither
	// operates nor administers (EN 319 401 REQ-7.2-13). Required.
	Roles []string `yaml:"roles"`
	// Absolute path of the officer's certificate signing request (PKCS#10, PEM or DER), of which only the key counts: the officer
	// made it, in a device (EN 319 411-1 GEN-6.5.5-04). Without it the ceremony makes the key, as a file. Required under assurance: qualified.
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
