package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// speaking is a site with all four dialects beside a gate.
func speaking(options string) string {
	filtered := strings.Replace(quietLog, "level DEBUG", "level DEBUG\nformat filter {\nrequest>headers>X-Auth-Key delete\n}", 1)
	return strings.Replace(administered(`
		dialect cloudflare /client/v4 {
			account acme
		}
		dialect f5xc
		dialect lyve /v2
		dialect ricloud
	`+options), quietLog, filtered, 1)
}

// said decodes a success of a dialect.
func said(t *testing.T, what string, r response, into any) {
	t.Helper()
	wantStatus(t, what, r, http.StatusOK)
	if err := json.Unmarshal([]byte(r.Text), into); err != nil {
		t.Errorf("%s: %v in %s", what, err, r.Text)
	}
}

func TestCloudflareThroughCaddy(t *testing.T) {
	w := start(t, speaking(""))
	admin := w.holder("warder:admin")
	const path = "/client/v4/accounts/acme/access/keys"
	var envelope struct {
		Success bool
		Result  struct {
			Interval int `json:"key_rotation_interval_days"`
		}
	}
	said(t, "GET", w.call("GET", path, "", admin.bearer()), &envelope)
	if !envelope.Success || envelope.Result.Interval != 42 {
		t.Errorf("%+v", envelope)
	}
	byKey := []string{"X-Auth-Email: someone@example.com", "X-Auth-Key: " + admin.APIKey.Reveal()}
	said(t, "PUT", w.call("PUT", path+"/", `{"key_rotation_interval_days":30}`, byKey...), &envelope)
	if said(t, "GET", w.call("GET", path, "", byKey...), &envelope); envelope.Result.Interval != 30 {
		t.Errorf("%+v", envelope)
	}
	minted := "Authorization: Bearer " + w.accessToken(admin, "")
	said(t, "rotate", w.call("POST", path+"/rotate", "", admin.bearer()), &envelope)
	wantStatus(t, "a token minted before", w.get("/", minted), http.StatusOK)
	wantStatus(t, "of another account", w.call("GET", "/client/v4/accounts/default/access/keys", "", admin.bearer()), http.StatusNotFound)
	wantStatus(t, "by nobody", w.call("GET", path, ""), http.StatusUnauthorized)
	wantStatus(t, "by a lesser key", w.call("GET", path, "", w.holder("warder:keys").bearer()), http.StatusForbidden)
	if strings.Contains(w.log(), admin.SecretKey.Reveal()) {
		t.Error("the log shows a credential")
	}
}

func TestF5XCThroughCaddy(t *testing.T) {
	w := start(t, speaking(""))
	manager := w.holder("warder:keys")
	token := "Authorization: APIToken " + manager.APIKey.Reveal()
	var made struct {
		Data, Name string
		Active     bool
	}
	said(t, "create", w.call("POST", "/api/web/namespaces/system/api_credentials",
		`{"name":"example","namespace":"system","spec":{"type":"API_TOKEN"},"expiration_days":10}`, token), &made)
	if made.Name != "example" || !made.Active {
		t.Errorf("%+v", made)
	}
	wantStatus(t, "at the gate", w.get("/", "Authorization: Token "+made.Data), http.StatusOK)
	wantStatus(t, "whoami", w.call("GET", "/api/web/custom/namespaces/system/whoami", "", "Authorization: APIToken "+made.Data), http.StatusOK)
	wantStatus(t, "revoke", w.call("POST", "/api/web/namespaces/system/revoke/api_credentials", `{"name":"example"}`, token), http.StatusOK)
	wantRefusal(t, "revoked", w.get("/", "Authorization: Token "+made.Data), invalid)
	wantStatus(t, "by nobody", w.call("GET", "/api/web/namespaces/system/api_credentials", ""), http.StatusUnauthorized)
}

func TestLyveThroughCaddy(t *testing.T) {
	w := start(t, speaking("limit 1/h burst 4"))
	c := w.holder("warder:read", "hello:read")
	pair := fmt.Sprintf(`{"accountId":"default","accessKey":%q,"secret":%q}`, c.AccessKey, c.SecretKey.Reveal())
	var given struct{ Token, ExpirationSec string }
	said(t, "token", w.call("POST", "/v2/auth/token", pair), &given)
	if given.ExpirationSec != "86400" {
		t.Errorf("it lives for %s s", given.ExpirationSec)
	}
	bearer := "Authorization: Bearer " + given.Token
	wantStatus(t, "at the gate", w.get("/", bearer), http.StatusOK)
	var list []any
	said(t, "list", w.call("GET", "/v2/permissions", "", bearer), &list)
	w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24"} })
	wantStatus(t, "a pair from elsewhere", w.call("POST", "/v2/auth/token", pair), http.StatusForbidden)
	wantStatus(t, "a token from elsewhere", w.call("GET", "/v2/permissions", "", bearer), http.StatusForbidden)
	w.edit(c, func(e *keystore.Editable) { e.Networks = nil })
	for range 2 {
		wantStatus(t, "within the limit", w.call("POST", "/v2/auth/token", pair), http.StatusOK)
	}
	r := w.call("POST", "/v2/auth/token", pair)
	wantStatus(t, "beyond the limit", r, http.StatusTooManyRequests)
	if r.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come again")
	}
	w.act(c, "block")
	wantRefusal(t, "of a blocked key", w.get("/", bearer), blocked)
}

func TestRicloudThroughCaddy(t *testing.T) {
	w := start(t, speaking(""))
	manager := w.holder("warder:keys")
	var key struct {
		ID           int64
		Token, State string
	}
	said(t, "create", w.call("POST", "/keys", `{"storage_config":{"bucket":"b"},}`, manager.token()), &key)
	first := "Authorization: Token " + key.Token
	wantStatus(t, "at the gate", w.get("/", first), http.StatusOK)
	path := fmt.Sprintf("/keys/%d", key.ID)
	said(t, "rotate", w.call("POST", path+"/rotate", `{}`, manager.token()), &key)
	second := "Authorization: Token " + key.Token
	for name, header := range map[string]string{"in its grace period": first, "new": second} {
		wantStatus(t, name, w.get("/", header), http.StatusOK)
	}
	said(t, "rotate by force", w.call("POST", path+"/rotate", `{"force":true}`, manager.token()), &key)
	for name, header := range map[string]string{"rotated twice": second} {
		wantRefusal(t, name, w.get("/", header), superseded)
	}
	if said(t, "get", w.call("GET", path, "", manager.token()), &key); key.State != "active" || !strings.HasPrefix(key.Token, "wdr_") {
		t.Errorf("%+v", key)
	}
	wantStatus(t, "by nobody", w.call("GET", path, ""), http.StatusUnauthorized)
}

// Without an issuer there are no tokens to give out, and all else works.
func TestLyveWithoutIssuer(t *testing.T) {
	w := start(t, siteConfig("", "", "warder_admin {\ndialect lyve\n}\nwarder\nreverse_proxy <upstream>"))
	c := w.holder("warder:read")
	wantStatus(t, "token", w.call("POST", "/auth/token", fmt.Sprintf(`{"accountId":"default","accessKey":%q,"secret":%q}`, c.AccessKey, c.SecretKey.Reveal())), http.StatusServiceUnavailable)
	wantStatus(t, "usage", w.call("GET", "/usage/current", "", c.bearer()), http.StatusOK)
}
