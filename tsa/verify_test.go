package tsa

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// forgery is a token in parts, good until a test spoils one of them. It is signed after that, with the TSU's
// own key: what the verifier has to find is the spoilt part, not a broken signature.
type forgery struct {
	ca      *testCA
	unit    Unit
	options VerifyOptions

	info         tstInfo
	infoDER      []byte // instead of info
	contentType  []byte
	version      byte
	eContentType []byte
	certificates []byte
	signers      int
	sid          []byte
	digest       crypto.Hash
	digests      []byte   // SignedData.digestAlgorithms; nil: the one
	attributes   [][]byte // nil: the three, made for the content
	essCert      []byte   // value of signingCertificateV2
	noAttributes bool
	algorithm    []byte
	signature    func(message []byte) []byte
	tail         []byte // after the signature
}

func newForgery(t testing.TB) *forgery {
	t.Helper()
	// The same in every process, because those of a fuzzing run share their inputs.
	ca := testCAWith(t, fixedKey(t, 1), fixedKey(t, 2))
	key := fixedKey(t, 3)
	unit := ca.unit(t, key, tsuTemplate())
	digest := sha256.Sum256([]byte("data"))
	imprint, err := newMessageImprint(crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	f := &forgery{
		ca: ca, unit: unit, version: 3, signers: 1, digest: crypto.SHA256,
		contentType: oidDER(oidSignedData), eContentType: oidDER(oidTSTInfo), certificates: certificateSet(unit),
		info: tstInfo{
			policy: oidDER(BTSP), messageImprint: imprint, serialNumber: []byte{0x2a}, genTime: testTime, precision: time.Millisecond,
			accuracy: marshalAccuracy(time.Second), nonce: integer(big.NewInt(77)), tsa: wrap(tagExplicit0, directoryName(unit.Certificate.RawSubject)),
			extensions: qualifiedExtensions(),
		},
		options: VerifyOptions{Roots: ca.roots(), Data: strings.NewReader("data"), Nonce: big.NewInt(77), Policy: BTSP, Now: testTime.Add(time.Hour), ChainAt: testTime.Add(time.Hour)},
	}
	f.certify(unit.Certificate)
	f.algorithm = wrap(0x30, oidDER(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}))
	f.signature = func(message []byte) []byte { return signWith(t, key, crypto.SHA256, message) }
	return f
}

// certify makes sid and ESSCertIDv2 name c.
func (f *forgery) certify(c *x509.Certificate) {
	f.sid = wrap(0x30, c.RawIssuer, integer(c.SerialNumber))
	f.essCert = signingCertificateV2(c.RawIssuer, integer(c.SerialNumber), sha256.Sum256(c.Raw))
}

// essCertID is the ESSCertIDv2 in essCert, by the short way: without issuerSerial.
func (f *forgery) essCertID() []byte {
	hash := sha256.Sum256(f.unit.Certificate.Raw)
	return wrap(0x30, wrap(0x04, hash[:]))
}

// extendSigningCertificate puts more behind certs of signingCertificateV2.
func (f *forgery) extendSigningCertificate(t testing.TB, more []byte) {
	t.Helper()
	f.essCert = wrap(0x30, wrap(0x30, f.essCertID()), more)
}

// recertify gives the unit another certificate for the same key.
func (f *forgery) recertify(t testing.TB, change func(*x509.Certificate)) {
	template := tsuTemplate()
	change(template)
	f.unit.Certificate = sign(t, template, f.ca.issuing, f.unit.Key.Public(), f.ca.key)
	f.certificates = certificateSet(f.unit)
	f.certify(f.unit.Certificate)
}

