package tokenissuer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warderhq/warder/keystore"
)

const (
	goodAccess  = "3fQx8vLm2TzRk9YpWc1Hd7"
	goodSecret  = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	wrongSecret = "1123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
)

// doorman knows one pair, and answers as told for others.
type doorman struct {
	scopes keystore.Scopes
	errs   map[keystore.AccessKey]error
}

func (d doorman) Authenticate(_ context.Context, p keystore.Presented, _ time.Time) (keystore.Principal, error) {
	who := testPrincipal(d.scopes)
	if err := d.errs[p.Access]; err != nil {
		if errors.Is(err, keystore.ErrInvalid) {
			return keystore.Principal{}, err
		}
		return who, err
	}
	if p.Kind != keystore.CredentialKey || p.Access != goodAccess || p.Secret != goodSecret {
		return keystore.Principal{}, keystore.ErrInvalid
	}
	return who, nil
}

type server struct {
	*httptest.Server
	node      *node
	issuer    *Issuer
	endpoints *Endpoints

	mu       sync.Mutex // guards observed
	observed []Observation
}

func newServer(t testing.TB, issuer IssuerConfig, cfg EndpointsConfig) *server {
	t.Helper()
	s := &server{node: newTestNode(t, nodeOptions{})}
	s.issuer = s.node.issuer(t, issuer)
	cfg.Issuer, cfg.Revocations = s.issuer, s.node.revocations(t, 0)
	if cfg.Authenticator == nil {
		cfg.Authenticator = doorman{scopes: "a:read b:write"}
	}
	cfg.Observe = func(_ context.Context, o Observation) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.observed = append(s.observed, o)
	}
	var err error
	if s.endpoints, err = NewEndpoints(cfg); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(s.endpoints)
	t.Cleanup(s.Close)
	return s
}

func (s *server) lastObservation() Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.observed) == 0 {
		return Observation{}
	}
	return s.observed[len(s.observed)-1]
}

const form, jsonType = "application/x-www-form-urlencoded", "application/json"

type call struct {
	method  string // POST
	target  string // /token
	headers []string
	body    string
}

func basic(access, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(access+":"+secret))
}

