package caddymodule

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// world is a real Caddy with Warder in front of an API that notes what it
// receives. Caddy is one per process: worlds follow one another.
type world struct {
	t        testing.TB
	dir      string
	gate     string // host:port of the guarded site
	admin    string // host:port of Caddy's admin endpoint
	upstream *upstream
	client   *http.Client
}

// globals are the options that every Caddyfile here begins with. In it and in
// what follows, words in angle brackets are filled in by world.fill.
const globals = `
	admin <admin>
	persist_config off
	auto_https off
	skip_install_trust
	grace_period 5s
	storage file_system <dir>/caddy
`

const quietLog = `
	log {
		output file <dir>/caddy.log
		level DEBUG
	}
`

// siteConfig is a whole Caddyfile: further global options, options of the app,
// and the body of the one site.
func siteConfig(global, app, site string) string {
	return "{" + globals + quietLog + global + `
	warder {
		store sqlite <dir>/warder.db
		` + app + `
	}
}
http://:<port> {
	bind 127.0.0.1
	` + site + `
}
`
}

// guarded is the usual Caddyfile: an issuer, a gate with options, the API.
func guarded(app, options string) string {
	return siteConfig("", "issuer http://<gate>\n"+app, "warder_issuer\nwarder {\n"+options+"\n}\nreverse_proxy <upstream>")
}

// start runs a Caddyfile until the test ends.
func start(t testing.TB, text string) *world {
	t.Helper()
	w := newWorld(t)
	var err error
	for range 3 { // between finding a free port and binding it somebody may take it
		w.gate, w.admin = freeAddress(t), freeAddress(t)
		if err = w.load(text); err == nil || !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	if err != nil {
		t.Fatalf("starting Caddy: %v", err)
	}
	return w
}

// newWorld is a world in which nothing runs yet.
func newWorld(t testing.TB) *world {
	w := &world{
		t: t, dir: t.TempDir(), upstream: newUpstream(t), gate: freeAddress(t), admin: freeAddress(t),
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 128},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       30 * time.Second,
		},
	}
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
	})
	return w
}

func (w *world) fill(text string) string {
	return strings.NewReplacer(
		"<dir>", w.dir, "<gate>", w.gate, "<port>", portOf(w.gate), "<admin>", w.admin,
		"<upstream>", strings.TrimPrefix(w.upstream.URL, "http://"),
	).Replace(text)
}

// adapt returns the JSON of a Caddyfile.
func adapt(text string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// load replaces the running configuration.
func (w *world) load(text string) error {
	config, err := adapt(w.fill(text))
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

func (w *world) mustLoad(text string) {
	w.t.Helper()
	if err := w.load(text); err != nil {
		w.t.Fatalf("loading a configuration: %v", err)
	}
}

// app is the running configuration's.
func (w *world) app() *App {
	w.t.Helper()
	app, err := caddy.ActiveContext().AppIfConfigured("warder")
	if err != nil {
		w.t.Fatalf("no warder app is running: %v", err)
	}
	return app.(*App)
}

// lookups is how often the store was asked for a key.
func (w *world) lookups() uint64 { w.t.Helper(); return w.app().engine.view.Loads() }

// chill makes the cache forget every key.
func (w *world) chill() {
	w.t.Helper()
	e := w.app().engine
	if err := e.view.Reset(keystore.Snapshot{Head: e.follower.Applied()}); err != nil {
		w.t.Fatal(err)
	}
}

// log is everything that Caddy has logged.
func (w *world) log() string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "caddy.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// givenAddresses are those that freeAddress has returned. Caddy would let two
// of its servers share one.
var givenAddresses sync.Map

// freeAddress returns an address that nobody listens at, another each time.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		if _, given := givenAddresses.LoadOrStore(address, true); !given {
			return address
		}
	}
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// upstream is the API behind. It notes every request and answers "upstream".
type upstream struct {
	*httptest.Server

	mu       sync.Mutex // guards received
	received []received
}

// received is a request as the API behind saw it.
type received struct {
	Method  string
	URI     string
	Header  http.Header
	Trailer http.Header
	Body    string
}

func newUpstream(t testing.TB) *upstream {
	u := new(upstream)
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := r.Header.Clone()
	if r.Header.Get("Upgrade") == "echo" {
		u.note(received{Method: r.Method, URI: r.RequestURI, Header: header})
		echo(w)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u.note(received{r.Method, r.RequestURI, header, r.Trailer, string(body)})
	_, _ = io.WriteString(w, "upstream")
}

// echo sends back each line it gets, as another protocol would.
func echo(w http.ResponseWriter) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	for {
		line, err := buffered.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, line)
	}
}

func (u *upstream) note(r received) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received = append(u.received, r)
}

// take returns what was received since the last call.
func (u *upstream) take() []received {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.received
	u.received = nil
	return all
}

// one returns the only request received since the last call.
func (u *upstream) one(t testing.TB) received {
	t.Helper()
	all := u.take()
	if len(all) != 1 {
		t.Fatalf("the API behind received %d requests, want 1", len(all))
	}
	return all[0]
}

// response is an answer with its body read.
type response struct {
	*http.Response
	Text string
}

// get asks the gate for a path with header lines "Name: value".
func (w *world) get(path string, headers ...string) response {
	w.t.Helper()
	return w.do(http.MethodGet, "http://"+w.gate+path, "", headers...)
}

