package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/warderhq/warder/keystore"
)

// logKept is how far back a follower may lie before it has to reload, if it is
// not registered.
const logKept keystore.Revision = 10_000

// oldestServer is what server_version_num says of PostgreSQL 13.
const oldestServer = 130000

// errUnsuitable: this server or database cannot hold a store.
var errUnsuitable = errors.New("database is not suitable")

// Open returns the store that c leads to, making its tables, and its schema,
// if they do not exist; any number of processes may do so at the same time. It
// refuses what it does not understand: keystore.ErrNewerSchema, and
// keystore.ErrCorrupt for a store of which something is missing.
// keystore.ErrUnavailable says that the server cannot be reached. genesis is
// called for a new store only. No error shows the password.
func Open(ctx context.Context, c Config, genesis keystore.Genesis) (*Store, error) {
	c, err := c.completed()
	if err != nil {
		return nil, fmt.Errorf("opening a PostgreSQL store: %w", err)
	}
	parsed, err := parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("opening a PostgreSQL store: %w", err)
	}
	s := newStore(c, canonical(parsed, c.Schema))
	prepare(parsed, c)
	if s.pool, err = pgxpool.NewWithConfig(ctx, parsed); err != nil {
		return nil, refusal(ctx, "opening", s.name, err)
	}
	if err := s.start(ctx, genesis); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// newStore divides the pool: half of it, or more, is for look-ups.
func newStore(c Config, name string) *Store {
	c.URL = "" // the pool has it
	scans := max(1, c.PoolSize/5)
	s := &Store{
		name: name, config: c, logKept: logKept,
		feed:     newPlaces(1, c.timeouts.feed),
		writer:   newPlaces(1, c.timeouts.write),
		rolls:    newPlaces(1, c.timeouts.lookup),
		scans:    newPlaces(scans, c.timeouts.scan),
		lookups:  newPlaces(c.PoolSize-3-scans, c.timeouts.lookup),
		listener: newPlaces(1, c.timeouts.connect),
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

func (s *Store) start(ctx context.Context, genesis keystore.Genesis) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return refusal(ctx, "opening", s.name, err)
	}
	defer conn.Release()
	if err := suits(ctx, conn.Conn(), s.config); err != nil {
		return refusal(ctx, "opening", s.name, err)
	}
	if err := migrate(ctx, conn.Conn(), s.config, migrations, genesis); err != nil {
		return refusal(ctx, "migrating", s.name, err)
	}
	if err := check(ctx, conn.Conn()); err != nil {
		return refusal(ctx, "checking", s.name, err)
	}
	return nil
}

// suits refuses a server or a database that cannot hold a store, and a pooler
// that lets the settings of a connection fall.
func suits(ctx context.Context, conn *pgx.Conn, c Config) error {
	var version int
	var name, encoding string
	var kept bool
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::integer, current_setting('server_version'), current_setting('server_encoding'),
		current_setting('search_path') = $1 AND '0' NOT IN (current_setting('statement_timeout'), current_setting('lock_timeout'))`,
		pgx.QueryExecModeExec, settings(c)["search_path"]).Scan(&version, &name, &encoding, &kept)
	if err != nil {
		return err
	}
	if !kept {
		return fmt.Errorf("%w: search_path and time-outs of the connection are not those that it began with; a pooler between has to leave them, or not to be there", errUnsuitable)
	}
	return suitable(version, name, encoding)
}

// suitable refuses a server that is too old, and a database that does not hold
// every text as it is.
func suitable(version int, name, encoding string) error {
	switch {
	case version < oldestServer:
		return fmt.Errorf("%w: the server is PostgreSQL %s, and has to be 13 or newer", errUnsuitable, name)
	case encoding != "UTF8":
		return fmt.Errorf("%w: its encoding is %s, and has to be UTF8", errUnsuitable, encoding)
	default:
		return nil
	}
}

// check reads the two rows without which nothing works, and asks for every
// column there has to be.
func check(ctx context.Context, conn *pgx.Conn) error {
	batch := &pgx.Batch{}
	var secret keystore.SealedSecret
	batch.Queue(secretQuery).QueryRow(func(row pgx.Row) error { return scanSecret(row, &secret) })
	batch.Queue(headQuery).QueryRow(func(row pgx.Row) error {
		var h head
		return h.scan(row)
	})
	for _, query := range wholeTables {
		batch.Queue(query)
	}
	return conn.SendBatch(ctx, batch).Close()
}
