// A PKCS#11 module that says what it was asked. Its signatures are text:
//
//	signs N parameter P login U pin ADDRESS LENGTH
//
// N counts the calls of C_Sign, P the octets of the mechanism's parameter, U is the user of the login since C_SignInit (or -). A message that
// begins with L makes the signature 600 octets long; one that begins with F answers CKR_FUNCTION_FAILED. One that begins with H does not return, one with C
// crashes the process, one with E writes to standard error.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long W;
struct mechanism {
	W type;
	void *parameter;
	W length;
};

static W signs;
static __thread W parameter, user = -1UL, pin_address, pin_length; // a call that does not return keeps its thread
static __thread int active;

static W nothing(void) { return 0; }

static W login(W session, W u, const char *pin, W length) {
	user = u, pin_address = (W)pin, pin_length = length;
	return length == 5 && !memcmp(pin, "wrong", 5) ? 0xa0 : 0;
}

static W init_token(W slot, const char *pin, W length, const char *label) {
	return slot == 7 && length == 2 && !memcmp(pin, "so", 2) && !memcmp(label, "label                           ", 32) ? 0 : 0x7;
}

static W init_pin(W session, const char *pin, W length) { return length == 4 && !memcmp(pin, "user", 4) ? 0 : 0xa1; }

static W sign_init(W session, struct mechanism *m, W key) {
	if (active) return 0x90; // CKR_OPERATION_ACTIVE
	if (m->type == 0x70) return m->type;
	active = 1, user = -1UL, parameter = m->parameter ? m->length : 0;
	return 0;
}

static W sign(W session, const char *message, W length, char *out, W *room) {
	char text[600] = "";
	signs++;
	while (length && *message == 'H') pause();
	if (length && *message == 'C') abort();
	if (length && *message == 'E') fputs("something is wrong\n", stderr);
	if (!active) return 0x91;
	int used = sprintf(text, "signs %lu parameter %lu login %ld pin %lu %lu", signs, parameter, (long)user, pin_address, pin_length);
	if (length && *message == 'L') used = 600;
	if (!out || *room < (W)used) {
		*room = used;
		return out ? 0x150 : 0; // the operation stays active
	}
	active = 0;
	if (length && *message == 'F') return 0x6;
	memcpy(out, text, used);
	*room = used;
	return 0;
}

struct attribute {
	W type;
	void *value;
	W length;
};

// An attribute has three octets; of object 2 it says so only until it is asked for them.
static W get_attribute_value(W session, W object, struct attribute *a, W count) {
	for (W i = 0; i < count; i++) {
		if (a[i].value) memcpy(a[i].value, "abc", 3);
		a[i].length = a[i].value && object == 2 ? 100000 : 3;
	}
	return 0;
}

static struct {
	unsigned char version[2];
	W (*f[68])();
} list;

W C_GetFunctionList(void **out) {
	static int lists;
	if (lists++) return 0x30; // others give a list of other functions, with a state of their own
	for (int i = 0; i < 68; i++) list.f[i] = nothing;
	list.f[9] = init_token, list.f[10] = init_pin, list.f[18] = login, list.f[24] = get_attribute_value, list.f[42] = sign_init, list.f[43] = sign;
	*out = &list;
	return 0;
}