func (s *server) do(t testing.TB, c call) (*http.Response, string) {
	t.Helper()
	if c.method == "" {
		c.method = http.MethodPost
	}
	if c.target == "" {
		c.target = "/token"
	}
	req, err := http.NewRequest(c.method, s.URL+c.target, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range c.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestTokenEndpoint(t *testing.T) {
	s := newServer(t, IssuerConfig{}, EndpointsConfig{})
	asForm, asJSON := "Content-Type: "+form, "Content-Type: "+jsonType
	good := "Authorization: " + basic(goodAccess, goodSecret)
	grant := "grant_type=client_credentials"
	inForm := grant + "&client_id=" + goodAccess + "&client_secret=" + goodSecret
	inJSON := `"access_key":"` + goodAccess + `","secret_key":"` + goodSecret + `"`
	wrong := wrongSecret
	for name, c := range map[string]struct {
		call
		status int
		code   string // or the scope granted
	}{
		"Basic":                     {call{headers: []string{asForm, good}, body: grant}, 200, "a:read b:write"},
		"form":                      {call{headers: []string{asForm}, body: inForm}, 200, "a:read b:write"},
		"form, percent-encoded":     {call{headers: []string{asForm}, body: strings.Replace(inForm, "3fQ", "%33f%51", 1)}, 200, "a:read b:write"},
		"JSON":                      {call{headers: []string{asJSON}, body: `{` + inJSON + `}`}, 200, "a:read b:write"},
		"JSON with grant type":      {call{headers: []string{asJSON}, body: `{"grant_type":"client_credentials",` + inJSON + `,"scope":"a:read"}`}, 200, "a:read"},
		"JSON and Basic":            {call{headers: []string{asJSON, good}, body: `{"scope":"b:write"}`}, 200, "b:write"},
		"content type in other way": {call{headers: []string{"Content-Type: Application/X-WWW-Form-URLencoded; charset=UTF-8", good}, body: grant}, 200, "a:read b:write"},
		"scheme in other case":      {call{headers: []string{asForm, "Authorization: bASIC" + basic(goodAccess, goodSecret)[5:]}, body: grant}, 200, "a:read b:write"},
		"narrowed":                  {call{headers: []string{asForm, good}, body: grant + "&scope=b:write"}, 200, "b:write"},
		"narrowed to all":           {call{headers: []string{asForm, good}, body: grant + "&scope=b:write+a:read+b:write"}, 200, "a:read b:write"},
		"empty scope":               {call{headers: []string{asForm, good}, body: grant + "&scope="}, 200, "a:read b:write"},
		"unknown parameter":         {call{headers: []string{asForm, good}, body: grant + "&audience=x&nonce=y"}, 200, "a:read b:write"},

		"a scope not held":            {call{headers: []string{asForm, good}, body: grant + "&scope=a:read+c"}, 400, "invalid_scope"},
		"a greater scope":             {call{headers: []string{asForm, good}, body: grant + "&scope=warder:admin"}, 400, "invalid_scope"},
		"an unknown scope of ours":    {call{headers: []string{asForm, good}, body: grant + "&scope=warder:x"}, 400, "invalid_scope"},
		"a scope with a quote":        {call{headers: []string{asForm, good}, body: grant + "&scope=%22"}, 400, "invalid_scope"},
		"two spaces":                  {call{headers: []string{asForm, good}, body: grant + "&scope=a:read++b:write"}, 400, "invalid_scope"},
		"too many scopes":             {call{headers: []string{asForm, good}, body: grant + "&scope=" + strings.Repeat("a+", 5000)}, 400, "invalid_scope"},
		"no grant type":               {call{headers: []string{asForm, good}, body: "scope=a:read"}, 400, "invalid_request"},
		"empty grant type":            {call{headers: []string{asForm, good}, body: "grant_type="}, 400, "invalid_request"},
		"other grant type":            {call{headers: []string{asForm, good}, body: "grant_type=password"}, 400, "unsupported_grant_type"},
		"other grant type in JSON":    {call{headers: []string{asJSON}, body: `{"grant_type":"password",` + inJSON + `}`}, 400, "unsupported_grant_type"},
		"repeated grant type":         {call{headers: []string{asForm, good}, body: grant + "&" + grant}, 400, "invalid_request"},
		"repeated scope":              {call{headers: []string{asForm, good}, body: grant + "&scope=a:read&scope=a:read"}, 400, "invalid_request"},
		"repeated, once empty":        {call{headers: []string{asForm, good}, body: grant + "&scope=&scope=a:read"}, 400, "invalid_request"},
		"repeated client_id":          {call{headers: []string{asForm}, body: inForm + "&client_id=" + goodAccess}, 400, "invalid_request"},
		"repeated in other spelling":  {call{headers: []string{asForm}, body: inForm + "&client%5Fid=" + goodAccess}, 400, "invalid_request"},
		"repeated unknown":            {call{headers: []string{asForm, good}, body: grant + "&nonce=a&nonce=b"}, 400, "invalid_request"},
		"broken escape":               {call{headers: []string{asForm, good}, body: grant + "&scope=%zz"}, 400, "invalid_request"},
		"semicolon":                   {call{headers: []string{asForm, good}, body: grant + ";scope=a"}, 400, "invalid_request"},
		"query":                       {call{target: "/token?scope=a:read", headers: []string{asForm, good}, body: grant}, 400, "invalid_request"},
		"credentials in the query":    {call{target: "/token?" + inForm, headers: []string{asForm}, body: grant}, 400, "invalid_request"},
		"empty query":                 {call{target: "/token?", headers: []string{asForm, good}, body: grant}, 400, "invalid_request"},
		"Basic and form":              {call{headers: []string{asForm, good}, body: inForm}, 400, "invalid_request"},
		"Basic and client_id":         {call{headers: []string{asForm, good}, body: grant + "&client_id=" + goodAccess}, 400, "invalid_request"},
		"Basic and JSON":              {call{headers: []string{asJSON, good}, body: `{` + inJSON + `}`}, 400, "invalid_request"},
		"Bearer and form":             {call{headers: []string{asForm, "Authorization: Bearer x"}, body: inForm}, 400, "invalid_request"},
		"Basic twice":                 {call{headers: []string{asForm, good, good}, body: grant}, 400, "invalid_request"},
		"Basic, comma-joined":         {call{headers: []string{asForm, good + ", " + basic(goodAccess, goodSecret)}, body: grant}, 400, "invalid_request"},
		"Basic without anything":      {call{headers: []string{asForm, "Authorization: Basic"}, body: grant}, 400, "invalid_request"},
		"no content type":             {call{headers: []string{good}, body: grant}, 400, "invalid_request"},
		"two content types":           {call{headers: []string{asForm, asForm, good}, body: grant}, 400, "invalid_request"},
		"other content type":          {call{headers: []string{"Content-Type: text/plain", good}, body: grant}, 400, "invalid_request"},
		"multipart":                   {call{headers: []string{"Content-Type: multipart/form-data; boundary=x", good}, body: grant}, 400, "invalid_request"},
		"other charset":               {call{headers: []string{asForm + "; charset=utf-7", good}, body: grant}, 400, "invalid_request"},
		"empty body":                  {call{headers: []string{asForm, good}}, 400, "invalid_request"},
		"huge body":                   {call{headers: []string{asForm, good}, body: grant + "&x=" + strings.Repeat("y", maxBody)}, 413, "invalid_request"},
		"JSON, unknown member":        {call{headers: []string{asJSON}, body: `{` + inJSON + `,"x":"y"}`}, 400, "invalid_request"},
		"JSON, OAuth's own names":     {call{headers: []string{asJSON}, body: `{"client_id":"a","client_secret":"b"}`}, 400, "invalid_request"},
		"JSON, duplicate member":      {call{headers: []string{asJSON}, body: `{` + inJSON + `,"access_key":"x"}`}, 400, "invalid_request"},
		"JSON, duplicate, escaped":    {call{headers: []string{asJSON}, body: `{` + inJSON + `,"access\u005fkey":"x"}`}, 400, "invalid_request"},
		"JSON, case-folded":           {call{headers: []string{asJSON}, body: `{"Access_Key":"` + goodAccess + `","secret_key":"` + goodSecret + `"}`}, 400, "invalid_request"},
		"JSON, number":                {call{headers: []string{asJSON}, body: `{"access_key":1,"secret_key":"x"}`}, 400, "invalid_request"},
		"JSON, null":                  {call{headers: []string{asJSON}, body: `null`}, 400, "invalid_request"},
		"JSON, null member":           {call{headers: []string{asJSON}, body: `{` + inJSON + `,"scope":null}`}, 400, "invalid_request"},
		"JSON, array":                 {call{headers: []string{asJSON}, body: `[{` + inJSON + `}]`}, 400, "invalid_request"},
		"JSON, deep":                  {call{headers: []string{asJSON}, body: `{"scope":` + strings.Repeat("[", 10_000)}, 400, "invalid_request"},
		"JSON, text after":            {call{headers: []string{asJSON}, body: `{` + inJSON + `}{}`}, 400, "invalid_request"},
		"JSON, truncated":             {call{headers: []string{asJSON}, body: `{` + inJSON}, 400, "invalid_request"},
		"JSON, not UTF-8":             {call{headers: []string{asJSON}, body: `{` + inJSON + `,"scope":"` + "\xff" + `"}`}, 400, "invalid_request"},
		"JSON, empty":                 {call{headers: []string{asJSON}}, 400, "invalid_request"},
		"JSON as form":                {call{headers: []string{asForm}, body: `{` + inJSON + `}`}, 400, "invalid_request"},
		"no credentials":              {call{headers: []string{asForm}, body: grant}, 401, "invalid_client"},
		"no credentials in JSON":      {call{headers: []string{asJSON}, body: `{}`}, 401, "invalid_client"},
		"only a client_id":            {call{headers: []string{asForm}, body: grant + "&client_id=" + goodAccess}, 401, "invalid_client"},
		"wrong secret":                {call{headers: []string{asForm, "Authorization: " + basic(goodAccess, wrong)}, body: grant}, 401, "invalid_client"},
		"Basic, undecodable":          {call{headers: []string{asForm, "Authorization: Basic !"}, body: grant}, 401, "invalid_client"},
		"Basic with an empty pair":    {call{headers: []string{asForm, "Authorization: " + basic("", "")}, body: grant}, 401, "invalid_client"},
		"an API key as Bearer":        {call{headers: []string{asForm, "Authorization: Bearer wdr_" + goodAccess + "_" + goodSecret + "000000"}, body: grant}, 401, "invalid_client"},
		"an API key as Token":         {call{headers: []string{asForm, "Authorization: Token wdr_" + goodAccess + "_" + goodSecret + "000000"}, body: grant}, 401, "invalid_client"},
		"an API key as client_secret": {call{headers: []string{asForm}, body: grant + "&client_id=" + goodAccess + "&client_secret=wdr_" + goodAccess + "_" + goodSecret + "000000"}, 401, "invalid_client"},
		"GET":                         {call{method: "GET", headers: []string{good}}, 405, "invalid_request"},
		"HEAD":                        {call{method: "HEAD", headers: []string{good}}, 405, ""},
		"OPTIONS":                     {call{method: "OPTIONS"}, 405, "invalid_request"},
		"PUT":                         {call{method: "PUT", headers: []string{asForm, good}, body: grant}, 405, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.do(t, c.call)
			if resp.StatusCode != c.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			h := resp.Header
			if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" || h.Get("Content-Type") != jsonType {
				t.Errorf("headers %v", h)
			}
			if c.status == 405 && h.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", h.Get("Allow"))
			}
			tried := strings.Contains(strings.ToLower(fmt.Sprint(c.headers)), "authorization: basic")
			if challenged := h.Get("WWW-Authenticate") != ""; challenged != (c.status == 401 && tried) {
				t.Errorf("WWW-Authenticate: %q", h.Get("WWW-Authenticate"))
			}
			if strings.Contains(body, goodSecret) || strings.Contains(fmt.Sprint(s.lastObservation()), goodSecret) {
				t.Error("the secret is told again")
			}
			if c.method == "HEAD" {
				return
			}
			var got struct {
				Error, Scope string
				Description  string `json:"error_description"`
				Token        string `json:"access_token"`
				Type         string `json:"token_type"`
				Seconds      int    `json:"expires_in"`
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if c.status != 200 {
				if got.Error != c.code || got.Description == "" || got.Token != "" || string(s.lastObservation().Outcome) != c.code || s.lastObservation().Err == nil {
					t.Errorf("%s, observed %+v", body, s.lastObservation())
				}
				return
			}
			claims, err := s.issuer.Verify(got.Token, time.Now())
			if err != nil || string(claims.Scopes) != c.code || got.Scope != c.code || got.Type != "Bearer" || got.Seconds != 900 {
				t.Errorf("%s: %+v, %v", body, claims, err)
			}
			if o := s.lastObservation(); o.Outcome != OutcomeMinted || o.Key != claims.Key || o.Err != nil || o.TokenID == "" {
				t.Errorf("observed %+v", o)
			}
		})
	}
}

