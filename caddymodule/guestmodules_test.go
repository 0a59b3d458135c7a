package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
)

func init() {
	caddy.RegisterModule(frailStore{})
	caddy.RegisterModule(subscriber{})
	caddy.RegisterModule(turnstile{})
	httpcaddyfile.RegisterHandlerDirective("turnstile", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(turnstile), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("turnstile", httpcaddyfile.Before, "rewrite") // and so before warder
}

// turnstile counts the requests that go on to the next handler.
type turnstile struct{}

var entered atomic.Int64

func (turnstile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.turnstile", New: func() caddy.Module { return new(turnstile) }}
}

func (turnstile) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	entered.Add(1)
	return next.ServeHTTP(w, r)
}

// frailStore is the SQLite store with look-ups that a test can make fail or
// hang, and a feed that it can cut off.
type frailStore struct{ SQLiteStore }

func (frailStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "warder.stores.frail", New: func() caddy.Module { return new(frailStore) }}
}

func (s *frailStore) Open(ctx context.Context, master, previous keystore.MasterKey, logger *zap.Logger) (OpenedStore, error) {
	opened, err := s.SQLiteStore.Open(ctx, master, previous, logger)
	if err == nil {
		opened.Store = frail{opened.Store}
	}
	return opened, err
}

// trouble is what every frail store suffers from now; nil: nothing.
var trouble atomic.Pointer[troubles]

type troubles struct {
	lookup func(context.Context) error // before each look-up
	looked func()                      // between each look-up and its answer
	feed   error                       // instead of each reading of the log
	usage  error                       // instead of each writing of usage
}

func (t *troubles) set() (end func()) {
	trouble.Store(t)
	return func() { trouble.Store(nil) }
}

type frail struct{ keystore.Store }

func (f frail) Lookup(ctx context.Context, id keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	if t := trouble.Load(); t != nil && t.lookup != nil {
		if err := t.lookup(ctx); err != nil {
			return keystore.Record{}, 0, err
		}
	}
	rec, at, err := f.Store.Lookup(ctx, id)
	if t := trouble.Load(); t != nil && t.looked != nil {
		t.looked()
	}
	return rec, at, err
}

func (f frail) Changes(ctx context.Context, after keystore.Position, limit int) (keystore.Batch, error) {
	if t := trouble.Load(); t != nil && t.feed != nil {
		return keystore.Batch{}, t.feed
	}
	return f.Store.Changes(ctx, after, limit)
}

func (f frail) AddUsage(ctx context.Context, batch keystore.UsageBatch) error {
	if t := trouble.Load(); t != nil && t.usage != nil {
		return t.usage
	}
	return f.Store.AddUsage(ctx, batch)
}

var errStoreDown = errors.New("the store is down")

// subscriber notes the events of every module.
type subscriber struct{}

func (subscriber) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.noted", New: func() caddy.Module { return new(subscriber) }}
}

func (*subscriber) Handle(_ context.Context, e caddy.Event) error {
	heard.add(e.Name(), e.Data)
	return nil
}

// UnmarshalCaddyfile takes no arguments.
func (*subscriber) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// heard is what subscribers of this process were told.
var heard eventLog

type eventLog struct {
	mu     sync.Mutex // guards events
	events []heardEvent
}

type heardEvent struct {
	Name string
	Data map[string]any
}

func (l *eventLog) add(name string, data map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, heardEvent{name, data})
}

func (l *eventLog) take() []heardEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.events
	l.events = nil
	return all
}

// Interface guards.
var (
	_ StoreModule         = (*frailStore)(nil)
	_ caddyevents.Handler = (*subscriber)(nil)
)
