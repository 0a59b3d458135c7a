package dialect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

type ricloudAnswer struct {
	ID            int             `json:"id"`
	Resource      string          `json:"resource"`
	Organisation  int             `json:"organisation"`
	Type          string          `json:"type"`
	StorageConfig json.RawMessage `json:"storage_config"`
	WebhookConfig json.RawMessage `json:"webhook_config"`
	Token         string          `json:"token"`
	State         string          `json:"state"`
	Created       string          `json:"date_created"`
	Expires       *string         `json:"date_expires"`
}

type ricloudPage struct {
	Resource string          `json:"resource"`
	URL      string          `json:"url"`
	Data     []ricloudAnswer `json:"data"`
	HasMore  bool            `json:"has_more"`
	Total    int             `json:"total_count"`
}

func (p ricloudPage) String() string {
	var ids []int
	for _, key := range p.Data {
		ids = append(ids, key.ID)
	}
	return fmt.Sprintf("%v of %d, more: %t", ids, p.Total, p.HasMore)
}

func (g *rig) ricloud(token, method, path, body string, headers ...string) reply {
	g.t.Helper()
	return g.send("Token "+token, method, ricloudBase+path, body, headers...)
}

func TestRicloudRows(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme", Metadata: `{"storage_config":{"bucket":"ours","region":"eu"},"plan":"x"}`}, keystore.ScopeKeys)
	token := own.APIKey.Reveal()
	r := g.ricloud(token, "POST", "/keys", `{
		"storage_config": {"bucket": "mine,", "path": "<a>,}"},
	}`)
	made := into[ricloudAnswer](r)
	if fmt.Sprint(members(r)) != "[id resource organisation type storage_config webhook_config token state date_created date_expires]" {
		t.Errorf("%s", r.raw)
	}
	if made.Resource != "key" || made.Organisation != 2 || made.Type != "standard" || made.State != "active" || !whole(made.Created) || made.Expires != nil {
		t.Errorf("%s", r.raw)
	}
	if string(made.StorageConfig) != `{"bucket":"mine,","path":"<a>,}","region":"eu"}` || string(made.WebhookConfig) != "null" {
		t.Errorf("configs: %s %s", made.StorageConfig, made.WebhookConfig)
	}
	check(t, g.passes(made.Token))
	path := "/keys/" + strconv.Itoa(made.ID)
	for _, shown := range []reply{g.ricloud(token, "GET", path, ""), g.ricloud(made.Token, "GET", "/key/", "")} {
		again := into[ricloudAnswer](shown)
		public := strings.Split(made.Token, "_")[1]
		if again.ID != made.ID || again.Token != "wdr_…"+public[len(public)-4:] || bytes.Contains(shown.raw, []byte(made.Token)) {
			t.Errorf("%s", shown.raw)
		}
	}

	update := func(body, storage, webhook string) {
		t.Helper()
		if got := into[ricloudAnswer](g.ricloud(token, "POST", path, body)); string(got.StorageConfig) != storage || string(got.WebhookConfig) != webhook {
			t.Errorf("after %s: %s %s", body, got.StorageConfig, got.WebhookConfig)
		}
	}
	update(`{"webhook_config":{"url":"https://hooks.example/a"}}`, `{"bucket":"mine,","path":"<a>,}","region":"eu"}`, `{"url":"https://hooks.example/a"}`)
	update(`{"storage_config":{"bucket":"other"}}`, `{"bucket":"other","region":"eu"}`, `{"url":"https://hooks.example/a"}`)
	update(`{"storage_config":null}`, `{"bucket":"ours","region":"eu"}`, `{"url":"https://hooks.example/a"}`)
	update(`{"webhook_config":null,"storage_config":{"region":null}}`, `{"bucket":"ours"}`, `null`)
	update("", `{"bucket":"ours"}`, `null`)
	for _, broken := range []string{`{"storage_config":null,}`, `[]`, `"x"`, `{"storage_config":{"a":1,"a":2}}`} {
		g.ricloud(token, "POST", path, broken).is(400, `"error"`)
	}
	g.ricloud(token, "POST", path, `{"storage_config":{"a":"`+strings.Repeat("x", keystore.MaximumMetadata)+`"}}`).is(400, `"params":{"metadata"`)
}

