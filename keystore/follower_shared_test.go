package keystore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fresh is what the nodes of these tests allow themselves: rounds are due once
// a second.
var fresh = Freshness{MaxStaleness: 4 * time.Second}

// noteReads has reads of the log noted beside the heartbeats.
func (n *node) noteReads() {
	n.store.hook(func(h *hooks) {
		h.changes = func(Position) error { n.registry.note("read"); return nil }
		h.snapshot = func() error { n.registry.note("snapshot"); return nil }
	})
}

func newNodeOf(t *testing.T, registry *faultRegistry) *node {
	t.Helper()
	n := newSharedNode(t, registry, fresh)
	n.registry = registry
	return n
}

// TestStartRegistersFirst: before anything is read, so that nobody's change
// falls between.
func TestStartRegistersFirst(t *testing.T) {
	registry := newFaultRegistry()
	n := buildNode(registry.store, 16, NewPresence(registry, Node{ID: "nod_a"}))
	n.registry = registry
	n.noteReads()
	n.start(t)
	if got, want := strings.Join(registry.noted(), " "), "beat snapshot beat read"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	if first := registry.beats[0]; first.Applied != (Position{}) || registry.beats[1].Applied != registry.store.head() {
		t.Errorf("heartbeats %+v", registry.beats)
	}
}

// TestStartThatFailsLeaves, so that nobody waits for it.
func TestStartThatFailsLeaves(t *testing.T) {
	registry := newFaultRegistry()
	n := buildNode(registry.store, 16, NewPresence(registry, Node{ID: "nod_a"}))
	n.store.hook(func(h *hooks) { h.snapshot = func() error { return errFault } })
	if err := n.follower.Start(context.Background()); !errors.Is(err, errFault) {
		t.Errorf("Start = %v", err)
	}
	if _, registered := registry.shows("nod_a"); registered || n.lease.Valid(time.Now(), time.Hour) {
		t.Error("it is registered or trusted")
	}
}

// TestRoundsOfTwoKinds: only a due one gives a heartbeat, before it reads, and
// renews the lease, timed from before the heartbeat.
func TestRoundsOfTwoKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodeOf(t, newFaultRegistry())
		n.noteReads()
		n.run(t)
		time.Sleep(100 * time.Millisecond)
		rec, _ := n.newKey("")
		check := func(what, calls string, leaseFrom time.Time) {
			t.Helper()
			synctest.Wait()
			if got := strings.Join(n.registry.noted(), " "); got != calls {
				t.Errorf("%s: %q, want %q", what, got, calls)
			}
			if got, want := n.lease.Remaining(time.Now(), time.Hour), time.Hour-time.Since(leaseFrom); got != want {
				t.Errorf("%s: %s of the lease are left, want %s", what, got, want)
			}
			n.registry.noteAnew()
		}
		started := time.Now().Add(-100 * time.Millisecond)
		n.registry.noteAnew()
		n.store.put(t, &rec)
		n.follower.Hear(Notice{Keys: []KeyID{rec.ID}})
		check("a hint", "read", started)
		n.follower.Wake()
		check("a wake", "read", started)
		n.follower.Hear(Notice{Beat: true})
		check("an asked heartbeat", "read beat", started)
		if told := n.registry.told(); told.Applied != n.store.head() {
			t.Errorf("told as applied: %+v of %+v", told.Applied, n.store.head())
		}
		n.registry.hook(func(h *registryHooks) {
			h.beat = func(context.Context, Node) error { time.Sleep(200 * time.Millisecond); return nil }
		})
		time.Sleep(900*time.Millisecond + 200*time.Millisecond)
		check("a due round", "beat read", started.Add(time.Second))
		n.registry.hook(func(h *registryHooks) { h.beat = nil })
		n.lease.ask()
		check("a request without a lease", "beat read", time.Now())
		if got, want := n.follower.Rounds(), (Rounds{Polled: 1, Hinted: 2, Asked: 2}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// TestHintsDoNotKeepTheLeaseFromRenewal, however many they are.
func TestHintsDoNotKeepTheLeaseFromRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodeOf(t, newFaultRegistry())
		n.run(t)
		for range 1000 {
			n.follower.Hear(Notice{})
			time.Sleep(10 * time.Millisecond)
			if !n.lease.Valid(time.Now(), 1100*time.Millisecond) {
				t.Fatal("the lease was not renewed in time")
			}
		}
	})
}

