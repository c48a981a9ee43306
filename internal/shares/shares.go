// Package shares splits a PIN so that k of n people are needed to have it again, and says whose share is wrong before a token is asked.
//
// A random scalar is split (Shamir, in the scalar field of ristretto255); a key derived from it (HKDF-SHA-256) seals the PIN
// (AES-256-GCM). The sealed PIN stays in a file, the [Set], with commitments to the polynomial (Feldman), which each share can be
// held against alone. Fewer than k shares, with the file or without it, tell nothing about the PIN. A [Share] is one line
// of text that can be typed: it says of which set and which number it is, and a checksum finds what was mistyped.
//
// The arithmetic is cloudflare/circl's, in constant time. Its numbers cannot be wiped; they are garbage within the call.
package shares

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

// Bounds of a split. One person alone is no split.
const (
	MinThreshold = 2
	MaxShares    = 16
	// MaxFile bounds the file of a Set, in bytes.
	MaxFile = 16 << 10
	// MaxText bounds the text of a Share, with its comments, in bytes.
	MaxText = 4 << 10
	// maxPIN is the most that is sealed, in bytes.
	maxPIN = 255
)

// Errors of Set.Check and Collection.Add that callers branch on.
var (
	ErrDamaged = errors.New("the share is damaged: its checksum does not fit: look for a character that was mistyped or lost")
	ErrForeign = errors.New("the share is of another split")
	ErrWrong   = errors.New("the share is not the one that was handed out: whoever brought it must be asked")
	ErrDoubled = errors.New("this share has been entered already: another one is needed")
)

const (
	version   = 1
	prefix    = "zegel-share-1"
	idSize    = 5
	valueSize = 32
	sumSize   = 6
	// shareSize is version, id, number, value and checksum: 45 bytes, so 72 characters.
	shareSize = 1 + idSize + 1 + valueSize + sumSize
)

// encoding is Crockford's base 32, which has no letter that is taken for a digit.
var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// Set is the half of a split that stays with the program: it opens nothing without Threshold shares. Not to be changed.
type Set struct {
	ID         string // 10 hex digits that every share of it carries
	Label      string // what the PIN is of, for people: one line of at most 100 bytes
	Shares     int    // n
	Threshold  int    // k
	commitment secretsharing.SecretCommitment
	sealed     []byte // nonce and ciphertext
}

// file is a Set in JSON. Everything but sealed is its additional data.
type file struct {
	Version    int      `json:"version"`
	ID         string   `json:"id"`
	Label      string   `json:"label"`
	Shares     int      `json:"shares"`
	Threshold  int      `json:"threshold"`
	Commitment []string `json:"commitment"` // ristretto255 elements in hex, the constant term's first (RFC 9496 §4.3.2)
	Sealed     string   `json:"sealed"`     // 12 octets nonce, ciphertext, 16 octets tag, in hex
}

// Split makes the shares of pin, 1 to 255 bytes: n of them, of which k open it. Texts of shares are as Share.Text writes them; the caller
// hands each to one person and wipes it.
func Split(pin []byte, label string, n, k int) (*Set, []Share, error) {
	if err := checkBounds(n, k); err != nil {
		return nil, nil, fmt.Errorf("split PIN: %w", err)
	}
	if len(pin) == 0 || len(pin) > maxPIN {
		return nil, nil, fmt.Errorf("split PIN: it has %d bytes, 1 to %d are possible", len(pin), maxPIN)
	}
	if err := checkLabel(label); err != nil {
		return nil, nil, fmt.Errorf("split PIN: %w", err)
	}
	var id [idSize]byte
	rand.Read(id[:]) // never fails: it ends the process instead
	secret := group.Ristretto255.RandomNonZeroScalar(rand.Reader)
	sharing := secretsharing.New(rand.Reader, uint(k-1), secret)
	set := &Set{ID: hex.EncodeToString(id[:]), Label: label, Shares: n, Threshold: k, commitment: sharing.CommitSecret()}
	if len(set.commitment) != k {
		return nil, nil, errors.New("split PIN: the random polynomial is of too low a degree: try again")
	}
	if err := set.seal(secret, pin); err != nil {
		return nil, nil, fmt.Errorf("split PIN: %w", err)
	}
	var list []Share
	for i, s := range sharing.Share(uint(n)) {
		value, err := s.Value.MarshalBinary()
		if err != nil || len(value) != valueSize {
			return nil, nil, fmt.Errorf("split PIN: write share %d: %w", i+1, err)
		}
		list = append(list, Share{set: id, Number: i + 1, value: value})
	}
	return set, list, nil
}

func checkBounds(n, k int) error {
	if k < MinThreshold || n < k || n > MaxShares {
		return fmt.Errorf("%d of %d shares: the threshold is %d or more, and not more than the shares, which are %d at most", k, n, MinThreshold, MaxShares)
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 100 {
		return errors.New("the label has no text, or more than 100 bytes")
	}
	for _, c := range label {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return errors.New("the label is not one line of text")
		}
	}
	return nil
}

