package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// administered is a site with the management API beside a gate.
func administered(options string) string {
	return siteConfig("", "issuer http://<gate>", "warder_issuer\nwarder_admin {\n"+options+"\n}\nwarder\nreverse_proxy <upstream>")
}

// call sends a management call to the site.
func (w *world) call(method, path, body string, headers ...string) response {
	w.t.Helper()
	if body != "" {
		kind := "application/json"
		if method == http.MethodPatch {
			kind = "application/merge-patch+json"
		}
		headers = append(headers, "Content-Type: "+kind)
	}
	return w.do(method, "http://"+w.gate+path, body, headers...)
}

func (w *world) holder(scopes ...string) credential {
	w.t.Helper()
	return w.create(fields{"scopes": scopes})
}

// wantNo is a refusal of the management API.
func wantNo(t *testing.T, what string, r response, status int, code string) {
	t.Helper()
	var problem struct{ Code string }
	if err := json.Unmarshal([]byte(r.Text), &problem); err != nil || r.StatusCode != status || problem.Code != code {
		t.Errorf("%s: %d %s, want %d %s", what, r.StatusCode, r.Text, status, code)
	}
	if r.Header.Get("Content-Type") != "application/problem+json" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: headers %v", what, r.Header)
	}
	if challenged := r.Header.Get("WWW-Authenticate") != ""; challenged != (status == http.StatusUnauthorized) {
		t.Errorf("%s: challenge %q", what, r.Header.Get("WWW-Authenticate"))
	}
}

// Whoever serves a resource has seen the tokens for it, and manages nothing by
// them, in whichever dialect.
func TestManagementRefusesTokensForOthers(t *testing.T) {
	const resource = "https://files.example/v1"
	w := start(t, strings.Replace(speaking(""), "issuer http://<gate>\n", "issuer http://<gate> {\nresources "+resource+"\n}\n", 1))
	c := w.holder("warder:admin")
	mint := func(resources ...string) string {
		r := w.oauth("/token", c.basic(), url.Values{"grant_type": {"client_credentials"}, "resource": resources})
		var minted struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(r.Text), &minted); err != nil || minted.Token == "" {
			t.Fatalf("%d %s", r.StatusCode, r.Text)
		}
		return "Authorization: Bearer " + minted.Token
	}
	other, both := mint(resource), mint(resource, "http://"+w.gate)
	wantStatus(t, "at the gate", w.get("/", other), http.StatusOK)
	wantNo(t, "at the management API", w.call("GET", "/v1/self", "", other), http.StatusUnauthorized, "invalid_token")
	for path, status := range map[string]int{
		"/client/v4/accounts/acme/access/keys": 401, "/api/web/custom/namespaces/system/whoami": 401, "/v2/auth/token": 400, "/key": 401,
	} {
		wantStatus(t, path, w.call("GET", path, "", other), status)
		wantStatus(t, path+" for both", w.call("GET", path, "", both), http.StatusOK)
	}
}

// Exactly its own paths: what is not one of them goes on to the gate.
func TestAdminHandlerPaths(t *testing.T) {
	for prefix, options := range map[string]string{"": "", "/manage/it": "path_prefix /manage/it"} {
		w := start(t, administered(options))
		admin := w.holder("warder:admin")
		for _, path := range []string{"/v1", "/v1/", "/v1/keys", "/v1/nowhere", "/v1/keys/../keys", "/v1//keys", "/v1/%6beys"} {
			wantNot(t, path, w.rawGet(prefix+path), missing)
		}
		wantStatus(t, "root", w.call("GET", prefix+"/v1", "", admin.token()), http.StatusOK)
		wantNo(t, "without a credential", w.call("GET", prefix+"/v1/keys", ""), http.StatusUnauthorized, "unauthorized")
		for _, path := range []string{"/", "/v1x", "/v2/keys", "/V1/keys", "//v1/keys", "/x/v1/keys", "/warder/v1/keys", "/keys"} {
			wantRefusal(t, path, w.rawGet(prefix+path), missing)
		}
		if prefix != "" {
			wantRefusal(t, "without the prefix", w.get("/v1/keys"), missing)
		}
	}
}

func wantNot(t *testing.T, what string, r response, not refused) {
	t.Helper()
	if strings.Contains(r.Text, `"`+not.code+`"`) || r.Text == "upstream" {
		t.Errorf("%s went on: %s", what, r.Text)
	}
}

