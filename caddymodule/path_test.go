package caddymodule

import (
	"context"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

// targetRequest is a request as Go's server makes it; false if it would not.
func targetRequest(target string) (*http.Request, bool) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, false
	}
	return &http.Request{Method: http.MethodGet, URL: u, RequestURI: target}, true
}

func TestNormalise(t *testing.T) {
	for _, row := range []struct {
		target string
		want   string // as the API behind gets it; empty: refused
		rule   string // as rules see it; empty: the same
	}{
		{"/", "/", ""},
		{"/v1", "/v1", ""},
		{"/v1x", "/v1x", ""},
		{"/v1/", "/v1/", ""},
		{"/V1", "/V1", ""},
		{"//v1/x", "/v1/x", ""},
		{"/v1//x///y//", "/v1/x/y/", ""},
		{"//", "/", ""},
		{"/%76%31/%7Ex", "/v1/~x", ""},
		{"/a%20b", "/a%20b", "/a b"},
		{"/%c3%a9", "/%C3%A9", "/é"},
		{"/%C3%a9/%41", "/%C3%A9/A", "/é/A"},
		{"/a;b=c/d", "/a;b=c/d", ""},
		{"/a%3bb", "/a%3Bb", "/a;b"},
		{"/a/...", "/a/...", ""},
		{"/a/.b/..c/d../e.", "/a/.b/..c/d../e.", ""},
		{"/%23", "/%23", "/#"},
		{"/%25", "/%25", "/%"},
		{"/%252e%252e/x", "/%252e%252e/x", "/%2e%2e/x"},
		{"/%252F", "/%252F", "/%2F"},
		{"/%3f", "/%3F", "/?"},
		{"/x?y=//z/../%2f", "/x", ""},
		{"/a:b@c!d$e&f'g(h)i*j+k,l=m", "/a:b@c!d$e&f'g(h)i*j+k,l=m", ""},
		{"http://other.example/v1/%78", "/v1/x", ""},
		{"http://other.example//v1", "/v1", ""},
		{"http://other.example", "/", ""},

		{"/.", "", ""}, {"/..", "", ""}, {"/./v1", "", ""}, {"/v1/../x", "", ""}, {"/v1/..", "", ""}, {"/v1/.", "", ""},
		{"/%2e/v1", "", ""}, {"/v1/%2e%2E/x", "", ""}, {"/v1/.%2e", "", ""},
		{"/v1/..;/x", "", ""}, {"/v1/..;a=b/x", "", ""}, {"/v1/.;x/y", "", ""}, {"/v1/..%3b/x", "", ""}, {"/v1/%2e%2e%3Bx", "", ""},
		{"/v1%2fx", "", ""}, {"/v1%2Fx", "", ""}, {"/%2f%2fx", "", ""}, {"/v1/%2e%2e%2fx", "", ""},
		{"/v1%5cx", "", ""}, {"/v1%5C..%5Cx", "", ""}, {`/v1\x`, "", ""}, {`/\x`, "", ""},
		{"/%00", "", ""}, {"/v1%00.json", "", ""}, {"/%0d%0aX:y", "", ""}, {"/%7f", "", ""}, {"/%09", "", ""},
		{"/v1#x", "", ""}, {"/v1#/../x", "", ""}, {"/v1?x#y", "", ""},
		{"http:v1", "", ""}, {"*", "", ""},
	} {
		r, ok := targetRequest(row.target)
		if !ok {
			if row.want != "" {
				t.Errorf("%s: no request", row.target)
			}
			continue
		}
		err := normalise(r, false)
		if row.want == "" {
			if err != errPath {
				t.Errorf("%s: %v, %s; want a refusal", row.target, err, r.URL.EscapedPath())
			}
			continue
		}
		if row.rule == "" {
			row.rule = row.want
		}
		if got := r.URL.EscapedPath(); err != nil || got != row.want || rulePath(r) != row.rule {
			t.Errorf("%s: %v, path %q, rules see %q; want %q and %q", row.target, err, got, rulePath(r), row.want, row.rule)
		}
	}
}

