package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/zegel-tsp/zegel/hsm"
	"github.com/zegel-tsp/zegel/internal/desk"
	"github.com/zegel-tsp/zegel/internal/durable"
	"github.com/zegel-tsp/zegel/internal/failpoint"
)

// recordVersion is the version of record files.
const recordVersion = 1

// maxRecord bounds a record file, in octets.
const maxRecord = 256 << 10

// recordFile holds key duties that were done where the CA could not be reached, until zegel token record enters them.
type recordFile struct {
	Version int            `json:"version"`
	Duties  []desk.KeyDuty `json:"duties"`
	Entries []uint64       `json:"entries,omitempty"` // of the journal, one for each duty that was entered
}

// recorder keeps what is done to keys: in the CA's journal, or in a file that is entered later.
type recorder struct {
	t      *tool
	client *desk.Client // nil: a file
	path   string
	file   recordFile
	made   []uint64 // entries
}

// withRecorder makes sure that duties can be recorded before anything is done to a key.
func (t *tool) withRecorder(ctx context.Context, path string, do func(*recorder) error) error {
	if path != "" {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return badInput("record key duty: %s exists: name another file with --record", path)
		}
		if err := writableFolder(path); err != nil {
			return badInput("record key duty: %w: name another file with --record", err)
		}
		return do(&recorder{t: t, path: path, file: recordFile{Version: recordVersion}})
	}
	if !t.configured() {
		return badInput("record key duty: there is no configuration that tells where the CA's journal is: name one with --config, or keep the record in a file " +
			"with --record FILE and enter it later with zegel token record FILE")
	}
	return t.withCA(func(ca *desk.Client) error {
		if err := ca.MayRecordKeyDuty(ctx); err != nil {
			return fmt.Errorf("nothing was done: the CA, whose journal is to have the record, refuses or cannot be reached (--record FILE keeps it in a file, to be entered later): %w", err)
		}
		return do(&recorder{t: t, client: ca})
	})
}

// configured reports whether there is a configuration at all.
func (t *tool) configured() bool {
	if t.configPath != "" || os.Getenv("ZEGEL_CONFIG") != "" {
		return true
	}
	_, err := os.Stat(defaultConfig)
	return !errors.Is(err, fs.ErrNotExist)
}

// keep records one duty. When it returns nil the journal, or the file, holds it.
func (r *recorder) keep(ctx context.Context, duty desk.KeyDuty) error {
	if r.client != nil {
		reply, err := r.client.RecordKeyDuty(ctx, duty)
		if err != nil {
			return notKept(err, duty)
		}
		r.made = append(r.made, reply.Entry)
		return nil
	}
	now := time.Now().UTC().Truncate(time.Second)
	duty.DoneAt = &now
	r.file.Duties = append(r.file.Duties, duty)
	return r.write()
}

// notKept says what is to be done about a duty that the CA did not say it has recorded.
func notKept(err error, duty desk.KeyDuty) error {
	refused, answered := errors.AsType[*desk.Error](err)
	if answered && refused.Status < 500 || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w\n  it is in no journal: once the CA takes it, enter it: %s", err, recordCommand(duty))
	}
	return fmt.Errorf("%w\n  whether it is in the CA's journal is not known: look at its last entries, and where it is not, enter it: %s", err, recordCommand(duty))
}

func (r *recorder) write() error {
	text, err := json.MarshalIndent(r.file, "", "  ")
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	first := len(r.file.Duties) == 1 && len(r.file.Entries) == 0
	return writeDutyFile(dutyFile{path: r.path, text: append(text, '\n'), perm: 0o600, replace: !first})
}

// intent is the entry of the first duty recorded, which an outcome closes; nil in a file, where zegel token record finds it.
func (r *recorder) intent() *uint64 {
	if len(r.made) == 0 {
		return nil
	}
	return &r.made[0]
}

// recordCommand is what an officer types to enter a duty.
func recordCommand(d desk.KeyDuty) string {
	words := []string{"zegel token record --act", d.Act}
	if d.PublicKeySHA256 != "" {
		words = append(words, "--public-key", d.PublicKeySHA256)
	}
	if d.Intent != nil {
		words = append(words, "--intent", fmt.Sprint(*d.Intent))
	}
	words = append(words, "--done-at", time.Now().UTC().Format(time.RFC3339))
	for _, name := range slices.Sorted(maps.Keys(d.Details)) {
		words = append(words, "--detail", "'"+name+"="+strings.ReplaceAll(d.Details[name], "'", "'\\''")+"'")
	}
	return strings.Join(words, " ")
}

