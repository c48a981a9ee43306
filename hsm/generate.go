package hsm

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// protection is how a secret is kept in its token.
type protection int

const (
	// neverExtractable: it leaves the token by no function of PKCS#11.
	neverExtractable protection = iota
	// forBackup: it leaves the token wrapped, under keys that the token's security officer trusts, and in no other way.
	forBackup
)

// order is a pair that is to be made.
type order struct {
	algorithm  KeyAlgorithm
	protection protection
}

// generate makes a pair and hands it out only once the token itself says that it is as protected as asked for.
func (t *token) generate(owner *Tokens, u URI, o order) (*Key, error) {
	algorithm := o.algorithm
	mechanism, specific, err := t.keyPairMechanism(algorithm)
	if err != nil {
		return nil, err
	}
	err = t.administer(u, func(session pkcs11.SessionHandle) error {
		id, err := t.newID(session, u)
		if err != nil {
			return err
		}
		public, private := pairTemplates(u.Object, id)
		if o.protection == forBackup {
			private = extractable(private)
		}
		p, err := t.generatePair(session, mechanism, append(public, specific...), private)
		if o.protection == forBackup && errors.Is(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID)) {
			err = fmt.Errorf("%w: the token does not know CKA_WRAP_WITH_TRUSTED, so it cannot keep a backup to trusted keys: make the key without backup and copy it by the vendor's own means", err)
		}
		if err != nil {
			return t.madeAnyway(session, id, fmt.Errorf("make %s key pair on token %q: C_GenerateKeyPair: %w", algorithm, t.label, err))
		}
		u.ID = id
		want := expected{o.protection, []uint{pkcs11.CKA_SIGN}, []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE}}
		if err := t.checkPair(session, u, p, want); err != nil {
			return t.discard(session, err, p.private, p.public)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made(t.key(owner, u))
}

func (t *token) generatePair(session pkcs11.SessionHandle, mechanism *pkcs11.Mechanism, public, private []*pkcs11.Attribute) (p pair, err error) {
	err = failpoint.Do(failpoint.GenerateKeyPair, func() (err error) {
		p.public, p.private, err = t.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{mechanism}, public, private)
		return err
	})
	return p, err
}

func (t *token) generateSecret(session pkcs11.SessionHandle, template []*pkcs11.Attribute) (object, error) {
	return failpoint.Value(failpoint.GenerateSecretKey, func() (object, error) {
		return t.ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
	})
}

// extractable makes of a secret's template one for backup.
func extractable(template []*pkcs11.Attribute) []*pkcs11.Attribute {
	for i, a := range template {
		if a.Type == pkcs11.CKA_EXTRACTABLE {
			template[i] = pkcs11.NewAttribute(a.Type, true)
		}
	}
	return append(template, pkcs11.NewAttribute(pkcs11.CKA_WRAP_WITH_TRUSTED, true))
}

// made marks the error of opening a key that was made a moment ago.
func made[T any](key *T, err error) (*T, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: open it: %w", ErrMade, err)
	}
	return key, nil
}

// madeAnyway is the error of a key that the token says it did not make. A token that fails late has the key all the same, and
// whoever has to destroy it must be told.
func (t *token) madeAnyway(session pkcs11.SessionHandle, id []byte, why error) error {
	found, err := t.find(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id)})
	switch {
	case err != nil:
		return fmt.Errorf("%w; look on the token whether the key is there: %w", why, err)
	case len(found) > 0:
		return fmt.Errorf("%w: %w", ErrMade, why)
	}
	return why
}

// discard destroys a key that is not as it should be, and returns why it is not.
func (t *token) discard(session pkcs11.SessionHandle, why error, objects ...object) error {
	if err := t.destroyObjects(session, objects...); err != nil {
		return fmt.Errorf("%w: %w: %w", ErrMade, why, err)
	}
	return why
}

// keyPairMechanism returns how the token makes pairs of algorithm, and what the public template says of it.
func (t *token) keyPairMechanism(algorithm KeyAlgorithm) (*pkcs11.Mechanism, []*pkcs11.Attribute, error) {
	mechanism := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	var specific []*pkcs11.Attribute
	switch algorithm {
	case RSA3072, RSA4096:
		bits := map[KeyAlgorithm]int{RSA3072: 3072, RSA4096: 4096}[algorithm]
		mechanism = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		specific = []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}), // TS 119 312: above 2^16
		}
	case Ed25519:
		mechanism = ckmECEdwardsKeyPairGen
	}
	for _, spec := range curveSpecs() {
		if spec.algorithm == algorithm {
			specific = []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, spec.params)}
		}
	}
	if specific == nil || !t.has(mechanism) {
		return nil, nil, fmt.Errorf("token %q makes no %s keys (it has no mechanism 0x%x)", t.label, algorithm, mechanism)
	}
	return pkcs11.NewMechanism(mechanism, nil), specific, nil
}

