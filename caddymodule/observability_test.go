package caddymodule

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

// documentedSeries is every series there ever is, with its type.
var documentedSeries = []string{
	"histogram warder_decision_duration_seconds",
	"counter warder_feed_errors_total",
	"gauge warder_feed_lag_revisions",
	"gauge warder_feed_revision",
	`counter warder_feed_wakeups_total{cause="notification"}`,
	`counter warder_feed_wakeups_total{cause="own"}`,
	`counter warder_feed_wakeups_total{cause="poll"}`,
	"gauge warder_knowledge_age_seconds",
	"gauge warder_lease_remaining_seconds",
	"gauge warder_lease_valid",
	"counter warder_log_replaced_total",
	`counter warder_requests_admitted_total{credential="access_token"}`,
	`counter warder_requests_admitted_total{credential="imported"}`,
	`counter warder_requests_admitted_total{credential="key"}`,
	`counter warder_requests_admitted_total{credential="none"}`,
	`counter warder_requests_refused_total{reason="access_denied"}`,
	`counter warder_requests_refused_total{reason="blocked"}`,
	`counter warder_requests_refused_total{reason="credential_missing"}`,
	`counter warder_requests_refused_total{reason="deactivated"}`,
	`counter warder_requests_refused_total{reason="expired"}`,
	`counter warder_requests_refused_total{reason="insufficient_scope"}`,
	`counter warder_requests_refused_total{reason="invalid_request"}`,
	`counter warder_requests_refused_total{reason="invalid_token"}`,
	`counter warder_requests_refused_total{reason="network"}`,
	`counter warder_requests_refused_total{reason="permission"}`,
	`counter warder_requests_refused_total{reason="rate_limited"}`,
	`counter warder_requests_refused_total{reason="superseded"}`,
	`counter warder_requests_refused_total{reason="temporarily_unavailable"}`,
	`counter warder_requests_refused_total{reason="token_expired"}`,
	`counter warder_requests_refused_total{reason="token_revoked"}`,
	"counter warder_signing_key_rotations_total",
	"counter warder_stale_requests_total",
	`counter warder_store_errors_total{operation="audit"}`,
	`counter warder_store_errors_total{operation="change"}`,
	`counter warder_store_errors_total{operation="feed"}`,
	`counter warder_store_errors_total{operation="heartbeat"}`,
	`counter warder_store_errors_total{operation="leave"}`,
	`counter warder_store_errors_total{operation="list"}`,
	`counter warder_store_errors_total{operation="listen"}`,
	`counter warder_store_errors_total{operation="lookup"}`,
	`counter warder_store_errors_total{operation="roll"}`,
	`counter warder_store_errors_total{operation="snapshot"}`,
	`counter warder_store_errors_total{operation="usage"}`,
	"histogram warder_store_lookup_duration_seconds",
	"counter warder_store_lookups_total",
	`counter warder_token_requests_total{outcome="introspected"}`,
	`counter warder_token_requests_total{outcome="invalid_client"}`,
	`counter warder_token_requests_total{outcome="invalid_request"}`,
	`counter warder_token_requests_total{outcome="invalid_scope"}`,
	`counter warder_token_requests_total{outcome="invalid_target"}`,
	`counter warder_token_requests_total{outcome="minted"}`,
	`counter warder_token_requests_total{outcome="not_revoked"}`,
	`counter warder_token_requests_total{outcome="revoked"}`,
	`counter warder_token_requests_total{outcome="server_error"}`,
	`counter warder_token_requests_total{outcome="temporarily_unavailable"}`,
	`counter warder_token_requests_total{outcome="too_many_requests"}`,
	`counter warder_token_requests_total{outcome="unsupported_grant_type"}`,
	`counter warder_token_requests_total{outcome="unsupported_token_type"}`,
	"counter warder_usage_errors_total",
	"gauge warder_view_keys",
}

