package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func changes(t *testing.T, h Harness) {
	t.Run("Aliases", func(t *testing.T) { changedAliases(open(t, h)) })
	t.Run("Kinds", func(t *testing.T) { changedKinds(open(t, h)) })
	t.Run("Limit", func(t *testing.T) { changesLimited(open(t, h)) })
	t.Run("Current", func(t *testing.T) { changesCurrent(open(t, h)) })
}

// changedAliases: a change names the aliases that appear and disappear.
func changedAliases(b *bench) {
	expect := func(what string, do func(), aliases ...keystore.AccessKey) {
		b.Helper()
		before := b.head()
		do()
		c := b.one(before)
		var want []keystore.LookupID
		for _, a := range aliases {
			want = append(want, keystore.LookupID(a))
		}
		slices.Sort(want)
		slices.Sort(c.Aliases)
		if c.Kind != keystore.KindKey || c.Name != "key_a" || !slices.Equal(c.Aliases, want) {
			b.Errorf("%s: got %s %s %q, want aliases %q", what, c.Kind, c.Name, c.Aliases, want)
		}
	}
	update := func(change func(*keystore.Record)) func() {
		return func() { b.update("key_a", change) }
	}
	rotate := update(func(r *keystore.Record) {
		_ = r.Rotate(secret(byte(r.Current.Generation)), time.Hour, start)
	})
	regenerate := func(name string) func() {
		return update(func(r *keystore.Record) { _ = r.Regenerate(access(name), secret(9), 0) })
	}
	expect("create", func() { b.put(key("a")) }, access("a"))
	expect("update", update(func(r *keystore.Record) { r.Blocked = true }))
	expect("unblock", update(func(r *keystore.Record) { r.Blocked = false }))
	expect("rotate", rotate)
	expect("regenerate", regenerate("b"), access("b"))
	expect("rotate after regenerate", rotate, access("a"))
	expect("regenerate again", regenerate("c"), access("c"))
	expect("regenerate twice", regenerate("d"), access("b"), access("d"))
	expect("delete", func() { b.delete("key_a") }, access("c"), access("d"))
	expect("create under the same id", func() { b.put(key("a")) }, access("a"))
}

// changedKinds: every kind of object is in the log with its value.
func changedKinds(b *bench) {
	before := b.head()
	r := b.put(key("a"))
	if c := b.one(before); c.Key == nil || *c.Key != r || c.Organization != nil || c.Document != nil || c.Revision != r.Revision {
		b.Errorf("key: %+v", c)
	}
	before = b.head()
	b.delete("key_a")
	if c := b.one(before); c.Kind != keystore.KindKey || c.Key != nil {
		b.Errorf("deleted key: %+v", c)
	}
	before = b.head()
	o := b.organization("acme")
	if c := b.one(before); c.Kind != keystore.KindOrganization || c.Name != "acme" || c.Organization == nil ||
		c.Organization.Revision != o.Revision || c.Key != nil || len(c.Aliases) != 0 {
		b.Errorf("organization: %+v", c)
	}
	before = b.head()
	b.transact(func(tx keystore.Tx) error {
		return tx.PutDocument(&keystore.Document{Kind: keystore.KindSigningRing, Name: "ring", Body: []byte("body")})
	})
	if c := b.one(before); c.Kind != keystore.KindSigningRing || c.Name != "ring" || c.Document == nil ||
		string(c.Document.Body) != "body" || c.Document.Revision != c.Revision {
		b.Errorf("document: %+v", c)
	}
	before = b.head()
	b.transact(func(tx keystore.Tx) error { return tx.DeleteDocument(keystore.KindSigningRing, "ring") })
	if c := b.one(before); c.Kind != keystore.KindSigningRing || c.Name != "ring" || c.Document != nil {
		b.Errorf("deleted document: %+v", c)
	}
}

