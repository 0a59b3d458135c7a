package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/keystore"
)

// reloads are configurations that differ in what a handler can differ in.
var reloads = []string{
	guarded("", ""),
	guarded("grace_period 1h", "public /healthz\nrealm other"),
	guarded("cache_size 5000", "require scope hello:read"),
}

// Twenty reloads under 64 connections, half of them kept alive: nobody
// notices, nothing is read from the store again, and a key blocked while a
// reload is under way is refused from the answer on.
func TestReloadUnderLoad(t *testing.T) {
	w := newWorld(t)
	listen := onOneSocket(t, w)
	w.mustLoad(listen(reloads[0]))
	c := w.create(fields{"scopes": []string{"hello:read"}})
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	wantStatus(t, "warming up", w.get("/", c.token()), http.StatusOK)
	engine, before := w.app().engine, w.lookups()
	w.upstream.take()
	stop := make(chan struct{})
	var served atomic.Int64
	var clients sync.WaitGroup
	for i := range 64 {
		clients.Go(func() {
			header := c.token()
			if i%4 < 2 {
				header = minted
			}
			served.Add(readUntil(t, w, stop, i%2 == 0, header))
		})
	}
	for i := range 20 {
		if i%5 == 4 {
			blockDuringReload(t, w, listen(reloads[i%len(reloads)]))
			continue
		}
		w.reloadThroughAdmin(t, listen(reloads[i%len(reloads)]))
	}
	close(stop)
	clients.Wait()
	passed := int64(len(w.upstream.take()))
	if got := served.Load() + 4; got < 64 || got != passed { // each of the blocked keys passed once
		t.Errorf("%d requests were answered of %d that the API behind received", got, passed)
	}
	if w.app().engine != engine {
		t.Error("the engine did not survive")
	}
	if got := w.lookups() - before; got != 4 { // one for each key that was blocked
		t.Errorf("%d look-ups, want only those of the new keys, 4", got)
	}
	wantEngines(t, 1)
}

// onOneSocket makes configurations serve on one socket that stays open, as
// under socket activation. Otherwise Caddy opens a second one on the same port
// for each configuration, and Linux resets what waits in the queue of the
// first (unless net.ipv4.tcp_migrate_req is set): no gate could help that.
func onOneSocket(t *testing.T, w *world) (listen func(string) string) {
	t.Helper()
	l, err := net.Listen("tcp", w.gate)
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	_ = l.Close() // the file keeps it open, and nobody accepts from it
	return func(text string) string {
		text = strings.Replace(text, "bind 127.0.0.1", fmt.Sprintf("bind fd/%d", file.Fd()), 1)
		return strings.Replace(text, "reverse_proxy <upstream>", patientProxy, 1)
	}
}

// patientProxy does not give up on the API behind while a busy machine keeps
// a connection to it waiting: that would be the proxy's refusal, not the gate's.
const patientProxy = "reverse_proxy <upstream> {\ntransport http {\ndial_timeout 1m\n}\n}"

// readUntil asks without a pause and returns how often it was served. A
// connection that ends before a byte of an answer is tried anew, as clients
// do: net/http closes what a server that is being replaced has accepted but
// not yet begun to serve, with and without a gate.
func readUntil(t *testing.T, w *world, stop <-chan struct{}, kept bool, header string) (served int64) {
	transport := &http.Transport{DisableKeepAlives: !kept}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for {
		select {
		case <-stop:
			return served
		default:
		}
		r, _ := http.NewRequest(http.MethodGet, "http://"+w.gate+"/x", nil)
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		answer, err := client.Do(r)
		if unserved(err) {
			continue
		}
		if err != nil {
			t.Errorf("a request failed: %v", err)
			return served
		}
		read, err := readResponse(answer)
		if err != nil || read.StatusCode != http.StatusOK {
			t.Errorf("a request was answered %d %s %v", read.StatusCode, read.Text, err)
			return served
		}
		served++
	}
}

func (w *world) reloadThroughAdmin(t *testing.T, text string) {
	t.Helper()
	config, err := adapt(w.fill(text))
	if err != nil {
		t.Fatal(err)
	}
	// The endpoint is replaced by its own answer, so the connection ends.
	r := w.insist(http.MethodPost, "http://"+w.admin+"/load", string(config), "Content-Type: application/json", "Cache-Control: must-revalidate")
	wantStatus(t, "/load", r, http.StatusOK)
}

func blockDuringReload(t *testing.T, w *world, text string) {
	t.Helper()
	c := w.create(fields{"scopes": []string{"hello:read"}})
	w.untilAnswered(t, c, func(r response) { wantStatus(t, "a new key", r, http.StatusOK) })
	loaded := make(chan error)
	go func() { loaded <- w.load(text) }()
	w.act(c, "block")
	for range 10 {
		w.untilAnswered(t, c, func(r response) { wantRefusal(t, "blocked during a reload", anyRealm(r), blocked) })
	}
	if err := <-loaded; err != nil {
		t.Error(err)
	}
	w.untilAnswered(t, c, func(r response) { wantRefusal(t, "blocked during a reload", anyRealm(r), blocked) })
}

