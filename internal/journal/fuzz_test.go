package journal_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
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
	kek, body := make([]byte, 32), []byte("a body")
	rand.Read(kek)
	sealed, key, digest, err := journal.SealBody(kek, body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := journal.OpenBody(kek, sealed, key, digest[:]); err != nil || !bytes.Equal(got, body) {
		t.Errorf("open = %q, %v", got, err)
	}
	sealed2, key2, digest2, _ := journal.SealBody(kek, body)
	if bytes.Equal(sealed, sealed2) || bytes.Equal(key, key2) || digest == digest2 {
		t.Error("sealing twice gives the same")
	}
	for name, c := range map[string][4][]byte{
		"other kek":    {make([]byte, 32), sealed, key, digest[:]},
		"other body":   {kek, sealed2, key, digest[:]},
		"other key":    {kek, sealed, key2, digest[:]},
		"other digest": {kek, sealed, key, digest2[:]},
		"body flipped": {kek, flip(sealed, 3), key, digest[:]},
		"key flipped":  {kek, sealed, flip(key, 13), digest[:]},
		"key cut":      {kek, sealed, key[:59], digest[:]},
		"no key":       {kek, sealed, nil, digest[:]},
		"body cut":     {kek, sealed[:10], key, digest[:]},
	} {
		if _, err := journal.OpenBody(c[0], c[1], c[2], c[3]); err == nil {
			t.Errorf("%s: opens", name)
		}
	}
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
