//go:build judges

package main

import (
	"flag"
	"strings"
	"testing"
)

// Which demos TestJudges starts: `make judges` takes all.
var (
	judgeTokens = flag.String("tokens", "soft,softhsm", "tokens of the demos that are judged")
	judgeKeys   = flag.String("keys", "p256,p384,rsa3072,rsa4096", "keys of the demos that are judged")
)

// TestJudges lets what others wrote judge a running demo of every token and kind of key: the scripts of `make test`,
// which want OpenSSL and curl only, and those in testdata/script/judges. docs/judges.md says which judge supports what.
func TestJudges(t *testing.T) {
	for _, token := range strings.Split(*judgeTokens, ",") {
		for _, keys := range strings.Split(*judgeKeys, ",") {
			t.Run(token+"-"+keys, func(t *testing.T) {
				demo := startDemo(t, "--token", token, "--keys", keys)
				demo.commands = clients()
				demo.extra = append(demo.extra, standins(t, demo)...)
				runScripts(t, demo, "script", "script/judges")
			})
		}
	}
}
