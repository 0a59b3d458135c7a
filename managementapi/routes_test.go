package managementapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// What each route demands, said a second time: a row that was lowered by
// accident differs.
func TestRouteTable(t *testing.T) {
	want := map[string]string{
		"GET ": "read", "GET /{$}": "read", "GET /openapi.json": anybody, "GET /self": anyCaller,
		"POST /keys": "keys", "GET /keys": "read", "GET /keys/{id}": "read", "PATCH /keys/{id}": "keys", "DELETE /keys/{id}": "keys",
		"POST /keys/{id}/rotate": "keys", "POST /keys/{id}/regenerate": "keys", "POST /keys/{id}/renew": "keys", "POST /keys/{id}/expire": "keys",
		"POST /keys/{id}/activate": "keys", "POST /keys/{id}/deactivate": "keys", "POST /keys/{id}/block": "admin", "POST /keys/{id}/unblock": "admin",
		"POST /keys/import": "keys", "POST /keys/delete": "keys", "POST /keys/{id}/grace": "keys",
		"POST /organizations": "admin", "GET /organizations": "read", "GET /organizations/{slug}": "read", "PATCH /organizations/{slug}": "admin",
		"DELETE /organizations/{slug}": "admin",
		"POST /permissions":            "keys", "GET /permissions": "read", "GET /permissions/{id}": "read", "PATCH /permissions/{id}": "keys", "DELETE /permissions/{id}": "keys",
		"GET /usage": "read", "GET /audit": "keys", "GET /nodes": "admin", "GET /settings": "admin", "PATCH /settings": "admin",
		"GET /signing-keys": "admin", "POST /signing-keys/rotate": "admin", "GET /health": anyCaller, "POST /explain": "admin",
		"GET /backup": "admin", "GET /master-key": "admin", "POST /master-key/rotate": "admin", "POST /master-key/finish": "admin",
	}
	for _, rt := range routes {
		name := rt.method + " " + rt.pattern
		if rt.scope != want[name] && rt.scope != "warder:"+want[name] || want[name] == "" {
			t.Errorf("%s demands %q, want %q", name, rt.scope, want[name])
		}
		delete(want, name)
	}
	if len(want) != 0 {
		t.Errorf("gone: %v", want)
	}
}

// Every route with every lesser caller: refused with 403 if the caller lacks
// the row's scope, 404 if what it names belongs to others, and in no case a
// change. An administrator passes where the others did not.
func TestEveryRouteWithEveryLesserCaller(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	mine := g.changed(`{"organization":"acme","expires_in_days":30}`, "rotate")
	others := g.changed(`{"expires_in_days":30}`, "rotate")
	permissions := map[string]string{
		"acme":    g.permission(`{"name":"mine","organization":"acme"}`).ID,
		"default": g.permission(`{"name":"others","organization":"default"}`).ID,
	}
	lesser := []string{"", "hello:read", "warder:read", "warder:keys", "warder:read warder:keys", "warder:administrator", "WARDER:ADMIN", "admin", "any caller", "anybody"}
	for _, rt := range routes {
		if rt.scope == anybody {
			continue
		}
		for _, scopes := range lesser {
			for _, target := range []struct {
				id   keystore.KeyID
				slug string
			}{{mine, "acme"}, {others, "default"}} {
				path := pathOf(rt, string(target.id), target.slug, permissions[target.slug])
				holds := keystore.Scopes(scopes).Grants(rt.scope) || rt.scope == anyCaller
				if holds && rt.changes() && target.slug == "acme" {
					continue // is allowed to, and does: other tests
				}
				g.asAdmin()
				before := g.everything()
				g.as("acme", scopes)
				r := g.send(rt.method, path, bodyFor(rt, target.slug))
				name := rt.method + " " + path + " as " + scopes
				switch {
				case !holds && r.status != http.StatusForbidden:
					t.Errorf("%s: %d %s", name, r.status, r.raw)
				case holds && strings.Contains(rt.pattern, "{") && rt.pattern != "/{$}" && target.slug == "default" && r.status != http.StatusNotFound:
					t.Errorf("%s: %d %s", name, r.status, r.raw)
				case holds && target.slug == "acme" && r.status != http.StatusOK:
					t.Errorf("%s: %d %s", name, r.status, r.raw)
				case rt.operation != "audit" && !rt.changes() && (strings.Contains(string(r.raw), string(others)) || strings.Contains(string(r.raw), permissions["default"])):
					t.Errorf("%s shows what is another organization's: %s", name, r.raw)
				}
				g.asAdmin()
				if after := g.everything(); after != before {
					t.Errorf("%s changed something", name)
				}
			}
		}
		g.asAdmin()
		if r := g.send(rt.method, g.pathTo(rt, g.changed(`{"organization":"acme","expires_in_days":3}`, "rotate")), bodyFor(rt, "default")); r.status/100 != 2 {
			t.Errorf("%s %s as administrator: %d %s", rt.method, rt.pattern, r.status, r.raw)
		}
	}
}

