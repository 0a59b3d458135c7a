package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
	"github.com/warderhq/warder/managementapi"
)

// onPostgres is guarded with the PostgreSQL of the environment as its store.
func onPostgres(global, app, options string) string {
	text := siteConfig(global, "issuer http://<gate>\n"+app, "warder_issuer\nwarder {\n"+options+"\n}\nreverse_proxy <upstream>")
	return strings.Replace(text, "store sqlite <dir>/warder.db", "store postgres {env.WARDER_POSTGRES}\nmaster_key {env.WARDER_MASTER_KEY}", 1)
}

// usePostgres names the database and a fresh master key in the environment.
func usePostgres(t *testing.T, url string) keystore.MasterKey {
	t.Helper()
	master := keystore.NewMasterKey()
	t.Setenv("WARDER_POSTGRES", url)
	t.Setenv("WARDER_MASTER_KEY", master.Text().Reveal())
	return master
}

// peer is another node of the store: the core without Caddy.
type peer struct {
	t        *testing.T
	store    *postgres.Store
	view     *keystore.View
	follower *keystore.Follower
	service  *keystore.Service
	policy   keystore.Freshness
	end      func()
}

func newPeer(t *testing.T, url string, master keystore.MasterKey) *peer {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Config{URL: keystore.Secret(url)}, keystore.SealedGenesis(master))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := keystore.Unlock(t.Context(), store, master, keystore.MasterKey{})
	if err != nil {
		t.Fatal(err)
	}
	lease := new(keystore.Lease)
	p := &peer{t: t, store: store, view: keystore.NewView(store, lease, 1000), policy: keystore.Freshness{MaxStaleness: 10 * time.Second}}
	directory, rulebook := new(keystore.Directory), new(keystore.Rulebook)
	presence := keystore.NewPresence(store, keystore.Node{ID: keystore.NewNodeID(), Address: "peer", Version: "test"})
	p.follower = keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: lease, Presence: presence, Appliers: []keystore.Applier{p.view, directory, rulebook},
	})
	if err := p.follower.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := presence.Promise(t.Context(), p.policy); err != nil {
		t.Fatal(err)
	}
	p.service = &keystore.Service{
		Store: store, Follower: p.follower, Credentials: keystore.NewCredentials(secret), Replays: keystore.NewReplays(secret),
		Meters: p.view.Meters(), Refusals: keystore.NewRefusals(), Directory: directory, Rulebook: rulebook,
		Policy: keystore.Policy{Prefix: keystore.DefaultPrefix, Grace: keystore.DefaultGrace},
	}
	p.run()
	t.Cleanup(p.leave)
	return p
}

func (p *peer) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { p.follower.Run(ctx) })
	loops.Go(func() {
		for ctx.Err() == nil {
			_ = p.store.Listen(ctx, func(n keystore.Notice) { p.view.Forget(n.Keys...); p.follower.Hear(n) })
		}
	})
	p.end = sync.OnceFunc(func() {
		cancel()
		loops.Wait()
		_ = p.store.Close()
	})
}

// leave ends the node in order.
func (p *peer) leave() { p.end() }

