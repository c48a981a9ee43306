#include "crossing.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

// Places in CK_FUNCTION_LIST (PKCS#11 v2.40 §4.6), counted from C_Initialize.
enum {
	INITIALIZE = 0, FINALIZE = 1, GET_INFO = 2, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, GET_MECHANISM_LIST = 7, INIT_TOKEN = 9, INIT_PIN = 10, SET_PIN = 11,
	OPEN_SESSION = 12, CLOSE_SESSION = 13, GET_SESSION_INFO = 15, LOGIN = 18, LOGOUT = 19, CREATE_OBJECT = 20, COPY_OBJECT = 21, DESTROY_OBJECT = 22,
	GET_ATTRIBUTE_VALUE = 24, SET_ATTRIBUTE_VALUE = 25, FIND_OBJECTS_INIT = 26, FIND_OBJECTS = 27, FIND_OBJECTS_FINAL = 28, ENCRYPT_INIT = 29,
	ENCRYPT = 30, DECRYPT_INIT = 33, DECRYPT = 34, SIGN_INIT = 42, SIGN = 43, GENERATE_KEY = 58, GENERATE_KEY_PAIR = 59, WRAP_KEY = 60,
	UNWRAP_KEY = 61, FUNCTIONS = 68
};

struct functions {
	struct ck_version version;
	void (*at[FUNCTIONS])(void);
};

struct mechanism { // CK_MECHANISM
	ck_ulong type;
	void *parameter;
	ck_ulong length;
};

struct initialize_args { // CK_C_INITIALIZE_ARGS
	void *create, *destroy, *lock, *unlock;
	ck_ulong flags;
	void *reserved;
};

struct gcm_params { // CK_GCM_PARAMS
	void *iv;
	ck_ulong iv_length, iv_bits;
	void *additional;
	ck_ulong additional_length, tag_bits;
};

typedef struct ck_attribute *attributes;

enum { OS_LOCKING_OK = 2, CONTEXT_SPECIFIC = 2, AES_GCM = 0x1087, FUNCTION_NOT_SUPPORTED = 0x54, HOST_MEMORY = 2 }; // CKF_, CKU_, CKM_, CKR_

void *crossing_open(const char *path, const char **reason) {
	void *library = dlopen(path, RTLD_LAZY);
	ck_ulong (*get)(void **) = library ? (ck_ulong (*)(void **))dlsym(library, "C_GetFunctionList") : NULL;
	void *functions = NULL;
	*reason = "C_GetFunctionList gives no functions";
	if (!get) {
		*reason = dlerror();
		return NULL;
	}
	// Once: some libraries (p11-kit) give another module, with a state of its own, each time.
	if (get(&functions) != 0) return NULL;
	return functions;
}

// CALL calls the function at a place by its types, if the library has it.
#define CALL(place, types, ...) \
	(((struct functions *)functions)->at[place] ? ((ck_ulong(*) types)((struct functions *)functions)->at[place])(__VA_ARGS__) : FUNCTION_NOT_SUPPORTED)

ck_ulong crossing_initialize(void *functions) {
	struct initialize_args args = {.flags = OS_LOCKING_OK};
	return CALL(INITIALIZE, (void *), &args);
}

ck_ulong crossing_finalize(void *functions) { return CALL(FINALIZE, (void *), NULL); }

ck_ulong crossing_get_info(void *functions, struct ck_info *info) { return CALL(GET_INFO, (struct ck_info *), info); }

ck_ulong crossing_get_slot_list(void *functions, int present, ck_ulong *slots, ck_ulong *count) {
	return CALL(GET_SLOT_LIST, (unsigned char, ck_ulong *, ck_ulong *), present != 0, slots, count);
}

ck_ulong crossing_get_token_info(void *functions, ck_ulong slot, struct ck_token_info *info) {
	return CALL(GET_TOKEN_INFO, (ck_ulong, struct ck_token_info *), slot, info);
}

ck_ulong crossing_get_mechanism_list(void *functions, ck_ulong slot, ck_ulong *mechanisms, ck_ulong *count) {
	return CALL(GET_MECHANISM_LIST, (ck_ulong, ck_ulong *, ck_ulong *), slot, mechanisms, count);
}

