package managementapi

import (
	"crypto/tls"
	"net/http/httptest"
	"strings"
	"testing"
)

// What a browser sends for another site is refused on every route, before
// anything else is looked at.
func TestForeignOriginOnEveryRoute(t *testing.T) {
	g := newRig(t)
	host := strings.TrimPrefix(g.url, "http://")
	id := string(g.make(`{"expires_in_days":3}`).ID)
	foreign := [][2]string{
		{"Origin", "http://evil.example"}, {"Origin", "null"}, {"Origin", ""}, {"Origin", "http://" + host + ".evil.example"},
		{"Origin", "http://" + host + "@evil.example"}, {"Origin", "http://" + host + "/"}, {"Origin", "file://"}, {"Origin", host},
		{"Origin", "ftp://" + host}, {"Origin", "http://127.0.0.1"}, {"Origin", "http://user@" + host},
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", ""}, {"Sec-Fetch-Site", "Same-Origin"},
	}
	for _, rt := range routes {
		path := strings.NewReplacer("{id}", id, "{slug}", "default", "/{$}", "/").Replace(rt.pattern)
		for _, h := range foreign {
			g.send(rt.method, path, "", h[0], h[1]).refused(403, "cross_origin", "")
		}
	}
	g.send("GET", "/nothing", "", "Origin", "http://evil.example").refused(403, "cross_origin", "")
	g.send("OPTIONS", "/keys", "", "Origin", "http://evil.example").refused(403, "cross_origin", "")
	g.send("GET", "/keys", "", "Origin", "http://"+host, "Origin", "http://evil.example").refused(403, "cross_origin", "")
	for _, h := range [][2]string{{"Origin", "http://" + host}, {"Origin", "HTTP://" + strings.ToUpper(host)}, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"}} {
		if r := g.send("GET", "/keys", "", h[0], h[1]); r.status != 200 {
			t.Errorf("%v: %s", h, r.raw)
		}
	}
	for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
		if r := g.send("GET", "/keys", "", "Origin", "http://"+host); r.header.Get(name) != "" {
			t.Errorf("%s: %s", name, r.header.Get(name))
		}
	}
}

func TestOriginUnderTLS(t *testing.T) {
	r := httptest.NewRequest("GET", "https://warder.example/v1/keys", nil)
	r.TLS = new(tls.ConnectionState)
	r.Header.Set("Origin", "http://warder.example")
	if CheckOrigin(r) == nil {
		t.Error("a page loaded without TLS is another origin")
	}
	r.Header.Set("Origin", "https://warder.example")
	if err := CheckOrigin(r); err != nil {
		t.Error(err)
	}
	r.TLS = nil // a proxy in front has ended it
	if err := CheckOrigin(r); err != nil {
		t.Error(err)
	}
}
