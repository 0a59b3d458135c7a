package dialect

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

type cloudflareAnswer struct {
	Success  bool              `json:"success"`
	Errors   []cloudflareError `json:"errors"`
	Messages []any             `json:"messages"`
	Result   struct {
		Interval json.Number `json:"key_rotation_interval_days"`
		Until    json.Number `json:"days_until_next_rotation"`
		Last     string      `json:"last_key_rotation_at"`
	} `json:"result"`
}

func (g *rig) admin() string {
	return "Bearer " + g.key(keystore.NewKey{Scopes: []string{keystore.ScopeAdmin}}).APIKey.Reveal()
}

func (g *rig) cloudflare(authorization, method, path, body string, headers ...string) reply {
	g.t.Helper()
	return g.send(authorization, method, cloudflareBase+path, body, headers...)
}

func TestCloudflareRows(t *testing.T) {
	g := newRig(t)
	admin := g.admin()
	const path = "/accounts/default/access/keys"
	rotation := func(r reply, interval, until string) cloudflareAnswer {
		t.Helper()
		a := into[cloudflareAnswer](r)
		if !a.Success || a.Errors == nil || len(a.Errors) != 0 || a.Messages == nil || len(a.Messages) != 0 {
			t.Errorf("%s: %s", r.what, r.raw)
		}
		if a.Result.Interval.String() != interval || a.Result.Until.String() != until || !whole(a.Result.Last) {
			t.Errorf("%s: %s, want %s and %s days", r.what, r.raw, interval, until)
		}
		return a
	}
	first := rotation(g.cloudflare(admin, "GET", path, ""), "42", "42")
	kid := g.active()
	for _, body := range []string{`{"key_rotation_interval_days":30}`, `{"key_rotation_interval_days":30.0,"unknown":1}`} {
		for _, headers := range [][]string{nil, {"Content-Type", "application/x-www-form-urlencoded"}, {"Content-Type", "application/json"}} {
			if a := rotation(g.cloudflare(admin, "PUT", path, body, headers...), "30", "30"); a.Result.Last != first.Result.Last {
				t.Errorf("changing the interval rotates: %s, %s", first.Result.Last, a.Result.Last)
			}
		}
	}
	rotation(g.cloudflare(admin, "GET", path+"/", ""), "30", "30")
	if g.active() != kid {
		t.Error("changing the interval rotates")
	}
	before := time.Now().Truncate(time.Second)
	a := rotation(g.cloudflare(admin, "POST", path+"/rotate", ""), "30", "30")
	if last, err := time.Parse(time.RFC3339, a.Result.Last); err != nil || last.Before(before) || last.After(time.Now()) {
		t.Errorf("rotated at %s, not between %s and now", a.Result.Last, before)
	}
	rotated := g.active()
	if rotated == kid {
		t.Error("a rotation does not rotate")
	}
	// Another one has to wait until all can know the key, and is shown as done.
	again := rotation(g.cloudflare(admin, "POST", path+"/rotate/", "{}"), "30", "30")
	if again.Result.Last < a.Result.Last || g.active() != rotated {
		t.Errorf("%+v after %+v", again.Result, a.Result)
	}
	if third := rotation(g.cloudflare(admin, "POST", path+"/rotate", ""), "30", "30"); third.Result.Last != again.Result.Last {
		t.Errorf("%+v after %+v", third.Result, again.Result)
	}
	if got := g.audit(2); fmt.Sprint(got) != "[signing_keys.rotate signing_keys.rotate]" {
		t.Errorf("audit: %v", got)
	}
}

// active is the id of the key that signs.
func (g *rig) active() string {
	g.t.Helper()
	ring, err := g.keyring.Info()
	check(g.t, err)
	return ring.Keys[0].KID
}

