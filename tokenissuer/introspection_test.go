package tokenissuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// registry knows keys by their access keys, as an Authenticator over a store
// does, and access tokens as the issuer does.
type registry struct {
	issuer *Issuer
	keys   map[keystore.AccessKey]*keystore.Record
	err    error // of every question
}

func (r *registry) Authenticate(_ context.Context, p keystore.Presented, now time.Time) (keystore.Principal, error) {
	if r.err != nil {
		return keystore.Principal{}, r.err
	}
	if p.Kind == keystore.CredentialKey {
		key := r.keys[p.Access]
		if key == nil || p.Secret != goodSecret {
			return keystore.Principal{}, keystore.ErrInvalid
		}
		found := keystore.Principal{Record: key, Generation: key.Current.Generation, Kind: p.Kind, Scopes: key.Scopes}
		return found, key.Admit(found.Generation, now)
	}
	claims, err := r.issuer.Verify(p.Token, now)
	if err != nil {
		return keystore.Principal{}, err
	}
	for _, key := range r.keys {
		if key.ID == claims.Key {
			return keystore.Principal{Record: key, Generation: claims.Generation, Kind: p.Kind, Scopes: claims.Scopes.Intersect(key.Scopes)},
				key.Admit(claims.Generation, now)
		}
	}
	return keystore.Principal{}, keystore.ErrInvalid
}

// office is a server with keys of two organizations.
type office struct {
	*server
	registry *registry
}

const resource = "https://api.example/v1"

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{registry: &registry{keys: map[keystore.AccessKey]*keystore.Record{}}}
	o.server = newServer(t, IssuerConfig{Resources: []string{resource, "https://other.example"}}, EndpointsConfig{Authenticator: o.registry})
	o.registry.issuer = o.issuer
	o.add("acme", "one", "a:read b:write")
	o.add("acme", "plain", "")
	o.add("acme", "keys", "warder:keys")
	o.add("acme", "admin", "warder:admin")
	o.add("other", "stranger", "a:read warder:keys")
	o.add("other", "root", "warder:admin")
	return o
}

func (o *office) add(organization, name string, scopes keystore.Scopes) {
	access := accessOf(name)
	o.registry.keys[access] = &keystore.Record{
		ID: keystore.KeyID("key_" + name), Organization: organization, Type: keystore.TypeStandard, Scopes: scopes,
		Created: keystore.InstantOf(time.Unix(1_700_000_000, 0)), Current: keystore.Pair{Generation: 2, AccessKey: access},
	}
}

func accessOf(name string) keystore.AccessKey {
	return keystore.AccessKey((name + strings.Repeat("0", 22))[:22])
}

func (o *office) key(name string) *keystore.Record { return o.registry.keys[accessOf(name)] }

