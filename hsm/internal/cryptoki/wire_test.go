package cryptoki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

// scripted is a library that answers from nothing.
type scripted struct{ Library }

func (scripted) GetInfo() (pkcs11.Info, error) { return pkcs11.Info{ManufacturerID: "tiny"}, nil }
func (scripted) SignOnce(_ pkcs11.SessionHandle, _ *pkcs11.Mechanism, _ pkcs11.ObjectHandle, message, pin []byte) ([]byte, error) {
	if bytes.Equal(pin, []byte("wrong")) {
		return nil, &CallError{"C_Login", pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)}
	}
	return append([]byte("signed "), message...), nil
}
func (scripted) Login(_ pkcs11.SessionHandle, _ uint, pin []byte) error { return nil }

// Whatever comes from the socket, reading it does not fail but by an error, and what was read is written again as it was.
func FuzzMessage(f *testing.F) {
	for _, m := range []*message{
		{function: hello, texts: [][]byte{[]byte(helloText)}},
		{id: 1, function: signOnce, numbers: []uint64{1, 2, 3, 1}, texts: [][]byte{{}, []byte("message"), []byte("pin")}},
		{id: 1 << 63, function: generateKeyPair, numbers: []uint64{1, 2}, texts: [][]byte{{}},
			templates: [][]*pkcs11.Attribute{{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}, {pkcs11.NewAttribute(pkcs11.CKA_LABEL, "a")}}},
		{id: 7, function: getTokenInfo, code: pkcs11.CKR_TOKEN_NOT_PRESENT, failed: 2},
	} {
		frame, err := m.encode(make([]byte, 0, 4+m.size()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame[4:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decode(bytes.Clone(body))
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Fatalf("what was read is not to be sent: %v", err)
		}
		frame, err := m.encode(make([]byte, 0, 4+m.size()))
		if err != nil || int(binary.BigEndian.Uint32(frame)) != len(body) || !bytes.Equal(frame[4:], body) {
			t.Fatalf("read %x, wrote %x, %v", body, frame, err)
		}
	})
}

// A module's process takes any request: it answers or ends with an error.
func FuzzServe(f *testing.F) {
	load, _ := (&message{id: 1, function: load}).encode(make([]byte, 0, 100))
	sign, _ := (&message{id: 2, function: signOnce, numbers: []uint64{1, 2, 3, 1}, texts: [][]byte{{}, []byte("message"), []byte("pin")}}).encode(make([]byte, 0, 200))
	info, _ := (&message{id: 3, function: getInfo}).encode(make([]byte, 0, 100))
	f.Add(append(append(bytes.Clone(load), sign...), info...))
	f.Add(sign)
	f.Fuzz(func(t *testing.T, requests []byte) {
		here, there := net.Pipe()
		done := make(chan error)
		go func() {
			done <- serve(there, "", func(string) (Library, error) { return refusing{new(process)}, nil })
			there.Close()
		}()
		go io.Copy(io.Discard, here) //nolint:errcheck // until it is closed
		here.SetWriteDeadline(time.Now().Add(time.Second))
		here.Write(requests) //nolint:errcheck // it may be closed before the end
		here.Close()
		<-done
	})
}

// refusing is a library that refuses every call: one whose process is gone.
type refusing struct{ *process }

func (refusing) Initialize() error { return ErrGone }

// A daemon takes any answer of a module's process: the call ends with a value or an error.
func FuzzAnswer(f *testing.F) {
	for _, m := range []*message{
		{id: 1, function: getTokenInfo, numbers: make([]uint64, 15), texts: make([][]byte, 5)},
		{id: 1, function: getTokenInfo, code: pkcs11.CKR_SLOT_ID_INVALID}, {id: 2, function: getTokenInfo}, {id: 1, function: signOnce},
	} {
		frame, err := m.encode(make([]byte, 0, 4+m.size()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		p, there := paired()
		go func() {
			newReceiver(there).receive() //nolint:errcheck // the request
			there.Write(answer)          //nolint:errcheck // it may be closed before the end
			there.Close()
		}()
		p.GetTokenInfo(1) //nolint:errcheck // no panic, no hang
	})
}

// paired is a process that is none, and the other end of its socket.
func paired() (*process, net.Conn) {
	here, there := net.Pipe()
	c := &child{log: slog.New(slog.DiscardHandler), limit: time.Second, limits: function.limit, conn: here, to: &sender{to: here},
		kill: func() error { return nil }, ended: make(chan struct{}), down: make(chan struct{}), calls: make(map[uint64]chan *message)}
	close(c.ended)
	go c.read(newReceiver(here))
	p := &process{}
	p.child.Store(c)
	return p, there
}

// Every function's request and answer arrive as they were sent, from many callers at once.
func TestRoundTrip(t *testing.T) {
	p, there := paired()
	go serveQuietly(there)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			message := bytes.Repeat([]byte{byte(i)}, 1+i*100)
			got, err := p.SignOnce(1, pkcs11.NewMechanism(1, nil), 2, message, nil)
			if want := append([]byte("signed "), message...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		})
	}
	all.Wait()
	if info, err := p.GetInfo(); err != nil || !reflect.DeepEqual(info, pkcs11.Info{ManufacturerID: "tiny"}) {
		t.Errorf("%+v, %v", info, err)
	}
	var call *CallError
	if _, err := p.SignOnce(1, pkcs11.NewMechanism(1, nil), 2, nil, []byte("wrong")); !errors.As(err, &call) || call.Function != "C_Login" {
		t.Error(err)
	}
	there.Close()
}

