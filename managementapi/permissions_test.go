package managementapi

import (
	"fmt"
	"strings"
	"testing"
)

func TestPermissionLife(t *testing.T) {
	g := newRig(t)
	r := g.send("POST", "/permissions", `{"name":"read","description":"looks","rules":[{"methods":["GET"],"paths":["/v1/*","/v1/*/items"]},{"paths":["/x"]}],"metadata":{"a":1}}`)
	p := ok[Permission](r, 201)
	path := "/permissions/" + p.ID
	if p.Organization != nil || p.Name != "read" || p.Description != "looks" || len(p.Rules) != 2 || p.Rules[0].Methods[0] != "GET" || len(p.Rules[1].Methods) != 0 ||
		string(p.Metadata) != `{"a":1}` || p.CreatedAt.IsZero() || r.header.Get("ETag") != etag(p.Revision) || r.header.Get("Location") != "/warder/v1"+path {
		t.Errorf("%s %v", r.raw, r.header)
	}
	if got := g.send("GET", path, ""); string(got.raw) != string(r.raw) || got.header.Get("ETag") != etag(p.Revision) {
		t.Errorf("%s", got.raw)
	}
	for _, step := range []struct{ body, want string }{
		{`{}`, `read looks 2 {"a":1}`},
		{`{"name":"write","description":null,"metadata":{"b":2}}`, `write  2 {"a":1,"b":2}`},
		{`{"rules":[{"methods":null,"paths":["/y"]}],"metadata":{"a":null}}`, `write  1 {"b":2}`},
		{`{"rules":null,"metadata":null}`, `write  0 {}`},
	} {
		q := ok[Permission](g.send("PATCH", path, step.body), 200)
		if got := fmt.Sprintf("%s %s %d %s", q.Name, q.Description, len(q.Rules), q.Metadata); got != step.want {
			t.Errorf("after %s: %s, want %s", step.body, got, step.want)
		}
	}
	if gone := ok[DeletedPermission](g.send("DELETE", path, ""), 200); !gone.Deleted || gone.ID != p.ID || gone.Revision <= p.Revision {
		t.Errorf("%+v", gone)
	}
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		g.send(method, path, "").refused(404, "permission_not_found", "")
	}
}

func TestPermissionRefusals(t *testing.T) {
	g := newRig(t)
	path := "/permissions/" + g.permission(`{"name":"one"}`).ID
	g.permission(`{"name":"taken"}`)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	g.permission(`{"name":"taken","organization":"acme"}`) // unique in its organization only
	before := g.everything()
	for _, c := range []struct {
		member, code, place string
		status              int
	}{
		{`"name":""`, "invalid_field", "/name", 400},
		{`"name":null`, "invalid_field", "/name", 400},
		{`"name":7`, "invalid_field", "/name", 400},
		{`"name":"taken"`, "name_taken", "/name", 409},
		{`"description":"` + strings.Repeat("x", 1025) + `"`, "invalid_field", "/description", 400},
		{`"rules":{}`, "invalid_field", "/rules", 400},
		{`"rules":[null]`, "invalid_field", "/rules/0", 400},
		{`"rules":[{"paths":["/x"]},{}]`, "invalid_field", "/rules/1/paths", 400},
		{`"rules":[{"paths":["/x","x"]}]`, "invalid_field", "/rules/0/paths/1", 400},
		{`"rules":[{"paths":["/a/../b"]}]`, "invalid_field", "/rules/0/paths/0", 400},
		{`"rules":[{"paths":["/a%2fb"]}]`, "invalid_field", "/rules/0/paths/0", 400},
		{`"rules":[{"methods":["get"],"paths":["/x"]}]`, "invalid_field", "/rules/0/methods/0", 400},
		{`"rules":[{"methods":"GET","paths":["/x"]}]`, "invalid_field", "/methods", 400},
		{`"rules":[{"Paths":["/x"]}]`, "unknown_field", "/rules/0/Paths", 400},
		{`"rules":[{"paths":["/x"],"effect":"deny"}]`, "unknown_field", "/rules/0/effect", 400},
		{`"metadata":[]`, "invalid_field", "/metadata", 400},
		{`"id":"perm_mine"`, "unknown_field", "/id", 400},
	} {
		place := c.place
		if place == "/methods" {
			place = "/rules/0/methods"
		}
		body := `{` + c.member + `}`
		g.send("PATCH", path, body).refused(c.status, c.code, place)
		if !strings.HasPrefix(c.member, `"name"`) {
			body = `{"name":"two",` + c.member + `}`
		}
		g.send("POST", "/permissions", body).refused(c.status, c.code, place)
	}
	g.send("POST", "/permissions", `{"name":"two","organization":"nowhere"}`).refused(404, "organization_not_found", "")
	g.send("PATCH", path, `{"organization":"acme"}`).refused(400, "unknown_field", "/organization")
	if g.everything() != before {
		t.Error("a refused call changed something")
	}
}

