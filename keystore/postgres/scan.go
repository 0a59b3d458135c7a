package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// collect returns all rows of a longer read. Its query depends on what is
// asked for, so it is planned for that and kept nowhere.
func collect[T any](ctx context.Context, s *Store, doing, query string, args []any, targets func(*T) []any) (out []T, err error) {
	err = s.ask(ctx, s.scans, doing, func(ctx context.Context, conn *pgx.Conn) error {
		out = nil
		return eachRow(func() (pgx.Rows, error) {
			return conn.Query(ctx, query, append([]any{pgx.QueryExecModeExec}, args...)...)
		}, into(&out, targets))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func eachRow(query func() (pgx.Rows, error), take func(pgx.Rows) error) error {
	rows, err := query()
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
func into[T any](out *[]T, targets func(*T) []any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
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

// add takes a term with a question mark for each parameter.
func (c *conditions) add(term string, args ...any) {
	for _, arg := range args {
		term = strings.Replace(term, "?", c.parameter(arg), 1)
	}
	c.terms = append(c.terms, term)
}

// parameter adds one that stands in no condition.
func (c *conditions) parameter(arg any) string {
	c.args = append(c.args, arg)
	return fmt.Sprint("$", len(c.args))
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}
