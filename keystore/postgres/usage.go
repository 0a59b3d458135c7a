package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// AddUsage implements keystore.UsageLog, in one transaction, which is in no
// writer's way.
func (s *Store) AddUsage(ctx context.Context, batch keystore.UsageBatch) error {
	const doing = "adding usage"
	if err := s.enter(ctx, s.scans, doing); err != nil {
		return err
	}
	defer s.scans.leave()
	conn, err := s.begin(ctx, s.scans, "SELECT 1", func(row pgx.Row) error { return row.Scan(new(int)) })
	if err != nil {
		return s.failure(ctx, doing, err)
	}
	defer s.release(conn)
	if err := ctx.Err(); err != nil {
		return s.failure(ctx, doing, err)
	}
	limited, cancel := context.WithTimeout(ctx, s.scans.limit)
	defer cancel()
	return s.failure(ctx, doing, conn.SendBatch(limited, usageStatements(batch)).Close())
}

func usageStatements(batch keystore.UsageBatch) *pgx.Batch {
	out := &pgx.Batch{}
	if counts := countColumns(batch.Counts); counts != nil {
		out.Queue(addDays, counts...)
		out.Queue(addMonths, counts...)
	}
	if len(batch.Last) != 0 {
		out.Queue(moveLastUses, lastUseColumns(batch.Last)...)
	}
	if batch.Oldest != 0 {
		out.Queue(dropDays, int64(batch.Oldest))
	}
	out.Queue("COMMIT")
	return out
}

// countColumns turns counts into one list for each column, or nil if nothing
// was counted.
func countColumns(counts []keystore.UsageCount) []any {
	var days, outcomes, requests []int64
	var keys, organizations []string
	for i := range counts {
		c := &counts[i]
		if c.Requests == 0 { // a row would say that the key was there
			continue
		}
		days, outcomes, requests = append(days, int64(c.Day)), append(outcomes, int64(c.Outcome)), append(requests, int64(c.Requests))
		keys, organizations = append(keys, string(c.Key)), append(organizations, c.Organization)
	}
	if days == nil {
		return nil
	}
	return []any{days, keys, organizations, outcomes, requests}
}

func lastUseColumns(uses []keystore.LastUse) []any {
	var keys []string
	var generations, instants []int64
	for i := range uses {
		u := &uses[i]
		keys, generations, instants = append(keys, string(u.Key)), append(generations, int64(u.Generation)), append(instants, int64(u.At))
	}
	return []any{keys, generations, instants}
}

// Usage implements keystore.UsageLog.
func (s *Store) Usage(ctx context.Context, q keystore.UsageQuery) ([]keystore.UsageRow, error) {
	const doing = "summing up usage"
	query, args, err := usageQuery(q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return collect(ctx, s, doing, query, args, func(r *keystore.UsageRow) []any {
		to := []any{number(&r.Day), text(&r.Key), number(&r.Outcome), number(&r.Requests), number(&r.Keys)}
		if q.FromMonth != 0 {
			to[0] = number(&r.Month)
		}
		return to
	})
}

func usageQuery(q keystore.UsageQuery) (string, []any, error) {
	var which conditions
	table, from, to := "usage_days", int64(q.FromDay), int64(q.ToDay)
	byMonth, err := q.ByMonth()
	if err != nil {
		return "", nil, err
	}
	if byMonth {
		table, from, to = "usage_months", int64(q.FromMonth), int64(q.ToMonth)
	}
	which.add("period BETWEEN ? AND ?", from, to)
	if q.Organization != "" {
		which.add("organization = ?", storable(q.Organization))
	}
	if q.Key != "" {
		which.add("key = ?", storable(string(q.Key)))
	}
	key, group := "''", "period, outcome"
	if q.ByKey {
		key, group = "key", "period, key, outcome"
	}
	limit := ""
	if q.Limit > 0 {
		limit = " LIMIT " + which.parameter(int64(q.Limit))
	}
	return "SELECT period, " + key + ", outcome, sum(requests)::bigint, count(DISTINCT key) FROM " + table + which.where() +
		" GROUP BY " + group + " ORDER BY " + group + limit, which.args, nil
}

// LastUsed implements keystore.UsageLog.
func (s *Store) LastUsed(ctx context.Context, keys []keystore.KeyID) ([]keystore.LastUse, error) {
	// As one parameter: there is no bound to how many keys may be asked for.
	return collect(ctx, s, "reading last uses", lastUsedQuery, []any{storables(keys)}, func(u *keystore.LastUse) []any {
		return []any{text(&u.Key), number(&u.Generation), number(&u.At)}
	})
}
