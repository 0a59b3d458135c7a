package keystore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Meters are the meters of the keys that this node has in its view, and of
// those that have left it with a limit partly used up: so a key does not get a
// new limit by being pushed out of memory. The latter are at most maxParked;
// beyond that some are forgotten, and begin anew.
//
// What was counted reaches the store in batches. A crash loses what was
// counted since the last one, at most FlushInterval; nothing else does.
type Meters struct {
	mu     sync.Mutex // guards all below
	listed []*Meter   // those with something to flush
	parked map[KeyID]*Meter
}

const (
	// FlushInterval is how often counts go to the store.
	FlushInterval = 10 * time.Second

	flushTimeout = 30 * time.Second
	flushKeys    = 1000 // in one transaction
	maxParked    = 65_536
)

// NewMeters returns no meters yet.
func NewMeters() *Meters { return &Meters{parked: make(map[KeyID]*Meter)} }

// of returns a meter for a key that enters the view.
func (ms *Meters) of(r *Record) *Meter {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m, ok := ms.parked[r.ID]; ok {
		delete(ms.parked, r.ID)
		return m
	}
	return &Meter{meters: ms, key: r.ID, organization: r.Organization}
}

// park keeps the meter of a key that leaves the view, if it must not be
// forgotten yet.
func (ms *Meters) park(m *Meter, now time.Time) {
	if m == nil || !m.spent(now) {
		return
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if len(ms.parked) >= maxParked {
		for id := range ms.parked {
			delete(ms.parked, id)
			break
		}
	}
	ms.parked[m.key] = m
}

func (ms *Meters) list(meters ...*Meter) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.listed = append(ms.listed, meters...)
}

// Run flushes every FlushInterval, and at the end of each day (UTC) so that a
// day's counts are its own, until ctx ends. failed, if not nil, is told why
// counts could not be written; they are kept and tried again.
func (ms *Meters) Run(ctx context.Context, store UsageLog, failed func(error)) {
	for {
		now := time.Now()
		timer := time.NewTimer(min(FlushInterval, untilMidnight(now)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		// Counted before midnight, if it has just been.
		if err := ms.Flush(ctx, store, now); err != nil && ctx.Err() == nil && failed != nil {
			failed(err)
		}
	}
}

func untilMidnight(now time.Time) time.Duration {
	return now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// Flush writes what was counted, as of the day of now. It does so a thousand
// keys at a time: a change that waits behind it is not to wait for all.
func (ms *Meters) Flush(ctx context.Context, store UsageLog, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return ms.write(ctx, store, now, ms.take(now))
}

// FlushOf is Flush for a few keys: who asks about them, or is about to change
// one, does not wait until all others are written.
func (ms *Meters) FlushOf(ctx context.Context, store UsageLog, now time.Time, keys []KeyID) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	return ms.write(ctx, store, now, ms.takeOf(keys))
}

func (ms *Meters) write(ctx context.Context, store UsageLog, now time.Time, listed []*Meter) error {
	listed = united(listed)
	for len(listed) > 0 {
		some := listed[:min(len(listed), flushKeys)]
		listed = listed[len(some):]
		batch := emptied(some, now)
		if err := store.AddUsage(ctx, batch); err != nil {
			giveBack(batch, some)
			ms.list(listed...)
			return fmt.Errorf("writing usage: %w", err)
		}
	}
	return nil
}

// take returns the listed meters, and forgets parked ones that nobody would
// miss.
func (ms *Meters) take(now time.Time) []*Meter {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	listed := ms.listed
	ms.listed = nil
	for id, m := range ms.parked {
		if !m.spent(now) {
			delete(ms.parked, id)
		}
	}
	return listed
}

// united leaves one meter of each key. A key that leaves the view and comes
// back has another one, and while the store cannot write, they would be more
// and more.
func united(meters []*Meter) []*Meter {
	first := make(map[KeyID]*Meter, len(meters))
	return slices.DeleteFunc(meters, func(m *Meter) bool {
		one, known := first[m.key]
		if known {
			m.moveTo(one)
		} else {
			first[m.key] = m
		}
		return known
	})
}

// takeOf returns those of the listed meters that are of the keys.
func (ms *Meters) takeOf(keys []KeyID) (taken []*Meter) {
	asked := make(map[KeyID]bool, len(keys))
	for _, key := range keys {
		asked[key] = true
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.listed = slices.DeleteFunc(ms.listed, func(m *Meter) bool {
		if asked[m.key] {
			taken = append(taken, m)
		}
		return asked[m.key]
	})
	return taken
}

// emptied moves what the meters counted into a batch.
func emptied(meters []*Meter, now time.Time) UsageBatch {
	today := DayOf(InstantOf(now))
	batch := UsageBatch{Oldest: DayOf(InstantOf(now.AddDate(0, 0, -UsageDaysKept)))}
	for _, m := range meters {
		m.empty(&batch, today)
	}
	return batch
}

// empty moves the meter's counts into the batch. Unlisted first: what is
// counted meanwhile lists it anew.
func (m *Meter) empty(batch *UsageBatch, day Day) {
	m.listed.Store(false)
	for o := range m.counts {
		if n := m.counts[o].Swap(0); n > 0 {
			batch.Counts = append(batch.Counts, UsageCount{m.key, m.organization, day, Outcome(o), uint64(n)})
		}
	}
	for i := range m.used {
		if packed := m.used[i].Load(); packed != 0 {
			at := time.Unix(int64(packed&(1<<useSecondBits-1)), 0)
			batch.Last = append(batch.Last, LastUse{m.key, Generation(packed >> useSecondBits), InstantOf(at)})
		}
	}
}

// moveTo adds what m has counted to another meter of the same key, both of
// them listed.
func (m *Meter) moveTo(other *Meter) {
	m.listed.Store(false)
	for o := range m.counts {
		other.counts[o].Add(m.counts[o].Swap(0))
	}
	for i := range m.used {
		if mine := m.used[i].Load(); mine > other.used[i].Load() { // the later generation, then the later second
			other.used[i].Store(mine)
		}
	}
}

// giveBack counts a batch again that could not be written.
func giveBack(batch UsageBatch, meters []*Meter) {
	byKey := make(map[KeyID]*Meter, len(meters))
	for _, m := range meters {
		byKey[m.key] = m
	}
	for _, c := range batch.Counts {
		byKey[c.Key].count(c.Outcome, uint32(c.Requests))
	}
}
