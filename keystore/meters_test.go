package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ledger adds up what is flushed, or fails.
type ledger struct {
	UsageLog
	mu      sync.Mutex // guards all below
	failing error
	failAt  int                   // which part, counted from one
	counts  map[UsageCount]uint64 // by all but the number
	last    []LastUse
	flushed []time.Time
}

func (l *ledger) AddUsage(_ context.Context, b UsageBatch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushed = append(l.flushed, time.Now())
	if l.failing != nil {
		return l.failing
	}
	if len(l.flushed) == l.failAt {
		return errors.New("locked")
	}
	for _, c := range b.Counts {
		n := c.Requests
		c.Requests = 0
		if l.counts == nil {
			l.counts = make(map[UsageCount]uint64)
		}
		l.counts[c] += n
	}
	l.last = append(l.last, b.Last...)
	return nil
}

func TestCountsAddUp(t *testing.T) {
	ms, l := NewMeters(), new(ledger)
	m, other := ms.of(&Record{ID: "key_a", Organization: "acme"}), ms.of(&Record{ID: "key_b", Organization: "acme"})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var users sync.WaitGroup
	stop := make(chan struct{})
	users.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := ms.Flush(t.Context(), l, now); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var counting sync.WaitGroup
	for range 8 {
		counting.Go(func() {
			for i := range 10_000 {
				m.Pass(3, now)
				if i%10 == 0 {
					other.Refuse(OutcomeLimited)
				}
			}
		})
	}
	counting.Wait()
	close(stop)
	users.Wait()
	if err := ms.Flush(t.Context(), l, now); err != nil {
		t.Fatal(err)
	}
	if got := l.counts[UsageCount{Key: "key_a", Organization: "acme", Day: 20260301, Outcome: OutcomeAllowed}]; got != 80_000 {
		t.Errorf("%d of 80000 are counted", got)
	}
	if got := l.counts[UsageCount{Key: "key_b", Organization: "acme", Day: 20260301, Outcome: OutcomeLimited}]; got != 8_000 {
		t.Errorf("%d of 8000 refusals are counted", got)
	}
	if !slices.Contains(l.last, LastUse{"key_a", 3, InstantOf(now)}) {
		t.Error("the last use is lost")
	}
}

func TestCountsSurviveAFailingStore(t *testing.T) {
	ms, l := NewMeters(), &ledger{failing: errors.New("disk full")}
	m, now := ms.of(&Record{ID: "key_a"}), time.Now()
	m.Pass(1, now)
	for range 3 {
		if err := ms.Flush(t.Context(), l, now); !errors.Is(err, l.failing) {
			t.Fatal(err)
		}
		m.Pass(1, now)
	}
	l.failing = nil
	if err := ms.Flush(t.Context(), l, now); err != nil {
		t.Fatal(err)
	}
	if got := l.counts[UsageCount{Key: "key_a", Day: DayOf(InstantOf(now)), Outcome: OutcomeAllowed}]; got != 4 {
		t.Errorf("%d of 4", got)
	}
	before := len(l.flushed)
	if err := ms.Flush(t.Context(), l, now); err != nil || len(l.flushed) != before {
		t.Error("nothing was counted, and it is written")
	}
}

// While the store cannot write, a key that leaves the view and comes back has
// one meter to be written all the same, and none of its uses is lost.
func TestMetersOfOneKeyAreUnited(t *testing.T) {
	ms, l, now := NewMeters(), &ledger{failing: errors.New("disk full")}, time.Unix(1_800_000_000, 0)
	for i := range 100 {
		ms.of(&Record{ID: "key_a"}).Pass(Generation(1+i/50), now.Add(time.Duration(i)*time.Second))
		if err := ms.Flush(t.Context(), l, now); err == nil {
			t.Fatal("it cannot be written")
		}
	}
	if len(ms.listed) != 1 {
		t.Errorf("%d meters of one key", len(ms.listed))
	}
	l.failing = nil
	if err := ms.Flush(t.Context(), l, now); err != nil {
		t.Fatal(err)
	}
	if got := l.counts[UsageCount{Key: "key_a", Day: DayOf(InstantOf(now))}]; got != 100 {
		t.Errorf("%d of 100", got)
	}
	for gen, last := range map[Generation]time.Duration{1: 49 * time.Second, 2: 99 * time.Second} {
		if !slices.Contains(l.last, LastUse{"key_a", gen, InstantOf(now.Add(last))}) {
			t.Errorf("the last use of generation %d is lost: %+v", gen, l.last)
		}
	}
}

