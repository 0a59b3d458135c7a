package caddymodule

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

// scarce gives so many requests and, while a test lasts, no more.
func scarce(requests uint32) keystore.Limit {
	return keystore.Limit{Requests: 1, Burst: requests, Period: time.Hour}
}

func (w *world) limit(c credential, l keystore.Limit) {
	w.t.Helper()
	w.edit(c, func(e *keystore.Editable) { e.Limit = l })
}

func wantLimited(t *testing.T, what string, r response, l keystore.Limit) {
	t.Helper()
	wantStatus(t, what, r, http.StatusTooManyRequests)
	wantChallenge(t, what, r, "")
	wantProblem(t, what, r, refused{status: 429, code: "rate_limited"})
	interval := int(l.Period/time.Second) / int(l.Requests)
	for name, want := range map[string][2]int{
		"Retry-After":         {1, max(1, interval)},
		"RateLimit-Limit":     {int(l.Burst), int(l.Burst)},
		"RateLimit-Remaining": {0, 0},
		"RateLimit-Reset":     {1, max(1, interval*int(l.Burst))},
	} {
		if n, err := strconv.Atoi(r.Header.Get(name)); err != nil || n < want[0] || n > want[1] {
			t.Errorf("%s: %s is %q, want %d to %d", what, name, r.Header.Get(name), want[0], want[1])
		}
	}
	policy := strconv.Itoa(int(l.Requests)) + ";w=" + strconv.Itoa(int(l.Period/time.Second)) + ";burst=" + strconv.Itoa(int(l.Burst))
	if got := r.Header.Get("RateLimit-Policy"); got != policy {
		t.Errorf("%s: RateLimit-Policy %q, want %q", what, got, policy)
	}
}

// Of what comes at once over 64 connections, exactly the burst passes; what
// comes back does so one by one.
func TestLimitIsExact(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	few := scarce(40)
	w.limit(c, few)
	minted := "Authorization: Bearer " + w.accessToken(c, "")
	var passed, limited atomic.Int64
	var clients sync.WaitGroup
	for i := range 64 {
		clients.Go(func() {
			header := [...]string{c.token(), c.bearer(), c.basic(), minted}[i%4] // one limit for all
			for range 4 {
				switch r, err := w.try(http.MethodGet, "http://"+w.gate+"/", "", header); {
				case err != nil:
					t.Error(err)
				case r.StatusCode == http.StatusOK:
					passed.Add(1)
				case r.StatusCode == http.StatusTooManyRequests:
					limited.Add(1)
				default:
					t.Errorf("status %d", r.StatusCode)
				}
			}
		})
	}
	clients.Wait()
	if passed.Load() != 40 || limited.Load() != 64*4-40 || len(w.upstream.take()) != 40 {
		t.Errorf("%d passed and %d were refused, want 40 of %d", passed.Load(), limited.Load(), 64*4)
	}
	wantLimited(t, "one more", w.get("/", c.token()), few)
	if got := w.metric(`warder_requests_refused_total{reason="rate_limited"}`); got != strconv.Itoa(64*4-40+1) {
		t.Errorf("%s refusals are counted", got)
	}
	w.limit(c, keystore.Limit{Requests: 20, Burst: 40, Period: time.Second})
	eventually(t, "the limit to refill", func() bool { return w.get("/", c.token()).StatusCode == http.StatusOK })
}

// An answer that passes says nothing of limits.
func TestPassingAnswersShowNoLimit(t *testing.T) {
	w := start(t, guarded("", ""))
	c := w.create(nil)
	w.limit(c, scarce(2))
	for name := range w.get("/", c.token()).Header {
		if strings.HasPrefix(strings.ToLower(name), "ratelimit") || name == "Retry-After" {
			t.Errorf("%s is there", name)
		}
	}
}

// The organization's limit is the default of each of its keys.
func TestLimitOfTheOrganization(t *testing.T) {
	w := start(t, guarded("", ""))
	usual, special := w.create(nil), w.create(nil)
	w.limit(special, scarce(1))
	w.reorganize(func(o *keystore.Organization) { o.Limit = scarce(3) })
	for what, row := range map[string]struct {
		c     credential
		limit keystore.Limit
	}{"of the organization": {usual, scarce(3)}, "another of it": {w.create(nil), scarce(3)}, "its own": {special, scarce(1)}} {
		for range row.limit.Burst {
			wantStatus(t, what, w.get("/", row.c.token()), http.StatusOK)
		}
		wantLimited(t, what, w.get("/", row.c.token()), row.limit)
	}
	w.reorganize(func(o *keystore.Organization) { o.Limit = keystore.Limit{} })
	wantStatus(t, "taken away", w.get("/", usual.token()), http.StatusOK)
	wantLimited(t, "its own stays", w.get("/", special.token()), scarce(1))
}

