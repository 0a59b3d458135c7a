package caddymodule

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/warderhq/warder/keystore"
)

// spanCollector receives what Caddy exports, as OTLP over HTTP.
type spanCollector struct {
	*httptest.Server

	mu    sync.Mutex // guards all below
	spans []span
	raw   strings.Builder // every request, as it came in
}

// span is what was exported of one, with its attributes as text.
type span struct {
	Name, Scope, Trace, ID, Parent string
	Kind                           wire.Span_SpanKind
	Failed                         bool
	Attributes                     map[string]string
}

// collectSpans lets Caddy's directive "tracing" export to a collector for the
// time of the test.
func collectSpans(t *testing.T) *spanCollector {
	c := new(spanCollector)
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp",
		"OTEL_BSP_SCHEDULE_DELAY": "20", // milliseconds
	} {
		t.Setenv(name, value)
	}
	return c
}

func (c *spanCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var batch collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &batch)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(body)
	for _, resource := range batch.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, readSpan(scope.Scope.Name, s))
			}
		}
	}
}

func readSpan(scope string, s *wire.Span) span {
	read := span{
		Name: s.Name, Scope: scope, Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId),
		Parent: hex.EncodeToString(s.ParentSpanId), Kind: s.Kind, Failed: s.Status.GetCode() == wire.Status_STATUS_CODE_ERROR,
		Attributes: make(map[string]string),
	}
	for _, a := range s.Attributes {
		read.Attributes[a.Key] = textOf(a.Value)
	}
	return read
}

func textOf(v *common.AnyValue) string {
	if b, ok := v.Value.(*common.AnyValue_BoolValue); ok {
		return fmt.Sprint(b.BoolValue)
	}
	return v.GetStringValue()
}

// of returns the spans of a trace by their names, once the request's own is
// there, which ends last.
func (c *spanCollector) of(t *testing.T, id string) map[string]span {
	t.Helper()
	found := make(map[string]span)
	eventually(t, "the trace "+id, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		clear(found)
		for _, s := range c.spans {
			if s.Trace == id {
				found[s.Name] = s
			}
		}
		return found["site"].ID != ""
	})
	return found
}

// traced asks the gate with a trace of its own, the nth, and returns its spans.
func (c *spanCollector) traced(w *world, n int, headers ...string) map[string]span {
	w.t.Helper()
	id := fmt.Sprintf("%032x", n)
	w.get("/", append(headers, "Traceparent: 00-"+id+"-00f067aa0ba902b7-01")...)
	return c.of(w.t.(*testing.T), id)
}

// tracedSite is a site of which every request is a span named site.
func tracedSite(store, options string) string {
	text := siteConfig("", "issuer http://<gate>", "tracing {\nspan site\n}\nturnstile\nwarder_issuer\nwarder {\n"+options+"\n}\nreverse_proxy <upstream>")
	return strings.Replace(text, "store sqlite", "store "+store, 1)
}

func wantAttributes(t *testing.T, s span, want map[string]string) {
	t.Helper()
	for name := range s.Attributes {
		if _, ok := want[name]; !ok && strings.Contains(name, "warder") {
			t.Errorf("%s has %s=%q, and should not", s.Name, name, s.Attributes[name])
		}
	}
	for name, value := range want {
		if got := s.Attributes[name]; got != value {
			t.Errorf("%s has %s=%q, want %q", s.Name, name, got, value)
		}
	}
}

// The decision is a span below the request's, the look-up that it waited for
// one below the decision's, and a key in memory is not looked up.
func TestTraceOfADecision(t *testing.T) {
	c := collectSpans(t)
	w := start(t, tracedSite("sqlite", ""))
	key := w.create(fields{"name": "traced"})
	w.chill()
	whose := map[string]string{
		"warder.outcome": "admitted", "warder.credential": "key", "warder.key.id": string(key.ID), "warder.organization": "default",
	}
	cold := c.traced(w, 1, key.token())
	wantAttributes(t, cold[spanDecision], whose)
	wantAttributes(t, cold[spanLookup], map[string]string{
		"warder.key.id": string(key.ID), "db.system.name": "sqlite", "db.operation.name": "lookup",
	})
	if cold[spanDecision].Parent != cold["site"].ID || cold[spanLookup].Parent != cold[spanDecision].ID {
		t.Errorf("the spans hang together otherwise: %+v", cold)
	}
	if d, l := cold[spanDecision], cold[spanLookup]; d.Scope != instrumentation || l.Kind != wire.Span_SPAN_KIND_CLIENT || d.Failed || l.Failed {
		t.Errorf("the spans say %+v and %+v", d, l)
	}
	warm := c.traced(w, 2, key.token())
	wantAttributes(t, warm[spanDecision], whose)
	if _, looked := warm[spanLookup]; looked {
		t.Error("a key in memory was looked up")
	}
	whose["warder.credential"] = "access_token"
	wantAttributes(t, c.traced(w, 3, "Authorization: Bearer "+w.accessToken(key, ""))[spanDecision], whose)
}

