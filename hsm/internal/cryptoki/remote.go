package cryptoki

import (
	"fmt"
	"time"

	"github.com/miekg/pkcs11"
)

// call asks the process. The values of m are those of its function's shape.
func (p *process) call(f function, m *message) (*arguments, error) {
	c := p.child.Load()
	if c == nil {
		return nil, fmt.Errorf("%w: the module is not initialised", ErrGone)
	}
	m.function = f
	answer, err := c.call(m)
	if err != nil {
		return nil, err
	}
	return &arguments{message: answer}, nil
}

// ask is call for what is answered by a code.
func (p *process) ask(f function, m *message) error {
	_, err := p.call(f, m)
	return err
}

func numbers(numbers ...uint) *message {
	m := &message{numbers: make([]uint64, 0, len(numbers))}
	m.addNumbers(numbers...)
	return m
}

func (m *message) with(texts ...[]byte) *message {
	m.texts = texts
	return m
}

func (m *message) and(templates ...[]*pkcs11.Attribute) *message {
	m.templates = templates
	return m
}

// Initialize starts the process, has it load the library, and calls C_Initialize.
func (p *process) Initialize() error { return p.initialize(p.limitOf) }

// limitOf is how long a call of f may take.
func (p *process) limitOf(f function, quick time.Duration) time.Duration {
	if p.config.Start > 0 && (f == load || f == initialize) {
		return p.config.Start
	}
	return f.limit(quick)
}

func (p *process) initialize(limits func(function, time.Duration) time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
	c, err := p.start(limits)
	if err != nil {
		return err
	}
	answer, err := c.call(&message{function: load})
	if err != nil && answer != nil && len(answer.texts) == 1 {
		err = &loadError{string(answer.texts[0]), err}
	}
	if err == nil {
		_, err = c.call(&message{function: initialize})
	}
	if err != nil {
		c.stop()
		return err
	}
	p.child.Store(c)
	return nil
}

// end ends the process where there is one. The caller holds p.mu.
func (p *process) end() {
	if c := p.child.Swap(nil); c != nil {
		c.stop()
	}
}

// Finalize calls C_Finalize and ends the process, whatever the library says. One that is gone is finalized.
func (p *process) Finalize() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.child.Load()
	if c == nil {
		return nil
	}
	select {
	case <-c.down:
		p.end()
		return nil
	default:
	}
	err := p.ask(finalize, &message{})
	p.end()
	return err
}

func (p *process) Abort(reason error) {
	if c := p.child.Load(); c != nil {
		c.fail(reason)
	}
}

func (p *process) Stuck() int { return 0 } // they end with the process

func (p *process) GetInfo() (pkcs11.Info, error) {
	a, err := p.call(getInfo, &message{})
	if err != nil {
		return pkcs11.Info{}, err
	}
	return pkcs11.Info{CryptokiVersion: a.version(), Flags: a.number(), LibraryVersion: a.version(),
		ManufacturerID: string(a.text()), LibraryDescription: string(a.text())}, nil
}

func (p *process) GetSlotList(tokenPresent bool) ([]uint, error) {
	a, err := p.call(getSlotList, numbers(flag(tokenPresent)))
	if err != nil {
		return nil, err
	}
	var slots []uint
	for range a.numbers {
		slots = append(slots, a.number())
	}
	return slots, nil
}

func (p *process) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	a, err := p.call(getTokenInfo, numbers(slot))
	if err != nil {
		return pkcs11.TokenInfo{}, err
	}
	return pkcs11.TokenInfo{
		Label: string(a.text()), ManufacturerID: string(a.text()), Model: string(a.text()), SerialNumber: string(a.text()), UTCTime: string(a.text()),
		Flags: a.number(), MaxSessionCount: a.number(), SessionCount: a.number(), MaxRwSessionCount: a.number(), RwSessionCount: a.number(),
		MaxPinLen: a.number(), MinPinLen: a.number(), TotalPublicMemory: a.number(), FreePublicMemory: a.number(), TotalPrivateMemory: a.number(),
		FreePrivateMemory: a.number(), HardwareVersion: a.version(), FirmwareVersion: a.version(),
	}, nil
}

func (p *process) GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error) {
	a, err := p.call(getMechanismList, numbers(slot))
	if err != nil {
		return nil, err
	}
	var list []*pkcs11.Mechanism
	for range a.numbers {
		list = append(list, pkcs11.NewMechanism(a.number(), nil))
	}
	return list, nil
}

func (p *process) InitToken(slot uint, pin []byte, label string) error {
	return p.ask(initToken, numbers(slot).with(pin, []byte(label)))
}

func (p *process) InitPIN(session pkcs11.SessionHandle, pin []byte) error {
	return p.ask(initPIN, numbers(uint(session)).with(pin))
}

func (p *process) SetPIN(session pkcs11.SessionHandle, from, to []byte) error {
	return p.ask(setPIN, numbers(uint(session)).with(from, to))
}

func (p *process) Login(session pkcs11.SessionHandle, user uint, pin []byte) error {
	return p.ask(login, numbers(uint(session), user).with(pin))
}