func (p *peer) blocked(c credential) bool {
	p.t.Helper()
	if err := p.view.Await(p.t.Context(), time.Now(), p.policy); err != nil {
		p.t.Fatal(err)
	}
	rec, err := p.view.Record(p.t.Context(), keystore.LookupID(c.ID), time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	return rec.Blocked
}

func (w *world) nodes() managementapi.NodeList {
	w.t.Helper()
	var list managementapi.NodeList
	if err := json.Unmarshal([]byte(w.manage(http.StatusOK, http.MethodGet, "/nodes", nil).Text), &list); err != nil {
		w.t.Fatal(err)
	}
	return list
}

// Two nodes on one database: what one changes, the other does. With wait, from
// the answer on.
func TestPostgres(t *testing.T) {
	url := postgrestest.Database(t)
	master := usePostgres(t, url)
	w := start(t, onPostgres("", "", ""))
	other := newPeer(t, url, master)
	for _, kind := range kinds {
		c := w.create(nil)
		header := kind.header(w, c)
		wantStatus(t, kind.name, w.get("/", header), http.StatusOK)
		if other.blocked(c) {
			t.Fatal("a fresh key is blocked")
		}
		answer := w.manage(http.StatusOK, http.MethodPost, "/keys/"+string(c.ID)+"/block?wait=20s", nil)
		if !strings.Contains(answer.Text, `"seen_by_all":true`) || strings.Contains(answer.Text, `"pending"`) {
			t.Errorf("%s: %s", kind.name, answer.Text)
		}
		if !other.blocked(c) {
			t.Errorf("%s: seen by all, and the other node does not know", kind.name)
		}
		wantRefusal(t, kind.name, w.get("/", header), blocked)
		if _, err := other.service.SetBlocked(t.Context(), keystore.LocalCaller(), c.ID, false, 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other node's change", func() bool { return w.get("/", header).StatusCode == http.StatusOK })
	}
	if w.metric(`warder_feed_wakeups_total{cause="notification"}`) == "0" {
		t.Error("no notification has woken the node")
	}
	w.upstream.take()

	list := w.nodes()
	if len(list.Nodes) != 2 || list.Nodes[0].State != "fresh" || !list.Nodes[0].Self || list.Nodes[1].Address != "peer" || list.Nodes[1].Self ||
		*list.Nodes[0].LeaseMilliseconds > 10_000 || *list.Nodes[0].LeaseMilliseconds == 0 {
		t.Errorf("%+v", list)
	}
	w.command("nodes").says(string(list.Nodes[0].ID), "this one", "peer", "fresh")
	other.leave()
	if list = w.nodes(); len(list.Nodes) != 1 {
		t.Errorf("a node that has left is listed: %+v", list)
	}
}

// A node that may still decide is named; the command has done its work, says
// whom it knows nothing of, and ends with a code of its own.
func TestWaitCommand(t *testing.T) {
	url := postgrestest.Database(t)
	master := usePostgres(t, url)
	w := start(t, onPostgres("", "", ""))
	other := newPeer(t, url, master)
	c := w.create(nil)
	w.command("keys", "block", string(c.ID), "--wait", "20s").says("blocked")
	silent := keystore.Node{ID: "nod_silent", Address: "silent", Bound: time.Minute}
	if err := other.store.Beat(t.Context(), silent); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"keys", "unblock", string(c.ID)}, {"keys", "create"}, {"keys", "update", string(c.ID), "--name", "x"}, {"keys", "rotate", string(c.ID)},
		{"keys", "grace", string(c.ID), "--ends-in", "0s"}, {"keys", "regenerate", string(c.ID)}, {"keys", "expire", string(c.ID)},
		{"keys", "deactivate", string(c.ID)}, {"keys", "activate", string(c.ID)}, {"keys", "delete", string(c.ID)}, {"keys", "delete", "--expired"},
		{"organizations", "create", "acme"}, {"organizations", "update", "acme", "--limit", "5/s"}, {"organizations", "delete", "acme"},
		{"permissions", "create", "--name", "p", "--allow", "/*"}, {"permissions", "update", "p", "--description", "x"}, {"permissions", "delete", "p"},
		{"signing-keys", "interval", "30"}, {"signing-keys", "rotate"},
	} {
		r := w.command(append(args, "--wait", "20ms")...)
		if r.code != exitUnseen || !strings.Contains(r.errors, "warder: done, but ") || r.out == "" && args[1] != "delete" {
			t.Errorf("%v: exit code %d, %q %q", args, r.code, r.errors, r.out)
		}
	}
	r := w.commandReading("credential\nforeign-credential\n", "import", "--wait", "20ms")
	if r.code != exitUnseen || !strings.HasPrefix(r.out, "imported 1 keys") {
		t.Errorf("import: exit code %d, %q %q", r.code, r.errors, r.out)
	}
	r = w.command("keys", "create", "--wait", "1s")
	if r.code != exitUnseen || r.errors != "warder: done, but not seen by every node within 1s, see nodes: nod_silent\n" || !strings.Contains(r.out, "API key") {
		t.Errorf("exit code %d, %q %q", r.code, r.errors, r.out)
	}
	if raw := w.command("keys", "create", "--wait", "1s", "--json").out; !strings.Contains(raw, `"seen_by_all": false`) || !strings.Contains(raw, "nod_silent") {
		t.Errorf("%s", raw)
	}
	w.command("keys", "create", "--wait", "0s").fails(exitUsage, "--wait")
	w.command("keys", "create", "--wait", "soon").fails(exitUsage, "--wait")
	w.command("keys", "create", "--wait", "61s").fails(exitUsage, "--wait", "at most 60s")
	w.command("keys", "list", "--wait", "5s").fails(exitUsage, "--wait")
	if err := other.store.Leave(t.Context(), silent.ID); err != nil {
		t.Fatal(err)
	}
	w.command("keys", "create", "--wait", "20s").done()
}

