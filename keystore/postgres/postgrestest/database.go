//go:build unix

package postgrestest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// statementTime bounds every statement of the tests themselves, but for the
// servers that are to be waited for.
const statementTime = 30 * time.Second

// newDatabase makes a database and a role that owns it, on the server whose
// superuser's URL is admin, and returns the role's URL.
func newDatabase(ctx context.Context, admin string) (role string, drop func() error, err error) {
	u, err := url.Parse(admin)
	if err != nil || u.Host == "" {
		return "", nil, fmt.Errorf("%s has to be a URL with a host", sharedVariable) // without the URL: it holds a password
	}
	name, password := "warder_"+strings.ToLower(rand.Text()[:12]), rand.Text()
	err = execute(ctx, admin,
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", name, password),
		createDatabase(name, name))
	if err != nil {
		return "", nil, fmt.Errorf("making a database: %w", err)
	}
	drop = func() error {
		// A context of its own: that of the test has ended.
		if err := execute(context.Background(), admin, dropDatabase(name), "DROP ROLE "+name); err != nil {
			return fmt.Errorf("dropping a database: %w", err)
		}
		return nil
	}
	u.User, u.Path = url.UserPassword(name, password), "/"+name
	return u.String(), drop, nil
}

func createDatabase(name, owner string) string {
	return fmt.Sprintf("CREATE DATABASE %s OWNER %s TEMPLATE template0", name, owner)
}

func dropDatabase(name string) string { return fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name) }

// execute executes statements one by one.
func execute(ctx context.Context, url string, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("executing %.40q: %w", statement, err)
		}
	}
	return nil
}

// ask returns the one value that a query has.
func ask[T any](ctx context.Context, url, query string, args ...any) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, query, args...).Scan(&value); err != nil {
		return value, fmt.Errorf("asking %.40q: %w", query, err)
	}
	return value, nil
}