func TestRicloudRotation(t *testing.T) {
	g := newRig(t)
	token := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys).APIKey.Reveal()
	made := into[ricloudAnswer](g.ricloud(token, "POST", "/keys", ""))
	path := "/keys/" + strconv.Itoa(made.ID) + "/rotate"
	first := into[ricloudAnswer](g.ricloud(token, "POST", path, `{"force":false}`))
	if first.ID != made.ID || first.Token == made.Token || g.passes(first.Token) != nil || g.passes(made.Token) != nil {
		t.Errorf("%+v", first)
	}
	into[ricloudAnswer](g.ricloud(made.Token, "GET", "/key", "")) // a secret in its grace period
	page, err := g.store.List(context.Background(), keystore.Query{After: keystore.Number(made.ID - 1), Limit: 1})
	check(t, err)
	if left := time.Until(page.Records[0].GraceEnd.Time()); left < 6*time.Hour-time.Minute || left > 6*time.Hour {
		t.Errorf("the old one lives %s", left)
	}
	// While a grace period runs: only one previous secret is kept.
	second := into[ricloudAnswer](g.ricloud(token, "POST", path+"/", `{}`))
	if g.passes(second.Token) != nil || g.passes(first.Token) != nil || g.passes(made.Token) == nil {
		t.Error("the secret before the last one passes")
	}
	third := into[ricloudAnswer](g.ricloud(token, "POST", path, `{"force":true}`))
	if g.passes(third.Token) != nil || g.passes(second.Token) != keystore.ErrSuperseded || g.passes(first.Token) == nil {
		t.Error("a forced rotation leaves an old secret")
	}
	g.ricloud(token, "POST", path, `{"force":"yes"}`).is(400, `"params":{"force"`)

	// A second attempt after a lost answer, if the client can say that it is one.
	fourth := into[ricloudAnswer](g.ricloud(token, "POST", path, `{}`, "Idempotency-Key", "k"))
	again := into[ricloudAnswer](g.ricloud(token, "POST", path, `{}`, "Idempotency-Key", "k"))
	if again.Token != fourth.Token || g.passes(third.Token) != nil {
		t.Error("a repeated call did something")
	}
	g.ricloud(token, "POST", path, `{"force":true}`, "Idempotency-Key", "k").is(422, "replay_mismatch")
	g.ricloud(token, "POST", path, `{}`, "Idempotency-Key", "a b").is(400, "Idempotency-Key")
	_, err = g.service.SetBlocked(context.Background(), keystore.LocalCaller(), page.Records[0].ID, true, 0)
	check(t, err)
	g.ricloud(token, "POST", path, `{}`).is(409, "blocked")
}

func TestRicloudList(t *testing.T) {
	g := newRig(t)
	token := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys).APIKey.Reveal() // 1
	g.key(keystore.NewKey{})                                                                         // 2, of others
	for range 12 {
		into[ricloudAnswer](g.ricloud(token, "POST", "/keys", "")) // 3 to 14
	}
	trial := g.key(keystore.NewKey{Organization: "acme", Type: keystore.TypeTrial}).Record // 15
	gone := g.key(keystore.NewKey{Organization: "acme"}).Record                            // 16
	_, err := g.service.DeleteKey(context.Background(), keystore.LocalCaller(), gone.ID, 0)
	check(t, err)
	all := into[ricloudPage](g.ricloud(token, "GET", "/keys?limit=1000", ""))
	id := func(i int) string { return strconv.Itoa(all.Data[i].ID) }
	if all.Resource != "list" || all.URL != "/keys" || len(all.Data) != 14 || all.HasMore {
		t.Errorf("%s", all)
	}
	if last := all.Data[13]; last.Type != "trial" || last.Expires == nil || !whole(*last.Expires) || last.ID != int(trial.Number) {
		t.Errorf("%+v", last)
	}
	ids := func(from, to int) (out []int) {
		for _, key := range all.Data[from:to] {
			out = append(out, key.ID)
		}
		return out
	}
	for query, want := range map[string]string{
		"":                                 fmt.Sprintf("%v of 14, more: true", ids(0, 10)),
		"?after_id=" + id(9):               fmt.Sprintf("%v of 14, more: false", ids(10, 14)),
		"?limit=3&before_id=" + id(9):      fmt.Sprintf("%v of 14, more: true", ids(6, 9)),
		"?limit=3&before_id=" + id(2):      fmt.Sprintf("%v of 14, more: false", ids(0, 2)),
		"?limit=1":                         fmt.Sprintf("%v of 14, more: true", ids(0, 1)),
		"?limit=2&type=standard":           fmt.Sprintf("%v of 13, more: true", ids(0, 2)),
		"?type=trial&state=active":         fmt.Sprintf("%v of 1, more: false", ids(13, 14)),
		"?state=blocked":                   "[] of 0, more: false",
		"?after_id=16":                     "[] of 14, more: false", // a cursor that no longer exists
		"?after_id=999999":                 "[] of 14, more: false",
		"?limit=1&after_id=2":              fmt.Sprintf("%v of 14, more: true", ids(1, 2)), // somebody else's is a place, too
		"?limit=1&before_id=16":            fmt.Sprintf("%v of 14, more: true", ids(13, 14)),
		"?unknown=1&limit=14&state=active": fmt.Sprintf("%v of 14, more: false", ids(0, 14)),
	} {
		if got := into[ricloudPage](g.ricloud(token, "GET", "/keys"+query, "")); got.String() != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for query, name := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=": "limit", "limit=x": "limit", "type=x": "type", "state=": "state",
		"after_id=x": "after_id", "before_id=-1": "before_id", "after_id=1&before_id=2": "before_id",
	} {
		g.ricloud(token, "GET", "/keys?"+query, "").is(400, `"params":{"`+name+`"`)
	}
}