// Whoever fails learns nothing but that.
func TestDenialsAreAlike(t *testing.T) {
	access := func(i int) keystore.AccessKey { return keystore.AccessKey(fmt.Sprintf("AAAAAAAAAAAAAAAAAAAAA%d", i)) }
	errs := map[keystore.AccessKey]error{}
	for i, err := range []error{
		keystore.ErrInvalid, keystore.ErrBlocked, keystore.ErrExpired, keystore.ErrDeactivated, keystore.ErrSuperseded,
	} {
		errs[access(i)] = fmt.Errorf("looking up: %w", err)
	}
	s := newServer(t, IssuerConfig{}, EndpointsConfig{Authenticator: doorman{errs: errs}})
	// Its grace ends within this second: authenticated, and nothing to mint.
	for name, c := range map[string]func(access string) call{
		"Basic": func(access string) call {
			return call{headers: []string{"Content-Type: " + form, "Authorization: " + basic(access, goodSecret)}, body: "grant_type=client_credentials"}
		},
		"form": func(access string) call {
			return call{headers: []string{"Content-Type: " + form}, body: "grant_type=client_credentials&client_id=" + access + "&client_secret=" + goodSecret}
		},
		"JSON": func(access string) call {
			return call{headers: []string{"Content-Type: " + jsonType}, body: `{"access_key":"` + access + `","secret_key":"` + goodSecret + `"}`}
		},
	} {
		var first, firstHeader string
		for i := range errs {
			resp, body := s.do(t, c(string(i)))
			resp.Header.Del("Date")
			header := fmt.Sprint(resp.Header)
			if first == "" {
				first, firstHeader = body, header
			}
			if resp.StatusCode != 401 || body != first || header != firstHeader {
				t.Errorf("%s, %v: %d %s %s", name, errs[i], resp.StatusCode, header, body)
			}
			if o := s.lastObservation(); !errors.Is(o.Err, errors.Unwrap(errs[i])) || (o.Key == "") != errors.Is(o.Err, keystore.ErrInvalid) {
				t.Errorf("%s: operators see %+v", name, o)
			}
		}
	}
}

