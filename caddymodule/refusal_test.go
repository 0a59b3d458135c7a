package caddymodule

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// refused is what a caller sees of a refusal.
type refused struct {
	status    int
	challenge string // the whole WWW-Authenticate; empty: none
	code      string
	reason    string
}

var (
	missing     = refused{401, `Bearer realm="warder"`, "credential_missing", ""}
	malformed   = refused{400, `Bearer realm="warder", error="invalid_request", error_description="Exactly one credential is accepted, in one well-formed header."`, "invalid_request", ""}
	ambiguous   = refused{400, `Bearer realm="warder", error="invalid_request", error_description="The path is ambiguous: dot segments, encoded slashes, backslashes and control characters are not accepted."`, "invalid_request", ""}
	invalid     = refused{401, `Bearer realm="warder", error="invalid_token", error_description="The credential is not valid."`, "invalid_token", ""}
	blocked     = dead("blocked", "The key is blocked.")
	expired     = dead("expired", "The key has expired.")
	deactivated = dead("deactivated", "The key is deactivated.")
	superseded  = dead("superseded", "The secret was replaced by a newer one.")
	overToken   = dead("token_expired", "The access token has expired.")
	unscoped    = refused{403, `Bearer realm="warder", error="insufficient_scope", error_description="The credential lacks a required scope.", scope="hello:read hello:write"`, "insufficient_scope", ""}
	mistyped    = refused{403, "", "access_denied", ""}
	undecided   = refused{503, "", "temporarily_unavailable", ""}
)

func dead(reason, detail string) refused {
	return refused{401, `Bearer realm="warder", error="invalid_token", error_description="` + detail + `"`, "invalid_token", reason}
}

// wantRefusal compares an answer with a row of the table, byte for byte where
// bytes are promised.
func wantRefusal(t *testing.T, what string, r response, want refused) {
	t.Helper()
	wantStatus(t, what, r, want.status)
	wantChallenge(t, what, r, want.challenge)
	wantProblem(t, what, r, want)
	if got := r.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "no-store" {
		t.Errorf("%s: Cache-Control %q, want no-store", what, got)
	}
	wantRetryAfter(t, what, r, want.status == http.StatusServiceUnavailable)
}

func wantChallenge(t *testing.T, what string, r response, want string) {
	t.Helper()
	got := r.Header.Values("Www-Authenticate")
	if want == "" {
		if len(got) != 0 {
			t.Errorf("%s: challenges %q, want none", what, got)
		}
		return
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("%s: challenges %q, want exactly %q", what, got, want)
	}
}

func wantProblem(t *testing.T, what string, r response, want refused) {
	t.Helper()
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: Content-Type %q", what, got)
	}
	var body struct {
		Type, Title, Code, Reason, Detail string
		Status                            int
	}
	if err := json.Unmarshal([]byte(r.Text), &body); err != nil {
		t.Errorf("%s: body %q: %v", what, r.Text, err)
		return
	}
	if body.Type != "about:blank" || body.Title != http.StatusText(want.status) || body.Status != want.status ||
		body.Code != want.code || body.Reason != want.reason || body.Detail == "" {
		t.Errorf("%s: body %+v, want status %d, code %q, reason %q", what, body, want.status, want.code, want.reason)
	}
}

func wantRetryAfter(t *testing.T, what string, r response, want bool) {
	t.Helper()
	got := r.Header.Get("Retry-After")
	if !want {
		if got != "" {
			t.Errorf("%s: Retry-After %q, want none", what, got)
		}
		return
	}
	if n, err := strconv.Atoi(got); err != nil || n < 1 || n > 5 {
		t.Errorf("%s: Retry-After %q, want 1 to 5", what, got)
	}
}

func TestMissingCredential(t *testing.T) {
	w := start(t, guarded("", ""))
	for _, header := range []string{
		"X-Nothing: here", "Authorization: ", "Authorization: Digest username=x", "Authorization: Negotiate abc",
		"Authorization: Apikey abc", "X-Api-Key: wdr_x", "Proxy-Authorization: Bearer abc", "Cookie: token=abc",
	} {
		wantRefusal(t, header, w.get("/?api_key=abc&access_token=abc", header), missing)
	}
	if got := w.upstream.take(); len(got) != 0 {
		t.Errorf("%d requests went through", len(got))
	}
}

