// Package caddymodule is Warder's Caddy side: the app that holds store and
// policies, the handlers that guard and issue, their Caddyfile, commands,
// metrics and events, and the table from errors to answers.
package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

func init() {
	caddy.RegisterModule(App{})
}

// App holds the store of keys and what this configuration decides about them.
// Handlers refer to it; there is one in a configuration. Everything that is
// true of the store rather than of the configuration (the cache above all)
// lives in an engine that survives reloads.
type App struct {
	// Where keys are kept. Default: sqlite in "data/warder.db".
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=warder.stores inline_key=driver"`

	// 32 bytes in base64 that seal the store's secrets, by placeholder:
	// "{env.WARDER_MASTER_KEY}" or "{file./run/secrets/master_key}". Without
	// it a store of the sqlite kind makes a key file of its own.
	MasterKey *string `json:"master_key,omitempty"`

	// The master key before a change of it: opens the store once, which is
	// then sealed under master_key. Of a store that several nodes share, either
	// opens it until the change is finished.
	PreviousMasterKey *string `json:"previous_master_key,omitempty"`

	// Mints and accepts access tokens. Without it there are none.
	Issuer *Issuer `json:"issuer,omitempty"`

	// Begins every API key. Keys made under another prefix no longer pass as
	// API keys. Default: "wdr".
	Prefix string `json:"prefix,omitempty"`

	// How long a rotated-out secret still passes. Default: 6h.
	GracePeriod caddy.Duration `json:"grace_period,omitempty"`

	// About how many keys are kept in memory. Default: 100000.
	CacheSize int `json:"cache_size,omitempty"`

	// How old what is known of the keys may be: a change made on another node
	// counts here within milliseconds, and after this long at the latest. A
	// node that cannot ask the store for longer refuses everything. Of a store
	// that this process alone writes nothing ages, and this means nothing.
	// Default: 10s.
	MaxStaleness caddy.Duration `json:"max_staleness,omitempty"`

	// WEAKENS THE PROMISE: how long, beyond max_staleness, a node that cannot
	// ask the store goes on serving by what it knew. So much longer a key that
	// was revoked elsewhere passes here. Default: not at all; it refuses.
	ServeStale caddy.Duration `json:"serve_stale,omitempty"`

	// "remote" lets the management routes answer on an admin endpoint that is
	// not on the loopback interface. Whoever reaches it is administrator.
	AdminAPI string `json:"admin_api,omitempty"`

	ctx              caddy.Context
	logger           *zap.Logger
	events           *caddyevents.App
	engine           *engine
	master, previous keystore.MasterKey // they cannot print
	pooled           string             // the engine's key in the pool; empty: none acquired
	first            bool               // of the engine's configurations
	withdraw         func()             // what was promised to other nodes; nil: nothing
	gate             *gate

	management http.Handler // the routes as Caddy's admin endpoint serves them
	listeners  []string     // of the servers that Warder's handlers are in
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "warder", New: func() caddy.Module { return new(App) }}
}

const (
	defaultCacheSize    = 100_000
	defaultMaxStaleness = 10 * time.Second
	minMaxStaleness     = 100 * time.Millisecond // several heartbeats have to find their way in it
	adminRemote         = "remote"
)

// Provision opens the store, or joins the engine that has it open.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	a.events = events.(*caddyevents.App)
	a.setDefaults()
	if err := a.check(); err != nil {
		return err
	}
	master, err := masterKey("master_key", a.MasterKey)
	if err != nil {
		return err
	}
	previous, err := masterKey("previous_master_key", a.PreviousMasterKey)
	if err != nil {
		return err
	}
	a.master, a.previous = master, previous
	if err := a.acquireEngine(ctx, master, previous); err != nil {
		return fmt.Errorf("warder.store: %w", err)
	}
	// Before anything decides: the apps of a configuration start in no order.
	if a.withdraw, err = a.engine.presence.Promise(ctx, a.freshness()); err != nil {
		return fmt.Errorf("warder.store: promising max_staleness to the other nodes: %w", err)
	}
	if err := a.Issuer.provision(a.engine); err != nil {
		return fmt.Errorf("warder.issuer: %w", err)
	}
	a.gate = newGate(a)
	a.management = a.newManagement(adminPrefix+"/v1", maintenance{a.engine}, func(*http.Request) (keystore.Caller, error) {
		return keystore.LocalCaller(), nil
	})
	return a.engine.metrics.register(ctx.GetMetricsRegistry())
}

