package dialect

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func (g *rig) lyve(authorization, method, path, body string, headers ...string) reply {
	g.t.Helper()
	return g.send(authorization, method, lyveBase+path, body, headers...)
}

// lyveToken trades a pair for the token that all other calls carry.
func (g *rig) lyveToken(account string, key keystore.Issued) string {
	g.t.Helper()
	token := into[map[string]string](g.lyve("", "POST", "/auth/token", pairBody(account, string(key.Record.Current.AccessKey), key.SecretKey.Reveal())))
	return "Bearer " + token["token"]
}

func pairBody(account, access, secret string) string {
	return fmt.Sprintf(`{"accountId":%q,"accessKey":%q,"secret":%q}`, account, access, secret)
}

func TestLyveToken(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys)
	body := pairBody("acme", string(own.Record.Current.AccessKey), own.SecretKey.Reveal())
	r := g.lyve("", "POST", "/auth/token/", body, "Content-Type", "text/plain")
	made := into[map[string]string](r)
	if made["expirationSec"] != "86400" || len(made) != 2 {
		t.Errorf("%s", r.raw)
	}
	for range 10 { // one body, one answer
		g.lyve("", "POST", "/auth/token", "").is(400, `"message":"accountId: is required"`)
	}
	left := into[map[string]string](g.lyve("Bearer "+made["token"], "GET", "/auth/token", ""))
	if n, err := strconv.Atoi(left["expirationSec"]); err != nil || n < 86_390 || n > 86_400 {
		t.Errorf("%v left", left)
	}

	// One answer to everything that is not the pair of an active key.
	expired, blocked := g.key(keystore.NewKey{Organization: "acme"}), g.key(keystore.NewKey{Organization: "acme"})
	_, err := g.service.Expire(context.Background(), keystore.LocalCaller(), expired.Record.ID, 0, time.Now())
	check(t, err)
	_, err = g.service.SetBlocked(context.Background(), keystore.LocalCaller(), blocked.Record.ID, true, 0)
	check(t, err)
	access, secret := string(own.Record.Current.AccessKey), own.SecretKey.Reveal()
	var same string
	for _, wrong := range []string{
		pairBody("acme", access, "wrong"), pairBody("acme", "wrong", secret), pairBody("other", access, secret), pairBody("", access, secret),
		pairBody("acme", string(expired.Record.Current.AccessKey), expired.SecretKey.Reveal()),
		pairBody("acme", string(blocked.Record.Current.AccessKey), blocked.SecretKey.Reveal()),
		pairBody("acme", string(own.Record.ID), secret), pairBody("acme", access, strings.Repeat("x", 100_000)),
	} {
		r := g.lyve("", "POST", "/auth/token", wrong)
		r.is(403, `"code":"AuthenticationFailed"`)
		if same != "" && same != string(r.raw) {
			t.Errorf("%s and %s", same, r.raw)
		}
		same = string(r.raw)
	}
	for _, body := range []string{"", "{}", `{"accountId":"acme","accessKey":"a"}`, `{"accountId":1,"accessKey":"a","secret":"b"}`} {
		g.lyve("", "POST", "/auth/token", body).is(400, `"code":"InvalidArgument"`)
	}
	for _, authorization := range []string{"", "Bearer x", "Bearer " + made["token"] + "A", "Bearer " + own.APIKey.Reveal(), "Basic eDp5"} {
		g.lyve(authorization, "GET", "/auth/token", "").is(400, `"code":"InvalidToken"`)
	}
}

// A token ends with its key, and the system's name for that is another.
func TestLyveTokenDiesWithItsKey(t *testing.T) {
	g := newRig(t)
	ctx, admin := context.Background(), keystore.LocalCaller()
	own := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys)
	token := g.lyveToken("acme", own)
	into[[]any](g.lyve(token, "GET", "/service-accounts", ""))
	_, err := g.service.SetDeactivated(ctx, admin, own.Record.ID, true, 0)
	check(t, err)
	g.lyve(token, "GET", "/service-accounts", "").is(400, `"code":"InvalidToken"`)
	_, err = g.service.SetDeactivated(ctx, admin, own.Record.ID, false, 0)
	check(t, err)
	_, err = g.service.Expire(ctx, admin, own.Record.ID, 0, time.Now())
	check(t, err)
	for _, path := range []string{"/service-accounts", "/auth/token"} {
		g.lyve(token, "GET", path, "").is(400, `"code":"ExpiredToken"`)
	}
	short := g.key(keystore.NewKey{Organization: "acme", Expires: keystore.InstantOf(time.Now().Add(time.Hour))})
	made := into[map[string]string](g.lyve("", "POST", "/auth/token",
		pairBody("acme", string(short.Record.Current.AccessKey), short.SecretKey.Reveal())))
	if n, err := strconv.Atoi(made["expirationSec"]); err != nil || n > 3600 || n < 3590 {
		t.Errorf("a token of a key that ends in an hour lives %s s", made["expirationSec"])
	}
}