// newID returns the CKA_ID for a new object, after making sure that neither it nor the label is taken by anything.
func (t *token) newID(session pkcs11.SessionHandle, u URI) ([]byte, error) {
	if u.Object == "" {
		return nil, errors.New("the URI has no object: a new key needs a label, add object=LABEL to it")
	}
	taken := func(kind uint, value []byte, what string) error {
		found, err := t.find(session, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, value)})
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("token %q has %d objects of this %s: %w: choose another, or remove them first", t.label, len(found), what, ErrExists)
		}
		return err
	}
	if err := taken(pkcs11.CKA_LABEL, []byte(u.Object), "label"); err != nil {
		return nil, err
	}
	if len(u.ID) > 0 {
		return u.ID, taken(pkcs11.CKA_ID, u.ID, "id")
	}
	id := make([]byte, 16)
	rand.Read(id) // never fails: it ends the process instead
	return id, nil
}

// pairTemplates asks for a pair that signs and verifies and does nothing else. What a template leaves out is for the token to
// choose, and SoftHSM would choose decryption and unwrapping.
func pairTemplates(label string, id []byte) (public, private []*pkcs11.Attribute) {
	attribute := pkcs11.NewAttribute
	public = []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		attribute(pkcs11.CKA_TOKEN, true),
		attribute(pkcs11.CKA_PRIVATE, false),
		attribute(pkcs11.CKA_LABEL, label),
		attribute(pkcs11.CKA_ID, id),
		attribute(pkcs11.CKA_VERIFY, true),
		attribute(pkcs11.CKA_ENCRYPT, false),
		attribute(pkcs11.CKA_WRAP, false),
	}
	private = append(protectedTemplate(pkcs11.CKO_PRIVATE_KEY, label, id),
		attribute(pkcs11.CKA_SIGN, true),
		attribute(pkcs11.CKA_DECRYPT, false),
		attribute(pkcs11.CKA_UNWRAP, false),
		attribute(pkcs11.CKA_DERIVE, false),
	)
	return public, private
}

// protectedTemplate is what every secret of ours has: on the token, only after login, never to leave.
func protectedTemplate(class uint, label string, id []byte) []*pkcs11.Attribute {
	attribute := pkcs11.NewAttribute
	return []*pkcs11.Attribute{
		attribute(pkcs11.CKA_CLASS, class),
		attribute(pkcs11.CKA_TOKEN, true),
		attribute(pkcs11.CKA_PRIVATE, true),
		attribute(pkcs11.CKA_SENSITIVE, true),
		attribute(pkcs11.CKA_EXTRACTABLE, false),
		attribute(pkcs11.CKA_LABEL, label),
		attribute(pkcs11.CKA_ID, id),
	}
}

// checkPair asks the token what it made: the pair under its name, and nothing else under it, protected and for signing only.
func (t *token) checkPair(session pkcs11.SessionHandle, u URI, made pair, want expected) error {
	found, err := t.findPair(session, u)
	if err != nil {
		return err
	}
	if found != made {
		return fmt.Errorf("token %q shows another pair under the new one's name", t.label)
	}
	if _, err := t.publicKey(session, made.public); err != nil {
		return err
	}
	return t.checkProtected(session, made.private, want)
}

// expected are the attributes that a new secret must have: those of its protection, its uses, and none of the bans.
type expected struct {
	protection protection
	uses, bans []uint
}

// checkProtected reads a new secret object's attributes back: protected, made here, and with the uses it should have and none that it
// should not.
func (t *token) checkProtected(session pkcs11.SessionHandle, o object, want expected) error {
	must := []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ALWAYS_SENSITIVE, pkcs11.CKA_LOCAL}
	mustNot := []uint{pkcs11.CKA_EXTRACTABLE}
	switch want.protection {
	case neverExtractable:
		must = append(must, pkcs11.CKA_NEVER_EXTRACTABLE)
	case forBackup:
		must, mustNot = append(must, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP_WITH_TRUSTED), []uint{pkcs11.CKA_NEVER_EXTRACTABLE}
	}
	return t.checkFlags(session, o, append(must, want.uses...), append(mustNot, want.bans...))
}

