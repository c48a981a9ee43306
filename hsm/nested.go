package hsm

import (
	"encoding/binary"
	"math/bits"
	"runtime"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// ckaUnwrapTemplate is CKA_UNWRAP_TEMPLATE (PKCS#11 v2.40 §4.10): what the template of every key that is unwrapped must have. Its value is an array
// of CK_ATTRIBUTE, which the binding does not write.
const ckaUnwrapTemplate = 0x40000212

// wanted is a flag that an unwrapped key must have or must not have.
type wanted struct {
	kind uint
	is   bool
}

// unwrapTemplate asks that the template of what a key unwraps has every one of flags. The attribute points to memory of ours: it is good until
// release, and only for a library in this process.
func unwrapTemplate(flags ...wanted) (a *pkcs11.Attribute, release func()) {
	pinner := new(runtime.Pinner)
	var array []byte
	for _, f := range flags {
		value := new(byte)
		if f.is {
			*value = 1 // CK_TRUE
		}
		pinner.Pin(value)
		array = append(array, ulongBytes(f.kind)...)
		array = append(array, ulongBytes(uint(uintptr(unsafe.Pointer(value))))...)
		array = append(array, ulongBytes(1)...)
	}
	return pkcs11.NewAttribute(ckaUnwrapTemplate, array), pinner.Unpin
}

// ulongBytes is a CK_ULONG, or a pointer, as this machine writes it.
func ulongBytes(n uint) []byte {
	if bits.UintSize == 32 {
		return binary.NativeEndian.AppendUint32(nil, uint32(n))
	}
	return binary.NativeEndian.AppendUint64(nil, uint64(n))
}
