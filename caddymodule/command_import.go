package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

func importCommand() caddycmd.Command {
	return topCommand(leaf{"import", "Imports credentials of another system, which go on working", importFlags, importKeys}, `Imports credentials of another system from standard input. They go on working
as they are; rotating such a key gives it a credential of Warder's own.

CSV begins with a line that names its columns:
  credential          the credential itself, read once; or
  sha256              its unsalted SHA-256, as 64 hexadecimal digits
  name, organization, type, limit, expires_at, expires_in_days
  scopes, permissions, networks
                      separated by spaces; permissions by id or name
  metadata            a JSON object
An empty cell is as if the column were not there. JSON lines are one object
each, with the same members as in the management API: arrays for scopes,
permissions (ids) and networks. Organizations have to be there before.

Keys are sent in batches, two at a time; of each batch all are imported or none.
The first mistake ends the import, and names its line: mend it and run the whole
import again. A credential that was imported before is left as it is, so that an
import that was interrupted, however that was, can just be run again.

--resume FILE saves the time that this takes: after each batch FILE records how
many lines the server has acknowledged, and the next import skips them. It
refuses to skip lines that are not those it has sent, or on a server that does
not know what was imported last. FILE stays when all is done: the same input,
grown at its end, is then imported from there on. Keys that were deleted in the
meantime are not imported again by --resume, and are without it.`)
}

func importFlags(cmd *cobra.Command) {
	cmd.Flags().String("input-format", "", "csv or jsonl (default: jsonl if the input begins with {, else csv)")
	cmd.Flags().String("resume", "", "File that records how far the import is, to go on from there")
	waitFlag(cmd)
}

func importKeys(s *session) error {
	if f, ok := s.cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return usagef("the keys come on standard input: %s < FILE", s.cmd.CommandPath())
	}
	rows, err := s.importRows(s.cmd.InOrStdin())
	if err != nil {
		return err
	}
	i := &importing{session: s, rows: rows}
	if i.resume, err = s.openResume(); err != nil {
		return err
	}
	defer i.abandon()
	if err := i.run(); err != nil {
		return i.interrupted(err)
	}
	return i.finish()
}

// importing is one run of the command.
type importing struct {
	*session
	rows   importRows
	resume *resume // nil: nothing is recorded
	batch  importBatch
	sent   []sentBatch // not acknowledged yet, in the order of the input

	imported, existed int // acknowledged in this run
}

func (i *importing) run() error {
	for {
		row, err := i.rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return i.settleBefore(err)
		}
		if skip, err := i.resume.skips(row); skip || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if !i.batch.fits(row) {
			if err := i.flush(); err != nil {
				return err
			}
		}
		i.batch.add(row)
	}
	if err := i.resume.end(); err != nil {
		return err
	}
	if err := i.flush(); err != nil {
		return err
	}
	return i.settle(0)
}

// importsUnderWay is how many batches the server has at a time: it reads one
// while it writes the other.
const importsUnderWay = 2

// sentBatch is a batch that the server has not acknowledged yet.
type sentBatch struct {
	importBatch
	answer chan sentAnswer
}

type sentAnswer struct {
	keys []importedKey
	err  error
}

// flush sends the batch, as soon as there are few enough under way.
func (i *importing) flush() error {
	if len(i.batch.rows) == 0 {
		return nil
	}
	if err := i.settle(importsUnderWay - 1); err != nil {
		return err
	}
	next := sentBatch{i.batch, make(chan sentAnswer, 1)}
	go func() {
		keys, err := i.send(&next.importBatch)
		next.answer <- sentAnswer{keys, err}
	}()
	i.sent, i.batch = append(i.sent, next), importBatch{}
	return nil
}

// settle takes answers, in the order of the input, until only so many batches
// are under way. What the server has acknowledged is printed before it is
// recorded: a line may be printed twice, but is not missing.
func (i *importing) settle(underWay int) error {
	for len(i.sent) > underWay {
		first := i.sent[0]
		i.sent = i.sent[1:]
		done := <-first.answer
		if done.err != nil {
			return first.blame(done.err)
		}
		if err := i.acknowledge(done.keys); err != nil {
			return err
		}
		if err := i.resume.record(first.rows, done.keys[len(done.keys)-1].ID); err != nil {
			return err
		}
		i.showProgress()
	}
	return nil
}

// settleBefore ends the import at a mistake in the input: what was sent before
// it counts.
func (i *importing) settleBefore(mistake error) error {
	if err := i.settle(0); err != nil {
		return err
	}
	return mistake
}

// abandon waits for what is under way after a mistake before it. It is not
// recorded, so that the next import meets it again.
func (i *importing) abandon() {
	for _, batch := range i.sent {
		<-batch.answer
	}
}

// importedKey is what came of one key. Line is for people and --json.
type importedKey struct {
	Line    int            `json:"line"`
	ID      keystore.KeyID `json:"id"`
	Existed bool           `json:"existed"`
}

