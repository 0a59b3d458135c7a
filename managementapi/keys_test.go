package managementapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func TestCreateAnswersWithTheWholeKeyOnce(t *testing.T) {
	g := newRig(t)
	r := g.send("POST", "/keys", `{"name":"demo","scopes":["b","a"],"metadata":{"team": "blue"},"expires_in_days":30}`)
	key := ok[IssuedKey](r, http.StatusCreated)
	if key.Number == 0 || key.Organization != "default" || key.Name != "demo" || key.Type != "standard" || key.State != "active" ||
		key.Generation != 1 || strings.Join(key.Scopes, " ") != "a b" || string(key.Metadata) != `{"team":"blue"}` ||
		key.Expires != "Expires in: 30 days" || key.ExpiresAt == nil || key.Deactivated || key.Blocked || key.GraceEnd != nil {
		t.Errorf("%s", r.raw)
	}
	want := keystore.FormatAPIKey(keystore.DefaultPrefix, keystore.AccessKey(key.AccessKey), keystore.Secret(key.SecretKey))
	if key.APIKey.Reveal() != want.Reveal() {
		t.Errorf("the API key does not consist of the pair: %s", r.raw)
	}
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("ETag") != etag(key.Revision) ||
		r.header.Get("Location") != "/warder/v1/keys/"+string(key.ID) {
		t.Errorf("%v", r.header)
	}

	again := g.send("GET", "/keys/"+string(key.ID), "")
	if got := ok[Key](again, http.StatusOK); got.Revision != key.Revision || got.AccessKey != key.AccessKey {
		t.Errorf("%s", again.raw)
	}
	for _, secret := range []string{"secret_key", "api_key", "igest", key.SecretKey.Reveal()} {
		if strings.Contains(string(again.raw), secret) {
			t.Errorf("%q in %s", secret, again.raw)
		}
	}
}

func TestCreateTakesDefaults(t *testing.T) {
	g := newRig(t)
	r := g.send("POST", "/keys", "")
	if key := ok[IssuedKey](r, http.StatusCreated); key.ExpiresAt != nil || key.Expires != "Never Expires" || len(key.Scopes) != 0 {
		t.Errorf("%s", r.raw)
	}
	if !strings.Contains(string(r.raw), `"scopes":[]`) || !strings.Contains(string(r.raw), `"expires_at":null`) ||
		!strings.Contains(string(r.raw), `"metadata":{}`) {
		t.Errorf("%s", r.raw)
	}
	if key := g.make(`{"name":null,"scopes":null,"metadata":null,"expires_at":null,"expires_in_days":null,"type":null,"organization":null}`); key.Type != "standard" {
		t.Errorf("%+v", key.Key)
	}
	if key := g.make(`{"type":"trial"}`); key.Expires != "Expires in: 14 days" || key.Type != "trial" {
		t.Errorf("%+v", key.Key)
	}
	ok[Organization](g.send("PATCH", "/organizations/default", `{"default_expiry_days":7}`), http.StatusOK)
	if key := g.make(`{}`); key.Expires != "Expires in: 7 days" {
		t.Errorf("%+v", key.Key)
	}
}

