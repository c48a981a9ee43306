// The calls of PKCS#11 that the binding makes badly for us: twice where once is enough, or with copies of a PIN that stay behind.
// The types are those of PKCS#11 v2.40 (pkcs11t.h) on systems where structures are not packed, that is all but Windows.
#ifndef ZEGEL_CROSSING_H
#define ZEGEL_CROSSING_H

typedef unsigned long ck_ulong; // CK_ULONG, CK_RV, handles

// A call of one crossing: which function answered last, and what.
struct crossing_answer {
	ck_ulong code;
	int function; // one of crossing_function
	ck_ulong length;
};

enum crossing_function { CROSSING_SIGN_INIT = 1, CROSSING_LOGIN, CROSSING_SIGN };

// crossing_functions returns the CK_FUNCTION_LIST of the library at path, which is loaded already; NULL if it is not.
void *crossing_functions(const char *path);

ck_ulong crossing_login(void *functions, ck_ulong session, ck_ulong user, void *pin, ck_ulong pin_length);
ck_ulong crossing_init_pin(void *functions, ck_ulong session, void *pin, ck_ulong pin_length);
ck_ulong crossing_init_token(void *functions, ck_ulong slot, void *pin, ck_ulong pin_length, void *label);

// crossing_sign makes one signature into room octets at signature. Without a PIN there is no context-specific login.
struct crossing_answer crossing_sign(void *functions, ck_ulong session, ck_ulong mechanism, void *parameter, ck_ulong parameter_length, ck_ulong key,
	void *pin, ck_ulong pin_length, void *message, ck_ulong message_length, void *signature, ck_ulong room);

// crossing_sign_again ends the operation that CKR_BUFFER_TOO_SMALL has left active.
struct crossing_answer crossing_sign_again(void *functions, ck_ulong session, void *message, ck_ulong message_length, void *signature, ck_ulong room);

#endif