// TestHeartbeatComesBeforeTheRead: one that was silent beyond its bound comes
// back while another changes a key and waits until all have seen it. Whatever
// the moment: if the wait says that all have, this node has.
func TestHeartbeatComesBeforeTheRead(t *testing.T) {
	for _, moment := range []string{"before its first call", "after its first call"} {
		t.Run(moment, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := newFaultRegistry()
				n := newNodeOf(t, registry)
				rec, secret := n.newKey("")
				n.store.put(t, &rec)
				n.catchUp(t)
				n.see(t, LookupID(rec.Current.AccessKey))
				time.Sleep(time.Hour)
				others := NewNodes(NodesConfig{Self: Node{ID: "nod_other"}, Follower: n.follower, Registry: registry, Notifier: registry})
				seenByAll, calls := false, 0
				between := func() {
					if calls++; (calls == 2) != (moment == "after its first call") || calls > 2 {
						return
					}
					rec.SetBlocked(true)
					n.store.put(t, &rec)
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					pending, err := others.Await(ctx, rec.Revision)
					seenByAll = err == nil && len(pending) == 0
				}
				n.store.hook(func(h *hooks) { h.changes = func(Position) error { between(); return nil } })
				registry.hook(func(h *registryHooks) { h.beat = func(context.Context, Node) error { between(); return nil } })
				n.catchUp(t)
				if _, err := n.authenticate(&rec, secret, time.Now()); seenByAll && err == nil {
					t.Error("all have seen that the key is blocked, and here it passes")
				}
				if seenByAll != (moment == "before its first call") {
					t.Errorf("seen by all = %t", seenByAll)
				}
			})
		})
	}
}

// TestLeaseNeverOutlivesTheHeartbeat: at every moment at which a request
// passes, the registry makes others wait for this node. Rounds fail at random
// places meanwhile, and hints come.
func TestLeaseNeverOutlivesTheHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		n := newNodeOf(t, registry)
		id := n.presence.self.ID
		n.run(t)
		var called atomic.Int64
		flaky := func() error {
			calls := called.Add(1)
			time.Sleep(time.Duration(calls%7) * 50 * time.Millisecond)
			if (calls/40)%2 == 1 && calls%3 != 0 {
				return errFault
			}
			return nil
		}
		n.store.hook(func(h *hooks) { h.changes = func(Position) error { return flaky() } })
		registry.hook(func(h *registryHooks) { h.beat = func(context.Context, Node) error { return flaky() } })
		passed, refused := 0, 0
		for range 20_000 {
			time.Sleep(10 * time.Millisecond)
			if calls := called.Load(); calls%5 == 0 {
				n.follower.Hear(Notice{Beat: calls%2 == 0})
			}
			if !n.lease.Valid(time.Now(), fresh.MaxStaleness) {
				refused++
				continue
			}
			passed++
			if shown, _ := registry.shows(id); shown.LeaseLeft(InstantOf(time.Now())) < n.lease.Remaining(time.Now(), fresh.MaxStaleness)-time.Microsecond {
				t.Fatalf("%s of the lease are left, but the registry shows %s", n.lease.Remaining(time.Now(), fresh.MaxStaleness), shown.LeaseLeft(InstantOf(time.Now())))
			}
		}
		if passed < 1000 || n.follower.Rounds().Failed < 100 {
			t.Errorf("%d moments within the lease, %d without, %+v", passed, refused, n.follower.Rounds())
		}
	})
}

// TestFailedHeartbeatsEndTheLease, though the log can be read and hints of it
// come.
func TestFailedHeartbeatsEndTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodeOf(t, newFaultRegistry())
		n.run(t)
		n.registry.hook(func(h *registryHooks) { h.beat = func(context.Context, Node) error { return errFault } })
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			n.follower.Hear(Notice{})
		}
		if n.lease.Valid(time.Now(), fresh.MaxStaleness) {
			t.Error("nobody knows that it lives, and it decides")
		}
		if err := <-n.failures; !errors.Is(err, errFault) {
			t.Errorf("reported %v", err)
		}
		n.registry.hook(func(h *registryHooks) { h.beat = nil })
		if err := n.lease.Await(context.Background(), time.Now(), fresh); err != nil {
			t.Errorf("afterwards a request waits for a round: %v", err)
		}
	})
}

