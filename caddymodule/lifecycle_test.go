package caddymodule

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// kinds are the four ways to show one key.
var kinds = []struct {
	name   string
	header func(w *world, c credential) string
}{
	{"Token", func(_ *world, c credential) string { return c.token() }},
	{"Bearer", func(_ *world, c credential) string { return c.bearer() }},
	{"Basic", func(_ *world, c credential) string { return c.basic() }},
	{"access token", func(w *world, c credential) string { return "Authorization: Bearer " + w.accessToken(c, "") }},
}

// revocations are the operations that end a credential.
var revocations = []struct {
	name string
	do   func(w *world, c credential)
	want refused
}{
	{"deactivate", func(w *world, c credential) { w.act(c, "deactivate") }, deactivated},
	{"block", func(w *world, c credential) { w.act(c, "block") }, blocked},
	{"expire", func(w *world, c credential) { w.act(c, "expire") }, expired},
	{"rotate force", func(w *world, c credential) { w.reissue(c, "rotate", fields{"force": true}) }, superseded},
	{"rotate twice", func(w *world, c credential) { w.reissue(c, "rotate", nil); w.reissue(c, "rotate", nil) }, refused{}},
	{"regenerate", func(w *world, c credential) { w.reissue(c, "regenerate", nil) }, superseded},
	{"delete", func(w *world, c credential) {
		w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(c.ID), nil)
	}, invalid},
	{"take its scope", func(w *world, c credential) {
		w.manage(http.StatusOK, http.MethodPatch, "/keys/"+string(c.ID), fields{"scopes": []string{"hello:write"}})
	}, refused{403, `Bearer realm="warder", error="insufficient_scope", error_description="The credential lacks a required scope.", scope="hello:read"`, "insufficient_scope", ""}},
}

// Every operation, for every kind of credential, whether the key is in memory
// or not: it passes before, and the first request begun after the answer is
// refused. What is in memory is refused without asking the store.
func TestRevocation(t *testing.T) {
	w := start(t, guarded("grace_period 1h", "require scope hello:read"))
	for _, operation := range revocations {
		for _, kind := range kinds {
			for _, temperature := range []string{"warm", "cold"} {
				t.Run(operation.name+"/"+kind.name+"/"+temperature, func(t *testing.T) {
					c := w.create(fields{"scopes": []string{"hello:read"}})
					header := kind.header(w, c)
					w.chill()
					if temperature == "warm" {
						wantStatus(t, "before", w.get("/", header), http.StatusOK)
					}
					before := w.lookups()
					operation.do(w, c)
					want := operation.want
					if want.status == 0 { // two generations old: a key is forgotten, a token still says its own
						if want = invalid; kind.name == "access token" {
							want = superseded
						}
					}
					wantRefusal(t, "after", w.get("/", header), want)
					if got := w.lookups() - before; temperature == "warm" && got != 0 {
						t.Errorf("the store was asked %d times for a key in memory", got)
					}
				})
			}
		}
	}
	if testing.Verbose() {
		t.Logf("%s look-ups altogether", strconv.FormatUint(w.lookups(), 10))
	}
}

// A look-up that read the key before the operation, and answers after it, does
// not put the revoked key back.
func TestRevocationDuringLookup(t *testing.T) {
	w := start(t, frailConfig("require scope hello:read"))
	for _, operation := range revocations {
		c := w.create(fields{"scopes": []string{"hello:read"}})
		read, answer := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(read); <-answer })
		end := (&troubles{looked: once}).set()
		early := make(chan response)
		go func() {
			r, err := w.try(http.MethodGet, "http://"+w.gate+"/", "", c.token())
			if err != nil {
				t.Errorf("%s: the early request: %v", operation.name, err)
			}
			early <- r
		}()
		<-read
		operation.do(w, c)
		close(answer)
		<-early // begun before the operation: either verdict is right
		end()
		for range 3 {
			if r := w.get("/", c.token()); r.StatusCode < 400 || r.StatusCode >= 500 {
				t.Errorf("%s: begun after the answer, and yet %d", operation.name, r.StatusCode)
			}
		}
	}
}

// The switches are two, and turning them back revives key and access token.
func TestSwitches(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	headers := []string{c.token(), c.basic(), "Authorization: Bearer " + w.accessToken(c, "")}
	for _, step := range []struct {
		verb string
		want refused
	}{
		{"deactivate", deactivated},
		{"block", blocked},
		{"unblock", deactivated}, // the owner's own switch is as the owner left it
		{"activate", refused{}},
		{"block", blocked},
		{"deactivate", blocked},
		{"activate", blocked},
		{"unblock", refused{}},
	} {
		w.act(c, step.verb)
		w.act(c, step.verb) // again is no harm
		for _, header := range headers {
			if r := w.get("/", header); step.want.status == 0 {
				wantStatus(t, step.verb, r, http.StatusOK)
			} else {
				wantRefusal(t, step.verb, r, step.want)
			}
		}
	}
}

func TestRenewRevives(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(fields{"expires_in_days": 3})
	w.act(c, "expire")
	wantRefusal(t, "expired", w.get("/", c.token()), expired)
	w.manage(http.StatusOK, http.MethodPost, "/keys/"+string(c.ID)+"/renew", fields{"days": 1})
	for _, header := range []string{c.token(), c.basic(), "Authorization: Bearer " + w.accessToken(c, "")} {
		wantStatus(t, "renewed", w.get("/", header), http.StatusOK)
	}
}

func TestRegenerateRevives(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	w.act(c, "expire")
	fresh := w.reissue(c, "regenerate", nil)
	wantRefusal(t, "the old pair", w.get("/", c.token()), superseded)
	wantStatus(t, "the new pair", w.get("/", fresh.token()), http.StatusOK)
}

