package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// refusalCase is a request that a gate refuses.
type refusalCase struct {
	path   string
	header string // the whole line; empty: none
	check  keystore.Check
}

// Whatever a gate refuses, explain refuses for the same reason, and names the
// check; and no reason that a gate has is left out.
func TestExplainAgreesWithTheGate(t *testing.T) {
	config := strings.Replace(frailConfig("require scope hello:read\nrequire type standard"), "issuer http://<gate>", "issuer http://<gate> {\ntoken_ttl 2s\n}", 1)
	w := start(t, config)
	seen := make(map[string]bool)
	agree := func(name string, c refusalCase) {
		t.Helper()
		if c.path == "" {
			c.path = "/v1/hello"
		}
		var lines []string
		if c.header != "" {
			lines = append(lines, c.header)
		}
		wantAgreement(t, w, name, c, w.rawGet(c.path, lines...), seen)
	}
	for name, c := range w.refusalCases() {
		agree(name, c)
	}
	good := w.create(fields{"scopes": []string{"hello:read"}})
	minted := "Authorization: Bearer " + w.accessToken(good, "")
	w.oauth("/revoke", good.basic(), url.Values{"token": {strings.TrimPrefix(minted, "Authorization: Bearer ")}})
	agree("revoked token", refusalCase{header: minted, check: keystore.CheckRevocation})
	old := "Authorization: Bearer " + w.accessToken(good, "")
	time.Sleep(2100 * time.Millisecond)
	agree("expired token", refusalCase{header: old, check: keystore.CheckTokenExpiry})

	w.chill()
	end := (&troubles{lookup: func(context.Context) error { return errStoreDown }}).set()
	agree("store away", refusalCase{header: good.token(), check: keystore.CheckKnown})
	end()
	w.app().engine.lease.Suspend()
	end = (&troubles{feed: errStoreDown}).set()
	agree("lease over", refusalCase{header: good.token(), check: keystore.CheckNode})
	end()

	for i := range refusals {
		if !seen[refusals[i].outcome()] {
			t.Errorf("no case for %s", refusals[i].outcome())
		}
	}
}

// refusalCases are those that need no time and no outage.
func (w *world) refusalCases() map[string]refusalCase {
	reading := fields{"scopes": []string{"hello:read"}}
	dead := func(verb string) string {
		c := w.create(reading)
		w.act(c, verb)
		return c.token()
	}
	c, other, gone := w.create(reading), w.create(reading), w.create(reading)
	w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(gone.ID), nil)
	rotated, elsewhere, limited, unpermitted := w.create(reading), w.create(reading), w.create(reading), w.create(reading)
	w.reissue(rotated, "rotate", fields{"force": true})
	id := w.permit("other", keystore.Rule{Paths: []string{"/other"}})
	w.edit(elsewhere, func(e *keystore.Editable) { e.Networks = []string{"203.0.113.0/24"} })
	w.edit(unpermitted, func(e *keystore.Editable) { e.Permissions = []string{id} })
	w.edit(limited, func(e *keystore.Editable) { e.Limit = keystore.Limit{Requests: 1, Burst: 1, Period: time.Hour} })
	w.get("/v1/hello", limited.token())
	header, rest, _ := strings.Cut(w.accessToken(c, ""), ".")
	payload, signature, _ := strings.Cut(rest, ".")
	key := c.APIKey.Reveal()
	bearer, token := "Authorization: Bearer ", "Authorization: Token "
	wrong := keystore.FormatAPIKey("wdr", keystore.AccessKey(c.AccessKey), keystore.Secret(other.SecretKey.Reveal())).Reveal()
	madeUp := keystore.FormatAPIKey("wdr", "0123456789abcdefghijkl", keystore.Secret(c.SecretKey.Reveal())).Reveal()
	return map[string]refusalCase{
		"no credential":          {check: keystore.CheckForm},
		"another scheme":         {header: "Authorization: Digest x", check: keystore.CheckForm},
		"two credentials":        {header: token + key + ", " + key, check: keystore.CheckForm},
		"no key at all":          {header: token + "wdr_x", check: keystore.CheckForm},
		"ambiguous path":         {path: "/v1/%2e%2e/x", header: c.token(), check: keystore.CheckPath},
		"encoded slash":          {path: "/v1%2fx", header: c.token(), check: keystore.CheckPath},
		"bad checksum":           {header: token + key[:len(key)-1] + flip(key[len(key)-1]), check: keystore.CheckSpelling},
		"made up":                {header: token + madeUp, check: keystore.CheckGenuine},
		"deleted":                {header: gone.token(), check: keystore.CheckKnown},
		"deleted, pair":          {header: gone.basic(), check: keystore.CheckKnown},
		"wrong secret":           {header: token + wrong, check: keystore.CheckSecret},
		"of another system":      {header: token + "something-else-altogether", check: keystore.CheckKnown},
		"foreign token":          {header: bearer + "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U", check: keystore.CheckSigningKey},
		"bad signature":          {header: bearer + header + "." + payload + "." + flip(signature[0]) + signature[1:], check: keystore.CheckSignature},
		"blocked":                {header: dead("block"), check: keystore.CheckBlocked},
		"expired":                {header: dead("expire"), check: keystore.CheckExpiry},
		"deactivated":            {header: dead("deactivate"), check: keystore.CheckDeactivated},
		"superseded":             {header: rotated.token(), check: keystore.CheckGeneration},
		"another network":        {header: elsewhere.token(), check: keystore.CheckNetwork},
		"without permission":     {header: unpermitted.token(), check: keystore.CheckPermission},
		"another type":           {header: w.create(fields{"type": "trial"}).token(), check: keystore.CheckType},
		"without scope":          {header: w.create(nil).token(), check: keystore.CheckScope},
		"used too often":         {header: limited.token(), check: keystore.CheckLimit},
		"two reasons, the first": {path: "/v1/../x", header: dead("block"), check: keystore.CheckPath},
	}
}

