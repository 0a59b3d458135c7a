package keystore

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Freshness is how old may be what a node knows, for one configuration to
// decide on it. Zero trusts nothing.
type Freshness struct {
	// MaxStaleness is the age up to which every request is decided. Beyond
	// it, a request first waits for the node to look at the store.
	MaxStaleness time.Duration
	// Serve is how long beyond MaxStaleness requests are decided all the same
	// if the store cannot be looked at. It weakens the promise: what was
	// revoked meanwhile passes for so much longer.
	Serve time.Duration
}

// Bound returns the age at which nothing is decided any more.
func (f Freshness) Bound() time.Duration {
	if f.MaxStaleness <= 0 || f.Serve <= 0 {
		return max(f.MaxStaleness, 0)
	}
	return f.MaxStaleness + min(f.Serve, math.MaxInt64-f.MaxStaleness)
}

// Lease remembers as of when this node knows everything the store knows. How
// old that may be is the asking configuration's policy. The zero Lease, and a
// suspended one, trusts nothing.
type Lease struct {
	// The moment of the last complete round on both clocks: the monotonic one
	// stops while the machine sleeps, the wall clock can be set back. What
	// either says is over is over.
	monotonic atomic.Int64 // ns since origin; 0: none
	wall      atomic.Int64 // ns since 1970

	wake    atomic.Pointer[func()] // asks the follower for a round
	waiting atomic.Int32
	served  atomic.Uint64
	vain    atomic.Int64 // what monotonic was when a request waited in vain

	mu      sync.Mutex // guards renewed
	renewed chan struct{}
}

// A request that meets a finished lease waits this long for a round, and at
// most so many wait at once; the rest are refused at once.
const (
	leaseWait       = 500 * time.Millisecond
	maxLeaseWaiters = 1024
)

// endless stands for "no other process writes this store".
const endless = math.MaxInt64

var origin = time.Now().Add(-time.Hour) // so that no moment is 0

// Renew records that everything up to at is known. at is the moment before
// the first query of the round.
func (l *Lease) Renew(at time.Time) { l.set(int64(at.Sub(origin)), at.UnixNano()) }

// RenewEndless records that nothing can change unseen: this process is the
// store's only writer, and has applied all it wrote.
func (l *Lease) RenewEndless() { l.set(endless, endless) }

// Suspend ends the lease until the next renewal.
func (l *Lease) Suspend() {
	l.monotonic.Store(0)
	l.wall.Store(0)
}

func (l *Lease) set(monotonic, wall int64) {
	l.monotonic.Store(monotonic)
	l.wall.Store(wall)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.renewed != nil {
		close(l.renewed)
		l.renewed = nil
	}
}

// Valid reports whether what is known is no older than staleness at now.
func (l *Lease) Valid(now time.Time, staleness time.Duration) bool {
	return l.Remaining(now, staleness) > 0
}

// Remaining returns how long the lease still holds at now; zero if it does not.
func (l *Lease) Remaining(now time.Time, staleness time.Duration) time.Duration {
	monotonic, wall := l.monotonic.Load(), l.wall.Load()
	switch monotonic {
	case endless:
		return endless
	case 0:
		return 0
	}
	age := max(now.Sub(origin)-time.Duration(monotonic), time.Duration(now.UnixNano()-wall))
	return max(staleness-age, 0)
}

// Await returns nil at once while the lease holds. Otherwise it wakes the
// follower and waits for a round, for leaseWait at most; then ErrStale, unless
// f lets requests be served all the same. Once one has waited in vain, such
// requests do not wait any more until a round has succeeded.
func (l *Lease) Await(ctx context.Context, now time.Time, f Freshness) error {
	if l.Valid(now, f.MaxStaleness) {
		return nil
	}
	return l.awaitOrServe(ctx, now, f)
}

func (l *Lease) awaitOrServe(ctx context.Context, now time.Time, f Freshness) error {
	if l.vain.Load() == l.monotonic.Load() && l.serves(now, f) {
		l.ask()
		l.served.Add(1)
		return nil
	}
	err := l.await(ctx, f.MaxStaleness)
	if err != nil && ctx.Err() == nil && l.serves(time.Now(), f) {
		l.served.Add(1)
		return nil
	}
	return err
}

// serves reports whether f lets requests be decided that waited in vain.
func (l *Lease) serves(now time.Time, f Freshness) bool {
	return f.Serve > 0 && l.Valid(now, f.Bound())
}

// Served returns how often Await let a request be served on what is older than
// its MaxStaleness.
func (l *Lease) Served() uint64 { return l.served.Load() }

func (l *Lease) await(ctx context.Context, staleness time.Duration) error {
	if l.waiting.Add(1) > maxLeaseWaiters {
		l.waiting.Add(-1)
		return ErrStale
	}
	defer l.waiting.Add(-1)
	deadline := time.NewTimer(leaseWait)
	defer deadline.Stop()
	for {
		renewed, known := l.Renewed(), l.monotonic.Load()
		if l.Valid(time.Now(), staleness) {
			return nil
		}
		l.ask()
		select {
		case <-renewed:
		case <-deadline.C:
			l.vain.Store(known)
			return ErrStale
		case <-ctx.Done():
			return ErrStale
		}
	}
}

// ask wakes the follower, if there is one.
func (l *Lease) ask() {
	if wake := l.wake.Load(); wake != nil {
		(*wake)()
	}
}

// Renewed returns a channel that is closed by the next renewal.
func (l *Lease) Renewed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.renewed == nil {
		l.renewed = make(chan struct{})
	}
	return l.renewed
}
