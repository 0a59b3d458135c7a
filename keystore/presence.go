package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Presence is this node's entry in the registry of a store that several nodes
// write. It says for how long the node may go on deciding without another
// heartbeat, and says so before the node does. The nil Presence is that of the
// only writer of a store, whom nobody waits for. Safe for concurrent use.
type Presence struct {
	registry Registry
	self     Node
	turn     chan struct{} // held while a heartbeat is given: an earlier one does not replace a later one
	applied  func() Position
	changed  func() // asks the follower for a due round

	mu       sync.Mutex // guards all below
	promises map[*Freshness]struct{}
	bound    time.Duration // that the registry shows at least
}

const (
	// maxBound is how long at most other nodes are made to wait for one that
	// is gone.
	maxBound = 30 * 24 * time.Hour

	roundsPerLease  = 4
	minimumInterval = 50 * time.Millisecond
	idleInterval    = time.Second // while no configuration has promised anything
	leaveTimeout    = 2 * time.Second
)

// A call to the store takes no longer than half a lease, so that another one
// can follow within it; but a store that is slow is not a store that is gone.
const (
	minimumPatience = time.Second
	maximumPatience = 10 * time.Second
)

// NewPresence returns the presence of self, of which id, address and version
// count, in registry. Nothing is registered before the first heartbeat.
func NewPresence(registry Registry, self Node) *Presence {
	return &Presence{
		registry: registry, self: self, turn: make(chan struct{}, 1), promises: make(map[*Freshness]struct{}),
		applied: func() Position { return Position{} }, changed: func() {},
	}
}

// Promise is what a configuration does before it starts deciding under f.
// The node's bound is the largest of those promised: if f raises it, the
// registry has been told when Promise returns without an error, and on an
// error the configuration must not start. withdraw takes the promise back,
// after the configuration has ceased to decide; a lower bound goes with the
// next heartbeat.
func (p *Presence) Promise(ctx context.Context, f Freshness) (withdraw func(), err error) {
	if p == nil {
		return func() {}, nil
	}
	if f.MaxStaleness <= 0 || f.Serve < 0 || f.Bound() > maxBound {
		return nil, errors.New("on a store that several nodes write, max_staleness must be positive, and with what is served after it not be beyond 30 days")
	}
	raised := p.include(&f)
	withdraw = func() { p.exclude(&f) }
	if raised {
		if err := p.beat(ctx); err != nil {
			withdraw()
			return nil, err
		}
	}
	p.changed()
	return withdraw, nil
}

// Leave removes the node from the registry. It must have ceased to decide.
func (p *Presence) Leave(ctx context.Context) error {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	end, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := p.registry.Leave(ctx, p.self.ID); err != nil {
		return fmt.Errorf("leaving the registry of nodes: %w", err)
	}
	return nil
}

// include reports whether the registry does not show as much as f yet.
func (p *Presence) include(f *Freshness) (raised bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promises[f] = struct{}{}
	return f.Bound() > p.bound
}

func (p *Presence) exclude(f *Freshness) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.promises, f)
}

// beat tells the registry that this node lives, and what it has applied.
func (p *Presence) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	end, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer end()
	n := p.node()
	if err := p.registry.Beat(ctx, n); err != nil {
		return fmt.Errorf("giving a heartbeat: %w", err)
	}
	p.shown(n.Bound)
	return nil
}

func (p *Presence) take(ctx context.Context) (end func(), err error) {
	select {
	case p.turn <- struct{}{}:
		return func() { <-p.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another heartbeat: %w", unavailable(ctx.Err()))
	}
}

// node is what the next heartbeat says. From here on the registry may show
// its bound, whether or not anybody learns that it does.
func (p *Presence) node() Node {
	n := p.self
	n.Applied = p.applied()
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := range p.promises {
		n.Bound = max(n.Bound, f.Bound())
	}
	p.bound = min(p.bound, n.Bound)
	return n
}

func (p *Presence) shown(bound time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bound = bound
}

// interval is how often the lease is renewed: several times while the shortest
// one lasts.
func (p *Presence) interval() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.promises) == 0 {
		return idleInterval
	}
	shortest := maxBound
	for f := range p.promises {
		shortest = min(shortest, f.MaxStaleness)
	}
	return max(shortest/roundsPerLease, minimumInterval)
}

// patience is how long one call to the store may take.
func (p *Presence) patience() time.Duration {
	return min(max(2*p.interval(), minimumPatience), maximumPatience)
}

// nodeIDPrefix begins every NodeID.
const nodeIDPrefix = "nod_"

// NewNodeID returns a fresh id of 128 random bits.
func NewNodeID() NodeID { return NodeID(nodeIDPrefix + strings.ToLower(rand.Text())) }
