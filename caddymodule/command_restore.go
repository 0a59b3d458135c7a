package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
)

func restoreCommand() caddycmd.Command {
	return topUpkeep(upkeep{"restore <file>", "Puts a backup in place of the SQLite database of a stopped server", restoreFlags, restore},
		`Puts a backup in place of the SQLite database, which no server may have open. A
backup that is damaged, or that no master key at hand opens, is refused before
anything is touched. The replaced database stays, under the name that is printed.

What the replaced database refused is refused after, too, if it can be read:
secrets, switches and ends of keys are as they were there, keys that were
deleted since are blocked, and revoked access tokens and distrusted signing keys
stay so. --revive restores them as well, and names the keys that pass again.`)
}

func restoreFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("revive", false, "Let keys pass again that were revoked after the backup")
	cmd.Flags().String("key-file", "", "File with the master key that the backup is sealed under, if it is not the present one")
}

func restore(s *session) error {
	found, err := s.installation()
	if err != nil {
		return err
	}
	others, err := s.otherKeys(found)
	if err != nil {
		return err
	}
	backup, name, err := s.openBackup()
	if err != nil {
		return err
	}
	defer backup.Close()
	done, err := sqlite.Restore(s.context(), found.path, backup, sqlite.RestoreOptions{
		Master: found.master, Others: others, Revive: s.on("revive"), Now: time.Now(),
	})
	switch {
	case errors.Is(err, keystore.ErrStoreInUse):
		return fmt.Errorf("%w; stop the server first", err)
	case errors.Is(err, keystore.ErrWrongMasterKey):
		return statef("%v; name a file that holds that key with --key-file", err)
	case err != nil:
		return err
	case s.format == formatJSON:
		return s.printValue(restoredOf(&done))
	default:
		return s.print(describeRestored(name, &done))
	}
}

// otherKeys are the master keys beside the present one.
func (s *session) otherKeys(found *installation) ([]keystore.MasterKey, error) {
	others := found.others()
	if !s.given("key-file") {
		return others, nil
	}
	text, err := os.ReadFile(s.text("key-file"))
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	key, err := keystore.ParseMasterKey(keystore.Secret(strings.TrimSuffix(string(text), "\n")))
	if err != nil {
		return nil, fmt.Errorf("--key-file: %w", err)
	}
	return append(others, key), nil
}

// openBackup refuses a file that is not all of a database.
func (s *session) openBackup() (io.ReadCloser, string, error) {
	name := s.args[0]
	if name == "-" {
		return io.NopCloser(s.cmd.InOrStdin()), "standard input", nil
	}
	if info, err := os.Stat(name + "-wal"); err == nil && info.Size() > 0 {
		return nil, "", statef("%s-wal belongs to it, so it is a database that was in use, and no backup; make one with warder backup", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, "", fmt.Errorf("opening the backup: %w", err)
	}
	return file, name, nil
}

// restored is what is said of a restore, as JSON.
type restored struct {
	Database       string            `json:"database"`
	BackupRevision keystore.Revision `json:"backup_revision"`
	Revision       keystore.Revision `json:"revision"`
	MasterKey      string            `json:"master_key"`
	NewKeyFile     string            `json:"new_key_file,omitempty"`
	Replaced       string            `json:"replaced,omitempty"`
	Compared       bool              `json:"compared"`          // with what was revoked in the replaced database
	Lineage        string            `json:"lineage,omitempty"` // of that, as seen from the backup: later, earlier, apart
	Kept           []keystore.KeyID  `json:"kept"`
	Blocked        []keystore.KeyID  `json:"blocked"`
	Revived        []keystore.KeyID  `json:"revived"`
	Rights         []keystore.KeyID  `json:"rights"`
	Rules          []string          `json:"rules"`
	Lost           int               `json:"lost"`
}

func restoredOf(r *sqlite.Restored) restored {
	out := restored{
		Database: r.Path, BackupRevision: r.Backup.Revision, Revision: r.Head.Revision, MasterKey: r.Master,
		NewKeyFile: r.NewKeyFile, Replaced: r.Replaced, Compared: r.Reconciled != nil,
		Kept: []keystore.KeyID{}, Blocked: []keystore.KeyID{}, Revived: []keystore.KeyID{}, Rights: []keystore.KeyID{}, Rules: []string{},
	}
	if c := r.Reconciled; c != nil {
		out.Kept, out.Blocked = append(out.Kept, c.Kept...), append(out.Blocked, c.Blocked...)
		out.Revived, out.Rights, out.Lost = append(out.Revived, c.Revived...), append(out.Rights, c.Rights...), c.Lost
		out.Rules, out.Lineage = append(out.Rules, c.Rules...), c.Lineage.String()
	}
	return out
}

func describeRestored(name string, r *sqlite.Restored) string {
	var b strings.Builder
	fmt.Fprintf(&b, "restored %s from %s: revision %d of the backup, now %d; master key %s\n", r.Path, name, r.Backup.Revision, r.Head.Revision, r.Master)
	if r.NewKeyFile != "" {
		fmt.Fprintf(&b, "made key file %s: back it up\n", r.NewKeyFile)
	}
	if r.Replaced != "" {
		fmt.Fprintf(&b, "the replaced database is %s\n", r.Replaced)
	}
	if r.Reconciled == nil {
		reason := "there was no database"
		if r.Unread != nil {
			reason = strings.ReplaceAll(r.Unread.Error(), "\n", " ")
		}
		fmt.Fprintf(&b, "WHAT WAS REVOKED AFTER THE BACKUP IS NOT KNOWN (%s), and passes again: revoke it before the server is reached\n", reason)
		return b.String()
	}
	describeReconciled(&b, r.Reconciled)
	return b.String()
}

func describeReconciled(b *strings.Builder, c *keystore.Reconciled) {
	switch c.Lineage {
	case keystore.LineageEarlier:
		b.WriteString("the backup is the later one of the two, and has all that was revoked\n")
	case keystore.LineageApart:
		b.WriteString("neither of the two went on from the other\n")
	}
	for _, line := range []struct {
		keys []keystore.KeyID
		text string
	}{
		{c.Kept, "keep the secrets, switches and ends that they had in the replaced database"},
		{c.Blocked, "were deleted after the backup, and are back, but blocked"},
		{c.Revived, "PASS AGAIN THAT WERE REVOKED AFTER THE BACKUP"},
		{c.Rights, "have scopes, permissions, networks or limits again that were changed after the backup"},
	} {
		if n := len(line.keys); n > 0 {
			fmt.Fprintf(b, "keys that %s (%d): %s\n", line.text, n, some(line.keys))
		}
	}
	if n := len(c.Rules); n > 0 {
		fmt.Fprintf(b, "permissions and organizations that allow again what was changed after the backup (%d): %s\n", n, some(c.Rules))
	}
	if c.Lost > 0 {
		fmt.Fprintf(b, "keys made after the backup are gone (%d)\n", c.Lost)
	}
	if c.Ring {
		b.WriteString("the signing keys are those of the replaced database\n")
	}
}

// some names the first of them; all are in --json.
func some[T ~string](all []T) string {
	var names []string
	for _, id := range all[:min(len(all), maxConcerned)] {
		names = append(names, printable(string(id)))
	}
	if more := len(all) - maxConcerned; more > 0 {
		names = append(names, fmt.Sprintf("and %d more, see --json", more))
	}
	return strings.Join(names, ", ")
}