// Many keys are written a thousand at a time, and what does not get through
// is written later, once.
func TestFlushInParts(t *testing.T) {
	ms, l, now := NewMeters(), new(ledger), time.Now()
	for i := range 2*flushKeys + 1 {
		ms.of(&Record{ID: KeyID(fmt.Sprint("key_", i))}).Pass(1, now)
	}
	l.failAt = 2
	if err := ms.Flush(t.Context(), l, now); err == nil {
		t.Fatal("the second part fails")
	}
	if err := ms.Flush(t.Context(), l, now); err != nil {
		t.Fatal(err)
	}
	if len(l.flushed) != 4 || len(l.counts) != 2*flushKeys+1 {
		t.Errorf("%d parts, %d keys", len(l.flushed), len(l.counts))
	}
	for c, n := range l.counts {
		if n != 1 {
			t.Errorf("%s is counted %d times", c.Key, n)
		}
	}
}

// Who asks about a few keys has those written, and no others.
func TestFlushOfAFew(t *testing.T) {
	ms, l, now := NewMeters(), new(ledger), time.Now()
	for i := range 5 {
		ms.of(&Record{ID: KeyID(fmt.Sprint("key_", i))}).Pass(1, now)
	}
	if err := ms.FlushOf(t.Context(), l, now, []KeyID{"key_1", "key_3", "key_unused"}); err != nil {
		t.Fatal(err)
	}
	day := DayOf(InstantOf(now))
	one, three := UsageCount{Key: "key_1", Day: day}, UsageCount{Key: "key_3", Day: day}
	if len(l.counts) != 2 || l.counts[one] != 1 || l.counts[three] != 1 {
		t.Errorf("written: %v", l.counts)
	}
	if err := ms.FlushOf(t.Context(), l, now, []KeyID{"key_1"}); err != nil || len(l.flushed) != 1 {
		t.Errorf("nothing was counted since, and it is written: %v", err)
	}
	l.failing = errors.New("disk full")
	if err := ms.FlushOf(t.Context(), l, now, []KeyID{"key_2"}); !errors.Is(err, l.failing) {
		t.Error(err)
	}
	l.failing = nil
	if err := ms.Flush(t.Context(), l, now); err != nil || len(l.counts) != 5 {
		t.Errorf("the rest: %v, %v", l.counts, err)
	}
	for c, n := range l.counts {
		if n != 1 {
			t.Errorf("%s is counted %d times", c.Key, n)
		}
	}
}

// Both secrets of a key in its grace period are seen apart.
func TestLastUseByGeneration(t *testing.T) {
	ms, l := NewMeters(), new(ledger)
	m, now := ms.of(&Record{ID: "key_a"}), time.Unix(1_800_000_000, 0)
	m.Pass(7, now)
	m.Pass(8, now.Add(time.Minute))
	m.Refuse(OutcomeSuperseded)
	if err := ms.Flush(t.Context(), l, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []LastUse{{"key_a", 7, InstantOf(now)}, {"key_a", 8, InstantOf(now.Add(time.Minute))}} {
		if !slices.Contains(l.last, want) {
			t.Errorf("%+v is not in %+v", want, l.last)
		}
	}
}

// Counts go out every ten seconds, and at midnight, so that a day has its own.
func TestFlushTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins at midnight UTC
		time.Sleep(24*time.Hour - 15500*time.Millisecond) // never at one instant with midnight
		ms, l := NewMeters(), new(ledger)
		m := ms.of(&Record{ID: "key_a"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); ms.Run(ctx, l, nil) }()
		yesterday := DayOf(InstantOf(time.Now()))
		for range 26 {
			m.Pass(1, time.Now())
			time.Sleep(time.Second)
		}
		cancel()
		<-done
		today := DayOf(InstantOf(time.Now()))
		if got := l.counts[UsageCount{Key: "key_a", Day: yesterday}]; got != 16 {
			t.Errorf("yesterday has %d of 16: %v", got, l.counts)
		}
		if got := l.counts[UsageCount{Key: "key_a", Day: today}]; got != 10 {
			t.Errorf("today has %d of 10: %v", got, l.counts)
		}
		if len(l.flushed) != 3 {
			t.Errorf("flushed at %v", l.flushed)
		}
	})
}
