package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// queries holds what List, Count and Keys select, by every filter and in both
// directions, against the records themselves.
func queries(t *testing.T, h Harness) {
	b := open(t, h)
	b.organization("acme")
	var all []keystore.Record
	for n := range 30 {
		all = append(all, b.put(variedKey(n)))
	}
	// What changes, goes or comes back under its id is found by what it is now.
	for _, n := range []int{3, 4, 8, 12} {
		all[n] = b.update(all[n].ID, func(r *keystore.Record) {
			r.Permissions, r.Name = "perm_b perm_z", fmt.Sprint("renamed", n)
			r.Previous, r.Current.AccessKey = keystore.Pair{}, access(fmt.Sprint("moved", n))
		})
	}
	b.delete(all[6].ID)
	all = slices.Delete(all, 6, 7)
	t.Run("Filters", func(t *testing.T) { queryFilters(&bench{t, b.store, nil}, all) })
	t.Run("Pages", func(t *testing.T) { queryPages(&bench{t, b.store, nil}, all) })
	t.Run("Own", func(t *testing.T) { queryOwnWrites(&bench{t, b.store, nil}, all) })
}

// variedKey is one of many that differ in what can be asked for.
func variedKey(n int) keystore.Record {
	r := key(fmt.Sprint("query", n))
	r.Permissions = []keystore.PermissionSet{"", "perm_a", "perm_b", "perm_a perm_b", "perm_ab perm_b"}[n%5]
	r.Blocked = n%7 == 0
	if n%3 == 0 {
		r.Organization = "acme"
	}
	if n%4 != 0 {
		r.Name = fmt.Sprint("name", n)
	}
	if n == 9 {
		r.Name = "name5" // as another one, in another organization
	}
	switch n % 6 {
	case 1:
		r.Current.AccessKey = keystore.AccessKey("imported_" + fmt.Sprint(n))
	case 2:
		r.Previous = keystore.Pair{Generation: 9, AccessKey: keystore.AccessKey("imported_" + fmt.Sprint(n)), Digest: secret(9)}
	case 3: // beside the range of names on either side
		r.Current.AccessKey = keystore.AccessKey("imported`" + fmt.Sprint(n))
	case 4:
		r.Current.AccessKey = keystore.AccessKey("imported^" + fmt.Sprint(n))
	case 5:
		r.Current.AccessKey = keystore.AccessKey("Imported_" + fmt.Sprint(n))
	}
	return r
}

func selects(q keystore.Query, r *keystore.Record) bool {
	return (q.Organization == "" || q.Organization == r.Organization) &&
		(q.Name == "" || q.Name == r.Name) &&
		(q.Type == keystore.TypeUnknown || q.Type == r.Type) &&
		(q.State == keystore.StateUnknown || q.State == r.State(q.Now)) &&
		(q.Permission == "" || slices.Contains(r.Permissions.List(), q.Permission)) &&
		(!q.Imported || slices.ContainsFunc(r.Aliases(), keystore.IsImported))
}

func selected(q keystore.Query, all []keystore.Record) (out []keystore.Record) {
	for _, r := range all {
		if selects(q, &r) {
			out = append(out, r)
		}
	}
	return out
}

// everyQuery calls do with every combination of filters.
func everyQuery(do func(keystore.Query)) {
	for _, organization := range []string{"", "acme", "none"} {
		for _, name := range []string{"", "name1", "name5", "renamed3", "%"} {
			for _, permission := range []string{"", "perm_a", "perm_b", "perm_ab", "perm_z", "perm_", "perm_a perm_b"} {
				for _, state := range []keystore.State{keystore.StateUnknown, keystore.StateBlocked} {
					for _, imported := range []bool{false, true} {
						do(keystore.Query{
							Organization: organization, Name: name, Permission: permission,
							State: state, Now: start, Imported: imported, Limit: 100,
						})
					}
				}
			}
		}
	}
}

func queryFilters(b *bench, all []keystore.Record) {
	met := 0
	everyQuery(func(q keystore.Query) {
		want := selected(q, all)
		met += len(want)
		if got := b.list(q); !slices.Equal(got.Records, want) || got.More {
			b.Errorf("List(%+v): got %d keys (more: %v), want %d", q, len(got.Records), got.More, len(want))
		}
		q.After, q.Before, q.Limit = 5, 9, 1 // are not for Count
		if n, err := b.store.Count(b.Context(), q); err != nil || n != len(want) {
			b.Errorf("Count(%+v): got %d %v, want %d", q, n, err, len(want))
		}
	})
	if met < 100 {
		b.Errorf("the filters selected %d keys in all: too few to tell", met)
	}
}