func (f *forgery) token() []byte {
	content := f.infoDER
	if content == nil {
		content = f.info.marshal()
	}
	list := f.attributes
	if list == nil {
		h := f.digest.New()
		h.Write(content)
		list = [][]byte{
			attribute(oidContentType, oidDER(oidTSTInfo)),
			attribute(oidMessageDigest, wrap(0x04, h.Sum(nil))),
			attribute(oidSigningCertificateV2, f.essCert),
		}
	}
	attributes := wrap(cbasn1.SET, list...)
	signature := f.signature(attributes)
	attributes[0] = 0xa0
	if f.noAttributes {
		attributes, signature = nil, f.signature(content)
	}
	digests := f.digests
	if digests == nil {
		digests = wrap(cbasn1.SET, hashIdentifier(f.digest))
	}
	signer := wrap(0x30, []byte{2, 1, 1}, f.sid, hashIdentifier(f.digest), attributes, f.algorithm, wrap(0x04, signature), f.tail)
	return wrap(0x30, f.contentType, wrap(0xa0, wrap(0x30,
		[]byte{2, 1, f.version}, digests,
		wrap(0x30, f.eContentType, wrap(0xa0, wrap(0x04, content))),
		f.certificates,
		wrap(cbasn1.SET, bytes.Repeat(signer, f.signers)))))
}

// otherTSU is a second unit under the same CA.
func otherTSU(t testing.TB, f *forgery) *x509.Certificate {
	template := tsuTemplate()
	template.SerialNumber = big.NewInt(99)
	return sign(t, template, f.ca.issuing, &newP256(t).PublicKey, f.ca.key)
}

// verifyFault is one way to spoil a token or what it is held against, and what the verifier says.
type verifyFault struct {
	name  string
	spoil func(*testing.T, *forgery)
	want  string // "" for what must verify
}

func structureFaults() []verifyFault {
	return []verifyFault{
		{"nothing", func(*testing.T, *forgery) {}, ""},
		{"another contentType", func(_ *testing.T, f *forgery) { f.contentType = oidDER(oidTSTInfo) }, "not CMS SignedData"},
		{"SignedData of version 1", func(_ *testing.T, f *forgery) { f.version = 1 }, "version 3"},
		{"another eContentType", func(_ *testing.T, f *forgery) { f.eContentType = oidDER(oidSignedData) }, "not a TSTInfo"},
		{"two signers", func(_ *testing.T, f *forgery) { f.signers = 2 }, "exactly one SignerInfo"},
		{"no signer", func(_ *testing.T, f *forgery) { f.signers = 0 }, "exactly one SignerInfo"},
		{"unknown field", func(_ *testing.T, f *forgery) { f.tail = []byte{5, 0} }, "unknown field"},
		{"unsigned attributes", func(_ *testing.T, f *forgery) {
			f.tail = wrap(0xa1, attribute(oidContentType, oidDER(oidSignedData)))
		}, ""},
		{"unsigned attributes, none", func(_ *testing.T, f *forgery) { f.tail = wrap(0xa1) }, "unsigned attributes"},
		{"unsigned attributes of NULL", func(_ *testing.T, f *forgery) { f.tail = wrap(0xa1, []byte{5, 0}) }, "unsigned attributes"},
		{"unsigned attribute without value", func(_ *testing.T, f *forgery) {
			f.tail = wrap(0xa1, wrap(0x30, oidDER(oidContentType), wrap(0x31)))
		}, "unsigned attributes"},
		{"unsigned attribute with more than its values", func(_ *testing.T, f *forgery) {
			f.tail = wrap(0xa1, wrap(0x30, oidDER(oidContentType), wrap(0x31, []byte{5, 0}), []byte{5, 0}))
		}, "unsigned attributes"},
		{"no digestAlgorithms", func(_ *testing.T, f *forgery) { f.digests = wrap(0x31) }, "digestAlgorithms"},
		{"digestAlgorithms of integers", func(_ *testing.T, f *forgery) { f.digests = wrap(0x31, []byte{2, 1, 5}) }, "digestAlgorithms"},
		{"digestAlgorithms without the signer's", func(_ *testing.T, f *forgery) {
			f.digests = wrap(0x31, hashIdentifier(crypto.SHA512))
		}, "digestAlgorithms"},
		{"digestAlgorithms with another's", func(t *testing.T, f *forgery) {
			f.digests = wrap(0x31, unhex(t, "300906052b0e03021a0500"), hashIdentifier(crypto.SHA256))
		}, ""},
		{"digestAlgorithm with two parameters", func(t *testing.T, f *forgery) {
			f.digests = wrap(0x31, unhex(t, "300b06052b0e03021a05000500"), hashIdentifier(crypto.SHA256))
		}, "digestAlgorithms"},
		{"certificate malformed", func(_ *testing.T, f *forgery) { f.certificates = wrap(0xa0, wrap(0x30, []byte{5, 0})) }, "read a certificate"},
		{"TSTInfo of version 2", func(_ *testing.T, f *forgery) {
			f.infoDER = bytes.Replace(f.info.marshal(), []byte{2, 1, 1}, []byte{2, 1, 2}, 1)
		}, "version 1"},
		{"TSTInfo not DER", func(_ *testing.T, f *forgery) {
			f.infoDER = append(append([]byte{0x30, 0x80}, f.info.marshal()[3:]...), 0, 0)
		}, "not canonical DER"},
		{"imprint by SHA-1", func(t *testing.T, f *forgery) {
			f.info.messageImprint.raw = wrap(0x30, unhex(t, "300906052b0e03021a0500"), wrap(0x04, make([]byte, 20)))
		}, "1.3.14.3.2.26"},
		{"genTime with trailing zero", func(_ *testing.T, f *forgery) {
			f.infoDER = bytes.Replace(f.info.marshal(), []byte("\x13"+"20261123163005.678Z"), []byte("\x13"+"20261123163005.670Z"), 1)
		}, "trailing zeros"},
		{"accuracy out of range", func(t *testing.T, f *forgery) { f.info.accuracy = unhex(t, "30048002 03e8") }, "millis"},
		{"critical extension", func(_ *testing.T, f *forgery) {
			f.info.extensions = wrap(0xa1, wrap(0x30, oidDER(BTSP), []byte{1, 1, 0xff}, wrap(0x04, []byte{5, 0})))
		}, "critical"},
		{"other extension", func(_ *testing.T, f *forgery) {
			f.info.extensions = wrap(0xa1, wrap(0x30, oidDER(BTSP), wrap(0x04, []byte{5, 0})))
		}, ""},
		{"qcStatements malformed", func(_ *testing.T, f *forgery) {
			f.info.extensions = wrap(0xa1, wrap(0x30, oidDER(oidQCStatements), wrap(0x04, []byte{5, 0})))
		}, "qcStatements"},
		{"field after the extensions", func(_ *testing.T, f *forgery) { f.info.extensions = append(f.info.extensions, 5, 0) }, "unknown or misplaced"},
	}
}

