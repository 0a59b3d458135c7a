// Package storetest is the contract of keystore.Store as a test suite. A
// driver is right when it passes unchanged:
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, storetest.Harness{Open: open})
//	}
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Harness is what the suite needs to know about a driver.
type Harness struct {
	// Open returns a new, empty store, and a function that opens the same
	// store again after it was closed. The harness closes what is open when
	// the test ends.
	Open func(t *testing.T) (store keystore.Store, reopen func() keystore.Store)

	// LogKept is how many rows the log keeps at least; older ones are gone at
	// the latest after twice as many. Zero: it is never pruned. Set it low, for
	// the suite writes that many.
	LogKept int

	// Shared says that several processes may have the store open: then it is a
	// keystore.Registry and Notifier too, and the function that Open returns
	// opens it beside what is open already.
	Shared bool
}

// Run checks every promise of package keystore's store.go.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Fresh", fresh}, {"Lookup", lookup}, {"Fields", fields}, {"List", list}, {"Queries", queries}, {"Limits", limits},
		{"Transact", transact}, {"Names", names}, {"Numbers", numbers},
		{"Organizations", organizations}, {"Documents", documents}, {"Deletions", deletions},
		{"Audit", audit}, {"Usage", usage},
		{"Changes", changes}, {"Positions", positions}, {"Replies", replies},
		{"Contexts", contexts}, {"Concurrency", concurrency}, {"Reopen", reopened},
		{"Registry", registry}, {"Notifier", notifier},
	} {
		t.Run(group.name, func(t *testing.T) { group.run(t, h) })
	}
}

// bench is one open store with the calls of the suite, each of which ends the
// test when it fails.
type bench struct {
	*testing.T
	store  keystore.Store
	reopen func() keystore.Store
}

func open(t *testing.T, h Harness) *bench {
	t.Helper()
	store, reopen := h.Open(t)
	return &bench{t, store, reopen}
}

// start is the moment at which the suite's records are made.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// access returns a made-up access key in the right form, another for each name.
func access(name string) keystore.AccessKey {
	return keystore.AccessKey((name + "x" + strings.Repeat("0", 22))[:22])
}

func secret(n byte) keystore.Digest { return keystore.Digest{n, 1: 0xd1, 31: n} }

// key returns a record that has all it needs.
func key(name string) keystore.Record {
	return keystore.Record{
		ID: keystore.KeyID("key_" + name), Organization: keystore.DefaultOrganization,
		Type: keystore.TypeStandard, Created: keystore.InstantOf(start),
		Current: keystore.Pair{Generation: 1, AccessKey: access(name), Digest: secret(1)},
	}
}

func (b *bench) transact(fn func(keystore.Tx) error) keystore.Revision {
	b.Helper()
	revision, err := b.store.Transact(b.Context(), fn)
	if err != nil {
		b.Fatalf("Transact: %v", err)
	}
	return revision
}

// refused runs fn and demands that Transact returns an error that is want.
func (b *bench) refused(want error, fn func(keystore.Tx) error) {
	b.Helper()
	before := b.head()
	if _, err := b.store.Transact(b.Context(), fn); !errors.Is(err, want) {
		b.Fatalf("Transact: got %v, want %v", err, want)
	}
	if after := b.head(); after != before {
		b.Fatalf("a refused transaction moved the head from %v to %v", before, after)
	}
}

// put writes the record as it is and returns it as the store completed it.
func (b *bench) put(r keystore.Record) keystore.Record {
	b.Helper()
	b.transact(func(tx keystore.Tx) error { return tx.PutKey(&r) })
	return r
}

// update changes the stored key as a management verb does.
func (b *bench) update(id keystore.KeyID, change func(*keystore.Record)) keystore.Record {
	b.Helper()
	var r keystore.Record
	b.transact(func(tx keystore.Tx) (err error) {
		if r, err = tx.Key(id); err != nil {
			return err
		}
		change(&r)
		return tx.PutKey(&r)
	})
	return r
}

func (b *bench) delete(id keystore.KeyID) {
	b.Helper()
	b.transact(func(tx keystore.Tx) error { return tx.DeleteKey(id) })
}

func (b *bench) organization(slug string) keystore.Organization {
	b.Helper()
	o := keystore.Organization{Slug: slug, Created: keystore.InstantOf(start)}
	b.transact(func(tx keystore.Tx) error { return tx.PutOrganization(&o) })
	return o
}