func TestCreateRefusals(t *testing.T) {
	g := newRig(t)
	g.make(`{"name":"taken"}`)
	ok[Organization](g.send("PATCH", "/organizations/default", `{"maximum_expiry_days":90,"allowed_scopes":["read","write"]}`), http.StatusOK)
	tomorrow := time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	for _, c := range []struct {
		body   string
		status int
		code   string
		place  string
	}{
		{`{"name":"taken"}`, 409, "name_taken", "/name"},
		{`{"expires_in_days":0}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_in_days":-1}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_in_days":1.5}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_in_days":99999999999999999999}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_in_days":9223372036854775807}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_in_days":"30"}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_in_days":281474976710657}`, 400, "invalid_field", "/expires_in_days"}, // one day, in 64 bits of nanoseconds
		{`{"expires_in_days":3,"expires_at":"` + tomorrow + `"}`, 400, "invalid_field", "/expires_in_days"},
		{`{"expires_at":"2220-01-01T00:00:00Z"}`, 400, "invalid_field", "/expires_at"},
		{`{"permissions":["perm_x"]}`, 400, "invalid_field", "/permissions"},
		{`{"permissions":["read"]}`, 400, "invalid_field", "/permissions"},
		{`{"permissions":[null]}`, 400, "invalid_field", "/permissions"},
		{`{"networks":["10.0.0.1/8"]}`, 400, "invalid_field", "/networks"},
		{`{"networks":["example.com"]}`, 400, "invalid_field", "/networks"},
		{`{"networks":"10.0.0.0/8"}`, 400, "invalid_field", "/networks"},
		{`{"limit":"100"}`, 400, "invalid_field", "/limit"},
		{`{"limit":"0/s"}`, 400, "invalid_field", "/limit"},
		{`{"limit":""}`, 400, "invalid_field", "/limit"},
		{`{"limit":100}`, 400, "invalid_field", "/limit"},
		{`{"expires_at":"2001-01-01T00:00:00Z"}`, 400, "invalid_field", "/expires_at"},
		{`{"expires_at":"1970-01-01T00:00:00Z"}`, 400, "invalid_field", "/expires_at"}, // the zero Instant
		{`{"expires_at":"0001-01-01T00:00:00Z"}`, 400, "invalid_field", "/expires_at"}, // the zero time
		{`{"expires_at":"tomorrow"}`, 400, "invalid_field", "/expires_at"},
		{`{"expires_at":4102444800}`, 400, "invalid_field", "/expires_at"},
		{`{"type":"unknown"}`, 400, "invalid_field", "/type"},
		{`{"type":"Trial"}`, 400, "invalid_field", "/type"},
		{`{"type":"trial","expires_in_days":15}`, 400, "invalid_field", "/expires_in_days"},
		{`{"scopes":["other"]}`, 400, "invalid_field", "/scopes"},
		{`{"scopes":["a b"]}`, 400, "invalid_field", "/scopes"},
		{`{"scopes":"read"}`, 400, "invalid_field", "/scopes"},
		{`{"scopes":[null]}`, 400, "invalid_field", "/scopes"},
		{`{"scopes":["warder:everything"]}`, 400, "invalid_field", "/scopes"},
		{`{"metadata":[]}`, 400, "invalid_field", "/metadata"},
		{`{"metadata":"x"}`, 400, "invalid_field", "/metadata"},
		{`{"metadata":{"x":"` + strings.Repeat("x", keystore.MaximumMetadata) + `"}}`, 400, "invalid_field", "/metadata"},
		{`{"name":7}`, 400, "invalid_field", "/name"},
		{`{"name":"a\u0000b"}`, 400, "invalid_field", "/name"},
		{`{"organization":"nowhere"}`, 404, "organization_not_found", ""},
		{`{"nmae":"demo"}`, 400, "unknown_field", "/nmae"},
		{`{"id":"key_mine"}`, 400, "unknown_field", "/id"},
	} {
		t.Run(c.body[:min(len(c.body), 60)], func(t *testing.T) {
			g.send("POST", "/keys", c.body).refused(c.status, c.code, c.place)
		})
	}
	if page := ok[KeyPage](g.send("GET", "/keys", ""), http.StatusOK); len(page.Keys) != 1 {
		t.Errorf("refused creations made keys: %+v", page)
	}
}

