package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

var (
	strangeNetwork = refused{403, "", "access_denied", "network"}
	unpermitted    = refused{403, `Bearer realm="warder", error="insufficient_scope", error_description="The key has no permission for this method and path."`, "insufficient_scope", "permission"}
)

// edit changes a key's free fields.
func (w *world) edit(c credential, change func(*keystore.Editable)) {
	w.t.Helper()
	_, err := w.app().service().Update(context.Background(), keystore.LocalCaller(), c.ID, 0, func(e *keystore.Editable) error {
		change(e)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// permit makes a permission for everybody's keys and returns its id.
func (w *world) permit(name string, rules ...keystore.Rule) string {
	w.t.Helper()
	p, err := w.app().service().CreatePermission(context.Background(), keystore.LocalCaller(), keystore.Permission{Name: name, Rules: rules}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return p.ID
}

// shown is a key in each of the four ways to show it.
func (w *world) shown(c credential) map[string]string {
	all := make(map[string]string)
	for _, kind := range kinds {
		all[kind.name] = kind.header(w, c)
	}
	return all
}

const trusting = "servers {\ntrusted_proxies static 127.0.0.0/8\ntrusted_proxies_strict\n}\n"

// The address that counts is Caddy's client IP: who is no trusted proxy is
// taken at its own address, whatever it says.
func TestNetworks(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	for name, header := range w.shown(c) {
		w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24", "2001:db8::/32"} })
		wantRefusal(t, name+" from elsewhere", w.get("/", header), strangeNetwork)
		for _, forged := range []string{"X-Forwarded-For: 203.0.113.7", "X-Real-Ip: 203.0.113.7", "Forwarded: for=203.0.113.7"} {
			wantRefusal(t, name+" with "+forged, w.get("/", header, forged), strangeNetwork)
		}
		w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"::ffff:127.0.0.0/104"} })
		wantStatus(t, name+" from here", w.get("/", header, "X-Forwarded-For: 203.0.113.7"), http.StatusOK)
		w.edit(c, func(e *keystore.Editable) { e.Networks = nil })
		wantStatus(t, name+" from anywhere", w.get("/", header), http.StatusOK)
	}
}

func TestNetworksBehindTrustedProxies(t *testing.T) {
	w := start(t, strings.Replace(guarded("", ""), "\twarder {", trusting+"\twarder {", 1))
	c := w.create(nil)
	w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24", "2001:db8::/32"} })
	for forwarded, passes := range map[string]bool{
		"203.0.113.7":               true,
		"2001:db8::7":               true,
		"::ffff:203.0.113.7":        true,
		"203.0.113.7, 127.0.0.9":    true, // by two of our proxies
		"198.51.100.1":              false,
		"203.0.113.7, 198.51.100.1": false, // its own invention, and where it is
		"2001:db9::7":               false,
		"nonsense":                  false,
	} {
		r := w.get("/", c.token(), "X-Forwarded-For: "+forwarded)
		if passes {
			wantStatus(t, forwarded, r, http.StatusOK)
		} else {
			wantRefusal(t, forwarded, r, strangeNetwork)
		}
	}
	wantRefusal(t, "the proxy itself", w.get("/", c.token()), strangeNetwork)
}

// A pair that was stolen from an allowed network is not traded elsewhere for a
// token, and the answer does not tell a thief that it is good. What a token
// of the key is, everybody learns who may ask, from wherever.
func TestTokenEndpointAsksNetworks(t *testing.T) {
	w := start(t, strings.Replace(guarded("", ""), "\twarder {", trusting+"\twarder {", 1))
	c, other := w.create(nil), w.create(nil)
	minted := w.accessToken(c, "")
	w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24"} })
	const form = "Content-Type: application/x-www-form-urlencoded"
	trade := func(secret credential, headers ...string) response {
		body := "grant_type=client_credentials&client_id=" + string(c.AccessKey) + "&client_secret=" + secret.SecretKey.Reveal()
		return w.do(http.MethodPost, "http://"+w.gate+"/token", body, append(headers, form)...)
	}
	wrong := trade(other)
	wantStatus(t, "a wrong secret", wrong, http.StatusUnauthorized)
	for name, r := range map[string]response{"elsewhere": trade(c), "elsewhere, forwarded": trade(c, "X-Forwarded-For: 198.51.100.7")} {
		wantStatus(t, name, r, http.StatusUnauthorized)
		if r.Text != wrong.Text || r.Header.Get("WWW-Authenticate") != wrong.Header.Get("WWW-Authenticate") {
			t.Errorf("%s: %s, and a wrong secret %s", name, r.Text, wrong.Text)
		}
	}
	wantStatus(t, "where it may be used", trade(c, "X-Forwarded-For: 203.0.113.7"), http.StatusOK)
	for verb, header := range map[string]string{"introspect": c.basic(), "revoke": c.basic()} {
		wantStatus(t, verb+" from elsewhere", w.do(http.MethodPost, "http://"+w.gate+"/"+verb, "token="+minted, header, form), http.StatusUnauthorized)
	}
	about := w.do(http.MethodPost, "http://"+w.gate+"/introspect", "token="+minted, other.basic(), form)
	if wantStatus(t, "introspection", about, http.StatusOK); !strings.Contains(about.Text, `"active":true`) {
		t.Errorf("introspection from elsewhere says %s", about.Text)
	}
}

// A request whose address nobody knows lies in no network.
func TestUnknownAddressLiesInNoNetwork(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"0.0.0.0/0", "::/0"} })
	h, answer := w.handler(new(Handler)), discarding{make(http.Header)}
	r := prepared(c.token(), "/")
	caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, "198.51.100.1")
	if err := h.ServeHTTP(answer, r, nowhere); err != nil || answer.header.Get("Content-Type") != "" {
		t.Errorf("an address that is known is refused: %v", err)
	}
	r = prepared(c.token(), "/").WithContext(context.Background())
	if err := h.ServeHTTP(answer, r, nowhere); err != nil || answer.header.Get("Content-Type") == "" {
		t.Errorf("an address that is not known passes: %v", err)
	}
}

