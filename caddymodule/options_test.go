package caddymodule

import (
	"net/http"
	"strings"
	"testing"
)

func TestPublic(t *testing.T) {
	w := start(t, guarded("", "public /healthz /docs/*\npublic /robots.txt"))
	for _, path := range []string{"/healthz", "/docs/", "/docs/a/b", "/robots.txt"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			wantStatus(t, path, w.do(method, "http://"+w.gate+path, ""), http.StatusOK)
			w.upstream.one(t)
		}
	}
	for _, path := range []string{"/", "/docs", "/healthz/x", "/robots.txt.bak"} {
		wantRefusal(t, path, w.get(path), missing)
	}
	if got := w.metric(`warder_requests_admitted_total{credential="none"}`); got != "12" {
		t.Errorf("%s requests counted as passing without a credential, want 12", got)
	}
}

func TestOptional(t *testing.T) {
	w := start(t, guarded("", "optional\nrequire scope hello:read"))
	good, weak := w.create(fields{"name": "good", "scopes": []string{"hello:read"}}), w.create(nil)
	wantStatus(t, "none", w.get("/"), http.StatusOK)
	wantNoIdentity(t, "none", w.upstream.one(t))
	wantStatus(t, "another scheme", w.get("/", "Authorization: Digest x"), http.StatusOK)
	if got := w.upstream.one(t); got.Header["Authorization"] != nil {
		t.Error("what stood in credential position reached the API behind")
	}
	wantStatus(t, "good", w.get("/", good.token()), http.StatusOK)
	wantIdentity(t, "good", w.upstream.one(t), good, "key")
	wantRefusal(t, "bad", w.get("/", "Authorization: Token bad"), invalid)
	wantRefusal(t, "two", w.get("/", good.token(), good.token()), malformed)
	wantStatus(t, "without the scope", w.get("/", weak.token()), http.StatusForbidden)
	w.act(good, "block")
	wantRefusal(t, "blocked", w.get("/", good.token()), blocked)
}

// Shadow decides, counts and logs, and lets everything pass.
func TestShadow(t *testing.T) {
	w := start(t, guarded("", "shadow\nrequire scope hello:read"))
	good, weak, gone := w.create(fields{"name": "good", "scopes": []string{"hello:read"}}), w.create(nil), w.create(nil)
	w.act(gone, "block")
	for _, row := range []struct{ header, series string }{
		{"X-No: credential", `warder_requests_refused_total{reason="credential_missing"}`},
		{"Authorization: Token bad", `warder_requests_refused_total{reason="invalid_token"}`},
		{"Authorization: Token a, b", `warder_requests_refused_total{reason="invalid_request"}`},
		{gone.token(), `warder_requests_refused_total{reason="blocked"}`},
		{weak.token(), `warder_requests_refused_total{reason="insufficient_scope"}`},
		{good.token(), `warder_requests_admitted_total{credential="key"}`},
	} {
		r := w.get("/", row.header, "X-Warder-Key-Id: forged")
		wantStatus(t, row.series, r, http.StatusOK)
		if r.Header.Get("Www-Authenticate") != "" {
			t.Errorf("%s: an answer that passed has a challenge", row.series)
		}
		if got := w.metric(row.series); got != "1" {
			t.Errorf("%s is %s, want 1", row.series, got)
		}
		got := w.upstream.one(t)
		if row.header != good.token() {
			wantNoIdentity(t, row.series, got)
		} else if got.Header.Get("X-Warder-Key-Name") != "good" {
			t.Error("a good key is not named")
		}
	}
	if !strings.Contains(w.log(), `"reason":"blocked","error":"key is blocked","key_id":"`+string(gone.ID)+`"`) {
		t.Error("the log does not say who would have been refused")
	}
}

