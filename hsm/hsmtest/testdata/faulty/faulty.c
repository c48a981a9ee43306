// A PKCS#11 module in front of a module: it hands every call on and, where its control file says so, breaks it.
//
//	FAULTY_MODULE   path of the module behind it
//	FAULTY_CONTROL  path of the control file, read again at each call
//	FAULTY_LOG      path of a file that gets a line "FUNCTION ANSWER" for each call about sessions, logins and the library
//
// A line of the control file is "FUNCTION FROM COUNT ACTION [ARGUMENT]": the calls number FROM to FROM+COUNT-1 of FUNCTION (or of *, any
// function), counted from 1 since the file last changed; COUNT 0: for ever. Actions:
//
//	answer CKR   the call is not handed on; the answer is that number
//	after CKR    the call is handed on; the answer is that number all the same
//	delay MS     the call is handed on after that many milliseconds
//	wrong        C_Sign's signature has one bit changed
//	lose         before the call is handed on, all sessions of the process are closed, and the login is gone with them
//	hang         the call does not return
//	crash        the process aborts
//
// All arguments of PKCS#11 functions have the width of a register or less, so that one function of eight such arguments stands for all
// (LP64 machines).
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long W;
typedef W (*call_t)(W, W, W, W, W, W, W, W);

#define COUNT 68
#define OF_INITIALIZE 0
#define OF_GET_FUNCTION_LIST 3
#define OF_GET_SLOT_LIST 4
#define OF_CLOSE_ALL_SESSIONS 14
#define OF_SIGN 43

// In the order of CK_FUNCTION_LIST (PKCS#11 v2.40 §4.6).
static const char *names[COUNT] = {
	"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetMechanismList",
	"C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession", "C_CloseAllSessions", "C_GetSessionInfo",
	"C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout", "C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize",
	"C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt",
	"C_EncryptUpdate", "C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
	"C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal", "C_SignRecoverInit", "C_SignRecover",
	"C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal", "C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate",
	"C_DecryptDigestUpdate", "C_SignEncryptUpdate", "C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey",
	"C_DeriveKey", "C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
};

struct list {
	void *version;
	call_t f[COUNT];
};
static struct list own, *behind;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; // guards what follows
static char control[4096];
static W calls[COUNT];

// plan counts the call and finds the line that is for it.
static int plan(int i, char action[16], W *argument) {
	static char now[sizeof control];
	int found = 0;
	pthread_mutex_lock(&mu);
	memset(now, 0, sizeof now);
	FILE *in = getenv("FAULTY_CONTROL") ? fopen(getenv("FAULTY_CONTROL"), "r") : NULL;
	if (in) {
		fread(now, 1, sizeof now - 1, in);
		fclose(in);
	}
	if (strcmp(now, control) != 0) {
		strcpy(control, now);
		memset(calls, 0, sizeof calls);
	}
	W n = ++calls[i];
	for (char *rest = NULL, *line = strtok_r(now, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char name[32], text[32] = "0";
		W from, count;
		if (sscanf(line, "%31s %lu %lu %15s %31s", name, &from, &count, action, text) < 4) continue;
		if ((!strcmp(name, "*") || !strcmp(name, names[i])) && n >= from && (count == 0 || n < from + count)) {
			*argument = strtoul(text, NULL, 0);
			found = 1;
			break;
		}
	}
	pthread_mutex_unlock(&mu);
	return found;
}

// inside keeps lose from closing a session under a call, which SoftHSM does not survive.
static pthread_rwlock_t inside = PTHREAD_RWLOCK_INITIALIZER;

static void lose(void) {
	W slots[64], n = 64;
	pthread_rwlock_wrlock(&inside);
	if (behind->f[OF_GET_SLOT_LIST](1, (W)slots, (W)&n, 0, 0, 0, 0, 0)) n = 0;
	for (W i = 0; i < n; i++) behind->f[OF_CLOSE_ALL_SESSIONS](slots[i], 0, 0, 0, 0, 0, 0, 0);
	pthread_rwlock_unlock(&inside);
}

static W hand(int i, W a, W b, W c, W d, W e, W f, W g, W h) {
	char action[16] = "";
	W argument = 0;
	if (plan(i, action, &argument)) {
		if (!strcmp(action, "answer")) return argument;
		if (!strcmp(action, "delay")) usleep(argument * 1000);
		if (!strcmp(action, "lose")) lose();
		if (!strcmp(action, "crash")) abort();
		while (!strcmp(action, "hang")) pause();
	}
	pthread_rwlock_rdlock(&inside);
	W answer = behind->f[i](a, b, c, d, e, f, g, h);
	pthread_rwlock_unlock(&inside);
	if (!strcmp(action, "after")) return argument;
	if (i == OF_SIGN && !strcmp(action, "wrong") && answer == 0 && d) ((unsigned char *)d)[*(W *)e - 1] ^= 1;
	return answer;
}

static W call(int i, W a, W b, W c, W d, W e, W f, W g, W h) {
	W answer = hand(i, a, b, c, d, e, f, g, h);
	const char *name = names[i], *path = getenv("FAULTY_LOG");
	FILE *log;
	if (path && (strstr(name, "Session") || strstr(name, "Log") || strstr(name, "lize")) && (log = fopen(path, "a"))) {
		fprintf(log, "%s 0x%lx\n", name, answer);
		fclose(log);
	}
	return answer;
}

#define F(i) static W f##i(W a, W b, W c, W d, W e, W f, W g, W h) { return call(i, a, b, c, d, e, f, g, h); }
#define TEN(t) F(t##0) F(t##1) F(t##2) F(t##3) F(t##4) F(t##5) F(t##6) F(t##7) F(t##8) F(t##9)
F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) F(60) F(61) F(62) F(63) F(64) F(65) F(66) F(67)
#define P(t) f##t##0, f##t##1, f##t##2, f##t##3, f##t##4, f##t##5, f##t##6, f##t##7, f##t##8, f##t##9

W C_GetFunctionList(void **list) {
	if (!behind) {
		const char *path = getenv("FAULTY_MODULE");
		void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
		W (*get)(struct list **) = library ? (W (*)(struct list **))dlsym(library, "C_GetFunctionList") : NULL;
		if (!get || get(&behind)) return 0x30;
	}
	static const call_t all[COUNT] = {f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, P(1), P(2), P(3), P(4), P(5), f60, f61, f62, f63, f64, f65, f66, f67};
	own.version = behind->version;
	memcpy(own.f, all, sizeof all);
	own.f[OF_GET_FUNCTION_LIST] = behind->f[OF_GET_FUNCTION_LIST];
	*list = &own;
	return 0;
}
