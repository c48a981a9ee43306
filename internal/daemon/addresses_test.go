package daemon

import (
	"strings"
	"testing"
)

// TestAddress has an address be judged by how it is written, without anybody being asked.
func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8080":                     "",
		":8080":                              "",
		"[::1]:8080":                         "",
		"[fe80::1%eth0]:8080":                "",
		"localhost:0":                        "",
		"no-such-host.invalid:8080":          "", // it is for the resolver to know
		"Host.Example.:65535":                "",
		"":                                   "no address",
		"8080":                               "host:port",
		"::1:8080":                           "host:port",
		"127.0.0.1:65536":                    "no port",
		"127.0.0.1:":                         "no port",
		"127.0.0.1:https":                    "no port",
		"127.0.0.1:-1":                       "no port",
		"127.0.0.1:+1":                       "no port",
		"127.0.0.256:80":                     "neither an IP address nor a host name",
		"a..b:80":                            "1 to 63 characters",
		strings.Repeat("a", 64) + ".test:80": "1 to 63 characters",
		strings.Repeat("a.", 127) + "a:80":   "neither",
		"-a.test:80":                         "hyphen",
		"a-.test:80":                         "hyphen",
		"a_b.test:80":                        "'_'",
		"http://host:80":                     "host:port",
	} {
		err := validateAddress("http.listen", address)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", address, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "http.listen")):
			t.Errorf("%q: got %v, want an error with %q", address, err, want)
		}
	}
}

// TestDistinctAddresses has no two listeners want the same port of the same address.
func TestDistinctAddresses(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:81", true},
		{"127.0.0.1:80", "127.0.0.2:80", true},
		{"127.0.0.1:80", "127.0.0.1:80", false},
		{"Localhost:80", "localhost:80", false},
		{"127.0.0.1:80", ":80", false},
		{"[::]:80", "127.0.0.1:80", false},
		{"0.0.0.0:80", "127.0.0.1:80", false},
		{"127.0.0.1:0", "127.0.0.1:0", true},
		{"127.0.0.1:80", "", true},
		{"[::1]:80", "[0:0:0:0:0:0:0:1]:80", false},
		{"ocsp.test:80", "OCSP.test:80", false},
	} {
		err := DistinctAddresses(map[string]string{"admin.listen": tt.a, "http.listen": tt.b})
		if (err == nil) != tt.want {
			t.Errorf("%q and %q: %v", tt.a, tt.b, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "http.listen: ") || !strings.Contains(err.Error(), "admin.listen too")) {
			t.Errorf("%q and %q: %v names not both", tt.a, tt.b, err)
		}
	}
}