// With allow_encoded_slash an encoded slash is a character like any other: it
// separates nothing, and everything else stays forbidden.
func TestNormaliseEncodedSlash(t *testing.T) {
	for _, row := range []struct{ target, want, rule string }{
		{"/files/a%2fb", "/files/a%2Fb", "/files/a%2Fb"},
		{"/files%2fa", "/files%2Fa", "/files%2Fa"},
		{"/%2f%2F//x", "/%2F%2F/x", "/%2F%2F/x"},
		{"/a%2f/b%20c", "/a%2F/b%20c", "/a%2F/b c"},
		{"/a/..%2fb", "", ""}, {"/a%2f../b", "", ""}, {"/a%2f%2e%2e%2fb", "", ""}, {"/a%2f..", "", ""}, {"/a%2f.%3bx", "", ""},
		{"/a%5cb", "", ""}, {"/a%2fb%00", "", ""},
	} {
		r, ok := targetRequest(row.target)
		if !ok {
			t.Fatalf("%s: no request", row.target)
		}
		err := normalise(r, true)
		if row.want == "" {
			if err != errPath {
				t.Errorf("%s: %v, want a refusal", row.target, err)
			}
			continue
		}
		if got := r.URL.EscapedPath(); err != nil || got != row.want || rulePath(r) != row.rule {
			t.Errorf("%s: %v, path %q, rules see %q; want %q and %q", row.target, err, got, rulePath(r), row.want, row.rule)
		}
	}
}

// FuzzNormalise: whatever is accepted has one meaning, here and behind.
func FuzzNormalise(f *testing.F) {
	for _, seed := range []string{
		"/", "//v1/x", "/%2e%2e/x", "/a%2fb", "/a%5cb", `/a\b`, "/a/..;/b", "/.;x", "/#", "/%00", "/%23", "/%25", "/%252e", "/%c0%ae%c0%ae/x",
		"http://h//x", "/a%2f/%2e", "/%2", "/\xff", "/[a]", "/a\"b", "/%7e%41", "*", "http://h",
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, target string, allowEncodedSlash bool) {
		r, ok := targetRequest(target)
		if !ok {
			return
		}
		came := *r.URL
		if came.Path == "" {
			came.Path = "/" // "GET http://host"
		}
		if normalise(r, allowEncodedSlash) != nil {
			return
		}
		checkNormal(t, &came, r, allowEncodedSlash)
	})
}

func checkNormal(t *testing.T, came *url.URL, r *http.Request, allowEncodedSlash bool) {
	t.Helper()
	rule := rulePath(r)
	for segment := range strings.SplitSeq(strings.ReplaceAll(r.URL.Path, ";", "/;"), "/") {
		if segment == "." || segment == ".." {
			t.Errorf("%q: dot segment in %q", r.RequestURI, r.URL.Path)
		}
	}
	if rule[0] != '/' || strings.Contains(rule, "//") || strings.ContainsAny(rule, "\\\x00\r\n\t\x7f") {
		t.Errorf("%q: rules see %q", r.RequestURI, rule)
	}
	encoded := strings.Contains(strings.ToUpper(r.URL.EscapedPath()), "%2F")
	if encoded && !allowEncodedSlash {
		t.Errorf("%q: an encoded slash in %q", r.RequestURI, r.URL.EscapedPath())
	}
	if !encoded && (rule != r.URL.Path || r.URL.Path != mergeSlashes(came.Path)) {
		t.Errorf("%q: %q became %q, and rules see %q", r.RequestURI, came.Path, r.URL.Path, rule)
	}
	behind, err := url.ParseRequestURI(r.URL.EscapedPath())
	if err != nil || behind.Path != r.URL.Path || behind.EscapedPath() != r.URL.EscapedPath() {
		t.Errorf("%q: the API behind reads %+v, %v; here it is %q", r.RequestURI, behind, err, r.URL.Path)
	}
	again := *r.URL
	if err := normaliseURL(&again, allowEncodedSlash); err != nil || again != *r.URL {
		t.Errorf("%q: the normal form %q is not its own: %v, %q", r.RequestURI, r.URL.EscapedPath(), err, again.EscapedPath())
	}
}

