//go:build unix

package postgrestest

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// Dump is what a database held at one moment.
type Dump struct{ database, file string }

// Dump takes a dump of a database of this server, by its URL.
func (s *Server) Dump(database string) Dump {
	s.t.Helper()
	s.made++
	d := Dump{database, filepath.Join(s.cluster.dir, fmt.Sprintf("dump%d", s.made))}
	s.check(run(s.cluster.dir, "pg_dump", "--format", "custom", "--file", d.file, "--dbname", At(database, s.Address())))
	return d
}

// Restore drops the database and makes it anew as it was. Who is connected is
// not any more.
func (s *Server) Restore(d Dump) {
	s.t.Helper()
	u, err := url.Parse(d.database)
	s.check(err)
	name := strings.TrimPrefix(u.Path, "/")
	s.Execute(dropDatabase(name), createDatabase(name, u.User.Username()))
	s.check(run(s.cluster.dir, "pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", "--dbname", At(d.database, s.Address()), d.file))
}