func signatureFaults() []verifyFault {
	return []verifyFault{
		{"no signed attributes", func(_ *testing.T, f *forgery) { f.noAttributes = true }, "no signed attributes"},
		{"signed contentType", func(_ *testing.T, f *forgery) {
			f.attributes = [][]byte{attribute(oidContentType, oidDER(oidSignedData))}
		}, "contentType"},
		{"messageDigest of another content", func(_ *testing.T, f *forgery) {
			f.attributes = [][]byte{attribute(oidContentType, oidDER(oidTSTInfo)), attribute(oidMessageDigest, wrap(0x04, make([]byte, 32)))}
		}, "messageDigest"},
		{"no signingCertificateV2", func(_ *testing.T, f *forgery) {
			digest := sha256.Sum256(f.info.marshal())
			f.attributes = [][]byte{attribute(oidContentType, oidDER(oidTSTInfo)), attribute(oidMessageDigest, wrap(0x04, digest[:]))}
		}, "signingCertificateV2 is not among"},
		{"attribute twice", func(_ *testing.T, f *forgery) {
			a := attribute(oidContentType, oidDER(oidTSTInfo))
			f.attributes = [][]byte{a, a}
		}, "occurs twice"},
		{"attributes not sorted", func(_ *testing.T, f *forgery) {
			f.attributes = [][]byte{attribute(oidMessageDigest, wrap(0x04, make([]byte, 32))), attribute(oidContentType, oidDER(oidTSTInfo))}
		}, "SET OF not sorted"},
		{"attribute with two values", func(_ *testing.T, f *forgery) {
			f.attributes = [][]byte{wrap(0x30, oidDER(oidContentType), wrap(0x31, oidDER(oidTSTInfo), oidDER(oidTSTInfo)))}
		}, "exactly one value"},
		{"ESSCertIDv2 of another certificate", func(t *testing.T, f *forgery) {
			other, sid := otherTSU(t, f), f.sid
			f.certify(other)
			f.sid = sid
		}, "hash differs"},
		{"ESSCertIDv2 with another issuerSerial", func(_ *testing.T, f *forgery) {
			c := f.unit.Certificate
			f.essCert = signingCertificateV2(c.RawIssuer, integer(big.NewInt(5)), sha256.Sum256(c.Raw))
		}, "issuer or serial differs"},
		{"ESSCertIDv2 by SHA-512, without issuerSerial", func(_ *testing.T, f *forgery) {
			h := crypto.SHA512.New()
			h.Write(f.unit.Certificate.Raw)
			f.essCert = wrap(0x30, wrap(0x30, wrap(0x30, hashIdentifier(crypto.SHA512), wrap(0x04, h.Sum(nil)))))
		}, ""},
		{"ESSCertIDv2 malformed", func(_ *testing.T, f *forgery) { f.essCert = wrap(0x30, wrap(0x04, make([]byte, 100))) }, "signingCertificateV2 is malformed"},
		{"signingCertificateV2 with more than it has", func(t *testing.T, f *forgery) { f.extendSigningCertificate(t, []byte{5, 0}) }, "signingCertificateV2 is malformed"},
		{"signingCertificateV2 with policies", func(t *testing.T, f *forgery) {
			f.extendSigningCertificate(t, wrap(0x30, wrap(0x30, oidDER(BTSP))))
		}, ""},
		{"signingCertificateV2 with no policy", func(t *testing.T, f *forgery) { f.extendSigningCertificate(t, wrap(0x30)) }, "signingCertificateV2 is malformed"},
		{"signingCertificateV2 with a policy of NULL", func(t *testing.T, f *forgery) {
			f.extendSigningCertificate(t, wrap(0x30, wrap(0x30, []byte{5, 0})))
		}, "signingCertificateV2 is malformed"},
		{"second ESSCertIDv2", func(_ *testing.T, f *forgery) {
			f.essCert = wrap(0x30, wrap(0x30, f.essCertID(), wrap(0x30, wrap(0x04, make([]byte, 32)))))
		}, ""},
		{"second ESSCertIDv2 malformed", func(_ *testing.T, f *forgery) {
			f.essCert = wrap(0x30, wrap(0x30, f.essCertID(), wrap(0x30, []byte{5, 0})))
		}, "signingCertificateV2 is malformed"},
		{"sid of another certificate", func(t *testing.T, f *forgery) { f.certify(otherTSU(t, f)) }, "neither in the token nor given"},
		{"signature of another key", func(t *testing.T, f *forgery) {
			key := newP256(t)
			f.signature = func(message []byte) []byte { return signWith(t, key, crypto.SHA256, message) }
		}, "signature does not verify"},
		{"signature altered", func(_ *testing.T, f *forgery) {
			good := f.signature
			f.signature = func(message []byte) []byte { s := good(message); s[len(s)-1] ^= 1; return s }
		}, "signature does not verify"},
		{"RSA identifier over an ECDSA key", func(t *testing.T, f *forgery) { f.algorithm = unhex(t, "300d06092a864886f70d01010b0500") }, "does not verify"},
		{"ECDSA with parameters", func(t *testing.T, f *forgery) { f.algorithm = unhex(t, "300c06082a8648ce3d0403020500") }, "has parameters"},
		{"hash of the signature differs", func(t *testing.T, f *forgery) { f.algorithm = unhex(t, "300a06082a8648ce3d040303") }, "digestAlgorithm"},
		{"SHA-1 signature", func(t *testing.T, f *forgery) { f.algorithm = unhex(t, "300906072a8648ce3d0401") }, "not accepted"},
	}
}