// Frameworks behind let a header stand for the method. Such a request needs
// both permitted.
func TestPermissionsMeetMethodOverrides(t *testing.T) {
	w := start(t, guarded("", ""))
	c, free := w.create(nil), w.create(nil)
	id := w.permit("posts", keystore.Rule{Methods: []string{"POST", "PUT"}, Paths: []string{"/v1/*"}})
	w.edit(c, func(e *keystore.Editable) { e.Permissions = []string{id} })
	post := func(c credential, headers ...string) response {
		return w.do(http.MethodPost, "http://"+w.gate+"/v1/x", "", append(headers, c.token())...)
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		for _, method := range []string{"DELETE", "delete", " delete ", "PUT, DELETE", ""} {
			wantRefusal(t, name+": "+method, post(c, name+": "+method), unpermitted)
		}
		wantRefusal(t, name+" twice", post(c, name+": PUT", name+": DELETE"), unpermitted)
		wantStatus(t, name+": put", post(c, name+": put"), http.StatusOK)
		wantStatus(t, name+" of a key that may do everything", post(free, name+": DELETE"), http.StatusOK)
	}
	wantStatus(t, "none", post(c), http.StatusOK)
	folded := http.Header{"X_http_method_override": {" delete"}, "X.method.override": {"PUT"}, "X-Method-Overridden": {"GET"}}
	if got := overridingMethods(folded); len(got) != 2 { // a server may be told to expect such names
		t.Errorf("in other spellings: %q", got)
	}
}

