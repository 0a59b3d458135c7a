package caddymodule

import (
	"context"
	"encoding/json"
	flags "flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

var tokenRevoked = refused{401, `Bearer realm="warder", error="invalid_token", error_description="The access token was revoked."`, "invalid_token", "token_revoked"}

// oauth posts a form to one of the issuer's endpoints.
func (w *world) oauth(path, authorization string, form url.Values, headers ...string) response {
	w.t.Helper()
	headers = append(headers, "Content-Type: application/x-www-form-urlencoded")
	if authorization != "" {
		headers = append(headers, authorization)
	}
	return w.do(http.MethodPost, "http://"+w.gate+path, form.Encode(), headers...)
}

// introspect returns the answer about a token.
func (w *world) introspect(c credential, token string) (answer fields) {
	w.t.Helper()
	r := w.oauth("/introspect", c.basic(), url.Values{"token": {token}})
	wantStatus(w.t, "introspection", r, http.StatusOK)
	if err := json.Unmarshal([]byte(r.Text), &answer); err != nil {
		w.t.Fatal(err)
	}
	return answer
}

// A revoked access token is refused from the answer on, in memory or not,
// across a reload and a restart; its key and its other tokens pass.
func TestRevokedAccessToken(t *testing.T) {
	config := guarded("", "")
	w := start(t, config)
	c, observer := w.create(nil), w.create(nil)
	gone, kept := w.accessToken(c, ""), w.accessToken(c, "")
	for _, token := range []string{gone, kept} {
		for range 2 {
			wantStatus(t, "before", w.get("/", "Authorization: Bearer "+token), http.StatusOK)
		}
	}
	r := w.oauth("/revoke", c.basic(), url.Values{"token": {gone}, "token_type_hint": {"access_token"}})
	if r.StatusCode != http.StatusOK || r.Text != "" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("revoking: %d %v %s", r.StatusCode, r.Header, r.Text)
	}
	for _, change := range []func(){
		func() {}, w.chill, func() { w.mustLoad(config) },
		func() {
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
			w.mustLoad(config)
		},
	} {
		change()
		wantRefusal(t, "revoked", w.insist(http.MethodGet, "http://"+w.gate+"/", "", "Authorization: Bearer "+gone), tokenRevoked)
		for _, header := range []string{"Authorization: Bearer " + kept, c.token()} {
			wantStatus(t, "not revoked", w.get("/", header), http.StatusOK)
		}
		if got := w.introspect(observer, gone); len(got) != 1 || got["active"] != false {
			t.Errorf("introspecting what was revoked: %v", got)
		}
		if got := w.introspect(observer, kept); got["active"] != true || got["sub"] != string(c.ID) {
			t.Errorf("introspecting what was not: %v", got)
		}
	}
	for series, want := range map[string]string{
		`warder_token_requests_total{outcome="revoked"}`:           "0", // of this process's second engine
		`warder_requests_refused_total{reason="token_revoked"}`:    "1",
		`warder_token_requests_total{outcome="introspected"}`:      "2",
		`warder_token_requests_total{outcome="too_many_requests"}`: "0",
	} {
		if got := w.metric(series); got != want {
			t.Errorf("%s is %s, want %s", series, got, want)
		}
	}
}

// Where a key may not be used, it is not known to the issuer's endpoints
// either: what they answer is what a wrong secret gets.
func TestIssuerKeepsToNetworks(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	token := w.accessToken(c, "")
	wrong := c
	wrong.SecretKey = w.create(nil).SecretKey
	ask := map[string]url.Values{"/token": {"grant_type": {"client_credentials"}}, "/introspect": {"token": {token}}, "/revoke": {"token": {token}}}
	for path, form := range ask {
		want := w.oauth(path, wrong.basic(), form)
		wantStatus(t, path+" with a wrong secret", want, http.StatusUnauthorized)
		w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24"} })
		if got := w.oauth(path, c.basic(), form, "X-Forwarded-For: 203.0.113.7"); got.StatusCode != want.StatusCode || got.Text != want.Text {
			t.Errorf("%s from elsewhere: %d %s, want %d %s", path, got.StatusCode, got.Text, want.StatusCode, want.Text)
		}
		w.edit(c, func(e *keystore.Editable) { e.Networks = []string{"127.0.0.0/8"} })
		if path != "/revoke" {
			wantStatus(t, path+" from here", w.oauth(path, c.basic(), form), http.StatusOK)
		}
	}
	wantStatus(t, "a token that nobody could revoke", w.get("/", "Authorization: Bearer "+token), http.StatusOK)
}