// checkFlags wants the flags of must set and those of mustNot not set, as the token reports them.
func (t *token) checkFlags(session pkcs11.SessionHandle, o object, must, mustNot []uint) error {
	for i, kind := range append(must[:len(must):len(must)], mustNot...) {
		set, err := t.flag(session, o, kind)
		if err != nil {
			return err
		}
		if set != (i < len(must)) {
			return fmt.Errorf("token %q made a key whose %s is %v: it is not protected as asked and is destroyed", t.label, attributeName(kind), set)
		}
	}
	return nil
}

// attributeName is the standard's name of a flag.
func attributeName(kind uint) string {
	names := map[uint]string{
		pkcs11.CKA_TOKEN: "CKA_TOKEN", pkcs11.CKA_PRIVATE: "CKA_PRIVATE", pkcs11.CKA_SENSITIVE: "CKA_SENSITIVE",
		pkcs11.CKA_ALWAYS_SENSITIVE: "CKA_ALWAYS_SENSITIVE", pkcs11.CKA_EXTRACTABLE: "CKA_EXTRACTABLE", pkcs11.CKA_NEVER_EXTRACTABLE: "CKA_NEVER_EXTRACTABLE",
		pkcs11.CKA_LOCAL: "CKA_LOCAL", pkcs11.CKA_TRUSTED: "CKA_TRUSTED", pkcs11.CKA_WRAP_WITH_TRUSTED: "CKA_WRAP_WITH_TRUSTED",
		pkcs11.CKA_MODIFIABLE: "CKA_MODIFIABLE", pkcs11.CKA_SIGN: "CKA_SIGN", pkcs11.CKA_VERIFY: "CKA_VERIFY", pkcs11.CKA_ENCRYPT: "CKA_ENCRYPT",
		pkcs11.CKA_DECRYPT: "CKA_DECRYPT", pkcs11.CKA_WRAP: "CKA_WRAP", pkcs11.CKA_UNWRAP: "CKA_UNWRAP", pkcs11.CKA_DERIVE: "CKA_DERIVE",
	}
	if name, known := names[kind]; known {
		return name
	}
	return fmt.Sprintf("attribute 0x%x", kind)
}

func (t *token) destroyObjects(session pkcs11.SessionHandle, objects ...object) error {
	var errs []error
	for _, o := range objects {
		if err := failpoint.Do(failpoint.DestroyObject, func() error { return t.ctx.DestroyObject(session, o) }); err != nil {
			errs = append(errs, fmt.Errorf("destroy object on token %q: C_DestroyObject: %w", t.label, err))
		}
	}
	return errors.Join(errs...)
}

// destroy removes the pair, or else the secret key, that u names, and looks whether it is gone.
func (t *token) destroy(u URI) error {
	return t.administer(u, func(session pkcs11.SessionHandle) error {
		objects, err := t.findAll(session, u)
		if err != nil {
			return err
		}
		failed := t.destroyObjects(session, objects...)
		left, secret, err := t.left(session, u)
		switch {
		case err != nil:
			return errors.Join(failed, fmt.Errorf("the key may still be on token %q: look it up: %w", t.label, err))
		case left > 0 && secret == 0 && u.Type != "public":
			return errors.Join(fmt.Errorf("%w: token %q still has the public key alone: destroy it with type=public in the URI", ErrGone, t.label), failed)
		case left > 0:
			return errors.Join(failed, fmt.Errorf("token %q still has %d objects of that name: %w", t.label, left, ErrStillThere))
		case failed != nil:
			return fmt.Errorf("%w: %w", ErrGone, failed)
		}
		return nil
	})
}

// findAll returns the objects of the pair, or else of the secret key, or of the public key alone, that u names.
func (t *token) findAll(session pkcs11.SessionHandle, u URI) ([]object, error) {
	if u.Type == "public" {
		public, err := t.findLonePublic(session, u)
		return []object{public}, err
	}
	if u.Type != "secret-key" {
		p, err := t.findPair(session, u)
		if err == nil {
			return []object{p.private, p.public}, nil
		}
		if u.Type != "" || !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	secret, err := t.findSecretKey(session, u)
	return []object{secret}, err
}

// left counts the objects that findAll would have found a part of, and among them private and secret keys.
func (t *token) left(session pkcs11.SessionHandle, u URI) (n, secret int, err error) {
	classes := []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_SECRET_KEY}
	switch u.Type {
	case "secret-key":
		classes = classes[2:]
	case "public":
		classes = classes[1:2]
	case "private":
		classes = classes[:2]
	}
	for _, class := range classes {
		found, err := t.find(session, u.template(class))
		if err != nil {
			return n, secret, err
		}
		n += len(found)
		if class != pkcs11.CKO_PUBLIC_KEY {
			secret += len(found)
		}
	}
	return n, secret, nil
}
