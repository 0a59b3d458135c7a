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

	"github.com/warderhq/warder/keystore"
)

// Backup is what a file that holds a copy of a database says of itself.
type Backup struct {
	Size   int64
	Head   keystore.Position
	Sealed keystore.SealedSecret
}

// CheckBackup reads the whole file at path and refuses one that is damaged,
// incomplete or not Warder's (keystore.ErrCorrupt), or newer than this program
// (keystore.ErrNewerSchema). It writes nothing, and makes no file beside it.
func CheckBackup(ctx context.Context, path string) (Backup, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Backup{}, fmt.Errorf("checking a backup: %w", err)
	}
	if err := inspectHeader(path); err != nil {
		return Backup{}, refusal("checking", path, err)
	}
	db, err := sql.Open("sqlite", backupDSN(path))
	if err != nil {
		return Backup{}, refusal("checking", path, err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	b := Backup{Size: info.Size()}
	if err := b.read(ctx, db); err != nil {
		return Backup{}, refusal("checking", path, err)
	}
	return b, nil
}

// backupDSN opens a file that nobody else has: without locks, and without the
// write-ahead log that a database in use would have beside it.
func backupDSN(path string) string {
	query := url.Values{"mode": {"ro"}, "immutable": {"1"}, "_dqs": {"0"}, "_error_rc": {"1"}, "_pragma": {"query_only(1)", "trusted_schema(0)"}}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

func (b *Backup) read(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version > len(migrations):
		return fmt.Errorf("schema version %d, known up to %d: %w", version, len(migrations), keystore.ErrNewerSchema)
	case version < 1:
		return fmt.Errorf("%w: schema version %d", keystore.ErrCorrupt, version)
	}
	if err := checkPages(ctx, db); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, headQuery).Scan(number(&b.Head.Revision), number(&b.Head.Mark)); err != nil {
		return missing(err, "the log has no head")
	}
	err := db.QueryRowContext(ctx, secretQuery).Scan(number(&b.Sealed.Version), &b.Sealed.Sealed, &b.Sealed.Check)
	return missing(err, "the store secret is missing")
}

// missing turns the lack of a row without which nothing works into damage.
func missing(err error, what string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %s", keystore.ErrCorrupt, what)
	}
	return err
}

// takeClosed takes a database that is there, and that no process has open. It
// returns its canonical name.
func takeClosed(path string) (string, *fileLock, error) {
	path, err := Canonical(path)
	if err != nil {
		return "", nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return "", nil, fmt.Errorf("opening the database: %w", err)
	}
	lock, err := acquireLock(path)
	if err != nil {
		return "", nil, err
	}
	if err = settleRestore(path); err == nil {
		var found file
		if found, err = inspect(path); err == nil && !found.exists {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return "", nil, errors.Join(refusal("opening", path, err), lock.release())
	}
	return path, lock, nil
}
