package keystore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"testing"
	"testing/synctest"
	"time"
)

// held is a look-up that was read and is not yet given to its reader.
type held struct {
	at      Revision
	release func()
}

// holdLookups makes every answer of the store wait until it is released.
func (n *node) holdLookups() <-chan held {
	answers := make(chan held, 64)
	n.store.hook(func(h *hooks) {
		h.afterLookup = func(_ LookupID, at Revision) error {
			gate := make(chan struct{})
			answers <- held{at, func() { close(gate) }}
			<-gate
			return nil
		}
	})
	return answers
}

func (n *node) letLookupsPass() { n.store.hook(func(h *hooks) { h.afterLookup = nil }) }

// answer is what one reader got.
type answer struct {
	rec *Record
	err error
}

// begin reads id in the background.
func (n *node) begin(ctx context.Context, id LookupID) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		rec, err := n.view.Record(ctx, id, time.Now())
		out <- answer{rec, err}
	}()
	return out
}

// TestFence: a look-up read before a change and given after it does not put
// the older state back, whatever the change and by whichever id it came.
func TestFence(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *node, *Record){
		"block":      func(t *testing.T, n *node, r *Record) { r.SetBlocked(true); n.store.put(t, r) },
		"deactivate": func(t *testing.T, n *node, r *Record) { r.SetDeactivated(true); n.store.put(t, r) },
		"expire":     func(t *testing.T, n *node, r *Record) { must(t, r.Expire(time.Now())); n.store.put(t, r) },
		"rotate": func(t *testing.T, n *node, r *Record) {
			must(t, r.Rotate(Digest{9}, 0, time.Now()))
			n.store.put(t, r)
		},
		"regenerate": func(t *testing.T, n *node, r *Record) {
			must(t, r.Regenerate(n.credentials.NewAccessKey(), Digest{9}, 0))
			n.store.put(t, r)
		},
		"delete": func(t *testing.T, n *node, r *Record) { n.store.remove(t, r.ID) },
	} {
		for _, by := range []string{"key id", "access key"} {
			t.Run(name+" by "+by, func(t *testing.T) {
				n := newNode(t, 16, 0)
				rec, secret := n.storedKey(t, "")
				old, id := rec, LookupID(rec.ID)
				if by == "access key" {
					id = LookupID(rec.Current.AccessKey)
				}
				answers := n.holdLookups()
				reader := n.begin(context.Background(), id)
				late := <-answers
				change(t, n, &rec)
				n.letLookupsPass()
				n.catchUp(t)
				late.release()
				got := <-reader
				if got.err != nil || got.rec.Admit(1, time.Now()) == nil {
					t.Errorf("the reader itself sees %+v, %v", got.rec, got.err)
				}
				if _, err := n.authenticate(&old, secret, time.Now()); err == nil {
					t.Error("a request begun after the change passes")
				}
			})
		}
	}
}

// TestFenceAgainstCreation: not having found a key that has come since does
// not hide it.
func TestFenceAgainstCreation(t *testing.T) {
	for _, by := range []string{"key id", "access key"} {
		for _, size := range []int{16, 4096, 4096} { // in many shards, id and access key rarely share one
			n := newNode(t, size, 0)
			rec, secret := n.newKey("")
			id := LookupID(rec.ID)
			if by == "access key" {
				id = LookupID(rec.Current.AccessKey)
			}
			answers := n.holdLookups()
			reader := n.begin(context.Background(), id)
			late := <-answers
			n.letLookupsPass()
			n.store.put(t, &rec)
			n.catchUp(t)
			late.release()
			if got := <-reader; got.err != nil || got.rec.ID != rec.ID {
				t.Errorf("by %s the reader sees %+v, %v", by, got.rec, got.err)
			}
			if _, err := n.authenticate(&rec, secret, time.Now()); err != nil {
				t.Errorf("by %s: %v", by, err)
			}
		}
	}
}

