package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zegel-tsp/zegel/internal/locked"
)

// maxPIN bounds a PIN, in bytes: SoftHSM takes 255, age any length.
const maxPIN = 255

// pinKind says where a PIN comes from.
type pinKind int

const (
	pinNone       pinKind = iota
	pinFile               // file:/absolute/path or /absolute/path
	pinEnv                // env:NAME
	pinCredential         // credential:NAME, of systemd
	pinPrompt             // prompt: somebody enters it
	pinShares             // shares:/absolute/path: several people enter shares of it
)

// pinSource is a pin-source, read. at is a path or a name.
type pinSource struct {
	kind pinKind
	at   string
}

// entered reports whether people enter the PIN.
func (s pinSource) entered() bool { return s.kind == pinPrompt || s.kind == pinShares }

// parsePINSource judges how a pin-source is written; it opens nothing.
func parsePINSource(source string) (pinSource, error) {
	if source == "prompt" {
		return pinSource{kind: pinPrompt}, nil
	}
	if name, ok := strings.CutPrefix(source, "env:"); ok {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return pinSource{}, errors.New("env: is not followed by the name of a variable")
		}
		return pinSource{pinEnv, name}, nil
	}
	if name, ok := strings.CutPrefix(source, "credential:"); ok {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
			return pinSource{}, errors.New("credential: is not followed by the name of a systemd credential, which is one of a file")
		}
		return pinSource{pinCredential, name}, nil
	}
	kind, path := pinFile, source
	if rest, ok := strings.CutPrefix(source, "shares:"); ok {
		kind, path = pinShares, rest
	} else if rest, ok := strings.CutPrefix(source, "file:"); ok {
		path = rest
		if authority, ok := strings.CutPrefix(rest, "//"); ok { // file://host/path, RFC 8089 §2
			host, p, _ := strings.Cut(authority, "/")
			if host != "" && host != "localhost" {
				return pinSource{}, errors.New("a file: URI with a host: the file must be on this machine")
			}
			path = "/" + p
		}
	}
	if strings.ContainsRune(path, 0) || !filepath.IsAbs(path) {
		return pinSource{}, errors.New("give file:/absolute/path, /absolute/path, credential:NAME, env:NAME, prompt or shares:/absolute/path")
	}
	return pinSource{kind, path}, nil
}

// CheckPIN judges what is entered as a PIN: 1 to 255 bytes, one line, no zero byte.
func CheckPIN(pin []byte) error {
	switch {
	case len(pin) == 0:
		return errors.New("the PIN is empty")
	case len(pin) > maxPIN:
		return fmt.Errorf("the PIN is longer than %d bytes", maxPIN)
	case bytes.ContainsAny(pin, "\x00\r\n"):
		return errors.New("the PIN has more than one line, or a zero byte")
	}
	return nil
}

// pinOrigin says in words where u's PIN comes from.
func (u URI) pinOrigin() string {
	if u.PINSource != "" {
		return "pin-source " + u.PINSource
	}
	return "the URI's pin-value"
}

// hasPIN reports whether u says where its PIN is.
func (u URI) hasPIN() bool { return u.PINSource != "" || u.pinValue != nil }

// tokenName is u without its object: what the token is called where PINs are entered.
func (u URI) tokenName() string {
	return URI{
		Software: u.Software, Token: u.Token, Serial: u.Serial, Manufacturer: u.Manufacturer, Model: u.Model, SlotID: u.SlotID,
		Library: u.Library, ModulePath: u.ModulePath, Dir: u.Dir,
	}.String()
}

// pins keeps every PIN from its first use on, so that each source is read once. Safe for concurrent use.
type pins struct {
	mu   sync.Mutex
	held map[string]*locked.Secret // by holder
	next map[string]bool           // by holder: entered, and not refused since, so that the next activation takes it and not what the source says
	off  bool                      // nothing is read, and nobody logs in
}