// A rotated-out secret, and the access tokens minted from it, pass until the
// grace period ends, and not longer.
func TestGracePeriod(t *testing.T) {
	w := start(t, guarded("grace_period 2s\n", ""))
	c := w.create(nil)
	old := []string{c.token(), c.basic(), "Authorization: Bearer " + w.accessToken(c, "")}
	began := time.Now()
	next := w.reissue(c, "rotate", nil)
	fresh := []string{next.token(), next.basic(), "Authorization: Bearer " + w.accessToken(next, "")}
	for _, header := range append(old, fresh...) {
		r := w.get("/", header)
		if time.Since(began) < 2*time.Second { // else this machine was too slow to see it
			wantStatus(t, "within the grace period", r, http.StatusOK)
		}
	}
	passWhile(t, w, old[0], began, 2*time.Second)
	for _, header := range old {
		wantRefusal(t, "after the grace period", w.get("/", header), superseded)
	}
	for _, header := range fresh {
		wantStatus(t, "the new secret", w.get("/", header), http.StatusOK)
	}
}

// passWhile reads without a pause until the credential is refused, which must
// not be before began+life and not noticeably after.
func passWhile(t *testing.T, w *world, header string, began time.Time, life time.Duration) {
	t.Helper()
	reads := 0
	for ; ; reads++ {
		asked := time.Now()
		if w.get("/", header).StatusCode != http.StatusOK {
			break
		}
		if asked.Sub(began) > life+time.Second {
			t.Fatalf("still passes %s after the end", asked.Sub(began)-life)
		}
	}
	if lived := time.Since(began); lived < life-time.Second {
		t.Errorf("refused after %s, want about %s", lived, life)
	}
	if reads == 0 {
		t.Error("never passed")
	}
}

// Reading does not prolong anything.
func TestExpiryUnderConstantReads(t *testing.T) {
	w := start(t, guarded("", ""))
	began := time.Now()
	c := w.create(fields{"expires_at": began.Add(2 * time.Second).UTC().Format(time.RFC3339Nano)})
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	passWhile(t, w, c.token(), began, 2*time.Second)
	wantRefusal(t, "the key", w.get("/", c.basic()), expired)
	if r := w.get("/", minted); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("its access token: %d, want 401", r.StatusCode)
	}
}

func TestTokenTTL(t *testing.T) {
	config := siteConfig("", "issuer http://<gate> {\ntoken_ttl 2s\n}", "warder_issuer\nwarder\nreverse_proxy <upstream>")
	w := start(t, config)
	c := w.create(nil)
	began := time.Now()
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	passWhile(t, w, minted, began, 2*time.Second)
	wantRefusal(t, "an old access token", w.get("/", minted), overToken)
	wantStatus(t, "its key", w.get("/", c.token()), http.StatusOK)
}

// An access token lives no longer than what it was minted from.
func TestTokenEndsWithItsSecret(t *testing.T) {
	w := start(t, guarded("grace_period 2s", ""))
	c := w.create(nil)
	began := time.Now()
	w.reissue(c, "rotate", nil)
	minted := "Authorization: Bearer " + w.accessToken(c, "") // with the old secret
	for time.Since(began) < 2*time.Second {
		time.Sleep(50 * time.Millisecond)
	}
	if r := w.get("/", minted); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("minted from a secret in its grace period, after it: %d, want 401", r.StatusCode)
	}
}

// A key taken for absent is there as soon as it is made, even if somebody
// asked for its id before.
func TestCreationIsSeenAtOnce(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	old := c.token()
	w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(c.ID), nil)
	wantRefusal(t, "deleted", w.get("/", old), invalid)
	before := w.lookups()
	wantRefusal(t, "deleted, again", w.get("/", old), invalid)
	if got := w.lookups() - before; got != 0 {
		t.Errorf("the store was asked %d times for a key known to be gone", got)
	}
	wantStatus(t, "a new key", w.get("/", w.create(nil).token()), http.StatusOK)
}

// A client that lost an answer asks again, and gets the same secret.
func TestLostAnswers(t *testing.T) {
	w := start(t, guarded("", ""))
	again := "Idempotency-Key: once-only-1"
	c := w.create(fields{"name": "once"}, again)
	same := w.create(fields{"name": "once"}, again)
	if c.APIKey != same.APIKey || c.ID != same.ID {
		t.Error("a repeated creation made another key")
	}
	wantStatus(t, "the key", w.get("/", same.token()), http.StatusOK)
	w.manage(http.StatusUnprocessableEntity, http.MethodPost, "/keys", fields{"name": "other"}, again)
	for _, verb := range []string{"rotate", "regenerate"} {
		path := "/keys/" + string(c.ID) + "/" + verb
		first := w.issued(w.manage(http.StatusOK, http.MethodPost, path, nil, "Idempotency-Key: "+verb))
		second := w.issued(w.manage(http.StatusOK, http.MethodPost, path, nil, "Idempotency-Key: "+verb))
		if first.APIKey != second.APIKey || first.Generation != second.Generation {
			t.Errorf("a repeated %s made another secret", verb)
		}
		wantStatus(t, verb, w.get("/", second.token()), http.StatusOK)
	}
}

func TestEmergencyRotationOfSigningKeys(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	old := "Authorization: Bearer " + w.accessToken(c, "")
	wantStatus(t, "before", w.get("/", old), http.StatusOK)
	w.manage(http.StatusOK, http.MethodPost, "/signing-keys/rotate", fields{"emergency": true})
	wantRefusal(t, "minted under the distrusted key", w.get("/", old), invalid)
	wantStatus(t, "minted since", w.get("/", "Authorization: Bearer "+w.accessToken(c, "")), http.StatusOK)
	wantStatus(t, "the key itself", w.get("/", c.token()), http.StatusOK)
}
