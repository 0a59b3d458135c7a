//go:build unix

// Package postgrestest gives tests a real PostgreSQL: a database of their own
// on a server that all share,
//
//	store, err := postgres.Open(ctx, postgrestest.Database(t), …)
//
// or a server of their own, which they may stop, kill, replace by a standby or
// set back to an older dump:
//
//	server := postgrestest.Start(t, postgrestest.Options{})
//	url := server.Database()
//	server.Kill()
//
// The shared server is the one that WARDER_TEST_POSTGRES names (a URL of a
// superuser), else one started by the first test of a process that asks. The
// programs are those of PATH or of the newest version below
// /usr/lib/postgresql; tests are skipped where there are none, unless
// WARDER_REQUIRE_POSTGRES is 1. Servers listen on a loopback port that was
// free, keep everything in one temporary directory, and are ended and removed
// when the process that started them ends, however it ends.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

const (
	sharedVariable  = "WARDER_TEST_POSTGRES"
	requireVariable = "WARDER_REQUIRE_POSTGRES"
)

// Database returns the URL of a new, empty database on the shared server, and
// of a role that owns it and nothing else. Both are dropped when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	admin, err := shared()
	if err != nil {
		unavailable(t, err)
	}
	url, drop, err := newDatabase(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Error(err)
		}
	})
	return url
}

// shared returns the URL of the shared server's superuser.
func shared() (string, error) {
	if url := os.Getenv(sharedVariable); url != "" {
		return url, nil
	}
	c, err := own()
	if err != nil {
		return "", err
	}
	return c.url(), nil
}

// own is the shared server of this process. Its guardian acts when it is no
// longer referred to, which is never.
var own = sync.OnceValues(newShared)

// newShared starts a server that nobody makes crash.
func newShared() (*cluster, error) {
	c, err := newCluster(Options{Settings: []string{"fsync=off"}})
	if err != nil {
		return nil, err
	}
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
}

// unavailable ends a test that has no server.
func unavailable(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errNoPrograms) && os.Getenv(requireVariable) != "1" {
		t.Skip(err)
	}
	t.Fatal(err)
}

// Serve runs a server to share until ctx ends, and tells its superuser's URL
// as soon as it serves.
func Serve(ctx context.Context, ready func(url string)) error {
	c, err := newShared()
	if err != nil {
		return err
	}
	ready(c.url())
	select {
	case <-ctx.Done():
	case <-c.done:
		err = fmt.Errorf("the server has ended: %s", c.lastLines())
	}
	return errors.Join(err, c.remove())
}