// do asks once. A GET whose connection ends before a byte of an answer is asked
// again, as any client may: net/http and Linux close what a server that was
// just replaced has accepted, or had in its queue, but not begun to serve.
func (w *world) do(method, url, body string, headers ...string) response {
	w.t.Helper()
	answer, err := w.try(method, url, body, headers...)
	for tries := 0; tries < 10 && method == http.MethodGet && unserved(err); tries++ {
		answer, err = w.try(method, url, body, headers...)
	}
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer
}

func unserved(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// try is do for other goroutines than the test's.
func (w *world) try(method, url, body string, headers ...string) (response, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value) // as it is written: canonical names are not the point
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return response{}, err
	}
	return readResponse(answer)
}

// insist is do across a reload, which replaces the admin endpoint, too. On
// Linux it resets who is just connecting: Caddy opens a second socket on the
// same port and closes the first.
func (w *world) insist(method, url, body string, headers ...string) (answer response) {
	w.t.Helper()
	eventually(w.t, method+" "+url, func() (ok bool) {
		var err error
		answer, err = w.try(method, url, body, headers...)
		return err == nil
	})
	return answer
}

func readResponse(answer *http.Response) (response, error) {
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return response{answer, string(text)}, err
}

// raw sends bytes as they are and reads one answer.
func (w *world) raw(request string) response {
	w.t.Helper()
	conn, err := net.DialTimeout("tcp", w.gate, 5*time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("reading the answer to %q: %v", request, err)
	}
	read, err := readResponse(answer)
	if err != nil {
		w.t.Fatal(err)
	}
	return read
}

// rawGet is a GET for any target, with header lines as they are.
func (w *world) rawGet(target string, lines ...string) response {
	w.t.Helper()
	return w.raw("GET " + target + " HTTP/1.1\r\nHost: " + w.gate + "\r\nConnection: close\r\n" +
		strings.Join(append(lines, ""), "\r\n") + "\r\n")
}

// credential is a key with what its owner was shown.
type credential struct{ managementapi.IssuedKey }

func (c credential) token() string  { return "Authorization: Token " + c.APIKey.Reveal() }
func (c credential) bearer() string { return "Authorization: Bearer " + c.APIKey.Reveal() }
func (c credential) basic() string {
	pair := string(c.AccessKey) + ":" + c.SecretKey.Reveal()
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
}

// fields is a JSON object.
type fields = map[string]any

// manage calls a management route; want is the status to expect.
func (w *world) manage(want int, method, path string, body fields, headers ...string) response {
	w.t.Helper()
	text := ""
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		text, headers = string(encoded), append(headers, "Content-Type: application/json")
	}
	answer := w.insist(method, "http://"+w.admin+"/warder/v1"+path, text, headers...)
	if answer.StatusCode != want {
		w.t.Fatalf("%s %s answered %d, want %d: %s", method, path, answer.StatusCode, want, answer.Text)
	}
	return answer
}

func (w *world) create(in fields, headers ...string) credential {
	w.t.Helper()
	return w.issued(w.manage(http.StatusCreated, http.MethodPost, "/keys", in, headers...))
}

// reissue rotates or regenerates.
func (w *world) reissue(c credential, verb string, in fields) credential {
	w.t.Helper()
	return w.issued(w.manage(http.StatusOK, http.MethodPost, "/keys/"+string(c.ID)+"/"+verb, in))
}

func (w *world) issued(answer response) credential {
	w.t.Helper()
	var c credential
	if err := json.Unmarshal([]byte(answer.Text), &c.IssuedKey); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// act performs a verb that only changes the key's state.
func (w *world) act(c credential, verb string) {
	w.t.Helper()
	w.manage(http.StatusOK, http.MethodPost, "/keys/"+string(c.ID)+"/"+verb, nil)
}

// accessToken exchanges a key at the token endpoint.
func (w *world) accessToken(c credential, scope string) string {
	w.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}}
	if scope != "" {
		form.Set("scope", scope)
	}
	answer := w.do(http.MethodPost, "http://"+w.gate+"/token", form.Encode(),
		"Content-Type: application/x-www-form-urlencoded", c.basic())
	var out struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(answer.Text), &out); err != nil || out.AccessToken == "" {
		w.t.Fatalf("the token endpoint answered %d: %s", answer.StatusCode, answer.Text)
	}
	return out.AccessToken
}

// metric returns the value of one series of the running configuration.
func (w *world) metric(series string) string {
	w.t.Helper()
	for line := range strings.Lines(w.do(http.MethodGet, "http://"+w.admin+"/metrics", "").Text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	w.t.Fatalf("there is no series %s", series)
	return ""
}

// eventually waits for something that has no moment of its own.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func wantStatus(t testing.TB, what string, r response, want int) {
	t.Helper()
	if r.StatusCode != want {
		t.Errorf("%s: %d, want %d: %s", what, r.StatusCode, want, r.Text)
	}
}

func TestFixture(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(fields{"name": "first"})
	for _, header := range []string{c.token(), c.bearer(), c.basic(), "Authorization: Bearer " + w.accessToken(c, "")} {
		wantStatus(t, "a good credential", w.get("/", header), http.StatusOK)
		if got := w.upstream.one(t).Header.Get("X-Warder-Key-Id"); got != string(c.ID) {
			t.Errorf("the API behind was told the key %q, want %q", got, c.ID)
		}
	}
	wantStatus(t, "no credential", w.get("/"), http.StatusUnauthorized)
	if w.metric(`warder_requests_admitted_total{credential="key"}`) != "3" {
		t.Error("metrics do not show three requests")
	}
}
