// Calls into a PKCS#11 library, by the function list that it gave when it was opened: one call of Go into C each. The types are those of PKCS#11
// v2.40 (pkcs11t.h) on systems where structures are not packed, that is all but Windows.
#ifndef ZEGEL_CROSSING_H
#define ZEGEL_CROSSING_H

typedef unsigned long ck_ulong; // CK_ULONG, CK_RV, handles

struct ck_version { unsigned char major, minor; };

struct ck_info {
	struct ck_version cryptoki;
	char manufacturer[32];
	ck_ulong flags;
	char description[32];
	struct ck_version library;
};

struct ck_token_info {
	char label[32], manufacturer[32], model[16], serial[16];
	ck_ulong flags, max_sessions, sessions, max_rw_sessions, rw_sessions, max_pin, min_pin, total_public, free_public, total_private, free_private;
	struct ck_version hardware, firmware;
	char utc_time[16];
};

struct ck_session_info { ck_ulong slot, state, flags, device_error; };

struct ck_attribute {
	ck_ulong type;
	void *value;
	ck_ulong length;
};

// A call of several functions: which of them answered last, counted from 1, what, and how long the result is.
struct crossing_answer {
	ck_ulong code;
	int function;
	ck_ulong length;
};



// crossing_open loads the library at path, for good, and returns its CK_FUNCTION_LIST; NULL, with a reason, if it is none.
void *crossing_open(const char *path, const char **reason);

ck_ulong crossing_initialize(void *functions);
ck_ulong crossing_finalize(void *functions);
ck_ulong crossing_get_info(void *functions, struct ck_info *info);
ck_ulong crossing_get_slot_list(void *functions, int present, ck_ulong *slots, ck_ulong *count);
ck_ulong crossing_get_token_info(void *functions, ck_ulong slot, struct ck_token_info *info);
ck_ulong crossing_get_mechanism_list(void *functions, ck_ulong slot, ck_ulong *mechanisms, ck_ulong *count);
ck_ulong crossing_init_token(void *functions, ck_ulong slot, void *pin, ck_ulong pin_length, void *label);
ck_ulong crossing_init_pin(void *functions, ck_ulong session, void *pin, ck_ulong pin_length);
ck_ulong crossing_set_pin(void *functions, ck_ulong session, void *from, ck_ulong from_length, void *to, ck_ulong to_length);
ck_ulong crossing_open_session(void *functions, ck_ulong slot, ck_ulong flags, ck_ulong *session);
ck_ulong crossing_close_session(void *functions, ck_ulong session);
ck_ulong crossing_get_session_info(void *functions, ck_ulong session, struct ck_session_info *info);
ck_ulong crossing_login(void *functions, ck_ulong session, ck_ulong user, void *pin, ck_ulong pin_length);
ck_ulong crossing_logout(void *functions, ck_ulong session);
ck_ulong crossing_find_objects_init(void *functions, ck_ulong session, struct ck_attribute *a, ck_ulong count);
ck_ulong crossing_find_objects(void *functions, ck_ulong session, ck_ulong *objects, ck_ulong limit, ck_ulong *count);
ck_ulong crossing_find_objects_final(void *functions, ck_ulong session);
// crossing_get_attribute_value asks for the lengths first; the values are then calloc's, for the caller to free, with room for so many octets each.
ck_ulong crossing_get_attribute_value(void *functions, ck_ulong session, ck_ulong object, struct ck_attribute *a, ck_ulong count, ck_ulong *room);
ck_ulong crossing_set_attribute_value(void *functions, ck_ulong session, ck_ulong object, struct ck_attribute *a, ck_ulong count);
ck_ulong crossing_create_object(void *functions, ck_ulong session, struct ck_attribute *a, ck_ulong count, ck_ulong *object);
ck_ulong crossing_copy_object(void *functions, ck_ulong session, ck_ulong object, struct ck_attribute *a, ck_ulong count, ck_ulong *copy);
ck_ulong crossing_destroy_object(void *functions, ck_ulong session, ck_ulong object);
ck_ulong crossing_generate_key(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	struct ck_attribute *a, ck_ulong count, ck_ulong *key);
ck_ulong crossing_generate_key_pair(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	struct ck_attribute *public_, ck_ulong public_count, struct ck_attribute *private_, ck_ulong private_count, ck_ulong *public_key, ck_ulong *private_key);
ck_ulong crossing_wrap_key(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	ck_ulong wrapping, ck_ulong key, void *wrapped, ck_ulong *length);
ck_ulong crossing_unwrap_key(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length,
	ck_ulong unwrapping, void *wrapped, ck_ulong length, struct ck_attribute *a, ck_ulong count, ck_ulong *key);

// crossing_sign is C_SignInit, C_Login as CKU_CONTEXT_SPECIFIC where there is a PIN, and one C_Sign into room octets at signature.
struct crossing_answer crossing_sign(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length, ck_ulong key,
	void *pin, ck_ulong pin_length, void *message, ck_ulong message_length, void *signature, ck_ulong room);

// crossing_sign_again ends the operation that CKR_BUFFER_TOO_SMALL has left active.
struct crossing_answer crossing_sign_again(void *functions, ck_ulong session, void *message, ck_ulong message_length, void *signature, ck_ulong room);

// crossing_gcm is C_EncryptInit and C_Encrypt, or C_DecryptInit and C_Decrypt, by CKM_AES_GCM with a tag of 128 bits. The token may write another IV,
// of no more octets.
struct crossing_answer crossing_gcm(void *functions, int encrypt, ck_ulong session, ck_ulong key, void *iv, ck_ulong *iv_length,
	void *additional, ck_ulong additional_length, void *in, ck_ulong in_length, void *out, ck_ulong room);

#endif
