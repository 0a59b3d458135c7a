//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"syscall"

	"modernc.org/sqlite"

	"github.com/warderhq/warder/keystore"
)

// Examine looks at the database at path, which nobody has open, and changes
// nothing. Errors as Open; keystore.ErrStoreInUse while a process has it.
func Examine(ctx context.Context, path string) (keystore.Examination, error) {
	path, err := Canonical(path)
	if err != nil {
		return keystore.Examination{}, err
	}
	lock, err := borrowLock(path)
	if err != nil {
		return keystore.Examination{}, err
	}
	if lock != nil {
		defer lock.release()
	}
	found, err := inspect(path)
	if err != nil {
		return keystore.Examination{}, refusal("examining", path, err)
	}
	out := keystore.Examination{Exists: found.exists, Unclean: found.unclean, Known: len(migrations)}
	if !found.exists || found.unclean { // what is in the log would be missed, and to read it would be to recover it
		return out, nil
	}
	if err := examine(ctx, path, &out); err != nil {
		return keystore.Examination{}, refusal("examining", path, err)
	}
	return out, nil
}

// borrowLock takes the lock as an owner would, but leaves no trace of it: nil
// if nobody ever had it.
func borrowLock(path string) (*fileLock, error) {
	file, err := os.OpenFile(path+lockSuffix, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the lock of %s: %w", path, err)
	}
	if err := flock(file); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("examining %s: %w: %s has it", path, keystore.ErrStoreInUse, ownerOf(file))
		}
		return nil, fmt.Errorf("locking %s%s: %w", path, lockSuffix, err)
	}
	return &fileLock{file}, nil
}

// examine reads the file as one that does not change: SQLite makes no file
// beside it.
func examine(ctx context.Context, path string, out *keystore.Examination) error {
	base, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}).String())
	if err != nil {
		return err
	}
	db := sql.OpenDB(base)
	defer db.Close()
	var finding string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&finding); err != nil {
		return err
	}
	if finding != "ok" {
		return fmt.Errorf("%w: %s", keystore.ErrCorrupt, finding)
	}
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&out.Version); err != nil {
		return err
	}
	if out.Version > out.Known {
		return fmt.Errorf("schema version %d, known up to %d: %w", out.Version, out.Known, keystore.ErrNewerSchema)
	}
	row := db.QueryRowContext(ctx, "SELECT version, sealed, checked FROM store_secret")
	if err := row.Scan(number(&out.Sealed.Version), &out.Sealed.Sealed, &out.Sealed.Check); err != nil {
		return fmt.Errorf("reading the store secret: %w", err)
	}
	row = db.QueryRowContext(ctx, "SELECT revision, mark FROM log ORDER BY revision DESC LIMIT 1")
	return row.Scan(number(&out.Head.Revision), number(&out.Head.Mark))
}