// A caller is who its own credential says, with the scopes that it grants now
// and no more, and the audit log knows from where.
func TestAdminHandlerCallers(t *testing.T) {
	w := start(t, strings.Replace(administered(""), "\twarder {", trusting+"\twarder {", 1))
	c := w.holder("warder:keys", "warder:read", "hello:read")
	for name, header := range w.shown(c) {
		var self struct{ Actor string }
		r := w.call("GET", "/v1/self", "", header)
		if json.Unmarshal([]byte(r.Text), &self); r.StatusCode != http.StatusOK || self.Actor != string(c.ID) {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.Text)
		}
		wantStatus(t, name, w.call("POST", "/v1/keys", `{}`, header, "X-Forwarded-For: 203.0.113.7"), http.StatusCreated)
	}
	page, err := w.app().service().Audit(t.Context(), keystore.LocalCaller(), keystore.AuditQuery{Limit: 4})
	if err != nil || len(page.Entries) != 4 {
		t.Fatal(page, err)
	}
	for _, e := range page.Entries {
		if e.Actor != string(c.ID) || e.From != "203.0.113.7" || e.Operation != "keys.create" {
			t.Errorf("the audit log says %+v", e)
		}
	}
	narrow := "Authorization: Bearer " + w.accessToken(c, "warder:read hello:read")
	wantStatus(t, "narrowed", w.call("GET", "/v1/keys", "", narrow), http.StatusOK)
	wantNo(t, "narrowed", w.call("POST", "/v1/keys", `{}`, narrow), http.StatusForbidden, "forbidden")
	wide := "Authorization: Bearer " + w.accessToken(c, "")
	w.edit(c, func(e *keystore.Editable) { e.Scopes = []string{"warder:read"} })
	wantNo(t, "a scope that the key has lost", w.call("POST", "/v1/keys", `{}`, wide), http.StatusForbidden, "forbidden")

	w.manage(http.StatusCreated, "POST", "/keys", fields{})
	if page, err = w.app().service().Audit(t.Context(), keystore.LocalCaller(), keystore.AuditQuery{Limit: 1}); err != nil || page.Entries[0].Actor != "local" || page.Entries[0].From != "" {
		t.Errorf("on the admin endpoint it is %+v, %v", page, err)
	}
}

// A token for one of the APIs behind does not manage keys: they are shown it.
func TestAdminHandlerAudience(t *testing.T) {
	const resource = "https://orders.example/"
	w := start(t, strings.Replace(administered(""), "issuer http://<gate>", "issuer http://<gate> {\nresources "+resource+"\n}", 1))
	c := w.holder("warder:keys")
	token := func(resources ...string) string {
		r := w.oauth("/token", c.basic(), url.Values{"grant_type": {"client_credentials"}, "resource": resources})
		var minted struct {
			AccessToken string `json:"access_token"`
		}
		if json.Unmarshal([]byte(r.Text), &minted); minted.AccessToken == "" {
			t.Fatalf("no token for %q: %d %s", resources, r.StatusCode, r.Text)
		}
		return "Authorization: Bearer " + minted.AccessToken
	}
	issuer := "http://" + w.gate
	wantStatus(t, "for the issuer", w.call("POST", "/v1/keys", `{}`, token()), http.StatusCreated)
	wantStatus(t, "for both", w.call("POST", "/v1/keys", `{}`, token(issuer, resource)), http.StatusCreated)
	wantNo(t, "for another", w.call("POST", "/v1/keys", `{}`, token(resource)), http.StatusUnauthorized, "invalid_token")
	wantStatus(t, "at the gate", w.get("/", token(resource)), http.StatusOK)
}

