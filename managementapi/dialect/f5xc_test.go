package dialect

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

const f5xcPath = f5xcBase + "/api/web/namespaces/"

// f5xc makes a call under a namespace.
func (g *rig) f5xc(token, method, path, body string, headers ...string) reply {
	g.t.Helper()
	return g.send("APIToken "+token, method, f5xcPath+path, body, headers...)
}

type f5xcCreated struct {
	Data    string  `json:"data"`
	Name    string  `json:"name"`
	Active  bool    `json:"active"`
	Expires *string `json:"expiration_timestamp"`
}

func (g *rig) f5xcList(token, kind string) map[string]f5xcListed {
	g.t.Helper()
	var all struct {
		Items []f5xcListed `json:"items"`
	}
	all = into[struct {
		Items []f5xcListed `json:"items"`
	}](g.f5xc(token, "GET", "system/"+kind, ""))
	byName := make(map[string]f5xcListed)
	for _, item := range all.Items {
		byName[item.Name] = item
	}
	return byName
}

type f5xcListed struct {
	Name      string  `json:"name"`
	Namespace string  `json:"namespace"`
	UID       string  `json:"uid"`
	Type      string  `json:"type"`
	Created   string  `json:"create_timestamp"`
	Expires   *string `json:"expiry_timestamp"`
	Email     *string `json:"user_email"`
	Active    bool    `json:"active"`
}

// owner is the API key of an organization's manager.
func (g *rig) owner(slug string) string {
	g.t.Helper()
	return g.organization(keystore.Organization{Slug: slug}, keystore.ScopeKeys).APIKey.Reveal()
}

func TestF5XCRows(t *testing.T) {
	for _, kind := range []credentials{{"api_credentials", "API_TOKEN"}, {"service_credentials", "SERVICE_API_TOKEN"}} {
		t.Run(kind.path, func(t *testing.T) {
			g := newRig(t)
			own := g.owner("acme")
			body := `{"namespace":"elsewhere","name":"example","spec":{"type":"` + kind.kind + `"},"expiration_days":10}`
			r := g.f5xc(own, "POST", "acme/"+kind.path+"/", body)
			made := into[f5xcCreated](r)
			if made.Name != "example" || !made.Active || made.Expires == nil || !whole(*made.Expires) || g.passes(made.Data) != nil {
				t.Errorf("created: %s", r.raw)
			}
			if fmt.Sprint(members(r)) != "[data name active expiration_timestamp]" {
				t.Errorf("created: %s", r.raw)
			}
			item := g.f5xcList(own, kind.path)["example"]
			if item.Type != kind.kind || item.Namespace != "system" || !strings.HasPrefix(item.UID, "key_") || !item.Active || !whole(item.Created) ||
				item.Expires == nil || *item.Expires != *made.Expires || item.Email == nil {
				t.Errorf("listed: %+v", item)
			}
			g.f5xcGet(own, kind, made)

			status := func(verb, body string) {
				t.Helper()
				if r := g.f5xc(own, "POST", "acme/"+verb+"/"+kind.path, body); r.status != 200 || string(r.raw) != `{"status":true}`+"\n" {
					t.Errorf("%s: %d %s", verb, r.status, r.raw)
				}
			}
			status("renew", `{"expiration_days":1,"name":"example","namespace":"example"}`)
			if got := *g.f5xcList(own, kind.path)["example"].Expires; got >= *made.Expires {
				t.Errorf("renewed from %s until %s", *made.Expires, got)
			}
			_, err := g.service.SetDeactivated(context.Background(), keystore.LocalCaller(), keystore.KeyID(item.UID), true, 0)
			check(t, err)
			status("activate", `{"name":"example","namespace":"acme"}`)
			check(t, g.passes(made.Data))
			status("revoke", `{"name":"example","namespace":"acme"}`)
			if _, there := g.f5xcList(own, kind.path)["example"]; there || g.passes(made.Data) == nil {
				t.Error("revoked, but there")
			}
			g.f5xc(own, "POST", "acme/revoke/"+kind.path, `{"name":"example"}`).is(404, "")
		})
	}
}