// TestCreationClearsAbsence: a key looked for before it existed is found as
// soon as its creation is applied.
func TestCreationClearsAbsence(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.newKey("")
	names := []LookupID{LookupID(rec.ID), LookupID(rec.Current.AccessKey)}
	for _, id := range names {
		if got := n.see(t, id); got.ID != "" || n.warm(t, id).ID != "" {
			t.Fatalf("%s is found before it exists: %+v", id, got)
		}
	}
	n.store.put(t, &rec)
	n.catchUp(t)
	for _, id := range names { // before any look-up has brought the key itself
		if _, known := n.view.Cached(id, time.Now()); known {
			t.Errorf("%s is still taken for absent", id)
		}
	}
	for _, id := range names {
		if got := n.see(t, id); got.ID != rec.ID {
			t.Errorf("by %s it is %+v", id, got)
		}
	}
}

// TestLettingGoKeepsTheFence: an entry that was seen and had to make room is
// not followed by an older one.
func TestLettingGoKeepsTheFence(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *node, *Record){
		"a record": func(t *testing.T, n *node, r *Record) { r.SetBlocked(true); n.store.put(t, r) },
		"absence":  func(t *testing.T, n *node, r *Record) { n.store.remove(t, r.ID) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 1, 0)
			n.view.shards[0].absent.own.Resize(1)
			other, _ := n.storedKey(t, "")
			rec, _ := n.storedKey(t, "")
			id := LookupID(rec.ID)
			answers := n.holdLookups()
			reader := n.begin(context.Background(), id)
			late := <-answers
			change(t, n, &rec) // and nothing applies it yet
			n.letLookupsPass()
			n.forget(id)
			n.see(t, id)
			n.see(t, LookupID(other.ID))
			n.see(t, "absent")
			late.release()
			<-reader
			if got := n.see(t, id); got.ID != "" && !got.Blocked {
				t.Error("the view went back")
			}
		})
	}
}

// TestAliasesAreNotCopies: one change is seen under every name of a key, at
// once and without a look-up.
func TestAliasesAreNotCopies(t *testing.T) {
	for name, size := range map[string]int{"one shard": 16, "many shards": 4096} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, size, 0)
			rec, _ := n.storedKey(t, "")
			first := rec.Current.AccessKey
			must(t, rec.Regenerate(n.credentials.NewAccessKey(), Digest{9}, 0))
			n.store.put(t, &rec)
			n.catchUp(t)
			names := []LookupID{LookupID(rec.ID), LookupID(first), LookupID(rec.Current.AccessKey)}
			for _, id := range names {
				n.see(t, id)
			}
			rec.SetBlocked(true)
			n.store.put(t, &rec)
			n.catchUp(t)
			asked := n.store.asked()
			same := n.warm(t, names[0])
			for _, id := range names {
				if got := n.warm(t, id); !got.Blocked || got != same {
					t.Errorf("%s: blocked = %t, the same record = %t", id, got.Blocked, got == same)
				}
			}
			if n.store.asked() != asked {
				t.Error("a changed warm key asked the store")
			}
		})
	}
}

// TestRegenerateTwiceDropsTheOldAlias: the access key before the previous one
// is nobody's, at once and without a look-up.
func TestRegenerateTwiceDropsTheOldAlias(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	first := rec
	n.see(t, LookupID(first.Current.AccessKey))
	for want := range []error{ErrSuperseded, ErrInvalid} {
		must(t, rec.Regenerate(n.credentials.NewAccessKey(), Digest{9}, 0))
		n.store.put(t, &rec)
		n.catchUp(t)
		asked := n.store.asked()
		_, err := n.authenticate(&first, secret, time.Now())
		if wanted := []error{ErrSuperseded, ErrInvalid}[want]; !errors.Is(err, wanted) || n.store.asked() != asked {
			t.Errorf("the first access key: %v after %d look-ups, want %v after none", err, n.store.asked()-asked, wanted)
		}
	}
}

