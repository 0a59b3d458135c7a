package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func transact(t *testing.T, h Harness) {
	t.Run("Nothing", func(t *testing.T) { transactNothing(open(t, h)) })
	t.Run("Rollback", func(t *testing.T) { transactRollback(open(t, h)) })
	t.Run("Several", func(t *testing.T) { transactSeveral(open(t, h)) })
	t.Run("Equal", func(t *testing.T) { transactEqual(open(t, h)) })
	t.Run("Panic", func(t *testing.T) { transactPanic(open(t, h)) })
}

// transactNothing: what writes nothing returns the head.
func transactNothing(b *bench) {
	b.put(key("a"))
	head := b.head()
	revision := b.transact(func(tx keystore.Tx) error { _, err := tx.Key("key_a"); return err })
	if revision != head.Revision || b.head() != head {
		b.Errorf("reading only: revision %d, head %v, was %v", revision, b.head(), head)
	}
}

// transactRollback: the error of fn comes back as it is, and all it put is
// gone, whatever kind it was.
func transactRollback(b *bench) {
	kept := b.put(key("kept"))
	before := b.snapshot()
	sentinel := errors.New("fn's own")
	_, err := b.store.Transact(b.Context(), func(tx keystore.Tx) error {
		r, changed := key("new"), kept
		changed.Name = "renamed"
		err := errors.Join(
			tx.PutKey(&r), tx.PutKey(&changed),
			tx.PutOrganization(&keystore.Organization{Slug: "acme"}),
			tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d", Body: []byte("x")}),
			tx.PutReply(keystore.Reply{ID: keystore.ReplyID{1}, Created: keystore.InstantOf(start)}),
			tx.DeleteKey("key_kept"),
		)
		if err != nil {
			b.Errorf("putting: %v", err)
		}
		return sentinel
	})
	if err != sentinel {
		b.Errorf("fn's error came back as %v", err)
	}
	b.absent("key_new")
	b.absent(keystore.LookupID(access("new")))
	b.found("key_kept", kept)
	if after := b.snapshot(); fmt.Sprint(after) != fmt.Sprint(before) {
		b.Errorf("a refused transaction left\n%+v\nwas\n%+v", after, before)
	}
	b.transact(func(tx keystore.Tx) error {
		if _, kept, err := tx.Reply(keystore.ReplyID{1}); kept || err != nil {
			b.Errorf("reply of a refused transaction: %v %v", kept, err)
		}
		return nil
	})
}

// transactSeveral: a transaction reads its own writes, nobody else does, and
// each write has a revision of its own, in order, of which the last returns.
func transactSeveral(b *bench) {
	before := b.head()
	var written []keystore.Revision
	last := b.transact(func(tx keystore.Tx) error {
		written = written[:0]
		for n := range 3 {
			r := key(fmt.Sprint("s", n))
			if err := tx.PutKey(&r); err != nil {
				return err
			}
			written = append(written, r.Revision)
			if got, err := tx.Key(r.ID); err != nil || got != r {
				b.Errorf("own write: got %+v %v, want %+v", got, err, r)
			}
		}
		b.absent("key_s0")
		if err := tx.DeleteKey("key_s1"); err != nil {
			return err
		}
		if _, err := tx.Key("key_s1"); !errors.Is(err, keystore.ErrKeyNotFound) {
			b.Errorf("own deletion: %v", err)
		}
		return nil
	})
	written = append(written, last)
	for i, r := range written {
		if r <= before.Revision || i > 0 && r <= written[i-1] {
			b.Errorf("revisions %v do not ascend from %d", written, before.Revision)
		}
	}
	batch := b.changes(before, 10)
	if len(batch.Changes) != len(written) || batch.Head.Revision != last {
		b.Fatalf("log of the transaction: %+v, want revisions %v", batch, written)
	}
	for i, c := range batch.Changes {
		if c.Revision != written[i] {
			b.Errorf("row %d has revision %d, want %d", i, c.Revision, written[i])
		}
	}
}

// transactEqual: writing what is stored makes no revision, but names the one
// that is.
func transactEqual(b *bench) {
	stored := b.put(key("a"))
	head := b.head()
	again := stored
	again.Revision = 0
	if revision := b.transact(func(tx keystore.Tx) error { return tx.PutKey(&again) }); revision != head.Revision {
		b.Errorf("an equal record: revision %d, head %v", revision, head)
	}
	if again != stored || b.head() != head {
		b.Errorf("an equal record was written: %+v, head %v, was %v", again, b.head(), head)
	}
}

// transactPanic: a panicking fn leaves nothing, and the store usable.
func transactPanic(b *bench) {
	func() {
		defer func() { _ = recover() }()
		_, _ = b.store.Transact(b.Context(), func(tx keystore.Tx) error {
			r := key("a")
			_ = tx.PutKey(&r)
			panic("fn panics")
		})
	}()
	b.absent("key_a")
	b.put(key("a"))
}