// Beyond the maximum of the organization only an administrator goes.
func TestMaximumExpiry(t *testing.T) {
	g := newRig(t)
	ok[Organization](g.send("PATCH", "/organizations/default", `{"maximum_expiry_days":90}`), http.StatusOK)
	path := "/keys/" + string(g.make(`{"expires_in_days":30}`).ID)
	g.as("default", "warder:keys")
	g.send("POST", "/keys", `{"expires_in_days":91}`).refused(400, "invalid_field", "/expires_in_days")
	g.send("POST", "/keys", `{"expires_at":"2120-01-01T00:00:00Z"}`).refused(400, "invalid_field", "/expires_at")
	g.send("POST", path+"/renew", `{"days":91}`).refused(400, "invalid_field", "/days")
	g.send("POST", path+"/regenerate", `{"expires_in_days":91}`).refused(400, "invalid_field", "/expires_in_days")
	g.send("POST", "/keys/import", `{"keys":[{"credential":"foreign-one"},{"credential":"foreign-two","expires_in_days":91}]}`).refused(400, "invalid_field", "/keys/1/expires_in_days")
	if key := g.make(`{}`); key.Expires != "Expires in: 90 days" {
		t.Errorf("%+v", key.Key)
	}
	g.asAdmin()
	if key := ok[Key](g.send("POST", path+"/renew", `{"days":91}`), http.StatusOK); key.Expires != "Expires in: 91 days" {
		t.Errorf("%+v", key)
	}
}

// Every state that a key can be in, and what each operation says to it.
func TestTransitionsByState(t *testing.T) {
	g := newRig(t)
	states := map[string]func() keystore.KeyID{
		"active":      func() keystore.KeyID { return g.make(`{"expires_in_days":30}`).ID },
		"deactivated": func() keystore.KeyID { return g.changed(`{"expires_in_days":30}`, "deactivate") },
		"blocked":     func() keystore.KeyID { return g.changed(`{"expires_in_days":30}`, "block") },
		"expired":     func() keystore.KeyID { return g.changed(`{"expires_in_days":30}`, "expire") },
		"immortal":    func() keystore.KeyID { return g.make(`{}`).ID },
	}
	refusals := map[string]string{
		"rotate blocked": "blocked", "rotate expired": "expired", "regenerate blocked": "blocked",
		"renew blocked": "blocked", "renew immortal": "never_expires", "expire blocked": "blocked",
	}
	after := map[string]string{ // the state afterwards, where it is not the state before
		"regenerate expired": "active", "renew expired": "active",
		"expire active": "expired", "expire deactivated": "expired", "expire immortal": "expired", "expire expired": "expired",
		"deactivate active": "deactivated", "deactivate immortal": "deactivated", "activate deactivated": "active",
		"block active": "blocked", "block deactivated": "blocked", "block expired": "blocked", "block immortal": "blocked",
		"unblock blocked": "active",
	}
	bodies := map[string]string{"renew": `{"days":5}`}
	for state, enter := range states {
		for _, verb := range []string{"rotate", "regenerate", "renew", "expire", "deactivate", "activate", "block", "unblock"} {
			t.Run(verb+" "+state, func(t *testing.T) {
				id := enter()
				before := ok[Key](g.send("GET", "/keys/"+string(id), ""), http.StatusOK)
				r := g.send("POST", "/keys/"+string(id)+"/"+verb, bodies[verb])
				if code, refused := refusals[verb+" "+state]; refused {
					r.refused(http.StatusConflict, code, "")
					if now := ok[Key](g.send("GET", "/keys/"+string(id), ""), http.StatusOK); now.Revision != before.Revision {
						t.Errorf("a refused call changed the key: %+v", now)
					}
					return
				}
				want, moved := after[verb+" "+state]
				if !moved {
					want = before.State
				}
				got := ok[Key](r, http.StatusOK)
				if got.State != want || r.header.Get("ETag") != etag(got.Revision) {
					t.Errorf("state %s, want %s: %s", got.State, want, r.raw)
				}
			})
		}
	}
}

// changed makes a key and calls a verb of it.
func (g *rig) changed(body, verb string) keystore.KeyID {
	g.t.Helper()
	id := g.make(body).ID
	ok[Key](g.send("POST", "/keys/"+string(id)+"/"+verb, ""), http.StatusOK)
	return id
}