func certificateFaults() []verifyFault {
	recertified := func(change func(*x509.Certificate)) func(*testing.T, *forgery) {
		return func(t *testing.T, f *forgery) { f.recertify(t, change) }
	}
	return []verifyFault{
		{"no certificates", func(_ *testing.T, f *forgery) { f.certificates = nil }, "neither in the token nor given"},
		{"certificates given", func(_ *testing.T, f *forgery) {
			f.certificates = nil
			f.options.Certificates = append([]*x509.Certificate{f.unit.Certificate}, f.unit.Chain...)
		}, ""},
		{"no issuing CA", func(_ *testing.T, f *forgery) { f.certificates = wrap(0xa0, f.unit.Certificate.Raw) }, "unknown authority"},
		{"another root", func(t *testing.T, f *forgery) { f.options.Roots = newTestCA(t).roots() }, "verify the TSU's chain"},
		{"extKeyUsage not critical", recertified(func(c *x509.Certificate) { c.ExtraExtensions[0] = ekuTimeStamping(false) }), "not critical"},
		{"extKeyUsage with another", recertified(func(c *x509.Certificate) {
			value, _ := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping, {1, 3, 6, 1, 5, 5, 7, 3, 9}})
			c.ExtraExtensions[0] = pkix.Extension{Id: oidExtKeyUsage, Critical: true, Value: value}
		}), "timeStamping alone"},
		{"no extKeyUsage", recertified(func(c *x509.Certificate) { c.ExtraExtensions = nil }), "timeStamping alone"},
		{"keyUsage for certificates", recertified(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageKeyEncipherment }), "keyUsage"},
		{"genTime before the certificate", recertified(func(c *x509.Certificate) { c.NotBefore = testTime.Add(time.Hour) }), "outside the time"},
		{"genTime after the key's use", recertified(func(c *x509.Certificate) { c.ExtraExtensions[1] = usageUntil(testTime.Add(-time.Hour)) }), "outside the time"},
		{"privateKeyUsagePeriod malformed", recertified(func(c *x509.Certificate) { c.ExtraExtensions[1].Value = []byte{5, 0} }), "privateKeyUsagePeriod"},
		{"certificate expired since", func(_ *testing.T, f *forgery) { f.options.ChainAt = testTime.AddDate(6, 0, 0) }, "chain at 2032"},
		{"certificate expired since, judged at genTime", func(_ *testing.T, f *forgery) { f.options.ChainAt = time.Time{} }, ""},
		{"tsa names another", func(_ *testing.T, f *forgery) {
			f.info.tsa = wrap(tagExplicit0, directoryName(f.ca.root.RawSubject))
		}, "TSTInfo.tsa"},
		{"tsa is a URI", func(_ *testing.T, f *forgery) {
			f.info.tsa = wrap(tagExplicit0, wrap(0x86, []byte("https://tsa.test/")))
		}, ""},
	}
}

