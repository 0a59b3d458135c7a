package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func lookup(t *testing.T, h Harness) {
	b := open(t, h)
	first := b.put(key("first"))
	b.put(key("other"))

	b.found("key_first", first)
	b.found(keystore.LookupID(access("first")), first)
	for _, id := range []keystore.LookupID{"", "key_", "key_firs", "key_first ", "KEY_FIRST", "%", "key_' OR 1=1 --", "none", "\x00"} {
		b.absent(id)
	}
	if _, at := b.lookup("key_none"); at != b.head().Revision {
		b.Errorf("absence is as of revision %d, head %v", at, b.head())
	}
	if _, at := b.lookup("key_first"); at != b.head().Revision {
		b.Errorf("a record is as of revision %d, head %v", at, b.head())
	}

	regenerated := b.update("key_first", func(r *keystore.Record) {
		_ = r.Regenerate(access("second"), secret(2), 0)
	})
	b.found("key_first", regenerated)
	b.found(keystore.LookupID(access("first")), regenerated)
	b.found(keystore.LookupID(access("second")), regenerated)

	rotated := b.update("key_first", func(r *keystore.Record) { _ = r.Rotate(secret(3), time.Hour, start) })
	b.absent(keystore.LookupID(access("first")))
	b.found(keystore.LookupID(access("second")), rotated)

	b.delete("key_first")
	b.absent("key_first")
	b.absent(keystore.LookupID(access("second")))
	found, _ := b.lookup("key_other")
	b.found(keystore.LookupID(access("other")), found)
}

// leaf is one field of a struct, through nested ones.
type leaf struct {
	name  string
	index []int
}

// leaves finds every field by reflection, so that none can be forgotten.
func leaves(t reflect.Type, prefix string, index []int) []leaf {
	var out []leaf
	for i := range t.NumField() {
		f := t.Field(i)
		name, at := prefix+f.Name, append(slices.Clone(index), i)
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[keystore.Limit]() { // whose parts say nothing apart
			out = append(out, leaves(f.Type, name+".", at)...)
			continue
		}
		out = append(out, leaf{name, at})
	}
	return out
}

// set gives a field a value that no other call of set has given.
func set(t *testing.T, field reflect.Value, name string, n int) {
	switch field.Kind() {
	case reflect.Struct:
		field.Set(reflect.ValueOf(keystore.Limit{Requests: uint32(n), Burst: uint32(2 * n), Period: time.Hour}))
	case reflect.String:
		field.SetString(fmt.Sprintf("%s-ü-%d", name, n))
	case reflect.Bool:
		field.SetBool(!field.Bool())
	case reflect.Int, reflect.Int64:
		field.SetInt(int64(n) << 32)
	case reflect.Uint64:
		field.SetUint(uint64(n) << 32)
	case reflect.Array:
		reflect.Copy(field, reflect.ValueOf(slices.Repeat([]byte{byte(n)}, field.Len())))
	case reflect.Slice:
		field.Set(reflect.ValueOf([]string{"b", fmt.Sprint(n)}))
	default:
		t.Fatalf("field %s has kind %v, which the suite does not know", name, field.Kind())
	}
}

// fields writes every field of a record and of an organization: all at once,
// and each by itself, where it has to come back and to make a revision.
func fields(t *testing.T, h Harness) {
	t.Run("Record", func(t *testing.T) { recordFields(t, h) })
	t.Run("Organization", func(t *testing.T) { organizationFields(t, h) })
}

func recordFields(t *testing.T, h Harness) {
	b := open(t, h)
	b.organization("acme")
	var full keystore.Record
	change := func(r *keystore.Record, l leaf, n int) bool {
		switch l.name {
		case "ID":
			if r.ID == "" {
				r.ID = "key_full"
			}
		case "Number", "Revision": // the store's own
			return false
		case "Organization":
			r.Organization = "acme"
		case "Type":
			r.Type = keystore.TypeTrial
		case "Metadata":
			r.Metadata = fmt.Sprintf(`{"b":%d,"a":" "}`, n) // byte for byte, order and spaces too
		default:
			set(t, reflect.ValueOf(r).Elem().FieldByIndex(l.index), l.name, n)
		}
		return l.name != "ID"
	}
	all := leaves(reflect.TypeFor[keystore.Record](), "", nil)
	for n, l := range all {
		change(&full, l, n+1)
	}
	stored := b.put(full)
	full.Number, full.Revision = stored.Number, stored.Revision
	if stored != full {
		t.Fatalf("PutKey changed more than number and revision:\n got %+v\nwant %+v", stored, full)
	}
	b.found("key_full", full)

	for n, l := range all {
		plain := key(fmt.Sprint("field", n))
		plain = b.put(plain)
		changed := plain
		if !change(&changed, l, 100+n) {
			continue
		}
		want := b.put(changed)
		if want.Revision <= plain.Revision {
			t.Errorf("changing %s alone made no revision", l.name)
		}
		b.found(keystore.LookupID(plain.ID), want)
		changed.Revision = want.Revision
		if page := b.list(keystore.Query{After: plain.Number - 1, Limit: 1}); page.Records[0] != changed {
			t.Errorf("changing %s alone:\n got %+v\nwant %+v", l.name, page.Records[0], changed)
		}
	}
}

