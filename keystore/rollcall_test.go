package keystore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// nodesOf returns what n knows of all nodes.
func nodesOf(n *node, registry *faultRegistry) *Nodes {
	return NewNodes(NodesConfig{Self: n.presence.self, Follower: n.follower, Registry: registry, Notifier: registry})
}

// awaiting is one answer to a wait.
type awaiting struct {
	pending []NodeID
	err     error
	took    time.Duration
}

// await waits for r, at most for so long.
func await(nodes *Nodes, r Revision, most time.Duration) awaiting {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	began := time.Now()
	pending, err := nodes.Await(ctx, r)
	return awaiting{pending, err, time.Since(began)}
}

// change makes one that n has applied.
func (n *node) change(t *testing.T) Revision {
	t.Helper()
	rec, _ := n.storedKey(t, "")
	return rec.Revision
}

// TestAwaitAll: as soon as those that live have applied it, by whose own
// heartbeats, for which they are asked.
func TestAwaitAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a, b := newNodeOf(t, registry), newNodeOf(t, registry)
		b.run(t)
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		b.store.hook(func(h *hooks) {
			h.changes = func(Position) error { time.Sleep(20 * time.Millisecond); return nil }
		})
		rec, _ := b.newKey("")
		r := a.store.put(t, &rec) // a itself applies by its own round
		a.run(t)
		must(t, a.follower.Await(context.Background(), r))
		got := await(nodesOf(a, registry), r, 5*time.Second)
		if got.err != nil || got.pending != nil || got.took > 60*time.Millisecond {
			t.Errorf("%+v", got)
		}
		if b.follower.Applied().Revision < r {
			t.Error("one has not applied it")
		}
	})
}

// TestAwaitSilentNodes: one that has died is waited for until it cannot decide
// any more, by the store's clock and with a margin, and named if the caller
// will not wait for so long.
func TestAwaitSilentNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		registry.clock = -time.Hour
		a := newNodeOf(t, registry)
		registry.put(Node{ID: "nod_dead", Bound: 10 * time.Second, Heartbeat: registry.now()})
		registry.put(Node{ID: "nod_long_dead", Bound: 10 * time.Second, Heartbeat: registry.now() - 11_000_000})
		r := a.change(t)
		nodes := nodesOf(a, registry)
		if got := await(nodes, r, 5*time.Second); got.err != nil || !slices.Equal(got.pending, []NodeID{"nod_dead"}) || got.took != 5*time.Second {
			t.Errorf("%+v", got)
		}
		if got := await(nodes, r, time.Minute); got.err != nil || got.pending != nil || got.took < 6*time.Second || got.took > 6*time.Second+2*longLookPause {
			t.Errorf("%+v", got)
		}
	})
}

// TestAwaitLooksAfterTheChange: what is waited for counts nodes that
// registered until the change was committed, though a look was under way that
// does not show them.
func TestAwaitLooksAfterTheChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a := newNodeOf(t, registry)
		nodes := nodesOf(a, registry)
		first := a.change(t)
		held := make(chan struct{})
		registry.hook(func(h *registryHooks) { h.roll = func(context.Context) error { <-held; return nil } })
		early := make(chan awaiting)
		go func() { early <- await(nodes, first, time.Minute) }()
		synctest.Wait() // its look has read the registry, and has not returned
		registry.put(Node{ID: "nod_new", Bound: time.Hour, Heartbeat: registry.now()})
		second := a.change(t)
		late := make(chan awaiting)
		go func() { late <- await(nodes, second, time.Second) }()
		synctest.Wait()
		close(held)
		if got := <-early; got.err != nil || got.pending != nil {
			t.Errorf("the change before it came: %+v", got)
		}
		if got := <-late; got.err != nil || !slices.Equal(got.pending, []NodeID{"nod_new"}) {
			t.Errorf("the change after it came: %+v", got)
		}
	})
}

