package hsm

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// URI names an object, the token that holds it, the module that reaches the token and where its PIN comes from.
// It is a value; the zero value names nothing.
type URI struct {
	Software bool // softtoken: instead of pkcs11:; only Object, Dir and PINSource are then set

	// What RFC 7512 §2.3 calls path attributes: each one given must match.
	Token        string // CKA label of the token, at most 32 bytes
	Serial       string // at most 16 bytes
	Manufacturer string // of the token, at most 32 bytes
	Model        string // at most 16 bytes
	SlotID       *uint  // slot numbers may change when a module is restarted: prefer Token or Serial
	Library      Library
	Object       string // CKA_LABEL; of a soft token, the name of the file without .age
	ID           []byte // CKA_ID
	Type         string // public, private or secret-key; empty: as the call needs it

	// Query attributes: how to get there.
	ModulePath string // absolute
	PINSource  string // file:/absolute/path, /absolute/path, credential:NAME, env:NAME, prompt or shares:/absolute/path
	Dir        string // of a soft token: the absolute path of the folder with the key files

	pinValue *[]byte // behind a pointer, so that no formatting verb prints it
}

// Library is what a URI may demand of the module itself (CK_INFO).
type Library struct {
	Manufacturer string // at most 32 bytes
	Description  string // at most 32 bytes
	Version      string // "2" or "2.6"
}

// maxURI bounds the text of a URI, in bytes: a PIN, three paths and every attribute fit many times over.
const maxURI = 8192

// ParseURI reads a pkcs11: URI (RFC 7512) or a softtoken: URI. It is strict: characters outside the grammar, empty or repeated
// attributes, unknown standard attributes and attributes in the wrong part are refused; vendor attributes (x-…) are
// ignored. No error it returns shows a pin-value.
func ParseURI(text string) (URI, error) {
	u, err := parseURI(text)
	if err != nil {
		return URI{}, fmt.Errorf("read key URI %q: %w", presentable(text), err)
	}
	return u, nil
}

// ParseURIs reads a key group: one or more URIs separated by blanks or line breaks, each as ParseURI reads it. No two name the same
// object of one token.
func ParseURIs(text string) ([]URI, error) {
	fields := strings.Fields(text)
	if len(fields) < 2 {
		u, err := ParseURI(strings.TrimSpace(text))
		return []URI{u}, err
	}
	var uris []URI
	seen := make(map[string]bool)
	for _, field := range fields {
		u, err := ParseURI(field)
		if err != nil {
			return nil, err
		}
		name := u.Name() + "?" + u.Dir + "?" + u.ModulePath
		if seen[name] {
			return nil, fmt.Errorf("read key URIs: %s is named twice: a key group is one key on several tokens", u.Name())
		}
		seen[name] = true
		uris = append(uris, u)
	}
	return uris, nil
}