// untilAnswered asks until a connection is not one that a reload closed.
func (w *world) untilAnswered(t *testing.T, c credential, check func(response)) {
	t.Helper()
	check(w.insist(http.MethodGet, "http://"+w.gate+"/x", "", c.token()))
}

// anyRealm makes answers of different configurations comparable.
func anyRealm(r response) response {
	challenge := r.Header.Get("Www-Authenticate")
	r.Header.Set("Www-Authenticate", strings.Replace(challenge, `realm="other"`, `realm="warder"`, 1))
	return r
}

// wantEngines: so many stores are open, and each as often in use as there are
// configurations that hold it.
func wantEngines(t *testing.T, want int) {
	t.Helper()
	got := 0
	engines.Range(func(any, any) bool { got++; return true })
	if got != want {
		t.Errorf("%d engines are open, want %d", got, want)
	}
}

// References counts the configurations that hold the engine.
func (w *world) references() int {
	w.t.Helper()
	n, _ := engines.References(w.app().pooled)
	return n
}

// A configuration that does not work leaves the old one as it was: serving,
// managed, and alone in using the store.
func TestBrokenReload(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	engine := w.app().engine
	foreign := newUpstream(t)
	occupied := strings.TrimPrefix(foreign.URL, "http://")
	for name, text := range map[string]string{
		"option":           guarded("prefix not-this", ""),
		"handler's option": guarded("", "require type gold"),
		"master key":       guarded("master_key AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""),
		"short master key": guarded("master_key AAAA", ""),
		"another store":    strings.Replace(guarded("", ""), "sqlite <dir>/warder.db", "sqlite <dir>/caddy.log/x.db", 1),
		"taken port":       guarded("", "") + "http://:" + portOf(occupied) + " {\nbind 127.0.0.1\nrespond hello\n}\n",
		"issuer":           strings.Replace(guarded("", ""), "issuer http://", "issuer ftp://", 1),
		"smaller cache":    guarded("cache_size 1\nprefix not-this", ""),
	} {
		if err := w.load(text); err == nil {
			t.Fatalf("%s: the configuration works", name)
		}
		wantStatus(t, name, w.get("/", c.token()), http.StatusOK)
		wantStatus(t, name, w.get("/", "Authorization: Bearer "+w.accessToken(c, "")), http.StatusOK)
		w.act(c, "deactivate")
		wantRefusal(t, name, w.get("/", c.token()), deactivated)
		w.act(c, "activate")
		if w.app().engine != engine || w.references() != 1 {
			t.Errorf("%s: the engine is used by %d configurations, want 1", name, w.references())
		}
		wantEngines(t, 1)
	}
}

// A reload that goes back in time does not either: the last that works speaks.
func TestEngineFollowsItsUsers(t *testing.T) {
	w := start(t, guarded("", ""))
	wantEngines(t, 1)
	c := w.create(nil)
	w.mustLoad(strings.ReplaceAll(guarded("", ""), "warder.db", "other.db"))
	wantEngines(t, 1)
	wantRefusal(t, "a key of another store", w.get("/", c.token()), invalid)
	w.mustLoad(guarded("", ""))
	wantEngines(t, 1)
	wantStatus(t, "its own store again", w.get("/", c.token()), http.StatusOK)
	w.mustLoad(siteConfig("", "", "respond hello")) // a global option without a handler still is an app
	wantEngines(t, 1)
	w.mustLoad("{" + globals + "}\nhttp://:<port> {\nbind 127.0.0.1\nrespond hello\n}\n")
	wantEngines(t, 0)
	r := w.do(http.MethodGet, "http://"+w.admin+"/warder/v1/keys", "")
	wantStatus(t, "management without an app", r, http.StatusServiceUnavailable)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.mustLoad(guarded("", ""))
	wantStatus(t, "after a restart", w.get("/", c.token()), http.StatusOK)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	wantEngines(t, 0)
}

// Whoever still holds the view of an engine that is closed, as a request that
// outlived its configuration does, finds it trusting nothing: a warm key, too,
// is not admitted by what can no longer be followed.
func TestClosedEngineTrustsNothing(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	held := w.app().gate.authenticator
	presented, err := keystore.ParseAuthorization(keystore.DefaultPrefix, "Token "+string(c.APIKey))
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := held.Authenticate(context.Background(), presented, time.Now()); err != nil {
		t.Fatalf("while the engine runs: %v", err)
	}
	if _, err := held.Authenticate(impatient, presented, time.Now()); err != nil {
		t.Fatalf("warm, while the engine runs: %v", err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	wantEngines(t, 0)
	if _, err := held.Authenticate(impatient, presented, time.Now()); !errors.Is(err, keystore.ErrStale) {
		t.Errorf("after the engine was closed: %v, want %v", err, keystore.ErrStale)
	}
}

// A new database under a configured master key may stand where a volume was not
// mounted: it is told once, and loudly.
func TestNewDatabaseIsTold(t *testing.T) {
	setMasterKeys(t)
	w := start(t, guarded(oneKey, ""))
	told := func() (lines []string) {
		for line := range strings.Lines(w.log()) {
			if strings.Contains(line, "made a new database") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	lines := told()
	if len(lines) != 1 || !strings.Contains(lines[0], `"level":"warn"`) || !strings.Contains(lines[0], filepath.Join(w.dir, "warder.db")) {
		t.Fatalf("the first start told %q", lines)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.mustLoad(guarded(oneKey, ""))
	if lines := told(); len(lines) != 1 {
		t.Errorf("the second start told %q", lines[1:])
	}
}

const (
	oneKey     = "master_key {env.WARDER_TEST_ONE}"
	anotherKey = "master_key {env.WARDER_TEST_ANOTHER}"
)

func setMasterKeys(t *testing.T) {
	t.Setenv("WARDER_TEST_ONE", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	t.Setenv("WARDER_TEST_ANOTHER", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=")
}

// The master key is what it was, or the reload is refused.
func TestMasterKeyOnReload(t *testing.T) {
	setMasterKeys(t)
	w := start(t, guarded(oneKey, ""))
	c := w.create(nil)
	for _, app := range []string{anotherKey, "", "previous_" + anotherKey + "\n" + anotherKey} {
		if err := w.load(guarded(app, "")); err == nil || !strings.Contains(err.Error(), "master_key") {
			t.Errorf("%q: %v, want an error about master_key", app, err)
		}
		wantStatus(t, "the old configuration", w.get("/", c.token()), http.StatusOK)
	}
	w.mustLoad(guarded(oneKey, ""))
	w.mustLoad(guarded("previous_"+oneKey+"\n"+anotherKey, "")) // a change of the key, announced
	wantStatus(t, "under the new key", w.get("/", c.token()), http.StatusOK)
	if err := w.load(guarded(oneKey, "")); err == nil {
		t.Error("the replaced key still opens the store")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.mustLoad(guarded(anotherKey, ""))
	wantStatus(t, "after a restart under the new key", w.get("/", c.token()), http.StatusOK)
}

// A configuration that is refused has changed nothing, least of all the key
// under which the store is sealed.
func TestRefusedReloadSealsNothing(t *testing.T) {
	setMasterKeys(t)
	w := start(t, guarded(oneKey, ""))
	c := w.create(nil)
	if err := w.load(guarded("previous_"+oneKey+"\n"+anotherKey, "require type nonsense")); err == nil {
		t.Fatal("a broken configuration was accepted")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.mustLoad(guarded(oneKey, ""))
	wantStatus(t, "a restart with the old configuration", w.get("/", c.token()), http.StatusOK)
}

// A master key that stands in the configuration could be read by whoever reads
// the configuration.
func TestLiteralMasterKeyIsRefused(t *testing.T) {
	w := start(t, guarded("", ""))
	err := w.load(guarded("master_key MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", ""))
	if err == nil || !strings.Contains(err.Error(), "must be a placeholder") || strings.Contains(err.Error(), "MDEy") {
		t.Errorf("a literal master key: %v", err)
	}
}

// Policies are the configuration's, facts the engine's.
func TestPoliciesOfTheNewConfiguration(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	w.mustLoad(guarded("prefix acme", ""))
	wantRefusal(t, "the old prefix", w.get("/", c.token()), invalid)
	wantStatus(t, "Basic has no prefix", w.get("/", c.basic()), http.StatusOK)
	renamed := "Authorization: Token " + strings.Replace(c.APIKey.Reveal(), "wdr_", "acme_", 1)
	wantRefusal(t, "the checksum covers the prefix", w.get("/", renamed), invalid)
	if fresh := w.create(nil); !strings.HasPrefix(fresh.APIKey.Reveal(), "acme_") {
		t.Error("a new key has the old prefix")
	} else {
		wantStatus(t, "the new prefix", w.get("/", fresh.token()), http.StatusOK)
	}
	for _, row := range []struct{ app, ends string }{{"grace_period 90m", "90m"}, {"", "6h"}} {
		w.mustLoad(guarded(row.app, ""))
		d := w.create(nil)
		next := w.reissue(d, "rotate", nil)
		if next.GraceEnd == nil {
			t.Fatalf("%s: there is no grace period", row.ends)
		}
		if life := next.GraceEnd.Sub(next.CreatedAt).Round(60e9); strings.TrimSuffix(fmt.Sprint(life), "0s") != map[string]string{"90m": "1h30m", "6h": "6h0m"}[row.ends] {
			t.Errorf("the grace period is %s, want %s", life, row.ends)
		}
	}
}

// Without an issuer there are no access tokens, old ones included.
func TestIssuerTakenAway(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	w.mustLoad(siteConfig("", "", "warder\nreverse_proxy <upstream>"))
	wantRefusal(t, "an access token", w.get("/", minted), invalid)
	wantStatus(t, "its key", w.get("/", c.token()), http.StatusOK)
	w.mustLoad(strings.Replace(guarded("", ""), "issuer http://<gate>", "issuer http://other.example", 1))
	wantRefusal(t, "a token of another issuer", w.get("/", minted), invalid)
	w.mustLoad(guarded("", ""))
	wantStatus(t, "the issuer is back", w.get("/", minted), http.StatusOK)
}
