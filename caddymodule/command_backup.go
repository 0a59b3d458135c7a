package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
	"github.com/warderhq/warder/managementapi"
)

func backupCommand() caddycmd.Command {
	return topUpkeep(upkeep{"backup <file>", "Copies the SQLite database, while it is served", backupFlags, backup},
		`Copies the SQLite database as of one moment into a file, or to standard output
if that is -. The server goes on meanwhile, writes included. The file is readable
by its owner only, is checked before it gets its name, and replaces none that is
there. It is of no use without the master key that it is sealed under, which
the command names: keep that, too, and in another place.`)
}

func backupFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("force", false, "Replace the file if it is there")
}

// backedUp is what is said of a backup.
type backedUp struct {
	File      string            `json:"file"`
	Size      int64             `json:"size"`
	Revision  keystore.Revision `json:"revision,omitzero"` // not known of one that was not kept here
	SHA256    string            `json:"sha256"`
	MasterKey string            `json:"master_key"`
	KeyFile   string            `json:"key_file,omitempty"` // empty: the key is configured

	astray bool // nothing here has the key
}

func backup(s *session) error {
	if s.args[0] == "-" {
		return s.backupTo(&countedWriter{Writer: s.out})
	}
	name, err := filepath.Abs(s.args[0])
	if err != nil {
		return err
	}
	file, err := sqlite.CreateBackup(name, s.on("force"))
	if errors.Is(err, fs.ErrExist) {
		return statef("%v; name another file, or say --force if it may be replaced", err)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	done, err := s.copyTo(file)
	if err != nil {
		return err
	}
	found, err := file.Commit(s.context())
	if err != nil {
		return err
	}
	done.File, done.Size, done.Revision, done.MasterKey = name, found.Size, found.Head.Revision, found.Sealed.Fingerprints()[0]
	return s.printBackup(done)
}

// backupTo sends a backup on, and says on standard error what it was.
func (s *session) backupTo(w *countedWriter) error {
	done, err := s.copyTo(w)
	if err != nil {
		return fmt.Errorf("what was sent is no backup: %w", err)
	}
	done.File, done.Size = "standard output", w.n
	s.cmd.PrintErrln(strings.TrimSuffix(done.text(), "\n"))
	return nil
}

type countedWriter struct {
	io.Writer
	n int64
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.n += int64(n)
	return n, err
}

// copyTo copies the database of the server, or of the files if none runs.
func (s *session) copyTo(w io.Writer) (done backedUp, err error) {
	asked, err := s.askServer(func() error {
		key, err := s.masterKey()
		if err != nil {
			return err
		}
		sum, err := s.client.Download(s.context(), managementapi.Request{Method: http.MethodGet, Path: []string{"backup"}}, w)
		done = backedUp{SHA256: hex.EncodeToString(sum), MasterKey: key.Fingerprint, KeyFile: key.KeyFile}
		return err
	})
	if asked || err != nil {
		return done, err
	}
	return s.copyClosed(w)
}

func (s *session) copyClosed(w io.Writer) (backedUp, error) {
	found, err := s.installation()
	if err != nil {
		return backedUp{}, err
	}
	from, sealed, err := sqlite.CopyClosed(s.context(), found.path)
	if err != nil {
		return backedUp{}, reachable(err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(w, sum), from)
	if err := errors.Join(err, from.Close()); err != nil {
		return backedUp{}, fmt.Errorf("copying %s: %w", found.path, err)
	}
	done := backedUp{SHA256: hex.EncodeToString(sum.Sum(nil)), MasterKey: sealed.Fingerprints()[0]}
	file, err := found.keyOf(sealed)
	if done.astray = err != nil; !done.astray {
		done.KeyFile = file
	}
	return done, nil
}

// reachable says what to do about a server that has the database but was not
// found.
func reachable(err error) error {
	if errors.Is(err, keystore.ErrStoreInUse) {
		return fmt.Errorf("%w; it does not answer at its admin endpoint: name that with --address, or stop it", err)
	}
	return err
}

func (s *session) printBackup(done backedUp) error {
	if s.format == formatJSON {
		return s.printValue(done)
	}
	return s.print(done.text())
}

func (b backedUp) text() string {
	text := fmt.Sprintf("backed up to %s: ", b.File)
	if b.Revision != 0 {
		text += fmt.Sprintf("revision %d, checked, ", b.Revision)
	}
	text += fmt.Sprintf("%d bytes, sha256 %s\n", b.Size, b.SHA256)
	where := "which is configured"
	switch {
	case b.KeyFile != "":
		where = "the one in " + b.KeyFile
	case b.astray:
		where = "which nothing here holds"
	}
	return text + fmt.Sprintf("it is of no use without master key %s, %s: keep that, too, but not in the same place\n", b.MasterKey, where)
}
