package managementapi

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// What each route demands, said a second time: a row that was lowered by
// accident differs.
func TestRouteTable(t *testing.T) {
	want := map[string]string{
		"GET ": "read", "GET /{$}": "read",
		"POST /keys": "keys", "GET /keys": "read", "GET /keys/{id}": "read", "PATCH /keys/{id}": "keys", "DELETE /keys/{id}": "keys",
		"POST /keys/{id}/rotate": "keys", "POST /keys/{id}/regenerate": "keys", "POST /keys/{id}/renew": "keys", "POST /keys/{id}/expire": "keys",
		"POST /keys/{id}/activate": "keys", "POST /keys/{id}/deactivate": "keys", "POST /keys/{id}/block": "admin", "POST /keys/{id}/unblock": "admin",
		"POST /organizations": "admin", "GET /organizations": "read", "GET /organizations/{slug}": "read", "PATCH /organizations/{slug}": "admin",
		"GET /signing-keys": "admin", "POST /signing-keys/rotate": "admin",
	}
	for _, rt := range routes {
		name := rt.method + " " + rt.pattern
		if rt.scope != "warder:"+want[name] {
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
	mine := string(g.make(`{"organization":"acme","expires_in_days":30}`).ID)
	others := string(g.make(`{"expires_in_days":30}`).ID)
	lesser := []string{"", "hello:read", "warder:read", "warder:keys", "warder:read warder:keys", "warder:administrator", "WARDER:ADMIN", "admin"}
	for _, rt := range routes {
		if !slices.Contains([]string{keystore.ScopeAdmin, keystore.ScopeKeys, keystore.ScopeRead}, rt.scope) {
			t.Fatalf("%s %s has no scope", rt.method, rt.pattern)
		}
		for _, scopes := range lesser {
			for _, target := range []struct{ id, slug string }{{mine, "acme"}, {others, "default"}} {
				path := strings.NewReplacer("{id}", target.id, "{slug}", target.slug, "/{$}", "/").Replace(rt.pattern)
				holds := keystore.Scopes(scopes).Grants(rt.scope)
				if holds && rt.method != http.MethodGet && target.slug == "acme" {
					continue // is allowed to, and does: other tests
				}
				g.asAdmin()
				before := ok[KeyPage](g.send("GET", "/keys", ""), 200)
				g.as("acme", scopes)
				r := g.send(rt.method, path, bodyFor(rt, target.slug))
				name := rt.method + " " + path + " as " + scopes
				switch {
				case !holds && r.status != http.StatusForbidden:
					t.Errorf("%s: %d %s", name, r.status, r.raw)
				case holds && path != rt.pattern && path != "/" && target.slug == "default" && r.status != http.StatusNotFound:
					t.Errorf("%s: %d %s", name, r.status, r.raw)
				case holds && target.slug == "acme" && r.status != http.StatusOK:
					t.Errorf("%s: %d %s", name, r.status, r.raw)
				case strings.Contains(string(r.raw), others) && rt.method == http.MethodGet:
					t.Errorf("%s shows another organization's key: %s", name, r.raw)
				}
				g.asAdmin()
				if after := ok[KeyPage](g.send("GET", "/keys", ""), 200); len(after.Keys) != len(before.Keys) || revisions(after) != revisions(before) {
					t.Errorf("%s changed something", name)
				}
			}
		}
		g.asAdmin()
		path := strings.NewReplacer("{id}", string(g.make(`{"organization":"acme","expires_in_days":3}`).ID), "{slug}", "acme", "/{$}", "/").Replace(rt.pattern)
		if r := g.send(rt.method, path, bodyFor(rt, "default")); r.status/100 != 2 {
			t.Errorf("%s %s as administrator: %d %s", rt.method, path, r.status, r.raw)
		}
	}
}

func revisions(p KeyPage) (sum keystore.Revision) {
	for _, k := range p.Keys {
		sum += k.Revision
	}
	return sum
}

func bodyFor(rt route, organization string) string {
	switch rt.method + " " + rt.pattern {
	case "POST /keys":
		return `{"organization":"` + organization + `"}`
	case "POST /keys/{id}/renew":
		return `{"days":3}`
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
// mightier one.
func TestNobodyGrantsWhatItDoesNotHold(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	mighty := g.make(`{"organization":"acme","scopes":["warder:admin"],"expires_in_days":30}`)
	ordinary := g.make(`{"organization":"acme","scopes":["x"],"expires_in_days":30}`)
	g.as("acme", "warder:keys")

	for _, scope := range []string{"warder:admin", "warder:read warder:admin"} {
		body := `{"scopes":["` + strings.ReplaceAll(scope, " ", `","`) + `"]}`
		g.send("POST", "/keys", body).refused(403, "forbidden", "")
		g.send("PATCH", "/keys/"+string(ordinary.ID), body).refused(403, "forbidden", "")
	}
	g.send("POST", "/keys", `{"type":"trial"}`).refused(403, "forbidden", "")
	g.send("POST", "/keys", `{"organization":"default"}`).refused(404, "organization_not_found", "")
	g.send("POST", "/keys", `{"organization":"nowhere"}`).refused(404, "organization_not_found", "")
	g.send("GET", "/keys?organization=default", "").refused(404, "organization_not_found", "")
	for _, verb := range []string{"rotate", "regenerate", "renew", "expire", "activate", "deactivate"} {
		g.send("POST", "/keys/"+string(mighty.ID)+"/"+verb, map[string]string{"renew": `{"days":3}`}[verb]).refused(403, "forbidden", "")
	}
	g.send("PATCH", "/keys/"+string(mighty.ID), `{"name":"x"}`).refused(403, "forbidden", "")
	g.send("DELETE", "/keys/"+string(mighty.ID), "").refused(403, "forbidden", "")

	if key := g.make(`{"scopes":["warder:read","y"]}`); key.Organization != "acme" {
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
		{"get", "/keys", "GET, HEAD, POST"}, {"DELETE", "/organizations/default", "GET, HEAD, PATCH"},
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
