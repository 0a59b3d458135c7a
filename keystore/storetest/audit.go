package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func audit(t *testing.T, h Harness) {
	t.Run("Fields", func(t *testing.T) { auditFields(open(t, h)) })
	t.Run("Filters", func(t *testing.T) { auditFilters(open(t, h)) })
	t.Run("Transaction", func(t *testing.T) { auditTransaction(open(t, h)) })
	t.Run("Kept", func(t *testing.T) { auditKept(open(t, h)) })
}

func (b *bench) append(entries ...keystore.AuditEntry) []keystore.AuditEntry {
	b.Helper()
	b.transact(func(tx keystore.Tx) error {
		for i := range entries {
			if err := tx.AppendAudit(&entries[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return entries
}

func (b *bench) audit(q keystore.AuditQuery) keystore.AuditPage {
	b.Helper()
	page, err := b.store.Audit(b.Context(), q)
	if err != nil {
		b.Fatalf("Audit(%+v): %v", q, err)
	}
	return page
}

// auditFields writes every field of an entry, one by one and all together.
func auditFields(b *bench) {
	var full keystore.AuditEntry
	all := leaves(reflect.TypeFor[keystore.AuditEntry](), "", nil)
	for n, l := range all {
		set(b.T, reflect.ValueOf(&full).Elem().FieldByIndex(l.index), l.name, n+1)
		one := keystore.AuditEntry{}
		set(b.T, reflect.ValueOf(&one).Elem().FieldByIndex(l.index), l.name, 100+n)
		for _, e := range []keystore.AuditEntry{full, one} {
			want := b.append(e)[0]
			if want.Number < 1 || want.Number == e.Number {
				b.Fatalf("%s: the entry has number %d", l.name, want.Number)
			}
			e.Number = want.Number
			if page := b.audit(keystore.AuditQuery{Limit: 1}); want != e || !slices.Equal(page.Entries, []keystore.AuditEntry{want}) {
				b.Errorf("%s: got %+v\nwant %+v", l.name, page.Entries, want)
			}
		}
	}
}

// auditFilters holds every filter, and pages of every size, against the
// entries themselves, the latest first.
func auditFilters(b *bench) {
	var all []keystore.AuditEntry
	for n := range 36 {
		e := keystore.AuditEntry{
			At: keystore.InstantOf(start) + keystore.Instant(n/4), Actor: fmt.Sprint("actor", n%3), Operation: fmt.Sprint("op", n%2),
			Object: fmt.Sprint("object", n%4), Organization: []string{"", "acme", "default"}[n/2%3], Kind: keystore.KindKey,
		}
		if n%5 == 0 {
			e.Refused = "forbidden"
		}
		all = append(b.append(e), all...)
	}
	yes, no := true, false
	for _, q := range []keystore.AuditQuery{
		{}, {Actor: "actor1"}, {Actor: "actor"}, {Operation: "op0"}, {Object: "object3"}, {Organization: "acme"}, {Organization: "none"},
		{Refused: &yes}, {Refused: &no}, {Since: all[18].At}, {Until: all[18].At}, {Since: all[20].At, Until: all[10].At},
		{Actor: "actor2", Operation: "op1"}, {Organization: "acme", Refused: &yes}, {Object: "object1", Since: all[20].At},
		{Organization: "default", Actor: "actor0", Operation: "op0", Object: "object0", Refused: &no, Since: 1, Until: all[0].At + 1},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(e keystore.AuditEntry) bool { return !auditSelects(q, e) })
		for _, limit := range []int{0, 1, 2, len(want), len(want) + 1, 100} {
			q.Limit = limit
			b.auditPages(q, want)
		}
	}
}

func auditSelects(q keystore.AuditQuery, e keystore.AuditEntry) bool {
	return (q.Organization == "" || q.Organization == e.Organization) && (q.Actor == "" || q.Actor == e.Actor) &&
		(q.Operation == "" || q.Operation == e.Operation) && (q.Object == "" || q.Object == e.Object) &&
		(q.Refused == nil || *q.Refused == (e.Refused != "")) &&
		(q.Since == 0 || e.At >= q.Since) && (q.Until == 0 || e.At < q.Until)
}

func (b *bench) auditPages(q keystore.AuditQuery, want []keystore.AuditEntry) {
	b.Helper()
	for rest := want; ; {
		page, n := b.audit(q), min(max(q.Limit, 1), len(rest))
		if !slices.Equal(page.Entries, rest[:n]) || page.More != (n < len(rest)) {
			b.Fatalf("Audit(%+v): %d entries, more %v; want %d of %d", q, len(page.Entries), page.More, n, len(rest))
		}
		if rest = rest[n:]; len(rest) == 0 {
			return
		}
		q.Before = page.Entries[n-1].Number
	}
}

// auditTransaction: an entry shares the fate of what it tells of, and is no
// part of the log of changes.
func auditTransaction(b *bench) {
	entry := keystore.AuditEntry{Actor: "local", Object: "key_a", Kind: keystore.KindKey}
	head := b.head()
	if entry = b.append(entry)[0]; b.head() != head {
		b.Error("an entry of the audit log is in the log of changes")
	}
	var refused keystore.AuditEntry
	sentinel := errors.New("fn's own")
	_, err := b.store.Transact(b.Context(), func(tx keystore.Tx) error {
		r := key("a")
		refused = keystore.AuditEntry{Actor: "refused"}
		if err := errors.Join(tx.PutKey(&r), tx.AppendAudit(&refused)); err != nil {
			b.Errorf("appending: %v", err)
		}
		if page := b.audit(keystore.AuditQuery{Limit: 10}); len(page.Entries) != 1 {
			b.Errorf("an entry is seen before its transaction commits: %+v", page)
		}
		return sentinel
	})
	if err != sentinel {
		b.Fatalf("Transact: %v", err)
	}
	if page := b.audit(keystore.AuditQuery{Limit: 10}); !slices.Equal(page.Entries, []keystore.AuditEntry{entry}) {
		b.Errorf("a refused transaction left its entry: %+v", page)
	}
	r, with := key("b"), keystore.AuditEntry{Actor: "local", Object: "key_b"}
	b.transact(func(tx keystore.Tx) error { return errors.Join(tx.AppendAudit(&with), tx.PutKey(&r)) })
	b.found("key_b", r)
	if page := b.audit(keystore.AuditQuery{Limit: 10}); with.Number <= entry.Number || !slices.Equal(page.Entries, []keystore.AuditEntry{with, entry}) {
		b.Errorf("entries: %+v, want %+v after %+v", page.Entries, with, entry)
	}
}

// auditKept: nothing that goes takes its entries along, and the end of the
// store's process neither.
func auditKept(b *bench) {
	b.organization("acme")
	r := key("a")
	r.Organization = "acme"
	b.put(r)
	kept := b.append(keystore.AuditEntry{Actor: "key_a", Object: "key_a", Organization: "acme"})
	b.delete("key_a")
	b.transact(func(tx keystore.Tx) error { return tx.DeleteOrganization("acme") })
	for _, q := range []keystore.AuditQuery{{Actor: "key_a"}, {Object: "key_a"}, {Organization: "acme"}} {
		if page := b.audit(q); !slices.Equal(page.Entries, kept) {
			b.Errorf("Audit(%+v) after all is gone: %+v", q, page)
		}
	}
	if b.reopen == nil {
		return
	}
	if err := b.store.Close(); err != nil {
		b.Fatalf("Close: %v", err)
	}
	b.store = b.reopen()
	next := b.append(keystore.AuditEntry{Actor: "local"})
	if page := b.audit(keystore.AuditQuery{Limit: 5}); !slices.Equal(page.Entries, append(next, kept...)) || next[0].Number <= kept[0].Number {
		b.Errorf("after opening again: %+v", page)
	}
}
