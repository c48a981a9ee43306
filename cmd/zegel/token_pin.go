package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/activation"
	"github.com/zegel-tsp/zegel/internal/daemon"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/shares"
)

// tokenActivate are the flags of token activate.
type tokenActivate struct {
	shares     []string
	pin, trust bool
}

func (t *tool) tokenActivateCommand() *cobra.Command {
	var a tokenActivate
	c := &cobra.Command{
		Use: "activate {ca|ocsp|tsa} [TOKEN]", Short: "Enter PINs or shares, so that a daemon's tokens sign",
		Long: `activate asks a daemon which of its tokens wait for a PIN, asks you for it, and hands it over by
mutual TLS. Of a PIN that was split you enter your share; the other officers run this command too. It
also has a daemon try a PIN again that a token refused: one try, with what the file says now.

Nothing that you enter is shown. Where standard input is no terminal, each PIN or share is one line of it.`,
		Example: `  zegel token activate ca
  zegel token activate ca --share /media/anna/share-1.txt
  zegel token activate tsa tsu-2026 --pin`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error { return t.tokenActivate(c.Context(), args, a) },
	}
	c.Flags().StringArrayVar(&a.shares, "share", nil, "`FILE` with your share; several only where several PINs were split")
	c.Flags().BoolVar(&a.pin, "pin", false, "enter TOKEN's PIN in place of what its source says, after it was changed")
	c.Flags().BoolVar(&a.trust, "trust", false, "use TOKEN again though it gave a wrong signature: it was examined")
	return c
}

func (t *tool) tokenDeactivateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "deactivate {ca|ocsp|tsa}", Short: "Close a daemon's tokens: nothing is signed until they are activated",
		Long: `deactivate has a daemon log out of its tokens and wipe their PINs. It goes on running and answers
that it cannot sign; activate opens the tokens again.`,
		Example: "  zegel token deactivate ca",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.adminOf(args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			state, err := client.Deactivate(c.Context())
			if err != nil {
				return err
			}
			return t.printActivation(args[0], state)
		},
	}
}

// adminOf is the admin listener of a daemon by its short name.
func (t *tool) adminOf(name string) (*desk.Client, error) {
	c, err := t.loadConfig()
	if err != nil {
		return nil, err
	}
	url, known := map[string]string{"ca": c.CA.URL, "ocsp": c.OCSP.Admin, "tsa": c.TSA.Admin}[name]
	if !known {
		return nil, badInput("%q is no daemon: say ca, ocsp or tsa", name)
	}
	return t.desk(c, url)
}

func (t *tool) tokenActivate(ctx context.Context, args []string, a tokenActivate) error {
	name, token := args[0], ""
	if len(args) > 1 {
		token = args[1]
	}
	if (a.pin || a.trust) && token == "" || a.pin && len(a.shares) > 0 {
		return badInput("activate tokens: --pin and --trust are of one TOKEN, which has to be named; --pin and --share exclude each other")
	}
	client, err := t.adminOf(name)
	if err != nil {
		return err
	}
	defer client.Close()
	state, err := client.Activation(ctx)
	if err != nil {
		return err
	}
	requests, err := t.activationRequests(state, token, a)
	if err != nil {
		return err
	}
	for _, request := range requests {
		r, err := request()
		if err == nil {
			r.Trust = a.trust
			state, err = client.Activate(ctx, r)
		}
		clear(r.PIN)
		clear(r.Share)
		if err != nil {
			return err
		}
	}
	return t.printActivation(name, state)
}

// activationRequests is what has to be entered; each asks for it when it is called.
func (t *tool) activationRequests(state desk.Activation, token string, a tokenActivate) ([]func() (desk.ActivationRequest, error), error) {
	var list []func() (desk.ActivationRequest, error)
	for _, path := range a.shares {
		list = append(list, func() (desk.ActivationRequest, error) {
			text, err := daemon.ReadPrivate(path)
			if err != nil {
				return desk.ActivationRequest{}, &inputError{fmt.Errorf("read share: %w", err)}
			}
			if len(text) > shares.MaxText {
				return desk.ActivationRequest{}, badInput("read share: %s is longer than %d bytes", path, shares.MaxText)
			}
			return desk.ActivationRequest{Token: token, Share: text}, nil
		})
	}
	terminal := t.terminal()
	for _, s := range state.Tokens {
		if len(a.shares) > 0 || token != "" && token != s.Token && token != s.Label || s.State != desk.TokenWaiting && !a.pin {
			continue
		}
		if a.pin && s.Threshold > 0 {
			return nil, badInput("activate tokens: the PIN of token %s is entered in shares, by several officers: leave --pin out", s.Label)
		}
		list = append(list, func() (desk.ActivationRequest, error) {
			if s.Threshold == 0 {
				pin, err := terminal.Secret("PIN of token " + s.Label)
				return desk.ActivationRequest{Token: s.Token, PIN: pin}, err
			}
			text, err := terminal.Secret(fmt.Sprintf("your share of the PIN of token %s (%d of %d are there)", s.Label, len(s.Entered), s.Threshold))
			return desk.ActivationRequest{Token: s.Token, Share: text}, err
		})
	}
	if len(list) == 0 {
		if a.pin {
			return nil, badInput("activate tokens: the daemon uses no token that is called %q", token)
		}
		list = append(list, func() (desk.ActivationRequest, error) { return desk.ActivationRequest{Token: token}, nil })
	}
	return list, nil
}

