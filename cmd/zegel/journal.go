package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/journal"
)

func (t *tool) journalCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "journal", Short: "Prove what the journal holds", Args: cobra.NoArgs,
		Example: "  zegel journal verify\n  zegel journal checkpoint",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(t.journalVerifyCommand(), t.journalCheckpointCommand())
	return c
}

func (t *tool) journalVerifyCommand() *cobra.Command {
	var w verifyWhat
	c := &cobra.Command{
		Use: "verify [--dir DIR] [--journal-key VKEY] [--checkpoint FILE]", Short: "Re-derive the whole journal and name every fault",
		Long: `verify re-derives everything a journal states: the encoding and time of every entry, the Merkle
tree, the states and their order, serial numbers, CRL numbers, the stored checkpoint.

Without --dir it asks the running CA to verify its own journal, sealed bodies included. With
--dir it reads a journal that lies still (its daemon stopped, or a copy); no key is needed,
and the sealed bodies stay sealed. Entries beyond the stored checkpoint are counted: a daemon
that stops signs all it has, after a crash the last seconds lie under no signature.

A journal names its own key, so whoever can replace the file can replace both. What was kept
elsewhere shows it: --journal-key is the key that the ceremony wrote into journal-keys.json, and
--checkpoint a file that zegel journal checkpoint once printed; the journal must be that key's
and hold all that the checkpoint covers.

Exit status 1 when there is a fault.`,
		Example: `  zegel journal verify
  zegel journal verify --dir /var/lib/zegel/ca/journal --json
  zegel journal verify --dir copy --journal-key zegel.example/ca+5d1e8a60+BE… --checkpoint kept.txt`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			report, err := t.journalReport(c.Context(), w)
			if err != nil {
				return during(err, "verify the journal")
			}
			return t.printReport(report)
		},
	}
	c.Flags().StringVar(&w.dir, "dir", "", "`DIR` of a journal that lies still")
	c.Flags().StringVar(&w.journalKey, "journal-key", "", "`VKEY` that the journal must be signed with")
	c.Flags().StringVar(&w.checkpoint, "checkpoint", "", "`FILE` with a checkpoint that the journal in DIR must extend")
	return c
}

// verifyWhat are the flags of journal verify.
type verifyWhat struct{ dir, journalKey, checkpoint string }

// kept reads what the journal is to be held against.
func (w verifyWhat) kept(ctx context.Context) (kept journal.Kept, err error) {
	if w.journalKey != "" {
		if err := journal.CheckVerifierKey(w.journalKey); err != nil {
			return kept, badInput("--journal-key: %w", err)
		}
		kept.JournalKey = w.journalKey
	}
	if w.checkpoint == "" {
		return kept, nil
	}
	if w.dir == "" {
		return kept, badInput("--checkpoint wants --dir: hold a checkpoint against a copy of the journal, or against the journal of a stopped daemon")
	}
	if kept.Checkpoint, err = readInput(ctx, w.checkpoint, desk.MaxBody); err != nil {
		return kept, badInput("read checkpoint: %w", err)
	}
	if !bytes.Contains(kept.Checkpoint, []byte("\n\n\u2014 ")) {
		return kept, badInput("read checkpoint: %s holds no signed note: it has to be what `zegel journal checkpoint` printed", w.checkpoint)
	}
	return kept, nil
}

// journalReport verifies the journal in a folder, or has the CA verify its own.
func (t *tool) journalReport(ctx context.Context, w verifyWhat) (report desk.Report, err error) {
	kept, err := w.kept(ctx)
	if err != nil {
		return report, err
	}
	if w.dir == "" {
		err = t.withCA(func(ca *desk.Client) (err error) {
			report, err = ca.VerifyJournal(ctx)
			return err
		})
		if err == nil && kept.JournalKey != "" && report.JournalKey != kept.JournalKey {
			report.OK = false
			report.Faults = append(report.Faults, desk.Fault{Entry: report.Entries,
				Fault: fmt.Sprintf("the journal is another's: its key is %s, not %s", report.JournalKey, kept.JournalKey)})
		}
		return report, err
	}
	j, err := journal.OpenReadOnly(w.dir)
	if err != nil {
		return report, err
	}
	defer j.Close()
	r, err := j.VerifyAgainst(ctx, kept)
	if err != nil {
		return report, err
	}
	report = desk.Report{OK: r.OK, Entries: r.Entries, Certificates: r.Certificates, Root: r.Root, Faults: []desk.Fault{},
		SignedEntries: r.SignedEntries, SealedBodies: r.SealedBodies, OpenKeyDuties: r.OpenKeyDuties, Origin: r.Origin, JournalKey: r.JournalKey}
	for _, f := range r.Faults {
		report.Faults = append(report.Faults, desk.Fault(f))
	}
	return report, nil
}

func (t *tool) printReport(r desk.Report) error {
	if t.json {
		if err := t.printJSON(r); err != nil {
			return err
		}
	} else {
		for _, f := range r.Faults {
			fmt.Fprintf(t.out, "entry %d: %s\n", f.Entry, f.Fault)
		}
		verdict := "no fault"
		if !r.OK {
			verdict = fmt.Sprintf("%d FAULTS", len(r.Faults))
		}
		fmt.Fprintf(t.out, "%s: %d entries, %d of them signed, %d certificates, root %s\n", verdict, r.Entries, r.SignedEntries, r.Certificates, r.Root)
		if r.OpenKeyDuties > 0 {
			fmt.Fprintf(t.out, "%d intended destructions of keys have no recorded outcome: look whether the keys are gone, and close them with zegel token record\n", r.OpenKeyDuties)
		}
		if r.SealedBodies > 0 {
			fmt.Fprintf(t.out, "%d sealed bodies were not opened: only the running daemon has the key\n", r.SealedBodies)
		}
		fmt.Fprintf(t.out, "journal key %s\n", r.JournalKey)
	}
	if !r.OK {
		return errVerdict
	}
	return nil
}

func (t *tool) journalCheckpointCommand() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint", Short: "Print a fresh signed checkpoint of the CA's journal", Args: cobra.NoArgs,
		Example: "  zegel journal checkpoint > kept.txt",
		Long:    "checkpoint prints a C2SP signed note over the journal's origin, size and root. Whoever keeps it\ncan later prove that nothing before it was changed or taken out.",
		RunE: func(c *cobra.Command, _ []string) error {
			return t.withCA(func(ca *desk.Client) error {
				text, err := ca.Checkpoint(c.Context())
				if err != nil {
					return during(err, "ask for a checkpoint")
				}
				if t.json {
					return t.printJSON(map[string]string{"checkpoint": string(text)})
				}
				_, err = t.out.Write(text)
				return err
			})
		},
	}
}