// TestStoppedForLong: a node that did not run for longer than its lease
// decides nothing on what it knew, whatever its round had read by then.
func TestStoppedForLong(t *testing.T) {
	for _, in := range []string{"rest", "heartbeat", "read"} {
		t.Run(in, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNodeOf(t, newFaultRegistry())
				rec, secret := n.newKey("")
				n.store.put(t, &rec)
				n.catchUp(t)
				n.see(t, LookupID(rec.Current.AccessKey))
				stopped := false
				stop := func(here bool) {
					if here && !stopped {
						stopped = true
						time.Sleep(time.Hour) // what it has read by now is from before
						rec.SetBlocked(true)
						n.store.put(t, &rec)
					}
				}
				n.store.hook(func(h *hooks) { h.batch = func(b Batch) Batch { stop(in == "read"); return b } })
				n.registry.hook(func(h *registryHooks) {
					h.beat = func(context.Context, Node) error { stop(in == "heartbeat"); return nil }
				})
				if in != "rest" {
					must(t, n.follower.round(context.Background(), reasonDue))
				}
				stop(in == "rest")
				if n.lease.Valid(time.Now(), fresh.MaxStaleness) {
					t.Error("it trusts what it knew")
				}
				if _, err := n.authenticate(&rec, secret, time.Now()); err != ErrStale {
					t.Errorf("a request before any round: %v", err)
				}
				n.run(t)
				if _, err := n.authenticate(&rec, secret, time.Now()); err != ErrBlocked {
					t.Errorf("a request that waits for one: %v", err)
				}
			})
		})
	}
}

// TestBoundOverAReload: the longer lease is shown before anybody has it, and
// kept as long as anybody does.
func TestBoundOverAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		n := newNodeOf(t, registry)
		n.run(t)
		shown := func() time.Duration { is, _ := registry.shows(n.presence.self.ID); return is.Bound }
		serving := promise(t, n.presence, Freshness{MaxStaleness: 400 * time.Millisecond, Serve: time.Hour})
		if want := time.Hour + 400*time.Millisecond; shown() != want {
			t.Errorf("the registry shows %s, want %s", shown(), want)
		}
		synctest.Wait()
		_, _, before := registry.counted()
		time.Sleep(time.Second)
		if _, _, beats := registry.counted(); beats-before < 9 {
			t.Errorf("%d heartbeats in a second, of which ten are due", beats-before)
		}
		serving()
		time.Sleep(2 * time.Second)
		if shown() != fresh.MaxStaleness {
			t.Errorf("once the longer one has ceased, the registry shows %s", shown())
		}
		_, _, before = registry.counted()
		time.Sleep(10 * time.Second)
		if _, _, beats := registry.counted(); beats-before > 11 {
			t.Errorf("%d heartbeats in ten seconds", beats-before)
		}
	})
}

// TestPositionLostAmongNodes: all is distrusted until it was loaded anew and a
// heartbeat given, even if it was a hint that woke the round; and it is told
// of once.
func TestPositionLostAmongNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		var lost []Position
		n := buildNode(registry.store, 16, NewPresence(registry, Node{ID: "nod_a"}))
		n.registry = registry
		n.follower.config.Lost = func(at Position) { lost = append(lost, at) }
		n.auth.Freshness = fresh
		promise(t, n.presence, fresh)
		n.start(t)
		rec, secret := n.storedKey(t, "")
		n.see(t, LookupID(rec.ID))
		if len(lost) != 0 {
			t.Error("a first load is told of as a loss")
		}
		was := n.follower.Applied()
		n.store.restore(1)
		n.store.hook(func(h *hooks) { h.snapshot = func() error { return errFault } })
		stop := n.run(t)
		n.follower.Hear(Notice{})
		time.Sleep(700 * time.Millisecond)
		if n.lease.Valid(time.Now(), time.Hour) {
			t.Error("it is trusted before all was loaded anew")
		}
		if err := n.lease.Await(context.Background(), time.Now(), Freshness{time.Hour, time.Hour}); err != ErrStale {
			t.Errorf("served all the same: %v", err)
		}
		n.noteReads()
		registry.noteAnew()
		time.Sleep(500 * time.Millisecond)
		if got := strings.Join(registry.noted(), " "); !strings.HasPrefix(got, "snapshot beat read") {
			t.Errorf("then %s", got)
		}
		if _, err := n.authenticate(&rec, secret, time.Now()); err != ErrInvalid {
			t.Errorf("a key that the restore took: %v", err)
		}
		stop()
		if !slices.Equal(lost, []Position{was}) || n.follower.Rounds().Lost != 1 {
			t.Errorf("told of %+v, counted %d", lost, n.follower.Rounds().Lost)
		}
	})
}

// TestLossFoundByAHint: what the round was woken for does not renew the lease,
// but what it had to load anew does, with a heartbeat before the read.
func TestLossFoundByAHint(t *testing.T) {
	n := newNodeOf(t, newFaultRegistry())
	n.store.restore(1)
	n.noteReads()
	n.registry.noteAnew()
	must(t, n.follower.round(context.Background(), reasonHinted))
	if got := strings.Join(n.registry.noted(), " "); got != "read snapshot beat read" || !n.lease.Valid(time.Now(), fresh.MaxStaleness) {
		t.Errorf("%s; valid = %t", got, n.lease.Valid(time.Now(), fresh.MaxStaleness))
	}
}