// series returns Warder's own, with their types and without values; those of a
// histogram are one.
func (w *world) series() (found []string) {
	w.t.Helper()
	kinds := make(map[string]string)
	for line := range strings.Lines(w.do(http.MethodGet, "http://"+w.admin+"/metrics", "").Text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 4 && words[1] == "TYPE" && strings.HasPrefix(words[2], "warder_"):
			kinds[words[2]] = words[3]
		case len(words) == 2 && strings.HasPrefix(words[0], "warder_"):
			name, _, _ := strings.Cut(words[0], "{")
			if histogram := name[:strings.LastIndexByte(name, '_')]; kinds[histogram] == "histogram" {
				name, words[0] = histogram, histogram
			}
			found = append(found, kinds[name]+" "+words[0])
		}
	}
	return slices.Compact(found)
}

func wantSeries(t *testing.T, w *world) {
	t.Helper()
	found := w.series()
	for _, s := range found {
		if !slices.Contains(documentedSeries, s) {
			t.Errorf("%s is shown, but not documented", s)
		}
	}
	for _, s := range documentedSeries {
		if !slices.Contains(found, s) {
			t.Errorf("%s is documented, but not shown", s)
		}
	}
}

// Every series is there from the start, the README names all of them, and a
// reload neither loses counts nor doubles them.
func TestMetrics(t *testing.T) {
	w := start(t, guarded("", ""))
	wantSeries(t, w)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range documentedSeries {
		kind, name, _ := strings.Cut(s, " ")
		name, _, _ = strings.Cut(name, "{")
		if !strings.Contains(string(readme), "| `"+name+"` | "+kind+" |") {
			t.Errorf("the README has no row for %s, %s", name, kind)
		}
	}
	c := w.create(nil)
	w.get("/", c.token())
	w.get("/", "Authorization: Bearer "+w.accessToken(c, ""))
	w.get("/")
	for range 2 {
		for series, want := range map[string]string{
			`warder_requests_admitted_total{credential="key"}`:           "1",
			`warder_requests_admitted_total{credential="access_token"}`:  "1",
			`warder_requests_refused_total{reason="credential_missing"}`: "1",
			`warder_token_requests_total{outcome="minted"}`:              "1",
			"warder_view_keys":           "1",
			"warder_store_lookups_total": "1",
			"warder_lease_valid":         "1",
			"warder_feed_errors_total":   "0",

			// Of a store that this process alone writes.
			"warder_lease_remaining_seconds": "+Inf",
			"warder_knowledge_age_seconds":   "0",
			"warder_feed_lag_revisions":      "0",
			"warder_stale_requests_total":    "0",
		} {
			if got := w.metric(series); got != want {
				t.Errorf("%s is %s, want %s", series, got, want)
			}
		}
		w.mustLoad(guarded("", ""))
	}
	if got := w.metric("warder_store_lookup_duration_seconds_count"); got != "1" {
		t.Errorf("%s look-ups were timed, want 1", got)
	}
	before := w.metric("warder_feed_revision")
	w.act(c, "block")
	if after := w.metric("warder_feed_revision"); after == before {
		t.Errorf("the feed's revision stays %s after a change", after)
	}
	rotations, _ := strconv.Atoi(w.metric("warder_signing_key_rotations_total"))
	w.manage(http.StatusOK, http.MethodPost, "/signing-keys/rotate", fields{"emergency": true})
	if got := w.metric("warder_signing_key_rotations_total"); got != strconv.Itoa(rotations+1) {
		t.Errorf("%s rotations, want %d", got, rotations+1)
	}
}

// One decision in sixteen is timed, whatever it is: by chance, so that nobody
// who asks in step is always counted, or never.
func TestDecisionsAreTimed(t *testing.T) {
	w := start(t, guarded("", ""))
	h := w.handler(new(Handler))
	const decisions = 16_000
	r, answer := prepared("Authorization: Bearer made-up", "/"), discarding{make(http.Header)}
	for range decisions {
		r.Header["Authorization"] = []string{"Bearer made-up"}
		if err := h.ServeHTTP(answer, r, nowhere); err != nil {
			t.Fatal(err)
		}
	}
	timed, err := strconv.Atoi(w.metric("warder_decision_duration_seconds_count"))
	if err != nil || timed < decisions/32 || timed > decisions/8 { // 16 standard deviations off
		t.Errorf("%d of %d decisions were timed: %v", timed, decisions, err)
	}
	if sum, err := strconv.ParseFloat(w.metric("warder_decision_duration_seconds_sum"), 64); err != nil || sum <= 0 {
		t.Errorf("they took %v s: %v", sum, err)
	}
}

