package hsm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/zegel-tsp/zegel/hsm"
)

// An error of a token names the token, the object, the function and its code, and what is to be done.
func TestErrorsSayWhatToDo(t *testing.T) {
	token, tokens, key := faultyKey(t, 4)
	for _, c := range []struct {
		function string
		code     pkcs11.Error
		do       func() error
		want     string
	}{
		{"C_GenerateKeyPair", pkcs11.CKR_DEVICE_MEMORY, func() error { _, err := tokens.Generate(token.URI("new"), hsm.P256); return err }, "the token is full"},
		{"C_GenerateKey", pkcs11.CKR_DEVICE_MEMORY, func() error { _, err := tokens.GenerateWrappingKey(token.URI("new")); return err }, "the token is full"},
		{"C_GenerateKeyPair", pkcs11.CKR_TOKEN_WRITE_PROTECTED, func() error { _, err := tokens.Generate(token.URI("new"), hsm.P256); return err }, "is write-protected"},
		{"C_FindObjectsInit", pkcs11.CKR_DEVICE_ERROR, func() error { _, err := tokens.Key(token.URI("new")); return err }, "see to the device"},
		{"C_SignInit", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, func() error { return trySign(t, key) }, "forbid this use"},
		{"C_SignInit", pkcs11.CKR_MECHANISM_INVALID, func() error { return trySign(t, key) }, "FIPS mode"},
		{"C_SignInit", pkcs11.CKR_TOKEN_NOT_PRESENT, func() error { return trySign(t, key) }, "put the token back"},
	} {
		token.Break(t, fmt.Sprintf("%s 1 0 answer 0x%x", c.function, uint(c.code)))
		err := c.do()
		for _, want := range []string{`token "zegel test"`, "object=", c.function, c.code.Error(), c.want} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nwant %q in it", c.function, err, want)
			}
		}
		if err != nil && strings.Count(err.Error(), c.want) > 1 {
			t.Errorf("%s says it twice: %v", c.function, err)
		}
	}
}
