package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/internal/strictyaml"
)

// FuzzConfig: whatever stands in zegel.yaml, reading it does not panic, and an error names the file.
func FuzzConfig(f *testing.F) {
	template, err := os.ReadFile(filepath.Join("..", "zegel-ceremony", "configs", "zegel.yaml"))
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
	f.Add("ca: {url: x, ca: y}\nroot: [a]\n")
	path := filepath.Join(f.TempDir(), "zegel.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		var c config
		err := strictyaml.Decode(path, []byte(text), &c)
		if err == nil {
			return
		}
		if !strings.HasPrefix(err.Error(), path+":") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q does not name the file and its fault on one line", err)
		}
	})
}

// FuzzReadRecord: what is read as a record holds duties, no more entries than those, and writes as what reads the same.
func FuzzReadRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"duties":[{"act":"destroying","details":{"label":"ca"}},{"act":"destroyed","done_at":"2026-11-23T12:00:00Z","details":{}}],"entries":[7]}`))
	f.Add([]byte(`{"version":1,"duties":[]} x`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := readRecord(text)
		if err != nil {
			return
		}
		if len(r.Duties) == 0 || len(r.Entries) > len(r.Duties) {
			t.Fatalf("%+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
