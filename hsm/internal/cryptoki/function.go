package cryptoki

import "time"

// function is a method of Library, or a message of the protocol, as it crosses the socket: append new ones at the end of the list.
type function uint8

const (
	hello function = iota + 1 // from the helper process, when it is ready
	load
	initialize
	finalize
	getInfo
	getSlotList
	getTokenInfo
	getMechanismList
	initToken
	initPIN
	login
	logout
	openSession
	closeSession
	getSessionInfo
	findObjectsInit
	findObjects
	findObjectsFinal
	getAttributeValue
	setAttributeValue
	destroyObject
	generateKey
	generateKeyPair
	wrapKey
	unwrapKey
	signOnce
	encryptGCM
	decryptGCM
	createObject
	copyObject
	setPIN
	functions // how many
)

func (f function) String() string {
	names := [...]string{
		"hello", "dlopen", "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismList", "C_InitToken", "C_InitPIN",
		"C_Login", "C_Logout", "C_OpenSession", "C_CloseSession", "C_GetSessionInfo", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal",
		"C_GetAttributeValue", "C_SetAttributeValue", "C_DestroyObject", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey",
		"C_SignInit, C_Sign", "C_EncryptInit, C_Encrypt", "C_DecryptInit, C_Decrypt", "C_CreateObject", "C_CopyObject", "C_SetPIN",
	}
	if f < hello || f >= functions {
		return "no function"
	}
	return names[f-1]
}

// limit is how long a call may take, where quick is what most of them may.
func (f function) limit(quick time.Duration) time.Duration {
	switch f {
	case hello:
		return max(5*time.Second, quick) // a program that starts
	case load, initialize:
		return max(30*time.Second, quick) // clients of network HSMs connect to all of them
	case finalize, getSlotList, createObject, copyObject, destroyObject, setAttributeValue:
		return 5 * quick // what asks all devices, or writes to their storage
	case generateKey, wrapKey, unwrapKey:
		return max(time.Minute, quick)
	case initPIN, setPIN, initToken:
		return max(2*time.Minute, quick) // devices hash the PIN slowly, or erase their storage
	case generateKeyPair:
		return max(5*time.Minute, quick) // two primes of 2048 bits, on a smart card
	}
	return quick
}

// shape is how many values a message has. A negative number of numbers is the complement of the least: ^0 is none or more.
type shape struct{ numbers, texts, templates int }

func (s shape) fits(m *message) bool {
	numbers := len(m.numbers) == s.numbers || s.numbers < 0 && len(m.numbers) >= ^s.numbers
	return numbers && len(m.texts) == s.texts && len(m.templates) == s.templates
}

// shape is that of a request of the function.
func (f function) shape() shape {
	switch f {
	case getSlotList, getTokenInfo, getMechanismList, closeSession, getSessionInfo, logout, findObjectsFinal:
		return shape{numbers: 1}
	case openSession, findObjects, destroyObject:
		return shape{numbers: 2}
	case initToken, setPIN:
		return shape{numbers: 1, texts: 2}
	case initPIN:
		return shape{numbers: 1, texts: 1}
	case login:
		return shape{numbers: 2, texts: 1}
	case findObjectsInit, createObject:
		return shape{numbers: 1, templates: 1}
	case getAttributeValue, setAttributeValue, copyObject:
		return shape{numbers: 2, templates: 1}
	case generateKey:
		return shape{numbers: 2, texts: 1, templates: 1}
	case generateKeyPair:
		return shape{numbers: 2, texts: 1, templates: 2}
	case wrapKey:
		return shape{numbers: 4, texts: 1}
	case unwrapKey:
		return shape{numbers: 3, texts: 2, templates: 1}
	case signOnce:
		return shape{numbers: 4, texts: 3}
	case encryptGCM, decryptGCM:
		return shape{numbers: 2, texts: 3}
	}
	return shape{} // load, initialize, finalize, getInfo
}

// answer is the shape of a response of the function that has no code.
func (f function) answer() shape {
	switch f {
	case getInfo:
		return shape{numbers: 5, texts: 2}
	case getSlotList, getMechanismList:
		return shape{numbers: ^0}
	case getTokenInfo:
		return shape{numbers: 15, texts: 5}
	case openSession, generateKey, unwrapKey, createObject, copyObject:
		return shape{numbers: 1}
	case generateKeyPair:
		return shape{numbers: 2}
	case getSessionInfo:
		return shape{numbers: 4}
	case findObjects:
		return shape{numbers: ^1}
	case getAttributeValue:
		return shape{templates: 1}
	case wrapKey, signOnce, decryptGCM, hello:
		return shape{texts: 1}
	case encryptGCM:
		return shape{texts: 2}
	}
	return shape{}
}

// part names one of the C_ functions of a method that calls several, counted from 1; "" where there is none.
func (f function) part(i uint8) string {
	parts := map[function][]string{
		signOnce: {"C_SignInit", "C_Login", "C_Sign"}, encryptGCM: {"C_EncryptInit", "C_Encrypt"}, decryptGCM: {"C_DecryptInit", "C_Decrypt"},
	}[f]
	if i == 0 || int(i) > len(parts) {
		return ""
	}
	return parts[i-1]
}

// partOf is the opposite; 0 for none.
func (f function) partOf(name string) uint8 {
	for i := uint8(1); f.part(i) != ""; i++ {
		if f.part(i) == name {
			return i
		}
	}
	return 0
}