// An outage is not a denial.
func TestOutage(t *testing.T) {
	errs := map[keystore.AccessKey]error{
		"stale":       fmt.Errorf("asking: %w", keystore.ErrStale),
		"unavailable": fmt.Errorf("asking: %w", keystore.ErrUnavailable),
		"bug":         errors.New("something else"),
	}
	s := newServer(t, IssuerConfig{}, EndpointsConfig{Authenticator: doorman{errs: errs}})
	seen := map[string]bool{}
	ask := func(access string) (*http.Response, string) {
		return s.do(t, call{headers: []string{"Content-Type: " + form},
			body: "grant_type=client_credentials&client_id=" + access + "&client_secret=x"})
	}
	for i := range 100 {
		resp, body := ask([]string{"stale", "unavailable"}[i%2])
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if resp.StatusCode != 503 || !strings.Contains(body, `"temporarily_unavailable"`) || err != nil || after < 1 || after > 5 {
			t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, body)
		}
		seen[resp.Header.Get("Retry-After")] = true
	}
	if len(seen) < 3 {
		t.Errorf("no jitter: %v", seen)
	}
	if resp, body := ask("bug"); resp.StatusCode != 500 || !strings.Contains(body, `"server_error"`) || strings.Contains(body, "something") {
		t.Errorf("an unknown error: %d %s", resp.StatusCode, body)
	}
	s.node.keyring.replace(nil)
	for _, c := range []call{
		{target: "/.well-known/jwks.json", method: "GET"},
		{headers: []string{"Content-Type: " + form, "Authorization: " + basic(goodAccess, goodSecret)}, body: "grant_type=client_credentials"},
	} {
		if resp, body := s.do(t, c); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s without a ring: %d %s", c.target, resp.StatusCode, body)
		}
	}
}

