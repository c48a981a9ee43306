package cryptoki

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/internal/locked"
)

const (
	// processName is the first argument of a helper process, and what ps shows; the second is the path of the library.
	processName = "zegel-pkcs11"
	// helloText says that a process speaks this protocol. It changes with the protocol.
	helloText = "zegel PKCS#11 module process 1"
	// socketFD is the descriptor of the socket in the helper process.
	socketFD = 3
	// maxServed bounds the calls inside a helper process.
	maxServed = 2048
)

// Serve is the life of the process of one library, if this process was started as one by Isolate; else served is false, and nothing has
// happened. It returns when the process that started it closes the socket, or is gone, with the status to end with. Call it first in
// main. Signals that end a daemon are ignored: it may need its keys until its own end.
func Serve(args []string) (status int, served bool) {
	if len(args) == 0 || args[0] != processName {
		return 0, false
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := serveSocket(args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", processName, err)
		return 1, true
	}
	return 0, true
}

func serveSocket(args []string) error {
	if len(args) != 2 {
		return errors.New("this name is for processes that Zegel starts")
	}
	if err := locked.Process(); err != nil {
		return err
	}
	f := os.NewFile(socketFD, "socket")
	if f == nil {
		return errors.New("no socket")
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("no socket: %w", err)
	}
	f.Close()
	defer conn.Close()
	return serve(conn, args[1], Open)
}

// server is one library and the socket it is called over.
type server struct {
	path    string
	open    func(path string) (Library, error)
	library Library // nil until load
	to      *sender
	places  chan struct{}
}

// serve answers until the other side closes conn.
func serve(conn io.ReadWriter, path string, open func(string) (Library, error)) error {
	s := &server{path: path, open: open, to: &sender{to: conn}, places: make(chan struct{}, maxServed)}
	if err := s.to.send(&message{function: hello, texts: [][]byte{[]byte(helloText)}}); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	from := newReceiver(conn)
	for {
		request, err := from.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil // calls that are inside end with the process
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if request.function == load {
			s.load(request)
			continue
		}
		if s.library == nil {
			return errors.New("a call before the library is loaded")
		}
		s.places <- struct{}{}
		go func() {
			s.answer(request)
			<-s.places
		}()
	}
}

func (s *server) load(request *message) {
	response := &message{id: request.id, function: load}
	if s.library == nil {
		l, err := s.open(s.path)
		if err != nil {
			response.code, response.texts = pkcs11.CKR_LIBRARY_LOAD_FAILED, [][]byte{[]byte(err.Error())}
		} else {
			s.library = l
		}
	}
	_ = s.to.send(response) // a broken socket is found by the next read
}

// answer calls the library. What the request brought, and what goes back, is wiped.
func (s *server) answer(request *message) {
	response, err := call(s.library, request)
	var part *CallError
	var code pkcs11.Error
	if err != nil {
		if !errors.As(err, &code) {
			code = pkcs11.CKR_ARGUMENTS_BAD // the request is malformed
		}
		response = &message{code: code}
		if errors.As(err, &part) {
			response.failed = request.function.partOf(part.Function)
		}
	}
	response.id, response.function = request.id, request.function
	if err := s.to.send(response); err != nil { // too large, or the socket is broken, which the next read finds
		_ = s.to.send(&message{id: request.id, function: request.function, code: pkcs11.CKR_GENERAL_ERROR})
	}
	for _, text := range append(request.texts, response.texts...) {
		clear(text)
	}
}

// arguments takes the values of a message one after the other: there are as many as its function's shape says.
type arguments struct {
	*message
	n, t, p int
}

func (a *arguments) number() uint {
	a.n++
	return uint(a.numbers[a.n-1])
}

func (a *arguments) session() pkcs11.SessionHandle { return pkcs11.SessionHandle(a.number()) }

func (a *arguments) object() pkcs11.ObjectHandle { return pkcs11.ObjectHandle(a.number()) }

func (a *arguments) text() []byte {
	a.t++
	return a.texts[a.t-1]
}

func (a *arguments) template() []*pkcs11.Attribute {
	a.p++
	return a.templates[a.p-1]
}

func (a *arguments) mechanism() *pkcs11.Mechanism { return pkcs11.NewMechanism(a.number(), a.text()) }

func (a *arguments) version() pkcs11.Version {
	return pkcs11.Version{Major: byte(a.number()), Minor: byte(a.number())}
}

// call does what request asks. Go takes the arguments of a call from left to right.
func call(l Library, request *message) (*message, error) {
	if !request.function.shape().fits(request) {
		return new(message), errMalformed
	}
	a := &arguments{message: request}
	switch request.function {
	case initialize, finalize, getInfo, getSlotList, getTokenInfo, getMechanismList, initToken:
		return callLibrary(l, a)
	case findObjectsInit, findObjects, findObjectsFinal, createObject, copyObject, getAttributeValue, setAttributeValue, destroyObject:
		return callObject(l, a)
	case generateKey, generateKeyPair, wrapKey, unwrapKey, signOnce, encryptGCM, decryptGCM:
		return callKey(l, a)
	}
	return callSession(l, a)
}

func callLibrary(l Library, a *arguments) (*message, error) {
	r := new(message)
	switch a.function {
	case initialize:
		return r, l.Initialize()
	case finalize:
		return r, l.Finalize()
	case getInfo:
		info, err := l.GetInfo()
		r.addInfo(info)
		return r, err
	case getSlotList:
		slots, err := l.GetSlotList(a.number() != 0)
		r.addNumbers(slots...)
		return r, err
	case getTokenInfo:
		info, err := l.GetTokenInfo(a.number())
		r.addTokenInfo(info)
		return r, err
	case getMechanismList:
		list, err := l.GetMechanismList(a.number())
		for _, m := range list {
			r.addNumbers(m.Mechanism)
		}
		return r, err
	case initToken:
		return r, l.InitToken(a.number(), a.text(), string(a.text()))
	}
	return r, errMalformed
}

func callSession(l Library, a *arguments) (*message, error) {
	r := new(message)
	switch a.function {
	case openSession:
		session, err := l.OpenSession(a.number(), a.number())
		r.addNumbers(uint(session))
		return r, err
	case closeSession:
		return r, l.CloseSession(a.session())
	case getSessionInfo:
		info, err := l.GetSessionInfo(a.session())
		r.addNumbers(info.SlotID, info.State, info.Flags, info.DeviceError)
		return r, err
	case initPIN:
		return r, l.InitPIN(a.session(), a.text())
	case setPIN:
		return r, l.SetPIN(a.session(), a.text(), a.text())
	case login:
		return r, l.Login(a.session(), a.number(), a.text())
	case logout:
		return r, l.Logout(a.session())
	}
	return r, errMalformed
}

func callObject(l Library, a *arguments) (*message, error) {
	r := new(message)
	switch a.function {
	case findObjectsInit:
		return r, l.FindObjectsInit(a.session(), a.template())
	case findObjects:
		found, more, err := l.FindObjects(a.session(), int(min(a.number(), maxNumbers/2)))
		r.addNumbers(flag(more))
		for _, o := range found {
			r.addNumbers(uint(o))
		}
		return r, err
	case findObjectsFinal:
		return r, l.FindObjectsFinal(a.session())
	case getAttributeValue:
		values, err := l.GetAttributeValue(a.session(), a.object(), a.template())
		r.templates = append(r.templates, values)
		return r, err
	case setAttributeValue:
		return r, l.SetAttributeValue(a.session(), a.object(), a.template())
	case createObject:
		o, err := l.CreateObject(a.session(), a.template())
		r.addNumbers(uint(o))
		return r, err
	case copyObject:
		o, err := l.CopyObject(a.session(), a.object(), a.template())
		r.addNumbers(uint(o))
		return r, err
	case destroyObject:
		return r, l.DestroyObject(a.session(), a.object())
	}
	return r, errMalformed
}

func callKey(l Library, a *arguments) (*message, error) {
	r := new(message)
	switch a.function {
	case generateKey:
		key, err := l.GenerateKey(a.session(), []*pkcs11.Mechanism{a.mechanism()}, a.template())
		r.addNumbers(uint(key))
		return r, err
	case generateKeyPair:
		public, private, err := l.GenerateKeyPair(a.session(), []*pkcs11.Mechanism{a.mechanism()}, a.template(), a.template())
		r.addNumbers(uint(public), uint(private))
		return r, err
	case wrapKey:
		wrapped, err := l.WrapKey(a.session(), []*pkcs11.Mechanism{a.mechanism()}, a.object(), a.object())
		r.texts = append(r.texts, wrapped)
		return r, err
	case unwrapKey:
		key, err := l.UnwrapKey(a.session(), []*pkcs11.Mechanism{a.mechanism()}, a.object(), a.text(), a.template())
		r.addNumbers(uint(key))
		return r, err
	case signOnce:
		session, m, key, message, pin := a.session(), a.mechanism(), a.object(), a.text(), a.text()
		if a.number() == 0 {
			pin = nil
		}
		signature, err := l.SignOnce(session, m, key, message, pin)
		r.texts = append(r.texts, signature)
		return r, err
	case encryptGCM:
		iv, ciphertext, err := l.EncryptGCM(a.session(), a.object(), a.text(), a.text(), a.text())
		r.texts = append(r.texts, iv, ciphertext)
		return r, err
	case decryptGCM:
		plaintext, err := l.DecryptGCM(a.session(), a.object(), a.text(), a.text(), a.text())
		r.texts = append(r.texts, plaintext)
		return r, err
	}
	return r, errMalformed
}

func flag(b bool) uint {
	if b {
		return 1
	}
	return 0
}

func (m *message) addNumbers(numbers ...uint) {
	for _, n := range numbers {
		m.numbers = append(m.numbers, uint64(n))
	}
}

func (m *message) addTexts(texts ...string) {
	for _, text := range texts {
		m.texts = append(m.texts, []byte(text))
	}
}

func (m *message) addVersion(v pkcs11.Version) { m.addNumbers(uint(v.Major), uint(v.Minor)) }

func (m *message) addInfo(i pkcs11.Info) {
	m.addVersion(i.CryptokiVersion)
	m.addNumbers(i.Flags)
	m.addVersion(i.LibraryVersion)
	m.addTexts(i.ManufacturerID, i.LibraryDescription)
}

func (m *message) addTokenInfo(i pkcs11.TokenInfo) {
	m.addTexts(i.Label, i.ManufacturerID, i.Model, i.SerialNumber, i.UTCTime)
	m.addNumbers(i.Flags, i.MaxSessionCount, i.SessionCount, i.MaxRwSessionCount, i.RwSessionCount, i.MaxPinLen, i.MinPinLen,
		i.TotalPublicMemory, i.FreePublicMemory, i.TotalPrivateMemory, i.FreePrivateMemory)
	m.addVersion(i.HardwareVersion)
	m.addVersion(i.FirmwareVersion)
}
