package dialect

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

func TestNewRefusesWhatCannotBeMeant(t *testing.T) {
	for _, cfg := range []Config{
		{Prefix: "client"}, {Prefix: "/"}, {Prefix: "/x/"}, {Prefix: "/a b"}, {Prefix: "/%20"}, {Accounts: []string{""}},
		{Accounts: []string{strings.Repeat("a", 33)}}, {Accounts: []string{"a/b"}},
	} {
		if _, err := New("cloudflare", cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	if _, err := New("aws", Config{}); err == nil || !strings.Contains(err.Error(), "ricloud") {
		t.Errorf("an unknown dialect: %v", err)
	}
}

// Several dialects and the REST API share one site.
func TestServes(t *testing.T) {
	for name, paths := range map[string]map[string]bool{
		"cloudflare /client/v4": {"/client/v4/accounts/x": true, "/client/v4/zones": true, "/client/v4": true, "/client/v44": false, "/v1/keys": false},
		"f5xc":                  {"/api/web/namespaces/x/api_credentials": true, "/api/web": true, "/api/website": false, "/v1/keys": false},
		"lyve":                  {"/auth/token": true, "/service-accounts/x": true, "/permissions": true, "/usage/current": true, "/v1/permissions": false},
		"ricloud":               {"/keys": true, "/key": true, "/keys/1/rotate": true, "/keyring": false, "/v1/keys": false, "/": false},
		"ricloud /r":            {"/keys": false, "/r/keys": true, "/r/x": true},
	} {
		name, prefix, _ := strings.Cut(name, " ")
		d, err := New(name, Config{Prefix: prefix})
		check(t, err)
		for path, want := range paths {
			if d.Serves(path) != want {
				t.Errorf("%s at %q serves %s: %t", name, prefix, path, !want)
			}
		}
	}
}

// everyCall is each row of each dialect, in a form that would succeed.
func everyCall() (calls [][3]string) {
	bodies := map[string]string{
		"PUT " + cloudflareKeys: `{"key_rotation_interval_days":30}`,
		"POST /auth/token":      `{"accountId":"acme","accessKey":"a","secret":"b"}`,
		"POST /permissions":     `{"name":"new"}`,
	}
	for name, prefix := range map[string]string{"cloudflare": cloudflareBase, "f5xc": f5xcBase, "lyve": lyveBase, "ricloud": ricloudBase} {
		d, _ := New(name, Config{})
		for _, rt := range d.routes {
			path := strings.NewReplacer("{account}", "default", "{namespace}", "system", "{name}", "target", "{id}", "1").Replace(rt.pattern)
			body := bodies[rt.method+" "+rt.pattern]
			if name == "f5xc" {
				body = `{"name":"target","spec":{"type":"API_TOKEN"},"expiration_days":0}`
			}
			calls = append(calls, [3]string{rt.method, prefix + path, body})
		}
	}
	return calls
}

// Before anything else: what a browser sends for another site, whoever it is.
// And no row lets anybody in without a credential, but the one that gives one.
func TestEveryCallRefusesStrangers(t *testing.T) {
	g := newRig(t)
	admin := g.admin()
	before, err := g.store.Snapshot(context.Background())
	check(t, err)
	for _, call := range everyCall() {
		g.send(admin, call[0], call[1], call[2], "Origin", "http://evil.example").is(403, "another site")
		g.send(admin, call[0], call[1], call[2], "Sec-Fetch-Site", "cross-site").is(403, "another site")
		if strings.HasSuffix(call[1], "/auth/token") && call[0] == "POST" {
			continue
		}
		for _, authorization := range []string{"", "Bearer", "Bearer x", "Bearer x,y", "Digest x", "Basic eDp5", "APIToken ", "Token wdr_x"} {
			if r := g.send(authorization, call[0], call[1], call[2]); r.status != 401 && r.status != 400 {
				t.Errorf("%s with %q: %d %s", r.what, authorization, r.status, r.raw)
			}
		}
	}
	after, err := g.store.Snapshot(context.Background())
	check(t, err)
	if before.Head != after.Head {
		t.Error("a stranger changed something")
	}
}

// A lesser caller is refused by every row that needs more, with nothing
// changed, and the attempt is in the audit log.
func TestEveryCallNeedsItsScope(t *testing.T) {
	g := newRig(t)
	g.organization(keystore.Organization{Slug: "acme"})
	lesser := map[string]string{}
	for _, scope := range []string{"hello:read", keystore.ScopeRead, keystore.ScopeKeys} {
		lesser[scope] = "Bearer " + g.key(keystore.NewKey{Organization: "acme", Scopes: []string{scope}}).APIKey.Reveal()
	}
	before, err := g.store.Snapshot(context.Background())
	check(t, err)
	refused := 0
	for name, prefix := range map[string]string{"cloudflare": cloudflareBase, "f5xc": f5xcBase, "lyve": lyveBase, "ricloud": ricloudBase} {
		d, _ := New(name, Config{})
		for _, rt := range d.routes {
			path := prefix + strings.NewReplacer("{account}", "default", "{namespace}", "system", "{name}", "first", "{id}", "1").Replace(rt.pattern)
			for scope, authorization := range lesser {
				if rt.needs == needsCredential || rt.needs == needsNothing || keystore.Scopes(scope).Grants(rt.needs) {
					continue
				}
				refused++
				g.send(authorization, rt.method, path, `{"name":"first","expiration_days":0}`).isStatus(403)
				if rt.method != http.MethodGet && g.audit(1)[0] != rt.operation+": "+keystore.ErrForbidden.Error() {
					t.Errorf("%s %s: audit %s", rt.method, path, g.audit(1))
				}
			}
		}
	}
	after, err := g.store.Snapshot(context.Background())
	check(t, err)
	if before.Head != after.Head || refused < 50 {
		t.Errorf("%d refusals; the store went from %v to %v", refused, before.Head, after.Head)
	}
	if rt := (route{method: "GET", pattern: "/x"}); !lets(rt) {
		t.Error("a row that needs nothing by omission lets somebody in")
	}
}

// lets reports whether a row refuses the mightiest caller.
func lets(rt route) bool {
	d := &Dialect{Config: Config{Identify: func(*http.Request, string) (keystore.Caller, error) { return keystore.LocalCaller(), nil }}, language: ricloud}
	r := httptest.NewRequest("GET", "/x", nil)
	r.Header.Set("Authorization", "Bearer x")
	return errors.Is(d.admit(&call{Request: r, route: &rt}), keystore.ErrForbidden)
}

func (r reply) isStatus(status int) {
	r.t.Helper()
	if r.status != status {
		r.t.Errorf("%s: %d %s, want %d", r.what, r.status, r.raw, status)
	}
}

// Nobody grants what it does not hold, whatever a body says, and a key has none
// of Warder's scopes unless its maker names one.
func TestNobodyGrantsWhatItDoesNotHold(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme", AllowedScopes: []string{"api:read"}}, keystore.ScopeKeys).APIKey.Reveal()
	mighty := g.key(keystore.NewKey{Organization: "acme", Name: "mighty", Scopes: []string{keystore.ScopeAdmin}, Expires: keystore.InstantOf(time.Now().Add(time.Hour))})
	number := itoa(mighty.Record.Number)
	bearer := "Bearer " + own
	creations := map[string]string{
		f5xcPath + "system/api_credentials":     `"spec":{"type":"API_TOKEN"}`,
		f5xcPath + "system/service_credentials": `"spec":{"type":"SERVICE_API_TOKEN"}`,
		lyveBase + "/service-accounts":          `"description":"x"`,
		"/keys":                                 `"storage_config":{}`,
	}
	for path, rest := range creations {
		for _, scopes := range []string{`["warder:admin"]`, `["warder:read","warder:admin"]`} {
			g.send(bearer, "POST", path, `{`+rest+`,"scopes":`+scopes+`}`).isStatus(403)
		}
		for _, scopes := range []string{`["api:write"]`, `["warder:root"]`, `"warder:admin"`, `[7]`} {
			g.send(bearer, "POST", path, `{`+rest+`,"scopes":`+scopes+`}`).isStatus(400)
		}
		for _, granted := range []string{"", `"scopes":null,`, `"scopes":["warder:read","api:read"],`} {
			into[any](g.send(bearer, "POST", path, `{`+granted+rest+`}`))
			page, err := g.store.List(context.Background(), keystore.Query{Organization: "acme", Before: 1 << 60, Limit: 1})
			check(t, err)
			want := keystore.Scopes("")
			if strings.Contains(granted, "api") {
				want = "api:read warder:read"
			}
			if got := page.Records[0].Scopes; got != want {
				t.Errorf("%s made a key with %q, want %q", path, got, want)
			}
		}
	}
	// Nor does a way lead to a mightier key.
	for _, call := range [][3]string{
		{"POST", f5xcPath + "system/renew/api_credentials", `{"name":"mighty","expiration_days":0}`},
		{"POST", f5xcPath + "system/renew/api_credentials", `{"name":"mighty","expiration_days":1}`},
		{"POST", f5xcPath + "system/activate/api_credentials", `{"name":"mighty"}`},
		{"POST", f5xcPath + "system/revoke/api_credentials", `{"name":"mighty"}`},
		{"PUT", lyveBase + "/service-accounts/" + string(mighty.Record.ID), `{"name":"x"}`},
		{"DELETE", lyveBase + "/service-accounts/" + string(mighty.Record.ID), ""},
		{"DELETE", lyveBase + "/service-accounts/" + string(mighty.Record.ID) + "/enabled", ""},
		{"POST", "/keys/" + number, `{"storage_config":{}}`},
		{"POST", "/keys/" + number + "/rotate", `{"force":true}`},
	} {
		g.send(bearer, call[0], call[1], call[2]).isStatus(403)
	}
	done := into[bulkRevoked](g.send(bearer, "POST", f5xcPath+"system/bulk_revoke/api_credentials", `{"name_selector":{"names":["mighty"]}}`))
	if len(done.Marked) != 0 || len(done.Failed) != 1 || g.passes(mighty.APIKey.Reveal()) != nil {
		t.Errorf("%+v", done)
	}
}

func itoa(n keystore.Number) string { return strings.TrimSpace(string(must(encode(n)))) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// stuckStore fails, or hangs until the caller gives up, wherever it is asked.
type stuckStore struct {
	keystore.ServiceStore
	err error // nil: hangs
}

func (s stuckStore) fail(ctx context.Context) error {
	if s.err == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.err
}

func (s stuckStore) Transact(ctx context.Context, _ func(keystore.Tx) error) (keystore.Revision, error) {
	return 0, s.fail(ctx)
}

func (s stuckStore) List(ctx context.Context, _ keystore.Query) (keystore.Page, error) {
	return keystore.Page{}, s.fail(ctx)
}

func (s stuckStore) Lookup(ctx context.Context, _ keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	return keystore.Record{}, 0, s.fail(ctx)
}

// An outage is not a denial, and each system has its own word for it.
func TestOutages(t *testing.T) {
	g := newRig(t)
	own := "Bearer " + g.owner("acme")
	store := g.service.Store
	for _, c := range []struct {
		path, body  string
		stuck       stuckStore
		status      int
		says, retry string
	}{
		{f5xcPath + "system/api_credentials", "", stuckStore{store, nil}, 504, `"`, ""},
		{f5xcPath + "system/api_credentials", "", stuckStore{store, keystore.ErrUnavailable}, 503, `"`, ""},
		{f5xcPath + "system/api_credentials", "", stuckStore{store, errors.New("secret text")}, 500, `"an internal error`, ""},
		{lyveBase + "/service-accounts", "", stuckStore{store, keystore.ErrUnavailable}, 503, `"code":"ServiceNotReady"`, ""},
		{lyveBase + "/service-accounts", "", stuckStore{store, errors.New("secret text")}, 500, `"code":"InternalError"`, ""},
		{"/keys", "", stuckStore{store, keystore.ErrUnavailable}, 503, `"error":"unavailable"`, ""},
	} {
		g.service.Store = c.stuck
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		d := must(New(map[bool]string{true: "f5xc", false: "ricloud"}[strings.HasPrefix(c.path, f5xcBase)], g.at(c.path)))
		if strings.HasPrefix(c.path, lyveBase) {
			d = must(New("lyve", g.at(c.path)))
		}
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", c.path, nil)
		r.Header.Set("Authorization", own)
		d.ServeHTTP(w, r)
		cancel()
		g.service.Store = store
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || strings.Contains(w.Body.String(), "secret text") {
			t.Errorf("%s with %v: %d %s", c.path, c.stuck.err, w.Code, w.Body)
		}
		if (c.status == 503 || c.status == 504) && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.path)
		}
	}
	if len(g.logged) != 6 {
		t.Errorf("logged: %q", g.logged)
	}
}

// at is the configuration of the dialect that serves path.
func (g *rig) at(path string) Config {
	cfg := g.config
	for _, prefix := range []string{cloudflareBase, f5xcBase, lyveBase} {
		if strings.HasPrefix(path, prefix) {
			cfg.Prefix = prefix
		}
	}
	return cfg
}

// What is committed but not in force is never answered with a status after
// which a client of that system would do it a second time.
func TestNothingCommittedIsRepeated(t *testing.T) {
	g := newRig(t)
	admin, own := g.admin(), "Bearer "+g.owner("acme")
	g.lyve(own, "GET", "/service-accounts", "").isStatus(200)
	calls := []struct {
		authorization, method, path, body string
		status                            int
		says                              string
	}{
		{admin, "PUT", cloudflareBase + "/accounts/default/access/keys", `{"key_rotation_interval_days":30}`, 400, `"success":false`},
		{admin, "POST", cloudflareBase + "/accounts/default/access/keys/rotate", "", 400, `"code":1001`},
		{own, "POST", f5xcPath + "system/api_credentials", `{"name":"a","spec":{"type":"API_TOKEN"}}`, 409, "do not repeat"},
		{own, "POST", lyveBase + "/service-accounts", `{"name":"b"}`, 409, `"code":"ServiceAccountNotReady"`},
		{own, "POST", lyveBase + "/permissions", `{"name":"c"}`, 409, `"code":"PermissionNotReady"`},
		{own, "POST", "/keys", "", 409, `"error":"not_in_force"`},
		{own, "POST", "/keys/2/rotate", "", 409, `"error":"not_in_force"`},
	}
	g.stop()
	var all sync.WaitGroup
	for _, c := range calls {
		all.Go(func() {
			r := g.send(c.authorization, c.method, c.path, c.body)
			r.is(c.status, c.says)
			if strings.HasPrefix(c.path, cloudflareBase) && r.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%s: %v", r.what, r.header)
			}
		})
	}
	all.Wait()
}