// TestHalfLoadedIsLostStill: what was lost is loaded anew even if the log
// comes to hold the old position again.
func TestHalfLoadedIsLostStill(t *testing.T) {
	n := newNodeOf(t, newFaultRegistry())
	got := &applied{}
	n.follower.config.Appliers = append(n.follower.config.Appliers, got)
	n.store.hook(func(h *hooks) {
		h.changes = func(Position) error { return ErrPositionLost }
		h.snapshot = func() error { return errFault }
	})
	if err := n.follower.round(context.Background(), reasonHinted); !errors.Is(err, errFault) {
		t.Fatalf("round = %v", err)
	}
	n.store.hook(func(h *hooks) { *h = hooks{} })
	n.catchUp(t)
	if len(got.order) != 1 || !n.lease.Valid(time.Now(), fresh.MaxStaleness) {
		t.Errorf("applied %q", got.order)
	}
}

// TestHungStoreAmongNodes: a call that hangs is given up before the lease is
// over, so that the next one can still be in time.
func TestHungStoreAmongNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		n := newNodeOf(t, registry)
		n.run(t)
		var hung atomic.Bool
		registry.hook(func(h *registryHooks) {
			h.beat = func(ctx context.Context, _ Node) error {
				if !hung.Swap(true) {
					<-ctx.Done()
				}
				return ctx.Err()
			}
		})
		for range 500 {
			time.Sleep(10 * time.Millisecond)
			if !n.lease.Valid(time.Now(), fresh.MaxStaleness) {
				t.Fatal("one call that hung has cost the lease")
			}
		}
		if !hung.Load() || n.follower.Rounds().Failed != 1 {
			t.Errorf("%+v", n.follower.Rounds())
		}
	})
}

// TestLeaveComesAfterTheLease: when a node says that nobody need wait for it,
// it has ceased to decide.
func TestLeaveComesAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		n := newNodeOf(t, registry)
		var left atomic.Bool
		registry.hook(func(h *registryHooks) {
			h.leave = func(NodeID) error {
				left.Store(true)
				if n.lease.Valid(time.Now(), time.Hour) {
					t.Error("it leaves and decides")
				}
				return nil
			}
		})
		stop := n.run(t)
		time.Sleep(1500 * time.Millisecond)
		stop()
		if _, registered := registry.shows(n.presence.self.ID); !left.Load() || registered || n.lease.Valid(time.Now(), time.Hour) {
			t.Errorf("left = %t, registered = %t", left.Load(), registered)
		}
	})
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNodeOf(t, newFaultRegistry())
		began := time.Now()
		rec, _ := n.newKey("")
		n.store.put(t, &rec)
		if p := n.follower.Progress(); p.Applied != p.Head || p.Head == n.store.head() || !p.Fresh.Equal(began) {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Second)
		got := &applied{fail: errFault}
		n.follower.config.Appliers = append(n.follower.config.Appliers, got)
		if err := n.follower.round(context.Background(), reasonDue); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		if p := n.follower.Progress(); p.Applied == p.Head || p.Head != n.store.head() || !p.Fresh.Equal(began) {
			t.Errorf("behind: %+v", p)
		}
		n.catchUp(t)
		if p := n.follower.Progress(); p.Applied != n.store.head() || !p.Fresh.Equal(began.Add(time.Second)) {
			t.Errorf("at the head: %+v", p)
		}
	})
}

// TestRegistryThatLacksNodes: with a log that took the place of another came a
// registry that may not know who registered last. As long as such a node may
// decide, nobody is told that all have seen a change.
func TestRegistryThatLacksNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newFaultRegistry()
		n := newNodeOf(t, registry)
		n.run(t)
		nodes := NewNodes(NodesConfig{Self: n.presence.self, Follower: n.follower, Registry: registry, Notifier: registry})
		await := func() ([]NodeID, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			return nodes.Await(ctx, n.follower.Applied().Revision)
		}
		if pending, err := await(); len(pending) != 0 || err != nil {
			t.Fatalf("before: %v %v", pending, err)
		}
		lost, _ := n.newKey("lost")
		n.store.put(t, &lost)
		n.follower.Wake()
		synctest.Wait()
		registry.store.restore(registry.store.headPosition().Revision - 1)
		n.follower.Wake()
		synctest.Wait()
		if n.follower.Rounds().Lost != 1 {
			t.Fatal("it has not found out")
		}
		for _, after := range []time.Duration{0, fresh.Bound()} {
			time.Sleep(after)
			if pending, err := await(); len(pending) != 0 || !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s after the log was replaced: %v %v", after, pending, err)
			}
		}
		time.Sleep(fresh.Bound() / 10)
		if pending, err := await(); len(pending) != 0 || err != nil {
			t.Errorf("later: %v %v", pending, err)
		}
	})
}