// TestAliasChecksItself: an alias entry that outlived its name, as one linked
// late by a reader does, finds nothing.
func TestAliasChecksItself(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.storedKey(t, "")
	first := LookupID(rec.Current.AccessKey)
	n.see(t, first)
	stale, _ := n.view.shard(first).aliases.Peek(first)
	for range 2 {
		must(t, rec.Regenerate(n.credentials.NewAccessKey(), Digest{9}, 0))
		n.store.put(t, &rec)
		n.catchUp(t)
	}
	n.view.shard(first).aliases.Add(first, stale)
	if got := n.see(t, first); got.ID != "" {
		t.Errorf("an access key of nobody finds %s", got.ID)
	}
}

// TestAbsenceByOneNameIsByAll: once a request by its access key was told that a
// key is gone, none by its id finds it, whichever of the two look-ups began, or
// was answered, first, and though nothing was applied.
func TestAbsenceByOneNameIsByAll(t *testing.T) {
	for name, size := range map[string]int{"one shard": 16, "many shards": 4096} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, size, 0)
			begin := func() (byID, byAlias LookupID, older held, reader <-chan answer, newer held, refused <-chan answer) {
				rec, _ := n.storedKey(t, "")
				byID, byAlias = LookupID(rec.ID), LookupID(rec.Current.AccessKey)
				answers := n.holdLookups()
				reader = n.begin(context.Background(), byID)
				older = <-answers
				n.store.remove(t, rec.ID)
				refused = n.begin(context.Background(), byAlias)
				newer = <-answers
				n.letLookupsPass()
				return
			}
			t.Run("before the key enters", func(t *testing.T) {
				_, _, older, reader, newer, refused := begin()
				newer.release()
				if got := <-refused; got.err != nil || got.rec.ID != "" {
					t.Fatalf("the access key finds %+v, %v", got.rec, got.err)
				}
				older.release()
				if got := <-reader; got.err != nil || got.rec.ID != "" {
					t.Errorf("the id finds %+v, %v", got.rec, got.err)
				}
			})
			t.Run("after the key has entered", func(t *testing.T) {
				byID, _, older, reader, newer, refused := begin()
				older.release()
				<-reader
				newer.release()
				if got := <-refused; got.err != nil || got.rec.ID != "" {
					t.Fatalf("the access key finds %+v, %v", got.rec, got.err)
				}
				if got := n.see(t, byID); got.ID != "" {
					t.Errorf("the id finds %+v", got)
				}
			})
			t.Run("of a key that was found by its id", func(t *testing.T) {
				rec, _ := n.storedKey(t, "")
				n.see(t, LookupID(rec.ID))
				n.store.remove(t, rec.ID)
				gone := n.see(t, LookupID(rec.Current.AccessKey)).ID == ""
				if got := n.see(t, LookupID(rec.ID)); gone && got.ID != "" {
					t.Errorf("the access key finds nothing, and the id %+v", got)
				}
			})
		})
	}
}

// TestDeletedIsKnownAbsent: nobody waits for the store to learn that a key,
// or one of its access keys, is gone.
func TestDeletedIsKnownAbsent(t *testing.T) {
	for name, warm := range map[string]bool{"warm": true, "cold": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 16, 0)
			rec, secret := n.storedKey(t, "")
			if warm {
				n.see(t, LookupID(rec.Current.AccessKey))
			}
			asked := n.store.asked()
			n.store.remove(t, rec.ID)
			n.catchUp(t)
			if got := n.warm(t, LookupID(rec.ID)); got.ID != "" {
				t.Errorf("by its id it is %+v", got)
			}
			if _, err := n.authenticate(&rec, secret, time.Now()); !errors.Is(err, ErrInvalid) {
				t.Errorf("authenticating: %v", err)
			}
			if n.store.asked() != asked {
				t.Errorf("%d look-ups", n.store.asked()-asked)
			}
		})
	}
}

