package caddymodule

import (
	"maps"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkHandlerKey is a whole request with an API key: normal form, strip,
// decision, identity headers, and a placeholder that is asked for. How Caddy
// prepares the request is not in it.
func BenchmarkHandlerKey(b *testing.B) {
	w, c := benchmarkWorld(b)
	benchmarkHandler(b, w.handler(new(Handler)), c.token())
}

// BenchmarkHandlerToken is the same with an access token seen before.
func BenchmarkHandlerToken(b *testing.B) {
	w, c := benchmarkWorld(b)
	benchmarkHandler(b, w.handler(new(Handler)), "Authorization: Bearer "+w.accessToken(c, ""))
}

// BenchmarkHandlerRefusal is a request with a made-up key.
func BenchmarkHandlerRefusal(b *testing.B) {
	w, _ := benchmarkWorld(b)
	h := w.handler(new(Handler))
	r := prepared("Authorization: Bearer made-up", "/v1/hello")
	b.ReportAllocs()
	for b.Loop() {
		if err := h.ServeHTTP(discarding{make(http.Header)}, r, nowhere); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkWorld(t testing.TB) (*world, credential) {
	w := start(t, guarded("", ""))
	return w, w.create(fields{"name": "a usual name", "scopes": []string{"hello:read", "hello:write"}})
}

// A request is prepared while the clock stands, and then used several times:
// it is warm, as one that was just read. Its headers are put back each time,
// which costs less than a tenth of the whole and is counted.
const uses = 64

func benchmarkHandler(b *testing.B, h *Handler, header string) {
	answer := discarding{make(http.Header)}
	serveBatch(b, h, header, make([]*http.Request, 1), answer) // the key, too, is warm
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += uses {
		b.StopTimer()
		r := prepared(header, "/v1/hello")
		came := r.Header.Clone()
		b.StartTimer()
		for range min(uses, b.N-done) {
			clear(r.Header)
			maps.Copy(r.Header, came)
			if err := h.ServeHTTP(answer, r, whoAsks); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func serveBatch(t testing.TB, h *Handler, header string, requests []*http.Request, answer http.ResponseWriter) {
	for i := range requests {
		requests[i] = prepared(header, "/v1/hello")
		if err := h.ServeHTTP(answer, requests[i], whoAsks); err != nil {
			t.Fatal(err)
		}
	}
}

// whoAsks is an API behind that asks for a placeholder, as the access log does.
var whoAsks = caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if id, ok := repl.Get("http.auth.user.id"); !ok || id == "" || len(r.Header["X-Warder-Key-Id"]) != 1 {
		return caddyhttp.Error(http.StatusInternalServerError, nil)
	}
	return nil
})

// What a request costs in memory does not grow unnoticed.
func TestHandlerAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	w, c := benchmarkWorld(t)
	h := w.handler(new(Handler))
	for name, header := range map[string]string{"key": c.token(), "access token": "Authorization: Bearer " + w.accessToken(c, "")} {
		const runs = 200
		requests := make([]*http.Request, runs+1)
		answer := discarding{make(http.Header)}
		serveBatch(t, h, header, requests, answer)
		for i := range requests {
			requests[i] = prepared(header, "/v1/hello")
		}
		next := 0
		got := testing.AllocsPerRun(runs, func() {
			if err := h.ServeHTTP(answer, requests[next], whoAsks); err != nil {
				t.Fatal(err)
			}
			next++
		})
		if got > maxHandlerAllocations {
			t.Errorf("%s: %.1f allocations for one request, want at most %d", name, got, maxHandlerAllocations)
		}
	}
}

const maxHandlerAllocations = 6