const watched = `
	events {
		on node_stale noted
		on node_recovered noted
		on log_replaced noted
	}
`

// Cut off from the database a node decides on what it knows for as long as it
// may, and then refuses everything with 503, without help until it is back. It
// says so once. What does not concern the store can be changed meanwhile.
func TestPostgresAway(t *testing.T) {
	heard.take()
	server := postgrestest.Start(t, postgrestest.Options{})
	usePostgres(t, server.Database())
	config := strings.Replace(onPostgres(watched, "max_staleness 1s", ""), "warder_issuer\n", "warder_issuer\nwarder_admin\n", 1)
	w := start(t, config)
	c := w.create(fields{"scopes": []string{"warder:admin"}})
	wantStatus(t, "a site's management", w.get("/v1/keys", c.bearer()), http.StatusOK)
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	wantStatus(t, "before", w.get("/", c.token()), http.StatusOK)
	stopped := time.Now()
	server.Stop()
	var seen []heardEvent
	heardOf(t, &seen, "node_stale", map[string]any{"serving": false})
	for name, header := range map[string]string{"key": c.token(), "pair": c.basic(), "access token": minted, "unknown": w.wellFormed()} {
		if r := w.get("/", header); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || r.Header.Get("Www-Authenticate") != "" {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.Text)
		}
	}
	wantStatus(t, "token endpoint", w.do(http.MethodPost, "http://"+w.gate+"/token", "grant_type=client_credentials",
		"Content-Type: application/x-www-form-urlencoded", c.basic()), http.StatusServiceUnavailable)
	w.manage(http.StatusServiceUnavailable, http.MethodPost, "/keys/"+string(c.ID)+"/block", nil)
	w.manage(http.StatusServiceUnavailable, http.MethodGet, "/nodes", nil)
	w.command("nodes").fails(exitUnavailable)
	for _, path := range []string{"/v1/keys", "/v1/nodes", "/v1/self"} {
		wantStatus(t, path, w.get(path, c.bearer()), http.StatusServiceUnavailable)
	}
	if w.metric("warder_lease_valid") != "0" || w.metric("warder_lease_remaining_seconds") != "0" || w.metric(`warder_store_errors_total{operation="heartbeat"}`) == "0" {
		t.Error("the metrics do not show it")
	}

	engine := w.app().engine
	w.mustLoad(strings.Replace(config, "warder {\n\n}", "warder {\nrealm changed\n}", 1))
	if w.app().engine != engine {
		t.Error("the reload has opened another engine")
	}
	if err := w.load(onPostgres(watched, "max_staleness 1m", "")); err == nil || !strings.Contains(err.Error(), "max_staleness") {
		t.Errorf("a longer lease, of which nobody could be told: %v", err)
	}
	t.Setenv("WARDER_MASTER_KEY", keystore.NewMasterKey().Text().Reveal())
	if err := w.load(config); err == nil || !strings.Contains(err.Error(), "sealed store secret") {
		t.Errorf("a master key that could not be proved: %v", err)
	}

	if failed, most := strings.Count(w.log(), "following the change log failed"), 1+int(time.Since(stopped)/failureInterval); failed == 0 || failed > most {
		t.Errorf("the log tells %d times that the log of changes cannot be read, want 1 to %d", failed, most)
	}
	for line, want := range map[string]int{
		"every request is refused with 503": 1, "goes on accepting keys": 0, "knows again what the store knows": 0, "not hearing from the other nodes": 1,
	} {
		if got := strings.Count(w.log(), line); got != want {
			t.Errorf("%q is in the log %d times, want %d", line, got, want)
		}
	}
	if n := len(slices.DeleteFunc(append(seen, heard.take()...), func(e heardEvent) bool { return e.Name != "node_stale" })); n != 1 {
		t.Errorf("subscribers heard %d times that the node is stale", n)
	}

	server.Restart()
	eventually(t, "the node to recover", func() bool { return w.get("/", c.token()).StatusCode == http.StatusOK })
	heardOf(t, &seen, "node_recovered", nil)
	wantStatus(t, "access token", w.get("/", minted), http.StatusOK)
	if !strings.Contains(w.get("/").Header.Get("Www-Authenticate"), `realm="changed"`) {
		t.Error("a reload that was refused has changed something")
	}
	for _, line := range []string{"knows again what the store knows", "hearing from the other nodes again"} {
		eventually(t, line, func() bool { return strings.Contains(w.log(), line) })
	}
}