// aead derives the key that the PIN is sealed under.
func (s *Set) aead(secret group.Scalar) (cipher.AEAD, error) {
	encoded, err := secret.MarshalBinary()
	if err != nil {
		return nil, err
	}
	defer clear(encoded)
	key, err := hkdf.Key(sha256.New, encoded, []byte(s.ID), "zegel shares of a PIN, version 1", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// header is what the sealed PIN is bound to.
func (s *Set) header() (file, error) {
	f := file{Version: version, ID: s.ID, Label: s.Label, Shares: s.Shares, Threshold: s.Threshold}
	for _, c := range s.commitment {
		encoded, err := c.MarshalBinaryCompress()
		if err != nil {
			return file{}, err
		}
		f.Commitment = append(f.Commitment, hex.EncodeToString(encoded))
	}
	return f, nil
}

func (s *Set) additional() ([]byte, error) {
	f, err := s.header()
	if err != nil {
		return nil, err
	}
	return json.Marshal(f)
}

func (s *Set) seal(secret group.Scalar, pin []byte) error {
	aead, err := s.aead(secret)
	if err != nil {
		return err
	}
	additional, err := s.additional()
	if err != nil {
		return err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	s.sealed = aead.Seal(nonce, nonce, pin, additional)
	return nil
}

// Marshal is the text of the set's file. It opens nothing by itself; keep it to its user all the same (0600).
func (s *Set) Marshal() ([]byte, error) {
	f, err := s.header()
	if err != nil {
		return nil, fmt.Errorf("write the file of shares: %w", err)
	}
	f.Sealed = hex.EncodeToString(s.sealed)
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the file of shares: %w", err)
	}
	return append(text, '\n'), nil
}

// ParseSet reads what Marshal wrote, and nothing else: every octet counts.
func ParseSet(text []byte) (*Set, error) {
	s, err := parseSet(text)
	if err != nil {
		return nil, fmt.Errorf("read the file of shares: %w", err)
	}
	return s, nil
}

func parseSet(text []byte) (*Set, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("longer than %d bytes", MaxFile)
	}
	var f file
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return nil, fmt.Errorf("it is not what zegel token split writes: %w", err)
	}
	if f.Version != version {
		return nil, fmt.Errorf("version %d, this program reads version %d", f.Version, version)
	}
	if err := checkBounds(f.Shares, f.Threshold); err != nil {
		return nil, err
	}
	if err := checkLabel(f.Label); err != nil {
		return nil, err
	}
	if id, err := hex.DecodeString(f.ID); err != nil || len(id) != idSize || hex.EncodeToString(id) != f.ID {
		return nil, errors.New("its id is not of 10 lower-case hex digits")
	}
	sealed, err := hex.DecodeString(f.Sealed)
	if err != nil || len(sealed) < 12+1+16 || len(sealed) > 12+maxPIN+16 {
		return nil, errors.New("the sealed PIN is not of its length")
	}
	s := &Set{ID: f.ID, Label: f.Label, Shares: f.Shares, Threshold: f.Threshold, sealed: sealed}
	if len(f.Commitment) != f.Threshold {
		return nil, fmt.Errorf("%d commitments for a threshold of %d", len(f.Commitment), f.Threshold)
	}
	for i, encoded := range f.Commitment {
		raw, err := hex.DecodeString(encoded)
		if err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("commitment %d is not of 64 hex digits", i)
		}
		element := group.Ristretto255.NewElement()
		if err := element.UnmarshalBinary(raw); err != nil {
			return nil, fmt.Errorf("commitment %d is no element of ristretto255", i)
		}
		s.commitment = append(s.commitment, element)
	}
	if again, err := s.Marshal(); err != nil || !bytes.Equal(again, text) {
		return nil, errors.New("it was changed: it is not as zegel token split wrote it: bring it back from a copy")
	}
	return s, nil
}

// Share is what one person keeps.
type Share struct {
	Number int // 1 to 16
	set    [idSize]byte
	value  []byte
}

// Wipe overwrites the share.
func (s Share) Wipe() { clear(s.value) }

// line is the share alone.
func (s Share) line() []byte {
	raw := make([]byte, 0, shareSize)
	raw = append(append(append(raw, version), s.set[:]...), byte(s.Number))
	raw = append(raw, s.value...)
	sum := sha256.Sum256(append([]byte(prefix), raw...))
	raw = append(raw, sum[:sumSize]...)
	defer clear(raw)
	encoded := encoding.AppendEncode(nil, raw)
	defer clear(encoded)
	line := []byte(prefix + " ")
	for i := 0; i < len(encoded); i += 6 {
		if i > 0 {
			line = append(line, '-')
		}
		line = append(line, encoded[i:min(i+6, len(encoded))]...)
	}
	return append(line, '\n')
}

// Text is the share's file: what it is, for people, and the line that is entered. The caller wipes it.
func (s Share) Text(of *Set) []byte {
	head := fmt.Sprintf("# Share %d of %d of the PIN of %s. Any %d of them open it; this one alone tells nothing.\n"+
		"# Keep it where the others are not, and show it to nobody. Entered by: zegel token activate\n", s.Number, of.Shares, of.Label, of.Threshold)
	return append([]byte(head), s.line()...)
}

