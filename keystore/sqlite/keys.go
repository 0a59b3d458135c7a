//go:build unix

package sqlite

import (
	"context"
	"fmt"
	"slices"

	"github.com/warderhq/warder/keystore"
)

// keyColumns, keyTargets and keyValues name the columns of a key, but its
// number, in one order.
var keyColumns = []string{
	"id", "organization", "name", "type",
	"current_generation", "current_access_key", "current_digest",
	"previous_generation", "previous_access_key", "previous_digest", "grace_end",
	"created", "expires", "deactivated", "blocked",
	"scopes", "permissions", "networks", "rate_limit", "metadata", "revision",
}

func keyTargets(r *keystore.Record) []any {
	return []any{
		number(&r.Number),
		text(&r.ID), text(&r.Organization), text(&r.Name), number(&r.Type),
		number(&r.Current.Generation), text(&r.Current.AccessKey), fixed(&r.Current.Digest),
		number(&r.Previous.Generation), text(&r.Previous.AccessKey), fixed(&r.Previous.Digest), number(&r.GraceEnd),
		number(&r.Created), number(&r.Expires), flag(&r.Deactivated), flag(&r.Blocked),
		text(&r.Scopes), text(&r.Permissions), text(&r.Networks), limited{&r.Limit}, text(&r.Metadata), number(&r.Revision),
	}
}

func keyValues(r *keystore.Record) []any {
	return []any{
		string(r.ID), r.Organization, r.Name, int64(r.Type),
		int64(r.Current.Generation), string(r.Current.AccessKey), digest(r.Current.Digest),
		int64(r.Previous.Generation), string(r.Previous.AccessKey), digest(r.Previous.Digest), int64(r.GraceEnd),
		int64(r.Created), int64(r.Expires), r.Deactivated, r.Blocked,
		string(r.Scopes), string(r.Permissions), string(r.Networks), r.Limit.String(), r.Metadata, int64(r.Revision),
	}
}

// Lookup implements keystore.Records. Record and revision come from one
// statement, so from one snapshot.
func (s *Store) Lookup(ctx context.Context, id keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	const doing = "looking up a key"
	if err := s.enter(ctx, s.lookups, doing); err != nil {
		return keystore.Record{}, 0, err
	}
	defer s.lookups.leave()
	// Not under ctx: a statement of microseconds is not worth the two
	// goroutines that would watch over it.
	var found struct {
		record keystore.Record
		head   keystore.Revision
	}
	to := append(keyTargets(&found.record), number(&found.head))
	if err := s.read.lookup.QueryRowContext(context.Background(), string(id)).Scan(to...); err != nil {
		return keystore.Record{}, 0, s.failure(ctx, doing, err)
	}
	return found.record, found.head, nil
}

// Key implements keystore.KeyTx.
func (t *tx) Key(id keystore.KeyID) (keystore.Record, error) {
	var r keystore.Record
	found, err := t.row("reading a key", t.store.write.key, keyTargets(&r), string(id))
	if err != nil {
		return keystore.Record{}, err
	}
	// An access key finds the row too, but is not its name.
	if !found || r.ID != id {
		return keystore.Record{}, fmt.Errorf("reading key %s: %w", id, keystore.ErrKeyNotFound)
	}
	return r, nil
}

// KeysFoundBy implements keystore.ListTx.
func (t *tx) KeysFoundBy(ids []keystore.LookupID) ([]keystore.Record, error) {
	const doing = "looking up keys"
	if err := t.usable(doing); err != nil || len(ids) == 0 {
		return nil, err
	}
	out, err := all(context.WithoutCancel(t.ctx), t.sql.Stmt(t.store.write.keys), keyTargets, listText(ids))
	if err != nil {
		return nil, t.fail(doing, err)
	}
	seen := make(map[keystore.KeyID]bool, len(out)) // two aliases may lead to one key
	return slices.DeleteFunc(out, func(r keystore.Record) bool {
		twice := seen[r.ID]
		seen[r.ID] = true
		return twice
	}), nil
}

