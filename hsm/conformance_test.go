package hsm_test

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/hsm/hsmtest"
)

var (
	anyURI   = flag.String("hsm.uri", "", "PKCS#11 URI of a token to hold to the suite, with module-path and pin-source, without object")
	anyEnv   = flag.String("hsm.env", "", "NAME=VALUE[,NAME=VALUE…] for the module of -hsm.uri")
	wrongPIN = flag.String("hsm.wrong-pin", "", "pin-source with a wrong PIN for -hsm.uri: costs the token one try; empty: not tried")
)

func TestSoftTokenConforms(t *testing.T) {
	hsmtest.Run(t, hsmtest.SoftToken(t).Suite(t))
}

// TestTokenConforms holds the token of -hsm.uri to the suite, and a fresh SoftHSM token, named the same way, where there is none.
func TestTokenConforms(t *testing.T) {
	uri, env, wrong := *anyURI, *anyEnv, *wrongPIN
	if uri == "" {
		token := hsmtest.SoftHSM(t)
		token.Suite(t) // writes the wrong PIN
		u := hsm.URI{Token: token.Label, ModulePath: token.Module, PINSource: token.PIN}
		uri, env, wrong = u.String(), "SOFTHSM2_CONF="+token.Config.ModuleEnv["SOFTHSM2_CONF"], token.PIN+".wrong"
	}
	suite, err := namedSuite(uri, env, wrong)
	if err != nil {
		t.Fatal(err)
	}
	hsmtest.Run(t, suite)
}

// TestOpenCryptokiConforms: a second implementation of PKCS#11, with another notion of almost everything, passes whole. Debian's has RSA only.
func TestOpenCryptokiConforms(t *testing.T) {
	token := hsmtest.OpenCryptoki(t)
	suite := token.Suite(t)
	suite.Twin = twin(token)
	hsmtest.Run(t, suite)
}

// TestNSSConforms: a third one, for the curves. It does not say that a key was made on it (CKA_LOCAL), so it is refused where keys are made, and
// passes with keys made past that.
func TestNSSConforms(t *testing.T) {
	token := hsmtest.NSS(t)
	suite := token.Suite(t)
	suite.Twin = twin(token.Token)
	suite.Make = suite.Twin
	hsmtest.Run(t, suite)
}

// TestRemoteConforms: a client that hands every call to a daemon, as those of network HSMs do, is as good.
func TestRemoteConforms(t *testing.T) {
	token := hsmtest.NewRemote(t)
	suite := token.Suite(t)
	suite.Twin = twin(token.Token)
	hsmtest.Run(t, suite)
}

func twin(token *hsmtest.Token) func(*testing.T, *hsm.Tokens, string, hsm.KeyAlgorithm) {
	return func(t *testing.T, tokens *hsm.Tokens, object string, algorithm hsm.KeyAlgorithm) {
		t.Helper()
		if err := hsm.Twin(tokens, token.URI(object), algorithm); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServiceKeys: the tokens that come with nothing to buy make every key that services have, and RSASSA-PSS with it, so that
// the suites above have signed with all of them.
func TestServiceKeys(t *testing.T) {
	for name, token := range map[string]*hsmtest.Token{"soft token": hsmtest.SoftToken(t), "SoftHSM": hsmtest.SoftHSM(t)} {
		tokens := hsm.New(token.Config)
		info, err := tokens.Token(token.URI("any"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []hsm.KeyAlgorithm{hsm.P256, hsm.P384, hsm.P521, hsm.RSA3072, hsm.RSA4096} {
			if !slices.Contains(info.Algorithms, want) {
				t.Errorf("%s makes no %s key", name, want)
			}
		}
		if !info.PSS {
			t.Errorf("%s does not sign by RSASSA-PSS", name)
		}
		if err := tokens.Close(); err != nil {
			t.Error(err)
		}
	}
}

func namedSuite(uri, env, wrong string) (hsmtest.Config, error) {
	base, err := hsm.ParseURI(uri)
	if err != nil {
		return hsmtest.Config{}, err
	}
	named := func(u hsm.URI) func(string) string {
		return func(object string) string {
			u.Object = object
			return u.String()
		}
	}
	suite := hsmtest.Config{URI: named(base)}
	if wrong != "" {
		u := base
		u.PINSource = wrong
		suite.WrongPIN = named(u)
	}
	if !base.Software {
		suite.Twin = func(t *testing.T, tokens *hsm.Tokens, object string, algorithm hsm.KeyAlgorithm) {
			t.Helper()
			if err := hsm.Twin(tokens, suite.URI(object), algorithm); err != nil {
				t.Fatal(err)
			}
		}
	}
	suite.Tokens.ModuleEnv = make(map[string]string)
	for _, pair := range strings.FieldsFunc(env, func(r rune) bool { return r == ',' }) {
		name, value, _ := strings.Cut(pair, "=")
		suite.Tokens.ModuleEnv[name] = value
	}
	return suite, nil
}
