package journal_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/zegel-tsp/zegel/internal/journal"
	"github.com/zegel-tsp/zegel/internal/journal/journaltest"
)

// A CA records the intent before its key moves and the certificate before it leaves; an auditor verifies it all.
func Example() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		fmt.Println(err)
		return
	}
	asIs := func(key []byte) ([]byte, error) { return key, nil } // a token wraps and unwraps
	options := journal.Options{Wrap: asIs, Unwrap: asIs, CheckpointKey: key}
	dir = filepath.Join(dir, "ca")
	if err := journal.Create(dir, "zegel.example/ca", options); err != nil {
		fmt.Println(err)
		return
	}
	j, err := journal.Open(dir, options)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer j.Close()

	issuer := journal.NewIssuerID([]byte("subject"), []byte("public key"))
	intended, issued := journaltest.Intent(issuer, "\x01\x2a")
	for _, e := range []journal.Event{intended, issued, intended} {
		entry, err := j.Append(context.Background(), e)
		if errors.Is(err, journal.ErrConflict) {
			fmt.Println("refused: the serial is taken")
			continue
		}
		fmt.Println(entry.Index, journal.KindOf(entry.Event))
	}
	c, err := j.Certificate(issuer, "\x01\x2a")
	fmt.Println(c.Serial, c.Status, err)

	text, err := j.Checkpoint()
	if err != nil {
		fmt.Println(err)
		return
	}
	tree, err := journal.VerifyCheckpoint(text, j.VerifierKey())
	fmt.Println("signed over", tree.Size, "entries", err)
	report, err := j.Verify(context.Background())
	fmt.Println(report.OK, report.Entries, report.Certificates, err)
	// Output:
	// 0 CertificateIntended
	// 1 CertificateIssued
	// refused: the serial is taken
	// 012a good <nil>
	// signed over 2 entries <nil>
	// true 2 1 <nil>
}