// wellFormed is an API key that this store could have made, and has not.
func (w *world) wellFormed() string {
	w.t.Helper()
	credentials := w.app().engine.credentials
	return "Authorization: Token " + keystore.FormatAPIKey(keystore.DefaultPrefix, credentials.NewAccessKey(), credentials.NewSecretKey()).Reveal()
}

// on_stale serve is the loud exception, and ends, too.
func TestServeStale(t *testing.T) {
	heard.take()
	server := postgrestest.Start(t, postgrestest.Options{})
	usePostgres(t, server.Database())
	w := start(t, onPostgres(watched, "max_staleness 300ms\non_stale serve 3s", ""))
	if !strings.Contains(w.log(), "on_stale serve: cut off from the store") {
		t.Error("the start is silent about on_stale serve")
	}
	c := w.create(nil)
	wantStatus(t, "before", w.get("/", c.token()), http.StatusOK)
	if list := w.nodes(); *list.Nodes[0].LeaseMilliseconds <= 2000 {
		t.Errorf("other nodes are told of %dms", *list.Nodes[0].LeaseMilliseconds)
	}
	server.Stop()
	var seen []heardEvent
	heardOf(t, &seen, "node_stale", map[string]any{"serving": true})
	wantStatus(t, "served", w.get("/", c.token()), http.StatusOK)
	if w.metric("warder_stale_requests_total") == "0" || w.metric("warder_lease_valid") != "0" {
		t.Error("the metrics do not show it")
	}
	if got := strings.Count(w.log(), "goes on accepting keys that may have been revoked"); got != 2 { // at start, and now
		t.Errorf("the log says %d times that keys are accepted", got)
	}
	heardOf(t, &seen, "node_stale", map[string]any{"serving": false})
	wantStatus(t, "over", w.get("/", c.token()), http.StatusServiceUnavailable)
}

// Other nodes are told of a longer bound before it counts, and of a shorter one
// after the longer has ceased to. A reload that fails leaves it as it was.
func TestBoundIsPromisedFirst(t *testing.T) {
	url := postgrestest.Database(t)
	master := usePostgres(t, url)
	w := start(t, onPostgres("", "max_staleness 400ms", ""))
	other := newPeer(t, url, master)
	bound := func() time.Duration {
		roll, err := other.store.Roll(t.Context())
		if err != nil || len(roll.Nodes) != 2 {
			t.Fatalf("%v: %+v", err, roll)
		}
		return roll.Nodes[0].Bound
	}
	if got := bound(); got != 400*time.Millisecond {
		t.Errorf("the bound is %s", got)
	}
	broken := strings.Replace(onPostgres("", "max_staleness 1h", ""), "reverse_proxy <upstream>", "reverse_proxy <upstream>\nwarder {\nrealm `\"`\n}", 1)
	if err := w.load(broken); err == nil {
		t.Fatal("a broken configuration is loaded")
	}
	eventually(t, "the bound to be as it was", func() bool { return bound() == 400*time.Millisecond })
	w.mustLoad(onPostgres("", "max_staleness 400ms\non_stale serve 1h", ""))
	if got := bound(); got != time.Hour+400*time.Millisecond {
		t.Errorf("the bound of what runs now is %s", got)
	}
	w.mustLoad(onPostgres("", "max_staleness 500ms", ""))
	eventually(t, "a shorter bound", func() bool { return bound() == 500*time.Millisecond })
}