type lyveAccountAnswer struct {
	ID, Name, Description, ExpirationDate, ReadyState string
	Enabled                                           bool
	Permissions                                       []string
}

func TestLyveServiceAccounts(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys)
	token := g.lyveToken("acme", own)
	permission := into[map[string]string](g.lyve(token, "POST", "/permissions", `{"name":"p","type":"all-buckets","actions":"read-only"}`))["id"]
	body := `{"name":"robot","description":"counts <things>","permissions":["` + permission + `"]}`
	r := g.lyve(token, "POST", "/service-accounts", body)
	made := into[map[string]string](r)
	if made["expirationDate"] != "" || len(made) != 4 {
		t.Errorf("%s", r.raw)
	}
	g.lyveToken("acme", keystore.Issued{
		Record: keystore.Record{Current: keystore.Pair{AccessKey: keystore.AccessKey(made["accessKey"])}}, SecretKey: keystore.Secret(made["secret"]),
	})
	path := "/service-accounts/" + made["id"]
	get := func() lyveAccountAnswer {
		t.Helper()
		r := g.lyve(token, "GET", path, "")
		if strings.Contains(string(r.raw), made["secret"]) {
			t.Error("the secret is shown a second time")
		}
		return into[lyveAccountAnswer](r)
	}
	want := lyveAccountAnswer{made["id"], "robot", "counts <things>", "", "ready", true, []string{permission}}
	if got := get(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if list := into[[]lyveAccountAnswer](g.lyve(token, "GET", "/service-accounts/", "")); len(list) != 2 || fmt.Sprint(list[1]) != fmt.Sprint(want) {
		t.Errorf("%+v", list)
	}
	g.lyve(token, "DELETE", path+"/enabled", "").empty()
	if get().Enabled {
		t.Error("disabled, but enabled")
	}
	g.lyve(token, "PUT", path+"/enabled/", "").empty()
	if !get().Enabled {
		t.Error("enabled, but disabled")
	}
	g.lyve(token, "PUT", path, `{"name":"machine"}`).empty()
	want.Name = "machine"
	if got := get(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	g.lyve(token, "PUT", path, `{"description":null,"permissions":null}`).empty()
	if got := get(); got.Description != "" || len(got.Permissions) != 0 || got.Name != "machine" {
		t.Errorf("%+v", got)
	}
	g.lyve(token, "DELETE", path, "").empty()
	g.lyve(token, "DELETE", path, "").is(404, `"code":"ServiceAccountNotFound"`)
}

func TestLyveServiceAccountRefusals(t *testing.T) {
	g := newRig(t)
	ctx, admin := context.Background(), keystore.LocalCaller()
	token := g.lyveToken("acme", g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys))
	made := into[map[string]string](g.lyve(token, "POST", "/service-accounts", `{"name":"a"}`))
	others := g.key(keystore.NewKey{}).Record.ID
	for body, want := range map[string]string{
		`{"name":"a"}`:                                `409 "code":"ServiceAccountNameAlreadyExists"`, // taken, or a second attempt
		`{"name":"b","permissions":[]}`:               `400 "code":"InvalidArgument"`,
		`{"name":"b","permissions":["perm_nothing"]}`: `404 "code":"PermissionNotFound"`,
		`{"name":"b","permissions":"x"}`:              `400 "code":"InvalidArgument"`,
		`{"name":7}`:                                  `400 "code":"InvalidArgument"`,
		`nonsense`:                                    `400 "code":"InvalidArgument"`,
	} {
		status, text, _ := strings.Cut(want, " ")
		code, _ := strconv.Atoi(status)
		g.lyve(token, "POST", "/service-accounts", body).is(code, text)
	}
	g.lyve(token, "PUT", "/service-accounts/"+made["id"], `{"permissions":[]}`).is(400, `"code":"InvalidArgument"`)
	g.lyve(token, "PUT", "/service-accounts/"+made["id"], `{"name":"first"}`).is(409, `"code":"ServiceAccountNameAlreadyExists"`)
	for _, id := range []string{string(others), "key_nothing", made["accessKey"], "%00", "..%2f"} {
		for _, call := range []string{"GET ", "PUT ", "DELETE ", "PUT /enabled", "DELETE /enabled"} {
			method, rest, _ := strings.Cut(call, " ")
			g.lyve(token, method, "/service-accounts/"+id+rest, "").is(404, `"code":"ServiceAccountNotFound"`)
		}
	}
	_, err := g.service.Expire(ctx, admin, keystore.KeyID(made["id"]), 0, time.Now())
	check(t, err)
	path := "/service-accounts/" + made["id"]
	g.lyve(token, "PUT", path+"/enabled", "").is(404, `"code":"ServiceAccountExpired"`)
	g.lyve(token, "DELETE", path+"/enabled", "").is(404, `"code":"ServiceAccountExpired"`)
	if got := into[lyveAccountAnswer](g.lyve(token, "GET", path, "")); !whole(got.ExpirationDate) || !got.Enabled {
		t.Errorf("an expired one is %+v", got)
	}
	g.lyve(token, "PATCH", path, "").is(405, `"code"`)
	g.lyve(token, "GET", "/buckets", "").is(404, `"code":"NotFound"`)
	reader := g.lyveToken("acme", g.key(keystore.NewKey{Organization: "acme", Scopes: []string{keystore.ScopeRead}}))
	g.lyve(reader, "DELETE", path, "").is(403, `"code":"AuthenticationFailed"`)
}

