package caddymodule

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func wantHealthy(t *testing.T, what string, r response) {
	t.Helper()
	wantStatus(t, what, r, http.StatusOK)
	if r.Text != `{"status":"ok"}`+"\n" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %v %q", what, r.Header, r.Text)
	}
}

func wantUnready(t *testing.T, what string, r response, code string) {
	t.Helper()
	wantStatus(t, what, r, http.StatusServiceUnavailable)
	var body struct{ Code, Detail string }
	if err := json.Unmarshal([]byte(r.Text), &body); err != nil || body.Code != code || body.Detail == "" {
		t.Errorf("%s: %q, want %s", what, r.Text, code)
	}
	if r.Header.Get("Cache-Control") != "no-store" || strings.Contains(r.Text, "down") {
		t.Errorf("%s: %v %q", what, r.Header, r.Text)
	}
	wantRetryAfter(t, what, r, true)
}

// Both paths answer to anybody on a site that is guarded as a whole; all
// others are guarded.
func TestHealth(t *testing.T) {
	w := start(t, strings.Replace(guarded("", ""), "warder_issuer", "warder_health\nwarder_issuer", 1))
	for _, path := range []string{"/healthz", "/readyz"} {
		wantHealthy(t, path, w.get(path))
		wantHealthy(t, path+" with a bad credential", w.get(path, "Authorization: Token nonsense"))
		head := w.do(http.MethodHead, "http://"+w.gate+path, "")
		wantStatus(t, "HEAD "+path, head, http.StatusOK)
		if head.Text != "" || head.Header.Get("Content-Length") != "16" {
			t.Errorf("HEAD %s: %v %q", path, head.Header, head.Text)
		}
		for _, method := range []string{http.MethodPost, http.MethodOptions, http.MethodDelete} {
			r := w.do(method, "http://"+w.gate+path, "")
			wantStatus(t, method+" "+path, r, http.StatusMethodNotAllowed)
			if r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %v", method, path, r.Header)
			}
		}
		for _, other := range []string{path + "/", path + "/x", "/x" + path, path + "z", strings.ToUpper(path)} {
			wantRefusal(t, other, w.get(other), missing)
		}
	}
	if got := w.upstream.take(); len(got) != 0 {
		t.Errorf("%d requests went through", len(got))
	}
}

// On a port of its own, below a prefix, without a gate.
func TestHealthElsewhere(t *testing.T) {
	other := freeAddress(t)
	w := start(t, guarded("", "")+"http://:"+portOf(other)+" {\nbind 127.0.0.1\nwarder_health {\npath_prefix /warder\n}\n}\n")
	wantHealthy(t, "prefixed", w.do(http.MethodGet, "http://"+other+"/warder/readyz", ""))
	wantHealthy(t, "prefixed", w.do(http.MethodGet, "http://"+other+"/warder/healthz", ""))
	if r := w.do(http.MethodGet, "http://"+other+"/readyz", ""); strings.Contains(r.Text, "status") {
		t.Errorf("%s", r.Text)
	}
	wantRefusal(t, "where there is no such directive", w.get("/readyz"), missing)
}

// healthy is a frail world with the directive.
func healthy(t *testing.T, app string) *world {
	return start(t, strings.Replace(strings.Replace(guarded(app, ""), "store sqlite", "store frail", 1), "warder_issuer", "warder_health\nwarder_issuer", 1))
}