// Whatever ends a key ends its tokens for introspection, too, whether the key
// is in memory or not.
func TestIntrospectionFollowsTheKey(t *testing.T) {
	w := start(t, guarded("grace_period 1h", ""))
	observer := w.create(nil)
	for _, operation := range revocations {
		if operation.name == "take its scope" {
			continue // it does not end the key
		}
		for _, temperature := range []string{"warm", "cold"} {
			c := w.create(nil)
			shown := []string{c.APIKey.Reveal(), w.accessToken(c, "")}
			for _, token := range shown {
				if w.introspect(observer, token)["active"] != true {
					t.Fatalf("%s: not active before", operation.name)
				}
			}
			operation.do(w, c)
			if temperature == "cold" {
				w.chill()
			}
			for _, token := range shown {
				if got := w.introspect(observer, token); len(got) != 1 || got["active"] != false {
					t.Errorf("%s, %s: %v", operation.name, temperature, got)
				}
			}
		}
	}
}

// An API key of the configured prefix is known as one.
func TestIntrospectionUnderAnotherPrefix(t *testing.T) {
	w := start(t, guarded("prefix acme", ""))
	c := w.create(nil)
	r := w.oauth("/introspect", c.bearer(), url.Values{"token": {c.APIKey.Reveal()}})
	if r.StatusCode != http.StatusOK || !strings.Contains(r.Text, `"active":true`) {
		t.Errorf("introspecting an API key: %d %s", r.StatusCode, r.Text)
	}
	r = w.oauth("/revoke", c.bearer(), url.Values{"token": {c.APIKey.Reveal()}})
	if r.StatusCode != http.StatusBadRequest || !strings.Contains(r.Text, `"unsupported_token_type"`) {
		t.Errorf("revoking an API key: %d %s", r.StatusCode, r.Text)
	}
}

// A node that cannot know says so, and never "not active"; a revocation that
// it cannot write, or not apply, is no success.
func TestOAuthOutage(t *testing.T) {
	w := start(t, frailConfig(""))
	c, other := w.create(nil), w.create(nil)
	token := w.accessToken(other, "")
	ask := func(what string, want int) {
		t.Helper()
		for _, path := range []string{"/introspect", "/revoke"} {
			r := w.oauth(path, c.basic(), url.Values{"token": {token}})
			if r.StatusCode != want || want != http.StatusOK && (strings.Contains(r.Text, "active") || r.Header.Get("Content-Type") != "application/json") {
				t.Errorf("%s, %s: %d %s", what, path, r.StatusCode, r.Text)
			}
		}
	}
	ask("before", http.StatusOK)
	w.chill()
	end := (&troubles{lookup: func(context.Context) error { return errStoreDown }}).set()
	ask("the store is down", http.StatusServiceUnavailable)
	end()
	end = (&troubles{feed: errStoreDown}).set()
	r := w.oauth("/revoke", other.basic(), url.Values{"token": {token}})
	wantStatus(t, "a revocation that is not applied", r, http.StatusServiceUnavailable)
	wantRetryAfter(t, "a revocation that is not applied", r, true)
	ask("the lease is over", http.StatusServiceUnavailable)
	wantRefusal(t, "at the gate meanwhile", w.get("/", "Authorization: Bearer "+token), undecided)
	end()
	wantRefusal(t, "written, and now applied", w.get("/", "Authorization: Bearer "+token), tokenRevoked)
}