func (p *process) Logout(session pkcs11.SessionHandle) error {
	return p.ask(logout, numbers(uint(session)))
}

func (p *process) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	a, err := p.call(openSession, numbers(slot, flags))
	if err != nil {
		return 0, err
	}
	return a.session(), nil
}

func (p *process) CloseSession(session pkcs11.SessionHandle) error {
	return p.ask(closeSession, numbers(uint(session)))
}

func (p *process) GetSessionInfo(session pkcs11.SessionHandle) (pkcs11.SessionInfo, error) {
	a, err := p.call(getSessionInfo, numbers(uint(session)))
	if err != nil {
		return pkcs11.SessionInfo{}, err
	}
	return pkcs11.SessionInfo{SlotID: a.number(), State: a.number(), Flags: a.number(), DeviceError: a.number()}, nil
}

func (p *process) FindObjectsInit(session pkcs11.SessionHandle, template []*pkcs11.Attribute) error {
	return p.ask(findObjectsInit, numbers(uint(session)).and(template))
}

func (p *process) FindObjects(session pkcs11.SessionHandle, limit int) ([]pkcs11.ObjectHandle, bool, error) {
	a, err := p.call(findObjects, numbers(uint(session), uint(max(limit, 0))))
	if err != nil {
		return nil, false, err
	}
	more := a.number() != 0
	var found []pkcs11.ObjectHandle
	for range a.numbers[1:] {
		found = append(found, a.object())
	}
	return found, more, nil
}

func (p *process) FindObjectsFinal(session pkcs11.SessionHandle) error {
	return p.ask(findObjectsFinal, numbers(uint(session)))
}

func (p *process) GetAttributeValue(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, wanted []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	a, err := p.call(getAttributeValue, numbers(uint(session), uint(o)).and(wanted))
	if err != nil {
		return nil, err
	}
	values := a.template()
	if len(values) != len(wanted) {
		return nil, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR) // which no library of ours answers
	}
	return values, nil
}

func (p *process) SetAttributeValue(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, values []*pkcs11.Attribute) error {
	return p.ask(setAttributeValue, numbers(uint(session), uint(o)).and(values))
}

func (p *process) CreateObject(session pkcs11.SessionHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	a, err := p.call(createObject, numbers(uint(session)).and(template))
	if err != nil {
		return 0, err
	}
	return a.object(), nil
}

func (p *process) CopyObject(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	a, err := p.call(copyObject, numbers(uint(session), uint(o)).and(template))
	if err != nil {
		return 0, err
	}
	return a.object(), nil
}

func (p *process) DestroyObject(session pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	return p.ask(destroyObject, numbers(uint(session), uint(o)))
}

// one is the one mechanism that a call takes.
func one(m []*pkcs11.Mechanism) *pkcs11.Mechanism {
	if len(m) != 1 {
		return new(pkcs11.Mechanism) // the library will not know it
	}
	return m[0]
}

func (p *process) GenerateKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	a, err := p.call(generateKey, numbers(uint(session), one(m).Mechanism).with(one(m).Parameter).and(template))
	if err != nil {
		return 0, err
	}
	return a.object(), nil
}

func (p *process) GenerateKeyPair(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error) {
	a, err := p.call(generateKeyPair, numbers(uint(session), one(m).Mechanism).with(one(m).Parameter).and(public, private))
	if err != nil {
		return 0, 0, err
	}
	return a.object(), a.object(), nil
}

func (p *process) WrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	a, err := p.call(wrapKey, numbers(uint(session), one(m).Mechanism, uint(wrapping), uint(key)).with(one(m).Parameter))
	if err != nil {
		return nil, err
	}
	return a.text(), nil
}

func (p *process) UnwrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	a, err := p.call(unwrapKey, numbers(uint(session), one(m).Mechanism, uint(unwrapping)).with(one(m).Parameter, wrapped).and(template))
	if err != nil {
		return 0, err
	}
	return a.object(), nil
}

func (p *process) SignOnce(session pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, message, contextPIN []byte) ([]byte, error) {
	a, err := p.call(signOnce, numbers(uint(session), m.Mechanism, uint(key), flag(contextPIN != nil)).with(m.Parameter, message, contextPIN))
	if err != nil {
		return nil, err
	}
	return a.text(), nil
}

func (p *process) EncryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, plaintext []byte) (usedIV, ciphertext []byte, err error) {
	a, err := p.call(encryptGCM, numbers(uint(session), uint(key)).with(iv, additional, plaintext))
	if err != nil {
		return nil, nil, err
	}
	return a.text(), a.text(), nil
}

func (p *process) DecryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, ciphertext []byte) ([]byte, error) {
	a, err := p.call(decryptGCM, numbers(uint(session), uint(key)).with(iv, additional, ciphertext))
	if err != nil {
		return nil, err
	}
	return a.text(), nil
}

// loadError is why the process could not load the library, in its words; the code, which has no name in the binding, is beneath.
type loadError struct {
	text string
	code error
}

func (e *loadError) Error() string { return e.text }
func (e *loadError) Unwrap() error { return e.code }
