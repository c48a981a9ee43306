package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/zegel-tsp/zegel/hsm"
)

// TestCeremonyScripts runs testdata/script/ceremony: from bare tokens to a provider that serves.
func TestCeremonyScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("..", "..", "testdata", "script", "ceremony"),
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "PATH="+binaries+":"+os.Getenv("PATH"), "TESTDATA="+testdata(t))
			names := []string{"CA_ADMIN", "CA_FEED", "CA_METRICS", "OCSP_HTTP", "OCSP_ADMIN", "OCSP_METRICS", "TSA_HTTP", "TSA_HTTPS", "TSA_ADMIN", "TSA_METRICS"}
			ports, err := freePorts(len(names))
			for i, address := range ports {
				e.Vars = append(e.Vars, names[i]+"="+address)
			}
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"report": tellReport},
	})
}

// tellReport is `report FILE`: what a key report says of PINs and keys, a line each.
func tellReport(ts *testscript.TestScript, _ bool, args []string) {
	var r struct {
		PINs []struct {
			Token         string
			Shares        []int
			Of, Threshold int
			Keepers       []string
		}
		Keys []struct {
			Key string
			hsm.KeyInfo
		}
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	for _, p := range r.PINs {
		fmt.Fprintf(ts.Stdout(), "%s: shares %v of %d, %d needed: %s\n", p.Token, p.Shares, p.Of, p.Threshold, strings.Join(p.Keepers, ", "))
	}
	for _, k := range r.Keys {
		fmt.Fprintf(ts.Stdout(), "%s: %s %s serial %s firmware %s id %s, %s %d bits, %s, sensitive %v, never extractable %v, generated on token %v, %s\n", k.Key, k.Manufacturer, k.Model,
			k.SerialNumber, k.Firmware, k.ID, k.Algorithm, k.Bits, k.Origin, k.Sensitive, k.NeverExtractable, k.GeneratedOnToken, k.Certification)
	}
}
