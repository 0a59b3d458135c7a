package keystore

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

// Nodes is what one node knows of all: who has seen a change, and how they
// are. However many ask at once share one query at a time. Safe for concurrent
// use.
type Nodes struct {
	config NodesConfig

	mu       sync.Mutex // guards all below
	next     *look      // that has not begun, for all who come until it does
	looking  bool
	earliest time.Time // at which a look may begin
}

// NodesConfig is what Nodes works with.
type NodesConfig struct {
	Self     Node // of which id, address and version count
	Follower *Follower
	// Of a store that several nodes write. Nil: this node is the only one.
	Registry Registry
	Notifier Notifier
}

// NodeReport is how all nodes are at one moment.
type NodeReport struct {
	Now   Instant // by the store's clock
	Head  Position
	Nodes []NodeState // in the order of their registration
}

// NodeState is how one node is.
type NodeState struct {
	Node
	Self      bool
	Revisions Revision      // committed and not applied
	Lag       time.Duration // since the first of them was committed
	LeaseLeft time.Duration // after which it decides nothing without another heartbeat
	Stale     bool          // it decides nothing, if it still runs
}

// Pauses between looks at the registry. One query runs at a time, and not for
// more than half of the time.
const (
	firstLookPause = 2 * time.Millisecond
	longLookPause  = 50 * time.Millisecond
	lookTimeout    = 5 * time.Second
	freshBeatWait  = 250 * time.Millisecond
)

// NewNodes returns the nodes of a store.
func NewNodes(c NodesConfig) *Nodes { return &Nodes{config: c} }

// Await returns when every node has applied r, which was committed before, or
// has ceased to decide; or when ctx ends, with those that may still decide
// without it. That the registry cannot be read does not end the wait: then
// pending is as of the last time that it could. If it never could, nobody
// knows who is pending, and the error is ErrUnavailable. ErrPositionLost if
// the log does not reach r any more: the store has lost the change. After the
// log was replaced the registry may lack nodes, so that for a while nobody
// knows either.
func (n *Nodes) Await(ctx context.Context, r Revision) (pending []NodeID, err error) {
	if n.config.Registry == nil {
		return n.awaitSelf(ctx, r), nil
	}
	read := false
	for pause := firstLookPause; ; pause = min(2*pause, longLookPause) {
		seen, lookErr := n.look(ctx, pause == firstLookPause)
		switch {
		case lookErr == nil && seen.roll.Head.Revision < r:
			return nil, fmt.Errorf("waiting for revision %d of a log that ends at %d: %w", r, seen.roll.Head.Revision, ErrPositionLost)
		case lookErr == nil:
			read, err = true, nil
			if pending = n.pending(seen.roll, r); len(pending) == 0 {
				if err = n.complete(seen.roll, time.Now()); err == nil {
					return nil, nil
				}
			}
		case !read:
			err = unavailable(lookErr)
		}
		if !waited(ctx, pause) {
			return pending, err
		}
	}
}

// Report returns how all nodes are. It asks them first, and gives those that
// live a short time to answer.
func (n *Nodes) Report(ctx context.Context) (NodeReport, error) {
	if n.config.Registry == nil {
		return n.reportSelf(time.Now()), nil
	}
	first, err := n.look(ctx, true)
	if err != nil {
		return NodeReport{}, unavailable(err)
	}
	last := first
	ctx, cancel := context.WithTimeout(ctx, freshBeatWait)
	defer cancel()
	for pause := firstLookPause; !last.answered(first.asked) && waited(ctx, pause); pause = min(2*pause, longLookPause) {
		if next, err := n.look(ctx, false); err == nil {
			last = next
		}
	}
	return n.report(last.roll), nil
}

// waited lets d pass; false if ctx ended before.
func waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// pending returns the nodes that may still decide without r. What this node
// has applied it knows better than the registry.
func (n *Nodes) pending(roll Roll, r Revision) (pending []NodeID) {
	for _, node := range roll.Nodes {
		if node.ID == n.config.Self.ID {
			node.Applied = n.config.Follower.Applied()
		}
		if node.Pending(r, roll.Now) {
			pending = append(pending, node.ID)
		}
	}
	return pending
}

