package caddymodule

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
)

// listener hears what other nodes tell of their changes. It makes this node
// look earlier, and nothing depends on it: without it the lease runs out and
// the log is read all the same.
type listener struct {
	engine *engine
	deaf   bool // the connection is lost, and that was said
	delay  time.Duration
}

// How long after a lost connection another one is tried: at once, then ever
// later, and not by all nodes in the same moment.
const (
	minListenDelay = 50 * time.Millisecond
	maxListenDelay = 5 * time.Second
)

func newListener(e *engine) *listener { return &listener{engine: e, delay: minListenDelay} }

func (l *listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.engine.store.Notifier.Listen(ctx, l.heard)
		if ctx.Err() != nil {
			return
		}
		l.lost(err)
		select {
		case <-time.After(rand.N(l.delay)):
		case <-ctx.Done():
		}
		l.delay = min(2*l.delay, maxListenDelay)
	}
}

// heard forgets, before anything else, what the hint says has changed: a
// request that comes before the log is read then asks the store itself.
func (l *listener) heard(n keystore.Notice) {
	if l.deaf {
		engineLogger().Info("hearing from the other nodes again")
	}
	l.deaf, l.delay = false, minListenDelay
	l.engine.view.Forget(n.Keys...)
	l.engine.follower.Hear(n)
}

func (l *listener) lost(err error) {
	l.engine.metrics.storeErrors.count("listen")
	if !l.deaf {
		engineLogger().Warn("not hearing from the other nodes: their changes count here when the lease is renewed; trying again", zap.Error(err))
	}
	l.deaf = true
}
