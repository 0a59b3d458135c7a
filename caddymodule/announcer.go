package caddymodule

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
)

// announcer turns changes into log lines and events of Caddy. Subscribers may
// be slow: they get their own goroutine, and the follower never waits for it.
type announcer struct {
	engine *engine
	queue  chan announcement
}

type announcement struct {
	name string
	data map[string]any
}

// maxAnnouncements is how far subscribers may lag before changes go untold.
const maxAnnouncements = 4096

func newAnnouncer(e *engine) *announcer {
	return &announcer{engine: e, queue: make(chan announcement, maxAnnouncements)}
}

// Reset implements keystore.Applier.
func (*announcer) Reset(keystore.Snapshot) error { return nil }

// Apply implements keystore.Applier.
func (a *announcer) Apply(c keystore.Change, _ keystore.Revision) error {
	if c.Kind != keystore.KindKey {
		return nil
	}
	state, organization := "deleted", ""
	if c.Key != nil {
		state, organization = c.Key.State(time.Now()).String(), c.Key.Organization
	}
	engineLogger().Info("key changed", zap.String("key_id", c.Name), zap.String("organization", organization),
		zap.String("state", state), zap.Int64("revision", int64(c.Revision)))
	a.announce("key_changed", map[string]any{
		"key_id": c.Name, "organization": organization, "state": state, "revision": int64(c.Revision),
	})
	return nil
}

// rotated is told by the keyring of each new active signing key.
func (a *announcer) rotated(kid string) {
	a.engine.metrics.rotations.Inc()
	engineLogger().Info("signing key rotated", zap.String("kid", kid))
	a.announce("signing_key_rotated", map[string]any{"kid": kid})
}

func (a *announcer) announce(name string, data map[string]any) {
	select {
	case a.queue <- announcement{name, data}:
	default:
		engineLogger().Warn("event subscribers lag too far behind; an event is left out", zap.String("event", name))
	}
}

func (a *announcer) run(ctx context.Context) {
	for {
		select {
		case next := <-a.queue:
			if speaker := a.engine.speaker(); speaker != nil {
				speaker.emit(next.name, next.data)
			}
		case <-ctx.Done():
			return
		}
	}
}
