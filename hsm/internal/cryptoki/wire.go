package cryptoki

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
)

// A frame is its length without these four octets, and a message. Both directions have the same form; numbers are big-endian:
//
//	uint64 id, uint8 function, uint64 code, uint8 failed,
//	uint16 count { uint64 number }, uint8 count { uint32 length, octets }, uint8 count { uint16 count { uint64 type, uint32 length, octets } }
//
// What the places of numbers, texts and templates mean is for the function: process.go writes and serve.go reads requests, the other way round with
// responses. Handles are the module's own: whoever can write here has the module anyway.
const (
	maxFrame     = 1 << 20 // octets of a message; certificates and key templates have a few thousand
	maxNumbers   = 4096    // slots, mechanisms or objects of one answer
	maxTexts     = 8
	maxTemplates = 2
	maxTemplate  = 128 // attributes
)

// ckfArrayAttribute marks attributes whose values hold pointers (PKCS#11 v2.40 §4.2, CKF_ARRAY_ATTRIBUTE).
const ckfArrayAttribute = 0x40000000

// message is a request or the response to one. A response has the request's id and function.
type message struct {
	id       uint64 // of the call; 0: hello
	function function
	code     pkcs11.Error // the library's answer; in a request 0
	failed   uint8        // of a function with several parts: which of them code is from, counted from 1
	numbers  []uint64
	texts    [][]byte
	// templates are attribute lists.
	templates [][]*pkcs11.Attribute
}

func (m *message) size() int {
	n := 8 + 1 + 8 + 1 + 2 + 8*len(m.numbers) + 1 + 1
	for _, text := range m.texts {
		n += 4 + len(text)
	}
	for _, template := range m.templates {
		n += 2
		for _, a := range template {
			n += 8 + 4 + len(a.Value)
		}
	}
	return n
}

// check refuses what decode would.
func (m *message) check() error {
	if len(m.numbers) > maxNumbers || len(m.texts) > maxTexts || len(m.templates) > maxTemplates || m.size() > maxFrame {
		return fmt.Errorf("%v: a message of %d octets, %d numbers, %d texts, %d templates is too large", m.function, m.size(), len(m.numbers), len(m.texts), len(m.templates))
	}
	for _, template := range m.templates {
		if len(template) > maxTemplate {
			return fmt.Errorf("%v: a template of %d attributes is too large", m.function, len(template))
		}
		for _, a := range template {
			if a.Type&ckfArrayAttribute != 0 {
				return fmt.Errorf("%v: attribute 0x%x is a list of attributes, which cannot be given to a PKCS#11 module in a process of its own: use isolation none", m.function, a.Type)
			}
		}
	}
	return nil
}

// encode appends the frame to frames, which has room for it: a builder that grows would leave copies of a PIN behind.
func (m *message) encode(frames []byte) ([]byte, error) {
	b := cryptobyte.NewFixedBuilder(frames)
	b.AddUint32(uint32(m.size()))
	b.AddUint64(m.id)
	b.AddUint8(uint8(m.function))
	b.AddUint64(uint64(m.code))
	b.AddUint8(m.failed)
	b.AddUint16(uint16(len(m.numbers)))
	for _, n := range m.numbers {
		b.AddUint64(n)
	}
	b.AddUint8(uint8(len(m.texts)))
	for _, text := range m.texts {
		b.AddUint32(uint32(len(text)))
		b.AddBytes(text)
	}
	b.AddUint8(uint8(len(m.templates)))
	for _, template := range m.templates {
		b.AddUint16(uint16(len(template)))
		for _, a := range template {
			b.AddUint64(uint64(a.Type))
			b.AddUint32(uint32(len(a.Value)))
			b.AddBytes(a.Value)
		}
	}
	return b.Bytes()
}

var errMalformed = errors.New("malformed message")

// decode reads a frame without its length. Texts and values lie in body.
func decode(body []byte) (*message, error) {
	s := cryptobyte.String(body)
	m := new(message)
	var f, texts, templates uint8
	var code uint64
	var numbers uint16
	if !s.ReadUint64(&m.id) || !s.ReadUint8(&f) || !s.ReadUint64(&code) || !s.ReadUint8(&m.failed) || !s.ReadUint16(&numbers) ||
		function(f) < hello || function(f) >= functions || numbers > maxNumbers || len(s) < 8*int(numbers) {
		return nil, errMalformed
	}
	m.function, m.code = function(f), pkcs11.Error(code)
	if numbers > 0 {
		m.numbers = make([]uint64, numbers)
	}
	for i := range m.numbers {
		s.ReadUint64(&m.numbers[i])
	}
	if !s.ReadUint8(&texts) || texts > maxTexts {
		return nil, errMalformed
	}
	for range texts {
		text, ok := readOctets(&s)
		if !ok {
			return nil, errMalformed
		}
		m.texts = append(m.texts, text)
	}
	if !s.ReadUint8(&templates) || templates > maxTemplates {
		return nil, errMalformed
	}
	for range templates {
		template, ok := readTemplate(&s)
		if !ok {
			return nil, errMalformed
		}
		m.templates = append(m.templates, template)
	}
	if !s.Empty() {
		return nil, errMalformed
	}
	return m, nil
}

func readOctets(s *cryptobyte.String) ([]byte, bool) {
	var length uint32
	var octets []byte
	if !s.ReadUint32(&length) || length > maxFrame || !s.ReadBytes(&octets, int(length)) {
		return nil, false
	}
	return octets[:length:length], true
}

func readTemplate(s *cryptobyte.String) ([]*pkcs11.Attribute, bool) {
	var count uint16
	if !s.ReadUint16(&count) || count > maxTemplate {
		return nil, false
	}
	template := []*pkcs11.Attribute{}
	for range count {
		var kind uint64
		if !s.ReadUint64(&kind) || kind&ckfArrayAttribute != 0 {
			return nil, false
		}
		value, ok := readOctets(s)
		if !ok {
			return nil, false
		}
		template = append(template, &pkcs11.Attribute{Type: uint(kind), Value: value})
	}
	return template, true
}