func organizationFields(t *testing.T, h Harness) {
	b := open(t, h)
	plain := b.organization("acme")
	for n, l := range leaves(reflect.TypeFor[keystore.Organization](), "", nil) {
		if l.name == "Slug" || l.name == "Number" || l.name == "Revision" {
			continue
		}
		if l.name == "Metadata" {
			plain.Metadata = `{"b":1,"a":" "}`
		} else {
			field := reflect.ValueOf(&plain).Elem().FieldByIndex(l.index)
			set(t, field, l.name, n+1)
			switch field.Interface().(type) {
			case keystore.Days:
				field.SetInt(int64(n + 1))
			case time.Duration:
				field.SetInt(int64(n+1) * int64(time.Second))
			}
		}
		before := plain.Revision
		b.transact(func(tx keystore.Tx) error { return tx.PutOrganization(&plain) })
		if plain.Revision <= before {
			t.Errorf("changing %s alone made no revision", l.name)
		}
		b.organizationIs(plain)
	}
}

// organizationIs reads it in all three ways there are.
func (b *bench) organizationIs(want keystore.Organization) {
	b.Helper()
	b.transact(func(tx keystore.Tx) error {
		if got, err := tx.Organization(want.Slug); err != nil || !reflect.DeepEqual(got, want) {
			b.Errorf("Organization:\n got %+v %v\nwant %+v", got, err, want)
		}
		return nil
	})
	at := slices.IndexFunc(b.snapshot().Organizations, func(o keystore.Organization) bool { return o.Slug == want.Slug })
	if got := b.snapshot().Organizations; at < 0 || !reflect.DeepEqual(got[at], want) {
		b.Errorf("Snapshot: got %+v, want %+v", got, want)
	}
}

func list(t *testing.T, h Harness) {
	b := open(t, h)
	b.organization("acme")
	var all []keystore.Record
	for n := range 48 {
		r := key(fmt.Sprint("list", n))
		r.Deactivated, r.Blocked = n&1 != 0, n&2 != 0
		if n%3 != 0 {
			r.Expires = keystore.InstantOf(start) + keystore.Instant(n/16)
		}
		if n%4 == 0 {
			r.Type = keystore.TypeTrial
		}
		if n%5 == 0 {
			r.Organization = "acme"
		}
		all = append(all, b.put(r))
	}
	t.Run("Order", func(t *testing.T) { listOrder(&bench{t, b.store, nil}, all) })
	t.Run("Filters", func(t *testing.T) { listFilters(&bench{t, b.store, nil}, all) })
}

func listOrder(b *bench, all []keystore.Record) {
	for _, limit := range []int{1, 5, 47, 48, 49} {
		var got []keystore.Record
		for more, after := true, keystore.Number(0); more; {
			page := b.list(keystore.Query{After: after, Limit: limit})
			if len(page.Records) > limit || len(page.Records) == 0 {
				b.Fatalf("limit %d: a page of %d", limit, len(page.Records))
			}
			got, more, after = append(got, page.Records...), page.More, page.Records[len(page.Records)-1].Number
		}
		if !slices.Equal(got, all) {
			b.Errorf("limit %d: pages do not add up to all keys in the order of their numbers", limit)
		}
	}
	if page := b.list(keystore.Query{After: all[len(all)-1].Number, Limit: 1}); len(page.Records) != 0 || page.More {
		b.Errorf("after the last key: %+v", page)
	}
}

// listFilters holds every combination of filters against Record.State.
func listFilters(b *bench, all []keystore.Record) {
	for _, organization := range []string{"", "acme", keystore.DefaultOrganization, "none"} {
		for typ := keystore.TypeUnknown; typ <= keystore.TypeTrial; typ++ {
			for state := keystore.StateUnknown; state <= keystore.StateActive; state++ {
				for micros := time.Duration(-2); micros <= 4; micros++ {
					// Between two instants as well: now is finer than they are.
					now := start.Add(micros*time.Microsecond + 300*time.Nanosecond)
					q := keystore.Query{Organization: organization, Type: typ, State: state, Now: now, Limit: 100}
					b.listsAs(q, all)
				}
			}
		}
	}
}

