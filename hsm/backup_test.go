package hsm_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

// backupTokens are a token with a backup key and a second one that has received it.
type backupTokens struct {
	*hsmtest.Token
	soPIN string
}

const secondToken = "second"

func (k *backupTokens) second(object string) string {
	other := *k.Token
	other.Label = secondToken
	return other.URI(object)
}

// officer is uri with the PIN of the token's security officer.
func (k *backupTokens) officer(uri string) string {
	return strings.Replace(uri, "file:"+k.PIN, "file:"+k.soPIN, 1)
}

// as runs do with tokens of its own, as the security officer or as the user.
func (k *backupTokens) as(t *testing.T, officer bool, do func(*hsm.Tokens)) {
	t.Helper()
	config := k.Config
	config.SecurityOfficer = officer
	tokens := hsm.New(config)
	defer func() {
		if err := tokens.Close(); err != nil {
			t.Error(err)
		}
	}()
	do(tokens)
}

// newBackupTokens carries a backup key from one token to another.
func newBackupTokens(t *testing.T) *backupTokens {
	t.Helper()
	k := &backupTokens{Token: hsmtest.SoftHSM(t)}
	k.soPIN = filepath.Join(filepath.Dir(k.PIN), "so-pin")
	if err := os.WriteFile(k.soPIN, []byte("12345678"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Init(t, secondToken)
	k.as(t, false, func(user *hsm.Tokens) {
		public, err := user.GenerateTransportKey(k.second("transport"))
		if err != nil {
			t.Fatal(err)
		}
		if err := user.Close(); err != nil {
			t.Fatal(err)
		}
		k.as(t, true, func(officer *hsm.Tokens) {
			r, err := officer.GenerateBackupKey(k.officer(k.URI("backup-key")))
			if err != nil || !r.Trusted || !r.Sensitive || r.Algorithm != "aes256" {
				t.Fatalf("%+v, %v", r, err)
			}
			if err := officer.ImportTransportKey(k.officer(k.URI("transport-second")), public); err != nil {
				t.Fatal(err)
			}
		})
	})
	k.as(t, false, func(user *hsm.Tokens) {
		b, err := user.Backup(k.URI("backup-key"), k.URI("transport-second"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := user.Restore(throughFile(t, b), k.second(""), k.second("transport"))
		if err != nil || r.Label != "backup-key" || r.Trusted || !r.Sensitive || r.Extractable || len(r.Usages) != 1 || r.Usages[0] != "unwrap" {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := user.Destroy(k.second("transport")); err != nil {
			t.Fatal(err)
		}
	})
	return k
}

// throughFile is b as another machine reads it.
func throughFile(t *testing.T, b *hsm.Backup) *hsm.Backup {
	t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := hsm.ParseBackup(text)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return again
}

// A key pair of every algorithm is backed up on one token, restored into a second, and signs there for the same public key.
func TestBackup(t *testing.T) {
	k := newBackupTokens(t)
	k.as(t, false, func(user *hsm.Tokens) {
		for _, algorithm := range hsm.KeyAlgorithms() {
			name := "ca-" + string(algorithm)
			made, err := user.GenerateForBackup(k.URI(name), algorithm)
			if err != nil {
				t.Fatal(err)
			}
			before := keysOf(t, user, k.URI(name))[name]
			if !before.ForBackup || before.Restored || !before.GeneratedOnToken || before.NeverExtractable || before.Fault != "" {
				t.Errorf("%s: %+v", name, before)
			}
			b, err := user.Backup(k.URI(name), k.URI("backup-key"))
			if algorithm == hsm.Ed25519 { // a limit of SoftHSM 2.6.1, and so of checkpoint keys on it
				if !errors.Is(err, pkcs11.Error(pkcs11.CKR_KEY_NOT_WRAPPABLE)) {
					t.Errorf("%s: %v: say in docs/tokens.md that it can be backed up", name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			after, err := user.Restore(throughFile(t, b), k.second(""), k.second("backup-key"))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if !after.ForBackup || !after.Restored || after.GeneratedOnToken || after.AlwaysSensitive || after.Fault != "" || after.ID != before.ID ||
				after.PublicKeySHA256 != before.PublicKeySHA256 || after.Token != secondToken {
				t.Errorf("%s: %+v", name, after)
			}
			restored, err := user.Key(k.second(name))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			sign(t, restored)
			if !restored.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
				t.Errorf("%s: another public key", name)
			}
			if _, err := user.Restore(throughFile(t, b), k.second(""), k.second("backup-key")); !errors.Is(err, hsm.ErrExists) {
				t.Errorf("%s: restored twice: %v", name, err)
			}
		}
	})
}

// Whatever was changed in a backup: nothing is left on the token.
func TestRestoreTampered(t *testing.T) {
	k := newBackupTokens(t)
	k.as(t, false, func(user *hsm.Tokens) {
		var backups []*hsm.Backup
		for _, name := range []string{"ca", "other"} {
			if _, err := user.GenerateForBackup(k.URI(name), hsm.P384); err != nil {
				t.Fatal(err)
			}
			b, err := user.Backup(k.URI(name), k.URI("backup-key"))
			if err != nil {
				t.Fatal(err)
			}
			backups = append(backups, b)
		}
		there := len(keysOf(t, user, k.second("")))
		for what, change := range map[string]func(*hsm.Backup){
			"bit":            func(b *hsm.Backup) { b.Wrapped[len(b.Wrapped)/2] ^= 1 },
			"cut":            func(b *hsm.Backup) { b.Wrapped = b.Wrapped[:len(b.Wrapped)-8] },
			"longer":         func(b *hsm.Backup) { b.Wrapped = append(b.Wrapped, make([]byte, 8)...) },
			"empty":          func(b *hsm.Backup) { b.Wrapped = []byte{0} },
			"other key":      func(b *hsm.Backup) { b.Wrapped = backups[1].Wrapped },
			"other public":   func(b *hsm.Backup) { b.PublicKey = backups[1].PublicKey },
			"no point":       func(b *hsm.Backup) { b.PublicKey[len(b.PublicKey)-1] ^= 1 },
			"other kind":     func(b *hsm.Backup) { b.Kind = hsm.BackupKeyCopy },
			"other way":      func(b *hsm.Backup) { b.Mechanism = "CKM_RSA_PKCS_OAEP" },
			"unknown way":    func(b *hsm.Backup) { b.Mechanism = "CKM_NULL" },
			"other protocol": func(b *hsm.Backup) { b.Mechanism = "CKM_AES_KEY_WRAP_KWP" },
		} {
			b := throughFile(t, backups[0])
			change(b)
			if r, err := user.Restore(b, k.second(""), k.second("backup-key")); err == nil || errors.Is(err, hsm.ErrMade) {
				t.Errorf("%s: %+v, %v", what, r, err)
			}
			if now := len(keysOf(t, user, k.second(""))); now != there {
				t.Fatalf("%s: the token has %d keys, %d before", what, now, there)
			}
			if err := hsm.NoObject(user, k.second("ca")); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	})
}

// Who decides under what a key leaves is the token's security officer, and the token keeps to it by itself.
func TestWrapUntrusted(t *testing.T) {
	k := newBackupTokens(t)
	k.as(t, true, func(officer *hsm.Tokens) {
		if _, err := officer.GenerateForBackup(k.officer(k.URI("x")), hsm.P256); err == nil {
			t.Error("a security officer made a private key")
		}
	})
	k.as(t, false, func(user *hsm.Tokens) {
		generate(t, user, k.URI("forever"), hsm.P256)
		if _, err := user.GenerateForBackup(k.URI("ca"), hsm.P256); err != nil {
			t.Fatal(err)
		}
		if err := hsm.GenerateUntrusted(user, k.URI("untrusted")); err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]struct {
			key, under string
			want       string
		}{
			"not for backup": {"forever", "backup-key", "was not made for backup"},
			"untrusted":      {"ca", "untrusted", "not trusted by the security officer"},
			"no such key":    {"ca", "nobody", "none of that name"},
			"under itself":   {"backup-key", "backup-key", "none of that name"},
			"secret":         {"untrusted", "transport-second", "no backup key"},
		} {
			if b, err := user.Backup(k.URI(c.key), k.URI(c.under)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %+v, %v; want %q", what, b, err, c.want)
			}
		}
		if _, err := user.Backup(k.URI("forever"), k.URI("backup-key")); !errors.Is(err, hsm.ErrNotForBackup) || !strings.Contains(err.Error(), "zegel token record") {
			t.Error(err)
		}
		if _, err := user.Backup(k.URI("ca"), k.second("backup-key")); err == nil || !strings.Contains(err.Error(), "two keys of one token") {
			t.Error(err)
		}
		// Past this package: the token itself.
		if err := hsm.WrapRaw(user, k.URI("ca"), k.URI("untrusted")); !errors.Is(err, pkcs11.Error(pkcs11.CKR_KEY_NOT_WRAPPABLE)) {
			t.Errorf("the token wraps under a key that nobody trusts: %v", err)
		}
		if err := hsm.WrapRaw(user, k.URI("ca"), k.URI("backup-key")); err != nil {
			t.Error(err)
		}
		if err := hsm.SetFlag(user, k.URI("untrusted"), pkcs11.CKA_TRUSTED); err == nil {
			t.Error("the user made a key trusted")
		}
		for uri, kinds := range map[string][]uint{
			k.URI("backup-key"): {pkcs11.CKA_UNWRAP, pkcs11.CKA_DECRYPT}, k.second("backup-key"): {pkcs11.CKA_DECRYPT, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP},
		} {
			for _, kind := range kinds {
				if err := hsm.SetFlag(user, uri, kind); err == nil {
					t.Errorf("0x%x of %s can be set", kind, uri)
				}
			}
		}
		b, err := user.Backup(k.URI("ca"), k.URI("backup-key"))
		if err != nil {
			t.Fatal(err)
		}
		if err := hsm.UnwrapRaw(user, k.second("backup-key"), b, true); err != nil {
			t.Errorf("the template that Restore uses: %v", err)
		}
		if err := hsm.UnwrapRaw(user, k.second("backup-key"), b, false); !errors.Is(err, pkcs11.Error(pkcs11.CKR_TEMPLATE_INCONSISTENT)) {
			t.Errorf("whoever has PIN and backup can read the key: %v", err)
		}
	})
}

// What is the security officer's to do is not done by another, and the other way round.
func TestOfficerOnly(t *testing.T) {
	k := newBackupTokens(t)
	k.as(t, false, func(user *hsm.Tokens) {
		if _, err := user.GenerateBackupKey(k.URI("x")); err == nil || !strings.Contains(err.Error(), "security officer") {
			t.Error(err)
		}
		public, err := user.GenerateTransportKey(k.URI("transport"))
		if err != nil {
			t.Fatal(err)
		}
		if err := user.ImportTransportKey(k.URI("x"), public); err == nil || !strings.Contains(err.Error(), "security officer") {
			t.Error(err)
		}
		if err := hsm.GenerateModifiable(user, k.URI("loose")); err != nil {
			t.Fatal(err)
		}
		if _, err := user.Restore(hsm.NewTestBackup(public), k.URI("ca"), k.URI("loose")); err == nil || !strings.Contains(err.Error(), "CKA_MODIFIABLE true") {
			t.Errorf("a key that can be modified unwraps: %v", err)
		}
		if err := hsm.UnwrapRaw(user, k.URI("transport"), nil, false); err == nil {
			t.Error("a transport key signs, or unwraps what is not protected")
		}
		if _, err := user.GenerateForBackup(hsmtest.SoftToken(t).URI("x"), hsm.P256); err == nil || !strings.Contains(err.Error(), "copy the file") {
			t.Error(err)
		}
	})
	k.as(t, true, func(officer *hsm.Tokens) {
		if err := os.WriteFile(k.soPIN, []byte("87654321"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"correct the PIN", "not tried again since"} {
			if _, err := officer.GenerateBackupKey(k.officer(k.URI("x"))); !errors.Is(err, hsm.ErrPINRefused) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	})
}

// A key is destroyed, and looked up again; a public key alone can be, too.
func TestDestroyed(t *testing.T) {
	k := newBackupTokens(t)
	k.as(t, false, func(user *hsm.Tokens) {
		key := generate(t, user, k.URI("ca"), hsm.P256)
		sign(t, key)
		if err := user.Destroy(k.URI("ca")); err != nil {
			t.Fatal(err)
		}
		if err := hsm.NoObject(user, k.URI("ca")); err != nil {
			t.Error(err)
		}
		if err := trySign(t, key); err == nil {
			t.Error("a destroyed key signs")
		}
		if err := user.Destroy(k.URI("ca")); !errors.Is(err, hsm.ErrNotFound) {
			t.Error(err)
		}
		generate(t, user, k.URI("pair"), hsm.P256)
		public := func(uri string) string { return strings.Replace(uri, "?", ";type=public?", 1) }
		if err := user.Destroy(public(k.URI("pair"))); err == nil || !strings.Contains(err.Error(), "private half") {
			t.Error(err)
		}
		if err := user.Destroy(public(k.URI("transport-second"))); err != nil {
			t.Error(err)
		}
		if err := hsm.NoObject(user, k.URI("transport-second")); err != nil {
			t.Error(err)
		}
	})
}

// Tokens that cannot keep a backup to trusted keys, or cannot prove what they made, make no key for backup: nothing is left on them.
func TestNotForBackup(t *testing.T) {
	for _, c := range []struct {
		name, says string
		token      func(testing.TB) *hsmtest.Token
	}{
		{"openCryptoki", "does not know CKA_WRAP_WITH_TRUSTED", hsmtest.OpenCryptoki},
		{"NSS", "CKA_LOCAL is false", func(t testing.TB) *hsmtest.Token { return hsmtest.NSS(t).Token }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := c.token(t)
			tokens := opened(t, k)
			if _, err := tokens.GenerateForBackup(k.URI("for-backup"), hsm.RSA3072); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if _, err := tokens.GenerateTransportKey(k.URI("for-backup")); err == nil {
				t.Error("a transport key was made: say in docs/tokens.md that this token is good for backups")
			}
			if err := hsm.NoObject(tokens, k.URI("for-backup")); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzParseBackup(f *testing.F) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(hsm.NewTestBackup(private.Public()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"kind":"backup key","mechanism":"CKM_RSA_PKCS_OAEP","wrapped":"AA==","label":"k","id":"00","algorithm":"aes256"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := hsm.ParseBackup(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hsm.ParseBackup(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func TestParseBackup(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(hsm.NewTestBackup(public))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := hsm.ParseBackup(text); err != nil || len(b.PublicKeySHA256()) != 64 {
		t.Fatal(b, err)
	}
	for from, to := range map[string]string{
		`"version":1`: `"version":2`, `"kind":"key pair"`: `"kind":"key"`, `"label":"ca"`: `"label":""`, `"id":"0102"`: `"id":"xx"`,
		`"algorithm":"ed25519"`: `"algorithm":"p256"`, `CKM_AES_KEY_WRAP_PAD`: `CKM_RSA_PKCS_OAEP`, `{"version"`: `{"more":1,"version"`, `"public_key":"M`: `"public_key":"A`,
		`"wrapped":"AQI="`: `"wrapped":""`, `"under":{"label":"","id":""`: `"under":{"label":"","id":"\u001b[2J"`,
	} {
		changed := strings.Replace(string(text), from, to, 1)
		if changed == string(text) {
			t.Fatalf("%s is not in %s", from, text)
		}
		if b, err := hsm.ParseBackup([]byte(changed)); err == nil {
			t.Errorf("%s: %+v", to, b)
		}
	}
	if _, err := hsm.ParseBackup(append(text, "{}"...)); err == nil {
		t.Error("two objects")
	}
}
