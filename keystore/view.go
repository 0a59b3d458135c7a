package keystore

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"
)

// View is the exact cache that every request reads. One entry per key; access
// keys are aliases that point at it, so that a change is one store for all of
// them.
//
// Its guarantee: a call begun after the follower has applied revision r never
// returns a record older than r. Fills race with changes; the fence decides.
// Each shard's fence is the newest revision applied to anything in it, and
// what was read as of an older revision does not enter: its reader reads
// again. Every waiting caller asks the fence for itself, because a joined
// look-up may have begun long before.
type View struct {
	*Lease
	records Records
	flights singleflight.Group
	seed    maphash.Seed
	shards  []shard
	recent  recentSlots
	voided  floors
	meters  *Meters
	strange chan struct{} // holds a value for each look-up of an imported credential
	epoch   atomic.Uint64
	loads   atomic.Uint64
}

// entry is what was read of one key, true as of at. Immutable but for touched
// and proved.
type entry struct {
	rec     Record
	meter   *Meter // set before it is anywhere to be seen
	at      Revision
	epoch   uint64       // of the view when the read began
	touched atomic.Int64 // second in which recency was last renewed
	proved  proof        // of a credential by this very record
}

// slot is where a key's entry stands; aliases point at slots. It is empty
// once its key has left the view, and then stays so.
type slot struct{ entry atomic.Pointer[entry] }

// holding returns the slot's entry if it is id's: an alias may have moved on.
func (sl *slot) holding(id LookupID) *entry {
	if sl == nil {
		return nil
	}
	if e := sl.entry.Load(); e != nil && e.rec.FoundBy(id) {
		return e
	}
	return nil
}

// recentSlots finds the slots that were read of late without a lock, so that
// readers of one hot key do not take turns. It may lose any of them at any
// time, and cannot be wrong: it holds no entries but the slots themselves, in
// which everybody reads the same.
type recentSlots [1 << 14]atomic.Pointer[slot]

// place takes other bits of the hash than the shards do.
func (r *recentSlots) place(sum uint64) *atomic.Pointer[slot] { return &r[sum>>(64-14)] }

// floors say as of which epoch reads of keys are not void. Keys with one hash
// share a floor: a read may be repeated for another key's sake, and no number
// of hints takes memory.
type floors [1 << 14]atomic.Uint64

func (f *floors) of(sum uint64) *atomic.Uint64 { return &f[sum>>(64-14)] }

// raise lets nothing before epoch count any more.
func raise(floor *atomic.Uint64, epoch uint64) {
	for was := floor.Load(); was < epoch && !floor.CompareAndSwap(was, epoch); was = floor.Load() {
	}
}

type shard struct {
	mu    sync.RWMutex // guards all below
	fence Revision     // nothing older enters: changes up to here were applied, or seen and let go
	epoch uint64       // of the last purge: what was read before it is void

	slots   *simplelru.LRU[KeyID, *slot]
	aliases *simplelru.LRU[LookupID, *slot]
	absent  absences // bounded apart: they cannot push out keys
	meters  *Meters
}

// absences are what is known not to exist, and as of when. Credentials of
// other systems, which anybody can make up, cannot push out the rest.
type absences struct {
	own, imported *simplelru.LRU[LookupID, Revision]
}

func (a absences) of(id LookupID) *simplelru.LRU[LookupID, Revision] {
	if IsImported(id) {
		return a.imported
	}
	return a.own
}

const (
	manyShards      = 64
	smallView       = 1024 // up to here one shard, for an exact size
	maxAbsent       = 16_384
	maxAliases      = 2 // per key
	maxFillAttempts = 64

	// lookupTimeout bounds one look-up, and with it how long callers that
	// joined it can be held by a store that hangs.
	lookupTimeout = 5 * time.Second

	// maxStrange is how many look-ups of imported credentials run at once.
	maxStrange = 16
)

// absentEntry is what the view returns for a key known not to exist.
var absentEntry entry

// NewView returns an empty view of at most size keys over records. It trusts
// itself as long as lease does.
func NewView(records Records, lease *Lease, size int) *View {
	n := manyShards
	if size <= smallView {
		n = 1
	}
	v := &View{Lease: lease, records: records, seed: maphash.MakeSeed(), shards: make([]shard, n)}
	v.meters, v.strange = NewMeters(), make(chan struct{}, maxStrange)
	for i := range v.shards {
		v.shards[i].meters = v.meters
		v.shards[i].init(max(1, size/n), max(1, maxAbsent/n))
	}
	return v
}

