//go:build unix

package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"
)

// Standby returns a new server that follows this one, and streams. A
// synchronous one has every commit here wait for it.
func (s *Server) Standby(synchronous bool) *Server {
	s.t.Helper()
	s.made++
	name := fmt.Sprintf("standby%d_%d", s.cluster.port, s.made)
	c, err := newDirectory(Options{Settings: s.cluster.settings})
	s.check(err)
	c.password = s.cluster.password
	standby := adopt(s.t, c)
	s.check(run(c.dir, "pg_basebackup", "--pgdata", c.data(), "--dbname", s.connection(name), "--checkpoint", "fast",
		"--wal-method", "stream", "--write-recovery-conf", "--create-slot", "--slot", name, "--no-sync"))
	s.check(c.start())
	if synchronous {
		s.Execute("ALTER SYSTEM SET synchronous_standby_names = '"+name+"'", "SELECT pg_reload_conf()")
	}
	state := "async"
	if synchronous {
		state = "sync"
	}
	s.await("the standby to stream", func() (bool, error) {
		return ask[bool](s.t.Context(), s.URL(), `SELECT count(*) > 0 FROM pg_stat_replication
			WHERE application_name = $1 AND state = 'streaming' AND sync_state = $2`, name, state)
	})
	return standby
}

// connection is how a standby of that name reaches this server.
func (s *Server) connection(name string) string {
	u, err := url.Parse(s.URL())
	s.check(err)
	host, port, err := net.SplitHostPort(u.Host)
	s.check(err)
	return fmt.Sprintf("host=%s port=%s user=%s password=%s application_name=%s sslmode=disable", host, port, superuser, s.cluster.password, name)
}

// Lag is how many bytes of its log the standbys of this server have not taken
// over yet.
func (s *Server) Lag() int64 {
	s.t.Helper()
	return s.Count("SELECT coalesce(max(pg_current_wal_lsn() - replay_lsn), 0)::bigint FROM pg_stat_replication")
}

// Detach has a standby receive no further change from its primary, which it
// does not tell: what is committed there from now on is not here.
func (s *Server) Detach() {
	s.t.Helper()
	s.Execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	s.await("the standby to let go", func() (bool, error) {
		return ask[bool](s.t.Context(), s.URL(), "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
	})
}

// Promote makes a standby a primary, and returns when it takes writes. Whatever
// it received is there.
func (s *Server) Promote() {
	s.t.Helper()
	promoted, err := ask[bool](s.t.Context(), s.URL(), "SELECT pg_promote(true, "+strconv.Itoa(int(patience.Seconds()))+")")
	s.check(err)
	if !promoted {
		s.t.Fatal("the standby is not promoted: ", s.cluster.lastLines())
	}
}

// await waits until something is so on the server. Errors are waited out.
func (s *Server) await(what string, so func() (bool, error)) {
	s.t.Helper()
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		yes, err := so()
		if yes {
			return
		}
		if last = err; errors.Is(err, context.Canceled) {
			break
		}
	}
	s.t.Fatalf("waiting for %s: %v: %s", what, last, s.cluster.lastLines())
}
