package caddymodule

import (
	"errors"
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

func benchmarkHandler(b *testing.B, h caddyhttp.MiddlewareHandler, header string) {
	answer := discarding{make(http.Header)}
	reused := prepareReusable(header, "/v1/hello")
	b.ReportAllocs()
	for b.Loop() {
		if err := h.ServeHTTP(answer, reused.again(), whoAsks); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandlerFloor is the part of the benchmarks above that is not the
// handler's: to make a used request a new one again, and to look for the
// placeholder.
func BenchmarkHandlerFloor(b *testing.B) { benchmarkHandler(b, absentHandler{}, "Authorization: none") }

// absentHandler stands where the handler would.
type absentHandler struct{}

func (absentHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if err := next.ServeHTTP(w, r); err == nil {
		return errors.New("nobody has named the caller, and yet it has a name")
	}
	return nil
}

// reusable is a request that can be served again and again as if it had just
// come in: its headers stand in a map of their own, made as net/http makes it,
// and nobody has been admitted or provided placeholders.
type reusable struct {
	request      *http.Request
	header       http.Header
	placeholders *caddy.Replacer
	untouched    caddy.Replacer
}

func prepareReusable(header, path string) *reusable {
	r := prepared(header, path)
	placeholders := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return &reusable{request: r, header: r.Header, placeholders: placeholders, untouched: *placeholders}
}

func (u *reusable) again() *http.Request {
	u.request.Header = make(http.Header, len(u.header))
	maps.Copy(u.request.Header, u.header)
	*u.placeholders = u.untouched
	caddyhttp.SetVar(u.request.Context(), admissionVar, nil)
	return u.request
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
		return errNobody
	}
	return nil
})

var errNobody = errors.New("the caller is not named")

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

const maxHandlerAllocations = 3
