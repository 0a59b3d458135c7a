package tokenissuer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Rotation changes the signing ring in the store. Every node runs one; there
// is no leader: whoever swaps the document first wins, and the others see it.
type Rotation struct {
	cfg       RotationConfig
	algorithm atomic.Uint32
}

// RotationConfig is what a Rotation needs.
type RotationConfig struct {
	Keyring  *Keyring
	Store    keystore.Transactor
	Follower WakingAwaiter
	// Failed, if not nil, is told why a planned step failed. It is tried again.
	Failed func(error)
}

// Awaiter returns when everything up to the revision was applied on this
// node. A *keystore.Follower is one.
type Awaiter interface {
	Await(ctx context.Context, r keystore.Revision) error
}

// Rotated says what a rotation has done.
type Rotated struct {
	Revision keystore.Revision // of the store, applied on this node
	KID      string            // of the key that signs, or will
	SignsAt  time.Time         // since or from when
	Pending  bool              // it does not sign yet: it has not been published for long enough
}

// How the loop rests: it looks at the wall clock at least once in maxRest,
// because timers stop while the machine sleeps.
const (
	maxRest   = time.Hour
	retryRest = 30 * time.Second
)

// NewRotation returns a Rotation that makes EdDSA keys.
func NewRotation(cfg RotationConfig) *Rotation {
	r := &Rotation{cfg: cfg}
	r.SetAlgorithm(EdDSA)
	return r
}

// SetAlgorithm says how keys made from now on sign. Existing keys keep theirs,
// so the next rotation but one is the first to sign with it.
func (r *Rotation) SetAlgorithm(a Algorithm) { r.algorithm.Store(uint32(a)) }

func (r *Rotation) newKey() (signingKey, error) { return newSigningKey(Algorithm(r.algorithm.Load())) }

// Ensure makes the first ring if the store has none. One that is there but
// does not open is an error, and is not touched. It does not wait for the
// feed: call it before the follower starts.
func (r *Rotation) Ensure(ctx context.Context, now time.Time) error {
	missing := false
	_, err := r.cfg.Store.Transact(ctx, func(tx keystore.Tx) error {
		_, revision, err := r.read(tx)
		missing = revision == 0
		return err
	})
	if err != nil || !missing {
		return err
	}
	active, next, err := r.newPair()
	if err != nil {
		return err
	}
	_, err = r.cfg.Store.Transact(ctx, func(tx keystore.Tx) error {
		if _, revision, err := r.read(tx); err != nil || revision != 0 {
			return err // another node was first
		}
		return r.write(tx, firstRing(active, next, DefaultInterval, now))
	})
	return err
}

// Run rotates when it is due, until ctx ends.
func (r *Rotation) Run(ctx context.Context) {
	for r.rest(ctx) {
		err := r.step(ctx, time.Now())
		if err == nil || ctx.Err() != nil {
			continue
		}
		if r.cfg.Failed != nil {
			r.cfg.Failed(fmt.Errorf("rotating signing keys: %w", err))
		}
		select {
		case <-time.After(retryRest):
		case <-ctx.Done():
		}
	}
}

// Rotate starts the countdown anew and lets the next key sign: at once, or, if
// it has not been published for as long as others may keep the JWKS, as soon
// as it has. The answer says when. ErrRotatedTooOften.
func (r *Rotation) Rotate(ctx context.Context, by keystore.Attribution, now time.Time) (Rotated, error) {
	fresh, err := r.newKey()
	if err != nil {
		return Rotated{}, err
	}
	return r.command(ctx, by, now, func(old ring) (ring, error) {
		return old.hastened(fresh, r.cfg.Keyring.propagation, now)
	})
}

// RotateEmergency distrusts every key of the ring and signs with a new one at
// once. From its answer on this node refuses all access tokens minted before.
// Verifiers elsewhere that do not fetch the JWKS for an unknown kid refuse the
// new ones until their copy is over.
func (r *Rotation) RotateEmergency(ctx context.Context, by keystore.Attribution, now time.Time) (Rotated, error) {
	active, next, err := r.newPair()
	if err != nil {
		return Rotated{}, err
	}
	return r.command(ctx, by, now, func(old ring) (ring, error) {
		return old.distrusting(active, next, now), nil
	})
}

// SetInterval changes the time between planned rotations. It does not rotate,
// not even when the active key is already older: then the rotation is a day
// away. A *keystore.FieldError if days is out of bounds.
func (r *Rotation) SetInterval(ctx context.Context, by keystore.Attribution, days keystore.Days, now time.Time) (keystore.Revision, error) {
	if err := validInterval(days); err != nil {
		return 0, err
	}
	revision, err := r.change(ctx, by, func(old ring, _ keystore.Revision) (ring, bool, error) {
		return old.paced(days, now), old.interval != days, nil
	})
	if err != nil {
		return 0, fmt.Errorf("changing the rotation interval: %w", err)
	}
	return revision, nil
}

