package caddymodule

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// everyMode is a site with each way to pass a gate.
const everyMode = `
	warder_issuer
	route /optional/* {
		warder {
			optional
		}
		reverse_proxy <upstream>
	}
	route /shadow/* {
		warder {
			shadow
		}
		reverse_proxy <upstream>
	}
	route {
		warder {
			public /public/* /open
		}
		reverse_proxy <upstream>
	}
`

// forgeries are spellings of identity headers that some server takes for ours.
var forgeries = []string{
	"X-Warder-Key-Id: forged", "x-warder-key-id: forged", "X-WARDER-KEY-ID: forged", "x-wArDeR-kEy-iD: forged",
	"X-Warder-Key-Id: forged again", "X~Warder~Key~Id: forged", "X-Warder!Key'Id: forged", "X_Warder_Key_Id: forged",
	"X.Warder.Key.Id: forged", "X-Warder_Key.Id: forged", "X-Warder-Scope: forged", "X-Warder-Organization: forged",
	"X-Warder-Metadata: forged", "X-Warder-Credential: forged", "X-Warder-Anything-Else: forged", "X-Warder-: forged",
	"Connection: X-Warder-Key-Id, keep-alive", "Connection: x-warder-scope",
}

// identityOf returns the headers that an API behind could take for identity.
func identityOf(h http.Header) map[string][]string {
	found := make(map[string][]string)
	for name, values := range h {
		if strings.HasPrefix(foldName(name), "x-warder-") {
			found[name] = values
		}
	}
	return found
}

func wantNoIdentity(t *testing.T, what string, r received) {
	t.Helper()
	if got := identityOf(r.Header); len(got) != 0 {
		t.Errorf("%s: the API behind was told %v", what, got)
	}
	if len(r.Trailer) != 0 || r.Header.Get("Trailer") != "" {
		t.Errorf("%s: the API behind got trailers %v", what, r.Trailer)
	}
}

// wantIdentity: the API behind was told about c, by the gate and nobody else.
func wantIdentity(t *testing.T, what string, r received, c credential, kind string) {
	t.Helper()
	want := map[string][]string{
		"X-Warder-Key-Id": {string(c.ID)}, "X-Warder-Key-Name": {c.Name}, "X-Warder-Key-Type": {c.Type},
		"X-Warder-Organization": {c.Organization}, "X-Warder-Scope": {strings.Join(c.Scopes, " ")}, "X-Warder-Credential": {kind},
	}
	if got := identityOf(r.Header); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: the API behind was told\n%v, want\n%v", what, got, want)
	}
	if got := r.Header["Authorization"]; got != nil {
		t.Errorf("%s: the API behind saw the credential", what)
	}
	if len(r.Trailer) != 0 || r.Header.Get("Trailer") != "" {
		t.Errorf("%s: the API behind got trailers %v", what, r.Trailer)
	}
}

func TestForgedIdentity(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>", everyMode))
	c := w.create(fields{"name": "real", "scopes": []string{"a:b"}})
	preflight := []string{"Origin: https://example.com", "Access-Control-Request-Method: GET"}
	for _, path := range []string{"/public/x", "/open", "/optional/x", "/shadow/x"} {
		wantStatus(t, path, w.get(path, forgeries...), http.StatusOK)
		wantNoIdentity(t, path, w.upstream.one(t))
	}
	wantStatus(t, "preflight", w.do(http.MethodOptions, "http://"+w.gate+"/x", "", append(preflight, forgeries...)...), http.StatusOK)
	wantNoIdentity(t, "preflight", w.upstream.one(t))
	wantStatus(t, "shadow, ambiguous path", w.get("/shadow/%2fx", forgeries...), http.StatusOK)
	wantNoIdentity(t, "shadow, ambiguous path", w.upstream.one(t))

	minted := "Authorization: Bearer " + w.accessToken(c, "")
	for _, path := range []string{"/protected", "/optional/x"} {
		wantStatus(t, path, w.get(path, append(forgeries, c.token())...), http.StatusOK)
		wantIdentity(t, path, w.upstream.one(t), c, "key")
		wantStatus(t, path, w.get(path, append(forgeries, minted)...), http.StatusOK)
		wantIdentity(t, path, w.upstream.one(t), c, "access_token")
	}
}