func TestRotateKeepsTheOldSecretForTheGracePeriod(t *testing.T) {
	g := newRig(t)
	first := g.make(`{}`)
	path := "/keys/" + string(first.ID) + "/rotate"
	second := ok[IssuedKey](g.send("POST", path, ""), http.StatusOK)
	if second.AccessKey != first.AccessKey || second.SecretKey == first.SecretKey || second.Generation != 2 ||
		second.PreviousGeneration != 1 || second.GraceEnd == nil || time.Until(*second.GraceEnd) < 5*time.Hour {
		t.Errorf("%+v", second.Key)
	}
	third := ok[IssuedKey](g.send("POST", path, `{"force":true}`), http.StatusOK)
	if third.Generation != 3 || third.PreviousGeneration != 0 || third.GraceEnd != nil {
		t.Errorf("%+v", third.Key)
	}
	g.send("POST", path, `{"force":"yes"}`).refused(400, "invalid_field", "/force")
	rec := g.record(first.ID)
	if err := rec.Admit(2, time.Now()); err == nil {
		t.Error("a forced rotation left the old secret alive")
	}
}

func TestRegenerateReplacesTheWholePair(t *testing.T) {
	g := newRig(t)
	first := g.make(`{"expires_in_days":3}`)
	path := "/keys/" + string(first.ID) + "/regenerate"
	second := ok[IssuedKey](g.send("POST", path, `{"expires_in_days":9}`), http.StatusOK)
	if second.AccessKey == first.AccessKey || second.Generation != 2 || second.GraceEnd != nil || second.Expires != "Expires in: 9 days" {
		t.Errorf("%+v", second.Key)
	}
	if third := ok[IssuedKey](g.send("POST", path, ""), http.StatusOK); third.Expires != "Never Expires" {
		t.Errorf("%+v", third.Key)
	}
	g.send("POST", path, `{"expires_in_days":99999}`).refused(400, "invalid_field", "/expires_in_days")
	g.send("POST", path, `{"days":3}`).refused(400, "unknown_field", "/days")
}

func TestRenewRefusals(t *testing.T) {
	g := newRig(t)
	ok[Organization](g.send("PATCH", "/organizations/default", `{"maximum_expiry_days":90}`), http.StatusOK)
	path := "/keys/" + string(g.make(`{"expires_in_days":30}`).ID) + "/renew"
	for _, body := range []string{``, `{}`, `{"days":null}`, `{"days":0}`, `{"days":-3}`, `{"days":36526}`, `{"days":"3"}`, `{"days":1e3}`, `{"days":4294967297}`} {
		g.send("POST", path, body).refused(400, "invalid_field", "/days")
	}
	if key := ok[Key](g.send("POST", path, `{"days":1}`), http.StatusOK); key.Expires != "Expires in: 1 days" {
		t.Errorf("%+v", key)
	}
}

func TestSwitchesDoNotTouchEachOther(t *testing.T) {
	g := newRig(t)
	id := g.changed(`{}`, "deactivate")
	path := "/keys/" + string(id)
	ok[Key](g.send("POST", path+"/block", ""), http.StatusOK)
	key := ok[Key](g.send("POST", path+"/unblock", ""), http.StatusOK)
	if key.State != "deactivated" || !key.Deactivated || key.Blocked {
		t.Errorf("%+v", key)
	}
	if again := ok[Key](g.send("POST", path+"/deactivate", ""), http.StatusOK); again.Revision != key.Revision {
		t.Errorf("setting what is set made revision %d of %d", again.Revision, key.Revision)
	}
}