// A good key in a query parameter is no credential.
func TestQueryIsNeverRead(t *testing.T) {
	w := start(t, guarded("", ""))
	key := w.create(nil).APIKey.Reveal()
	for _, parameter := range []string{"api_key", "key", "token", "access_token", "authorization"} {
		wantRefusal(t, parameter, w.get("/?"+parameter+"="+key), missing)
	}
}

func TestMalformedCredential(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	key := c.APIKey.Reveal()
	for _, lines := range [][]string{
		{"Authorization: Token " + key, "Authorization: Token " + key},
		{"Authorization: Token " + key, "authorization: Bearer " + key},
		{"Authorization: Token " + key + ", Token " + key},
		{"Authorization: Token " + key + ","},
		{"Authorization: Token " + key + " " + key},
		{"Authorization: Token  " + key},
		{"Authorization: Token\t" + key},
		{"Authorization: Token"},
		{"Authorization: Bearer "},
		{"Authorization: Basic"},
		{"Authorization: Token " + key + "\xc3\xa9"},
		{"Authorization: Bearer " + key + "\t" + key},
		{"Authorization: Basic  " + base64.StdEncoding.EncodeToString([]byte("a:b"))},
	} {
		wantRefusal(t, fmt.Sprintf("%q", lines), w.rawGet("/", lines...), malformed)
	}
	if got := w.upstream.take(); len(got) != 0 {
		t.Errorf("%d requests went through", len(got))
	}
}

// What HTTP itself forbids is refused before any handler, and never passes.
func TestBytesNoHeaderHas(t *testing.T) {
	w := start(t, guarded("", ""))
	key := w.create(nil).APIKey.Reveal()
	for _, line := range []string{
		"Authorization: Token " + key + "\x00",
		"Authorization: Tok\x00en " + key,
		"Authorization: Token " + key[:20] + "\r\n " + key[20:], // obsolete folding
		"Authorization : Token " + key,
		"Authorization\x00: Token " + key,
		"Authorization: Token " + key + "\x7f",
		"Authorization: Token " + key + "\r",
	} {
		if r := w.rawGet("/", line); r.StatusCode < 400 || r.StatusCode >= 500 {
			t.Errorf("%q: %d, want a refusal", line, r.StatusCode)
		}
	}
	// White space around a field value is no part of it (RFC 9110 §5.5).
	wantStatus(t, "white space around the value", w.rawGet("/", "Authorization: \t Token "+key+" \t"), http.StatusOK)
	if got := w.upstream.take(); len(got) != 1 {
		t.Errorf("%d requests went through, want 1", len(got))
	}
}

func TestSchemesAreCaseInsensitive(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	for _, header := range []string{c.token(), c.bearer(), c.basic()} {
		scheme, rest, _ := strings.Cut(strings.TrimPrefix(header, "Authorization: "), " ")
		for _, spelling := range []string{strings.ToLower(scheme), strings.ToUpper(scheme)} {
			wantStatus(t, spelling, w.get("/", "Authorization: "+spelling+" "+rest), http.StatusOK)
		}
	}
}

// No answer tells one invalid credential from another.
func TestInvalidCredentialsAreAlike(t *testing.T) {
	w := start(t, guarded("", ""))
	c, other, gone := w.create(nil), w.create(nil), w.create(nil)
	w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(gone.ID), nil)
	minted := w.accessToken(c, "")
	var first response
	for name, header := range invalidCredentials(c, other, gone, minted) {
		for _, temperature := range []string{"first", "again"} {
			r := w.get("/", "Authorization: "+header)
			wantRefusal(t, name+", "+temperature, r, invalid)
			r.Header.Del("Date")
			if first.Response == nil {
				first = r
			}
			if r.Text != first.Text || fmt.Sprint(r.Header) != fmt.Sprint(first.Header) {
				t.Errorf("%s, %s: the answer differs from another invalid credential's:\n%v %s\n%v %s",
					name, temperature, r.Header, r.Text, first.Header, first.Text)
			}
		}
	}
	if got := w.upstream.take(); len(got) != 0 {
		t.Errorf("%d requests went through", len(got))
	}
}