// TestAwaitDuringAnOutage: what cannot be read does not end the wait, and is
// not taken for consent.
func TestAwaitDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a := newNodeOf(t, registry)
		registry.put(Node{ID: "nod_b", Bound: time.Hour, Heartbeat: registry.now()})
		nodes := nodesOf(a, registry)
		r := a.change(t)
		fail := func(err error) {
			registry.hook(func(h *registryHooks) {
				h.roll = func(context.Context) error { return err }
				h.ask = func(context.Context) error { return err }
			})
		}
		fail(errFault)
		if got := await(nodes, r, time.Second); !errors.Is(got.err, ErrUnavailable) || !errors.Is(got.err, errFault) || got.pending != nil || got.took != time.Second {
			t.Errorf("never read: %+v", got)
		}
		fail(nil)
		time.AfterFunc(500*time.Millisecond, func() { fail(errFault) })
		if got := await(nodes, r, time.Second); got.err != nil || !slices.Equal(got.pending, []NodeID{"nod_b"}) {
			t.Errorf("read once: %+v", got)
		}
		time.AfterFunc(500*time.Millisecond, func() {
			registry.put(Node{ID: "nod_b", Bound: time.Hour, Heartbeat: registry.now(), Applied: a.follower.Applied()})
			fail(nil)
		})
		if got := await(nodes, r, time.Second); got.err != nil || got.pending != nil || got.took > 600*time.Millisecond {
			t.Errorf("read in the end: %+v", got)
		}
		registry.hook(func(h *registryHooks) {
			h.ask = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			h.roll = nil
		})
		if got := await(nodes, r, 10*time.Second); got.err != nil || got.pending != nil {
			t.Errorf("nobody can be asked: %+v", got)
		}
	})
}

// TestAwaitWhatWasLost: a change that a failover has taken is not waited for,
// and not said to be seen.
func TestAwaitWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a := newNodeOf(t, registry)
		registry.put(Node{ID: "nod_b", Bound: time.Hour, Heartbeat: registry.now()})
		r := a.change(t)
		time.AfterFunc(100*time.Millisecond, func() { a.store.restore(r - 1) })
		if got := await(nodesOf(a, registry), r, time.Minute); !errors.Is(got.err, ErrPositionLost) || got.took > time.Second {
			t.Errorf("%+v", got)
		}
	})
}

// TestAwaitKnowsItself better than the registry does.
func TestAwaitKnowsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a := newNodeOf(t, registry)
		registry.hook(func(h *registryHooks) { h.beat = func(context.Context, Node) error { return errFault } })
		rec, _ := a.newKey("")
		r := a.store.put(t, &rec)
		if got := await(nodesOf(a, registry), r, time.Second); !slices.Equal(got.pending, []NodeID{a.presence.self.ID}) {
			t.Errorf("not applied here: %+v", got)
		}
		a.follower.round(context.Background(), reasonAsked)
		if got := await(nodesOf(a, registry), r, time.Second); got.err != nil || got.pending != nil || got.took > 10*time.Millisecond {
			t.Errorf("applied here: %+v", got)
		}
	})
}

// TestManyWaitersShareTheirLooks: the registry is not asked more often for
// however many.
func TestManyWaitersShareTheirLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a := newNodeOf(t, registry)
		registry.put(Node{ID: "nod_b", Bound: time.Hour, Heartbeat: registry.now()})
		var atOnce, most atomic.Int32
		registry.hook(func(h *registryHooks) {
			h.roll = func(context.Context) error {
				most.Store(max(most.Load(), atOnce.Add(1)))
				time.Sleep(10 * time.Millisecond)
				atOnce.Add(-1)
				return nil
			}
		})
		nodes := nodesOf(a, registry)
		r := a.change(t)
		var waiters sync.WaitGroup
		for range 500 {
			waiters.Go(func() {
				if got := await(nodes, r, time.Second); got.err != nil || len(got.pending) != 1 {
					t.Errorf("%+v", got)
				}
			})
			time.Sleep(time.Millisecond)
		}
		waiters.Wait()
		// 1.5 s of looks that take 10 ms, and as long in between
		if rolls, asks, _ := registry.counted(); most.Load() != 1 || rolls > 80 || asks > rolls {
			t.Errorf("%d looks, %d at once, %d requests for heartbeats", rolls, most.Load(), asks)
		}
		time.Sleep(time.Second)
		if rolls, _, _ := registry.counted(); rolls > 80 {
			t.Error("it looks though nobody waits")
		}
	})
}