func TestPermissionInUse(t *testing.T) {
	g := newRig(t)
	p := g.permission(`{"name":"used"}`)
	path := "/permissions/" + p.ID
	key := g.make(`{"permissions":["` + p.ID + `"]}`)
	ok[Organization](g.send("PATCH", "/organizations/default", `{"allowed_permissions":["`+p.ID+`"]}`), 200)
	refusal := g.send("DELETE", path, "").refused(409, "permission_in_use", "")
	if len(refusal.Keys) != 1 || refusal.Keys[0] != key.ID || len(refusal.Organizations) != 1 || refusal.Organizations[0] != "default" {
		t.Errorf("%+v", refusal)
	}
	if page := ok[KeyPage](g.send("GET", "/keys?permission="+p.ID, ""), 200); len(page.Keys) != 1 || page.Keys[0].Permissions[0] != p.ID {
		t.Errorf("%+v", page)
	}
	ok[Organization](g.send("PATCH", "/organizations/default", `{"allowed_permissions":null}`), 200)
	g.send("DELETE", path, "").refused(409, "permission_in_use", "")
	if key := ok[Key](g.send("PATCH", "/keys/"+string(key.ID), `{"permissions":null}`), 200); len(key.Permissions) != 0 {
		t.Errorf("%+v", key)
	}
	ok[DeletedPermission](g.send("DELETE", path, ""), 200)
	ok[Organization](g.send("PATCH", "/organizations/default", `{}`), 200)
}

func TestPermissionPages(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	ids := make(map[string]string)
	for _, name := range []string{"d", "b", "a", "c", "e"} {
		ids[name] = g.permission(`{"name":"` + name + `"}`).ID
	}
	g.permission(`{"name":"c","organization":"acme"}`)
	g.permission(`{"name":"f","organization":"default"}`)
	names := func(query string) string {
		t.Helper()
		var all []string
		for cursor := ""; ; {
			page := ok[PermissionPage](g.send("GET", "/permissions?limit=2"+query+cursor, ""), 200)
			for _, p := range page.Permissions {
				all = append(all, p.Name)
			}
			if page.Next == nil {
				return strings.Join(all, " ")
			}
			cursor = "&after=" + *page.Next
		}
	}
	for query, want := range map[string]string{"": "a b c c d e f", "&organization=acme": "a b c c d e", "&organization=default": "a b c d e f", "&organization=nowhere": "a b c d e"} {
		if got := names(query); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	// The cursor is a place, not a permission: it outlives it.
	page := ok[PermissionPage](g.send("GET", "/permissions?limit=2", ""), 200)
	ok[DeletedPermission](g.send("DELETE", "/permissions/"+ids["b"], ""), 200)
	if rest := ok[PermissionPage](g.send("GET", "/permissions?limit=1&after="+*page.Next, ""), 200); rest.Permissions[0].Name != "c" {
		t.Errorf("%+v", rest)
	}
	for query, place := range map[string]string{"limit=0": "limit", "limit=1001": "limit", "after=x": "after", "after=%20": "after", "after=eA": "after", "name=a": "name", "organization=": "organization"} {
		g.send("GET", "/permissions?"+query, "").refused(400, "invalid_parameter", place)
	}
	g.as("acme", "warder:read")
	if got := names(""); got != "a c c d e" {
		t.Errorf("acme sees %s", got)
	}
}
