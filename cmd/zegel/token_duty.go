package main

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/policy"
	"github.com/zegel-tsp/zegel/policy/algorithms"
)

// The algorithms of keys that sign nothing.
const (
	journalKey   = "aes256"            // wraps a journal's key
	backupKey    = "aes256-backup"     // wraps key pairs for backup
	transportKey = "rsa4096-transport" // receives another token's backup key
)

// generateFlags are the flags of token generate.
type generateFlags struct {
	algorithm, out, record string
	backup                 bool
}

func (t *tool) tokenGenerateCommand() *cobra.Command {
	var f generateFlags
	c := &cobra.Command{
		Use: "generate URI --algorithm NAME", Short: "Make a key on a token, and record it",
		Long: `generate makes a key under the label, and the id, of the URI, which nothing on the token may have yet:

  p256, p384, p521, rsa3072, rsa4096, ed25519   a key pair that signs
  aes256              the key that wraps a journal's key
  aes256-backup       the key that backups are wrapped under; the PIN is that of the token's security officer
  rsa4096-transport   a pair that receives the backup key of another token

Keys are sensitive and never extractable, which is read back from the token. With --backup a key pair is
extractable, but only under a key that the token's security officer trusts; zegel token backup takes it.
docs/tokens.md, Duties, has the procedures.`,
		Example: `  zegel token generate 'pkcs11:token=issuing;object=ca-2027?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin' --algorithm p384 --backup`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return t.tokenGenerate(c.Context(), args[0], f) },
	}
	c.Flags().StringVar(&f.algorithm, "algorithm", "", "`NAME` of the key's algorithm, as above")
	c.Flags().BoolVar(&f.backup, "backup", false, "make a key pair that zegel token backup can take")
	c.Flags().StringVar(&f.out, "out", "", "write the public key, PEM, to `FILE`, which must not exist")
	c.Flags().StringVar(&f.record, "record", "", recordUsage)
	_ = c.MarkFlagRequired("algorithm") // fails only for a flag that is not there
	return c
}

const recordUsage = "keep the record in `FILE` instead of the CA's journal, to be entered later with zegel token record"

// check judges the flags.
func (f generateFlags) check() error {
	pairs := f.algorithm != journalKey && f.algorithm != backupKey
	if !pairs && f.out != "" {
		return badInput("--out: an AES key has no public key")
	}
	if f.backup && (!pairs || f.algorithm == transportKey) {
		return badInput("--backup is for key pairs that sign: %s is not backed up", f.algorithm)
	}
	if pairs && f.algorithm != transportKey {
		algorithm, err := hsm.ParseKeyAlgorithm(f.algorithm)
		if err != nil {
			return badInput("--algorithm: %w, %s, %s or %s", err, journalKey, backupKey, transportKey)
		}
		if len(algorithms.InForce().UsesOf(algorithms.Named(string(algorithm), ""), time.Now())) == 0 {
			return policy.Violations{{Clause: "ETSI TS 119 312", Detail: fmt.Sprintf("keys of %s are for no use any more: choose another algorithm", algorithm)}}
		}
	}
	return newFile("--out", f.out)
}

func (t *tool) tokenGenerate(ctx context.Context, uri string, f generateFlags) error {
	parsed, err := checkKeyURIs(uri)
	if err != nil {
		return err
	}
	if parsed[0].Object == "" {
		return badInput("generate key %s: the URI has no object: a new key needs a label, add object=LABEL to it", parsed[0].Name())
	}
	if err := f.check(); err != nil {
		return err
	}
	return t.withRecorder(ctx, f.record, func(r *recorder) error {
		key, public, err := t.makeKey(uri, f)
		if err != nil {
			return err
		}
		failed := r.keep(ctx, desk.KeyDuty{Act: "generated", PublicKeySHA256: key.PublicKeySHA256, Details: keyDetails(key)})
		if failed == nil && f.out != "" {
			failed = writeDutyFile(dutyFile{path: f.out, text: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), perm: 0o644})
		}
		if failed != nil {
			return fmt.Errorf("%s is made, but: %w", key.URI, failed)
		}
		return r.tell(dutyReply{Act: "generated", Key: &key, File: f.out})
	})
}