// Each credential that is no good, in each way to be so.
func TestAdminHandlerRefusals(t *testing.T) {
	w := start(t, administered(""))
	admin := w.holder("warder:admin")
	dead := map[string]func(credential){
		"blocked": func(c credential) { w.act(c, "block") }, "deactivated": func(c credential) { w.act(c, "deactivate") },
		"expired": func(c credential) { w.act(c, "expire") }, "superseded": func(c credential) { w.reissue(c, "rotate", fields{"force": true}) },
		"deleted": func(c credential) { w.manage(http.StatusOK, "DELETE", "/keys/"+string(c.ID), nil) },
	}
	for name, kill := range dead {
		c := w.holder("warder:admin")
		shown := w.shown(c)
		kill(c)
		for kind, header := range shown {
			wantNo(t, name+" "+kind, w.call("GET", "/v1/keys", "", header), http.StatusUnauthorized, "invalid_token")
		}
	}
	elsewhere := w.holder("warder:admin")
	w.edit(elsewhere, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24"} })
	wantNo(t, "elsewhere", w.call("GET", "/v1/keys", "", elsewhere.token(), "X-Forwarded-For: 203.0.113.7"), http.StatusForbidden, "access_denied")
	permitted := w.holder("warder:admin")
	id := w.permit("nothing here", keystore.Rule{Paths: []string{"/none"}})
	w.edit(permitted, func(e *keystore.Editable) { e.Permissions = []string{id} })
	wantStatus(t, "permissions are about the API behind", w.call("GET", "/v1/keys", "", permitted.token()), http.StatusOK)

	spare := w.holder("warder:admin") // what is not where a credential belongs, a log may show
	good := strings.TrimPrefix(spare.token(), "Authorization: ")
	for name, headers := range map[string][]string{
		"none":             nil,
		"another scheme":   {"Authorization: Digest x"},
		"a cookie":         {"Cookie: token=" + good + "; Authorization=" + good},
		"another header":   {"X-Api-Key: " + spare.APIKey.Reveal(), "X-Auth-Key: " + spare.APIKey.Reveal()},
		"without a scheme": {"Authorization: " + spare.APIKey.Reveal()},
	} {
		wantNo(t, name, w.call("GET", "/v1/keys?token="+spare.APIKey.Reveal(), "", headers...), http.StatusUnauthorized, "unauthorized")
	}
	wantNo(t, "made up", w.call("GET", "/v1/keys", "", "Authorization: Token x"), http.StatusUnauthorized, "invalid_token")
	wantNo(t, "two", w.call("GET", "/v1/keys", "", admin.token(), admin.token()), http.StatusBadRequest, "invalid_request")
	wantNo(t, "joined", w.call("GET", "/v1/keys", "", admin.token()+", "+good), http.StatusBadRequest, "invalid_request")
	if strings.Contains(w.log(), admin.SecretKey.Reveal()) {
		t.Error("the log shows a credential")
	}
}

// operation is a row of the OpenAPI document, which names every route.
type operation struct {
	method, path string
	scope        string // empty: any caller
	open         bool   // to anybody
}

func (w *world) operations() (all []operation) {
	w.t.Helper()
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(w.call("GET", "/v1/openapi.json", "").Text), &document); err != nil {
		w.t.Fatal(err)
	}
	for path, methods := range document.Paths {
		for method, raw := range methods {
			var described struct {
				Security []map[string][]string
			}
			if json.Unmarshal(raw, &described) != nil || method == "parameters" {
				continue
			}
			op := operation{method: strings.ToUpper(method), path: path, open: len(described.Security) == 0}
			for _, one := range described.Security {
				op.scope = strings.Join(one["credential"], " ")
			}
			all = append(all, op)
		}
	}
	if len(all) < 30 {
		w.t.Fatalf("only %d operations are described", len(all))
	}
	return all
}

// Every route, through Caddy, with every lesser credential, for the wrong
// organization, on behalf of a foreign site, and with a body that is too
// large: refused each time, and nothing changes.
func TestEveryManagementRouteRefuses(t *testing.T) {
	w := start(t, administered("limit 1000000/s"))
	admin, stranger, target := w.holder("warder:admin"), w.holder("hello:read"), w.create(nil)
	reads, keys := w.holder("warder:read"), w.holder("warder:keys")
	blockedOne := w.holder("warder:admin")
	w.act(blockedOne, "block")
	w.manage(http.StatusCreated, "POST", "/organizations", fields{"slug": "acme"})
	ours := w.create(fields{"organization": "acme", "scopes": []string{"warder:keys", "warder:read"}})
	permission := w.permit("everybody's", keystore.Rule{Paths: []string{"/x"}})
	huge := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	revision := w.app().engine.follower.Applied().Revision
	for _, op := range w.operations() {
		path := "/v1" + strings.TrimSuffix(strings.NewReplacer("{id}", string(target.ID), "{slug}", "default").Replace(op.path), "/")
		if strings.HasPrefix(op.path, "/permissions/") {
			path = "/v1/permissions/" + permission
		}
		what := op.method + " " + path
		call := func(body string, headers ...string) response { return w.call(op.method, path, body, headers...) }
		wantNo(t, what+" from a foreign origin", call("", admin.token(), "Origin: https://evil.example"), http.StatusForbidden, "cross_origin")
		wantNo(t, what+" across sites", call("", admin.token(), "Sec-Fetch-Site: cross-site"), http.StatusForbidden, "cross_origin")
		if op.open {
			continue
		}
		wantNo(t, what+" by nobody", call(""), http.StatusUnauthorized, "unauthorized")
		wantNo(t, what+" by nobody, at length", call(huge), http.StatusUnauthorized, "unauthorized")
		wantNo(t, what+" by a made-up key", call("", "Authorization: Bearer x"), http.StatusUnauthorized, "invalid_token")
		wantNo(t, what+" by a blocked key", call("", blockedOne.token()), http.StatusUnauthorized, "invalid_token")
		wantNo(t, what+" at length", call(huge, admin.token()), http.StatusRequestEntityTooLarge, "body_too_large")
		for name, caller := range map[string]credential{"": stranger, "warder:read": reads, "warder:keys": keys} {
			if op.scope != "" && !keystore.Scopes(name).Grants(op.scope) {
				wantNo(t, what+" with "+name, call("", caller.token()), http.StatusForbidden, "forbidden")
			}
		}
		if op.scope != "" && op.scope != "warder:admin" && strings.Contains(op.path, "{") && !strings.HasPrefix(op.path, "/permissions/") {
			r := call(bodyOf(op), ours.token())
			if r.StatusCode != http.StatusNotFound {
				t.Errorf("%s by another organization: %d %s", what, r.StatusCode, r.Text)
			}
		}
	}
	if now := w.app().engine.follower.Applied().Revision; now != revision {
		t.Errorf("revision %d became %d", revision, now)
	}
}