// What the operator names as public is what is public.
func TestPublicPatterns(t *testing.T) {
	for _, row := range []struct {
		pattern string
		matches []string
		not     []string
	}{
		{"/", []string{"/"}, []string{"/x", ""}},
		{"/*", []string{"/", "/x", "/x/y"}, nil},
		{"/healthz", []string{"/healthz"}, []string{"/healthz/", "/healthzx", "/Healthz", "/", "/x/healthz"}},
		{"/docs/*", []string{"/docs/", "/docs/a", "/docs/a/b"}, []string{"/docs", "/docsx", "/docs%2Fa", "/Docs/a", "/x/docs/a"}},
		{"/.well-known/*", []string{"/.well-known/x"}, []string{"/.well-known"}},
		{"/v1/*/items", []string{"/v1/a/items", "/v1/*/items"}, []string{"/v1//items", "/v1/items", "/v1/a/b/items", "/v1/a/items/", "/v1/a/items/x", "/v2/a/items"}},
		{"/v1/*/items/*", []string{"/v1/a/items/", "/v1/a/items/x", "/v1/a/items/x/y"}, []string{"/v1/a/items", "/v1/a/b/items/x", "/v1//items/x"}},
		{"/*/x", []string{"/a/x"}, []string{"//x", "/x", "/a/b/x", "/a/x/"}},
	} {
		p, ok := keystore.ParsePathPattern(row.pattern)
		if !ok {
			t.Errorf("%s is no pattern", row.pattern)
		}
		if p.String() != row.pattern {
			t.Errorf("%s says of itself that it is %s", row.pattern, p)
		}
		for _, path := range row.matches {
			if !p.Matches(path) {
				t.Errorf("%s does not match %s", row.pattern, path)
			}
		}
		for _, path := range row.not {
			if p.Matches(path) {
				t.Errorf("%s matches %s", row.pattern, path)
			}
		}
	}
	for _, bad := range []string{
		"", "healthz", "*", "/docs*", "/docs/**", "/a*/x", "/a//b", "//", "/a/../b", "/.", "/..", "/a/./*", "/..;/x",
		`/a\b`, "/a%20b", "/a?b", "/a#b", "/a\x00", "/a//*",
	} {
		if _, ok := keystore.ParsePathPattern(bad); ok {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
}

func TestEmptyPublicPatternList(t *testing.T) {
	h := new(Handler)
	if h.passesWithoutCredential(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}}) {
		t.Error("nothing is public, yet / passes")
	}
}

// What rules saw is what the API behind sees, byte for byte.
func TestPathsReachTheAPIAsRulesSawThem(t *testing.T) {
	w := start(t, guarded("", "public /open/* /exact"))
	header := w.create(nil).token()
	for _, row := range []struct {
		target string
		public string // what the API behind gets without a credential; empty: refused for want of one
		behind string // what it gets with one; empty: refused altogether
	}{
		{"/open/x", "/open/x", "/open/x"},
		{"//open/x", "/open/x", "/open/x"},
		{"/open//x", "/open/x", "/open/x"},
		{"/%6fpen/x", "/open/x", "/open/x"},
		{"/open/%2578?q=//a%2fb", "/open/%2578?q=//a%2fb", "/open/%2578?q=//a%2fb"},
		{"/open", "", "/open"},
		{"/openx", "", "/openx"},
		{"/OPEN/x", "", "/OPEN/x"},
		{"/open;a/x", "", "/open;a/x"},
		{"/open%3b/x", "", "/open%3B/x"},
		{"/exact", "/exact", "/exact"},
		{"/exact/", "", "/exact/"},
		{"/exact%20", "", "/exact%20"},
		{"/secret?/open/x", "", "/secret?/open/x"},
		{"http://other.example/open/x", "/open/x", "/open/x"},
		{"http://other.example/secret", "", "/secret"},
		{"/open/../secret", "", ""},
		{"/open/%2e%2e/secret", "", ""},
		{"/open/..;/secret", "", ""},
		{"/open/..%2fsecret", "", ""},
		{"/open%2fx", "", ""},
		{`/open/..\secret`, "", ""},
		{"/open/..%5csecret", "", ""},
		{"/open/x#/../secret", "", ""},
		{"/open/%00", "", ""},
		{"http://other.example", "", "/"},
	} {
		public, private := w.rawGet(row.target), w.rawGet(row.target, header)
		switch {
		case row.behind == "":
			wantRefusal(t, row.target, public, ambiguous)
			wantRefusal(t, row.target, private, ambiguous)
			wantBehind(t, w, row.target)
		case row.public == "":
			wantRefusal(t, row.target, public, missing)
			wantBehind(t, w, row.target, row.behind)
		default:
			wantBehind(t, w, row.target, row.public, row.behind)
		}
	}
}