func TestRicloudRefusals(t *testing.T) {
	g := newRig(t)
	token := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys).APIKey.Reveal()
	others := g.key(keystore.NewKey{}).Record.Number
	g.key(keystore.NewKey{Organization: "acme"}) // the next that the caller sees
	for _, id := range []string{"0", "-1", "x", "01", "+1", "999", "99999999999999999999", strconv.Itoa(int(others)), "key_abc"} {
		g.ricloud(token, "GET", "/keys/"+id, "").is(404, `"error":"key_not_found"`)
		g.ricloud(token, "POST", "/keys/"+id, "{}").is(404, `"params":{}`)
		g.ricloud(token, "POST", "/keys/"+id+"/rotate", "{}").is(404, `"message":"`)
	}
	g.ricloud("wrong", "GET", "/keys", "").is(401, `"error":"invalid_token"`)
	g.send("", "GET", "/keys", "").is(401, `"error":"unauthorized"`)
	g.ricloud(token, "DELETE", "/keys/1", "").is(405, "Allow")
	g.ricloud(token, "GET", "/keys/1/2/3", "").is(404, "not_found")
	reader := g.key(keystore.NewKey{Organization: "acme", Scopes: []string{keystore.ScopeRead}}).APIKey.Reveal()
	into[ricloudPage](g.ricloud(reader, "GET", "/keys", ""))
	g.ricloud(reader, "POST", "/keys", "").is(403, `"error":"forbidden"`)
}

// Trial keys, and keys of others, are an administrator's to make.
func TestRicloudAdministrator(t *testing.T) {
	g := newRig(t)
	own := g.organization(keystore.Organization{Slug: "acme"}, keystore.ScopeKeys).APIKey.Reveal()
	admin := strings.TrimPrefix(g.admin(), "Bearer ")
	trial := into[ricloudAnswer](g.ricloud(admin, "POST", "/keys", `{"type":"trial","organisation":2}`))
	if trial.Type != "trial" || trial.Organisation != 2 || trial.Expires == nil {
		t.Errorf("%+v", trial)
	}
	g.ricloud(admin, "POST", "/keys", `{"organisation":99}`).is(404, "organization_not_found")
	g.ricloud(own, "POST", "/keys", `{"type":"trial"}`).is(403, "forbidden")
	g.ricloud(own, "POST", "/keys", `{"organisation":1}`).is(404, "organization_not_found")
	g.ricloud(own, "POST", "/keys", `{"type":"golden"}`).is(400, `"params":{"type"`)
}

func TestTrailingComma(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1,}`:            `{"a":1}`,
		"{\"a\":[1 , ],\n\n}": "", // two
		`{"a":[1, ]}`:         `{"a":[1 ]}`,
		`{"a":"},",}`:         `{"a":"},"}`,
		`{"a":"\",}"}`:        `{"a":"\",}"}`,
		`{"a":1,,}`:           "",
		`{"a":1},`:            "",
		``:                    "",
	} {
		got := withoutTrailingComma([]byte(in))
		if want == "" && json.Valid(got) || want != "" && string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