func organizations(t *testing.T, h Harness) {
	b := open(t, h)
	acme := b.organization("acme")
	if acme.Number == 0 || acme.Revision != b.head().Revision {
		t.Errorf("a new organization: %+v", acme)
	}
	b.refused(keystore.ErrOrganizationExists, func(tx keystore.Tx) error {
		return tx.PutOrganization(&keystore.Organization{Slug: "acme"})
	})
	b.refused(keystore.ErrOrganizationNotFound, func(tx keystore.Tx) error { _, err := tx.Organization("none"); return err })
	stray := key("stray")
	stray.Organization = "none"
	b.refused(keystore.ErrOrganizationNotFound, func(tx keystore.Tx) error { return tx.PutKey(&stray) })

	// No scope allowed is something else than no restriction.
	acme.AllowedScopes = []string{}
	b.transact(func(tx keystore.Tx) error { return tx.PutOrganization(&acme) })
	b.organizationIs(acme)
	head := b.head()
	b.transact(func(tx keystore.Tx) error { return tx.PutOrganization(&acme) })
	if b.head() != head {
		t.Error("an equal organization was written")
	}
	acme.AllowedScopes = nil
	b.transact(func(tx keystore.Tx) error { return tx.PutOrganization(&acme) })
	b.organizationIs(acme)
}

func documents(t *testing.T, h Harness) {
	b := open(t, h)
	ring := keystore.Document{Kind: keystore.KindSigningRing, Name: "ring", Body: []byte{0, 1, 0xff, 0}}
	b.transact(func(tx keystore.Tx) error {
		d, err := tx.Document(keystore.KindSigningRing, "ring")
		if d.Revision != 0 || len(d.Body) != 0 {
			t.Errorf("an absent document: %+v", d)
		}
		return errors.Join(err, tx.PutDocument(&ring))
	})
	other := keystore.Document{Kind: "demo", Name: "ring", Body: []byte("another kind, same name")}
	b.transact(func(tx keystore.Tx) error { return tx.PutDocument(&other) })
	first := ring.Revision
	ring.Body = bytes.Repeat([]byte("long"), 10_000)
	b.transact(func(tx keystore.Tx) error { return tx.PutDocument(&ring) })
	if ring.Revision <= first {
		t.Errorf("writing a document again: revision %d after %d", ring.Revision, first)
	}
	b.transact(func(tx keystore.Tx) error {
		got, err := tx.Document(ring.Kind, ring.Name)
		if err != nil || !bytes.Equal(got.Body, ring.Body) || got.Revision != ring.Revision || got.Kind != ring.Kind || got.Name != ring.Name {
			t.Errorf("Document: %d bytes, revision %d, %v", len(got.Body), got.Revision, err)
		}
		return nil
	})
	found := map[keystore.Kind]keystore.Document{}
	for _, d := range b.snapshot().Documents {
		found[d.Kind] = d
	}
	if len(found) != 2 || !bytes.Equal(found[ring.Kind].Body, ring.Body) || found["demo"].Revision != other.Revision {
		t.Errorf("Snapshot: %d documents", len(found))
	}
	t.Run("Deleted", func(t *testing.T) { documentsDeleted(&bench{t, b.store, nil}, ring, other) })
}

// documentsDeleted: what is deleted is gone for its own transaction and for
// everybody after it, and nothing else is.
func documentsDeleted(b *bench, gone, kept keystore.Document) {
	remove := func(tx keystore.Tx) error { return tx.DeleteDocument(gone.Kind, gone.Name) }
	before := b.snapshot()
	sentinel := errors.New("fn's own")
	b.refused(sentinel, func(tx keystore.Tx) error { return errors.Join(remove(tx), sentinel) })
	if after := b.snapshot(); fmt.Sprint(after) != fmt.Sprint(before) {
		b.Errorf("a refused deletion left\n%+v\nwas\n%+v", after, before)
	}
	b.transact(func(tx keystore.Tx) error {
		if err := remove(tx); err != nil {
			return err
		}
		if d, err := tx.Document(gone.Kind, gone.Name); err != nil || d.Revision != 0 || len(d.Body) != 0 {
			b.Errorf("own deletion: %+v, %v", d, err)
		}
		return nil
	})
	if docs := b.snapshot().Documents; len(docs) != 1 || docs[0].Kind != kept.Kind {
		b.Errorf("after a deletion: %d documents", len(docs))
	}
	head := b.head()
	if revision := b.transact(remove); revision != head.Revision || b.head() != head {
		b.Errorf("deleting what is gone: revision %d, head %v, was %v", revision, b.head(), head)
	}
	again := keystore.Document{Kind: gone.Kind, Name: gone.Name, Body: []byte("again")}
	b.transact(func(tx keystore.Tx) error { return tx.PutDocument(&again) })
	if again.Revision <= head.Revision {
		b.Errorf("put again: revision %d after %d", again.Revision, head.Revision)
	}
}