// Tokens for a resource pass every gate of the app, as long as it is
// configured, and prove nobody at the issuer's own endpoints.
func TestResources(t *testing.T) {
	const resource = "https://files.example/v1"
	config := guarded("", "")
	withResource := strings.Replace(config, "issuer http://<gate>\n", "issuer http://<gate> {\nresources "+resource+"\n}\n", 1)
	w := start(t, withResource)
	c := w.create(nil)
	r := w.oauth("/token", c.basic(), url.Values{"grant_type": {"client_credentials"}, "resource": {resource}})
	var minted struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(r.Text), &minted); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", r.StatusCode, r.Text)
	}
	bearer := "Authorization: Bearer " + minted.Token
	wantStatus(t, "at the gate", w.get("/", bearer), http.StatusOK)
	if got := w.introspect(c, minted.Token); got["aud"] != resource {
		t.Errorf("aud: %v", got["aud"])
	}
	r = w.oauth("/introspect", bearer, url.Values{"token": {minted.Token}})
	wantStatus(t, "as a caller", r, http.StatusUnauthorized)
	r = w.oauth("/token", c.basic(), url.Values{"grant_type": {"client_credentials"}, "resource": {resource + "/"}})
	if r.StatusCode != http.StatusBadRequest || !strings.Contains(r.Text, `"invalid_target"`) {
		t.Errorf("another resource: %d %s", r.StatusCode, r.Text)
	}
	w.mustLoad(config)
	wantRefusal(t, "when the resource is not configured any more", w.get("/", bearer), invalid)
}

// Failures are counted by Caddy's client address: what a client says of itself
// counts only behind trusted_proxies. The owner who comes from elsewhere never
// waits, and neither a reload nor another endpoint forgets.
func TestGuessingThroughCaddy(t *testing.T) {
	grant := url.Values{"grant_type": {"client_credentials"}, "token": {"x"}}
	from := func(address string) string { return "X-Forwarded-For: " + address }
	guess := func(w *world, c credential, path, address string) int {
		wrong := credential{c.IssuedKey}
		wrong.SecretKey = managementapi.Shown(strings.Repeat("x", 43))
		return w.oauth(path, wrong.basic(), grant, from(address)).StatusCode
	}
	t.Run("without trusted proxies", func(t *testing.T) {
		config := guarded("", "")
		w := start(t, config)
		c, other := w.create(nil), w.create(nil)
		var got []int
		for i := range 12 { // each time from somewhere else, as it says, and at another endpoint
			got = append(got, guess(w, c, []string{"/token", "/introspect", "/revoke"}[i%3], fmt.Sprint("192.0.2.", i)))
		}
		if want := append(slices.Repeat([]int{401}, 10), 429, 429); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		w.mustLoad(config)
		r := w.insist(http.MethodPost, "http://"+w.gate+"/token", grant.Encode(), "Content-Type: application/x-www-form-urlencoded", c.basic())
		if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" || !strings.Contains(r.Text, `"error":"too_many_requests"`) {
			t.Errorf("the right secret from the same address, after a reload: %d %v %s", r.StatusCode, r.Header, r.Text)
		}
		wantStatus(t, "another key", w.oauth("/token", other.basic(), grant), http.StatusOK)
	})
	t.Run("with trusted proxies", func(t *testing.T) {
		w := start(t, behindProxy)
		c := w.create(nil)
		for range 11 {
			guess(w, c, "/token", "2001:db8::1")
		}
		for address, want := range map[string]int{"2001:db8::2": 429, "2001:db8:0:1::1": 401, "192.0.2.7": 401} {
			if got := guess(w, c, "/token", address); got != want {
				t.Errorf("from %s: %d, want %d", address, got, want)
			}
		}
		for range 30 {
			wantStatus(t, "the owner", w.oauth("/token", c.basic(), grant, from("192.0.2.9")), http.StatusOK)
		}
	})
}