func wantBehind(t *testing.T, w *world, target string, want ...string) {
	t.Helper()
	var got []string
	for _, r := range w.upstream.take() {
		got = append(got, r.URI)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s: the API behind got %q, want %q", target, got, want)
	}
}

// Targets without a path never get through.
func TestTargetsWithoutPath(t *testing.T) {
	w := start(t, guarded("", "public /*"))
	header := w.create(nil).token()
	for _, first := range []string{"OPTIONS * HTTP/1.1", "CONNECT other.example:443 HTTP/1.1", "CONNECT / HTTP/1.1", "GET * HTTP/1.1", "GET other.example:80 HTTP/1.1"} {
		w.raw(first + "\r\nHost: other.example\r\nConnection: close\r\n" + header + "\r\n\r\n")
		for _, r := range w.upstream.take() {
			if !strings.HasPrefix(r.URI, "/") {
				t.Errorf("%s: the API behind got %s", first, r.URI)
			}
		}
	}
}

func TestAllowEncodedSlash(t *testing.T) {
	w := start(t, guarded("", "allow_encoded_slash\npublic /open/*"))
	header := w.create(nil).token()
	wantStatus(t, "encoded slash", w.rawGet("/files/a%2fb", header), http.StatusOK)
	wantBehind(t, w, "/files/a%2fb", "/files/a%2Fb")
	wantStatus(t, "below a public path", w.rawGet("/open/a%2fb"), http.StatusOK)
	wantBehind(t, w, "/open/a%2fb", "/open/a%2Fb")
	wantRefusal(t, "is no separator", w.rawGet("/open%2fx"), missing)
	wantRefusal(t, "dot segments", w.rawGet("/open/..%2fsecret"), ambiguous)
}

// The gate under Caddyfile.example itself, but for ports and places.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	api := freeAddress(t)
	w := start(t, strings.NewReplacer(
		"\n{\n", "\n{\n"+globals+quietLog, ":8080", ":<port>", "data/warder.db", "<dir>/warder.db",
		"127.0.0.1:9000", api, ":9000", ":"+portOf(api),
	).Replace(string(text)))
	good := w.create(fields{"name": "demo", "scopes": []string{"hello:read"}})
	weak := w.create(fields{"name": "weak"})
	for _, row := range []struct{ target, path string }{
		{"/v1", "/v1"}, {"/v1x", "/v1x"}, {"/", "/"}, {"//v1/x", "/v1/x"}, {"/v1/%78", "/v1/x"}, {"/V1", "/V1"}, {"/v1;x/y", "/v1;x/y"},
		{"/v1/%2e%2e/x", ""}, {"/v1/../x", ""}, {"/v1%2fx", ""}, {`/v1\x`, ""}, {"/v1/..;/x", ""}, {"/v1/%00", ""}, {"/v1/x#y", ""}, {"/./v1", ""},
		{"/healthz/../v1", ""}, {"/healthz/%2e%2e/v1", ""}, {"/healthz%2f..%2fv1", ""},
	} {
		none, lacking, passing := w.rawGet(row.target), w.rawGet(row.target, weak.token()), w.rawGet(row.target, good.token())
		if row.path == "" {
			wantRefusal(t, row.target, none, ambiguous)
			wantRefusal(t, row.target, passing, ambiguous)
			continue
		}
		wantRefusal(t, row.target, none, missing)
		wantStatus(t, row.target, lacking, http.StatusForbidden)
		wantStatus(t, row.target, passing, http.StatusOK)
		if !strings.Contains(passing.Text, "at "+row.path+"\n") || !strings.Contains(passing.Text, "X-Warder-Key-Id: "+string(good.ID)+"\n") ||
			!strings.Contains(passing.Text, "Authorization: \n") {
			t.Errorf("%s: the demo API wrote %s", row.target, passing.Text)
		}
	}
	for _, target := range []string{"/healthz", "//healthz", "/%68ealthz"} {
		r := w.rawGet(target, forgeries[0], good.token())
		wantStatus(t, target, r, http.StatusOK)
		if !strings.Contains(r.Text, "X-Warder-Key-Id: \n") || !strings.Contains(r.Text, "Authorization: \n") || !strings.Contains(r.Text, "at /healthz\n") {
			t.Errorf("%s: the demo API wrote %s", target, r.Text)
		}
	}
	for _, target := range []string{"/healthz/", "/healthzx", "/Healthz", "/healthz;x"} {
		wantRefusal(t, target, w.rawGet(target), missing)
	}
	wantStatus(t, "an access token", w.rawGet("/v1/hello", "Authorization: Bearer "+w.accessToken(good, "")), http.StatusOK)
}

