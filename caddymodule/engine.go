package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// engines outlive configurations: a reload keeps the cache, the place in the
// log, and the store open.
var engines = caddy.NewUsagePool()

// engine is everything that is true of one store whatever a configuration
// says, and the goroutines that keep it true. Policies come with each call.
type engine struct {
	store       OpenedStore
	lease       *keystore.Lease
	view        *keystore.View
	directory   *keystore.Directory
	rulebook    *keystore.Rulebook
	settings    *keystore.Settings
	follower    *keystore.Follower
	keyring     *tokenissuer.Keyring
	rotation    *tokenissuer.Rotation
	revocations *tokenissuer.Revocations
	guesses     *tokenissuer.Guesses
	credentials *keystore.Credentials
	replays     *keystore.Replays
	bulk        keystore.Turn
	refusals    *keystore.Refusals
	metrics     *metrics
	announcer   *announcer
	presence    *keystore.Presence // nil: of a store that this process alone writes
	nodes       *keystore.Nodes
	readiness   *keystore.Readiness
	watch       *watch

	failureTold time.Time // when the follower's failure was told last; its goroutine's own

	mu      sync.Mutex // guards running and master
	running []*App     // configurations that have started, the newest last
	// The configured key that the store is known to be sealed under; zero: a
	// key file serves.
	master keystore.MasterKey

	cancel context.CancelFunc
	loops  sync.WaitGroup
}

// enter makes a configuration the one that speaks for the engine: events go
// out through it, and new signing keys are of its algorithm.
func (e *engine) enter(a *App) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = append(e.running, a)
	a.Issuer.start(e)
	e.watch.look()
}

// leave takes it back, and what was counted until then goes to the store. If
// it was the newest, because a reload failed halfway, the one before speaks
// again.
func (e *engine) leave(a *App) {
	e.flushUsage()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = slices.DeleteFunc(e.running, func(other *App) bool { return other == a })
	if newest := len(e.running) - 1; newest >= 0 {
		e.running[newest].Issuer.start(e)
	}
	e.watch.look()
}

// runs reports whether a configuration has started, and not stopped.
func (e *engine) runs(a *App) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.running, a)
}

// speaker returns the newest running configuration, or nil.
func (e *engine) speaker() *App {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.running) == 0 {
		return nil
	}
	return e.running[len(e.running)-1]
}

// strictest returns the policy of the running configuration that trusts what
// is known for the shortest time; zero if none runs.
func (e *engine) strictest() (strictest keystore.Freshness) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, a := range e.running {
		if f := a.freshness(); i == 0 || f.MaxStaleness < strictest.MaxStaleness {
			strictest = f
		}
	}
	return strictest
}

const (
	// startTimeout bounds opening and first loading of a store.
	startTimeout = 30 * time.Second
	// flushTimeout bounds how long a reload or the end waits for a store that
	// does not answer.
	flushTimeout = 5 * time.Second
)

func openEngine(driver StoreModule, master, previous keystore.MasterKey, cacheSize int, logger *zap.Logger) (*engine, error) {
	starting, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	store, err := driver.Open(starting, master, previous, logger)
	if err != nil {
		return nil, err
	}
	store.Store = newTraced(store.Store, driver)
	e, err := newEngine(starting, store, cacheSize)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	e.setMasterKey(master)
	e.run()
	return e, nil
}

func newEngine(ctx context.Context, store OpenedStore, cacheSize int) (*engine, error) {
	e := &engine{
		lease:       new(keystore.Lease),
		directory:   new(keystore.Directory),
		rulebook:    new(keystore.Rulebook),
		settings:    new(keystore.Settings),
		credentials: keystore.NewCredentials(store.Secret),
		replays:     keystore.NewReplays(store.Secret),
		bulk:        keystore.NewTurn(),
		refusals:    keystore.NewRefusals(),
		guesses:     tokenissuer.NewGuesses(),
	}
	e.metrics = newMetrics(e)
	store.Store = metered{store.Store, e.metrics.storeErrors, e.metrics.lookups}
	self := newSelf()
	if store.shared() {
		store.Registry = meteredRegistry{store.Registry, e.metrics.storeErrors}
		e.presence = keystore.NewPresence(store.Registry, self)
	}
	e.store = store
	e.view = keystore.NewView(store, e.lease, cacheSize)
	e.readiness = keystore.NewReadiness(store, e.lease)
	e.announcer = newAnnouncer(e)
	e.watch = newWatch(e)
	keyring, err := tokenissuer.NewKeyring(tokenissuer.KeyringConfig{Secret: store.Secret, Rotated: e.announcer.rotated})
	if err != nil {
		return nil, err
	}
	e.keyring = keyring
	e.follower = keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: e.lease, Presence: e.presence, Failed: e.followingFailed, Lost: e.logReplaced,
		Appliers: []keystore.Applier{e.view, e.directory, e.rulebook, e.settings, e.keyring, e.announcer},
	})
	e.nodes = keystore.NewNodes(keystore.NodesConfig{Self: self, Follower: e.follower, Registry: store.Registry, Notifier: store.Notifier})
	e.rotation = tokenissuer.NewRotation(tokenissuer.RotationConfig{
		Keyring: e.keyring, Store: store, Follower: e.follower, Failed: e.rotationFailed,
	})
	e.revocations = tokenissuer.NewRevocations(tokenissuer.RevocationsConfig{
		Keyring: e.keyring, Store: store, Follower: e.follower, Failed: e.pruningFailed,
	})
	// Before the first load, so that the load brings the ring.
	if err := e.rotation.Ensure(ctx, time.Now()); err != nil {
		return nil, fmt.Errorf("making the first signing keys: %w", err)
	}
	if err := e.follower.Start(ctx); err != nil {
		return nil, fmt.Errorf("loading the store: %w", err)
	}
	return e, nil
}

