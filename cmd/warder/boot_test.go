package main_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// bootCase is a site that must not start.
type bootCase struct {
	name  string
	spoil func(s *site)
	want  []string // in the last line
}

const (
	database = "data/warder.db"
	keyFile  = database + ".key"
)

func newMasterKey() string {
	raw := make([]byte, 32)
	rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw)
}

// withOptions is the example with more options in its warder block.
func withOptions(t testing.TB, lines string) string {
	t.Helper()
	return edit(t, example(t), "\tstore sqlite data/warder.db\n", "\tstore sqlite data/warder.db\n"+lines+"\n")
}

func remove(names ...string) func(*site) {
	return func(s *site) {
		for _, name := range names {
			if err := os.RemoveAll(s.path(name)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// options gives a Caddyfile with more options in its warder block.
func options(lines string) func(*site) {
	return func(s *site) { s.configure(withOptions(s.t, lines)) }
}

// masterKey configures a master key that comes from a file.
func masterKey(text string) func(*site) {
	return func(s *site) {
		s.write("master.key", text)
		s.configure(withOptions(s.t, "\t\tmaster_key {file.master.key}"))
	}
}

// patch overwrites bytes of the database.
func patch(offset int, bytes ...byte) func(*site) {
	return func(s *site) {
		text := []byte(s.read(database))
		copy(text[offset:], bytes)
		s.write(database, string(text))
	}
}

// userVersion is where a SQLite file says which schema it has.
const userVersion = 60

var bootCases = []bootCase{
	{name: "key file lost", spoil: remove(keyFile), want: []string{"warder.store", keyFile, "restore the key file"}},
	{name: "database lost", spoil: remove(database), want: []string{"warder.store", keyFile, "restore the database"}},
	{name: "key file empty", spoil: func(s *site) { s.write(keyFile, "") }, want: []string{keyFile, "32 bytes in base64"}},
	{name: "key file short", spoil: func(s *site) { s.write(keyFile, newMasterKey()[:40]+"\n") }, want: []string{keyFile, "32 bytes in base64"}},
	{name: "key file damaged", spoil: func(s *site) { s.write(keyFile, strings.Repeat("\x00", 45)) }, want: []string{keyFile, "32 bytes in base64"}},
	{name: "key file of another database", spoil: func(s *site) { s.write(keyFile, newMasterKey()+"\n") }, want: []string{keyFile, "master key"}},
	{name: "key file is a directory", spoil: func(s *site) { remove(keyFile)(s); _ = os.Mkdir(s.path(keyFile), 0o700) }, want: []string{keyFile, "directory"}},

	{name: "master key from an unset variable", spoil: options("\t\tmaster_key {env.WARDER_NOT_SET}"), want: []string{"master_key", "WARDER_NOT_SET"}},
	{name: "master key from a missing file", spoil: options("\t\tmaster_key {file./nonexistent/key}"), want: []string{"master_key", "/nonexistent/key"}},
	{name: "master key short", spoil: masterKey("c2hvcnQ="), want: []string{"master_key", "32 bytes in base64"}},
	{name: "master key in bad base64", spoil: masterKey(strings.Repeat("!", 44)), want: []string{"master_key", "32 bytes in base64"}},
	{name: "master key empty", spoil: options("\t\tmaster_key \"\""), want: []string{"Caddyfile:9", "master_key"}},
	{name: "master key from an empty file", spoil: masterKey(""), want: []string{"warder.master_key", "is empty"}},
	{name: "master key for all to read", spoil: options("\t\tmaster_key " + newMasterKey()), want: []string{"warder.master_key", "{env.WARDER_MASTER_KEY}"}},
	{name: "previous master key empty", spoil: options("\t\tmaster_key {file.master.key}\n\t\tprevious_master_key \"\""), want: []string{"Caddyfile:10", "previous_master_key"}},
	{name: "master key is not that of the key file", spoil: masterKey(newMasterKey()), want: []string{"warder.store", database, "master key"}},

	{name: "database truncated", spoil: func(s *site) { _ = os.Truncate(s.path(database), 5000) }, want: []string{database, "corrupt"}},
	{name: "database short", spoil: func(s *site) { _ = os.Truncate(s.path(database), 50) }, want: []string{database, "corrupt"}},
	{name: "database empty", spoil: func(s *site) { s.write(database, "") }, want: []string{database, "empty"}},
	{name: "database is garbage", spoil: func(s *site) { s.write(database, strings.Repeat("garbage ", 8000)) }, want: []string{database, "not a SQLite database"}},
	{name: "a page is overwritten", spoil: patch(4096+8, []byte(strings.Repeat("x", 6000))...), want: []string{database, "corrupt"}},
	{name: "newer schema", spoil: patch(userVersion, 0, 0, 0, 99), want: []string{database, "newer", "99"}},
	{name: "database is a directory", spoil: func(s *site) { remove(database)(s); _ = os.Mkdir(s.path(database), 0o700) }, want: []string{database, "not a regular file"}},
	{name: "data is a file", spoil: func(s *site) { remove("data")(s); s.write("data", "") }, want: []string{"data"}},

	{name: "unknown option", spoil: options("\t\tfrobnicate yes"), want: []string{"Caddyfile:9", "frobnicate"}},
	{name: "unknown option of the handler", spoil: func(s *site) { s.configure(edit(s.t, example(s.t), "public /healthz", "publik /healthz")) }, want: []string{"Caddyfile:20", "publik"}},
	{name: "unknown option of the issuer", spoil: func(s *site) { s.configure(edit(s.t, example(s.t), "token_ttl", "token_tll")) }, want: []string{"Caddyfile:10", "token_tll"}},
	{name: "unknown store", spoil: func(s *site) { s.configure(edit(s.t, example(s.t), "store sqlite", "store mongodb")) }, want: []string{"Caddyfile:8", "mongodb"}},
	{name: "unknown key type", spoil: func(s *site) {
		s.configure(edit(s.t, example(s.t), "require scope hello:read", "require type premium"))
	}, want: []string{"require_types", "premium"}},
	{name: "bad cache size", spoil: options("\t\tcache_size -5"), want: []string{"cache_size"}},
	{name: "no Caddyfile", spoil: remove("Caddyfile"), want: []string{"Caddyfile", "no such file"}},
}

// TestFailsClosed: what is missing, damaged, foreign or misspelled keeps the
// gate shut, and says in one line what to look at.
func TestFailsClosed(t *testing.T) {
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
			if err := os.Chmod(s.path("data"), 0o700); err != nil {
				t.Fatal(err)
			}
			c.spoil(s)
			checkRefused(t, s, c.want...)
		})
	}
}

// checkRefused runs a site that must not start.
func checkRefused(t *testing.T, s *site, want ...string) {
	t.Helper()
	opened := s.watchPorts()
	done := s.warder("run", "--config", "Caddyfile")
	t.Log(message(done))
	if done.code == 0 {
		t.Error("exit code 0")
	}
	if port := opened(); port != 0 || strings.Contains(done.stderr, "server running") {
		t.Errorf("a listener was opened (%d):\n%s", port, done.stderr)
	}
	contains(t, "the last line", message(done), want...)
	if len(message(done)) > 600 {
		t.Errorf("the last line has %d characters", len(message(done)))
	}
}

var messagePattern = regexp.MustCompile(`"msg":"(.*?[^\\])"[,}]`)

// message is the text of the last line, out of its JSON if there is any.
func message(done ended) string {
	line := done.lastLine()
	if found := messagePattern.FindStringSubmatch(line); found != nil {
		return found[1]
	}
	return line
}

// watchPorts connects to the gate and the API behind until the returned
// function is called, which returns the port that answered, or 0.
func (s *site) watchPorts() func() int {
	stop, found := make(chan struct{}), make(chan int, 1)
	go func() {
		for {
			for _, port := range []int{s.gate, s.demo} {
				if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
					c.Close()
					found <- port
					return
				}
			}
			select {
			case <-stop:
				found <- 0
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() int { close(stop); return <-found }
}

// TestWatchPorts: the watch of the tests above sees a site that does serve.
func TestWatchPorts(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	opened := s.watchPorts()
	s.start()
	if port := opened(); port == 0 {
		t.Error("the watch saw nothing")
	}
}

// TestNotWritable: a store that cannot be written is not served from.
func TestNotWritable(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	if os.Geteuid() == 0 {
		s.asNobody() // root writes what it likes
	}
	v := s.start()
	v.interrupt()
	for _, name := range []string{database, "data"} {
		if err := os.Chmod(s.path(name), 0o500); err != nil {
			t.Fatal(err)
		}
		checkRefused(t, s, "warder.store", "data/warder.db")
		if err := os.Chmod(s.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
}

// TestChangeOfMasterKey: the old key opens the store once more, beside the new
// one; after that the new one alone does.
func TestChangeOfMasterKey(t *testing.T) {
	t.Parallel()
	first, second := newMasterKey(), newMasterKey()
	s := newSite(t, withOptions(t, "\t\tmaster_key {file.master.key}"))
	s.write("master.key", first+"\n")
	v := s.start()
	k := s.createKey()
	v.interrupt()
	if got := names(t, s.path("data")); strings.Contains(strings.Join(got, " "), ".key") {
		t.Errorf("a key file was made beside a configured key: %q", got)
	}

	s.write("master.key", second)
	checkRefused(t, s, "master_key", database)
	s.write("previous.key", first)
	s.configure(withOptions(t, "\t\tmaster_key {file.master.key}\n\t\tprevious_master_key {file.previous.key}"))
	v = s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "with both keys")
	v.interrupt()

	s.configure(withOptions(t, "\t\tmaster_key {file.master.key}"))
	v = s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "with the new key alone")
	v.interrupt()
	s.write("master.key", first)
	checkRefused(t, s, "master_key", database)
	s.configure(example(t))
	checkRefused(t, s, database, "master_key")
}

// TestSecondProcess: a store has one owner, whoever comes second is told who,
// and the first one keeps serving.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	first := newSite(t, example(t))
	v := first.start()
	k := first.createKey()
	second := newSite(t, edit(t, example(t), "data/warder.db", first.path(database)))
	checkRefused(t, second, first.path(database), "in use", fmt.Sprintf("process %d", v.cmd.Process.Pid))
	first.expect(http.StatusOK, "Token "+k.APIKey, "after the second one gave up")
}

// TestPortTaken: another program on a port is one clear line; another Caddy
// too, though the system would let two of them share.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	other := newSite(t, example(t))
	other.start()
	for _, c := range []struct {
		name  string
		port  func(*site) *int
		taken func(t *testing.T) int
	}{
		{"the gate's, by a program", gatePort, listen},
		{"the admin endpoint's, by a program", adminPort, listen},
		{"the gate's, by another Caddy", gatePort, func(*testing.T) int { return other.gate }},
		{"the admin endpoint's, by another Caddy", adminPort, func(*testing.T) int { return other.admin }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, example(t))
			port := c.port(s)
			*port = c.taken(t)
			s.configure(example(t))
			for range 5 { // whether the gate or the app starts first is left to chance
				done := s.warder("run", "--config", "Caddyfile")
				t.Log(message(done))
				if done.code == 0 {
					t.Error("exit code 0")
				}
				contains(t, "the last line", message(done), fmt.Sprint(*port), "address already in use")
			}
		})
	}
}