func contextFaults() []verifyFault {
	return []verifyFault{
		{"other data", func(_ *testing.T, f *forgery) { f.options.Data = strings.NewReader("Data") }, "imprint differs"},
		{"other digest", func(_ *testing.T, f *forgery) {
			f.options.Data, f.options.Hash, f.options.Digest = nil, crypto.SHA256, make([]byte, 32)
		}, "imprint differs"},
		{"digest by another hash", func(_ *testing.T, f *forgery) {
			f.options.Data, f.options.Hash, f.options.Digest = nil, crypto.SHA3_256, make([]byte, 32)
		}, "made with SHA-256"},
		{"other nonce", func(_ *testing.T, f *forgery) { f.options.Nonce = big.NewInt(78) }, "nonce"},
		{"no nonce", func(_ *testing.T, f *forgery) { f.info.nonce = nil }, "nonce"},
		{"other policy", func(_ *testing.T, f *forgery) { f.options.Policy = asn1.ObjectIdentifier{1, 2, 3} }, "policy is 0.4.0.2023.1.1"},
		{"from the future", func(_ *testing.T, f *forgery) { f.options.Now = testTime.Add(-1100*time.Millisecond - ClockSkew) }, "in the future"},
		{"from the future within accuracy and skew", func(_ *testing.T, f *forgery) { f.options.Now = testTime.Add(-900*time.Millisecond - ClockSkew) }, ""},
		{"from the future, nobody asks", func(_ *testing.T, f *forgery) { f.options.Now = time.Time{} }, ""},
		{"older than the question", func(_ *testing.T, f *forgery) { f.options.Since = testTime.Add(1100*time.Millisecond + ClockSkew) }, "before it was asked for"},
		{"older than the question within accuracy and skew", func(_ *testing.T, f *forgery) { f.options.Since = testTime.Add(900*time.Millisecond + ClockSkew) }, ""},
		{"no roots", func(_ *testing.T, f *forgery) { f.options.Roots = nil }, "no root"},
	}
}

