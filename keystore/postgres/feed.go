package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// changesQuery gives the head, whether the log holds the position ($1, $2),
// and beside them the changes after it, at most $3, each with the value of
// its object: all in one statement, so from one snapshot. A row comes back
// though there be no change. The laterals keep the planner from reading a whole
// table for a few rows of it.
var changesQuery = "SELECT " + headColumns +
	", EXISTS (SELECT FROM log WHERE revision = $1 AND mark = $2)" +
	", change.revision, change.mark, change.kind, change.name, change.aliases, " +
	keySelection + ", " + organizationSelection + ", " + documentSelection +
	" FROM head" +
	" LEFT JOIN LATERAL (SELECT * FROM log WHERE log.revision > $1 ORDER BY log.revision LIMIT $3) AS change ON true" +
	" LEFT JOIN LATERAL (SELECT keys.* FROM aliases JOIN keys ON keys.number = aliases.number" +
	" WHERE change.kind = 'key' AND aliases.alias = change.name LIMIT 1) AS keys ON true" +
	" LEFT JOIN LATERAL (SELECT * FROM organizations WHERE change.kind = 'organization' AND slug = change.name LIMIT 1) AS organizations ON true" +
	" LEFT JOIN LATERAL (SELECT * FROM documents WHERE kind = change.kind AND name = change.name LIMIT 1) AS documents ON true" +
	" ORDER BY change.revision"

// Changes implements keystore.Feed, in one round trip.
func (s *Store) Changes(ctx context.Context, after keystore.Position, limit int) (batch keystore.Batch, err error) {
	err = s.ask(ctx, s.feed, "reading the log", func(ctx context.Context, conn *pgx.Conn) error {
		batch = keystore.Batch{}
		read := false
		err := eachRow(func() (pgx.Rows, error) {
			return conn.Query(ctx, changesQuery, int64(after.Revision), int64(after.Mark), int64(max(limit, 0)))
		}, func(rows pgx.Rows) error {
			read = true
			return appendChange(rows, after, &batch)
		})
		if err == nil && !read {
			err = errNoHead
		}
		return err
	})
	if errors.Is(err, keystore.ErrPositionLost) {
		s.pool.Reset() // others may still lead to the server that was replaced
	}
	if err != nil {
		return keystore.Batch{}, err
	}
	s.read.Store(&batch.Head)
	return batch, nil
}

// errReplaced: what answers does not know the changes that were read, so it
// has taken the place of what was read.
var errReplaced = errors.New("the log is not the one that was read")

// continues refuses to change a log of which less is there than was read. Its
// revisions would seem to be applied here, and would not be.
func (s *Store) continues(locked keystore.Position) error {
	read := s.read.Load()
	if read == nil || locked.Revision > read.Revision || locked == *read {
		return nil
	}
	return fmt.Errorf("%w: it ends at revision %d, and was read up to %d", errReplaced, locked.Revision, read.Revision)
}

func appendChange(rows pgx.Rows, after keystore.Position, batch *keystore.Batch) error {
	var row struct {
		head         head
		verdict      verdict
		held         bool
		change       keystore.Change
		key          keystore.Record
		organization keystore.Organization
		document     keystore.Document
	}
	to := append(row.head.targets(&row.verdict), &row.held,
		number(&row.change.Revision), number(&row.change.Mark), text(&row.change.Kind), text(&row.change.Name), &row.change.Aliases)
	to = append(to, keyTargets(&row.key)...)
	to = append(to, organizationTargets(&row.organization)...)
	to = append(to, documentTargets(&row.document)...)
	if err := rows.Scan(to...); err != nil {
		return err
	}
	if err := row.verdict.err(); err != nil {
		return err
	}
	if !row.held {
		return fmt.Errorf("after revision %d: %w", after.Revision, keystore.ErrPositionLost)
	}
	batch.Head = row.head.Position
	c := row.change
	if c.Revision == 0 { // there is none
		return nil
	}
	switch {
	case c.Kind == keystore.KindKey && row.key.Number != 0:
		c.Key = &row.key
	case c.Kind == keystore.KindOrganization && row.organization.Number != 0:
		c.Organization = &row.organization
	case row.document.Revision != 0:
		c.Document = &row.document
	}
	batch.Changes = append(batch.Changes, c)
	return nil
}

// Snapshot implements keystore.Snapshotter, in one round trip. It may take
// longer than the rest of the feed.
func (s *Store) Snapshot(ctx context.Context) (snap keystore.Snapshot, err error) {
	at := s.feed
	at.limit = s.scans.limit
	err = s.ask(ctx, at, "reading a snapshot", func(ctx context.Context, conn *pgx.Conn) error {
		snap = keystore.Snapshot{}
		batch := &pgx.Batch{}
		batch.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		batch.Queue(headQuery).QueryRow(func(row pgx.Row) error {
			var h head
			err := h.scan(row)
			snap.Head = h.Position
			return err
		})
		batch.Queue(organizationQuery + " ORDER BY number").Query(func(rows pgx.Rows) error {
			return gather(rows, into(&snap.Organizations, organizationTargets))
		})
		batch.Queue(documentQuery + " ORDER BY kind, name").Query(func(rows pgx.Rows) error {
			return gather(rows, into(&snap.Documents, documentTargets))
		})
		batch.Queue("COMMIT")
		return conn.SendBatch(ctx, batch).Close()
	})
	if err != nil {
		return keystore.Snapshot{}, err
	}
	s.read.Store(&snap.Head)
	return snap, nil
}

func gather(rows pgx.Rows, take func(pgx.Rows) error) error {
	return eachRow(func() (pgx.Rows, error) { return rows, nil }, take)
}