// command changes the ring whatever it is, and says what came of it.
func (r *Rotation) command(ctx context.Context, by keystore.Attribution, now time.Time, rule func(ring) (ring, error)) (Rotated, error) {
	var done Rotated
	revision, err := r.change(ctx, by, func(old ring, _ keystore.Revision) (ring, bool, error) {
		next, err := rule(old)
		if err != nil {
			return ring{}, false, err
		}
		done = Rotated{KID: next.keys[0].kid, SignsAt: next.keys[0].activated.Time()}
		if next.keys[0].kid == old.keys[0].kid {
			done = Rotated{KID: next.keys[1].kid, SignsAt: next.dueAt(r.cfg.Keyring.propagation).Time(), Pending: true}
		}
		return next, !next.same(old), nil
	})
	if err != nil {
		return Rotated{}, fmt.Errorf("rotating signing keys: %w", err)
	}
	done.Revision = revision
	return done, nil
}

// step does what is due on the ring that this node knows. If the store holds
// another one by then, another node was first, and that is as well.
func (r *Rotation) step(ctx context.Context, now time.Time) error {
	known := r.cfg.Keyring.current.Load()
	if known == nil || !known.ring.stepAt(r.cfg.Keyring.propagation).Passed(now) {
		return nil
	}
	fresh, err := r.newKey()
	if err != nil {
		return err
	}
	_, err = r.change(ctx, planned, func(old ring, revision keystore.Revision) (ring, bool, error) {
		if revision != known.revision {
			return ring{}, false, nil
		}
		next, changed := old.advanced(fresh, r.cfg.Keyring.propagation, now)
		return next, changed, nil
	})
	return err
}

// planned is on whose behalf the loop changes the ring.
var planned = keystore.Attribution{Actor: keystore.ActorWarder, Operation: "signing_keys.advance"}

// audit says what became of the ring, whose body is sealed.
func audit(tx keystore.Tx, by keystore.Attribution, before, after ring) error {
	e := by.Entry(keystore.KindSigningRing, ringDocument, time.Now())
	var err error
	if e.Before, err = before.auditText(); err != nil {
		return err
	}
	if e.After, err = after.auditText(); err != nil {
		return err
	}
	return tx.AppendAudit(&e)
}

// rest waits until something is due; false when ctx ended.
func (r *Rotation) rest(ctx context.Context) bool {
	for ctx.Err() == nil {
		changed := r.cfg.Keyring.changes() // before reading the ring: no change is missed
		wait := maxRest
		if known := r.cfg.Keyring.current.Load(); known != nil {
			wait = min(wait, time.Until(known.ring.stepAt(r.cfg.Keyring.propagation).Time()))
		}
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return false
}

var errRingMissing = errors.New("the store has no signing ring")

// change puts rule's ring in place of the stored one, if rule says so, and
// returns when this node has applied it, even if the caller has gone;
// keystore.ErrNotInForce if that takes too long.
func (r *Rotation) change(ctx context.Context, by keystore.Attribution, rule func(ring, keystore.Revision) (ring, bool, error)) (keystore.Revision, error) {
	revision, err := r.cfg.Store.Transact(ctx, func(tx keystore.Tx) error {
		old, revision, err := r.read(tx)
		if err != nil {
			return err
		}
		if revision == 0 {
			return errRingMissing
		}
		next, changed, err := rule(old, revision)
		if err != nil || !changed {
			return err
		}
		if err := r.write(tx, next); err != nil {
			return err
		}
		return audit(tx, by, old, next)
	})
	if err != nil {
		r.cfg.Follower.Wake() // it may have been committed all the same: the answer got lost
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	if err := r.cfg.Follower.Await(ctx, revision); err != nil {
		return 0, fmt.Errorf("%w: %w", keystore.ErrNotInForce, err)
	}
	return revision, nil
}

// read returns the stored ring and its revision; zero if there is none.
func (r *Rotation) read(tx keystore.Tx) (ring, keystore.Revision, error) {
	d, err := tx.Document(keystore.KindSigningRing, ringDocument)
	if err != nil || d.Revision == 0 {
		return ring{}, 0, err
	}
	stored, err := openRing(r.cfg.Keyring.secret, d.Body)
	return stored, d.Revision, err
}

func (r *Rotation) write(tx keystore.Tx, next ring) error {
	body, err := next.seal(r.cfg.Keyring.secret)
	if err != nil {
		return err
	}
	return tx.PutDocument(&keystore.Document{Kind: keystore.KindSigningRing, Name: ringDocument, Body: body})
}

func (r *Rotation) newPair() (active, next signingKey, err error) {
	if active, err = r.newKey(); err != nil {
		return active, next, err
	}
	next, err = r.newKey()
	return active, next, err
}