// What a key is permitted, and a change of it, counts from the answer on, for
// every way to show the key.
func TestPermissions(t *testing.T) {
	w := start(t, guarded("", ""))
	service, admin, ctx := w.app().service(), keystore.LocalCaller(), context.Background()
	id := w.permit("reads", keystore.Rule{Methods: []string{"GET"}, Paths: []string{"/v1/*"}})
	c := w.create(nil)
	for name, header := range w.shown(c) {
		w.edit(c, func(e *keystore.Editable) { e.Permissions = nil })
		wantStatus(t, name+" without permissions", w.do(http.MethodPost, "http://"+w.gate+"/v2", "", header), http.StatusOK)
		w.edit(c, func(e *keystore.Editable) { e.Permissions = []string{id} })
		wantStatus(t, name, w.get("/v1/x", header), http.StatusOK)
		wantStatus(t, name+" HEAD", w.do(http.MethodHead, "http://"+w.gate+"/v1/x", "", header), http.StatusOK)
		wantRefusal(t, name+" elsewhere", w.get("/v2", header), unpermitted)
		wantRefusal(t, name+" by another method", w.do(http.MethodPost, "http://"+w.gate+"/v1/x", "", header), unpermitted)
		for paths, want := range map[string]int{"/v2/*": http.StatusForbidden, "/v1/*": http.StatusOK} {
			_, err := service.UpdatePermission(ctx, admin, id, 0, func(p *keystore.Permission) error {
				p.Rules = []keystore.Rule{{Methods: []string{"GET"}, Paths: []string{paths}}}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, name+" under "+paths, w.get("/v1/x", header), want)
		}
		if _, err := service.UpdatePermission(ctx, admin, id, 0, func(p *keystore.Permission) error {
			p.Rules = []keystore.Rule{{Methods: []string{"GET"}, Paths: []string{"/v1/*"}}}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// The rule decides about the very path that the API behind is asked for.
func TestPermissionsSeeThePathOfTheAPI(t *testing.T) {
	w := start(t, guarded("", "allow_encoded_slash"))
	c := w.create(nil)
	id := w.permit("open", keystore.Rule{Paths: []string{"/open/*", "/a/*/z", "/exact"}})
	w.edit(c, func(e *keystore.Editable) { e.Permissions = []string{id} })
	for target, want := range map[string]string{ // the URI at the API behind; a status: refused with it
		"/open/x":              "/open/x",
		"//open//x":            "/open/x",
		"/%6fpen/x":            "/open/x",
		"/open/%2e%2e/secret":  "400",
		"/open/../secret":      "400",
		"/open/..;/secret":     "400",
		"/open/x%5c..%5c..":    "400",
		"/open%2fx":            "403", // one segment "open%2Fx"
		"/open/..%2fsecret":    "400",
		"/open/a%2fsecret":     "/open/a%2Fsecret",
		"/OPEN/x":              "403",
		"/open":                "403",
		"/exact":               "/exact",
		"/exact/":              "403",
		"/exact?x=/open/":      "/exact?x=/open/",
		"/secret?/open/x":      "403",
		"/secret#/open/x":      "400",
		"/a/b/z":               "/a/b/z",
		"/a/b%2Fc/z":           "/a/b%2Fc/z",
		"/a/b/c/z":             "403",
		"/a//z":                "403",
		"http://other/open/x":  "/open/x",
		"http://other/secret":  "403",
		"/%252e%252e/open/x":   "403",
		"/secret/%2e%2e/open/": "400",
	} {
		r := w.rawGet(target, c.token())
		if r.StatusCode == http.StatusOK {
			if got := w.upstream.one(t).URI; got != want {
				t.Errorf("%s: the API behind was asked for %s, want %s", target, got, want)
			}
		} else if got := fmt.Sprint(r.StatusCode); got != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// Networks come before permissions, these before type and scope, and the
// limit last: who is refused uses none of it up.
func TestOrderOfRefusals(t *testing.T) {
	w := start(t, guarded("", "require scope hello:read hello:write"))
	c := w.create(nil)
	id := w.permit("other", keystore.Rule{Paths: []string{"/other"}})
	w.edit(c, func(e *keystore.Editable) {
		e.Networks, e.Permissions, e.Limit = []string{"203.0.113.0/24"}, []string{id}, keystore.Limit{Requests: 1, Burst: 1, Period: time.Hour}
	})
	for range 3 {
		wantRefusal(t, "everything is wrong", w.get("/", c.token()), strangeNetwork)
	}
	w.edit(c, func(e *keystore.Editable) { e.Networks = nil })
	wantRefusal(t, "no permission", w.get("/", c.token()), unpermitted)
	w.edit(c, func(e *keystore.Editable) { e.Permissions = nil })
	wantRefusal(t, "no scope", w.get("/", c.token()), unscoped)
	w.edit(c, func(e *keystore.Editable) { e.Scopes = []string{"hello:read", "hello:write"} })
	wantStatus(t, "the only one", w.get("/", c.token()), http.StatusOK)
	wantStatus(t, "one more", w.get("/", c.token()), http.StatusTooManyRequests)
	w.act(c, "block")
	wantRefusal(t, "blocked comes before all", w.get("/", c.token()), blocked)
}
