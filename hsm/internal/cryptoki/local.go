package cryptoki

/*
#cgo linux LDFLAGS: -ldl
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"strings"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// local is a library in this process.
type local struct {
	functions unsafe.Pointer // the library's CK_FUNCTION_LIST, which stays where it is
}

// Open loads the library at path, an absolute one, into this process, where it stays: some vendors' threads do not survive their
// code being unmapped.
func Open(path string) (Library, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var reason *C.char
	functions := C.crossing_open(name, &reason)
	if functions == nil {
		return nil, errors.New("not a PKCS#11 library for this machine, or a library it needs is missing (ldd " + path + "): " + C.GoString(reason))
	}
	return &local{functions}, nil
}

func code(c C.ck_ulong) error {
	if c == pkcs11.CKR_OK {
		return nil
	}
	return pkcs11.Error(c)
}

// memory is where b is, and its length. An empty slice has an address, too: NULL means something else to PKCS#11.
func memory(b []byte) (unsafe.Pointer, C.ck_ulong) {
	if len(b) == 0 {
		return unsafe.Pointer(new(byte)), 0
	}
	return unsafe.Pointer(&b[0]), C.ck_ulong(len(b))
}

// parameter is memory of a mechanism's parameter; none is NULL.
func parameter(m *pkcs11.Mechanism) (unsafe.Pointer, C.ck_ulong) {
	if len(m.Parameter) == 0 {
		return nil, 0
	}
	return memory(m.Parameter)
}

// template is an attribute list in C's memory: Go's must not hold pointers there.
type template struct {
	at         *C.struct_ck_attribute
	count      C.ck_ulong
	attributes []*pkcs11.Attribute // those it was made of
}

func newTemplate(attributes []*pkcs11.Attribute) template {
	if len(attributes) == 0 {
		return template{}
	}
	t := template{(*C.struct_ck_attribute)(C.calloc(C.size_t(len(attributes)), C.sizeof_struct_ck_attribute)), C.ck_ulong(len(attributes)), attributes}
	for i, a := range attributes {
		at := &t.list()[i]
		at._type = C.ck_ulong(a.Type)
		if len(a.Value) > 0 {
			at.value, at.length = C.CBytes(a.Value), C.ck_ulong(len(a.Value))
		}
	}
	return t
}

func (t template) list() []C.struct_ck_attribute { return unsafe.Slice(t.at, int(t.count)) }

// free wipes what newTemplate has copied, for it may be a key.
func (t template) free() {
	for i, a := range t.list() {
		if size := len(t.attributes[i].Value); size > 0 {
			clear(unsafe.Slice((*byte)(a.value), size))
		}
		C.free(a.value)
	}
	C.free(unsafe.Pointer(t.at))
}

func (l *local) Initialize() error { return code(C.crossing_initialize(l.functions)) }

func (l *local) Finalize() error { return code(C.crossing_finalize(l.functions)) }

func (l *local) Stuck() int { return 0 } // whoever calls, waits

func (l *local) Abort(error) {}

// field reads a text that is padded with blanks.
func field(c []C.char) string {
	return strings.TrimRight(string(unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), len(c))), " ")
}

func version(v C.struct_ck_version) pkcs11.Version {
	return pkcs11.Version{Major: byte(v.major), Minor: byte(v.minor)}
}

func (l *local) GetInfo() (pkcs11.Info, error) {
	var i C.struct_ck_info
	if err := code(C.crossing_get_info(l.functions, &i)); err != nil {
		return pkcs11.Info{}, err
	}
	return pkcs11.Info{CryptokiVersion: version(i.cryptoki), ManufacturerID: field(i.manufacturer[:]), Flags: uint(i.flags),
		LibraryDescription: field(i.description[:]), LibraryVersion: version(i.library)}, nil
}

// listed reads a list whose length the library tells first; it may grow in between.
func listed(ask func(list *C.ck_ulong, count *C.ck_ulong) C.ck_ulong) ([]uint, error) {
	for range 5 {
		var count C.ck_ulong
		if err := code(ask(nil, &count)); err != nil || count == 0 {
			return nil, err
		}
		if count > maxNumbers {
			return nil, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
		}
		list := make([]C.ck_ulong, count)
		switch err := code(ask(&list[0], &count)); {
		case errors.Is(err, pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL)):
			continue
		case err != nil:
			return nil, err
		}
		numbers := make([]uint, min(int(count), len(list)))
		for i := range numbers {
			numbers[i] = uint(list[i])
		}
		return numbers, nil
	}
	return nil, pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL)
}

func (l *local) GetSlotList(tokenPresent bool) ([]uint, error) {
	return listed(func(list, count *C.ck_ulong) C.ck_ulong {
		return C.crossing_get_slot_list(l.functions, C.int(flag(tokenPresent)), list, count)
	})
}

func (l *local) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	var i C.struct_ck_token_info
	if err := code(C.crossing_get_token_info(l.functions, C.ck_ulong(slot), &i)); err != nil {
		return pkcs11.TokenInfo{}, err
	}
	return pkcs11.TokenInfo{
		Label: field(i.label[:]), ManufacturerID: field(i.manufacturer[:]), Model: field(i.model[:]), SerialNumber: field(i.serial[:]),
		Flags: uint(i.flags), MaxSessionCount: uint(i.max_sessions), SessionCount: uint(i.sessions),
		MaxRwSessionCount: uint(i.max_rw_sessions), RwSessionCount: uint(i.rw_sessions), MaxPinLen: uint(i.max_pin), MinPinLen: uint(i.min_pin),
		TotalPublicMemory: uint(i.total_public), FreePublicMemory: uint(i.free_public),
		TotalPrivateMemory: uint(i.total_private), FreePrivateMemory: uint(i.free_private),
		HardwareVersion: version(i.hardware), FirmwareVersion: version(i.firmware), UTCTime: field(i.utc_time[:]),
	}, nil
}

func (l *local) GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error) {
	numbers, err := listed(func(list, count *C.ck_ulong) C.ck_ulong {
		return C.crossing_get_mechanism_list(l.functions, C.ck_ulong(slot), list, count)
	})
	var mechanisms []*pkcs11.Mechanism
	for _, n := range numbers {
		mechanisms = append(mechanisms, pkcs11.NewMechanism(n, nil))
	}
	return mechanisms, err
}

func (l *local) InitToken(slot uint, pin []byte, label string) error {
	const labelSize = 32 // CK_TOKEN_INFO.label, padded with blanks (PKCS#11 v2.40 §3.2)
	if len(label) > labelSize {
		return pkcs11.Error(pkcs11.CKR_ARGUMENTS_BAD)
	}
	padded := append([]byte(label), bytes.Repeat([]byte(" "), labelSize-len(label))...)
	at, length := memory(pin)
	return code(C.crossing_init_token(l.functions, C.ck_ulong(slot), at, length, unsafe.Pointer(&padded[0])))
}

func (l *local) InitPIN(session pkcs11.SessionHandle, pin []byte) error {
	at, length := memory(pin)
	return code(C.crossing_init_pin(l.functions, C.ck_ulong(session), at, length))
}

func (l *local) SetPIN(session pkcs11.SessionHandle, from, to []byte) error {
	fromAt, fromLength := memory(from)
	toAt, toLength := memory(to)
	return code(C.crossing_set_pin(l.functions, C.ck_ulong(session), fromAt, fromLength, toAt, toLength))
}

func (l *local) Login(session pkcs11.SessionHandle, user uint, pin []byte) error {
	at, length := memory(pin)
	return code(C.crossing_login(l.functions, C.ck_ulong(session), C.ck_ulong(user), at, length))
}

func (l *local) Logout(session pkcs11.SessionHandle) error {
	return code(C.crossing_logout(l.functions, C.ck_ulong(session)))
}

func (l *local) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	var session C.ck_ulong
	err := code(C.crossing_open_session(l.functions, C.ck_ulong(slot), C.ck_ulong(flags), &session))
	return pkcs11.SessionHandle(session), err
}

func (l *local) CloseSession(session pkcs11.SessionHandle) error {
	return code(C.crossing_close_session(l.functions, C.ck_ulong(session)))
}

func (l *local) GetSessionInfo(session pkcs11.SessionHandle) (pkcs11.SessionInfo, error) {
	var i C.struct_ck_session_info
	if err := code(C.crossing_get_session_info(l.functions, C.ck_ulong(session), &i)); err != nil {
		return pkcs11.SessionInfo{}, err
	}
	return pkcs11.SessionInfo{SlotID: uint(i.slot), State: uint(i.state), Flags: uint(i.flags), DeviceError: uint(i.device_error)}, nil
}

func (l *local) FindObjectsInit(session pkcs11.SessionHandle, attributes []*pkcs11.Attribute) error {
	t := newTemplate(attributes)
	defer t.free()
	return code(C.crossing_find_objects_init(l.functions, C.ck_ulong(session), t.at, t.count))
}

func (l *local) FindObjects(session pkcs11.SessionHandle, limit int) ([]pkcs11.ObjectHandle, bool, error) {
	limit = min(max(limit, 1), maxNumbers/2)
	found := make([]C.ck_ulong, limit)
	var count C.ck_ulong
	if err := code(C.crossing_find_objects(l.functions, C.ck_ulong(session), &found[0], C.ck_ulong(limit), &count)); err != nil {
		return nil, false, err
	}
	var objects []pkcs11.ObjectHandle
	for _, o := range found[:min(int(count), limit)] {
		objects = append(objects, pkcs11.ObjectHandle(o))
	}
	return objects, int(count) > limit, nil
}

func (l *local) FindObjectsFinal(session pkcs11.SessionHandle) error {
	return code(C.crossing_find_objects_final(l.functions, C.ck_ulong(session)))
}

func (l *local) GetAttributeValue(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, wanted []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	bare := make([]*pkcs11.Attribute, len(wanted)) // without values: lengths are asked for
	for i, a := range wanted {
		bare[i] = &pkcs11.Attribute{Type: a.Type}
	}
	t := newTemplate(bare)
	defer t.free()
	room := make([]C.ck_ulong, len(wanted)+1)
	if err := code(C.crossing_get_attribute_value(l.functions, C.ck_ulong(session), C.ck_ulong(o), t.at, t.count, &room[0])); err != nil {
		return nil, err
	}
	values := make([]*pkcs11.Attribute, len(wanted))
	for i, a := range t.list() {
		values[i] = &pkcs11.Attribute{Type: wanted[i].Type}
		if a.value == nil || a.length == ^C.ck_ulong(0) {
			continue
		}
		if a.length > room[i] { // it has written beyond the room it was given, or lies
			return nil, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
		}
		values[i].Value = C.GoBytes(a.value, C.int(a.length))
	}
	return values, nil
}

func (l *local) SetAttributeValue(session pkcs11.SessionHandle, o pkcs11.ObjectHandle, values []*pkcs11.Attribute) error {
	t := newTemplate(values)
	defer t.free()
	return code(C.crossing_set_attribute_value(l.functions, C.ck_ulong(session), C.ck_ulong(o), t.at, t.count))
}

func (l *local) CreateObject(session pkcs11.SessionHandle, attributes []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	t := newTemplate(attributes)
	defer t.free()
	var o C.ck_ulong
	err := code(C.crossing_create_object(l.functions, C.ck_ulong(session), t.at, t.count, &o))
	return pkcs11.ObjectHandle(o), err
}

func (l *local) CopyObject(session pkcs11.SessionHandle, original pkcs11.ObjectHandle, attributes []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	t := newTemplate(attributes)
	defer t.free()
	var o C.ck_ulong
	err := code(C.crossing_copy_object(l.functions, C.ck_ulong(session), C.ck_ulong(original), t.at, t.count, &o))
	return pkcs11.ObjectHandle(o), err
}

func (l *local) DestroyObject(session pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	return code(C.crossing_destroy_object(l.functions, C.ck_ulong(session), C.ck_ulong(o)))
}

func (l *local) GenerateKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, attributes []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	t := newTemplate(attributes)
	defer t.free()
	at, length := parameter(one(m))
	var key C.ck_ulong
	err := code(C.crossing_generate_key(l.functions, C.ck_ulong(session), C.ck_ulong(one(m).Mechanism), at, length, t.at, t.count, &key))
	return pkcs11.ObjectHandle(key), err
}

func (l *local) GenerateKeyPair(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error) {
	a, b := newTemplate(public), newTemplate(private)
	defer a.free()
	defer b.free()
	at, length := parameter(one(m))
	var publicKey, privateKey C.ck_ulong
	err := code(C.crossing_generate_key_pair(l.functions, C.ck_ulong(session), C.ck_ulong(one(m).Mechanism), at, length,
		a.at, a.count, b.at, b.count, &publicKey, &privateKey))
	return pkcs11.ObjectHandle(publicKey), pkcs11.ObjectHandle(privateKey), err
}

func (l *local) WrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	at, length := parameter(one(m))
	wrap := func(to unsafe.Pointer, room *C.ck_ulong) error {
		return code(C.crossing_wrap_key(l.functions, C.ck_ulong(session), C.ck_ulong(one(m).Mechanism), at, length, C.ck_ulong(wrapping), C.ck_ulong(key), to, room))
	}
	var room C.ck_ulong
	if err := wrap(nil, &room); err != nil {
		return nil, err
	}
	if room == 0 || room > maxFrame/2 {
		return nil, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
	}
	wrapped := make([]byte, room)
	if err := wrap(unsafe.Pointer(&wrapped[0]), &room); err != nil {
		return nil, err
	}
	return wrapped[:min(int(room), len(wrapped))], nil
}

func (l *local) UnwrapKey(session pkcs11.SessionHandle, m []*pkcs11.Mechanism, unwrapping pkcs11.ObjectHandle, wrapped []byte, attributes []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	t := newTemplate(attributes)
	defer t.free()
	at, length := parameter(one(m))
	from, octets := memory(wrapped)
	var key C.ck_ulong
	err := code(C.crossing_unwrap_key(l.functions, C.ck_ulong(session), C.ck_ulong(one(m).Mechanism), at, length, C.ck_ulong(unwrapping),
		from, octets, t.at, t.count, &key))
	return pkcs11.ObjectHandle(key), err
}

const (
	// signatureRoom is as long as a signature of RSA-4096, in octets: none that we ask for is longer.
	signatureRoom = 512
	// signatureLimit bounds what a library may want instead.
	signatureLimit = 1 << 16
	// gcmRoom is for the tag, and for libraries that want room in whole blocks.
	gcmRoom = 64
)

func (l *local) SignOnce(session pkcs11.SessionHandle, m *pkcs11.Mechanism, key pkcs11.ObjectHandle, message, contextPIN []byte) ([]byte, error) {
	at, length := parameter(m)
	var pin unsafe.Pointer
	var pinLength C.ck_ulong
	if contextPIN != nil {
		pin, pinLength = memory(contextPIN)
	}
	text, textLength := memory(message)
	signature := make([]byte, signatureRoom)
	answer := C.crossing_sign(l.functions, C.ck_ulong(session), C.ck_ulong(m.Mechanism), at, length, C.ck_ulong(key),
		pin, pinLength, text, textLength, unsafe.Pointer(&signature[0]), signatureRoom)
	if answer.code == pkcs11.CKR_BUFFER_TOO_SMALL && signOnce.part(uint8(answer.function)) == "C_Sign" && answer.length > signatureRoom && answer.length <= signatureLimit {
		signature = make([]byte, answer.length)
		answer = C.crossing_sign_again(l.functions, C.ck_ulong(session), text, textLength, unsafe.Pointer(&signature[0]), C.ck_ulong(len(signature)))
	}
	return result(signOnce, answer, signature)
}

// result is what a call of several functions brought.
func result(f function, answer C.struct_crossing_answer, room []byte) ([]byte, error) {
	if err := code(answer.code); err != nil {
		return nil, &CallError{f.part(uint8(answer.function)), err}
	}
	if answer.length > C.ck_ulong(len(room)) { // it has written beyond the room it was given, or lies
		return nil, &CallError{f.part(uint8(answer.function)), pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)}
	}
	return room[:answer.length:answer.length], nil
}

func (l *local) gcm(f function, session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, in []byte) (usedIV, out []byte, err error) {
	usedIV, out = bytes.Clone(iv), make([]byte, len(in)+gcmRoom)
	ivAt, ivLength := memory(usedIV)
	additionalAt, additionalLength := memory(additional)
	inAt, inLength := memory(in)
	answer := C.crossing_gcm(l.functions, C.int(flag(f == encryptGCM)), C.ck_ulong(session), C.ck_ulong(key), ivAt, &ivLength,
		additionalAt, additionalLength, inAt, inLength, unsafe.Pointer(&out[0]), C.ck_ulong(len(out)))
	out, err = result(f, answer, out)
	return usedIV[:ivLength], out, err
}

func (l *local) EncryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, plaintext []byte) (usedIV, ciphertext []byte, err error) {
	return l.gcm(encryptGCM, session, key, iv, additional, plaintext)
}

func (l *local) DecryptGCM(session pkcs11.SessionHandle, key pkcs11.ObjectHandle, iv, additional, ciphertext []byte) ([]byte, error) {
	_, plaintext, err := l.gcm(decryptGCM, session, key, iv, additional, ciphertext)
	return plaintext, err
}