// Nobody is let in without having been identified, whatever the error.
func TestNobodyIsIdentified(t *testing.T) {
	g := newRig(t)
	g.as("default", "warder:admin")
	g.caller.Actor = "" // a mount that forgot
	g.send("GET", "/self", "").refused(403, "forbidden", "")
	g.asAdmin()
	g.refuseCallers(keystore.ErrDeactivated)
	for _, rt := range routes {
		if r := g.send(rt.method, pathOf(rt, "key_x", "default", "perm_x"), bodyFor(rt, "default")); rt.scope != anybody {
			r.refused(401, "invalid_token", "")
		}
	}
}

// pathTo returns the path of a route, to the key or to something fresh that
// the route can change.
func (g *rig) pathTo(rt route, id keystore.KeyID) string {
	g.t.Helper()
	fresh := "x-" + strings.TrimPrefix(string(id), "key_")
	slug, permission := "acme", ""
	if strings.HasPrefix(rt.pattern, "/permissions/") {
		permission = g.permission(`{"name":"` + fresh + `"}`).ID
	}
	if strings.HasPrefix(rt.pattern, "/organizations/") {
		ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"`+fresh+`"}`), 201)
		slug = fresh
	}
	return pathOf(rt, string(id), slug, permission)
}

func pathOf(rt route, id, slug, permission string) string {
	if strings.HasPrefix(rt.pattern, "/permissions/") {
		id = permission
	}
	return strings.NewReplacer("{id}", id, "{slug}", slug, "/{$}", "/").Replace(rt.pattern)
}

// everything is what the API can change, in short.
func (g *rig) everything() string {
	g.t.Helper()
	revision, err := g.store.Transact(g.t.Context(), func(keystore.Tx) error { return nil })
	if err != nil {
		g.t.Fatal(err)
	}
	return fmt.Sprint(revision)
}

func bodyFor(rt route, organization string) string {
	switch rt.method + " " + rt.pattern {
	case "POST /keys":
		return `{"organization":"` + organization + `"}`
	case "POST /keys/{id}/renew":
		return `{"days":3}`
	case "POST /keys/{id}/grace":
		return `{"ends_in_seconds":60}`
	case "POST /keys/import":
		return `{"keys":[{"credential":"foreign-` + organization + `","organization":"` + organization + `"}]}`
	case "POST /keys/delete":
		return `{"expired":true,"organization":"` + organization + `"}`
	case "POST /permissions":
		return `{"name":"fresh","organization":"` + organization + `"}`
	case "PATCH /permissions/{id}":
		return `{"metadata":{"touched":true}}`
	case "POST /explain":
		return `{"credential":"Bearer nothing"}`
	case "PATCH /settings":
		return `{"signing_key_interval_days":30}`
	case "POST /organizations":
		return `{"slug":"fresh"}`
	case "PATCH /keys/{id}":
		return `{"metadata":{"touched":true}}`
	case "PATCH /organizations/{slug}":
		return `{"metadata":{"touched":true}}`
	default:
		return ""
	}
}

// With warder:keys an organization manages its keys, and no way leads to a
// mightier one, to another organization, or to what only administrators set.
func TestNobodyGrantsWhatItDoesNotHold(t *testing.T) {
	g := newRig(t)
	everybodys, others := g.permission(`{"name":"everybody's"}`), g.permission(`{"name":"others","organization":"default"}`)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme","maximum_expiry_days":90,"allowed_scopes":["x"],"allowed_permissions":["`+everybodys.ID+`"]}`), 201)
	own := g.permission(`{"name":"own","organization":"acme"}`)
	mighty := g.make(`{"organization":"acme","scopes":["warder:admin"],"expires_in_days":30}`)
	ordinary := g.make(`{"organization":"acme","scopes":["x"],"expires_in_days":30}`)
	foreign := g.make(`{"organization":"default"}`)

	// What asks for too much, in every way to ask, with the refusal; place is
	// empty where no field is to blame, but the caller.
	escalations := []struct{ member, code, place string }{
		{`"scopes":["warder:admin"]`, "forbidden", ""},
		{`"scopes":["x","warder:admin","warder:read"]`, "forbidden", ""},
		{`"scopes":["y"]`, "invalid_field", "/scopes"},
		{`"limit":"1000000/s"`, "forbidden", ""},
		{`"permissions":["` + others.ID + `"]`, "invalid_field", "/permissions"},
		{`"permissions":["` + own.ID + `"]`, "invalid_field", "/permissions"}, // its own, but not among the allowed
	}
	onlyWhenMade := []struct{ member, code, place string }{
		{`"type":"trial"`, "forbidden", ""},
		{`"organization":"default"`, "organization_not_found", ""},
		{`"organization":"nowhere"`, "organization_not_found", ""},
		{`"expires_in_days":91`, "invalid_field", "/expires_in_days"},
		{`"expires_at":"2120-01-01T00:00:00Z"`, "invalid_field", "/expires_at"},
	}
	status := map[string]int{"forbidden": 403, "invalid_field": 400, "organization_not_found": 404}
	for _, scopes := range []string{"warder:keys", "warder:keys warder:read x"} {
		g.as("acme", scopes)
		for _, e := range append(escalations, onlyWhenMade...) {
			item := "/keys/0" + e.place
			g.send("POST", "/keys", "{"+e.member+"}").refused(status[e.code], e.code, e.place)
			g.send("POST", "/keys/import", `{"keys":[{"credential":"foreign-one",`+e.member+`}]}`).refused(status[e.code], e.code, item)
		}
		for _, e := range escalations {
			g.send("PATCH", "/keys/"+string(ordinary.ID), "{"+e.member+"}").refused(status[e.code], e.code, e.place)
		}
		g.send("POST", "/keys/"+string(ordinary.ID)+"/regenerate", `{"expires_in_days":91}`).refused(400, "invalid_field", "/expires_in_days")
		g.send("POST", "/keys/"+string(ordinary.ID)+"/renew", `{"days":91}`).refused(400, "invalid_field", "/days")

		// Its permissions and its maxima are what an organization cannot change.
		g.send("PATCH", "/permissions/"+everybodys.ID, `{"rules":[{"paths":["/*"]}]}`).refused(403, "forbidden", "")
		g.send("DELETE", "/permissions/"+everybodys.ID, "").refused(403, "forbidden", "")
		g.send("PATCH", "/permissions/"+others.ID, `{"name":"mine"}`).refused(404, "permission_not_found", "")
		g.send("POST", "/permissions", `{"name":"new","organization":"default"}`).refused(404, "permission_not_found", "")
		if p := g.permission(`{"name":"new-` + scopes + `"}`); *p.Organization != "acme" {
			t.Errorf("made a permission of %v", p.Organization)
		}
		g.send("PATCH", "/organizations/acme", `{"allowed_scopes":null}`).refused(403, "forbidden", "")
		g.send("POST", "/organizations", `{"slug":"fresh"}`).refused(403, "forbidden", "")

		// A mightier key's secret would be as good as its scopes.
		for _, verb := range []string{"rotate", "regenerate", "renew", "expire", "activate", "deactivate", "grace"} {
			body := map[string]string{"renew": `{"days":3}`, "grace": `{"ends_in_seconds":3}`}[verb]
			g.send("POST", "/keys/"+string(mighty.ID)+"/"+verb, body).refused(403, "forbidden", "")
			g.send("POST", "/keys/"+string(foreign.ID)+"/"+verb, body).refused(404, "key_not_found", "")
		}
		g.send("PATCH", "/keys/"+string(mighty.ID), `{"name":"x"}`).refused(403, "forbidden", "")
		g.send("DELETE", "/keys/"+string(mighty.ID), "").refused(403, "forbidden", "")
		deleted := ok[DeletedKeys](g.send("POST", "/keys/delete", `{"ids":["`+string(mighty.ID)+`","`+string(foreign.ID)+`"]}`), 200)
		if len(deleted.Deleted) != 0 || deleted.Failed[0].Code != "forbidden" || deleted.Failed[1].Code != "key_not_found" {
			t.Errorf("%+v", deleted)
		}
		g.send("POST", "/keys/delete", `{"expired":true,"organization":"default"}`).refused(404, "organization_not_found", "")
		for _, path := range []string{"/keys", "/usage", "/audit", "/permissions"} {
			g.send("GET", path+"?organization=default", "").refused(404, "organization_not_found", "")
		}
	}
	g.as("acme", "warder:keys")
	if key := g.make(`{"scopes":["warder:read","x"],"permissions":["` + everybodys.ID + `"],"networks":["10.0.0.0/8"]}`); key.Organization != "acme" {
		t.Errorf("made in %s", key.Organization)
	}
	if key := ok[IssuedKey](g.send("POST", "/keys/"+string(ordinary.ID)+"/rotate", ""), 200); key.Generation != 2 {
		t.Errorf("%+v", key.Key)
	}
	if page := ok[OrganizationPage](g.send("GET", "/organizations", ""), 200); len(page.Organizations) != 1 || page.Organizations[0].Slug != "acme" {
		t.Errorf("%+v", page)
	}
	g.as("acme", "warder:read")
	g.send("POST", "/keys", `{}`).refused(403, "forbidden", "")
	if page := ok[KeyPage](g.send("GET", "/keys", ""), 200); len(page.Keys) != 4 {
		t.Errorf("%+v", page)
	}
	g.as("", "warder:keys") // of no organization: nothing is its own
	for _, path := range []string{"/keys", "/usage", "/audit"} {
		g.send("GET", path, "").refused(403, "forbidden", "")
	}
	g.send("GET", "/permissions", "").refused(404, "organization_not_found", "")
	g.send("POST", "/keys", `{}`).refused(404, "organization_not_found", "")
	g.send("POST", "/keys/delete", `{"expired":true}`).refused(403, "forbidden", "")
	if page := ok[OrganizationPage](g.send("GET", "/organizations", ""), 200); len(page.Organizations) != 0 {
		t.Errorf("%+v", page)
	}
}

