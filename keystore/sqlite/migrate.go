package sqlite

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/warderhq/warder/keystore"
)

//go:embed migrations/0001_first.sql
var firstMigration string

//go:embed migrations/0002_management.sql
var managementMigration string

// migrations[n] leads from user_version n to n+1. Only ever appended to.
var migrations = []string{firstMigration, managementMigration}

// create makes a new store in full under another name and gives it its name
// last. So a file at path is a complete store with its secret, or it was one,
// and an interrupted first start leaves nothing there.
func create(ctx context.Context, path string, genesis keystore.Genesis) error {
	draft := path + ".new"
	if err := removeDraft(draft); err != nil {
		return fmt.Errorf("removing what an interrupted first start left: %w", err)
	}
	f, err := os.OpenFile(draft, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	if err := write(ctx, draft, genesis); err != nil {
		return errors.Join(refusal("creating", path, err), removeDraft(draft))
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	return nil
}

func removeDraft(draft string) error {
	for _, suffix := range []string{"-wal", "-shm", "-journal", ""} {
		if err := os.Remove(draft + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// write fills the draft in one transaction. Closing moves all of it into the
// one file, synced, and removes the write-ahead log.
func write(ctx context.Context, draft string, genesis keystore.Genesis) (err error) {
	db, err := connect(draft, creating, 1)
	if err != nil {
		return err
	}
	if err := begin(ctx, db, genesis); err != nil {
		db.Close()
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return oneFile(draft)
}

// oneFile refuses a closed database of which a part still is in its write-ahead
// log: SQLite does not tell if it could not move it, for want of room, say.
func oneFile(path string) error {
	switch _, err := os.Lstat(path + "-wal"); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%s-wal could not be moved into the database; see whether the disk is full", path)
	}
}

// begin is the first transaction of a store: schema, secret, and the default
// organization as revision 1.
func begin(ctx context.Context, db *sql.DB, genesis keystore.Genesis) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := applyMigrations(ctx, tx, 0, migrations); err != nil {
		return err
	}
	secret, err := genesis()
	if err != nil {
		return err
	}
	statements := []struct {
		query string
		args  []any
	}{
		{fmt.Sprintf("PRAGMA application_id = %d", applicationID), nil},
		{"INSERT INTO store_secret (only, version, sealed, checked) VALUES (1, ?, ?, ?)",
			[]any{secret.Version, blob(secret.Sealed), blob(secret.Check)}},
		{"INSERT INTO organizations (slug, default_expiry, maximum_expiry, metadata, created, revision) VALUES (?, 0, 0, '', ?, 1)",
			[]any{keystore.DefaultOrganization, int64(keystore.InstantOf(time.Now()))}},
		{"INSERT INTO log (revision, mark, kind, name, aliases) VALUES (1, ?, ?, ?, '')",
			[]any{int64(newMark()), string(keystore.KindOrganization), keystore.DefaultOrganization}},
	}
	for _, st := range statements {
		if _, err := tx.ExecContext(ctx, st.query, st.args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// migrate brings an existing store up to date, forward only.
func migrate(ctx context.Context, db *sql.DB, migrations []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == len(migrations):
		return nil
	case version > len(migrations):
		return fmt.Errorf("schema version %d, known up to %d: %w", version, len(migrations), keystore.ErrNewerSchema)
	case version < 1:
		return fmt.Errorf("%w: schema version %d", keystore.ErrCorrupt, version)
	}
	if err := applyMigrations(ctx, tx, version, migrations); err != nil {
		return err
	}
	return tx.Commit()
}

func applyMigrations(ctx context.Context, tx *sql.Tx, from int, migrations []string) error {
	for n, script := range migrations[from:] {
		if _, err := tx.ExecContext(ctx, script); err != nil {
			return fmt.Errorf("applying migration %d: %w", from+n+1, err)
		}
	}
	_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
	return err
}
