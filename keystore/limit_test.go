package keystore

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]Limit{
		"":                   {},
		"100/s burst 200":    {100, 200, time.Second},
		"60/m":               {60, 60, time.Minute},
		"1/h burst 5":        {1, 5, time.Hour},
		"1000000/d":          {1_000_000, 1_000_000, 24 * time.Hour},
		"1/d burst 366":      {1, 366, 24 * time.Hour},
		"1000000/s burst 1":  {1_000_000, 1, time.Second},
		"5/s burst 10000000": {5, 10_000_000, time.Second},
	} {
		got, err := ParseLimit(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseLimit(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for _, text := range []string{
		"0/s", "-1/s", "1", "/s", "1/", "1/w", "1/s burst", "1/s burst 0", "1/s burst -1", "1/s 5", "1/s burst 5 6", "1.5/s", "1e3/s",
		"1000001/s", "1/s burst 10000001", "1/d burst 367", "1/h burst 10000", "4294967297/s", "1/ns", " ", "1 /s", "1/S",
	} {
		if l, err := ParseLimit(text); err == nil {
			t.Errorf("%q is taken for %+v", text, l)
		}
	}
}

func TestLimitIsExact(t *testing.T) {
	l, start := Limit{Requests: 10, Burst: 3, Period: time.Second}, time.Now()
	m := NewMeters().of(&Record{ID: "key_a"})
	taken := func(at time.Duration) (Allowance, bool) { return m.take(l, start.Add(at)) }
	for left := range uint32(3) {
		if a, ok := taken(0); !ok || a.Remaining != 2-left || a.Retry != 0 {
			t.Fatalf("request %d of a burst of 3: %+v %v", left+1, a, ok)
		}
	}
	if a, ok := taken(0); ok || a.Remaining != 0 || a.Retry != 100*time.Millisecond || a.Reset != 300*time.Millisecond {
		t.Errorf("beyond the burst: %+v %v", a, ok)
	}
	if _, ok := taken(100*time.Millisecond - 1); ok {
		t.Error("too early")
	}
	if _, ok := taken(100 * time.Millisecond); !ok {
		t.Error("one is due after a tenth of a second")
	}
	if _, ok := taken(100 * time.Millisecond); ok {
		t.Error("but one only: a refused request must cost nothing, an accepted one must")
	}
	if a, ok := taken(time.Hour); !ok || a.Remaining != 2 {
		t.Errorf("the burst is back, and no more than that: %+v %v", a, ok)
	}
}

// A limit that is replaced by a faster one does not go on to be felt, and a
// request that is late gives nothing back.
func TestLimitIsReplaced(t *testing.T) {
	slow, fast := Limit{Requests: 1, Burst: 40, Period: time.Hour}, Limit{Requests: 10, Burst: 40, Period: time.Second}
	m, now := NewMeters().of(&Record{ID: "key_a"}), time.Now()
	for range 40 {
		m.take(slow, now)
	}
	a, ok := m.take(fast, now)
	if ok || a.Retry != 100*time.Millisecond {
		t.Errorf("at once under the new limit: %+v %v", a, ok)
	}
	for n := range 3 {
		if _, ok := m.take(fast, now.Add(time.Duration(n+1)*100*time.Millisecond)); !ok {
			t.Errorf("request %d under the new limit is refused", n)
		}
	}
	m.take(fast, now.Add(-30*time.Second))
	if _, ok := m.take(fast, now.Add(300*time.Millisecond)); ok {
		t.Error("a late request has given something back")
	}
}

func TestLimitIsSharedByAllWhoAskAtOnce(t *testing.T) {
	l, now := Limit{Requests: 1, Burst: 1000, Period: time.Second}, time.Now()
	m := NewMeters().of(&Record{ID: "key_a"})
	var passed atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 1000 {
				if _, ok := m.take(l, now); ok {
					passed.Add(1)
				}
			}
		})
	}
	callers.Wait()
	if passed.Load() != 1000 {
		t.Errorf("%d passed a limit of 1000", passed.Load())
	}
}

func TestNoMeterLetsNothingThrough(t *testing.T) {
	var m *Meter
	m.Pass(1, time.Now())
	m.Refuse(OutcomeBlocked)
	if _, ok := m.take(Limit{1, 1, time.Second}, time.Now()); ok {
		t.Error("a limit without a meter")
	}
}

// A key that leaves the view and comes back finds its limit as it was.
func TestLimitOutlivesTheView(t *testing.T) {
	n := newNode(t, 1, 0)
	limited, _ := n.storedKey(t, "")
	other, _ := n.storedKey(t, "")
	meter := func(r Record) *Meter {
		t.Helper()
		if _, err := n.view.Record(t.Context(), LookupID(r.ID), time.Now()); err != nil {
			t.Fatal(err)
		}
		e, _ := n.view.cached(LookupID(r.ID), time.Now())
		return e.meter
	}
	l := Limit{Requests: 1, Burst: 1, Period: time.Hour}
	if _, ok := meter(limited).take(l, time.Now()); !ok {
		t.Fatal("the first request")
	}
	meter(other) // pushes the first one out
	if n.view.Len() != 1 {
		t.Fatalf("the view holds %d", n.view.Len())
	}
	if _, ok := meter(limited).take(l, time.Now()); ok {
		t.Error("a new limit by leaving the view")
	}
	n.edit(t, &limited, func(r *Record) { r.Name = "renamed" })
	n.catchUp(t)
	if _, ok := meter(limited).take(l, time.Now()); ok {
		t.Error("a new limit by a change of the record")
	}
	if err := n.view.Reset(Snapshot{Head: n.store.head()}); err != nil {
		t.Fatal(err)
	}
	if _, ok := meter(limited).take(l, time.Now()); ok {
		t.Error("a new limit by a purge")
	}
}

func TestParkedMetersAreBounded(t *testing.T) {
	ms, now := NewMeters(), time.Now()
	for i := range maxParked + 100 {
		m := ms.of(&Record{ID: KeyID("key_" + strings.Repeat("x", i%7) + time.Duration(i).String())})
		m.take(Limit{1, 1, time.Hour}, now)
		ms.park(m, now)
	}
	if len(ms.parked) != maxParked {
		t.Errorf("%d are kept", len(ms.parked))
	}
	ms.park(ms.of(&Record{ID: "key_idle"}), now)
	if _, kept := ms.parked["key_idle"]; kept {
		t.Error("a meter is kept of which nothing is used up")
	}
	ms.take(now.Add(2 * time.Hour))
	if len(ms.parked) != 0 {
		t.Errorf("%d are kept after their limit is whole again", len(ms.parked))
	}
}

func BenchmarkTake(b *testing.B) {
	l, now := Limit{Requests: 1_000_000, Burst: 1_000_000, Period: time.Second}, time.Now()
	m := NewMeters().of(&Record{ID: "key_a"})
	b.ReportAllocs()
	for b.Loop() {
		m.take(l, now)
		m.Pass(1, now)
	}
}
