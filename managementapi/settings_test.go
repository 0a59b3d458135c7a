package managementapi

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

func TestSettings(t *testing.T) {
	g := newRig(t)
	for _, step := range []struct {
		body string
		want int
	}{{`{}`, 42}, {`{"signing_key_interval_days":30}`, 30}, {`{}`, 30}, {`{"signing_key_interval_days":365}`, 365}, {`{"signing_key_interval_days":null}`, 42}} {
		if s := ok[Settings](g.send("PATCH", "/settings", step.body), 200); s.SigningKeyIntervalDays != step.want {
			t.Errorf("after %s: %+v", step.body, s)
		}
		if s := ok[Settings](g.send("GET", "/settings", ""), 200); s.SigningKeyIntervalDays != step.want {
			t.Errorf("after %s: %+v", step.body, s)
		}
	}
	if ring := ok[tokenissuer.RingInfo](g.send("GET", "/signing-keys", ""), 200); ring.Interval != 42 || !ring.RotatedAt.Equal(ring.Keys[0].Activated) || !ring.RotatesAt.After(ring.RotatedAt) {
		t.Errorf("%+v", ring)
	}
	for _, body := range []string{`{"signing_key_interval_days":20}`, `{"signing_key_interval_days":366}`, `{"signing_key_interval_days":0}`, `{"signing_key_interval_days":"42"}`} {
		g.send("PATCH", "/settings", body).refused(400, "invalid_field", "/signing_key_interval_days")
	}
	g.send("PATCH", "/settings", `{"interval_days":42}`).refused(400, "unknown_field", "/interval_days")

	g.serve(Config{Service: g.service, Caller: g.who, Prefix: "/warder/v1", Log: g.log})
	g.send("GET", "/settings", "").refused(404, "no_issuer", "")
	g.send("PATCH", "/settings", `{"signing_key_interval_days":30}`).refused(404, "no_issuer", "")
}

// The ring's own refusals are in the audit log, too.
func TestRotationThatComesTooOften(t *testing.T) {
	g := newRig(t)
	g.serve(Config{
		Service: g.service, SigningKeys: g.keyring, Rotation: refusedRotation{},
		Caller: g.who, Prefix: "/warder/v1", Log: g.log,
	})
	last := g.lastEntry()
	g.send("POST", "/signing-keys/rotate", "").refused(409, "rotated_too_often", "")
	entries := g.entriesAfter(last)
	if len(entries) != 1 || entries[0].Refused == nil || *entries[0].Refused != keystore.ErrTooOften.Error() || entries[0].Operation != "signing_keys.rotate" {
		t.Errorf("%+v", entries)
	}
}

// refusedRotation rotates nothing.
type refusedRotation struct{ Rotation }

func (refusedRotation) Rotate(context.Context, keystore.Attribution, time.Time) (tokenissuer.Rotated, error) {
	return tokenissuer.Rotated{}, fmt.Errorf("rotating: %w", tokenissuer.ErrRotatedTooOften)
}

func TestSelf(t *testing.T) {
	g := newRig(t)
	if who := ok[Self](g.send("GET", "/self", ""), 200); who.Actor != "local" || who.Organization != nil || who.Key != nil || who.Scopes[0] != keystore.ScopeAdmin {
		t.Errorf("%+v", who)
	}
	key := g.make(`{"name":"me","scopes":["x","y"]}`)
	g.callFrom(string(key.ID), "192.0.2.7")
	g.caller.Scopes, g.caller.Organization = "x", "default" // an access token may hold less
	who := ok[Self](g.send("GET", "/self", ""), 200)
	if who.Actor != string(key.ID) || *who.Organization != "default" || len(who.Scopes) != 1 || who.Key == nil || who.Key.Name != "me" || len(who.Key.Scopes) != 2 {
		t.Errorf("%+v", who)
	}
	g.send("GET", "/keys/"+string(key.ID), "").refused(403, "forbidden", "")
	g.callFrom("key_gone", "")
	if who := ok[Self](g.send("GET", "/self", ""), 200); who.Key != nil {
		t.Errorf("%+v", who)
	}
	g.callFrom(string(key.AccessKey), "") // finds a key, but names none
	if who := ok[Self](g.send("GET", "/self", ""), 200); who.Key != nil {
		t.Errorf("%+v", who)
	}
}

func TestTooManyRequests(t *testing.T) {
	g := newRig(t)
	for wait, want := range map[time.Duration]string{0: "1", 1: "1", time.Second: "1", time.Second + 1: "2", time.Minute: "60"} {
		g.refuseCallers(&TooManyRequestsError{wait})
		r := g.send("GET", "/keys", "")
		r.refused(429, "too_many_requests", "")
		if got := r.header.Get("Retry-After"); got != want {
			t.Errorf("after %s: Retry-After: %s", wait, got)
		}
	}
}