// TestNewerIsNeverRolledBack: what a reader has seen before its change was
// applied stays, whatever an older look-up brings later.
func TestNewerIsNeverRolledBack(t *testing.T) {
	change := map[string]func(*testing.T, *node, *Record){
		"a change":  func(t *testing.T, n *node, r *Record) { r.SetBlocked(true); n.store.put(t, r) },
		"an ending": func(t *testing.T, n *node, r *Record) { n.store.remove(t, r.ID) },
		"a coming":  func(t *testing.T, n *node, r *Record) { n.store.put(t, r) },
	}
	for name, change := range change {
		for _, size := range []int{16, 4096} {
			t.Run(fmt.Sprintf("%s, view of %d", name, size), func(t *testing.T) {
				n := newNode(t, size, 0)
				rec, _ := n.newKey("")
				if name != "a coming" {
					n.store.put(t, &rec)
					n.catchUp(t)
				}
				id, alias := LookupID(rec.ID), LookupID(rec.Current.AccessKey)
				answers := n.holdLookups()
				byID, byAlias := n.begin(context.Background(), id), n.begin(context.Background(), alias)
				late := []held{<-answers, <-answers}
				change(t, n, &rec) // and nothing applies it yet
				n.letLookupsPass()
				n.forget(id, alias) // two new flights, beside the late ones
				newer := []*Record{n.see(t, id), n.see(t, alias)}
				for _, l := range late {
					l.release()
				}
				<-byID
				<-byAlias
				for i, id := range []LookupID{id, alias} {
					if got := n.see(t, id); got.Revision != newer[i].Revision || got.ID != newer[i].ID || got.Blocked != newer[i].Blocked {
						t.Errorf("%s: after revision %d of %q the view went back to %d of %q", id, newer[i].Revision, newer[i].ID, got.Revision, got.ID)
					}
				}
			})
		}
	}
}

// forget lets the next look-ups begin anew, as a caller does that gave up.
func (n *node) forget(ids ...LookupID) {
	for _, id := range ids {
		n.view.flights.Forget(string(id))
	}
}

// TestJoinedFlightFencesForItself: of two callers that wait for one look-up,
// the one that comes back after the change was applied reads again, though the
// other has filled the view before it.
func TestJoinedFlightFencesForItself(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.storedKey(t, "")
	id := LookupID(rec.ID)
	answers := n.holdLookups()
	reader := n.begin(context.Background(), id)
	late := <-answers
	n.letLookupsPass()
	joined, err := make(chan *entry, 1), make(chan error, 1)
	go func() {
		e, readErr := n.view.read(context.Background(), id)
		joined <- e
		err <- readErr
	}()
	for n.store.asked() != 1 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond) // the second joins
	late.release()
	<-reader // has filled the view
	e := <-joined
	if err := <-err; err != nil {
		t.Fatal(err)
	}
	rec.SetBlocked(true)
	n.store.put(t, &rec)
	n.catchUp(t)
	n.view.shard(id).slots.Purge() // evicted meanwhile
	if _, ok := n.view.fill(id, e); ok {
		t.Error("what was read before the change enters the view after it")
	}
	if got := n.see(t, id); !got.Blocked {
		t.Error("the view is older than what was applied")
	}
}

func TestOneLookupHoweverManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, _ := n.storedKey(t, "")
		answers := n.holdLookups()
		var readers []<-chan answer
		for range 50 {
			readers = append(readers, n.begin(context.Background(), LookupID(rec.ID)))
		}
		synctest.Wait()
		(<-answers).release()
		for _, r := range readers {
			if got := <-r; got.err != nil || got.rec.ID != rec.ID {
				t.Errorf("a reader got %+v, %v", got.rec, got.err)
			}
		}
		if asked := n.store.asked(); asked != 1 || n.view.Loads() != 1 {
			t.Errorf("%d look-ups for 50 readers", asked)
		}
	})
}

