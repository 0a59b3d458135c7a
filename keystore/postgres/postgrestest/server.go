//go:build unix

package postgrestest

import (
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Options of a server of one's own.
type Options struct {
	Settings []string // such as "max_connections=20"
}

// Server is a server that a test may break. Its methods end the test when they
// fail, and are for one goroutine. It answers at the same address for all of
// its life.
type Server struct {
	t       testing.TB
	cluster *cluster
	made    int // standbys and dumps, to name them
	removed bool
}

// Start returns a new server that runs.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	c, err := newCluster(o)
	if err != nil {
		unavailable(t, err)
	}
	s := adopt(t, c)
	s.Restart()
	return s
}

// adopt has a cluster removed when the test ends.
func adopt(t testing.TB, c *cluster) *Server {
	s := &Server{t: t, cluster: c}
	t.Cleanup(func() {
		if s.removed {
			return
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", c.address(), c.lastLines())
		}
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Server) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// URL is that of the superuser.
func (s *Server) URL() string { return s.cluster.url() }

// Address is the host and port where the server listens.
func (s *Server) Address() string { return s.cluster.address() }

// Database makes an empty database and returns the URL of a role that owns it
// and nothing else.
func (s *Server) Database() string {
	s.t.Helper()
	role, _, err := newDatabase(s.t.Context(), s.URL()) // dropped with the server
	s.check(err)
	return role
}

// At returns the URL of a database as it is found through another address, such
// as that of a proxy or of a standby.
func At(database, address string) string {
	u, err := url.Parse(database)
	if err != nil {
		panic("postgrestest: At of what is no URL")
	}
	u.Host = address
	return u.String()
}

// Execute executes SQL statements one by one, as superuser.
func (s *Server) Execute(statements ...string) {
	s.t.Helper()
	s.check(execute(s.t.Context(), s.URL(), statements...))
}

// Count returns the number that a query answers, as superuser.
func (s *Server) Count(query string, args ...any) int64 {
	s.t.Helper()
	return Count(s.t, s.URL(), query, args...)
}

// Count returns the number that a query answers in a database.
func Count(t testing.TB, database, query string, args ...any) int64 {
	t.Helper()
	n, err := ask[int64](t.Context(), database, query, args...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Stop ends the server in order, and waits: connections are closed, and what
// was not committed is undone.
func (s *Server) Stop() {
	s.t.Helper()
	s.check(s.cluster.stop(syscall.SIGINT))
}

// StopImmediately is a stop without order: the next start has to recover.
func (s *Server) StopImmediately() {
	s.t.Helper()
	s.check(s.cluster.stop(syscall.SIGQUIT))
}

// Kill kills all processes of the server. When it returns, none of them answers
// anybody.
func (s *Server) Kill() {
	s.t.Helper()
	s.check(s.cluster.kill())
}

// Restart starts a server that does not run, and stops one that does before. It
// returns when the server answers.
func (s *Server) Restart() {
	s.t.Helper()
	if s.cluster.running() {
		s.Stop()
	}
	s.check(s.cluster.start())
}

// Pause halts all processes of the server: connections stay and are still made,
// and nothing is answered.
func (s *Server) Pause() {
	s.t.Helper()
	s.check(s.cluster.pause())
}

// Resume ends a pause.
func (s *Server) Resume() {
	s.t.Helper()
	s.check(s.cluster.resume())
}

// CPU returns how long the server's processes have computed so far; zero where
// that is not known.
func (s *Server) CPU() (total time.Duration) {
	s.t.Helper()
	all, err := s.cluster.processes()
	s.check(err)
	for _, pid := range all {
		total += cpuOf(pid)
	}
	return total
}

// Remove ends the server and removes it before the test ends. Nothing more can
// be done with it.
func (s *Server) Remove() {
	s.t.Helper()
	s.removed = true
	s.check(s.cluster.remove())
}

// Log returns what the server has logged.
func (s *Server) Log() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Clean(s.cluster.logFile()))
	s.check(err)
	return string(text)
}
