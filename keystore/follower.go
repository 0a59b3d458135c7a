package keystore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
// the truth; Wake and Hear are only hints that there is more of it.
//
// Where several nodes write the store, it does so in rounds of two kinds. A
// round that is due gives a heartbeat, reads up to the head, and renews the
// lease, timed from before both. The heartbeat comes first because it makes
// "seen by all" sound: who looks at the registry after it waits for this node,
// and what was committed by who looked before it is in what this node reads.
// A round between, because somebody changed something, reads and applies only:
// no lease outlives the heartbeat by more than the bound that it showed.
type Follower struct {
	config   FollowerConfig
	presence *Presence
	wake     chan struct{}
	wanted   atomic.Uint32 // reasons for the next round
	rounds   roundCounters

	// Of the goroutine in Start, then in Run:
	nextDue time.Time
	lost    bool // the position, and nothing was loaded since

	mu       sync.Mutex // guards progress and moved
	progress Progress
	moved    chan struct{} // closed when what is applied moves
}

// FollowerConfig is what a Follower works with.
type FollowerConfig struct {
	Store    FollowedStore
	Lease    *Lease // which it renews
	Appliers []Applier
	// Presence says that others write the store, too. Nil: this process is
	// the only writer, so that Wake tells of every change.
	Presence *Presence
	// Failed, if not nil, is told why a round failed. It is tried again.
	Failed func(error)
	// Lost, if not nil, is told that the log does not hold the position any
	// more up to which it was applied: the store has failed over, was restored
	// from a backup, or has pruned more than this node had read. Everything is
	// purged and loaded anew.
	Lost func(at Position)
}

// FollowedStore is what a Follower needs of a store.
type FollowedStore interface {
	Feed
	Snapshotter
}

// Progress is how far a follower is.
type Progress struct {
	Applied Position  // everything up to here was applied
	Head    Position  // of the log, when it was last read
	Fresh   time.Time // when the last complete due round began; zero: none yet

	// When another log was last found in the place of the one that was
	// followed; zero: never.
	Replaced time.Time
}

// Rounds counts what a follower did since it was made.
type Rounds struct {
	Polled uint64 // rounds begun because the lease was due for renewal
	Hinted uint64 // because another node told of a change
	Asked  uint64 // because this process wrote, or a request met a finished lease
	Failed uint64
	Lost   uint64 // times that the position was lost
}

type roundCounters struct{ polled, hinted, asked, failed, lost atomic.Uint64 }

// reason is why there is a round; several may come together.
type reason uint32

const (
	reasonAsked reason = 1 << iota
	reasonHinted
	reasonPolled
	reasonDue  // the lease is to be renewed
	reasonBeat // somebody waits to see what is applied here
)

const (
	changesPerRound = 1000
	retryDelay      = 100 * time.Millisecond
	maxRetryDelay   = 400 * time.Millisecond // shorter than a request waits for a round
	reloadTimeout   = 30 * time.Second
)

// NewFollower returns a follower that has not read anything yet.
func NewFollower(c FollowerConfig) *Follower {
	f := &Follower{config: c, presence: c.Presence, wake: make(chan struct{}, 1), moved: make(chan struct{})}
	renew := func() { f.want(reasonAsked | reasonDue) }
	c.Lease.wake.Store(&renew)
	if p := c.Presence; p != nil {
		p.applied, p.changed = f.Applied, renew
	}
	return f
}

// Start registers the node, loads everything but the keys, and takes the first
// lease. Nothing is trusted before.
func (f *Follower) Start(ctx context.Context) error {
	err := f.beatIf(ctx, true)
	if err == nil {
		err = f.reload(ctx)
	}
	if err == nil {
		err = f.round(ctx, f.reasons()|reasonDue)
	}
	if err != nil {
		f.leave(ctx)
	}
	return err
}

// Run follows the log until ctx ends. A node that others wait for then trusts
// nothing any more, and leaves.
func (f *Follower) Run(ctx context.Context) {
	defer f.leave(ctx)
	for why := f.rest(ctx); why != 0; why = f.rest(ctx) {
		delay := retryDelay
		for err := f.round(ctx, why); err != nil && ctx.Err() == nil; err = f.round(ctx, why) {
			f.report(err)
			delay = f.pause(ctx, delay)
			why |= f.reasons()
		}
	}
}

