package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
)

// maxPublicKey bounds the PEM of a public key, in octets.
const maxPublicKey = 16 << 10

// maxBackupFile bounds a backup file, in octets.
const maxBackupFile = 64 << 10

// trustFlags are the flags of token trust.
type trustFlags struct{ public, confirm, record string }

func (t *tool) tokenTrustCommand() *cobra.Command {
	var f trustFlags
	c := &cobra.Command{
		Use: "trust URI --public FILE --confirm SHA256", Short: "Let a token's backup key leave for the token that has a transport key",
		Long: `trust stores the public half of another token's transport key under the URI's label, as trusted: the backup
key of this token can be wrapped under it from here on. The PIN is that of the token's security
officer, who makes sure, over another way than the file came, that --confirm is what zegel token
generate said at the other token. Destroy the key (type=public in its URI) when it has done its work.`,
		Example: `  zegel token trust 'pkcs11:token=issuing;object=transport-b?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/so-pin' --public transport.pem --confirm 9f86d0…`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return t.tokenTrust(c.Context(), args[0], f) },
	}
	c.Flags().StringVar(&f.public, "public", "", "PEM `FILE` with the public half, of token generate --out")
	c.Flags().StringVar(&f.confirm, "confirm", "", "`SHA256` of that public key, hex, as the other token's officers read it out")
	c.Flags().StringVar(&f.record, "record", "", recordUsage)
	for _, name := range []string{"public", "confirm"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return c
}

func (t *tool) tokenTrust(ctx context.Context, uri string, f trustFlags) error {
	parsed, err := checkKeyURIs(uri)
	if err != nil {
		return err
	}
	text, err := readInput(ctx, f.public, maxPublicKey)
	if err != nil {
		return badInput("read public key: %w", err)
	}
	public, digest, err := readTransportKey(text)
	if err != nil {
		return badInput("read public key %s: %w", f.public, err)
	}
	if !strings.EqualFold(strings.ReplaceAll(f.confirm, ":", ""), digest) {
		return badInput("trust transport key: --confirm is not the SHA-256 of %s, which is %s: ask at the other token which of the two is its key's", f.public, digest)
	}
	return t.withRecorder(ctx, f.record, func(r *recorder) error {
		err := t.withOpened(hsm.Config{SecurityOfficer: true}, []string{uri}, func(tokens *hsm.Tokens) error { return tokens.ImportTransportKey(uri, public) })
		if err != nil {
			return err
		}
		duty := desk.KeyDuty{Act: "trusted", PublicKeySHA256: digest, Details: map[string]string{"uri": parsed[0].Name(), "kind": "transport key"}}
		if err := r.keep(ctx, duty); err != nil {
			return fmt.Errorf("the key is trusted, but: %w", err)
		}
		key := hsm.KeyRecord{Label: parsed[0].Object}
		key.URI, key.PublicKeySHA256 = parsed[0].Name(), digest
		return r.tell(dutyReply{Act: duty.Act, Key: &key, File: f.public})
	})
}

// backupFlags are the flags of token backup.
type backupFlags struct{ under, out, record string }

func (t *tool) tokenBackupCommand() *cobra.Command {
	var f backupFlags
	c := &cobra.Command{
		Use: "backup URI --under URI --out FILE", Short: "Wrap a key into a file that another token can restore",
		Long: `backup wraps a key pair that was generated with --backup under the token's backup key, or a backup key under a
transport key that the token's security officer trusts (zegel token trust). The key never leaves the
token in the clear, nor can anybody read it in the file without the token that has the other half.
The journal has the file's SHA-256 before the file is there.

A key that was not made for it is refused: copy it by the vendor's own means, and enter that with
zegel token record --act cloned.`,
		Example: `  zegel token backup 'pkcs11:token=issuing;object=ca-2027?…' --under 'pkcs11:token=issuing;object=backup-key?…' --out ca-2027.backup`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return t.tokenBackup(c.Context(), args[0], f) },
	}
	c.Flags().StringVar(&f.under, "under", "", "`URI` of the key of the same token to wrap it under")
	c.Flags().StringVar(&f.out, "out", "", "write the backup to `FILE` (mode 0600), which must not exist")
	c.Flags().StringVar(&f.record, "record", "", recordUsage)
	for _, name := range []string{"under", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return c
}