// changesLimited: a piece of the log ends at the limit, and says how far the
// log goes.
func changesLimited(b *bench) {
	from := b.head()
	for n := range 7 {
		b.put(key(fmt.Sprint("l", n)))
	}
	head := b.head()
	for _, limit := range []int{1, 2, 6, 7, 8} {
		var got []keystore.Revision
		for at := from; at != head; {
			batch := b.changes(at, limit)
			if batch.Head != head || len(batch.Changes) == 0 || len(batch.Changes) > limit {
				b.Fatalf("limit %d: %+v", limit, batch)
			}
			for _, c := range batch.Changes {
				got, at = append(got, c.Revision), c.Position
			}
		}
		if len(got) != 7 || !slices.IsSorted(got) {
			b.Errorf("limit %d: revisions %v", limit, got)
		}
	}
	if batch := b.changes(from, 0); len(batch.Changes) != 0 || batch.Head != head {
		b.Errorf("limit 0: %+v", batch)
	}
}

// changesCurrent: values are as of the head, not as of their rows.
func changesCurrent(b *bench) {
	from := b.head()
	b.put(key("a"))
	b.put(key("b"))
	last := b.update("key_a", func(r *keystore.Record) { r.Blocked = true })
	b.delete("key_b")
	for _, c := range b.changes(from, 2).Changes {
		switch {
		case c.Name == "key_a" && (c.Key == nil || *c.Key != last):
			b.Errorf("the first row of a key has not its value as of the head: %+v", c.Key)
		case c.Name == "key_b" && c.Key != nil:
			b.Errorf("the row of a key that is gone has a value: %+v", c.Key)
		}
	}
}

// positions: the log knows exactly what it holds.
func positions(t *testing.T, h Harness) {
	b := open(t, h)
	first := b.head()
	b.put(key("a"))
	head := b.head()
	if head.Mark == first.Mark {
		t.Error("two rows have one mark")
	}
	other, _ := h.Open(t)
	otherSnap, err := other.Snapshot(t.Context())
	if err != nil || otherSnap.Head == first {
		t.Errorf("two stores begin with the same position (%v)", err)
	}
	lost := map[string]keystore.Position{
		"zero": {}, "a wrong mark": {Revision: head.Revision, Mark: head.Mark + 1},
		"another row's mark": {Revision: head.Revision, Mark: first.Mark}, "beyond the head": {Revision: head.Revision + 1, Mark: head.Mark},
		"another store's": otherSnap.Head, "before the first": {Revision: -1, Mark: first.Mark},
	}
	for what, at := range lost {
		b.lost(what, at)
	}
	if h.LogKept > 0 {
		b.toggle("key_a", 2*h.LogKept+1)
		b.lost("pruned", head)
		recent := b.head()
		b.toggle("key_a", h.LogKept-1)
		if batch := b.changes(recent, 2*h.LogKept); len(batch.Changes) != h.LogKept-1 {
			t.Errorf("%d changes after a position %d back", len(batch.Changes), h.LogKept-1)
		}
	}
	if batch := b.changes(b.head(), 10); len(batch.Changes) != 0 {
		t.Errorf("after the head: %+v", batch)
	}
}

func (b *bench) lost(what string, at keystore.Position) {
	b.Helper()
	if batch, err := b.store.Changes(b.Context(), at, 10); !errors.Is(err, keystore.ErrPositionLost) {
		b.Errorf("%s: %+v %v", what, batch, err)
	}
}

// toggle changes a key n times, in two transactions.
func (b *bench) toggle(id keystore.KeyID, n int) {
	b.Helper()
	for _, part := range []int{n - n/2, n / 2} {
		b.transact(func(tx keystore.Tx) error {
			r, err := tx.Key(id)
			for i := 0; err == nil && i < part; i++ {
				r.Deactivated = !r.Deactivated
				err = tx.PutKey(&r)
			}
			return err
		})
	}
}

func concurrency(t *testing.T, h Harness) {
	t.Run("Writers", func(t *testing.T) { manyWriters(open(t, h)) })
	t.Run("Readers", func(t *testing.T) { readersAndWriter(open(t, h)) })
	t.Run("Unblocked", func(t *testing.T) { readDuringWrite(open(t, h)) })
}

