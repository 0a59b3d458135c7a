package caddymodule

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/keystore"
)

// usage is what the store knows of a key this month, by outcome, without
// writing down first what is still in memory.
func (w *world) usage(id keystore.KeyID) map[string]uint64 {
	w.t.Helper()
	month := keystore.DayOf(keystore.InstantOf(time.Now())).Month()
	rows, err := w.app().engine.store.Usage(w.t.Context(), keystore.UsageQuery{Key: id, FromMonth: month - 1, ToMonth: month})
	if err != nil {
		w.t.Fatal(err)
	}
	sums := make(map[string]uint64)
	for _, row := range rows {
		sums[row.Outcome.String()] += row.Requests
	}
	return sums
}

func (w *world) wantUsage(what string, id keystore.KeyID, want map[string]uint64) {
	w.t.Helper()
	got := w.usage(id)
	for outcome, n := range want {
		if got[outcome] != n {
			w.t.Errorf("%s: %d are %s, want %d", what, got[outcome], outcome, n)
		}
		delete(got, outcome)
	}
	if len(got) > 0 {
		w.t.Errorf("%s: there is also %v", what, got)
	}
}

// Every request of a key that is known is counted once, by what became of it.
func TestUsageByOutcome(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>", "warder_issuer\nroute {\nwarder {\npublic /public\nrequire scope hello:read hello:write\n}\nwarder {\nrequire type trial\n}\nreverse_proxy <upstream>\n}"))
	c := w.create(fields{"scopes": []string{"hello:read", "hello:write"}})
	elsewhere := w.permit("elsewhere", keystore.Rule{Paths: []string{"/elsewhere"}})
	ask := func(times int, header string) {
		for range times {
			w.get("/", header)
		}
	}
	ask(1, c.token()) // passes the first handler and not the second, and is one request
	w.get("/public", c.token())
	ask(2, "Authorization: Token "+c.APIKey.Reveal()[:70]+"1111111") // nobody knows whose
	w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24"} })
	ask(3, c.token())
	w.edit(c, func(e *keystore.Editable) { e.Networks, e.Permissions = nil, []string{elsewhere} })
	ask(4, c.basic())
	w.edit(c, func(e *keystore.Editable) { e.Permissions = nil })
	ask(5, "Authorization: Bearer "+w.accessToken(c, "hello:read"))
	w.limit(c, scarce(1))
	ask(8, c.token()) // one has been taken; no more is left under the new limit than under none
	w.limit(c, keystore.Limit{})
	w.act(c, "block")
	ask(7, c.token())
	w.act(c, "unblock")
	w.act(c, "deactivate")
	ask(8, c.token())
	w.act(c, "activate")
	next := w.reissue(c, "rotate", fields{"force": true})
	ask(9, c.token())
	w.act(next, "expire")
	ask(10, next.token())
	w.app().engine.flushUsage()
	w.wantUsage("all", c.ID, map[string]uint64{
		"allowed": 2, "network": 3, "permission": 4, "scope": 5, "limited": 7, "blocked": 7, "deactivated": 8, "superseded": 9, "expired": 10,
	})
}

// Nothing that was counted is lost or counted twice by a reload or a shutdown,
// under load.
func TestUsageAddsUp(t *testing.T) {
	config := guarded("", "")
	w := newWorld(t)
	listen := onOneSocket(t, w)
	w.mustLoad(listen(config))
	c := w.create(nil)
	var counted uint64
	for _, end := range []struct {
		name string
		do   func()
	}{
		{"reload", func() { w.reloadThroughAdmin(t, listen(config)) }},
		{"reload", func() { w.reloadThroughAdmin(t, listen(guarded("cache_size 10", ""))) }},
		{"shutdown", func() {
			if err := caddy.Stop(); err != nil {
				t.Error(err)
			}
			w.mustLoad(listen(config))
		}},
	} {
		stop, total := make(chan struct{}), make(chan int64, 8)
		var clients sync.WaitGroup
		for i := range 8 {
			clients.Go(func() { total <- readUntil(t, w, stop, i%2 == 0, c.token()) })
		}
		for before := len(w.upstream.take()); before < 200; before += len(w.upstream.take()) {
			time.Sleep(time.Millisecond)
		}
		end.do()
		close(stop)
		clients.Wait()
		close(total)
		for n := range total {
			counted += uint64(n)
		}
		w.mustLoad(listen(config)) // what this one replaces writes what it counted
		w.wantUsage("after a "+end.name, c.ID, map[string]uint64{"allowed": counted})
	}
	t.Logf("%d requests", counted)
}

// What the store does not take is kept for it, and told.
func TestUsageSurvivesAStoreThatFails(t *testing.T) {
	w := start(t, frailConfig(""))
	c := w.create(nil)
	end := (&troubles{usage: errors.New("disk is full")}).set()
	wantStatus(t, "counted", w.get("/", c.token()), http.StatusOK)
	w.app().engine.flushUsage()
	if got := w.metric("warder_usage_errors_total"); got != "1" {
		t.Errorf("%s failures counted, want 1", got)
	}
	w.wantUsage("while the store fails", c.ID, nil)
	end()
	w.app().engine.flushUsage()
	w.wantUsage("afterwards", c.ID, map[string]uint64{"allowed": 1})
	if !strings.Contains(w.log(), "writing usage failed; trying again") {
		t.Error("the log does not tell")
	}
}

// During a grace period one sees who still uses the old secret, whichever way
// it is shown, and since when nobody does.
func TestLastUseDuringGrace(t *testing.T) {
	w := start(t, guarded("grace_period 1h", ""))
	c := w.create(nil)
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	next := w.reissue(c, "rotate", nil)
	used := func() map[keystore.Generation]bool {
		t.Helper()
		last, err := w.app().service().LastUsed(t.Context(), []keystore.KeyID{c.ID}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		of := make(map[keystore.Generation]bool)
		for _, l := range last {
			if age := time.Since(l.At.Time()); age < -time.Second || age > time.Minute {
				t.Errorf("generation %d was last used %v ago", l.Generation, age)
			}
			of[l.Generation] = true
		}
		return of
	}
	if got := used(); len(got) != 0 {
		t.Errorf("used before it was: %v", got)
	}
	wantStatus(t, "new", w.get("/", next.token()), http.StatusOK)
	if got := used(); got[1] || !got[2] {
		t.Errorf("the new secret alone was used, and it says %v", got)
	}
	wantStatus(t, "old", w.get("/", minted), http.StatusOK)
	if got := used(); !got[1] || !got[2] {
		t.Errorf("both were used, and it says %v", got)
	}
	if _, err := w.app().service().MoveGraceEnd(t.Context(), keystore.LocalCaller(), c.ID, keystore.InstantOf(time.Now().Add(-time.Second)), 0, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, header := range map[string]string{"old": c.token(), "of old": minted} {
		wantRefusal(t, name+" after the grace period was closed", w.get("/", header), superseded)
	}
	wantStatus(t, "new", w.get("/", next.token()), http.StatusOK)
}
