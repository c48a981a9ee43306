package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/policy"
)

// table aligns columns for people; rows are cells.
func (t *tool) table(rows [][]string) error {
	w := tabwriter.NewWriter(t.out, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func (t *tool) profileCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "profile",
		Example: "  zegel profile list\n  zegel profile show qcp-n",
		Short:   "The certificate profiles: what may be issued, and by which clause",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the built-in profiles", Args: cobra.NoArgs,
			Example: "  zegel profile list\n  zegel profile list --json",
			RunE:    func(*cobra.Command, []string) error { return t.profileList() },
		},
		&cobra.Command{
			Use: "show NAME", Short: "Show a profile: every field with its clause", Args: cobra.ExactArgs(1),
			Example:           "  zegel profile show qcp-n-qscd",
			ValidArgsFunction: completeProfiles,
			RunE:              func(_ *cobra.Command, args []string) error { return t.profileShow(args[0]) },
		},
	)
	return c
}

func completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return policy.Builtins(), cobra.ShellCompDirectiveNoFileComp
}

// profileFacts is the JSON of a profile.
type profileFacts struct {
	Name         string `json:"name"`
	Description  string `json:"description"`
	CA           bool   `json:"ca"`
	TakesSubject bool   `json:"takes_subject"`
	ValidityDays int    `json:"validity_days"`
	Text         string `json:"text,omitempty"`
}

func factsOf(p *policy.Profile) profileFacts {
	return profileFacts{Name: p.Name(), Description: p.Description(), CA: p.CA(), TakesSubject: p.TakesSubject(),
		ValidityDays: int(p.Validity() / (24 * time.Hour))}
}

func (t *tool) profileList() error {
	list := []profileFacts{}
	rows := [][]string{{"PROFILE", "ISSUED BY", "DAYS", "WHAT IT IS"}}
	for _, name := range policy.Builtins() {
		p, err := policy.Builtin(name)
		if err != nil {
			return err
		}
		f := factsOf(p)
		list = append(list, f)
		by := "ceremony"
		if f.TakesSubject {
			by = "officer"
		}
		rows = append(rows, []string{f.Name, by, fmt.Sprint(f.ValidityDays), f.Description})
	}
	if t.json {
		return t.printJSON(list)
	}
	return t.table(rows)
}

func (t *tool) profileShow(name string) error {
	p, err := policy.Builtin(name)
	if err != nil {
		return &inputError{err}
	}
	if t.json {
		f := factsOf(p)
		f.Text = string(p.Text())
		return t.printJSON(f)
	}
	_, err = t.out.Write(p.Text())
	return err
}