func (t *tool) tokenBackup(ctx context.Context, uri string, f backupFlags) error {
	if _, err := checkKeyURIs(uri, f.under); err != nil {
		return err
	}
	if err := newFile("--out", f.out); err != nil {
		return err
	}
	return t.withRecorder(ctx, f.record, func(r *recorder) error {
		var b *hsm.Backup
		var key hsm.KeyRecord
		err := t.withOpened(hsm.Config{}, []string{uri, f.under}, func(tokens *hsm.Tokens) (err error) {
			if b, err = tokens.Backup(uri, f.under); err != nil {
				return err
			}
			key, err = oneKey(tokens, uri)
			return err
		})
		if err != nil {
			return err
		}
		text, err := json.MarshalIndent(b, "", "  ")
		if err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		text = append(text, '\n')
		digest := sha256.Sum256(text)
		duty := desk.KeyDuty{Act: "backed_up", PublicKeySHA256: key.PublicKeySHA256, Details: keyDetails(key)}
		duty.Details["file_sha256"], duty.Details["mechanism"] = hex.EncodeToString(digest[:]), b.Mechanism
		duty.Details["under"], duty.Details["under_id"] = b.Under.Label, b.Under.ID
		if err := r.keep(ctx, duty); err != nil {
			return fmt.Errorf("no backup was written: %w", err)
		}
		if err := writeDutyFile(dutyFile{path: f.out, text: text, perm: 0o600}); err != nil {
			return fmt.Errorf("the backup is recorded but was not written: %w: back the key up again", err)
		}
		return r.tell(dutyReply{Act: duty.Act, Key: &key, File: f.out, SHA256: hex.EncodeToString(digest[:])})
	})
}

// restoreFlags are the flags of token restore.
type restoreFlags struct{ to, under, record string }

func (t *tool) tokenRestoreCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use: "restore FILE --to URI --under URI", Short: "Make a key of a backup file again, on another token",
		Long: `restore unwraps what zegel token backup wrote: a key pair under the copy of the backup key, or a backup key
under the token's own transport key. The label and id are the backup's, or those of --to; nothing on
the token may have them yet. A key pair signs before it counts as restored, and its public key in the
file verifies that; else nothing is left of it.

zegel token keys shows it as restored: it is sensitive and extractable under trusted keys only, as it was,
but the token no longer vouches that it was made there.`,
		Example: `  zegel token restore ca-2027.backup --to 'pkcs11:token=issuing-b?…' --under 'pkcs11:token=issuing-b;object=backup-key?…'`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return t.tokenRestore(c.Context(), args[0], f) },
	}
	c.Flags().StringVar(&f.to, "to", "", "`URI` of the token, and if need be of another label and id for the key")
	c.Flags().StringVar(&f.under, "under", "", "`URI` of the key of that token that unwraps it")
	c.Flags().StringVar(&f.record, "record", "", recordUsage)
	for _, name := range []string{"to", "under"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return c
}

func (t *tool) tokenRestore(ctx context.Context, path string, f restoreFlags) error {
	if _, err := checkKeyURIs(f.to, f.under); err != nil {
		return err
	}
	text, err := readInput(ctx, path, maxBackupFile)
	if err != nil {
		return badInput("read backup: %w", err)
	}
	b, err := hsm.ParseBackup(text)
	if err != nil {
		return badInput("%s: %w", path, err)
	}
	digest := sha256.Sum256(text)
	return t.withRecorder(ctx, f.record, func(r *recorder) error {
		var key hsm.KeyRecord
		err := t.withOpened(hsm.Config{}, []string{f.to, f.under}, func(tokens *hsm.Tokens) (err error) {
			key, err = tokens.Restore(b, f.to, f.under)
			return err
		})
		if err != nil {
			return err
		}
		duty := desk.KeyDuty{Act: "restored", PublicKeySHA256: key.PublicKeySHA256, Details: keyDetails(key)}
		if b.Kind == hsm.BackupKeyCopy {
			duty.Act = "transferred"
		}
		duty.Details["file_sha256"] = hex.EncodeToString(digest[:])
		duty.Details["from_token"], duty.Details["from_serial_number"] = b.Token.Label, b.Token.SerialNumber
		if err := r.keep(ctx, duty); err != nil {
			return fmt.Errorf("%s is on the token, but: %w", key.URI, err)
		}
		return r.tell(dutyReply{Act: duty.Act, Key: &key, File: path, SHA256: hex.EncodeToString(digest[:])})
	})
}
