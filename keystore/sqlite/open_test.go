//go:build unix

package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"modernc.org/sqlite"

	"github.com/warderhq/warder/keystore"
)

func TestEveryConnectionHasItsPragmas(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	want := map[string]int64{
		"synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000, "fullfsync": 1, "checkpoint_fullfsync": 1,
		"trusted_schema": 0, "temp_store": 2, "cache_size": -4000,
	}
	for name, db := range map[string]*sql.DB{"reads": s.reads, "writes": s.writes} {
		n := db.Stats().MaxOpenConnections
		if name == "writes" && n != 1 || n < 1 {
			t.Fatalf("%s may have %d connections", name, n)
		}
		for range n { // all at the same time, so that each is another one
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			want["query_only"] = map[string]int64{"reads": 1, "writes": 0}[name]
			for pragma, value := range want {
				var got int64
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != value {
					t.Errorf("%s: %s is %d %v, want %d", name, pragma, got, err, value)
				}
			}
			var journal string
			if err := conn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&journal); err != nil || journal != "wal" {
				t.Errorf("%s: journal_mode is %s %v", name, journal, err)
			}
		}
		if got := db.Stats().OpenConnections; got != n {
			t.Errorf("%s: %d connections were looked at, want %d", name, got, n)
		}
	}
}

func TestReadersCannotWrite(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	if _, err := s.reads.Exec("DELETE FROM log"); err == nil {
		t.Error("a reading connection wrote")
	}
}

func TestNotDurableIsRefused(t *testing.T) {
	memory, err := sqlite.NewConnector(":memory:?_pragma=journal_mode(wal)") // which it cannot have
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := (durable{memory}).Connect(t.Context()); err == nil {
		conn.Close()
		t.Error("a connection without a write-ahead log was accepted")
	}
	lax, err := sqlite.NewConnector(filepath.Join(t.TempDir(), "x.db") + "?_pragma=journal_mode(wal)&_pragma=synchronous(normal)")
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := (durable{lax}).Connect(t.Context()); err == nil {
		conn.Close()
		t.Error("a connection that does not wait for the disk was accepted")
	}
}

func TestFirstStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?#%41", "deep", "warder.db")
	s := openAt(t, path)
	for name, want := range map[string]fs.FileMode{
		path: 0o600, path + lockSuffix: 0o600, path + "-wal": 0o600, filepath.Dir(path): fs.ModeDir | 0o700,
	} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v %v, want %v", name, info.Mode(), err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), path, func() (keystore.SealedSecret, error) {
		t.Error("genesis was called again")
		return keystore.SealedSecret{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 2 {
		t.Errorf("after closing there are %q, want the database and its lock", left)
	}
}

