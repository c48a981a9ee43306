package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/zegel-tsp/zegel/hsm"
)

// Keys are made once, in a ceremony, and opened by the daemon that uses them.
func ExampleTokens_Key() {
	dir, err := os.MkdirTemp("", "zegel")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte("a long passphrase\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	uri := "softtoken:object=issuing?dir=" + dir + "&pin-source=file:" + pin

	tokens := hsm.New(hsm.Config{})
	defer tokens.Close()
	if _, err := tokens.Generate(uri, hsm.P256); err != nil {
		log.Fatal(err)
	}
	_, err = tokens.Generate(uri, hsm.P256)
	fmt.Println("overwritten:", !errors.Is(err, hsm.ErrExists))

	key, err := tokens.Key(uri)
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("to be signed"))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("verifies:", ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature))
	// Output:
	// overwritten: false
	// verifies: true
}

// A URI is written by filling in its parts; whatever needs encoding is encoded.
func ExampleURI() {
	fmt.Println(hsm.URI{
		Token:      "root; offline",
		Object:     "root 2026",
		ID:         []byte{1, 2},
		ModulePath: "/usr/lib/softhsm/libsofthsm2.so",
		PINSource:  "file:/etc/zegel/pin",
	})
	// Output: pkcs11:token=root%3B%20offline;object=root%202026;id=%01%02?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/zegel/pin
}

func ExampleParseURI() {
	_, err := hsm.ParseURI("pkcs11:token=issuing;object=ca?module-path=libsofthsm2.so")
	fmt.Println(err)
	// Output: read key URI "pkcs11:token=issuing;object=ca": query attribute "module-path": not an absolute path: begin it with '/'
}