// TestVerify has each fault of a token be found, and named. Each is signed with the TSU's own key.
func TestVerify(t *testing.T) {
	for _, tt := range slices.Concat(structureFaults(), signatureFaults(), certificateFaults(), contextFaults()) {
		t.Run(tt.name, func(t *testing.T) {
			f := newForgery(t)
			tt.spoil(t, f)
			_, err := Verify(f.token(), f.options)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestVerifyEveryOctet has no octet of a token be changed without notice, but for the certificates above the TSU's:
// an unneeded one may be anything.
func TestVerifyEveryOctet(t *testing.T) {
	f := newForgery(t)
	f.certificates, f.options.Certificates = nil, append([]*x509.Certificate{f.unit.Certificate}, f.unit.Chain...)
	f.options.Data, f.options.Hash = nil, crypto.SHA256
	digest := sha256.Sum256([]byte("data"))
	f.options.Digest = digest[:]
	token := f.token()
	if _, err := Verify(token, f.options); err != nil {
		t.Fatal(err)
	}
	for i := range token {
		changed := slices.Clone(token)
		changed[i] ^= 0x01
		if _, err := Verify(changed, f.options); err == nil {
			t.Errorf("octet %d changed unnoticed", i)
		}
	}
}

// TestVerifyOtherAlgorithms has the verifier accept what other authorities use: P-384 with SHA-512, and rsaEncryption.
func TestVerifyOtherAlgorithms(t *testing.T) {
	f := newForgery(t)
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.unit = f.ca.unit(t, key, tsuTemplate())
	f.certificates = certificateSet(f.unit)
	f.certify(f.unit.Certificate)
	f.digest, f.algorithm = crypto.SHA512, unhex(t, "300a06082a8648ce3d040304")
	f.signature = func(message []byte) []byte { return signWith(t, key, crypto.SHA512, message) }
	if _, err := Verify(f.token(), f.options); err != nil {
		t.Errorf("P-384 with SHA-512: %v", err)
	}

	f = newForgery(t)
	rsaKey, err := rsa3072()
	if err != nil {
		t.Fatal(err)
	}
	f.unit = f.ca.unit(t, rsaKey, tsuTemplate())
	f.certificates = certificateSet(f.unit)
	f.certify(f.unit.Certificate)
	f.digest, f.algorithm = crypto.SHA384, unhex(t, "300d06092a864886f70d0101010500")
	f.signature = func(message []byte) []byte { return signWith(t, rsaKey, crypto.SHA384, message) }
	if _, err := Verify(f.token(), f.options); err != nil {
		t.Errorf("rsaEncryption with SHA-384: %v", err)
	}
}

// TestVerifyPSS accepts what other authorities make of RFC 4056, which leaves them hash and salt, and nothing besides.
func TestVerifyPSS(t *testing.T) {
	key, err := rsa3072()
	if err != nil {
		t.Fatal(err)
	}
	const (
		head     = "06092a864886f70d01010a"
		hash256  = "a00f300d06096086480165030402010500"
		mgf256   = "a11c301a06092a864886f70d010108300d06096086480165030402010500"
		bare256  = "a00d300b0609608648016503040201"
		bareMGF  = "a11a301806092a864886f70d010108300b0609608648016503040201"
		hash512  = "a00f300d06096086480165030402030500"
		mgf512   = "a11c301a06092a864886f70d010108300d06096086480165030402030500"
		mgfSHA1  = "a118301606092a864886f70d010108300906052b0e03021a0500"
		notMGF1  = "a11c301a06092a864886f70d010107300d06096086480165030402010500"
		hashSHA3 = "a00f300d06096086480165030402080500"
		mgfSHA3  = "a11c301a06092a864886f70d010108300d06096086480165030402080500"
	)
	for _, tt := range []struct {
		name, params string // in hex, without the SEQUENCE
		hash         crypto.Hash
		salt         int    // of the signature
		want         string // "" for what must verify
	}{
		{"ours", hash256 + mgf256 + "a203020120", crypto.SHA256, 32, ""},
		{"hashes without NULL", bare256 + bareMGF + "a203020120", crypto.SHA256, 32, ""},
		{"SHA-512", hash512 + mgf512 + "a203020140", crypto.SHA512, 64, ""},
		{"salt of 20, the default", hash256 + mgf256, crypto.SHA256, 20, ""},
		{"the longest salt", hash256 + mgf256 + "a2040202015e", crypto.SHA256, 350, ""},
		{"another salt than it says", hash256 + mgf256 + "a203020120", crypto.SHA256, 20, "does not verify"},
		{"another default salt", hash256 + mgf256, crypto.SHA256, 32, "does not verify"},
		{"no salt", hash256 + mgf256 + "a203020100", crypto.SHA256, 32, "a salt of"},
		{"a salt longer than any key", hash256 + mgf256 + "a20a02087fffffffffffffff", crypto.SHA256, 32, "a salt of"},
		{"a negative salt", hash256 + mgf256 + "a2030201ff", crypto.SHA256, 32, "a salt of"},
		{"trailerField", hash256 + mgf256 + "a203020120a303020102", crypto.SHA256, 32, "trailerField"},
		{"defaults, SHA-1", "", crypto.SHA256, 20, "SHA-1"},
		{"SHA-1", "a00b300906052b0e03021a0500" + mgfSHA1 + "a203020120", crypto.SHA256, 32, "1.3.14.3.2.26"},
		{"SHA3-256", hashSHA3 + mgfSHA3 + "a203020120", crypto.SHA256, 32, "SHA3-256"},
		{"mask by SHA-1", hash256 + mgfSHA1 + "a203020120", crypto.SHA256, 32, "MGF1 with SHA-256"},
		{"mask by SHA-512", hash256 + mgf512 + "a203020120", crypto.SHA256, 32, "MGF1 with SHA-256"},
		{"mask by no MGF1", hash256 + notMGF1 + "a203020120", crypto.SHA256, 32, "MGF1 with SHA-256"},
		{"no mask", hash256 + "a203020120", crypto.SHA256, 32, "malformed"},
		{"another hash than digestAlgorithm", hash512 + mgf512 + "a203020140", crypto.SHA256, 32, "digestAlgorithm"},
		{"salt no INTEGER", hash256 + mgf256 + "a203040120", crypto.SHA256, 32, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newForgery(t)
			f.unit = f.ca.unit(t, key, tsuTemplate())
			f.certificates = certificateSet(f.unit)
			f.certify(f.unit.Certificate)
			f.digest, f.algorithm = tt.hash, wrap(0x30, unhex(t, head), wrap(0x30, unhex(t, tt.params)))
			f.signature = func(message []byte) []byte { return signPSS(t, key, tt.hash, tt.salt, message) }
			_, err := Verify(f.token(), f.options)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	for name, algorithm := range map[string]string{"NULL": "300d06092a864886f70d01010a0500", "absent": "300b06092a864886f70d01010a"} {
		f := newForgery(t)
		f.algorithm = unhex(t, algorithm)
		if _, err := Verify(f.token(), f.options); err == nil || !strings.Contains(err.Error(), "malformed parameters") {
			t.Errorf("parameters %s: %v", name, err)
		}
	}
}

// publicOnly has the public half that is in a certificate, and signs nothing.
type publicOnly struct {
	crypto.Signer
	public crypto.PublicKey
}

func (p publicOnly) Public() crypto.PublicKey { return p.public }

// TestVerifyRSALength: a key that is too short proves nothing, and one that is too long would take minutes: whoever made the token
// chose it, since its certificate comes with it.
func TestVerifyRSALength(t *testing.T) {
	for bits, want := range map[uint]string{1024: "2048 are the least", 2047: "2048 are the least", 2048: "does not verify", 16384: "does not verify", 16385: "16384 are the most", 1 << 20: "16384 are the most"} {
		n := new(big.Int).Lsh(big.NewInt(1), bits)
		n.Sub(n, big.NewInt(1)) // odd, and of that many bits
		f := newForgery(t)
		f.unit = f.ca.unit(t, publicOnly{public: &rsa.PublicKey{N: n, E: 65537}}, tsuTemplate())
		f.certificates = certificateSet(f.unit)
		f.certify(f.unit.Certificate)
		f.algorithm = unhex(t, "300d06092a864886f70d01010b0500")
		f.signature = func([]byte) []byte { return bytes.Repeat([]byte{1}, int(bits+7)/8) }
		began := time.Now()
		_, err := Verify(f.token(), f.options)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bits: %v, want %q", bits, err, want)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%d bits: %v", bits, took)
		}
	}
}

func signPSS(t testing.TB, key *rsa.PrivateKey, hash crypto.Hash, salt int, message []byte) []byte {
	t.Helper()
	h := hash.New()
	h.Write(message)
	signature, err := rsa.SignPSS(rand.Reader, key, hash, h.Sum(nil), &rsa.PSSOptions{SaltLength: salt})
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func signWith(t testing.TB, key crypto.Signer, hash crypto.Hash, message []byte) []byte {
	h := hash.New()
	h.Write(message)
	signature, err := key.Sign(nil, h.Sum(nil), hash)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// TestParseResponse has each malformed answer be refused, and a rejection be told from it.
func TestParseResponse(t *testing.T) {
	token := newForgery(t).token()
	for _, tt := range []struct {
		name     string
		response []byte
		want     string
	}{
		{"granted", marshalGranted(token), ""},
		{"granted with mods", wrap(0x30, wrap(0x30, []byte{2, 1, 1}), token), ""},
		{"granted without token", marshalGranted(nil), "there is no token"},
		{"rejected with token", wrap(0x30, wrap(0x30, []byte{2, 1, 2}), token), "with a token"},
		{"rejected", marshalRejection(BadAlg, "no"), `status 2, badAlg: "no"`},
		{"two bits, trailing zeros", wrap(0x30, wrap(0x30, []byte{2, 1, 2}, []byte{3, 5, 0, 0x84, 0, 0, 0})), "badAlg and badDataFormat"},
		{"waiting", wrap(0x30, wrap(0x30, []byte{2, 1, 3})), "status 3"},
		{"status 6", wrap(0x30, wrap(0x30, []byte{2, 1, 6})), "PKIStatus"},
		{"statusString of integers", wrap(0x30, wrap(0x30, []byte{2, 1, 2}, wrap(0x30, []byte{2, 1, 2}))), "statusString"},
		{"unknown field", wrap(0x30, wrap(0x30, []byte{2, 1, 2}, []byte{5, 0})), "unknown field"},
		{"empty", nil, "not canonical DER"},
		{"HTML", []byte("<html>"), "not canonical DER"},
		{"too long", make([]byte, MaxResponse+1), "longer than"},
		{"after the token", wrap(0x30, wrap(0x30, []byte{2, 1, 0}), token, []byte{5, 0}), "not one token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseResponse(tt.response)
			switch {
			case tt.want == "" && (err != nil || !bytes.Equal(got, token)):
				t.Errorf("got %x, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