func TestUpdateIsAMergePatch(t *testing.T) {
	g := newRig(t)
	path := "/keys/" + string(g.make(`{"name":"n","scopes":["a"],"metadata":{"x":{"y":1,"z":2},"n":1.50,"keep":true}}`).ID)
	for _, step := range []struct{ body, name, scopes, metadata string }{
		{`{}`, "n", "a", `{"x":{"y":1,"z":2},"n":1.50,"keep":true}`},
		{`{"metadata":{"x":{"y":null},"new":[1,null]}}`, "n", "a", `{"keep":true,"n":1.50,"new":[1,null],"x":{"z":2}}`},
		{`{"name":"m","metadata":{"X":1}}`, "m", "a", `{"X":1,"keep":true,"n":1.50,"new":[1,null],"x":{"z":2}}`},
		{`{"scopes":["c","b"],"metadata":{"X":null,"n":null,"new":null,"x":null,"keep":null}}`, "m", "b c", `{}`},
		{`{"metadata":{"a":{"b":null,"c":3}}}`, "m", "b c", `{"a":{"c":3}}`},
		{`{"name":null,"scopes":null,"metadata":null}`, "", "", `{}`},
	} {
		key := ok[Key](g.send("PATCH", path, step.body), http.StatusOK)
		if key.Name != step.name || strings.Join(key.Scopes, " ") != step.scopes || string(key.Metadata) != step.metadata {
			t.Errorf("after %s: %q %v %s", step.body, key.Name, key.Scopes, key.Metadata)
		}
	}
	for body, place := range map[string]string{
		`{"type":"trial"}`: "/type", `{"blocked":true}`: "/blocked", `{"organization":"acme"}`: "/organization",
		`{"expires_at":null}`: "/expires_at", `{"Name":"x"}`: "/Name", `{"revision":1}`: "/revision", `{"a/b~c":1}`: "/a~1b~0c",
	} {
		g.send("PATCH", path, body).refused(400, "unknown_field", place)
	}
	if r := g.send("PATCH", path, `{"name":"j"}`, "Content-Type", "application/json"); r.status != http.StatusOK {
		t.Errorf("plain JSON as a patch: %s", r.raw)
	}
	g.make(`{"name":"taken"}`)
	g.send("PATCH", path, `{"name":"taken"}`).refused(409, "name_taken", "/name")
	big := strings.Repeat("x", keystore.MaximumMetadata-20)
	ok[Key](g.send("PATCH", path, `{"metadata":{"a":"`+big+`"}}`), http.StatusOK)
	g.send("PATCH", path, `{"metadata":{"b":"`+big+`"}}`).refused(400, "invalid_field", "/metadata")
}

func TestDelete(t *testing.T) {
	g := newRig(t)
	key := g.make(`{"name":"gone"}`)
	path := "/keys/" + string(key.ID)
	if d := ok[DeletedKey](g.send("DELETE", path, ""), http.StatusOK); !d.Deleted || d.ID != key.ID || d.Revision <= key.Revision {
		t.Errorf("%+v", d)
	}
	g.send("DELETE", path, "").refused(404, "key_not_found", "")
	g.send("GET", path, "").refused(404, "key_not_found", "")
	if next := g.make(`{"name":"gone"}`); next.Number <= key.Number {
		t.Errorf("number %d after %d", next.Number, key.Number)
	}
}

func TestUnknownKeyIsNotFoundByAnyRoute(t *testing.T) {
	g := newRig(t)
	access := string(g.make(`{}`).AccessKey) // finds a key in the view, and must not here
	for _, rt := range routes {
		if !strings.Contains(rt.pattern, "{id}") {
			continue
		}
		for _, id := range []string{access, "key_nosuch", "%2e%2e", "a%2fb", "%00"} {
			r := g.send(rt.method, strings.Replace(rt.pattern, "{id}", id, 1), bodyFor(rt, "default"))
			if r.status != http.StatusNotFound {
				t.Errorf("%s %s with %s: %d %s", rt.method, rt.pattern, id, r.status, r.raw)
			}
		}
	}
}

