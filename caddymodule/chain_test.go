package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// An error route may lead to an API, too: it sees neither the credential nor
// an identity that the client made up.
func TestErrorRoutesGetNoCredential(t *testing.T) {
	w := start(t, siteConfig("", "", "warder {\nrequire scope nope:nope\n}\nreverse_proxy <upstream>\nhandle_errors {\nreverse_proxy <upstream>\n}"))
	c := w.create(nil)
	for name, path := range map[string]string{"refused by scope": "/x", "refused by path": "/a/%2e%2e/x"} {
		w.get(path, c.token(), "X-Warder-Key-Id: forged")
		got := w.upstream.one(t).Header
		if got.Get("Authorization") != "" || got.Get("X-Warder-Key-Id") != "" {
			t.Errorf("%s: the error route was told %v", name, got)
		}
	}
}

// Whatever a second handler asks, it leaves the identity that the first one
// set, and counts no request twice.
func TestSecondHandlerKeepsTheIdentity(t *testing.T) {
	for name, second := range map[string]string{
		"shadow": "shadow\nrequire scope nope:nope", "public": "public /x", "plain": "realm other",
	} {
		w := start(t, siteConfig("", "", "route {\nwarder\nwarder {\n"+second+"\n}\nreverse_proxy <upstream>\n}"))
		c := w.create(nil)
		before := w.metric(`warder_requests_admitted_total{credential="key"}`)
		wantStatus(t, name, w.get("/x", c.token()), http.StatusOK)
		if got := w.upstream.one(t).Header.Get("X-Warder-Key-Id"); got != string(c.ID) {
			t.Errorf("%s: the API behind was told of key %q, want %q", name, got, c.ID)
		}
		after := w.metric(`warder_requests_admitted_total{credential="key"}`)
		if none := w.metric(`warder_requests_admitted_total{credential="none"}`); before != "0" || after != "1" || none != "0" {
			t.Errorf("%s: counted %s, then %s, and %s without a credential", name, before, after, none)
		}
	}
}

// No configuration, and so no client through one, writes an admission: only a
// warder does. What can be read of one is the key's id.
func TestAdmissionCannotBeWritten(t *testing.T) {
	w := start(t, siteConfig("", "", "route {\nvars warder_admission {header.X-Made-Up}\nwarder\nrespond {vars.warder_admission}\n}"))
	c := w.create(nil)
	wantStatus(t, "made up", w.get("/x", "X-Made-Up: "+string(c.ID)), http.StatusUnauthorized)
	got := w.get("/x", c.token(), "X-Made-Up: somebody")
	wantStatus(t, "admitted", got, http.StatusOK)
	if got.Text != string(c.ID) {
		t.Errorf("the variable shows %q, want %q", got.Text, c.ID)
	}
}

// Who was admitted is still so where an error of the API behind leads to.
func TestAdmissionHoldsInErrorRoutes(t *testing.T) {
	w := start(t, siteConfig("", "", "warder\nerror 502\nhandle_errors {\nwarder {\nrequire scope hello:read\n}\nreverse_proxy <upstream>\n}"))
	for scope, want := range map[string]int{"hello:read": http.StatusOK, "hello:write": http.StatusBadGateway} { // the error stays
		c := w.create(fields{"name": scope, "scopes": []string{scope}})
		wantStatus(t, scope, w.get("/x", c.token()), want)
		if want != http.StatusOK {
			continue
		}
		if got := w.upstream.one(t).Header; got.Get("X-Warder-Key-Id") != string(c.ID) || got.Get("Authorization") != "" {
			t.Errorf("the error route was told %v", got)
		}
	}
}

// A page that lets its own name point at this machine finds no management,
// though its requests come from here.
func TestReboundNameFindsNoManagement(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost:2019": true, "LOCALHOST": true, "127.0.0.1:2019": true, "[::1]:2019": true, "::1": true,
		"evil.example:2019": false, "localhost.evil.example": false, "10.0.0.1:2019": false, "": false,
	} {
		if got := isLocalHost(host); got != want {
			t.Errorf("host %q is local: %v, want %v", host, got, want)
		}
	}
}

// What passes as a preflight can be nothing else to the API behind.
func TestPreflightStandsForNothingElse(t *testing.T) {
	preflight := func(change func(*http.Request)) bool {
		r := httptest.NewRequest(http.MethodOptions, "/", nil)
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Method", "POST")
		change(r)
		return isPreflight(r)
	}
	if !preflight(func(*http.Request) {}) {
		t.Fatal("a plain preflight is none")
	}
	for name, change := range map[string]func(*http.Request){
		"a body":           func(r *http.Request) { r.ContentLength = 3 },
		"a body in chunks": func(r *http.Request) { r.ContentLength = -1 },
		"another method":   func(r *http.Request) { r.Header.Set("X-Http-Method-Override", "DELETE") },
	} {
		if preflight(change) {
			t.Errorf("with %s it still passes", name)
		}
	}
}
