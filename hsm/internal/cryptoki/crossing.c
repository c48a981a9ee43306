#include "crossing.h"

#include <dlfcn.h>
#include <stddef.h>

// Places in CK_FUNCTION_LIST (PKCS#11 v2.40 §4.6), counted from C_Initialize.
enum { INIT_TOKEN = 9, INIT_PIN = 10, LOGIN = 18, SIGN_INIT = 42, SIGN = 43, FUNCTIONS = 68 };

struct functions {
	struct { unsigned char major, minor; } version; // CK_VERSION
	void (*at[FUNCTIONS])(void);
};

struct mechanism { // CK_MECHANISM
	ck_ulong type;
	void *parameter;
	ck_ulong length;
};

typedef ck_ulong (*init_token_t)(ck_ulong, void *, ck_ulong, void *);
typedef ck_ulong (*init_pin_t)(ck_ulong, void *, ck_ulong);
typedef ck_ulong (*login_t)(ck_ulong, ck_ulong, void *, ck_ulong);
typedef ck_ulong (*sign_init_t)(ck_ulong, struct mechanism *, ck_ulong);
typedef ck_ulong (*sign_t)(ck_ulong, void *, ck_ulong, void *, ck_ulong *);

enum { CONTEXT_SPECIFIC = 2, FUNCTION_NOT_SUPPORTED = 0x54 }; // CKU_, CKR_

#define FUNCTION(type, place) ((type)((struct functions *)functions)->at[place])

void *crossing_functions(const char *path) {
	void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	ck_ulong (*get)(void **) = library ? (ck_ulong (*)(void **))dlsym(library, "C_GetFunctionList") : NULL;
	void *functions = NULL;
	if (!get || get(&functions) != 0) return NULL;
	return functions;
}

ck_ulong crossing_login(void *functions, ck_ulong session, ck_ulong user, void *pin, ck_ulong pin_length) {
	login_t login = FUNCTION(login_t, LOGIN);
	return login ? login(session, user, pin, pin_length) : FUNCTION_NOT_SUPPORTED;
}

ck_ulong crossing_init_pin(void *functions, ck_ulong session, void *pin, ck_ulong pin_length) {
	init_pin_t init_pin = FUNCTION(init_pin_t, INIT_PIN);
	return init_pin ? init_pin(session, pin, pin_length) : FUNCTION_NOT_SUPPORTED;
}

ck_ulong crossing_init_token(void *functions, ck_ulong slot, void *pin, ck_ulong pin_length, void *label) {
	init_token_t init_token = FUNCTION(init_token_t, INIT_TOKEN);
	return init_token ? init_token(slot, pin, pin_length, label) : FUNCTION_NOT_SUPPORTED;
}

struct crossing_answer crossing_sign(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length, ck_ulong key,
	void *pin, ck_ulong pin_length, void *message, ck_ulong message_length, void *signature, ck_ulong room) {
	struct crossing_answer a = {FUNCTION_NOT_SUPPORTED, CROSSING_SIGN_INIT, 0};
	struct mechanism m = {mechanism, parameter, parameter_length};
	sign_init_t sign_init = FUNCTION(sign_init_t, SIGN_INIT);
	if (sign_init) a.code = sign_init(session, &m, key);
	if (a.code != 0) return a;
	if (pin) {
		a.function = CROSSING_LOGIN;
		a.code = crossing_login(functions, session, CONTEXT_SPECIFIC, pin, pin_length);
		if (a.code != 0) return a;
	}
	return crossing_sign_again(functions, session, message, message_length, signature, room);
}

struct crossing_answer crossing_sign_again(void *functions, ck_ulong session, void *message, ck_ulong message_length, void *signature, ck_ulong room) {
	struct crossing_answer a = {FUNCTION_NOT_SUPPORTED, CROSSING_SIGN, room};
	sign_t sign = FUNCTION(sign_t, SIGN);
	if (sign) a.code = sign(session, message, message_length, signature, &a.length);
	return a;
}