// terminal is where this program asks for secrets.
func (t *tool) terminal() activation.Terminal { return activation.Terminal{In: os.Stdin, Out: t.err} }

func (t *tool) printActivation(name string, state desk.Activation) error {
	if t.json {
		return t.printJSON(state)
	}
	rows := [][]string{{"TOKEN", "STATE", "SHARES", "PIN SOURCE"}}
	for _, s := range state.Tokens {
		entered := ""
		if s.Threshold > 0 && s.State == desk.TokenWaiting {
			entered = fmt.Sprintf("%d of %d", len(s.Entered), s.Threshold)
		}
		rows = append(rows, []string{s.Label, s.State, entered, s.Source})
	}
	if err := t.table(rows); err != nil {
		return err
	}
	for _, s := range state.Tokens {
		if s.Detail != "" {
			t.note("%s", s.Detail)
		}
	}
	if state.Active {
		t.note("zegel-%s is active", name)
	}
	return nil
}

// enterPINs asks at the terminal for the PINs of uris that people enter.
func (t *tool) enterPINs(tokens *hsm.Tokens, uris []string) error {
	_, err := t.terminal().Enter(tokens, uris...)
	return err
}

// tokenSplit are the flags of token split.
type tokenSplit struct {
	source, label, out string
	shares, threshold  int
	fresh              bool
}

func (t *tool) tokenSplitCommand() *cobra.Command {
	var s tokenSplit
	c := &cobra.Command{
		Use: "split [URI]", Short: "Split a token's PIN into shares of several people",
		Long: `split writes a PIN as shares, one file for each person, and a file that the daemon keeps. So many of the
shares as --threshold says open the PIN; fewer tell nothing (EN 319 411-1 GEN-6.5.4-01).

With a URI it logs in to the token first, so that what is split is its PIN. With --new it gives the token a random PIN,
which nobody has seen. Without a URI it splits what --pin-source says, untried.`,
		Example: `  zegel token split 'pkcs11:token=issuing?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=prompt' --new --shares 3 --threshold 2 --out /var/lib/zegel/shares
  zegel token split --pin-source file:/etc/zegel/pin --label issuing --shares 3 --threshold 2 --out shares`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, uris []string) error { return t.tokenSplit(uris, s) },
	}
	c.Flags().StringVar(&s.source, "pin-source", "", "`SOURCE` of the PIN where no URI is given: file:/PATH, credential:NAME, env:NAME or prompt")
	c.Flags().StringVar(&s.label, "label", "", "what the PIN is of, for `PEOPLE` (default the token's label)")
	c.Flags().StringVar(&s.out, "out", "", "`DIR` for the files: missing or empty")
	c.Flags().IntVar(&s.shares, "shares", 3, "`NUMBER` of people, 16 at most")
	c.Flags().IntVar(&s.threshold, "threshold", 2, "`NUMBER` of them who open the PIN, 2 at least")
	c.Flags().BoolVar(&s.fresh, "new", false, "give the token of URI a random PIN, and split that")
	return c
}

// splitFacts is the JSON of token split. It holds nothing secret.
type splitFacts struct {
	ID        string   `json:"id"`         // of the split, on every share
	Label     string   `json:"label"`      //
	Shares    int      `json:"shares"`     //
	Threshold int      `json:"threshold"`  //
	PINSource string   `json:"pin_source"` // for the URIs of the token's keys
	Files     []string `json:"files"`      // the shares, one for each person
}