// TestCancelledLeader: who began a look-up may leave; those who joined it get
// its answer.
func TestCancelledLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, _ := n.storedKey(t, "")
		answers := n.holdLookups()
		ctx, cancel := context.WithCancel(context.Background())
		leader := n.begin(ctx, LookupID(rec.ID))
		synctest.Wait()
		follower := n.begin(context.Background(), LookupID(rec.ID))
		synctest.Wait()
		cancel()
		if got := <-leader; !errors.Is(got.err, ErrUnavailable) || !errors.Is(got.err, context.Canceled) {
			t.Errorf("the leader got %v", got.err)
		}
		(<-answers).release()
		if got := <-follower; got.err != nil || got.rec.ID != rec.ID {
			t.Errorf("who joined got %+v, %v", got.rec, got.err)
		}
		if n.store.asked() != 1 {
			t.Errorf("%d look-ups", n.store.asked())
		}
	})
}

// TestHungLookup: a store that never answers holds its callers for a bounded
// time, and those who come after not at all.
func TestHungLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, _ := n.storedKey(t, "")
		answers := n.holdLookups()
		began := time.Now()
		if got := <-n.begin(context.Background(), LookupID(rec.ID)); !errors.Is(got.err, ErrUnavailable) {
			t.Errorf("got %+v, %v", got.rec, got.err)
		}
		if waited := time.Since(began); waited > lookupTimeout+time.Second {
			t.Errorf("waited %s", waited)
		}
		n.letLookupsPass()
		if got := n.see(t, LookupID(rec.ID)); got.ID != rec.ID {
			t.Errorf("afterwards %+v", got)
		}
		(<-answers).release()
	})
}

// TestLookupEndsWithItsTime: a store that heeds its context gives up by itself.
func TestLookupEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		n.store.hook(func(h *hooks) {
			h.afterLookup = func(LookupID, Revision) error { time.Sleep(lookupTimeout + time.Millisecond); return nil }
		})
		if got := <-n.begin(context.Background(), "key_a"); !errors.Is(got.err, context.DeadlineExceeded) || !errors.Is(got.err, ErrUnavailable) {
			t.Errorf("got %v", got.err)
		}
	})
}

// TestErrorsAreNeverCached: neither as absence nor as anything else, and an
// outage is not a denial.
func TestErrorsAreNeverCached(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	for _, fault := range []error{errFault, context.DeadlineExceeded, ErrUnavailable} {
		n.store.hook(func(h *hooks) { h.beforeLookup = func(LookupID) error { return fault } })
		_, err := n.authenticate(&rec, secret, time.Now())
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalid) {
			t.Errorf("a store that answers %v: %v", fault, err)
		}
		if _, known := n.view.Cached(LookupID(rec.Current.AccessKey), time.Now()); known {
			t.Errorf("%v was kept", fault)
		}
	}
	n.store.hook(func(h *hooks) { h.beforeLookup = nil })
	if _, err := n.authenticate(&rec, secret, time.Now()); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// TestStoreThatKeepsAnsweringOld: a replica that lags behind what was applied
// is no source, and no endless loop.
func TestStoreThatKeepsAnsweringOld(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.storedKey(t, "")
	n.view.shard(LookupID(rec.ID)).fence = 1000
	if _, err := n.view.Load(context.Background(), LookupID(rec.ID)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error = %v", err)
	}
	if n.store.asked() != maxFillAttempts {
		t.Errorf("%d look-ups", n.store.asked())
	}
}