// complete reports why the registry may lack a node that still decides. With a
// log that took the place of another came a registry that may not know who
// registered last. All that it does not know had their last heartbeat before
// this node found out, and a bound like that of others.
func (n *Nodes) complete(roll Roll, now time.Time) error {
	replaced := n.config.Follower.Progress().Replaced
	silent := Node{Heartbeat: InstantOf(replaced)}
	for _, node := range roll.Nodes {
		silent.Bound = max(silent.Bound, node.Bound)
	}
	if !replaced.IsZero() && silent.Pending(math.MaxInt64, silent.Heartbeat+microseconds(now.Sub(replaced))) {
		return fmt.Errorf("the log was replaced, and the registry may not know all nodes yet: %w", ErrUnavailable)
	}
	return nil
}

func (n *Nodes) report(roll Roll) NodeReport {
	report := NodeReport{Now: roll.Now, Head: roll.Head}
	for _, node := range roll.Nodes {
		state := node.state(roll.Now, roll.Head)
		state.Self = node.ID == n.config.Self.ID
		report.Nodes = append(report.Nodes, state)
	}
	return report
}

func (n Node) state(now Instant, head Position) NodeState {
	s := NodeState{Node: n, LeaseLeft: n.LeaseLeft(now)}
	s.Stale = s.LeaseLeft == 0
	if n.Applied.Revision < head.Revision {
		s.Revisions = head.Revision - n.Applied.Revision
	}
	if n.Behind != 0 {
		s.Lag = max(now.Time().Sub(n.Behind.Time()), 0)
	}
	return s
}

// awaitSelf is Await of the only writer.
func (n *Nodes) awaitSelf(ctx context.Context, r Revision) []NodeID {
	if n.config.Follower.Await(ctx, r) != nil {
		return []NodeID{n.config.Self.ID}
	}
	return nil
}

// reportSelf is Report of the only writer. Its lease does not end by itself,
// so that none is left of it.
func (n *Nodes) reportSelf(now time.Time) NodeReport {
	at, is := InstantOf(now), n.config.Follower.Progress()
	self := n.config.Self
	self.Applied, self.Heartbeat = is.Applied, at
	state := self.state(at, is.Head)
	state.Self, state.Stale = true, !n.config.Follower.config.Lease.Valid(now, 0)
	return NodeReport{Now: at, Head: is.Head, Nodes: []NodeState{state}}
}

// look is one reading of the registry, for all who wait for it.
type look struct {
	ask  bool // for heartbeats, before
	done chan struct{}

	// After done:
	asked Instant // by the store's clock: when the heartbeats were asked for, or a little before
	roll  Roll
	err   error
}

// answered reports whether all nodes that still decide have given a heartbeat
// since.
func (l *look) answered(since Instant) bool {
	for _, node := range l.roll.Nodes {
		if node.Heartbeat < since && node.LeaseLeft(l.roll.Now) > 0 {
			return false
		}
	}
	return true
}

// look reads the registry: what it returns was read after the call, so that a
// node missing in it reads the log later, too.
func (n *Nodes) look(ctx context.Context, ask bool) (*look, error) {
	l := n.join(ask)
	select {
	case <-l.done:
		return l, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *Nodes) join(ask bool) *look {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = &look{done: make(chan struct{})}
	}
	if !n.looking {
		n.looking = true
		go n.run()
	}
	n.next.ask = n.next.ask || ask
	return n.next
}

// run does the looks that are waited for, one after the other, and ends when
// there is none.
func (n *Nodes) run() {
	for pause, wanted := n.pause(); wanted; pause, wanted = n.pause() {
		time.Sleep(pause)
		began := time.Now()
		n.take().run(n.config)
		n.rest(time.Since(began))
	}
}

// pause returns how long to wait before the next look, if one is waited for.
func (n *Nodes) pause() (pause time.Duration, wanted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looking = n.next != nil
	return time.Until(n.earliest), n.looking
}

// take returns the look that is waited for, which nobody joins any more.
func (n *Nodes) take() *look {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.next
	n.next = nil
	return l
}

// rest has the registry left alone for as long as the last look took.
func (n *Nodes) rest(took time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.earliest = time.Now().Add(min(max(took, firstLookPause), longLookPause))
}

// run looks. That nobody could be asked is no failure: nodes give heartbeats by
// themselves, too.
func (l *look) run(c NodesConfig) {
	defer close(l.done)
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	began := time.Now()
	if l.ask {
		asking, cancel := context.WithTimeout(ctx, lookTimeout/2)
		_ = c.Notifier.AskBeats(asking)
		cancel()
	}
	l.roll, l.err = c.Registry.Roll(ctx)
	l.asked = l.roll.Now - microseconds(time.Since(began))
}
