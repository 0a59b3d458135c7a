package keystore

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// faultRegistry is the Registry and the Notifier of a faultStore, whose calls
// a test can hold up and fail.
type faultRegistry struct {
	store *faultStore

	mu    sync.Mutex // guards all below
	hooks registryHooks
	nodes []Node
	beats []Node         // all that were recorded
	rolls int            // asked for
	asks  int            // for heartbeats
	heard []func(Notice) // of all nodes that listen
	calls []string       // in order, with the reads of the log that a test notes
	clock time.Duration  // by which the store's clock is ahead
}

// registryHooks run outside of the registry's lock, so they may block. An
// error is the call's.
type registryHooks struct {
	beat  func(context.Context, Node) error
	roll  func(context.Context) error
	ask   func(context.Context) error
	leave func(NodeID) error
}

func (r *faultRegistry) hook(set func(*registryHooks)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(&r.hooks)
}

func (r *faultRegistry) hooked() registryHooks {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hooks
}

// note remembers that something was done, in order.
func (r *faultRegistry) note(call string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
}

func (r *faultRegistry) noted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// noteAnew lets go what was noted.
func (r *faultRegistry) noteAnew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = nil
}

// told returns what the last heartbeat said.
func (r *faultRegistry) told() Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beats[len(r.beats)-1]
}

func (r *faultRegistry) now() Instant { return InstantOf(time.Now().Add(r.clock)) }

func (r *faultRegistry) Beat(ctx context.Context, n Node) error {
	if h := r.hooked(); h.beat != nil {
		if err := h.beat(ctx, n); err != nil {
			return err
		}
	}
	if !r.store.holds(n.Applied) {
		n.Applied = Position{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n.Heartbeat = r.now()
	r.calls, r.beats = append(r.calls, "beat"), append(r.beats, n)
	if i := slices.IndexFunc(r.nodes, func(o Node) bool { return o.ID == n.ID }); i >= 0 {
		r.nodes[i] = n
	} else {
		r.nodes = append(r.nodes, n)
	}
	return nil
}

func (r *faultRegistry) Roll(ctx context.Context) (Roll, error) {
	r.mu.Lock()
	r.rolls++
	roll := Roll{Now: r.now(), Nodes: slices.Clone(r.nodes)}
	r.mu.Unlock()
	if h := r.hooked(); h.roll != nil {
		if err := h.roll(ctx); err != nil {
			return Roll{}, err
		}
	}
	roll.Head = r.store.headPosition()
	return roll, nil
}

func (r *faultRegistry) Leave(_ context.Context, id NodeID) error {
	if h := r.hooked(); h.leave != nil {
		if err := h.leave(id); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, "leave")
	r.nodes = slices.DeleteFunc(r.nodes, func(n Node) bool { return n.ID == id })
	return nil
}

func (r *faultRegistry) Listen(ctx context.Context, heard func(Notice)) error {
	r.listen(heard)
	heard(Notice{})
	<-ctx.Done()
	return ctx.Err()
}

func (r *faultRegistry) listen(heard func(Notice)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, heard)
}

func (r *faultRegistry) AskBeats(ctx context.Context) error {
	h := r.hooked()
	if h.ask != nil {
		if err := h.ask(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.asks++
	heard := slices.Clone(r.heard)
	r.mu.Unlock()
	for _, hear := range heard {
		hear(Notice{Beat: true})
	}
	return nil
}

// shows returns what the registry shows of a node; false if it does not.
func (r *faultRegistry) shows(id NodeID) (Node, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.nodes, func(n Node) bool { return n.ID == id })
	if i < 0 {
		return Node{}, false
	}
	return r.nodes[i], true
}

// put registers a node that no test runs.
func (r *faultRegistry) put(n Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes = slices.DeleteFunc(r.nodes, func(o Node) bool { return o.ID == n.ID })
	r.nodes = append(r.nodes, n)
}

func (r *faultRegistry) counted() (rolls, asks, beats int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rolls, r.asks, len(r.beats)
}

func (s *faultStore) holds(p Position) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := int(p.Revision)
	return at >= 1 && at <= len(s.log) && s.log[at-1].Position == p
}

func (s *faultStore) headPosition() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head()
}

// newSharedNode returns a started node of a store that others write, too, and
// that allows itself f.
func newSharedNode(t testing.TB, registry *faultRegistry, f Freshness) *node {
	t.Helper()
	n := buildNode(registry.store, 16, NewPresence(registry, Node{ID: NewNodeID()}))
	n.auth.Freshness = f
	if _, err := n.presence.Promise(context.Background(), f); err != nil {
		t.Fatalf("promising %+v: %v", f, err)
	}
	registry.listen(n.follower.Hear)
	n.start(t)
	return n
}

func newFaultRegistry() *faultRegistry { return &faultRegistry{store: newFaultStore()} }