// TestAbsenceIsBoundedAndApart: a flood of unknown ids neither grows memory
// nor pushes keys out.
func TestAbsenceIsBoundedAndApart(t *testing.T) {
	for _, size := range []int{16, 4096} {
		n := newNode(t, size, 0)
		rec, _ := n.storedKey(t, "")
		n.see(t, LookupID(rec.Current.AccessKey))
		for i := range maxAbsent + 2_000 {
			n.see(t, LookupID(fmt.Sprintf("absent%d", i)))
		}
		absent := 0
		for i := range n.view.shards {
			absent += n.view.shards[i].absent.own.Len()
		}
		if absent > maxAbsent || absent < maxAbsent/2 {
			t.Errorf("view of %d: %d absent ids are kept", size, absent)
		}
		if got := n.warm(t, LookupID(rec.Current.AccessKey)); got.ID != rec.ID {
			t.Errorf("view of %d: the key is %+v", size, got)
		}
	}
}

func TestEviction(t *testing.T) {
	n := newNode(t, 4, 0)
	var recs []Record
	for range 8 {
		rec, _ := n.storedKey(t, "")
		recs = append(recs, rec)
		n.see(t, LookupID(rec.Current.AccessKey))
	}
	if n.view.Len() != 4 {
		t.Errorf("a view of 4 holds %d", n.view.Len())
	}
	for i, rec := range recs {
		for _, id := range []LookupID{LookupID(rec.ID), LookupID(rec.Current.AccessKey)} {
			if _, known := n.view.Cached(id, time.Now()); known != (i >= 4) {
				t.Errorf("key %d: known by %s = %t", i, id, known)
			}
		}
	}
	n.view.Resize(2)
	if n.view.Len() != 2 {
		t.Errorf("shrunk to 2 it holds %d", n.view.Len())
	}
}

// TestUseKeepsAKeyWarm: the least recently used goes first, by whichever name
// it was used.
func TestUseKeepsAKeyWarm(t *testing.T) {
	n := newNode(t, 4, 0)
	first, _ := n.storedKey(t, "")
	id := LookupID(first.Current.AccessKey)
	now := time.Now()
	n.see(t, id)
	for i := range 20 {
		now = now.Add(time.Second)
		if _, known := n.view.Cached(id, now); !known {
			t.Fatalf("a key in use was let go after %d others", i)
		}
		other, _ := n.storedKey(t, "")
		n.see(t, LookupID(other.Current.AccessKey))
	}
}

// TestWarmKeySurvivesItsChange: a changed key stays in the view, in its place.
func TestWarmKeySurvivesItsChange(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	n.see(t, LookupID(rec.Current.AccessKey))
	asked := n.store.asked()
	for i := range 10 {
		rec.Name = fmt.Sprint("name ", i)
		n.store.put(t, &rec)
		n.catchUp(t)
		if p, err := n.authenticate(&rec, secret, time.Now()); err != nil || p.Record.Name != rec.Name {
			t.Fatalf("after change %d: %+v, %v", i, p.Record, err)
		}
	}
	if n.store.asked() != asked {
		t.Errorf("%d look-ups for a warm key", n.store.asked()-asked)
	}
}

// TestColdKeysDoNotEnterByChange: a change of a key that nobody asks for does
// not push out those that are asked for.
func TestColdKeysDoNotEnterByChange(t *testing.T) {
	n := newNode(t, 2, 0)
	hot, _ := n.storedKey(t, "")
	n.see(t, LookupID(hot.ID))
	for range 10 {
		n.storedKey(t, "")
	}
	if n.view.Len() != 1 || n.warm(t, LookupID(hot.ID)).ID != hot.ID {
		t.Errorf("the view holds %d keys", n.view.Len())
	}
}

// TestExpiryUnderConstantReads: reading prolongs nothing.
func TestExpiryUnderConstantReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, secret := n.newKey("")
		began := time.Now()
		rec.Expires = InstantOf(began.Add(10 * time.Second))
		must(t, rec.Rotate(n.credentials.Digest(n.credentials.NewSecretKey().Reveal()), 5*time.Second, began))
		n.store.put(t, &rec)
		n.catchUp(t)
		for elapsed := time.Duration(0); elapsed <= 12*time.Second; elapsed += 250 * time.Millisecond {
			var want error
			switch {
			case elapsed >= 10*time.Second:
				want = ErrExpired
			case elapsed >= 5*time.Second:
				want = ErrSuperseded
			}
			if _, err := n.authenticate(&rec, secret, time.Now()); !errors.Is(err, want) {
				t.Fatalf("after %s: %v, want %v", elapsed, err, want)
			}
			time.Sleep(250 * time.Millisecond)
		}
		if n.store.asked() != 1 {
			t.Errorf("%d look-ups", n.store.asked())
		}
	})
}

