package journal_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// FuzzLeaf: what decodes encodes to the same octets.
func FuzzLeaf(f *testing.F) {
	j := journaltest.New(f)
	for _, e := range journaltest.Append(f, j, allEvents()...) {
		f.Add(e.Leaf)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := journal.Reencode(b)
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("%x was read and became %x", b, again)
		}
	})
}

// TestLeafStrict: every proper prefix of a leaf, and every leaf with an octet more, is refused.
func TestLeafStrict(t *testing.T) {
	j := journaltest.New(t)
	for _, e := range journaltest.Append(t, j, allEvents()...) {
		if again, err := journal.Reencode(e.Leaf); err != nil || !bytes.Equal(again, e.Leaf) {
			t.Errorf("%x: %x, %v", e.Leaf, again, err)
		}
		for n := range e.Leaf {
			if _, err := journal.Reencode(e.Leaf[:n]); err == nil {
				t.Errorf("%T: %d of %d octets are a leaf", e.Event, n, len(e.Leaf))
			}
		}
		if _, err := journal.Reencode(append(bytes.Clone(e.Leaf), 0)); err == nil {
			t.Errorf("%T: an octet too many", e.Event)
		}
	}
}

// FuzzFeed: an answer that decodes encodes to the same octets.
func FuzzFeed(f *testing.F) {
	chunk := &journal.Chunk{Checkpoint: []byte("note"), After: 3, Leaves: [][]byte{{1}, {2, 3}}, Proof: tlog.TreeProof{{1}, {2}}}
	seed, err := chunk.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := journal.DecodeChunk(b)
		if err != nil {
			return
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x was read and became %x, %v", b, again, err)
		}
	})
}

// fuzzLog makes a checkpoint and its key: the fuzzer can make no other that verifies.
func fuzzLog(f *testing.F) (text []byte, vkey string) {
	o := journaltest.Options(f, func() time.Time { return at })
	o.CheckpointKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	dir := f.TempDir()
	if err := journal.Create(dir, journaltest.Origin, o); err != nil {
		f.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		f.Fatal(err)
	}
	defer j.Close()
	journaltest.Append(f, j, journal.ClockChanged{})
	if text, err = j.Checkpoint(); err != nil {
		f.Fatal(err)
	}
	return text, j.VerifierKey()
}

// FuzzCheckpoint: of what verifies, the text is the seed's, whatever other signatures are under it.
func FuzzCheckpoint(f *testing.F) {
	text, vkey := fuzzLog(f)
	body, _, _ := strings.Cut(string(text), "\n\n")
	f.Add(text, vkey)
	f.Add([]byte(body+"\n\n"), vkey)
	f.Add(append(bytes.Clone(text), "— witness.example AAAAAAA=\n"...), vkey)
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		tree, err := journal.VerifyCheckpoint(b, key)
		if err != nil || key != vkey {
			return
		}
		if !bytes.HasPrefix(b, []byte(body+"\n\n")) || tree.Size != 1 || !tree.Time.Equal(at) {
			t.Errorf("%q verifies as %+v", b, tree)
		}
	})
}

// FuzzSerial: what is read prints as what reads the same.
func FuzzSerial(f *testing.F) {
	for _, s := range []string{"01", "ff", "0A:0b", "000", strings.Repeat("7f", 20)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := journal.ParseSerial(text)
		if err != nil {
			return
		}
		if again, err := journal.ParseSerial(s.String()); err != nil || again != s {
			t.Errorf("%q is %s, which is %s, %v", text, s, again, err)
		}
	})
}

