//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"strings"
)

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// scan gives every row of a longer read to take.
func (s *Store) scan(ctx context.Context, doing, query string, args []any, take func(*sql.Rows) error) error {
	if err := s.enter(ctx, s.scans, doing); err != nil {
		return err
	}
	defer s.scans.leave()
	if err := eachRow(ctx, s.reads, query, args, take); err != nil {
		return s.failure(ctx, doing, err)
	}
	return nil
}

func eachRow(ctx context.Context, from querier, query string, args []any, take func(*sql.Rows) error) error {
	rows, err := from.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := take(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// into returns a take that appends each row to *out.
func into[T any](out *[]T, targets func(*T) []any) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var one T
		if err := rows.Scan(targets(&one)...); err != nil {
			return err
		}
		*out = append(*out, one)
		return nil
	}
}

// conditions are what rows have to meet, with the parameters in their order.
type conditions struct {
	terms []string
	args  []any
}

func (c *conditions) add(term string, args ...any) {
	c.terms, c.args = append(c.terms, term), append(c.args, args...)
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}
