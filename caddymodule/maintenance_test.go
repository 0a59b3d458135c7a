package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
	"github.com/warderhq/warder/managementapi"
)

// Nodes are given a new master key one after the other: until that is
// finished, those with either one start; after it, those with the new one.
func TestRollingMasterKey(t *testing.T) {
	url := postgrestest.Database(t)
	former := usePostgres(t, url)
	w := start(t, onPostgres("", "", ""))
	k := w.create(nil)
	opens := func(master, previous keystore.MasterKey) bool {
		t.Helper()
		store, err := (&PostgresStore{resolved: keystore.Secret(url)}).Open(t.Context(), master, previous, zap.NewNop())
		if err == nil {
			_ = store.Close()
		}
		return err == nil
	}
	present := keystore.NewMasterKey()
	for _, node := range []struct{ master, previous keystore.MasterKey }{
		{present, former}, {former, keystore.MasterKey{}}, {present, former}, {present, keystore.MasterKey{}}, {former, keystore.MasterKey{}},
	} {
		if !opens(node.master, node.previous) {
			t.Fatal("a node does not start while the key is changed")
		}
	}
	w.command("master-key", "status").says(present.Fingerprint(), former.Fingerprint(), "--finish")
	w.command("master-key", "rotate", "--finish").fails(exitState, "does not have the present master key")
	w.command("master-key", "rotate").fails(exitState, "previous_master_key")
	w.command("backup", filepath.Join(t.TempDir(), "copy.db")).fails(exitState, "pg_dump")
	if !opens(former, keystore.MasterKey{}) {
		t.Fatal("what was refused has changed something")
	}
	t.Setenv("WARDER_MASTER_KEY", present.Text().Reveal())
	w.mustLoad(onPostgres("", "grace_period 5h", ""))
	w.command("master-key", "rotate", "--finish").says(present.Fingerprint(), former.Fingerprint()+" opens it no more")
	if opens(former, keystore.MasterKey{}) || !opens(present, former) {
		t.Error("the change is not finished")
	}
	w.command("master-key", "rotate", "--finish").says("nothing to finish")
	wantStatus(t, "after it", w.get("/", k.token()), http.StatusOK)
}

// On a site nobody gets at the store as a whole, whatever it holds.
func TestMaintenanceIsLocal(t *testing.T) {
	w := start(t, siteConfig("", "", "warder_admin\nwarder\nreverse_proxy <upstream>"))
	admin := w.create(fields{"scopes": []string{"warder:admin"}})
	for _, route := range []string{"GET /backup", "GET /master-key", "POST /master-key/rotate", "POST /master-key/finish"} {
		method, path, _ := strings.Cut(route, " ")
		r := w.do(method, "http://"+w.gate+"/v1"+path, "", admin.token())
		if r.StatusCode != http.StatusForbidden || !strings.Contains(r.Text, "local_only") {
			t.Errorf("%s: %d %s", route, r.StatusCode, r.Text)
		}
	}
}

// The database of a server that does not run is found as the server would
// find it.
func TestInstallation(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("KEY", keystore.NewMasterKey().Text().Reveal())
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nowhere := "--address=" // as if it were not given
	command(t, "restore", "x.db", nowhere).fails(exitUsage, "--config", "--database")
	write("Caddyfile", "{\n\twarder {\n\t\tstore sqlite kept/here.db\n\t}\n}\n")
	command(t, "restore", "x.db").fails(exitFailed, "x.db")
	write("other.caddyfile", "{\n\twarder {\n\t\tstore postgres {env.URL}\n\t\tmaster_key {env.KEY}\n\t}\n}\n")
	command(t, "restore", "x.db", "--config", "other.caddyfile").fails(exitState, "postgres", "docs/operation.md")
	write("config.json", `{"apps":{"warder":{"store":{"driver":"sqlite"},"master_key":"{env.NONE}"}}}`)
	command(t, "restore", "x.db", "--config", "config.json").fails(exitFailed, "warder.master_key")
	write("config.json", `{"apps":{"warder":{"stroe":{}}}}`)
	command(t, "restore", "x.db", "--config", "config.json").fails(exitFailed, "stroe")
	command(t, "restore", "x.db", "--config", "none").fails(exitFailed, "none")
	write("used.db", "x")
	write("used.db-wal", "x")
	command(t, "restore", "used.db").fails(exitState, "in use", "warder backup")
	command(t, "restore", "used.db", "--key-file", "Caddyfile").fails(exitFailed, "--key-file")
	if left, err := filepath.Glob("kept/*"); err != nil || left != nil {
		t.Errorf("%q %v", left, err)
	}
}

// A new key is one that the configuration takes.
func TestNewMasterKey(t *testing.T) {
	first, second := command(t, "master-key", "new").done().out, command(t, "master-key", "new").done().out
	if _, err := keystore.ParseMasterKey(keystore.Secret(strings.TrimSuffix(first, "\n"))); err != nil || first == second {
		t.Errorf("%v", err)
	}
	command(t, "master-key", "new", "x").fails(exitUsage, "master-key new")
}

// What the server says of its key, and of one that it changed, is what the
// command prints.
func TestMasterKeyCommand(t *testing.T) {
	w := start(t, guarded("", ""))
	before := read[managementapi.MasterKey](w.command("master-key", "status", "--json"))
	done := read[managementapi.MasterKeyRotation](w.command("master-key", "rotate", "--json"))
	after := read[managementapi.MasterKey](w.command("master-key", "status", "--json"))
	if before.Source != managementapi.SourceKeyFile || done.Dropped[0] != before.Fingerprint || after.Fingerprint != done.Fingerprint || len(after.Former) != 0 {
		t.Errorf("%+v %+v %+v", before, done, after)
	}
	// A reload goes on with the key that the rotation made.
	w.mustLoad(guarded("grace_period 5h", ""))
	w.command("master-key", "rotate").says(after.Fingerprint + " opens it no more")
}