func (g *rig) f5xcGet(token string, kind credentials, made f5xcCreated) {
	g.t.Helper()
	r := g.f5xc(token, "GET", "acme/"+kind.path+"/example", "")
	got := into[struct {
		Object struct {
			Metadata struct{ Name, Namespace string }
			System   struct{ UID, Tenant string } `json:"system_metadata"`
			Spec     struct {
				Generic map[string]any `json:"gc_spec"`
			}
		}
	}](r)
	o, spec := got.Object, got.Object.Spec.Generic
	if o.Metadata.Name != "example" || o.Metadata.Namespace != "acme" || o.System.Tenant != "acme" || spec["type"] != kind.kind ||
		spec["active"] != true || spec["expiration_timestamp"] != *made.Expires || !whole(fmt.Sprint(spec["created_timestamp"])) || spec["users"] == nil || len(fmt.Sprint(spec["digest"])) != 64 {
		g.t.Errorf("%s", r.raw)
	}
	if strings.Contains(string(r.raw), made.Data) {
		g.t.Error("the secret is shown a second time")
	}
}

// The two kinds do not see each other, and a key made elsewhere is an API
// token that goes by its id if it has no name.
func TestF5XCKinds(t *testing.T) {
	g := newRig(t)
	own := g.owner("acme")
	into[f5xcCreated](g.f5xc(own, "POST", "system/service_credentials", `{"name":"robot","type":"SERVICE_API_TOKEN"}`))
	nameless := g.key(keystore.NewKey{Organization: "acme"}).Record.ID
	tokens, robots := g.f5xcList(own, "api_credentials"), g.f5xcList(own, "service_credentials")
	if len(tokens) != 2 || tokens[string(nameless)].Type != "API_TOKEN" || len(robots) != 1 || robots["robot"].Expires != nil {
		t.Errorf("%+v, %+v", tokens, robots)
	}
	g.f5xc(own, "GET", "system/api_credentials/robot", "").is(404, "")
	g.f5xc(own, "POST", "system/revoke/api_credentials", `{"name":"robot"}`).is(404, "")
	into[map[string]any](g.f5xc(own, "GET", "system/api_credentials/"+string(nameless), ""))
	into[map[string]any](g.f5xc(own, "POST", "system/revoke/api_credentials", `{"name":"`+string(nameless)+`"}`))
	certificate := g.key(keystore.NewKey{Organization: "acme", Name: "old", Metadata: `{"f5xc":{"type":"API_CERTIFICATE"}}`})
	g.f5xc(own, "POST", "system/renew/api_credentials", `{"name":"old","expiration_days":1}`).is(400, "API_TOKEN")
	check(t, g.passes(certificate.APIKey.Reveal()))
}