// serveQuietly is serve for a library that is loaded, without a hello.
func serveQuietly(conn net.Conn) {
	s := &server{library: scripted{}, to: &sender{to: conn}, places: make(chan struct{}, 1)}
	from := newReceiver(conn)
	for {
		m, err := from.receive()
		if err != nil {
			return
		}
		go s.answer(m)
	}
}

// keeper keeps what is written, and the memory it was written from.
type keeper struct{ written, memory [][]byte }

func (k *keeper) Write(p []byte) (int, error) {
	k.written, k.memory = append(k.written, bytes.Clone(p)), append(k.memory, p)
	return len(p), nil
}

// No PIN stays in the buffers of the socket, on either side.
func TestWipes(t *testing.T) {
	k := new(keeper)
	s := &sender{to: k}
	for i := range 3 {
		if err := s.send(&message{id: uint64(i), function: login, numbers: []uint64{1, 1}, texts: [][]byte{[]byte("p1n4"), make([]byte, i*3000)}}); err != nil {
			t.Fatal(err)
		}
	}
	var sent []byte
	for i, memory := range k.memory {
		if bytes.Contains(memory[:cap(memory)], []byte("p1n4")) {
			t.Errorf("frame %d is still in the sender's memory", i)
		}
		sent = append(sent, k.written[i]...)
	}
	r := newReceiver(bytes.NewReader(sent))
	for i := range 3 {
		m, err := r.receive()
		if err != nil || string(m.texts[0]) != "p1n4" {
			t.Fatalf("%d: %+v, %v", i, m, err)
		}
		if buffered, _ := r.from.Peek(r.from.Buffered()); i == 2 && len(buffered) > 0 {
			t.Errorf("%d octets are left", len(buffered))
		}
		kept := bytes.Clone(m.texts[0])
		server := &server{library: scripted{}, to: &sender{to: io.Discard}}
		m.texts, m.numbers = m.texts[:1], []uint64{1, 1}
		pin := m.texts[0]
		server.answer(m)
		if string(kept) != "p1n4" || !bytes.Equal(pin, make([]byte, 4)) {
			t.Errorf("the PIN is still in the request: %q", pin)
		}
	}
	r.from.Reset(bytes.NewReader(nil))
	if buffer := spy(r); bytes.Contains(buffer, []byte("p1n4")) {
		t.Error("the PIN is still in the receiver's buffer")
	}
}

// spy reads the buffer that r reads into.
func spy(r *receiver) []byte {
	return reflect.ValueOf(r.from).Elem().FieldByName("buf").Bytes()
}
