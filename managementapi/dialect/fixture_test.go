package dialect

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
	"github.com/warderhq/warder/managementapi/dialect/dialecttest"
	"github.com/warderhq/warder/tokenissuer"
)

// rig is the four dialects over one real store, served over real HTTP, whose
// callers present real credentials.
type rig struct {
	t        *testing.T
	url      string
	service  *keystore.Service
	store    *sqlite.Store
	keyring  *tokenissuer.Keyring
	issuer   *tokenissuer.Issuer
	rotation *tokenissuer.Rotation
	config   Config
	stop     func() // ends the follower: what is committed does not come into force

	identify     func(*http.Request, string) (keystore.Caller, error)
	authenticate func(*http.Request, keystore.Presented) (keystore.Principal, error)

	mu     sync.Mutex // guards logged
	logged []string
}

// The prefixes of the mounts.
const (
	cloudflareBase = "/client/v4"
	f5xcBase       = "/api/v1/api/production/us-east-1/namespaces/default"
	lyveBase       = "/v2"
	ricloudBase    = ""
)

func newRig(t *testing.T) *rig {
	t.Helper()
	n := dialecttest.NewNode(t, LyveTokenLife)
	g := &rig{
		t: t, service: n.Service, store: n.Store, keyring: n.Keyring, issuer: n.Issuer, rotation: n.Rotation,
		identify: n.Identify, authenticate: n.Authenticate, stop: n.Stop,
	}
	g.config = Config{
		Service: g.service, SigningKeys: n.Keyring, Rotation: n.Rotation, Tokens: n.Issuer,
		Identify: g.identify, Authenticate: g.authenticate, Accounts: []string{"default", "acme"}, Log: g.log,
	}
	g.serve()
	return g
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve mounts all four on one site, each where it serves.
func (g *rig) serve() {
	var mounted []*Dialect
	for name, prefix := range map[string]string{"cloudflare": cloudflareBase, "f5xc": f5xcBase, "lyve": lyveBase, "ricloud": ricloudBase} {
		cfg := g.config
		cfg.Prefix = prefix
		d, err := New(name, cfg)
		check(g.t, err)
		mounted = append(mounted, d)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, d := range mounted {
			if d.Serves(r.URL.Path) {
				d.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "no dialect serves this", http.StatusTeapot)
	}))
	g.t.Cleanup(server.Close)
	g.url = server.URL
}

func (g *rig) log(_ *http.Request, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logged = append(g.logged, err.Error())
}

// key makes a key behind the dialects' backs.
func (g *rig) key(in keystore.NewKey) keystore.Issued {
	g.t.Helper()
	issued, err := g.service.CreateKey(context.Background(), keystore.LocalCaller(), in, nil, time.Now())
	check(g.t, err)
	return issued
}

// organization makes one with its first key.
func (g *rig) organization(org keystore.Organization, scopes ...string) keystore.Issued {
	g.t.Helper()
	issued, err := g.service.CreateOrganization(context.Background(), keystore.LocalCaller(), org,
		keystore.NewKey{Name: "first", Scopes: scopes}, nil, time.Now())
	check(g.t, err)
	return issued
}

// passes reports what the gate says to an API key.
func (g *rig) passes(apiKey string) error {
	_, err := g.identify(httptest.NewRequest("GET", "/", nil), "Bearer "+apiKey)
	return err
}

// audit returns operation and refusal of the latest entries, the latest first.
func (g *rig) audit(limit int) (lines []string) {
	g.t.Helper()
	page, err := g.store.Audit(context.Background(), keystore.AuditQuery{Limit: limit})
	check(g.t, err)
	for _, e := range page.Entries {
		lines = append(lines, strings.TrimSuffix(e.Operation+": "+e.Refused, ": "))
	}
	return lines
}

// reply is what came back.
type reply struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	raw    []byte
}

// send makes one call with an Authorization header as given; empty: none.
// Further headers come in pairs.
func (g *rig) send(authorization, method, path, body string, headers ...string) reply {
	g.t.Helper()
	r, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	check(g.t, err)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r) // follows no redirect
	check(g.t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	check(g.t, err)
	got := reply{g.t, method + " " + path + " " + body, response.StatusCode, response.Header, raw}
	got.wellFormed(response)
	return got
}

// wellFormed is what holds for every answer of every dialect.
func (r reply) wellFormed(response *http.Response) {
	r.t.Helper()
	h := r.header
	length := strconv.Itoa(len(r.raw))
	if response.Request.Method == http.MethodHead {
		length = h.Get("Content-Length")
	}
	switch {
	case r.status != 200 && r.status < 400:
		r.t.Errorf("%s: %d", r.what, r.status)
	case h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != length || len(response.TransferEncoding) > 0:
		r.t.Errorf("%s: %v", r.what, h)
	case !strings.Contains(h.Get("Cache-Control"), "no-store") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Encoding") != "":
		r.t.Errorf("%s: %v", r.what, h)
	case len(r.raw) > 0 && !json.Valid(r.raw), r.status != 200 && len(r.raw) == 0 && response.Request.Method != http.MethodHead:
		r.t.Errorf("%s: %q", r.what, r.raw)
	}
}

// into is the answer to a call that has to succeed.
func into[T any](r reply) (v T) {
	r.t.Helper()
	if r.status != http.StatusOK {
		r.t.Fatalf("%s: %d %s", r.what, r.status, r.raw)
	}
	if err := json.Unmarshal(r.raw, &v); err != nil {
		r.t.Fatalf("%s: %v: %s", r.what, err, r.raw)
	}
	return v
}

// empty is a success without a body.
func (r reply) empty() {
	r.t.Helper()
	if r.status != http.StatusOK || len(r.raw) != 0 {
		r.t.Errorf("%s: %d %q", r.what, r.status, r.raw)
	}
}

// is checks a status and a text in the body.
func (r reply) is(status int, contains string) {
	r.t.Helper()
	if r.status != status || !bytes.Contains(r.raw, []byte(contains)) {
		r.t.Errorf("%s: %d %s, want %d with %s", r.what, r.status, r.raw, status, contains)
	}
}

// members are the names of a JSON object, as they stand.
func members(r reply) (names []string) {
	r.t.Helper()
	d := json.NewDecoder(bytes.NewReader(r.raw))
	depth, key := 0, true
	for {
		token, err := d.Token()
		if err != nil {
			return names
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
			key = true
			continue
		case string:
			if depth == 1 && key {
				names = append(names, v)
				key = false
				continue
			}
		}
		key = true
	}
}

// whole reports whether a time is written as all dialects write it.
func whole(text string) bool {
	t, err := time.Parse("2006-01-02T15:04:05Z", text)
	return err == nil && !t.IsZero()
}