func newPINs() *pins {
	return &pins{held: make(map[string]*locked.Secret), next: make(map[string]bool)}
}

// turnOff wipes every PIN and has none read, until turnOn.
func (p *pins) turnOff() {
	p.mu.Lock()
	p.off = true
	p.mu.Unlock()
	p.wipe()
}

func (p *pins) turnOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = false
}

func (p *pins) shut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

// holder is what u's PIN is kept under: its source, or for prompt, which is one for each token, the token.
func (u URI) holder() string {
	if u.PINSource == "prompt" {
		return "prompt " + u.tokenName()
	}
	return u.PINSource
}

// use lends u's PIN to use, after reading it where that has not been done. use must not keep it.
func (p *pins) use(u URI, use func(pin []byte) error) error {
	if u.pinValue != nil {
		pin := bytes.Clone(*u.pinValue)
		defer clear(pin)
		return use(pin)
	}
	secret, err := p.of(u)
	if err != nil {
		return err
	}
	return secret.Use(use)
}

// text is pin as a string, the same memory: not to be kept.
func text(pin []byte) string { return unsafe.String(unsafe.SliceData(pin), len(pin)) }

func (p *pins) of(u URI) (*locked.Secret, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return nil, ErrDeactivated
	}
	if secret := p.held[u.holder()]; secret != nil {
		return secret, nil
	}
	pin, err := u.readPIN()
	if err != nil {
		return nil, err
	}
	secret, err := locked.Take(pin)
	if err != nil {
		return nil, fmt.Errorf("keep the PIN from %s: %w", u.PINSource, err)
	}
	p.held[u.holder()] = secret
	return secret, nil
}

// put keeps a PIN that was entered, in place of the one that was there, and wipes what it was given.
func (p *pins) put(u URI, pin []byte) error {
	if err := CheckPIN(pin); err != nil {
		clear(pin)
		return err
	}
	secret, err := locked.Take(pin)
	if err != nil {
		return fmt.Errorf("keep the PIN: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.held[u.holder()]; old != nil {
		old.Wipe()
	}
	p.held[u.holder()] = secret
	return nil
}

// enter is put for a PIN that somebody entered: it is tried before its source is read again.
func (p *pins) enter(u URI, pin []byte) error {
	if err := p.put(u, pin); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next[u.holder()] = true
	return nil
}

// takeEntered reports whether u's PIN was entered and not refused since, once.
func (p *pins) takeEntered(u URI) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	entered := p.next[u.holder()]
	delete(p.next, u.holder())
	return entered
}

// readAgain replaces the PIN by what its source says now, where that can be read twice. It keeps the old one where it cannot, and one that was
// entered for this activation.
func (p *pins) readAgain(u URI) error {
	if p.takeEntered(u) {
		return nil
	}
	source, err := parsePINSource(u.PINSource)
	if err != nil || source.kind != pinFile && source.kind != pinCredential {
		return nil // a pin-value, or nothing that could be read
	}
	pin, err := u.readPIN()
	if err != nil {
		return err
	}
	return p.put(u, pin)
}

// holds reports whether u's PIN is kept.
func (p *pins) holds(u URI) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[u.holder()] != nil
}

// drop wipes u's PIN.
func (p *pins) drop(u URI) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if secret := p.held[u.holder()]; secret != nil {
		secret.Wipe()
		delete(p.held, u.holder())
	}
	delete(p.next, u.holder())
}

// refused forgets that u's PIN was entered and waits for the next activation: it was refused before that.
func (p *pins) refused(u URI) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.next, u.holder())
}

// dropEntered wipes u's PIN if people enter it, so that it is wanted again.
func (p *pins) dropEntered(u URI) {
	if source, err := parsePINSource(u.PINSource); err == nil && source.entered() {
		p.drop(u)
	}
}

// wipe wipes every PIN.
func (p *pins) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, secret := range p.held {
		secret.Wipe()
	}
	clear(p.held)
	clear(p.next)
}

