package postgres

import (
	"context"
	"slices"

	"github.com/warderhq/warder/keystore"
)

// List implements keystore.Records.
func (s *Store) List(ctx context.Context, q keystore.Query) (keystore.Page, error) {
	query, args := listQuery(q)
	records, err := collect(ctx, s, "listing keys", query, args, keyTargets)
	if err != nil {
		return keystore.Page{}, err
	}
	return pageOf(q, records), nil
}

// Count implements keystore.Records.
func (s *Store) Count(ctx context.Context, q keystore.Query) (int, error) {
	from, _, which := selection(q)
	counts, err := collect(ctx, s, "counting keys", "SELECT count(*) FROM "+from+which.where(), which.args, func(n *int) []any { return []any{n} })
	if err != nil {
		return 0, err
	}
	return counts[0], nil
}

// Keys implements keystore.ListTx.
func (t *tx) Keys(q keystore.Query) (keystore.Page, error) {
	var records []keystore.Record
	query, args := listQuery(q)
	if err := t.rows("listing keys", query, args, into(&records, keyTargets)); err != nil {
		return keystore.Page{}, err
	}
	t.meet(records)
	return pageOf(q, records), nil
}

// pageOf makes a page of the answer to listQuery.
func pageOf(q keystore.Query, records []keystore.Record) keystore.Page {
	page := keystore.Page{Records: records}
	if limit := pageLimit(q.Limit); len(records) > limit {
		page.Records, page.More = records[:limit], true
	}
	if backwards(q) {
		slices.Reverse(page.Records)
	}
	return page
}

// pageLimit is at least 1.
func pageLimit(limit int) int { return max(limit, 1) }

// backwards reports whether the page is the one that ends at a place.
func backwards(q keystore.Query) bool { return q.Before != 0 && q.After == 0 }

// listQuery asks for one row more than the page has: it tells whether there
// are more.
func listQuery(q keystore.Query) (string, []any) {
	from, place, which := selection(q)
	which.add(place+" > ?", int64(q.After))
	if q.Before != 0 {
		which.add(place+" < ?", int64(q.Before))
	}
	order := place
	if backwards(q) {
		order += " DESC"
	}
	limit := which.parameter(int64(pageLimit(q.Limit)) + 1)
	return "SELECT " + keySelection + " FROM " + from + which.where() + " ORDER BY " + order + " LIMIT " + limit, which.args
}

// stateColumn is Record.State in SQL; its one parameter is the time.
const stateColumn = `CASE
	WHEN current_generation = 0 THEN 0
	WHEN blocked THEN 1
	WHEN expires <> 0 AND expires <= ? THEN 2
	WHEN deactivated THEN 3
	ELSE 4 END`

// importedColumn is keystore.IsImported for either name, word for word as in
// the index keys_imported, or PostgreSQL would not use that.
const importedColumn = "(substr(current_access_key, 1, 9) = 'imported_' OR substr(previous_access_key, 1, 9) = 'imported_')"

// selection says from which tables the keys of a query come, by which column
// they are in order, and what they have to meet, their place aside.
func selection(q keystore.Query) (from, place string, which conditions) {
	from, place = "keys", "keys.number"
	if q.Permission != "" {
		from, place = "key_permissions JOIN keys ON keys.number = key_permissions.number", "key_permissions.number"
		which.add("permission = ?", storable(q.Permission))
	}
	if q.Organization != "" {
		which.add("organization = ?", storable(q.Organization))
	}
	if q.Name != "" {
		which.add("name = ? AND name <> ''", storable(q.Name)) // the index has no keys without a name
	}
	if q.Type != keystore.TypeUnknown {
		which.add("type = ?", int64(q.Type))
	}
	if q.State != keystore.StateUnknown {
		which.add(stateColumn+" = ?", q.Now.UnixMicro(), int64(q.State))
	}
	if q.Imported {
		which.add(importedColumn)
	}
	return from, place, which
}