// queryPages: from either end, pages of any size add up to the whole, each in
// ascending order, and each says whether there is more in its direction.
func queryPages(b *bench, all []keystore.Record) {
	for _, q := range []keystore.Query{{}, {Organization: "acme"}, {Permission: "perm_b"}, {Permission: "perm_b", Organization: "acme"}, {Imported: true}, {Name: "name5"}} {
		want := selected(q, all)
		if len(want) == 0 {
			b.Fatalf("%+v selects nothing", q)
		}
		for _, limit := range []int{0, 1, 2, len(want) - 1, len(want), len(want) + 1} {
			q.Limit = limit
			b.pagesForth(q, want)
			b.pagesBack(q, want)
		}
		first, last := want[0].Number, want[len(want)-1].Number
		for _, place := range []keystore.Query{{Before: first}, {After: last}, {After: first, Before: first + 1}} {
			q.After, q.Before = place.After, place.Before
			if page := b.list(q); len(page.Records) != 0 || page.More {
				b.Errorf("List(%+v): %d keys, more %v, want none", q, len(page.Records), page.More)
			}
		}
	}
	// With both, the page is the one after After, and ends before Before.
	low, high := all[4].Number, all[20].Number
	page := b.list(keystore.Query{After: low, Before: high, Limit: 3})
	if !slices.Equal(page.Records, all[5:8]) || !page.More {
		b.Errorf("between two keys: %d keys, more %v", len(page.Records), page.More)
	}
	page = b.list(keystore.Query{After: all[17].Number, Before: high, Limit: 3})
	if !slices.Equal(page.Records, all[18:20]) || page.More {
		b.Errorf("up to Before: %d keys, more %v", len(page.Records), page.More)
	}
}

func (b *bench) pagesForth(q keystore.Query, want []keystore.Record) {
	b.Helper()
	size := max(q.Limit, 1)
	for rest := want; len(rest) != 0; {
		n := min(size, len(rest))
		page := b.list(q)
		if !slices.Equal(page.Records, rest[:n]) || page.More != (n < len(rest)) {
			b.Fatalf("List(%+v): %d keys, more %v; want %d of %d", q, len(page.Records), page.More, n, len(rest))
		}
		rest, q.After = rest[n:], rest[n-1].Number
	}
}

func (b *bench) pagesBack(q keystore.Query, want []keystore.Record) {
	b.Helper()
	size := max(q.Limit, 1)
	q.Before = want[len(want)-1].Number + 1
	for rest := want; len(rest) != 0; {
		n := min(size, len(rest))
		page := b.list(q)
		if !slices.Equal(page.Records, rest[len(rest)-n:]) || page.More != (n < len(rest)) {
			b.Fatalf("List(%+v): %d keys, more %v; want the last %d of %d", q, len(page.Records), page.More, n, len(rest))
		}
		q.Before, rest = rest[len(rest)-n].Number, rest[:len(rest)-n]
	}
}

// queryOwnWrites: a transaction finds keys as it has left them, nobody else
// does, and after a refusal nobody.
func queryOwnWrites(b *bench, all []keystore.Record) {
	sentinel := errors.New("fn's own")
	_, err := b.store.Transact(b.Context(), func(tx keystore.Tx) error {
		everyQuery(func(q keystore.Query) {
			if page, err := tx.Keys(q); err != nil || !slices.Equal(page.Records, selected(q, all)) || page.More {
				b.Errorf("Keys(%+v): %d keys, %v", q, len(page.Records), err)
			}
		})
		return errors.Join(b.changeAndFind(tx, all), sentinel)
	})
	if !errors.Is(err, sentinel) {
		b.Errorf("Transact: %v", err)
	}
	if page := b.list(keystore.Query{Permission: "perm_own", Limit: 1}); len(page.Records) != 0 {
		b.Errorf("a refused transaction left %+v", page)
	}
	if page := b.list(keystore.Query{Permission: "perm_b", Limit: 100}); !slices.Equal(page.Records, selected(keystore.Query{Permission: "perm_b"}, all)) {
		b.Error("a refused transaction took permissions away")
	}
}