// A first start may end at any moment; the next one begins anew.
func TestInterruptedFirstStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	broken := errors.New("no entropy")
	if _, err := Open(t.Context(), path, func() (keystore.SealedSecret, error) { return keystore.SealedSecret{}, broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("a refused first start left %q", left)
	}
	for _, suffix := range []string{".new", ".new-wal", ".new-shm", ".new-journal"} {
		if err := os.WriteFile(path+suffix, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openAt(t, path)
}

func TestRefusals(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.db")
	s := openAt(t, good)
	for n := range 200 { // enough pages for a truncation to cut some off
		putKey(t, s, fmt.Sprintf("key_%d", n))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(query string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			writeFile(t, path, whole)
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec(query); err != nil {
				t.Fatal(err)
			}
		}
	}
	flipped := bytes.Clone(whole)
	for i := len(flipped) / 2; i < len(flipped)/2+4096; i++ {
		flipped[i] ^= 0x5a
	}
	content := func(b []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) { writeFile(t, path, b) }
	}
	for name, c := range map[string]struct {
		make func(*testing.T, string)
		want error
	}{
		"empty":               {content(nil), keystore.ErrCorrupt},
		"ends in the header":  {content(whole[:60]), keystore.ErrCorrupt},
		"ends after a page":   {content(whole[:4096]), keystore.ErrCorrupt},
		"ends in the middle":  {content(whole[:len(whole)/2]), keystore.ErrCorrupt},
		"last page missing":   {content(whole[:len(whole)-4096]), keystore.ErrCorrupt},
		"not a database":      {content(bytes.Repeat([]byte("text "), 2000)), keystore.ErrCorrupt},
		"pages overwritten":   {content(flipped), keystore.ErrCorrupt},
		"another program's":   {edit("PRAGMA application_id = 7"), keystore.ErrCorrupt},
		"newer":               {edit("PRAGMA user_version = 99"), keystore.ErrNewerSchema},
		"never migrated":      {edit("PRAGMA user_version = 0"), keystore.ErrCorrupt},
		"no store secret":     {edit("DELETE FROM store_secret"), keystore.ErrCorrupt},
		"no head":             {edit("DELETE FROM log"), keystore.ErrCorrupt},
		"a table is missing":  {edit("DROP TABLE aliases"), keystore.ErrCorrupt},
		"a column is missing": {edit("ALTER TABLE keys DROP COLUMN scopes"), keystore.ErrCorrupt},
		"a directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"a log without its database": {content(nil), keystore.ErrCorrupt},
		"two names": {func(t *testing.T, path string) {
			writeFile(t, path, whole)
			if err := os.Link(path, path+".second"); err != nil {
				t.Skip(err)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "warder.db")
			c.make(t, path)
			if name == "a log without its database" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				writeFile(t, path+"-wal", whole)
			}
			s, err := Open(t.Context(), path, func() (keystore.SealedSecret, error) {
				t.Error("a new store was begun")
				return testGenesis()
			})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if c.want != nil && !errors.Is(err, c.want) || errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %v and the path", err, c.want)
			}
			t.Log(err)
			if lock, err := acquireLock(path); err != nil {
				t.Errorf("a refused store stays locked: %v", err)
			} else {
				lock.release()
			}
		})
	}
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A later version brings an older store up to date, once, whole or not at all.
func TestMigration(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	version := func() (v int) {
		t.Helper()
		if err := s.writes.QueryRow("PRAGMA user_version").Scan(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	latest := len(migrations)
	next := append(migrations[:latest:latest], "CREATE TABLE later (n INTEGER) STRICT; INSERT INTO later VALUES (1)")
	if err := migrate(t.Context(), s.writes, append(next[:latest+1:latest+1], "CREATE TABLE half (n); NONSENSE")); err == nil || version() != latest {
		t.Fatalf("a broken migration: %v, version %d", err, version())
	}
	for range 2 {
		if err := migrate(t.Context(), s.writes, next); err != nil || version() != latest+1 {
			t.Fatalf("migrating: %v, version %d", err, version())
		}
	}
	var rows, half int
	if err := s.writes.QueryRow("SELECT (SELECT count(*) FROM later), (SELECT count(*) FROM sqlite_schema WHERE name = 'half')").Scan(&rows, &half); err != nil || rows != 1 || half != 0 {
		t.Errorf("%d rows, half a migration: %d, %v", rows, half, err)
	}
	if err := migrate(t.Context(), s.writes, migrations); !errors.Is(err, keystore.ErrNewerSchema) {
		t.Errorf("an older program: %v", err)
	}
}

const lockEnv = "WARDER_TEST_OPEN"

// TestOneOwner: the same process, another process, another name; and a killed
// owner owns no more.
func TestOneOwner(t *testing.T) {
	if path := os.Getenv(lockEnv); path != "" { // the other process
		s, err := Open(context.Background(), path, testGenesis)
		fmt.Println("opened:", err)
		if err == nil {
			defer s.Close()
			_, _ = os.Stdin.Read(make([]byte, 1))
		}
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "warder.db")
	s := openAt(t, path)
	inUse := func(name string, pid int) {
		t.Helper()
		second, err := Open(t.Context(), name, testGenesis)
		if err == nil {
			second.Close()
		}
		if !errors.Is(err, keystore.ErrStoreInUse) || !strings.Contains(err.Error(), fmt.Sprint("process ", pid)) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	inUse(path, os.Getpid())
	for link, target := range map[string]string{"link.db": path, "linked": dir} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	inUse(filepath.Join(dir, "link.db"), os.Getpid())
	inUse(filepath.Join(dir, "linked", "warder.db"), os.Getpid())

	other := func() (*exec.Cmd, string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestOneOwner$")
		cmd.Env = append(os.Environ(), lockEnv+"="+path)
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		line := make([]byte, 1000)
		n, _ := out.Read(line)
		return cmd, string(line[:n])
	}
	cmd, said := other()
	if !strings.Contains(said, keystore.ErrStoreInUse.Error()) || !strings.Contains(said, fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("the other process: %s", said)
	}
	cmd.Wait()
	s.Close()
	cmd, said = other()
	if !strings.Contains(said, "opened: <nil>") {
		t.Fatalf("after closing: %s", said)
	}
	inUse(path, cmd.Process.Pid)
	cmd.Process.Kill()
	cmd.Wait()
	openAt(t, path)
}

func TestCanonical(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := func(name, target string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "real", "there.db"), nil)
	link("dir", "real")
	link("dangling", "real/notyet.db")
	link("chain", "dangling")
	link("nodir", "real/no/such.db")
	link("loop", "loop2")
	link("loop2", "loop")
	for name, want := range map[string]string{
		"real/there.db": "real/there.db", "dir/there.db": "real/there.db", "dir/new.db": "real/new.db",
		"dir/no/such/new.db": "real/no/such/new.db", "dangling": "real/notyet.db", "chain": "real/notyet.db",
		"nodir": "real/no/such.db", "real/./x/../there.db": "real/there.db",
	} {
		if got, err := Canonical(filepath.Join(dir, name)); err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	for _, bad := range []string{"", filepath.Join(dir, "loop"), filepath.Join(dir, "loop/x.db")} {
		if got, err := Canonical(bad); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
	t.Chdir(dir)
	if got, err := Canonical("dir/x.db"); err != nil || got != filepath.Join(dir, "real/x.db") {
		t.Errorf("relative: %s %v", got, err)
	}
}

func TestSecretRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s := openAt(t, path)
	first, err := s.SealedSecret(t.Context())
	if err != nil || first.Version != 1 || len(first.Sealed) == 0 || len(first.Check) == 0 {
		t.Fatalf("%+v %v", first, err)
	}
	next, _ := testGenesis()
	if err := s.ReplaceSealedSecret(t.Context(), next, first); !errors.Is(err, keystore.ErrStaleEdit) {
		t.Errorf("from a row that is not stored: %v", err)
	}
	if err := s.ReplaceSealedSecret(t.Context(), first, next); err != nil {
		t.Fatal(err)
	}
	if err := s.ReplaceSealedSecret(t.Context(), first, next); !errors.Is(err, keystore.ErrStaleEdit) {
		t.Errorf("a second time: %v", err)
	}
	s.Close()
	got, err := openAt(t, path).SealedSecret(t.Context())
	if err != nil || !bytes.Equal(got.Sealed, next.Sealed) || !bytes.Equal(got.Check, next.Check) || got.Version != next.Version {
		t.Errorf("after opening again: %+v %v", got, err)
	}
}
