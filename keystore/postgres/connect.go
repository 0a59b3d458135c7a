package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// errStandby: what answers is not, or no more, the primary, so what it knows
// may be old.
var errStandby = errors.New("the server is a standby or read only")

// keepAlive finds a connection that is silently dead in some twenty seconds,
// also if nobody asks it anything.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}

// settings hold on every connection, whatever the server, the role or the
// connection string say.
func settings(c Config) map[string]string {
	milliseconds := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return map[string]string{
		// pg_catalog is searched before; what is temporary, after.
		"search_path": c.Schema + ", pg_temp",
		"jit":         "off", // it compiles for longer than any statement here takes

		// What is read depends on these.
		"client_encoding":                "UTF8",
		"bytea_output":                   "hex",
		"standard_conforming_strings":    "on",
		"default_transaction_isolation":  "read committed",
		"default_transaction_deferrable": "off",

		"statement_timeout":                   milliseconds(c.timeouts.statement()),
		"lock_timeout":                        milliseconds(c.timeouts.lock),
		"idle_in_transaction_session_timeout": milliseconds(c.timeouts.idle),

		// So that the server, too, notices who is gone.
		"tcp_keepalives_idle":     "10",
		"tcp_keepalives_interval": "3",
		"tcp_keepalives_count":    "3",
		"tcp_user_timeout":        "20000",
	}
}

// prepare completes what the connection string says.
func prepare(parsed *pgxpool.Config, c Config) {
	conn := parsed.ConnConfig
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "warder"
	}
	maps.Copy(conn.RuntimeParams, settings(c))
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = c.timeouts.connect
	}
	conn.DialFunc = (&net.Dialer{Timeout: conn.ConnectTimeout, KeepAliveConfig: keepAlive}).DialContext
	conn.OnNotice = keepWarning
	asked := conn.ValidateConnect // target_session_attrs: it may ask for more
	conn.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := validate(ctx, conn); err != nil || asked == nil {
			return err
		}
		return asked(ctx, conn)
	}
	// The places of a Store say how many connections are in use. As many again
	// may be about to be closed, which takes its time if nobody answers.
	parsed.MaxConns, parsed.MinConns, parsed.MinIdleConns = 2*int32(c.PoolSize), 2, 0
	conn.DefaultQueryExecMode, conn.StatementCacheCapacity = pgx.QueryExecModeCacheStatement, 256
	parsed.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) {
		_ = takeWarning(conn.PgConn()) // of a commit before, if nobody has asked
		return true, nil
	}
	parsed.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false } // see Store.attempt
}

// validate takes a connection to a primary only, and makes its commits durable
// should the server or the role not ask for it.
func validate(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, `SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
		CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END`).ReadAll()
	if err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || string(results[0].Rows[0][0]) != "f" {
		return errStandby
	}
	return nil
}

// unreplicated is where a connection keeps that a commit did not wait for the
// standbys that it should have waited for: then the server warns, and answers
// as if it had.
const unreplicated = "unreplicated"

func keepWarning(conn *pgconn.PgConn, n *pgconn.Notice) {
	if n.Routine == "SyncRepWaitForLSN" {
		conn.CustomData()[unreplicated] = n.Message
	}
}

// takeWarning returns what keepWarning kept since it was asked before.
func takeWarning(conn *pgconn.PgConn) error {
	text, kept := conn.CustomData()[unreplicated]
	delete(conn.CustomData(), unreplicated)
	if kept {
		return fmt.Errorf("committed on this server only: %v", text)
	}
	return nil
}
