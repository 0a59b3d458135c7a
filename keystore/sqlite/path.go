package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/warderhq/warder/keystore"
)

// Canonical returns the one absolute name of a database, every symbolic link
// in it resolved, whether the file exists yet or not. Two names of one file
// have the same canonical name.
func Canonical(path string) (string, error) {
	if path == "" {
		return "", errors.New("resolving a database path: it is empty")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", path, err)
	}
	resolved, err := resolve(abs)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", path, err)
	}
	return resolved, nil
}

// resolve follows links of which the last one may point to nothing yet. Links
// that go round in circles end in EvalSymlinks.
func resolve(abs string) (string, error) {
	resolved, err := filepath.EvalSymlinks(abs)
	if !errors.Is(err, fs.ErrNotExist) || abs == filepath.Dir(abs) {
		return resolved, err
	}
	dir, err := resolve(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, filepath.Base(abs))
	target, err := os.Readlink(name)
	if err != nil {
		return name, nil // no link, so not there yet
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(dir, target)
	}
	return resolve(target)
}

// makeDir makes a directory and what is missing above it, for the owner only,
// and makes their names durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDirectory(parent)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// inherit gives f to whoever has the file whose place it is to take: root often
// does for a server what the server, as another user, goes on with.
func inherit(f *os.File, from string) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) || os.Geteuid() != 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return chownLike(f, info)
}

// A file is what lies at a store's path before SQLite touches it.
type file struct {
	exists  bool
	size    int64
	unclean bool // a write-ahead log was left: its last owner did not close it
}

// inspect judges the file from outside, under the lock. SQLite would take an
// empty file for a new database, and would replay a log left without its
// database into whatever is put in its place; here both mean that keys were
// lost. A first start cannot leave either behind: see create.
func inspect(path string) (file, error) {
	wal, err := os.Stat(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return file{}, err
	}
	found := file{unclean: err == nil && wal.Size() > 0}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if found.unclean {
			return found, fmt.Errorf("%w: %s-wal exists without its database; restore the database, or remove that file too to start anew",
				keystore.ErrCorrupt, path)
		}
		return found, nil
	}
	if err != nil {
		return found, err
	}
	found.exists, found.size = true, info.Size()
	if !info.Mode().IsRegular() {
		return found, errors.New("it is not a regular file")
	}
	if n := hardLinks(info); n > 1 {
		return found, fmt.Errorf("it has %d names (hard links), so it could be opened twice; keep one", n)
	}
	return found, inspectHeader(path)
}

// Offsets in the database header, and what stands there.
const (
	headerSize          = 100
	headerMagic         = "SQLite format 3\x00"
	headerApplicationID = 68
	// applicationID marks a database as Warder's ("Wrdr").
	applicationID = 0x57726472
)

// inspectHeader opens and closes the file, so it has to be done before SQLite
// opens it: a close would drop the POSIX locks of the whole process. It opens
// the file for writing, too: SQLite would be content with reading it, and the
// first revocation would fail.
func inspectHeader(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, headerSize)
	switch n, err := io.ReadFull(f, header); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the file is empty; restore it, or remove it to start anew", keystore.ErrCorrupt)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the file ends after %d bytes", keystore.ErrCorrupt, n)
	case err != nil:
		return err
	case !bytes.HasPrefix(header, []byte(headerMagic)):
		return fmt.Errorf("%w: the file is not a SQLite database", keystore.ErrCorrupt)
	}
	if id := binary.BigEndian.Uint32(header[headerApplicationID:]); id != applicationID {
		return fmt.Errorf("%w: the database belongs to another program (application_id %#x)", keystore.ErrCorrupt, id)
	}
	return nil
}
