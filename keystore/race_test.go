package keystore

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// raceSeed is printed, and taken from this variable to replay a run.
const raceSeedVariable = "WARDER_RACE_SEED"

func raceSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if text := os.Getenv(raceSeedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("reading %s: %v", raceSeedVariable, err)
		}
	}
	t.Logf("%s=%d", raceSeedVariable, seed)
	return seed
}

// TestRace holds the view to its guarantee, with readers, a writer, the
// follower, look-ups that come back late and a view smaller than the key set:
// a request begun after revision r was applied, or the key forgotten because
// of it, never sees that key older than r, and no reader ever sees it go back.
func TestRace(t *testing.T) {
	const readers, keys, cycles = 16, 96, 10_000
	for name, c := range map[string]struct {
		made, size, cycles int
		hinted             bool
	}{
		"one shard":           {16, 16, cycles, false},
		"many shards":         {4096, 64, cycles / 2, false},
		"one shard, hinted":   {16, 16, cycles / 4, true},
		"many shards, hinted": {4096, 64, cycles / 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &race{node: newNode(t, c.made, 0), seed: raceSeed(t), hinted: c.hinted, keys: make([]atomic.Pointer[racedKey], keys)}
			r.view.Resize(c.size)
			r.delayLookups()
			r.run(t)
			for i := range r.keys {
				r.replace(t, i)
			}
			r.settle(t)
			done := make(chan struct{})
			var group sync.WaitGroup
			for reader := range readers {
				group.Go(func() { r.read(uint64(reader), done) })
			}
			r.write(t, c.cycles)
			close(done)
			group.Wait()
			if n := r.violations.Load(); n != 0 {
				first := *r.first.Load()
				t.Errorf("%d violations in %d reads; the first: %s (replay with %s=%d)", n, r.reads.Load(), first, raceSeedVariable, r.seed)
			}
			t.Logf("%d reads, %d look-ups, %d changes", r.reads.Load(), r.view.Loads(), c.cycles)
		})
	}
}

type race struct {
	*node
	seed       uint64
	hinted     bool // what changed is forgotten before it is applied, and counts as known from then on
	keys       []atomic.Pointer[racedKey]
	changed    []KeyID                       // since the readers were told last; the writer's own
	unsettled  []func(applied Revision) bool // what is known once a revision was applied; the writer's own
	reads      atomic.Int64
	violations atomic.Int64
	first      atomic.Pointer[string]
}

// racedKey is one key as far as readers may know it.
type racedKey struct {
	record Record                     // the writer's own
	names  atomic.Pointer[[]LookupID] // a name leaves before it is dropped
	floor  atomic.Int64               // newest revision that was applied; 0: not even its creation
	ending atomic.Bool                // its deletion has begun
	ended  atomic.Bool                // its deletion was applied
}

// random returns the generator of one actor in the run.
func (r *race) random(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, actor)) }

// delayLookups lets every look-up take its time, before its snapshot and after.
func (r *race) delayLookups() {
	var calls atomic.Uint64
	delay := func() {
		random := r.random(1000 + calls.Add(1))
		if random.IntN(3) == 0 {
			time.Sleep(time.Duration(random.IntN(400)) * time.Microsecond)
		}
	}
	r.store.hook(func(h *hooks) {
		h.beforeLookup = func(LookupID) error { delay(); return nil }
		h.afterLookup = func(LookupID, Revision) error { delay(); return nil }
	})
}

func (r *race) write(t *testing.T, cycles int) {
	random := r.random(100)
	for cycle := range cycles {
		i := random.IntN(len(r.keys))
		k := r.keys[i].Load()
		switch random.IntN(6) {
		case 0:
			k.hideOldAlias()
			must(t, k.record.Rotate(Digest{byte(cycle)}, 0, time.Now()))
			r.change(t, k)
		case 1:
			k.hideOldAlias()
			must(t, k.record.Regenerate(r.credentials.NewAccessKey(), Digest{byte(cycle)}, 0))
			r.change(t, k)
		case 2:
			r.end(t, k)
			r.replace(t, i)
		default:
			k.record.Name = fmt.Sprint(cycle)
			r.change(t, k)
		}
		if !r.hinted || random.IntN(8) == 0 {
			r.follower.Wake()
		}
		if r.hinted {
			time.Sleep(100 * time.Microsecond) // nothing else slows the writer
		}
		if random.IntN(2) == 0 {
			r.settle(t)
		}
	}
	r.settle(t)
}

