package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/strictyaml"
)

// FuzzConfig: whatever stands in ocsp.yaml, reading and judging it does not panic, and an error names the file.
func FuzzConfig(f *testing.F) {
	template, err := os.ReadFile(filepath.Join("..", "zegel-ceremony", "configs", "ocsp.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	// As the ceremony writes it, but for the values: what belongs there depends on the key.
	blocks := regexp.MustCompile(`(?m)^\{\{.*\n|\{\{-? (if|range|end|template)[^}]*\}\}`)
	text := blocks.ReplaceAllString(string(template), "")
	for _, value := range []string{"1", "12h", "unverified", `"127.0.0.1:8101"`, "softtoken:object=a?dir=/nowhere"} {
		f.Add(regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllLiteralString(text, value))
	}
	f.Add("")
	f.Add("assurance: test\nclock: unverified\nadmin: {listen: \":1\", client_ca: x}\n")
	path := filepath.Join(f.TempDir(), "ocsp.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		var c config
		err := strictyaml.Decode(path, []byte(text), &c)
		if err == nil {
			if err = check(&c); err != nil {
				err = daemon.Locate(path, []byte(text), err)
				var key *daemon.KeyError
				if !errors.As(err, &key) {
					t.Fatalf("%v names no key", err)
				}
			}
		}
		if err == nil {
			return
		}
		if !strings.HasPrefix(err.Error(), path+":") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q does not name the file and its fault on one line", err)
		}
	})
}