func parseURI(text string) (URI, error) {
	if len(text) > maxURI {
		return URI{}, fmt.Errorf("longer than %d bytes", maxURI)
	}
	scheme, rest, found := strings.Cut(text, ":")
	var u URI
	switch strings.ToLower(scheme) { // RFC 3986 §3.1
	case "pkcs11":
	case "softtoken":
		u.Software = true
	default:
		found = false
	}
	if !found {
		return URI{}, errors.New("a key is named by a URI that begins with pkcs11: or softtoken:")
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if path != "" {
		if err := eachAttribute(part{path, ";", "path"}, u.setPath); err != nil {
			return URI{}, err
		}
	}
	if hasQuery {
		if err := eachAttribute(part{query, "&", "query"}, u.setQuery); err != nil {
			return URI{}, err
		}
	}
	if u.PINSource != "" && u.pinValue != nil {
		return URI{}, errors.New("pin-source and pin-value exclude each other (RFC 7512 §2.4): keep pin-source")
	}
	return u, nil
}

// presentable is as much of text as can hold no PIN, for error messages.
func presentable(text string) string {
	text, _, _ = strings.Cut(text, "?")
	for i := range len(text) - 2 {
		if strings.EqualFold(text[i:i+3], "pin") {
			text = text[:i] + "…"
			break
		}
	}
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// part is one half of a URI: its text, what separates its attributes, and its name in RFC 7512.
type part struct{ text, separator, name string }

// eachAttribute splits a part into attributes, decodes them and hands each to set, which reports whether it knows the name.
func eachAttribute(p part, set func(name, value string) (known bool, err error)) error {
	secret := strings.Contains(p.text, "pin-value")
	seen := make(map[string]bool)
	for i, attribute := range strings.Split(p.text, p.separator) {
		name, encoded, ok := strings.Cut(attribute, "=")
		where := fmt.Sprintf("%s attribute %q", p.name, name)
		if secret || !ok { // a PIN that is badly encoded may spill into what looks like names
			where = fmt.Sprintf("%s attribute %d", p.name, i+1)
		}
		if !ok {
			return fmt.Errorf("%s is not of the form name=value: separate attributes by %q", where, p.separator)
		}
		if !isAttributeName(name) {
			return fmt.Errorf("%s: its name is not of letters, digits, '-' and '_'", where)
		}
		vendor := strings.HasPrefix(name, "x-")
		if seen[name] && !(vendor && p.name == "query") { // RFC 7512 §2.3, §2.4: only vendor query attributes may repeat
			return fmt.Errorf("%s is given twice: keep one", where)
		}
		seen[name] = true
		value, err := decodeAttribute(encoded, p.name)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if vendor {
			continue
		}
		known, err := set(name, value)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if !known {
			return fmt.Errorf("%s is not known there: check its spelling (vendor attributes begin with x-)", where)
		}
	}
	return nil
}

func isAttributeName(name string) bool {
	for _, c := range []byte(name) {
		if !isUnreservedWord(c) || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return name != ""
}

func isUnreservedWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// isPlain reports whether c stands for itself in an attribute of the path or the query (RFC 7512 §2.3: pk11-pchar, pk11-qchar).
func isPlain(c byte, partName string) bool {
	if isUnreservedWord(c) || strings.IndexByte(".~:[]@!$'()*+,=", c) >= 0 {
		return true
	}
	return partName == "path" && c == '&' || partName == "query" && strings.IndexByte("/?|", c) >= 0
}

func decodeAttribute(encoded, partName string) (string, error) {
	var value strings.Builder
	for i := 0; i < len(encoded); i++ {
		c := encoded[i]
		if c != '%' {
			if !isPlain(c, partName) {
				return "", fmt.Errorf("byte 0x%02x must be written %%%02X", c, c)
			}
			value.WriteByte(c)
			continue
		}
		if len(encoded)-i < 3 {
			return "", errors.New("ends within a %XX: write '%' itself as %25")
		}
		b, err := strconv.ParseUint(encoded[i+1:i+3], 16, 8)
		if err != nil {
			return "", errors.New("'%' is not followed by two hex digits: write '%' itself as %25")
		}
		value.WriteByte(byte(b))
		i += 2
	}
	return value.String(), nil
}

func (u *URI) setPath(name, value string) (bool, error) {
	if u.Software {
		if name != "object" {
			return false, nil
		}
		u.Object = value
		return true, checkSoftName(value)
	}
	text := func(to *string, limit int) (bool, error) {
		*to = value
		return true, checkText(value, limit)
	}
	switch name {
	case "token":
		return text(&u.Token, 32)
	case "serial":
		return text(&u.Serial, 16)
	case "manufacturer":
		return text(&u.Manufacturer, 32)
	case "model":
		return text(&u.Model, 16)
	case "library-manufacturer":
		return text(&u.Library.Manufacturer, 32)
	case "library-description":
		return text(&u.Library.Description, 32)
	case "object":
		return text(&u.Object, 255)
	case "library-version":
		u.Library.Version = value
		return true, checkVersion(value)
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, strconv.IntSize)
		if err != nil {
			return true, errors.New("not a decimal slot number")
		}
		id := uint(n)
		u.SlotID = &id
		return true, nil
	case "id":
		u.ID = []byte(value)
		return true, checkLength(value, 255)
	case "type":
		u.Type = value
		if value != "public" && value != "private" && value != "secret-key" {
			return true, errors.New("names no key: give private, public or secret-key, or leave it out")
		}
		return true, nil
	}
	return false, nil
}

func (u *URI) setQuery(name, value string) (bool, error) {
	switch name {
	case "module-path":
		u.ModulePath = value
		return !u.Software, checkPath(value)
	case "module-name":
		return true, errors.New("the module is looked up nowhere: give its absolute path as module-path")
	case "dir":
		u.Dir = value
		return u.Software, checkPath(value)
	case "pin-source":
		u.PINSource = value
		_, err := parsePINSource(value)
		return true, err
	case "pin-value":
		pin := []byte(value)
		u.pinValue = &pin
		return true, CheckPIN(pin)
	}
	return false, nil
}

func checkLength(value string, limit int) error {
	if value == "" {
		return errors.New("empty: give a value or leave the attribute out")
	}
	if len(value) > limit {
		return fmt.Errorf("%d bytes long, at most %d are possible", len(value), limit)
	}
	return nil
}

func checkText(value string, limit int) error {
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return errors.New("not text in UTF-8")
	}
	return checkLength(value, limit)
}

func checkPath(value string) error {
	if err := checkText(value, 4096); err != nil {
		return err
	}
	if !filepath.IsAbs(value) {
		return errors.New("not an absolute path: begin it with '/'")
	}
	return nil
}

// checkSoftName keeps the name of a soft token's key a plain file name.
func checkSoftName(value string) error {
	if err := checkLength(value, 100); err != nil {
		return err
	}
	for _, c := range []byte(value) {
		if !isUnreservedWord(c) && c != '.' {
			return errors.New("names a file: only letters, digits, '.', '-' and '_' are possible")
		}
	}
	if value[0] == '.' {
		return errors.New("names a file and must not begin with '.'")
	}
	return nil
}

func checkVersion(value string) error {
	major, minor, dotted := strings.Cut(value, ".")
	_, err := strconv.ParseUint(major, 10, 8)
	if err == nil && dotted {
		_, err = strconv.ParseUint(minor, 10, 8)
	}
	if err != nil {
		return errors.New("not a version such as 2 or 2.6")
	}
	return nil
}

// String is the URI in one canonical form, which ParseURI reads back. It never shows a pin-value: that attribute is left out.
func (u URI) String() string {
	s, query := u.Name(), []string(nil)
	for _, a := range [][2]string{{"module-path", u.ModulePath}, {"dir", u.Dir}, {"pin-source", u.PINSource}} {
		if a[1] != "" {
			query = append(query, a[0]+"="+encodeAttribute(a[1], "query"))
		}
	}
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

// GoString keeps %#v from showing more than String.
func (u URI) GoString() string { return fmt.Sprintf("hsm.URI(%q)", u.String()) }

// Name is the URI without its query: it says which object is meant and nothing about how to reach it.
func (u URI) Name() string {
	var path []string
	add := func(name, value string) {
		if value != "" {
			path = append(path, name+"="+encodeAttribute(value, "path"))
		}
	}
	add("token", u.Token)
	add("serial", u.Serial)
	add("manufacturer", u.Manufacturer)
	add("model", u.Model)
	if u.SlotID != nil {
		add("slot-id", strconv.FormatUint(uint64(*u.SlotID), 10))
	}
	add("library-manufacturer", u.Library.Manufacturer)
	add("library-description", u.Library.Description)
	add("library-version", u.Library.Version)
	add("object", u.Object)
	if len(u.ID) > 0 {
		path = append(path, "id="+percentEncode(u.ID))
	}
	add("type", u.Type)
	scheme := "pkcs11:"
	if u.Software {
		scheme = "softtoken:"
	}
	return scheme + strings.Join(path, ";")
}

func encodeAttribute(value, partName string) string {
	var encoded strings.Builder
	for _, c := range []byte(value) {
		// '&' and '?' may stand plain in some places; encoded, the text survives being pasted into others.
		if isPlain(c, partName) && c != '&' && c != '?' {
			encoded.WriteByte(c)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", c)
		}
	}
	return encoded.String()
}

func percentEncode(id []byte) string {
	var encoded strings.Builder
	for _, b := range id {
		fmt.Fprintf(&encoded, "%%%02X", b)
	}
	return encoded.String()
}

// HasPINValue reports whether the PIN itself stands in the URI, as a pin-value. It then lies in every copy and backup of the file
// that has the URI, which `assurance: qualified` refuses.
func (u URI) HasPINValue() bool { return u.pinValue != nil }

// IsSoftware reports whether uri is a softtoken: URI, or a key group with one, which `assurance: qualified` refuses for all but
// checkpoint keys.
func IsSoftware(uri string) bool {
	for _, one := range strings.Fields(uri) {
		scheme, _, found := strings.Cut(one, ":")
		if found && strings.EqualFold(scheme, "softtoken") {
			return true
		}
	}
	return false
}

// CheckURI judges how a key's URI, or a key group, is written, without looking for the key. qualified refuses a pin-value: the PIN would lie in
// every copy of the configuration, and its digest in the journal.
func CheckURI(text string, qualified bool) error {
	uris, err := ParseURIs(text)
	if err != nil {
		return err
	}
	for _, u := range uris {
		if qualified && u.HasPINValue() {
			return errors.New("a pin-value under `assurance: qualified`: the PIN would lie in every copy of this file: use pin-source")
		}
	}
	return nil
}
