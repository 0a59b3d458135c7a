package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// Examine looks at the store that c leads to, and changes nothing. Errors as
// Open.
func Examine(ctx context.Context, c Config) (keystore.Examination, error) {
	c, err := c.completed()
	if err != nil {
		return keystore.Examination{}, fmt.Errorf("examining a PostgreSQL store: %w", err)
	}
	parsed, err := parse(c.URL)
	if err != nil {
		return keystore.Examination{}, fmt.Errorf("examining a PostgreSQL store: %w", err)
	}
	name := canonical(parsed, c.Schema)
	prepare(parsed, c)
	conn, err := pgx.ConnectConfig(ctx, parsed.ConnConfig)
	if err != nil {
		return keystore.Examination{}, refusal(ctx, "examining", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	out, err := examine(ctx, conn, c)
	if err != nil {
		return keystore.Examination{}, refusal(ctx, "examining", name, err)
	}
	return out, nil
}

func examine(ctx context.Context, conn *pgx.Conn, c Config) (out keystore.Examination, err error) {
	out.Known = schemaVersion
	if err := suits(ctx, conn, c); err != nil {
		return out, err
	}
	if out.Clock, err = clockAhead(ctx, conn); err != nil {
		return out, err
	}
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1 || '.head') IS NOT NULL", c.Schema).Scan(&out.Exists); err != nil || !out.Exists {
		return out, err
	}
	if err := conn.QueryRow(ctx, "SELECT version FROM head").Scan(&out.Version); err != nil {
		return out, err
	}
	var h head
	if err := h.scan(conn.QueryRow(ctx, headQuery)); err != nil {
		return out, err
	}
	out.Head = h.Position
	return out, scanSecret(conn.QueryRow(ctx, secretQuery), &out.Sealed)
}

// clockAhead compares the clocks in the middle of a round trip.
func clockAhead(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	var theirs time.Time
	before := time.Now()
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&theirs); err != nil {
		return 0, err
	}
	trip := time.Since(before)
	return before.Add(trip / 2).Round(0).Sub(theirs), nil
}