// Rewrites and handle_path come before the gate: rules see their result.
func TestRewritesComeFirst(t *testing.T) {
	w := start(t, siteConfig("", "", `
		uri strip_prefix /gone
		rewrite /old/* /new{uri}
		handle_path /api/* {
			warder {
				public /open
			}
			reverse_proxy <upstream>
		}
		handle {
			warder {
				public /open /new/*
			}
			reverse_proxy <upstream>
		}`))
	for _, row := range []struct{ target, behind string }{
		{"/api/open", "/open"}, {"/api//open", "/open"}, {"/gone/open", "/open"}, {"/old/x", "/new/old/x"},
		{"/api/secret", ""}, {"/api/open/x", ""}, {"/gone/secret", ""}, {"/api/", ""}, {"/gone", ""},
	} {
		if r := w.rawGet(row.target); row.behind == "" {
			wantRefusal(t, row.target, r, missing)
			wantBehind(t, w, row.target)
		} else {
			wantStatus(t, row.target, r, http.StatusOK)
			wantBehind(t, w, row.target, row.behind)
		}
	}
	for _, target := range []string{"/api/../secret", "/api/open/../secret", "/old/../secret", "/gone/../secret", "/gone%2f..%2fsecret"} {
		if r := w.rawGet(target); r.StatusCode < 400 {
			t.Errorf("%s: %d", target, r.StatusCode)
		}
		wantBehind(t, w, target)
	}
}

// FastCGI tells applications the URI before all rewrites.
func TestFastCGISeesWhatRulesSaw(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	told := make(chan string, 1)
	go func() {
		_ = fcgi.Serve(listener, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told <- r.URL.RequestURI() }))
	}()
	w := start(t, siteConfig("", "", `
		warder {
			public /open/*
		}
		reverse_proxy `+listener.Addr().String()+` {
			transport fastcgi
		}`))
	for target, want := range map[string]string{"//open/secret": "/open/secret", "/%6Fpen/secret?q=%41": "/open/secret?q=%41", "/open/a%20b": "/open/a%20b"} {
		wantStatus(t, target, w.rawGet(target), http.StatusOK)
		if got := <-told; got != want {
			t.Errorf("%s: the application was told %s, want %s", target, got, want)
		}
	}
}

// The original URI is judged as well: a rewrite does not launder it.
func TestNormaliseOriginal(t *testing.T) {
	original, _ := targetRequest("/a/../secret")
	r, _ := targetRequest("/index")
	r = r.WithContext(context.WithValue(context.Background(), caddyhttp.OriginalRequestCtxKey, *original))
	if err := normalise(r, false); err != errPath {
		t.Errorf("%v, want a refusal", err)
	}
}