// A key that ends within this second authenticates and gets nothing.
func TestNothingLeftToMint(t *testing.T) {
	p := testPrincipal("")
	p.Record.Expires = keystore.InstantOf(time.Now())
	s := newServer(t, IssuerConfig{}, EndpointsConfig{Authenticator: always{p}})
	resp, body := s.do(t, call{headers: []string{"Content-Type: " + form, "Authorization: " + basic(goodAccess, goodSecret)}, body: "grant_type=client_credentials"})
	if resp.StatusCode != 401 || !strings.Contains(body, `"invalid_client"`) || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	long := keystore.Scopes(strings.Repeat("abcdefgh ", 400) + "z")
	s = newServer(t, IssuerConfig{}, EndpointsConfig{Authenticator: always{testPrincipal(long)}})
	resp, body = s.do(t, call{headers: []string{"Content-Type: " + form, "Authorization: " + basic(goodAccess, goodSecret)}, body: "grant_type=client_credentials"})
	if resp.StatusCode != 400 || !strings.Contains(body, `"invalid_scope"`) {
		t.Errorf("more scopes than a token holds: %d %s", resp.StatusCode, body)
	}
}

type always struct{ p keystore.Principal }

func (a always) Authenticate(context.Context, keystore.Presented, time.Time) (keystore.Principal, error) {
	return a.p, nil
}

// A body that trickles is given up after bodyTime, over a real connection,
// which does not wait for the rest. The clock is the bubble's.
func TestSlowBody(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"with read deadlines":    func(w http.ResponseWriter) http.ResponseWriter { return w },
		"without read deadlines": func(w http.ResponseWriter) http.ResponseWriter { return struct{ http.ResponseWriter }{w} },
	} {
		t.Run(name, func(t *testing.T) { slowBody(t, wrap) })
	}
}

func slowBody(t *testing.T, wrap func(http.ResponseWriter) http.ResponseWriter) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: time.Now()})
		endpoints, err := NewEndpoints(EndpointsConfig{Issuer: n.issuer(t, IssuerConfig{}), Authenticator: doorman{}})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		listener := &oneConnection{conn: there, closed: make(chan struct{})}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { endpoints.ServeHTTP(wrap(w), r) })}
		go srv.Serve(listener)
		began := time.Now()
		go func() {
			fmt.Fprintf(here, "POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 10000\r\n\r\ngrant_type=", form)
			for ctx.Err() == nil { // one byte a second: never idle
				time.Sleep(time.Second)
				if _, err := here.Write([]byte("x")); err != nil {
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(here), nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); resp.StatusCode != 408 || took < bodyTime || took > bodyTime+2*time.Second {
			t.Errorf("status %d after %s", resp.StatusCode, took)
		}
		cancel()
		here.Close()
		srv.Close()
		time.Sleep(2 * time.Second) // the trickle ends
	})
}