func (t *tool) tokenSplit(uris []string, s tokenSplit) error {
	parsed, err := checkTokenURIs(uris)
	if err != nil {
		return err
	}
	switch {
	case s.out == "":
		return badInput("split PIN: name a folder with --out DIR")
	case len(uris) == 0 && s.fresh, len(uris) == 0 && s.source == "", len(uris) == 1 && s.source != "":
		return badInput("split PIN: give the URI of a token, with its pin-source, or --pin-source SOURCE; --new takes a URI")
	case len(uris) == 1 && parsed[0].Software && s.fresh:
		return badInput("split PIN: a soft token has no PIN of its own that could be changed: leave --new out")
	case s.label == "" && (len(uris) == 0 || parsed[0].Token == ""):
		return badInput("split PIN: say with --label what the PIN is of")
	}
	if s.label == "" {
		s.label = parsed[0].Token
	}
	if s.out, err = absolute(s.out); err != nil {
		return err
	}
	if entries, err := os.ReadDir(s.out); err == nil && len(entries) > 0 {
		return badInput("split PIN: %s is not empty: nothing is overwritten", s.out)
	}
	return withTokens(hsm.Config{}, func(tokens *hsm.Tokens) error {
		pin, err := t.pinToSplit(tokens, uris, parsed, s)
		if err != nil {
			return err
		}
		defer clear(pin)
		facts, err := writeShares(pin, s)
		if err != nil {
			return err
		}
		if s.fresh {
			if err := tokens.ChangePIN(uris[0], pin); err != nil {
				return fmt.Errorf("%w: see whether the token takes its old PIN: if so, the shares in %s are of no use: remove them", err, s.out)
			}
		}
		return t.printSplit(facts)
	})
}

// pinToSplit reads the PIN, tries it where there is a token, and with --new makes another one.
func (t *tool) pinToSplit(tokens *hsm.Tokens, uris []string, parsed []hsm.URI, s tokenSplit) ([]byte, error) {
	if s.fresh { // what the old PIN is does not matter, as long as the token takes it
		if err := t.enterPINs(tokens, uris); err != nil {
			return nil, err
		}
		return freshPIN(), tokens.Activate(uris[0])
	}
	source := s.source
	if len(uris) == 1 {
		source = parsed[0].PINSource
	}
	var pin []byte
	var err error
	if source == "prompt" {
		pin, err = t.terminal().Secret("the PIN")
	} else {
		pin, err = hsm.ReadPIN(source)
	}
	if err != nil {
		return nil, err
	}
	if err := hsm.CheckPIN(pin); err != nil {
		clear(pin)
		return nil, &inputError{fmt.Errorf("read PIN: %w", err)}
	}
	if len(uris) == 0 {
		return pin, nil
	}
	err = tokens.Enter(uris[0], bytes.Clone(pin))
	if err == nil {
		err = tokens.Activate(uris[0])
	}
	if err != nil {
		clear(pin)
		return nil, err
	}
	return pin, nil
}

// freshPIN makes a PIN of 24 letters and digits, of 120 random bits.
func freshPIN() []byte {
	const letters = "0123456789abcdefghjkmnpqrstvwxyz"
	pin := make([]byte, 24)
	rand.Read(pin) // never fails: it ends the process instead
	for i, b := range pin {
		pin[i] = letters[b%32]
	}
	return pin
}

// writeShares makes the files: those of the shares, and shares.json, which completes them.
func writeShares(pin []byte, s tokenSplit) (splitFacts, error) {
	set, list, err := shares.Split(pin, s.label, s.shares, s.threshold)
	if err != nil {
		return splitFacts{}, &inputError{err}
	}
	if err := durable.MkdirAll(s.out, 0o700); err != nil {
		return splitFacts{}, err
	}
	file := filepath.Join(s.out, "shares.json")
	facts := splitFacts{ID: set.ID, Label: set.Label, Shares: set.Shares, Threshold: set.Threshold, PINSource: "shares:" + file, Files: []string{}}
	for _, share := range list {
		path := filepath.Join(s.out, fmt.Sprintf("share-%d.txt", share.Number))
		text := share.Text(set)
		err := durable.CreateFile(path, text, 0o600)
		clear(text)
		share.Wipe()
		if err != nil {
			return splitFacts{}, fmt.Errorf("write share: %w", err)
		}
		facts.Files = append(facts.Files, path)
	}
	text, err := set.Marshal()
	if err != nil {
		return splitFacts{}, err
	}
	if err := durable.CreateFile(file, text, 0o600); err != nil {
		return splitFacts{}, fmt.Errorf("write the file of shares: %w", err)
	}
	return facts, nil
}

func (t *tool) printSplit(facts splitFacts) error {
	if t.json {
		return t.printJSON(facts)
	}
	if _, err := fmt.Fprintln(t.out, strings.Join(facts.Files, "\n")); err != nil {
		return err
	}
	t.note("%d of %d shares open the PIN of %s. Give each file to one person and remove it here.\nIn the URIs of its keys write pin-source=%s, in place of what is there.",
		facts.Threshold, facts.Shares, facts.Label, facts.PINSource)
	return nil
}