// Caddy drops names with "_" and "." unless it is told to expect them. Told
// so, it drops the names with "-" instead, and the gate meets the others.
func TestForgedIdentityInExpectedSpellings(t *testing.T) {
	w := start(t, siteConfig(`
	servers {
		expected_underscore_headers X_Warder_*
		expected_dot_headers X.Warder.*
	}`, "", everyMode[strings.Index(everyMode, "route"):]))
	c := w.create(fields{"name": "real", "scopes": []string{"a:b"}})
	for _, path := range []string{"/public/x", "/optional/x", "/shadow/x"} {
		wantStatus(t, path, w.get(path, "X_Warder_Key_Id: forged", "X.Warder.Scope: forged"), http.StatusOK)
		wantNoIdentity(t, path, w.upstream.one(t))
	}
	wantStatus(t, "protected", w.get("/", "X_Warder_Key_Id: forged", "X.Warder.Scope: forged", c.token()), http.StatusOK)
	wantIdentity(t, "protected", w.upstream.one(t), c, "key")
}

// The gate does not lean on Caddy to drop other spellings.
func TestStrip(t *testing.T) {
	r := &http.Request{Header: http.Header{"Accept": {"*/*"}, "X-Warden": {"kept"}}, Trailer: http.Header{"X-Warder-Scope": nil}}
	for _, line := range forgeries {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	r.Header["Trailer"] = []string{"X-Warder-Scope"}
	headers := newIdentityHeaders(defaultIdentityPrefix)
	headers.strip(r)
	if len(r.Header) != 2 || r.Header.Get("X-Warden") != "kept" || r.Trailer != nil {
		t.Errorf("left over: %v, trailers %v", r.Header, r.Trailer)
	}
}

func TestConnectionKeepsOnly(t *testing.T) {
	for _, row := range []struct {
		in   []string
		want []string
	}{
		{[]string{"close"}, []string{"close"}},
		{[]string{"Upgrade"}, []string{"Upgrade"}},
		{[]string{"keep-alive, Upgrade"}, []string{"Upgrade"}},
		{[]string{"X-Warder-Key-Id,upgrade", " Close ,x-warder-scope"}, []string{"upgrade, Close"}},
		{[]string{"keep-alive"}, nil},
		{[]string{"X-Warder-Key-Id"}, nil},
		{[]string{"upgrade-insecure, closed, \"close\""}, nil},
		{[]string{""}, nil},
	} {
		r := &http.Request{Header: http.Header{"Connection": row.in}}
		headers := newIdentityHeaders(defaultIdentityPrefix)
		headers.strip(r)
		if got := r.Header["Connection"]; !slices.Equal(got, row.want) {
			t.Errorf("Connection %q: %q left, want %q", row.in, got, row.want)
		}
	}
}

// Trailers arrive when every header has been looked at.
func TestTrailers(t *testing.T) {
	w := start(t, siteConfig("servers {\nprotocols h1 h2c\n}", "issuer http://<gate>", everyMode))
	c := w.create(fields{"name": "real", "scopes": []string{"a:b"}})
	for _, path := range []string{"/protected", "/public/x", "/optional/x"} {
		for _, announced := range []string{"", "Trailer: X-Warder-Key-Id\r\n", "Trailer: X-Warder-Key-Id, X-Other\r\n"} {
			credential := c.token() + "\r\n"
			if path == "/public/x" {
				credential = ""
			}
			wantStatus(t, path, w.raw("POST "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\n"+credential+announced+
				"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Warder-Key-Id: forged\r\nX-Other: y\r\n\r\n"), http.StatusOK)
			got := w.upstream.one(t)
			if got.Body != "body" {
				t.Errorf("the API behind read %q", got.Body)
			}
			if credential == "" {
				wantNoIdentity(t, path, got)
			} else {
				wantIdentity(t, path, got, c, "key")
			}
		}
	}
	r, err := trailersOverHTTP2(w, c)
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, "HTTP/2", r, http.StatusOK)
	wantIdentity(t, "HTTP/2", w.upstream.one(t), c, "key")
}

func trailersOverHTTP2(w *world, c credential) (response, error) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	body := io.MultiReader(strings.NewReader("body")) // of unknown length
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+w.gate+"/", body)
	if err != nil {
		return response{}, err
	}
	r.Header.Set("Authorization", "Token "+c.APIKey.Reveal())
	r.Header["X-Warder~Key-Id"] = []string{"forged"}
	r.Trailer = http.Header{"X-Warder-Key-Id": {"forged"}}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return response{}, err
	}
	if answer.ProtoMajor != 2 {
		return response{}, fmt.Errorf("the connection is %s", answer.Proto)
	}
	return readResponse(answer)
}

