package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

// crlFile is the name of the issuing CA's CRL in publish/.
const crlFile = "issuing.crl"

//go:embed configs/*.yaml
var configTexts embed.FS

// configFacts is what the templates of the configurations read.
type configFacts struct {
	*script
	Officers  []desk.Officer
	Officer   desk.Officer // whose zegel.yaml it is
	CAKey     string       // C2SP verifier key of the CA's journal
	Follower  string       // SHA-256 of the OCSP responder's feed certificate
	CRLFile   string
	AdminURL  map[string]string // by daemon
	FeedURL   string
	Qualified bool
}

// writeConfigs creates the OCSP responder's replica and writes the configurations of daemons and officers.
func (c *ceremony) writeConfigs(context.Context) error {
	key := c.caJournal.VerifierKey()
	if err := journal.CreateReplica(c.path("ocsp/journal"), key); err != nil {
		return err
	}
	facts := configFacts{
		script: &c.script, Officers: c.officers, CAKey: key, Follower: c.feedClient, CRLFile: crlFile, Qualified: *c.TSA.Qualified,
		AdminURL: map[string]string{
			"ca": httpsURL(c.Hosts.CA, c.Listen.CA.Admin), "ocsp": httpsURL(c.Hosts.OCSP, c.Listen.OCSP.Admin), "tsa": httpsURL(c.Hosts.TSA, c.Listen.TSA.Admin),
		},
		FeedURL: httpsURL(c.Hosts.CA, c.Listen.CA.Feed) + "/feed",
	}
	for _, name := range []string{"ca", "ocsp", "tsa"} {
		if err := c.writeConfig(name+".yaml", name, facts); err != nil {
			return err
		}
	}
	for i, o := range c.officers {
		facts.Officer = o
		if err := c.writeConfig("officers/"+o.Name+".yaml", "zegel", facts); err != nil {
			return err
		}
		if i == 0 {
			if err := c.writeConfig("zegel.yaml", "zegel", facts); err != nil {
				return err
			}
		}
	}
	return nil
}

// section is the settings of v that were given, as the lines of a YAML section; empty where none was.
func section(v any) (string, error) {
	var lines bytes.Buffer
	encoder := yaml.NewEncoder(&lines)
	encoder.SetIndent(2)
	if err := encoder.Encode(v); err != nil {
		return "", err
	}
	text := strings.TrimSpace(lines.String())
	if text == "{}" {
		return "", nil
	}
	return "  " + strings.ReplaceAll(text, "\n", "\n  "), nil
}

// httpsURL is how others call the listener at address, whose host name is host.
func httpsURL(host, address string) string {
	_, port, _ := net.SplitHostPort(address) // validateAddresses has seen that it is host:port
	return "https://" + net.JoinHostPort(host, port)
}

func (c *ceremony) writeConfig(file, name string, facts configFacts) error {
	t, err := template.New(name+".yaml").Funcs(template.FuncMap{"q": quote, "section": section, "path": func(name string) (string, error) { return quote(c.final(name)) }}).
		ParseFS(configTexts, "configs/"+name+".yaml", "configs/parts.yaml")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, facts); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return c.write(file, text.Bytes(), 0o600)
}

// quote writes text as a YAML double-quoted scalar, of which a JSON string is one.
func quote(text string) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}