func (b *bench) changeAndFind(tx keystore.Tx, all []keystore.Record) error {
	b.Helper()
	own, changed, gone := key("own"), all[2], all[3]
	own.Permissions, changed.Permissions = "perm_own", "perm_own"
	changed.Current.AccessKey = access("changed")
	if err := errors.Join(tx.PutKey(&own), tx.PutKey(&changed), tx.DeleteKey(gone.ID)); err != nil {
		return err
	}
	page, err := tx.Keys(keystore.Query{Permission: "perm_own", Limit: 5})
	if err != nil || !slices.Equal(page.Records, []keystore.Record{changed, own}) || page.More {
		b.Errorf("own writes: %+v %v", page, err)
	}
	if page, err = tx.Keys(keystore.Query{Before: own.Number + 1, Limit: 1}); err != nil || !slices.Equal(page.Records, []keystore.Record{own}) || !page.More {
		b.Errorf("the last of them: %+v %v", page, err)
	}
	if n, err := b.store.Count(b.Context(), keystore.Query{}); err != nil || n != len(all) {
		b.Errorf("Count from outside: %d %v, want %d", n, err, len(all))
	}
	for id, want := range map[keystore.LookupID]keystore.Record{
		"key_own": own, keystore.LookupID(access("own")): own,
		keystore.LookupID(access("changed")): changed, keystore.LookupID(changed.ID): changed,
		keystore.LookupID(all[2].Current.AccessKey): {}, keystore.LookupID(gone.ID): {},
		keystore.LookupID(gone.Current.AccessKey): {}, "": {}, "key_none": {},
	} {
		got, err := tx.KeysFoundBy([]keystore.LookupID{id})
		if err != nil || want.ID == "" && len(got) != 0 || want.ID != "" && !slices.Equal(got, []keystore.Record{want}) {
			b.Errorf("KeysFoundBy(%s): %+v %v", id, got, err)
		}
	}
	several := []keystore.LookupID{"key_none", "key_own", keystore.LookupID(access("own")), keystore.LookupID(changed.ID), "key_own"}
	got, err := tx.KeysFoundBy(several)
	slices.SortFunc(got, func(x, y keystore.Record) int { return cmp.Compare(x.Number, y.Number) })
	want := []keystore.Record{own, changed}
	slices.SortFunc(want, func(x, y keystore.Record) int { return cmp.Compare(x.Number, y.Number) })
	if err != nil || !slices.Equal(got, want) {
		b.Errorf("KeysFoundBy(%v): %+v %v", several, got, err)
	}
	if got, err := tx.KeysFoundBy(nil); err != nil || len(got) != 0 {
		b.Errorf("KeysFoundBy(nothing): %+v %v", got, err)
	}
	return nil
}

// limits come back as they are; one that says nothing is refused, not kept.
func limits(t *testing.T, h Harness) {
	b := open(t, h)
	for n, text := range []string{"", "1/s", "100/m burst 200", "1000000/h burst 1", "7/d"} {
		limit, err := keystore.ParseLimit(text)
		if err != nil {
			t.Fatal(err)
		}
		r := key(fmt.Sprint("limit", n))
		r.Limit = limit
		r = b.put(r)
		b.found(keystore.LookupID(r.ID), r)
		o := keystore.Organization{Slug: fmt.Sprint("o", n), Limit: limit, Grace: time.Duration(n) * time.Second}
		b.transact(func(tx keystore.Tx) error { return tx.PutOrganization(&o) })
		b.organizationIs(o)
	}
	broken := keystore.Limit{Requests: 3, Burst: 1, Period: time.Millisecond}
	before := b.head()
	for what, put := range map[string]func(tx keystore.Tx) error{
		"key": func(tx keystore.Tx) error {
			r := key("broken")
			r.Limit = broken
			return tx.PutKey(&r)
		},
		"organization": func(tx keystore.Tx) error {
			return tx.PutOrganization(&keystore.Organization{Slug: "broken", Limit: broken})
		},
		"grace": func(tx keystore.Tx) error {
			return tx.PutOrganization(&keystore.Organization{Slug: "broken", Grace: 1500 * time.Millisecond})
		},
	} {
		if _, err := b.store.Transact(b.Context(), put); err == nil || b.head() != before {
			t.Errorf("%s: %v", what, err)
		}
	}
}