func (o *office) mint(t testing.TB, name string, scopes keystore.Scopes, resources ...string) string {
	t.Helper()
	key := o.key(name)
	m, err := o.issuer.Mint(keystore.Principal{Record: key, Generation: key.Current.Generation, Scopes: key.Scopes}, scopes, time.Now(), resources...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Token.Reveal()
}

func apiKeyOf(name string) string {
	return keystore.FormatAPIKey(keystore.DefaultPrefix, accessOf(name), goodSecret).Reveal()
}

// about calls an endpoint about a token with an Authorization header.
func (o *office) about(t testing.TB, path, authorization, token string) (*http.Response, string) {
	t.Helper()
	c := call{target: path, headers: []string{"Content-Type: " + form}, body: url.Values{"token": {token}}.Encode()}
	if authorization != "" {
		c.headers = append(c.headers, "Authorization: "+authorization)
	}
	return o.do(t, c)
}

func as(name string) string { return basic(string(accessOf(name)), goodSecret) }

const inactive = `{"active":false}` + "\n"

func TestIntrospection(t *testing.T) {
	o := newOffice(t)
	o.key("one").Expires = keystore.InstantOf(time.Now().Add(time.Minute).Truncate(time.Second)) // sooner than the ttl
	token := o.mint(t, "one", "a:read", "https://other.example", resource)
	c := claimsOf(t, o.issuer, token)
	expires := float64(o.key("one").Expires.Time().Unix())
	for what, row := range map[string]struct {
		token string
		want  map[string]any
	}{
		"access token": {token, map[string]any{
			"active": true, "scope": "a:read", "client_id": string(accessOf("one")), "token_type": "Bearer", "exp": expires,
			"iat": float64(c.issued), "sub": "key_one", "aud": []any{resource, "https://other.example"}, "iss": testIssuer,
			"jti": c.id, "org": "acme", "gen": 2.0,
		}},
		"API key": {apiKeyOf("one"), map[string]any{
			"active": true, "scope": "a:read b:write", "client_id": string(accessOf("one")), "token_type": "Bearer", "exp": expires,
			"iat": 1.7e9, "sub": "key_one", "iss": testIssuer, "org": "acme", "gen": 2.0,
		}},
		"API key without end or scope": {apiKeyOf("plain"), map[string]any{
			"active": true, "client_id": string(accessOf("plain")), "token_type": "Bearer",
			"iat": 1.7e9, "sub": "key_plain", "iss": testIssuer, "org": "acme", "gen": 2.0,
		}},
	} {
		resp, body := o.about(t, "/introspect", as("plain"), row.token)
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != 200 || fmt.Sprint(got) != fmt.Sprint(row.want) {
			t.Errorf("%s: %d\n got %v\nwant %v", what, resp.StatusCode, got, row.want)
		}
		h := resp.Header
		if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" || h.Get("Content-Type") != jsonType {
			t.Errorf("%s: headers %v", what, h)
		}
		if last := o.lastObservation(); last.Outcome != OutcomeIntrospected || last.Key != "key_plain" || last.Err != nil {
			t.Errorf("%s: observed %+v", what, last)
		}
	}
	o.key("one").Expires -= keystore.Instant(10 * time.Second / time.Microsecond) // since the token was minted
	if _, body := o.about(t, "/introspect", as("plain"), token); !strings.Contains(body, fmt.Sprintf(`"exp":%.0f,`, expires-10)) {
		t.Errorf("the end of a key that was brought forward: %s", body)
	}
	o.key("one").Expires = 0
	if _, body := o.about(t, "/introspect", as("plain"), token); !strings.Contains(body, fmt.Sprintf(`"exp":%.0f,`, expires)) {
		t.Errorf("the end of a key that was put off: %s", body)
	}
	o.key("one").Scopes = "b:write"
	if _, body := o.about(t, "/introspect", as("plain"), token); strings.Contains(body, `"scope"`) {
		t.Errorf("a scope that the key has lost: %s", body)
	}
}

// Whatever is not active is so in the same bytes.
func TestInactive(t *testing.T) {
	o := newOffice(t)
	foreign := o.mint(t, "stranger", "a:read")
	good := o.mint(t, "one", "a:read")
	revoked := o.mint(t, "one", "a:read")
	revokeToken(t, o.endpoints.revocations, o.issuer, revoked, time.Now())
	old, err := o.issuer.Mint(keystore.Principal{Record: o.key("one"), Generation: 2}, "", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what, authorization, token string, active bool) {
		t.Helper()
		resp, body := o.about(t, "/introspect", authorization, token)
		if resp.StatusCode != 200 || (body == inactive) == active {
			t.Errorf("%s: %d %s", what, resp.StatusCode, body)
		}
	}
	for what, token := range map[string]string{
		"nonsense": "x", "three segments": "a.b.c", "long": strings.Repeat("x", 5000), "expired": old.Token.Reveal(), "revoked": revoked,
		"changed": good[:len(good)-4] + "AAAA", "another organization's": foreign, "another organization's API key": apiKeyOf("stranger"),
		"wrong secret": keystore.FormatAPIKey(keystore.DefaultPrefix, accessOf("one"), wrongSecret).Reveal(),
		"unknown key":  apiKeyOf("nobody"), "of another prefix": keystore.FormatAPIKey("xyz", accessOf("one"), goodSecret).Reveal(),
	} {
		expect(what, as("keys"), token, false)
	}
	expect("good", as("plain"), good, true)
	expect("its own", "Bearer "+good, good, true)
	expect("for an administrator of its organization", as("admin"), good, true)
	expect("for an administrator of another", as("root"), good, true)
	expect("another organization's, for an administrator", as("admin"), foreign, true)
	expect("an API key, for an administrator", "Bearer "+apiKeyOf("root"), apiKeyOf("one"), true)
	expect("for an administrator's narrowed token", "Bearer "+o.mint(t, "root", ""), good, false)
	for what, end := range map[string]func(*keystore.Record){
		"blocked":     func(r *keystore.Record) { r.Blocked = true },
		"deactivated": func(r *keystore.Record) { r.Deactivated = true },
		"expired":     func(r *keystore.Record) { r.Expires = 1 },
		"superseded":  func(r *keystore.Record) { r.Current.Generation = 9 },
	} {
		kept := *o.key("one")
		end(o.key("one"))
		expect(what, as("plain"), good, false)
		if what != "superseded" {
			expect(what+" API key", as("plain"), apiKeyOf("one"), false)
		}
		*o.key("one") = kept
	}
}