func (s *shard) init(keys, absent int) {
	// The sizes are positive, the only thing that NewLRU refuses.
	// What was seen and let go raises the fence, so that a look-up begun long
	// before cannot contradict it later.
	s.slots, _ = simplelru.NewLRU(keys, func(_ KeyID, sl *slot) {
		last := sl.entry.Swap(nil)
		s.fence = max(s.fence, last.at)
		s.meters.park(last.meter, time.Now())
	})
	s.aliases, _ = simplelru.NewLRU[LookupID, *slot](keys*maxAliases, nil)
	forgotten := func(_ LookupID, at Revision) { s.fence = max(s.fence, at) }
	s.absent.own, _ = simplelru.NewLRU(absent, forgotten)
	s.absent.imported, _ = simplelru.NewLRU(absent, forgotten)
}

// Record returns the record of id as of now or newer, from memory if it is
// there, else from the store. An absent key is a record that denies. Errors:
// ErrUnavailable.
func (v *View) Record(ctx context.Context, id LookupID, now time.Time) (*Record, error) {
	if rec, known := v.Cached(id, now); known {
		return rec, nil
	}
	return v.Load(ctx, id)
}

// Cached returns the record of id if the view knows it, or that there is
// none. It neither blocks nor allocates.
func (v *View) Cached(id LookupID, now time.Time) (*Record, bool) {
	e, known := v.cached(id, now)
	return &e.rec, known
}

func (v *View) cached(id LookupID, now time.Time) (*entry, bool) {
	sum := v.hash(id)
	place := v.recent.place(sum)
	e := place.Load().holding(id)
	if e == nil {
		sl, absent := v.shardOf(sum).get(id)
		if e = sl.holding(id); e == nil {
			return &absentEntry, absent
		}
		place.Store(sl)
	}
	if second := now.Unix(); e.touched.Load() != second {
		v.touch(id, e, second)
	}
	return e, true
}

// Load reads id from the store, once for however many wait, and keeps it.
func (v *View) Load(ctx context.Context, id LookupID) (*Record, error) {
	e, err := v.load(ctx, id)
	if err != nil {
		return nil, err
	}
	return &e.rec, nil
}

// loadImported is load with a bound on how many run at once. What waits for
// its turn gives up with its caller, or when it would be too late.
func (v *View) loadImported(ctx context.Context, id LookupID) (*entry, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	select {
	case v.strange <- struct{}{}:
		defer func() { <-v.strange }()
		return v.load(ctx, id)
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
}

func (v *View) load(ctx context.Context, id LookupID) (*entry, error) {
	for range maxFillAttempts {
		e, err := v.read(ctx, id)
		if err != nil {
			return nil, err
		}
		if now, ok := v.fill(id, e); ok {
			return now, nil
		}
	}
	return nil, fmt.Errorf("reading %s: the store keeps answering with an older state: %w", id, ErrUnavailable)
}

// Meters returns the meters of the keys in the view.
func (v *View) Meters() *Meters { return v.meters }

// Loads returns how many look-ups the store was asked for.
func (v *View) Loads() uint64 { return v.loads.Load() }

// Resize changes how many keys the view holds at most.
func (v *View) Resize(size int) {
	n := len(v.shards)
	for i := range v.shards {
		v.shards[i].resize(max(1, size/n))
	}
}

// Len returns how many keys the view holds.
func (v *View) Len() (n int) {
	for i := range v.shards {
		n += v.shards[i].len()
	}
	return n
}

// read joins the look-up of id that is under way, or begins one. It gives up
// with its caller, and a look-up that hangs is left to itself.
func (v *View) read(ctx context.Context, id LookupID) (*entry, error) {
	key := strings.Clone(string(id)) // id may point into a header
	flight := v.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		e := &entry{epoch: v.epoch.Load()}
		v.loads.Add(1)
		rec, at, err := v.records.Lookup(ctx, LookupID(key))
		e.rec, e.at = rec.compact(), at
		return e, err
	})
	hung := time.NewTimer(lookupTimeout + time.Second)
	defer hung.Stop()
	select {
	case r := <-flight:
		if r.Err != nil {
			return nil, unavailable(r.Err)
		}
		return r.Val.(*entry), nil
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	case <-hung.C:
		v.flights.Forget(key)
		return nil, fmt.Errorf("look-up does not return: %w", ErrUnavailable)
	}
}

// fill keeps e, which was read for id, unless something newer is known. False
// means: read again.
func (v *View) fill(id LookupID, e *entry) (*entry, bool) {
	if e.rec.ID == "" {
		return &absentEntry, v.fillAbsent(id, e)
	}
	return v.fillPresent(id, e)
}