// A node ends in order: the registry does not know it any more.
func TestNodeLeaves(t *testing.T) {
	url := postgrestest.Database(t)
	master := usePostgres(t, url)
	w := start(t, onPostgres("", "", ""))
	other := newPeer(t, url, master)
	wantStatus(t, "a good key", w.get("/", w.create(nil).token()), http.StatusOK)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if roll, err := other.store.Roll(t.Context()); err != nil || len(roll.Nodes) != 1 || roll.Nodes[0].Address != "peer" {
		t.Errorf("%v: %+v", err, roll)
	}
}

// Another pool or password is proved before the old one is let go of.
func TestConnectionIsReplaced(t *testing.T) {
	url := postgrestest.Database(t)
	usePostgres(t, url)
	w := start(t, onPostgres("", "", ""))
	c := w.create(nil)
	first := w.app().engine
	w.mustLoad(strings.Replace(onPostgres("", "", ""), "{env.WARDER_POSTGRES}", "{env.WARDER_POSTGRES} {\npool_size 6\n}", 1))
	if w.app().engine == first {
		t.Error("the pool is the old one")
	}
	wantStatus(t, "the new engine", w.get("/", c.token()), http.StatusOK)
	if list := w.nodes(); len(list.Nodes) != 1 {
		t.Errorf("the old node is still there: %+v", list)
	}
	t.Setenv("WARDER_POSTGRES", strings.Replace(url, "@", "wrong@", 1))
	if err := w.load(onPostgres("", "", "")); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	wantStatus(t, "what ran before", w.get("/", c.token()), http.StatusOK)
}

// A database that was set back to an older dump: what it does not know any
// more is not known here either, and it is told.
func TestLogReplaced(t *testing.T) {
	heard.take()
	server := postgrestest.Start(t, postgrestest.Options{})
	database := server.Database()
	usePostgres(t, database)
	w := start(t, onPostgres(watched, "max_staleness 1s", ""))
	kept := w.create(nil)
	dump := server.Dump(database)
	gone := w.create(nil)
	wantStatus(t, "before", w.get("/", gone.token()), http.StatusOK)
	server.Restore(dump)
	var seen []heardEvent
	heardOf(t, &seen, "log_replaced", nil)
	eventually(t, "the kept key", func() bool { return w.get("/", kept.token()).StatusCode == http.StatusOK })
	wantRefusal(t, "the lost key", w.get("/", gone.token()), invalid)
	if w.metric("warder_log_replaced_total") != "1" || strings.Count(w.log(), "does not hold what was applied") != 1 {
		t.Error("it is not counted, or told more than once")
	}
}

// The first start waits for the database, and then says in one line why it
// gives up, without a secret.
func TestPostgresNeverThere(t *testing.T) {
	module := &PostgresStore{resolved: keystore.Secret("postgres://warder:hidden@" + freeAddress(t) + "/warder")}
	ctx, cancel := context.WithTimeout(t.Context(), 2*connectDelay)
	defer cancel()
	began := time.Now()
	_, err := module.Open(ctx, keystore.NewMasterKey(), keystore.MasterKey{}, zap.NewNop())
	if err == nil || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "connect") {
		t.Errorf("err = %v", err)
	}
	if time.Since(began) < connectDelay {
		t.Error("it was tried once")
	}
}

func TestPostgresRefusals(t *testing.T) {
	url := postgrestest.Database(t)
	usePostgres(t, url)
	t.Setenv("EMPTY", "")
	for _, row := range []struct{ from, to, want string }{
		{"master_key {env.WARDER_MASTER_KEY}", "", "master_key"},
		{"{env.WARDER_POSTGRES}", url, "placeholder"},
		{"{env.WARDER_POSTGRES}", "{$WARDER_POSTGRES}", "placeholder"},
		{"{env.WARDER_POSTGRES}", `"host=localhost password=hidden"`, "placeholder"},
		{"{env.WARDER_POSTGRES}", "{env.EMPTY}", "url"},
		{"{env.WARDER_POSTGRES}", "{env.WARDER_POSTGRES} {\nschema Bad\n}", "schema"},
		{"{env.WARDER_POSTGRES}", "{env.WARDER_POSTGRES} {\npool_size 1\n}", "pool"},
		{"grace_period 6h", "max_staleness 50ms", "max_staleness"},
	} {
		w := newWorld(t)
		err := w.load(strings.Replace(onPostgres("", "grace_period 6h", ""), row.from, row.to, 1))
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want an error about %s", row.to, err, row.want)
		}
	}
}

