package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

//go:embed migrations/0001_first.sql
var firstMigration string

// A migration leads from one version of the schema to the next.
type migration struct {
	script string
	// usableFrom is the oldest version whose programs may go on working on
	// the new schema. Nodes of the version before are still at work while the
	// first new one starts: whoever raises this stops them.
	usableFrom int
}

// migrations[n] leads from version n to n+1. Only ever appended to.
var migrations = []migration{
	{firstMigration, 1},
}

// schemaVersion is what this program knows.
var schemaVersion = len(migrations)

const (
	migrationTime  = 10 * time.Minute // with the wait for somebody else's
	migrationTries = 5
)

// migrate brings the schema up to date, forward only, in one transaction and
// under a lock, and begins a store where none is. A newer one is left as it
// is, if it says that programs of this version may work on it.
func migrate(ctx context.Context, conn *pgx.Conn, c Config, migrations []migration, genesis keystore.Genesis) (err error) {
	ctx, cancel := context.WithTimeout(ctx, migrationTime)
	defer cancel()
	for range migrationTries {
		if err = migrateOnce(ctx, conn, c, migrations, genesis); !inClass(err, codeDeadlock) {
			break // readers of two tables may have stood in its way
		}
	}
	return err
}

func migrateOnce(ctx context.Context, conn *pgx.Conn, c Config, migrations []migration, genesis keystore.Genesis) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite})
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) // does nothing after a commit
	if err := lockMigrations(ctx, tx, c); err != nil {
		return err
	}
	version, err := versionOf(ctx, tx, c.Schema, len(migrations))
	if err != nil || version >= len(migrations) {
		return err
	}
	if err := raise(ctx, tx, version, migrations, genesis); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// raise leads from a version to the last.
func raise(ctx context.Context, tx pgx.Tx, version int, migrations []migration, genesis keystore.Genesis) error {
	if version > 0 { // in its turn, as every writer, before it locks what writers need
		if _, err := tx.Exec(ctx, "SELECT FROM head FOR UPDATE"); err != nil {
			return err
		}
	}
	for n, m := range migrations[version:] {
		if _, err := tx.Exec(ctx, m.script, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("applying migration %d: %w", version+n+1, err)
		}
	}
	if version == 0 {
		if err := begin(ctx, tx, genesis); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, "UPDATE head SET version = $1, usable_from = $2", len(migrations), migrations[len(migrations)-1].usableFrom)
	return err
}

func lockMigrations(ctx context.Context, tx pgx.Tx, c Config) error {
	for _, name := range []string{"lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"} {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL %s = %d", name, migrationTime.Milliseconds())); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", c.migrationLock())
	return err
}

// versionOf returns the version of the schema, 0 for one without tables, and
// makes the schema itself if need be. Only that takes a right on the database.
func versionOf(ctx context.Context, tx pgx.Tx, schema string, known int) (version int, err error) {
	var exists, begun bool
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), to_regclass($1 || '.head') IS NOT NULL", schema).Scan(&exists, &begun)
	if err != nil {
		return 0, err
	}
	if !exists {
		if _, err := tx.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
			return 0, fmt.Errorf("making the schema %s, which does not exist: %w", schema, err)
		}
	}
	if !begun {
		return 0, nil
	}
	var usableFrom int
	err = tx.QueryRow(ctx, "SELECT version, usable_from FROM head").Scan(&version, &usableFrom)
	switch {
	case err == pgx.ErrNoRows:
		return 0, fmt.Errorf("%w: the head is missing", keystore.ErrCorrupt)
	case err != nil:
		return 0, err
	case version > known && usableFrom > known:
		return 0, fmt.Errorf("schema version %d, usable from version %d, known up to %d: %w", version, usableFrom, known, keystore.ErrNewerSchema)
	case version < 1:
		return 0, fmt.Errorf("%w: schema version %d", keystore.ErrCorrupt, version)
	}
	return version, nil
}

// begin is the rest of the first migration: secret, and the default
// organization as revision 1.
func begin(ctx context.Context, tx pgx.Tx, genesis keystore.Genesis) error {
	secret, err := genesis()
	if err != nil {
		return err
	}
	first := head{Position: keystore.Position{Revision: 1, Mark: newMark()}, organizations: 1}
	organization := keystore.Organization{
		Number: 1, Slug: keystore.DefaultOrganization, Created: keystore.InstantOf(time.Now()), Revision: first.Revision,
	}
	batch := &pgx.Batch{}
	batch.Queue(insertSecret, int64(secret.Version), blob(secret.Sealed), blob(secret.Check))
	batch.Queue("INSERT INTO head (singleton, version, usable_from, revision, mark, prune_at, keys, organizations, entries) VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0)")
	batch.Queue(updateHead, first.values()...)
	batch.Queue(insertOrganization, organizationValues(&organization)...)
	batch.Queue(appendLog, int64(first.Revision), int64(first.Mark), string(keystore.KindOrganization), keystore.DefaultOrganization, nil)
	return tx.SendBatch(ctx, batch).Close()
}
