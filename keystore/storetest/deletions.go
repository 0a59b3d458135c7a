package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// deletions: organizations and documents go, and the log says so.
func deletions(t *testing.T, h Harness) {
	t.Run("Organization", func(t *testing.T) { deleteOrganization(open(t, h)) })
	t.Run("Document", func(t *testing.T) { deleteDocument(open(t, h)) })
	t.Run("Documents", func(t *testing.T) { documentsOfKind(open(t, h)) })
	t.Run("Rollback", func(t *testing.T) { deletionsRollback(open(t, h)) })
}

func deleteOrganization(b *bench) {
	remove := func(tx keystore.Tx) error { return tx.DeleteOrganization("acme") }
	b.refused(keystore.ErrOrganizationNotFound, remove)
	first := b.organization("acme")
	owned := key("owned")
	owned.Organization = "acme"
	b.put(owned)
	b.refused(keystore.ErrOrganizationInUse, remove)
	b.organizationIs(first)
	b.refused(keystore.ErrOrganizationInUse, func(tx keystore.Tx) error { // by a key of the same transaction
		second := key("second")
		second.Organization = "acme"
		return errors.Join(tx.DeleteKey("key_owned"), tx.PutKey(&second), remove(tx))
	})
	b.update("key_owned", func(r *keystore.Record) { r.Organization = keystore.DefaultOrganization }) // to another owner
	before := b.head()
	revision := b.transact(remove)
	if c := b.one(before); c.Kind != keystore.KindOrganization || c.Name != "acme" || c.Organization != nil || c.Revision != revision || c.Key != nil || c.Document != nil {
		b.Errorf("the change of a deletion: %+v", c)
	}
	if organizations := b.snapshot().Organizations; len(organizations) != 1 || organizations[0].Slug != keystore.DefaultOrganization {
		b.Errorf("Snapshot: %+v", organizations)
	}
	b.refused(keystore.ErrOrganizationNotFound, remove)
	b.refused(keystore.ErrOrganizationNotFound, func(tx keystore.Tx) error { first.Metadata = "{}"; return tx.PutOrganization(&first) })
	stray := key("stray")
	stray.Organization = "acme"
	b.refused(keystore.ErrOrganizationNotFound, func(tx keystore.Tx) error { return tx.PutKey(&stray) })

	again := b.organization("acme")
	if again.Number <= first.Number || again.Revision != b.head().Revision {
		b.Errorf("made again: %+v, was %+v", again, first)
	}
	b.organizationIs(again)
	b.put(stray)
	// A transaction may take the keys along, and begin anew.
	b.transact(func(tx keystore.Tx) error {
		return errors.Join(tx.DeleteKey(stray.ID), remove(tx), tx.PutOrganization(&keystore.Organization{Slug: "acme"}), remove(tx))
	})
	b.refused(keystore.ErrOrganizationNotFound, remove)
}

func deleteDocument(b *bench) {
	d := keystore.Document{Kind: keystore.KindPermission, Name: "perm_a", Body: []byte("body")}
	twin := keystore.Document{Kind: "demo", Name: "perm_a", Body: []byte("another kind, same name")}
	b.transact(func(tx keystore.Tx) error { return errors.Join(tx.PutDocument(&d), tx.PutDocument(&twin)) })
	before := b.head()
	for _, name := range []string{"perm_b", "", "perm_"} {
		if revision := b.transact(func(tx keystore.Tx) error { return tx.DeleteDocument(keystore.KindPermission, name) }); revision != before.Revision || b.head() != before {
			b.Errorf("deleting %q, which is not there, made revision %d", name, revision)
		}
	}
	revision := b.transact(func(tx keystore.Tx) error {
		err := tx.DeleteDocument(keystore.KindPermission, "perm_a")
		if got, readErr := tx.Document(keystore.KindPermission, "perm_a"); got.Revision != 0 || len(got.Body) != 0 {
			b.Errorf("own deletion: %+v %v", got, readErr)
		}
		return errors.Join(err, tx.DeleteDocument(keystore.KindPermission, "perm_a")) // a second time
	})
	if c := b.one(before); c.Kind != keystore.KindPermission || c.Name != "perm_a" || c.Document != nil || c.Revision != revision {
		b.Errorf("the change of a deletion: %+v", c)
	}
	if got := b.snapshot().Documents; len(got) != 1 || got[0].Kind != twin.Kind || got[0].Revision != twin.Revision || !bytes.Equal(got[0].Body, twin.Body) {
		b.Errorf("Snapshot: %+v", got)
	}
	last := d.Revision
	b.transact(func(tx keystore.Tx) error { return tx.PutDocument(&d) })
	if d.Revision <= last || b.one(keystore.Position{Revision: revision, Mark: b.markOf(before, revision)}).Document == nil {
		b.Errorf("made again: %+v", d)
	}
}

// markOf returns the mark of a revision after a position.
func (b *bench) markOf(after keystore.Position, revision keystore.Revision) keystore.Mark {
	b.Helper()
	for _, c := range b.changes(after, 100).Changes {
		if c.Revision == revision {
			return c.Mark
		}
	}
	b.Fatalf("revision %d is not in the log", revision)
	return 0
}

// documentsOfKind: in the order of their names, byte by byte, as the
// transaction has left them, and of no other kind.
func documentsOfKind(b *bench) {
	expect := func(tx keystore.Tx, kind keystore.Kind, want ...string) {
		b.Helper()
		documents, err := tx.Documents(kind)
		var got []string
		for _, d := range documents {
			got = append(got, d.Name)
			if d.Kind != kind || d.Revision == 0 || string(d.Body) != "body of "+d.Name {
				b.Errorf("document %+v", d)
			}
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			b.Errorf("Documents(%s): %q %v, want %q", kind, got, err, want)
		}
	}
	put := func(tx keystore.Tx, kind keystore.Kind, names ...string) error {
		for _, name := range names {
			if err := tx.PutDocument(&keystore.Document{Kind: kind, Name: name, Body: []byte("body of " + name)}); err != nil {
				return err
			}
		}
		return nil
	}
	b.transact(func(tx keystore.Tx) error {
		expect(tx, "demo")
		return errors.Join(put(tx, "demo", "b", "a", "ä", "B", "a1"), put(tx, "demo2", "c"), put(tx, "dem", "d"))
	})
	b.transact(func(tx keystore.Tx) error {
		expect(tx, "demo", "B", "a", "a1", "b", "ä")
		expect(tx, "demo2", "c")
		expect(tx, "none")
		if err := errors.Join(put(tx, "demo", "aa"), tx.DeleteDocument("demo", "b")); err != nil {
			return err
		}
		expect(tx, "demo", "B", "a", "a1", "aa", "ä")
		return nil
	})
}

// deletionsRollback: what a refused transaction deleted is there.
func deletionsRollback(b *bench) {
	b.organization("acme")
	b.transact(func(tx keystore.Tx) error {
		return tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d", Body: []byte("body")})
	})
	before := b.snapshot()
	sentinel := errors.New("fn's own")
	b.refused(sentinel, func(tx keystore.Tx) error {
		if err := errors.Join(tx.DeleteOrganization("acme"), tx.DeleteDocument("demo", "d")); err != nil {
			b.Errorf("deleting: %v", err)
		}
		if _, err := tx.Organization("acme"); !errors.Is(err, keystore.ErrOrganizationNotFound) {
			b.Errorf("own deletion: %v", err)
		}
		return sentinel
	})
	if after := b.snapshot(); fmt.Sprint(after) != fmt.Sprint(before) {
		b.Errorf("got %+v\nwant %+v", after, before)
	}
}
