package caddymodule

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// bring imports a credential of another system and returns its key's id.
func (w *world) bring(text string, change func(*keystore.Import)) keystore.KeyID {
	w.t.Helper()
	in := keystore.Import{NewKey: keystore.NewKey{Name: text}, Credential: keystore.Secret(text)}
	if change != nil {
		change(&in)
	}
	made, err := w.app().service().ImportKeys(w.t.Context(), keystore.LocalCaller(), []keystore.Import{in}, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return made[0].ID
}

const foreignKey = "5up3r-secret_key.of/another+system=="

// A credential of another system goes on working as it is, whether it was
// imported by value or by its digest.
func TestImportedCredentialPasses(t *testing.T) {
	w := start(t, guarded("", ""))
	byValue := w.bring(foreignKey, nil)
	byDigest := w.bring("by digest", func(in *keystore.Import) {
		in.Credential, in.SHA256 = "", sha256.Sum256([]byte("another-foreign-key"))
	})
	for credential, id := range map[string]keystore.KeyID{foreignKey: byValue, "another-foreign-key": byDigest} {
		for _, scheme := range []string{"Token ", "Bearer "} {
			wantStatus(t, scheme, w.get("/", "Authorization: "+scheme+credential), http.StatusOK)
			got := w.upstream.one(t).Header
			if got.Get("X-Warder-Key-Id") != string(id) || got.Get("X-Warder-Credential") != "key" || got["Authorization"] != nil {
				t.Errorf("%s%s: the API behind was told %v", scheme, credential, got)
			}
		}
	}
	if got := w.metric(`warder_requests_admitted_total{credential="imported"}`); got != "4" {
		t.Errorf("%s counted, want 4", got)
	}
	w.act(credential{}.with(byValue), "block")
	wantRefusal(t, "blocked", w.get("/", "Authorization: Token "+foreignKey), blocked)
}

func (c credential) with(id keystore.KeyID) credential { c.ID = id; return c }

func TestImportedCredentialInItsOwnHeader(t *testing.T) {
	filtered := strings.Replace(quietLog, "level DEBUG", "level DEBUG\nformat filter {\nrequest>headers>X-Api-Key delete\n}", 1)
	w := start(t, strings.Replace(guarded("", "credential header X-Api-Key"), quietLog, filtered, 1))
	id := w.bring(foreignKey, nil)
	wantStatus(t, "in its header", w.get("/", "X-Api-Key: "+foreignKey, "Authorization: Basic b3RoZXI6eA=="), http.StatusOK)
	got := w.upstream.one(t).Header
	if got.Get("X-Warder-Key-Id") != string(id) || got["X-Api-Key"] != nil || got.Get("Authorization") == "" {
		t.Errorf("the API behind was told %v", got)
	}
}

// Rotated, the key is native, and its foreign credential what any secret that
// was rotated out is.
func TestImportedCredentialBecomesNative(t *testing.T) {
	w := start(t, guarded("grace_period 1h", ""))
	foreign := func(n int) string { return fmt.Sprintf("%s%d", foreignKey, n) }
	for n, row := range []struct {
		verb   string
		body   fields
		native bool    // there is a new credential
		want   refused // of the foreign one; zero: it passes
	}{
		{"rotate", nil, true, refused{}},
		{"rotate", fields{"force": true}, true, superseded},
		{"regenerate", nil, true, superseded},
		{"block", nil, false, blocked},
		{"deactivate", nil, false, deactivated},
		{"expire", nil, false, expired},
	} {
		c, header := credential{}.with(w.bring(foreign(n), nil)), "Authorization: Bearer "+foreign(n)
		wantStatus(t, "before", w.get("/", header), http.StatusOK)
		answer := w.manage(http.StatusOK, http.MethodPost, "/keys/"+string(c.ID)+"/"+row.verb, row.body)
		if r := w.get("/", header); row.want.status == 0 {
			wantStatus(t, row.verb, r, http.StatusOK)
		} else {
			wantRefusal(t, row.verb, r, row.want)
		}
		if !row.native {
			continue
		}
		issued := w.issued(answer)
		for name, header := range w.shown(issued) {
			wantStatus(t, row.verb+": the new "+name, w.get("/", header), http.StatusOK)
		}
		w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(c.ID), nil)
		wantRefusal(t, row.verb+", deleted", w.get("/", header), invalid)
		wantRefusal(t, row.verb+", deleted, the new one", w.get("/", issued.token()), invalid)
	}
}