// Whoever asks must be somebody, here; and the answers are OAuth's.
func TestCallersOfTheOtherEndpoints(t *testing.T) {
	o := newOffice(t)
	good := o.mint(t, "one", "a:read")
	body := "token=" + good
	formHeader, other := "Content-Type: "+form, o.mint(t, "one", "", resource)
	for _, path := range []string{"/introspect", "/revoke"} {
		for name, c := range map[string]struct {
			call
			status    int
			code      string
			challenge string
		}{
			"Basic":                      {call{headers: []string{formHeader, "Authorization: " + as("plain")}, body: body}, 200, "", ""},
			"form":                       {call{headers: []string{formHeader}, body: body + "&client_id=" + string(accessOf("plain")) + "&client_secret=" + goodSecret}, 200, "", ""},
			"Bearer API key":             {call{headers: []string{formHeader, "Authorization: Bearer " + apiKeyOf("plain")}, body: body}, 200, "", ""},
			"Token API key":              {call{headers: []string{formHeader, "Authorization: Token " + apiKeyOf("plain")}, body: body}, 200, "", ""},
			"Bearer access token":        {call{headers: []string{formHeader, "Authorization: Bearer " + o.mint(t, "plain", "")}, body: body}, 200, "", ""},
			"token for it and another":   {call{headers: []string{formHeader, "Authorization: Bearer " + o.mint(t, "plain", "", resource, testIssuer)}, body: body}, 200, "", ""},
			"with a hint":                {call{headers: []string{formHeader, "Authorization: " + as("plain")}, body: body + "&token_type_hint=refresh_token"}, 200, "", ""},
			"nobody":                     {call{headers: []string{formHeader}, body: body}, 401, "invalid_client", ""},
			"another scheme":             {call{headers: []string{formHeader, "Authorization: Digest x"}, body: body}, 401, "invalid_client", ""},
			"wrong secret":               {call{headers: []string{formHeader, "Authorization: " + basic(string(accessOf("plain")), wrongSecret)}, body: body}, 401, "invalid_client", "Basic"},
			"wrong API key":              {call{headers: []string{formHeader, "Authorization: Bearer " + apiKeyOf("nobody")}, body: body}, 401, "invalid_token", "Bearer"},
			"nonsense":                   {call{headers: []string{formHeader, "Authorization: Bearer x"}, body: body}, 401, "invalid_token", "Bearer"},
			"token for another audience": {call{headers: []string{formHeader, "Authorization: Bearer " + other}, body: body}, 401, "invalid_token", "Bearer"},
			"two methods":                {call{headers: []string{formHeader, "Authorization: " + as("plain")}, body: body + "&client_id=" + string(accessOf("plain"))}, 400, "invalid_request", ""},
			"two headers":                {call{headers: []string{formHeader, "Authorization: " + as("plain"), "Authorization: " + as("plain")}, body: body}, 400, "invalid_request", ""},
			"joined":                     {call{headers: []string{formHeader, "Authorization: " + as("plain") + ", " + as("plain")}, body: body}, 400, "invalid_request", ""},
			"no token":                   {call{headers: []string{formHeader, "Authorization: " + as("plain")}, body: "token="}, 400, "invalid_request", ""},
			"two tokens":                 {call{headers: []string{formHeader, "Authorization: " + as("plain")}, body: body + "&" + body}, 400, "invalid_request", ""},
			"query":                      {call{target: path + "?token=x", headers: []string{formHeader, "Authorization: " + as("plain")}, body: body}, 400, "invalid_request", ""},
			"JSON":                       {call{headers: []string{"Content-Type: " + jsonType, "Authorization: " + as("plain")}, body: `{"token":"x"}`}, 400, "invalid_request", ""},
			"no content type":            {call{headers: []string{"Authorization: " + as("plain")}, body: body}, 400, "invalid_request", ""},
			"huge":                       {call{headers: []string{formHeader, "Authorization: " + as("plain")}, body: body + strings.Repeat("x", maxBody)}, 413, "invalid_request", ""},
			"GET":                        {call{method: "GET", headers: []string{"Authorization: " + as("plain")}}, 405, "invalid_request", ""},
		} {
			if c.target == "" {
				c.target = path
			}
			resp, text := o.do(t, c.call)
			challenge, _, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), " ")
			if resp.StatusCode != c.status || challenge != c.challenge || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: %d %v %s", path, name, resp.StatusCode, resp.Header, text)
			}
			var got struct{ Error, Type string }
			if c.code != "" && (json.Unmarshal([]byte(text), &got) != nil || got.Error != c.code || got.Type != "") {
				t.Errorf("%s, %s: %s", path, name, text)
			}
			if strings.Contains(fmt.Sprint(o.lastObservation()), goodSecret) || strings.Contains(text, good) {
				t.Errorf("%s, %s: a secret is told again", path, name)
			}
		}
	}
}

