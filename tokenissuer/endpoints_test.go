package tokenissuer

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/warderhq/warder/keystore"
)

func TestJWKS(t *testing.T) {
	now := time.Now()
	s := newServer(t, IssuerConfig{}, EndpointsConfig{})
	if _, err := s.node.rotation.Rotate(context.Background(), operator, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	get := call{method: http.MethodGet, target: "/.well-known/jwks.json"}
	resp, body := s.do(t, get)
	h := resp.Header
	if resp.StatusCode != 200 || h.Get("Cache-Control") != "public, max-age=300" || h.Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("%d %v", resp.StatusCode, h)
	}
	set, err := jwk.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range s.node.info(t).Keys { // active, next and retired
		key, ok := set.LookupKeyID(k.KID)
		if !ok || key.Algorithm().String() != k.Algorithm || key.KeyUsage() != "sig" {
			t.Errorf("%s %s is not published: %v", k.Role, k.KID, key)
		}
	}
	if set.Len() != 3 {
		t.Errorf("%d keys", set.Len())
	}
	etag := h.Get("Etag")
	for _, header := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
		again := get
		again.headers = []string{"If-None-Match: " + header}
		if resp, body := s.do(t, again); resp.StatusCode != 304 || body != "" || resp.Header.Get("Cache-Control") == "" || resp.Header.Get("Etag") != etag {
			t.Errorf("If-None-Match %s: %d %v", header, resp.StatusCode, resp.Header)
		}
	}
	head := get
	head.method = http.MethodHead
	if resp, body := s.do(t, head); resp.StatusCode != 200 || body != "" || resp.Header.Get("Etag") != etag {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	post := get
	post.method = http.MethodPost
	if resp, _ := s.do(t, post); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", resp.StatusCode, resp.Header)
	}
	if _, err := s.node.rotation.RotateEmergency(context.Background(), operator, now); err != nil {
		t.Fatal(err)
	}
	again := get
	again.headers = []string{"If-None-Match: " + etag}
	if resp, _ := s.do(t, again); resp.StatusCode != 200 || resp.Header.Get("Etag") == etag {
		t.Errorf("after a rotation: %d %v", resp.StatusCode, resp.Header)
	}
}

// A node that may hold distrusted keys does not publish them.
func TestStaleJWKS(t *testing.T) {
	s := newServer(t, IssuerConfig{}, EndpointsConfig{
		Fresh: func(context.Context, time.Time) error { return keystore.ErrStale },
	})
	resp, _ := s.do(t, call{method: http.MethodGet, target: "/.well-known/jwks.json"})
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		issuer, prefix string
		token, jwks    string
		paths          []string
	}{
		{"http://localhost:8080", "", "http://localhost:8080/token", "http://localhost:8080/.well-known/jwks.json",
			[]string{"/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/introspect", "/revoke", "/token"}},
		{"http://localhost:8080/", "", "http://localhost:8080/token", "http://localhost:8080/.well-known/jwks.json",
			[]string{"/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/introspect", "/revoke", "/token"}},
		{"https://id.example", "/auth", "https://id.example/auth/token", "https://id.example/auth/.well-known/jwks.json",
			[]string{"/auth/.well-known/jwks.json", "/auth/.well-known/oauth-authorization-server", "/auth/introspect", "/auth/revoke", "/auth/token"}},
		{"https://id.example/auth/", "/auth", "https://id.example/auth/token", "https://id.example/auth/.well-known/jwks.json",
			[]string{"/.well-known/oauth-authorization-server/auth", "/auth/.well-known/jwks.json", "/auth/.well-known/oauth-authorization-server", "/auth/introspect", "/auth/revoke", "/auth/token"}},
		{"https://id.example/tenant", "", "https://id.example/token", "https://id.example/.well-known/jwks.json",
			[]string{"/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/tenant", "/introspect", "/revoke", "/token"}},
	} {
		s := newServer(t, IssuerConfig{URL: c.issuer}, EndpointsConfig{PathPrefix: c.prefix})
		if got := s.endpoints.Paths(); !slices.Equal(got, c.paths) {
			t.Errorf("%s %s: paths %v", c.issuer, c.prefix, got)
		}
		for _, path := range c.paths {
			if !s.endpoints.Serves(path) || s.endpoints.Serves(path+"/") || s.endpoints.Serves("/x"+path) {
				t.Errorf("%s: not exactly it", path)
			}
			if resp, _ := s.do(t, call{method: http.MethodGet, target: path + "/"}); resp.StatusCode != 404 {
				t.Errorf("%s/: %d", path, resp.StatusCode)
			}
		}
		for _, path := range c.paths {
			if !slices.Contains([]string{c.prefix + metadataPath, "/.well-known/oauth-authorization-server/auth"}, path) {
				continue
			}
			resp, body := s.do(t, call{method: http.MethodGet, target: path})
			var got map[string]any
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			if got["issuer"] != c.issuer || got["token_endpoint"] != c.token || got["jwks_uri"] != c.jwks {
				t.Errorf("%s: %s", path, body)
			}
			if types, ok := got["response_types_supported"].([]any); !ok || len(types) != 0 {
				t.Errorf("response types: %s", body)
			}
			if resp.Header.Get("Cache-Control") == "" || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Etag") == "" {
				t.Errorf("%s: %v", path, resp.Header)
			}
		}
	}
	n := newTestNode(t, nodeOptions{memo: -1, now: time.Now()})
	for _, prefix := range []string{"auth", "/", "/auth/", "//auth", "/../auth", "/a?b", "/a#b", "/a%2fb", "/a b/", `/a\b`} {
		if _, err := NewEndpoints(EndpointsConfig{Issuer: n.issuer(t, IssuerConfig{}), PathPrefix: prefix}); err == nil {
			t.Errorf("prefix %q is accepted", prefix)
		}
	}
}