// TestNoCrossTalk: each kind of id finds only what it names.
func TestNoCrossTalk(t *testing.T) {
	n := newNode(t, 16, 0)
	a, secretA := n.storedKey(t, "a")
	b, secretB := n.storedKey(t, "b")
	for range 2 { // cold, then warm
		if p, err := n.authenticate(&a, secretA, time.Now()); err != nil || p.Record.ID != a.ID {
			t.Errorf("a: %+v, %v", p.Record, err)
		}
		if p, err := n.authenticate(&b, secretB, time.Now()); err != nil || p.Record.ID != b.ID {
			t.Errorf("b: %+v, %v", p.Record, err)
		}
		if p, err := n.authenticate(&a, secretB, time.Now()); err != ErrInvalid || p.Record != nil {
			t.Errorf("a with b's secret: %+v, %v", p.Record, err)
		}
	}
}

// TestWrongSecretLearnsNothing: whatever the key's state, who cannot prove it
// is told no more than of a key that never was.
func TestWrongSecretLearnsNothing(t *testing.T) {
	n := newNode(t, 16, 0)
	for name, change := range map[string]func(*Record){
		"blocked":     func(r *Record) { r.Blocked = true },
		"deactivated": func(r *Record) { r.Deactivated = true },
		"expired":     func(r *Record) { r.Expires = 1 },
		"active":      func(*Record) {},
	} {
		rec, _ := n.newKey("")
		change(&rec)
		n.store.put(t, &rec)
		n.catchUp(t)
		for _, warm := range []bool{false, true} {
			if p, err := n.authenticate(&rec, n.credentials.NewSecretKey(), time.Now()); err != ErrInvalid || p.Record != nil {
				t.Errorf("%s, warm = %t: %+v, %v", name, warm, p.Record, err)
			}
		}
	}
}

// TestMadeUpKeysCostNothing: no look-up, no memory, whatever their number.
func TestMadeUpKeysCostNothing(t *testing.T) {
	n := newNode(t, 16, 0)
	elsewhere := newCredentials()
	for range 1000 {
		rec := Record{Current: Pair{AccessKey: elsewhere.NewAccessKey()}}
		if p, err := n.authenticate(&rec, elsewhere.NewSecretKey(), time.Now()); err != ErrInvalid || p.Record != nil {
			t.Fatalf("a made-up key: %+v, %v", p, err)
		}
	}
	if n.store.asked() != 0 || n.view.shards[0].absent.own.Len() != 0 {
		t.Errorf("%d look-ups, %d remembered", n.store.asked(), n.view.shards[0].absent.own.Len())
	}
}

// TestGenuineButGone: unknown and wrong are one answer, and the store is asked
// once.
func TestGenuineButGone(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.newKey("")
	for range 5 {
		if p, err := n.authenticate(&rec, secret, time.Now()); err != ErrInvalid || p.Record != nil {
			t.Fatalf("a key that never was: %+v, %v", p, err)
		}
	}
	if n.store.asked() != 1 {
		t.Errorf("%d look-ups", n.store.asked())
	}
}