// What a node cannot know is no "not active", and no revocation.
func TestOutageOfTheOtherEndpoints(t *testing.T) {
	o := newOffice(t)
	good := o.mint(t, "one", "a:read")
	for _, outage := range []error{keystore.ErrStale, keystore.ErrUnavailable} {
		for _, path := range []string{"/introspect", "/revoke"} {
			o.registry.err = fmt.Errorf("asking: %w", outage)
			resp, body := o.about(t, path, as("plain"), good)
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, `"temporarily_unavailable"`) {
				t.Errorf("%s, %v: %d %s", path, outage, resp.StatusCode, body)
			}
			o.registry.err = nil
		}
	}
	// The caller is known, the token's key is not.
	half := &halfOutage{Authenticator: o.registry, of: "key_one"}
	o.endpoints.authenticator = half
	for what, token := range map[string]string{"access token": good, "API key": apiKeyOf("one")} {
		resp, body := o.about(t, "/introspect", as("plain"), token)
		if resp.StatusCode != 503 || strings.Contains(body, "active") {
			t.Errorf("%s of an unknown key: %d %s", what, resp.StatusCode, body)
		}
	}
	half.err = errors.New("something else")
	if resp, body := o.about(t, "/introspect", as("plain"), good); resp.StatusCode != 500 || strings.Contains(body, "something") {
		t.Errorf("an unknown error: %d %s", resp.StatusCode, body)
	}
	o.endpoints.authenticator = o.registry
	o.node.keyring.replace(nil)
	if resp, body := o.about(t, "/revoke", as("plain"), good); resp.StatusCode != 503 {
		t.Errorf("revoking without a ring: %d %s", resp.StatusCode, body)
	}
	if o.node.store.revocations() != 0 {
		t.Error("something was revoked")
	}
}

// halfOutage knows all but one key.
type halfOutage struct {
	Authenticator
	of  keystore.KeyID
	err error
}

func (h *halfOutage) Authenticate(ctx context.Context, p keystore.Presented, now time.Time) (keystore.Principal, error) {
	found, err := h.Authenticator.Authenticate(ctx, p, now)
	if err == nil && found.Record.ID == h.of {
		if h.err != nil {
			return keystore.Principal{}, h.err
		}
		return keystore.Principal{}, keystore.ErrUnavailable
	}
	return found, err
}

