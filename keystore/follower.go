package keystore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Applier holds facts in memory that follow the store: the view, the
// directory of organizations, the signing ring. It is called by one goroutine
// only, in the order of the log.
type Applier interface {
	// Reset replaces everything known by the snapshot.
	Reset(s Snapshot) error
	// Apply takes over one change. Values in c are true as of head.
	Apply(c Change, head Revision) error
}

// Follower reads the log and has every change applied in order. The log is
// the truth; Wake is only a hint that there is more of it.
type Follower struct {
	store    FollowedStore
	lease    *Lease
	appliers []Applier
	interval time.Duration
	failed   func(error)
	wake     chan struct{}

	mu      sync.Mutex // guards applied and moved
	applied Position
	moved   chan struct{} // closed when applied moves
}

// FollowedStore is what a Follower needs of a store.
type FollowedStore interface {
	Feed
	Snapshotter
}

const (
	changesPerRound = 1000
	retryDelay      = 100 * time.Millisecond
)

// NewFollower returns a follower that renews lease and feeds appliers.
// interval is how often it looks by itself; zero means that this process is
// the only writer of the store, so that Wake tells it of every change.
// failed, if not nil, is told why a round failed.
func NewFollower(store FollowedStore, lease *Lease, interval time.Duration, failed func(error), appliers ...Applier) *Follower {
	f := &Follower{
		store: store, lease: lease, appliers: appliers, interval: interval, failed: failed,
		wake: make(chan struct{}, 1), moved: make(chan struct{}),
	}
	wake := f.Wake
	lease.wake.Store(&wake)
	return f
}

// Start loads everything but the keys and takes the first lease. Nothing is
// trusted before.
func (f *Follower) Start(ctx context.Context) error {
	if err := f.reload(ctx); err != nil {
		return err
	}
	return f.round(ctx)
}

// Run follows the log until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	for f.rest(ctx) {
		err := f.round(ctx)
		for ; err != nil && ctx.Err() == nil; err = f.round(ctx) {
			f.report(err)
			select {
			case <-time.After(retryDelay):
			case <-ctx.Done():
			}
		}
	}
}

// Wake asks for a round. It never blocks.
func (f *Follower) Wake() {
	select {
	case f.wake <- struct{}{}:
	default: // one is already asked for
	}
}

// Applied returns the position up to which everything was applied.
func (f *Follower) Applied() Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// Await returns when everything up to r was applied on this node, or with the
// context's error.
func (f *Follower) Await(ctx context.Context, r Revision) error {
	for {
		applied, moved := f.progress()
		if applied.Revision >= r {
			return nil
		}
		f.Wake()
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("waiting for revision %d: %w", r, ctx.Err())
		}
	}
}

// rest waits for a reason to look; false when ctx ended.
func (f *Follower) rest(ctx context.Context) bool {
	var tick <-chan time.Time
	if f.interval > 0 {
		timer := time.NewTimer(f.interval)
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-f.wake:
	case <-tick:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// round reads up to the head, and only then renews the lease, timed from
// before its first query.
func (f *Follower) round(ctx context.Context) error {
	began := time.Now()
	for {
		batch, err := f.store.Changes(ctx, f.Applied(), changesPerRound)
		if errors.Is(err, ErrPositionLost) {
			if err := f.reload(ctx); err != nil {
				return err
			}
			batch, err = f.store.Changes(ctx, f.Applied(), changesPerRound) // lost again: an error, not a loop
		}
		if err == nil {
			err = f.apply(batch)
		}
		if err == nil && len(batch.Changes) == 0 && f.Applied() != batch.Head {
			err = fmt.Errorf("nothing follows revision %d, yet the head is %d", f.Applied().Revision, batch.Head.Revision)
		}
		if err != nil {
			f.suspend()
			return fmt.Errorf("following the change log: %w", err)
		}
		if f.Applied() == batch.Head {
			f.renew(began)
			return nil
		}
	}
}

func (f *Follower) apply(batch Batch) error {
	for _, c := range batch.Changes {
		for _, a := range f.appliers {
			if err := a.Apply(c, batch.Head.Revision); err != nil {
				return fmt.Errorf("applying revision %d (%s %s): %w", c.Revision, c.Kind, c.Name, err)
			}
		}
		f.publish(c.Position)
	}
	return nil
}

// reload trusts nothing until all is read anew.
func (f *Follower) reload(ctx context.Context) error {
	f.lease.Suspend()
	snapshot, err := f.store.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("reading a snapshot: %w", err)
	}
	for _, a := range f.appliers {
		if err := a.Reset(snapshot); err != nil {
			return fmt.Errorf("taking over a snapshot: %w", err)
		}
	}
	f.publish(snapshot.Head)
	return nil
}

// suspend: an only writer looks at the log because it wrote. If it then
// cannot read it, it no longer knows. Others have a lease that runs out.
func (f *Follower) suspend() {
	if f.interval == 0 {
		f.lease.Suspend()
	}
}

func (f *Follower) renew(began time.Time) {
	if f.interval == 0 {
		f.lease.RenewEndless()
	} else {
		f.lease.Renew(began)
	}
}

func (f *Follower) report(err error) {
	if f.failed != nil {
		f.failed(err)
	}
}

func (f *Follower) progress() (Position, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied, f.moved
}

func (f *Follower) publish(p Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = p
	close(f.moved)
	f.moved = make(chan struct{})
}