func TestTooManyCalls(t *testing.T) {
	g := newRig(t)
	g.config.Identify = func(*http.Request, string) (keystore.Caller, error) {
		return keystore.Caller{}, &managementapi.TooManyRequestsError{RetryAfter: 1500 * time.Millisecond}
	}
	g.serve()
	for path, says := range map[string]string{
		cloudflareBase + "/accounts/default/access/keys": `"code":1004`, f5xcPath + "system/api_credentials": `"too many`,
		lyveBase + "/permissions": `"code":"TooManyRequests"`, "/keys": `"error":"too_many_requests"`,
	} {
		r := g.send("Bearer x", "GET", path, "")
		r.is(429, says)
		if r.header.Get("Retry-After") != "2" || r.header.Get("X-Should-Retry") != "" {
			t.Errorf("%s: %v", path, r.header)
		}
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	g := newRig(t)
	g.config.Identify = func(*http.Request, string) (keystore.Caller, error) { panic("secret text") }
	g.serve()
	r := g.send("Bearer x", "GET", "/keys", "")
	r.is(500, `"error":"internal"`)
	if strings.Contains(string(r.raw), "secret text") || len(g.logged) != 1 || !strings.Contains(g.logged[0], "secret text") {
		t.Errorf("%s, logged %q", r.raw, g.logged)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	g := newRig(t)
	own := "Bearer " + g.owner("acme")
	large := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	deep := `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`
	for path, status := range map[string]int{f5xcPath + "system/api_credentials": 413, lyveBase + "/service-accounts": 400, "/keys": 413} {
		g.send(own, "POST", path, large).isStatus(status)
		g.send(own, "POST", path, deep).isStatus(400)
		g.send(own, "POST", path, "{\"name\":\"\xff\"}").isStatus(400)
		if r := g.send(own, "HEAD", path, ""); r.status != 200 {
			t.Errorf("HEAD %s: %d", path, r.status)
		}
	}
}