func TestRevocationEndpoint(t *testing.T) {
	o := newOffice(t)
	for what, row := range map[string]struct {
		as, of  string
		scopes  keystore.Scopes
		revoked bool
	}{
		"by its own client":                      {as("one"), "one", "a:read", true},
		"by its own client's access token":       {"Bearer " + o.mint(t, "one", ""), "one", "a:read", true},
		"by another client":                      {as("plain"), "one", "a:read", false},
		"by who manages the keys":                {as("keys"), "one", "a:read", true},
		"by who manages, narrowed":               {"Bearer " + o.mint(t, "keys", ""), "one", "a:read", false},
		"by who manages another's keys":          {as("stranger"), "one", "a:read", false},
		"an administrator's, by who manages":     {as("keys"), "admin", "warder:admin", false},
		"an administrator's narrowed one":        {as("keys"), "admin", "", true},
		"an administrator's, by itself":          {as("admin"), "admin", "warder:admin", true},
		"by an administrator of another":         {as("root"), "one", "a:read", true},
		"of another organization by an ordinary": {as("one"), "stranger", "a:read", false},
	} {
		token := o.mint(t, row.of, row.scopes)
		before := o.node.store.head()
		resp, body := o.about(t, "/revoke", row.as, token)
		if resp.StatusCode != 200 || body != "" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %s", what, resp.StatusCode, resp.Header, body)
		}
		_, err := o.issuer.Verify(token, time.Now())
		if revoked := errors.Is(err, keystore.ErrTokenRevoked); revoked != row.revoked || (o.node.store.head() != before) != revoked {
			t.Errorf("%s: %v", what, err)
		}
		want := Observation{Outcome: OutcomeNotRevoked, Key: o.lastObservation().Key}
		if row.revoked {
			want.Outcome, want.TokenID = OutcomeRevoked, claimsOf(t, o.issuer, token).id
		}
		if got := o.lastObservation(); got != want || got.Key == "" {
			t.Errorf("%s: observed %+v, want %+v", what, got, want)
		}
	}
}

func TestRevocationChangesNothing(t *testing.T) {
	o := newOffice(t)
	good := o.mint(t, "one", "a:read")
	revoked := o.mint(t, "one", "a:read")
	revokeToken(t, o.endpoints.revocations, o.issuer, revoked, time.Now())
	before := o.node.store.head()
	for what, token := range map[string]string{
		"nonsense": "x", "bad signature": good[:len(good)-4] + "AAAA", "revoked": revoked, "long": strings.Repeat("x", 5000),
		"nearly an API key": strings.TrimSuffix(apiKeyOf("one"), "0") + "!",
	} {
		if resp, body := o.about(t, "/revoke", as("root"), token); resp.StatusCode != 200 || body != "" {
			t.Errorf("%s: %d %s", what, resp.StatusCode, body)
		}
	}
	for _, name := range []string{"one", "nobody"} { // known or not: nobody learns which
		resp, body := o.about(t, "/revoke", as("root"), apiKeyOf(name))
		if resp.StatusCode != 400 || !strings.Contains(body, `"unsupported_token_type"`) {
			t.Errorf("an API key: %d %s", resp.StatusCode, body)
		}
	}
	if o.node.store.head() != before {
		t.Error("something was changed")
	}
	o.key("one").Deactivated = true // its tokens would come back
	if resp, _ := o.about(t, "/revoke", as("keys"), good); resp.StatusCode != 200 || o.node.store.head() == before {
		t.Errorf("a token of a deactivated key: %d", resp.StatusCode)
	}
	o.endpoints.revocations.cfg.Limit = o.node.keyring.revoked.len()
	before = o.node.store.head()
	resp, body := o.about(t, "/revoke", as("plain"), o.mint(t, "plain", ""))
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || o.node.store.head() != before {
		t.Errorf("beyond the limit: %d %s", resp.StatusCode, body)
	}
}