// TestVerifyCheckpoint: every way in which a checkpoint is not the log's.
func TestVerifyCheckpoint(t *testing.T) {
	j := journaltest.New(t)
	journaltest.Append(t, j, journal.ClockChanged{})
	text, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	vkey := j.VerifierKey()
	other := journaltest.New(t).VerifierKey()
	witness := string(text) + "— witness.example AAAAAAA=\n"
	if tree, err := journal.VerifyCheckpoint([]byte(witness), vkey); err != nil || tree.Size != 1 {
		t.Errorf("with a witness's signature: %+v, %v", tree, err)
	}
	for name, c := range map[string][2]string{
		"key of another log":    {string(text), other},
		"no signature":          {strings.SplitAfter(string(text), "\n\n")[0], vkey},
		"another size":          {strings.Replace(string(text), "\n1\n", "\n2\n", 1), vkey},
		"empty":                 {"", vkey},
		"signature twice as it": {string(text) + "\n", vkey},
		"oversized":             {string(text) + strings.Repeat("— witness.example AAAAAAA=\n", 2000), vkey},
		"key without hash":      {string(text), journaltest.Origin},
		"key of wrong hash":     {string(text), strings.Replace(vkey, "+", "+0", 1)},
		"key of Ed25519 notes":  {string(text), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"},
	} {
		if tree, err := journal.VerifyCheckpoint([]byte(c[0]), c[1]); err == nil {
			t.Errorf("%s: verifies as %+v", name, tree)
		}
	}
}

// TestCosignature holds a checkpoint against C2SP tlog-cosignature and signed-note, byte by byte, without our code.
func TestCosignature(t *testing.T) {
	o := journaltest.Options(t, func() time.Time { return at })
	dir := t.TempDir()
	if err := journal.Create(dir, "zegel.example/ca", o); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	text, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	checkCosignature(t, text, "zegel.example/ca", o.CheckpointKey.Public().(ed25519.PublicKey), at)
	if !strings.HasPrefix(string(text), "zegel.example/ca\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— zegel.example/ca ") {
		t.Errorf("checkpoint %s", text)
	}
}

// TestSeal: nothing opens but with all its parts, and the same body seals differently each time.
func TestSeal(t *testing.T) {
	kek := make([]byte, 32)
	rand.Read(kek)
	event := journal.CertificateRevoked{Actor: journaltest.Officer, Issuer: issuerA, Serial: "\x01", Reason: journal.KeyCompromise,
		RequestedAt: at, Note: []byte("a body")}
	one, err := journal.Seal(kek, event)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := one.Open(kek); err != nil || !reflect.DeepEqual(got, event) {
		t.Errorf("open = %+v, %v", got, err)
	}
	other, err := journal.Seal(kek, event)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(one.Body, other.Body) || bytes.Equal(one.Key, other.Key) || bytes.Equal(one.Leaf, other.Leaf) {
		t.Error("sealing twice gives the same")
	}
	stamped := bytes.Clone(one.Leaf)
	copy(stamped[2:10], "\x00\x00\x01\x99\x00\x00\x00\x00") // the time is set after sealing
	if _, err := (journal.Sealed{Leaf: stamped, Body: one.Body, Key: one.Key}).Open(kek); err != nil {
		t.Errorf("with a time: %v", err)
	}
	if got := openByTheBook(t, kek, one); !bytes.Equal(got[32:], append([]byte{0, 0, 0, 6}, "a body"...)) {
		t.Errorf("by the format's page the body is %x", got)
	}
	for name, c := range map[string]struct {
		kek    []byte
		sealed journal.Sealed
	}{
		"other kek":       {make([]byte, 32), one},
		"other body":      {kek, journal.Sealed{Leaf: one.Leaf, Body: other.Body, Key: one.Key}},
		"other key":       {kek, journal.Sealed{Leaf: one.Leaf, Body: one.Body, Key: other.Key}},
		"other leaf":      {kek, journal.Sealed{Leaf: other.Leaf, Body: one.Body, Key: one.Key}},
		"body flipped":    {kek, journal.Sealed{Leaf: one.Leaf, Body: flip(one.Body, 3), Key: one.Key}},
		"body cut":        {kek, journal.Sealed{Leaf: one.Leaf, Body: one.Body[:10], Key: one.Key}},
		"key flipped":     {kek, journal.Sealed{Leaf: one.Leaf, Body: one.Body, Key: flip(one.Key, 13)}},
		"key cut":         {kek, journal.Sealed{Leaf: one.Leaf, Body: one.Body, Key: one.Key[:47]}},
		"no key":          {kek, journal.Sealed{Leaf: one.Leaf, Body: one.Body}},
		"actor changed":   {kek, journal.Sealed{Leaf: flip(one.Leaf, 10+33+1), Body: one.Body, Key: one.Key}},
		"request earlier": {kek, journal.Sealed{Leaf: flip(one.Leaf, len(one.Leaf)-6), Body: one.Body, Key: one.Key}},
	} {
		if got, err := c.sealed.Open(c.kek); err == nil {
			t.Errorf("%s: opens as %+v", name, got)
		}
	}
}

// openByTheBook is a second reading of docs/journal.md, Bodies: salt and body.
func openByTheBook(t *testing.T, kek []byte, s journal.Sealed) []byte {
	t.Helper()
	open := func(key, sealed, data []byte) []byte {
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		out, err := gcm.Open(nil, make([]byte, 12), sealed, data)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	digest := s.Leaf[11:43]
	expand := hmac.New(sha256.New, kek) // HKDF-Expand to one block, RFC 5869 §2.3
	expand.Write([]byte("zegel journal key v1"))
	expand.Write(digest)
	expand.Write([]byte{1})
	key := open(expand.Sum(nil), s.Key, append(s.Leaf[:2:2], s.Leaf[10:]...))
	plain := open(key, s.Body, []byte("zegel journal body v1"))
	if sum := sha256.Sum256(plain); !bytes.Equal(sum[:], digest) {
		t.Errorf("digest %x, in the leaf %x", sum, digest)
	}
	return plain
}

// checkCosignature is a second reading of the C2SP texts.
func checkCosignature(t *testing.T, text []byte, origin string, public ed25519.PublicKey, when time.Time) {
	t.Helper()
	body, rest, ok := strings.Cut(string(text), "\n\n")
	encoded, ok2 := strings.CutPrefix(rest, "— "+origin+" ")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(encoded, "\n"))
	if !ok || !ok2 || err != nil || len(raw) != 4+8+64 {
		t.Fatalf("checkpoint %q", text)
	}
	id := sha256.Sum256(append([]byte(origin+"\n\x04"), public...))
	if !bytes.Equal(raw[:4], id[:4]) {
		t.Errorf("key id %x, want %x", raw[:4], id[:4])
	}
	if got := binary.BigEndian.Uint64(raw[4:12]); got != uint64(when.Unix()) {
		t.Errorf("time %d, want %d", got, when.Unix())
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n", when.Unix(), body)
	if !ed25519.Verify(public, []byte(message), raw[12:]) {
		t.Error("the signature does not verify")
	}
}