func (a *App) setDefaults() {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"driver":"sqlite"}`)
	}
	if a.Prefix == "" {
		a.Prefix = keystore.DefaultPrefix
	}
	if a.GracePeriod == 0 {
		a.GracePeriod = caddy.Duration(keystore.DefaultGrace)
	}
	if a.CacheSize == 0 {
		a.CacheSize = defaultCacheSize
	}
	if a.MaxStaleness == 0 {
		a.MaxStaleness = caddy.Duration(defaultMaxStaleness)
	}
}

// check judges the options before anything is opened for them.
func (a *App) check() error {
	switch {
	case !keystore.ValidPrefix(a.Prefix):
		return fmt.Errorf("warder.prefix: %q must be 1 to 16 letters and digits", a.Prefix)
	case a.GracePeriod < 0:
		return errors.New("warder.grace_period: must not be negative")
	case a.CacheSize < 1:
		return errors.New("warder.cache_size: must be at least 1")
	case time.Duration(a.MaxStaleness) < minMaxStaleness:
		return fmt.Errorf("warder.max_staleness: must be at least %s", minMaxStaleness)
	case a.ServeStale < 0:
		return errors.New("warder.serve_stale: must not be negative")
	case a.AdminAPI != "" && a.AdminAPI != adminRemote:
		return fmt.Errorf("warder.admin_api: %q is not known; the only value is remote", a.AdminAPI)
	}
	return nil
}

func (a *App) acquireEngine(ctx caddy.Context, master, previous keystore.MasterKey) error {
	module, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return err
	}
	driver := module.(StoreModule)
	identity, err := driver.Identity()
	if err != nil {
		return err
	}
	key := string(driver.CaddyModule().ID) + " " + identity
	value, loaded, err := engines.LoadOrNew(key, func() (caddy.Destructor, error) {
		return openEngine(driver, master, previous, a.CacheSize, a.logger)
	})
	if err != nil {
		return err
	}
	a.engine, a.pooled, a.first = value.(*engine), key, !loaded
	if loaded {
		return a.engine.admits(ctx, master, previous)
	}
	return nil
}

// masterKey resolves a master key by placeholder. What is configured but
// empty or short is refused: it is not the same as not configured.
func masterKey(option string, configured *string) (keystore.MasterKey, error) {
	if configured == nil {
		return keystore.MasterKey{}, nil
	}
	if *configured != "" && !strings.Contains(*configured, "{") {
		return keystore.MasterKey{}, fmt.Errorf("warder.%s: must be a placeholder such as {env.WARDER_MASTER_KEY} or {file./path}; a key written here, or put here by {$VARIABLE}, would stand in the configuration for all to read", option)
	}
	text, err := caddy.NewReplacer().ReplaceOrErr(*configured, true, true)
	if err != nil {
		return keystore.MasterKey{}, fmt.Errorf("warder.%s: %w", option, err)
	}
	key, err := keystore.ParseMasterKey(keystore.Secret(text))
	if err != nil {
		return keystore.MasterKey{}, fmt.Errorf("warder.%s: %w", option, err)
	}
	return key, nil
}

// freshness is how old may be what this configuration decides on.
func (a *App) freshness() keystore.Freshness {
	return keystore.Freshness{MaxStaleness: time.Duration(a.MaxStaleness), Serve: time.Duration(a.ServeStale)}
}

// service returns the management verbs under this configuration's policies.
func (a *App) service() *keystore.Service {
	e := a.engine
	return &keystore.Service{
		Store: e.store, Follower: e.follower, Credentials: e.credentials, Replays: e.replays,
		Meters: e.view.Meters(), Bulk: e.bulk, Refusals: e.refusals, Directory: e.directory, Rulebook: e.rulebook,
		Policy: keystore.Policy{Prefix: a.Prefix, Grace: time.Duration(a.GracePeriod)},
	}
}

// newManagement returns the management routes under a prefix, for callers as
// the mount identifies them. Without maintenance the store as a whole is none
// of their concern.
func (a *App) newManagement(prefix string, maintenance managementapi.Maintenance, caller func(*http.Request) (keystore.Caller, error)) http.Handler {
	return managementapi.New(managementapi.Config{
		Service:     a.service(),
		SigningKeys: a.engine.keyring,
		Rotation:    a.engine.rotation,
		Nodes:       a.engine.nodes,
		Maintenance: maintenance,
		Ready:       a.ready,
		Explain:     a.explain,
		Caller:      caller,
		Prefix:      prefix,
		Version:     Version(),
		Log:         a.managementFailed,
	})
}

// managementFailed tells operators what a caller is not told.
func (a *App) managementFailed(r *http.Request, err error) {
	a.logger.Error("management call failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
}

// Start makes this configuration the one that speaks for the engine.
func (a *App) Start() error {
	if err := a.refuseSharedPorts(); err != nil {
		return err
	}
	if err := a.engine.adopt(a.ctx, a.master, a.previous, a.CacheSize); err != nil {
		return fmt.Errorf("warder.store: %w", err)
	}
	if err := a.greet(); err != nil {
		return fmt.Errorf("warder.store: %w", err)
	}
	a.engine.enter(a)
	return nil
}

// greet says what an operator should know from the start.
func (a *App) greet() error {
	if a.ServeStale > 0 && a.engine.store.shared() {
		a.logger.Warn("on_stale serve: cut off from the store, this node goes on accepting keys that may have been revoked",
			zap.Duration("max_staleness", time.Duration(a.MaxStaleness)), zap.Duration("serve", time.Duration(a.ServeStale)))
	}
	if !a.first {
		return nil // a reload asks nothing of a store that may be away
	}
	page, err := a.engine.store.List(a.ctx, keystore.Query{Limit: 1})
	if err == nil && len(page.Records) == 0 {
		a.logger.Info("there is no key yet; make the first one: warder keys create --name demo --scope hello:read")
	}
	return err
}

// Stop leaves the engine to the next configuration, if there is one.
func (a *App) Stop() error {
	a.engine.leave(a)
	return nil
}

// Cleanup releases what Provision acquired; the last one closes the store. By
// then nothing of this configuration decides any more. Caddy calls it once, and
// it writes no field: an event that is under way copies them all.
func (a *App) Cleanup() error {
	if a.withdraw != nil {
		a.withdraw()
	}
	if a.pooled == "" {
		return nil
	}
	_, err := engines.Delete(a.pooled)
	return err
}

// emit tells Caddy's subscribers of something that has happened.
func (a *App) emit(name string, data map[string]any) {
	if err := a.ctx.Err(); errors.Is(err, context.Canceled) {
		return // this configuration has been replaced
	}
	a.events.Emit(a.ctx, name, data)
}

// appOf returns the configuration's warder app.
func appOf(ctx caddy.Context) (*App, error) {
	app, err := ctx.App("warder")
	if err != nil {
		return nil, err // says already which app was to be loaded
	}
	return app.(*App), nil
}

// Interface guards.
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