// A refusal is told by its reason, and with whom it was about if that is proved.
func TestTraceOfARefusal(t *testing.T) {
	c := collectSpans(t)
	w := start(t, tracedSite("sqlite", ""))
	key := w.create(nil)
	w.act(key, "block")
	wantAttributes(t, c.traced(w, 1, key.token())[spanDecision], map[string]string{
		"warder.outcome": "refused", "warder.reason": "blocked",
		"warder.credential": "key", "warder.key.id": string(key.ID), "warder.organization": "default",
	})
	nobody := map[string]string{"warder.outcome": "refused", "warder.reason": "invalid_token"}
	wantAttributes(t, c.traced(w, 2, "Authorization: Bearer made-up")[spanDecision], nobody)
	nobody["warder.reason"] = "credential_missing"
	wantAttributes(t, c.traced(w, 3)[spanDecision], nobody)

	w.mustLoad(tracedSite("sqlite", "optional"))
	wantAttributes(t, c.traced(w, 4)[spanDecision], map[string]string{"warder.outcome": "unnamed"})
	w.mustLoad(tracedSite("sqlite", "shadow"))
	nobody["warder.shadow"] = "true"
	wantAttributes(t, c.traced(w, 5)[spanDecision], nobody)
	w.mustLoad(tracedSite("sqlite", "public /"))
	if _, decided := c.traced(w, 6)[spanDecision]; decided {
		t.Error("a public path was decided about")
	}
}

// A store that is away fails both spans. That is no refusal, which fails none.
func TestTraceOfAnOutage(t *testing.T) {
	c := collectSpans(t)
	w := start(t, tracedSite("frail", ""))
	key := w.create(nil)
	w.chill()
	defer (&troubles{lookup: func(context.Context) error { return errStoreDown }}).set()()
	spans := c.traced(w, 1, key.token())
	wantAttributes(t, spans[spanDecision], map[string]string{
		"warder.outcome": "refused", "warder.reason": "temporarily_unavailable", "error.type": "temporarily_unavailable",
	})
	wantAttributes(t, spans[spanLookup], map[string]string{"error.type": "unavailable", "db.system.name": "frail"})
	if !spans[spanDecision].Failed || !spans[spanLookup].Failed {
		t.Errorf("an outage shows as %+v", spans)
	}
	if strings.Contains(c.exported(), errStoreDown.Error()) {
		t.Error("a span holds the text of an error")
	}
}

func (c *spanCollector) exported() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// A look-up that many wait for is one span, below one of their decisions.
func TestTraceOfALookupForMany(t *testing.T) {
	c := collectSpans(t)
	w := start(t, tracedSite("frail", ""))
	key := w.create(nil)
	w.chill()
	const callers = 8
	arrived := make(chan struct{})
	defer (&troubles{lookup: func(context.Context) error { <-arrived; return nil }}).set()()
	before := entered.Load()
	var asking sync.WaitGroup
	for n := range callers {
		asking.Go(func() {
			if _, err := w.try(http.MethodGet, "http://"+w.gate+"/", "", key.token(), fmt.Sprintf("Traceparent: 00-%032x-00f067aa0ba902b7-01", n+1)); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all to ask", func() bool { return entered.Load()-before >= callers })
	close(arrived)
	asking.Wait()
	looked := 0
	for n := range callers {
		spans := c.of(t, fmt.Sprintf("%032x", n+1))
		if l, ok := spans[spanLookup]; ok {
			looked++
			if l.Parent != spans[spanDecision].ID {
				t.Errorf("the look-up is not below the decision that began it: %+v", spans)
			}
		}
	}
	if looked != 1 {
		t.Errorf("%d look-ups, want 1", looked)
	}
}

// No span holds a credential, whatever was sent.
func TestTracesHoldNoSecret(t *testing.T) {
	c := collectSpans(t)
	w := start(t, tracedSite("sqlite", ""))
	key := w.create(fields{"name": "seen"})
	token := w.accessToken(key, "")
	made := keystore.FormatAPIKey("wdr", "0123456789abcdefghijkl", keystore.Secret(strings.Repeat("s", 43))).Reveal()
	for n, header := range []string{
		key.token(), key.bearer(), key.basic(), "Authorization: Bearer " + token, "Authorization: Bearer " + made, "Authorization: " + made,
	} {
		w.chill()
		c.traced(w, n+1, header)
	}
	_, signature, _ := strings.Cut(token, ".")
	for name, secret := range map[string]string{
		"API key": key.APIKey.Reveal(), "secret key": key.SecretKey.Reveal(), "access token": signature, "made-up key": made,
		"Basic": strings.TrimPrefix(key.basic(), "Authorization: Basic "),
	} {
		if strings.Contains(c.exported(), secret) {
			t.Errorf("a span holds the %s", name)
		}
	}
	if !strings.Contains(c.exported(), string(key.ID)) {
		t.Error("what was searched does not even hold the key's id")
	}
}

// A request of a trace that is not recorded costs no more memory than one of none.
func TestUnrecordedAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	w, c := benchmarkWorld(t)
	h := w.handler(new(Handler))
	unrecorded := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})
	const runs = 200
	requests := make([]*http.Request, runs+1)
	for i := range requests {
		r := prepared(c.token(), "/v1/hello")
		requests[i] = r.WithContext(trace.ContextWithSpanContext(r.Context(), unrecorded))
	}
	answer, next := discarding{make(http.Header)}, 0
	got := testing.AllocsPerRun(runs, func() {
		if err := h.ServeHTTP(answer, requests[next], whoAsks); err != nil {
			t.Fatal(err)
		}
		next++
	})
	if got > maxHandlerAllocations {
		t.Errorf("%.1f allocations for one request, want at most %d", got, maxHandlerAllocations)
	}
}