func TestF5XCExpiry(t *testing.T) {
	g := newRig(t)
	own := g.owner("acme")
	renew := func(name, days string) reply {
		return g.f5xc(own, "POST", "system/renew/api_credentials", `{"name":"`+name+`","expiration_days":`+days+`}`)
	}
	made := into[f5xcCreated](g.f5xc(own, "POST", "system/api_credentials", `{"name":"a","spec":{"type":"API_TOKEN"},"expiration_days":10}`))
	into[map[string]bool](renew("a", "0")) // now
	if err := g.passes(made.Data); err != keystore.ErrExpired {
		t.Errorf("after 0 days: %v", err)
	}
	if item := g.f5xcList(own, "api_credentials")["a"]; item.Active || item.Name != "a" {
		t.Errorf("an expired one is listed as %+v", item)
	}
	into[map[string]bool](g.f5xc(own, "POST", "system/activate/api_credentials", `{"name":"a"}`))
	if err := g.passes(made.Data); err != keystore.ErrExpired {
		t.Errorf("activation renews: %v", err)
	}
	into[map[string]bool](renew("a", "3")) // the same secret again
	check(t, g.passes(made.Data))
	for _, days := range []string{"-1", "36526", `"3"`, "1.5", "null", "1e99"} {
		renew("a", days).is(400, "expiration_days")
	}
	g.f5xc(own, "POST", "system/renew/api_credentials", `{"name":"a"}`).is(400, "expiration_days")

	into[f5xcCreated](g.f5xc(own, "POST", "system/api_credentials", `{"name":"forever","spec":{"type":"API_TOKEN"}}`))
	renew("forever", "3").is(400, "never expires")
	g.f5xc(own, "POST", "system/api_credentials", `{"name":"b","spec":{"type":"API_TOKEN"},"expiration_days":0}`).is(400, "expiration_days")
	g.f5xc(own, "POST", "system/api_credentials", `{"name":"b","spec":{"type":"API_TOKEN"},"expiration_days":1.5}`).is(400, "must be a whole number")
	into[map[string]bool](renew("forever", "0"))
	_, err := g.service.UpdateOrganization(context.Background(), keystore.LocalCaller(), "acme", 0, func(o *keystore.Organization) error {
		o.MaximumExpiry = 30
		return nil
	})
	check(t, err)
	renew("a", "31").is(400, "expiration_days")
	g.f5xc(own, "POST", "system/api_credentials", `{"name":"b","spec":{"type":"API_TOKEN"},"expiration_days":31}`).is(400, "expiration_days")
}

func TestF5XCRefusals(t *testing.T) {
	g := newRig(t)
	own := g.owner("acme")
	into[f5xcCreated](g.f5xc(own, "POST", "system/api_credentials", `{"name":"a","spec":{"type":"API_TOKEN"}}`))
	for body, status := range map[string]int{
		`{"name":"a","spec":{"type":"API_TOKEN"}}`: 409, // taken, or a second attempt
		`{"name":"b"}`:           400, // a certificate
		`{"name":"b","spec":{}}`: 400,
		`{"name":"b","spec":{"type":"API_CERTIFICATE"}}`:   400,
		`{"name":"b","spec":{"type":"SERVICE_API_TOKEN"}}`: 400,
		`{"name":"b","spec":7}`:                            400,
		`{"name":7,"spec":{"type":"API_TOKEN"}}`:           400,
		``:                                                 400,
		`name=b`:                                           400,
	} {
		g.f5xc(own, "POST", "system/api_credentials", body).isString(status)
	}
	for _, verb := range []string{"renew", "activate", "revoke"} {
		for _, body := range []string{"", "{}", `{"namespace":"system","expiration_days":0}`, `{"name":"","expiration_days":0}`, `{"name":null,"expiration_days":0}`,
			`{"metadata":{"name":"a"},"expiration_days":0}`} {
			g.f5xc(own, "POST", "system/"+verb+"/api_credentials", body).isString(400)
		}
		g.f5xc(own, "POST", "system/"+verb+"/api_credentials", `{"name":"nobody","expiration_days":0}`).isString(404)
	}
	if item := g.f5xcList(own, "api_credentials")["a"]; !item.Active {
		t.Errorf("a refused call touched %+v", item)
	}
	g.owner("other")
	for _, namespace := range []string{"other", "default", "nowhere"} {
		g.f5xc(own, "GET", namespace+"/api_credentials", "").isString(404)
		g.f5xc(own, "POST", namespace+"/api_credentials", `{"name":"b","spec":{"type":"API_TOKEN"}}`).isString(404)
		g.send("APIToken "+own, "GET", f5xcBase+"/api/web/custom/namespaces/"+namespace+"/whoami", "").isString(404)
	}
	g.f5xc("nonsense", "GET", "system/api_credentials", "").isString(401)
	g.send("", "GET", f5xcPath+"system/api_credentials", "").isString(401)
	g.f5xc(own, "PUT", "system/api_credentials", "").isString(405)
	g.f5xc(own, "GET", "system/nothing", "").isString(404)
	last := g.f5xcList(own, "api_credentials")
	delete(last, "first")
	for name := range last {
		into[map[string]bool](g.f5xc(own, "POST", "system/revoke/api_credentials", `{"name":"`+name+`"}`))
	}
	if r := g.f5xc(own, "POST", "system/revoke/api_credentials", `{"name":"first"}`); r.status == 200 || g.passes(own) != nil {
		t.Errorf("the organization's last key: %d %s", r.status, r.raw)
	}
}