// oneConnection is a listener with one connection.
type oneConnection struct {
	conn   net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *oneConnection) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConnection) Close() error   { close(l.closed); return nil }
func (l *oneConnection) Addr() net.Addr { return l.conn.LocalAddr() }

// A body without an end, whose length nobody announced, is read up to the
// limit.
func TestEndlessBody(t *testing.T) {
	s := newServer(t, IssuerConfig{}, EndpointsConfig{})
	read, write := io.Pipe()
	sent := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for chunk := bytes.Repeat([]byte("x"), 4096); ; sent += len(chunk) {
			if _, err := write.Write(chunk); err != nil {
				return
			}
		}
	}()
	req, err := http.NewRequest(http.MethodPost, s.URL+"/token", read)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", form)
	resp, err := http.DefaultClient.Do(req)
	if err == nil { // the server may hang up before its answer is read
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	read.Close()
	<-done
	if sent > 16<<20 {
		t.Errorf("%d bytes were taken", sent)
	}
	if o := s.lastObservation(); !errors.Is(o.Err, refusedTooLarge) {
		t.Errorf("observed %+v", o)
	}
}

// Whatever the body is, the answer is one of RFC 6749, and a token only for
// the one good pair.
func FuzzTokenEndpointBody(f *testing.F) {
	n := newTestNode(f, nodeOptions{memo: -1})
	endpoints, err := NewEndpoints(EndpointsConfig{Issuer: n.issuer(f, IssuerConfig{}), Authenticator: doorman{scopes: "a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, "grant_type=client_credentials&client_id="+goodAccess+"&client_secret="+goodSecret)
	f.Add(true, "grant_type=client_credentials&scope=a&scope=b")
	f.Add(true, "a=%zz;b&&=")
	f.Add(false, `{"access_key":"`+goodAccess+`","secret_key":"`+goodSecret+`","scope":"a"}`)
	f.Add(false, `{"access_key":"x","access_key":"y"}`)
	f.Add(false, `{"scope":[[[[`)
	var peers atomic.Uint32 // each body comes from a peer of its own, which has guesses left
	f.Fuzz(func(t *testing.T, asForm bool, body string) {
		r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body))
		peer := binary.BigEndian.AppendUint32(nil, peers.Add(1))
		r.RemoteAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(peer)), 1).String()
		r.Header.Set("Content-Type", jsonType)
		if asForm {
			r.Header.Set("Content-Type", form)
		}
		w := httptest.NewRecorder()
		endpoints.ServeHTTP(w, r)
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%q: %v", w.Body, err)
		}
		switch w.Code {
		case 200:
			if got["access_token"] == "" || !strings.Contains(decodedBody(asForm, body), goodSecret) {
				t.Errorf("a token for %q", body)
			}
		case 400, 401, 413:
			if got["error"] == nil || got["access_token"] != nil {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		default:
			t.Errorf("%q: status %d", body, w.Code)
		}
	})
}

// decodedBody undoes the escapes of a body, roughly.
func decodedBody(asForm bool, body string) string {
	if asForm {
		p, _ := parseForm([]byte(body))
		return p.secret.Reveal()
	}
	p, _ := parseJSON([]byte(body))
	return p.secret.Reveal()
}

// Bodies that never end take a bounded number of places, and give them back.
func TestBodiesAtOnceAreBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: time.Now()})
	endpoints, err := NewEndpoints(EndpointsConfig{Issuer: n.issuer(t, IssuerConfig{}), Authenticator: doorman{}})
	if err != nil {
		t.Fatal(err)
	}
	call := func() int {
		r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader("grant_type=client_credentials"))
		r.Header.Set("Content-Type", form)
		w := httptest.NewRecorder()
		endpoints.ServeHTTP(w, r)
		return w.Code
	}
	for range maxReading {
		endpoints.reading <- struct{}{}
	}
	if got := call(); got != http.StatusServiceUnavailable {
		t.Errorf("a body beyond the bound: %d", got)
	}
	<-endpoints.reading
	for range 2 {
		if got := call(); got != http.StatusUnauthorized {
			t.Errorf("a body within the bound: %d", got)
		}
	}
}