func invalidCredentials(c, other, gone credential, minted string) map[string]string {
	key := c.APIKey.Reveal()
	wrong := keystore.FormatAPIKey("wdr", keystore.AccessKey(c.AccessKey), keystore.Secret(other.SecretKey.Reveal())).Reveal()
	madeUp := keystore.FormatAPIKey("wdr", "0123456789abcdefghijkl", keystore.Secret(c.SecretKey.Reveal())).Reveal()
	header, rest, _ := strings.Cut(minted, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	return map[string]string{
		"not decodable":            "Token nonsense",
		"not base64":               "Basic !!!!",
		"short pair":               "Basic YTpi",
		"too long":                 "Bearer " + strings.Repeat("x", 5000),
		"bad checksum":             "Token " + key[:len(key)-1] + flip(key[len(key)-1]),
		"truncated":                "Token " + key[:len(key)-1],
		"another prefix":           "Token xyz" + key[3:],
		"bad MAC":                  "Token " + madeUp,
		"deleted":                  strings.TrimPrefix(gone.token(), "Authorization: "),
		"deleted, Basic":           strings.TrimPrefix(gone.basic(), "Authorization: "),
		"wrong secret":             "Bearer " + wrong,
		"wrong secret, Basic":      "Basic " + base64.StdEncoding.EncodeToString([]byte(string(c.AccessKey)+":"+other.SecretKey.Reveal())),
		"access token under Token": "Token " + minted,
		"bad signature":            "Bearer " + header + "." + payload + "." + flip(signature[0]) + signature[1:],
		"changed claims":           "Bearer " + header + "." + flip(payload[9]) + payload[1:] + "." + signature,
		"no signature":             "Bearer " + header + "." + payload + ".",
		"unsigned":                 "Bearer " + base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + payload + ".",
		"foreign":                  "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
		"four dots":                "Bearer a.b.c.d.e",
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestDeadCredentialsSayWhy(t *testing.T) {
	w := start(t, guarded("grace_period 1s", ""))
	for _, row := range []struct {
		kill func(c credential)
		want refused
	}{
		{func(c credential) { w.act(c, "block") }, blocked},
		{func(c credential) { w.act(c, "deactivate") }, deactivated},
		{func(c credential) { w.act(c, "expire") }, expired},
		{func(c credential) { w.reissue(c, "rotate", fields{"force": true}) }, superseded},
		{func(c credential) { w.reissue(c, "regenerate", nil) }, superseded},
		{func(c credential) { w.act(c, "deactivate"); w.act(c, "expire"); w.act(c, "block") }, blocked},
		{func(c credential) { w.act(c, "deactivate"); w.act(c, "expire") }, expired},
	} {
		c := w.create(nil)
		minted := "Authorization: Bearer " + w.accessToken(c, "")
		row.kill(c)
		for _, header := range []string{c.token(), c.bearer(), c.basic(), minted} {
			wantRefusal(t, row.want.reason, w.get("/", header), row.want)
		}
	}
}

func TestSecondRotationForgets(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	w.reissue(c, "rotate", fields{"force": true})
	w.reissue(c, "rotate", fields{"force": true})
	wantRefusal(t, "a secret two generations old", w.get("/", c.token()), invalid)
}

func TestForbidden(t *testing.T) {
	w := start(t, guarded("", "require scope hello:read hello:write\nrequire type trial"))
	standard := w.create(fields{"scopes": []string{"hello:read", "hello:write"}})
	trial := w.create(fields{"type": "trial", "scopes": []string{"hello:read"}})
	good := w.create(fields{"type": "trial", "scopes": []string{"hello:write", "hello:read"}})
	wantRefusal(t, "another type", w.get("/", standard.token()), mistyped)
	wantRefusal(t, "one scope of two", w.get("/", trial.token()), unscoped)
	wantStatus(t, "type and scopes", w.get("/", good.token()), http.StatusOK)
	narrowed := "Authorization: Bearer " + w.accessToken(good, "hello:read")
	wantRefusal(t, "a narrowed access token", w.get("/", narrowed), unscoped)
}

func TestHeadHasNoBody(t *testing.T) {
	w := start(t, guarded("", ""))
	get := w.get("/")
	head := w.do(http.MethodHead, "http://"+w.gate+"/", "")
	wantStatus(t, "HEAD", head, http.StatusUnauthorized)
	wantChallenge(t, "HEAD", head, missing.challenge)
	if head.Text != "" || head.Header.Get("Content-Length") != strconv.Itoa(len(get.Text)) {
		t.Errorf("HEAD: body %q, Content-Length %s, want the %d of GET without the body", head.Text, head.Header.Get("Content-Length"), len(get.Text))
	}
}

func TestRealm(t *testing.T) {
	w := start(t, guarded("", `realm "the API"`))
	wantChallenge(t, "realm", w.get("/"), `Bearer realm="the API"`)
}

// With error routes the body is theirs, and the headers are ours.
func TestErrorRoutes(t *testing.T) {
	w := start(t, siteConfig("", "issuer http://<gate>", `
		warder_issuer
		warder {
			require scope hello:read hello:write
		}
		reverse_proxy <upstream>
		handle_errors {
			respond "{http.error.status_code} {http.warder.error.status} {http.warder.error.code} {http.warder.error.reason} {http.warder.error.detail}"
			header X-Candidate {http.auth.candidate.id}
		}`))
	c := w.create(nil)
	wrong := flip(c.APIKey.Reveal()[10])
	for _, row := range []struct {
		header string
		want   refused
		text   string
	}{
		{"X-No: credential", missing, "401 401 credential_missing  This resource needs an API key or an access token."},
		{"Authorization: Token " + wrong, invalid, "401 401 invalid_token  The credential is not valid."},
		{"Authorization: Token a, b", malformed, "400 400 invalid_request  Exactly one credential is accepted, in one well-formed header."},
		{c.token(), unscoped, "403 403 insufficient_scope  The credential lacks a required scope."},
	} {
		r := w.get("/", row.header)
		wantStatus(t, row.text, r, row.want.status)
		wantChallenge(t, row.text, r, row.want.challenge)
		if r.Text != row.text {
			t.Errorf("error route wrote %q, want %q", r.Text, row.text)
		}
	}
	w.act(c, "block")
	r := w.get("/", c.basic())
	wantChallenge(t, "blocked", r, blocked.challenge)
	if want := "401 401 invalid_token blocked The key is blocked."; r.Text != want {
		t.Errorf("error route wrote %q, want %q", r.Text, want)
	}
	if got := r.Header.Get("X-Candidate"); got != string(c.ID) {
		t.Errorf("error route knows the candidate %q, want %q", got, c.ID)
	}
}

// frailConfig is guarded over a store that can be made to fail.
func frailConfig(options string) string {
	return strings.Replace(guarded("", options), "store sqlite", "store frail", 1)
}

// An outage is not a denial, is not remembered, and does not touch what is
// known.
func TestStoreOutage(t *testing.T) {
	w := start(t, frailConfig(""))
	warm, cold := w.create(nil), w.create(nil)
	warmToken, coldToken := "Authorization: Bearer "+w.accessToken(warm, ""), "Authorization: Bearer "+w.accessToken(cold, "")
	w.chill()
	wantStatus(t, "warming up", w.get("/", warm.token()), http.StatusOK)
	end := (&troubles{lookup: func(context.Context) error { return errStoreDown }}).set()
	defer end()
	for range 2 {
		wantStatus(t, "warm key", w.get("/", warm.token()), http.StatusOK)
		wantStatus(t, "warm access token", w.get("/", warmToken), http.StatusOK)
		for _, header := range []string{cold.token(), cold.bearer(), cold.basic(), coldToken} {
			wantRefusal(t, "cold credential", w.get("/", header), undecided)
		}
		wantRefusal(t, "made-up key", w.get("/", "Authorization: Token wdr_x"), invalid)
		wantRefusal(t, "no credential", w.get("/"), missing)
	}
	r := w.do(http.MethodPost, "http://"+w.gate+"/token", "grant_type=client_credentials",
		"Content-Type: application/x-www-form-urlencoded", cold.basic())
	wantStatus(t, "token endpoint", r, http.StatusServiceUnavailable)
	wantRetryAfter(t, "token endpoint", r, true)
	end()
	for _, header := range []string{cold.token(), coldToken} {
		wantStatus(t, "after the outage", w.get("/", header), http.StatusOK)
	}
}

// A look-up that hangs holds its callers for a bounded time, and nobody else.
func TestStoreHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the time-out of a look-up")
	}
	w := start(t, frailConfig(""))
	warm, cold := w.create(nil), w.create(nil)
	wantStatus(t, "warming up", w.get("/", warm.token()), http.StatusOK)
	released := make(chan struct{})
	defer close(released)
	end := (&troubles{lookup: func(ctx context.Context) error { <-released; return ctx.Err() }}).set()
	defer end()
	asked := make(chan response)
	go func() {
		r, err := w.try(http.MethodGet, "http://"+w.gate+"/", "", cold.token())
		if err != nil {
			t.Error(err)
		}
		asked <- r
	}()
	for range 10 {
		wantStatus(t, "warm key meanwhile", w.get("/", warm.token()), http.StatusOK)
	}
	if r := <-asked; r.Response != nil {
		wantRefusal(t, "cold key", r, undecided)
	}
}

// A process that wrote a change and cannot read it back no longer knows, and
// refuses everything until it does.
func TestFeedOutage(t *testing.T) {
	w := start(t, frailConfig("public /healthz"))
	c, other := w.create(nil), w.create(nil)
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	end := (&troubles{feed: errStoreDown}).set()
	defer end()
	w.manage(http.StatusServiceUnavailable, http.MethodPost, "/keys/"+string(other.ID)+"/block", nil)
	for _, header := range []string{c.token(), minted} {
		wantRefusal(t, "while the feed is cut off", w.get("/", header), undecided)
	}
	wantRefusal(t, "no credential", w.get("/"), missing)
	wantStatus(t, "public path", w.get("/healthz"), http.StatusOK)
	if w.metric("warder_lease_valid") != "0" {
		t.Error("the lease shows as valid")
	}
	end()
	for _, header := range []string{c.token(), minted} {
		wantStatus(t, "when the feed is back", w.get("/", header), http.StatusOK)
	}
	wantRefusal(t, "the change made meanwhile", w.get("/", other.token()), blocked)
}

// However many wait for one cold key, the store is asked once.
func TestOneLookupForMany(t *testing.T) {
	w := start(t, strings.Replace(frailConfig(""), "warder {\n\n}", "turnstile\nwarder", 1))
	c := w.create(nil)
	callers := int64(1000)
	if raceDetector {
		callers = 200 // all of them have to arrive within one look-up's time-out
	}
	gather := make(chan struct{})
	defer (&troubles{lookup: func(context.Context) error { <-gather; return nil }}).set()()
	before := w.lookups()
	entered.Store(0)
	var waiting sync.WaitGroup
	for range callers {
		waiting.Go(func() {
			r, err := w.try(http.MethodGet, "http://"+w.gate+"/", "", c.token())
			if err != nil || r.StatusCode != http.StatusOK {
				t.Errorf("a waiting caller: %v %v", r.Response, err)
			}
		})
	}
	eventually(t, "every request at the gate", func() bool { return entered.Load() == callers })
	time.Sleep(300 * time.Millisecond) // the few steps from there to the look-up
	close(gather)
	waiting.Wait()
	if got := w.lookups() - before; got != 1 {
		t.Errorf("%d look-ups for one key, want 1", got)
	}
}