func TestCloudflareRefusals(t *testing.T) {
	g := newRig(t)
	admin := g.admin()
	const path = "/accounts/default/access/keys"
	refused := func(r reply, status int, pointer string) {
		t.Helper()
		var a cloudflareAnswer
		if err := json.Unmarshal(r.raw, &a); err != nil || r.status != status || a.Success || a.Messages == nil || len(a.Errors) != 1 {
			t.Errorf("%s: %d %s, want %d", r.what, r.status, r.raw, status)
			return
		}
		e := a.Errors[0]
		if e.Code < 1000 || e.Message == "" || e.DocumentationURL == "" || (e.Source != nil) != (pointer != "") || e.Source != nil && e.Source.Pointer != pointer {
			t.Errorf("%s: %s, want the pointer %q", r.what, r.raw, pointer)
		}
		if !strings.Contains(string(r.raw), `"result":{}`) || r.header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s: %v %s", r.what, r.header, r.raw)
		}
	}
	const pointer = "/key_rotation_interval_days"
	for _, body := range []string{
		"", "{}", `{"key_rotation_interval_days":null}`, `{"key_rotation_interval_days":20}`, `{"key_rotation_interval_days":366}`,
		`{"key_rotation_interval_days":30.5}`, `{"key_rotation_interval_days":"30"}`, `{"key_rotation_interval_days":1e300}`,
		`{"key_rotation_interval_days":-1e300}`, `{"Key_Rotation_Interval_Days":30}`,
	} {
		refused(g.cloudflare(admin, "PUT", path, body), 400, pointer)
	}
	refused(g.cloudflare(admin, "PUT", path, `[]`), 400, "")
	refused(g.cloudflare(admin, "PUT", path, `{"key_rotation_interval_days":30,"key_rotation_interval_days":31}`), 400, pointer)
	refused(g.cloudflare(admin, "PUT", path, `{"x":"`+strings.Repeat("x", 1<<20)+`"}`), 400, "")
	refused(g.cloudflare(admin, "GET", "/accounts/other/access/keys", ""), 404, "")
	refused(g.cloudflare(admin, "GET", "/accounts/"+strings.Repeat("a", 33)+"/access/keys", ""), 404, "")
	refused(g.cloudflare(admin, "GET", "/user/tokens/verify", ""), 404, "")
	refused(g.cloudflare(admin, "GET", "", ""), 404, "")
	refused(g.cloudflare(admin, "GET", "/accounts/default//access/keys", ""), 404, "")
	refused(g.cloudflare(admin, "DELETE", path, ""), 405, "")
	refused(g.cloudflare("", "GET", path, ""), 401, "")
	refused(g.cloudflare("Bearer nonsense", "GET", path, ""), 401, "")
	for _, lesser := range [][]string{nil, {keystore.ScopeRead}, {keystore.ScopeKeys}} {
		key := "Bearer " + g.key(keystore.NewKey{Scopes: lesser}).APIKey.Reveal()
		refused(g.cloudflare(key, "GET", path, ""), 403, "")
		refused(g.cloudflare(key, "POST", path+"/rotate", ""), 403, "")
		if got := g.audit(1)[0]; got != "signing_keys.rotate: "+keystore.ErrForbidden.Error() {
			t.Errorf("audit: %s", got)
		}
	}
	if a := into[cloudflareAnswer](g.cloudflare(admin, "GET", path, "")); a.Result.Interval != "42" {
		t.Errorf("a refused call changed something: %+v", a)
	}
}

func TestCloudflareCredentials(t *testing.T) {
	g := newRig(t)
	admin := g.admin()
	token := strings.TrimPrefix(admin, "Bearer ")
	const path = "/accounts/acme/access/keys"
	into[cloudflareAnswer](g.cloudflare("", "GET", path, "", "X-Auth-Email", "a@example.com", "X-Auth-Key", token))
	g.cloudflare(admin, "GET", path, "", "X-Auth-Key", token).is(400, "exactly one credential")
	g.cloudflare("", "GET", path, "", "X-Auth-Key", token, "X-Auth-Key", token).is(400, "exactly one credential")
	g.cloudflare("", "GET", path, "", "X-Auth-Email", "a@example.com").is(401, "send a credential")
	g.cloudflare("", "GET", path, "", "Authorization", admin, "Authorization", admin).is(400, "exactly one credential")
}

// A token minted before a rotation passes for the overlap, and the key that
// signs next was published before.
func TestCloudflareRotatesTheSigningRing(t *testing.T) {
	g := newRig(t)
	admin := g.admin()
	key := g.key(keystore.NewKey{Scopes: []string{keystore.ScopeRead}})
	principal, err := g.authenticate(newRequest(t), keystore.Presented{
		Kind: keystore.CredentialKey, Access: key.Record.Current.AccessKey, Secret: key.SecretKey.Reveal(),
	})
	check(t, err)
	minted, err := g.issuer.Mint(principal, principal.Scopes, time.Now())
	check(t, err)
	was, err := g.keyring.Info()
	check(t, err)
	next := was.Keys[1].KID
	if jwks := g.jwks(); !strings.Contains(jwks, next) || !strings.Contains(jwks, g.active()) {
		t.Errorf("the key that is to sign is not published: %s", jwks)
	}
	into[cloudflareAnswer](g.cloudflare(admin, "POST", "/accounts/default/access/keys/rotate", ""))
	if g.active() != next {
		t.Errorf("%s signs, not %s", g.active(), next)
	}
	if jwks := g.jwks(); !strings.Contains(jwks, next) || !strings.Contains(jwks, was.Keys[0].KID) {
		t.Errorf("the key that has signed is not published any more: %s", jwks)
	}
	for _, at := range []time.Time{time.Now(), minted.Ends.Add(-time.Second)} {
		if _, err := g.issuer.Verify(minted.Token.Reveal(), at); err != nil {
			t.Errorf("a token of before, at %s: %v", at, err)
		}
	}
	into[lyveAccountAnswer](g.lyve("Bearer "+minted.Token.Reveal(), "GET", "/service-accounts/"+string(key.Record.ID), ""))
}

// jwks is what verifiers are served.
func (g *rig) jwks() string {
	g.t.Helper()
	endpoints, err := tokenissuer.NewEndpoints(tokenissuer.EndpointsConfig{Issuer: g.issuer})
	check(g.t, err)
	w := httptest.NewRecorder()
	endpoints.ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/jwks.json", nil))
	return w.Body.String()
}

func newRequest(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://warder.example/", nil)
	check(t, err)
	return r
}

func TestCloudflareWithoutIssuer(t *testing.T) {
	g := newRig(t)
	admin := g.admin()
	g.config.SigningKeys, g.config.Rotation, g.config.Tokens = nil, nil, nil
	g.serve()
	g.cloudflare(admin, "GET", "/accounts/default/access/keys", "").is(404, "no access tokens")
	g.cloudflare(admin, "POST", "/accounts/default/access/keys/rotate", "").is(404, "no access tokens")
	g.send("", "POST", lyveBase+"/auth/token", `{}`).is(503, "ServiceNotReady")
}