// dutyFile is a file that a duty leaves.
type dutyFile struct {
	path    string
	text    []byte
	perm    os.FileMode
	replace bool
}

func writeDutyFile(f dutyFile) error {
	return failpoint.Do(failpoint.WriteDutyFile, func() error {
		if f.replace {
			return durable.WriteFile(f.path, f.text, f.perm)
		}
		return durable.CreateFile(f.path, f.text, f.perm)
	})
}

// newFile refuses the name of a file that exists or could not be made.
func newFile(flag, path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return badInput("%s: %s exists, and is not overwritten: name another file", flag, path)
	}
	if err := writableFolder(path); err != nil {
		return badInput("%s: %w", flag, err)
	}
	return nil
}

// dutyReply is what every duty prints.
type dutyReply struct {
	Act     string         `json:"act"`
	Key     *hsm.KeyRecord `json:"key,omitempty"`
	File    string         `json:"file,omitempty"`    // what was written with --out, or read
	SHA256  string         `json:"sha256,omitempty"`  // of a backup file
	Entries []uint64       `json:"entries,omitempty"` // of the CA's journal
	Record  string         `json:"record,omitempty"`  // the file of --record
}

// tell prints what was done.
func (r *recorder) tell(reply dutyReply) error {
	reply.Entries, reply.Record = r.made, r.path
	if r.t.json {
		return r.t.printJSON(reply)
	}
	what := reply.Act
	if k := reply.Key; k != nil {
		what = fmt.Sprintf("%s: %s", reply.Act, k.URI)
		if k.Token != "" { // else a public key alone, which nothing protects
			what += fmt.Sprintf("\n  %s, %s", k.Algorithm, protectionWords(*k))
		}
		if k.PublicKeySHA256 != "" {
			what += "\n  SHA-256 of the public key " + k.PublicKeySHA256
		}
	}
	fmt.Fprintln(r.t.out, what)
	if reply.File != "" {
		fmt.Fprintf(r.t.out, "  file %s\n", reply.File)
	}
	if reply.SHA256 != "" {
		fmt.Fprintf(r.t.out, "  SHA-256 of the file %s\n", reply.SHA256)
	}
	for _, entry := range reply.Entries {
		fmt.Fprintf(r.t.out, "  recorded as entry %d\n", entry)
	}
	if r.path != "" {
		fmt.Fprintf(r.t.out, "  recorded in %s: enter it with zegel token record %s\n", r.path, r.path)
	}
	return nil
}

// recordFlags are the flags of token record.
type recordFlags struct {
	act, publicKey, doneAt string
	intent                 uint64
	details                []string
}