func replies(t *testing.T, h Harness) {
	b := open(t, h)
	at := func(n byte, created time.Time) keystore.Reply {
		return keystore.Reply{
			ID: keystore.ReplyID{n, 31: n}, Request: [32]byte{n, 7}, Key: keystore.KeyID(fmt.Sprint("key_", n)),
			Sealed: []byte{n, 0, n}, Created: keystore.InstantOf(created),
		}
	}
	put := func(r keystore.Reply) {
		t.Helper()
		b.transact(func(tx keystore.Tx) error { return tx.PutReply(r) })
	}
	expect := func(want keystore.Reply, kept bool, sealed bool) {
		t.Helper()
		b.transact(func(tx keystore.Tx) error {
			got, ok, err := tx.Reply(want.ID)
			if ok != kept || err != nil {
				t.Fatalf("reply %d: kept %v, want %v (%v)", want.ID[0], ok, kept, err)
			}
			if !sealed {
				want.Sealed = nil
			}
			if !kept {
				want = keystore.Reply{}
			}
			if got.ID != want.ID || got.Request != want.Request || got.Key != want.Key || got.Created != want.Created ||
				!bytes.Equal(got.Sealed, want.Sealed) {
				t.Errorf("reply: got %+v, want %+v", got, want)
			}
			return nil
		})
	}
	first := at(1, start)
	head := b.head()
	put(first)
	if b.head() != head {
		t.Error("a reply is in the log")
	}
	expect(first, true, true)
	expect(at(9, start), false, false)
	put(at(2, start.Add(keystore.ReplaySecretLife))) // as old as may be, not older
	expect(first, true, true)
	put(at(3, start.Add(keystore.ReplaySecretLife+time.Microsecond)))
	expect(first, true, false)
	expect(at(2, start.Add(keystore.ReplaySecretLife)), true, true)
	put(at(4, start.Add(keystore.ReplayLife)))
	expect(first, true, false)
	put(at(5, start.Add(keystore.ReplayLife+time.Microsecond)))
	expect(first, false, false)
	expect(at(2, start.Add(keystore.ReplaySecretLife)), true, false)

	r := key("with-reply")
	b.transact(func(tx keystore.Tx) error { return errors.Join(tx.PutReply(at(6, start)), tx.PutKey(&r)) })
	b.found(keystore.LookupID(r.ID), r)
	expect(at(6, start), true, true)
}

func contexts(t *testing.T, h Harness) {
	b := open(t, h)
	b.put(key("a"))
	head := b.head()
	for name, end := range map[string]func() (context.Context, error){
		"Canceled": func() (context.Context, error) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, context.Canceled
		},
		"Deadline": func() (context.Context, error) {
			ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
			t.Cleanup(cancel)
			return ctx, context.DeadlineExceeded
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, want := end()
			_, _, lookupErr := b.store.Lookup(ctx, "key_a")
			_, listErr := b.store.List(ctx, keystore.Query{Limit: 1})
			_, changesErr := b.store.Changes(ctx, head, 1)
			_, snapshotErr := b.store.Snapshot(ctx)
			_, transactErr := b.store.Transact(ctx, func(keystore.Tx) error { return nil })
			_, countErr := b.store.Count(ctx, keystore.Query{})
			_, auditErr := b.store.Audit(ctx, keystore.AuditQuery{Limit: 1})
			_, usageErr := b.store.Usage(ctx, keystore.UsageQuery{FromDay: 1, ToDay: 1})
			_, lastErr := b.store.LastUsed(ctx, []keystore.KeyID{"key_a"})
			addErr := b.store.AddUsage(ctx, keystore.UsageBatch{})
			for what, err := range map[string]error{
				"Lookup": lookupErr, "List": listErr, "Changes": changesErr, "Snapshot": snapshotErr, "Transact": transactErr,
				"Count": countErr, "Audit": auditErr, "Usage": usageErr, "LastUsed": lastErr, "AddUsage": addErr,
			} {
				if !errors.Is(err, want) {
					t.Errorf("%s: got %v, want %v", what, err, want)
				}
			}
		})
	}
	t.Run("Within", func(t *testing.T) { canceledWithin(&bench{t, b.store, nil}) })
	t.Run("Waiting", func(t *testing.T) { canceledWaiting(&bench{t, b.store, nil}) })
	b.update("key_a", func(r *keystore.Record) { r.Blocked = true }) // still at work
}

// canceledWithin: a context that ends inside of fn leaves nothing, though fn
// itself goes on and returns nil.
func canceledWithin(b *bench) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	before := b.head()
	_, err := b.store.Transact(ctx, func(tx keystore.Tx) error {
		first, second := key("w1"), key("w2")
		if err := tx.PutKey(&first); err != nil {
			b.Errorf("before: %v", err)
		}
		cancel()
		if err := tx.PutKey(&second); !errors.Is(err, context.Canceled) {
			b.Errorf("after: %v", err)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		b.Errorf("Transact: %v", err)
	}
	b.absent("key_w1")
	b.absent("key_w2")
	if b.head() != before {
		b.Error("a cancelled transaction moved the head")
	}
}

// canceledWaiting: who waits for the writer's position can give up.
func canceledWaiting(b *bench) {
	held, release := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		_, _ = b.store.Transact(b.Context(), func(keystore.Tx) error { close(held); <-release; return nil })
	})
	<-held
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := b.store.Transact(ctx, func(keystore.Tx) error { b.Error("two writers at once"); return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		b.Errorf("waiting: %v", err)
	}
	close(release)
	done.Wait()
}