func wantAgreement(t *testing.T, w *world, name string, c refusalCase, answer response, seen map[string]bool) {
	t.Helper()
	var got managementapi.Refusal
	if err := json.Unmarshal([]byte(answer.Text), &got); err != nil || got.Status < 400 {
		t.Fatalf("%s: the gate answered %d %s", name, answer.StatusCode, answer.Text)
	}
	v := w.app().explain(t.Context(), managementapi.Inquiry{
		Credential: keystore.Secret(strings.TrimPrefix(c.header, "Authorization: ")), Method: http.MethodGet, Path: c.path,
		From: netip.MustParseAddr("127.0.0.1"), Scopes: []string{"hello:read"}, Types: []keystore.Type{keystore.TypeStandard},
	}, time.Now())
	if v.Refuse == nil || *v.Refuse != got {
		t.Errorf("%s: explained as %+v, the gate answered %+v", name, v.Refuse, got)
		return
	}
	if v.Trace.Last() != c.check {
		t.Errorf("%s: refused by %s, want %s", name, v.Trace.Last(), c.check)
	}
	if !slices.IsSorted(v.Trace.Made) {
		t.Errorf("%s: the checks were made in the order %s", name, v.Trace.Made)
	}
	for _, check := range v.Trace.Made {
		if !slices.Contains(keystore.ChecksOf(v.Kind), check) {
			t.Errorf("%s: %s is no check of a credential of kind %s", name, check, v.Kind)
		}
	}
	name = got.Reason
	if name == "" {
		name = got.Code
	}
	seen[name] = true
}

// What passes is explained as passing, by every check there is; and asking
// counts as no use.
func TestExplainOfWhatPasses(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(fields{"name": "demo", "scopes": []string{"hello:read"}})
	pair := string(c.AccessKey) + ":" + c.SecretKey.Reveal()
	token := w.accessToken(c, "")
	w.edit(c, func(e *keystore.Editable) {
		e.Networks = []string{"203.0.113.0/24"}
		e.Limit = keystore.Limit{Requests: 1, Burst: 1, Period: time.Hour}
	})
	for range 3 { // more often than the limit lets anybody
		for _, credential := range []string{c.APIKey.Reveal(), "Token " + c.APIKey.Reveal(), pair, token, "Bearer " + token} {
			r := w.commandReading(credential+"\n", "explain", "--path", "/v1/hello", "--from", "203.0.113.9", "--require-scope", "hello:read", "--require-type", "standard").done()
			for line := range strings.Lines(r.out) {
				if mark := strings.Fields(line)[0]; mark != "ok" && mark != "credential" && mark != "key" {
					t.Errorf("%s", r.out)
				}
			}
			if strings.Contains(r.out, c.SecretKey.Reveal()) || strings.Contains(r.out, token) || !strings.Contains(r.out, string(c.ID)) {
				t.Errorf("%s", r.out)
			}
		}
	}
	w.commandReading(c.APIKey.Reveal(), "explain").done().says("not asked", "it needs --from")
	if got := w.metric(`warder_requests_admitted_total{credential="key"}`); got != "0" {
		t.Errorf("%s requests are counted", got)
	}
	if shown := w.command("keys", "get", string(c.ID)).done().out; !strings.Contains(shown, "Last used at  -") {
		t.Errorf("%s", shown)
	}
	log := w.log()
	for _, secret := range []string{c.SecretKey.Reveal(), token, pair} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestExplainCommandRefuses(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	w.act(c, "block")
	r := w.commandReading(c.APIKey.Reveal(), "explain")
	if r.code != exitState || !strings.Contains(r.errors, "would be refused: 401 invalid_token (blocked)") || !strings.Contains(r.out, "warder keys unblock "+string(c.ID)) {
		t.Errorf("%+v", r)
	}
	w.commandReading(" \n", "explain").fails(exitUsage, "standard input")
	w.commandReading(c.APIKey.Reveal(), "explain", "--method", "GET").fails(exitUsage, "--path")
	w.commandReading(c.APIKey.Reveal(), "explain", "--from", "here").fails(exitUsage, "--from")
	w.commandReading("", "explain", c.APIKey.Reveal()).fails(exitUsage)
	r = w.commandReading("Bearer \x1b[31m", "explain")
	if r.code != exitState || strings.Contains(r.out+r.errors, "\x1b") {
		t.Errorf("%q %q", r.out, r.errors)
	}
}