func TestReadinessSaysWhy(t *testing.T) {
	w := healthy(t, "")
	wantHealthy(t, "at first", w.get("/readyz"))
	end := (&troubles{lookup: func(context.Context) error { return errStoreDown }}).set()
	defer end()
	eventually(t, "the store to be asked again", func() bool { return w.get("/readyz").StatusCode != http.StatusOK })
	wantUnready(t, "without the store", w.get("/readyz"), "store_unavailable")
	wantHealthy(t, "the process", w.get("/healthz"))
	w.command("health").fails(exitUnavailable, "the store does not answer")
	w.command("health", "--live").done()
	command(t, "health", "--url", "http://"+w.gate).fails(exitUnavailable, "the store does not answer")
	command(t, "health", "--url", "http://"+w.gate, "--live").done()
	end()
	eventually(t, "the store to be asked again", func() bool { return w.get("/readyz").StatusCode == http.StatusOK })

	c := w.create(nil)
	end = (&troubles{feed: errStoreDown}).set()
	defer end()
	w.manage(http.StatusServiceUnavailable, http.MethodPost, "/keys/"+string(c.ID)+"/block", nil)
	wantUnready(t, "the lease is over", w.get("/readyz"), "lease_over")
	w.command("health").fails(exitUnavailable, "refuses every request")
	end()
	eventually(t, "the lease", func() bool { return w.get("/readyz").StatusCode == http.StatusOK })
}

// An app that does not run yet is not ready, and neither is a process that is
// about to end; both live.
func TestReadinessOfAnAppThatDoesNotRun(t *testing.T) {
	w := healthy(t, "")
	app := w.app()
	app.engine.leave(app)
	wantUnready(t, "not running", w.get("/readyz"), "starting")
	wantHealthy(t, "the process", w.get("/healthz"))
	app.engine.enter(app)
	wantHealthy(t, "running", w.get("/readyz"))
}

// However many ask, the store is read once a second.
func TestReadinessIsCheap(t *testing.T) {
	w := healthy(t, "")
	var reads atomic.Int64
	defer (&troubles{lookup: func(context.Context) error { reads.Add(1); return nil }}).set()()
	began := time.Now()
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			for range 50 {
				if r, err := w.try(http.MethodGet, "http://"+w.gate+"/readyz", ""); err != nil || r.StatusCode != http.StatusOK {
					t.Errorf("%v %v", r, err)
				}
			}
		})
	}
	asking.Wait()
	if most := int64(time.Since(began)/time.Second) + 1; reads.Load() > most {
		t.Errorf("%d reads for 1000 askings in %s, want at most %d", reads.Load(), time.Since(began), most)
	}
}

func TestHealthCommand(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	w := start(t, strings.Replace(strings.Replace(guarded("", ""), "warder_issuer", "warder_health\nwarder_issuer", 1), "{"+globals, "{"+strings.Replace(globals, "admin <admin>", "admin unix/"+socket, 1), 1))
	before := caddy.DefaultAdminListen
	caddy.DefaultAdminListen = "unix/" + socket // as the environment variable CADDY_ADMIN does
	defer func() { caddy.DefaultAdminListen = before }()
	for _, args := range [][]string{
		{}, {"--live"}, {"--address", "unix/" + socket}, {"--url", "http://" + w.gate}, {"--url", "http://" + w.gate + "/", "--live"},
	} {
		if out := command(t, append([]string{"health"}, args...)...).done().out; out != "ok\n" {
			t.Errorf("%s: %q", args, out)
		}
	}
	command(t, "health", "--url", "http://"+w.gate+"/elsewhere").fails(exitForbidden) // the gate's own refusal
	command(t, "health", "--url", "http://"+w.upstream.Listener.Addr().String()).fails(exitUnreachable, "warder_health")
	command(t, "health", "--url", "http://"+freeAddress(t)).fails(exitUnreachable, "nothing answers")
	command(t, "health", "--address", freeAddress(t)).fails(exitUnreachable, "nothing answers")
	command(t, "health", "--url", "nonsense").fails(exitUsage, "--url")
	command(t, "health", "--url", "http://"+w.gate, "--address", "localhost:1").fails(exitUsage, "exclude")
	command(t, "health", "now").fails(exitUsage)
}

// What accepts and never answers ends the command all the same.
func TestHealthCommandGivesUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	address := silent.Addr().String()
	command(t, "health", "--address", address).fails(exitUnreachable, "in time")
	command(t, "health", "--url", "http://"+address).fails(exitUnreachable, "in time")
}