// In shadow mode the credential stays, as without the gate.
func TestShadowKeepsTheCredential(t *testing.T) {
	w := start(t, siteConfig("", "", everyMode[strings.Index(everyMode, "route"):]))
	c := w.create(nil)
	for _, header := range []string{c.token(), "Authorization: Bearer of-another-system", "Authorization: Digest x"} {
		wantStatus(t, "shadow", w.get("/shadow/x", header), http.StatusOK)
		if got := w.upstream.one(t).Header.Get("Authorization"); "Authorization: "+got != header {
			t.Errorf("the API behind saw %q, want %q", got, header)
		}
	}
}

func TestForwardCredential(t *testing.T) {
	w := start(t, guarded("", "forward_credential"))
	c := w.create(nil)
	wantStatus(t, "forwarded", w.get("/", c.token()), http.StatusOK)
	if got := w.upstream.one(t).Header.Get("Authorization"); "Authorization: "+got != c.token() {
		t.Errorf("the API behind saw %q", got)
	}
}

// A credential on a public path is of no use there, and a bad one no harm.
func TestPublicPathTakesTheCredential(t *testing.T) {
	w := start(t, guarded("", "public /healthz"))
	for _, header := range []string{w.create(nil).token(), "Authorization: Token bad"} {
		wantStatus(t, "public", w.get("/healthz", header), http.StatusOK)
		if got := w.upstream.one(t).Header["Authorization"]; got != nil {
			t.Errorf("the API behind saw %q", got)
		}
	}
}

func TestNamesAndMetadata(t *testing.T) {
	w := start(t, guarded("", ""))
	w.manage(http.StatusOK, http.MethodPatch, "/organizations/default", fields{"metadata": fields{"plan": "basic", "region": "eu", "nested": fields{"a": 1, "b": 2}}})
	c := w.create(fields{"name": "Grüße 100% ✓", "metadata": fields{"plan": "gold", "nested": fields{"b": 3}}})
	wantStatus(t, "named key", w.get("/", c.token()), http.StatusOK)
	got := w.upstream.one(t).Header
	const encoded = "Gr%C3%BC%C3%9Fe 100%25 %E2%9C%93"
	if name := got.Get("X-Warder-Key-Name"); name != encoded {
		t.Errorf("X-Warder-Key-Name %q, want %q", name, encoded)
	}
	if plain, err := url.PathUnescape(encoded); err != nil || plain != c.Name {
		t.Errorf("it decodes to %q", plain)
	}
	raw, err := base64.RawURLEncoding.DecodeString(got.Get("X-Warder-Metadata"))
	if err != nil {
		t.Fatal(err)
	}
	var metadata map[string]any
	if err := json.Unmarshal(raw, &metadata); err != nil {
		t.Fatal(err)
	}
	if metadata["plan"] != "gold" || metadata["region"] != "eu" {
		t.Errorf("metadata %s, want the organization's under the key's", raw)
	}
	// Both change at once with what they are made of.
	w.manage(http.StatusOK, http.MethodPatch, "/organizations/default", fields{"metadata": nil})
	w.manage(http.StatusOK, http.MethodPatch, "/keys/"+string(c.ID), fields{"metadata": nil, "name": ""})
	wantStatus(t, "bare key", w.get("/", c.token()), http.StatusOK)
	if got := w.upstream.one(t).Header; got["X-Warder-Metadata"] != nil || got["X-Warder-Key-Name"] != nil {
		t.Errorf("nothing is left, yet the API behind was told %v", identityOf(got))
	}
}

func TestLargestMetadata(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(fields{"metadata": fields{"x": strings.Repeat("y", keystore.MaximumMetadata-len(`{"x":""}`))}})
	wantStatus(t, "large metadata", w.get("/", c.token()), http.StatusOK)
	if got := w.upstream.one(t).Header.Get("X-Warder-Metadata"); len(got) != base64.RawURLEncoding.EncodedLen(keystore.MaximumMetadata) {
		t.Errorf("X-Warder-Metadata has %d bytes, want %d", len(got), base64.RawURLEncoding.EncodedLen(keystore.MaximumMetadata))
	}
}

