package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// keyColumns, keyTargets and keyValues name the columns of a key in one order.
var keyColumns = []string{
	"number", "id", "organization", "name", "type",
	"current_generation", "current_access_key", "current_digest",
	"previous_generation", "previous_access_key", "previous_digest", "grace_end",
	"created", "expires", "deactivated", "blocked",
	"scopes", "permissions", "networks", "rate_limit", "metadata", "revision",
}

func keyTargets(r *keystore.Record) []any {
	return []any{
		number(&r.Number), text(&r.ID), text(&r.Organization), text(&r.Name), number(&r.Type),
		number(&r.Current.Generation), text(&r.Current.AccessKey), fixed(&r.Current.Digest),
		number(&r.Previous.Generation), text(&r.Previous.AccessKey), fixed(&r.Previous.Digest), number(&r.GraceEnd),
		number(&r.Created), number(&r.Expires), flag(&r.Deactivated), flag(&r.Blocked),
		text(&r.Scopes), text(&r.Permissions), text(&r.Networks), limited{&r.Limit}, text(&r.Metadata), number(&r.Revision),
	}
}

func keyValues(r *keystore.Record) []any {
	return []any{
		int64(r.Number), string(r.ID), r.Organization, r.Name, int64(r.Type),
		int64(r.Current.Generation), string(r.Current.AccessKey), digest(r.Current.Digest),
		int64(r.Previous.Generation), string(r.Previous.AccessKey), digest(r.Previous.Digest), int64(r.GraceEnd),
		int64(r.Created), int64(r.Expires), r.Deactivated, r.Blocked,
		string(r.Scopes), string(r.Permissions), string(r.Networks), r.Limit.String(), r.Metadata, int64(r.Revision),
	}
}

// lookupKey gives a row whether there is such a key or not.
var lookupKey = "SELECT " + headColumns + ", " + keySelection + " FROM head" +
	" LEFT JOIN aliases ON aliases.alias = $1 LEFT JOIN keys ON keys.number = aliases.number"

// Lookup implements keystore.Records. Record and revision come from one
// statement, so from one snapshot.
func (s *Store) Lookup(ctx context.Context, id keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	var found struct {
		record keystore.Record
		head   head
	}
	err := s.ask(ctx, s.lookups, "looking up a key", func(ctx context.Context, conn *pgx.Conn) error {
		var v verdict
		err := conn.QueryRow(ctx, lookupKey, storable(string(id))).Scan(append(found.head.targets(&v), keyTargets(&found.record)...)...)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoHead
		}
		if err != nil {
			return err
		}
		return v.err()
	})
	if err != nil {
		return keystore.Record{}, 0, err
	}
	return found.record, found.head.Revision, nil
}

// storable returns an id that the database can have, or else one that it never
// has. It refuses the whole statement for what is no text.
func storable(id string) string {
	if !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return ""
	}
	return id
}

func storables[T ~string](ids []T) []string {
	out := texts(ids)
	for i := range out {
		out[i] = storable(out[i])
	}
	return out
}

// Key implements keystore.KeyTx.
func (t *tx) Key(id keystore.KeyID) (keystore.Record, error) {
	const doing = "reading a key"
	if err := t.usable(doing); err != nil {
		return keystore.Record{}, err
	}
	if _, met := t.keys[id]; !met {
		if _, err := t.KeysFoundBy([]keystore.LookupID{keystore.LookupID(id)}); err != nil {
			return keystore.Record{}, err
		}
	}
	// An access key finds a row too, but is not its name.
	r := t.keys[id]
	if r.ID != id || id == "" {
		t.keys[id] = keystore.Record{}
		return keystore.Record{}, fmt.Errorf("%s %s: %w", doing, id, keystore.ErrKeyNotFound)
	}
	return r, nil
}

// KeysFoundBy implements keystore.ListTx.
func (t *tx) KeysFoundBy(ids []keystore.LookupID) ([]keystore.Record, error) {
	const doing = "looking up keys"
	if err := t.usable(doing); err != nil || len(ids) == 0 {
		return nil, err
	}
	var out []keystore.Record
	if err := t.rows(doing, keysByAliases, []any{storables(ids)}, into(&out, keyTargets)); err != nil {
		return nil, err
	}
	t.meet(out)
	return out, nil
}

// meet remembers keys as they are.
func (t *tx) meet(keys []keystore.Record) {
	for _, r := range keys {
		t.keys[r.ID] = r
	}
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
	revision, err := t.log(keystore.KindKey, string(r.ID), changed)
	if err != nil {
		return err
	}
	after := *r
	after.Revision = revision
	if err := t.writeKey(&after); err != nil {
		return err
	}
	if err := t.moveAliases(&before, &after, changed); err != nil {
		return err
	}
	if err := t.movePermissions(after.Number, before.Permissions, after.Permissions); err != nil {
		return err
	}
	t.keys[after.ID] = after
	*r = after
	return nil
}

// permitName keeps names unique among an organization's living keys, and
// refuses an organization that does not exist.
func (t *tx) permitName(r, before *keystore.Record) error {
	if r.Organization != before.Organization {
		if _, err := t.Organization(r.Organization); err != nil {
			return fmt.Errorf("writing key %s: %w", r.ID, err)
		}
	}
	if r.Name == "" || r.Name == before.Name && r.Organization == before.Organization {
		return nil
	}
	var owner keystore.Number
	taken, err := t.row("reading a key's name", []any{number(&owner)}, nameOwner, r.Organization, r.Name)
	if err == nil && taken {
		return fmt.Errorf("naming key %s: %w", r.ID, keystore.ErrNameTaken)
	}
	return err
}

func (t *tx) writeKey(r *keystore.Record) error {
	if r.Number != 0 {
		return t.exec("updating a key", updateKey, keyValues(r)...)
	}
	t.head.keys++
	r.Number = t.head.keys
	return t.exec("inserting a key", insertKey, keyValues(r)...)
}

// moveAliases adds what appeared and takes what disappeared. An alias that
// another key has fails the transaction: generated ones never collide.
func (t *tx) moveAliases(before, after *keystore.Record, changed []keystore.LookupID) error {
	if before.ID == "" {
		changed = append(slices.Clone(changed), keystore.LookupID(after.ID))
	}
	for _, alias := range changed {
		var err error
		if after.FoundBy(alias) {
			err = t.exec("adding an alias", insertAlias, string(alias), int64(after.Number))
		} else {
			err = t.exec("removing an alias", deleteAlias, string(alias))
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
		if err := t.exec("removing a key's permission", deleteKeyPermission, id, int64(of)); err != nil {
			return err
		}
	}
	for _, id := range after.List() {
		if err := t.exec("adding a key's permission", insertKeyPermission, id, int64(of)); err != nil {
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
		if err := t.exec("removing an alias", deleteAlias, string(alias)); err != nil {
			return err
		}
	}
	if err := t.movePermissions(before.Number, before.Permissions, ""); err != nil {
		return err
	}
	t.keys[id] = keystore.Record{}
	return t.exec("deleting a key", deleteKey, int64(before.Number))
}