ck_ulong crossing_init_token(void *functions, ck_ulong slot, void *pin, ck_ulong pin_length, void *label) {
	return CALL(INIT_TOKEN, (ck_ulong, void *, ck_ulong, void *), slot, pin, pin_length, label);
}

ck_ulong crossing_init_pin(void *functions, ck_ulong session, void *pin, ck_ulong pin_length) {
	return CALL(INIT_PIN, (ck_ulong, void *, ck_ulong), session, pin, pin_length);
}

ck_ulong crossing_set_pin(void *functions, ck_ulong session, void *from, ck_ulong from_length, void *to, ck_ulong to_length) {
	return CALL(SET_PIN, (ck_ulong, void *, ck_ulong, void *, ck_ulong), session, from, from_length, to, to_length);
}

ck_ulong crossing_open_session(void *functions, ck_ulong slot, ck_ulong flags, ck_ulong *session) {
	return CALL(OPEN_SESSION, (ck_ulong, ck_ulong, void *, void *, ck_ulong *), slot, flags, NULL, NULL, session);
}

ck_ulong crossing_close_session(void *functions, ck_ulong session) { return CALL(CLOSE_SESSION, (ck_ulong), session); }

ck_ulong crossing_get_session_info(void *functions, ck_ulong session, struct ck_session_info *info) {
	return CALL(GET_SESSION_INFO, (ck_ulong, struct ck_session_info *), session, info);
}

ck_ulong crossing_login(void *functions, ck_ulong session, ck_ulong user, void *pin, ck_ulong pin_length) {
	return CALL(LOGIN, (ck_ulong, ck_ulong, void *, ck_ulong), session, user, pin, pin_length);
}

ck_ulong crossing_logout(void *functions, ck_ulong session) { return CALL(LOGOUT, (ck_ulong), session); }

ck_ulong crossing_find_objects_init(void *functions, ck_ulong session, struct ck_attribute *a, ck_ulong count) {
	return CALL(FIND_OBJECTS_INIT, (ck_ulong, attributes, ck_ulong), session, a, count);
}

ck_ulong crossing_find_objects(void *functions, ck_ulong session, ck_ulong *objects, ck_ulong limit, ck_ulong *count) {
	return CALL(FIND_OBJECTS, (ck_ulong, ck_ulong *, ck_ulong, ck_ulong *), session, objects, limit, count);
}

ck_ulong crossing_find_objects_final(void *functions, ck_ulong session) { return CALL(FIND_OBJECTS_FINAL, (ck_ulong), session); }

ck_ulong crossing_get_attribute_value(void *functions, ck_ulong session, ck_ulong object, struct ck_attribute *a, ck_ulong count, ck_ulong *room) {
	ck_ulong code = CALL(GET_ATTRIBUTE_VALUE, (ck_ulong, ck_ulong, attributes, ck_ulong), session, object, a, count);
	if (code != 0) return code;
	for (ck_ulong i = 0; i < count; i++) {
		a[i].value = NULL;
		if (a[i].length == (ck_ulong)-1) continue; // CK_UNAVAILABLE_INFORMATION
		if (a[i].length > 1 << 20 || !(a[i].value = calloc(1, a[i].length + 1))) return HOST_MEMORY;
		room[i] = a[i].length;
	}
	return CALL(GET_ATTRIBUTE_VALUE, (ck_ulong, ck_ulong, attributes, ck_ulong), session, object, a, count);
}

ck_ulong crossing_set_attribute_value(void *functions, ck_ulong session, ck_ulong object, struct ck_attribute *a, ck_ulong count) {
	return CALL(SET_ATTRIBUTE_VALUE, (ck_ulong, ck_ulong, attributes, ck_ulong), session, object, a, count);
}

ck_ulong crossing_create_object(void *functions, ck_ulong session, struct ck_attribute *a, ck_ulong count, ck_ulong *object) {
	return CALL(CREATE_OBJECT, (ck_ulong, attributes, ck_ulong, ck_ulong *), session, a, count, object);
}

ck_ulong crossing_copy_object(void *functions, ck_ulong session, ck_ulong object, struct ck_attribute *a, ck_ulong count, ck_ulong *copy) {
	return CALL(COPY_OBJECT, (ck_ulong, ck_ulong, attributes, ck_ulong, ck_ulong *), session, object, a, count, copy);
}