// isString checks that the body is a JSON string.
func (r reply) isString(status int) {
	r.t.Helper()
	var text string
	if err := json.Unmarshal(r.raw, &text); err != nil || r.status != status || text == "" {
		r.t.Errorf("%s: %d %s, want %d and a string", r.what, r.status, r.raw, status)
	}
}

func TestF5XCBulkRevoke(t *testing.T) {
	g := newRig(t)
	own := g.owner("acme")
	for _, name := range []string{"a", "b", "c", "d"} {
		into[f5xcCreated](g.f5xc(own, "POST", "system/api_credentials", `{"name":"`+name+`","spec":{"type":"API_TOKEN"}}`))
	}
	into[f5xcCreated](g.f5xc(own, "POST", "system/service_credentials", `{"name":"robot","spec":{"type":"SERVICE_API_TOKEN"}}`))
	into[map[string]bool](g.f5xc(own, "POST", "system/renew/service_credentials", `{"name":"robot","expiration_days":0}`))
	into[map[string]bool](g.f5xc(own, "POST", "system/renew/api_credentials", `{"name":"d","expiration_days":0}`))
	bulk := func(body string) reply { return g.f5xc(own, "POST", "system/bulk_revoke/api_credentials", body) }
	many, _ := json.Marshal(slices.Repeat([]string{"a"}, 201))
	for _, body := range []string{
		"", "{}", `{"name_selector":{"names":["a"]},"expired_selector":{}}`, `{"name_selector":{"names":[]}}`, `{"name_selector":{}}`,
		`{"name_selector":["a"]}`, `{"name_selector":{"names":` + string(many) + `}}`, `{"name":"a"}`,
	} {
		bulk(body).isString(400)
	}
	r := bulk(`{"name_selector":{"names":["a","nobody","b","a","robot"]}}`)
	done := into[bulkRevoked](r)
	if fmt.Sprint(done.Marked, done.Failed) != "[a b] [nobody robot]" || !strings.Contains(done.Message, "nobody") {
		t.Errorf("%s", r.raw)
	}
	if done := into[bulkRevoked](bulk(`{"expired_selector":{}}`)); fmt.Sprint(done.Marked, done.Failed, done.Message) != "[d] []" {
		t.Errorf("%+v", done)
	}
	if got := g.f5xcList(own, "api_credentials"); len(got) != 2 || len(g.f5xcList(own, "service_credentials")) != 1 {
		t.Errorf("left: %+v", got)
	}
}

func TestF5XCWhoami(t *testing.T) {
	g := newRig(t)
	own := g.owner("acme")
	plain := g.key(keystore.NewKey{Organization: "acme", Expires: keystore.InstantOf(time.Now().Add(time.Hour))})
	path := f5xcBase + "/api/web/custom/namespaces/system/whoami"
	for _, authorization := range []string{"APIToken " + own, "apitoken " + own, "Bearer " + own, "Token " + own, "APIToken " + plain.APIKey.Reveal()} {
		if who := into[map[string]string](g.send(authorization, "GET", path+"?namespace=system", "")); who["tenant"] != "acme" {
			t.Errorf("%v", who)
		}
	}
	_, err := g.service.Expire(context.Background(), keystore.LocalCaller(), plain.Record.ID, 0, time.Now())
	check(t, err)
	g.send("APIToken "+plain.APIKey.Reveal(), "GET", path, "").isString(401)
	g.f5xc(plain.APIKey.Reveal(), "GET", "system/api_credentials", "").isString(401)
}
