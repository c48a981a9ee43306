package journal

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// algCosignature is the C2SP signed-note signature type of cosignature/v1 (timestamped Ed25519).
const algCosignature = 0x04

// maxNote bounds a checkpoint in octets: our own and some hundred cosignatures of witnesses.
const maxNote = 32 << 10

// maxOrigin bounds the origin in octets.
const maxOrigin = 255

// Tree is what a verified checkpoint says.
type Tree struct {
	Size uint64
	Root [32]byte
	Time time.Time // seconds, UTC
}

// VerifyCheckpoint verifies the C2SP checkpoint text under the vkey of the log's cosignature/v1 and returns what it says.
// It is strict: the key's name must be the checkpoint's origin, numbers and base64 canonical, and extension lines, which
// our logs do not write, are refused. Further signatures (of witnesses) are let be.
func VerifyCheckpoint(text []byte, vkey string) (Tree, error) {
	v, err := parseVerifierKey(vkey)
	if err != nil {
		return Tree{}, err
	}
	return v.verify(text)
}

// CheckVerifierKey reports why vkey is no C2SP vkey, origin+hash+key, of a log's cosignature/v1 key.
func CheckVerifierKey(vkey string) error {
	_, err := parseVerifierKey(vkey)
	return err
}

// verifier is the public half of a checkpoint key under its origin.
type verifier struct {
	origin string
	hash   uint32
	key    ed25519.PublicKey
}

func newVerifier(origin string, public ed25519.PublicKey) *verifier {
	sum := sha256.New()
	sum.Write([]byte(origin + "\n"))
	sum.Write([]byte{algCosignature})
	sum.Write(public)
	return &verifier{origin, binary.BigEndian.Uint32(sum.Sum(nil)), public}
}

// parseVerifierKey reads a C2SP vkey, origin+hash+base64(0x04 || public key), in its one canonical form.
func parseVerifierKey(vkey string) (*verifier, error) {
	origin, rest, _ := strings.Cut(vkey, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignature {
		return nil, fmt.Errorf("parse journal key %.300q: not origin+hash+key of type cosignature/v1", vkey)
	}
	if err := checkOrigin(origin); err != nil {
		return nil, fmt.Errorf("parse journal key: %w", err)
	}
	v := newVerifier(origin, key[1:])
	if v.String() != vkey {
		return nil, fmt.Errorf("parse journal key %.300q: the hash is not that of origin and key; was it copied whole?", vkey)
	}
	return v, nil
}

// String is the vkey.
func (v *verifier) String() string {
	key := append([]byte{algCosignature}, v.key...)
	return fmt.Sprintf("%s+%08x+%s", v.origin, v.hash, base64.StdEncoding.EncodeToString(key))
}

func (v *verifier) Name() string    { return v.origin }
func (v *verifier) KeyHash() uint32 { return v.hash }

// Verify is note.Verifier's: the signature is eight octets of time and the Ed25519 signature (C2SP tlog-cosignature).
func (v *verifier) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(v.key, cosigned(msg, binary.BigEndian.Uint64(sig)), sig[8:])
}

// cosigned is the message that cosignature/v1 signs.
func cosigned(body []byte, unix uint64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", unix), body...)
}

func (v *verifier) verify(text []byte) (Tree, error) {
	if len(text) > maxNote {
		return Tree{}, fmt.Errorf("verify checkpoint: %d octets, at most %d are allowed", len(text), maxNote)
	}
	n, err := note.Open(text, note.VerifierList(v))
	if err != nil {
		return Tree{}, fmt.Errorf("verify checkpoint of %s: %w", v.origin, err)
	}
	signature, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || len(signature) != 4+8+ed25519.SignatureSize {
		return Tree{}, errors.New("verify checkpoint: malformed signature")
	}
	t, err := parseCheckpointBody(n.Text, v.origin)
	if err != nil {
		return Tree{}, fmt.Errorf("verify checkpoint: %w", err)
	}
	unix := binary.BigEndian.Uint64(signature[4:])
	if unix > lastTime/1_000_000 {
		return Tree{}, errors.New("verify checkpoint: its time is after the year 9999")
	}
	t.Time = time.Unix(int64(unix), 0).UTC()
	return t, nil
}

// checkpointBody is the note's text, which parseCheckpointBody reads back.
func checkpointBody(origin string, size uint64, root [32]byte) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
}

func parseCheckpointBody(text, origin string) (t Tree, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return t, fmt.Errorf("checkpoint has %d lines, not 3", len(lines)-1)
	}
	t.Size, err = strconv.ParseUint(lines[1], 10, 63)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || err2 != nil || len(root) != len(t.Root) {
		return t, errors.New("checkpoint's size or root cannot be read")
	}
	t.Root = [32]byte(root)
	if text != checkpointBody(origin, t.Size, t.Root) {
		return t, errors.New("checkpoint is of another origin or not canonical")
	}
	return t, nil
}

// checkOrigin: a signed note's key name, in one line (C2SP signed-note).
func checkOrigin(origin string) error {
	bad := func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+' || r == utf8.RuneError
	}
	if origin == "" || len(origin) > maxOrigin || strings.ContainsFunc(origin, bad) {
		return fmt.Errorf("origin %.300q: must be 1 to %d octets without spaces and '+', as in zegel.example/ca", origin, maxOrigin)
	}
	return nil
}

// cosigner signs checkpoints with the log's own key.
type cosigner struct {
	*verifier
	private crypto.Signer
}

func newCosigner(origin string, key crypto.Signer) (*cosigner, error) {
	if key == nil {
		return nil, errors.New("checkpoint key is missing")
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("checkpoint key is %T, not Ed25519 (C2SP cosignature/v1 has no other)", key.Public())
	}
	return &cosigner{newVerifier(origin, public), key}, nil
}

// sign makes the checkpoint over size and root that says it was made at. What it returns has been verified.
func (c *cosigner) sign(size uint64, root [32]byte, at time.Time) ([]byte, Tree, error) {
	t := Tree{size, root, time.Unix(at.Unix(), 0).UTC()}
	if at.Unix() < 0 {
		return nil, t, errors.New("sign checkpoint: the clock is before 1970")
	}
	n := &note.Note{Text: checkpointBody(c.origin, size, root)}
	text, err := note.Sign(n, &timedSigner{c, uint64(at.Unix())})
	if err != nil {
		return nil, t, fmt.Errorf("sign checkpoint: %w", err)
	}
	if got, err := c.verify(text); err != nil {
		return nil, t, fmt.Errorf("sign checkpoint: the key signed something else: %w", err)
	} else if got != t {
		return nil, t, errors.New("sign checkpoint: what was signed says something else")
	}
	return text, t, nil
}

// timedSigner is a note.Signer for one cosignature.
type timedSigner struct {
	*cosigner
	unix uint64
}

func (s *timedSigner) Sign(msg []byte) ([]byte, error) {
	sig, err := failpoint.Value(failpoint.SignCheckpoint, func() ([]byte, error) { return s.private.Sign(rand.Reader, cosigned(msg, s.unix), crypto.Hash(0)) })
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint64(nil, s.unix), sig...), nil
}