// What nobody has imported looks like any bad credential, and passes from the
// moment at which somebody has, although it was remembered as unknown.
func TestUnknownForeignCredential(t *testing.T) {
	w := start(t, guarded("", ""))
	unknown := func() response { return w.get("/", "Authorization: Token "+foreignKey) }
	before := unknown()
	wantRefusal(t, "without any import", before, invalid)
	if got := w.lookups(); got != 0 {
		t.Errorf("%d look-ups while nothing was imported", got)
	}
	w.bring("something-else", nil)
	for range 3 {
		r := unknown()
		wantRefusal(t, "unknown", r, invalid)
		if r.Text != before.Text {
			t.Errorf("unknown is answered with %q, without imports with %q", r.Text, before.Text)
		}
	}
	if got := w.lookups(); got != 1 {
		t.Errorf("%d look-ups for one unknown credential, want 1", got)
	}
	id := w.bring(foreignKey, nil)
	wantStatus(t, "imported", unknown(), http.StatusOK)
	w.manage(http.StatusOK, http.MethodDelete, "/keys/"+string(id), nil)
	wantRefusal(t, "deleted", unknown(), invalid)
}

// Nothing tells a made-up foreign credential from a good one before the store
// has been asked, so a flood of them is bounded: in how many look-ups run at
// once, in what is remembered, and in what it costs everybody else.
func TestForeignFlood(t *testing.T) {
	flood := 50_000
	if testing.Short() || raceDetector {
		flood = 5_000
	}
	w := start(t, frailConfig(""))
	w.bring(foreignKey, nil)
	c := w.create(nil)
	wantStatus(t, "warming up", w.get("/", c.token()), http.StatusOK)
	wantStatus(t, "warming up", w.get("/", "Authorization: Token "+foreignKey), http.StatusOK)
	var running, most atomic.Int64
	end := (&troubles{lookup: func(context.Context) error {
		for n := running.Add(1); n > most.Load(); {
			most.CompareAndSwap(most.Load(), n)
		}
		return nil
	}, looked: func() { running.Add(-1) }}).set()
	defer end()
	h, before := w.handler(new(Handler)), heap()
	var clients sync.WaitGroup
	for i := range 64 {
		clients.Go(func() {
			random, answer := rand.New(rand.NewPCG(uint64(i), 3)), discarding{make(http.Header)}
			r := prepared("Authorization: ", "/")
			for range flood / 64 {
				clear(answer.header)
				r.Header["Authorization"] = []string{fmt.Sprintf("Bearer foreign-%x", random.Uint64())}
				if err := h.ServeHTTP(answer, r, nowhere); err != nil || answer.header["Www-Authenticate"] == nil {
					t.Error("not refused", err)
				}
			}
		})
	}
	clients.Wait()
	if most.Load() > 16 || most.Load() < 1 {
		t.Errorf("%d look-ups at once, want at most 16", most.Load())
	}
	if after := heap(); after > before+32<<20 {
		t.Errorf("the flood has left %d KiB, want at most 32 MiB", (after-before)>>10)
	}
	lookups := w.lookups()
	wantStatus(t, "the native key", w.get("/", c.token()), http.StatusOK)
	wantStatus(t, "the imported key", w.get("/", "Authorization: Token "+foreignKey), http.StatusOK)
	if got := w.lookups() - lookups; got != 0 {
		t.Errorf("the flood has pushed out %d good keys", got)
	}
	wantSeries(t, w)
	t.Logf("%d made-up credentials, at most %d look-ups at once, %d KiB left", flood, most.Load(), (heap()-before)>>10)
}
