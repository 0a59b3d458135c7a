package managementapi

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func TestIfMatch(t *testing.T) {
	g := newRig(t)
	key := g.make(`{}`)
	path := "/keys/" + string(key.ID)
	tag := etag(key.Revision)
	stale := etag(key.Revision - 1)
	for _, c := range []struct {
		value string
		want  int
	}{
		{tag, 200}, {"*", 200}, {" * ", 200}, {stale + ", " + tag, 200}, {tag + " ,\t" + stale, 200}, {`"a,b", ` + tag, 200}, {`W/"1",` + tag, 200},
		{stale, 412}, {"W/" + tag, 412}, {`"0"`, 412}, {`"-1"`, 412}, {`"0` + strings.Trim(tag, `"`) + `"`, 412}, {`"+1"`, 412}, {`""`, 412},
		{stale + `,"9999999"`, 412}, {`"99999999999999999999999"`, 412},
		{strings.Trim(tag, `"`), 400}, {`"`, 400}, {`"1`, 400}, {tag + tag, 400}, {"*, " + tag, 400}, {`w/"1"`, 400}, {",", 400}, {"", 400}, {`W/1`, 400},
	} {
		r := g.send("POST", path+"/activate", "", "If-Match", c.value) // changes nothing, so the revision stays
		switch c.want {
		case 200:
			if r.status != 200 {
				t.Errorf("If-Match: %s: %d %s", c.value, r.status, r.raw)
			}
		case 412:
			r.refused(412, "stale_revision", "If-Match")
		case 400:
			r.refused(400, "invalid_header", "If-Match")
		}
	}
	if r := g.send("POST", path+"/activate", "", "If-Match", stale, "If-Match", tag); r.status != 200 {
		t.Errorf("two lines: %d %s", r.status, r.raw)
	}
}

// A stale edit is refused by every route that changes something, and has then
// changed nothing.
func TestIfMatchOnEveryChange(t *testing.T) {
	g := newRig(t)
	body := map[string]string{
		"/keys/{id}": `{"name":"x"}`, "/keys/{id}/renew": `{"days":3}`, "/keys/{id}/grace": `{"ends_in_seconds":9}`,
		"/organizations/{slug}": `{"default_expiry_days":3}`, "/permissions/{id}": `{"description":"x"}`,
	}
	walked := 0
	for _, rt := range routes {
		if rt.method == http.MethodGet || !strings.Contains(rt.pattern, "{") {
			continue
		}
		walked++
		id := string(g.changed(`{"expires_in_days":30}`, "deactivate"))
		ok[IssuedKey](g.send("POST", "/keys/"+id+"/rotate", ""), 200)
		path := g.pathTo(rt, keystore.KeyID(id))
		text := body[rt.pattern]
		if rt.method == http.MethodDelete {
			text = ""
		}
		before := g.record(keystore.KeyID(id))
		g.send(rt.method, path, text, "If-Match", `"9999999"`).refused(412, "stale_revision", "If-Match")
		if now := g.record(keystore.KeyID(id)); now != before {
			t.Errorf("%s %s changed the key", rt.method, rt.pattern)
		}
		if rt.pattern == "/keys/{id}/unblock" || rt.pattern == "/keys/{id}/activate" {
			continue
		}
		tag := etag(before.Revision)
		if !strings.HasPrefix(rt.pattern, "/keys/") {
			tag = g.send("GET", path, "").header.Get("ETag")
		}
		if r := g.send(rt.method, path, text, "If-Match", tag); r.status != 200 {
			t.Errorf("%s %s with the right tag: %d %s", rt.method, rt.pattern, r.status, r.raw)
		}
	}
	if walked != 15 {
		t.Errorf("walked %d routes", walked)
	}
}