func TestList(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), http.StatusCreated)
	for i := range 5 {
		g.make(fmt.Sprintf(`{"name":"k%d"}`, i))
	}
	g.changed(`{"name":"blocked"}`, "block")
	g.changed(`{"name":"expired"}`, "expire")
	g.make(`{"type":"trial","name":"trial"}`)

	names := func(query string) string {
		t.Helper()
		var all []string
		for cursor := ""; ; {
			page := ok[KeyPage](g.send("GET", "/keys?limit=2"+query+cursor, ""), http.StatusOK)
			for _, k := range page.Keys {
				all = append(all, k.Name)
			}
			if page.Next == nil {
				return strings.Join(all, " ")
			}
			cursor = "&after=" + *page.Next
		}
	}
	for query, want := range map[string]string{
		"":                                      " k0 k1 k2 k3 k4 blocked expired trial",
		"&organization=acme":                    "",
		"&organization=default&state=active":    "k0 k1 k2 k3 k4 trial",
		"&state=blocked":                        "blocked",
		"&state=expired":                        "expired",
		"&type=trial":                           "trial",
		"&type=standard&state=deactivated":      "",
		"&organization=nowhere":                 "",
		"&type=trial&organization=acme&after=0": "",
		"&name=k3":                              "k3",
		"&name=K3":                              "",
		"&permission=perm_x":                    "",
		"&imported=true":                        "",
	} {
		if got := names(query); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	if page := ok[KeyPage](g.send("GET", "/keys?after=9999", ""), http.StatusOK); page.Keys == nil || len(page.Keys) != 0 || page.Next != nil {
		t.Errorf("%+v", page)
	}
	for query, place := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=": "limit", "after=-1": "after", "after=x": "after",
		"type=unknown": "type", "state=unknown": "state", "state=": "state", "org=acme": "org", "limit=1&limit=2": "limit", "a=%zz": "", "a=1;b=2": "",
		"imported=false": "imported", "imported=1": "imported", "name=": "name", "organization=": "organization", "before=0": "before", "before=x": "before", "before=3&after=1": "before",
	} {
		g.send("GET", "/keys?"+query, "").refused(400, "invalid_parameter", place)
	}
	if page := ok[KeyPage](g.send("GET", "/keys?limit=1000", ""), http.StatusOK); len(page.Keys) != 9 {
		t.Errorf("%+v", page)
	}
	id := string(g.make(`{}`).ID)
	g.send("POST", "/keys/"+id+"/rotate?force=true", "").refused(400, "invalid_parameter", "force")
}

// A list can be walked backwards, over the same pages.
func TestListBackwards(t *testing.T) {
	g := newRig(t)
	for i := range 5 {
		g.make(fmt.Sprintf(`{"name":"k%d"}`, i))
	}
	names := func(p KeyPage) string {
		var all []string
		for _, k := range p.Keys {
			all = append(all, k.Name)
		}
		return strings.Join(all, " ")
	}
	page := func(query string) KeyPage {
		t.Helper()
		return ok[KeyPage](g.send("GET", "/keys?limit=2"+query, ""), http.StatusOK)
	}
	first := page("")
	second := page("&after=" + *first.Next)
	third := page("&after=" + *second.Next)
	if names(third) != "k4" || third.Next != nil || first.Previous != nil {
		t.Fatalf("%+v", third)
	}
	back := page("&before=" + *third.Previous)
	if names(back) != names(second) || *back.Next != *second.Next || *back.Previous != *second.Previous {
		t.Errorf("%+v", back)
	}
	if start := page("&before=" + *back.Previous); names(start) != names(first) || start.Previous != nil || *start.Next != *first.Next {
		t.Errorf("%+v", start)
	}
	if none := page("&before=1"); len(none.Keys) != 0 || none.Next != nil || none.Previous != nil {
		t.Errorf("%+v", none)
	}
}