// readPIN reads u's PIN from its source. The caller wipes it.
func (u URI) readPIN() ([]byte, error) {
	if u.PINSource == "" {
		return nil, errors.New("the URI has no pin-source: add pin-source=file:/absolute/path to it")
	}
	source, err := parsePINSource(u.PINSource)
	if err != nil {
		return nil, fmt.Errorf("read pin-source: %w", err)
	}
	var pin []byte
	switch source.kind {
	case pinEnv:
		pin, err = takeVariable(source.at)
	case pinCredential:
		pin, err = readCredential(source.at)
	case pinPrompt, pinShares:
		return nil, fmt.Errorf("%w: pin-source is %s, so people enter the PIN: zegel token activate", ErrPINWanted, u.PINSource)
	default:
		pin, err = readPrivateFile(source.at, privateFile{limit: 2 * maxPIN})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read PIN: %w: put the PIN there, or correct pin-source", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read PIN: %w", err)
	}
	trimmed := bytes.TrimSuffix(bytes.TrimSuffix(pin, []byte("\n")), []byte("\r"))
	if err := CheckPIN(trimmed); err != nil {
		clear(pin)
		return nil, fmt.Errorf("read PIN from %s: %w", u.PINSource, err)
	}
	return trimmed, nil
}

// takeVariable reads an environment variable and removes it, so that no child process and no module finds it. What the kernel
// shows as /proc/PID/environ is the environment at the start, which stays as it was.
func takeVariable(name string) ([]byte, error) {
	value, ok := os.LookupEnv(name)
	if !ok {
		return nil, fmt.Errorf("environment variable %s is not set: set it where this program is started, or name another pin-source", name)
	}
	if err := os.Unsetenv(name); err != nil {
		return nil, fmt.Errorf("remove environment variable %s: %w", name, err)
	}
	return []byte(value), nil
}

// credentialsDirectory is where systemd says that a service's credentials are (systemd.exec(5)).
const credentialsDirectory = "CREDENTIALS_DIRECTORY"

func readCredential(name string) ([]byte, error) {
	dir := os.Getenv(credentialsDirectory)
	if dir == "" {
		return nil, fmt.Errorf("credential %s: %s is not set: start this program by systemd, with LoadCredentialEncrypted=%s:/path or LoadCredential=%s:/path in its unit",
			name, credentialsDirectory, name, name)
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("credential %s: %s is %q, no absolute path", name, credentialsDirectory, dir)
	}
	pin, err := readPrivateFile(filepath.Join(dir, name), privateFile{limit: 2 * maxPIN, groupReads: true})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("credential %s: %w: add LoadCredentialEncrypted=%s:/path or LoadCredential=%s:/path to the unit", name, err, name, name)
	}
	return pin, err
}

// privateFile says what a file with a secret may be.
type privateFile struct {
	limit int // bytes
	// groupReads allows mode 0440, which systemd gives to credentials where it grants a service's user access by an ACL: the group
	// bits are then the ACL's mask (systemd.exec(5)).
	groupReads bool
}

// readPrivateFile reads a secret's file and refuses one that others than its owner may open.
// The check is on the open file, so that it cannot be exchanged in between.
func readPrivateFile(path string, want privateFile) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not hold the daemon up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	mode, forbidden := stat.Mode().Perm(), os.FileMode(0o077)
	if want.groupReads {
		forbidden = 0o037
	}
	if mode&forbidden != 0 {
		return nil, fmt.Errorf("%s may be read or written by others than its owner (mode %04o): chmod 600 %s", path, mode, path)
	}
	if stat.Size() > int64(want.limit) {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, want.limit)
	}
	data := make([]byte, want.limit+1) // one buffer, so that no copy of a secret is left behind by growing
	n, err := io.ReadFull(f, data)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if n > want.limit {
		clear(data)
		return nil, fmt.Errorf("%s is larger than %d bytes", path, want.limit)
	}
	return data[:n:n], nil
}