// PutKey implements keystore.KeyTx.
func (t *tx) PutKey(r *keystore.Record) error {
	var before keystore.Record
	if r.Number != 0 {
		var err error
		if before, err = t.Key(r.ID); err != nil {
			return err
		}
		same := *r
		same.Revision = before.Revision
		if same == before {
			r.Revision = before.Revision
			return nil
		}
		if r.Number != before.Number {
			return fmt.Errorf("writing key %s: its number is %d, not %d", r.ID, before.Number, r.Number)
		}
	}
	if err := t.permitName(r, &before); err != nil {
		return err
	}
	if err := r.Limit.Validate(); err != nil { // it would not be read back
		return fmt.Errorf("writing key %s: %w", r.ID, err)
	}
	changed := keystore.ChangedAliases(&before, r)
	after := *r
	after.Revision = t.head.Revision + 1 // of the row that the log is about to get
	if err := t.writeKey(&after); err != nil {
		return err
	}
	if _, err := t.log(keystore.KindKey, string(r.ID), changed); err != nil {
		return err
	}
	if err := t.moveAliases(&before, &after, changed); err != nil {
		return err
	}
	if err := t.movePermissions(after.Number, before.Permissions, after.Permissions); err != nil {
		return err
	}
	*r = after
	return nil
}

// permitName keeps names unique among an organization's living keys, and
// refuses an organization that does not exist.
func (t *tx) permitName(r, before *keystore.Record) error {
	if r.Organization != before.Organization && !t.owners[r.Organization] {
		if _, err := t.Organization(r.Organization); err != nil {
			return fmt.Errorf("writing key %s: %w", r.ID, err)
		}
	}
	if r.Number == 0 || r.Name == "" || r.Name == before.Name && r.Organization == before.Organization {
		return nil // a new key finds out when it is inserted: imports are made of this
	}
	var owner keystore.Number
	taken, err := t.row("reading a key's name", t.store.write.nameOwner, []any{number(&owner)}, r.Organization, r.Name)
	if err == nil && taken {
		return nameTaken(r)
	}
	return err
}

func nameTaken(r *keystore.Record) error {
	return fmt.Errorf("naming key %s: %w", r.ID, keystore.ErrNameTaken)
}

func (t *tx) writeKey(r *keystore.Record) (err error) {
	if r.Number == 0 {
		r.Number, err = t.insert("inserting a key", t.store.write.insertKey, keyValues(r)...)
		if err == nil && r.Number == 0 {
			return nameTaken(r)
		}
		return err
	}
	return t.exec("updating a key", t.store.write.updateKey, append(keyValues(r), int64(r.Number))...)
}

// moveAliases adds what appeared and takes what disappeared. An alias that
// another key has fails the transaction: generated ones never collide.
func (t *tx) moveAliases(before, after *keystore.Record, changed []keystore.LookupID) error {
	if before.ID == "" { // its id and its first alias in one statement: imports are made of this
		err := t.exec("adding a key's names", t.store.write.insertNames,
			string(after.ID), int64(after.Number), string(changed[0]), int64(after.Number))
		if err != nil {
			return err
		}
		changed = changed[1:]
	}
	for _, alias := range changed {
		var err error
		if after.FoundBy(alias) {
			err = t.exec("adding an alias", t.store.write.insertAlias, string(alias), int64(after.Number))
		} else {
			err = t.exec("removing an alias", t.store.write.deleteAlias, string(alias))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// movePermissions keeps step with what a key refers to.
func (t *tx) movePermissions(of keystore.Number, before, after keystore.PermissionSet) error {
	if before == after {
		return nil
	}
	for _, id := range before.List() {
		if err := t.exec("removing a key's permission", t.store.write.deleteKeyPermission, id, int64(of)); err != nil {
			return err
		}
	}
	for _, id := range after.List() {
		if err := t.exec("adding a key's permission", t.store.write.insertKeyPermission, id, int64(of)); err != nil {
			return err
		}
	}
	return nil
}

// DeleteKey implements keystore.KeyTx.
func (t *tx) DeleteKey(id keystore.KeyID) error {
	before, err := t.Key(id)
	if err != nil {
		return err
	}
	gone := before.Aliases()
	if _, err := t.log(keystore.KindKey, string(id), gone); err != nil {
		return err
	}
	for _, alias := range append(gone, keystore.LookupID(id)) {
		if err := t.exec("removing an alias", t.store.write.deleteAlias, string(alias)); err != nil {
			return err
		}
	}
	if err := t.movePermissions(before.Number, before.Permissions, ""); err != nil {
		return err
	}
	return t.exec("deleting a key", t.store.write.deleteKey, int64(before.Number))
}