func (r *race) change(t *testing.T, k *racedKey) {
	revision := r.store.put(t, &k.record)
	r.changed = append(r.changed, k.record.ID)
	names := append([]LookupID{LookupID(k.record.ID)}, k.record.Aliases()...)
	r.unsettled = append(r.unsettled, func(applied Revision) bool {
		if applied < revision {
			return false
		}
		k.floor.Store(int64(revision))
		k.publish(names, k.record.FoundBy)
		return true
	})
}

// hideOldAlias keeps readers from the name that a new secret drops.
func (k *racedKey) hideOldAlias() {
	id, access := LookupID(k.record.ID), LookupID(k.record.Current.AccessKey)
	k.publish(*k.names.Load(), func(name LookupID) bool { return name == id || name == access })
}

// publish lets readers use those of names that will do.
func (k *racedKey) publish(names []LookupID, will func(LookupID) bool) {
	names = slices.DeleteFunc(slices.Clone(names), func(name LookupID) bool { return !will(name) })
	k.names.Store(&names)
}

func (r *race) end(t *testing.T, k *racedKey) {
	k.ending.Store(true)
	revision := r.store.remove(t, k.record.ID)
	r.changed = append(r.changed, k.record.ID)
	r.unsettled = append(r.unsettled, func(applied Revision) bool {
		if applied < revision {
			return false
		}
		k.ended.Store(true)
		return true
	})
}

// replace makes a new key in place i, which readers may look for before it is.
func (r *race) replace(t *testing.T, i int) {
	k := new(racedKey)
	k.record, _ = r.newKey("")
	k.publish([]LookupID{LookupID(k.record.ID), LookupID(k.record.Current.AccessKey)}, k.record.FoundBy)
	r.keys[i].Store(k)
	r.change(t, k)
}

// settle waits until all is applied, or gives the hint, and tells the readers
// what they may expect from now on.
func (r *race) settle(t *testing.T) {
	head := r.store.headRevision()
	if r.hinted {
		r.view.Forget(r.changed...)
	} else if err := r.follower.Await(context.Background(), head); err != nil {
		t.Fatal(err)
	}
	r.changed = nil
	r.unsettled = slices.DeleteFunc(r.unsettled, func(known func(Revision) bool) bool { return known(head) })
}

func (s *faultStore) headRevision() Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head().Revision
}

// memory is what one reader has seen: of a key its newest revision, of a name
// that it was gone.
type memory map[LookupID]Revision

const goneForGood = math.MaxInt64

func (r *race) read(reader uint64, done <-chan struct{}) {
	random, seen := r.random(reader), memory{}
	var previous *racedKey
	for {
		select {
		case <-done:
			return
		default:
		}
		k := r.keys[random.IntN(len(r.keys))].Load()
		if previous != nil && random.IntN(4) == 0 {
			k = previous // which may have ended
		}
		previous = k
		r.readOne(random, k, seen)
	}
}

func (r *race) readOne(random *rand.Rand, k *racedKey, seen memory) {
	floor, ended, names := k.floor.Load(), k.ended.Load(), *k.names.Load()
	id := names[random.IntN(len(names))]
	rec, err := r.view.Record(context.Background(), id, time.Now())
	r.reads.Add(1)
	switch {
	case err != nil:
		r.violated("reading %s: %v", id, err)
	case rec.ID == "":
		if floor != 0 && !k.ending.Load() && slices.Contains(*k.names.Load(), id) {
			r.violated("%s is absent, though it was applied as of %d", id, floor)
		}
		if floor != 0 || ended {
			seen[id] = goneForGood
		}
	case ended:
		r.violated("%s is at revision %d after its end was applied", id, rec.Revision)
	case int64(rec.Revision) < floor:
		r.violated("%s is at revision %d after %d was applied", id, rec.Revision, floor)
	case rec.Revision < seen[LookupID(rec.ID)] || seen[id] == goneForGood:
		r.violated("%s went back to revision %d from %d", id, rec.Revision, max(seen[id], seen[LookupID(rec.ID)]))
	case !rec.FoundBy(id):
		r.violated("%s finds %s", id, rec.ID)
	default:
		seen[LookupID(rec.ID)] = rec.Revision
	}
}

func (r *race) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.first.CompareAndSwap(nil, &text)
	r.violations.Add(1)
}