var preflight = []string{"Origin: https://app.example", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"}

func TestPreflight(t *testing.T) {
	w := start(t, guarded("", ""))
	url := "http://" + w.gate + "/x"
	wantStatus(t, "preflight", w.do(http.MethodOptions, url, "", preflight...), http.StatusOK)
	wantNoIdentity(t, "preflight", w.upstream.one(t))
	for name, r := range map[string]response{
		"OPTIONS that is none":  w.do(http.MethodOptions, url, ""),
		"without a method":      w.do(http.MethodOptions, url, "", preflight[0]),
		"without an origin":     w.do(http.MethodOptions, url, "", preflight[1]),
		"GET in its clothes":    w.do(http.MethodGet, url, "", preflight...),
		"POST in its clothes":   w.do(http.MethodPost, url, "", preflight...),
		"two origins":           w.do(http.MethodOptions, url, "", append(preflight, preflight[0])...),
		"method in lower case":  w.do("options", url, "", preflight...),
		"method by other means": w.do(http.MethodPost, url, "", append(preflight, "X-Http-Method-Override: OPTIONS")...),
	} {
		wantRefusal(t, name, r, missing)
	}
	wantStatus(t, "ambiguous path", w.do(http.MethodOptions, "http://"+w.gate+"/a%2fb", "", preflight...), http.StatusBadRequest)
	c := w.create(nil)
	wantStatus(t, "with a credential", w.do(http.MethodOptions, url, "", append(preflight, c.token())...), http.StatusOK)
	if got := w.upstream.one(t); got.Header["Authorization"] != nil {
		t.Error("a preflight's credential reached the API behind")
	}
}

func TestPreflightDeny(t *testing.T) {
	w := start(t, guarded("", "preflight deny"))
	url := "http://" + w.gate + "/x"
	wantRefusal(t, "preflight", w.do(http.MethodOptions, url, "", preflight...), missing)
	wantStatus(t, "with a credential", w.do(http.MethodOptions, url, "", append(preflight, w.create(nil).token())...), http.StatusOK)
}

func TestRequireType(t *testing.T) {
	w := start(t, guarded("", "require type standard trial"))
	wantStatus(t, "standard", w.get("/", w.create(nil).token()), http.StatusOK)
	wantStatus(t, "trial", w.get("/", w.create(fields{"type": "trial"}).token()), http.StatusOK)
	w.mustLoad(guarded("", "require type trial"))
	c := w.create(nil)
	wantRefusal(t, "standard", w.get("/", c.token()), mistyped)
	wantRefusal(t, "its access token", w.get("/", "Authorization: Bearer "+w.accessToken(c, "")), mistyped)
}

// The greater of Warder's own scopes stands for the lesser, and for no other.
func TestRequireReservedScope(t *testing.T) {
	w := start(t, guarded("", "require scope warder:read"))
	for scope, want := range map[string]int{"warder:read": 200, "warder:keys": 200, "warder:admin": 200, "hello:read": 403} {
		wantStatus(t, scope, w.get("/", w.create(fields{"scopes": []string{scope}}).token()), want)
	}
	w.mustLoad(guarded("", "require scope hello:read"))
	wantStatus(t, "warder:admin is no pass for the API", w.get("/", w.create(fields{"scopes": []string{"warder:admin"}}).token()), http.StatusForbidden)
}

func TestIssuerPathPrefix(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>/auth", "warder_issuer {\npath_prefix /auth\n}\nwarder\nreverse_proxy <upstream>"))
	c := w.create(nil)
	wantStatus(t, "moved", w.do(http.MethodPost, "http://"+w.gate+"/auth/token", "grant_type=client_credentials",
		"Content-Type: application/x-www-form-urlencoded", c.basic()), http.StatusOK)
	wantStatus(t, "keys", w.get("/auth/.well-known/jwks.json"), http.StatusOK)
	for _, path := range []string{"/token", "/.well-known/jwks.json", "/auth/token/x", "/auth", "/auth/tokens"} {
		wantRefusal(t, path, w.get(path), missing) // goes on to the gate
	}
}

// Through Caddy, too, the token endpoint's refusals are its own.
func TestTokenEndpointRefusals(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	form := "Content-Type: application/x-www-form-urlencoded"
	url := "http://" + w.gate + "/token"
	for name, r := range map[string]response{
		"unknown":    w.do(http.MethodPost, url, "grant_type=client_credentials&client_id=x&client_secret=y", form),
		"wrong":      w.do(http.MethodPost, url, "grant_type=client_credentials&client_id="+string(c.AccessKey)+"&client_secret=y", form),
		"nobody":     w.do(http.MethodPost, url, "grant_type=client_credentials", form),
		"of another": w.do(http.MethodPost, url, "grant_type=client_credentials&client_id="+string(c.AccessKey)+"&client_secret="+w.create(nil).SecretKey.Reveal(), form),
	} {
		wantStatus(t, name, r, http.StatusUnauthorized)
		if !strings.Contains(r.Text, `"error":"invalid_client"`) || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s", name, r.Text)
		}
	}
	wantStatus(t, "GET", w.get("/token"), http.StatusMethodNotAllowed)
	wantStatus(t, "query", w.do(http.MethodPost, url+"?grant_type=client_credentials", "", form, c.basic()), http.StatusBadRequest)
}