func bodyOf(op operation) string {
	switch {
	case strings.HasSuffix(op.path, "/renew"):
		return `{"days":3}`
	case strings.HasSuffix(op.path, "/grace"):
		return `{"ends_in_seconds":0}`
	case op.method == http.MethodPatch:
		return `{}`
	default:
		return ""
	}
}

// Each caller has a limit of its own for management, and nobody can use up
// another's.
func TestManagementIsLimitedPerCaller(t *testing.T) {
	w := start(t, administered("limit 1/h burst 3"))
	one, other := w.holder("warder:read"), w.holder("warder:read")
	for range 10 {
		wantNo(t, "made up", w.call("GET", "/v1/keys", "", "Authorization: Token "+one.APIKey.Reveal()[:70]+"1111111"), http.StatusUnauthorized, "invalid_token")
	}
	minted := "Authorization: Bearer " + w.accessToken(one, "")
	for _, header := range []string{one.token(), one.basic(), minted} {
		wantStatus(t, "within", w.call("GET", "/v1/keys", "", header), http.StatusOK)
	}
	for _, header := range []string{one.token(), minted} {
		r := w.call("GET", "/v1/keys", "", header)
		wantNo(t, "beyond", r, http.StatusTooManyRequests, "too_many_requests")
		var seconds int
		if _, err := fmt.Sscan(r.Header.Get("Retry-After"), &seconds); err != nil || seconds < 3500 || seconds > 3600 {
			t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
		}
	}
	wantStatus(t, "another caller", w.call("GET", "/v1/keys", "", other.token()), http.StatusOK)
	wantStatus(t, "at the gate", w.get("/", one.token()), http.StatusOK)
	wantStatus(t, "on the admin endpoint", w.manage(http.StatusOK, "GET", "/keys", nil), http.StatusOK)
}

// Management is use, too: a secret that only manages is seen to be in use.
func TestManagementIsUse(t *testing.T) {
	w := start(t, administered(""))
	c := w.holder("warder:read")
	wantStatus(t, "call", w.call("GET", "/v1/keys", "", c.token()), http.StatusOK)
	w.act(c, "block")
	w.call("GET", "/v1/keys", "", c.token())
	last, err := w.app().service().LastUsed(t.Context(), []keystore.KeyID{c.ID}, time.Now())
	if err != nil || len(last) != 1 || last[0].Generation != 1 {
		t.Errorf("last used %v, %v", last, err)
	}
	w.wantUsage("management", c.ID, map[string]uint64{"allowed": 1, "blocked": 1})
}

func TestAdminHandlerOptions(t *testing.T) {
	for options, want := range map[string]string{
		"path_prefix manage":                               "path_prefix",
		"path_prefix /":                                    "path_prefix",
		"path_prefix /a/":                                  "path_prefix",
		"path_prefix /a/../b":                              "path_prefix",
		"path_prefix /{id}":                                "path_prefix",
		"path_prefix \"/a b\"":                             "path_prefix",
		"dialect klingon":                                  "klingon",
		"dialect f5xc\ndialect f5xc":                       "twice",
		"dialect lyve /v1":                                 "/v1",
		"dialect lyve /v1/x":                               "/v1/x",
		"dialect lyve /x\ndialect ricloud /x/y":            "/x/y",
		"dialect lyve /keys\ndialect ricloud":              "/keys",
		"path_prefix /api/web\ndialect f5xc /api":          "",
		"dialect lyve x":                                   "prefix",
		"dialect lyve {\naccount a\n}":                     "account",
		"dialect cloudflare":                               "X-Auth-Key",
		"dialect ricloud /x\npath_prefix /x\ndialect lyve": "",
	} {
		w := newWorld(t)
		err := w.load(administered(options))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want an error about %q", options, err, want)
		}
	}
}