// prepared is a request as Caddy hands it to its handlers: the one that the
// README has curl send.
func prepared(header string, path string) *http.Request {
	name, value, _ := strings.Cut(header, ": ")
	r := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: path}, RequestURI: path, Host: "localhost:8080",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:50000", Body: http.NoBody,
		Header: http.Header{"Accept": {"*/*"}, "User-Agent": {"curl/8.5.0"}, name: {value}},
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
}

// handler is a gate of the running configuration, to be called without sockets.
func (w *world) handler(h *Handler) *Handler {
	w.t.Helper()
	if err := h.Provision(caddy.ActiveContext()); err != nil {
		w.t.Fatal(err)
	}
	return h
}

var nowhere = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// madeUp returns the nth of ever new bad credentials, of every sort.
func madeUp(r *rand.Rand, n int) string {
	random := func(length int) string {
		text := make([]byte, 0, length+11)
		for len(text) < length {
			text = strconv.AppendUint(text, r.Uint64(), 36)
		}
		return string(text[:length])
	}
	switch n % 5 {
	case 0:
		return "Token wdr_" + random(22) + "_" + random(49)
	case 1:
		return "Bearer " + keystore.FormatAPIKey("wdr", keystore.AccessKey(random(22)), keystore.Secret(random(43))).Reveal()
	case 2:
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(random(22)+":"+random(43)))
	case 3:
		return "Bearer " + random(40) + "." + random(120) + "." + random(86)
	default:
		return "Bearer " + random(30)
	}
}

// A flood of made-up credentials costs no memory, no look-up and no series.
func TestFlood(t *testing.T) {
	flood := 1_000_000
	if testing.Short() || raceDetector {
		flood = 100_000
	}
	w := start(t, guarded("", ""))
	minted := w.accessToken(w.create(nil), "")
	header, _, _ := strings.Cut(minted, ".")
	h := w.handler(new(Handler))
	lookups := w.lookups()
	var settled uint64
	random := rand.New(rand.NewPCG(1, 2))
	r, answer := prepared("Authorization: ", "/"), discarding{make(http.Header)}
	for n := range flood {
		if n == 10_000 {
			settled = heap()
		}
		credential := madeUp(random, n)
		if n%10 == 8 { // with the header of a good token
			credential = "Bearer " + header + credential[strings.IndexByte(credential, '.'):]
		}
		clear(answer.header)
		r.Header["Authorization"] = []string{credential}
		if err := h.ServeHTTP(answer, r, nowhere); err != nil || answer.header["Www-Authenticate"] == nil {
			t.Fatalf("%s was not refused: %v", credential, err)
		}
	}
	if after := heap(); after > settled+16<<20 {
		t.Errorf("the flood has left %d KiB, want at most 16 MiB", (after-settled)>>10)
	}
	if got := w.lookups() - lookups; got != 0 {
		t.Errorf("the store was asked %d times", got)
	}
	wantSeries(t, w)
}

// discarding is a ResponseWriter that keeps only headers.
type discarding struct{ header http.Header }

func (d discarding) Header() http.Header       { return d.header }
func (discarding) Write(p []byte) (int, error) { return len(p), nil }
func (discarding) WriteHeader(int)             {}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

const subscribed = `
	events {
		on key_changed noted
		on key_refused noted
		on signing_key_rotated noted
	}
`

// heardOf waits for the first event of a name that has all of want.
func heardOf(t *testing.T, seen *[]heardEvent, name string, want map[string]any) {
	t.Helper()
	eventually(t, fmt.Sprintf("event %s %v", name, want), func() bool {
		*seen = append(*seen, heard.take()...)
		return slices.ContainsFunc(*seen, func(e heardEvent) bool {
			if e.Name != name {
				return false
			}
			for field, value := range want {
				if e.Data[field] != value {
					return false
				}
			}
			return true
		})
	})
}