func (b *bench) lookup(id keystore.LookupID) (keystore.Record, keystore.Revision) {
	b.Helper()
	r, at, err := b.store.Lookup(b.Context(), id)
	if err != nil {
		b.Fatalf("Lookup(%s): %v", id, err)
	}
	return r, at
}

// found demands that id leads to exactly this record.
func (b *bench) found(id keystore.LookupID, want keystore.Record) {
	b.Helper()
	if got, _ := b.lookup(id); got != want {
		b.Fatalf("Lookup(%s):\n got %+v\nwant %+v", id, got, want)
	}
}

// absent demands that id leads to nothing.
func (b *bench) absent(id keystore.LookupID) {
	b.Helper()
	b.found(id, keystore.Record{})
}

func (b *bench) list(q keystore.Query) keystore.Page {
	b.Helper()
	page, err := b.store.List(b.Context(), q)
	if err != nil {
		b.Fatalf("List(%+v): %v", q, err)
	}
	return page
}

func (b *bench) snapshot() keystore.Snapshot {
	b.Helper()
	snap, err := b.store.Snapshot(b.Context())
	if err != nil {
		b.Fatalf("Snapshot: %v", err)
	}
	return snap
}

func (b *bench) head() keystore.Position {
	b.Helper()
	return b.snapshot().Head
}

func (b *bench) changes(after keystore.Position, limit int) keystore.Batch {
	b.Helper()
	batch, err := b.store.Changes(b.Context(), after, limit)
	if err != nil {
		b.Fatalf("Changes(%v): %v", after, err)
	}
	return batch
}

// one returns the only change after a position.
func (b *bench) one(after keystore.Position) keystore.Change {
	b.Helper()
	batch := b.changes(after, 10)
	if len(batch.Changes) != 1 || batch.Changes[0].Position != batch.Head {
		b.Fatalf("Changes(%v): want one, up to the head, got %+v", after, batch)
	}
	return batch.Changes[0]
}

func fresh(t *testing.T, h Harness) {
	b := open(t, h)
	snap := b.snapshot()
	if snap.Head.Revision < 1 {
		b.Errorf("a fresh store has head %v", snap.Head)
	}
	if batch := b.changes(snap.Head, 10); len(batch.Changes) != 0 || batch.Head != snap.Head {
		b.Errorf("after the head of a fresh store: %+v", batch)
	}
	if len(snap.Organizations) != 1 || snap.Organizations[0].Slug != keystore.DefaultOrganization {
		b.Fatalf("organizations of a fresh store: %+v", snap.Organizations)
	}
	o := snap.Organizations[0]
	if o.AllowedScopes != nil || o.DefaultExpiry != 0 || o.MaximumExpiry != 0 || o.Number == 0 || o.Revision == 0 {
		b.Errorf("the default organization restricts: %+v", o)
	}
	if len(snap.Documents) != 0 {
		b.Errorf("documents of a fresh store: %+v", snap.Documents)
	}
	if page := b.list(keystore.Query{Limit: 1}); len(page.Records) != 0 || page.More {
		b.Errorf("keys of a fresh store: %+v", page)
	}
}

// reopened writes one of everything, closes the store and finds it again.
func reopened(t *testing.T, h Harness) {
	b := open(t, h)
	if b.reopen == nil {
		t.Skip("the harness cannot open a store again")
	}
	stored := b.put(key("kept"))
	b.put(key("gone"))
	b.delete("key_gone")
	reply := keystore.Reply{ID: keystore.ReplyID{1}, Key: "key_kept", Sealed: []byte("s"), Created: keystore.InstantOf(start)}
	b.transact(func(tx keystore.Tx) error {
		return errors.Join(tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d", Body: []byte("body")}), tx.PutReply(reply))
	})
	before := b.snapshot()
	if err := b.store.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if _, _, err := b.store.Lookup(context.Background(), "key_kept"); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("Lookup on a closed store: %v", err)
	}
	if _, err := b.store.Transact(context.Background(), func(keystore.Tx) error { return nil }); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("Transact on a closed store: %v", err)
	}
	b.store = b.reopen()
	if after := b.snapshot(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("snapshot after opening again:\n got %+v\nwant %+v", after, before)
	}
	b.found("key_kept", stored)
	b.absent("key_gone")
	next := b.put(key("next"))
	if next.Number <= stored.Number+1 {
		t.Errorf("number %d was given again", next.Number)
	}
	if c := b.one(before.Head); c.Revision != before.Head.Revision+1 && c.Revision <= before.Head.Revision {
		t.Errorf("the head went from %v to %v", before.Head, c.Position)
	}
}
