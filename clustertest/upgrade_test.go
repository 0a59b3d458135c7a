//go:build unix

package clustertest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// nextMigration is a file of the driver in a next version of this program: one
// more migration, on which programs of this version may go on working.
const nextMigration = `package postgres

func init() {
	migrations = append(migrations, migration{` + "`" + `
ALTER TABLE keys ADD COLUMN next_note text NOT NULL DEFAULT '';
CREATE TABLE next_things (id bigint PRIMARY KEY, note text NOT NULL);
` + "`" + `, len(migrations)})
	schemaVersion = len(migrations)
}
`

// nextBinary builds this program with one more migration.
func nextBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	driver, err := filepath.Abs(filepath.Join("..", "keystore", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	added := filepath.Join(dir, "next.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(driver, "migrate_next.go"): added}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{added: nextMigration, filepath.Join(dir, "overlay.json"): string(overlay)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(dir, "warder")
	if err := build(to, "-overlay", filepath.Join(dir, "overlay.json")); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestRollingUpgrade: a node of the next version raises the schema while one
// of this version serves. Both go on, keys and revocations cross both ways, and
// this version may even be started again.
func TestRollingUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("links a Caddy")
	}
	c := prepareCluster(t, 2*time.Second)
	old, next := c.add(), c.add()
	next.binary = nextBinary(t)
	old.start()
	made := old.mustManage(http.MethodPost, "/keys", `{}`)
	version := c.schemaVersion()

	next.start()
	if raised := c.schemaVersion(); raised != version+1 {
		t.Fatalf("the schema was raised from version %d to %d", version, raised)
	}
	c.passes(made)
	cross := func() {
		t.Helper()
		for _, way := range [][2]*node{{old, next}, {next, old}} {
			k := way[0].mustManage(http.MethodPost, "/keys?wait=5s", `{}`)
			c.passes(k)
			if ended := way[1].mustManage(http.MethodPost, "/keys/"+k.ID+"/block?wait=5s", ""); !ended.SeenByAll {
				t.Errorf("blocked on node %d, not seen by %q", way[1].index, ended.Pending)
			}
			c.says(blocked, k)
		}
	}
	cross()
	old.stop()
	old.start()
	cross()
	c.passes(made)
}

// TestUnusableSchema: a node that may not work on a newer schema does not
// start, and says why in a line.
func TestUnusableSchema(t *testing.T) {
	c := prepareCluster(t, 2*time.Second)
	n := c.add()
	n.start()
	n.stop()
	c.raise(1, 1)
	n.launch()
	<-n.done
	if code := n.cmd.ProcessState.ExitCode(); code == 0 {
		t.Error("it ended as if nothing was wrong")
	}
	if !n.log.has("schema version 2, usable from version 2, known up to 1") || n.log.has(serving) {
		t.Errorf("it does not say why:\n%s", n.log)
	}
	c.raise(0, -1) // an additive one
	n.start()
	c.passes(n.mustManage(http.MethodPost, "/keys", `{}`))
}

// schemaVersion is that of the store's schema.
func (c *cluster) schemaVersion() int64 {
	c.t.Helper()
	return postgrestest.Count(c.t, c.database, "SELECT version FROM warder.head")
}

// raise changes what the schema says of itself.
func (c *cluster) raise(version, usableFrom int) {
	c.t.Helper()
	postgrestest.Count(c.t, c.database, "UPDATE warder.head SET version = version + $1, usable_from = usable_from + $2 RETURNING version", version, usableFrom)
}

// passes demands that every node accepts a key.
func (c *cluster) passes(k key) { c.t.Helper(); c.says(active, k) }

func (c *cluster) says(want state, k key) {
	c.t.Helper()
	client := newClient()
	defer client.CloseIdleConnections()
	for _, n := range c.nodes {
		if saw := n.ask(client, apiKey.authorization(k, "")); saw != want {
			c.t.Errorf("node %d says of a key %q, want %q", n.index, saw, want)
		}
	}
}