func TestNoRouteAndNoMethod(t *testing.T) {
	g := newRig(t)
	for _, path := range []string{"/nothing", "/keys/", "/keys/key_x/", "/keys/key_x/explode", "//keys", "/./keys", "/keys/../keys", "x", "/organizations/", "/signing-keys/rotate/x"} {
		r := g.send("GET", path, "")
		r.refused(404, "not_found", "")
		if r.header.Get("Location") != "" {
			t.Errorf("%s is redirected", path)
		}
	}
	for _, c := range []struct{ method, path, allow string }{
		{"PUT", "/keys", "GET, HEAD, POST"}, {"DELETE", "/keys", "GET, HEAD, POST"}, {"GET", "/keys/key_x/rotate", "POST"},
		{"POST", "/keys/key_x", "DELETE, GET, HEAD, PATCH"}, {"OPTIONS", "/keys", "GET, HEAD, POST"}, {"POST", "", "GET, HEAD"}, {"TRACE", "/keys", "GET, HEAD, POST"},
		{"get", "/keys", "GET, HEAD, POST"}, {"POST", "/organizations/default", "DELETE, GET, HEAD, PATCH"}, {"PUT", "/keys/import", "DELETE, GET, HEAD, PATCH, POST"},
	} {
		r := g.send(c.method, c.path, "")
		r.refused(405, "method_not_allowed", "")
		if r.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow: %s, want %s", c.method, c.path, r.header.Get("Allow"), c.allow)
		}
	}
	if r := g.send("HEAD", "/keys", ""); r.status != 200 || len(r.raw) != 0 {
		t.Errorf("HEAD: %d %q", r.status, r.raw)
	}
}

func TestIdentity(t *testing.T) {
	g := newRig(t)
	for _, path := range []string{"", "/"} {
		if who := ok[Identity](g.send("GET", path, ""), 200); who.Service != "warder" || who.Version != "test" {
			t.Errorf("%+v", who)
		}
	}
}