// fillPresent keeps a key under its id and all its access keys at once: whoever
// reads by one of them that it is gone has to find what stands under the others.
func (v *View) fillPresent(id LookupID, e *entry) (*entry, bool) {
	key, aliases := LookupID(e.rec.ID), e.rec.Aliases()
	defer v.lock(append(aliases, key))()
	for _, alias := range aliases {
		if v.shard(alias).outdated(alias, e) {
			return nil, false
		}
	}
	sum := v.hash(key)
	sl, now, ok := v.shardOf(sum).fill(e, v.voided.of(sum))
	if !ok || !now.rec.FoundBy(id) {
		return nil, false
	}
	for _, alias := range aliases { // the record's own string, not the caller's
		if now.rec.FoundBy(alias) {
			v.shard(alias).link(alias, sl)
		}
	}
	return now, true
}

// fillAbsent keeps that there is no id. If it is an access key of a key that
// stands here, that is older, and goes: by another name, too, nobody may find
// again what one request was refused.
func (v *View) fillAbsent(id LookupID, e *entry) bool {
	sum := v.hash(id)
	last, ok := v.shardOf(sum).fillAbsent(id, e, v.voided.of(sum))
	if ok && last != nil {
		v.shard(LookupID(last.rec.ID)).outdo(last.rec.ID, e.at)
	}
	return ok
}

// lock takes the shards of several names: all who do so in the same order.
func (v *View) lock(names []LookupID) (unlock func()) {
	var places []uint64
	for _, name := range names {
		places = append(places, v.hash(name)%uint64(len(v.shards)))
	}
	slices.Sort(places)
	places = slices.Compact(places)
	for _, i := range places {
		v.shards[i].mu.Lock()
	}
	return func() {
		for _, i := range places {
			v.shards[i].mu.Unlock()
		}
	}
}

// Forget lets go what is known of the keys: a call begun after it reads the
// store anew, by whichever name, and no read begun before it enters. It needs
// no revision and leaves the fence where the view itself has been, so that a
// hint that is wrong, or forged, costs a look-up and nothing else.
func (v *View) Forget(ids ...KeyID) {
	epoch := v.epoch.Add(1)
	for _, id := range ids {
		sum := v.hash(LookupID(id))
		raise(v.voided.of(sum), epoch) // before the entry goes: who fills later sees it
		v.flights.Forget(string(id))   // who comes now does not wait for an answer that is void
		for _, alias := range v.shardOf(sum).forget(id) {
			v.flights.Forget(string(alias))
		}
	}
}

// Reset makes the view empty: whatever it held is void, and so is whatever is
// being read.
func (v *View) Reset(s Snapshot) error {
	epoch := v.epoch.Add(1)
	for i := range v.shards {
		v.shards[i].purge(s.Head.Revision, epoch)
	}
	return nil
}

// Apply makes the view at least as new as the change. Called in the order of
// the log by one goroutine.
func (v *View) Apply(c Change, head Revision) error {
	if c.Kind != KindKey {
		return nil
	}
	epoch := v.epoch.Load()
	id := LookupID(c.Name)
	sl := v.shard(id).apply(c, head, epoch)
	for _, alias := range c.Aliases {
		gone := c.Key == nil || !c.Key.FoundBy(alias)
		v.shard(alias).applyAlias(alias, gone, sl, c.Revision, head)
	}
	return nil
}

func (v *View) hash(id LookupID) uint64 { return maphash.String(v.seed, string(id)) }

func (v *View) shard(id LookupID) *shard { return v.shardOf(v.hash(id)) }

func (v *View) shardOf(sum uint64) *shard { return &v.shards[sum%uint64(len(v.shards))] }

// touch makes key and alias the most recent of their shards, at most once a
// second per key: readers share the lock otherwise.
func (v *View) touch(id LookupID, e *entry, second int64) {
	e.touched.Store(second)
	key := LookupID(e.rec.ID)
	v.shard(key).touch(key)
	if id != key {
		v.shard(id).touch(id)
	}
}

// isKeyID tells the two kinds of LookupID apart: no access key holds "_".
func isKeyID(id LookupID) bool { return strings.HasPrefix(string(id), keyIDPrefix) }

func (s *shard) get(id LookupID) (sl *slot, absent bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sl = s.slot(id); sl.holding(id) != nil {
		return sl, false
	}
	return nil, s.absent.of(id).Contains(id)
}

// slot returns what id points at, or nil. The caller holds mu.
func (s *shard) slot(id LookupID) (sl *slot) {
	if isKeyID(id) {
		sl, _ = s.slots.Peek(KeyID(id))
	} else {
		sl, _ = s.aliases.Peek(id)
	}
	return sl
}

// entry returns what stands under id, or nil. The caller holds mu.
func (s *shard) entry(id LookupID) *entry { return s.slot(id).holding(id) }

func (s *shard) touch(id LookupID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isKeyID(id) {
		s.slots.Get(KeyID(id))
	} else {
		s.aliases.Get(id)
	}
}

func (s *shard) resize(keys int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots.Resize(keys)
	s.aliases.Resize(keys * maxAliases)
}