// A pair is guessed no faster where the management API or a dialect takes one:
// all count together.
func TestGuessingAtTheManagementAPI(t *testing.T) {
	w := start(t, strings.Replace(speaking(""), "\twarder {", trusting+"\twarder {", 1))
	c := w.holder("warder:keys")
	wrong := credential{c.IssuedKey}
	wrong.SecretKey = managementapi.Shown(strings.Repeat("x", 43))
	trade := func(c credential) string {
		return fmt.Sprintf(`{"accountId":"default","accessKey":%q,"secret":%q}`, c.AccessKey, c.SecretKey.Reveal())
	}
	const stranger, owner = "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"
	for range 5 {
		wantStatus(t, "Lyve", w.call("POST", "/v2/auth/token", trade(wrong), stranger), http.StatusForbidden)
		wantNo(t, "management", w.call("GET", "/v1/self", "", wrong.basic(), stranger), http.StatusUnauthorized, "invalid_token")
	}
	for what, r := range map[string]response{
		"F5":         w.call("GET", "/api/web/custom/namespaces/system/whoami", "", c.basic(), stranger),
		"Lyve":       w.call("POST", "/v2/auth/token", trade(c), stranger),
		"management": w.call("GET", "/v1/self", "", c.basic(), stranger),
		"the issuer": w.oauth("/token", c.basic(), url.Values{"grant_type": {"client_credentials"}}, stranger),
	} {
		if wantStatus(t, what, r, http.StatusTooManyRequests); r.Header.Get("Retry-After") == "" {
			t.Errorf("%s does not say when to come again", what)
		}
	}
	for range 20 {
		wantStatus(t, "the owner", w.call("POST", "/v2/auth/token", trade(c), owner), http.StatusOK)
	}
	w.act(c, "deactivate")
	for range 12 { // who proves to be the owner has not guessed
		wantNo(t, "deactivated", w.call("GET", "/v1/self", "", c.basic(), owner), http.StatusUnauthorized, "invalid_token")
	}
}

// behindProxy is guarded behind a proxy, which tells who calls.
var behindProxy = strings.Replace(guarded("", ""), globals, globals+"\nservers {\ntrusted_proxies static 127.0.0.1/32\n}\n", 1)

// denials are pairs that are refused at the issuer's endpoints.
func denials(w *world) map[string]credential {
	good, gone, blocked := w.create(nil), w.create(nil), w.create(nil)
	w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(gone.ID), nil)
	w.act(blocked, "block")
	wrong, madeUp := good, good
	wrong.SecretKey, madeUp.AccessKey = managementapi.Shown(strings.Repeat("x", 43)), "0123456789abcdefghijkl"
	return map[string]credential{"wrong secret": wrong, "made up": madeUp, "deleted": gone, "blocked": blocked}
}

// No answer tells an unknown access key from a wrong secret.
func TestOAuthDenialsAreAlike(t *testing.T) {
	w := start(t, guarded("", ""))
	for _, path := range []string{"/token", "/introspect", "/revoke"} {
		first := ""
		for name, c := range denials(w) {
			for range 2 { // the key in memory or not
				r := w.oauth(path, c.basic(), url.Values{"grant_type": {"client_credentials"}, "token": {"x"}})
				r.Header.Del("Date")
				bytes := fmt.Sprint(r.StatusCode, r.Header, r.Text)
				if first == "" {
					first = bytes
				}
				if bytes != first || r.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s, %s:\n%s\n%s", path, name, bytes, first)
				}
			}
		}
	}
}

var denialSamples = flags.Int("denial-samples", 0, "how many refusals of each kind TestReportDenialTimes measures; 0: none")

// TestReportDenialTimes shows how long refusals take, warm, over real sockets.
// It asserts nothing: see TestOAuthDenialsAreAlike for what must hold.
func TestReportDenialTimes(t *testing.T) {
	if *denialSamples == 0 {
		t.Skip("measures only with -denial-samples")
	}
	w := start(t, behindProxy)
	refused := denials(w)
	names := []string{"wrong secret", "made up", "deleted", "blocked"}
	took := map[string][]time.Duration{}
	for round := range *denialSamples + 100 {
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		elsewhere := fmt.Sprintf("X-Forwarded-For: 10.%d.%d.%d", round>>16, round>>8&255, round&255) // or it would not be heard
		for _, name := range names {
			began := time.Now()
			r := w.oauth("/token", refused[name].basic(), url.Values{"grant_type": {"client_credentials"}}, elsewhere)
			spent := time.Since(began)
			wantStatus(t, name, r, http.StatusUnauthorized)
			if round >= 100 {
				took[name] = append(took[name], spent)
			}
		}
	}
	for name, times := range took {
		slices.Sort(times)
		at := func(share float64) time.Duration {
			return times[int(share*float64(len(times)-1))].Round(100 * time.Nanosecond)
		}
		t.Logf("%-12s  p10 %-8s  p50 %-8s  p90 %-8s  p99 %-8s", name, at(.1), at(.5), at(.9), at(.99))
	}
}