// What the system's console promises holds here, too: no expiry unless the
// organization's default is set, which counts for what is made afterwards; and
// an expired one is regenerated at any time.
func TestLyveExpiry(t *testing.T) {
	g := newRig(t)
	ctx, admin := context.Background(), keystore.LocalCaller()
	token := g.lyveToken("acme", g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys))
	before := into[map[string]string](g.lyve(token, "POST", "/service-accounts", `{"name":"before"}`))
	_, err := g.service.UpdateOrganization(ctx, admin, "acme", 0, func(o *keystore.Organization) error { o.DefaultExpiry = 30; return nil })
	check(t, err)
	after := into[map[string]string](g.lyve(token, "POST", "/service-accounts", `{"name":"after"}`))
	if before["expirationDate"] != "" || !whole(after["expirationDate"]) {
		t.Errorf("%s, %s", before["expirationDate"], after["expirationDate"])
	}
	id := keystore.KeyID(after["id"])
	_, err = g.service.Expire(ctx, admin, id, 0, time.Now())
	check(t, err)
	again, err := g.service.Regenerate(ctx, admin, id, 0, 0, nil, time.Now())
	check(t, err)
	g.lyveToken("acme", again)
	g.lyve("", "POST", "/auth/token", pairBody("acme", after["accessKey"], after["secret"])).is(403, "AuthenticationFailed")
}

func TestLyvePermissions(t *testing.T) {
	g := newRig(t)
	token := g.lyveToken("acme", g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys))
	body := `{"name":"p","description":"d","type":"bucket-names","actions":"read-only","buckets":["a","b"],"policy":{"rules":[{"methods":["GET"],"paths":["/v1/*"]}]}}`
	r := g.lyve(token, "POST", "/permissions", body)
	made := into[map[string]string](r)
	if len(made) != 1 || !strings.HasPrefix(made["id"], "perm_") {
		t.Errorf("%s", r.raw)
	}
	path := "/permissions/" + made["id"]
	get := func(want string) {
		t.Helper()
		r := g.lyve(token, "GET", path, "")
		if got := strings.TrimSpace(string(r.raw)); r.status != 200 || got != strings.ReplaceAll(want, "$", made["id"]) {
			t.Errorf("%d %s, want %s", r.status, got, want)
		}
	}
	const rules = `"policy":{"rules":[{"methods":["GET"],"paths":["/v1/*"]}]}`
	get(`{"actions":"read-only","buckets":["a","b"],"description":"d","id":"$","name":"p",` + rules + `,"readyState":"ready","type":"bucket-names"}`)
	g.lyve(token, "PUT", path, `{"description":"e","buckets":null,"prefix":"x"}`).empty()
	get(`{"actions":"read-only","description":"e","id":"$","name":"p",` + rules + `,"prefix":"x","readyState":"ready","type":"bucket-names"}`)
	g.lyve(token, "PUT", path, `{"policy":"{\"rules\":[{\"paths\":[\"/v2\"]}]}","type":"policy"}`).empty()
	get(`{"actions":"read-only","description":"e","id":"$","name":"p","policy":{"rules":[{"paths":["/v2"]}]},"prefix":"x","readyState":"ready","type":"policy"}`)
	if list := into[[]map[string]any](g.lyve(token, "GET", "/permissions", "")); len(list) != 1 || list[0]["name"] != "p" {
		t.Errorf("%v", list)
	}

	g.lyve(token, "POST", "/permissions", `{"name":"p"}`).is(409, `"code":"PermissionNameAlreadyExists"`)
	for _, rules := range []string{`[{"methods":["get"],"paths":["/v1"]}]`, `[{"paths":["/v1"]},{"paths":[]}]`} {
		g.lyve(token, "PUT", path, `{"policy":{"rules":`+rules+`}}`).is(400, `"message":"policy/rules/`)
		g.lyve(token, "POST", "/permissions", `{"name":"other","policy":{"rules":`+rules+`}}`).is(400, `"message":"policy/rules/`)
	}
	for _, policy := range []string{
		`{}`, `[]`, `{"Statement":[]}`, `{"rules":null}`, `{"rules":[{"method":["GET"],"paths":["/"]}]}`, `{"rules":[{"paths":[]}]}`, `"nonsense"`, `7`,
		`{"rules":[{"paths":["/"]}],"deny":true}`,
	} {
		g.lyve(token, "PUT", path, `{"policy":`+policy+`}`).is(400, `"code":"InvalidArgument"`)
	}
	account := into[map[string]string](g.lyve(token, "POST", "/service-accounts", `{"name":"a","permissions":["`+made["id"]+`"]}`))
	g.lyve(token, "DELETE", path, "").is(409, `"code":"PermissionNotReady"`)
	g.lyve(token, "DELETE", "/service-accounts/"+account["id"], "").empty()
	g.lyve(token, "DELETE", path, "").empty()
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		g.lyve(token, method, path, "").is(404, `"code":"PermissionNotFound"`)
	}
	shared, err := g.service.CreatePermission(context.Background(), keystore.LocalCaller(), keystore.Permission{Name: "shared"}, time.Now())
	check(t, err)
	g.lyve(token, "PUT", "/permissions/"+shared.ID, `{"policy":{"rules":[{"paths":["/*"]}]}}`).is(403, `"code":"AuthenticationFailed"`)
}