// importAttempts bounds how often a batch is sent to a server that asks to be asked
// later. Sending it again does nothing twice.
const importAttempts = 20

func (i *importing) send(batch *importBatch) ([]importedKey, error) {
	for attempt := 1; ; attempt++ {
		raw, err := i.post(batch.body(), "keys", "import")
		if err == nil {
			return batch.read(raw)
		}
		p, refused := errors.AsType[*managementapi.Problem](err)
		if !refused || p.RetryAfter == 0 || attempt == importAttempts {
			return nil, err
		}
		select {
		case <-i.cmd.Context().Done():
			return nil, i.cmd.Context().Err()
		case <-time.After(p.RetryAfter):
		}
	}
}

func (i *importing) acknowledge(done []importedKey) error {
	var b strings.Builder
	lines := json.NewEncoder(&b)
	for _, key := range done {
		if key.Existed {
			i.existed++
		} else {
			i.imported++
		}
		if err := lines.Encode(key); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
	}
	if i.format != formatJSON {
		return nil
	}
	return i.print(b.String())
}

// interruptedError is an import that ended early, after so many keys.
type interruptedError struct {
	err  error
	done int
}

func (e *interruptedError) Error() string {
	return fmt.Sprintf("%v; the %d keys before are imported: run it again for the rest", e.err, e.done)
}

// Unwrap keeps the reason.
func (e *interruptedError) Unwrap() error { return e.err }

// interrupted says how far the import came.
func (i *importing) interrupted(err error) error {
	i.hideProgress()
	if done := i.imported + i.existed; done > 0 {
		return &interruptedError{err, done}
	}
	return err
}

func (i *importing) finish() error {
	i.hideProgress()
	if i.format == formatJSON {
		return nil
	}
	text := fmt.Sprintf("imported %d keys", i.imported)
	if i.existed > 0 {
		text += fmt.Sprintf("; %d were there already", i.existed)
	}
	if n := i.resume.skipped(); n > 0 {
		text += fmt.Sprintf("; %d were skipped, as recorded in %s", n, i.text("resume"))
	}
	return i.print(text + "\n")
}

func (i *importing) showProgress() {
	if i.watched() {
		fmt.Fprintf(i.cmd.ErrOrStderr(), "\r%d keys", i.imported+i.existed)
	}
}

func (i *importing) hideProgress() {
	if i.watched() {
		fmt.Fprint(i.cmd.ErrOrStderr(), "\r\x1b[K")
	}
}

// watched reports whether somebody looks at standard error.
func (i *importing) watched() bool {
	f, ok := i.cmd.ErrOrStderr().(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// importBatch is what one call takes: so many keys, in a body of that size.
type importBatch struct {
	rows []importRow
	size int
}

const (
	maxImportBody = 1 << 20
	bodyFrame     = len(`{"keys":[]}` + "\n")
)

func (b *importBatch) fits(row importRow) bool {
	return len(b.rows) < keystore.MaximumImport && bodyFrame+b.size+len(row.body)+1 <= maxImportBody
}

func (b *importBatch) add(row importRow) {
	b.rows = append(b.rows, row)
	b.size += len(row.body) + 1
}

func (b *importBatch) body() any {
	keys := make([]json.RawMessage, len(b.rows))
	for n := range b.rows {
		keys[n] = b.rows[n].body
	}
	return map[string]any{"keys": keys}
}

// read reads the acknowledgement, which is one for each key.
func (b *importBatch) read(raw json.RawMessage) ([]importedKey, error) {
	answer, err := decode[struct {
		Keys []importedKey `json:"keys"`
	}](raw)
	if err != nil {
		return nil, err
	}
	if len(answer.Keys) != len(b.rows) {
		return nil, fmt.Errorf("%w: it acknowledged %d of %d keys", managementapi.ErrNotWarder, len(answer.Keys), len(b.rows))
	}
	for n := range answer.Keys {
		answer.Keys[n].Line = b.rows[n].line
	}
	return answer.Keys, nil
}

// blame turns a place in the body into one in the input.
func (b *importBatch) blame(err error) error {
	p, refused := errors.AsType[*managementapi.Problem](err)
	if !refused {
		return err
	}
	place, ok := strings.CutPrefix(p.Pointer, "/keys/")
	if !ok {
		return err
	}
	index, below, _ := strings.Cut(place, "/")
	n, numberErr := strconv.Atoi(index)
	if numberErr != nil || n < 0 || n >= len(b.rows) {
		return err
	}
	field, _, _ := strings.Cut(below, "/")
	return &lineError{b.rows[n].line, field, p.Detail, exitCodeOf(p)}
}

// lineError is a mistake in the input.
type lineError struct {
	line   int
	field  string // empty: it is about the whole line
	reason string
	code   int
}

func (e *lineError) Error() string {
	if e.field == "" {
		return fmt.Sprintf("line %d: %s", e.line, e.reason)
	}
	return fmt.Sprintf("line %d: %s: %s", e.line, printable(e.field), e.reason)
}
