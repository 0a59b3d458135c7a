package main_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// tree is everything below a directory: names, modes, sizes, times, contents.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %d", path, info.Mode(), info.Size())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %s %x", info.ModTime(), sha256.Sum256(text))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// doctor looks over the site, which it must leave as it was.
func (s *site) doctor(args ...string) ended {
	s.t.Helper()
	t := s.t.(*testing.T)
	before := tree(t, filepath.Dir(s.dir))
	r := s.warder(append([]string{"doctor", "--config", "Caddyfile"}, args...)...)
	if after := tree(t, filepath.Dir(s.dir)); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
	return r
}

// wantFindings demands an exit code and, in the lines marked so, the words.
func wantFindings(t *testing.T, r ended, code int, mark string, words ...string) {
	t.Helper()
	var marked strings.Builder
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, mark+"  ") {
			marked.WriteString(line)
		}
	}
	if r.code != code || code == 0 && strings.Contains(r.stdout, "!!") {
		t.Errorf("exit code %d, want %d:\n%s%s", r.code, code, r.stdout, r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(marked.String(), word) {
			t.Errorf("no line %s says %q:\n%s", mark, word, r.stdout)
		}
	}
}

// Before the first start, while it runs, after it was stopped, and after it
// was killed.
func TestDoctorOfWhatIsWell(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	wantFindings(t, s.doctor(), 0, "ok", "would be served", "from this machine only", "the first start makes it")
	v := s.start()
	s.createKey()
	r := s.warder("doctor", "--config", "Caddyfile") // a log and a -wal file are written to meanwhile
	wantFindings(t, r, 0, "ok", "Warder", "answers at 127.0.0.1", "it answers, and this node may decide", "answers as itself", "is for its owner only")
	wantFindings(t, r, 0, "??", "keep a copy of data/warder.db.key")
	v.interrupt()
	wantFindings(t, s.doctor(), 0, "ok", "its schema is of version", "it opens the store")
	wantFindings(t, s.doctor(), 0, "??", "none answers", "was not asked")
	v = s.start()
	s.createKey()
	v.kill()
	if wal, err := os.Stat(s.path(database + "-wal")); err == nil && wal.Size() > 0 {
		wantFindings(t, s.doctor(), 0, "??", "was not closed the last time")
	}

	var findings []struct{ Check, Result, Text, Remedy string }
	if err := json.Unmarshal([]byte(s.doctor("--json").stdout), &findings); err != nil || len(findings) < 5 {
		t.Errorf("%v: %+v", err, findings)
	}
	for _, f := range findings {
		if f.Check == "" || f.Text == "" || (f.Result == "ok") != (f.Remedy == "") {
			t.Errorf("%+v", f)
		}
	}
}

// Whatever keeps a server from starting, the doctor says so before.
func TestDoctorFindsWhatKeepsItFromStarting(t *testing.T) {
	t.Parallel()
	seed := newSite(t, example(t))
	v := seed.start()
	seed.createKey()
	v.interrupt()
	for _, c := range bootCases {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, example(t))
			if err := os.CopyFS(s.path("data"), os.DirFS(seed.path("data"))); err != nil {
				t.Fatal(err)
			}
			for name, mode := range map[string]os.FileMode{"data": 0o700, database: 0o600, keyFile: 0o600} {
				if err := os.Chmod(s.path(name), mode); err != nil {
					t.Fatal(err)
				}
			}
			c.spoil(s)
			r := s.doctor()
			wantFindings(t, r, 1, "!!")
			if !strings.Contains(r.stdout, "!!") || strings.Count(strings.TrimSpace(r.lastLine()), "\n") != 0 {
				t.Errorf("%s%s", r.stdout, r.stderr)
			}
		})
	}
}

// What a server would start with, and should not.
func TestDoctorFindsWhatShouldNotBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*site)
		code  int
		mark  string
		words []string
	}{
		"the key file is open to others":    {func(s *site) { s.chmod(keyFile, 0o644) }, 1, "!!", []string{"chmod 600 data/warder.db.key"}},
		"the database is open to others":    {func(s *site) { s.chmod(database, 0o640) }, 1, "!!", []string{"chmod 600 data/warder.db"}},
		"the directory is open to others":   {func(s *site) { s.chmod("data", 0o777) }, 1, "!!", []string{"chmod 700 data"}},
		"the database is from the future":   {func(s *site) { s.touch(database, time.Now().Add(time.Hour)) }, 1, "!!", []string{"set the clock"}},
		"the admin endpoint is open":        {global("admin :2019"), 1, "!!", []string{"can be reached from elsewhere", "localhost:2019"}},
		"it is meant to be open":            {global("admin :2019\n\twarder {\n\t\tadmin_api remote\n\t}"), 0, "??", []string{"whoever reaches it is administrator"}},
		"there is no admin endpoint":        {global("admin off"), 0, "??", []string{"the admin endpoint is off"}},
		"the logs show credentials":         {global("servers {\n\t\tlog_credentials\n\t}"), 1, "!!", []string{"log_credentials"}},
		"a header of credentials is logged": {func(s *site) { s.configure(edit(s.t, example(s.t), "public /healthz", "credential header X-Api-Key")) }, 1, "!!", []string{"a log would show X-Api-Key"}},
		"nobody serves the issuer":          {func(s *site) { s.configure(edit(s.t, example(s.t), "\twarder_issuer\n", "")) }, 0, "??", []string{"no site has the directive warder_issuer"}},
		"a proxy stands before it": {func(s *site) {
			s.configure(edit(s.t, example(s.t), "issuer http://localhost:8080", "issuer https://example.com"))
		}, 0, "??", []string{"trusted_proxies"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, example(t))
			v := s.start()
			s.createKey()
			v.interrupt()
			c.spoil(s)
			wantFindings(t, s.doctor(), c.code, c.mark, c.words...)
		})
	}
}