func TestLyveUsage(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys)
	token := g.lyveToken("acme", own)
	now := time.Now().UTC()
	month := func(ago int) time.Time { return monthOf(now).AddDate(0, -ago, 0) }
	count := func(key keystore.KeyID, org string, ago int, outcome keystore.Outcome, n uint64) keystore.UsageCount {
		return keystore.UsageCount{Key: key, Organization: org, Day: keystore.DayOf(keystore.InstantOf(month(ago))), Outcome: outcome, Requests: n}
	}
	check(t, g.store.AddUsage(context.Background(), keystore.UsageBatch{Counts: []keystore.UsageCount{
		count("key_a", "acme", 0, keystore.OutcomeAllowed, 5), count("key_a", "acme", 0, keystore.OutcomeLimited, 2),
		count("key_b", "acme", 0, keystore.OutcomeAllowed, 1), count("key_c", "other", 0, keystore.OutcomeAllowed, 100),
		count("key_a", "acme", 2, keystore.OutcomeExpired, 3),
	}}))
	line := func(ago, requests, refused, keys int) string {
		return fmt.Sprintf(`{"month":"%s","requests":%d,"refused":%d,"keys":%d}`, month(ago).Format("2006-01"), requests, refused, keys)
	}
	g.lyve(token, "GET", "/usage/current", "").is(200, `{"usage":[`+line(0, 8, 2, 2)+`]}`)
	query := "/usage/monthly?fromMonth=" + month(2).Format("2006-01") + "&toMonth=" + month(0).Format("2006-01")
	g.lyve(token, "GET", query, "").is(200, `{"usage":[`+line(2, 3, 3, 1)+`,`+line(1, 0, 0, 0)+`,`+line(0, 8, 2, 2)+`]}`)
	for _, query := range []string{
		"", "?fromMonth=2026-01", "?fromMonth=2026-02&toMonth=2026-01", "?fromMonth=2026-13&toMonth=2026-14", "?fromMonth=0001-01&toMonth=9999-12",
		"?fromMonth=2026&toMonth=2026", "?fromMonth=2026-01-01&toMonth=2026-01-02",
	} {
		g.lyve(token, "GET", "/usage/monthly"+query, "").is(400, `"code":"InvalidTimeRange"`)
	}
}

// A policy has one reading: names as they are, and none twice, in a string too.
func TestLyvePolicyHasOneReading(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys)
	token := g.lyveToken("acme", own)
	for i, policy := range []string{
		`{"rules":[{"paths":["/a"]}],"Rules":[{"paths":["/*"]}]}`, `{"RULES":[{"paths":["/*"]}]}`, `{"rules":[{"paths":["/a"],"Paths":["/*"]}]}`,
		`{"rules":[{"paths":["/a"]}],"rules":[{"paths":["/*"]}]}`, `{"rules":[{"paths":["/a"],"paths":["/*"]}]}`, `{"rules":[null]}`, `{"rules":[{"paths":["/a"],"methods":7}]}`,
	} {
		for _, sent := range []string{policy, strconv.Quote(policy)} {
			g.lyve(token, "POST", "/permissions", fmt.Sprintf(`{"name":"p%d","policy":%s}`, i, sent)).is(400, "")
		}
	}
}