func TestHoldsPassword(t *testing.T) {
	for text, want := range map[string]bool{
		"{env.WARDER_POSTGRES}": false, "postgres://u@h/d": false, "postgres://u:{env.P}@h/d": false, "postgres://u:{env.P}x@h/d": true,
		"postgres://u:p@h/d": true, "postgresql://h/d?password=p": true, "postgres://h/d?password={env.P}": false, "postgres://{env.U}:p@h/d": true,
		"postgres://u@{env.HOST}:{env.PORT}/d?sslpassword=p": true, "postgres://u@{env.HOST}:{env.PORT}/d": false, "postgres://u:%zz@h/d": true,
		"postgres://u@a:1,b:2/d": false, "host=h user=u": false, "host=h password=p": true, "password='p q' host=h": true, "PASSWORD = p": true,
		"host=h password={file./run/p}": false, "host=h password='{file./run/p}'": false, "host=h sslpassword=p": true, "host=h passfile=/p": false, "": false,
	} {
		if got := holdsPassword(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// No log, no answer of the admin endpoint and no file of Caddy's shows how the
// database is reached.
func TestPostgresIsNotShown(t *testing.T) {
	url := postgrestest.Database(t)
	usePostgres(t, url)
	w := start(t, strings.Replace(onPostgres("", "", ""), "persist_config off\n", "", 1))
	c := w.create(nil)
	wantStatus(t, "a good key", w.get("/", c.token()), http.StatusOK)
	w.mustLoad(onPostgres("", "cache_size 10", ""))
	_, rest, _ := strings.Cut(url, "://")
	login, _, _ := strings.Cut(rest, "@")
	_, password, _ := strings.Cut(login, ":")
	if password == "" {
		t.Fatalf("%s has no password", url)
	}
	shown := w.log()
	for _, path := range []string{"/config/", "/metrics", "/debug/vars", "/warder/v1/nodes"} {
		shown += w.do(http.MethodGet, "http://"+w.admin+path, "").Text
	}
	if strings.Contains(shown, password) || !strings.Contains(shown, "{env.WARDER_POSTGRES}") {
		t.Error("the password is shown, or what was searched does not even show its placeholder")
	}
}

// Caddyfile.postgres.example itself, but for ports and places.
func TestPostgresExample(t *testing.T) {
	url := postgrestest.Database(t)
	master := usePostgres(t, url)
	text, err := os.ReadFile(filepath.Join("..", "Caddyfile.postgres.example"))
	if err != nil {
		t.Fatal(err)
	}
	api, mount := freeAddress(t), freeAddress(t)
	example := strings.NewReplacer(
		"\n{\n", "\n{\n"+globals+quietLog, ":8080", ":<port>", "127.0.0.1:9000", api, ":9000", ":"+portOf(api),
		"#:8081 {\n#\tbind 127.0.0.1\n#\twarder_admin\n#}", ":"+portOf(mount)+" {\n\tbind 127.0.0.1\n\twarder_admin\n}",
	).Replace(string(text))
	w := start(t, example)
	other := newPeer(t, url, master)
	c := w.create(fields{"name": "demo", "scopes": []string{"hello:read", "warder:admin"}})
	r := w.get("/v1", c.token())
	wantStatus(t, "the demo API", r, http.StatusOK)
	if r.Text != "Hello from the API behind, to "+string(c.ID) {
		t.Errorf("the demo API wrote %s", r.Text)
	}
	wantStatus(t, "public", w.get("/healthz"), http.StatusOK)
	wantStatus(t, "nobody", w.get("/v1"), http.StatusUnauthorized)
	wantStatus(t, "an access token", w.get("/v1", "Authorization: Bearer "+w.accessToken(c, "")), http.StatusOK)
	if r := w.do(http.MethodGet, "http://"+mount+"/v1/nodes", "", c.bearer()); !strings.Contains(r.Text, `"address":"peer"`) {
		t.Errorf("%d %s", r.StatusCode, r.Text)
	}
	w.command("keys", "block", string(c.ID), "--wait", "20s").done()
	if !other.blocked(c) {
		t.Error("the other node does not know")
	}
	wantRefusal(t, "blocked", w.get("/v1", c.token()), blocked)
}