func (s *shard) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.slots.Len()
}

// meterFrom gives e its meter, once: it may have been seen since, and left.
func (e *entry) meterFrom(m *Meter) {
	if e.meter == nil {
		e.meter = m
	}
}

// outdated is the fence: something newer than e was applied, or seen of id.
func (s *shard) outdated(id LookupID, e *entry) bool {
	gone, _ := s.absent.of(id).Peek(id)
	return e.at < s.fence || e.at < gone || e.epoch < s.epoch
}

// fill returns the slot and the entry that now stands there: e, or one that is
// newer. False means: read again. The caller holds mu.
func (s *shard) fill(e *entry, floor *atomic.Uint64) (*slot, *entry, bool) {
	id := e.rec.ID
	if s.outdated(LookupID(id), e) || e.epoch < floor.Load() {
		return nil, nil, false
	}
	s.absent.own.Remove(LookupID(id))
	sl, ok := s.slots.Get(id)
	if ok {
		now := sl.entry.Load()
		if now.at >= e.at {
			return sl, now, true // never roll back
		}
		e.meterFrom(now.meter)
		sl.entry.Store(e)
		return sl, e, true
	}
	sl = new(slot)
	e.meterFrom(s.meters.of(&e.rec))
	sl.entry.Store(e)
	s.slots.Add(id, sl)
	return sl, e, true
}

// fillAbsent returns the entry that stood under id, if there was one.
func (s *shard) fillAbsent(id LookupID, e *entry, floor *atomic.Uint64) (last *entry, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last = s.entry(id)
	if s.outdated(id, e) || e.epoch < floor.Load() || last != nil && last.at > e.at {
		return nil, false
	}
	s.slots.Remove(KeyID(id))
	s.aliases.Remove(id)
	s.absent.of(id).Add(LookupID(strings.Clone(string(id))), e.at)
	return last, true
}

// outdo lets go a key if what stands here is older than at, and lets nothing as
// old enter.
func (s *shard) outdo(id KeyID, at Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = max(s.fence, at)
	if sl, ok := s.slots.Peek(id); ok && sl.entry.Load().at < at {
		s.slots.Remove(id)
	}
}

// link lets alias point at the slot of its key. The caller holds mu.
func (s *shard) link(alias LookupID, sl *slot) {
	s.absent.of(alias).Remove(alias)
	s.aliases.Add(alias, sl)
}

// apply raises the fence and puts the key's value as of head where an older
// one stood. A key that is gone is remembered as absent, so that nobody waits
// for the store to learn it. It returns the key's slot, if it has one.
func (s *shard) apply(c Change, head Revision, epoch uint64) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = max(s.fence, c.Revision)
	id := KeyID(c.Name)
	if c.Key == nil {
		s.slots.Remove(id)
		s.applyAbsent(LookupID(id), head)
		return nil
	}
	s.applyPresent(LookupID(id), head)
	sl, ok := s.slots.Peek(id)
	if !ok {
		return nil
	}
	if now := sl.entry.Load(); now.at < head {
		next := &entry{rec: c.Key.compact(), meter: now.meter, at: head, epoch: epoch}
		next.touched.Store(now.touched.Load())
		sl.entry.Store(next)
	}
	return sl
}

func (s *shard) applyAlias(alias LookupID, gone bool, sl *slot, r, head Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fence = max(s.fence, r)
	if !gone {
		if s.applyPresent(alias, head) && sl != nil {
			s.aliases.Add(alias, sl)
		}
		return
	}
	if now := s.entry(alias); now == nil || now.at <= head { // else it already belongs to a newer key
		s.aliases.Remove(alias)
		s.applyAbsent(alias, head)
	}
}

func (s *shard) applyAbsent(id LookupID, head Revision) {
	if at, _ := s.absent.of(id).Peek(id); at < head {
		s.absent.of(id).Add(id, head)
	}
}

// applyPresent forgets that id was absent, unless it was seen to go later.
func (s *shard) applyPresent(id LookupID, head Revision) bool {
	at, gone := s.absent.of(id).Peek(id)
	if gone && at <= head {
		s.absent.of(id).Remove(id)
	}
	return at <= head
}

// forget lets go the key, present or absent, and returns the access keys by
// which it was found. They point at an empty slot from now on.
func (s *shard) forget(id KeyID) (aliases []LookupID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent.own.Remove(LookupID(id))
	if sl, ok := s.slots.Peek(id); ok {
		aliases = sl.entry.Load().rec.Aliases()
		s.slots.Remove(id)
	}
	return aliases
}

func (s *shard) purge(fence Revision, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots.Purge()
	s.aliases.Purge()
	s.absent.own.Purge()
	s.absent.imported.Purge()
	s.fence, s.epoch = fence, epoch // the purge has raised the fence
}