// Where nothing can be tried, that is what is said, and not that the
// configuration is at fault.
func TestDoctorWithoutRoom(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.env = []string{"TMPDIR=" + s.path("nowhere")}
	r := s.doctor()
	wantFindings(t, r, 1, "!!", "it cannot be tried", "TMPDIR")
	if strings.Contains(r.stdout, "nothing of it would be served") {
		t.Errorf("%s", r.stdout)
	}
}

// An issuer that clients do not reach, or under another name.
func TestDoctorAsksTheIssuer(t *testing.T) {
	t.Parallel()
	s := newSite(t, edit(t, example(t), "issuer http://localhost:8080", "issuer http://127.0.0.1:8080/other"))
	s.start()
	wantFindings(t, s.warder("doctor"), 0, "ok", "answers as itself") // where RFC 8414 §3.1 has it, too
	s.configure(edit(t, example(t), "issuer http://localhost:8080", "issuer http://127.0.0.1:8080"))
	wantFindings(t, s.warder("doctor"), 1, "!!", `calls itself "http://127.0.0.1:`, "byte for byte")
	s.configure(edit(t, example(t), "issuer http://localhost:8080", fmt.Sprintf("issuer http://localhost:%d", freePort(t))))
	wantFindings(t, s.warder("doctor"), 1, "!!", "nothing answers")
	s.write("other.json", "{}")
	wantFindings(t, s.warder("doctor", "--config", "other.json"), 1, "!!", "it has no warder app")
	if r := s.warder("doctor", "now"); r.code != 2 {
		t.Errorf("%+v", r)
	}
}

func TestDoctorOfPostgres(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "Caddyfile.postgres.example"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, edit(t, string(text), "on_stale deny", "on_stale serve 10m"))
	wantFindings(t, s.doctor(), 1, "!!", "WARDER_MASTER_KEY")
	s.env = []string{"WARDER_MASTER_KEY=" + newMasterKey(), "WARDER_POSTGRES=" + postgrestest.Database(t)}
	wantFindings(t, s.doctor(), 0, "ok", "the first start makes it", "it agrees with the database's")
	v := s.start()
	r := s.warder("doctor", "--config", "Caddyfile")
	wantFindings(t, r, 0, "ok", "this node may decide", "1 follow the store", "it opens the store", "its schema is of version")
	wantFindings(t, r, 0, "??", "serve 10m0s")
	v.interrupt()
	wantFindings(t, s.doctor(), 0, "ok", "it opens the store")
	s.env[0] = "WARDER_MASTER_KEY=" + newMasterKey()
	wantFindings(t, s.doctor(), 1, "!!", "master key does not open this store")
	s.env[1] = fmt.Sprintf("WARDER_POSTGRES=postgres://u:not-shown@127.0.0.1:%d/x", freePort(t))
	r = s.doctor()
	wantFindings(t, r, 1, "!!", "bring the database within reach")
	if strings.Contains(r.stdout+r.stderr, "not-shown") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
}

func (s *site) chmod(name string, mode os.FileMode) {
	s.t.Helper()
	if err := os.Chmod(s.path(name), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) touch(name string, at time.Time) {
	s.t.Helper()
	if err := os.Chtimes(s.path(name), at, at); err != nil {
		s.t.Fatal(err)
	}
}

// global adds a global option, or one of the warder app's.
func global(option string) func(*site) {
	return func(s *site) {
		option, app, both := strings.Cut(option, "\n\twarder {\n")
		text := edit(s.t, example(s.t), "{\n\twarder {\n", "{\n\t"+option+"\n\twarder {\n")
		if both {
			text = edit(s.t, text, "\twarder {\n\t\tstore", "\twarder {\n"+strings.TrimSuffix(app, "\n\t}")+"\n\t\tstore")
		}
		s.configure(text)
	}
}