// makeKey asks the token for the key.
func (t *tool) makeKey(uri string, f generateFlags) (key hsm.KeyRecord, public []byte, err error) {
	err = t.withOpened(hsm.Config{SecurityOfficer: f.algorithm == backupKey}, []string{uri}, func(tokens *hsm.Tokens) error {
		var half any
		var err error
		switch {
		case f.algorithm == backupKey:
			key, err = tokens.GenerateBackupKey(uri)
			return err
		case f.algorithm == journalKey:
			_, err = tokens.GenerateWrappingKey(uri)
		case f.algorithm == transportKey:
			half, err = tokens.GenerateTransportKey(uri)
		case f.backup:
			half, err = publicHalf(tokens.GenerateForBackup(uri, hsm.KeyAlgorithm(f.algorithm)))
		default:
			half, err = publicHalf(tokens.Generate(uri, hsm.KeyAlgorithm(f.algorithm)))
		}
		if err != nil {
			return err
		}
		if half != nil {
			if public, err = x509.MarshalPKIXPublicKey(half); err != nil {
				return fmt.Errorf("encode public key: %w", err)
			}
		}
		key, err = oneKey(tokens, uri)
		return err
	})
	return key, public, err
}

// withOpened is withTokens after the PINs of uris that people enter were asked for.
func (t *tool) withOpened(c hsm.Config, uris []string, do func(*hsm.Tokens) error) error {
	return withTokens(c, func(tokens *hsm.Tokens) error {
		if err := t.enterPINs(tokens, uris); err != nil {
			return err
		}
		return do(tokens)
	})
}

func publicHalf(key *hsm.Key, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return key.Public(), nil
}

// oneKey describes the one key that uri names.
func oneKey(tokens *hsm.Tokens, uri string) (hsm.KeyRecord, error) {
	records, err := tokens.Keys(uri)
	if err != nil {
		return hsm.KeyRecord{}, err
	}
	if len(records) != 1 {
		var ids []string
		for _, r := range records {
			ids = append(ids, r.URI)
		}
		return hsm.KeyRecord{}, fmt.Errorf("%d keys are of that name, one is wanted: name one of %s", len(records), strings.Join(ids, ", "))
	}
	return records[0], nil
}

// keyDetails are what the journal keeps sealed of a key (EN 319 411-1 GEN-6.5.1-13A).
func keyDetails(k hsm.KeyRecord) map[string]string {
	details := map[string]string{
		"uri": k.URI, "label": k.Label, "id": k.ID, "algorithm": k.Algorithm, "protection": protectionWords(k), "token": k.Token,
		"manufacturer": k.Manufacturer, "model": k.Model, "serial_number": k.SerialNumber, "firmware": k.Firmware,
	}
	if k.Token == "" { // a public key alone
		delete(details, "protection")
	}
	for name, value := range details {
		if value == "" {
			delete(details, name)
		}
	}
	return details
}

// destroyFlags are the flags of token destroy.
type destroyFlags struct {
	confirm, record string
	inUse           bool
}

