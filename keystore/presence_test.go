package keystore

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newPresence() (*Presence, *faultRegistry) {
	registry := newFaultRegistry()
	return NewPresence(registry, Node{ID: "nod_a", Address: "host", Version: "1"}), registry
}

// promise must succeed.
func promise(t *testing.T, p *Presence, f Freshness) (withdraw func()) {
	t.Helper()
	withdraw, err := p.Promise(context.Background(), f)
	if err != nil {
		t.Fatalf("promising %+v: %v", f, err)
	}
	return withdraw
}

// TestPromiseRaisesBeforeItReturns, and lowers with the next heartbeat.
func TestPromiseRaisesBeforeItReturns(t *testing.T) {
	p, registry := newPresence()
	check := func(want time.Duration, beats int) {
		t.Helper()
		n, _ := registry.shows("nod_a")
		if _, _, given := registry.counted(); n.Bound != want || given != beats || n.Address != "host" || n.Version != "1" {
			t.Errorf("%d heartbeats; the registry shows %+v, want %s after %d", given, n, want, beats)
		}
	}
	first := promise(t, p, Freshness{MaxStaleness: 5 * time.Second})
	check(5*time.Second, 1)
	shorter := promise(t, p, Freshness{MaxStaleness: time.Second, Serve: time.Second})
	check(5*time.Second, 1) // covered already
	longer := promise(t, p, Freshness{MaxStaleness: 4 * time.Second, Serve: time.Minute})
	check(64*time.Second, 2)
	first()
	must(t, p.beat(context.Background()))
	check(64*time.Second, 3)
	longer()
	longer() // does nothing
	check(64*time.Second, 3)
	must(t, p.beat(context.Background()))
	check(2*time.Second, 4)
	again := promise(t, p, Freshness{MaxStaleness: 4 * time.Second, Serve: time.Minute})
	check(64*time.Second, 5)
	again()
	shorter()
	must(t, p.beat(context.Background()))
	check(0, 6)
}

// TestPromiseThatCannotBeShown is none, and later ones do not count on it.
func TestPromiseThatCannotBeShown(t *testing.T) {
	p, registry := newPresence()
	promise(t, p, Freshness{MaxStaleness: 5 * time.Second})
	registry.hook(func(h *registryHooks) { h.beat = func(context.Context, Node) error { return errFault } })
	if _, err := p.Promise(context.Background(), Freshness{MaxStaleness: time.Minute}); !errors.Is(err, errFault) {
		t.Errorf("promising: %v", err)
	}
	if _, err := p.Promise(context.Background(), Freshness{MaxStaleness: time.Minute}); !errors.Is(err, errFault) {
		t.Errorf("promising again: %v", err)
	}
	registry.hook(func(h *registryHooks) { h.beat = nil })
	must(t, p.beat(context.Background()))
	if n, _ := registry.shows("nod_a"); n.Bound != 5*time.Second {
		t.Errorf("the registry shows %s", n.Bound)
	}
	promise(t, p, Freshness{MaxStaleness: time.Minute})
	if n, _ := registry.shows("nod_a"); n.Bound != time.Minute {
		t.Errorf("the registry shows %s", n.Bound)
	}
}

func TestPromiseOfNothing(t *testing.T) {
	p, registry := newPresence()
	for _, f := range []Freshness{
		{}, {Serve: time.Hour}, {MaxStaleness: -1}, {MaxStaleness: 1, Serve: -1},
		{MaxStaleness: 31 * 24 * time.Hour}, {MaxStaleness: 1, Serve: 1<<63 - 1},
	} {
		if _, err := p.Promise(context.Background(), f); err == nil {
			t.Errorf("%+v is promised", f)
		}
	}
	if _, _, beats := registry.counted(); beats != 0 || len(p.promises) != 0 {
		t.Errorf("%d heartbeats, %d promises", beats, len(p.promises))
	}
	var only *Presence // of the only writer, for whom nobody waits
	withdraw, err := only.Promise(context.Background(), Freshness{})
	if err != nil || only.Leave(context.Background()) != nil {
		t.Errorf("an only writer promises: %v", err)
	}
	withdraw()
}

// TestPromiseBesideASlowHeartbeat: a heartbeat that is under way with the
// lower bound does not replace the one with the higher.
func TestPromiseBesideASlowHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, registry := newPresence()
		longer := promise(t, p, Freshness{MaxStaleness: time.Minute})
		promise(t, p, Freshness{MaxStaleness: 4 * time.Second})
		longer()
		held := make(chan struct{})
		var begun atomic.Int32
		registry.hook(func(h *registryHooks) {
			h.beat = func(context.Context, Node) error {
				if begun.Add(1) == 1 {
					<-held
				}
				return nil
			}
		})
		slow := make(chan error)
		go func() { slow <- p.beat(context.Background()) }()
		synctest.Wait()
		go func() { time.Sleep(100 * time.Millisecond); close(held) }()
		promise(t, p, Freshness{MaxStaleness: time.Minute})
		if n, _ := registry.shows("nod_a"); n.Bound != time.Minute {
			t.Errorf("once promised, the registry shows %s", n.Bound)
		}
		must(t, <-slow)
		if n, _ := registry.shows("nod_a"); n.Bound != time.Minute {
			t.Errorf("after the slow heartbeat the registry shows %s", n.Bound)
		}
	})
}

// TestPromiseToAHungStore fails in time.
func TestPromiseToAHungStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, registry := newPresence()
		registry.hook(func(h *registryHooks) {
			h.beat = func(ctx context.Context, _ Node) error { <-ctx.Done(); return ctx.Err() }
		})
		began := time.Now()
		if _, err := p.Promise(context.Background(), Freshness{MaxStaleness: 4 * time.Second}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("promising: %v", err)
		}
		if waited := time.Since(began); waited > 4*time.Second {
			t.Errorf("it took %s", waited)
		}
	})
}

func TestIntervalAndPatience(t *testing.T) {
	p, _ := newPresence()
	for _, c := range []struct{ staleness, interval, patience time.Duration }{
		{0, idleInterval, 2 * idleInterval},
		{time.Hour, 15 * time.Minute, maximumPatience},
		{10 * time.Second, 2500 * time.Millisecond, 5 * time.Second},
		{time.Second, 250 * time.Millisecond, minimumPatience},
		{time.Millisecond, minimumInterval, minimumPatience},
	} {
		if c.staleness > 0 {
			promise(t, p, Freshness{MaxStaleness: c.staleness, Serve: time.Hour}) // the shortest counts, whatever is served after it
		}
		if got := p.interval(); got != c.interval {
			t.Errorf("%s: every %s, want %s", c.staleness, got, c.interval)
		}
		if got := p.patience(); got != c.patience {
			t.Errorf("%s: a call may take %s, want %s", c.staleness, got, c.patience)
		}
	}
}

func TestNewNodeID(t *testing.T) {
	a, b := NewNodeID(), NewNodeID()
	if a == b || len(a) < len(nodeIDPrefix)+16 || strings.Trim(string(a[len(nodeIDPrefix):]), "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("%s, %s", a, b)
	}
}
