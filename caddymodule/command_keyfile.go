package caddymodule

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/warderhq/warder/managementapi"
)

// keyFile is a CSV file that receives keys with their secrets, each as a line.
// Only its owner can read it.
type keyFile struct {
	file  *os.File
	fresh bool // the line of names is still to be written
}

var keyFileColumns = []string{
	"access_key", "secret_key", "api_key", "id", "name", "organization", "type", "created_at", "expires_at",
}

// openKeyFile opens the file of --csv before anything is done: a secret that
// cannot be written would be lost.
func (s *session) openKeyFile() error {
	name := s.text("csv")
	if !s.given("csv") {
		return nil
	}
	if s.format != formatTable {
		return usagef("--csv: excludes --json and --format: the secret goes to one place")
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	s.keyFile = &keyFile{file: file}
	if err := s.keyFile.check(); err != nil {
		s.keyFile.close()
		return err
	}
	return nil
}

// check refuses a file that others can read, or that is of another kind.
func (f *keyFile) check() error {
	info, err := f.file.Stat()
	if err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	name := f.file.Name()
	switch {
	case !info.Mode().IsRegular():
		return usagef("--csv: %s is no regular file", name)
	case info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows": // where the bits say nothing
		return usagef("--csv: others may read %s; chmod 600 it, or name another file", name)
	case info.Size() == 0:
		f.fresh = true
		return nil
	}
	return f.checkLines(info.Size())
}

func (f *keyFile) checkLines(size int64) error {
	first, last := make([]byte, len(keyFileHead())), make([]byte, 1)
	if _, err := f.file.ReadAt(first, 0); err != nil && err != io.EOF {
		return fmt.Errorf("--csv: %w", err)
	}
	if _, err := f.file.ReadAt(last, size-1); err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	if string(first) != keyFileHead() || last[0] != '\n' {
		return usagef("--csv: %s holds something else; name another file", f.file.Name())
	}
	return nil
}

func keyFileHead() string { return strings.Join(keyFileColumns, ",") + "\n" }

// append writes the key and returns when it is on the disk.
func (f *keyFile) append(key *managementapi.IssuedKey) error {
	var b strings.Builder
	if f.fresh {
		b.WriteString(keyFileHead())
	}
	w := csv.NewWriter(&b)
	_ = w.Write([]string{ // to memory
		accessKey(&key.Key), key.SecretKey.Reveal(), key.APIKey.Reveal(), string(key.ID),
		key.Name, key.Organization, key.Type, instant(&key.CreatedAt), emptyInstant(key.ExpiresAt),
	})
	w.Flush()
	_, err := f.file.WriteString(b.String())
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("the key %s is made, but its secret is lost, rotate it for a new one: --csv: %w", key.ID, err)
	}
	f.fresh = false
	return nil
}

// close closes what is open; nil is.
func (f *keyFile) close() {
	if f != nil {
		_ = f.file.Close() // what was written is synced
	}
}
