//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/warderhq/warder/keystore"
)

// snapshot runs fn on one unchanging state of the store.
func (s *Store) snapshot(ctx context.Context, doing string, fn func(*sql.Tx) error) error {
	if err := s.enter(ctx, s.feed, doing); err != nil {
		return err
	}
	defer s.feed.leave()
	// Read only: without it, the driver would ask for the write lock.
	view, err := s.reads.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	defer view.Rollback()
	err = fn(view)
	if err == nil || errors.Is(err, keystore.ErrPositionLost) {
		return err
	}
	return s.failure(ctx, doing, err)
}

// Changes implements keystore.Feed.
func (s *Store) Changes(ctx context.Context, after keystore.Position, limit int) (keystore.Batch, error) {
	var batch keystore.Batch
	err := s.snapshot(ctx, "reading the log", func(view *sql.Tx) (err error) {
		if err := s.holds(ctx, view, after); err != nil {
			return err
		}
		if batch.Head, err = s.readHead(ctx, view.StmtContext(ctx, s.read.head)); err != nil {
			return err
		}
		if batch.Changes, err = s.logRows(ctx, view, after.Revision, max(limit, 0)); err != nil {
			return err
		}
		return s.fillIn(ctx, view, batch.Changes)
	})
	if err != nil {
		return keystore.Batch{}, err
	}
	return batch, nil
}

// holds refuses a position that is not, or no more, in this log.
func (s *Store) holds(ctx context.Context, view *sql.Tx, at keystore.Position) error {
	var mark keystore.Mark
	err := view.StmtContext(ctx, s.read.mark).QueryRowContext(ctx, int64(at.Revision)).Scan(number(&mark))
	if errors.Is(err, sql.ErrNoRows) || err == nil && mark != at.Mark {
		return fmt.Errorf("reading the log after revision %d: %w", at.Revision, keystore.ErrPositionLost)
	}
	return err
}

func (s *Store) logRows(ctx context.Context, view *sql.Tx, after keystore.Revision, limit int) ([]keystore.Change, error) {
	rows, err := view.StmtContext(ctx, s.read.changes).QueryContext(ctx, int64(after), int64(limit))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var changes []keystore.Change
	for rows.Next() {
		var c keystore.Change
		if err := rows.Scan(number(&c.Revision), number(&c.Mark), text(&c.Kind), text(&c.Name), list[keystore.LookupID]{&c.Aliases}); err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, rows.Err()
}

// fillIn gives every change its object's value, each object read once, and all
// keys at once: a log grows by a thousand of them in one import.
func (s *Store) fillIn(ctx context.Context, view *sql.Tx, changes []keystore.Change) error {
	keys, err := s.changedKeys(ctx, view, changes)
	if err != nil {
		return err
	}
	type object struct {
		kind keystore.Kind
		name string
	}
	read := make(map[object]keystore.Change)
	for i := range changes {
		c := &changes[i]
		if c.Kind == keystore.KindKey {
			c.Key = keys[c.Name]
			continue
		}
		value, ok := read[object{c.Kind, c.Name}]
		if !ok {
			if value, err = s.valueOf(ctx, view, c.Kind, c.Name); err != nil {
				return err
			}
			read[object{c.Kind, c.Name}] = value
		}
		c.Organization, c.Document = value.Organization, value.Document
	}
	return nil
}

// changedKeys returns the records of the changed keys that are still there, by
// their ids.
func (s *Store) changedKeys(ctx context.Context, view *sql.Tx, changes []keystore.Change) (map[string]*keystore.Record, error) {
	var ids []string
	for i := range changes {
		if changes[i].Kind == keystore.KindKey {
			ids = append(ids, changes[i].Name)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := view.StmtContext(ctx, s.read.keys).QueryContext(ctx, listText(ids))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	keys := make(map[string]*keystore.Record, len(ids))
	for rows.Next() {
		r := new(keystore.Record)
		if err := rows.Scan(keyTargets(r)...); err != nil {
			return nil, err
		}
		keys[string(r.ID)] = r
	}
	return keys, rows.Err()
}

// valueOf returns a Change with nothing but the one value, if there is one.
func (s *Store) valueOf(ctx context.Context, view *sql.Tx, kind keystore.Kind, name string) (keystore.Change, error) {
	var st *sql.Stmt
	var args, to []any
	var value keystore.Change
	switch kind {
	case keystore.KindOrganization:
		value.Organization = new(keystore.Organization)
		st, args, to = s.read.organization, []any{name}, organizationTargets(value.Organization)
	default:
		value.Document = new(keystore.Document)
		st, args, to = s.read.document, []any{string(kind), name}, documentTargets(value.Document)
	}
	err := view.StmtContext(ctx, st).QueryRowContext(ctx, args...).Scan(to...)
	if errors.Is(err, sql.ErrNoRows) {
		return keystore.Change{}, nil
	}
	return value, err
}

// Snapshot implements keystore.Snapshotter.
func (s *Store) Snapshot(ctx context.Context) (keystore.Snapshot, error) {
	var snap keystore.Snapshot
	err := s.snapshot(ctx, "reading a snapshot", func(view *sql.Tx) (err error) {
		if snap.Head, err = s.readHead(ctx, view.StmtContext(ctx, s.read.head)); err != nil {
			return err
		}
		snap.Organizations, err = all(ctx, view.StmtContext(ctx, s.read.organizations), organizationTargets)
		if err != nil {
			return err
		}
		snap.Documents, err = all(ctx, view.StmtContext(ctx, s.read.documents), documentTargets)
		return err
	})
	if err != nil {
		return keystore.Snapshot{}, err
	}
	return snap, nil
}

func all[T any](ctx context.Context, st *sql.Stmt, targets func(*T) []any, args ...any) ([]T, error) {
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var one T
		if err := rows.Scan(targets(&one)...); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, rows.Err()
}