func (t *tool) tokenRecordCommand() *cobra.Command {
	var f recordFlags
	c := &cobra.Command{
		Use: "record {FILE | --act NAME --detail NAME=VALUE...}", Short: "Enter into the CA's journal what was done to a key elsewhere",
		Long: `record enters the file that another command wrote with --record, or one duty that the flags describe:
a key cloned by the vendor's own means, destroyed with its device, or generated in a ceremony
(EN 319 411-1 GEN-6.5.1-13A). Who calls is recorded as who did it; security officers may.

A file is entered once: it keeps the numbers of the entries, and what was interrupted goes on where it was.`,
		Example: `  zegel token record destroyed.json
  zegel token record --act cloned --public-key 9f86d0… --detail token=issuing --detail 'to=HSM 4711, partition 2'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (f.act != "") {
				return badInput("record key duty: name a FILE, or describe one duty with --act and --detail")
			}
			if len(args) == 1 {
				return t.tokenRecordFile(c.Context(), args[0])
			}
			duty, err := f.duty()
			if err != nil {
				return err
			}
			return t.withCA(func(ca *desk.Client) error {
				reply, err := ca.RecordKeyDuty(c.Context(), duty)
				if err != nil {
					return err
				}
				return (&recorder{t: t, made: []uint64{reply.Entry}}).tell(dutyReply{Act: duty.Act})
			})
		},
	}
	c.Flags().StringVar(&f.act, "act", "", "`NAME` of what was done: generated, destroying, destroyed, not_destroyed, backed_up, restored, cloned, trusted, transferred")
	c.Flags().StringVar(&f.publicKey, "public-key", "", "`HEX` SHA-256 of the public key; none for a secret key or a whole token")
	c.Flags().Uint64Var(&f.intent, "intent", 0, "`ENTRY` of the destroying that a destroyed or not_destroyed closes")
	c.Flags().StringVar(&f.doneAt, "done-at", "", "`TIME` when it was done, RFC 3339; default now")
	c.Flags().StringArrayVar(&f.details, "detail", nil, "`NAME=VALUE` to be kept sealed; may repeat")
	return c
}

func (f recordFlags) duty() (desk.KeyDuty, error) {
	d := desk.KeyDuty{Act: f.act, PublicKeySHA256: strings.ToLower(strings.ReplaceAll(f.publicKey, ":", "")), Details: map[string]string{}}
	for _, detail := range f.details {
		name, value, ok := strings.Cut(detail, "=")
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' }) {
			return d, badInput("--detail %q: want name=value, the name of lower-case letters, digits and _", detail)
		}
		if _, twice := d.Details[name]; twice {
			return d, badInput("--detail %s is given twice", name)
		}
		d.Details[name] = value
	}
	if len(d.Details) == 0 {
		return d, badInput("record key duty: say with --detail NAME=VALUE which key it was")
	}
	if f.intent != 0 {
		d.Intent = &f.intent
	}
	if f.doneAt != "" {
		at, err := time.Parse(time.RFC3339, f.doneAt)
		if err != nil {
			return d, badInput("--done-at %q: want RFC 3339, 2027-01-31T12:00:00Z", f.doneAt)
		}
		d.DoneAt = &at
	}
	return d, nil
}

// readRecord reads a record file strictly.
func readRecord(text []byte) (recordFile, error) {
	var f recordFile
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return f, fmt.Errorf("read record: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return f, errors.New("read record: something follows the JSON object")
	}
	if f.Version != recordVersion {
		return f, fmt.Errorf("read record: version %d: this software reads version %d", f.Version, recordVersion)
	}
	if len(f.Duties) == 0 || len(f.Entries) > len(f.Duties) {
		return f, errors.New("read record: it holds no duties, or more entries than duties")
	}
	return f, nil
}

// tokenRecordFile enters what of a record file is not entered yet.
func (t *tool) tokenRecordFile(ctx context.Context, path string) error {
	text, err := readInput(ctx, path, maxRecord)
	if err != nil {
		return badInput("read record: %w", err)
	}
	f, err := readRecord(text)
	if err != nil {
		return badInput("%s: %w", path, err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return badInput("%s is no file, which could keep what was entered of it", path)
	}
	if err := writableFolder(path); err != nil {
		return badInput("record key duty: %w: %s is to keep what was entered of it", err, path)
	}
	if len(f.Entries) == len(f.Duties) {
		return badInput("%s was entered already, as entries %v", path, f.Entries)
	}
	r := &recorder{t: t, path: path, file: f}
	return t.withCA(func(ca *desk.Client) error {
		for i := len(f.Entries); i < len(f.Duties); i++ {
			duty := f.Duties[i]
			if closes := duty.Act == "destroyed" || duty.Act == "not_destroyed"; closes && duty.Intent == nil && i > 0 && f.Duties[i-1].Act == "destroying" {
				duty.Intent = &r.file.Entries[i-1]
			}
			reply, err := ca.RecordKeyDuty(ctx, duty)
			if err != nil {
				return fmt.Errorf("enter %s: %w", path, err)
			}
			r.file.Entries = append(r.file.Entries, reply.Entry)
			if err := r.write(); err != nil {
				return fmt.Errorf("the duty %s is entry %d, but %s does not say so: do not enter it again: %w", duty.Act, reply.Entry, path, err)
			}
		}
		entered := &recorder{t: t, made: r.file.Entries}
		return entered.tell(dutyReply{Act: f.Duties[len(f.Duties)-1].Act, File: path})
	})
}
