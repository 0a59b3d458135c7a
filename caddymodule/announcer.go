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

// Apply implements keystore.Applier: one line for each change, whichever node
// made it. What a document holds is not shown: its fields have names of people
// and things in them, and the audit log has it all.
func (a *announcer) Apply(c keystore.Change, _ keystore.Revision) error {
	switch c.Kind {
	case keystore.KindKey:
		a.keyChanged(&c)
	case keystore.KindOrganization:
		tell("organization changed", &c, zap.String("organization", c.Name), zap.Bool("deleted", c.Organization == nil))
	case keystore.KindPermission:
		tell("permission changed", &c, zap.String("permission_id", c.Name), zap.Bool("deleted", c.Document == nil))
	case keystore.KindSettings:
		tell("setting changed", &c, zap.String("setting", c.Name))
	case keystore.KindSigningRing:
		tell("signing keys changed", &c, a.signing())
	case keystore.KindRevokedToken:
		if c.Document != nil { // else it is over, and would not pass anyway
			tell("access token revoked", &c, zap.String("jti", c.Name))
		}
	}
	return nil
}

func tell(what string, c *keystore.Change, fields ...zap.Field) {
	engineLogger().Info(what, append(fields, zap.Int64("revision", int64(c.Revision)))...)
}

// signing is which key signs now: the keyring has applied the change before.
func (a *announcer) signing() zap.Field {
	ring, err := a.engine.keyring.Info()
	if err != nil || len(ring.Keys) == 0 {
		return zap.Skip()
	}
	return zap.String("kid", ring.Keys[0].KID)
}

func (a *announcer) keyChanged(c *keystore.Change) {
	state, organization := "deleted", ""
	if c.Key != nil {
		state, organization = c.Key.State(time.Now()).String(), c.Key.Organization
	}
	tell("key changed", c, zap.String("key_id", c.Name), zap.String("organization", organization), zap.String("state", state))
	a.announce("key_changed", map[string]any{
		"key_id": c.Name, "organization": organization, "state": state, "revision": int64(c.Revision),
	})
}

// rotated is told by the keyring of each new active signing key. The line in
// the log is that of the change.
func (a *announcer) rotated(kid string) {
	a.engine.metrics.rotations.Inc()
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