func (t *tool) tokenDestroyCommand() *cobra.Command {
	var f destroyFlags
	c := &cobra.Command{
		Use: "destroy URI --confirm WORD", Short: "Destroy a key for ever, and record it",
		Long: `destroy removes the key pair, or the secret key, that the URI names: for ever. The journal has the intent
before the token is told, and the outcome once the token has been looked at again (EN 319 411-1
GEN-6.5.2-13, GEN-6.5.3-06). --confirm repeats which key is meant. The key of a CA that the
configuration names is refused without --in-use: what it has issued could not be revoked any more.

Copies elsewhere, backups among them, are keys of their own.`,
		Example: `  zegel token keys 'pkcs11:token=issuing;object=ca-2021?…'
  zegel token destroy 'pkcs11:token=issuing;object=ca-2021?…' --confirm 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return t.tokenDestroy(c.Context(), args[0], f) },
	}
	c.Flags().StringVar(&f.confirm, "confirm", "", "`WORD`: the SHA-256 of the public key, or of a key that has none its label, else its id")
	c.Flags().BoolVar(&f.inUse, "in-use", false, "destroy the key of a CA that the configuration names")
	c.Flags().StringVar(&f.record, "record", "", recordUsage)
	_ = c.MarkFlagRequired("confirm") // fails only for a flag that is not there
	return c
}

func (t *tool) tokenDestroy(ctx context.Context, uri string, f destroyFlags) error {
	parsed, err := checkKeyURIs(uri)
	if err != nil {
		return err
	}
	if !namesKey(parsed[0]) {
		return badInput("destroy key: %s names a token: add object=LABEL or id=%%XX… of one key", parsed[0].Name())
	}
	return t.withRecorder(ctx, f.record, func(r *recorder) error {
		return t.withOpened(hsm.Config{}, []string{uri}, func(tokens *hsm.Tokens) error {
			key := hsm.KeyRecord{Label: parsed[0].Object}
			key.URI, key.ID = parsed[0].Name(), hex.EncodeToString(parsed[0].ID)
			if parsed[0].Type != "public" {
				if key, err = oneKey(tokens, uri); err != nil {
					return err
				}
			}
			if err := t.mayDestroy(key, f); err != nil {
				return err
			}
			return r.destroy(ctx, tokens, uri, key)
		})
	})
}

// mayDestroy asks whether key is the one that is meant.
func (t *tool) mayDestroy(key hsm.KeyRecord, f destroyFlags) error {
	want, what := key.PublicKeySHA256, "the SHA-256 of its public key"
	if want == "" {
		want, what = key.Label, "its label"
	}
	if want == "" { // what has no name is not destroyed by confirming nothing
		want, what = key.ID, "its id"
	}
	given := f.confirm
	if key.PublicKeySHA256 != "" {
		given = strings.ToLower(strings.ReplaceAll(given, ":", ""))
	}
	if given != want || want == "" {
		return badInput("destroy key: --confirm is not that of %s: give %s, %s, if this is the key that is to be gone for ever", key.URI, what, want)
	}
	if f.inUse || key.PublicKeySHA256 == "" || !t.configured() {
		return nil
	}
	c, err := t.loadConfig()
	if err != nil {
		return err
	}
	cas, err := c.caKeys()
	if err != nil {
		return err
	}
	for _, ca := range cas {
		if ca.digest == key.PublicKeySHA256 {
			return policy.Violations{{Clause: "EN 319 411-1 GEN-6.5.3-06", Detail: fmt.Sprintf("the key is that of the CA %s, until %s: what it has issued could not be revoked any more. "+
				"Where its life is over all the same, add --in-use", ca.subject, ca.until.UTC().Format(time.DateOnly))}}
		}
	}
	return nil
}

// destroy records the intent, destroys, and records the outcome.
func (r *recorder) destroy(ctx context.Context, tokens *hsm.Tokens, uri string, key hsm.KeyRecord) error {
	duty := desk.KeyDuty{Act: "destroying", PublicKeySHA256: key.PublicKeySHA256, Details: keyDetails(key)}
	if err := r.keep(ctx, duty); err != nil {
		return fmt.Errorf("nothing was destroyed: %w", err)
	}
	failed := tokens.Destroy(uri)
	// From here on an officer who interrupts interrupts nothing: the outcome belongs into the record.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	duty.Intent, duty.Act = r.intent(), "destroyed"
	switch {
	case failed == nil || errors.Is(failed, hsm.ErrGone):
	case errors.Is(failed, hsm.ErrStillThere), errors.Is(failed, hsm.ErrNotFound):
		duty.Act = "not_destroyed"
	default:
		return fmt.Errorf("%w\n  whether the key is gone is not known, and the intent stays open: look with zegel token keys, then %s", failed, recordCommand(duty))
	}
	if failed != nil {
		duty.Details["error"] = failed.Error()
	}
	if err := r.keep(ctx, duty); err != nil {
		return errors.Join(failed, fmt.Errorf("the key is %s: %w", strings.ReplaceAll(duty.Act, "_", " "), err))
	}
	if duty.Act == "not_destroyed" {
		return failed
	}
	if failed != nil {
		r.t.note("zegel: %v", failed)
	}
	return r.tell(dutyReply{Act: duty.Act, Key: &key})
}

// caKey is the key of a CA that the officer's configuration names.
type caKey struct {
	public  any
	digest  string // SHA-256 of the SubjectPublicKeyInfo, hex
	subject string
	until   time.Time
}

// caKeys are the keys of the CA certificates that the configuration names.
func (c *config) caKeys() ([]caKey, error) {
	var cas []caKey
	for _, path := range []string{c.Root, c.Issuer, c.TSA.Root, c.TSA.Chain} {
		if path == "" {
			continue
		}
		list, err := readCertificates(path)
		if err != nil {
			return nil, err
		}
		for _, cert := range list {
			if !cert.IsCA {
				continue
			}
			digest := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
			cas = append(cas, caKey{cert.PublicKey, hex.EncodeToString(digest[:]), cert.Subject.String(), cert.NotAfter})
		}
	}
	return cas, nil
}

// readTransportKey reads the PEM that token generate --out wrote.
func readTransportKey(text []byte) (*rsa.PublicKey, string, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, "", errors.New("want one PEM block of type PUBLIC KEY, as token generate --out writes it")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, "", err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, "", fmt.Errorf("a key of type %T is no transport key", key)
	}
	digest := sha256.Sum256(block.Bytes)
	return public, hex.EncodeToString(digest[:]), nil
}