func gatePort(s *site) *int  { return &s.gate }
func adminPort(s *site) *int { return &s.admin }

func listen(t *testing.T) int {
	t.Helper()
	port := freePort(t)
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return port
}

// TestInterruptedFirstStart: a first start that was killed at any moment is
// made good by the next one.
func TestInterruptedFirstStart(t *testing.T) {
	t.Parallel()
	seed := newSeed(t, "WARDER_BOOT_SEED")
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	for range 8 {
		s := newSite(t, example(t))
		v := s.launch()
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		v.kill()
		before := "nothing"
		if _, err := os.Stat(s.path("data")); err == nil {
			before = fmt.Sprint(names(t, s.path("data")))
		}
		v = s.start()
		k := s.createKey()
		s.expect(http.StatusOK, "Token "+k.APIKey, "after a first start that left "+before)
		t.Logf("recovered from %s", before)
		v.kill()
	}
}

// TestPendingKeyFile: the two states between which a first start writes the
// key's final name.
func TestPendingKeyFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	if err := os.Mkdir(s.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(keyFile+".new", newMasterKey()+"\n") // the database was never committed
	v := s.start()
	k := s.createKey()
	v.interrupt()

	if err := os.Rename(s.path(keyFile), s.path(keyFile+".new")); err != nil { // the key's name never became final
		t.Fatal(err)
	}
	v = s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "with the pending key taken over")
	checkStop(t, v)
}

// TestEmptyMasterKeyInJSON: as a template leaves it when a variable is missing.
func TestEmptyMasterKeyInJSON(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.write("warder.json", `{"apps":{"warder":{"master_key":""}}}`)
	done := s.warder("run", "--config", "warder.json")
	t.Log(message(done))
	if done.code == 0 {
		t.Error("exit code 0")
	}
	contains(t, "the last line", message(done), "warder.master_key", "32 bytes in base64")
	if _, err := os.Stat(s.path("data")); err == nil {
		t.Errorf("it made %q", names(t, s.path("data")))
	}
}