func (b *bench) listsAs(q keystore.Query, all []keystore.Record) {
	b.Helper()
	var want []keystore.Record
	for _, r := range all {
		if (q.Organization == "" || q.Organization == r.Organization) &&
			(q.Type == keystore.TypeUnknown || q.Type == r.Type) &&
			(q.State == keystore.StateUnknown || q.State == r.State(q.Now)) {
			want = append(want, r)
		}
	}
	if got := b.list(q); !slices.Equal(got.Records, want) || got.More {
		b.Errorf("%+v: got %d keys (more: %v), want %d", q, len(got.Records), got.More, len(want))
	}
}

// names are unique among the living keys of one organization, if not empty.
func names(t *testing.T, h Harness) {
	b := open(t, h)
	b.organization("acme")
	named := func(id, name string) keystore.Record {
		r := key(id)
		r.Name = name
		return r
	}
	b.put(named("a", "billing"))
	b.put(named("b", ""))
	b.put(named("c", ""))
	elsewhere := named("d", "billing")
	elsewhere.Organization = "acme"
	b.put(elsewhere)
	b.put(named("e", "Billing")) // names are compared byte for byte

	second := named("f", "billing")
	b.refused(keystore.ErrNameTaken, func(tx keystore.Tx) error { return tx.PutKey(&second) })
	if second.Number != 0 || second.Revision != 0 {
		t.Errorf("a refused record was given number %d, revision %d", second.Number, second.Revision)
	}
	b.absent("key_f")
	b.refused(keystore.ErrNameTaken, func(tx keystore.Tx) error { // by renaming
		r, err := tx.Key("key_b")
		r.Name = "billing"
		return errors.Join(err, tx.PutKey(&r))
	})
	b.refused(keystore.ErrNameTaken, func(tx keystore.Tx) error { // within one transaction
		g, h := named("g", "new"), named("h", "new")
		if err := tx.PutKey(&g); err != nil {
			t.Errorf("first of a name: %v", err)
		}
		return tx.PutKey(&h)
	})
	b.absent("key_g")

	// A refusal is no failure: the transaction may go on with another name.
	b.transact(func(tx keystore.Tx) error {
		if err := tx.PutKey(&second); !errors.Is(err, keystore.ErrNameTaken) {
			t.Errorf("got %v", err)
		}
		second.Name = "billing-2"
		return tx.PutKey(&second)
	})
	b.found("key_f", second)

	b.update("key_a", func(r *keystore.Record) { r.Scopes = "x" }) // its own name is not in its way
	b.delete("key_a")
	b.put(named("i", "billing")) // free again
	b.update("key_i", func(r *keystore.Record) { r.Name = "other" })
	b.put(named("j", "billing"))
}

// numbers ascend and are not given again; nor may two keys share an alias.
func numbers(t *testing.T, h Harness) {
	b := open(t, h)
	highest := keystore.Number(0)
	for n := range 5 {
		r := b.put(key(fmt.Sprint("n", n)))
		if r.Number <= highest {
			t.Fatalf("number %d after %d", r.Number, highest)
		}
		highest = r.Number
		b.delete(r.ID)
	}
	kept := b.put(key("kept"))
	if kept.Number <= highest {
		t.Errorf("number %d was given again", kept.Number)
	}
	thief := key("thief")
	thief.Current.AccessKey = kept.Current.AccessKey
	twin := key("twin")
	twin.ID = kept.ID
	for _, r := range []keystore.Record{thief, twin} {
		before := b.head()
		if _, err := b.store.Transact(b.Context(), func(tx keystore.Tx) error { return tx.PutKey(&r) }); err == nil {
			t.Errorf("%s took what leads to %s", r.ID, kept.ID)
		}
		if b.head() != before {
			t.Errorf("the refused %s moved the head", r.ID)
		}
	}
	b.found(keystore.LookupID(kept.Current.AccessKey), kept)
	b.refused(keystore.ErrKeyNotFound, func(tx keystore.Tx) error { return tx.DeleteKey("key_n1") })
	b.refused(keystore.ErrKeyNotFound, func(tx keystore.Tx) error { _, err := tx.Key("key_n1"); return err })
	b.refused(keystore.ErrKeyNotFound, func(tx keystore.Tx) error {
		_, err := tx.Key(keystore.KeyID(kept.Current.AccessKey)) // an alias is no id
		return err
	})
	gone := key("n1")
	gone.Number = 1
	b.refused(keystore.ErrKeyNotFound, func(tx keystore.Tx) error { return tx.PutKey(&gone) })
}