// Wake asks for a round. It never blocks.
func (f *Follower) Wake() { f.want(reasonAsked) }

// Hear takes another node's hint, and a request for a heartbeat. It never
// blocks. That the view forgets the keys is not done by it.
func (f *Follower) Hear(n Notice) {
	if n.Beat {
		f.want(reasonHinted | reasonBeat)
	} else {
		f.want(reasonHinted)
	}
}

// Applied returns the position up to which everything was applied.
func (f *Follower) Applied() Position { return f.Progress().Applied }

// Progress returns how far the follower is.
func (f *Follower) Progress() Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress
}

// Rounds returns what was counted.
func (f *Follower) Rounds() Rounds {
	c := &f.rounds
	return Rounds{c.polled.Load(), c.hinted.Load(), c.asked.Load(), c.failed.Load(), c.lost.Load()}
}

// Await returns when everything up to r was applied on this node, or with the
// context's error.
func (f *Follower) Await(ctx context.Context, r Revision) error {
	for {
		applied, moved := f.movement()
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

func (f *Follower) want(why reason) {
	f.wanted.Or(uint32(why))
	select {
	case f.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// reasons returns, once, what a round is wanted for by now.
func (f *Follower) reasons() reason {
	why := reason(f.wanted.Swap(0))
	if f.presence != nil && !time.Now().Before(f.nextDue) {
		why |= reasonPolled | reasonDue
	}
	return why
}

// rest waits for a reason to look; none when ctx ended.
func (f *Follower) rest(ctx context.Context) reason {
	for ctx.Err() == nil {
		if why := f.reasons(); why != 0 {
			f.rounds.begun(why)
			return why
		}
		f.sleep(ctx)
	}
	return 0
}

func (f *Follower) sleep(ctx context.Context) {
	var tick <-chan time.Time
	if f.presence != nil {
		timer := time.NewTimer(time.Until(f.nextDue))
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-f.wake:
	case <-tick:
	case <-ctx.Done():
	}
}

// pause lets some time pass before another attempt, and returns how much the
// next time. Nodes that lost one store do not come back to it all at once.
func (f *Follower) pause(ctx context.Context, delay time.Duration) time.Duration {
	if f.presence != nil {
		delay -= rand.N(delay / 2)
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
	}
	return min(2*delay, maxRetryDelay)
}

// round reads up to the head. What was lost on the way is loaded anew, and
// then the lease, which was suspended, is due.
func (f *Follower) round(ctx context.Context, why reason) error {
	if f.presence == nil {
		why |= reasonDue // it is the only writer, and has just read all that it wrote
	}
	err := ErrPositionLost // still: what was loaded halfway is no place to go on from
	if !f.lost {
		err = f.attempt(ctx, why)
	}
	if errors.Is(err, ErrPositionLost) {
		f.lose()
		if err = f.reload(ctx); err == nil {
			err = f.attempt(ctx, why|reasonDue) // lost again: an error, not a loop
		}
	}
	if err != nil {
		f.rounds.failed.Add(1)
		f.suspend()
		return fmt.Errorf("following the change log: %w", err)
	}
	return nil
}

// attempt reads up to the head, between a heartbeat and the renewal of the
// lease if those are due. Who asked for a heartbeat gets one that tells what
// was read.
func (f *Follower) attempt(ctx context.Context, why reason) error {
	began, isDue := time.Now(), why&reasonDue != 0
	if isDue {
		f.postpone(began)
	}
	if err := f.beatIf(ctx, isDue); err != nil {
		return err
	}
	told := f.Applied()
	if err := f.read(ctx); err != nil {
		return err
	}
	if isDue {
		f.renew(began)
	}
	return f.beatIf(ctx, why&reasonBeat != 0 && !(isDue && told == f.Applied()))
}

func (f *Follower) beatIf(ctx context.Context, wanted bool) error {
	if !wanted || f.presence == nil {
		return nil
	}
	return f.presence.beat(ctx)
}

// read applies all there is, up to the head.
func (f *Follower) read(ctx context.Context) error {
	for {
		batch, err := f.changes(ctx)
		if err == nil {
			err = f.apply(batch)
		}
		if err == nil && len(batch.Changes) == 0 && f.Applied() != batch.Head {
			err = fmt.Errorf("nothing follows revision %d, yet the head is %d", f.Applied().Revision, batch.Head.Revision)
		}
		if err != nil || f.Applied() == batch.Head {
			return err
		}
	}
}

func (f *Follower) changes(ctx context.Context) (Batch, error) {
	if f.presence != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.presence.patience())
		defer cancel()
	}
	batch, err := f.config.Store.Changes(ctx, f.Applied(), changesPerRound)
	if err == nil {
		f.see(batch.Head)
	}
	return batch, err
}

func (f *Follower) apply(batch Batch) error {
	for _, c := range batch.Changes {
		for _, a := range f.config.Appliers {
			if err := a.Apply(c, batch.Head.Revision); err != nil {
				return fmt.Errorf("applying revision %d (%s %s): %w", c.Revision, c.Kind, c.Name, err)
			}
		}
		f.publish(c.Position)
	}
	return nil
}

// lose ends all trust, and tells of it once until something was loaded.
func (f *Follower) lose() {
	f.config.Lease.Suspend()
	f.noteReplaced(time.Now())
	if f.lost {
		return
	}
	f.lost = true
	f.rounds.lost.Add(1)
	if f.config.Lost != nil {
		f.config.Lost(f.Applied())
	}
}

// reload trusts nothing until all is read anew.
func (f *Follower) reload(ctx context.Context) error {
	f.config.Lease.Suspend()
	snapshot, err := f.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("reading a snapshot: %w", err)
	}
	for _, a := range f.config.Appliers {
		if err := a.Reset(snapshot); err != nil {
			return fmt.Errorf("taking over a snapshot: %w", err)
		}
	}
	f.see(snapshot.Head)
	f.publish(snapshot.Head)
	f.lost = false
	return nil
}

func (f *Follower) snapshot(ctx context.Context) (Snapshot, error) {
	if f.presence != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, reloadTimeout)
		defer cancel()
	}
	return f.config.Store.Snapshot(ctx)
}