// ParseShare reads the text of a share, or what somebody typed of it: the last line that is no comment, capitals, blanks and
// hyphens as one likes, with or without its first word. The error wraps ErrDamaged where the checksum does not fit. The caller wipes the share.
func ParseShare(text []byte) (Share, error) {
	if len(text) > MaxText {
		return Share{}, fmt.Errorf("read share: longer than %d bytes", MaxText)
	}
	var line []byte
	for l := range bytes.Lines(text) {
		if l = bytes.TrimSpace(l); len(l) > 0 && l[0] != '#' {
			line = l
		}
	}
	if len(line) > len(prefix) && strings.EqualFold(string(line[:len(prefix)]), prefix) {
		line = line[len(prefix):]
	}
	typed := make([]byte, 0, len(line))
	defer func() { clear(typed[:cap(typed)]) }()
	for _, c := range line {
		switch {
		case c == ' ' || c == '\t' || c == '-' || c == ':':
			continue
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		switch c {
		case 'o':
			c = '0'
		case 'i', 'l':
			c = '1'
		}
		typed = append(typed, c)
	}
	if len(typed) == 0 {
		return Share{}, errors.New("read share: nothing was entered")
	}
	if want := encoding.EncodedLen(shareSize); len(typed) != want {
		return Share{}, fmt.Errorf("read share: %w: it has %d characters of %d", ErrDamaged, len(typed), want)
	}
	return decodeShare(typed)
}

func decodeShare(typed []byte) (Share, error) {
	raw := make([]byte, encoding.DecodedLen(len(typed)))
	defer clear(raw)
	n, err := encoding.Decode(raw, typed)
	if err != nil || n != shareSize {
		return Share{}, fmt.Errorf("read share: %w", ErrDamaged)
	}
	body := raw[:shareSize-sumSize]
	hashed := append([]byte(prefix), body...)
	defer clear(hashed)
	if sum := sha256.Sum256(hashed); !bytes.Equal(sum[:sumSize], raw[shareSize-sumSize:]) {
		return Share{}, fmt.Errorf("read share: %w", ErrDamaged)
	}
	s := Share{Number: int(body[1+idSize]), value: bytes.Clone(body[2+idSize:])}
	copy(s.set[:], body[1:])
	if body[0] != version || s.Number < 1 || s.Number > MaxShares {
		s.Wipe()
		return Share{}, fmt.Errorf("read share: version %d, number %d: this program knows version %d and numbers to %d", body[0], s.Number, version, MaxShares)
	}
	return s, nil
}

// Check holds one share against the set: it is ErrForeign, ErrWrong, or fits.
func (s *Set) Check(share Share) error {
	_, err := s.fit(share)
	return err
}

func (s *Set) fit(share Share) (secretsharing.Share, error) {
	if hex.EncodeToString(share.set[:]) != s.ID {
		return secretsharing.Share{}, fmt.Errorf("share %d: %w: it carries %x, the PIN of %s was split as %s", share.Number, ErrForeign, share.set, s.Label, s.ID)
	}
	value := group.Ristretto255.NewScalar()
	fits := secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(share.Number)), Value: value}
	if err := value.UnmarshalBinary(share.value); err != nil || share.Number > s.Shares || !secretsharing.Verify(uint(s.Threshold-1), fits, s.commitment) {
		return secretsharing.Share{}, fmt.Errorf("share %d of the PIN of %s: %w", share.Number, s.Label, ErrWrong)
	}
	return fits, nil
}

// Join opens the PIN with Threshold shares of different numbers, each of which it checks. The caller wipes the PIN.
func (s *Set) Join(list []Share) ([]byte, error) {
	if len(list) < s.Threshold {
		return nil, fmt.Errorf("join shares of the PIN of %s: %d of %d", s.Label, len(list), s.Threshold)
	}
	var fitting []secretsharing.Share
	seen := make(map[int]bool)
	for _, share := range list {
		if seen[share.Number] {
			return nil, fmt.Errorf("share %d of the PIN of %s: %w", share.Number, s.Label, ErrDoubled)
		}
		seen[share.Number] = true
		fits, err := s.fit(share)
		if err != nil {
			return nil, err
		}
		fitting = append(fitting, fits)
	}
	secret, err := secretsharing.Recover(uint(s.Threshold-1), fitting)
	if err != nil {
		return nil, fmt.Errorf("join shares of the PIN of %s: %w", s.Label, err)
	}
	aead, err := s.aead(secret)
	if err != nil {
		return nil, fmt.Errorf("join shares of the PIN of %s: %w", s.Label, err)
	}
	additional, err := s.additional()
	if err != nil {
		return nil, fmt.Errorf("join shares of the PIN of %s: %w", s.Label, err)
	}
	nonce, ciphertext := s.sealed[:aead.NonceSize()], s.sealed[aead.NonceSize():]
	pin, err := aead.Open(nil, nonce, ciphertext, additional)
	if err != nil {
		return nil, fmt.Errorf("join shares of the PIN of %s: the shares fit and the sealed PIN does not open: the file was changed: bring it back from a copy", s.Label)
	}
	return pin, nil
}