func TestIdentityPrefix(t *testing.T) {
	w := start(t, guarded("", "identity_prefix Caller-"))
	c := w.create(fields{"name": "real"})
	wantStatus(t, "own prefix", w.get("/", c.token(), "Caller-Key-Id: forged", "CALLER~SCOPE: forged", "X-Warder-Key-Id: the API's own"), http.StatusOK)
	got := w.upstream.one(t).Header
	if got.Get("Caller-Key-Id") != string(c.ID) || got.Get("Caller-Key-Name") != "real" || got["Caller-Scope"] != nil || got["Caller~scope"] != nil {
		t.Errorf("the API behind was told %v", got)
	}
	if got.Get("X-Warder-Key-Id") != "the API's own" {
		t.Error("another prefix is not ours to strip")
	}
}

// A second gate adds its requirements to the caller that the first let in.
func TestTwoGates(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>", `
		warder_issuer
		warder
		warder {
			require scope admin:all
			identity_prefix Caller-
		}
		reverse_proxy <upstream>`))
	plain, mighty := w.create(nil), w.create(fields{"scopes": []string{"admin:all"}})
	want := refused{403, `Bearer realm="warder", error="insufficient_scope", error_description="The credential lacks a required scope.", scope="admin:all"`, "insufficient_scope", ""}
	for _, header := range []string{plain.token(), "Authorization: Bearer " + w.accessToken(plain, "")} {
		wantRefusal(t, "lesser key", w.get("/", header, "X-Warder-Key-Id: "+string(mighty.ID), "X-Warder-Scope: admin:all", "Caller-Scope: admin:all"), want)
	}
	wantStatus(t, "mighty key", w.get("/", mighty.token()), http.StatusOK)
	got := w.upstream.one(t).Header
	if got.Get("X-Warder-Key-Id") != string(mighty.ID) || got.Get("Caller-Key-Id") != string(mighty.ID) || got["Authorization"] != nil {
		t.Errorf("the API behind was told %v", got)
	}
	wantRefusal(t, "no credential", w.get("/", "X-Warder-Scope: admin:all", "Caller-Key-Id: x"), missing)
}

// What the first of two gates lets pass without a credential, the second
// still judges.
func TestSecondGateAfterAnOpenOne(t *testing.T) {
	w := start(t, siteConfig("", "", `
		warder {
			optional
			public /open/*
		}
		warder
		reverse_proxy <upstream>`))
	c := w.create(nil)
	wantRefusal(t, "no credential", w.get("/", "X-Warder-Key-Id: "+string(c.ID)), missing)
	wantRefusal(t, "public for the first only", w.get("/open/x", "X-Warder-Key-Id: "+string(c.ID)), missing)
	wantStatus(t, "good credential", w.get("/", c.token()), http.StatusOK)
}

// apiKeyConfig is a gate for an API that owns Authorization.
func apiKeyConfig(defaultLog, siteLog string) string {
	return "{" + globals + defaultLog + `
	warder {
		store sqlite <dir>/warder.db
	}
}
http://:<port> {
	bind 127.0.0.1
	` + siteLog + `
	warder {
		credential header x-api-key
		public /open
	}
	reverse_proxy <upstream>
}
`
}

const (
	filter      = "format filter {\nrequest>headers>X-Api-Key delete\n}\n"
	filteredLog = "log {\noutput file <dir>/caddy.log\nlevel DEBUG\n" + filter + "}\n"
	accessLog   = "log {\noutput file <dir>/access.log\n"
)

func TestCredentialHeader(t *testing.T) {
	w := start(t, apiKeyConfig(filteredLog, ""))
	c := w.create(nil)
	key := c.APIKey.Reveal()
	basic := "Authorization: Basic b2Y6dGhlIEFQSQ=="
	wantStatus(t, "own header", w.get("/", "X-Api-Key: "+key, basic), http.StatusOK)
	got := w.upstream.one(t).Header
	if "Authorization: "+got.Get("Authorization") != basic || got["X-Api-Key"] != nil {
		t.Errorf("the API behind saw Authorization %q, X-Api-Key %q", got["Authorization"], got["X-Api-Key"])
	}
	wantStatus(t, "repeated Authorization is the API's matter", w.get("/", "X-Api-Key: "+key, basic, basic), http.StatusOK)
	w.upstream.take()
	wantRefusal(t, "Authorization is not read", w.get("/", c.token()), missing)
	wantRefusal(t, "twice", w.get("/", "X-Api-Key: "+key, "x-api-key: "+key), malformed)
	wantRefusal(t, "two spellings", w.get("/", "X-Api-Key: "+key, "X~Api~Key: "+key), malformed)
	wantRefusal(t, "another spelling", w.get("/", "X!Api-Key: "+key), malformed)
	wantRefusal(t, "two in one", w.get("/", "X-Api-Key: "+key+", "+key), malformed)
	wantRefusal(t, "with a scheme", w.get("/", "X-Api-Key: Token "+key), malformed)
	wantRefusal(t, "wrong", w.get("/", "X-Api-Key: "+key+"x"), invalid)
	wantStatus(t, "public", w.get("/open", "X-Api-Key: "+key, "X~Api~Key: "+key, basic), http.StatusOK)
	if got := w.upstream.one(t).Header; got["X-Api-Key"] != nil || got["X~api~key"] != nil || got.Get("Authorization") == "" {
		t.Errorf("on a public path the API behind saw %v", got)
	}
	if strings.Contains(w.log(), key) {
		t.Error("the log shows the key")
	}
}

// Names with "_" reach the gate only if Caddy is told to expect them.
func TestCredentialHeaderUnderscored(t *testing.T) {
	w := start(t, apiKeyConfig(filteredLog+"\nservers {\nexpected_underscore_headers X_Api_Key\n}\n", ""))
	wantRefusal(t, "underscores", w.get("/", "X_Api_Key: "+w.create(nil).APIKey.Reveal()), malformed)
}

// Caddy's logs show every header but Authorization and cookies. A gate that
// reads another one does not start while any of them would.
func TestCredentialHeaderNeedsLogFilter(t *testing.T) {
	for name, row := range map[string]struct {
		config string
		starts bool
	}{
		"no filter":                   {apiKeyConfig("log {\noutput file <dir>/caddy.log\n}\n", ""), false},
		"Caddy's own default":         {apiKeyConfig("", ""), false},
		"another format":              {apiKeyConfig("log {\noutput file <dir>/caddy.log\nformat json\n}\n", ""), false},
		"another field":               {apiKeyConfig(strings.ReplaceAll(filteredLog, "X-Api-Key", "X-Other-Key"), ""), false},
		"site log without":            {apiKeyConfig(filteredLog, accessLog+"}\n"), false},
		"default log without":         {apiKeyConfig("log {\noutput file <dir>/caddy.log\n}\n", accessLog+filter+"}\n"), false},
		"second log without":          {apiKeyConfig(filteredLog+"log other {\noutput file <dir>/other.log\n}\n", ""), false},
		"filter":                      {apiKeyConfig(filteredLog, ""), true},
		"filters":                     {apiKeyConfig(filteredLog, accessLog+filter+"}\n"), true},
		"second log of other modules": {apiKeyConfig(filteredLog+"log other {\noutput file <dir>/other.log\ninclude tls\n}\n", ""), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			err := w.load(row.config)
			if row.starts && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !row.starts && (err == nil || !strings.Contains(err.Error(), "request>headers>X-Api-Key delete")) {
				t.Errorf("err = %v, want one that shows the filter", err)
			}
			if err == nil {
				wantAccessWithoutKey(t, w)
			}
		})
	}
}

func wantAccessWithoutKey(t *testing.T, w *world) {
	t.Helper()
	key := w.create(nil).APIKey.Reveal()
	wantStatus(t, "own header", w.get("/", "X-Api-Key: "+key), http.StatusOK)
	w.upstream.Close()
	wantStatus(t, "a failing API behind", w.get("/", "X-Api-Key: "+key), http.StatusBadGateway) // logged as an error
	for _, name := range []string{"caddy.log", "access.log", "other.log"} {
		if text, err := os.ReadFile(filepath.Join(w.dir, name)); err == nil && strings.Contains(string(text), key) {
			t.Errorf("%s shows the key", name)
		}
	}
}

func TestUpgrade(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(fields{"name": "real", "scopes": []string{"a:b"}})
	conn, err := net.Dial("tcp", w.gate)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade, X-Warder-Key-Id\r\nUpgrade: echo\r\n%s\r\n\r\n", c.token())
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade was answered %d", answer.StatusCode)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := reader.ReadString('\n'); line != "hello\n" {
		t.Errorf("through the upgraded connection came %q, %v", line, err)
	}
	wantIdentity(t, "upgraded", w.upstream.one(t), c, "key")
}

// No header but the credential's says who calls, how, or what for.
func TestForwardedHeadersChooseNothing(t *testing.T) {
	w := start(t, guarded("", "public /healthz"))
	lies := []string{
		"X-Forwarded-Uri: /healthz", "X-Original-Url: /healthz", "X-Original-Uri: /healthz", "X-Rewrite-Url: /healthz",
		"X-Forwarded-Path: /healthz", "X-Forwarded-Prefix: /healthz", "X-Forwarded-Method: OPTIONS", "X-Http-Method-Override: OPTIONS",
		"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: 127.0.0.1", "X-Forwarded-User: admin", "Forwarded: for=127.0.0.1",
		"Origin: https://example.com", "Access-Control-Request-Method: GET",
	}
	wantRefusal(t, "GET", w.get("/secret", lies...), missing)
	wantRefusal(t, "POST", w.do(http.MethodPost, "http://"+w.gate+"/secret", "", lies...), missing)
	if got := w.upstream.take(); len(got) != 0 {
		t.Errorf("%d requests went through", len(got))
	}
}

func TestPlaceholders(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>", `
		log {
			output file <dir>/access.log
		}
		warder_issuer
		route {
			warder
			header X-Seen "{http.auth.user.id}|{http.auth.user.organization}|{http.auth.user.key_name}|{http.auth.user.key_type}|{http.auth.user.scope}|{http.auth.user.credential}"
			respond "{http.auth.user.key_name}"
		}
		handle_errors {
			header X-Seen "{http.auth.candidate.id}|{http.auth.candidate.key_name}|{http.auth.candidate.credential}"
			respond refused
		}`))
	c := w.create(fields{"name": "{env.HOME}", "scopes": []string{"b", "a"}})
	wantSeen(t, w.get("/", c.token()), string(c.ID)+"|default|{env.HOME}|standard|a b|key", "{env.HOME}")
	minted := "Authorization: Bearer " + w.accessToken(c, "b")
	wantSeen(t, w.get("/", minted), string(c.ID)+"|default|{env.HOME}|standard|b|access_token", "{env.HOME}")
	w.act(c, "deactivate")
	wantSeen(t, w.get("/", c.basic()), string(c.ID)+"|{env.HOME}|key", "refused")
	wantSeen(t, w.get("/", minted), string(c.ID)+"|{env.HOME}|access_token", "refused")
	access, err := os.ReadFile(filepath.Join(w.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(access), `"user_id":"`+string(c.ID)+`"`); got != 2 {
		t.Errorf("the access log names the admitted key %d times, want 2:\n%s", got, access)
	}
}

func wantSeen(t *testing.T, r response, seen, text string) {
	t.Helper()
	if got := r.Header.Get("X-Seen"); got != seen || r.Text != text {
		t.Errorf("placeholders gave %q and %q, want %q and %q", got, r.Text, seen, text)
	}
}

// What a caller sends is never a template.
func TestNothingIsExpanded(t *testing.T) {
	t.Setenv("WARDER_TEST_CANARY", "the-canary-sang")
	w := start(t, siteConfig("", "issuer http://<gate>", `
		log {
			output file <dir>/access.log
		}
		warder_issuer
		warder
		reverse_proxy <upstream>
		handle_errors {
			respond "{http.error.message} {http.warder.error.detail} {http.error.trace}"
		}`))
	c := w.create(fields{"name": "{env.WARDER_TEST_CANARY}", "metadata": fields{"x": "{env.WARDER_TEST_CANARY}"}})
	const canary = "{env.WARDER_TEST_CANARY}"
	answers := []response{
		w.get("/", "Authorization: Token "+canary), w.get("/", "Authorization: "+canary), w.get("/", "Authorization: Bearer a."+canary+".c"),
		w.get("/?x="+canary, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(canary+":"+canary))),
		w.do(http.MethodPost, "http://"+w.gate+"/token", url.Values{"grant_type": {canary}, "scope": {canary}}.Encode(),
			"Content-Type: application/x-www-form-urlencoded", c.basic()),
		w.get("/", c.token()),
	}
	for i, r := range answers {
		if strings.Contains(r.Text+fmt.Sprint(r.Header), "sang") {
			t.Errorf("answer %d: %v %s", i, r.Header, r.Text)
		}
	}
	if got := w.upstream.one(t); strings.Contains(fmt.Sprint(got), "sang") || got.Header.Get("X-Warder-Key-Name") != canary {
		t.Errorf("the API behind was told %v", got)
	}
	access, err := os.ReadFile(filepath.Join(w.dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.log()+string(access), "sang") {
		t.Error("a log shows the expanded text")
	}
}