func TestEvents(t *testing.T) {
	heard.take()
	config := siteConfig(subscribed, "issuer http://<gate>", "warder_issuer\nwarder\nreverse_proxy <upstream>")
	w := start(t, config)
	var seen []heardEvent
	c := w.create(fields{"name": "watched"})
	heardOf(t, &seen, "key_changed", fields{"key_id": string(c.ID), "organization": "default", "state": "active"})
	w.act(c, "block")
	heardOf(t, &seen, "key_changed", fields{"key_id": string(c.ID), "state": "blocked"})
	wantRefusal(t, "blocked", w.get("/", c.token()), blocked)
	heardOf(t, &seen, "key_refused", fields{"reason": "blocked", "key_id": string(c.ID), "organization": "default"})
	wantRefusal(t, "made up", w.get("/", "Authorization: Bearer made-up"), invalid)
	heardOf(t, &seen, "key_refused", fields{"reason": "invalid_token", "key_id": nil})
	w.mustLoad(config)
	w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(c.ID), nil)
	heardOf(t, &seen, "key_changed", fields{"key_id": string(c.ID), "state": "deleted"})
	w.manage(http.StatusOK, http.MethodPost, "/signing-keys/rotate", fields{"emergency": true})
	heardOf(t, &seen, "signing_key_rotated", nil)
	for _, secret := range []string{c.APIKey.Reveal(), c.SecretKey.Reveal(), "made-up"} {
		if strings.Contains(fmt.Sprint(seen), secret) {
			t.Error("an event tells a credential")
		}
	}
}

// Refusals come as fast as an attacker sends them; subscribers and logs hear
// of a sample.
func TestRefusalsAreSampled(t *testing.T) {
	heard.take()
	w := start(t, siteConfig(subscribed, "", "warder\nreverse_proxy <upstream>"))
	h := w.handler(new(Handler))
	const refusals = 5000
	for range refusals {
		if err := h.ServeHTTP(httptest.NewRecorder(), prepared("Authorization: Token bad", "/"), nowhere); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.metric(`warder_requests_refused_total{reason="invalid_token"}`); got != strconv.Itoa(refusals) {
		t.Errorf("%s refusals counted, want %d", got, refusals)
	}
	told := len(heard.take())
	if told == 0 || told > refusals/4 {
		t.Errorf("subscribers were told of %d refusals out of %d", told, refusals)
	}
	if logged := strings.Count(w.log(), "request refused"); logged != told {
		t.Errorf("%d refusals are in the log, and %d were told", logged, told)
	}
}

// No log, at its most talkative, no label and no answer of the admin endpoint
// shows a credential.
func TestNothingShowsACredential(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>", `
		log {
			output file <dir>/access.log
		}
		warder_issuer
		warder
		reverse_proxy <upstream>
		handle_errors {
			respond "{http.error.message}"
		}`))
	c := w.create(fields{"name": "seen"})
	d := w.reissue(c, "rotate", fields{"force": true})
	minted := w.accessToken(d, "")
	bad := "wdr_" + strings.Repeat("x", 71)
	for _, header := range []string{
		c.token(), d.bearer(), d.basic(), "Authorization: Bearer " + minted, "Authorization: Token " + bad, "Authorization: " + bad,
		"Authorization: Token " + d.APIKey.Reveal() + ", " + bad,
	} {
		w.get("/", header)
	}
	w.do(http.MethodPost, "http://"+w.gate+"/token", "grant_type=client_credentials&client_id="+string(d.AccessKey)+"&client_secret="+bad,
		"Content-Type: application/x-www-form-urlencoded")
	shown := w.log() + w.do(http.MethodGet, "http://"+w.admin+"/metrics", "").Text + w.do(http.MethodGet, "http://"+w.admin+"/config/", "").Text
	access, err := os.ReadFile(w.dir + "/access.log")
	if err != nil {
		t.Fatal(err)
	}
	shown += string(access)
	_, signature, _ := strings.Cut(minted, ".")
	for name, secret := range map[string]string{
		"API key": c.APIKey.Reveal(), "secret key": c.SecretKey.Reveal(), "new secret key": d.SecretKey.Reveal(),
		"Basic": strings.TrimPrefix(d.basic(), "Authorization: Basic "), "access token": signature, "bad key": bad,
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("the %s is shown somewhere", name)
		}
	}
	if !strings.Contains(shown, string(c.ID)) {
		t.Error("what was searched does not even show the key's id")
	}
}