// The token endpoint binds tokens to what was asked for, and to nothing else.
func TestTokenEndpointResources(t *testing.T) {
	o := newOffice(t)
	for what, row := range map[string]struct {
		body, contentType string
		status            int
		want              string // aud, or the error
	}{
		"none":                 {"", form, 200, `"` + testIssuer + `"`},
		"empty":                {"&resource=", form, 200, `"` + testIssuer + `"`},
		"one":                  {"&resource=" + url.QueryEscape(resource), form, 200, `"` + resource + `"`},
		"the same twice":       {"&resource=" + resource + "&resource=" + resource, form, 200, `"` + resource + `"`},
		"two":                  {"&resource=https://other.example&resource=" + resource, form, 200, `["` + resource + `","https://other.example"]`},
		"the issuer's own":     {"&resource=" + testIssuer, form, 200, `"` + testIssuer + `"`},
		"JSON":                 {`{"resource":"` + resource + `"}`, jsonType, 200, `"` + resource + `"`},
		"unknown":              {"&resource=https://x.example", form, 400, "invalid_target"},
		"one of two unknown":   {"&resource=" + resource + "&resource=https://x.example", form, 400, "invalid_target"},
		"with a fragment":      {"&resource=" + url.QueryEscape(resource+"#f"), form, 400, "invalid_target"},
		"relative":             {"&resource=v1", form, 400, "invalid_target"},
		"in other case":        {"&resource=" + strings.ToUpper(resource), form, 400, "invalid_target"},
		"with a quote":         {"&resource=" + url.QueryEscape(resource+`","https://x.example`), form, 400, "invalid_target"},
		"unknown in JSON":      {`{"resource":"https://x.example"}`, jsonType, 400, "invalid_target"},
		"several in JSON":      {`{"resource":["` + resource + `"]}`, jsonType, 400, "invalid_request"},
		"and a scope not held": {"&resource=" + resource + "&scope=c", form, 400, "invalid_scope"},
	} {
		body := row.body
		if row.contentType == form {
			body = "grant_type=client_credentials" + body
		}
		resp, text := o.do(t, call{headers: []string{"Content-Type: " + row.contentType, "Authorization: " + as("one")}, body: body})
		var got struct {
			Error string
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || resp.StatusCode != row.status {
			t.Errorf("%s: %d %s", what, resp.StatusCode, text)
			continue
		}
		if row.status == 200 {
			got.Error = string(claimsOf(t, o.issuer, got.Token).audience)
		} else if row.want != "invalid_request" && o.lastObservation().Key != "key_one" {
			t.Errorf("%s: observed %+v", what, o.lastObservation())
		}
		if got.Error != row.want {
			t.Errorf("%s: got %s, want %s", what, got.Error, row.want)
		}
	}
}

func TestMetadataNamesTheOtherEndpoints(t *testing.T) {
	s := newServer(t, IssuerConfig{URL: "https://id.example/auth"}, EndpointsConfig{PathPrefix: "/auth"})
	_, body := s.do(t, call{method: http.MethodGet, target: "/auth" + metadataPath})
	var got struct {
		Introspection string   `json:"introspection_endpoint"`
		Revocation    string   `json:"revocation_endpoint"`
		Introspecting []string `json:"introspection_endpoint_auth_methods_supported"`
		Revoking      []string `json:"revocation_endpoint_auth_methods_supported"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	pair := []string{"client_secret_basic", "client_secret_post"}
	if got.Introspection != "https://id.example/auth/introspect" || got.Revocation != "https://id.example/auth/revoke" ||
		!slices.Equal(got.Introspecting, append(pair, "Bearer")) || !slices.Equal(got.Revoking, pair) {
		t.Error(body)
	}
}

// Whatever is sent about a token, the answer is one of OAuth's, and it is
// active or revoked only for who may know.
func FuzzTokenForm(f *testing.F) {
	o := newOffice(f)
	good := o.mint(f, "one", "a:read")
	pair := "&client_id=" + string(accessOf("one")) + "&client_secret=" + goodSecret
	f.Add("", "token="+good+pair)
	f.Add(as("plain"), "token="+good+"&token_type_hint=x")
	f.Add("Bearer "+good, "token="+apiKeyOf("one"))
	f.Add("Bearer "+apiKeyOf("plain"), "token=a&token=b")
	f.Add("Basic !", "token=%zz;&&=")
	o.endpoints.observe, o.endpoints.revocations = nil, NewRevocations(RevocationsConfig{
		Keyring: o.node.keyring, Store: lossy{}, Follower: o.node.follower,
	})
	f.Fuzz(func(t *testing.T, authorization, body string) {
		for _, path := range []string{"/introspect", "/revoke"} {
			r, w := request(path, authorization, body)
			o.endpoints.ServeHTTP(w, r)
			parsed, _ := url.ParseQuery(body)
			nobody := authorization == "" && parsed.Get("client_secret") != goodSecret
			var got map[string]any
			if w.Body.Len() > 0 && json.Unmarshal(w.Body.Bytes(), &got) != nil {
				t.Fatalf("%q", w.Body)
			}
			switch w.Code {
			case 200:
				if nobody {
					t.Errorf("%s: an answer to nobody: %s", path, w.Body)
				}
			case 400, 401, 413, 429, 503:
				if got["error"] == nil || got["active"] != nil {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
			default:
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
	})
}

func request(path, authorization, body string) (*http.Request, *httptest.ResponseRecorder) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", form)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r, httptest.NewRecorder()
}