// TestReport: those that live are asked, and given a moment.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		a, b := newNodeOf(t, registry), newNodeOf(t, registry)
		a.run(t)
		b.run(t)
		time.Sleep(900 * time.Millisecond)
		now := registry.now()
		registry.put(Node{ID: "nod_behind", Bound: 10 * time.Second, Heartbeat: now - 2_000_000, Behind: now - 1_500_000, Applied: Position{Revision: 1}})
		registry.put(Node{ID: "nod_dead", Bound: 10 * time.Second, Heartbeat: now - 20_000_000, Applied: Position{Revision: 1}})
		rec, _ := a.newKey("")
		a.store.put(t, &rec)
		began := time.Now()
		report, err := nodesOf(a, registry).Report(context.Background())
		if err != nil || time.Since(began) > freshBeatWait || report.Head != a.store.head() || len(report.Nodes) != 4 {
			t.Fatalf("%+v, %v after %s", report, err, time.Since(began))
		}
		took := report.Now.Time().Sub(now.Time())
		for i, want := range []NodeState{
			{Self: true, LeaseLeft: fresh.MaxStaleness - took},
			{LeaseLeft: fresh.MaxStaleness - took},
			{Revisions: 1, Lag: 1500*time.Millisecond + took, LeaseLeft: 8*time.Second - took},
			{Revisions: 1, Stale: true},
		} {
			got := report.Nodes[i]
			got.Node = Node{}
			if i < 2 && got.LeaseLeft >= want.LeaseLeft && got.LeaseLeft <= fresh.MaxStaleness {
				got.LeaseLeft = want.LeaseLeft // a heartbeat since the call
			}
			if got != want {
				t.Errorf("%s: %+v, want %+v", report.Nodes[i].ID, got, want)
			}
		}
		registry.put(Node{ID: "nod_behind"})
		began = time.Now()
		if _, err := nodesOf(a, registry).Report(context.Background()); err != nil || time.Since(began) > 10*time.Millisecond {
			t.Errorf("when all answer: %v after %s", err, time.Since(began))
		}
		registry.hook(func(h *registryHooks) { h.roll = func(context.Context) error { return errFault } })
		if _, err := nodesOf(a, registry).Report(context.Background()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("without a registry: %v", err)
		}
	})
}

// TestOnlyWriterAmongItself: a store without a registry has one node.
func TestOnlyWriterAmongItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		nodes := NewNodes(NodesConfig{Self: Node{ID: "nod_a", Address: "host"}, Follower: n.follower})
		r := n.change(t)
		if got := await(nodes, r, time.Second); got.err != nil || got.pending != nil || got.took != 0 {
			t.Errorf("applied: %+v", got)
		}
		if got := await(nodes, r+1, time.Second); !slices.Equal(got.pending, []NodeID{"nod_a"}) {
			t.Errorf("not applied: %+v", got)
		}
		report, err := nodes.Report(context.Background())
		if err != nil || report.Head != n.store.head() || len(report.Nodes) != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		if got := report.Nodes[0]; !got.Self || got.Stale || got.Applied != n.store.head() || got.Address != "host" || got.Revisions != 0 || got.Lag != 0 {
			t.Errorf("%+v", got)
		}
		n.lease.Suspend()
		if report, _ := nodes.Report(context.Background()); !report.Nodes[0].Stale {
			t.Error("it decides nothing, and is not stale")
		}
	})
}