// TestAuthenticateToken: the key, its generation and its scopes decide, as
// they are now.
func TestAuthenticateToken(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.newKey("")
	rec.Scopes = "a b c"
	n.store.put(t, &rec)
	n.catchUp(t)
	n.tokens["t.o.k"] = TokenClaims{Key: rec.ID, Generation: 1, Scopes: "b c d"}
	n.tokens["o.l.d"] = TokenClaims{Key: rec.ID, Generation: 7, Scopes: "b"}
	n.tokens["z.r.o"] = TokenClaims{Key: rec.ID, Scopes: "b"}
	n.tokens["g.o.n"] = TokenClaims{Key: "key_gone", Generation: 1}
	check := func(token string, want error, scopes Scopes) {
		t.Helper()
		p, err := n.auth.Authenticate(context.Background(), Presented{Kind: CredentialAccessToken, Token: token}, time.Now())
		if !errors.Is(err, want) || p.Scopes != scopes || (want == ErrInvalid) != (p.Record == nil) {
			t.Errorf("%s: %+v, %v; want %v", token, p, err, want)
		}
	}
	check("t.o.k", nil, "b c")
	check("o.l.d", ErrSuperseded, "b")
	check("z.r.o", ErrInvalid, "")
	check("g.o.n", ErrInvalid, "")
	check("x.y.z", ErrInvalid, "")
	rec.Scopes = "c"
	n.store.put(t, &rec)
	n.catchUp(t)
	check("t.o.k", nil, "c")
	rec.SetBlocked(true)
	n.store.put(t, &rec)
	n.catchUp(t)
	check("t.o.k", ErrBlocked, "c")
	if _, err := n.auth.Authenticate(context.Background(), Presented{}, time.Now()); err != ErrNoCredential {
		t.Errorf("the zero credential: %v", err)
	}
}

// TestStaleDeniesNobody: without a lease neither a key nor a token is judged,
// and an unproved one is not asked for.
func TestStaleDeniesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, secret := n.storedKey(t, "")
		n.tokens["a.b.c"] = TokenClaims{Key: rec.ID, Generation: 1}
		n.lease.Suspend()
		if p, err := n.authenticate(&rec, secret, time.Now()); err != ErrStale || p.Record != nil {
			t.Errorf("a key without a lease: %v", err)
		}
		if _, err := n.auth.Authenticate(context.Background(), Presented{Kind: CredentialAccessToken, Token: "a.b.c"}, time.Now()); err != ErrStale {
			t.Errorf("a token without a lease: %v", err)
		}
	})
}

// Readers of a hot key take no lock, so that they do not take turns.
func TestHotReadTakesNoLock(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.storedKey(t, "")
	id, now := LookupID(rec.Current.AccessKey), time.Now()
	n.see(t, id)
	if _, known := n.view.cached(id, now); !known {
		t.Fatal("it was read")
	}
	for i := range n.view.shards {
		n.view.shards[i].mu.Lock()
		defer n.view.shards[i].mu.Unlock()
	}
	read := make(chan bool)
	go func() {
		_, known := n.view.cached(id, now)
		read <- known
	}()
	select {
	case known := <-read:
		if !known {
			t.Error("it is not known any more")
		}
	case <-time.After(10 * time.Second):
		t.Error("a hot read waits for a lock")
	}
}

// What was read of late is found by its slot, and its slot says what is true:
// nothing, once the key has left the view or is gone, whoever comes instead.
func TestRecentSlotsAreNeverWrong(t *testing.T) {
	n := newNode(t, 1, 0)
	first, _ := n.storedKey(t, "")
	second, _ := n.storedKey(t, "")
	one, other := LookupID(first.Current.AccessKey), LookupID(second.Current.AccessKey)
	for range 3 {
		if n.see(t, one).ID != first.ID || n.see(t, other).ID != second.ID || n.see(t, LookupID(first.ID)).ID != first.ID {
			t.Fatal("one key is taken for another")
		}
	}
	place := n.view.recent.place(maphash.String(n.view.seed, string(other)))
	sl := new(slot)
	sl.entry.Store(&entry{rec: first})
	place.Store(sl) // as if both stood at one place
	if rec := n.see(t, other); rec.ID != second.ID {
		t.Errorf("%s is found under the access key of another", rec.ID)
	}
}