func TestLostAnswerIsGivenAgain(t *testing.T) {
	g := newRig(t)
	id := string(g.make(`{}`).ID)
	for i, c := range []struct {
		path, body, same, other string
		status                  int
	}{
		{"/keys", `{"name":"once","scopes":["a"]}`, `{ "scopes":["a"], "name":"\u006fnce"}`, `{"name":"twice"}`, 201},
		{"/keys/" + id + "/rotate", ``, `{}`, `{"force":true}`, 200},
		{"/keys/" + id + "/regenerate", `{"expires_in_days":30}`, `{"expires_in_days": 30 }`, `{}`, 200},
		{"/organizations", `{"slug":"acme"}`, `{"slug":"acme"}`, `{"slug":"acme","key":{"name":"x"}}`, 201},
	} {
		once := fmt.Sprintf("retry-%d", i)
		first := g.send("POST", c.path, c.body, "Idempotency-Key", once)
		key := ok[IssuedKey](first, c.status)
		if first.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%s: the first answer is no replay", c.path)
		}
		second := g.send("POST", c.path, c.same, "Idempotency-Key", once)
		if again := ok[IssuedKey](second, c.status); again.SecretKey != key.SecretKey || again.APIKey != key.APIKey || again.ID != key.ID || again.Generation != key.Generation {
			t.Errorf("%s: another answer: %s", c.path, second.raw)
		}
		if second.header.Get("Idempotent-Replayed") != "true" || second.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", c.path, second.header)
		}
		g.send("POST", c.path, c.other, "Idempotency-Key", once).refused(422, "replay_mismatch", "")
		if rec := g.record(key.ID); uint64(rec.Current.Generation) != key.Generation {
			t.Errorf("%s: the retries changed the key to generation %d", c.path, rec.Current.Generation)
		}
	}
}

// The scope of an Idempotency-Key is caller and route, the key's id included.
func TestIdempotencyKeyOfAnotherCallIsAnother(t *testing.T) {
	g := newRig(t)
	one, two := g.make(`{}`), g.make(`{}`)
	for _, id := range []keystore.KeyID{one.ID, two.ID} {
		if r := ok[IssuedKey](g.send("POST", "/keys/"+string(id)+"/rotate", "", "Idempotency-Key", "k"), 200); r.ID != id || r.Generation != 2 {
			t.Errorf("%+v", r.Key)
		}
	}
	g.as("default", "warder:keys")
	if r := g.send("POST", "/keys/"+string(one.ID)+"/rotate", "", "Idempotency-Key", "k"); r.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("another caller got the first one's answer: %s", r.raw)
	}
}

func TestIdempotencyKeyRefusals(t *testing.T) {
	g := newRig(t)
	for _, value := range []string{"", "a b", "\xc3\xa4", strings.Repeat("x", 256)} {
		g.send("POST", "/keys", "{}", "Idempotency-Key", value).refused(400, "invalid_header", "Idempotency-Key")
	}
	g.send("POST", "/keys", "{}", "Idempotency-Key", "a", "Idempotency-Key", "b").refused(400, "invalid_header", "Idempotency-Key")
	if r := g.send("POST", "/keys", "{}", "Idempotency-Key", strings.Repeat("x", 255)); r.status != 201 {
		t.Errorf("%s", r.raw)
	}
}

// The same call made eleven minutes ago: its secret is gone, its key is named.
func TestReplayWithoutItsSecret(t *testing.T) {
	g := newRig(t)
	once := &keystore.Once{Key: "late", Route: "POST /keys ", Request: sha256.Sum256([]byte("{}\n"))}
	made, err := g.service.CreateKey(t.Context(), keystore.LocalCaller(), keystore.NewKey{}, once, time.Now().Add(-11*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	p := g.send("POST", "/keys", "{}", "Idempotency-Key", "late").refused(409, "replay_secret_gone", "")
	if p.KeyID != made.Record.ID {
		t.Errorf("id %q, want %q", p.KeyID, made.Record.ID)
	}
}

// While the first call runs, the second is told to wait.
func TestReplayOfARunningCall(t *testing.T) {
	g := newRig(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	slow := *g.service
	slow.Store = slowStore{g.service.Store, inside, leave}
	g.serve(Config{Service: &slow, Caller: g.who, Prefix: "/warder/v1", Log: g.log})
	first := make(chan reply)
	go func() { first <- g.send("POST", "/keys", "{}", "Idempotency-Key", "k") }()
	<-inside
	g.send("POST", "/keys", "{}", "Idempotency-Key", "k").refused(409, "replay_running", "")
	close(leave)
	if r := <-first; r.status != 201 {
		t.Errorf("%s", r.raw)
	}
}
