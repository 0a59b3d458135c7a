package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"strings"

	"modernc.org/sqlite"
)

// mode is what a connection is for.
type mode int

const (
	reading mode = iota
	writing
	creating
)

// pragmas hold on every connection. synchronous=FULL and, for macOS,
// fullfsync are what makes an acknowledged change survive a loss of power.
// No memory mapping: it would turn an error of the disk into a signal. No
// cell_size_check: it adds a third to a look-up that misses SQLite's cache.
var pragmas = []string{
	"busy_timeout(5000)", // another program may look at the file
	"journal_mode(wal)",
	"synchronous(full)",
	"fullfsync(1)",
	"checkpoint_fullfsync(1)",
	"foreign_keys(1)",
	"trusted_schema(0)",
	"temp_store(memory)",
	"cache_size(-4000)", // KiB for each connection
}

var modePragmas = map[mode][]string{
	reading:  {"query_only(1)"},
	writing:  {"wal_autocheckpoint(1000)", "journal_size_limit(67108864)"},
	creating: nil,
}

// connect returns a pool of at most n connections, which stay open.
func connect(path string, m mode, n int) (*sql.DB, error) {
	base, err := sqlite.NewConnector(dsn(path, m))
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db := sql.OpenDB(durable{base})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

func dsn(path string, m mode) string {
	query := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_dqs": {"0"}, "_error_rc": {"1"}}
	if m == creating {
		query.Set("mode", "rwc")
	}
	for _, p := range append(pragmas[:len(pragmas):len(pragmas)], modePragmas[m]...) {
		query.Add("_pragma", p)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

// durable refuses a connection that is not: SQLite ignores a pragma that it
// cannot honour, such as WAL on a file system without shared memory.
type durable struct{ driver.Connector }

func (d durable) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := d.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2"} {
		if err := demand(ctx, conn, pragma, want); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

func demand(ctx context.Context, conn driver.Conn, pragma, want string) error {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, "PRAGMA "+pragma, nil)
	if err != nil {
		return fmt.Errorf("asking for %s: %w", pragma, err)
	}
	defer rows.Close()
	got := make([]driver.Value, 1)
	if err := rows.Next(got); err != nil {
		return fmt.Errorf("asking for %s: %w", pragma, err)
	}
	if !strings.EqualFold(fmt.Sprint(got[0]), want) {
		return fmt.Errorf("%s is %v, not %s: this file system cannot hold a store", pragma, got[0], want)
	}
	return nil
}
