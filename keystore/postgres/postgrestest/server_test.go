//go:build unix

package postgrestest

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// connect returns a connection that the test closes.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// newCounted makes a database with a table that count counts.
func newCounted(t *testing.T, s *Server) string {
	t.Helper()
	url := s.Database()
	if _, err := connect(t, url).Exec(t.Context(), "CREATE TABLE things (n int)"); err != nil {
		t.Fatal(err)
	}
	return url
}

func add(t *testing.T, url string) {
	t.Helper()
	if err := execute(t.Context(), url, "INSERT INTO things VALUES (1)"); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, url string, want int64) {
	t.Helper()
	if got, err := ask[int64](t.Context(), url, "SELECT count(*) FROM things"); err != nil || got != want {
		t.Fatalf("%d things, want %d: %v", got, want, err)
	}
}

// A role owns its database and nothing else.
func TestDatabase(t *testing.T) {
	mine, other := Database(t), Database(t)
	for _, statement := range []string{"CREATE SCHEMA warder", "CREATE TABLE warder.things (n int)", "CREATE TABLE things (n int)"} {
		if err := execute(t.Context(), mine, statement); err != nil {
			t.Error(err)
		}
	}
	for _, statement := range []string{"CREATE DATABASE another", "CREATE ROLE another", "COPY things TO PROGRAM 'true'"} {
		if err := execute(t.Context(), mine, statement); err == nil {
			t.Errorf("the role may %s", statement)
		}
	}
	if yes, err := ask[bool](t.Context(), other, "SELECT to_regclass('things') IS NULL"); !yes || err != nil {
		t.Errorf("another database holds things: %v", err)
	}
}

// What was committed survives every end that a server can take.
func TestEnds(t *testing.T) {
	s := Start(t, Options{})
	url := newCounted(t, s)
	for n, end := range []func(){s.Stop, s.StopImmediately, s.Kill, func() {}} {
		add(t, url)
		end()
		s.Restart()
		count(t, url, int64(n)+1)
	}
	if !strings.Contains(s.Log(), "not properly shut down") {
		t.Error("no start had to recover")
	}
}

func TestPause(t *testing.T) {
	s := Start(t, Options{})
	url := newCounted(t, s)
	conn := connect(t, url)
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT 1"); !pgconnTimeout(err) {
		t.Errorf("a halted server answers: %v", err)
	}
	s.Resume()
	count(t, url, 0)
	s.Pause() // and is left so: the end has to come all the same
}

func pgconnTimeout(err error) bool { return err != nil && strings.Contains(err.Error(), "deadline") }

func TestStandby(t *testing.T) {
	s := Start(t, Options{})
	url := newCounted(t, s)
	standby := s.Standby(true)
	add(t, url)
	s.Kill()
	standby.Promote()
	here := At(url, standby.Address())
	count(t, here, 1)
	add(t, here) // which waits for no standby of its own
	count(t, here, 2)
}

// A standby that was detached lacks what came after.
func TestDetach(t *testing.T) {
	s := Start(t, Options{})
	url := newCounted(t, s)
	add(t, url)
	standby := s.Standby(false)
	standby.Detach()
	add(t, url)
	s.Kill()
	standby.Promote()
	count(t, At(url, standby.Address()), 1)
}

func TestRestore(t *testing.T) {
	s := Start(t, Options{})
	url := newCounted(t, s)
	add(t, url)
	dump := s.Dump(url)
	add(t, url)
	connect(t, url)
	s.Restore(dump)
	count(t, url, 1)
	add(t, url)
}

// TestGuardian: of a test that is killed nothing is left over, a halted server
// included.
func TestGuardian(t *testing.T) {
	const inner = "WARDER_POSTGRESTEST_INNER"
	if file := os.Getenv(inner); file != "" {
		s := Start(t, Options{})
		s.Pause()
		if err := os.WriteFile(file, []byte(s.cluster.dir), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(patience)
	}
	if _, err := programDirectory(); err != nil {
		unavailable(t, err)
	}
	file := t.TempDir() + "/dir"
	cmd := exec.Command(os.Args[0], "-test.run=^TestGuardian$")
	cmd.Env = append(os.Environ(), inner+"="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir []byte
	await(t, "the server to start", func() bool { dir, _ = os.ReadFile(file); return len(dir) > 0 })
	pid, err := os.ReadFile(string(dir) + "/data/postmaster.pid")
	if err != nil || len(pid) == 0 {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	await(t, "the server to be removed", func() bool { _, err := os.Stat(string(dir)); return os.IsNotExist(err) })
}

func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("waiting for %s in vain", what)
}
