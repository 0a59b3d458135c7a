package tokenissuer

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Role is what a signing key does at present.
type Role uint8

// The zero Role is none; no key has it.
const (
	RoleUnknown Role = iota
	RoleNext         // published, and does not sign yet
	RoleActive       // signs
	RoleRetired      // verifies what it has signed
)

var roleNames = [...]string{RoleUnknown: "unknown", RoleNext: "next", RoleActive: "active", RoleRetired: "retired"}

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return roleNames[RoleUnknown]
}

func parseRole(s string) Role {
	return Role(max(0, slices.Index(roleNames[:], s)))
}

// Bounds of the planned rotation, in days.
const (
	MinimumInterval keystore.Days = 21
	MaximumInterval keystore.Days = 365
	DefaultInterval keystore.Days = 42
)

const (
	// jwksMaxAge is how long anybody may keep a copy of the JWKS. A key signs
	// only after it has been published for as long: whoever verifies then has
	// a copy with it.
	jwksMaxAge = 300 * time.Second
	// retiredLife is how long a key verifies after it has signed for the last
	// time: longer than any token of its can live.
	retiredLife = max(7*24*time.Hour, MaximumTTL+clockSkew)
	// settleTime passes between shortening the interval and a rotation that
	// it makes overdue.
	settleTime = 24 * time.Hour
	// maxRetired bounds the ring. Planned rotation keeps at most one.
	maxRetired = 32
)

// ErrRotatedTooOften refuses another rotation while too many retired keys
// still verify.
var ErrRotatedTooOften = fmt.Errorf("rotating signing keys: %w within a week", keystore.ErrTooOften)

// ring is the set of signing keys of one store: exactly one active, exactly
// one next, and the retired ones. Its methods are the rules; they return
// another ring and leave their receiver as it is.
type ring struct {
	interval keystore.Days
	rotateAt keystore.Instant // when next is to become active
	keys     []ringKey        // active, next, then retired, the latest first
}

type ringKey struct {
	signingKey
	role      Role
	created   keystore.Instant
	published keystore.Instant // since when everybody can know it
	activated keystore.Instant
	retired   keystore.Instant
}

// dropAt is when a retired key is let go.
func (k *ringKey) dropAt() keystore.Instant { return after(k.retired, retiredLife) }

func after(i keystore.Instant, d time.Duration) keystore.Instant {
	return i + keystore.Instant(d.Microseconds())
}

// firstRing is the ring of a new store: both keys are published before anyone
// can have asked for them.
func firstRing(active, next signingKey, interval keystore.Days, now time.Time) ring {
	at := keystore.InstantOf(now)
	return ring{
		interval: interval,
		rotateAt: interval.After(now),
		keys: []ringKey{
			{signingKey: active, role: RoleActive, created: at, published: at, activated: at},
			{signingKey: next, role: RoleNext, created: at, published: at},
		},
	}
}

// valid reports whether r is a ring at all.
func (r ring) valid() bool {
	if len(r.keys) < 2 || r.keys[0].role != RoleActive || r.keys[1].role != RoleNext || validInterval(r.interval) != nil {
		return false
	}
	seen := make(map[string]bool, len(r.keys))
	for i, k := range r.keys {
		if seen[k.kid] || (i > 1 && k.role != RoleRetired) {
			return false
		}
		seen[k.kid] = true
	}
	return true
}

// same reports whether the two differ in nothing that a rotation changes.
func (r ring) same(other ring) bool {
	return r.rotateAt == other.rotateAt && len(r.keys) == len(other.keys) && r.keys[0].kid == other.keys[0].kid
}

// dueAt is when next becomes active: not before the countdown is over, and
// not before next has been published long enough. propagation is how long
// the slowest node may take to publish what the store holds.
func (r ring) dueAt(propagation time.Duration) keystore.Instant {
	return max(r.rotateAt, after(r.keys[1].published, jwksMaxAge+propagation))
}

// stepAt is when the ring changes by itself for the next time.
func (r ring) stepAt(propagation time.Duration) keystore.Instant {
	at := r.dueAt(propagation)
	for i := range r.keys[2:] {
		at = min(at, r.keys[2+i].dropAt())
	}
	return at
}

// advanced does what is due at now: drops retired keys whose time is over,
// and rotates. False if nothing was due. fresh becomes next.
func (r ring) advanced(fresh signingKey, propagation time.Duration, now time.Time) (ring, bool) {
	out := r
	out.keys = slices.DeleteFunc(slices.Clone(r.keys), func(k ringKey) bool {
		return k.role == RoleRetired && k.dropAt().Passed(now)
	})
	if r.dueAt(propagation).Passed(now) {
		return out.rotated(fresh, now), true
	}
	return out, len(out.keys) < len(r.keys)
}

// rotated retires active, lets next sign and publishes fresh as next. The
// countdown starts anew.
func (r ring) rotated(fresh signingKey, now time.Time) ring {
	at := keystore.InstantOf(now)
	retired, active := r.keys[0], r.keys[1]
	retired.role, retired.retired = RoleRetired, at
	active.role, active.activated = RoleActive, at
	next := ringKey{signingKey: fresh, role: RoleNext, created: at, published: at}
	return ring{
		interval: r.interval,
		rotateAt: r.interval.After(now),
		keys:     append([]ringKey{active, next, retired}, r.keys[2:]...),
	}
}

// hastened ends the countdown: next signs at once, or as soon as it has been
// published long enough.
func (r ring) hastened(fresh signingKey, propagation time.Duration, now time.Time) (ring, error) {
	out := r
	out.rotateAt = min(r.rotateAt, keystore.InstantOf(now))
	out, _ = out.advanced(fresh, propagation, now)
	if len(out.keys) > 2+maxRetired {
		return ring{}, ErrRotatedTooOften
	}
	return out, nil
}

// paced changes the interval. It never rotates: a rotation that it makes
// overdue is still settleTime away. One that was asked for is not put off.
func (r ring) paced(interval keystore.Days, now time.Time) ring {
	activated := r.keys[0].activated.Time()
	out := r
	out.interval = interval
	if r.rotateAt >= r.interval.After(activated) {
		out.rotateAt = max(interval.After(activated), keystore.InstantOf(now.Add(settleTime)))
	}
	return out
}

// distrusting is the ring of an emergency: no key of r is left, next neither.
// They lay in one document: who has read one of them has read all.
func (r ring) distrusting(active, next signingKey, now time.Time) ring {
	return firstRing(active, next, r.interval, now)
}

// validInterval returns a *keystore.FieldError if days is out of bounds.
func validInterval(days keystore.Days) error {
	if days < MinimumInterval || days > MaximumInterval {
		return &keystore.FieldError{Pointer: "/interval_days", Reason: "must be 21 to 365"}
	}
	return nil
}

// auditText is what the audit log shows of the ring: which key does what.
func (r *ring) auditText() (string, error) {
	keys := make(map[string]string, len(r.keys))
	for i := range r.keys {
		keys[r.keys[i].kid] = r.keys[i].role.String()
	}
	text, err := json.Marshal(map[string]any{"interval_days": r.interval, "keys": keys})
	if err != nil {
		return "", fmt.Errorf("describing the signing ring: %w", err)
	}
	return string(text), nil
}