// suspend: an only writer looks at the log because it wrote. If it then
// cannot read it, it no longer knows. Others have a lease that runs out.
func (f *Follower) suspend() {
	if f.presence == nil {
		f.config.Lease.Suspend()
	}
}

func (f *Follower) renew(began time.Time) {
	if f.presence == nil {
		f.config.Lease.RenewEndless()
	} else {
		f.config.Lease.Renew(began)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress.Fresh = began
}

// postpone makes the next round due an interval after this one began.
func (f *Follower) postpone(began time.Time) {
	if f.presence != nil {
		f.nextDue = began.Add(f.presence.interval())
	}
}

// leave ends the lease before the registry says that nobody need wait for this
// node any more.
func (f *Follower) leave(ctx context.Context) {
	if f.presence == nil {
		return
	}
	f.config.Lease.Suspend()
	if err := f.presence.Leave(context.WithoutCancel(ctx)); err != nil {
		f.report(err)
	}
}

func (f *Follower) report(err error) {
	if f.config.Failed != nil {
		f.config.Failed(err)
	}
}

func (f *Follower) movement() (Position, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress.Applied, f.moved
}

func (f *Follower) noteReplaced(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress.Replaced = now
}

func (f *Follower) see(head Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress.Head = head
}

func (f *Follower) publish(p Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress.Applied = p
	close(f.moved)
	f.moved = make(chan struct{})
}

func (c *roundCounters) begun(why reason) {
	for _, count := range []struct {
		why reason
		n   *atomic.Uint64
	}{{reasonPolled, &c.polled}, {reasonHinted, &c.hinted}, {reasonAsked, &c.asked}} {
		if why&count.why != 0 {
			count.n.Add(1)
		}
	}
}