// newSelf is this run of the process, as other nodes and operators see it.
func newSelf() keystore.Node {
	host, err := os.Hostname()
	if err != nil {
		host = "" // an operator then has the id alone
	}
	return keystore.Node{ID: keystore.NewNodeID(), Address: host, Version: Version()}
}

// engineLogger is the process's logger as it is now: an engine outlives the
// configuration that opened it, and that configuration's logs.
func engineLogger() *zap.Logger { return caddy.Log().Named("warder") }

// failureInterval is between two lines of a failure that lasts, which comes
// several times a second.
const failureInterval = 10 * time.Second

func (e *engine) followingFailed(err error) {
	e.metrics.followerErrors.Inc()
	now := time.Now()
	if now.Sub(e.failureTold) < failureInterval {
		return
	}
	e.failureTold = now
	engineLogger().Error("following the change log failed; trying again", zap.Error(err))
}

// logReplaced is told that the store's log is another than the one followed
// so far.
func (e *engine) logReplaced(at keystore.Position) {
	engineLogger().Warn("the log of changes does not hold what was applied: a failover, a restored backup, or this node was cut off for too long; everything is loaded anew",
		zap.Int64("revision", int64(at.Revision)))
	e.announcer.announce("log_replaced", map[string]any{"revision": int64(at.Revision)})
}

func (e *engine) rotationFailed(err error) {
	engineLogger().Error("planned rotation of signing keys failed; trying again", zap.Error(err))
}

func (e *engine) pruningFailed(err error) {
	engineLogger().Error("letting go revoked access tokens that are over failed; trying again", zap.Error(err))
}

// flushUsage writes what was counted. What cannot be written is kept.
func (e *engine) flushUsage() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := e.view.Meters().Flush(ctx, e.store, time.Now()); err != nil {
		e.flushingFailed(err)
	}
}

func (e *engine) flushingFailed(err error) {
	e.metrics.usageErrors.Inc()
	engineLogger().Error("writing usage failed; trying again", zap.Error(err))
}

// admits checks that a configuration which joins a running engine could also
// have opened it. It changes nothing: the configuration may yet be refused.
// The key that opened the store needs no proof, so that an outage of the store
// does not keep a site from being changed; another one does.
func (e *engine) admits(ctx context.Context, master, previous keystore.MasterKey) error {
	if master == e.masterKey() {
		return nil
	}
	if master.IsZero() {
		return errors.New("master_key: is no longer configured, but the store was opened with it")
	}
	sealed, err := e.store.SealedSecret(ctx)
	if err != nil {
		return fmt.Errorf("reading the sealed store secret: %w", err)
	}
	if _, err = keystore.OpenStoreSecret(master, sealed); errors.Is(err, keystore.ErrWrongMasterKey) && !previous.IsZero() {
		_, err = keystore.OpenStoreSecret(previous, sealed)
	}
	if err != nil {
		return fmt.Errorf("master_key: %w", err)
	}
	return nil
}

// adopt takes over what a configuration that starts wants of the engine.
func (e *engine) adopt(ctx context.Context, master, previous keystore.MasterKey, cacheSize int) error {
	if master != e.masterKey() {
		if _, err := e.store.unlock(ctx, master, previous); err != nil {
			return fmt.Errorf("master_key: %w", err)
		}
		e.setMasterKey(master)
	}
	e.view.Resize(cacheSize)
	return nil
}

func (e *engine) masterKey() keystore.MasterKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.master
}

func (e *engine) setMasterKey(master keystore.MasterKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.master = master
}

// keepsKeyFile reports whether the master key is in a file of the store's own.
func (e *engine) keepsKeyFile() bool { return e.store.KeyFile != nil && e.masterKey().IsZero() }

// run starts the loops that keep the engine's facts true.
func (e *engine) run() {
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.loops.Go(func() { e.follower.Run(ctx) })
	e.loops.Go(func() { e.rotation.Run(ctx) })
	e.loops.Go(func() { e.revocations.Run(ctx) })
	e.loops.Go(func() { e.announcer.run(ctx) })
	e.loops.Go(func() { e.view.Meters().Run(ctx, e.store, e.flushingFailed) })
	e.loops.Go(func() { e.watch.run(ctx) })
	if e.store.shared() {
		e.loops.Go(func() { newListener(e).run(ctx) })
	}
}

// Destruct ends the loops, the follower's by leaving the registry, writes what was counted to the last, and closes the
// store. Called when no configuration uses the engine any more.
func (e *engine) Destruct() error {
	e.lease.Suspend() // whoever still holds the view finds it closed
	e.cancel()
	e.loops.Wait()
	e.flushUsage()
	return e.store.Close()
}