ck_ulong crossing_destroy_object(void *functions, ck_ulong session, ck_ulong object) {
	return CALL(DESTROY_OBJECT, (ck_ulong, ck_ulong), session, object);
}

ck_ulong crossing_generate_key(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	struct ck_attribute *a, ck_ulong count, ck_ulong *key) {
	struct mechanism m = {mechanism, parameter, parameter_length};
	return CALL(GENERATE_KEY, (ck_ulong, struct mechanism *, attributes, ck_ulong, ck_ulong *), session, &m, a, count, key);
}

ck_ulong crossing_generate_key_pair(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	struct ck_attribute *public_, ck_ulong public_count, struct ck_attribute *private_, ck_ulong private_count, ck_ulong *public_key, ck_ulong *private_key) {
	struct mechanism m = {mechanism, parameter, parameter_length};
	return CALL(GENERATE_KEY_PAIR, (ck_ulong, struct mechanism *, attributes, ck_ulong, attributes, ck_ulong, ck_ulong *, ck_ulong *),
		session, &m, public_, public_count, private_, private_count, public_key, private_key);
}

ck_ulong crossing_wrap_key(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	ck_ulong wrapping, ck_ulong key, void *wrapped, ck_ulong *length) {
	struct mechanism m = {mechanism, parameter, parameter_length};
	return CALL(WRAP_KEY, (ck_ulong, struct mechanism *, ck_ulong, ck_ulong, void *, ck_ulong *), session, &m, wrapping, key, wrapped, length);
}

ck_ulong crossing_unwrap_key(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	ck_ulong unwrapping, void *wrapped, ck_ulong length, struct ck_attribute *a, ck_ulong count, ck_ulong *key) {
	struct mechanism m = {mechanism, parameter, parameter_length};
	return CALL(UNWRAP_KEY, (ck_ulong, struct mechanism *, ck_ulong, void *, ck_ulong, attributes, ck_ulong, ck_ulong *),
		session, &m, unwrapping, wrapped, length, a, count, key);
}

struct crossing_answer crossing_sign(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length, ck_ulong key,
	void *pin, ck_ulong pin_length, void *message, ck_ulong message_length, void *signature, ck_ulong room) {
	struct crossing_answer a = {.function = 1};
	struct mechanism m = {mechanism, parameter, parameter_length};
	a.code = CALL(SIGN_INIT, (ck_ulong, struct mechanism *, ck_ulong), session, &m, key);
	if (a.code != 0) return a;
	if (pin) {
		a.function = 2;
		a.code = crossing_login(functions, session, CONTEXT_SPECIFIC, pin, pin_length);
		if (a.code != 0) return a;
	}
	return crossing_sign_again(functions, session, message, message_length, signature, room);
}

struct crossing_answer crossing_sign_again(void *functions, ck_ulong session, void *message, ck_ulong message_length, void *signature, ck_ulong room) {
	struct crossing_answer a = {.function = 3, .length = room};
	a.code = CALL(SIGN, (ck_ulong, void *, ck_ulong, void *, ck_ulong *), session, message, message_length, signature, &a.length);
	return a;
}

struct crossing_answer crossing_gcm(void *functions, int encrypt, ck_ulong session, ck_ulong key, void *iv, ck_ulong *iv_length,
	void *additional, ck_ulong additional_length, void *in, ck_ulong in_length, void *out, ck_ulong room) {
	struct crossing_answer a = {.function = 1, .length = room};
	struct gcm_params params = {iv, *iv_length, *iv_length * 8, additional, additional_length, 128};
	struct mechanism m = {AES_GCM, &params, sizeof params};
	a.code = CALL(encrypt ? ENCRYPT_INIT : DECRYPT_INIT, (ck_ulong, struct mechanism *, ck_ulong), session, &m, key);
	if (a.code != 0) return a;
	a.function = 2;
	a.code = CALL(encrypt ? ENCRYPT : DECRYPT, (ck_ulong, void *, ck_ulong, void *, ck_ulong *), session, in, in_length, out, &a.length);
	if (params.iv_length < *iv_length) *iv_length = params.iv_length;
	return a;
}
