package caddymodule

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// watch tells operators when this node ceases to know what the store knows,
// and when it knows again: once each, in the moment that it happens.
type watch struct {
	engine *engine
	policy chan struct{} // holds a value when the running configurations have changed
	known  trust
	since  time.Time // when the node ceased to be fresh
}

// trust is what a node does with what it knows. It begins as fresh: an engine
// is there only once it has been.
type trust uint8

const (
	trustFresh   trust = iota
	trustServing       // too old, and served all the same
	trustNothing       // too old; every request is refused
)

func newWatch(e *engine) *watch { return &watch{engine: e, policy: make(chan struct{}, 1)} }

// look asks for a look at the policies, which have changed.
func (w *watch) look() {
	select {
	case w.policy <- struct{}{}:
	default: // it will look anyway
	}
}

// run sleeps until what is known would be too old, and while it is, until
// it is renewed.
func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		renewed := w.engine.lease.Renewed() // before the look, so that none is missed
		now, left := w.judge(time.Now())
		if now != w.known && ctx.Err() == nil {
			w.tell(now)
		}
		timer := time.NewTimer(left)
		if now == trustFresh {
			renewed = nil // a fresh node has nothing to be told of
		}
		select {
		case <-timer.C:
		case <-renewed:
		case <-w.policy:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// judge returns what the node does at now under the strictest policy, and for
// how long it will without a renewal.
func (w *watch) judge(now time.Time) (trust, time.Duration) {
	f := w.engine.strictest()
	if f.MaxStaleness == 0 { // no configuration decides anything
		return w.known, forGood
	}
	if left := w.engine.lease.Remaining(now, f.MaxStaleness); left > 0 {
		return trustFresh, left
	}
	if left := w.engine.lease.Remaining(now, f.Bound()); left > 0 {
		return trustServing, left
	}
	return trustNothing, forGood
}

// forGood is longer than any timer is waited for.
const forGood = 365 * 24 * time.Hour

func (w *watch) tell(now trust) {
	before := w.known
	w.known = now
	if before == trustFresh {
		w.since = time.Now()
	}
	revision := int64(w.engine.follower.Applied().Revision)
	switch now {
	case trustFresh:
		lasted := time.Since(w.since)
		engineLogger().Info("this node knows again what the store knows", zap.Duration("after", lasted), zap.Int64("revision", revision))
		w.engine.announcer.announce("node_recovered", map[string]any{"after_seconds": lasted.Seconds(), "revision": revision})
		return
	case trustServing:
		engineLogger().Warn("this node has not heard of the store for longer than max_staleness; by on_stale serve it goes on accepting keys that may have been revoked",
			zap.Int64("revision", revision))
	case trustNothing:
		engineLogger().Error("this node has not heard of the store for longer than it may: every request is refused with 503 until it has", zap.Int64("revision", revision))
	}
	w.engine.announcer.announce("node_stale", map[string]any{"serving": now == trustServing, "revision": revision})
}