// reorganize changes the default organization.
func (w *world) reorganize(change func(*keystore.Organization)) {
	w.t.Helper()
	_, err := w.app().service().UpdateOrganization(w.t.Context(), keystore.LocalCaller(), keystore.DefaultOrganization, 0,
		func(o *keystore.Organization) error { change(o); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
}

// The limit is the key's: what it has used up stays so when its secret is
// replaced, when the configuration is, and when it is pushed out of memory.
func TestLimitOutlastsWhatIsNotTheKey(t *testing.T) {
	config := guarded("cache_size 2", "")
	w := start(t, config)
	c := w.create(nil)
	w.limit(c, scarce(1))
	wantStatus(t, "the only one", w.get("/", c.token()), http.StatusOK)
	rotated := w.reissue(c, "rotate", nil)
	for name, header := range map[string]string{"the old secret": c.token(), "the new secret": rotated.token()} {
		wantLimited(t, name, w.get("/", header), scarce(1))
	}
	w.mustLoad(config)
	wantLimited(t, "after a reload", w.get("/", c.token()), scarce(1))
	for range 8 {
		other := w.create(nil)
		wantStatus(t, "another", w.get("/", other.token()), http.StatusOK)
	}
	wantLimited(t, "after having been pushed out", w.get("/", c.token()), scarce(1))
	w.chill()
	wantLimited(t, "after the cache was purged", w.get("/", c.token()), scarce(1))
}

// One request is one request: a second handler takes nothing, shadow refuses
// nothing and yet takes, and what needs no credential takes nothing.
func TestLimitIsTakenOnce(t *testing.T) {
	w := start(t, siteConfig("", "", "route {\nwarder\nwarder {\nrealm other\n}\nreverse_proxy <upstream>\n}"))
	c := w.create(nil)
	w.limit(c, scarce(2))
	for range 2 {
		wantStatus(t, "twice guarded", w.get("/", c.token()), http.StatusOK)
	}
	wantLimited(t, "twice guarded", w.get("/", c.token()), scarce(2))

	w.mustLoad(guarded("", "public /free\nshadow"))
	shadowed := w.create(nil)
	w.limit(shadowed, scarce(2))
	for range 4 {
		wantStatus(t, "public", w.get("/free", shadowed.token()), http.StatusOK)
	}
	before := w.metric(`warder_requests_refused_total{reason="rate_limited"}`)
	for range 5 {
		r := w.get("/", shadowed.token())
		wantStatus(t, "in shadow mode", r, http.StatusOK)
		if r.Header.Get("Retry-After") != "" || r.Header.Get("RateLimit-Limit") != "" {
			t.Error("an answer that passed speaks of the limit")
		}
	}
	after := w.metric(`warder_requests_refused_total{reason="rate_limited"}`)
	if b, _ := strconv.Atoi(before); after != strconv.Itoa(b+3) {
		t.Errorf("of five, %s minus %s would have been refused, want 3", after, before)
	}
}

// The checks between the proof of a credential and the answer allocate
// nothing, refused or not, but for the refusal itself.
func TestChecksDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	w := start(t, guarded("", ""))
	c := w.create(nil)
	id := w.permit("all", keystore.Rule{Methods: []string{"GET"}, Paths: []string{"/other", "/v1/*/x", "/v1/*"}})
	w.edit(c, func(e *keystore.Editable) {
		e.Networks = []string{"10.0.0.0/8", "127.0.0.0/8", "2001:db8::/32"}
		e.Permissions = []string{id}
		e.Limit = keystore.Limit{Requests: 1_000_000, Burst: 10_000_000, Period: time.Second}
	})
	h, r := w.handler(new(Handler)), prepared(c.token(), "/v1/hello")
	caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, "127.0.0.1")
	now := time.Now()
	p, err := h.authenticate(r, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.gate.permit(r, nil, &p); err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(1000, func() {
		if h.gate.permit(r, nil, &p) != nil || h.gate.spend(nil, &p, now) != nil {
			t.Error("refused")
		}
		p.Meter.Pass(p.Generation, now)
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
	if got := testing.AllocsPerRun(1000, func() {
		if _, err := h.decide(r, nil, now); err != nil {
			t.Error(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations for the whole decision", got)
	}
}