// manyWriters: revisions follow commit order. A follower reads while many
// write and must meet every revision once, ascending; the one that commits
// late with a smaller number is the one that loses a revocation.
func manyWriters(b *bench) {
	const writers, each = 8, 12
	from := b.head()
	unread := make(chan struct{}, 2*writers) // no more than the shortest log keeps: a slow reader is not what this is about
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[keystore.Revision]bool{} // acknowledged
	for w := range writers {
		group.Go(func() {
			for n := range each {
				unread <- struct{}{}
				r := key(fmt.Sprintf("w%dn%d", w, n))
				revision, err := b.store.Transact(b.Context(), func(tx keystore.Tx) error { r.Number = 0; return tx.PutKey(&r) })
				if err != nil || revision != r.Revision {
					b.Errorf("Transact: %d %v, record has %d", revision, err, r.Revision)
				}
				mu.Lock()
				if seen[revision] {
					b.Errorf("revision %d was given twice", revision)
				}
				seen[revision] = true
				mu.Unlock()
			}
		})
	}
	met, at := 0, from
	for deadline := time.Now().Add(time.Minute); met < writers*each; {
		batch := b.changes(at, 5)
		for _, c := range batch.Changes {
			if c.Revision <= at.Revision {
				b.Fatalf("revision %d follows %d", c.Revision, at.Revision)
			}
			at, met = c.Position, met+1
			<-unread
		}
		if b.Failed() || time.Now().After(deadline) {
			b.Fatalf("the follower met %d of %d changes", met, writers*each)
		}
	}
	group.Wait()
	if head := b.head(); head != at || len(seen) != met {
		b.Errorf("the follower met %d changes up to %v; %d were acknowledged, head %v", met, at, len(seen), head)
	}
}

// readersAndWriter: a look-up is a snapshot. It never shows half a change, nor
// anything older than what was acknowledged before it began.
func readersAndWriter(b *bench) {
	b.put(key("a"))
	b.put(key("b"))
	var acknowledged atomic.Int64
	acknowledged.Store(int64(b.head().Revision))
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				floor := keystore.Revision(acknowledged.Load())
				r, at, err := b.store.Lookup(b.Context(), keystore.LookupID(access("a")))
				if err != nil || at < floor || r.Revision > at || r.ID != "key_a" {
					b.Errorf("Lookup: revision %d as of %d, acknowledged %d: %v", r.Revision, at, floor, err)
					return
				}
				if r.Deactivated != r.Blocked {
					b.Error("a look-up saw half a change")
					return
				}
				if _, err := b.store.List(b.Context(), keystore.Query{Limit: 10}); err != nil {
					b.Errorf("List: %v", err)
					return
				}
			}
		})
	}
	for range 40 {
		revision := b.transact(func(tx keystore.Tx) error {
			for _, id := range []keystore.KeyID{"key_a", "key_b"} {
				r, err := tx.Key(id)
				if err != nil {
					return err
				}
				r.Deactivated, r.Blocked = !r.Deactivated, !r.Blocked
				if err := tx.PutKey(&r); err != nil {
					return err
				}
			}
			return nil
		})
		acknowledged.Store(int64(revision))
	}
	close(stop)
	group.Wait()
}

// readDuringWrite: no kind of read waits for an open transaction, nor sees it.
func readDuringWrite(b *bench) {
	b.put(key("a"))
	before := b.head()
	b.transact(func(tx keystore.Tx) error {
		r := key("b")
		if err := tx.PutKey(&r); err != nil {
			return err
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.absent("key_b")
			b.list(keystore.Query{Limit: 5})
			if head := b.head(); head != before {
				b.Errorf("head %v during a transaction, was %v", head, before)
			}
			b.changes(before, 5)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			b.Error("reads wait for a transaction")
		}
		return nil
	})
}
